"""The student that learns in seconds: a head on the features of a frozen sentence encoder.

The start is the bare cosine, put on the scale of grades by a cumulative logit (McCullagh, Regression models
for ordinal data, 1980). What is learnt is a correction: weights on all features, drawn to the start by a
penalty. How strong it is, is chosen on learnt topics that a fit has not seen: the strongest within one
standard error of the best, because few topics are easily learnt by heart; so the cosine may stay as it is.
The dev topics choose nothing and tell how good the student is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import copytree, rmtree
from tempfile import mkdtemp
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import polars as pl

from harness.arrays import Floats
from harness.errors import LabelerError, UsageError
from harness.labeling import signals
from labelers.distill.calibration import folds
from labelers.distill.rows import digest_of
from labelers.distill.train import put_student, student_digest
from labelers.distill.train_data import Taught, grade_weights, refuse_shared, split_dev
from labelers.distill.train_log import agreement
from labelers.distill.train_settings import EMBEDDED, Train
from labelers.encoder import Encoder, MiniLM
from labelers.encoder_head import HEAD, INNER, Head, grade_probs

if TYPE_CHECKING:
    from harness.labeling import Progress
    from harness.ledger import Ledger

__all__ = ["PENALTIES", "Fitted", "fit_head", "train_encoder"]

PENALTIES = (float("inf"), 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003)
"""Of half the squared distance of the weights to the start, beside the mean loss; inf leaves the start."""
_COSINE = 0  # its place among the features
_FLAT = 1e-3  # penalty on what nothing else holds: the cosine's own weight, and the logs of the cuts' gaps
_ENOUGH = 5  # topics with human judgments from which on they alone choose the penalty


class Fitted(NamedTuple):
    """`weights` (f,) of standardised features and falling `cuts` (G-1,)."""

    weights: Floats
    cuts: Floats


@dataclass(frozen=True)
class _Known:
    """What is learnt from: features (n, f), distributions (n, G), weights (n,) of the pairs, their topics."""

    x: Floats
    probs: Floats
    weight: Floats
    topic: list[str]

    def of(self, rows: Floats) -> _Known:
        chosen = np.flatnonzero(rows)
        return _Known(
            self.x[chosen], self.probs[chosen], self.weight[chosen], [self.topic[n] for n in chosen]
        )


def train_encoder(
    settings: Train,
    taught: Sequence[Taught],
    out: Path,
    *,
    grades: Mapping[int, str],
    seed: int = 0,
    ledger: Ledger | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Teach a head, and leave it in the folder `student` of `out`.

    Parameters
    ----------
    taught: the pairs, those of the dev topics too. ledger: where the encoder's features are kept.

    Returns
    -------
    As `labelers.distill.train.train`, without what hangs on steps; `penalty`, the one that was chosen (null:
    the cosine as it is), `chosen on`, by which topics, and `losses`, the mean loss on topics that a fit had
    not seen, by penalty.

    Raises
    ------
    UsageError: one topic only; a topic on both sides. LabelerError: the encoder cannot be loaded, or gave no
        features. MissingExtra: what it needs is not installed.
    """
    began = perf_counter()
    scale = sorted(grades)
    encoder = MiniLM(None if settings.model == EMBEDDED else settings.model, dict(grades))
    learnt, dev = split_dev(taught, settings.dev_share, seed)
    refuse_shared(learnt, dev)
    by_grade = grade_weights(learnt, settings.balance)
    known, left_out = _known(encoder, learnt, by_grade, ledger, progress)
    held, more = _known(encoder, dev, by_grade, ledger, progress) if dev else (None, 0)
    center, spread = known.x.mean(axis=0), known.x.std(axis=0)
    spread = np.where(spread > 1e-6, spread, 1.0)
    head = Head(
        grades=tuple(scale),
        features=tuple(encoder.feature_names),
        center=_plain(center),
        scale=_plain(spread),
        weights=(0.0,) * len(center),
        cuts=tuple(float(-n) for n in range(len(scale) - 1)),
        encoder=encoder.weights_digest,
    )
    known = _Known(head.standardised(known.x), known.probs, known.weight, known.topic)
    human = {pair.query_id for pair in learnt if pair.source == "human"}
    penalty, losses, chosen_on = _chosen(known, human, seed)
    start = fit_head(known.x, known.probs, known.weight, float("inf"))
    best = fit_head(known.x, known.probs, known.weight, penalty)
    head = Head(
        head.grades,
        head.features,
        head.center,
        head.scale,
        _plain(best.weights),
        _plain(best.cuts),
        head.encoder,
    )
    out.mkdir(parents=True, exist_ok=True)
    new = Path(mkdtemp(prefix=".student.", dir=out))
    try:
        new.chmod(0o755)
        (new / HEAD).write_bytes(head.to_bytes())
        if settings.model != EMBEDDED:
            copytree(encoder.folder.path, new / INNER)
        put_student(new, out)
    except BaseException:
        rmtree(new, ignore_errors=True)
        raise
    moved = dict(zip(head.features, np.round(best.weights - start.weights, 4).tolist(), strict=True))
    return {
        "labeler": "encoder:FOLDER",
        "student": settings.student,
        "model": settings.model,
        "pairs": {"train": len(known.topic), "dev": 0 if held is None else len(held.topic)},
        "topics": {"train": len(set(known.topic)), "dev": 0 if held is None else len(set(held.topic))},
        "dev_topics": sorted({pair.query_id for pair in dev}),
        "left_out": {"no features": left_out + more} if left_out + more else {},
        "dev": None if held is None else _told(held, head, best, scale),
        "start": None if held is None else _told(held, head, start, scale),
        "penalty": None if np.isinf(penalty) else penalty,
        "chosen on": chosen_on,
        "losses": losses,
        "weight of the cosine": round(float(start.weights[_COSINE]), 4),
        "correction": moved,
        "seconds": round(perf_counter() - began, 1),
        "made_of": digest_of(
            [settings.model_dump(mode="json"), encoder.fingerprint, sorted(grades.items()), taught, seed]
        ),
        "sha256": student_digest(out),
    }


