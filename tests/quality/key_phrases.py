"""How BM25 ranks the document that a key-phrase query was written from: a row of a table in docs/distill.md.

python tests/quality/key_phrases.py COLLECTION QUERIES
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl

from harness.collection import open_collection
from harness.frames import TOPICS
from harness.retrieve import retrieve
from labelers.distill.negatives import Asked
from labelers.distill.run import distill

DEPTH = 1000


def main(name: str, number: str) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "distill.toml"
        known = name if name == "demo" or name.startswith("irds:") else str(Path(name).resolve())
        settings = f"collection = {json.dumps(known)}\nout = 'made'\n[synthesize]\nqueries = {int(number)}\n"
        path.write_text(settings)
        distill(path, ["synthesize"])
        rows = [json.loads(line) for line in (Path(folder) / "made" / "queries.jsonl").open()]
    collection = open_collection(known)
    asked = pl.DataFrame([(row["query_id"], row["query"]) for row in rows], schema=TOPICS, orient="row")
    seeds = pl.DataFrame(rows).select("query_id", "doc_id")
    run = retrieve(Asked(collection, asked), "bm25", DEPTH).join(seeds, on=["query_id", "doc_id"])
    place = run["rank"].to_numpy() + 1  # TREC's ranks begin with 0
    first, ten, reciprocal = ((place == 1).sum(), (place <= 10).sum(), (1 / place).sum())
    size = f"{collection.size:,}"
    shares = f"{first / len(rows):.2f} | {ten / len(rows):.2f} | {reciprocal / len(rows):.3f}"
    print(f"| {collection.name} ({size} documents) | {len(rows)} | {shares} |")


if __name__ == "__main__":
    main(*sys.argv[1:])
