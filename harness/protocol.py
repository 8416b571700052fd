"""The labeler protocol: what a labeler has, what it gives, and the checks that hold it to that.

A labeler that breaks the protocol is stopped with a `LabelerError` that names it and what is wrong; nothing
it gave is mended, clipped or guessed at.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeGuard

import numpy as np
import polars as pl

from harness.errors import LabelerError
from harness.frames import SIGNALS

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "CARD_KINDS",
    "Ask",
    "Composite",
    "Encoder",
    "Labeler",
    "Progress",
    "at_once",
    "checked",
    "checked_answers",
    "checked_vectors",
    "composed",
    "label_id",
    "shots",
    "usage",
    "values",
]

Progress = Callable[[int, int | None], None]
"""Called with the number of pairs (or texts) done so far and of all of them, None where that is not known."""

CARD_KINDS = ("base model", "teacher", "training data", "weights sha256")
"""What a card may state."""


class Labeler(Protocol):
    """Whatever looks at a pair and gives a signal. A shape to follow, not a class to inherit from."""

    name: str
    """One word without spaces or `@`; with the fingerprint it makes the label's id, `name@12345678`."""
    grades: dict[int, str]
    """The collection's grades and their words."""
    fingerprint: str
    """A digest of all that decides a signal (weights, adapter, prompt, decoding, and the grades where they
    matter), known
    without loading a model."""
    needs_text: bool
    """False: works by ids alone, is given pairs whose texts may be null, and is not kept in a ledger."""
    # It may also have a `card`, which says what it was made of: a mapping of some of CARD_KINDS to a
    # name, a list of names, or "none". By it `harness.circularity` tells whether it would judge a relative of
    # itself.

    def signal(self, pairs: pl.DataFrame) -> pl.DataFrame:
        """SIGNALS for PAIRS: one row a pair, in the same order.

        A row has `probs` (over the grades in ascending order, summing to 1), a finite `score`, or both, and a
        null reason; or neither and the reason why. `labeler` may be left out: it is always set to the label's
        id. What goes wrong with one pair is that pair's reason; such rows are not kept in a ledger, so that
        the next run tries them again.

        A labeler may also have

        - `usage() -> Mapping`: what its answers have cost (`harness.accounting`).
        - `examples: int`: with how many judged documents of its topic it wants to see each pair, at most. Its
          PAIRS then have a column `examples`, list of struct(text, grade) (`harness.examples`), which may be
          empty; where nobody's judgments are at hand, it is refused. 0 or absent: none.
        - `at_once: int`: how many pairs it wants at a time, if it is not left to the caller.
        """


