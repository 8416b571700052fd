"""How long a person waits for nothing: the command line beyond a bare Python, machine idle.

pytest tests/bench/test_bench_startup.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

STOPGAP = Path(sys.executable).parent / "stopgap"
ROUNDS = 11


def seconds(*command: object) -> float:
    start = time.perf_counter()
    subprocess.run([str(c) for c in command], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def beyond_bare_python(benchmark: BenchmarkFixture, *command: object) -> float:
    """Median seconds of the command less those of `python -c pass`, timed in turns."""
    bare: list[float] = []

    def between_rounds() -> None:
        bare.append(seconds(sys.executable, "-c", "pass"))

    own = [seconds(*command)]  # once to warm the disk

    def once() -> None:
        own.append(seconds(*command))

    benchmark.pedantic(once, setup=between_rounds, rounds=ROUNDS)
    benchmark.extra_info["bare python, median seconds"] = statistics.median(bare)
    return statistics.median(own[1:]) - statistics.median(bare)


def test_help(benchmark: BenchmarkFixture) -> None:
    assert beyond_bare_python(benchmark, STOPGAP, "--help") <= 0.3


@pytest.mark.parametrize("verb", ["holes", "measure"])
def test_a_small_file(benchmark: BenchmarkFixture, tmp_path: Path, verb: str) -> None:
    run, qrels = tmp_path / "small.run", tmp_path / "small.qrels"
    run.write_text("".join(f"{q} Q0 d{d} {d} {1000 - d} small\n" for q in range(20) for d in range(100)))
    qrels.write_text("".join(f"{q} 0 d{d} {d % 4}\n" for q in range(20) for d in range(0, 100, 3)))
    assert beyond_bare_python(benchmark, STOPGAP, verb, run, "--qrels", qrels) <= 0.7
