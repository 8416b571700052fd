"""Bounds against brute force: every labeling of small cases, scored by harness.measure."""

from __future__ import annotations

import itertools
import time
from pathlib import Path
from random import Random

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import bounds_ap
from harness.bounds import Bounds, bounds, bounds_each, covers
from harness.errors import SchemaError, UnknownName, UsageError
from harness.frames import QRELS, RUN, empty
from harness.measure import measure, parse
from harness.ranking import rank, top
from harness.scoring import Spec
from harness.trec import read_qrels, read_run, write_run

Judged = dict[str, int]
Labeled = dict[str, tuple[int, float]]
LINEAR = ["P@1", "P@3", "P(rel=2)@3", "RBP", "RBP@3", "RBP(p=0.5,rel=1)", "RBP(rel=2)@1"]
OTHERS = [
    *(
        "R@1",
        "R@3",
        "R(rel=2)@3",
        "Rprec",
        "Rprec(rel=2)",
        "RR",
        "RR@3",
        "RR(rel=2)",
        "Success@1",
        "Success@3",
    ),
    *("nDCG", "nDCG@1", "nDCG@3", "nDCG(dcg='exp-log2')@3", "nDCG(gains={1:3,2:4})@3"),
    *("nDCG(gains={0:1,1:0,2:5})", "AP", "AP@3", "AP(rel=2)", "R(rel=0)@3", "P(rel=3)@1"),
]
GRADES = [0, 1, 2]


def run(topics: dict[str, list[str]]) -> pl.DataFrame:
    rows = [(q, d, -float(i)) for q, ds in topics.items() for i, d in enumerate(ds)]
    schema = {"query_id": pl.String, "doc_id": pl.String, "score": pl.Float64}
    return rank(pl.DataFrame(rows, schema=schema, orient="row"))


def qrels(topics: dict[str, Judged], labels: dict[str, Labeled] | None = None) -> pl.DataFrame:
    """Labels: grade, and the probability of it (the rest is on 0)."""
    rows = [(q, d, g, float(g), "human", None) for q, ds in topics.items() for d, g in ds.items()]
    for q, ds in (labels or {}).items():
        for d, (g, p) in ds.items():
            probs = [p if i == g else (1 - p if i == 0 else 0.0) for i in GRADES]
            probs = [1.0, 0.0, 0.0] if g == 0 else probs
            rows.append((q, d, g, g * p, "model", probs))
    schema = QRELS | {"probs": pl.List(pl.Float32())}
    return pl.DataFrame(rows, schema=schema, orient="row")


class Case:
    """Two runs, some judgments, and the labels of some others."""

    def __init__(
        self,
        base: dict[str, list[str]],
        candidate: dict[str, list[str]],
        judged: dict[str, Judged],
        labels: dict[str, Labeled],
    ) -> None:
        self.base, self.candidate, self.judged, self.labels = base, candidate, judged, labels

    def __repr__(self) -> str:
        return f"Case({self.base!r}, {self.candidate!r}, {self.judged!r}, {self.labels!r})"

    def found(self, name: str, *, labels: bool = False) -> Bounds:
        given = qrels(self.judged, self.labels if labels else None)
        return bounds(run(self.base), run(self.candidate), given, name, grades=GRADES)

    def holes(self, topic: str, name: str) -> list[str]:
        spec = parse([name])[0]
        assert isinstance(spec, Spec)
        seen = {*self.base.get(topic, [])[: spec.cutoff], *self.candidate.get(topic, [])[: spec.cutoff]}
        return sorted(seen - self.judged[topic].keys())

    def every(
        self, names: list[str], topic: str, *, keep: bool = False, labels: bool = False
    ) -> tuple[list[int], dict[str, list[float]]]:
        """How many holes each labeling grades, and the deltas it gives; with `keep`, holes may stay as is.

        All labelings of a topic are measured at once, each as a topic of its own, on measures of one reach.
        """
        options: list[int | None] = [*([None] if keep else []), *GRADES]
        holes = self.holes(topic, names[0])
        judged, rest, counts = {}, {}, []
        for i, choice in enumerate(itertools.product(options, repeat=len(holes))):
            given = {d: g for d, g in zip(holes, choice, strict=True) if g is not None}
            judged[f"{i:05}"] = self.judged[topic] | given
            known = self.labels.get(topic, {}) if labels else {}
            rest[f"{i:05}"] = {d: v for d, v in known.items() if d not in given}
            counts.append(len(given))
        runs = {"base": self.base, "candidate": self.candidate}
        copies = {n: run({q: r[topic] for q in judged if topic in r}) for n, r in runs.items()}
        found = measure(copies, qrels(judged, rest), names, grades=GRADES)
        values = found.per_topic["value"].to_numpy().reshape(2, len(names), len(judged))
        return counts, {n: (values[1, i] - values[0, i]).tolist() for i, n in enumerate(names)}


