"""From latent values and distributions to grades: confidence tempered, hard grades cut, and both judged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from harness.arrays import Floats, Ints
from harness.ordinal import distribution

__all__ = ["carried", "hard_grades", "plain", "quality", "shares", "tempered", "thresholds"]

_WORTH = 100


def tempered(mean: Floats, variance: Floats, y: Ints, cuts: Floats) -> tuple[float, ...]:
    """A factor on the latent values and new cuts, at the least log loss of the judged pairs each predicted
    without itself.

    Held near no change by a prior worth about ten judgments.
    """
    from scipy.optimize import minimize

    gaps = np.log(np.maximum(-np.diff(cuts), 1e-3))
    first = np.concatenate([[0.0, cuts[0]], gaps])

    def unpacked(p: Floats) -> tuple[float, Floats]:
        return float(np.exp(p[0])), p[1] - np.concatenate([[0.0], np.cumsum(np.exp(p[2:]))])

    def loss(p: Floats) -> float:
        factor, moved = unpacked(p)
        probs = distribution(factor * mean, factor**2 * variance, moved)
        return float(-np.log(probs[np.arange(len(y)), y]).sum() + 5 * ((p - first) ** 2).sum()) / len(y)

    found: Any = minimize(loss, first, method="L-BFGS-B", options={"maxiter": 50}).x
    factor, moved = unpacked(found)
    return (factor, *plain(moved))


def thresholds(probs: Floats, y: Ints, grades: tuple[int, ...]) -> tuple[float, ...]:
    """Cuts of the expected gain at which kappa + quadratic kappa is largest, from where the grades'
    frequencies agree."""
    gain = probs @ np.asarray(grades, dtype=float)
    size = len(grades)
    values = np.asarray(grades, dtype=float)
    weights = (values[:, None] - values) ** 2
    nominal = 1.0 - np.eye(size)

    def agreement(cuts: Floats) -> float:
        table = np.bincount(y * size + np.searchsorted(np.sort(cuts), gain), minlength=size * size).reshape(
            size, size
        )
        chance = np.outer(table.sum(axis=1), table.sum(axis=0)) / len(y)
        parts = [1 - (w * table).sum() / max((w * chance).sum(), 1e-12) for w in (nominal, weights)]
        return float(sum(parts))

    best = np.quantile(gain, np.cumsum(np.bincount(y, minlength=size) / len(y))[:-1])
    reached = agreement(best)
    candidates = np.unique(np.quantile(gain, np.linspace(0, 1, 62)[1:-1]))
    for _ in range(4):
        before = reached
        for k in range(size - 1):
            for candidate in candidates:
                trial = best.copy()
                trial[k] = candidate
                got = agreement(trial)
                if got > reached + 0.002:
                    best, reached = trial, got
        if reached == before:
            break
    return plain(np.sort(best))


def shares(probs: Floats, cuts: Sequence[float], grades: tuple[int, ...]) -> tuple[float, ...]:
    """Shares of the expected gains that lie at or below each cut."""
    gain = probs @ np.asarray(grades, dtype=float)
    return plain((gain[:, None] <= np.asarray(cuts)).mean(axis=0))


def carried(
    probs: Floats, below: Sequence[float], cuts: Sequence[float], grades: tuple[int, ...]
) -> tuple[float, ...]:
    """Cuts for another collection, with the same shares of its pairs below them.

    With few pairs the shares say little, and the cuts count as much as `_WORTH` pairs.
    """
    gain = probs @ np.asarray(grades, dtype=float)
    if not len(gain):
        return tuple(cuts)
    weight = len(gain) / (len(gain) + _WORTH)
    return plain(np.sort(weight * np.quantile(gain, below) + (1 - weight) * np.asarray(cuts)))


def hard_grades(probs: Floats, cuts: Sequence[float], grades: tuple[int, ...]) -> Ints:
    """Grades (n,) of distributions (n, G): the expected gain, cut at the thresholds."""
    gain = probs @ np.asarray(grades, dtype=float)
    return np.asarray(np.asarray(grades)[np.searchsorted(np.asarray(cuts), gain)])


def quality(probs: Floats, hard: Ints, y: Ints, grades: tuple[int, ...]) -> dict[str, float]:
    """Kappa and quadratic kappa of hard grades, AUC at the middle of the scale, log loss, expected
    calibration error."""
    from sklearn.metrics import cohen_kappa_score, roc_auc_score

    truth = np.asarray(grades)[y]
    # every whole number of the scale, so that quadratic weights are of grades' values, not of positions
    scale = list(range(min(grades), max(grades) + 1))
    middle = next(g for g in grades if g >= max(grades) / 2 and g > min(grades))
    chance = probs[:, np.asarray(grades) >= middle].sum(axis=1)
    relevant = truth >= middle
    bins = np.minimum((chance * 10).astype(int), 9)
    error = sum(abs((relevant[bins == b] - chance[bins == b]).sum()) for b in range(10)) / len(y)
    return {
        "kappa": float(cohen_kappa_score(truth, hard)),
        "kappa_quadratic": float(cohen_kappa_score(truth, hard, labels=scale, weights="quadratic")),
        "auc": float(roc_auc_score(relevant, chance)) if 0 < relevant.sum() < len(y) else float("nan"),
        "log_loss": float(-np.log(np.maximum(probs[np.arange(len(y)), y], 1e-9)).mean()),
        "ece": float(error),
    }


def plain(values: npt.ArrayLike) -> tuple[float, ...]:
    """Floats with ten significant digits: enough for the model, and the same text on every machine."""
    return tuple(float(f"{v:.10g}") for v in np.asarray(values, dtype=float))
