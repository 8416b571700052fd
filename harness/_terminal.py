"""What a command says and how it ends: results on stdout, the rest on stderr. The only place that prints.

Results are a table for a person, or with `--json` one JSON object with the same numbers. Errors, warnings and
progress go to stderr.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import typer

__all__ = [
    "BAD_INPUT",
    "BROKEN_PIPE",
    "INCONCLUSIVE",
    "INTERRUPTED",
    "UNLABELED",
    "Bar",
    "json",
    "progress",
    "say",
    "show",
    "table",
    "tables",
    "write",
]

BAD_INPUT, INCONCLUSIVE, UNLABELED = 2, 3, 4
"""Exit codes: bad input or usage; inconclusive; finished, but some pairs got no label and stay holes. 1, a
gate that failed, is `harness.gate_output`'s."""
INTERRUPTED, BROKEN_PIPE = 130, 141
"""Exit codes where Ctrl-C or a closed pipe ended the command: 128 and the signal's number, as in shells."""


def write(text: str) -> None:
    """Write a result to stdout."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # The reader has read enough; without this Python would complain when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(BROKEN_PIPE) from None


def say(kind: str, message: str) -> None:
    """Write an error or a warning to stderr."""
    print(f"{kind}: {message}", file=sys.stderr, flush=True)


def json(value: Any) -> None:
    from harness._render import as_json

    write(as_json(value))


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    from harness import _render

    write(_render.rich_table(columns, rows) if sys.stdout.isatty() else _render.plain_table(columns, rows))


def tables(given: Iterable[tuple[str, Sequence[str], Iterable[Sequence[object]]]], notes: str) -> None:
    """Tables, each under its title if it has one, and notes below."""
    for number, (title, columns, rows) in enumerate(given):
        if title:
            write("\n" * (number > 0) + title)
        table(columns, rows)
    write(f"\n{notes}")


def show(
    as_json: bool,
    whole: dict[str, Any],
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    notes: str = "",
) -> None:
    """A result as JSON, or as a table with notes below."""
    if as_json:
        json(whole)
        return
    table(columns, rows)
    if notes:
        write(f"\n{notes}")


class Bar:
    """A bar on stderr, to be called with (done, total); `note` shows a few words before it."""

    def __init__(self, what: str) -> None:
        self._what, self._note = what, ""
        self._live: Any = None  # while there is something to show: results are printed between two bars

    def __call__(self, done: int, total: int | None) -> None:
        if self._live is None:
            from harness._render import progress_bar

            self._live = progress_bar()
            self._live.add_task(self._what)
            self._live.start()
        said = f"{self._what}: {self._note}" if self._note else self._what
        self._live.update(self._live.task_ids[0], completed=done, total=total, description=said)
        if done == total:
            self.stop()

    def note(self, text: str) -> None:
        """From the next call on, show this too."""
        self._note = text

    def stop(self) -> None:
        """Take the bar away."""
        if self._live is not None:
            self._live.stop()
            self._live = None


@contextmanager
def progress(what: str) -> Iterator[Bar | None]:
    """A bar on stderr, if that is a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    bar = Bar(what)
    try:
        yield bar
    finally:
        bar.stop()
