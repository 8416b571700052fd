"""How good distilled students are on collections that they have not seen: the tables of docs/measured.md.

    python tests/quality/students.py [--out DIR] [--ledger DIR]

Distils from llmjudge (people's judgments) for DL19, and from DL19 (people's, and GPT-4's labels in their
place) for llmjudge, with everything else by default, each student calibrated by its training topics and by
the test's other topics. Reads the collections under STOPGAP_DATA (default ../shared/data) and prints
Markdown; a quarter of an hour on two cores.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from validity import DATA, table

DL19, LLMJUDGE = (DATA.resolve() / name for name in ("dl19_passage", "llmjudge"))
STUDENTS = {
    "llmjudge, people": (LLMJUDGE, "human", DL19),
    "DL19, people": (DL19, "human", LLMJUDGE),
    "DL19, GPT-4 in their place": (DL19, "umbrela_gpt4", LLMJUDGE),
}
"""Taught by -> the collection, the name of its qrels, the collection of the test."""
VERB = "import sys; from harness.cli import main; sys.exit(main(sys.argv[1:]))"
VALUES = ("kappa", "kappa_quadratic", "kappa_binary", "auc.2", "ece")
SHOWN = ("student", "untuned base", "untuned base, with pools", "BM25")


def stopgap(*arguments: str) -> dict[str, Any]:
    """What a verb says; exit code 1 is a verdict."""
    done = subprocess.run(
        [sys.executable, "-c", VERB, *arguments, "--json"],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode not in (0, 1):
        raise SystemExit(done.returncode)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def settings(source: Path, qrels: str, test: Path, out: Path, ledger: Path, fit: str) -> str:
    """The file of settings."""
    return (
        f'collection = "{source}"\nout = "{out}"\nledger = "{ledger}"\n'
        f'[human]\nqrels = "{source}/qrels.{qrels}.txt"\ntest_collection = "{test}"\n'
        f'[accept]\nfit = "{fit}"\n'
    )


def rows(taught_by: str, fit: str, out: Path) -> list[list[str]]:
    """A row a contender, of `acceptance.json`."""
    found = json.loads((out / "acceptance.json").read_text())
    found = found[0] if isinstance(found, list) else found
    made = []
    for name in SHOWN:
        one = found["contenders"][name]
        cells = [one["values"].get(value) for value in VALUES]
        by = "its training" if fit == "train" else "the test's other topics"
        made.append([taught_by, by, name, *("–" if v is None else f"{v:.3f}" for v in cells)])
    print(taught_by, fit, "accepted" if found["accepted"] else found["why"], file=sys.stderr, flush=True)
    return made


def left_out(labeler: Path, ledger: Path) -> list[list[str]]:
    """DL19 without each team in turn, its holes filled with a student's labels."""
    runs = [str(p) for p in sorted((DL19 / "runs").glob("*.run.gz"))]
    found = stopgap(
        "simulate", *runs, "--qrels", str(DL19 / "qrels.human.txt"), "--collection", str(DL19),
        "--labeler", str(labeler), "--ledger", str(ledger), "--leave-out", "group",
        "--groups", str(DL19 / "runs_meta.tsv"), "--budget", "5", "--budget", "20", "--budget", "50",
    )  # fmt: skip
    return [
        [fill, str(table["budget"] or "all"), f"{one['verdict_agreement']:.4f}", f"{one['score_error']:.4f}"]
        for table in found["tables"]
        for fill, one in table["fills"].items()
        if fill in ("labels", "calibrated", "conditioned")
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path(".stopgap/students"))
    parser.add_argument(
        "--ledger", type=Path, default=Path(".stopgap/validity"), help="where signals are kept"
    )
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    ledger, found = chosen.ledger.resolve(), []
    for number, (taught_by, (source, qrels, test)) in enumerate(STUDENTS.items()):
        out, file = (chosen.out / f"{number}").resolve(), chosen.out / f"{number}.toml"
        for fit in ("train", "folds"):
            file.write_text(settings(source, qrels, test, out, ledger, fit))
            stopgap("distill", str(file), *(["accept"] if fit == "folds" else []))
            found += rows(taught_by, fit, out)
    print(table(["taught by", "calibrated by", "who", *VALUES], found), flush=True)
    print(table(["fill", "judged a topic", "verdicts kept", "score error"],
                left_out(chosen.out / "0" / "labeler", ledger)), flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
