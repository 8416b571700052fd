"""How diagnoses look on the command line: tables. `harness.cli` prints them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.diagnose_words import measured

if TYPE_CHECKING:
    from harness.diagnose import Diagnosis

__all__ = ["tables"]

Table = tuple[str, list[str], list[list[object]]]
_BLANK = "-"
_INTERVAL = "95 % interval"
_WORST, _SYSTEMS, _TERMS = 5, 4, 10


def tables(found: Diagnosis) -> list[Table]:
    """Title, columns and rows of each table of `stopgap diagnose`, in order."""
    parts = [
        (found.scale, _scale),
        (found.disagreement, _disagreement),
        (found.terms, _terms),
        (found.length or found.overlap, _texts),
        (found.topics, _topics),
        (found.systems, _systems),
        (found.circularity, _circularity),
        (found.gullibility, _gullibility),
    ]
    made = [make(found) for asked, make in parts if asked]
    if found.systems and any("groups" in one and one["groups"] for _, _, one in measured(found)):
        made.insert(len(made) - bool(found.circularity) - bool(found.gullibility), _groups(found))
    return [table for table in made if table[2]]


def _scale(found: Diagnosis) -> Table:
    words = {True: "FOUND", False: "no", None: "not looked at"}
    rows: list[list[object]] = [
        [name, one.check.replace("_", " "), words[one.found], one.words]
        for name, several in (found.scale or {}).items()
        for one in several
    ]
    return "Is the file at fault?", ["labels", "fault", "found", "evidence"], rows


def _disagreement(found: Diagnosis) -> Table:
    columns = ["labels", "pairs", "differ", f"{found.reference} alone", "labels alone", _INTERVAL]
    columns += ["AUC of text", f"its {_INTERVAL}", "AUC, topics known"]
    rows: list[list[object]] = []
    for name, one in (found.disagreement or {}).items():
        text = one.get("text", {})
        shares = [one["second_share"], one["ci"]["second_share"]]
        ends = _BLANK if shares[1] is None else f"{shares[1][0]:.0%} to {shares[1][1]:.0%}"
        alone = _BLANK if shares[0] is None else f"{one['second_only']} ({shares[0]:.0%})"
        head: list[object] = [name, one["pairs"], one["disagreements"], one["first_only"], alone, ends]
        rows.append([*head, _shown(text.get("auc")), _span(text.get("ci")), _shown(text.get("auc_pairs"))])
    return f"Who alone says relevant ({found.threshold} or more)?", columns, rows


def _terms(found: Diagnosis) -> Table:
    columns = [
        "labels",
        "term",
        "says relevant",
        f"with {found.reference}",
        "with labels",
        "topics",
        "odds",
        "p",
    ]
    rows: list[list[object]] = []
    for name, one in (found.terms or {}).items():
        for term in one.get("terms", [])[:_TERMS]:
            side = "labels" if term["side"] == "second" else found.reference
            odds = "only" if term["odds_ratio"] is None else f"{term['odds_ratio']:.2f}"
            uses = [term["with_first"], term["with_second"], term["topics"]]
            rows.append([name, term["term"], side, *uses, odds, _probability(term["p_adjusted"])])
    return "Terms that go with one side, within topics (p corrected):", columns, rows


def _texts(found: Diagnosis) -> Table:
    columns = ["labels", "error by", "rank corr.", _INTERVAL, "same judgment", _INTERVAL]
    columns += [f"{n} quarter" for n in ("1st", "2nd", "3rd", "4th")]
    rows: list[list[object]] = []
    for what, part in (("words of the text", found.length), ("overlap with query", found.overlap)):
        for name, one in (part or {}).items():
            errors = [f"{q['error']:+.3f}" for q in one["quarters"]]
            values: list[object] = []
            for key in ("spearman", "within_grades"):
                values += [_shown(one[key], signed=True), _span(one["ci"].get(key), signed=True)]
            rows.append([name, what, *values, *errors, *[_BLANK] * (4 - len(errors))])
    return "Does the error (label less judgment) go with the text?", columns, rows


def _topics(found: Diagnosis) -> Table:
    columns = ["labels", "topic", "pairs", "mean error", _INTERVAL, "p against the others"]
    rows: list[list[object]] = []
    for name, one in (found.topics or {}).items():
        pairs = sum(topic["pairs"] for topic in one["topics"])
        rows.append([name, "(all)", pairs, f"{one['bias']:+.3f}", _span(one["ci"], signed=True), _BLANK])
        for topic in one["topics"][:_WORST]:
            head = [name, topic["query_id"], topic["pairs"], f"{topic['bias']:+.3f}"]
            rows.append([*head, _span(topic["ci"], signed=True), _probability(topic["p_adjusted"])])
    return "Which topics are graded too high or too low?", columns, rows


def _favours(kind: str, found: Diagnosis, key: str, most: int) -> tuple[list[str], list[list[object]]]:
    rows: list[list[object]] = []
    for name, measure, one in measured(found):
        order = sorted(one[key].items(), key=lambda item: -item[1]["favour"])
        shown = order if len(order) <= 2 * most else [*order[:most], *order[-most:]]
        for entry, its in shown:
            ends = _span(its["ci"], signed=True)
            rows.append(
                [name, measure, entry, f"{its['favour']:+.4f}", ends, _probability(its["p_adjusted"])]
            )
    return ["labels", "measure", kind, "favoured by", _INTERVAL, "p"], rows


def _systems(found: Diagnosis) -> Table:
    return "Which runs do the labels favour, against the mean run?", *_favours("run", found, "runs", _SYSTEMS)


def _groups(found: Diagnosis) -> Table:
    return "Which groups do they favour?", *_favours("group", found, "groups", _SYSTEMS)


def _circularity(found: Diagnosis) -> Table:
    columns = ["labels", "labeler", "run", "in common", "favoured over the others by"]
    rows: list[list[object]] = []
    for one in found.circularity or []:
        if one["status"] == "unknown":
            continue
        sizes = [
            f"{measure} {its['favour']:+.4f} ({_span(its['ci'], signed=True)})"
            for measure, its in (one["size"] or {}).items()
            if its
        ]
        what = ", ".join(one["shared"]) or "nothing"
        rows.append([one["labels"], one["labeler"], one["run"], what, ", ".join(sizes) or _BLANK])
    return "Does a labeler judge its relatives?", columns, rows


def _gullibility(found: Diagnosis) -> Table:
    columns = ["text is", "documents", "labeled", "relevant before", "after"]
    columns += ["become relevant", _INTERVAL, "cease to be", _INTERVAL]
    columns += ["change of grade", _INTERVAL]
    whole = found.gullibility or {}
    rows: list[list[object]] = []
    for name, one in whole.get("perturbations", {}).items():
        row: list[object] = [name, one["pairs"], one["labeled"]]
        row += [_BLANK if one[key] is None else f"{one[key]:.1%}" for key in ("before", "after")]
        for key in ("up", "down"):
            ends = one["ci"][key]
            row.append(_BLANK if one[key] is None else f"{one[key]:.1%}")
            row.append(_BLANK if ends is None else f"{ends[0]:.1%} to {ends[1]:.1%}")
        rows.append([*row, _shown(one["change"], signed=True), _span(one["ci"]["change"], signed=True)])
    return f"Can {whole.get('labeler')} be fooled?", columns, rows


def _shown(value: float | None, *, signed: bool = False) -> str:
    if value is None:
        return _BLANK
    return f"{value:+.4f}" if signed else f"{value:.4f}"


def _probability(value: float | None) -> str:
    if value is None:
        return _BLANK
    return f"{value:.4f}" if value >= 0.0001 else "<0.0001"


def _span(ends: Sequence[float] | None, *, signed: bool = False) -> str:
    if ends is None:
        return _BLANK
    low, high = (f"{end:+.3f}" if signed else f"{end:.3f}" for end in ends)
    return f"{low} to {high}"
