"""A causal language model on this machine that writes queries, in its likeliest words: `hf:FOLDER`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import cached_property
from typing import TYPE_CHECKING, Any

from harness.errors import LabelerError, MissingExtra, UsageError
from labelers.causal_base import MEMORY, quietly
from labelers.causal_files import find_model
from labelers.causal_settings import read_settings
from labelers.chat_answers import Told
from labelers.devices import where
from labelers.distill.students import load_model
from labelers.prompting import Cutter

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["TOO_LONG", "Local", "refuse_idle"]

TOO_LONG = "longer than the model can read"
_HEEDED = ("model", "revision", "tokens", "batch", "device", "dtype")
_TOKENS = 96  # of an answer
_VERSION = 1  # goes up with every change to what the model is given


class Local:
    """A model in a folder.

    Parameters
    ----------
    argument: FOLDER_OR_HUB_ID[?settings] (`labelers.causal_settings`): `revision`, `tokens`, `batch`,
        `device` and `dtype`.

    Raises
    ------
    UsageError, UnknownName: what the argument names cannot be used, or means nothing here. LabelerError: the
        model is not there.
    """

    def __init__(self, argument: str) -> None:
        self._settings = read_settings(argument)
        refuse_idle(self._settings, _HEEDED)
        self._files = find_model(self._settings.model, self._settings.revision)
        self.cutter = Cutter(1, self._settings.tokens, str(self._files.path))
        self.made_of: dict[str, object] = {
            "spec": f"hf:{self._files.name}",
            "model": self._files.digest(),
            "version": _VERSION,
            "cut": self.cutter.digest,
        }

    def check(self) -> None:
        """Raise MissingExtra where transformers is not installed, UsageError where the device is not here."""
        _transformers()
        _ = self._where

    def ask(self, prompts: Sequence[str], read: Callable[[str, Told], None]) -> None:
        """Let the model answer, so many prompts at a time as `batch` says, long ones first."""
        order = sorted(prompts, key=lambda prompt: -len(prompt))
        for start in range(0, len(order), self._settings.batch):
            part = order[start : start + self._settings.batch]
            for prompt, told in zip(part, self._answers(part), strict=True):
                read(prompt, told)

    def _answers(self, prompts: Sequence[str]) -> list[Told]:
        """What the model answers. Prompts that do not fit it are told so, and not shown to it."""
        tokenizer, model = self._loaded
        longest = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        shown = [self._shown(prompt) for prompt in prompts]
        fits = [
            longest is None or len(ids) + _TOKENS <= longest
            for ids in tokenizer(shown, add_special_tokens=True)["input_ids"]
        ]
        answers = iter(self._generated([text for text, fit in zip(shown, fits, strict=True) if fit]))
        return [next(answers) if fit else Told(None, TOO_LONG) for fit in fits]

    def _generated(self, shown: Sequence[str]) -> list[Told]:
        """Answers to texts that fit. A batch too large for the memory is halved."""
        import torch

        if not shown:
            return []
        tokenizer, model = self._loaded
        given = tokenizer(shown, return_tensors="pt", padding=True).to(model.device)
        given.pop("token_type_ids", None)
        try:
            with torch.inference_mode():
                ids = model.generate(
                    **given, max_new_tokens=_TOKENS, do_sample=False, pad_token_id=tokenizer.pad_token_id
                )
        except torch.OutOfMemoryError:
            if len(shown) == 1:
                return [Told(None, MEMORY)]
            half = len(shown) // 2
            return [*self._generated(shown[:half]), *self._generated(shown[half:])]
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
        path, (device, dtype) = self._files.path, self._where
        try:
            with quietly():
                tokenizer = transformers.AutoTokenizer.from_pretrained(
                    path, local_files_only=True, padding_side="left"
                )
        except Exception as exc:
            raise LabelerError(f"{path} holds no tokenizer that transformers can load: {exc}") from exc
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        if tokenizer.pad_token_id is None:
            raise LabelerError(f"{path} has a tokenizer without a token for the end: nothing ends an answer")
        model, lost = load_model("AutoModelForCausalLM", path, dtype=dtype)
        if lost:
            raise LabelerError(f"{path} is no whole causal language model: its weights lack {lost[0]}")
        return tokenizer, model.to(device).eval()

    @cached_property
    def _where(self) -> tuple[str, str]:
        """Device and dtype."""
        return where(self._settings.device, self._settings.dtype)


def refuse_idle(settings: DataclassInstance, heeded: Sequence[str]) -> None:
    """Raise UsageError where a setting of a labeler is given that means nothing for a writer of queries."""
    idle = [
        one.name
        for one in fields(settings)
        if one.name not in heeded and getattr(settings, one.name) != one.default
    ]
    if idle:
        raise UsageError(
            f"setting {idle[0]!r} means nothing for a generator of queries, whose settings are "
            f"{', '.join(heeded[1:])}.\nNext: take it out of synthesize.generator"
        )


def _listed(value: Any) -> list[int]:
    return [] if value is None else list(value) if isinstance(value, list) else [value]


def _transformers() -> Any:
    try:
        import transformers
    except ModuleNotFoundError as exc:
        raise MissingExtra("transformers", "hf") from exc
    return transformers
