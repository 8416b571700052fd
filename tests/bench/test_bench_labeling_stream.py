"""Signals for a pool of a million pairs: memory does not grow with it, but for the keys in a ledger.

`pytest tests/bench/test_bench_labeling_stream.py -s` shows the figures.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

TESTS = Path(__file__).resolve().parent.parent


def measured(kind: str, pairs: int, ledger: Path | None = None) -> dict[str, float]:
    """Growth of the peak memory (MiB) and pairs a second, in a process of its own."""
    pytest.importorskip("resource")
    code = "import json, sys; from test_labeling import stream; "
    code += "print(json.dumps(stream(*json.loads(sys.argv[1]))))"
    args = json.dumps([kind, pairs, ledger and str(ledger), 4096])
    run = subprocess.run(
        [sys.executable, "-c", code, args], cwd=TESTS, check=True, stdout=subprocess.PIPE, text=True
    )
    result: dict[str, float] = json.loads(run.stdout)
    sys.stdout.write(f"\n{kind}, {pairs:,} pairs, {'a' if ledger else 'no'} ledger: {result}\n")
    return result


@pytest.mark.parametrize("kind", ["by id", "by text"])
def test_a_million_pairs_take_no_more_memory_than_a_hundred_thousand(kind: str) -> None:
    few, many = (measured(kind, pairs)["growth_mib"] for pairs in (100_000, 1_000_000))
    assert many < few + 20  # their texts alone are 480 MiB


def test_a_ledger_costs_what_its_keys_take(tmp_path: Path) -> None:
    few, many = (
        measured("by text", pairs, tmp_path / str(pairs))["growth_mib"] for pairs in (100_000, 1_000_000)
    )
    again = measured("by text", 1_000_000, tmp_path / "1000000")["growth_mib"]
    # 16 bytes a key are 15 MiB; sorting them in takes as much again twice, and compaction some row groups.
    assert many < few + 100
    assert again < few + 100
