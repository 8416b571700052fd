"""The gate: settings read strictly, a verdict for each check, nothing missing that passes, reports for CI."""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.compare import Comparison, compare
from harness.errors import InputError, StopgapError, UnknownName
from harness.frames import QRELS, RUN
from harness.gate import check_margin, check_topics, gate
from harness.gate_agreement import check_agreement
from harness.gate_config import read_settings
from harness.gate_output import Check, Gated, junit, markdown, overall, prepare, write
from harness.trec import read_qrels, read_run, write_qrels, write_run

ROOT = Path(__file__).resolve().parent.parent
TOPICS = [f"t{n:02}" for n in range(24)]
DOCUMENTS = [f"d{n}" for n in range(12)]
BASIC = """
runs = ["new.run"]
baseline = "base.run"
qrels = "qrels.txt"
measures = ["nDCG@10", "P@5"]
[checks]
margin = 0.05
"""
Toml = Callable[..., Path]


def grade(topic: int, document: int) -> int:
    """Three relevant documents of twelve, which ones depends on the topic."""
    return 3 - (document - topic) % 12 if (document - topic) % 12 < 3 else 0


def ranking(topic: int, *, push: int = 0, noise: int = 0) -> list[int]:
    """Documents with the relevant ones first, `push` places down; `noise` turns the tail."""
    relevant = [(topic + n) % 12 for n in range(3)]
    others = [d for d in range(12) if d not in relevant]
    others = others[noise:] + others[:noise]
    return others[:push] + relevant + others[push:]


def run_text(**how: int) -> str:
    lines = []
    for n, topic in enumerate(TOPICS):
        for place, document in enumerate(ranking(n, **how)):
            lines.append(f"{topic} Q0 d{document} {place + 1} {100 - place} x\n")
    return "".join(lines)


@pytest.fixture
def toml(tmp_path: Path) -> Toml:
    """Writes stopgap.toml beside a baseline, an equal candidate and qrels; accepts unless told otherwise."""
    (tmp_path / "base.run").write_text(run_text())
    (tmp_path / "new.run").write_text(run_text(noise=2))
    lines = [f"{t} 0 d{d} {grade(n, d)}\n" for n, t in enumerate(TOPICS) for d in range(12)]
    (tmp_path / "qrels.txt").write_text("".join(lines))
    kinds = "".join(f"{t}\t{'odd' if n % 2 else 'even'}\tq\n" for n, t in enumerate(TOPICS))
    (tmp_path / "topics.tsv").write_text("query_id\tkind\tother\n" + kinds)

    def made(text: str = BASIC, *, accept: bool = True) -> Path:
        path = tmp_path / "stopgap.toml"
        path.write_text(text)
        if accept:
            assert (tmp_path / "stopgap.lock.json") in gate(path, accept=True).accepted
        return path

    return made


def by_name(gated: Gated) -> dict[str, Check]:
    names = [check.name for check in gated.checks]
    assert len(names) == len(set(names))
    return {check.name: check for check in gated.checks}


# -- the verdict ---------------------------------------------------------------------------------------------


def test_an_identical_run_passes(toml: Toml, tmp_path: Path) -> None:
    (tmp_path / "new.run").write_text(run_text())
    gated = gate(toml(BASIC.replace("0.05", "0")))
    assert (gated.verdict, gated.exit_code) == ("pass", 0)
    assert by_name(gated)["nDCG@10 of new"].value == 0


def test_the_baseline_s_own_file_as_the_candidate_passes(toml: Toml) -> None:
    assert gate(toml(BASIC.replace("new.run", "base.run"))).exit_code == 0


def test_a_planted_regression_fails(toml: Toml, tmp_path: Path) -> None:
    path = toml()
    (tmp_path / "new.run").write_text(run_text(push=4))
    gated = gate(path)
    assert (gated.verdict, gated.exit_code) == ("fail", 1)
    found = by_name(gated)["nDCG@10 of new"]
    assert found.verdict == "fail"
    assert found.threshold == -0.05
    assert isinstance(found.value, float)
    assert found.value < -0.3
    assert found.interval is not None
    assert found.interval[1] < -0.05
    assert re.search(r"0 topics won, 24 lost", found.detail)


def test_what_cannot_be_told_is_inconclusive(toml: Toml, tmp_path: Path) -> None:
    path = toml()
    good, bad = run_text().splitlines(True), run_text(push=9).splitlines(True)
    half = [(bad if int(line[1:3]) % 8 == 0 else good)[n] for n, line in enumerate(good)]
    (tmp_path / "new.run").write_text("".join(half))
    gated = gate(path)
    assert (gated.verdict, gated.exit_code) == ("inconclusive", 3)


def test_scores_without_an_order_are_inconclusive(toml: Toml, tmp_path: Path) -> None:
    path = toml(BASIC.replace("0.05", "1"))
    (tmp_path / "new.run").write_text(re.sub(r"\d+ x$", "1 x", run_text(), flags=re.M))
    gated = gate(path)
    assert gated.exit_code == 3
    assert by_name(gated)["order of new"].verdict == "inconclusive"


