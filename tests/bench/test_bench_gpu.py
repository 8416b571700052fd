"""Pairs a second of models of real size on a GPU, through `hf:` and, where it is installed, `vllm:`.

`pytest tests/bench/test_bench_gpu.py -s` prints rows for the table in docs/labelers.md, with the machine's
name. Weights are random: they say nothing, at the speed of real ones. The tokenizer is trained on the
prompts.
"""

from __future__ import annotations

import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from harness.labeling import load
from tiny_models import GRADES, byte_level, prompts

torch = pytest.importorskip("torch", reason="needs the extra hf")
pytest.importorskip("transformers", reason="needs the extra hf")
if not torch.cuda.is_available():
    pytest.skip("no CUDA: speed on a GPU is measured where there is one", allow_module_level=True)

SIZES = {
    "0.5 B": {
        "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14,
        "num_key_value_heads": 2,
    },
    "4 B": {
        "hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36, "num_attention_heads": 20,
        "num_key_value_heads": 4,
    },
}  # fmt: skip
"""Shapes of Qwen2.5-0.5B, and of Qwen3-4B in Qwen2's architecture."""
PAIRS = 2048


def pairs(number: int) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "query_id": ["1"] * number,
            "doc_id": [str(n) for n in range(number)],
            "query": ["where do herons nest"] * number,
            "text": [f"{n} " + "the heron stands in the river " * (5 + n % 20) for n in range(number)],
        }
    )


def made(folder: Path, size: str) -> Path:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    byte_level(folder, [*prompts("text") * 4, *pairs(64)["text"]], 1500, eos_token="!")
    config = Qwen2Config(
        vocab_size=151_936, max_position_embeddings=4096, tie_word_embeddings=True, **SIZES[size]
    )
    with torch.device("cuda"):
        Qwen2ForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    torch.cuda.empty_cache()
    return folder


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["hf", "vllm"])
@pytest.mark.parametrize("size", list(SIZES))
def test_pairs_a_second_on_a_gpu(
    size: str, kind: str, tmp_path: Path, benchmark: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    if kind == "vllm" and find_spec("vllm") is None:
        pytest.skip("vLLM is not installed")
    settings = "?batch=64" if kind == "hf" else ""
    labeler: Any = load(f"{kind}:{made(tmp_path / 'model', size)}{settings}", GRADES)
    labeler.signal(pairs(64))  # loads the model
    asked = pairs(PAIRS)
    began = time.perf_counter()
    told = benchmark.pedantic(labeler.signal, (asked,), rounds=1)
    rate = PAIRS / (time.perf_counter() - began)
    assert told["reason"].null_count() == PAIRS
    benchmark.extra_info |= {"device": torch.cuda.get_device_name(), "pairs_per_second": rate}
    with capsys.disabled():
        sys.stdout.write(f"\n| {size} | `{kind}:` | {torch.cuda.get_device_name()} | {rate:,.0f} |\n")
