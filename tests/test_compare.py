"""A versus B: the numbers of a comparison, its verdict, its notes, and what it refuses."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import cli
from harness.compare import Compared, Comparison, compare, compare_measured
from harness.errors import UnknownName, UsageError
from harness.frames import QRELS
from harness.inference import adjusted, intervals, sign_flips
from harness.judgments import SHIFTS
from harness.measure import measure
from harness.ranking import rank
from harness.trec import read_qrels, read_run, write_qrels, write_run
from harness.verdicts import VERDICTS


def topic(number: int) -> str:
    return f"q{number:03}"


def judged(topics: int, grades: str = "100") -> pl.DataFrame:
    """Documents r0, r1, ... with these grades on each topic."""
    rows = [
        (topic(t), f"r{i}", int(g), float(g), "human") for t in range(topics) for i, g in enumerate(grades)
    ]
    return pl.DataFrame(rows, schema=QRELS, orient="row")


def run(places: Sequence[int], skip: Sequence[int] = ()) -> pl.DataFrame:
    """r0 stands at this place of each topic (0: nowhere), before it unjudged x1, x2, ..., after it r1."""
    rows = []
    for t, place in enumerate(places):
        if t not in skip:
            ids = [f"x{i}" for i in range(1, place)] + (["r0"] if place else []) + ["r1"]
            rows += [(topic(t), d, -float(i)) for i, d in enumerate(ids)]
    schema = {"query_id": pl.String, "doc_id": pl.String, "score": pl.Float64}
    return rank(pl.DataFrame(rows, schema=schema, orient="row"))


def rr(base: Sequence[int], candidate: Sequence[int], **options: Any) -> Comparison:
    """Reciprocal ranks compared: places of the relevant document."""
    runs = {"a": run(base), "b": run(candidate)}
    return compare(runs, judged(len(base)), ["RR"], **options).found["b"]["RR"]


def values(places: Sequence[int]) -> np.ndarray:
    return np.array([1 / p if p else 0.0 for p in places])


PLACES = np.random.default_rng(3).integers(0, 6, (2, 40)).tolist()
BETTER = ([2] * 20 + [3] * 20, [1] * 20 + [2] * 20)


# -- the numbers ---------------------------------------------------------------------------------------------


def test_means_difference_and_counts() -> None:
    found = rr([2, 1, 4, 0], [1, 1, 0, 2])
    assert (found.base, found.candidate) == ((1 / 2 + 1 + 1 / 4) / 4, (1 + 1 + 1 / 2) / 4)
    assert found.delta == pytest.approx(0.1875)
    assert (found.wins, found.ties, found.losses, found.topics) == (2, 1, 1, 4)


def test_the_tests_are_scipy_s() -> None:
    from scipy import stats

    found = rr(*PLACES)
    a, b = map(values, PLACES)
    delta = b - a
    assert found.t_p == pytest.approx(stats.ttest_rel(b, a).pvalue)
    assert found.wilcoxon_p == pytest.approx(stats.wilcoxon(delta[delta != 0]).pvalue)
    assert found.effect == pytest.approx(delta.mean() / delta.std(ddof=1))
    assert found.p == sign_flips(delta[:, None])[0]
    low, high = intervals(delta[:, None])
    assert found.ci == pytest.approx((low[0], high[0]), abs=1e-12)
    assert found.label_ci is None


def test_few_topics_get_scipy_s_exact_permutation_p() -> None:
    from scipy import stats

    places = (PLACES[0][:9], PLACES[1][:9])
    theirs = stats.permutation_test(
        tuple(map(values, places)),
        lambda a, b, axis: np.mean(a - b, axis=axis),
        permutation_type="samples",
        n_resamples=np.inf,
        vectorized=True,
    )
    assert rr(*places).p == pytest.approx(theirs.pvalue)


def test_power_is_statsmodels() -> None:
    from statsmodels.stats.power import TTestPower

    found = rr(*PLACES)
    spread = (values(PLACES[1]) - values(PLACES[0])).std(ddof=1)
    least = TTestPower().solve_power(nobs=40, alpha=0.05, power=0.8) * spread
    assert found.detectable == pytest.approx(float(np.squeeze(least)), rel=1e-4)
    needed = TTestPower().solve_power(effect_size=abs(found.delta) / spread, alpha=0.05, power=0.8)
    assert found.topics_needed == math.ceil(float(needed))


def test_p_is_corrected_over_measures_candidates_and_slices_together() -> None:
    places = np.random.default_rng(1).integers(1, 4, (3, 12)).tolist()
    runs = dict(zip("abc", map(run, places), strict=True))
    slices = pl.DataFrame({"query_id": [topic(t) for t in range(12)], "half": ["x", "y"] * 6})
    measured = measure(runs, judged(12), ["RR", "nDCG@2"])
    for correction in ("holm", "bonferroni", "fdr", "none"):
        found = compare_measured(measured, "a", slices=slices, correction=correction)
        ones = [
            one
            for of in (found.found, *found.slices.values())
            for by_measure in of.values()
            for one in by_measure.values()
        ]
        assert len(ones) == 2 * 2 * 3
        expected = adjusted(np.array([one.p for one in ones]), correction)
        assert [one.p_adjusted for one in ones] == pytest.approx(expected.tolist())


def test_a_slice_is_the_comparison_of_its_topics() -> None:
    runs = {"a": run(PLACES[0]), "b": run(PLACES[1])}
    slices = pl.DataFrame({"query_id": [topic(t) for t in range(15)], "kind": ["x"] * 5 + ["y"] * 10})
    found = compare(runs, judged(40), ["RR"], slices=slices)
    assert list(found.slices) == ["kind=x", "kind=y"]
    alone = rr(PLACES[0][5:15], PLACES[1][5:15], correction="none")
    inside = found.slices["kind=y"]["b"]["RR"]
    assert (inside.topics, inside.delta, inside.ci, inside.p) == (10, alone.delta, alone.ci, alone.p)
    assert inside.bounds is None
    assert found.found["b"]["RR"].topics == 40


def test_several_candidates_against_a_base_of_choice() -> None:
    runs = {"a": run([1] * 8), "b": run([2] * 8), "c": run([4] * 8)}
    found = compare(runs, judged(8), ["RR"], base="b")
    assert (found.base, found.candidates) == ("b", ["a", "c"])
    assert [found.found[c]["RR"].delta for c in found.candidates] == [0.5, -0.25]
    assert found.verdicts == ["better", "worse"]


# -- the verdict ---------------------------------------------------------------------------------------------


def test_better_worse_and_the_reverse() -> None:
    there, back = rr(*BETTER), rr(*reversed(BETTER))
    assert (there.verdict, back.verdict) == ("better", "worse")
    assert there.delta == -back.delta
    assert there.ci == pytest.approx((-back.ci[1], -back.ci[0]))
    assert (there.wins, there.losses) == (back.losses, back.wins) == (40, 0)
    assert there.why.startswith("40 topics won, 0 lost, 0 tied.")


def test_no_clear_difference_is_inconclusive_and_says_what_would_settle_it() -> None:
    found = rr(*PLACES)
    assert found.verdict == "inconclusive"
    assert found.why.startswith("The interval contains 0.")
    assert f"needs about {found.topics_needed:,} topics; these 40 show one of" in found.why


def test_an_interval_without_0_is_not_enough() -> None:
    found = rr([2, 2, 2, 3], [1, 1, 1, 1])
    assert found.ci[0] > 0
    assert found.p == 0.125
    assert found.verdict == "inconclusive"
    assert "p is 0.125 after correction" in found.why


def test_identical_systems_are_equivalent_and_never_nan() -> None:
    """PyTerrier's p is NaN here."""
    found = rr(PLACES[0], PLACES[0])
    assert (found.verdict, found.p, found.p_adjusted, found.delta) == ("equivalent", 1.0, 1.0, 0.0)
    assert (found.ci, found.wins, found.ties, found.losses) == ((0.0, 0.0), 0, 40, 0)
    assert found.why == "The same on every one of 40 topics."
    assert (found.topics_needed, found.detectable) == (None, 0.0)


