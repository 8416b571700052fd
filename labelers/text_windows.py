"""Texts cut into overlapping windows of wordpieces, and windows put together into batches of one length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["batches", "pieces", "window_spans"]


def window_spans(pieces: int, size: int, overlap: int) -> list[tuple[int, int]]:
    """Where the windows over a text of `pieces` wordpieces begin and end.

    All windows of a long text are `size` long and evenly spread, neighbours sharing at least `overlap`
    pieces; a text that fits has one window, as long as the text (an empty one has one empty window).
    """
    if pieces <= size:
        return [(0, pieces)]
    count = -(-(pieces - size) // (size - overlap)) + 1
    return [
        (start, start + size) for start in (round(i * (pieces - size) / (count - 1)) for i in range(count))
    ]


def batches(lengths: NDArray[np.int64], tokens: int) -> Iterator[NDArray[np.int64]]:
    """Rows of `lengths` in groups of one length, each of at most `tokens` tokens (but at least one row).

    Groups of one length need no padding and no mask, so that what is computed for a row does not depend on
    which others are with it.
    """
    order = np.argsort(-lengths, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(lengths[order]) != 0])
    for group in np.split(order, starts[1:]) if len(order) else []:
        rows = max(1, tokens // max(1, int(lengths[group[0]])))
        for start in range(0, len(group), rows):
            yield group[start : start + rows]


def pieces(tokenizer: Any, texts: Sequence[str]) -> list[NDArray[np.int32]]:
    """The wordpiece ids of texts, without the special ones."""
    return [
        np.array(e.ids, dtype=np.int32) for e in tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    ]
