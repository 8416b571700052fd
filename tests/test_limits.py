"""How fast a server may be asked."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from labelers.limits import Gate, Window, backoff, retry_after


def taken(limit: float, amounts: list[float], seconds: float = 0.2) -> list[float]:
    """When each of the amounts, asked for at once, was let through."""

    async def work() -> list[float]:
        window, times = Window(limit, seconds), [0.0] * len(amounts)
        began = time.monotonic()

        async def one(number: int) -> None:
            await window.take(amounts[number])
            times[number] = time.monotonic() - began

        await asyncio.gather(*[one(number) for number in range(len(amounts))])
        return times

    return asyncio.run(work())


def test_no_stretch_of_time_has_more_than_the_limit() -> None:
    times = taken(3, [1] * 8)
    assert times == sorted(times)
    assert all(later - earlier >= 0.2 for earlier, later in zip(times, times[3:], strict=False))
    assert times[2] < 0.1
    assert times[7] < 0.8


def test_amounts_add_up_and_one_that_is_too_large_goes_alone() -> None:
    times = taken(10, [6, 4, 1, 25, 1])
    assert times[1] < 0.1
    assert 0.2 <= times[2] < 0.38
    assert times[3] - times[2] >= 0.2
    assert times[4] - times[3] >= 0.2


def test_without_a_limit_nothing_waits() -> None:
    assert max(taken(0, [1e9] * 100)) < 0.1


def test_what_was_guessed_too_high_gives_its_room_back() -> None:
    async def work() -> float:
        window = Window(10, 0.3)
        (await window.take(9)).amount = 2
        began = time.monotonic()
        await window.take(8)
        return time.monotonic() - began

    assert asyncio.run(work()) < 0.1


def test_a_shut_gate_holds_everybody_and_the_longest_pause_counts() -> None:
    async def work() -> list[float]:
        gate, began = Gate(), time.monotonic()
        await gate.through()
        gate.shut(0.2)
        gate.shut(0.05)

        async def one() -> float:
            await gate.through()
            return time.monotonic() - began

        return list(await asyncio.gather(*[one() for _ in range(5)]))

    times = asyncio.run(work())
    assert min(times) >= 0.2
    assert max(times) < 0.5
    assert len(set(times)) > 1  # not all at once


def test_waits_double_up_to_a_limit_and_differ() -> None:
    for attempt, most in ((1, 0.5), (2, 1.0), (3, 2.0), (7, 30.0), (400, 30.0)):
        waits = [backoff(0.5, attempt) for _ in range(50)]
        assert all(most / 2 <= wait <= most for wait in waits)
        assert len(set(waits)) > 1


def test_a_wait_that_a_server_asks_for() -> None:
    assert retry_after({"retry-after": "7"}) == 7
    assert retry_after({"retry-after": "1.5"}) == 1.5
    assert retry_after({"retry-after-ms": "250", "retry-after": "7"}) == 0.25
    then = datetime.now(UTC) + timedelta(seconds=90)
    assert retry_after({"retry-after": format_datetime(then, usegmt=True)}) == pytest.approx(90, abs=2)
    assert retry_after({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0
    assert retry_after({"retry-after": "Wed, 21 Oct 2015 07:28:00 -0000"}) == 0
    for odd in ("soon", "", "-5", "nan", "inf"):
        assert retry_after({"retry-after": odd}) is None
    assert retry_after({}) is None
