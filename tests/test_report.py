"""The page as text: what it says, that it can be read, and that nothing in it can do anything."""

from __future__ import annotations

import hashlib
import math
import re
import time
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.cli import main
from harness.collection import open_collection
from harness.compare import Compared, Comparison
from harness.errors import InputError, UsageError
from harness.frames import QRELS
from harness.measure import measure
from harness.ranking import rank
from harness.report import origin, report, write
from harness.report_charts import columns, interval, scale
from harness.report_html import clip, el, name, number, percent, plain, signed
from harness.report_style import GROUNDS, MARKS, PALETTE, TEXTS, style
from harness.trec import write_qrels, write_run

WORDS = """html head meta title style body header main section nav p h1 h2 h3 h4 h5 ul ol li a span bdi b
 div table caption thead tbody tr th td figure figcaption svg desc rect line circle path text tspan details
 summary code"""
TAGS = set(WORDS.split())
VOID = {"meta"}


class Page(HTMLParser):
    """A page parsed strictly: every element is closed where it should be."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[tuple[str, list[str]]] = [("", [])]
        self.texts: list[tuple[str, dict[str, str | None], str]] = []
        self._attributes: list[dict[str, str | None]] = [{}]
        self.whole: list[str] = []
        self.feed(page)
        self.close()
        assert [tag for tag, _ in self.open] == [""], f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), f"{tag} has an attribute twice"
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append((tag, []))
            self._attributes.append(dict(attrs))

    def handle_endtag(self, tag: str) -> None:
        opened, words = self.open.pop()
        assert opened == tag, f"</{tag}> closes <{opened}>"
        self.texts.append((tag, self._attributes.pop(), "".join(words)))

    def handle_data(self, data: str) -> None:
        if self.open[-1][0] != "style":
            self.whole.append(data)
        for _, words in self.open:
            words.append(data)

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data}")

    def all(self, tag: str, class_: str | None = None) -> list[str]:
        """The texts of the elements of a tag, and a class."""
        return [
            text
            for found, attributes, text in self.texts
            if found == tag and (class_ is None or class_ in (attributes.get("class") or "").split())
        ]

    @property
    def text(self) -> str:
        return "".join(self.whole)


def comparison(**changes: Any) -> Comparison:
    told: dict[str, Any] = {
        "base": 0.4, "candidate": 0.45, "delta": 0.05, "ci": (0.02, 0.08), "label_ci": (0.04, 0.06),
        "p": 0.004, "p_adjusted": 0.012, "t_p": 0.003, "wilcoxon_p": 0.005, "effect": 0.61,
        "detectable": 0.031, "topics_needed": 22, "wins": 3, "ties": 1, "losses": 0, "topics": 4,
        "bounds": (-0.01, 0.2), "flips": 7, "margin": None, "noninferior": None, "verdict": "better",
        "why": "The interval leaves 0 out.",
    }  # fmt: skip
    return Comparison(**{**told, **changes})


def run(ranking: dict[str, list[str]]) -> pl.DataFrame:
    rows = [(q, d, float(-i)) for q, docs in ranking.items() for i, d in enumerate(docs)]
    return rank(pl.DataFrame(rows, schema=["query_id", "doc_id", "score"], orient="row"))


def qrels(rows: list[tuple[str, str, int | list[float]]]) -> pl.DataFrame:
    """An assessor's grade is an int; a labeler's a distribution."""
    made: list[tuple[object, ...]] = []
    for query, doc, grade in rows:
        if isinstance(grade, int):
            made.append((query, doc, grade, float(grade), "human", None))
        else:
            gain = sum(g * p for g, p in enumerate(grade))
            made.append((query, doc, int(np.argmax(grade)), gain, "minilm@abc", grade))
    return pl.DataFrame(made, schema={**QRELS, "probs": pl.List(pl.Float32())}, orient="row")


BASE = {"q1": ["a", "b", "c"], "q2": ["a", "b"], "q3": ["c"], "q4": ["a", "b"]}
BETTER = {"q1": ["d", "b", "a"], "q2": ["b", "a"], "q3": ["c"], "q4": ["e", "b"]}
JUDGED = qrels(
    [("q1", "a", 0), ("q1", "b", 1), ("q1", "d", [0.1, 0.2, 0.7]), ("q2", "b", 2), ("q2", "a", 0),
     ("q3", "c", 1), ("q4", "b", 1)]
)  # fmt: skip


def compared(
    runs: dict[str, pl.DataFrame],
    judged: pl.DataFrame = JUDGED,
    measures: tuple[str, ...] = ("nDCG@3", "P@2"),
    found: Comparison | None = None,
    notes: tuple[str, ...] = (),
    **slices: Comparison,
) -> Compared:
    told = measure(runs, judged, measures)
    base, *candidates = runs
    one = found or comparison()
    by = {c: dict.fromkeys(told.measures, one) for c in candidates}
    parts = {k.replace("_", "="): {c: {told.measures[0]: s} for c in candidates} for k, s in slices.items()}
    return Compared(base, candidates, told.measures, by, parts, told, list(notes))


RUNS = {"old": run(BASE), "new": run(BETTER)}


def page(**options: Any) -> Page:
    return Page(report(compared(RUNS), RUNS, JUDGED, **options))


# -- what it says --------------------------------------------------------------------------------------------


def test_the_verdict_comes_first_in_words_with_its_why() -> None:
    found = page()
    assert found.all("h1") == ["new against old"]
    lead = found.all("p", "lead")[0]
    assert lead.startswith("By nDCG@3 and P@2, new is better than old. 4 topics;")
    assert found.all("p", "word") == ["▲Better", "▲Better"]
    assert found.all("p", "delta")[0] == "+0.050, 95 % interval +0.020 to +0.080"
    assert found.all("p", "why") == ["The interval leaves 0 out."] * 2
    assert found.text.index("Better") < found.text.index("What the scores rest on")


@pytest.mark.parametrize(
    ("verdict", "said", "word"),
    [
        ("worse", "new is worse than old", "▼Worse"),
        ("equivalent", "new is equivalent to old", "=Equivalent"),
        ("inconclusive", "new cannot yet be told from old", "?Inconclusive"),
    ],
)
def test_every_verdict_has_a_word_a_mark_and_a_sentence(verdict: str, said: str, word: str) -> None:
    found = Page(report(compared(RUNS, found=comparison(verdict=verdict)), RUNS, JUDGED))
    assert said in found.all("p", "lead")[0]
    assert found.all("p", "word")[0] == word


def test_the_share_of_labels_and_holes_is_said_at_the_top() -> None:
    # of the first 3: old has 8 documents, q1's c and q4's a are ungraded; new has 8 with d labeled and e not
    lead = page().all("p", "lead")[0]
    assert "of the first 3 documents, a labeler graded 0 % in old and 12 % in new" in lead
    assert "nobody graded 25 % in old and 12 % in new" in lead


def test_a_qrels_without_labels_says_nothing_of_labels() -> None:
    human = JUDGED.filter(pl.col("assessor") == "human")
    found = Page(report(compared(RUNS, human), RUNS, human))
    assert "of it by labels" not in found.text
    assert "a labeler graded" not in found.all("p", "lead")[0]
    assert not found.all("span", "model")


def test_numbers_stand_in_tables() -> None:
    rows = page().all("tr")
    assert any(r == "nDCG@30.40000.4500+0.0500+0.020 to +0.0800.0040.012310+0.610.03122" for r in rows), rows


def test_who_graded_is_counted_for_each_run() -> None:
    rows = page().all("tr")
    old, new = (measure(RUNS, JUDGED, ["nDCG@3"]).runs[r]["judged@3"] for r in ("old", "new"))
    assert f"old602{percent(old)}" in rows
    assert f"new611{percent(new)}" in rows


def test_topics_that_moved_most_come_first_and_those_that_stayed_not_at_all() -> None:
    found = page(topics_shown=2)
    values = compared(RUNS).measurement.per_topic.filter(measure="nDCG@3")
    wide = values.pivot("run", index="query_id", values="value").with_columns(
        delta=pl.col("new") - pl.col("old")
    )
    expected = wide.sort(pl.col("delta").abs(), descending=True)["query_id"].head(2).to_list()
    assert found.all("h3") == expected
    turned = {"new": RUNS["new"], "old": RUNS["old"]}  # now they are losses
    assert Page(report(compared(turned), turned, JUDGED, topics_shown=2)).all("h3") == expected
    assert "q3" not in page().all("h3")  # nothing changed there


def test_rankings_say_who_graded_in_words_and_where_a_document_went() -> None:
    listed = page().all("li")
    assert any(t.startswith("1expected grade ≈ 1.6 modeldnew in the first 10") for t in listed), listed
    assert any("chances of 0: 10 %, 1: 20 %, 2: 70 %" in t for t in listed)
    assert any(t.startswith("1grade 0 humanato 3") for t in listed)
    assert any(t.startswith("3grade: unjudgedcleaves the first 10") for t in listed)
    assert any(t.startswith("2grade 1 humanbsame place") for t in listed)


def test_a_label_names_the_judged_document_it_is_nearest_to_where_that_is_known() -> None:
    near = pl.when(pl.col("assessor") != "human")
    judged = JUDGED.with_columns(nearest=near.then(pl.lit("b")), similarity=near.then(pl.lit(0.872)))
    listed = Page(report(compared(RUNS, judged), RUNS, judged)).all("p", "chances")
    near_it = "nearest judged document: b, similarity 0.87"
    assert set(listed) == {f"chances of 0: 10 %, 1: 20 %, 2: 70 %; {near_it}"}


def test_depth_cuts_the_rankings() -> None:
    listed = page(depth=1).all("li")
    assert any("leaves the first 1" in t for t in listed)
    assert not any(t.startswith("2grade") for t in listed)


def test_a_topic_that_a_run_lacks_is_shown_as_such() -> None:
    runs = {**RUNS, "new": run({q: d for q, d in BETTER.items() if q != "q2"})}
    found = Page(report(compared(runs), runs, JUDGED))
    assert "Nothing retrieved." in found.text
    assert any("q2" in t for t in found.all("h3"))


def test_slices_notes_agreement_and_origin_are_shown_where_given() -> None:
    told = compared(RUNS, notes=("2 topics are missing.",), kind_fact=comparison(delta=-0.2, verdict="worse"))
    found = Page(
        report(told, RUNS, JUDGED, agreement={"kappa": 0.5871, "auc": math.nan}, provenance=origin())
    )
    assert "kind=fact" in found.all("th")
    assert any("−0.2000" in t and "▼worse" in t for t in found.all("tr"))
    assert "2 topics are missing." in found.all("li")
    assert any(t.startswith("kappa0.587Cohen's kappa") for t in found.all("tr"))
    assert any(t.startswith("auc—") for t in found.all("tr"))
    assert any(t.startswith("polars") for t in found.all("tr"))
    assert {"Slices", "Notes", "Where this comes from"} <= set(found.all("h2"))


def test_what_is_not_there_has_no_heading() -> None:
    headings = page(provenance={}).all("h2")
    assert not {"Slices", "Notes", "Where this comes from"} & set(headings)
    same = {"old": RUNS["old"], "new": RUNS["old"]}
    assert "Topics that moved most" not in Page(report(compared(same), same, JUDGED)).all("h2")


def test_bounds_are_shown_where_something_is_unjudged() -> None:
    found = page()
    assert any("bounds −0.010 to +0.200 · 7 grades could turn the sign" in t for t in found.all("span"))
    sure = Page(report(compared(RUNS, found=comparison(bounds=(0.01, 0.2), flips=None)), RUNS, JUDGED))
    assert any("no grading could turn the sign" in t for t in sure.all("span"))
    known = Page(report(compared(RUNS, found=comparison(bounds=(0.05, 0.05), flips=None)), RUNS, JUDGED))
    assert "bounds" not in known.text
    assert "least and greatest" not in known.text


def test_several_candidates_stand_under_their_names() -> None:
    runs = {**RUNS, "third": RUNS["old"]}
    found = Page(report(compared(runs), runs, JUDGED))
    assert found.all("h1") == ["new and third against old"]
    assert found.all("h3").count("new against old") == found.all("h3").count("third against old") == 1
    assert len(found.all("p", "word")) == 4
    many = {"base": RUNS["old"], **{f"c{i}": RUNS["new"] for i in range(9)}}
    whole = Page(report(compared(many), many, JUDGED))
    assert whole.all("h1") == ["9 candidates against base"]
    assert whole.all("p", "lead")[0].startswith("By nDCG@3: 9 better. By P@2: 9 better. 4 topics;")
    assert 9 <= len(whole.all("h4")) <= 40


def test_a_margin_is_answered_by_itself() -> None:
    kept = comparison(margin=0.01, noninferior=True)
    found = Page(report(compared(RUNS, found=kept), RUNS, JUDGED))
    assert "Not worse by more than the margin of 0.010." in found.all("p", "why")
    lost = replace(kept, noninferior=False)
    assert "Could be worse by more than" in Page(report(compared(RUNS, found=lost), RUNS, JUDGED)).text


def test_what_is_undefined_is_a_dash_and_never_nan() -> None:
    odd = comparison(
        ci=(-math.inf, math.inf), label_ci=None, p=math.nan, p_adjusted=math.nan, effect=math.nan,
        detectable=math.inf, topics_needed=None, bounds=None, flips=None, verdict="inconclusive",
    )  # fmt: skip
    one = {n: r.filter(pl.col("query_id") == "q1") for n, r in RUNS.items()}
    judged = JUDGED.filter(pl.col("query_id") == "q1")
    text = report(compared(one, judged, found=odd), one, judged)
    found = Page(text)
    assert "−∞ to +∞" in found.text
    row = next(r for r in found.all("tr") if r.startswith("nDCG@3") and "to" in r)
    assert row.count("—") == 4
    assert not re.search(r"\b(nan|None|inf)\b", text)


def test_queries_and_texts_come_from_the_collection(tmp_path: Path) -> None:
    (tmp_path / "queries.tsv").write_text("q1\twhat is a hole\nq2\tsecond\nq3\tthird\nq4\tfourth\n")
    long = "word " * 400
    docs = [f'{{"doc_id": "{d}", "title": "Title {d}", "text": "{long}{d}"}}' for d in "abce"]
    (tmp_path / "corpus.jsonl").write_text("\n".join(docs) + "\n")
    (tmp_path / "qrels.human.txt").write_text("q1 0 a 0\n")
    (tmp_path / "grades.tsv").write_text("0\tno: not at all\n1\tyes\n2\tmore: more than that\n")
    found = Page(report(compared(RUNS), RUNS, JUDGED, collection=open_collection(str(tmp_path))))
    assert any("what is a hole" in t for t in found.all("h3"))
    assert "Title a" in found.all("p", "title")
    texts = found.all("p", "doc")
    assert texts
    assert all(200 < len(t) <= 300 for t in texts)
    assert all(t.endswith("word…") for t in texts)
    assert "Grades: 0 no · 1 yes · 2 more." in found.text
    assert any("d" in t for t in found.all("bdi"))  # d has no text: its id is there all the same


# -- untrusted input -----------------------------------------------------------------------------------------

HOSTILE = [
    "<script>alert(1)</script>",
    "</style><script>alert(2)</script>",
    "</title></head><body onload=alert(3)>",
    '"><img src=http://evil.example/x onerror=alert(4)>',
    "' onmouseover='alert(5)",
    "--><!--<svg/onload=alert(6)>",
    "<![CDATA[x]]>&lt;b&gt;&#x3c;",
    "</svg></table><iframe src=//evil.example>",
    "javascript:alert(7)",
    "\x00\x01\x1b[31m\x7f\x85",
    "abc\u202etxt.exe\u202c\u2066\u200f",
    "lone \ud800 surrogate",
    "url(http://evil.example/a.css) @import 'x'",
    "{{7*7}} ${x} %s {0}",
]


def hostile_page(tmp_path: Path) -> str:
    """Every name, id, text and note is hostile."""
    clean = [h.encode("utf-8", "replace").decode() for h in HOSTILE]
    topics, docs = [f"{h} {i}" for i, h in enumerate(clean)], [f"{h}/{i}" for i, h in enumerate(clean)]
    names = [clean[1], clean[3]]
    runs = {
        n: run({q: docs[i + side :] + docs[:i] for i, q in enumerate(topics)}) for side, n in enumerate(names)
    }
    rows: list[tuple[str, str, int | list[float]]] = [
        (q, d, i % 3 if i % 2 else [0.5, 0.25, 0.25]) for q in topics for i, d in enumerate(docs[:6])
    ]
    judged = qrels(rows)

    class Hostile:
        topics = pl.DataFrame({"query_id": [f"{h} {i}" for i, h in enumerate(clean)], "text": clean})
        has_text = True

        @property
        def grades(self) -> dict[int, str]:
            return dict(enumerate(clean[:3]))

        def texts(self, ids: list[str]) -> pl.DataFrame:
            return pl.DataFrame({"doc_id": ids, "text": [f"{d}\n{''.join(clean)}" for d in ids]})

    told = compared(
        runs, judged, found=comparison(why=" ".join(HOSTILE), verdict=HOSTILE[0]), notes=tuple(HOSTILE)
    )
    told = replace(told, slices={HOSTILE[1]: told.found})
    collection: Any = Hostile()
    facts = {h: {h: h} for h in HOSTILE}
    return report(
        told, runs, judged, collection=collection, provenance=facts, agreement=dict.fromkeys(HOSTILE, 0.5)
    )


def test_no_markup_of_others_gets_into_the_page(tmp_path: Path) -> None:
    whole = hostile_page(tmp_path)
    found = Page(whole)
    assert {tag for tag, _ in found.elements} <= TAGS
    assert Counter(tag for tag, _ in found.elements)["style"] == 1
    attributes = [(key, value) for _, given in found.elements for key, value in given.items()]
    assert not [key for key, _ in attributes if key.startswith("on") or key in {"src", "srcdoc", "action"}]
    assert {v for k, v in attributes if k == "style"} <= {"overflow:hidden"}
    assert all(str(v).startswith("#") for k, v in attributes if k == "href")
    for one in HOSTILE:
        assert plain(one) in found.text, one
    assert whole.encode()  # no lone surrogate is left
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", whole)
    assert "[U+202E]" in found.text


def test_the_page_forbids_itself_everything_but_its_own_style(tmp_path: Path) -> None:
    whole = hostile_page(tmp_path)
    found = Page(whole)
    metas = [given for tag, given in found.elements if tag == "meta"]
    assert metas[0] == {"charset": "utf-8"}
    assert metas[1]["http-equiv"] == "Content-Security-Policy"
    policy = str(metas[1]["content"])
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'")
    assert "script-src" not in policy
    sheet = re.search("<style>(.*?)</style>", whole, re.DOTALL)
    assert sheet
    assert sheet[1] == style()
    assert not re.search(r"url\(|@import|https?:|//", style())
    tags = re.findall(r"<[a-z][^>]*>", re.sub("<style>.*?</style>", "", whole, flags=re.DOTALL))
    loads = [t for t in tags if re.search(r"\b(src|href|data|poster|xlink:href)=\"(?!#)", t)]
    assert not loads
    assert tags.index("<style>") > 0 if "<style>" in tags else True


@settings(deadline=None)
@given(st.text(alphabet=st.characters(codec=None), max_size=60))
def test_any_text_comes_through_as_text(text: str) -> None:
    for made in (el("p", text, title=text), el("p", el("b", text), title=text)):
        found = Page(made)
        assert found.text == plain(text)
        assert found.elements[0] == ("p", {"title": plain(text)})
        made.encode()


@settings(deadline=None)
@given(st.text(max_size=400), st.integers(2, 50))
def test_a_clipped_text_is_short_and_a_beginning(text: str, length: int) -> None:
    made = clip(text, length)
    assert len(made) <= length
    words = " ".join(text.split())
    assert made == words if len(words) <= length else words.startswith(made[:-1])


def test_a_very_long_id_does_not_fill_the_page() -> None:
    assert len(name("x" * 1_000_000)) < 200


# -- readable by everybody -----------------------------------------------------------------------------------


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """WCAG 2.2's contrast ratio."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_contrast_is_enough_in_both_palettes(mode: str) -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    palette = PALETTE[mode]
    assert set(palette) == set(PALETTE["light"])
    for ground in GROUNDS:
        weak = {t: contrast(palette[t], palette[ground]) for t in TEXTS}
        assert min(weak.values()) >= 4.5, weak
        weak = {m: contrast(palette[m], palette[ground]) for m in MARKS}
        assert min(weak.values()) >= 3, weak
    # text upon the filled box of an assessor's grade
    assert contrast(palette["ground"], palette["human"]) >= 4.5


