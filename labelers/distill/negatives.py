"""The stage `negatives`: which documents each query is paired with, and how each was found.

A synthetic query is paired with its seed document, with hard negatives (documents that BM25 or the encoder
finds for it) and with random ones. Nobody has judged them, so what may well be relevant is left out: a
document whose text is the seed's, whose vector is near the seed's, or that is nearer to the query than the
seed is, by more than a margin. (SSRA, arXiv 2509.16717, masks negatives whose score is above the positive's
+ 0.1.) Hard negatives are drawn one from each of as many bands of ranks as are wanted, the bands growing with
the rank: so there are near misses and farther ones.

The judged pairs of the training topics are added as they are; a test topic's never are.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import pairwise
from typing import Any, cast

import numpy as np
import polars as pl

from harness import labeling
from harness.arrays import Ints
from harness.collection import Collection
from harness.draws import generator
from harness.errors import InputError, StopgapWarning
from harness.frames import TOPICS
from harness.retrieve import retrieve
from labelers.distill.config import NONE, Negatives
from labelers.distill.likeness import normal
from labelers.distill.rows import Row
from labelers.distill.stages import Made, Stage
from labelers.distill.synthesize import QUERIES
from labelers.distill.work import Work

__all__ = ["PAIRS", "Asked", "bands"]

_STREAM = 605
_SHOWN = 90  # characters of a document that stand in the file, for a person
_SPARE = 4  # times as many random documents are drawn as are wanted
_AT_ONCE = 256  # queries whose cosines with all documents are held at a time


class Asked(Collection):
    """A collection with other topics: for pipelines, which take their topics from a collection.

    Parameters
    ----------
    base: whose documents and grades it has. topics: TOPICS.
    """

    def __init__(self, base: Collection, topics: pl.DataFrame) -> None:
        self._base, self._topics, self.name = base, topics, base.name

    @property
    def topics(self) -> pl.DataFrame:
        """The topics it was given."""
        return self._topics

    @property
    def grades(self) -> dict[int, str]:
        """The base's."""
        return self._base.grades

    @property
    def has_text(self) -> bool:
        """The base's."""
        return self._base.has_text

    @property
    def corpus_hash(self) -> str:
        """The base's."""
        return self._base.corpus_hash

    @property
    def size(self) -> int:
        """The base's."""
        return self._base.size

    def qrels_names(self) -> list[str]:
        """None: nobody has judged these topics."""
        return []

    def qrels(self, name: str = "human") -> pl.DataFrame:
        """Raises KeyError: there are none."""
        raise KeyError(name)

    def texts(self, doc_ids: Any) -> pl.DataFrame:
        """The base's."""
        return self._base.texts(doc_ids)

    def documents(self, batch: int = 1000) -> Any:
        """The base's."""
        return self._base.documents(batch)


@dataclass(frozen=True)
class _Found:
    """A document for a query: how it was found, and its rank from 1 (None: it was not searched for)."""

    doc: int
    found: str
    rank: int | None


def _made_of(work: Work) -> dict[str, Any]:
    config = work.config.negatives
    return {
        "settings": config.model_dump(),
        "seed": work.seed,
        "corpus": work.collection.corpus_hash,
        "encoder": work.labeler(config.model).fingerprint if config.model != NONE else None,
        "human": work.made_of_human(),
    }


def _check(work: Work) -> None:
    if work.config.negatives.model != NONE:
        _encoder(work)


def _encoder(work: Work) -> labeling.Encoder:
    name = work.config.negatives.model
    labeler = work.labeler(name)
    if not hasattr(labeler, "embed"):
        what = f"negatives.model {name!r} is no encoder: it gives no vectors of texts"
        raise work.settings.problem("negatives.model", what, 'Next: an encoder such as "minilm", or "none"')
    return cast(labeling.Encoder, labeler)


