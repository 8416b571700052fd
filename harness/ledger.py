"""The ledger: where signals and vectors are kept for ever, as two Delta tables.

    LEDGER/signals   fingerprint, key, query_hash, doc_hash, probs, score, features, time
    LEDGER/vectors   fingerprint, key, doc_hash, vector, time

A signal is kept under its labeler's fingerprint and the SHA-256 of the query's and of the document's text, a
vector under the encoder's fingerprint and the SHA-256 of its text; ids play no part, so a changed text is
simply another row. Each append is one atomic commit: it is there whole or not at all, and several processes
may append at once. Nothing is ever overwritten or vacuumed, so every older version can be read again
(`Ledger.at`).

Reading: the keys of one fingerprint are held in memory with the places of their rows (`harness.places`);
looking up a batch then opens only the parts of the files that hold its rows, and the full hashes stored there
decide whether a row is really the one asked for.

This is the only module that imports deltalake.
"""

from __future__ import annotations

import shutil
import tempfile
import time
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import numpy as np
import polars as pl

from harness.errors import InputError, MissingExtra, UsageError
from harness.places import Places, row_keys

if TYPE_CHECKING:
    from deltalake import DeltaTable

__all__ = ["SIGNAL_ROWS", "VECTOR_ROWS", "Ledger", "Table", "text_hash", "text_hashes"]

SIGNAL_ROWS: dict[str, pl.DataType] = {
    "query_hash": pl.Binary(),
    "doc_hash": pl.Binary(),
    "probs": pl.List(pl.Float32()),
    "score": pl.Float32(),
    "features": pl.List(pl.Float32()),
}
"""What `Ledger.signals` keeps of a pair."""
VECTOR_ROWS: dict[str, pl.DataType] = {"doc_hash": pl.Binary(), "vector": pl.List(pl.Float32())}
"""What `Ledger.vectors` keeps of a text."""

_ROW_GROUP = 8192  # rows: what a reader must unpack at the least to get at one row
_MANY_FILES = 64  # files of one fingerprint from which on they are put together
_FILE_BYTES = 128 * 2**20  # the size that files are put together to
_TRIES = 8  # of a commit that other processes got in the way of, each with up to 100 tries of deltalake's own


def text_hash(text: str) -> bytes:
    """SHA-256 of the text's UTF-8 bytes (32 bytes)."""
    return sha256(text.encode()).digest()


def text_hashes(texts: Iterable[str]) -> list[bytes]:
    """`text_hash` of each text; a text that stands there again (a topic's query does) is hashed once."""
    known: dict[str, bytes] = {}
    return [known.get(t) or known.setdefault(t, text_hash(t)) for t in texts]


class Ledger:
    """Signals and vectors, kept in a folder or an object store.

    Parameters
    ----------
    path: a folder (made at the first append), or a URL such as `s3://bucket/ledger`: credentials and end
        point are then taken from the provider's usual environment variables (AWS_*, AZURE_*, GOOGLE_*). None:
        a temporary folder that goes when the ledger does, at the latest when Python ends.
    compacts: whether `compact` does anything; not where another process sees to that.

    Raises
    ------
    UsageError: `path` is a file, or has a character that a Delta table's path cannot have.
    """

    def __init__(self, path: str | Path | None = None, *, compacts: bool = True) -> None:
        self._compacts = compacts
        if path is None:
            path = tempfile.mkdtemp(prefix="stopgap-ledger-")
            weakref.finalize(self, shutil.rmtree, path, ignore_errors=True)
        self.path = str(path)
        if self.path.startswith("file://"):
            self.path = unquote(urlsplit(self.path).path)
        if "://" not in self.path:
            _check_folder(Path(self.path).absolute())
        self._newest: Ledger | None = None  # an older version keeps a temporary folder alive
        root = self.path.rstrip("/")
        self.signals = Table(f"{root}/signals", SIGNAL_ROWS)
        self.vectors = Table(f"{root}/vectors", VECTOR_ROWS)

    @property
    def version(self) -> int | None:
        """The version of the signals, one more with each commit; None before the first."""
        return self.signals.version

    @property
    def read_only(self) -> bool:
        """Whether this is an older version (`at`), which nothing can be added to."""
        return self.signals.pinned is not None

    def at(self, version: int) -> Ledger:
        """The signals as they were at `version`, to read only; vectors depend on their text alone and have no
        need of it.

        Raises
        ------
        UsageError: there is no such version.
        """
        last = self.version
        if last is None or not 0 <= version <= last:
            there = "nothing yet" if last is None else f"versions 0 to {last}"
            raise UsageError(f"ledger {self.path} has no version {version}; it has {there}")
        old = Ledger(self.path)
        old.signals.pinned, old._newest = version, self
        return old

    def history(self) -> pl.DataFrame:
        """The commits to the signals, newest first: version, time (UTC), operation, rows (appended)."""
        return self.signals.history()

    def compact(self, fingerprint: str) -> None:
        """Put a fingerprint's small files together once they are many; older versions stay readable."""
        if self._compacts and not self.read_only:
            self.signals.compact(fingerprint)
            self.vectors.compact(fingerprint)


