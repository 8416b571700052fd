"""Collections: topics, documents, judgments and what the grades mean.

Three kinds, one interface: an ir_datasets id (`irds:vaswani`), a folder, and `demo`, a folder inside stopgap.
The layout of a folder:

    corpus.jsonl      one object a line: doc_id, text, perhaps title; also .jsonl.gz, .jsonl.zst; or none
    queries.tsv       query_id <tab> text; no header
    qrels.NAME.txt    TREC qrels, also .gz and .zst; NAME is `human` for the judgments that count
    grades.tsv        grade <tab> what it means; optional

This is the only module that imports ir_datasets.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import logging
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stderr
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from harness.documents import DOCUMENTS, DocumentStore, read_grades, read_topics, storable
from harness.errors import InputError, MissingExtra, StopgapError, UnknownName, UsageError
from harness.frames import PAIRS, QRELS, TOPICS, check
from harness.trec import read_qrels

__all__ = ["Collection", "Entry", "catalogue", "open_collection"]

_CORPORA = ("corpus.jsonl", "corpus.jsonl.gz", "corpus.jsonl.zst")
_IDS: dict[str, pl.DataType] = {"query_id": pl.String(), "doc_id": pl.String()}
_LAYOUT = (
    "A collection is demo, irds:ID, or a folder with queries.tsv, qrels.NAME.txt, corpus.jsonl[.gz|.zst]."
)


class Collection(ABC):
    """What the rest of stopgap knows of a test collection; open one with `open_collection`."""

    name: str
    """As it was asked for: `demo`, `irds:vaswani`, or the folder's name."""

    @property
    @abstractmethod
    def topics(self) -> pl.DataFrame:
        """TOPICS, in the collection's order. A text may be blank; it is never null."""

    @property
    @abstractmethod
    def grades(self) -> dict[int, str]:
        """What each grade means, ascending from 0; negative grades say nothing of relevance and are left out.

        Without a description: "grade N" for N from 0 to the largest human grade, or to 1 without judgments.
        """

    @property
    @abstractmethod
    def has_text(self) -> bool:
        """Whether there are documents; without, nothing can be retrieved, and labels come from files only."""

    @property
    @abstractmethod
    def corpus_hash(self) -> str:
        """SHA-256, hex, that changes when the documents do: the key of everything built from them.

        A folder: of the corpus file's bytes (no bytes where there is none). ir_datasets keeps a corpus under
        one id for ever, so there: of that id, the count of documents and the statistics of their ids.
        """

    @property
    @abstractmethod
    def size(self) -> int:
        """The number of documents."""

    @abstractmethod
    def qrels_names(self) -> list[str]:
        """The names that `qrels` takes."""

    @abstractmethod
    def qrels(self, name: str = "human") -> pl.DataFrame:
        """QRELS by name.

        Raises
        ------
        UnknownName: no qrels of that name.
        InputError: file and line of the first line that cannot be read.
        """

    @abstractmethod
    def texts(self, doc_ids: Iterable[str]) -> pl.DataFrame:
        """doc_id, text (title and text) of the documents asked for, each once; unknown ids are absent."""

    @abstractmethod
    def documents(self, batch: int = 1000) -> Iterator[pl.DataFrame]:
        """Every document, as frames doc_id, text of at most `batch` rows, always in the same order."""

    def pairs(self, ids: pl.DataFrame) -> pl.DataFrame:
        """PAIRS for the rows of `ids` (query_id, doc_id), in their order; what is unknown is null."""
        ids = check(ids, _IDS, "ids").select(*_IDS)
        topics = self.topics.select("query_id", query="text")
        texts = self.texts(ids["doc_id"].unique(maintain_order=True))
        return (
            ids.join(topics, on="query_id", how="left", maintain_order="left")
            .join(texts, on="doc_id", how="left", maintain_order="left")
            .select(*PAIRS)
        )

    def pair_batches(self, ids: pl.DataFrame, batch: int = 1000) -> Iterator[pl.DataFrame]:
        """`pairs` in frames of at most `batch` rows; the texts in memory do not grow with `ids`."""
        return map(self.pairs, ids.iter_slices(batch))

    def __repr__(self) -> str:
        return f"<Collection {self.name}>"


