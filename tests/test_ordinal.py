"""The arithmetic under `calibrate`: ordinal regression with judged neighbours, signals as arrays, grading.

Covers harness.ordinal, harness.evidence and harness.grading.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import expit

from harness.errors import CalibrationError, SchemaError
from harness.evidence import read_pool
from harness.frames import SIGNALS
from harness.grading import hard_grades, quality, tempered, thresholds
from harness.ordinal import Evidence, Priors, cuts_of, distribution, fit, leave_one_out, posterior, start

CUTS = np.array([1.0, -0.5, -2.0])
GRADES = (0, 1, 2, 3)


def kernel_of(points: np.ndarray, other: np.ndarray | None = None, amplitude: float = 2.0) -> np.ndarray:
    other = points if other is None else other
    return amplitude * np.exp(-((points[:, None] - other[None, :]) ** 2).sum(-1))


def drawn(rng: np.random.Generator, f: np.ndarray, cuts: np.ndarray = CUTS) -> np.ndarray:
    """Grade positions drawn from the ordinal logistic at f."""
    reached = expit(f[:, None] + cuts[None, :])
    return np.asarray((rng.uniform(size=(len(f), 1)) < reached).sum(axis=1))


def some_topics(rng: np.random.Generator, size: int, kernels: int, topics: int = 3) -> list[Evidence]:
    cuts = np.linspace(1.5, -1.5, size - 1)
    made = []
    for _ in range(topics):
        x, points = rng.normal(size=(9, 2)), rng.normal(size=(9, 2))
        y = drawn(rng, x @ [1.0, -0.5] + rng.normal(size=9), cuts)
        made.append(Evidence(x, y, [kernel_of(points), np.ones((9, 9))][:kernels]))
    return made


# -- fitting -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "kernels"), [(2, 0), (2, 2), (3, 1), (5, 2)])
def test_gradient_of_the_evidence(size: int, kernels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `fit` hands the optimiser, at points away from where it starts."""
    rng = np.random.default_rng(size)
    seen: dict[str, Any] = {}

    def caught(objective: Any, first: np.ndarray, **_: Any) -> SimpleNamespace:
        seen.update(objective=objective, first=first)
        return SimpleNamespace(x=first)

    monkeypatch.setattr("scipy.optimize.minimize", caught)
    priors = Priors(np.array([0.5, 0.0]), np.array([1.0, 2.0]), np.log([0.7, 0.4])[:kernels])
    fit(some_topics(rng, size, kernels), size, priors)
    for _ in range(2):
        at = seen["first"] + 0.4 * rng.normal(size=len(seen["first"]))
        told = seen["objective"](at)[1]
        steps = 1e-4 * np.eye(len(at))
        found = [(seen["objective"](at + s)[0] - seen["objective"](at - s)[0]) / 2e-4 for s in steps]
        np.testing.assert_allclose(told, found, rtol=2e-3, atol=2e-5)


def test_without_kernels_it_is_the_proportional_odds_model() -> None:
    ordinal_model = pytest.importorskip("statsmodels.miscmodels.ordinal_model")
    rng = np.random.default_rng(7)
    x = rng.normal(size=(300, 2))
    y = drawn(rng, x @ [1.2, -0.7])
    flat = Priors(np.zeros(2), np.full(2, 1e-9), np.zeros(0))
    parts = [Evidence(x[i : i + 50], y[i : i + 50], []) for i in range(0, 300, 50)]
    ours = fit(parts, 4, flat, iterations=100)
    model = ordinal_model.OrderedModel(y, x, distr="logit")
    theirs = model.fit(method="bfgs", disp=False)
    np.testing.assert_allclose(ours.weights, theirs.params[:2], atol=0.02)
    # they write P(y <= g) = logistic(t_g - x.w), with rising t
    np.testing.assert_allclose(ours.cuts, -model.transform_threshold_params(theirs.params)[1:-1], atol=0.02)


