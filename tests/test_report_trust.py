"""What agree, simulate and diagnose said, on the page: as it was said, and safe."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from harness.cli import main
from harness.report_trust import trust

TOPICS = [f"t{n}" for n in range(6)]


def words(saved: list[dict[str, Any]]) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", str(trust(saved))))


def test_nothing_said_is_no_section() -> None:
    assert trust([]) is None


def test_figures_are_shown_as_they_are_and_what_is_missing_is_left_out() -> None:
    one = {
        "labeler": "gpt",
        "pairs": 1204,
        "missing": 3,
        "kappa": 0.33851,
        "kappa_binary": None,
        "pairwise_accuracy": {"half_ties": 0.81},
        "ci": {"kappa": [0.27, 0.4]},
        "ceiling": {"kappa": 0.61},
        "notes": ["3 of 1,207 judged pairs have no label"],
    }
    told = words([one])
    assert "gpt : 1,204 pairs that both graded; 3 have no label and count in nothing" in told
    assert "kappa 0.339 0.270 to 0.400 0.610" in told
    assert "documents in order 0.810" in told
    assert "relevant or not" not in told
    assert "3 of 1,207 judged pairs have no label" in told


def test_names_and_notes_cannot_act() -> None:
    hostile = "<script>alert(1)</script>"
    one = {"labeler": hostile, "pairs": 1, "missing": 0, "kappa": 1.0, "notes": [hostile]}
    assert "<script" not in str(trust([one]))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    grades = {(t, d): (n * 5 + d * 3) % 4 for n, t in enumerate(TOPICS) for d in range(8)}
    Path("human.txt").write_text("".join(f"{t} 0 d{d} {g}\n" for (t, d), g in grades.items()))
    Path("gpt.txt").write_text("".join(f"{t} 0 d{d} {max(0, g - d % 2)}\n" for (t, d), g in grades.items()))
    for name, step in {"a": 1, "b": 3, "c": 5}.items():
        lines = [f"{t} Q0 d{(d * step + 2) % 8} 0 {9 - d} {name}\n" for t in TOPICS for d in range(5)]
        Path(f"{name}.run").write_text("".join(lines))
    return tmp_path


@pytest.mark.usefixtures("folder")
def test_the_verbs_own_json_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    runs = ["a.run", "b.run", "c.run"]
    asked = {
        "agree": ["--human", "human.txt", "--labels", "gpt.txt"],
        "simulate": [
            *runs,
            "--qrels",
            "human.txt",
            "--labels",
            "gpt.txt",
            "--leave-out",
            "run",
            "--depth",
            "3",
        ],
        "diagnose": [*runs, "--human", "human.txt", "--labels", "gpt.txt"],
    }
    for verb, arguments in asked.items():
        assert main([verb, *arguments, "--json"]) == 0
        Path(f"{verb}.json").write_text(capsys.readouterr().out)
    saved = {verb: json.loads(Path(f"{verb}.json").read_text()) for verb in asked}
    given = [part for verb in asked for part in ("--trust", f"{verb}.json")]
    assert main(["report", "a.run", "b.run", "--qrels", "human.txt", "--out", "page.html", *given]) == 0
    page = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", Path("page.html").read_text()))
    assert "May the labels be believed?" in page
    assert f"kappa {saved['agree']['kappa']:.3f}" in page
    for fill in saved["simulate"]["fills"]:
        assert f" {fill} " in page
    assert saved["diagnose"]["notes"]
    for note in saved["diagnose"]["notes"]:
        assert re.sub(r"\s+", " ", note)[:40] in page.replace("&#x27;", "'").replace("&quot;", '"')


@pytest.mark.usefixtures("folder")
def test_another_file_is_refused_before_the_page_is_made(capsys: pytest.CaptureFixture[str]) -> None:
    Path("other.json").write_text('{"measures": {}}')
    wanted = ["report", "a.run", "b.run", "--qrels", "human.txt", "--out", "page.html"]
    assert main([*wanted, "--trust", "other.json"]) == 2
    assert "other.json: is not what agree, simulate or diagnose prints" in capsys.readouterr().err
    assert not Path("page.html").exists()
