"""Signals and judgments -> labels, on topics drawn so that what is right is known."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from harness.calibrate import Calibrated, calibrate
from harness.calibrator import Calibrator
from harness.errors import CalibrationError, InputError
from harness.evidence import read_pool
from harness.frames import LABELS, QRELS, SIGNALS, check
from harness.grading import carried, quality, shares
from harness.judgments import SHIFTS
from harness.labeling import load, signals
from harness.selection import NOTHING, moved

KEYS = ["query_id", "doc_id"]
GRADES = (0, 1, 2, 3)
Drawn = tuple[pl.DataFrame, pl.DataFrame]


def drawn(topics: int, docs: int, grades: tuple[int, ...] = GRADES, seed: int = 0, width: int = 16) -> Drawn:
    """SIGNALS with vectors, and the true QRELS, of topics q0, q1, … with documents d000, d001, ….

    On each topic the documents of one grade form a cluster of unit vectors, higher grades further along a
    direction of the topic's own; the score is weak and its level differs from topic to topic.
    """
    rng, size = np.random.default_rng(seed), len(grades)
    rows, vectors = [], []
    for t in range(topics):
        y = rng.integers(0, size, docs)
        centres = 0.5 * rng.normal(size=(size, width))
        centres += np.linspace(-1, 1, size)[:, None] * rng.normal(size=width)
        v = 2 * rng.normal(size=width) + centres[y] + rng.normal(size=(docs, width))
        vectors.append(v / np.linalg.norm(v, axis=1, keepdims=True))
        score = 0.8 * y / (size - 1) + 0.5 * rng.normal(size=docs) + 0.3 * rng.normal()
        rows += [(f"q{t}", f"d{i:03}", float(score[i]), grades[y[i]]) for i in range(docs)]
    all_rows = pl.DataFrame(rows, schema=[*KEYS, "score", "grade"], orient="row")
    given = all_rows.select(
        *KEYS,
        pl.lit(None, SIGNALS["probs"]).alias("probs"),
        pl.col("score").cast(pl.Float32),
        pl.lit("fake@12345678").alias("labeler"),
        pl.lit(None, pl.String).alias("reason"),
        pl.Series("vector", np.concatenate(vectors).astype(np.float32), pl.Array(pl.Float32, width)),
    )
    return given, judged_as(all_rows.select(*KEYS, relevance="grade"))


def judged_as(frame: pl.DataFrame) -> pl.DataFrame:
    """QRELS by assessors from query_id, doc_id, relevance."""
    grade = pl.col("relevance")
    return frame.select(*KEYS, grade.cast(pl.Int16), gain=grade.cast(pl.Float32), assessor=pl.lit("human"))


def budget(truth: pl.DataFrame, counts: dict[str, int]) -> pl.DataFrame:
    """The first judgments of each topic."""
    return pl.concat(truth.filter(query_id=q).head(n) for q, n in counts.items())


def flipped(human: pl.DataFrame, pairs: Iterable[tuple[str, str]]) -> pl.DataFrame:
    """The judgments with those of `pairs` turned upside down on the scale 0 to 3."""
    here = pl.struct(KEYS).is_in([dict(zip(KEYS, p, strict=True)) for p in pairs])
    turned = pl.when(here).then(3 - pl.col("relevance")).otherwise("relevance")
    return judged_as(human.with_columns(turned.alias("relevance")))


def probs_of(labels: pl.DataFrame) -> np.ndarray:
    return np.array(labels["probs"].to_list())


def measured(done: Calibrated, rest: pl.DataFrame, grades: tuple[int, ...] = GRADES) -> dict[str, float]:
    """How well the labels agree with judgments that nobody was shown."""
    both = rest.join(done.labels.select(*KEYS, "probs", said="relevance"), on=KEYS, maintain_order="left")
    y = np.searchsorted(grades, both["relevance"].to_numpy())
    return quality(probs_of(both), both["said"].to_numpy(), y, grades)


def bare_auc(given: pl.DataFrame, rest: pl.DataFrame, grades: tuple[int, ...] = GRADES) -> float:
    from sklearn.metrics import roc_auc_score

    both = rest.join(given.select(*KEYS, "score"), on=KEYS, maintain_order="left")
    return float(roc_auc_score(both["relevance"] >= max(grades) / 2, both["score"]))


DONORS, TARGETS = ["q0", "q1", "q2"], ["q3", "q4", "q5"]


@pytest.fixture(scope="module")
def world() -> Drawn:
    """Six topics of 120 documents, of which the last 70 are never judged."""
    return drawn(topics=6, docs=120, seed=1)


@pytest.fixture(scope="module")
def by_budget(world: Drawn) -> dict[int, Calibrated]:
    """Three topics with 15 judgments, and three with 0, 1, 3, 10 or 50."""
    given, truth = world
    return {
        n: calibrate([given], budget(truth, dict.fromkeys(DONORS, 15) | dict.fromkeys(TARGETS, n)), GRADES)
        for n in (0, 1, 3, 10, 50)
    }


@pytest.fixture(scope="module")
def model(by_budget: dict[int, Calibrated]) -> Calibrator:
    return by_budget[10].calibrator


@pytest.fixture(scope="module")
def small(world: Drawn) -> Drawn:
    """Three topics of 60 documents and 12 judgments each."""
    given, truth = world
    few = pl.col("query_id").is_in(DONORS) & (pl.col("doc_id") < "d060")
    return given.filter(few), budget(truth, dict.fromkeys(DONORS, 12))


# -- how good the labels are ---------------------------------------------------------------------------------


def test_more_judgments_make_better_labels(world: Drawn, by_budget: dict[int, Calibrated]) -> None:
    """Never worse than the bare score, whatever the number of judgments."""
    given, truth = world
    rest = truth.filter(pl.col("query_id").is_in(TARGETS), pl.col("doc_id") >= "d050")
    found = {n: measured(done, rest) for n, done in by_budget.items()}
    bare = bare_auc(given, rest)
    auc = [found[n]["auc"] for n in (0, 1, 3, 10, 50)]
    assert min(auc) > bare - 0.01, (bare, auc)
    assert all(after > before - 0.01 for before, after in pairwise(auc)), auc
    assert auc[-1] > max(bare + 0.15, auc[1]), (bare, auc)
    assert found[50]["ece"] < 0.1
    assert found[50]["kappa_quadratic"] > found[3]["kappa_quadratic"] > found[0]["kappa_quadratic"] > 0.15


def test_the_report_foretells_what_is_left_out(world: Drawn, by_budget: dict[int, Calibrated]) -> None:
    """Each judged pair predicted without itself is about as good as a pair nobody judged."""
    rest = world[1].filter(pl.col("query_id").is_in(TARGETS), pl.col("doc_id") >= "d050")
    report, found = by_budget[50].report, measured(by_budget[50], rest)
    assert report["judgments"] == 3 * 15 + 3 * 50
    assert report["judged_per_topic"] == {"least": 15, "median": 32.5, "most": 50}
    assert report["left_out"]["auc"] == pytest.approx(found["auc"], abs=0.04)
    assert report["left_out"]["kappa_quadratic"] == pytest.approx(found["kappa_quadratic"], abs=0.1)
    assert report["left_out_bare"]["auc"] < report["left_out"]["auc"] - 0.01


@pytest.mark.parametrize("grades", [(0, 1), (0, 1, 2), (0, 1, 2, 3, 4), (0, 2, 5)])
def test_scales(grades: tuple[int, ...]) -> None:
    given, truth = drawn(topics=4, docs=90, grades=grades, seed=3)
    human, rest = (truth.filter((pl.col("doc_id") < "d020") == judged) for judged in (True, False))
    done = calibrate([given], human, grades)
    sound(done.labels, grades)
    found = measured(done, rest, grades)
    assert found["auc"] > bare_auc(given, rest, grades) + 0.05
    assert found["kappa"] > 0.3
    assert set(done.labels["relevance"].unique()) == set(grades)


# -- what every label keeps to -------------------------------------------------------------------------------


def sound(labels: pl.DataFrame, grades: tuple[int, ...] = GRADES) -> None:
    """A label is a distribution, its gain the expected grade, its hard grade one of the scale; or nothing."""
    check(labels, LABELS)
    assert labels.columns == [*LABELS, "nearest", "similarity", *SHIFTS]
    some, none = (labels.filter(pl.col("reason").is_null() == said) for said in (True, False))
    probs = probs_of(some)
    assert probs.shape == (some.height, len(grades))
    assert (probs >= 0).all()
    np.testing.assert_allclose(probs.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(some["gain"], probs @ np.array(grades), atol=1e-5)
    assert set(some["relevance"]) <= set(grades)
    assert some["labeler"].null_count() == 0
    for column in ("relevance", "probs", "gain", "nearest", "similarity"):
        assert none[column].null_count() == none.height


def test_every_pair_with_a_signal_has_a_label(world: Drawn, by_budget: dict[int, Calibrated]) -> None:
    for done in by_budget.values():
        sound(done.labels)
        assert_frame_equal(done.labels.select(KEYS), world[0].select(KEYS).sort(KEYS))
        assert done.labels["relevance"].null_count() == 0
        name = f"fake@12345678/{done.calibrator.fingerprint[:8]}"
        assert done.labels["labeler"].unique().to_list() == [name]


def test_without_a_signal_there_is_no_label_but_the_reason(small: Drawn) -> None:
    given, human = small
    reason = (
        pl.when(pl.col("doc_id") == "d000").then(pl.lit("no text"))
        .when(pl.col("doc_id") == "d030").then(pl.lit("TimeoutError: late"))
    )  # fmt: skip
    dead = given.with_columns(reason.alias("reason")).with_columns(
        pl.when(pl.col("reason").is_null()).then(pl.col(c)).alias(c) for c in ("score", "vector")
    )
    nameless = pl.col("doc_id") == "d031"
    dead = dead.with_columns(pl.when(~nameless).then(pl.col(c)).alias(c) for c in ("score", "vector"))
    done = calibrate([dead], human, GRADES)
    sound(done.labels)
    none = done.labels.filter(pl.col("relevance").is_null())
    assert dict(none.select("doc_id", "reason").unique().iter_rows()) == {
        "d000": "no text",
        "d030": "TimeoutError: late",
        "d031": "no signal",
    }
    assert none.height == 3 * 3
    assert done.report["judgments"] == human.height - 3, "a judged pair without a signal teaches nothing"


def test_a_second_labeler_speaks_where_the_first_is_silent(small: Drawn, model: Calibrator) -> None:
    given, human = small
    rng = np.random.default_rng(0)
    other = given.select(
        *KEYS,
        pl.Series("probs", rng.dirichlet(np.ones(4), given.height).tolist(), SIGNALS["probs"]),
        pl.lit(None, pl.Float32).alias("score"),
        pl.lit("llm@87654321").alias("labeler"),
        pl.lit(None, pl.String).alias("reason"),
    )
    silent = pl.col("doc_id") >= "d050"
    first = given.with_columns(
        pl.when(~silent).then(pl.col("score")).alias("score"),
        pl.when(~silent).then(pl.col("vector")).alias("vector"),
        pl.when(silent).then(pl.lit("no text")).alias("reason"),
    )
    done = calibrate([first, other], human, GRADES)
    sound(done.labels)
    assert done.labels["relevance"].null_count() == 0
    assert done.calibrator.labelers == ("fake@12345678", "llm@87654321")
    with pytest.raises(CalibrationError, match=r"signals of fake@12345678;(?s:.*)llm@87654321(?s:.*)Next: "):
        calibrate([first, other], human, GRADES, calibrator=model)


# -- what a label rests on -----------------------------------------------------------------------------------


def test_a_topic_without_judgments_has_the_other_topics_calibration(
    world: Drawn, by_budget: dict[int, Calibrated]
) -> None:
    """The judgments of other topics reach it through the fit alone: given the fit, they say nothing."""
    given, truth = world
    done = by_budget[0]
    alone = given.filter(query_id="q5")
    again = calibrate([alone], truth.clear(), GRADES, calibrator=done.calibrator)
    # Hard grades are cut where the same share of pairs lies below, in a pool that says nothing of its own.
    assert_frame_equal(again.labels.drop("relevance"), done.labels.filter(query_id="q5").drop("relevance"))
    assert again.labels["nearest"].null_count() == alone.height
    assert again.report["judgments"] == 0
    assert np.ptp(again.labels["gain"].to_numpy()) > 0.2, "the score still counts"
    assert set(again.labels["relevance"]) == set(GRADES)


def test_without_neighbours_a_topics_own_judgments_say_nothing(small: Drawn, model: Calibrator) -> None:
    given, human = small
    other = flipped(human, human.filter(query_id="q0").select(KEYS).iter_rows())
    off, same = (
        calibrate([given], h, GRADES, neighbours=False, calibrator=model).labels for h in (human, other)
    )
    assert_frame_equal(off, same)
    assert off["nearest"].null_count() == off.height
    on, moved = (calibrate([given], h, GRADES, calibrator=model).labels for h in (human, other))
    assert np.abs(probs_of(on) - probs_of(moved))[(on["query_id"] == "q0").to_numpy()].max() > 0.2
    assert_frame_equal(on.filter(pl.col("query_id") != "q0"), moved.filter(pl.col("query_id") != "q0"))


def test_without_neighbours_it_is_fitted_without_them(small: Drawn) -> None:
    given, human = small
    done = calibrate([given], human, GRADES, neighbours=False)
    assert set(done.calibrator.kernels) == {"topic", "slope"}
    assert done.labels["nearest"].null_count() == done.labels.height
    assert done.report["left_out"] == done.report["left_out_bare"]


def test_the_report_is_about_the_labels_that_are_given(small: Drawn, model: Calibrator) -> None:
    """With neighbours off, and on a topic whose only judgment cannot speak about itself."""
    given, human = small
    for said, neighbours in ((human, False), (budget(human, {"q0": 12, "q1": 1, "q2": 1}), True)):
        done = calibrate([given], said, GRADES, neighbours=neighbours, calibrator=model)
        assert done.report["left_out"] == pytest.approx(measured(done, said.sort(KEYS)), abs=2e-3)


def test_a_judged_pair_is_labeled_without_its_own_judgment(small: Drawn, model: Calibrator) -> None:
    """Turning its grade upside down moves others' labels, and its own by no more than Laplace's error."""
    given, human = small
    before = calibrate([given], human, GRADES, calibrator=model).labels
    own, others, kept = [], [], 0
    turned = human.select(KEYS).rows()[::4]
    for pair in turned:
        after = calibrate([given], flipped(human, [pair]), GRADES, calibrator=model).labels
        moved = np.abs(probs_of(before) - probs_of(after)).max(axis=1)
        itself = ((before["query_id"] == pair[0]) & (before["doc_id"] == pair[1])).to_numpy()
        own.append(moved[itself].item())
        others.append(moved[~itself].max())
        kept += bool((before["relevance"] == after["relevance"]).to_numpy()[itself].item())
    assert np.mean(own) < 0.04
    assert max(own) < 0.15
    assert np.mean(others) > 0.2
    assert kept >= len(turned) - 1


def test_a_judged_near_duplicate_speaks(small: Drawn, model: Calibrator) -> None:
    """A hole with a judged document's text is labeled like it, and counted."""
    given, human = small
    top = human.filter(pl.col("relevance") == 3, pl.col("query_id") == "q0")["doc_id"][0]
    vector = given.filter(query_id="q0", doc_id=top)["vector"].to_list()[0]
    here = (pl.col("query_id") == "q0") & (pl.col("doc_id") == "d059")
    copied = given.with_columns(
        pl.when(here).then(pl.lit(vector, given.schema["vector"])).otherwise("vector").alias("vector")
    )
    done = calibrate([copied], human, GRADES, calibrator=model)
    row = done.labels.filter(query_id="q0", doc_id="d059").row(0, named=True)
    assert (row["nearest"], row["similarity"]) == (top, pytest.approx(1, abs=1e-6))
    before = calibrate([given], human, GRADES, calibrator=model)
    assert done.report["near_duplicates"] == before.report["near_duplicates"] + 1
    other = calibrate([copied], flipped(human, [("q0", top)]), GRADES, calibrator=model)
    gains = [d.labels.filter(query_id="q0", doc_id="d059")["gain"].item() for d in (done, other)]
    assert gains[0] > gains[1] + 0.5


