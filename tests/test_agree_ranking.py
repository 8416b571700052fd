"""System orderings, against SciPy's, published values, and the definitions written out."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from harness.agree import agree
from harness.agree_ranking import (
    correlations,
    drops,
    kendall,
    rank_biased_overlap,
    spearman,
    tau_ap,
    taus,
)
from harness.errors import UsageError
from harness.ranking import rank
from harness.trec import read_qrels, run_paths, write_run

SCORES = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=2, max_size=12)

# The example of the R package ircor, by the authors of tau_AP,b.
X = np.array([0.06, 0.2, 0.27, 0.37, 0.57, 0.63, 0.66, 0.9, 0.91, 0.94])
Y = np.array([0.37, 0.06, 0.2, 0.27, 0.57, 0.66, 0.63, 0.91, 0.9, 0.94])


def fifths(values: np.ndarray) -> np.ndarray:
    return np.round(values * 5) / 5


def one_way(truth: np.ndarray, estimate: np.ndarray) -> float:
    """tau_AP as Yilmaz, Aslam and Robertson define it, without ties."""
    order = np.argsort(-estimate)
    above = [sum(truth[j] > truth[i] for j in order[:n]) / n for n, i in enumerate(order) if n]
    return 2 * float(np.mean(above)) - 1


@given(SCORES)
def test_tau_is_scipy_s_for_one_row_and_for_many(scores) -> None:
    x, y = np.array(scores, dtype=float).T
    expected = math.nan if np.ptp(x) == 0 or np.ptp(y) == 0 else stats.kendalltau(x, y).statistic
    assert kendall(x, y) == pytest.approx(expected, nan_ok=True)
    many = taus(np.stack([x, x, y]), np.stack([y, x, -y]))
    assert many[0] == pytest.approx(expected, nan_ok=True)
    assert many[1:] == pytest.approx(
        [1.0 if np.ptp(x) else math.nan, -1.0 if np.ptp(y) else math.nan], nan_ok=True
    )


def test_tau_ap_has_the_published_values() -> None:
    assert kendall(X, Y) == pytest.approx(0.7777778, abs=1e-7)
    assert one_way(X, Y) == pytest.approx(0.7491182, abs=1e-7)
    assert kendall(fifths(X), fifths(Y)) == pytest.approx(0.75, abs=1e-7)
    assert tau_ap(fifths(X), fifths(Y)) == pytest.approx(0.6269841, abs=1e-7)


@given(st.permutations(range(8)))
def test_tau_ap_without_ties_is_the_mean_of_both_directions(order) -> None:
    x, y = np.arange(8.0), np.array(order, dtype=float)
    assert tau_ap(x, y) == pytest.approx((one_way(x, y) + one_way(y, x)) / 2)
    assert tau_ap(x, y) == pytest.approx(tau_ap(y, x))


@given(SCORES)
def test_correlations_are_symmetric_and_an_order_agrees_with_itself(scores) -> None:
    x, y = np.array(scores, dtype=float).T
    ours, back = correlations(x, y), correlations(y, x)
    assert ours == pytest.approx(back, nan_ok=True)
    own = correlations(x, x)
    assert own["rbo"] == pytest.approx(1.0)
    assert all(math.isnan(v) or v == pytest.approx(1.0) for v in own.values())
    if np.ptp(x) and np.ptp(y):
        assert spearman(x, y) == pytest.approx(stats.spearmanr(x, y).statistic)


def test_rbo_looks_at_the_best_first() -> None:
    x = np.array([4.0, 3.0, 2.0, 1.0])
    # overlap over depth: 0/1, 2/2, 3/3, 4/4
    assert rank_biased_overlap(x, np.array([3.0, 4.0, 2.0, 1.0])) == pytest.approx(
        0.1 * (0.9 + 0.81 + 0.729) + 0.9**4
    )
    # 1/1, 2/2, 2/3, 4/4: an exchange at the end costs less
    end = rank_biased_overlap(x, np.array([4.0, 3.0, 1.0, 2.0]))
    assert end == pytest.approx(0.1 * (1 + 0.9 + 0.81 * 2 / 3 + 0.729) + 0.9**4)
    # two that tie at the top enter together: 2 * 1 / 3, 1, 1, 1
    tied = rank_biased_overlap(x, np.array([4.0, 4.0, 2.0, 1.0]))
    assert tied == pytest.approx(0.1 * (2 / 3 + 0.9 + 0.81 + 0.729) + 0.9**4)


def test_drops_count_ranks_and_ties_share_theirs() -> None:
    assert drops(np.array([4.0, 3.0, 2.0, 1.0]), np.array([1.0, 3.0, 2.0, 4.0])).tolist() == [3, 0, 0, -3]
    assert drops(np.array([3.0, 2.0, 1.0]), np.zeros(3)).tolist() == [1, 0, -1]


# -- runs ----------------------------------------------------------------------------------------------------


def qrels(rows: list[tuple[str, str, int]]) -> pl.DataFrame:
    frame = pl.DataFrame(rows, schema=["query_id", "doc_id", "relevance"], orient="row")
    return frame.with_columns(
        pl.col("relevance").cast(pl.Int16),
        gain=pl.col("relevance").cast(pl.Float32),
        assessor=pl.lit("human"),
    )


def systems() -> dict[str, pl.DataFrame]:
    """Four runs over six topics of five documents; run k puts document k first."""
    return {
        f"r{k}": rank(
            pl.DataFrame(
                [(f"q{t}", f"d{d}", 10.0 if d == k else 5.0 - d) for t in range(6) for d in range(5)],
                schema=["query_id", "doc_id", "score"],
                orient="row",
            )
        )
        for k in range(4)
    }


HUMAN = qrels([(f"q{t}", f"d{d}", g) for t in range(6) for d, g in enumerate([3, 2, 1, 0, t % 2])])
INVERTED = qrels([(f"q{t}", f"d{d}", g) for t in range(6) for d, g in enumerate([0, 1, 2, 3, t % 2])])


def test_labels_that_invert_the_grades_turn_the_order_round() -> None:
    found = agree(
        HUMAN, {"same": HUMAN, "inverted": INVERTED}, runs=systems(), measures=["P(rel=3)@1", "nDCG@10"]
    )
    same, turned = found.orderings["same"]["nDCG@10"], found.orderings["inverted"]["nDCG@10"]
    assert [same[k] for k in ("kendall_tau", "tau_ap", "spearman", "rbo")] == pytest.approx([1, 1, 1, 1])
    assert (same["max_drop"], same["ci"]["kendall_tau"]) == (0.0, (1.0, 1.0))
    assert turned["kendall_tau"] < 0
    assert turned["max_drop_run"] == "r0"
    assert turned["top_half"]["runs"] == 2
    assert list(found.orderings["same"]) == ["P(rel=3)@1", "nDCG@10"]


def test_runs_may_be_files(tmp_path: Path) -> None:
    for name, run in systems().items():
        write_run(run, tmp_path / f"{name}.run", name)
    files = run_paths([f"{tmp_path}/*.run"])
    args = {"measures": ["nDCG@10"], "resamples": 100}
    by_file = agree(HUMAN, {"x": INVERTED}, runs=files, **args)
    assert by_file.orderings == agree(HUMAN, {"x": INVERTED}, runs=systems(), **args).orderings


def test_both_sides_have_the_pairs_that_were_labeled() -> None:
    part = HUMAN.filter(pl.col("doc_id") != "d0")
    one = agree(HUMAN, {"x": part}, runs=systems(), measures=["nDCG@10"]).orderings["x"]["nDCG@10"]
    assert one["kendall_tau"] == pytest.approx(
        1.0
    )  # else d0, a 3 of the assessors, would be a 0 of the labels


def test_runs_that_tie_have_no_correlation() -> None:
    none = HUMAN.with_columns(relevance=pl.lit(0, pl.Int16), gain=pl.lit(0.0, pl.Float32))
    one = agree(HUMAN, {"x": none}, runs=systems()).orderings["x"]["nDCG@10"]
    assert (one["kendall_tau"], one["tau_ap"], one["spearman"]) == (None, None, None)
    assert one["undefined"] == "by the labels all runs have the same nDCG@10"
    assert one["ci"]["kendall_tau"] is None
    assert one["max_drop"] == 1.5


def test_two_runs_have_no_top_half_and_one_has_no_order() -> None:
    runs = systems()
    two = {name: runs[name] for name in ("r0", "r1")}
    one = agree(HUMAN, {"x": INVERTED}, runs=two).orderings["x"]["nDCG@10"]
    assert one["top_half"] == {"runs": 1, "kendall_tau": None, "tau_ap": None, "spearman": None, "rbo": None}
    assert one["undefined"] == "the top half is a single run"
    with pytest.raises(UsageError, match="1 run has no order"):
        agree(HUMAN, {"x": INVERTED}, runs={"r0": runs["r0"]})


def test_a_run_of_other_topics_is_an_error() -> None:
    alien = systems()["r0"].with_columns(query_id=pl.lit("x") + pl.col("query_id"))
    with pytest.raises(UsageError, match="shares no topic"):
        agree(HUMAN, {"x": INVERTED}, runs={"a": alien, "b": alien})


def test_one_topic_gives_a_correlation_without_an_interval() -> None:
    human, labels = (f.filter(pl.col("query_id") == "q0") for f in (HUMAN, INVERTED))
    one = agree(human, {"x": labels}, runs=systems()).orderings["x"]["nDCG@10"]
    assert one["kendall_tau"] is not None
    assert set(one["ci"].values()) == {None}


# -- DL19 ----------------------------------------------------------------------------------------------------


def test_dl19_orderings_are_those_of_the_research(data_dir: Path) -> None:
    folder = data_dir / "dl19_passage"
    names = {"umbrela": "qrels.umbrela_gpt4.txt", "flan": "qrels.flant5large_4prompts.txt"}
    labels = {name: read_qrels(folder / file) for name, file in names.items()}
    found = agree(
        read_qrels(folder / "qrels.human.txt"),
        labels,
        runs=run_paths([folder / "runs" / "*.run.gz"]),
        resamples=200,
    ).orderings
    umbrela, flan = found["umbrela"]["nDCG@10"], found["flan"]["nDCG@10"]
    assert umbrela["runs"] == 37
    assert umbrela["top_half"]["runs"] == 18
    assert (umbrela["max_drop"], flan["max_drop"]) == (7, 5)
    assert [flan["kendall_tau"], flan["top_half"]["kendall_tau"]] == pytest.approx([0.904, 0.830], abs=5e-4)
    # test1 and TUA1-1 are 1e-6 apart by the judgments: their order is rounding's, in 666 pairs and 153
    assert umbrela["kendall_tau"] == pytest.approx(0.850, abs=5e-4)
    assert umbrela["kendall_tau"] - 2 / 666 == pytest.approx(0.847, abs=5e-4)
    assert umbrela["top_half"]["kendall_tau"] - 2 / 153 == pytest.approx(0.686, abs=5e-4)
    assert umbrela["tau_ap"] == pytest.approx(0.792, abs=5e-4)
    low, high = umbrela["ci"]["kendall_tau"]
    assert low < umbrela["kendall_tau"] < high
