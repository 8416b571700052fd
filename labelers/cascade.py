"""A cheap labeler first, and a dearer one only where the cheap one is unsure: `cascade:FILE.toml`.

    first = "minilm"
    then = "openai:MODEL@URL"
    band = [0.25, 0.45]     # of the score of `first`; or, where it gives a distribution over the grades,
    # unsure = 0.3          # how far its greatest probability has to be from 1
    [budget]
    pairs = 1000            # or tokens = 500000, or money = 2.5

A row has two kinds of signal, a distribution and a score, and each keeps to one labeler's scale as far as can
be: the distribution is that of `then` where it was asked and otherwise that of `first`, if it gives one; the
score is that of `first`, or of `then` if `first` gives none. So a first of scores and a second of
distributions stand side by side, and calibration takes a distribution that is missing as the average one.

A budget goes to the pairs that are most unsure. `pairs` counts whatever `then` is used for, from the ledger
or not, so that the same command gives the same labels. `tokens` and `money` count what a run spends, by what
`then` tells of itself; answers that the ledger has are always used, and running again spends again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import polars as pl

from harness.errors import InputError, UsageError
from harness.protocol import Ask, usage
from harness.strict_toml import Field, Misfit, Table, Text, read
from labelers.composed import EMPTY, Composed, path_of, reasons_of

__all__ = ["Cascade", "Settings", "read_settings"]

_Ints = npt.NDArray[np.int64]
_MOST = 256  # pairs that are passed on at a time while a budget is watched
_EXAMPLE = """\
Next: write one, such as
  first = "minilm"
  then = "openai:MODEL@URL"
  band = [0.25, 0.45]
  [budget]
  pairs = 1000"""


class _Budget(Table):
    pairs: Annotated[int, Field(ge=0)] | None = None
    tokens: Annotated[int, Field(ge=0)] | None = None
    money: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None


class _File(Table):
    first: Text
    then: Text
    unsure: Annotated[float, Field(ge=0, lt=1)] | None = None
    band: Annotated[list[float], Field(min_length=2, max_length=2)] | None = None
    budget: _Budget | None = None


@dataclass(frozen=True)
class Settings:
    """A cascade's file.

    Attributes
    ----------
    path: the file. first, then: labelers, as on the command line.
    unsure: 1 less the greatest probability of `first`, from which on a pair is passed on, 0 to 1. band: the
        lowest and the highest score of `first` that are unsure. One of the two is None.
    limit: what the budget is in, `pairs`, `tokens`, `money`, or empty; amount: how much of it.
    """

    path: Path
    first: str
    then: str
    unsure: float | None
    band: tuple[float, float] | None
    limit: str
    amount: float


def read_settings(path: str | Path) -> Settings:
    """Read a cascade's file.

    Raises
    ------
    InputError: it cannot be read; a key is unknown, missing or out of range, or does not fit the others.
    """
    return read(path, _File, _settings, _EXAMPLE)


def _settings(path: Path, given: _File) -> Settings:
    if (given.unsure is None) == (given.band is None):
        what = "one of unsure (for a first that gives a distribution) and band (of its score) is wanted"
        raise Misfit("unsure" if given.unsure is not None else "first", what)
    if given.band is not None and not -np.inf < given.band[0] < given.band[1] < np.inf:
        raise Misfit("band", f"band is {given.band}, not a lower and a higher score")
    if given.first == given.then:
        raise Misfit("then", f"first and then are both {given.first!r}")
    budget = given.budget.model_dump(exclude_none=True) if given.budget is not None else {}
    if given.budget is not None and len(budget) != 1:
        raise Misfit("budget", "budget has to have one of pairs, tokens and money")
    (limit, amount), *_ = *budget.items(), ("", 0)
    band = None if given.band is None else (given.band[0], given.band[1])
    return Settings(path, given.first, given.then, given.unsure, band, limit, amount)


class Cascade(Composed):
    """`then` where `first` is unsure, `first` elsewhere.

    A pair that `first` cannot answer is not passed on; one that `then` cannot answer stays a hole, with the
    reason, and the next run asks again. Pairs that are equally unsure come in the order of their texts'
    hashes.

    Raises
    ------
    InputError: the file cannot be used, or its budget cannot be kept, since `then` does not tell what it
        takes. What loading a labeler raises, for each of the two.
    """

    def __init__(self, argument: str | None, grades: dict[int, str]) -> None:
        self._settings = settings = read_settings(path_of("cascade", argument))
        band = settings.band and list(settings.band)
        decides = [settings.unsure, band, settings.limit, settings.amount]
        super().__init__("cascade", [settings.first, settings.then], grades, decides)
        self.first, self.then = self.parts.values()
        self.whole = self.whole or bool(settings.limit)
        self._counts = {"unsure": 0, "passed_on": 0, "left_unsure": 0}
        if settings.limit in ("tokens", "money"):
            self._spent(usage(self.then))

    def usage(self) -> dict[str, int]:
        """Pairs so far on which `first` was unsure; of these, passed on to `then`, and left for want of
        budget."""
        return dict(self._counts)

    def compose(self, pairs: pl.DataFrame, ask: Ask) -> pl.DataFrame:
        """SIGNALS for the pairs.

        Raises
        ------
        UsageError: `unsure` is set and `first` gives no distribution, or `band` and it gives no score; or
            both labelers give scores alone, which cannot stand on one scale.
        """
        cheap = ask(self.first, pairs)
        rows = _order(self._unsureness(cheap), pairs)
        asked: list[_Ints] = []
        answers = [cheap.select("probs", "score", "reason").clear()]
        for some in self._portions(pairs, rows, ask):
            told = ask(self.then, pairs[some])
            self._check_kinds(cheap, told)
            asked.append(some)
            answers.append(told.select("probs", "score", "reason"))
        passed = np.concatenate([np.empty(0, np.int64), *asked])
        self._counts["unsure"] += rows.size
        self._counts["passed_on"] += passed.size
        self._counts["left_unsure"] += rows.size - passed.size
        return self.frame(pairs, self._joined(cheap, passed, pl.concat(answers)))

    def _unsureness(self, cheap: pl.DataFrame) -> npt.NDArray[np.float64]:
        """How unsure `first` is of each pair: NaN where it is not."""
        settings, heard = self._settings, cheap["reason"].is_null()
        column = "probs" if settings.band is None else "score"
        if heard.any() and cheap.filter(heard)[column].null_count():
            key, other, gives = (
                ("unsure", "band", "no distribution over the grades")
                if settings.band is None
                else ("band", "unsure", "no score")
            )
            what = f"{settings.path}: {key} is set, but {settings.first} gives {gives}. Next: {other} = …"
            raise UsageError(what)
        if settings.band is None:
            assert settings.unsure is not None
            doubt = (1 - cheap["probs"].list.max().cast(pl.Float64)).fill_null(np.nan).to_numpy().copy()
            doubt[~(doubt > settings.unsure - 1e-9)] = np.nan
            return doubt
        low, high = settings.band
        score = cheap["score"].cast(pl.Float64).fill_null(np.nan).to_numpy()
        doubt = np.minimum(score - low, high - score)  # the deeper inside, the more unsure
        doubt[~(doubt >= 0)] = np.nan
        return np.asarray(doubt)

    def _portions(self, pairs: pl.DataFrame, rows: _Ints, ask: Ask) -> Iterator[_Ints]:
        """Rows to pass on, some at a time, until the budget is spent. The first alone, so that labelers that
        do not go together are found before much is paid."""
        limit, amount = self._settings.limit, self._settings.amount
        if limit in ("", "pairs"):
            rows = rows[: int(amount)] if limit else rows
            yield from (part for part in (rows[:1], rows[1:]) if part.size)
            return
        known = ask.known(self.then, pairs[rows])
        if known.any():
            yield rows[known]
        rows, before = rows[~known], self._spent(ask.usage(self.then))
        left, done, size = amount, 0, 1
        while rows.size and left > 0:
            yield rows[:size]
            done, rows = done + min(size, rows.size), rows[size:]
            left = amount - (self._spent(ask.usage(self.then)) - before)
            each = (amount - left) / done
            if left < each:
                return
            # Half of what is left, at the cost so far: pairs that cost more than these do little harm.
            most = min(_MOST, 4 * size)
            size = most if each == 0 else int(np.clip(left / (2 * each), 1, most))

    def _spent(self, told: Mapping[str, Any]) -> float:
        """Tokens or money that `then` has taken since it was made, by its own account."""
        limit = self._settings.limit
        keys = ("tokens_in", "tokens_out") if limit == "tokens" else ("cost",)
        if any(key not in told for key in keys):
            hint = "a table of prices (prices=FILE)" if limit == "money" else "a labeler that counts them"
            what = f"budget.{limit}: {self._settings.then} does not tell what it takes"
            raise InputError(self._settings.path, None, what, f"Next: {hint}, or budget.pairs")
        return float(sum(told.get(key, 0) for key in keys))

    def _check_kinds(self, cheap: pl.DataFrame, told: pl.DataFrame) -> None:
        gives = told.filter(~EMPTY)
        if gives.height and not gives["probs"].count() and not cheap["probs"].count():
            raise UsageError(
                f"{self._settings.path}: {self._settings.first} and {self._settings.then} both give scores, "
                "each on its own scale, so that one cannot stand for the other.\nNext: a `then` that gives a "
                "distribution over the grades; or stack them: "
                f"--labeler {self._settings.first} --labeler {self._settings.then}"
            )

    def _joined(self, cheap: pl.DataFrame, passed: _Ints, dear: pl.DataFrame) -> pl.DataFrame:
        """The first's signals, and the second's where it was asked."""
        place = np.full(cheap.height, dear.height)
        place[passed] = np.arange(dear.height)
        nothing = pl.DataFrame({c: [None] for c in dear.columns}, schema=dear.schema)
        dear = pl.concat([dear, nothing])[place]
        failed = reasons_of(self.first, cheap["reason"]), reasons_of(self.then, dear["reason"])
        return cheap.with_columns(
            pl.coalesce(dear["probs"], "probs").alias("probs"),
            (cheap["score"] if cheap["score"].count() else dear["score"]).alias("score"),
            pl.coalesce(*failed).alias("reason"),
        )


def _order(doubt: npt.NDArray[np.float64], pairs: pl.DataFrame) -> _Ints:
    """Rows that are unsure, the most unsure first."""
    rows = np.flatnonzero(np.isfinite(doubt))
    texts = pairs[rows].select("query", "text", "query_id", "doc_id").fill_null("").iter_rows()
    digests = [sha256("\0".join(row).encode()).hexdigest() for row in texts]
    order = sorted(range(rows.size), key=lambda i: (-doubt[rows[i]], digests[i]))
    return rows[np.asarray(order, dtype=np.int64)]
