"""What a student's raw answers are worth: from probabilities or a score to probabilities that hold.

A cumulative logit on what the student says of a pair, in log-odds where it gives probabilities, with a
normal term for what topics differ (`harness.ordinal`): P(grade >= g) = logistic(x.w + u + cuts[g-1]), and u
is averaged over, since a new topic's is not known. Nothing here looks at another pair, so that a calibrated
answer is as context-free as the raw one, and is kept in a ledger like it. `harness.calibrate` is another
thing: it looks at the topic's whole pool and at its judgments, and works on top of this.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import polars as pl

from harness.arrays import Bools, Floats, Ints
from harness.draws import generator
from harness.errors import CalibrationError
from harness.frames import LABELS, QRELS, SIGNALS, check
from harness.grading import hard_grades, plain, thresholds
from harness.ordinal import JITTER, Evidence, Priors, distribution, fit

__all__ = ["FOLDS", "Calibration", "as_labels", "calibrate", "crossfit", "folds", "in_folds"]

FOLDS = 5
_STREAM, _FOLD_STREAM = 621, 622  # of `draws.generator`: which pairs are fitted on, and topics to folds
_FIT_TOPIC, _FIT_ROWS = 96, 4000  # pairs of a topic, and about how many of all, that parameters are fitted on
_SURE = 1e-4  # a probability nearer to 0 or 1 says no more than this one
_KEYS = ["query_id", "doc_id"]


@dataclass(frozen=True)
class Calibration:
    """A fitted calibration, as plain numbers.

    Attributes
    ----------
    grades: of the scale, ascending. inputs: what it looks at: `score`, or `probs >= G` for each grade but the
        lowest, in log-odds.
    center, scale: of the inputs, which are clipped at 8 spreads. weights: of the standardised inputs.
    cuts: falling, one for each grade but the lowest. variance: of what topics differ by, in log-odds.
    thresholds: of the expected grade, at which a pair gets the next hard grade.
    judgments, topics: how many it was fitted on. judgments_hash: a digest of them.
    """

    grades: tuple[int, ...]
    inputs: tuple[str, ...]
    center: tuple[float, ...]
    scale: tuple[float, ...]
    weights: tuple[float, ...]
    cuts: tuple[float, ...]
    variance: float
    thresholds: tuple[float, ...]
    judgments: int
    topics: int
    judgments_hash: str

    def probs(self, signals: pl.DataFrame) -> Floats:
        """Probabilities of the grades (n, G), a row a signal; NaN where there is none.

        Raises
        ------
        CalibrationError: the signals lack what it looks at.
        """
        x = _inputs(signals, self.grades, self.inputs)
        heard = np.isfinite(x).all(axis=1)
        found = np.full((len(x), len(self.grades)), np.nan)
        z = np.clip((x[heard] - np.asarray(self.center)) / np.asarray(self.scale), -8, 8)
        mean = (z * np.asarray(self.weights)).sum(axis=1)  # not @: its last bit may hang on the batch
        found[heard] = distribution(mean, np.full(len(mean), self.variance), np.asarray(self.cuts))
        return found

    def labels(self, signals: pl.DataFrame) -> pl.DataFrame:
        """LABELS: the expected grade cut at the thresholds; null and the reason where there is no signal."""
        return as_labels(signals, self.probs(signals), self.thresholds, self.grades)

    def to_json(self) -> dict[str, Any]:
        """What `read` takes. It holds no text and no single judgment."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> Calibration:
        """The calibration that `to_json` wrote.

        Raises
        ------
        CalibrationError: something is missing, or its parts do not fit together.
        """
        try:
            values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
            made = cls(**values)
            if not made._fits():
                raise ValueError("its parts do not fit together")
        except (TypeError, ValueError, AttributeError) as error:
            raise CalibrationError(f"no calibration: {error}") from None
        return made

    def _fits(self) -> bool:
        columns, cuts = len(self.inputs), len(self.grades) - 1
        parts = [
            (self.center, columns), (self.scale, columns), (self.weights, columns),
            (self.cuts, cuts), (self.thresholds, cuts),
        ]  # fmt: skip
        numbers = [float(v) for part, _ in parts for v in part]
        return (
            list(self.grades) == sorted(set(self.grades))
            and self.inputs in (("score",), _of_probs(self.grades))
            and all(len(part) == n for part, n in parts)
            and bool(np.isfinite([*numbers, self.variance]).all())
            and self.variance >= 0
            and min(self.scale) > 0
            and all(a > b for a, b in pairwise(self.cuts))
            and list(self.thresholds) == sorted(self.thresholds)
        )


