"""What raters said, read out of frames: what is missing, what is left out, and what is refused."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from harness.agree_pairs import both, judged, rater
from harness.errors import SchemaError, UsageError
from harness.frames import LABELS, QRELS, empty


def qrels(rows: list[tuple[str, str, int]], assessor: str = "human") -> pl.DataFrame:
    frame = pl.DataFrame(
        rows, schema={"query_id": pl.String, "doc_id": pl.String, "relevance": pl.Int16}, orient="row"
    )
    return frame.with_columns(gain=pl.col("relevance").cast(pl.Float32), assessor=pl.lit(assessor))


def labels(rows: list[tuple[str, str, int | None, list[float] | None, str | None]]) -> pl.DataFrame:
    names = ["query_id", "doc_id", "relevance", "probs", "reason"]
    kinds = {name: LABELS[name] for name in names}
    frame = pl.DataFrame(rows, schema=kinds, orient="row")
    expected = pl.when(pl.col("probs").is_null()).then(pl.col("relevance").cast(pl.Float32))
    means = [None if p is None else sum(i * x for i, x in enumerate(p)) for p in frame["probs"].to_list()]
    return frame.with_columns(
        gain=pl.coalesce(expected, pl.Series(means, dtype=pl.Float32)), labeler=pl.lit("l")
    ).select(list(LABELS))


HUMAN = qrels([("2", "x", 0), ("10", "b", 3), ("10", "a", 1), ("10", "c", 0), ("2", "y", -1)])


def test_judgments_are_sorted_as_text_and_codes_are_left_out() -> None:
    of = judged(HUMAN)
    assert of.frame.rows() == [("10", "a", 1), ("10", "b", 3), ("10", "c", 0), ("2", "x", 0)]
    assert of.grades.tolist() == [0, 1, 2, 3]
    assert of.left_out == 1


@pytest.mark.parametrize(("highest", "middle"), [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3), (0, 1)])
def test_relevant_is_at_least_half_the_highest(highest, middle) -> None:
    of = judged(qrels([("q", "a", highest), ("q", "b", 0)]))
    assert of.grades[of.middle] == middle


def test_a_scale_may_have_gaps() -> None:
    of = judged(qrels([("q", "a", 4), ("q", "b", 0)]), [0, 1, 4])
    assert of.grades.tolist() == [0, 1, 4]
    assert of.grades[of.middle] == 4


def test_judgments_are_the_rows_of_the_assessor() -> None:
    filled = pl.concat([HUMAN, qrels([("10", "z", 2), ("10", "b", 0)], "minilm")])
    assert judged(filled).frame.equals(judged(HUMAN).frame)
    # ... and the labels are the others
    one = rater(filled, judged(HUMAN), "l")
    assert one.grade.tolist() == [-1, 0, -1, -1]
    assert one.further == 1


def test_missing_labels_are_counted_by_reason_and_are_no_grade() -> None:
    of = judged(HUMAN)
    given = labels(
        [
            ("10", "b", 2, None, None),
            ("10", "a", None, None, "refused"),
            ("2", "x", None, None, "no text"),
            ("2", "elsewhere", 3, None, None),
            ("2", "nowhere", None, None, "no text"),
        ]
    )
    one = rater(given, of, "l")
    assert one.grade.tolist() == [-1, 2, -1, -1]
    assert np.isnan(one.score).tolist() == [True, False, True, True]
    assert one.reasons == {"no label": 1, "no text": 1, "refused": 1}
    assert one.further == 1
    assert one.probs is None
    assert one.reached(1) is None
    assert one.frame.rows() == [("10", "b", 2, 2.0, "l")]


def test_probabilities_say_how_likely_a_grade_is_reached() -> None:
    of = judged(HUMAN)
    given = labels(
        [
            ("10", "b", 3, [0.1, 0.2, 0.3, 0.4], None),
            ("10", "a", 1, None, None),
            ("2", "x", 0, [1, 0, 0, 0], None),
        ]
    )
    one = rater(given, of, "l")
    assert one.reached(2) == pytest.approx([np.nan, 0.7, np.nan, 0.0], nan_ok=True)
    assert one.score == pytest.approx([1.0, 2.0, np.nan, 0.0], nan_ok=True)
    assert one.levels.tolist() == [0, 1, 2, 3]


def test_both_are_the_pairs_of_both_by_topic() -> None:
    of = judged(HUMAN)
    pairs = both(of, np.array([1, 3, 0, 0]), np.array([-1, 2, 1, 0]))
    assert pairs.topics == ["10", "2"]
    assert pairs.topic.tolist() == [0, 0, 1]
    assert pairs.first.tolist() == [3, 0, 0]
    assert pairs.second.tolist() == [2, 1, 0]
    assert pairs.rows.tolist() == [1, 2, 3]
    none = both(of, np.full(4, -1), np.zeros(4, dtype=int))
    assert (none.topics, len(none.rows)) == ([], 0)


# -- what is refused -----------------------------------------------------------------------------------------

NULL_GRADE = HUMAN.with_columns(relevance=pl.lit(None, pl.Int16))
NULL_ID = HUMAN.with_columns(query_id=pl.lit(None, pl.String))


@pytest.mark.parametrize(
    ("frame", "grades", "words"),
    [
        (empty(QRELS), None, "human holds no judgment"),
        (HUMAN.with_columns(assessor=pl.lit("m")), None, "holds labels only"),
        (pl.concat([HUMAN, HUMAN[:1]]), None, "document 'x' of topic '2' is judged more than once"),
        (HUMAN.with_columns(relevance=pl.lit(-1, pl.Int16)), None, "all 5 judgments are below 0"),
        (qrels([("q", "a", 500)]), None, "which scale is that"),
        (HUMAN, [0, 1], "not among 0, 1: 3"),
        (HUMAN, [3], "are no scale"),
        (HUMAN, [0, 1, 1, 3], "are no scale"),
        (HUMAN, [-1, 0, 3], "are no scale"),
    ],
)
def test_judgments_that_are_none_are_refused(frame, grades, words) -> None:
    with pytest.raises(UsageError, match=words):
        judged(frame, grades)


@pytest.mark.parametrize(("frame", "column"), [(NULL_GRADE, "relevance"), (NULL_ID, "query_id")])
def test_nulls_of_an_assessor_are_refused(frame, column) -> None:
    with pytest.raises(SchemaError, match=f"human: null in {column}"):
        judged(frame)


def test_a_frame_of_other_columns_is_refused() -> None:
    with pytest.raises(SchemaError, match="relevance"):
        judged(HUMAN.drop("relevance"))
    with pytest.raises(SchemaError):
        rater(HUMAN.drop("gain"), judged(HUMAN), "l")


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (empty(LABELS), "l holds no label"),
        (empty(QRELS), "l holds no label"),
        (qrels([("010", "b", 1)]), "no label of a pair that the assessors judged .* 007 is not 7"),
        (labels([("10", "b", None, None, "refused")]), "no label of a pair"),
        (qrels([("10", "b", 1), ("10", "b", 2)]), "'b' of topic '10' is labeled more than once"),
        (
            qrels([("10", "b", 7), ("10", "a", -2)]),
            r"not on the assessors' scale: -2, 7; .*--grades 0,1,2,3,7",
        ),
    ],
)
def test_labels_that_are_none_are_refused(frame, words) -> None:
    with pytest.raises(UsageError, match=words):
        rater(frame, judged(HUMAN), "l")


@pytest.mark.parametrize(
    ("rows", "grades", "words"),
    [
        ([("10", "b", 1, [0.5, 0.6], None)], None, "no distribution"),
        ([("10", "b", 1, [-0.5, 1.5], None)], None, "no distribution"),
        (
            [("10", "b", 1, [0.5, 0.5], None), ("10", "a", 1, [0.5, 0.5, 0.0], None)],
            None,
            "2, 3 numbers a row",
        ),
        ([("10", "b", 1, [0.5, 0.5], None)], [0, 1, 2, 3], "2 numbers a row, but there are 4 grades"),
        ([("10", "b", 1, [float("nan"), 1.0], None)], None, "not finite|no distribution"),
    ],
)
def test_probabilities_that_are_none_are_refused(rows, grades, words) -> None:
    with pytest.raises(SchemaError, match=words):
        rater(labels(rows), judged(HUMAN), "l", grades)


def test_a_gain_that_is_not_finite_is_refused() -> None:
    frame = qrels([("10", "b", 1)]).with_columns(gain=pl.lit(float("inf"), pl.Float32))
    with pytest.raises(SchemaError, match="gain is not finite"):
        rater(frame, judged(HUMAN), "l")


def test_a_null_grade_in_labels_of_qrels_is_missing_and_a_null_id_an_error() -> None:
    frame = pl.concat([qrels([("10", "b", 2)]), NULL_GRADE[:1]])
    one = rater(frame, judged(HUMAN), "l")
    assert (one.grade >= 0).sum() == 1
    with pytest.raises(SchemaError, match="l: null in query_id"):
        rater(NULL_ID, judged(HUMAN), "l")
