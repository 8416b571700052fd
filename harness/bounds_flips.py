"""How few holes' grades could bring the difference between two runs to 0 or beyond."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from harness.arrays import Floats
from harness.bounds_ap import ap_slope
from harness.bounds_field import Field
from harness.bounds_greatest import LINEAR, curve, gain_of, slope
from harness.frames import QRELS, check
from harness.gains import Hits, blocks, find
from harness.judgments import Judgments
from harness.scoring import Spec, score

__all__ = ["fewest"]

_SAME = 1e-12  # of a mean delta: nearer to 0 than this is 0 but for rounding
_ALWAYS = 32767  # a grade that every threshold lets pass


def fewest(
    spec: Spec,
    field: Field,
    judgments: Judgments,
    hits: tuple[Hits, Hits],
    runs: tuple[pl.DataFrame, pl.DataFrame],
    qrels: pl.DataFrame,
    grades: list[int],
    scale: Sequence[int] | None,
) -> tuple[int | None, bool]:
    """The fewest holes that could undo the sign of the mean delta while all others stay as they are.

    Holes with a label's row stay at its expected gain or probability, others count as not relevant.

    Parameters
    ----------
    hits, runs: of base and candidate. qrels: what `judgments` were made of. grades: those a hole may take,
    ascending. scale: what `probs` run over, as `Judgments` takes it.

    Returns
    -------
    The number, and whether none smaller does. Sums over documents (P, RBP) are always solved exactly; the
    others if the qrels hold no label, by what each topic can give at most with 1, 2, ... holes (unless that
    is too much to compute). Otherwise holes are taken in the order of what each does alone, to first order,
    and the number is that of a set checked by scoring it: enough, but maybe not the fewest. None if that
    fails.
    """
    total = float((score(spec, hits[1]) - score(spec, hits[0])).sum())
    slack = _SAME * field.topics
    if abs(total) <= slack:
        return 0, True
    towards = field.swapped() if total > 0 else field  # where the greatest delta is what undoes the sign
    need = abs(total) - slack
    change, value = _alone(spec, towards, judgments, grades)
    if spec.name in LINEAR:
        return _reached(np.cumsum(-np.sort(-change[change > 0])), need), True
    if not judgments.labeled.any() and not (spec.name == "nDCG" and gain_of(spec, np.array(grades))[0]):
        best = curve(spec, towards, grades)
        if best is not None:
            return _knapsack(best - best[:, :1], need), True
    change = change / _denominator(spec, judgments)[field.topic]
    if spec.name in ("RR", "Success"):  # a topic's first relevant document does it all, others come last
        order = np.lexsort((-change, field.topic))
        later = order[1:][field.topic[order][1:] == field.topic[order][:-1]]
        change[later] *= 1e-6
    pair = runs if total < 0 else runs[::-1]
    scored = _Scored(spec, towards, judgments, check(qrels, QRELS, "qrels"), pair, scale)
    found = scored.fewest(change, value, need)
    return found, found == 1


def _reached(sums: Floats, need: float) -> int | None:
    """How many terms it takes until their sum reaches what is needed."""
    at = np.flatnonzero(sums >= need)
    return int(at[0]) + 1 if len(at) else None


def _knapsack(gained: Floats, need: float) -> int | None:
    """The fewest holes over all topics whose gains sum up to what is needed.

    `gained`: what each topic gives with at most 0, 1, ... holes, topics x numbers. The greatest sum with 0,
    1, ... holes in all comes of adding one topic after the other.
    """
    gained = gained[gained[:, -1] > 0]
    if gained[:, -1].sum() < need:
        return None
    limit = 32
    while True:
        best = np.zeros(limit + 1)
        for row in gained:
            before = best.copy()
            for m in np.flatnonzero(np.diff(row[: limit + 1]) > 0) + 1:
                np.maximum(best[m:], before[: limit + 1 - m] + row[m], out=best[m:])
        found = _reached(best[1:], need)
        if found is not None:
            return found
        limit *= 4


def _of_rows(spec: Spec, judgments: Judgments) -> Floats:
    """What each row of the qrels counts: its gain, or how likely it is relevant."""
    if spec.name == "nDCG":
        mapping = None if spec.mapping is None else dict(spec.mapping)
        return judgments.gains(exponential=spec.exponential, mapping=mapping)
    if spec.rel is None:
        return judgments.gains() / judgments.scale
    if spec.name == "Rprec":
        return (judgments.relevance >= spec.rel).astype(np.float64)
    return judgments.relevant(spec.rel)


def _alone(spec: Spec, field: Field, judgments: Judgments, grades: list[int]) -> tuple[Floats, Floats]:
    """What each hole adds to its topic's numerator alone, to first order, and what it counts for that."""
    now = np.where(field.judgment < 0, 0.0, _of_rows(spec, judgments)[field.judgment])
    scale = np.asarray(grades)
    if spec.name == "nDCG":
        values = gain_of(spec, scale)
    elif spec.rel is None:
        values = np.maximum(scale, 0) / judgments.scale
    else:
        values = (scale >= spec.rel).astype(np.float64)
    c = ap_slope(field, now) if spec.name == "AP" else slope(spec, field)
    up, down = c * (values.max() - now), c * (values.min() - now)
    change = np.where(field.hole, np.maximum(up, down), 0.0)
    return change, np.where(up > down, values.max(), values.min())


