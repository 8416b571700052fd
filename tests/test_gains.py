"""The arrays under the measures: who is judged, what a judgment is worth, and where a run has it."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import gains, judgments
from harness.arrays import running_sum
from harness.errors import SchemaError, UsageError
from harness.gains import blocks, find
from harness.judgments import SHIFTS, Judgments
from harness.ranking import rank
from harness.scoring import Spec, score


def qrels(rows: Iterable[tuple[str, str, int]]) -> pl.DataFrame:
    schema = {"query_id": pl.String, "doc_id": pl.String, "relevance": pl.Int16}
    frame = pl.DataFrame(list(rows), schema=schema, orient="row")
    return frame.with_columns(gain=pl.col("relevance").cast(pl.Float32), assessor=pl.lit("human"))


def filled(rows: Iterable[tuple[str, str, int, float, list[float] | None]]) -> pl.DataFrame:
    """QRELS of one labeler: query_id, doc_id, relevance, gain, probs."""
    schema = {
        "query_id": pl.String,
        "doc_id": pl.String,
        "relevance": pl.Int16,
        "gain": pl.Float32,
        "probs": pl.List(pl.Float32),
    }
    return pl.DataFrame(list(rows), schema=schema, orient="row").with_columns(assessor=pl.lit("label"))


def run(rows: Iterable[tuple[str, str, float]]) -> pl.DataFrame:
    schema = {"query_id": pl.String, "doc_id": pl.String, "score": pl.Float64}
    return rank(pl.DataFrame(list(rows), schema=schema, orient="row"))


def seen(
    judgments: Judgments, frame: pl.DataFrame, pairs: list[tuple[str, str]]
) -> list[tuple[str, str, int]]:
    """query_id, doc_id and rank of the hits; `pairs` in the order of the judgments."""
    view = find(judgments, blocks(frame)).all
    assert [judgments.topics[t] for t in view.topic] == [pairs[j][0] for j in view.judgment]
    return [(*pairs[j], r) for j, r in zip(view.judgment.tolist(), view.rank.tolist(), strict=True)]


PAIRS = st.lists(
    st.tuples(st.sampled_from(["1", "2", "3"]), st.sampled_from("abcdefgh")), unique=True, min_size=1
)


@settings(deadline=None, max_examples=50)
@given(
    judged=PAIRS,
    retrieved=PAIRS,
    kept=st.sampled_from([0, 1, 7, 2**64 - 1]),
    size=st.sampled_from([1, 3, 99]),
)
def test_the_judged_documents_are_found_at_their_ranks(judged, retrieved, kept, size) -> None:
    """Also where many keys collide, so that only the ids tell pairs apart, and in blocks of any size."""
    judged = sorted(judged)
    frame = run([(q, d, float(-i)) for i, (q, d) in enumerate(retrieved)])
    expected = [(q, d, r + 1) for q, d, _, r in frame.iter_rows() if (q, d) in judged]
    with pytest.MonkeyPatch.context() as patch:
        mixed = judgments.mixed_hash
        patch.setattr(
            judgments, "mixed_hash", lambda topic, document: mixed(topic, document) & np.uint64(kept)
        )
        patch.setattr(gains, "_BLOCK", size)
        found = Judgments(qrels([(q, d, 1) for q, d in judged]))
        assert seen(found, frame, judged) == expected


def test_topics_come_in_any_order_and_unjudged_ones_are_told() -> None:
    judgments = Judgments(qrels([("1", "a", 1), ("2", "a", 1), ("5", "z", 1)]))
    frame = run([("2", "x", 2.0), ("2", "a", 1.0), ("1", "a", 1.0), ("9", "a", 1.0), ("7", "a", 1.0)])
    backwards = [block for part in reversed(frame.partition_by("query_id")) for block in blocks(part)]
    hits = find(judgments, backwards)
    assert (hits.all.topic.tolist(), hits.all.rank.tolist()) == ([0, 1], [1, 2])
    assert hits.all.retrieved.tolist() == [1, 2, 0]
    assert (hits.unknown, hits.missing) == (["7", "9"], 1)


def test_a_restart_forgets_what_came_before() -> None:
    judgments = Judgments(qrels([("1", "a", 1), ("2", "b", 1)]))
    (first,) = blocks(run([("1", "b", 2.0), ("1", "a", 1.0), ("8", "a", 1.0)]))
    (whole,) = blocks(run([("1", "a", 2.0), ("2", "b", 1.0), ("9", "a", 1.0)]))
    hits = find(judgments, [first, whole._replace(restart=True)])
    assert (hits.all.rank.tolist(), hits.unknown, hits.all.retrieved.tolist()) == ([1, 1], ["9"], [1, 1])


@pytest.mark.parametrize("change", ["filtered", "shuffled", "interleaved"])
def test_a_frame_out_of_rank_order_is_ranked_anew(change) -> None:
    judgments = Judgments(qrels([("1", "c", 1), ("2", "c", 1)]))
    frame = run([("1", "a", 9.0), ("2", "b", 8.0), ("2", "c", 7.0), ("2", "d", 6.0), ("2", "e", 5.0)])
    if (
        change == "filtered"
    ):  # ranks 0 | 1 2 3: without a look at the topics they would read as one topic's 0 1 2 3
        frame, expected = frame.filter(pl.col("doc_id") != "b"), [1]
    elif change == "shuffled":
        frame, expected = frame.reverse(), [2]
    else:
        frame, expected = frame[[1, 0, 2, 3, 4]], [2]
    assert find(judgments, blocks(frame)).all.rank.tolist() == expected


def test_a_document_twice_in_a_topic_is_refused() -> None:
    judgments = Judgments(qrels([("1", "a", 1)]))
    (block,) = blocks(run([("1", "a", 2.0), ("1", "b", 1.0)]))
    twice = block._replace(doc_id=pl.Series(["a", "a"]), doc_hash=pl.Series(["a", "a"]).hash().to_numpy())
    with pytest.raises(SchemaError, match="document 'a' of topic '1' stands there twice"):
        find(judgments, [twice])


def test_a_pair_judged_twice_is_refused() -> None:
    with pytest.raises(UsageError, match="document 'b' of topic '2' is judged more than once"):
        Judgments(qrels([("1", "b", 1), ("2", "b", 1), ("2", "a", 1), ("2", "b", 0)]))


def test_no_judgment_is_refused() -> None:
    with pytest.raises(UsageError, match="no judgment"):
        Judgments(qrels([]))


@pytest.mark.parametrize(
    ("rows", "grades", "what"),
    [
        ([("1", "a", None, 0.5, [0.5, 0.5])], None, "null in relevance"),
        ([("1", "a", 1, None, [0.5, 0.5])], None, "document 'a' of topic '1' the gain None"),
        ([("1", "a", 1, 0.5, [0.5, 0.5]), ("1", "b", 1, 0.5, [1.0])], None, r"probs hold \[1, 2\]"),
        ([("1", "a", 1, 0.5, [0.5, 0.5])], [0, 1, 2], r"probs hold \[2\] numbers a row, but there are 3"),
        ([("1", "a", 1, 0.5, [0.5, None])], None, "probs hold a value that is null"),
    ],
)
def test_labels_that_cannot_be_used_are_refused(rows, grades, what) -> None:
    with pytest.raises(SchemaError, match=what):
        Judgments(filled(rows), grades)


def test_what_a_label_is_worth() -> None:
    judgments = Judgments(
        filled([("1", "a", 2, 1.25, [0.25, 0.25, 0.5]), ("1", "b", 2, 1.5, None), ("1", "c", -1, -1.0, None)])
    )
    assert judgments.relevant(1).tolist() == [0.75, 1.0, 0.0]
    assert judgments.relevant(2).tolist() == [0.5, 1.0, 0.0]
    assert judgments.gains().tolist() == [1.25, 1.5, 0.0]  # the column, never below 0
    assert judgments.gains(exponential=True).tolist() == [0.25 * 1 + 0.5 * 3, 3.0, 0.0]
    assert judgments.gains(mapping={2: 10}).tolist() == [0.25 * 1 + 0.5 * 10, 10.0, 0.0]


def test_probs_run_over_the_grades_given() -> None:
    judgments = Judgments(filled([("1", "a", 4, 3.0, [0.25, 0.25, 0.5])]), grades=[-1, 2, 4])
    assert judgments.relevant(1).tolist() == [0.75]
    assert judgments.relevant(3).tolist() == [0.5]
    assert judgments.gains(exponential=True).tolist() == [0.25 * 3 + 0.5 * 15]


def test_an_assessor_counts_by_grade_alone() -> None:
    frame = filled([("1", "a", 2, 0.1, [0.5, 0.5, 0.0])]).with_columns(assessor=pl.lit("human"))
    judgments = Judgments(frame)
    assert (judgments.relevant(2).tolist(), judgments.gains().tolist()) == ([1.0], [2.0])


def test_a_grade_too_high_for_exponential_gains_is_refused() -> None:
    with pytest.raises(UsageError, match="the grade 2000"):
        Judgments(qrels([("1", "a", 2000)])).gains(exponential=True)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9).map(float)), max_size=20).map(
        lambda rows: sorted(rows, key=lambda row: row[0])
    )
)
def test_running_sum_is_the_sum_before_within_the_topic(rows) -> None:
    topic = np.array([t for t, _ in rows], dtype=np.int64)
    values = np.array([v for _, v in rows], dtype=np.float64)
    expected = [sum(v for u, v in rows[:i] if u == t) for i, (t, _) in enumerate(rows)]
    assert running_sum(topic, values).tolist() == expected


# -- judged many times over ----------------------------------------------------------------------------------

SPECS = [
    Spec("nDCG", "nDCG@3", 3),
    Spec("AP", "AP"),
    Spec("P", "P@2", 2),
    Spec("RR", "RR"),
    Spec("R", "R@2", 2),
    Spec("RBP", "RBP", rel=None),
]
RANKED = run([(q, d, -float(i)) for q in ("1", "2", "3") for i, d in enumerate("abcd")])
grades_of_five = st.lists(st.integers(-1, 3), min_size=5, max_size=5)


def five(grades: list[int]) -> pl.DataFrame:
    pairs = [("1", "a"), ("1", "c"), ("2", "b"), ("3", "d"), ("3", "z")]
    return qrels([(*pair, g) for pair, g in zip(pairs, grades, strict=True)])


@settings(deadline=None, max_examples=20)
@given(st.lists(grades_of_five, min_size=1, max_size=4))
def test_regraded_judgments_are_those_of_as_many_qrels(times) -> None:
    """One grade stays 3, so that the scale, which regrading keeps, is that of each."""
    times = [[3, *grades[1:]] for grades in times]
    first = Judgments(five([3, 0, 0, 0, 0]))
    hits = find(first, blocks(RANKED))
    again = hits.repeated(first.regraded(np.array(times)))
    for spec in SPECS:
        found = score(spec, again).reshape(len(times), 3)
        for row, grades in zip(found, times, strict=True):
            expected = score(spec, find(Judgments(five(grades)), blocks(RANKED)))
            np.testing.assert_allclose(row, expected, atol=1e-12, err_msg=spec.text)


def test_regraded_judgments_are_an_assessor_s() -> None:
    labels = filled([("1", "a", 1, 0.75, [0.25, 0.75]), ("2", "b", 0, 0.25, [0.75, 0.25])])
    first = Judgments(labels)
    assert first.relevant(1).tolist() == first.gains().tolist() == [0.75, 0.25]
    made = first.regraded(np.array([[1, 0], [0, 2]]))
    assert (made.topics, made.topic.tolist(), len(made)) == (["1", "2"] * 2, [0, 1, 2, 3], 4)
    assert made.relevant(1).tolist() == made.gains().clip(max=1).tolist() == [1.0, 0.0, 0.0, 1.0]
    assert not made.labeled.any()
    assert made.scale == first.scale
    assert first.gains().tolist() == [0.75, 0.25], "the first ones are as they were"


def test_only_some_topics() -> None:
    rows = [("1", "a", 1, 0.75, [0.25, 0.75]), ("2", "b", 0, 0.25, [0.75, 0.25]), ("3", "c", 1, 1.0, None)]
    whole = Judgments(filled(rows).with_columns(shift_all=0.25, shift_topic=pl.Series([0.5, None, 1.0])))
    part = whole.only(np.array([False, True, True]), np.array([1, 2]))
    assert (part.topics, part.topic.tolist(), len(part)) == (["2", "3"], [0, 1], 2)
    assert part.relevant(1).tolist() == [0.25, 1.0]
    assert part.gains().tolist() == [0.25, 1.0]
    np.testing.assert_array_equal(part.shifts, [[0.25, np.nan], [0.25, 1.0]])
    assert part.scale == whole.scale
    assert whole.relevant(1).tolist() == [0.75, 0.25, 1.0]


def test_shifts_are_unknown_where_no_column_says_them() -> None:
    frame = filled([("1", "a", 1, 0.75, [0.25, 0.75])])
    assert np.isnan(Judgments(frame).shifts).tolist() == [[True, True]]
    said = frame.with_columns(pl.lit(0.5, pl.Float32).alias(SHIFTS[1]))
    np.testing.assert_array_equal(Judgments(said).shifts, [[np.nan, 0.5]])


# -- runs that say nothing, or the same ----------------------------------------------------------------------


def test_topics_with_one_score_for_all_are_counted() -> None:
    one = [(q, d, 1.0) for q, d in ("1a", "1b", "2a", "3b", "3c", "9a", "9b")]
    frame = run([*one, ("3", "a", 2.0)])
    judgments = Judgments(qrels([("1", "a", 1), ("2", "a", 1), ("3", "a", 1)]))
    assert find(judgments, blocks(frame)).tied == 1, "not one document alone, nor a topic nobody judged"


def test_runs_are_the_same_if_judged_documents_stand_at_the_same_ranks() -> None:
    judgments = Judgments(qrels([("1", "a", 1), ("1", "b", 0)]))
    base, other, swapped, longer = (
        find(judgments, blocks(run([("1", d, -float(i)) for i, d in enumerate(ids)])))
        for ids in ("axb", "ayb", "bxa", "axby")
    )
    assert base.same(other)
    assert not base.same(swapped)
    assert not base.same(longer), "as many documents, too: R-precision and P count on"
