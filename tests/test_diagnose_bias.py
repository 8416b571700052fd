"""Bias by text, topic and system: planted, absent, and as scipy, statsmodels and scikit-learn have it."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from scipy import stats

from harness.agree_pairs import Judged, Rater, judged, rater
from harness.diagnose_bias import errors, favour, sensitivity, systems, topics
from harness.draws import generator
from harness.errors import UsageError
from harness.ranking import rank

TOPICS, DEPTH, RESAMPLES = 20, 30, 300


def frame(grades: np.ndarray, assessor: str) -> pl.DataFrame:
    """TOPICS topics of DEPTH documents each."""
    return pl.DataFrame(
        {
            "query_id": [f"q{t:02}" for t in range(TOPICS) for _ in range(DEPTH)],
            "doc_id": [f"d{d:02}" for _ in range(TOPICS) for d in range(DEPTH)],
            "relevance": pl.Series(grades, dtype=pl.Int16),
            "gain": pl.Series(grades, dtype=pl.Float32),
            "assessor": [assessor] * len(grades),
        }
    )


HUMAN = generator(0, 0).choice(4, TOPICS * DEPTH, p=[0.4, 0.3, 0.2, 0.1])
TOPIC = np.repeat(np.arange(TOPICS), DEPTH)


def pair(labels: np.ndarray) -> tuple[Judged, Rater]:
    of = judged(frame(HUMAN, "human"), range(4))
    return of, rater(frame(labels, "l@1"), of, "l")


def near(rate: float = 0.3) -> np.ndarray:
    """Labels that err without any bias: as often up as down, where the scale allows it."""
    rng = generator(1, 0)
    step = np.where(rng.random(len(HUMAN)) < rate, rng.choice([-1, 1], len(HUMAN)), 0)
    return np.where((HUMAN + step < 0) | (HUMAN + step > 3), HUMAN, HUMAN + step)


class TestSensitivity:
    def test_the_correlation_is_scipys(self) -> None:
        of, one = pair(near())
        value = generator(2, 0).integers(0, 50, len(HUMAN)).astype(float)
        found = sensitivity(of, one, value, 0, RESAMPLES)
        assert found["spearman"] == pytest.approx(stats.spearmanr(value, near() - HUMAN).statistic, abs=1e-12)
        assert found["ci"]["spearman"][0] < found["spearman"] < found["ci"]["spearman"][1]

    def test_among_documents_of_one_judgment_it_is_a_regression_on_their_dummies(self) -> None:
        linear_model = pytest.importorskip("statsmodels.api")
        of, one = pair(near())
        value = HUMAN * 5 + generator(2, 0).random(len(HUMAN)) * 20
        found = sensitivity(of, one, value, 0, RESAMPLES)
        dummies = (HUMAN[:, None] == np.arange(4)).astype(float)
        rests = [linear_model.OLS(stats.rankdata(v), dummies).fit().resid for v in (value, near() - HUMAN)]
        assert found["within_grades"] == pytest.approx(np.corrcoef(*rests)[0, 1], abs=1e-10)

    def test_a_planted_bias_towards_long_texts(self) -> None:
        length = generator(3, 0).integers(5, 300, len(HUMAN)).astype(float)
        labels = np.clip(HUMAN + (length > 200).astype(int), 0, 3)
        found = sensitivity(*pair(labels), length, 0, RESAMPLES)
        assert found["ci"]["within_grades"][0] > 0.3
        quarters = found["quarters"]
        assert sum(q["pairs"] for q in quarters) == 600
        assert all(abs(q["pairs"] - 150) < 10 for q in quarters)  # ties stay together
        assert quarters[0]["error"] == 0
        assert quarters[3]["error"] == pytest.approx((labels - HUMAN)[length >= quarters[3]["from"]].mean())
        assert quarters[3]["ci"][0] > 0.5

    def test_what_is_only_due_to_the_judgment_goes_away_within_grades(self) -> None:
        """A labeler that always says 1 overrates the non-relevant; the value goes with the judgment only."""
        labels = np.where(generator(4, 0).random(len(HUMAN)) < 0.5, 1, 2)
        value = HUMAN + generator(4, 1).random(len(HUMAN))
        found = sensitivity(*pair(labels), value, 0, RESAMPLES)
        assert found["spearman"] < -0.7
        low, high = found["ci"]["within_grades"]
        assert low < 0 < high

    def test_no_bias(self) -> None:
        found = sensitivity(*pair(near()), generator(5, 0).random(len(HUMAN)), 0, RESAMPLES)
        for low, high in found["ci"].values():
            assert low < 0 < high

    def test_pairs_without_a_value_are_left_out(self) -> None:
        value = generator(5, 0).random(len(HUMAN))
        value[:100] = np.nan
        assert sensitivity(*pair(near()), value, 0, RESAMPLES)["pairs"] == len(HUMAN) - 100

    @pytest.mark.parametrize(
        ("labels", "value", "why"),
        [
            (HUMAN, generator(5, 0).random(len(HUMAN)), "same error"),
            (near(), np.ones(len(HUMAN)), "same value"),
            (near(), np.full(len(HUMAN), np.nan), "fewer than two"),
        ],
    )
    def test_what_cannot_be_said(self, labels: np.ndarray, value: np.ndarray, why: str) -> None:
        found = sensitivity(*pair(labels), value, 0, RESAMPLES)
        assert why in found["undefined"]
        assert found["spearman"] is None
        assert found["quarters"] == []

    def test_ties_make_fewer_quarters(self) -> None:
        value = (generator(5, 0).random(len(HUMAN)) < 0.5).astype(float)
        spans = [(q["from"], q["to"]) for q in sensitivity(*pair(near()), value, 0, RESAMPLES)["quarters"]]
        assert spans == [(0.0, 0.0), (1.0, 1.0)]


class TestTopics:
    def test_the_topic_that_is_off_comes_first(self) -> None:
        labels = near()
        labels[TOPIC == 7] = 3
        found = topics(*pair(labels), 0, RESAMPLES)
        first = found["topics"][0]
        assert first["query_id"] == "q07"
        error = (labels - HUMAN)[TOPIC == 7]
        assert first["bias"] == pytest.approx(error.mean())
        judge = stats.ttest_1samp(error, 0).confidence_interval(0.95)
        assert first["ci"] == pytest.approx([judge.low, judge.high])
        assert first["p_adjusted"] < 1e-6
        assert found["bias"] == pytest.approx((labels - HUMAN).mean())

    def test_p_is_scipys(self) -> None:
        labels = near()
        error = labels - HUMAN
        p = [
            stats.ttest_ind(error[t == TOPIC], error[t != TOPIC], equal_var=False).pvalue
            for t in range(TOPICS)
        ]
        judge = dict(zip([f"q{t:02}" for t in range(TOPICS)], stats.false_discovery_control(p), strict=True))
        found = {t["query_id"]: t["p_adjusted"] for t in topics(*pair(labels), 0, RESAMPLES)["topics"]}
        assert found == pytest.approx(judge, rel=1e-6)

    def test_without_a_bias_by_topic_there_is_next_to_no_spread(self) -> None:
        found = topics(*pair(near()), 0, RESAMPLES)
        assert found["spread"] < 0.05
        assert not [t for t in found["topics"] if t["p_adjusted"] < 0.01]

    def test_the_spread_of_planted_biases(self) -> None:
        of = judged(frame(HUMAN, "human"), range(4))
        shift = generator(6, 0).normal(0, 0.5, TOPICS)[TOPIC]
        labels = frame(HUMAN, "l@1").with_columns(gain=pl.Series(HUMAN + shift, dtype=pl.Float32))
        assert topics(of, rater(labels, of, "l"), 0, RESAMPLES)["spread"] == pytest.approx(0.5, abs=0.2)

    def test_a_topic_of_two_pairs_has_no_interval(self) -> None:
        of = judged(frame(HUMAN, "human"), range(4))
        some = frame(near(), "l@1").filter((pl.col("query_id") != "q03") | (pl.col("doc_id") < "d02"))
        [one] = [
            t for t in topics(of, rater(some, of, "l"), 0, RESAMPLES)["topics"] if t["query_id"] == "q03"
        ]
        assert (one["pairs"], one["ci"], one["p_adjusted"]) == (2, None, None)

    def test_errors_are_expected_grades_less_judgments(self) -> None:
        of = judged(frame(HUMAN, "human"), range(4))
        labels = frame(HUMAN, "l@1").with_columns(gain=pl.col("gain") + 0.25)
        rows, error = errors(of, rater(labels, of, "l"))
        assert len(rows) == len(HUMAN)
        assert error == pytest.approx(0.25)


def ranked(order: np.ndarray) -> pl.DataFrame:
    """A run that ranks each topic's documents by `order` (highest first)."""
    pairs = frame(np.zeros(len(HUMAN)), "x").select("query_id", "doc_id")
    return rank(pairs.with_columns(score=pl.Series(order, dtype=pl.Float64)))


