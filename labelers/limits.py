"""How fast a server may be asked: so much in any minute, pauses that it asks for, and waits between tries."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

__all__ = ["Entry", "Gate", "Window", "backoff", "retry_after"]


def _now() -> float:
    """Seconds, by the clock of the loop that waits."""
    return asyncio.get_running_loop().time()


class Entry:
    """What was taken from a window at a time; `amount` may be put right once it is known."""

    def __init__(self, time: float, amount: float) -> None:
        self.time, self.amount = time, amount


class Window:
    """At most `limit` in any `seconds`, in the order of asking; 0: no limit.

    What is more than the limit on its own waits until nothing else is in the window.
    """

    def __init__(self, limit: float, seconds: float = 60.0) -> None:
        self.limit, self.seconds = limit, seconds
        self._taken: deque[Entry] = deque()
        self._turn = asyncio.Lock()

    async def take(self, amount: float) -> Entry:
        """Wait until `amount` fits in, and count it."""
        if not self.limit:
            return Entry(0.0, amount)
        async with self._turn:
            while True:
                now = _now()
                while self._taken and self._taken[0].time <= now - self.seconds:
                    self._taken.popleft()
                if not self._taken or sum(e.amount for e in self._taken) + amount <= self.limit:
                    break
                await asyncio.sleep(self._taken[0].time + self.seconds - now + 1e-3)
            entry = Entry(_now(), amount)
            self._taken.append(entry)
            return entry


class Gate:
    """Open, or shut until a time: a server that asks for a pause asks it of every request."""

    def __init__(self) -> None:
        self._until = 0.0

    def shut(self, seconds: float) -> None:
        """Let nobody through for so long."""
        self._until = max(self._until, _now() + seconds)

    async def through(self) -> None:
        """Wait until it is open. Those who waited go on a little apart, not all at once."""
        while (left := self._until - _now()) > 0:
            await asyncio.sleep(left + random.uniform(0, min(0.1 * left, 1.0)))


def backoff(first: float, attempt: int, longest: float = 30.0) -> float:
    """Seconds to wait before another try: doubled with each, and by chance up to half of it less.

    `attempt` counts the failures so far, from 1.
    """
    return float(min(longest, first * 2.0 ** (attempt - 1)) * random.uniform(0.5, 1.0))


def retry_after(headers: dict[str, str]) -> float | None:
    """The seconds that a server asks to wait (`retry-after-ms`, or `retry-after` as seconds or as a date).

    `headers`: names in small letters. None: it asks for nothing that can be understood.
    """
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        try:
            seconds = float(headers[name]) * unit
        except (KeyError, ValueError):
            continue
        return seconds if 0 <= seconds < float("inf") else None
    try:
        then = parsedate_to_datetime(headers["retry-after"])
    except (KeyError, ValueError):
        return None
    then = then if then.tzinfo else then.replace(tzinfo=UTC)
    return max((then - datetime.now(UTC)).total_seconds(), 0.0)
