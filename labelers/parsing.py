"""A model's answer in words -> the grade it gives, or null and why. It never guesses.

A grade is read where the answer names it as its own: `final score: 2`, `"grade": 2`, a line that is nothing
but `2`. A number that merely stands in the text (a year, a section, a page, an item of a list) is none, nor
is one that is quoted, conditional, off the scale or contradicted. What is not read is asked again on the next
run; what is read wrongly would stay.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from typing import Any, NamedTuple

__all__ = [
    "CUT",
    "EMPTY",
    "MALFORMED",
    "NONE",
    "OFF_SCALE",
    "REASONS",
    "REFUSED",
    "SEVERAL",
    "VERSION",
    "Reading",
    "parse",
]

VERSION = 1
"""Goes up with every change to what is read as which grade: it is part of labelers' fingerprints."""

EMPTY = "empty answer"
CUT = "cut-off answer"
REFUSED = "refusal"
NONE = "no grade in the answer"
SEVERAL = "several grades in the answer"
OFF_SCALE = "a grade off the scale"
MALFORMED = "malformed JSON in the answer"
REASONS = (EMPTY, CUT, REFUSED, NONE, SEVERAL, OFF_SCALE, MALFORMED)
"""Every reason that `parse` gives: few and fixed, so that failures can be counted by them."""


class Reading(NamedTuple):
    """What an answer says: a grade, or a reason why there is none (never both).

    `start` and `end` are where in the answer the grade stands; -1 where it is not known (JSON).
    """

    grade: int | None
    reason: str | None
    start: int = -1
    end: int = -1


def parse(
    text: str | None,
    answers: Mapping[str, int],
    *,
    words: Mapping[int, str] | None = None,
    cut: bool = False,
) -> Reading:
    """The grade that `text` gives.

    Parameters
    ----------
    answers: what may be answered, in small letters, and the grade it means: `{"0": 0, "1": 1}`, `{"no": 0,
        "yes": 1}`.
    words: what the grades mean: `2: highly relevant` is then 2, if those are the words of 2.
    cut: the answer stopped before its end (a token limit, a broken stream). Its last line is then not read,
        and its first line, or a line that says it is the final score, is all that counts.
    """
    text = (text or "").replace("’", "'")
    if not text.strip():
        return Reading(None, CUT if cut else EMPTY)
    plain = _without_thoughts(text)
    if plain is None:
        return Reading(None, CUT)
    plain = re.sub(r"^[ \t]*```\w*[ \t]*$", lambda m: " " * len(m[0]), plain, flags=re.M)
    if cut:
        plain = plain[: plain.rfind("\n") + 1]
    if not plain.strip():
        return Reading(None, CUT if cut else EMPTY)
    found = _read(plain, answers, words or {}, cut)
    if cut and found.grade is None and found.reason in (NONE, MALFORMED):
        return Reading(None, CUT)
    return found


# -- what a value looks like, and what may stand before and after it -----------------------------------------

_DECORATION = r"[ \t*_`\"'(\[]*"
_COLON = rf"[ \t*_`\"']*[:=]{_DECORATION}"
_IS = rf"[ \t*_`]+(?:is|of)[ \t]*:?{_DECORATION}"
_KIND = r"(?:score|grade|rating|label|category|answer|verdict|judge?ment)"
_FINAL = (
    rf"(?<![\w-])(?:final|overall)(?:[ \t]+(?:relevance[ \t]+)?{_KIND})?|"
    r"(?-i:(?:(?<=\n)|(?<=^))[ \t#*>_`]*O(?=[\s*_`]*[:=]))"
)
_PLAIN = rf"(?:^|(?<=[.;,!?]))[ \t#*>_`]*(?:(?:the|my)[ \t]+)?(?:relevance[ \t]+)?(?:{_KIND}|relevance)"
# What may not follow: more of a word or number, or the other end of a range or fraction.
_END = (
    r"(?![\w%/°]|[.,:][0-9]|[ \t]*(?:[-–—/~]|to|or|and|out of|through)[ \t]*[0-9])"
    r"(?=[ \t]*(?:[*_`\"')\]}#|]|$|[.;,!(]|[-–—][ \t]|because\b|since\b|as\b))"
)
_HEDGE = re.compile(
    r"\b(?:if|unless|would|were|should|could|might|example|e\.g|format|instruct\w*|asks?|asked|says?|said|"
    r"tells?|told|writes?|outputs?|respond\w*|claims?|demands?|scale (?:is|goes)|maximum|minimum|previous)\b",
    re.I,
)
_CONDITION = re.compile(r"\b(?:if|unless|otherwise|or)\b", re.I)
_REFUSAL = re.compile(
    r"\bI(?:'m| am) (?:sorry|unable|not able)\b|\bI (?:cannot|can't|can not|won't|will not|must decline)\b|"
    r"\bas an AI\b|\b(?:cannot|can't|unable to) (?:assist|help|comply|provide|judge|grade|rate)\b|"
    r"^\W*sorry\b",
    re.I,
)
_ABOUT = (
    "wait|but|if|maybe|please|unclear|unsure|cannot|can't|can not|unable|not sure|i can|i will|i'll|let me"
)
_KEYS = (
    "final_score", "overall", "o", "score", "grade", "relevance", "relevance_score", "label", "rating",
    "answer", "relevant",
)  # fmt: skip


