"""What a diagnosis says, in sentences: for the command line, the JSON and the page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.diagnose import Diagnosis

__all__ = ["findings", "measured"]

_CERTAIN = 0.05
_DRAWN = 0.5  # rank correlation below which weak runs are said to be favoured
_FEWEST_RUNS = 6  # for which that is said


def findings(found: Diagnosis) -> list[str]:
    """What the parts of a diagnosis say, a sentence each, without what was not looked at."""
    lines = [
        f"{name}: {one.check.replace('_', ' ')}: {one.words}. Next: {one.next}."
        for name, several in (found.scale or {}).items()
        for one in several
        if one.found
    ]
    for name, one in (found.disagreement or {}).items():
        lines += _on_texts(name, one.get("text"), (found.terms or {}).get(name))
    for name, one in (found.topics or {}).items():
        apart = sum(1 for t in one["topics"] if t["p_adjusted"] is not None and t["p_adjusted"] < _CERTAIN)
        spread = "" if one["spread"] is None else f"; beyond chance they spread by {one['spread']:.3f}"
        lines.append(
            f"{name}: {apart} of {_count(len(one['topics']), 'topic')} differ from the others{spread}."
        )
    for name, measure, one in measured(found):
        lines += _on_systems(name, measure, one)
    lines += [_on_a_relative(one) for one in found.circularity or [] if one["status"] == "shared"]
    unknown = sorted({one["run"] for one in found.circularity or [] if one["status"] == "unknown"})
    if unknown:
        some = ", ".join(unknown[:4]) + (", …" if len(unknown) > 4 else "")
        lines.append(
            f"Circularity is unknown for {_count(len(unknown), 'run')} ({some}): their cards or the labeler's"
            " do not state base model, teacher and training data. NAME.meta.yaml beside a file is its card."
        )
    if found.gullibility:
        lines += _on_gullibility(found.gullibility)
    return lines


def _on_texts(name: str, text: dict[str, Any] | None, terms: dict[str, Any] | None) -> list[str]:
    if text is None:
        return []
    if "undefined" in text:
        return [f"{name}: whether the text tells who says relevant is not known: {text['undefined']}."]
    ends = text["ci"]
    tells = ends is not None and ends[0] > 0.5
    said = "the text tells who says relevant, on topics never seen too: the two go by different texts"
    if not tells:
        said = "on topics never seen, the text does not tell who says relevant"
        if text["ci_pairs"] and text["ci_pairs"][0] > 0.5:
            said += "; on known ones it does: the raters differ by topic, not by words in general"
    lines = [f"{name}: {said}."]
    if terms is not None:
        why = terms.get("undefined")
        tested = (
            f"of {terms['tested']:,} terms tested, {terms['found']:,} go with one side" if not why else ""
        )
        lines.append(f"{name}: {tested or f'no terms: {why}'}.")
    return lines


def _on_systems(name: str, measure: str, one: dict[str, Any]) -> list[str]:
    sure = [n for n, its in one["runs"].items() if (its["p_adjusted"] or 1) < _CERTAIN]
    families = [n for n, its in one["groups"].items() if (its["p_adjusted"] or 1) < _CERTAIN]
    kinds = f" and {_count(len(families), 'group')} ({', '.join(families)})" if families else ""
    order = one["ordering"]
    tau = (
        f"; tau of the two orders {order['kendall_tau']:.3f}" if order.get("kendall_tau") is not None else ""
    )
    if order.get("max_drop"):
        tau += f", largest drop {order['max_drop']:g} ranks ({order['max_drop_run']})"
    whom = "no run for certain" if not sure else f"{_count(len(sure), 'run')} for certain, for or against"
    drawn = one["with_quality"]
    why = ""
    if drawn is not None and drawn < -_DRAWN and len(one["runs"]) >= _FEWEST_RUNS:
        why = f" Weak runs are favoured over strong ones (rank correlation with their score {drawn:+.2f})."
    return [f"{name}: by {measure} the labels treat {whom}{kinds} otherwise than the mean run{tau}.{why}"]


def _on_a_relative(one: dict[str, Any]) -> str:
    said = f"{one['labels']}: labeler {one['labeler']} and run {one['run']} share {', '.join(one['shared'])}"
    for measure, size in (one["size"] or {}).items():
        if size:
            ends = size["ci"]
            span = f" ({ends[0]:+.4f} to {ends[1]:+.4f})" if ends else ""
            said += f"; by {measure} the labels favour it by {size['favour']:+.4f}{span} over unrelated runs"
    return f"{said}."


def _on_gullibility(whole: dict[str, Any]) -> list[str]:
    how = {
        "its own": "grades are the labeler's own",
        "calibrated": "scores became grades by a calibration on unchanged documents, without neighbours",
    }
    sizes = f"{whole['sample']} judged documents, {whole['relevant']} of them relevant"
    lines = [f"{whole['labeler']}: {sizes}; {how[whole['grades']]}."]
    for name, one in whole["perturbations"].items():
        if name in ("stuffed", "instructed") and one["ci"]["up"] and one["ci"]["up"][0] > 0:
            lines.append(
                f"It can be fooled: {one['up']:.1%} of non-relevant documents become relevant when {name}."
            )
    if whole["perturbations"]["empty"]["labeled"]:
        lines.append("It grades documents without text; they should have no label.")
    return lines


def measured(found: Diagnosis) -> list[tuple[str, str, dict[str, Any]]]:
    """Name, measure and what was found of the systems, where they were measured."""
    return [
        (name, measure, one)
        for name, by_measure in (found.systems or {}).items()
        for measure, one in by_measure.items()
        if "runs" in one
    ]


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
