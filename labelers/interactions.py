"""What a query's and a document's token vectors say about each other, put into a few numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]

__all__ = ["FEATURES", "QueryView", "WindowView", "features", "look", "unit"]

FEATURES = (
    "cosine",
    "cosine_document",
    "match_mean",
    "match_min",
    "match_std",
    "match_share_60",
    "match_share_80",
    "back_top3",
    "terms_share",
    "terms_all",
    "log_document",
    "log_query",
    "best_window",
)
"""In the order of `features`. `cosine`: the best window's vector with the query's; `cosine_document`: the
document's vector's. `match_*`: over the query's tokens, the cosine of each with its best token in the
document (late interaction: Khattab & Zaharia, ColBERT, 2020): mean, least, standard deviation, shares above
0.6 and 0.8. `back_top3`: mean of the three document tokens that match the query best. `terms_*`: shares of
the query's wordpieces in the document, and whether all are. `log_*`: log(1 + wordpieces). `best_window`:
where the best window lies, 0 first to 1 last."""


@dataclass(frozen=True)
class QueryView:
    """A query: unit token vectors (n, d) without the special ones, wordpieces, and the unit vector (d,)."""

    tokens: Vectors
    pieces: NDArray[np.int32]
    vector: Vectors


@dataclass(frozen=True)
class WindowView:
    """What one window of a document shows a query."""

    cosine: float
    match: Vectors
    back: Vectors
    shared: frozenset[int]


def look(query: QueryView, tokens: Vectors, vector: Vectors, pieces: NDArray[np.int32]) -> WindowView:
    """One window (unit token vectors, unit vector, wordpieces) as the query sees it."""
    alike = query.tokens @ tokens.T
    seen = alike.size > 0
    return WindowView(
        float(vector @ query.vector),
        alike.max(axis=1) if seen else np.zeros(len(query.tokens), np.float32),
        np.sort(alike.max(axis=0))[:-4:-1] if seen else np.zeros(1, np.float32),
        frozenset(query.pieces.tolist()) & frozenset(pieces.tolist()),
    )


def features(query: QueryView, windows: Sequence[WindowView], document: Vectors, length: int) -> list[float]:
    """FEATURES of a pair, from the views of all windows, the document's unit vector and its wordpieces'
    number."""
    cosines = [w.cosine for w in windows]
    match = np.max([w.match for w in windows], axis=0)
    match = match if match.size else np.zeros(1, np.float32)
    back = np.sort(np.concatenate([w.back for w in windows]))[:-4:-1]
    wanted = len(set(query.pieces.tolist()))
    share = len(frozenset[int]().union(*(w.shared for w in windows))) / max(1, wanted)
    values = [
        max(cosines),
        document @ query.vector,
        match.mean(),
        match.min(),
        match.std(),
        (match > 0.6).mean(),
        (match > 0.8).mean(),
        back.mean(),
        share,
        share == 1,
        np.log1p(length),
        np.log1p(len(query.pieces)),
        int(np.argmax(cosines)) / max(1, len(cosines) - 1),
    ]
    return [float(v) for v in values]


def unit(x: Vectors) -> Vectors:
    """Rows of unit length; a zero row stays zero."""
    return np.asarray(x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12), dtype=np.float32)