def test_amplitudes_tell_alike_from_unlike() -> None:
    """A kernel along which grades agree grows, one along which they do not shrinks."""
    rng = np.random.default_rng(3)
    topics = []
    for _ in range(6):
        groups, noise = rng.integers(0, 4, 30), rng.integers(0, 4, 30)
        y = drawn(rng, (4 * rng.normal(size=4))[groups])
        topics.append(
            Evidence(np.zeros((30, 1)), y, [np.equal.outer(g, g).astype(float) for g in (groups, noise)])
        )
    found = fit(topics, 4, Priors(np.zeros(1), np.ones(1), np.log([1.0, 1.0])))
    assert found.amplitudes[0] > 2
    assert found.amplitudes[1] < 0.5


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=40))
def test_starting_cuts_fall_and_follow_the_frequencies(grades: list[int]) -> None:
    y = np.array(grades)
    cuts = cuts_of(start(y, 5))
    assert (np.diff(cuts) < 0).all()
    assert expit(cuts[0]) == pytest.approx(((y >= 1).sum() + 0.5) / (len(y) + 1))


# -- the posterior -------------------------------------------------------------------------------------------


def test_the_posterior_is_the_mode_and_its_curvature() -> None:
    """Against a general optimiser on the log posterior, and the inverse of its Hessian."""
    rng = np.random.default_rng(1)
    points, prior = rng.normal(size=(6, 2)), rng.normal(size=6)
    kernel = kernel_of(points) + 1e-2 * np.eye(6)
    y, precision = np.array([0, 3, 2, 1, 3, 0]), np.linalg.inv(kernel)
    edges = np.concatenate([[np.inf], CUTS, [-np.inf]])

    def loss(f: np.ndarray) -> float:
        inside = np.log(expit(edges[y] + f) - expit(edges[y + 1] + f)).sum()
        return float(0.5 * (f - prior) @ precision @ (f - prior) - inside)

    mode = minimize(loss, prior, method="BFGS", options={"gtol": 1e-6}).x
    above, beyond = expit(edges[y] + mode), expit(edges[y + 1] + mode)
    curvature = np.diag(above * (1 - above) + beyond * (1 - beyond))
    mean, variance = posterior(kernel, prior, y, CUTS, kernel, prior, np.diag(kernel))
    np.testing.assert_allclose(mean, mode, atol=2e-3)
    np.testing.assert_allclose(variance, np.diag(np.linalg.inv(precision + curvature)), atol=2e-3)


def test_leaving_one_out_without_fitting_again() -> None:
    rng = np.random.default_rng(5)
    points, prior = rng.normal(size=(12, 2)), 0.5 * rng.normal(size=12)
    kernel = kernel_of(points) + 1e-4 * np.eye(12)
    y = drawn(rng, prior + np.linalg.cholesky(kernel) @ rng.normal(size=12))
    mean, variance = leave_one_out(kernel, prior, y, CUTS)
    really = []
    for i in range(12):
        others = np.arange(12) != i
        cross = kernel[[i]][:, others]
        really.append(
            posterior(
                kernel[np.ix_(others, others)],
                prior[others],
                y[others],
                CUTS,
                cross,
                prior[[i]],
                kernel[i, [i]],
            )
        )
    np.testing.assert_allclose(mean, [m[0] for m, _ in really], atol=0.12)
    np.testing.assert_allclose(variance, [v[0] for _, v in really], atol=0.12)
    assert np.ptp(mean - prior) > 0.5, "the others had something to say"


def test_a_document_alone_is_left_with_the_prior() -> None:
    """Nobody else speaks about it, so leaving it out leaves nothing but the prior."""
    mean, variance = leave_one_out(
        np.eye(3) * [1.5, 0.7, 2.0], np.array([0.3, -1.0, 0.0]), np.arange(3), CUTS
    )
    np.testing.assert_allclose(mean, [0.3, -1.0, 0.0], atol=1e-6)
    np.testing.assert_allclose(variance, [1.5, 0.7, 2.0], atol=1e-6)


def test_no_judgments_leave_the_prior() -> None:
    none, prior = np.empty(0), np.array([0.5, -1.0])
    mean, variance = posterior(
        np.empty((0, 0)), none, none.astype(int), CUTS, np.empty((2, 0)), prior, np.array([2.0, 1.0])
    )
    np.testing.assert_array_equal(mean, prior)
    np.testing.assert_array_equal(variance, [2.0, 1.0])


