"""Holes made on purpose: what fills do to them, against published figures, by hand, and by their laws."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy.stats import ttest_rel

from harness import simulate_tally
from harness.calibrate import calibrate
from harness.cli import main
from harness.errors import InputError, StopgapError, UsageError
from harness.ranking import rank
from harness.simulate import FILLS, Simulated, read_groups, signals_of, simulate
from harness.simulate_conditioned import Conditioner
from harness.simulate_holes import Holes, evidence
from harness.simulate_tally import places, verdicts
from harness.trec import read_qrels, run_paths

TOPICS = ["q1", "q2", "q3"]


def qrels_of(rows: list[tuple[str, str, int]], assessor: str = "human") -> pl.DataFrame:
    q, d, g = zip(*rows, strict=True)
    frame = pl.DataFrame({"query_id": q, "doc_id": d, "relevance": pl.Series(g, dtype=pl.Int16)})
    return frame.with_columns(gain=pl.col("relevance").cast(pl.Float32), assessor=pl.lit(assessor))


def run_of(*documents: str, topics: list[str] = TOPICS) -> pl.DataFrame:
    rows = [(q, d, float(-n)) for q in topics for n, d in enumerate(documents)]
    return rank(pl.DataFrame(rows, schema=["query_id", "doc_id", "score"], orient="row"))


def figures(found: Simulated, table: int = 0) -> dict[str, dict[str, Any]]:
    return {name: tally.to_json() for name, tally in found.tables[table].fills.items()}


# -- by hand -------------------------------------------------------------------------------------------------

RUNS = {"a": run_of("x", "y"), "b": run_of("x", "z")}
HUMAN = qrels_of([(q, d, g) for q in TOPICS for d, g in (("x", 1), ("y", 1), ("z", 0))])
ONES = qrels_of([(q, d, 1) for q in TOPICS for d in "xyz"], "llm")


def test_two_runs_by_hand() -> None:
    """P@2: a has 1 and b 0.5 on every topic, so a is better. y is a's alone, z is b's.

    Without y, zero gives a 0.5 (no verdict any more); the rest has mean 0.5, so a constant gives 0.75.
    Without z, zero changes nothing; the rest has mean 1, so a constant gives b 1 and its place.
    """
    found = simulate(
        RUNS,
        HUMAN,
        leave_out="run",
        labels=ONES,
        measures=["P@2"],
        fills=[f for f in FILLS if f != "conditioned"],
    )
    got = figures(found)
    assert found.tables[0].holes == 6
    assert found.tables[0].sets == 2
    assert {name: one["verdict_agreement"] for name, one in got.items()} == {
        "zero": 0.5, "condensed": 0.5, "constant": 0.5, "labels": 0.5, "calibrated": 0.5, "relabel": 0.0,
    }  # fmt: skip
    assert {name: one["score_error"] for name, one in got.items()} == pytest.approx(
        {
            "zero": 0.25,
            "condensed": 0.25,
            "constant": 0.375,
            "labels": 0.25,
            "calibrated": 0.375,
            "relabel": 0.25,
        }
    )
    assert {name: one["score_bias"] for name, one in got.items()} == pytest.approx(
        {
            "zero": -0.25,
            "condensed": -0.25,
            "constant": 0.125,
            "labels": 0.25,
            "calibrated": 0.125,
            "relabel": 0.25,
        }
    )
    assert got["zero"]["rank_shift"] == {"mean": 0.0, "max": 0}
    assert got["constant"]["rank_shift"] == {"mean": 0.5, "max": 1}
    assert all(one["comparisons"] == 2 and one["flips"] == 0 for one in got.values())


def test_condensed_closes_ranks() -> None:
    """The hole at rank 1 leaves b's ranking, so that its relevant second document moves up."""
    human = qrels_of([(q, d, g) for q in TOPICS for d, g in (("x", 1), ("n", 0), ("z", 0))])
    runs = {"a": run_of("n", "x"), "b": run_of("z", "x")}
    found = figures(simulate(runs, human, leave_out="run", measures=["RR@10"], depth=1))
    assert found["zero"]["score_error"] == 0.0
    assert found["condensed"]["score_error"] == 0.5


