"""What labelers that are made of others have in common: their parts, name, card, and how they ask alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from harness.errors import UsageError
from harness.frames import SIGNALS
from harness.protocol import (
    CARD_KINDS,
    Ask,
    Labeler,
    at_once,
    checked_answers,
    label_id,
    shots,
    usage,
    values,
)
from harness.registry import card, load

__all__ = ["EMPTY", "Composed", "path_of", "reasons_of"]

EMPTY = pl.col("probs").is_null() & pl.col("score").is_null()
"""Of signals: whether there is none."""


def path_of(kind: str, argument: str | None) -> Path:
    """The file of settings behind `cascade:` or `ensemble:`.

    Raises
    ------
    UsageError: none is named.
    """
    if not argument:
        raise UsageError(f"no file of settings: {kind}:FILE.toml")
    return Path(argument)


class Composed:
    """A labeler made of others (`harness.protocol.Composite`).

    Where a part is an encoder, this is one too: vectors and features are those of the first such part.

    Parameters
    ----------
    kind: what it is. specs: how its parts are named on the command line. grades: the collection's grades and
        their words. settings: what else decides its signals.
    """

    def __init__(self, kind: str, specs: Sequence[str], grades: dict[int, str], settings: Any) -> None:
        self.grades = grades
        self.parts: dict[str, Labeler] = {spec: load(spec, grades) for spec in specs}
        made_of = list(self.parts.values())
        # Labels carry the name; from `a+b` others see whose they are (`harness.circularity`).
        self.name = "+".join([kind, *(part.name for part in made_of)])
        known = [kind, [part.fingerprint for part in made_of], settings, sorted(grades)]
        self.fingerprint = sha256(json.dumps(known).encode()).hexdigest()
        self.needs_text = any(part.needs_text for part in made_of)
        self.whole = any(getattr(part, "whole", False) for part in made_of)
        self.examples = max(shots(part) for part in made_of)
        if most := max(at_once(part, 0) for part in made_of):  # a part gets no more at once than this one
            self.at_once = most
        encoder: Any = next((part for part in made_of if hasattr(part, "embed")), None)
        if encoder is not None:
            self.embed = encoder.embed
            self.dimension, self.feature_names = encoder.dimension, encoder.feature_names

    @property
    def card(self) -> dict[str, list[str]]:
        """What the parts were made of. A kind of which nothing is known but silence is left out."""
        cards: list[Mapping[str, Any]] = [
            getattr(part, "card", None) or card(part.name) or {} for part in self.parts.values()
        ]
        merged = {}
        for kind in CARD_KINDS:
            said = [one.get(kind) for one in cards]
            names = [n for one in said if one for n in ([one] if isinstance(one, str) else one)]
            names = [n for n in dict.fromkeys(names) if str(n).casefold() != "none"]
            modelless = [str(one.get("base model", "")).casefold() == "none" for one in cards]
            if names:
                merged[kind] = names
            elif all(one is not None or nothing for one, nothing in zip(said, modelless, strict=True)):
                merged[kind] = ["none"]
        return merged

    def compose(self, pairs: pl.DataFrame, ask: Ask) -> pl.DataFrame:
        """SIGNALS for the pairs, made from what the parts say."""
        raise NotImplementedError

    def signal(self, pairs: pl.DataFrame) -> pl.DataFrame:
        """SIGNALS for the pairs, without a ledger."""
        return self.compose(pairs, _Alone())

    def frame(self, pairs: pl.DataFrame, told: pl.DataFrame) -> pl.DataFrame:
        """SIGNALS in this labeler's columns from `probs`, `score`, `reason` and the encoder's columns; a row
        with a reason has nothing else."""
        columns: list[str] = list(values(self))
        given = pl.col("reason").is_null()
        empty = [pl.when(given).then(pl.col(c)).alias(c) for c in columns if c != "reason"]
        return pairs.select("query_id", "doc_id").hstack(told.with_columns(empty).select(columns))


class _Alone:
    """Asks parts without a ledger (`harness.protocol.Ask`)."""

    def __call__(self, labeler: Labeler, pairs: pl.DataFrame) -> pl.DataFrame:
        answers = checked_answers(labeler, pairs, labeler.signal(pairs))
        ids = pairs.select("query_id", "doc_id")
        return ids.hstack(answers).with_columns(labeler=pl.lit(label_id(labeler)))

    def usage(self, labeler: Labeler) -> Mapping[str, Any]:
        return usage(labeler)

    def known(self, labeler: Labeler, pairs: pl.DataFrame) -> Any:
        return np.full(pairs.height, not labeler.needs_text)


def reasons_of(part: Labeler, reasons: pl.Series) -> pl.Series:
    """A part's reasons with its name before them."""
    told = reasons.to_frame("reason").select(pl.concat_str(pl.lit(f"{part.name}: "), "reason"))
    return told.to_series().cast(SIGNALS["reason"])
