"""Which unjudged documents to judge first, so that the verdict on two runs settles with the fewest judgments.

Every judgment is worth the variance of the difference that it takes away (`plan_influence`). A document that
both runs rank alike has no weight in P and RBP and is never asked for; in nDCG and R it moves the ideal
alone, in AP and RR it also moves what the documents below it count.

Planning stops when one of three things holds:

1. No unjudged document has any influence: the verdict is that of the full judgments.
2. The runs are the same wherever the measure looks.
3. In at least 95 % of the draws of what assessors may yet say the verdict comes out the same. Drawn from are
   the labels' distributions or, without a label, a prior by rank and topic; the errors of a topic's labels
   have a shift in common, and without labels neither run's documents are taken to be as good as their ranks
   say until judgments show it.

The verdict of a draw is that of the two-sided paired sign-flip test at 5 %, as in `compare`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from harness.arrays import Bools, Floats
from harness.collection import Collection
from harness.draws import generator
from harness.errors import CalibrationError, UsageError
from harness.fill import fill
from harness.frames import QRELS, Runs, check
from harness.labeling import Labeler
from harness.ledger import Ledger
from harness.plan_influence import draws, influence, planned_measure, tables
from harness.plan_list import read_answers, write_list
from harness.plan_pool import Documents, read_documents, scale_of

__all__ = ["Plan", "Relabel", "plan", "read_answers", "relabeler", "significant", "write_list"]

SETTLED = 0.95
"""Share of the draws that must give one verdict."""
_DRAWS, _FLIPS, _ALPHA = 200, 1999, 0.05
_SAME = 1e-12
VERDICTS = ("better", "worse", "equivalent", "inconclusive")

Relabel = Callable[[pl.DataFrame], pl.DataFrame]


@dataclass(frozen=True)
class Plan:
    """What to judge, best first, and whether anything is left to settle.

    Attributes
    ----------
    order: query_id, doc_id, influence (change of the mean difference per unit of the document's gain),
        uncertainty (standard deviation of its gain), shrinkage (variance of the mean difference that its
        judgment takes away), base_rank and candidate_rank (from 1; null: not within reach). Documents without
        influence are not in it. At most `count` rows.
    measure, cutoff: as asked for. `topics`: how many the mean runs over.
    delta: the difference as the judgments and beliefs are now. `deviation`: its standard deviation over the
        draws, topics held fixed. `per_topic`: query_id, delta, deviation.
    judged, holes: documents within reach of either run with and without an assessor's grade; `needed`: the
        holes that have influence.
    outlook: verdict -> its share of the draws. `verdict`: the likeliest.
    settled: whether to stop; `reason`: why, or what is open, in words.
    """

    order: pl.DataFrame
    measure: str
    cutoff: int | None
    topics: int
    delta: float
    deviation: float
    per_topic: pl.DataFrame
    judged: int
    holes: int
    needed: int
    outlook: dict[str, float]
    verdict: str
    settled: bool
    reason: str

    def to_json(self) -> dict[str, Any]:
        """The object that `stopgap plan --json` prints."""
        return {**vars(self), "order": self.order.to_dicts(), "per_topic": self.per_topic.to_dicts()}


def plan(
    base: pl.DataFrame,
    candidate: pl.DataFrame,
    qrels: pl.DataFrame,
    measure: str,
    *,
    grades: Sequence[int] | None = None,
    count: int | None = None,
    topics: Iterable[str] | None = None,
    relabel: Relabel | None = None,
    seed: int = 0,
) -> Plan:
    """Order the unjudged documents of two runs by what judging them tells about their difference.

    A plan is for the next batch: judge some, put the answers into the qrels (`read_answers`), plan again.

    Parameters
    ----------
    base, candidate: RUN. `qrels`: QRELS; rows of an assessor are settled, rows of a labeler are open, with
        their `probs` as what is believed. A label without `probs` is believed half; a document without a
        label has what judged documents at like ranks and in its topic have.
    measure: nDCG, AP, RR, P, R, Success or RBP, as ir-measures writes it.
    grades: the scale that `probs` stands over, ascending; by default 0 up to what the qrels show.
    count: the most rows of `order`; None: all.
    topics: those that count; by default those of the qrels or, where these are empty, all of the runs. Name
        them where judging starts from nothing, or a topic nobody has judged yet drops out.
    relabel: human QRELS -> filled QRELS, called once: labels made anew from the judgments so far
        (`relabeler`), so that each judgment also counts through the labels of its neighbours.
    seed: of the draws.

    Raises
    ------
    UsageError: the measure is not covered, `count` is not positive, no topic is shared, or the scale of
        grades is unknown. SchemaError: a frame lacks something.
    """
    if count is not None and count < 1:
        raise UsageError(f"count is {count}; a judging list has at least one document")
    spec = planned_measure(measure)
    check(qrels, QRELS, "qrels")
    scale = scale_of(qrels, grades)
    if relabel is not None:
        topics = _counted(qrels) if topics is None else topics
        qrels = relabel(qrels.filter(pl.col("assessor") == "human"))
    documents = read_documents(base, candidate, qrels, spec.cutoff, scale, topics)
    number = len(documents.topics)
    worth = np.zeros((3, documents.topic.size))
    expected, drawn = np.zeros(number), np.zeros((number, _DRAWS))
    for table in tables(spec, documents):
        shown = table.row >= 0
        worth[:, table.row[shown]] = [part[shown] for part in influence(spec, table)]
        for topic, as_expected, differences in draws(spec, table, documents, _DRAWS, seed):
            expected[topic], drawn[topic] = as_expected, differences
    order = _order(documents, worth, number)
    outlook = _outlook(drawn.T, seed)
    verdict = max(VERDICTS, key=lambda v: outlook[v])
    holes = int(documents.hole.sum())
    settled, reason = _rule(order.height, holes, outlook, verdict, bool(drawn.any()))
    return Plan(
        order=order if count is None else order.head(count),
        measure=spec.text,
        cutoff=spec.cutoff,
        topics=number,
        delta=float(expected.mean()),
        deviation=float(drawn.mean(axis=0).std()),
        per_topic=pl.DataFrame(
            {"query_id": documents.topics, "delta": expected, "deviation": drawn.std(axis=1)}
        ),
        judged=documents.topic.size - holes,
        holes=holes,
        needed=order.height,
        outlook=outlook,
        verdict=verdict,
        settled=settled,
        reason=reason,
    )


def relabeler(
    collection: Collection,
    runs: Runs,
    labeler: str | Labeler | Sequence[str | Labeler],
    *,
    depth: int,
    ledger: str | Ledger | None = None,
    seed: int = 0,
) -> Relabel:
    """What `plan` takes as `relabel`: `fill` on the judgments so far; them alone while they are too few."""

    def relabel(human: pl.DataFrame) -> pl.DataFrame:
        if not human.height:
            return human
        try:
            return fill(runs, human, collection, labeler, depth=depth, ledger=ledger, seed=seed).qrels
        except CalibrationError:
            return human

    return relabel


def _counted(qrels: pl.DataFrame) -> list[str] | None:
    """The topics of the qrels, which relabeling must not change."""
    return qrels["query_id"].unique().to_list() or None


def _order(documents: Documents, worth: Floats, topics: int) -> pl.DataFrame:
    slope, deviation, taken = worth
    ranks = [
        pl.Series(name, np.where(np.isfinite(at), at, 0)).cast(pl.UInt32).replace(0, None)
        for name, at in (("base_rank", documents.base), ("candidate_rank", documents.candidate))
    ]
    return (
        documents.pairs.with_columns(
            influence=pl.Series(slope / topics),
            uncertainty=pl.Series(deviation),
            shrinkage=pl.Series(taken / topics**2),
        )
        .with_columns(*ranks)
        .filter(pl.col("shrinkage") > 0)
        .sort(pl.col("shrinkage").round_sig_figs(9), "query_id", "doc_id", descending=[True, False, False])
    )


def _outlook(drawn: Floats, seed: int) -> dict[str, float]:
    """Verdict -> share of the draws (draws, topics) that give it."""
    drawn = np.where(np.abs(drawn) < _SAME, 0.0, drawn)
    total = drawn.sum(axis=1)
    same = ~drawn.any(axis=1)
    sure = significant(drawn, seed) & ~same
    shares = (sure & (total > 0), sure & (total < 0), same, ~sure & ~same)
    return {v: float(np.mean(share)) for v, share in zip(VERDICTS, shares, strict=True)}


def significant(drawn: Floats, seed: int) -> Bools:
    """Whether the paired sign-flip test (two-sided, 5 %) rejects, for each row of differences (rows, topics).

    Exact for up to ten topics; else from 1,999 flips, the same for all rows, counted with the one seen.
    """
    topics = drawn.shape[1]
    exact = 2**topics <= _FLIPS
    if exact:
        bits = (np.arange(2**topics)[:, None] >> np.arange(topics)) & 1
    else:
        bits = generator(seed, 0).integers(0, 2, (_FLIPS, topics))
    flipped = np.abs(drawn @ (2.0 * bits - 1.0).T)
    seen = np.abs(drawn.sum(axis=1, keepdims=True))
    extreme = (flipped >= seen * (1 - 1e-9) - _SAME).sum(axis=1)
    return np.asarray((extreme / len(bits) if exact else (extreme + 1) / (len(bits) + 1)) < _ALPHA)


def _rule(needed: int, holes: int, outlook: dict[str, float], verdict: str, differ: bool) -> tuple[bool, str]:
    """Whether to stop, and why."""
    if not needed:
        left = f", though {holes} documents are unjudged" if holes else ""
        what = "no document is left that could change the difference" if differ else "the runs are the same"
        return True, f"{what}{left}: the verdict is {verdict}"
    share = outlook[verdict]
    if share >= SETTLED:
        return True, (
            f"{needed} unjudged documents could still move the difference, but {share:.0%} of the draws of"
            f" what assessors may say give {verdict}"
        )
    others = ", ".join(f"{v} {outlook[v]:.0%}" for v in VERDICTS if v != verdict and outlook[v])
    return False, (
        f"{needed} unjudged documents leave the verdict open: {verdict} in {share:.0%} of the draws of what"
        f" assessors may say, {others}"
    )
