"""What goes into PyTerrier and comes out of it: frames, words, and the noise of its engines.

Nothing here imports PyTerrier; `harness.retrieve` does.
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

import polars as pl

from harness.errors import MissingExtra, SchemaError, StopgapError, UsageError
from harness.frames import QRELS, TOPICS, check
from harness.ranking import rank

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["as_run", "frame_ids", "from_pyterrier", "imported", "plain_words", "quiet", "to_pyterrier"]

_KINDS = "a run (query_id, doc_id, score), qrels (query_id, doc_id, relevance) or topics (query_id, text)"
_THEIRS = "results (qid, docno, score), qrels (qid, docno, label) or topics (qid, query)"


def to_pyterrier(frame: pl.DataFrame) -> pd.DataFrame:
    """A RUN, QRELS or TOPICS as the pandas frame that PyTerrier takes.

    RUN -> qid, docno, score, rank. QRELS -> qid, docno, label (the grade, whole), gain, assessor.
    TOPICS -> qid, query.

    Raises
    ------
    UsageError: the frame is none of them. MissingExtra: pandas is not installed.
    """
    try:
        import pandas as pd
    except ImportError as error:
        raise MissingExtra("pandas", "retrieve") from error
    names = {"query_id": "qid", "doc_id": "docno"}
    has = {*frame.columns}
    if {"query_id", "doc_id", "score"} <= has:
        names |= {"score": "score", "rank": "rank"}
    elif {"query_id", "doc_id", "relevance"} <= has:
        names |= {"relevance": "label", "gain": "gain", "assessor": "assessor"}
    elif {"query_id", "text"} <= has:
        names = {"query_id": "qid", "text": "query"}
    else:
        raise UsageError(f"no frame for PyTerrier: it has {', '.join(frame.columns)}; wanted is {_KINDS}")
    kept = {c: frame[c] for c in names if c in has}
    # a list for texts: polars would need pyarrow to hand them over
    return pd.DataFrame(
        {names[c]: v.to_list() if v.dtype == pl.String else v.to_numpy() for c, v in kept.items()}
    )


def from_pyterrier(frame: pd.DataFrame) -> pl.DataFrame:
    """A PyTerrier frame as RUN (if it has `score`), QRELS (`label`) or TOPICS (`query`); ids become text.

    Ranks are computed anew from the scores. Without `gain` a label is its own gain, and without `assessor`
    it is `human`.

    Raises
    ------
    UsageError: the frame is none of them. SchemaError: a score is missing or not finite, a document is there
        twice, or a label is no whole number.
    """
    has = {*map(str, frame.columns)}
    if {"qid", "docno", "score"} <= has:
        return rank(pl.DataFrame({**frame_ids(frame), "score": _numbers(frame, "score", pl.Float64())}))
    if {"qid", "docno", "label"} <= has:
        relevance = _numbers(frame, "label", QRELS["relevance"])
        gain = _numbers(frame, "gain" if "gain" in has else "label", QRELS["gain"])
        assessor = pl.Series([str(v) for v in frame["assessor"].tolist()]) if "assessor" in has else "human"
        qrels = pl.DataFrame({**frame_ids(frame), "relevance": relevance, "gain": gain, "assessor": assessor})
        return check(qrels, QRELS, "qrels")
    if {"qid", "query"} <= has:
        return pl.DataFrame({**frame_ids(frame), "text": frame["query"].tolist()}, schema=TOPICS)
    raise UsageError(f"no frame of PyTerrier's: it has {', '.join(sorted(has))}; wanted is {_THEIRS}")


def as_run(results: pd.DataFrame, topics: pl.DataFrame, name: str) -> pl.DataFrame:
    """What the pipeline `name` gave for `topics` as RUN.

    Raises
    ------
    UsageError: it is no ranking, and why.
    """
    if not hasattr(results, "columns"):
        raise UsageError(f"pipeline {name} gives no ranking: a {type(results).__name__}, not a frame")
    missing = [c for c in ("qid", "docno", "score") if c not in results.columns]
    if missing:
        has = ", ".join(map(str, results.columns)) or "nothing"
        raise UsageError(f"pipeline {name} gives no ranking: it lacks {', '.join(missing)}; it has {has}")
    if strange := {str(q) for q in results["qid"].tolist()} - set(topics["query_id"]):
        raise UsageError(f"pipeline {name} gives documents for {min(strange)!r}, which it was not asked")
    try:
        run = from_pyterrier(results[["qid", "docno", "score"]])
    except StopgapError as error:
        raise UsageError(f"pipeline {name} gives no ranking: {error}") from error
    return run


def frame_ids(frame: pd.DataFrame) -> dict[str, pl.Series]:
    """The ids of a frame of PyTerrier's under our names, as text.

    Raises
    ------
    SchemaError: one is missing.
    """
    ours = {"qid": "query_id", "docno": "doc_id"}
    for column in {*ours} & {*frame.columns}:
        _no_gaps(frame, column)
    # a list first: going through pandas' own texts one by one takes ten times as long
    return {
        o: pl.Series([str(v) for v in frame[c].tolist()], dtype=pl.String)
        for c, o in ours.items()
        if c in frame
    }


def _numbers(frame: pd.DataFrame, column: str, dtype: pl.DataType) -> pl.Series:
    _no_gaps(frame, column)
    try:
        numbers = pl.Series([float(v) for v in frame[column].tolist()], dtype=pl.Float64)
    except (TypeError, ValueError) as error:
        raise SchemaError(f"{column} is not all numbers: {error}") from error
    if dtype.is_integer() and not (numbers == numbers.floor()).all():
        raise SchemaError(f"a {column} is no whole number: {numbers.filter(numbers != numbers.floor())[0]}")
    return numbers.cast(dtype)


def _no_gaps(frame: pd.DataFrame, column: str) -> None:
    missing = frame[column].isna()
    if missing.any():
        raise SchemaError(f"{column} is missing at row {int(missing.to_numpy().argmax())}")


def imported(spec: str, module: str, path: str) -> Any:
    """The object at `path` in `module`, which may be one of the folder that one is in.

    Raises
    ------
    UsageError: it cannot be imported, and why.
    """
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # a command's path, unlike Python's own, lacks the folder one is in
    try:
        found: Any = import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except StopgapError:
        raise
    except Exception as error:
        raise UsageError(f"pipeline {spec!r} cannot be imported: {type(error).__name__}: {error}") from error
    return found


def plain_words(text: str) -> str:
    """`text` in ASCII, which is all that PISA's tokenizer keeps; for documents and queries alike.

    Accents go (`café` is `cafe`), ligatures and full-width letters become plain ones, `ß` is `ss`. A word
    in another script becomes a word made of its letters' numbers, so that it is found by itself and nothing
    else; in scripts without spaces between words, and in Korean, each letter becomes a word. Signs become
    spaces, NUL among them, at which PISA would stop.
    """
    if text.isascii():
        return text.replace("\0", " ")
    plain = _ACCENTS.sub("", unicodedata.normalize("NFKD", text.casefold()))
    return _NOT_ASCII.sub(_spelled, unicodedata.normalize("NFC", plain))


_ACCENTS = re.compile("[\u0300-\u036f]")
_NOT_ASCII = re.compile("[^\x01-\x7f]")
# Thai to Myanmar, Khmer, CJK radicals to the end of Hangul, CJK compatibility, CJK of later planes
_UNSPACED = ((0x0E00, 0x109F), (0x1780, 0x17FF), (0x2E80, 0xD7FF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF))


def _spelled(found: re.Match[str]) -> str:
    letter = found.group()
    if unicodedata.category(letter)[0] not in "LMN":
        return " "
    number = ord(letter)
    name = f"u{number}"  # it ends in a digit: no stemmer touches it
    return f" {name} " if any(low <= number <= high for low, high in _UNSPACED) else name


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what native code writes to the process's stdout and stderr from getting there (PISA's log).

    It works on the file descriptors, so what other threads write meanwhile is lost as well.
    """
    c_library = ctypes.CDLL(None)
    sys.stdout.flush()
    sys.stderr.flush()
    c_library.fflush(None)
    kept = {descriptor: os.dup(descriptor) for descriptor in (1, 2)}
    try:
        with open(os.devnull, "wb") as nothing:
            for descriptor in kept:
                os.dup2(nothing.fileno(), descriptor)
        yield
    finally:
        c_library.fflush(None)
        for descriptor, copy in kept.items():
            os.dup2(copy, descriptor)
            os.close(copy)