def case_of(seed: int, holes: int = 4, topics: int = 10) -> Case:
    """At most `holes` unjudged documents a topic, some topics missing from a run, some labels."""
    random = Random(seed)
    case = Case({}, {}, {}, {})
    for topic in [f"{i:02}" for i in range(random.randint(1, topics))]:
        docs = random.sample("abcdefgh", 8)
        unjudged = docs[: random.randint(0, holes)]
        known = docs[len(unjudged) :][: random.randint(1, 4)]
        case.judged[topic] = {d: random.choice([0, 0, 1, 2, -1]) for d in known}
        for placed in (case.base, case.candidate):
            ranked = [
                d for d in random.sample(unjudged + known, len(unjudged + known)) if random.random() < 0.8
            ]
            if ranked:
                placed[topic] = ranked
        case.labels[topic] = {
            d: (random.choice(GRADES), random.choice([1.0, 0.75, 0.5]))
            for d in unjudged
            if random.random() < 0.7
        }
    return case


def by_reach(names: list[str]) -> list[list[str]]:
    """Measures that look at the same ranks, together."""
    key = lambda name: next(spec.cutoff or 0 for spec in parse([name]) if isinstance(spec, Spec))  # noqa: E731
    return [list(group) for _, group in itertools.groupby(sorted(names, key=key), key=key)]


some = settings(max_examples=4, deadline=None)
seeds = st.integers(0, 1 << 32)


@pytest.mark.parametrize("names", by_reach([*LINEAR, *OTHERS]), ids=lambda names: names[0])
@some
@given(seed=seeds)
def test_the_bounds_are_those_of_every_labeling(names: list[str], seed: int) -> None:
    case = case_of(seed)
    every = [case.every(names, topic)[1] for topic in case.judged]
    for name in names:
        found = case.found(name, labels=True)
        least, greatest = [min(deltas[name]) for deltas in every], [max(deltas[name]) for deltas in every]
        assert found.exact
        assert found.per_topic["query_id"].to_list() == sorted(case.judged)
        assert found.per_topic["least"].to_list() == pytest.approx(least, abs=1e-9)
        assert found.per_topic["greatest"].to_list() == pytest.approx(greatest, abs=1e-9)
        assert found.per_topic["unjudged"].to_list() == [len(case.holes(t, name)) for t in case.judged]
        assert found.delta == pytest.approx((np.mean(least), np.mean(greatest)), abs=1e-9)


@pytest.mark.parametrize("way", [{"_PAIRED": 0, "_STEPS": 2}, {"_PAIRED": 0}, {"ENUMERATED": 0}], ids=str)
@some
@given(seed=seeds)
def test_with_many_holes_the_bounds_of_ap_are_never_exceeded(way: dict[str, int], seed: int) -> None:
    case = case_of(seed, holes=5)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in way.items():
            patch.setattr(bounds_ap, name, value)
        found = {name: case.found(name) for name in ("AP", "AP(rel=2)")}
    for row, topic in enumerate(case.judged):
        _, deltas = case.every(list(found), topic)
        for name, outer in found.items():
            ends, truth = outer.per_topic.row(row)[1:3], (min(deltas[name]), max(deltas[name]))
            assert -1 <= ends[0] <= truth[0] + 1e-9
            assert 1 >= ends[1] >= truth[1] - 1e-9
            if outer.exact:
                assert ends == pytest.approx(truth, abs=1e-9)
            assert "ENUMERATED" in way or outer.exact == (not sum(outer.per_topic["unjudged"]))


