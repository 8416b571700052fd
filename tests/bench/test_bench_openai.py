"""A thousand requests at a time of 64, to a server that takes 50 ms for each: how near to the ideal.

`pytest tests/bench/test_bench_openai.py -s` shows the figures.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from harness.labeling import load, signals
from harness.ledger import Ledger
from timing import best_of

pytest.importorskip("aiohttp", reason="needs the extra openai")

GRADES = {0: "none", 1: "related", 2: "useful", 3: "exact"}
REQUESTS, CONCURRENCY, LATENCY = 1000, 64, 0.05
IDEAL = -(-REQUESTS // CONCURRENCY) * LATENCY

# A process of its own: a thread would share this one's interpreter lock.
SERVER = f"""
import sys
from labelers.scripted_server import ScriptedServer, answer
top = {{str(grade): -0.2 - grade for grade in range(10)}} | {{f"word {{n}}": -12.0 for n in range(10)}}
with ScriptedServer([answer("0", top)], latency={LATENCY}) as server:
    print(server.url, flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    command = [sys.executable, "-c", SERVER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        yield server.stdout.readline().strip()
        server.stdin.close()


def pairs() -> pl.DataFrame:
    numbers = range(REQUESTS)
    return pl.DataFrame(
        {
            "query_id": ["1"] * REQUESTS,
            "doc_id": [str(n) for n in numbers],
            "query": ["where do herons nest"] * REQUESTS,
            "text": [f"{n} " + "the heron stands in the river " * 40 for n in numbers],
        }
    )


def test_requests_under_way_together_take_little_longer_than_they_must(url: str) -> None:
    labeler = load(f"openai:scripted@{url}?concurrency={CONCURRENCY}", GRADES)
    asked = pairs()
    labeler.signal(asked[:CONCURRENCY])  # connections
    took = best_of(lambda: labeler.signal(asked), 8)
    labeler.close()  # type: ignore[attr-defined]
    sys.stdout.write(
        f"\n{REQUESTS} requests at {CONCURRENCY}: {took:.3f} s, {took / IDEAL:.2f} x the ideal\n"
    )
    assert took <= 1.5 * IDEAL


def test_the_ledger_costs_little_of_it(url: str, tmp_path: Path) -> None:
    labeler = load(f"openai:scripted@{url}?concurrency={CONCURRENCY}", GRADES)
    asked = pairs()
    signals(labeler, asked[:CONCURRENCY])
    bare = best_of(lambda: signals(labeler, asked), 3)
    kept = best_of(lambda: signals(labeler, asked, ledger=Ledger(tmp_path / str(time.monotonic_ns()))), 3)
    labeler.close()  # type: ignore[attr-defined]
    sys.stdout.write(f"\nsignals: {bare:.3f} s without a ledger, {kept:.3f} s with one\n")
    assert kept <= 1.5 * bare
