"""Qrels with holes, and a labeler -> filled qrels that say who judged what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import polars as pl

from harness.accounting import Account, Counted
from harness.asking import Engine
from harness.calibrate import calibrate
from harness.calibrator import Calibrator
from harness.collection import Collection
from harness.errors import UsageError
from harness.examples import example_batches
from harness.frames import LABELS, QRELS, Runs, check
from harness.judgments import SHIFTS
from harness.labeling import Labeler, Progress, load, signal_batches
from harness.ledger import Ledger
from harness.pool import found_once
from harness.pool import holes as find_holes
from harness.pool import pool as make_pool

__all__ = ["Filled", "fill", "merge"]

_KEYS = ["query_id", "doc_id"]
_MORE: dict[str, pl.DataType] = {
    "probs": LABELS["probs"],
    **dict.fromkeys(SHIFTS, pl.Float32()),
    "nearest": pl.String(),
    "similarity": pl.Float32(),
}
"""What a filled qrels says of a label beside the columns of QRELS; null in assessors' rows."""


@dataclass(frozen=True)
class Filled:
    """What `fill` made.

    Attributes
    ----------
    qrels: QRELS with `probs`, `shift_all` and `shift_topic` (`harness.draws` says what these are), `nearest`
        and `similarity`, all null in assessors' rows; sorted by query_id and doc_id.
    labels: LABELS, with the same columns, for the pairs that were to be labeled; `relevance` null, with a
        reason, where there is none.
    summary: `pool`, `holes`, `labeled`, `unlabeled` (reason -> pairs), `model_calls` (pairs a model was
        asked), `cache_hits`, `near_duplicates` (holes whose nearest judged document is almost the same),
        `calibration` (the report of `calibrate`).
    calibrator: what turned signals into labels; it can label another collection on the same scale. None where
        there was nothing to label, or no signal at all.
    accounts: what each labeler took (`harness.accounting`), time included; the rest is the same every time.
    """

    qrels: pl.DataFrame
    labels: pl.DataFrame
    summary: dict[str, Any]
    calibrator: Calibrator | None
    accounts: list[Account] = field(default_factory=list)


def fill(
    runs: Runs,
    qrels: pl.DataFrame,
    collection: Collection,
    labeler: str | Labeler | Sequence[str | Labeler],
    *,
    depth: int,
    mode: Literal["holes", "pool"] = "holes",
    neighbours: bool = True,
    ledger: str | Path | Ledger | None = None,
    calibrator: Calibrator | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    engine: Engine | None = None,
) -> Filled:
    """Label what nobody judged in the top `depth` of the runs, and put the labels beside the judgments.

    Labels of an earlier filling that `qrels` may carry are made anew; only assessors' rows count as
    judgments. So filling twice gives what filling once gives. A topic that the qrels do not have is not
    filled: no measure would count it.

    Parameters
    ----------
    labeler: a registered name, `module:object`, a labeler, or several of these, whose signals are then
        stacked.
    mode: `holes` labels what is unjudged and keeps every judgment. `pool` gives qrels without any judgment,
        in which every pooled and every judged pair is labeled, a judged one without regard to its own
        judgment: for those who hold that judgments and labels must not be mixed (Abbasiantaeb et al., arXiv
        2405.05600).
    neighbours: let a topic's judgments speak about its other documents.
    ledger: where labelers' signals are kept; None: nowhere.
    engine: asks labelers elsewhere (`harness.ray_engine.RayEngine`); they have to be given by their names.
    calibrator: one fitted elsewhere. With it, empty qrels are filled on every topic of the runs.

    Raises
    ------
    UsageError: no labeler, or an unknown mode.
    CalibrationError: too few judgments to calibrate with.
    """
    if mode not in ("holes", "pool"):
        raise UsageError(f"unknown mode {mode!r}. Available: holes, pool")
    specs = [labeler] if isinstance(labeler, str) or not isinstance(labeler, Sequence) else list(labeler)
    if not specs:
        raise UsageError("no labeler given. Next: stopgap labelers")
    labelers = [load(s, collection.grades) if isinstance(s, str) else s for s in specs]
    judged = check(qrels, QRELS, "qrels").filter(pl.col("assessor") == "human")
    pooled = make_pool(runs, depth)
    if qrels.height:
        pooled = pooled.join(qrels.select("query_id").unique(), on="query_id", how="semi")
    unjudged = find_holes(runs, judged, depth).sort(_KEYS) if judged.height else pooled.sort(_KEYS)
    wanted = unjudged if mode == "holes" else pl.concat([pooled, judged.select(_KEYS)]).unique().sort(_KEYS)
    if not wanted.height:
        return _nothing_to_do(judged, pooled.height)
    asked = pl.concat([wanted, judged.select(_KEYS)]).unique().sort(_KEYS)

    book = ledger if ledger is None or isinstance(ledger, Ledger) else Ledger(ledger)
    counted = [
        Counted(each, s if isinstance(s, str) else None) for each, s in zip(labelers, specs, strict=True)
    ]
    signals = []
    for number, each in enumerate(counted):
        batches = iter([asked])
        if each.needs_text:
            batches = example_batches(each, collection.pair_batches(asked), collection, judged)
        told = _part(progress, number, len(counted), asked.height)
        signals.append(pl.concat(signal_batches(each, batches, ledger=book, progress=told, engine=engine)))
    accounts = [a for c, s in zip(counted, signals, strict=True) for a in c.accounts(s)]
    heard = any(s["reason"].null_count() for s in signals)
    if mode == "holes" and judged.height and not heard and any(c.asked and c.needs_text for c in counted):
        return _unheard(judged, wanted, signals, accounts, (pooled.height, unjudged.height))
    done = calibrate(
        signals,
        judged,
        list(collection.grades),
        neighbours=neighbours,
        calibrator=calibrator,
        found_once=found_once(runs, depth),
        seed=seed,
    )
    labels = wanted.join(done.labels, on=_KEYS, how="left", maintain_order="left")
    filled = merge(judged if mode == "holes" else judged.clear(), labels)
    summary = _summary((pooled.height, unjudged.height), labels, accounts, done.report)
    return Filled(filled, labels, summary, done.calibrator, accounts)