def test_deciding_hole_by_hole_finds_the_best_set_of_thirteen() -> None:
    random = np.random.default_rng(0)
    solved = 0
    for _ in range(20):
        ours, theirs = random.permutation(20)[:13] + 1.0, random.permutation(20)[:13] + 1.0
        pairs = 1 / np.maximum(theirs[:, None], theirs) - 1 / np.maximum(ours[:, None], ours)
        np.fill_diagonal(pairs, 0.0)
        added = (1 / theirs - 1 / ours) * random.integers(1, 4)
        truth = bounds_ap._every_set(0.1, added, pairs, 3.0)[-1]
        found, exact = bounds_ap._best(0.1, added, pairs, 3.0)
        assert found >= truth - 1e-9
        assert not exact or found == pytest.approx(truth, abs=1e-9)
        solved += exact
    assert solved >= 15


def fewest(case: Case, names: list[str], *, labels: bool) -> dict[str, int | None]:
    """The fewest holes that undo the sign of the mean delta, by trying all of them on two topics together."""
    by_topic = [case.every(names, topic, keep=True, labels=labels) for topic in case.judged]
    found: dict[str, int | None] = {}
    for name in names:
        counts, total = np.zeros(1, dtype=np.int64), np.zeros(1)
        for numbers, deltas in by_topic:
            counts = np.add.outer(counts, numbers).ravel()
            total = np.add.outer(total, deltas[name]).ravel()
        sign = np.sign(total[0]) if abs(total[0]) > 1e-9 else 0  # the first labeling grades nothing
        undone = counts[sign * total <= 1e-9]
        found[name] = int(undone.min()) if len(undone) else None
    return found


@pytest.mark.parametrize("names", by_reach([*LINEAR, *OTHERS]), ids=lambda names: names[0])
@pytest.mark.parametrize("labels", [False, True])
@some
@given(seed=seeds)
def test_flips_are_the_fewest_grades_that_undo_the_sign(names: list[str], labels: bool, seed: int) -> None:
    case = case_of(seed, holes=3, topics=3)
    truth = fewest(case, names, labels=labels)
    for name in names:
        found = case.found(name, labels=labels)
        if found.certain:
            assert found.flips is None
        elif found.flips_exact:
            assert found.flips == truth[name]
        else:
            assert labels or "0:" in name  # a hole that is graded 0 gains: not the same as unjudged
            assert name not in LINEAR
            assert found.flips is None or found.flips >= (truth[name] or 0)


# ------------------------------------------------------------------------------ what it means for a user

TWO = {"1": ["a", "b", "c"], "2": ["d", "e"]}
ONE = {"1": ["x", "a", "b"], "2": ["e", "d"]}
SOME = {"1": {"a": 1, "b": 0, "c": 0}, "2": {"d": 1, "e": 0}}


def test_an_example_by_hand() -> None:
    found = bounds(run(TWO), run(ONE), qrels(SOME), "P@1")
    # Topic 1: the base's first is relevant, the candidate's is x. Topic 2: a relevant one against another.
    assert found.per_topic.rows() == [("1", -1.0, 0.0, 1), ("2", -1.0, -1.0, 0)]
    assert found.delta == (-1.0, -0.5)
    assert (found.exact, found.certain, found.flips) == (True, True, None)


def test_flips_by_hand() -> None:
    found = bounds(run({"1": ["a", "b", "c"]}), run({"1": ["x", "y", "z"]}), qrels({"1": SOME["1"]}), "P@3")
    assert found.delta == pytest.approx((-1 / 3, 2 / 3))
    assert (found.certain, found.flips, found.flips_exact) == (False, 1, True)  # x alone brings it to 0


@pytest.mark.parametrize("name", [*LINEAR, *OTHERS])
def test_without_holes_the_ends_are_the_delta(name: str) -> None:
    judged = {**SOME, "1": {**SOME["1"], "x": 2}, "3": {"f": 1}}
    found = bounds(run(TWO), run(ONE), qrels(judged), name)
    means = measure({"base": run(TWO), "candidate": run(ONE)}, qrels(judged), [name]).runs
    delta = next(iter(means["candidate"].values())) - next(iter(means["base"].values()))
    assert found.delta == pytest.approx((delta, delta), abs=1e-12)
    assert found.certain
    assert found.flips is None