def calibrate(
    signals: pl.DataFrame, human: pl.DataFrame, grades: Sequence[int], *, seed: int = 0
) -> Calibration:
    """Fit on the judged pairs among the signals.

    Parameters
    ----------
    signals: SIGNALS. Where there are probabilities they are used, otherwise the score.
    human: QRELS; rows of assessor `human` with a grade of the scale count.
    seed: chooses the pairs of large topics that the parameters are fitted on; thresholds rest on all.

    Raises
    ------
    CalibrationError: no judged pair has a signal, or all judgments are of one grade.
    """
    import scipy.linalg  # noqa: F401
    from threadpoolctl import threadpool_limits

    scale = tuple(sorted(grades))
    judged = _judged(signals, human, scale)
    y = np.searchsorted(np.asarray(scale), judged["relevance"].to_numpy()).astype(np.int64)
    inputs = _of_probs(scale) if judged["probs"].is_not_null().any() else ("score",)
    x = _inputs(judged, scale, inputs)
    heard = np.isfinite(x).all(axis=1)
    x, y, judged = x[heard], y[heard], judged.filter(pl.Series(heard))
    if not len(y):
        raise CalibrationError("no judged pair has a signal, so nothing says what a signal is worth")
    if len(set(y.tolist())) == 1:
        raise CalibrationError(
            f"all {len(y)} judgments have grade {scale[y[0]]}; a calibration needs two grades.\n"
            "Next: add judgments of another grade"
        )
    center, spread = x.mean(axis=0), x.std(axis=0)
    spread = np.where(spread > 1e-6, spread, 1.0)
    z = np.clip((x - center) / spread, -8, 8)
    spans = _spans(judged)
    rng = generator(seed, _STREAM)
    most = max(8, min(_FIT_TOPIC, _FIT_ROWS // len(spans)))
    evidence = []
    for first, last in spans:
        rows = np.sort(first + rng.permutation(last - first)[:most])
        evidence.append(Evidence(z[rows], y[rows], [np.ones((len(rows), len(rows)))]))
    count = len(inputs)
    priors = Priors(np.full(count, 1.0 / count), np.full(count, 1.0), np.log([0.5]))
    with threadpool_limits(1):  # many small matrices: threads would only change the last digits
        best = fit(evidence, len(scale), priors)
    weights, cuts = plain(best.weights), plain(best.cuts)
    variance = plain(best.amplitudes)[0] + JITTER
    mean = (z * np.asarray(weights)).sum(axis=1)
    probs = distribution(mean, np.full(len(mean), variance), np.asarray(cuts))
    return Calibration(
        grades=scale,
        inputs=inputs,
        center=plain(center),
        scale=plain(spread),
        weights=weights,
        cuts=cuts,
        variance=variance,
        thresholds=thresholds(probs, y, scale),
        judgments=len(y),
        topics=len(spans),
        judgments_hash=_hash(judged),
    )


def crossfit(
    signals: pl.DataFrame, human: pl.DataFrame, grades: Sequence[int], *, seed: int = 0
) -> pl.DataFrame:
    """LABELS of which each rests on the judgments of other topics: `FOLDS` parts of the topics, each labeled
    by a calibration that was fitted on the others.

    Raises
    ------
    CalibrationError: as `calibrate`, or there are fewer than two topics.
    """
    return in_folds(signals, lambda seen: calibrate(seen, human, grades, seed=seed), seed)


class Fitted(Protocol):
    """A calibration of either kind."""

    def labels(self, signals: pl.DataFrame) -> pl.DataFrame:
        """LABELS, a row a signal."""


def in_folds(signals: pl.DataFrame, fit: Callable[[pl.DataFrame], Fitted], seed: int) -> pl.DataFrame:
    """LABELS of each fold's topics, by what `fit` made of the others' signals.

    Raises
    ------
    CalibrationError: there are fewer than two topics.
    """
    of = folds(signals["query_id"].unique().sort().to_list(), seed)
    if max(of.values(), default=0) < 1:
        raise CalibrationError("to label a topic by other topics' judgments takes two topics or more")
    fold = signals["query_id"].replace_strict(of, return_dtype=pl.Int64)
    parts = [
        fit(signals.filter(fold != number)).labels(signals.filter(fold == number))
        for number in sorted(set(of.values()))
    ]
    return signals.select(_KEYS).join(pl.concat(parts), on=_KEYS, how="left", maintain_order="left")


def folds(topics: Sequence[str], seed: int) -> dict[str, int]:
    """Topic -> fold, of at most `FOLDS`, as equal in number as can be; hangs on the ids and the seed."""
    order = generator(seed, _FOLD_STREAM).permutation(len(topics))
    names = sorted(topics)
    return {names[place]: number % FOLDS for number, place in enumerate(order)}


def as_labels(
    signals: pl.DataFrame, probs: Floats, cuts: Sequence[float], grades: tuple[int, ...]
) -> pl.DataFrame:
    """LABELS out of probabilities (n, G), rows of NaN where there is no label."""
    heard: Bools = np.asarray(np.isfinite(probs).all(axis=1))
    known = np.where(heard[:, None], probs, 1 / len(grades))
    hard: Ints = hard_grades(known, cuts, grades)
    gain = known @ np.asarray(grades, dtype=float)
    frame = signals.select(
        *_KEYS,
        pl.Series("relevance", hard, dtype=pl.Int16),
        pl.Series("probs", known.astype(np.float32).tolist(), dtype=LABELS["probs"]),
        pl.Series("gain", gain, dtype=pl.Float32),
        "labeler",
        "reason",
    )
    said = pl.Series(heard)
    return frame.with_columns(
        *(pl.when(said).then(pl.col(c)).otherwise(None).alias(c) for c in ("relevance", "probs", "gain")),
        pl.when(said).then(None).otherwise(pl.col("reason").fill_null("no signal")).alias("reason"),
    ).select(list(LABELS))


def _judged(signals: pl.DataFrame, human: pl.DataFrame, scale: tuple[int, ...]) -> pl.DataFrame:
    """The signals of judged pairs with the assessor's `relevance`, sorted."""
    check(signals, SIGNALS, "signals")
    check(human, QRELS, "qrels")
    mine = human.filter((pl.col("assessor") == "human") & pl.col("relevance").is_in(list(scale)))
    mine = mine.unique(_KEYS, keep="first", maintain_order=True).select(*_KEYS, "relevance")
    columns = [*_KEYS, "probs", "score"]
    return signals.select(columns).unique(_KEYS, keep="first").join(mine, on=_KEYS).sort(_KEYS)


def _of_probs(grades: Sequence[int]) -> tuple[str, ...]:
    return tuple(f"probs >= {grade}" for grade in sorted(grades)[1:])


def _inputs(signals: pl.DataFrame, grades: tuple[int, ...], names: tuple[str, ...]) -> Floats:
    """The raw inputs (n, f), NaN where a signal lacks them."""
    if names == ("score",):
        score = signals["score"].cast(pl.Float64).fill_null(np.nan).to_numpy()
        return np.asarray(score[:, None])
    given = signals["probs"]
    widths = given.list.len().drop_nulls().unique().to_list()
    if widths not in ([], [len(grades)]):
        raise CalibrationError(
            f"signals have {widths} probabilities a pair, but there are {len(grades)} grades"
        )
    probs = np.full((signals.height, len(grades)), np.nan)
    if widths:
        said = given.is_not_null().to_numpy()
        probs[said] = given.drop_nulls().explode().cast(pl.Float64).to_numpy().reshape(-1, len(grades))
    reached = np.clip(probs[:, ::-1].cumsum(axis=1)[:, ::-1][:, 1:], _SURE, 1 - _SURE)
    return np.asarray(np.log(reached / (1 - reached)))


def _spans(judged: pl.DataFrame) -> list[tuple[int, int]]:
    """First row and the one after the last of each topic; rows are sorted by topic."""
    lengths = judged["query_id"].rle().struct.field("len").to_list()
    ends = np.cumsum([0, *lengths]).tolist()
    return list(pairwise(ends))


def _hash(judged: pl.DataFrame) -> str:
    lines = judged.select(*_KEYS, "relevance").iter_rows()
    return sha256("\n".join(f"{q} {d} {g}" for q, d, g in lines).encode()).hexdigest()
