"""How simulations look on the command line: tables and words. `harness.cli` prints them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness._render import count

if TYPE_CHECKING:
    from harness.simulate import Simulated, Table

__all__ = ["notes", "tables"]

_COLUMNS = [
    "fill",
    "verdicts kept",
    "flips",
    "rank shift",
    "at most",
    "score error",
    "mean error",
    "tau",
    "interval covers",
]


def tables(result: Simulated) -> list[tuple[str, list[str], list[list[object]]]]:
    """Title, columns and rows of each table of `stopgap simulate`, in order."""
    return [
        (_title(table), _COLUMNS, [_row(name, tally.to_json()) for name, tally in table.fills.items()])
        for table in result.tables
    ]


def _title(table: Table) -> str:
    parts = [table.measure]
    if table.rate is not None:
        parts.append(f"{100 * table.rate:g} % of the judgments left out")
    if table.budget is not None:
        parts.append(f"fits see {table.budget} judged documents a topic")
    sets = count(table.sets, "set")
    return f"{', '.join(parts)}; {count(table.holes, 'hole')} in {sets}:"


def _row(name: str, found: dict[str, Any]) -> list[object]:
    tau, covered = found["kendall_tau"], found["coverage"]
    return [
        name,
        f"{found['verdict_agreement']:.4f}",
        found["flips"],
        f"{found['rank_shift']['mean']:.2f}",
        found["rank_shift"]["max"],
        f"{found['score_error']:.4f}",
        f"{found['score_bias']:+.4f}",
        "-" if tau is None else f"{tau:.4f}",
        "-" if covered is None else f"{covered:.3f}",
    ]


def notes(result: Simulated) -> str:
    """What stands below the tables."""
    first = result.tables[0]
    compared = max(tally.comparisons for tally in first.fills.values())
    checked = max(sum(c.comparisons for c in tally.covered) for tally in first.fills.values())
    who = "every run with every other" if result.leave_out == "random" else "who is left out with all others"
    lines = [
        *result.notes,
        f"{count(result.runs, 'run')}, {count(result.topics, 'topic')}, "
        f"{count(result.judgments, 'judgment')}; {count(compared, 'comparison')}: {who}.",
        "verdicts kept: share of comparisons whose sign and significance (paired t, 0.05) are those under the"
        " full qrels; flips: better turned into worse. Errors are of the left-out runs' scores.",
    ]
    if checked:
        lines.append(
            f"interval covers: of {checked} of the comparisons, how often the labels' 95 % interval holds the"
            " difference under the full qrels."
        )
    return "\n".join(lines)
