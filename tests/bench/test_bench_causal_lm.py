"""The grades' tokens after one forward pass, against writing an answer and reading the grade from it.

`pytest tests/bench/test_bench_causal_lm.py -s` shows the figures. The model is random, so its answers say
nothing; its speed does. Its tokenizer is trained on the prompts, so that they are as long as with a real one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from harness.labeling import load
from labelers import parsing
from labelers.prompting import Cutter, read_prompt
from timing import best_of
from tiny_models import GRADES, SMALL, byte_level, prompts, random_model

torch = pytest.importorskip("torch", reason="needs the extra hf")
pytest.importorskip("transformers", reason="needs the extra hf")

PAIRS, BATCH = 64, 16
TOKENS = {"a short answer": 16, "a reason and the grade": 128}
"""What is written: `final score: 2` alone, or as much as the prompts' one sentence before it takes."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("hf") / "tiny"
    byte_level(where, [*prompts("text") * 4, *pairs()["text"]], 1500)
    shape = {**SMALL, "hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 4}
    more = {"num_key_value_heads": 2, "max_position_embeddings": 2048}
    random_model(where, "Llama", vocab_size=1600, **shape, **more)
    return where


def pairs() -> pl.DataFrame:
    numbers = range(PAIRS)
    return pl.DataFrame(
        {
            "query_id": ["1"] * PAIRS,
            "doc_id": [str(n) for n in numbers],
            "query": ["where do herons nest"] * PAIRS,
            "text": [f"{n} " + "the heron stands in the river " * (5 + n % 20) for n in numbers],
        }
    )


def writing(folder: Path, tokens: int) -> Callable[[], list[parsing.Reading]]:
    """The usual way: the model writes so many tokens, and the grade is read from them."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    words = AutoTokenizer.from_pretrained(folder, padding_side="left", pad_token="!")
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    prompt, cutter = read_prompt("umbrela", GRADES, "text"), Cutter(1, 2000, str(folder))

    def work() -> list[parsing.Reading]:
        filled = [prompt.fill(q, t, cutter).text for q, t in pairs().select("query", "text").iter_rows()]
        filled.sort(key=len)
        found: list[parsing.Reading] = []
        for start in range(0, PAIRS, BATCH):
            given = words(filled[start : start + BATCH], return_tensors="pt", padding=True)
            with torch.inference_mode():
                ids = model.generate(
                    input_ids=given["input_ids"],
                    attention_mask=given["attention_mask"],
                    max_new_tokens=tokens,
                    min_new_tokens=tokens,
                    do_sample=False,
                    pad_token_id=0,
                )
            answers = words.batch_decode(ids[:, given["input_ids"].shape[1] :])
            found += [parsing.parse(answer, prompt.answers) for answer in answers]
        return found

    return work


def test_one_forward_pass_is_quicker_than_writing(folder: Path) -> None:
    labeler: Any = load(f"hf:{folder}?device=cpu&batch={BATCH}", GRADES)
    asked = pairs()
    assert labeler.signal(asked)["reason"].null_count() == PAIRS
    sys.stdout.write(f"\n{labeler.usage()['tokens_in'] / PAIRS:.0f} tokens a pair\n")
    scored = best_of(lambda: labeler.signal(asked), 8)
    sys.stdout.write(f"grade tokens: {PAIRS / scored:.1f} pairs/s\n")
    ratios = {}
    for what, tokens in TOKENS.items():
        work = writing(folder, tokens)
        work()
        took = best_of(work, 2)
        ratios[what] = took / scored
        sys.stdout.write(
            f"{what}, {tokens} tokens: {PAIRS / took:.1f} pairs/s, {ratios[what]:.1f} times as long\n"
        )
    assert ratios["a short answer"] > 1
    assert ratios["a reason and the grade"] >= 10
