"""What per-topic differences say about all topics: intervals, p-values, power. Numbers in, numbers out.

Everything random hangs on a seed and a purpose only (`draws.generator`), so it is the same for any number of
threads. Where labels have distributions, `noise` is how drawing them moves the mean difference: it is added
to the replicates of the bootstrap and to the permutations, as an error that is independent of which topics
were drawn. Without labels every number is the ordinary one.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from harness.arrays import Floats
from harness.draws import generator
from harness.errors import UnknownName

__all__ = [
    "ALPHA",
    "CONFIDENCE",
    "CORRECTIONS",
    "POWER",
    "RESAMPLES",
    "adjusted",
    "detectable",
    "intervals",
    "sign_flips",
    "t_test",
    "topics_needed",
    "wilcoxon",
]

CONFIDENCE, ALPHA, POWER = 0.95, 0.05, 0.8
RESAMPLES = 9999
"""Of the bootstrap; of the permutation test where its 2^n outcomes are more than that."""
CORRECTIONS = ("holm", "bonferroni", "fdr", "none")
_EXACT = 13  # topics that differ: 2^13 sign patterns are fewer than RESAMPLES
_CHUNK = 1 << 17  # topics times resamples that are worked on at once
_MOST_TOPICS = 10**7
_ROUNDING = 1e-13  # of a mean: topics that differ by less differ by rounding only


def intervals(deltas: Floats, noise: Floats | None = None, *, seed: int = 0) -> tuple[Floats, Floats]:
    """95 % intervals of means over topics drawn anew: bias-corrected and accelerated bootstrap.

    Efron, JASA 82 (1987). With `noise` the levels are those of the topics alone and the replicates carry the
    noise too. Where no topic differs from another and there is no noise, both ends are the mean; with a
    single topic, which says nothing of how topics differ, they are infinite.

    Parameters
    ----------
    deltas: (topics, comparisons). noise: (draws, comparisons), deviations of the mean from its plug-in value.
    """
    from scipy.special import ndtr, ndtri

    topics, comparisons = deltas.shape
    means = deltas.mean(axis=0)
    moving = np.zeros(comparisons, dtype=bool) if noise is None else np.asarray(noise.any(axis=0))
    if topics == 1:
        still = (deltas[0] == 0) & ~moving
        ends = np.where(still, 0.0, np.inf)
        return -ends, ends
    low, high = means.copy(), means.copy()
    away = deltas - means
    spread = (away**2).sum(axis=0)
    level = ndtri((1 - CONFIDENCE) / 2)
    for first in range(0, comparisons, 2048):
        part = slice(first, first + 2048)
        replicates = _resampled(deltas[:, part], seed)
        edge = 1e-12 * np.abs(deltas[:, part]).mean(axis=0)  # equal but for rounding counts half
        below, beside = replicates < means[part] - edge, replicates <= means[part] + edge
        share = (below.sum(axis=0) + beside.sum(axis=0)) / (2 * len(replicates))
        cubes = (away[:, part] ** 3).sum(axis=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            bend = np.where(spread[part] > 0, cubes / (6 * spread[part] ** 1.5), 0.0)
            shift = ndtri(share)
            ranks = [ndtr(shift + (shift + z) / (1 - bend * (shift + z))) for z in (level, -level)]
        if noise is not None:
            replicates = replicates + np.resize(noise[:, part], replicates.shape)
        replicates = np.sort(replicates, axis=0)
        for column in range(replicates.shape[1]):
            at = [float(r[column]) for r in ranks]
            if not np.isfinite(at).all():  # every replicate on one side: the topics say nothing of skewness
                at = [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]
            if spread[first + column] > 0 or moving[first + column]:
                low[first + column], high[first + column] = _quantiles(replicates[:, column], at)
    return low, high


def _quantiles(ordered: Floats, levels: list[float]) -> list[float]:
    """Linear interpolation between order statistics, as `numpy.quantile`."""
    place = np.clip(levels, 0.0, 1.0) * (len(ordered) - 1)
    return [float(v) for v in np.interp(place, np.arange(len(ordered)), ordered)]


def _resampled(deltas: Floats, seed: int) -> Floats:
    """Means (RESAMPLES, comparisons) over topics drawn with replacement, the same topics for each column."""
    topics = len(deltas)
    rng, parts = generator(seed, 1), []
    small = np.uint16 if topics <= np.iinfo(np.uint16).max else np.int64
    step = max(1, _CHUNK // topics)
    for first in range(0, RESAMPLES, step):
        rows = min(step, RESAMPLES - first)
        drawn = rng.integers(0, topics, (rows, topics), dtype=small) + np.arange(rows)[:, None] * topics
        counts = np.bincount(drawn.ravel(), minlength=rows * topics).reshape(rows, topics)
        parts.append(counts.astype(np.float64) @ deltas / topics)
    return np.concatenate(parts)


def sign_flips(deltas: Floats, noise: Floats | None = None, *, seed: int = 0) -> Floats:
    """Two-sided p-values (comparisons,) of the paired sign-flip permutation test (Fisher 1935).

    How often a mean difference at least as large would come up if the two systems' names were exchanged on
    each topic by chance. Exact for up to 13 topics that differ; else from 9,999 draws, with +1 in both
    counts, so that it is never 0. With `noise` a permutation carries the labels' error too, and is drawn.
    """
    topics, comparisons = deltas.shape
    total = np.abs(deltas.sum(axis=0))
    edge = total - 1e-10 * np.abs(deltas).sum(axis=0)
    p = np.ones(comparisons)
    differing = (deltas != 0).sum(axis=0)
    silent = np.ones(comparisons, dtype=bool) if noise is None else ~noise.any(axis=0)
    for column in np.flatnonzero((differing <= _EXACT) & silent):
        values = deltas[deltas[:, column] != 0, column]
        if len(values) > 1:  # both of one topic's outcomes are as large as what was seen
            p[column] = float((np.abs(_patterns(len(values)) @ values) >= edge[column]).mean())
    drawn = np.flatnonzero((differing > _EXACT) | ~silent)
    if not len(drawn):
        return p
    rng, larger = generator(seed, 2), np.zeros(len(drawn))
    step = max(1, _CHUNK // topics)
    for first in range(0, RESAMPLES, step):
        rows = min(step, RESAMPLES - first)
        bits = np.frombuffer(rng.bytes(rows * ((topics + 7) // 8)), dtype=np.uint8).reshape(rows, -1)
        signs = np.unpackbits(bits, axis=1)[:, :topics] * 2.0 - 1.0
        sums = signs @ deltas[:, drawn]
        if noise is not None:
            centered = (noise - noise.mean(axis=0))[:, drawn] * topics
            sums += centered[np.arange(first, first + rows) % len(centered)]
        larger += (np.abs(sums) >= edge[drawn]).sum(axis=0)
    p[drawn] = (larger + 1) / (RESAMPLES + 1)
    return p


def _patterns(size: int) -> Floats:
    """All 2^size patterns of signs."""
    bits = (np.arange(1 << size)[:, None] >> np.arange(size)) & 1
    return np.asarray(bits * 2.0 - 1.0)


def adjusted(p: Floats, correction: str) -> Floats:
    """p-values of one family after a correction: `holm` (Holm 1979), `bonferroni`, `fdr` (Benjamini &
    Hochberg 1995), or `none`.

    Raises
    ------
    UnknownName: another correction.
    """
    if correction not in CORRECTIONS:
        raise UnknownName("correction", correction, CORRECTIONS)
    if correction == "none" or not p.size:
        return p
    if correction == "bonferroni":
        return np.asarray(np.minimum(p * p.size, 1.0))
    order = np.argsort(p, kind="stable")
    steps = np.arange(p.size)
    out = np.empty_like(p)
    if correction == "holm":
        out[order] = np.minimum(np.maximum.accumulate(p[order] * (p.size - steps)), 1.0)
    else:
        scaled = p[order] * p.size / (steps + 1)
        out[order] = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1.0)
    return out


def t_test(delta: Floats) -> tuple[float, float]:
    """Student's paired t and its two-sided p; NaN where the topics do not differ from each other."""
    from scipy.special import stdtr

    spread = float(delta.std(ddof=1)) if len(delta) > 1 else 0.0
    if spread <= _ROUNDING * abs(float(delta.mean())):
        return math.nan, math.nan
    t = float(delta.mean()) / (spread / math.sqrt(len(delta)))
    return t, float(2 * stdtr(len(delta) - 1, -abs(t)))


