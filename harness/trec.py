"""TREC runs and qrels: read, write, name. Plain text, .gz, .zst and .parquet, chosen by suffix.

Qrels have a twin: text holds one integer grade a pair, so what a filled qrels says beyond that (expected
gain, grade distribution, which labeler) stands in `<path>.parquet`, beside the sha256 of the text. The twin
is used only while that hash still fits the text.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from glob import glob
from pathlib import Path
from typing import IO

import polars as pl

from harness.errors import InputError, SchemaError, StopgapWarning, UsageError
from harness.frames import QRELS, Runs, check
from harness.ranking import rank, repeated, top
from harness.trec_bytes import compress, file_hash, is_parquet, replace_file
from harness.trec_read import (
    Block,
    open_parquet,
    problem,
    qrels_rows,
    ranked_blocks,
    read_run,
    run_blocks,
)

__all__ = [
    "Block",
    "file_hash",
    "qrels_agreement",
    "qrels_grades",
    "ranked_blocks",
    "read_qrels",
    "read_run",
    "read_runs",
    "run_blocks",
    "run_name",
    "run_paths",
    "twin_hash",
    "twin_path",
    "write_qrels",
    "write_run",
]

_SUFFIXES = {".run", ".txt", ".trec", ".res", ".gz", ".zst", ".parquet"}
_HASH, _GRADES, _AGREEMENT, _TAG = "stopgap.sha256", "grades", "agreement", "tag"
_SLICE = 1 << 17  # rows turned into text at a time


# ------------------------------------------------------------------------------------------------ runs


def run_name(path: str | Path) -> str:
    """A run's name: its file's, less .run, .txt, .trec, .res, .parquet, .gz and .zst at the end."""
    name = Path(path).name
    while (dot := name.rfind(".")) > 0 and name[dot:] in _SUFFIXES:
        name = name[:dot]
    return name


def run_paths(paths: Iterable[str | Path]) -> dict[str, Path]:
    """Name -> file of each run, in the order given.

    A pattern (`runs/*.run.gz`) that the shell did not expand is expanded here; metadata twins (`*.meta.yaml`)
    among the files are passed over.

    Raises
    ------
    InputError: no file, a pattern that fits nothing, or two files of one name.
    """
    found: dict[str, Path] = {}
    for given in paths:
        text = str(given)
        matches = [text]
        if not os.path.exists(text) and any(c in text for c in "*?["):
            matches = sorted(glob(text, recursive=True))
            if not matches:
                raise InputError(text, None, "no file fits this pattern")
        for match in matches:
            if match.endswith(".meta.yaml"):
                continue
            name, path = run_name(match), Path(match)
            if name in found:
                what = f"the run is named {name!r}, as is {found[name]}"
                raise InputError(path, None, what, "Next: rename one of the two files, or name it once")
            found[name] = path
    if not found:
        raise UsageError("no runs are given. Next: name at least one run file")
    return found


def read_runs(paths: Iterable[str | Path], depth: int | None = None) -> Runs:
    """Name -> RUN of each run file (`run_paths`, `read_run`); of each topic the first `depth` rows.

    Raises
    ------
    InputError: as `run_paths` and `read_run`; of several bad files, the first given.
    """
    files = run_paths(paths)

    def read(path: Path) -> pl.DataFrame:
        run = read_run(path)
        return run if depth is None else top(run, depth)

    with ThreadPoolExecutor(min(len(files), os.cpu_count() or 1)) as pool:
        return dict(zip(files, pool.map(read, files.values()), strict=True))


def write_run(frame: pl.DataFrame, path: str | Path, tag: str) -> None:
    """Write query_id, doc_id and score as a run: ranked anew (`ranking.rank`), scores to the last bit.

    The file appears whole or not at all. Parquet holds the three columns, with `tag` in its key-value
    metadata.

    Raises
    ------
    SchemaError: as `rank`; there are no rows; or an id cannot stand in TREC text (empty, white space, control
        characters, a query_id that starts with `#` or a byte order mark).
    UsageError: the tag is empty or holds white space or control characters.
    """
    if len(tag.split()) != 1 or any(c <= " " for c in tag):
        raise UsageError(f"a run's tag is one word without white space, not {tag!r}")
    run = rank(frame)
    if not run.height:
        raise SchemaError("run: no rows to write")
    if is_parquet(path):
        with replace_file(path) as file:
            run.drop("rank").write_parquet(file, metadata={_TAG: tag})
        return
    _check_ids(run, "run")
    text = run.select(
        "query_id", pl.lit("Q0"), "doc_id", rank=pl.col("rank") + 1, score="score", tag=pl.lit(tag)
    )
    with replace_file(path) as file:
        _write_text(text, file, path)


# ----------------------------------------------------------------------------------------------- qrels


def twin_path(path: str | Path) -> Path:
    """Where the Parquet twin of a qrels in text stands."""
    return Path(f"{path}.parquet")


def twin_hash(path: str | Path) -> str | None:
    """The sha256 that the twin of a qrels says its text has, "" if it says none; None if there is no twin."""
    twin = twin_path(path)
    return _metadata(twin).get(_HASH, "") if twin.exists() else None


def read_qrels(path: str | Path) -> pl.DataFrame:
    """Qrels, TREC text (plain, .gz, .zst) or .parquet, as QRELS, in file order.

    From text alone gain is the grade, and assessor is `label` where column 2 is `1`, else `human`. Text with
    a twin that fits is read from the twin, with its further columns (`probs`). A pair that is there several
    times with one grade and column 2 is read once, with a warning.

    Warns
    -----
    StopgapWarning: repeated lines; a twin that is not of this text.

    Raises
    ------
    InputError: the file cannot be read; or at the first line that cannot be used, which is one with another
        number of columns than four, a grade that is no integer, bytes that are not UTF-8, or a pair that had
        another grade or column 2 before.
    """
    if is_parquet(path):
        return _read_parquet(path)
    said = twin_hash(path)
    if said is not None:
        twin = twin_path(path)
        if said == file_hash(path):
            return _read_parquet(twin)
        message = (
            f"{twin} does not belong to {path} as it is now; read the text alone, without gains and labelers"
        )
        warnings.warn(message, StopgapWarning, stacklevel=2)
    rows = qrels_rows(path)
    if len(again := repeated(rows)):
        kept = rows.unique(subset=["query_id", "doc_id"], keep="first", maintain_order=True)
        columns = ["query_id", "doc_id", "relevance", pl.col("mark") == "1"]
        if rows.select(columns).unique().height > kept.height:
            raise problem(path, "qrels")
        message = f"{path}: {len(again)} repeated lines (same pair, same grade) were read once"
        warnings.warn(message, StopgapWarning, stacklevel=2)
        rows = kept
    return rows.select(
        "query_id",
        "doc_id",
        "relevance",
        gain=pl.col("relevance").cast(pl.Float32),
        assessor=pl.when(pl.col("mark") == "1").then(pl.lit("label")).otherwise(pl.lit("human")),
    )


def write_qrels(
    frame: pl.DataFrame,
    path: str | Path,
    *,
    grades: Sequence[int] | None = None,
    agreement: Mapping[str, float] | None = None,
) -> None:
    """Write QRELS (and further columns, as `probs`) in the order of the rows.

    TREC text has 0 in column 2 for `human` and 1 for any other assessor. If the frame says more than that (a
    labeler's name, a gain beside the grade, further columns) its twin is written too; otherwise an old twin
    of ours is removed. Each file appears whole or not at all, the twin first.

    Parameters
    ----------
    grades: the grades that `probs` stands over, ascending, when they are not 0, 1, 2, …; `qrels_grades` reads
        them back.
    agreement: figures of how well the labels agree with the judgments; `qrels_agreement` reads them back.

    Raises
    ------
    SchemaError: a column of QRELS is missing or null, there are no rows, a gain is not finite, a pair is
        there twice, or an id cannot stand in TREC text.
    """
    frame = check(frame, QRELS, "qrels")
    if not frame.height:
        raise SchemaError("qrels: no rows to write")
    frame = frame.select(*QRELS, pl.exclude(*QRELS))
    for column in QRELS:
        if frame[column].null_count():
            raise SchemaError(f"qrels: {column} is null at row {frame[column].is_null().arg_true()[0]}")
    if not frame["gain"].is_finite().all():
        raise SchemaError(f"qrels: gain is no number at row {(~frame['gain'].is_finite()).arg_true()[0]}")
    if len(again := repeated(frame)):
        query_id, doc_id = frame.row(int(again[0]))[:2]
        raise SchemaError(f"qrels: topic {query_id!r} has document {doc_id!r} twice")
    metadata = {_GRADES: ",".join(map(str, grades))} if grades is not None else {}
    if agreement:
        metadata[_AGREEMENT] = json.dumps(dict(agreement))
    if is_parquet(path):
        with replace_file(path) as file:
            frame.write_parquet(file, metadata=metadata)
        return
    _check_ids(frame, "qrels")
    mark = pl.when(pl.col("assessor") == "human").then(pl.lit("0")).otherwise(pl.lit("1"))
    twin = twin_path(path)
    plain = frame.select(
        ((pl.col("assessor") == "human") & (pl.col("gain") == pl.col("relevance"))).all()
    ).item() and frame.width == len(QRELS)
    text = io.BytesIO()
    _write_text(frame.select("query_id", mark, "doc_id", "relevance"), text, path)
    with replace_file(path) as file:
        file.write(text.getvalue())
        if not plain or metadata:
            metadata[_HASH] = hashlib.sha256(text.getvalue()).hexdigest()
            with replace_file(twin) as beside:
                frame.write_parquet(beside, metadata=metadata)
    if plain and not metadata and twin_hash(path):
        twin.unlink()


def qrels_grades(path: str | Path) -> list[int] | None:
    """The grades that `probs` of a qrels stands over, if `write_qrels` was given them (text: its twin's)."""
    file = Path(path) if is_parquet(path) else twin_path(path)
    said = _metadata(file).get(_GRADES) if file.exists() else None
    return [int(grade) for grade in said.split(",")] if said else None


def qrels_agreement(path: str | Path) -> dict[str, float] | None:
    """How well the labels of a qrels agree with its judgments, if `write_qrels` was given it."""
    file = Path(path) if is_parquet(path) else twin_path(path)
    said = _metadata(file).get(_AGREEMENT) if file.exists() else None
    return {str(name): float(value) for name, value in json.loads(said).items()} if said else None


def _read_parquet(path: str | Path) -> pl.DataFrame:
    lazy = open_parquet(path, ["query_id", "doc_id", "relevance"])
    has = lazy.collect_schema()
    if has["relevance"].is_float():
        raise InputError(path, None, f"relevance is {has['relevance']}, not an integer")
    if "gain" not in has:
        lazy = lazy.with_columns(gain=pl.col("relevance"))
    if "assessor" not in has:
        lazy = lazy.with_columns(assessor=pl.lit("human"))
    types = {c: pl.col(c).cast(t) for c, t in QRELS.items()}
    if "probs" in has:
        types["probs"] = pl.col("probs").cast(pl.List(pl.Float32))
    try:
        frame = lazy.with_columns(**types).select(*QRELS, pl.exclude(*QRELS)).collect()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InputError(path, None, f"holds what a qrels cannot: {str(error).splitlines()[0]}") from None
    if not frame.height:
        raise InputError(path, None, "no rows")
    for column in QRELS:
        if len(null := frame[column].is_null().arg_true()):
            raise InputError(path, None, f"{column} is null in row {null[0] + 1}")
    if len(odd := (~frame["gain"].is_finite()).arg_true()):
        raise InputError(path, None, f"gain is no finite number in row {odd[0] + 1}")
    if len(again := repeated(frame)):
        query_id, doc_id = frame.row(int(again[0]))[:2]
        raise InputError(path, None, f"document {doc_id!r} of topic {query_id!r} stands there twice")
    return frame


def _metadata(path: Path) -> dict[str, str]:
    """The key-value metadata of a Parquet file; none of one that cannot be read."""
    try:
        return pl.read_parquet_metadata(path)
    except (pl.exceptions.PolarsError, OSError):
        return {}


# ------------------------------------------------------------------------------------------------ text


def _check_ids(frame: pl.DataFrame, name: str) -> None:
    for column in ("query_id", "doc_id"):
        odd = pl.col(column).str.contains(r"[\x00-\x20]") | (pl.col(column) == "")
        if column == "query_id":
            odd |= pl.col(column).str.contains("^[#\ufeff]")
        found = frame.filter(odd)[column]
        if len(found):
            raise SchemaError(
                f"{name}: {column} {found[0]!r} cannot stand in TREC text (empty, white space, a control"
                " character, or a topic that starts with # or a byte order mark). Next: write .parquet"
            )


def _write_text(frame: pl.DataFrame, file: IO[bytes], path: str | Path) -> None:
    """The frame's columns with single spaces between, compressed by the suffix of `path`."""
    with compress(file, Path(path).suffix) as out:
        for part in frame.iter_slices(_SLICE):
            text = io.BytesIO()
            part.write_csv(text, include_header=False, separator=" ", quote_style="never")
            out.write(text.getvalue())