def _run(work: Work, given: Mapping[str, list[Row]]) -> Made:
    queries = given[QUERIES.name]
    corpus = _Corpus(work)
    corpus.check(queries)
    by_bm25 = _by_bm25(work, queries, corpus)
    rows: list[Row] = []
    left_out: Counter[str] = Counter()
    short: Counter[str] = Counter()
    for start in range(0, len(queries), _AT_ONCE):
        part = queries[start : start + _AT_ONCE]
        cosines = corpus.cosines([row["query"] for row in part])
        for place, row in enumerate(part):
            cosine = None if cosines is None else cosines[place]
            picked = _Picker(work, corpus, row, cosine, left_out)
            found = picked.all(by_bm25.get(row["query_id"], np.empty(0, np.int64)))
            wanted = {k: getattr(work.config.negatives, k) for k in ("bm25", "encoder", "random")}
            got = Counter(one.found for one in found)
            short.update({k: n - got[k] for k, n in wanted.items() if got[k] < n})
            rows += [_row(row["query_id"], row["query"], "synthetic", one, corpus) for one in found]
    synthetic = len(rows)
    rows += _human_rows(work, corpus)
    summary = {
        "pairs": len(rows),
        "synthetic": synthetic,
        "human": len(rows) - synthetic,
        "found": dict(sorted(Counter(row["found"] for row in rows).items())),
        "left out": dict(left_out.most_common()),
        "fewer than asked for": dict(short.most_common()),
        "training topics": len(work.split.train),
        "test topics": len(work.held_out.queries),
    }
    return Made(rows, summary)


class _Corpus:
    """All documents: ids, beginnings, what tells equal texts, and vectors where there is an encoder."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.ids: list[str] = []
        self.shown: list[str] = []
        self.same: list[bytes] = []
        texts: list[str] = []
        for batch in work.collection.documents():
            for doc_id, text in batch.iter_rows():
                self.ids.append(doc_id)
                self.shown.append(_beginning(text))
                self.same.append(sha256(normal(text).encode()).digest()[:16])
                texts.append(text)
        self.row = {doc_id: row for row, doc_id in enumerate(self.ids)}
        self.vectors = None
        if work.config.negatives.model != NONE:
            encoder = _encoder(work)
            self.vectors = labeling.vectors(encoder, texts, ledger=work.ledger, progress=work.progress)

    def check(self, queries: Sequence[Row]) -> None:
        """Raise InputError where a query's document is not in the collection."""
        for number, row in enumerate(queries, 1):
            if row["doc_id"] not in self.row:
                what = f"query {row['query_id']} is of document {row['doc_id']!r}, which the collection lacks"
                raise InputError(self.work.out / QUERIES.file, number, what)

    def cosines(self, queries: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float32]] | None:
        """Cosines (queries, documents), or None without an encoder."""
        if self.vectors is None:
            return None
        from threadpoolctl import threadpool_limits

        asked = labeling.vectors(_encoder(self.work), queries, ledger=self.work.ledger)
        with threadpool_limits(1):
            return np.asarray(asked @ self.vectors.T)


