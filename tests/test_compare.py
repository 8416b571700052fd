"""The paired comparison: against scipy and by enumeration, and at the edges where others give NaN."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.compare import PER_TOPIC, Comparison, compare
from harness.errors import SchemaError, UnknownName, UsageError
from harness.measure import measure
from harness.ranking import rank


def frame(**runs: list[float | None]) -> pl.DataFrame:
    rows = [(run, f"q{i:03}", "AP", value) for run, values in runs.items() for i, value in enumerate(values)]
    return pl.DataFrame(rows, schema=PER_TOPIC, orient="row")


def one(base: list[float], candidate: list[float], seed: int = 0) -> Comparison:
    return compare(frame(a=base, b=candidate), "a", "b", seed=seed)["AP"]


def by_enumeration(delta: list[float]) -> float:
    """How many of the 2^n sign patterns give a sum at least as far from 0."""
    flips = np.array(list(itertools.product([1, -1], repeat=len(delta)))) @ np.array(delta)
    return float(np.mean(np.abs(flips) >= abs(sum(delta)) - 1e-9))


# -- the numbers ---------------------------------------------------------------------------------------------


def test_means_difference_and_counts() -> None:
    found = one([0.25, 0.5, 0.5, 0.0], [0.5, 0.5, 0.25, 0.75])
    assert (found.base, found.candidate, found.delta) == (0.3125, 0.5, 0.1875)
    assert (found.wins, found.ties, found.losses, found.topics) == (2, 1, 1, 4)


@pytest.mark.parametrize("size", [2, 5, 10])
def test_few_topics_get_the_exact_permutation_p(size: int) -> None:
    delta = np.round(np.random.default_rng(size).normal(0.1, 0.2, size), 3).tolist()
    assert one([0.0] * size, delta).p == pytest.approx(by_enumeration(delta))


def test_topics_without_a_difference_do_not_change_p() -> None:
    delta = [0.1, 0.2, 0.3, 0.2, 0.1, -0.05]
    assert one([0.0] * 6, delta).p == one([0.0] * 60, [*delta, *[0.0] * 54]).p == pytest.approx(4 / 64)


def test_many_topics_are_drawn_and_p_is_never_zero() -> None:
    found = one([0.0] * 50, [0.5] * 25 + [0.6] * 25)
    assert found.p == pytest.approx(2 / 10_000)
    assert found.verdict == "better"


def test_the_drawn_p_is_near_the_exact_one() -> None:
    delta = np.random.default_rng(5).normal(0.04, 0.1, 16).tolist()
    assert one([0.0] * 16, delta).p == pytest.approx(by_enumeration(delta), abs=0.015)


def test_the_interval_is_scipy_s_bca() -> None:
    from scipy.stats import bootstrap

    delta = np.random.default_rng(7).exponential(0.1, 40) - 0.05
    theirs = bootstrap((delta,), np.mean, n_resamples=9999, method="BCa", rng=np.random.default_rng(3))
    found = one([0.0] * 40, delta.tolist(), seed=3)
    assert found.ci == pytest.approx(tuple(theirs.confidence_interval))
    assert found.ci[0] < found.delta < found.ci[1]


def test_the_same_seed_gives_the_same_and_another_nearly_the_same() -> None:
    delta = np.random.default_rng(11).normal(0.02, 0.1, 60).tolist()
    first, again, other = (one([0.0] * 60, delta, seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert first.ci == pytest.approx(other.ci, abs=0.003)


def test_row_order_does_not_matter() -> None:
    whole = frame(a=[0.1, 0.5, 0.3, 0.9], b=[0.2, 0.4, 0.6, 0.9])
    assert compare(whole, "a", "b") == compare(whole.reverse(), "a", "b")


# -- the verdict ---------------------------------------------------------------------------------------------


def test_better_worse_and_the_reverse() -> None:
    rng = np.random.default_rng(2)
    low = rng.uniform(0.2, 0.4, 30)
    high = (low + rng.uniform(0.0, 0.2, 30)).tolist()
    there, back = one(low.tolist(), high), one(high, low.tolist())
    assert (there.verdict, back.verdict) == ("better", "worse")
    assert there.delta == -back.delta
    assert (there.wins, there.losses) == (back.losses, back.wins)


def test_no_clear_difference_is_inconclusive() -> None:
    values = np.random.default_rng(4).uniform(0, 1, (2, 20)).tolist()
    assert one(*values).verdict == "inconclusive"


def test_an_interval_without_0_is_not_enough() -> None:
    found = one([0.1, 0.2, 0.3], [0.2, 0.4, 0.6])
    assert found.ci[0] > 0
    assert found.p == 0.25
    assert found.verdict == "inconclusive"


def test_identical_systems_are_equivalent_and_never_nan() -> None:
    found = one([0.1, 0.7, 0.0], [0.1, 0.7, 0.0])
    assert (found.verdict, found.p, found.delta, found.ci) == ("equivalent", 1.0, 0.0, (0.0, 0.0))


def test_differences_by_rounding_are_ties() -> None:
    found = one([0.1 + 0.2, 0.5], [0.3, 0.5])
    assert (found.ties, found.verdict) == (2, "equivalent")


def test_the_same_difference_on_every_topic() -> None:
    found = one([0.1] * 8, [0.2] * 8)
    assert found.ci == pytest.approx((0.1, 0.1))
    assert found.p == pytest.approx(2 / 256)
    assert found.verdict == "better"


def test_one_topic_is_inconclusive() -> None:
    found = one([0.1], [0.9])
    assert (found.p, found.verdict, found.ci) == (1.0, "inconclusive", (-math.inf, math.inf))
    assert one([0.4], [0.4]).verdict == "equivalent"


tenths = st.integers(0, 10).map(lambda n: n / 10)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(tenths, tenths), min_size=2, max_size=9))
def test_every_result_is_a_number_and_p_is_exact(pairs: list[tuple[float, float]]) -> None:
    base, candidate = (list(side) for side in zip(*pairs, strict=True))
    found = one(base, candidate)
    assert found.ci[0] <= found.ci[1]
    assert all(map(math.isfinite, [*found.ci, found.delta, found.p]))
    assert found.wins + found.ties + found.losses == found.topics == len(pairs)
    assert found.p == pytest.approx(by_enumeration([c - b for b, c in pairs]))


# -- what goes in and comes out ------------------------------------------------------------------------------


def test_every_measure_in_order_and_missing_topics_as_zeros() -> None:
    qrels = pl.DataFrame(
        {"query_id": ["1", "2"], "doc_id": ["d1", "d1"], "relevance": [1, 1], "gain": [1.0, 1.0]},
        schema_overrides={"relevance": pl.Int16, "gain": pl.Float32},
    ).with_columns(assessor=pl.lit("human"))
    whole = rank(pl.DataFrame({"query_id": ["1", "2"], "doc_id": ["d1", "d1"], "score": [1.0, 1.0]}))
    half = whole.filter(query_id="1")
    found = compare(
        measure({"whole": whole, "half": half}, qrels, ["RR", "nDCG@10"]).per_topic, "whole", "half"
    )
    assert list(found) == ["RR", "nDCG@10"]
    assert (found["RR"].delta, found["RR"].losses, found["RR"].ties) == (-0.5, 1, 1)


def test_topics_where_a_measure_is_undefined_are_left_out() -> None:
    found = compare(frame(a=[0.5, None, 0.2], b=[0.6, 0.9, 0.2]), "a", "b")["AP"]
    assert (found.topics, found.wins, found.ties) == (2, 1, 1)


def test_json_holds_what_scripts_rely_on() -> None:
    found = json.loads(json.dumps(one([0.1, 0.2, 0.4], [0.2, 0.2, 0.3]).to_json()))
    assert {"base", "candidate", "delta", "ci", "p", "wins", "ties", "losses", "verdict"} <= set(found)
    assert len(found["ci"]) == 2


def test_an_unknown_run_names_the_near_ones() -> None:
    with pytest.raises(UnknownName, match="Did you mean 'bm25'"):
        compare(frame(bm25=[0.1], dense=[0.2]), "bm26", "dense")


def test_other_topics_are_no_silent_comparison() -> None:
    with pytest.raises(UsageError, match="different topics: 3 and 2, 3 in all"):
        compare(frame(a=[0.1, 0.2, 0.3], b=[0.1, 0.2]), "a", "b")


def test_a_measure_that_only_one_run_has() -> None:
    whole = pl.concat([frame(a=[0.1], b=[0.2]), frame(a=[0.1]).with_columns(measure=pl.lit("RR"))])
    with pytest.raises(UsageError, match="1 and 0, 1 in all"):
        compare(whole, "a", "b")


def test_a_topic_twice() -> None:
    whole = frame(a=[0.1, 0.2], b=[0.3, 0.4])
    with pytest.raises(UsageError, match="'a' has topic 'q000' twice"):
        compare(pl.concat([whole, whole.head(1)]), "a", "b")


def test_defined_nowhere() -> None:
    with pytest.raises(UsageError, match="defined on no topic"):
        compare(frame(a=[None, 0.5], b=[0.5, None]), "a", "b")


def test_a_frame_that_is_none() -> None:
    with pytest.raises(SchemaError, match="query_id"):
        compare(pl.DataFrame({"run": ["a"], "value": [0.1]}), "a", "b")