def test_differences_by_rounding_are_ties() -> None:
    """AP adds the same fractions in another order."""
    qrels = judged(2, "1111111")
    ids = [f"r{i}" for i in range(7)]
    runs = {}
    for name, order in (("a", ids), ("b", ids[::-1])):
        rows = [(topic(t), d, -float(i)) for t in range(2) for i, d in enumerate(order)]
        runs[name] = rank(pl.DataFrame(rows, schema=["query_id", "doc_id", "score"], orient="row"))
    found = compare(runs, qrels, ["AP", "nDCG"]).found["b"]
    assert {one.verdict for one in found.values()} == {"equivalent"}


def test_the_same_difference_on_every_topic() -> None:
    found = rr([2] * 8, [1] * 8)
    assert (found.ci, found.p, found.verdict) == ((0.5, 0.5), 2 / 256, "better")
    assert all(map(math.isnan, (found.effect, found.t_p)))
    thirds = rr([3] * 8, [2] * 8)
    assert math.isnan(thirds.effect), "what is left of the spread is rounding"


@pytest.mark.parametrize(
    ("margin", "verdict", "noninferior"),
    [(None, "inconclusive", None), (0.0, "inconclusive", False), (0.3, "equivalent", True)],
)
def test_equivalence_needs_a_margin(margin: float | None, verdict: str, noninferior: bool | None) -> None:
    found = rr(*PLACES, margins=margin)
    assert (found.verdict, found.noninferior, found.margin) == (verdict, noninferior, margin)
    if verdict == "equivalent":
        assert found.why.startswith("The interval lies within ±0.3.")


