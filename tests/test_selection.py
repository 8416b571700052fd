"""What documents that one run alone found say of holes, on judgments drawn so that the error is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit

from harness.selection import NOTHING, Shift, estimate, moved


def drawn(
    offset: float,
    *,
    runs: int = 12,
    topics: int = 25,
    each: int = 4,
    between: float = 0.0,
    in_topic: float = 0.0,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Labels, and grades whose log-odds of being reached are `offset` (and a run's and a topic's own) off."""
    rng = np.random.default_rng(seed)
    run = np.repeat(np.arange(runs), topics * each)
    topic = np.tile(np.repeat(np.arange(topics), each), runs)
    probs = rng.dirichlet([1.5, 1.0, 0.7, 0.5], len(run))
    odds = logit(probs[:, ::-1].cumsum(axis=1)[:, ::-1][:, 1:])
    shift = offset + between * rng.normal(size=runs)[run] + in_topic * rng.normal(size=topics)[topic]
    grade = (rng.random((len(run), 1)) < expit(odds + shift[:, None])).sum(axis=1)
    return probs, grade, run, topic


@pytest.mark.parametrize("offset", [-1.0, -0.3, 0.0, 0.6])
def test_a_planted_offset_is_found(offset: float) -> None:
    found = estimate(*drawn(offset))
    assert found.offset == pytest.approx(offset, abs=0.1)
    assert found.documents == 1200


def test_the_spread_of_runs_and_of_topics_is_found() -> None:
    """Among 40 runs and topics, where the prior is worth ten of them."""

    def averaged(spread: float) -> float:
        return math.sqrt((10 * 0.5**2 + 40 * spread**2) / 50)

    many = {"runs": 40, "topics": 40, "each": 1}
    found = {
        sd: [estimate(*drawn(-0.3, **many, **{what: sd}, seed=seed)) for seed in range(3)]  # type: ignore[arg-type]
        for sd, what in ((0.0, "between"), (0.8, "between"), (-0.8, "in_topic"))
    }
    assert np.mean([one.all for one in found[0.0]]) == pytest.approx(averaged(0.0), abs=0.1)
    assert np.mean([one.all for one in found[0.8]]) == pytest.approx(averaged(0.7), abs=0.12)
    assert np.mean([one.topic for one in found[-0.8]]) == pytest.approx(averaged(0.7), abs=0.12)
    assert np.mean([one.topic for one in found[0.8]]) == pytest.approx(averaged(0.0), abs=0.1)
    assert np.mean([one.all for one in found[-0.8]]) == pytest.approx(averaged(0.0), abs=0.1)


def test_the_prior_rules_where_little_is_known() -> None:
    probs, grade, run, topic = drawn(-3.0)
    offsets = []
    for size in (1, 4, 1200):
        chosen = np.random.default_rng(1).permutation(len(grade))[:size]
        found = estimate(probs[chosen], grade[chosen], run[chosen], topic[chosen])
        assert found.documents == size
        offsets.append(found.offset)
    assert abs(offsets[0]) < 0.5
    assert abs(offsets[0]) < abs(offsets[1]) + 0.5 < abs(offsets[2])
    few = estimate(probs[:4], grade[:4], run[:4], topic[:4])
    assert few.topic == 0.5, "no topic has five documents, so the prior stands"
    assert few.all > 0.5, "nor has a run; and the offset itself is not sure"


def test_nothing_seen_is_the_prior() -> None:
    none = np.zeros(0, dtype=np.int64)
    assert estimate(np.zeros((0, 4)), none, none, none) == NOTHING == Shift(0.0, 0.5, 0.5, 0)


def test_the_order_and_the_numbers_of_the_groups_do_not_matter() -> None:
    probs, grade, run, topic = drawn(-0.4, between=0.5)
    order = np.random.default_rng(2).permutation(len(grade))
    one = estimate(probs, grade, run, topic)
    other = estimate(probs[order], grade[order], 99 - run[order], 7 * topic[order])
    assert (other.offset, other.all, other.topic) == pytest.approx((one.offset, one.all, one.topic), abs=1e-4)


def test_labels_without_any_doubt_give_numbers() -> None:
    sure = np.eye(3)[[0, 1, 2, 0, 1, 2]]
    found = estimate(sure, np.array([2, 1, 0, 0, 0, 2]), np.zeros(6, np.int64), np.arange(6))
    assert all(map(math.isfinite, (found.offset, found.all, found.topic)))
    assert min(found.all, found.topic) > 0


def test_two_grades() -> None:
    probs, grade, run, topic = drawn(-0.8)
    binary = np.column_stack([probs[:, :2].sum(axis=1), probs[:, 2:].sum(axis=1)])
    assert estimate(binary, (grade >= 2).astype(np.int64), run, topic).offset == pytest.approx(-0.8, abs=0.2)


shares = st.lists(st.floats(0.001, 1), min_size=2, max_size=6).map(lambda v: np.array([v]) / sum(v))


@settings(max_examples=80, deadline=None)
@given(shares, st.floats(-3, 3))
def test_moved_labels_are_distributions_and_move_one_way(probs: np.ndarray, offset: float) -> None:
    there = moved(probs, offset)
    assert there.min() >= 0
    assert there.sum() == pytest.approx(1)
    reached, before = (p[:, ::-1].cumsum(axis=1)[:, ::-1][:, 1:] for p in (there, probs))
    assert ((reached - before) * offset >= -1e-9).all()
    np.testing.assert_allclose(logit(reached) - logit(before), offset, atol=1e-3)
    np.testing.assert_allclose(moved(there, -offset), probs, atol=1e-4)


def test_no_offset_leaves_labels_alone() -> None:
    probs = np.array([[0.0, 0.3, 0.7]])
    assert moved(probs, 0.0) is probs
