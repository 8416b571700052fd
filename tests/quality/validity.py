"""How good the labels of `minilm` and the calibrator are, on real collections: the tables of
docs/measured.md.

    python tests/quality/validity.py [--collections NAME ...] [--ledger DIR] [--seeds N]

Reads the collections under STOPGAP_DATA (default ../shared/data) and the embedded one, prints Markdown. The
first run looks at some 36,000 pairs and takes the better part of an hour on two cores; the ledger keeps
them.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import polars as pl
from sklearn.metrics import cohen_kappa_score, roc_auc_score

from harness.calibrate import calibrate
from harness.collection import Collection, open_collection
from harness.labeling import load, signals
from harness.ledger import Ledger
from harness.simulate import simulate
from harness.trec import read_qrels, read_runs

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("STOPGAP_DATA") or ROOT.parent / "shared" / "data")
COLLECTIONS = (
    "dl19_passage",
    "llmjudge",
    "chorus_electronics",
    "csfcube",
    "dbpedia_entity_subset",
    "demo",
)
BUDGETS: tuple[int | None, ...] = (0, 3, 5, 10, 20, 50, None)
LLMS = {
    "dl19_passage": {
        "GPT-4, UMBRELA prompt": "umbrela_gpt4",
        "Llama-3-70B, four prompts": "llama3-70b_4prompts",
    }
}
KEYS = ["query_id", "doc_id"]


class Judged:
    """A collection's human judgments that have a signal, and those signals."""

    def __init__(self, name: str, ledger: Ledger) -> None:
        self.name = name
        self.collection: Collection = open_collection(name if name == "demo" else DATA / name)
        self.grades = sorted(self.collection.grades)
        qrels = self.collection.qrels().filter(pl.col("relevance") >= 0)
        labeler = load("minilm", self.collection.grades)
        said = signals(labeler, self.collection.pairs(qrels.select(KEYS)), ledger=ledger, progress=_say(name))
        self.signals = said.filter(pl.col("reason").is_null())
        self.qrels = qrels.join(self.signals.select(KEYS), on=KEYS, how="semi").sort(KEYS)
        self.middle = next(g for g in self.grades if g >= max(self.grades) / 2 and g > min(self.grades))


class Tally:
    """Held-out pairs: their human grade, hard label, chance of being relevant, expected gain, and bare
    score."""

    def __init__(self, judged: Judged) -> None:
        self.judged, self.rows = judged, defaultdict(list)

    def add(self, held: pl.DataFrame, labels: pl.DataFrame) -> None:
        joined = held.join(
            labels.rename({"relevance": "hard", "gain": "expected"}), on=KEYS, maintain_order="left"
        )
        joined = joined.join(self.judged.signals.select(*KEYS, "score"), on=KEYS, maintain_order="left")
        probs = np.array(joined["probs"].to_list())
        self.rows["chance"].append(probs[:, np.array(self.judged.grades) >= self.judged.middle].sum(axis=1))
        for column in ("relevance", "hard", "expected", "score"):
            self.rows[column].append(joined[column].to_numpy())

    def figures(self) -> list[str]:
        """AUC, kappa, quadratic kappa, calibration error, and the bare score's AUC."""
        rows = {k: np.concatenate(v) for k, v in self.rows.items()}
        relevant = rows["relevance"] >= self.judged.middle
        bins = np.minimum((rows["chance"] * 10).astype(int), 9)
        error = sum(abs((relevant[bins == b] - rows["chance"][bins == b]).sum()) for b in range(10)) / len(
            bins
        )
        return [
            f"{roc_auc_score(relevant, rows['expected']):.3f}",
            f"{cohen_kappa_score(rows['relevance'], rows['hard']):.3f}",
            f"{cohen_kappa_score(rows['relevance'], rows['hard'], weights='quadratic'):.3f}",
            f"{error:.3f}",
            f"{roc_auc_score(relevant, rows['score']):.3f}",
        ]


