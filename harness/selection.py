"""What a hole's being a hole says about it: labels of documents that one system alone found.

Assessors judged what earlier systems brought up, so a calibrator learns from documents that were found
often, or were looked for. A new system's holes are found by it alone, and such documents are less relevant
than others that look the same (on TREC DL 2019 by 0.3 in log-odds a grade, docs/measured.md). Judged
documents that only one of the runs has in its top show by how much: `estimate` compares their left-out
labels with their judgments. The mean error moves the labels of holes (`moved`); how much it differs between
runs and between topics is what labels of one filling get wrong together, which `harness.draws` draws.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harness.arrays import Floats, Ints

__all__ = ["NOTHING", "Shift", "estimate", "moved"]

_OFFSET_PRIOR = 0.5  # sd of the offset before anything is seen
_PRIOR = 0.5  # sd of the runs' and of the topics' shifts before anything is seen
_WORTH = 20.0  # runs or topics that this is worth: the runs of one pool are alike, a new system is not
_LEAST = 5  # documents that a run or topic needs to be heard


@dataclass(frozen=True)
class Shift:
    """Errors that labels of holes share, in log-odds of reaching a grade.

    `offset`: what their log-odds are moved by. `all`: the standard deviation of what is left of it, for a
    system that is not among the runs. `topic`: that of a topic's own error. `documents`: judged documents
    that one run alone found, on which this rests.
    """

    offset: float
    all: float
    topic: float
    documents: int


NOTHING = Shift(0.0, _PRIOR, _PRIOR, 0)
"""Nothing is known but the priors."""


def estimate(probs: Floats, grade: Ints, run: Ints, topic: Ints) -> Shift:
    """The shift between labels and judgments of documents that one run alone found.

    The offset is the most likely one under a normal prior of standard deviation 0.5. The variances between
    runs and between topics are moment estimates (DerSimonian & Laird, Controlled Clinical Trials 7, 1986),
    averaged with a prior (0.5 squared, worth twenty groups).

    Parameters
    ----------
    probs: (n, G) left-out labels. grade: (n,) positions of the judgments in the scale. run, topic: (n,) group
        numbers.
    """
    if not len(grade):
        return NOTHING
    odds = _log_odds(probs)
    offset, error = _shift(odds, grade, _OFFSET_PRIOR)
    between = _between(odds + offset, grade, run)
    in_topic = _between(odds + offset, grade, topic)
    return Shift(
        float(f"{offset:.6g}"), float(f"{np.hypot(between, error):.6g}"), float(f"{in_topic:.6g}"), len(grade)
    )


def moved(probs: Floats, offset: float) -> Floats:
    """Distributions (n, G) whose log-odds of reaching each grade are moved by the offset."""
    return _shares(_log_odds(probs) + offset) if offset else probs


def _log_odds(probs: Floats) -> Floats:
    """(n, G-1): log-odds of reaching each grade but the lowest."""
    from scipy.special import logit

    reached = probs[:, ::-1].cumsum(axis=1)[:, ::-1][:, 1:]
    return np.asarray(logit(np.clip(reached, 1e-6, 1 - 1e-6)))


def _shares(odds: Floats) -> Floats:
    from scipy.special import expit

    ones, zeros = np.ones((len(odds), 1)), np.zeros((len(odds), 1))
    return np.asarray(-np.diff(np.concatenate([ones, expit(odds), zeros], axis=1), axis=1))


def _shift(odds: Floats, grade: Ints, prior: float) -> tuple[float, float]:
    """The most likely common shift under a normal prior, and its standard error."""
    from scipy.optimize import minimize_scalar

    rows = np.arange(len(grade))

    def loss(shift: float) -> float:
        share = np.maximum(_shares(odds + shift)[rows, grade], 1e-9)
        return float(-np.log(share).sum() + 0.5 * (shift / prior) ** 2)

    best = float(minimize_scalar(loss, bounds=(-4.0, 4.0), method="bounded").x)
    step = 0.05
    curvature = (loss(best + step) + loss(best - step) - 2 * loss(best)) / step**2
    return best, 1 / np.sqrt(max(curvature, 1e-3))


def _between(odds: Floats, grade: Ints, group: Ints) -> float:
    """Standard deviation of the groups' own shifts, shrunk to the prior."""
    numbers, sizes = np.unique(group, return_counts=True)
    found = [_shift(odds[group == n], grade[group == n], 5.0) for n in numbers[sizes >= _LEAST].tolist()]
    variance, groups = _PRIOR**2, len(found)
    if groups > 1:
        shift, weight = np.array([s for s, _ in found]), np.array([e**-2 for _, e in found])
        mean = (weight * shift).sum() / weight.sum()
        excess = (weight * (shift - mean) ** 2).sum() - (groups - 1)
        between = max(0.0, excess / (weight.sum() - (weight**2).sum() / weight.sum()))
        variance = (_WORTH * _PRIOR**2 + groups * between) / (_WORTH + groups)
    return float(np.sqrt(variance))