@pytest.mark.parametrize(("grade", "sign"), [(3, 1), (0, -1)])
def test_a_judged_near_duplicate_moves_the_hole(grade: int, sign: int) -> None:
    """Its own way, and the more the closer; what resembles nothing judged stays where it was."""
    judged, holes = np.array([[0.0]]), np.array([[0.02], [0.8], [9.0]])
    prior = np.zeros(3)
    mean, variance = posterior(
        kernel_of(judged),
        prior[:1],
        np.array([grade]),
        CUTS,
        kernel_of(holes, judged),
        prior,
        np.full(3, 2.0),
    )
    chance = distribution(mean, variance, CUTS)[:, 2:].sum(axis=1)
    before = distribution(prior, np.full(3, 2.0), CUTS)[:, 2:].sum(axis=1)
    moved = sign * (chance - before)
    assert moved[0] > moved[1] > 0.01
    assert moved[0] > 0.1
    assert abs(moved[2]) < 1e-6
    assert variance[0] < variance[1] < variance[2]


# -- distributions -------------------------------------------------------------------------------------------

_latent = st.floats(-8, 8)
_cuts = st.lists(st.floats(0.1, 3), min_size=0, max_size=4).map(lambda g: 2.0 - np.cumsum([0.0, *g]))


@settings(max_examples=40, deadline=None)
@given(_latent, st.floats(0.01, 4), st.floats(0, 30), _cuts)
def test_distributions_sum_to_one_and_rise_with_the_mean(
    f: float, more: float, variance: float, cuts: np.ndarray
) -> None:
    probs = distribution(np.array([f, f + more]), np.full(2, variance), cuts)
    assert probs.shape == (2, len(cuts) + 1)
    assert (probs > 0).all()
    np.testing.assert_allclose(probs.sum(axis=1), 1, atol=1e-12)
    reached = probs[:, ::-1].cumsum(axis=1)[:, ::-1][:, 1:]
    assert (reached[1] >= reached[0] - 1e-8).all()


@settings(max_examples=40, deadline=None)
@given(_latent, _cuts)
def test_without_variance_it_is_the_ordinal_logistic(f: float, cuts: np.ndarray) -> None:
    reached = 1 / (1 + np.exp(-(f + np.array([np.inf, *cuts, -np.inf]))))
    np.testing.assert_allclose(
        distribution(np.array([f]), np.zeros(1), cuts)[0], reached[:-1] - reached[1:], atol=1e-7
    )


@pytest.mark.parametrize("variance", [0.3, 2.0, 9.0])
def test_variance_averages_the_logistic(variance: float) -> None:
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    for f in (-2.0, 0.0, 1.5):
        plain = distribution(f + np.sqrt(variance) * nodes, np.zeros(60), CUTS)
        averaged = weights @ plain / weights.sum()
        found = distribution(np.array([f]), np.array([variance]), CUTS)[0]
        np.testing.assert_allclose(found, averaged, atol=0.03)


# -- signals as arrays ---------------------------------------------------------------------------------------


def signals(rows: list[tuple[Any, ...]], labeler: str = "one@12345678") -> pl.DataFrame:
    """SIGNALS from (query_id, doc_id, score) or (query_id, doc_id, score, probs)."""
    return pl.DataFrame(
        [
            (q, d, (p or [None])[0], s, labeler, None if s is not None or p else "no text")
            for q, d, s, *p in rows
        ],
        schema=SIGNALS,
        orient="row",
    )


def human(rows: list[tuple[str, str, int]], assessor: str = "human") -> pl.DataFrame:
    return pl.DataFrame(
        rows, schema={"query_id": pl.String, "doc_id": pl.String, "relevance": pl.Int16}, orient="row"
    ).with_columns(gain=pl.col("relevance").cast(pl.Float32), assessor=pl.lit(assessor))


def test_scores_become_levels_and_z_scores_within_the_topic() -> None:
    given = signals([("b", "1", 5.0), ("b", "0", 5.0), ("a", "2", 3.0), ("a", "1", 1.0), ("a", "3", None)])
    pool = read_pool([given], human([("a", "2", 3), ("a", "9", 1)]), GRADES)
    assert pool.pairs.rows() == [("a", "1"), ("a", "2"), ("a", "3"), ("b", "0"), ("b", "1")]
    assert [c.name for c in pool.columns] == ["one: score", "one: score in topic"]
    np.testing.assert_allclose(pool.x[:, 0], [1, 3, np.nan, 5, 5])
    np.testing.assert_allclose(pool.x[:, 1], [-1, 1, np.nan, 0, 0])
    np.testing.assert_allclose(pool.lead, [-1, 1, 0, 0, 0])
    assert pool.heard.tolist() == [True, True, False, True, True]
    assert pool.grade.tolist() == [-1, 3, -1, -1, -1]
    assert [(t.query_id, t.rows.tolist(), t.judged.tolist()) for t in pool.topics] == [
        ("a", [0, 1], [1]),
        ("b", [3, 4], []),
    ]
    assert pool.vectors is None


