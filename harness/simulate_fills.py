"""What can be put into holes: nothing, one grade for all, labels, and labels calibrated in several ways.

A filling is a `Patch` over the judgments. What it does not say stays a hole, which counts as not relevant.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from harness.arrays import Bools, Floats, Ints
from harness.collection import Collection
from harness.errors import UsageError
from harness.frames import SIGNALS
from harness.gains import Hits, View
from harness.judgments import Judgments
from harness.labeling import Labeler, Progress, load, signal_batches
from harness.ledger import Ledger
from harness.protocol import shots
from harness.scoring import Spec, score

__all__ = [
    "Filled",
    "Patch",
    "Raw",
    "calibrated",
    "constant",
    "fill_holes",
    "label_signals",
    "nearest_grade",
    "nothing",
    "raw_grades",
    "raw_of_labels",
    "raw_of_signals",
    "signals_of",
]

_KEYS = ["query_id", "doc_id"]
_BINS = 20  # that a labeler's scores are cut into where it gives no grades


@dataclass(frozen=True)
class Patch:
    """Labels for some of the judgments.

    `rows`: which. relevance, gain: (rows,) hard grade and expected gain. probs: (rows, G) over the grades, or
    None. shifts: (rows, 2) as `gains.SHIFTS`, or None.
    """

    rows: Ints
    relevance: Ints
    gain: Floats
    probs: Floats | None = None
    shifts: Floats | None = None


@dataclass(frozen=True)
class Raw:
    """What a labeler says of each judgment, before any calibration.

    `code`: (n,) a number of what it says, -1 where it says nothing. `grade`: (n,) the grade it gives, None if
    it gives scores, whose codes are then those of twenty bins of about the same size.
    """

    code: Ints
    grade: Ints | None


@dataclass(frozen=True)
class Filled:
    """Qrels after a filling: `judgments`, and where each former judgment stands in them (-1: taken away);
    None: all are where they were."""

    judgments: Judgments
    place: Ints | None

    def hits(self, hit: Hits) -> Hits:
        """The hits of a run as these judgments have them."""
        if self.place is None:
            return Hits(self.judgments, hit.all, [])
        view, at = hit.all, self.place[hit.all.judgment]
        kept = at >= 0
        return Hits(self.judgments, View(at[kept], view.topic[kept], view.rank[kept], view.retrieved), [])

    def values(self, spec: Spec, hits: Sequence[Hits]) -> Floats:
        """A measure of all runs, (runs, topics)."""
        return np.stack([score(spec, self.hits(hit)) for hit in hits])


def fill_holes(judgments: Judgments, gone: Bools, patch: Patch) -> Filled:
    """The judgments but those that are gone, with the patch's labels."""
    made = judgments
    if len(patch.rows):
        made = made.with_labels(patch.rows, patch.relevance, patch.gain, patch.probs, patch.shifts)
    left = gone.copy()
    left[patch.rows] = False
    if not left.any():
        return Filled(made, None)
    place = np.where(left, -1, np.cumsum(~left) - 1)
    return Filled(made.only(~left, np.arange(len(judgments.topics))), place)


# -- fills that look at no other document ------------------------------------------------------------------


def nothing() -> Patch:
    """Holes stay holes."""
    return Patch(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))


def constant(relevance: Ints, gone: Bools, seen: Bools, grades: Ints) -> Patch:
    """Every hole has the grades of the judgments `seen`, at their frequencies."""
    rows = np.flatnonzero(gone)
    share = _frequencies(relevance[seen], grades)
    return _drawn(rows, np.tile(share, (len(rows), 1)), grades)


def raw_grades(raw: Raw, holes: Bools) -> Patch:
    """The labeler's own grades."""
    assert raw.grade is not None
    rows = np.flatnonzero(holes & (raw.code >= 0))
    return Patch(rows, raw.grade[rows], raw.grade[rows].astype(np.float64))


def calibrated(relevance: Ints, gone: Bools, seen: Bools, grades: Ints, raw: Raw) -> Patch:
    """Holes have the grades of the judgments `seen` whose label is the same, at their frequencies; of all of
    them, where there is none."""
    rows = np.flatnonzero(gone & (raw.code >= 0))
    probs = np.tile(_frequencies(relevance[seen], grades), (len(rows), 1))
    for code in np.unique(raw.code[rows]):
        same = seen & (raw.code == code)
        if same.any():
            probs[raw.code[rows] == code] = _frequencies(relevance[same], grades)
    return _drawn(rows, probs, grades)


def _frequencies(relevance: Ints, grades: Ints) -> Floats:
    count = np.bincount(np.searchsorted(grades, relevance), minlength=len(grades))
    return np.asarray(count / count.sum())


