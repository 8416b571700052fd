"""Arrays with one entry a judgment or a document, sorted by topic."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["Bools", "Floats", "Ints", "positions", "running_sum"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


def positions(topic: Ints) -> Ints:
    """1, 2, 3, ... within each stretch of equal values."""
    heads = np.flatnonzero(np.diff(topic, prepend=-1))
    return np.arange(1, len(topic) + 1) - np.repeat(heads, np.diff(np.append(heads, len(topic))))


def running_sum(topic: Ints, values: Floats) -> Floats:
    """Sum of the values before each entry, within its topic; `topic` is sorted."""
    before = np.cumsum(values) - values
    heads = np.flatnonzero(np.diff(topic, prepend=-1))
    return before - np.repeat(before[heads], np.diff(np.append(heads, len(topic))))