def test_a_better_that_turns_worse_is_a_flip() -> None:
    human = qrels_of([(q, d, g) for q in TOPICS for d, g in (("y", 2), ("x", 1), ("n", 0))])
    runs = {"a": run_of("y", "n"), "b": run_of("x", "n")}
    found = figures(simulate(runs, human, leave_out="run", measures=["nDCG@1"], depth=1))
    # without y, zero puts a at 0 below b; without x, b stays below a
    assert (found["zero"]["flips"], found["zero"]["comparisons"]) == (1, 2)
    assert found["zero"]["rank_shift"] == {"mean": 0.5, "max": 1}


# -- published figures ---------------------------------------------------------------------------------------


def real(data_dir: Path, name: str, leave_out: Any, **how: Any) -> Simulated:
    paths = run_paths([data_dir / name / "runs" / "*"])
    human = read_qrels(data_dir / name / "qrels.human.txt")
    labels = read_qrels(data_dir / name / "qrels.umbrela_gpt4.txt")
    groups = read_groups(data_dir / name / "runs_meta.tsv", list(paths))
    return simulate(paths, human, leave_out=leave_out, labels=labels, groups=groups, **how)


def test_leaving_teams_out_of_trec_dl_2019(data_dir: Path) -> None:
    fills = ["zero", "constant", "labels", "calibrated"]
    found = figures(real(data_dir, "dl19_passage", "group", fills=fills))
    for name, agreement, shift, error in (
        ("zero", 0.8960, 2.22, 0.0234),
        ("constant", 0.9709, 1.00, 0.0153),
        ("labels", 0.9501, 1.22, 0.0094),
        ("calibrated", 0.9775, 0.68, 0.0084),
    ):
        assert found[name]["comparisons"] == 1202
        assert round(found[name]["verdict_agreement"], 4) == agreement
        assert round(found[name]["rank_shift"]["mean"], 2) == shift
        assert round(found[name]["score_error"], 4) == error
    assert found["labels"]["coverage"] is None
    assert 0.85 < found["calibrated"]["coverage"] <= 1.0


@pytest.mark.slow
def test_leaving_runs_out_of_trec_dl_2021(data_dir: Path) -> None:
    found = figures(real(data_dir, "dl21_passage_runs", "run", fills=["zero", "labels", "calibrated"]))
    shifts = {n: (round(f["rank_shift"]["mean"], 2), f["rank_shift"]["max"]) for n, f in found.items()}
    assert shifts == {"zero": (2.46, 13), "labels": (1.81, 10), "calibrated": (0.98, 5)}


