"""The greatest delta that grades for the holes can give each topic, family by family.

Each function takes a `Field` and gives candidate - base, as large as it can be, for every topic; the least
is minus the greatest of the exchanged field. With `most`, at most that many holes of a topic get a grade
above the lowest: the curve that says how few are enough.

Notation: a document's weight c is what a unit of gain adds to delta's numerator, the candidate's discount
less the base's. J: that numerator without the holes; R: the number of relevant documents without them.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np

from harness.arrays import Bools, Floats, Ints, running_sum
from harness.bounds_ap import ENUMERATED, ap, ap_curve
from harness.bounds_field import Field
from harness.scoring import Spec

__all__ = ["LINEAR", "curve", "gain_of", "greatest", "slope"]

LINEAR = frozenset({"P", "RBP"})
"""Families whose delta is a sum over documents: each hole counts by itself."""
_CELLS = 4_000_000  # numbers in the largest array that a curve may need
_TINY = 1e-14  # progress below this is rounding


def greatest(spec: Spec, field: Field, grades: list[int], scale: float) -> tuple[Floats, Bools]:
    """Greatest delta of each topic, and whether it is attained or only never exceeded."""
    exact = np.ones(field.topics, dtype=np.bool_)
    if spec.name in LINEAR:
        return _linear(spec, field, grades, scale), exact
    if spec.name == "AP":
        return ap(field, spec.rel or 0)
    if spec.name == "nDCG":
        return _ndcg(spec, field, grades, np.arange(field.topics), field.holes()), exact
    return _THRESHOLDED[spec.name](spec, field, int(field.holes().max(initial=0)))[:, -1], exact


def curve(spec: Spec, field: Field, grades: list[int]) -> Floats | None:
    """Greatest delta with at most 0, 1, 2, ... holes graded, topics x numbers; None where it costs too much.

    A hole without a grade counts as one with the lowest. Not for the linear families, which need none.
    """
    holes = field.holes()
    width = int(holes.max(initial=0)) + 1
    if spec.name == "AP":
        return ap_curve(field, spec.rel or 0) if width <= ENUMERATED + 1 else None
    if spec.name == "nDCG":
        if field.topics * width * width > _CELLS:
            return None
        rows = np.repeat(np.arange(field.topics), width)
        most = np.tile(np.arange(width), field.topics)
        return _ndcg(spec, field, grades, rows, np.minimum(most, holes[rows])).reshape(-1, width)
    if field.topics * width > _CELLS:
        return None
    return _THRESHOLDED[spec.name](spec, field, width - 1)


def gain_of(spec: Spec, grades: Ints) -> Floats:
    """The gain that nDCG gives a grade."""
    values = grades.astype(np.float64)
    for grade, value in spec.mapping or ():
        values[grades == grade] = value
    return np.maximum(np.exp2(values) - 1.0 if spec.exponential else values, 0.0)


# ------------------------------------------------------------------------------- sums over documents


def _weight(spec: Spec, rank: Floats) -> Floats:
    """What a unit of gain at a rank counts in the measure's numerator; 0 out of reach."""
    if spec.name == "nDCG":
        return 1.0 / np.log2(rank + 1.0)
    if spec.name == "RBP":
        return (1.0 - spec.persistence) * np.power(spec.persistence, rank - 1.0)
    if spec.name in ("RR", "Rprec"):
        return 1.0 / rank
    inside = np.isfinite(rank).astype(np.float64)
    return inside / spec.cutoff if spec.name == "P" and spec.cutoff else inside


def slope(spec: Spec, field: Field) -> Floats:
    """c of each document."""
    return _weight(spec, field.candidate) - _weight(spec, field.base)


def _linear(spec: Spec, field: Field, grades: list[int], scale: float) -> Floats:
    c = slope(spec, field)
    if spec.rel is None:
        gain, top = np.maximum(field.grade, 0) / scale, max(grades[-1], 0) / scale
        low = max(grades[0], 0) / scale
    else:
        gain, low, top = field.relevant(spec.rel), 0.0, 1.0
    return field.sum(np.where(field.hole, np.maximum(c * low, c * top), c * gain))


