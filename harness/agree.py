"""How far a labeler agrees with assessors, and whether it may be trusted with the holes.

Kappa, alpha and the rest are over the pairs that both graded; what the labeler did not label is counted and
never scored. Intervals draw topics anew, since the labels of one topic err together. An agreement says little
without its ceiling, how far two assessors agree on the same task, and a correlation of system orderings says
little without its top half (`harness.agree_ranking`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from harness.agree_pairs import Judged, Rater, both, judged, rater
from harness.agree_ranking import orderings
from harness.agree_rated import LEVELS, Rated, krippendorff_alpha, positions, rate, truth
from harness.agree_tables import alphas, count_tables, cut, distances, interval, kappas, resampled
from harness.arrays import Floats
from harness.errors import UsageError
from harness.measure import measure
from harness.trec_read import read_run

__all__ = ["RESAMPLES", "Agreement", "agree", "ceiling"]

RESAMPLES = 2000
_FEW_TOPICS = 10
_OF_CEILING = ("kappa", "kappa_binary", "kappa_quadratic", "alpha_ordinal")


@dataclass(frozen=True)
class Agreement:
    """What `agree` found.

    Attributes
    ----------
    labelers: name -> its agreement with the assessors. orderings: name -> measure -> how it orders the runs
        (`agree_ranking.orderings`); empty without runs.
    pairwise: for every two labelers, over the judged pairs that both labeled: `labelers`, `pairs`, `kappa`,
        `kappa_binary`, `kappa_quadratic`, `alpha_ordinal` of each other, `ci`, and `kappa_gap`: by how much
        the first agrees better with the assessors than the second does, on those pairs.
    together: alpha of the assessors and all labelers as one group of raters. None for one labeler.
    ceiling: how a second assessor agrees with the first; None if there is none.
    """

    labelers: dict[str, Rated]
    orderings: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    pairwise: list[dict[str, Any]] = field(default_factory=list)
    together: dict[str, float | None] | None = None
    ceiling: Rated | None = None

    @property
    def notes(self) -> list[str]:
        """What to know of the input, in words."""
        lines = []
        for name, one in self.labelers.items():
            if one.missing:
                why = ", ".join(f"{reason}: {n:,}" for reason, n in one.missing_reasons.items())
                lines.append(
                    f"{name}: {one.missing:,} of {one.pairs + one.missing:,} judged pairs have no label and"
                    f" count in nothing ({why})"
                )
            if one.topics < _FEW_TOPICS:
                lines.append(f"{name}: intervals over {one.topics} topics are narrower than they should be")
            if one.threshold and math.isnan(one.values["kappa"]):
                lines.append(f"{name}: no kappa, since {one.undefined['kappa']}")
        left_out = max(one.left_out for one in self.labelers.values())
        if left_out:
            lines.append(f"{left_out:,} judgments below 0 were left out")
        return lines

    def to_json(self) -> dict[str, Any]:
        """The object that `stopgap agree --json` prints: of one labeler flat, of several by name."""
        each = {name: self._one(name) for name in self.labelers}
        found: dict[str, Any]
        if len(each) == 1:
            [(name, one)] = each.items()
            found = {"labeler": name, **one}
        else:
            found = {"labelers": each, "pairwise": self.pairwise, "together": self.together}
        if self.ceiling:
            found["ceiling"] = self.ceiling.to_json()
        return {**found, "notes": self.notes}

    def _one(self, name: str) -> dict[str, Any]:
        rated = self.labelers[name]
        found = rated.to_json()
        if name in self.orderings:
            found["orderings"] = self.orderings[name]
        if self.ceiling:
            highest = self.ceiling.values
            found["of_ceiling"] = {
                key: rated.values[key] / highest[key] if highest[key] > 0 else None for key in _OF_CEILING
            }
        return found


def agree(
    human: pl.DataFrame,
    labels: Mapping[str, pl.DataFrame],
    *,
    grades: Sequence[int] | None = None,
    runs: Mapping[str, str | Path | pl.DataFrame] | None = None,
    measures: Sequence[str] = ("nDCG@10",),
    second: pl.DataFrame | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Agreement:
    """Compare labelers with assessors, and with each other.

    Parameters
    ----------
    human: QRELS; its rows of assessor `human`. Grades below 0 are left out.
    labels: name -> LABELS (null is no label), or QRELS, of which the labels count, or all if it marks none.
    grades: the scale, ascending, and what `probs` stand for; by default 0 to the highest judgment.
    runs: name -> RUN or a file of one: whether labels order them as the judgments do, by `measures`. Both
        sides have the same pairs, those that were judged and labeled.
    second: QRELS of a second assessor, for the ceiling.
    resamples: of the topics, for the intervals.

    Raises
    ------
    UsageError: no labeler, no pair in common, grades off the scale (they are named), a pair judged or labeled
        twice, fewer than two runs, or what `measure` refuses. SchemaError: a frame is not what it should be.
    """
    if not labels:
        raise UsageError("no labels to compare with the judgments")
    if resamples < 1:
        raise UsageError(f"{resamples} resamples give no interval; 2000 is usual")
    of = judged(human, grades if second is None else _common(human, second, grades))
    raters = {name: rater(frame, of, name, grades) for name, frame in labels.items()}
    systems = _systems(runs) if runs is not None else {}
    names = list(raters)
    return Agreement(
        {name: rate(of, one, seed=seed, resamples=resamples) for name, one in raters.items()},
        {
            name: _orderings(of, one, systems, measures, seed, resamples)
            for name, one in raters.items()
            if systems
        },
        [_between(of, raters[a], raters[b], seed, resamples) for a, b in combinations(names, 2)],
        _together(of, list(raters.values())) if len(raters) > 1 else None,
        ceiling(human, second, grades=grades, seed=seed, resamples=resamples) if second is not None else None,
    )


def ceiling(
    first: pl.DataFrame,
    second: pl.DataFrame,
    *,
    grades: Sequence[int] | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Rated:
    """How two assessors agree on the pairs that both judged: what a labeler can be measured by.

    Parameters
    ----------
    first, second: QRELS. The scale is, unless given, 0 to the highest grade of either.

    Raises
    ------
    UsageError, SchemaError: as `agree`.
    """
    scale = _common(first, second, grades)
    other = judged(second, scale, "the second assessor").frame.with_columns(
        gain=pl.col("relevance").cast(pl.Float32), assessor=pl.lit("human")
    )
    of = judged(first, scale)
    return rate(of, rater(other, of, "the second assessor"), seed=seed, resamples=resamples)


def _common(first: pl.DataFrame, second: pl.DataFrame, grades: Sequence[int] | None) -> Sequence[int]:
    """The scale that two assessors share."""
    if grades is not None:
        return grades
    highest = max(
        int(judged(frame, None, name).grades[-1])
        for frame, name in ((first, "human"), (second, "the second assessor"))
    )
    return range(highest + 1)


# -- several -----------------------------------------------------------------------------------------------


def _between(of: Judged, a: Rater, b: Rater, seed: int, resamples: int) -> dict[str, Any]:
    """Two labelers: with each other, and which is nearer to the assessors."""
    human = positions(of)
    pairs = both(of, a.grade, b.grade)
    found: dict[str, Any] = {"labelers": [a.name, b.name], "pairs": len(pairs.rows)}
    if not len(pairs.rows):
        return {**found, "undefined": "no judged pair has labels of both"}
    shape = (len(pairs.topics), len(of.grades), len(of.grades))
    by_topic = {
        "each": count_tables(pairs.topic, pairs.first, pairs.second, shape),
        "first": count_tables(pairs.topic, human[pairs.rows], pairs.first, shape),
        "second": count_tables(pairs.topic, human[pairs.rows], pairs.second, shape),
    }

    def values(sums: Mapping[str, Floats]) -> dict[str, Floats]:
        nominal = distances(of.grades, 0)
        return {
            "kappa": kappas(sums["each"], nominal),
            "kappa_binary": kappas(cut(sums["each"], of.middle), distances(np.arange(2), 0)),
            "kappa_quadratic": kappas(sums["each"], distances(of.grades, 2)),
            "alpha_ordinal": alphas(sums["each"], "ordinal"),
            "kappa_gap": kappas(sums["first"], nominal) - kappas(sums["second"], nominal),
        }

    whole = values({name: table.sum(axis=0, keepdims=True) for name, table in by_topic.items()})
    points = {name: float(value[0]) for name, value in whole.items()}
    drawn = values(resampled(by_topic, seed, resamples)) if len(pairs.topics) > 1 else {}
    ci = {name: interval(drawn[name]) if drawn and math.isfinite(points[name]) else None for name in points}
    return {
        **found,
        **{name: value if math.isfinite(value) else None for name, value in points.items()},
        "ci": {name: None if ends is None else list(ends) for name, ends in ci.items()},
    }


def _together(of: Judged, raters: Sequence[Rater]) -> dict[str, float | None]:
    human = positions(of)
    ratings = np.stack([human, *(one.grade for one in raters)], axis=1)
    found = {f"alpha_{level}": krippendorff_alpha(ratings, len(of.grades), level) for level in LEVELS}
    return {name: value if math.isfinite(value) else None for name, value in found.items()}


def _systems(runs: Mapping[str, str | Path | pl.DataFrame]) -> dict[str, pl.DataFrame]:
    """The runs as frames: each is measured twice for every labeler."""
    if len(runs) < 2:
        raise UsageError(f"{len(runs)} run has no order; give two runs or more")
    return {name: run if isinstance(run, pl.DataFrame) else read_run(run) for name, run in runs.items()}


def _orderings(
    of: Judged,
    one: Rater,
    systems: Mapping[str, pl.DataFrame],
    measures: Sequence[str],
    seed: int,
    resamples: int,
) -> dict[str, dict[str, Any]]:
    rows = np.flatnonzero(one.grade >= 0)
    levels = None if one.probs is None else one.levels.tolist()
    return orderings(
        measure(systems, truth(of, rows), measures),
        measure(systems, one.frame, measures, grades=levels),
        seed=seed,
        resamples=resamples,
    )
