"""A blend of several labelers: `ensemble:FILE.toml`.

    [[parts]]
    labeler = "hf:./one"
    weight = 2              # by default 1
    [[parts]]
    labeler = "openai:MODEL@URL"

Distributions over the collection's grades are on one scale: their weighted mean is the signal. Scores are
not, and to standardise them by what other pairs got would make a signal depend on these. So either all parts
give distributions, or all have a `scale = [lowest, highest]`, by which their scores become 0 to 1 (values
beyond are let be) before the weighted mean is taken. Others are better stacked (`--labeler` twice):
calibration then finds out what each is worth.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import polars as pl

from harness.arrays import Bools, Floats
from harness.errors import UsageError
from harness.frames import SIGNALS
from harness.protocol import Ask
from harness.strict_toml import Field, Misfit, Table, Text, read
from labelers.composed import Composed, path_of, reasons_of

__all__ = ["Ensemble", "Part", "read_parts"]

_EXAMPLE = """\
Next: write one, such as
  [[parts]]
  labeler = "hf:./one"
  [[parts]]
  labeler = "openai:MODEL@URL"
  weight = 2"""


class _Part(Table):
    labeler: Text
    weight: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    scale: Annotated[list[float], Field(min_length=2, max_length=2)] | None = None


class _File(Table):
    parts: Annotated[list[_Part], Field(min_length=2)]


@dataclass(frozen=True)
class Part:
    """A labeler, its weight, and the scores of it that count as 0 and as 1 (None: it gives distributions)."""

    labeler: str
    weight: float
    scale: tuple[float, float] | None


def read_parts(path: str | Path) -> list[Part]:
    """Read an ensemble's file.

    Raises
    ------
    InputError: it cannot be read; a key is unknown, missing or out of range, or does not fit the others.
    """
    return read(path, _File, _parts, _EXAMPLE)


def _parts(_: Path, given: _File) -> list[Part]:
    for number, part in enumerate(given.parts):
        if part.labeler in [other.labeler for other in given.parts[:number]]:
            raise Misfit("parts", f"parts has {part.labeler!r} twice; weight = 2 gives it twice the weight")
        if (part.scale is None) != (given.parts[0].scale is None):
            what = "some parts have a scale and some have none: either all give distributions, or all scores"
            raise Misfit("parts", what)
        if part.scale is not None and not -np.inf < part.scale[0] < part.scale[1] < np.inf:
            what = f"scale of {part.labeler!r} is {part.scale}, not a lower and a higher score"
            raise Misfit("parts", what)
    return [
        Part(part.labeler, part.weight, None if part.scale is None else (part.scale[0], part.scale[1]))
        for part in given.parts
    ]


class Ensemble(Composed):
    """The weighted mean of what several labelers say.

    A pair that one of them cannot answer stays a hole, with that one's reason: without it, the mean would be
    another one.

    Raises
    ------
    InputError: the file cannot be used. What loading a labeler raises, for each part.
    """

    def __init__(self, argument: str | None, grades: dict[int, str]) -> None:
        self._path = path_of("ensemble", argument)
        self._parts = read_parts(self._path)
        decides = [[part.weight, part.scale and list(part.scale)] for part in self._parts]
        super().__init__("ensemble", [part.labeler for part in self._parts], grades, decides)

    def compose(self, pairs: pl.DataFrame, ask: Ask) -> pl.DataFrame:
        """SIGNALS for the pairs.

        Raises
        ------
        UsageError: a part gives no distribution, or, with scales, no score.
        """
        told = [ask(part, pairs) for part in self.parts.values()]
        column = "probs" if self._parts[0].scale is None else "score"
        for part, said in zip(self._parts, told, strict=True):
            if said.filter(pl.col("reason").is_null())[column].null_count():
                raise UsageError(self._misfit(part, column))
        reasons = [reasons_of(p, s["reason"]) for p, s in zip(self.parts.values(), told, strict=True)]
        reason = pl.select(pl.coalesce(*reasons)).to_series().alias("reason")
        given = reason.is_null().to_numpy()
        weights = np.array([part.weight for part in self._parts])
        values = np.stack([self._values(p, s, given) for p, s in zip(self._parts, told, strict=True)])
        mean = np.tensordot(weights / weights.sum(), values, axes=1)
        row = iter(mean.tolist())
        blend = pl.Series(column, [next(row) if heard else None for heard in given], dtype=SIGNALS[column])
        # The columns of an encoder are those of the first part that is one.
        base = next((s for s in told if "vector" in s.columns), told[0])
        empty = [pl.lit(None, SIGNALS[c]).alias(c) for c in ("probs", "score")]
        return self.frame(pairs, base.with_columns(empty).with_columns(blend, reason))

    def _values(self, part: Part, said: pl.DataFrame, given: Bools) -> Floats:
        """What a part says of the pairs that all answer: (n, grades) or (n,)."""
        if part.scale is None:
            probs = said["probs"].filter(pl.Series(given)).to_list()
            return np.array(probs, dtype=float).reshape(-1, len(self.grades))
        low, high = part.scale
        score = said["score"].filter(pl.Series(given)).cast(pl.Float64).to_numpy()
        return np.asarray((score - low) / (high - low))

    def _misfit(self, part: Part, column: str) -> str:
        gives = "no distribution over the grades" if column == "probs" else "no score, which its scale is for"
        stacked = " ".join(f"--labeler {one.labeler}" for one in self._parts)
        hint = "give every part a scale, or stack them" if column == "probs" else "stack them"
        return f"{self._path}: {part.labeler} gives {gives}.\nNext: {hint}: {stacked}"