def test_a_judged_pair_without_a_signal_teaches_nothing() -> None:
    given = signals([("a", "1", 1.0), ("a", "2", None)])
    pool = read_pool([given], human([("a", "1", 2), ("a", "2", 3)]), GRADES)
    assert pool.judgments().tolist() == [2]
    assert pool.topics[0].judged.tolist() == [0]


def test_a_distribution_and_a_score_from_two_labelers() -> None:
    """Pairs that only one of them saw are there, NaN in the other's columns."""
    given = [
        signals([("a", "1", None, [0.1, 0.2, 0.7]), ("a", "2", None, [0.5, 0.5, 0.0])], "llm@1"),
        signals([("a", "2", 4.0), ("a", "3", 6.0)], "encoder@2"),
    ]
    pool = read_pool(given, human([("a", "1", 2)]), (0, 1, 2))
    assert pool.labelers == ("encoder@2", "llm@1")
    assert [c.name for c in pool.columns] == [
        "llm: P(>= 1)", "llm: P(>= 2)", "llm: expected grade in topic", "encoder: score",
        "encoder: score in topic",
    ]  # fmt: skip
    np.testing.assert_allclose(pool.x[:, :2], [[0.9, 0.7], [0.5, 0.0], [np.nan] * 2], atol=1e-6)
    np.testing.assert_allclose(pool.x[:, 2], [1, -1, np.nan], atol=1e-5)
    np.testing.assert_allclose(pool.x[:, 3], [np.nan, 4, 6])
    np.testing.assert_allclose(pool.lead, [1, -1, 1], atol=1e-5)  # the mean of those that spoke
    assert pool.heard.all()


def test_one_labeler_that_gives_both() -> None:
    given = signals([("a", "1", 1.0, [0.0, 1.0]), ("a", "2", 2.0, [1.0, 0.0])])
    pool = read_pool([given], human([]), (0, 1))
    assert [c.name for c in pool.columns][1:] == [
        "one: expected grade in topic", "one: score", "one: score in topic",
    ]  # fmt: skip
    np.testing.assert_allclose(pool.lead, [1, -1])  # the distribution's, not the score's


def test_features_come_as_z_scores_and_vectors_side_by_side() -> None:
    def encoder(labeler: str, vectors: list[list[float] | None]) -> pl.DataFrame:
        rows = [("a", str(i), None if v is None else float(i)) for i, v in enumerate(vectors)]
        return signals(rows, labeler).with_columns(
            pl.Series(
                "features", [v and [100.0 * i, 7.0] for i, v in enumerate(vectors)], pl.List(pl.Float32)
            ),
            pl.Series("vector", vectors, pl.Array(pl.Float32, 2)),
        )

    given = [
        encoder("x@1", [[1.0, 0.0], [0.0, 1.0], None]),
        encoder("y@1", [[0.6, 0.8], [0.6, 0.8], [1.0, 0.0]]),
    ]
    pool = read_pool(given, human([]), GRADES)
    names = [c.name for c in pool.columns]
    np.testing.assert_allclose(pool.x[:, names.index("x: feature 1 in topic")], [-1, 1, np.nan], atol=1e-6)
    np.testing.assert_allclose(pool.x[:, names.index("y: feature 2 in topic")], 0, atol=1e-6)
    assert pool.vectors is not None
    cosines = pool.vectors @ pool.vectors.T
    np.testing.assert_allclose(cosines[0, :2], [1, 0.5], atol=1e-6)  # the mean of the two encoders' cosines
    np.testing.assert_allclose(cosines[2, 2], 0.5, atol=1e-6)  # one of the two saw it


def test_only_assessors_grades_from_zero_on_are_judgments() -> None:
    given = signals([("a", str(i), float(i)) for i in range(4)])
    said = pl.concat([human([("a", "0", -1), ("a", "1", 2)]), human([("a", "2", 3)], "llm@1")])
    assert read_pool([given], said, GRADES).grade.tolist() == [-1, 2, -1, -1]


