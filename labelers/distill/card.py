"""The card of a labeler: what it was made of and how good it is, for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from labelers.distill.acceptance_words import values_table, verdict
from labelers.labeler_file import LabelerFile

__all__ = ["card_text"]


def card_text(told: LabelerFile, licence: str) -> str:
    """The card as Markdown, from what labeler.json says."""
    grades = "\n".join(f"| {grade} | {word} |" for grade, word in sorted(told.grades.items()))
    parts = [
        f"# {told.name}",
        f"A labeler of stopgap, distilled, of the kind {told.kind}: it grades a document for a query.\n"
        "Use it as `--labeler PATH/OF/THIS/FOLDER`.",
        f"## Grades\n\n| grade | meaning |\n|---|---|\n{grades}",
        f"## What it was made of\n\n{_made(told, licence)}",
        f"## How good it is\n\n{verdict(told.acceptance)}\n\n{values_table(told.acceptance)}\n\n"
        f"{_who(told.acceptance)}\n\n"
        "Measured on these topics and documents; on others, measure again (`stopgap agree`). What the words "
        "mean stands in acceptance.md.",
        f"## How fast it is\n\n{_speed(told.throughput)}",
        f"## Licence\n\nTraining data: {licence}. The weights are bound by the base model's licence, too.",
    ]
    return "\n\n".join(parts) + "\n"


def _made(told: LabelerFile, licence: str) -> str:
    stated = {key: told.card.get(key) for key in ("base model", "teacher", "training data")}
    lines = [f"- {key}: {_list(value)}" for key, value in stated.items()]
    lines.append(f"- licence of the training data: {licence}")
    if told.calibration is not None:
        fitted = told.calibration
        lines.append(
            f"- calibrated on {fitted.judgments:,} human judgments of {fitted.topics} topics "
            f"(sha256 {fitted.judgments_hash[:12]}…)"
        )
    plain = {
        k: v for k, v in told.made.items() if isinstance(v, str | int | float) and not k.startswith("licence")
    }
    lines += [f"- {key}: {value}" for key, value in plain.items()]
    if told.prompt:
        lines.append(f"\nThe prompt:\n\n```\n{told.prompt.strip()}\n```")
    return "\n".join(lines)


def _who(acceptance: Mapping[str, Any]) -> str:
    who = [f"- {name}: {one['who']}, {one['how']}" for name, one in acceptance["contenders"].items()]
    return "\n".join([*who, *(f"- {name}: absent. {why}" for name, why in acceptance["absent"].items())])


def _speed(found: Mapping[str, Any]) -> str:
    on = found["machine"]
    lines = [
        f"{found['student']['pairs_per_second']:g} pairs a second on {on['cpu']}, {on['cores']} cores, "
        f"{on['system']}, Python {on['python']} ({found['pairs']} pairs, median of {found['rounds']} rounds, "
        "no ledger)."
    ]
    if found["teacher"] is None:
        lines.append(f"No ratio to the teacher: {found['why']}.")
        return "\n".join(lines)
    lines.append(
        f"The teacher, {found['teacher']['labeler']}, in the same run: "
        f"{found['teacher']['pairs_per_second']:g} pairs a second. Student : teacher {found['ratio']:g} : 1."
    )
    cost = found["cost"]
    if cost["ratio"] is None:
        lines.append(f"No ratio of costs: {cost['why']}.")
    else:
        by = cost.get("why") or f"in {cost['currency'] or 'money'}"
        lines.append(f"A label costs 1/{cost['ratio']:g} of the teacher's, by {cost['by']} ({by}).")
    return "\n".join(lines)


def _list(value: Any) -> str:
    if value in (None, "", []):
        return "not stated"
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
