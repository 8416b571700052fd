"""How well a student trained on one collection's judgments ranks the pairs of another: the table of
docs/distill-training.md.

    python tests/quality/distill_training.py '{"tokens": 48, "bf16": true}' --pairs 480

The argument is the section [train] as JSON. STOPGAP_DATA names the folder of the collections.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path

import numpy as np
import polars as pl

from harness.collection import open_collection
from labelers.distill.students import build
from labelers.distill.train import STUDENT, train
from labelers.distill.train_data import Taught, as_taught
from labelers.distill.train_log import agreement
from labelers.distill.train_settings import Train


def drawn(name: str, number: int) -> tuple[dict[int, str], list[Taught]]:
    """A collection's grades, and so many of its judged pairs, by chance."""
    collection = open_collection(str(Path(os.environ["STOPGAP_DATA"]) / name))
    ids, scale = ["query_id", "doc_id"], sorted(collection.grades)
    judged = collection.qrels("human").filter(pl.col("relevance").is_in(scale)).sort(ids)
    judged = judged.sample(min(number, judged.height), seed=0, shuffle=True).select(*ids, "relevance")
    pairs = collection.pairs(judged.select(ids)).join(judged, on=ids, maintain_order="left")
    probs = [[float(grade == given) for grade in scale] for given in pairs["relevance"]]
    targets = pairs.with_columns(pl.Series("probs", probs), weight=pl.lit(1.0), source=pl.lit("human"))
    return collection.grades, as_taught(targets.filter(pl.col("text").str.len_chars() > 0), scale)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("settings", type=json.loads)
    parser.add_argument("--train", default="llmjudge")
    parser.add_argument("--test", default="dl19_passage")
    parser.add_argument("--pairs", type=int, default=2000)
    parser.add_argument("--test-pairs", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    import torch

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        grades, taught = drawn(given.train, given.pairs)
        _, test = drawn(given.test, given.test_pairs)
        settings = Train.model_validate({"student": "cross-encoder", **given.settings})
        told = train(settings, taught, out, grades=grades, seed=given.seed)
        student = build(settings.model_copy(update={"model": str(out / STUDENT), "lora": None}), grades)
        student.module.eval()
        with torch.no_grad():
            parts = [student.logits(test[n : n + 32]).softmax(1).numpy() for n in range(0, len(test), 32)]
    found = agreement(np.concatenate(parts), np.array([pair.probs for pair in test]), sorted(grades))
    kept = {key: told[key] for key in ("start", "dev", "best_epoch", "steps", "seconds")}
    print(json.dumps({given.test: found, **kept}, indent=1))


if __name__ == "__main__":
    main()
