"""Ray on this machine: started once for all tests, with three workers."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.ray_engine import RayEngine

HERE = Path(__file__).resolve().parent


@pytest.fixture(scope="session")
def cluster() -> Iterator[RayEngine]:
    """An engine on a cluster of its own; engines that are made later find it running."""
    with RayEngine(workers=3) as engine:
        yield engine


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the labelers of `seen.py`, to be in."""
    shutil.copy(HERE / "seen.py", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(os.getcwd())
    return tmp_path
