"""An event loop in a thread of its own, for labelers that wait for many answers at once.

`signal` is an ordinary function, and its caller may itself stand in an event loop (a notebook does), where
`asyncio.run` cannot be called. One loop for all calls also keeps connections open between them.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Callable, Coroutine
from concurrent.futures import wait
from contextlib import suppress
from typing import Any, TypeVar

__all__ = ["EventLoop"]

_T = TypeVar("_T")
_TICK = 0.1  # seconds; a Ctrl-C that the system gives to another thread is seen by this one when it wakes


class EventLoop:
    """Runs coroutines from ordinary code, one call at a time.

    The thread starts with the first call, and ends with `close`, with this object, or with Python.

    Parameters
    ----------
    closing: called in the loop before it ends, to close what belongs to it. It must not refer to this object.
    """

    def __init__(self, closing: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._closing = closing
        self._loop: asyncio.AbstractEventLoop | None = None
        self._end: weakref.finalize[..., EventLoop] | None = None

    def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        """What `work` returns or raises. Where the waiting is interrupted (Ctrl-C), `work` is cancelled."""
        future = asyncio.run_coroutine_threadsafe(work, self._started())
        try:
            while not wait([future], timeout=_TICK).done:
                pass
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """Cancel what is under way, and end the thread."""
        if self._end is not None:
            self._end()
        self._loop = self._end = None

    def _started(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            thread = threading.Thread(target=self._loop.run_forever, name="stopgap-requests", daemon=True)
            thread.start()
            self._end = weakref.finalize(self, _stop, self._loop, thread, self._closing)
        return self._loop


def _stop(
    loop: asyncio.AbstractEventLoop,
    thread: threading.Thread,
    closing: Callable[[], Coroutine[Any, Any, None]],
) -> None:
    async def wind_up() -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await closing()

    with suppress(TimeoutError):  # a connection that does not close need not keep Python from ending
        asyncio.run_coroutine_threadsafe(wind_up(), loop).result(timeout=5)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(timeout=5)
    loop.close()
