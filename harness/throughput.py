"""Has anything become slower? pytest-benchmark's results against stored evidence, as ratios.

Seconds on one machine say nothing about seconds on another. So every benchmark is taken as a ratio to a
reference workload that was timed in the same run. The slowdown is this run's ratio over the stored one, and
may be up to an allowed factor. There are two ways to time the reference:

- In turn, one round of it before each round of the benchmark, so that whatever else the machine does slows
  both: `extra_info["reference"]` holds `workload`, its name, and `seconds`, one a round. The ratio is the
  median over the rounds, its spread two standard errors of that median (from the interquartile range).
- Once, as the benchmark of group `reference`, its workload's name in `extra_info["reference"]`. The ratio is
  one of fastest rounds, since other work can only add time (Chen and Revels, Robust benchmarking in noisy
  environments, 2016); its spread is how far the first quartile is above the fastest round, not divided by
  the root of the number of rounds: the rounds of a minute share the machine's mood.

The slowdown's interval goes one spread of either ratio (in quadrature) to both sides. Pass: it lies at or
below the allowed factor; fail: above it; else inconclusive. A benchmark of a labeler says which in
`extra_info["labeler"]` (`harness.protocol.label_id`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness.errors import InputError, UsageError
from harness.gate_lock import read_json
from harness.gate_output import Check, Verdict

__all__ = ["REFERENCE", "Timed", "Timing", "check_throughput", "read_evidence", "read_results"]

REFERENCE = "reference"
"""The group of the benchmark that all others are held against."""
LEAST_ROUNDS = 3
"""With fewer rounds there is no spread to speak of."""
_TO_DEVIATION = 1.349  # interquartile range of a normal distribution, in standard deviations
_MEDIAN_ERROR = 1.2533  # standard error of a median, in those of a mean, of a normal distribution
_FORMAT = "stopgap_throughput"
_RESULTS = "pytest tests/bench --benchmark-json=FILE"


@dataclass(frozen=True)
class Timing:
    """One benchmark: the `ratio` of its time to the reference's, that ratio's relative `spread`, rounds."""

    ratio: float
    spread: float
    rounds: int
    labeler: str | None = None


@dataclass(frozen=True)
class Timed:
    """One run of benchmarks.

    Attributes
    ----------
    about: where it ran: machine, cpu, cores, python, commit, date.
    labeler: whose labels the gate looked at; it is kept with the evidence and decides nothing.
    reference: which reference workload. `seconds`: its fastest round, for people; it decides nothing.
    benchmarks: pytest's full name -> Timing; without the reference.
    """

    about: dict[str, str]
    reference: str
    seconds: float
    benchmarks: dict[str, Timing]
    labeler: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The evidence that later runs are held against."""
        return {
            _FORMAT: 1,
            "about": self.about,
            "labeler": self.labeler,
            "reference": {"workload": self.reference, "seconds": self.seconds},
            "benchmarks": {name: vars(one) for name, one in sorted(self.benchmarks.items())},
        }


# -- reading ----------------------------------------------------------------------------------------------


def read_results(path: str | Path, labeler: str | None = None) -> Timed:
    """Read what `pytest --benchmark-json=FILE` wrote.

    Raises
    ------
    InputError: there is no such file; it is not pytest-benchmark's; a benchmark has no reference, or there
        are several, or nothing but it; or a figure is no positive number.
    """
    path = Path(path)
    document = _document(path)
    found = _benchmarks(path, document)
    names = [str(one.get("fullname")) for one in found]
    if len(set(names)) < len(names):
        raise InputError(path, None, "two benchmarks have the same full name")
    marked = [one for one in found if one.get("group") == REFERENCE]
    others = [one for one in found if one.get("group") != REFERENCE]
    alone = [one for one in others if not isinstance(_extra(one).get(REFERENCE), dict)]
    if len(marked) > 1 or (alone and not marked):
        what = f"{len(marked)} benchmarks" if marked else "no benchmark"
        hint = f"It has: {', '.join(names)}. Next: time tests/bench/test_bench_reference.py with them"
        raise InputError(path, None, f"{what} of group {REFERENCE!r}, and one is needed", hint)
    if not others:
        raise InputError(path, None, "no benchmark but the reference", f"Next: {_RESULTS}")
    workloads = {_workload(one) for one in [*marked, *others] if one not in alone}
    if len(workloads) > 1:
        raise InputError(path, None, f"several reference workloads: {', '.join(sorted(workloads))}")
    base = _fastest(path, marked[0]) if marked else None
    if base is not None and base[2] < LEAST_ROUNDS:
        what = f"the reference has {base[2]} rounds; it takes {LEAST_ROUNDS} to know its spread"
        raise InputError(path, None, what)
    benchmarks = {}
    seconds = [base[0]] if base else []
    for one in others:
        if base is not None and one in alone:
            fastest, spread, rounds = _fastest(path, one)
            ratio, spread = fastest / base[0], math.hypot(spread, base[1])
        else:
            ratio, spread, rounds, reference = _in_turn(path, one)
            seconds.append(reference)
        who = _extra(one).get("labeler")
        benchmarks[str(one.get("fullname"))] = Timing(
            ratio, spread, rounds, None if who is None else str(who)
        )
    return Timed(_about(document), workloads.pop(), min(seconds), benchmarks, labeler)


