"""Signals and what assessors said on the topic -> labels: a distribution over grades for every pair.

A label rests on two things: what a labeler saw in the pair, and how assessors graded the topic's other
documents, the more the more they resemble this one (`ordinal` has the model). It is fitted in seconds on
the judged pairs and works with any number of judgments: with none on a topic it is the other topics'
calibration, with few it moves a little from there. Hard grades are cut from the expected gain where kappa
and quadratic kappa against the assessors, each judged pair predicted without its own judgment, add up to
the most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

import numpy as np
import polars as pl

from harness.arrays import Bools, Floats, Ints
from harness.calibrator import Calibrator
from harness.errors import CalibrationError
from harness.evidence import Pool, read_pool
from harness.frames import LABELS
from harness.grading import carried, hard_grades, plain, quality, shares, tempered, thresholds
from harness.judgments import SHIFTS
from harness.kernels import STARTS, STARTS_WITHOUT_VECTORS, Space
from harness.ordinal import (
    JITTER,
    Evidence,
    Priors,
    distribution,
    fit,
    leave_one_out,
    mode,
    posterior,
)
from harness.selection import NOTHING, Shift, estimate, moved

__all__ = ["Calibrated", "calibrate", "fitted", "standardised"]

NEAR_DUPLICATE = 0.97
"""Cosine from which a judged document counts as a near-duplicate of a hole."""
_FIT_ROWS, _FIT_TOPIC, _FIT_TOPICS, _MOST_JUDGED = 2400, 64, 150, 1000


@dataclass(frozen=True)
class Calibrated:
    """LABELS for every pair that has a signal or a reason, the calibrator, and a report of how well it does.

    `labels` has four columns more than LABELS: `nearest`, the judged document of the topic most like this
    one, and `similarity`, their cosine (null without vectors or judgments); `shift_all` and `shift_topic`,
    how far errors of labels go together (`harness.draws`).
    """

    labels: pl.DataFrame
    calibrator: Calibrator
    report: dict[str, Any]


def calibrate(
    signals: Sequence[pl.DataFrame],
    human: pl.DataFrame,
    grades: Sequence[int],
    *,
    neighbours: bool = True,
    calibrator: Calibrator | None = None,
    found_once: pl.DataFrame | None = None,
    seed: int = 0,
) -> Calibrated:
    """Label every pair of the signals.

    Parameters
    ----------
    signals: one SIGNALS frame a labeler, over the judged pairs and the holes; encoders' `features` and
        `vector` are used.
    human: QRELS; only rows of assessor `human` with a grade from 0 on count.
    grades: the collection's grades.
    neighbours: let a topic's own judgments speak about its other documents. A judged pair's own label never
        rests on its own judgment.
    calibrator: one fitted elsewhere (another collection on the same scale, the same labelers), instead of
        fitting here.
    found_once: query_id, doc_id, run: pairs that one run alone has in its top. The judged ones among them
        show how labels of holes err (`harness.selection`); without them, and without a calibrator from
        elsewhere, labels are not moved.
    seed: chooses the pairs that the parameters are fitted on where there are more than needed.

    Raises
    ------
    CalibrationError: no judged pair has a signal, or all judgments are of one grade, and no calibrator was
        given.
    """
    import scipy.linalg  # noqa: F401
    from threadpoolctl import threadpool_limits

    # Many small matrices: threads cost more than they bring, and would change the last digits. The limit
    # holds for the libraries that are loaded when it is set, hence the import above.
    with threadpool_limits(1):
        return _calibrate(
            read_pool(signals, human, grades), signals, neighbours, calibrator, found_once, seed
        )


def _calibrate(
    pool: Pool,
    signals: Sequence[pl.DataFrame],
    neighbours: bool,
    calibrator: Calibrator | None,
    found_once: pl.DataFrame | None,
    seed: int,
) -> Calibrated:
    model = fitted(pool, neighbours, seed) if calibrator is None else _suited(calibrator, pool)
    judged = (pool.grade >= 0) & pool.heard
    bare, informed = _predict(model, pool, neighbours=False), _predict(model, pool, neighbours=neighbours)
    if calibrator is None:
        y = pool.grade[judged]
        if neighbours:
            model = replace(
                model,
                temper=tempered(informed.mean[judged], informed.variance[judged], y, np.asarray(model.cuts)),
            )
            informed = replace(informed, probs=_probs(model, informed, tempered=True))
        model = replace(
            model,
            thresholds=thresholds(informed.probs[judged], y, pool.grades),
            thresholds_bare=thresholds(bare.probs[judged], y, pool.grades),
        )
        below = shares(bare.probs[judged], model.thresholds_bare, pool.grades)
        model, cuts_bare = replace(model, shares_bare=below), model.thresholds_bare
    else:
        cuts_bare = model.thresholds_bare
        if not judged.any():  # nothing here says where the grades lie
            cuts_bare = carried(bare.probs[pool.heard], model.shares_bare, cuts_bare, pool.grades)
        informed = replace(informed, probs=_probs(model, informed, tempered=True))
    probs = np.where(informed.told[:, None], informed.probs, bare.probs)
    if calibrator is None:
        shift = _selection(pool, judged, probs, found_once)
        model = replace(model, offset=shift.offset, shift_all=shift.all, shift_topic=shift.topic)
    unjudged = pool.grade < 0
    probs[unjudged] = moved(probs[unjudged], model.offset)
    hard = np.where(
        informed.told,
        hard_grades(probs, model.thresholds, pool.grades),
        hard_grades(probs, cuts_bare, pool.grades),
    )
    labels = _labels(pool, model, probs, hard, informed, signals)
    bare_hard = hard_grades(bare.probs[judged], cuts_bare, pool.grades)
    report = _report(
        pool, model, judged, (probs[judged], hard[judged]), (bare.probs[judged], bare_hard), informed, labels
    )
    return Calibrated(labels, model, report)


def _selection(pool: Pool, judged: Bools, probs: Floats, found_once: pl.DataFrame | None) -> Shift:
    """How far left-out labels of judged documents that one run alone found are from their judgments."""
    if found_once is None:
        return NOTHING
    run = pool.pairs.join(found_once, on=["query_id", "doc_id"], how="left", maintain_order="left")["run"]
    rows = np.flatnonzero(judged & run.is_not_null().to_numpy())
    groups = [s.gather(rows).rank("dense").to_numpy().astype(np.int64) for s in (run, pool.pairs["query_id"])]
    return estimate(probs[rows], pool.grade[rows], *groups)


@dataclass(frozen=True)
class _Prediction:
    """Per row of the pool: latent mean and variance, probabilities, whether judgments of the topic spoke,
    the nearest judged."""

    mean: Floats
    variance: Floats
    probs: Floats
    told: Bools
    nearest: Ints
    similarity: Floats


def fitted(pool: Pool, neighbours: bool, seed: int) -> Calibrator:
    """Parameters at their best on the judged pairs; thresholds and temper still to come.

    Raises
    ------
    CalibrationError: no judged pair has a signal, or all judgments are of one grade.
    """
    y = pool.judgments()
    if not len(y):
        raise CalibrationError(
            "none of the judged pairs has a signal, so nothing says what a signal is worth here.\n"
            "Next: judge a few documents of some topics, or pass a calibrator fitted on another collection"
        )
    if len(set(y.tolist())) == 1:
        raise CalibrationError(
            f"all {len(y)} judgments have grade {pool.grades[y[0]]}; a calibrator needs two grades.\n"
            "Next: add judgments of another grade (where unjudged documents count as not relevant, write "
            "some of them down as 0), or pass a calibrator fitted on another collection"
        )
    rows = np.flatnonzero((pool.grade >= 0) & pool.heard)
    known = np.isfinite(pool.x[rows])
    counts = np.maximum(known.sum(axis=0), 1)
    center = np.where(known, pool.x[rows], 0).sum(axis=0) / counts
    scale = np.sqrt(np.where(known, (pool.x[rows] - center) ** 2, 0).sum(axis=0) / counts)
    scale = np.where(scale > 1e-6, scale, 1.0)
    starts = STARTS if neighbours and pool.vectors is not None else STARTS_WITHOUT_VECTORS
    blank = Calibrator(
        grades=pool.grades,
        labelers=pool.labelers,
        columns=tuple(c.name for c in pool.columns),
        kernels=tuple(starts),
        center=plain(center),
        scale=plain(scale),
        weights=(),
        cuts=(),
        amplitudes=(),
        temper=(),
        thresholds=(),
        thresholds_bare=(),
        shares_bare=(),
        offset=NOTHING.offset,
        shift_all=NOTHING.all,
        shift_topic=NOTHING.topic,
        judgments=len(y),
        judgments_hash=_hash(pool, rows),
        seed=seed,
    )
    x = standardised(blank, pool)
    rng = np.random.default_rng(seed)
    topics = [t for t in pool.topics if len(t.judged)]
    if len(topics) > _FIT_TOPICS:
        topics = [topics[i] for i in np.sort(rng.permutation(len(topics))[:_FIT_TOPICS])]
    most = min(_FIT_TOPIC, max(16, _FIT_ROWS // len(topics)))
    evidence = []
    for topic in topics:
        chosen = np.sort(rng.permutation(topic.judged)[:most])
        space = Space(pool, topic)
        evidence.append(
            Evidence(x[chosen], pool.grade[chosen], [space.kernel(k, chosen, chosen) for k in starts])
        )
    priors = Priors(
        weights=np.array([c.weight for c in pool.columns]),
        precision=np.array([c.precision for c in pool.columns]),
        amplitudes=np.log(list(starts.values())),
    )
    best = fit(evidence, len(pool.grades), priors)
    return replace(
        blank, weights=plain(best.weights), cuts=plain(best.cuts), amplitudes=plain(best.amplitudes)
    )


def _suited(calibrator: Calibrator, pool: Pool) -> Calibrator:
    """The calibrator, if it fits this pool's grades and signals."""
    if pool.vectors is None and not set(calibrator.kernels) <= set(STARTS_WITHOUT_VECTORS):
        raise CalibrationError(
            "the calibrator was fitted with vectors of documents; the signals here have none.\n"
            "Next: leave it out, or use the same labelers"
        )
    columns = tuple(c.name for c in pool.columns)
    if calibrator.grades != pool.grades or calibrator.columns != columns:
        raise CalibrationError(
            f"the calibrator was fitted on grades {calibrator.grades} and signals of "
            f"{', '.join(calibrator.labelers)}; "
            f"here are grades {pool.grades} and signals of {', '.join(pool.labelers)}.\n"
            "Next: leave it out, or use the same labelers and scale"
        )
    return calibrator


