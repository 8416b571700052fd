"""Real collections: every official score, and trec_eval's own on the same files."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import ir_measures
import pytest
from ir_measures import AP, RR, Bpref, P, R, Rprec, Success, nDCG

from harness.measure import measure
from harness.trec import read_qrels


def official(folder: Path) -> dict[str, str]:
    with open(folder / "runs_meta.tsv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    return {row["run"]: row["official_ndcg@10"] for row in rows if row["official_ndcg@10"]}


@pytest.mark.parametrize(
    ("name", "runs"), [("dl19_passage", 36), ("dl21_passage_runs", 63), ("trec_covid_r1", 143)]
)
def test_every_official_ndcg_to_four_decimals(data_dir: Path, name: str, runs: int) -> None:
    expected = official(data_dir / name)
    assert len(expected) == runs
    files = {run: data_dir / name / "runs" / f"{run}.run.gz" for run in expected}
    found = measure(files, read_qrels(data_dir / name / "qrels.human.txt"), ["nDCG@10"])
    assert {run: f"{numbers['nDCG@10']:.4f}" for run, numbers in found.runs.items()} == expected


@pytest.mark.parametrize("name", ["dl19_passage", "dl21_passage_runs", "trec_covid_r1"])
def test_equals_trec_eval_on_real_files(data_dir: Path, name: str) -> None:
    measures = [nDCG, nDCG @ 20, AP, AP(rel=2) @ 50, RR(rel=2), P @ 5, R @ 100, Success @ 1, Rprec, Bpref]
    judged = data_dir / name / "qrels.human.txt"
    files = {path.name: path for path in sorted((data_dir / name / "runs").iterdir())[::12]}
    found = measure(files, read_qrels(judged), [str(m) for m in measures]).per_topic
    evaluator = ir_measures.pytrec_eval.evaluator(measures, ir_measures.read_trec_qrels(str(judged)))
    for run, path in files.items():
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            theirs = evaluator.iter_calc(ir_measures.read_trec_run(lines))
            expected = {(str(m.measure), m.query_id): m.value for m in theirs}
        ours = {(m, q): v for name, q, m, v in found.iter_rows() if name == run}
        assert ours == pytest.approx(expected, abs=1e-6), run
