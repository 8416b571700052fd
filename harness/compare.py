"""A versus B on the same topics: the difference, its interval, its p-value, and a verdict in one word.

The interval and the p-value are about topics. Labels are taken as they are: their error is in neither.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from harness.errors import UnknownName, UsageError
from harness.frames import check
from harness.gains import Floats

__all__ = ["PER_TOPIC", "Comparison", "compare"]

_text = pl.String()
PER_TOPIC: dict[str, pl.DataType] = {"run": _text, "query_id": _text, "measure": _text, "value": pl.Float64()}
"""What `compare` takes: `Measurement.per_topic`."""
_CONFIDENCE, _ALPHA = 0.95, 0.05
_RESAMPLES = 9999  # of the bootstrap; of the sign-flip test where its 2^n outcomes are more than that
_SAME = 1e-12  # values that differ by less differ by rounding only


@dataclass(frozen=True)
class Comparison:
    """A candidate against a base on one measure, topic by topic.

    Attributes
    ----------
    base, candidate: means over the topics. `delta`: candidate - base.
    ci: the 95 % interval of `delta` over topics drawn anew: bias-corrected and accelerated bootstrap (Efron,
        JASA 1987). Infinite on both sides with a single topic, which says nothing of how topics differ.
    p: of the two-sided paired sign-flip permutation test (Fisher 1935): how often a difference at least as
        large would come up if the two systems' names were exchanged on each topic by chance. Exact for up to
        13 topics that differ; else from 9,999 draws, with +1 in both counts, so that it is never 0.
    wins, ties, losses: topics on which the candidate has more, the same, less. `topics`: all of them.
    verdict: `better` or `worse` where the interval leaves 0 out and p < 0.05; `equivalent` where the two are
        the same on every topic; else `inconclusive`.
    """

    base: float
    candidate: float
    delta: float
    ci: tuple[float, float]
    p: float
    wins: int
    ties: int
    losses: int
    topics: int
    verdict: str

    def to_json(self) -> dict[str, Any]:
        """The object of one measure in `stopgap compare --json`."""
        return {**vars(self), "ci": list(self.ci)}


def compare(per_topic: pl.DataFrame, base: str, candidate: str, *, seed: int = 0) -> dict[str, Comparison]:
    """Compare two runs on every measure that both have; measure -> Comparison, in the frame's order.

    Parameters
    ----------
    per_topic: run, query_id, measure, value, as `Measurement.per_topic` has it: over all topics of the qrels,
        those that a run lacks with their 0. A topic on which a measure is undefined (null) for either run is
        left out for that measure.
    base, candidate: names of runs in the frame.
    seed: of the bootstrap and of the permutation test; the same seed gives the same result.

    Raises
    ------
    SchemaError: the frame lacks a column. UnknownName: no such run.
    UsageError: the runs were measured on different topics, or a topic is there twice, or there is no topic.
    """
    per_topic = check(per_topic, PER_TOPIC, "per_topic")
    known = per_topic["run"].unique(maintain_order=True).to_list()
    for name in (base, candidate):
        if name not in known:
            raise UnknownName("run", name, known)
    found = {}
    for measure in per_topic["measure"].unique(maintain_order=True):
        one = per_topic.filter(pl.col("measure") == measure)
        ours, theirs = (_values(one, name, measure) for name in (base, candidate))
        pairs = ours.join(theirs, on="query_id", how="full", coalesce=True, maintain_order="left_right")
        if not pairs.height == ours.height == theirs.height:
            what = f"{ours.height} and {theirs.height}, {pairs.height} in all"
            raise UsageError(f"{base!r} and {candidate!r} were measured on different topics: {what}")
        pairs = pairs.drop_nulls()
        if not pairs.height:
            raise UsageError(f"{measure} is defined on no topic of {base!r} and {candidate!r}")
        found[measure] = _compared(pairs["value"].to_numpy(), pairs["value_right"].to_numpy(), seed)
    return found


def _values(one: pl.DataFrame, name: str, measure: str) -> pl.DataFrame:
    values = one.filter(pl.col("run") == name).select("query_id", "value").sort("query_id")
    if twice := values.filter(pl.col("query_id").is_duplicated())["query_id"].to_list():
        raise UsageError(f"{measure} of run {name!r} has topic {twice[0]!r} twice")
    return values


def _compared(ours: Floats, theirs: Floats, seed: int) -> Comparison:
    delta = theirs - ours
    delta[np.abs(delta) < _SAME] = 0.0
    mean, interval, p = float(delta.mean()), _interval(delta, seed), _sign_flip(delta, seed)
    if not delta.any():
        verdict = "equivalent"
    elif p < _ALPHA and interval[0] > 0:
        verdict = "better"
    elif p < _ALPHA and interval[1] < 0:
        verdict = "worse"
    else:
        verdict = "inconclusive"
    wins, ties, losses = (int(np.sum(part)) for part in (delta > 0, delta == 0, delta < 0))
    means = float(ours.mean()), float(theirs.mean())
    return Comparison(*means, mean, interval, p, wins, ties, losses, len(delta), verdict)


def _interval(delta: Floats, seed: int) -> tuple[float, float]:
    """The BCa interval of the mean; the mean itself where no topic differs from another."""
    if len(delta) == 1 and delta[0]:
        return -float("inf"), float("inf")
    if np.ptp(delta) < _SAME:
        return float(delta.mean()), float(delta.mean())
    from scipy.stats import bootstrap

    options: dict[str, Any] = {"n_resamples": _RESAMPLES, "confidence_level": _CONFIDENCE}
    ends = bootstrap((delta,), np.mean, method="BCa", rng=np.random.default_rng(seed), **options)
    return float(ends.confidence_interval.low), float(ends.confidence_interval.high)


def _sign_flip(delta: Floats, seed: int) -> float:
    """The two-sided p-value. Topics without a difference say nothing either way and are left out first."""
    differing = delta[delta != 0]
    if differing.size < 2:
        return 1.0  # both of one topic's outcomes are as large as what was seen
    from scipy.stats import permutation_test

    options: dict[str, Any] = {"permutation_type": "samples", "n_resamples": _RESAMPLES, "vectorized": True}
    test = permutation_test((differing,), _sum, rng=np.random.default_rng(seed), **options)
    return float(test.pvalue)


def _sum(values: Floats, axis: int = -1) -> Floats:
    total: Floats = np.sum(values, axis=axis)
    return total
