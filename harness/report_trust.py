"""May the labels be believed? What `agree`, `simulate` and `diagnose` said with --json, on the page.

The verbs measure and the page shows: figures are taken as they are in the objects, and none is made here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from harness.report_html import Html, count, el, join, name, number, percent, scroller, table
from harness.saved import Saved, verb_of

__all__ = ["trust"]

_FIGURES = {
    "kappa": ("kappa", "agreement on the grade beyond chance; 1 is perfect, 0 is chance"),
    "kappa_binary": ("kappa, relevant or not", "the same, with the scale cut in two"),
    "kappa_quadratic": ("kappa, quadratic", "the same, with large disagreements weighing more"),
    "alpha_ordinal": ("alpha, ordinal", "Krippendorff's, for ordered grades; from 0.667 on usable"),
    "mae": ("distance", "mean distance of label and judgment, in grades"),
    "bias": ("label - judgment", "above 0: the labels are too generous"),
    "pairwise_accuracy.half_ties": ("documents in order", "pairs that the labels order as the judgments do"),
    "ece": ("calibration error", "how far stated probabilities are from what happens; 0 is best"),
}
_FILLS = {
    "zero": "holes count as not relevant",
    "condensed": "documents without a judgment leave the ranking",
    "constant": "the mean grade in every hole",
    "labels": "the labels as they are",
    "calibrated": "the mean human grade of each label",
    "conditioned": "labels calibrated by the topic's own judgments, as fill does",
    "relabel": "every judgment replaced by a label",
}


def trust(objects: Sequence[Saved]) -> Html | None:
    """The section; None without an object."""
    return join([_SHOWN[verb](one) for one in objects if (verb := verb_of(one))]) if objects else None


# -- agree ---------------------------------------------------------------------------------------------------


def _agreed(one: Saved) -> Html:
    labelers = one.get("labelers") or {one["labeler"]: one}
    ceiling = one.get("ceiling")
    parts = [_agreement(labeler, found, ceiling) for labeler, found in labelers.items()]
    return join([el("h3", "Agreement with assessors"), *parts, _told(one)])


def _agreement(labeler: str, found: Saved, ceiling: Saved | None) -> Html:
    heads = ["figure", "value", "95 % interval", "what it says"]
    if ceiling:
        heads.insert(3, "a second assessor")
    rows = []
    for key, (words, said) in _FIGURES.items():
        value = _inner(found, key)
        if value is None:
            continue
        ends = found.get("ci", {}).get(key)
        row = [words, number(value, 3), _span(ends), said]
        if ceiling:
            row.insert(3, number(_inner(ceiling, key), 3))
        rows.append(row)
    missing = f"; {found['missing']:,} have no label and count in nothing" if found.get("missing") else ""
    caption = join([name(labeler), f": {count(found['pairs'], 'pair')} that both graded{missing}."])
    return scroller(table(caption, heads, rows), "Agreement")


def _inner(found: Saved, key: str) -> float | None:
    outer, _, inner = key.partition(".")
    value = found.get(outer)
    if inner:
        value = value.get(inner) if isinstance(value, Mapping) else None
    return value if isinstance(value, int | float) else None


def _span(ends: Sequence[float] | None) -> str:
    return "–" if not ends else f"{number(ends[0], 3)} to {number(ends[1], 3)}"


def _told(one: Saved) -> Html:
    notes = [el("li", str(note)) for note in one.get("notes", ())]
    return el("ul", *notes) if notes else Html()


# -- simulate ------------------------------------------------------------------------------------------------


def _simulated(one: Saved) -> Html:
    heads = (
        "holes are",
        "verdicts kept",
        "flips",
        "of",
        "ranks moved, mean",
        "most",
        "score error",
        "what it is",
    )
    rows = [
        (
            fill,
            percent(found.get("verdict_agreement")),
            number(found.get("flips"), 0),
            number(found.get("comparisons"), 0),
            number(found["rank_shift"]["mean"], 2),
            number(found["rank_shift"]["max"], 0),
            number(found.get("score_error")),
            _FILLS.get(fill, ""),
        )
        for fill, found in one["fills"].items()
    ]
    what = {"group": "each group of runs", "run": "each run", "random": "judgments at random"}
    left_out = what.get(str(one.get("leave_out")), str(one.get("leave_out")))
    caption = f"What filling does to verdicts by {one.get('measure', 'the measure')}, leaving out {left_out}."
    return join(
        [el("h3", "Verdicts on filled holes"), scroller(table(caption, heads, rows), "Fills"), _told(one)]
    )


# -- diagnose ------------------------------------------------------------------------------------------------


def _diagnosed(one: Saved) -> Html:
    return join([el("h3", "Where the labels go wrong"), _told(one)])


_SHOWN: Mapping[str, Callable[[Saved], Html]] = {
    "agree": _agreed,
    "simulate": _simulated,
    "diagnose": _diagnosed,
}
