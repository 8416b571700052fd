"""What a student's raw answers are worth beside the rest of their topic's pool.

`harness.calibrate`, fitted on the judgments of other topics and asked without any of this topic's: how a pair
stands among the topic's others, and how like the document is to the pool's best, say more of it than its
score alone. Its answers hang on which pairs of a topic are asked about together, so that a labeler with this
calibration wants all pairs at once, and the ledger keeps the student's raw answers only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from harness.arrays import Floats
from harness.calibrate import calibrate as calibrate_pool
from harness.calibrator import Calibrator
from harness.errors import CalibrationError
from harness.frames import LABELS, QRELS, empty
from labelers.distill.calibration import Calibration, in_folds

__all__ = ["AnyCalibration", "PoolCalibration", "calibrate", "crossfit", "read_calibration"]

_KEYS = ["query_id", "doc_id"]
_NAME = "student@"  # a calibrator knows its labelers by name, and a folder's may be called otherwise later


@dataclass(frozen=True)
class PoolCalibration:
    """A fitted calibration that looks at the topic's pool.

    Attributes
    ----------
    fitted: the calibrator. topics: of the judgments that it was fitted on.
    """

    fitted: Calibrator
    topics: int

    @property
    def grades(self) -> tuple[int, ...]:
        """Of the scale, ascending."""
        return self.fitted.grades

    @property
    def judgments(self) -> int:
        """How many it was fitted on."""
        return self.fitted.judgments

    @property
    def judgments_hash(self) -> str:
        """A digest of them."""
        return self.fitted.judgments_hash

    @property
    def thresholds(self) -> tuple[float, ...]:
        """Of the expected grade, at which a pair gets the next hard grade, where the grades' shares say
        nothing else."""
        return self.fitted.thresholds_bare

    @property
    def inputs(self) -> tuple[str, ...]:
        """What it looks at, in words."""
        return self.fitted.columns

    def labels(self, signals: pl.DataFrame) -> pl.DataFrame:
        """LABELS, a row a signal; null and the reason where there is none.

        Raises
        ------
        CalibrationError: the signals lack what it looks at.
        """
        if not _heard(signals):
            return _nothing(signals)
        made = calibrate_pool(
            [_named(signals)], empty(QRELS), self.grades, calibrator=self.fitted
        ).labels.select(*_KEYS, "relevance", "probs", "gain", "reason")
        return (
            signals.select(*_KEYS, "labeler")
            .join(made, on=_KEYS, how="left", maintain_order="left")
            .select(list(LABELS))
        )

    def probs(self, signals: pl.DataFrame) -> Floats:
        """Probabilities of the grades (n, G), a row a signal; NaN where there is none. Raises as `labels`."""
        found = self.labels(signals)["probs"]
        probs = np.full((len(found), len(self.grades)), np.nan)
        if found.null_count() < len(found):
            probs[found.is_not_null().to_numpy()] = np.array(found.drop_nulls().to_list(), dtype=float)
        return probs

    def to_json(self) -> dict[str, Any]:
        """What `read_calibration` takes. It holds no text and no single judgment."""
        return {"topics": self.topics, "fitted": json.loads(self.fitted.to_json())}


AnyCalibration = Calibration | PoolCalibration
"""Of a pair alone, or of its topic's pool."""


def calibrate(
    signals: pl.DataFrame, human: pl.DataFrame, grades: Sequence[int], *, seed: int = 0
) -> PoolCalibration:
    """Fit on the judged pairs among the signals.

    Parameters
    ----------
    signals: SIGNALS. human: QRELS; rows of assessor `human` with a grade from 0 on count. seed: chooses the
        pairs that are fitted on where there are more than needed.

    Raises
    ------
    CalibrationError: no judged pair has a signal, or all judgments are of one grade.
    """
    if not _heard(signals):
        raise CalibrationError("no judged pair has a signal, so nothing says what a signal is worth")
    fitted = calibrate_pool([_named(signals)], human, grades, seed=seed).calibrator
    judged = signals.filter(pl.col("reason").is_null()).join(human.select(_KEYS), on=_KEYS, how="semi")
    return PoolCalibration(fitted, judged["query_id"].n_unique())


def crossfit(
    signals: pl.DataFrame, human: pl.DataFrame, grades: Sequence[int], *, seed: int = 0
) -> pl.DataFrame:
    """LABELS of which each rests on the judgments of other topics: as
    `labelers.distill.calibration.crossfit`, each fold's topics with their pools.

    Raises
    ------
    CalibrationError: as `calibrate`, or there are fewer than two topics.
    """
    return in_folds(signals, lambda seen: calibrate(seen, human, grades, seed=seed), seed)


def read_calibration(given: Mapping[str, Any]) -> AnyCalibration:
    """The calibration that either kind's `to_json` wrote.

    Raises
    ------
    CalibrationError: something is missing, or its parts do not fit together.
    """
    if "fitted" not in given:
        return Calibration.read(given)
    try:
        topics = int(given["topics"])
        return PoolCalibration(Calibrator.of(given["fitted"]), topics)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CalibrationError(f"no calibration: {error}") from None


def _named(signals: pl.DataFrame) -> pl.DataFrame:
    return signals.with_columns(pl.lit(_NAME).alias("labeler"))


def _heard(signals: pl.DataFrame) -> bool:
    return signals["reason"].null_count() > 0


def _nothing(signals: pl.DataFrame) -> pl.DataFrame:
    blank = (pl.lit(None, LABELS[c]).alias(c) for c in ("relevance", "probs", "gain"))
    return signals.select(*_KEYS, *blank, "labeler", "reason").select(list(LABELS))
