"""Filled qrels: what is filled, with what, and what never changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from harness.calibrate import calibrate
from harness.collection import Collection, open_collection
from harness.errors import CalibrationError, InputError, UnknownName, UsageError
from harness.fill import Filled, fill, merge
from harness.frames import LABELS, QRELS, Runs, check
from harness.judgments import SHIFTS
from harness.labeling import signals
from harness.ledger import Ledger
from harness.pool import found_once
from harness.ranking import rank
from harness.trec import read_qrels, read_runs, write_qrels

KEYS = ["query_id", "doc_id"]
GRADES = {0: "no", 1: "related", 2: "good", 3: "perfect"}
DEPTH, JUDGED, DOCS = 12, 7, 16
TOPICS = ["1", "2", "03"]
UNREADABLE, LOST = "1-d08", "2-d09"


class Eye:
    """A small encoder: a text of numbers is its vector, the first number its score."""

    name, needs_text, dimension, feature_names = "eye", True, 4, ("second",)

    def __init__(self, fingerprint: str = "0123456789abcdef") -> None:
        self.grades, self.fingerprint = GRADES, fingerprint
        self.asked: list[str] = []

    def signal(self, pairs: pl.DataFrame) -> pl.DataFrame:
        self.asked += pairs["doc_id"].to_list()
        fine = [text != "unreadable" for text in pairs["text"]]
        given = self.embed(pairs["text"].to_list()).tolist()
        vectors = [v if ok else None for v, ok in zip(given, fine, strict=True)]
        return pairs.select("query_id", "doc_id").with_columns(
            pl.Series("probs", [None] * pairs.height, pl.List(pl.Float32)),
            pl.Series("score", [v and v[0] for v in vectors], pl.Float32),
            pl.Series("features", [v and [v[1]] for v in vectors], pl.List(pl.Float32)),
            pl.Series("vector", vectors, pl.Array(pl.Float32, 4)),
            pl.Series("reason", [None if ok else "cannot read this" for ok in fine], pl.String),
        )

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        rows = [[float(x) for x in t.split()] if t != "unreadable" else [1.0, 0, 0, 0] for t in texts]
        given = np.array(rows, dtype=np.float32)
        return np.asarray(given / np.linalg.norm(given, axis=1, keepdims=True))


class Asleep(Eye):
    """The same labeler by its fingerprint, but one that must not be asked."""

    def signal(self, pairs: pl.DataFrame) -> pl.DataFrame:
        raise AssertionError(f"asked about {pairs.height} pairs")


class Mute(Eye):
    """A labeler whose server is down."""

    def signal(self, pairs: pl.DataFrame) -> pl.DataFrame:
        told = super().signal(pairs)
        empty = [pl.lit(None, t).alias(c) for c, t in told.schema.items() if c not in (*KEYS, "reason")]
        return told.with_columns(*empty, pl.lit("server error (500)").alias("reason"))


class Told:
    """A labeler that looks at no text."""

    name, needs_text, fingerprint, grades = "told", False, "fedcba9876543210", GRADES

    def signal(self, pairs: pl.DataFrame) -> pl.DataFrame:
        grade = [sha256(d.encode()).digest()[0] % 4 for d in pairs["doc_id"]]
        return pairs.select("query_id", "doc_id").with_columns(
            pl.Series("probs", np.eye(4)[grade].tolist(), pl.List(pl.Float32)), score=None, reason=None
        )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three topics of 16 documents, the first seven of each judged; topic 9 has documents and no judgment."""
    rng, place = np.random.default_rng(4), tmp_path_factory.mktemp("collection")
    corpus, qrels, lookup = [], [], []
    for topic in [*TOPICS, "9"]:
        for i in range(DOCS):
            doc, grade = f"{topic}-d{i:02}", int(rng.integers(0, 4)) if i > 3 else i
            numbers = np.array([grade - 1.5, 1.0, 0.0, 0.0]) + 0.6 * rng.normal(size=4)
            text = " ".join(f"{x:.3f}" for x in numbers) if doc != UNREADABLE else "unreadable"
            if doc != LOST:
                corpus.append(f'{{"doc_id": "{doc}", "text": "{text}"}}')
            lookup.append(f"{topic} 0 {doc} {grade}")
            if i < JUDGED and topic != "9":
                qrels.append(f"{topic} 0 {doc} {grade}")
    qrels[-1] = qrels[-1][:-1] + "-1"
    for name, lines in {
        "corpus.jsonl": corpus,
        "queries.tsv": [f"{t}\twhat {t} asks" for t in [*TOPICS, "9"]],
        "qrels.human.txt": qrels,
        "qrels.oracle.txt": lookup,
        "grades.tsv": [f"{g}\t{words}" for g, words in GRADES.items()],
    }.items():
        (place / name).write_text("\n".join(lines) + "\n")
    return place


