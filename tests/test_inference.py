"""Intervals, p-values and power, against SciPy's and statsmodels' on the same numbers and by enumeration."""

from __future__ import annotations

import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from harness import inference
from harness.errors import UnknownName
from harness.inference import (
    CORRECTIONS,
    RESAMPLES,
    adjusted,
    detectable,
    intervals,
    sign_flips,
    t_test,
    topics_needed,
    wilcoxon,
)


def skewed(topics: int, seed: int = 7, columns: int = 1) -> np.ndarray:
    """Differences with a long tail to the right, around 0."""
    return np.random.default_rng(seed).exponential(0.1, (topics, columns)) - 0.08


def by_enumeration(delta: np.ndarray) -> float:
    """How many of the 2^n sign patterns give a sum at least as far from 0."""
    signs = np.array(list(itertools.product([1.0, -1.0], repeat=len(delta))))
    return float(np.mean(np.abs(signs @ delta) >= abs(delta.sum()) - 1e-9))


# -- the bootstrap -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("topics", [5, 40, 300])
def test_the_interval_is_scipy_s_bca_of_the_same_replicates(topics: int) -> None:
    delta = skewed(topics)
    low, high = intervals(delta, seed=3)
    theirs = stats.bootstrap(
        (delta[:, 0],),
        np.mean,
        n_resamples=0,
        method="BCa",
        bootstrap_result=SimpleNamespace(
            bootstrap_distribution=inference._resampled(delta, 3)[:, 0], standard_error=None
        ),
    ).confidence_interval
    assert (low[0], high[0]) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    assert low[0] < delta.mean() < high[0]


def test_the_replicates_are_means_of_topics_drawn_with_replacement() -> None:
    delta = skewed(30)
    found = inference._resampled(delta, 0)
    assert found.shape == (RESAMPLES, 1)
    assert found.mean() == pytest.approx(delta.mean(), abs=1e-3)
    assert found.std() == pytest.approx(delta.std() / math.sqrt(30), rel=0.03)


def test_replicates_that_equal_the_mean_count_half_however_they_are_rounded() -> None:
    """Reciprocal ranks tie often; a sum rounded the other way must not move the interval."""
    delta = np.random.default_rng(0).choice([1 / 3, -1 / 3, 1 / 6, 0.0], (12, 1))
    alone, beside = intervals(delta), intervals(np.hstack([delta, skewed(12), delta[::-1] * 3]))
    assert (alone[0][0], alone[1][0]) == pytest.approx((beside[0][0], beside[1][0]), abs=1e-12)
    scaled = intervals(delta * 3)
    assert (alone[0][0] * 3, alone[1][0] * 3) == pytest.approx((scaled[0][0], scaled[1][0]), abs=1e-12)


def test_columns_are_resampled_together_and_alone_alike() -> None:
    delta = skewed(25, columns=3)
    together = intervals(delta, seed=1)
    for column in range(3):
        alone = intervals(delta[:, [column]], seed=1)
        assert (alone[0][0], alone[1][0]) == pytest.approx((together[0][column], together[1][column]))


def test_the_interval_of_the_reverse_is_the_reverse() -> None:
    delta = skewed(31)
    (low,), (high,) = intervals(delta)
    (other_low,), (other_high,) = intervals(-delta)
    assert (low, high) == pytest.approx((-other_high, -other_low), abs=1e-12)


def test_the_interval_covers_the_mean_in_about_95_of_100() -> None:
    rng = np.random.default_rng(5)
    samples = rng.gamma(2.0, 0.1, (40, 400)) - 0.2
    low, high = intervals(samples)
    covered = np.mean((low <= 0) & (high >= 0))
    assert 0.90 <= covered <= 0.98


def test_no_spread_gives_the_mean_and_no_difference_gives_zero() -> None:
    low, high = intervals(np.column_stack([np.full(8, 0.1), np.zeros(8)]))
    assert low == pytest.approx([0.1, 0.0], abs=1e-12)
    assert high == pytest.approx([0.1, 0.0], abs=1e-12)
    assert (low[1], high[1]) == (0.0, 0.0)


def test_a_single_topic_says_nothing_unless_nothing_differs() -> None:
    low, high = intervals(np.array([[0.3, 0.0]]))
    assert (low[0], high[0]) == (-math.inf, math.inf)
    assert (low[1], high[1]) == (0.0, 0.0)
    noisy = intervals(np.array([[0.0, 0.0]]), np.array([[0.1, 0.0], [-0.1, 0.0]]))
    assert (noisy[0][0], noisy[1][0]) == (-math.inf, math.inf)
    assert (noisy[0][1], noisy[1][1]) == (0.0, 0.0)


