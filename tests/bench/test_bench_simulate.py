"""Simulations on real runs: DL19 with all fills, and the 143 runs of TREC-COVID's first round.

DL19's signals are made up here, of the size that `minilm` has: what is timed is the calibrator and not the
encoder, whose vectors a ledger keeps. Reading the runs is part of it; SciPy's import is not. The aims are of
two idle cores; what is held to them is the processor time of all threads together, which bounds that.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from harness.calibrate import calibrate
from harness.simulate import FILLS, Simulated, read_groups, simulate
from harness.trec import read_qrels, run_paths

SIZE = 384


def signals_like_minilm(human: pl.DataFrame) -> pl.DataFrame:
    """Vectors and scores that say something of the grade."""
    rng = np.random.default_rng(3)
    grade = human["relevance"].to_numpy()
    vectors = rng.normal(size=(human.height, SIZE)) + 4 * np.eye(SIZE)[grade]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return human.select("query_id", "doc_id").with_columns(
        pl.lit(None, pl.List(pl.Float32)).alias("probs"),
        pl.Series("score", grade + 2 * rng.normal(size=human.height), dtype=pl.Float32),
        pl.lit("made").alias("labeler"),
        pl.lit(None, pl.String).alias("reason"),
        pl.Series("vector", vectors.astype(np.float32), dtype=pl.Array(pl.Float32, SIZE)),
    )


def processor_seconds(benchmark: BenchmarkFixture, run: Callable[[], Simulated]) -> tuple[Simulated, float]:
    began = time.process_time()
    found = benchmark.pedantic(run, rounds=1)
    return found, time.process_time() - began


@pytest.mark.slow
def test_dl19_all_fills(benchmark: BenchmarkFixture, data_dir: Path) -> None:
    folder = data_dir / "dl19_passage"
    paths, human = run_paths([folder / "runs" / "*"]), read_qrels(folder / "qrels.human.txt")
    signals = signals_like_minilm(human)
    calibrate([signals.head(2000)], human, range(4))  # imports

    def run() -> Simulated:
        groups = read_groups(folder / "runs_meta.tsv", list(paths))
        labels = read_qrels(folder / "qrels.umbrela_gpt4.txt")
        return simulate(paths, human, leave_out="group", groups=groups, labels=labels, signals=[signals])

    found, seconds = processor_seconds(benchmark, run)
    assert list(found.tables[0].fills) == list(FILLS)
    assert seconds < 20


@pytest.mark.slow
def test_covid_143_runs(benchmark: BenchmarkFixture, data_dir: Path) -> None:
    folder = data_dir / "trec_covid_r1"
    paths, human = run_paths([folder / "runs" / "*"]), read_qrels(folder / "qrels.human.txt")

    def run() -> Simulated:
        groups = read_groups(folder / "runs_meta.tsv", list(paths))
        return simulate(paths, human, leave_out="group", groups=groups)

    found, seconds = processor_seconds(benchmark, run)
    assert list(found.tables[0].fills) == ["zero", "condensed", "constant"]
    assert seconds < 120
