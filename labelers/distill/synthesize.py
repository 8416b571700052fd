"""The stage `synthesize`: queries written from the corpus's own documents.

Seed documents cover the corpus (`labelers.distill.coverage`); a generator writes one query for each document
and kind, with a language model (`labelers.distill.asking`) or without (`labelers.distill.keyphrases`). A
query that resembles one that was taken, or a topic that people judged, is left out, and so is an answer that
is no query; why is counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from itertools import islice
from typing import Any, Protocol

from harness.errors import UsageError
from labelers.distill.asking import Asking, writer_of
from labelers.distill.config import KEYPHRASE
from labelers.distill.coverage import Seed, Task, seed_documents, tasks
from labelers.distill.keyphrases import Keyphrases
from labelers.distill.likeness import NearIndex, normal
from labelers.distill.rows import Row
from labelers.distill.stages import Made, Stage
from labelers.distill.work import Work

__all__ = ["QUERIES", "Writer"]

_LEAST_BATCH = 16


class Writer(Protocol):
    """What writes queries."""

    label: str
    """What stands in the file as its generator."""

    @property
    def made_of(self) -> Mapping[str, object]:
        """What decides what is written."""

    def write(self, batch: Sequence[Task]) -> list[tuple[str | None, str]]:
        """A query for each task, or None and why there is none."""


def _writer(work: Work, seeds: Sequence[Seed]) -> Writer:
    given = work.config.synthesize.generator
    return Keyphrases(seeds, work.seed) if given == KEYPHRASE else writer_of(work)


def _made_of(work: Work) -> dict[str, Any]:
    config = work.config.synthesize
    return {
        "settings": config.model_dump(),
        "seed": work.seed,
        "corpus": work.collection.corpus_hash,
        "generator": dict(_writer(work, []).made_of),
        "topics": {k: v for k, v in work.made_of_human().items() if k != "train"},
    }


def _check(work: Work) -> None:
    _ = work.collection, work.split
    writer = _writer(work, [])
    if isinstance(writer, Asking):
        writer.check()


def _run(work: Work, _: Mapping[str, list[Row]]) -> Made:
    config = work.config.synthesize
    seeds = seed_documents(work)
    writer = _writer(work, seeds)
    rows: list[Row] = []
    dropped: Counter[str] = Counter()
    taken = NearIndex(config.near)
    judged = {
        "resembles a test topic": NearIndex(config.near, work.held_out.queries.values()),
        "resembles a training topic": NearIndex(config.near, [work.topics[q] for q in work.split.train]),
    }
    todo = tasks(seeds, config.kinds, config.per_document, work.seed)
    for task, query, reason in _written(writer, todo, rows, config.queries):
        if query is None:
            dropped[reason] += 1
        elif not normal(query):
            dropped["no word"] += 1
        elif (near := [what for what, topics in judged.items() if topics.near(query)]) or taken.near(query):
            dropped[near[0] if near else "resembles another query"] += 1
        else:
            taken.add(query)
            rows.append(_row(task, query, writer.label))
        if work.progress is not None:
            work.progress(len(rows), config.queries)
    if not rows:
        why = ", ".join(f"{n} times {reason!r}" for reason, n in dropped.most_common(3))
        raise UsageError(f"the generator {writer.label} wrote no query that could be kept: {why}")
    clusters = {seed.doc_id: seed.cluster for seed in seeds}
    summary = {
        "queries": len(rows),
        "wanted": config.queries,
        "generator": writer.label,
        "kinds": dict(sorted(Counter(row["kind"] for row in rows).items())),
        "documents": len({row["doc_id"] for row in rows}),
        "clusters": [len({clusters[row["doc_id"]] for row in rows}), len(set(clusters.values()))],
        "dropped": dict(dropped.most_common()),
    }
    return Made(rows, summary)


def _written(
    writer: Writer, todo: Iterator[Task], rows: Sequence[Row], wanted: int
) -> Iterator[tuple[Task, str | None, str]]:
    """Tasks and what was written, until `rows` has as many as wanted or there is nothing more to write."""
    while len(rows) < wanted and (batch := list(islice(todo, max(wanted - len(rows), _LEAST_BATCH)))):
        for task, (query, reason) in zip(batch, writer.write(batch), strict=True):
            if len(rows) < wanted:
                yield task, query, reason


def _row(task: Task, query: str, generator: str) -> Row:
    known = f"{task.seed.doc_id}\0{task.kind}\0{query}"
    return {
        "query_id": f"syn-{sha256(known.encode()).hexdigest()[:10]}",
        "query": query,
        "kind": task.kind,
        "doc_id": task.seed.doc_id,
        "generator": generator,
    }


QUERIES = Stage(
    name="synthesize",
    file="queries.jsonl",
    fields={"query_id": (str,), "query": (str,), "kind": (str,), "doc_id": (str,), "generator": (str,)},
    key=("query_id",),
    version=1,
    needs=(),
    made_of=_made_of,
    run=_run,
    check=_check,
)
