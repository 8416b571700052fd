"""The labeler `encoder:FOLDER`: a small head on what a frozen sentence encoder sees of a pair.

The folder holds head.json, a few numbers, and, where the encoder is not the embedded one, the folder
`encoder` with its model. Score, features and vector are the encoder's own, so that a calibrator's neighbours
work as with the bare encoder; the head adds probabilities of the grades, by a cumulative logit:
P(grade >= g) = logistic(z.w + cuts[g-1]), z the standardised features.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from harness.arrays import Floats
from harness.errors import LabelerError
from harness.frames import SIGNALS
from harness.protocol import Ask
from labelers.composed import Composed

__all__ = ["HEAD", "INNER", "EncoderHead", "Head", "grade_probs"]

HEAD, INNER = "head.json", "encoder"
"""In the folder: the numbers, and the encoder's folder if it is not the embedded one."""
_FORMAT = 1
_MOST = 8.0  # spreads that a feature may be from its mean


@dataclass(frozen=True)
class Head:
    """The numbers.

    Attributes
    ----------
    grades: ascending. features: the names of the inputs. center, scale: of the inputs, which are clipped at 8
        spreads. weights: of the standardised inputs. cuts: falling, one for each grade but the lowest.
    encoder: sha256 of the weights of the encoder that it was taught on.
    """

    grades: tuple[int, ...]
    features: tuple[str, ...]
    center: tuple[float, ...]
    scale: tuple[float, ...]
    weights: tuple[float, ...]
    cuts: tuple[float, ...]
    encoder: str

    def standardised(self, features: Floats) -> Floats:
        """Features (n, f) as the weights see them."""
        z = (features - np.asarray(self.center)) / np.asarray(self.scale)
        return np.asarray(np.clip(z, -_MOST, _MOST))

    def probs(self, features: Floats) -> Floats:
        """Probabilities of the grades (n, G) for features (n, f)."""
        # A sum, not @: the last bit of a product may hang on how many rows there are.
        return grade_probs(
            (self.standardised(features) * np.asarray(self.weights)).sum(axis=1), np.asarray(self.cuts)
        )

    def to_bytes(self) -> bytes:
        """What stands in head.json."""
        return json.dumps({"format": _FORMAT, **asdict(self)}, indent=1).encode() + b"\n"

    @classmethod
    def read(cls, path: Path) -> Head:
        """The numbers of a file.

        Raises
        ------
        LabelerError: it cannot be read, is of another format, or its parts do not fit together.
        """
        try:
            told = json.loads(path.read_bytes())
            if told.pop("format") != _FORMAT:
                raise ValueError("it is of another format")
            parts: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in told.items()}
            head = cls(**parts)
            if not head._fits():
                raise ValueError("its parts do not fit together")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise LabelerError(f"{path} is no head of an encoder: {error}\nNext: train it again") from None
        return head

    def _fits(self) -> bool:
        inputs = (self.center, self.scale, self.weights)
        return (
            all(len(part) == len(self.features) for part in inputs)
            and len(self.cuts) == len(self.grades) - 1 > 0
            and bool(np.isfinite([v for part in (*inputs, self.cuts) for v in part]).all())
            and min(self.scale) > 0
            and all(a > b for a, b in pairwise(self.cuts))
        )


def grade_probs(latent: Floats, cuts: Floats) -> Floats:
    """Probabilities of the grades (n, G) for latent values (n,) and falling cuts (G-1,)."""
    from scipy.special import expit

    reached = expit(latent[:, None] + cuts)
    edges = np.concatenate([np.ones((len(latent), 1)), reached, np.zeros((len(latent), 1))], axis=1)
    return np.asarray(edges[:, :-1] - edges[:, 1:])


class EncoderHead(Composed):
    """The labeler of the folder `argument`: an encoder's signals, with probabilities of the grades.

    No model is loaded. What is kept in the ledger is the encoder's own answer.

    Raises
    ------
    LabelerError: there is no head.json, it was taught other grades or on another encoder.
    MissingExtra: the package with the embedded encoder is not installed.
    """

    def __init__(self, argument: str | None, grades: dict[int, str]) -> None:
        folder = Path(argument or "").expanduser()
        if not argument or not (folder / HEAD).is_file():
            raise LabelerError(
                f"{folder} holds no {HEAD}, so it is no head of an encoder that `stopgap distill` trained"
            )
        self._head = head = Head.read(folder / HEAD)
        if list(head.grades) != sorted(grades):
            mine, theirs = (", ".join(map(str, g)) for g in (head.grades, sorted(grades)))
            raise LabelerError(f"{folder / HEAD} has learnt the grades {mine}; the collection's are {theirs}")
        spec = f"minilm:{folder / INNER}" if (folder / INNER).is_dir() else "minilm"
        super().__init__("encoder", [spec], grades, asdict(head))
        inner: Any = self.parts[spec]
        if inner.weights_digest != head.encoder or tuple(inner.feature_names) != head.features:
            raise LabelerError(
                f"{folder / HEAD} was taught on another encoder than there is now.\nNext: train it again"
            )

    def compose(self, pairs: pl.DataFrame, ask: Ask) -> pl.DataFrame:
        """The encoder's signals with `probs`; its reasons stay."""
        (inner,) = self.parts.values()
        found = ask(inner, pairs)
        said = found["features"].is_not_null()
        probs = np.zeros((found.height, len(self._head.grades)))
        if said.any():
            features = np.array(found["features"].drop_nulls().to_list(), dtype=float)
            probs[said.to_numpy()] = self._head.probs(features)
        column = pl.Series("probs", probs.astype(np.float32).tolist(), dtype=SIGNALS["probs"])
        return self.frame(pairs, found.with_columns(column))
