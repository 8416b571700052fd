"""The files of a causal language model or of an adapter: where they are, what they are, and their digest."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from harness.errors import LabelerError
from labelers.sentence_folder import digest, located

__all__ = ["ModelFiles", "find_adapter", "find_model"]

_DECIDING = (
    "adapter_config.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
)
"""What decides an answer, besides the weights."""


@dataclass(frozen=True)
class ModelFiles:
    """A folder.

    Attributes
    ----------
    name: one word for the label's id. config: its main settings.
    commit: the hub's name for just these files; "" for a folder of one's own.
    """

    path: Path
    name: str
    config: dict[str, Any]
    commit: str

    @property
    def weights(self) -> list[Path]:
        """The files of the weights."""
        return sorted(self.path.glob("*.safetensors"))

    def digest(self) -> str:
        """What tells this model from any other: the hub's commit, or a digest of the files."""
        if self.commit:
            return self.commit
        files = [*self.weights, *(self.path / name for name in _DECIDING)]
        known = [[file.name, digest(file)] for file in files if file.is_file()]
        return sha256(json.dumps(known).encode()).hexdigest()


def find_model(where: str, revision: str = "", *, instead: str = "") -> ModelFiles:
    """The model in a folder, or of a hub id that was downloaded before. Nothing is downloaded.

    Parameters
    ----------
    revision: of the hub id. instead: a file that may stand for the weights.

    Raises
    ------
    LabelerError: it is not there, or lacks a file; the message says what to do.
    """
    found = _found(where, "config.json", revision, instead)
    if not (found.path / "tokenizer.json").is_file():
        raise LabelerError(
            f"{found.path} lacks tokenizer.json, a fast tokenizer. Next: save one with "
            f"transformers.AutoTokenizer.from_pretrained({where!r}).save_pretrained(FOLDER)"
        )
    return found


def find_adapter(where: str) -> ModelFiles:
    """The adapter in a folder, or of a hub id that was downloaded before. Nothing is downloaded.

    Raises
    ------
    LabelerError: as for `find_model`.
    """
    return _found(where, "adapter_config.json", "")


def _found(where: str, config: str, revision: str, instead: str = "") -> ModelFiles:
    what = "an adapter's folder" if config.startswith("adapter") else "a model's folder"
    path, name = located(where, what, revision or None)
    if missing := [c for c, there in _needed(path, config, instead).items() if not there]:
        hint = (
            " Next: name the adapter as adapter=FOLDER, and its base as the model"
            if (config == "config.json" and (path / "adapter_config.json").is_file())
            else ""
        )
        raise LabelerError(f"{path} lacks {', '.join(missing)}; {what} has them.{hint}")
    try:
        settings = json.loads((path / config).read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise LabelerError(f"{path / config} cannot be read: {exc}") from exc
    if not isinstance(settings, dict):
        raise LabelerError(f"{path / config} holds a {type(settings).__name__}, not a dict")
    commit = path.name if path.parent.name == "snapshots" else ""
    return ModelFiles(path, re.sub(r"[^\w.+-]+", "-", name) or "hf", settings, commit)


def _needed(path: Path, config: str, instead: str) -> dict[str, bool]:
    weights = any(path.glob("*.safetensors")) or (bool(instead) and (path / instead).is_file())
    return {config: (path / config).is_file(), "weights (*.safetensors)": weights}
