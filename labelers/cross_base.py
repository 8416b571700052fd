"""What labelers have in common that read query and document together, whoever computes it.

A pair becomes token ids and parts (`labelers.cross_tokens`), the model gives a logit for each of its labels.
A model with one label gives a `score`, its logit as it is; one with a label for each of the collection's
grades gives `probs`, the softmax of its logits. So the same model gives the same grades through ONNX,
transformers and vLLM.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from hashlib import sha256
from typing import Any

import numpy as np
import polars as pl

from harness.frames import SIGNALS
from labelers.causal_base import MEMORY, NO_NUMBER, spread
from labelers.causal_files import ModelFiles
from labelers.cross_files import labels
from labelers.cross_tokens import PairTokens, Read

__all__ = ["Logits", "ReadsPairs"]

Logits = np.ndarray[tuple[int], np.dtype[np.float64]]
"""One for each label of the model."""


class ReadsPairs:
    """A labeler that reads the logits of pairs; `_tokens` and `_logits` are what a kind of engine adds.

    Parameters
    ----------
    model: its name as it was given. files: the model's. grades: the collection's grades and their words.
    decides: what else, besides the model's files and labels, decides a signal.

    Raises
    ------
    LabelerError: the model has other labels than the collection has grades.
    """

    needs_text = True

    def __init__(
        self, model: str, files: ModelFiles, grades: dict[int, str], decides: Mapping[str, Any]
    ) -> None:
        self.grades = grades
        self._asked_for, self._files, self._labels = model, files, labels(files, grades)
        self._used = dict.fromkeys(("requests", "tokens_in", "tokens_out", "cut"), 0)
        self.name = files.name
        known = {
            "model": files.digest(),
            "labels": self._labels,
            "grades": sorted(grades) if self._labels else [],
            **decides,
        }
        self.fingerprint = sha256(json.dumps(known).encode()).hexdigest()

    @property
    def card(self) -> dict[str, list[str]]:
        """What the model says it is and was made from (`harness.circularity`)."""
        files = self._files
        origin = [self._asked_for if files.commit else files.name, files.config.get("_name_or_path")]
        return {"base model": list(dict.fromkeys(str(name) for name in origin if name))}

    def signal(self, pairs: pl.DataFrame) -> pl.DataFrame:
        """What the model says of each pair (SIGNALS).

        Raises
        ------
        MissingExtra: what runs the model is not installed. LabelerError: the model cannot be loaded, or
            failed on the way.
        """
        read = self._tokens.read(list(pairs.select("query", "text").iter_rows()))
        rows = [row for row, one in enumerate(read) if one.reason is None]
        asked = [read[row] for row in rows]
        reasons = [one.reason for one in read]
        probs: list[list[float] | None] = [None] * len(read)
        scores: list[float | None] = [None] * len(read)
        for place, logits in self._logits(asked) if asked else ():
            row, found = rows[place], MEMORY if logits is None else self._told(logits)
            if isinstance(found, str):
                reasons[row] = found
            elif isinstance(found, list):
                probs[row] = found
            else:
                scores[row] = found
        self._used["cut"] += sum(one.cut for one in read)
        self._used["requests"] += len(asked)
        self._used["tokens_in"] += sum(len(one.ids) for one in asked)
        return pairs.select("query_id", "doc_id").with_columns(
            pl.Series("probs", probs, dtype=SIGNALS["probs"]),
            pl.Series("score", scores, dtype=SIGNALS["score"]),
            pl.lit(self.name).alias("labeler"),
            pl.Series("reason", reasons, dtype=SIGNALS["reason"]),
        )

    def usage(self) -> dict[str, int]:
        """What has been asked so far.

        `requests`: pairs that the model was given; `tokens_in`: their tokens, no padding; `tokens_out`: 0;
        `cut`: pairs whose document was shortened. Pairs and seconds are counted by `harness.accounting`.
        """
        return dict(self._used)

    @cached_property
    def _tokens(self) -> PairTokens:
        """What turns pairs (query, document) into token ids."""
        raise NotImplementedError

    def _logits(self, asked: Sequence[Read]) -> Iterable[tuple[int, Logits | None]]:
        """The place of each pair among those asked about, in any order, and its logits; None: it was too
        long for the memory."""
        raise NotImplementedError

    def _told(self, logits: Logits) -> list[float] | float | str:
        """Probabilities of the grades, or a score, or NO_NUMBER."""
        if self._labels is not None:
            return spread(logits[self._labels])
        return float(logits[0]) if np.isfinite(logits[0]) else NO_NUMBER