def test_nearest_is_the_judged_document_with_the_largest_cosine(small: Drawn, model: Calibrator) -> None:
    given, human = small
    blank = pl.col("doc_id").is_in(["d003", "d040"])  # a judged and an unjudged one without a vector
    given = given.with_columns(pl.when(~blank).then(pl.col("vector")).alias("vector"))
    said = pl.concat([budget(human, {"q0": 12, "q1": 1}), human.filter(query_id="q2", doc_id="d003")])
    labels = calibrate([given], said, GRADES, calibrator=model).labels
    vectors = {(q, d): np.array(v) for q, d, v in given.select(*KEYS, "vector").iter_rows() if v is not None}
    for q, d, nearest, similarity in labels.select(*KEYS, "nearest", "similarity").iter_rows():
        others = [
            (float(vectors[q, d] @ vectors[q, j]), j)
            for t, j in said.select(KEYS).iter_rows()
            if t == q and j != d and (q, j) in vectors and (q, d) in vectors
        ]
        if others:
            assert (similarity, nearest) == (pytest.approx(max(others)[0], abs=1e-6), max(others)[1])
        else:
            assert (similarity, nearest) == (None, None)


def test_judged_duplicates_that_disagree_are_reported() -> None:
    given, truth = drawn(topics=2, docs=20, seed=5)
    vectors = given["vector"].to_numpy().copy()
    vectors[1], vectors[21] = vectors[0], vectors[20]
    given = given.with_columns(pl.Series("vector", vectors, given.schema["vector"]))
    graded = truth["relevance"].to_list()
    graded[0], graded[1], graded[20], graded[21] = 2, 2, 0, 3
    human = judged_as(truth.with_columns(relevance=pl.Series(graded)))
    report = calibrate([given], human, GRADES).report
    assert report["duplicates_graded_alike"] == 0.5
    assert report["near_duplicates"] == 0, "there are no holes"


