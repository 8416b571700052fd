"""What a student learns before the grades: another labeler's score, on pairs that nobody has graded.

A layer that is new knows nothing, and a few thousand grades are not enough to teach a model to compare two
texts. Scores cost nothing, so it can learn to compare from as many pairs as there is time for; the grades
then only have to correct it. The slope of its logits over the grades (`losses.contrast`) learns the score.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from harness.draws import generator
from harness.errors import InputError, LabelerError
from harness.registry import load
from harness.trec_bytes import replace_file
from labelers.distill.losses import contrast
from labelers.distill.rows import line_bytes
from labelers.distill.train_data import Taught
from labelers.distill.train_settings import Warmup
from labelers.distill.trainer import Phase

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from harness.labeling import Progress

__all__ = ["unlabelled", "warmup_phase"]

_STREAM = 613
_AT_ONCE = 256


def warmup_phase(
    settings: Warmup,
    taught: Sequence[Taught],
    grades: Mapping[int, str],
    device: str,
    seed: int,
    kept: Path,
    progress: Progress | None = None,
) -> Phase:
    """The phase. The scores are asked for once and kept in the file `kept`.

    Parameters
    ----------
    taught: the pairs to train on, whose queries and texts are put together anew.

    Raises
    ------
    LabelerError: the labeler gives no scores, or one and the same.
    """
    import torch

    pairs = unlabelled(taught, settings.pairs, seed)
    scores = _kept(kept, len(pairs))
    if scores is None:
        scores = _asked(settings.labeler, pairs, dict(grades), progress)
        with replace_file(kept) as file:
            for pair, score in zip(pairs, scores, strict=True):
                told = None if np.isnan(score) else float(score)
                file.write(line_bytes({"query_id": pair.query_id, "doc_id": pair.doc_id, "score": told}))
    known = ~np.isnan(scores)
    if known.sum() < 2 or np.ptp(scores[known]) == 0:
        what = "no two different scores" if known.any() else "no scores"
        raise LabelerError(f"warmup: {settings.labeler} gives {what} for {len(pairs)} pairs to learn from")
    pairs = [pair for pair, is_known in zip(pairs, known, strict=True) if is_known]
    target = (scores[known] - scores[known].mean()) / scores[known].std()
    z = torch.tensor(target, dtype=torch.float32, device=device)
    scale = torch.tensor(sorted(grades), dtype=torch.float32, device=device)

    def loss(logits: object, rows: Sequence[int]) -> object:
        return (contrast(logits, scale) - z[list(rows)]) ** 2

    return Phase("warmup", pairs, np.ones(len(pairs)), loss, settings.epochs)


def unlabelled(taught: Sequence[Taught], number: int, seed: int) -> list[Taught]:
    """So many pairs at most, each once: half of those at hand, and half queries with any document."""
    rng = generator(seed, _STREAM)
    order = rng.permutation(len(taught))
    chosen = [taught[n] for n in order[: (number + 1) // 2]]
    seen = {(one.query, one.text) for one in chosen}
    rows = rng.integers(len(taught), size=(number, 2)).tolist()
    for query, document in rows:
        if len(chosen) >= number:
            break
        one, other = taught[query], taught[document]
        if (one.query, other.text) not in seen:
            seen.add((one.query, other.text))
            chosen.append(one._replace(doc_id=other.doc_id, text=other.text))
    return chosen


def _asked(
    labeler: str, pairs: Sequence[Taught], grades: dict[int, str], progress: Progress | None
) -> NDArray[np.float64]:
    """The labeler's scores: for an encoder the cosine of its vectors, else what it gives as score, or the
    expected grade where it gives distributions; nan where it gives none."""
    asked = load(labeler, grades)
    if callable(embed := getattr(asked, "embed", None)):
        return _cosines(embed, pairs, progress)
    scale = sorted(grades)
    found: list[float] = []
    for first in range(0, len(pairs), _AT_ONCE):
        part = pairs[first : first + _AT_ONCE]
        frame = pl.DataFrame(
            [(p.query_id, p.doc_id, p.query, p.text) for p in part],
            schema=["query_id", "doc_id", "query", "text"],
            orient="row",
        )
        for probs, score in asked.signal(frame).select("probs", "score").iter_rows():
            if score is None and probs is not None:
                score = sum(p * g for p, g in zip(probs, scale, strict=True))
            found.append(np.nan if score is None else float(score))
        if progress:
            progress(len(found), len(pairs))
    return np.array(found)


def _cosines(
    embed: Callable[[Sequence[str]], NDArray[np.float32]], pairs: Sequence[Taught], progress: Progress | None
) -> NDArray[np.float64]:
    """Each text is read once, in however many pairs it is."""
    texts = list(dict.fromkeys(text for pair in pairs for text in (pair.query, pair.text)))
    place = {text: n for n, text in enumerate(texts)}
    parts = []
    for first in range(0, len(texts), _AT_ONCE):
        parts.append(embed(texts[first : first + _AT_ONCE]))
        if progress:
            progress(min(first + _AT_ONCE, len(texts)), len(texts))
    vectors = np.concatenate(parts).astype(np.float64)
    rows = np.array([(place[pair.query], place[pair.text]) for pair in pairs])
    return np.asarray(np.einsum("nd,nd->n", vectors[rows[:, 0]], vectors[rows[:, 1]]))


def _kept(path: Path, number: int) -> NDArray[np.float64] | None:
    """The scores in the file, if they are there."""
    if not path.is_file():
        return None
    try:
        scores = [json.loads(line)["score"] for line in path.read_bytes().splitlines()]
        found = np.array([np.nan if score is None else float(score) for score in scores])
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(path, None, f"holds no scores: {error}", f"Next: delete {path}") from None
    return found if len(found) == number else None