def test_noise_widens_like_an_error_of_its_own() -> None:
    delta, rng = np.random.default_rng(2).normal(0.05, 0.2, (60, 1)), np.random.default_rng(3)
    noise = rng.normal(0, 0.04, (200, 1))
    (low,), (high,) = intervals(delta)
    (wide_low,), (wide_high,) = intervals(delta, noise)
    half = 1.96 * math.sqrt(delta.var() / 60 + noise.var())
    assert wide_high - wide_low == pytest.approx(2 * half, rel=0.06)
    assert wide_low < low < high < wide_high


def test_a_column_without_noise_is_as_if_there_were_none() -> None:
    delta, noise = np.column_stack([skewed(20), np.full(20, 0.25), skewed(20, 8)]), np.zeros((50, 3))
    noise[:, 2] = np.random.default_rng(0).normal(0, 0.1, 50)
    plain, both = intervals(delta), intervals(delta, noise)
    for quiet, noisy in zip(plain, both, strict=True):
        np.testing.assert_array_equal(quiet[:2], noisy[:2])
        assert quiet[2] != noisy[2]
    assert sign_flips(delta, noise)[:2] == pytest.approx(sign_flips(delta)[:2], abs=1e-15)


# -- the permutation test ------------------------------------------------------------------------------------


@pytest.mark.parametrize("topics", [2, 5, 9, 13])
def test_few_topics_get_scipy_s_exact_p(topics: int) -> None:
    delta = np.round(np.random.default_rng(topics).normal(0.1, 0.2, topics), 3)
    theirs = stats.permutation_test(
        (delta, np.zeros(topics)),
        lambda a, b, axis: np.mean(a - b, axis=axis),
        permutation_type="samples",
        n_resamples=np.inf,
        vectorized=True,
    ).pvalue
    assert sign_flips(delta[:, None])[0] == pytest.approx(theirs, abs=1e-12)


halves = st.lists(st.integers(-4, 4).map(lambda n: n / 8), min_size=2, max_size=9)


@settings(max_examples=60, deadline=None)
@given(halves)
def test_p_is_exact_where_sums_tie(delta: list[float]) -> None:
    values = np.array(delta)
    assert sign_flips(values[:, None])[0] == pytest.approx(by_enumeration(values))


def test_topics_without_a_difference_do_not_change_p() -> None:
    delta = np.array([0.1, 0.2, 0.3, 0.2, 0.1, -0.05])
    padded = np.concatenate([delta, np.zeros(54)])
    assert sign_flips(padded[:, None])[0] == sign_flips(delta[:, None])[0] == pytest.approx(4 / 64)


def test_the_drawn_p_is_near_the_exact_one() -> None:
    delta = np.random.default_rng(5).normal(0.04, 0.1, 16)
    found = sign_flips(delta[:, None])[0]
    assert found == pytest.approx(by_enumeration(delta), abs=0.015)
    assert found * (RESAMPLES + 1) == pytest.approx(round(found * (RESAMPLES + 1)))


def test_p_is_one_for_no_difference_and_never_zero() -> None:
    delta = np.column_stack([np.zeros(50), np.full(50, 0.5)])
    assert sign_flips(delta).tolist() == [1.0, pytest.approx(1 / (RESAMPLES + 1))]


def test_p_is_uniform_where_nothing_is_to_be_found() -> None:
    p = sign_flips(np.random.default_rng(11).normal(0, 0.1, (30, 600)))
    assert np.mean(p < 0.05) == pytest.approx(0.05, abs=0.025)
    assert p.mean() == pytest.approx(0.5, abs=0.05)


def test_noise_makes_p_larger() -> None:
    delta = np.random.default_rng(1).normal(0.05, 0.1, (40, 1))
    noise = np.random.default_rng(2).normal(0, 0.03, (200, 1))
    assert sign_flips(delta)[0] < 0.01 < sign_flips(delta, noise)[0]


def test_p_with_noise_is_uniform_where_the_labels_alone_differ() -> None:
    rng = np.random.default_rng(4)
    error = rng.normal(0, 0.03, 300)
    delta = rng.normal(0, 0.1, (40, 300)) + error
    p = sign_flips(delta, rng.normal(0, 0.03, (200, 300)))
    assert np.mean(p < 0.05) == pytest.approx(0.05, abs=0.035)
    assert np.mean(sign_flips(delta) < 0.05) > 0.15


def test_one_seed_one_answer() -> None:
    delta = skewed(50, columns=2)
    for function in (lambda s: sign_flips(delta, seed=s), lambda s: np.concatenate(intervals(delta, seed=s))):
        np.testing.assert_array_equal(function(5), function(5))
        assert (function(5) != function(6)).any()
        np.testing.assert_allclose(function(5), function(6), atol=0.02)


@pytest.mark.parametrize("seed", [0, 2**32, 2**63, 2**64 - 1, -1])
def test_any_whole_number_is_a_seed(seed: int) -> None:
    """Two large ones are two seeds, too."""
    delta = skewed(20)
    assert not np.array_equal(intervals(delta, seed=seed), intervals(delta, seed=seed - 1))