def test_the_margin_counts_strictly_and_each_side_for_itself() -> None:
    plain = rr(*PLACES)
    reach = max(-plain.ci[0], plain.ci[1])
    assert rr(*PLACES, margins=reach).verdict == "inconclusive"
    assert rr(*PLACES, margins=reach * 1.0001).verdict == "equivalent"
    assert not rr(*PLACES, margins=-plain.ci[0]).noninferior
    assert rr(*PLACES, margins=-plain.ci[0] * 1.0001).noninferior


def test_a_real_difference_within_the_margin_is_equivalent() -> None:
    assert rr(*BETTER).verdict == "better"
    assert rr(*BETTER, margins=0.9).verdict == "equivalent"


def test_noninferior_though_inconclusive() -> None:
    base, candidate = [2] * 30, [1] * 3 + [2] * 25 + [3] * 2
    found = rr(base, candidate, margins=0.05)
    assert (found.verdict, found.noninferior) == ("inconclusive", True)
    assert "reaches beyond ±0.05" in found.why


def test_identical_runs_are_noninferior_at_any_margin() -> None:
    assert rr([1, 2, 3], [1, 2, 3], margins=0.0).noninferior


def test_one_margin_by_measure() -> None:
    runs = {"a": run(PLACES[0]), "b": run(PLACES[1])}
    found = compare(runs, judged(40), ["RR", "nDCG@2"], margins={"RR": 0.3}).found["b"]
    assert (found["RR"].margin, found["nDCG@2"].margin) == (0.3, None)
    assert (found["RR"].noninferior, found["nDCG@2"].noninferior) == (True, None)


places_of_topics = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=12)


@settings(max_examples=12, deadline=None)
@given(places_of_topics, st.none() | st.floats(0, 1))
def test_every_result_is_a_verdict_with_a_reason(pairs: list[tuple[int, int]], margin: float | None) -> None:
    found = rr(*(list(side) for side in zip(*pairs, strict=True)), margins=margin)
    assert found.verdict in VERDICTS
    assert found.why.endswith(".")
    assert found.ci[0] <= found.delta <= found.ci[1]
    assert 0 < found.p <= found.p_adjusted <= 1
    assert found.wins + found.ties + found.losses == found.topics == len(pairs)
    assert found.bounds is not None
    assert found.bounds[0] - 1e-12 <= found.delta <= found.bounds[1] + 1e-12
    if found.verdict in ("better", "worse"):
        assert math.copysign(1, found.delta) == (1 if found.verdict == "better" else -1)


# -- traps of others -----------------------------------------------------------------------------------------


def test_a_missing_topic_counts_0_and_is_told() -> None:
    runs = {"a": run([1, 2, 1]), "b": run([1, 2, 1], skip=[1])}
    found = compare(runs, judged(3), ["RR"])
    one = found.found["b"]["RR"]
    assert (one.delta, one.losses, one.topics) == (pytest.approx(-0.5 / 3), 1, 3)
    assert "b lacks 1 of 3 topics (q001): they count 0." in found.notes


