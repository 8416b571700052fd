"""Who takes part in an acceptance test, and what each says of the test's pairs, as labels.

The student, its teacher, the labeler it was trained from, BM25 and the commonest grade. What gives scores, or
probabilities that nobody calibrated, is calibrated on the train topics, or on the other test topics. The
teacher's probabilities stand as they are, since that is what it would be used for. A student's calibration
looks at its topics' pools, if `accept.calibration` says so; the others' look at a pair alone, but the base is
shown with its pools too, so that one sees what training added to them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from harness.errors import StopgapError, UsageError
from harness.frames import LABELS
from harness.labeling import Progress, load, signals
from harness.protocol import Labeler, label_id
from labelers.distill.baselines import bm25, constant
from labelers.distill.calibration import as_labels, calibrate, crossfit, folds
from labelers.distill.pool_calibration import AnyCalibration
from labelers.distill.pool_calibration import calibrate as calibrate_in_pool
from labelers.distill.pool_calibration import crossfit as crossfit_in_pool
from labelers.distill.samples import Sample
from labelers.distill.sections import NONE, Accept

if TYPE_CHECKING:
    from harness.ledger import Ledger

__all__ = ["BASELINES", "BASE_IN_POOL", "STUDENT", "TEACHER", "Contender", "Lineup", "gather"]

STUDENT, TEACHER, BASE, BM25, CONSTANT = "student", "teacher", "untuned base", "BM25", "constant"
BASE_IN_POOL = "untuned base, with pools"
BASELINES = (BASE, BM25, CONSTANT)
"""What a student has to be better than."""
_HUMAN = "human"
_KEYS = ["query_id", "doc_id"]


@dataclass(frozen=True)
class Contender:
    """One of them.

    Attributes
    ----------
    who: the label's id, or a word. how: how its answers became grades. labels: LABELS of the test's pairs.
    """

    who: str
    how: str
    labels: pl.DataFrame


@dataclass(frozen=True)
class Lineup:
    """All of them by name, and why others are absent.

    `calibration`: the student's, to be exported with it. `labeler`: the student.
    """

    contenders: dict[str, Contender]
    absent: dict[str, str]
    calibration: AnyCalibration
    labeler: Labeler


def gather(
    section: Accept,
    student: str | Labeler,
    train: Sample,
    test: Sample,
    grades: dict[int, str],
    *,
    teacher: str | Labeler | None = None,
    ledger: Ledger | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Lineup:
    """Ask everyone about the test's pairs, and about the train topics' where answers have to be calibrated.

    Parameters
    ----------
    student: not calibrated. teacher: if `section` names none.
    progress: is told of the pairs that the student and the teacher were asked about.

    Raises
    ------
    CalibrationError: the judgments to calibrate by are none, or of one grade. StopgapError: the student or
        the base cannot be asked. A teacher that cannot is absent, and why.
    """
    scale = tuple(sorted(grades))

    def ask(labeler: Labeler, sample: Sample) -> pl.DataFrame:
        return signals(labeler, sample.pairs, ledger=ledger, progress=progress)

    def fitted(
        of: Callable[[Sample], pl.DataFrame], who: str, *, pool: bool = False
    ) -> tuple[Contender, AnyCalibration]:
        on_test, fit = of(test), calibrate_in_pool if pool else calibrate
        reads = ", beside the rest of its topic's pool" if pool else ""
        if section.fit == "folds":
            by = f"calibrated by the other test topics, {len(set(_folds(test, seed)))} folds{reads}"
            by_fold = crossfit_in_pool if pool else crossfit
            labels = by_fold(on_test, test.human, scale, seed=seed)
            return Contender(who, by, labels), fit(on_test, test.human, scale, seed=seed)
        found = fit(of(train), train.human, scale, seed=seed)
        by = f"calibrated by {found.judgments:,} judgments on {found.topics} train topics{reads}"
        return Contender(who, by, found.labels(on_test)), found

    mine, base = _loaded(student, grades), _loaded(section.base, grades)
    contenders, absent = {}, {}
    pool = section.calibration == "pool"
    contenders[STUDENT], own = fitted(lambda sample: ask(mine, sample), label_id(mine), pool=pool)
    named = section.teacher or teacher
    try:
        asked = _asked(named, grades)
        said = ask(asked, test)
        if said["reason"].null_count() == 0:
            raise UsageError(f"it gave no answer: {said['reason'].value_counts(sort=True)['reason'][0]}")
        if said["probs"].is_not_null().any():
            how = "as it answers: its likeliest grade"
            contenders[TEACHER] = Contender(label_id(asked), how, _as_said(said, scale))
        else:
            contenders[TEACHER] = fitted(lambda sample: ask(asked, sample), label_id(asked))[0]
    except StopgapError as error:
        absent[TEACHER] = str(error)
    contenders[BASE] = fitted(lambda sample: ask(base, sample), label_id(base))[0]
    if pool:
        contenders[BASE_IN_POOL] = fitted(lambda sample: ask(base, sample), label_id(base), pool=True)[0]
    contenders[BM25] = fitted(lambda sample: bm25(sample.pairs), "bm25")[0]
    contenders[CONSTANT] = _constant(section, train, test, scale, seed)
    return Lineup(contenders, absent, own, mine)


def _loaded(given: str | Labeler, grades: dict[int, str]) -> Labeler:
    return load(given, grades) if isinstance(given, str) else given


def _asked(named: str | Labeler | None, grades: dict[int, str]) -> Labeler:
    """The teacher.

    Raises
    ------
    UsageError: there is none that could be asked.
    """
    if named is None or named == NONE:
        raise UsageError("no teacher was named")
    if named == _HUMAN:
        raise UsageError("the teacher is the human judgments, which this test is made of")
    return _loaded(named, grades)


def _folds(test: Sample, seed: int) -> list[int]:
    return list(folds(sorted(test.topics), seed).values())


def _as_said(said: pl.DataFrame, scale: tuple[int, ...]) -> pl.DataFrame:
    """LABELS of signals with probabilities: the likeliest grade, the lowest of several."""
    probs = np.full((said.height, len(scale)), np.nan)
    has = said["probs"].is_not_null().to_numpy()
    probs[has] = np.array(said["probs"].drop_nulls().to_list(), dtype=float)
    likeliest = np.asarray(scale)[np.nan_to_num(probs).argmax(axis=1)]
    labels = as_labels(said, probs, [g + 0.5 for g in scale[:-1]], scale)
    hard = pl.Series("relevance", likeliest, dtype=LABELS["relevance"])
    return labels.with_columns(pl.when(pl.col("relevance").is_not_null()).then(hard).alias("relevance"))


def _constant(section: Accept, train: Sample, test: Sample, scale: tuple[int, ...], seed: int) -> Contender:
    """The commonest grade, with the grades' frequencies for probabilities."""
    of = folds(sorted(test.topics), seed) if section.fit == "folds" else dict.fromkeys(test.topics, 0)
    fold = test.human["query_id"].replace_strict(of, return_dtype=pl.Int64)
    parts = []
    for number in sorted(set(of.values())):
        seen = test.human.filter(fold != number) if section.fit == "folds" else train.human
        share, commonest = constant(seen, scale)
        mine = test.human.filter(fold == number).select(*_KEYS)
        parts.append(
            mine.with_columns(
                pl.lit(commonest, LABELS["relevance"]).alias("relevance"),
                pl.lit(share.tolist(), LABELS["probs"]).alias("probs"),
                pl.lit(0.0, pl.Float32).alias("gain"),  # by which it ranks: folds must not differ in it
                pl.lit("constant").alias("labeler"),
                pl.lit(None, pl.String).alias("reason"),
            ).select(list(LABELS))
        )
    where = "the other test topics" if section.fit == "folds" else "the train topics"
    return Contender("constant", f"the commonest grade of {where}", pl.concat(parts))
