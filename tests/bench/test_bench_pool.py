"""Counting the holes of 143 real runs (415,281 lines, .gz) at depth 100: under 2 s for the whole process."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

from pytest_benchmark.fixture import BenchmarkFixture

from harness.pool import summary
from harness.trec import read_qrels, read_runs

PROGRAM = """
    import sys
    from harness.pool import summary
    from harness.trec import read_qrels, read_runs
    runs, qrels = read_runs([f"{sys.argv[1]}/runs/*.run.gz"]), read_qrels(f"{sys.argv[1]}/qrels.human.txt")
    found = summary(runs, qrels, 100)
    print(len(found["runs"]), found["pool_holes"])
"""


def test_whole_process(benchmark: BenchmarkFixture, data_dir: Path):
    """Imports, reading and counting."""

    def holes() -> str:
        program = [sys.executable, "-c", textwrap.dedent(PROGRAM), str(data_dir / "trec_covid_r1")]
        return subprocess.run(program, capture_output=True, text=True, check=True).stdout

    assert benchmark.pedantic(holes, rounds=5, warmup_rounds=1).startswith("143 ")


def test_reading(benchmark: BenchmarkFixture, data_dir: Path):
    pattern = str(data_dir / "trec_covid_r1" / "runs" / "*.run.gz")
    assert len(benchmark.pedantic(lambda: read_runs([pattern]), rounds=5, warmup_rounds=1)) == 143


def test_counting(benchmark: BenchmarkFixture, data_dir: Path):
    folder = data_dir / "trec_covid_r1"
    runs, qrels = read_runs([str(folder / "runs" / "*.run.gz")]), read_qrels(folder / "qrels.human.txt")
    found = benchmark.pedantic(lambda: summary(runs, qrels, 100), rounds=5, warmup_rounds=1)
    assert found["pool_holes"] > 100_000
