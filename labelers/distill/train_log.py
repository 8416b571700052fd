"""`train.jsonl`, what happened in a training, one JSON object a line; and agreement on the dev topics."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from labelers.distill.losses import middle

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Log", "agreement"]


class Log:
    """The file. A line has `phase`, `epoch`, `step` and what there is to say.

    Nothing in it depends on the clock, so that a training that was killed and went on has the same file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def size(self) -> int:
        """Bytes of the file, which a checkpoint keeps."""
        return self.path.stat().st_size if self.path.exists() else 0

    def cut(self, size: int) -> None:
        """Take off what was written after a checkpoint: it will be written again."""
        if self.size > size:
            with self.path.open("r+b") as file:
                file.truncate(size)

    def add(self, **said: Any) -> None:
        """A line more; floats with six digits."""
        short = {key: float(f"{v:.6g}") if isinstance(v, float) else v for key, v in said.items()}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(short) + "\n")


def agreement(probs: NDArray[Any], taught: NDArray[Any], grades: Sequence[int]) -> dict[str, float | None]:
    """How well a student's distributions agree with the teachers': (pairs, grades) both.

    Returns
    -------
    auc: of the expected grade, for pairs whose expected grade is half the scale or more; 0.5 is chance, None
        where there are no such pairs or only such. kappa: Cohen's, of the most likely grades; None where
        both have one grade only, the same.
    """
    from sklearn.metrics import cohen_kappa_score, roc_auc_score

    scale = np.asarray(grades, dtype=np.float64)
    relevant = taught @ scale >= middle(scale)
    found, true = probs.argmax(axis=1), taught.argmax(axis=1)
    both = len({*found.tolist(), *true.tolist()}) > 1
    return {
        "auc": float(roc_auc_score(relevant, probs @ scale)) if 0 < relevant.sum() < len(relevant) else None,
        "kappa": float(cohen_kappa_score(true, found)) if both else None,
    }
