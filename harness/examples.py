"""Judged documents that a labeler is shown beside a pair, with their grades.

A labeler with `examples = k` gets, for each pair, up to k judged documents of the pair's own topic: the
nearest of each grade, then the second nearest of each, and so on. A labeler that only saw the k nearest would
see little but grade 0 on most topics, and never where on the scale a better document begins.

Never shown: the pair itself, and documents with its text. So a judged pair, from which the calibrator learns
what a signal is worth, is looked at as if nobody had judged it.

That alone would give its grade away: were the one document of grade 3 the only pair of its topic that is
shown none of grade 3, signals would say so, and the calibrator would learn the opposite of what holds for
unjudged pairs (the leak of leave-one-out target encoding; Prokhorenkova et al., NeurIPS 2018). Therefore all
pairs of a topic are shown equally many of each grade, and of each grade one less than there are, at most.

Nearness is the cosine of TF-IDF vectors of words (Salton and Buckley 1988; weights from the topic's judged
documents). It needs no model and is the same on every machine; vectors of an encoder would tie what one
labeler is shown, and with it the key of its signals, to another labeler that may not be installed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import polars as pl

from harness.arrays import Floats
from harness.collection import Collection
from harness.frames import EXAMPLES, PAIRS, QRELS, check
from harness.protocol import Labeler, shots

__all__ = ["Examples", "example_batches"]

_WORD = re.compile(r"\w+")
_JUDGED = {"doc_id": pl.String(), "text": pl.String(), "grade": pl.Int16()}


class Examples:
    """What of a topic's judgments is shown beside its pairs.

    Parameters
    ----------
    collection: where the texts of the judged documents are. judged: QRELS; only assessors' rows count, and of
        these only those whose grade is on the collection's scale and whose document has a text.
    count: examples for a pair, at most; at least 1.
    """

    def __init__(self, collection: Collection, judged: pl.DataFrame, count: int) -> None:
        known = check(judged, QRELS, "qrels").filter(
            (pl.col("assessor") == "human") & pl.col("relevance").is_in(sorted(collection.grades))
        )
        self._known = known.partition_by("query_id", as_dict=True)
        self._collection, self._count = collection, count
        self._topics: dict[str, _Topic] = {}

    def attach(self, pairs: pl.DataFrame) -> pl.DataFrame:
        """PAIRS with a column `examples`: list of struct(text, grade), by grade and then by id; may be empty.

        The same pair has the same examples whatever stands beside it in the frame.
        """
        pairs = check(pairs, PAIRS, "pairs")
        topics = pairs["query_id"].unique(maintain_order=True).to_list()
        # Pairs come sorted by topic as a rule, so those of the last frame are all that may come again.
        self._topics = {q: self._topics.get(q) or self._topic(q) for q in topics}
        shown: list[list[dict[str, Any]]] = [[]] * pairs.height
        numbered = pairs.with_row_index("row").filter(pl.col("text").is_not_null())
        for (query_id,), part in numbered.group_by("query_id", maintain_order=True):
            topic = self._topics[str(query_id)]
            told = topic.nearest(part["doc_id"].to_list(), part["text"].to_list(), self._count)
            for row, examples in zip(part["row"], told, strict=True):
                shown[row] = examples
        return pairs.with_columns(pl.Series("examples", shown, dtype=EXAMPLES))

    def _topic(self, query_id: str) -> _Topic:
        known = self._known.get((query_id,))
        if known is None:
            return _Topic(pl.DataFrame(schema=_JUDGED))
        texts = self._collection.texts(known["doc_id"])
        read = known.select("doc_id", grade="relevance").join(texts, on="doc_id", how="left")
        return _Topic(read.filter(pl.col("text").str.strip_chars() != "").sort("doc_id"))


def example_batches(
    labeler: Labeler, batches: Iterator[pl.DataFrame], collection: Collection, judged: pl.DataFrame
) -> Iterator[pl.DataFrame]:
    """PAIRS frames as this labeler wants them: with examples from the judgments, or as they are."""
    count = shots(labeler)
    return map(Examples(collection, judged, count).attach, batches) if count else batches


class _Topic:
    """The judged documents of one topic: doc_id, text, grade, sorted by doc_id; the first of each text."""

    def __init__(self, judged: pl.DataFrame) -> None:
        same = [_normal(text) for text in judged["text"]]
        judged = judged[[row for row, text in enumerate(same) if text not in same[:row]]]
        self.ids, self.grades = judged["doc_id"].to_list(), judged["grade"].to_list()
        self.texts = judged["text"].to_list()
        self.same = list(dict.fromkeys(same))
        self._vectorizer: Any = None
        if any(_words(text) for text in self.texts):
            from sklearn.feature_extraction.text import TfidfVectorizer

            self._vectorizer = TfidfVectorizer(analyzer=_words)
            self._vectors = self._vectorizer.fit_transform(self.texts)

    def nearest(self, ids: list[str], texts: list[str], count: int) -> list[list[dict[str, Any]]]:
        """Examples for these documents of the topic."""
        if not self.ids:
            return [[] for _ in ids]
        near, quotas = self._similarity(texts), self._quotas(count)
        return [
            self._chosen(doc_id, _normal(text), row, quotas)
            for doc_id, text, row in zip(ids, texts, near, strict=True)
        ]

    def _similarity(self, texts: list[str]) -> Floats:
        """Cosine of each text with each judged document: (texts, judged), from 0 to 1."""
        if self._vectorizer is None:
            return np.zeros((len(texts), len(self.ids)))
        found = (self._vectorizer.transform(texts) @ self._vectors.T).toarray()
        # Equal texts under two ids must tie, whatever the last bits of their sums are.
        return np.asarray(found.round(9))

    def _chosen(self, doc_id: str, text: str, near: Floats, quotas: dict[int, int]) -> list[dict[str, Any]]:
        left, places = dict(quotas), []
        for place in np.argsort(-near, kind="stable"):  # ids ascend, so the first of equals has the lower id
            if self.ids[place] != doc_id and self.same[place] != text and left[self.grades[place]]:
                left[self.grades[place]] -= 1
                places.append(int(place))
        places.sort(key=lambda place: (self.grades[place], place))
        return [{"text": self.texts[place], "grade": self.grades[place]} for place in places]

    def _quotas(self, count: int) -> dict[int, int]:
        """How many of each grade every pair of the topic is shown: one less than there are, at most.

        So a pair that is itself one of them is shown as many as any other pair.
        """
        spare = {grade: self.grades.count(grade) - 1 for grade in sorted(set(self.grades))}
        quotas, order, grades = dict.fromkeys(spare, 0), [], list(spare)
        while grades:  # from both ends of the scale inwards
            order.append(grades.pop())
            order += [grades.pop(0)] if grades else []
        while sum(quotas.values()) < min(count, sum(spare.values())):
            for grade in order:
                if quotas[grade] < spare[grade] and sum(quotas.values()) < count:
                    quotas[grade] += 1
        return quotas


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


def _normal(text: str) -> str:
    """The text but for blanks: what is the same to a reader."""
    return " ".join(text.split())
