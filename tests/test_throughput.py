"""The gate of speed: ratios to a reference of the same run, so that a machine by itself decides nothing."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import InputError, UsageError
from harness.gate import gate
from harness.throughput import Timed, Timing, check_throughput, read_evidence, read_results

NAME = "tests/bench/test_x.py::test_read"
SUITE = """
import pytest

@pytest.mark.benchmark(group="reference")
def test_reference(benchmark):
    benchmark.extra_info["reference"] = "1: sum"
    benchmark.pedantic(lambda: sum(range(20_000)), rounds=5)

def test_four_times_as_much(benchmark):
    benchmark.pedantic(lambda: sum(range(80_000)), rounds=5)
"""


def one(name: str, seconds: float, *, spread: float = 0.02, rounds: int = 20, **more: Any) -> dict[str, Any]:
    """A benchmark as pytest-benchmark writes it; `spread`: its first quartile above its fastest round."""
    stats = {"min": seconds, "q1": seconds * (1 + spread), "rounds": rounds, "median": 2 * seconds}
    return {"group": None, "name": name, "fullname": name, "extra_info": {}, "stats": stats, **more}


def reference(seconds: float = 0.01, workload: str = "1: sort", **how: Any) -> dict[str, Any]:
    extra = {"group": "reference", "extra_info": {"reference": workload}}
    return one("tests/bench/test_r.py::test_reference", seconds, **how, **extra)


def results(path: Path, *benchmarks: dict[str, Any]) -> Path:
    path.write_text(
        json.dumps(
            {
                "machine_info": {"machine": "x86_64", "node": "me", "cpu": {"brand_raw": "A", "count": 2}},
                "commit_info": {"id": "abc", "dirty": False},
                "datetime": "2026-01-02T03:04:05+00:00",
                "benchmarks": list(benchmarks),
            }
        )
    )
    return path


def timed(spread: float = 0.02, rounds: int = 20, reference: str = "1", **ratios: float) -> Timed:
    benchmarks = {name: Timing(ratio, spread, rounds) for name, ratio in ratios.items()}
    return Timed({}, reference, 0.01, benchmarks)


def verdicts(now: Timed, then: Timed, slowdown: float = 1.25) -> dict[str, str]:
    return {
        check.name.removeprefix("speed of "): check.verdict for check in check_throughput(now, then, slowdown)
    }


# -- verdicts ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("now", "verdict"), [(1.0, "pass"), (0.2, "pass"), (1.2, "pass"), (1.26, "inconclusive"), (1.4, "fail")]
)
def test_a_slowdown_is_held_against_the_factor_allowed(now: float, verdict: str) -> None:
    (check,) = check_throughput(timed(a=now * 3), timed(a=3.0), 1.25)
    assert check.verdict == verdict
    assert check.value == pytest.approx(now)
    assert check.threshold == 1.25
    assert check.interval is not None
    assert check.interval[0] < now < check.interval[1]


def test_a_wide_spread_is_inconclusive() -> None:
    assert verdicts(timed(a=1.1), timed(a=1.0)) == {"a": "pass"}
    assert verdicts(timed(a=1.1, spread=0.3), timed(a=1.0)) == {"a": "inconclusive"}
    assert verdicts(timed(a=1.1), timed(a=1.0, spread=0.3)) == {"a": "inconclusive"}
    assert verdicts(timed(a=3.0, spread=0.3), timed(a=1.0)) == {"a": "fail"}
    assert verdicts(timed(a=1.0, rounds=2), timed(a=1.0)) == {"a": "inconclusive"}


def test_a_benchmark_of_one_run_only_is_reported() -> None:
    checks = check_throughput(timed(a=1.0, new=1.0), timed(a=1.0, old=1.0), 1.25, "stopgap gate x --accept")
    assert {c.name: c.verdict for c in checks} == {
        "speed of a": "pass",
        "speed of new": "inconclusive",
        "speed of old": "inconclusive",
    }
    assert "not in the evidence" in checks[1].detail
    assert "stopgap gate x --accept" in checks[1].detail
    assert "not timed in this run" in checks[2].detail


def test_another_reference_or_labeler_does_not_compare() -> None:
    (check,) = check_throughput(timed(a=1.0), timed(a=1.0, reference="2"), 1.25)
    assert check.verdict == "inconclusive"
    assert "'2' and is '1'" in check.detail
    with_labeler = replace(timed(), benchmarks={"a": Timing(1.0, 0.01, 9, "minilm@1")})
    other = replace(timed(), benchmarks={"a": Timing(1.0, 0.01, 9, "minilm@2")})
    assert verdicts(with_labeler, with_labeler) == {"a": "pass"}
    assert verdicts(with_labeler, other) == {"a": "inconclusive"}


@pytest.mark.parametrize("slowdown", [0.99, 0.0, -1.0, math.nan, math.inf])
def test_a_factor_that_cannot_be_meant(slowdown: float) -> None:
    with pytest.raises(UsageError, match="factor of 1 or more"):
        check_throughput(timed(a=1.0), timed(a=1.0), slowdown)


_seconds = st.floats(1e-6, 100)


@settings(deadline=None)
@given(_seconds, _seconds, _seconds, _seconds, st.floats(0, 1), st.floats(1e-3, 1e3))
def test_another_machine_neither_fails_nor_passes(
    tmp_path_factory: pytest.TempPathFactory,
    base: float,
    mine: float,
    then_base: float,
    then: float,
    spread: float,
    speed: float,
) -> None:
    folder = tmp_path_factory.getbasetemp()
    old = read_results(
        results(folder / "a", reference(then_base, spread=spread), one("a", then, spread=spread))
    )
    here = read_results(results(folder / "b", reference(base), one("a", mine, spread=spread)))
    there = read_results(
        results(folder / "c", reference(base * speed), one("a", mine * speed, spread=spread))
    )
    (first,), (second,) = check_throughput(here, old, 1.5), check_throughput(there, old, 1.5)
    assert first.value == pytest.approx(second.value)
    assert first.interval == pytest.approx(second.interval)


@settings(deadline=None)
@given(st.floats(0.01, 100), st.floats(0, 2), st.floats(0, 2), st.floats(1, 10))
def test_more_spread_never_turns_a_verdict_round(
    ratio: float, less: float, more: float, slowdown: float
) -> None:
    sure, unsure = (
        verdicts(timed(a=ratio, spread=s), timed(a=1.0), slowdown)["a"] for s in sorted((less, less + more))
    )
    assert unsure in (sure, "inconclusive")


def in_turn(name: str, mine: list[float], base: list[float], workload: str = "1: sort") -> dict[str, Any]:
    """A benchmark with a round of the reference before each of its own."""
    extra = {"reference": {"workload": workload, "seconds": base}}
    return one(name, 1.0, stats={"data": mine, "rounds": len(mine)}, extra_info=extra)


def test_taking_turns_cancels_what_slows_both(tmp_path: Path) -> None:
    mood = [1 + (n * 7 % 5) for n in range(20)]
    mine = in_turn("a", [0.03 * m for m in mood], [0.01 * m for m in mood])
    found = read_results(results(tmp_path / "x.json", mine))
    assert found.benchmarks["a"] == Timing(pytest.approx(3), pytest.approx(0, abs=1e-9), 20)
    assert (found.reference, found.seconds) == ("1: sort", 0.01)
    uneven = in_turn("a", [0.03 * m for m in mood], [0.01] * 20)
    (wide,) = read_results(results(tmp_path / "x.json", uneven)).benchmarks.values()
    assert wide.ratio == pytest.approx(9)
    assert wide.spread == pytest.approx(2 * 1.2533 * 6 / 1.349 / 20**0.5 / 9)
    both = read_results(results(tmp_path / "x.json", mine, reference(), one("b", 0.05)))
    assert {name: timing.ratio for name, timing in both.benchmarks.items()} == pytest.approx({"a": 3, "b": 5})


# -- files ---------------------------------------------------------------------------------------------------


def test_results_become_ratios(tmp_path: Path) -> None:
    slow = one("b", 0.05, rounds=7, extra_info={"labeler": "minilm@1"})
    found = read_results(results(tmp_path / "x.json", one("a", 0.02), reference(0.01), slow), "minilm@1/2")
    assert found.benchmarks["a"].ratio == pytest.approx(2)
    assert found.benchmarks["a"].spread == pytest.approx(math.hypot(0.02, 0.02))
    assert (found.benchmarks["b"].rounds, found.benchmarks["b"].labeler) == (7, "minilm@1")
    assert (found.reference, found.seconds, found.labeler) == ("1: sort", 0.01, "minilm@1/2")
    assert found.about["commit"] == "abc"
    assert "me" not in found.about.values()


def test_evidence_is_read_as_it_was_stored(tmp_path: Path) -> None:
    found = read_results(results(tmp_path / "x.json", reference(), one("a", 0.02), one("b", 0.3)))
    (tmp_path / "e.json").write_text(json.dumps(found.to_json()))
    assert read_evidence(tmp_path / "e.json") == found
    assert verdicts(found, read_evidence(tmp_path / "e.json")) == {"a": "pass", "b": "pass"}


def test_what_pytest_benchmark_writes_is_read(tmp_path: Path) -> None:
    pytest.importorskip("pytest_benchmark")
    (tmp_path / "test_it.py").write_text(SUITE)
    command = [sys.executable, "-P", "-m", "pytest", "-q", "--benchmark-json=out.json", "test_it.py"]
    command += ["-p", "pytest_benchmark.plugin"]  # and no other: they take seconds to load
    alone = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=alone, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    found = read_results(tmp_path / "out.json")
    assert found.reference == "1: sum"
    (timing,) = found.benchmarks.values()
    assert 1 < timing.ratio < 16
    assert timing.rounds == 5
    assert {"machine", "python", "commit", "date"} <= set(found.about)


@pytest.mark.parametrize(
    ("benchmarks", "message"),
    [
        ([one("a", 1.0)], "no benchmark of group 'reference', and one is needed\nIt has: a"),
        ([], "no benchmark but the reference"),
        ([reference(), one("b", 1.0, group="reference"), one("a", 1.0)], "2 benchmarks of group"),
        ([reference(), reference()], "same full name"),
        ([reference()], "no benchmark but the reference"),
        ([reference(rounds=2), one("a", 1.0)], "the reference has 2 rounds"),
        ([reference(), one("a", 1.0), one("a", 2.0)], "same full name"),
        ([reference(0.0), one("a", 1.0)], "no usable min"),
        ([reference(), one("a", math.nan)], "benchmark 'a' has no usable min"),
        ([reference(), one("a", -1.0)], "benchmark 'a' has no usable min"),
        ([reference(), {"fullname": "a"}], "benchmark 'a' has no usable min"),
        ([reference(), one("a", 1.0, stats={"min": "x", "q1": 0, "rounds": 3})], "no usable min"),
        ([reference(), "a"], "no list of benchmarks"),
        ([in_turn("a", [1.0, 1.0], [1.0])], "not one round of the reference for each"),
        ([in_turn("a", [], [])], "not one round of the reference for each"),
        ([in_turn("a", [1.0, "x"], [1.0, 1.0])], "not one round of the reference for each"),  # type: ignore[list-item]
        ([in_turn("a", [1.0, 0.0], [1.0, 1.0])], "rounds of no usable length"),
        ([in_turn("a", [1.0, 1.0], [1.0, math.nan])], "rounds of no usable length"),
        ([in_turn("a", [1.0], [1.0]), in_turn("b", [1.0], [1.0], "2: hash")], "several reference workloads"),
        ([in_turn("a", [1.0], [1.0]), one("b", 1.0)], "no benchmark of group 'reference'"),
    ],
)
def test_bad_results(tmp_path: Path, benchmarks: list[Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_results(results(tmp_path / "x.json", *benchmarks))


@pytest.mark.parametrize("text", ["", "[]", "{", "null", '{"benchmarks": 7}', "[" * 9999, "\udcff"])
def test_files_that_are_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(InputError, match="--benchmark-json"):
        read_results(path)
    with pytest.raises(InputError, match="--accept"):
        read_evidence(path)


@pytest.mark.parametrize(
    "change",
    [
        {"benchmarks": []},
        {"benchmarks": {"a": {"ratio": 1.0}}},
        {"benchmarks": {"a": {"ratio": 0.0, "spread": 0.1, "rounds": 3, "labeler": None}}},
        {"benchmarks": {"a": {"ratio": "1", "spread": 0.1, "rounds": 3, "labeler": None}}},
        {"benchmarks": {"a": {"ratio": 1.0, "spread": -1, "rounds": 3, "labeler": None}}},
        {"benchmarks": {"a": {"ratio": 1.0, "spread": 0.1, "rounds": "3", "labeler": None}}},
        {"reference": None},
        {"reference": {"workload": "x", "seconds": "fast"}},
        {"about": 7},
        {"stopgap_throughput": 2},
    ],
)
def test_bad_evidence(tmp_path: Path, change: dict[str, Any]) -> None:
    path = tmp_path / "e.json"
    path.write_text(json.dumps({**timed(a=1.0).to_json(), **change}))
    with pytest.raises(InputError, match="--accept"):
        read_evidence(path)


# -- through the gate ----------------------------------------------------------------------------------------


def test_the_gate_of_speed_alone(tmp_path: Path) -> None:
    path = tmp_path / "stopgap.toml"
    path.write_text('[checks.throughput]\nresults = "now.json"\nslowdown = 1.5\n')
    results(tmp_path / "now.json", reference(), one(NAME, 0.02))
    with pytest.raises(InputError, match=r"throughput\.json: no such file: no stored timings(.|\n)*--accept"):
        gate(path)
    accepted = gate(path, accept=True)
    assert accepted.accepted == [tmp_path / "throughput.json"]
    assert (accepted.exit_code, gate(path).exit_code) == (0, 0)
    results(tmp_path / "now.json", reference(0.1), one(NAME, 0.21))
    assert gate(path).exit_code == 0
    results(tmp_path / "now.json", reference(), one(NAME, 0.05))
    assert gate(path).exit_code == 1
    results(tmp_path / "now.json", reference(), one(NAME, 0.03))
    assert gate(path).exit_code == 3
    results(tmp_path / "now.json", reference(), one(NAME + "[new]", 0.02))
    gated = gate(path)
    assert gated.exit_code == 3
    assert len(gated.checks) == 2
    (tmp_path / "now.json").unlink()
    with pytest.raises(InputError, match=r"the benchmarks were not run(.|\n)*--benchmark-json"):
        gate(path)
