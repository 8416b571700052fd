"""What a plan looks at: the documents of two runs that a measure sees, and what is believed of each.

A document that an assessor graded is known. Of any other there is a distribution over the grades: its
label's, or a prior learned from the judged documents that stand at like ranks, in all topics and in its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from harness.arrays import Bools, Floats, Ints
from harness.errors import SchemaError, UsageError
from harness.frames import QRELS, RUN, check
from harness.ranking import rank, top

__all__ = ["Documents", "read_documents", "scale_of"]

_KEYS = ["query_id", "doc_id"]
_RANK_PRIOR = 10.0
"""Judgments that the overall shares of the grades count for at each rank."""
_TOPIC_PRIOR = 5.0
"""Judgments that the other topics count for in each topic."""
_DOUBT = 0.02
"""What the prior keeps of every label: none is believed wholly, so none is beyond being asked for."""
_HARD_LABEL = 0.5
"""What a label without a distribution keeps of the prior."""
_SIDE_SPREAD = 1.0
"""Standard deviation, before any judgment, of `side` in log-odds a grade."""


@dataclass(frozen=True)
class Documents:
    """The documents that either run ranks within the measure's reach, one row each, in order of topic.

    Attributes
    ----------
    pairs: query_id, doc_id. `topics`: the topics that count, sorted; `topic`: position in it of each row.
    base, candidate: ranks from 1; infinite where the run does not have the document within reach.
    grades: the scale. `probs` (rows, grades): what is believed of each row; of a judged one a certainty.
    relevance: the assessors' grades; `hole`: rows that no assessor graded; `labeled`: those with a label.
    others: topic, relevance, probs of further rows of the qrels, which count in ideals alone.
    side: how much better than its ranks say the candidate's documents are, and the base's worse: mean and
        standard deviation, in log-odds a grade, from the judgments so far. `lean` (rows): -1 for a document
        that only the base has, 1 for one that only the candidate has, between for shared ones.
    """

    pairs: pl.DataFrame
    topics: list[str]
    topic: Ints
    base: Floats
    candidate: Floats
    grades: tuple[int, ...]
    probs: Floats
    relevance: Ints
    hole: Bools
    labeled: Bools
    others: tuple[Ints, Ints, Bools, Floats]
    side: tuple[float, float]
    lean: Floats


def scale_of(qrels: pl.DataFrame, grades: Sequence[int] | None) -> tuple[int, ...]:
    """The grades, ascending: those given, or 0 up to what the qrels show.

    Raises
    ------
    UsageError: there is nothing to tell them from, there are fewer than two, or one repeats.
    """
    if grades is not None:
        scale = tuple(sorted(grades))
        if len(set(scale)) < 2 or len(set(scale)) < len(scale):
            raise UsageError(f"the grades are {list(grades)}; a scale has two grades or more, each once")
        return scale
    if "probs" in qrels.columns and (width := qrels["probs"].list.len().max()):
        return tuple(range(max(2, int(str(width)))))
    if not qrels.height:
        raise UsageError(
            "there is no judgment yet, so nothing says which grades there are. Next: name the grades or a"
            " collection"
        )
    return tuple(range(max(1, int(str(qrels["relevance"].max()))) + 1))


def read_documents(
    base: pl.DataFrame,
    candidate: pl.DataFrame,
    qrels: pl.DataFrame,
    cutoff: int | None,
    grades: Sequence[int] | None = None,
    topics: Iterable[str] | None = None,
) -> Documents:
    """Join two runs and a qrels, and say what is believed of every document.

    Raises
    ------
    SchemaError: a frame lacks a column, `probs` do not fit the grades, or a pair is in the qrels twice.
    UsageError: no topic is left, or no scale of grades is known.
    """
    check(qrels, QRELS, "qrels")
    if qrels.select(_KEYS).is_duplicated().any():
        twice = qrels.filter(qrels.select(_KEYS).is_duplicated()).row(0)
        raise SchemaError(f"qrels: document {twice[1]!r} of topic {twice[0]!r} is there more than once")
    scale = scale_of(qrels, grades)
    tops = [
        _top(run, name, cutoff).select(*_KEYS, (pl.col("rank") + 1).cast(pl.Float64).alias(name))
        for run, name in ((base, "base"), (candidate, "candidate"))
    ]
    chosen = _topics(tops, qrels, topics)
    ranks = (
        tops[0]
        .join(tops[1], on=_KEYS, how="full", coalesce=True)
        .filter(pl.col("query_id").is_in(chosen))
        .sort(_KEYS)
    )
    if "probs" not in qrels.columns:
        qrels = qrels.with_columns(pl.lit(None, pl.List(pl.Float32())).alias("probs"))
    told = qrels.select(*_KEYS, "relevance", "probs", human=pl.col("assessor") == "human")
    rows = ranks.join(told, on=_KEYS, how="left", maintain_order="left")
    rest = told.filter(pl.col("query_id").is_in(chosen)).join(ranks, on=_KEYS, how="anti").sort(_KEYS)
    index = pl.DataFrame(
        {"query_id": chosen, "topic": np.arange(len(chosen))}, schema_overrides={"query_id": pl.String}
    )
    topic, rest_topic = (
        f.join(index, on="query_id", how="left", maintain_order="left")["topic"].to_numpy().astype(np.int64)
        for f in (rows, rest)
    )
    at = [rows[name].fill_null(np.inf).to_numpy() for name in ("base", "candidate")]
    relevance = rows["relevance"].fill_null(0).to_numpy().astype(np.int64)
    known = rows["human"].fill_null(False).to_numpy()
    labeled = rows["human"].is_not_null().to_numpy() & ~known
    prior = _prior(2.0 / (1.0 / at[0] + 1.0 / at[1]), topic, relevance, known, scale)
    lean = (1.0 / at[1] - 1.0 / at[0]) / (1.0 / at[1] + 1.0 / at[0])
    probs = _believed(rows, prior, labeled, scale)
    probs[known] = _certain(relevance[known], scale)
    human = rest["human"].to_numpy()
    usual = prior.mean(axis=0) if len(prior) else np.full(len(scale), 1.0 / len(scale))
    beyond = _believed(rest, np.tile(usual, (rest.height, 1)), ~human, scale)
    grade = rest["relevance"].to_numpy().astype(np.int64)
    beyond[human] = _certain(grade[human], scale)
    return Documents(
        rows.select(_KEYS), chosen, topic, at[0], at[1], scale, probs, relevance, ~known, labeled,
        (rest_topic, grade, human, beyond), _side(lean, relevance, known, prior, scale), lean,
    )  # fmt: skip


def _top(run: pl.DataFrame, name: str, cutoff: int | None) -> pl.DataFrame:
    whole = rank(check(run, RUN, f"{name} run"))
    return whole if cutoff is None else top(whole, cutoff)


def _topics(tops: list[pl.DataFrame], qrels: pl.DataFrame, topics: Iterable[str] | None) -> list[str]:
    """The topics that count: those asked for, else those of the qrels, else all of the runs."""
    if topics is not None:
        chosen = sorted(set(topics))
    elif qrels.height:
        chosen = qrels["query_id"].unique().sort().to_list()
    else:
        chosen = pl.concat([t["query_id"] for t in tops]).unique().sort().to_list()
    if not chosen:
        raise UsageError("there is no topic to plan for: the qrels and the runs are empty")
    if not any(t["query_id"].is_in(chosen).any() for t in tops):
        raise UsageError(
            f"neither run has a topic that counts, such as {chosen[0]!r}. Ids are text, so 007 is not 7."
            " Next: stopgap lint RUN --qrels QRELS"
        )
    return chosen


def _certain(relevance: Ints, scale: tuple[int, ...]) -> Floats:
    """1 for the grade of the scale that is nearest from below; the lowest for grades below all."""
    at = np.searchsorted(np.asarray(scale), relevance, side="right") - 1
    return np.eye(len(scale))[np.maximum(at, 0)]


def _believed(rows: pl.DataFrame, prior: Floats, labeled: Bools, scale: tuple[int, ...]) -> Floats:
    """The labels' distributions with a little of the prior; the prior where there is no label."""
    probs = prior.copy()
    given = labeled & rows["probs"].is_not_null().to_numpy()
    if given.any():
        lists = rows["probs"].filter(pl.Series(given))
        if lists.list.len().unique().to_list() != [len(scale)]:
            raise SchemaError(f"qrels: probs do not stand over the {len(scale)} grades {list(scale)}")
        told = np.array(lists.to_list(), dtype=np.float64)
        if not np.isfinite(told).all() or (told < 0).any() or (told.sum(axis=1) <= 0).any():
            raise SchemaError("qrels: probs hold something that is no distribution over the grades")
        told /= told.sum(axis=1, keepdims=True)
        probs[given] = (1 - _DOUBT) * told + _DOUBT * prior[given]
    hard = labeled & ~given
    grade = rows["relevance"].fill_null(0).to_numpy().astype(np.int64)
    probs[hard] = (1 - _HARD_LABEL) * _certain(grade[hard], scale) + _HARD_LABEL * prior[hard]
    return probs


