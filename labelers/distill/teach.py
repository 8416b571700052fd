"""The stage `teach`: for each pair a distribution over grades, by the teachers' word.

Teachers are labelers, by any name that `--labeler` takes, and `human`, the judgments. A judged pair has the
assessor's grade where `human` is among the teachers: a human's word is never blended with a model's. Any
other pair has the labelers' distributions, blended by their weights; a pair that one of them did not answer
is null with the reason, so that all targets are the same blend, and is left out of training. What a labeler
has answered is in the ledger: running again asks only for what is missing.

Before anything is written, all pairs are checked against the test topics (`labelers.distill.leaks`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from harness.arrays import Floats
from harness.errors import InputError, UsageError
from harness.frames import PAIRS as PAIR_COLUMNS
from labelers.distill.config import HUMAN
from labelers.distill.leaks import Pair, refuse
from labelers.distill.negatives import PAIRS
from labelers.distill.rows import Row
from labelers.distill.stages import UNLABELED, Made, Stage
from labelers.distill.teachers import Answers, ask, judged, one_grade_only
from labelers.distill.train_data import wrong_target
from labelers.distill.work import Work

__all__ = ["TAUGHT", "training_pairs"]


def _labelers(work: Work) -> list[str]:
    return [name for name in work.config.teach.teachers if name != HUMAN]


def _made_of(work: Work) -> dict[str, Any]:
    return {
        "settings": work.config.teach.model_dump(),
        "grades": work.scale,
        "corpus": work.collection.corpus_hash,
        "teachers": [work.labeler(name).fingerprint for name in _labelers(work)],
        "human": work.made_of_human(),
    }


def _check(work: Work) -> None:
    """Load all teachers, and refuse a teacher without what it needs, before any of them is asked."""
    config, settings = work.config, work.settings
    train = work.judgments(work.split.train)
    if HUMAN in config.teach.teachers and train.is_empty():
        what = f'teach.teachers has "{HUMAN}", but no training topic of {work.collection.name} has judgments'
        raise settings.problem("teachers", what, "Next: take it out, or name judgments (human.qrels)")
    for name in _labelers(work):
        if hasattr(work.labeler(name), "embed") and train["relevance"].n_unique() < 2:
            there = "no judgments" if train.is_empty() else "judgments of one grade only"
            what = (
                f"teach.teachers has {name!r}, which gives a score and no grades, and the training topics "
                f"have {there} that could say what a score is worth"
            )
            raise settings.problem(
                "teachers",
                what,
                "Next: judge some documents (human.qrels), or take a teacher that gives grades",
            )


def _run(work: Work, given: Mapping[str, list[Row]]) -> Made:
    rows = given[PAIRS.name]
    scale, config = work.scale, work.config.teach
    pairs = _pairs(work, rows)
    refuse(_leakable(pairs), work.held_out, str(work.out / PAIRS.file))
    _check_grades(work, rows)
    by_human = np.array([HUMAN in config.teachers and row["grade"] is not None for row in rows], dtype=bool)
    known = pairs.with_columns(pl.Series("grade", [row["grade"] for row in rows], dtype=pl.Int64))
    known = known.drop_nulls(["grade", "query", "text"])
    probs = np.full((len(rows), len(scale)), np.nan)
    told: list[dict[str, list[float]]] = [{} for _ in rows]
    reasons: list[str | None] = [None] * len(rows)
    for place, of_human in zip(
        np.flatnonzero(by_human),
        judged([rows[i]["grade"] for i in np.flatnonzero(by_human)], scale, config.smoothing),
        strict=True,
    ):
        probs[place], told[place] = of_human, {HUMAN: _plain(of_human)}
    others = np.flatnonzero(~by_human)
    names = _labelers(work)
    answers: list[Answers] = []
    for name in names if len(others) else []:
        labeler = work.labeler(name)
        how: dict[str, Any] = {"ledger": work.ledger, "progress": work.progress}
        answers.append(ask(labeler, pairs[others].select(list(PAIR_COLUMNS)), known, scale, **how))
    if answers:
        probs[others] = _blend(answers, config.weights)
    for number, row_at in enumerate(others.tolist()):
        for one in answers:
            if np.isfinite(one.probs[number, 0]):
                told[row_at][one.name] = _plain(one.probs[number])
            else:
                reasons[row_at] = reasons[row_at] or f"{one.name}: {one.reasons[number] or 'no signal'}"
        if not answers:
            reasons[row_at] = "not judged, and no other teacher"
    _check_targets(probs, scale)
    taught = [
        {
            "query_id": row["query_id"],
            "doc_id": row["doc_id"],
            "source": row["source"],
            "found": row["found"],
            "probs": _plain(p) if reason is None else None,
            "weight": config.human_weight if row["source"] == "human" else config.synthetic_weight,
            "grade": row["grade"],
            "teachers": said,
            "reason": reason,
            "query": row["query"],
            "document": row["document"],
        }
        for row, p, said, reason in zip(rows, probs, told, reasons, strict=True)
    ]
    missing = Counter(reason for reason in reasons if reason)
    summary = {
        "pairs": len(rows),
        "taught": len(rows) - missing.total(),
        "by human": int(by_human.sum()),
        "teachers": {
            one.name: {
                "answered": int(np.isfinite(one.probs[:, 0]).sum()),
                "calibrated on": one.calibrated,
            }
            for one in answers
        },
        "share of each grade": {
            source: _shares(probs[[row["source"] == source for row in rows]], scale)
            for source in sorted({row["source"] for row in rows})
        },
        "without a label": dict(missing.most_common()),
    }
    failed = bool(missing) and bool(answers)
    return Made(taught, summary, UNLABELED if failed else 0)


def training_pairs(work: Work, rows: Sequence[Row]) -> pl.DataFrame:
    """What a student learns from: the rows of taught.jsonl that have a target, with the documents' texts.

    Returns
    -------
    PAIRS, and `probs` list[f32] over the grades ascending, `weight` f32, `source`.

    Raises
    ------
    UsageError: a pair belongs to a test topic. InputError: a row's probs do not fit the grades, or its
        document is not in the collection.
    """
    path = work.out / TAUGHT.file
    for number, row in enumerate(rows, 1):
        wrong = "" if row["probs"] is None else wrong_target(row["probs"], row["weight"], work.scale)
        if wrong:
            raise InputError(
                path, number, wrong, f"Next: mend the row, or delete {path} to have it made again"
            )
    kept = [row for row in rows if row["probs"] is not None]
    pairs = _pairs(work, kept).with_columns(
        pl.Series("probs", [row["probs"] for row in kept], dtype=pl.List(pl.Float32)),
        pl.Series("weight", [row["weight"] for row in kept], dtype=pl.Float32),
        pl.Series("source", [row["source"] for row in kept], dtype=pl.String),
    )
    lost = pairs.filter(pl.col("text").is_null())
    if lost.height:
        raise InputError(path, None, f"document {lost['doc_id'][0]!r} is not in {work.collection.name}")
    refuse(_leakable(pairs), work.held_out, str(path))
    return pairs


def _pairs(work: Work, rows: Sequence[Row]) -> pl.DataFrame:
    """PAIRS of rows, with the query of the row and the text of the collection."""
    ids = [(row["query_id"], row["doc_id"], row["query"]) for row in rows]
    frame = pl.DataFrame(ids, schema={c: pl.String() for c in ("query_id", "doc_id", "query")}, orient="row")
    texts = work.collection.texts(frame["doc_id"].unique(maintain_order=True))
    return frame.join(texts, on="doc_id", how="left", maintain_order="left")


def _leakable(pairs: pl.DataFrame) -> list[Pair]:
    return [Pair(*row) for row in pairs.select("query_id", "query", "text").iter_rows()]


def _check_grades(work: Work, rows: Sequence[Row]) -> None:
    """Raise InputError where a row's grade is none of the collection's."""
    for number, row in enumerate(rows, 1):
        if row["grade"] is not None and row["grade"] not in work.grades:
            what = f"grade {row['grade']} is none of {', '.join(map(str, work.scale))}"
            raise InputError(work.out / PAIRS.file, number, what)


def _check_targets(probs: Floats, scale: Sequence[int]) -> None:
    """Raise UsageError where there is nothing to learn: no target, or one grade only."""
    there = probs[np.isfinite(probs[:, 0])]
    if not len(there):
        raise UsageError(
            "no pair got a target from any teacher, so there is nothing to learn. Nothing was written"
        )
    only = one_grade_only(there)
    if only is not None:
        raise UsageError(
            f"all {len(there)} targets are of grade {scale[only]}: a student could learn nothing from them. "
            "Nothing was written.\nNext: another teacher, or judgments and negatives of other grades"
        )


def _blend(answers: Sequence[Answers], weights: Sequence[float] | None) -> Floats:
    """The weighted mean of distributions (n, G); NaN where one of them is missing."""
    shares = np.array([1.0] * len(answers) if weights is None else weights)
    shares = shares / shares.sum()
    return np.asarray(np.tensordot(shares, np.stack([one.probs for one in answers]), axes=1))


def _plain(probs: Floats) -> list[float]:
    """Four digits, which sum to 1."""
    rounded = np.round(probs, 4)
    rounded[rounded.argmax()] += 1 - rounded.sum()
    return [round(float(p), 4) for p in rounded]


def _shares(probs: Floats, scale: Sequence[int]) -> dict[str, float]:
    there = probs[np.isfinite(probs[:, 0])]
    if not len(there):
        return {}
    return {
        str(grade): round(float(share), 4) for grade, share in zip(scale, there.mean(axis=0), strict=True)
    }


_NULL = type(None)
TAUGHT = Stage(
    name="teach",
    file="taught.jsonl",
    fields={
        "query_id": (str,),
        "doc_id": (str,),
        "source": (str,),
        "found": (str,),
        "probs": (list, _NULL),
        "weight": (float,),
        "grade": (int, _NULL),
        "teachers": (dict,),
        "reason": (str, _NULL),
        "query": (str,),
        "document": (str,),
    },
    key=("query_id", "doc_id"),
    version=1,
    needs=(PAIRS.name,),
    made_of=_made_of,
    run=_run,
    check=_check,
)