# -------------------------------------------------------------------------------------- thresholds


def _recall(spec: Spec, field: Field, most: int) -> Floats:
    """(J + p - n) / (R + p + n + z), with p, n, z holes that the candidate, the base, both have.

    It grows with p, since J <= R; z dilutes a loss; n only harms.
    """
    c = slope(spec, field)
    only = field.sum((field.hole & (c > 0)).astype(np.float64))
    both = field.sum((field.hole & (c == 0)).astype(np.float64))
    relevant = field.human_relevant(spec.rel or 0)[:, None]
    m = np.arange(most + 1.0)[None, :]
    p = np.minimum(m, only[:, None])
    above = field.sum(c * field.relevant(spec.rel or 0))[:, None] + p
    below = relevant + p + np.where(above < 0, np.minimum(m - p, both[:, None]), 0.0)
    quotient: Floats = np.divide(above, below, out=np.zeros_like(above), where=below > 0)
    return quotient


def _first(spec: Spec, field: Field, most: int) -> Floats:
    """RR and Success are the largest weight of a relevant document: one relevant hole does all that any do.

    Of a set of relevant holes, the one that is first in the candidate gives it as much as the whole set, and
    the base no more.
    """
    theirs, ours = _weight(spec, field.candidate), _weight(spec, field.base)
    judged = field.relevant(spec.rel or 0)
    base, candidate = np.zeros(field.topics), np.zeros(field.topics)
    np.maximum.at(base, field.topic, ours * judged)
    np.maximum.at(candidate, field.topic, theirs * judged)
    best: Floats = np.repeat((candidate - base)[:, None], most + 1, axis=1)
    at = field.topic[field.hole]
    one = np.maximum(candidate[at], theirs[field.hole]) - np.maximum(base[at], ours[field.hole])
    found = best[:, 0].copy()
    np.maximum.at(found, at, one)
    best[:, 1:] = found[:, None]
    return best


def _rprec(spec: Spec, field: Field, most: int) -> Floats:
    """With m relevant holes both runs are cut at R + m, which says which holes count; then the best m."""
    relevant = field.human_relevant(spec.rel or 0)
    width = int(field.holes().max(initial=0)) + 1
    judged = field.relevant(spec.rel or 0) > 0

    def within(rank: Floats, chosen: Bools) -> Floats:
        """How many chosen documents stand at R + m or above, topics x m."""
        m = np.clip(rank - relevant[field.topic], 0, width)[chosen].astype(np.int64)
        cells = np.bincount(field.topic[chosen] * (width + 1) + m, minlength=field.topics * (width + 1))
        return np.cumsum(cells.reshape(field.topics, width + 1), axis=1)[:, :width].astype(np.float64)

    hole = field.hole
    both = within(np.maximum(field.base, field.candidate), hole)
    only = within(field.candidate, hole) - both
    lost = within(field.base, hole) - both
    neutral = field.holes()[:, None] - only - lost
    m = np.arange(float(width))[None, :]
    above = within(field.candidate, judged) - within(field.base, judged)
    above += np.minimum(m, only) - np.maximum(0.0, m - only - neutral)
    below = relevant[:, None] + m
    value = np.divide(above, below, out=np.zeros_like(above), where=below > 0)
    value[m > field.holes()[:, None]] = -np.inf
    best: Floats = np.maximum.accumulate(value, axis=1)
    return best[:, : most + 1]


_THRESHOLDED: dict[str, Callable[[Spec, Field, int], Floats]] = {
    "R": _recall,
    "RR": _first,
    "Success": _first,
    "Rprec": _rprec,
}


# -------------------------------------------------------------------------------------------- nDCG


