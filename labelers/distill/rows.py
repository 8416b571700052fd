"""The stages' files, checked when they are read: JSON lines, one row a line, or a report, one JSON object."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from harness.errors import InputError

__all__ = ["Fields", "Row", "digest_of", "line_bytes", "read_report", "read_rows", "report_bytes"]

Row = dict[str, Any]
Fields = Mapping[str, tuple[type, ...]]
"""Key -> the types its value may have; NoneType where it may be null. An int passes for a float."""


def line_bytes(row: Row) -> bytes:
    """A row as it stands in a file."""
    return json.dumps(row, ensure_ascii=False).encode() + b"\n"


def read_rows(path: Path, fields: Fields) -> list[Row]:
    """The rows of a file.

    Raises
    ------
    InputError: the file cannot be read; or the line of the first row that is no JSON object, lacks a key, or
        has a value of another type. The hint says that the file may be deleted.
    """
    hint = f"Next: mend the line, or delete {path} to have it made again"
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise InputError(path, None, f"cannot be read: {error.strerror}") from None
    rows: list[Row] = []
    for number, line in enumerate(raw.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line.decode())
        except (ValueError, RecursionError) as error:
            raise InputError(path, number, f"is no line of JSON: {error}", hint) from None
        if problem := _problem(row, fields):
            raise InputError(path, number, problem, hint)
        rows.append(row)
    return rows


def report_bytes(row: Row) -> bytes:
    """A report as it stands in its file."""
    return json.dumps(row, indent=1, ensure_ascii=False).encode() + b"\n"


def read_report(path: Path, fields: Fields) -> list[Row]:
    """The one object of a file.

    Raises
    ------
    InputError: the file cannot be read, is no JSON object, lacks a key, or has a value of another type.
    """
    try:
        row = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(path, None, f"cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(
            path, None, f"is no JSON: {error}", f"Next: delete {path} to have it made again"
        ) from None
    if problem := _problem(row, fields):
        raise InputError(path, None, problem, f"Next: delete {path} to have it made again")
    return [row]


def _problem(row: Any, fields: Fields) -> str:
    """What is wrong with a row, or nothing."""
    if not isinstance(row, dict):
        return "is no JSON object"
    if missing := [key for key in fields if key not in row]:
        return f"lacks {', '.join(missing)}"
    for key, kinds in fields.items():
        value = row[key]
        allowed = (*kinds, int) if float in kinds else kinds
        if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in kinds):
            names = " or ".join("null" if kind is type(None) else kind.__name__ for kind in kinds)
            return f"{key} is {value!r:.60}, not {names}"
    return ""


def digest_of(value: object) -> str:
    """SHA-256, hex, of a value that JSON can hold; the order of keys does not matter."""
    return sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
