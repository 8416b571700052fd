"""The page of two runs on a thousand topics: at most three seconds."""

from __future__ import annotations

import numpy as np
import polars as pl
from pytest_benchmark.fixture import BenchmarkFixture

from harness.compare import compare
from harness.ranking import rank
from harness.report import report

TOPICS, DEPTH, POOL, MOST = 1000, 100, 300, 3.0
MEASURES = ["nDCG@10", "P@10", "RR@10", "RBP", "R@100"]


def run(rng: np.random.Generator) -> pl.DataFrame:
    picked = np.argsort(rng.random((TOPICS, POOL)), axis=1)[:, :DEPTH]
    topics = np.repeat(np.arange(TOPICS), DEPTH)
    scores = np.tile(np.arange(DEPTH, 0, -1.0), TOPICS)
    ids = pl.DataFrame({"query_id": topics, "doc_id": picked.ravel(), "score": scores})
    return rank(ids.with_columns(pl.col("query_id", "doc_id").cast(pl.String)))


def test_the_page_of_a_thousand_topics(benchmark: BenchmarkFixture) -> None:
    rng = np.random.default_rng(0)
    runs = {"base": run(rng), "candidate": run(rng)}
    judged = np.flatnonzero(rng.random(TOPICS * POOL) < 0.2)
    grades = rng.integers(0, 4, len(judged))
    qrels = pl.DataFrame(
        {
            "query_id": (judged // POOL).astype(str),
            "doc_id": (judged % POOL).astype(str),
            "relevance": pl.Series(grades, dtype=pl.Int16),
            "gain": pl.Series(grades, dtype=pl.Float32),
            "assessor": "human",
        }
    )
    compared = compare(runs, qrels, MEASURES)
    page = benchmark.pedantic(report, (compared, runs, qrels), rounds=3, warmup_rounds=1)
    assert len(page) < 1_000_000
    assert benchmark.stats.stats.min < MOST
