"""One HTML page that answers "may I merge?" and shows what the answer rests on.

The page needs nothing but itself: no script, no font, no image, no request. A content security policy in it
forbids all of these to whatever a document's text may try. It can be attached to a pull request, printed, and
read by a screen reader; it follows the reader's choice of light or dark. The same input gives the same bytes.
"""

from __future__ import annotations

import platform
import shlex
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from harness.errors import UsageError
from harness.report_charts import share_bar
from harness.report_data import Evidence, evidence
from harness.report_html import Html, el, join, name, number, percent, plain, scroller, span, table
from harness.report_style import style
from harness.report_summary import headline, intervals, lead, numbers, slices, verdicts
from harness.report_topics import Shown, moved, movers, per_topic, share_of_score
from harness.report_trust import trust as about_labels
from harness.trec_bytes import file_hash, replace_file

if TYPE_CHECKING:
    from harness.collection import Collection
    from harness.compare import Compared

__all__ = ["origin", "report", "write"]

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_PACKAGES = ("stopgap", "ir-measures", "numpy", "polars", "scipy")
_FIGURES = {
    "kappa": "Cohen's kappa over the grades: agreement beyond chance; 1 is perfect, 0 is chance",
    "kappa_quadratic": "the same, with large disagreements weighing more",
    "kappa_binary": "the same, over relevant or not",
    "auc": "how often a relevant document gets the higher expected grade than another",
    "ece": "calibration error: how far stated probabilities are from what happens; 0 is best",
    "log_loss": "surprise at the assessors' grades, in nats; 0 is best",
    "mae": "mean distance from the assessor's grade, in grades",
    "alpha_ordinal": "Krippendorff's alpha for ordered grades",
}
Runs = Mapping[str, str | Path | pl.DataFrame]
Origin = Mapping[str, Mapping[str, str]]


def report(
    compared: Compared,
    runs: Runs,
    qrels: pl.DataFrame,
    *,
    collection: Collection | None = None,
    grades: Sequence[int] | None = None,
    depth: int = 10,
    topics_shown: int = 10,
    agreement: Mapping[str, float] | None = None,
    trust: Sequence[Mapping[str, Any]] = (),
    provenance: Origin | None = None,
) -> str:
    """The page as one string of HTML.

    Parameters
    ----------
    compared: what `harness.compare.compare` found. `runs`, `qrels`: what it was given: name -> RUN or
        the file of one, and QRELS with `probs` where a labeler filled holes. With the columns `nearest` and
        `similarity` of `fill`'s labels, the page names the judged document that a label leans on.
    collection: where queries and texts come from; without it the page has ids only.
    grades: what the columns of `probs` stand for, ascending; by default the collection's, or 0, 1, 2, ...
    depth: documents of each ranking that are shown. `topics_shown`: topics, for each candidate, whose
        rankings are shown: those with the largest differences by the first measure; 40 at most in all.
    agreement: figures of the labeler, such as `calibration.left_out` of fill's summary (kappa, auc, ece).
    trust: objects that `agree`, `simulate` and `diagnose` give as JSON (`harness.saved`).
    provenance: heading -> what -> value, as `origin` makes it; by default the versions of the packages.

    Raises
    ------
    UsageError: `depth` or `topics_shown` cannot be meant, or `runs` lacks a run of the comparison.
    SchemaError: a frame lacks a column. InputError: a run file cannot be read.
    """
    if depth < 1 or topics_shown < 0:
        raise UsageError(f"depth is {depth} and topics_shown {topics_shown}; at least 1 and 0 are meant")
    told = evidence(compared, runs, qrels, depth)
    if collection is not None and grades is None:
        grades = sorted(collection.grades)
    queries: dict[str, str] = {}
    if collection is not None:
        queries = dict(collection.topics.select("query_id", "text").iter_rows())
    most = _moved(told, collection, queries, grades, depth, topics_shown)
    sections = [
        ("Verdict", "Verdict", verdicts(compared)),
        ("Intervals", "Differences and their intervals", intervals(compared)),
        ("Numbers", "Numbers", numbers(told)),
        ("Slices", "Slices", slices(compared)),
        ("Topics", "Topic by topic", _topics(told, queries)),
        ("Basis", "What the scores rest on", _basis(told)),
        ("Moved most", "Topics that moved most", most),
        ("Labeler", "The labeler's agreement with assessors", _agreement(agreement)),
        ("Trust", "May the labels be believed?", about_labels(trust)),
        ("Notes", "Notes", _notes(compared)),
        ("Origin", "Where this comes from", _origin(origin() if provenance is None else provenance)),
    ]
    return _page(told, [(short, title, body) for short, title, body in sections if body])


def write(page: str, path: str | Path) -> None:
    """Write a page to `path` through a temporary file and a rename: it is there whole or not at all."""
    with replace_file(path) as file:
        file.write(page.encode())


def origin(
    files: Iterable[str | Path] = (),
    command: Sequence[str] | None = None,
    collection: Collection | None = None,
) -> dict[str, dict[str, str]]:
    """What `report` shows as provenance: the command, sha256 of `files` and of the documents, versions.

    Raises
    ------
    InputError: a file cannot be read.
    """
    told: dict[str, dict[str, str]] = {}
    if command is not None:
        told["Command"] = {"run as": shlex.join(command)}
    if hashes := {str(path): file_hash(path) for path in files}:
        told["Files, with their sha256"] = hashes
    if collection is not None:
        told["Collection"] = {"name": collection.name, "sha256 of the documents": collection.corpus_hash}
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    told["Versions"] = found
    return told