def standardised(model: Calibrator, pool: Pool) -> Floats:
    """Signals less their mean over their spread; a signal that is missing takes the mean."""
    x = (pool.x - np.asarray(model.center)) / np.asarray(model.scale)
    return np.asarray(np.clip(np.nan_to_num(x, nan=0.0), -8, 8))


def _predict(model: Calibrator, pool: Pool, *, neighbours: bool) -> _Prediction:
    """Latent means and variances of all rows; a judged row is predicted without its own judgment."""
    x = standardised(model, pool)
    cuts, amplitudes = np.asarray(model.cuts), dict(zip(model.kernels, model.amplitudes, strict=True))
    mean: Floats = x @ np.asarray(model.weights)
    prior = mean.copy()
    variance = np.ones(len(mean))
    told = np.zeros(len(mean), dtype=bool)
    nearest, similarity = np.full(len(mean), -1), np.full(len(mean), np.nan)
    for topic in pool.topics:
        space = Space(pool, topic)
        variance[topic.rows] = space.own(amplitudes, topic.rows)
        judged = topic.judged
        if not neighbours or not len(judged) or not len(topic.rows):
            continue
        if len(judged) > _MOST_JUDGED:
            judged = np.sort(np.random.default_rng(model.seed).permutation(judged)[:_MOST_JUDGED])
        kernel = space.sum(amplitudes, judged, judged) + JITTER * np.eye(len(judged))
        seen = prior[judged], pool.grade[judged], cuts
        at = mode(kernel, *seen)
        if len(judged) > 1:
            mean[judged], variance[judged] = leave_one_out(kernel, *seen, at)
            told[judged] = True
        others = np.setdiff1d(topic.rows, judged)
        if len(others):
            cross = space.sum(amplitudes, others, judged)
            mean[others], variance[others] = posterior(
                kernel, *seen, cross, prior[others], variance[others], at
            )
            told[others] = True
        if pool.vectors is not None:
            alike, embedded = space.cosine(topic.rows, judged), np.any(pool.vectors != 0, axis=1)
            alike[(topic.rows[:, None] == judged[None, :]) | ~embedded[judged]] = -np.inf
            best, found = alike.argmax(axis=1), embedded[topic.rows] & np.isfinite(alike.max(axis=1))
            nearest[topic.rows[found]] = judged[best[found]]
            similarity[topic.rows[found]] = alike.max(axis=1)[found]
    prediction = _Prediction(mean, variance, np.empty(0), told, nearest, similarity)
    return replace(prediction, probs=_probs(model, prediction, tempered=False))


