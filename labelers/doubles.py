"""Labelers that look at no text: the baselines `constant` and `lookup`, and the doubles of tests.

They answer at once and cost nothing to ask again, so their signals never go to a ledger (`needs_text` is
False).
"""

from __future__ import annotations

from hashlib import sha256

import polars as pl

from harness.errors import InputError, UsageError
from harness.frames import SIGNALS
from harness.trec import file_hash, read_qrels

__all__ = ["Constant", "Lookup"]


class Constant:
    """The same grade for every pair: `constant:GRADE`.

    Parameters
    ----------
    argument: the grade, one of the collection's. grades: the collection's grades and their words.

    Raises
    ------
    UsageError: `argument` is no grade of the collection.
    """

    name = "constant"
    needs_text = False

    def __init__(self, argument: str | None, grades: dict[int, str]) -> None:
        try:
            self.grade = int(argument or "")
        except ValueError:
            raise UsageError(
                f"constant needs a whole grade, not {argument!r}: constant:GRADE with one of {_scale(grades)}"
            ) from None
        if self.grade not in grades:
            raise UsageError(f"constant:{self.grade} is not a grade of this collection: {_scale(grades)}")
        self.grades = grades
        self.fingerprint = sha256(f"constant {self.grade} of {_scale(grades)}".encode()).hexdigest()

    def signal(self, pairs: pl.DataFrame) -> pl.DataFrame:
        """All of the probability on the one grade (SIGNALS)."""
        probs = [float(grade == self.grade) for grade in sorted(self.grades)]
        return pairs.select(
            "query_id",
            "doc_id",
            pl.lit(probs, dtype=SIGNALS["probs"]).alias("probs"),
            *_rest(self.name, pl.lit(None, dtype=pl.String)),
        )


class Lookup:
    """The grades that a qrels file gives: `lookup:FILE`.

    A pair that is not in the file, or whose grade there is not on the collection's scale, gets no signal and
    the reason; a grade is never clipped to the scale.

    Parameters
    ----------
    argument: path of the file, in any form that `trec.read_qrels` reads. grades: the collection's grades and
        their words.

    Raises
    ------
    UsageError: no file is named. InputError: the file cannot be read, or grades a pair twice.
    """

    name = "lookup"
    needs_text = False

    def __init__(self, argument: str | None, grades: dict[int, str]) -> None:
        if not argument:
            raise UsageError("lookup needs a qrels file: lookup:FILE")
        self.file, self.grades = argument, grades
        qrels = read_qrels(argument)
        twice = qrels.filter(pl.struct("query_id", "doc_id").is_duplicated())
        if twice.height:
            raise InputError(argument, None, f"grades {twice['query_id'][0]} {twice['doc_id'][0]} twice")
        self._grades = qrels.select("query_id", "doc_id", "relevance")
        self.fingerprint = sha256(f"lookup {file_hash(argument)} of {_scale(grades)}".encode()).hexdigest()

    def signal(self, pairs: pl.DataFrame) -> pl.DataFrame:
        """All of the probability on the file's grade, or null and why (SIGNALS)."""
        found = pairs.select("query_id", "doc_id").join(
            self._grades, on=["query_id", "doc_id"], how="left", maintain_order="left"
        )
        grade, scale = pl.col("relevance"), sorted(self.grades)
        return found.select(
            "query_id",
            "doc_id",
            pl.when(grade.is_in(scale))
            .then(pl.concat_list((grade == g).cast(pl.Float32) for g in scale))
            .otherwise(None)
            .alias("probs"),
            *_rest(
                self.name,
                pl.when(grade.is_null())
                .then(pl.lit(f"not in {self.file}"))
                .when(~grade.is_in(scale))
                .then(
                    pl.format(
                        f"grade {{}} in {{}} is not on the scale {_scale(self.grades)}",
                        grade,
                        pl.lit(self.file),
                    )
                )
                .otherwise(None),
            ),
        )


def _scale(grades: dict[int, str]) -> str:
    return ", ".join(str(grade) for grade in sorted(grades))


def _rest(name: str, reason: pl.Expr) -> list[pl.Expr]:
    return [
        pl.lit(None, dtype=pl.Float32).alias("score"),
        pl.lit(name).alias("labeler"),
        reason.cast(pl.String).alias("reason"),
    ]
