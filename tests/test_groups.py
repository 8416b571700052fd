"""Everything against everything: pairs as `compare` has them, randomised Tukey HSD, and the letters."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import cli, groups
from harness.compare import compare
from harness.errors import UsageError
from harness.frames import QRELS
from harness.groups import Groups, compare_all
from harness.inference import RESAMPLES
from harness.ranking import rank
from harness.trec import write_qrels, write_run


def qrels(topics: int) -> pl.DataFrame:
    """Document r is relevant, n is not, on each topic."""
    rows = [(f"q{t:03}", d, g, float(g), "human") for t in range(topics) for d, g in (("n", 0), ("r", 1))]
    return pl.DataFrame(rows, schema=QRELS, orient="row")


def run(places: np.ndarray) -> pl.DataFrame:
    """A run whose relevant document stands at these places (from 1), one a topic."""
    rows = [
        (f"q{t:03}", "r" if i == place else f"x{i}", -float(i))
        for t, place in enumerate(places.tolist())
        for i in range(1, place + 1)
    ]
    return rank(pl.DataFrame(rows, schema=["query_id", "doc_id", "score"], orient="row"))


def runs_of(places: Mapping[str, np.ndarray]) -> dict[str, pl.DataFrame]:
    return {name: run(p) for name, p in places.items()}


def grouped(values: np.ndarray, moved: np.ndarray | None = None, seed: int = 0) -> Groups:
    """(topics, runs) of values; runs s0, s1, ... in order of their means."""
    order = np.argsort(-values.mean(axis=0), kind="stable")
    names = [f"s{i}" for i in order]
    return groups._grouped("M", names, values[:, order], None if moved is None else moved[:, order], seed)


def letters(found: Groups) -> dict[str, set[int]]:
    return {name: set(own) for name, own in found.systems.select("run", "groups").iter_rows()}


# -- the letters ---------------------------------------------------------------------------------------------

graphs = st.integers(1, 7).flatmap(
    lambda n: st.lists(st.booleans(), min_size=n * (n - 1) // 2, max_size=n * (n - 1) // 2).map(
        lambda edges: (n, edges)
    )
)


def cliques(alike: np.ndarray) -> set[frozenset[int]]:
    """All greatest sets of which no two are apart, by trying every set."""
    size = len(alike)
    sets = [
        frozenset(c)
        for k in range(1, size + 1)
        for c in itertools.combinations(range(size), k)
        if all(alike[i, j] for i, j in itertools.combinations(c, 2))
    ]
    return {one for one in sets if not any(one < other for other in sets)}


@settings(max_examples=150, deadline=None)
@given(graphs)
def test_groups_are_the_greatest_sets_that_are_not_apart(graph: tuple[int, list[bool]]) -> None:
    size, edges = graph
    alike = np.eye(size, dtype=bool)
    first, second = np.triu_indices(size, 1)
    alike[first, second] = alike[second, first] = edges
    found = groups._groups(alike)
    assert {frozenset(one) for one in found} == cliques(alike)
    assert len(found) == len(cliques(alike)), "none twice"
    assert found == sorted(found, key=sorted), "in the order of their best members"
    for i, j in zip(first.tolist(), second.tolist(), strict=True):
        assert any({i, j} <= one for one in found) == alike[i, j]


def test_two_runs_share_a_group_if_and_only_if_they_are_not_apart() -> None:
    rng = np.random.default_rng(1)
    found = grouped(np.linspace(0.2, 0.7, 9) + rng.normal(0, 0.25, (40, 9)) + rng.normal(0, 0.2, (40, 1)))
    own = letters(found)
    verdicts = found.pairs["verdict"].to_list()
    assert {"inconclusive", "worse"} <= set(verdicts)
    for base, candidate, verdict in found.pairs.select("base", "candidate", "verdict").iter_rows():
        assert bool(own[base] & own[candidate]) == (verdict not in ("better", "worse"))
    assert set().union(*own.values()) == set(range(1, 1 + max(max(o) for o in own.values())))
    assert found.systems["mean"].is_sorted(descending=True)
    assert own[found.systems["run"][0]] == {1}


# -- randomised Tukey HSD ------------------------------------------------------------------------------------


def test_identical_systems_are_never_apart() -> None:
    values = np.random.default_rng(3).uniform(0, 1, (20, 1)) * np.ones((1, 5))
    found = grouped(values)
    assert set(found.pairs["verdict"]) == {"equivalent"}
    assert set(found.pairs["p"]) == set(found.pairs["p_adjusted"]) == {1.0}
    assert letters(found) == {f"s{i}": {1} for i in range(5)}


def test_two_identical_among_others() -> None:
    rng = np.random.default_rng(4)
    one = rng.uniform(0, 1, (30, 1))
    found = grouped(np.hstack([one, one, one - 0.5 + rng.normal(0, 0.05, (30, 1))]))
    assert found.pairs["verdict"].to_list() == ["equivalent", "worse", "worse"]
    assert letters(found) == {"s0": {1}, "s1": {1}, "s2": {2}}


def test_no_difference_is_found_by_chance_in_more_than_5_of_100_families() -> None:
    """Six systems of one kind on 25 topics, topics hard and easy; without correction a third would err."""
    rng, trials = np.random.default_rng(9), 120
    wrong = plain = 0
    for _ in range(trials):
        values = rng.uniform(0, 1, (25, 1)) + rng.normal(0, 0.15, (25, 6))
        delta = values[:, :, None] - values[:, None, :]
        ranges = groups._ranges(values, None, 0)
        widest = np.abs(delta.mean(axis=0)).max()
        wrong += (len(ranges) - np.searchsorted(ranges, widest - 1e-12) + 1) / (len(ranges) + 1) < 0.05
        spread = delta.std(axis=0, ddof=1) / 5
        plain += bool((np.abs(delta.mean(axis=0)) > 2.064 * np.where(spread > 0, spread, np.inf)).any())
    assert wrong / trials < 0.05 + 3 * (0.05 * 0.95 / trials) ** 0.5
    assert wrong > 0
    assert plain / trials > 0.15


@pytest.fixture(autouse=True)
def _fewer(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """999 permutations where many families are tried."""
    if "families" in request.node.name:
        monkeypatch.setattr(groups, "RESAMPLES", 999)


def test_the_ranges_are_those_of_every_dealing() -> None:
    """Three runs on three topics: 216 dealings, each as likely as the other."""
    values = np.array([[0.9, 0.5, 0.1], [0.3, 0.8, 0.2], [0.4, 0.4, 0.6]])
    every = np.array(
        [
            np.ptp(np.mean(dealt, axis=0))
            for dealt in itertools.product(*(list(itertools.permutations(row)) for row in values))
        ]
    )
    found = groups._ranges(values, None, 0)
    assert len(found) == RESAMPLES
    assert (np.diff(found) >= 0).all()
    for edge in np.quantile(every, [0.1, 0.5, 0.9]) + 1e-9:
        assert (found > edge).mean() == pytest.approx((every > edge).mean(), abs=0.02)


def test_two_runs_get_the_p_of_the_sign_flips() -> None:
    """With two runs the two tests are one."""
    rng = np.random.default_rng(6)
    values = np.column_stack([rng.uniform(0, 1, 40), rng.uniform(0, 1, 40) + 0.12])
    (pair,) = grouped(values).pairs.to_dicts()
    assert pair["p_adjusted"] == pytest.approx(pair["p"], abs=0.015)


def test_more_runs_make_it_harder() -> None:
    rng = np.random.default_rng(8)
    values = rng.normal(0, 0.2, (40, 12)) + 0.5
    values[:, 1] += 0.1
    few, many = grouped(values[:, :2]).pairs, grouped(values).pairs
    here = (pl.col("base") == "s1") & (pl.col("candidate") == "s0")
    one, other = few.row(0, named=True), many.filter(here).row(0, named=True)
    assert other["p"] == one["p"]
    assert (other["low"], other["high"]) == pytest.approx((one["low"], one["high"]))
    assert other["p_adjusted"] > one["p_adjusted"]


def test_errors_of_labels_keep_runs_together() -> None:
    rng = np.random.default_rng(2)
    values = np.column_stack([rng.normal(0.5, 0.1, 50), rng.normal(0.42, 0.1, 50)])
    moved = np.column_stack([np.zeros(200), rng.normal(0, 0.06, 200)])
    assert grouped(values).pairs["verdict"].to_list() == ["worse"]
    (pair,) = grouped(values, moved).pairs.to_dicts()
    assert pair["verdict"] == "inconclusive"
    assert pair["high"] - pair["low"] > 0.2


# -- from runs -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def places() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)
    base = rng.integers(1, 5, 30)
    return {"mid": base, "low": base + rng.integers(0, 4, 30), "same": base, "top": np.ones(30, dtype=int)}


def test_pairs_are_those_of_compare(places: dict[str, np.ndarray]) -> None:
    runs = runs_of(places)
    found = compare_all(runs, qrels(30), ["RR", "nDCG@3"])
    assert list(found) == ["RR", "nDCG@3"]
    for m, one in found.items():
        assert one.pairs.height == 6
        for row in one.pairs.to_dicts():
            assert row["delta"] <= 0
            pair = {n: runs[n] for n in (row["base"], row["candidate"])}
            single = compare(pair, qrels(30), [m]).found[row["candidate"]][m]
            assert (row["delta"], row["low"], row["high"], row["p"]) == pytest.approx(
                (single.delta, *single.ci, single.p), abs=1e-12
            )
    assert letters(found["RR"])["same"] == letters(found["RR"])["mid"]


def test_one_seed_one_answer_whatever_the_order_of_rows(places: dict[str, np.ndarray]) -> None:
    runs = runs_of(places)
    mixed = {n: r.sample(fraction=1, shuffle=True, seed=3) for n, r in runs.items()}
    one, again, other = (
        json.dumps(compare_all(r, q, ["RR"], seed=s)["RR"].to_json())
        for r, q, s in ((runs, qrels(30), 1), (mixed, qrels(30).reverse(), 1), (runs, qrels(30), 2))
    )
    assert one == again
    assert one != other


def test_a_missing_topic_counts_0() -> None:
    runs = {"a": run(np.array([1, 2, 3])), "b": run(np.array([2, 1, 1])).filter(pl.col("query_id") != "q001")}
    found = compare_all(runs, qrels(3), ["RR"])["RR"]
    assert found.systems["mean"].to_list() == pytest.approx([(1 + 1 / 2 + 1 / 3) / 3, (1 / 2 + 0 + 1) / 3])


def test_one_topic_tells_nothing_apart() -> None:
    found = compare_all(runs_of({"a": np.array([1]), "b": np.array([4])}), qrels(1), ["RR"])["RR"]
    (pair,) = found.pairs.to_dicts()
    assert (pair["verdict"], pair["p"], pair["low"]) == ("inconclusive", 1.0, -np.inf)
    assert letters(found) == {"a": {1}, "b": {1}}


def test_one_run_is_too_few() -> None:
    with pytest.raises(UsageError, match="one run only"):
        compare_all({"a": run(np.array([1]))}, qrels(1), ["RR"])


# -- the command ---------------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path, places: dict[str, np.ndarray]) -> list[str]:
    for name, made in runs_of(places).items():
        write_run(made, tmp_path / f"{name}.run", name)
    write_qrels(qrels(30), tmp_path / "q.txt")
    return [*(str(tmp_path / f"{n}.run") for n in places), "--qrels", str(tmp_path / "q.txt"), "-m", "RR"]


def test_all_as_json(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["compare", "--all", *files, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["groups"]["RR"]
    assert told["systems"][0]["run"] == "top"
    assert set(told["systems"][0]) == {"run", "mean", "groups"}
    assert set(told["pairs"][0]) == {
        "base",
        "candidate",
        "delta",
        "low",
        "high",
        "p",
        "p_adjusted",
        "verdict",
    }


def test_all_as_a_table(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["compare", "--all", *files]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("RR: runs that share a group cannot be told apart")
    assert [line.split()[0] for line in lines[2:]][:1] == ["top"]


@pytest.mark.parametrize("option", [("--margin", "0.1"), ("--slices", "none.tsv")])
def test_all_takes_no_margin_and_no_slices(
    files: list[str], option: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["compare", "--all", *files, *option]) == 2
    assert "--all takes neither --margin nor --slices" in capsys.readouterr().err
