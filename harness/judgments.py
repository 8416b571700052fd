"""A qrels as compact arrays, sorted by topic: how relevant each judged document is, and how to find it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from copy import copy
from functools import cached_property
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import polars as pl

from harness.arrays import Bools, Floats, Ints, positions
from harness.errors import SchemaError, UsageError
from harness.frames import QRELS, check
from harness.ranking import mixed_hash, topic_starts

__all__ = ["SHIFTS", "Judgments"]

T = TypeVar("T")

SHIFTS = ("shift_all", "shift_topic")
"""Columns of a filled qrels: how far the labels' errors go together, see `harness.draws`."""

_SLOTS = 16  # filter slots per judgment: about one unjudged document in sixteen passes and is looked up


class Judgments:
    """A qrels, sorted by topic.

    Parameters
    ----------
    qrels: QRELS, optionally with `probs` (list of f32 over `grades`; null for assessors). Rows whose assessor
        is not `human` are *labeled*: their gain is the column `gain`, and P(relevance >= t) comes from
        `probs`, or, where there are none, is 1 or 0 by the hard grade. An assessor's row counts by its
        `relevance` alone.
    grades: the grades that `probs` run over, ascending; by default 0, 1, 2, ...

    Attributes
    ----------
    topics: the query ids, sorted by bytes; `index`: query id -> position in `topics`.
    topic, relevance, labeled: one entry a judgment: position in `topics` (ascending), hard grade, whether it
        is a label and not an assessor's.
    probs: (n, G) over `grades`, rows of NaN where there is no distribution; None if no row has one.
    shifts: (n, 2), how far a label's error is shared with all other labels and with those of its topic:
        standard deviations in log-odds, from the columns `SHIFTS`; NaN where nothing is said.

    Raises
    ------
    SchemaError: a column is missing or of another type; an id, grade or labeled gain is null; the lengths of
        `probs` differ from one another or from `grades`.
    UsageError: there is no judgment, or a pair is judged twice.
    """

    def __init__(self, qrels: pl.DataFrame, grades: Sequence[int] | None = None) -> None:
        check(qrels, QRELS, "qrels")
        if qrels.is_empty():
            raise UsageError("the qrels hold no judgment, so there is nothing to measure against")
        nulls = [c for c in ("query_id", "doc_id", "relevance", "assessor") if qrels[c].null_count()]
        if nulls:
            raise SchemaError(
                f"qrels: null in {', '.join(nulls)}; a pair without a grade is left out, not null"
            )
        if (qrels["assessor"] != "human").any():
            qrels = qrels.sort("query_id", "doc_id")  # sums of fractions hang on the order of their terms
        elif not qrels["query_id"].is_sorted():
            qrels = qrels.sort("query_id", maintain_order=True)
        starts = topic_starts(qrels["query_id"])
        self.topics: list[str] = qrels["query_id"].gather(starts[:-1]).to_list()
        self.topic: Ints = np.repeat(np.arange(len(self.topics)), np.diff(starts))
        self.index: dict[str, int] = {q: i for i, q in enumerate(self.topics)}
        self.relevance: Ints = qrels["relevance"].to_numpy().astype(np.int64)
        self.labeled: Bools = (qrels["assessor"] != "human").to_numpy()
        self._documents = qrels["doc_id"]
        self._gain = _gain(qrels, self.relevance, self.labeled)
        self.probs, self.grades = _distributions(qrels, self.labeled, grades)
        self.shifts = _shifts(qrels)
        self._memo: dict[Hashable, object] = {}
        self._index_keys()

    def __len__(self) -> int:
        return len(self.topic)

    def only(self, kept: Bools, topics: Ints) -> Judgments:
        """The judgments `kept`, which are those of `topics` (positions, ascending). It knows no documents."""
        made = copy(self)
        made.topics = [self.topics[i] for i in topics]
        made.topic = np.searchsorted(topics, self.topic[kept])
        made.relevance, made.labeled = self.relevance[kept], self.labeled[kept]
        made._gain, made.shifts, made._memo = self._gain[kept], self.shifts[kept], {}
        made.probs = None if self.probs is None else self.probs[kept]
        made.__dict__["scale"] = self.scale  # cached: the scale is that of all judgments
        return made

    def regraded(self, relevance: Ints) -> Judgments:
        """The same pairs judged `relevance.shape[0]` times over, every grade an assessor's.

        Topic t of time b stands at b * len(topics) + t, judgment i at b * len(self) + i. It knows no
        documents: `Hits.repeated` carries the hits of a run over.

        Parameters
        ----------
        relevance: (times, n) grades.
        """
        made = copy(self)
        times, topics = len(relevance), len(self.topics)
        made.topics = self.topics * times
        made.topic = (np.arange(times)[:, None] * topics + self.topic).ravel()
        made.relevance = relevance.ravel()
        made.labeled = np.zeros(made.relevance.shape, dtype=np.bool_)
        made._gain, made.probs, made._memo = made.relevance.astype(np.float64), None, {}
        made.__dict__["scale"] = self.scale
        return made

    def with_labels(
        self, rows: Ints, relevance: Ints, gain: Floats, probs: Floats | None, shifts: Floats | None
    ) -> Judgments:
        """The same pairs, with labels instead of what the judgments `rows` say. It knows no documents.

        Parameters
        ----------
        relevance, gain: (rows,). probs: (rows, G) over `grades`, None for labels without a distribution.
        shifts: (rows, 2) of `SHIFTS`; None: not said.
        """
        made = copy(self)
        made.relevance, made._gain = self.relevance.copy(), self._gain.copy()
        made.labeled, made.shifts, made._memo = self.labeled.copy(), self.shifts.copy(), {}
        made.relevance[rows], made._gain[rows], made.labeled[rows] = relevance, gain, True
        made.shifts[rows] = np.nan if shifts is None else shifts
        if probs is not None or self.probs is not None:
            made.probs = np.full((len(self), len(self.grades)), np.nan)
            if self.probs is not None:
                made.probs[:] = self.probs
            made.probs[rows] = np.nan if probs is None else probs
        made.__dict__["scale"] = self.scale
        return made

    def memo(self, key: Hashable, make: Callable[[], T]) -> T:
        """`make()`, kept under `key` for the next run."""
        if key not in self._memo:
            self._memo[key] = make()
        return self._memo[key]  # type: ignore[return-value]

    def relevant(self, rel: int) -> Floats:
        """P(relevance >= rel) of each judgment: 1 or 0 for an assessor's, summed `probs` for a label's."""

        def make() -> Floats:
            hard = (self.relevance >= rel).astype(np.float64)
            return self._expected(hard, (self.grades >= rel).astype(np.float64)).clip(0.0, 1.0)

        return self.memo(("relevant", rel), make)

    def gains(self, *, exponential: bool = False, mapping: Mapping[int, float] | None = None) -> Floats:
        """Expected gain of each judgment, never below 0.

        Linear gains are the grade (assessor) or the column `gain` (label). Exponential gains are 2^grade - 1;
        with a `mapping` a grade stands for the number it maps to, or for itself. Both of these are
        expectations over `probs`, or follow the hard grade where a label has none.

        Raises
        ------
        UsageError: a grade is so high that 2^grade overflows.
        """

        def of(grades: Ints) -> Floats:
            values = grades.astype(np.float64)
            for grade, value in (mapping or {}).items():
                values[grades == grade] = value
            return np.maximum(np.exp2(values) - 1.0 if exponential else values, 0.0)

        def make() -> Floats:
            if not exponential and mapping is None:
                return np.maximum(self._gain, 0.0)
            with np.errstate(over="ignore", invalid="ignore"):
                values = self._expected(of(self.relevance), of(self.grades))
            if not np.isfinite(values).all():
                raise UsageError(f"2^grade overflows: the qrels hold the grade {self.relevance.max()}")
            return values

        return self.memo(("gains", exponential, tuple(sorted((mapping or {}).items()))), make)

    def _expected(self, hard: Floats, of_grade: Floats) -> Floats:
        """`hard`, replaced by the expectation of `of_grade` over `probs` where a row has them."""
        if self.probs is None:
            return hard
        mean = (self.probs * of_grade).sum(axis=1)  # not @: its last bit may hang on the number of threads
        return np.where(np.isnan(self.probs[:, 0]), hard, mean)

    def total(self, values: Floats) -> Floats:
        """Sum over each topic's judgments."""
        return np.bincount(self.topic, values, len(self.topics)).astype(np.float64, copy=False)

    @cached_property
    def scale(self) -> float:
        """The highest grade: of the scale that `probs` run over or among those given; at least 1."""
        return float(max(1, self.relevance.max(), *self.grades.tolist()))

    def ideal(self, gains: Floats) -> tuple[Ints, Floats, Ints]:
        """Topic, gain and rank (from 1) of the judgments with a gain, best first within each topic."""
        rows = np.flatnonzero(gains > 0.0)
        rows = rows[np.lexsort((-gains[rows], self.topic[rows]))]
        topic = self.topic[rows]
        return topic, gains[rows], positions(topic)

    def _index_keys(self) -> None:
        """Sort the judgments by a 64-bit key of (topic, document) and divide them by its upper bits.

        A table of flags by the lower bits lets most unjudged documents be passed over with one look.
        """
        keys = mixed_hash(self.topic, self._documents.hash().to_numpy())
        self._order: Ints = np.argsort(keys, kind="stable").astype(np.int64)
        self._keys = keys[self._order]
        self._refuse_repeated()
        bits = len(keys).bit_length() + 1
        self._shift = np.uint64(64 - bits)
        bounds = np.arange((1 << bits) + 1)
        self._bounds: Ints = np.searchsorted((self._keys >> self._shift).view(np.int64), bounds)
        self._longest = int(np.diff(self._bounds).max())
        self._mask = np.uint64((1 << (len(keys) * _SLOTS).bit_length()) - 1)
        self._flags = np.zeros(int(self._mask) + 1, dtype=np.bool_)
        self._flags[(keys & self._mask).view(np.int64)] = True

    def _refuse_repeated(self) -> None:
        for step in range(1, len(self._keys)):  # ends at once unless hashes collide or a pair is judged twice
            at = np.flatnonzero(self._keys[step:] == self._keys[:-step])
            if not len(at):
                return
            a, b = self._order[at], self._order[at + step]
            twice = (self._documents.gather(a) == self._documents.gather(b)).to_numpy()
            twice &= self.topic[a] == self.topic[b]
            if twice.any():
                raise UsageError(f"qrels: {self.pair(int(a[twice][0]))} is judged more than once")

    def pair(self, judgment: int) -> str:
        """A judgment's pair, in words."""
        return f"document {self._documents[judgment]!r} of topic {self.topics[self.topic[judgment]]!r}"

    def lookup(
        self, topics: Ints, starts: Ints, documents: pl.Series, hashes: npt.NDArray[np.uint64]
    ) -> tuple[Ints, Ints]:
        """Which rows are judged.

        Parameters
        ----------
        topics: position in `self.topics` of each topic of the rows, which are `starts[i]:starts[i + 1]`.
        documents: doc_id of each row. `hashes`: `documents.hash()`.

        Returns
        -------
        Row numbers, ascending, and the judgment of each. Keys find the candidates, the ids themselves decide.
        """
        keys = mixed_hash(np.repeat(topics, np.diff(starts)), hashes)
        rows = np.flatnonzero(self._flags[(keys & self._mask).view(np.int64)])
        keys = keys[rows]
        division = (keys >> self._shift).view(np.int64)
        at, ends = self._bounds[division], self._bounds[division + 1]
        found: list[tuple[Ints, Ints]] = []
        for _ in range(self._longest):
            left = at < ends
            rows, keys, at, ends = rows[left], keys[left], at[left], ends[left]
            same = self._keys[at] == keys
            found.append((rows[same], self._order[at[same]]))
            at = at + 1
        row, judgment = (np.concatenate(part) for part in zip(*found, strict=True))
        same = (documents.gather(row) == self._documents.gather(judgment)).to_numpy()
        same &= topics[np.searchsorted(starts, row, side="right") - 1] == self.topic[judgment]
        row, judgment = row[same], judgment[same]
        order = np.argsort(row)
        return row[order], judgment[order]


