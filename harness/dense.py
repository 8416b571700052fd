"""Exact search among the vectors of a collection's documents, kept on disk in blocks.

The vectors are made once for a corpus and an encoder and kept in the cache, a block at a time, each block
written whole or not at all: a run that was killed goes on where it stopped. A search maps one block after the
other, so memory grows with the number of topics and the depth, not with the corpus.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from harness import labeling
from harness.cache import cache_dir
from harness.trec_bytes import replace_file

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from harness.collection import Collection

__all__ = ["HITS", "VectorIndex"]

HITS: dict[str, pl.DataType] = {"query": pl.Int64(), "doc_id": pl.String(), "score": pl.Float32()}
"""What `search` gives: the row of the query vector, a document, and its cosine with the query."""

_BLOCK = 4096  # documents: 6 MB of 384 dimensions; half a minute's work of a small encoder on two cores
_SPARE = 32  # documents beyond the depth that are scored exactly, so that rounding decides nothing


class VectorIndex:
    """The vectors of a collection's documents by one encoder; made at once, but for what the cache has.

    Parameters
    ----------
    encoder: gives vectors of unit length; a document without text has the zero vector.
    progress: called with the number of documents that have their vector, and of all documents.
    """

    def __init__(
        self,
        collection: Collection,
        encoder: labeling.Encoder,
        progress: labeling.Progress | None = None,
    ) -> None:
        made_of: dict[str, str | int] = {
            "corpus": collection.corpus_hash,
            "encoder": encoder.fingerprint,
            "block": _BLOCK,
        }
        key = hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:32]
        self.folder = cache_dir("vectors") / key
        self.folder.mkdir(exist_ok=True)
        if not (self.folder / "index.json").exists():
            self._build(collection, encoder, made_of, progress)
        self.size: int = json.loads((self.folder / "index.json").read_text())["documents"]

    def _build(
        self,
        collection: Collection,
        encoder: labeling.Encoder,
        made_of: dict[str, str | int],
        progress: labeling.Progress | None,
    ) -> None:
        total, done = collection.size, 0
        for number, documents in enumerate(collection.documents(batch=_BLOCK)):
            vectors, ids = self._block(number)
            if not vectors.exists():
                before = done

                def tell(part: int, _: int | None, before: int = before) -> None:
                    if progress is not None:
                        progress(before + part, total)

                found = labeling.vectors(encoder, documents["text"].to_list(), progress=tell)
                with replace_file(ids) as file:
                    file.write("\n".join(documents["doc_id"]).encode())
                with replace_file(vectors) as file:
                    np.save(file, np.ascontiguousarray(found, dtype=np.float32))
            done += documents.height
        with replace_file(self.folder / "index.json") as file:
            file.write(json.dumps({**made_of, "documents": done}).encode())

    def _block(self, number: int) -> tuple[Path, Path]:
        return self.folder / f"{number:06}.npy", self.folder / f"{number:06}.ids"

    def _blocks(self) -> Iterator[tuple[int, NDArray[np.float32], Path]]:
        """(row of the first document, vectors, file of ids) of every block."""
        for number in range(-(-self.size // _BLOCK)):
            vectors, ids = self._block(number)
            yield number * _BLOCK, np.load(vectors, mmap_mode="r"), ids

    def search(self, queries: NDArray[np.float32], depth: int) -> pl.DataFrame:
        """HITS: at least the `depth` nearest documents of each query vector, or all where there are fewer.

        Parameters
        ----------
        queries: (number of queries, dimension), of unit length.

        The candidates come from a product in float32, whose last bits depend on the machine and its threads.
        A few more than asked for are taken, and their cosines are computed anew in float64, so that scores
        (rounded to float32) and order do not.
        """
        keep = min(depth + _SPARE, self.size)
        rows = np.empty((len(queries), 0), np.int64)
        near = np.empty((len(queries), 0), np.float32)
        for first, vectors, _ in self._blocks():
            near = np.hstack([near, queries @ vectors.T])
            block = np.broadcast_to(np.arange(first, first + len(vectors)), (len(queries), len(vectors)))
            rows = np.hstack([rows, block])
            if near.shape[1] > keep:
                best = np.argpartition(-near, keep - 1, axis=1)[:, :keep]
                near, rows = np.take_along_axis(near, best, 1), np.take_along_axis(rows, best, 1)
        return pl.concat([pl.DataFrame(schema=HITS), *self._exact(queries, rows)])

    def _exact(self, queries: NDArray[np.float32], rows: NDArray[np.int64]) -> Iterator[pl.DataFrame]:
        for first, vectors, ids in self._blocks():
            query, place = np.nonzero((rows >= first) & (rows < first + len(vectors)))
            row = rows[query, place] - first
            cosine = np.empty(len(row), np.float32)
            for start in range(0, len(row), _BLOCK):
                part = slice(start, start + _BLOCK)
                pair = vectors[row[part]].astype(np.float64), queries[query[part]].astype(np.float64)
                cosine[part] = np.einsum("ij,ij->i", *pair)
            names = pl.Series("doc_id", ids.read_text(encoding="utf-8").split("\n"))
            yield pl.DataFrame({"query": query, "doc_id": names[row], "score": cosine}, schema=HITS)