def test_positions_on_a_scale_with_gaps() -> None:
    given = signals([("a", "1", 1.0), ("a", "2", 2.0)])
    pool = read_pool([given], human([("a", "1", 5), ("a", "2", 1)]), (5, 0, 1))
    assert pool.grades == (0, 1, 5)
    assert pool.grade.tolist() == [2, 1]


def test_signals_that_cannot_be_used() -> None:
    fine = signals([("a", "1", 1.0), ("a", "2", 2.0)])
    said = human([("a", "1", 1)])
    with pytest.raises(CalibrationError, match="no signals"):
        read_pool([], said, GRADES)
    with pytest.raises(CalibrationError, match=r"topic a, document 1 has grade 7.*0, 1, 2, 3(?s:.*)Next: "):
        read_pool([fine], human([("a", "1", 7)]), GRADES)
    with pytest.raises(CalibrationError, match=r"no pair has a signal.*no text(?s:.*)Next: "):
        read_pool([signals([("a", "1", None), ("a", "2", None)])], said, GRADES)
    with pytest.raises(CalibrationError, match="no pair has a signal"):
        read_pool([fine.clear()], said, GRADES)
    with pytest.raises(CalibrationError, match=r"one gives 2 probabilities.*4 grades"):
        read_pool([signals([("a", "1", None, [0.5, 0.5])])], said, GRADES)
    with pytest.raises(SchemaError, match="topic a has document 1 twice"):
        read_pool([fine], pl.concat([said, said]), GRADES)
    with pytest.raises(SchemaError, match="score"):
        read_pool([fine.drop("score")], said, GRADES)


# -- grading -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("grades", [(0, 1), (0, 1, 2, 3), (1, 2, 3, 4), (0, 1, 5)])
def test_thresholds_reproduce_a_labeling_that_the_gain_separates(grades: tuple[int, ...]) -> None:
    rng = np.random.default_rng(len(grades))
    y = np.concatenate([np.arange(len(grades)), rng.integers(0, len(grades), 200) ** 2 // len(grades)])
    share = rng.uniform(0.75, 0.95, size=len(y))
    probs = np.full((len(y), len(grades)), 0.0)
    probs[np.arange(len(y)), y] = share
    probs[np.arange(len(y)), np.maximum(y - 1, 0)] += 1 - share
    cuts = thresholds(probs, y, grades)
    np.testing.assert_array_equal(hard_grades(probs, cuts, grades), np.array(grades)[y])


def test_thresholds_find_shifted_grades() -> None:
    """A labeler that is too generous by half a grade: its argmax is wrong, its cuts are not."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 300)
    gain = np.clip(y * 0.7 + 0.5 + rng.uniform(-0.2, 0.2, 300), 0, 2)
    probs = np.stack([np.clip(1 - gain, 0, 1), 1 - abs(gain - 1), np.clip(gain - 1, 0, 1)], axis=1)
    assert (hard_grades(probs, thresholds(probs, y, (0, 1, 2)), (0, 1, 2)) == y).all()
    assert (probs.argmax(axis=1) == y).mean() < 0.9


def test_thresholds_agree_more_than_the_grades_frequencies_do() -> None:
    """Where the gain tells little, cutting it at the grades' frequencies is not the best for kappa."""
    from sklearn.metrics import cohen_kappa_score

    rng = np.random.default_rng(8)
    y = rng.choice(4, p=[0.6, 0.1, 0.1, 0.2], size=400)
    probs = distribution(y * 0.8 + rng.normal(size=400), np.ones(400), CUTS)
    cuts = np.quantile(probs @ GRADES, [0.6, 0.7, 0.8])

    def agreement(hard: np.ndarray) -> float:
        return float(cohen_kappa_score(y, hard) + cohen_kappa_score(y, hard, weights="quadratic"))

    best = hard_grades(probs, thresholds(probs, y, GRADES), GRADES)
    assert agreement(best) > agreement(hard_grades(probs, cuts, GRADES)) + 0.03


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 5))
def test_thresholds_rise_and_hard_grades_are_of_the_scale(seed: int, size: int) -> None:
    rng = np.random.default_rng(seed)
    probs, y = rng.dirichlet(np.ones(size), 30), rng.integers(0, size, 30)
    grades = tuple(int(g) for g in rng.choice(9, size, replace=False).cumsum() + np.arange(size))
    cuts = thresholds(probs, y, grades)
    assert len(cuts) == size - 1
    assert list(cuts) == sorted(cuts)
    hard = hard_grades(probs, cuts, grades)
    assert set(hard.tolist()) <= set(grades)
    order = np.argsort(probs @ np.asarray(grades))
    assert (np.diff(hard[order]) >= 0).all()