# -- the same again ------------------------------------------------------------------------------------------


def test_row_order_does_not_matter_and_judgments_do(small: Drawn) -> None:
    given, human = small
    one = calibrate([given], human, GRADES)
    mixed = calibrate(
        [given.sample(fraction=1, shuffle=True, seed=1)],
        human.sample(fraction=1, shuffle=True, seed=2),
        list(reversed(GRADES)),
    )
    assert_frame_equal(one.labels, mixed.labels)
    assert one.calibrator == mixed.calibrator
    assert one.report == mixed.report
    other = calibrate([given], flipped(human, [human.select(KEYS).row(0)]), GRADES).calibrator
    assert other.judgments_hash != one.calibrator.judgments_hash
    assert other.fingerprint != one.calibrator.fingerprint
    assert replace(one.calibrator, seed=9).fingerprint != one.calibrator.fingerprint


def test_a_pair_given_twice_counts_once(small: Drawn, model: Calibrator) -> None:
    given, human = small
    once = calibrate([given], human, GRADES, calibrator=model)
    twice = calibrate([pl.concat([given, given])], human, GRADES, calibrator=model)
    assert_frame_equal(once.labels, twice.labels)


def test_what_is_no_judgment_changes_nothing(small: Drawn, model: Calibrator) -> None:
    """Negative grades, labels of an earlier filling, and judgments of pairs that are not asked about."""
    given, human = small
    more = [
        judged_as(given.filter(doc_id="d058").select(*KEYS, relevance=pl.lit(-1))),
        judged_as(given.filter(doc_id="d057").select(*KEYS, relevance=pl.lit(3))).with_columns(
            assessor=pl.lit("fake@12345678/0badcafe")
        ),
        judged_as(pl.DataFrame({"query_id": ["q0", "q99"], "doc_id": ["d777", "d000"], "relevance": [3, 0]})),
    ]
    plain = calibrate([given], human, GRADES)
    assert_frame_equal(calibrate([given], pl.concat([human, *more]), GRADES).labels, plain.labels)


