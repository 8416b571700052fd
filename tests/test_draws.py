"""Labels drawn from their distributions: what stays, what moves, and whether intervals then cover."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import polars as pl
import pytest

from harness import draws
from harness.compare import compare
from harness.draws import SHIFT_ALL, SHIFT_TOPIC, generator, score_draws
from harness.frames import QRELS
from harness.judgments import SHIFTS, Judgments
from harness.measure import measure, parse
from harness.ranking import rank

SCHEMA = {**QRELS, "probs": pl.List(pl.Float32), **dict.fromkeys(SHIFTS, pl.Float32)}
GRADES = np.arange(4)
PROBS = [0.4, 0.3, 0.2, 0.1]
Label = Sequence[float] | None


def filled(
    rows: Sequence[tuple[str, str, int, Label]], shifts: tuple[float | None, float | None] = (None, None)
) -> pl.DataFrame:
    """QRELS: query_id, doc_id, grade, and the label's distribution; without one an assessor's."""
    made = []
    for q, d, grade, probs in rows:
        gain = float(grade) if probs is None else float(np.dot(probs, range(len(probs))))
        own = (None, None) if probs is None else shifts
        made.append((q, d, grade, gain, "human" if probs is None else "label@1", probs, *own))
    return pl.DataFrame(made, schema=SCHEMA, orient="row")


def run(rows: Sequence[tuple[str, str, float]]) -> pl.DataFrame:
    schema = {"query_id": pl.String, "doc_id": pl.String, "score": pl.Float64}
    return rank(pl.DataFrame(list(rows), schema=schema, orient="row"))


def grades_of(qrels: pl.DataFrame, times: int, seed: int = 0) -> np.ndarray:
    return np.concatenate(list(draws._drawn(Judgments(qrels), seed, times)))


def many(probs: Sequence[float], topics: int, docs: int, **shifts: float) -> pl.DataFrame:
    rows = [(f"q{t:03}", f"d{i}", 0, probs) for t in range(topics) for i in range(docs)]
    return filled(rows, (shifts.get("all", 0.0), shifts.get("topic", 0.0)))


# -- single grades -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shifts", [(0.0, 0.0), (0.3, 0.5), (0.6, 0.2), (0.0, 1.0)])
@pytest.mark.parametrize("probs", [PROBS, [0.9, 0.06, 0.03, 0.01], [0.05, 0.05, 0.1, 0.8]])
def test_a_label_keeps_about_the_probabilities_it_stated(
    shifts: tuple[float, float], probs: list[float]
) -> None:
    found = grades_of(many(probs, 100, 2, all=shifts[0], topic=shifts[1]), 2000)
    shares = np.bincount(found.ravel(), minlength=4) / found.size
    np.testing.assert_allclose(shares, probs, atol=0.025)


def test_the_draws_of_binary_and_of_other_scales() -> None:
    frame = filled([("1", "a", 0, [0.25, 0.75]), ("1", "b", 1, None)], (0.0, 0.0))
    found = np.concatenate(list(draws._drawn(Judgments(frame, [0, 7]), 0, 4000)))
    assert set(found[:, 0]) == {0, 7}
    assert (found[:, 0] == 7).mean() == pytest.approx(0.75, abs=0.03)
    assert set(found[:, 1]) == {1}


def test_certain_labels_hardly_move_and_assessors_rows_never() -> None:
    rows = [("1", f"d{i:02}", i % 4, np.eye(4)[i % 4].tolist() if i < 8 else None) for i in range(16)]
    found = grades_of(filled(rows), 500)
    assert (found[:, 8:] == [i % 4 for i in range(8, 16)]).all()
    assert (found[:, :8] == [i % 4 for i in range(8)]).mean() > 0.999


def test_labels_of_one_topic_err_together_and_those_of_two_by_the_common_shift_only() -> None:
    def correlation(**shifts: float) -> tuple[float, float]:
        high = grades_of(many([0.5, 0.5], 2, 300, **shifts), 400).reshape(400, 2, 300).mean(axis=2)
        both = grades_of(many([0.5, 0.5], 1, 2, **shifts), 4000)
        return float(np.corrcoef(both.T)[0, 1]), float(np.corrcoef(high.T)[0, 1])

    assert correlation() == pytest.approx((0.0, 0.0), abs=0.15)
    within, between = correlation(topic=1.0)
    assert within > 0.1
    assert abs(between) < 0.15
    within, between = correlation(all=0.5)
    assert within > 0.03
    assert between > 0.8


def test_the_spread_of_a_topic_is_that_of_its_shift() -> None:
    """With many labels only the shift is left: sd of the mean grade is sd of expit(shift)."""
    found = grades_of(many([0.5, 0.5], 40, 400, topic=0.5), 200).reshape(200, 40, 400).mean(axis=2)
    shift = np.random.default_rng(0).normal(0, 0.5, 100_000)
    assert found.std() == pytest.approx((1 / (1 + np.exp(-shift))).std(), rel=0.1)


def test_labels_without_shifts_get_the_default_ones() -> None:
    said = filled([("1", f"d{i}", 0, PROBS) for i in range(9)], (SHIFT_ALL, SHIFT_TOPIC))
    unsaid = said.drop(SHIFTS)
    wide = said.with_columns(pl.lit(2.0, pl.Float32).alias("shift_topic"))
    # the columns hold 32 bits, so a chance right at an edge may fall otherwise
    assert (grades_of(said, 300) == grades_of(unsaid, 300)).mean() > 0.999
    assert (grades_of(said, 300) != grades_of(wide, 300)).any()


def test_one_seed_one_drawing() -> None:
    frame = many(PROBS, 5, 4)
    np.testing.assert_array_equal(grades_of(frame, 50, 3), grades_of(frame, 50, 3))
    assert (grades_of(frame, 50, 3) != grades_of(frame, 50, 4)).any()
    np.testing.assert_array_equal(grades_of(frame, 50), grades_of(frame.reverse(), 50))


def test_streams_and_seeds_are_independent() -> None:
    numbers = {(s, p): generator(s, p).random() for s in (0, 1, 2**64 - 1, 2**64 - 2) for p in (0, 1, 2)}
    assert len(set(numbers.values())) == len(numbers)
    assert generator(5, 1).random() == generator(5, 1).random()


# -- measures ------------------------------------------------------------------------------------------------

MEASURES = ["nDCG@3", "nDCG(dcg='exp-log2')@3", "AP(rel=2)", "P(rel=2)@3", "RR", "R@3", "RBP", "Bpref"]
RANKED = run([(q, d, float(-i)) for q in ("1", "2", "3") for i, d in enumerate("abcde")])
MIXED = filled(
    [
        *(("1", d, g, None) for d, g in zip("abcd", (0, 3, 1, 0), strict=True)),
        *(("2", d, 0, PROBS) for d in "ac"),
        ("2", "b", 3, None),
        ("2", "z", 2, None),
        *(("3", d, 1, [0.1, 0.5, 0.2, 0.2]) for d in "bde"),
    ]
)


def drawn_values(qrels: pl.DataFrame, **options: int) -> dict[str, np.ndarray]:
    found = measure({"run": RANKED}, qrels, MEASURES)
    return score_draws(found.specs, found.hits, **options)["run"]


def test_topics_without_labels_are_constant_and_others_move() -> None:
    found = measure({"run": RANKED}, MIXED, MEASURES)
    values = score_draws(found.specs, found.hits)["run"]
    assert list(values) == found.measures
    for number, drawn in enumerate(values.values()):
        assert drawn.shape == (draws.DRAWS, 3)
        np.testing.assert_array_equal(drawn[:, 0], found.values["run"][number][0])
        assert drawn[:, 1:].std(axis=0).min() > 0


def test_drawn_values_are_those_of_an_assessor_with_these_grades() -> None:
    """Each row of the draws is what `measure` gives for qrels that hold the drawn grades."""
    values = drawn_values(MIXED, draws=12)
    part = draws._part(Judgments(MIXED), np.array([1, 2]))[0]
    (grades,) = draws._drawn(part, 0, 12)
    ordered = MIXED.sort("query_id", "doc_id").filter(pl.col("query_id") != "1")
    human = MIXED.sort("query_id", "doc_id").filter(query_id="1")
    for row in range(12):
        again = pl.concat([human, ordered.with_columns(relevance=pl.Series(grades[row], dtype=pl.Int16))])
        judged = again.select(*QRELS).with_columns(
            gain=pl.col("relevance").cast(pl.Float32), assessor=pl.lit("human")
        )
        expected = measure({"run": RANKED}, judged, MEASURES).values["run"]
        for name, theirs in zip(values, expected, strict=True):
            np.testing.assert_allclose(values[name][row], theirs, atol=1e-12, err_msg=name)


def test_many_judgments_are_drawn_in_parts_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = drawn_values(MIXED, draws=30)
    monkeypatch.setattr(draws, "_MOST", 20)
    for name, drawn in drawn_values(MIXED, draws=30).items():
        np.testing.assert_array_equal(drawn, whole[name])


def test_all_runs_see_the_same_drawing() -> None:
    same = measure({"a": RANKED, "b": RANKED}, MIXED, MEASURES)
    values = score_draws(same.specs, same.hits)
    for name in MEASURES:
        text = str(parse([name])[0].text)  # type: ignore[union-attr]
        np.testing.assert_array_equal(values["a"][text], values["b"][text])


@pytest.mark.parametrize("change", ["human", "no probs"])
def test_without_distributions_nothing_is_drawn(change: str) -> None:
    frame = MIXED.drop("probs") if change == "no probs" else MIXED.with_columns(assessor=pl.lit("human"))
    found = measure({"run": RANKED}, frame, MEASURES)
    assert score_draws(found.specs, found.hits) == {}


# -- does the interval cover ---------------------------------------------------------------------------------


def world(seed: int, topics: int = 12, docs: int = 10) -> tuple[dict[str, pl.DataFrame], np.ndarray]:
    """Two runs over all documents of a topic, and the distributions of these."""
    rng = np.random.default_rng(seed)
    probs = rng.dirichlet([1.2, 0.8, 0.6, 0.4], (topics, docs))
    runs = {}
    for name in ("a", "b"):
        score = probs @ GRADES + rng.normal(0, 1.0, (topics, docs))
        runs[name] = run(
            [(f"q{t:02}", f"d{i}", float(score[t, i])) for t in range(topics) for i in range(docs)]
        )
    return runs, probs


def test_label_ci_covers_what_the_labels_model_draws() -> None:
    """Topics held fixed, a third of the pairs judged, truth drawn from the model in `draws` itself."""
    covered, trials = [], 0
    for seed in range(6):
        runs, probs = world(seed)
        topics, docs = probs.shape[:2]
        human = np.random.default_rng(seed).random((topics, docs)) < 0.33
        rows = [
            (f"q{t:02}", f"d{i}", 1, None if human[t, i] else probs[t, i].tolist())
            for t in range(topics)
            for i in range(docs)
        ]
        frame = filled(rows, (0.3, 0.5))
        ((_, one),) = compare(runs, frame, ["nDCG@5"]).found["b"].items()
        assert one.label_ci is not None
        found = measure(runs, frame, ["nDCG@5"])
        values = score_draws(found.specs, found.hits, seed=1000 + seed, draws=300)
        truth = (values["b"]["nDCG@5"] - values["a"]["nDCG@5"]).mean(axis=1)
        covered.append(np.mean((truth >= one.label_ci[0]) & (truth <= one.label_ci[1])))
        trials += len(truth)
        assert one.ci[1] - one.ci[0] > one.label_ci[1] - one.label_ci[0]
    assert trials == 1800
    assert np.mean(covered) == pytest.approx(0.95, abs=0.025)
    assert min(covered) > 0.85


def test_errors_that_go_together_widen_the_interval() -> None:
    runs, probs = world(3)
    # b looks up what nobody judged: without it every shift moves both runs alike
    new = [(f"q{t:02}", f"new{i}", 1, PROBS) for t in range(len(probs)) for i in range(5)]
    judged = [(f"q{t:02}", f"d{i}", i % 4, None) for t in range(len(probs)) for i in range(10)]
    runs["b"] = run([(q, d, 9.0 - int(d[3:])) for q, d, *_ in new])
    widths = []
    for shifts in ((0.0, 0.0), (0.0, 0.5), (0.5, 0.5)):
        one = compare(runs, filled([*judged, *new], shifts), ["nDCG@5"]).found["b"]["nDCG@5"]
        assert one.label_ci is not None
        widths.append((one.label_ci[1] - one.label_ci[0], one.ci[1] - one.ci[0], one.detectable))
    for narrow, wide in pairwise(widths):
        assert all(after > before for before, after in zip(narrow, wide, strict=True))
    assert widths[2][0] > 2 * widths[0][0]