@cache
def _patterns(answers: frozenset[str]) -> tuple[list[re.Pattern[str]], re.Pattern[str]]:
    """How grades are named, surest first, and a line that is one."""
    numeric = any(a.lstrip("-").isdigit() for a in answers)
    most = max((int(a) for a in answers if a.lstrip("-").isdigit()), default=0)
    number = rf"[-+−]?[0-9]+(?:\.0+)?(?:(?=[ \t]*(?:/|out of)[ \t]*{most}\b))?"
    value = number if numeric else "|".join(sorted(map(re.escape, answers), key=len, reverse=True))
    share = rf"(?:[ \t]*(?:/|out of)[ \t]*{most}(?![0-9]))?" if numeric else ""
    value = rf"(?P<value>{value}){share}"
    flags = re.I | re.M
    marks = [
        re.compile(rf"(?P<mark>{_FINAL}){_COLON}{value}{_END}", flags),
        re.compile(rf"(?P<mark>{_FINAL}){_IS}{value}{_END}", flags),
        re.compile(rf"(?P<mark>{_PLAIN}){_COLON}{value}{_END}", flags),
        re.compile(rf"(?P<mark>{_PLAIN}){_IS}{value}{_END}", flags),
    ]
    bare = re.compile(
        rf"^[ \t#>*_`\"'(\[]*(?:(?:score|grade|rating|label)[ \t:=*_]+)?{value}"
        r"(?P<rest>[ \t*_`\"'.!)\]]*|[ \t*_`]*[-–—:(=.,][ \t*_`]*[^\n]*)$",
        flags,
    )
    return marks, bare


def _read(text: str, answers: Mapping[str, int], words: Mapping[int, str], cut: bool) -> Reading:
    told = _from_json(text, answers)
    if told is not None:
        return told
    marks, bare = _patterns(frozenset(answers))
    refused = _REFUSAL.search(text.strip()[:80]) is not None
    if refused:  # then only a last line that is the final score, and nothing else, is an answer
        start = text.rstrip().rfind("\n") + 1
        match = marks[0].search(text, start) if start else None
        alone = match and re.fullmatch(r"[\W_]*", text[start : match.start()] + text[match.end() :])
        return _agreed([match], answers) if match and alone else Reading(None, REFUSED)
    quoted = re.fullmatch(r"\s*([\"'`“])[^\n]*[\"'`”]\s*", text) is not None
    for pattern in marks:
        found = [m for m in pattern.finditer(text) if _own(m, text, quoted)]
        if found:
            return _agreed(found, answers)
    return _alone(text, bare, answers, words, cut)


def _own(match: re.Match[str], text: str, quoted: bool) -> bool:
    """Whether the answer says this for itself: not in quotes, not under a condition, not about something."""
    before = text[: match.start("mark")]
    sentence = re.split(r"[.;!?\n]", before)[-1]
    after = text[match.end() :].partition("\n")[0]
    if not quoted and re.search(r"[\"'`“‘«][#*_ \t]*$", before):
        return False
    return not _HEDGE.search(sentence) and not _CONDITION.search(re.split(r"[.;!?](?:\s|$)", after)[0])


def _agreed(found: list[re.Match[str]], answers: Mapping[str, int]) -> Reading:
    """The one grade that all matches give."""
    grades = {_grade(m["value"], answers) for m in found}
    if len(grades) > 1:
        return Reading(None, SEVERAL)
    (grade,) = grades
    if grade is None:
        return Reading(None, OFF_SCALE)
    start, end = found[-1].span("value")
    return Reading(grade, None, start, end)


