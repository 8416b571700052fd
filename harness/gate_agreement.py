"""The floor on a labeler's agreement: Cohen's kappa with assessors on the same pairs (`harness.agree`).

The verdict asks all of its interval: pass where it lies on or above the floor, fail where below, else
inconclusive.
"""

from __future__ import annotations

from pathlib import Path

from harness.agree import agree
from harness.errors import InputError, UsageError
from harness.gate_output import Check, Verdict
from harness.trec import read_qrels

__all__ = ["check_agreement"]


def check_agreement(human: Path, labels: Path, floor: float) -> Check:
    """Whether the labels of one qrels agree with the judgments of another.

    Parameters
    ----------
    human: qrels, of which the assessors' rows count. `labels`: qrels, of which the labels count; where it
        marks none (column 2 is 0 throughout), all of it. Grades below 0 are codes and count in neither.
    floor: the least kappa, over the grades as they are, unweighted.

    Raises
    ------
    InputError: as `read_qrels`; both are one file, or no pair is in both.
    """
    if human.exists() and labels.exists() and human.samefile(labels):
        raise InputError(labels, None, "judgments and labels are one file, and agree with themselves")
    judged, labeled = read_qrels(human), read_qrels(labels)
    labeled = labeled.filter(labeled["relevance"] >= 0)
    highest = max(int(frame["relevance"].max() or 1) for frame in (judged, labeled))  # type: ignore[arg-type]
    try:
        found = agree(judged, {labels.name: labeled}, grades=range(highest + 1)).labelers[labels.name]
    except UsageError as error:
        raise InputError(labels, None, str(error)) from None
    value, interval = found.values["kappa"], found.ci["kappa"]
    said = f"kappa over {found.pairs} pairs of {found.topics} topics"
    if not (labeled["assessor"] != "human").any():
        said += f"; {labels} marks no label, so that all of it was taken for labels"
    if interval is None:
        why = found.undefined.get("kappa") or found.undefined["ci.kappa"]
        return Check("agreement", "agreement", "inconclusive", value, floor, f"{said}: {why}")
    verdict: Verdict = "inconclusive"
    if interval[0] >= floor:
        verdict = "pass"
    elif interval[1] < floor:
        verdict = "fail"
    said += f", 95 % interval {interval[0]:.3f} to {interval[1]:.3f}"
    return Check("agreement", "agreement", verdict, value, floor, said, interval)