def test_every_colour_of_the_style_sheet_is_one_of_the_palette() -> None:
    used = set(re.findall(r"var\(--([\w-]+)\)", style()))
    assert used <= set(PALETTE["light"])
    rules = style().partition("*{box-sizing")[2]
    assert not re.search(r"#[0-9a-f]{3,8}\b|rgb|hsl", rules)


def test_headings_go_down_one_step_at_a_time(tmp_path: Path) -> None:
    for whole in (hostile_page(tmp_path), report(compared(RUNS), RUNS, JUDGED)):
        levels = [int(tag[1]) for tag, _ in Page(whole).elements if re.fullmatch("h[1-6]", tag)]
        assert levels[0] == 1
        assert levels.count(1) == 1
        assert all(b <= a + 1 for a, b in pairwise(levels)), levels


def test_tables_pictures_and_language_are_marked_up(tmp_path: Path) -> None:
    found = Page(hostile_page(tmp_path))
    tags = Counter(tag for tag, _ in found.elements)
    assert tags["table"] == tags["caption"] > 5
    assert all(given.get("scope") in {"col", "row"} for tag, given in found.elements if tag == "th")
    assert found.elements[0] == ("html", {"lang": "en"})
    inner = [g for tag, g in found.elements if tag == "svg"]
    told = [g for g in inner if g.get("role") == "img"]
    assert told
    assert all(g["aria-label"] for g in told)
    quiet = [g for g in inner if g.get("role") != "img"]
    assert all(
        g.get("aria-hidden") == "true" or {"x", "y"} & set(g) for g in quiet
    )  # parts of a picture have a place
    assert tags["desc"] == len(told)
    ids = [g["id"] for _, g in found.elements if "id" in g]
    assert len(ids) == len(set(ids))
    links = [str(g["href"])[1:] for tag, g in found.elements if tag == "a"]
    assert links == ids
    regions = [g for _, g in found.elements if g.get("role") == "region"]
    assert all(g["aria-label"] and g["tabindex"] == "0" for g in regions)


