"""The acceptance test: a student is held against human judgments on topics that it has not seen.

It is accepted if it is no worse than its teacher, by a margin, and better than every baseline, each with what
chance there is in the topics taken into account: the differences are of the same pairs, and 95 % intervals
draw the topics anew. Otherwise it is refused, and why is said.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from harness.agree_pairs import Judged, Rater, both, judged, rater
from harness.agree_rated import Rated, binned, positions, rate
from harness.agree_tables import aucs, count_tables, cut, distances, interval, kappas, resampled
from harness.arrays import Floats
from harness.errors import UsageError
from harness.protocol import label_id
from labelers.distill.contenders import BASE_IN_POOL, BASELINES, STUDENT, TEACHER, gather
from labelers.distill.leaks import HeldOut, Pair, refuse
from labelers.distill.samples import Sample
from labelers.distill.sections import CRITERIA

if TYPE_CHECKING:
    from harness.labeling import Progress
    from harness.ledger import Ledger
    from harness.protocol import Labeler
    from labelers.distill.sections import Accept, Criterion

__all__ = ["accept", "gap"]

_FORMAT = 1
_MOST_MISSING = 0.01  # share of the test's pairs with texts that a student may leave without a label
_KEPT = (
    "pairs",
    "topics",
    "missing",
    "missing_reasons",
    "threshold",
    "values",
    "ci",
    "undefined",
    "confusion",
)


def accept(
    section: Accept,
    student: str | Labeler,
    train: Sample,
    test: Sample,
    grades: dict[int, str],
    *,
    teacher: str | Labeler | None = None,
    learnt: Iterable[Pair] = (),
    same_ids: bool = True,
    ledger: Ledger | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Test a student.

    Parameters
    ----------
    student: a labeler, not calibrated. train: judgments to calibrate by, of topics that training held out for
        this if there are any; the same topics' otherwise. test: judgments on other topics.
    teacher: where `section` names none.
    learnt: all pairs of training, so that no test topic is among them.
    same_ids: query ids of the training and of the test are of one collection.

    Returns
    -------
    `accepted`; `why`, sentences: what failed, or what was shown; `notes`; `criterion`, `margin`; `student`,
    its id; `calibration`; `contenders`: name -> `who`, `how`, and what of `harness.agree_rated.Rated` says
    how it agrees with the assessors; `gaps`: name -> how much better the student is; `absent`: name -> why;
    `train`, `test`: what the samples come to; `fit`, `resamples`, `seed`. JSON can hold it.

    Raises
    ------
    UsageError: a test topic was learnt from, or the test has judgments of one grade only. CalibrationError:
        nothing to calibrate by. StopgapError: the student or the base cannot be asked.
    """
    held = HeldOut.of(test.topics, test.as_pairs(), same_ids=same_ids)
    refuse(learnt, held, "the training")
    if section.fit == "train":
        refuse(train.as_pairs(), held, "the judgments to calibrate by")
    if test.human["relevance"].n_unique() < 2:
        only = test.human["relevance"][0]
        raise UsageError(
            f"all {test.human.height} judgments of the test have grade {only}, so there is nothing to tell "
            "apart.\nNext: judge more, or name other test topics"
        )
    lineup = gather(
        section, student, train, test, grades, teacher=teacher, ledger=ledger, seed=seed, progress=progress
    )
    of = judged(test.human, sorted(grades))
    raters = {name: rater(one.labels, of, name, sorted(grades)) for name, one in lineup.contenders.items()}
    how: dict[str, int] = {"seed": seed, "resamples": section.resamples}
    rated = {name: rate(of, one, **how) for name, one in raters.items()}
    gaps = {
        name: gap(of, raters[STUDENT], one, section.criterion, **how)
        for name, one in raters.items()
        if name != STUDENT
    }
    failed, shown = _verdict(
        section, gaps, rated[STUDENT], _unlabeled(test, lineup.contenders[STUDENT].labels)
    )
    notes = _notes(lineup.absent, rated, gaps.get(BASE_IN_POOL), section.criterion)
    return {
        "format": _FORMAT,
        "accepted": not failed,
        "why": failed or shown,
        "notes": notes,
        "criterion": section.criterion,
        "margin": section.margin,
        "student": label_id(lineup.labeler),
        "fingerprint": lineup.labeler.fingerprint,
        "fit": section.fit,
        "resamples": section.resamples,
        "seed": seed,
        "train": train.to_json(),
        "test": test.to_json(),
        "contenders": {
            name: {"who": one.who, "how": one.how, **_told(rated[name])}
            for name, one in lineup.contenders.items()
        },
        "gaps": gaps,
        "absent": lineup.absent,
        "calibration": lineup.calibration.to_json(),
    }


