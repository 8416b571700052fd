"""vLLM's engine, in this process: started without network or noise, and shut down when nobody wants it.

In this process, since vLLM's own processes would start whatever script asked for labels a second time, and
would outlive a caller that is killed. (Several GPUs take processes all the same.)
"""

from __future__ import annotations

import gc
import os
import random
import sys
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple
from warnings import catch_warnings, simplefilter

import numpy as np

from harness.errors import LabelerError, MissingExtra
from labelers.causal_base import told
from labelers.vllm_settings import Settings

__all__ = ["Engine", "Running", "Spoken", "chosen_dtype"]

_SET = {
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_NO_USAGE_STATS": "1",
}
_UNLESS_SET = {
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # else this process's own threads would be bound
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",
}
_GIB = 2**30
_CPU_CACHE = 2
"""GiB for keys and values where there is no GPU."""
_BREAKING = ("torchvision", "torchaudio", "torchcodec")
"""vLLM works without them, but not with builds of theirs that do not fit torch's."""


_ALIVE: weakref.WeakSet[Engine] = weakref.WeakSet()


class Spoken(NamedTuple):
    """What was said after a prompt: log-probabilities of tokens, and how much of it was not read again."""

    logprobs: Mapping[int, float]
    cached: int


class Engine:
    """One model, loaded when it is made. Another that is loaded shuts it down.

    Parameters
    ----------
    path: the model's folder. settings: how it is run. dtype: `bfloat16` or `float32`. given: more of vLLM's
        own arguments.

    Raises
    ------
    MissingExtra: vLLM is not installed. LabelerError: it cannot run this model.
    """

    def __init__(self, path: Path, settings: Settings, dtype: str, **given: Any) -> None:
        self._path = path
        # Engines in one process share vLLM's process groups, which end with the first that ends.
        gc.collect()
        for other in list(_ALIVE):
            other.close()
        arguments = {
            "model": str(path),
            "dtype": dtype,
            "enforce_eager": True,  # graphs are for writing; prompts are read as fast without
            "enable_prefix_caching": True,
            "disable_log_stats": True,
            "gpu_memory_utilization": settings.memory / 100,
            "load_format": "safetensors",
            "max_num_seqs": settings.batch,
            "seed": 0,
            "skip_tokenizer_init": True,
            "tensor_parallel_size": settings.gpus,
            "trust_remote_code": False,
            "use_tqdm_on_load": False,
            **given,
        }
        if settings.cache or not _cuda():
            arguments["kv_cache_memory_bytes"] = (settings.cache or _CPU_CACHE) * _GIB
        with _surroundings():
            try:
                from vllm import LLM
            except ModuleNotFoundError as exc:
                if exc.name != "vllm":
                    raise LabelerError(f"vLLM is installed and cannot be used: {_hinted(exc)}") from exc
                raise MissingExtra("vllm", "vllm") from exc
            except Exception as exc:
                raise LabelerError(f"vLLM is installed and cannot be used: {_hinted(exc)}") from exc
            try:
                self._llm: Any = LLM(**arguments)
            except Exception as exc:
                raise LabelerError(f"vLLM cannot run {path}: {_hinted(exc)}") from exc
        self._end = weakref.finalize(self, _shut, self._llm)
        _ALIVE.add(self)

    @property
    def closed(self) -> bool:
        """Whether it has been shut down, perhaps since another model was started."""
        return self._llm is None

    def close(self) -> None:
        """Shut the engine down and free its memory."""
        self._llm = None
        _ALIVE.discard(self)
        self._end()

    def speak(
        self, prompts: Sequence[list[int]], tokens: Sequence[int], adapter: Path | None
    ) -> list[Spoken]:
        """One token after each prompt, which is one of `tokens`: their log-probabilities.

        Raises
        ------
        LabelerError: the engine failed.
        """
        from vllm import SamplingParams
        from vllm.lora.request import LoRARequest

        how = SamplingParams(
            max_tokens=1,
            temperature=0.0,
            allowed_token_ids=list(tokens),
            logprobs=len(tokens),
            detokenize=False,
        )
        lora = LoRARequest("adapter", 1, str(adapter)) if adapter else None
        asked = [{"prompt_token_ids": ids} for ids in prompts]
        found = self._run("generate", asked, how, lora_request=lora, what=adapter)
        return [
            Spoken(
                {token: one.logprob for token, one in each.outputs[0].logprobs[0].items()},
                int(each.num_cached_tokens or 0),
            )
            for each in found
        ]

    def classify(
        self, pairs: Sequence[tuple[list[int], list[int]]]
    ) -> list[np.ndarray[Any, np.dtype[np.float64]]]:
        """The logits of a sequence classification model, as they are, for token ids and their parts.

        Raises
        ------
        LabelerError: the engine failed.
        """
        from vllm import PoolingParams

        asked = [{"prompt_token_ids": ids} for ids, _ in pairs]
        how = [
            PoolingParams(
                task="classify",
                use_activation=False,  # else a sigmoid, or a softmax
                # vLLM is told where the second part begins
                extra_kwargs={"compressed_token_type_ids": parts.index(1)} if 1 in parts else None,
            )
            for _, parts in pairs
        ]
        found = self._run("encode", asked, how, pooling_task="classify")
        return [each.outputs.data.double().cpu().numpy().reshape(-1) for each in found]

    def _run(self, method: str, *asked: Any, what: Path | None = None, **how: Any) -> list[Any]:
        if self._llm is None:
            raise LabelerError(f"the engine of {self._path} has been shut down")
        with _surroundings():
            try:
                found: list[Any] = getattr(self._llm, method)(*asked, use_tqdm=False, **how)
            except Exception as exc:
                which = f" with the adapter {what}" if what else ""
                raise LabelerError(f"vLLM failed on {self._path}{which}: {_hinted(exc)}") from exc
        return found