# -- pictures ------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.lists(st.floats(-1, 1), max_size=8), st.lists(st.floats(-1, 1), max_size=4))
def test_a_scale_holds_zero_and_keeps_order(values: list[float], extras: list[float]) -> None:
    on = scale(values, extras)
    assert on.low < 0 < on.high
    assert all(on.low <= v <= on.high for v in values)
    placed = [on.at(v) for v in sorted([*values, *extras, 0.0])]
    assert placed == sorted(placed)
    assert all(0 <= p <= 100 for p in placed)
    assert 1 <= len(on.ticks) <= 12
    assert 0.0 in on.ticks
    assert len({on.text(t) for t in on.ticks}) == len(on.ticks)


def test_bounds_that_would_dwarf_the_interval_are_cut_with_an_arrow() -> None:
    on = scale([0.01, 0.02, 0.03], [-0.5, 0.6])
    assert on.high < 0.1
    drawn = interval(on, "x", 0.02, (0.01, 0.03), bounds=(-0.5, 0.6))
    assert drawn.count("<path") == 2
    assert "bounds over every labeling −0.500 to +0.600" in drawn
    assert "<path" not in interval(scale([0.3], [0.2]), "x", 0.3, (0.3, 0.3), bounds=(0.2, 0.3))


def test_columns_say_and_draw_every_topic() -> None:
    drawn = columns("x", [0.4, 0.1, 0.0, -0.2], "best", "worst")
    assert "4 topics: 2 up, 1 down, 1 the same; from +0.400 to −0.200." in drawn
    ups, downs = re.findall(r'<path class="(?:up|down)-fill" d="([^"]*)"', drawn)
    assert (ups.count("M"), downs.count("M")) == (2, 1)
    tall = [float(v) for v in re.findall(r"v(-?[\d.]+)", ups + downs)]
    assert tall == pytest.approx([-400 / 6, -100 / 6, 200 / 6], abs=0.01)
    assert "<path" not in columns("x", [0.0, 0.0])


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (signed(0.0429), "+0.043"), (signed(-0.0004), "0.000"), (signed(-0.5), "−0.500"),
        (signed(math.inf), "+∞"),
        (number(None), "—"), (number(math.nan), "—"), (number(-0.00001), "0.0000"), (percent(1, 0), "—"),
        (percent(0.99999), "100.0 %"), (percent(0.0001), "< 0.1 %"), (percent(0), "0 %"),
        (percent(1, 3), "33 %"),
    ],
)  # fmt: skip
def test_numbers_are_written_honestly(made: str, expected: str) -> None:
    assert made == expected