def test_topics_without_judgments_count_nowhere_and_are_told() -> None:
    found = compare({"a": run([1, 2, 1]), "b": run([1, 1])}, judged(2), ["RR"])
    assert found.found["b"]["RR"].topics == 2
    assert "a has 1 topics without judgments: they count nowhere." in found.notes


def test_tied_scores_follow_the_document_id_whatever_the_order_of_rows() -> None:
    """trec_eval's rule: equal as 32-bit scores, then by id from behind."""
    tied = pl.DataFrame(
        {
            "query_id": [topic(0)] * 3,
            "doc_id": ["r0", "z", "r1"],
            "score": [7.00000002, 7.00000001, 1.0],
        }
    )
    for rows in (tied, tied.reverse()):
        found = compare({"a": run([1]), "b": rank(rows)}, judged(1), ["RR"]).found["b"]["RR"]
        assert found.candidate == 0.5


def test_one_score_for_all_is_no_ranking() -> None:
    flat = run([1] * 30).with_columns(score=pl.lit(1.0)).drop("rank")
    found = compare({"a": run([2] * 30), "b": rank(flat)}, judged(30), ["RR"])
    one = found.found["b"]["RR"]
    assert one.verdict == "inconclusive"
    assert one.why == "b gives every document of a topic one score, so its order means nothing."
    assert any(note.startswith("b gives all documents of a topic one score on 30") for note in found.notes)


def test_judged_at_k_is_the_share_of_what_was_retrieved_by_its_own_topic() -> None:
    """Of 2 retrieved at k = 3 one is judged: 1/2; `x1` is judged, but on another topic."""
    other = pl.DataFrame([(topic(9), "x1", 1, 1.0, "human")], schema=QRELS, orient="row")
    candidate = run([2]).filter(pl.col("doc_id") != "r1")
    found = compare({"a": run([1]), "b": candidate}, pl.concat([judged(1), other]), ["nDCG@3"])
    numbers = found.measurement.runs
    assert (numbers["a"]["judged@3"], numbers["b"]["judged@3"]) == (1 / 2, 1 / 4)  # q009 is missing: 0
    assert any(note.startswith("b: 75.0 % of its top 3 has no grade") for note in found.notes)


def test_topics_on_which_a_measure_is_undefined_are_left_out() -> None:
    runs = {"a": run([2, 0, 3]), "b": run([1, 2, 2])}
    found = compare(runs, judged(3), ["Accuracy", "RR"]).found["b"]
    assert found["RR"].topics == 3
    assert 0 < found["Accuracy"].topics <= 3


ONE_ANSWER = """
    import json, sys
    import numpy as np, polars as pl
    from harness.compare import compare
    from harness.frames import QRELS
    from harness.ranking import rank
    rng = np.random.default_rng(0)
    pairs = [(f"q{t:03}", f"d{i:02}") for t in range(120) for i in range(20)]
    runs = {}
    for name in "abc":
        frame = pl.DataFrame(pairs, schema=["query_id", "doc_id"], orient="row")
        runs[name] = rank(frame.with_columns(score=pl.Series(rng.normal(size=len(pairs)))))
    rows = []
    for q, d in pairs:
        p = rng.dirichlet([1.0, 1.0, 1.0]).astype(np.float32)
        human = rng.random() < 0.5
        grade = int(p.argmax())
        gain = float(grade) if human else float(p @ [0, 1, 2])
        rows.append((q, d, grade, gain, "human" if human else "label", None if human else p.tolist()))
    qrels = pl.DataFrame(rows, schema={**QRELS, "probs": pl.List(pl.Float32)}, orient="row")
    if sys.argv[1] == "mixed":
        qrels = qrels.sample(fraction=1, shuffle=True, seed=5)
        runs = {n: r.sample(fraction=1, shuffle=True, seed=6) for n, r in runs.items()}
    measures = ["nDCG@10", "AP", "RR"]
    print(json.dumps([compare(runs, qrels, measures, seed=s).to_json()["candidates"] for s in (7, 8)]))
"""


