"""`stopgap fill` with one labeler on 24 pairs, 12 of them judged, in the working folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from harness.cli import main
from tiny_models import GRADES

__all__ = ["QUERY", "account_of", "fill", "numbered", "numbered_text", "pairs_of", "write_files"]

QUERY = "where do herons nest"


def pairs_of(texts: list[str], query: str = QUERY) -> pl.DataFrame:
    """PAIRS of one topic, with documents d0, d1 and so on."""
    ids = {"query_id": ["1"] * len(texts), "doc_id": [f"d{n}" for n in range(len(texts))]}
    return pl.DataFrame({**ids, "query": [query] * len(texts), "text": texts})


def numbered_text(number: int) -> str:
    """A document that says which one it is."""
    return f"document {number} about herons"


def numbered(number: int) -> pl.DataFrame:
    """PAIRS with so many such documents."""
    return pairs_of([numbered_text(n) for n in range(number)])


def write_files(text: Callable[[int], str] = lambda n: f"nest {n} " + "herons " * n) -> None:
    """The collection DIR with two topics, one.run with 12 documents of each, and qrels.txt with six.

    `text`: of a document, by its number.
    """
    folder = Path("DIR")
    folder.mkdir()
    (folder / "queries.tsv").write_text(f"1\t{QUERY}\n2\ta boat in the river\n")
    (folder / "grades.tsv").write_text("".join(f"{g}\t{w}\n" for g, w in GRADES.items()))
    docs = [json.dumps({"doc_id": f"d{n}", "text": text(n)}) for n in range(12)]
    (folder / "corpus.jsonl").write_text("\n".join(docs) + "\n")
    lines = [f"{q} Q0 d{n} {n + 1} {12 - n} one" for q in "12" for n in range(12)]
    Path("one.run").write_text("\n".join(lines) + "\n")
    judged = [f"{q} 0 d{n} {n % 4}" for q in "12" for n in range(6)]
    Path("qrels.txt").write_text("\n".join(judged) + "\n")


def fill(labeler: str, capture: pytest.CaptureFixture[str], *more: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr. `more`: options, as `--json`."""
    files = ["one.run", "--qrels", "qrels.txt", "--collection", "DIR", "--out", "filled.qrels"]
    code = main(["fill", *files, "--labeler", labeler, "--depth", "12", *more])
    told = capture.readouterr()
    assert "Traceback" not in told.err
    return code, told.out, told.err


def account_of(labeler: str, capture: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """The account of the one labeler of a filling that goes well; stdout holds nothing beside it."""
    code, out, err = fill(labeler, capture, "--json")
    assert code == 0, err
    (account,) = json.loads(out)["accounts"]
    return dict(account)