def test_the_same_run_twice_is_certain() -> None:
    found = bounds(run(ONE), run(ONE), qrels(SOME), "AP")
    assert (found.delta, found.certain, found.flips) == ((0.0, 0.0), True, None)
    assert found.per_topic["unjudged"].to_list() == [1, 0]


def test_exchanging_the_runs_exchanges_the_ends() -> None:
    for name in [*LINEAR, *OTHERS]:
        there, back = (
            bounds(a, b, qrels(SOME), name) for a, b in [(run(TWO), run(ONE)), (run(ONE), run(TWO))]
        )
        assert there.delta == pytest.approx((-back.delta[1], -back.delta[0]), abs=1e-12)
        assert there.flips == back.flips


def test_a_labels_grade_does_not_count_but_its_topic_does() -> None:
    bare = bounds(run(TWO), run(ONE), qrels(SOME), "nDCG@3", grades=GRADES)
    labeled = qrels(SOME, {"1": {"x": (2, 0.5), "far": (2, 1.0)}, "3": {"y": (1, 1.0)}})
    found = bounds(run(TWO), run(ONE), labeled, "nDCG@3", grades=GRADES)
    assert found.per_topic.head(2).equals(bare.per_topic)
    assert found.per_topic.row(2) == ("3", 0.0, 0.0, 0)


def test_the_rows_order_and_files_make_no_difference(tmp_path: Path) -> None:
    expected = bounds(run(TWO), run(ONE), qrels(SOME), "AP")
    for name, topics in (("base", TWO), ("candidate", ONE)):
        write_run(run(topics), tmp_path / f"{name}.run", "x")
    shuffled = qrels(SOME).sample(fraction=1.0, shuffle=True, seed=1)
    again = bounds(tmp_path / "base.run", str(tmp_path / "candidate.run"), shuffled, "AP")
    assert again.per_topic.equals(expected.per_topic)
    assert again.flips == expected.flips


def test_the_scale_is_the_qrels_or_the_callers() -> None:
    two = bounds(run(TWO), run(ONE), qrels({"1": {"a": 2, "b": 0, "c": 0}}), "RBP")
    assert two.delta[1] - two.delta[0] == pytest.approx(0.2)  # x, first in one run, counts 0 to 2 of 2
    four = bounds(run(TWO), run(ONE), qrels({"1": {"a": 2, "b": 0, "c": 0}}), "RBP", grades=[1, 2, 3, 4])
    assert four.delta[1] - four.delta[0] == pytest.approx(0.2)  # 0 to 4 of 4: a document may stay unjudged
    low = bounds(run(TWO), run(ONE), qrels({"1": {"a": 0}}), "P(rel=3)@1")
    assert low.delta == (0.0, 1.0)  # the scale goes up to what counts as relevant, though none was seen


def test_a_topic_that_a_run_lacks_counts_0_there() -> None:
    found = bounds(
        run({"1": TWO["1"]}), run({"2": ONE["2"], "9": ["a"]}), qrels({**SOME, "3": {"f": 1}}), "P@1"
    )
    assert found.per_topic.rows() == [("1", -1.0, -1.0, 0), ("2", 0.0, 0.0, 0), ("3", 0.0, 0.0, 0)]
    nothing = bounds(empty(RUN), run(ONE), qrels(SOME), "P@1")
    assert nothing.per_topic.rows() == [("1", 0.0, 1.0, 1), ("2", 0.0, 0.0, 0)]


@pytest.mark.parametrize("name", ["Bpref", "Judged@10", "nDCG(judged_only=True)@10", "NumRet"])
def test_measures_that_are_not_covered(name: str) -> None:
    assert not covers(name)
    with pytest.raises(UsageError, match=r"no bounds for.*nDCG"):
        bounds(run(TWO), run(ONE), qrels(SOME), name)


