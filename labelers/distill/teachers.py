"""What a labeler teaches: a distribution over the collection's grades for each pair, or why there is none.

A labeler that gives a distribution is taken at its word. One that gives only a score (an encoder's cosine)
has to be calibrated first, on the human judgments of the training topics: an ordinal regression on the score
with an effect of the topic (`harness.ordinal`), which for a topic that nobody judged widens the distribution
by as much as topics differ.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from harness.arrays import Floats, Ints
from harness.errors import CalibrationError, LabelerError
from harness.frames import PAIRS
from harness.labeling import Progress, label_id, signals
from harness.ledger import Ledger
from harness.ordinal import Evidence, Parameters, Priors, distribution, fit
from harness.protocol import Labeler

__all__ = ["Answers", "ScoreScale", "ask", "judged", "one_grade_only"]

_MOST_OF_A_TOPIC, _MOST_TOPICS = 150, 200  # judgments that a score is calibrated on
ONLY = 0.999  # share of all probability from which on one grade has it all


@dataclass(frozen=True)
class Answers:
    """One labeler's answers.

    Attributes
    ----------
    name: the label's id. probs: (pairs, grades), NaN where there is none. reasons: why not, or None.
    calibrated: on how many judgments, where the labeler gives scores only; else None.
    """

    name: str
    probs: Floats
    reasons: list[str | None]
    calibrated: int | None


def ask(
    labeler: Labeler,
    pairs: pl.DataFrame,
    known: pl.DataFrame,
    grades: Sequence[int],
    *,
    ledger: Ledger,
    progress: Progress | None = None,
) -> Answers:
    """What a labeler says of pairs.

    Parameters
    ----------
    pairs: PAIRS to be taught. known: PAIRS with the column `grade`, the judged pairs of the training topics;
        asked about only where the labeler gives scores. grades: ascending.
    ledger: where answers are looked up and kept.

    Raises
    ------
    LabelerError: it answered none of the pairs. CalibrationError: it gives scores only, and there are no
        judgments, or of one grade only, to calibrate them on.
    """
    given = _signals(labeler, pairs, ledger, progress)
    name = label_id(labeler)
    if given.height and given["reason"].null_count() == 0:
        why = Counter(given["reason"].to_list()).most_common(3)
        said = "; ".join(f"{n} times: {reason}" for reason, n in why)
        raise LabelerError(
            f"teacher {name} answered none of {given.height} pairs ({said}).\n"
            "Nothing was written. Next: the same command again, once it can be reached"
        )
    probs = np.full((given.height, len(grades)), np.nan)
    told = given["probs"].is_not_null().to_numpy()
    if told.any():
        probs[told] = np.array(given["probs"].drop_nulls().to_list(), dtype=float)
    scored = ~told & given["score"].is_not_null().to_numpy()
    calibrated = None
    if scored.any():
        scale = ScoreScale.fitted(labeler, known, grades, ledger=ledger)
        probs[scored] = scale.probs(given["score"].to_numpy()[scored].astype(float))
        calibrated = scale.judgments
    return Answers(name, probs, given["reason"].to_list(), calibrated)


def _signals(
    labeler: Labeler, pairs: pl.DataFrame, ledger: Ledger, progress: Progress | None
) -> pl.DataFrame:
    """Signals in the order of the pairs; asked document by document, which an encoder reads once a batch."""
    order = pairs["doc_id"].arg_sort()
    found = signals(labeler, pairs[order], ledger=ledger, progress=progress)
    return found[order.arg_sort()]


@dataclass(frozen=True)
class ScoreScale:
    """From scores to distributions: standardised by `center` and `spread`, then an ordinal regression."""

    center: float
    spread: float
    parameters: Parameters
    judgments: int

    @classmethod
    def fitted(
        cls, labeler: Labeler, known: pl.DataFrame, grades: Sequence[int], *, ledger: Ledger
    ) -> ScoreScale:
        """The scale of a labeler's scores on judged pairs (PAIRS with `grade`).

        Raises
        ------
        CalibrationError: no judged pair has a score, or all have one grade.
        """
        name = label_id(labeler)
        if known.is_empty():
            raise CalibrationError(
                f"teacher {name} gives a score and no grades, and there are no judgments of training topics "
                "that say what a score is worth.\n"
                "Next: judge some documents (human.qrels), or take a teacher that gives grades"
            )
        given = _signals(labeler, known.select(list(PAIRS)), ledger, None)
        frame = known.select("query_id", "grade").with_columns(given["score"]).drop_nulls("score")
        y = np.searchsorted(np.asarray(grades), frame["grade"].to_numpy()).astype(np.int64)
        if len(set(y.tolist())) < 2:
            raise CalibrationError(
                f"teacher {name} gives a score and no grades, and the {len(y)} judged pairs of training "
                "topics that have one are of one grade only, so nothing says what a score is worth.\n"
                "Next: add judgments of another grade, or take a teacher that gives grades"
            )
        return cls.of(frame["score"].to_numpy().astype(float), y, frame["query_id"].to_list(), len(grades))

    @classmethod
    def of(cls, scores: Floats, y: Ints, topics: Sequence[str], size: int) -> ScoreScale:
        """The scale of scores (n,) of pairs with grade positions y (n,), of `size` grades."""
        from threadpoolctl import threadpool_limits

        center, spread = float(scores.mean()), float(scores.std()) or 1.0
        x = ((scores - center) / spread)[:, None]
        rows: dict[str, list[int]] = {}
        for row, topic in enumerate(topics):
            if len(rows) < _MOST_TOPICS or topic in rows:
                rows.setdefault(topic, []).append(row)
        evidence = []
        for of_topic in rows.values():
            # Evenly through what may be sorted by score or by grade.
            step = max(1, -(-len(of_topic) // _MOST_OF_A_TOPIC))
            chosen = of_topic[::step]
            evidence.append(Evidence(x[chosen], y[chosen], [np.ones((len(chosen), len(chosen)))]))
        priors = Priors(weights=np.array([1.0]), precision=np.array([0.5]), amplitudes=np.log([0.5]))
        with threadpool_limits(1):
            parameters = fit(evidence, size, priors)
        return cls(center, spread, parameters, sum(len(e.y) for e in evidence))

    def probs(self, scores: Floats) -> Floats:
        """Distributions (n, G) for scores (n,)."""
        p = self.parameters
        mean = (scores - self.center) / self.spread * p.weights[0]
        return distribution(mean, np.full(len(scores), p.amplitudes[0]), p.cuts)


def judged(grades_given: Sequence[int], scale: Sequence[int], smoothing: float) -> Floats:
    """Distributions (n, G) for judgments: all on the grade but `smoothing`, which the grades beside share."""
    place = np.searchsorted(np.asarray(scale), np.asarray(grades_given, dtype=np.int64))
    size, rows = len(scale), np.arange(len(place))
    probs = np.zeros((len(place), size))
    if size == 1 or not smoothing:
        probs[rows, place] = 1.0
        return probs
    for side in (-1, 1):
        there = (place + side >= 0) & (place + side < size)
        probs[rows[there], place[there] + side] = 1.0
    probs *= smoothing / probs.sum(axis=1, keepdims=True)
    probs[rows, place] = 1.0 - smoothing
    return probs


def one_grade_only(probs: Floats) -> int | None:
    """The place of the grade that has all the probability of all pairs (n, G), or None."""
    if not len(probs):
        return None
    mean: Any = probs.mean(axis=0)
    return int(mean.argmax()) if mean.max() > ONLY else None