# -- files, speed, errors ------------------------------------------------------------------------------------


def test_the_same_input_gives_the_same_page_whatever_its_order(tmp_path: Path) -> None:
    first = report(compared(RUNS), RUNS, JUDGED)
    assert first == report(compared(RUNS), RUNS, JUDGED.sample(fraction=1, shuffle=True, seed=3))
    files = {n: tmp_path / f"{n}.run.gz" for n in RUNS}
    for n, path in files.items():
        write_run(RUNS[n], path, n)
    assert first == report(compared(RUNS), files, JUDGED)
    write(first, tmp_path / "page.html")
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == first
    assert sorted(p.name for p in tmp_path.iterdir()) == ["new.run.gz", "old.run.gz", "page.html"]


def test_origin_says_command_hashes_and_versions(tmp_path: Path) -> None:
    (tmp_path / "q").write_bytes(b"hello")
    told = origin([tmp_path / "q"], ["stopgap", "report", "a b.run"])
    assert told["Command"] == {"run as": "stopgap report 'a b.run'"}
    assert told["Files, with their sha256"] == {str(tmp_path / "q"): hashlib.sha256(b"hello").hexdigest()}
    assert told["Versions"]["polars"] == pl.__version__
    assert "Collection" not in told
    demo = open_collection("demo")
    told = origin(collection=demo)
    assert told["Collection"] == {"name": "demo", "sha256 of the documents": demo.corpus_hash}
    with pytest.raises(InputError, match="no such file"):
        origin([tmp_path / "absent"])