def test_one_seed_one_answer_for_any_number_of_threads_and_any_order_of_rows() -> None:
    def answers(threads: str, order: str) -> list[dict[str, Any]]:
        names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS")
        made = subprocess.run(
            [sys.executable, "-c", dedent(ONE_ANSWER), order],
            env={**os.environ, **dict.fromkeys(names, threads)},
            capture_output=True,
            text=True,
            check=True,
        )
        return list(json.loads(made.stdout))

    one, other = answers("1", "as they are")
    assert answers("2", "mixed") == [one, other]
    assert other["b"]["nDCG@10"]["ci"] != one["b"]["nDCG@10"]["ci"]
    assert other["b"]["nDCG@10"]["delta"] == one["b"]["nDCG@10"]["delta"]


# -- labels --------------------------------------------------------------------------------------------------


def labeled(qrels: pl.DataFrame, topics: Sequence[int], probs: bool = True) -> pl.DataFrame:
    """x1, which many runs have at the top, labeled on some topics: relevant by 40 %."""
    schema = {**QRELS, "probs": pl.List(pl.Float32), **dict.fromkeys(SHIFTS, pl.Float32)}
    rows = [(topic(t), "x1", 0, 0.4, "label@1", [0.6, 0.4] if probs else None, 0.3, 0.5) for t in topics]
    return pl.concat([qrels, pl.DataFrame(rows, schema=schema, orient="row")], how="diagonal")


def test_labels_with_distributions_widen_the_interval() -> None:
    runs = {"a": run([1] * 30), "b": run([2] * 30)}
    frame = labeled(judged(30), range(30))
    found = compare(runs, frame, ["nDCG@2"])
    one = found.found["b"]["nDCG@2"]
    plain = compare(runs, frame.drop("probs"), ["nDCG@2"]).found["b"]["nDCG@2"]
    assert one.label_ci is not None
    assert one.ci[0] < one.label_ci[0] < one.label_ci[1] < one.ci[1] or one.ci == pytest.approx(one.label_ci)
    assert one.delta == pytest.approx(plain.delta)
    assert one.ci[1] - one.ci[0] > plain.ci[1] - plain.ci[0]
    assert one.p >= plain.p
    assert one.detectable > plain.detectable
    assert "Up to 50.0 % of what was looked at carries a labeler's grade." in one.why


def test_labels_without_distributions_are_told_and_leave_the_ordinary_interval() -> None:
    runs = {"a": run(PLACES[0]), "b": run(PLACES[1])}
    found = compare(runs, labeled(judged(40), range(40), probs=False), ["nDCG@5"])
    one = found.found["b"]["nDCG@5"]
    assert one.label_ci is None
    a, b = (found.measurement.values[n][0] for n in "ab")
    low, high = intervals((b - a)[:, None])
    assert one.ci == pytest.approx((low[0], high[0]), abs=1e-12)
    assert any(note.startswith("The labels come without distributions") for note in found.notes)


def test_labels_that_neither_run_has_at_the_top_do_nothing() -> None:
    runs = {"a": run([1] * 20), "b": run([1] * 10 + [1] * 5 + [0] * 5)}
    frame = labeled(judged(20), range(20))
    one = compare(runs, frame, ["P@1"]).found["b"]["P@1"]
    assert one.label_ci is None
    assert one.ci == compare(runs, judged(20), ["P@1"]).found["b"]["P@1"].ci


def test_the_labels_error_is_not_in_another_provider_s_measure_and_that_is_told() -> None:
    runs = {"a": run(PLACES[0]), "b": run(PLACES[1])}
    found = compare(runs, labeled(judged(40), range(40)), ["IPrec@0.5"])
    assert found.found["b"]["IPrec@0.5"].label_ci is None
    assert found.found["b"]["IPrec@0.5"].bounds is None
    assert "The labels' error is not in the intervals of IPrec@0.5: not computed here." in found.notes


def test_the_labels_error_where_it_is_most_of_the_interval() -> None:
    runs = {"a": run([1] * 30), "b": run([2] * 30)}
    even = labeled(judged(30), range(30)).with_columns(
        pl.when(pl.col("doc_id") == "x1").then(pl.lit(2.0, pl.Float32)).alias("shift_all")
    )
    one = compare(runs, even, ["P@1"]).found["b"]["P@1"]
    assert one.verdict == "inconclusive"
    assert "Most of its width is the labels' error: judge what stopgap plan names." in one.why


# -- what cannot be compared, and what can but says nothing --------------------------------------------------


