"""Labelers for Ray's workers: each says in a file which process was asked about which document."""

from __future__ import annotations

import os
import signal
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl


class Seen:
    """Its signal is a hash of the texts. What it does besides stands in the text of a document."""

    name, needs_text = "seen", True

    def __init__(self, argument: str | None = None, grades: dict[int, str] | None = None) -> None:
        self.grades, self.fingerprint = grades or {}, "5ee11" * 8
        self.requests = 0

    def signal(self, pairs: pl.DataFrame) -> pl.DataFrame:
        texts = pairs["text"].to_list()
        for text in texts:
            if text.startswith("deadly"):
                self.die()
            if text.startswith("always deadly"):
                os.kill(os.getpid(), signal.SIGKILL)
            if text.startswith("broken"):
                raise ValueError("broken text")
        with Path("asked.txt").open("a") as stream:
            stream.writelines(f"{os.getpid()} {doc}\n" for doc in pairs["doc_id"])
        self.requests += pairs.height
        grade = [sha256(text.encode()).digest()[0] % len(self.grades) for text in texts]
        cannot = pl.col("text").str.starts_with("unreadable")
        return pairs.with_columns(
            pl.Series("probs", np.eye(len(self.grades))[grade].tolist(), pl.List(pl.Float32))
        ).select(
            "query_id",
            "doc_id",
            pl.when(~cannot).then("probs"),
            pl.lit(None, pl.Float32).alias("score"),
            pl.when(cannot).then(pl.lit("cannot read this")).alias("reason"),
        )

    def usage(self) -> dict[str, Any]:
        return {"requests": self.requests, "tokens_in": 10 * self.requests, "tokens_out": 0}

    @staticmethod
    def die() -> None:
        """End this process, the first time that any worker comes here."""
        try:
            with Path("died.txt").open("x") as stream:
                stream.write(str(os.getpid()))
        except FileExistsError:
            return
        os.kill(os.getpid(), signal.SIGKILL)


class Changing(Seen):
    """Another labeler in every process."""

    def __init__(self, argument: str | None = None, grades: dict[int, str] | None = None) -> None:
        super().__init__(argument, grades)
        self.fingerprint = f"{os.getpid():08}"
