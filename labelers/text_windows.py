"""Texts as wordpieces, cut into overlapping windows, put together into batches of one length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from harness.errors import LabelerError, MissingExtra

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["LONGEST_TOKEN", "Window", "Wordpieces", "batches", "open_tokenizer", "window_spans"]

LONGEST_TOKEN = 64
"""Characters. A text is first cut at so many for each token that is shown: hardly a token is as long."""


def open_tokenizer(file: Path, extra: str = "slm") -> Any:
    """What a tokenizer.json holds, set to neither cut nor pad.

    Parameters
    ----------
    extra: the one that brings tokenizers where it is asked for.

    Raises
    ------
    MissingExtra: tokenizers is not installed. LabelerError: the file is no tokenizer.
    """
    try:
        from tokenizers import Tokenizer
    except ModuleNotFoundError as exc:
        raise MissingExtra("tokenizers", extra) from exc
    try:
        found = Tokenizer.from_file(str(file))
    except Exception as exc:  # the type that tokenizers raises is Exception itself
        raise LabelerError(f"{file} cannot be read as a tokenizer: {exc}") from exc
    found.no_truncation()
    found.no_padding()
    return found


class Window(NamedTuple):
    """One window of one text: which text, which of its windows, and its wordpieces."""

    text: int
    number: int
    pieces: NDArray[np.int32]


class Wordpieces:
    """A tokenizer file.

    Raises
    ------
    MissingExtra: tokenizers is not installed. LabelerError: the file is no tokenizer, or puts something else
        than one token before and one after a text.
    """

    def __init__(self, file: Path) -> None:
        self._tokenizer = open_tokenizer(file)
        around = self._tokenizer.encode("").ids
        if len(around) != 2:
            raise LabelerError(
                f"{file} puts {len(around)} tokens around a text, not one before and one after"
            )
        self.first, self.last = around

    def pieces(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        """The wordpiece ids of texts, without the special ones."""
        found = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(one.ids, dtype=np.int32) for one in found]

    def feed(self, windows: Sequence[Window]) -> NDArray[np.int64]:
        """Windows of one length as the model reads them: (windows, wordpieces + 2)."""
        out = np.empty((len(windows), len(windows[0].pieces) + 2), dtype=np.int64)
        out[:, 0], out[:, -1] = self.first, self.last
        for row, window in zip(out, windows, strict=True):
            row[1:-1] = window.pieces
        return out


def window_spans(pieces: int, size: int, overlap: int) -> list[tuple[int, int]]:
    """Where the windows over a text of `pieces` wordpieces begin and end.

    All windows of a long text are `size` long and evenly spread, neighbours sharing at least `overlap`
    pieces; a text that fits has one window, as long as the text (an empty one has one empty window).
    """
    if pieces <= size:
        return [(0, pieces)]
    count = -(-(pieces - size) // (size - overlap)) + 1
    starts = (i * (pieces - size) // (count - 1) for i in range(count))
    return [(start, start + size) for start in starts]


def batches(windows: Sequence[Window], tokens: int) -> Iterator[list[Window]]:
    """Windows in groups of one length, long ones first, each of at most `tokens` wordpieces (or one window).

    Groups of one length need no padding and no mask, so that what is computed for a window does not depend
    on which others are with it.
    """
    lengths = np.array([len(window.pieces) for window in windows], dtype=np.int64)
    order = np.argsort(-lengths, kind="stable")
    group: list[Window] = []
    for row in order:
        window = windows[row]
        size = len(window.pieces)
        if group and (len(group[0].pieces) != size or (len(group) + 1) * (size + 2) > tokens):
            yield group
            group = []
        group.append(window)
    if group:
        yield group
