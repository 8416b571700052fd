"""A versus B on 1,000 topics and five measures beyond reading, and 63 real systems all against all.

The data of the first are made here: 100 documents a topic in two runs that are alike, 120 of 200 judged. What
is timed is what a comparison adds to `measure`: 9,999 bootstraps and permutations of every measure, tests,
power; then bounds as well. Imports of SciPy are not part of it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from harness.bounds import bounds_each
from harness.compare import compare_measured
from harness.groups import compare_all
from harness.measure import Measurement, measure
from harness.ranking import rank
from harness.trec import read_qrels, read_runs

TOPICS, DEPTH, DOCUMENTS, JUDGED = 1000, 100, 200, 120
MEASURES = ("nDCG@10", "AP", "RR", "P@10", "R@100")
IDS = np.array([f"d{i:03}" for i in range(DOCUMENTS)])
QUERIES = [f"q{i:04}" for i in range(TOPICS)]


def made(labels: bool = False) -> tuple[dict[str, pl.DataFrame], pl.DataFrame]:
    """Two runs, and qrels by assessors or with every second judgment a label's."""
    rng = np.random.default_rng(7)
    grade = rng.choice(4, (TOPICS, JUDGED), p=[0.6, 0.2, 0.1, 0.1])
    qrels = pl.DataFrame(
        {
            "query_id": np.repeat(QUERIES, JUDGED),
            "doc_id": np.tile(IDS[:JUDGED], TOPICS),
            "relevance": grade.ravel().astype(np.int16),
            "gain": grade.ravel().astype(np.float32),
        }
    ).with_columns(assessor=pl.lit("human"))
    if labels:
        probs = 0.2 * rng.dirichlet(np.ones(4), grade.size) + 0.8 * np.eye(4)[grade.ravel()]
        label = pl.int_range(pl.len()) % 2 == 1
        qrels = qrels.with_columns(
            pl.when(label).then(pl.Series(probs @ np.arange(4), dtype=pl.Float32)).otherwise("gain"),
            assessor=pl.when(label).then(pl.lit("label")).otherwise("assessor"),
            probs=pl.when(label).then(pl.Series(probs.tolist(), dtype=pl.List(pl.Float32))),
        )
    runs = {}
    for name, noise in (("a", 2.0), ("b", 1.95)):
        score = noise * rng.normal(size=(TOPICS, DOCUMENTS))
        score[:, :JUDGED] += grade
        best = np.argsort(-score, axis=1)[:, :DEPTH]
        frame = {
            "query_id": np.repeat(QUERIES, DEPTH),
            "doc_id": IDS[best].ravel(),
            "score": np.take_along_axis(score, best, axis=1).ravel(),
        }
        runs[name] = rank(pl.DataFrame(frame))
    return runs, qrels


@pytest.fixture(scope="module")
def human() -> Measurement:
    return measure(*made(), MEASURES)


def median(benchmark: BenchmarkFixture) -> float:
    return float(benchmark.stats.stats.median)  # type: ignore[union-attr]


def test_comparing_two_measured_runs(benchmark: BenchmarkFixture, human: Measurement) -> None:
    found = benchmark.pedantic(lambda: compare_measured(human, "a"), rounds=7, warmup_rounds=1)
    assert [one.topics for one in found.found["b"].values()] == [TOPICS] * len(MEASURES)
    assert median(benchmark) < 0.5


def test_measuring_and_bounding_beside_it(benchmark: BenchmarkFixture) -> None:
    """What `compare` does besides: reading frames, scores, and bounds with the fewest flips."""
    runs, qrels = made()

    def both() -> None:
        measure(runs, qrels, MEASURES)
        bounds_each(runs["a"], runs["b"], qrels, MEASURES)

    benchmark.pedantic(both, rounds=3, warmup_rounds=1)


def test_comparing_with_drawn_labels(benchmark: BenchmarkFixture) -> None:
    measured = measure(*made(labels=True), MEASURES)
    found = benchmark.pedantic(lambda: compare_measured(measured, "a"), rounds=1)
    assert all(one.label_ci for one in found.found["b"].values())


def test_63_systems_all_against_all(benchmark: BenchmarkFixture, data_dir: Path) -> None:
    folder = data_dir / "dl21_passage_runs"
    runs, qrels = read_runs([str(folder / "runs" / "*.run.gz")]), read_qrels(folder / "qrels.human.txt")
    found = benchmark.pedantic(
        lambda: compare_all(runs, qrels, ["nDCG@10"])["nDCG@10"], rounds=3, warmup_rounds=1
    )
    assert (found.systems.height, found.pairs.height) == (63, 63 * 62 // 2)
    assert median(benchmark) < 5