def _check_folder(folder: Path) -> None:
    if folder.is_file():
        raise UsageError(f"ledger {folder} is a file; a ledger is a folder (a new one is made)")
    bad = sorted(set(folder.as_posix()) & set("[]|^\\"))
    if bad:
        raise UsageError(
            f"ledger {folder}: a Delta table's path cannot have {' '.join(bad)}; name another folder"
        )


class Table:
    """One Delta table of rows kept under a fingerprint and one or two hashes.

    `rows` names the columns, the hashes (those whose names end in `_hash`) among them. `pinned` is the
    version to read, None for the newest.
    """

    def __init__(self, uri: str, rows: dict[str, pl.DataType]) -> None:
        self.uri, self.rows = uri, rows
        self.pinned: int | None = None
        self.hashes = [c for c in rows if c.endswith("_hash")]
        self._values = {c: t for c, t in rows.items() if c not in self.hashes}
        self._delta: DeltaTable | None = None
        self._indexes: dict[str, Places] = {}

    @property
    def version(self) -> int | None:
        """The newest version (or the pinned one); None while there is no table."""
        with _said_plainly(self.uri):
            delta = self._newest()
            return None if delta is None else int(delta.version())

    def find(self, fingerprint: str, hashes: pl.DataFrame) -> pl.DataFrame:
        """The stored rows among those asked for.

        Parameters
        ----------
        hashes: the hash columns of this table, one row for each thing asked for; further columns are ignored.

        Returns
        -------
        row u32 (which row of `hashes`, ascending) and the value columns. What other processes have committed
        by now is found too; where a thing was stored twice, the earlier row counts.

        Raises
        ------
        InputError: the table cannot be read.
        """
        with _said_plainly(self.uri):
            delta = self._newest()
            if delta is None or hashes.is_empty():
                return pl.DataFrame(schema={"row": pl.UInt32(), **self._values})
            index = self._indexes.setdefault(fingerprint, Places())
            index.take_in(self._files(delta, fingerprint))
            places = index.places(row_keys([hashes[c] for c in self.hashes]))
            rows = np.flatnonzero(places >= 0)
            stored = index.read(places[rows], [*self.hashes, *self._values], self.rows)
        right = np.ones(rows.size, dtype=bool)
        for column in self.hashes:
            right &= (stored[column] == hashes[column].gather(rows)).to_numpy()
        return stored.select(pl.Series("row", rows, dtype=pl.UInt32), *self._values).filter(right)

    def append(self, fingerprint: str, rows: pl.DataFrame) -> None:
        """Add rows (the table's columns) in one atomic commit; no rows make no commit.

        Raises
        ------
        UsageError: this is an older version. InputError: the table cannot be written.
        """
        if self.pinned is not None:
            raise UsageError(f"{self.uri} at version {self.pinned} can only be read")
        if rows.is_empty():
            return
        with _said_plainly(self.uri):
            from deltalake import CommitProperties, PostCommitHookProperties, write_deltalake
            from deltalake.exceptions import CommitFailedError

            frame = rows.select(
                pl.lit(fingerprint).alias("fingerprint"),
                pl.Series("key", row_keys([rows[c] for c in self.hashes]).view(np.int64)),
                *(pl.col(c).cast(t) for c, t in self.rows.items()),
                pl.lit(datetime.now(UTC)).cast(_TIME).alias("time"),
            )
            for attempt in range(_TRIES):
                try:
                    write_deltalake(
                        self._made(),
                        frame,
                        mode="append",
                        writer_properties=_writing(),
                        commit_properties=CommitProperties(max_commit_retries=100),
                        post_commithook_properties=PostCommitHookProperties(cleanup_expired_logs=False),
                    )
                    return
                except CommitFailedError:
                    # Should the commit have gone through after all, rows stand twice; reading allows for it.
                    if attempt == _TRIES - 1:
                        raise
                    self._delta = None
                    time.sleep(0.05 * 2**attempt)

    def compact(self, fingerprint: str) -> None:
        """Put this fingerprint's files together once they are many. The old files stay for older versions."""
        with _said_plainly(self.uri):
            delta = self._newest()
            if delta is None or len(self._files(delta, fingerprint)) <= _MANY_FILES:
                return
            from deltalake import PostCommitHookProperties
            from deltalake.exceptions import CommitFailedError

            try:
                delta.optimize.compact(
                    partition_filters=[("fingerprint", "=", fingerprint)],
                    target_size=_FILE_BYTES,
                    max_concurrent_tasks=1,
                    writer_properties=_writing(),
                    post_commithook_properties=PostCommitHookProperties(cleanup_expired_logs=False),
                )
            except CommitFailedError:
                self._delta = None  # another process put them together meanwhile; nothing depends on who does

    def history(self) -> pl.DataFrame:
        """The commits, newest first: version, time, operation, rows."""
        with _said_plainly(self.uri):
            delta = self._newest()
            commits: list[dict[str, Any]] = [] if delta is None else delta.history()
        return pl.DataFrame(
            {
                "version": [c["version"] for c in commits],
                "time": [datetime.fromtimestamp(c["timestamp"] / 1000, UTC) for c in commits],
                "operation": [c["operation"] for c in commits],
                "rows": [c.get("operationMetrics", {}).get("num_added_rows") for c in commits],
            },
            schema={"version": pl.Int64(), "time": _TIME, "operation": pl.String(), "rows": pl.Int64()},
        )

    def _files(self, delta: DeltaTable, fingerprint: str) -> list[str]:
        # TABLE/fingerprint=VALUE/part-0.parquet. On disk deltalake percent-encodes VALUE; in what it says
        # here, the folders above TABLE too.
        files = [file.rsplit("/", 2)[1:] for file in delta.file_uris()]
        return ["/".join([self.uri, *f]) for f in files if unquote(f[0]) == f"fingerprint={fingerprint}"]

    def _newest(self) -> DeltaTable | None:
        """The table brought up to date, or at its pinned version; None if there is none."""
        from deltalake import DeltaTable

        if self._delta is None:
            if not DeltaTable.is_deltatable(self.uri):
                return None
            self._delta = DeltaTable(self.uri, version=self.pinned)
        elif self.pinned is None:
            self._delta.update_incremental()
        return self._delta

    def _made(self) -> DeltaTable:
        """The table, made first if there is none. Its log is kept for ever: time travel reads it."""
        if self._delta is None and self._newest() is None:
            from deltalake import DeltaTable
            from deltalake.exceptions import DeltaError

            schema = {"fingerprint": pl.String(), "key": pl.Int64(), **self.rows, "time": _TIME}
            forever = "interval 5200 weeks"
            try:
                DeltaTable.create(
                    self.uri,
                    schema=pl.Schema(schema),
                    mode="ignore",
                    partition_by="fingerprint",
                    configuration={
                        "delta.enableExpiredLogCleanup": "false",
                        "delta.logRetentionDuration": forever,
                        "delta.deletedFileRetentionDuration": forever,
                        "delta.dataSkippingNumIndexedCols": "0",  # digests have no order worth keeping
                    },
                )
            except DeltaError:
                if not DeltaTable.is_deltatable(self.uri):  # else another process made it this very moment
                    raise
            self._newest()
        assert self._delta is not None
        return self._delta


_TIME = pl.Datetime("us", "UTC")


def _writing() -> Any:
    from deltalake import ColumnProperties, WriterProperties

    # Hashes and floats neither repeat nor shrink: a dictionary or a strong compression only costs time.
    plain = ColumnProperties(dictionary_enabled=False, statistics_enabled="NONE")
    return WriterProperties(
        max_row_group_size=_ROW_GROUP, compression="SNAPPY", default_column_properties=plain
    )


@contextmanager
def _said_plainly(uri: str) -> Iterator[None]:
    """Turn what deltalake and polars raise about a table into one of our errors."""
    try:
        from deltalake.exceptions import DeltaError
    except ModuleNotFoundError as exc:
        raise MissingExtra("deltalake", "ledger") from exc
    try:
        yield
    except (DeltaError, OSError, pl.exceptions.PolarsError) as exc:
        what = " ".join(str(exc).split())
        hint = "A ledger is a folder that stopgap made and nobody vacuumed; name another or start anew."
        raise InputError(uri, None, f"cannot be used as a ledger's table: {what}", hint) from exc
