"""The documents that decide between two runs: where each run has them, and which of them nobody judged."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from harness.arrays import Bools, Floats, Ints
from harness.errors import SchemaError, UsageError
from harness.gains import blocks
from harness.judgments import Judgments

__all__ = ["Field", "open_field"]


@dataclass(frozen=True)
class Field:
    """The documents that either run has within reach, one entry each, sorted by topic, then document.

    `topics`: how many the qrels have. `topic`: each document's position among them. `base`, `candidate`: its
    rank in each run from 1, infinite where the run does not have it within reach. `judgment`: its row among
    the judgments (a label's too), -1 if none. `hole`: no assessor judged it. `grade`: an assessor's; 0 for
    holes. `documents`: the ids.
    `human_topic`, `human_grade`: all assessors' judgments, retrieved or not: what denominators are made of.
    """

    topics: int
    topic: Ints
    base: Floats
    candidate: Floats
    judgment: Ints
    hole: Bools
    grade: Ints
    documents: pl.Series
    human_topic: Ints
    human_grade: Ints

    def swapped(self) -> Field:
        """Base and candidate exchanged: the greatest delta of this is minus the least of the other."""
        return replace(self, base=self.candidate, candidate=self.base)

    def settled(self, grade: int) -> Field:
        """As if an assessor had given every hole this grade."""
        return replace(
            self,
            hole=np.zeros_like(self.hole),
            grade=np.where(self.hole, grade, self.grade),
            human_topic=np.concatenate([self.human_topic, self.topic[self.hole]]),
            human_grade=np.concatenate([self.human_grade, np.full(int(self.hole.sum()), grade)]),
        )

    def sum(self, values: Floats) -> Floats:
        """Sum over each topic's documents."""
        return np.bincount(self.topic, values, self.topics).astype(np.float64, copy=False)

    def relevant(self, rel: int) -> Floats:
        """1 for documents that an assessor found relevant, 0 for others and for holes."""
        return (~self.hole & (self.grade >= rel)).astype(np.float64)

    def human_relevant(self, rel: int) -> Floats:
        """Relevant documents of each topic, retrieved or not, holes aside."""
        return np.bincount(self.human_topic[self.human_grade >= rel], minlength=self.topics).astype(
            np.float64
        )

    def holes(self) -> Ints:
        """How many holes each topic has."""
        return np.bincount(self.topic[self.hole], minlength=self.topics).astype(np.int64, copy=False)


def open_field(judgments: Judgments, base: pl.DataFrame, candidate: pl.DataFrame, reach: int | None) -> Field:
    """Lay two RUNs over the judgments.

    Parameters
    ----------
    reach: ranks looked at, None for all.

    Raises
    ------
    UsageError: a run shares no topic with the qrels. SchemaError: a frame is no RUN, or holds a document of a
        topic twice.
    """
    ours = _placed(judgments, base, reach, "base")
    theirs = _placed(judgments, candidate, reach, "candidate")
    both = ours.join(theirs, on=["topic", "doc_id"], how="full", coalesce=True).sort("topic", "doc_id")
    topic = both["topic"].to_numpy().astype(np.int64)
    judgment = np.full(len(topic), -1, dtype=np.int64)
    if len(topic):
        starts = np.append(np.flatnonzero(np.diff(topic, prepend=-1)), len(topic))
        documents = both["doc_id"]
        row, found = judgments.lookup(topic[starts[:-1]], starts, documents, documents.hash().to_numpy())
        judgment[row] = found
    hole = (judgment < 0) | judgments.labeled[judgment]
    human = ~judgments.labeled
    return Field(
        topics=len(judgments.topics),
        topic=topic,
        base=both["base"].fill_null(np.inf).to_numpy(),
        candidate=both["candidate"].fill_null(np.inf).to_numpy(),
        judgment=judgment,
        hole=hole,
        grade=np.where(hole, 0, judgments.relevance[judgment]),
        documents=both["doc_id"],
        human_topic=judgments.topic[human],
        human_grade=judgments.relevance[human],
    )


def _placed(judgments: Judgments, run: pl.DataFrame, reach: int | None, name: str) -> pl.DataFrame:
    """topic (position among the judgments'), doc_id, and the rank from 1 in a column called `name`."""
    schema = {"topic": pl.Int64(), "doc_id": pl.String(), name: pl.Float64()}
    parts = [pl.DataFrame(schema=schema)]
    stranger = None
    known = False
    for block in blocks(run):
        queries = block.topics.to_list()
        codes = np.array([judgments.index.get(q, -1) for q in queries], dtype=np.int64)
        known = known or bool((codes >= 0).any())
        stranger = stranger or next((q for q in queries if q not in judgments.index), None)
        sizes = np.diff(block.starts)
        topic = np.repeat(codes, sizes)
        rank = np.arange(1, len(topic) + 1) - np.repeat(block.starts[:-1], sizes)
        kept = np.flatnonzero((topic >= 0) & (rank <= (reach or len(rank))))
        columns = [topic[kept], block.doc_id.gather(kept), rank[kept].astype(np.float64)]
        parts.append(pl.DataFrame(dict(zip(schema, columns, strict=True)), schema=schema))
    if stranger is not None and not known:
        raise UsageError(
            f"the {name} run shares no topic with the qrels: one of its topics is {stranger!r}, one of theirs"
            f" is {judgments.topics[0]!r}. Ids are text, so 007 is not 7."
            " Next: stopgap lint RUN --qrels QRELS"
        )
    placed = pl.concat(parts)
    twice = placed.select("topic", "doc_id").is_duplicated()
    if twice.any():
        number, document, _ = placed.row(int(twice.arg_true()[0]))
        raise SchemaError(f"the {name} run has document {document!r} twice in {judgments.topics[number]!r}")
    return placed
