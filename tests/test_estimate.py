"""Scores from few judged topics and many labeled ones: frames, what is refused, the verb, real topics."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy import stats

from harness import cli
from harness._estimated import notes, tables
from harness.errors import SchemaError, UsageError
from harness.estimate import DELTA, Estimates, estimate
from harness.frames import QRELS, empty
from harness.measure import measure
from harness.ppi import powered_mean
from harness.ranking import rank
from harness.trec import read_qrels, read_runs

TOPICS, JUDGED, DOCUMENTS = 60, 15, 12


def qrels(rows: list[tuple[str, str, int]], assessor: str = "human") -> pl.DataFrame:
    schema = {"query_id": pl.String, "doc_id": pl.String, "relevance": pl.Int16}
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    return frame.with_columns(gain=pl.col("relevance").cast(pl.Float32), assessor=pl.lit(assessor))


def run(scores: np.ndarray) -> pl.DataFrame:
    """RUN of (topics, documents) scores."""
    rows = [(f"q{t:02}", f"d{d}", float(s)) for t, row in enumerate(scores) for d, s in enumerate(row)]
    return rank(pl.DataFrame(rows, schema=["query_id", "doc_id", "score"], orient="row"))


class Made:
    """A collection whose first topics are judged, labels for all, and two runs of which b is better."""

    def __init__(self) -> None:
        rng = np.random.default_rng(6)
        hard = rng.normal(0, 1.2, (TOPICS, 1))
        truth = np.clip(np.round(rng.normal(0.8 - 0.3 * hard, 0.9, (TOPICS, DOCUMENTS))), 0, 3).astype(int)
        wrong = rng.random(truth.shape) < 0.25
        given = np.where(wrong, np.clip(truth + rng.integers(-1, 3, truth.shape), 0, 3), truth)
        rows = [(f"q{t:02}", f"d{d}") for t in range(TOPICS) for d in range(DOCUMENTS)]
        self.all_human = qrels([(*ids, int(g)) for ids, g in zip(rows, truth.ravel(), strict=True)])
        self.labels = qrels([(*ids, int(g)) for ids, g in zip(rows, given.ravel(), strict=True)], "m")
        self.human = self.all_human.filter(pl.col("query_id") < f"q{JUDGED:02}")
        noise = rng.normal(0, 1, (2, *truth.shape))
        self.runs = {"a": run(truth + 2.5 * noise[0]), "b": run(truth + 1.2 * noise[1])}


@pytest.fixture(scope="module")
def made() -> Made:
    return Made()


@pytest.fixture(scope="module")
def found(made: Made) -> Estimates:
    return estimate(made.runs, made.human, made.labels, ["nDCG@10", "P(rel=2)@5"])


# -- values --------------------------------------------------------------------------------------------------


def test_estimates_are_of_the_values_of_topics(made, found) -> None:
    assert (len(found.judged), found.others) == (JUDGED, TOPICS - JUDGED)
    assert found.judgments == JUDGED * DOCUMENTS
    by_human = measure(made.runs, made.human, ["nDCG@10", "P(rel=2)@5"])
    by_labels = measure(made.runs, made.labels, ["nDCG@10", "P(rel=2)@5"])
    for i, name in enumerate(("nDCG@10", "P(rel=2)@5")):
        y, f = ({k: v[i] for k, v in m.values.items()} for m in (by_human, by_labels))
        for values in (y, f):
            values[DELTA] = values["b"] - values["a"]
        for of in ("a", "b", DELTA):
            one = found.found[name][of]
            sample = (y[of], f[of][:JUDGED], f[of][JUDGED:])
            assert one.powered == powered_mean(*sample)
            assert one.alone == powered_mean(*sample, lam=0)
            assert one.labels_only == pytest.approx(f[of].mean())
            assert one.bias == pytest.approx((f[of][:JUDGED] - y[of]).mean())
            assert one.correlation == pytest.approx(stats.pearsonr(y[of], f[of][:JUDGED]).statistic)
    one = found.found["nDCG@10"]["a"]
    assert one.powered.lam > 0.4
    assert one.powered.half_width < one.alone.half_width
    assert one.worth == pytest.approx(JUDGED * (one.alone.error / one.powered.error) ** 2)
    assert one.worth > JUDGED


def test_the_mean_of_all_judgments_lies_in_the_interval(made, found) -> None:
    """Forty-five topics that the estimate saw no judgment of."""
    every = measure(made.runs, made.all_human, ["nDCG@10"])
    for name, one in found.found["nDCG@10"].items():
        values = every.values["b"][0] - every.values["a"][0] if name == DELTA else every.values[name][0]
        assert one.powered.low < values.mean() < one.powered.high


def test_costs_count_judgments_by_topic(found) -> None:
    one = found.found["nDCG@10"]["a"]
    assert one.costs
    for cost, shown in zip(one.costs, one.to_json()["costs"], strict=True):
        assert shown["half_width"] == cost.half_width
        assert shown["human_only"] == {"topics": cost.alone, "judgments": cost.alone * DOCUMENTS}
        assert cost.powered is None or shown["with_labels"]["judgments"] == cost.powered * DOCUMENTS
    assert any(cost.powered is not None and cost.powered < cost.alone for cost in one.costs)


def test_labels_may_be_frames_of_a_labeler_with_holes(made, found) -> None:
    kinds = {"probs": pl.List(pl.Float32), "reason": pl.String}
    frame = made.labels.rename({"assessor": "labeler"}).with_columns(
        pl.lit(None, kind).alias(name) for name, kind in kinds.items()
    )
    more = frame[:1].with_columns(doc_id=pl.lit("refused"), relevance=pl.lit(None, pl.Int16))
    again = estimate(made.runs, made.human, pl.concat([frame, more]), ["nDCG@10", "P(rel=2)@5"])
    assert again.to_json() == found.to_json()


def test_unmarked_labels_and_filled_judgments_are_read_as_what_they_are(made, found) -> None:
    plain = made.labels.with_columns(assessor=pl.lit("human"))  # another tool's file
    filled = pl.concat([made.human, qrels([("q00", "new", 3), ("q59", "d1", 2)], "m")])
    again = estimate(made.runs, filled, plain, ["nDCG@10", "P(rel=2)@5"])
    assert again.to_json() == found.to_json()


def test_judged_topics_can_be_named(made, found) -> None:
    named = [f"q{t:02}" for t in range(JUDGED)]
    again = estimate(
        made.runs, made.all_human, made.labels, ["nDCG@10", "P(rel=2)@5"], judged_topics=reversed(named)
    )
    assert again.to_json() == found.to_json()


def test_codes_below_0_are_no_judgments(made) -> None:
    coded = pl.concat([made.human, qrels([("q40", "d0", -2)])])
    assert estimate(made.runs, coded, made.labels).judged == [f"q{t:02}" for t in range(JUDGED)]


# -- notes ---------------------------------------------------------------------------------------------------


def test_a_sound_input_needs_no_words(found) -> None:
    assert found.notes == []


def test_every_topic_judged_leaves_nothing_to_the_labels(made) -> None:
    one = estimate(made.runs, made.all_human, made.labels)
    assert one.others == 0
    assert "every labeled topic is judged: the labels add nothing" in one.notes
    assert one.found["nDCG@10"]["a"].powered == one.found["nDCG@10"]["a"].alone


def test_few_judged_topics_are_said(made) -> None:
    four = made.human.filter(pl.col("query_id") < "q04")
    one = estimate(made.runs, four, made.labels)
    assert any("4 judged topics are too few to tell what the labels are worth" in line for line in one.notes)
    assert any("spread about normally" in line for line in one.notes)
    assert one.found["nDCG@10"]["a"].powered.lam == 0


def test_holes_of_judged_topics_are_said(made) -> None:
    part = made.human.filter(pl.col("doc_id") != "d3")
    assert any(
        "are judged (the lowest of the runs)" in n for n in estimate(made.runs, part, made.labels).notes
    )


def test_labels_of_unlike_number_are_said(made) -> None:
    part = made.labels.filter((pl.col("query_id") < f"q{JUDGED:02}") | (pl.col("doc_id") < "d4"))
    found = estimate(made.runs, made.human, part).notes
    assert any("judged topics have 12 labels on average, others 6" in line for line in found)


def test_judged_topics_that_are_unlike_the_others_are_said(made) -> None:
    values = measure(made.runs, made.labels, ["nDCG@10"])
    easiest = np.argsort(-(values.values["a"][0] + values.values["b"][0]))[:JUDGED]
    picked = [values.topics[i] for i in easiest]
    one = estimate(made.runs, made.all_human, made.labels, judged_topics=picked)
    assert any("were not drawn at random" in line for line in one.notes)


def test_judgments_given_for_labels_are_said(made) -> None:
    same = estimate(made.runs, made.human, made.all_human)
    assert any("are they the same file?" in line for line in same.notes)


# -- what is refused -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"human": empty(QRELS)}, "no topic is judged"),
        ({"human": qrels([("q00", "d0", 1)], "m")}, "no topic is judged"),
        ({"human": qrels([("q00", "d0", 1)])}, "one judged topic does not say how topics differ"),
        ({"labels": empty(QRELS)}, "the labels hold no label"),
        ({"labels": qrels([("q00", "d0", 1), ("q01", "d0", 1)], "m")}, r"13 topics \('q02', .* no label"),
        (
            {"judged_topics": ["q00", "q01", "q59"]},
            r"1 topic \('q59'\): named as judged, but has no judgment",
        ),
        ({"judged_topics": []}, "no topic is judged"),
        ({"measures": ["nDGC@10"]}, "nDGC"),
        ({"runs": {}}, "0 are given"),
    ],
)
def test_bad_input_is_refused(made, change, words) -> None:
    given = {"runs": made.runs, "human": made.human, "labels": made.labels} | change
    with pytest.raises(UsageError, match=words):
        estimate(**given)


def test_filled_qrels_are_no_labels(made) -> None:
    filled = pl.concat([made.human, made.labels.filter(pl.col("query_id") > "q20")])
    with pytest.raises(UsageError, match=r"180 judgments too, as filled qrels do: .*--mode pool"):
        estimate(made.runs, made.human, filled)


@pytest.mark.parametrize("column", ["query_id", "relevance"])
def test_nulls_of_judgments_and_ids_of_labels_are_refused(made, column) -> None:
    null = made.human.with_columns(pl.lit(None, QRELS[column]).alias(column))
    with pytest.raises(SchemaError, match=f"human: null in {column}"):
        estimate(made.runs, null, made.labels)
    with pytest.raises(SchemaError, match="labels: null in query_id"):
        estimate(made.runs, made.human, made.labels.with_columns(query_id=pl.lit(None, pl.String)))


def test_three_runs_and_a_run_called_delta_are_refused(made) -> None:
    a, b = made.runs.values()
    with pytest.raises(UsageError, match="3 are given"):
        estimate({"a": a, "b": b, "c": a}, made.human, made.labels)
    with pytest.raises(UsageError, match="'delta' is what the difference is called"):
        estimate({"a": a, DELTA: b}, made.human, made.labels)
    assert list(estimate({DELTA: a}, made.human, made.labels).found["nDCG@10"]) == [DELTA]


def test_a_run_of_other_topics_and_a_frame_of_other_columns_are_refused(made) -> None:
    alien = made.runs["a"].with_columns(query_id=pl.lit("x") + pl.col("query_id"))
    with pytest.raises(UsageError, match="shares no topic"):
        estimate({"a": alien}, made.human, made.labels)
    with pytest.raises(SchemaError):
        estimate(made.runs, made.human.drop("relevance"), made.labels)
    with pytest.raises(SchemaError):
        estimate(made.runs, made.human, made.labels.drop("gain"))


# -- the verb ------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name, frame in {"few": made.human, "all": made.all_human, "labels": made.labels}.items():
        lines = [f"{q} 0 {d} {g}\n" for q, d, g in frame.select("query_id", "doc_id", "relevance").rows()]
        (tmp_path / f"{name}.qrels").write_text("".join(lines))
    for name, frame in made.runs.items():
        lines = [f"{q} Q0 {d} {r} {s!r} {name}\n" for q, d, s, r in frame.rows()]
        (tmp_path / f"{name}.run").write_text("".join(lines))
    (tmp_path / "judged.txt").write_text("".join(f"q{t:02}\n" for t in range(JUDGED)) + "\n")
    return tmp_path


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = cli.main(["estimate", *arguments])
    told = capsys.readouterr()
    return code, told.out, told.err


BOTH = ("a.run", "b.run", "--human", "few.qrels", "--labels", "labels.qrels")


def test_the_verb_prints_one_object(folder, found, capsys) -> None:
    code, out, err = call(capsys, *BOTH, "-m", "nDCG@10", "-m", "P(rel=2)@5", "--json")
    assert (code, err) == (0, "")
    shown = json.loads(out)
    assert set(shown) == {"measures", "judged_topics", "other_topics", "judgments", "notes"}
    assert list(shown["measures"]) == ["nDCG@10", "P(rel=2)@5"]
    assert list(shown["measures"]["nDCG@10"]) == ["a", "b", DELTA]
    one = shown["measures"]["nDCG@10"][DELTA]
    assert set(one) == {
        *("value", "ci", "lambda", "human_only", "labels_only", "labels_bias", "correlation"),
        *("worth_topics", "costs"),
    }
    assert one["value"] == pytest.approx(found.found["nDCG@10"][DELTA].powered.value)
    assert one["ci"][0] < one["value"] < one["ci"][1]
    assert set(one["human_only"]) == {"value", "ci"}


def test_the_verb_prints_tables_with_the_same_numbers(folder, found, capsys) -> None:
    code, out, err = call(capsys, *BOTH)
    assert (code, err) == (0, "")
    one = found.found["nDCG@10"][DELTA]
    assert f"{one.powered.value:+.4f}" in out
    assert f"{one.alone.low:+.4f} to {one.alone.high:+.4f}" in out
    assert "15 judged topics (180 judgments), 45 topics with labels only" in out
    assert "worth" in out
    code, out, _ = call(capsys, "a.run", *BOTH[2:])
    assert code == 0
    assert DELTA not in out


def test_tables_have_as_many_cells_as_columns(made) -> None:
    useless = made.labels.with_columns(relevance=pl.lit(1, pl.Int16), gain=pl.lit(1.0, pl.Float32))
    same = {"a": made.runs["a"], "b": made.runs["a"]}
    for one in (estimate(made.runs, made.human, useless), estimate(same, made.human, made.labels)):
        for _, columns, rows in tables(one):
            assert {len(row) for row in rows} == {len(columns)}
        assert "nan" not in str(tables(one))
        assert "(lambda 0)" in notes(one)


def test_judged_topics_are_read_from_a_file(folder, capsys) -> None:
    whole = call(capsys, *BOTH, "--json")
    part = ("a.run", "b.run", "--human", "all.qrels", "--labels", "labels.qrels", "--json")
    assert call(capsys, *part, "--judged-topics", "judged.txt") == whole


@pytest.mark.parametrize(
    ("arguments", "text", "words"),
    [
        (("a.run", "b.run", "a.run"), None, "two files|more than once|3 are given"),
        (("a.run", "--judged-topics", "none.txt"), None, "none.txt"),
        (("a.run", "--judged-topics", "bad.txt"), "q00 q01\n", "bad.txt:1.*one query id a line"),
        (("a.run", "--judged-topics", "bad.txt"), "\n", "holds no query id"),
        (("a.run", "--judged-topics", "bad.txt"), "q00\nzz\n", r"1 topic \('zz'\): named as judged"),
        (("a.run", "-m", "nope"), None, "nope"),
        (("missing.run",), None, "missing.run"),
    ],
)
def test_bad_input_ends_with_2_and_no_traceback(folder, capsys, arguments, text, words) -> None:
    if text is not None:
        (folder / "bad.txt").write_text(text)
    code, out, err = call(capsys, *arguments, "--human", "all.qrels", "--labels", "labels.qrels")
    assert (code, out) == (2, "")
    assert "Traceback" not in err
    assert re.search(words, err.replace("\n", " "))


# -- real topics ---------------------------------------------------------------------------------------------


def test_fifteen_topics_of_dl21_say_more_with_labels(data_dir: Path) -> None:
    folder = data_dir / "dl21_passage_runs"
    human, labels = (read_qrels(folder / f"qrels.{kind}.txt") for kind in ("human", "umbrela_gpt4"))
    files = sorted((folder / "runs").glob("*.run.gz"))
    runs = read_runs([files[3], files[40]], depth=10)
    topics = sorted(human["query_id"].unique())
    rng, ratios, inside = np.random.default_rng(0), [], []
    every = measure(runs, human, ["nDCG@10"])
    names = list(runs)
    truth = {name: float(value[0].mean()) for name, value in every.values.items()}
    truth[DELTA] = truth[names[1]] - truth[names[0]]
    for _ in range(12):
        judged = rng.choice(topics, 15, replace=False).tolist()
        found = estimate(runs, human, labels, judged_topics=judged).found["nDCG@10"]
        ratios.append([one.powered.half_width / one.alone.half_width for one in found.values()])
        inside += [one.powered.low < truth[of] < one.powered.high for of, one in found.items()]
    assert np.mean(ratios) < 0.95
    assert np.mean(inside) > 0.9
