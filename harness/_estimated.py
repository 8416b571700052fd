"""How estimates look on the command line: tables and words. `harness.cli` prints them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness._render import count

if TYPE_CHECKING:
    from harness.estimate import Estimate, Estimates
    from harness.ppi import Powered

__all__ = ["notes", "tables"]

Table = tuple[str, list[str], list[list[object]]]
_BLANK = "-"


def tables(result: Estimates) -> list[Table]:
    """Title (may be empty), columns and rows of each table of `stopgap estimate`, in order."""
    signed = [(name, of, one) for name, found in result.found.items() for of, one in found.items()]
    columns = ["measure", "of", "estimate", "95 % interval", "humans alone", "its 95 % interval"]
    columns += ["labels alone", "lambda", "worth"]
    rows: list[list[object]] = [
        [
            name,
            of,
            _number(one.powered.value, of),
            _span(one.powered, of),
            _number(one.alone.value, of),
            _span(one.alone, of),
            _number(one.labels_only, of),
            f"{one.powered.lam:.2f}",
            _BLANK if one.worth is None else f"{one.worth:.0f} topics",
        ]
        for name, of, one in signed
    ]
    return [("", columns, rows), *(_costs(name, found) for name, found in result.found.items())]


def _costs(name: str, found: dict[str, Estimate]) -> Table:
    columns = ["of", "precision", "humans alone", "judgments", "with labels", "judgments"]
    rows: list[list[object]] = [
        [
            of,
            f"+-{cost.half_width:g}",
            count(cost.alone, "topic"),
            f"{one.judgments(cost.alone):,}",
            _BLANK if cost.powered is None else count(cost.powered, "topic"),
            _BLANK if cost.powered is None else f"{one.judgments(cost.powered):,}",
        ]
        for of, one in found.items()
        for cost in one.costs
    ]
    return f"Judged topics that an interval of this width will take, {name}:", columns, rows


def _number(value: float, of: str) -> str:
    from harness.estimate import DELTA

    return f"{value:+.4f}" if of == DELTA else f"{value:.4f}"


def _span(one: Powered, of: str) -> str:
    return f"{_number(one.low, of)} to {_number(one.high, of)}"


def notes(result: Estimates) -> str:
    """What stands below the tables."""
    lines = list(result.notes)
    for name, found in result.found.items():
        useless = [of for of, one in found.items() if one.powered.lam == 0]
        if useless and result.others:
            lines.append(f"{name}: labels tell too little of {', '.join(useless)} to be used (lambda 0)")
    lines.append(
        f"{count(len(result.judged), 'judged topic')} ({count(result.judgments, 'judgment')}),"
        f" {count(result.others, 'topic')} with labels only. Right on average only if the judged topics are a"
        " random part of all, and labeled as the others are, without a look at their judgments."
    )
    lines.append("worth: judged topics that would tell as much without labels. -: more topics are needed.")
    return "\n".join(lines)
