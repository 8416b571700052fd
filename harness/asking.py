"""Asking one labeler what the ledger lacks, once for each distinct pair of texts, and keeping each batch.

`harness.labeling` has the functions that others call.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast

import numpy as np
import polars as pl

from harness.errors import LabelerError, StopgapError, UsageError, told
from harness.frames import EXAMPLES, PAIRS, SIGNALS, check
from harness.ledger import SIGNAL_ROWS, text_hashes
from harness.protocol import Encoder, Labeler, Progress, at_once, checked_answers, label_id, shots, values

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from harness.ledger import Ledger

__all__ = ["WINDOW", "Elsewhere", "Engine", "Signaller", "as_array", "columns", "cut", "windows"]

WINDOW = 4096
"""Pairs that are held at a time: deduplicated, looked up and answered together."""
_TOO_MANY = 64  # pairs in a row that a labeler may raise on before it counts as broken


class Elsewhere(NamedTuple):
    """What asking a labeler elsewhere took.

    `refused`: row of the pairs -> why it has no answer. `asked`: pairs; `answered` of them; `seconds` that
    passed. `usage`: what the labelers there say of it (`harness.accounting`).
    """

    refused: dict[int, str]
    asked: int
    answered: int
    seconds: float
    usage: dict[str, Any]


class Engine(Protocol):
    """Asks labelers elsewhere than in this process."""

    def answer(
        self, labeler: Labeler, pairs: pl.DataFrame, ledger: Ledger, tell: Callable[[int], None]
    ) -> Elsewhere:
        """Have PAIRS (distinct, none of them in the ledger) answered, and the answers put into the ledger.
        `tell` is called with the number of pairs that were done since the last call."""


class Signaller:
    """One run of one labeler over a stream of pairs; with an engine, it is asked there, and about all pairs
    at once."""

    def __init__(
        self,
        labeler: Labeler,
        ledger: Ledger | None,
        batch_size: int | None,
        progress: Progress | None,
        total: int | None,
        engine: Engine | None = None,
    ) -> None:
        # Windows of just what the labeler wants at once: what failed and is asked for again on a second run
        # then leaves the other windows as they were, and a batch that a server works on is found again.
        self.window = at_once(labeler, WINDOW)
        batch_size = at_once(labeler, 256) if batch_size is None else batch_size
        if batch_size < 1:
            raise UsageError(f"batch_size is {batch_size}; it must be at least 1")
        self.labeler, self.batch_size, self.progress, self.total = labeler, batch_size, progress, total
        self.ledger = ledger if labeler.needs_text else None
        self.engine = engine if labeler.needs_text else None
        if self.engine is not None and self.ledger is None:
            raise UsageError("labelers that are asked elsewhere need a ledger to put their answers into")
        self.refused: dict[bytes, str] = {}  # query_hash + doc_hash -> why an engine has no answer
        self.fingerprint, self.values = labeler.fingerprint, values(labeler)
        self.columns = columns(labeler)
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
        frames = windows(batches, size, self.labeler)
        if self.engine is not None:
            held = list(frames)
            self._ask_elsewhere(held, self.engine)
            frames = iter(held)
        for pairs in frames:
            if self.labeler.needs_text:
                answers = self._with_texts(pairs)
            else:
                answers = self.ask(pairs)
                self.tell(pairs.height)
            yield pairs.select("query_id", "doc_id").hstack(answers).with_columns(made_by).select(order)
        self.tidy()

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
        blank = _blank(pairs)
        asked = ~(blank["query"] | blank["text"]).to_numpy()
        distinct, unit = _distinct(pairs.filter(asked))
        count = np.bincount(unit, minlength=distinct.height)
        desk = _Desk(self, distinct)
        if self.engine is not None:
            desk.take(desk.missing, self._refusals(distinct[desk.missing]))
        else:
            self.tell(pairs.height - int(count[desk.missing].sum()))
            for rows in cut(desk.missing, self.batch_size):
                desk.take(rows, self.ask(distinct[rows].select(list(self.columns))))
                self.tell(int(count[rows].sum()))
        nothing = pl.DataFrame({c: [None] for c in self.values}, schema=self.values)
        place = np.full(pairs.height, distinct.height)
        place[asked] = unit
        why = pl.when(blank["query"]).then(pl.lit("no query")).when(blank["text"]).then(pl.lit("no text"))
        return pl.concat([desk.answers(), nothing])[place].with_columns(
            why.otherwise(pl.col("reason")).alias("reason")
        )

    def _ask_elsewhere(self, frames: list[pl.DataFrame], engine: Engine) -> None:
        """Have all pairs of the frames that the ledger lacks answered by the engine."""
        assert self.ledger is not None
        lacking = [pairs.filter(~pl.Series(self.known_pairs(pairs))) for pairs in frames]
        if not lacking or not (missing := pl.concat(lacking)).height:
            self.tell(sum(pairs.height for pairs in frames))
            return
        missing, _ = _distinct(missing)
        self.check_writable(missing.height)
        self.tell(sum(pairs.height for pairs in frames) - missing.height)
        told = engine.answer(self.labeler, missing, self.ledger, self.tell)
        hashes = missing.select("query_hash", "doc_hash")
        self.refused |= {b"".join(hashes.row(row)): why for row, why in told.refused.items()}
        count = getattr(self.labeler, "count_elsewhere", None)
        if count is not None:
            count(told)

    def _refusals(self, distinct: pl.DataFrame) -> pl.DataFrame:
        """Why the engine has no answer for pairs that the ledger still lacks."""
        hashes = distinct.select("query_hash", "doc_hash").iter_rows()
        reasons = [self.refused.get(query + doc) for query, doc in hashes]
        if None in reasons:
            raise LabelerError(
                f"{reasons.count(None)} answers of labeler {label_id(self.labeler)} were given elsewhere and "
                "are not in the ledger here: do all machines see the same one?"
            )
        nothing = {c: pl.Series(c, [None] * len(reasons), t) for c, t in self.values.items()}
        return pl.DataFrame(nothing | {"reason": pl.Series("reason", reasons, pl.String())})

    def known_pairs(self, pairs: pl.DataFrame) -> NDArray[np.bool_]:
        """For each pair, whether it is answered without asking the labeler."""
        known = np.zeros(pairs.height, dtype=bool)
        if not self.labeler.needs_text:
            return ~known
        blank = _blank(pairs)
        asked = ~(blank["query"] | blank["text"]).to_numpy()
        known[~asked] = True
        if self.ledger is not None and asked.any():
            distinct, unit = _distinct(pairs.filter(asked))
            found = np.zeros(distinct.height, dtype=bool)
            found[self.ledger.signals.find(self.fingerprint, distinct)["row"].to_numpy()] = True
            if self.encodes:
                stored = np.zeros(distinct.height, dtype=bool)
                stored[self.ledger.vectors.find(self.fingerprint, distinct)["row"].to_numpy()] = True
                found &= stored
            known[asked] = found[unit]
        return known

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
                        f"with {told(exc)}. A pair it cannot answer should get a reason instead. What was "
                        "answered before this batch is in the ledger, if any: run again to go on there"
                    ) from exc
                null = {**dict.fromkeys(self.values), "reason": [told(exc)]}
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

    def __init__(self, run: Signaller, distinct: pl.DataFrame) -> None:
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
            self.vectors = docs[stored["row"]].hstack([as_array(run, stored["vector"])])
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


def _stale(run: Signaller, what: str) -> LabelerError:
    return LabelerError(
        f"the ledger has {what} under the fingerprint of labeler {label_id(run.labeler)}; "
        "a fingerprint must change with everything that decides a signal"
    )


def as_array(run: Signaller, found: pl.Series) -> pl.Series:
    """Vectors of the ledger as the labeler's own.

    Raises
    ------
    LabelerError: they are of another dimension.
    """
    kind = cast("pl.Array", run.values["vector"])
    if (found.list.len() != kind.size).any():
        raise _stale(run, f"vectors of another dimension than {kind.size}")
    return found.cast(kind)


def columns(labeler: Labeler) -> dict[str, pl.DataType]:
    """What a labeler is given of a pair: PAIRS, and the examples if it wants to see some."""
    return PAIRS | ({"examples": EXAMPLES} if shots(labeler) and labeler.needs_text else {})


def windows(batches: Iterable[pl.DataFrame], size: int, labeler: Labeler) -> Iterator[pl.DataFrame]:
    """The same pairs, with what the labeler is given of them, in frames of exactly `size` rows, the last of
    what is left.

    Raises
    ------
    SchemaError: a frame is not PAIRS. UsageError: it lacks the examples that the labeler wants to see.
    """
    wanted = columns(labeler)
    held: list[pl.DataFrame] = []
    for batch in batches:
        if "examples" in wanted and "examples" not in batch.columns:
            raise UsageError(
                f"labeler {label_id(labeler)} shows judged documents as examples, and no judgments are "
                "at hand where it is asked here.\nNext: a prompt without examples"
            )
        if labeler.needs_text:
            pairs = check(batch, wanted, "pairs")
        else:
            pairs = check(batch, {c: PAIRS[c] for c in ("query_id", "doc_id")}, "pairs")
            pairs = pairs.with_columns(
                pl.lit(None, PAIRS[c]).alias(c) for c in PAIRS if c not in batch.columns
            )
        held.append(pairs.select(list(wanted)))
        if sum(h.height for h in held) >= size:
            whole = pl.concat(held)
            full = whole.height - whole.height % size
            yield from whole[:full].iter_slices(size)
            held = [whole[full:]]
    if any(h.height for h in held):
        yield pl.concat(held)


def _blank(pairs: pl.DataFrame) -> pl.DataFrame:
    """For each pair, whether its `query` and its `text` are null or nothing but blanks."""
    return pairs.select((pl.col(c).fill_null("").str.strip_chars() == "").alias(c) for c in ("query", "text"))


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


def cut(rows: NDArray[np.int64], size: int) -> Iterator[NDArray[np.int64]]:
    """The rows, `size` at a time."""
    for start in range(0, rows.size, size):
        yield rows[start : start + size]