class Running:
    """A labeler's engine: started when it is first asked for, and again where another model shut it down."""

    def close(self) -> None:
        """Shut the engine down; should the labeler be asked again, it starts anew."""
        if engine := self.__dict__.pop("_engine", None):
            engine.close()

    def _started(self) -> Engine:
        """A new engine."""
        raise NotImplementedError

    def _running(self) -> Engine:
        if self._engine.closed:  # another model was run meanwhile
            self.close()
        return self._engine

    @cached_property
    def _engine(self) -> Engine:
        return self._started()


def chosen_dtype(dtype: str) -> str:
    """`auto` as what it is here.

    Raises
    ------
    MissingExtra: torch, which tells whether there is a GPU, is not installed.
    """
    if dtype != "auto":
        return dtype
    return "bfloat16" if _cuda() else "float32"


def _cuda() -> bool:
    try:
        import torch
    except ModuleNotFoundError as exc:
        raise MissingExtra("vllm", "vllm") from exc
    return bool(torch.cuda.is_available())


@contextmanager
def _surroundings() -> Iterator[None]:
    """Offline, quiet, with all output on stderr; afterwards everything is as it was.

    Libraries in C++ write on the descriptor itself, so stdout is turned at that level.
    """
    before = dict(os.environ)
    os.environ.update(_SET)
    os.environ.update({name: value for name, value in _UNLESS_SET.items() if name not in before})
    states = random.getstate(), np.random.get_state()  # noqa: NPY002 - vLLM sets numpy's global seed
    torch: Any = sys.modules.get("torch")
    threads = torch.set_num_threads if torch else None
    sys.stdout.flush()
    out = os.dup(1)
    try:
        os.dup2(2, 1)
        with catch_warnings():
            simplefilter("ignore")
            yield
    finally:
        sys.stdout.flush()
        os.dup2(out, 1)
        os.close(out)
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        if torch and threads:
            torch.set_num_threads = threads  # on a CPU vLLM puts one in its place that does nothing
        for name in set(os.environ) - set(before):
            del os.environ[name]
        os.environ.update(before)


def _shut(llm: Any) -> None:
    """Stop an engine; what it held is freed with the last reference to it."""
    with _surroundings():
        llm.llm_engine.engine_core.shutdown()
    del llm
    gc.collect()
    if (torch := sys.modules.get("torch")) and torch.cuda.is_available():
        torch.cuda.empty_cache()


def _hinted(exc: Exception) -> str:
    """The first line of what went wrong, and what may help."""
    said = f"{exc} {exc.__cause__ or ''}"
    hint = ""
    if any(name in said for name in _BREAKING):
        hint = f" Next: pip uninstall {' '.join(_BREAKING)}"
    elif "KV cache" in said:
        hint = " Next: a smaller context=, or more cache="
    elif "head_dim" in said or "head size" in said.lower() or "head_size" in said:
        hint = " Next: this model as hf:, whose attention has no such limits"
    return told(exc) + hint
