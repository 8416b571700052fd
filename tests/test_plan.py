"""Which documents to judge first: influence by hand and by brute force, the rule, lists and answers."""

from __future__ import annotations

import csv
import json
from math import log2
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import cli
from harness.collection import open_collection
from harness.compare import compare
from harness.errors import InputError, SchemaError, UsageError
from harness.frames import QRELS
from harness.measure import measure as score
from harness.plan import Plan, plan, read_answers, relabeler, significant, write_list
from harness.plan_pool import read_documents, scale_of
from harness.ranking import rank
from harness.trec import read_qrels, write_qrels, write_run

KEYS = ["query_id", "doc_id"]
GRADES = range(4)
MEASURES = ["nDCG@3", "nDCG", "nDCG(dcg='exp-log2')@3", "AP", "AP(rel=2)@4", "RR", "RR(rel=2)@3"]
MEASURES += ["P@3", "R@3", "Success@2", "RBP", "RBP(rel=2)@4"]


def run(**topics: str) -> pl.DataFrame:
    """A run out of its documents in order, one letter each."""
    rows = [(q, d, float(-i)) for q, documents in topics.items() for i, d in enumerate(documents)]
    schema = {"query_id": pl.String, "doc_id": pl.String, "score": pl.Float64}
    return rank(pl.DataFrame(rows, schema=schema, orient="row"))


def judged(*rows: tuple[str, str, int]) -> pl.DataFrame:
    return pl.DataFrame([(*r, float(r[2]), "human") for r in rows], schema=QRELS, orient="row")


def labeled(*rows: tuple[str, str, list[float]]) -> pl.DataFrame:
    made = [(q, d, 1, float(np.dot(p, range(len(p)))), "model", p) for q, d, p in rows]
    return pl.DataFrame(made, schema={**QRELS, "probs": pl.List(pl.Float32)}, orient="row")


def both(human: pl.DataFrame, labels: pl.DataFrame) -> pl.DataFrame:
    return pl.concat([human, labels], how="diagonal")


def asked(made: Plan) -> list[str]:
    return made.order["doc_id"].to_list()


# -- influence -----------------------------------------------------------------------------------------------


def test_the_influence_on_precision_is_the_difference_of_weights() -> None:
    qrels = both(
        judged(("1", "z", 1), ("2", "z", 0)), labeled(("1", "a", [0.5, 0.5]), ("1", "b", [0.9, 0.1]))
    )
    made = plan(run(**{"1": "xa", "2": "z"}), run(**{"1": "xb", "2": "z"}), qrels, "P@2", grades=[0, 1])
    assert asked(made) == ["a", "b"]  # x stands first in both and is not asked for
    a, b = made.order.iter_rows(named=True)
    assert a["influence"] == pytest.approx(-1 / 2 / 2)  # lost from base, 1/k, over two topics
    assert b["influence"] == pytest.approx(1 / 2 / 2)
    assert a["uncertainty"] == pytest.approx(0.5, abs=0.02)  # 2 % of what is believed is the prior's
    assert b["uncertainty"] == pytest.approx((0.1 * 0.9) ** 0.5, abs=0.02)
    assert a["shrinkage"] == pytest.approx((a["influence"] * a["uncertainty"]) ** 2)


def test_the_influence_on_ndcg_moves_the_ideal_too() -> None:
    # Known: i with grade 1. Ideal of (x, 1): max + min / log2(3). Believed of x: grade 0 or 2, even chances.
    qrels = both(judged(("1", "i", 1)), labeled(("1", "x", [0.5, 0.0, 0.5])))
    base, candidate = run(**{"1": "i"}), run(**{"1": "xi"})
    made = plan(base, candidate, qrels, "nDCG@2", grades=[0, 1, 2])
    outcomes = {0: 1 / log2(3) - 1, 2: (2 + 1 / log2(3) - 1) / (2 + 1 / log2(3))}
    one = (1 + 1 / log2(3) - 1) / (1 + 1 / log2(3))
    believed = read_documents(base, candidate, qrels, 2, [0, 1, 2]).probs[1]
    values = np.array([outcomes[0], one, outcomes[2]])
    expected = believed @ (values - believed @ values) ** 2
    assert made.order["shrinkage"].to_list() == [pytest.approx(expected)]
    assert asked(made) == ["x"]


