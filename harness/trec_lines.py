"""One line of a run or qrels: the rules that the readers, their error messages and `lint` share.

Columns are separated by any ASCII white space, as in C: spaces, tabs, vertical tabs, form feeds. Blank lines
and lines that start with `#` (ir_metadata headers) hold no row.

A run line has six columns: query_id, anything, doc_id, rank (ignored), score, tag. The tag is the rest of the
line: it may hold spaces, as trec_eval allows, but then the rank must be an integer, or a space inside an id
would shift the columns unseen. A qrels line has four: query_id, 0 (human) or 1 (labeler) or anything else,
doc_id, grade.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from harness.errors import InputError
from harness.trec_bytes import byte_blocks

__all__ = ["BadLineError", "QrelsRow", "RunRow", "first_problem", "lines", "qrels_row", "run_row"]

_NUMBER = re.compile(rb"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_INTEGER = re.compile(rb"[+-]?[0-9]+")
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1f]")
_NOT_FINITE = re.compile(rb"[+-]?(?:nan|inf|infinity)", re.IGNORECASE)
GRADE_MIN, GRADE_MAX = -(2**15), 2**15 - 1


class BadLineError(ValueError):
    """A line that holds no usable row. `code` is lint's word for it; the message says what is wrong."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class RunRow(NamedTuple):
    """A line of a run; `rank` and `tag` as they stand in the file."""

    query_id: str
    doc_id: str
    score: float
    rank: str
    tag: str


class QrelsRow(NamedTuple):
    """A line of a qrels; `mark` is column 2 as it stands in the file."""

    query_id: str
    doc_id: str
    relevance: int
    mark: str


def _fields(line: bytes, columns: int) -> list[str] | None:
    """The line's fields, the last one holding the rest, `#` before those of a comment; None if blank."""
    if line.endswith(b"\r"):
        line = line[:-1]
    if b"\r" in line:
        raise BadLineError("line-end", "a carriage return inside the line (line ends of an old Mac?)")
    if control := _CONTROL.search(line):
        raise BadLineError("control", f"the control character 0x{control.group()[0]:02x} inside the line")
    try:
        line.decode()
    except UnicodeDecodeError as error:
        byte = f"byte 0x{line[error.start]:02x} at position {error.start + 1}"
        raise BadLineError("encoding", f"{byte} is not UTF-8") from None
    # Split as bytes: str.split would also split at white space beyond ASCII, which may stand in an id.
    fields = [f.decode() for f in line.split(None, columns - 1)]
    if not fields:
        return None
    fields[-1] = fields[-1].rstrip(" \t\v\f")
    if fields[0].startswith("\ufeff"):
        raise BadLineError("byte-order-mark", "a byte order mark inside the file (were files joined?)")
    return ["#", *fields] if fields[0].startswith("#") else fields


def run_row(line: bytes) -> RunRow | None:
    """The row of a run's line (without its newline); None if the line is blank or a comment.

    Raises
    ------
    BadLineError: says what is wrong with it.
    """
    fields = _fields(line, 6)
    if fields is None:
        return None
    if fields[0] == "#":
        if len(fields) == 7 and _is_run(fields[1:]):
            raise BadLineError("comment", "a row whose query_id starts with '#' would be taken for a comment")
        return None
    if len(fields) != 6:
        hint = (
            " (the tag is missing)" if len(fields) == 5 else " (is this a qrels?)" if len(fields) == 4 else ""
        )
        raise BadLineError("columns", f"{_columns(fields)}, a run line has 6{hint}")
    query_id, _, doc_id, rank, score, tag = fields
    if len(tag.encode().split()) > 1 and not _INTEGER.fullmatch(rank.encode()):
        raise BadLineError(
            "columns", f"more than 6 columns, and column 4, {rank!r}, is no rank: a space in an id?"
        )
    return RunRow(query_id, doc_id, _score(score), rank, tag)


def _is_run(fields: list[str]) -> bool:
    return bool(_INTEGER.fullmatch(fields[3].encode()) and _NUMBER.fullmatch(fields[4].encode()))


def _columns(fields: list[str]) -> str:
    return f"{len(fields)} column{'s' if len(fields) > 1 else ''}"


def _score(text: str) -> float:
    raw = text.encode()
    value = float(raw) if _NUMBER.fullmatch(raw) else math.nan
    if math.isfinite(value):
        return value
    if _NOT_FINITE.fullmatch(raw) or math.isinf(value):
        raise BadLineError("score", f"the score {text!r} is not a finite number")
    raise BadLineError("score", f"the score (column 5) is {text!r}, not a number")


def qrels_row(line: bytes) -> QrelsRow | None:
    """The row of a qrels' line (without its newline); None if the line is blank or a comment.

    Raises
    ------
    BadLineError: says what is wrong with it.
    """
    fields = _fields(line, 5)
    if fields is None:
        return None
    if fields[0] == "#":
        if len(fields) == 5 and _INTEGER.fullmatch(fields[4].encode()):
            raise BadLineError("comment", "a row whose query_id starts with '#' would be taken for a comment")
        return None
    if len(fields) != 4:
        more = len(fields) == 5
        found = f"{4 + len(fields[4].encode().split())} columns" if more else _columns(fields)
        raise BadLineError("columns", f"{found}, a qrels line has 4{' (is this a run?)' if more else ''}")
    query_id, mark, doc_id, grade = fields
    if not _INTEGER.fullmatch(grade.encode()):
        raise BadLineError("grade", f"the grade (column 4) is {grade!r}, not an integer")
    relevance = int(grade)
    if not GRADE_MIN <= relevance <= GRADE_MAX:
        raise BadLineError("grade", f"the grade {grade} is outside {GRADE_MIN} … {GRADE_MAX}")
    return QrelsRow(query_id, doc_id, relevance, mark)


def lines(path: str | Path) -> Iterator[tuple[int, bytes]]:
    """Every line of a text file, decompressed, and its number from 1; no newline, no byte order mark."""
    number = 0
    for block in byte_blocks(path):
        for line in block[:-1].split(b"\n"):
            number += 1
            yield number, line


def first_problem(path: str | Path, kind: str) -> InputError | None:
    """The error of the first line of a `run` or `qrels` that cannot be used, or None; reads line by line.

    A run's second line for a document of a topic is such a line, and a qrels' second line for a pair if it
    says something else than the first.
    """
    seen: dict[tuple[str, str], tuple[int, object]] = {}
    for number, line in lines(path):
        try:
            row = run_row(line) if kind == "run" else qrels_row(line)
        except BadLineError as bad:
            return InputError(path, number, str(bad))
        if row is None:
            continue
        pair = row.query_id, row.doc_id
        said = (row.relevance, row.mark == "1") if isinstance(row, QrelsRow) else None
        first, before = seen.setdefault(pair, (number, said))
        if first == number:
            continue
        where = f"document {row.doc_id!r} of topic {row.query_id!r} stands in line {first} already"
        if said is None:
            return InputError(path, number, where, "Next: keep one of the two lines")
        if said != before:
            return InputError(
                path, number, f"{where}, with another grade or column 2", "Next: keep one of them"
            )
    return None if seen else InputError(path, None, "no rows: only blank lines and comments")
