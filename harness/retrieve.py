"""Pipelines to runs, with PyTerrier; and back: labels, runs and qrels for PyTerrier.

Built-in pipelines, none of which starts a Java machine:

    bm25           BM25 on PISA (k1 0.9, b 0.4)
    qld            query likelihood with Dirichlet smoothing on PISA (mu 1000)
    dense          cosine of the embedded encoder's vectors, exact search
    hybrid         reciprocal rank fusion (k 60) of bm25 and dense
    bm25+rerank    the first 100 of bm25, ordered by the embedded labeler's score

and `module:object`, any PyTerrier transformer or pipeline: the object itself, or what makes one when it is
called, with nothing or with the `Collection`. The built-in ones are functions here, to compose others from:

    def mine(collection):
        return retrieve.bm25(collection, 50) >> retrieve.rerank(collection)

PISA indexes words stemmed by Porter2, counts the words that a query repeats, and leaves out Terrier's stop
words; `plain_words` says what becomes of text that is not ASCII. Indexes are kept in the cache by the hash
of the corpus. This is the only module that imports pyterrier.
"""

from __future__ import annotations

import hashlib
import inspect
import re
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import polars as pl

from harness import labeling, provenance
from harness.cache import cache_dir
from harness.errors import MissingExtra, StopgapError, StopgapWarning, UnknownName, UsageError
from harness.frames import RUN, empty
from harness.ranking import rank, top
from harness.steps import (
    BM25,
    ENCODER,
    QLD,
    RERANKED,
    STEMMER,
    STOPWORDS,
    Dense,
    Fusion,
    Label,
    Lexical,
    Rerank,
)
from harness.terrier import as_run, from_pyterrier, imported, plain_words, quiet, to_pyterrier
from harness.trec import write_run

if TYPE_CHECKING:
    import pandas as pd
    import pyterrier as pt
    from pyterrier_pisa import PisaIndex

    from harness.collection import Collection
    from harness.ledger import Ledger

__all__ = [
    "BUILT_IN",
    "bm25",
    "bm25_rerank",
    "dense",
    "from_pyterrier",
    "hybrid",
    "labeler_transformer",
    "load_pipeline",
    "plain_words",
    "qld",
    "rerank",
    "retrieve",
    "run_name",
    "to_pyterrier",
    "write",
]

_AT_ONCE = 1000  # topics that a pipeline is given at a time: PISA sets aside room for topics x depth results
_INDEX_FORMAT = 1  # a change in what is indexed makes old indexes misses


# --------------------------------------------------------------------------------- runs


def retrieve(
    collection: Collection,
    pipeline: str | pt.Transformer,
    depth: int = 1000,
    *,
    progress: labeling.Progress | None = None,
) -> pl.DataFrame:
    """The run of a pipeline over a collection's topics: RUN, at most `depth` documents a topic.

    Parameters
    ----------
    pipeline: a built-in name, `module:object`, or a transformer.
    progress: called by the built-in pipelines that need the encoder with what is done and all there is to do:
        documents while their vectors are made, pairs while they are judged.

    A topic with a blank query gets no documents. The same call gives the same run.

    Warns
    -----
    StopgapWarning: names the topics that got no document; they count 0 in every measure.

    Raises
    ------
    UnknownName, UsageError: no such pipeline; it failed, found nothing at all, or what it gave is no ranking;
        or the collection has no documents.
    MissingExtra: PyTerrier, PISA or what the encoder needs is not installed.
    """
    if depth < 1:
        raise UsageError(f"the depth is {depth}; it must be at least 1")
    name = pipeline if isinstance(pipeline, str) else repr(pipeline)
    system = load_pipeline(pipeline, collection, depth, progress) if isinstance(pipeline, str) else pipeline
    asked = collection.topics.filter(pl.col("text").str.strip_chars() != "")
    runs = [empty(RUN)]
    for topics in asked.iter_slices(_AT_ONCE):
        queries = to_pyterrier(topics)
        try:
            with warnings.catch_warnings():
                # that pandas wants PyTerrier to be written otherwise is none of the user's business
                warnings.filterwarnings("ignore", category=DeprecationWarning, module="pyterrier")
                results = system.transform(queries)
        except StopgapError:
            raise
        except Exception as error:
            raise UsageError(f"pipeline {name} failed: {type(error).__name__}: {error}") from error
        runs.append(top(as_run(results, topics, name), depth))
    run = rank(pl.concat(runs))
    if run.is_empty():
        raise UsageError(f"pipeline {name} found no document for any topic of {collection.name}")
    if without := _without(collection, run):
        some = ", ".join(without[:10]) + (", …" if len(without) > 10 else "")
        message = f"{name}: {len(without)} of {collection.topics.height} topics got no document: {some}"
        warnings.warn(message, StopgapWarning, stacklevel=2)
    return run


def _without(collection: Collection, run: pl.DataFrame) -> list[str]:
    found = set(run["query_id"])
    return [q for q in collection.topics["query_id"] if q not in found]


