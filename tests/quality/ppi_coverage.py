"""How often intervals from few judged topics and many labeled ones contain the truth: docs/measured.md.

    python tests/quality/ppi_coverage.py [--trials 4000]

The population is a collection's topics with the values that judgments and labels give a run on each. Every
trial takes a run, or two for a difference, draws judged and other topics from it with replacement, so that
its mean is known, and asks whether the interval contains it. Widths are shares of that of humans alone.
Prints Markdown.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator

import numpy as np
from validity import DATA, KEYS

from harness.arrays import Floats
from harness.measure import measure
from harness.ppi import Powered, costs, powered_mean
from harness.trec import read_qrels, read_runs

SETS = [
    ("dl21_passage_runs", "umbrela_gpt4"),
    ("dl19_passage", "umbrela_gpt4"),
    ("dl19_passage", "llama3-8b_4prompts"),
]
MEASURES = ["nDCG@10", "AP(rel=2)"]
JUDGED, OTHERS = (10, 20, 40), 200
PAIRS_JUDGED, PAIRS_TRIALS = 200, 1000
COLUMNS = ["coverage", "width"]


def as_published(gold: Floats, predicted: Floats, others: Floats, lam: float | None = None) -> Powered:
    """PPI++ with the interval of the paper: tuned on what it is then measured by, normal quantiles."""
    n, more = len(gold), len(others)
    if lam is None:
        spread = np.concatenate([predicted, others]).var(ddof=1)
        slope = np.cov(gold, predicted)[0, 1] / ((1 + n / more) * spread) if spread else 0.0
        lam = float(np.clip(slope, 0, 1))
    value = gold.mean() + lam * (others.mean() - predicted.mean())
    error = math.sqrt((gold - lam * predicted).var(ddof=1) / n + lam**2 * others.var(ddof=1) / more)
    return Powered(value, value - 1.96 * error, value + 1.96 * error, error, n - 1, lam)


def scores(folder: str, labels: str, name: str) -> tuple[Floats, Floats]:
    """(runs, topics) values by the judgments and by the labels, over the topics that have both."""
    runs = read_runs(sorted((DATA / folder / "runs").glob("*.run.gz")))
    files = (DATA / folder / f"qrels.{kind}.txt" for kind in ("human", labels))
    found = [measure(runs, read_qrels(file), [name]) for file in files]
    shared = sorted(set(found[0].topics) & set(found[1].topics))
    values = []
    for one in found:
        columns = np.searchsorted(one.topics, shared)
        values.append(np.stack([v[0][columns] for v in one.values.values()]))
    return values[0], values[1]


def drawn(y: Floats, f: Floats, delta: bool, rng: np.random.Generator) -> Iterator[tuple[Floats, Floats]]:
    """Without end: one run's values by judgments and by labels, or two runs' differences."""
    while True:
        a, b = rng.choice(len(y), 2, replace=False)
        yield (y[a] - y[b], f[a] - f[b]) if delta else (y[a], f[a])


class Tally:
    """Coverage and mean width of an interval."""

    def __init__(self) -> None:
        self.inside: list[bool] = []
        self.width: list[float] = []

    def add(self, one: Powered, truth: float) -> None:
        """One trial."""
        self.inside.append(one.low - 1e-12 <= truth <= one.high + 1e-12)
        self.width.append(one.high - one.low)

    def cells(self, alone: Tally | None = None) -> list[str]:
        """Coverage, and width as a share of another's."""
        width = np.mean(self.width) / (np.mean(alone.width) if alone else 1.0)
        return [f"{np.mean(self.inside):.3f}", f"{width:.2f}" if alone else f"{width:.3f}"]


def topics(folder: str, labels: str, trials: int) -> list[list[str]]:
    """Rows: measure, mean or difference, judged topics, and how each interval does."""
    rows = []
    for name in MEASURES:
        y, f = scores(folder, labels, name)
        for delta in (False, True):
            for n in JUDGED:
                rng = np.random.default_rng(1)
                source = drawn(y, f, delta, rng)
                alone, published, narrower, ours = (Tally() for _ in range(4))
                correlations = []
                for _ in range(trials):
                    a, b = next(source)
                    at, rest = rng.integers(0, len(a), n), rng.integers(0, len(a), OTHERS)
                    sample, truth = (a[at], b[at], b[rest]), float(a.mean())
                    humans, powered = powered_mean(*sample, lam=0), powered_mean(*sample)
                    alone.add(humans, truth)
                    published.add(as_published(*sample), truth)
                    narrower.add(min(humans, powered, key=lambda one: one.half_width), truth)
                    ours.add(powered, truth)
                    correlations.append(np.corrcoef(a, b)[0, 1] if np.ptp(a) and np.ptp(b) else 0.0)
                head = [name, "difference" if delta else "mean", str(n), f"{np.mean(correlations):.2f}"]
                others = [cell for one in (published, narrower, ours) for cell in one.cells(alone)]
                rows.append([*head, alone.cells()[0], *others])
    return rows


