"""What two raters said of the same documents: read out of qrels and labels, checked, and put side by side.

A pair that only one of them graded is absent: counted, never taken for a grade. Grades of an assessor below 0
are codes ("could not be judged") and are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from harness.arrays import Floats, Ints
from harness.errors import SchemaError, UsageError
from harness.frames import LABELS, QRELS, check, labels_in
from harness.ranking import repeated

__all__ = ["Judged", "Pairs", "Rater", "both", "judged", "rater"]

_WIDEST = 100  # grades of a scale that nobody stated
_KEYS = ["query_id", "doc_id"]


@dataclass(frozen=True)
class Judged:
    """An assessor's judgments, sorted.

    `frame`: query_id, doc_id, relevance (all of the scale). `grades`: the scale, ascending. `left_out`:
    judgments below 0.
    """

    frame: pl.DataFrame
    grades: Ints
    left_out: int

    @property
    def middle(self) -> int:
        """Position in `grades` of the lowest relevant one of a scale that is cut in two: the first that is
        at least half the highest (2 on 0-3, 1 on 0-1)."""
        return max(1, int(np.searchsorted(self.grades, self.grades[-1] / 2)))


@dataclass(frozen=True)
class Rater:
    """What a labeler, or another assessor, said of the pairs of a `Judged`; entry i is of its row i.

    `grade`: position in the scale, -1 where there is none. `score`: expected gain, or the grade. `probs`:
    (n, levels) over `levels` (ascending grades), rows of NaN where there are none; None if no row has any.
    `reasons`: why labels are missing -> how many. `further`: labels of pairs that the assessor did not judge.
    `frame`: QRELS of the labels, for the measures (and `probs` if there are any).
    """

    name: str
    grade: Ints
    score: Floats
    probs: Floats | None
    levels: Ints
    reasons: dict[str, int]
    further: int
    frame: pl.DataFrame

    def reached(self, grade: int) -> Floats | None:
        """P(relevance >= grade), NaN where nothing is said; None if it is said nowhere."""
        if self.probs is None:
            return None
        return np.asarray(self.probs[:, self.levels >= grade].sum(axis=1))


@dataclass(frozen=True)
class Pairs:
    """Grades of two raters, one entry a pair that both graded, sorted by topic.

    `topics`: query ids. `topic`: position in them. `first`, `second`: positions in the scale. `rows`: rows of
    the `Judged`.
    """

    topics: list[str]
    topic: Ints
    first: Ints
    second: Ints
    rows: Ints


def judged(human: pl.DataFrame, grades: Sequence[int] | None = None, name: str = "human") -> Judged:
    """An assessor's judgments out of QRELS: the rows whose assessor is `human`.

    Parameters
    ----------
    grades: the scale; by default all integers from 0 to the highest grade given.

    Raises
    ------
    SchemaError: a column is missing or of another type, or an id or grade is null.
    UsageError: there is no judgment, a pair is judged twice, a scale is no scale, or a judgment is not on it.
    """
    frame = check(human, QRELS, name)
    _complete(frame, [*_KEYS, "relevance", "assessor"], name)
    if not frame.height:
        raise UsageError(f"{name} holds no judgment")
    frame = frame.filter(pl.col("assessor") == "human")
    if not frame.height:
        raise UsageError(f"{name} holds labels only (column 2 of TREC text is 1): no judgment to agree with")
    _once(frame, name, "judged")
    kept = frame.filter(pl.col("relevance") >= 0).select(*_KEYS, "relevance").sort(_KEYS)
    if not kept.height:
        raise UsageError(f"{name}: all {frame.height} judgments are below 0, which says that there is none")
    scale = _scale(kept["relevance"], grades, name)
    return Judged(kept, scale, frame.height - kept.height)


def rater(labels: pl.DataFrame, of: Judged, name: str, grades: Sequence[int] | None = None) -> Rater:
    """What a labeler said of judged pairs.

    Parameters
    ----------
    labels: LABELS, where `relevance` null means no label; or QRELS, of which the labels count (rows whose
        assessor is not `human`) or, where it marks none, all rows.
    grades: what the columns of `probs` stand for; by default 0, 1, 2, ...

    Raises
    ------
    SchemaError: the frame is neither; an id is null; `probs` are of differing lengths, or not of `grades`.
    UsageError: there is no label, or none of a judged pair; a pair is labeled twice; a grade is not on the
        scale.
    """
    frame = _rows(labels, name)
    _once(frame, name, "labeled")
    numbered = of.frame.select(_KEYS).with_row_index("row")
    found = numbered.join(frame, on=_KEYS, how="left", maintain_order="left", coalesce=True)
    has = found["relevance"].is_not_null().to_numpy()
    graded = found.filter(pl.col("relevance").is_not_null())
    if not graded.height:
        raise UsageError(
            f"{name} has no label of a pair that the assessors judged ({of.frame.height} pairs, the first:"
            f" document {of.frame['doc_id'][0]!r} of topic {of.frame['query_id'][0]!r}). Ids are text, so 007"
            " is not 7. Next: label what is judged"
        )
    values = graded["relevance"].to_numpy().astype(np.int64)
    off = np.unique(values[~np.isin(values, of.grades)])
    if len(off):
        raise UsageError(
            f"{name} gives grades that are not on the assessors' scale: {_list(off)}; the scale is"
            f" {_list(of.grades)}. Next: --grades {_list(np.union1d(of.grades, off[off >= 0]), ',')} if that"
            " is the scale; a label that is none is left out of the file, or null"
        )
    grade = np.full(of.frame.height, -1)
    grade[has] = np.searchsorted(of.grades, values)
    score = np.full(of.frame.height, np.nan)
    score[has] = graded["gain"].cast(pl.Float64).fill_null(graded["relevance"].cast(pl.Float64)).to_numpy()
    if not np.isfinite(score[has]).all():
        raise SchemaError(f"{name}: a gain is not finite")
    probs, levels = _probs(graded, has, grades, name)
    lacking = found.filter(pl.col("relevance").is_null())["reason"].fill_null("no label")
    reasons = {str(why): int(n) for why, n in lacking.value_counts(sort=True).sort("reason").iter_rows()}
    further = int(frame["relevance"].is_not_null().sum()) - graded.height
    columns = [*_KEYS, "relevance", pl.Series("gain", score[has], dtype=pl.Float32), "assessor"]
    if probs is not None:
        columns.append("probs")
    return Rater(name, grade, score, probs, levels, reasons, further, graded.select(columns))


def both(of: Judged, first: Ints, second: Ints) -> Pairs:
    """The pairs that two raters graded.

    Parameters
    ----------
    first, second: position in the scale for each row of `of`, -1 where there is no grade.
    """
    rows = np.flatnonzero((first >= 0) & (second >= 0))
    queries = of.frame["query_id"].gather(rows)
    heads = np.flatnonzero((queries != queries.shift(1)).fill_null(True).to_numpy())
    topic = np.repeat(np.arange(len(heads)), np.diff(np.append(heads, len(rows))))
    return Pairs(queries.gather(heads).to_list(), topic, first[rows], second[rows], rows)


def _rows(labels: pl.DataFrame, name: str) -> pl.DataFrame:
    """query_id, doc_id, relevance, gain, assessor, reason, probs of the labels."""
    if "labeler" in labels.columns and "assessor" not in labels.columns:
        frame = check(labels, LABELS, name).rename({"labeler": "assessor"})
    else:
        frame = labels_in(check(labels, QRELS, name))
    if not frame.height:
        raise UsageError(f"{name} holds no label")
    _complete(frame, _KEYS, name)
    missing = [
        pl.lit(None, dtype=kind).alias(column)
        for column, kind in (("reason", pl.String()), ("probs", pl.List(pl.Float32())))
        if column not in frame.columns
    ]
    columns = [*_KEYS, "relevance", "gain", "assessor", "reason", "probs"]
    return frame.with_columns(missing).select(columns).with_columns(pl.col("assessor").fill_null(name))


def _scale(relevance: pl.Series, grades: Sequence[int] | None, name: str) -> Ints:
    given = np.unique(relevance.to_numpy()).astype(np.int64)
    if grades is None:
        if given[-1] > _WIDEST:
            raise UsageError(
                f"{name} gives {_list(given)}: which scale is that? Next: --grades with all grades of it"
            )
        return np.arange(max(1, int(given[-1])) + 1)
    scale = np.unique(np.asarray(list(grades), dtype=np.int64))
    if len(scale) < 2 or scale[0] < 0 or len(scale) != len(grades):
        raise UsageError(f"grades {_list(grades)} are no scale: two grades or more, from 0 on, each once")
    off = given[~np.isin(given, scale)]
    if len(off):
        raise UsageError(f"{name} gives grades that are not among {_list(scale)}: {_list(off)}")
    return scale


def _probs(
    graded: pl.DataFrame, has: np.ndarray, grades: Sequence[int] | None, name: str
) -> tuple[Floats | None, Ints]:
    given = graded["probs"]
    lengths = given.list.len().drop_nulls().unique().sort().to_list()
    if not lengths:
        return None, np.empty(0, np.int64)
    levels = np.arange(lengths[0]) if grades is None else np.unique(np.asarray(list(grades)))
    if lengths != [len(levels)]:
        raise SchemaError(
            f"{name}: probs hold {_list(lengths)} numbers a row, but there are {len(levels)} grades"
        )
    probs = np.full((len(has), len(levels)), np.nan)
    stated = np.flatnonzero(has)[given.is_not_null().to_numpy()]
    probs[stated] = given.drop_nulls().explode().cast(pl.Float64).to_numpy().reshape(-1, len(levels))
    sums = probs[stated].sum(axis=1)
    if not ((np.abs(sums - 1) < 1e-3) & (probs[stated].min(axis=1) >= 0)).all():
        raise SchemaError(f"{name}: probs of a pair are no distribution: below 0, or not 1 in sum")
    return probs, levels


def _complete(frame: pl.DataFrame, columns: list[str], name: str) -> None:
    null = [c for c in columns if frame[c].null_count()]
    if null:
        raise SchemaError(f"{name}: null in {', '.join(null)}")


def _once(frame: pl.DataFrame, name: str, done: str) -> None:
    if len(again := repeated(frame)):
        query, document = frame.select(_KEYS).row(int(again[0]))
        raise UsageError(f"{name}: document {document!r} of topic {query!r} is {done} more than once")


def _list(values: Sequence[int] | Ints, between: str = ", ") -> str:
    return between.join(str(int(v)) for v in values)