class TestSystems:
    @pytest.fixture
    def runs(self) -> dict[str, pl.DataFrame]:
        rng = generator(7, 0)
        noise = [rng.normal(0, 1.5, len(HUMAN)) for _ in range(6)]
        return {f"run{i}": ranked(HUMAN + n) for i, n in enumerate(noise)}

    def test_a_run_whose_documents_are_overrated_is_favoured(self, runs: dict[str, pl.DataFrame]) -> None:
        top = runs["run2"].filter(pl.col("rank") < 5).select("query_id", "doc_id", up=pl.lit(2))
        labels = (
            frame(near(), "l@1")
            .join(top, on=["query_id", "doc_id"], how="left", maintain_order="left")
            .with_columns(
                relevance=(pl.col("relevance") + pl.col("up").fill_null(0)).clip(0, 3).cast(pl.Int16)
            )
            .with_columns(gain=pl.col("relevance").cast(pl.Float32))
        )
        of = judged(frame(HUMAN, "human"), range(4))
        groups = {n: "mine" if n in ("run2", "run3") else "others" for n in runs}
        one = rater(labels, of, "l")
        found = systems(of, one, runs, ["nDCG@10", "P@5"], groups, 0, RESAMPLES, apart_from={"run2"})
        for measure in found:
            by_run = found[measure]["runs"]
            assert max(by_run, key=lambda n: by_run[n]["favour"]) == "run2"
            assert by_run["run2"]["ci"][0] > 0
            assert by_run["run2"]["p_adjusted"] < 0.05
            assert sum(its["favour"] for its in by_run.values()) == pytest.approx(0, abs=1e-12)
            rest = np.mean([by_run[n]["difference"] for n in runs if n != "run2"])
            over = by_run["run2"]["over_unrelated"]
            assert over["favour"] == pytest.approx(by_run["run2"]["difference"] - rest)
            assert over["ci"][0] > 0
            assert "over_unrelated" not in by_run["run1"]
            assert (
                found[measure]["groups"]["mine"]["favour"] > 0 > found[measure]["groups"]["others"]["favour"]
            )
        assert found["nDCG@10"]["ordering"]["runs"] == 6

    def test_labels_without_a_bias_favour_nobody(self, runs: dict[str, pl.DataFrame]) -> None:
        found = systems(*pair(near()), runs, ["nDCG@10"], None, 0, RESAMPLES)["nDCG@10"]
        assert all(its["p_adjusted"] > 0.05 for its in found["runs"].values())
        assert found["groups"] == {}

    def test_labels_that_are_the_judgments_differ_in_nothing(self, runs: dict[str, pl.DataFrame]) -> None:
        found = systems(*pair(HUMAN), runs, ["nDCG@10"], None, 0, RESAMPLES)["nDCG@10"]
        assert all(its["difference"] == 0 and its["favour"] == 0 for its in found["runs"].values())
        assert all(its["p_adjusted"] == 1 for its in found["runs"].values())
        assert found["ordering"]["kendall_tau"] == pytest.approx(1)

    def test_if_every_run_is_related_there_is_nothing_to_compare_with(self, runs) -> None:
        found = systems(*pair(near()), runs, ["nDCG@10"], None, 0, RESAMPLES, apart_from=set(runs))
        assert found["nDCG@10"]["runs"]["run0"]["over_unrelated"] is None

    def test_bad_input(self, runs: dict[str, pl.DataFrame]) -> None:
        with pytest.raises(UsageError, match="two runs or more"):
            systems(*pair(near()), {"run0": runs["run0"]}, ["nDCG@10"], None, 0, RESAMPLES)
        with pytest.raises(UsageError, match="have no group: run0"):
            systems(*pair(near()), runs, ["nDCG@10"], {f"run{i}": "a" for i in range(1, 6)}, 0, RESAMPLES)

    def test_p_is_scipys(self) -> None:
        by_topic = generator(8, 0).normal(0.1, 1, (30, 4))
        p = stats.false_discovery_control(stats.ttest_1samp(by_topic, 0).pvalue)
        assert [one["p_adjusted"] for one in favour(by_topic, 0, RESAMPLES)] == pytest.approx(p)
