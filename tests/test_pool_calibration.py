"""A student's calibration that looks at the rest of a topic's pool."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest

from harness.calibrate import calibrate as calibrate_pool
from harness.errors import CalibrationError
from harness.frames import LABELS, QRELS, SIGNALS, check, empty
from labelers.distill import calibration as alone
from labelers.distill.calibration import folds
from labelers.distill.pool_calibration import PoolCalibration, calibrate, crossfit, read_calibration

SCALE = [0, 1, 2, 3]


def drawn(topics: int, seed: int, *, shift: float = 3.0) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Signals and judgments: what a score is worth hangs on its topic's, which lie `shift` apart."""
    rng, rows, answers = np.random.default_rng(seed), [], []
    for t in range(topics):
        x, level = rng.normal(size=40), rng.normal() * shift
        chance = 1 / (1 + np.exp(-(2 * x[:, None] + np.array([0.5, -1.0, -2.5]))))
        y = (rng.random((40, 1)) < chance).sum(axis=1)
        for i, (score, grade) in enumerate(zip(x, y, strict=True)):
            rows.append((f"q{t:02}", f"d{i:02}", None, score + level, "raw@1", None))
            answers.append((f"q{t:02}", f"d{i:02}", int(grade), float(grade), "human"))
    return pl.DataFrame(rows, SIGNALS, orient="row"), pl.DataFrame(answers, QRELS, orient="row")


def right(labels: pl.DataFrame, human: pl.DataFrame) -> float:
    return float((labels["relevance"] == human["relevance"]).mean())  # type: ignore[arg-type]


def test_what_a_score_is_worth_in_its_topic_is_seen_in_the_pool_only() -> None:
    (found, human), (new, truth) = drawn(12, 1), drawn(12, 2)
    pool, pair = calibrate(found, human, SCALE), alone.calibrate(found, human, SCALE)
    labels = check(pool.labels(new), LABELS, "labels")
    assert right(labels, truth) > right(pair.labels(new), truth) + 0.1
    assert labels["labeler"].unique().to_list() == ["raw@1"]


def test_it_is_what_the_calibrator_says_of_topics_without_judgments() -> None:
    (found, human), (new, _) = drawn(8, 3), drawn(4, 4)
    fitted = calibrate(found, human, SCALE)
    assert (fitted.judgments, fitted.topics, fitted.grades) == (320, 8, (0, 1, 2, 3))
    named = new.with_columns(labeler=pl.lit("student@"))
    expected = calibrate_pool([named], empty(QRELS), SCALE, calibrator=fitted.fitted).labels
    shuffled = new.sample(fraction=1, shuffle=True, seed=0)
    mine = fitted.labels(shuffled)
    assert mine["doc_id"].to_list() == shuffled["doc_id"].to_list()
    assert mine.sort("query_id", "doc_id")["gain"].to_list() == expected["gain"].to_list()
    assert np.allclose(fitted.probs(shuffled).sum(axis=1), 1, atol=1e-3)


def test_pairs_without_a_signal_have_none_and_keep_the_reason() -> None:
    (found, human), (new, _) = drawn(6, 5), drawn(2, 6)
    fitted = calibrate(found, human, SCALE)
    lost = pl.col("doc_id") == "d03"
    some = new.with_columns(
        pl.when(~lost).then("score").alias("score"),
        pl.when(lost).then(pl.lit("refused")).otherwise("reason").alias("reason"),
    )
    labels = fitted.labels(some)
    assert labels.filter(lost)["reason"].to_list() == ["refused"] * 2
    assert labels.filter(lost)["relevance"].null_count() == 2
    assert labels.filter(~lost)["relevance"].null_count() == 0
    assert np.isnan(fitted.probs(some)).all(axis=1).tolist() == some.select(lost).to_series().to_list()
    nobody = some.filter(lost)
    assert fitted.labels(nobody)["reason"].to_list() == ["refused"] * 2
    assert np.isnan(fitted.probs(nobody)).all()
    with pytest.raises(CalibrationError, match="no judged pair has a signal"):
        calibrate(nobody, human, SCALE)


def test_what_is_written_is_read() -> None:
    (found, human), (new, _) = drawn(6, 7), drawn(2, 8)
    fitted = calibrate(found, human, SCALE)
    told = json.loads(json.dumps(fitted.to_json()))
    again = read_calibration(told)
    assert isinstance(again, PoolCalibration)
    assert again == fitted
    assert again.labels(new).equals(fitted.labels(new))
    pair = alone.calibrate(found, human, SCALE)
    assert read_calibration(pair.to_json()) == pair
    for wrong in ({"topics": None}, {"fitted": {}}, {"fitted": {**told["fitted"], "cuts": [0.0]}}):
        with pytest.raises(CalibrationError, match="no calibration"):
            read_calibration({**told, **wrong})


def test_crossfitted_labels_rest_on_other_topics_only() -> None:
    found, human = drawn(10, 9)
    of = folds(found["query_id"].unique().to_list(), 0)
    same = pl.col("query_id").is_in([q for q, fold in of.items() if fold == of["q00"]])
    turned = human.with_columns(
        pl.when(same).then(3 - pl.col("relevance")).otherwise("relevance").cast(pl.Int16).alias("relevance")
    )
    labels, again = crossfit(found, human, SCALE), crossfit(found, turned, SCALE)
    assert labels.filter(same).equals(again.filter(same))
    assert not labels.filter(~same).equals(again.filter(~same))
