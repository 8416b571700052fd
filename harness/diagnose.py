"""Where labels go wrong, for whom, and why.

`agree` says how far a labeler agrees with assessors; this says where it does not: in which direction, for
which texts, topics and systems, whether the file is at fault (`diagnose_scale`), whether the labeler would
judge a relative of itself (`circularity`), and whether it can be fooled (`gullibility`).
"""

from __future__ import annotations

from collections.abc import Collection as Names
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from harness.agree import RESAMPLES
from harness.agree_pairs import Judged, Rater, both, judged, rater
from harness.agree_rated import positions
from harness.circularity import Relation, check_circular
from harness.collection import Collection
from harness.diagnose_bias import sensitivity, systems, topics
from harness.diagnose_scale import Finding, scale_checks
from harness.diagnose_terms import disagreement, predictability, terms
from harness.diagnose_texts import Texts, read_texts
from harness.diagnose_words import findings
from harness.errors import UsageError
from harness.frames import labels_in
from harness.gullibility import SAMPLE, gullibility
from harness.labeling import Labeler, Progress, label_id
from harness.ledger import Ledger
from harness.trec_read import read_run

__all__ = ["Diagnosis", "diagnose"]

_PARTS = (
    *("disagreement", "terms", "length", "overlap", "topics", "systems"),
    *("circularity", "gullibility", "scale"),
)


@dataclass(frozen=True)
class Diagnosis:
    """What `diagnose` found; a part that was not asked for is None, and `notes` say what it takes.

    Attributes
    ----------
    reference: `human`, or the name of the labels that the others are compared with.
    grades: the scale. threshold: the grade from which on a document is relevant.
    disagreement, terms, length, overlap, topics, systems: name of the labels -> what `diagnose_terms` and
        `diagnose_bias` say of them; `first` is the reference, `second` the labels.
    circularity: one relation for each run and labeler, with the `size` of those that are shared and allowed:
        measure -> how far the labels favour the run over those that share nothing.
    gullibility: as `harness.gullibility` says. scale: name -> findings.
    """

    reference: str
    grades: list[int]
    threshold: int
    disagreement: dict[str, Any] | None = None
    terms: dict[str, Any] | None = None
    length: dict[str, Any] | None = None
    overlap: dict[str, Any] | None = None
    topics: dict[str, Any] | None = None
    systems: dict[str, Any] | None = None
    circularity: list[dict[str, Any]] | None = None
    gullibility: dict[str, Any] | None = None
    scale: dict[str, list[Finding]] | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def blocked(self) -> list[str]:
        """The names of the labels that nothing may be computed from."""
        return [name for name, found in (self.scale or {}).items() if any(one.blocking for one in found)]

    @property
    def words(self) -> list[str]:
        """What was found, and what was not looked at, a sentence each."""
        return [*findings(self), *(f"{note[0].upper()}{note[1:]}." for note in self.notes)]

    def to_json(self) -> dict[str, Any]:
        """The object that `stopgap diagnose --json` prints."""
        found: dict[str, Any] = {part: getattr(self, part) for part in _PARTS}
        if self.scale is not None:
            found["scale"] = {name: [one.to_json() for one in checks] for name, checks in self.scale.items()}
        head = {"reference": self.reference, "grades": self.grades, "threshold": self.threshold}
        return {**head, **found, "notes": self.words}


