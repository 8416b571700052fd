"""What a command says and how it ends: results on stdout, the rest on stderr. The only place that prints.

Results are a table for a person, or with `--json` one JSON object with the same numbers. Errors, warnings and
progress go to stderr.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from harness.labeling import Progress

__all__ = [
    "BAD_INPUT",
    "BROKEN_PIPE",
    "INCONCLUSIVE",
    "INTERRUPTED",
    "UNLABELED",
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


@contextmanager
def progress(what: str) -> Iterator[Progress | None]:
    """A bar on stderr, if that is a terminal; yields what is to be called with (done, total)."""
    if not sys.stderr.isatty():
        yield None
        return
    from harness._render import progress_bar

    live: list[Any] = []  # the bar, while there is something to show: results are printed between two bars

    def stop() -> None:
        if live:
            live.pop().stop()

    def show(done: int, total: int | None) -> None:
        if not live:
            live.append(progress_bar())
            live[0].add_task(what)
            live[0].start()
        live[0].update(live[0].task_ids[0], completed=done, total=total)
        if done == total:
            stop()

    try:
        yield show
    finally:
        stop()
