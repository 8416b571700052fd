"""Signals for pairs: misses only, in batches, each batch kept as it comes.

Signals do not depend on a pair's neighbours, so they are kept in a ledger (`harness.ledger`), and a labeler
is asked only for what is missing there, once for each distinct pair of texts. The labeler protocol and the
registry are `harness.protocol` and `harness.registry`; their names are here too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import polars as pl

from harness.errors import LabelerError, StopgapError, UsageError
from harness.frames import EXAMPLES, PAIRS, SIGNALS, check
from harness.ledger import SIGNAL_ROWS, text_hashes
from harness.protocol import (
    Encoder,
    Labeler,
    at_once,
    checked_answers,
    checked_vectors,
    label_id,
    shots,
    values,
)
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

Progress = Callable[[int, int | None], None]
"""Called with the number of pairs (or texts) done so far and of all of them, None where that is not known."""

_WINDOW = 4096  # pairs that are held at a time: deduplicated, looked up and answered together
_TOO_MANY = 64  # pairs in a row that a labeler may raise on before it counts as broken


def signal_batches(
    labeler: Labeler,
    batches: Iterable[pl.DataFrame],
    *,
    ledger: Ledger | None = None,
    batch_size: int | None = None,
    progress: Progress | None = None,
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

    Yields
    ------
    SIGNALS (an encoder's with features and vector), up to 4,096 rows at a time (or as many as the labeler
    wants at once), one for each pair and in their order. A pair without a query or a text is null with the
    reason `no query` or `no text`, and the labeler is not asked. Equal pairs of texts are asked once: ever,
    with a ledger; within each of these frames, without.

    Memory does not grow with the number of pairs, but for 16 bytes for each signal that the ledger has of
    this labeler.

    Raises
    ------
    SchemaError: a frame is not PAIRS. UsageError: the ledger is an older version that lacks some pair,
        batch_size < 1, or the labeler wants to see examples and a frame has none.
    LabelerError: the labeler broke its protocol, or raised on its first batch or on 64 pairs in a row (what
        it raises on a pair otherwise is that pair's reason).
    """
    run = _Signaller(labeler, ledger, batch_size, progress, None)
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
    run = _Signaller(labeler, ledger, batch_size, progress, pairs.height)
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
    run = _Signaller(encoder, ledger, 256, progress, len(texts))
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
        table[:-1][known] = _as_array(run, stored["vector"]).to_numpy()
    run.check_writable(int((~known).sum()))
    run.tell(len(texts) - int(count[~known].sum()))
    for rows in _cut(np.flatnonzero(~known), run.batch_size):
        try:
            given = encoder.embed([distinct[i] for i in rows])
        except StopgapError:
            raise
        except Exception as exc:
            raise LabelerError(
                f"labeler {label_id(encoder)} failed on {rows.size} texts: {_told(exc)}"
            ) from exc
        table[rows] = checked_vectors(encoder, rows.size, given)
        if run.ledger is not None:
            run.ledger.vectors.append(run.fingerprint, hashes[rows].with_columns(vector=table[rows]))
        run.tell(int(count[rows].sum()))
    run.tidy()
    return table[unit]


