"""What a student learns from: the taught pairs, the topics kept for the dev split, weights and batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import polars as pl

from harness.draws import generator
from harness.errors import UsageError
from labelers.distill.likeness import normal

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

__all__ = [
    "Taught",
    "as_taught",
    "batches",
    "grade_weights",
    "refuse_shared",
    "split_dev",
    "wrong_target",
]

_SPLIT_STREAM, _ORDER_STREAM = 611, 612
_TOLERANCE = 1e-3  # how far a distribution's sum may be from 1
_POOL = 32  # batches whose pairs are sorted by length together
_SAME = 1e-3  # expected grades that differ by less are one


class Taught(NamedTuple):
    """A pair and what the teachers say of it.

    Attributes
    ----------
    probs: over the grades, ascending. weight: what it counts, > 0. source: `human` or `synthetic`.
    """

    query_id: str
    doc_id: str
    query: str
    text: str
    probs: tuple[float, ...]
    weight: float
    source: str


def as_taught(pairs: pl.DataFrame, grades: Sequence[int]) -> list[Taught]:
    """The pairs that `labelers.distill.teach.training_pairs` gives.

    Raises
    ------
    UsageError: there is none; or all have the same expected grade, so that there is nothing to tell apart.
    """
    columns = ["query_id", "doc_id", "query", "text", "probs", "weight", "source"]
    taught = [
        Taught(query_id, doc_id, query, text, tuple(p / sum(probs) for p in probs), float(weight), source)
        for query_id, doc_id, query, text, probs, weight, source in pairs.select(columns).iter_rows()
    ]
    if not taught:
        raise UsageError(
            "no taught pair has a grade to learn from.\n"
            "Next: stopgap distill CONFIG teach, with a teacher that answers"
        )
    known = np.array([t.probs for t in taught]) @ np.array(grades, dtype=np.float64)
    if np.ptp(known) < _SAME:
        raise UsageError(
            f"all {len(taught)} taught pairs have the expected grade {known[0]:.2f}: there is nothing to "
            "tell apart.\nNext: other teachers, or pairs of more kinds"
        )
    return taught


def wrong_target(probs: Sequence[object], weight: float, grades: Sequence[int]) -> str:
    """What is wrong with a distribution over the grades or with its weight, or nothing."""
    numbers = [p for p in probs if isinstance(p, int | float) and not isinstance(p, bool)]
    if len(numbers) != len(probs) or not all(np.isfinite(numbers)) or min(numbers, default=-1) < 0:
        return "probs are not numbers from 0 to 1"
    if len(probs) != len(grades):
        return f"probs has {len(probs)} numbers, and there are {len(grades)} grades"
    if abs(sum(numbers) - 1) > _TOLERANCE:
        return f"probs sum to {sum(numbers):.4g}, not 1"
    if not (np.isfinite(weight) and weight > 0):
        return f"weight is {weight}, not above 0"
    return ""


# -- the split -----------------------------------------------------------------------------------------------


def split_dev(taught: Sequence[Taught], share: float, seed: int) -> tuple[list[Taught], list[Taught]]:
    """Pairs to train on, and those of the dev topics.

    Topics that share a query id, or whose queries read the same but for case, accents and punctuation, stay
    together. So many of the topics with human judgments as of the others are for dev, at least one in all.

    Raises
    ------
    UsageError: there is one topic only, so that none can be kept.
    """
    if share == 0:
        return list(taught), []
    topic = _topics(taught)
    human = {topic[t.query_id] for t in taught if t.source == "human"}
    kinds = [sorted(human), sorted(set(topic.values()) - human)]
    if sum(map(len, kinds)) < 2:
        raise UsageError(
            f"the taught pairs are of one topic ({taught[0].query!r}): none is left to tell when to stop.\n"
            "Next: more queries, or dev_share = 0 under [train]"
        )
    rng = generator(seed, _SPLIT_STREAM)
    drawn = [[kind[place] for place in rng.permutation(len(kind))] for kind in kinds]
    dev = {name for kind in drawn for name in kind[: round(share * len(kind))]}
    largest = max(drawn, key=len)
    if not dev:
        dev = {largest[0]}
    if len(dev) == sum(map(len, kinds)):
        dev -= {largest[-1]}
    kept = [t for t in taught if topic[t.query_id] not in dev]
    return kept, [t for t in taught if topic[t.query_id] in dev]


def _topics(taught: Sequence[Taught]) -> dict[str, str]:
    """Query id -> the name of its topic: the least id of all that go together."""
    leader: dict[str, str] = {}

    def find(name: str) -> str:
        while leader.setdefault(name, name) != name:
            name = leader[name]
        return name

    for one in taught:
        # An id and a text are names of different kinds, told apart by what no file of lines has in an id.
        pair = sorted((find(f"id\n{one.query_id}"), find(f"text\n{normal(one.query) or one.query_id}")))
        leader[pair[1]] = pair[0]
    return {one.query_id: find(f"id\n{one.query_id}") for one in taught}


def refuse_shared(train: Sequence[Taught], dev: Sequence[Taught]) -> None:
    """Raise if a topic is on both sides, by its id or by its text.

    Raises
    ------
    UsageError: names the topics.
    """
    ids, texts = {t.query_id for t in train}, {normal(t.query) for t in train}
    shared = sorted({(t.query_id, t.query) for t in dev if t.query_id in ids or normal(t.query) in texts})
    if shared:
        named = ", ".join(f"{query_id} {query!r}" for query_id, query in shared[:5])
        raise UsageError(
            f"{len(shared)} topics are trained on and are to tell when to stop: {named}.\n"
            "Next: split by topic, so that none is on both sides"
        )


# -- weights and batches -------------------------------------------------------------------------------------


def grade_weights(taught: Sequence[Taught], balance: float) -> Floats:
    """A weight for each grade, so that the mean over all pairs is 1.

    A grade's share is the mean of its probability; its weight the inverse of that to the power of `balance`.
    """
    shares = np.average([t.probs for t in taught], axis=0, weights=[t.weight for t in taught])
    raw = np.where(shares > 0, np.maximum(shares, 1e-12), np.inf) ** -balance
    return np.asarray(raw / (raw @ shares), dtype=np.float64)


def batches(
    queries: Sequence[str], lengths: Sequence[int], size: int, *, by_query: bool, key: tuple[int, int, int]
) -> list[list[int]]:
    """Rows, `size` at a time at most, in an order that hangs on `key` only: (seed, phase, epoch).

    Rows of about the same length are in a batch, so that there is little padding; the batches come in any
    order. `by_query`: rows of one query stay together, as many as fit, and make a batch with those of others.
    """
    seed, phase, epoch = key
    rng = generator(seed, (_ORDER_STREAM << 40) + (phase << 32) + epoch)
    order = rng.permutation(len(queries)).tolist()
    made = list(_by_query(order, queries, size) if by_query else _by_length(order, lengths, size))
    return [made[place] for place in rng.permutation(len(made))]


def _by_length(order: list[int], lengths: Sequence[int], size: int) -> Iterator[list[int]]:
    for start in range(0, len(order), _POOL * size):
        pool = sorted(order[start : start + _POOL * size], key=lambda row: lengths[row])
        for first in range(0, len(pool), size):
            yield pool[first : first + size]


def _by_query(order: list[int], queries: Sequence[str], size: int) -> Iterator[list[int]]:
    place = {query: n for n, query in reversed(list(enumerate(queries[row] for row in order)))}
    together = sorted(order, key=lambda row: place[queries[row]])
    batch: list[int] = []
    for _, rows in groupby(together, key=lambda row: queries[row]):
        whole = list(rows)
        for first in range(0, len(whole), size):
            part = whole[first : first + size]
            if len(batch) + len(part) > size:
                yield batch
                batch = []
            batch = batch + part
    if batch:
        yield batch
