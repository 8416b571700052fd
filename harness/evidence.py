"""From frames to arrays: the pool of signals that `calibrate` works on, topic by topic."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import polars as pl

from harness.arrays import Bools, Floats, Ints
from harness.errors import CalibrationError, SchemaError
from harness.frames import QRELS, SIGNALS, check

__all__ = ["Column", "Pool", "Topic", "read_pool"]


_COMPANY = 10
"""Documents of a topic's pool that stand for its best, and for a document's nearest."""


@dataclass(frozen=True)
class Column:
    """One column of the design: its name, the weight it starts from, and how hard it is held there."""

    name: str
    weight: float
    precision: float


@dataclass(frozen=True)
class Topic:
    """Rows of one topic in the pool."""

    query_id: str
    rows: Ints
    """All rows of the topic that have a signal."""
    judged: Ints
    """Those among them that an assessor graded."""


@dataclass(frozen=True)
class Pool:
    """Everything known about the pairs, rows sorted by query_id and doc_id.

    `x` (n, f) holds the signals; NaN where a labeler said nothing. `lead` (n,) is the labelers'
    mean signal as a z-score within the topic. `grade` (n,) is the position of the assessor's grade in
    `grades`, -1 where there is none. `vectors` (n, d) are unit document vectors of the labelers that give
    them, or None.
    """

    pairs: pl.DataFrame
    grades: tuple[int, ...]
    labelers: tuple[str, ...]
    columns: tuple[Column, ...]
    x: Floats
    lead: Floats
    grade: Ints
    heard: Bools
    vectors: npt.NDArray[np.float32] | None
    topics: tuple[Topic, ...]

    def judgments(self) -> Ints:
        """Grade positions of the judged rows that have a signal."""
        return self.grade[(self.grade >= 0) & self.heard]


def read_pool(signals: Sequence[pl.DataFrame], human: pl.DataFrame, grades: Sequence[int]) -> Pool:
    """Join one SIGNALS frame a labeler, and the assessors' QRELS, into one pool.

    A grade below zero is an assessor's code, not a grade, and is left out (FIELD: -1, -2 of trec_eval).

    Raises
    ------
    CalibrationError: no signals, an assessor's grade that the collection does not have, or a labeler's
        probabilities over another number of grades.
    SchemaError: an assessor's grade of one pair stands there twice.
    """
    if not signals:
        raise CalibrationError("there are no signals to calibrate; name at least one labeler")
    check(human, QRELS, "qrels")
    scale = tuple(sorted(g for g in grades if g >= 0))
    mine = human.filter((pl.col("assessor") == "human") & (pl.col("relevance") >= 0))
    strange = mine.filter(~pl.col("relevance").is_in(list(scale)))
    if strange.height:
        row = strange.row(0, named=True)
        raise CalibrationError(
            f"topic {row['query_id']}, document {row['doc_id']} has grade {row['relevance']}; the "
            f"collection's grades are {', '.join(map(str, scale))}.\n"
            "Next: add the grade and its meaning to grades.tsv"
        )
    keys = ["query_id", "doc_id"]
    twice = mine.filter(pl.struct(keys).is_duplicated())
    if twice.height:
        raise SchemaError(f"qrels: topic {twice['query_id'][0]} has document {twice['doc_id'][0]} twice")
    frames = [check(s, SIGNALS, "signals").unique(keys, keep="first", maintain_order=True) for s in signals]
    pairs = pl.concat([f.select(keys) for f in frames]).unique().sort(keys)
    joined = [pairs.join(f, on=keys, how="left", maintain_order="left") for f in frames]
    graded = pairs.join(mine.select([*keys, "relevance"]), on=keys, how="left", maintain_order="left")[
        "relevance"
    ]
    grade = np.searchsorted(np.asarray(scale), graded.fill_null(scale[0]).to_numpy()).astype(np.int64)
    grade[graded.is_null().to_numpy()] = -1

    starts = np.flatnonzero(
        np.concatenate(
            [[True], (pairs["query_id"] != pairs["query_id"].shift(1)).fill_null(True).to_numpy()[1:]]
        )
    )
    ends = [*starts.tolist(), pairs.height]
    spans = list(pairwise(ends)) if pairs.height else []
    values: list[Floats] = []
    columns: list[Column] = []
    leads: list[Floats] = []
    for number, frame in enumerate(joined):
        names = frame["labeler"].drop_nulls()
        name = str(names[0]).split("@")[0] if len(names) else f"labeler {number + 1}"
        for column, value, leads_topic in _columns(name, frame, scale, spans):
            columns.append(column)
            values.append(value)
            if leads_topic:
                leads.append(value)
    if not values:
        reasons = pl.concat([f["reason"] for f in frames]).drop_nulls().value_counts(sort=True)
        raise CalibrationError(
            f"no pair has a signal: {pairs.height} pairs"
            + "".join(f", {n} times {why!r}" for why, n in reasons.head(3).iter_rows())
            + ".\nNext: name a labeler that can see these pairs, or a collection that has their texts"
        )
    heard = np.asarray(np.isfinite(np.column_stack(values)).any(axis=1))
    table = np.column_stack(leads)
    lead = np.nan_to_num(table).sum(axis=1) / np.maximum(np.isfinite(table).sum(axis=1), 1)
    vectors = _vectors(joined)
    if vectors is not None:
        for column, value in _company(vectors, lead, spans):
            columns.append(column)
            values.append(value)
    x = np.column_stack(values)
    topics = tuple(
        Topic(
            str(pairs["query_id"][int(a)]),
            (rows := np.arange(a, b)[heard[a:b]]),
            rows[grade[rows] >= 0],
        )
        for a, b in spans
    )
    ids = tuple(sorted({str(n) for f in frames for n in f["labeler"].drop_nulls().unique()}))
    return Pool(pairs, scale, ids, tuple(columns), x, lead, grade, heard, vectors, topics)


def _columns(
    name: str, frame: pl.DataFrame, scale: tuple[int, ...], spans: list[tuple[int, int]]
) -> Iterator[tuple[Column, Floats, bool]]:
    """What one labeler brings: P(grade >= t) of a distribution, a score, and z-scores within the topic.

    Features come as z-scores only: their levels (lengths above all) do not carry over to other collections.
    """
    said = frame["probs"].is_not_null().to_numpy()
    if said.any():
        widths = frame["probs"].list.len().drop_nulls().unique().sort().to_list()
        if widths != [len(scale)]:
            raise CalibrationError(
                f"{name} gives {' and '.join(map(str, widths))} probabilities; the collection has "
                f"{len(scale)} grades: {', '.join(map(str, scale))}"
            )
        probs = np.full((frame.height, len(scale)), np.nan)
        probs[said] = np.array(frame["probs"].drop_nulls().to_list(), dtype=float)
        reached = probs[:, ::-1].cumsum(axis=1)[:, ::-1][:, 1:]
        for t, grade in enumerate(scale[1:]):
            yield Column(f"{name}: P(>= {grade})", 1.0 / (len(scale) - 1), 1.0), reached[:, t], False
        yield Column(f"{name}: expected grade in topic", 0.3, 2.0), _z(reached.sum(axis=1), spans), True
    score = frame["score"].cast(pl.Float64).fill_null(float("nan")).to_numpy()
    if np.isfinite(score).any():
        yield Column(f"{name}: score", 0.6, 2.0), score, False
        yield Column(f"{name}: score in topic", 0.4, 2.0), _z(score, spans), not said.any()
    if "features" in frame.columns and frame["features"].null_count() < frame.height:
        width = frame["features"].list.len().max()
        rows = frame["features"].is_not_null().to_numpy()
        features = np.full((frame.height, int(str(width))), np.nan)
        features[rows] = np.array(frame["features"].drop_nulls().to_list(), dtype=float)
        for k in range(features.shape[1]):
            yield Column(f"{name}: feature {k + 1} in topic", 0.0, 30.0), _z(features[:, k], spans), False


def _company(
    vectors: npt.NDArray[np.float32], lead: Floats, spans: list[tuple[int, int]]
) -> Iterator[tuple[Column, Floats]]:
    """What a document's likeness to the rest of its topic's pool says: to the pool's best, and to those most
    like it.

    The first is pseudo-relevance feedback (Rocchio, 1971). The second tells apart topics with many relevant
    documents, whose pools lie close together (cf. the cluster hypothesis, van Rijsbergen, 1979).
    """
    best, crowd = np.full(len(lead), np.nan), np.full(len(lead), np.nan)
    for a, b in spans:
        rows = a + np.flatnonzero(np.any(vectors[a:b] != 0, axis=1))
        if len(rows) < 2:
            continue
        mine = vectors[rows]
        first = np.argsort(-lead[rows], kind="stable")[:_COMPANY]
        best[rows] = mine @ mine[first].mean(axis=0)
        alike = mine @ mine.T
        np.fill_diagonal(alike, -np.inf)
        most = min(_COMPANY, len(rows) - 1)
        crowd[rows] = np.partition(alike, -most, axis=1)[:, -most:].mean(axis=1)
    yield Column("pool: likeness to its best", 0.2, 2.0), best
    yield Column("pool: likeness to its nearest", 0.3, 2.0), crowd


def _z(values: Floats, spans: list[tuple[int, int]]) -> Floats:
    """Values less their topic's mean, over its standard deviation; NaN stays NaN, a topic of one value
    gives 0."""
    out = np.full_like(values, np.nan)
    for a, b in spans:
        part = values[a:b]
        known = np.isfinite(part)
        if known.any():
            spread = part[known].std()
            out[a:b][known] = (part[known] - part[known].mean()) / spread if spread > 1e-9 else 0.0
    return out


def _vectors(frames: Sequence[pl.DataFrame]) -> npt.NDArray[np.float32] | None:
    """Unit vectors of the documents; several encoders' side by side, so that cosines average. Zero where
    there is none."""
    parts = []
    for frame in frames:
        if "vector" not in frame.columns or frame["vector"].null_count() == frame.height:
            continue
        known = frame["vector"].is_not_null().to_numpy()
        given = frame["vector"].drop_nulls().to_numpy()
        full = np.zeros((frame.height, given.shape[1]), dtype=np.float32)
        full[known] = given
        parts.append(full)
    if not parts:
        return None
    return np.asarray(np.concatenate(parts, axis=1) / np.sqrt(len(parts)), dtype=np.float32)
