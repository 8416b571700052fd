"""The acceptance test: who passes, who does not and why, against numbers known by other means."""

from __future__ import annotations

import json
import math

import numpy as np
import polars as pl
import pytest
from pydantic import ValidationError
from sklearn.metrics import cohen_kappa_score, roc_auc_score

from harness.agree_pairs import judged, rater
from harness.errors import CalibrationError, MissingExtra, UsageError
from harness.frames import PAIRS, QRELS, SIGNALS
from harness.labeling import label_id
from labelers.distill.accept import accept, gap
from labelers.distill.acceptance_words import table
from labelers.distill.baselines import bm25, constant
from labelers.distill.contenders import BASE_IN_POOL, BASELINES, STUDENT, TEACHER
from labelers.distill.leaks import Pair
from labelers.distill.samples import Sample
from labelers.distill.sections import Accept, Criterion, Export

GRADES = {0: "no", 1: "related", 2: "good", 3: "perfect"}
SECTION = Accept(resamples=100)


def sample(name: str, topics: int, seed: int, documents: int = 30) -> Sample:
    """Judged pairs of made-up words; a document has a query word now and then, whatever its grade."""
    rng = np.random.default_rng(seed)
    pairs, human = [], []
    for t in range(topics):
        query = f"{name} {t} about w{rng.integers(50)}"
        for d in range(documents):
            grade = int(rng.choice(4, p=[0.5, 0.2, 0.2, 0.1]))
            text = " ".join([f"w{w}" for w in rng.integers(0, 50, 12)] + [f"{name}{t}x{d}"])
            pairs.append((f"{name}{t}", f"{name}{t}d{d}", query, text))
            human.append((f"{name}{t}", f"{name}{t}d{d}", grade, float(grade), "human"))
    frames = (pl.DataFrame(pairs, PAIRS, orient="row"), pl.DataFrame(human, QRELS, orient="row"))
    return Sample.of(name, *frames, GRADES)


TRAIN, TEST = sample("train", 12, 1), sample("test", 14, 2)


class Knows:
    """A labeler that knows the judgments, and errs by so much; its answer is a score or probabilities."""

    needs_text, grades = True, GRADES

    def __init__(self, name: str, error: float, *, states: bool = False, mute: float = 0.0) -> None:
        self.name, self.error, self.states, self.mute = name, error, states, mute
        self.fingerprint = f"{name}{error}{states}{mute}"
        self.asked = 0

    def signal(self, pairs: pl.DataFrame) -> pl.DataFrame:
        self.asked += pairs.height
        known = pl.concat([TRAIN.human, TEST.human])
        rng = np.random.default_rng(sum(map(ord, self.name)))
        known = known.with_columns(noise=rng.normal(size=known.height), luck=rng.random(known.height))
        found = pairs.join(known, on=["query_id", "doc_id"], how="left", maintain_order="left")
        score = found["relevance"].to_numpy() + found["noise"].to_numpy() * self.error
        silent = found["luck"].to_numpy() < self.mute
        near = np.exp(-2 * np.abs(score[:, None] - np.arange(4)))
        probs = pl.Series("probs", (near / near.sum(axis=1, keepdims=True)).tolist(), dtype=SIGNALS["probs"])
        frame = pairs.select(
            "query_id",
            "doc_id",
            probs if self.states else pl.lit(None, SIGNALS["probs"]).alias("probs"),
            pl.lit(None, pl.Float32).alias("score") if self.states else pl.Series("score", score, pl.Float32),
            pl.lit(self.name).alias("labeler"),
        )
        lost = pl.Series(silent)
        return frame.with_columns(
            *(pl.when(~lost).then(c).alias(c) for c in ("probs", "score")),
            pl.when(lost).then(pl.lit("refused")).otherwise(pl.lit(None, pl.String)).alias("reason"),
        )


@pytest.fixture
def base(monkeypatch: pytest.MonkeyPatch) -> Knows:
    """What `minilm` names here: weak, and quick."""
    weak = Knows("base", 4.0)
    monkeypatch.setattr("labelers.distill.contenders.load", lambda spec, grades: NAMED.get(spec, weak))
    return weak


NAMED: dict[str, object] = {}


def run(student: Knows, *, section: Accept = SECTION, teacher: object = None, **how: object) -> dict:
    return accept(section, student, TRAIN, TEST, GRADES, teacher=teacher, **how)  # type: ignore[arg-type]


# -- verdicts ------------------------------------------------------------------------------------------------