def read_evidence(path: str | Path, command: str = "stopgap gate --accept") -> Timed:
    """Read stored evidence, `Timed.to_json` in a file. `command`: what would write it.

    Raises
    ------
    InputError: there is none, or it cannot be used.
    """
    path = Path(path)
    found = read_json(path, _FORMAT, "no stored timings to compare with", command)
    try:
        benchmarks = {str(name): Timing(**one) for name, one in found["benchmarks"].items()}
        base = found["reference"]
        stored = Timed(
            {str(k): str(v) for k, v in found["about"].items()},
            str(base["workload"]),
            float(base["seconds"]),
            benchmarks,
            found.get("labeler"),
        )
        usable = all(
            0 < one.ratio < math.inf and 0 <= one.spread < math.inf and isinstance(one.rounds, int)
            for one in benchmarks.values()
        )
    except (AttributeError, KeyError, TypeError, ValueError):
        usable = False
    if not usable:
        raise InputError(path, None, "not what `stopgap gate --accept` writes", f"Next: {command}")
    return stored


def _benchmarks(path: Path, document: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = document.get("benchmarks")
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise InputError(
            path, None, "not pytest-benchmark's: it has no list of benchmarks", f"Next: {_RESULTS}"
        )
    return found


def _workload(one: Mapping[str, Any]) -> str:
    """The name of a benchmark's reference workload."""
    said = _extra(one).get(REFERENCE, one.get("fullname"))
    return str(said.get("workload") if isinstance(said, dict) else said)


def _document(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(
            path, None, "no such file: the benchmarks were not run", f"Next: {_RESULTS}"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(path, None, f"cannot be read as JSON: {error}", f"Next: {_RESULTS}") from None
    return found if isinstance(found, dict) else {}


def _extra(one: Mapping[str, Any]) -> Mapping[str, Any]:
    extra = one.get("extra_info")
    return extra if isinstance(extra, dict) else {}


def _fastest(path: Path, one: Mapping[str, Any]) -> tuple[float, float, int]:
    """(fastest round in seconds, relative spread, rounds) of one benchmark."""
    try:
        stats = one["stats"]
        fastest, quartile, rounds = float(stats["min"]), float(stats["q1"]), int(stats["rounds"])
    except (KeyError, TypeError, ValueError, OverflowError):
        fastest, quartile, rounds = math.nan, math.nan, 0
    if not (0 < fastest <= quartile < math.inf and rounds > 0):
        raise InputError(path, None, f"benchmark {one.get('fullname')!r} has no usable min, q1 and rounds")
    return fastest, (quartile - fastest) / fastest, rounds


def _in_turn(path: Path, one: Mapping[str, Any]) -> tuple[float, float, int, float]:
    """(ratio, relative spread, rounds, fastest round of the reference) of one that was timed in turn."""
    try:
        mine = np.array(one["stats"]["data"], dtype=float)
        base = np.array(_extra(one)[REFERENCE]["seconds"], dtype=float)
    except (KeyError, TypeError, ValueError, OverflowError):
        mine = base = np.zeros(0)
    if not (mine.ndim == 1 and mine.shape == base.shape and mine.size):
        what = f"benchmark {one.get('fullname')!r} has not one round of the reference for each of its own"
        raise InputError(path, None, what, "Next: write the rounds too, with --benchmark-json")
    if not all(np.isfinite(times).all() and times.min() > 0 for times in (mine, base)):
        raise InputError(path, None, f"benchmark {one.get('fullname')!r} has rounds of no usable length")
    low, ratio, high = np.quantile(mine / base, [0.25, 0.5, 0.75])
    error = _MEDIAN_ERROR * (high - low) / _TO_DEVIATION / math.sqrt(mine.size)
    return float(ratio), float(2 * error / ratio), mine.size, float(base.min())


def _about(document: Mapping[str, Any]) -> dict[str, str]:
    machine, commit = document.get("machine_info"), document.get("commit_info")
    machine = machine if isinstance(machine, dict) else {}
    commit = commit if isinstance(commit, dict) else {}
    cpu = machine.get("cpu")
    cpu = cpu if isinstance(cpu, dict) else {}
    told = {
        "machine": machine.get("machine"),
        "system": machine.get("system"),
        "cpu": cpu.get("brand_raw"),
        "cores": cpu.get("count"),
        "python": machine.get("python_version"),
        "commit": commit.get("id"),
        "uncommitted changes": commit.get("dirty"),
        "date": document.get("datetime"),
    }
    return {key: str(value) for key, value in told.items() if value is not None}


# -- comparing -----------------------------------------------------------------------------------------------


def check_throughput(
    now: Timed, then: Timed, slowdown: float, command: str = "stopgap gate --accept"
) -> list[Check]:
    """A check for each benchmark of either run: value, how many times as slow; threshold, the factor allowed.

    A benchmark that only one run has, or that timed another labeler, or a reference that is another workload,
    is inconclusive: nothing is known of its speed.

    Parameters
    ----------
    now, then: this run and the stored one. `slowdown`: the factor allowed, at least 1.
    command: what would store this run as the evidence.

    Raises
    ------
    UsageError: the factor is no number from 1 on.
    """
    if not (math.isfinite(slowdown) and slowdown >= 1):
        raise UsageError(f"the slowdown allowed is {slowdown}; it is a factor of 1 or more, such as 1.25")
    next_command = f"Next: {command}, and commit the evidence"
    if now.reference != then.reference:
        said = f"the reference was {then.reference!r} and is {now.reference!r}; their ratios do not compare."
        return [
            Check("throughput", "reference workload", "inconclusive", None, None, f"{said} {next_command}")
        ]
    checks = []
    for name in sorted({*now.benchmarks, *then.benchmarks}):
        mine, stored = now.benchmarks.get(name), then.benchmarks.get(name)
        value, interval = None, None
        verdict: Verdict = "inconclusive"
        if mine is None:
            said = f"in the evidence, but not timed in this run. Next: {_RESULTS} with it, or {command}"
        elif stored is None:
            said = f"timed in this run, but not in the evidence, so that nothing holds it. {next_command}"
        elif mine.labeler != stored.labeler:
            said = f"timed {mine.labeler}; the evidence is of {stored.labeler}. {next_command}"
        else:
            value = mine.ratio / stored.ratio
            verdict, interval = _judge(value, mine, stored, slowdown)
            said = _story(value, interval, mine, stored, now, then)
        checks.append(Check("throughput", f"speed of {name}", verdict, value, slowdown, said, interval))
    return checks


def _judge(
    value: float, mine: Timing, stored: Timing, allowed: float
) -> tuple[Verdict, tuple[float, float] | None]:
    if min(mine.rounds, stored.rounds) < LEAST_ROUNDS:
        return "inconclusive", None
    factor = math.exp(min(math.hypot(mine.spread, stored.spread), 700.0))
    interval = (value / factor, value * factor)
    if interval[1] <= allowed:
        return "pass", interval
    return ("fail" if interval[0] > allowed else "inconclusive"), interval


def _story(
    value: float,
    interval: tuple[float, float] | None,
    mine: Timing,
    stored: Timing,
    now: Timed,
    then: Timed,
) -> str:
    said = f"{value:.2f} times as long as stored"
    if interval is None:
        rounds = min(mine.rounds, stored.rounds)
        return f"{said}, from {rounds} rounds; it takes {LEAST_ROUNDS} to know the spread"
    said += (
        f" ({interval[0]:.2f} to {interval[1]:.2f}), {mine.ratio:.3g} references against {stored.ratio:.3g}"
    )
    where = [
        f"{key} {then.about.get(key, 'unknown')}, now {now.about.get(key, 'unknown')}"
        for key in ("cpu", "cores", "python", "commit")
        if then.about.get(key) != now.about.get(key)
    ]
    return f"{said}; {'; '.join(where)}" if where else said
