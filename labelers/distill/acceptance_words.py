"""An acceptance test as a person reads it: a verdict, a table, and what the table's words mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from labelers.distill.sections import CRITERIA

__all__ = ["table", "values_table", "verdict"]

_ROWS = {
    "kappa": "kappa, all grades",
    "kappa_quadratic": "kappa, quadratic",
    "kappa_binary": "kappa, ≥ {t}",
    "auc.{t}": "AUC, ≥ {t}",
    "labels_as_run.nDCG@10": "nDCG@10 of its ranking",
    "pairwise_accuracy.strict": "pairs in order, ties wrong",
    "pairwise_accuracy.half_ties": "pairs in order, ties half",
    "ece": "calibration error (ECE)",
    "brier": "Brier score",
}


def verdict(found: Mapping[str, Any]) -> str:
    """Accepted or not, and why."""
    head = "**Accepted**" if found["accepted"] else "**Not accepted**"
    lines = [f"{head} on {found['test']['pairs']:,} human judgments of {found['test']['topics']} topics of "
             f"{found['test']['collection']}.", ""]  # fmt: skip
    lines += [f"- {_sentence(why)}" for why in found["why"]]
    lines += [f"- Note: {note}." for note in found["notes"]]
    return "\n".join(lines)


def values_table(found: Mapping[str, Any]) -> str:
    """Measures by contender, with 95 % intervals, as a Markdown table."""
    contenders: Mapping[str, Mapping[str, Any]] = found["contenders"]
    threshold = next(iter(contenders.values()))["threshold"]
    rows = [["", *contenders]]
    for key, words in _ROWS.items():
        name = key.format(t=threshold)
        cells = [_cell(one["values"].get(name), one["ci"].get(name)) for one in contenders.values()]
        rows.append([words.format(t=threshold), *cells])
    gaps = [found["gaps"].get(name) for name in contenders]
    rows.append([
        f"student's {CRITERIA[found['criterion']]} less its",
        *("" if gap is None else _cell(gap["delta"], gap["ci"], "+") for gap in gaps),
    ])  # fmt: skip
    return _markdown(rows)


def table(found: Mapping[str, Any]) -> str:
    """The whole: verdict, table, who they are, and the words."""
    who = [
        f"- {name}: {one['who']}, {one['how']}; {one['pairs']:,} pairs"
        for name, one in found["contenders"].items()
    ]
    absent = [f"- {name}: absent. {why}" for name, why in found["absent"].items()]
    threshold = next(iter(found["contenders"].values()))["threshold"]
    words = (
        f"In brackets: 95 % intervals, {found['resamples']:,} resamples of topics. Pairs in order: documents "
        "of one topic that the assessor grades differently, by hard grades. ECE: expected calibration "
        f"error of P(grade ≥ {threshold}), ten bins of equal width; Brier: its mean squared error; of both, "
        "less is better."
    )
    parts = ["# Acceptance", verdict(found), values_table(found), "\n".join([*who, *absent]), words]
    return "\n\n".join(parts)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."


def _cell(value: float | None, ends: Sequence[float] | None, sign: str = "") -> str:
    if value is None:
        return "–"
    shown = f"{value:{sign}.3f}"
    return shown if ends is None else f"{shown} [{ends[0]:{sign}.3f}, {ends[1]:{sign}.3f}]"


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |" for row in rows]
    rule = "|" + "|".join("-" * (w + 2) for w in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])
