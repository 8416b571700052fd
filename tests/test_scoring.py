"""The measures: expected values over labels against every possible outcome, and what rests on labels."""

from __future__ import annotations

import itertools
import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.gains import Hits, blocks, find
from harness.judgments import Judgments
from harness.ranking import rank
from harness.scoring import NAMES, Spec, judged_share, plain, score

GRADES = (0, 1, 2)
DISTRIBUTIONS = st.sampled_from(
    [
        None,
        [1.0, 0.0, 0.0],
        [0.0, 1.0, 0.0],
        [0.0, 0.0, 1.0],
        [0.5, 0.25, 0.25],
        [0.125, 0.5, 0.375],
        [0.25, 0.75, 0.0],
    ]
)


def topic(judged: dict[str, tuple[int, list[float] | None]], retrieved: str) -> Hits:
    """One topic: doc_id -> grade of an assessor, or distribution of a label; and the ranking."""
    rows = []
    for document, (grade, probs) in judged.items():
        gain = float(grade) if probs is None else float(np.dot(probs, GRADES))
        rows.append(("1", document, grade, gain, "human" if probs is None else "label", probs))
    schema = {
        "query_id": pl.String,
        "doc_id": pl.String,
        "relevance": pl.Int16,
        "gain": pl.Float32,
        "assessor": pl.String,
        "probs": pl.List(pl.Float32),
    }
    qrels = pl.DataFrame(rows, schema=schema, orient="row")
    run = pl.DataFrame(
        {"query_id": "1", "doc_id": list(retrieved), "score": [float(-i) for i in range(len(retrieved))]}
    )
    return find(Judgments(qrels), blocks(rank(run)))


def outcomes(judged: dict[str, tuple[int, list[float] | None]]):
    """Every way the labels may turn out, with its probability."""
    options = [
        [(grade, 1.0)] if probs is None else [(g, p) for g, p in zip(GRADES, probs, strict=True) if p]
        for grade, probs in judged.values()
    ]
    for chosen in itertools.product(*options):
        yield dict(zip(judged, (g for g, _ in chosen), strict=True)), math.prod(p for _, p in chosen)


def value(spec: Spec, hits: Hits) -> float:
    (x,) = score(spec, hits).tolist()
    return x


JUDGED = st.dictionaries(
    st.sampled_from("abcde"), st.tuples(st.sampled_from(GRADES), DISTRIBUTIONS), min_size=1, max_size=5
)
RANKING = st.permutations("abcdxy").map("".join)


@settings(deadline=None, max_examples=60)
@given(judged=JUDGED, retrieved=RANKING, rel=st.sampled_from([1, 2]), cutoff=st.sampled_from([1, 3, 10]))
def test_expected_values_are_means_over_all_outcomes(judged, retrieved, rel, cutoff) -> None:
    hits = topic(judged, retrieved)
    totals = dict.fromkeys(["P", "RR", "Success", "RBP", "found", "precisions", "R"], 0.0)
    for grades, probability in outcomes(judged):
        relevant = [grades.get(d, 0) >= rel for d in retrieved[:cutoff]]
        first = relevant.index(True) + 1 if any(relevant) else None
        outcome = {
            "P": sum(relevant) / cutoff,
            "RR": 1 / first if first else 0.0,
            "Success": float(any(relevant)),
            "RBP": 0.2 * sum(0.8**i for i, r in enumerate(relevant) if r),
            "found": sum(relevant),
            "precisions": sum(sum(relevant[: i + 1]) / (i + 1) for i, r in enumerate(relevant) if r),
            "R": sum(g >= rel for g in grades.values()),
        }
        for name, x in outcome.items():
            totals[name] += probability * x
    expected = {name: totals[name] for name in ("P", "RR", "Success", "RBP")}
    expected["R"] = totals["found"] / totals["R"] if totals["R"] else 0.0
    expected["AP"] = totals["precisions"] / totals["R"] if totals["R"] else 0.0
    got = {name: value(Spec(name, name, cutoff, rel), hits) for name in expected}
    assert got == pytest.approx(expected, abs=1e-9)


@settings(deadline=None, max_examples=40)
@given(judged=JUDGED, retrieved=RANKING, exponential=st.booleans(), cutoff=st.sampled_from([1, 3, None]))
def test_ndcg_is_expected_dcg_over_that_of_the_sorted_expected_gains(
    judged, retrieved, exponential, cutoff
) -> None:
    expected = {}
    for document, (grade, probs) in judged.items():
        worth = [2**g - 1 for g in GRADES] if exponential else GRADES
        expected[document] = float(worth[grade]) if probs is None else float(np.dot(probs, worth))

    def dcg(gains):
        return sum(g / math.log2(i + 2) for i, g in enumerate(gains[:cutoff]))

    ideal = dcg(sorted(expected.values(), reverse=True))
    wanted = dcg([expected.get(d, 0.0) for d in retrieved]) / ideal if ideal else 0.0
    got = value(Spec("nDCG", "nDCG", cutoff, exponential=exponential), topic(judged, retrieved))
    assert got == pytest.approx(wanted, abs=1e-6)  # gains are float32