# -- the ordinary tests --------------------------------------------------------------------------------------


@pytest.mark.parametrize("topics", [2, 5, 43, 1000])
def test_t_is_scipy_s(topics: int) -> None:
    delta = skewed(topics)[:, 0]
    theirs = stats.ttest_rel(delta, np.zeros(topics))
    assert t_test(delta) == pytest.approx((theirs.statistic, theirs.pvalue), rel=1e-9)


@pytest.mark.parametrize("delta", [[0.0] * 5, [0.1] * 8, [0.3], [0.3 - 0.2, 0.1, 0.2 - 0.1, 0.4 - 0.3]])
def test_t_is_undefined_where_topics_do_not_differ(delta: list[float]) -> None:
    assert all(map(math.isnan, t_test(np.array(delta))))


@pytest.mark.parametrize("topics", [3, 12, 80])
def test_wilcoxon_is_scipy_s_without_the_ties(topics: int) -> None:
    delta = np.round(skewed(topics)[:, 0], 2)
    delta[::4] = 0.0
    theirs = stats.wilcoxon(delta[delta != 0]).pvalue
    assert wilcoxon(delta) == pytest.approx(theirs)


def test_wilcoxon_is_undefined_where_nothing_differs() -> None:
    assert math.isnan(wilcoxon(np.zeros(4)))
    assert wilcoxon(np.array([0.2])) == 1.0


# -- many comparisons ----------------------------------------------------------------------------------------

p_values = st.lists(st.floats(0, 1), min_size=1, max_size=30)


@settings(max_examples=60, deadline=None)
@given(p_values)
def test_corrections_are_statsmodels(given_p: list[float]) -> None:
    from statsmodels.stats.multitest import multipletests

    p = np.array(given_p)
    for ours, theirs in (("holm", "holm"), ("bonferroni", "bonferroni"), ("fdr", "fdr_bh")):
        np.testing.assert_allclose(adjusted(p, ours), multipletests(p, method=theirs)[1], atol=1e-12)
    np.testing.assert_array_equal(adjusted(p, "none"), p)


def test_holm_by_hand() -> None:
    assert adjusted(np.array([0.04, 0.01, 0.03]), "holm").tolist() == pytest.approx([0.06, 0.03, 0.06])


@pytest.mark.parametrize("correction", CORRECTIONS)
def test_nothing_to_correct(correction: str) -> None:
    assert adjusted(np.array([]), correction).size == 0
    assert adjusted(np.array([0.3]), correction).tolist() == [0.3]


def test_an_unknown_correction_names_the_known() -> None:
    with pytest.raises(UnknownName, match=r"unknown correction 'bonferoni'. Did you mean 'bonferroni'"):
        adjusted(np.array([0.1]), "bonferoni")


# -- power ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("topics", [2, 3, 5, 43, 200, 1000, 50_000])
def test_the_detectable_difference_is_statsmodels(topics: int) -> None:
    from statsmodels.stats.power import TTestPower

    theirs = TTestPower().solve_power(nobs=topics, alpha=0.05, power=0.8)
    assert detectable(0.2, topics) == pytest.approx(0.2 * float(np.squeeze(theirs)), rel=1e-4)


@pytest.mark.parametrize("effect", [0.02, 0.1, 0.3, 0.5, 1.0, 2.0])
def test_the_topics_needed_are_statsmodels(effect: float) -> None:
    from statsmodels.stats.power import TTestPower

    theirs = TTestPower().solve_power(effect_size=effect, alpha=0.05, power=0.8)
    assert topics_needed(effect * 0.3, 0.3) == topics_needed(-effect * 0.3, 0.3) == math.ceil(float(theirs))


@settings(max_examples=200, deadline=None)
@given(st.floats(1e-6, 2.0), st.floats(1e-12, 2.0), st.integers(2, 10**6))
def test_power_is_a_number_whatever_the_sizes(delta: float, spread: float, topics: int) -> None:
    """SciPy's noncentral t is NaN far out in a tail; no result may be."""
    found = detectable(spread, topics)
    assert 0 < found < math.inf
    needed = topics_needed(delta, spread)
    assert needed is None or 2 <= needed <= 10**7
    if needed is not None and needed > 2:
        assert detectable(spread, needed) <= delta * (1 + 1e-6) < detectable(spread, needed - 1) * (1 + 2e-6)


def test_power_at_the_edges() -> None:
    assert math.isnan(detectable(0.2, 1))
    assert detectable(0.0, 10) == 0.0
    assert topics_needed(0.0, 0.2) is None
    assert topics_needed(0.1, 0.0) == 2
    assert topics_needed(1e-7, 1.0) is None