def _denominator(spec: Spec, judgments: Judgments) -> Floats:
    """What each topic's sum is divided by, at least 1."""
    values = _of_rows(spec, judgments)
    if spec.name in ("AP", "R", "Rprec"):
        return np.maximum(judgments.total(values), 1.0)
    if spec.name != "nDCG":
        return np.ones(len(judgments.topics))
    topic, gain, rank = judgments.ideal(values)
    kept = rank <= (spec.cutoff or len(judgments))
    dcg = np.bincount(topic[kept], gain[kept] / np.log2(rank[kept] + 1.0), len(judgments.topics))
    return np.maximum(dcg.astype(np.float64, copy=False), 1.0)


class _Supposed(Judgments):
    """Judgments whose rows count what they are given to count."""

    def __init__(self, judgments: Judgments, values: Floats) -> None:
        vars(self).update(vars(judgments))
        self._memo = {}
        self._values = values
        self.relevance = np.where(values > 0, _ALWAYS, -1)  # what Rprec looks at

    def relevant(self, rel: int) -> Floats:
        """The values, whatever the threshold."""
        return self._values

    def gains(self, *, exponential: bool = False, mapping: Mapping[int, float] | None = None) -> Floats:
        """The values, whatever the gains."""
        return self._values


class _Scored:
    """Two runs, ready to be scored again with other values for some holes.

    The judgments get a row for every hole, so that a trial changes numbers only.
    """

    def __init__(
        self,
        spec: Spec,
        field: Field,
        judgments: Judgments,
        qrels: pl.DataFrame,
        runs: tuple[pl.DataFrame, ...],
        scale: Sequence[int] | None,
    ) -> None:
        unknown = np.flatnonzero(field.judgment < 0)
        rows = pl.DataFrame(
            {
                "query_id": pl.Series(judgments.topics, dtype=pl.String).gather(field.topic[unknown]),
                "doc_id": field.documents.gather(unknown),
            }
        ).with_columns(
            relevance=pl.lit(0, pl.Int16), gain=pl.lit(0.0, pl.Float32), assessor=pl.lit("unjudged")
        )
        columns = [c for c in (*QRELS, "probs") if c in qrels.columns]
        self.spec = spec
        self.judgments = Judgments(pl.concat([qrels.select(columns), rows], how="diagonal"), scale)
        self.hits = [find(self.judgments, blocks(run)) for run in runs]
        starts = np.append(np.flatnonzero(np.diff(field.topic, prepend=-1)), len(field.topic))
        hashes = field.documents.hash().to_numpy()
        _, self.row = self.judgments.lookup(field.topic[starts[:-1]], starts, field.documents, hashes)
        self.now = _of_rows(spec, self.judgments).copy()
        self.now[self.row[unknown]] = 0.0

    def fewest(self, change: Floats, value: Floats, need: float) -> int | None:
        """How many documents, those of the greatest change first, bring the sum of deltas up to 0.

        `change`, `value`: of each document of the field, what it adds by being worth `value`. `need`: what
        the sum lacks. Bisection, begun where the changes say that it should end.
        """
        order = np.argsort(-change, kind="stable")
        order = order[change[order] > 0]

        def enough(count: int) -> bool:
            values = self.now.copy()
            values[self.row[order[:count]]] = value[order[:count]]
            supposed = _Supposed(self.judgments, values)
            base, candidate = (score(self.spec, Hits(supposed, hits.all, [])) for hits in self.hits)
            return float((candidate - base).mean()) >= -_SAME

        low, high = 0, len(order)
        if not high or not enough(high):
            return None
        guess = int(np.searchsorted(np.cumsum(change[order]), need)) + 1
        for trial in (guess, guess - max(1, guess // 8), guess + max(1, guess // 8)):
            if low < trial < high:
                low, high = (low, trial) if enough(trial) else (trial, high)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if enough(middle) else (middle, high)
        return high
