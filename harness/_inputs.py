"""From the words of the command line to what they name: files of a pattern, qrels, margins."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import InputError, UsageError

if TYPE_CHECKING:
    import polars as pl

    from harness.collection import Collection

__all__ = [
    "expand",
    "label_files",
    "margins",
    "named_labels",
    "open_texts",
    "read_ids",
    "read_judged",
    "scale",
    "writable",
]


def expand(patterns: Sequence[str]) -> list[str]:
    """The files that `patterns` name; a pattern that the shell did not expand is expanded here."""
    from glob import glob

    paths: list[str] = []
    for pattern in patterns:
        found = sorted(glob(pattern, recursive=True)) if not os.path.exists(pattern) else []
        if not found and set(pattern) & set("*?[") and not os.path.exists(pattern):
            raise InputError(pattern, None, "no file fits this pattern")
        paths += found or [pattern]
    return paths


def read_judged(spec: str) -> pl.DataFrame:
    """Qrels of a file, or of the embedded collection."""
    if spec == "demo" and not os.path.exists(spec):
        from harness.collection import open_collection

        return open_collection(spec).qrels()
    from harness.trec import read_qrels

    return read_qrels(spec)


def named_labels(files: Sequence[str], human: str) -> dict[str, pl.DataFrame]:
    """Labels by the names that `label_files` gives them.

    Raises
    ------
    InputError: a file is that of the judgments, which agree with themselves; or two have one name.
    """
    named = label_files(files)
    for file in named.values():
        if os.path.exists(file) and os.path.exists(human) and os.path.samefile(file, human):
            raise InputError(file, None, "judgments and labels are one file, and agree with themselves")
    return {name: read_judged(file) for name, file in named.items()}


def label_files(patterns: Sequence[str]) -> dict[str, str]:
    """Name -> file of labels; the name is the file's, without `qrels.` before and endings behind."""
    from harness.trec import run_name

    found: dict[str, str] = {}
    for path in expand(patterns):
        name = run_name(path).removeprefix("qrels.").removesuffix(".txt").removesuffix(".qrels")
        if name in found:
            raise InputError(path, None, f"the labels are named {name!r}, as are {found[name]}")
        found[name] = path
    return found


def scale(text: str | None) -> list[int] | None:
    """`0,1,2,3` as grades."""
    if text is None:
        return None
    try:
        return [int(grade) for grade in text.split(",")]
    except ValueError:
        raise UsageError(f"--grades {text!r} are no grades; as in --grades 0,1,2,3") from None


def read_ids(path: Path) -> list[str]:
    """Query ids of a file, one a line."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(path, None, f"cannot be read: {error}") from None
    for number, line in enumerate(lines, 1):
        if len(line.split()) > 1:
            raise InputError(path, number, f"one query id a line; this line has {len(line.split())} words")
    ids = [line.strip() for line in lines if line.strip()]
    if not ids:
        raise InputError(path, None, "holds no query id")
    return ids


def margins(given: Sequence[str]) -> float | dict[str, float] | None:
    """`0.01` for all measures, or `nDCG@10=0.01` for one."""
    found: dict[str, float] = {}
    for text in given:
        measure, _, number = text.rpartition("=")
        try:
            found[measure] = float(number)
        except ValueError:
            hint = "as in --margin 0.01, --margin nDCG@10=0.01"
            raise UsageError(f"--margin {text!r} is no number; {hint}") from None
    if "" in found and len(found) > 1:
        raise UsageError("--margin: one for all measures, or one for each; not both")
    return found.get("", found or None)


def open_texts(name: str | None) -> Collection | None:
    """The collection that --collection names, if it was given."""
    if name is None:
        return None
    from harness.collection import open_collection

    return open_collection(name)


def writable(out: Path, qrels: str) -> None:
    """Refuse before the work what could not be written after it."""
    if out.is_dir() or not os.access(out.parent, os.W_OK):
        raise InputError(out, None, f"cannot be written: {out.parent} is no folder that can be written to")
    if os.path.exists(qrels) and out.exists() and out.samefile(qrels):
        raise UsageError(f"--out {out} is the file of --qrels; write to another name")