def diagnose(
    human: pl.DataFrame | None,
    labels: Mapping[str, pl.DataFrame | str | Path],
    *,
    grades: Sequence[int] | None = None,
    collection: Collection | None = None,
    runs: Mapping[str, str | Path | pl.DataFrame] | None = None,
    groups: Mapping[str, str] | None = None,
    measures: Sequence[str] = ("nDCG@10",),
    labeler: Labeler | None = None,
    allow: Names[str] = (),
    sample: int = SAMPLE,
    ledger: Ledger | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
    progress: Progress | None = None,
) -> Diagnosis:
    """Say where labels go wrong.

    Parameters
    ----------
    human: QRELS; its rows of assessor `human`. None: the first labels stand in for it, and what is called an
        error is a difference between two labelers.
    labels: name -> LABELS, QRELS, or a file of qrels (whose metadata twin, if there is one, is its labeler's
        card). May be empty if `labeler` is given.
    grades: the scale, ascending; by default 0 to the highest judgment.
    collection: where the texts are. runs: name -> file or RUN. groups: name of a run -> its family.
    labeler: whose gullibility is tested, on `sample` judged pairs; `ledger` keeps its signals.
    allow: runs that may share a model, a teacher or training data with a labeler.
    resamples: of the topics, for the intervals.

    Raises
    ------
    Circular: a run shares something with a labeler and is not in `allow`. UsageError: nothing to compare, no
    pair in common, and what `measure` and `gullibility` refuse. InputError, SchemaError: as the readers'.
    """
    if resamples < 1:
        raise UsageError(f"{resamples} resamples give no interval; {RESAMPLES} is usual")
    frames = {name: _frame(given) for name, given in labels.items()}
    of, reference, frames = _reference(human, frames, labeler, grades)
    related = _related(labels, labeler, runs, allow)
    scale = {
        name: scale_checks(of, frame, _place(name, labels[name]), seed, resamples)
        for name, frame in frames.items()
    }
    blocked = {name: [f for f in found if f.blocking] for name, found in scale.items()}
    raters = {name: rater(frame, of, name, grades) for name, frame in frames.items() if not blocked[name]}
    notes = [
        f"{name}: nothing else is computed, since {found.words}"
        for name, several in blocked.items()
        for found in several
    ]
    if of.left_out:
        notes.append(f"{of.left_out:,} judgments below 0 were left out")
    if reference != "human":
        notes.append(
            f"there are no judgments: an error is a difference from {reference}, and either may be wrong"
        )
    texts = read_texts(of, collection) if collection is not None and raters else None
    if texts is not None and texts.missing:
        notes.append(
            f"{texts.missing:,} judged pairs have no text or no query; they are left out of what needs it"
        )
    parts: dict[str, Any] = {"scale": scale or None}
    if raters:
        parts |= _of_pairs(of, raters, texts, seed, resamples)
    if raters and runs is not None and len(runs) > 1:
        ranked = {n: run if isinstance(run, pl.DataFrame) else read_run(run) for n, run in runs.items()}
        parts["systems"] = {
            name: systems(
                of, one, ranked, measures, groups, seed, resamples, apart_from=_shared(related.get(name, []))
            )
            for name, one in raters.items()
        }
    if runs is not None:
        parts["circularity"] = [
            {**one.to_json(), "labels": name, "size": _size(one, name, parts.get("systems"))}
            for name, several in related.items()
            for one in several
        ]
    if labeler is not None and collection is not None:
        parts["gullibility"] = gullibility(
            labeler,
            collection,
            of.frame.with_columns(gain=pl.col("relevance").cast(pl.Float32), assessor=pl.lit("human")),
            sample=sample,
            ledger=ledger,
            seed=seed,
            resamples=resamples,
            progress=progress,
        )
    notes += _absent(bool(frames), collection, runs, labeler)
    threshold = int(of.grades[of.middle])
    return Diagnosis(reference, of.grades.tolist(), threshold, **parts, notes=notes)


# -- what is compared --------------------------------------------------------------------------------------


def _frame(given: pl.DataFrame | str | Path) -> pl.DataFrame:
    from harness.trec import read_qrels

    return given if isinstance(given, pl.DataFrame) else read_qrels(given)


def _place(name: str, given: pl.DataFrame | str | Path) -> str:
    """How a command would name the labels."""
    return name if isinstance(given, pl.DataFrame) else str(given)


