"""TREC text and Parquet into frames: at polars' speed where the bytes allow it, else line by line.

polars' CSV reader splits at single spaces, so odd files (tabs, double spaces, comments, missing columns)
shift its columns without a word. A block of text is given to it only if the bytes prove that each line has
its columns:

- no two separators (bytes up to 0x20) stand side by side, so no column is empty;
- polars found the last column filled in every row, so every line has at least as many columns as it should;
- there are as many separators as rows times columns, so no line has more, and all separators are spaces.

A block that fails is brought into that form by replacing bytes, and failing that read by the rules of
`trec_lines`. Those rules also say which line of a bad file is the first, so that an error names file and
line.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from harness.arrays import Floats, Ints
from harness.errors import InputError
from harness.frames import RUN
from harness.ranking import in_order, mixed_hash, order, ranked, ranks, repeated, topic_starts
from harness.trec_bytes import BYTE_ORDER_MARK, byte_blocks, is_parquet, open_input
from harness.trec_lines import BadLineError, QrelsRow, RunRow, first_problem, qrels_row, run_row

__all__ = [
    "QRELS_TEXT",
    "RUN_TEXT",
    "Block",
    "Kind",
    "Schema",
    "open_parquet",
    "parse_block",
    "problem",
    "qrels_rows",
    "ranked_blocks",
    "read_run",
    "run_blocks",
    "run_rows",
]

Schema = dict[str, pl.DataType]
_TEXT = pl.String()
_ROWS: Schema = {c: t for c, t in RUN.items() if c != "rank"}
_SLICE = 1 << 18  # rows of a Parquet file read at a time: polars' own row group
_PIECE = 1 << 17  # bytes looked at together: they stay in the second-level cache
_SPACES = bytes.maketrans(b"\t\v\f", b"   ")


class Kind(NamedTuple):
    """How a kind of file looks as text. `columns`: all, in order; `kept`: those of its frame."""

    name: str
    columns: Schema
    kept: list[str]
    row: Callable[[bytes], RunRow | QrelsRow | None]


RUN_TEXT = Kind(
    "run",
    {"query_id": _TEXT, "q0": _TEXT, "doc_id": _TEXT, "rank": _TEXT, "score": pl.Float64(), "tag": _TEXT},
    ["query_id", "doc_id", "score", "tag"],
    run_row,
)
QRELS_TEXT = Kind(
    "qrels",
    {"query_id": _TEXT, "mark": _TEXT, "doc_id": _TEXT, "relevance": pl.Int16()},
    ["query_id", "mark", "doc_id", "relevance"],
    qrels_row,
)


class Block(NamedTuple):
    """Whole topics of a run in rank order, as bare as it can be: for one pass over a large run.

    Topics stand in file order. The rows of topic i are `starts[i]:starts[i + 1]`, best first, so a row's rank
    from 0 is its number less its topic's start.
    """

    topics: pl.Series
    """query_id of each topic (String)."""
    starts: Ints
    """First row of each topic, and at the end the number of rows (length: topics + 1)."""
    doc_id: pl.Series
    """Each row's document (String)."""
    score: Floats
    doc_hash: npt.NDArray[np.uint64]
    """`doc_id.hash()`: equal ids have equal hashes in all frames of a process; others hardly ever do."""
    restart: bool
    """True: forget all blocks before; this is the whole run, whose file is not grouped by topic after all."""


def problem(path: str | Path, kind: str) -> InputError:
    """The error to raise for a file of which some line is known to be unusable: the first such line's."""
    found = first_problem(path, kind)
    return found or InputError(path, None, "changed while it was being read", "Next: run the command again")


def run_rows(path: str | Path) -> Iterator[pl.DataFrame]:
    """A run's rows in file order, in frames of a few megabytes: query_id, doc_id, score (finite; no nulls).

    Repeated documents are not looked for here.

    Raises
    ------
    InputError: at the first line that cannot be used.
    """
    if is_parquet(path):
        yield from _parquet_rows(path)
        return
    for frame in _text_frames(path, RUN_TEXT):
        rows = frame.select(*_ROWS)
        if not np.isfinite(rows["score"].to_numpy()).all():
            raise problem(path, "run")
        yield rows


def qrels_rows(path: str | Path) -> pl.DataFrame:
    """The rows of a qrels in TREC text, in file order: query_id, mark (column 2), doc_id, relevance.

    Repeated pairs are not looked for here.

    Raises
    ------
    InputError: at the first line that cannot be used.
    """
    return pl.concat(_text_frames(path, QRELS_TEXT), rechunk=True)