def test_no_topic_in_common() -> None:
    foreign = run([1, 1]).with_columns(query_id=pl.col("query_id").str.replace("q", "t"))
    with pytest.raises(UsageError, match="run 'b' shares no topic with the qrels: its first topic is 't000'"):
        compare({"a": run([1, 1]), "b": foreign}, judged(2), ["RR"])


def test_an_empty_run_counts_0_everywhere_and_is_told() -> None:
    found = compare({"a": run([1] * 3), "b": run([])}, judged(3), ["RR"])
    one = found.found["b"]["RR"]
    assert (one.candidate, one.losses, one.verdict) == (0.0, 3, "inconclusive")
    assert "b lacks 3 of 3 topics (q000, q001, q002): they count 0." in found.notes


def test_two_empty_runs_are_not_equivalent() -> None:
    found = compare({"a": run([]), "b": run([])}, judged(3), ["RR"])
    assert found.verdicts == ["inconclusive"]


def test_one_topic_is_inconclusive() -> None:
    found = rr([3], [1])
    assert (found.p, found.verdict, found.ci) == (1.0, "inconclusive", (-math.inf, math.inf))
    assert found.why.startswith("A single topic says nothing of how topics differ.")
    assert math.isnan(found.detectable)
    assert rr([2], [2]).verdict == "equivalent"


@pytest.mark.parametrize("grades", ["000", "-"])
def test_qrels_without_anything_relevant_are_inconclusive(grades: str) -> None:
    qrels = (
        judged(20, "000")
        if grades == "000"
        else judged(20, "0").with_columns(relevance=pl.lit(-1, pl.Int16), gain=pl.lit(-1, pl.Float32))
    )
    found = compare({"a": run([1] * 20), "b": run([2] * 20)}, qrels, ["nDCG@5", "AP"])
    for one in found.found["b"].values():
        assert (one.verdict, one.p) == ("inconclusive", 1.0)
        assert one.why == "Both have 0 on every topic: what they retrieve is not judged relevant."


def test_qrels_of_one_grade_that_is_relevant_still_rank() -> None:
    assert compare({"a": run([3] * 20), "b": run([1] * 20)}, judged(20, "1"), ["RR"]).verdicts == ["better"]


@pytest.mark.parametrize("margin", [-0.01, math.nan, math.inf, {"RR": -1.0}])
def test_a_margin_is_a_size(margin: float | Mapping[str, float]) -> None:
    with pytest.raises(UsageError, match=r"the margin of RR is (-0.01|nan|inf|-1.0); it is the size"):
        rr([1, 2], [2, 1], margins=margin)


def test_names_that_are_unknown_name_the_near_ones() -> None:
    runs = {"bm25": run([1]), "dense": run([2])}
    with pytest.raises(UnknownName, match=r"unknown run 'bm26'. Did you mean 'bm25'"):
        compare(runs, judged(1), ["RR"], base="bm26")
    with pytest.raises(UnknownName, match=r"unknown measure of a margin 'nDCG'.*Available: RR"):
        compare(runs, judged(1), ["RR"], margins={"nDCG": 0.1})
    with pytest.raises(UnknownName, match=r"unknown correction 'hochberg'"):
        compare(runs, judged(1), ["RR"], correction="hochberg")
    with pytest.raises(UnknownName, match=r"unknown measure 'RRR'"):
        compare(runs, judged(1), ["RRR"])


@pytest.mark.parametrize(("runs", "what"), [({}, "there is no run"), ({"a": run([1])}, "one run only, 'a'")])
def test_a_comparison_takes_two(runs: dict[str, pl.DataFrame], what: str) -> None:
    with pytest.raises(UsageError, match=what):
        compare(runs, judged(1), ["RR"])


def test_slices_of_other_topics() -> None:
    with pytest.raises(UsageError, match="slices have none of the 2 topics"):
        rr([1, 2], [2, 1], slices=pl.DataFrame({"query_id": ["x"], "kind": ["y"]}))


def test_defined_nowhere() -> None:
    found = measure({"a": run([1, 2]), "b": run([2, 1])}, judged(2), ["RR"])
    found.values["b"][0][:] = np.nan
    with pytest.raises(UsageError, match="RR is defined on no topic of 'a' and 'b'"):
        compare_measured(found, "a")