def merge(judged: pl.DataFrame, labels: pl.DataFrame) -> pl.DataFrame:
    """QRELS with what is known of labels: every judgment as it is, and a row for each label whose pair nobody
    judged."""
    labels = check(labels, LABELS, "labels")
    labels = labels.with_columns(
        pl.lit(None, t).alias(c) for c, t in _MORE.items() if c not in labels.columns
    )
    rows = (
        labels.filter(pl.col("relevance").is_not_null())
        .join(judged, on=_KEYS, how="anti")
        .select(*_KEYS, "relevance", "gain", pl.col("labeler").alias("assessor"), *_MORE)
    )
    mine = judged.select(*QRELS).with_columns(pl.lit(None, t).alias(c) for c, t in _MORE.items())
    return pl.concat([mine, rows]).sort(_KEYS)


def _part(progress: Progress | None, number: int, labelers: int, pairs: int) -> Progress | None:
    """Progress over all labelers from the progress of one."""
    if progress is None:
        return None
    return lambda done, _: progress(number * pairs + done, labelers * pairs)


def _summary(
    found: tuple[int, int], labels: pl.DataFrame, accounts: list[Account], report: dict[str, Any]
) -> dict[str, Any]:
    """`found`: pairs of the pool, and holes among them."""
    missing = labels.filter(pl.col("relevance").is_null())
    reasons = missing["reason"].fill_null("no signal").value_counts(sort=True)
    return {
        "pool": found[0],
        "holes": found[1],
        "labeled": labels.height - missing.height,
        "unlabeled": dict(reasons.iter_rows()),
        "model_calls": sum(a["asked"] for a in accounts if "part_of" not in a),
        "cache_hits": sum(a["cache_hits"] for a in accounts if "part_of" not in a),
        "near_duplicates": report.get("near_duplicates", 0),
        "calibration": report,
    }


def _unheard(
    judged: pl.DataFrame,
    wanted: pl.DataFrame,
    signals: list[pl.DataFrame],
    accounts: list[Account],
    found: tuple[int, int],
) -> Filled:
    """What there is when labelers were asked and none had a signal (a server was down): holes stay holes, and
    say why. The next run asks again."""
    reasons = pl.concat([s.select(*_KEYS, "reason") for s in signals])
    reasons = reasons.unique(_KEYS, keep="first", maintain_order=True)
    empty = {c: t for c, t in {**LABELS, **_MORE}.items() if c not in (*_KEYS, "labeler", "reason")}
    labels = (
        wanted.join(reasons, on=_KEYS, how="left", maintain_order="left")
        .with_columns(pl.lit(None, t).alias(c) for c, t in empty.items())
        .with_columns(labeler=pl.lit("+".join(a["labeler"] for a in accounts if "part_of" not in a)))
        .select(*LABELS, "nearest", "similarity", *SHIFTS)
    )
    return Filled(merge(judged, labels), labels, _summary(found, labels, accounts, {}), None, accounts)


def _nothing_to_do(judged: pl.DataFrame, pooled: int) -> Filled:
    """Every pooled pair is judged already."""
    labels = pl.DataFrame(schema=LABELS)
    summary = {
        "pool": pooled, "holes": 0, "labeled": 0, "unlabeled": {}, "near_duplicates": 0, "calibration": {},
        "model_calls": 0, "cache_hits": 0,
    }  # fmt: skip
    return Filled(merge(judged, labels), labels, summary, None)
