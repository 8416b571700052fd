"""Agreement out of counts, against scikit-learn, krippendorff, and the definitions written out."""

from __future__ import annotations

import math
import warnings
from itertools import combinations

import krippendorff
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.metrics import brier_score_loss, cohen_kappa_score, mean_absolute_error, roc_auc_score

from harness.agree_rated import krippendorff_alpha
from harness.agree_tables import (
    alphas,
    aucs,
    count_tables,
    cut,
    differences,
    distances,
    errors_of,
    interval,
    kappas,
    orders,
    pairwise,
    resampled,
)
from harness.draws import generator

GRADES = np.arange(4)
PAIRS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40)
TOPICS = st.lists(PAIRS, min_size=1, max_size=5)


def columns(pairs) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.array(pairs).T
    return a, b


def one_table(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return count_tables(np.zeros(len(a), dtype=np.int64), a, b, (1, 4, 4))


def sklearn_kappa(a, b, weights=None) -> float:
    if len(set(a)) < 2 or len(set(b)) < 2:
        return math.nan  # a rater that does not choose: ours says nothing
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        return float(cohen_kappa_score(a, b, labels=GRADES, weights=weights))


# -- kappa and alpha -----------------------------------------------------------------------------------------


@given(PAIRS)
def test_kappas_are_those_of_scikit_learn(pairs) -> None:
    a, b = columns(pairs)
    table = one_table(a, b)
    for power, weights in ((0, None), (1, "linear"), (2, "quadratic")):
        found = kappas(table, distances(GRADES, power))
        assert found == pytest.approx([sklearn_kappa(a, b, weights)], nan_ok=True)


@given(PAIRS, st.integers(1, 3))
def test_binary_kappa_is_that_of_the_cut_grades(pairs, at) -> None:
    a, b = columns(pairs)
    found = kappas(cut(one_table(a, b), at), distances(np.arange(2), 0))
    x, y = (a >= at).astype(int), (b >= at).astype(int)
    expected = math.nan if len(set(x)) < 2 or len(set(y)) < 2 else cohen_kappa_score(x, y)
    assert found == pytest.approx([expected], nan_ok=True)


def test_kappa_has_its_textbook_value_and_takes_the_grades_values_as_distances() -> None:
    # 50 proposals, two readers: 20 both yes, 15 both no, 5 and 10 apart: 0.7 seen, 0.5 by chance
    table = np.array([[[15.0, 10.0], [5.0, 20.0]]])
    assert kappas(table, distances(np.arange(2), 0)) == pytest.approx([0.4])
    # a scale with a gap: grade 4 lies further from 1 than 1 from 0, and scikit-learn knows positions only
    scale, rng = np.array([0, 1, 4]), np.random.default_rng(0)
    a, b = rng.integers(0, 3, (2, 60))
    wide = count_tables(np.zeros(60, dtype=np.int64), a, b, (1, 3, 3))
    x, y = scale[a], scale[b]
    seen, chance = ((x - y) ** 2).mean(), (np.subtract.outer(x, y) ** 2).mean()
    assert kappas(wide, distances(scale, 2)) == pytest.approx([1 - seen / chance])
    assert kappas(wide, distances(scale, 2)) != pytest.approx(kappas(wide, distances(np.arange(3), 2)))


@given(PAIRS)
def test_alphas_are_those_of_krippendorff(pairs) -> None:
    a, b = columns(pairs)
    ratings = np.stack([a, b], axis=1)
    for level in ("nominal", "ordinal"):
        package = krippendorff_alpha(ratings, 4, level)
        assert alphas(one_table(a, b), level) == pytest.approx([package], nan_ok=True)
        if len(np.unique(ratings)) > 1:
            own = krippendorff.alpha(
                ratings.T.tolist(), level_of_measurement=level, value_domain=[0, 1, 2, 3]
            )
            assert package == pytest.approx(own)
        else:
            assert math.isnan(package)


def test_alpha_of_several_raters_with_gaps_is_the_package_s() -> None:
    # the example of Krippendorff (2011), "Computing Krippendorff's alpha-reliability", section C:
    # four observers, twelve units, some values missing; nominal 0.743, ordinal 0.815
    star = -1
    by_observer = [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, star, star, star],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, star, 3],
        [star, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, star],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, star],
    ]
    ratings = np.array(by_observer).T
    assert krippendorff_alpha(ratings, 6, "nominal") == pytest.approx(0.743, abs=5e-4)
    assert krippendorff_alpha(ratings, 6, "ordinal") == pytest.approx(0.815, abs=5e-4)
    assert math.isnan(krippendorff_alpha(np.full((3, 2), -1), 4, "nominal"))