def test_threads_do_not_matter(small: Drawn, tmp_path: Path) -> None:
    """Here, and in a process with another number of threads."""
    given, human = small
    here = calibrate([given], human, GRADES)
    given.write_parquet(tmp_path / "signals.parquet")
    human.write_parquet(tmp_path / "human.parquet")
    code = dedent("""
        import sys
        import polars as pl
        from harness.calibrate import calibrate
        given, human, out = sys.argv[1:]
        calibrate([pl.read_parquet(given)], pl.read_parquet(human), (0, 1, 2, 3)).labels.write_parquet(out)
    """)
    number = "2" if pl.thread_pool_size() == 1 else "1"
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS"), number)
    files = [str(tmp_path / f"{name}.parquet") for name in ("signals", "human", "labels")]
    subprocess.run([sys.executable, "-c", code, *files], env=os.environ | threads, check=True, timeout=120)
    there = pl.read_parquet(files[-1])
    np.testing.assert_allclose(probs_of(here.labels), probs_of(there), atol=1e-4)
    assert_frame_equal(here.labels.drop("probs", "gain"), there.drop("probs", "gain"))


# -- what holes are known by ---------------------------------------------------------------------------------


def lone(human: pl.DataFrame, grade: int, runs: int = 3) -> pl.DataFrame:
    """Judged pairs of one grade, each found by one of several runs alone."""
    chosen = human.filter(relevance=grade).select(KEYS)
    return chosen.with_columns(run=pl.format("run{}", pl.int_range(pl.len()) % runs))