def gap(
    of: Judged, mine: Rater, theirs: Rater, criterion: Criterion, *, seed: int, resamples: int
) -> dict[str, Any]:
    """How much better one rater agrees with the assessors than another, on the pairs that both graded.

    A rater that uses a single grade agrees no better than chance: its kappa counts as 0 here.

    Returns
    -------
    `delta`, `ci` (95 %, over topics drawn anew; null with one topic), `pairs`, `topics`.
    """
    pairs = both(of, mine.grade, theirs.grade)
    if not len(pairs.rows):
        return {"delta": None, "ci": None, "pairs": 0, "topics": 0}
    human, size = positions(of)[pairs.rows], len(of.grades)
    by_topic = {}
    for name, one, grade in (("mine", mine, pairs.first), ("theirs", theirs, pairs.second)):
        second = binned(one.score[pairs.rows]) if criterion == "auc" else grade
        width = int(second.max()) + 1 if criterion == "auc" else size
        by_topic[name] = count_tables(pairs.topic, human, second, (len(pairs.topics), size, width))

    def value(tables: Floats) -> Floats:
        if criterion == "auc":
            return aucs(tables, of.middle)
        if criterion == "kappa_binary":
            tables = cut(tables, of.middle)
        weights = distances(np.arange(2) if criterion == "kappa_binary" else of.grades, _POWER[criterion])
        return np.nan_to_num(kappas(tables, weights), nan=0.0)

    whole = {name: value(table.sum(axis=0, keepdims=True)) for name, table in by_topic.items()}
    delta = float(whole["mine"][0] - whole["theirs"][0])
    ends = None
    if len(pairs.topics) > 1:
        drawn = {name: value(sums) for name, sums in resampled(by_topic, seed, resamples).items()}
        ends = interval(drawn["mine"] - drawn["theirs"])
    return {
        "delta": delta if math.isfinite(delta) else None,
        "ci": None if ends is None else list(ends),
        "pairs": len(pairs.rows),
        "topics": len(pairs.topics),
    }


_POWER = {"kappa": 0, "kappa_binary": 0, "kappa_quadratic": 2}


def _verdict(
    section: Accept, gaps: Mapping[str, Mapping[str, Any]], student: Rated, unlabeled: float
) -> tuple[list[str], list[str]]:
    """Sentences: what failed, and what was shown."""
    failed, shown = [], []
    what = CRITERIA[section.criterion]
    if unlabeled > _MOST_MISSING:
        failed.append(
            f"the student gave no label for {unlabeled:.1%} of the pairs that have texts; "
            f"{_MOST_MISSING:.0%} may be missing"
        )
    for name, found in gaps.items():
        if name == TEACHER:
            least, asked = -section.margin, f"non-inferior to its teacher by a margin of {section.margin:g}"
            worse = f"falls short of its teacher by more than the margin of {section.margin:g}"
        elif name in BASELINES:
            least, asked, worse = 0.0, f"better than {_THE[name]}", f"is worse than {_THE[name]}"
        else:
            continue
        if found["delta"] is None or found["ci"] is None:
            why = f"{found['topics']} topics in common say" if found["topics"] < 2 else "the topics drawn say"
            failed.append(f"that it is {asked} in {what} was not shown: {why} too little for an interval")
            continue
        low, high = found["ci"]
        said = (
            f"its {what} less that of {_THE[name]} is {found['delta']:+.3f}, 95 % interval {low:+.3f} to "
            f"{high:+.3f} "
            f"over {found['topics']} topics"
        )
        if low > least:
            shown.append(f"the student is {asked}: {said}")
        elif high < least:
            failed.append(f"the student {worse}: {said}")
        else:
            failed.append(
                f"that the student is {asked} was not shown: {said}; the interval has to lie above {least:g}"
            )
    return failed, shown


_THE = {
    TEACHER: "the teacher",
    **dict(zip(BASELINES, ("its untuned base", "BM25", "a constant grade"), strict=True)),
}


def _unlabeled(test: Sample, labels: pl.DataFrame) -> float:
    """The share of the pairs with a query and a text that have no label."""
    filled = [pl.col(c).fill_null("").str.strip_chars() != "" for c in ("query", "text")]
    asked = test.pairs.filter(*filled).select("query_id", "doc_id")
    lacking = asked.join(labels.filter(pl.col("relevance").is_null()), on=["query_id", "doc_id"], how="semi")
    return lacking.height / max(asked.height, 1)


def _notes(
    absent: Mapping[str, str],
    rated: Mapping[str, Rated],
    over_pools: Mapping[str, Any] | None,
    criterion: Criterion,
) -> list[str]:
    notes = []
    if over_pools and over_pools["ci"] and over_pools["ci"][0] <= 0:
        low, high = over_pools["ci"]
        notes.append(
            "training was not shown to add to what its topics' pools say of the untuned base: the student's "
            f"{CRITERIA[criterion]} less that is {over_pools['delta']:+.3f}, 95 % interval {low:+.3f} to "
            f"{high:+.3f}"
        )
    if TEACHER in absent:
        why = absent[TEACHER].splitlines()[0].rstrip(".")
        notes.append(f"whether the student is non-inferior to its teacher was not tested: {why}")
    notes += [
        f"{name}: {one.missing:,} of {one.pairs + one.missing:,} pairs have no label and count in nothing"
        for name, one in rated.items()
        if one.missing
    ]
    topics = rated[STUDENT].topics
    if topics < 10:
        notes.append(f"intervals over {topics} topics are narrower than they should be")
    return notes


def _told(one: Rated) -> dict[str, Any]:
    found = {key: getattr(one, key) for key in _KEPT}
    found["values"] = {k: v if math.isfinite(v) else None for k, v in one.values.items()}
    return found
