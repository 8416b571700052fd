"""The one sort."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from harness.errors import SchemaError
from harness.frames import RUN
from harness.ranking import double_precision_topics, in_order, rank, repeated, top, topic_starts

Row = tuple[str, str, float]


def frame(*rows: Row) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=["query_id", "doc_id", "score"], orient="row")


def docs(run: pl.DataFrame, topic: str) -> list[str]:
    return run.filter(query_id=topic)["doc_id"].to_list()


def by_hand(rows: list[Row]) -> list[tuple[str, str, int]]:
    """The definition, with Python's sorts: score as float32 descending, then the id's bytes descending."""
    with np.errstate(over="ignore"):
        keyed = [(q, -float(np.float32(s)), d) for q, d, s in rows]
    keyed.sort(key=lambda r: r[2].encode(), reverse=True)
    keyed.sort(key=lambda r: r[1])
    keyed.sort(key=lambda r: r[0].encode())
    ranks: dict[str, int] = {}
    out = []
    for q, _, d in keyed:
        out.append((q, d, ranks.get(q, 0)))
        ranks[q] = ranks.get(q, 0) + 1
    return out


def test_score_descends_and_rank_counts_from_zero_in_each_topic():
    run = rank(frame(("2", "a", 1.0), ("10", "b", 2.0), ("2", "c", 3.0), ("10", "d", 4.0)))
    assert run.rows() == [("10", "d", 4.0, 0), ("10", "b", 2.0, 1), ("2", "c", 3.0, 0), ("2", "a", 1.0, 1)]
    assert run.schema == RUN


def test_ties_go_by_doc_id_descending_in_bytes():
    # U+FF61 is above U+1F600 in UTF-16 code units, below it in UTF-8 bytes; "é" is above "z" in bytes.
    run = rank(frame(*(("q", d, 1.0) for d in ("z", "é", "｡", "😀", "Z", "10", "9"))))
    assert docs(run, "q") == ["😀", "｡", "é", "z", "Z", "9", "10"]


def test_scores_are_compared_as_float32():
    run = rank(frame(("q", "a", 7.00000002), ("q", "b", 7.00000001), ("q", "c", 7.000001)))
    assert docs(run, "q") == ["c", "b", "a"]


def test_negative_zero_is_zero_and_huge_scores_tie():
    run = rank(
        frame(("q", "a", 0.0), ("q", "b", -0.0), ("q", "c", -1e-9), ("q", "d", 1e300), ("q", "e", 1e39))
    )
    assert docs(run, "q") == ["e", "d", "b", "a", "c"]


scores = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([0.0, -0.0, 1.0, 1.00000001, 1.00000002, -1.0, 5e-324, 1e39, 1e300]),
)
pairs = st.tuples(st.sampled_from(["1", "10", "2", "é"]), st.text("ab9é😀", min_size=1, max_size=3))
runs = st.dictionaries(pairs, scores, min_size=1, max_size=40)


@settings(max_examples=60, deadline=None)
@given(runs, st.randoms(use_true_random=False))
@example({("1", "a"): 0.0, ("1", "b"): -0.0}, None)
def test_agrees_with_the_definition_whatever_the_order_of_the_rows(run, random):
    rows = [(q, d, s) for (q, d), s in run.items()]
    expected = by_hand(rows)
    if random is not None:
        random.shuffle(rows)
    ranked = rank(frame(*rows))
    assert ranked.select("query_id", "doc_id", "rank").rows() == expected
    assert rank(ranked).equals(ranked)
    starts = topic_starts(ranked["query_id"])
    assert in_order(starts, ranked["doc_id"], ranked["score"].to_numpy())


@settings(max_examples=60, deadline=None)
@given(runs)
def test_in_order_says_whether_a_sort_would_change_anything(run):
    rows = sorted((q, d, s) for (q, d), s in run.items())
    table = frame(*rows)
    stands = [(q, d) for q, d, _ in by_hand(rows)] == [(q, d) for q, d, _ in rows]
    assert in_order(topic_starts(table["query_id"]), table["doc_id"], table["score"].to_numpy()) == stands


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
def test_refuses_scores_that_are_not_finite(score):
    with pytest.raises(SchemaError, match=r"document 'b' in topic 'q' is -?(nan|inf)"):
        rank(frame(("q", "a", 1.0), ("q", "b", score)))


def test_refuses_nulls_repeated_documents_and_other_types():
    with pytest.raises(SchemaError, match="doc_id is null at row 1"):
        rank(pl.DataFrame({"query_id": ["q", "q"], "doc_id": ["a", None], "score": [1.0, 2.0]}))
    with pytest.raises(SchemaError, match="topic 'q' has document 'a' twice"):
        rank(frame(("q", "a", 1.0), ("q", "b", 2.0), ("q", "a", 3.0)))
    with pytest.raises(SchemaError, match="doc_id is Int64"):
        rank(pl.DataFrame({"query_id": ["q"], "doc_id": [7], "score": [1.0]}))


def test_no_rows_give_an_empty_run():
    assert rank(frame().cast({"query_id": pl.String, "doc_id": pl.String, "score": pl.Float64})).schema == RUN


def test_repeated_gives_later_occurrences_only():
    table = frame(("q", "a", 1.0), ("r", "a", 1.0), ("q", "a", 2.0), ("q", "b", 1.0), ("q", "a", 3.0))
    assert repeated(table).tolist() == [2, 4]
    assert repeated(table[:2]).tolist() == []


def test_repeated_does_not_trust_hashes_alone():
    # (q, d) and (d, q) would collide under a symmetric mix of the two hashes.
    assert repeated(frame(("a", "b", 1.0), ("b", "a", 1.0), ("a", "a", 1.0), ("b", "b", 1.0))).tolist() == []


def test_top_keeps_the_first_of_every_topic():
    run = rank(frame(("1", "a", 3.0), ("1", "b", 2.0), ("1", "c", 1.0), ("2", "d", 1.0)))
    assert top(run, 2)["doc_id"].to_list() == ["a", "b", "d"]


def test_double_precision_topics_are_those_another_precision_reorders():
    run = rank(
        frame(
            ("same", "b", 7.00000002),
            ("same", "a", 7.00000001),
            ("other", "b", 7.00000001),
            ("other", "a", 7.00000002),
            ("tie", "a", 7.0),
            ("tie", "b", 7.0),
            ("clear", "a", 9.0),
            ("clear", "b", 8.0),
        )
    )
    assert double_precision_topics(run) == ["other"]


@settings(max_examples=60, deadline=None)
@given(runs)
def test_double_precision_topics_agree_with_sorting_doubles(run):
    ranked = rank(frame(*((q, d, s) for (q, d), s in run.items())))
    doubles = sorted(run, key=lambda p: p[1].encode(), reverse=True)
    doubles.sort(key=lambda p: -run[p])
    differ = [t for t in sorted({q for q, _ in run}) if docs(ranked, t) != [d for q, d in doubles if q == t]]
    assert double_precision_topics(ranked) == differ


def test_order_is_that_of_pytrec_eval():
    pytrec_eval = pytest.importorskip("pytrec_eval")
    generator = np.random.default_rng(3)
    ids = [f"d{i}" for i in range(60)]
    for _ in range(20):
        scored = {d: float(s) for d, s in zip(ids, generator.integers(0, 5, 60) / 1e8 + 20, strict=True)}
        scored |= {d: float(generator.integers(18, 23)) for d in ids[::3]}
        order = rank(frame(*(("q", d, s) for d, s in scored.items())))["doc_id"].to_list()
        for place in (0, 7, 30, 59):  # one relevant document: its reciprocal rank is its place
            measure = pytrec_eval.RelevanceEvaluator({"q": {order[place]: 1}}, {"recip_rank"})
            assert measure.evaluate({"q": scored})["q"]["recip_rank"] == pytest.approx(1 / (place + 1))
