"""A cross-encoder through vLLM: `vllm:FOLDER_OR_HUB_ID` of a sequence classification model.

What it sees and what its logits mean is as for `cross-encoder:` (`labelers.cross_files`,
`labelers.cross_tokens`): a model with one label gives a `score`, its logit as it is; one with a label for
each of the collection's grades gives `probs`, the softmax of its logits.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property

from harness.errors import UsageError
from labelers.cross_base import Logits, ReadsPairs
from labelers.cross_files import find_cross, longest, tells_parts
from labelers.cross_tokens import PairTokens, Read
from labelers.vllm_engine import Engine, Running, chosen_dtype
from labelers.vllm_settings import ROOM, Settings

__all__ = ["VLLMPairs"]

_PROTOCOL = 1  # goes up with every change to what the model sees or how its logits become signals
_PROMPTED = ("prompt", "guidelines", "adapter")


class VLLMPairs(Running, ReadsPairs):
    """A sequence classification model that vLLM runs.

    Parameters
    ----------
    settings: which model, and how vLLM runs it. grades: the collection's grades and their words.

    Raises
    ------
    UsageError: settings that are for causal models. LabelerError: the model is not there, or has other labels
        than the collection has grades. MissingExtra: torch, which tells whether there is a GPU, is not
        installed.
    """

    def __init__(self, settings: Settings, grades: dict[int, str]) -> None:
        if given := [n for n in _PROMPTED if getattr(settings, n) != getattr(Settings(""), n)]:
            raise UsageError(
                f"setting {given[0]!r} is for models that are prompted; {settings.model} is a cross-encoder"
            )
        self._settings = settings
        self._dtype = chosen_dtype(settings.dtype)
        decides = {
            "protocol": _PROTOCOL,
            "engine": "vllm",
            "dtype": self._dtype,
            "cut": [settings.tokens, settings.context],
        }
        super().__init__(settings.model, find_cross(settings.model, settings.revision), grades, decides)

    def _read(self, pairs: Sequence[tuple[str, str]]) -> list[Read]:
        return self._tokens.read(pairs)

    def _logits(self, asked: Sequence[Read]) -> Iterable[tuple[int, Logits | None]]:
        return enumerate(self._running().classify([(one.ids, one.types) for one in asked]))

    def _longest(self) -> int:
        wanted = self._settings.context or self._settings.tokens + ROOM
        model = longest(self._files)
        return wanted if model is None else min(wanted, model)

    @cached_property
    def _tokens(self) -> PairTokens:
        files, file = self._files, self._files.path / "tokenizer.json"
        # Models without a table of parts do not take them.
        parts = tells_parts(files) and int(files.config.get("type_vocab_size") or 0) > 1
        known = files.config.get("vocab_size")
        return PairTokens(file, self._longest(), self._settings.tokens, known, parts=parts)

    def _started(self) -> Engine:
        return Engine(
            self._files.path,
            self._settings,
            self._dtype,
            runner="pooling",
            max_model_len=self._longest(),
            skip_tokenizer_init=False,  # vLLM asks it for the marks between texts
            enable_prefix_caching=False,  # there is nothing to keep where every token sees every other
        )
