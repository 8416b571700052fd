"""How agreements look on the command line: tables and words. `harness.cli` prints them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from harness._render import count

if TYPE_CHECKING:
    from harness.agree import Agreement
    from harness.agree_rated import Rated

__all__ = ["notes", "tables"]

Table = tuple[str, list[str], list[list[object]]]
_BLANK = "-"
_INTERVAL = "95 % interval"
_NAMES = {
    "kappa": "kappa",
    "kappa_linear": "kappa, linear weights",
    "kappa_quadratic": "kappa, quadratic weights",
    "kappa_at": "kappa, {} or more",
    "alpha_nominal": "alpha, nominal",
    "alpha_ordinal": "alpha, ordinal",
    "accuracy": "same grade",
    "mae": "mean distance of grades",
    "bias": "mean of label - judgment",
    "pairwise_accuracy.strict": "documents in order, ties wrong",
    "pairwise_accuracy.half_ties": "documents in order, ties half",
    "auc": "AUC, {} or more",
    "ece": "calibration error (ECE)",
    "brier": "Brier score",
    "labels_as_run": "labels as a run, {}",
}


def tables(result: Agreement) -> list[Table]:
    """Title (may be empty), columns and rows of each table of `stopgap agree`, in order."""
    if len(result.labelers) == 1:
        [(name, one)] = result.labelers.items()
        found = [_values(one, result.ceiling), _confusion(name, one)]
    else:
        found = [_labelers(result), _pairwise(result)]
    if result.orderings:
        found.append(_orderings(result))
    return found


def _values(one: Rated, ceiling: Rated | None) -> Table:
    columns = ["agreement", "value", _INTERVAL]
    if ceiling:
        columns += ["second assessor", f"its {_INTERVAL}"]
    rows: list[list[object]] = []
    for name in one.values:
        kind, _, inner = name.partition(".")
        known = _NAMES.get(name) or _NAMES.get(kind)
        if known is None or (math.isnan(one.values[name]) and kind in ("ece", "brier")):
            continue
        row = [known.format(inner), *_cells(one, name)]
        rows.append([*row, *_cells(ceiling, name)] if ceiling else row)
    return "", columns, rows


def _labelers(result: Agreement) -> Table:
    names = ["kappa", "kappa_binary", "kappa_quadratic", "alpha_ordinal", "mae", "bias"]
    columns = ["labeler", "pairs", "missing", "kappa", _INTERVAL, *names[1:]]
    shown = dict(result.labelers)
    if result.ceiling:
        shown["(a second assessor)"] = result.ceiling
    rows: list[list[object]] = [
        [name, one.pairs, one.missing, *_cells(one, "kappa"), *(_cells(one, n)[0] for n in names[1:])]
        for name, one in shown.items()
    ]
    return "", columns, rows


def _pairwise(result: Agreement) -> Table:
    columns = ["labeler", "with", "pairs", "kappa", "alpha_ordinal", "nearer to assessors by", _INTERVAL]
    rows: list[list[object]] = []
    for one in result.pairwise:
        gap, ends = one.get("kappa_gap"), one.get("ci", {}).get("kappa_gap")
        rows.append(
            [
                *one["labelers"],
                one["pairs"],
                _shown(one.get("kappa")),
                _shown(one.get("alpha_ordinal")),
                _BLANK if gap is None else f"{gap:+.4f}",
                _span(ends, signed=True),
            ]
        )
    return "Between labelers, over judged pairs:", columns, rows


def _confusion(name: str, one: Rated) -> Table:
    columns = ["judged", *(f"labeled {grade}" for grade in one.grades), "recall", "precision"]
    rows: list[list[object]] = [
        [str(grade), *row, *(_shown(one.per_grade[grade][side]) for side in ("recall", "precision"))]
        for grade, row in zip(one.grades, one.confusion, strict=True)
    ]
    return f"Pairs by judgment and by the label of {name}:", columns, rows


def _orderings(result: Agreement) -> Table:
    columns = ["labeler", "measure", "runs", "tau", _INTERVAL, "tau_AP", "Spearman", "RBO"]
    columns += ["top half", "tau there", "largest drop"]
    rows: list[list[object]] = []
    for name, found in result.orderings.items():
        for measure, one in found.items():
            if "kendall_tau" not in one:
                rows.append([name, measure, one["runs"], *[_BLANK] * (len(columns) - 3)])
                continue
            values = [_shown(one[key]) for key in ("kendall_tau", "tau_ap", "spearman", "rbo")]
            top = one["top_half"]
            fall = f"{one['max_drop']:g} ({one['max_drop_run']})"
            head = [name, measure, one["runs"], values[0], _span(one["ci"]["kendall_tau"])]
            rows.append([*head, *values[1:], top["runs"], _shown(top["kendall_tau"]), fall])
    return "How the labels order the runs, beside the judgments:", columns, rows


def _cells(one: Rated, name: str) -> tuple[object, object]:
    signed = name == "bias"
    return _shown(one.values.get(name), signed=signed), _span(one.ci.get(name), signed=signed)


def _shown(value: float | None, *, signed: bool = False) -> str:
    if value is None or math.isnan(value):
        return _BLANK
    return f"{value:+.4f}" if signed else f"{value:.4f}"


def _span(ends: Sequence[float] | None, *, signed: bool = False) -> str:
    if ends is None:
        return _BLANK
    low, high = (f"{end:+.4f}" if signed else f"{end:.4f}" for end in ends)
    return f"{low} to {high}"


def notes(result: Agreement) -> str:
    """What stands below the tables."""
    lines = list(result.notes)
    for name, one in result.labelers.items():
        extent = f"{count(one.pairs, 'pair')} of {count(one.topics, 'topic')}"
        relevant = f"relevant is {one.threshold} or more of {one.grades[0]} to {one.grades[-1]}"
        lines.append(f"{name}: {extent}; {relevant}.{_against(one, result.ceiling)}")
    for name, found in result.orderings.items():
        lines += [f"{name}: {why}" for why in _undefined(found)]
    lines.append(
        "Intervals: topics drawn anew. Alpha from 0.8 on is taken for reliable, below 0.667 for not."
    )
    if result.orderings:
        lines.append(
            "tau is tau-b; tau_AP the symmetric form with ties; RBO has p 0.9, best run first, over all runs."
            " A high tau alone proves little: look at the top half."
        )
    return "\n".join(lines)


def _against(one: Rated, ceiling: Rated | None) -> str:
    if ceiling is None or not ceiling.values["kappa"] > 0 or math.isnan(one.values["kappa"]):
        return ""
    share = one.values["kappa"] / ceiling.values["kappa"]
    return f" Its kappa is {100 * share:.0f} % of that of two assessors."


def _undefined(found: dict[str, dict[str, Any]]) -> list[str]:
    return [f"{measure}: {one['undefined']}" for measure, one in found.items() if "undefined" in one]