def _alone(
    text: str, bare: re.Pattern[str], answers: Mapping[str, int], words: Mapping[int, str], cut: bool
) -> Reading:
    """The grade on a line of its own, if that is the first or the last one."""
    lines = [m for m in re.finditer(r"[^\n]+", text) if m[0].strip()]
    found = [(n, m) for n, line in enumerate(lines) if (m := bare.match(text, *line.span()))]
    said = [(n, m) for n, m in found if _nothing_else(m, answers, words, n == 0)]
    if not said:
        return Reading(None, NONE)
    if len({_grade(m["value"], answers) for _, m in said}) > 1:
        return Reading(None, SEVERAL)
    edges = (0,) if cut else (0, len(lines) - 1)
    return _agreed([said[-1][1]], answers) if any(n in edges for n, _ in said) else Reading(None, NONE)


def _nothing_else(
    match: re.Match[str], answers: Mapping[str, int], words: Mapping[int, str], first: bool
) -> bool:
    """Whether the rest of the line adds nothing to the value, or only what the grade means."""
    rest = match["rest"].strip(" \t*_`\"'.!)]-–—:(=,").casefold()
    if not rest:
        return True
    value = match["value"].casefold()
    grade = _grade(value, answers)
    if grade is not None and rest == words.get(grade, "").strip(" .").casefold():
        return True
    # "Yes, the document …": the first word is the answer, unless the sentence takes it back or is about the
    # task ("Yes, I can help with that").
    others = "|".join(re.escape(a) for a in answers if a != value)
    sentence = re.split(r"[.;!?](?:\s|$)", match["rest"])
    return (
        first
        and value.isalpha()
        and not re.search(rf"\b(?:{others}|{_ABOUT})\b", (sentence[0] or sentence[-1]).casefold())
    )


def _grade(value: str, answers: Mapping[str, int]) -> int | None:
    value = re.sub(r"\.0+$", "", value.casefold().replace("−", "-").lstrip("+"))
    value = re.sub(r"^(-?)0+(?=[0-9])", r"\1", value)
    return answers.get("0" if value == "-0" else value)


def _without_thoughts(text: str) -> str | None:
    """The text with a reasoning model's thoughts blanked out; None: they never end."""
    end = text.rfind("</think>")
    start = text.rfind("<think>")
    if start > end:
        return None
    if end < 0:
        return text
    end += len("</think>")
    return " " * end + text[end:]


# -- JSON ----------------------------------------------------------------------------------------------------


def _from_json(text: str, answers: Mapping[str, int]) -> Reading | None:
    """What the one JSON object in the text gives; None: there is none."""
    body = text.strip()
    whole = body[:1] + body[-1:] in ("{}", "[]")
    pieces = [body] if whole else re.findall(r"\{[^{}]*\}", text)
    pieces = [p for p in pieces if whole or re.search(r"[\"']\s*:", p)]
    if not pieces:
        return Reading(None, MALFORMED) if body.startswith("{") else None
    if len(pieces) > 1:
        return Reading(None, SEVERAL)
    try:
        told = json.loads(pieces[0], object_pairs_hook=_Pairs)
    except (ValueError, RecursionError):
        return Reading(None, MALFORMED)
    if not isinstance(told, _Pairs):
        return Reading(None, NONE)
    lowered = {str(k).strip().casefold().replace(" ", "_"): v for k, v in told}
    if len(lowered) < len(told):  # a key twice: json itself would take the last
        return Reading(None, SEVERAL)
    values = [lowered[k] for k in _KEYS if k in lowered]
    # O, the overall score, and "final_score" say more than the other keys beside them.
    values = next(([lowered[k]] for k in _KEYS[:3] if k in lowered), values)
    if not values:
        return Reading(None, NONE)
    grades = [_json_grade(v, answers) for v in values]
    reasons = [g for g in grades if isinstance(g, str)]
    if reasons:
        return Reading(None, reasons[0])
    if len(set(grades)) > 1:
        return Reading(None, SEVERAL)
    return Reading(int(grades[0]), None)


class _Pairs(list[tuple[str, Any]]):
    """An object's keys and values, doubled ones included."""


def _json_grade(value: Any, answers: Mapping[str, int]) -> int | str:
    """A grade, or a reason."""
    if isinstance(value, bool):
        value = {True: "yes", False: "no"}[value] if "yes" in answers else None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, float):
        return OFF_SCALE
    if not isinstance(value, int | str):
        return NONE
    word = str(value).strip().casefold()
    grade = _grade(word, answers)
    if grade is not None:
        return grade
    return OFF_SCALE if re.fullmatch(r"[-+]?[0-9]+(?:\.[0-9]+)?", word) else NONE
