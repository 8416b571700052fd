"""Agreement of two raters out of tables of counts, one table or thousands at once.

Whatever is said here of an agreement is a function of sums over topics: of pairs by (first rater's grade,
second rater's grade), of document pairs in the right order, of probabilities by bin. So a resample of topics
is one row of a matrix product, and every statistic is computed for all resamples together.

scikit-learn's kappa and the `krippendorff` package's alpha take one set of ratings at a time; those of this
module are tested against them, and the value that is reported for alpha is the package's.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from harness.arrays import Floats, Ints
from harness.draws import generator
from harness.inference import CONFIDENCE

__all__ = [
    "alphas",
    "aucs",
    "count_tables",
    "cut",
    "differences",
    "distances",
    "errors_of",
    "interval",
    "kappas",
    "orders",
    "pairwise",
    "resampled",
]

_STREAM = 4  # of `draws.generator`: drawing topics for an agreement
_CHUNK = 1 << 21  # topics times resamples that are worked on at once
_MOST_UNDEFINED = 0.05  # share of resamples without a value that an interval can do without


def count_tables(topic: Ints, first: Ints, second: Ints, shape: tuple[int, int, int]) -> Floats:
    """(topics, A, B): how many pairs of a topic got grade a of the first rater and b of the second.

    Parameters
    ----------
    topic, first, second: positions, one entry a pair. `shape`: (topics, A, B).
    """
    cell = (topic * shape[1] + first) * shape[2] + second
    counts = np.bincount(cell, minlength=shape[0] * shape[1] * shape[2])
    return counts.reshape(shape).astype(np.float64)


def cut(tables: Floats, at: int) -> Floats:
    """(n, 2, 2): the tables with the grades from position `at` on made one, and those below it."""
    edges = [0, at]
    return np.asarray(np.add.reduceat(np.add.reduceat(tables, edges, axis=1), edges, axis=2))


def distances(grades: Ints, power: int) -> Floats:
    """(G, G) weights of a disagreement by the grades' values: |a - b| ** power; with power 0 all alike."""
    apart = np.abs(np.subtract.outer(grades, grades)).astype(np.float64)
    return np.asarray(apart**power if power else (apart > 0).astype(np.float64))


