"""Steps of pipelines: a frame of PyTerrier's in, a frame of PyTerrier's out.

`harness.retrieve` makes transformers of them; nothing here imports PyTerrier. Columns: qid, query, and for
results docno, score, rank (from 0).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import TYPE_CHECKING, cast

import numpy as np
import polars as pl

from harness import labeling
from harness.calibrate import calibrate
from harness.calibrator import Calibrator
from harness.dense import VectorIndex
from harness.errors import CalibrationError, LabelerError
from harness.examples import example_batches
from harness.frames import QRELS, check, empty
from harness.ranking import rank, top
from harness.terrier import frame_ids, from_pyterrier, plain_words

if TYPE_CHECKING:
    import pandas as pd

    from harness.collection import Collection
    from harness.ledger import Ledger

__all__ = [
    "BM25",
    "ENCODER",
    "QLD",
    "RERANKED",
    "RRF_K",
    "STEMMER",
    "STOPWORDS",
    "Dense",
    "Fusion",
    "Label",
    "Lexical",
    "Rerank",
]

BM25 = {"k1": 0.9, "b": 0.4}
"""Parameters of BM25 (PISA's own defaults)."""
QLD = {"mu": 1000.0}
"""Pseudo-counts of Dirichlet smoothing (PISA's own default)."""
STEMMER, STOPWORDS = "porter2", "terrier"
"""What PISA does with words: its names for a stemmer and a stop list."""
ENCODER = "minilm"
"""The labeler behind the dense and reranking pipelines."""
RERANKED = 100
"""Documents a topic that bm25+rerank looks at."""
RRF_K = 60
"""The constant of reciprocal rank fusion (Cormack, Clarke and Buettcher, SIGIR 2009)."""
_Step = Callable[["pd.DataFrame"], "pd.DataFrame"]
_IDS = ["query_id", "doc_id"]


class Lexical:
    """qid, query -> what a retriever that takes plain words only finds; the query stays as it was.

    Parameters
    ----------
    retriever: qid, query -> qid, query, docno, score, rank.
    """

    def __init__(self, retriever: _Step) -> None:
        self.retriever = retriever

    def __call__(self, frame: pd.DataFrame) -> pd.DataFrame:
        """The retriever's results for the frame's topics."""
        queries = _queries(frame)
        words = [plain_words(query) for query in queries["query"].tolist()]
        place = {qid: row for row, qid in enumerate(queries["qid"].tolist())}
        found = from_pyterrier(self.retriever(queries.assign(query=words)))
        return _attached(queries, [place[q] for q in found["query_id"]], found)

    def __repr__(self) -> str:
        return f"Lexical({getattr(self.retriever, '__self__', self.retriever)})"


class Dense:
    """qid, query -> the `depth` documents whose vectors have the largest cosine with the query's.

    Raises
    ------
    LabelerError: `encoder` gives no vectors.
    """

    def __init__(
        self, collection: Collection, depth: int, encoder: str, progress: labeling.Progress | None
    ) -> None:
        loaded = labeling.load(encoder, collection.grades)
        if not hasattr(loaded, "embed"):
            raise LabelerError(f"labeler {encoder!r} is no encoder: it gives no vectors of texts")
        self.encoder, self.depth = cast(labeling.Encoder, loaded), depth
        self.index = VectorIndex(collection, self.encoder, progress)

    def __call__(self, frame: pd.DataFrame) -> pd.DataFrame:
        """The nearest documents of the frame's topics."""
        queries = _queries(frame)
        hits = self.index.search(labeling.vectors(self.encoder, queries["query"].tolist()), self.depth)
        run = hits.select(pl.col("query").cast(pl.String).alias("query_id"), "doc_id", score=_double("score"))
        kept = top(rank(run), self.depth)
        return _attached(queries, kept["query_id"].cast(pl.Int64).to_list(), kept)

    def __repr__(self) -> str:
        return f"Dense({labeling.label_id(self.encoder)}, {self.depth})"


class Fusion:
    """qid, query -> the `depth` best by the sum, over the systems, of 1 / (60 + the document's rank from 1).

    Parameters
    ----------
    one, other: two systems, no more: the order of three terms could show in the last bit of their sum.
    """

    def __init__(self, one: _Step, other: _Step, depth: int) -> None:
        self.systems, self.depth = (one, other), depth

    def __call__(self, frame: pd.DataFrame) -> pd.DataFrame:
        """The fused results of the frame's topics."""
        queries = _queries(frame)
        runs = pl.concat([from_pyterrier(system(queries)) for system in self.systems])
        share = 1 / (RRF_K + 1 + _double("rank"))
        kept = top(rank(runs.group_by("query_id", "doc_id").agg(share.sum().alias("score"))), self.depth)
        place = {qid: row for row, qid in enumerate(queries["qid"].tolist())}
        return _attached(queries, [place[q] for q in kept["query_id"]], kept)

    def __repr__(self) -> str:
        return f"Fusion({self.depth})"


class Rerank:
    """qid, query, docno -> the same rows by a labeler's score, or its expected grade where it gives no score.

    The labeler reads the query as it was before any rewriting, and the collection's text of the document.
    What it cannot judge (a document without text) comes last.
    """

    def __init__(self, collection: Collection, labeler: str, progress: labeling.Progress | None) -> None:
        self.collection, self.progress = collection, progress
        self.labeler = labeling.load(labeler, collection.grades)

    def __call__(self, frame: pd.DataFrame) -> pd.DataFrame:
        """The frame's rows in the labeler's order."""
        ids = pl.DataFrame(frame_ids(frame))
        asked = pl.Series(frame[_original_query(frame)].tolist(), dtype=pl.String)
        pairs = self.collection.pairs(ids).with_columns(query=asked)
        score = _scores(labeling.signals(self.labeler, pairs, progress=self.progress), self.labeler.grades)
        run = ids.with_columns(row=pl.int_range(ids.height), score=score)
        kept = rank(run).join(run.drop("score"), on=_IDS, maintain_order="left")
        return _attached(frame, kept["row"].to_list(), kept)

    def __repr__(self) -> str:
        return f"Rerank({labeling.label_id(self.labeler)})"


class Label:
    """qid, docno -> the same rows with `label`, `gain` and `assessor`, as a filled qrels would have them.

    A judged pair has the assessor's grade; any other the labeler's, calibrated on `human`: `label` is the
    hard grade, `gain` the expected one. A pair without a label has none (NA, NaN), which is not grade 0.

    Parameters
    ----------
    human: QRELS; what the calibrator is fitted on, and the judged documents that speak for their neighbours.

    Raises
    ------
    CalibrationError: there is too little in `human` to calibrate with.
    """

    def __init__(
        self,
        collection: Collection,
        labeler: str | labeling.Labeler,
        human: pl.DataFrame | None,
        ledger: Ledger | None,
    ) -> None:
        self.collection, self.ledger = collection, ledger
        self.labeler = labeling.load(labeler, collection.grades) if isinstance(labeler, str) else labeler
        self.human = check(collection.qrels() if human is None else human, QRELS, "qrels")

    @cached_property
    def _judged(self) -> tuple[pl.DataFrame, Calibrator]:
        """Signals of all judged pairs, and the calibrator that was fitted on them."""
        judged = self.human.filter(assessor="human").select(_IDS)
        if judged.is_empty():
            raise CalibrationError(f"no judgments to calibrate {labeling.label_id(self.labeler)} with")
        signals = self._signals(judged)
        return signals, calibrate([signals], self.human, sorted(self.collection.grades)).calibrator

    def _signals(self, ids: pl.DataFrame) -> pl.DataFrame:
        pairs = self.collection.pairs(ids)
        (pairs,) = example_batches(self.labeler, iter([pairs]), self.collection, self.human)
        return labeling.signals(self.labeler, pairs, ledger=self.ledger)

    def _labels(self, ids: pl.DataFrame) -> pl.DataFrame:
        """QRELS of the judged pairs of the ids' topics, and of those other ids that get a label."""
        if ids.is_empty():
            return empty(QRELS)
        known, calibrator = self._judged
        topics = pl.col("query_id").is_in(ids["query_id"].unique().to_list())
        known, human = known.filter(topics), self.human.filter(topics)
        new = ids.unique(maintain_order=True).join(human, on=_IDS, how="anti", maintain_order="left")
        signals = pl.concat([known, self._signals(new)]).filter(pl.col("reason").is_null())
        if signals.is_empty():
            return human.select(*QRELS)
        labels = calibrate([signals], human, sorted(self.collection.grades), calibrator=calibrator).labels
        labels = labels.rename({"labeler": "assessor"}).select(*QRELS).join(human, on=_IDS, how="anti")
        return pl.concat([human.select(*QRELS), labels])

    def __call__(self, frame: pd.DataFrame) -> pd.DataFrame:
        """The frame's rows, in their order, with labels."""
        import pandas as pd

        ids = pl.DataFrame(frame_ids(frame))
        rows = ids.join(self._labels(ids), on=_IDS, how="left", maintain_order="left")
        return frame.assign(
            label=pd.array(rows["relevance"].to_list(), dtype="Int64"),
            gain=rows["gain"].to_numpy(),
            assessor=rows["assessor"].to_list(),
        )

    def __repr__(self) -> str:
        return f"Label({labeling.label_id(self.labeler)})"


def _double(column: str) -> pl.Expr:
    return pl.col(column).cast(pl.Float64)


def _queries(frame: pd.DataFrame) -> pd.DataFrame:
    """The topics of a frame, each once, with all that belongs to the query and nothing of documents."""
    columns = [c for c in frame.columns if c == "qid" or c.startswith("query")]
    return frame[columns].drop_duplicates("qid").reset_index(drop=True)


def _original_query(frame: pd.DataFrame) -> str:
    """The column of the query as it was asked: each rewriting moves it one on, to query_0, query_1, …"""
    older = [c for c in frame.columns if re.fullmatch(r"query_\d+", c)]
    return max(older, key=lambda c: int(c[6:]), default="query")


def _scores(signals: pl.DataFrame, grades: Iterable[int]) -> pl.Series:
    """A score a row: the signal's own, or the expected grade, or, without a signal, one below all others."""
    values = sorted(grades)
    expected = [None if p is None else float(np.dot(p, values)) for p in signals["probs"].to_list()]
    score = signals["score"].cast(pl.Float64).fill_null(pl.Series(expected, dtype=pl.Float64))
    lowest = score.min()
    return score.fill_null((lowest if isinstance(lowest, float) else 0.0) - 1)


def _attached(frame: pd.DataFrame, rows: list[int], run: pl.DataFrame) -> pd.DataFrame:
    """These rows of `frame`, with the documents, scores and ranks of `run`, which has as many rows."""
    return (
        frame.iloc[rows]
        .reset_index(drop=True)
        .assign(
            docno=run["doc_id"].to_list(),
            score=run["score"].to_numpy(),
            rank=run["rank"].cast(pl.Int64).to_numpy(),
        )
    )