def test_zeros_throughout_are_inconclusive(toml: Toml, tmp_path: Path) -> None:
    for name in ("base", "new"):
        (tmp_path / f"{name}.run").write_text(re.sub(r" d(\d+) ", rf" {name}\1 ", run_text()))
    gated = gate(toml())
    assert gated.exit_code == 3
    assert by_name(gated)["nDCG@10 of new"].value == 0
    (tmp_path / "new.run").write_bytes((tmp_path / "base.run").read_bytes())
    assert gate(toml()).exit_code == 0


def test_one_bad_candidate_of_several_fails_the_gate(toml: Toml, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "worse.run").write_text(run_text(push=6))
    (tmp_path / "more" / "fine.run").write_text(run_text(noise=1))
    found = by_name(gate(toml(BASIC.replace('["new.run"]', '["new.run", "more/*.run"]'))))
    assert {name: found[f"P@5 of {name}"].verdict for name in ("new", "fine", "worse")} == {
        "new": "pass",
        "fine": "pass",
        "worse": "fail",
    }


def test_a_baseline_may_have_the_name_of_a_candidate(toml: Toml, tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "new.run").write_text(run_text())
    gated = gate(toml(BASIC.replace("base.run", "old/new.run")))
    assert gated.verdict == "pass"
    assert "missing topics of new (baseline)" in by_name(gated)


def test_margins_by_measure(toml: Toml, tmp_path: Path) -> None:
    text = BASIC.replace("margin = 0.05", 'margin = { "nDCG@10" = 1.0, "*" = 0.01 }')
    path = toml(text)
    (tmp_path / "new.run").write_text(run_text(push=4))
    found = by_name(gate(path))
    assert (found["nDCG@10 of new"].verdict, found["nDCG@10 of new"].threshold) == ("pass", -1.0)
    assert (found["P@5 of new"].verdict, found["P@5 of new"].threshold) == ("fail", -0.01)


def test_a_regression_in_one_slice_fails_though_the_whole_passes(toml: Toml, tmp_path: Path) -> None:
    text = 'slices = "topics.tsv"\n' + BASIC.replace("0.05", "0.9")
    path = toml(text + '[checks.slice_margin]\nkind = 0.2\n"kind=even" = { "P@5" = 0.9 }\n')
    good, bad = run_text().splitlines(True), run_text(push=7).splitlines(True)
    odd = [(bad if int(line[1:3]) % 2 else good)[n] for n, line in enumerate(good)]
    (tmp_path / "new.run").write_text("".join(odd))
    gated = gate(path)
    found = {name: check.verdict for name, check in by_name(gated).items() if check.kind == "slice_margin"}
    assert found == {
        "nDCG@10 of new, kind=odd": "fail",
        "P@5 of new, kind=odd": "fail",
        "P@5 of new, kind=even": "pass",
    }
    assert by_name(gated)["nDCG@10 of new"].verdict == "pass"
    assert gated.exit_code == 1


@settings(deadline=None)
@given(st.lists(st.sampled_from(["pass", "fail", "inconclusive"])))
def test_fail_beats_inconclusive_beats_pass(verdicts: list) -> None:
    found = overall(verdicts)
    assert found == overall(reversed(verdicts))
    assert (found == "fail") == ("fail" in verdicts)
    assert (found == "pass") == (set(verdicts) == {"pass"})


def compared(deltas: list[float]) -> Comparison:
    """A real comparison, to be changed where a test needs it."""
    qrels = pl.DataFrame({"query_id": TOPICS, "doc_id": "a", "relevance": 1}).with_columns(
        pl.col("relevance").cast(pl.Int16), gain=pl.lit(1.0, pl.Float32), assessor=pl.lit("human")
    )
    frames = {}
    for name, second in (("base", "a"), ("new", "b")):
        rows = {"query_id": TOPICS, "doc_id": ["a", second] * 12, "score": 1.0}
        frames[name] = pl.DataFrame(rows).with_columns(rank=pl.lit(0, pl.UInt32))
    one = compare(frames, qrels, ["RR"]).found["new"]["RR"]
    return replace(one, delta=deltas[1], ci=(deltas[0], deltas[2]), verdict="inconclusive", wins=3, losses=5)


def test_a_margin_is_judged_by_the_interval() -> None:
    one = compared([-0.02, 0.0, 0.02])
    assert check_margin("x", one, 0.03).verdict == "pass"
    assert check_margin("x", one, 0.02).verdict == "inconclusive"
    assert check_margin("x", one, 0.0).verdict == "inconclusive"
    assert check_margin("x", replace(one, ci=(-0.05, -0.03)), 0.02).verdict == "fail"
    assert check_margin("x", replace(one, ci=(-0.05, 0.0), verdict="worse"), 0.0).verdict == "fail"
    assert check_margin("x", replace(one, ci=(-0.05, 0.0), verdict="worse"), 0.01).verdict == "inconclusive"
    same = replace(one, ci=(0.0, 0.0), wins=0, losses=0, verdict="equivalent")
    assert check_margin("x", same, 0.0).verdict == "pass"
    assert check_margin("x", replace(same, verdict="inconclusive"), 0.1).verdict == "inconclusive"
    assert check_margin("x", replace(same, ci=(-0.1, 0.1)), 0.05).verdict == "inconclusive"
    for unknown in ((math.nan, math.nan), (-math.inf, math.inf)):
        assert check_margin("x", replace(one, ci=unknown), 0.5).verdict == "inconclusive"