class _Signaller:
    """One run of one labeler over a stream of pairs."""

    def __init__(
        self,
        labeler: Labeler,
        ledger: Ledger | None,
        batch_size: int | None,
        progress: Progress | None,
        total: int | None,
    ) -> None:
        # Windows of just what the labeler wants at once: what failed and is asked for again on a second run
        # then leaves the other windows as they were, and a batch that a server works on is found again.
        self.window = at_once(labeler, _WINDOW)
        batch_size = at_once(labeler, 256) if batch_size is None else batch_size
        if batch_size < 1:
            raise UsageError(f"batch_size is {batch_size}; it must be at least 1")
        self.labeler, self.batch_size, self.progress, self.total = labeler, batch_size, progress, total
        self.ledger = ledger if labeler.needs_text else None
        self.fingerprint, self.values = labeler.fingerprint, values(labeler)
        self.columns = PAIRS | ({"examples": EXAMPLES} if shots(labeler) and labeler.needs_text else {})
        self.encodes = "vector" in self.values
        self.done = 0
        self.answered = False  # whether this labeler has ever given a signal, as far as is known here
        self.raised = 0  # pairs in a row that it raised on

    def empty(self) -> pl.DataFrame:
        """No signals, in the columns and types that this labeler's have."""
        return pl.DataFrame(schema={**SIGNALS, **self.values})

    def stream(self, batches: Iterable[pl.DataFrame], size: int) -> Iterator[pl.DataFrame]:
        """Signals for windows of `size` pairs."""
        order, made_by = self.empty().columns, pl.lit(label_id(self.labeler)).alias("labeler")
        for pairs in _windows(map(self.checked, batches), size, self.labeler.needs_text, self.columns):
            if self.labeler.needs_text:
                answers = self._with_texts(pairs)
            else:
                answers = self.ask(pairs)
                self.tell(pairs.height)
            yield pairs.select("query_id", "doc_id").hstack(answers).with_columns(made_by).select(order)
        self.tidy()

    def checked(self, batch: pl.DataFrame) -> pl.DataFrame:
        """The frame, unless it lacks the examples that the labeler wants to see."""
        if "examples" in self.columns and "examples" not in batch.columns:
            raise UsageError(
                f"labeler {label_id(self.labeler)} shows judged documents as examples, and no judgments are "
                "at hand where it is asked here.\nNext: a prompt without examples"
            )
        return batch

    def tidy(self) -> None:
        """What is done to the ledger at the end of a run."""
        if self.ledger is not None:
            self.ledger.compact(self.fingerprint)

    def tell(self, pairs: int) -> None:
        """Count pairs as done."""
        self.done += pairs
        if self.progress is not None and pairs:
            self.progress(self.done, self.total)

    def _with_texts(self, pairs: pl.DataFrame) -> pl.DataFrame:
        """The values of each pair: from the ledger, from the labeler, or null and why."""
        blank = {c: pairs[c].is_null() | (pairs[c].str.strip_chars() == "") for c in ("query", "text")}
        asked = ~(blank["query"] | blank["text"]).to_numpy()
        distinct, unit = _distinct(pairs.filter(asked))
        count = np.bincount(unit, minlength=distinct.height)
        desk = _Desk(self, distinct)
        self.tell(pairs.height - int(count[desk.missing].sum()))
        for rows in _cut(desk.missing, self.batch_size):
            desk.take(rows, self.ask(distinct[rows].select(list(self.columns))))
            self.tell(int(count[rows].sum()))
        nothing = pl.DataFrame({c: [None] for c in self.values}, schema=self.values)
        place = np.full(pairs.height, distinct.height)
        place[asked] = unit
        why = pl.when(blank["query"]).then(pl.lit("no query")).when(blank["text"]).then(pl.lit("no text"))
        return pl.concat([desk.answers(), nothing])[place].with_columns(
            why.otherwise(pl.col("reason")).alias("reason")
        )

    def ask(self, pairs: pl.DataFrame) -> pl.DataFrame:
        """The labeler's own values for PAIRS, checked."""
        try:
            answers = checked_answers(self.labeler, pairs, self.labeler.signal(pairs))
        except StopgapError:
            raise
        except Exception as exc:
            return self._ask_singly(pairs, exc)
        if answers["reason"].is_null().any():
            self.answered, self.raised = True, 0
        return answers

    def _ask_singly(self, pairs: pl.DataFrame, first: Exception) -> pl.DataFrame:
        """What the labeler gives for each pair alone, after it raised on all together.

        So a bad pair costs only itself. When the labeler raises on too many in a row, or has never yet
        answered, it is not the pairs that are bad.
        """
        parts: list[pl.DataFrame] = []
        for pair in pairs.iter_slices(1):
            try:
                if pairs.height == 1:
                    raise first
                parts.append(checked_answers(self.labeler, pair, self.labeler.signal(pair)))
                self.answered, self.raised = True, 0
            except StopgapError:
                raise
            except Exception as exc:
                self.raised += 1
                last = len(parts) == pairs.height - 1
                if self.raised >= _TOO_MANY or (last and not self.answered):
                    raise LabelerError(
                        f"labeler {label_id(self.labeler)} failed on {self.raised} pairs in a row, the last "
                        f"with {_told(exc)}. A pair it cannot answer should get a reason instead. What was "
                        "answered before this batch is in the ledger, if any: run again to go on there"
                    ) from exc
                null = {**dict.fromkeys(self.values), "reason": [_told(exc)]}
                parts.append(pl.DataFrame(null, schema=self.values))
        return pl.concat(parts)

    def check_writable(self, missing: int) -> None:
        """Raise UsageError if something is missing in a ledger that nothing can be added to."""
        if missing and self.ledger is not None and self.ledger.read_only:
            raise UsageError(
                f"version {self.ledger.version} of ledger {self.ledger.path} lacks {missing} signals or "
                f"vectors of {label_id(self.labeler)}, and nothing can be added to it; use the newest one"
            )