def test_a_rater_that_does_not_choose_has_no_kappa() -> None:
    a, b = np.array([0, 1, 2, 3]), np.full(4, 2)
    for power in (0, 1, 2):
        assert np.isnan(kappas(one_table(a, b), distances(GRADES, power))).all()
        assert np.isnan(kappas(one_table(b, b), distances(GRADES, power))).all()
    assert np.isfinite(alphas(one_table(a, b), "ordinal")).all()  # alpha knows one common distribution
    assert np.isnan(alphas(one_table(b, b), "ordinal")).all()


@given(PAIRS)
def test_differences_are_the_means(pairs) -> None:
    a, b = columns(pairs)
    scale = np.array([0, 1, 3, 7])
    found = differences(one_table(a, b), scale)
    assert found["accuracy"] == pytest.approx([np.mean(a == b)])
    assert found["mae"] == pytest.approx([mean_absolute_error(scale[a], scale[b])])
    assert found["bias"] == pytest.approx([np.mean(scale[b] - scale[a])])


# -- orders --------------------------------------------------------------------------------------------------


@given(TOPICS)
def test_pairwise_accuracy_is_counted_pair_by_pair(topics) -> None:
    topic = np.repeat(np.arange(len(topics)), [len(t) for t in topics])
    a, b = columns([pair for t in topics for pair in t])
    found = orders(count_tables(topic, a, b, (len(topics), 4, 4)))
    right = tied = number = 0
    for pairs in topics:  # documents of two topics are never compared
        for (h1, l1), (h2, l2) in combinations(pairs, 2):
            if h1 != h2:
                number += 1
                right += (h1 < h2) == (l1 < l2) and l1 != l2
                tied += l1 == l2
    assert found.sum(axis=0).tolist() == [right, tied, number]
    values = pairwise(found.sum(axis=0, keepdims=True))
    if not number:
        assert np.isnan([values["strict"], values["half_ties"]]).all()
    else:
        assert values["strict"] == pytest.approx([right / number])
        assert values["half_ties"] == pytest.approx([(right + tied / 2) / number])


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5)), min_size=2, max_size=40), st.integers(1, 3))
def test_auc_is_that_of_scikit_learn(pairs, at) -> None:
    grade, score = columns(pairs)
    table = count_tables(np.zeros(len(grade), dtype=np.int64), grade, score, (1, 4, 6))
    relevant = grade >= at
    if relevant.all() or not relevant.any():
        assert np.isnan(aucs(table, at)).all()
    else:
        assert aucs(table, at) == pytest.approx([roc_auc_score(relevant, score)])


# -- calibration ---------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60))
def test_calibration_errors_are_those_of_the_definition(documents) -> None:
    p, y = np.array(documents, dtype=float).T
    place = np.minimum((p * 10).astype(int), 9)
    sums = np.zeros((1, 10, 4))
    np.add.at(sums[0], place, np.stack([np.ones_like(p), p, y, (p - y) ** 2], axis=1))
    ece = sum(
        abs(y[place == i].mean() - p[place == i].mean()) * (place == i).mean()
        for i in range(10)
        if (place == i).any()
    )
    found = errors_of(sums)
    assert found["ece"] == pytest.approx([ece], abs=1e-12)
    assert found["brier"] == pytest.approx([brier_score_loss(y, p, pos_label=1)], abs=1e-12)
    assert np.isnan([v[0] for v in errors_of(np.zeros((1, 10, 4))).values()]).all()


