"""Seed documents: which documents queries are written from, so that all of a corpus is covered.

Documents are put into clusters by their words (TF-IDF, reduced by a singular value decomposition, then
k-means), and the seeds are taken from all clusters in turn, a large one oftener than a small one but less so
than its size (by the square root), and within a cluster from documents of all lengths.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from harness.arrays import Floats, Ints
from harness.draws import generator
from harness.errors import UsageError
from labelers.distill.config import Kind
from labelers.distill.likeness import normal
from labelers.distill.work import Work

__all__ = ["MOST", "Seed", "Task", "seed_documents", "tasks"]

MOST = 50_000
"""Documents that are looked at; of a larger corpus, so many drawn by chance."""
_STREAM, _KINDS_STREAM = 602, 603
_LEAST_WORDS = 8  # of a document that says enough to ask about
_DIMENSIONS, _CLUSTERS = 64, 200
_CUT = 20_000  # characters of a document that clusters are made of


@dataclass(frozen=True)
class Seed:
    """A document to write queries from; `cluster` is a number from 0."""

    doc_id: str
    text: str
    cluster: int


@dataclass(frozen=True)
class Task:
    """A query to write: of this kind, from this document."""

    seed: Seed
    kind: Kind


def seed_documents(work: Work) -> list[Seed]:
    """The documents in the order in which queries are to be written from them, each once.

    The first n cover the corpus for any n. A document of fewer than 8 words is left out where others have
    more.

    Raises
    ------
    UsageError: no document has a word.
    """
    ids, texts = _documents(work)
    words = np.array([len(normal(text).split()) for text in texts])
    if not len(texts) or not words.any():
        what = f"no document of {work.collection.name} has a word in it, so there is nothing to distil from"
        raise UsageError(what)
    kept = np.flatnonzero(words >= min(_LEAST_WORDS, words.max()))
    texts, ids, words = [texts[i] for i in kept], [ids[i] for i in kept], words[kept]
    cluster = _clusters([text[:_CUT] for text in texts], work.seed)
    return [Seed(ids[i], texts[i], int(cluster[i])) for i in _in_turn(cluster, words)]


def tasks(seeds: Sequence[Seed], kinds: Sequence[Kind], per_document: int, seed: int) -> Iterator[Task]:
    """What is to be written: first one query from each document, then a second of another kind, and so on.

    Each run of as many documents as there are kinds gets every kind once, in an order by chance.
    """
    rng = generator(seed, _KINDS_STREAM)
    blocks = -(-len(seeds) // len(kinds))
    order = np.concatenate([rng.permutation(len(kinds)) for _ in range(max(blocks, 1))])
    for turn in range(min(per_document, len(kinds))):
        for place, one in enumerate(seeds):
            yield Task(one, kinds[(int(order[place]) + turn) % len(kinds)])


def _documents(work: Work) -> tuple[list[str], list[str]]:
    """Ids and texts: of all documents, or of `MOST` of them, in the collection's order."""
    size = work.collection.size
    wanted = None
    if size > MOST:
        wanted = set(generator(work.seed, _STREAM).choice(size, MOST, replace=False).tolist())
    ids: list[str] = []
    texts: list[str] = []
    row = 0
    for batch in work.collection.documents():
        for doc_id, text in batch.iter_rows():
            if wanted is None or row in wanted:
                ids.append(doc_id)
                texts.append(text)
            row += 1
    return ids, texts


def _clusters(texts: Sequence[str], seed: int) -> Ints:
    """The cluster of each text."""
    from sklearn.cluster import KMeans
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.preprocessing import normalize
    from threadpoolctl import threadpool_limits

    number = int(min(_CLUSTERS, max(1, np.sqrt(len(texts)))))
    if number < 2:
        return np.zeros(len(texts), dtype=np.int64)
    common = 0.5 if len(texts) > 20 else 1.0
    rare = 2 if len(texts) > 20 else 1
    try:
        words = TfidfVectorizer(
            sublinear_tf=True, min_df=rare, max_df=common, max_features=20_000, dtype=np.float32
        ).fit_transform(texts)
    except ValueError:  # no word is in two documents: there are no clusters to see
        return np.zeros(len(texts), dtype=np.int64)
    with threadpool_limits(1):  # so that sums come out the same on any machine's number of threads
        size = min(_DIMENSIONS, min(words.shape) - 1)
        if size < 1:
            return np.zeros(len(texts), dtype=np.int64)
        points: Floats = TruncatedSVD(size, random_state=seed % 2**32).fit_transform(words)
        found = KMeans(number, n_init=2, max_iter=50, random_state=seed % 2**32).fit(normalize(points))
    return np.asarray(found.labels_, dtype=np.int64)


def _in_turn(cluster: Ints, words: Ints) -> Ints:
    """Rows in their order: clusters by turns, lengths spread within each."""
    time = np.empty(len(cluster))
    for one in np.unique(cluster):
        rows = np.flatnonzero(cluster == one)
        by_length = rows[np.argsort(words[rows], kind="stable")]
        order = np.argsort(_spread(len(rows)), kind="stable")  # the middle, the quarters, the eighths, …
        time[by_length[order]] = (np.arange(len(rows)) + 0.5) / np.sqrt(len(rows))
    return np.argsort(time, kind="stable")


def _spread(count: int) -> Floats:
    """When each of `count` places in a row has its turn, so that the first turns are far apart."""
    turns = np.empty(count)
    queue, turn = [(0, count)], 0
    while queue:
        wider: list[tuple[int, int]] = []
        for first, last in queue:
            if first >= last:
                continue
            middle = (first + last) // 2
            turns[middle] = turn
            turn += 1
            wider += [(first, middle), (middle + 1, last)]
        queue = wider
    return turns
