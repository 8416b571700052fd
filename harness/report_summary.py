"""The upper half of the page: the verdict in words, the numbers, the intervals, the slices."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from harness.report_charts import Scale, axis, interval, scale
from harness.report_data import Evidence
from harness.report_html import (
    Html,
    count,
    el,
    join,
    name,
    number,
    percent,
    prose,
    scroller,
    signed,
    span,
    table,
)

if TYPE_CHECKING:
    from harness.compare import Compared, Comparison

__all__ = ["headline", "intervals", "lead", "numbers", "slices", "verdicts"]

_MARK = {"better": "▲", "worse": "▼", "equivalent": "=", "inconclusive": "?"}
_SAID = {
    "better": "is better than",
    "worse": "is worse than",
    "equivalent": "is equivalent to",
    "inconclusive": "cannot yet be told from",
}
_FEW = 3  # candidates that are named one by one


def headline(compared: Compared) -> Html:
    """The heading of the page: who is compared."""
    if len(compared.candidates) > _FEW:
        return join([count(len(compared.candidates), "candidate"), " against ", name(compared.base, 60)])
    return join([_listed([name(c, 60) for c in compared.candidates]), " against ", name(compared.base, 60)])


def lead(told: Evidence) -> Html:
    """The verdicts of all candidates in sentences, and how much of what was scored anybody has judged."""
    compared = told.compared
    several = len(compared.candidates) > _FEW
    sentences = (_tallied if several else _sentences)(compared)
    topics = count(len(compared.measurement.topics), "topic")
    return join([*sentences, f"{topics}; of the first {told.cutoff} documents, ", _graded(told), "."])


def _sentences(compared: Compared) -> list[Html]:
    """Candidate by candidate, which verdict by which measures."""
    sentences = []
    for candidate in compared.candidates:
        found = compared.found[candidate]
        for verdict in dict.fromkeys([*_SAID, *(c.verdict for c in found.values())]):
            by = [name(m, 60) for m, c in found.items() if c.verdict == verdict]
            said = [name(candidate, 60), f" {_SAID.get(verdict, verdict)} ", name(compared.base, 60), ". "]
            if by:
                sentences.append(join(["By ", _listed(by), ", ", *said]))
    return sentences


def _tallied(compared: Compared) -> list[Html]:
    """Measure by measure, how many candidates got which verdict."""
    sentences = []
    for measure in compared.measures:
        told = [compared.found[c][measure].verdict for c in compared.candidates]
        counts = [f"{told.count(v)} {v}" for v in dict.fromkeys([*_SAID, *told]) if v in told]
        sentences.append(join([f"By {measure}: {', '.join(counts)}. "]))
    return sentences


def _graded(told: Evidence) -> Html:
    """How much a labeler graded and how much nobody, run by run while these are few."""
    total = tuple(map(sum, zip(*told.counts.values(), strict=True)))
    parts = []
    for who, which in (("a labeler", 1), ("nobody", 2)):
        of = [join([percent(total[which], sum(total)), " in all runs"])]
        if len(told.names) <= _FEW:
            each = told.counts.items()
            of = [join([percent(c[which], sum(c)), " in ", name(run, 60)]) for run, c in each]
        if total[which]:
            parts.append(join([who, " graded ", _listed(of)]))
    return _listed(parts) if parts else join(["assessors graded every one"])


def verdicts(compared: Compared) -> Html:
    """One card for each measure: the word, the difference, and why."""
    parts: list[Html] = []
    for candidate in compared.candidates:
        if len(compared.candidates) > 1:
            parts.append(el("h3", name(candidate), " against ", name(compared.base)))
        cards = [_card(compared, candidate, m, compared.found[candidate][m]) for m in compared.measures]
        parts.append(el("ul", *cards, class_="verdicts", role="list"))
    return join(parts)


def _card(compared: Compared, candidate: str, measure: str, found: Comparison) -> Html:
    mark = el("span", _MARK.get(found.verdict, "·"), class_="mark", aria_hidden="true")
    low, high = found.ci
    delta = [f"{signed(found.delta)}, 95 % interval ", span("keep", f"{signed(low)} to {signed(high)}")]
    kind = found.verdict if found.verdict in _SAID else None
    return el(
        "li",
        el("p", name(measure), class_="measure"),
        el("p", mark, found.verdict.capitalize(), class_="word"),
        el("p", *delta, class_="delta"),
        el("p", prose(found.why, [compared.base, candidate]), class_="why") if found.why else None,
        el("p", _within(found), class_="why") if found.margin is not None else None,
        class_=kind,
    )


def _within(found: Comparison) -> str:
    """What the margin says, which is another question than whether there is a difference."""
    kept = "Not worse" if found.noninferior else "Could be worse"
    return f"{kept} by more than the margin of {number(found.margin, 3)}."


def numbers(told: Evidence) -> Html:
    """The table of comparisons, and that of runs."""
    compared = told.compared
    many = len(compared.candidates) > 1
    rows = []
    for candidate in compared.candidates:
        for measure in compared.measures:
            c = compared.found[candidate][measure]
            label = join([name(measure), " · ", name(candidate, 40)]) if many else name(measure)
            rows.append(
                [
                    label,
                    number(c.base),
                    number(c.candidate),
                    signed(c.delta, 4),
                    f"{signed(c.ci[0])} to {signed(c.ci[1])}",
                    _p(c.p),
                    _p(c.p_adjusted),
                    f"{c.wins:,}",
                    f"{c.ties:,}",
                    f"{c.losses:,}",
                    signed(c.effect, 2),
                    number(c.detectable, 3),
                    f"{c.topics_needed:,}" if c.topics_needed is not None else "—",
                ]
            )
    columns = ("measure", "base", "candidate", "difference", "95 % interval", "p", "p, adjusted", "won",
               "tied", "lost", "effect", "detectable", "topics for 80 %")  # fmt: skip
    caption = join(["The candidate's mean less that of ", name(compared.base, 60), "."])
    note = (
        "p: paired sign-flip permutation test; adjusted: over all tests of this comparison together. Effect:"
        " Cohen's d of the paired differences. Detectable: the least difference that these topics would show"
        " in four of five trials. Topics for 80 %: how many would be needed to show the difference seen."
    )
    return join(
        [
            scroller(table(caption, columns, rows, class_="wide"), "Comparisons"),
            el("p", note, class_="note"),
            _runs(told),
        ]
    )


def _p(value: float | None) -> str:
    if value is None or math.isnan(value):
        return "—"
    return "< 0.001" if value < 0.001 else number(value, 3)


def _runs(told: Evidence) -> Html:
    compared = told.compared
    measured = compared.measurement.runs
    labels = told.has_labels
    columns: list[object] = ["run"]
    for measure in compared.measures:
        columns += [name(measure), *(["of it by labels"] if labels else [])]
    judged = f"judged@{told.cutoff}"
    columns += [judged, *(["labeled share"] if labels else []), "missing topics"]
    rows: list[Sequence[object]] = []
    for run in told.names:
        one = measured[run]
        row: list[object] = [name(run)]
        for measure in compared.measures:
            row += [number(one.get(measure)), *([percent(one["score_share"].get(measure))] if labels else [])]
        row += [percent(one[judged]), *([percent(one["labeled_share"])] if labels else [])]
        rows.append([*row, f"{one['missing_topics']:,}"])
    caption = (
        "Each run by itself. A topic that a run lacks counts 0."
        + (" “Of it by labels” is the share of the score that labeled documents bring." if labels else "")
    )  # fmt: skip
    class_ = "wide" if len(columns) > 5 else None
    return scroller(table(caption, columns, rows, class_=class_), "Runs")


def intervals(compared: Compared) -> Html:
    """The interval plot: a row for each candidate and measure, all on one scale."""
    rows = [
        (candidate, measure, compared.found[candidate][measure])
        for measure in compared.measures
        for candidate in compared.candidates
    ]
    told: list[float | None] = []
    for _, _, c in rows:
        told += [c.delta, *c.ci, *(c.label_ci or ()), c.margin, -c.margin if c.margin is not None else None]
    on = scale(told, [end for _, _, c in rows for end in _bounds(c) or ()])
    drawn = [_interval_row(compared, candidate, measure, c, on) for candidate, measure, c in rows]
    return el(
        "figure",
        el(
            "figcaption",
            join(["Right of 0 the candidate is ahead of ", name(compared.base, 60), ", left of it behind."]),
        ),
        *drawn,
        axis(on),
        _key(c for _, _, c in rows),
    )  # fmt: skip


def _interval_row(compared: Compared, candidate: str, measure: str, c: Comparison, on: Scale) -> Html:
    label = [name(measure)]
    if len(compared.candidates) > 1:
        label = [name(measure), Html(" · "), name(candidate, 60)]
    said = [f"{signed(c.delta)} ({signed(c.ci[0])} to {signed(c.ci[1])})"]
    if c.label_ci is not None:
        said.append(f"labels alone {signed(c.label_ci[0])} to {signed(c.label_ci[1])}")
    if ends := _bounds(c):
        said.append(f"bounds {signed(ends[0])} to {signed(ends[1])}")
        if c.flips is not None:
            said.append(f"{count(c.flips, 'grade')} could turn the sign")
        elif ends[0] > 0 or ends[1] < 0:
            said.append("no grading could turn the sign")
    head = el("div", el("b", *label), el("span", " · ".join(said)), class_="head")
    picture = interval(
        on,
        f"{candidate} against {compared.base} by {measure}",
        c.delta,
        c.ci,
        label_ci=c.label_ci,
        bounds=_bounds(c),
        margin=c.margin,
    )
    return el("div", head, picture, class_="row")


def _bounds(c: Comparison) -> tuple[float, float] | None:
    """The bounds, unless they only say the difference again: then there is nothing unjudged."""
    return c.bounds if c.bounds and c.bounds[1] - c.bounds[0] > 1e-9 else None


def _key(found: Iterable[Comparison]) -> Html:
    """What the marks mean, for those that the plot has."""
    found = list(found)
    labels = any(c.label_ci is not None for c in found)
    line = '<svg viewBox="0 0 28 12" aria-hidden="true">{}</svg>'
    marks = [
        (
            '<line class="ci" x1="1" x2="27" y1="6" y2="6"/><circle class="dot" cx="14" cy="6" r="4"/>',
            "difference and its 95 % interval, over other topics"
            + (", and labels that may be wrong" * labels),
        )
    ]
    if labels:
        marks.append(
            (
                '<line class="label-ci" x1="1" x2="27" y1="6" y2="6"/>',
                "the part that the labels' error alone has in it",
            )
        )
    if any(map(_bounds, found)):
        marks.append(
            (
                '<line class="bounds" x1="2" x2="26" y1="6" y2="6"/>',
                "least and greatest difference over every grade that what no assessor judged could have",
            )
        )
    if any(c.margin is not None for c in found):
        marks.append(
            ('<rect class="margin" width="28" height="12"/>', "margin within which it does not matter")
        )
    return el(
        "ul", *(el("li", Html(line.format(mark)), span("", text)) for mark, text in marks), class_="key",
        role="list",
    )  # fmt: skip


def slices(compared: Compared) -> Html | None:
    """The table of slices; None where there are none."""
    rows = [
        [
            name(part),
            *([name(candidate, 60)] if len(compared.candidates) > 1 else []),
            name(measure),
            f"{c.topics:,}",
            signed(c.delta, 4),
            f"{signed(c.ci[0])} to {signed(c.ci[1])}",
            _p(c.p_adjusted),
            el("span", el("span", _MARK.get(c.verdict, "·"), class_="mark", aria_hidden="true"), c.verdict),
        ]
        for part, by_candidate in compared.slices.items()
        for candidate, by_measure in by_candidate.items()
        for measure, c in by_measure.items()
    ]
    if not rows:
        return None
    many = ["candidate"] if len(compared.candidates) > 1 else []
    columns = ["slice", *many, "measure", "topics", "difference", "95 % interval", "p, adjusted", "verdict"]
    caption = "The same comparison on parts of the topics. p is adjusted over all of these tests together."
    return scroller(table(caption, columns, rows, class_="wide"), "Slices")


def _listed(items: Sequence[Html]) -> Html:
    """`a`, `a and b`, `a, b and c`."""
    if len(items) < 2:
        return join(items)
    return join([join(items[:-1], ", "), " and ", items[-1]])
