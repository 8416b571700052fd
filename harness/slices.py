"""Slices of the topics: those of one kind, the frequent ones, the long ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from harness.arrays import Bools
from harness.errors import InputError, UsageError

__all__ = ["masks", "read_slices"]

_THIRDS = 6  # a column of numbers with more different ones than this is cut into thirds


def read_slices(path: str | Path) -> pl.DataFrame:
    """A tab-separated file with a header: query_id and one or more columns to slice by.

    Raises
    ------
    InputError: the file cannot be read, has no query_id or no other column, or has a topic twice.
    """
    try:
        table = pl.read_csv(path, separator="\t", infer_schema=False, quote_char=None)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise InputError(
            path, None, f"cannot be read as tab-separated columns with a header ({error})"
        ) from None
    if "query_id" not in table.columns or table.width < 2:
        raise InputError(
            path, 1, f"has the columns {', '.join(table.columns)}; query_id and one more are needed"
        )
    if not (first := table["query_id"].is_first_distinct()).all():
        row = int(np.flatnonzero(~first.to_numpy())[0])
        raise InputError(path, row + 2, f"topic {table['query_id'][row]!r} stands here a second time")
    return table


def masks(slices: pl.DataFrame, topics: Sequence[str]) -> dict[str, Bools]:
    """Name of a slice (`kind=fact`) -> which of the topics are in it; only slices with a topic.

    A column of text makes a slice of each of its values; one of numbers, if it has more than six different
    ones, makes three of about the same size (`length=3-5`). A topic without a value is in no slice.

    Raises
    ------
    UsageError: there is no column query_id, a topic is there twice, or none of the topics has a row.
    """
    if "query_id" not in slices.columns:
        raise UsageError(f"slices need a column query_id; there are {', '.join(slices.columns)}")
    if not (first := slices["query_id"].is_first_distinct()).all():
        raise UsageError(f"the slices have topic {slices['query_id'].filter(~first)[0]!r} more than once")
    rows = pl.DataFrame({"query_id": topics}, schema={"query_id": pl.String}).join(
        slices.with_columns(pl.col("query_id").cast(pl.String)),
        on="query_id",
        how="left",
        maintain_order="left",
    )
    if not rows.select(pl.any_horizontal(pl.exclude("query_id").is_not_null()).any()).item():
        raise UsageError(
            f"the slices have none of the {len(topics)} topics; the first of theirs is "
            f"{slices['query_id'][0]!r}, of the qrels {topics[0]!r}"
        )
    found: dict[str, Bools] = {}
    for column in slices.columns:
        if column != "query_id":
            found |= _of_column(column, rows[column])
    return found


def _of_column(name: str, values: pl.Series) -> dict[str, Bools]:
    numbers = values.cast(pl.Float64, strict=False)
    if numbers.null_count() == values.null_count() and numbers.n_unique() > _THIRDS:
        known = np.sort(numbers.drop_nulls().to_numpy())
        cuts = [known[len(known) * i // 3] for i in range(3)]
        places = np.searchsorted(cuts, numbers.fill_null(np.nan).to_numpy(), side="right") - 1
        places[numbers.is_null().to_numpy()] = -1
        found = {}
        for third in range(3):
            inside = places == third
            if inside.any():
                those = numbers.to_numpy()[inside]
                found[f"{name}={those.min():g}-{those.max():g}"] = inside
        return found
    return {
        f"{name}={value}": (values == value).fill_null(False).to_numpy()
        for value in values.drop_nulls().unique().sort()
    }