class _Desk:
    """The answers for the distinct pairs of one window: those in the ledger, and the others as they come in.

    Vectors belong to documents, so each document has one, the first that anybody made.
    """

    def __init__(self, run: _Signaller, distinct: pl.DataFrame) -> None:
        self.run, self.distinct = run, distinct
        self.plain = {c: t for c, t in run.values.items() if c != "vector"}
        self.vectors = pl.DataFrame(
            schema={"doc_hash": pl.Binary(), "vector": run.values.get("vector", pl.Null())}
        )
        self.parts = [pl.DataFrame(schema={"row": pl.UInt32(), **self.plain})]
        if run.ledger is not None:
            self._look_up(run.ledger)
        known = np.zeros(distinct.height, dtype=bool)
        known[self.parts[-1]["row"].to_numpy()] = True
        run.answered = run.answered or bool(known.any())
        self.missing = np.flatnonzero(~known)
        run.check_writable(self.missing.size)

    def _look_up(self, ledger: Ledger) -> None:
        run, distinct = self.run, self.distinct
        found = ledger.signals.find(run.fingerprint, distinct)
        lengths = [("probs", len(run.labeler.grades))]
        if run.encodes:
            docs = distinct.select("doc_hash").unique(maintain_order=True)
            stored = ledger.vectors.find(run.fingerprint, docs)
            self.vectors = docs[stored["row"]].hstack([_as_array(run, stored["vector"])])
            found = found.filter(
                distinct["doc_hash"].gather(found["row"]).is_in(self.vectors["doc_hash"].implode())
            )
            lengths.append(("features", len(cast("Encoder", run.labeler).feature_names)))
        for column, length in lengths:
            if (found[column].list.len() != length).any():
                raise _stale(run, f"{column} of another length than {length}")
        self.parts.append(
            found.with_columns(pl.lit(None, pl.String()).alias("reason")).select("row", *self.plain)
        )

    def take(self, rows: NDArray[np.int64], answers: pl.DataFrame) -> None:
        """Take in what the labeler gave for these rows, and keep in the ledger what has a value."""
        self.parts.append(answers.select(pl.Series("row", rows, dtype=pl.UInt32), *self.plain))
        hashed = self.distinct[rows].select("query_hash", "doc_hash").hstack(answers)
        good = hashed.filter(pl.col("reason").is_null())
        ledger = self.run.ledger
        if self.run.encodes:
            new = good.select("doc_hash", "vector").unique("doc_hash", keep="first", maintain_order=True)
            new = new.join(self.vectors, on="doc_hash", how="anti", maintain_order="left")
            self.vectors = pl.concat([self.vectors, new])
            if ledger is not None:
                # Before the signals, so that a signal that is there has its vector.
                ledger.vectors.append(self.run.fingerprint, new)
        if ledger is not None:
            absent = [pl.lit(None).alias(c) for c in SIGNAL_ROWS if c not in good.columns]
            ledger.signals.append(self.run.fingerprint, good.with_columns(absent))

    def answers(self) -> pl.DataFrame:
        """One row for each distinct pair, in their order."""
        told = pl.concat(self.parts).sort("row")
        if self.run.encodes:
            told = told.with_columns(self.distinct["doc_hash"]).join(
                self.vectors, on="doc_hash", how="left", maintain_order="left"
            )
            told = told.with_columns(pl.when(pl.col("reason").is_null()).then("vector"))
        return told.select(list(self.run.values))