@pytest.mark.parametrize(("grade", "sign"), [(0, -1), (3, 1)])
def test_labels_of_holes_move_by_the_offset_and_left_out_ones_do_not(
    small: Drawn, grade: int, sign: int
) -> None:
    """What one run alone found was worse (or better) than its labels; so must holes be."""
    given, human = small
    still, there = (
        calibrate([given], human, GRADES),
        calibrate([given], human, GRADES, found_once=lone(human, grade)),
    )
    offset = there.calibrator.offset
    assert sign * offset > 0.1
    holes = still.labels.select(KEYS).join(human, on=KEYS, how="anti", maintain_order="left")
    judged = still.labels.join(human, on=KEYS, how="semi", maintain_order="left")
    for pairs, expected in ((holes, offset), (judged, 0.0)):
        one, other = (
            pairs.select(KEYS).join(done.labels, on=KEYS, maintain_order="left") for done in (still, there)
        )
        np.testing.assert_allclose(probs_of(other), moved(probs_of(one), expected), atol=3e-4)
    assert there.report["left_out"] == still.report["left_out"]
    assert (
        replace(
            there.calibrator,
            **{k: getattr(still.calibrator, k) for k in ("offset", "shift_all", "shift_topic")},
        )
        == still.calibrator
    )
    sound(there.labels)