def subsets(folder: str, labels: str, trials: int) -> list[list[str]]:
    """A part of the topics judged, the others with labels only, against the judgments of all of them."""
    rows, name = [], "nDCG@10"
    y, f = scores(folder, labels, name)
    for delta in (False, True):
        for n in JUDGED[:2]:
            rng = np.random.default_rng(3)
            source = drawn(y, f, delta, rng)
            alone, ours = Tally(), Tally()
            for _ in range(trials):
                a, b = next(source)
                order = rng.permutation(len(a))
                sample = a[order[:n]], b[order[:n]], b[order[n:]]
                alone.add(powered_mean(*sample, lam=0), float(a.mean()))
                ours.add(powered_mean(*sample), float(a.mean()))
            what = [folder, labels, "difference" if delta else "mean", f"{n} of {y.shape[1]}"]
            rows.append([*what, alone.cells()[0], *ours.cells(alone)])
    return rows


def pairs(folder: str, labels: str) -> list[list[str]]:
    """The share of relevant pairs from 200 judged pairs, pairs drawn one by one."""
    human, machine = (read_qrels(DATA / folder / f"qrels.{kind}.txt") for kind in ("human", labels))
    both = human.join(machine, on=KEYS, how="inner", suffix="_labels").sort(KEYS)
    y, f = ((both[c] >= 2).cast(float).to_numpy() for c in ("relevance", "relevance_labels"))
    rng, found = np.random.default_rng(0), {k: Tally() for k in ("humans alone", "PPI, lambda 1", "ours")}
    for _ in range(PAIRS_TRIALS):
        order = rng.permutation(len(y))
        gold, rest = order[:PAIRS_JUDGED], order[PAIRS_JUDGED:]
        for tally, lam in zip(found.values(), (0.0, 1.0, None), strict=True):
            tally.add(powered_mean(y[gold], f[gold], f[rest], lam=lam), float(y.mean()))
    return [[f"{labels}, bias {f.mean() - y.mean():+.3f}", k, *t.cells()] for k, t in found.items()]


def prices(folder: str, labels: str, trials: int) -> list[list[str]]:
    """What a precision is forecast to cost, and the precision that this then brings."""
    rows = []
    for name in MEASURES:
        y, f = scores(folder, labels, name)
        for delta in (False, True):
            rng = np.random.default_rng(2)
            source = drawn(y, f, delta, rng)
            forecast, reached = [], []
            for _ in range(trials):
                a, b = next(source)
                at, rest = rng.integers(0, len(a), 20), rng.integers(0, len(a), OTHERS)
                now = powered_mean(a[at], b[at], b[rest], lam=0).half_width
                if now == 0:
                    continue
                [cost] = costs(a[at], b[at], b[rest], precisions=[now / 1.5])
                if cost.powered is None:
                    continue
                forecast.append((cost.alone, cost.powered))
                units = len(rest) + len(at)
                again = rng.integers(0, len(a), units)
                got = powered_mean(
                    a[again[: cost.powered]], b[again[: cost.powered]], b[again[cost.powered :]]
                )
                reached.append(got.half_width / cost.half_width)
            alone, powered = np.median(forecast, axis=0)
            what = [name, "difference" if delta else "mean"]
            rows.append([*what, f"{alone:.0f}", f"{powered:.0f}", f"{np.mean(reached):.2f}"])
    return rows


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    asked.add_argument("--trials", type=int, default=4000)
    given = asked.parse_args()
    for folder, labels in SETS:
        print(f"\n{folder}, labels {labels}, {OTHERS} other topics\n")
        heads = [f"{who}: {c}" for who in ("as published", "the narrower", "ours") for c in COLUMNS]
        _print(
            ["measure", "of", "judged topics", "correlation", "humans alone: coverage", *heads],
            topics(folder, labels, given.trials),
        )
    print("\nA part of a collection's own topics judged, nDCG@10\n")
    rows = [row for folder, labels in SETS for row in subsets(folder, labels, given.trials)]
    heads = ["collection", "labels", "of", "judged topics", "humans alone: coverage"]
    _print([*heads, *(f"ours: {c}" for c in COLUMNS)], rows)
    print(f"\nShare of relevant pairs, {PAIRS_JUDGED} judged pairs of dl19_passage, {PAIRS_TRIALS} trials\n")
    rows = [row for labels in ("umbrela_gpt4", "llama3-8b_4prompts") for row in pairs("dl19_passage", labels)]
    _print(["labels", "interval", *COLUMNS], rows)
    print("\nForecast from 20 judged topics of dl21_passage_runs: an interval narrower by a third\n")
    heads = ["measure", "of", "topics, humans alone", "topics with labels", "width reached / asked for"]
    _print(heads, prices("dl21_passage_runs", "umbrela_gpt4", given.trials // 4))


def _print(columns: list[str], rows: list[list[str]]) -> None:
    for row in (columns, ["---"] * len(columns), *rows):
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
