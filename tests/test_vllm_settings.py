"""What `vllm:` says and refuses without vLLM: settings, files, fingerprints. No engine is started here.

With vLLM itself: tests/vllm, which has an environment of its own (`tox -e vllm`).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from harness.cli import main
from harness.errors import LabelerError, MissingExtra, UnknownName, UsageError
from harness.registry import load
from labelers.vllm_offline import VLLMCausal
from labelers.vllm_pairs import VLLMPairs
from labelers.vllm_settings import read_settings

GRADES = {0: "none", 1: "related", 2: "useful", 3: "exact"}


def folder(where: Path, kind: str = "Qwen2ForCausalLM", **config: Any) -> Path:
    """What there is to see of a model before it is loaded."""
    where.mkdir()
    (where / "config.json").write_text(json.dumps({"architectures": [kind], **config}))
    (where / "tokenizer.json").write_text("{}")
    (where / "model.safetensors").write_bytes(b"weights")
    return where


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return folder(tmp_path / "judge")


def made(argument: str, grades: dict[int, str] | None = None) -> Any:
    return load(f"vllm:{argument}", grades or GRADES)


@pytest.mark.parametrize(
    ("argument", "error", "what"),
    [
        (None, UsageError, "no model"),
        ("", UsageError, "no model: vllm:FOLDER"),
        ("m?batch=0", UsageError, "batch='0' is not a whole number from 1"),
        ("m?memory=101", UsageError, "more than 100 per cent"),
        ("m?cache=some", UsageError, "cache='some'"),
        ("m?gpus=1&gpus=2", UsageError, "given twice"),
        ("m?contxt=1", UnknownName, "Did you mean 'context'"),
        ("m?dtype=int8", UnknownName, "dtype"),
    ],
)
def test_settings_that_cannot_be_meant(argument: str | None, error: type[Exception], what: str) -> None:
    with pytest.raises(error, match=what):
        read_settings(argument)


def test_how_settings_are_read() -> None:
    told = read_settings(
        "org/judge?revision=v2&prompt=basic&adapter=./lora&tokens=500&memory=40&gpus=2&cache=8"
    )
    assert (told.model, told.revision, told.prompt, told.adapter) == ("org/judge", "v2", "basic", "./lora")
    assert (told.tokens, told.memory, told.gpus, told.cache, told.context) == (500, 40, 2, 8, 0)


def test_the_architecture_tells_what_a_model_is(model: Path, tmp_path: Path) -> None:
    assert isinstance(made(f"{model}?dtype=float32"), VLLMCausal)
    ranker = folder(tmp_path / "ranker", "BertForSequenceClassification", id2label={"0": "relevant"})
    assert isinstance(made(f"{ranker}?dtype=float32"), VLLMPairs)
    for name, value in {"prompt": "basic", "guidelines": "x.txt", "shots": "2", "adapter": "lora"}.items():
        with pytest.raises(UsageError, match=f"'{name}' is for models that are prompted"):
            made(f"{ranker}?dtype=float32&{name}={value}")
    three = folder(tmp_path / "three", "BertForSequenceClassification", id2label=dict.fromkeys("012", "x"))
    with pytest.raises(LabelerError, match="3 labels"):
        made(f"{three}?dtype=float32")


def test_all_that_decides_a_signal_is_in_the_fingerprint(model: Path) -> None:
    different = ["", "&prompt=basic", "&prompt=wording", "&tokens=99", "&context=900"]
    prints = {made(f"{model}?dtype=float32{more}").fingerprint for more in different}
    prints |= {made(f"{model}?dtype=bfloat16").fingerprint}
    prints |= {made(f"{model}?dtype=float32", {0: "none", 1: "all"}).fingerprint}
    prints |= {load(f"hf:{model}?dtype=float32&device=cpu", GRADES).fingerprint}
    (model / "model.safetensors").write_bytes(b"others")
    prints |= {made(f"{model}?dtype=float32").fingerprint}
    assert len(prints) == len(different) + 4
    alike = ["&batch=3", "&memory=30", "&cache=4", "&gpus=2"]
    assert len({made(f"{model}?dtype=float32{more}").fingerprint for more in alike}) == 1


def test_adapters_that_vllm_cannot_take(model: Path, tmp_path: Path) -> None:
    lora = tmp_path / "lora"
    lora.mkdir()
    (lora / "adapter_model.safetensors").write_bytes(b"")
    (lora / "adapter_config.json").write_text(json.dumps({"peft_type": "IA3"}))
    with pytest.raises(LabelerError, match="of the kind IA3; vLLM takes LORA"):
        made(f"{model}?dtype=float32&adapter={lora}")
    (lora / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 1000}))
    labeler = made(f"{model}?dtype=float32&adapter={lora}")
    labeler.__dict__["_tokens"] = type("Tokens", (), {"answers": [1, 2]})
    labeler.__dict__["_config"] = _Config()
    with pytest.raises(LabelerError, match="has rank 1000; vLLM takes up to 512"):
        _ = labeler._engine


class _Config:
    max_position_embeddings = 2048

    def get_text_config(self) -> _Config:
        return self


def test_a_prompt_has_as_many_tokens_as_the_model_leaves(model: Path) -> None:
    for more, room in {"": 2048, "&tokens=100&context=600": 601, "&context=9000": 2048}.items():
        labeler = made(f"{model}?dtype=float32{more}")
        labeler.__dict__["_config"] = _Config()
        assert labeler._room() == room
        assert labeler._longest() == room - 1  # one token is written


def test_without_vllm_a_pair_says_what_to_install(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch", reason="vLLM brings torch")
    monkeypatch.setitem(sys.modules, "vllm", None)
    labeler = made(f"{model}?dtype=float32")
    labeler.__dict__["_config"] = _Config()
    labeler.__dict__["_tokens"] = type("Tokens", (), {"answers": [1, 2]})
    with pytest.raises(MissingExtra, match=r"pip install 'stopgap\[vllm\]'"):
        _ = labeler._engine


def test_it_is_known_without_torch(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("torch", "transformers", "vllm"):
        monkeypatch.setitem(sys.modules, module, None)
    labeler = made(f"{model}?dtype=float32")
    assert labeler.name == "judge"
    assert labeler.card == {"base model": ["judge"]}
    with pytest.raises(MissingExtra, match=r"pip install 'stopgap\[vllm\]'"):
        made(str(model))
    asked = {"query_id": ["1"], "doc_id": ["d"], "query": ["q"], "text": ["t"]}
    with pytest.raises(MissingExtra):
        labeler.signal(pl.DataFrame(asked))


def test_it_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["labelers", "--json"]) == 0
    (line,) = (e for e in json.loads(capsys.readouterr().out)["labelers"] if e["name"] == "vllm")
    assert line["needs"] == "vllm"