def _reference(
    human: pl.DataFrame | None,
    frames: dict[str, pl.DataFrame],
    labeler: Labeler | None,
    grades: Sequence[int] | None,
) -> tuple[Judged, str, dict[str, pl.DataFrame]]:
    """What the labels are compared with, its name, and the labels that are compared with it."""
    if human is not None:
        if not frames and labeler is None:
            raise UsageError(
                "there is nothing to diagnose. Next: --labels with a file of labels, or --labeler"
            )
        return judged(human, grades), "human", frames
    if labeler is not None:
        raise UsageError("a labeler is tested on judged documents. Next: --human with their judgments")
    if len(frames) < 2:
        raise UsageError(
            "labels are compared with judgments or with other labels. Next: --human, or --labels twice"
        )
    (first, frame), *others = frames.items()
    marked = frame.rename({"labeler": "assessor"}) if "assessor" not in frame.columns else frame
    marked = (
        labels_in(marked).filter(pl.col("relevance").is_not_null()).with_columns(assessor=pl.lit("human"))
    )
    return judged(marked, grades, first), first, dict(others)


def _related(
    labels: Mapping[str, pl.DataFrame | str | Path],
    labeler: Labeler | None,
    runs: Mapping[str, str | Path | pl.DataFrame] | None,
    allow: Names[str],
) -> dict[str, list[Relation]]:
    """Name of the labels, or id of the labeler -> how it is related to each run."""
    if runs is None:
        if allow:
            raise UsageError("--allow-circular names a run, but no runs are given")
        return {}
    found = {name: check_circular(runs, given, allow) for name, given in labels.items()}
    if labeler is not None:
        found[label_id(labeler)] = check_circular(runs, labeler, allow)
    return found


def _absent(
    labels: bool, collection: Collection | None, runs: Mapping[str, Any] | None, labeler: Labeler | None
) -> list[str]:
    """What was not looked at, and what it takes."""
    of_texts, of_labels = "terms, length, overlap", "scale, disagreement, topics"
    lacking = [
        (f"{of_labels}, {of_texts}, systems", "labels to compare: --labels", not labels),
        (of_texts, "texts: --collection", labels and collection is None),
        ("systems", "two runs or more", labels and (runs is None or len(runs) < 2)),
        ("circularity", "runs", runs is None),
        ("gullibility", "a labeler and texts: --labeler and --collection", labeler is None),
    ]
    return [f"not looked at: {parts}; it takes {what}" for parts, what, so in lacking if so]


# -- parts -------------------------------------------------------------------------------------------------


def _of_pairs(
    of: Judged, raters: Mapping[str, Rater], texts: Texts | None, seed: int, resamples: int
) -> dict[str, Any]:
    """All that needs judged and labeled pairs only, and perhaps their texts."""
    parts: dict[str, dict[str, Any]] = {"disagreement": {}, "topics": {}}
    if texts is not None:
        parts |= {"terms": {}, "length": {}, "overlap": {}}
    for name, one in raters.items():
        pairs = both(of, positions(of), one.grade)
        parts["disagreement"][name] = disagreement(pairs, of.middle, seed, resamples)
        parts["topics"][name] = topics(of, one, seed, resamples)
        if texts is None:
            continue
        apart = np.flatnonzero((pairs.first >= of.middle) != (pairs.second >= of.middle))
        known = [i for i in apart if texts.text[pairs.rows[i]]]
        said = [texts.text[pairs.rows[i]] or "" for i in known]
        second, topic = pairs.second[known] >= of.middle, pairs.topic[known]
        parts["disagreement"][name]["text"] = predictability(said, second, topic, seed, resamples)
        parts["terms"][name] = terms(said, second, topic)
        parts["length"][name] = sensitivity(of, one, texts.words, seed, resamples)
        parts["overlap"][name] = sensitivity(of, one, texts.overlap, seed, resamples)
    return parts


def _shared(related: Sequence[Relation]) -> set[str]:
    return {one.run.name for one in related if one.status == "shared"}


def _size(one: Relation, name: str, by_labels: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """measure -> how far the labels favour a run that shares something with their labeler."""
    if one.status != "shared" or by_labels is None or name not in by_labels:
        return None
    return {
        measure: found["runs"][one.run.name]["over_unrelated"]
        for measure, found in by_labels[name].items()
        if "runs" in found
    }