def _stale(run: _Signaller, what: str) -> LabelerError:
    return LabelerError(
        f"the ledger has {what} under the fingerprint of labeler {label_id(run.labeler)}; "
        "a fingerprint must change with everything that decides a signal"
    )


def _as_array(run: _Signaller, found: pl.Series) -> pl.Series:
    kind = cast("pl.Array", run.values["vector"])
    if (found.list.len() != kind.size).any():
        raise _stale(run, f"vectors of another dimension than {kind.size}")
    return found.cast(kind)


def _windows(
    batches: Iterable[pl.DataFrame], size: int, with_texts: bool, columns: dict[str, pl.DataType]
) -> Iterator[pl.DataFrame]:
    """The same pairs in frames of exactly `size` rows, the last of what is left."""
    held: list[pl.DataFrame] = []
    for batch in batches:
        if with_texts:
            pairs = check(batch, columns, "pairs")
        else:
            pairs = check(batch, {c: PAIRS[c] for c in ("query_id", "doc_id")}, "pairs")
            pairs = pairs.with_columns(
                pl.lit(None, PAIRS[c]).alias(c) for c in PAIRS if c not in batch.columns
            )
        held.append(pairs.select(list(columns)))
        if sum(h.height for h in held) >= size:
            whole = pl.concat(held)
            full = whole.height - whole.height % size
            yield from whole[:full].iter_slices(size)
            held = [whole[full:]]
    if any(h.height for h in held):
        yield pl.concat(held)


def _distinct(pairs: pl.DataFrame) -> tuple[pl.DataFrame, NDArray[np.int64]]:
    """The first of each pair of texts, with their hashes, and for every pair which of these it is."""
    hashes = {"query_hash": text_hashes(pairs["query"]), "doc_hash": text_hashes(pairs["text"])}
    if "examples" in pairs.columns:
        hashes["query_hash"] = _with_examples(hashes["query_hash"], pairs["examples"].to_list())
    units: dict[bytes, int] = {}
    first: list[int] = []
    unit = np.empty(pairs.height, dtype=np.int64)
    for i, (query, doc) in enumerate(zip(*hashes.values(), strict=True)):
        unit[i] = units.setdefault(query + doc, len(units))
        if len(units) > len(first):
            first.append(i)
    columns = [pl.Series(c, h, dtype=pl.Binary) for c, h in hashes.items()]
    return pairs.hstack(columns)[first], unit


def _with_examples(queries: list[bytes], examples: Sequence[Sequence[dict[str, Any]] | None]) -> list[bytes]:
    """Hashes of queries and of what is shown with them, texts and grades: another judgment is another key."""
    known: dict[str, bytes] = {}  # a text is an example of many pairs
    told = []
    for query, shown in zip(queries, examples, strict=True):
        both = sha256(query)
        for one in shown or []:
            text = one["text"]
            both.update(known.get(text) or known.setdefault(text, text_hashes([text])[0]))
            both.update(f"{one['grade']:+d};".encode())
        told.append(both.digest())
    return told


def _cut(rows: NDArray[np.int64], size: int) -> Iterator[NDArray[np.int64]]:
    for start in range(0, rows.size, size):
        yield rows[start : start + size]


def _told(exc: BaseException) -> str:
    return f"{type(exc).__name__}: {exc}" if str(exc) else type(exc).__name__
