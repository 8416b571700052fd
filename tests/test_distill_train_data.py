"""What a student learns from: rows, the split by topic, weights, batches."""

from __future__ import annotations

from collections import Counter

import numpy as np
import polars as pl
import pytest

from harness.errors import UsageError
from labelers.distill.train_data import (
    Taught,
    as_taught,
    batches,
    grade_weights,
    refuse_shared,
    split_dev,
    wrong_target,
)


def pair(query_id: str, query: str, probs: tuple[float, ...] = (1.0, 0.0), source: str = "human") -> Taught:
    return Taught(query_id, "d", query, "text", probs, 1.0, source)


# -- rows ----------------------------------------------------------------------------------------------------


def frame(*rows: tuple[list[float], float]) -> pl.DataFrame:
    columns = {"query_id": pl.String, "doc_id": pl.String, "query": pl.String, "text": pl.String}
    further = {"probs": pl.List(pl.Float32), "weight": pl.Float32, "source": pl.String}
    given = [(f"q{n}", "d", f"query {n}", "text", *row, "human") for n, row in enumerate(rows)]
    return pl.DataFrame(given, schema={**columns, **further}, orient="row")


def test_distributions_sum_to_one_to_the_last_bit() -> None:
    taught = as_taught(frame(([0.2, 0.8], 2.0), ([0.1, 0.9], 1.0)), [0, 1])
    assert [sum(t.probs) for t in taught] == [1.0, 1.0]
    assert taught[0].probs == pytest.approx((0.2, 0.8))
    assert [t.weight for t in taught] == [2.0, 1.0]