def read_run(path: str | Path) -> pl.DataFrame:
    """A run, TREC text (plain, .gz, .zst) or .parquet, as RUN: ranked anew, sorted by query_id and rank.

    Raises
    ------
    InputError: the file cannot be read; or at the first line that cannot be used, which is one with another
        number of columns than six (a tag may hold spaces), a score that is no finite number, bytes that are
        not UTF-8, or a document that its topic had before. `#` lines and blank lines are passed over.
    """
    rows = pl.concat(run_rows(path), rechunk=True)
    _refuse_repeated(path, rows)
    return ranked(rows)


def run_blocks(path: str | Path) -> Iterator[pl.DataFrame]:
    """A run as RUN frames of whole topics, each topic in exactly one of them.

    Memory stays bounded (some 30 MB) for a file whose lines are grouped by topic, as runs are; another file
    is read whole and gives one frame. To know which, the file is read twice; `ranked_blocks` reads it once.

    Raises
    ------
    InputError: as `read_run`; topics before the bad line may have been given by then.
    """
    if any(piece is None for piece in _whole_topics(path)):
        yield read_run(path)
        return
    for block in ranked_blocks(path):
        counts = np.diff(block.starts)
        yield pl.DataFrame(
            {
                "query_id": block.topics.gather(np.repeat(np.arange(len(counts)), counts)),
                "doc_id": block.doc_id,
                "score": block.score,
                "rank": ranks(block.starts),
            },
            schema=RUN,
        ).sort("query_id", maintain_order=True)


def ranked_blocks(path: str | Path) -> Iterator[Block]:
    """A run as Blocks, read once: the cheapest way through a large run.

    for block in ranked_blocks(path):
        if block.restart:
            results.clear()
        results.append(evaluate(block))

    Raises
    ------
    InputError: as `read_run`.
    """
    for piece in _whole_topics(path):
        if piece is None:
            run = read_run(path)
            yield _block(path, run, topic_starts(run["query_id"]), restart=True)
        else:
            yield _block(path, *piece, restart=False)


def _whole_topics(path: str | Path) -> Iterator[tuple[pl.DataFrame, Ints] | None]:
    """Frames of whole topics in file order, and their `topic_starts`; at the end None if a topic returns."""
    seen: set[str] = set()
    tail: list[pl.DataFrame] = []  # what there is so far of the topic at the end
    held, topic = 0, None
    for frame in run_rows(path):
        starts = topic_starts(frame["query_id"])
        names = frame["query_id"][starts[:-1]].to_list()
        new = names[1:] if names[0] == topic else names
        if len(set(new)) < len(new) or not seen.isdisjoint(new):
            yield None
            return
        seen.update(new)
        if not new:
            tail.append(frame)
            held += frame.height
            continue
        last = int(starts[-2])
        if held + last:
            # The topic carried over begins at 0, and so do its rows here, if there are any.
            begins = starts[:-1] + held if len(new) == len(names) else starts[1:-1] + held
            begins = np.append(0, begins) if held else begins
            yield pl.concat([*tail, frame[:last]], rechunk=True), begins
        tail, held, topic = [frame[last:]], frame.height - last, names[-1]
    yield pl.concat(tail, rechunk=True), np.array([0, held])


def _block(path: str | Path, rows: pl.DataFrame, starts: Ints, *, restart: bool) -> Block:
    doc_id, score = rows["doc_id"], rows["score"].to_numpy()
    topic = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    hashes = doc_id.hash().to_numpy()
    keys = np.sort(mixed_hash(topic, hashes))
    if (keys[1:] == keys[:-1]).any():
        _refuse_repeated(path, rows)
    if not in_order(starts, doc_id, score):
        moved = order(topic, doc_id, score)
        doc_id, score, hashes = doc_id[moved], score[moved], hashes[moved]
    return Block(rows["query_id"][starts[:-1]], starts, doc_id, score, hashes, restart)


def _refuse_repeated(path: str | Path, rows: pl.DataFrame) -> None:
    again = repeated(rows)
    if not len(again):
        return
    if is_parquet(path):
        query_id, doc_id = rows.row(int(again[0]))[:2]
        raise InputError(path, None, f"document {doc_id!r} of topic {query_id!r} stands there twice")
    raise problem(path, "run")


# ------------------------------------------------------------------------------------------------ text


def _text_frames(path: str | Path, kind: Kind) -> Iterator[pl.DataFrame]:
    """Frames of the kept columns, none of them empty, one for each block of the text."""
    rows = 0
    for block in byte_blocks(path):
        try:
            frame = parse_block(block, kind)
            if frame is None:
                frame = parse_block(_plain(block, kind.row), kind)
            if frame is None:
                frame = _slow(block, kind)
        except BadLineError:
            raise problem(path, kind.name) from None
        rows += frame.height
        if frame.height:
            yield frame
    if not rows:
        raise problem(path, kind.name)


