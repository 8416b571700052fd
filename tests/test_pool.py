"""Pool, holes, judged@k, condensed lists."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import SchemaError, UsageError
from harness.frames import QRELS, RUN
from harness.pool import condensed, found_once, holes, judged, pool, summary
from harness.ranking import rank
from harness.trec import read_qrels, read_runs


def run(**topics: str) -> pl.DataFrame:
    """q1="a b c": the documents of each topic, best first."""
    rows = [(q, d, -float(i)) for q, ids in topics.items() for i, d in enumerate(ids.split())]
    return rank(pl.DataFrame(rows, schema={c: RUN[c] for c in ("query_id", "doc_id", "score")}, orient="row"))


def qrels(**topics: str) -> pl.DataFrame:
    """q1="a:1 b:-1": the grades of each topic."""
    rows = [
        (q, pair.split(":")[0], int(pair.split(":")[1]), float(pair.split(":")[1]), "human")
        for q, pairs in topics.items()
        for pair in pairs.split()
    ]
    return pl.DataFrame(rows, schema=QRELS, orient="row")


RUNS = {"A": run(q1="a b c", q2="x y", q9="a"), "B": run(q1="b d a e")}
JUDGED = qrels(q1="a:1 d:0", q2="x:2", q3="a:1")


def test_the_pool_is_the_union_of_the_tops():
    assert pool(RUNS, 2).rows() == [
        ("q1", "a"),
        ("q1", "b"),
        ("q1", "d"),
        ("q2", "x"),
        ("q2", "y"),
        ("q9", "a"),
    ]


def test_holes_are_pooled_pairs_without_a_qrel_on_judged_topics():
    assert holes(RUNS, JUDGED, 2).rows() == [("q1", "b"), ("q2", "y")]
    assert holes(RUNS, JUDGED, 4).rows() == [("q1", "b"), ("q1", "c"), ("q1", "e"), ("q2", "y")]


def test_found_once_are_the_pairs_that_one_run_alone_brings_and_which():
    assert found_once(RUNS, 2).rows() == [
        ("q1", "a", "A"),  # third in B
        ("q1", "d", "B"),  # b is in both tops, c and e in none
        ("q2", "x", "A"),
        ("q2", "y", "A"),
        ("q9", "a", "A"),
    ]
    assert found_once(RUNS, 3).rows()[:2] == [("q1", "c", "A"), ("q1", "d", "B")]
    assert found_once(RUNS, 3).columns == ["query_id", "doc_id", "run"]
    assert found_once({"A": RUNS["A"], "twin": RUNS["A"]}, 5).rows() == []


@given(
    st.dictionaries(
        st.sampled_from("ABC"),
        st.dictionaries(st.sampled_from(["q1", "q2"]), st.permutations("abcde"), min_size=1),
        min_size=1,
    ),
    st.integers(1, 6),
)
def test_found_once_is_what_counting_gives(given_runs, depth):
    runs = {n: run(**{q: " ".join(ids) for q, ids in topics.items()}) for n, topics in given_runs.items()}
    seats: dict[tuple[str, str], list[str]] = {}
    for name, topics in given_runs.items():
        for q, ids in topics.items():
            for d in ids[:depth]:
                seats.setdefault((q, d), []).append(name)
    expected = sorted((q, d, names[0]) for (q, d), names in seats.items() if len(names) == 1)
    assert found_once(runs, depth).rows() == expected
    assert found_once(dict(reversed(runs.items())), depth).rows() == expected


def test_a_grade_on_another_topic_judges_nothing():
    assert holes({"A": run(q2="a")}, JUDGED, 5).rows() == [("q2", "a")]


def test_judged_is_over_what_was_retrieved_and_zero_where_a_topic_is_missing():
    assert judged(RUNS, JUDGED, 3).rows() == [
        ("A", "q1", pytest.approx(1 / 3), 2),
        ("A", "q2", 0.5, 1),  # two retrieved, three asked for
        ("A", "q3", 0.0, 0),
        ("B", "q1", pytest.approx(2 / 3), 1),
        ("B", "q2", 0.0, 0),
        ("B", "q3", 0.0, 0),
    ]


def test_any_grade_judges_a_negative_one_too():
    assert judged({"A": run(q="a b")}, qrels(q="a:-1"), 2)["judged"].to_list() == [0.5]


def test_summary_has_the_keys_scripts_rely_on():
    assert summary(RUNS, JUDGED, 3) == {
        "depth": 3,
        "runs": {
            "A": {
                "judged": pytest.approx((1 / 3 + 1 / 2) / 3),
                "holes": 3,
                "missing_topics": 1,
                "unjudged_topics": 1,
            },
            "B": {"judged": pytest.approx(2 / 9), "holes": 1, "missing_topics": 2, "unjudged_topics": 0},
        },
        "pool": 6,
        "pool_holes": 3,
        "topics": 3,
    }


def test_a_run_with_none_of_the_topics():
    found = summary({"A": run(z="a b")}, JUDGED, 3)
    assert found["runs"]["A"] == {"judged": 0.0, "holes": 0, "missing_topics": 3, "unjudged_topics": 1}
    assert (found["pool"], found["pool_holes"]) == (0, 0)


def test_condensed_closes_the_ranks_up():
    kept = condensed(RUNS["B"], JUDGED)
    assert kept.select("query_id", "doc_id", "rank").rows() == [("q1", "d", 0), ("q1", "a", 1)]
    assert kept.schema == RUN
    assert condensed(RUNS["A"], JUDGED)["query_id"].unique().sort().to_list() == ["q1", "q2"]


@pytest.mark.parametrize("depth", [0, -1])
def test_a_depth_counts_documents(depth):
    with pytest.raises(UsageError, match="at least 1"):
        pool(RUNS, depth)


def test_nothing_to_count():
    with pytest.raises(UsageError, match="no runs"):
        summary({}, JUDGED, 3)
    with pytest.raises(UsageError, match="no topic"):
        summary(RUNS, JUDGED[:0], 3)
    with pytest.raises(SchemaError, match="run 'A' lacks 'rank'"):
        pool({"A": RUNS["A"].drop("rank")}, 3)


ids = st.sampled_from("abcdefg")
topics = st.dictionaries(
    st.sampled_from(["1", "2", "10"]), st.lists(ids, unique=True, min_size=1), min_size=1
)


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(st.sampled_from(["r", "s", "t"]), topics, min_size=1),
    st.dictionaries(st.tuples(st.sampled_from(["1", "2", "3"]), ids), st.integers(-1, 3), min_size=1),
    st.integers(1, 8),
    st.randoms(use_true_random=False),
)
def test_agrees_with_the_definitions(lists, grades, depth, random):
    runs = {name: run(**{q: " ".join(ds) for q, ds in topics.items()}) for name, topics in lists.items()}
    rows = [(q, d, g, float(g), "human") for (q, d), g in grades.items()]
    random.shuffle(rows)
    labels = pl.DataFrame(rows, schema=QRELS, orient="row")
    known = {q for q, _ in grades}
    pooled = {(q, d) for topics in lists.values() for q, ds in topics.items() for d in ds[:depth]}
    open_pairs = sorted(p for p in pooled if p[0] in known and p not in grades)
    assert pool(runs, depth).rows() == sorted(pooled)
    assert holes(runs, labels, depth).rows() == open_pairs
    found = summary(runs, labels, depth)
    assert (found["pool"], found["pool_holes"]) == (sum(q in known for q, _ in pooled), len(open_pairs))
    table = judged(runs, labels, depth)
    assert table.select("run", "query_id").rows() == [(r, q) for r in lists for q in sorted(known)]
    for name, query_id, share, count in table.rows():
        first = lists[name].get(query_id, [])[:depth]
        hits = sum((query_id, d) in grades for d in first)
        assert share == (hits / len(first) if first else 0.0)
        assert count == len(first) - hits
    for name, told in found["runs"].items():
        mine = table.filter(run=name)
        assert told["judged"] == pytest.approx(mine["judged"].mean())
        assert told["holes"] == mine["holes"].sum()
        assert told["missing_topics"] == len(known - set(lists[name]))
        assert told["unjudged_topics"] == len(set(lists[name]) - known)


def test_condensing_a_judged_list_changes_nothing():
    everything = qrels(q1="a:0 b:0 c:0", q2="x:0 y:0", q9="a:0")
    assert condensed(RUNS["A"], everything).equals(RUNS["A"])


def test_judged_is_that_of_ir_measures_on_real_runs(data_dir):
    """Its Judged@k orders ties by ascending id, so only topics without ties at the cut are compared."""
    import ir_measures

    folder = data_dir / "trec_covid_r1"
    labels = read_qrels(folder / "qrels.human.txt")
    path = sorted((folder / "runs").glob("*.run.gz"))[0]
    ((name, ranked),) = read_runs([path]).items()
    mine = {q: v for _, q, v, _ in judged({name: ranked}, labels, 10).rows()}
    cut = ranked.filter(pl.col("rank").is_in([9, 10])).group_by("query_id").agg(pl.col("score").n_unique())
    clear = set(cut.filter(score=2)["query_id"])
    assert len(clear) > 20
    theirs = ir_measures.iter_calc(
        [ir_measures.Judged @ 10],
        ir_measures.read_trec_qrels(str(folder / "qrels.human.txt")),
        ir_measures.read_trec_run(str(path)),
    )
    for metric in theirs:
        if metric.query_id in clear:
            assert mine[metric.query_id] == pytest.approx(metric.value)


def test_holes_of_real_runs_are_those_of_plain_sets(data_dir):
    folder = data_dir / "trec_covid_r1"
    labels = read_qrels(folder / "qrels.human.txt")
    runs = read_runs(sorted((folder / "runs").glob("*.run.gz"))[:5])
    known = set(labels.select("query_id", "doc_id").rows())
    expected = set()
    for frame in runs.values():
        expected |= {(q, d) for q, d, _, r in frame.rows() if r < 20} - known
    assert set(holes(runs, labels, 20).rows()) == expected
    assert summary(runs, labels, 20)["pool_holes"] == len(expected)
