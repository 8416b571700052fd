"""The verb `agree`: what scripts rely on, what a person reads, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness import cli

KEYS = {
    *("labeler", "pairs", "missing", "kappa", "kappa_binary", "kappa_quadratic", "alpha_ordinal", "mae"),
    *("pairwise_accuracy", "ci", "confusion", "notes"),
}
TOPICS = [f"t{n:02}" for n in range(12)]


def grade(topic: int, document: int) -> int:
    return (topic * 7 + document * 5) % 4


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    pairs = [(t, d, grade(n, d)) for n, t in enumerate(TOPICS) for d in range(10)]
    near = [(t, d, g if d % 4 else max(0, g - 1)) for t, d, g in pairs]
    for name, rows in {"human": pairs, "near": near, "far": [(t, d, 3 - g) for t, d, g in pairs]}.items():
        (tmp_path / f"{name}.txt").write_text("".join(f"{t} 0 d{d} {g}\n" for t, d, g in rows))
    for name, step in {"a": 1, "b": 3, "c": 7}.items():
        lines = [f"{t} Q0 d{d} 0 {10 - (d * step) % 10} {name}\n" for t in TOPICS for d in range(10)]
        (tmp_path / f"{name}.run").write_text("".join(lines))
    return tmp_path


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = cli.main(["agree", *arguments])
    told = capsys.readouterr()
    return code, told.out, told.err


def test_json_of_one_labeler(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "--human", "human.txt", "--labels", "near.txt", "--json")
    told = json.loads(out)
    assert code == 0
    assert set(told) >= KEYS
    assert (told["labeler"], told["pairs"], told["missing"]) == ("near", 120, 0)
    assert set(told["pairwise_accuracy"]) == {"strict", "half_ties"}
    low, high = told["ci"]["kappa"]
    assert low < told["kappa"] < high
    assert sum(map(sum, told["confusion"])) == 120
    assert call(capsys, "--human", "human.txt", "--labels", "near.txt", "--json")[1] == out


def test_json_of_several_and_of_a_second_assessor(capsys: pytest.CaptureFixture[str]) -> None:
    files = ["--labels", "near.txt", "--labels", "far.txt", "--second", "near.txt"]
    told = json.loads(call(capsys, "--human", "human.txt", *files, "--json")[1])
    assert set(told["labelers"]) == {"near", "far"}
    assert told["pairwise"][0]["kappa_gap"] > 0
    assert told["labelers"]["near"]["of_ceiling"]["kappa"] == pytest.approx(1.0)
    assert told["ceiling"]["pairs"] == 120


def test_runs_are_ordered_by_both(capsys: pytest.CaptureFixture[str]) -> None:
    files = ["a.run", "b.run", "c.run", "--human", "human.txt", "--labels", "human2.txt", "-m", "nDCG@5"]
    Path("human2.txt").write_text(Path("human.txt").read_text())
    told = json.loads(call(capsys, *files, "--json")[1])
    assert told["orderings"]["nDCG@5"]["kendall_tau"] == pytest.approx(1.0)
    code, out, err = call(capsys, *files)
    assert (code, err) == (0, "")
    assert "How the labels order the runs" in out


def test_a_person_reads_tables_and_the_ceiling(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(capsys, "--human", "human.txt", "--labels", "far.txt", "--second", "near.txt")
    assert (code, err) == (0, "")
    assert "kappa, quadratic weights" in out
    assert "second assessor" in out
    assert "labeled 3" in out


def test_pairs_without_a_label_are_counted_and_never_scored(capsys: pytest.CaptureFixture[str]) -> None:
    lines = Path("human.txt").read_text().splitlines(keepends=True)
    Path("part.txt").write_text("".join(lines[:100]))
    told = json.loads(call(capsys, "--human", "human.txt", "--labels", "part.txt", "--json")[1])
    assert (told["pairs"], told["missing"], told["kappa"]) == (100, 20, 1.0)
    assert "20 of 120 judged pairs have no label" in told["notes"][0]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--labels", "human.txt"], "agree with themselves"),
        (["--labels", "nowhere.txt"], "nowhere.txt"),
        (
            ["--labels", "near.txt", "--labels", "sub/near.txt"],
            "the labels are named 'near', as are near.txt",
        ),
        (["--labels", "near.txt", "-m", "AP"], "no run is given"),
        (["a.run", "--labels", "near.txt"], "two runs"),
        (["--labels", "wide.txt"], "not on the assessors' scale: 7"),
        (["--labels", "other.txt"], "no label of a pair"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    capsys: pytest.CaptureFixture[str], arguments: list[str], told: str
) -> None:
    Path("sub").mkdir()
    near = Path("near.txt").read_text()
    Path("sub/near.txt").write_text(near)
    Path("wide.txt").write_text(near + "t00 0 d99 7\n")
    Path("other.txt").write_text(near.replace(" d", " x"))
    if "wide.txt" in arguments:
        Path("human.txt").write_text(Path("human.txt").read_text() + "t00 0 d99 1\n")
    code, out, err = call(capsys, "--human", "human.txt", *arguments)
    assert (code, out) == (2, "")
    assert told in err
    assert "did not foresee" not in err


def test_a_wider_scale_is_taken_as_the_refusal_says(capsys: pytest.CaptureFixture[str]) -> None:
    Path("wide.txt").write_text(Path("near.txt").read_text() + "t00 0 d99 7\n")
    Path("human.txt").write_text(Path("human.txt").read_text() + "t00 0 d99 1\n")
    files = ["--human", "human.txt", "--labels", "wide.txt"]
    code, _, err = call(capsys, *files)
    assert (code, "Next: --grades 0,1,2,3,7" in err) == (2, True)
    told = json.loads(call(capsys, *files, "--grades", "0,1,2,3,7", "--json")[1])
    assert told["grades"] == [0, 1, 2, 3, 7]
    assert call(capsys, *files, "--grades", "all")[0] == 2
