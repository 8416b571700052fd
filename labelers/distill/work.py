"""What all stages work on: the settings, the collection, the judgments and how their topics are split."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from harness.collection import Collection, open_collection
from harness.draws import generator
from harness.errors import InputError, UnknownName
from harness.frames import QRELS, empty
from harness.ledger import Ledger
from harness.registry import load
from harness.trec import read_qrels
from labelers.distill.config import HUMAN, NONE, Settings
from labelers.distill.leaks import HeldOut, Pair
from labelers.distill.likeness import normal
from labelers.distill.rows import digest_of

if TYPE_CHECKING:
    from harness.labeling import Progress
    from harness.protocol import Labeler

__all__ = ["SPLIT_STREAM", "Split", "Work", "split_topics"]

SPLIT_STREAM = 601
"""The stream of random numbers that splits topics (`harness.draws.generator`)."""


@dataclass(frozen=True)
class Split:
    """Query ids of judged topics, sorted: none is in both, nor has the text of one in the other."""

    train: tuple[str, ...]
    test: tuple[str, ...]


def split_topics(topics: dict[str, str], share: float, seed: int) -> Split:
    """A split of topics (query id -> text) by chance, the same for the same ids, texts, share and seed.

    Topics of the same normal text go to the same side, so the test may have a few topics more than its share.
    """
    together: dict[str, list[str]] = {}
    for query_id in sorted(topics):
        together.setdefault(normal(topics[query_id]) or query_id, []).append(query_id)
    groups = list(together.values())
    test: list[str] = []
    for place in generator(seed, SPLIT_STREAM).permutation(len(groups)):
        if len(test) >= round(share * len(topics)):
            break
        test += groups[place]
    return Split(tuple(sorted(set(topics) - set(test))), tuple(sorted(test)))


class Work:
    """One distillation. What it opens is opened when it is first asked for.

    Parameters
    ----------
    settings: the file. progress: is told of the work of the stage that runs.
    """

    def __init__(self, settings: Settings, progress: Progress | None = None) -> None:
        self.settings, self.config, self.progress = settings, settings.config, progress
        self._labelers: dict[str, Labeler] = {}

    @property
    def out(self) -> Path:
        """The folder that stages write to."""
        return self.settings.out

    @property
    def seed(self) -> int:
        """What all chance hangs on."""
        return self.config.seed

    @cached_property
    def collection(self) -> Collection:
        """The collection.

        Raises
        ------
        UsageError: there is none of that name, or it has no documents.
        """
        opened = open_collection(self.settings.collection)
        if not opened.has_text or not opened.size:
            what = f"{opened.name} has no documents, so there is nothing to distil from"
            raise self.settings.problem("collection", what, "Next: a collection with a corpus.jsonl")
        return opened

    @cached_property
    def grades(self) -> dict[int, str]:
        """The collection's grades and their words."""
        return self.collection.grades

    @property
    def scale(self) -> list[int]:
        """The grades, ascending."""
        return sorted(self.grades)

    @cached_property
    def ledger(self) -> Ledger:
        """Where the teachers' answers and the vectors are kept."""
        return Ledger(self.settings.ledger)

    def labeler(self, spec: str) -> Labeler:
        """A labeler by name, loaded once."""
        if spec not in self._labelers:
            self._labelers[spec] = load(spec, self.grades)
        return self._labelers[spec]

    # -- judgments -------------------------------------------------------------------------------------------

    @cached_property
    def human(self) -> pl.DataFrame:
        """QRELS: the human judgments with a grade of the collection's; no rows where there are none.

        Raises
        ------
        InputError: the file cannot be read, or a grade is not on the collection's scale.
        """
        given = self.config.human.qrels
        if given == NONE or (given == HUMAN and HUMAN not in self.collection.qrels_names()):
            return empty(QRELS)
        if given in self.collection.qrels_names():
            found = self.collection.qrels(given)
        elif (path := self.settings.at(given)).is_file():
            found = read_qrels(path)
        else:
            what = f"human.qrels is {given!r}: no file, nor judgments of {self.collection.name}"
            raise self.settings.problem(
                "qrels", what, f"Its judgments: {_listed(self.collection.qrels_names())}"
            )
        return self._of_people(found, "qrels").unique(
            ["query_id", "doc_id"], keep="first", maintain_order=True
        )

    def _of_people(self, qrels: pl.DataFrame, key: str) -> pl.DataFrame:
        """The human judgments among QRELS that `human.KEY` names.

        Raises
        ------
        InputError: a grade is not on the collection's scale.
        """
        found = qrels.filter((pl.col("assessor") == "human") & (pl.col("relevance") >= 0))
        strange = found.filter(~pl.col("relevance").is_in(self.scale))
        if strange.height:
            query_id, doc_id, grade = strange.select("query_id", "doc_id", "relevance").row(0)
            what = (
                f"human.{key}: topic {query_id}, document {doc_id} has grade {grade}; the grades of "
                f"{self.collection.name} are {_listed(self.scale)}"
            )
            raise self.settings.problem(key, what, "Next: add the grade and its meaning to grades.tsv")
        return found

    @cached_property
    def topics(self) -> dict[str, str]:
        """Query id -> text of the collection's topics."""
        return dict(self.collection.topics.select("query_id", "text").iter_rows())

    @cached_property
    def split(self) -> Split:
        """Which judged topics are for training, and which for the test.

        Raises
        ------
        UsageError, InputError: a topic is named for both, or is not known.
        """
        given = self.config.human
        judged = [q for q in self.human["query_id"].unique().sort() if q in self.topics]
        train, test = (self._named(key, ids) for key, ids in (("train", given.train), ("test", given.test)))
        if train is not None and test is not None and (both := sorted(set(train) & set(test))):
            what = f"topics {_listed(both)} are for training and for the test"
            raise self.settings.problem("train", what, "Next: take them out of human.train or human.test")
        if self._elsewhere is not None:
            return Split(tuple(judged if train is None else train), tuple(sorted(self._held_topics)))
        if train is None and test is None:
            return split_topics({q: self.topics[q] for q in judged}, given.test_share, self.seed)
        if test is None:
            test = [q for q in judged if q not in set(train or ())]
        if train is None:
            train = [q for q in judged if q not in set(test)]
        return Split(tuple(train), tuple(test))

    def judgments(self, topics: Iterable[str]) -> pl.DataFrame:
        """The human judgments of some topics, sorted by topic and document."""
        return self.human.filter(pl.col("query_id").is_in(sorted(topics))).sort("query_id", "doc_id")

    @cached_property
    def held_out(self) -> HeldOut:
        """The test's topics and judged pairs, for `labelers.distill.leaks.refuse`."""
        judged = self.test_judgments.select("query_id", "doc_id")
        rows = self.test_collection.pairs(judged).select("query_id", "query", "text").iter_rows()
        pairs = [Pair(query_id, query or "", text) for query_id, query, text in rows]
        return HeldOut.of(self._held_topics, pairs, same_ids=self._elsewhere is None)

    @property
    def test_collection(self) -> Collection:
        """Where the test's topics and documents are: this collection, or `human.test_collection`."""
        return self._elsewhere or self.collection

    @cached_property
    def test_judgments(self) -> pl.DataFrame:
        """QRELS: the human judgments of the test's topics, sorted by topic and document.

        Raises
        ------
        InputError: a grade of another collection's is not on this one's scale.
        """
        if self._elsewhere is None:
            return self.judgments(self.split.test)
        return self._of_people(self._elsewhere.qrels(), "test_collection").sort("query_id", "doc_id")

    @cached_property
    def _elsewhere(self) -> Collection | None:
        name = self.config.human.test_collection
        if name is None:
            return None
        opened = open_collection(self.settings.collection_at(name))
        if HUMAN not in opened.qrels_names():
            what = f"human.test_collection: {opened.name} has no human judgments, so it is no test"
            raise self.settings.problem("test_collection", what)
        return opened

    @cached_property
    def _held_topics(self) -> dict[str, str]:
        """Query id -> text of the test's topics."""
        if self._elsewhere is None:
            return {q: self.topics[q] for q in self.split.test}
        judged = set(self.test_judgments["query_id"])
        rows = self._elsewhere.topics.select("query_id", "text").iter_rows()
        return {query_id: text for query_id, text in rows if query_id in judged}

    def _named(self, key: str, given: Sequence[str] | str | None) -> list[str] | None:
        """The topics that `human.train` or `human.test` names, sorted."""
        if given is None:
            return None
        ids = list(given) if not isinstance(given, str) else self._listed_in(key, given)
        if twice := [q for q in ids if ids.count(q) > 1]:
            raise self.settings.problem(key, f"human.{key} has topic {twice[0]} twice")
        for query_id in ids:
            if query_id not in self.topics:
                raise UnknownName(f"topic in human.{key}", query_id, self.topics)
        return sorted(ids)

    def _listed_in(self, key: str, given: str) -> list[str]:
        path = self.settings.at(given)
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            what = f"human.{key} is {given!r}, and no such file can be read: {error}"
            raise self.settings.problem(
                key, what, f'Next: a file with one query id a line, or {key} = ["ID"]'
            ) from None
        for number, line in enumerate(lines, 1):
            if len(line.split()) > 1:
                what = f"{line.strip()!r:.60} is more than one query id"
                raise InputError(path, number, what, "Next: one query id a line")
        return [line.strip() for line in lines if line.strip()]

    def made_of_human(self) -> dict[str, str]:
        """What the judgments and the split come to, as digests."""
        columns = ["query_id", "doc_id", "relevance"]
        return {
            "train": digest_of(self.judgments(self.split.train).select(columns).rows()),
            "train topics": digest_of([[q, self.topics.get(q)] for q in self.split.train]),
            "test topics": digest_of(sorted(self._held_topics.items())),
        }


def _listed(values: Sequence[object]) -> str:
    return ", ".join(map(str, values)) or "none"
