"""The files of a cross-encoder: where they are, what its labels mean, and what can run it."""

from __future__ import annotations

import re
from typing import Any

from harness.errors import LabelerError
from labelers.bert_onnx import unfit
from labelers.causal_files import ModelFiles, find_model
from labelers.sentence_folder import read_json

__all__ = ["EXPORTED", "find_cross", "labels", "longest", "names", "tells_parts", "unsupported"]

EXPORTED = "stopgap_int8.onnx"
"""The file in which a folder may have its model as an int8 graph, beside its weights or instead of them."""


def find_cross(where: str, revision: str = "") -> ModelFiles:
    """The model in a folder, or of a hub id that was downloaded before. Nothing is downloaded.

    Raises
    ------
    LabelerError: it is not there, lacks a file, or is a model of another kind; the message says what to do.
    """
    files = find_model(where, revision, instead=EXPORTED)
    kinds = files.config.get("architectures") or []
    kind = str(kinds[0]) if isinstance(kinds, list) and kinds else ""
    if kind.endswith("ForSequenceClassification"):
        return files
    hint = ""
    if (files.path / "modules.json").is_file():
        hint = f" Next: minilm:{where}, which is for sentence encoders"
    elif kind.endswith(("ForCausalLM", "LMHeadModel")):
        hint = f" Next: hf:{where}, which is for causal language models"
    if kind or hint:
        raise LabelerError(f"{files.path} is a {kind or 'sentence encoder'}, no cross-encoder.{hint}")
    return files


def labels(files: ModelFiles, grades: dict[int, str]) -> list[int] | None:
    """For each grade, ascending, the number of the model's label for it; None: its one label is a score.

    Labels whose names are whole numbers are the grades of these numbers; others stand for the grades in
    their order.

    Raises
    ------
    LabelerError: the model has another number of labels, or labels for other grades.
    """
    named = names(files)
    if len(named) == 1:
        return None
    has = f"{files.name} has {len(named)} labels ({', '.join(named)})"
    scale = f"the collection's grades are {', '.join(map(str, sorted(grades)))}"
    numbers = [int(name) if re.fullmatch(r"[+-]?[0-9]+", name.strip()) else None for name in named]
    if any(n is not None for n in numbers):
        if len(numbers) != len(grades) or set(numbers) != set(grades):
            raise LabelerError(f"{has}, which are other grades: {scale}")
        return [numbers.index(grade) for grade in sorted(grades)]
    if len(named) != len(grades):
        raise LabelerError(
            f"{has}; {scale}. A cross-encoder has one label, which is a score, or one for each grade"
        )
    return list(range(len(named)))


def names(files: ModelFiles) -> list[str]:
    """The model's labels, in their order, as transformers reads them.

    Raises
    ------
    LabelerError: config.json does not say.
    """
    given, number = files.config.get("id2label"), files.config.get("num_labels")
    try:
        if isinstance(given, dict):
            named = {int(key): str(name) for key, name in given.items()}
            if named and sorted(named) == list(range(len(named))):
                return [named[n] for n in range(len(named))]
            raise ValueError
        if given is not None or isinstance(number, bool) or int(number or 2) < 1:
            raise ValueError
        return [f"LABEL_{n}" for n in range(int(number or 2))]
    except (TypeError, ValueError):
        raise LabelerError(f"{files.path / 'config.json'} does not say which labels the model has") from None


def longest(files: ModelFiles) -> int | None:
    """Tokens that the model can read; None: any number."""
    config = files.config
    found = []
    if isinstance(places := config.get("max_position_embeddings"), int) and places > 0:
        # RoBERTa and its kin count places from behind the padding's.
        kin = str(config.get("model_type")) in _PLACES_BEHIND_PADDING
        found.append(places - (int(config.get("pad_token_id") or 0) + 1 if kin else 0))
    most = _tokenizer_settings(files).get("model_max_length")
    if isinstance(most, int) and most > 0:
        found.append(most)  # a number beyond all bounds, where nobody has set one
    return min(found, default=None)


_PLACES_BEHIND_PADDING = ("camembert", "roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl")


def tells_parts(files: ModelFiles) -> bool:
    """Whether the model is told which tokens are the query's and which the document's.

    So unless its tokenizer's settings name inputs and this is not among them.
    """
    given = _tokenizer_settings(files).get("model_input_names")
    return not isinstance(given, list) or "token_type_ids" in given


def _tokenizer_settings(files: ModelFiles) -> dict[str, Any]:
    file = files.path / "tokenizer_config.json"
    return dict(read_json(file, dict)) if file.is_file() else {}


def unsupported(files: ModelFiles) -> str | None:
    """Why a model cannot run as an ONNX graph; None: it can."""
    if why := unfit(files.config):
        return why
    if not {"model.safetensors", EXPORTED} & {file.name for file in files.path.iterdir()}:
        return "its weights are not in one file, model.safetensors"
    return None