def _page(told: Evidence, sections: Sequence[tuple[str, str, Html]]) -> str:
    compared = told.compared
    title = plain(f"{', '.join(compared.candidates)} against {compared.base}")
    links = [el("li", el("a", short, href=f"#{_anchor(short)}")) for short, _, _ in sections]
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        el("meta", name="referrer", content="no-referrer"),
        el("title", f"{title[:120]} · stopgap report"),
        el("style", style()),
    )
    header = el(
        "header",
        el("p", "stopgap report", class_="eyebrow"),
        el("h1", headline(compared)),
        el("p", lead(told), class_="lead"),
        el("nav", el("ul", *links, role="list"), aria_label="Contents"),
    )
    body = [el("section", el("h2", words, id=_anchor(short)), content) for short, words, content in sections]
    whole = el("html", head, el("body", header, el("main", *body)), lang="en")
    return f"<!doctype html>\n{whole}\n"


def _anchor(short: str) -> str:
    return short.lower().replace(" ", "-")


def _each(told: Evidence, make: Mapping[str, Html]) -> Html:
    """One part for each candidate, under its name where there are several."""
    many = len(told.compared.candidates) > 1
    return join(join([el("h3", name(c)) if many else "", part]) for c, part in make.items())


def _topics(told: Evidence, queries: Mapping[str, str]) -> Html:
    return _each(told, {c: per_topic(told, c, queries) for c in told.compared.candidates})


def _basis(told: Evidence) -> Html:
    """Holes of each run, and whether the differences rest on labels."""
    rows = []
    for run, (human, model, nobody) in told.counts.items():
        share = percent(told.compared.measurement.runs[run][f"judged@{told.cutoff}"])
        bar = share_bar(human, model, nobody)
        rows.append((name(run), bar, f"{human:,}", f"{model:,}", f"{nobody:,}", share))
    kinds = (
        (share_bar(1, 0, 0), "an assessor"),
        (share_bar(0, 1, 0), "a labeler"),
        (share_bar(0, 0, 1), "nobody"),
    )
    there = [any(counts) for counts in zip(*told.counts.values(), strict=True)]
    key = [
        el("li", bar, span("", words)) for (bar, words), any_of in zip(kinds, there, strict=True) if any_of
    ]
    legend = el("ul", *key, class_="key", role="list")
    heads = (f"first {told.cutoff} of", "by whom", "assessor", "labeler", "nobody", f"judged@{told.cutoff}")
    caption = (
        f"Who graded the documents in the first {told.cutoff} of each run, over all topics;"
        f" judged@{told.cutoff} counts every grade."
    )
    holes = scroller(table(caption, heads, rows, class_="holes"), "Holes")
    parts = [holes, legend]
    if told.has_labels:
        parts.append(_each(told, {c: share_of_score(told, c) for c in told.compared.candidates}))
    return join(parts)


def _moved(
    told: Evidence,
    collection: Collection | None,
    queries: Mapping[str, str],
    grades: Sequence[int] | None,
    depth: int,
    shown: int,
) -> Html | None:
    """The topics that moved most, and a legend of the grades."""
    compared = told.compared
    found = {c: moved(told, c, shown) for c in compared.candidates}
    if not any(found.values()):
        return None
    texts: dict[str, str] = {}
    if collection is not None and collection.has_text:
        docs = {
            str(row["doc_id"])
            for c, moves in found.items()
            for move in moves
            for run in (compared.base, c)
            for row in told.ranking(run, move.query_id)[:depth]
        }
        texts = dict(collection.texts(sorted(docs)).select("doc_id", "text").iter_rows())
    what = Shown(depth, queries, texts, grades)
    parts = {
        c: movers(told, c, moves, what, first_open=i == 0)
        for i, (c, moves) in enumerate(found.items())
        if moves
    }
    intro = [
        f"By {compared.measures[0]}; first the ranking of ",
        name(compared.base),
        ", then the candidate's. A box with a solid edge is an assessor's grade, filled if above 0; one with"
        " a dashed edge a labeler's: the grade it expects, and the chances it gives to each. A dotted edge:"
        " nobody graded it.",
    ]
    return join([el("p", join(intro), class_="note"), _grades(collection), _each(told, parts)])


def _grades(collection: Collection | None) -> Html:
    """What the grades mean, where the collection says more than their numbers; nothing otherwise."""
    named = {} if collection is None else collection.grades
    if all(words == f"grade {grade}" for grade, words in named.items()):
        return Html()
    words = " · ".join(f"{grade} {said.partition(':')[0]}" for grade, said in named.items())
    return el("p", f"Grades: {words}.", class_="note")


def _agreement(figures: Mapping[str, float] | None) -> Html | None:
    if not figures:
        return None
    rows = [(name(key), number(value, 3), _FIGURES.get(key, "")) for key, value in figures.items()]
    caption = "Each judged document labeled without its own judgment, against what its assessor said."
    return scroller(table(caption, ("figure", "value", "what it says"), rows), "Agreement")


def _notes(compared: Compared) -> Html | None:
    if not compared.notes:
        return None
    return el("ul", *(el("li", note) for note in compared.notes))


def _origin(told: Origin) -> Html | None:
    parts = []
    for heading, facts in told.items():
        rows = [(name(key, 400), el("code", value)) for key, value in facts.items()]
        parts.append(table(heading, ("what", "value"), rows, class_="facts"))
    return join(parts) if parts else None
