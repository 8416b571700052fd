"""Fixtures that several test files share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real collections: STOPGAP_DATA, by default ../shared/data beside the checkout."""
    folder = Path(os.environ.get("STOPGAP_DATA") or ROOT.parent / "shared" / "data")
    if not (folder / "dl19_passage").is_dir():
        pytest.skip(f"no real collections at {folder}; set STOPGAP_DATA to their folder")
    return folder


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Caches go to a folder of this test run, never to the user's."""
    monkeypatch.setenv("STOPGAP_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