class _Picker:
    """The documents for one query."""

    def __init__(
        self,
        work: Work,
        corpus: _Corpus,
        row: Row,
        cosine: np.ndarray[Any, np.dtype[np.float32]] | None,
        left_out: Counter[str],
    ) -> None:
        self.config: Negatives = work.config.negatives
        self.corpus, self.cosine, self.left_out = corpus, cosine, left_out
        self.seed = corpus.row[row["doc_id"]]
        key = sha256(row["query_id"].encode()).digest()
        self.rng = generator(work.seed ^ int.from_bytes(key[:8]), _STREAM)
        self.taken = {self.seed}
        self.alike = None if corpus.vectors is None else corpus.vectors @ corpus.vectors[self.seed]
        self.suspects: set[int] = set()

    def all(self, by_bm25: Ints) -> list[_Found]:
        """The seed, and what was asked for of each kind."""
        found = [_Found(self.seed, "seed", None)]
        found += self._hard("bm25", by_bm25, self.config.bm25)
        if self.cosine is not None and self.config.encoder:
            depth = min(self.config.depth, len(self.cosine))
            near = np.argpartition(-self.cosine, depth - 1)[:depth]
            order = near[np.lexsort((near, -self.cosine[near]))]
            found += self._hard("encoder", order, self.config.encoder)
        found += self._random()
        return found

    def _hard(self, how: str, ranked: Ints, wanted: int) -> list[_Found]:
        """One document of each band of ranks."""
        kept = [(rank, int(doc)) for rank, doc in enumerate(ranked, 1) if self._fits(int(doc))]
        picked = []
        for first, last in bands(len(kept), wanted):
            rank, doc = kept[int(self.rng.integers(first, last))]
            picked.append(_Found(doc, how, rank))
            self.taken.add(doc)
        return picked

    def _random(self) -> list[_Found]:
        wanted, size = self.config.random, len(self.corpus.ids)
        picked: list[_Found] = []
        for doc in self.rng.choice(size, min(size, _SPARE * wanted + 8), replace=False).tolist():
            if len(picked) < wanted and self._fits(doc):
                picked.append(_Found(doc, "random", None))
                self.taken.add(doc)
        return picked

    def _fits(self, doc: int) -> bool:
        """Whether a document is neither taken nor may well be relevant."""
        if doc in self.taken:
            return False
        why = ""
        if self.corpus.same[doc] == self.corpus.same[self.seed]:
            why = "same text as the seed"
        elif self.alike is not None and self.alike[doc] >= self.config.similar:
            why = "near-duplicate of the seed"
        elif self.cosine is not None and self.cosine[doc] > self.cosine[self.seed] + self.config.margin:
            why = "nearer to the query than the seed"
        if why and doc not in self.suspects:
            self.suspects.add(doc)
            self.left_out[why] += 1
        return not why


def bands(count: int, wanted: int) -> list[tuple[int, int]]:
    """`wanted` bands (first, last) of `count` places, without gaps, each wider than the one before if it can
    be; `count` bands of one place where there are fewer."""
    number = min(count, wanted)
    if not number:
        return []
    edges = [0]
    for i in range(1, number + 1):
        share = (2**i - 1) / (2**number - 1)
        edges.append(min(max(round(share * count), edges[-1] + 1), count - (number - i)))
    return list(pairwise(edges))


def _by_bm25(work: Work, queries: Sequence[Row], corpus: _Corpus) -> dict[str, Ints]:
    """Query id -> rows of the documents that BM25 finds, the best first."""
    if not work.config.negatives.bm25:
        return {}
    topics = pl.DataFrame([(row["query_id"], row["query"]) for row in queries], schema=TOPICS, orient="row")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StopgapWarning)  # a query that finds nothing is counted as one
        run = retrieve(Asked(work.collection, topics), "bm25", work.config.negatives.depth)
    found: dict[str, list[int]] = {}
    for query_id, doc_id in run.sort("query_id", "rank").select("query_id", "doc_id").iter_rows():
        found.setdefault(query_id, []).append(corpus.row[doc_id])
    return {query_id: np.array(docs, dtype=np.int64) for query_id, docs in found.items()}


def _row(
    query_id: str, query: str, source: str, one: _Found, corpus: _Corpus, grade: int | None = None
) -> Row:
    return {
        "query_id": query_id,
        "doc_id": corpus.ids[one.doc],
        "source": source,
        "found": one.found,
        "rank": one.rank,
        "grade": grade,
        "query": query,
        "document": corpus.shown[one.doc],
    }


def _human_rows(work: Work, corpus: _Corpus) -> list[Row]:
    """The judged pairs of the training topics, whose document and query there are."""
    judged = work.judgments(work.split.train).select("query_id", "doc_id", "relevance")
    return [
        _row(q, work.topics[q], "human", _Found(corpus.row[d], "judged", None), corpus, grade)
        for q, d, grade in judged.iter_rows()
        if d in corpus.row and work.topics[q].strip()
    ]


def _beginning(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


_NULL = type(None)
PAIRS = Stage(
    name="negatives",
    file="pairs.jsonl",
    fields={
        "query_id": (str,),
        "doc_id": (str,),
        "source": (str,),
        "found": (str,),
        "rank": (int, _NULL),
        "grade": (int, _NULL),
        "query": (str,),
        "document": (str,),
    },
    key=("query_id", "doc_id"),
    version=1,
    needs=(QUERIES.name,),
    made_of=_made_of,
    run=_run,
    check=_check,
)