@settings(deadline=None)
@given(
    st.lists(st.floats(-1, 1), min_size=3, max_size=3).map(sorted),
    st.lists(st.floats(0, 1), min_size=2, max_size=2).map(sorted),
)
def test_a_wider_margin_never_makes_a_verdict_worse(deltas: list[float], margins: list[float]) -> None:
    order = ["fail", "inconclusive", "pass"]
    one = COMPARED if not deltas else replace(COMPARED, delta=deltas[1], ci=(deltas[0], deltas[2]))
    narrow, wide = (check_margin("x", one, margin).verdict for margin in margins)
    assert order.index(narrow) <= order.index(wide)


COMPARED = compared([-0.1, 0.0, 0.1])


# -- the accepted baseline -----------------------------------------------------------------------------------


def test_without_a_lock_there_is_nothing_to_compare_with(toml: Toml) -> None:
    path = toml(accept=False)
    with pytest.raises(InputError, match=r"no accepted baseline(.|\n)*stopgap gate .*stopgap.toml --accept"):
        gate(path)


def test_accepting_twice_writes_the_same_bytes(toml: Toml, tmp_path: Path) -> None:
    path = toml()
    before = (tmp_path / "stopgap.lock.json").read_bytes()
    gate(path, accept=True)
    assert (tmp_path / "stopgap.lock.json").read_bytes() == before


def test_accepting_does_not_make_a_bad_candidate_pass(toml: Toml, tmp_path: Path) -> None:
    (tmp_path / "new.run").write_text(run_text(push=4))
    assert gate(toml(), accept=True).verdict == "fail"


def test_what_cannot_be_read_is_not_accepted(toml: Toml, tmp_path: Path) -> None:
    path = toml(BASIC + '[checks.throughput]\nresults = "absent.json"\n', accept=False)
    with pytest.raises(InputError, match=r"absent\.json: no such file"):
        gate(path, accept=True)
    assert not (tmp_path / "stopgap.lock.json").exists()


def changed_qrels(folder: Path) -> None:
    path = folder / "qrels.txt"
    path.write_text(path.read_text().replace("t03 0 d0 0", "t03 0 d0 1"))


def fewer_topics(folder: Path) -> None:
    path = folder / "qrels.txt"
    path.write_text("".join(line for line in path.read_text().splitlines(True) if not line.startswith("t05")))


def changed_baseline(folder: Path) -> None:
    (folder / "base.run").write_text(run_text(push=1))


def new_twin(folder: Path) -> None:
    qrels = read_qrels(folder / "qrels.txt")
    write_qrels(qrels.with_columns(gain=pl.col("gain") / 2), folder / "qrels.txt")


@pytest.mark.parametrize(
    ("change", "failed"),
    [
        (changed_qrels, {"qrels as accepted", "P@5 of the baseline as accepted"}),
        (fewer_topics, {"qrels as accepted", "topics as accepted"}),
        (changed_baseline, {"baseline as accepted", "nDCG@10 of the baseline as accepted"}),
        (new_twin, {"twin as accepted"}),
    ],
)
def test_what_changed_since_it_was_accepted_fails(
    toml: Toml, tmp_path: Path, change: Callable[[Path], None], failed: set[str]
) -> None:
    path = toml()
    change(tmp_path)
    gated = gate(path)
    assert gated.exit_code == 1
    found = {name for name, check in by_name(gated).items() if check.verdict == "fail"}
    assert failed <= found
    assert all("--accept" in by_name(gated)[name].detail for name in failed)
    assert gate(path, accept=True).exit_code == 0
    assert gate(path).exit_code == 0


