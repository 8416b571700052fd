"""How many judgments `plan` saves: the table of docs/measured.md on planning.

    python tests/quality/plan_cost.py [--pairs N] [--measure M] [--seed N] [--ledger DIR]

Pairs of runs of different teams are drawn from DL19 and DL21 (STOPGAP_DATA, default ../shared/data). NIST's
grades of the documents in their first ten are hidden and revealed again in the order of the plan (made anew
after each batch), in random order, and in order of depth: rank by rank, topic by topic, both runs. What is
still hidden has the same beliefs in every order. Counted are the judgments after which the verdict is that of
all grades and stays so, and those after which the plan's rule says stop. Prints Markdown; takes a quarter of
an hour on one core. Documents that NIST did not judge are revealed as grade 0.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from harness.calibrate import Calibrator, calibrate
from harness.collection import open_collection
from harness.errors import StopgapError
from harness.fill import merge
from harness.labeling import load, signals
from harness.ledger import Ledger
from harness.plan import Plan, plan, significant
from harness.trec import read_qrels, read_runs

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("STOPGAP_DATA") or ROOT.parent / "shared" / "data")
KEYS = ["query_id", "doc_id"]
GRADES = range(4)
ORDERS = ("plan", "random", "depth")


@dataclass
class Case:
    """Two runs, what is judged at first, what is hidden, and what labels what is hidden."""

    base: pl.DataFrame
    candidate: pl.DataFrame
    start: pl.DataFrame
    hidden: pl.DataFrame
    topics: list[str]
    relabel: Callable[[pl.DataFrame], pl.DataFrame]


@dataclass
class Found:
    """Judgments until the verdict, the likeliest verdict, and with zeros the verdict were reached for good;
    until the rule stopped, and whether it was right."""

    reached: int
    likeliest: int
    zeros: int
    stopped: int
    right: bool


def now(case: Case, qrels: pl.DataFrame, measure: str) -> Plan:
    return plan(case.base, case.candidate, qrels, measure, grades=GRADES, topics=case.topics)


def verdict(made: Plan) -> str:
    """Of the differences as expected."""
    deltas = made.per_topic["delta"].to_numpy()
    if not deltas.any() or not significant(deltas[None, :], 0)[0]:
        return "inconclusive"
    return "better" if deltas.sum() > 0 else "worse"


def zero_filled(seen: pl.DataFrame, left: pl.DataFrame) -> pl.DataFrame:
    zero = pl.lit(0, pl.Int16).alias("relevance"), pl.lit(0.0, pl.Float32).alias("gain")
    return pl.concat([seen, left.with_columns(*zero)])


def checkpoints(holes: int, *, fine: bool) -> list[int]:
    """0, 5, 10, ... 40, then by eighths, then all: batches as they are judged; coarser where labels are made
    anew at each."""
    out, at = [], 0
    while at < holes:
        out.append(at)
        at += max(5, at // 8) if fine else max(10, at // 2)
    return [*out, holes]


def depth_order(case: Case) -> pl.DataFrame:
    both = pl.concat(
        [r.select(*KEYS, "rank", pl.lit(i).alias("side")) for i, r in enumerate((case.base, case.candidate))]
    )
    first = both.sort("rank", "query_id", "side").unique(KEYS, keep="first", maintain_order=True)
    return first.join(case.hidden.select(KEYS), on=KEYS, how="semi", maintain_order="left").select(KEYS)


def walk(case: Case, order: str, measure: str, target: str, seed: int) -> Found:
    """Reveal the hidden grades in an order."""
    left, seen = case.hidden, case.start
    fixed = left.sample(fraction=1, shuffle=True, seed=seed) if order == "random" else depth_order(case)
    verdicts, likeliest, zeros, stopped, right = [], [], [], case.hidden.height, True
    points = checkpoints(case.hidden.height, fine=case.relabel is unlabeled)
    for at, following in zip(points, [*points[1:], points[-1]], strict=True):
        made = now(case, case.relabel(seen), measure)
        verdicts.append(verdict(made))
        likeliest.append(made.verdict.replace("equivalent", "inconclusive"))
        if order == "depth":
            zeros.append(verdict(now(case, zero_filled(seen, left), measure)))
        if made.settled and at < stopped:
            stopped, right = at, likeliest[-1] == target
        batch = fixed[at:following] if order != "plan" else made.order.head(following - at)
        if batch.height < following - at:  # nothing left has influence
            batch = left.head(following - at)
        seen = pl.concat([seen, left.join(batch, on=KEYS, how="semi")])
        left = left.join(batch, on=KEYS, how="anti")
    reach = (reached(points, each, target) for each in (verdicts, likeliest, zeros))
    return Found(*reach, stopped, right)


def reached(points: list[int], verdicts: list[str], target: str) -> int:
    """The first checkpoint from which on every verdict is the target."""
    wrong = [i for i, v in enumerate(verdicts) if v != target]
    return points[min(wrong[-1] + 1, len(points) - 1)] if wrong else 0


def cases(name: str, start: str, labels: bool, number: int, seed: int, ledger: str) -> list[Case]:
    folder = DATA / name
    human = read_qrels(folder / "qrels.human.txt")
    meta = pl.read_csv(folder / "runs_meta.tsv", separator="\t")
    team = dict(meta.select("run", "team").iter_rows())
    runs = read_runs(sorted((folder / "runs").glob("*.run.gz")), depth=10)
    topics = human["query_id"].unique().sort().to_list()
    runs = {n: r.filter(pl.col("query_id").is_in(topics)) for n, r in runs.items()}
    said = None
    if labels:
        collection = open_collection(folder)
        labeler = load("minilm", collection.grades)
        said = signals(labeler, collection.pairs(human.select(KEYS)), ledger=Ledger(ledger))
    rng, names, out = np.random.default_rng(seed), sorted(runs), []
    while len(out) < number:
        a, b = rng.choice(names, 2, replace=False)
        if team[a] == team[b]:
            continue
        tops = pl.concat([runs[a], runs[b]]).select(KEYS).unique(maintain_order=True)
        others = pl.concat([r.select(KEYS) for n, r in runs.items() if team[n] not in (team[a], team[b])])
        hidden = tops if start == "nothing" else tops.join(others, on=KEYS, how="anti")
        mine = pl.concat([r.select(KEYS) for n, r in runs.items() if team[n] in (team[a], team[b])])
        own = mine.join(others, on=KEYS, how="anti")
        before = human.clear() if start == "nothing" else human.join(own, on=KEYS, how="anti")
        grades = (
            hidden.join(human, on=KEYS, how="left")
            .with_columns(
                pl.col("relevance").fill_null(0),
                pl.col("gain").fill_null(0.0),
                pl.col("assessor").fill_null("human"),
            )
            .sort(KEYS)
        )
        out.append(Case(runs[a], runs[b], before, grades, topics, relabeler(said, before, grades)))
    return out


def unlabeled(seen: pl.DataFrame) -> pl.DataFrame:
    return seen


def relabeler(
    said: pl.DataFrame | None, start: pl.DataFrame, hidden: pl.DataFrame
) -> Callable[[pl.DataFrame], pl.DataFrame]:
    """Labels from signals, by a calibrator fitted on the judgments of the start; or none."""
    if said is None:
        return unlabeled
    rows = said.join(pl.concat([start, hidden]), on=KEYS, how="semi")
    fitted: Calibrator = calibrate([said.join(start, on=KEYS, how="semi")], start, GRADES).calibrator

    def relabel(seen: pl.DataFrame) -> pl.DataFrame:
        left = hidden.join(seen, on=KEYS, how="anti")
        if not left.height:
            return seen
        labels = calibrate([rows], seen, GRADES, calibrator=fitted).labels
        return merge(seen, labels.join(left, on=KEYS, how="semi"))

    return relabel


def rows(name: str, start: str, labels: bool, chosen: argparse.Namespace) -> list[list[str]]:
    """One table row for each order, over all pairs."""
    found: dict[str, list[Found]] = {order: [] for order in ORDERS}
    human, holes, targets, agree = read_qrels(DATA / name / "qrels.human.txt"), [], [], 0
    pairs = chosen.pairs // 3 if labels else chosen.pairs
    for number, case in enumerate(cases(name, start, labels, pairs, chosen.seed, chosen.ledger)):
        target = verdict(now(case, pl.concat([case.start, case.hidden]), chosen.measure))
        zeros = case.hidden.join(human, on=KEYS, how="anti")
        agree += verdict(now(case, pl.concat([human, zeros]), chosen.measure)) == target
        targets.append(target != "inconclusive")
        holes.append(case.hidden.height)
        for order in ORDERS:
            found[order].append(walk(case, order, chosen.measure, target, chosen.seed + number))
        told = "; ".join(f"{o} {vars(found[o][-1])}" for o in ORDERS)
        print(name, start, labels, number, holes[-1], target, told, file=sys.stderr, flush=True)
    sure = np.array(targets)
    setting = f"{name.split('_')[0].upper()}, {start}" + (", labels" if labels else "")
    print(
        f"{setting}: {int(sure.sum())} of {len(sure)} verdicts conclusive, {agree} as on all judgments;"
        f" hidden {np.mean(holes):.0f} on average\n",
        flush=True,
    )
    columns = {o: [f.reached for f in found[o]] for o in ORDERS}
    columns["depth, zeros"] = [f.zeros for f in found["depth"]]
    columns |= {f"{o}, likeliest": [f.likeliest for f in found[o]] for o in ORDERS}
    columns |= {f"{o}, until the rule stops": [f.stopped for f in found[o]] for o in ORDERS}
    out = []
    for what, counts in columns.items():
        order, _, kind = what.partition(", ")
        depth = np.array(columns["depth" if kind in ("", "zeros") else f"depth, {kind}"])
        mine, line = np.array(counts), [setting, what]
        for who in (sure, np.ones_like(sure)):
            if not who.any() or not depth[who].any():
                line += ["–"] * 3
                continue
            share = f"{mine[who].sum() / depth[who].sum():.2f}"
            line += [f"{np.median(mine[who]):.0f}", f"{mine[who].mean():.0f}", share]
        line.append("–".join(str(np.sum(np.sign(mine - depth) == sign)) for sign in (-1, 0, 1)))
        line.append(f"{np.mean([f.right for f in found[order]]):.2f}" if "rule" in kind else "")
        out.append(line)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--pairs", type=int, default=15, help="pairs of runs in each setting; with labels a third of them"
    )
    parser.add_argument("--measure", default="nDCG@10")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ledger", default=".stopgap/validity", help="where signals are kept")
    parser.add_argument("--settings", nargs="+", type=int, default=list(range(5)), help="which rows, from 0")
    chosen = parser.parse_args()
    settings = [
        ("dl19_passage", "nothing", False),
        ("dl19_passage", "other teams", False),
        ("dl19_passage", "other teams", True),
        ("dl21_passage_runs", "nothing", False),
        ("dl21_passage_runs", "other teams", False),
    ]
    head = ["judged at first", "order", "conclusive: median", "mean", "of depth's"]
    head += ["all: median", "mean", "of depth's", "fewer–as many–more", "right"]
    lines = []
    for n in chosen.settings:
        try:
            lines += rows(*settings[n], chosen)
        except StopgapError as error:
            sys.exit(f"{settings[n]}: {error}")
    print("\n".join("| " + " | ".join(line) + " |" for line in [head, ["---"] * len(head), *lines]))


if __name__ == "__main__":
    main()
