"""One rater beside an assessor: every value of an agreement, its interval, and why one is missing."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import polars as pl

from harness.agree_pairs import Judged, Pairs, Rater, both
from harness.agree_tables import (
    alphas,
    aucs,
    count_tables,
    cut,
    differences,
    distances,
    errors_of,
    interval,
    kappas,
    orders,
    pairwise,
    resampled,
)
from harness.arrays import Floats, Ints
from harness.measure import Measurement, measure
from harness.ranking import rank

__all__ = ["LEVELS", "Rated", "binned", "krippendorff_alpha", "positions", "rate", "truth"]

_Level = Literal["nominal", "ordinal"]
LEVELS: tuple[_Level, ...] = ("nominal", "ordinal")
"""Of measurement, for alpha."""
_AS_THEY_ARE = (
    *("pairs", "topics", "missing", "missing_reasons", "left_out", "further"),
    *("grades", "threshold", "confusion", "reliability"),
)
_RELIABILITY = 10  # bins of the reliability curve, equally wide
_BINS = 128  # of scores, for the intervals of AUC; the values themselves are of the scores as they are


@dataclass(frozen=True)
class Rated:
    """How one rater agrees with an assessor.

    Attributes
    ----------
    pairs, topics: graded by both. `missing`: pairs that the assessor judged and the rater did not grade;
        `missing_reasons`: why -> how many. `left_out`: judgments below 0. `further`: grades of the rater for
        pairs that the assessor did not judge.
    grades: the scale. `threshold`: the grade from which on a document is relevant for `kappa_binary`, `ece`,
        `brier` and `reliability`.
    values: name -> value, NaN where undefined; the names are the keys of the JSON, with a dot between levels:
        `kappa`, `kappa_linear`, `kappa_quadratic`, `kappa_binary`, `kappa_at.G`, `alpha_nominal`,
        `alpha_ordinal`, `accuracy`, `mae`, `bias` (mean of label - judgment), `pairwise_accuracy.strict`,
        `pairwise_accuracy.half_ties` (over pairs of documents of one topic that the assessor grades
        differently, by hard grades), `auc.G`, `ece`, `brier`, `labels_as_run.M` (the rater's scores as a run
        over the pairs, measured against the judgments).
    ci: name -> 95 % interval over topics drawn anew; None where there is none. undefined: name -> why a value
        or an interval is null.
    confusion: rows are the assessor's grades, columns the rater's. per_grade: grade -> precision, recall,
        judged, labeled. reliability: bins of the stated probability of being relevant: from, to, documents,
        mean probability, share relevant.
    """

    pairs: int
    topics: int
    missing: int
    missing_reasons: dict[str, int]
    left_out: int
    further: int
    grades: list[int]
    threshold: int
    values: dict[str, float]
    ci: dict[str, tuple[float, float] | None]
    undefined: dict[str, str]
    confusion: list[list[int]]
    per_grade: dict[int, dict[str, float | None]]
    reliability: list[dict[str, float | None]]

    def to_json(self) -> dict[str, Any]:
        """The object that `stopgap agree --json` has for one labeler."""
        found: dict[str, Any] = {key: getattr(self, key) for key in _AS_THEY_ARE}
        for name, value in self.values.items():
            group, _, inner = name.partition(".")
            shown = value if math.isfinite(value) else None
            if inner:
                found.setdefault(group, {})[inner] = shown
            else:
                found[name] = shown
        found["per_grade"] = {str(grade): row for grade, row in self.per_grade.items()}
        found["ci"] = {name: None if ends is None else list(ends) for name, ends in self.ci.items()}
        found["undefined"] = self.undefined
        return found


def rate(of: Judged, one: Rater, *, seed: int, resamples: int) -> Rated:
    """How a rater agrees with the assessor of `of`, over the pairs that both graded."""
    pairs = both(of, positions(of), one.grade)
    size, topics = len(of.grades), len(pairs.topics)
    tables = count_tables(pairs.topic, pairs.first, pairs.second, (topics, size, size))
    score = one.score[pairs.rows]
    bins = binned(score)
    run = _as_run(of, pairs, score)
    by_topic = {
        "tables": tables,
        "orders": orders(tables),
        "scores": count_tables(pairs.topic, pairs.first, bins, (topics, size, int(bins.max()) + 1)),
        "run": np.column_stack(run.values["labels"]),
    }
    reached = one.reached(int(of.grades[of.middle]))
    if reached is not None:
        by_topic["errors"] = _errors(pairs, reached[pairs.rows], of.middle)
    whole = {name: array.sum(axis=0, keepdims=True) for name, array in by_topic.items()}
    values = {name: float(found[0]) for name, found in _statistics(whole, of, run, topics).items()}
    values |= _packages(of, pairs, score)
    undefined = {
        name: _why(name, of, whole["tables"][0]) for name, value in values.items() if math.isnan(value)
    }
    ci: dict[str, tuple[float, float] | None] = dict.fromkeys(values)
    if topics > 1:
        drawn = _statistics(resampled(by_topic, seed, resamples), of, run, topics)
        ci = {name: interval(drawn[name]) if name not in undefined else None for name in values}
        no_interval = "too many resamples of the topics lack a grade"
    else:
        no_interval = "one topic does not say how topics differ"
    undefined |= {f"ci.{name}": no_interval for name in values if not ci[name] and name not in undefined}
    table = whole["tables"][0].astype(np.int64)
    return Rated(
        pairs=len(pairs.rows),
        topics=topics,
        missing=of.frame.height - len(pairs.rows),
        missing_reasons=one.reasons,
        left_out=of.left_out,
        further=one.further,
        grades=of.grades.tolist(),
        threshold=int(of.grades[of.middle]),
        values=values,
        ci=ci,
        undefined=undefined,
        confusion=table.tolist(),
        per_grade={int(g): _grade(table, i) for i, g in enumerate(of.grades)},
        reliability=_curve(whole["errors"][0]) if "errors" in whole else [],
    )


def _statistics(sums: Mapping[str, Floats], of: Judged, run: Measurement, topics: int) -> dict[str, Floats]:
    """Every value by name, (n,), out of (n, ...) sums over topics."""
    tables, grades = sums["tables"], of.grades
    binary = distances(np.arange(2), 0)
    at = {int(g): kappas(cut(tables, i), binary) for i, g in enumerate(grades) if i}
    missing = np.full(len(tables), np.nan)
    errors = errors_of(sums["errors"]) if "errors" in sums else {"ece": missing, "brier": missing}
    return {
        "kappa": kappas(tables, distances(grades, 0)),
        "kappa_linear": kappas(tables, distances(grades, 1)),
        "kappa_quadratic": kappas(tables, distances(grades, 2)),
        "kappa_binary": at[int(grades[of.middle])],
        **{f"kappa_at.{g}": found for g, found in at.items()},
        "alpha_nominal": alphas(tables, "nominal"),
        "alpha_ordinal": alphas(tables, "ordinal"),
        **differences(tables, grades),
        **{f"pairwise_accuracy.{name}": found for name, found in pairwise(sums["orders"]).items()},
        **{f"auc.{int(g)}": aucs(sums["scores"], i) for i, g in enumerate(grades) if i},
        **errors,
        **{f"labels_as_run.{m}": sums["run"][:, i] / topics for i, m in enumerate(run.measures)},
    }


def _packages(of: Judged, pairs: Pairs, score: Floats) -> dict[str, float]:
    """The values that a kept package computes, on the ratings themselves."""
    from sklearn.metrics import roc_auc_score

    found = {
        f"alpha_{level}": krippendorff_alpha(
            np.stack([pairs.first, pairs.second], axis=1), len(of.grades), level
        )
        for level in LEVELS
    }
    for position, grade in enumerate(of.grades.tolist()):
        relevant = pairs.first >= position
        if position and 0 < relevant.sum() < len(relevant):
            found[f"auc.{grade}"] = float(roc_auc_score(relevant, score))
    return found


def krippendorff_alpha(ratings: Ints, size: int, level: _Level) -> float:
    """Krippendorff's alpha of (units, raters) positions, -1 where there is none; NaN if one grade is all."""
    import krippendorff

    counts = np.stack([(ratings == position).sum(axis=1) for position in range(size)], axis=1)
    counts = counts[counts.sum(axis=1) > 1]
    if np.count_nonzero(counts.sum(axis=0)) < 2:
        return math.nan
    return float(krippendorff.alpha(value_counts=counts, level_of_measurement=level))


