"""How much one judgment tells about the difference between two runs on a measure.

For each unjudged document and each grade it may turn out to have, the mean difference over the topics is
worked out with that grade in place and everything else as expected. The variance of these outcomes is the
part of the variance of the difference that the judgment takes away (law of total variance). For additive
measures it is the squared weight of the document times the variance of its gain: the order of minimal test
collections (Carterette, Allan & Sitaraman, SIGIR 2006), weighed by what is believed of each document. Ideals
and numbers of relevant documents move along with the grade.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.arrays import Bools, Floats, Ints
from harness.draws import SHIFT_ALL, SHIFT_TOPIC, generator
from harness.errors import UsageError
from harness.measure import parse
from harness.plan_pool import Documents
from harness.scoring import Spec

__all__ = ["Tables", "draws", "influence", "planned_measure", "tables"]

_FAMILIES = ("nDCG", "AP", "RR", "P", "R", "Success", "RBP")
_ROOM = 1 << 22
"""Numbers held at once, about, in the largest array."""


def planned_measure(measure: str) -> Spec:
    """The measure, if judgments for it can be planned.

    Raises
    ------
    UsageError: it is not a measure, or one whose differences are not worked out here.
    """
    (spec,) = parse([measure])
    if not isinstance(spec, Spec) or spec.name not in _FAMILIES or spec.judged_only:
        raise UsageError(
            f"judgments cannot be planned for {measure!r}. Available: {', '.join(_FAMILIES)}, each with a"
            " cutoff and its parameters, but without judged_only"
        )
    return spec


@dataclass(frozen=True)
class Tables:
    """Some topics' documents as arrays (topics, documents), padded with documents that count nothing.

    `row`: position in the Documents, -1 for padding. `values`: the gain that each grade of the scale stands
    for. `gain`: expected gains. `others`: gains of the judged documents that neither run shows, best first.
    """

    topics: Ints
    row: Ints
    base: Floats
    candidate: Floats
    hole: Bools
    probs: Floats
    gain: Floats
    values: Floats
    others: Floats


def tables(spec: Spec, documents: Documents) -> Iterator[Tables]:
    """The topics in portions of bounded size."""
    values = _values(spec, np.asarray(documents.grades), documents)
    gain = np.where(documents.hole, documents.probs @ values, _values(spec, documents.relevance, documents))
    other_topic, other_grade, human, beyond = documents.others
    other = np.where(human, _values(spec, other_grade, documents), beyond @ values)
    order = np.lexsort((-other, other_topic))
    other_topic, other = other_topic[order], other[order]
    if spec.name == "nDCG":
        kept = (_place(other_topic) < (spec.cutoff or len(other))) & (other > 0)
        other_topic, other = other_topic[kept], other[kept]
    counts = np.bincount(documents.topic, minlength=len(documents.topics))
    width = int(counts.max(initial=0)) + int(np.bincount(other_topic).max(initial=0)) + 1
    portion = max(1, _ROOM // (width * len(values)))
    for first in range(0, len(documents.topics), portion):
        topics = np.arange(first, min(first + portion, len(documents.topics)))
        rows = np.arange(*np.searchsorted(documents.topic, (first, first + portion)))
        row = _padded(documents.topic[rows] - first, rows, len(topics), -1)
        part = slice(*np.searchsorted(other_topic, (first, first + portion)))
        real = row >= 0
        yield Tables(
            topics=topics,
            row=row,
            base=np.where(real, documents.base[row], np.inf),
            candidate=np.where(real, documents.candidate[row], np.inf),
            hole=real & documents.hole[row],
            probs=documents.probs[row],
            gain=np.where(real, gain[row], 0.0),
            values=values,
            others=_padded(other_topic[part] - first, other[part], len(topics), 0.0),
        )


def _values(spec: Spec, grades: Ints, documents: Documents) -> Floats:
    """The gain that each grade stands for."""
    if spec.name != "nDCG" and spec.rel is not None:
        return np.asarray(grades >= spec.rel, dtype=np.float64)
    values = grades.astype(np.float64)
    for grade, value in spec.mapping or ():
        values[grades == grade] = value
    if spec.exponential:
        values = np.exp2(values) - 1.0
    if spec.name == "RBP":
        known = documents.relevance.max(initial=1, where=~documents.hole)
        rest = documents.others[1].max(initial=1)
        values = values / max(1, known, rest, *documents.grades)
    if not np.isfinite(values).all():
        raise UsageError(f"2^grade overflows: there is the grade {grades.max()}")
    return np.maximum(values, 0.0)


def _place(group: Ints) -> Ints:
    """0, 1, 2, ... within each stretch of equal values."""
    heads = np.flatnonzero(np.diff(group, prepend=-1))
    return np.arange(len(group)) - np.repeat(heads, np.diff(np.append(heads, len(group))))


def _padded(group: Ints, values: Floats | Ints, groups: int, blank: float) -> npt.NDArray[Any]:
    place = _place(group)
    out = np.full((groups, int(place.max(initial=-1)) + 1), blank, dtype=values.dtype)
    out[group, place] = values
    return out


def influence(spec: Spec, table: Tables) -> tuple[Floats, Floats, Floats]:
    """Of each document, on its topic: slope of the difference in its gain, standard deviation of its gain,
    and the variance of the difference that its judgment takes away; 0 where there is nothing to judge."""
    theirs, by_theirs = _numerator(spec, table.candidate, table.gain)
    ours, by_ours = _numerator(spec, table.base, table.gain)
    change = table.values - table.gain[..., None]
    numerator = (theirs - ours)[:, None, None] + (by_theirs - by_ours)[..., None] * change
    outcome = _over(numerator, _denominators(spec, table))
    probs = table.probs * table.hole[..., None]
    mean = (probs * outcome).sum(axis=2, keepdims=True)
    variance = (probs * change**2).sum(axis=2)
    slope = _over((probs * (outcome - mean) * change).sum(axis=2), variance)
    taken = (probs * (outcome - mean) ** 2).sum(axis=2)
    return slope, np.sqrt(variance), np.where(taken > 1e-24, taken, 0.0)


def draws(
    spec: Spec, table: Tables, documents: Documents, number: int, seed: int
) -> Iterator[tuple[int, float, Floats]]:
    """Topic, the difference on it as expected, and in each of `number` draws of what assessors may yet say.

    What is believed of a topic's documents errs by a shift in common, and what is believed of one run's own
    documents errs against the other's, in all topics alike: of labels as `harness.draws` has it, without
    labels as far as the judgments so far leave open.
    """
    mean, spread = documents.side
    shared = generator(seed, 0).standard_normal(number)
    for i, topic in enumerate(table.topics.tolist()):
        holes = np.flatnonzero(table.hole[i])
        gain = np.tile(table.gain[i], (number + 1 if len(holes) else 1, 1))  # the first row is as expected
        if len(holes):
            rows, rng = table.row[i, holes], generator(seed, topic + 1)
            side = np.where(
                documents.labeled[rows], SHIFT_ALL * shared[:, None], mean + spread * shared[:, None]
            )
            shift = SHIFT_TOPIC * rng.standard_normal(number)[:, None] + side * documents.lean[rows]
            gain[1:, holes] = table.values[_drawn(table.probs[i, holes], np.exp(shift), rng)]
        found = _difference(spec, table.base[i], table.candidate[i], gain, table.others[i])
        yield topic, float(found[0]), found[1:] if len(holes) else np.full(number, found[0])


def _drawn(probs: Floats, odds: Floats, rng: np.random.Generator) -> Ints:
    """A grade's place in the scale for each draw and document (draws, documents); `odds` (same shape) favour
    each grade over the one below."""
    reached, factor = [probs[:, 0] * np.ones_like(odds)], odds
    for place in range(1, probs.shape[1]):
        reached.append(reached[-1] + probs[:, place] * factor)
        factor = factor * odds
    at = rng.random(odds.shape) * reached[-1]
    return np.asarray(sum((at >= edge).astype(np.int64) for edge in reached[:-1]))


def _difference(spec: Spec, base: Floats, candidate: Floats, gain: Floats, others: Floats) -> Floats:
    """Candidate less base on one topic, for each row of gains."""
    theirs, ours = (_numerator(spec, np.broadcast_to(r, gain.shape), gain)[0] for r in (candidate, base))
    if spec.name == "nDCG":
        every = np.concatenate([gain, np.broadcast_to(others, (len(gain), len(others)))], axis=1)
        best = -np.sort(-every, axis=1)
        return _over(theirs - ours, best @ _discounts(spec, best.shape[1]))
    if spec.name in ("AP", "R"):
        return _over(theirs - ours, gain.sum(axis=1) + others.sum())
    return theirs - ours


def _over(numerator: Floats, denominator: Floats) -> Floats:
    """The quotient; 0 where there is nothing to divide by."""
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0.0)


def _discounts(spec: Spec, number: int) -> Floats:
    """1 / log2(rank + 1) for ranks from 1, 0 from beyond the cutoff."""
    ranks = np.arange(1, number + 1)
    return np.asarray(np.where(ranks <= (spec.cutoff or number), 1.0 / np.log2(ranks + 1.0), 0.0))


def _numerator(spec: Spec, rank: Floats, gain: Floats) -> tuple[Floats, Floats]:
    """What is summed over one run's documents, and its derivative in each gain (exact: it is linear in
    each)."""
    shown = np.isfinite(rank)
    if spec.name in ("AP", "RR", "Success"):
        order = np.argsort(rank, axis=1, kind="stable")
        place, p = np.take_along_axis(rank, order, 1), np.take_along_axis(gain, order, 1)
        p = np.where(np.isfinite(place), p, 0.0)
        total, sorted_slope = _IN_ORDER[spec.name](place, p)
        slope = np.empty_like(sorted_slope)
        np.put_along_axis(slope, order, sorted_slope, 1)
        return total, np.where(shown, slope, 0.0)
    if spec.name == "nDCG":
        weight = 1.0 / np.log2(rank + 1.0)
    elif spec.name == "RBP":
        weight = (1.0 - spec.persistence) * np.power(spec.persistence, rank - 1.0)
    else:
        weight = np.where(shown, 1.0 / (spec.cutoff or 1) if spec.name == "P" else 1.0, 0.0)
    return (weight * gain).sum(axis=1), weight


def _before(values: Floats) -> Floats:
    return np.asarray(np.cumsum(values, axis=1) - values)


def _after(values: Floats) -> Floats:
    return np.asarray(values.sum(axis=1, keepdims=True) - np.cumsum(values, axis=1))


def _ap(rank: Floats, p: Floats) -> tuple[Floats, Floats]:
    before = 1.0 + _before(p)
    return (p * before / rank).sum(axis=1), before / rank + _after(p / rank)


def _rr(rank: Floats, p: Floats) -> tuple[Floats, Floats]:
    none = np.cumprod(1.0 - p, axis=1)
    none = np.concatenate([np.ones((len(p), 1)), none[:, :-1]], axis=1)
    term = none * p / rank
    return term.sum(axis=1), none / rank - _over(_after(term), 1.0 - p)


def _success(_: Floats, p: Floats) -> tuple[Floats, Floats]:
    none = np.prod(1.0 - p, axis=1)
    return 1.0 - none, _over(np.broadcast_to(none[:, None], p.shape), 1.0 - p)


_IN_ORDER = {"AP": _ap, "RR": _rr, "Success": _success}


def _denominators(spec: Spec, table: Tables) -> Floats:
    """What the sum is divided by, for each document and each grade of it: (topics, documents, grades)."""
    if spec.name in ("AP", "R"):
        relevant = table.gain.sum(axis=1) + table.others.sum(axis=1)
        return np.asarray(relevant[:, None, None] - table.gain[..., None] + table.values)
    if spec.name == "nDCG":
        return _ideals(spec, table)
    return np.ones((*table.gain.shape, len(table.values)))


def _ideals(spec: Spec, table: Tables) -> Floats:
    """Ideal DCG with one document's gain exchanged: it moves to its new place, those between move by one."""
    every = np.concatenate([table.gain, table.others], axis=1)
    order = np.argsort(-every, axis=1, kind="stable")
    best = np.take_along_axis(every, order, 1)
    n = best.shape[1]
    discount = _discounts(spec, n + 1)
    ideal = best @ discount[:n]
    at = np.empty_like(order)
    np.put_along_axis(at, order, np.broadcast_to(np.arange(n), order.shape), 1)
    at = at[:, : table.gain.shape[1]]
    zero = np.zeros((len(best), 1))
    earlier = np.concatenate([[0.0], discount[: n - 1]])
    up = np.concatenate([zero, np.cumsum(best * (earlier - discount[:n]), axis=1)], axis=1)
    down = np.concatenate([zero, np.cumsum(best * (discount[1:] - discount[:n]), axis=1)], axis=1)
    out = np.empty((*table.gain.shape, len(table.values)))
    for g, value in enumerate(table.values.tolist()):
        new = (best > value).sum(axis=1)[:, None] - (table.gain > value)
        moved = np.where(
            new > at,
            np.take_along_axis(up, new + 1, 1) - np.take_along_axis(up, at + 1, 1),
            np.take_along_axis(down, at, 1) - np.take_along_axis(down, np.minimum(new, at), 1),
        )
        out[..., g] = ideal[:, None] - table.gain * discount[at] + value * discount[new] + moved
    return out