def _probs(model: Calibrator, prediction: _Prediction, *, tempered: bool) -> Floats:
    if not tempered or not model.temper:
        return distribution(prediction.mean, prediction.variance, np.asarray(model.cuts))
    factor, cuts = model.temper[0], np.asarray(model.temper[1:])
    return distribution(factor * prediction.mean, factor**2 * prediction.variance, cuts)


def _labels(
    pool: Pool,
    model: Calibrator,
    probs: Floats,
    hard: Ints,
    informed: _Prediction,
    signals: Sequence[pl.DataFrame],
) -> pl.DataFrame:
    """LABELS, with the nearest judged document; rows without any signal carry the first reason given."""
    rounded = np.round(probs, 4)
    rounded[np.arange(len(rounded)), rounded.argmax(axis=1)] += 1 - rounded.sum(axis=1)
    gain = rounded @ np.asarray(pool.grades, dtype=float)
    keys = ["query_id", "doc_id"]
    reasons = (
        pl.concat([s.select([*keys, "reason"]) for s in signals])
        .drop_nulls("reason")
        .unique(keys, keep="first", maintain_order=True)
    )
    documents = pool.pairs["doc_id"]
    near = pl.Series(
        "nearest", [documents[int(i)] if i >= 0 else None for i in informed.nearest], dtype=pl.String
    )
    name = "+".join(model.labelers) + "/" + model.fingerprint[:8]
    heard = pl.Series(pool.heard)
    frame = pool.pairs.with_columns(
        pl.Series("relevance", hard, dtype=pl.Int16),
        pl.Series("probs", rounded.astype(np.float32).tolist(), dtype=LABELS["probs"]),
        pl.Series("gain", gain.astype(np.float32)),
        pl.lit(name).alias("labeler"),
        near,
        pl.Series("similarity", informed.similarity.astype(np.float32)).fill_nan(None),
        pl.lit(model.shift_all, pl.Float32).alias("shift_all"),
        pl.lit(model.shift_topic, pl.Float32).alias("shift_topic"),
    )
    empty = [c for c in frame.columns if c not in (*keys, "labeler")]
    frame = frame.with_columns(pl.when(heard).then(pl.col(c)).otherwise(None).alias(c) for c in empty)
    frame = frame.join(reasons, on=keys, how="left", maintain_order="left")
    frame = frame.with_columns(
        reason=pl.when(heard).then(None).otherwise(pl.col("reason").fill_null("no signal"))
    )
    return frame.select([*LABELS, "nearest", "similarity", *SHIFTS])


