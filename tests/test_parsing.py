"""What is read as a grade, and all that is not."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelers.parsing import CUT, EMPTY, MALFORMED, NONE, OFF_SCALE, REASONS, REFUSED, SEVERAL, parse

GRADES = {str(grade): grade for grade in range(4)}
YES = {"no": 0, "yes": 1}
WIDE = {str(grade): grade for grade in (-2, 0, 1, 2, 10)}
WORDS = {0: "not relevant", 1: "Related", 2: "Highly relevant.", 3: "perfect: the very answer"}

GRADED: list[tuple[str, int | str]] = [
    # the grade alone
    ("2", 2),
    (" 2\n", 2),
    ("2.", 2),
    ("**2**", 2),
    ("`3`", 3),
    ('"1"', 1),
    ("(0)", 0),
    ("2.0", 2),
    ("\n\n2", 2),
    ("Grade: 2", 2),
    ("Score 3", 3),
    ("2/3", 2),
    ("```\n1\n```", 1),
    ("2 - highly relevant", 2),
    ("0 (Not relevant)", 0),
    ("3: perfect: the very answer", 3),
    # named as the last word
    ("final score: 2", 2),
    ("##final score: 0", 0),
    ("on the 0 to 3 scale, final score: 1", 1),
    ("M: 2\nT: 1\nO: 1", 1),
    ("M: 3\nT: 3\nO: 2\n", 2),
    ("**Final Score:** 3", 3),
    ("Final score = 2.", 2),
    ("The final score is 2.", 2),
    ("Overall: 1", 1),
    ("Overall grade: **2**", 2),
    ("Final score: 2 out of 3", 2),
    ("Final score: 2, because it answers a part", 2),
    ("It names three of the 10 herons.\nFinal score: 1", 1),
    ("The year 2019 and section 2 are named, but nothing else.\n\nfinal score: 0", 0),
    ("final score: 1\nfinal score: 1", 1),
    ("Match: 3. Trust: 1. Final score: 2", 2),
    # named as the score
    ("The score is 2.", 2),
    ("Score: 3", 3),
    ("My grade: 1", 1),
    ("It is on the subject. Relevance: 1", 1),
    ("Answer: 0", 0),
    # a line of its own, at the beginning or the end
    ("2\n\nThe document explains where herons nest.", 2),
    ("The document explains where herons nest.\n\n2", 2),
    # JSON
    ('{"score": 2}', 2),
    ('{"O": 1, "M": 3, "T": 2}', 1),
    ('{"grade": "3"}', 3),
    ('{"grade": 3}\n\nThe document has 2 parts.', 3),
    ('```json\n{"final_score": 0}\n```', 0),
    ('Here it is: {"relevance": 2}', 2),
    ('{"reason": "section 3", "Final Score": 1.0}', 1),
    # thoughts are not the answer
    ("<think>perhaps 3? no, final score: 3 is too much</think>\n2", 2),
    ("a 1 at best</think>0", 0),
    # declined at first, but then there is a last line
    ("I'm sorry to say this has nothing to do with it.\nfinal score: 0", 0),
    # -- nothing that is a grade
    ("", EMPTY),
    (" \n\t", EMPTY),
    ("section 2 of the guidelines", NONE),
    ("See section 2 of the guidelines.", NONE),
    ("The passage from 2019 is not relevant.", NONE),
    ("It was written in 3 days.", NONE),
    ("on the 0 to 3 scale", NONE),
    ("1. intent\n2. match\n3. trust", NONE),
    ("2 (two) of the aspects are covered", NONE),
    ("Answer 1\nHerons nest in trees.", NONE),
    ("The relevance grade: 2 means useful.", NONE),
    ("2 - aspects", NONE),
    ("2 herons", NONE),
    ("M: 2\nT: 1", NONE),
    ("Match score: 2", NONE),
    ("Trust is 3", NONE),
    ("two", NONE),
    ("highly relevant", NONE),
    ("²", NONE),
    ("２", NONE),
    ("final score: unknown", NONE),
    ("final score:", NONE),
    ("final score: not 2", NONE),
    ("If it named the year, the final score: 3", NONE),
    ("The final score would be 3.", NONE),
    ("final score: 3 if birds count, otherwise 1", NONE),
    ('The document says "final score: 3", which I disregard.', NONE),
    ("The document tells me to answer with final score: 3", NONE),
    ("The maximum score is 3.", NONE),
    ("page 1 of 3", NONE),
    ("0.5", NONE),
    ("2.5", NONE),
    ("final score: 2.5", NONE),
    ("final score: 50%", NONE),
    ("final score: 2-3", NONE),
    ("final score: 2 or 3", NONE),
    ("final score: between 1 and 2", NONE),
    ("final score: 2 out of 5", NONE),
    ("final score: 1,000", NONE),
    ("final score: 2:1", NONE),
    ("The semi-final score: 2", NONE),
    ("The underlying intent is to find nests.\n\n2\n\nThat is all I know.", NONE),
    # off the scale
    ("10", OFF_SCALE),
    ("4", OFF_SCALE),
    ("-1", OFF_SCALE),
    ("final score: 10", OFF_SCALE),
    ("final score: −1", OFF_SCALE),
    ('{"score": 7}', OFF_SCALE),
    ('{"score": 1.5}', OFF_SCALE),
    # contradictory
    ("final score: 1\nfinal score: 2", SEVERAL),
    ("0\n1\n2\n3", SEVERAL),
    ("2\n\nOn second thought:\n\n1", SEVERAL),
    ('{"score": 1, "grade": 2}', SEVERAL),
    ('{"score": 1, "score": 3}', SEVERAL),
    ('I say {"score": 1}, or {"score": 2}', SEVERAL),
    # refusals
    ("I'm sorry, but I can't help with that.", REFUSED),
    ("I’m sorry, I cannot grade this on the 0 to 3 scale.", REFUSED),
    ("As an AI, I have no opinion. Score: 2", REFUSED),
    ("Sorry. 0", REFUSED),
    ("I cannot judge document 2.", REFUSED),
    # JSON that tells nothing
    ('{"score": }', MALFORMED),
    ('{"score": 1} {"score": 1}', MALFORMED),
    ('{"score": 2', MALFORMED),
    ('{"score": null}', NONE),
    ('{"score": true}', NONE),
    ('{"score": [2]}', NONE),
    ('{"page": 2}', NONE),
    ("[2]", NONE),
    ("{2}", MALFORMED),
    # thoughts without an end
    ("<think>The document is about herons, so 2", CUT),
    ("<think>2</think>", EMPTY),
]

YES_NO: list[tuple[str, int | str]] = [
    ("yes", 1),
    ("No", 0),
    ("NO.", 0),
    ("**Yes**", 1),
    ("Answer: yes", 1),
    ("Final answer: No", 0),
    ("Yes, the document names the nests.", 1),
    ("No. It is about boats.", 0),
    ('{"relevant": true}', 1),
    ('{"answer": "no"}', 0),
    ("It names them.\n\nfinal answer: yes", 1),
    ("Yes and no.", NONE),
    ("Yes, no, maybe.", NONE),
    ("Yes, but no.", NONE),
    ("No problem! Here is what I think.", NONE),
    ("Yes, I can help you grade this. Where is the document?", NONE),
    ("No, it cannot be told from this.", NONE),
    ("Nothing", NONE),
    ("yesterday", NONE),
    ("There is no answer in it.", NONE),
    ("maybe", NONE),
    ("1", NONE),
    ("final answer: yes\nfinal answer: no", SEVERAL),
    ("yes\nno", SEVERAL),
]

CUT_OFF: list[tuple[str, int | str]] = [
    ("2", CUT),  # of 20, perhaps
    ("1", CUT),
    ("final score: 1", CUT),  # of 10, perhaps
    ("final sco", CUT),
    ("", CUT),
    ("The intent is\n2\nand so", CUT),
    ('{"score": 2, "why": "it', CUT),
    ("M: 2\nT: 1\n", CUT),
    ("2\n\nThe document", 2),
    ("final score: 1\nThis is bec", 1),
    ("final score: 10\nThis is bec", OFF_SCALE),
]


def check(text: str, answers: dict[str, int], meant: int | str, *, cut: bool = False) -> None:
    found = parse(text, answers, words=WORDS if answers is GRADES else None, cut=cut)
    assert (found.reason if found.grade is None else found.grade) == meant
    assert (found.grade is None) == (found.reason is not None)


def test_the_tables_are_as_long_as_they_should_be() -> None:
    assert len({text for text, _ in GRADED}) == len(GRADED) >= 60
    assert {m for _, m in GRADED + CUT_OFF if isinstance(m, str)} == set(REASONS)


@pytest.mark.parametrize(("text", "meant"), GRADED, ids=[repr(text) for text, _ in GRADED])
def test_a_grade_or_a_reason(text: str, meant: int | str) -> None:
    check(text, GRADES, meant)


@pytest.mark.parametrize(("text", "meant"), YES_NO, ids=[repr(text) for text, _ in YES_NO])
def test_yes_or_no_or_a_reason(text: str, meant: int | str) -> None:
    check(text, YES, meant)


@pytest.mark.parametrize(("text", "meant"), CUT_OFF, ids=[repr(text) for text, _ in CUT_OFF])
def test_the_last_line_of_a_cut_off_answer_is_not_read(text: str, meant: int | str) -> None:
    check(text, GRADES, meant, cut=True)


@pytest.mark.parametrize(
    ("text", "meant"),
    [("-2", -2), ("final score: -2", -2), ("final score: −2", -2), ("10", 10), ("1", 1), ("-1", OFF_SCALE)],
)
def test_scales_with_more_than_digits(text: str, meant: int | str) -> None:
    check(text, WIDE, meant)


def test_without_the_grades_words_a_word_behind_the_grade_is_no_proof() -> None:
    assert parse("2 - highly relevant", GRADES).reason == NONE


def test_it_says_where_the_grade_stands() -> None:
    text = "<think>3</think> on the 0 to 3 scale, final score: 1."
    found = parse(text, GRADES)
    assert text[found.start : found.end] == "1"
    assert text[: found.start].endswith("final score: ")
    assert parse('{"score": 1}', GRADES)[2:] == (-1, -1)


@given(st.text() | st.text("0123 \n.,:;*final score{}\"'-/[]", max_size=60), st.booleans())
def test_whatever_comes_is_a_grade_of_the_scale_that_stands_there_or_a_known_reason(
    text: str, cut: bool
) -> None:
    found = parse(text, GRADES, words=WORDS, cut=cut)
    if found.grade is None:
        assert found.reason in REASONS
        return
    assert found.reason is None
    assert found.grade in GRADES.values()
    if found.start >= 0:
        assert re.fullmatch(r"\+?0*" + str(found.grade) + r"(\.0+)?|-0", text[found.start : found.end])
    else:
        assert str(found.grade) in text


@given(st.text(st.characters(exclude_categories=["Nd", "No", "Cs"]), max_size=80))
def test_no_digit_no_grade(text: str) -> None:
    assert parse(text, GRADES).grade is None


@given(st.integers(0, 3), st.text("abc def,\n", max_size=60))
def test_a_final_score_on_the_last_line_is_the_grade_whatever_was_said_before(
    grade: int, before: str
) -> None:
    assert parse(f"{before}\nfinal score: {grade}", GRADES).grade == grade


@given(st.integers(4, 10**9) | st.integers(-(10**9), -1))
def test_a_number_off_the_scale_is_never_one_of_its_digits(number: int) -> None:
    for text in (f"{number}", f"final score: {number}", f"Score: {number}", json.dumps({"score": number})):
        assert parse(text, GRADES).reason == OFF_SCALE


@given(st.integers(0, 3), st.integers(0, 40))
def test_an_answer_that_breaks_off_before_the_end_of_its_last_line_gives_no_grade(
    grade: int, length: int
) -> None:
    whole = f"Intent: nests.\nM: 2\nT: 1\nfinal score: {grade}"
    assert parse(whole[:length], GRADES, cut=True).grade is None


def test_long_answers_take_no_time() -> None:
    for text in (
        "final " * 20_000,
        " " * 50_000 + "x",
        "*" * 50_000,
        "{" * 50_000,
        "score: " * 20_000,
        "1 " * 50_000,
    ):
        parse(text, GRADES)
