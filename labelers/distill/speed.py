"""How fast a student is beside its teacher, and what that saves: measured in one run, on the same pairs."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

import polars as pl

from harness.errors import StopgapError
from harness.labeling import Labeler, label_id, signals

__all__ = ["compare_speed", "machine"]

_ROUNDS = 3
_WARM = 8  # pairs that are asked about before time is taken, so that loading a model is no part of it
_LONGEST = (
    60.0  # seconds of a round that the slower one may take; with more pairs than fit, fewer are asked about
)
_LEAST = 16


def compare_speed(
    student: Labeler,
    teacher: Labeler | None,
    pairs: pl.DataFrame,
    *,
    why_not: str = "no teacher was named",
    machine_hour: float | None = None,
) -> dict[str, Any]:
    """Pairs a second of both, without a ledger, in turn; the median of three rounds.

    Parameters
    ----------
    pairs: PAIRS, distinct. Fewer are asked about where the teacher would take more than a minute a round.
    why_not: why there is no teacher. machine_hour: what an hour of this machine costs, in the currency of the
        teacher's prices.

    Returns
    -------
    `pairs`, `rounds`, `student` and `teacher` (`labeler`, `pairs_per_second`; the teacher null, and `why`,
    where it cannot be timed), `ratio` of the student's speed to the teacher's, `cost` (`ratio` of the
    teacher's cost to the student's, or null and why; `by`: `time` on one machine or `money`), and `machine`.

    Raises
    ------
    StopgapError: the student cannot be asked.
    """
    pairs = pairs.drop_nulls(["query", "text"]).unique(["query", "text"], keep="first", maintain_order=True)
    before = 0.0
    paid: dict[str, Any] = {}
    if teacher is not None and not teacher.needs_text:
        why_not = f"{teacher.name} looks at no text, so its speed says nothing"
        teacher = None
    if teacher is not None:
        try:
            before = _seconds(teacher, pairs.head(_WARM)) and _seconds(teacher, pairs[_WARM : 2 * _WARM])
        except StopgapError as error:
            teacher, why_not = None, str(error).splitlines()[0]
    if teacher is not None:
        fit = int(_LONGEST / max(before, 1e-9) * _WARM)
        pairs = pairs.head(max(_LEAST, fit))
    signals(student, pairs.head(_WARM))
    times: dict[str, list[float]] = {"student": [], "teacher": []}
    for _ in range(_ROUNDS):
        times["student"].append(_seconds(student, pairs))
        if teacher is not None:
            start = _usage(teacher)
            times["teacher"].append(_seconds(teacher, pairs))
            paid = {"cost": _cost(_usage(teacher)) - _cost(start), **_usage_words(teacher)}
    mine = pairs.height / median(times["student"])
    found: dict[str, Any] = {
        "pairs": pairs.height,
        "rounds": _ROUNDS,
        "student": {"labeler": label_id(student), "pairs_per_second": _short(mine)},
        "teacher": None,
        "ratio": None,
        "machine": machine(),
    }
    if teacher is None:
        return {**found, "why": why_not, "cost": {"ratio": None, "why": why_not}}
    theirs = pairs.height / median(times["teacher"])
    ratio = mine / theirs
    return {
        **found,
        "teacher": {"labeler": label_id(teacher), "pairs_per_second": _short(theirs)},
        "ratio": _short(ratio),
        "cost": _costs(paid, pairs.height, mine, ratio, machine_hour),
    }


def machine() -> dict[str, Any]:
    """This machine, as one would name it beside a speed."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"cpu": _cpu(), "cores": cores, "system": platform.system(), "python": platform.python_version()}


def _costs(
    paid: Mapping[str, Any], pairs: int, rate: float, ratio: float, machine_hour: float | None
) -> dict[str, Any]:
    """The teacher's cost over the student's."""
    if not paid["remote"]:
        return {"ratio": _short(ratio), "by": "time", "why": "both run on this machine"}
    if not paid["cost"]:
        return {"ratio": None, "why": "the teacher runs elsewhere and was given no prices"}
    thousand = paid["cost"] / pairs * 1000
    told = {"by": "money", "currency": paid["currency"], "teacher_per_1000_pairs": _short(thousand)}
    if machine_hour is None:
        return {
            "ratio": None,
            "why": "what an hour of this machine costs is not stated (machine_hour)",
            **told,
        }
    mine = machine_hour / 3600 / rate * 1000
    return {"ratio": _short(thousand / mine), "student_per_1000_pairs": _short(mine), **told}


def _short(value: float) -> float:
    """Four digits: no time is known more exactly."""
    return float(f"{value:.4g}")


def _seconds(labeler: Labeler, pairs: pl.DataFrame) -> float:
    began = time.perf_counter()
    signals(labeler, pairs)
    return max(time.perf_counter() - began, 1e-9)


def _usage(labeler: Labeler) -> Mapping[str, Any]:
    offered = getattr(labeler, "usage", None)
    return offered() if callable(offered) else {}


def _usage_words(labeler: Labeler) -> dict[str, Any]:
    used = _usage(labeler)
    return {"remote": bool(used.get("requests")), "currency": used.get("currency", "")}


def _cost(used: Mapping[str, Any]) -> float:
    return float(used.get("cost") or 0.0)


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
