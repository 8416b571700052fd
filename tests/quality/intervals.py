"""Whether the interval of A versus B on filled qrels contains what full human qrels say: docs/measured.md.

    python tests/quality/intervals.py [--ledger DIR] [--measure nDCG@10] [--splits N]

Leaves out, for each team of TREC DL 2019 in turn, the judgments that only its runs brought into the top 10,
fills these holes in several ways, and compares the team's runs with all others. Prints Markdown.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl
from validity import DATA, KEYS, Judged

from harness.arrays import Floats
from harness.bounds import bounds
from harness.calibrate import calibrate
from harness.draws import score_draws
from harness.fill import merge
from harness.frames import Runs
from harness.inference import intervals
from harness.ledger import Ledger
from harness.measure import measure
from harness.pool import found_once
from harness.trec import read_qrels, read_runs

SET = "dl19_passage"
DEPTH = 10
SAMPLE = 100  # pairs whose bounds are computed
RAW = {"GPT-4, UMBRELA prompt, raw": "umbrela_gpt4", "Llama-3-70B, four prompts, raw": "llama3-70b_4prompts"}


@dataclass
class Tally:
    """Over all comparisons: whether the interval contained the truth, its width, and the error of delta."""

    inside: list[bool]
    width: list[float]
    error: list[float]

    def row(self, name: str) -> list[str]:
        return [
            name,
            f"{np.mean(self.inside):.3f}",
            f"{np.mean(self.width):.4f}",
            f"{np.mean(np.abs(self.error)):.4f}",
            f"{np.mean(self.error):+.4f}",
            str(len(self.inside)),
        ]


def left_out(judged: Judged, runs: Runs, team: dict[str, str]) -> Iterator[tuple[str, pl.DataFrame]]:
    """Each team and the judged pairs that only its runs have in their top."""
    tops = pl.concat([r.select(KEYS).with_columns(pl.lit(team[n]).alias("team")) for n, r in runs.items()])
    for name in sorted(set(team.values())):
        others = tops.filter(pl.col("team") != name)
        own = tops.filter(pl.col("team") == name).join(others, on=KEYS, how="anti").select(KEYS).unique()
        held = judged.qrels.join(own, on=KEYS, how="semi")
        if held.height:
            yield name, held


def fillings(judged: Judged, runs: Runs, held: pl.DataFrame) -> Iterator[tuple[str, pl.DataFrame]]:
    """Name and qrels of each way to fill what was left out."""
    kept = judged.qrels.join(held, on=KEYS, how="anti").sort(KEYS)
    yield "zero", kept
    for name, file in RAW.items():
        labels = read_qrels(DATA / SET / f"qrels.{file}.txt").join(held, on=KEYS, how="semi")
        yield name, pl.concat([kept, labels.with_columns(assessor=pl.lit(file))]).sort(KEYS)
    alone = found_once(runs, DEPTH)
    for name, once in (("minilm, conditioned, not moved", None), ("minilm, conditioned (fill)", alone)):
        made = calibrate([judged.signals], kept, judged.grades, found_once=once).labels
        yield name, merge(kept, made.join(held, on=KEYS, how="semi"))


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--ledger", default=".stopgap/ledger")
    asked.add_argument("--measure", default="nDCG@10")
    asked.add_argument("--splits", type=int, default=20)
    given = asked.parse_args()
    judged = Judged(SET, Ledger(given.ledger))
    every = read_runs(sorted((DATA / SET / "runs").glob("*.run.gz")), depth=DEPTH)
    meta = pl.read_csv(DATA / SET / "runs_meta.tsv", separator="\t")
    team = dict(meta.select("run", "team").iter_rows())
    truth = _values(every, judged.qrels, given.measure)
    fixed: dict[str, Tally] = {}
    halves: dict[str, Tally] = {}
    widths, rng = [], np.random.default_rng(0)
    for name, held in left_out(judged, every, team):
        pairs = [(b, c) for c in every if team[c] == name for b in every if team[b] != name]
        for words, qrels in fillings(judged, every, held):
            found = measure(every, qrels, [given.measure])
            values = {n: v[0] for n, v in found.values.items()}
            drawn = score_draws(found.specs, found.hits)
            tally = fixed.setdefault(words, Tally([], [], []))
            for b, c in pairs:
                delta = float((values[c] - values[b]).mean())
                noise = _noise(drawn, b, c, given.measure)
                low, high = (delta, delta) if noise is None else np.quantile(noise, [0.025, 0.975])
                real = float((truth[c] - truth[b]).mean())
                tally.inside.append(bool(low - 1e-12 <= real <= high + 1e-12))
                tally.width.append(float(high - low))
                tally.error.append(delta - real)
            split = halves.setdefault(words, Tally([], [], []))
            for _ in range(given.splits):
                order = rng.permutation(len(found.topics))
                first, second = order[: len(order) // 2], order[len(order) // 2 :]
                b, c = pairs[rng.integers(len(pairs))]
                delta = (values[c] - values[b])[first, None]
                noise = None
                if drawn:
                    moved = drawn[c][given.measure] - drawn[b][given.measure]
                    noise = moved[:, first].mean(axis=1)[:, None] - delta.mean()
                low, high = (float(e[0]) for e in intervals(delta, noise))
                real = float((truth[c] - truth[b])[second].mean())
                split.inside.append(low <= real <= high)
                split.width.append(high - low)
                split.error.append(float(delta.mean()) - real)
        kept = judged.qrels.join(held, on=KEYS, how="anti")
        for b, c in [pairs[i] for i in rng.permutation(len(pairs))[: SAMPLE // 10]]:
            low, high = bounds(every[b], every[c], kept, given.measure, grades=judged.grades).delta
            widths.append(high - low)
    human = halves.setdefault("human, nothing left out", Tally([], [], []))
    names = list(every)
    for _ in range(given.splits * 10):
        order = rng.permutation(len(truth[names[0]]))
        first, second = order[: len(order) // 2], order[len(order) // 2 :]
        b, c = rng.choice(names, 2, replace=False)
        delta = (truth[c] - truth[b])[first, None]
        low, high = (float(e[0]) for e in intervals(delta))
        real = float((truth[c] - truth[b])[second].mean())
        human.inside.append(low <= real <= high)
        human.width.append(high - low)
        human.error.append(float(delta.mean()) - real)
    columns = ["coverage", "mean width", "mean abs. error", "mean error", "comparisons"]
    _print(["labels for the holes", *columns], [t.row(n) for n, t in fixed.items()])
    print(f"\nMean width of the bounds, {len(widths)} of the pairs: {np.mean(widths):.4f}\n")
    _print(["topics halved", *columns], [t.row(n) for n, t in halves.items()])


def _values(runs: Runs, qrels: pl.DataFrame, name: str) -> dict[str, Floats]:
    return {n: v[0] for n, v in measure(runs, qrels, [name]).values.items()}


def _noise(drawn: dict[str, dict[str, Floats]], base: str, candidate: str, name: str) -> Floats | None:
    return (drawn[candidate][name] - drawn[base][name]).mean(axis=1) if drawn else None


def _print(columns: list[str], rows: list[list[str]]) -> None:
    for cells in (columns, ["---"] * len(columns), *rows):
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