SPECS = [
    Spec("nDCG", "nDCG"),
    Spec("nDCG", "nDCG(dcg='exp-log2')@2", 2, exponential=True),
    Spec("nDCG", "nDCG(gains={0: 1, 2: 5})", mapping=((0, 1), (2, 5))),
    Spec("AP", "AP(rel=2)", rel=2),
    Spec("AP", "AP(judged_only=True)@2", 2, judged_only=True),
    Spec("RR", "RR"),
    Spec("P", "P@3", 3),
    Spec("R", "R@3", 3),
    Spec("Success", "Success@2", 2),
    Spec("Judged", "Judged@3", 3),
    Spec("RBP", "RBP", rel=None),
    Spec("RBP", "RBP(rel=1)@3", 3),
    Spec("Bpref", "Bpref"),
    Spec("Rprec", "Rprec"),
]


@settings(deadline=None, max_examples=40)
@given(
    judged=st.dictionaries(st.sampled_from("abcde"), st.sampled_from(GRADES), min_size=1), retrieved=RANKING
)
def test_a_label_that_is_sure_counts_as_an_assessor_would(judged, retrieved) -> None:
    by_hand = topic({d: (g, None) for d, g in judged.items()}, retrieved)
    by_label = topic({d: (g, [float(g == x) for x in GRADES]) for d, g in judged.items()}, retrieved)
    for spec in SPECS:
        if spec.name == "RBP" and spec.rel is None:
            continue  # its scale is the highest grade, which only the label's distribution tells
        assert value(spec, by_label) == value(spec, by_hand), spec.text


@settings(deadline=None, max_examples=40)
@given(judged=JUDGED, retrieved=RANKING)
def test_what_rests_on_labels_is_what_goes_without_them(judged, retrieved) -> None:
    hits = topic(judged, retrieved)
    for spec in SPECS:
        with_labels, without = score(spec, hits)[0], score(spec, hits, human_only=True)[0]
        assert 0.0 <= without <= with_labels + 1e-12, spec.text
        if all(probs is None for _, probs in judged.values()):
            assert without == with_labels, spec.text
        if all(probs is not None for _, probs in judged.values()):
            assert without == 0.0, spec.text


def test_without_labels_only_the_numerator_changes() -> None:
    judged = {"a": (2, None), "b": (1, [0.0, 1.0, 0.0])}
    hits = topic(judged, "ab")
    ideal = 2 + 1 / math.log2(3)
    assert score(Spec("nDCG", "nDCG"), hits, human_only=True).tolist() == pytest.approx([2 / ideal])
    assert score(Spec("AP", "AP"), hits, human_only=True).tolist() == [0.5]
    assert score(Spec("Judged", "Judged@2", 2), hits, human_only=True).tolist() == [0.5]


def test_graded_rbp_divides_by_the_highest_grade_of_the_scale() -> None:
    hits = topic({"a": (1, None), "b": (2, [0.0, 0.5, 0.5])}, "xab")
    assert value(Spec("RBP", "RBP", rel=None, persistence=0.5), hits) == pytest.approx(
        0.5 * (0.5 * 1 / 2 + 0.25 * 1.5 / 2)
    )


def test_judged_share_is_over_what_was_retrieved() -> None:
    hits = topic({"a": (0, None), "b": (2, [0.0, 0.5, 0.5]), "z": (1, None)}, "xab")
    assert judged_share(hits, 2).tolist() == [0.5]
    assert judged_share(hits, 10).tolist() == pytest.approx([2 / 3])
    assert judged_share(hits, 10, labeled=True).tolist() == pytest.approx([1 / 3])
    assert judged_share(hits, 1).tolist() == [0.0]


def test_zero_is_not_negative() -> None:
    hits = topic({"a": (0, None)}, "ab")
    assert [math.copysign(1, value(spec, hits)) for spec in SPECS] == [1.0] * len(SPECS)


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("nDCG@10", Spec("nDCG", "nDCG@10", 10)),
        ("AP", Spec("AP", "AP")),
        ("RBP", Spec("RBP", "RBP", rel=None)),
        ("P@5", Spec("P", "P@5", 5)),
        ("P", None),
        ("Bpref@5", None),
        ("ndcg@10", None),
        ("nDCG@0", None),
        ("AP(rel=2)", None),
        ("NumRet", None),
    ],
)
def test_plain_names(text, spec) -> None:
    assert plain(text) == spec


def test_every_family_is_tried_here() -> None:
    assert {spec.name for spec in SPECS} == set(NAMES)
