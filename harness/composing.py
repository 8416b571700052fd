"""Asking a labeler that is made of others: each part through the ledger, under its own fingerprint."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from harness.asking import WINDOW, Engine, Signaller, windows
from harness.frames import SIGNALS
from harness.protocol import (
    Composite,
    Labeler,
    Progress,
    at_once,
    checked_answers,
    composed,
    label_id,
    usage,
    values,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from harness.ledger import Ledger

__all__ = ["Composing"]


class Composing:
    """One run of a composite over a stream of pairs. As what `compose` asks with, it is a `protocol.Ask`."""

    def __init__(
        self,
        labeler: Composite,
        ledger: Ledger | None,
        batch_size: int | None,
        progress: Progress | None,
        total: int | None,
        engine: Engine | None = None,
    ) -> None:
        self.engine = engine
        self.labeler, self.progress, self.total = labeler, progress, total
        self.ledger, self.batch_size = ledger, batch_size
        self.parts: dict[str, Signaller | Composing] = {}
        self.done = 0  # pairs that are wholly done
        self.window = 0  # pairs under way
        self.part_done = 0  # of the pairs under way, over all parts

    def empty(self) -> pl.DataFrame:
        """No signals, in the columns and types that this labeler's have."""
        return pl.DataFrame(schema={**SIGNALS, **values(self.labeler)})

    def stream(self, batches: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
        """Signals for all pairs at once, or for some thousand at a time."""
        frames = windows(batches, at_once(self.labeler, WINDOW), self.labeler)
        if self.labeler.whole or self.engine is not None:
            held = list(frames)
            frames = iter([pl.concat(held)] if held else [])
        made_by = pl.lit(label_id(self.labeler)).alias("labeler")
        for pairs in frames:
            self.window, self.part_done = pairs.height, 0
            answers = checked_answers(self.labeler, pairs, self.labeler.compose(pairs, self))
            self.done, self.window = self.done + pairs.height, 0
            self.tell()
            told = pairs.select("query_id", "doc_id").hstack(answers).with_columns(made_by)
            yield told.select(self.empty().columns)

    def tell(self) -> None:
        """Say how far it is; a part's share of the pairs under way counts as its share of the work."""
        if self.progress is not None:
            under_way = min(self.part_done // max(len(self.labeler.parts), 1), self.window)
            self.progress(self.done + under_way, self.total)

    def __call__(self, labeler: Labeler, pairs: pl.DataFrame) -> pl.DataFrame:
        """A part's signals for some pairs (`protocol.Ask`)."""
        run = self._of(labeler)
        before = self.part_done

        def progress(done: int, _: int | None) -> None:
            self.part_done = before + done - start
            self.tell()

        start, run.progress = run.done, progress
        if isinstance(run, Composing):
            return pl.concat([run.empty(), *run.stream([pairs])])
        return pl.concat([run.empty(), *run.stream([pairs], run.window)])

    def usage(self, labeler: Labeler) -> Mapping[str, Any]:
        """What a part tells of its cost (`protocol.Ask`)."""
        return usage(labeler)

    def known(self, labeler: Labeler, pairs: pl.DataFrame) -> NDArray[np.bool_]:
        """For each pair, whether a part's answer is in the ledger (`protocol.Ask`)."""
        return self._of(labeler).known_pairs(pairs)

    def known_pairs(self, pairs: pl.DataFrame) -> NDArray[np.bool_]:
        """For each pair, whether the answers of all parts are in the ledger."""
        known = [self.known(part, pairs) for part in self.labeler.parts.values()]
        return np.asarray(np.logical_and.reduce(known))

    def _of(self, labeler: Labeler) -> Signaller | Composing:
        run = self.parts.get(labeler.fingerprint)
        if run is None:
            kind = Composing if composed(labeler) else Signaller
            run = kind(labeler, self.ledger, self.batch_size, None, None, self.engine)  # type: ignore[arg-type]
            self.parts[labeler.fingerprint] = run
        return run