def binned(score: Floats) -> Ints:
    """Scores as positions: of their distinct values, or, where those are many, of quantiles."""
    distinct, position = np.unique(score, return_inverse=True)
    if len(distinct) <= _BINS:
        return np.asarray(position, dtype=np.int64)
    edges = np.quantile(score, np.arange(1, _BINS) / _BINS)
    return np.searchsorted(edges, score, side="right").astype(np.int64)


def _as_run(of: Judged, pairs: Pairs, score: Floats) -> Measurement:
    """The rater's scores as a run over the pairs, measured against the judgments of the same pairs."""
    frame = truth(of, pairs.rows)
    run = rank(frame.select("query_id", "doc_id", pl.Series("score", score)))
    threshold = int(of.grades[of.middle])
    return measure({"labels": run}, frame, ["nDCG@10", "AP", f"AP(rel={threshold})"])


def positions(of: Judged) -> Ints:
    """Position in the scale of each judgment."""
    return np.searchsorted(of.grades, of.frame["relevance"].to_numpy())


def truth(of: Judged, rows: Ints) -> pl.DataFrame:
    """QRELS of some judgments (row numbers)."""
    return of.frame[rows].with_columns(gain=pl.col("relevance").cast(pl.Float32), assessor=pl.lit("human"))


def _errors(pairs: Pairs, reached: Floats, middle: int) -> Floats:
    """(topics, bins, 4), as `agree_tables.errors_of` takes them; pairs without a probability are left out."""
    stated = np.isfinite(reached)
    probability = np.clip(reached[stated], 0.0, 1.0)
    relevant = (pairs.first[stated] >= middle).astype(np.float64)
    place = np.minimum((probability * _RELIABILITY).astype(np.int64), _RELIABILITY - 1)
    cell = pairs.topic[stated] * _RELIABILITY + place
    size = len(pairs.topics) * _RELIABILITY
    parts = (np.ones(len(cell)), probability, relevant, (probability - relevant) ** 2)
    columns: list[Floats] = [np.bincount(cell, part, size).astype(np.float64) for part in parts]
    return np.stack(columns, axis=1).reshape(len(pairs.topics), _RELIABILITY, 4)


