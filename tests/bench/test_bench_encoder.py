"""The embedded labeler beside sentence-transformers with the same weights in float32, on real passages.
passages.

Both see each distinct text once, on the same two processors, in turn; a ratio is one of medians. Ours gives
features and vectors as well. sentence-transformers sorts texts by length by itself.

`pytest tests/bench/test_bench_encoder.py -s` shows the figures.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from harness.calibrate import calibrate
from harness.collection import Collection, open_collection
from harness.labeling import signals
from labelers import bert_session
from labelers.encoder import Encoder, MiniLM

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

GRADES = {0: "no", 1: "related", 2: "high", 3: "perfect"}
ROUNDS, THREADS = 5, 2


@pytest.fixture(scope="module")
def passages(data_dir: Path) -> Collection:
    return open_collection(data_dir / "dl19_passage")


def some(collection: Collection, count: int) -> pl.DataFrame:
    """PAIRS of judged passages, drawn evenly over the topics."""
    qrels = collection.qrels()
    return collection.pairs(qrels.sample(count, seed=1, shuffle=True).select("query_id", "doc_id"))


def seconds(function: Callable[[], Any]) -> float:
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


@pytest.mark.parametrize("batch_size", [256, 1024])
def test_pairs_a_second(benchmark, passages: Collection, capsys, batch_size: int) -> None:
    torch = pytest.importorskip("torch")
    peer = pytest.importorskip("sentence_transformers")
    pairs = some(passages, 512)
    texts = [pairs[c].unique(maintain_order=True).to_list() for c in ("query", "text")]
    mine = MiniLM(None, GRADES)
    mine.threads = THREADS
    torch.set_num_threads(THREADS)
    model = peer.SentenceTransformer(str(mine.folder.path), device="cpu", local_files_only=True)
    mine.embed(texts[0])
    model.encode(texts[0])
    theirs: list[float] = []

    def turn() -> None:
        theirs.append(seconds(lambda: [model.encode(part, normalize_embeddings=True) for part in texts]))

    benchmark.pedantic(
        lambda: signals(mine, pairs, batch_size=batch_size), setup=turn, rounds=ROUNDS, iterations=1
    )
    rates = [pairs.height / s for s in (benchmark.stats.stats.median, statistics.median(theirs))]
    benchmark.extra_info.update(pairs_a_second=rates, ratio=rates[0] / rates[1])
    with capsys.disabled():
        sys.stdout.write(
            f"\nbatches of {batch_size}: {rates[0]:.0f} pairs/s, sentence-transformers {rates[1]:.0f}, "
            f"ratio {rates[0] / rates[1]:.2f}\n"
        )
    assert rates[0] >= 3 * rates[1]


def test_a_cached_model_is_there_in_a_second(benchmark, capsys) -> None:
    """From nothing loaded to a first vector, in a process of its own, less what a bare Python takes."""
    MiniLM(None, GRADES).embed(["built now, if it was not"])
    code = (
        "import sys, time; began = time.perf_counter(); from labelers.encoder import MiniLM; "
        "MiniLM(None, {0: 'no', 1: 'yes'}).embed(['one']); print(time.perf_counter() - began)"
    )

    def first() -> str:
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        return run.stdout

    first()
    found = [float(first()) for _ in range(ROUNDS)]
    benchmark.pedantic(first, rounds=1)
    benchmark.extra_info["seconds"] = found
    with capsys.disabled():
        sys.stdout.write(f"\nfirst vector after {statistics.median(found):.2f} s (all: {found})\n")
    assert min(found) < 1


def test_grades_that_int8_and_batches_turn(passages: Collection, monkeypatch, capsys) -> None:
    """Hard grades of held-out pairs by signals in int8 and float32, and by batches of 7 and of 1,024."""
    qrels = passages.qrels()
    topics = qrels["query_id"].unique(maintain_order=True).to_list()[:: 4 if "CI" not in os.environ else 8]
    human = qrels.filter(pl.col("query_id").is_in(topics))
    pairs = passages.pairs(human.select("query_id", "doc_id"))
    given = MiniLM(None, GRADES).signal(pairs)
    few = signals(MiniLM(None, GRADES), pairs, batch_size=7)
    monkeypatch.setattr(bert_session, "_int8_is_exact", lambda *_: False)
    exact = Encoder(MiniLM(None, GRADES).folder, GRADES).signal(pairs).with_columns(given["labeler"])
    assert few.select(given.columns).equals(given)
    judged = human.filter(pl.int_range(pl.len()).hash(1) % 2 == 0)
    fitted = calibrate([exact], judged, sorted(GRADES))
    other = calibrate([given], judged, sorted(GRADES), calibrator=fitted.calibrator)
    left = human.join(judged, on=["query_id", "doc_id"], how="anti").select("query_id", "doc_id")
    grades = [
        left.join(found.labels, on=["query_id", "doc_id"], how="left", maintain_order="left")["relevance"]
        for found in (fitted, other)
    ]
    cosine = (given["vector"].to_numpy() * exact["vector"].to_numpy()).sum(1)
    score = np.abs(given["score"].to_numpy() - exact["score"].to_numpy())
    turned = float((grades[0] != grades[1]).mean())  # type: ignore[arg-type]
    with capsys.disabled():
        sys.stdout.write(
            f"\n{left.height} grades: {turned:.4f} turned by int8; vectors' cosine with float32 mean "
            f"{cosine.mean():.5f}, least {cosine.min():.5f}; "
            f"score off by {score.mean():.5f}, most {score.max():.5f}\n"
        )
    assert turned <= 0.01