def run_name(pipeline: str) -> str:
    """A pipeline's name as a run's tag and file name: `bm25+rerank`, `mine.reranked` for `mine:reranked`."""
    return re.sub(r"[^\w.+-]", "-", pipeline.replace(":", "."))


def write(
    run: pl.DataFrame,
    folder: str | Path,
    *,
    collection: Collection,
    pipeline: str,
    depth: int,
    command: Sequence[str] | None = None,
) -> Path:
    """Write a run to `folder`/NAME.run.gz, and where it came from to NAME.run.meta.yaml; the run's path.

    Parameters
    ----------
    pipeline, depth: as `retrieve` was called; NAME, also the run's tag, is `run_name(pipeline)`.
    command: the arguments that made the run, for the metadata; by default those of this process.
    """
    tag = run_name(pipeline)
    Path(folder).mkdir(parents=True, exist_ok=True)
    path, twin = Path(folder) / f"{tag}.run.gz", Path(folder) / f"{tag}.run.meta.yaml"
    known = provenance.metadata(tag, collection, pipeline, depth, command)
    write_run(run, path, tag)
    provenance.write_twin(twin, known, path, run, _without(collection, run))
    return path


# --------------------------------------------------------------------------------- pipelines


def load_pipeline(
    spec: str, collection: Collection, depth: int = 1000, progress: labeling.Progress | None = None
) -> pt.Transformer:
    """The pipeline that `spec` names, a built-in name or `module:object`, ready for `collection`.

    Raises
    ------
    UnknownName: neither; names the near ones. UsageError: it cannot be imported, or is no transformer.
    """
    _pyterrier()
    if spec in BUILT_IN:
        return BUILT_IN[spec](collection, depth, progress)
    module, colon, path = spec.partition(":")
    if not colon or not module or not path:
        hint = "One of your own: module:object, a PyTerrier transformer or what makes one."
        raise UnknownName("pipeline", spec, BUILT_IN, hint)
    return _made(spec, imported(spec, module, path), collection)


def _made(spec: str, found: Any, collection: Collection) -> pt.Transformer:
    import pyterrier as pt

    if not isinstance(found, pt.Transformer) and callable(found):
        try:
            wanted = [
                p
                for p in inspect.signature(found).parameters.values()
                if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
            ]
            found = found(collection) if wanted else found()
        except StopgapError:
            raise
        except Exception as error:
            raise UsageError(f"pipeline {spec!r} cannot be made: {type(error).__name__}: {error}") from error
    if not isinstance(found, pt.Transformer):
        what = f"a {type(found).__name__}, not a PyTerrier transformer or what makes one"
        raise UsageError(f"pipeline {spec!r} is {what}")
    return found


def bm25(collection: Collection, depth: int = 1000) -> pt.Transformer:
    """BM25 on PISA: qid, query -> qid, query, docno, score, rank."""
    return _lexical(collection, lambda index: index.bm25(**BM25, num_results=depth, query_weighted=True))


def qld(collection: Collection, depth: int = 1000) -> pt.Transformer:
    """Query likelihood with Dirichlet smoothing on PISA: qid, query -> qid, query, docno, score, rank."""
    return _lexical(collection, lambda index: index.qld(**QLD, num_results=depth, query_weighted=True))


def dense(
    collection: Collection,
    depth: int = 1000,
    *,
    encoder: str = ENCODER,
    progress: labeling.Progress | None = None,
) -> pt.Transformer:
    """The documents nearest to the query by cosine: qid, query -> qid, query, docno, score, rank.

    Parameters
    ----------
    encoder: the name of a labeler that gives vectors.
    progress: called while the documents' vectors are made, which happens once for a corpus and an encoder.
    """
    _needs_documents(collection)
    return _transformer(Dense(collection, depth, encoder, progress))


def hybrid(
    collection: Collection, depth: int = 1000, *, progress: labeling.Progress | None = None
) -> pt.Transformer:
    """Reciprocal rank fusion (k 60) of `bm25` and `dense`: qid, query -> qid, query, docno, score, rank."""
    lexical, vectors = bm25(collection, depth), dense(collection, depth, progress=progress)
    return _transformer(Fusion(lexical.transform, vectors.transform, depth))


def rerank(
    collection: Collection, *, labeler: str = ENCODER, progress: labeling.Progress | None = None
) -> pt.Transformer:
    """Results ordered anew by a labeler's score: qid, query, docno -> the same, with its `score` and `rank`.

    A document that it cannot judge, for want of a text, comes last. `progress` is called as pairs are judged.
    """
    return _transformer(Rerank(collection, labeler, progress))


