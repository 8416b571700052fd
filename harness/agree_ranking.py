"""Whether two qrels put systems in the same order: correlations of rankings, and who falls furthest.

All of them take scores, higher being better, of the same systems in the same order: those that the
assessors' grades give (truth) and those that the labels give (estimate). A correlation near 1 alone proves
little: labels without any agreement with assessors can reach 0.85, since most systems are far apart. The top
half, where the systems are close, says more.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.agree_tables import interval, resampled
from harness.arrays import Floats

if TYPE_CHECKING:
    from harness.measure import Measurement

__all__ = [
    "PERSISTENCE",
    "correlations",
    "drops",
    "kendall",
    "orderings",
    "rank_biased_overlap",
    "spearman",
    "tau_ap",
    "taus",
]

PERSISTENCE = 0.9
"""p of RBO: 86 % of the weight lies on the first ten systems."""
_DECIMALS = 12  # scores that differ by rounding only are ties
_ROWS = 1 << 21  # pairs of systems times resamples that are worked on at once


def kendall(truth: Floats, estimate: Floats) -> float:
    """Kendall's tau-b (Biometrika 1945), -1 to 1, SciPy's; NaN where all systems tie on one side."""
    from scipy.stats import kendalltau

    return _correlation(kendalltau, truth, estimate)


def spearman(truth: Floats, estimate: Floats) -> float:
    """Spearman's rank correlation, -1 to 1, SciPy's; NaN where all systems tie on one side."""
    from scipy.stats import spearmanr

    return _correlation(spearmanr, truth, estimate)


def _correlation(of: Any, truth: Floats, estimate: Floats) -> float:
    if np.ptp(truth) == 0 or np.ptp(estimate) == 0:
        return math.nan
    return float(of(truth, estimate).statistic)


def taus(truth: Floats, estimate: Floats) -> Floats:
    """Kendall's tau-b of each row of two (n, systems) matrices; NaN where all systems of a row tie."""
    i, j = np.triu_indices(truth.shape[1], 1)
    found, step = np.full(len(truth), np.nan), max(1, _ROWS // max(1, len(i)))
    for first in range(0, len(truth), step):
        part = slice(first, first + step)
        a, b = (np.sign(scores[part][:, i] - scores[part][:, j]) for scores in (truth, estimate))
        untied = np.sqrt(np.abs(a).sum(axis=1) * np.abs(b).sum(axis=1))
        with np.errstate(invalid="ignore", divide="ignore"):
            found[part] = (a * b).sum(axis=1) / untied
    return found


def tau_ap(truth: Floats, estimate: Floats) -> float:
    """AP correlation, -1 to 1: Kendall's tau with errors at the top weighing more (Yilmaz, Aslam & Robertson,
    SIGIR 2008), in the form that is symmetric and takes ties on both sides, tau_AP,b (Urbano & Marrero, ICTIR
    2017): the mean of both directions. Systems of one tie are not compared with each other; a system and
    those above it that the other side ties count as out of order. NaN where all tie on one side.
    """
    return (_towards(truth, estimate) + _towards(estimate, truth)) / 2


def _towards(judge: Floats, ranking: Floats) -> float:
    """Mean over the systems below the first of how `judge` agrees on those above it."""
    above = ranking[None, :] > ranking[:, None]
    right = above & (judge[None, :] > judge[:, None])
    number = above.sum(axis=1)
    below = number > 0
    if not below.any() or np.ptp(judge) == 0:
        return math.nan
    return float(2 * (right.sum(axis=1)[below] / number[below]).mean() - 1)


def rank_biased_overlap(truth: Floats, estimate: Floats, p: float = PERSISTENCE) -> float:
    """RBO of two complete rankings, best system first, 0 to 1 (Webber, Moffat & Zobel, TOIS 2010, RBO_ext).

    Evaluated to the last system, where both rankings hold the same systems, so that what is extrapolated is
    known: nothing is cut off. Systems of one tie enter together, at the rank of the first of them (their
    section 6), and overlap counts twice the shared over all that have entered.
    """
    depth = np.arange(1, len(truth) + 1)[:, None]
    a, b = (1 + (scores[None, :] > scores[:, None]).sum(axis=1) for scores in (truth, estimate))
    first, second = a <= depth, b <= depth
    agreement = 2 * (first & second).sum(axis=1) / (first.sum(axis=1) + second.sum(axis=1))
    weights = (1 - p) * p ** (depth[:, 0] - 1)
    return float((weights * agreement).sum() + agreement[-1] * p ** len(truth))


def drops(truth: Floats, estimate: Floats) -> Floats:
    """How many ranks each system loses (below 0: gains) when it is ranked by the estimate; systems of one tie
    stand at their mean rank."""
    from scipy.stats import rankdata

    found: Floats = rankdata(-estimate) - rankdata(-truth)
    return found


def correlations(truth: Floats, estimate: Floats) -> dict[str, float]:
    """All correlations of this module by name; NaN where one is undefined."""
    if len(truth) < 2:
        return dict.fromkeys(("kendall_tau", "tau_ap", "spearman", "rbo"), math.nan)
    return {
        "kendall_tau": kendall(truth, estimate),
        "tau_ap": tau_ap(truth, estimate),
        "spearman": spearman(truth, estimate),
        "rbo": rank_biased_overlap(truth, estimate),
    }


def orderings(
    truth: Measurement, estimate: Measurement, *, seed: int = 0, resamples: int = 2000
) -> dict[str, dict[str, Any]]:
    """How two measurements of the same runs on the same topics order the runs, measure by measure.

    Returns
    -------
    measure -> `runs` (n), `kendall_tau`, `tau_ap`, `spearman`, `rbo` (`rank_biased_overlap`: p 0.9, best
    first, all runs), `top_half` (the same, over the better half of the runs by the truth; ties there in order
    of name), `max_drop` (ranks), `max_drop_run`, `ci` (of `kendall_tau` and `top_half.kendall_tau`; topics
    drawn anew, which lets a correlation near 1 only fall: the value stands in the upper part) and, where a
    correlation is null, `undefined`, which says why.
    """
    return {
        measure: _ordering(truth, estimate, column, seed, resamples)
        for column, measure in enumerate(truth.measures)
    }


def _ordering(
    truth: Measurement, estimate: Measurement, column: int, seed: int, resamples: int
) -> dict[str, Any]:
    names = sorted(truth.values)
    by_topic = [np.column_stack([m.values[name][column] for name in names]) for m in (truth, estimate)]
    measure = truth.measures[column]
    averages = [[m.runs[name][measure] for name in names] for m in (truth, estimate)]
    if any(value is None for side in averages for value in side):
        return {"runs": len(names), "undefined": f"{measure} has no value for some run"}
    a, b = (np.round(np.array(side), _DECIMALS) for side in averages)
    order = np.argsort(-a, kind="stable")
    half = np.sort(order[: len(names) // 2])
    top = correlations(a[half], b[half])
    fall = drops(a, b)
    found: dict[str, Any] = {
        "runs": len(names),
        **_defined(correlations(a, b)),
        "top_half": {"runs": len(half), **_defined(top)},
        "max_drop": float(fall.max()),
        "max_drop_run": names[int(fall.argmax())],
        "ci": {"kendall_tau": None, "top_half.kendall_tau": None},
    }
    tied = [side for side, scores in (("the assessors", a), ("the labels", b)) if np.ptp(scores) == 0]
    if tied:
        found["undefined"] = f"by {' and by '.join(tied)} all runs have the same {measure}"
    elif math.isnan(top["kendall_tau"]):
        few = len(half) < 2
        found["undefined"] = "the top half is a single run" if few else "all runs of the top half tie"
    if len(truth.topics) > 1 and all(np.isfinite(side).all() for side in by_topic):
        drawn = resampled(dict(zip(("a", "b"), by_topic, strict=True)), seed, resamples)
        x, y = (np.round(drawn[side] / len(truth.topics), _DECIMALS) for side in "ab")
        found["ci"] = {
            "kendall_tau": interval(taus(x, y)),
            "top_half.kendall_tau": interval(taus(x[:, half], y[:, half])),
        }
    return found


def _defined(values: dict[str, float]) -> dict[str, float | None]:
    return {name: None if math.isnan(value) else value for name, value in values.items()}