def test_several_measures_at_once_are_those_one_by_one() -> None:
    names = [*LINEAR, *OTHERS]
    together = bounds_each(run(TWO), run(ONE), qrels(SOME), [*names, "Bpref"], grades=GRADES)
    assert together.pop("Bpref") is None
    for name in names:
        assert covers(name)
        alone, found = bounds(run(TWO), run(ONE), qrels(SOME), name, grades=GRADES), together[name]
        assert found is not None
        assert (found.delta, found.flips, found.certain) == (alone.delta, alone.flips, alone.certain)
        assert found.per_topic.equals(alone.per_topic)


def test_what_cannot_be_bounded_is_an_error() -> None:
    with pytest.raises(UnknownName, match="NDGC"):
        bounds(run(TWO), run(ONE), qrels(SOME), "NDGC@10")
    with pytest.raises(UnknownName):
        covers("NDGC@10")
    with pytest.raises(UsageError, match="no judgment"):
        bounds(run(TWO), run(ONE), qrels({}), "AP")
    with pytest.raises(UsageError, match=r"candidate run shares no topic with the qrels.*'7'.*'1'"):
        bounds(run(TWO), run({"7": ["a"]}), qrels(SOME), "AP")
    for grades in ([], [0], [-2, 0]):
        with pytest.raises(UsageError, match="a grade above 0"):
            bounds(run(TWO), run(ONE), qrels(SOME), "AP", grades=grades)
    with pytest.raises(UsageError, match="overflows"):
        bounds(run(TWO), run(ONE), qrels(SOME), "nDCG(dcg='exp-log2')@3", grades=[0, 5000])
    twice = pl.concat([run(ONE), run(ONE).with_columns(rank=pl.col("rank") + 3)])
    with pytest.raises(SchemaError, match="twice"):
        bounds(run(TWO), twice, qrels(SOME), "AP")
    with pytest.raises(SchemaError, match="lacks"):
        bounds(run(TWO), run(ONE).drop("score"), qrels(SOME), "AP")


def test_a_thousand_topics_are_quick() -> None:
    random = np.random.default_rng(0)
    docs = [f"d{i}" for i in range(40)]
    topics = [f"{i:04}" for i in range(1000)]
    runs = [run({q: [docs[i] for i in random.permutation(40)[:20]] for q in topics}) for _ in range(2)]
    judged = qrels(
        {q: {docs[i]: int(random.integers(4)) for i in random.permutation(40)[:30]} for q in topics}
    )
    begin = time.perf_counter()
    found = bounds(*runs, judged, "nDCG@10")
    assert time.perf_counter() - begin < 5  # 0.3 s on a quiet core; a loop over topics would take far longer
    assert found.exact
    assert found.flips_exact


# ------------------------------------------------------------------------------------------- real runs


def test_judgments_taken_away_leave_the_truth_inside(data_dir: Path) -> None:
    """Leave one team out: what only its runs brought into the pool at depth 10 is unjudged again."""
    folder = data_dir / "dl19_passage"
    full = read_qrels(folder / "qrels.human.txt")
    team = dict(pl.read_csv(folder / "runs_meta.tsv", separator="\t").select("run", "team").iter_rows())
    runs = {name: top(read_run(folder / "runs" / f"{name}.run.gz"), 50) for name in sorted(team)[::4]}
    pair = ["query_id", "doc_id"]
    measures = ["nDCG@10", "P(rel=2)@10", "RR(rel=2)@10", "RBP@10", "AP(rel=2)@20", "R(rel=2)@20"]
    truth = measure(runs, full, measures).runs
    for out in sorted({team[name] for name in runs})[::3]:
        tops = {
            t: [top(r, 10).select(pair) for n, r in runs.items() if (team[n] == out) == t]
            for t in (True, False)
        }
        gone = pl.concat(tops[True]).join(pl.concat(tops[False]), on=pair, how="anti")
        left = full.join(gone, on=pair, how="anti")
        candidate = next(name for name in runs if team[name] == out)
        base = next(name for name in runs if team[name] != out)
        for name in measures:
            found = bounds(runs[base], runs[candidate], left, name)
            delta = truth[candidate][name] - truth[base][name]
            assert found.delta[0] - 1e-9 <= delta <= found.delta[1] + 1e-9
            assert not found.certain or not delta or np.sign(delta) in (np.sign(found.delta[0]), 0)
