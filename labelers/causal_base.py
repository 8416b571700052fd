"""What labelers have in common that read a causal model's next token, whoever computes it.

A pair becomes a prompt in token ids (`labelers.causal_tokens`), the model tells how probable each grade's
token is to come next, and these, made to sum to 1, are the signal. So the same model gives the same grades,
whether transformers runs it or vLLM.

On the collection's own scale a signal is `probs`; a prompt with another scale gives a `score`, the expected
grade on that one (P(yes) for `no yes`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from hashlib import sha256
from typing import Any

import numpy as np
import polars as pl

from harness.errors import LabelerError, MissingExtra, first_line
from harness.frames import SIGNALS
from labelers.causal_files import find_adapter, find_model
from labelers.causal_settings import Prompted
from labelers.causal_tokens import ChatTokens
from labelers.prompting import Cutter, read_prompt, shown_with

__all__ = ["MEMORY", "NO_NUMBER", "NextToken", "quietly", "spread"]

NO_NUMBER = "the model gave no number"
MEMORY = "too long for the device's memory"


class NextToken:
    """A labeler that reads the next token's probabilities; `spreads` is what a kind of engine adds.

    Parameters
    ----------
    settings: which model is asked, and what. grades: the collection's grades and their words. protocol: goes
        up with every change to what the model sees or how its logits become signals. decides: what else of
        the settings decides a signal.

    Raises
    ------
    UsageError, UnknownName, InputError: what the settings name cannot be used. LabelerError: a model or an
        adapter is not there; the message says what to do.
    """

    needs_text = True

    def __init__(
        self, settings: Prompted, grades: dict[int, str], protocol: int, decides: Mapping[str, Any]
    ) -> None:
        self.grades = grades
        self._settings = settings
        self._prompt = read_prompt(
            settings.prompt, grades, "token", settings.guidelines or None, settings.shots
        )
        self.examples = self._prompt.shots
        self._model_files = find_model(settings.model, settings.revision)
        self._adapter_files = find_adapter(settings.adapter) if settings.adapter else None
        self._cutter = Cutter(1, settings.tokens, str(self._model_files.path))
        self._used = dict.fromkeys(("requests", "tokens_in", "tokens_cached", "tokens_out", "cut"), 0)
        self.name = self._model_files.name
        known = {
            "protocol": protocol,
            "model": self._model_files.digest(),
            "adapter": self._adapter_files.digest() if self._adapter_files else "",
            "prompt": self._prompt.digest,
            "grades": sorted(grades),
            "cut": self._cutter.digest,
            **decides,
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
        UsageError: a grade is not one token of this model. MissingExtra: what runs the model is not
            installed. LabelerError: the model cannot be loaded.
        """
        asked = self._tokens.ask(list(pairs.select("query", "text").iter_rows()), shown_with(pairs))
        self._used["cut"] += sum(one.cut for one in asked)
        rows = [row for row, one in enumerate(asked) if one.reason is None]
        spreads: list[list[float] | None] = [None] * len(asked)
        reasons = [one.reason for one in asked]
        for row, found in zip(rows, self._spreads([asked[row].ids for row in rows]), strict=True):
            if isinstance(found, str):
                reasons[row] = found
            else:
                spreads[row] = found
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

        `requests`: what the engine was given at a time; `tokens_in`: tokens of prompts, no padding, and
        `tokens_cached` those of them that were not read again; `tokens_out`: tokens written; `cut`: pairs
        whose document was shortened. Pairs and seconds are counted by `harness.accounting`.
        """
        return dict(self._used)

    def _spreads(self, prompts: list[list[int]]) -> Sequence[list[float] | str]:
        """The distribution over the prompt's answers after each prompt, or a reason why there is none."""
        raise NotImplementedError

    def _longest(self) -> int | None:
        """Tokens that the model can read; None: any number."""
        return getattr(self._config.get_text_config(), "max_position_embeddings", None)

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
            raise LabelerError(f"transformers cannot read {path / 'config.json'}: {first_line(exc)}") from exc

    @cached_property
    def _tokens(self) -> ChatTokens:
        longest = self._longest()
        with quietly():
            return ChatTokens(self._model_files.path, self.name, self._prompt, self._cutter, longest)


def spread(logits: Sequence[float] | np.ndarray[Any, np.dtype[np.float64]]) -> list[float] | str:
    """Logits (or log-probabilities) of the answers' tokens as a distribution over them, or NO_NUMBER."""
    row = np.asarray(logits, dtype=np.float64)
    if not np.isfinite(row).all():
        return NO_NUMBER
    mass = np.exp(row - row.max())
    return (mass / mass.sum()).tolist()  # type: ignore[no-any-return]


@contextmanager
def quietly() -> Iterator[None]:
    """Without the bars and notes that transformers writes on stderr."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
