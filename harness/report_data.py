"""What the page tells beyond the comparison: who graded what each run put on top, topic by topic."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from harness.errors import UsageError
from harness.frames import QRELS, RUN, check
from harness.ranking import top
from harness.trec import run_blocks

if TYPE_CHECKING:
    from harness.compare import Compared

__all__ = ["HUMAN", "Evidence", "Move", "evidence"]

_PAIR = ["query_id", "doc_id"]
_MORE = {"probs": pl.List(pl.Float32()), "nearest": pl.String(), "similarity": pl.Float64()}
HUMAN = "human"
"""What stands for an assessor in `QRELS.assessor`."""
_SAME = 1e-12  # values that differ by less differ by rounding only


@dataclass(frozen=True)
class Move:
    """A topic and what the candidate changes on it."""

    query_id: str
    base: float
    candidate: float
    delta: float


@dataclass(frozen=True)
class Evidence:
    """The comparison and what it rests on.

    Attributes
    ----------
    compared: as `harness.compare.compare` gives it.
    tops: run, query_id, doc_id, rank, of the first `reach` documents of each topic of the qrels; relevance,
        gain and assessor (null where nobody graded); probs, nearest and similarity of a label (null unknown).
    reach: ranks that `tops` holds. `cutoff`: the k of judged@k.
    """

    compared: Compared
    tops: pl.DataFrame
    reach: int
    cutoff: int

    @property
    def names(self) -> list[str]:
        """The base, then the candidates."""
        return [self.compared.base, *self.compared.candidates]

    @cached_property
    def counts(self) -> dict[str, tuple[int, int, int]]:
        """Run -> documents in the first `cutoff` graded by a human, a model, nobody, over all topics."""
        assessor = pl.col("assessor")
        told = (
            top(self.tops, self.cutoff)
            .group_by("run")
            .agg(
                human=(assessor == HUMAN).sum(),
                model=(assessor != HUMAN).sum(),
                nobody=assessor.is_null().sum(),
            )
        )
        found = {run: (human, model, nobody) for run, human, model, nobody in told.iter_rows()}
        return {name: found.get(name, (0, 0, 0)) for name in self.names}

    def moves(self, candidate: str, measure: str) -> list[Move]:
        """Every topic where the measure is defined for both, from the largest gain to the largest loss."""
        if (candidate, measure) not in self._moves:
            self._moves[candidate, measure] = self._moved(candidate, measure)
        return self._moves[candidate, measure]

    @cached_property
    def _moves(self) -> dict[tuple[str, str], list[Move]]:
        return {}

    def _moved(self, candidate: str, measure: str) -> list[Move]:
        topics = self.compared.measurement.topics
        ours, theirs = (self._values[run, measure] for run in (self.compared.base, candidate))
        found = []
        for topic, a, b in zip(topics, ours, theirs, strict=True):
            if a is not None and b is not None:
                found.append(Move(topic, a, b, b - a if abs(b - a) >= _SAME else 0.0))
        return sorted(found, key=lambda m: (-m.delta, m.query_id))

    @cached_property
    def _values(self) -> dict[tuple[str, str], list[float | None]]:
        """(run, measure) -> values in the order of the measurement's topics."""
        parts = self.compared.measurement.per_topic.partition_by("run", "measure", as_dict=True)
        return {(str(run), str(m)): frame["value"].to_list() for (run, m), frame in parts.items()}

    def shares(self, candidate: str) -> dict[str, float]:
        """Topic -> share of what base and candidate have in their first `cutoff` that a model graded."""
        mine = top(self.tops, self.cutoff).filter(pl.col("run").is_in([self.compared.base, candidate]))
        share = (pl.col("assessor") != HUMAN).fill_null(False).mean()
        shares: dict[str, float] = dict(mine.group_by("query_id").agg(share).iter_rows())
        return shares

    def ranking(self, run: str, query_id: str) -> list[dict[str, object]]:
        """The rows of `tops` of one run and topic, best first."""
        return self._by_run[(run,)].filter(query_id=query_id).sort("rank").to_dicts()

    @cached_property
    def _by_run(self) -> dict[tuple[object, ...], pl.DataFrame]:
        """The tops run by run; also of a run that has none of the topics."""
        none = {(name,): self.tops.clear() for name in self.names}
        return none | self.tops.partition_by("run", as_dict=True)

    @property
    def has_labels(self) -> bool:
        """Whether a model graded any of what the page counts."""
        return any(model for _, model, _ in self.counts.values())


def evidence(
    compared: Compared, runs: Mapping[str, str | Path | pl.DataFrame], qrels: pl.DataFrame, depth: int
) -> Evidence:
    """Join the tops of the runs with the qrels.

    Raises
    ------
    UsageError: a run of the comparison is not among `runs`. SchemaError: a frame lacks a column.
    InputError: a run file cannot be read.
    """
    wanted = [compared.base, *compared.candidates]
    if lacking := [name for name in wanted if name not in runs]:
        raise UsageError(f"runs lacks {', '.join(map(repr, lacking))}, which the comparison names")
    qrels = check(qrels, QRELS, "qrels")
    qrels = qrels.with_columns(pl.lit(None, t).alias(c) for c, t in _MORE.items() if c not in qrels.columns)
    cutoff = compared.measurement.cutoff
    reach = max(cutoff, depth)
    topics = qrels.select("query_id").unique()
    parts = []
    for name in wanted:
        rows = _top(runs[name], reach, name).join(topics, on="query_id", how="semi")
        parts.append(rows.select(pl.lit(name).alias("run"), "query_id", "doc_id", "rank"))
    graded = qrels.select(*_PAIR, "relevance", "gain", "assessor", *_MORE)
    tops = pl.concat(parts).join(graded, on=_PAIR, how="left")
    return Evidence(compared, tops, reach, cutoff)


def _top(run: str | Path | pl.DataFrame, depth: int, name: str) -> pl.DataFrame:
    blocks: Iterable[pl.DataFrame]
    blocks = [check(run, RUN, f"run {name!r}")] if isinstance(run, pl.DataFrame) else run_blocks(run)
    return pl.concat([top(block, depth).select(*RUN) for block in blocks] or [pl.DataFrame(schema=RUN)])