def test_the_prior_is_what_judged_documents_at_like_ranks_have() -> None:
    topics = [str(t) for t in range(30)]
    base, candidate = (run(**dict.fromkeys(topics, d)) for d in ("abcdefgh", "abcdefgh"))
    rows = [(t, d, 1 if d in "abc" else 0) for t in topics[1:] for d in "abcdefgh"]
    found = read_documents(base, candidate, judged(*rows, ("0", "a", 1)), 8)
    chance = dict(zip(found.pairs["doc_id"], found.probs[found.topic == 0, 1], strict=False))
    assert chance["b"] > 0.9
    assert chance["d"] < 0.1
    assert read_documents(base, candidate, judged(("0", "z", 1)), 8).probs == pytest.approx(0.5)


def test_judged_in_a_topic_makes_the_rest_of_it_likelier() -> None:
    topics = {str(t): "abcdefgh" for t in range(4)}
    rows = [(t, d, int(t == "1")) for t in ("1", "2") for d in "abcd"]
    found = read_documents(run(**topics), run(**topics), judged(*rows, ("3", "z", 0)), 8)
    chance = {t: found.probs[(found.topic == i) & found.hole, 1].mean() for i, t in enumerate(found.topics)}
    assert chance["1"] > chance["3"] > chance["2"]


@pytest.mark.parametrize("name", ["P@3", "RBP", "R@3", "nDCG@3"])
def test_a_topic_that_both_rank_alike_is_never_asked_for(name: str) -> None:
    base, candidate = run(**{"1": "abcd", "2": "abcd"}), run(**{"1": "abcd", "2": "bacd"})
    made = plan(base, candidate, judged(("1", "z", 1), ("2", "z", 0)), name)
    assert "1" not in made.order["query_id"].to_list()


@pytest.mark.parametrize("name", ["P@4", "RBP@4", "RBP(rel=1)"])
def test_a_document_that_both_rank_alike_is_never_asked_for(name: str) -> None:
    made = plan(run(**{"1": "abcx"}), run(**{"1": "acby"}), judged(("1", "z", 1)), name)
    assert "a" not in asked(made)
    assert set(asked(made)) >= {"x", "y"}


def test_what_only_one_run_has_at_the_top_comes_before_the_depths() -> None:
    made = plan(run(**{"1": "abcdef"}), run(**{"1": "xbcdey"}), judged(("1", "z", 1)), "nDCG@6")
    assert set(asked(made)[:2]) == {"a", "x"}
    ideal_only = made.order.filter(pl.col("doc_id").is_in(["b", "c", "d", "e"]))["shrinkage"]
    assert (ideal_only < made.order["shrinkage"][1] / 10).all()


TOPIC = st.tuples(
    st.permutations("abcdef"), st.permutations("cdefgh"), st.lists(st.integers(0, 6), min_size=8, max_size=8)
)


@settings(max_examples=10, deadline=None)
@given(
    topics=st.lists(TOPIC, min_size=1, max_size=3), name=st.sampled_from(MEASURES), seed=st.integers(0, 99)
)
def test_judging_everything_gives_the_full_verdict_and_shrinkage_is_what_brute_force_gives(
    topics: list[tuple[str, str, list[int]]], name: str, seed: int
) -> None:
    base, candidate = (run(**{str(t): "".join(given[i]) for t, given in enumerate(topics)}) for i in (0, 1))
    full = [
        (str(t), d, g % 4)
        for t, given in enumerate(topics)
        for d, g in zip("abcdefgh", given[2], strict=True)
    ]
    known = [r for r, g in zip(full, [g for given in topics for g in given[2]], strict=True) if g > 3]
    known += [(str(t), "z", 1) for t in range(len(topics))]
    made = plan(base, candidate, judged(*known), name, grades=GRADES, seed=seed)
    if made.order.height:  # one document, each grade in turn, all else as believed
        row = made.order.row(0, named=True)
        documents = read_documents(base, candidate, judged(*known), made.cutoff, GRADES)
        pairs = list(documents.pairs.iter_rows())
        filled = [
            (*p, c.tolist()) for p, c, h in zip(pairs, documents.probs, documents.hole, strict=True) if h
        ]
        at = (row["query_id"], row["doc_id"])
        outcomes = []
        for grade in GRADES:
            rest = labeled(*[f for f in filled if f[:2] != at])
            scored = score({"b": base, "c": candidate}, both(judged(*known, (*at, grade)), rest), [name]).runs
            outcomes.append(scored["c"][made.measure] - scored["b"][made.measure])
        believed = documents.probs[pairs.index(at)]
        spread = believed @ (np.array(outcomes) - believed @ outcomes) ** 2
        assert row["shrinkage"] == pytest.approx(spread, rel=1e-3, abs=1e-9)
    within = read_documents(base, candidate, judged(*known), made.cutoff, GRADES).pairs
    qrels = judged(*known)
    truth = judged(*full).join(within, on=KEYS, how="semi").join(qrels, on=KEYS, how="anti")
    while made.order.height:
        qrels = pl.concat([qrels, truth.join(made.order.head(3), on=KEYS, how="semi")])
        made = plan(base, candidate, qrels, name, grades=GRADES, seed=seed)
    assert made.settled
    every = pl.concat([judged(*known), truth])
    found = compare({"b": base, "c": candidate}, every, [name], grades=GRADES).found["c"][made.measure]
    assert made.delta == pytest.approx(found.delta, abs=1e-9)
    if "equivalent" not in (made.verdict, found.verdict):  # runs that both get 0 are "equivalent" to one only
        assert made.verdict == found.verdict


