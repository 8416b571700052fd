"""How documents of one topic resemble each other: the kernels that `calibrate` weighs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from harness.arrays import Floats, Ints
from harness.evidence import Pool, Topic

__all__ = ["STARTS", "STARTS_WITHOUT_VECTORS", "Amplitudes", "Space"]

Amplitudes = Mapping[str, float]
"""Kernel -> its share of the prior variance of a latent value."""

STARTS: Amplitudes = {"topic": 0.5, "direction": 1.0, "wide": 0.5, "narrow": 0.2, "slope": 0.3}
"""Where the amplitudes start and shrink to; chosen on llmjudge's development half."""
STARTS_WITHOUT_VECTORS: Amplitudes = {k: STARTS[k] for k in ("topic", "slope")}
_NARROW, _WIDE = 0.035, 0.5


class Space:
    """The documents of one topic as the kernels see them.

    `direction` and `wide` look at vectors less the mean of the topic's pool: what sets these documents
    apart from each other, not what they share by being about the topic. `narrow` looks at the vectors as
    they are: near-duplicates.
    """

    def __init__(self, pool: Pool, topic: Topic) -> None:
        self.pool = pool
        if pool.vectors is not None:
            seen = topic.rows[np.any(pool.vectors[topic.rows] != 0, axis=1)]
            self.mean = (
                pool.vectors[seen].mean(axis=0) if len(seen) else np.zeros(pool.vectors.shape[1], np.float32)
            )

    def cosine(self, left: Ints, right: Ints) -> Floats:
        """Cosines (n, m) of the documents of two lists of rows."""
        assert self.pool.vectors is not None
        return np.asarray(
            np.clip((self.pool.vectors[left] @ self.pool.vectors[right].T).astype(float), -1, 1)
        )

    def _apart(self, left: Ints, right: Ints) -> Floats:
        assert self.pool.vectors is not None
        sides = []
        for rows in (left, right):
            v = self.pool.vectors[rows]
            v = np.where(np.any(v != 0, axis=1)[:, None], v - self.mean, 0).astype(float)
            sides.append(v / np.maximum(np.linalg.norm(v, axis=1, keepdims=True), 1e-6))
        return np.asarray(np.clip(sides[0] @ sides[1].T, -1, 1))

    def kernel(self, name: str, left: Ints, right: Ints) -> Floats:
        """One kernel between two lists of rows; 1 for a row and itself (`slope`: the lead signal squared)."""
        if name == "topic":
            return np.ones((len(left), len(right)))
        if name == "slope":
            return np.outer(self.pool.lead[left], self.pool.lead[right])
        if name == "direction":
            return self._apart(left, right)
        if name == "wide":
            return np.asarray(np.exp((self._apart(left, right) - 1) / _WIDE))
        return np.asarray(np.exp((self.cosine(left, right) - 1) / _NARROW))

    def sum(self, amplitudes: Amplitudes, left: Ints, right: Ints) -> Floats:
        """All kernels with their amplitudes."""
        parts = (a * self.kernel(k, left, right) for k, a in amplitudes.items())
        return np.asarray(sum(parts))

    def own(self, amplitudes: Amplitudes, rows: Ints) -> Floats:
        """Prior variance of each row."""
        lead = self.pool.lead[rows] ** 2
        return np.asarray(sum(a * (lead if k == "slope" else 1.0) for k, a in amplitudes.items()))
