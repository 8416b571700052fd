"""How a labeler agrees on 100,000 pairs, with 2,000 bootstraps of the topics: at most three seconds.

The hardest case: the labels have distributions, so that calibration is bootstrapped as well, and distinct
scores. What is timed is `agree` from frames to intervals; imports of packages are not part of it.
"""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from harness.agree import RESAMPLES, agree

PAIRS, MOST = 100_000, 3.0


def made(topics: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Judgments on 0-3, and labels that miss by one in two of three cases."""
    rng, number = np.random.default_rng(0), np.arange(PAIRS)
    human = rng.integers(0, 4, PAIRS)
    label = np.clip(human + rng.integers(-1, 2, PAIRS), 0, 3)
    probs = 0.5 * rng.dirichlet(np.ones(4), PAIRS) + 0.5 * np.eye(4)[label]
    ids = {"query_id": (number % topics).astype(str), "doc_id": (number // topics).astype(str)}
    qrels = {"relevance": pl.Series(human, dtype=pl.Int16), "gain": pl.Series(human, dtype=pl.Float32)}
    labels = {
        "relevance": pl.Series(probs.argmax(axis=1), dtype=pl.Int16),
        "probs": pl.Series(probs.astype(np.float32).tolist(), dtype=pl.List(pl.Float32)),
        "gain": pl.Series(probs @ np.arange(4), dtype=pl.Float32),
        "labeler": pl.lit("made"),
        "reason": pl.lit(None, pl.String),
    }
    base = pl.DataFrame(ids)
    return base.with_columns(**qrels, assessor=pl.lit("human")), base.with_columns(**labels)


@pytest.mark.parametrize("topics", [50, 1000])
def test_agreement_on_a_hundred_thousand_pairs(benchmark: BenchmarkFixture, topics: int) -> None:
    human, labels = made(topics)
    assert RESAMPLES == 2000
    found = benchmark.pedantic(agree, (human, {"made": labels}), rounds=3, warmup_rounds=1)
    one = found.labelers["made"]
    assert (one.pairs, one.topics) == (PAIRS, topics)
    assert all(ends is not None for ends in one.ci.values())
    assert benchmark.stats.stats.min < MOST