def _report(
    pool: Pool,
    model: Calibrator,
    judged: Bools,
    given: tuple[Floats, Ints],
    bare: tuple[Floats, Ints],
    informed: _Prediction,
    labels: pl.DataFrame,
) -> dict[str, Any]:
    """How well each judged pair is labeled without its own judgment (`given`: its probabilities and grade;
    `bare`: without any of its topic), and what the labels rest on."""
    per_topic = np.array([len(t.judged) for t in pool.topics]) if pool.topics else np.zeros(1)
    near = labels.filter(pl.Series(~judged) & (pl.col("similarity") >= NEAR_DUPLICATE)).height
    report: dict[str, Any] = {
        "judgments": int(judged.sum()),
        "judged_per_topic": {
            "least": int(per_topic.min()),
            "median": float(np.median(per_topic)),
            "most": int(per_topic.max()),
        },
        "near_duplicates": near,
        "duplicates_graded_alike": _alike(pool, informed, judged),
        "fingerprint": model.fingerprint,
        "offset": model.offset,
        "shift_all": model.shift_all,
        "shift_topic": model.shift_topic,
    }
    if judged.sum() >= 2 and len(set(pool.grade[judged].tolist())) > 1:
        y = pool.grade[judged]
        report["left_out"] = quality(*given, y, pool.grades)
        report["left_out_bare"] = quality(*bare, y, pool.grades)
    return report


def _alike(pool: Pool, informed: _Prediction, judged: Bools) -> float | None:
    """Share of judged documents with a judged near-duplicate on the topic that have its grade; null without
    any."""
    rows = np.flatnonzero(judged & (np.nan_to_num(informed.similarity, nan=-1) >= NEAR_DUPLICATE))
    if not len(rows):
        return None
    return float((pool.grade[rows] == pool.grade[informed.nearest[rows]]).mean())


def _hash(pool: Pool, rows: Ints) -> str:
    lines = zip(
        pool.pairs["query_id"].gather(rows),
        pool.pairs["doc_id"].gather(rows),
        pool.grade[rows].tolist(),
        strict=True,
    )
    return sha256("\n".join(f"{q} {d} {g}" for q, d, g in lines).encode()).hexdigest()