def test_tempering_restores_what_over_confidence_spoils() -> None:
    rng = np.random.default_rng(2)
    f = rng.normal(scale=1.5, size=1500)
    y, still = drawn(rng, f), np.zeros(1500)
    bold = distribution(3 * f, still, 3 * CUTS)
    factor, *moved = tempered(3 * f, still, y, 3 * CUTS)
    mended = distribution(factor * 3 * f, factor**2 * still, np.array(moved))
    assert factor == pytest.approx(1 / 3, abs=0.06)
    np.testing.assert_allclose(moved, CUTS, atol=0.3)
    hard = np.zeros(1500, dtype=int)
    before, after = (quality(p, hard, y, GRADES) for p in (bold, mended))
    assert before["ece"] > 0.08
    assert after["ece"] < 0.04
    assert after["log_loss"] < before["log_loss"] - 0.1


def test_tempering_leaves_few_and_honest_predictions_alone() -> None:
    rng = np.random.default_rng(4)
    f = rng.normal(scale=1.5, size=2000)
    factor, *moved = tempered(f, np.zeros(2000), drawn(rng, f), CUTS)
    assert factor == pytest.approx(1, abs=0.12)
    np.testing.assert_allclose(moved, CUTS, atol=0.25)
    factor, *moved = tempered(f[:2], np.ones(2), np.array([0, 3]), CUTS)
    assert factor == pytest.approx(1, abs=0.25)
    np.testing.assert_allclose(moved, CUTS, atol=0.5)


def test_quality_is_scikit_learns() -> None:
    from sklearn.metrics import cohen_kappa_score, log_loss, roc_auc_score

    rng = np.random.default_rng(6)
    probs, y = rng.dirichlet(np.ones(4), 200), rng.integers(0, 4, 200)
    hard = np.where(rng.uniform(size=200) < 0.4, y, probs.argmax(axis=1))
    found = quality(probs, hard, y, GRADES)
    assert found["kappa"] == pytest.approx(cohen_kappa_score(y, hard))
    assert found["kappa_quadratic"] == pytest.approx(cohen_kappa_score(y, hard, weights="quadratic"))
    assert found["auc"] == pytest.approx(roc_auc_score(y >= 2, probs[:, 2:].sum(axis=1)))
    assert found["log_loss"] == pytest.approx(log_loss(y, probs))


def test_quadratic_weights_are_of_values_not_positions() -> None:
    """A grade that nobody used, or a gap in the scale, does not bring its neighbours closer."""
    grades = (0, 1, 3)
    y, hard = np.array([0, 0, 1, 1, 2, 2, 2, 0]), np.array([0, 3, 1, 0, 3, 1, 3, 0])
    truth = np.array(grades)[y]
    observed = ((truth - hard) ** 2).mean()
    expected = ((truth[:, None] - hard[None, :]) ** 2).mean()
    for scale, at in ((grades, y), (GRADES, truth)):
        probs = np.full((8, len(scale)), 1 / len(scale))
        assert quality(probs, hard, at, scale)["kappa_quadratic"] == pytest.approx(1 - observed / expected)


def test_calibration_error_by_hand() -> None:
    """Ten pairs said to be relevant with 0.72, of which four are; ten with 0.1, of which one is."""
    probs = np.array([[0.28, 0.72]] * 10 + [[0.9, 0.1]] * 10)
    y = np.array([1] * 4 + [0] * 6 + [1] + [0] * 9)
    assert quality(probs, y, y, (0, 1))["ece"] == pytest.approx(0.16)


def test_no_auc_where_nothing_is_relevant() -> None:
    y, hard = np.array([0, 1, 1]), np.array([0, 1, 0])
    found = quality(np.full((3, 4), 0.25), hard, y, GRADES)
    assert np.isnan(found["auc"])
    assert found["kappa"] == pytest.approx(0.4)
