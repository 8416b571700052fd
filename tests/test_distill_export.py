"""The exported folder: whole or not at all, and it answers as the student that was tested."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from harness.errors import LabelerError, UsageError
from harness.frames import PAIRS
from harness.labeling import Labeler, load, signals
from labelers.distill import export as module
from labelers.distill.calibration import Calibration
from labelers.distill.export import PLACE, Trained, export
from labelers.distill.sections import Export
from labelers.distill.speed import compare_speed, machine
from labelers.labeler_file import read_labeler

GRADES = {0: "no", 1: "related", 2: "good"}
SAMPLE = pl.DataFrame(
    [(f"q{i // 10}", f"d{i}", f"query {i // 10}", f"text {i}") for i in range(40)], PAIRS, orient="row"
)
CALIBRATION = Calibration(
    grades=(0, 1, 2), inputs=("probs >= 1", "probs >= 2"), center=(0.0, 0.0), scale=(4.0, 4.0),
    weights=(1.0, 1.0), cuts=(0.3, -1.0), variance=0.3, thresholds=(0.7, 1.3), judgments=90, topics=9,
    judgments_hash="b" * 64,
)  # fmt: skip
SECTION = Export(pairs=16, licence="CC BY 4.0")


@pytest.fixture
def trained(tmp_path: Path) -> Trained:
    """A student of one file, and what training leaves beside it."""
    folder = tmp_path / "work" / "student"
    (folder / "checkpoint-7").mkdir(parents=True)
    (folder / "checkpoint-7" / "model.safetensors").write_text("old")
    (folder / "optimizer.pt").write_text("old")
    (folder / "q.txt").write_text("".join(f"q{i // 10} 0 d{i} {i % 3}\n" for i in range(40)))
    card = {"base model": "a/base", "teacher": ["gpt-4"], "training data": ["llmjudge"]}
    return Trained(folder, "lookup:FOLDER/q.txt", card, {"seed": 7}, "Grade {document} for {query}.")


@pytest.fixture
def accepted(trained: Trained) -> dict[str, Any]:
    student = load(trained.spec, GRADES)
    one = {
        "who": "m@1",
        "how": "calibrated",
        "pairs": 90,
        "threshold": 1,
        "values": {"kappa": 0.41},
        "ci": {"kappa": (0.3, 0.5)},
    }
    return {
        "format": 1,
        "accepted": True,
        "why": ["the student is better than BM25: kappa is +0.100"],
        "notes": [],
        "criterion": "kappa",
        "student": "lookup@1",
        "fingerprint": student.fingerprint,
        "resamples": 200,
        "test": {"collection": "dl19", "topics": 9, "pairs": 90},
        "contenders": {"student": one, "BM25": one},
        "gaps": {"BM25": {"delta": 0.1, "ci": [0.05, 0.2]}},
        "absent": {},
        "calibration": CALIBRATION.to_json(),
    }


class Slow:
    """A teacher that can be timed, and that tells what it cost."""

    name, fingerprint, needs_text, grades = "slow", "51", True, GRADES

    def __init__(self, used: dict[str, Any]) -> None:
        self.used, self.asked = used, 0

    def signal(self, pairs: pl.DataFrame) -> pl.DataFrame:
        self.asked += pairs.height
        return pairs.select("query_id", "doc_id", probs=None, score=pl.lit(1.0), labeler=None, reason=None)

    def usage(self) -> dict[str, Any]:
        return {name: v if isinstance(v, str) else v * self.asked for name, v in self.used.items()}


def test_the_folder_answers_as_the_student_with_its_calibration(
    trained: Trained, accepted: dict[str, Any], tmp_path: Path
) -> None:
    out = tmp_path / "out" / "my labeler"
    found = export(SECTION, trained, accepted, out, GRADES, SAMPLE, teacher="human")
    labeler = load(str(out), GRADES)
    assert found["labeler"] == f"my-labeler+lookup@{labeler.fingerprint[:8]}"
    assert found["moved"] == 0
    mine = signals(labeler, SAMPLE)
    raw = signals(load(trained.spec, GRADES), SAMPLE)
    assert mine["probs"].to_list()[:3] == [
        pytest.approx(p, abs=1e-6) for p in CALIBRATION.probs(raw)[:3].tolist()
    ]
    held = sorted(p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file())
    assert held == ["README.md", "acceptance.md", "labeler.json", "model/q.txt"]
    assert [p.name for p in out.parent.iterdir()] == [out.name]
    told = read_labeler(out)
    assert told.spec == "lookup:{folder}/model/q.txt"
    assert list(told.files) == ["model/q.txt"]
    assert told.card["teacher"] == ["gpt-4"]
    assert told.acceptance["contenders"]["student"]["values"]["kappa"] == 0.41
    assert str(tmp_path) not in (out / "labeler.json").read_text()


def test_the_card_is_for_people(trained: Trained, accepted: dict[str, Any], tmp_path: Path) -> None:
    export(SECTION, trained, accepted, tmp_path / "out", GRADES, SAMPLE)
    text = (tmp_path / "out" / "README.md").read_text()
    for said in (
        *("# out", "| 2 | good |", "base model: a/base", "teacher: gpt-4", "training data: llmjudge"),
        *("licence of the training data: CC BY 4.0", "90 human judgments of 9 topics", "seed: 7"),
        *("**Accepted** on 90 human judgments", "0.410 [0.300, 0.500]", "+0.100 [+0.050, +0.200]"),
        *("Grade {document}", f"on {machine()['cpu']}", "No ratio to the teacher: no teacher was named."),
    ):
        assert said in text, said


def test_exporting_again_replaces_a_labeler_and_nothing_else(
    trained: Trained, accepted: dict[str, Any], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    first = export(SECTION, trained, accepted, out, GRADES, SAMPLE)
    (out / "old").touch()
    assert export(SECTION, trained, accepted, out, GRADES, SAMPLE)["labeler"] == first["labeler"]
    assert not (out / "old").exists()
    mine = tmp_path / "mine"
    mine.mkdir()
    assert export(SECTION, trained, accepted, mine, GRADES, SAMPLE)
    thesis = tmp_path / "thesis"
    thesis.mkdir()
    (thesis / "chapter.tex").touch()
    for stranger in (thesis, thesis / "chapter.tex"):
        with pytest.raises(UsageError, match="no labeler that stopgap exported, so it is not written over"):
            export(SECTION, trained, accepted, stranger, GRADES, SAMPLE)
    assert (thesis / "chapter.tex").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine", "out", "thesis", "work"]


def test_what_was_not_accepted_is_not_exported(
    trained: Trained, accepted: dict[str, Any], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with pytest.raises(UsageError, match="was not accepted, so it is not exported:\n  too bad"):
        export(SECTION, trained, {**accepted, "accepted": False, "why": ["too bad"]}, out, GRADES, SAMPLE)
    with pytest.raises(UsageError, match="there is no verdict"):
        export(SECTION, trained, {}, out, GRADES, SAMPLE)
    (trained.folder / "q.txt").write_text("q0 0 d0 1\n")
    with pytest.raises(UsageError, match="is not the one that was accepted"):
        export(SECTION, trained, accepted, out, GRADES, SAMPLE)
    assert not out.exists()


def test_a_failure_leaves_the_old_folder_and_nothing_beside_it(
    trained: Trained, accepted: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    export(SECTION, trained, accepted, out, GRADES, SAMPLE)
    before = (out / "labeler.json").read_bytes()

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "compare_speed", killed)
        with pytest.raises(KeyboardInterrupt):
            export(SECTION, trained, accepted, out, GRADES, SAMPLE)
    assert (out / "labeler.json").read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "work"]


def test_a_folder_that_answers_otherwise_is_not_exported(
    trained: Trained, accepted: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other(kind: str, folder: Path) -> str:
        (folder / "q.txt").write_text("".join(f"q{i // 10} 0 d{i} {(i + 1) % 3}\n" for i in range(40)))
        return "none"

    monkeypatch.setattr(module, "_int8", other)
    with pytest.raises(LabelerError, match=r"gives \d+\.\d% of 16 pairs another grade than the student"):
        export(SECTION, trained, accepted, tmp_path / "out", GRADES, SAMPLE)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["work"]


def test_an_adapter_s_base_is_copied_where_it_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text("{}")
    (tmp_path / "student").mkdir()
    (tmp_path / "student" / "adapter_model.safetensors").write_text("x")
    named = f"hf:{tmp_path / 'base'}?adapter={PLACE}&prompt=umbrela"
    made = tmp_path / "made"
    spec = module._fill(made, Trained(tmp_path / "student", named))
    assert spec == "hf:{folder}/base?adapter={folder}/model&prompt=umbrela"
    assert (made / "base" / "config.json").exists()
    spec = module._fill(tmp_path / "hub", Trained(tmp_path / "student", f"hf:one/model?adapter={PLACE}"))
    assert spec == "hf:one/model?adapter={folder}/model"
    assert not (tmp_path / "hub" / "base").exists()


# -- speed ---------------------------------------------------------------------------------------------------


@pytest.fixture
def student() -> Labeler:
    return Slow({})  # type: ignore[return-value]


def test_speed_is_told_beside_the_teacher_s(student: Labeler) -> None:
    teacher = Slow({})
    found = compare_speed(student, teacher, SAMPLE)  # type: ignore[arg-type]
    assert found["pairs"] == 40
    mine, theirs = (found[who]["pairs_per_second"] for who in ("student", "teacher"))
    assert found["ratio"] == pytest.approx(mine / theirs, rel=0.01)
    assert found["cost"] == {"ratio": found["ratio"], "by": "time", "why": "both run on this machine"}
    assert found["machine"]["cores"] >= 1


def test_costs_in_money(student: Labeler) -> None:
    teacher = Slow({"requests": 1, "cost": 0.002, "currency": "EUR"})
    found = compare_speed(student, teacher, SAMPLE, machine_hour=0.36)  # type: ignore[arg-type]
    cost = found["cost"]
    assert cost["teacher_per_1000_pairs"] == pytest.approx(2.0)
    assert cost["student_per_1000_pairs"] == pytest.approx(
        0.1 / found["student"]["pairs_per_second"], rel=0.01
    )
    assert cost["currency"] == "EUR"
    without = compare_speed(student, teacher, SAMPLE)["cost"]  # type: ignore[arg-type]
    assert without["ratio"] is None
    assert "machine_hour" in without["why"]
    free = compare_speed(student, Slow({"requests": 1}), SAMPLE)["cost"]  # type: ignore[arg-type]
    assert free == {"ratio": None, "why": "the teacher runs elsewhere and was given no prices"}


def test_a_teacher_that_cannot_be_timed(student: Labeler) -> None:
    found = compare_speed(student, load("constant:1", GRADES), SAMPLE)
    assert (found["teacher"], found["ratio"]) == (None, None)
    assert found["why"] == "constant looks at no text, so its speed says nothing"

    class Broken(Slow):
        def signal(self, pairs: pl.DataFrame) -> pl.DataFrame:
            raise LabelerError("no server at all")

    assert compare_speed(student, Broken({}), SAMPLE)["why"] == "no server at all"  # type: ignore[arg-type]