def test_a_good_student_is_accepted_and_the_table_says_so(base: Knows) -> None:
    found = run(Knows("student", 0.5), teacher=Knows("teacher", 0.6, states=True))
    assert found["accepted"], found["why"]
    base_alone, *others = BASELINES
    assert list(found["contenders"]) == [STUDENT, TEACHER, base_alone, BASE_IN_POOL, *others]
    assert [why.split(":")[0] for why in found["why"]] == [
        "the student is non-inferior to its teacher by a margin of 0.05",
        "the student is better than its untuned base",
        "the student is better than BM25",
        "the student is better than a constant grade",
    ]
    assert json.loads(json.dumps(found))["accepted"]
    text = table(found)
    assert text.startswith("# Acceptance\n\n**Accepted** on 420 human judgments of 14 topics of test.")
    widths = {len(line) for line in text.splitlines() if line.startswith("|")}
    assert len(widths) == 1
    for row in ("kappa, all grades", "AUC, ≥ 2", "nDCG@10", "ties wrong", "ties half", "(ECE)", "Brier"):
        assert row in text


def test_a_student_that_is_its_base_is_not_better_than_it(base: Knows) -> None:
    for calibration, other in (("pair", "untuned base"), ("pool", BASE_IN_POOL)):
        found = run(base, section=Accept(resamples=300, calibration=calibration))
        assert not found["accepted"]
        assert found["gaps"][other]["delta"] == 0
        assert any("not shown to add" in note for note in found["notes"]) == (calibration == "pool")
    assert any("better than its untuned base was not shown" in why for why in found["why"])
    assert "**Not accepted**" in table(found)


def test_a_student_far_below_its_teacher_is_refused(base: Knows) -> None:
    found = run(Knows("student", 1.2), teacher=Knows("teacher", 0.2, states=True))
    assert not found["accepted"]
    [why] = found["why"]
    assert why.startswith(
        "the student falls short of its teacher by more than the margin of 0.05: its quadratic kappa less"
    )
    wide = Accept(resamples=100, margin=0.9)
    assert run(Knows("student", 1.2), section=wide, teacher=Knows("teacher", 0.2, states=True))["accepted"]


def test_one_that_answers_the_easy_pairs_only_is_refused(base: Knows) -> None:
    found = run(Knows("student", 0.3, mute=0.2))
    assert "gave no label for" in found["why"][0]
    assert any(note.startswith("student: ") and "count in nothing" in note for note in found["notes"])


@pytest.mark.parametrize(
    ("teacher", "said"),
    [
        (None, "no teacher was named"),
        ("none", "no teacher was named"),
        ("human", "the teacher is the human judgments"),
        (Knows("teacher", 1.0, mute=1.1), "failed|gave no answer: refused"),
    ],
)
def test_a_teacher_that_cannot_be_asked_is_said(base: Knows, teacher: object, said: str) -> None:
    found = run(Knows("student", 0.3), teacher=teacher)
    assert found["accepted"]
    assert TEACHER not in found["contenders"]
    [note] = found["notes"]
    assert note.startswith("whether the student is non-inferior to its teacher was not tested: ")
    assert pl.Series([note]).str.contains(said)[0]
    assert "teacher: absent" in table(found)


def test_a_missing_extra_of_the_teacher_is_said_too(base: Knows) -> None:
    class Absent(Knows):
        def signal(self, pairs: pl.DataFrame) -> pl.DataFrame:
            raise MissingExtra("torch", "hf")

    found = run(Knows("student", 0.3), teacher=Absent("teacher", 0.1))
    assert found["absent"] == {TEACHER: "torch is not installed. Next: pip install 'stopgap[hf]'"}


@pytest.mark.parametrize("criterion", ["kappa", "kappa_quadratic", "kappa_binary", "auc"])
def test_every_criterion_has_a_verdict(base: Knows, criterion: Criterion) -> None:
    found = run(Knows("student", 0.4), section=Accept(resamples=100, criterion=criterion))
    assert found["accepted"]
    values = {name: one["values"] for name, one in found["contenders"].items()}
    key = "auc.2" if criterion == "auc" else criterion
    expected = values[STUDENT][key] - values["untuned base"][key]
    assert found["gaps"]["untuned base"]["delta"] == pytest.approx(expected, abs=0.005)


def test_with_folds_nothing_is_taken_from_the_train_topics(base: Knows) -> None:
    student = Knows("student", 0.5)
    found = run(student, section=Accept(resamples=100, fit="folds"))
    assert student.asked == TEST.pairs.height
    assert found["calibration"]["topics"] == 14
    assert found["contenders"]["constant"]["values"]["auc.2"] == 0.5
    assert found["contenders"][STUDENT]["how"] == (
        "calibrated by the other test topics, 5 folds, beside the rest of its topic's pool"
    )