def _gain(qrels: pl.DataFrame, relevance: Ints, labeled: Bools) -> Floats:
    gain = np.where(labeled, qrels["gain"].cast(pl.Float64).fill_null(np.nan).to_numpy(), relevance)
    if not np.isfinite(gain).all():
        row = int(np.flatnonzero(~np.isfinite(gain))[0])
        pair = f"document {qrels['doc_id'][row]!r} of topic {qrels['query_id'][row]!r}"
        raise SchemaError(f"qrels: {qrels['assessor'][row]} gives {pair} the gain {qrels['gain'][row]}")
    return gain


def _shifts(qrels: pl.DataFrame) -> Floats:
    missing = pl.Series([None] * len(qrels), dtype=pl.Float64)
    columns = [qrels[c] if c in qrels.columns else missing for c in SHIFTS]
    return np.column_stack([c.cast(pl.Float64).fill_null(np.nan).to_numpy() for c in columns])


def _distributions(
    qrels: pl.DataFrame, labeled: Bools, grades: Sequence[int] | None
) -> tuple[Floats | None, Ints]:
    """`probs` as a matrix and their grades.

    Rows of NaN belong to assessors and to labels without a distribution; None if there are no other rows.
    """
    scale = np.asarray(grades if grades is not None else [], dtype=np.int64)
    if "probs" not in qrels.columns or not labeled.any():
        return None, scale
    rows = np.flatnonzero(labeled & qrels["probs"].is_not_null().to_numpy())
    given = qrels["probs"].gather(rows)
    lengths = given.list.len().unique().sort().to_list()
    if not lengths:
        return None, scale
    if grades is None:
        scale = np.arange(lengths[0], dtype=np.int64)
    if lengths != [len(scale)] or not len(scale):
        raise SchemaError(f"qrels: probs hold {lengths} numbers a row, but there are {len(scale)} grades")
    probs = np.full((len(qrels), len(scale)), np.nan)
    probs[rows] = given.explode().cast(pl.Float64).to_numpy().reshape(-1, len(scale))
    if not np.isfinite(probs[rows]).all():
        raise SchemaError("qrels: probs hold a value that is null or not finite")
    return probs, scale
