"""What stands behind `hf:` on the command line: a model on this machine, and settings.

hf:FOLDER                                       a folder with a model
hf:Qwen/Qwen2.5-0.5B-Instruct                   a hub id, which has been downloaded
hf:FOLDER?prompt=basic&adapter=FOLDER&batch=8   with settings
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from urllib.parse import parse_qsl

from harness.errors import UnknownName, UsageError

__all__ = ["Settings", "read_settings"]

_FORM = "hf:FOLDER or hf:HUB/ID, and ?setting=value&…"


@dataclass(frozen=True)
class Settings:
    """How a model is run.

    Attributes
    ----------
    model: a folder, or a hub id. revision: of the hub id; by default `main`.
    adapter: a folder or hub id of an adapter that is put on the model.
    prompt: a built-in prompt, or a file. guidelines: a text file, for prompts that show it.
    tokens: how much of a document is shown, at most, in tokens of the model.
    batch: pairs in one forward pass, at most.
    device: `auto` (CUDA where there is one), or what torch calls a device: `cpu`, `cuda:1`.
    dtype: `auto` (bfloat16 on CUDA, float32 elsewhere), or one of the two.
    """

    model: str
    revision: str = ""
    adapter: str = ""
    prompt: str = "umbrela"
    guidelines: str = ""
    tokens: int = 2000
    batch: int = 16
    device: str = "auto"
    dtype: str = "auto"


_NAMES = [f.name for f in fields(Settings) if f.name != "model"]
_NUMBERS = ("tokens", "batch")
_DTYPES = ("auto", "bfloat16", "float32")


def read_settings(argument: str | None) -> Settings:
    """The settings that the text behind `hf:` gives.

    Raises
    ------
    UsageError: no model, a setting given twice, or a number that is none or below 1. UnknownName: no such
        setting, or no such dtype.
    """
    model, _, rest = (argument or "").partition("?")
    if not model:
        raise UsageError(f"no model: {_FORM}")
    given = parse_qsl(rest, keep_blank_values=True, separator="&")
    names = [name for name, _ in given]
    for name, value in given:
        if name not in _NAMES:
            raise UnknownName("setting", name, _NAMES, f"A labeler's settings: {_FORM}")
        if names.count(name) > 1:
            raise UsageError(f"setting {name!r} is given twice: {_FORM}")
        if name in _NUMBERS and not (re.fullmatch(r"[0-9]{1,9}", value) and int(value) >= 1):
            raise UsageError(f"setting {name}={value!r} is not a whole number from 1 on")
        if name == "dtype" and value not in _DTYPES:
            raise UnknownName("value of setting dtype", value, _DTYPES)
    texts = {name: value for name, value in given if name not in _NUMBERS}
    numbers = {name: int(value) for name, value in given if name in _NUMBERS}
    return Settings(model, **texts, **numbers)  # type: ignore[arg-type]
