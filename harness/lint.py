"""What is wrong with runs and qrels: every problem, with file and line.

An error is what reading refuses, or cannot read right: one line of it is enough for `read_run` or
`read_qrels` to stop. A warning is what other tools read otherwise than we do, or what makes a figure mean
less than it seems to.

    errors    unreadable (missing, empty, cut-off .gz, …), columns, score, grade, null, encoding, control,
              line-end (a lone carriage return), byte-order-mark (not at the start), comment (a row that
              starts with #), duplicate, conflict (a pair graded twice, differently)
    warnings  rank (contradicts the scores, or is no integer), tie, near-tie, tag, scattered,
              topic-without-qrels, topic-missing, repeated, negative-grade, mark, twin, white-space, line-end,
              byte-order-mark, blank, header, space-in-id

Parquet files have rows for lines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from harness.errors import InputError, UsageError
from harness.ranking import ranked, repeated, topic_starts
from harness.trec import file_hash, twin_hash, twin_path
from harness.trec_bytes import BYTE_ORDER_MARK, byte_blocks, is_parquet
from harness.trec_lines import BadLineError
from harness.trec_read import QRELS_TEXT, RUN_TEXT, Kind, Schema, open_parquet, parse_block

__all__ = ["PROBLEMS", "lint"]

PROBLEMS: dict[str, pl.DataType] = {
    "file": pl.String(),
    "line": pl.UInt32(),
    "level": pl.String(),
    "code": pl.String(),
    "message": pl.String(),
}
"""`line` counts from 1 and is null for a problem of the whole file; `level` is `error` or `warning`."""

_KINDS = {"run": RUN_TEXT, "qrels": QRELS_TEXT}
_LOOK = 200  # lines that tell a run from a qrels
_STYLE = {
    "white-space": "tabs, several spaces in a row, or spaces at an end",
    "line-end": "Windows line ends",
    "blank": "blank lines",
    "header": "lines that start with #: trec_eval 9, pytrec_eval, ir-measures and ranx stop there",
}
Say = Callable[[int | None, str, str, str], None]
"""Notes a problem: line, level, code, message."""
_OTHER_SPACE = r"[\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]"


class _File(NamedTuple):
    """A file under examination: the rows of it that can be used, each with its line."""

    path: Path
    kind: str
    rows: pl.DataFrame
    say: Say


def lint(
    paths: Iterable[str | Path], qrels: str | Path | None = None, *, kind: str | None = None
) -> pl.DataFrame:
    """Every problem of some runs and qrels.

    Parameters
    ----------
    qrels: a qrels whose topics are compared with those of the runs; it is examined too. Without it, the qrels
        among `paths` is taken, if there is exactly one.
    kind: `run` or `qrels`, for all of `paths`; by default each file's lines tell.

    Returns
    -------
    PROBLEMS: file, line, level, code, message, sorted by file, then line (whole-file problems first).
    """
    if kind not in (None, *_KINDS):
        raise UsageError(f"kind is {kind!r}; it is run or qrels")
    problems: list[tuple[str, int | None, str, str, str]] = []
    files: list[_File] = []
    given = {str(p): kind for p in paths}
    if qrels is not None:
        given[str(qrels)] = "qrels"
    for name, wanted in given.items():

        def say(line: int | None, level: str, code: str, message: str, name: str = name) -> None:
            problems.append((name, line, level, code, message))

        try:
            file = _examine(Path(name), wanted, say)
        except InputError as error:
            say(error.line, "error", "unreadable", error.what)
            continue
        files.append(file)
        if not file.rows.height and not any(p[0] == name and p[2] == "error" for p in problems):
            say(None, "error", "unreadable", "no rows: only blank lines and comments")
    judged = [f for f in files if f.kind == "qrels" and (qrels is None or str(f.path) == str(qrels))]
    if len(judged) == 1:
        for file in files:
            if file.kind == "run":
                _compare_topics(file, judged[0])
    frame = pl.DataFrame(problems, schema=PROBLEMS, orient="row")
    return frame.sort("file", "line", "level", "code", "message", nulls_last=False)


def _examine(path: Path, kind: str | None, say: Say) -> _File:
    if is_parquet(path):
        kind, rows = _parquet_rows(path, kind, say)
    else:
        kind = kind or _guess(path)
        rows = _text_rows(path, _KINDS[kind], say)
    file = _File(path, kind, rows, say)
    if rows.height:
        _repeated_pairs(file)
        _spaces_in_ids(file)
        if kind == "run":
            _scattered_topics(file)
            _ranks(file)
            _ties(file)
            _tags(file)
        else:
            _marks_and_grades(file)
    if kind == "qrels" and not is_parquet(path) and twin_hash(path) not in (None, file_hash(path)):
        say(
            None,
            "warning",
            "twin",
            f"{twin_path(path)} is not of this text as it is now, and will not be used",
        )
    return file


# ------------------------------------------------------------------------------------------------ rows


def _guess(path: Path) -> str:
    """`run` or `qrels`, by what more of the first lines are; of none, by the number of columns."""
    fits = {"run": 0, "qrels": 0}
    widest = 0
    block = next(byte_blocks(path), b"")
    for line in block.split(b"\n", _LOOK)[:_LOOK]:
        for name, kind in _KINDS.items():
            try:
                fits[name] += kind.row(line) is not None
            except BadLineError:
                widest = max(widest, len(line.split()))
    if fits["run"] == fits["qrels"]:
        return "run" if widest > 4 else "qrels"
    return "run" if fits["run"] > fits["qrels"] else "qrels"


def _text_rows(path: Path, kind: Kind, say: Say) -> pl.DataFrame:
    """Line and all columns (but a run's second) of the usable rows; the unusable are noted."""
    whole = kind._replace(kept=[*kind.columns])
    schema: Schema = {"line": pl.UInt32(), **{c: t for c, t in kind.columns.items() if c != "q0"}}
    frames = [pl.DataFrame(schema=schema)]
    styles: dict[str, list[int]] = {}
    number = 0
    try:
        for block in byte_blocks(path, keep_mark=True):
            text = block if number else block.removeprefix(BYTE_ORDER_MARK)
            if text is not block:
                say(
                    1,
                    "warning",
                    "byte-order-mark",
                    "a byte order mark, which other tools read as part of an id",
                )
            frame = parse_block(text, whole)
            if frame is not None and ("score" not in frame or np.isfinite(frame["score"].to_numpy()).all()):
                frame = frame.with_row_index("line", number + 1)
                number += frame.height
            else:
                lines = text[:-1].split(b"\n")
                frame = _line_by_line(lines, number + 1, kind, schema, styles, say)
                number += len(lines)
            frames.append(frame.select(*schema))
    except InputError as error:  # so far and no further
        say(error.line, "error", "unreadable", error.what)
    for code, where in styles.items():
        say(where[0], "warning", code, _STYLE[code] + _more(len(where)))
    return pl.concat(frames, rechunk=True)


def _line_by_line(
    lines: list[bytes], first: int, kind: Kind, schema: Schema, styles: dict[str, list[int]], say: Say
) -> pl.DataFrame:
    rows = []
    for number, line in enumerate(lines, first):
        for code in _styles(line):
            styles.setdefault(code, []).append(number)
        try:
            row = kind.row(line)
        except BadLineError as bad:
            say(number, "error", bad.code, str(bad))
            continue
        if row is not None:
            rows.append((number, *(getattr(row, column) for column in schema if column != "line")))
    return pl.DataFrame(rows, schema=schema, orient="row")


def _styles(line: bytes) -> Iterator[str]:
    body = line.removesuffix(b"\r")
    if len(body) < len(line):
        yield "line-end"
    if not body.strip():
        yield "blank"
    elif body.startswith(b"#"):
        yield "header"
    elif b"  " in body or body != body.strip() or any(c in body for c in b"\t\v\f"):
        yield "white-space"


def _parquet_rows(path: Path, kind: str | None, say: Say) -> tuple[str, pl.DataFrame]:
    """The kind, and the columns that reading needs of the usable rows; a row's number is its line."""
    if kind is None:
        kind = "run" if "score" in open_parquet(path, ["query_id", "doc_id"]).collect_schema() else "qrels"
    needed = ["query_id", "doc_id", "score" if kind == "run" else "relevance"]
    rows = open_parquet(path, needed).select(needed).with_row_index("line", 1).collect()
    good = pl.Series(np.ones(rows.height, bool))
    for column in needed:
        null = rows[column].is_null()
        for line in rows.filter(null)["line"]:
            say(line, "error", "null", f"{column} is null")
        good &= ~null
    if kind == "run":
        odd = good & ~rows["score"].is_finite().fill_null(True)
        for line, score in rows.filter(odd).select("line", "score").rows():
            say(line, "error", "score", f"the score {score} is not a finite number")
        good &= ~odd
    return kind, rows.filter(good)


# -------------------------------------------------------------------------------------------- problems


def _more(count: int) -> str:
    return f" (and {count - 1} more from here on)" if count > 1 else ""


def _once(file: _File, found: pl.DataFrame, code: str, message: str) -> None:
    """One warning, at the first of the rows found, for all of them."""
    if found.height:
        file.say(int(found["line"].to_numpy().min()), "warning", code, message + _more(found.height))


def _repeated_pairs(file: _File) -> None:
    again = repeated(file.rows)
    if not len(again):
        return
    pair = ["query_id", "doc_id"]
    twice = file.rows[again]
    first = file.rows.join(twice, on=pair, how="semi").unique(subset=pair, keep="first", maintain_order=True)
    for row in twice.join(first, on=pair, suffix="_before").iter_rows(named=True):
        pair_words = f"document {row['doc_id']!r} of topic {row['query_id']!r}"
        where = f"{pair_words} stands in line {row['line_before']} already"
        if file.kind == "run":
            file.say(row["line"], "error", "duplicate", where)
        elif row["relevance"] == row["relevance_before"] and (
            (row.get("mark") == "1") == (row.get("mark_before") == "1")
        ):
            file.say(row["line"], "warning", "repeated", f"{where}, with the same grade")
        else:
            file.say(row["line"], "error", "conflict", f"{where}, with another grade or column 2")


def _scattered_topics(file: _File) -> None:
    heads = file.rows[topic_starts(file.rows["query_id"])[:-1]].select("query_id", "line")
    back = heads.filter(~pl.col("query_id").is_first_distinct())
    for name, line, count in back.group_by("query_id").agg(pl.col("line").min(), count=pl.len()).rows():
        file.say(
            line,
            "warning",
            "scattered",
            f"topic {name!r} comes back{_more(count)}: the run must be held whole",
        )


def _spaces_in_ids(file: _File) -> None:
    odd = pl.any_horizontal(pl.col("query_id", "doc_id").str.contains(_OTHER_SPACE))
    message = "an id with white space beyond ASCII: pytrec_eval and ir-measures split it"
    _once(file, file.rows.filter(odd), "space-in-id", message)


def _ranks(file: _File) -> None:
    if "rank" not in file.rows:
        return
    rows = file.rows.select("line", "query_id", pl.col("rank").cast(pl.Int64, strict=False), _single)
    _once(file, rows.filter(pl.col("rank").is_null()), "rank", "the rank (column 4) is no integer")
    rows = rows.drop_nulls().sort("query_id", "rank", maintain_order=True)
    contradicts = _with_last("query_id") & (pl.col("rank") != pl.col("rank").shift(1)) & _rises("single")
    found = rows.filter(contradicts).group_by("query_id").agg(pl.col("line").min(), count=pl.len())
    for name, line, count in found.rows():
        message = f"the ranks of topic {name!r} contradict its scores; the scores count{_more(count)}"
        file.say(line, "warning", "rank", message)


def _ties(file: _File) -> None:
    rows = ranked(file.rows.select("line", "query_id", "doc_id", "score"))
    same = _with_last("query_id") & (pl.col("score") == pl.col("score").shift(1))
    tied = rows.filter(same | same.shift(-1, fill_value=False))
    for name, line, count in tied.group_by("query_id").agg(pl.col("line").min(), count=pl.len()).rows():
        message = (
            f"{count} documents of topic {name!r} share a score with another; tools break ties differently"
        )
        file.say(line, "warning", "tie", message)
    near = rows.filter(_with_last("query_id") & _rises("score"))
    for name, line, count in near.group_by("query_id").agg(pl.col("line").min(), count=pl.len()).rows():
        what = f"scores of topic {name!r} are equal as float32 and not as doubles"
        message = (
            f"{what}: trec_eval 10 and ranx order it otherwise than trec_eval 9 and ir-measures{_more(count)}"
        )
        file.say(line, "warning", "near-tie", message)


def _tags(file: _File) -> None:
    if "tag" not in file.rows:
        return
    tag = file.rows["tag"]
    other = file.rows.filter(tag != tag[0])
    if other.height:
        what = f"the tag changes from {tag[0]!r} to {other['tag'][0]!r} ({tag.n_unique()} tags in all)"
        file.say(other["line"][0], "warning", "tag", what)
    message = "a tag with spaces: pytrec_eval, ir-measures and ranx stop there"
    _once(file, file.rows.filter(tag.str.contains(r"[ \t\v\f]")), "tag", message)


def _marks_and_grades(file: _File) -> None:
    message = (
        "a negative grade: trec_eval counts the document as unjudged, ir-measures as judged, and so do we"
    )
    _once(file, file.rows.filter(pl.col("relevance") < 0), "negative-grade", message)
    if "mark" in file.rows:
        message = (
            "column 2 is a number above 1 (subtopics?); here 1 says a labeler graded, the rest means nothing"
        )
        _once(
            file,
            file.rows.filter(pl.col("mark").str.contains(r"^0*([2-9]|1[0-9]|[2-9][0-9]+)$")),
            "mark",
            message,
        )


def _compare_topics(run: _File, qrels: _File) -> None:
    topics = run.rows.group_by("query_id").agg(pl.col("line").min())
    judged = qrels.rows.select("query_id").unique()
    for name, line in topics.join(judged, on="query_id", how="anti").rows():
        run.say(
            line,
            "warning",
            "topic-without-qrels",
            f"topic {name!r} has no qrels in {qrels.path}: it counts nowhere",
        )
    for (name,) in judged.join(topics, on="query_id", how="anti").rows():
        run.say(
            None, "warning", "topic-missing", f"topic {name!r} of {qrels.path} is not in the run: it counts 0"
        )


_single = pl.col("score").cast(pl.Float32).alias("single")


def _with_last(column: str) -> pl.Expr:
    """Whether a row has the value of the row before."""
    return pl.col(column) == pl.col(column).shift(1)


def _rises(column: str) -> pl.Expr:
    """Whether a row has a higher value than the row before."""
    return pl.col(column) > pl.col(column).shift(1)
