"""Signals for pairs: misses only, in batches, each batch kept as it comes.

Signals do not depend on a pair's neighbours, so they are kept in a ledger (`harness.ledger`), and a labeler
is asked only for what is missing there, once for each distinct pair of texts. The labeler protocol and the
registry are `harness.protocol` and `harness.registry`; their names are here too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from harness.asking import Engine, Signaller, as_array, cut
from harness.composing import Composing
from harness.errors import LabelerError, StopgapError, told
from harness.ledger import text_hashes
from harness.protocol import Encoder, Labeler, Progress, checked_vectors, composed, label_id
from harness.registry import available, load

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from harness.ledger import Ledger

__all__ = [
    "Encoder",
    "Labeler",
    "Progress",
    "available",
    "label_id",
    "load",
    "signal_batches",
    "signals",
    "vectors",
]


def signal_batches(
    labeler: Labeler,
    batches: Iterable[pl.DataFrame],
    *,
    ledger: Ledger | None = None,
    batch_size: int | None = None,
    progress: Progress | None = None,
    engine: Engine | None = None,
) -> Iterator[pl.DataFrame]:
    """Signals for a stream of pairs, in bounded memory.

    Parameters
    ----------
    batches: PAIRS frames of any sizes. For a labeler that needs no text, query_id and doc_id are enough; one
        that wants to see examples needs their column too (`harness.examples`), and its signals are kept under
        the pair and its examples.
    ledger: where signals are looked up and kept. Each batch is one commit, so the same call after a kill goes
        on from there. Rows without a signal are not kept: they are tried again. A labeler that needs no text
        uses no ledger.
    batch_size: distinct pairs of texts that the labeler is given at a time; None: as many as it wants, or
        256.
    engine: asks labelers elsewhere (`harness.ray_engine`); needs a ledger, and all pairs are then in memory.

    Yields
    ------
    SIGNALS (an encoder's with features and vector), up to 4,096 rows at a time (or as many as the labeler
    wants at once), one for each pair and in their order. A pair without a query or a text is null with the
    reason `no query` or `no text`, and the labeler is not asked. Equal pairs of texts are asked once: ever,
    with a ledger; within each of these frames, without.

    Memory does not grow with the number of pairs, but for 16 bytes for each signal that the ledger has of
    this labeler; a composite that has to see all pairs at once (`protocol.Composite`) has them all in memory.

    Raises
    ------
    SchemaError: a frame is not PAIRS. UsageError: the ledger is an older version that lacks some pair,
        batch_size < 1, or the labeler wants to see examples and a frame has none.
    LabelerError: the labeler broke its protocol, or raised on its first batch or on 64 pairs in a row (what
        it raises on a pair otherwise is that pair's reason).
    """
    if composed(labeler):
        return Composing(labeler, ledger, batch_size, progress, None, engine).stream(batches)
    run = Signaller(labeler, ledger, batch_size, progress, None, engine)
    return run.stream(batches, run.window)


def signals(
    labeler: Labeler,
    pairs: pl.DataFrame,
    *,
    ledger: Ledger | None = None,
    batch_size: int | None = None,
    progress: Progress | None = None,
) -> pl.DataFrame:
    """Signals for a frame of pairs, as `signal_batches` gives them: same rows, same order, duplicates kept.

    Equal pairs of texts are asked once, with or without a ledger.
    """
    if composed(labeler):
        composing = Composing(labeler, ledger, batch_size, progress, pairs.height)
        return pl.concat([composing.empty(), *composing.stream([pairs])])
    run = Signaller(labeler, ledger, batch_size, progress, pairs.height)
    return pl.concat([run.empty(), *run.stream([pairs], run.window if run.ledger else max(pairs.height, 1))])


def vectors(
    encoder: Encoder,
    texts: Sequence[str],
    *,
    ledger: Ledger | None = None,
    progress: Progress | None = None,
) -> NDArray[np.float32]:
    """The vectors of texts: from the ledger, or from the encoder, 256 texts at a time, and then kept.

    A blank text has the zero vector (its cosine with any other is 0); the encoder is not asked.

    Returns
    -------
    (number of texts, dimension) float32, of unit length.

    Raises
    ------
    LabelerError: the encoder failed, or gave something else than vectors of unit length.
    """
    run = Signaller(encoder, ledger, 256, progress, len(texts))
    units: dict[str, int] = {}
    unit = np.array(
        [units.setdefault(t, len(units)) if t and t.strip() else -1 for t in texts], dtype=np.int64
    )
    count = np.bincount(unit[unit >= 0], minlength=len(units))
    distinct = list(units)
    hashes = pl.DataFrame({"doc_hash": text_hashes(distinct)}, schema={"doc_hash": pl.Binary()})
    table = np.zeros((len(units) + 1, encoder.dimension), dtype=np.float32)  # last row: a blank text's
    known = np.zeros(len(units), dtype=bool)
    if run.ledger is not None:
        stored = run.ledger.vectors.find(run.fingerprint, hashes)
        known[stored["row"].to_numpy()] = True
        table[:-1][known] = as_array(run, stored["vector"]).to_numpy()
    run.check_writable(int((~known).sum()))
    run.tell(len(texts) - int(count[~known].sum()))
    for rows in cut(np.flatnonzero(~known), run.batch_size):
        try:
            given = encoder.embed([distinct[i] for i in rows])
        except StopgapError:
            raise
        except Exception as exc:
            raise LabelerError(
                f"labeler {label_id(encoder)} failed on {rows.size} texts: {told(exc)}"
            ) from exc
        table[rows] = checked_vectors(encoder, rows.size, given)
        if run.ledger is not None:
            run.ledger.vectors.append(run.fingerprint, hashes[rows].with_columns(vector=table[rows]))
        run.tell(int(count[rows].sum()))
    run.tidy()
    return table[unit]
