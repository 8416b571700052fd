"""The texts of judged pairs, and what of them is measured: words, and how much of the query stands there."""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass

import numpy as np

from harness.agree_pairs import Judged
from harness.arrays import Floats
from harness.collection import Collection
from harness.errors import UsageError

__all__ = ["Texts", "read_texts", "tokens"]

_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Texts:
    """Of each row of a `Judged`: the document's text and two measurements, NaN without a text or query.

    `text`: None where the collection has none. `words`: its number of words. `overlap`: how much of the query
    stands in it, 0 to 1. `missing`: rows without a text or without a query.
    """

    text: list[str | None]
    words: Floats
    overlap: Floats
    missing: int


def tokens(text: str) -> list[str]:
    """The words of a text: letters, digits and underscores, case folded."""
    return _WORD.findall(text.casefold())


def read_texts(of: Judged, collection: Collection) -> Texts:
    """Look up and measure the texts of judged pairs.

    The overlap is the share of the query's words that stand in the document, a word weighing as much as it
    says: log(N / n) of the N judged documents and the n that have it (Sparck Jones 1972), so that stop words
    of any language count for little.

    Raises
    ------
    UsageError: the collection has the text and the query of none of the pairs.
    """
    if not collection.has_text:
        raise UsageError(
            f"{collection.name} has no documents. Next: --collection with one that has their texts"
        )
    pairs = collection.pairs(of.frame.select("query_id", "doc_id"))
    text, query = pairs["text"].to_list(), pairs["query"].to_list()
    if all(t is None or q is None for t, q in zip(text, query, strict=True)):
        raise UsageError(
            f"{collection.name} has neither topic {of.frame['query_id'][0]!r} nor document"
            f" {of.frame['doc_id'][0]!r}, nor any other of the {of.frame.height} judged pairs. Ids are text,"
            " so 007 is not 7. Next: name the collection that was judged"
        )
    split = {t: tokens(t) for t in set(text) if t is not None}
    sets = {t: set(found) for t, found in split.items()}
    asked = {q: sorted(set(tokens(q))) for q in set(query) if q is not None}
    having = Counter(word for found in sets.values() for word in found)
    weight = {w: math.log((len(sets) + 1) / (having[w] + 0.5)) for words in asked.values() for w in words}
    words, overlap = np.full(len(text), np.nan), np.full(len(text), np.nan)
    for row, (t, q) in enumerate(zip(text, query, strict=True)):
        if t is None or q is None:
            continue
        words[row] = len(split[t])
        whole = sum(weight[w] for w in asked[q])
        if whole > 0:
            overlap[row] = sum(weight[w] for w in asked[q] if w in sets[t]) / whole
    return Texts(text, words, overlap, int(np.isnan(words).sum()))