# -- the rule ------------------------------------------------------------------------------------------------


def test_nothing_to_judge_is_settled() -> None:
    qrels = judged(*[("1", d, int(d in "ab")) for d in "abcd"])
    made = plan(run(**{"1": "abc"}), run(**{"1": "bcd"}), qrels, "nDCG@3")
    assert made.settled
    assert made.order.is_empty()
    assert (made.holes, made.needed, made.judged) == (0, 0, 4)
    assert made.verdict == "inconclusive"
    assert "no document is left" in made.reason


def test_the_same_run_twice_is_equivalent_whatever_is_unjudged() -> None:
    one = run(**{"1": "abc", "2": "xyz"})
    made = plan(one, one, judged(("1", "a", 1), ("2", "q", 0)), "nDCG@3")
    assert made.settled
    assert made.verdict == "equivalent"
    assert made.holes == 5
    assert "same" in made.reason


def many(relevant: int, unjudged: int) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """Twenty topics: the candidate's own document is relevant in the first `relevant`; the last `unjudged`
    topics nobody judged but for z."""
    topics = [f"{t:02}" for t in range(20)]
    rows = [
        (t, d, int(d == "c" and i < relevant)) for i, t in enumerate(topics[: 20 - unjudged]) for d in "bc"
    ]
    rows += [(t, "z", 1) for t in topics]
    return run(**dict.fromkeys(topics, "b")), run(**dict.fromkeys(topics, "c")), judged(*rows)


def test_it_stops_once_what_is_left_can_hardly_change_the_verdict() -> None:
    sure = plan(*many(relevant=18, unjudged=2), "P@1")
    assert sure.settled
    assert sure.needed == 4
    assert sure.verdict == "better"
    assert "100%" in sure.reason
    open_ = plan(*many(relevant=6, unjudged=10), "P@1")
    assert not open_.settled
    assert sum(open_.outlook.values()) == pytest.approx(1)
    assert "open" in open_.reason


def test_it_does_not_stop_before_anything_is_judged() -> None:
    base, candidate, qrels = many(relevant=0, unjudged=0)
    made = plan(base, candidate, qrels.clear(), "P@1", grades=[0, 1])
    assert not made.settled
    assert made.topics == 20
    assert made.needed == 40


def test_topics_that_count_can_be_named() -> None:
    base, candidate, qrels = many(relevant=3, unjudged=0)
    few = qrels.head(4)
    assert plan(base, candidate, few, "P@1").topics == 2
    assert plan(base, candidate, few, "P@1", topics=qrels["query_id"].unique()).topics == 20


def test_the_test_is_the_exact_sign_flip_test() -> None:
    from scipy.stats import permutation_test

    rng = np.random.default_rng(5)
    rows = rng.normal(0.4, 1, (30, 8))
    found = significant(rows, seed=0)
    for row, mine in zip(rows, found, strict=True):
        exact = permutation_test(
            (row,), lambda x, axis: x.sum(axis), permutation_type="samples", vectorized=True
        )
        assert mine == (exact.pvalue < 0.05)
    assert 0 < found.sum() < 30


