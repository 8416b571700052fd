"""What a qrels says about a run: which of its documents are judged, and at which ranks.

`Judgments` holds a qrels sorted by topic; `Hits` holds the documents of one run that it knows. Every measure
of `harness.scoring` is computed from these two. A run is read in blocks and only its judged documents are
kept, so memory grows with the judgments and not with the run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl

from harness.arrays import Bools, Ints, positions
from harness.errors import SchemaError
from harness.frames import RUN, check
from harness.judgments import Judgments
from harness.ranking import rank, topic_starts
from harness.trec_read import Block

__all__ = ["Hits", "View", "blocks", "find"]

_BLOCK = 1 << 17  # rows of a frame that are looked up at once, about


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
        return View(self.all.judgment[kept], topic, positions(topic), retrieved)


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