def _curve(bins: Floats) -> list[dict[str, float | None]]:
    return [
        {
            "from": i / _RELIABILITY,
            "to": (i + 1) / _RELIABILITY,
            "pairs": int(number),
            "probability": float(stated / number) if number else None,
            "relevant": float(relevant / number) if number else None,
        }
        for i, (number, stated, relevant, _) in enumerate(bins)
    ]


def _grade(table: Ints, i: int) -> dict[str, float | None]:
    given, judgments = int(table[:, i].sum()), int(table[i].sum())
    return {
        "precision": table[i, i] / given if given else None,
        "recall": table[i, i] / judgments if judgments else None,
        "judged": judgments,
        "labeled": given,
    }


def _why(name: str, of: Judged, table: Floats) -> str:
    """Why a value is undefined, given the table of all topics."""
    kind, _, level = name.partition(".")
    if kind in ("ece", "brier"):
        return "the labels state no probabilities"
    if kind == "pairwise_accuracy":
        return "no topic has judgments of two grades"
    if kind == "auc":
        side = "no" if not table[int(np.searchsorted(of.grades, int(level))) :].sum() else "every"
        return f"{side} judgment is {level} or more"
    grades = [str(g) for g in of.grades]
    if kind in ("kappa_at", "kappa_binary"):
        edge = level or str(of.grades[of.middle])
        table = cut(table[None], grades.index(edge))[0]
        grades = [f"below {edge}", f"of {edge} or more"]
    said = [
        f"all {who} are {grades[int(uses.argmax())]}"
        for who, uses in (("judgments", table.sum(axis=1)), ("labels", table.sum(axis=0)))
        if np.count_nonzero(uses) == 1
    ]
    return " and ".join(said)
