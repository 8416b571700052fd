"""A sentence-transformers folder: its files, settings and pooling, and whether they are supported."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import lru_cache
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any

from harness.errors import LabelerError
from labelers.bert_onnx import unfit

__all__ = ["SentenceFolder", "digest", "find", "located", "read_json"]

_NEEDED = ("modules.json", "config.json", "tokenizer.json", "model.safetensors")
_SUPPORTED = (
    "supported are BERT encoders (model_type bert, GELU, absolute positions) with mean or cls pooling"
)


@dataclass(frozen=True)
class SentenceFolder:
    """What the encoder needs to know of a folder."""

    path: Path
    name: str
    """One word for the label's id."""
    config: dict[str, Any]
    """config.json of the BERT model."""
    pooling: str
    """`mean` of all token vectors, or `cls`, the first."""
    longest: int
    """Tokens of a window, special ones included."""
    lower: bool
    """Whether texts are put into lower case before the tokenizer sees them."""

    @property
    def weights(self) -> Path:
        """The file of the weights."""
        return self.path / "model.safetensors"

    def digest(self) -> str:
        """sha256 of the weights file."""
        return digest(self.weights)

    def fingerprint(self) -> str:
        """A digest of all files and settings that decide a vector."""
        settings = json.dumps([self.config, self.pooling, self.longest, self.lower], sort_keys=True)
        parts = [self.digest(), digest(self.path / "tokenizer.json"), settings]
        return sha256("\n".join(parts).encode()).hexdigest()


def find(where: str) -> SentenceFolder:
    """The folder at a path or, where huggingface_hub is installed, of a hub id that is in its cache.

    Nothing is downloaded.

    Raises
    ------
    LabelerError: there is no such folder, it lacks a file, or its architecture is not supported (the message
        says which are).
    """
    return _read(*located(where, "a sentence-transformers folder"))


def located(where: str, what: str, revision: str | None = None) -> tuple[Path, str]:
    """The folder at a path or, where huggingface_hub is installed, of a hub id in its cache; and its name.

    Parameters
    ----------
    what: what it should be, for the message. revision: of the hub id.

    Raises
    ------
    LabelerError: there is no such folder; the message says what to do.
    """
    path = Path(where).expanduser()
    if path.is_dir():
        return path, path.resolve().name
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", where):
        raise LabelerError(f"there is no folder {where}; name {what} or a hub id")
    try:
        from huggingface_hub import snapshot_download
    except ModuleNotFoundError:
        raise LabelerError(
            f"there is no folder {where}, and huggingface_hub, which would look for it in its cache, is not "
            "installed. Next: pip install huggingface_hub, or name a folder"
        ) from None
    try:
        which = {"revision": revision} if revision else {}
        path = Path(snapshot_download(where, local_files_only=True, **which))
    except Exception as exc:
        raise LabelerError(
            f"there is no folder {where}, nor is it in the hub's cache ({type(exc).__name__}). "
            f"Next: hf download {where}" + (f" --revision {revision}" if revision else "")
        ) from exc
    return path, where.rpartition("/")[2]


def _read(path: Path, name: str) -> SentenceFolder:
    if missing := [file for file in _NEEDED if not (path / file).is_file()]:
        raise LabelerError(f"{path} lacks {', '.join(missing)}; a sentence-transformers folder has them")
    config = read_json(path / "config.json", dict)
    if why := unfit(config):
        raise LabelerError(f"{path} cannot be used: {why}; {_SUPPORTED}")
    modules = {str(m.get("type")).rpartition(".")[2]: m for m in read_json(path / "modules.json", list)}
    if not {"Transformer", "Pooling"} <= set(modules) <= {"Transformer", "Pooling", "Normalize"}:
        raise LabelerError(f"{path} is made of {', '.join(modules) or 'nothing'}; {_SUPPORTED}")
    pooling = _pooling(read_json(path / str(modules["Pooling"].get("path")) / "config.json", dict))
    if pooling not in ("mean", "cls"):
        raise LabelerError(f"{path} pools by {pooling}; {_SUPPORTED}")
    inner = path / "sentence_bert_config.json"
    settings = read_json(inner, dict) if inner.is_file() else {}
    places = int(config["max_position_embeddings"])
    longest = min(int(settings.get("max_seq_length") or places), places)
    word = re.sub(r"[^\w.-]+", "-", name) or "encoder"
    return SentenceFolder(path, word, config, pooling, longest, bool(settings.get("do_lower_case")))


def _pooling(config: dict[str, Any]) -> str:
    """The one way of pooling, as sentence-transformers names it now; older folders have a switch for each."""
    switches = {
        key.removeprefix("pooling_mode_").removesuffix("_tokens").removesuffix("_token")
        for key, on in config.items()
        if key.startswith("pooling_mode_") and on
    }
    return str(config.get("pooling_mode") or " and ".join(sorted(switches)) or "nothing")


def read_json(file: Path, kind: type) -> Any:
    """What a file holds, if it is of this kind.

    Raises
    ------
    LabelerError: it cannot be read, or holds something else.
    """
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise LabelerError(f"{file} cannot be read: {exc}") from exc
    if not isinstance(value, kind):
        raise LabelerError(f"{file} holds a {type(value).__name__}, not a {kind.__name__}")
    return value


def digest(file: Path) -> str:
    """sha256 of a file, computed once as long as it does not change."""
    at = file.stat()
    return _digest_of(file, at.st_size, at.st_mtime_ns)


@lru_cache(maxsize=64)
def _digest_of(file: Path, _size: int, _time: int) -> str:
    with file.open("rb") as opened:
        return file_digest(opened, "sha256").hexdigest()
