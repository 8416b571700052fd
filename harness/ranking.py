"""The one sort: score descending compared as float32, then doc_id descending by its bytes.

This is the order of trec_eval 9, pytrec_eval and ir-measures, which hold a score as a C float and break ties
by the document's name. Scores that differ only beyond float32 (spacing 2e-6 near 20, 6e-5 near 1,000) are
ties there, but not in trec_eval 10, which compares doubles; `double_precision_topics` names the topics where
that matters.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl

from harness.arrays import Floats, Ints
from harness.errors import SchemaError
from harness.frames import RUN, check, empty

__all__ = [
    "double_precision_topics",
    "in_order",
    "mixed_hash",
    "order",
    "rank",
    "ranked",
    "ranks",
    "repeated",
    "top",
    "topic_starts",
]

_COLUMNS = {c: t for c, t in RUN.items() if c != "rank"}
_ODD = np.uint64(0x9E3779B97F4A7C15)  # spreads small topic numbers over 64 bits (2^64 / golden ratio, odd)


def topic_starts(query_id: pl.Series) -> Ints:
    """Row numbers where a topic's consecutive rows begin, and at the end the number of rows.

    `query_id` has no nulls.
    """
    rows = len(query_id)
    changes = (query_id[1:] != query_id[:-1]).arg_true().to_numpy().astype(np.int64) + 1
    return np.concatenate([[0], changes, [rows]]) if rows else np.zeros(1, np.int64)


def _single(score: Floats) -> npt.NDArray[np.float32]:
    """Scores as the tools hold them; beyond float32's range they see infinity, hence a tie."""
    with np.errstate(over="ignore"):
        return score.astype(np.float32)


def in_order(starts: Ints, doc_id: pl.Series, score: Floats) -> bool:
    """Whether the rows of each topic stand in rank order already, as in most files; far cheaper than `order`.

    Parameters
    ----------
    starts: as `topic_starts` gives them; `score`: finite.
    """
    single = _single(score)
    inside = np.ones(max(len(single) - 1, 0), bool)  # is row i + 1 of the same topic as row i?
    inside[starts[1:-1] - 1] = False
    if ((single[1:] > single[:-1]) & inside).any():
        return False
    ties = np.flatnonzero((single[1:] == single[:-1]) & inside)
    return not len(ties) or not (doc_id[ties + 1] > doc_id[ties]).any()


def order(topic: Ints, doc_id: pl.Series, score: Floats) -> Ints:
    """The row numbers that sort by topic number, score descending (as float32), doc_id descending (bytes).

    Parameters
    ----------
    topic: a number from 0 to 2^31 - 1 for each row. `score`: finite.
    """
    bits = (_single(score) + np.float32(0)).view(np.int32)  # + 0 turns -0.0 into 0.0: they are equal
    # A float's bits, with the lower 31 flipped when negative, ascend as the float does; ~ makes them descend.
    down = ~(bits ^ ((bits >> 31) & np.int32(0x7FFFFFFF)))
    key = (topic << 32) + (down.astype(np.int64) + (1 << 31))
    rows = np.argsort(key, kind="stable").astype(np.int64, copy=False)
    key = key[rows]
    ties = np.flatnonzero(key[1:] == key[:-1])
    if len(ties):
        mask = np.zeros(len(key), bool)
        mask[ties] = mask[ties + 1] = True
        tied = np.flatnonzero(mask)
        ids = pl.DataFrame({"key": key[tied], "doc_id": doc_id[rows[tied]]})
        inner = ids.select(pl.arg_sort_by("key", "doc_id", descending=[False, True])).to_series().to_numpy()
        rows[tied] = rows[tied][inner]
    return rows


def mixed_hash(topic: npt.NDArray[np.integer], doc_hash: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """One 64-bit number a row out of its topic's number (or hash) and its document's hash."""
    return (topic.astype(np.uint64) * _ODD) ^ doc_hash


def repeated(frame: pl.DataFrame) -> Ints:
    """Row numbers, ascending, of each second and later occurrence of a (query_id, doc_id)."""
    key = mixed_hash(frame["query_id"].hash().to_numpy(), frame["doc_id"].hash().to_numpy())
    ordered = np.sort(key)
    twice = ordered[1:][ordered[1:] == ordered[:-1]]
    if not len(twice):
        return np.empty(0, np.int64)
    rows = np.flatnonzero(np.isin(key, twice)).astype(np.int64)  # now compare the ids themselves
    first = frame[rows].select(pl.struct("query_id", "doc_id").is_first_distinct()).to_series()
    again: Ints = rows[~first.to_numpy()]
    return again


def rank(run: pl.DataFrame) -> pl.DataFrame:
    """RUN out of query_id, doc_id and score, whatever the order of the rows; `rank` is computed anew.

    Sorted by query_id (bytes), then rank, which counts from 0 within the topic. Other columns are dropped.

    Raises
    ------
    SchemaError: a column is missing, an id or score is null, a score is not finite, or a topic has a document
        twice.
    """
    run = check(run, _COLUMNS, "run").select(*_COLUMNS)
    if not run.height:
        return empty(RUN)
    for column in _COLUMNS:
        if run[column].null_count():
            raise SchemaError(f"run: {column} is null at row {run[column].is_null().arg_true()[0]}")
    score = run["score"].to_numpy()
    if not np.isfinite(score).all():
        row = int(np.flatnonzero(~np.isfinite(score))[0])
        q, d = run["query_id"][row], run["doc_id"][row]
        raise SchemaError(
            f"run: the score of document {d!r} in topic {q!r} is {score[row]}, not a finite number"
        )
    if len(again := repeated(run)):
        q, d = run["query_id"][int(again[0])], run["doc_id"][int(again[0])]
        raise SchemaError(f"run: topic {q!r} has document {d!r} twice")
    return ranked(run)


def ranked(run: pl.DataFrame) -> pl.DataFrame:
    """`rank` without its checks, for rows that are known to pass them; columns query_id, doc_id, score."""
    starts = topic_starts(run["query_id"])
    heads = run["query_id"][starts[:-1]].to_list()
    names = sorted(set(heads))  # by code point, which is the order of UTF-8 bytes
    score = run["score"].to_numpy()
    if heads != names or not in_order(starts, run["doc_id"], score):
        code = {name: number for number, name in enumerate(names)}
        topic = np.repeat(np.array([code[head] for head in heads]), np.diff(starts))
        run = run[order(topic, run["doc_id"], score)]
        starts = np.append(0, np.cumsum(np.bincount(topic, minlength=len(names))))
    return run.hstack([pl.Series("rank", ranks(starts))])


def ranks(starts: Ints) -> npt.NDArray[np.uint32]:
    """Each row's rank from 0, given where the topics begin (`topic_starts`)."""
    return (np.arange(starts[-1]) - np.repeat(starts[:-1], np.diff(starts))).astype(np.uint32)


def top(run: pl.DataFrame, depth: int) -> pl.DataFrame:
    """The rows of a RUN whose rank is below `depth`."""
    return run.filter(pl.col("rank") < depth)


def double_precision_topics(run: pl.DataFrame) -> list[str]:
    """The topics of a RUN, sorted, that tools comparing doubles (trec_eval 10, ranx) would order otherwise.

    RUN is in float32 order, so a topic is among them exactly if a row's float64 score is above that of the
    row before.
    """
    later = pl.col("score") > pl.col("score").shift(1)
    same = pl.col("query_id") == pl.col("query_id").shift(1)
    return run.filter(later & same)["query_id"].unique().sort().to_list()
