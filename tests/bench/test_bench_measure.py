"""`stopgap measure` beside ir-measures and trec_eval: five measures, whole processes, and further runs.

The tools take turns, one each a round, so that a busy machine slows all of them; a ratio is one of medians.
The data are made here: 1,000 lines and 100 judgments a topic, in score order, ids of one length.

TREC_EVAL names a trec_eval built with -O3; without it that comparison is skipped.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import ir_measures
import numpy as np
import pytest

from harness.measure import measure
from harness.trec import read_qrels

DEPTH, JUDGED, INSIDE = 1000, 100, 60
MEASURES = ("nDCG@10", "AP", "R@1000", "P@10", "Judged@10")
FUNCTIONS = """
import sys, ir_measures
qrels, run = list(ir_measures.read_trec_qrels(sys.argv[1])), list(ir_measures.read_trec_run(sys.argv[2]))
print(ir_measures.calc_aggregate([eval(m, vars(ir_measures)) for m in sys.argv[3:]], qrels, run))
"""
LAUNCH = """
import os, sys, time
began = time.perf_counter()
_, status, used = os.wait4(os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ), 0)
seconds = time.perf_counter() - began
sys.stderr.write(f"\\n{seconds} {used.ru_maxrss / 1024} {os.waitstatus_to_exitcode(status)}")
"""


class Data(NamedTuple):
    """A run and its qrels in TREC text."""

    run: Path
    qrels: Path


class Cost(NamedTuple):
    """What a call or a process took: wall seconds, its peak of resident memory (MiB), what it printed."""

    seconds: float
    mib: float = 0.0
    output: str = ""


def make(folder: Path, topics: int) -> Data:
    """`topics` x 1,000 lines; judged are 60 of the retrieved documents, more at the top, and 40 others."""
    rng = np.random.default_rng(7)
    data = Data(folder / "run.txt", folder / "qrels.txt")
    favoured = 1.0 / (np.arange(DEPTH) + 10.0)
    favoured /= favoured.sum()
    with open(data.run, "w", encoding="utf-8") as run, open(data.qrels, "w", encoding="utf-8") as qrels:
        for query in range(100_000, 100_000 + 7 * topics, 7):
            ids = rng.choice(8_841_823, size=DEPTH + JUDGED - INSIDE, replace=False)
            documents = [f"msmarco_passage_{i:08d}" for i in ids.tolist()]
            scores = (np.sort(rng.gamma(4.0, 3.0, size=DEPTH))[::-1] + 5.0).tolist()
            run.writelines(f"{query} Q0 {documents[i]} {i + 1} {s:.6f} bm25\n" for i, s in enumerate(scores))
            inside = rng.choice(DEPTH, size=INSIDE, replace=False, p=favoured).tolist()
            judged = [documents[i] for i in inside] + documents[DEPTH:]
            grades = rng.choice(4, size=JUDGED, p=[0.7, 0.15, 0.1, 0.05]).tolist()
            qrels.writelines(f"{query} 0 {d} {g}\n" for d, g in zip(judged, grades, strict=True))
    return data


@pytest.fixture(scope="module")
def million(tmp_path_factory) -> Data:
    return make(tmp_path_factory.mktemp("million"), 1000)


def process(*command: str | Path) -> Cost:
    """Run a command to its good end, out of a small process: a peak counts what one was forked from."""
    words = [sys.executable, "-S", "-c", LAUNCH, *map(str, command)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    wall, mib, code = done.stderr.split()[-3:]
    assert code == "0", done.stderr
    return Cost(float(wall), float(mib), done.stdout)


def call(function: Callable[[], Any]) -> Cost:
    began = time.perf_counter()
    function()
    return Cost(time.perf_counter() - began)


def ours(data: Data) -> Cost:
    asked = [word for name in MEASURES for word in ("-m", name)]
    command = Path(sys.executable).with_name("stopgap")
    return process(command, "measure", data.run, "--qrels", data.qrels, *asked, "--json")


def seconds(costs: Sequence[Cost]) -> float:
    return statistics.median(cost.seconds for cost in costs)


@pytest.fixture
def in_turn(benchmark, capsys) -> Callable[..., tuple[list[Cost], list[Cost], float]]:
    """Time one side under pytest-benchmark, each round after one of the other; both, and their ratio."""

    def timed(mine: Callable[[], Cost], peer: Callable[[], Cost], name: str, rounds: int):
        costs: tuple[list[Cost], list[Cost]] = ([], [])
        turn = {"setup": lambda: costs[1].append(peer()), "rounds": rounds, "warmup_rounds": 1}
        benchmark.pedantic(lambda: costs[0].append(mine()), **turn)
        kept = tuple(found[-rounds:] for found in costs)
        ratio = seconds(kept[1]) / seconds(kept[0])
        told = {
            who: {"seconds": seconds(found), "mib": max(c.mib for c in found)}
            for who, found in zip(("stopgap", name), kept, strict=True)
        }
        benchmark.extra_info.update({**told, "ratio": ratio})
        sides = ", ".join(f"{who} {x['seconds']:.3f} s {x['mib']:.0f} MiB" for who, x in told.items())
        with capsys.disabled():
            sys.stdout.write(f"\n{sides}, ratio {ratio:.2f}\n")
        return *kept, ratio

    return timed


def test_a_million_lines_against_the_ir_measures_command(in_turn, million) -> None:
    peer = ("-m", "ir_measures", million.qrels, million.run, " ".join(MEASURES))
    mine, theirs, ratio = in_turn(
        lambda: ours(million), lambda: process(sys.executable, *peer), "ir_measures", 5
    )
    told = json.loads(mine[0].output)["runs"]["run"]
    expected = dict(line.split("\t") for line in theirs[0].output.splitlines())
    assert {name: f"{told[name]:.4f}" for name in expected} == expected
    assert max(cost.mib for cost in mine) <= 250
    assert ratio >= 5


def test_a_million_lines_against_trec_eval(in_turn, million) -> None:
    binary = os.environ.get("TREC_EVAL")
    if not binary:
        pytest.skip("TREC_EVAL does not name a trec_eval built with -O3")
    asked = [word for name in ("ndcg_cut.10", "map", "recall.1000", "P.10") for word in ("-m", name)]
    peer = (binary, *asked, million.qrels, million.run)
    mine, theirs, ratio = in_turn(lambda: ours(million), lambda: process(*peer), "trec_eval -O3", 9)
    told = json.loads(mine[0].output)["runs"]["run"]
    expected = [line.split()[2] for line in theirs[0].output.splitlines()]
    assert [f"{told[name]:.4f}" for name in MEASURES[:4]] == expected
    assert ratio >= 1


def test_five_million_lines_against_the_functions_of_ir_measures(in_turn, tmp_path) -> None:
    data = make(tmp_path, 5000)
    peer = (sys.executable, "-c", FUNCTIONS, data.qrels, data.run, *MEASURES)
    *_, ratio = in_turn(lambda: ours(data), lambda: process(*peer), "ir_measures functions", 3)
    assert ratio >= 8


def test_one_more_run_against_the_functions_of_ir_measures(in_turn, million) -> None:
    judged, qrels = read_qrels(million.qrels), list(ir_measures.read_trec_qrels(str(million.qrels)))
    asked = [eval(name, vars(ir_measures)) for name in MEASURES]
    pipeline = ir_measures.providers.FallbackProvider([ir_measures.pytrec_eval, ir_measures.judged])

    def theirs() -> None:
        pipeline.calc_aggregate(asked, qrels, list(ir_measures.read_trec_run(str(million.run))))

    def mine() -> None:
        measure({"run": million.run}, judged, MEASURES)

    *_, ratio = in_turn(lambda: call(mine), lambda: call(theirs), "ir_measures functions", 5)
    assert ratio >= 8


def test_a_small_file_takes_little_more_than_python_itself(in_turn, tmp_path) -> None:
    data = make(tmp_path, 2)
    mine, bare, _ = in_turn(lambda: ours(data), lambda: process(sys.executable, "-c", "pass"), "python", 15)
    assert seconds(mine) - seconds(bare) <= 0.7