def test_random_holes_of_trec_dl_2021(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the pairs, drawn as the published figures drew them; then drawn by ourselves."""
    how: dict[str, Any] = {"fills": ["zero", "labels", "calibrated"]}
    ours = figures(real(data_dir, "dl21_passage_runs", "random", **how))
    human = read_qrels(data_dir / "dl21_passage_runs" / "qrels.human.txt")
    pairs = sorted(human.select("query_id", "doc_id").rows())  # the order of the judgments, too

    def drawn(runs: int, rate: float, seeds: int, may_go: Any, seed: int) -> list[Holes]:
        found = []
        for number in range(seeds):
            taken = random.Random(number).sample(range(len(pairs)), int(rate * len(pairs)))
            gone = np.isin(np.arange(len(pairs)), taken)
            found.append(Holes(str(number), np.arange(runs), *np.triu_indices(runs, 1), gone))
        return found

    monkeypatch.setattr("harness.simulate.at_random", drawn)
    theirs = figures(real(data_dir, "dl21_passage_runs", "random", **how))
    taus = {"zero": 0.874, "labels": 0.946, "calibrated": 0.955}
    # they sort scores as doubles, which have fewer ties
    assert {name: one["kendall_tau"] for name, one in theirs.items()} == pytest.approx(taus, abs=0.004)
    assert {name: one["kendall_tau"] for name, one in ours.items()} == pytest.approx(taus, abs=0.02)


@pytest.mark.slow
def test_the_topic_s_own_judgments_keep_more_verdicts_than_labels_alone(data_dir: Path) -> None:
    found = real(data_dir, "dl21_passage_runs", "group", fills=["calibrated", "conditioned"])
    got = figures(found)
    assert got["conditioned"]["verdict_agreement"] > got["calibrated"]["verdict_agreement"]
    assert got["conditioned"]["score_error"] < got["calibrated"]["score_error"]
    assert any("no vectors" in note for note in found.notes)


# -- laws ----------------------------------------------------------------------------------------------------


def made(
    seed: int = 0, runs: int = 4, topics: int = 5, documents: int = 12
) -> tuple[dict[str, Any], pl.DataFrame]:
    """Runs over judged documents only, which are drawn at random."""
    rng = np.random.default_rng(seed)
    names = [f"q{t}" for t in range(topics)]
    human = qrels_of([(q, f"d{d:02}", int(rng.integers(0, 4))) for q in names for d in range(documents)])
    found = {}
    for r in range(runs):
        rows = [(q, f"d{d:02}", float(rng.normal())) for q in names for d in rng.permutation(documents)[:6]]
        found[f"r{r}"] = rank(pl.DataFrame(rows, schema=["query_id", "doc_id", "score"], orient="row"))
    return found, human


def noisy(human: pl.DataFrame, seed: int = 1) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    moved = np.clip(human["relevance"].to_numpy() + rng.integers(-1, 2, human.height), 0, 3)
    return human.with_columns(relevance=pl.Series(moved, dtype=pl.Int16), assessor=pl.lit("llm"))


def test_runs_without_documents_of_their_own_change_nothing() -> None:
    runs, human = made()
    twice = runs | {f"{name} again": run for name, run in runs.items()}
    found = simulate(twice, human, leave_out="run", labels=noisy(human), depth=6)
    assert found.tables[0].holes == 0
    for name, one in figures(found).items():
        if name != "relabel":
            assert (one["verdict_agreement"], one["score_error"], one["flips"]) == (1.0, 0.0, 0)
            assert one["rank_shift"] == {"mean": 0.0, "max": 0}


def test_perfect_labels_change_nothing() -> None:
    runs, human = made()
    found = simulate(
        runs, human, leave_out="run", labels=human, measures=["nDCG@5", "AP", "P@3", "Bpref"], depth=3
    )
    assert found.tables[0].holes > 0
    for number in range(4):
        for name in ("labels", "relabel"):
            one = figures(found, number)[name]
            assert one["verdict_agreement"] == 1.0
            assert one["score_error"] == pytest.approx(0.0, abs=1e-12)


def test_the_order_of_rows_does_not_matter() -> None:
    runs, human = made()
    labels = noisy(human)
    how: dict[str, Any] = {"leave_out": "run", "budgets": [4], "depth": 4}
    first = simulate(runs, human, labels=labels, **how).to_json()
    again = simulate(runs, human.reverse(), labels=labels.sample(fraction=1, shuffle=True, seed=3), **how)
    assert again.to_json() == first


def test_verdicts_are_those_of_a_paired_t_test() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(12, 20)) + np.linspace(0, 1.5, 12)[:, None]
    values[3] = values[4]
    first, second = np.triu_indices(12, 1)
    expected = []
    for a, b in zip(values[first], values[second], strict=True):
        p = ttest_rel(a, b).pvalue if (a != b).any() else 1.0
        expected.append(int(np.sign((a - b).mean())) * int(p < 0.05))
    assert verdicts(values, first, second).tolist() == expected
    assert {-1, 0} <= set(expected)
    assert places(values).tolist() == [sum(v.mean() > w.mean() for v in values) for w in values]


def test_a_difference_that_is_the_same_on_every_topic_is_one() -> None:
    values = np.array([[0.3, 0.5, 0.1], [0.2, 0.4, 0.0], [0.3, 0.5, 0.1]])
    assert verdicts(values, np.array([0, 1, 0]), np.array([1, 2, 2])).tolist() == [1, -1, 0]


def test_evidence_is_so_many_a_topic_and_a_smaller_budget_is_part_of_a_larger() -> None:
    topic = np.repeat([0, 1, 2], [10, 3, 20])
    kept = np.arange(33) % 5 != 0
    small, large = (evidence(topic, kept, budget, 0, 7) for budget in (2, 6))
    assert np.bincount(topic[small]).tolist() == [2, 2, 2]
    assert np.bincount(topic[large]).tolist() == [6, min(6, kept[10:13].sum()), 6]
    assert not (small & ~large).any()
    assert not (large & ~kept).any()
    assert (evidence(topic, kept, 2, 0, 8) != small).any()


def test_a_budget_binds_what_fits_see_and_nothing_else() -> None:
    runs, human = made(topics=6, documents=20)
    found = simulate(runs, human, leave_out="run", labels=noisy(human), depth=4, budgets=[2, 50])
    assert [t.budget for t in found.tables] == [None, 2, 50]
    assert list(found.tables[1].fills) == ["constant", "calibrated", "conditioned"]
    whole, tight, ample = (figures(found, n) for n in range(3))
    assert ample["calibrated"] == whole["calibrated"]  # there are fewer than fifty
    assert tight["calibrated"]["score_error"] != whole["calibrated"]["score_error"]


def test_what_labels_lack_stays_a_hole_and_is_said() -> None:
    runs, human = made()
    none = noisy(human).clear()
    found = simulate(
        runs, human, leave_out="run", labels=none, depth=3, fills=["zero", "labels", "calibrated"]
    )
    got = figures(found)
    assert got["labels"] == got["zero"]
    assert got["calibrated"]["score_error"] == got["zero"]["score_error"]
    assert f"{human.height} of {human.height} judged pairs have no label" in " ".join(found.notes)


def test_labels_among_the_judgments_and_negative_grades_are_no_evidence() -> None:
    runs, human = made()
    coded = human.with_columns(
        relevance=pl.when(pl.col("doc_id") == "d00").then(-1).otherwise("relevance").cast(pl.Int16)
    )
    extra = qrels_of([("q0", "else", 3)], "llm")
    found = simulate(runs, pl.concat([coded, extra]), leave_out="run", depth=3)
    assert any("1 rows of the qrels are labels" in note for note in found.notes)
    assert any("negative grades" in note for note in found.notes)
    assert figures(found) == figures(simulate(runs, coded, leave_out="run", depth=3))


def test_unjudged_documents_are_said() -> None:
    runs, human = made()
    found = simulate(runs, human.filter(pl.col("doc_id") != "d03"), leave_out="run", fills=["zero"])
    assert any("are unjudged in the full qrels" in note for note in found.notes)


def test_intervals_are_the_same_in_fewer_judgments(monkeypatch: pytest.MonkeyPatch) -> None:
    runs, human = made(documents=40, topics=4)
    how: dict[str, Any] = {"leave_out": "run", "labels": noisy(human), "depth": 3, "fills": ["calibrated"]}
    how["measures"] = ["nDCG@3", "P@3", "RBP(p=0.5)@3"]
    thin = simulate(runs, human, **how)
    monkeypatch.setattr(simulate_tally, "_thinned", lambda specs, seen: seen)
    assert simulate(runs, human, **how).to_json() == thin.to_json()
    assert figures(thin)["calibrated"]["coverage_comparisons"] > 0


# -- the calibrator ------------------------------------------------------------------------------------------


def seen_by_an_eye(human: pl.DataFrame, seed: int = 4) -> pl.DataFrame:
    """Signals with vectors: documents of one grade resemble each other."""
    rng = np.random.default_rng(seed)
    grade = human["relevance"].to_numpy()
    vectors = rng.normal(size=(human.height, 8)) + 1.5 * np.eye(8)[grade]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return human.select("query_id", "doc_id").with_columns(
        pl.lit(None, pl.List(pl.Float32)).alias("probs"),
        pl.Series("score", grade + rng.normal(size=human.height), dtype=pl.Float32),
        pl.lit("eye").alias("labeler"),
        pl.lit(None, pl.String).alias("reason"),
        pl.Series("vector", vectors.astype(np.float32), dtype=pl.Array(pl.Float32, 8)),
    )


def test_one_latent_model_for_all_sets_labels_as_the_calibrator_does() -> None:
    """A second set without holes changes nothing, so the shared model is fitted on what the first sees."""
    _, human = made(topics=6, documents=30)
    human = human.sort("query_id", "doc_id")
    gone = np.random.default_rng(0).random(human.height) < 0.2
    nobody = np.zeros_like(gone)
    owner = np.where(np.random.default_rng(1).random(human.height) < 0.5, np.arange(human.height) % 3, -1)
    signals = [seen_by_an_eye(human)]
    by = Conditioner(signals, human, np.arange(4), owner, 0)
    ends = np.arange(1), np.arange(1), np.arange(1, 2)
    sets = [Holes("one", *ends, gone), Holes("none", *ends, nobody)]
    told: list[tuple[int, int]] = []
    shared, empty = by.fill(sets, [~gone, ~nobody], lambda *at: told.append(at))
    alone = by.fill(sets, [~gone, ~nobody], None, share=False)[0]
    assert shared.rows.tolist() == alone.rows.tolist() == np.flatnonzero(gone).tolist()
    assert shared.probs is not None
    assert alone.probs is not None
    assert np.abs(shared.probs - alone.probs).max() < 2e-4  # calibrate rounds to four places
    np.testing.assert_allclose(shared.shifts, alone.shifts, rtol=1e-3)  # type: ignore[arg-type]
    assert not len(empty.rows)
    assert told == [(1, 1)]
    once = human.select("query_id", "doc_id").with_columns(run=pl.Series(owner)).filter(pl.Series(owner >= 0))
    whole = calibrate(signals, human.filter(pl.Series(~gone)), range(4), found_once=once).labels
    expected = human.filter(pl.Series(gone)).join(whole, on=["query_id", "doc_id"], maintain_order="left")
    np.testing.assert_allclose(alone.gain, expected["gain_right"].to_numpy(), atol=1e-6)


def test_signals_without_grades_leave_raw_labels_out() -> None:
    runs, human = made(documents=20)
    found = simulate(runs, human, leave_out="run", signals=[seen_by_an_eye(human)], depth=4)
    assert list(found.tables[0].fills) == ["zero", "condensed", "constant", "calibrated", "conditioned"]
    assert any("scores and no grades" in note for note in found.notes)
    got = figures(found)
    assert got["conditioned"]["score_error"] < got["zero"]["score_error"]


def test_signals_with_grades_are_labels_too(tmp_path: Path) -> None:
    runs, human = made(documents=20)
    labels = noisy(human)
    file = tmp_path / "labels.txt"
    file.write_text(
        "".join(f"{q} 0 {d} {g}\n" for q, d, g in labels.select("query_id", "doc_id", "relevance").rows())
    )
    signals = signals_of([f"lookup:{file}"], None, human)
    heard = simulate(runs, human, leave_out="run", signals=signals, depth=4)
    given = simulate(runs, human, leave_out="run", labels=labels, depth=4)
    assert figures(heard) == figures(given)
    with pytest.raises(UsageError, match="--collection"):
        signals_of(["minilm"], None, human)


def test_a_labeler_of_another_scale_is_refused() -> None:
    runs, human = made()
    probs = pl.lit([0.5, 0.5], dtype=pl.List(pl.Float32)).alias("probs")
    signals = seen_by_an_eye(human).with_columns(probs)
    with pytest.raises(UsageError, match="2 probabilities; there are 4 grades: 0, 1, 2, 3"):
        simulate(runs, human, leave_out="run", signals=[signals])


def test_too_little_to_calibrate_leaves_conditioned_out_and_says_so() -> None:
    runs = {"a": run_of("x", "y"), "b": run_of("x", "z")}
    found = simulate(runs, HUMAN, leave_out="run", labels=ONES, budgets=[1])
    assert any("conditioned is left out" in note for note in found.notes)


# -- bad input -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"leave_out": "teams"}, "group, run, random"),
        ({"leave_out": "group"}, "--groups"),
        ({"leave_out": "group", "groups": {"a": "one"}}, "'b' has no group"),
        ({"leave_out": "group", "groups": {"a": "one", "b": "one"}}, "all runs are of one group, 'one'"),
        ({"leave_out": "random", "rates": [1.0]}, "between 0 and 1"),
        ({"leave_out": "run", "depth": 0}, "depth is 0"),
        ({"leave_out": "run", "budgets": [0]}, "budget is 0"),
        ({"leave_out": "random", "seeds": 0}, "number of seeds is 0"),
        ({"leave_out": "run", "fills": ["ones"]}, "unknown fill 'ones'"),
        ({"leave_out": "run", "grades": [0, 2]}, "qrels have grade 1; the collection's grades are 0, 2"),
        ({"leave_out": "run", "measures": ["ERR@10"]}, "ERR"),
        ({"leave_out": "run", "measures": ["nDGC@10"]}, "nDCG"),
        ({"leave_out": "run", "labels": pl.concat([ONES, ONES])}, "a pair twice"),
        ({"leave_out": "run", "labels": ONES.drop("relevance")}, "relevance"),
    ],
)
def test_what_cannot_be_meant_is_refused(how: dict[str, Any], said: str) -> None:
    with pytest.raises(StopgapError, match=said):
        simulate(RUNS, HUMAN, **how)


@pytest.mark.parametrize(
    ("runs", "human", "said"),
    [
        ({"a": RUNS["a"]}, HUMAN, "two runs"),
        (RUNS, HUMAN.filter(pl.col("query_id") == "q1"), "one topic"),
        (RUNS, HUMAN.filter(pl.col("relevance") == 1), "all judgments have grade 1"),
        (RUNS, HUMAN.with_columns(relevance=pl.lit(-1, pl.Int16)), "no grade is 0 or more"),
        (RUNS, HUMAN.filter(pl.col("doc_id") == "nothing"), "no judgment"),
    ],
)
def test_what_holds_too_little_is_refused(runs: dict[str, Any], human: pl.DataFrame, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        simulate(runs, human, leave_out="run")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("run\tgroup\na\tone\nb\ttwo\n", "no column 'team'; its columns are run, group"),
        ("run\tteam\na\tone\n", "no team for run 'b'"),
        ("run\tteam\na\tone\nb\t\n", "no team for run 'b'"),
        ("run\tteam\na\tone\na\ttwo\nb\ttwo\n", ":3: run 'a' stands here a second time"),
        ("", "cannot be read"),
    ],
)
def test_a_file_of_groups_that_does_not_do_is_named(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "meta.tsv").write_text(text)
    with pytest.raises(InputError, match=said):
        read_groups(tmp_path / "meta.tsv", ["a", "b"])


# -- the verb ------------------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path) -> Path:
    runs, human = made(documents=20, topics=6)
    for name, run in runs.items():
        lines = (f"{q} Q0 {d} {r + 1} {s} t\n" for q, d, s, r in run.iter_rows())
        (tmp_path / f"{name}.run").write_text("".join(lines))
    for name, frame in (("human", human), ("llm", noisy(human))):
        rows = frame.select("query_id", "doc_id", "relevance").iter_rows()
        (tmp_path / f"{name}.qrels").write_text("".join(f"{q} 0 {d} {g}\n" for q, d, g in rows))
    (tmp_path / "meta.tsv").write_text("run\tteam\tsite\nr0\tA\tx\nr1\tA\ty\nr2\tB\tx\nr3\tC\tx\n")
    return tmp_path


def asked(files: Path, *more: str) -> list[str]:
    runs = [str(files / f"r{n}.run") for n in range(4)]
    return ["simulate", *runs, "--qrels", str(files / "human.qrels"), *more]


def test_the_verb_in_json(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = ["--labels", str(files / "llm.qrels"), "--leave-out", "group", "--groups", str(files / "meta.tsv")]
    assert (
        main(asked(files, *more, "-m", "nDCG@5", "-m", "AP", "--depth", "4", "--budget", "5", "--json")) == 0
    )
    said = json.loads(capsys.readouterr().out)
    assert list(said) == [
        "leave_out", "depth", "measure", "runs", "topics", "judgments", "holes", "fills", "tables", "notes",
    ]  # fmt: skip
    assert (said["leave_out"], said["depth"], said["measure"], said["runs"]) == ("group", 4, "nDCG@5", 4)
    assert list(said["fills"]) == list(FILLS)
    assert said["fills"]["zero"].keys() >= {
        "rank_shift", "score_error", "verdict_agreement", "flips", "comparisons", "kendall_tau", "coverage",
    }  # fmt: skip
    assert set(said["fills"]["zero"]["rank_shift"]) == {"mean", "max"}
    assert said["fills"]["zero"]["comparisons"] == 2 * 2 + 3 + 3
    at = [(t["measure"], t["budget"], t["rate"]) for t in said["tables"]]
    assert at == [("nDCG@5", None, None), ("AP", None, None), ("nDCG@5", 5, None), ("AP", 5, None)]


def test_the_verb_in_tables(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = ["--leave-out", "random", "--rate", "0.3", "--rate", "0.6", "--seeds", "2"]
    assert main(asked(files, "--labeler", f"lookup:{files / 'llm.qrels'}", *more)) == 0
    said = capsys.readouterr().out
    assert "nDCG@10, 30 % of the judgments left out; 72 holes in 2 sets:" in said
    assert "nDCG@10, 60 % of the judgments left out; 144 holes in 2 sets:" in said
    assert all(said.count(f"\n{fill} ") == 2 for fill in FILLS)
    assert "every run with every other" in said


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--leave-out", "group"], "--groups META.tsv"),
        (["--leave-out", "group", "--groups", "META", "--by", "country"], "no column 'country'"),
        (["--leave-out", "run", "--labels", "MISSING"], "MISSING"),
        (["--leave-out", "random", "--rate", "2"], "between 0 and 1"),
        (["--leave-out", "run", "--labeler", "minilm"], "--collection"),
        (["--leave-out", "team"], "group"),
        (["--leave-out", "run", "-m", "nothing@5"], "nothing"),
    ],
)
def test_the_verb_with_bad_input(
    files: Path, capsys: pytest.CaptureFixture[str], more: list[str], said: str
) -> None:
    assert main(asked(files, *[str(files / "meta.tsv") if m == "META" else m for m in more])) == 2
    wrong = capsys.readouterr()
    assert said in wrong.err
    assert "Traceback" not in wrong.err
    assert not wrong.out


def test_of_filled_qrels_the_labels_count_and_no_judgment_passes_for_one() -> None:
    runs, human = made(documents=20, topics=6)
    few = noisy(human).head(40).with_columns(assessor=pl.lit("llm"))
    filled = pl.concat([few, human.join(few, on=["query_id", "doc_id"], how="anti")])
    how = {"leave_out": "run", "depth": 5, "fills": ["labels", "relabel"]}
    told = [simulate(runs, human, labels=labels, **how).to_json() for labels in (few, filled)]
    assert told[0] == told[1]
