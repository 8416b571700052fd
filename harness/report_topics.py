"""The lower half of the page: each topic's difference, and the topics that moved most, by document."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.report_charts import columns, delta_bar, scale, scatter
from harness.report_data import HUMAN, Evidence, Move
from harness.report_html import (
    Html,
    clip,
    count,
    el,
    hidden,
    join,
    name,
    number,
    scroller,
    signed,
    span,
    table,
)

__all__ = ["SHOWN_WHOLE", "Shown", "moved", "movers", "per_topic", "share_of_score"]

SHOWN_WHOLE = 40
"""Up to this many topics each has its bar in sight; of more, the ends have, and the rest can be opened."""
_ENDS = 10
_OPEN = 2  # topics whose rankings are open at once
_ROWS = 10_000  # of all tables of every topic; with more topics and candidates the page would be too large
_MOVED = 40  # topics, over all candidates, whose rankings are shown
_TEXT, _TITLE = 300, 120  # characters of a document, and of its first line as a title
Queries = Mapping[str, str]


@dataclass(frozen=True)
class Shown:
    """What is shown of a ranking: `depth` documents, the queries and texts by id, the grades of `probs`."""

    depth: int
    queries: Queries
    texts: Mapping[str, str]
    grades: Sequence[int] | None


def per_topic(told: Evidence, candidate: str, queries: Queries) -> Html:
    """Columns for each measure; then the topics by name with their bars, for the first measure."""
    compared = told.compared
    charts = []
    for measure in compared.measures:
        found = told.moves(candidate, measure)
        named = [m.query_id for m in (*found[:1], *found[-1:])]
        title = f"Differences by {measure} of {candidate} from {compared.base}, topic by topic"
        chart = columns(title, [m.delta for m in found], *named)
        charts.append(el("figure", el("figcaption", name(measure), _tally(found)), chart))
    first = compared.measures[0]
    found = told.moves(candidate, first)
    parts = [el("div", *charts, class_="many")]
    caption = f"By {first}, from the largest gain to the largest loss."
    if len(found) <= SHOWN_WHOLE:
        return join([*parts, _bars(found, [], f"Every topic. {caption}", queries)])
    ends = (found[:_ENDS], found[-_ENDS:])
    parts.append(_bars(*ends, f"The topics at both ends. {caption}", queries, len(found) - 2 * _ENDS))
    if len(found) * len(compared.candidates) > _ROWS:
        return join([*parts, el("p", "stopgap measure --per-topic gives every topic.", class_="note")])
    rows = [(_topic(m, queries), number(m.base), number(m.candidate), signed(m.delta)) for m in found]
    heads = ("topic", name(compared.base, 40), name(candidate, 40), "difference")
    whole = table(f"Every topic. {caption}", heads, rows, class_="deltas")
    summary = el("summary", span("", f"All {len(found):,} topics as a table"))
    parts.append(el("details", summary, el("div", scroller(whole, "All topics"), class_="inner")))
    return join(parts)


def _tally(found: Sequence[Move]) -> str:
    wins, losses = sum(m.delta > 0 for m in found), sum(m.delta < 0 for m in found)
    return f": {wins:,} up, {len(found) - wins - losses:,} the same, {losses:,} down"


def _topic(move: Move, queries: Queries) -> Html:
    query = queries.get(move.query_id)
    said = [name(move.query_id)]
    if query:
        said.append(el("bdi", clip(query, 90), class_="q"))
    return join(said)


def _bars(
    above: Sequence[Move], below: Sequence[Move], caption: str, queries: Queries, between: int = 0
) -> Html:
    """A table of topics with their bars; `between`: how many are left out in the middle."""
    on = scale(m.delta for m in (*above, *below))

    def row(m: Move) -> Html:
        said = signed(m.delta)
        tone = {"+": " up", "−": " down"}.get(said[0], "")
        bar = el("td", delta_bar(on, m.delta), class_="barcell")
        return el("tr", el("th", _topic(m, queries), scope="row"), bar, el("td", said, class_=f"n{tone}"))

    rows = [row(m) for m in above]
    if between:
        rows.append(el("tr", el("td", f"{count(between, 'topic')} between these", colspan=3, class_="gap")))
    rows += [row(m) for m in below]
    heads = [
        el("th", "topic", scope="col"),
        el("td", class_="barcell"),
        el("th", "difference", scope="col", class_="n numbercell"),
    ]
    head, body = el("thead", el("tr", *heads)), el("tbody", *rows)
    return el("table", el("caption", caption), head, body, class_="deltas fixed")


def share_of_score(told: Evidence, candidate: str) -> Html:
    """Each topic's difference against how much of its top a labeler graded: do the gains rest on labels?"""
    first, k = told.compared.measures[0], told.cutoff
    shares = told.shares(candidate)
    found = [(shares.get(m.query_id, 0.0), m.delta) for m in told.moves(candidate, first)]
    groups = [
        ("none", 0.0, 0.0),
        ("up to a quarter", 0.0, 0.25),
        ("up to a half", 0.25, 0.5),
        ("more", 0.5, 1.0),
    ]
    rows = []
    for words, low, high in groups:
        inside = [d for s, d in found if (s == 0 if high == 0 else low < s <= high)]
        if inside:
            ups, downs = (f"{sum(side * d > 0 for d in inside):,}" for side in (1, -1))
            rows.append((words, f"{len(inside):,}", signed(math.fsum(inside) / len(inside)), ups, downs))
    title = f"Difference by {first} against the share of labels, topic by topic"
    said = "; ".join(
        f"{row[0]}: {count(int(row[1].replace(',', '')), 'topic')}, mean {row[2]}" for row in rows
    )
    across = f"How much of the first {k} of both runs a labeler graded, across; the difference by "
    caption = join([across, name(first), ", upwards. One dot a topic."])
    heads = ("graded by a labeler", "topics", "mean difference", "up", "down")
    figure = el("figure", el("figcaption", caption), scatter(title, found, f"{said}."))
    if len(rows) < 2:
        return figure
    return el(
        "div", figure, scroller(table("The same in groups of topics.", heads, rows), "Groups"), class_="two"
    )