def test_a_baseline_that_scores_otherwise_than_accepted_fails(toml: Toml, tmp_path: Path) -> None:
    path, lock = toml(), tmp_path / "stopgap.lock.json"
    said = json.loads(lock.read_text())
    said["scores"]["P@5"] += 1e-6
    said["scores"].pop("nDCG@10")
    said["versions"]["polars"] = "0.1"
    lock.write_text(json.dumps(said))
    found = by_name(gate(path))
    assert "polars 0.1 is now" in found["P@5 of the baseline as accepted"].detail
    assert found["P@5 of the baseline as accepted"].verdict == "fail"
    assert found["nDCG@10 of the baseline as accepted"].verdict == "fail"


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '{"stopgap_lock": 2}', '{"stopgap_lock": 1, "sha256": []}', "\udcff", "[" * 9999],
)
def test_a_lock_that_is_none_is_bad_input(toml: Toml, tmp_path: Path, text: str) -> None:
    path = toml()
    (tmp_path / "stopgap.lock.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(InputError, match=r"stopgap\.lock\.json(.|\n)*--accept"):
        gate(path)


# -- topics --------------------------------------------------------------------------------------------------


def without(folder: Path, name: str, *topics: str) -> None:
    path = folder / name
    lines = path.read_text().splitlines(True)
    path.write_text("".join(line for line in lines if line[:3] not in topics))


def test_a_missing_topic_fails_even_where_the_mean_would_pass(toml: Toml, tmp_path: Path) -> None:
    path = toml(BASIC.replace("0.05", "0.9"))
    without(tmp_path, "new.run", "t07", "t09")
    gated = gate(path)
    found = by_name(gated)["missing topics of new"]
    assert (found.verdict, found.value, found.threshold) == ("fail", 2, 0)
    assert "'t07', 't09'" in found.detail
    assert [check.name for check in gated.checks if check.verdict != "pass"] == ["missing topics of new"]
    assert gate(toml(BASIC.replace("0.05", "0.9\nmissing_topics = 2"))).verdict == "pass"


def test_topics_of_another_set_fail(toml: Toml, tmp_path: Path) -> None:
    path = toml()
    with (tmp_path / "new.run").open("a") as file:
        file.write("q999 Q0 d1 1 1 x\n")
    found = by_name(gate(path))["missing topics of new"]
    assert found.verdict == "fail"
    assert "'q999'" in found.detail
    with (tmp_path / "base.run").open("a") as file:
        file.write("q999 Q0 d1 1 1 x\n")
    assert gate(path, accept=True).verdict == "pass"


def test_a_run_of_other_topics_altogether_is_bad_input(toml: Toml, tmp_path: Path) -> None:
    path = toml()
    (tmp_path / "new.run").write_text(run_text().replace("t", "u"))
    with pytest.raises(StopgapError, match="shares no topic"):
        gate(path)


def test_topics_are_held_against_the_collection_s() -> None:
    run = pl.DataFrame({"query_id": ["a", "b"], "doc_id": "d", "score": 1.0, "rank": 0}).cast(RUN)
    rows = {"query_id": ["a"], "doc_id": "d", "relevance": 1, "gain": 1.0, "assessor": "human"}
    qrels = pl.DataFrame(rows).cast(QRELS)
    assert [c.verdict for c in check_topics({"r": run}, qrels, 0, {"a", "b", "c"})] == ["pass"]
    assert [c.verdict for c in check_topics({"r": run}, qrels, 0, {"a"})] == ["fail"]
    assert "topics of the qrels" in {c.name for c in check_topics({"r": run}, qrels, 0, {"b"})}


# -- labels --------------------------------------------------------------------------------------------------


def labeled(folder: Path, labeler: str = "minilm@12345678/abcdef01") -> None:
    """Half the candidate's first documents carry a label."""
    qrels = read_qrels(folder / "qrels.txt")
    mine = pl.col("query_id") < "t12"
    write_qrels(
        qrels.with_columns(assessor=pl.when(mine).then(pl.lit(labeler)).otherwise("assessor")),
        folder / "qrels.txt",
    )


def test_floors_and_ceilings(toml: Toml, tmp_path: Path) -> None:
    labeled(tmp_path)
    text = 'labeler = "minilm"\n' + BASIC + "judged = {}\nlabeled_share = {}\n"
    assert gate(toml(text.format("1.0", "0.5"))).verdict == "pass"
    found = by_name(gate(toml(text.format("1", "0.4"))))
    assert {name for name, check in found.items() if check.verdict == "fail"} == {
        "labeled share of base",
        "labeled share of new",
    }
    lines = (tmp_path / "new.run").read_text().replace(" d3 ", " unknown3 ")
    (tmp_path / "new.run").write_text(lines)
    found = by_name(gate(toml(text.format("0.99", "0.5"))))
    assert found["judged@10 of base"].verdict == "pass"
    assert found["judged@10 of new"].verdict == "fail"
    assert "stopgap fill" in found["judged@10 of new"].detail


@pytest.mark.parametrize(
    ("labeler", "verdict"),
    [("minilm", "pass"), ("minilm@12345678", "pass"), ("mini", "fail"), ("minilm@99999999", "fail")],
)
def test_labels_are_of_the_labeler_that_is_named(
    toml: Toml, tmp_path: Path, labeler: str, verdict: str
) -> None:
    labeled(tmp_path)
    assert by_name(gate(toml(f'labeler = "{labeler}"\n{BASIC}')))["labeler"].verdict == verdict


def test_labels_without_a_name_are_inconclusive(toml: Toml, tmp_path: Path) -> None:
    labeled(tmp_path)
    (tmp_path / "qrels.txt.parquet").unlink()
    found = by_name(gate(toml('labeler = "minilm"\n' + BASIC)))["labeler"]
    assert found.verdict == "inconclusive"
    assert "twin" in found.detail


def test_the_floor_on_agreement_asks_the_whole_interval(tmp_path: Path) -> None:
    human, labels = tmp_path / "human.txt", tmp_path / "labels.txt"
    rows = [(t, d, grade(n, d)) for n, t in enumerate(TOPICS) for d in range(12)]
    human.write_text("".join(f"{t} 0 d{d} {g}\n" for t, d, g in rows))
    labels.write_text("".join(f"{t} 1 d{d} {g if d % 4 else 0}\n" for t, d, g in rows))
    checks = [check_agreement(human, labels, floor) for floor in (0.2, 0.99)]
    assert [check.verdict for check in checks] == ["pass", "fail"]
    value = checks[0].value
    assert isinstance(value, float)
    assert check_agreement(human, labels, value).verdict == "inconclusive"
    assert "288 pairs of 24 topics" in checks[0].detail
    marked = labels.read_text()
    labels.write_text(marked.replace(" 1 d", " 0 d"))
    assert "marks no label" in check_agreement(human, labels, 0.2).detail
    with pytest.raises(InputError, match="one file"):
        check_agreement(human, human, 0.2)
    labels.write_text(marked.replace("t", "u"))
    with pytest.raises(InputError, match="no label of a pair that the assessors judged"):
        check_agreement(human, labels, 0.2)


def test_agreement_alone_needs_no_runs(toml: Toml, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text((tmp_path / "qrels.txt").read_text().replace(" 0 d", " 1 d"))
    text = '[checks.agreement]\nhuman = "qrels.txt"\nlabels = "labels.txt"\nkappa = 0.9\n'
    gated = gate(toml(text, accept=False))
    assert [(c.name, c.verdict, c.value) for c in gated.checks] == [("agreement", "pass", 1.0)]


def test_the_floor_on_simulated_verdicts(toml: Toml, tmp_path: Path) -> None:
    fills = {
        "zero": {"verdict_agreement": 0.9, "comparisons": 1202, "flips": 3},
        "conditioned": {"verdict_agreement": 0.99, "comparisons": 1202, "flips": 0},
        "labels": {"verdict_agreement": None, "comparisons": 0, "flips": 0},
    }
    told = {"leave_out": "group", "measure": "nDCG@10", "fills": fills}
    (tmp_path / "simulate.json").write_text(json.dumps(told))
    text = '[checks.simulation]\nresults = "simulate.json"\nverdict_agreement = 0.97\n'
    for fill, verdict in (("", "pass"), ("zero", "fail"), ("labels", "inconclusive")):
        gated = gate(toml(text + (f'fill = "{fill}"\n' if fill else ""), accept=False))
        assert [(c.name, c.verdict) for c in gated.checks] == [("simulation", verdict)]
    assert "leaving out group, nDCG@10" in gated.checks[0].detail
    with pytest.raises(UnknownName, match="conditioned"):
        gate(toml(f'{text}fill = "condition"\n', accept=False))
    (tmp_path / "simulate.json").write_text('{"kappa": 1, "labeler": "x"}')
    with pytest.raises(InputError, match="simulate"):
        gate(toml(text, accept=False))


def test_a_diagnosis_with_faults_fails(toml: Toml, tmp_path: Path) -> None:
    sound = {"check": "inverted", "found": False, "words": "no"}
    tried = {"what": "words", "labeled": 100, "up": 0.5, "ci": {"up": [0.4, 0.6]}}
    told = {
        "circularity": None,
        "scale": {"gpt": [sound], "bad": [sound, {"check": "shifted", "found": True, "words": "by -1"}]},
        "gullibility": {"perturbations": {"stuffed": tried, "empty": {"labeled": 0}}},
    }
    (tmp_path / "d.json").write_text(json.dumps(told))
    text = '[checks.diagnosis]\nresults = "d.json"\n'
    found = by_name(gate(toml(text, accept=False)))
    assert {name: check.verdict for name, check in found.items()} == {
        "scale of gpt": "pass",
        "scale of bad": "fail",
    }
    assert found["scale of bad"].detail == "shifted: by -1"
    for ceiling, verdict in ((0.6, "pass"), (0.5, "inconclusive"), (0.3, "fail")):
        found = by_name(gate(toml(f"{text}fooled = {ceiling}\n", accept=False)))
        assert found["fooled when stuffed"].verdict == verdict
        assert "fooled when empty" not in found
    (tmp_path / "d.json").write_text(json.dumps({**told, "gullibility": None}))
    assert by_name(gate(toml(f"{text}fooled = 0.5\n", accept=False)))["fooled"].verdict == "inconclusive"


# -- settings ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("margin = 0.05", "margins = 0.05", 7, r"unknown key 'checks.margins' \(did you mean 'margin'\?\)"),
        ("qrels =", "qrel =", 4, r"unknown key 'qrel' \(did you mean 'qrels'\?\); keys there: baseline,"),
        ("margin = 0.05", "margin = -0.05", 7, "greater than or equal to 0"),
        ("margin = 0.05", "margin = nan", 7, "finite"),
        ("margin = 0.05", "margin = inf", 7, "finite"),
        ("margin = 0.05", 'margin = "0.05"', 7, "a number, or a table of measures"),
        ("margin = 0.05", "margin = true", 7, "number"),
        ("margin = 0.05", "margin = [0.05]", 7, "a number, or a table of measures"),
        ("margin = 0.05", "margin = {}", 7, "at least 1"),
        ("margin = 0.05", 'margin = {"nDCG@10" = 0.1}', 7, "no margin for P@5"),
        ("margin = 0.05", 'margin = {"ndcg@10" = 0.1, "*" = 0}', 7, "Did you mean 'nDCG'"),
        ("margin = 0.05", 'margin = {"AP" = 0.1, "*" = 0}', None, "none of the measures"),
        ("margin = 0.05", "judged = 0.5", 6, "margin is missing"),
        ("margin = 0.05", "margin = 0\njudged = 90", 8, "less than or equal to 1"),
        ("margin = 0.05", "margin = 0\nlabeled_share = -1", 8, "greater than or equal to 0"),
        ("margin = 0.05", "margin = 0\nmissing_topics = 1.5", 8, "integer"),
        ("margin = 0.05", "margin = 0\n[checks.slice_margin]\nkind = 0.1", 8, "go together"),
        ("margin = 0.05", "margin = 0\n[checks.agreement]\nkapa = 0.1", 9, "did you mean 'kappa'"),
        (
            "margin = 0.05",
            'margin = 0\n[checks.throughput]\nresults = "x"\nslowdown = 0.9',
            10,
            "greater than",
        ),
        ("[checks]", "[check]", 6, "unknown key 'check'"),
        ('["new.run"]', "[]", 2, "at least 1"),
        ('["new.run"]', "[7]", None, "string"),
        ('["new.run"]', "7", 2, "list"),
        ('"base.run"', '""', 3, "at least 1 character"),
        ('baseline = "base.run"', "", 6, "needs baseline too"),
        ('"P@5"', '"P@0"', 5, "counts ranks from 1"),
        ('"P@5"', '"Precision"', 5, "cutoff is missing"),
        ("qrels =", "qrels", 4, "not TOML"),
        ('"new.run"', '"absent.run"', 2, "runs: no such file"),
        ('"new.run"', '"absent*.run"', None, "no file fits"),
        ('"base.run"', '"bass.run"', 3, r"baseline: no such file: .*\n.*Near it: .*base.run"),
        ('"qrels.txt"', '"."', 4, "qrels: no such file"),
    ],
)
def test_bad_settings_name_the_line_and_the_key(
    toml: Toml, old: str, new: str, line: int | None, message: str
) -> None:
    assert old in BASIC
    with pytest.raises(InputError, match=message) as caught:
        gate(toml(BASIC.replace(old, new), accept=False))
    assert "pydantic" not in str(caught.value)
    assert caught.value.line == line