def _ndcg(spec: Spec, field: Field, grades: list[int], rows: Ints, most: Ints) -> Floats:
    """The greatest delta of nDCG on the topics `rows`, with at most `most` holes above the lowest gain.

    For given gains of the holes the numerator is largest when they fall in the order of c, so n_1 >= n_2 >=
    ..., the numbers of holes with at least the 1st, 2nd, ... gain, say everything. In these both numerator
    and ideal are sums of one term a gain (an ideal DCG is the integral over t of the sum of discounts of as
    many ranks as there are documents with a gain of t or more). So numerator - x ideal is maximal along a
    chain, by dynamic programming, and Dinkelbach's iteration (Management Science 13, 1967) finds the x at
    which that maximum is 0: the greatest quotient.
    """
    gains = np.unique(gain_of(spec, np.asarray(grades)))
    human = gain_of(spec, field.human_grade)
    levels = np.unique(np.concatenate([[0.0], gains, human]))
    width = int(field.holes().max(initial=0)) + 1
    longest = int(np.bincount(field.human_topic, minlength=1).max()) + width
    ranks = np.arange(1, longest + 1)
    discounts = np.where(ranks <= (spec.cutoff or longest), 1.0 / np.log2(ranks + 1.0), 0.0)
    ideal = np.append(0.0, np.cumsum(discounts))  # of as many documents of gain 1

    c = slope(spec, field)
    totals = _prefix_sums(field, c, width)
    numbers = np.arange(width)
    start = field.sum(np.where(field.hole, 0.0, c * gain_of(spec, field.grade)))
    start = start + gains[0] * totals[:, -1]
    above = [np.diff(gains)[i] * totals for i in range(len(gains) - 1)]
    below = [np.zeros_like(totals) for _ in above]
    floor = np.zeros(field.topics)
    for low, high in pairwise(levels):
        judged = np.bincount(field.human_topic[human >= high], minlength=field.topics)
        i = int(np.searchsorted(gains, high))  # the lowest gain of a hole that reaches this level
        if i == 0:
            floor += (high - low) * ideal[judged + field.holes()]
        elif i == len(gains):
            floor += (high - low) * ideal[judged]
        else:
            below[i - 1] += (high - low) * ideal[judged[:, None] + numbers]
    return _dinkelbach(start[rows], floor[rows], [a[rows] for a in above], [b[rows] for b in below], most)


def _prefix_sums(field: Field, c: Floats, width: int) -> Floats:
    """Sum of the n largest c among each topic's holes, topics x n; constant beyond its holes."""
    topic, value = field.topic[field.hole], c[field.hole]
    order = np.lexsort((-value, topic))
    topic, value = topic[order], value[order]
    place = running_sum(topic, np.ones(len(topic))).astype(np.int64) + 1
    table = np.zeros((field.topics, width))
    table[topic, place] = value
    return np.cumsum(table, axis=1)


def _dinkelbach(start: Floats, floor: Floats, above: list[Floats], below: list[Floats], most: Ints) -> Floats:
    """Greatest (start + sum above_i[n_i]) / (floor + sum below_i[n_i]) over most >= n_1 >= n_2 >= ...

    One for each row. A quotient with nothing below is 0.
    """
    if not above:
        return np.divide(start, floor, out=np.zeros_like(start), where=floor > 0)
    row = np.arange(len(start))
    numbers = np.arange(above[0].shape[1])
    x = np.full(len(start), -2.0)  # below every delta, so that the first maximum has something to divide by
    for _ in range(100):
        chosen: list[Ints] = []
        best = np.zeros_like(above[0])
        for a, b in zip(reversed(above), reversed(below), strict=True):
            terms = a - x[:, None] * b + best
            if len(chosen) == len(above) - 1:
                terms[numbers > most[:, None]] = -np.inf
            best = np.maximum.accumulate(terms, axis=1)
            chosen.append(np.maximum.accumulate(np.where(terms == best, numbers, 0), axis=1))
        n = chosen[-1][:, -1]
        top, bottom = start.copy(), floor.copy()
        for a, b, where in zip(above, below, [*chosen[-2::-1], None], strict=True):
            top += a[row, n]
            bottom += b[row, n]
            n = n if where is None else where[row, n]
        quotient = np.divide(top, bottom, out=x.copy(), where=bottom > 0)
        better = quotient > x + _TINY
        x = np.where(better, quotient, x)
        if not better.any():
            break
    nothing = floor + sum(b[:, 0] for b in below) <= 0  # all holes at the lowest gain leave no ideal: 0 / 0
    return np.where(nothing, np.maximum(x, 0.0), x)
