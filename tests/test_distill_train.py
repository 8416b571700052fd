"""Training: the loop, its checkpoints, students that labelers load. The models are tiny and made here."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from harness.errors import InputError, LabelerError, MissingExtra, StopgapWarning, UsageError
from labelers.distill import students
from labelers.distill.checkpoints import Checkpoints
from labelers.distill.students import Group, build
from labelers.distill.train import LOG, STUDENT, train
from labelers.distill.train_data import Taught
from labelers.distill.train_log import agreement
from labelers.distill.train_settings import Lora, Train, Warmup
from labelers.distill.trainer import Phase, Trainer
from labelers.distill.warmup import unlabelled, warmup_phase
from tiny_models import GRADES, SMALL, byte_level, random_model, word_pieces

torch = pytest.importorskip("torch", reason="needs the extra train")
pytest.importorskip("transformers", reason="needs the extra train")
pytest.importorskip("peft", reason="needs the extra train")

WORDS = ["heron", "boat", "tree", "river", "nest", "wide", "stone", "sail", "egg", "mast"]
Pairs = list[Taught]
CUDA_LATER = "torch finds no CUDA here"


# So short a training often ends where it began.
pytestmark = pytest.mark.filterwarnings("ignore:no epoch did better")


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


# -- data and models -----------------------------------------------------------------------------------------


def taught_rows(number: int = 96) -> list[dict[str, Any]]:
    """Pairs that can be learnt: the grade is how many words of the query the text begins with."""
    rng = np.random.default_rng(0)
    rows = []
    for n in range(number):
        topic = n % 12
        words = [WORDS[(topic + k) % len(WORDS)] for k in range(3)]
        grade = n // 12 % 4
        filler = rng.choice(WORDS[5:], size=int(rng.integers(1, 9))).tolist()
        probs = np.full(4, 0.04)
        probs[grade] = 0.88
        rows.append(
            {
                "query_id": f"t{topic}",
                "doc_id": f"d{n}",
                "query": f"{' '.join(words)} {topic}",
                "text": " ".join(words[:grade] + ["far"] * (3 - grade) + filler),
                "probs": probs.tolist(),
                "reason": None,
                "source": "human" if topic % 2 else "synthetic",
                "found": "judged",
                "teachers": ["human"],
                "weight": 1.0,
            }
        )
    return rows


def pairs_of(rows: Sequence[dict[str, Any]]) -> list[Taught]:
    return [Taught(**{key: row[key] for key in Taught._fields}) for row in rows]


@pytest.fixture(scope="module")
def taught() -> list[Taught]:
    return pairs_of(taught_rows())


def bert(folder: Path, head: str = "Model", **settings: Any) -> Path:
    shape = {**SMALL, "num_attention_heads": 2, "intermediate_size": 48, "max_position_embeddings": 48}
    random_model(folder, "Bert", head, vocab_size=64, **shape, **settings)
    letters = "abcdefgh"
    word_pieces(folder, [*WORDS, "far", *map(str, range(12)), *letters, *(f"##{c}" for c in letters)])
    return folder


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bert(tmp_path_factory.mktemp("bert") / "encoder")


@pytest.fixture(scope="module")
def causal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("causal") / "tiny"
    template = (
        "{% for m in messages %}<|user|>{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}<|bot|>{% endif %}"
    )
    special = ["<s>", "<eos>", "<|user|>", "<|bot|>"]
    names = {"bos_token": "<s>", "eos_token": "<eos>"}
    byte_level(folder, [], 260, special=special, template=template, **names)
    shape = {**SMALL, "num_hidden_layers": 1, "max_position_embeddings": 2048, "initializer_range": 0.2}
    random_model(folder, "Llama", vocab_size=264, **shape)
    return folder


def settings(model: Path, **other: Any) -> Train:
    usual = {"tokens": 32, "batch": 8, "epochs": 2, "learning_rate": 3e-3, "dev_share": 0.2}
    usual["head_learning_rate"] = 3e-3
    return Train(**{"student": "cross-encoder", **usual, "model": str(model), **other})


def digest(folder: Path) -> str:
    return sha256((folder / STUDENT / "model.safetensors").read_bytes()).hexdigest()


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / LOG).read_text().splitlines()]


class Killed(BaseException):
    """In place of a kill, where the process should live on."""


def until(step: int) -> Callable[[int, int | None], None]:
    def progress(done: int, _: int | None) -> None:
        if done == step:
            raise Killed

    return progress


# -- a student in one line, for the loop alone ---------------------------------------------------------------


class Counting:
    """Logits are linear in how often each of WORDS is in the text."""

    by_query = False

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.module = torch.nn.Linear(len(WORDS), 4)
        self.told: list[list[Taught]] = []

    def groups(self) -> list[Group]:
        return [Group("body", [self.module.weight], 0.05), Group("head", [self.module.bias], 0.1)]

    def lengths(self, pairs: Sequence[Taught]) -> list[int]:
        return [len(pair.text) for pair in pairs]

    def logits(self, pairs: Sequence[Taught]) -> Any:
        if self.module.training:
            self.told.append(list(pairs))
        counts = [[float(pair.text.split().count(word)) for word in WORDS] for pair in pairs]
        return self.module(torch.tensor(counts))

    def save(self, folder: Path) -> str:
        torch.save(self.module.state_dict(), folder / "weights.pt")
        return "mine:FOLDER"


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> list[Counting]:
    """Trainings teach this student; the list has all that were built."""
    built: list[Counting] = []

    def make(*_: object) -> Counting:
        built.append(Counting())
        return built[-1]

    monkeypatch.setattr("labelers.distill.train.build", make)
    return built


def test_a_student_of_another_kind_is_taught_by_the_same_loop(
    counting: list[Counting], encoder: Path, taught: Pairs, tmp_path: Path
) -> None:
    told = train(settings(encoder, epochs=6, patience=6), taught, tmp_path, grades=GRADES)
    assert told["labeler"] == "mine:FOLDER"
    assert told["dev"]["loss"] < told["start"]["loss"]
    assert told["pairs"] == {"train": 80, "dev": 16}
    assert told["topics"] == {"train": 10, "dev": 2}
    assert told["steps"] == 6 * 10
    assert sorted(p.name for p in tmp_path.iterdir()) == [STUDENT, LOG]
    assert len(told["dev_topics"]) == 2
    seen = {pair.query_id for pairs in counting[0].told for pair in pairs}
    assert len(seen) == 10, "dev topics are not learnt from"


def test_the_log_says_what_happened(
    counting: list[Counting], encoder: Path, taught: Pairs, tmp_path: Path
) -> None:
    told = train(settings(encoder, epochs=3, ramp=0.2), taught, tmp_path, grades=GRADES)
    steps = [line for line in lines(tmp_path) if "loss" in line]
    epochs = [line for line in lines(tmp_path) if "dev_loss" in line]
    assert [line["step"] for line in steps] == list(range(1, 31))
    assert [line["epoch"] for line in epochs] == [0, 1, 2, 3]
    rates = [line["rate"] for line in steps]
    assert rates[:6] == pytest.approx([0.05 * n / 6 for n in range(1, 7)], rel=1e-5)
    assert rates[6:] == pytest.approx([0.05 * n / 24 for n in range(24, 0, -1)], rel=1e-5)
    assert epochs[told["best_epoch"]]["dev_auc"] == pytest.approx(told["dev"]["auc"], rel=1e-4)


def test_several_batches_in_a_step_weigh_as_one(tmp_path: Path, taught: Pairs, encoder: Path) -> None:
    """With weights that differ, and batches of different sizes."""
    pairs = taught
    weights = np.linspace(0.5, 3, len(pairs))
    found = []
    for micro in ([[*range(11)]], [[0, 1], [*range(2, 10)], [10]]):
        student = Counting()
        trainer = Trainer(student, settings(encoder), 0, Checkpoints(tmp_path), None)
        known = torch.tensor([pair.probs for pair in pairs])

        def loss(logits: Any, rows: Sequence[int], known: Any = known) -> Any:
            return -(known[list(rows)] * logits.log_softmax(1)).sum(1)

        value = trainer._step(Phase("p", pairs, weights, loss, 1), micro, trainer._optimizer())
        found.append((value, student.module.weight.detach().clone()))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-6)
    assert torch.allclose(found[0][1], found[1][1], atol=1e-6)


def test_training_ends_when_the_dev_topics_gain_no_more_and_leaves_the_best_epoch(
    counting: list[Counting],
    encoder: Path,
    taught: Pairs,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    after: list[Any] = []
    look = Trainer._look

    def spoilt(self: Trainer, *given: Any) -> None:
        if self._at.epoch > 2:  # from the third epoch on the student gets worse
            with torch.no_grad():
                self._student.module.bias.copy_(torch.tensor([50.0, 0, 0, 0]))
        look(self, *given)
        after.append(self._student.module.weight.detach().clone())

    monkeypatch.setattr(Trainer, "_look", spoilt)
    told = train(settings(encoder, epochs=9, patience=2), taught, tmp_path, grades=GRADES)
    assert (told["best_epoch"], told["epochs"], told["steps"]) == (2, 4, 40)
    kept = torch.load(tmp_path / STUDENT / "weights.pt", weights_only=True)
    assert torch.equal(kept["weight"], after[2])
    assert not torch.equal(kept["weight"], after[4])


def test_a_start_that_nothing_beats_is_kept_and_told(
    counting: list[Counting],
    encoder: Path,
    taught: Pairs,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Counting, "groups", lambda s: [Group("body", list(s.module.parameters()), 80.0)])
    with pytest.warns(StopgapWarning, match="no epoch did better"):
        told = train(settings(encoder), taught, tmp_path, grades=GRADES)
    assert told["best_epoch"] == 0
    assert told["dev"] == told["start"]


def test_without_dev_topics_all_epochs_are_run(
    counting: list[Counting], encoder: Path, taught: Pairs, tmp_path: Path
) -> None:
    told = train(settings(encoder, dev_share=0.0, epochs=3), taught, tmp_path, grades=GRADES)
    assert (told["epochs"], told["steps"], told["dev"], told["start"]) == (3, 36, None, None)


def test_a_loss_that_is_no_number_ends_it_with_a_clear_error(
    counting: list[Counting],
    encoder: Path,
    taught: Pairs,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    usual = Counting.logits

    def spoilt(self: Counting, pairs: Sequence[Taught]) -> Any:
        return usual(self, pairs) * (float("nan") if len(self.told) > 14 else 1.0)

    monkeypatch.setattr(Counting, "logits", spoilt)
    with pytest.raises(LabelerError, match=r"loss is nan .* step 15 of grades[\s\S]*smaller learning_rate"):
        train(settings(encoder), taught, tmp_path, grades=GRADES)
    assert not (tmp_path / STUDENT).exists()
    assert list(tmp_path.glob("training-*/*.pt")), "what was learnt before is kept"


def test_lce_takes_the_rows_of_a_query_together(encoder: Path, taught: Pairs) -> None:
    assert build(settings(encoder, loss="lce"), GRADES).by_query
    assert not build(settings(encoder), GRADES).by_query


# -- killed and gone on --------------------------------------------------------------------------------------

CHILD = """
    import json, os, signal, sys
    from pathlib import Path
    from labelers.distill.train import train
    from labelers.distill.train_data import Taught
    from labelers.distill.train_settings import Train

    def progress(done, total):
        if done == 13:
            os.kill(os.getpid(), signal.SIGKILL)

    given, out, model = map(Path, sys.argv[1:])
    taught = [Taught(**pair) for pair in json.loads(given.read_text())]
    rates = {"learning_rate": 3e-3, "head_learning_rate": 3e-3}
    rates |= {"student": "cross-encoder", "model": str(model), "dev_share": 0.2}
    given = Train(tokens=32, batch=8, epochs=2, checkpoint=4, **rates)
    grades = {0: "none", 1: "related", 2: "useful", 3: "exact"}
    train(given, taught, out, grades=grades, progress=progress)