def test_arguments_that_cannot_be_meant_are_refused() -> None:
    told = compared(RUNS)
    with pytest.raises(UsageError, match="depth is 0"):
        report(told, RUNS, JUDGED, depth=0)
    with pytest.raises(UsageError, match="runs lacks 'new'"):
        report(told, {"old": RUNS["old"]}, JUDGED)


def test_a_thousand_topics_take_less_than_three_seconds() -> None:
    rng = np.random.default_rng(5)
    topics = [f"topic-{i}" for i in range(1000)]

    def some() -> pl.DataFrame:
        docs = rng.permuted(np.tile(np.arange(60), (1000, 1)), axis=1)[:, :50]
        return rank(
            pl.DataFrame(
                {
                    "query_id": np.repeat(topics, 50),
                    "doc_id": [f"d{d}" for d in docs.ravel()],
                    "score": np.tile(-np.arange(50.0), 1000),
                }
            )
        )

    runs = {"base": some(), "one": some(), "two": some()}
    grades = rng.integers(0, 4, 20_000)
    rows = [(topics[i // 20], f"d{i % 20}", int(grades[i])) for i in range(20_000)]
    judged = qrels([*rows])
    measures = ("nDCG@10", "AP", "P@10", "RR@10", "R@50")
    told = compared(runs, judged, measures)
    start = time.process_time()  # of this process: other work on the machine does not count
    whole = report(told, runs, judged)
    assert time.process_time() - start < 3
    assert len(whole) < 1_000_000
    assert "All 1,000 topics as a table" in whole


def test_many_candidates_do_not_make_the_page_too_large() -> None:
    topics = [f"t{i}" for i in range(1000)]
    runs = {"base": run({t: ["a", "b"] for t in topics})}
    runs |= {f"c{i}": run({t: ["b", "a", "c"] for t in topics}) for i in range(11)}
    judged = qrels([(t, d, i % 3) for t in topics for i, d in enumerate("abc", len(t))])
    whole = report(compared(runs, judged, ("P@1",)), runs, judged)
    assert "stopgap measure --per-topic gives every topic." in whole
    assert "topics as a table" not in whole
    assert len(Page(whole).all("details")) == 33  # three topics for each of eleven
    assert len(whole) < 1_500_000


def test_the_verb_writes_the_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for run_name, frame in RUNS.items():
        write_run(frame, tmp_path / f"{run_name}.run", run_name)
    write_qrels(JUDGED, tmp_path / "q.txt")
    files = [str(tmp_path / f) for f in ("old.run", "new.run")]
    asked = ["report", *files, "--qrels", str(tmp_path / "q.txt"), "-m", "nDCG@3"]
    assert main([*asked, "--out", str(tmp_path / "page.html")]) == 0
    assert "Written:" in capsys.readouterr().out
    found = Page((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert found.all("h1") == ["new against old"]
    assert str(tmp_path / "q.txt") in found.all("bdi")  # with its hash
    assert main([*asked, "--out", str(tmp_path / "absent" / "page.html")]) == 2
