"""Judging lists: out to assessors as CSV or JSONL, and their answers back into the qrels.

An assessor opens the list in a spreadsheet or any editor, writes a grade into `relevance`, and hands the same
file back; a row left empty is not answered yet. Qrels text is taken as well. What a document says never
becomes a formula: a CSV cell that begins like one gets an apostrophe in front, which reading takes off again.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl

from harness.collection import Collection
from harness.errors import InputError, UsageError
from harness.frames import QRELS, check
from harness.trec_bytes import replace_file

if TYPE_CHECKING:
    from harness.plan import Plan

__all__ = ["read_answers", "write_list"]

_KEYS = ["query_id", "doc_id"]
_COLUMNS = ["query_id", "doc_id", "relevance", "query", "text", "why"]
_FORMULA = tuple("=+-@\t\r\n'\uff1d\uff0b\uff0d\uff20")
"""First characters that a spreadsheet may take for a formula (OWASP, CSV injection), and the apostrophe."""
_NUMBER = re.compile(r"[+-]?[0-9]{1,5}(?:\.0+)?")
_HINT = "Next: put it right, or leave the cell empty and the row is not answered yet"


class _Answer(NamedTuple):
    """One row of a list: its line, pair, and the grade as it is written."""

    line: int
    query_id: str
    doc_id: str
    grade: str


def write_list(plan: Plan, path: str | Path, collection: Collection | None = None) -> None:
    """Write the plan's documents, best first, for assessors to fill in `relevance`.

    The columns (or keys) are query_id, doc_id, relevance (empty), query, text (both empty without a
    collection) and why.

    Raises
    ------
    UsageError: the suffix is neither .csv nor .jsonl. InputError: the file cannot be written.
    """
    suffix = _suffix(path)
    pairs = plan.order.select(_KEYS)
    texts = (
        pairs.with_columns(query=pl.lit(None, pl.String), text=pl.lit(None, pl.String))
        if collection is None
        else collection.pairs(pairs)
    )
    rows = [
        {
            "query_id": text["query_id"],
            "doc_id": text["doc_id"],
            "relevance": None,
            "query": text["query"],
            "text": text["text"],
            "why": _why(plan, row),
        }
        for text, row in zip(texts.iter_rows(named=True), plan.order.iter_rows(named=True), strict=True)
    ]
    out = io.StringIO()
    if suffix == ".jsonl":
        out.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    else:
        writer = csv.writer(out, lineterminator="\r\n")
        writer.writerow(_COLUMNS)
        writer.writerows([_cell(row[c]) for c in _COLUMNS] for row in rows)
    mark = "utf-8" if suffix == ".jsonl" else "utf-8-sig"  # spreadsheets need it to know the encoding
    with replace_file(path) as file:
        file.write(out.getvalue().encode(mark))


def read_answers(
    path: str | Path,
    qrels: pl.DataFrame,
    grades: Sequence[int],
    *,
    pairs: pl.DataFrame | None = None,
) -> pl.DataFrame:
    """Put an assessor's answers into a qrels; they take the place of labels of the same pairs.

    Parameters
    ----------
    path: a list with `relevance` filled in (.csv, .jsonl), or qrels in TREC text (any other suffix).
    qrels: QRELS to add to. `grades`: the scale that answers must be on.
    pairs: query_id, doc_id of what could be asked for (`plan`'s runs); an answer about any other pair, unless
        the qrels have it, is refused. None: every pair is taken.

    Returns
    -------
    QRELS, sorted by query_id and doc_id, with the further columns that `qrels` has (null in new rows).

    Raises
    ------
    InputError: file and line of the first answer that has no pair, a grade off the scale, an unknown pair, or
        a grade that contradicts a judgment or another line; or the file cannot be read.
    """
    check(qrels, QRELS, "qrels")
    human = qrels.filter(pl.col("assessor") == "human")
    said = {(q, d): (r, "the qrels") for q, d, r in human.select(*_KEYS, "relevance").iter_rows()}
    known: set[tuple[str, ...]] | None = None
    if pairs is not None:
        known = {*pairs.select(_KEYS).iter_rows(), *qrels.select(_KEYS).iter_rows()}
    new: dict[tuple[str, str], int] = {}
    for answer in _answers(path):
        query_id, doc_id = _pair(path, answer, known)
        grade = _grade(path, answer, grades)
        if grade is None:
            continue
        before, where = said.setdefault((query_id, doc_id), (grade, f"line {answer.line}"))
        if before != grade:
            raise InputError(
                path,
                answer.line,
                f"topic {query_id!r}, document {doc_id!r} gets grade {grade}, but has {before} in {where}",
                "Next: decide on one and take the other out",
            )
        if where != "the qrels":
            new[query_id, doc_id] = grade
    rows = pl.DataFrame(
        {
            "query_id": [q for q, _ in new],
            "doc_id": [d for _, d in new],
            "relevance": list(new.values()),
            "gain": list(new.values()),
            "assessor": ["human"] * len(new),
        },
        schema=QRELS,
    )
    kept = qrels.join(rows, on=_KEYS, how="anti")
    return pl.concat([kept, rows], how="diagonal").sort(_KEYS)


def _suffix(path: str | Path) -> str:
    suffix = Path(path).suffix.lower()
    if suffix not in (".csv", ".jsonl"):
        raise UsageError(f"{path}: a judging list ends in .csv or .jsonl, not in {suffix!r}")
    return suffix


def _why(plan: Plan, row: dict[str, Any]) -> str:
    """Where the runs have the document, and what its grade would move."""
    within = "" if plan.cutoff is None else f" within {plan.cutoff}"
    places = [
        f"{name} rank {row[f'{name}_rank']}" if row[f"{name}_rank"] else f"{name} does not have it{within}"
        for name in ("base", "candidate")
    ]
    moved = row["shrinkage"] ** 0.5
    return f"{places[0]}, {places[1]}; its grade moves the difference in {plan.measure} by about {moved:.2g}"


def _cell(value: str | None) -> str:
    if value is None:
        return ""
    return f"'{value}" if _risky(value) else value


def _risky(value: str) -> bool:
    return value.startswith(_FORMULA) or value.lstrip().startswith(_FORMULA)


def _answers(path: str | Path) -> Iterator[_Answer]:
    """The rows of a file of answers.

    Raises
    ------
    InputError: the file cannot be read, or a row does not have what it needs.
    """
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(path, None, f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise InputError(path, line, "is not UTF-8", "Next: save the list as CSV UTF-8") from None
    reader = {".csv": _from_csv, ".jsonl": _from_jsonl}.get(Path(path).suffix.lower(), _from_qrels)
    return reader(path, text)


def _from_csv(path: str | Path, text: str) -> Iterator[_Answer]:
    first = text.split("\n", 1)[0]
    separator = max(",;\t", key=first.count)  # some spreadsheets save with the separator of their country
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    limit = csv.field_size_limit(1 << 30)
    try:
        head = [c.strip() for c in next(rows, [])]
        missing = [c for c in (*_KEYS, "relevance") if c not in head]
        if missing:
            raise InputError(path, 1, f"lacks the column {', '.join(missing)}; it has {', '.join(head)}")
        at = [head.index(c) for c in (*_KEYS, "relevance")]
        start = rows.line_num + 1
        for row in rows:
            line, start = start, rows.line_num + 1
            if not any(cell.strip() for cell in row):
                continue
            if len(row) != len(head):
                raise InputError(path, line, f"has {len(row)} cells, the first line {len(head)}")
            yield _Answer(line, *(row[i] for i in at))
    except csv.Error as error:
        raise InputError(path, rows.line_num, f"is not CSV: {error}") from None
    finally:
        csv.field_size_limit(limit)


def _from_jsonl(path: str | Path, text: str) -> Iterator[_Answer]:
    for line, given in enumerate(text.split("\n"), 1):
        if not given.strip():
            continue
        try:
            row = json.loads(given)
        except (ValueError, RecursionError) as error:
            raise InputError(path, line, f"is not JSON: {error}") from None
        if not isinstance(row, dict) or not all(isinstance(row.get(k), str) for k in _KEYS):
            raise InputError(path, line, "is no object with the texts query_id and doc_id")
        grade = row.get("relevance")
        whole = isinstance(grade, int | float | str) and not isinstance(grade, bool)
        if grade is not None and not whole:
            raise InputError(path, line, f"relevance is {json.dumps(grade)}, not a grade", _HINT)
        yield _Answer(line, row["query_id"], row["doc_id"], "" if grade is None else str(grade))


def _from_qrels(path: str | Path, text: str) -> Iterator[_Answer]:
    for line, given in enumerate(text.split("\n"), 1):
        fields = given.split()
        if not fields or fields[0].startswith("#"):
            continue
        if len(fields) != 4:
            raise InputError(path, line, f"has {len(fields)} columns; a qrels has 4")
        if fields[1] == "1":
            raise InputError(path, line, "is a labeler's row (column 2 is 1), not an assessor's answer")
        yield _Answer(line, fields[0], fields[2], fields[3])


def _pair(path: str | Path, answer: _Answer, known: set[tuple[str, ...]] | None) -> tuple[str, str]:
    """The pair of an answer, apostrophes of `write_list` taken off."""
    given = answer.query_id, answer.doc_id
    if Path(path).suffix.lower() == ".csv" and (known is None or given not in known):
        plain = [_uncell(part) for part in given]
        given = plain[0], plain[1]
    if not all(given):
        raise InputError(path, answer.line, "lacks a query_id or a doc_id")
    if known is not None and given not in known:
        raise InputError(
            path,
            answer.line,
            f"topic {given[0]!r} with document {given[1]!r} is a pair that nobody asked for",
            "Next: use the ids of the list as they are; a spreadsheet may have changed them",
        )
    return given


def _uncell(value: str) -> str:
    return value[1:] if value.startswith("'") and _risky(value[1:]) else value


def _grade(path: str | Path, answer: _Answer, grades: Sequence[int]) -> int | None:
    """The grade of an answer; None where it is empty."""
    given = answer.grade.strip().removeprefix("'")
    if not given:
        return None
    grade = int(float(given)) if _NUMBER.fullmatch(given) else None
    if grade is None or grade not in grades:
        scale = ", ".join(map(str, sorted(grades)))
        raise InputError(path, answer.line, f"{given!r} is not a grade; the scale is {scale}", _HINT)
    return grade
