"""Whether labels are on the assessors' scale, the right way up, and each there once.

These faults are the file's, not the labeler's opinion: what the labels say is looked at before anything else
is computed from them. A grade that is not on the scale, or a pair that is labeled twice, makes every other
figure meaningless, so that nothing else is computed (`blocking`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from harness.agree_pairs import Judged
from harness.agree_ranking import spearman
from harness.agree_rated import positions
from harness.agree_tables import count_tables, distances, interval, kappas, resampled
from harness.arrays import Floats, Ints
from harness.diagnose_bias import numbered
from harness.frames import labels_in

__all__ = ["CHECKS", "Finding", "scale_checks"]

CHECKS = ("out_of_scale", "duplicates", "constant", "inverted", "shifted")
_KEYS = ["query_id", "doc_id"]
_RISE = 0.05  # of kappa, from which on a shift is worth saying


@dataclass(frozen=True)
class Finding:
    """One check. `found`: True, False, or None where it could not be made; `words`: the evidence and why;
    `evidence`: its numbers; `next`: the next command, where something was found."""

    check: str
    found: bool | None
    words: str
    evidence: dict[str, Any] = field(default_factory=dict)
    next: str = ""

    @property
    def blocking(self) -> bool:
        """Whether nothing may be computed from such labels."""
        return bool(self.found) and self.check in ("out_of_scale", "duplicates")

    def to_json(self) -> dict[str, Any]:
        """The finding as `stopgap diagnose --json` has it."""
        return {
            "check": self.check,
            "found": self.found,
            "words": self.words,
            "evidence": self.evidence,
            "next": self.next or None,
        }


def scale_checks(of: Judged, labels: pl.DataFrame, name: str, seed: int, resamples: int) -> list[Finding]:
    """The checks of `CHECKS`, in that order.

    Parameters
    ----------
    labels: LABELS or QRELS, of which the labels count (rows whose assessor is not `human`) or, where it marks
        none, all. name: of the labels, as the commands in `next` have it.
    """
    rows = labels.filter(pl.col("relevance").is_not_null())
    if "assessor" in rows.columns:
        rows = labels_in(rows)
    rows = rows.select(*_KEYS, pl.col("relevance").cast(pl.Int64))
    twice = _duplicates(rows, name)
    found = [_out_of_scale(of, rows, name), twice]
    if twice.found:
        why = "not looked at while pairs are labeled more than once"
        return [*found, *(Finding(check, None, why) for check in CHECKS[2:])]
    joined = of.frame.select(_KEYS).join(rows, on=_KEYS, how="left", maintain_order="left")["relevance"]
    given = joined.fill_null(-1).to_numpy().astype(np.int64)
    has = np.flatnonzero(joined.is_not_null().to_numpy())
    human = positions(of)
    constant = _constant(of, human, given, has, name)
    if constant.found is not False:
        why = "labels that do not differ have no direction" if constant.found else constant.words
        return [*found, constant, *(Finding(check, None, why) for check in CHECKS[3:])]
    inverted = _inverted(of, human, given, has, name, seed, resamples)
    if inverted.found:
        shifted = Finding("shifted", None, "not looked at while the labels are turned round")
    else:
        shifted = _shifted(of, human, given, has, name, seed, resamples)
    return [*found, constant, inverted, shifted]


def _out_of_scale(of: Judged, rows: pl.DataFrame, name: str) -> Finding:
    scale = of.grades.tolist()
    off = rows.filter(~pl.col("relevance").is_in(scale))
    counts = {str(g): n for g, n in off["relevance"].value_counts().sort("relevance").iter_rows()}
    if not counts:
        return Finding("out_of_scale", False, f"all {rows.height:,} labels are grades of {_list(scale)}")
    said = ", ".join(f"{grade} ({n:,} times)" for grade, n in counts.items())
    first = off.row(0)
    higher = [g for g in map(int, counts) if g >= 0]
    hint = (
        f"--grades {','.join(map(str, sorted({*scale, *higher})))} if that is the scale, or leave out of"
        if higher
        else "leave out of"
    )
    return Finding(
        "out_of_scale",
        True,
        f"{off.height:,} of {rows.height:,} labels are not on the assessors' scale {_list(scale)}: {said};"
        f" the first is document {first[1]!r} of topic {first[0]!r}",
        {"grades": counts, "labels": off.height},
        f"{hint} {name} what is no grade",
    )


def _duplicates(rows: pl.DataFrame, name: str) -> Finding:
    again = (
        rows.group_by(_KEYS).agg(n=pl.len(), differing=pl.col("relevance").n_unique()).filter(pl.col("n") > 1)
    )
    if not again.height:
        return Finding("duplicates", False, f"each of the {rows.height:,} pairs is labeled once")
    differing = again.filter(pl.col("differing") > 1).height
    query, document, *_ = again.sort(_KEYS).row(0)
    return Finding(
        "duplicates",
        True,
        f"{again.height:,} pairs are labeled more than once, {differing:,} of them differently; the first is"
        f" document {document!r} of topic {query!r}",
        {"pairs": again.height, "differing": differing},
        f"stopgap lint {name} names the lines; keep one label a pair",
    )


def _constant(of: Judged, human: Ints, given: Ints, has: Ints, name: str) -> Finding:
    if len(has) < 2:
        return Finding("constant", None, f"{len(has)} judged pairs have a label: too few to look at")
    if np.ptp(given[has]) > 0:
        return Finding("constant", False, f"{len(np.unique(given[has]))} grades are in use")
    one = int(given[has][0])
    judgments = np.unique(human[has])
    alike = " and so are all its judgments" if len(judgments) == 1 else ""
    return Finding(
        "constant",
        True,
        f"all {len(has):,} labels of judged pairs are {one}{alike}",
        {"grade": one, "pairs": len(has)},
        f"look at what {name} was parsed from: such labels order nothing",
    )


def _inverted(
    of: Judged, human: Ints, given: Ints, has: Ints, name: str, seed: int, resamples: int
) -> Finding:
    """Labels that run against the judgments, and with them when turned round."""
    grades = of.grades[human[has]]
    if np.ptp(grades) == 0:
        return Finding("inverted", None, f"all judgments are {int(grades[0])}: there is no direction")
    label = given[has]
    mirrored = int(label.max() + label.min()) - label
    size = len(of.grades)
    topic, number = numbered(of, has)
    tables = {
        side: count_tables(topic, human[has], _clipped(of, values), (number, size, size))
        for side, values in (("as", label), ("mirrored", mirrored))
    }
    weights = distances(of.grades, 2)
    kappa = {side: float(kappas(t.sum(axis=0)[None], weights)[0]) for side, t in tables.items()}
    correlation = spearman(grades.astype(np.float64), label.astype(np.float64))
    gap = _gap(tables["as"], tables["mirrored"], weights, seed, resamples)
    evidence = {
        "spearman": correlation,
        "kappa_quadratic": _or_none(kappa["as"]),
        "kappa_quadratic_mirrored": _or_none(kappa["mirrored"]),
        "gain_ci": gap,
    }
    words = (
        f"rank correlation with the judgments {correlation:+.3f}; quadratic kappa {kappa['as']:+.3f}, turned"
        f" round {kappa['mirrored']:+.3f}"
    )
    found = correlation < 0 and kappa["mirrored"] > kappa["as"] and (gap is None or gap[0] > 0)
    hint = f"find out which way its grades run; `stopgap fill ... --labeler lookup:{name}` learns it"
    return Finding("inverted", bool(found), words, evidence, hint if found else "")


def _shifted(
    of: Judged, human: Ints, given: Ints, has: Ints, name: str, seed: int, resamples: int
) -> Finding:
    """Labels that agree better with a constant added."""
    if len(np.unique(human[has])) < 2:
        return Finding("shifted", None, "all judgments are one grade: no kappa can rise")
    size, width = len(of.grades), int(of.grades[-1] - of.grades[0])
    topic, number = numbered(of, has)
    weights = distances(of.grades, 0)
    tables = {
        s: count_tables(topic, human[has], _clipped(of, given[has] + s), (number, size, size))
        for s in range(-width, width + 1)
    }
    kappa = {s: float(kappas(t.sum(axis=0)[None], weights)[0]) for s, t in tables.items()}
    known = {s: k for s, k in kappa.items() if math.isfinite(k)}
    best = max(known, key=lambda s: (round(known[s], 12), -abs(s)), default=0)
    before = known.get(0, 0.0)
    gap = _gap(tables[0], tables[best], weights, seed, resamples) if best else None
    rise = known.get(best, before) - before
    evidence = {
        "shift": best,
        "kappa": _or_none(kappa[0]),
        "kappa_shifted": _or_none(kappa[best]),
        "gain_ci": gap,
    }
    if best == 0:
        return Finding("shifted", False, f"kappa {before:+.3f} is highest without a shift", evidence)
    words = (
        f"with {best:+d} on every label, kept on the scale, kappa is {known[best]:+.3f}, not {before:+.3f}"
    )
    found = rise >= _RISE and (gap is None or gap[0] > 0)
    hint = f"compare its scale with the assessors'; `stopgap fill ... --labeler lookup:{name}` learns it"
    return Finding("shifted", bool(found), words, evidence, hint if found else "")


def _clipped(of: Judged, values: Ints) -> Ints:
    """Positions on the scale of the nearest grades."""
    apart = np.abs(values[:, None] - of.grades[None, :])
    return np.asarray(apart.argmin(axis=1))


def _gap(first: Floats, second: Floats, weights: Floats, seed: int, resamples: int) -> list[float] | None:
    """95 % interval over topics of how much higher the second's kappa is; None for a single topic."""
    if len(first) < 2:
        return None
    drawn = resampled({"first": first, "second": second}, seed, resamples)
    ends = interval(kappas(drawn["second"], weights) - kappas(drawn["first"], weights))
    return None if ends is None else list(ends)


def _or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _list(values: list[int]) -> str:
    return ", ".join(map(str, values))
