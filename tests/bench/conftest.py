"""The reference workload that a benchmark's time is a ratio to (`harness.throughput`)."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

WORKLOAD = "1: 20,000 strings in a dict and sorted, 200,000 floats sorted and summed"
"""Another workload needs another name: evidence of the old one then no longer compares, and says so."""


def work() -> float:
    """Half of it Python's own, half numpy's, on one core. It uses nothing of stopgap: no change of ours can
    make it slower."""
    ranks: dict[str, int] = {}
    for number in range(20_000):
        ranks[f"d{number * 7919 % 20_011}"] = number
    total = sum(ranks[name] for name in sorted(ranks))
    values = np.sin(np.arange(200_000, dtype=np.float64))
    return total + float(np.cumsum(np.sort(values))[-1])


@pytest.fixture
def reference(benchmark: BenchmarkFixture) -> Callable[[], float]:
    """The workload, for the benchmark that times it once for all."""
    benchmark.extra_info["reference"] = WORKLOAD
    return work


@pytest.fixture
def against_reference(benchmark: BenchmarkFixture) -> Callable[..., Any]:
    """Time a function, with a round of the reference workload before each round of it."""

    def timed(function: Callable[..., Any], *arguments: Any, rounds: int) -> Any:
        seconds: list[float] = []

        def before() -> None:
            began = time.perf_counter()
            work()
            seconds.append(time.perf_counter() - began)

        found = benchmark.pedantic(function, arguments, setup=before, rounds=rounds, warmup_rounds=3)
        benchmark.extra_info["reference"] = {"workload": WORKLOAD, "seconds": seconds[-rounds:]}
        return found

    return timed
