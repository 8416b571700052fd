"""The floor on a labeler's agreement: Cohen's kappa with assessors on the same pairs.

The interval draws topics anew, since labels of one topic err together. The verdict asks all of it: pass where
it lies on or above the floor, fail where below, else inconclusive.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from harness.errors import InputError
from harness.gate_output import Check, Verdict
from harness.trec import read_qrels

__all__ = ["check_agreement", "kappa", "kappas"]

Floats = npt.NDArray[np.float64]
_DRAWS, _CONFIDENCE = 1999, 0.95
_LEAST_TOPICS = 2


def check_agreement(human: Path, labels: Path, floor: float) -> Check:
    """Whether the labels of one qrels agree with the judgments of another.

    Parameters
    ----------
    human: qrels, of which the assessors' rows count. `labels`: qrels, of which the labels count; where it
        marks none (column 2 is 0 throughout), all of it. Grades below 0 are codes and count in neither.
    floor: the least kappa, over the grades as they are, unweighted.

    Raises
    ------
    InputError: as `read_qrels`; both are one file, or no pair is in both.
    """
    if human.exists() and labels.exists() and human.samefile(labels):
        raise InputError(labels, None, "judgments and labels are one file, and agree with themselves")
    judged = read_qrels(human).filter((pl.col("assessor") == "human") & (pl.col("relevance") >= 0))
    labeled = read_qrels(labels)
    marked = labeled.filter(pl.col("assessor") != "human")
    mine = (marked if marked.height else labeled).filter(pl.col("relevance") >= 0)
    pairs = judged.select("query_id", "doc_id", human="relevance").join(
        mine.select("query_id", "doc_id", label="relevance"), on=["query_id", "doc_id"]
    )
    if not pairs.height:
        hint = "Next: stopgap simulate labels what assessors judged; or judge some of the labeled"
        raise InputError(labels, None, f"no label is of a pair that {human} judges", hint)
    value, interval = kappa(pairs)
    said = f"kappa over {pairs.height} pairs of {pairs['query_id'].n_unique()} topics"
    if not marked.height:
        said += f"; {labels} marks no label, so that all of it was taken for labels"
    if interval is None:
        what = "all grades are the same" if math.isnan(value) else "one topic does not say how topics differ"
        return Check("agreement", "agreement", "inconclusive", value, floor, f"{said}: {what}")
    verdict: Verdict = "inconclusive"
    if interval[0] >= floor:
        verdict = "pass"
    elif interval[1] < floor:
        verdict = "fail"
    said += f", 95 % interval {interval[0]:.3f} to {interval[1]:.3f}"
    return Check("agreement", "agreement", verdict, value, floor, said, interval)


def kappa(pairs: pl.DataFrame, seed: int = 0) -> tuple[float, tuple[float, float] | None]:
    """Cohen's kappa and its 95 % interval over topics drawn anew (percentile bootstrap, 1,999 draws).

    Parameters
    ----------
    pairs: query_id, human, label (integers).

    Returns
    -------
    NaN and None where all grades are one; None for the interval with a single topic.
    """
    from sklearn.metrics import cohen_kappa_score

    topics = pairs["query_id"].unique().sort().to_list()
    grades = np.unique(np.concatenate([pairs["human"].to_numpy(), pairs["label"].to_numpy()]))
    if grades.size < 2:
        return math.nan, None
    value = float(cohen_kappa_score(pairs["human"].to_numpy(), pairs["label"].to_numpy()))
    if len(topics) < _LEAST_TOPICS:
        return value, None
    counts = np.zeros((len(topics), grades.size, grades.size))
    rows = np.searchsorted(np.array(topics, dtype=object), pairs["query_id"].to_numpy())
    np.add.at(counts, (rows, *(np.searchsorted(grades, pairs[c].to_numpy()) for c in ("human", "label"))), 1)
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(len(topics), np.full(len(topics), 1 / len(topics)), size=_DRAWS)
    scores = kappas(np.tensordot(drawn, counts, axes=1))
    tail = (1 - _CONFIDENCE) / 2
    low, high = np.nanquantile(scores, [tail, 1 - tail])
    return value, (float(low), float(high))


def kappas(tables: Floats) -> Floats:
    """Cohen's kappa (Educational and Psychological Measurement 1960) of many tables of counts at once.

    scikit-learn's takes one at a time, at 2 ms each; this is for thousands of draws, and tested against it.

    Parameters
    ----------
    tables: (n, grades, grades), one assessor's grades down, the other's across.

    Returns
    -------
    (n,), NaN for a table with a single grade.
    """
    total = tables.sum(axis=(1, 2))
    observed = np.trace(tables, axis1=1, axis2=2) / total
    expected = (tables.sum(axis=1) * tables.sum(axis=2)).sum(axis=1) / total**2
    with np.errstate(invalid="ignore", divide="ignore"):
        found: Floats = np.where(expected < 1, (observed - expected) / (1 - expected), np.nan)
    return found
