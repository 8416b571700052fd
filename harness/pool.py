"""The pool of several runs, its holes, judged@k and condensed lists.

A hole is a pooled pair without a qrel. Only topics that have qrels count: a topic nobody judged is no part of
the collection, and its documents are no holes; `summary` says how many topics of that sort each run has.

judged@k of a run on a topic is judged / min(k, retrieved), as in ir-measures: the share of the first k
documents that have a qrel of that very topic, whatever its grade (a negative grade counts as judged). A topic
the run lacks has 0. Averages run over all topics of the qrels. Ties are in the order of `ranking.rank`.
"""

from __future__ import annotations

from typing import Any

import polars as pl

from harness.errors import UsageError
from harness.frames import QRELS, RUN, Runs, check
from harness.ranking import top

__all__ = ["condensed", "found_once", "holes", "judged", "pool", "summary"]

_PAIR = ["query_id", "doc_id"]
_PAIRS_OF_QRELS = {c: QRELS[c] for c in _PAIR}


def pool(runs: Runs, depth: int) -> pl.DataFrame:
    """The pairs query_id, doc_id among the first `depth` documents of a topic in any run; unique, sorted."""
    return _tops(runs, depth).select(_PAIR).unique().sort(_PAIR)


def found_once(runs: Runs, depth: int) -> pl.DataFrame:
    """The pairs of the pool that one run alone brings, and which: query_id, doc_id, run, sorted."""
    tops = pl.concat([top(run, depth).select(*_PAIR, pl.lit(n).alias("run")) for n, run in runs.items()])
    counted = tops.group_by(_PAIR).agg(pl.col("run").first(), pl.len())
    return counted.filter(pl.col("len") == 1).drop("len").sort(_PAIR)


def holes(runs: Runs, qrels: pl.DataFrame, depth: int) -> pl.DataFrame:
    """The pairs of the pool without a qrel, on the topics that have qrels: query_id, doc_id, sorted."""
    marked = _marked(_tops(runs, depth), check(qrels, _PAIRS_OF_QRELS, "qrels"))
    return marked.filter(~pl.col("judged")).select(_PAIR).unique().sort(_PAIR)


def judged(runs: Runs, qrels: pl.DataFrame, depth: int) -> pl.DataFrame:
    """judged@depth and the number of holes, for every run and every topic of the qrels.

    Returns
    -------
    run, query_id, judged (f64, 0 to 1; 0 where the run lacks the topic), holes (u32), in the order of `runs`,
    then by query_id.
    """
    qrels = check(qrels, _PAIRS_OF_QRELS, "qrels")
    return _judged(_marked(_tops(runs, depth), qrels), list(runs), qrels).drop("present")


def summary(runs: Runs, qrels: pl.DataFrame, depth: int) -> dict[str, Any]:
    """What `stopgap holes` says.

    Returns
    -------
    depth: k. runs: name -> judged (mean judged@k over the topics of the qrels), holes, missing_topics (topics
    of the qrels that the run lacks) and unjudged_topics (topics of the run without qrels: they count
    nowhere). pool: the pairs of the pool on the topics of the qrels. pool_holes: those without a qrel.
    topics: topics of the qrels.
    """
    qrels = check(qrels, _PAIRS_OF_QRELS, "qrels")
    tops = _tops(runs, depth)
    marked = _marked(tops, qrels)
    table = _judged(marked, list(runs), qrels)
    means = table.group_by("run").agg(
        pl.col("judged").mean(), pl.col("holes").sum(), missing=(~pl.col("present")).sum()
    )
    if not means.height:
        raise UsageError("the qrels hold no topic")
    told = {name: values for name, *values in means.rows()}
    here = tops.group_by("run").agg(pl.col("query_id").n_unique())
    retrieved = dict(here.iter_rows())
    pairs = marked.group_by(_PAIR).agg(pl.col("judged").any())
    topics = qrels["query_id"].n_unique()
    return {
        "depth": depth,
        "runs": {
            name: {
                "judged": told[name][0],
                "holes": told[name][1],
                "missing_topics": told[name][2],
                "unjudged_topics": retrieved.get(name, 0) - (topics - told[name][2]),
            }
            for name in runs
        },
        "pool": pairs.height,
        "pool_holes": int((~pairs["judged"]).sum()),
        "topics": topics,
    }


def condensed(run: pl.DataFrame, qrels: pl.DataFrame) -> pl.DataFrame:
    """The RUN without its unjudged documents, ranks closed up (Sakai, SIGIR 2007).

    A topic without qrels vanishes.
    """
    qrels = check(qrels, _PAIRS_OF_QRELS, "qrels")
    kept = check(run, RUN, "run").join(qrels.select(_PAIR), on=_PAIR, how="semi", maintain_order="left")
    return kept.with_columns(rank=pl.int_range(pl.len(), dtype=pl.UInt32).over("query_id"))


def _tops(runs: Runs, depth: int) -> pl.DataFrame:
    """The first `depth` rows of each topic of each run: run (Enum), query_id, doc_id."""
    if depth < 1:
        raise UsageError(f"the depth is {depth}; it counts documents, so at least 1")
    if not runs:
        raise UsageError("no runs are given. Next: name at least one run file")
    kind = pl.Enum(list(runs))
    return pl.concat(
        top(check(run, RUN, f"run {name!r}"), depth).select(pl.lit(name, kind).alias("run"), *_PAIR)
        for name, run in runs.items()
    )


def _marked(tops: pl.DataFrame, qrels: pl.DataFrame) -> pl.DataFrame:
    """The rows of `tops` on topics with qrels, and whether each is judged: run, query_id, doc_id, judged."""
    known = qrels.select(_PAIR).unique().with_columns(judged=pl.lit(True))
    return (
        tops.join(known.select("query_id").unique(), on="query_id", how="semi")
        .join(known, on=_PAIR, how="left")
        .with_columns(pl.col("judged").fill_null(False))
    )


def _judged(marked: pl.DataFrame, runs: list[str], qrels: pl.DataFrame) -> pl.DataFrame:
    """run, query_id, judged, holes for all topics of the qrels; present: whether the run has the topic."""
    counts = marked.group_by("run", "query_id").agg(retrieved=pl.len(), judged=pl.col("judged").sum())
    names = pl.DataFrame({"run": runs}, schema={"run": marked.schema["run"]})
    return (
        names.join(qrels.select("query_id").unique(), how="cross")
        .join(counts, on=["run", "query_id"], how="left")
        .sort("run", "query_id")
        .select(
            pl.col("run").cast(pl.String),
            "query_id",
            judged=(pl.col("judged") / pl.col("retrieved")).fill_null(0.0),
            holes=(pl.col("retrieved") - pl.col("judged")).fill_null(0),
            present=pl.col("retrieved").is_not_null(),
        )
    )