def test_a_student_may_be_calibrated_pair_by_pair(base: Knows) -> None:
    found = run(Knows("student", 0.5), section=Accept(resamples=100, calibration="pair"))
    assert "inputs" in found["calibration"]
    assert BASE_IN_POOL not in found["contenders"]
    found = run(Knows("student", 0.5), section=Accept(resamples=100))
    assert "fitted" in found["calibration"]
    assert found["contenders"]["untuned base"]["how"] == "calibrated by 360 judgments on 12 train topics"
    assert found["contenders"][BASE_IN_POOL]["how"].endswith(
        "train topics, beside the rest of its topic's pool"
    )
    with_pools, alone = (found["gaps"][name]["delta"] for name in (BASE_IN_POOL, "untuned base"))
    assert with_pools != alone  # shown, and the verdict does not rest on it
    assert not any("pools" in why for why in found["why"])


def test_the_same_seed_says_the_same(base: Knows) -> None:
    one, other = (run(Knows("student", 0.8), seed=3) for _ in "ab")
    assert one == other
    assert run(Knows("student", 0.8), seed=4)["gaps"] != one["gaps"]


# -- values --------------------------------------------------------------------------------------------------


def test_values_are_scikit_learn_s(base: Knows) -> None:
    student = Knows("student", 0.8)
    found = run(student)["contenders"][STUDENT]
    table = np.array(found["confusion"])
    human, mine = (np.repeat(np.indices((4, 4))[axis].ravel(), table.ravel()) for axis in (0, 1))
    values = found["values"]
    assert values["kappa"] == pytest.approx(cohen_kappa_score(human, mine))
    assert values["kappa_quadratic"] == pytest.approx(cohen_kappa_score(human, mine, weights="quadratic"))
    assert values["kappa_binary"] == pytest.approx(cohen_kappa_score(human >= 2, mine >= 2))
    score = student.signal(TEST.pairs)["score"].to_numpy()
    truth = TEST.human["relevance"].to_numpy() >= 2
    values = run(student, section=Accept(resamples=100, calibration="pair"))["contenders"][STUDENT]["values"]
    # Gains that were calibrated pair by pair order pairs as scores do.
    assert values["auc.2"] == pytest.approx(roc_auc_score(truth, score), abs=1e-3)
    low, high = found["ci"]["kappa"]
    assert low < values["kappa"] < high
    assert values["pairwise_accuracy.strict"] < values["pairwise_accuracy.half_ties"]
    assert 0 < values["ece"] < 0.1


def labels(grades: list[int], score: list[float] | None = None) -> pl.DataFrame:
    return TEST.human.with_columns(
        pl.Series("relevance", grades, pl.Int16),
        pl.Series("gain", score or [float(g) for g in grades], pl.Float32),
        assessor=pl.lit("m@1"),
    )


def test_a_gap_is_of_the_same_topics_and_pairs() -> None:
    of = judged(TEST.human, list(GRADES))
    truth = TEST.human["relevance"].to_list()
    right = rater(labels(truth), of, "right")
    flat = rater(labels([0] * len(truth)), of, "flat")
    found = gap(of, right, flat, "kappa", seed=0, resamples=100)
    assert found == {"delta": 1.0, "ci": [1.0, 1.0], "pairs": 420, "topics": 14}
    assert gap(of, flat, flat, "auc", seed=0, resamples=100)["delta"] == 0
    rng = np.random.default_rng(0)
    noisy = [g if rng.random() < 0.7 else int(rng.integers(4)) for g in truth]
    found = gap(of, right, rater(labels(noisy), of, "noisy"), "kappa_quadratic", seed=0, resamples=500)
    by_hand = 1 - cohen_kappa_score(truth, noisy, weights="quadratic")
    assert found["delta"] == pytest.approx(by_hand)
    assert found["ci"][0] < by_hand < found["ci"][1]


def test_one_topic_says_nothing_of_how_topics_differ(base: Knows) -> None:
    few = TEST.human["query_id"] == "test0"
    one = Sample("one", TEST.pairs.filter(few), TEST.human.filter(few))
    found = accept(SECTION, Knows("student", 0.2), TRAIN, one, GRADES)
    assert not found["accepted"]
    assert all("1 topics in common say too little for an interval" in why for why in found["why"])


