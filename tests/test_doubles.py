"""The doubles `constant` and `lookup`: baselines that need no text and no ledger."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from harness.errors import InputError, UsageError
from harness.frames import SIGNALS, check
from harness.labeling import label_id, load, signal_batches, signals
from harness.ledger import Ledger

GRADES = {0: "no", 1: "related", 2: "good", 3: "perfect"}
IDS = pl.DataFrame({"query_id": ["1", "1", "2", "007"], "doc_id": ["b", "a", "a", "a"]})


@pytest.fixture
def qrels(tmp_path: Path) -> Path:
    file = tmp_path / "q.qrels"
    file.write_text("1 0 a 2\n1 0 b 0\n007 0 a 4\n3 0 a 1\n")
    return file


def test_constant_puts_everything_on_its_grade() -> None:
    out = check(signals(load("constant:2", GRADES), IDS), SIGNALS)
    assert out["probs"].to_list() == [[0, 0, 1, 0]] * 4
    assert_frame_equal(out.select("query_id", "doc_id"), IDS)
    assert out["reason"].null_count() == out["score"].null_count() == 4


def test_constant_on_a_scale_with_gaps_and_negative_grades() -> None:
    labeler = load("constant:-2", {1: "yes", -2: "junk", 5: "key page"})
    assert signals(labeler, IDS)["probs"][0].to_list() == [1, 0, 0]


@pytest.mark.parametrize("spec", ["constant", "constant:", "constant:1.3", "constant:x", "constant:nan"])
def test_constant_needs_a_whole_grade(spec: str) -> None:
    with pytest.raises(UsageError, match=r"constant needs a whole grade.*0, 1, 2, 3"):
        load(spec, GRADES)


@pytest.mark.parametrize("spec", ["constant:4", "constant:-1"])
def test_constant_needs_a_grade_of_the_scale(spec: str) -> None:
    with pytest.raises(UsageError, match="is not a grade of this collection: 0, 1, 2, 3"):
        load(spec, GRADES)


def test_lookup_gives_the_files_grades_and_says_what_is_missing(qrels: Path) -> None:
    out = check(signals(load(f"lookup:{qrels}", GRADES), IDS), SIGNALS)
    assert out["probs"].to_list() == [[1, 0, 0, 0], [0, 0, 1, 0], None, None]
    assert out["reason"].to_list() == [
        None,
        None,
        f"not in {qrels}",
        f"grade 4 in {qrels} is not on the scale 0, 1, 2, 3",
    ]
    assert_frame_equal(out.select("query_id", "doc_id"), IDS)


def test_lookup_needs_a_file_that_can_be_read(tmp_path: Path) -> None:
    for spec in ("lookup", "lookup:"):
        with pytest.raises(UsageError, match="lookup:FILE"):
            load(spec, GRADES)
    with pytest.raises(InputError, match="absent"):
        load(f"lookup:{tmp_path / 'absent'}", GRADES)
    bad = tmp_path / "bad"
    bad.write_text("1 0 a 2\n1 0 b\n")
    with pytest.raises(InputError, match="bad:2"):
        load(f"lookup:{bad}", GRADES)
    twice = tmp_path / "twice"
    twice.write_text("1 0 a 2\n1 0 a 0\n")
    with pytest.raises(InputError, match="twice"):
        load(f"lookup:{twice}", GRADES)


def test_a_file_name_with_braces(tmp_path: Path) -> None:
    file = tmp_path / "{}{x}"
    file.write_text("1 0 b 9\n")
    out = signals(load(f"lookup:{file}", GRADES), IDS)
    assert out["reason"][:2].to_list() == [
        f"grade 9 in {file} is not on the scale 0, 1, 2, 3",
        f"not in {file}",
    ]


def test_fingerprints_change_with_what_decides_the_signal(qrels: Path) -> None:
    one = load("constant:1", GRADES)
    assert one.fingerprint == load("constant: 1", dict(reversed(GRADES.items()))).fingerprint
    assert one.fingerprint != load("constant:2", GRADES).fingerprint
    assert one.fingerprint != load("constant:1", {0: "no", 1: "yes"}).fingerprint
    file = load(f"lookup:{qrels}", GRADES)
    copy = qrels.rename(qrels.with_name("copy.qrels"))
    assert label_id(load(f"lookup:{copy}", GRADES)) == label_id(file)
    copy.write_text("1 0 a 1\n")
    assert load(f"lookup:{copy}", GRADES).fingerprint != file.fingerprint


def test_doubles_leave_the_ledger_alone(qrels: Path, tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger")
    for spec in ("constant:0", f"lookup:{qrels}"):
        labeler = load(spec, GRADES)
        assert not labeler.needs_text
        parts = list(signal_batches(labeler, IDS.iter_slices(1), ledger=ledger))
        assert_frame_equal(pl.concat(parts), signals(labeler, IDS))
    assert not (tmp_path / "ledger").exists()
