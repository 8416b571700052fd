"""May the labels judge these runs? What filling does to verdicts (`simulate`), and who is related."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from harness.circularity import Relation, relations
from harness.errors import UnknownName
from harness.gate_config import Diagnosis, Simulation
from harness.gate_output import Check, Verdict
from harness.saved import read_saved

__all__ = ["check_circularity", "check_diagnosis", "check_simulation"]


def check_simulation(results: Path, wanted: Simulation) -> Check:
    """Whether a fill kept enough verdicts where holes were made in complete judgments.

    Parameters
    ----------
    results: what `stopgap simulate --json` printed; its first table counts.

    Raises
    ------
    InputError: `results` cannot be read, or is not that. UnknownName: no such fill is in it.
    """
    found = read_saved(results, "simulate")
    if wanted.fill not in found["fills"]:
        raise UnknownName("fill", wanted.fill, list(found["fills"]))
    one = found["fills"][wanted.fill]
    value, compared = one.get("verdict_agreement"), one.get("comparisons")
    said = (
        f"{wanted.fill}, leaving out {found.get('leave_out')}, {found.get('measure')}: {one.get('flips')} of"
        f" {compared} comparisons turned round"
    )
    if not isinstance(value, int | float) or not compared:
        said = f"{said}: there is nothing to go by"
        return Check("simulation", "simulation", "inconclusive", None, wanted.verdict_agreement, said)
    verdict: Verdict = "pass" if value >= wanted.verdict_agreement else "fail"
    return Check("simulation", "simulation", verdict, float(value), wanted.verdict_agreement, said)


def check_diagnosis(results: Path, wanted: Diagnosis) -> list[Check]:
    """Whether labels have a fault of scale or direction, and how easily their labeler is fooled.

    Parameters
    ----------
    results: what `stopgap diagnose --json` printed.

    Raises
    ------
    InputError: `results` cannot be read, or is not that.
    """
    found = read_saved(results, "diagnose")
    checks = [_scale(name, each) for name, each in (found["scale"] or {}).items()]
    if wanted.fooled is None:
        return checks
    tried = (found["gullibility"] or {}).get("perturbations", {})
    checks += [_fooled(kind, one, wanted.fooled) for kind, one in tried.items() if one.get("labeled")]
    if not tried:
        said = f"{results} does not say whether the labeler can be fooled: diagnose --labeler --collection"
        checks.append(Check("diagnosis", "fooled", "inconclusive", None, wanted.fooled, said))
    return checks


def _scale(name: str, findings: Sequence[Mapping[str, Any]]) -> Check:
    faults = [f"{one['check']}: {one['words']}" for one in findings if one["found"]]
    said = "; ".join(faults) or "no fault of scale, direction or pairs"
    return Check("diagnosis", f"scale of {name}", "fail" if faults else "pass", None, None, said)


def _fooled(kind: str, one: Mapping[str, Any], ceiling: float) -> Check:
    """All of the interval of the share that becomes relevant has to lie on one side."""
    low, high = one["ci"]["up"] or (0.0, 1.0)
    verdict: Verdict = "inconclusive"
    if high <= ceiling:
        verdict = "pass"
    elif low > ceiling:
        verdict = "fail"
    said = f"{one['what']}: of {one['labeled']} documents, 95 % interval {low:.3f} to {high:.3f}"
    return Check("diagnosis", f"fooled when {kind}", verdict, one["up"], ceiling, said, (low, high))


def check_circularity(runs: Mapping[str, Path], qrels: pl.DataFrame, allow: Sequence[str]) -> list[Check]:
    """Whether a run shares a model, a teacher or training data with a labeler of the qrels: one check a run.

    A run of which nothing is known passes, and the check says so: unknown is never called apart. None for
    qrels without labels.

    Parameters
    ----------
    runs: name -> file. `allow`: names of runs that may.

    Raises
    ------
    UnknownName: `allow` names no run. InputError: a run's metadata twin cannot be read.
    """
    found: dict[str, list[Relation]] = {}
    for one in relations(runs, qrels.filter(pl.col("assessor") != "human"), allow):
        found.setdefault(one.run.name, []).append(one)
    return [_circularity(name, each) for name, each in found.items()]


def _circularity(name: str, each: Sequence[Relation]) -> Check:
    shared = [f"{one.nearest} with {one.labeler.name}" for one in each if one.shared]
    verdict: Verdict = "fail" if any(one.shared and not one.allowed for one in each) else "pass"
    if verdict == "fail":
        said = (
            f"shares {' and '.join(shared)}: the labels would judge a relative of their labeler. Next:"
            f' another labeler, or checks.allow_circular = ["{name}"] where that is known and accepted'
        )
    elif shared:
        said = f"shares {' and '.join(shared)}, which checks.allow_circular accepts"
    elif any(one.status == "unknown" for one in each):
        lacking = sorted({what for one in each for what in one.lacking})
        said = f"unknown: not stated is {', '.join(lacking)}"
    else:
        said = "shares nothing with the labeler, by their cards"
    status = next((s for s in ("shared", "unknown") if any(one.status == s for one in each)), "apart")
    return Check("circularity", f"circularity of {name}", verdict, status, None, said)
