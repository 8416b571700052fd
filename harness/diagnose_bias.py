"""For which texts, topics and systems labels are too generous or too strict.

The error of a label is its expected grade less the judgment. All intervals draw topics anew, except those of
single topics. An error goes with the judgment by itself (a non-relevant document can only be overrated), so
that what goes with the error must be looked at among documents of one judgment, too.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.agree_pairs import Judged, Rater
from harness.agree_ranking import orderings, spearman
from harness.agree_rated import positions, truth
from harness.agree_tables import interval, resampled
from harness.arrays import Floats, Ints
from harness.errors import UsageError
from harness.measure import measure

if TYPE_CHECKING:
    import polars as pl

__all__ = ["errors", "favour", "numbered", "sensitivity", "systems", "topics"]

_QUARTERS = (0.25, 0.5, 0.75)
_FEWEST_PAIRS = 3  # of a topic, for an interval of its own


def errors(of: Judged, one: Rater) -> tuple[Ints, Floats]:
    """Rows of `of` that have a label, and each label's expected grade less the judgment."""
    rows = np.flatnonzero(one.grade >= 0)
    return rows, one.score[rows] - of.grades[positions(of)[rows]]


# -- texts -------------------------------------------------------------------------------------------------


def sensitivity(of: Judged, one: Rater, values: Floats, seed: int, resamples: int) -> dict[str, Any]:
    """How the error of labels goes with something measured of the texts.

    Parameters
    ----------
    values: one a row of `of`; NaN where it is not known, and such pairs are left out.

    Returns
    -------
    `pairs`, `spearman` (rank correlation of value and error), `within_grades` (the same among documents of
    one judgment, ranks less their mean there), `ci` of both, and `quarters`, of pairs ordered by value:
    `from`, `to`, `pairs`, `judged` (mean judgment), `error` (mean) and `ci`. Ranks are
    those of all pairs, in the intervals too. None for what cannot be computed; `undefined` says why.
    """
    from scipy.stats import rankdata

    rows, error = errors(of, one)
    keep = np.isfinite(values[rows])
    rows, error, value = rows[keep], error[keep], values[rows[keep]]
    found: dict[str, Any] = {
        "pairs": len(rows),
        "spearman": None,
        "within_grades": None,
        "ci": {},
        "quarters": [],
    }
    if len(rows) < 2 or np.ptp(value) == 0 or np.ptp(error) == 0:
        same = "value" if len(rows) > 1 and np.ptp(value) == 0 else "error"
        why = (
            f"all pairs have the same {same}"
            if len(rows) > 1
            else "fewer than two pairs have a text and a label"
        )
        return {**found, "undefined": why}
    topic, number = numbered(of, rows)
    grade = positions(of)[rows]
    x, y = (rankdata(v) - (len(rows) + 1) / 2 for v in (value, error))
    parts = np.column_stack([np.ones(len(rows)), x, y, x * x, y * y, x * y])
    cells = np.zeros((number, len(of.grades), parts.shape[1]))
    np.add.at(cells, (topic, grade), parts)
    quarter, spans = _quarters(value)
    judged = of.grades[grade].astype(np.float64)
    bins = np.zeros((number, len(spans), 3))
    np.add.at(bins, (topic, quarter), np.column_stack([np.ones(len(rows)), error, judged]))
    whole = bins.sum(axis=0)
    drawn = resampled({"cells": cells, "bins": bins}, seed, resamples) if number > 1 else None
    for name, within in (("spearman", False), ("within_grades", True)):
        value_found = float(_correlations(cells.sum(axis=0, keepdims=True), within)[0])
        found[name] = value_found if math.isfinite(value_found) else None
        found["ci"][name] = interval(_correlations(drawn["cells"], within)) if drawn else None
    for place, (low, high) in enumerate(spans):
        n, wrong, human = whole[place]
        ends = None
        if drawn:
            with np.errstate(invalid="ignore", divide="ignore"):
                ends = interval(drawn["bins"][:, place, 1] / drawn["bins"][:, place, 0])
        found["quarters"].append(
            {"from": low, "to": high, "pairs": int(n), "judged": human / n, "error": wrong / n, "ci": ends}
        )
    return found


def _correlations(sums: Floats, within: bool) -> Floats:
    """(n,): correlation out of (n, grades, 6) sums of 1, x, y, xx, yy and xy; `within` grades, or of all."""
    parts = sums if within else sums.sum(axis=1, keepdims=True)
    n, x, y = (np.maximum(parts[..., 0], 1e-300), parts[..., 1], parts[..., 2])
    xx, yy, xy = (
        np.where(parts[..., 0] > 0, parts[..., column] - a * b / n, 0).sum(axis=1)
        for column, a, b in ((3, x, x), (4, y, y), (5, x, y))
    )
    with np.errstate(invalid="ignore", divide="ignore"):
        scale = np.sqrt(np.maximum(xx, 0) * np.maximum(yy, 0))
        return np.where(scale > 1e-9, xy / scale, np.nan)