def parse_block(block: bytes, kind: Kind) -> pl.DataFrame | None:
    """The kept columns of a block of text as polars parses it; None if it may have got a line wrong."""
    separators = _separators(block)
    if separators is None or block.startswith(BYTE_ORDER_MARK):  # polars would leave the mark out
        return None
    try:
        lazy = pl.scan_csv(
            block, separator=" ", has_header=False, quote_char=None, schema=kind.columns, glob=False
        )
        frame = lazy.select(kind.kept).collect()
    except pl.exceptions.PolarsError:
        return None
    if separators != len(kind.columns) * frame.height or frame[kind.kept[-1]].null_count():
        return None
    odd = b"#" in block or BYTE_ORDER_MARK[:1] in block
    if odd and frame["query_id"].str.contains("^[#\ufeff]").any():
        return None
    return frame


def _separators(block: bytes) -> int | None:
    """How many bytes up to 0x20 there are; None if two stand side by side or one stands first."""
    data = np.frombuffer(block, np.uint8)
    if not len(data) or data[0] <= 32:
        return None
    count = 0
    for start in range(0, len(data), _PIECE):
        low = data[start : start + _PIECE + 1] <= 32  # one byte more, to see across the edge
        if (low[1:] & low[:-1]).any():
            return None
        count += int(np.count_nonzero(low[:_PIECE]))
    return count


def _plain(block: bytes, row: Callable[[bytes], object]) -> bytes:
    """The block's rows with single spaces between columns, as far as replacing bytes leads there."""
    block = block.replace(b"\r\n", b"\n").translate(_SPACES)
    if b"\r" in block:
        return block  # the slow way says what is wrong with it
    while b"  " in block:  # halves every gap: far faster than a regular expression
        block = block.replace(b"  ", b" ")
    block = block.replace(b" \n", b"\n").replace(b"\n ", b"\n").removeprefix(b" ")
    if b"#" in block:
        comments = re.compile(rb"^#.*\n", re.MULTILINE)
        for line in comments.findall(block):
            row(line[:-1])
        block = comments.sub(b"", block)
    return re.sub(rb"\n\n+", b"\n", block).removeprefix(b"\n")


def _slow(block: bytes, kind: Kind) -> pl.DataFrame:
    """The block, line by line."""
    rows = [row for line in block[:-1].split(b"\n") if (row := kind.row(line)) is not None]
    return pl.DataFrame(
        {column: [getattr(row, column) for row in rows] for column in kind.kept},
        schema={column: kind.columns[column] for column in kind.kept},
    )


# --------------------------------------------------------------------------------------------- Parquet


def _parquet_rows(path: str | Path) -> Iterator[pl.DataFrame]:
    rows = open_parquet(path, [*_ROWS]).select(*_ROWS)
    height = rows.select(pl.len()).collect().item()
    if not height:
        raise InputError(path, None, "no rows")
    for start in range(0, height, _SLICE):
        frame = rows.slice(start, _SLICE).collect()
        for column in frame.columns:
            if len(null := frame[column].is_null().arg_true()):
                raise InputError(path, None, f"{column} is null in row {start + null[0] + 1}")
        score = frame["score"].to_numpy()
        if len(odd := np.flatnonzero(~np.isfinite(score))):
            what = f"the score in row {start + odd[0] + 1} is {score[odd[0]]}, not a finite number"
            raise InputError(path, None, what)
        yield frame


def open_parquet(path: str | Path, needed: list[str]) -> pl.LazyFrame:
    """A Parquet file that has the columns `needed`, ids as text and `score` as float64; not read yet.

    Raises
    ------
    InputError: no Parquet, a column is missing, ids are numbers (007 would be lost), or a score is no number.
    """
    open_input(path).close()  # a missing file gets the same words as a missing text file
    try:
        lazy = pl.scan_parquet(path, glob=False)
        schema = lazy.collect_schema()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InputError(path, None, f"is no readable Parquet: {str(error).splitlines()[0]}") from None
    if missing := [c for c in needed if c not in schema]:
        have = ", ".join(schema) or "none"
        raise InputError(path, None, f"lacks the column {', '.join(missing)}; it has {have}")
    for column in needed:
        kind = schema[column]
        if column.endswith("_id") and not (kind == pl.String or kind in (pl.Categorical, pl.Enum)):
            raise InputError(path, None, f"{column} is {kind}, and ids are text: 007 is not 7")
        if not column.endswith("_id") and not kind.is_numeric():
            raise InputError(path, None, f"{column} is {kind}, not a number")
    text = [pl.col(c).cast(pl.String) for c in needed if c.endswith("_id")]
    return lazy.with_columns(*text, *[pl.col(c).cast(pl.Float64) for c in needed if c == "score"])