def test_the_same_seed_gives_the_same_plan_in_any_row_order() -> None:
    base, candidate, qrels = many(relevant=6, unjudged=10)
    one = plan(base, candidate, qrels, "nDCG@1", seed=3)
    two = plan(
        base.sample(fraction=1, shuffle=True, seed=1),
        candidate,
        qrels.sample(fraction=1, shuffle=True, seed=2),
        "nDCG@1",
        seed=3,
    )
    assert json.dumps(one.to_json()) == json.dumps(two.to_json())
    assert one.outlook != plan(base, candidate, qrels, "nDCG@1", seed=4).outlook


def test_count_cuts_the_list_only() -> None:
    base, candidate, qrels = many(relevant=6, unjudged=10)
    whole, cut = (plan(base, candidate, qrels, "P@1", count=c) for c in (None, 3))
    assert cut.order.equals(whole.order.head(3))
    assert cut.needed == whole.needed == 20


def test_labels_are_made_anew_from_the_judgments() -> None:
    seen = []

    def relabel(human: pl.DataFrame) -> pl.DataFrame:
        seen.append(human)
        return both(human, labeled(("1", "a", [1.0, 0.0]), ("1", "x", [0.5, 0.5])))

    qrels = both(judged(("1", "z", 1)), labeled(("1", "a", [0.5, 0.5]), ("1", "x", [1.0, 0.0])))
    base, candidate = run(**{"1": "a"}), run(**{"1": "x"})
    assert asked(plan(base, candidate, qrels, "P@1", grades=[0, 1])) == ["a", "x"]
    assert asked(plan(base, candidate, qrels, "P@1", grades=[0, 1], relabel=relabel)) == ["x", "a"]
    assert seen[0]["doc_id"].to_list() == ["z"]


def test_a_labeler_fills_what_is_open() -> None:
    demo = open_collection("demo")
    human = demo.qrels().filter(pl.col("relevance") >= 0)
    few = human.sort(KEYS).group_by("query_id", maintain_order=True).head(3)
    runs = {
        name: rank(human.select(*KEYS, score=pl.struct(KEYS).hash(seed).cast(pl.Float64)))
        for name, seed in (("a", 1), ("b", 2))
    }
    relabel = relabeler(demo, runs, "constant:1", depth=5)
    made = plan(*runs.values(), few, "P@5", grades=list(demo.grades), relabel=relabel)
    assert made.holes > 0
    filled = relabel(few)
    assert (filled["assessor"] != "human").any()
    assert relabel(few.clear()).is_empty()
    one_grade = few.filter(pl.col("relevance") == 0)
    assert relabel(one_grade).equals(one_grade)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"measure": "Bpref"}, "cannot be planned for 'Bpref'"),
        ({"measure": "nDCG(judged_only=True)@5"}, "cannot be planned"),
        ({"measure": "nDCG@"}, "is not a measure"),
        ({"count": 0}, "count is 0"),
        ({"grades": [1]}, "two grades or more"),
        ({"topics": []}, "no topic to plan for"),
        ({"topics": ["7"]}, "neither run has a topic"),
    ],
)
def test_arguments_that_cannot_be_meant(change: dict[str, object], says: str) -> None:
    given: dict[str, object] = {"measure": "P@1", **change}
    with pytest.raises(UsageError, match=says):
        plan(run(**{"1": "a"}), run(**{"1": "b"}), judged(("1", "a", 1)), **given)  # type: ignore[arg-type]


def test_qrels_that_cannot_be_meant() -> None:
    base, candidate = run(**{"1": "a"}), run(**{"1": "b"})
    with pytest.raises(UsageError, match="which grades there are"):
        plan(base, candidate, judged(), "P@1")
    with pytest.raises(SchemaError, match="more than once"):
        plan(base, candidate, judged(("1", "a", 1), ("1", "a", 1)), "P@1")
    wide = both(judged(("1", "z", 1)), labeled(("1", "a", [0.2, 0.3, 0.5])))
    with pytest.raises(SchemaError, match="2 grades"):
        plan(base, candidate, wide, "P@1", grades=[0, 1])
    assert scale_of(wide, None) == (0, 1, 2)
    with pytest.raises(SchemaError, match="no distribution"):
        plan(base, candidate, both(judged(("1", "z", 1)), labeled(("1", "a", [2.0, -1.0]))), "P@1")


