"""How the command line's results look: tables, notes, JSON. It makes strings; `harness.cli` prints them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.progress import Progress

__all__ = [
    "account_line",
    "as_json",
    "count",
    "fill_story",
    "holes_notes",
    "measure_notes",
    "measure_table",
    "pace",
    "plain_table",
    "problem",
    "progress_bar",
    "rich_table",
    "share",
]

Row = Sequence[object]
_DECIMAL = re.compile(r"[+-]?\d+\.\d+").fullmatch
SHARE = "by_labels"
"""The column behind a score that says how much of it rests on labels."""


# -- tables --------------------------------------------------------------------------------------------------


def _cell(value: object) -> str:
    """One value of a table: four decimals for a float, nothing for None or NaN, white space made single."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float):
        return f"{value:.4f}"
    return " ".join(str(value).split())


def _cells(columns: Sequence[str], rows: Iterable[Row]) -> tuple[list[list[str]], list[bool]]:
    """The cells as text, and which columns hold numbers (and stand flush right); ids are no numbers."""
    rows = list(rows)
    numeric = []
    for column in zip(*rows, strict=True) if rows else [()] * len(columns):
        values = [value for value in column if value is not None]
        numeric.append(bool(values) and all(isinstance(v, int | float) or _DECIMAL(str(v)) for v in values))
    return [[_cell(value) for value in row] for row in rows], numeric


def plain_table(columns: Sequence[str], rows: Iterable[Row]) -> str:
    """Columns two spaces apart, one line a row whatever the width: for files, pipes and `grep`."""
    cells, numeric = _cells(columns, rows)
    lines = [list(columns), *cells]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    shape = "  ".join(
        f"{{:{'>' if right else '<'}{width}}}" for right, width in zip(numeric, widths, strict=True)
    )
    return "\n".join(shape.format(*line).rstrip() for line in lines)


def rich_table(columns: Sequence[str], rows: Iterable[Row], width: int | None = None) -> str:
    """The same table for a terminal, `width` or its own columns wide: long texts wrap inside their column."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    cells, numeric = _cells(columns, rows)
    table = Table(box=SIMPLE_HEAD, header_style="bold", pad_edge=False, show_edge=False)
    for name, right in zip(columns, numeric, strict=True):
        table.add_column(Text(name), justify="right" if right else "left", no_wrap=right, overflow="fold")
    for row in cells:
        table.add_row(*map(Text, row))
    console = Console(width=width, force_terminal=True, highlight=False)
    with console.capture() as captured:
        console.print(table)
    return captured.get().rstrip("\n")


def progress_bar() -> Progress:
    """A bar on stderr with the count, the rate and the time left; it goes when the work is done."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn
    from rich.text import Text

    class Pace(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(pace(task.completed, task.total, task.speed or task.completed / (task.elapsed or 1)))

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Pace())
    return Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False)


def pace(done: float, total: float | None, speed: float) -> str:
    """`12 a second, 0:01:40 left`; what is not known yet is left out."""
    if not done or not speed:
        return ""
    rate = f"{speed:,.0f} a second" if speed >= 1 else f"{speed * 60:,.0f} a minute"
    return rate if total is None else f"{rate}, {timedelta(seconds=round((total - done) / speed))} left"


# -- words ---------------------------------------------------------------------------------------------------


