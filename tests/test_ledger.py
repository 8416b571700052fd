"""The ledger: what is in it comes back as it was, whoever wrote it and however it lies in files."""

from __future__ import annotations

import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from harness import ledger as module
from harness import places
from harness.errors import InputError, MissingExtra, UsageError
from harness.ledger import SIGNAL_ROWS, Ledger, text_hash, text_hashes


def digest(kind: str, i: int) -> bytes:
    return sha256(f"{kind}{i}".encode()).digest()


def rows(numbers: range | list[int]) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "query_hash": [digest("q", i % 7) for i in numbers],
            "doc_hash": [digest("d", i) for i in numbers],
            "probs": [[0.25, i / 1000, 0.1, 0.2] if i % 3 else None for i in numbers],
            "score": [i / 7 for i in numbers],
            "features": [[float(i)] * 5 for i in numbers],
        },
        schema=SIGNAL_ROWS,
    )


def expected(asked: list[int], stored: set[int]) -> pl.DataFrame:
    kept = [(row, i) for row, i in enumerate(asked) if i in stored]
    values = rows([i for _, i in kept]).drop("query_hash", "doc_hash")
    return values.insert_column(0, pl.Series("row", [row for row, _ in kept], dtype=pl.UInt32))


def files(ledger: Ledger, fingerprint: str) -> int:
    return len(list(Path(ledger.path, "signals", f"fingerprint={fingerprint}").glob("*.parquet")))


def test_what_is_appended_is_found_bit_for_bit(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "new" / "ledger")
    assert ledger.version is None
    assert ledger.signals.find("f", rows(range(3))).is_empty()
    ledger.signals.append("f", rows(range(300)))
    asked = [299, 5, 1000, 0, 17]
    for found in (ledger, Ledger(tmp_path / "new" / "ledger")):
        assert_frame_equal(found.signals.find("f", rows(asked)), expected(asked, set(range(300))))
    assert ledger.signals.find("g", rows(asked)).is_empty()
    assert ledger.signals.find("f", rows(asked)[:0]).is_empty()
    swapped = rows(asked).rename({"query_hash": "doc_hash", "doc_hash": "query_hash"})
    assert ledger.signals.find("f", swapped).is_empty()


def test_nothing_to_append_makes_no_commit(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.signals.append("f", rows([]))
    assert ledger.version is None
    assert ledger.history().is_empty()


@settings(max_examples=15, deadline=None)
@given(
    batches=st.lists(st.lists(st.integers(0, 60), unique=True, max_size=25), max_size=6),
    asked=st.lists(st.integers(0, 80), unique=True, max_size=60),
)
def test_any_batches_any_questions(batches: list[list[int]], asked: list[int]) -> None:
    ledger, stored = Ledger(), set[int]()
    for batch in batches:
        ledger.signals.append("f", rows(batch))
        stored |= set(batch)
        assert_frame_equal(ledger.signals.find("f", rows(asked)), expected(asked, stored))
    ledger.signals.compact("f")
    assert_frame_equal(Ledger(ledger.path).signals.find("f", rows(asked)), expected(asked, stored))


def test_rows_far_apart_in_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "_GAP", 3)
    ledger = Ledger(tmp_path)
    ledger.signals.append("f", rows(range(100)))
    asked = [99, 0, 50, 1, 47, 48, 10]
    assert_frame_equal(ledger.signals.find("f", rows(asked)), expected(asked, set(range(100))))


def test_the_same_64_bits_are_not_the_same_pair(tmp_path: Path) -> None:
    ledger, stored = Ledger(tmp_path), rows([1])
    ledger.signals.append("f", stored)
    other = stored.with_columns(pl.lit(stored["doc_hash"][0][:8] + b"\0" * 24).alias("doc_hash"))
    assert ledger.signals.find("f", other).is_empty()


def test_where_a_row_was_stored_twice_the_first_counts(tmp_path: Path) -> None:
    ledger, row = Ledger(tmp_path), rows([1])
    ledger.signals.append("f", row)
    ledger.signals.append("f", row.with_columns(score=pl.lit(9.0, pl.Float32)))
    assert Ledger(tmp_path).signals.find("f", row)["score"].to_list() == row["score"].to_list()


@pytest.mark.parametrize("fingerprint", ["sha:a/b", "50% [x]*?", "é=1", "a b", "'; --"])
def test_fingerprints_that_would_make_odd_file_names(fingerprint: str, tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "a folder é 100%#?")
    ledger.signals.append(fingerprint, rows(range(4)))
    ledger.signals.append("other", rows(range(9)))
    assert ledger.signals.find(fingerprint, rows(range(9))).height == 4


def test_many_files_are_put_together_and_older_versions_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MANY_FILES", 5)
    ledger = Ledger(tmp_path)
    for i in range(5):
        ledger.signals.append("f", rows(range(i * 10, i * 10 + 10)))
    ledger.compact("f")
    assert files(ledger, "f") == 5  # not many enough
    before = ledger.version or 0
    ledger.signals.append("f", rows(range(50, 60)))
    ledger.signals.append("g", rows(range(3)))
    reader = Ledger(tmp_path)
    reader.signals.find("f", rows(range(60)))
    ledger.compact("f")
    assert ledger.history()["operation"][0] == "OPTIMIZE"
    asked = list(range(70))
    for one in (ledger, reader, Ledger(tmp_path)):
        assert_frame_equal(one.signals.find("f", rows(asked)), expected(asked, set(range(60))))
    assert ledger.signals.find("g", rows(asked)).height == 3
    assert ledger.at(before).signals.find("f", rows(asked)).height == 50
    assert len(ledger.signals._newest().file_uris()) == 2  # one a fingerprint