def _drawn(rows: Ints, probs: Floats, grades: Ints) -> Patch:
    """Labels of these distributions; the hard grade is the one next to the expected gain."""
    gain = (probs * grades).sum(axis=1)
    return Patch(rows, nearest_grade(gain, grades), gain, probs)


def nearest_grade(gain: Floats, grades: Ints) -> Ints:
    """The grade next to each expected gain, the lower of two."""
    return np.asarray(grades[np.abs(gain[:, None] - grades).argmin(axis=1)])


# -- what labelers say ---------------------------------------------------------------------------------------


def signals_of(
    labelers: Sequence[str | Labeler],
    collection: Collection | None,
    qrels: pl.DataFrame,
    *,
    ledger: str | Path | Ledger | None = None,
    progress: Progress | None = None,
) -> list[pl.DataFrame]:
    """SIGNALS of the judged pairs, one frame a labeler, as `simulate` takes them.

    Parameters
    ----------
    collection: where the texts are; None is enough for labelers that read none.

    Raises
    ------
    UsageError: a labeler reads texts and there is no collection, or is shown judgments; or what loading it
    raises.
    """
    grades = collection.grades if collection else {int(g): "" for g in qrels["relevance"].unique() if g >= 0}
    pairs = qrels.filter(pl.col("assessor") == "human").select(_KEYS).sort(_KEYS)
    book = ledger if ledger is None or isinstance(ledger, Ledger) else Ledger(ledger)
    found = []
    for one in labelers:
        labeler = load(one, grades) if isinstance(one, str) else one
        if shots(labeler):
            raise UsageError(
                f"labeler {labeler.name} shows judged documents as examples: it would be shown the judgments "
                "that are to be taken away.\nNext: a prompt without examples"
            )
        if labeler.needs_text and collection is None:
            raise UsageError(f"labeler {labeler.name} reads texts: say where they are with --collection")
        batches = collection.pair_batches(pairs) if collection and labeler.needs_text else iter([pairs])
        used = book if labeler.needs_text else None
        found.append(pl.concat(signal_batches(labeler, batches, ledger=used, progress=progress)))
    return found


def raw_of_labels(labels: pl.DataFrame, pairs: pl.DataFrame) -> Raw:
    """Of a frame query_id, doc_id, relevance (null: no label); `pairs`: those of the judgments, in order."""
    found = pairs.select(_KEYS).join(
        labels.select(*_KEYS, "relevance"), on=_KEYS, how="left", maintain_order="left"
    )["relevance"]
    known = found.is_not_null().to_numpy()
    grade = found.fill_null(0).to_numpy().astype(np.int64)
    values = np.unique(grade[known])
    return Raw(np.where(known, np.searchsorted(values, grade), -1), grade)


def raw_of_signals(signals: pl.DataFrame, pairs: pl.DataFrame, grades: Ints) -> Raw:
    """Of SIGNALS: the likeliest grade, or, of a labeler that gives none, its score's bin.

    Raises
    ------
    UsageError: the labeler's grades are not as many as `grades`.
    """
    found = pairs.select(_KEYS).join(
        signals.select(*_KEYS, "probs", "score"), on=_KEYS, how="left", maintain_order="left"
    )
    said = found["probs"].is_not_null().to_numpy()
    if said.any():
        widths = found["probs"].drop_nulls().list.len().unique().to_list()
        if widths != [len(grades)]:
            raise UsageError(
                f"the labeler gives {' and '.join(map(str, widths))} probabilities; there are {len(grades)} "
                f"grades: {', '.join(map(str, grades.tolist()))}"
            )
        best = found["probs"].list.arg_max().fill_null(0).to_numpy().astype(np.int64)
        return Raw(np.where(said, best, -1), grades[best])
    heard = found["score"].is_not_null().to_numpy()
    value = found["score"].cast(pl.Float64).fill_null(0.0).to_numpy()
    known = value[heard] if heard.any() else value
    edges = np.unique(np.quantile(known, np.linspace(0, 1, _BINS + 1)[1:-1]))
    return Raw(np.where(heard, np.searchsorted(edges, value), -1), None)


def label_signals(raw: Raw, pairs: pl.DataFrame, grades: Ints) -> pl.DataFrame:
    """SIGNALS that say a label's grade with certainty, as the labeler `lookup` does; none where there is no
    label or it is not on the scale."""
    assert raw.grade is not None
    known = (raw.code >= 0) & np.isin(raw.grade, grades)
    certain = (raw.grade[:, None] == grades).astype(np.float32)
    return pairs.select(_KEYS).with_columns(
        pl.when(pl.Series(known)).then(pl.Series(certain.tolist(), dtype=SIGNALS["probs"])).alias("probs"),
        pl.lit(None, pl.Float32).alias("score"),
        pl.lit("labels").alias("labeler"),
        pl.when(~pl.Series(known)).then(pl.lit("no label on the scale")).alias("reason"),
    )
