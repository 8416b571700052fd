"""Labelers that are folders: `--labeler path/to/folder`, as `stopgap distill` exports them.

The folder's labeler.json (`labelers.labeler_file`) names the labeler inside and its calibration. What comes
out is the inner labeler's answer, calibrated: probabilities over the grades. A score, and the features and
vectors of an encoder, pass as they are, so that the calibrator's neighbours work as with the bare encoder.
What is kept in the ledger is the inner labeler's own answer. A calibration that looks at the topic's pool
wants all pairs at once: the same pair among others may get another answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from harness.errors import LabelerError
from harness.frames import SIGNALS
from harness.protocol import Ask
from harness.registry import registered
from labelers.composed import Composed
from labelers.distill.pool_calibration import PoolCalibration
from labelers.labeler_file import FOLDER, NAME, check_files, read_labeler

__all__ = ["FromFolder"]


class FromFolder(Composed):
    """The labeler inside a folder, and its calibration.

    Its files are hashed and held against labeler.json; no model is loaded.

    Raises
    ------
    LabelerError: there is no labeler.json, it or a file it names is missing or was changed, its grades are
        not the collection's, or the labeler inside cannot be made.
    """

    def __init__(self, argument: str | None, grades: dict[int, str]) -> None:
        folder = Path(argument or "").expanduser()
        if not (folder / NAME).is_file():
            raise LabelerError(f"{folder} holds no {NAME}, so it is no labeler that stopgap exported")
        self._told = told = read_labeler(folder)
        if set(told.grades) != set(grades):
            mine, theirs = (", ".join(map(str, sorted(g))) for g in (told.grades, grades))
            raise LabelerError(
                f"the labeler in {folder} has learnt the grades {mine}; the collection's are {theirs}.\n"
                "Next: a collection on the same scale, or a labeler that was distilled for this one"
            )
        if not registered(told.spec.partition(":")[0]):
            raise LabelerError(
                f"{folder / NAME} wraps {told.spec!r}, which is no registered labeler; "
                "a folder may name no other"
            )
        check_files(folder, told.files)
        super().__init__(told.name, [told.spec.replace(FOLDER, str(folder))], grades, told.deciding)
        self.whole = self.whole or isinstance(told.calibration, PoolCalibration)

    @property
    def card(self) -> Mapping[str, Any]:  # type: ignore[override]
        """What labeler.json says it was made of."""
        return self._told.card

    def compose(self, pairs: pl.DataFrame, ask: Ask) -> pl.DataFrame:
        """The inner labeler's signals with calibrated `probs`; a pair that it has a reason for keeps it."""
        (inner,) = self.parts.values()
        found = ask(inner, pairs)
        calibration = self._told.calibration
        if calibration is None:
            return self.frame(pairs, found)
        probs = calibration.probs(found)
        heard = np.asarray(np.isfinite(probs).all(axis=1))
        if mute := found.filter(pl.col("reason").is_null() & ~pl.Series(heard, dtype=pl.Boolean)).height:
            what = f"{mute} answers of {self._told.spec} lack what its calibration looks at"
            raise LabelerError(f"labeler {self.name}: {what} ({', '.join(calibration.inputs)})")
        known = np.where(heard[:, None], probs, 0.0).astype(np.float32)
        column = pl.Series("probs", known.tolist(), dtype=SIGNALS["probs"])
        return self.frame(pairs, found.with_columns(column))
