"""What labelers that run a model have in common: reasons, distributions, and quiet loading."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

__all__ = ["MEMORY", "NO_NUMBER", "quietly", "spread", "told"]

NO_NUMBER = "the model gave no number"
MEMORY = "too long for the device's memory"


def spread(logits: Sequence[float] | np.ndarray[Any, np.dtype[np.float64]]) -> list[float] | str:
    """Logits (or log-probabilities) of the answers as a distribution over them, or NO_NUMBER."""
    row = np.asarray(logits, dtype=np.float64)
    if not np.isfinite(row).all():
        return NO_NUMBER
    mass = np.exp(row - row.max())
    return (mass / mass.sum()).tolist()  # type: ignore[no-any-return]


@contextmanager
def quietly() -> Iterator[None]:
    """Without the bars and notes that transformers writes on stderr."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def told(exc: BaseException) -> str:
    """The first line of what went wrong."""
    return f"{type(exc).__name__}: {str(exc).strip().partition(chr(10))[0]}"