def wilcoxon(delta: Floats) -> float:
    """Two-sided p of Wilcoxon's signed-rank test, topics without a difference left out; NaN if all are."""
    from scipy.stats import wilcoxon as test

    differing = delta[delta != 0]
    if not len(differing):
        return math.nan
    found: Any = test(differing)
    return float(found.pvalue)


def _power(effect: float, topics: float) -> float:
    """Power of the two-sided paired t-test at `ALPHA`."""
    from scipy.special import nctdtr, stdtrit

    degrees = topics - 1
    bound = float(stdtrit(degrees, 1 - ALPHA / 2))
    away = effect * math.sqrt(topics)
    # SciPy has NaN where these tails are far below 1e-9
    below, beyond = np.nan_to_num(nctdtr(degrees, away, np.array([bound, -bound])))
    return float(1 - below + beyond)


def detectable(spread: float, topics: int) -> float:
    """The least difference that a paired t-test on so many topics finds with 80 % power.

    `spread`: standard deviation of the per-topic differences. NaN for fewer than two topics.
    """
    from scipy.optimize import brentq

    if topics < 2:
        return math.nan
    if spread == 0.0:
        return 0.0
    top = 1.0
    while _power(top, topics) < POWER:
        top *= 2
    return float(spread * brentq(lambda effect: _power(effect, topics) - POWER, 0.0, top, xtol=1e-9))


def topics_needed(delta: float, spread: float) -> int | None:
    """The fewest topics on which a paired t-test finds such a difference with 80 % power; None if there is
    no difference, or it would take more than ten million."""
    from scipy.optimize import brentq

    if delta == 0.0:
        return None
    effect = abs(delta) / spread if spread > 0 else math.inf
    if effect >= 40 or _power(effect, 2) >= POWER:
        return 2
    top = 4.0
    while _power(effect, top) < POWER:
        top *= 2
        if top > _MOST_TOPICS:
            return None
    found = brentq(lambda topics: _power(effect, topics) - POWER, top / 2 if top > 4 else 2, top, xtol=1e-6)
    return math.ceil(float(found) - 1e-6)