def kappas(tables: Floats, weights: Floats) -> Floats:
    """Cohen's kappa, weighted (Cohen, Educational and Psychological Measurement 1960; Psychological Bulletin
    1968), of many tables at once.

    Parameters
    ----------
    tables: (n, G, G) counts. `weights`: (G, G), of a disagreement, as `distances` makes them; 0 on the
        diagonal.

    Returns
    -------
    (n,), at most 1. NaN where a rater uses a single grade: nothing can be said of how raters agree beyond
    chance if one of them does not choose.
    """
    first, second = tables.sum(axis=2), tables.sum(axis=1)
    seen = (tables * weights).sum(axis=(1, 2))
    chance = (first @ weights * second).sum(axis=1)
    choosing = ((first > 0).sum(axis=1) > 1) & ((second > 0).sum(axis=1) > 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(choosing, 1 - seen * tables.sum(axis=(1, 2)) / chance, np.nan)


def alphas(tables: Floats, level: str) -> Floats:
    """Krippendorff's alpha (Content Analysis, 4th ed., 2018, ch. 12) of two raters, of many tables at once.

    Parameters
    ----------
    tables: (n, G, G) counts, grades ascending. `level`: `nominal` or `ordinal`; ordinal distances come from
        the counts of both raters together, so alpha hangs on who is compared.

    Returns
    -------
    (n,), at most 1. NaN where both raters use one and the same grade throughout.
    """
    values = tables + tables.transpose(0, 2, 1)
    uses = values.sum(axis=2)
    total = uses.sum(axis=1)
    if level == "ordinal":
        middle = uses.cumsum(axis=1) - uses / 2  # grades lie apart by the ratings between them
        apart = (middle[:, :, None] - middle[:, None, :]) ** 2
    else:
        apart = np.broadcast_to(1 - np.eye(uses.shape[1]), values.shape)
    seen = (values * apart).sum(axis=(1, 2))
    chance = (uses[:, :, None] * uses[:, None, :] * apart).sum(axis=(1, 2))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(chance > 0, 1 - (total - 1) * seen / chance, np.nan)


def differences(tables: Floats, grades: Ints) -> dict[str, Floats]:
    """`accuracy` (share of equal grades), `mae` (mean of |second - first|) and `bias` (mean of second -
    first; above 0 the second rater is the more lenient), each (n,)."""
    total = tables.sum(axis=(1, 2))
    signed = np.subtract.outer(-grades, -grades).astype(np.float64)
    return {
        "accuracy": np.trace(tables, axis1=1, axis2=2) / total,
        "mae": (tables * np.abs(signed)).sum(axis=(1, 2)) / total,
        "bias": (tables * signed).sum(axis=(1, 2)) / total,
    }


def orders(tables: Floats) -> Floats:
    """(topics, 3): document pairs of a topic that the first rater grades differently; of these, how many the
    second orders the same way, how many it ties, and how many there are.

    Parameters
    ----------
    tables: (topics, G, G), of single topics: documents of two topics are never compared.
    """
    lower_first = np.cumsum(tables, axis=1) - tables  # by (grade, label): lower grade, same label
    lower_both = np.cumsum(lower_first, axis=2) - lower_first
    uses = tables.sum(axis=2)
    right = (tables * lower_both).sum(axis=(1, 2))
    tied = (tables * lower_first).sum(axis=(1, 2))
    return np.stack([right, tied, (uses * (np.cumsum(uses, axis=1) - uses)).sum(axis=1)], axis=1)


def pairwise(sums: Floats) -> dict[str, Floats]:
    """Pairwise accuracy out of (n, 3) sums of `orders`: with ties counted wrong (`strict`) and counted half
    (`half_ties`); NaN where there is no pair to order."""
    with np.errstate(invalid="ignore", divide="ignore"):
        right, tied = sums[:, 0] / sums[:, 2], sums[:, 1] / sums[:, 2]
    return {"strict": right, "half_ties": right + tied / 2}


def aucs(tables: Floats, at: int) -> Floats:
    """Area under the ROC curve of many tables at once.

    Parameters
    ----------
    tables: (n, G, B) counts by grade and by bin of the score, both ascending; one bin is one tie. `at`:
        position of the lowest grade that is relevant.

    Returns
    -------
    (n,): how likely a relevant document has the higher score than one that is not, ties half. Documents of
    all topics together. NaN where all or none are relevant.
    """
    no, yes = tables[:, :at].sum(axis=1), tables[:, at:].sum(axis=1)
    below = np.cumsum(no, axis=1) - no / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        found: Floats = (yes * below).sum(axis=1) / (yes.sum(axis=1) * no.sum(axis=1))
    return found


def errors_of(sums: Floats) -> dict[str, Floats]:
    """Calibration of probabilities, each (n,).

    Parameters
    ----------
    sums: (n, bins, 4): of a bin's documents the number, the sum of the probabilities of being relevant, the
        number relevant, and the sum of squared errors.

    Returns
    -------
    `ece`, the mean over documents of |share relevant - mean probability| of their bin (Naeini et al., AAAI
    2015); `brier`, the mean squared error (Brier 1950). NaN without documents.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        total = sums[:, :, 0].sum(axis=1)
        return {
            "ece": np.abs(sums[:, :, 2] - sums[:, :, 1]).sum(axis=1) / total,
            "brier": sums[:, :, 3].sum(axis=1) / total,
        }


def resampled(by_topic: Mapping[str, Floats], seed: int, resamples: int) -> dict[str, Floats]:
    """Sums over topics that are drawn anew, with replacement, as many as there are.

    Labels of one topic err together, so that topics and not pairs are drawn.

    Parameters
    ----------
    by_topic: arrays (topics, ...), all with the same topics. What is drawn hangs on `seed` and the number of
        topics only.

    Returns
    -------
    For each array one of (resamples, ...); the same topics are drawn for all.
    """
    flat = {name: array.reshape(len(array), -1) for name, array in by_topic.items()}
    joined = np.hstack(list(flat.values()))
    topics, rng, parts = len(joined), generator(seed, _STREAM), []
    step = max(1, _CHUNK // topics)
    for first in range(0, resamples, step):
        rows = min(step, resamples - first)
        drawn = rng.integers(0, topics, (rows, topics)) + np.arange(rows)[:, None] * topics
        counts = np.bincount(drawn.ravel(), minlength=rows * topics).reshape(rows, topics)
        parts.append(counts.astype(np.float64) @ joined)
    ends = np.cumsum([array.shape[1] for array in flat.values()])[:-1]
    split = np.split(np.concatenate(parts), ends, axis=1)
    return {
        name: part.reshape(resamples, *array.shape[1:])
        for (name, array), part in zip(by_topic.items(), split, strict=True)
    }


def interval(replicates: Floats) -> tuple[float, float] | None:
    """95 % percentile interval. Resamples without a value (a rater used a single grade) are left out; None if
    they are more than one in twenty."""
    defined = replicates[np.isfinite(replicates)]
    if len(defined) < (1 - _MOST_UNDEFINED) * len(replicates) or not len(defined):
        return None
    low, high = np.quantile(defined, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return round(float(low), 12), round(float(high), 12)  # the last bits hang on the number of threads
