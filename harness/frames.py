"""The six frames that everything else passes around, and `check`, which keeps them so.

Ids are always text: 007 is not 7. A frame may carry further columns (a filled qrels carries `probs`, an
encoder's signals carry `features` and `vector`); `check` asks only for the columns of the schema, in its
types.
"""

from __future__ import annotations

from difflib import get_close_matches

import polars as pl

from harness.errors import SchemaError

__all__ = [
    "EXAMPLES", "LABELS", "PAIRS", "QRELS", "RUN", "SIGNALS", "TOPICS", "Runs", "check", "empty", "labels_in",
]  # fmt: skip

Schema = dict[str, pl.DataType]
Runs = dict[str, pl.DataFrame]
"""Name of a run -> its RUN frame."""

_text, _probs = pl.String(), pl.List(pl.Float32())

TOPICS: Schema = {"query_id": _text, "text": _text}
RUN: Schema = {"query_id": _text, "doc_id": _text, "score": pl.Float64(), "rank": pl.UInt32()}
"""`rank` counts from 0 and is computed (`ranking.rank`), never taken from a file."""
QRELS: Schema = {
    "query_id": _text,
    "doc_id": _text,
    "relevance": pl.Int16(),
    "gain": pl.Float32(),
    "assessor": _text,
}
"""`gain` is the expected gain and equals `relevance` for an assessor; `assessor` is `human` or a label's
id."""
PAIRS: Schema = {"query_id": _text, "doc_id": _text, "query": _text, "text": _text}
EXAMPLES = pl.List(pl.Struct({"text": pl.String(), "grade": pl.Int16()}))
"""Type of the column `examples` of PAIRS, for labelers that want it: judged documents of the topic."""
SIGNALS: Schema = {
    "query_id": _text,
    "doc_id": _text,
    "probs": _probs,
    "score": pl.Float32(),
    "labeler": _text,
    "reason": _text,
}
"""`probs` over the grades in ascending order, or null; `score` or null; `reason` says why there is
neither."""
LABELS: Schema = {
    "query_id": _text,
    "doc_id": _text,
    "relevance": pl.Int16(),
    "probs": _probs,
    "gain": pl.Float32(),
    "labeler": _text,
    "reason": _text,
}
"""`relevance` null means no label: the pair stays a hole. It never means grade 0."""


def check(frame: pl.DataFrame, schema: Schema, name: str = "frame") -> pl.DataFrame:
    """Return `frame` if it has every column of `schema` in its type.

    A column that is wholly null takes the schema's type, so that a frame built from literals passes.

    Raises
    ------
    SchemaError: names the missing columns with their nearest neighbours, or the types that differ.
    """
    missing = [c for c in schema if c not in frame.columns]
    if missing:
        near = {c: get_close_matches(c, frame.columns, n=1, cutoff=0.4) for c in missing}
        words = [f"{c!r}" + (f" (did you mean {near[c][0]!r}?)" if near[c] else "") for c in missing]
        raise SchemaError(
            f"{name} lacks {', '.join(words)}; it has {', '.join(frame.columns) or 'no columns'}"
        )
    null = [c for c, t in schema.items() if frame.schema[c] == pl.Null and t != pl.Null]
    if null:
        frame = frame.with_columns(pl.col(c).cast(schema[c]) for c in null)
    wrong = [f"{c} is {frame.schema[c]}, not {t}" for c, t in schema.items() if frame.schema[c] != t]
    if wrong:
        raise SchemaError(f"{name}: {'; '.join(wrong)}")
    return frame


def empty(schema: Schema) -> pl.DataFrame:
    """A frame of `schema` with no rows."""
    return pl.DataFrame(schema=schema)


def labels_in(qrels: pl.DataFrame) -> pl.DataFrame:
    """The rows of QRELS that are labels: those whose assessor is not `human`; all, where none is marked."""
    marked = qrels.filter(pl.col("assessor") != "human")
    return marked if marked.height else qrels