class _Folder(Collection):
    def __init__(self, name: str, folder: Path) -> None:
        self.name, self._folder = name, folder
        if not (folder / "queries.tsv").is_file():
            raise InputError(folder / "queries.tsv", None, "there is no such file", _LAYOUT)
        corpus = next((folder / c for c in _CORPORA if (folder / c).is_file()), None)
        self._store = DocumentStore(corpus) if corpus else None

    @cached_property
    def topics(self) -> pl.DataFrame:
        return read_topics(self._folder / "queries.tsv")

    @cached_property
    def grades(self) -> dict[int, str]:
        path = self._folder / "grades.tsv"
        words = read_grades(path) if path.is_file() else {}
        return _named(words, self.qrels() if "human" in self.qrels_names() else None)

    @property
    def has_text(self) -> bool:
        return self._store is not None

    @property
    def corpus_hash(self) -> str:
        return self._store.hash if self._store is not None else hashlib.sha256().hexdigest()

    @cached_property
    def size(self) -> int:
        return len(self._store) if self._store is not None else 0

    def _qrels_files(self) -> dict[str, Path]:
        files = (p for suffix in ("", ".gz", ".zst") for p in self._folder.glob(f"qrels.*.txt{suffix}"))
        return {p.name.removeprefix("qrels.").rpartition(".txt")[0]: p for p in sorted(files)}

    def qrels_names(self) -> list[str]:
        return sorted(self._qrels_files())

    def qrels(self, name: str = "human") -> pl.DataFrame:
        files = self._qrels_files()
        if name not in files:
            hint = f"Qrels are the files {self._folder}/qrels.NAME.txt."
            raise UnknownName(f"qrels of {self.name}", name, files, hint)
        return read_qrels(files[name])

    def texts(self, doc_ids: Iterable[str]) -> pl.DataFrame:
        return self._store.get(doc_ids) if self._store is not None else pl.DataFrame(schema=DOCUMENTS)

    def documents(self, batch: int = 1000) -> Iterator[pl.DataFrame]:
        return self._store.batches(batch) if self._store is not None else iter(())


class _Irds(Collection):
    def __init__(self, dataset_id: str) -> None:
        self.name, self._id = f"irds:{dataset_id}", dataset_id
        library = _ir_datasets()
        with _fetching(self.name, "definition"):
            try:
                self._dataset: Any = library.load(dataset_id)
            except KeyError:
                near = get_close_matches(dataset_id, list(library.registry), n=8, cutoff=0.4)
                hint = "Next: stopgap collections WORD lists the ids that contain WORD."
                raise UnknownName("ir_datasets id", dataset_id, near, hint) from None
            has_docs = self._dataset.has_docs()
            self._docs_id: str = library.docs_parent_id(dataset_id) if has_docs else dataset_id

    @cached_property
    def topics(self) -> pl.DataFrame:
        if not self._dataset.has_queries():
            inside = [i for i in _ir_datasets().registry if i.startswith(f"{self._id}/")]
            more = f" Datasets within it: {', '.join(inside[:12])}." if inside else ""
            raise UsageError(f"{self.name} has no topics.{more}")
        with _fetching(self.name, "topics"):
            rows = [(q.query_id, storable(_default_text(q))) for q in self._dataset.queries_iter()]
        return pl.DataFrame(rows, schema=TOPICS, orient="row")

    @cached_property
    def grades(self) -> dict[int, str]:
        words = dict(self._dataset.qrels_defs()) if self._dataset.has_qrels() else {}
        return _named(words, self.qrels() if self._dataset.has_qrels() and not words else None)

    @property
    def has_text(self) -> bool:
        return bool(self._dataset.has_docs())

    @cached_property
    def corpus_hash(self) -> str:
        if not self.has_text:
            return hashlib.sha256().hexdigest()
        ids = self._docs_metadata().get("fields", {}).get("doc_id", {})
        known = ["ir_datasets", self._docs_id, self.size, ids]
        return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()

    @cached_property
    def size(self) -> int:
        if not self.has_text:
            return 0
        # the published count first: it needs no download, and the hash must not depend on what is downloaded
        count = self._docs_metadata().get("count")
        if count is None:
            with _fetching(self.name, "documents"):
                count = self._dataset.docs_count()
                if count is None:
                    count = sum(1 for _ in self._dataset.docs_iter())
        return int(count)

    def _docs_metadata(self) -> dict[str, Any]:
        return dict(self._dataset.docs_metadata())

    def qrels_names(self) -> list[str]:
        return ["human"] if self._dataset.has_qrels() else []

    def qrels(self, name: str = "human") -> pl.DataFrame:
        if name not in self.qrels_names():
            raise UnknownName(f"qrels of {self.name}", name, self.qrels_names())
        with _fetching(self.name, "judgments"):
            rows = [(q.query_id, q.doc_id, q.relevance) for q in self._dataset.qrels_iter()]
        frame = pl.DataFrame(rows, schema={**_IDS, "relevance": QRELS["relevance"]}, orient="row")
        # diversity qrels judge a document once a subtopic; for the topic as a whole the best of them counts
        frame = frame.group_by("query_id", "doc_id", maintain_order=True).agg(pl.col("relevance").max())
        gain = pl.col("relevance").cast(QRELS["gain"])
        return check(frame.with_columns(gain=gain, assessor=pl.lit("human")), QRELS, f"qrels of {self.name}")

    def texts(self, doc_ids: Iterable[str]) -> pl.DataFrame:
        wanted = list(dict.fromkeys(doc_ids))
        found: dict[str, Any] = {}
        if self.has_text and wanted:
            with _fetching(self.name, "documents"):
                found = self._dataset.docs_store().get_many(wanted)
        rows = [(d, storable(_default_text(found[d]))) for d in wanted if d in found]
        return pl.DataFrame(rows, schema=DOCUMENTS, orient="row")

    def documents(self, batch: int = 1000) -> Iterator[pl.DataFrame]:
        if not self.has_text:
            return
        with _fetching(self.name, "documents"):
            documents = iter(self._dataset.docs_iter())
        while True:
            with _fetching(self.name, "documents"):
                block = list(itertools.islice(documents, batch))
            if not block:
                return
            rows = [(d.doc_id, storable(_default_text(d))) for d in block]
            yield pl.DataFrame(rows, schema=DOCUMENTS, orient="row")


