"""No pair of a test topic may be learnt from: the check that nothing leaks.

A student that has seen a test topic would pass its acceptance test by memory. `refuse` is called before
anything that is learnt from is written (teach), before anything is learnt (train), and before the student is
tested (accept).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from harness.errors import UsageError
from harness.ledger import text_hash
from labelers.distill.likeness import normal

__all__ = ["HeldOut", "Leak", "Pair", "leaks", "refuse"]

_MOST = 8  # leaks that a message names


class Pair(NamedTuple):
    """What is to be learnt from: `text` is the document's."""

    query_id: str
    query: str
    text: str | None


class Leak(NamedTuple):
    """A pair that belongs to the test: `how` it shows, and which test topic."""

    pair: Pair
    topic: str
    how: str


@dataclass(frozen=True)
class HeldOut:
    """The topics of the test.

    Attributes
    ----------
    queries: query id -> text. same_ids: the ids are those of the training collection, so that an id that is
        the same is the same topic; where the test is another collection, ids may be alike by chance.
    pairs: digest of a judged pair (`pair_hash`) -> its topic.
    """

    queries: Mapping[str, str]
    same_ids: bool
    pairs: Mapping[bytes, str]

    @classmethod
    def of(cls, queries: Mapping[str, str], pairs: Iterable[Pair], *, same_ids: bool) -> HeldOut:
        """The topics, and the pairs judged on them."""
        hashed = {pair_hash(p.query, p.text): p.query_id for p in pairs if p.text}
        return cls(dict(queries), same_ids, hashed)


def pair_hash(query: str, text: str) -> bytes:
    """A digest of a query's words, in any order, with a document's words."""
    words = " ".join(sorted(set(normal(query).split())))
    return text_hash(f"{words}\0{normal(text)}")


def leaks(pairs: Iterable[Pair], held: HeldOut) -> list[Leak]:
    """The pairs that belong to a test topic.

    By the query's id; by its text, whatever its case, accents and punctuation; or by the pair: the words of
    the query in another order, about a document that was judged for the test.
    """
    by_text = {normal(query): topic for topic, query in held.queries.items() if normal(query)}
    found = []
    for pair in pairs:
        if held.same_ids and pair.query_id in held.queries:
            found.append(Leak(pair, pair.query_id, "its id"))
        elif (topic := by_text.get(normal(pair.query))) is not None:
            found.append(Leak(pair, topic, "its text"))
        elif pair.text and (topic := held.pairs.get(pair_hash(pair.query, pair.text))) is not None:
            found.append(Leak(pair, topic, "its words and document"))
    return found


def refuse(pairs: Iterable[Pair], held: HeldOut, where: str) -> None:
    """Raise if a pair belongs to the test.

    Parameters
    ----------
    where: what holds the pairs, for the message.

    Raises
    ------
    UsageError: names the test topics, the queries that leak, and by what each was known.
    """
    found = leaks(pairs, held)
    if not found:
        return
    topics = sorted({leak.topic for leak in found}, key=_natural)
    told = dict.fromkeys(f"{leak.pair.query_id} {leak.pair.query!r} is test topic {leak.topic} by {leak.how}"
                         for leak in found)  # fmt: skip
    more = "" if len(told) <= _MOST else f"\n  and {len(told) - _MOST} more"
    raise UsageError(
        f"{where}: {len(found)} pairs of test topics {', '.join(topics)} are among what is to be learnt "
        "from:\n  "
        + "\n  ".join(list(told)[:_MOST])
        + more
        + "\nIt would be passed by memory, so nothing was written. Next: take these queries out, or out of "
        "the test topics"
    )


def _natural(text: str) -> tuple[tuple[int, str], ...]:
    """t2 before t10."""
    return tuple((int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", text))