"""


@pytest.mark.slow
def test_a_training_killed_by_the_system_goes_on_to_the_same_bits(
    encoder: Path, taught: Pairs, tmp_path: Path
) -> None:
    given = settings(encoder, checkpoint=4)
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(CHILD)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    rows = tmp_path / "taught.json"
    rows.write_text(json.dumps([pair._asdict() for pair in taught]))
    done = subprocess.run(
        [*command, str(rows), str(tmp_path / "killed"), str(encoder)], capture_output=True, env=environment
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert not (tmp_path / "killed" / STUDENT).exists()
    went_on = train(given, taught, tmp_path / "killed", grades=GRADES)
    whole = train(given, taught, tmp_path / "whole", grades=GRADES)
    assert (went_on["resumed_at"], whole["resumed_at"]) == (12, None)
    assert digest(tmp_path / "killed") == digest(tmp_path / "whole")
    assert (tmp_path / "killed" / LOG).read_bytes() == (tmp_path / "whole" / LOG).read_bytes()
    changing = ("resumed_at", "seconds")
    assert {k: v for k, v in went_on.items() if k not in changing} == {
        k: v for k, v in whole.items() if k not in changing
    }


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A labeler that gives scores: the words that query and text share."""
    folder = tmp_path_factory.mktemp("labeler")
    (folder / "shared_words.py").write_text(
        textwrap.dedent("""
            import polars as pl

            class Shared:
                name, fingerprint, needs_text = "shared", "0" * 64, True

                def __init__(self, grades):
                    self.grades = grades

                def signal(self, pairs):
                    score = [
                        None if t.endswith("mast") else float(len(set(q.split()) & set(t.split())))
                        for q, t in pairs.select("query", "text").iter_rows()
                    ]
                    return pairs.select("query_id", "doc_id").with_columns(
                        pl.lit(None, pl.List(pl.Float64)).alias("probs"), pl.Series("score", score)
                    )
        """)
    )
    sys.path.insert(0, str(folder))
    return "shared_words:Shared"


