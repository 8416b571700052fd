"""A model on this machine, through vLLM: `vllm:FOLDER_OR_HUB_ID`.

A causal language model is asked as `hf:` asks it (`labelers.causal_base`): the same token ids, and for each
prompt one token that must be a grade's, so that its log-probabilities are those of the grades. The beginnings
that prompts share are kept between calls. A sequence classification model is a cross-encoder
(`labelers.vllm_pairs`); which of the two it is stands in its config.json.
"""

from __future__ import annotations

import json
from math import nan
from typing import TYPE_CHECKING, Any

from harness.errors import LabelerError
from labelers.causal_base import NextToken, spread
from labelers.causal_files import find_model
from labelers.vllm_engine import Engine, Running, chosen_dtype
from labelers.vllm_pairs import VLLMPairs
from labelers.vllm_settings import ROOM, Settings, read_settings

if TYPE_CHECKING:
    from harness.protocol import Labeler

__all__ = ["VLLMCausal", "vllm"]

_PROTOCOL = 1  # goes up with every change to what the model sees or how its logits become signals
_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""How large vLLM can take adapters to be."""


def vllm(argument: str | None, grades: dict[int, str]) -> Labeler:
    """A labeler for a model that vLLM runs.

    Parameters
    ----------
    argument: FOLDER_OR_HUB_ID[?settings] (`labelers.vllm_settings`). grades: the collection's grades and
        their words.

    Raises
    ------
    UsageError, UnknownName, InputError: what the argument names cannot be used. LabelerError: a model or an
        adapter is not there, or of another kind; the message says what to do. MissingExtra: torch, which
        tells whether there is a GPU, is not installed.
    """
    settings = read_settings(argument)
    config = find_model(settings.model, settings.revision).config
    architectures = [str(name) for name in config.get("architectures") or []]
    if any(name.endswith("ForSequenceClassification") for name in architectures):
        return VLLMPairs(settings, grades)
    return VLLMCausal(settings, grades)


class VLLMCausal(Running, NextToken):
    """A causal language model that vLLM runs.

    In float32 a distribution is that of `hf:` but for rounding (1e-4); in bfloat16 the two may differ by
    some 0.01.

    Parameters
    ----------
    settings: what is asked, and how vLLM runs it. grades: the collection's grades and their words.

    Raises
    ------
    As for `vllm`.
    """

    def __init__(self, settings: Settings, grades: dict[int, str]) -> None:
        self._settings = settings
        self._dtype = chosen_dtype(settings.dtype)
        decides = {"dtype": self._dtype, "engine": "vllm", "context": settings.context}
        super().__init__(settings, grades, _PROTOCOL, decides)
        if self._adapter_files and self._adapter_files.config.get("peft_type") != "LORA":
            kind = self._adapter_files.config.get("peft_type")
            raise LabelerError(
                f"{self._adapter_files.path} is an adapter of the kind {kind}; vLLM takes LORA.\nNext: hf:"
            )

    def _spreads(self, prompts: list[list[int]]) -> list[list[float] | str]:
        """The distributions; vLLM itself sees to what is read together."""
        if not prompts:
            return []
        answers = self._tokens.answers
        adapter = self._adapter_files.path if self._adapter_files else None
        found = self._running().speak(prompts, answers, adapter)
        self._used["requests"] += 1
        self._used["tokens_in"] += sum(map(len, prompts))
        self._used["tokens_cached"] += sum(one.cached for one in found)
        self._used["tokens_out"] += len(found)
        return [spread([one.logprobs.get(token, nan) for token in answers]) for one in found]

    def _room(self) -> int:
        """Tokens of a prompt and of the one that follows it."""
        model = super()._longest()
        wanted = self._settings.context or self._settings.tokens + ROOM
        return wanted + 1 if model is None else min(wanted + 1, model)

    def _longest(self) -> int:
        return self._room() - 1

    def _started(self) -> Engine:
        given: dict[str, Any] = {
            "max_model_len": self._room(),
            "max_logprobs": max(20, len(self._tokens.answers)),
            # Those of what it chooses from: else they are of all tokens, and a grade may be missing.
            "logprobs_mode": "processed_logprobs",
        }
        if self._adapter_files:
            rank = _rank(self._adapter_files.config)
            if rank > _RANKS[-1]:
                raise LabelerError(
                    f"{self._adapter_files.path} has rank {rank}; vLLM takes up to {_RANKS[-1]}.\nNext: hf:"
                )
            fitting = next(r for r in _RANKS if r >= rank)
            given |= {"enable_lora": True, "max_loras": 1, "max_lora_rank": fitting}
        return Engine(self._model_files.path, self._settings, self._dtype, **given)


def _rank(config: dict[str, Any]) -> int:
    """The largest rank that an adapter has in any layer."""
    several = config.get("rank_pattern") or {}
    try:
        return max(int(config["r"]), *(int(r) for r in several.values()), 1)
    except (KeyError, TypeError, ValueError):
        raise LabelerError(f"the adapter's settings name no rank: {json.dumps(config.get('r'))}") from None