def test_every_label_carries_the_shifts_of_its_calibrator(small: Drawn) -> None:
    given, human = small
    silent = given.with_columns(
        score=pl.when(pl.col("doc_id") == "d050").then(None).otherwise("score"),
        vector=pl.when(pl.col("doc_id") == "d050").then(None).otherwise("vector"),
        reason=pl.when(pl.col("doc_id") == "d050").then(pl.lit("no text")),
    )
    done = calibrate([silent], human, GRADES, found_once=lone(human, 0))
    some = done.labels.filter(pl.col("reason").is_null())
    for column, value in zip(SHIFTS, (done.calibrator.shift_all, done.calibrator.shift_topic), strict=True):
        assert value > 0
        assert some[column].unique().to_list() == [np.float32(value)]
        assert done.labels.filter(pl.col("reason").is_not_null())[column].to_list() == [None] * 3
        assert done.report[column] == value
    assert done.report["offset"] == done.calibrator.offset


def test_without_documents_that_one_run_alone_found_the_priors_stand(small: Drawn) -> None:
    given, human = small
    nobody = pl.DataFrame(schema={"query_id": pl.String, "doc_id": pl.String, "run": pl.String})
    holes_only = given.filter(pl.col("doc_id") >= "d020").select(KEYS).with_columns(run=pl.lit("a"))
    for said in (None, nobody, holes_only):
        model = calibrate([given], human, GRADES, found_once=said).calibrator
        assert (model.offset, model.shift_all, model.shift_topic) == (0.0, NOTHING.all, NOTHING.topic)


def test_a_calibrator_from_elsewhere_brings_its_offset_and_shifts(small: Drawn, model: Calibrator) -> None:
    """Whatever documents here say of holes: a calibrator that was asked for is used as it is."""
    given, human = small
    there = replace(model, offset=-0.7, shift_all=0.25, shift_topic=0.125)
    for said in (None, lone(human, 3)):
        done = calibrate([given], human, GRADES, calibrator=there, found_once=said)
        plain = calibrate([given], human, GRADES, calibrator=replace(there, offset=0.0))
        assert done.calibrator is there
        assert done.labels["shift_all"].unique().to_list() == [0.25]
        assert done.labels["shift_topic"].unique().to_list() == [0.125]
        mine = done.labels.join(human, on=KEYS, how="anti", maintain_order="left")
        theirs = plain.labels.join(human, on=KEYS, how="anti", maintain_order="left")
        np.testing.assert_allclose(probs_of(mine), moved(probs_of(theirs), -0.7), atol=3e-4)
        assert (mine["gain"] < theirs["gain"]).all()
        left_out = [d.labels.join(human, on=KEYS, how="semi")["gain"].to_list() for d in (done, plain)]
        assert left_out[0] == left_out[1]


# -- the calibrator as a file --------------------------------------------------------------------------------