def _quarters(value: Floats) -> tuple[Ints, list[tuple[float, float]]]:
    """Each pair's quarter, and the least and greatest value of each; fewer than four where values tie."""
    edges = np.unique(np.quantile(value, _QUARTERS, method="lower"))
    _, quarter = np.unique(np.searchsorted(edges, value, side="left"), return_inverse=True)
    spans = [
        (float(value[quarter == q].min()), float(value[quarter == q].max())) for q in range(quarter.max() + 1)
    ]
    return quarter.astype(np.int64), spans


def numbered(of: Judged, rows: Ints) -> tuple[Ints, int]:
    """The number of each row's topic, and how many topics there are."""
    known, place = np.unique(of.frame["query_id"].gather(rows).to_numpy(), return_inverse=True)
    return place.astype(np.int64), len(known)


# -- topics ------------------------------------------------------------------------------------------------


def topics(of: Judged, one: Rater, seed: int, resamples: int) -> dict[str, Any]:
    """The mean error of labels by topic.

    Returns
    -------
    `bias` (mean over all pairs) with `ci`; `spread`: the standard deviation between topics beyond what the
    pairs' own scatter explains; `topics`, the farthest from `bias` first: `query_id`, `pairs`, `bias`, `ci`
    (Student's t over its pairs; None for fewer than 3 pairs), `p_adjusted`: of differing from the other
    topics' pairs (Welch's t, Benjamini-Hochberg over topics; None where it has no interval).
    """
    from scipy.stats import false_discovery_control
    from scipy.stats import t as student

    rows, error = errors(of, one)
    topic, number = numbered(of, rows)
    n = np.bincount(topic, minlength=number).astype(np.float64)
    total, squares = np.bincount(topic, error, number), np.bincount(topic, error**2, number)
    mean = total / n
    with np.errstate(invalid="ignore", divide="ignore"):
        variance = np.maximum(squares - n * mean**2, 0) / (n - 1)
        spot = variance / n
    ask = n >= _FEWEST_PAIRS
    p = np.full(number, np.nan)
    for i in np.flatnonzero(ask):
        rest, m = error[topic != i], len(error) - n[i]
        if m < _FEWEST_PAIRS or variance[i] + rest.var() == 0:
            continue
        other = rest.var(ddof=1) / m
        freedom = (spot[i] + other) ** 2 / (spot[i] ** 2 / (n[i] - 1) + other**2 / (m - 1))
        p[i] = 2 * student.sf(abs(mean[i] - rest.mean()) / np.sqrt(spot[i] + other), freedom)
    adjusted, tested = np.full(number, np.nan), np.isfinite(p)
    if tested.any():
        adjusted[tested] = false_discovery_control(p[tested], method="bh")
    names = np.unique(of.frame["query_id"].gather(rows).to_numpy())
    bias = float(error.mean())
    listed = []
    for i in np.argsort(-np.abs(mean - bias), kind="stable"):
        half = student.ppf(0.975, n[i] - 1) * np.sqrt(spot[i]) if ask[i] else math.nan
        listed.append(
            {
                "query_id": str(names[i]),
                "pairs": int(n[i]),
                "bias": float(mean[i]),
                "ci": [float(mean[i] - half), float(mean[i] + half)] if ask[i] else None,
                "p_adjusted": float(adjusted[i]) if np.isfinite(adjusted[i]) else None,
            }
        )
    ends = None
    if number > 1:
        drawn = resampled({"n": np.column_stack([n, total])}, seed, resamples)["n"]
        ends = interval(drawn[:, 1] / drawn[:, 0])
    spread = None
    if ask.sum() > 1:
        spread = float(np.sqrt(max(0.0, mean[ask].var(ddof=1) - spot[ask].mean())))
    return {"bias": bias, "ci": ends, "spread": spread, "topics": listed}


# -- systems -----------------------------------------------------------------------------------------------


