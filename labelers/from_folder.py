"""Labelers that are folders: `--labeler path/to/folder`, as `stopgap distill` exports them.

The folder's labeler.json (`labelers.labeler_file`) names the labeler inside and its calibration. What comes
out is the inner labeler's answer, calibrated: probabilities over the grades. A score, and the features and
vectors of an encoder, pass as they are, so that the calibrator's neighbours work as with the bare encoder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import polars as pl

from harness.errors import LabelerError
from harness.frames import SIGNALS
from harness.protocol import Encoder, Labeler
from harness.registry import load, registered
from labelers.labeler_file import FOLDER, NAME, LabelerFile, check_files, read_labeler

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["FolderEncoder", "FolderLabeler", "FromFolder"]


def FromFolder(argument: str | None, grades: dict[int, str]) -> FolderLabeler:  # noqa: N802
    """The labeler that the folder `argument` is.

    Its files are hashed and held against labeler.json; no model is loaded.

    Raises
    ------
    LabelerError: there is no labeler.json, it or a file it names is missing or was changed, its grades are
        not the collection's, or the labeler inside cannot be made.
    """
    folder = Path(argument or "").expanduser()
    if not (folder / NAME).is_file():
        raise LabelerError(f"{folder} holds no {NAME}, so it is no labeler that stopgap exported")
    told = read_labeler(folder)
    if set(told.grades) != set(grades):
        mine, theirs = (", ".join(map(str, sorted(g))) for g in (told.grades, grades))
        raise LabelerError(
            f"the labeler in {folder} has learnt the grades {mine}; the collection's are {theirs}.\n"
            "Next: a collection on the same scale, or a labeler that was distilled for this one"
        )
    if not registered(told.spec.partition(":")[0]):
        raise LabelerError(
            f"{folder / NAME} wraps {told.spec!r}, which is no registered labeler; a folder may name no other"
        )
    check_files(folder, told.files)
    inner = load(told.spec.replace(FOLDER, str(folder)), grades)
    return (FolderEncoder if hasattr(inner, "embed") else FolderLabeler)(told, inner)


class FolderLabeler:
    """An inner labeler and its calibration.

    Attributes
    ----------
    told: what labeler.json says. inner: the labeler inside.
    """

    def __init__(self, told: LabelerFile, inner: Labeler) -> None:
        self.told, self.inner = told, inner
        self.name, self.grades, self.needs_text = told.name, inner.grades, inner.needs_text
        self.fingerprint = sha256(f"{inner.fingerprint}\n{told.deciding}".encode()).hexdigest()
        self.card: Mapping[str, Any] = told.card

    def signal(self, pairs: pl.DataFrame) -> pl.DataFrame:
        """The inner labeler's signals with calibrated `probs`; a pair that it has a reason for keeps it."""
        found = self.inner.signal(pairs)
        calibration = self.told.calibration
        if calibration is None or not isinstance(found, pl.DataFrame):
            return found
        probs = calibration.probs(found)
        heard = np.asarray(np.isfinite(probs).all(axis=1))
        if mute := found.filter(pl.col("reason").is_null() & ~pl.Series(heard, dtype=pl.Boolean)).height:
            what = f"{mute} answers of {self.told.spec} lack what its calibration looks at"
            raise LabelerError(f"labeler {self.name}: {what} ({', '.join(calibration.inputs)})")
        known = np.where(heard[:, None], probs, 0.0).astype(np.float32)
        column = pl.Series("probs", known.tolist(), dtype=SIGNALS["probs"])
        return found.with_columns(pl.when(pl.Series(heard, dtype=pl.Boolean)).then(column).alias("probs"))

    def usage(self) -> Mapping[str, Any]:
        """What the inner labeler's answers have cost."""
        offered = getattr(self.inner, "usage", None)
        return cast("Mapping[str, Any]", offered()) if callable(offered) else {}


class FolderEncoder(FolderLabeler):
    """An inner encoder and its calibration: vectors and features are the inner one's."""

    def __init__(self, told: LabelerFile, inner: Labeler) -> None:
        super().__init__(told, inner)
        self._encoder = cast("Encoder", inner)
        self.dimension = self._encoder.dimension
        self.feature_names: Sequence[str] = self._encoder.feature_names

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of unit length, one row a text: (n, dimension)."""
        return self._encoder.embed(texts)