@pytest.fixture(scope="module")
def collection(folder: Path) -> Collection:
    return open_collection(folder)


@pytest.fixture(scope="module")
def human(collection: Collection) -> pl.DataFrame:
    return collection.qrels()


@pytest.fixture(scope="module")
def runs() -> Runs:
    """Two runs over all topics; between them the pool of depth 12 holds every document."""
    up = [(t, f"{t}-d{i:02}", float(DOCS - i)) for t in [*TOPICS, "9"] for i in range(DOCS)]
    made = {}
    for name, sign in (("up", 1.0), ("down", -1.0)):
        frame = pl.DataFrame(up, schema=[*KEYS, "score"], orient="row")
        made[name] = rank(frame.with_columns(score=sign * pl.col("score")))
    return made


@pytest.fixture(scope="module")
def filled(runs: Runs, human: pl.DataFrame, collection: Collection) -> Filled:
    return fill(runs, human, collection, Eye(), depth=DEPTH)


def people(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.filter(assessor="human").select(list(QRELS)).sort(KEYS)


# -- the laws ------------------------------------------------------------------------------------------------


def test_filling_twice_is_filling_once(
    filled: Filled, runs: Runs, human: pl.DataFrame, collection: Collection
) -> None:
    again = fill(runs, filled.qrels, collection, Eye(), depth=DEPTH)
    assert_frame_equal(again.qrels, filled.qrels)
    assert_frame_equal(again.labels, filled.labels)
    assert again.summary == filled.summary


def test_assessors_rows_survive_and_holes_are_labeled(
    filled: Filled, human: pl.DataFrame, runs: Runs, collection: Collection
) -> None:
    check(filled.qrels, QRELS)
    assert filled.qrels.columns == [*QRELS, "probs", *SHIFTS, "nearest", "similarity"]
    assert_frame_equal(people(filled.qrels), human.sort(KEYS))
    assert filled.qrels.filter(assessor="human")["probs"].null_count() == human.height
    assert_frame_equal(filled.qrels, filled.qrels.sort(KEYS))
    made = filled.qrels.filter(pl.col("assessor") != "human")
    assert filled.calibrator is not None
    assert set(made["assessor"]) == {f"eye@01234567/{filled.calibrator.fingerprint[:8]}"}
    assert made.height == 3 * (DOCS - JUDGED) - 2, "every hole but the unreadable and the lost one"
    assert not filled.qrels.select(KEYS).is_duplicated().any()
    probs = np.array(made["probs"].to_list())
    np.testing.assert_allclose(probs.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(made["gain"], probs @ np.arange(4), atol=1e-5)
    truth = made.join(collection.qrels("oracle"), on=KEYS, suffix="_true")
    assert np.corrcoef(truth["gain"], truth["relevance_true"])[0, 1] > 0.6


def test_row_order_does_not_matter(
    filled: Filled, runs: Runs, human: pl.DataFrame, collection: Collection
) -> None:
    mixed = {n: runs[n].sample(fraction=1, shuffle=True, seed=7) for n in ("down", "up")}
    other = fill(mixed, human.reverse(), collection, Eye(), depth=DEPTH)
    assert_frame_equal(other.qrels, filled.qrels)
    assert_frame_equal(other.labels, filled.labels)
    assert other.summary == filled.summary


def test_topics_without_judgments_are_not_filled(filled: Filled) -> None:
    assert set(filled.qrels["query_id"]) == set(TOPICS)
    assert set(filled.labels["query_id"]) == set(TOPICS)
    assert filled.summary["pool"] == 3 * DOCS


def test_only_the_pool_is_filled(runs: Runs, human: pl.DataFrame, collection: Collection) -> None:
    shallow = fill({"up": runs["up"]}, human, collection, Eye(), depth=9)
    made = shallow.qrels.filter(pl.col("assessor") != "human")
    assert set(made["doc_id"].str.slice(-3)) == {"d07", "d08"}
    assert (shallow.summary["pool"], shallow.summary["holes"], shallow.summary["labeled"]) == (27, 6, 5)


# -- what gets no label --------------------------------------------------------------------------------------


def test_pairs_without_a_label_stay_holes_and_are_counted(filled: Filled) -> None:
    assert filled.summary["holes"] == 3 * (DOCS - JUDGED)
    assert filled.summary["labeled"] == filled.summary["holes"] - 2
    assert filled.summary["unlabeled"] == {"cannot read this": 1, "no text": 1}
    none = filled.labels.filter(pl.col("relevance").is_null())
    assert none.sort(KEYS).select("doc_id", "reason").rows() == [
        (UNREADABLE, "cannot read this"),
        (LOST, "no text"),
    ]
    assert not set(filled.qrels["doc_id"]) & {UNREADABLE, LOST}
    assert none["gain"].null_count() == none["probs"].null_count() == 2


def test_a_second_labeler_fills_what_the_first_cannot_see(
    filled: Filled, runs: Runs, human: pl.DataFrame, collection: Collection, folder: Path
) -> None:
    stacked = fill(runs, human, collection, [Eye(), f"lookup:{folder / 'qrels.oracle.txt'}"], depth=DEPTH)
    assert stacked.summary["unlabeled"] == {}
    assert stacked.summary["labeled"] == filled.summary["holes"]
    assert stacked.calibrator is not None
    assert [name.split("@")[0] for name in stacked.calibrator.labelers] == ["eye", "lookup"]
    truth = collection.qrels("oracle")

    def error(found: Filled) -> float:
        both = found.labels.drop_nulls("gain").join(truth, on=KEYS, suffix="_true")
        return float((both["gain"] - both["gain_true"]).abs().mean())

    assert error(stacked) < error(filled) - 0.1


def test_nothing_that_can_be_seen_is_an_error(
    runs: Runs, human: pl.DataFrame, folder: Path, tmp_path: Path
) -> None:
    """A collection without texts: every pair is `no text`, and there is nothing to calibrate."""
    for name in ("queries.tsv", "grades.tsv", "qrels.human.txt"):
        (tmp_path / name).write_text((folder / name).read_text())
    with pytest.raises(CalibrationError, match=r"no pair has a signal.*48 times 'no text'(?s:.*)Next: "):
        fill(runs, human, open_collection(tmp_path), Asleep(), depth=DEPTH)


def test_a_labeler_that_fails_on_every_pair_leaves_the_holes_and_says_why(
    runs: Runs, human: pl.DataFrame, collection: Collection, filled: Filled
) -> None:
    done = fill(runs, human, collection, Mute(), depth=DEPTH)
    assert_frame_equal(people(done.qrels), people(human))
    assert done.qrels.columns == filled.qrels.columns
    assert done.qrels.height == human.height
    assert done.labels.schema == filled.labels.schema
    assert_frame_equal(done.labels.select(KEYS), filled.labels.select(KEYS))
    assert done.labels["relevance"].is_null().all()
    assert set(done.labels["labeler"]) == {"eye@01234567"}
    unlabeled = done.summary["unlabeled"]
    assert unlabeled == {"server error (500)": done.labels.height - 1, "no text": 1}
    assert done.accounts[0]["failures"]["server error (500)"] == done.accounts[0]["asked"]
    with pytest.raises(CalibrationError, match=r"server error \(500\)"):
        fill(runs, human, collection, Mute(), depth=DEPTH, mode="pool")


# -- the ways to fill ----------------------------------------------------------------------------------------


def test_pool_mode_has_labels_only(
    runs: Runs, human: pl.DataFrame, collection: Collection, filled: Filled
) -> None:
    """Judged pairs are labeled too, those outside the pool as well, each without regard to its judgment."""
    relabeled = fill(runs, human, collection, Told(), depth=2, mode="pool")
    assert "human" not in set(relabeled.qrels["assessor"])
    pairs = {(t, f"{t}-d{i:02}") for t in TOPICS for i in (*range(JUDGED), DOCS - 1, DOCS - 2)}
    assert set(relabeled.qrels.select(KEYS).iter_rows()) == pairs
    assert relabeled.qrels["probs"].null_count() == 0
    assert relabeled.summary["pool"] == 3 * 4
    assert relabeled.summary["holes"] == 3 * 2
    assert relabeled.summary["labeled"] == len(pairs)
    assert relabeled.summary["calibration"]["judgments"] == human.height - 1
    again = fill(
        runs,
        pl.concat([human, relabeled.qrels.select(list(QRELS))]),
        collection,
        Told(),
        depth=2,
        mode="pool",
    )
    assert_frame_equal(again.qrels, relabeled.qrels)


def test_without_neighbours(filled: Filled, runs: Runs, human: pl.DataFrame, collection: Collection) -> None:
    off = fill(runs, human, collection, Eye(), depth=DEPTH, neighbours=False)
    assert off.labels["nearest"].null_count() == off.labels.height
    assert off.summary["near_duplicates"] == 0
    assert_frame_equal(people(off.qrels), people(filled.qrels))
    assert_frame_equal(off.qrels.select(KEYS), filled.qrels.select(KEYS))
    assert off.qrels["gain"].to_list() != filled.qrels["gain"].to_list()


def test_the_labels_are_those_of_calibrate(
    filled: Filled, runs: Runs, human: pl.DataFrame, collection: Collection
) -> None:
    ids = pl.DataFrame({"query_id": [t for t in TOPICS for _ in range(DOCS)]}).with_columns(
        doc_id=pl.Series([f"{t}-d{i:02}" for t in TOPICS for i in range(DOCS)])
    )
    done = calibrate(
        [signals(Eye(), collection.pairs(ids))], human, list(GRADES), found_once=found_once(runs, DEPTH)
    )
    assert_frame_equal(
        done.labels.join(filled.labels, on=KEYS, how="semi", maintain_order="left"), filled.labels
    )
    assert filled.summary["calibration"] == done.report
    assert filled.calibrator == done.calibrator
    assert filled.summary["near_duplicates"] == done.report["near_duplicates"]


def test_a_calibrator_fitted_elsewhere(
    filled: Filled, runs: Runs, human: pl.DataFrame, collection: Collection
) -> None:
    few = human.filter(relevance=0).head(1)
    with pytest.raises(CalibrationError, match="needs two grades"):
        fill(runs, few, collection, Eye(), depth=DEPTH)
    other = fill(runs, few, collection, Eye(), depth=DEPTH, calibrator=filled.calibrator)
    assert other.calibrator is filled.calibrator
    assert set(other.qrels["query_id"]) == set(few["query_id"])
    assert other.summary["labeled"] == DOCS - 1 - 1


def test_a_registered_name_that_looks_at_no_text(
    runs: Runs, human: pl.DataFrame, collection: Collection, tmp_path: Path
) -> None:
    """A constant says nothing about one document more than another: a topic's holes are all alike."""
    done = fill(runs, human, collection, "constant:1", depth=DEPTH, ledger=tmp_path / "ledger")
    made = done.qrels.filter(pl.col("assessor") != "human")
    assert made.height == done.summary["holes"] == 3 * (DOCS - JUDGED)
    assert made.group_by("query_id").agg(pl.col("gain").n_unique())["gain"].to_list() == [1, 1, 1]
    assert not (tmp_path / "ledger").exists()


def test_what_one_run_alone_found_moves_the_labels_of_holes(
    filled: Filled, runs: Runs, human: pl.DataFrame, collection: Collection
) -> None:
    """Two runs that rank alike find nothing alone; then labels of holes are not moved."""
    assert filled.calibrator is not None
    report = filled.summary["calibration"]
    assert report["offset"] == filled.calibrator.offset != 0.0
    alike = fill(runs | {"copy": runs["up"], "again": runs["down"]}, human, collection, Eye(), depth=DEPTH)
    assert alike.summary["calibration"]["offset"] == 0.0
    assert_frame_equal(alike.labels.select(KEYS), filled.labels.select(KEYS))
    both = alike.qrels.join(filled.qrels, on=KEYS, suffix="_moved").filter(pl.col("assessor") != "human")
    assert ((both["gain_moved"] - both["gain"]) * report["offset"] > 0).all()
    assert_frame_equal(people(alike.qrels), people(filled.qrels))


def test_shifts_stand_in_labels_rows_only_and_survive_the_file(filled: Filled, tmp_path: Path) -> None:
    assert filled.calibrator is not None
    model = filled.calibrator
    for column, value in zip(SHIFTS, (model.shift_all, model.shift_topic), strict=True):
        assert filled.qrels.filter(assessor="human")[column].null_count() == len(people(filled.qrels))
        made = filled.qrels.filter(pl.col("assessor") != "human")
        assert made[column].unique().to_list() == [np.float32(value)]
        assert filled.labels.filter(pl.col("relevance").is_null())[column].null_count() == 2
    write_qrels(filled.qrels, tmp_path / "filled.qrels")
    back = read_qrels(tmp_path / "filled.qrels")
    assert_frame_equal(back.select(*KEYS, *SHIFTS), filled.qrels.select(*KEYS, *SHIFTS))


def test_a_calibrator_from_elsewhere_brings_its_shifts(
    filled: Filled, runs: Runs, human: pl.DataFrame, collection: Collection
) -> None:
    assert filled.calibrator is not None
    there = replace(filled.calibrator, offset=-1.0, shift_all=0.25, shift_topic=0.75)
    done = fill(runs, human, collection, Eye(), depth=DEPTH, calibrator=there)
    made = done.qrels.filter(pl.col("assessor") != "human")
    assert set(made.select(SHIFTS).iter_rows()) == {(0.25, 0.75)}
    assert done.summary["calibration"]["offset"] == -1.0
    nowhere = fill(runs, human, collection, Eye(), depth=DEPTH, calibrator=replace(there, offset=0.0))
    both = done.qrels.join(nowhere.qrels, on=KEYS, suffix="_still").filter(pl.col("assessor") != "human")
    assert (both["gain"] < both["gain_still"]).all()


# -- models are asked once -----------------------------------------------------------------------------------


@pytest.mark.parametrize("as_path", [True, False])
def test_the_ledger_spares_the_model(
    as_path: bool, filled: Filled, runs: Runs, human: pl.DataFrame, collection: Collection, tmp_path: Path
) -> None:
    """A second filling asks only what had no signal; with nothing of that sort, nothing at all."""
    seen = human.filter(pl.col("query_id") == "03")  # neither the unreadable nor the lost document
    ledger: Any = str(tmp_path / "ledger") if as_path else Ledger(tmp_path / "ledger")
    first = fill(runs, seen, collection, Eye(), depth=DEPTH, ledger=ledger)
    assert (first.summary["model_calls"], first.summary["cache_hits"]) == (DOCS, 0)
    second = fill(runs, seen, collection, Asleep(), depth=DEPTH, ledger=ledger)
    assert (second.summary["model_calls"], second.summary["cache_hits"]) == (0, DOCS)
    assert_frame_equal(second.qrels, first.qrels)
    assert_frame_equal(second.labels, first.labels)


def test_counts_where_the_model_fails_on_some(
    filled: Filled, runs: Runs, human: pl.DataFrame, collection: Collection, tmp_path: Path
) -> None:
    """What failed is tried again; it is a call, and takes nothing from the hits."""
    seen = pl.concat([human.filter(query_id="1"), human.filter(query_id="2")])
    first = fill(runs, seen, collection, Eye(), depth=DEPTH, ledger=tmp_path)
    assert (first.summary["model_calls"], first.summary["cache_hits"]) == (2 * DOCS - 1, 0)
    eye = Eye()
    second = fill(runs, seen, collection, eye, depth=DEPTH, ledger=tmp_path)
    assert eye.asked == [UNREADABLE]
    assert (second.summary["model_calls"], second.summary["cache_hits"]) == (1, 2 * DOCS - 2)


def test_without_holes_no_model_is_asked(runs: Runs, human: pl.DataFrame, collection: Collection) -> None:
    done = fill({"up": runs["up"]}, human, collection, Asleep(), depth=JUDGED)
    assert_frame_equal(people(done.qrels), human.sort(KEYS))
    assert done.qrels.height == human.height
    assert done.labels.is_empty()
    check(done.labels, LABELS)
    assert done.calibrator is None
    assert (done.summary["holes"], done.summary["labeled"], done.summary["model_calls"]) == (0, 0, 0)
    assert done.summary["pool"] == 3 * JUDGED


def test_the_judgments_of_topics_that_no_run_has_stay(
    runs: Runs, human: pl.DataFrame, collection: Collection
) -> None:
    one = {"up": runs["up"].filter(query_id="1")}
    done = fill(one, human, collection, Eye(), depth=DEPTH)
    assert_frame_equal(people(done.qrels), human.sort(KEYS))
    assert set(done.labels["query_id"]) == {"1"}
    assert done.summary["calibration"]["judgments"] == human.height - 1


def test_progress_runs_over_all_labelers(runs: Runs, human: pl.DataFrame, collection: Collection) -> None:
    told: list[tuple[int, int | None]] = []
    fill(runs, human, collection, [Told(), Eye()], depth=DEPTH, progress=lambda *now: told.append(now))
    assert {total for _, total in told} == {2 * 3 * DOCS}
    done = [d for d, _ in told]
    assert done == sorted(done)
    assert done[-1] == 2 * 3 * DOCS
    assert 3 * DOCS in done


# -- what cannot be meant ------------------------------------------------------------------------------------


def test_what_cannot_be_meant(runs: Runs, human: pl.DataFrame, collection: Collection) -> None:
    with pytest.raises(UnknownName, match=r"unknown labeler 'minilmm'.*Did you mean 'minilm'"):
        fill(runs, human, collection, "minilmm", depth=DEPTH)
    with pytest.raises(InputError, match="absent"):
        fill(runs, human, collection, "lookup:absent.txt", depth=DEPTH)
    with pytest.raises(UsageError, match=r"unknown mode 'hole'.*holes, pool"):
        fill(runs, human, collection, Eye(), depth=DEPTH, mode="hole")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="no labeler"):
        fill(runs, human, collection, [], depth=DEPTH)
    with pytest.raises(UsageError, match="depth is 0"):
        fill(runs, human, collection, Eye(), depth=0)
    with pytest.raises(UsageError, match="no runs"):
        fill({}, human, collection, Eye(), depth=DEPTH)


# -- files ---------------------------------------------------------------------------------------------------


def test_filled_qrels_survive_their_file(filled: Filled, tmp_path: Path) -> None:
    file = tmp_path / "filled.qrels"
    write_qrels(filled.qrels, file)
    assert_frame_equal(read_qrels(file), filled.qrels)
    lines = [line.split() for line in file.read_text().splitlines()]
    marks = {(q, d): mark for q, mark, d, _ in lines}
    for q, d, assessor in filled.qrels.select(*KEYS, "assessor").iter_rows():
        assert marks[q, d] == ("0" if assessor == "human" else "1")
    assert {grade for *_, grade in lines} <= {"-1", "0", "1", "2", "3"}


def test_a_filled_file_can_be_filled_again(
    filled: Filled, runs: Runs, collection: Collection, tmp_path: Path
) -> None:
    """With its twin and without: column 2 alone says which rows were never judged."""
    for twin in (True, False):
        file = tmp_path / f"{twin}.qrels"
        write_qrels(filled.qrels, file)
        if not twin:
            Path(f"{file}.parquet").unlink()
        assert_frame_equal(fill(runs, read_qrels(file), collection, Eye(), depth=DEPTH).qrels, filled.qrels)


# -- merge ---------------------------------------------------------------------------------------------------

_pairs = st.dictionaries(
    st.tuples(st.sampled_from(["1", "01"]), st.sampled_from("abcdef")),
    st.one_of(st.none(), st.integers(0, 3)),
)


def _labels(given: dict[tuple[str, str], int | None]) -> pl.DataFrame:
    rows = [
        (q, d, g, None, None, "eye@1/2", "no text")
        if g is None
        else (q, d, g, [0.25] * 4, 1.5, "eye@1/2", None)
        for (q, d), g in given.items()
    ]
    return pl.DataFrame(rows, schema=LABELS, orient="row")


def _judged(given: dict[tuple[str, str], int | None]) -> pl.DataFrame:
    rows = [(q, d, g, g, "human") for (q, d), g in given.items() if g is not None]
    return pl.DataFrame(rows, schema=QRELS, orient="row")


@settings(max_examples=40, deadline=None)
@given(_pairs, _pairs)
def test_judgments_always_survive_a_merge(
    said: dict[tuple[str, str], int | None], guessed: dict[tuple[str, str], int | None]
) -> None:
    judged, labels = _judged(said), _labels(guessed)
    merged = merge(judged, labels)
    assert_frame_equal(people(merged), judged.sort(KEYS))
    assert not merged.select(KEYS).is_duplicated().any()
    made = merged.filter(pl.col("assessor") != "human")
    judged_pairs = {pair for pair, grade in said.items() if grade is not None}
    expected = {p: g for p, g in guessed.items() if g is not None and p not in judged_pairs}
    assert {(q, d): g for q, d, g in made.select(*KEYS, "relevance").iter_rows()} == expected
    assert merged["relevance"].null_count() == merged["gain"].null_count() == 0
    assert_frame_equal(merge(people(merged), labels), merged)


# -- real judgments ------------------------------------------------------------------------------------------


def test_real_runs_filled_from_gpt_4s_labels(data_dir: Path) -> None:
    """DL21, three topics and three runs, ten judgments a topic, against what assessors said of the rest."""
    collection = open_collection(data_dir / "dl21_passage_runs")
    truth = collection.qrels()
    topics = truth["query_id"].unique().sort().head(3)
    shown = (
        truth.filter(pl.col("query_id").is_in(topics.implode()))
        .group_by("query_id", maintain_order=True)
        .head(10)
    )
    files = sorted((data_dir / "dl21_passage_runs" / "runs").glob("*.run.gz"))[:3]
    runs = {
        n: r.filter(pl.col("query_id").is_in(topics.implode())) for n, r in read_runs(files, depth=20).items()
    }
    done = fill(
        runs,
        shown,
        collection,
        f"lookup:{data_dir / 'dl21_passage_runs' / 'qrels.umbrela_gpt4.txt'}",
        depth=20,
    )
    assert_frame_equal(people(done.qrels), shown.sort(KEYS))
    made = done.qrels.filter(pl.col("assessor") != "human").join(truth, on=KEYS, suffix="_true")
    assert made.height > 50
    assert np.corrcoef(made["gain"], made["relevance_true"])[0, 1] > 0.4
    assert done.summary["labeled"] + sum(done.summary["unlabeled"].values()) == done.summary["holes"]