def _prior(depth: Floats, topic: Ints, relevance: Ints, known: Bools, scale: tuple[int, ...]) -> Floats:
    """Grade shares at like ranks, times how much richer in each grade the topic is than its ranks say.

    Empirical Bayes, in closed form. `depth` is the harmonic mean of a document's two ranks (twice its rank
    where one run has it), in classes [1, 2), [2, 4), [4, 8), ...; each class shrinks to the overall shares,
    which start uniform. A topic's factor for a grade is (seen + s) / (expected + s): the posterior mean of a
    gamma-Poisson model.
    """
    size = len(scale)
    rank = np.floor(np.log2(depth)).astype(np.int64)
    classes, topics = int(rank.max(initial=0)) + 1, int(topic.max(initial=0)) + 1
    seen = _certain(relevance, scale) * known[:, None]
    overall = (seen.sum(axis=0) + 1.0) / (seen.sum() + size)
    by_rank = _sums(seen, rank, classes) + _RANK_PRIOR * overall
    by_rank /= by_rank.sum(axis=1, keepdims=True)
    prior = by_rank[rank]
    expected = _sums(prior * known[:, None], topic, topics)
    richer = (_sums(seen, topic, topics) + _TOPIC_PRIOR) / (expected + _TOPIC_PRIOR)
    prior = prior * richer[topic]
    return np.asarray(prior / prior.sum(axis=1, keepdims=True))


def _sums(values: Floats, group: Ints, groups: int) -> Floats:
    out = np.zeros((groups, values.shape[1]))
    np.add.at(out, group, values)
    return out


def _side(
    lean: Floats, relevance: Ints, known: Bools, prior: Floats, scale: tuple[int, ...]
) -> tuple[float, float]:
    """Posterior of the shift of log-odds a grade, per unit of `lean`: one Newton step from 0."""
    steps = np.arange(len(scale))
    expected = prior @ steps
    variance = prior @ steps**2 - expected**2
    surprise = _certain(relevance, scale) @ steps - expected
    told = lean * known
    precision = 1.0 / _SIDE_SPREAD**2 + float((told**2 * variance).sum())
    return float((told * surprise).sum()) / precision, precision**-0.5
