"""What labeling took: pairs, answers from the ledger, failures by their reasons, time, tokens and money.

`keep` adds a line to `OUT.accounts.jsonl` for each labeler that was asked and tells what that cost, so that
what a filling took in several goes can be added up.

A labeler may offer `usage()`: a flat mapping of what its answers have cost since it was made (`tokens_in`,
`tokens_out`, `requests`, `retries`, `cost`, `currency`, …). Numbers and short words; nothing secret, since it
is printed and kept with the labels.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from harness.labeling import Labeler, label_id

__all__ = ["Account", "Counted", "account_path", "keep"]

Account = dict[str, Any]
"""`pairs`, `asked` (pairs the labeler was given), `cache_hits`, `failures` (reason -> pairs), `seconds` (in
the labeler), `pairs_per_second` (null where nothing was asked), and what `usage()` adds."""


class Counted:
    """A labeler that keeps account of what it is asked."""

    def __init__(self, labeler: Labeler) -> None:
        self._labeler, self.asked, self.answered, self.seconds = labeler, 0, 0, 0.0
        self._before = _usage(labeler)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._labeler, name)

    def signal(self, pairs: pl.DataFrame) -> pl.DataFrame:
        """What the labeler gives for the pairs."""
        self.asked += pairs.height
        began = time.perf_counter()
        try:
            told = self._labeler.signal(pairs)
        finally:
            self.seconds += time.perf_counter() - began
        if isinstance(told, pl.DataFrame) and "reason" in told.columns:  # a broken protocol is found later
            self.answered += told["reason"].null_count()
        return told

    def account(self, signals: pl.DataFrame) -> Account:
        """What it took to get these signals, which are all that were asked for."""
        failures = signals.drop_nulls("reason")["reason"].value_counts(sort=True)
        account: Account = {
            "labeler": label_id(self._labeler),
            "pairs": signals.height,
            "asked": self.asked,
            "cache_hits": max(signals["reason"].null_count() - self.answered, 0),
            "failures": dict(failures.iter_rows()),
            "seconds": round(self.seconds, 3),
            "pairs_per_second": round(self.asked / self.seconds, 2) if self.seconds > 0 else None,
        }
        for name, value in _usage(self._labeler).items():
            # A labeler may have been asked before, for something else.
            before = self._before.get(name, 0)
            counts = isinstance(value, int | float) and isinstance(before, int | float)
            account[name] = value - before if counts else value
        return account


def account_path(out: str | Path) -> Path:
    """The file of accounts that stands beside filled qrels."""
    return Path(f"{out}.accounts.jsonl")


def keep(accounts: Sequence[Account], out: str | Path) -> None:
    """Add a line with the time for each labeler that offers `usage()` and was asked.

    Not into the qrels: the same filling is the same bytes, however long it took.
    """
    told = [a for a in accounts if "requests" in a and a["asked"]]
    if told:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        with account_path(out).open("a", encoding="utf-8") as stream:
            stream.writelines(json.dumps({"time": now, **account}) + "\n" for account in told)


def _usage(labeler: Labeler) -> Mapping[str, Any]:
    offered = getattr(labeler, "usage", None)
    return offered() if callable(offered) else {}