def test_a_kill_in_any_phase_or_after_the_last_step_changes_nothing(
    encoder: Path, taught: Pairs, tmp_path: Path, scored: str
) -> None:
    """In the warm-up, at its end, in the grades with dropout, and at their end, one after another."""
    given = settings(encoder, checkpoint=3, warmup=Warmup(labeler=scored, pairs=40), epochs=1, bf16=True)
    whole = train(given, taught, tmp_path / "whole", grades=GRADES, seed=5)
    for step in (4, 5, 9, whole["steps"]):
        with pytest.raises(Killed):
            train(given, taught, tmp_path / "killed", grades=GRADES, seed=5, progress=until(step))
    went_on = train(given, taught, tmp_path / "killed", grades=GRADES, seed=5)
    assert went_on["resumed_at"] > whole["steps"] - 3
    assert digest(tmp_path / "killed") == digest(tmp_path / "whole")
    assert lines(tmp_path / "killed") == lines(tmp_path / "whole")
    other = train(given, taught, tmp_path / "other", grades=GRADES, seed=6)
    assert digest(tmp_path / "other") != digest(tmp_path / "whole")
    assert other["made_of"] != whole["made_of"]


def test_a_broken_checkpoint_is_passed_over_for_the_one_before(
    counting: list[Counting], encoder: Path, taught: Pairs, tmp_path: Path
) -> None:
    given = settings(encoder, checkpoint=4)
    whole = train(given, taught, tmp_path / "whole", grades=GRADES)
    out = tmp_path / "broken"
    with pytest.raises(Killed):
        train(given, taught, out, grades=GRADES, progress=until(15))
    files = sorted(out.glob("training-*/*.pt"))
    assert [int(f.name[:8]) for f in files] == [10, 12]
    raw = bytearray(files[1].read_bytes())
    raw[len(raw) // 2] ^= 1
    files[1].write_bytes(raw)
    with pytest.warns(StopgapWarning, match="is broken: .* the one before is used"):
        told = train(given, taught, out, grades=GRADES)
    assert told["resumed_at"] == 10
    assert told["sha256"] == whole["sha256"]
    assert lines(out) == lines(tmp_path / "whole")


def test_another_training_meanwhile_changes_nothing(
    counting: list[Counting], encoder: Path, taught: Pairs, tmp_path: Path
) -> None:
    given, out = settings(encoder, checkpoint=4), tmp_path / "two"
    whole = train(given, taught, tmp_path / "whole", grades=GRADES)
    with pytest.raises(Killed):
        train(given, taught, out, grades=GRADES, progress=until(15))
    train(settings(encoder, epochs=4, balance=0.0), taught, out, grades=GRADES)
    told = train(given, taught, out, grades=GRADES)
    assert (told["resumed_at"], told["sha256"]) == (12, whole["sha256"])
    assert lines(out) == lines(tmp_path / "whole")
    assert sorted(p.name for p in out.iterdir()) == [STUDENT, LOG]


def test_where_no_checkpoint_is_whole_that_is_an_error_and_nothing_is_lost(
    counting: list[Counting], encoder: Path, taught: Pairs, tmp_path: Path
) -> None:
    given = settings(encoder, checkpoint=4)
    with pytest.raises(Killed):
        train(given, taught, tmp_path, grades=GRADES, progress=until(15))
    files = sorted(tmp_path.glob("training-*/*.pt"))
    for file in files:
        file.write_bytes(file.read_bytes()[:-100])
    (log,) = tmp_path.glob(f"training-*/{LOG}")
    before = log.read_bytes()
    with (
        pytest.warns(StopgapWarning, match="broken"),
        pytest.raises(InputError, match=r"none of its 2 checkpoints is whole[\s\S]*Next: delete"),
    ):
        train(given, taught, tmp_path, grades=GRADES)
    assert sorted(tmp_path.glob("training-*/*.pt")) == files
    assert log.read_bytes() == before


def test_a_file_that_is_no_checkpoint_of_ours_is_never_unpickled(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    evil = pickle.dumps(print, protocol=2)
    (tmp_path / f"00000001-{sha256(evil).hexdigest()[:16]}.pt").write_bytes(evil)
    with pytest.warns(StopgapWarning, match="broken"), pytest.raises(InputError, match="none of its 1"):
        checkpoints.last()
    assert Checkpoints(tmp_path / "none").last() is None


def test_the_last_two_checkpoints_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for number in (5, 12, 100):
        checkpoints.save(number, {"number": number})
    assert [int(p.name[:8]) for p in sorted(tmp_path.iterdir())] == [12, 100]
    assert checkpoints.last() == {"number": 100}


def test_progress_counts_steps_and_notes_the_loss(
    counting: list[Counting], encoder: Path, taught: Pairs, tmp_path: Path
) -> None:
    class Bar:
        def __init__(self) -> None:
            self.steps: list[tuple[int, int | None]] = []
            self.notes: list[str] = []

        def __call__(self, done: int, total: int | None) -> None:
            self.steps.append((done, total))

        def note(self, text: str) -> None:
            self.notes.append(text)

    bar = Bar()
    train(settings(encoder), taught, tmp_path, grades=GRADES, progress=bar)
    assert bar.steps == [(n, 20) for n in range(1, 21)] + [(20, 20)]
    assert any(note.startswith("grades, epoch 2, loss ") for note in bar.notes)


# -- the cross-encoder ---------------------------------------------------------------------------------------


def distributions(folder: Path, pairs: Sequence[Taught]) -> np.ndarray:
    """What transformers makes of a saved cross-encoder, one pair at a time."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(folder / STUDENT).eval()
    words = AutoTokenizer.from_pretrained(folder / STUDENT)
    assert model.config.id2label == {n: str(n) for n in range(4)}
    assert words.model_max_length == 32
    found = []
    for pair in pairs:
        given = words(pair.query, pair.text, truncation=True, return_tensors="pt")
        with torch.no_grad():
            found.append(model(**given).logits[0].softmax(0).tolist())
    return np.array(found)


@pytest.mark.parametrize("adapter", [None, Lora(r=8)])
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_cross_encoder_learns_and_is_saved_whole(
    encoder: Path, taught: Pairs, tmp_path: Path, adapter: Lora | None
) -> None:
    rate = 2e-2 if adapter else 3e-3
    given = settings(encoder, epochs=8, patience=8, lora=adapter, learning_rate=rate, balance=0.0)
    told = train(given, taught, tmp_path, grades=GRADES)
    assert told["labeler"] == "cross-encoder:FOLDER"
    assert told["dev"]["loss"] < told["start"]["loss"] - 0.1
    pairs = taught
    found = distributions(tmp_path, pairs)
    mine = agreement(found, np.array([p.probs for p in pairs]), sorted(GRADES))
    assert mine["auc"] is not None
    assert mine["auc"] > 0.75
    assert not list((tmp_path / STUDENT).glob("adapter*"))


def test_rows_of_other_lengths_in_a_batch_do_not_change_a_row(encoder: Path, taught: Pairs) -> None:
    pairs = taught
    student = build(settings(encoder), GRADES)
    student.module.eval()
    with torch.no_grad():
        together = student.logits(pairs[:9])
        alone = torch.cat([student.logits([pair]) for pair in pairs[:9]])
    assert torch.allclose(together, alone, atol=1e-5)
    assert student.lengths(pairs[:2]) == [len(p.query.split()) + len(p.text.split()) + 3 for p in pairs[:2]]


def test_a_score_that_is_there_goes_on_ranking(tmp_path: Path, taught: Pairs) -> None:
    from labelers.distill.losses import contrast

    folder = bert(tmp_path / "ranker", "ForSequenceClassification", num_labels=1)
    pairs = taught
    student = build(settings(folder), GRADES)
    student.module.eval()
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model, words = (
        AutoModelForSequenceClassification.from_pretrained(folder),
        AutoTokenizer.from_pretrained(folder),
    )
    given = words(
        [p.query for p in pairs[:9]], [p.text for p in pairs[:9]], padding=True, return_tensors="pt"
    )
    with torch.no_grad():
        score = model.eval()(**given).logits[:, 0]
        slope = contrast(student.logits(pairs[:9]), torch.arange(4.0))
    assert torch.allclose(slope, score / 2, atol=1e-5)
    assert student.module.config.num_labels == 4


def test_labels_for_grades_that_are_there_stay(tmp_path: Path, taught: Pairs) -> None:
    folder = bert(tmp_path / "graded", "ForSequenceClassification", num_labels=4)
    from transformers import AutoModelForSequenceClassification

    student = build(settings(folder), GRADES)
    was = AutoModelForSequenceClassification.from_pretrained(folder)
    assert torch.equal(student.module.classifier.weight, was.classifier.weight)


def test_new_layers_learn_faster(encoder: Path, tmp_path: Path) -> None:
    body, head = build(settings(encoder, learning_rate=1e-4, head_learning_rate=None), GRADES).groups()
    assert (body.rate, head.rate) == (1e-4, pytest.approx(1e-3))
    assert len(head.parameters) == 2
    masked = bert(tmp_path / "masked", "ForMaskedLM")
    body, head = build(settings(masked, learning_rate=1e-4, head_learning_rate=0.5), GRADES).groups()
    assert head.rate == 0.5
    assert len(head.parameters) == 4, "a masked language model has no pooler"
    everything = sum(len(g.parameters) for g in (body, head))
    assert everything == len(list(build(settings(masked), GRADES).module.parameters()))


def test_half_an_encoder_is_refused(encoder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "half"
    folder.mkdir()
    for file in encoder.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    weights = load_file(folder / "model.safetensors")
    kept = {name: value for name, value in weights.items() if "layer.1." not in name}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(LabelerError, match=r"no whole encoder: its weights lack bert\.encoder\.layer\.1"):
        build(settings(folder), GRADES)


# -- the warm start ------------------------------------------------------------------------------------------


def test_the_warm_up_teaches_a_score_before_the_grades(
    encoder: Path, taught: Pairs, tmp_path: Path, scored: str
) -> None:
    given = settings(encoder, warmup=Warmup(labeler=scored, pairs=200, epochs=6), epochs=1)
    told = train(given, taught, tmp_path, grades=GRADES)
    warm = [line for line in lines(tmp_path) if line["phase"] == "warmup"]
    assert (
        np.mean([line["loss"] for line in warm[-10:]]) < np.mean([line["loss"] for line in warm[:10]]) - 0.2
    )
    assert told["start"]["auc"] > 0.6, "before the first grade it ranks as the score does"


def test_pairs_without_grades_are_distinct_and_half_of_them_are_new(taught: Pairs) -> None:
    pairs = taught
    made = unlabelled(pairs, 100, seed=0)
    texts = [(p.query, p.text) for p in made]
    assert len(set(texts)) == len(texts) == 100
    known = {(p.query, p.text) for p in pairs}
    assert sum(pair in known for pair in texts) in range(50, 62)
    assert made == unlabelled(pairs, 100, seed=0)
    assert len(unlabelled(pairs[:1], 100, seed=0)) == 1


def test_the_score_of_an_encoder_is_the_cosine_of_its_vectors(
    monkeypatch: pytest.MonkeyPatch, taught: Pairs, tmp_path: Path
) -> None:
    pairs = taught
    asked: list[str] = []

    class Vectors:
        def embed(self, texts: Sequence[str]) -> np.ndarray:
            asked.extend(texts)
            turned = np.array([len(text) for text in texts]) / 9
            return np.column_stack([np.cos(turned), np.sin(turned)]).astype(np.float32)

    monkeypatch.setattr("labelers.distill.warmup.load", lambda *_: Vectors())
    made = unlabelled(pairs, 60, seed=0)
    file = tmp_path / "warmup.jsonl"
    for _ in range(2):  # the second time from the file
        phase = warmup_phase(Warmup(pairs=60), pairs, GRADES, "cpu", 0, file)
    assert len(asked) == len(set(asked)) == len({text for p in made for text in (p.query, p.text)})
    scores = [json.loads(line)["score"] for line in file.read_text().splitlines()]
    expected = [np.cos((len(p.query) - len(p.text)) / 9) for p in made]
    assert scores == pytest.approx(expected, abs=1e-6)
    wanted = (np.array(expected) - np.mean(expected)) / np.std(expected)
    zero = phase.loss(torch.zeros(60, 4), range(60))
    assert zero.tolist() == pytest.approx(wanted**2, abs=1e-4)


def test_a_score_that_is_the_same_for_all_pairs_is_refused(
    encoder: Path, taught: Pairs, tmp_path: Path
) -> None:
    given = settings(encoder, warmup=Warmup(labeler="constant:1", pairs=20))
    with pytest.raises(LabelerError, match="constant:1 gives no two different scores"):
        train(given, taught, tmp_path, grades=GRADES)


# -- the causal language model -------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_causal_model_learns_an_adapter_that_hf_loads(causal: Path, taught: Pairs, tmp_path: Path) -> None:
    import polars as pl

    from labelers.causal_lm import CausalLM

    short = pairs_of(taught_rows(36))
    given = settings(
        causal,
        student="causal-lm",
        learning_rate=1e-2,
        epochs=2,
        lora=Lora(r=4),
        prompt="basic",
        dev_share=0.1,
    )
    out = tmp_path / "out"
    was: dict[str, Any] = {}
    save = students_save(was)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("labelers.distill.causal_student.CausalStudent.save", save)
        told = train(given, short, out, grades=GRADES)
    losses = [line["loss"] for line in lines(out) if "loss" in line]
    assert np.mean(losses[-3:]) < np.mean(losses[:2])
    assert told["labeler"] == f"hf:{causal}?adapter=FOLDER&prompt=basic&tokens=32"
    pairs = short
    frame = pl.DataFrame(
        [(p.query_id, p.doc_id, p.query, p.text) for p in pairs[:6]],
        schema=["query_id", "doc_id", "query", "text"],
        orient="row",
    )
    spec = told["labeler"].removeprefix("hf:").replace("FOLDER", str(out / STUDENT))
    answered = CausalLM(f"{spec}&device=cpu", GRADES).signal(frame)["probs"].to_list()
    assert np.allclose(answered, was["probs"], atol=1e-5)
    untaught = (
        CausalLM(f"{causal}?prompt=basic&tokens=32&device=cpu", GRADES).signal(frame)["probs"].to_list()
    )
    assert np.abs(np.array(answered) - untaught).max() > 0.01
    assert json.loads((out / STUDENT / "adapter_config.json").read_text())["base_model_name_or_path"] == str(
        causal
    )


def students_save(was: dict[str, Any]) -> Any:
    """Save as usual, but write down first what the student says of six pairs."""
    from labelers.distill.causal_student import CausalStudent

    usual = CausalStudent.save

    def save(self: Any, folder: Path) -> str:
        self.module.eval()
        rows = taught_rows(36)[:6]
        pairs = [
            Taught(r["query_id"], r["doc_id"], r["query"], r["text"], (1.0,), 1.0, "human") for r in rows
        ]
        with torch.no_grad():
            was["probs"] = self.logits(pairs).softmax(1).tolist()
        return usual(self, folder)

    return save


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_prompt_with_other_grades_and_pairs_that_cannot_be_asked(causal: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"asks for 0, 1, 2, 3; .* are 0, 1, 2[\s\S]*wording"):
        build(settings(causal, student="causal-lm", prompt="basic"), {0: "a", 1: "b", 2: "c"})
    rows = [{**row, "query": "x" * 3000} for row in taught_rows(24)]
    with pytest.raises(UsageError, match="none of the 24 taught pairs can be read"):
        train(settings(causal, student="causal-lm"), pairs_of(rows), tmp_path / "out", grades=GRADES)


# -- settings, and what is not there -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"student": "bi-encoder"}, "cross-encoder"),
        ({"epochs": 0}, "greater than or equal to 1"),
        ({"learning_rate": 0.0}, "greater than 0"),
        ({"dev_share": 1.0}, "less than 1"),
        ({"rate": 1e-5}, "Extra inputs"),
        ({"lora": {"rank": 8}}, "Extra inputs"),
    ],
)
def test_settings_are_read_strictly(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Train.model_validate(wrong)


def test_defaults_need_nothing() -> None:
    assert Train.model_validate({"lora": {"r": 4}, "warmup": {}}).lora == Lora(r=4)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize(("device", "said"), [("cuda", CUDA_LATER), ("quantum", "no device of torch")])
def test_a_device_that_is_not_there(encoder: Path, device: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        build(settings(encoder, device=device), GRADES)


@pytest.mark.parametrize("package", ["torch", "transformers", "peft"])
def test_a_missing_package_names_the_extra(
    encoder: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    given = settings(encoder, lora=Lora())
    calls = {
        "torch": lambda: students.place("auto"),
        "transformers": lambda: students.load_model("AutoModel", encoder),
        "peft": lambda: students.lora(None, given, "SEQ_CLS"),
    }
    with pytest.raises(MissingExtra, match=rf"{package} is not installed.*stopgap\[train\]"):
        calls[package]()


def test_a_folder_that_is_no_model(tmp_path: Path, taught: Pairs) -> None:
    with pytest.raises(LabelerError, match="there is no folder"):
        train(settings(tmp_path / "none"), taught, tmp_path / "out", grades=GRADES)
    with pytest.raises(LabelerError, match=r"lacks config\.json"):
        train(settings(tmp_path), taught, tmp_path / "out", grades=GRADES)


def test_agreement_is_what_scikit_learn_says_and_none_where_nothing_can_be_said() -> None:
    probs = np.array([[0.6, 0.3, 0.1], [0.2, 0.5, 0.3], [0.1, 0.2, 0.7], [0.5, 0.3, 0.2]])
    taught = np.eye(3)[[0, 0, 2, 1]]
    told = agreement(probs, taught, [0, 1, 2])
    assert told["auc"] == pytest.approx(0.75)  # of the four pairs of relevant and not, three in order
    assert told["kappa"] == pytest.approx((0.5 - 6 / 16) / (1 - 6 / 16))
    same = np.tile([0.9, 0.05, 0.05], (4, 1))
    assert agreement(same, same, [0, 1, 2]) == {"auc": None, "kappa": None}