def test_a_calibrator_survives_its_file(small: Drawn, model: Calibrator, tmp_path: Path) -> None:
    model = replace(model, offset=-0.3, shift_all=0.2, shift_topic=0.4)
    file = tmp_path / "calibrator.json"
    file.write_text(model.to_json())
    back = Calibrator.read(file)
    assert back == model
    assert (back.offset, back.shift_all, back.shift_topic) == (-0.3, 0.2, 0.4)
    assert back.fingerprint == model.fingerprint
    given, human = small
    one, two = (calibrate([given], human, GRADES, calibrator=c).labels for c in (model, back))
    assert_frame_equal(one, two)
    assert "d000" not in model.to_json(), "no single judgment is in it"


def _changed(**parts: Any) -> Any:
    return lambda text: json.dumps({**json.loads(text), **parts})


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text[:-9],
        lambda text: "[1, 2]",
        lambda text: "7",
        lambda text: "{}",
        lambda text: "\x00",
        _changed(weights=["a", "b"]),
        _changed(weights=[1.0]),
        _changed(weights=[1.0, float("nan")]),
        _changed(cuts=[1.0]),
        _changed(thresholds=3),
        _changed(temper=[1.0]),
        _changed(kernels=["topic", "direction", "wide", "narrow", "unheard of"]),
        _changed(shift_all=-0.1),
        _changed(shift_topic=-1e-9),
        _changed(offset=float("nan")),
        _changed(shift_all=float("inf")),
        _changed(offset=[0.1]),
        _changed(seed="x"),
        _changed(more=1),
    ],
)
def test_a_file_that_is_no_calibrator(spoil: Any, model: Calibrator, tmp_path: Path) -> None:
    file = tmp_path / "bad.json"
    file.write_text(spoil(model.to_json()))
    with pytest.raises(InputError, match=r"bad\.json: is no calibrator(?s:.*)Next: "):
        Calibrator.read(file)


def test_a_calibrator_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.json: is no calibrator"):
        Calibrator.read(tmp_path / "absent.json")


# -- what cannot be calibrated -------------------------------------------------------------------------------


def test_errors_say_what_to_do_next(small: Drawn, model: Calibrator) -> None:
    given, human = small
    with pytest.raises(CalibrationError, match=r"none of the judged pairs has a signal(?s:.*)Next: judge"):
        calibrate([given], pl.DataFrame(schema=QRELS), GRADES)
    with pytest.raises(CalibrationError, match="none of the judged pairs has a signal"):
        calibrate([given.filter(pl.col("doc_id") >= "d050")], human, GRADES)
    zeros = human.filter(relevance=0)
    with pytest.raises(CalibrationError, match=rf"all {zeros.height} judgments have grade 0(?s:.*)Next: add"):
        calibrate([given], zeros, GRADES)
    with pytest.raises(CalibrationError, match=r"has grade 3.*grades are 0, 1, 2(?s:.*)Next: "):
        calibrate([given], human, (0, 1, 2))
    with pytest.raises(CalibrationError, match=r"fitted on grades \(0, 1, 2, 3\)(?s:.*)Next: "):
        calibrate([given], human, (0, 1, 2, 3, 4), calibrator=model)
    with pytest.raises(CalibrationError, match=r"vectors of documents(?s:.*)Next: "):
        calibrate([given.drop("vector")], human, GRADES, calibrator=model)


def test_its_own_calibrator_labels_a_pool_as_it_was_labeled(
    world: Drawn, by_budget: dict[int, Calibrated], model: Calibrator
) -> None:
    given, truth = world
    human = budget(truth, dict.fromkeys(DONORS, 15) | dict.fromkeys(TARGETS, 10))
    again = calibrate([given], human, GRADES, calibrator=model)
    assert_frame_equal(again.labels, by_budget[10].labels)
    assert again.report == by_budget[10].report


def test_a_calibrator_from_elsewhere_needs_no_judgments(small: Drawn, model: Calibrator) -> None:
    given, human = small
    none = calibrate([given], human.clear(), GRADES, calibrator=model)
    sound(none.labels)
    assert none.calibrator is model
    assert "left_out" not in none.report
    zeros, threes = (
        calibrate([given], judged_as(human.head(5).with_columns(relevance=g)), GRADES, calibrator=model)
        for g in (pl.lit(0), pl.lit(3))
    )
    sound(zeros.labels)
    gains = [d.labels.filter(query_id="q0")["gain"].mean() for d in (zeros, threes)]
    assert gains[0] < gains[1] - 0.1, "one grade is enough where nothing is fitted"