def fit_head(x: Floats, probs: Floats, weight: Floats, penalty: float) -> Fitted:
    """The weights and cuts with the least mean cross-entropy and penalty.

    Parameters
    ----------
    x: standardised features (n, f), the cosine first. probs: distributions over the grades (n, G). weight: of
        the rows (n,). penalty: of half the squared distance to the start; inf: the start, which has a weight
        on the cosine alone.
    """
    first = _least(x[:, [_COSINE]], probs, weight, np.zeros(1), _FLAT, np.zeros(1))
    start = np.zeros(x.shape[1])
    start[_COSINE] = first.weights[0]
    if np.isinf(penalty):
        return Fitted(start, first.cuts)
    return _least(x, probs, weight, start, penalty, start, first.cuts)


def _least(
    x: Floats,
    probs: Floats,
    weight: Floats,
    toward: Floats,
    penalty: float,
    begin: Floats,
    cuts: Floats | None = None,
) -> Fitted:
    from scipy.optimize import minimize
    from scipy.special import logit
    from threadpoolctl import threadpool_limits

    share = weight / weight.sum()
    if cuts is None:
        reached = (share @ probs)[::-1].cumsum()[::-1][1:]
        cuts = logit(np.clip(reached, 1e-4, 1 - 1e-4)) - 1e-3 * np.arange(len(reached))
    size, count = x.shape[1], len(cuts)

    def cuts_of(given: Floats) -> Floats:
        return np.asarray(given[0] - np.concatenate([[0.0], np.exp(given[1:]).cumsum()]))

    def value(given: Floats) -> tuple[float, Floats]:
        weights, gaps = given[:size], np.exp(given[size + 1 :])
        found = np.maximum(grade_probs(x @ weights, cuts_of(given[size:])), 1e-12)
        above = found[:, ::-1].cumsum(axis=1)[:, ::-1]  # P(grade >= g), g from the lowest
        below = np.concatenate([above[:, 1:], np.zeros((len(x), 1))], axis=1)
        slope = -share * (probs * (1 - above - below)).sum(axis=1)
        ratio = probs / found
        turn = above[:, 1:] * (1 - above[:, 1:])
        by_cut = -share @ ((ratio[:, 1:] - ratio[:, :-1]) * turn)
        loss = -share @ (probs * np.log(found)).sum(axis=1)
        off, logs = weights - toward, given[size + 1 :]
        loss += penalty / 2 * off @ off + _FLAT / 2 * logs @ logs
        later = by_cut[::-1].cumsum()[::-1]
        by_gap = -later[1:] * gaps + _FLAT * logs
        return float(loss), np.concatenate([x.T @ slope + penalty * off, [by_cut.sum()], by_gap])

    gaps = np.log(np.maximum(-np.diff(cuts), 1e-3))
    with threadpool_limits(1):  # other sums would change the last digits
        found = minimize(
            value,
            np.concatenate([begin, cuts[:1], gaps]),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": 500},
        )
    return Fitted(found.x[:size], cuts_of(found.x[size : size + count]))


