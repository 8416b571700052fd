"""The files of a collection's folder; above all document texts by id, without holding the corpus in memory.

A corpus file is read, checked and written once to an SQLite file in the cache, named after the SHA-256 of the
corpus file: a changed corpus is another store, and deleting the cache loses nothing but time.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from functools import cached_property
from pathlib import Path
from urllib.parse import quote
from uuid import uuid4

import polars as pl

from harness.cache import cache_dir
from harness.errors import InputError
from harness.frames import TOPICS
from harness.trec_bytes import byte_blocks, file_hash

__all__ = ["DOCUMENTS", "DocumentStore", "read_grades", "read_topics", "storable"]

DOCUMENTS: dict[str, pl.DataType] = {"doc_id": pl.String(), "text": pl.String()}
"""A frame of documents."""

_FORMAT = 1  # of the store: a change in how texts are joined or laid out makes old stores misses
_AT_ONCE = 500  # ids in one SQL statement: every build of SQLite takes at least 999


def storable(text: str) -> str:
    """`text` with `?` for each lone surrogate (a broken escape), which no file or table takes."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


class DocumentStore:
    """Texts of one corpus file: JSON lines with `doc_id`, `text` and, where there is one, `title`.

    Parameters
    ----------
    corpus: a .jsonl, .jsonl.gz or .jsonl.zst file.
    """

    def __init__(self, corpus: Path) -> None:
        self.corpus = corpus

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the corpus file's bytes as they stand (compressed where it is), hex."""
        return file_hash(self.corpus)

    @cached_property
    def path(self) -> Path:
        """The store's file; built at the first call, atomically, so that a kill leaves no half store.

        Raises
        ------
        InputError: the corpus file and line of the first record that cannot be used, or of a repeated doc_id.
        """
        target = cache_dir("documents") / f"{self.hash}.{_FORMAT}.sqlite"
        if not target.exists():
            part = target.with_name(f"{target.name}.{uuid4().hex}.part")
            try:
                self._build(part)
                os.replace(part, target)
            finally:
                part.unlink(missing_ok=True)
        return target

    def __len__(self) -> int:
        with self._open() as store:
            return int(store.execute("SELECT COUNT(*) FROM documents").fetchone()[0])

    def get(self, doc_ids: Iterable[str]) -> pl.DataFrame:
        """doc_id, text of the documents asked for, each once, in the order asked; unknown ids are absent."""
        wanted = list(dict.fromkeys(doc_ids))
        found: dict[str, str] = {}
        if wanted:
            with self._open() as store:
                for start in range(0, len(wanted), _AT_ONCE):
                    ids = wanted[start : start + _AT_ONCE]
                    marks = ",".join("?" * len(ids))
                    query = f"SELECT doc_id, text FROM documents WHERE doc_id IN ({marks})"
                    found.update(store.execute(query, ids))
        kept = [d for d in wanted if d in found]
        return pl.DataFrame({"doc_id": kept, "text": [found[d] for d in kept]}, schema=DOCUMENTS)

    def batches(self, size: int) -> Iterator[pl.DataFrame]:
        """Every document as frames doc_id, text of at most `size` rows, in the order of the corpus file."""
        with self._open() as store:
            rows = store.execute("SELECT doc_id, text FROM documents ORDER BY line")
            while block := rows.fetchmany(size):
                yield pl.DataFrame(block, schema=DOCUMENTS, orient="row")

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        # immutable: the file never changes once it has its name, so any number of readers, in threads and
        # processes, need no lock
        uri = f"file:{quote(str(self.path))}?mode=ro&immutable=1"
        try:
            with closing(sqlite3.connect(uri, uri=True, check_same_thread=False)) as store:
                yield store
        except sqlite3.DatabaseError as error:
            what = f"this document store in the cache is damaged ({error})"
            raise InputError(self.path, None, what, f"Next: rm '{self.path}'") from error

    def _build(self, part: Path) -> None:
        with closing(sqlite3.connect(part, isolation_level=None)) as store:
            # no journal: the file is thrown away unless it is finished
            store.execute("PRAGMA journal_mode = OFF")
            store.execute("PRAGMA synchronous = OFF")
            store.execute("CREATE TABLE documents (line INTEGER PRIMARY KEY, doc_id TEXT, text TEXT)")
            store.execute("BEGIN")
            store.executemany("INSERT INTO documents VALUES (?, ?, ?)", _records(self.corpus))
            store.execute("COMMIT")
            try:
                store.execute("CREATE UNIQUE INDEX by_id ON documents (doc_id)")
            except sqlite3.IntegrityError:
                raise self._duplicate(store) from None
        with part.open("rb+") as stream:
            os.fsync(stream.fileno())

    def _duplicate(self, store: sqlite3.Connection) -> InputError:
        twice = "SELECT doc_id FROM documents GROUP BY doc_id HAVING COUNT(*) > 1 ORDER BY MIN(line) LIMIT 1"
        (doc_id,) = store.execute(twice).fetchone()
        lines = store.execute("SELECT line FROM documents WHERE doc_id = ? ORDER BY line LIMIT 2", (doc_id,))
        (first,), (second,) = lines.fetchall()
        return InputError(self.corpus, second, f"doc_id {doc_id!r} stands on line {first} already")


