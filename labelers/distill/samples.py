"""Judged pairs that a student is fitted or tested on, and the check that the test was not learnt."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import polars as pl

from harness.collection import Collection
from harness.errors import UsageError
from harness.frames import PAIRS, QRELS, check
from harness.ledger import text_hash

__all__ = ["Sample", "leaking", "refuse_leaks"]

_KEYS = ["query_id", "doc_id"]
_SHOWN = 8  # leaks that a message names


@dataclass(frozen=True)
class Sample:
    """Judged pairs with their texts.

    Attributes
    ----------
    name: of the collection, for messages. pairs: PAIRS. human: QRELS, the same pairs in the same order, all
        by assessor `human` and on the scale.
    """

    name: str
    pairs: pl.DataFrame
    human: pl.DataFrame

    @classmethod
    def of(cls, name: str, pairs: pl.DataFrame, human: pl.DataFrame, grades: Iterable[int]) -> Sample:
        """The pairs that an assessor graded, sorted.

        Raises
        ------
        SchemaError: a frame is not PAIRS or QRELS. UsageError: nothing is left, or a pair is judged twice.
        """
        check(pairs, PAIRS, "pairs")
        mine = check(human, QRELS, "qrels").filter(
            (pl.col("assessor") == "human") & pl.col("relevance").is_in(list(grades))
        )
        mine = mine.join(pairs.select(_KEYS).unique(), on=_KEYS, how="semi").sort(_KEYS)
        if mine.select(_KEYS).is_duplicated().any():
            twice = mine.filter(mine.select(_KEYS).is_duplicated()).row(0)
            raise UsageError(f"{name}: document {twice[1]!r} of topic {twice[0]!r} is judged more than once")
        if not mine.height:
            raise UsageError(f"{name} has no human judgment of a pair that is on the scale and has a text")
        texts = pairs.select(list(PAIRS)).unique(_KEYS, keep="first", maintain_order=True)
        return cls(name, mine.select(_KEYS).join(texts, on=_KEYS, how="left", maintain_order="left"), mine)

    @classmethod
    def from_collection(
        cls, collection: Collection, topics: Iterable[str] | None = None, qrels: str = "human"
    ) -> Sample:
        """The judged pairs of a collection, of some topics or of all."""
        human = collection.qrels(qrels)
        if topics is not None:
            human = human.filter(pl.col("query_id").is_in(list(topics)))
        pairs = collection.pairs(human.select(_KEYS))
        return cls.of(collection.name, pairs, human, collection.grades)

    @property
    def topics(self) -> dict[str, str]:
        """Query id -> text."""
        return dict(
            self.pairs.select("query_id", pl.col("query").fill_null("")).unique().sort("query_id").rows()
        )

    @property
    def digest(self) -> str:
        """sha256 of ids, texts and grades."""
        rows = self.pairs.with_columns(self.human["relevance"]).iter_rows()
        return sha256("\n".join("\t".join(map(str, row)) for row in rows).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """What a file may say of it: counts and a digest, no text."""
        counts = dict(self.human["relevance"].value_counts().sort("relevance").iter_rows())
        return {
            "collection": self.name,
            "topics": self.human["query_id"].n_unique(),
            "pairs": self.human.height,
            "grades": {str(grade): n for grade, n in counts.items()},
            "sha256": self.digest,
        }


def leaking(
    learnt: Iterable[Mapping[str, Any]], test: Sample, *, same_ids: bool = True
) -> list[tuple[str, str]]:
    """Rows that belong to a test topic: (test topic, by what each is known).

    Parameters
    ----------
    learnt: rows with `query_id`, `query` and `text`.
    same_ids: query ids of both are of one collection, so that equal ids are the same topic.
    """
    topics = test.topics
    by_text = {words: topic for topic, query in topics.items() if (words := _normal(query))}
    pairs = {
        _pair(query, text): topic
        for topic, query, text in test.pairs.select("query_id", "query", "text").iter_rows()
        if query and text
    }
    found = []
    for row in learnt:
        query, text = row.get("query") or "", row.get("text") or ""
        if same_ids and row["query_id"] in topics:
            found.append((row["query_id"], f"the id of row {row['query_id']!r}"))
        elif (topic := by_text.get(_normal(query))) is not None:
            found.append((topic, f"the query {query!r}"))
        elif text and (topic := pairs.get(_pair(query, text))) is not None:
            found.append((topic, f"the words of {query!r} and its document"))
    return found


def refuse_leaks(learnt: Iterable[Mapping[str, Any]], test: Sample, *, same_ids: bool = True) -> None:
    """Raise if something that was learnt from belongs to a test topic.

    Raises
    ------
    UsageError: names the topics, and by what each was known.
    """
    found = leaking(learnt, test, same_ids=same_ids)
    if not found:
        return
    told = list(dict.fromkeys(f"test topic {topic}, by {how}" for topic, how in found))
    more = f"\n  and {len(told) - _SHOWN} more" if len(told) > _SHOWN else ""
    raise UsageError(
        f"{len(found)} of the rows that the student learnt from belong to the test:\n  "
        + "\n  ".join(told[:_SHOWN])
        + more
        + "\nIt would pass by memory. Next: take these topics out of the test, or train again without them"
    )


def _normal(text: str) -> str:
    """A query's words: without case, accents and punctuation."""
    plain = unicodedata.normalize("NFKD", text)
    plain = "".join(c for c in plain if not unicodedata.combining(c)).casefold()
    return " ".join(re.findall(r"\w+", plain))


def _pair(query: str, text: str) -> bytes:
    """A digest of the words of a query, in any order, with those of a document."""
    return text_hash(f"{' '.join(sorted(set(_normal(query).split())))}\0{_normal(text)}")
