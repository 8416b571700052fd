"""How comparisons look on the command line: tables and words. `harness.cli` prints them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness._render import count

if TYPE_CHECKING:
    from harness.compare import Compared, Comparison
    from harness.groups import Groups

__all__ = ["groups_table", "groups_title", "notes", "table"]

_BLANK = "-"


def table(result: Compared) -> tuple[list[str], list[list[object]]]:
    """Columns and rows of `stopgap compare`: all topics first, then the slices."""
    several = len(result.candidates) > 1
    columns = ["measure", "base", "candidate", "delta", "95 % interval", "p", "won/tied/lost", "verdict"]
    if any(one.bounds for found in result.found.values() for one in found.values()):
        columns.insert(5, "bounds")
    if result.slices:
        columns.insert(0, "topics")
    if several:
        columns.insert(0, "run")
    rows = [
        _row(columns, {"run": candidate, "topics": slice_name or "all", "measure": measure}, one)
        for slice_name, found in {"": result.found, **result.slices}.items()
        for candidate, by_measure in found.items()
        for measure, one in by_measure.items()
    ]
    return columns, rows


def _row(columns: list[str], names: dict[str, str], one: Comparison) -> list[object]:
    cells: dict[str, object] = {
        **names,
        "base": one.base,
        "candidate": one.candidate,
        "delta": f"{one.delta:+.4f}",
        "95 % interval": _span(one.ci),
        "bounds": _span(one.bounds) if one.bounds else _BLANK,
        "p": one.p_adjusted,
        "won/tied/lost": f"{one.wins}/{one.ties}/{one.losses}",
        "verdict": one.verdict,
    }
    return [cells[column] for column in columns]


def _span(ends: tuple[float, float]) -> str:
    return f"{ends[0]:+.4f} to {ends[1]:+.4f}"


def notes(result: Compared) -> str:
    """What stands below the table: for each measure what the verdict rests on, then what to know of the
    input."""
    lines = []
    for candidate, found in result.found.items():
        for measure, one in found.items():
            name = f"{candidate}, {measure}" if len(result.candidates) > 1 else measure
            lines.append(f"{name}: {one.verdict}. {one.why}")
    lines += result.notes
    topics = len(result.measurement.topics)
    family = sum(len(found) for found in result.found.values()) * (1 + len(result.slices))
    corrected = f" p is corrected over {family} comparisons." if family > 1 else ""
    lines.append(f"Over {count(topics, 'topic')}; base: {result.base}.{corrected}")
    return "\n".join(lines)


def groups_title(found: Groups) -> str:
    """What stands above the table of one measure of `stopgap compare --all`."""
    return f"{found.measure}: runs that share a group cannot be told apart (randomised Tukey HSD, 5 %)."


def groups_table(found: Groups) -> tuple[list[str], list[list[object]]]:
    """Columns and rows of `stopgap compare --all`, best run first."""
    rows: list[list[object]] = [
        [run, mean, " ".join(map(str, groups))] for run, mean, groups in found.systems.iter_rows()
    ]
    return ["run", found.measure, "groups"], rows