def _chosen(known: _Known, human: set[str], seed: int) -> tuple[float, dict[str, float], str]:
    """The penalty, the mean loss by penalty on topics that a fit had not seen, and by which topics."""
    judges = human if len(human) >= _ENOUGH else set(known.topic)
    named = "topics with human judgments" if len(human) >= _ENOUGH else "topics"
    of = folds(sorted(set(known.topic)), seed)
    if len(of) < 2 or len(judges) < 2:
        return float("inf"), {}, "nothing: too few topics"
    fold = np.array([of[topic] for topic in known.topic])
    table: dict[float, dict[str, float]] = {penalty: {} for penalty in PENALTIES}
    for number in sorted(set(fold.tolist())):
        seen, new = known.of(fold != number), known.of(fold == number)
        for penalty in PENALTIES:
            fitted = fit_head(seen.x, seen.probs, seen.weight, penalty)
            lost = -(new.probs * np.log(np.maximum(_answers(new.x, fitted), 1e-12))).sum(axis=1) * new.weight
            for topic in sorted(judges.intersection(new.topic)):
                rows = np.array([one == topic for one in new.topic])
                table[penalty][topic] = float(lost[rows].sum() / new.weight[rows].sum())
    topics = sorted(table[PENALTIES[0]])
    losses = np.array([[table[penalty][topic] for topic in topics] for penalty in PENALTIES])
    means = losses.mean(axis=1)
    worse = losses - losses[means.argmin()]
    error = worse.std(axis=1, ddof=1) / np.sqrt(len(topics))
    # The first of these, since penalties fall.
    best = next(n for n in range(len(PENALTIES)) if worse[n].mean() <= error[n])
    told = {
        "the cosine" if np.isinf(penalty) else f"{penalty:g}": round(float(mean), 4)
        for penalty, mean in zip(PENALTIES, means, strict=True)
    }
    return PENALTIES[best], told, f"{len(topics)} {named}"


def _known(
    encoder: Encoder,
    pairs: Sequence[Taught],
    by_grade: Floats,
    ledger: Ledger | None,
    progress: Progress | None,
) -> tuple[_Known, int]:
    """The pairs with features, and how many have none."""
    columns = ("query_id", "doc_id", "query", "text")
    frame = pl.DataFrame([pair[:4] for pair in pairs], schema=dict.fromkeys(columns, pl.String), orient="row")
    features = signals(encoder, frame, ledger=ledger, progress=progress)["features"]
    kept = [n for n, there in enumerate(features.is_not_null()) if there]
    if not kept:
        raise LabelerError(f"{encoder.name} gave features of none of {len(pairs)} pairs")
    probs = np.array([pairs[n].probs for n in kept])
    weight = probs @ by_grade * np.array([pairs[n].weight for n in kept])
    x = np.array(features.drop_nulls().to_list(), dtype=float)
    if not np.isfinite(x).all():
        raise UsageError(f"{encoder.name} gave a feature that is no number")
    return _Known(x, probs, weight, [pairs[n].query_id for n in kept]), len(pairs) - len(kept)


def _answers(z: Floats, fitted: Fitted) -> Floats:
    return grade_probs(z @ fitted.weights, fitted.cuts)


def _told(held: _Known, head: Head, fitted: Fitted, scale: Sequence[int]) -> dict[str, float | None]:
    """Loss, AUC and kappa on pairs with raw features."""
    found = _answers(head.standardised(held.x), fitted)
    loss = -(held.probs * np.log(np.maximum(found, 1e-12))).sum(axis=1) @ held.weight / held.weight.sum()
    told = {"loss": float(loss), **agreement(found, held.probs, scale)}
    return {key: None if value is None else round(value, 4) for key, value in told.items()}


def _plain(values: Floats) -> tuple[float, ...]:
    return tuple(float(value) for value in values)
