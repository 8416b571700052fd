"""From numbers to one word, and to a sentence that says what it rests on and what would settle it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.inference import ALPHA

if TYPE_CHECKING:
    from harness.bounds import Bounds
    from harness.compare import Comparison

__all__ = ["VERDICTS", "judge"]

VERDICTS = ("better", "worse", "equivalent", "inconclusive")


def judge(
    one: Comparison, *, labels: float, tied: Sequence[str], empty: bool, edge: Bounds | None
) -> tuple[str, str]:
    """The verdict and the reason for it.

    Parameters
    ----------
    labels: the larger of the two runs' labeled shares, 0 to 1. tied: runs that score all documents alike on
        every topic. empty: both runs have 0 on every topic though they are not the same.
    """
    if tied:
        names = " and ".join(tied)
        return (
            "inconclusive",
            f"{names} gives every document of a topic one score, so its order means nothing.",
        )
    if empty:
        return "inconclusive", "Both have 0 on every topic: what they retrieve is not judged relevant."
    if one.wins == one.losses == 0 and one.ci == (0.0, 0.0):
        return "equivalent", f"The same on every one of {_topics(one.topics)}."
    low, high = one.ci
    if one.margin is not None and -one.margin < low and high < one.margin:
        return "equivalent", _rests(f"The interval lies within ±{one.margin:g}.", one, labels, edge)
    if one.p_adjusted < ALPHA and (low > 0 or high < 0):
        word = "better" if low > 0 else "worse"
        return word, _rests(_counts(one), one, labels, edge)
    return "inconclusive", _rests(_open(one), one, labels, edge, settle=True)


def _topics(number: int) -> str:
    return f"{number:,} topic{'' if number == 1 else 's'}"


def _counts(one: Comparison) -> str:
    return f"{one.wins} topics won, {one.losses} lost, {one.ties} tied."


def _open(one: Comparison) -> str:
    if one.topics == 1:
        return "A single topic says nothing of how topics differ."
    if one.ci[0] <= 0 <= one.ci[1]:
        said = "The interval contains 0"
        if one.margin is not None:
            said += f" and reaches beyond ±{one.margin:g}"
        return said + "."
    return f"The interval leaves out 0, but p is {one.p_adjusted:.3f} after correction."


def _rests(said: str, one: Comparison, labels: float, edge: Bounds | None, *, settle: bool = False) -> str:
    parts = [said]
    if settle:
        parts += _settle(one)
    if labels:
        parts.append(f"Up to {100 * labels:.1f} % of what was looked at carries a labeler's grade.")
    if edge is not None and one.delta:
        if edge.certain and one.delta * (edge.delta[0] + edge.delta[1]) > 0:
            if edge.per_topic["unjudged"].sum():
                parts.append("No grades for the unjudged documents could turn the sign.")
        elif edge.flips:
            few = "" if edge.flips_exact else "at most "
            documents = "document" if edge.flips == 1 else "documents"
            parts.append(f"Grades of {few}{edge.flips} unjudged {documents} could turn the sign.")
    return " ".join(parts)


def _settle(one: Comparison) -> list[str]:
    """What would make it conclusive."""
    parts = []
    width = one.ci[1] - one.ci[0]
    if one.label_ci is not None and math.isfinite(width) and one.label_ci[1] - one.label_ci[0] > width / 2:
        parts.append("Most of its width is the labels' error: judge what stopgap plan names.")
    if one.topics > 1 and one.topics_needed and one.topics_needed > one.topics:
        parts.append(
            f"A difference like this needs about {one.topics_needed:,} topics; these {one.topics:,} show one "
            f"of {one.detectable:.3f} or more."
        )
    return parts
