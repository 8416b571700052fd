"""What a gate does most, on the embedded collection: reading, counting holes, scoring, comparing.

Small and quick, for `tox -e gate`. Each takes turns with the reference workload.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from harness.compare import compare
from harness.frames import Runs
from harness.measure import measure
from harness.pool import summary
from harness.trec import read_qrels, read_runs

ROOT = Path(__file__).resolve().parents[2]
FILES = [ROOT / "runs" / "demo" / f"{name}.run" for name in ("bm25", "dense", "hybrid")]
Timed = Callable[..., Any]
MEASURES = ["nDCG@10", "AP", "RR@10"]


@pytest.fixture(scope="module")
def runs() -> Runs:
    return read_runs(FILES)


@pytest.fixture(scope="module")
def qrels() -> pl.DataFrame:
    return read_qrels(ROOT / "qrels" / "demo" / "filled.qrels")


def test_reading(against_reference: Timed) -> None:
    assert len(against_reference(read_runs, FILES, rounds=40)) == 3


def test_counting_holes(against_reference: Timed, runs: Runs, qrels: pl.DataFrame) -> None:
    assert against_reference(summary, runs, qrels, 10, rounds=40)["runs"]["bm25"]["holes"] == 0


def test_scoring(against_reference: Timed, runs: Runs, qrels: pl.DataFrame) -> None:
    found = against_reference(measure, runs, qrels, MEASURES, rounds=40)
    assert found.runs["hybrid"]["nDCG@10"] > found.runs["bm25"]["nDCG@10"]


def test_comparing(against_reference: Timed, runs: Runs, qrels: pl.DataFrame) -> None:
    found = against_reference(compare, runs, qrels, MEASURES, rounds=15)
    assert found.found["hybrid"]["nDCG@10"].wins > 23
