"""The reference workload by itself: what benchmarks that do not take turns with it are held against."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from pytest_benchmark.fixture import BenchmarkFixture


@pytest.mark.benchmark(group="reference")
def test_reference(benchmark: BenchmarkFixture, reference: Callable[[], float]) -> None:
    assert benchmark.pedantic(reference, rounds=60, warmup_rounds=5) == reference()
