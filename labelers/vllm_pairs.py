"""A cross-encoder through vLLM: `vllm:FOLDER_OR_HUB_ID` of a sequence classification model.

What it sees and what its logits mean is as for `cross-encoder:` (`labelers.cross_files`,
`labelers.cross_tokens`): a model with one label gives a `score`, its logit as it is; one with a label for
each of the collection's grades gives `probs`, the softmax of its logits.
"""

from __future__ import annotations

import json
from functools import cached_property
from hashlib import sha256

import numpy as np
import polars as pl

from harness.errors import UsageError
from harness.frames import SIGNALS
from labelers.causal_base import NO_NUMBER, spread
from labelers.cross_files import find_cross, labels, longest
from labelers.cross_tokens import PairTokens
from labelers.vllm_engine import Engine, chosen_dtype
from labelers.vllm_settings import ROOM, Settings

__all__ = ["VLLMPairs"]

_PROTOCOL = 1  # goes up with every change to what the model sees or how its logits become signals
_PROMPTED = ("prompt", "guidelines", "adapter")


class VLLMPairs:
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

    needs_text = True

    def __init__(self, settings: Settings, grades: dict[int, str]) -> None:
        if given := [n for n in _PROMPTED if getattr(settings, n) != getattr(Settings(""), n)]:
            raise UsageError(
                f"setting {given[0]!r} is for models that are prompted; {settings.model} is a cross-encoder"
            )
        self.grades = grades
        self._settings = settings
        self._files = files = find_cross(settings.model, settings.revision)
        self._labels = labels(files, grades)
        self._dtype = chosen_dtype(settings.dtype)
        self._used = dict.fromkeys(("requests", "tokens_in", "tokens_out", "cut"), 0)
        self.name = files.name
        known = {
            "protocol": _PROTOCOL,
            "engine": "vllm",
            "model": files.digest(),
            "dtype": self._dtype,
            "labels": self._labels,
            "grades": sorted(grades) if self._labels else [],
            "cut": [settings.tokens, settings.context],
        }
        self.fingerprint = sha256(json.dumps(known).encode()).hexdigest()

    @property
    def card(self) -> dict[str, list[str]]:
        """What the model says it is and was made from (`harness.circularity`)."""
        files = self._files
        origin = [self._settings.model if files.commit else files.name, files.config.get("_name_or_path")]
        return {"base model": list(dict.fromkeys(str(name) for name in origin if name))}

    def signal(self, pairs: pl.DataFrame) -> pl.DataFrame:
        """What the model says of each pair (SIGNALS).

        Raises
        ------
        MissingExtra: vLLM is not installed. LabelerError: it cannot run the model, or failed on the way.
        """
        read = self._tokens.read(list(pairs.select("query", "text").iter_rows()))
        rows = [row for row, one in enumerate(read) if one.reason is None]
        reasons = [one.reason for one in read]
        probs: list[list[float] | None] = [None] * len(read)
        scores: list[float | None] = [None] * len(read)
        # Models without a table of parts do not take them.
        parts = int(self._files.config.get("type_vocab_size") or 0) > 1
        shown = [(read[row].ids, read[row].types if parts else []) for row in rows]
        told = self._running().classify(shown) if rows else []
        for row, logits in zip(rows, told, strict=True):
            if self._labels is None:
                scores[row] = float(logits[0]) if np.isfinite(logits[0]) else None
                reasons[row] = NO_NUMBER if scores[row] is None else None
            elif isinstance(found := spread(logits[self._labels]), str):
                reasons[row] = found
            else:
                probs[row] = found
        self._used["cut"] += sum(one.cut for one in read)
        self._used["requests"] += bool(rows)
        self._used["tokens_in"] += sum(len(read[row].ids) for row in rows)
        return pairs.select("query_id", "doc_id").with_columns(
            pl.Series("probs", probs, dtype=SIGNALS["probs"]),
            pl.Series("score", scores, dtype=SIGNALS["score"]),
            pl.lit(self.name).alias("labeler"),
            pl.Series("reason", reasons, dtype=SIGNALS["reason"]),
        )

    def usage(self) -> dict[str, int]:
        """What has been asked so far, as for `labelers.causal_base.NextToken`."""
        return dict(self._used)

    def close(self) -> None:
        """Shut the engine down; should the labeler be asked again, it starts anew."""
        if engine := self.__dict__.pop("_engine", None):
            engine.close()

    def _longest(self) -> int:
        wanted = self._settings.context or self._settings.tokens + ROOM
        model = longest(self._files)
        return wanted if model is None else min(wanted, model)

    @cached_property
    def _tokens(self) -> PairTokens:
        file, known = self._files.path / "tokenizer.json", self._files.config.get("vocab_size")
        return PairTokens(file, self._longest(), self._settings.tokens, known)

    def _running(self) -> Engine:
        if self._engine.closed:  # another model was run meanwhile
            self.close()
        return self._engine

    @cached_property
    def _engine(self) -> Engine:
        return Engine(
            self._files.path,
            self._settings,
            self._dtype,
            runner="pooling",
            max_model_len=self._longest(),
            skip_tokenizer_init=False,  # vLLM asks it for the marks between texts
            enable_prefix_caching=False,  # there is nothing to keep where every token sees every other
        )