def by_budget(judged: Judged, seeds: int) -> list[list[str]]:
    """A quarter of every topic's pairs held out; budget 0: the topics of one half fitted, those of the
    other labeled."""
    rows = []
    for budget in BUDGETS:
        with_topic, without = Tally(judged), Tally(judged)
        for seed in range(seeds):
            for human, held in _splits(judged.qrels, budget, seed):
                for tally, neighbours in ((with_topic, True), (without, False)):
                    labels = calibrate([judged.signals], human, judged.grades, neighbours=neighbours).labels
                    tally.add(held, labels)
        figures, bare = with_topic.figures(), without.figures()
        rows.append(["all" if budget is None else str(budget), *figures[:4], bare[1], bare[3], figures[4]])
        print(judged.name, rows[-1], file=sys.stderr, flush=True)
    return rows


def _splits(qrels: pl.DataFrame, budget: int | None, seed: int) -> list[tuple[pl.DataFrame, pl.DataFrame]]:
    rng = np.random.default_rng(seed)
    topics = qrels["query_id"].unique().sort().to_list()
    if budget == 0:
        first = set(rng.permutation(topics)[: len(topics) // 2].tolist())
        chosen = qrels["query_id"].is_in(sorted(first))
        halves = qrels.filter(chosen), qrels.filter(~chosen)
        return [halves, halves[::-1]]
    human, held = [], []
    for topic in topics:
        mine = qrels.filter(pl.col("query_id") == topic)
        order = rng.permutation(mine.height)
        cut = round(mine.height / 4)
        held.append(mine[order[:cut]])
        human.append(mine[order[cut:] if budget is None else order[cut : cut + budget]])
    return [(pl.concat(human), pl.concat(held))]


def llms(judged: Judged) -> list[list[str]]:
    """What the collection's own LLM labels reach on all pairs, raw."""
    rows = []
    for words, name in LLMS.get(judged.name, {}).items():
        labels = read_qrels(DATA / judged.name / f"qrels.{name}.txt").select(
            *KEYS, pl.col("relevance").alias("hard")
        )
        both = judged.qrels.join(labels, on=KEYS)
        human, hard = both["relevance"].to_numpy(), both["hard"].to_numpy()
        rows.append(
            [
                words,
                f"{roc_auc_score(human >= judged.middle, hard):.3f}",
                f"{cohen_kappa_score(human, hard):.3f}",
                f"{cohen_kappa_score(human, hard, weights='quadratic'):.3f}",
            ]
        )
    return rows


def team_out(judged: Judged) -> list[list[str]]:
    """DL19 without each team's own judgments in the top 10 of its runs: the holes, labeled from a budget a
    topic."""
    runs = read_runs(sorted((DATA / judged.name / "runs").glob("*.run.gz")), depth=10)
    team = dict(
        pl.read_csv(DATA / judged.name / "runs_meta.tsv", separator="\t").select("run", "team").iter_rows()
    )
    tops = pl.concat(
        [r.select(KEYS).with_columns(pl.lit(team[n]).alias("team")) for n, r in runs.items()]
    ).unique()
    rows = []
    for budget in BUDGETS[1:]:
        tally, rng = Tally(judged), random.Random(0)
        for name in sorted(set(team.values())):
            others = tops.filter(pl.col("team") != name)
            own = tops.filter(pl.col("team") == name).join(others, on=KEYS, how="anti").select(KEYS)
            held = judged.qrels.join(own, on=KEYS, how="semi")
            if not held.height:
                continue
            kept = judged.qrels.join(own, on=KEYS, how="anti").sort(KEYS)
            if budget is not None:
                parts = kept.partition_by("query_id", maintain_order=True)
                kept = pl.concat(p[sorted(rng.sample(range(p.height), min(budget, p.height)))] for p in parts)
            tally.add(held, calibrate([judged.signals], kept, judged.grades).labels)
        rows.append(["all" if budget is None else str(budget), *tally.figures()])
        print("team out", rows[-1], file=sys.stderr, flush=True)
    return rows


def elsewhere(source: Judged, target: Judged) -> tuple[list[str], pl.DataFrame]:
    """Labels for a collection without a single judgment, from a calibrator fitted on another."""
    fitted = calibrate([source.signals], source.qrels, source.grades).calibrator
    labels = calibrate([target.signals], target.qrels.clear(), target.grades, calibrator=fitted).labels
    tally = Tally(target)
    tally.add(target.qrels, labels)
    return tally.figures(), labels


def other_topics(judged: Judged) -> tuple[list[str], pl.DataFrame]:
    """Labels for a fifth of the topics at a time, from a calibrator fitted on the others."""
    topics = judged.qrels["query_id"].unique().sort().to_list()
    order = np.random.default_rng(0).permutation(topics).tolist()
    tally, parts = Tally(judged), []
    for fold in (order[k::5] for k in range(5)):
        held = pl.col("query_id").is_in(fold)
        labels = calibrate([judged.signals], judged.qrels.filter(~held), judged.grades).labels.filter(held)
        tally.add(judged.qrels.filter(held), labels)
        parts.append(labels)
    return tally.figures(), pl.concat(parts)


def verdicts(judged: Judged, labels: pl.DataFrame) -> list[str]:
    """Filling the holes of teams left out with these labels, as they are: verdicts kept, and score error."""
    folder = DATA / judged.name
    meta = pl.read_csv(folder / "runs_meta.tsv", separator="\t").select("run", "team")
    found = simulate(
        read_runs(sorted((folder / "runs").glob("*.run.gz"))),
        judged.collection.qrels(),
        labels=labels.drop_nulls("relevance"),
        leave_out="group",
        groups=dict(meta.iter_rows()),
        fills=["labels"],
    )
    outcome = found.to_json()["fills"]["labels"]
    return [f"{outcome['verdict_agreement']:.4f}", f"{outcome['score_error']:.4f}"]


def _say(name: str):
    def told(done: int, total: int | None) -> None:
        print(
            f"\r{name}: {done} of {total} pairs",
            end="" if done != total else "\n",
            file=sys.stderr,
            flush=True,
        )

    return told


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--collections", nargs="+", default=list(COLLECTIONS), choices=COLLECTIONS)
    parser.add_argument("--ledger", default=".stopgap/validity", help="where signals are kept")
    parser.add_argument("--seeds", type=int, default=2, help="splits a budget")
    chosen = parser.parse_args()
    ledger = Ledger(chosen.ledger)
    judged = {name: Judged(name, ledger) for name in chosen.collections}
    if {"llmjudge", "dl19_passage"} <= set(judged):
        target = judged["dl19_passage"]
        head = ["labels of DL19, fitted on", "AUC", "kappa", "quadratic", "ECE", "bare cosine AUC"]
        ways = {
            "llmjudge": elsewhere(judged["llmjudge"], target),
            "DL19's other topics, in five folds": other_topics(target),
        }
        rows = [[way, *figures, *verdicts(target, labels)] for way, (figures, labels) in ways.items()]
        print(table([*head, "verdicts kept", "score error"], rows), flush=True)
    if "dl19_passage" in judged:
        head = ["judged a topic", "AUC", "kappa", "quadratic", "ECE", "bare cosine AUC"]
        print("DL19, leave one team out\n\n" + table(head, team_out(judged["dl19_passage"])), flush=True)
    head = ["judged a topic", "AUC", "kappa", "quadratic", "ECE", "kappa off", "ECE off", "bare cosine AUC"]
    for name, each in judged.items():
        print(
            f"{name}: {each.qrels.height:,} pairs\n\n{table(head, by_budget(each, chosen.seeds))}",
            flush=True,
        )
        if found := llms(each):
            print(table(["labels of", "AUC", "kappa", "quadratic"], found), flush=True)


if __name__ == "__main__":
    main()
