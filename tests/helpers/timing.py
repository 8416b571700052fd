"""How long something takes."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["best_of"]


def best_of(work: Callable[[], object], times: int) -> float:
    """Seconds of the quickest: what else the machine does only adds to it."""
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return min(taken)