class Encoder(Labeler, Protocol):
    """A labeler that also gives vectors of texts, and features of pairs.

    Its signals have two columns more, null where there is a reason: `features` list[f32], one value for each
    of `feature_names`, and `vector` Array(f32, dimension), which is what `embed` gives for the document's
    text.
    """

    dimension: int
    feature_names: Sequence[str]

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of unit length, one row a text: (n, dimension)."""


class Ask(Protocol):
    """How a composite asks its parts: through the ledger, where there is one."""

    def __call__(self, labeler: Labeler, pairs: pl.DataFrame) -> pl.DataFrame:
        """SIGNALS (an encoder's with features and vector) for PAIRS: same rows, same order."""

    def known(self, labeler: Labeler, pairs: pl.DataFrame) -> NDArray[np.bool_]:
        """For each of the pairs, whether the answer is there already, so that asking for it costs nothing."""

    def usage(self, labeler: Labeler) -> Mapping[str, Any]:
        """What a part's answers have cost since it was made, wherever it was asked."""


class Composite(Labeler, Protocol):
    """A labeler that is made of others.

    Its parts' signals are kept in the ledger under the parts' own fingerprints, its own are not: they cost
    nothing, and may depend on which pairs are asked about (a budget goes to some).
    """

    parts: Mapping[str, Labeler]
    """How a part is named on the command line -> the part."""
    whole: bool
    """Whether it has to see all pairs at once; otherwise it is given some thousand at a time."""

    def compose(self, pairs: pl.DataFrame, ask: Ask) -> pl.DataFrame:
        """SIGNALS for PAIRS, as `signal` would give them; also for pairs without a query or a text, which the
        parts answer with a reason. `ask` takes the values of `parts`."""


def composed(labeler: Any) -> TypeGuard[Composite]:
    """Whether a labeler is made of others."""
    return hasattr(labeler, "compose")


def usage(labeler: Any) -> Mapping[str, Any]:
    """What a labeler's answers have cost since it was made, by its own account; nothing, if it keeps none."""
    offered = getattr(labeler, "usage", None)
    told: Mapping[str, Any] = offered() if callable(offered) else {}
    return told


def label_id(labeler: Labeler) -> str:
    """What stands in the labeler and assessor columns: `name@` and eight characters of the fingerprint."""
    return f"{labeler.name}@{labeler.fingerprint[:8]}"


def shots(labeler: Labeler) -> int:
    """How many judged documents the labeler wants to see beside each pair; 0: none."""
    return int(getattr(labeler, "examples", 0))


def at_once(labeler: Labeler, usual: int) -> int:
    """How many pairs the labeler wants at a time, or the usual number if it does not say."""
    return int(getattr(labeler, "at_once", usual))


def values(labeler: Labeler) -> dict[str, pl.DataType]:
    """The columns, besides the ids and `labeler`, that this labeler's signals have, and their types."""
    columns = {c: SIGNALS[c] for c in ("probs", "score", "reason")}
    if _encodes(labeler):
        columns |= {"features": pl.List(pl.Float32()), "vector": pl.Array(pl.Float32(), labeler.dimension)}
    return columns


def _encodes(labeler: Any) -> TypeGuard[Encoder]:
    return hasattr(labeler, "embed")


def checked(spec: str, labeler: Any, grades: dict[int, str]) -> Labeler:
    """`labeler`, if it has what the protocol asks for.

    Raises
    ------
    LabelerError: what is missing or of another kind.
    """

    def broken(what: str) -> LabelerError:
        return LabelerError(f"labeler {spec!r} ({type(labeler).__name__}) breaks the protocol: {what}")

    methods = ["signal", *(m for m in ("embed", "compose") if hasattr(labeler, m))]
    needed = ["name", "grades", "fingerprint", "needs_text", *methods]
    needed += ["parts", "whole"] if composed(labeler) else []
    needed += ["dimension", "feature_names"] if _encodes(labeler) else []
    if missing := [part for part in needed if not hasattr(labeler, part)]:
        raise broken(f"it lacks {', '.join(missing)}")
    for part in ("name", "fingerprint"):
        value = getattr(labeler, part)
        if not isinstance(value, str) or not value or set(value) & set("@ \t\r\n"):
            raise broken(f"{part} is {value!r}, not one word of text without '@'")
    if not isinstance(labeler.needs_text, bool):
        raise broken(f"needs_text is {labeler.needs_text!r}, not True or False")
    if not isinstance(labeler.grades, dict) or set(labeler.grades) != set(grades):
        raise broken(f"its grades are {labeler.grades!r}, the collection's {grades!r}")
    if _encodes(labeler) and (not isinstance(labeler.dimension, int) or labeler.dimension < 1):
        raise broken(f"dimension is {labeler.dimension!r}, not a whole number of at least 1")
    for part, least in (("examples", 0), ("at_once", 1)):
        number = getattr(labeler, part, least)
        if not isinstance(number, int) or isinstance(number, bool) or number < least:
            raise broken(f"{part} is {number!r}, not a whole number of at least {least}")
    for part in methods:
        if not callable(getattr(labeler, part)):
            raise broken(f"{part} cannot be called")
    return labeler  # type: ignore[no-any-return]


def checked_answers(labeler: Labeler, pairs: pl.DataFrame, answers: Any) -> pl.DataFrame:
    """What `labeler.signal(pairs)` returned, as the columns of `values`, if it keeps to the protocol.

    Numbers of another width are cast and a blank reason is none; everything else that differs is an error.

    Raises
    ------
    LabelerError: the first thing that is wrong, and its row.
    """

    def broken(what: str) -> LabelerError:
        return LabelerError(f"labeler {label_id(labeler)} broke the protocol: {what}")

    if not isinstance(answers, pl.DataFrame):
        raise broken(f"signal() returned a {type(answers).__name__}, not a polars DataFrame")
    columns = {"query_id": pl.String(), "doc_id": pl.String(), **values(labeler)}
    if missing := [c for c in columns if c not in answers.columns]:
        raise broken(
            f"signal() returned no column {', '.join(missing)}; it returned {', '.join(answers.columns)}"
        )
    if answers.height != pairs.height:
        raise broken(f"signal() returned {answers.height} rows for {pairs.height} pairs")
    for column, kind in columns.items():
        if not _alike(answers.schema[column], kind):
            raise broken(f"column {column} is {answers.schema[column]}, not {kind}")
    try:
        frame: pl.DataFrame = answers.select(pl.col(c).cast(t) for c, t in columns.items())
    except pl.exceptions.PolarsError as exc:
        raise broken(f"its columns are not of their types: {exc}") from exc
    frame = frame.with_columns(pl.when(pl.col("reason").str.strip_chars() != "").then("reason"))
    asked, told = (list(zip(f["query_id"], f["doc_id"], strict=True)) for f in (pairs, frame))
    for row, (pair, about) in enumerate(zip(asked, told, strict=True)):
        if pair != about:
            raise broken(f"row {row} is about {about}, where {pair} was asked about")
    for what, wrong in _rules(labeler).items():
        if rows := frame.select(wrong.fill_null(False)).to_series().arg_true().to_list():
            raise broken(f"row {rows[0]} {asked[rows[0]]} has {what}")
    if _encodes(labeler):
        given = pl.col("reason").is_null()
        checked_vectors(labeler, frame.select(given.sum()).item(), frame.filter(given)["vector"].to_numpy())
        frame = frame.with_columns(pl.when(given).then(c) for c in ("features", "vector"))
    return frame.select(list(values(labeler)))


def checked_vectors(labeler: Encoder, texts: int, given: Any) -> NDArray[np.float32]:
    """Vectors that an encoder gave, if they are one of unit length (to 1e-3) for each text.

    Raises
    ------
    LabelerError: another shape, a value that is not finite, another length.
    """
    found, shape = np.asarray(given, dtype=np.float32), (texts, labeler.dimension)
    if found.shape != shape:
        raise LabelerError(
            f"labeler {label_id(labeler)} broke the protocol: vectors of shape {found.shape}, not {shape}"
        )
    length = np.linalg.norm(found, axis=1)
    if wrong := np.flatnonzero(~(np.abs(length - 1) <= 1e-3)).tolist():
        what = f"vector {wrong[0]} has length {length[wrong[0]]:.6g}, not 1"
        raise LabelerError(f"labeler {label_id(labeler)} broke the protocol: {what}")
    return found


def _alike(found: pl.DataType, kind: pl.DataType) -> bool:
    """Whether `found` may be cast to `kind` without guessing: numbers to numbers, lists to lists."""
    if found == pl.Null():
        return True
    if isinstance(kind, pl.List | pl.Array):
        return isinstance(found, pl.List | pl.Array) and (
            found.inner == pl.Null() or found.inner.is_numeric()
        )
    return found == kind or (kind.is_numeric() and found.is_numeric())


def _rules(labeler: Labeler) -> dict[str, pl.Expr]:
    """What a row may not have -> whether it has it."""
    probs, score, n = pl.col("probs"), pl.col("score"), len(labeler.grades)
    signal = probs.is_not_null() | score.is_not_null()
    # NaN sorts above every number in polars, so it is not between 0 and 1 either.
    value = pl.element().is_between(-1e-6, 1 + 1e-6).fill_null(False)
    rules = {
        "no signal and no reason": ~signal & pl.col("reason").is_null(),
        "a signal and a reason why there is none": signal & pl.col("reason").is_not_null(),
        f"probs that are not one for each of the {n} grades": probs.list.len() != n,
        "probs that are null, NaN or outside 0 to 1": ~probs.list.eval(value).list.all(),
        "probs that do not sum to 1": (probs.list.sum() - 1).abs() > 1e-3,
        "a score that is NaN or infinite": ~score.is_finite(),
    }
    if _encodes(labeler):
        features, count = pl.col("features"), len(labeler.feature_names)
        finite = pl.element().is_finite().fill_null(False)
        rules |= {
            "a signal but no features": signal & features.is_null(),
            f"features that are not one for each of the {count} feature_names": features.list.len() != count,
            "features that are null, NaN or infinite": ~features.list.eval(finite).list.all(),
            "a signal but no vector": signal & pl.col("vector").is_null(),
        }
    return rules
