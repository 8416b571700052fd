"""The story of `stopgap demo`: true to the collection, honest whichever way it ends, and pleasant to read."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from harness import demo as module
from harness._render import plain_table
from harness.collection import open_collection
from harness.compare import Comparison
from harness.demo import BASE, CANDIDATE, Step, demo, story
from harness.errors import MissingExtra
from harness.trec import read_run, write_qrels

ROOT = Path(__file__).resolve().parent.parent
TITLES = ["The holes", "The stopgaps", "The scores, with the labels in the holes", "The check"]
TITLES.append("Next, on your own files")


def shown(steps: list[Step]) -> list[str]:
    """The lines as a terminal gets them."""
    text = ""
    for step in steps:
        table = f"\n{plain_table(step.columns, step.rows)}\n" if step.columns else ""
        text += "\n".join(part for part in (step.title, step.text, table, step.note) if part) + "\n\n"
    return text.splitlines()


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Step]]:
    """The story with the stored runs and a labeler that gives the assessors' own grades."""
    pytest.importorskip("deltalake")
    folder = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STOPGAP_CACHE", str(folder / "cache"))
        collection = open_collection("demo")
        write_qrels(collection.qrels(), folder / "truth.txt")
        runs = {name: read_run(ROOT / "runs" / "demo" / f"{name}.run") for name in (BASE, CANDIDATE)}
        yield list(story(collection, runs, f"lookup:{folder / 'truth.txt'}"))


def test_the_steps_in_order(told: list[Step]) -> None:
    assert [step.title for step in told] == TITLES


def test_the_holes_are_the_candidate_s(told: list[Step]) -> None:
    assert told[0].columns == ("run", "judged@10", "holes")
    base, candidate = told[0].rows
    assert base == (BASE, "1.000", 0)
    assert candidate[0] == CANDIDATE
    assert candidate[2] > 50


def test_every_hole_is_labeled_and_three_are_shown(told: list[Step]) -> None:
    holes = told[0].rows[1][2]
    assert f"labels {holes} of {holes} holes" in " ".join(told[1].text.split())
    assert len(told[1].rows) == 3
    assert all(0.0 <= float(str(gain)) <= 3.0 for _, _, gain in told[1].rows)


def test_scores_say_how_much_of_them_is_labels(told: list[Step]) -> None:
    base, candidate = told[2].rows
    assert base[-2:] == ("1.000", "0.000")
    assert candidate[-2] == "1.000"
    assert float(str(candidate[-1])) > 0.2


def test_the_check_sets_three_ways_side_by_side(told: list[Step]) -> None:
    check = told[3]
    assert [row[:2] for row in check.rows] == [
        (measure, way) for measure in module.MEASURES for way in ("zeros", "labels", "assessors")
    ]
    by_way = {row[1]: row for row in check.rows[:3]}
    assert float(str(by_way["zeros"][4])) < float(str(by_way["assessors"][4])), "holes cost the candidate"
    words = " ".join(check.note.split())
    assert "share an encoder" in words
    assert "The interval with labels contains what they may get wrong together" in words


def test_it_ends_with_four_commands(told: list[Step]) -> None:
    commands = told[-1].text.splitlines()
    assert [line.split()[:2] for line in commands] == [
        ["stopgap", "holes"],
        ["stopgap", "fill"],
        ["stopgap", "measure"],
        ["stopgap", "compare"],
    ]


def test_it_fits_a_screen_and_a_half(told: list[Step]) -> None:
    lines = shown([module._question(open_collection("demo")), *told])
    assert len(lines) <= 70
    assert max(map(len, lines)) <= 92


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str], told: list[Step]) -> None:
    assert told
    assert capfd.readouterr() == ("", "")


# -- whichever way it comes out ------------------------------------------------------------------------------


def found(verdict: str, delta: float = 0.1) -> Comparison:
    return Comparison(
        base=0.5,
        candidate=0.5 + delta,
        delta=delta,
        ci=(delta - 0.1, delta + 0.1),
        label_ci=None,
        p=0.2,
        p_adjusted=0.2,
        t_p=0.2,
        wilcoxon_p=0.2,
        effect=0.3,
        detectable=0.1,
        topics_needed=30,
        wins=9,
        ties=1,
        losses=4,
        topics=14,
        bounds=None,
        flips=None,
        margin=None,
        noninferior=None,
        verdict=verdict,
        why="",
    )


@pytest.mark.parametrize(
    ("zeros", "labels", "assessors", "words"),
    [
        ("worse", "better", "better", "the labels lead to the assessors' verdict, better; zeros say worse."),
        ("better", "better", "better", "zeros and labels both lead to the assessors' verdict, better."),
        (
            "worse",
            "better",
            "worse",
            "the labels mislead: they say better, the assessors worse",
        ),
        (
            "worse",
            "better",
            "inconclusive",
            "inconclusive; zeros say worse and the labels better, both wrong",
        ),
    ],
)
def test_the_outcome_says_who_was_right(zeros: str, labels: str, assessors: str, words: str) -> None:
    ways = {"zeros": found(zeros), "labels": found(labels), "assessors": found(assessors)}
    assert words in module._outcome("AP", ways)


@pytest.mark.parametrize(("labels", "words"), [(0.15, "0.050 too high"), (0.08, "0.020 too low"), (0.1, "")])
def test_the_outcome_says_how_far_the_labels_were_off(labels: float, words: str) -> None:
    ways = {"zeros": found("better"), "labels": found("better", labels), "assessors": found("better")}
    said = module._outcome("AP", ways)
    assert words in said
    assert ("too" in said) == bool(words)


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        ("better", "hybrid is better than bm25"),
        ("worse", "hybrid is worse than bm25"),
        ("equivalent", "hybrid equals bm25"),
        ("inconclusive", "hybrid may be better or worse than bm25"),
    ],
)
def test_a_verdict_as_a_sentence(verdict: str, words: str) -> None:
    said = module._said("AP", found(verdict))
    assert said.startswith(f"By AP, {words}: +0.100, 95 % interval +0.000 to +0.200")
    assert said.endswith("9 topics won and 4 lost.")


# -- the whole -----------------------------------------------------------------------------------------------


def test_a_missing_package_is_said_before_anything_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        module, "find_spec", lambda name: None if name == "deltalake" else find_spec("polars")
    )
    monkeypatch.setattr(module, "open_collection", lambda _: pytest.fail("something was done"))
    with pytest.raises(MissingExtra, match=r"deltalake is not installed.*stopgap\[demo\]"):
        next(demo())


@pytest.mark.slow
def test_the_whole_demo_with_the_embedded_labeler() -> None:
    for package in module._PACKAGES:
        pytest.importorskip(package)
    calls: list[tuple[int, int | None]] = []
    steps = list(demo(progress=lambda done, total: calls.append((done, total))))
    assert [step.title for step in steps] == ["May hybrid replace bm25?", *TITLES]
    check = {(row[0], row[1]): row[-1] for row in steps[-2].rows}
    assert check["P@10", "zeros"] == "worse"
    assert check["P@10", "assessors"] == "better"
    assert any(done == total for done, total in calls)