@pytest.mark.parametrize(
    ("probs", "weight", "said"),
    [
        ([0.5, 0.2, 0.3], 1.0, "3 numbers, and there are 2 grades"),
        ([0.5, 0.2], 1.0, "sum to 0.7"),
        ([1.5, -0.5], 1.0, "not numbers from 0 to 1"),
        (["a", 1], 1.0, "not numbers"),
        ([True, False], 1.0, "not numbers"),
        ([float("nan"), 1.0], 1.0, "not numbers"),
        ([], 1.0, "not numbers"),
        ([0.5, 0.5], 0.0, "weight is 0.0"),
        ([0.5, 0.5], -1, "weight is -1"),
    ],
)
def test_what_is_no_target(probs: list[object], weight: float, said: str) -> None:
    assert said in wrong_target(probs, weight, [0, 1])
    assert wrong_target([0.5, 0.5], 1.0, [0, 1]) == ""


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], "no taught pair has a grade"),
        ([([1.0, 0.0], 1.0)] * 2, "all 2 taught pairs have the expected grade 0.00"),
    ],
)
def test_nothing_to_learn_from_is_an_error(rows: list[tuple[list[float], float]], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        as_taught(frame(*rows), [0, 1])


# -- the split -----------------------------------------------------------------------------------------------


def many(number: int, source: str = "human") -> list[Taught]:
    return [
        pair(f"{source}{n}", f"query {source} {n}", source=source) for n in range(number) for _ in range(3)
    ]


def test_no_topic_is_on_both_sides_and_the_share_is_kept_by_source() -> None:
    taught = many(40) + many(20, "synthetic")
    train, dev = split_dev(taught, 0.2, seed=1)
    refuse_shared(train, dev)
    assert len(train) + len(dev) == len(taught)
    assert Counter(t.source for t in dev) == {"human": 24, "synthetic": 12}
    assert split_dev(taught, 0.2, seed=1) == (train, dev)
    assert split_dev(taught, 0.2, seed=2) != (train, dev)
    assert {t.query_id for t in split_dev(taught[::-1], 0.2, seed=1)[1]} == {t.query_id for t in dev}


def test_one_query_under_several_ids_stays_together() -> None:
    """a and b share a text, b and c an id: all three are one topic, whatever the seed."""
    chain = [pair("a", "Where do herons nest?"), pair("b", "where do herons nest"), pair("b", "other words")]
    chain += [pair("c", "OTHER   words!")]
    for seed in range(20):
        train, dev = split_dev([*chain, *many(4)], 0.4, seed)
        refuse_shared(train, dev)
        assert len({one in dev for one in chain}) == 1


def test_a_planted_leak_is_refused_by_id_and_by_text() -> None:
    train, dev = split_dev(many(10), 0.3, seed=0)
    with pytest.raises(UsageError, match=r"1 topics are trained on .*'query human \d+'"):
        refuse_shared([*train, dev[0]], dev)
    with pytest.raises(UsageError, match="Next: split by topic"):
        refuse_shared([*train, pair("elsewhere", dev[0].query.upper() + "?")], dev)


def test_a_single_topic_cannot_be_split_and_need_not_be() -> None:
    with pytest.raises(UsageError, match=r"of one topic[\s\S]*dev_share = 0"):
        split_dev(many(1), 0.2, seed=0)
    assert split_dev(many(1), 0, seed=0) == (many(1), [])


@pytest.mark.parametrize("share", [0.01, 0.99])
def test_either_side_has_a_topic(share: float) -> None:
    train, dev = split_dev(many(3), share, seed=0)
    assert train
    assert dev


# -- weights -------------------------------------------------------------------------------------------------


def test_balance_weighs_grades_as_scikit_learn_does() -> None:
    from sklearn.utils.class_weight import compute_class_weight

    grades = [0] * 6 + [1] * 3 + [2]
    taught = [pair("q", "q", tuple(np.eye(3)[g])) for g in grades]
    expected = compute_class_weight("balanced", classes=np.arange(3), y=grades)
    assert grade_weights(taught, 1.0) == pytest.approx(expected)
    assert grade_weights(taught, 0.0) == pytest.approx(1.0)
    half = grade_weights(taught, 0.5)
    assert half / half[0] == pytest.approx(np.sqrt(expected / expected[0]))
    assert np.mean([half[g] for g in grades]) == pytest.approx(1.0)


def test_a_grade_that_nobody_gave_has_a_weight_of_no_matter() -> None:
    taught = [pair("q", "q", (0.5, 0.5, 0.0)), pair("q", "q", (0.9, 0.1, 0.0))]
    weights = grade_weights(taught, 1.0)
    assert np.isfinite(weights).all()
    assert np.array([t.probs for t in taught]).dot(weights).mean() == pytest.approx(1.0)


# -- batches -------------------------------------------------------------------------------------------------


def test_each_row_comes_once_and_the_order_hangs_on_the_key() -> None:
    lengths = np.random.default_rng(0).integers(5, 200, 1000).tolist()
    queries = [str(n % 37) for n in range(1000)]
    for by_query in (False, True):
        made = batches(queries, lengths, 16, by_query=by_query, key=(0, 1, 2))
        assert sorted(row for batch in made for row in batch) == list(range(1000))
        assert max(map(len, made)) <= 16
        assert made == batches(queries, lengths, 16, by_query=by_query, key=(0, 1, 2))
        for other in ((1, 1, 2), (0, 0, 2), (0, 1, 3)):
            assert made != batches(queries, lengths, 16, by_query=by_query, key=other)


def test_rows_of_about_one_length_are_in_a_batch_and_batches_come_in_any_order() -> None:
    lengths = np.random.default_rng(0).integers(5, 200, 1024).tolist()
    made = batches(["q"] * 1024, lengths, 16, by_query=False, key=(0, 0, 0))
    padded = sum(max(lengths[row] for row in batch) * len(batch) for batch in made)
    assert padded < 1.06 * sum(lengths)
    longest = [max(lengths[row] for row in batch) for batch in made]
    assert longest != sorted(longest)


def test_rows_of_a_query_are_in_one_batch_as_far_as_they_fit() -> None:
    queries = ["a"] * 10 + ["b"] * 3 + ["c"] * 5 + ["d"] * 4
    mixed = np.random.default_rng(0).permutation(len(queries)).tolist()
    queries = [queries[n] for n in mixed]
    made = batches(queries, [1] * len(queries), 8, by_query=True, key=(0, 0, 0))
    parts = Counter(name for batch in made for name in {queries[row] for row in batch})
    assert parts == {"a": 2, "b": 1, "c": 1, "d": 1}
