"""What a filling does to ranks, scores and verdicts, beside what the full qrels say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from harness.agree_ranking import kendall
from harness.arrays import Floats, Ints
from harness.draws import generator, score_draws
from harness.gains import Hits, View
from harness.inference import ALPHA, CONFIDENCE
from harness.judgments import Judgments
from harness.scoring import Spec
from harness.simulate_fills import Filled
from harness.simulate_holes import Holes

__all__ = ["RUNS_COVERED", "RUNS_COVERED_DEEP", "Covered", "Tally", "coverage", "places", "verdicts"]

RUNS_COVERED, RUNS_COVERED_DEEP = 6, 2
"""Runs on each side, of one set of holes, whose comparisons are checked for the labels' interval; where a
measure looks at all ranks or judgments, which takes twenty times as long."""
_DECIMALS = 12  # values that differ by less differ by rounding only
_ROUNDING = 1e-13  # of a mean: topics that differ by less differ by rounding only
_CHUNK = 1 << 21  # values that are worked on at once
_SAMPLE = 52  # stream of random numbers
_TOP = frozenset({"nDCG", "P", "RR", "Success", "RBP"})  # measures of the first ranks alone


def verdicts(values: Floats, first: Ints, second: Ints) -> Ints:
    """1 where the first run is better, -1 where the second is, 0 where a paired t-test does not say (0.05).

    Runs that differ by the same amount on every topic differ.

    Parameters
    ----------
    values: (runs, topics). first, second: (comparisons,) positions of runs.
    """
    from scipy.special import stdtr

    topics = values.shape[1]
    found = np.zeros(len(first), dtype=np.int64)
    step = max(1, _CHUNK // topics)
    for begin in range(0, len(first), step):
        part = slice(begin, begin + step)
        delta = values[first[part]] - values[second[part]]
        delta[np.abs(delta) < 10.0**-_DECIMALS] = 0.0
        mean, spread = delta.mean(axis=1), delta.std(axis=1, ddof=1)
        still = spread <= _ROUNDING * np.abs(mean)
        error = np.where(still, 1.0, spread) / np.sqrt(topics)
        p = np.where(still, 0.0, 2 * stdtr(topics - 1, -np.abs(mean / error)))
        found[part] = np.sign(mean) * (p < ALPHA)
    return found


def places(values: Floats) -> Ints:
    """How many runs have a higher mean than each run; values (runs, topics)."""
    means = np.round(values.mean(axis=1), _DECIMALS)
    return np.asarray((means[None, :] > means[:, None]).sum(axis=1))


@dataclass(frozen=True)
class Covered:
    """Comparisons whose labels' interval was checked: how many, how many intervals hold the difference under
    the full qrels, and the sum of their widths."""

    comparisons: int
    inside: int
    width: float


@dataclass
class Tally:
    """One fill and measure over all sets of holes."""

    shift: list[int] = field(default_factory=list)
    error: list[float] = field(default_factory=list)
    taus: list[float] = field(default_factory=list)
    comparisons: int = 0
    same: int = 0
    flips: int = 0
    covered: list[Covered] = field(default_factory=list)

    def add(self, holes: Holes, full: Floats, filled: Floats) -> None:
        """Take in one set of holes: values (runs, topics) under the full and the filled qrels."""
        before, after = (verdicts(v, holes.first, holes.second) for v in (full, filled))
        moved = np.abs(places(filled) - places(full))[holes.moved]
        self.shift += moved.tolist()
        self.error += (filled.mean(axis=1) - full.mean(axis=1))[holes.moved].tolist()
        self.taus.append(kendall(*(np.round(v.mean(axis=1), _DECIMALS) for v in (full, filled))))
        self.comparisons += len(before)
        self.same += int((before == after).sum())
        self.flips += int((before * after < 0).sum())

    def to_json(self) -> dict[str, Any]:
        """The object of one fill in `stopgap simulate --json`."""
        known = [tau for tau in self.taus if np.isfinite(tau)]
        checked = sum(c.comparisons for c in self.covered)
        return {
            "rank_shift": {"mean": float(np.mean(self.shift)), "max": max(self.shift)},
            "score_error": float(np.mean(np.abs(self.error))),
            "score_bias": float(np.mean(self.error)),
            "verdict_agreement": self.same / self.comparisons,
            "flips": self.flips,
            "comparisons": self.comparisons,
            "kendall_tau": float(np.mean(known)) if known else None,
            "coverage": sum(c.inside for c in self.covered) / checked if checked else None,
            "coverage_width": sum(c.width for c in self.covered) / checked if checked else None,
            "coverage_comparisons": checked,
        }


def coverage(
    specs: Sequence[Spec],
    filled: Filled,
    hits: Sequence[Hits],
    holes: Holes,
    full: Sequence[Floats],
    *,
    number: int,
    seed: int,
) -> list[Covered]:
    """Whether the interval of a difference from the labels' error alone, as `compare` makes it (`label_ci`),
    holds the difference under the full qrels; of each measure.

    Up to six runs on each side of the set's comparisons (two, for measures of all ranks) are drawn, and all
    their comparisons are checked.

    Parameters
    ----------
    full: of each measure, values (runs, topics) under the full qrels. number: of the set of holes.
    """
    rng = generator(seed, (number << 8) + _SAMPLE)
    sides = [np.unique(side) for side in (holes.first, holes.second)]
    most = RUNS_COVERED if all(map(_looks_at_the_top, specs)) else RUNS_COVERED_DEEP
    chosen = np.unique(np.concatenate([rng.permutation(side)[:most] for side in sides]))
    among = np.isin(holes.first, chosen) & np.isin(holes.second, chosen)
    first, second = holes.first[among], holes.second[among]
    seen = _thinned(specs, {str(run): filled.hits(hits[run]) for run in chosen.tolist()})
    drawn = score_draws(specs, seen, seed=seed)
    found = []
    tail = (1 - CONFIDENCE) / 2
    for spec, truth in zip(specs, full, strict=True):
        means = {run: drawn[str(run)][spec.text].mean(axis=1) for run in chosen.tolist()}
        moved = np.stack([means[a] - means[b] for a, b in zip(first.tolist(), second.tolist(), strict=True)])
        low, high = np.quantile(moved, [tail, 1 - tail], axis=1)
        real = truth.mean(axis=1)[first] - truth.mean(axis=1)[second]
        edge = 10.0**-_DECIMALS
        inside = (low - edge <= real) & (real <= high + edge)
        found.append(Covered(len(real), int(inside.sum()), float((high - low).sum())))
    return found


def _thinned(specs: Sequence[Spec], seen: dict[str, Hits]) -> dict[str, Hits]:
    """The same hits, in fewer judgments: without those that no value can rest on.

    A measure of the first k ranks rests on what stands there and on the k best of a topic. A label's grade is
    not known before it is drawn, so all labels stay.
    """
    if not all(map(_looks_at_the_top, specs)):
        return seen
    judgments = next(iter(seen.values())).judgments
    depth = max(s.cutoff or 0 for s in specs)
    kept = judgments.labeled | (_rank_by_grade(judgments) < depth)
    for hit in seen.values():
        kept[hit.all.judgment[hit.all.rank <= depth]] = True
    small = judgments.only(kept, np.arange(len(judgments.topics)))
    place = np.cumsum(kept) - 1
    found = {}
    for name, hit in seen.items():
        view = hit.all
        here = (view.rank <= depth) & kept[view.judgment]
        part = View(place[view.judgment[here]], view.topic[here], view.rank[here], view.retrieved)
        found[name] = Hits(small, part, [])
    return found


def _looks_at_the_top(spec: Spec) -> bool:
    return spec.name in _TOP and spec.cutoff is not None and not spec.judged_only and not spec.mapping


def _rank_by_grade(judgments: Judgments) -> Ints:
    """Place from 0 of each assessor's judgment among those of its topic, best first; labels stand last."""
    grade = np.where(judgments.labeled, np.iinfo(np.int64).min + 1, judgments.relevance)
    order = np.lexsort((-grade, judgments.topic))
    heads = np.flatnonzero(np.diff(judgments.topic[order], prepend=-1))
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order)) - np.repeat(heads, np.diff(np.append(heads, len(order))))
    return place