def systems(
    of: Judged,
    one: Rater,
    runs: Mapping[str, str | Path | pl.DataFrame],
    measures: Sequence[str],
    groups: Mapping[str, str] | None,
    seed: int,
    resamples: int,
    apart_from: Collection[str] = (),
) -> dict[str, Any]:
    """Which systems the labels favour.

    Parameters
    ----------
    runs: two or more. groups: name of a run -> its family. apart_from: runs that share something with the
        labeler; each also gets `over_unrelated`.

    Returns
    -------
    measure -> `runs`: name -> `human`, `labels` (scores, over the pairs that have both), `difference` (labels
    less human), `favour` (difference less the mean difference of all runs), `ci`, `p_adjusted` (t over
    topics, Benjamini-Hochberg over runs), and `over_unrelated`: `favour` and `ci` over the mean of the runs
    that share nothing, None if there are none; `groups`: family -> `runs`, `favour`, `ci`, `p_adjusted` (of
    its runs' mean), empty without groups; `with_quality`: rank correlation over runs of favour with the score
    by judgments (below 0: differences are drawn together, which favours weak runs); `ordering`:
    `agree_ranking.orderings`.

    Raises
    ------
    UsageError: fewer than two runs, or a run without a group. And whatever `measure` refuses.
    """
    if len(runs) < 2:
        raise UsageError(f"{len(runs)} run cannot be favoured over another; give two runs or more")
    if groups is not None and (without := [name for name in runs if name not in groups]):
        raise UsageError(
            f"{len(without)} of {len(runs)} runs have no group: {', '.join(without[:5])}. The groups name"
            f" {', '.join(sorted(groups)[:5])}"
        )
    rows = np.flatnonzero(one.grade >= 0)
    levels = None if one.probs is None else one.levels.tolist()
    by_human = measure(runs, truth(of, rows), measures)
    by_labels = measure(runs, one.frame, measures, grades=levels)
    ordered = orderings(by_human, by_labels, seed=seed, resamples=resamples)
    found: dict[str, Any] = {}
    for column, name in enumerate(by_human.measures):
        names = list(runs)
        human, labels = (np.column_stack([m.values[n][column] for n in names]) for m in (by_human, by_labels))
        known = np.isfinite(human).all(axis=1) & np.isfinite(labels).all(axis=1)
        if not known.any():
            found[name] = {"undefined": f"{name} is defined on no topic for all runs"}
            continue
        gap = labels[known] - human[known]
        relative = gap - gap.mean(axis=1, keepdims=True)
        listed: dict[str, dict[str, Any]] = {
            n: {
                "human": float(human[known, i].mean()),
                "labels": float(labels[known, i].mean()),
                "difference": float(gap[:, i].mean()),
                **one_favour,
            }
            for i, (n, one_favour) in enumerate(zip(names, favour(relative, seed, resamples), strict=True))
        }
        others = [i for i, n in enumerate(names) if n not in apart_from]
        for i, n in enumerate(names):
            if n in apart_from:
                lead = gap[:, [i]] - gap[:, others].mean(axis=1, keepdims=True) if others else None
                size = None if lead is None else favour(lead, seed, resamples)[0]
                listed[n]["over_unrelated"] = size and {k: size[k] for k in ("favour", "ci")}
        families: dict[str, Any] = {}
        if groups is not None:
            kinds = sorted({groups[n] for n in names})
            member = np.array([[groups[n] == kind for n in names] for kind in kinds], dtype=np.float64)
            means = relative @ (member / member.sum(axis=1, keepdims=True)).T
            for kind, size, its in zip(
                kinds, member.sum(axis=1), favour(means, seed, resamples), strict=True
            ):
                families[kind] = {"runs": int(size), **its}
        found[name] = {
            "topics": int(known.sum()),
            "runs": listed,
            "groups": families,
            "with_quality": _or_none(spearman(human[known].mean(axis=0), relative.mean(axis=0))),
            "ordering": ordered[name],
        }
    return found


def _or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None


def favour(by_topic: Floats, seed: int, resamples: int) -> list[dict[str, Any]]:
    """`favour` (mean over topics), `ci` (topics drawn anew) and `p_adjusted` (t over topics,
    Benjamini-Hochberg over the columns) of each column of (topics, columns)."""
    from scipy.stats import false_discovery_control
    from scipy.stats import t as student

    topics = len(by_topic)
    mean = by_topic.mean(axis=0)
    if topics < 2:
        return [{"favour": float(m), "ci": None, "p_adjusted": None} for m in mean]
    drawn = resampled({"n": by_topic}, seed, resamples)["n"] / topics
    error = by_topic.std(axis=0, ddof=1) / np.sqrt(topics)
    with np.errstate(invalid="ignore", divide="ignore"):
        p = np.where(
            error > 1e-12, 2 * student.sf(np.abs(mean) / error, topics - 1), np.where(mean == 0, 1.0, 0.0)
        )
    adjusted = false_discovery_control(p, method="bh")
    return [
        {"favour": float(m), "ci": interval(drawn[:, i]), "p_adjusted": float(q)}
        for i, (m, q) in enumerate(zip(mean, adjusted, strict=True))
    ]
