"""Prediction-powered means: against ppi-python, exact reductions, coverage, and what a precision costs."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats

from harness.errors import UsageError
from harness.ppi import FEWEST, costs, powered_mean
from harness.trec import read_qrels

Y = np.array([0.31, 0.72, 0.05, 0.88, 0.44, 0.63, 0.0, 0.91, 0.57, 0.26])
F = np.array([0.42, 0.80, 0.20, 0.83, 0.61, 0.60, 0.17, 0.97, 0.49, 0.45])
U = np.array([0.52, 0.11, 0.77, 0.36, 0.69, 0.94, 0.28, 0.47, 0.58, 0.83, 0.05, 0.66, 0.39, 0.71, 0.90, 0.25])


def sample(rng, n, others, correlation):
    """Normal values of mean 0 and predictions, biased by 1, that correlate with them."""
    f = rng.standard_normal(n + others)
    y = correlation * f[:n] + math.sqrt(1 - correlation**2) * rng.standard_normal(n)
    return y, f[:n] + 1, f[n:] + 1


# -- against ppi-python 0.2.3 (ppi_mean_pointestimate, ppi_mean_ci) ------------------------------------------


@pytest.mark.parametrize(
    ("lam", "value", "low", "high"),
    [
        (0.0, 0.477, 0.2882716493704298, 0.6657283506295701),
        (0.5, 0.4659375, 0.3325322805407465, 0.5993427194592535),
        (1.0, 0.454875, 0.3121396603618203, 0.5976103396381797),
    ],
)
def test_a_given_lambda_gives_the_package_s_estimate(lam, value, low, high) -> None:
    found = powered_mean(Y, F, U, lam=lam)
    assert found.value == pytest.approx(value)
    # theirs: normal, sums of squares over n and N, of the others; ours: t, over n - 1, of all predictions
    theirs = ((high - low) / 2 / stats.norm.ppf(0.975)) ** 2
    gold = (theirs - lam**2 * U.var() / len(U)) * len(Y) / (len(Y) - 1)
    ours = gold + lam**2 * np.concatenate([F, U]).var(ddof=1) / len(U)
    assert found.error == pytest.approx(math.sqrt(ours))
    assert found.freedom == len(Y) - 1


def test_a_large_sample_gives_the_package_s_interval() -> None:
    z = np.random.default_rng(7).random((22000, 2))
    f, y = z[:, 0], 0.6 * z[:, 0] + 0.4 * z[:, 1] ** 2
    for lam, low, high in (
        (0, 0.42426189094200883, 0.44254847702034983),
        (1, 0.4264126033373262, 0.443189550151471),
        (None, 0.42846320869517135, 0.4398552990137375),
    ):
        found = powered_mean(y[:2000], f[:2000], f[2000:], lam=lam)
        assert (found.low, found.high) == pytest.approx((low, high), abs=2e-5)


# -- reductions ----------------------------------------------------------------------------------------------


@given(
    st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), min_size=2, max_size=30),
    st.lists(st.integers(-9, 9), max_size=20),
)
def test_lambda_0_is_the_t_interval_of_the_true_values(pairs, others) -> None:
    y, f = np.array(pairs, dtype=float).T
    found = powered_mean(y, f, np.array(others, dtype=float), lam=0)
    error = y.std(ddof=1) / math.sqrt(len(y))
    assert (found.value, found.error) == pytest.approx((y.mean(), error), abs=1e-9)
    reach = stats.t.ppf(0.975, len(y) - 1) * error
    assert (found.low, found.high) == pytest.approx((y.mean() - reach, y.mean() + reach), abs=1e-8)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), min_size=FEWEST, max_size=30),
    st.lists(st.integers(-9, 9), min_size=1, max_size=20),
)
@example([(0, 2), (-1, 1), (-1, 1), (-1, 1), (-1, 1)], [0])  # without the first, all predictions are equal
def test_the_error_is_a_jackknife_of_the_whole_estimate(pairs, others) -> None:
    """The estimate again without each true value: nothing but plain loops."""
    y, f = np.array(pairs, dtype=float).T
    u = np.array(others, dtype=float)

    def by_hand(y, f) -> tuple[float, float]:
        n = len(y)
        if np.ptp(y) == 0 or np.ptp(f) == 0:
            return y.mean(), 0.0
        fit = stats.linregress(f, y)
        share = fit.rvalue**2
        worth = 1 - (1 - share) / (share * (n - 2)) if share > 1e-12 else 0.0
        lam = min(1.0, max(0.0, fit.slope) * max(0.0, worth) * len(u) / (len(u) + n))
        return y.mean() + lam * (u.mean() - f.mean()), lam

    value, lam = by_hand(y, f)
    found = powered_mean(y, f, u)
    assert (found.value, found.lam) == pytest.approx((value, lam), abs=1e-7)
    if lam > 1e-9:
        kept = [np.arange(len(y)) != i for i in range(len(y))]
        left_out = np.array([by_hand(y[k], f[k])[0] for k in kept])
        jackknife = (len(y) - 1) / len(y) * ((left_out - left_out.mean()) ** 2).sum()
        spread = np.concatenate([f, u]).var(ddof=1)
        assert found.error**2 == pytest.approx(jackknife + lam**2 * spread / len(u), abs=1e-7)
        assert found.freedom == len(y) - 2


def test_perfect_predictions_are_as_good_as_true_values() -> None:
    rng = np.random.default_rng(0)
    y = rng.normal(0.5, 0.2, 20)
    widths = []
    for others in (50, 500, 5000):
        u = rng.normal(0.5, 0.2, others)
        found = powered_mean(y, y, u)
        assert found.lam == pytest.approx(others / (others + 20))
        assert found.value == pytest.approx(np.concatenate([y, u]).mean())
        assert found.error == pytest.approx(0.2 / math.sqrt(others + 20), rel=0.15)
        widths.append(found.half_width)
    assert widths[0] > 2.5 * widths[1] > 6 * widths[2]


def test_useless_predictions_are_left_out() -> None:
    rng, alone, together = np.random.default_rng(1), [], []
    for _ in range(300):
        y, f, u = sample(rng, 20, 200, 0.0)
        one = powered_mean(y, f, u)
        alone.append(powered_mean(y, f, u, lam=0).half_width)
        together.append((one.half_width, one.lam))
    width, lam = np.mean(together, axis=0)
    assert lam < 0.06
    assert np.mean([used == 0 for _, used in together]) > 0.75
    assert width < 1.03 * np.mean(alone)


def test_inverted_and_constant_predictions_count_nothing() -> None:
    own = powered_mean(Y, F, U, lam=0)
    for f, u in ((1 - F, 1 - U), (np.full(10, 0.5), U), (np.full(10, 0.5), np.full(16, 0.5))):
        assert powered_mean(Y, f, u) == own
    assert powered_mean(Y, F, U[:0]) == own


def test_a_shift_and_a_scale_of_the_predictions_change_nothing_but_lambda() -> None:
    plain, moved = powered_mean(Y, F, U), powered_mean(Y, 2 * F + 7, 2 * U + 7)
    assert moved.lam == pytest.approx(plain.lam / 2)
    assert (moved.value, moved.low) == pytest.approx((plain.value, plain.low))


def test_too_few_true_values_leave_the_predictions_out() -> None:
    few = FEWEST - 1
    assert powered_mean(Y[:few], F[:few], U) == powered_mean(Y[:few], F[:few], U, lam=0)
    assert powered_mean(Y[:FEWEST], F[:FEWEST], U).lam > 0


def test_values_that_never_change_have_no_width() -> None:
    found = powered_mean(np.zeros(6), F[:6], U)
    assert (found.value, found.low, found.high, found.lam) == (0, 0, 0, 0)


# -- coverage ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [10, 20])
@pytest.mark.parametrize("correlation", [0.0, 0.6, 0.9])
def test_intervals_of_few_contain_the_truth(n, correlation) -> None:
    rng, trials = np.random.default_rng(n), 1200
    inside = published = 0
    for _ in range(trials):
        y, f, u = sample(rng, n, 100, correlation)
        one = powered_mean(y, f, u)
        inside += one.low <= 0 <= one.high
        lam = np.clip(np.cov(y, f)[0, 1] / ((1 + n / 100) * np.concatenate([f, u]).var(ddof=1)), 0, 1)
        value = y.mean() + lam * (u.mean() - f.mean())
        error = math.sqrt((y - lam * f).var(ddof=1) / n + lam**2 * u.var(ddof=1) / 100)
        published += abs(value) <= 1.96 * error
    assert inside / trials >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / trials)
    if n == 10:
        assert published / trials < 0.93  # why the quantiles and the error are not the paper's


def test_pairs_in_the_shape_of_the_field() -> None:
    """Share of relevant pairs, 200 judged of 7,000, with a model's labels on LLMJudge whose bias is +0.19:
    humans alone 0.948 coverage, width 0.123; lambda 1 0.959, 0.143; tuned 0.962, 0.111. The margins of that
    table (27 % relevant, a label in 79 % of them and in 34 % of the rest) are drawn again."""
    rng = np.random.default_rng(0)
    y = (rng.random(7000) < 0.27).astype(float)
    f = (rng.random(7000) < np.where(y > 0, 0.792, 0.337)).astype(float)
    assert f.mean() - y.mean() == pytest.approx(0.19, abs=0.02)
    expected = {0.0: (0.948, 0.123), 1.0: (0.959, 0.143), None: (0.962, 0.111)}
    found: dict[float | None, list[tuple[bool, float]]] = {lam: [] for lam in expected}
    for _ in range(1000):
        order = rng.permutation(7000)
        gold, rest = order[:200], order[200:]
        for lam, seen in found.items():
            one = powered_mean(y[gold], f[gold], f[rest], lam=lam)
            seen.append((one.low <= y.mean() <= one.high, one.high - one.low))
    for lam, (coverage, width) in expected.items():
        inside, mean = np.mean(found[lam], axis=0)
        assert inside == pytest.approx(coverage, abs=0.025)
        assert mean == pytest.approx(width, abs=0.004)


def test_dl19_pairs_show_the_same_shape(data_dir: Path) -> None:
    """Labels that are too generous by 0.4: lambda 1 is wider than humans alone, tuned is narrower."""
    human, labels = (
        read_qrels(data_dir / "dl19_passage" / f"qrels.{kind}.txt")
        for kind in ("human", "llama3-8b_4prompts")
    )
    both = human.join(labels, on=["query_id", "doc_id"], how="inner", suffix="_l").sort("query_id", "doc_id")
    y, f = ((both[c] >= 2).to_numpy().astype(float) for c in ("relevance", "relevance_l"))
    assert f.mean() - y.mean() == pytest.approx(0.412, abs=1e-3)
    rng, widths, inside = np.random.default_rng(0), [], []
    for _ in range(400):
        order = rng.permutation(len(y))
        gold, rest = order[:200], order[200:]
        trial = [powered_mean(y[gold], f[gold], f[rest], lam=lam) for lam in (0.0, 1.0, None)]
        widths.append([one.half_width for one in trial])
        inside.append([one.low <= y.mean() <= one.high for one in trial])
    # of 1,000 trials with normal quantiles and the published lambda: 0.123, 0.150, 0.117
    assert 2 * np.mean(widths, axis=0) == pytest.approx([0.123, 0.150, 0.117], abs=0.003)
    assert (np.mean(inside, axis=0) > 0.92).all()


# -- what a precision costs ----------------------------------------------------------------------------------


def test_humans_alone_cost_what_the_t_interval_says() -> None:
    for cost in costs(Y, F, U, precisions=[0.3, 0.2, 0.1, 0.03]):
        spread = Y.std(ddof=1)
        reach = [stats.t.ppf(0.975, n - 1) * spread / math.sqrt(n) for n in (cost.alone, cost.alone - 1)]
        assert reach[0] <= cost.half_width < reach[1]


def test_a_forecast_is_what_then_comes_out() -> None:
    """Twenty true values tell how many a narrower interval takes; with so many it is about as narrow."""
    rng, ratio = np.random.default_rng(4), []
    for _ in range(200):
        y, f, u = sample(rng, 20, 300, 0.8)
        [cost] = costs(y, f, u, precisions=[powered_mean(y, f, u).half_width / 1.3])
        assert cost.powered is not None
        assert cost.powered < cost.alone
        got = powered_mean(*sample(rng, cost.powered, 320 - cost.powered, 0.8))
        ratio.append(got.half_width / cost.half_width)
    assert np.mean(ratio) == pytest.approx(1.0, abs=0.08)


def test_a_precision_beyond_the_labeled_topics_has_no_price_with_labels() -> None:
    first, last = costs(Y, F, U, precisions=[0.15, 0.001])
    assert first.powered is not None
    assert first.powered <= first.alone
    assert last.powered is None
    assert last.alone > 10_000


def test_default_precisions_are_round_and_about_the_present_one() -> None:
    now = powered_mean(Y, F, U, lam=0).half_width
    found = costs(Y, F, U)
    assert [cost.half_width for cost in found] == [0.2, 0.15, 0.1, 0.07]
    assert all(now / 4 <= cost.half_width <= now for cost in found)
    assert [cost.alone for cost in found] == sorted(cost.alone for cost in found)


# -- what is refused -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gold", "predicted", "others", "lam", "words"),
    [
        (Y[:0], F[:0], U, None, "0 true value"),
        (Y[:1], F[:1], U, None, "1 true value says nothing"),
        (Y, F[:9], U, None, "10 true values, but 9 predictions"),
        (np.append(Y[:9], np.nan), F, U, None, "not finite"),
        (Y, F, np.append(U, np.inf), None, "not finite"),
        (Y, F, U, 1.5, "lambda 1.5 is not between"),
        (Y, F, U, -0.1, "is not between"),
    ],
)
def test_bad_numbers_are_refused(gold, predicted, others, lam, words) -> None:
    with pytest.raises(UsageError, match=words):
        powered_mean(gold, predicted, others, lam=lam)


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan])
def test_a_precision_is_above_0(bad) -> None:
    with pytest.raises(UsageError, match="half-width above 0"):
        costs(Y, F, U, precisions=[0.1, bad])
