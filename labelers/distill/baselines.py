"""What a student has to beat: words that match (BM25), and the commonest grade."""

from __future__ import annotations

import math
import re
from collections import Counter

import numpy as np
import polars as pl

from harness.arrays import Floats
from harness.frames import SIGNALS
from harness.steps import BM25

__all__ = ["bm25", "constant"]

_SIGNALS = list(SIGNALS)


def bm25(pairs: pl.DataFrame) -> pl.DataFrame:
    """SIGNALS of BM25 for PAIRS: the score over the highest that any document could have for the query.

    So scores of short and long queries compare, which one set of thresholds for all topics needs; the order
    within a topic is BM25's (Robertson et al., TREC-3, 1994; the idf is Lucene's, which is never negative).
    Frequencies are those of the distinct documents among the pairs. No pair lacks a score: a query without a
    word, or a document without a text, has 0.
    """
    texts = pairs["text"].fill_null("")
    counts = {text: Counter(_words(text)) for text in texts.unique(maintain_order=True)}
    lengths = {text: sum(found.values()) for text, found in counts.items()}
    mean = max(sum(lengths.values()) / max(len(lengths), 1), 1.0)
    frequency = Counter(word for found in counts.values() for word in found)
    size, k1, b = len(counts), BM25["k1"], BM25["b"]
    idf = {w: math.log(1 + (size - n + 0.5) / (n + 0.5)) for w, n in frequency.items()}
    never = math.log(1 + (size + 0.5) / 0.5)
    queries = {q: sorted(set(_words(q))) for q in pairs["query"].fill_null("").unique(maintain_order=True)}
    scores = []
    for query, text in zip(pairs["query"].fill_null(""), texts, strict=True):
        found, norm = counts[text], k1 * (1 - b + b * lengths[text] / mean)
        words = queries[query]
        total = sum(idf.get(w, never) for w in words)
        got = sum(idf[w] * found[w] / (found[w] + norm) for w in words if w in found)
        scores.append(got / total if total else 0.0)
    return pairs.select(
        "query_id",
        "doc_id",
        pl.lit(None, SIGNALS["probs"]).alias("probs"),
        pl.Series("score", scores, dtype=SIGNALS["score"]),
        pl.lit("bm25").alias("labeler"),
        pl.lit(None, pl.String).alias("reason"),
    ).select(_SIGNALS)


def constant(human: pl.DataFrame, grades: tuple[int, ...]) -> tuple[Floats, int]:
    """How often assessors gave each grade (G,), and the commonest, the lowest of several."""
    counts = np.array([(human["relevance"] == grade).sum() for grade in grades], dtype=float)
    return counts / counts.sum(), grades[int(counts.argmax())]


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())