def moved(told: Evidence, candidate: str, shown: int) -> list[Move]:
    """The topics with the largest differences by the first measure, up or down; none that stayed the same.

    As many as `shown`, but no more than 40 for all candidates together.
    """
    found = [m for m in told.moves(candidate, told.compared.measures[0]) if m.delta]
    most = max(1, _MOVED // len(told.compared.candidates))
    return sorted(found, key=lambda m: (-abs(m.delta), m.query_id))[: min(shown, most)]


def movers(told: Evidence, candidate: str, found: Sequence[Move], shown: Shown, *, first_open: bool) -> Html:
    """The topics of `moved`: both rankings side by side, with who graded what, and the texts."""
    parts = []
    base, level = told.compared.base, 4 if len(told.compared.candidates) > 1 else 3
    for i, move in enumerate(found):
        ours, theirs = (told.ranking(run, move.query_id) for run in (base, candidate))
        sides = [
            _side(base, ours, theirs, shown, level + 1, ("leaves", "to")),
            _side(candidate, theirs, ours, shown, level + 1, ("new in", "from")),
        ]
        heading = [name(move.query_id)]
        if query := shown.queries.get(move.query_id):
            heading += [Html(" "), el("bdi", clip(query, 160), class_="t")]
        tone = "up" if move.delta > 0 else "down"
        change = f"{number(move.base, 3)} → {number(move.candidate, 3)} "
        summary = el("summary", el(f"h{level}", *heading), span("q", change, span(tone, signed(move.delta))))
        inner = el("div", el("div", *sides, class_="two"), class_="inner")
        parts.append(el("details", summary, inner, class_="moved", open=first_open and i < _OPEN))
    return join(parts)


def _side(
    run: str,
    rows: Sequence[Mapping[str, Any]],
    other: Sequence[Mapping[str, Any]],
    shown: Shown,
    level: int,
    words: tuple[str, str],
) -> Html:
    """One run's ranking of one topic; `words` say that the other lacks a document, or has it elsewhere."""
    there = {row["doc_id"]: int(row["rank"]) for row in other if row["rank"] < shown.depth}
    items = []
    for row in rows[: shown.depth]:
        doc, rank = str(row["doc_id"]), int(row["rank"])
        if doc not in there:
            place = f"{words[0]} the first {shown.depth}"
        else:
            place = "same place" if there[doc] == rank else f"{words[1]} {there[doc] + 1}"
        meta = el("div", _grade(row), name(doc, 80), span("", place), class_="meta")
        body = [meta, _chances(row, shown.grades), *_text(shown.texts.get(doc))]
        items.append(el("li", span("rank", f"{rank + 1}"), el("div", *body)))
    listing = el("ol", *items, class_="ranking", role="list")
    nothing = el("p", "Nothing retrieved.", class_="note")
    return el("div", el(f"h{level}", name(run), class_="run"), listing if items else nothing, class_="side")


def _text(text: str | None) -> list[Html]:
    """A document: its first line as a title where it is short enough, and the beginning of the rest."""
    if not text or text.isspace():
        return []
    first, _, rest = text.lstrip().partition("\n")
    if not rest.strip() or len(first) > _TITLE:
        return [el("p", clip(text, _TEXT), class_="doc", dir="auto")]
    return [el("p", clip(first, _TITLE), class_="title", dir="auto"),
            el("p", clip(rest, _TEXT - len(first)), class_="doc", dir="auto")]  # fmt: skip


def _grade(row: Mapping[str, Any]) -> Html:
    """Who graded, and what: in words, by the edge of the box, by colour; an assessor's is filled above 0."""
    if row["assessor"] is None:
        return span("grade none", hidden("grade: "), "unjudged")
    if row["assessor"] == HUMAN:
        some = " some" if row["relevance"] > 0 else ""
        return span(f"grade human{some}", hidden("grade "), f"{row['relevance']} human")
    return span("grade model", hidden("expected grade "), f"≈ {number(row['gain'], 1)} model")


def _chances(row: Mapping[str, Any], grades: Sequence[int] | None) -> Html | None:
    """What a labeler thinks of each grade, and the judged document that it has most in common with."""
    if row["assessor"] in (None, HUMAN):
        return None
    said: list[Html] = []
    if probs := row["probs"]:
        steps = grades if grades is not None and len(grades) == len(probs) else range(len(probs))
        each = ", ".join(f"{grade}: {100 * p:.0f} %" for grade, p in zip(steps, probs, strict=True))
        said.append(join([f"chances of {each}"]))
    if row["nearest"] is not None:
        near = ["nearest judged document: ", name(row["nearest"], 80)]
        said.append(join([*near, f", similarity {number(row['similarity'], 2)}"]))
    return el("p", join(said, "; "), class_="chances") if said else None
