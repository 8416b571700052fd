"""The greatest delta of average precision that relevant holes can give a topic.

AP's numerator is quadratic in the holes: each relevant one adds its precision as the judged documents make
it, and each pair of them 1 / (the lower one's rank), the candidate's less the base's. The denominator is the
number of relevant documents. To find the best set of holes is hard in general, so there are three ways:

* with a handful of holes, every set is tried;
* up to 300, a bound on what m holes can give, each credited with half of what its best m - 1 partners add,
  and a set found from it by exchanging single holes; holes that no better set can have, or lack, are decided,
  and so on until the set meets the bound or a handful is left. Where nothing more can be decided, every set
  is tried if at most 12 holes are left, and else the bound is the answer;
* beyond, a bound by counting: as many of the other m - 1 as can stand above a hole in the candidate do, and
  as few as must in the base.
"""

from __future__ import annotations

import numpy as np

from harness.arrays import Bools, Floats, Ints, running_sum
from harness.bounds_field import Field

__all__ = ["ENUMERATED", "ap", "ap_curve", "ap_slope"]

ENUMERATED = 12
"""Holes of a topic up to which every set of relevant ones can be tried."""
_HANDFUL = 5  # holes up to which that is the quickest way
_PAIRED = 300  # holes up to which all pairs are looked at
_STEPS = 64  # numbers of relevant holes looked at singly or in stretches, beyond that
_TINY = 1e-12  # differences below this are rounding
_NOTHING = -np.inf


def ap(field: Field, rel: int) -> tuple[Floats, Bools]:
    """Greatest delta of each topic, and whether some grades attain it or none exceeds it."""
    theirs, ours = (_one_run(field, rank, field.relevant(rel)) for rank in (field.candidate, field.base))
    start, added, total = theirs[0] - ours[0], theirs[1] - ours[1], field.human_relevant(rel)
    found, exact = start / np.maximum(total, 1.0), np.ones(field.topics, dtype=np.bool_)
    members, ends = _members(field)
    for topic in np.flatnonzero(np.diff(ends)):
        at = members[ends[topic] : ends[topic + 1]]
        if len(at) <= _PAIRED:
            found[topic], exact[topic] = _best(start[topic], added[at], _pairs(field, at), total[topic])
        else:
            counted = _counted(field, at, start[topic], theirs, ours, total[topic])
            found[topic], exact[topic] = counted, False
    return found, exact


def ap_curve(field: Field, rel: int) -> Floats:
    """Greatest delta with at most 0, 1, 2, ... relevant holes, topics x numbers.

    For topics with few holes: every set is tried.
    """
    theirs, ours = (_one_run(field, rank, field.relevant(rel)) for rank in (field.candidate, field.base))
    start, added, total = theirs[0] - ours[0], theirs[1] - ours[1], field.human_relevant(rel)
    members, ends = _members(field)
    width = int(np.diff(ends).max(initial=0)) + 1
    best: Floats = np.repeat((start / np.maximum(total, 1.0))[:, None], width, axis=1)
    for topic in np.flatnonzero(np.diff(ends)):
        at = members[ends[topic] : ends[topic + 1]]
        values = _every_set(start[topic], added[at], _pairs(field, at), total[topic])
        best[topic] = np.append(values, np.full(width - len(values), values[-1]))
    return best


def ap_slope(field: Field, relevant: Floats) -> Floats:
    """What each document's relevance adds to delta's numerator while all others stay at `relevant`."""
    ours, theirs = (_one_run(field, rank, relevant)[1] for rank in (field.base, field.candidate))
    return theirs - ours


def _members(field: Field) -> tuple[Ints, Ints]:
    """The holes, and where each topic's begin among them."""
    return np.flatnonzero(field.hole), np.append(0, np.cumsum(field.holes()))


def _one_run(field: Field, rank: Floats, relevant: Floats) -> tuple[Floats, Floats, Floats]:
    """One run's part.

    Each topic's sum of precisions as `relevant` has it, what each document adds to that if it is relevant,
    and how many holes stand above it.
    """
    order = np.lexsort((rank, field.topic))
    order = order[np.isfinite(rank[order])]
    topic, x, r = field.topic[order], relevant[order], rank[order]
    above = running_sum(topic, x)
    fixed = np.bincount(topic, x * (1.0 + above) / r, field.topics).astype(np.float64)
    below = np.bincount(topic, x / r, field.topics)[topic] - running_sum(topic, x / r) - x / r
    added, holes = np.zeros(len(rank)), np.zeros(len(rank))
    added[order] = (1.0 + above) / r + below
    holes[order] = running_sum(topic, field.hole[order].astype(np.float64))
    return fixed, added, holes


def _pairs(field: Field, at: Ints) -> Floats:
    """What each pair of relevant holes adds; 0 on the diagonal."""
    theirs, ours = field.candidate[at], field.base[at]
    pairs = 1.0 / np.maximum(theirs[:, None], theirs) - 1.0 / np.maximum(ours[:, None], ours)
    np.fill_diagonal(pairs, 0.0)
    added: Floats = pairs
    return added