def test_bm25_by_hand() -> None:
    rows = [("q", "a", "red boat", "a red boat"), ("q", "b", "red boat", "a Boat, a boat")]
    rows += [("q", "c", "", "x"), ("q", "d", "red", "")]
    found = bm25(pl.DataFrame(rows, PAIRS, orient="row"))["score"].to_list()
    idf = {"red": math.log(1 + 3.5 / 1.5), "boat": math.log(1 + 2.5 / 2.5)}
    mean = (3 + 4 + 1 + 0) / 4
    first = 1 / (1 + 0.9 * (0.6 + 0.4 * 3 / mean))
    second = 2 / (2 + 0.9 * (0.6 + 0.4 * 4 / mean))
    assert found[0] == pytest.approx(first)
    assert found[1] == pytest.approx(idf["boat"] * second / (idf["red"] + idf["boat"]))
    assert found[2:] == [0, 0]


def test_the_constant_is_the_commonest_grade() -> None:
    share, grade = constant(TRAIN.human, (0, 1, 2, 3))
    assert grade == 0
    assert share == pytest.approx([(TRAIN.human["relevance"] == g).mean() for g in range(4)])


# -- leaks and bad input -------------------------------------------------------------------------------------


def test_a_planted_leak_is_refused_before_anything_is_asked(base: Knows) -> None:
    student = Knows("student", 0.3)
    topic, _, query, text = TEST.pairs.row(35)
    words = " ".join(reversed(query.split()))
    plants = {
        "its id": Pair(topic, "something else", "x"),
        "its text": Pair("new", f"  {query.upper()}? ", "x"),
        "its words and document": Pair("new", words, text),
    }
    clean = [Pair("s1", "a synthetic query", text)]
    for how, plant in plants.items():
        with pytest.raises(UsageError, match=rf"the training: 1 pairs .*\n.* is test topic {topic} by {how}"):
            run(student, learnt=[*clean, plant])
    with pytest.raises(UsageError, match="It would be passed by memory"):
        run(student, learnt=[plants["its text"]], same_ids=False)
    with pytest.raises(UsageError, match="judgments to calibrate by: 420 pairs"):
        accept(SECTION, student, TEST, TEST, GRADES)
    assert student.asked == 0
    # The ids of another collection may be alike by chance.
    assert run(student, learnt=[*clean, plants["its id"]], same_ids=False)["why"]


def test_judgments_of_one_grade_are_no_test(base: Knows) -> None:
    flat = Sample("flat", TEST.pairs, TEST.human.with_columns(relevance=pl.lit(2, pl.Int16)))
    with pytest.raises(UsageError, match="all 420 judgments of the test have grade 2"):
        accept(SECTION, Knows("student", 0.3), TRAIN, flat, GRADES)
    flat = Sample("flat", TRAIN.pairs, TRAIN.human.with_columns(relevance=pl.lit(2, pl.Int16)))
    with pytest.raises(CalibrationError, match=r"all 360 judgments have grade 2; a calibrat.* needs two"):
        accept(SECTION, Knows("student", 0.3), flat, TEST, GRADES)


def test_samples_hold_what_assessors_judged_on_the_scale() -> None:
    more = TEST.human[:3].with_columns(relevance=pl.Series([-1, 7, 1], dtype=pl.Int16))
    assert Sample.of("s", TEST.pairs, more, GRADES).human.height == 1
    with pytest.raises(UsageError, match="no human judgment"):
        Sample.of("s", TEST.pairs, TEST.human.with_columns(assessor=pl.lit("m")), GRADES)
    with pytest.raises(UsageError, match="'test0d0' of topic 'test0' is judged more than once"):
        Sample.of("s", TEST.pairs, pl.concat([TEST.human, TEST.human[:1]]), GRADES)
    told = TEST.to_json()
    assert (told["topics"], told["pairs"]) == (14, 420)
    assert told["sha256"] != TRAIN.to_json()["sha256"]


@pytest.mark.parametrize(
    "wrong", [{"margn": 0.1}, {"margin": -0.1}, {"criterion": "f1"}, {"fit": "dev"}, {"resamples": 10}]
)
def test_sections_are_read_strictly(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Accept.model_validate(wrong)
    with pytest.raises(ValidationError):
        Export.model_validate({"name": "two words"})


def test_the_id_is_the_uncalibrated_student_s(base: Knows) -> None:
    student = Knows("student", 0.3)
    found = run(student)
    assert (found["student"], found["fingerprint"]) == (label_id(student), student.fingerprint)