def open_collection(spec: str | Path) -> Collection:
    """The collection that `spec` names: `demo`, `irds:ID`, or a folder laid out as the module says.

    Raises
    ------
    UsageError: no such collection; says what there is.
    InputError: the folder has no queries.tsv. What else is wrong in it shows when it is first needed.
    """
    if spec == "demo":
        return _Folder("demo", Path(__file__).parent / "demo_collection")
    if isinstance(spec, str) and spec.startswith("irds:"):
        return _Irds(spec.removeprefix("irds:"))
    folder = Path(spec)
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "is no collection"
        raise UsageError(f"{str(spec)!r} {what}. {_LAYOUT}\nNext: stopgap collections")
    return _Folder(folder.resolve().name, folder)


class Entry(NamedTuple):
    """One line of `stopgap collections`; counts are None where they are not known without opening it."""

    name: str
    what: str
    documents: int | None = None
    topics: int | None = None
    judged: int | None = None


def catalogue(match: str = "") -> list[Entry]:
    """What `open_collection` takes: `demo`, the folder layout, and the ir_datasets ids that contain `match`.

    Without `match` the ids, some 800, are one entry. That ir_datasets is not installed is said in its entry.
    """
    entries = [
        Entry("demo", "the intranet of a made-up company, inside stopgap"),
        Entry("FOLDER", "queries.tsv, qrels.NAME.txt, corpus.jsonl[.gz|.zst]; grades.tsv if there is one"),
    ]
    try:
        library = _ir_datasets()
    except MissingExtra as error:
        return [*entries, Entry("irds:ID", str(error))]
    ids = list(library.registry)
    if not match:
        what = (
            f"{len(ids)} datasets of ir_datasets; `stopgap collections WORD` lists the ids that contain WORD"
        )
        return [*entries, Entry("irds:ID", what)]
    return [*entries, *(_irds_entry(library, i) for i in sorted(ids) if match.lower() in i.lower())]


def _irds_entry(library: Any, dataset_id: str) -> Entry:
    kinds = {"docs": "documents", "queries": "topics", "qrels": "judgments"}
    with _fetching(f"irds:{dataset_id}", "definition"):
        metadata = library.load(dataset_id).metadata()
    counts = [metadata.get(kind, {}).get("count") for kind in kinds]
    missing = [f"no {words}" for kind, words in kinds.items() if kind not in metadata]
    return Entry(f"irds:{dataset_id}", ", ".join(missing) or "complete", *counts)


def _ir_datasets() -> Any:
    try:
        import ir_datasets
    except ImportError as error:
        raise MissingExtra("ir-datasets", "retrieve") from error
    return ir_datasets


@contextmanager
def _fetching(name: str, what: str) -> Iterator[None]:
    """ir_datasets at work: messages kept for the error, bars shown on terminals only, errors made ours."""
    logger = _ir_datasets().log.easy().logger()
    said = io.StringIO()
    handlers, logger.handlers = logger.handlers, [logging.StreamHandler(said)]
    try:
        with redirect_stderr(sys.stderr if sys.stderr.isatty() else io.StringIO()):
            yield
    except StopgapError:
        raise
    except Exception as error:
        home = os.environ.get("IR_DATASETS_HOME") or Path.home() / ".ir_datasets"
        # what it says (why a download failed, where to get a licensed corpus) is clearer than what it raises
        told = [line for line in said.getvalue().splitlines() if line and not line.startswith("[")]
        reason = told[-1] if told else f"{type(error).__name__}: {error}"
        raise InputError(
            name,
            None,
            f"its {what} could not be had from ir_datasets: {reason}",
            f"Next, on a network: ir_datasets export {name.removeprefix('irds:')} docs > /dev/null\n"
            f"then copy its folder to {home} here (or set IR_DATASETS_HOME).",
        ) from error
    finally:
        logger.handlers = handlers


def _default_text(record: Any) -> str:
    """ir_datasets' own choice of a record's text; all its text fields, should a record have made none."""
    if hasattr(record, "default_text"):
        return str(record.default_text())
    fields = zip(record._fields, record, strict=True)
    return "\n".join(v for k, v in fields if isinstance(v, str) and not k.endswith("_id"))


def _named(words: dict[int, str], qrels: pl.DataFrame | None) -> dict[int, str]:
    """Grades from 0 with their words: described and judged ones, or all up to the largest."""
    judged = qrels["relevance"].unique().to_list() if qrels is not None else []
    numbers = [0, *words, *judged] if words else range(1 + max([1, *judged]))
    return {g: words.get(g, f"grade {g}") for g in sorted(set(numbers)) if g >= 0}
