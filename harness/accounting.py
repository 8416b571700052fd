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
from typing import TYPE_CHECKING, Any

import polars as pl

from harness.asking import Elsewhere
from harness.labeling import Labeler, label_id
from harness.protocol import Ask, composed, usage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Account", "Counted", "account_path", "add", "keep"]

Account = dict[str, Any]
"""`pairs`, `asked` (pairs the labeler was given), `cache_hits`, `failures` (reason -> pairs), `seconds` (in
the labeler), `pairs_per_second` (null where nothing was asked), and what `usage()` adds."""


class Counted:
    """A labeler that keeps account of what it is asked, and so do the parts of a composite.

    `spec`: how it is named on the command line, if it is; an engine makes it by that elsewhere.
    """

    def __init__(self, labeler: Labeler, spec: str | None = None) -> None:
        self.spec = spec
        self._labeler, self._asked, self._answered, self._seconds = labeler, 0, 0, 0.0
        self._before, self._elsewhere = usage(labeler), dict[str, Any]()
        self._heard: list[pl.Series] = []
        self._parts = {s: Counted(p, s) for s, p in labeler.parts.items()} if composed(labeler) else {}
        if self._parts:
            self.compose = self._compose

    def __getattr__(self, name: str) -> Any:
        return getattr(self._labeler, name)

    @property
    def asked(self) -> int:
        """Pairs that it, or its parts, were given."""
        return self._asked + sum(part.asked for part in self._parts.values())

    def signal(self, pairs: pl.DataFrame) -> pl.DataFrame:
        """What the labeler gives for the pairs."""
        self._asked += pairs.height
        began = time.perf_counter()
        try:
            told = self._labeler.signal(pairs)
        finally:
            self._seconds += time.perf_counter() - began
        if isinstance(told, pl.DataFrame) and "reason" in told.columns:  # a broken protocol is found later
            self._answered += told["reason"].null_count()
        return told

    def accounts(self, signals: pl.DataFrame) -> list[Account]:
        """What it took to get these signals, which are all that were asked for: the labeler's account, and
        those of a composite's parts, which say whose part they are (`part_of`)."""
        parts = [
            account
            for part in self._parts.values()
            for account in part.accounts(pl.DataFrame({"reason": pl.concat([_NO_REASONS, *part._heard])}))
        ]
        direct = [account for account in parts if "part_of" not in account]
        account = self._account(signals, direct)
        return [account, *({"part_of": account["labeler"], **part} for part in parts)]

    def _account(self, signals: pl.DataFrame, parts: list[Account]) -> Account:
        failures = signals.drop_nulls("reason")["reason"].value_counts(sort=True)
        seconds = self._seconds + sum(part["seconds"] for part in parts)
        hits = max(signals["reason"].null_count() - self._answered, 0)
        account: Account = {
            "labeler": label_id(self._labeler),
            "pairs": signals.height,
            "asked": self.asked,
            "cache_hits": sum(part["cache_hits"] for part in parts) if self._parts else hits,
            "failures": dict(failures.iter_rows()),
            "seconds": round(seconds, 3),
            "pairs_per_second": round(self.asked / seconds, 2) if seconds > 0 else None,
        }
        if not self._labeler.needs_text:
            account["ids_only"] = True
        return account | self.took()

    def took(self) -> dict[str, Any]:
        """What the labeler tells of its cost, here and elsewhere, since the account was opened."""
        # A labeler may have been asked before, for something else.
        before = self._before
        return {
            name: value - before.get(name, 0) if _counts(value) else value
            for name, value in self.usage().items()
        }

    def usage(self) -> dict[str, Any]:
        """What the labeler tells of its cost, here and elsewhere, since it was made."""
        told = dict(usage(self._labeler))
        add(told, self._elsewhere)
        return told

    def count_elsewhere(self, told: Elsewhere) -> None:
        """Count what asking the labeler elsewhere took."""
        self._asked += told.asked
        self._answered += told.answered
        self._seconds += told.seconds
        add(self._elsewhere, told.usage)

    def _compose(self, pairs: pl.DataFrame, ask: Ask) -> pl.DataFrame:
        """The composite, whose parts are asked as what is counted."""
        told: pl.DataFrame = self._labeler.compose(pairs, _Counting(ask, self._parts))  # type: ignore[attr-defined]
        return told


_NO_REASONS = pl.Series("reason", [], dtype=pl.String())


class _Counting:
    """Asks the counted parts in place of the parts themselves (`harness.protocol.Ask`)."""

    def __init__(self, ask: Ask, parts: Mapping[str, Counted]) -> None:
        self._ask = ask
        self._parts = {part.fingerprint: part for part in parts.values()}

    def __call__(self, labeler: Labeler, pairs: pl.DataFrame) -> pl.DataFrame:
        part = self._parts[labeler.fingerprint]
        told = self._ask(part, pairs)
        part._heard.append(told["reason"])
        return told

    def usage(self, labeler: Labeler) -> Mapping[str, Any]:
        return self._parts[labeler.fingerprint].usage()

    def known(self, labeler: Labeler, pairs: pl.DataFrame) -> NDArray[np.bool_]:
        return self._ask.known(self._parts[labeler.fingerprint], pairs)


def add(usage: dict[str, Any], more: Mapping[str, Any]) -> None:
    """Add to what answers have cost what others have: numbers are added up, of words the last counts."""
    for name, value in more.items():
        usage[name] = value + usage.get(name, 0) if _counts(value) else value


def account_path(out: str | Path) -> Path:
    """The file of accounts that stands beside filled qrels."""
    return Path(f"{out}.accounts.jsonl")


def keep(accounts: Sequence[Account], out: str | Path) -> None:
    """Add a line with the time for each labeler that was asked, by their texts, about any pair.

    Not into the qrels: the same filling is the same bytes, however long it took.
    """
    told = [a for a in accounts if a["asked"] and "ids_only" not in a]
    if told:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        with account_path(out).open("a", encoding="utf-8") as stream:
            stream.writelines(json.dumps({"time": now, **account}) + "\n" for account in told)


def _counts(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
