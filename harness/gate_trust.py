"""The floors on what is known of the labels: what filling does to verdicts, as `simulate` measured it."""

from __future__ import annotations

from pathlib import Path

from harness.errors import UnknownName
from harness.gate_config import Simulation
from harness.gate_output import Check, Verdict
from harness.saved import read_saved

__all__ = ["check_simulation"]


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
