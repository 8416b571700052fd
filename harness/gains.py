"""What a qrels says about a run, as compact arrays: which documents are judged, at which ranks, how relevant.

`Judgments` holds a qrels sorted by topic; `Hits` holds the documents of one run that it knows. Every measure
of `harness.scoring` is computed from these two. A run is read in blocks and only its judged documents are
kept, so memory grows with the judgments and not with the run.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import polars as pl

from harness.errors import SchemaError, UsageError
from harness.frames import QRELS, RUN, check
from harness.ranking import mixed_hash, rank, topic_starts
from harness.trec_read import Block

__all__ = ["SHIFTS", "Bools", "Floats", "Hits", "Ints", "Judgments", "View", "blocks", "find", "running_sum"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
T = TypeVar("T")

SHIFTS = ("shift_all", "shift_topic")
"""Columns of a filled qrels: how far the labels' errors go together, see `harness.draws`."""

_SLOTS = 16  # filter slots per judgment: about one unjudged document in sixteen passes and is looked up
_BLOCK = 1 << 17  # rows of a frame that are looked up at once, about


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
        return topic, gains[rows], _positions(topic)

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


@dataclass(frozen=True)
class View:
    """Judged documents of a run in order of topic, then rank: one entry each, `rank` counting from 1."""

    judgment: Ints
    topic: Ints
    rank: Ints
    retrieved: Ints
    """Documents retrieved, of each topic of the qrels."""


@dataclass(frozen=True)
class Hits:
    """One run seen through the judgments."""

    judgments: Judgments
    all: View
    """The judged documents at their ranks."""
    unknown: list[str]
    """The topics of the run that the qrels lack, sorted."""
    tied: int = 0
    """Topics of the qrels on which the run gives all its documents, more than one, the same score."""

    @property
    def missing(self) -> int:
        """How many topics of the qrels the run lacks."""
        return int((self.all.retrieved == 0).sum())

    def same(self, other: Hits) -> bool:
        """Whether both runs have the same judged documents at the same ranks, and as many documents."""
        pairs = [(getattr(self.all, f), getattr(other.all, f)) for f in ("judgment", "rank", "retrieved")]
        return all(np.array_equal(ours, theirs) for ours, theirs in pairs)

    def repeated(self, judgments: Judgments) -> Hits:
        """The hits as `judgments`, made by `regraded`, has them: those of the run, once for each time."""
        times = len(judgments) // len(self.judgments)
        turn = np.arange(times)[:, None]
        view = View(
            (turn * len(self.judgments) + self.all.judgment).ravel(),
            (turn * len(self.judgments.topics) + self.all.topic).ravel(),
            np.tile(self.all.rank, times),
            np.tile(self.all.retrieved, times),
        )
        return Hits(judgments, view, [])

    @cached_property
    def judged_only(self) -> View:
        """The judged documents after all others, and negative grades (trec_eval's unjudged), left the run."""
        kept = self.judgments.relevance[self.all.judgment] >= 0
        topic = self.all.topic[kept]
        retrieved = np.bincount(topic, minlength=len(self.judgments.topics))
        return View(self.all.judgment[kept], topic, _positions(topic), retrieved)


def find(judgments: Judgments, run: Iterable[Block]) -> Hits:
    """The judged documents of a run, given in blocks: `ranked_blocks` of a file or `blocks` of a frame.

    Raises
    ------
    SchemaError: a judged document stands twice in a topic.
    """
    topics = len(judgments.topics)
    parts: list[tuple[Ints, Ints]] = []
    retrieved = np.zeros(topics, dtype=np.int64)
    unknown: list[str] = []
    tied = 0
    for block in run:
        if block.restart:
            parts, retrieved, unknown, tied = [], np.zeros(topics, dtype=np.int64), [], 0
        queries = block.topics.to_list()
        codes = np.array([judgments.index.get(q, topics) for q in queries], dtype=np.int64)
        known = codes < topics
        unknown += [queries[i] for i in np.flatnonzero(~known)]
        retrieved[codes[known]] = np.diff(block.starts)[known]
        tied += _tied(block, known)
        rows, judgment = judgments.lookup(codes, block.starts, block.doc_id, block.doc_hash)
        first = block.starts[np.searchsorted(block.starts, rows, side="right") - 1]
        parts.append((judgment, rows - first + 1))
    judgment, ranks = (
        (np.concatenate(part) for part in zip(*parts, strict=True)) if parts else np.zeros((2, 0), np.int64)
    )
    if (np.bincount(judgment) > 1).any():
        raise SchemaError(f"run: {judgments.pair(int(np.bincount(judgment).argmax()))} stands there twice")
    topic = judgments.topic[judgment]
    if (np.diff(topic) < 0).any():  # the topics of a file stand in the file's order
        order = np.argsort(topic, kind="stable")
        judgment, ranks, topic = judgment[order], ranks[order], topic[order]
    return Hits(judgments, View(judgment, topic, ranks, retrieved), sorted(unknown), tied)


def _tied(block: Block, known: Bools) -> int:
    if not len(block.score):
        return 0
    first, last = block.starts[:-1], block.starts[1:] - 1
    several = (last > first) & known  # scores descend, so equal ends are equal throughout
    return int((block.score[first[several]] == block.score[last[several]]).sum())


def blocks(run: pl.DataFrame) -> Iterator[Block]:
    """A RUN in blocks of whole topics; ranked anew first if its rows are not in rank order, topic by topic.

    Raises
    ------
    SchemaError: the frame is not a RUN, or cannot be ranked.
    """
    run = check(run, RUN, "run").select(*RUN)
    starts = topic_starts(run["query_id"])
    expected = np.arange(run.height) - np.repeat(starts[:-1], np.diff(starts))
    once = run["query_id"].gather(starts[:-1]).is_unique().all()
    if not once or not np.array_equal(run["rank"].to_numpy(), expected):
        run = rank(run)
        starts = topic_starts(run["query_id"])
    first = 0
    while first < len(starts) - 1:
        last = max(first + 1, int(np.searchsorted(starts, starts[first] + _BLOCK, side="right")) - 1)
        part = run.slice(int(starts[first]), int(starts[last] - starts[first]))
        ends = starts[first : last + 1] - starts[first]
        documents = part["doc_id"]
        yield Block(
            part["query_id"].gather(ends[:-1]),
            ends,
            documents,
            part["score"].to_numpy(),
            documents.hash().to_numpy(),
            restart=False,
        )
        first = last


def _positions(topic: Ints) -> Ints:
    """1, 2, 3, ... within each stretch of equal values."""
    heads = np.flatnonzero(np.diff(topic, prepend=-1))
    return np.arange(1, len(topic) + 1) - np.repeat(heads, np.diff(np.append(heads, len(topic))))


def running_sum(topic: Ints, values: Floats) -> Floats:
    """Sum of the values before each entry, within its topic; `topic` is sorted."""
    before = np.cumsum(values) - values
    heads = np.flatnonzero(np.diff(topic, prepend=-1))
    return before - np.repeat(before[heads], np.diff(np.append(heads, len(topic))))