# -- lists and answers ---------------------------------------------------------------------------------------

HOSTILE = [
    "=cmd|' /C calc'!A0",
    "+1",
    "-1",
    "@SUM(A1)",
    "\t=1",
    "'=1",
    "'",
    "＝1",
    " =1+1",
    'a"b',
    "a,b;c",
    "<b>ü</b>",
]


class Shelf:
    """A collection of two queries whose documents all say what spreadsheets should not run."""

    def pairs(self, ids: pl.DataFrame) -> pl.DataFrame:
        said = [HOSTILE[i % len(HOSTILE)] + "\r\nline two" for i in range(ids.height)]
        return ids.select(*KEYS, query=pl.lit("=HYPERLINK(1)"), text=pl.Series(said))


def listed(documents: list[str]) -> tuple[Plan, pl.DataFrame]:
    """A plan that asks for these documents."""

    def one(ids: list[str]) -> pl.DataFrame:
        rows = {"query_id": ["-q"] * len(ids), "doc_id": ids, "score": [float(-i) for i in range(len(ids))]}
        return rank(pl.DataFrame(rows))

    half = len(documents) // 2
    qrels = judged(("-q", "known", 1))
    return plan(one(documents[:half]), one(documents[half:]), qrels, "nDCG", grades=GRADES), qrels


def answer(path: Path, grade: str = "2") -> None:
    """Write a grade into every row, as an assessor with a spreadsheet or an editor would."""
    if path.suffix == ".jsonl":
        rows = [{**json.loads(line), "relevance": int(grade)} for line in path.read_text().splitlines()]
        path.write_text("".join(json.dumps(r) + "\n" for r in rows))
        return
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows({**r, "relevance": grade} for r in rows)


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_a_list_goes_out_and_comes_back(tmp_path: Path, suffix: str) -> None:
    made, qrels = listed(HOSTILE)
    path = tmp_path / f"list.{suffix}"
    write_list(made, path, Shelf())  # type: ignore[arg-type]
    assert read_answers(path, qrels, GRADES).equals(qrels)  # nothing is answered yet
    answer(path)
    pairs = made.order.select(KEYS)
    merged = read_answers(path, qrels, GRADES, pairs=pairs)
    assert merged.height == 1 + len(HOSTILE)
    assert merged.filter(pl.col("doc_id") != "known").select(KEYS).sort(KEYS).equals(pairs.sort(KEYS))
    assert set(merged["assessor"]) == {"human"}
    assert merged.filter(pl.col("doc_id") == "+1")["relevance"].item() == 2
    assert read_answers(path, qrels, GRADES).equals(merged)  # without knowing what was asked
    assert read_answers(path, merged, GRADES, pairs=pairs).equals(merged)  # twice is once


def test_no_cell_of_a_list_is_a_formula(tmp_path: Path) -> None:
    made, _ = listed(HOSTILE)
    write_list(made, tmp_path / "list.csv", Shelf())  # type: ignore[arg-type]
    with (tmp_path / "list.csv").open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.reader(file))
    assert len(rows) == 1 + len(HOSTILE)
    assert {len(row) for row in rows} == {6}
    assert not [c for row in rows for c in row if c.lstrip("\t\r\n ").startswith(tuple("=+-@＝＋－＠"))]
    kept = [json.loads(line) for line in _jsonl(made, tmp_path)]
    assert kept[0]["text"] == HOSTILE[0] + "\r\nline two"
    assert set(kept[0]) == set(rows[0])


def _jsonl(made: Plan, folder: Path) -> list[str]:
    write_list(made, folder / "list.jsonl", Shelf())  # type: ignore[arg-type]
    return (folder / "list.jsonl").read_text(encoding="utf-8").splitlines()


def test_a_list_says_why_and_needs_no_texts(tmp_path: Path) -> None:
    made, _ = listed(["a", "b"])
    write_list(made, tmp_path / "list.csv")
    with (tmp_path / "list.csv").open(newline="", encoding="utf-8-sig") as file:
        row = next(csv.DictReader(file))
    assert (row["query"], row["text"], row["relevance"]) == ("", "", "")
    assert "candidate does not have it" in row["why"] or "base does not have it" in row["why"]
    with pytest.raises(UsageError, match=r"ends in \.csv or \.jsonl"):
        write_list(made, tmp_path / "list.xlsx")
    with pytest.raises(InputError, match="cannot be written"):
        write_list(made, tmp_path / "nowhere" / "list.csv")


