"""Scores of runs: equal to trec_eval's, by whatever way they are asked for, and with what they rest on."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from random import Random

import ir_measures
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import InputError, SchemaError, UnknownName, UsageError
from harness.measure import Measurement, measure, parse, register
from harness.ranking import rank
from harness.scoring import Spec

QRELS = """\
1 0 a 2
1 0 b 0
1 0 c 1
2 0 a 0
2 0 d 1
3 0 e 0
"""
RUN = """\
1 Q0 b 1 3.0 x
1 Q0 a 2 2.0 x
1 Q0 z 3 1.0 x
2 Q0 d 1 2.0 x
2 Q0 y 2 1.0 x
9 Q0 a 1 1.0 x
"""


def qrels(text: str = QRELS) -> pl.DataFrame:
    rows = [line.split() for line in text.splitlines()]
    return pl.DataFrame(
        {
            "query_id": [r[0] for r in rows],
            "doc_id": [r[2] for r in rows],
            "relevance": pl.Series([int(r[3]) for r in rows], dtype=pl.Int16),
            "gain": pl.Series([float(r[3]) for r in rows], dtype=pl.Float32),
            "assessor": ["human" if r[1] == "0" else "label" for r in rows],
        }
    )


def run(text: str = RUN) -> pl.DataFrame:
    rows = [line.split() for line in text.splitlines()]
    frame = {
        "query_id": [r[0] for r in rows],
        "doc_id": [r[2] for r in rows],
        "score": [float(r[4]) for r in rows],
    }
    schema = {"query_id": pl.String, "doc_id": pl.String, "score": pl.Float64}
    return rank(pl.DataFrame(frame, schema=schema))


def theirs(text: str) -> ir_measures.Measure:
    """The measure as ir-measures has it in Python, where `nDCG(judged_only=True)@3` is an expression."""
    return eval(text.strip(), vars(ir_measures))


def values(found: Measurement, name: str = "x") -> dict[tuple[str, str], float | None]:
    rows = found.per_topic.filter(pl.col("run") == name)
    return {(m, q): v for _, q, m, v in rows.iter_rows()}


# --------------------------------------------------------------------------- equal to trec_eval

MEASURES = [
    *("nDCG", "nDCG@1", "nDCG@3", "nDCG@10", "nDCG(judged_only=True)@3", "nDCG(gains={0:1,1:0,2:5})@3"),
    *(
        "AP",
        "AP@2",
        "AP(rel=2)",
        "AP(judged_only=True)",
        "RR",
        "RR(rel=2)",
        "RR(judged_only=True)",
    ),
    *("P@1", "P@3", "P@10", "P(rel=2)@3", "P(judged_only=True)@2", "R@1", "R@3", "R(rel=2)@10"),
    *(
        "Success@1",
        "Success@3",
        "Success(rel=2)@3",
        "Rprec",
        "Rprec(rel=2)",
        "Rprec(judged_only=True)",
        "Bpref",
    ),
    "Bpref(rel=2)",
]
NEAR = (1.0, 1.0 + 1e-9, 2.0, 7.00000001, 7.00000002, -3.5, 1e30, 0.0)  # some are equal as float32 only
DOCUMENTS = ("a", "A", "b", "b1", "é", "c", "d10", "d9")


@st.composite
def collections(draw: st.DrawFn) -> tuple[dict[str, dict[str, int]], dict[str, dict[str, float]]]:
    """Qrels and a run: ties, near ties, negative grades, topics that one of the two lacks."""
    topics = ["1", "2", "10"]
    grades = st.dictionaries(st.sampled_from(DOCUMENTS), st.sampled_from([-2, -1, 0, 0, 1, 1, 2, 3]))
    judged = {q: {**draw(grades), "top": 3} for q in draw(st.sets(st.sampled_from(topics), min_size=1))}
    scores = st.dictionaries(st.sampled_from([*DOCUMENTS, "top"]), st.sampled_from(NEAR), min_size=1)
    return judged, {q: draw(scores) for q in draw(st.sets(st.sampled_from(topics), min_size=1))}


def frames(
    judged: dict[str, dict[str, int]], retrieved: dict[str, dict[str, float]]
) -> tuple[pl.DataFrame, ...]:
    text = "\n".join(f"{q} 0 {d} {r}" for q, docs in judged.items() for d, r in docs.items())
    lines = "\n".join(f"{q} Q0 {d} 0 {s!r} x" for q, docs in retrieved.items() for d, s in docs.items())
    return qrels(text), run(lines)


@settings(deadline=None, max_examples=60)
@given(collections())
def test_equals_trec_eval(collection) -> None:
    judged, retrieved = collection
    if not judged.keys() & retrieved.keys():
        return
    found = measure({"x": frames(*collection)[1]}, frames(*collection)[0], MEASURES)
    parsed = [theirs(m) for m in MEASURES]
    aggregate, by_topic = ir_measures.pytrec_eval.calc(parsed, judged, retrieved)
    assert values(found) == pytest.approx({(str(m.measure), m.query_id): m.value for m in by_topic}, abs=1e-9)
    ours = {m: found.runs["x"][m] for m in found.measures}
    assert ours == pytest.approx({str(m): x for m, x in aggregate.items()}, abs=1e-9)
    assert found.runs["x"]["missing_topics"] == len(judged.keys() - retrieved.keys())
    assert found.runs["x"]["unjudged_topics"] == len(retrieved.keys() - judged.keys())


@settings(deadline=None, max_examples=30)
@given(collections())
def test_what_trec_eval_lacks_follows_from_what_it_has(collection) -> None:
    judged, retrieved = collection
    if not judged.keys() & retrieved.keys():
        return
    asked = [
        "RR",
        "RR@2",
        "nDCG(dcg='exp-log2')@3",
        "nDCG(gains={2:3,3:7})@3",
        "Judged@2",
        "Judged",
        "RBP(rel=1)",
    ]
    frame, ranked = frames(*collection)[0], frames(*collection)[1]
    found = values(measure({"x": ranked}, frame, asked))
    for query in judged:
        order = ranked.filter(pl.col("query_id") == query)["doc_id"].to_list()
        first = found["RR", query]
        assert found["RR@2", query] == (first if first >= 0.5 else 0.0)
        assert found["nDCG(dcg='exp-log2')@3", query] == found["nDCG(gains={2:3,3:7})@3", query]
        known = [d in judged[query] for d in order]
        assert found["Judged@2", query] == (sum(known[:2]) / min(2, len(order)) if order else 0.0)
        assert found["Judged", query] == (sum(known) / len(order) if order else 0.0)
        weights = [0.2 * 0.8**i for i, d in enumerate(order) if judged[query].get(d, 0) >= 1]
        assert found["RBP(rel=1)", query] == pytest.approx(sum(weights))


def test_judged_equals_ir_measures() -> None:
    asked = [ir_measures.Judged @ 1, ir_measures.Judged @ 3, ir_measures.Judged]
    judged, retrieved = ir_measures.read_trec_qrels(QRELS), ir_measures.read_trec_run(RUN)
    expected = ir_measures.judged.calc_aggregate(asked, judged, retrieved)
    found = measure({"x": run()}, qrels(), ["Judged@1", "Judged@3", "Judged"]).runs["x"]
    assert {m: found[m] for m in ("Judged@1", "Judged@3", "Judged")} == pytest.approx(
        {str(m): v for m, v in expected.items()}
    )


@pytest.mark.parametrize("scores", [(7.00000002, 7.00000001), (7.0, 7.0)])
def test_scores_equal_as_float32_are_ties_and_the_later_id_comes_first(scores) -> None:
    lines = f"1 Q0 a 1 {scores[0]!r} x\n1 Q0 b 2 {scores[1]!r} x"
    assert measure({"x": run(lines)}, qrels("1 0 a 1"), ["RR"]).runs["x"]["RR"] == 0.5


def test_averages_run_over_the_topics_of_the_qrels() -> None:
    found = measure({"x": run()}, qrels(), ["P@1", "R@2"])
    assert found.topics == ["1", "2", "3"]
    assert found.runs["x"]["P@1"] == pytest.approx(1 / 3)  # topic 1: 0, topic 2: 1, topic 3 is missing: 0
    assert found.runs["x"]["R@2"] == pytest.approx((0.5 + 1) / 3)
    assert {k: found.runs["x"][k] for k in ("topics", "missing_topics", "unjudged_topics")} == {
        "topics": 3,
        "missing_topics": 1,
        "unjudged_topics": 1,
    }


def test_numbers_do_not_depend_on_the_order_of_rows() -> None:
    judged, lines = qrels(), run()
    once = measure({"x": lines}, judged, MEASURES)
    again = measure({"x": lines.reverse()}, judged.sample(fraction=1.0, shuffle=True, seed=3), MEASURES)
    assert (once.runs, once.per_topic.equals(again.per_topic)) == (again.runs, True)


@pytest.mark.parametrize("seed", range(5))
def test_nor_do_those_that_rest_on_labels(seed) -> None:
    random = Random(seed)
    documents = [f"d{i}" for i in range(40)]
    pairs = [(q, d) for q in ("1", "2") for d in documents]
    parts = [[random.random() for _ in range(3)] for _ in pairs]
    probs = pl.Series([[x / sum(p) for x in p] for p in parts], dtype=pl.List(pl.Float32))
    judged = qrels("\n".join(f"{q} 1 {d} 1" for q, d in pairs)).with_columns(
        probs=probs, gain=(probs.list.get(1) + 2 * probs.list.get(2))
    )
    lines = run("\n".join(f"{q} Q0 {d} 0 {random.random()} x" for q, d in pairs[::3]))
    once = measure({"x": lines}, judged, [*MEASURES, "RBP"]).per_topic
    order = random.sample(range(len(pairs)), len(pairs))
    assert once.equals(measure({"x": lines}, judged[order], [*MEASURES, "RBP"]).per_topic)


# ------------------------------------------------------------------------------ what is reported


def test_what_a_run_is_told_about() -> None:
    found = measure({"x": run(), "y": run("1 Q0 a 1 1.0 y")}, qrels(), ["nDCG@3", "AP"])
    assert list(found.runs) == ["x", "y"]
    assert found.to_json() == {"runs": found.runs}
    assert list(found.runs["y"]) == [
        *(
            "nDCG@3",
            "AP",
            "judged@3",
            "labeled_share",
            "topics",
            "missing_topics",
            "unjudged_topics",
            "score_share",
        )
    ]
    assert found.per_topic.schema == {
        "run": pl.String,
        "query_id": pl.String,
        "measure": pl.String,
        "value": pl.Float64,
    }
    assert found.per_topic.height == 2 * 2 * 3
    assert found.per_topic.row(0) == (
        "x",
        "1",
        "nDCG@3",
        pytest.approx(2 / math.log2(3) / (2 + 1 / math.log2(3))),
    )


@pytest.mark.parametrize(
    ("asked", "key"),
    [(["AP"], "judged@10"), (["AP", "P@5", "R@20"], "judged@20"), (["IPrec@0.1"], "judged@10")],
)
def test_judged_goes_as_deep_as_the_deepest_measure(asked, key) -> None:
    assert key in measure({"x": run()}, qrels(), asked).runs["x"]


def test_labels_and_their_share_of_a_score() -> None:
    found = measure({"x": run()}, qrels(QRELS.replace("1 0 a 2", "1 1 a 2")), ["P@2", "NumRet"]).runs["x"]
    assert found["judged@2"] == pytest.approx((2 / 2 + 1 / 2 + 0) / 3)
    assert found["labeled_share"] == pytest.approx((1 / 2) / 3)
    assert found["P@2"] == pytest.approx((1 / 2 + 1 / 2) / 3)
    assert found["score_share"] == {"P@2": pytest.approx(0.5), "NumRet": None}


def test_without_labels_nothing_rests_on_them() -> None:
    assert measure({"x": run()}, qrels(), ["P@2", "NumRet"]).runs["x"]["score_share"] == {
        "P@2": 0.0,
        "NumRet": 0.0,
    }


def test_no_share_of_a_score_of_zero() -> None:
    found = measure({"x": run("1 Q0 b 1 1.0 x")}, qrels("1 0 b 0\n1 1 c 1"), ["AP"]).runs["x"]
    assert (found["AP"], found["score_share"]) == (0.0, {"AP": 0.0})


def test_probs_stand_over_the_grades_given() -> None:
    judged = qrels("1 1 a 2").with_columns(probs=pl.Series([[0.25, 0.75]], dtype=pl.List(pl.Float32)))
    found = measure({"x": run("1 Q0 a 1 1.0 x")}, judged, ["P(rel=2)@1"], grades=[0, 2])
    assert found.runs["x"]["P(rel=2)@1"] == 0.75


# ------------------------------------------------------------------------------------------ files


def test_a_file_measures_as_its_frame(tmp_path: Path) -> None:
    (tmp_path / "x.run").write_text(RUN)
    asked = ["nDCG@10", "AP", "Judged@2", "NumRet", "Compat"]
    by_frame, by_file = (measure({"x": source}, qrels(), asked) for source in (run(), tmp_path / "x.run"))
    assert by_file.runs == by_frame.runs
    assert by_file.per_topic.equals(by_frame.per_topic)


def test_a_file_whose_topics_come_back_measures_the_same(tmp_path: Path) -> None:
    lines = RUN.splitlines()
    (tmp_path / "x.run").write_text("\n".join(lines[3:4] + lines[:3] + lines[4:]) + "\n")
    asked = ["nDCG@10", "AP", "NumRet", "Compat"]
    assert (
        measure({"x": tmp_path / "x.run"}, qrels(), asked).runs == measure({"x": run()}, qrels(), asked).runs
    )


def test_a_bad_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.run").write_text("1 Q0 a 1 2.0 x\n1 Q0 b 2 nan x\n")
    with pytest.raises(InputError, match=r"x\.run:2: "):
        measure({"x": tmp_path / "x.run"}, qrels(), ["AP"])


def test_a_run_of_no_rows_lacks_every_topic() -> None:
    found = measure({"x": run().clear()}, qrels(), ["AP", "NumRet"]).runs["x"]
    assert (found["AP"], found["NumRet"], found["missing_topics"], found["judged@10"]) == (0.0, 0.0, 3, 0.0)


def test_a_run_without_any_topic_of_the_qrels_is_refused() -> None:
    with pytest.raises(
        UsageError, match="'x' shares no topic with the qrels: its first topic is '001', theirs is '1'"
    ):
        measure({"x": run("001 Q0 a 1 1.0 x")}, qrels(), ["AP"])


def test_a_frame_that_is_no_run_is_refused() -> None:
    with pytest.raises(SchemaError, match="lacks 'rank'"):
        measure({"x": run().drop("rank")}, qrels(), ["AP"])


def test_nothing_to_measure_is_refused() -> None:
    with pytest.raises(UsageError, match="no run"):
        measure({}, qrels(), ["AP"])
    with pytest.raises(UsageError, match="no measure"):
        measure({"x": run()}, qrels(), [])


# --------------------------------------------------------------------------------------- measures


@pytest.mark.filterwarnings("ignore:ast[.]:DeprecationWarning")
@pytest.mark.parametrize(
    "text",
    [
        *MEASURES,
        "MAP",
        "NDCG@5",
        "MRR@10",
        "RBP(p=0.5,rel=1)@10",
        " AP ",
        "Success(cutoff=5)",
        "NumRet",
        "IPrec@0.1",
    ],
)
def test_measures_are_read_as_ir_measures_reads_them(text) -> None:
    (parsed,) = parse([text])
    expected = {str(theirs(text))}
    if sys.version_info < (3, 14):  # it needs ast.Num, which that version has no more
        expected.add(str(ir_measures.parse_measure(text.strip())))
    assert {parsed.text if isinstance(parsed, Spec) else str(parsed)} == expected


@pytest.mark.parametrize("text", ["nDCG@10", "AP", "RBP", "Rprec", "P@5"])
def test_a_plain_name_means_what_it_means_in_full(text) -> None:
    full = text.replace("@", "(cutoff=") + ")" if "@" in text else f"{text}()"
    assert parse([text]) == parse([full])


def test_a_measure_asked_twice_is_given_once() -> None:
    assert measure({"x": run()}, qrels(), ["AP", "MAP", "AP"]).measures == ["AP"]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "'' is not a measure"),
        ("nDCG@10 AP", "is not a measure"),
        ("nDCG@10; AP", "is not a measure"),
        ("nDCG(10)", "is not a measure"),
        ("nDCG(**x)", "is not a measure"),
        ("nDCG(gains={[1]: 2})", "is not a measure"),
        ("nDCG@x", "is not a measure"),
        ("1@10", "is not a measure"),
        ("a.b@10", "is not a measure"),
        ("(" * 5000, "is not a measure"),
        ("P", "cutoff is missing, as in P@10"),
        ("IPrec", r"recall is missing, as in IPrec@0\.1"),
        ("nDCG@0", "cutoff cannot be 0"),
        ("nDCG@-1", "cutoff cannot be -1"),
        ("nDCG@1.5", r"cutoff cannot be 1\.5 \(allowed: int\)"),
        ("P(rel=True)@1", "rel cannot be True"),
        ("P(rel=-1)@1", "rel cannot be -1"),
        ("AP(level=2)", r"no parameter 'level' \(it takes cutoff, rel, judged_only\)"),
        ("nDCG(dcg='ln')@10", r"dcg cannot be 'ln' \(allowed: \['log2', 'exp-log2'\]\)"),
        ("nDCG(gains={1:'a'})@10", "gains map grades to numbers"),
        ("RBP(p=1.5)", "p is a probability between 0 and 1"),
        ("alpha_nDCG@10", "needs judgments by subtopic"),
        ("BPM@10", "max_rel is missing"),
    ],
)
def test_a_measure_that_cannot_be_meant_is_refused(text, what) -> None:
    with pytest.raises(UsageError, match=what):
        parse([text])


def test_an_unknown_measure_names_the_near_ones() -> None:
    with pytest.raises(UnknownName, match=r"unknown measure 'nDGC'. Did you mean .*'nDCG'"):
        parse(["nDGC@10"])


def test_a_measure_in_the_wrong_case_is_told_so() -> None:
    with pytest.raises(UnknownName, match=r"Did you mean 'nDCG'\? Case counts\."):
        parse(["ndcg@10"])


def test_all_bad_measures_are_told_together() -> None:
    with pytest.raises(UsageError) as told:
        parse(["nDGC@10", "AP", "P", "SDCG(max_rel=3)@10"])
    message = str(told.value)
    assert message.startswith("3 measures cannot be computed:")
    assert all(word in message for word in ("'nDGC'", "P@10", "pip install"))


# ------------------------------------------------------------------------------------- ir-measures


def test_other_measures_come_from_other_providers() -> None:
    asked = ["NumRet", "NumRel", "NumQ", "SetP", "IPrec@0.5", "Compat(p=0.9)", "infAP"]
    found = measure({"x": run()}, qrels(), asked)
    judged, retrieved = list(ir_measures.read_trec_qrels(QRELS)), list(ir_measures.read_trec_run(RUN))
    for text in asked:
        expected = theirs(text).calc_aggregate(judged, retrieved)
        assert found.runs["x"][text] == pytest.approx(expected), text


def test_other_providers_see_our_order_of_ties() -> None:
    lines = "1 Q0 a 1 7.00000002 x\n1 Q0 b 2 7.00000001 x"
    found = measure({"x": run(lines)}, qrels("1 0 a 1\n1 0 c 1"), ["Accuracy", "AP"]).runs["x"]
    assert (found["Accuracy"], found["AP"]) == (0.0, 0.25)  # b stands before a


def test_a_measure_undefined_for_a_topic_is_null_there() -> None:
    found = measure({"x": run()}, qrels(), ["Accuracy", "NumRet"])
    by_topic = values(found)
    assert (by_topic["Accuracy", "1"], by_topic["Accuracy", "3"]) == (pytest.approx(0.5), None)
    assert found.runs["x"]["Accuracy"] == pytest.approx((0.5 + 1.0) / 2)


def test_a_measure_undefined_for_every_topic_has_no_average() -> None:
    found = measure({"x": run("1 Q0 b 1 1.0 x")}, qrels(), ["Accuracy"])
    assert (found.runs["x"]["Accuracy"], found.runs["x"]["score_share"]) == (None, {"Accuracy": 0.0})


def test_a_provider_that_fails_is_told() -> None:
    with pytest.raises(UsageError, match="provider of Accuracy failed: ZeroDivisionError"):
        measure({"x": run("1 Q0 a 1 1.0 x")}, qrels("1 0 a 1"), ["Accuracy"])


@pytest.mark.parametrize("form", ["tuples", "dicts", "pandas", "frames"])
def test_our_provider_is_one_of_ir_measures(form) -> None:
    provider = register()
    assert (register() is provider, ir_measures.providers.registry["stopgap"] is provider) == (True, True)
    judged, retrieved = ir_measures.read_trec_qrels(QRELS), ir_measures.read_trec_run(RUN)
    if form == "dicts":
        judged = ir_measures.util.QrelsConverter(judged).as_dict_of_dict()
        retrieved = ir_measures.util.RunConverter(retrieved).as_dict_of_dict()
    elif form == "pandas":
        pytest.importorskip("pandas")
        judged = ir_measures.util.QrelsConverter(judged).as_pd_dataframe()
        retrieved = ir_measures.util.RunConverter(retrieved).as_pd_dataframe()
    elif form == "frames":
        judged, retrieved = qrels(), run()
    asked = [theirs(m) for m in MEASURES]
    expected = ir_measures.pytrec_eval.calc_aggregate(
        asked, ir_measures.read_trec_qrels(QRELS), ir_measures.read_trec_run(RUN)
    )
    assert provider.calc_aggregate(asked, judged, retrieved) == pytest.approx(expected)


def test_ir_measures_itself_uses_our_provider() -> None:
    register()
    pipeline = ir_measures.DefaultPipeline.providers
    assert [p.NAME for p in pipeline].count("stopgap") == 1
    evaluator = ir_measures.evaluator([ir_measures.nDCG @ 10], ir_measures.read_trec_qrels(QRELS))
    assert type(evaluator).__name__ == "StopgapEvaluator"
    graded = ir_measures.RBP.calc_aggregate(
        ir_measures.read_trec_qrels(QRELS), ir_measures.read_trec_run(RUN)
    )
    assert graded == pytest.approx(measure({"x": run()}, qrels(), ["RBP"]).runs["x"]["RBP"])


def test_plain_measures_do_without_the_package() -> None:
    code = (
        "import sys, harness.measure as m; m.parse(['nDCG@10', 'AP', 'R@1000', 'Bpref'])\n"
        "heavy = {'ir_measures', 'pytrec_eval', 'pandas', 'scipy', 'pyarrow', 'torch', 'sklearn'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