# -- the command ---------------------------------------------------------------------------------------------

KEYS = {"base", "candidate", "delta", "ci", "p", "p_adjusted", "wins", "ties", "losses", "bounds", "verdict"}


@pytest.fixture
def call(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """`stopgap compare a.run b.run --qrels q.txt ...`: exit code, stdout, stderr."""

    def made(places: Mapping[str, pl.DataFrame], qrels: pl.DataFrame, *more: str) -> tuple[int, str, str]:
        files = []
        for name, frame in places.items():
            write_run(frame, tmp_path / f"{name}.run", name)
            files.append(str(tmp_path / f"{name}.run"))
        write_qrels(qrels, tmp_path / "q.txt")
        code = cli.main(["compare", *files, "--qrels", str(tmp_path / "q.txt"), "-m", "RR", *more])
        told = capsys.readouterr()
        return code, told.out, told.err

    return made


def pair(base: Sequence[int], candidate: Sequence[int]) -> dict[str, pl.DataFrame]:
    return {"a": run(base), "b": run(candidate)}


def test_json_holds_what_scripts_rely_on(call: Any) -> None:
    code, out, _ = call(pair(*BETTER), judged(40), "-m", "AP", "--json")
    told = json.loads(out)
    assert code == 0
    assert (told["base"], told["candidate"], list(told["measures"])) == ("a", "b", ["RR", "AP"])
    for one in told["measures"].values():
        assert set(one) >= KEYS
        assert len(one["ci"]) == len(one["bounds"]) == 2
    assert told["measures"] == told["candidates"]["b"]
    assert told["measures"]["RR"]["verdict"] == "better"
    assert told["measures"]["RR"]["label_ci"] is None
    assert told["runs"]["a"]["topics"] == 40


def test_json_has_no_nan_and_no_infinity(call: Any) -> None:
    code, out, _ = call(pair([1], [2]), judged(1), "--json")

    def refuse(name: str) -> None:
        raise AssertionError(name)

    told = json.loads(out, parse_constant=refuse)["measures"]["RR"]
    assert code == 3
    assert (told["effect"], told["detectable"], told["t_p"]) == (None, None, None)


def test_the_table_says_it_in_one_word_and_why(call: Any) -> None:
    code, out, _ = call(pair(*BETTER), judged(40))
    assert code == 0
    assert " better" in out.splitlines()[1]
    assert "RR: better. 40 topics won, 0 lost, 0 tied." in out
    assert out.rstrip().endswith("Over 40 topics; base: a.")


def test_slices_in_the_table(call: Any, tmp_path: Path) -> None:
    (tmp_path / "s.tsv").write_text("query_id\tkind\n" + "".join(f"{topic(t)}\tfact\n" for t in range(20)))
    code, out, _ = call(pair(*BETTER), judged(40), "--slices", str(tmp_path / "s.tsv"), "--json")
    assert code == 0
    assert json.loads(out)["slices"]["kind=fact"]["b"]["RR"]["topics"] == 20
    _, out, _ = call(pair(*BETTER), judged(40), "--slices", str(tmp_path / "s.tsv"))
    assert "kind=fact" in out
    assert "p is corrected over 2 comparisons." in out


@pytest.mark.parametrize(
    ("runs", "options", "verdict"),
    [
        (pair(*PLACES), (), "inconclusive"),
        (pair([1], [2]), (), "inconclusive"),
        ({"a": run([1] * 20), "b": rank(run([2] * 20).with_columns(score=0.5).drop("rank"))}, (), None),
        (pair(*PLACES), ("--margin", "0.001"), "inconclusive"),
    ],
)
def test_inconclusive_is_3(call: Any, runs: Any, options: tuple[str, ...], verdict: str | None) -> None:
    code, out, _ = call(runs, judged(40), *options, "--json")
    assert code == 3
    assert json.loads(out)["measures"]["RR"]["verdict"] == (verdict or "inconclusive")


@pytest.mark.parametrize("options", [("--margin", "0.4"), ("--margin", "RR=0.4"), ("--seed", "5")])
def test_conclusive_is_0(call: Any, options: tuple[str, ...]) -> None:
    runs = pair(*PLACES) if options[0] == "--margin" else pair([1, 2], [1, 2])
    code, out, _ = call(runs, judged(40 if options[0] == "--margin" else 2), *options, "--json")
    assert code == 0
    assert json.loads(out)["measures"]["RR"]["verdict"] == "equivalent"


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (("--margin", "-0.1"), "the margin of RR is -0.1"),
        (("--margin", "nan"), "the margin of RR is nan"),
        (("--margin", "AP=0.1"), "unknown measure of a margin 'AP'"),
        (("--margin", "some"), "is no number"),
        (("--margin", "0.1", "--margin", "RR=0.1"), "not both"),
        (("--slices", "absent.tsv"), "absent.tsv: cannot be read"),
        (("-m", "nope@10"), "unknown measure 'nope'"),
    ],
)
def test_bad_options_are_2(call: Any, options: tuple[str, ...], what: str) -> None:
    code, out, err = call(pair([1, 2], [2, 1]), judged(2), *options)
    assert (code, out) == (2, "")
    assert err.startswith("Error: ")
    assert what in err
    assert "Traceback" not in err


