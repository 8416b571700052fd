"""A causal language model on this machine, through transformers: `hf:FOLDER_OR_HUB_ID`.

The model is not made to write anything. One forward pass gives the probabilities of the token that would come
next; those of the grades' tokens, made to sum to 1, are the signal. So nothing is sampled or parsed, and what
comes out for a pair does not depend on chance.

On the collection's own scale a signal is `probs`; a prompt with another scale gives a `score`, the expected
grade on that one (P(yes) for `no yes`).
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from copy import deepcopy
from functools import cached_property
from typing import Any, NamedTuple
from warnings import catch_warnings, simplefilter

import numpy as np

from harness.errors import LabelerError, MissingExtra, first_line
from labelers.causal_base import MEMORY, NextToken, quietly, spread
from labelers.causal_files import ModelFiles
from labelers.causal_settings import Settings, read_settings
from labelers.devices import where

__all__ = ["CausalLM"]

_PROTOCOL = 1  # goes up with every change to what the model sees or how its logits become signals


class _Start(NamedTuple):
    """The first tokens of all prompts, and what the model computed for them."""

    length: int
    kept: Any


_NOTHING = _Start(0, None)
_WORTH = 16
"""Tokens in common from which on they are read apart."""


class CausalLM(NextToken):
    """A labeler that reads the next token's probabilities.

    Pairs are sorted by length and padded on the left, `batch` at a time; the beginning that the prompts of a
    call have in common is read once. In float32 a distribution is the
    same for any batch but for rounding (1e-5); in bfloat16 it may move by about 0.01.

    Parameters
    ----------
    argument: FOLDER_OR_HUB_ID[?settings] (`labelers.causal_settings`). grades: the collection's grades and
        their words.

    Raises
    ------
    UsageError, UnknownName, InputError: what the argument names cannot be used. LabelerError: a model or an
        adapter is not there; the message says what to do. MissingExtra: torch, which tells whether there is a
        GPU, is not installed.
    """

    _settings: Settings

    def __init__(self, argument: str | None, grades: dict[int, str]) -> None:
        settings = read_settings(argument)
        self._device, self._dtype = where(settings.device, settings.dtype)
        super().__init__(settings, grades, _PROTOCOL, {"dtype": self._dtype})

    def _spreads(self, prompts: list[list[int]]) -> list[list[float] | str]:
        """The distributions, in batches of about the same length."""
        found: list[list[float] | str] = [""] * len(prompts)
        start = self._start(prompts)
        for rows in self._batches(prompts):
            batch = [prompts[row] for row in rows]
            for row, one in zip(rows, self._spreads_of(batch, start), strict=True):
                found[row] = one
        return found

    def _batches(self, prompts: Sequence[list[int]]) -> Iterator[list[int]]:
        """Prompts of about the same length, the longest first: what does not fit is known at once."""
        order = sorted(range(len(prompts)), key=lambda row: -len(prompts[row]))
        for start in range(0, len(order), self._settings.batch):
            yield order[start : start + self._settings.batch]

    def _start(self, prompts: list[list[int]]) -> _Start:
        """The beginning that all prompts have in common (the instruction, perhaps the query), read once.

        Only where the model keeps what it read in the plain way: each token's keys and values.
        """
        if len(prompts) < 2:
            return _NOTHING
        import torch
        from transformers.cache_utils import DynamicLayer

        pairs = zip(min(prompts), max(prompts), strict=False)  # these two differ first
        common = next((n for n, (one, other) in enumerate(pairs) if one != other), len(min(prompts)))
        length = min(common, min(map(len, prompts)) - 1)
        model, takes = self._model
        if length < _WORTH or not {"position_ids", "past_key_values"} <= takes:
            return _NOTHING
        ids = torch.tensor([prompts[0][:length]], device=self._device)
        last = {"logits_to_keep": 1} if "logits_to_keep" in takes else {}
        try:
            with torch.inference_mode():
                kept = model(input_ids=ids, use_cache=True, **last).past_key_values
        except torch.OutOfMemoryError:
            return _NOTHING
        layers = getattr(kept, "layers", [])
        plain = bool(layers) and all(type(layer) is DynamicLayer for layer in layers)
        return _Start(length, kept) if plain else _NOTHING

    def _spreads_of(self, batch: list[list[int]], start: _Start) -> list[list[float] | str]:
        """Distributions over the answers, or reasons. A batch too large for the memory is halved."""
        import torch

        try:
            logits = self._logits(batch, start)
        except torch.OutOfMemoryError:
            if len(batch) == 1:
                return [MEMORY]
            half = len(batch) // 2
            return [*self._spreads_of(batch[:half], start), *self._spreads_of(batch[half:], start)]
        return [spread(row) for row in logits]

    def _logits(self, batch: list[list[int]], start: _Start) -> np.ndarray[Any, np.dtype[np.float64]]:
        """The logits of the answers' tokens after each prompt: (pairs, answers)."""
        import torch

        model, takes = self._model
        rest = [one[start.length :] for one in batch]
        longest = max(map(len, rest))
        ids = torch.tensor([[0] * (longest - len(one)) + one for one in rest], device=self._device)
        shown = [[1] * start.length + [0] * (longest - len(one)) + [1] * len(one) for one in rest]
        mask = torch.tensor(shown, device=self._device)
        given = {"input_ids": ids, "attention_mask": mask, "use_cache": start.kept is not None}
        if start.kept is not None:
            given["past_key_values"] = deepcopy(start.kept)
            given["past_key_values"].batch_repeat_interleave(len(batch))
        if "position_ids" in takes:  # places are counted without the padding
            given["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)[:, start.length :]
        if "logits_to_keep" in takes:  # those of a whole vocabulary for each token would fill the memory
            given["logits_to_keep"] = 1
        with torch.inference_mode():
            last = model(**given).logits[:, -1, self._tokens.answers]
        self._used["requests"] += 1
        self._used["tokens_in"] += sum(map(len, batch))
        self._used["tokens_cached"] += start.length * len(batch)
        return last.double().cpu().numpy()  # type: ignore[no-any-return]

    @cached_property
    def _model(self) -> tuple[Any, set[str]]:
        """The model on its device, and the names of what it can be given."""
        import torch
        from transformers import AutoModelForCausalLM

        path = self._model_files.path
        try:
            with quietly():
                model, loaded = AutoModelForCausalLM.from_pretrained(
                    path,
                    config=self._config,
                    dtype=getattr(torch, self._dtype),
                    use_safetensors=True,
                    local_files_only=True,
                    trust_remote_code=False,
                    output_loading_info=True,
                )
        except Exception as exc:
            raise LabelerError(f"{path} is no causal language model to load: {first_line(exc)}") from exc
        if lost := sorted(loaded["missing_keys"]):
            raise LabelerError(
                f"{path} is no whole causal language model: its weights lack {', '.join(lost[:3])}"
            )
        takes = set(inspect.signature(model.forward).parameters)
        if self._adapter_files:
            model = _adapted(model, self._adapter_files)
        try:
            return model.to(self._device).eval(), takes
        except (RuntimeError, AssertionError) as exc:
            raise LabelerError(f"{self.name} cannot be put on {self._device}: {first_line(exc)}") from exc


def _adapted(model: Any, adapter: ModelFiles) -> Any:
    """The model with an adapter on it."""
    try:
        from peft import PeftModel
    except ModuleNotFoundError as exc:
        raise MissingExtra("peft", "peft") from exc
    try:
        with quietly(), catch_warnings(record=True) as warned:
            simplefilter("always")
            model = PeftModel.from_pretrained(model, adapter.path, is_trainable=False)
    except Exception as exc:
        raise LabelerError(f"{adapter.path} is no adapter for this model: {first_line(exc)}") from exc
    if model.active_peft_config.is_prompt_learning:
        raise LabelerError(f"{adapter.path} puts tokens before the prompt; supported are LoRA and its kin")
    # An adapter of another model would be put on without effect, and with no more than a warning.
    if any("missing adapter keys" in str(w.message).lower() for w in warned):
        raise LabelerError(
            f"{adapter.path} is no adapter for this model: its weights lack some of its layers"
        )
    return model