def test_answers_beat_labels_and_keep_judgments(tmp_path: Path) -> None:
    before = both(judged(("1", "a", 1)), labeled(("1", "b", [0.5, 0.5]), ("1", "c", [0.5, 0.5])))
    file = tmp_path / "answers.txt"
    file.write_text("# by hand\n1 0 b 3\n\n1\t0\ta\t1\n")
    merged = read_answers(file, before, GRADES)
    assert merged.select(*KEYS, "relevance", "assessor").rows() == [
        ("1", "a", 1, "human"),
        ("1", "b", 3, "human"),
        ("1", "c", 1, "model"),
    ]
    assert merged["probs"].is_null().to_list() == [True, True, False]
    write_qrels(merged, tmp_path / "merged.qrels")
    assert read_qrels(tmp_path / "merged.qrels").equals(merged)


def test_a_spreadsheet_may_save_with_other_separators_and_decimals(tmp_path: Path) -> None:
    file = tmp_path / "answers.CSV"
    file.write_bytes(
        "\ufeffquery_id;doc_id;why;relevance\r\n1;a;x, y;2.0\r\n;;;\r\n1;b;;\r\n1;c;;'3\r\n".encode()
    )
    merged = read_answers(file, judged(("1", "z", 0)), GRADES)
    assert merged.select("doc_id", "relevance").rows() == [("a", 2), ("c", 3), ("z", 0)]


BAD = [
    ("a.csv", "query_id,doc_id,relevance\n1,a,1\n1,b,9\n", 3, "'9' is not a grade; the scale is 0, 1, 2, 3"),
    ("a.csv", "query_id,doc_id,relevance\n1,a,relevant\n", 2, "'relevant' is not a grade"),
    ("a.csv", "query_id,doc_id,relevance\n1,a,1.5\n", 2, "'1.5' is not a grade"),
    ("a.csv", 'query_id,doc_id,text,relevance\n1,a,"two\nlines",1\n1,q,t,1\n', 4, "nobody asked for"),
    ("a.csv", "query_id,doc_id\n1,a\n", 1, "lacks the column relevance"),
    ("a.csv", "", 1, "lacks the column"),
    ("a.csv", "query_id,doc_id,relevance\n1,a\n", 2, "has 2 cells"),
    ("a.csv", 'query_id,doc_id,relevance\n1,"a,1\n', 2, "is not CSV"),
    ("a.csv", "query_id,doc_id,relevance\n,a,1\n", 2, "lacks a query_id"),
    ("a.csv", "query_id,doc_id,relevance\n1,a,1\n1,b,1\n1,a,2\n", 4, "has 1 in line 2"),
    ("a.csv", "query_id,doc_id,relevance\n1,known,1\n", 2, "has 0 in the qrels"),
    ("a.jsonl", '{"query_id": "1", "doc_id": "a", "relevance": 1}\n{"query_id": 1}\n', 2, "texts query_id"),
    ("a.jsonl", '{"query_id": "1", "doc_id": "a", "relevance": true}\n', 1, "relevance is true"),
    ("a.jsonl", '{"query_id": "1", "doc_id": "a", "relevance": [1]}\n', 1, "not a grade"),
    ("a.jsonl", '\n{"query_id": "1", "doc_id": "a", "relevance": 1e400}\n', 2, "is not a grade"),
    ("a.jsonl", "[" * 100000 + "\n", 1, "is not JSON"),
    ("a.txt", "1 0 a 1\n1 0 a\n", 2, "has 3 columns"),
    ("a.txt", "1 1 a 1\n", 1, "is a labeler's row"),
    ("a.txt", "1 0 q 1\n", 1, "nobody asked for"),
]


@pytest.mark.parametrize(("name", "text", "line", "says"), BAD)
def test_bad_answers_are_named_by_line(tmp_path: Path, name: str, text: str, line: int, says: str) -> None:
    file = tmp_path / name
    file.write_text(text)
    pairs = pl.DataFrame({"query_id": ["1", "1"], "doc_id": ["a", "b"]})
    with pytest.raises(InputError, match=says) as caught:
        read_answers(file, judged(("1", "known", 0)), GRADES, pairs=pairs)
    assert (caught.value.path, caught.value.line) == (file, line)