# -- intervals -----------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.integers(1, 9), st.integers(1, 60), st.integers(0, 2**40))
def test_resampled_sums_are_those_of_topics_drawn_one_by_one(topics, resamples, seed) -> None:
    rng = np.random.default_rng(0)
    arrays = {"a": rng.random((topics, 3, 2)), "b": rng.random((topics, 4))}
    found = resampled(arrays, seed, resamples)
    draws = generator(seed, 4)
    for row in range(resamples):
        drawn = draws.integers(0, topics, topics)
        for name, array in arrays.items():
            assert found[name][row] == pytest.approx(sum(array[t] for t in drawn))


def test_resamples_do_not_hang_on_how_many_are_worked_on_at_once(monkeypatch) -> None:
    arrays = {"a": np.random.default_rng(1).random((7, 5))}
    whole = resampled(arrays, 3, 50)["a"]
    monkeypatch.setattr("harness.agree_tables._CHUNK", 7)
    assert resampled(arrays, 3, 50)["a"] == pytest.approx(whole)
    assert resampled(arrays, 4, 50)["a"] != pytest.approx(whole)


def test_an_interval_is_of_what_is_defined_and_none_if_too_little_is() -> None:
    values = np.linspace(0, 1, 1001)
    assert interval(values) == pytest.approx((0.025, 0.975))
    some = values.copy()
    some[::40] = np.nan
    assert interval(some) == pytest.approx((0.025, 0.975), abs=2e-3)
    some[::10] = np.nan
    assert interval(some) is None
    assert interval(np.full(10, np.nan)) is None


def test_intervals_over_topics_contain_the_truth_where_intervals_over_pairs_do_not() -> None:
    """Labels of one topic err together: the share of equal grades differs by topic, around 0.7."""
    rng, topics, documents, trials = np.random.default_rng(5), 40, 30, 300
    inside = {"topics": 0, "pairs": 0}
    for trial in range(trials):
        share = rng.beta(3.5, 1.5, topics)
        human = rng.integers(0, 2, (topics, documents))
        label = np.where(rng.random((topics, documents)) < share[:, None], human, 1 - human)
        topic = np.repeat(np.arange(topics), documents)
        for kind, cluster in (("topics", topic), ("pairs", np.arange(topics * documents))):
            shape = (int(cluster[-1]) + 1, 2, 2)
            tables = count_tables(cluster, human.ravel(), label.ravel(), shape)
            drawn = resampled({"t": tables}, trial, 200)["t"]
            low, high = interval(differences(drawn, np.arange(2))["accuracy"])
            inside[kind] += low <= 0.7 <= high
    # 40 topics: a little under 0.95, as a percentile bootstrap is; 4 standard errors of 300 trials are 0.05
    assert 0.89 <= inside["topics"] / trials <= 0.99
    assert inside["pairs"] / trials < 0.75


def test_kappa_of_a_resample_is_kappa_of_the_pairs_drawn() -> None:
    """The whole way of an interval, beside a plain loop over lists of pairs."""
    rng, topics = np.random.default_rng(2), 8
    sizes = rng.integers(3, 30, topics)
    topic = np.repeat(np.arange(topics), sizes)
    a = rng.integers(0, 4, len(topic))
    b = np.clip(a + rng.integers(-1, 2, len(topic)), 0, 3)
    drawn = resampled({"t": count_tables(topic, a, b, (topics, 4, 4))}, 9, 40)["t"]
    found = kappas(drawn, distances(GRADES, 2))
    draws = generator(9, 4)
    for value in found:
        rows = np.concatenate([np.flatnonzero(topic == t) for t in draws.integers(0, topics, topics)])
        expected = cohen_kappa_score(a[rows], b[rows], weights="quadratic", labels=GRADES)
        assert value == pytest.approx(expected)