def test_several_problems_are_told_at_once(toml: Toml) -> None:
    with pytest.raises(InputError, match=r"unknown key 'run'.*unknown key 'qrel'"):
        read_settings(toml("run = 1\nqrel = 2\n[checks]\nmargin = 0\n", accept=False))


def test_no_settings_at_all(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no such file\nNext: write one, such as(.|\n)*margin = 0\.01"):
        gate(tmp_path / "stopgap.toml")
    with pytest.raises(InputError, match="a folder"):
        gate(tmp_path)
    (tmp_path / "empty.toml").write_text("")
    with pytest.raises(InputError, match="checks is missing"):
        gate(tmp_path / "empty.toml")
    (tmp_path / "none.toml").write_text("[checks]")
    with pytest.raises(InputError, match="nothing is checked"):
        gate(tmp_path / "none.toml")


@pytest.mark.parametrize(
    "data", [b"\xff\xfe", b"a = " + b"[" * 5000, b"a = " + b"9" * 5000, b"a = 1\0", b"a.b.c=1"]
)
def test_hostile_settings(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "stopgap.toml").write_bytes(data)
    with pytest.raises(InputError):
        read_settings(tmp_path / "stopgap.toml")


_keys = st.sampled_from(["runs", "baseline", "qrels", "measures", "slices", "labeler", "checks", "margin"])
_values = st.recursive(
    st.none().map(lambda _: "1979-05-27")
    | st.integers().map(str)
    | st.sampled_from(["nan", "true", '"x"', "0.1"]),
    lambda inner: (
        st.lists(inner, max_size=2).map(lambda v: f"[{', '.join(v)}]")
        | st.tuples(_keys, inner).map(lambda kv: f"{{{kv[0]} = {kv[1]}}}")
    ),
    max_leaves=4,
)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(_keys, _values, max_size=5))
def test_whatever_stands_in_the_settings_is_read_or_refused(tmp_path_factory, table: dict[str, str]) -> None:
    path = tmp_path_factory.getbasetemp() / "random.toml"
    path.write_text("".join(f"{key} = {value}\n" for key, value in table.items()), encoding="utf-8")
    with contextlib.suppress(InputError):
        assert read_settings(path).checks