def test_bad_input_is_2(call: Any, tmp_path: Path) -> None:
    foreign = run([1, 1]).with_columns(query_id=pl.col("query_id").str.replace("q", "t"))
    code, _, err = call({"a": run([1, 1]), "b": foreign}, judged(2))
    assert code == 2
    assert "run 'b' shares no topic with the qrels" in err
    code, _, err = call({"a": run([1, 1])}, judged(2))
    assert code == 2
    assert "one run only" in err
    code, _, err = call(pair([1], [2]), judged(1), str(tmp_path / "absent.run"))
    assert code == 2
    assert "absent.run" in err


def test_an_empty_file_is_refused(call: Any, tmp_path: Path) -> None:
    (tmp_path / "empty.run").write_text("")
    for more in ((), ("--all",)):
        code, out, err = call(pair([1] * 3, [2] * 3), judged(3), str(tmp_path / "empty.run"), *more)
        assert (code, out) == (2, "")
        assert "empty.run: the file is empty" in err


# -- real runs -----------------------------------------------------------------------------------------------


def test_deltas_of_real_runs_are_those_of_ir_measures(data_dir: Path) -> None:
    import ir_measures

    folder = data_dir / "dl19_passage"
    names = ["ICT-BERT2", "TUA1-1"]
    files = {n: folder / "runs" / f"{n}.run.gz" for n in names}
    asked = ["nDCG@10", "AP(rel=2)", "RR(rel=2)", "P(rel=2)@10"]
    found: Compared = compare(files, read_qrels(folder / "qrels.human.txt"), asked)
    qrels = list(ir_measures.read_trec_qrels(str(folder / "qrels.human.txt")))
    objects = [ir_measures.parse_measure(m) for m in asked]
    theirs = []
    for file in files.values():
        frame = read_run(file)
        docs = [ir_measures.ScoredDoc(q, d, s) for q, d, s, _ in frame.iter_rows()]
        theirs.append(ir_measures.pytrec_eval.calc_aggregate(objects, qrels, docs))
    for m, one in zip(objects, found.found[names[1]].values(), strict=True):
        assert one.delta == pytest.approx(theirs[1][m] - theirs[0][m], abs=1e-6)
        assert one.topics == 43
        assert one.bounds is not None
        assert one.bounds[0] - 1e-12 <= one.delta <= one.bounds[1] + 1e-12


def test_a_run_that_is_related_to_the_labeler_is_told(tmp_path: Path) -> None:
    card = "method:\n  retrieval:\n  - name: dense\n    encoder: minilm@44bdedef\n"
    files: dict[str, str | Path | pl.DataFrame] = {}
    for name, frame in pair(*BETTER).items():
        files[name] = tmp_path / f"{name}.run"
        write_run(frame, tmp_path / f"{name}.run", name)
    (tmp_path / "b.run.meta.yaml").write_text(card)
    labels = judged(40).with_columns(assessor=pl.lit("minilm@44bdedef/1"))
    (note,) = [n for n in compare(files, labels, ["RR"]).notes if "share" in n]
    assert note.startswith("b and the labeler minilm@44bdedef share the base model sentence-transformers/all")
    assert not [n for n in compare(files, judged(40), ["RR"]).notes if "share" in n]
