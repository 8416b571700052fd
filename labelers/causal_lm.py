"""A causal language model on this machine, through transformers: `hf:FOLDER_OR_HUB_ID`.

The model is not made to write anything. One forward pass gives the probabilities of the token that would come
next; those of the grades' tokens, made to sum to 1, are the signal. So nothing is sampled or parsed, and what
comes out for a pair does not depend on chance.

On the collection's own scale a signal is `probs`; a prompt with another scale gives a `score`, the expected
grade on that one (P(yes) for `no yes`).
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Sequence
from copy import deepcopy
from functools import cached_property
from hashlib import sha256
from typing import Any, NamedTuple
from warnings import catch_warnings, simplefilter

import numpy as np
import polars as pl

from harness.errors import LabelerError, MissingExtra, UsageError
from harness.frames import SIGNALS
from labelers.causal_base import MEMORY, quietly, spread, told
from labelers.causal_files import ModelFiles, find_adapter, find_model
from labelers.causal_settings import read_settings
from labelers.causal_tokens import Asked, ChatTokens
from labelers.prompting import Cutter, read_prompt, shown_with

__all__ = ["CausalLM", "where"]

_PROTOCOL = 1  # goes up with every change to what the model sees or how its logits become signals


class _Start(NamedTuple):
    """The first tokens of all prompts, and what the model computed for them."""

    length: int
    kept: Any


_NOTHING = _Start(0, None)
_WORTH = 16
"""Tokens in common from which on they are read apart."""


class CausalLM:
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

    needs_text = True

    def __init__(self, argument: str | None, grades: dict[int, str]) -> None:
        self.grades = grades
        self._settings = settings = read_settings(argument)
        self._prompt = read_prompt(
            settings.prompt, grades, "token", settings.guidelines or None, settings.shots
        )
        self.examples = self._prompt.shots
        self._model_files = find_model(settings.model, settings.revision)
        self._adapter_files = find_adapter(settings.adapter) if settings.adapter else None
        self._cutter = Cutter(1, settings.tokens, str(self._model_files.path))
        self._device, self._dtype = where(settings.device, settings.dtype)
        self._used = dict.fromkeys(("requests", "tokens_in", "tokens_cached", "tokens_out", "cut"), 0)
        self.name = self._model_files.name
        known = {
            "protocol": _PROTOCOL,
            "model": self._model_files.digest(),
            "adapter": self._adapter_files.digest() if self._adapter_files else "",
            "prompt": self._prompt.digest,
            "grades": sorted(grades),
            "cut": self._cutter.digest,
            "dtype": self._dtype,
        }
        self.fingerprint = sha256(json.dumps(known).encode()).hexdigest()

    @property
    def card(self) -> dict[str, list[str]]:
        """What the model and its adapter say they are and were made from (`harness.circularity`)."""
        files, adapter, settings = self._model_files, self._adapter_files, self._settings
        origin = [settings.model if files.commit else files.name, files.config.get("_name_or_path")]
        if adapter:
            origin += [adapter.name, adapter.config.get("base_model_name_or_path")]
        return {"base model": list(dict.fromkeys(str(name) for name in origin if name))}

    def signal(self, pairs: pl.DataFrame) -> pl.DataFrame:
        """What the model says of each pair (SIGNALS).

        Raises
        ------
        UsageError: a grade is not one token of this model. MissingExtra: transformers or peft is not
            installed. LabelerError: the model cannot be loaded.
        """
        asked = self._tokens.ask(list(pairs.select("query", "text").iter_rows()), shown_with(pairs))
        self._used["cut"] += sum(one.cut for one in asked)
        spreads: list[list[float] | None] = [None] * len(asked)
        reasons = [one.reason for one in asked]
        start = self._start([one.ids for one in asked if one.reason is None])
        for rows in self._batches(asked):
            for row, one in zip(rows, self._spreads([asked[r].ids for r in rows], start), strict=True):
                if isinstance(one, str):
                    reasons[row] = one
                else:
                    spreads[row] = one
        scale = self._prompt.answers.values()
        on = self._prompt.on_scale
        scores = [s and sum(p * g for p, g in zip(s, scale, strict=True)) for s in spreads]
        return pairs.select("query_id", "doc_id").with_columns(
            pl.Series("probs", spreads if on else [None] * len(asked), dtype=SIGNALS["probs"]),
            pl.Series("score", [None] * len(asked) if on else scores, dtype=SIGNALS["score"]),
            pl.lit(self.name).alias("labeler"),
            pl.Series("reason", reasons, dtype=SIGNALS["reason"]),
        )

    def usage(self) -> dict[str, int]:
        """What has been asked so far.

        `requests`: batches; `tokens_in`: tokens of prompts, no padding, and `tokens_cached` those read once
        for all; `tokens_out`: 0; `cut`: pairs whose document was shortened. Pairs and seconds are counted by
        `harness.accounting`.
        """
        return dict(self._used)

    def _batches(self, asked: Sequence[Asked]) -> Iterator[list[int]]:
        """Rows of pairs of about the same length, the longest first: what does not fit is known at once."""
        order = sorted(
            (r for r, one in enumerate(asked) if one.reason is None), key=lambda r: -len(asked[r].ids)
        )
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

    def _spreads(self, batch: list[list[int]], start: _Start) -> list[list[float] | str]:
        """Distributions over the answers, or reasons. A batch too large for the memory is halved."""
        import torch

        try:
            logits = self._logits(batch, start)
        except torch.OutOfMemoryError:
            if len(batch) == 1:
                return [MEMORY]
            half = len(batch) // 2
            return [*self._spreads(batch[:half], start), *self._spreads(batch[half:], start)]
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

    # -- loading ---------------------------------------------------------------------------------------------

    @cached_property
    def _config(self) -> Any:
        try:
            from transformers import AutoConfig
        except ModuleNotFoundError as exc:
            raise MissingExtra("transformers", "hf") from exc
        path = self._model_files.path
        try:
            return AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
        except Exception as exc:
            raise LabelerError(f"transformers cannot read {path / 'config.json'}: {told(exc)}") from exc

    @cached_property
    def _tokens(self) -> ChatTokens:
        longest = getattr(self._config.get_text_config(), "max_position_embeddings", None)
        with quietly():
            return ChatTokens(self._model_files.path, self.name, self._prompt, self._cutter, longest)

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
            raise LabelerError(f"{path} is no causal language model to load: {told(exc)}") from exc
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
            raise LabelerError(f"{self.name} cannot be put on {self._device}: {told(exc)}") from exc


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
        raise LabelerError(f"{adapter.path} is no adapter for this model: {told(exc)}") from exc
    if model.active_peft_config.is_prompt_learning:
        raise LabelerError(f"{adapter.path} puts tokens before the prompt; supported are LoRA and its kin")
    # An adapter of another model would be put on without effect, and with no more than a warning.
    if any("missing adapter keys" in str(w.message).lower() for w in warned):
        raise LabelerError(
            f"{adapter.path} is no adapter for this model: its weights lack some of its layers"
        )
    return model


def where(device: str, dtype: str) -> tuple[str, str]:
    """Device and dtype, as torch calls them.

    Raises
    ------
    UsageError: no such device here. MissingExtra: torch, which tells, is not installed.
    """
    if device == "cpu":
        return device, "float32" if dtype == "auto" else dtype
    try:
        import torch
    except ModuleNotFoundError as exc:
        raise MissingExtra("torch", "hf") from exc
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(device).type
    except RuntimeError:
        raise UsageError(f"setting device={device!r} is no device of torch, such as cpu or cuda:0") from None
    if kind == "cuda" and not torch.cuda.is_available():
        raise UsageError(f"setting device={device!r}: torch finds no CUDA here.\nNext: device=cpu") from None
    return device, ("bfloat16" if kind == "cuda" else "float32") if dtype == "auto" else dtype