def _every_set(start: float, added: Floats, pairs: Floats, total: float) -> Floats:
    """The greatest delta with at most 0, 1, 2, ... of the holes relevant."""
    count = len(added)
    sets = (np.arange(1 << count)[:, None] >> np.arange(count) & 1).astype(np.float64)
    size = sets.sum(axis=1)
    value = start + sets @ added + ((sets @ np.triu(pairs)) * sets).sum(axis=1)
    value = np.divide(value, total + size, out=np.zeros_like(value), where=total + size > 0)
    best = np.full(count + 1, _NOTHING)
    np.maximum.at(best, size.astype(np.int64), value)
    running: Floats = np.maximum.accumulate(best)
    return running


def _best(start: float, added: Floats, pairs: Floats, total: float) -> tuple[float, bool]:
    """The greatest delta and True, or what it does not exceed and False."""
    reached = _NOTHING
    while len(added) > _HANDFUL:
        bound, inside, outside, chosen = _paired(start, added, pairs, total)
        reached = max(reached, _climbed(start, added, pairs, total, chosen))
        if bound <= reached + _TINY:
            return reached, True
        without, having = inside <= reached, outside <= reached  # no better set has these, or lacks those
        rest = ~without & ~having
        if rest.all() and len(added) > ENUMERATED:
            return bound, False
        if rest.all():
            break
        start += added[having].sum() + pairs[np.ix_(having, having)].sum() / 2.0
        added = added[rest] + pairs[np.ix_(rest, having)].sum(axis=1)
        total += having.sum()
        pairs = pairs[np.ix_(rest, rest)]
    return max(reached, float(_every_set(start, added, pairs, total)[-1])), True


def _paired(start: float, added: Floats, pairs: Floats, total: float) -> tuple[float, Floats, Floats, Bools]:
    """What no set exceeds; what none with a hole does, and none without it, by hole; and a good set."""
    count = len(added)
    others = np.sort(pairs + np.diag(np.full(count, _NOTHING)), axis=1)[:, :0:-1]  # the best partner first
    partners = np.concatenate([np.zeros((count, 1)), np.cumsum(others, axis=1)], axis=1)
    worth = added[:, None] + partners / 2.0  # of each hole, if 1, 2, ... are relevant
    order = -np.sort(-worth, axis=0)
    m = np.arange(1, count + 1)
    sums = start + np.cumsum(order, axis=0)[m - 1, m - 1]
    last = order[m - 1, m - 1]
    following = np.append(order[m[:-1], m[:-1] - 1], _NOTHING)  # with all relevant there is no other to take
    none = start / total if total else 0.0
    bound = sums / (total + m)
    inside = ((sums - np.maximum(0.0, last - worth)) / (total + m)).max(axis=1)
    outside = ((sums - np.maximum(0.0, worth - following)) / (total + m)).max(axis=1)
    best = int(bound.argmax())
    chosen = worth[:, best] >= last[best] if bound[best] > none else np.zeros(count, dtype=np.bool_)
    return max(none, float(bound[best])), inside, np.maximum(outside, none), chosen


def _climbed(start: float, added: Floats, pairs: Floats, total: float, chosen: Bools) -> float:
    """What the set gives once no single hole, put in or taken out, makes it better."""
    x = chosen.astype(np.float64)
    change = added + pairs @ x
    above, below = start + float(x @ (added + change)) / 2.0, total + x.sum()
    while True:
        value = above / below if below > 0 else 0.0
        step = 1.0 - 2.0 * x
        after = np.where(below + step > 0, (above + step * change) / np.maximum(below + step, 1.0), 0.0)
        i = int(after.argmax())
        if after[i] <= value + _TINY:
            return value
        above, below, x[i] = above + step[i] * change[i], below + step[i], x[i] + step[i]
        change = change + step[i] * pairs[:, i]


def _counted(
    field: Field,
    at: Ints,
    start: float,
    theirs: tuple[Floats, Floats, Floats],
    ours: tuple[Floats, Floats, Floats],
    total: float,
) -> float:
    """What delta never exceeds, from how many holes stand above each one."""
    count = len(at)
    edges = np.unique(np.linspace(1, count + 1, min(count, _STEPS) + 1).astype(np.int64))
    first, last = edges[:-1, None], edges[1:, None] - 1  # stretches of m, both ends included
    gained = np.minimum(last - 1, theirs[2][at]) / field.candidate[at]
    lost = np.maximum(0, first - 1 - (count - 1 - ours[2][at])) / field.base[at]
    worth = -np.sort(-(theirs[1][at] - ours[1][at] + gained - lost), axis=1)
    sums = start + np.cumsum(worth, axis=1)
    m = np.arange(1, count + 1)
    value = np.where((m >= first) & (m <= last), sums / (total + m), _NOTHING)
    return float(min(1.0, max(start / total if total else 0.0, value.max())))