def test_answers_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_answers(tmp_path / "nothing.csv", judged(), GRADES)
    (tmp_path / "a.csv").write_bytes(b"query_id,doc_id,relevance\n1,\xff,1\n")
    with pytest.raises(InputError, match="UTF-8") as caught:
        read_answers(tmp_path / "a.csv", judged(), GRADES)
    assert caught.value.line == 2


# -- on real runs --------------------------------------------------------------------------------------------


def test_real_runs_settle_on_the_verdict_of_all_judgments(data_dir: Path) -> None:
    """Two runs of DL19, from no judgment at all, a batch of fifty at a time."""
    from harness.trec import read_runs

    folder = data_dir / "dl19_passage"
    human = read_qrels(folder / "qrels.human.txt")
    names = pl.read_csv(folder / "runs_meta.tsv", separator="\t").sort("recomputed_ndcg@10")["run"]
    base, candidate = read_runs([folder / "runs" / f"{names[i]}.run.gz" for i in (2, 20)], depth=10).values()
    topics, qrels, steps = human["query_id"].unique().to_list(), human.clear(), 0
    while not (
        made := plan(base, candidate, qrels, "nDCG@10", grades=GRADES, topics=topics, count=50)
    ).settled:
        qrels = pl.concat([qrels, made.order.select(KEYS).join(human, on=KEYS).select(human.columns)])
        steps += 1
        assert steps < 12
    found = compare({"b": base, "c": candidate}, human, ["nDCG@10"]).found["c"]["nDCG@10"]
    assert made.verdict == found.verdict == "better"
    assert qrels.height < made.holes + qrels.height


# -- the verb ------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two runs of three topics that differ in documents nobody judged."""
    monkeypatch.chdir(tmp_path)
    topics = ["1", "2", "3"]
    write_run(run(**dict.fromkeys(topics, "xa")), "base.run", "base")
    write_run(run(**dict.fromkeys(topics, "xb")), "candidate.run", "candidate")
    (tmp_path / "qrels.txt").write_text("".join(f"{t} 0 x 1\n{t} 0 z 0\n" for t in topics))
    return tmp_path


def call(capsys: pytest.CaptureFixture[str], *more: str) -> tuple[int, str, str]:
    code = cli.main(["plan", "base.run", "candidate.run", "--qrels", "qrels.txt", "-m", "P@2", *more])
    told = capsys.readouterr()
    return code, told.out, told.err


@pytest.mark.usefixtures("folder")
def test_the_verb_lists_takes_answers_and_settles(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    code, out, _ = call(capsys, "--out", "list.csv", "--json")
    told = json.loads(out)
    assert (code, told["settled"], told["out"]) == (3, False, "list.csv")
    with (folder / "list.csv").open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    assert {(r["query_id"], r["doc_id"]) for r in rows} == {(t, d) for t in "123" for d in "ab"}
    with (folder / "list.csv").open("w", newline="") as file:
        made = csv.DictWriter(file, rows[0])
        made.writeheader()
        made.writerows(r | {"relevance": "1" if r["doc_id"] == "b" else "0"} for r in rows)
    code, out, _ = call(capsys, "--answers", "list.csv", "--merged", "judged.txt", "--json")
    told = json.loads(out)
    assert (code, told["settled"], told["order"]) == (0, True, [])
    assert read_qrels(folder / "judged.txt").height == 12


@pytest.mark.usefixtures("folder")
def test_the_verb_tells_a_person(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(capsys)
    assert (code, err) == (3, "")
    assert "influence" in out
    assert "--answers" in out


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--merged", "m.txt"], "give both"),
        (["--answers", "none.csv"], "none.csv"),
        (["--collection", "nowhere"], "nowhere"),
        (["-m", "nDGC@10"], "nDGC"),
        (["--out", "no/such/list.csv"], "no/such"),
    ],
)
def test_the_verb_refuses_in_words(capsys: pytest.CaptureFixture[str], more: list[str], told: str) -> None:
    code, out, err = call(capsys, *more)
    assert (code, out) == (2, "")
    assert told in err
    assert "Traceback" not in err
    assert "did not foresee" not in err


@pytest.mark.usefixtures("folder")
def test_a_plan_is_for_two_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["plan", "base.run", "--qrels", "qrels.txt"]) == 2
    assert "two runs" in capsys.readouterr().err