def test_time_travel(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    for i in range(3):
        ledger.signals.append("f", rows([i]))
    assert ledger.version == 3
    for version in range(4):
        old = ledger.at(version)
        assert old.read_only
        assert old.version == version
        assert old.signals.find("f", rows(range(5)))["row"].to_list() == list(range(version))
        with pytest.raises(UsageError, match="can only be read"):
            old.signals.append("f", rows([9]))
        old.compact("f")
    assert ledger.version == 3
    history = ledger.history()
    assert history["version"].to_list() == [3, 2, 1, 0]
    assert history["rows"].to_list() == [1, 1, 1, None]
    assert history["time"].is_sorted(descending=True)
    for none in (-1, 4):
        with pytest.raises(UsageError, match=f"has no version {none}; it has versions 0 to 3"):
            ledger.at(none)
    with pytest.raises(UsageError, match="it has nothing yet"):
        Ledger(tmp_path / "other").at(0)


def test_the_log_is_kept_for_ever(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.signals.append("f", rows([1]))
    configuration = ledger.signals._newest().metadata().configuration
    assert configuration["delta.enableExpiredLogCleanup"] == "false"


APPEND = """
import sys
sys.path.insert(0, {here!r})
from test_ledger import Ledger, rows
start = int(sys.argv[1])
ledger = Ledger({path!r})
for i in range(start, start + 100, 10):
    ledger.signals.append("f", rows(range(i, i + 10)))
ledger.signals.append("f", rows(range(1000, 1010)))
ledger.compact("f")
"""


def test_several_processes_append_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = APPEND.format(here=str(Path(__file__).parent), path=str(tmp_path / "l"))
    running = [subprocess.Popen([sys.executable, "-c", code, str(start)]) for start in (0, 100, 200)]
    watching = Ledger(tmp_path / "l")
    asked = list(range(1020))
    seen = 0
    while any(p.poll() is None for p in running):
        now = watching.signals.find("f", rows(asked)).height
        assert now >= seen
        assert now % 10 == 0  # commits are whole or not there
        seen = now
    assert [p.wait() for p in running] == [0, 0, 0]
    stored = set(range(300)) | set(range(1000, 1010))
    for ledger in (watching, Ledger(tmp_path / "l")):
        assert_frame_equal(ledger.signals.find("f", rows(asked)), expected(asked, stored))


def test_without_a_path_it_goes_with_the_ledger() -> None:
    ledger = Ledger()
    ledger.signals.append("f", rows([1]))
    folder, old = Path(ledger.path), ledger.at(1)
    del ledger
    assert old.signals.find("f", rows([1])).height == 1  # an older version keeps it alive
    del old
    assert not folder.exists()
    code = "from test_ledger import *; l = Ledger(); l.signals.append('f', rows([1])); print(l.path)"
    run = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=Path(__file__).parent
    )
    assert not Path(run.stdout.strip()).exists()


def test_a_url_is_passed_on(tmp_path: Path) -> None:
    ledger = Ledger(f"{tmp_path.as_uri()}/l/")
    ledger.signals.append("f", rows(range(5)))
    assert Ledger(tmp_path / "l").signals.find("f", rows(range(9))).height == 5


@pytest.mark.parametrize("bad", "[]|^\\")
def test_a_path_that_deltalake_cannot_take_is_refused_at_once(bad: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="a Delta table's path cannot have"):
        Ledger(tmp_path / f"a{bad}b")


def test_a_path_that_cannot_be_a_ledger(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is a file; a ledger is a folder"):
        Ledger(tmp_path / "file")
    (tmp_path / "under").mkdir()
    (tmp_path / "under" / "signals").write_text("")
    with pytest.raises(InputError, match="under/signals: cannot be used as a ledger's table"):
        Ledger(tmp_path / "under").signals.append("f", rows([1]))


def test_a_ledger_that_somebody_took_files_from(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.signals.append("f", rows([1]))
    shutil.rmtree(tmp_path / "signals" / "fingerprint=f")
    for broken in (ledger, Ledger(tmp_path)):
        with pytest.raises(InputError, match=r"cannot be used as a ledger's table(.|\n)*nobody vacuumed"):
            broken.signals.find("f", rows([1]))


def test_vectors_come_back_bit_for_bit(tmp_path: Path) -> None:
    values = np.random.default_rng(1).normal(size=(50, 384)).astype(np.float32)
    hashes = pl.DataFrame({"doc_hash": text_hashes([f"text {i}" for i in range(50)])})
    Ledger(tmp_path).vectors.append("f", hashes.with_columns(vector=values))
    found = Ledger(tmp_path).vectors.find("f", hashes[[7, 3, 49]])
    assert found["row"].to_list() == [0, 1, 2]
    np.testing.assert_array_equal(
        found["vector"].cast(pl.Array(pl.Float32, 384)).to_numpy(), values[[7, 3, 49]]
    )


def test_text_hashes_are_those_of_the_bytes() -> None:
    assert text_hash("é") == sha256("é".encode()).digest()
    assert text_hashes(["a", "é", "a"]) == [text_hash("a"), text_hash("é"), text_hash("a")]


def test_neither_pyarrow_nor_deltalake_is_needed_to_import(tmp_path: Path) -> None:
    code = f"""
import sys
sys.modules["pyarrow"] = None
from test_ledger import Ledger, rows
ledger = Ledger({str(tmp_path / "l")!r})
assert "deltalake" not in sys.modules
ledger.signals.append("f", rows([1]))
assert ledger.signals.find("f", rows([1])).height == 1
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent)


def test_a_missing_deltalake_names_its_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("deltalake", "deltalake.exceptions"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(
        MissingExtra, match=r"deltalake is not installed. Next: pip install 'stopgap\[ledger\]'"
    ):
        Ledger(tmp_path).signals.append("f", rows([1]))
