"""What the ledger takes, as a share of the time that labeling takes.

`pytest tests/bench/test_bench_ledger.py -s` shows the figures.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from harness.accounting import Counted
from harness.collection import open_collection
from harness.frames import SIGNALS
from harness.labeling import Labeler, load, signals
from harness.ledger import Ledger, Table

PAIRS = {"minilm": 512, "slow": 2048}
GRADES = {0: "no", 1: "yes"}


class Slow:
    """As long for a pair as a model of half a billion parameters takes on a good GPU: 5 ms."""

    name, fingerprint, needs_text, grades = "slow", "510" * 16, True, GRADES

    def signal(self, pairs: pl.DataFrame) -> pl.DataFrame:
        time.sleep(0.005 * pairs.height)
        probs = pl.Series([[0.25, 0.75]] * pairs.height, dtype=SIGNALS["probs"])
        return pairs.select("query_id", "doc_id", probs=probs, score=None, reason=None)


class Clock:
    """Counts the processor time of functions: unlike the time that passes, it is the same on a busy machine,
    where a labeler that sleeps takes no longer."""

    def __init__(self) -> None:
        self.seconds, self.inside = 0.0, False

    def timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            if self.inside:
                return function(*args, **kwargs)
            began, self.inside = time.process_time(), True
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds, self.inside = self.seconds + time.process_time() - began, False

        return run


@pytest.fixture(scope="module")
def pairs(data_dir: Path) -> pl.DataFrame:
    """Queries of CISI, each with documents of CISI."""
    cisi = open_collection(str(data_dir / "cisi"))
    judged = pl.read_csv(data_dir / "cisi" / "qrels.human.txt", separator=" ", has_header=False)
    ids = judged.select(
        pl.nth(0).cast(pl.String).alias("query_id"), pl.nth(2).cast(pl.String).alias("doc_id")
    )
    return cisi.pairs(ids[: max(PAIRS.values())])


@pytest.mark.parametrize("name", ["minilm", "slow"])
def test_the_ledger_takes_less_than_a_fiftieth_of_labeling(
    name: str, pairs: pl.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = pairs[: PAIRS[name]]
    labeler: Labeler = Slow() if name == "slow" else load(name, GRADES)
    labeler.signal(pairs[:1])  # loads the model, and polars and deltalake what they need
    signals(Slow(), pairs[:1], ledger=Ledger())
    clock = Clock()
    for method in ("find", "append", "compact"):
        monkeypatch.setattr(Table, method, clock.timed(getattr(Table, method)))
    counted, began = Counted(labeler), time.perf_counter()
    signals(counted, pairs, ledger=Ledger(tmp_path / "ledger"))
    whole = time.perf_counter() - began
    (account,) = counted.accounts(pairs.select(reason=pl.lit(None, pl.String())))
    sys.stdout.write(
        f"\n{name}: {pairs.height} pairs in {whole:.2f} s, {account['seconds']:.2f} s in the labeler; "
        f"{clock.seconds:.3f} s of processor time in the ledger ({clock.seconds / whole:.2%})\n"
    )
    assert clock.seconds < 0.02 * whole
