"""Where the rows of a table lie in its Parquet files: 16 bytes of memory a row, and no search in files.

A row is known by its key, 64 bits of its hashes. The same key does not prove the same hashes: who reads a row
compares them in full.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Places", "row_keys"]

_GAP = 2048  # rows: two rows of a file that are nearer than this are read in one go


class Places:
    """Which keys are stored, and the place of each one's row: file number * 2**32 + row in that file.

    The keys lie in sorted runs, each more than twice as long as the next, so that adding n keys costs n log n
    in all. Files are never removed here: a file that compaction has replaced is still there to be read.
    """

    def __init__(self) -> None:
        self._files: dict[str, int] = {}
        self._runs: list[tuple[NDArray[np.uint64], NDArray[np.int64]]] = []

    def take_in(self, files: Sequence[str]) -> None:
        """Take in the keys of those files that are new here."""
        keys, places, times = [], [], []
        for file in files:
            if file not in self._files:
                number = self._files[file] = len(self._files)
                rows = _parquet(file).select("key", pl.col("time").cast(pl.Int64)).collect()
                keys.append(rows["key"].to_numpy().view(np.uint64))
                times.append(rows["time"].to_numpy())
                places.append(np.arange(rows.height, dtype=np.int64) + (number << 32))
        if not keys:
            return
        key, place, when = np.concatenate(keys), np.concatenate(places), np.concatenate(times)
        order = np.lexsort((place, when, key))
        key, place = key[order], place[order]
        new = np.flatnonzero(np.r_[True, key[1:] != key[:-1]] & (self.places(key) < 0))
        self._runs.append((key[new], place[new]))
        while len(self._runs) > 1 and self._runs[-2][0].size < 2 * self._runs[-1][0].size:
            (a, at_a), (b, at_b) = self._runs[-2:]
            key, place = np.concatenate([a, b]), np.concatenate([at_a, at_b])
            order = np.argsort(key, kind="stable")
            self._runs[-2:] = [(key[order], place[order])]

    def places(self, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
        """The place of each key, -1 where it is not known."""
        places = np.full(keys.size, -1, dtype=np.int64)
        for known, where in self._runs:
            if known.size:
                at = np.minimum(np.searchsorted(known, keys), known.size - 1)
                places = np.where((places < 0) & (known[at] == keys), where[at], places)
        return places

    def read(
        self, places: NDArray[np.int64], columns: list[str], schema: dict[str, pl.DataType]
    ) -> pl.DataFrame:
        """The rows at `places`, in that order. Only the stretches of the files around them are read."""
        parts = [pl.DataFrame(schema={c: schema[c] for c in columns})]
        order = np.argsort(places)
        files = list(self._files)
        for stretch in _stretches(places[order]):
            first, last = int(stretch[0]), int(stretch[-1])
            rows = _parquet(files[first >> 32]).slice(first & 0xFFFFFFFF, last - first + 1)
            parts.append(rows.select(columns).collect()[stretch - first])
        return pl.concat(parts)[np.argsort(order)]


def _stretches(places: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Sorted places cut wherever the next one is in another file or far away."""
    if places.size:
        yield from np.split(places, np.flatnonzero(np.diff(places) > _GAP) + 1)


def _parquet(file: str) -> pl.LazyFrame:
    # The partition's folder name may hold characters that a glob would read as a pattern.
    return pl.scan_parquet(file, glob=False, hive_partitioning=False)


def row_keys(hashes: Sequence[pl.Series]) -> NDArray[np.uint64]:
    """64 bits of each row's hashes, mixed so that a text asked about itself does not make every key alike."""
    words = [np.frombuffer(b"".join(h.to_list()), dtype="<u8").reshape(-1, 4)[:, 0] for h in hashes]
    keys = words[0].astype(np.uint64)
    for word in words[1:]:
        keys = keys * np.uint64(0x9E3779B97F4A7C15) + word  # wraps around: arithmetic modulo 2**64
    return keys
