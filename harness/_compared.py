"""How comparisons look on the command line: tables and words. `harness.cli` prints them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness._render import count

if TYPE_CHECKING:
    from harness.compare import Compared, Comparison
    from harness.groups import Groups
    from harness.plan import Plan

__all__ = ["groups_table", "groups_title", "notes", "plan_notes", "plan_table", "table"]

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


def plan_table(made: Plan) -> tuple[list[str], list[list[object]]]:
    """Columns and rows of `stopgap plan`, what to judge first on top."""
    columns = ["query_id", "doc_id", "base rank", "candidate rank", "influence", "uncertainty"]
    rows: list[list[object]] = [
        [
            row["query_id"],
            row["doc_id"],
            row["base_rank"] or _BLANK,
            row["candidate_rank"] or _BLANK,
            f"{row['influence']:+.5f}",
            f"{row['uncertainty']:.2f}",
        ]
        for row in made.order.iter_rows(named=True)
    ]
    return columns, rows


def plan_notes(made: Plan, written: dict[str, str | None]) -> str:
    """What stands below the table: how things stand, and the next command."""
    outlook = ", ".join(f"{word} {share:.0%}" for word, share in made.outlook.items() if share >= 0.005)
    lines = [
        f"{made.measure}: {made.delta:+.4f}, give or take {made.deviation:.4f} by what is unjudged. "
        f"Judged: {made.judged:,} of {made.judged + made.holes:,} documents within reach; "
        f"{count(made.needed, 'hole')} with influence.",
        f"{'Settled' if made.settled else 'Open'}: {made.reason}",
        f"Verdicts that assessors may yet bring about: {outlook}.",
    ]
    lines += [f"Written: {path}" for path in written.values() if path]
    if not made.settled:
        name = written["out"] or "list.csv"
        first = "" if written["out"] else f"--out {name} writes the list; "
        lines.append(f"Next: {first}fill in its column relevance and give it back with --answers {name}")
    return "\n".join(lines)