def count(number: int, noun: str) -> str:
    """`1 hole`, `12,345 holes`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def share(part: float, whole: float = 1.0) -> str:
    """A share as a person reads it: `12.3 %`; `0 %` of nothing."""
    return f"{100 * part / whole:.1f} %" if whole and part else "0 %"


def problem(file: str, line: int | None, level: str, code: str, message: str) -> str:
    """A finding of lint in the form of compilers, which editors can jump to."""
    return f"{file if line is None else f'{file}:{line}'}: {level}: {message} [{code}]"


def holes_notes(found: Mapping[str, Any]) -> str:
    """What stands below the table of `stopgap holes`."""
    pool, empty = found["pool"], found["pool_holes"]
    sizes = f"{count(pool, 'pair')}, {count(empty, 'hole')} ({share(empty, pool)})"
    note = f"Pool to depth {found['depth']}: {sizes}."
    return "\n".join([note, *_topic_notes(found["runs"])])


def measure_table(
    runs: Mapping[str, Mapping[str, Any]], measures: Sequence[str], cutoff: int
) -> tuple[list[str], list[list[object]]]:
    """Columns and rows of `stopgap measure`, best run first; with labels, their share behind each score."""
    labels = any(run["labeled_share"] or any(run["score_share"].values()) for run in runs.values())
    ends = [f"judged@{cutoff}", "labeled_share"]
    columns = ["run", *(c for m in measures for c in ([m, SHARE] if labels else [m])), *ends]
    rows = []
    for name, run in sorted(runs.items(), key=lambda run: -run[1][measures[0]]):
        scores = [v for m in measures for v in ([run[m], run["score_share"][m]] if labels else [run[m]])]
        rows.append([name, *scores, *(run[c] for c in ends)])
    return columns, rows


def measure_notes(runs: Mapping[str, Mapping[str, Any]], topics: int, columns: Sequence[str]) -> str:
    """What stands below the table of `stopgap measure`."""
    notes = [f"Means over {count(topics, 'topic')}."]
    if SHARE in columns:
        notes.append(
            f"{SHARE}: the share of the score before it that labeled documents bring; 1 is all of it."
        )
    return "\n".join(notes + _topic_notes(runs))


def _topic_notes(runs: Mapping[str, Mapping[str, Any]]) -> list[str]:
    words = {
        "missing_topics": "{} of the qrels not in {}: it counts 0 there.",
        "unjudged_topics": "{} of {} not in the qrels: left out.",
    }
    return [
        w.format(count(run[key], "topic"), name)
        for name, run in runs.items()
        for key, w in words.items()
        if run.get(key)
    ]


def fill_story(summary: Mapping[str, Any], accounts: Sequence[Mapping[str, Any]], out: str) -> str:
    """What `stopgap fill` did, in words."""
    unlabeled = sum(summary["unlabeled"].values())
    reasons = ", ".join(f"{n:,} {reason}" for reason, n in summary["unlabeled"].items())
    story = [
        f"Pool: {count(summary['pool'], 'pair')}, {count(summary['holes'], 'hole')}.",
        f"Labeled: {summary['labeled']:,}. Without a label: {unlabeled:,}"
        + (f" ({reasons})." if reasons else "."),
        f"Asked of the model: {summary['model_calls']:,}. From the ledger: {summary['cache_hits']:,}. "
        f"Near-duplicates of judged documents: {summary['near_duplicates']:,}.",
    ]
    calibration = summary["calibration"]
    if quality := calibration.get("left_out"):
        bare = calibration["left_out_bare"]
        story.append(
            f"On {count(calibration['judgments'], 'judged pair')}, each labeled without its own judgment: "
            f"kappa {quality['kappa']:.3f}, AUC {quality['auc']:.3f}, calibration error {quality['ece']:.3f} "
            f"(without the topic's others: {bare['kappa']:.3f}, {bare['auc']:.3f}, {bare['ece']:.3f})."
        )
    story += [account_line(account) for account in accounts if account["asked"] or "passed_on" in account]
    story.append(f"Written: {out}. Next: stopgap measure RUN... --qrels {out} -m nDCG@10")
    return "\n".join(story)


def account_line(account: Mapping[str, Any]) -> str:
    """What a labeler that was asked took, in a sentence; what it does not tell of itself is left out."""
    more = [f"asked about {count(account['asked'], 'pair')}"]
    if "unsure" in account:
        more.append(f"unsure of {account['unsure']:,}: {account['passed_on']:,} passed on")
    if account.get("left_unsure"):
        more.append(f"{account['left_unsure']:,} left unsure for want of budget")
    if "requests" in account:
        again = f" ({account['retries']:,} of them again)" if account.get("retries") else ""
        more.append(f"{count(account['requests'], 'request')}{again}")
    if "tokens_in" in account:
        more.append(f"{account['tokens_in']:,} tokens in, {account.get('tokens_out', 0):,} out")
    if cut := account.get("cut"):
        more.append(f"{count(cut, 'document')} shortened")
    if account["pairs_per_second"] is not None:
        more.append(f"{account['seconds']:,.1f} s, {account['pairs_per_second']:,.1f} pairs/s")
    if "cost" in account:
        more.append(f"{account['cost']:,.4f} {account['currency']}".rstrip())
    return f"{account['labeler']}: {', '.join(more)}."


# -- JSON ----------------------------------------------------------------------------------------------------


def as_json(value: Any) -> str:
    """One JSON object, indented, with null for what is no finite number."""
    return json.dumps(_finite(value), indent=2, ensure_ascii=False, allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return value