@pytest.mark.parametrize(
    ("table", "margins", "message"),
    [
        ("query_id\tkind\nt00\todd\n", "kind = 0.1", "no kind for 23 topics"),
        ("id\tkind\nt00\todd\n", "kind = 0.1", "query_id and one more are needed"),
        (None, "knid = 0.1", "unknown column of slices 'knid'. Did you mean 'kind'"),
        (None, '"kind=od" = 0.1', "unknown slice 'kind=od'. Did you mean 'kind=odd'"),
        ("", "kind = 0.1", "tab-separated"),
        ("query_id\tkind\nt00\todd\nt00\teven\n", "kind = 0.1", "'t00' stands here a second time"),
        ("query_id\tkind\n" + "".join(f"{t}\t\n" for t in TOPICS), "kind = 0.1", "no kind for 24 topics"),
        ("query_id\tkind\nt00\todd\tmore\n", "kind = 0.1", "tab-separated"),
    ],
)
def test_bad_slices(toml: Toml, tmp_path: Path, table: str | None, margins: str, message: str) -> None:
    if table is not None:
        (tmp_path / "topics.tsv").write_text(table)
    text = f'slices = "topics.tsv"\n{BASIC}[checks.slice_margin]\n{margins}\n'
    with pytest.raises(InputError, match=re.escape(message)):
        gate(toml(text, accept=False), accept=True)


