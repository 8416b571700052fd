"""Judged pairs that a student is fitted or tested on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import polars as pl

from harness.errors import UsageError
from harness.frames import PAIRS, QRELS, check
from labelers.distill.leaks import Pair

__all__ = ["Sample"]

_KEYS = ["query_id", "doc_id"]


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

    @property
    def topics(self) -> dict[str, str]:
        """Query id -> text."""
        return dict(
            self.pairs.select("query_id", pl.col("query").fill_null("")).unique().sort("query_id").rows()
        )

    def as_pairs(self) -> list[Pair]:
        """The pairs, as `labelers.distill.leaks` looks at them."""
        rows = self.pairs.select("query_id", "query", "text").iter_rows()
        return [Pair(query_id, query or "", text) for query_id, query, text in rows]

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
