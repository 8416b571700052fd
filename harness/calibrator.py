"""A fitted calibration: what `calibrate` learnt, as numbers that can be kept in a file and used elsewhere."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from harness.errors import InputError
from harness.kernels import STARTS

__all__ = ["Calibrator"]


@dataclass(frozen=True)
class Calibrator:
    """A fitted calibration: it labels the pool it was fitted on, or another collection's on the same scale.

    `columns` are the signals it wants, `center` and `scale` standardise them; `weights`, `cuts`,
    `amplitudes` are the model's; `temper` (a factor and cuts) is what leaving one out taught about its
    confidence; `thresholds` cut expected gains into hard grades for topics with judgments,
    `thresholds_bare` for those without. `shares_bare` are the shares of the judged pairs below these: they
    carry over to a collection without judgments, where the thresholds do not. `offset`, `shift_all` and
    `shift_topic` are what judged documents that one run alone found say of holes (`selection.Shift`); the
    labels of unjudged pairs are moved by the first and carry the others.
    """

    grades: tuple[int, ...]
    labelers: tuple[str, ...]
    columns: tuple[str, ...]
    kernels: tuple[str, ...]
    center: tuple[float, ...]
    scale: tuple[float, ...]
    weights: tuple[float, ...]
    cuts: tuple[float, ...]
    amplitudes: tuple[float, ...]
    temper: tuple[float, ...]
    thresholds: tuple[float, ...]
    thresholds_bare: tuple[float, ...]
    shares_bare: tuple[float, ...]
    offset: float
    shift_all: float
    shift_topic: float
    judgments: int
    judgments_hash: str
    seed: int

    @property
    def fingerprint(self) -> str:
        """A digest of the judgments, the signals' labelers, the seed and all that was fitted."""
        return sha256(self.to_json().encode()).hexdigest()

    def to_json(self) -> str:
        """The calibrator as one JSON object; it holds no text and no single judgment."""
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Calibrator:
        """The calibrator of what stood in JSON.

        Raises
        ------
        ValueError, TypeError, AttributeError: it is none.
        """
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
        made = cls(**values)
        if not made._fits():
            raise ValueError("its parts do not fit together")
        return made

    @classmethod
    def read(cls, path: str | Path) -> Calibrator:
        """Read what `to_json` wrote.

        Raises
        ------
        InputError: the file is missing or is no calibrator.
        """
        try:
            return cls.of(json.loads(Path(path).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, AttributeError) as exc:
            raise InputError(
                path, None, f"is no calibrator ({exc})", "Next: name a file that `fill` wrote"
            ) from exc

    def _fits(self) -> bool:
        """Whether the parts have the lengths that belong together, and hold finite numbers."""
        columns, cuts = len(self.columns), len(self.grades) - 1
        parts = [
            (self.center, columns), (self.scale, columns), (self.weights, columns), (self.cuts, cuts),
            (self.amplitudes, len(self.kernels)), (self.thresholds, cuts), (self.thresholds_bare, cuts),
            (self.shares_bare, cuts),
            (self.temper, cuts + 1 if self.temper else 0),
        ]  # fmt: skip
        shifts = (self.offset, self.shift_all, self.shift_topic)
        return (
            set(self.kernels) <= set(STARTS)
            and all(len(part) == n for part, n in parts)
            and min(shifts[1:]) >= 0
            and bool(np.isfinite([self.seed, *shifts, *(v for part, _ in parts for v in part)]).all())
        )
