"""How fast a server may be asked."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any, TypeVar

import pytest

from labelers.limits import Gate, Window, backoff, retry_after

T = TypeVar("T")


class Jumping(asyncio.SelectorEventLoop):
    """A loop whose clock stands still while there is work and jumps to the next that waits."""

    now = 0.0

    def time(self) -> float:
        return self.now

    def _run_once(self) -> None:
        if not self._ready and self._scheduled:
            self.now = max(self.now, self._scheduled[0].when())
        super()._run_once()


def run(work: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=Jumping) as runner:
        return runner.run(work)


def clock() -> float:
    return asyncio.get_running_loop().time()


def taken(limit: float, amounts: list[float]) -> list[float]:
    """When each of the amounts, asked for at once, was let through by a window of a minute."""

    async def work() -> list[float]:
        window, times = Window(limit, 60), [0.0] * len(amounts)

        async def one(number: int) -> None:
            await window.take(amounts[number])
            times[number] = clock()

        await asyncio.gather(*[one(number) for number in range(len(amounts))])
        return times

    return run(work())


def test_no_stretch_of_time_has_more_than_the_limit() -> None:
    times = taken(3, [1] * 8)
    assert times == pytest.approx([0, 0, 0, 60, 60, 60, 120, 120], abs=0.1)
    assert all(later - earlier >= 60 for earlier, later in zip(times, times[3:], strict=False))


def test_amounts_add_up_and_one_that_is_too_large_goes_alone() -> None:
    assert taken(10, [6, 4, 1, 25, 1]) == pytest.approx([0, 0, 60, 120, 180], abs=0.1)


def test_without_a_limit_nothing_waits() -> None:
    assert max(taken(0, [1e9] * 100)) == 0


def test_what_was_guessed_too_high_gives_its_room_back() -> None:
    async def work() -> float:
        window = Window(10, 60)
        (await window.take(9)).amount = 2
        await window.take(8)
        return clock()

    assert run(work()) == 0


def test_a_shut_gate_holds_everybody_and_the_longest_pause_counts() -> None:
    async def work() -> list[float]:
        gate = Gate()
        await gate.through()
        gate.shut(20)
        gate.shut(5)

        async def one() -> float:
            await gate.through()
            return clock()

        return list(await asyncio.gather(*[one() for _ in range(5)]))

    times = run(work())
    assert min(times) >= 20
    assert max(times) <= 21
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