# -- real judgments ------------------------------------------------------------------------------------------


def test_gpt_4s_labels_calibrated_on_twenty_judgments_a_topic(data_dir: Path) -> None:
    """DL21, every second topic: what 20 judgments make of UMBRELA's labels, on the other judged pairs."""
    from harness.trec import read_qrels

    folder = data_dir / "dl21_passage_runs"
    truth = read_qrels(folder / "qrels.human.txt")
    truth = truth.filter(pl.col("query_id").rank("dense") % 2 == 0)
    words = {g: f"grade {g}" for g in GRADES}
    given = signals(load(f"lookup:{folder / 'qrels.umbrela_gpt4.txt'}", words), truth.select(KEYS))
    shown = truth.sample(fraction=1, shuffle=True, seed=1).group_by("query_id", maintain_order=True).head(20)
    rest = truth.join(shown, on=KEYS, how="anti", maintain_order="left")
    assert (shown.height, rest.height) == (26 * 20, truth.height - 26 * 20)
    calibrated = measured(calibrate([given], shown, GRADES), rest)
    raw = rest.join(given, on=KEYS, maintain_order="left")
    one_hot = probs_of(raw)
    plain = quality(one_hot, one_hot.argmax(axis=1), rest["relevance"].to_numpy(), GRADES)
    assert calibrated["kappa"] > plain["kappa"] - 0.02, (calibrated, plain)
    assert calibrated["kappa_quadratic"] > plain["kappa_quadratic"]
    assert calibrated["ece"] < plain["ece"] / 2
    assert calibrated["auc"] > plain["auc"]


# -- the company a document keeps ----------------------------------------------------------------------------


def test_the_pool_says_how_like_its_best_and_its_nearest_a_document_is() -> None:
    """Against the same sums written out, for a pool with a document that has no vector."""
    rng = np.random.default_rng(5)
    vectors = rng.standard_normal((24, 6)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    scores = rng.random(24)
    signals = pl.DataFrame(
        {
            "query_id": ["q"] * 24,
            "doc_id": [f"d{i:02}" for i in range(24)],
            "probs": pl.Series([None] * 24, dtype=pl.List(pl.Float32)),
            "score": pl.Series(scores, dtype=pl.Float32),
            "labeler": ["fake@12345678"] * 24,
            "reason": pl.Series([None] * 24, dtype=pl.String),
            "vector": pl.Series([*vectors[:-1].tolist(), None], dtype=pl.Array(pl.Float32, 6)),
        }
    )
    pool = read_pool([signals], pl.DataFrame(schema=QRELS), GRADES)
    names = [c.name for c in pool.columns]
    best, nearest = (pool.x[:, names.index(f"pool: likeness to its {what}")] for what in ("best", "nearest"))
    first = sorted(range(23), key=lambda i: -scores[i])[:10]
    for i in range(23):
        assert best[i] == pytest.approx(np.mean([vectors[i] @ vectors[j] for j in first]), abs=1e-5)
        alike = sorted((float(vectors[i] @ vectors[j]) for j in range(23) if j != i), reverse=True)
        assert nearest[i] == pytest.approx(np.mean(alike[:10]), abs=1e-5)
    assert np.isnan([best[23], nearest[23]]).all()
    assert not any(
        "pool" in c.name
        for c in read_pool([signals.drop("vector")], pl.DataFrame(schema=QRELS), GRADES).columns
    )


def test_cuts_are_carried_to_a_pool_without_judgments_by_the_shares_below_them() -> None:
    rng = np.random.default_rng(3)
    probs = rng.dirichlet([1.0, 1.0, 1.0, 1.0], 4000)
    cuts = (0.9, 1.5, 2.1)
    below = shares(probs, cuts, GRADES)
    gain = probs @ np.arange(4.0)
    assert below == pytest.approx([(gain <= c).mean() for c in cuts])
    shifted = np.column_stack([probs[:, 0] * 0.3, probs[:, 1:] + probs[:, :1] * 0.7 / 3])
    moved = carried(shifted, below, cuts, GRADES)
    assert shares(shifted, moved, GRADES) == pytest.approx(below, abs=0.03)
    assert carried(probs[:0], below, cuts, GRADES) == cuts
    assert np.all(np.abs(np.subtract(carried(shifted[:2], below, cuts, GRADES), cuts)) < 0.05)