def _text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """(number from 1, text) of every non-blank line, less its line end, of a UTF-8 file."""
    number = 0
    for block in byte_blocks(path):
        for raw in block[:-1].split(b"\n"):
            number += 1
            try:
                line = raw.removesuffix(b"\r").decode()
            except UnicodeDecodeError as error:
                what = f"not UTF-8 ({error.reason})"
                raise InputError(path, number, what, "Next: save the file as UTF-8.") from error
            if line and not line.isspace():
                yield number, line


def _records(path: Path) -> Iterator[tuple[int, str, str]]:
    """(line from 1, doc_id, title and text) of every document of a corpus file."""
    for number, line in _text_lines(path):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(path, number, f"not a line of JSON ({error})") from error
        if not isinstance(record, dict):
            hint = 'A document is {"doc_id": "…", "text": "…"}.'
            raise InputError(path, number, "not a JSON object", hint)
        yield (number, *_record(path, number, record))


def _record(path: Path, line: int, record: dict[str, object]) -> tuple[str, str]:
    doc_id, title, text = (record.get(key) for key in ("doc_id", "title", "text"))
    if doc_id is None:
        raise InputError(path, line, f"no doc_id; its keys are {', '.join(record) or 'none'}")
    if not isinstance(doc_id, str):
        hint = "Ids are text (007 is not 7): put it in quotes."
        raise InputError(path, line, f"doc_id {doc_id!r} is not text", hint)
    if doc_id.split() != [doc_id] or "\0" in doc_id or storable(doc_id) != doc_id:
        hint = "It is empty or holds white space: no TREC file could name it."
        raise InputError(path, line, f"doc_id {doc_id!r} cannot be used", hint)
    if "text" not in record and "title" not in record:
        raise InputError(path, line, f"neither text nor title; its keys are {', '.join(record)}")
    if not isinstance(title, str | None) or not isinstance(text, str | None):
        raise InputError(path, line, "title and text must be text or null")
    return doc_id, storable(_join_title(title, text))


def _join_title(title: str | None, text: str | None) -> str:
    """Title and text as one text, the title on a line of its own; a blank one leaves no trace."""
    return "\n".join(part for part in ((title or "").strip(), (text or "").strip()) if part)


def read_topics(path: Path) -> pl.DataFrame:
    """TOPICS from lines `query_id <tab> text`; a text may be empty.

    Raises
    ------
    InputError: file and line of the first line without a tab, or whose id cannot be used or is a repetition.
    """
    rows: dict[str, str] = {}
    for number, line in _text_lines(path):
        query_id, tab, text = line.partition("\t")
        query_id = query_id.strip()
        if not tab:
            raise InputError(path, number, "no tab", "A topic is query_id <tab> text.")
        if query_id.split() != [query_id]:
            hint = "A topic is query_id <tab> text; the id has no white space in it."
            raise InputError(path, number, f"query_id {query_id!r} cannot be used", hint)
        if query_id in rows:
            raise InputError(path, number, f"query_id {query_id!r} stands here a second time")
        rows[query_id] = text.strip()
    return pl.DataFrame({"query_id": list(rows), "text": list(rows.values())}, schema=TOPICS)


def read_grades(path: Path) -> dict[int, str]:
    """What each grade means, from lines `grade <tab> words`.

    Raises
    ------
    InputError: file and line of the first line that is not that, or of a grade that stands there twice.
    """
    grades: dict[int, str] = {}
    for number, line in _text_lines(path):
        grade, _, words = (part.strip() for part in line.partition("\t"))
        if not grade.removeprefix("-").isdecimal() or not words:
            what = f"{line!r} is no grade and its meaning"
            raise InputError(path, number, what, "A line is a whole number <tab> words.")
        value = int(grade)
        if value in grades:
            raise InputError(path, number, f"grade {value} stands here a second time")
        grades[value] = words
    return grades
