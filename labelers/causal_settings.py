"""What stands behind `hf:` on the command line: a model on this machine, and settings.

hf:FOLDER                                       a folder with a model
hf:Qwen/Qwen2.5-0.5B-Instruct                   a hub id, which has been downloaded
hf:FOLDER?prompt=basic&adapter=FOLDER&batch=8   with settings
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import parse_qsl

from harness.errors import UnknownName, UsageError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["Prompted", "Settings", "read_as", "read_settings"]


@dataclass(frozen=True)
class Prompted:
    """Which model is asked, and what.

    Attributes
    ----------
    model: a folder, or a hub id. revision: of the hub id; by default `main`.
    adapter: a folder or hub id of an adapter that is put on the model.
    prompt: a built-in prompt, or a file. guidelines: a text file, for prompts that show it.
    shots: judged documents that are shown as examples, for prompts that show them; 0: four.
    tokens: how much of a document is shown, at most, in tokens of the model.
    """

    model: str
    revision: str = ""
    adapter: str = ""
    prompt: str = "umbrela"
    guidelines: str = ""
    shots: int = 0
    tokens: int = 2000


@dataclass(frozen=True)
class Settings(Prompted):
    """How a model is run.

    Attributes
    ----------
    batch: pairs in one forward pass, at most.
    device: `auto` (CUDA where there is one), or what torch calls a device: `cpu`, `cuda:1`.
    dtype: `auto` (bfloat16 on CUDA, float32 elsewhere), or one of the two.
    """

    batch: int = 16
    device: str = "auto"
    dtype: str = "auto"


_S = TypeVar("_S", bound="DataclassInstance")


def read_settings(argument: str | None) -> Settings:
    """The settings that the text behind `hf:` gives.

    Raises
    ------
    UsageError, UnknownName: as for `read_as`.
    """
    choices = {"dtype": ("auto", "bfloat16", "float32")}
    return read_as(Settings, argument, "hf:FOLDER or hf:HUB/ID, and ?setting=value&…", choices)


def read_as(kind: type[_S], argument: str | None, form: str, choices: Mapping[str, Sequence[str]]) -> _S:
    """The settings that MODEL?setting=value&… gives.

    Parameters
    ----------
    kind: which settings there are, of text and of whole numbers, after `model`. form: what an argument looks
        like, for messages. choices: the values that a setting may have.

    Raises
    ------
    UsageError: no model, a setting given twice, or a number that is none or below 1. UnknownName: no such
        setting, or no such value.
    """
    model, _, rest = (argument or "").partition("?")
    if not model:
        raise UsageError(f"no model: {form}")
    known = {f.name: str(f.type) for f in fields(kind) if f.name != "model"}
    given = parse_qsl(rest, keep_blank_values=True, separator="&")
    names = [name for name, _ in given]
    read: dict[str, str | int] = {}
    for name, value in given:
        if name not in known:
            raise UnknownName("setting", name, list(known), f"A labeler's settings: {form}")
        if names.count(name) > 1:
            raise UsageError(f"setting {name!r} is given twice: {form}")
        number = known[name] == "int"
        if number and not (re.fullmatch(r"[0-9]{1,9}", value) and int(value) >= 1):
            raise UsageError(f"setting {name}={value!r} is not a whole number from 1 on")
        if value not in choices.get(name, (value,)):
            raise UnknownName(f"value of setting {name}", value, choices[name])
        read[name] = int(value) if number else value
    return kind(model, **read)  # type: ignore[call-arg]
