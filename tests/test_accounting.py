"""What labeling took, as it is counted, told and kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from harness._render import account_line
from harness.accounting import Counted, account_path, add, keep
from harness.frames import SIGNALS
from harness.labeling import Labeler, signals


class Costly:
    """Fails on documents whose text has an x; tells of one request for each pair."""

    name, fingerprint, needs_text, grades = "costly", "0123456789abcdef", True, {0: "no", 1: "yes"}

    def __init__(self) -> None:
        self.requests = 0

    def signal(self, pairs: pl.DataFrame) -> pl.DataFrame:
        self.requests += pairs.height
        failed = pl.col("text").str.contains("x")
        return pairs.select(
            "query_id",
            "doc_id",
            pl.lit(None, SIGNALS["probs"]).alias("probs"),
            pl.when(~failed).then(pl.lit(0.5)).alias("score"),
            pl.when(failed).then(pl.lit("rate limit (429)")).alias("reason"),
        )

    def usage(self) -> dict[str, Any]:
        return {"requests": self.requests, "cost": self.requests * 0.25, "currency": "EUR"}


def pairs(*texts: str) -> pl.DataFrame:
    numbers = range(len(texts))
    return pl.DataFrame(
        {"query_id": ["1"] * len(texts), "doc_id": [f"d{n}" for n in numbers], "query": "q", "text": texts}
    )


def account_of(labeler: Labeler, *texts: str) -> dict[str, Any]:
    counted = Counted(labeler)
    (account,) = counted.accounts(signals(counted, pairs(*texts)))
    return account


def test_pairs_calls_failures_and_what_the_labeler_tells() -> None:
    account = account_of(Costly(), "a", "b", "x", "xx", "", "a")
    assert account["labeler"] == "costly@01234567"
    assert (account["pairs"], account["asked"]) == (6, 4)
    assert account["cache_hits"] == 1  # the second "a"
    assert account["failures"] == {"rate limit (429)": 2, "no text": 1}
    assert (account["requests"], account["cost"], account["currency"]) == (4, 1.0, "EUR")
    assert account["seconds"] > 0
    assert account["pairs_per_second"] > 0


def test_what_a_labeler_did_before_is_not_counted_again() -> None:
    labeler = Costly()
    labeler.signal(pairs("a", "b", "c"))
    assert account_of(labeler, "d")["requests"] == 1
    assert account_of(labeler, "d")["cost"] == 0.25


def test_a_labeler_that_tells_nothing_is_accounted_for_all_the_same() -> None:
    labeler = Costly()
    labeler.usage = None  # type: ignore[assignment, method-assign]
    account = account_of(labeler)
    assert (account["asked"], account["pairs_per_second"]) == (0, None)
    assert "requests" not in account


def test_lines_are_added_for_labelers_that_were_asked(tmp_path: Path) -> None:
    out = tmp_path / "filled.qrels"
    first, other = account_of(Costly(), "a"), account_of(Costly(), "a", "b")
    keep([first, {**other, "asked": 0}], out)
    keep([{**other, "ids_only": True}], out)
    keep([{name: value for name, value in other.items() if name != "requests"}], out)
    lines = [json.loads(line) for line in account_path(out).read_text().splitlines()]
    assert [line.get("requests") for line in lines] == [1, None]
    assert [line["asked"] for line in lines] == [1, 2]
    assert all(line["time"].endswith("+00:00") for line in lines)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({}, "1,200 requests, 5,000 tokens in, 12 out, 2.5 s, 480.0 pairs/s."),
        (
            {"retries": 3, "cut": 1, "cost": 1.23456, "currency": "EUR"},
            "1,200 requests (3 of them again), 5,000 tokens in, 12 out, 1 document shortened, "
            "2.5 s, 480.0 pairs/s, 1.2346 EUR.",
        ),
        (
            {"unsure": 40, "passed_on": 30, "left_unsure": 10},
            "unsure of 40: 30 passed on, 10 left unsure for want of budget, "
            "1,200 requests, 5,000 tokens in, 12 out, 2.5 s, 480.0 pairs/s.",
        ),
        ({"pairs_per_second": None}, "1,200 requests, 5,000 tokens in, 12 out."),
    ],
)
def test_an_account_in_a_sentence(more: dict[str, Any], told: str) -> None:
    account = {
        "labeler": "judge@1", "asked": 1100, "requests": 1200, "retries": 0, "tokens_in": 5000,
        "tokens_out": 12, "cut": 0, "seconds": 2.5, "pairs_per_second": 480.0, **more,
    }  # fmt: skip
    assert account_line(account) == f"judge@1: asked about 1,100 pairs, {told}"


def test_an_account_says_only_what_is_known() -> None:
    account = {"labeler": "plain@1", "asked": 7, "seconds": 0.5, "pairs_per_second": 14.0}
    assert account_line(account) == "plain@1: asked about 7 pairs, 0.5 s, 14.0 pairs/s."


def test_usage_is_added_up_but_for_words() -> None:
    usage = {"requests": 2, "cost": 0.5, "currency": "EUR"}
    add(usage, {"requests": 3, "cost": 0.25, "currency": "USD", "retries": 1, "cut": True})
    assert usage == {"requests": 5, "cost": 0.75, "currency": "USD", "retries": 1, "cut": True}
