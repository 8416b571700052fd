"""TOML files with settings, read strictly: an unknown key is an error, and each error says where it stands.

A file is described by classes that inherit from `Table`. This is the only module that imports pydantic; what
others need of it they take from here.
"""

from __future__ import annotations

import os
import re
import reprlib
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from harness.errors import InputError

__all__ = ["BeforeValidator", "Field", "Misfit", "SettingsFile", "Table", "Text", "line", "parse", "read"]

Text = Annotated[str, Field(min_length=1)]
"""Text that is not empty."""


class Table(BaseModel):
    """A table of a file: its keys, their types and ranges."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Misfit(Exception):
    """Keys that do not go together: `key`, the one to point at, `what` is wrong and a `hint`."""

    def __init__(self, key: str, what: str, hint: str = "") -> None:
        self.key, self.what, self.hint = key, what, hint


@dataclass(frozen=True)
class SettingsFile:
    """A file of settings that has been read: `path`. What it names is relative to its folder."""

    path: Path

    def at(self, given: str) -> Path:
        """A path of the file, seen from the working folder."""
        return Path(os.path.normpath(self.path.parent / given))

    def collection_at(self, given: str) -> str:
        """A collection that the file names: a folder is relative to the file, a name stays one."""
        return given if given == "demo" or given.startswith("irds:") else str(self.at(given))

    def problem(self, key: str, what: str, hint: str = "") -> InputError:
        """An error about a key of this file."""
        return InputError(self.path, line(self.path.read_text(encoding="utf-8-sig"), key), what, hint)


_Model = TypeVar("_Model", bound=Table)
_Made = TypeVar("_Made")


def read(
    path: str | Path, table: type[_Model], make: Callable[[Path, _Model], _Made], example: str = ""
) -> _Made:
    """What `make(path, table)` makes of a file.

    Parameters
    ----------
    table: what the file may hold. make: may raise `Misfit`. example: told where there is no such file.

    Raises
    ------
    InputError: there is no such file; it is not TOML; or a key is unknown (with the near ones), missing, of
        another type or out of its range, or does not fit the others.
    """
    path = Path(path)
    text = _text(path, example)
    raw = _loaded(path, text)
    try:
        given = table.model_validate(raw)
    except ValidationError as error:
        found = sorted(error.errors(include_url=False), key=lambda one: one["type"] != "extra_forbidden")
        said = [_said(dict(one), table) for one in found]  # an unknown key first: what is missing may be its
        where = line(text, said[0][0])  # doing
        raise InputError(path, where, "; ".join(what for _, what in said), _unknown_hint(said)) from None
    try:
        return make(path, given)
    except Misfit as misfit:
        raise InputError(path, line(text, misfit.key), misfit.what, misfit.hint) from None


def parse(path: str | Path) -> dict[str, Any]:
    """What stands in a file, whatever its keys are.

    Raises
    ------
    InputError: there is no such file, or it is not TOML.
    """
    path = Path(path)
    return _loaded(path, _text(path, ""))


def _loaded(path: Path, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        place = re.search(r"at line (\d+)", str(error))
        what = str(error) or type(error).__name__
        raise InputError(path, int(place[1]) if place else None, f"not TOML: {what}") from None


def _text(path: Path, example: str) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise InputError(path, None, "no such file", example) from None
    except IsADirectoryError:
        raise InputError(path, None, "a folder, not a file", f"Next: name a file in {path}") from None
    except UnicodeDecodeError as error:
        raise InputError(path, None, f"not UTF-8 text, at byte {error.start}") from None
    except (OSError, ValueError) as error:
        raise InputError(path, None, f"cannot be read: {error}") from None


def line(text: str, key: str) -> int | None:
    """The line of a dotted key, if it or its end is assigned or opens a table exactly once."""
    for end in [key, *(key[m.end() :] for m in re.finditer(r"\.", key))]:
        name = rf"""["']?{re.escape(end)}["']?"""
        pattern = re.compile(rf"^\s*(?:\[\s*(?:[\w.-]+\.)?{name}\s*\]|(?:[\w-]+\.)*{name}\s*=)")
        found = [number for number, line in enumerate(text.splitlines(), 1) if pattern.match(line)]
        if len(found) == 1:
            return found[0]
    return None


def _said(error: dict[str, Any], table: type[Table]) -> tuple[str, str]:
    """(dotted key, what is wrong there) of one of pydantic's errors."""
    parts = [str(part) for part in error["loc"] if part != "*"]
    key = ".".join(parts)
    if error["type"] == "extra_forbidden":
        known = sorted(_fields(table, parts[:-1]))
        near = get_close_matches(parts[-1], known, n=1, cutoff=0.5)
        meant = f" (did you mean {near[0]!r}?)" if near else ""
        return key, f"unknown key {key!r}{meant}; keys there: {', '.join(known)}"
    if error["type"] == "missing":
        return key, f"{key} is missing"
    what = str(error["msg"]).removeprefix("Value error, ")
    what = what.removeprefix("Input should be ").replace("valid dictionary", "table")
    return key, f"{key} is {reprlib.repr(error['input'])}, but should be {what}"


def _unknown_hint(said: Sequence[tuple[str, str]]) -> str:
    unknown = any(what.startswith("unknown key") for _, what in said)
    return "Next: correct the key; one that is not known is never passed over" if unknown else ""


def _fields(model: type[BaseModel], parts: Sequence[str]) -> list[str]:
    """The keys that the table at `parts` may have."""
    for part in (p for p in parts if not p.isdigit()):  # a number: the place in a list of tables
        annotation = model.model_fields[part].annotation
        tables = [t for t in (annotation, *get_args(annotation)) if isinstance(t, type)]
        model = next(t for t in tables if issubclass(t, BaseModel))
    return list(model.model_fields)