# -- reports -------------------------------------------------------------------------------------------------

_checks = st.lists(
    st.builds(
        Check,
        st.text(max_size=8),
        st.text(max_size=30),
        st.sampled_from(["pass", "fail", "inconclusive"]),
        st.floats() | st.text(max_size=5) | st.none(),
        st.floats() | st.none(),
        st.text(max_size=40),
        st.none() | st.tuples(st.floats(), st.floats()),
    ),
    max_size=4,
)


@settings(max_examples=50, deadline=None)
@given(_checks, st.lists(st.text(max_size=20), max_size=2))
def test_reports_hold_whatever_text_there_is(checks: list[Check], notes: list[str]) -> None:
    gated = Gated(checks, notes)
    root = ElementTree.fromstring(junit(gated).encode())
    cases = root.findall("testsuite/testcase")
    assert len(cases) == len(checks) == int(root.attrib["tests"])
    assert len(root.findall(".//failure")) == int(root.attrib["failures"])
    assert len(root.findall(".//error")) == int(root.attrib["errors"])
    assert json.loads(json.dumps(gated.to_json(), allow_nan=False))["verdict"] == gated.verdict
    rows = [line for line in markdown(gated).split("\n") if line.startswith("| ")]
    assert len(rows) == 1 + len(checks)
    assert all(len(re.findall(r"(?<!\\)(?:\\\\)*\|", row)) == 6 for row in rows)


def test_junit_is_red_for_what_did_not_pass() -> None:
    checks = [
        Check("margin", "a", "pass", 0.1, 0.0),
        Check("margin", "b\x00\x1b[31m\ud800", "fail", -0.5, 0.0, "<why> & \x0b"),
        Check("margin", "c", "inconclusive", math.nan, 0.0, "who knows"),
    ]
    text = junit(Gated(checks))
    root = ElementTree.fromstring(text.encode())
    good, bad, unknown = root.findall("testsuite/testcase")
    assert [child.tag for child in good] == ["system-out"]
    failure = bad.find("failure")
    assert failure is not None
    assert failure.text == "<why> & \ufffd"
    assert bad.attrib["name"] == "b\ufffd\ufffd[31m\ufffd"
    error = unknown.find("error")
    assert error is not None
    assert error.attrib["message"] == "c: value none, threshold 0.0000"


def test_markdown_keeps_marks_out_of_force_and_the_worst_first() -> None:
    checks = [Check("x", "fine", "pass", 1.0, 1), Check("x", "a|b <img> [l](u) `c`\nd", "fail", "v", None)]
    text = markdown(Gated(checks, ["note | *"]))
    assert text.splitlines()[0] == "## stopgap gate: fail"
    first, second = text.splitlines()[6:8]
    assert first == "| a\\|b &lt;img&gt; \\[l\\](u) \\`c\\` d | **fail** | v |  |  |"
    assert second == "| fine | pass | 1.0000 | 1 |  |"
    assert text.endswith("- note \\| \\*\n")


def test_words_say_why_and_what_was_written() -> None:
    checks = [Check("x", "fine", "pass", 1.0, 1), Check("x", "bad", "inconclusive", 1.0, 1, "Judge more.")]
    gated = Gated(checks, ["A note."], [Path("stopgap.lock.json")])
    assert gated.words().splitlines() == [
        "bad: inconclusive. Judge more.",
        "A note.",
        "Written: stopgap.lock.json. Commit it.",
        "The gate's verdict: inconclusive (1 inconclusive, 1 passed).",
    ]
    assert [row[0] for row in gated.rows()] == ["bad", "fine"]


def test_an_old_report_is_not_left_to_be_read(tmp_path: Path) -> None:
    settings_file, report, other = (tmp_path / name for name in ("stopgap.toml", "gate.xml", "gate.md"))
    settings_file.write_text("a = 1")
    gated = Gated([Check("x", "a", "pass", 1.0, 1.0)])
    write(report, junit(gated))
    write(other, markdown(gated))
    prepare(report, None, other)
    assert not report.exists()
    assert not other.exists()
    for bad in ([tmp_path], [tmp_path / "no" / "x.xml"], [report, report], [settings_file]):
        with pytest.raises(InputError):
            prepare(*bad)
    assert settings_file.exists()


# -- the gate of this repository, and the command line -------------------------------------------------------


@pytest.fixture
def demo_gate(tmp_path: Path) -> Path:
    """The settings of `tox -e gate`, without timings, for files in their places."""
    if not (ROOT / "gate").is_dir():
        pytest.skip("the gate's settings are not beside the tests")
    text = (ROOT / "gate" / "stopgap.toml").read_text(encoding="utf-8")
    text = text.partition("[checks.throughput]")[0].rpartition("\n\n")[0].replace('"../', f'"{ROOT}/')
    (tmp_path / "stopgap.toml").write_text(text)
    (tmp_path / "stopgap.lock.json").write_bytes((ROOT / "gate" / "stopgap.lock.json").read_bytes())
    return tmp_path / "stopgap.toml"