def labeler_transformer(
    labeler: str | labeling.Labeler,
    collection: Collection,
    *,
    qrels: pl.DataFrame | None = None,
    ledger: Ledger | None = None,
) -> pt.Transformer:
    """A labeler as a transformer: qid, docno -> the same rows with `label`, `gain` and `assessor`.

    A judged pair has its assessor's grade. Any other has the labeler's, calibrated with `qrels` (QRELS; by
    default the collection's human ones) as `fill` does it: `label` is the hard grade, `gain` the expected
    one, and both are missing (never 0) where there is no label. The documents of a topic are best given
    together.

    Parameters
    ----------
    ledger: where signals are looked up and kept.

    Raises
    ------
    CalibrationError, when it is applied: there is too little in `qrels` to calibrate with.
    """
    return _transformer(Label(collection, labeler, qrels, ledger))


def bm25_rerank(
    collection: Collection, depth: int = 1000, *, progress: labeling.Progress | None = None
) -> pt.Transformer:
    """The first 100 of `bm25` (or `depth`, if that is less), ordered by the embedded labeler's score."""
    return bm25(collection, min(depth, RERANKED)) >> rerank(collection, progress=progress)


BUILT_IN: dict[str, Callable[[Collection, int, labeling.Progress | None], pt.Transformer]] = {
    "bm25": lambda collection, depth, _: bm25(collection, depth),
    "qld": lambda collection, depth, _: qld(collection, depth),
    "dense": lambda collection, depth, progress: dense(collection, depth, progress=progress),
    "hybrid": lambda collection, depth, progress: hybrid(collection, depth, progress=progress),
    "bm25+rerank": lambda collection, depth, progress: bm25_rerank(collection, depth, progress=progress),
}
"""Name -> what makes the pipeline for a collection, a depth and a listener to progress."""


# --------------------------------------------------------------------------------- parts


def _pyterrier() -> None:
    try:
        import pyterrier  # noqa: F401
        import pyterrier_pisa  # noqa: F401
    except ImportError as error:
        raise MissingExtra(error.name or "pyterrier", "retrieve") from error


def _transformer(step: Callable[[pd.DataFrame], pd.DataFrame]) -> pt.Transformer:
    """A step as a transformer, to compose with others."""
    _pyterrier()
    import pyterrier as pt

    class Step(pt.Transformer):
        def transform(self, inp: pd.DataFrame) -> pd.DataFrame:
            return step(inp)

        def __repr__(self) -> str:
            return repr(step)

    made: pt.Transformer = Step()  # type: ignore[no-untyped-call]
    return made


def _lexical(collection: Collection, retriever: Callable[[PisaIndex], pt.Transformer]) -> pt.Transformer:
    _pyterrier()
    index = _pisa_index(collection)
    with quiet():
        found = retriever(index)
    return _transformer(Lexical(found.transform))


def _needs_documents(collection: Collection) -> None:
    if not collection.has_text:
        hint = "It has topics and judgments only: runs must come from elsewhere."
        raise UsageError(f"{collection.name} has no documents, so nothing can be retrieved from it.\n{hint}")


def _pisa_index(collection: Collection) -> PisaIndex:
    """The PISA index of a collection's documents, out of the cache or built into it."""
    _needs_documents(collection)
    from pyterrier_pisa import PisaIndex

    made_of = f"pisa {version('pyterrier-pisa')} {STEMMER} {_INDEX_FORMAT} {collection.corpus_hash}"
    target = cache_dir("indexes") / hashlib.sha256(made_of.encode()).hexdigest()[:32]
    settings = {"text_field": "text", "stemmer": STEMMER, "stops": STOPWORDS}
    if not target.exists():
        part = target.with_name(f"{target.name}.{uuid4().hex}.part")
        part.mkdir()
        try:
            _build(collection, PisaIndex(str(part), **settings))
            try:
                part.rename(target)
            except OSError:  # another process was quicker; its index is as good
                if not target.exists():
                    raise
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return PisaIndex(str(target), **settings)


def _build(collection: Collection, index: PisaIndex) -> None:
    # without a single word PISA aborts the whole process
    if not any(
        re.search("[A-Za-z0-9]", plain_words(t)) for batch in collection.documents() for t in batch["text"]
    ):
        raise UsageError(
            f"no document of {collection.name} has a word in it, so nothing can be retrieved from it"
        )
    fed = 0
    failed: list[Exception] = []

    def documents() -> Iterator[dict[str, str]]:
        # PISA reads them in a thread of its own, where an exception would end the index early and in silence
        nonlocal fed
        try:
            for batch in collection.documents():
                for doc_id, text in batch.iter_rows():
                    yield {"docno": doc_id, "text": plain_words(text)}
                    fed += 1
        except Exception as error:
            failed.append(error)
            yield {"docno": "none", "text": "none"}  # there must be one with a word

    with quiet():
        index.index(documents())
    if failed:
        raise failed[0]
    if index.num_docs() != fed:
        raise UsageError(f"PISA indexed {index.num_docs()} of the {fed} documents of {collection.name}")
    with quiet():  # what retrieval needs beside the index is made now, so that nothing is written to it later
        index.bm25(**BM25)
        index.qld(**QLD)
