"""A causal language model on this machine that writes queries, in its likeliest words: `hf:FOLDER`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

from harness.errors import LabelerError, MissingExtra
from labelers.causal_files import find_model
from labelers.causal_settings import read_settings
from labelers.chat_answers import Told
from labelers.devices import where
from labelers.prompting import Cutter

__all__ = ["Local"]

_TOKENS = 96  # of an answer
_VERSION = 1  # goes up with every change to what the model is given


class Local:
    """A model in a folder.

    Parameters
    ----------
    argument: FOLDER_OR_HUB_ID[?settings] (`labelers.causal_settings`); of the settings, `revision`, `tokens`,
        `batch`, `device` and `dtype` count here.

    Raises
    ------
    UsageError, UnknownName: what the argument names cannot be used. LabelerError: the model is not there.
    """

    def __init__(self, argument: str) -> None:
        self._settings = read_settings(argument)
        self._files = find_model(self._settings.model, self._settings.revision)
        self.cutter = Cutter(1, self._settings.tokens, str(self._files.path))
        self.made_of: dict[str, object] = {
            "spec": f"hf:{self._files.name}",
            "model": self._files.digest(),
            "version": _VERSION,
            "cut": self.cutter.digest,
        }

    def check(self) -> None:
        """Raise MissingExtra where torch or transformers is not installed, UsageError where there is no such
        device."""
        _transformers()
        _ = self._runs_on

    def ask(self, prompts: Sequence[str], read: Callable[[str, Told], None]) -> None:
        """Let the model answer, so many prompts at a time as `batch` says, long ones first."""
        order = sorted(prompts, key=lambda prompt: -len(prompt))
        for start in range(0, len(order), self._settings.batch):
            part = order[start : start + self._settings.batch]
            for prompt, told in zip(part, self._answers(part), strict=True):
                read(prompt, told)

    def _answers(self, prompts: Sequence[str]) -> list[Told]:
        import torch

        tokenizer, model = self._loaded
        given = tokenizer([self._shown(p) for p in prompts], return_tensors="pt", padding=True).to(
            model.device
        )
        with torch.inference_mode():
            ids = model.generate(
                **given, max_new_tokens=_TOKENS, do_sample=False, pad_token_id=tokenizer.pad_token_id
            )
        new = ids[:, given["input_ids"].shape[1] :]
        texts = tokenizer.batch_decode(new, skip_special_tokens=True)
        ends = {
            tokenizer.eos_token_id,
            tokenizer.pad_token_id,
            *_listed(model.generation_config.eos_token_id),
        }
        ended = [bool(set(row.tolist()) & ends) for row in new]
        return [Told(text, None, cut=not end) for text, end in zip(texts, ended, strict=True)]

    def _shown(self, prompt: str) -> str:
        tokenizer, _ = self._loaded
        if tokenizer.chat_template is None:
            return f"{prompt}\n\nQuery:"
        said = [{"role": "user", "content": prompt}]
        return str(tokenizer.apply_chat_template(said, tokenize=False, add_generation_prompt=True))

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        transformers = _transformers()
        path, (device, dtype) = self._files.path, self._runs_on
        try:
            tokenizer = transformers.AutoTokenizer.from_pretrained(
                path, local_files_only=True, padding_side="left"
            )
            model = transformers.AutoModelForCausalLM.from_pretrained(
                path, use_safetensors=True, local_files_only=True, trust_remote_code=False, dtype=dtype
            )
        except Exception as exc:
            raise LabelerError(f"{path} is no causal language model to load: {exc}") from exc
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        return tokenizer, model.to(device).eval()

    @cached_property
    def _runs_on(self) -> tuple[str, str]:
        return where(self._settings.device, self._settings.dtype)


def _listed(value: Any) -> list[int]:
    return [] if value is None else list(value) if isinstance(value, list) else [value]


def _transformers() -> Any:
    try:
        import transformers
    except ModuleNotFoundError as exc:
        raise MissingExtra("transformers", "hf") from exc
    return transformers