def test_the_embedded_collection_passes(demo_gate: Path) -> None:
    gated = gate(demo_gate)
    assert [(c.name, c.detail) for c in gated.checks if c.verdict != "pass"] == []
    assert {c.kind for c in gated.checks} == {
        *("accepted", "topics", "labeler", "margin", "slice_margin", "judged", "labeled_share", "agreement"),
        "circularity",
    }


def test_a_labeler_may_not_judge_its_relatives_unless_they_are_named(demo_gate: Path) -> None:
    text = demo_gate.read_text()
    assert 'allow_circular = ["hybrid"]' in text
    demo_gate.write_text(text.replace('allow_circular = ["hybrid"]', ""))
    gated = gate(demo_gate)
    assert [(c.name, c.value) for c in gated.checks if c.verdict != "pass"] == [
        ("circularity of hybrid", "shared")
    ]
    assert gated.exit_code == 1
    assert "L6-H384-uncased with minilm@" in by_name(gated)["circularity of hybrid"].detail
    assert by_name(gated)["circularity of bm25"].value == "apart"
    demo_gate.write_text(text.replace('["hybrid"]', '["hybird"]'))
    with pytest.raises(UnknownName, match="hybrid"):
        gate(demo_gate)


def test_a_floor_on_agreement_stops_the_embedded_gate(demo_gate: Path) -> None:
    demo_gate.write_text(demo_gate.read_text().replace("kappa = 0.0", "kappa = 0.9"))
    gated = gate(demo_gate)
    assert [c.name for c in gated.checks if c.verdict != "pass"] == ["agreement"]
    assert gated.exit_code == 1


def test_a_run_without_a_card_is_unknown_and_never_apart(toml: Toml, tmp_path: Path) -> None:
    labeled(tmp_path)
    found = by_name(gate(toml('labeler = "minilm"\n' + BASIC)))
    assert {found[f"circularity of {name}"].value for name in ("base", "new")} == {"unknown"}
    assert "not stated is" in found["circularity of new"].detail


def test_a_regression_planted_in_the_embedded_collection_fails(demo_gate: Path, tmp_path: Path) -> None:
    run = read_run(ROOT / "runs" / "demo" / "hybrid.run")
    relevant = read_qrels(ROOT / "qrels" / "demo" / "filled.qrels").filter(pl.col("relevance") > 0)
    down = run.join(relevant, on=["query_id", "doc_id"], how="left").with_columns(
        score=pl.col("score") - pl.col("relevance").is_not_null().cast(pl.Float64)
    )
    write_run(down.select("query_id", "doc_id", "score"), tmp_path / "hybrid.run", "hybrid")
    text = demo_gate.read_text()
    demo_gate.write_text(
        text.replace(str(ROOT / "runs" / "demo" / "hybrid.run"), str(tmp_path / "hybrid.run"))
    )
    gated = gate(demo_gate)
    assert gated.exit_code == 1
    assert by_name(gated)["nDCG@10 of hybrid"].verdict == "fail"


@pytest.mark.parametrize(("how", "code"), [({}, 0), ({"push": 4}, 1)])
def test_the_command(
    toml: Toml, tmp_path: Path, capsys: pytest.CaptureFixture[str], how: dict[str, int], code: int
) -> None:
    from harness.cli import main

    path = toml()
    (tmp_path / "new.run").write_text(run_text(**how))
    reports = [tmp_path / "gate.xml", tmp_path / "gate.md"]
    wanted = ["gate", str(path), "--junit", str(reports[0]), "--markdown", str(reports[1])]
    assert main([*wanted, "--json"]) == code
    found = json.loads(capsys.readouterr().out)
    assert found["verdict"] == ("fail" if code else "pass")
    assert {"name", "verdict", "value", "threshold"} <= set(found["checks"][0])
    assert ElementTree.parse(reports[0]).getroot().attrib["name"] == "stopgap gate"
    assert reports[1].read_text().startswith(f"## stopgap gate: {found['verdict']}")
    assert main(wanted) == code
    assert "The gate's verdict" in capsys.readouterr().out


def test_the_command_without_settings_or_lock(
    toml: Toml, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness.cli import main

    monkeypatch.chdir(tmp_path)
    assert main(["gate"]) == 2
    assert "stopgap.toml: no such file" in capsys.readouterr().err
    toml(accept=False)
    report = tmp_path / "gate.xml"
    write(report, junit(Gated([])))
    assert main(["gate", "--junit", "gate.xml"]) == 2
    assert "Next: stopgap gate stopgap.toml --accept" in capsys.readouterr().err
    assert not report.exists()
    assert main(["gate", "--accept"]) == 0
    assert "stopgap.lock.json. Commit it." in capsys.readouterr().out
    assert main(["gate"]) == 0


def test_the_documented_settings_are_read(tmp_path: Path) -> None:
    page = ROOT / "docs" / "gate.md"
    if not page.is_file():
        pytest.skip("the documentation is not beside the tests")
    example = page.read_text(encoding="utf-8").partition("```toml\n")[2].partition("```")[0]
    (tmp_path / "stopgap.toml").write_text(example)
    checks = read_settings(tmp_path / "stopgap.toml").checks
    assert set(checks.model_fields_set) == set(type(checks).model_fields), "a key is not documented"
