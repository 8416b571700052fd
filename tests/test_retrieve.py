"""Pipelines, their runs and metadata, and the way back into PyTerrier."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import warnings
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import ir_measures
import numpy as np
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from harness import dense as vectors_on_disk
from harness import labeling, measure, provenance, retrieve
from harness.calibrate import calibrate
from harness.collection import Collection, open_collection
from harness.errors import (
    CalibrationError,
    InputError,
    LabelerError,
    MissingExtra,
    SchemaError,
    StopgapWarning,
    UnknownName,
    UsageError,
)
from harness.frames import QRELS, RUN, TOPICS, check
from harness.ranking import rank
from harness.trec import file_hash, read_run, write_run

pd = pytest.importorskip("pandas")
pt = pytest.importorskip("pyterrier")
yaml = pytest.importorskip("yaml")

TEXTS = {
    "d01": "Reset the radar gauge: hold the button for nine seconds.",
    "d02": "Reset your password in the portal, then sign in again.",
    "d03": "The gauge battery lasts two years; a low battery sends an alarm.",
    "d04": "Annual leave is booked in the portal.",
    "d05": "Leave the alarm on when the warehouse closes.",
    "d06": "Laptop battery swelling: stop using the laptop and open a ticket.",
    "d07": "Größere Straßen: café naïve",
    "d08": "東京の水位計",
    "d09": "датчик уровня воды",
    "d10": "radar radar radar radar gauge",
    "d11": "",
    "d12": "Reset the radar gauge: hold the button for nine seconds.",
}
QUERIES = {"q1": "reset gauge", "q2": "battery alarm", "q3": "leave", "q4": "zebra", "q5": " "}
HUMAN = "q1 0 d01 2\nq1 0 d02 0\nq1 0 d03 0\nq2 0 d03 2\nq2 0 d06 0\nq2 0 d05 1\nq3 0 d04 2\nq3 0 d05 0\n"


def make(folder: Path, texts: dict[str, str] = TEXTS, queries: dict[str, str] = QUERIES) -> Collection:
    folder.mkdir(exist_ok=True)
    lines = (json.dumps({"doc_id": d, "text": t}) + "\n" for d, t in texts.items())
    (folder / "corpus.jsonl").write_text("".join(lines))
    (folder / "queries.tsv").write_text("".join(f"{q}\t{t}\n" for q, t in queries.items()))
    (folder / "qrels.human.txt").write_text(HUMAN)
    return open_collection(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("small")


@pytest.fixture
def small(folder: Path) -> Collection:
    return make(folder)


class Words:
    """An encoder for tests: a vector of word counts by hash; the signal is its cosine."""

    name, needs_text, dimension, feature_names = "words", True, 512, ["cosine"]
    fingerprint = "w1"
    asked: list[str]
    fail_after = 10**9

    def __init__(self, grades: dict[int, str]) -> None:
        self.grades, self.asked = grades, []

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        self.asked += texts
        if len(self.asked) > self.fail_after:
            raise KeyboardInterrupt
        found = np.full((len(texts), self.dimension), 1e-3, np.float32)
        for row, text in enumerate(texts):
            for word in text.lower().split():
                found[row, zlib.crc32(word.strip(".:;,").encode()) % self.dimension] += 1
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    def signal(self, pairs: pl.DataFrame) -> pl.DataFrame:
        query, text = self.embed(pairs["query"].to_list()), self.embed(pairs["text"].to_list())
        score = (query * text).sum(axis=1)
        return pairs.select(
            "query_id",
            "doc_id",
            pl.lit(None, pl.List(pl.Float32)).alias("probs"),
            pl.Series("score", score, pl.Float32),
            pl.lit(None, pl.String).alias("reason"),
            pl.Series("features", [[float(s)] for s in score], pl.List(pl.Float32)),
            pl.Series("vector", text, pl.Array(pl.Float32, self.dimension)),
        )


@pytest.fixture
def words(monkeypatch: pytest.MonkeyPatch) -> Words:
    """The encoder in place of minilm."""
    encoder = Words({})

    def load(spec: str, grades: dict[int, str]) -> Words:
        assert spec == "minilm"
        encoder.grades = grades
        return encoder

    monkeypatch.setattr(labeling, "load", load)
    return encoder


def run_of(collection: Collection, pipeline: Any, depth: int = 1000) -> pl.DataFrame:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StopgapWarning)
        return check(retrieve.retrieve(collection, pipeline, depth), RUN)


def found(run: pl.DataFrame, topic: str) -> list[str]:
    return run.filter(query_id=topic)["doc_id"].to_list()


class TestBuiltIn:
    def test_bm25_finds_what_it_should(self, small: Collection) -> None:
        run = run_of(small, "bm25")
        # equal texts have equal scores, and the doc_id decides: descending
        assert found(run, "q1")[:2] == ["d12", "d01"]
        assert found(run, "q2")[0] == "d03"
        assert set(found(run, "q3")) == {"d04", "d05"}
        assert run["rank"].to_list() == rank(run)["rank"].to_list()

    @pytest.mark.parametrize("pipeline", ["bm25", "qld", "dense", "hybrid", "bm25+rerank"])
    def test_each_gives_the_same_bytes_twice_and_keeps_the_depth(
        self, small: Collection, words: Words, pipeline: str, tmp_path: Path
    ) -> None:
        for name in ("a", "b"):
            write_run(run_of(small, pipeline, 3), tmp_path / name, pipeline)
        assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
        run = read_run(tmp_path / "a")
        assert run.group_by("query_id").len()["len"].max() == 3
        assert found(run, "q1")[0] in ("d12", "d01")
        deep = run_of(small, pipeline, 1000)
        if pipeline != "hybrid":  # fusing deeper lists is another fusion
            assert (
                deep.filter(pl.col("rank") < 3)
                .select("query_id", "doc_id")
                .equals(run.select("query_id", "doc_id"))
            )

    def test_topics_without_documents_are_named(self, small: Collection) -> None:
        with pytest.warns(StopgapWarning, match=r"bm25: 2 of 5 topics got no document: q4, q5$"):
            run = retrieve.retrieve(small, "bm25")
        assert set(run["query_id"]) == {"q1", "q2", "q3"}

    def test_no_document_for_any_topic(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="bm25 found no document for any topic of c"):
            retrieve.retrieve(make(tmp_path / "c", queries={"1": "zebra", "2": ""}), "bm25")

    def test_a_blank_query_gets_nothing_from_dense_either(self, small: Collection, words: Words) -> None:
        run = run_of(small, "dense")
        assert set(run["query_id"]) == {"q1", "q2", "q3", "q4"}
        assert run.height == 4 * len(TEXTS)

    def test_neither_java_nor_noise(self, small: Collection, folder: Path, tmp_path: Path) -> None:
        code = (
            "import sys, warnings\n"
            "from harness import retrieve\n"
            "from harness.collection import open_collection\n"
            "warnings.simplefilter('error')\n"
            "c = open_collection(sys.argv[1])\n"
            "for name in ('bm25', 'qld'):\n"
            "    pipeline = retrieve.load_pipeline(name, c, 10)\n"
            "    assert len(pipeline.search('reset gauge')) > 1\n"
            "import pyterrier as pt\n"
            "assert not pt.java.started()\n"
            "assert 'jnius' not in sys.modules\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, str(folder)],
            env={**os.environ, "STOPGAP_CACHE": str(tmp_path), "JAVA_HOME": "/nowhere"},
            capture_output=True,
            text=True,
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

    def test_queries_repeat_words_with_effect(self, small: Collection) -> None:
        one, two = (retrieve.bm25(small).search(q) for q in ("battery laptop", "battery laptop laptop"))
        score = dict(zip(two["docno"], two["score"], strict=True))
        assert score["d06"] > dict(zip(one["docno"], one["score"], strict=True))["d06"]

    @pytest.mark.parametrize(
        ("query", "first"),
        [
            ("grossere", "d07"),
            ("GRÖẞERE", "d07"),
            ("cafe", "d07"),
            ("naïve café", "d07"),
            ("水位", "d08"),
            ("ДАТЧИК", "d09"),
            ("ｒａｄａｒ", "d10"),
        ],
    )
    def test_text_that_is_not_ascii_is_found(self, small: Collection, query: str, first: str) -> None:
        assert retrieve.bm25(small).search(query)["docno"].tolist()[0] == first

    def test_other_scripts_find_nothing_else(self, small: Collection) -> None:
        assert len(retrieve.bm25(small).search("вода")) == 0
        assert retrieve.bm25(small).search("東")["docno"].tolist() == ["d08"]

    @settings(max_examples=60, deadline=None)
    @given(st.text(max_size=30))
    @example('a^2 ~"b c"~3 (d) [e TO f] g* h? +i -j k:l {m} \\ / | & ! % # $ @')
    @example("gauge\0battery\x01\x7f\x85\u2028\r\n\t")
    def test_no_query_chokes_the_parser(self, folder: Path, query: str) -> None:
        words = retrieve.plain_words(query)
        assert words.isascii()
        assert "\0" not in words
        assert retrieve.plain_words(words) == words
        results = retrieve.bm25(open_collection(folder), 5).search(query)
        assert len(results) <= 5
        assert set(results["query"]) <= {query}

    def test_the_query_stays_as_it_was(self, small: Collection) -> None:
        frame = pd.DataFrame({"qid": ["1"], "query": ["Größere!"], "query_0": ["older"]})
        results = retrieve.bm25(small).transform(frame)
        assert results[["qid", "query", "query_0"]].to_numpy().tolist() == [["1", "Größere!", "older"]]

    def test_no_documents(self, tmp_path: Path) -> None:
        make(tmp_path / "c")
        (tmp_path / "c" / "corpus.jsonl").unlink()
        for pipeline in ("bm25", "dense", "hybrid", "bm25+rerank"):
            with pytest.raises(UsageError, match="c has no documents, so nothing can be retrieved"):
                retrieve.retrieve(open_collection(tmp_path / "c"), pipeline)

    def test_documents_without_a_word(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="no document of c has a word in it"):
            retrieve.retrieve(make(tmp_path / "c", texts={"a": "", "b": "…"}), "bm25")

    def test_a_depth_of_nothing(self, small: Collection) -> None:
        with pytest.raises(UsageError, match="depth is 0"):
            retrieve.retrieve(small, "bm25", 0)

    def test_what_is_not_installed(self, small: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "pyterrier_pisa", None)
        with pytest.raises(MissingExtra, match=r"pip install 'stopgap\[retrieve\]'"):
            retrieve.retrieve(small, "bm25")


class TestIndex:
    @pytest.fixture(autouse=True)
    def _fresh(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("STOPGAP_CACHE", str(tmp_path / "cache"))

    def test_it_is_built_once_for_a_corpus(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        first = run_of(make(tmp_path / "c"), "bm25")
        with monkeypatch.context() as patch:
            patch.setattr(retrieve, "_build", lambda *_: pytest.fail("built again"))
            assert run_of(make(tmp_path / "c"), "bm25").equals(first)
            run_of(make(tmp_path / "same-corpus", queries={"x": "gauge"}), "qld")
        changed = make(tmp_path / "c", texts={**TEXTS, "d99": "reset gauge"})
        assert found(run_of(changed, "bm25"), "q1")[0] == "d99"
        assert len(list((tmp_path / "cache" / "indexes").iterdir())) == 2

    def test_nothing_half_built_is_left(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        c = make(tmp_path / "c")

        def broken(batch: int = 1000) -> Iterator[pl.DataFrame]:
            yield pl.DataFrame({"doc_id": ["d01"], "text": ["reset gauge"]})
            raise InputError("corpus.jsonl", 2, "broken off")

        with monkeypatch.context() as patch:
            patch.setattr(c, "documents", broken)
            with pytest.raises(InputError, match=r"corpus\.jsonl:2: broken off"):
                retrieve.retrieve(c, "bm25")
        assert list((tmp_path / "cache" / "indexes").iterdir()) == []
        assert run_of(c, "bm25").height > 0

    def test_a_quicker_process_wins(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        c, build = make(tmp_path / "c"), retrieve._build

        def overtaken(collection: Collection, index: Any) -> None:
            build(collection, index)
            monkeypatch.setattr(retrieve, "_build", build)
            retrieve.bm25(collection)

        monkeypatch.setattr(retrieve, "_build", overtaken)
        assert run_of(c, "bm25").height > 0
        assert len(list((tmp_path / "cache" / "indexes").iterdir())) == 1

    def test_a_finished_index_is_never_written_to(self, tmp_path: Path) -> None:
        c = make(tmp_path / "c")
        run_of(c, "bm25")
        (index,) = (tmp_path / "cache" / "indexes").iterdir()
        before = {p.name: p.stat().st_mtime_ns for p in index.iterdir()}
        run_of(c, "bm25")
        run_of(c, "qld")
        assert {p.name: p.stat().st_mtime_ns for p in index.iterdir()} == before


class TestDense:
    @pytest.fixture(autouse=True)
    def _fresh(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("STOPGAP_CACHE", str(tmp_path / "cache"))

    def test_it_is_the_exact_order_by_cosine(self, small: Collection, words: Words) -> None:
        run = run_of(small, "dense")
        texts = [t for t in TEXTS.values() if t]
        ids = [d for d, t in TEXTS.items() if t]
        for query_id, query in list(QUERIES.items())[:3]:
            cosine = words.embed(texts).astype(np.float64) @ words.embed([query]).astype(np.float64)[0]
            score = dict(run.filter(query_id=query_id).select("doc_id", "score").iter_rows())
            assert score.pop("d11") == 0  # no text, no direction
            assert score == pytest.approx(dict(zip(ids, cosine, strict=True)), abs=1e-6)

    def test_vectors_are_made_once_for_a_corpus_and_an_encoder(self, small: Collection, words: Words) -> None:
        first = run_of(small, "dense")
        words.asked.clear()
        assert run_of(small, "dense").equals(first)
        assert set(words.asked) == {"reset gauge", "battery alarm", "leave", "zebra"}
        words.fingerprint = "w2"
        run_of(small, "dense")
        assert TEXTS["d01"] in words.asked

    @pytest.mark.parametrize("block", [1, 5, 12])
    def test_blocks_make_no_difference(
        self, small: Collection, words: Words, monkeypatch: pytest.MonkeyPatch, block: int
    ) -> None:
        whole = run_of(small, "dense", 4)
        monkeypatch.setattr(vectors_on_disk, "_BLOCK", block)
        monkeypatch.setattr(vectors_on_disk, "_SPARE", 2)
        assert run_of(small, "dense", 4).equals(whole)

    def test_it_goes_on_where_it_was_killed(
        self, small: Collection, words: Words, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(vectors_on_disk, "_BLOCK", 4)
        words.fail_after = 6
        with pytest.raises(KeyboardInterrupt):
            retrieve.retrieve(small, "dense")
        words.fail_after = 10**9
        words.asked.clear()
        told: list[tuple[int, int | None]] = []
        with pytest.warns(StopgapWarning):
            retrieve.retrieve(small, "dense", progress=lambda done, total: told.append((done, total)))
        again = set(words.asked)
        assert not again & {TEXTS[d] for d in ("d02", "d03", "d04")}
        assert {TEXTS[d] for d in ("d05", "d09")} <= again
        assert told[-1] == (12, 12)

    def test_a_labeler_that_is_no_encoder(self, small: Collection) -> None:
        with pytest.raises(LabelerError, match="is no encoder"):
            retrieve.dense(small, encoder="constant:1")


class TestComposed:
    def test_hybrid_is_reciprocal_rank_fusion(self, small: Collection, words: Words) -> None:
        want: dict[tuple[str, str], float] = {}
        for pipeline in ("bm25", "dense"):
            for query_id, doc_id, _, place in run_of(small, pipeline).iter_rows():
                want[query_id, doc_id] = want.get((query_id, doc_id), 0) + 1 / (60 + place + 1)
        run = run_of(small, "hybrid")
        got = {(q, d): s for q, d, s, _ in run.iter_rows()}
        assert got == pytest.approx(want, abs=1e-12)

    def test_rerank_orders_by_the_labeler(self, small: Collection, words: Words) -> None:
        before, after = run_of(small, "bm25", 5), run_of(small, "bm25+rerank", 5)
        keys = ["query_id", "doc_id"]
        assert after.select(keys).sort(keys).equals(before.select(keys).sort(keys))
        pairs = small.pairs(after.select(keys))
        assert after["score"].to_list() == pytest.approx(words.signal(pairs)["score"].to_list())
        told: list[tuple[int, int | None]] = []
        with pytest.warns(StopgapWarning):
            retrieve.retrieve(small, "bm25+rerank", 5, progress=lambda *now: told.append(now))
        assert told[-1] == (after.height, after.height)

    def test_what_has_no_text_comes_last(self, small: Collection, words: Words) -> None:
        frame = pd.DataFrame({"qid": "q1", "query": "reset", "docno": ["d11", "d02", "d04"], "score": 1.0})
        results = retrieve.rerank(small).transform(frame)
        assert results["docno"].tolist() == ["d02", "d04", "d11"]
        assert results["rank"].tolist() == [0, 1, 2]

    def test_a_labeler_of_grades_ranks_by_the_expected_one(self, small: Collection) -> None:
        frame = pd.DataFrame({"qid": "q1", "query": "reset", "docno": ["d01", "d02"], "score": [2.0, 1.0]})
        results = retrieve.rerank(small, labeler="constant:2").transform(frame)
        assert results["score"].tolist() == [2.0, 2.0]
        assert results["docno"].tolist() == ["d02", "d01"]

    def test_the_labeler_reads_the_query_before_its_rewriting(self, small: Collection, words: Words) -> None:
        frame = pd.DataFrame(
            {"qid": "9", "query": "#combine(a)", "query_0": "b", "query_1": "the need", "docno": ["d01"]}
        )
        retrieve.rerank(small).transform(frame)
        assert words.asked == ["the need", TEXTS["d01"]]

    def test_they_compose_with_pyterriers_operators(self, small: Collection, words: Words) -> None:
        pipeline = (retrieve.bm25(small) % 2) >> retrieve.rerank(small)
        results = pipeline.search("reset gauge")
        assert set(results["docno"]) == {"d01", "d12"}
        assert run_of(small, pipeline, 10).group_by("query_id").len()["len"].max() == 2
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # PyTerrier's own, of pandas
            both = (retrieve.dense(small, 3) + retrieve.dense(small, 3)).search("reset gauge")
        alone = run_of(small, "dense", 3).filter(query_id="q1")
        assert both["score"].tolist() == pytest.approx((2 * alone["score"]).to_list(), abs=1e-6)

    def test_empty_input_gives_empty_output(self, small: Collection, words: Words) -> None:
        nothing = pd.DataFrame({"qid": pd.Series(dtype=str), "query": pd.Series(dtype=str)})
        for name in ("bm25", "qld", "dense", "hybrid", "bm25+rerank"):
            results = retrieve.load_pipeline(name, small, 5).transform(nothing)
            assert len(results) == 0
            assert {"qid", "query", "docno", "score", "rank"} <= set(results.columns)


MINE = """
import pandas as pd
import pyterrier as pt
from harness import retrieve
from harness.errors import UsageError

class First(pt.Transformer):
    def transform(self, inp):
        return inp.assign(docno="d01", score=1.0)

instance = First()

def made():
    return First()

def for_collection(collection):
    return retrieve.bm25(collection) % 1

class Holder:
    inner = First()

def gives(**columns):
    return pt.apply.generic(lambda inp: inp.assign(**columns))

no_score = gives(docno="d01")
not_finite = gives(docno="d01", score=float("nan"))
not_a_number = gives(docno="d01", score="high")
twice = pt.apply.generic(lambda inp: pd.concat([inp.assign(docno="d01", score=1.0)] * 2))
strange = gives(qid="other", docno="d01", score=1.0)
nothing = pt.apply.generic(lambda inp: None)
numeric = gives(docno=7, score=1)
number = 3

def crash():
    raise ValueError("out of memory")

def not_a_transformer():
    return "bm25"

def ours():
    raise UsageError("a message of ours")
"""


class TestYourOwn:
    @pytest.fixture(autouse=True)
    def _module(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "mine.py").write_text(MINE)
        (tmp_path / "broken.py").write_text("import no_such_thing")
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "path", list(sys.path))
        for name in ("mine", "broken"):
            monkeypatch.delitem(sys.modules, name, raising=False)

    @pytest.mark.parametrize("name", ["instance", "First", "made", "Holder.inner"])
    def test_a_transformer_or_what_makes_one(self, small: Collection, name: str) -> None:
        run = run_of(small, f"mine:{name}")
        assert run.rows() == [(q, "d01", 1.0, 0) for q in ("q1", "q2", "q3", "q4")]

    def test_what_takes_the_collection(self, small: Collection) -> None:
        run = run_of(small, "mine:for_collection")
        assert found(run, "q1") == ["d12"]

    def test_ids_are_text(self, small: Collection) -> None:
        assert set(run_of(small, "mine:numeric")["doc_id"]) == {"7"}

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("no_score", r"mine:no_score gives no ranking: it lacks score; it has qid, query, docno"),
            ("not_finite", r"gives no ranking: score is missing at row 0"),
            ("not_a_number", r"gives no ranking: score is not all numbers"),
            ("twice", r"gives no ranking: run: topic 'q1' has document 'd01' twice"),
            ("strange", r"gives documents for 'other', which it was not asked"),
            ("nothing", r"gives no ranking: a NoneType, not a frame"),
            ("number", r"'mine:number' is a int, not a PyTerrier transformer"),
            ("not_a_transformer", r"is a str, not a PyTerrier transformer"),
            ("crash", r"'mine:crash' cannot be made: ValueError: out of memory"),
            ("ours", r"^a message of ours$"),
            ("missing", r"'mine:missing' cannot be imported: AttributeError"),
        ],
    )
    def test_what_goes_wrong_is_said(self, small: Collection, name: str, message: str) -> None:
        with pytest.raises(UsageError, match=message):
            run_of(small, f"mine:{name}")

    def test_names_that_are_none(self, small: Collection) -> None:
        with pytest.raises(UnknownName, match=r"Did you mean 'bm25'\?.*qld.*\n.*module:object"):
            retrieve.retrieve(small, "bm52")
        with pytest.raises(UsageError, match=r"'broken:x' cannot be imported: ModuleNotFoundError.*no_such"):
            retrieve.retrieve(small, "broken:x")
        for spec in ("nowhere:x", "mine:", ":x"):
            with pytest.raises(UsageError, match="pipeline"):
                retrieve.retrieve(small, spec)

    def test_a_failure_while_it_runs(self, small: Collection) -> None:
        def fail(inp: Any) -> Any:
            raise RuntimeError("the server is away")

        with pytest.raises(UsageError, match=r"pipeline .* failed: RuntimeError: the server is away"):
            retrieve.retrieve(small, pt.apply.generic(fail))


class TestWrite:
    @pytest.fixture
    def outside_git(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
        return tmp_path

    def test_a_run_and_its_twin(self, small: Collection, outside_git: Path) -> None:
        run = run_of(small, "bm25", 5)
        command = ["stopgap", "retrieve", "small", "bm25", "--out", "my runs"]
        path = retrieve.write(run, "runs", collection=small, pipeline="bm25", depth=5, command=command)
        assert path == Path("runs/bm25.run.gz")
        assert read_run(path).select("query_id", "doc_id").equals(run.select("query_id", "doc_id"))
        assert gzip.decompress(path.read_bytes()).split()[5] == b"bm25"
        twin = yaml.safe_load(Path("runs/bm25.run.meta.yaml").read_text())
        parts = ["platform", "implementation", "method", "actor", "data"]
        assert list(twin) == ["schema-version", "run-version", "tag", *parts, "run"]
        assert twin["tag"] == "bm25"
        assert twin["implementation"]["executable"]["cmd"] == "stopgap retrieve small bm25 --out 'my runs'"
        assert "commit" not in twin["implementation"]["source"]
        assert twin["method"]["automatic"] is True
        assert twin["method"]["indexing"]["stemmer"] == "porter2"
        (stage,) = twin["method"]["retrieval"]
        assert (stage["name"], stage["k1"], stage["b"], stage["depth"]) == ("bm25", 0.9, 0.4, 5)
        collection = twin["data"]["test collection"]
        assert collection["corpus sha256"] == small.corpus_hash
        assert (collection["documents"], collection["topics"]) == (12, 5)
        assert twin["run"]["sha256"] == file_hash(path)
        assert twin["run"]["topics without documents"] == ["q4", "q5"]
        assert (twin["run"]["rows"], twin["run"]["topics"]) == (run.height, 3)
        toolkits = twin["platform"]["software"]["retrieval toolkit"]
        assert [t.split("==")[0] for t in toolkits] == ["pyterrier", "pyterrier-pisa"]

    @pytest.mark.parametrize(
        ("pipeline", "names"),
        [
            ("qld", ["qld"]),
            ("dense", ["dense"]),
            ("hybrid", ["bm25", "dense", "hybrid"]),
            ("bm25+rerank", ["bm25", "bm25+rerank"]),
            ("mine:best", ["mine:best"]),
        ],
    )
    def test_the_stages_of_each_pipeline(
        self, small: Collection, words: Words, pipeline: str, names: list[str]
    ) -> None:
        method = provenance.metadata("t", small, pipeline, 200)["method"]
        assert [s["name"] for s in method["retrieval"]] == names
        assert ("indexing" in method) == (pipeline not in ("dense", "mine:best"))
        assert ("words@w1" in json.dumps(method)) == (pipeline in ("dense", "hybrid", "bm25+rerank"))
        assert {s["depth"] for s in method["retrieval"] if s["name"] == "bm25"} <= {200, 100}

    def test_the_commit_without_the_password(self, small: Collection, outside_git: Path) -> None:
        def git(*arguments: str) -> str:
            done = subprocess.run(["git", *arguments], check=True, capture_output=True, text=True)
            return done.stdout.strip()

        (outside_git / "file").write_text("1")
        git("init", "-q")
        git("add", "file")
        git("-c", "user.name=x", "-c", "user.email=x@y", "commit", "-q", "-m", "first")
        git("remote", "add", "origin", "https://me:secret@example.org/repo.git")
        source = provenance.metadata("t", small, "bm25", 5)["implementation"]["source"]
        assert source["commit"] == git("rev-parse", "HEAD")
        assert source["uncommitted changes"] is False
        assert source["repository"] == "https://example.org/repo.git"
        (outside_git / "file").write_text("2")
        source = provenance.metadata("t", small, "bm25", 5)["implementation"]["source"]
        assert source["uncommitted changes"] is True

    def test_names(self) -> None:
        assert retrieve.run_name("bm25+rerank") == "bm25+rerank"
        assert retrieve.run_name("my.pipes:Best") == "my.pipes.Best"
        assert retrieve.run_name("a b/c:d") == "a-b-c.d"


def as_qrels(rows: list[tuple[str, str, int]]) -> pl.DataFrame:
    frame = pl.DataFrame(
        rows, schema={c: QRELS[c] for c in ("query_id", "doc_id", "relevance")}, orient="row"
    )
    return frame.with_columns(gain=pl.col("relevance").cast(pl.Float32), assessor=pl.lit("human"))


class TestFrames:
    def test_runs_go_there_and_back(self) -> None:
        run = rank(
            pl.DataFrame({"query_id": ["007", "007", "7"], "doc_id": list("aba"), "score": [1.0, 2.0, 0.5]})
        )
        there = retrieve.to_pyterrier(run)
        assert list(there.columns) == ["qid", "docno", "score", "rank"]
        assert there["rank"].tolist() == [0, 1, 0]
        assert retrieve.from_pyterrier(there).equals(run)
        assert retrieve.from_pyterrier(there.drop(columns="rank").iloc[::-1]).equals(run)

    def test_qrels_go_there_and_back(self) -> None:
        qrels = as_qrels([("1", "a", 2), ("1", "b", 0)]).with_columns(
            gain=pl.Series([1.75, 0.25], dtype=pl.Float32), assessor=pl.Series(["minilm@1234", "human"])
        )
        there = retrieve.to_pyterrier(qrels.with_columns(probs=pl.lit([1.0])))
        assert list(there.columns) == ["qid", "docno", "label", "gain", "assessor"]
        assert retrieve.from_pyterrier(there).equals(qrels)
        bare = retrieve.from_pyterrier(there[["qid", "docno", "label"]])
        assert check(bare, QRELS)["gain"].to_list() == [2.0, 0.0]
        assert set(bare["assessor"]) == {"human"}

    def test_topics_go_there_and_back(self) -> None:
        topics = pl.DataFrame({"query_id": ["007", "7"], "text": ["a", ""]}, schema=TOPICS)
        there = retrieve.to_pyterrier(topics)
        assert list(there.columns) == ["qid", "query"]
        assert retrieve.from_pyterrier(there).equals(topics)

    def test_what_cannot_go(self) -> None:
        with pytest.raises(UsageError, match="it has a; wanted is a run"):
            retrieve.to_pyterrier(pl.DataFrame({"a": [1]}))
        with pytest.raises(UsageError, match="it has a; wanted is results"):
            retrieve.from_pyterrier(pd.DataFrame({"a": [1]}))
        labels = pd.DataFrame({"qid": ["1", "1"], "docno": ["a", "b"], "label": [1.0, 0.5]})
        with pytest.raises(SchemaError, match=r"a label is no whole number: 0\.5"):
            retrieve.from_pyterrier(labels)
        with pytest.raises(SchemaError, match="label is missing at row 1"):
            retrieve.from_pyterrier(labels.assign(label=pd.array([1, None], dtype="Int64")))
        with pytest.raises(SchemaError, match="docno is missing at row 0"):
            retrieve.from_pyterrier(labels.assign(docno=[None, "b"], score=1.0))

    def test_experiment_gives_the_numbers_of_measure(self, small: Collection, words: Words) -> None:
        runs = {p: run_of(small, p) for p in ("bm25", "dense")}
        labels = [("q1", "d12", 2), ("q1", "d10", 1), ("q3", "d01", 0), ("q4", "d02", 1)]
        filled = pl.concat([small.qrels(), as_qrels(labels).with_columns(assessor=pl.lit("minilm@1"))])
        names = ["nDCG@10", "AP", "RR", "P@5"]
        ours = measure.measure(runs, filled, names).runs
        topics = small.topics.filter(pl.col("query_id").is_in(filled["query_id"].unique().to_list()))
        with warnings.catch_warnings():
            # q4 and q5 are not in bm25's results, which PyTerrier warns of; measure counts them as 0 too
            warnings.simplefilter("ignore")
            theirs = pt.Experiment(
                [retrieve.to_pyterrier(run) for run in runs.values()],
                retrieve.to_pyterrier(topics),
                retrieve.to_pyterrier(filled),
                [ir_measures.parse_measure(name) for name in names],
                names=[*runs],
            ).set_index("name")
        for run in runs:
            for name in names:
                assert theirs.loc[run, name] == pytest.approx(ours[run][name], abs=1e-9), (run, name)


class TestLabeler:
    def results(self, collection: Collection) -> Any:
        return retrieve.to_pyterrier(run_of(collection, "bm25", 6)).assign(extra=1)

    def test_judged_pairs_keep_their_grade_and_the_others_get_one(
        self, small: Collection, words: Words
    ) -> None:
        results = self.results(small)
        labeled = retrieve.labeler_transformer("minilm", small).transform(results)
        assert labeled[results.columns].equals(results)
        human = {(q, d): g for q, d, g in small.qrels().select("query_id", "doc_id", "relevance").iter_rows()}
        told = set()
        for row in labeled.itertuples():
            if (row.qid, row.docno) in human:
                assert (row.label, row.gain, row.assessor) == (*[human[row.qid, row.docno]] * 2, "human")
            else:
                assert row.label in (0, 1, 2)
                assert 0 <= row.gain <= 2
                assert row.assessor.startswith("words@w1")
            told.add(row.assessor.partition("@")[0])
        assert told == {"human", "words"}

    def test_they_are_the_calibrators_labels(self, small: Collection, words: Words) -> None:
        ids = pl.DataFrame({"query_id": ["q1", "q1"], "doc_id": ["d12", "d10"]})
        human = small.qrels()
        pairs = pl.concat([human.select("query_id", "doc_id"), ids])
        signals = labeling.signals(words, small.pairs(pairs))
        want = calibrate([signals], human, sorted(small.grades)).labels
        want = ids.join(want, on=["query_id", "doc_id"], how="left", maintain_order="left")
        frame = pd.DataFrame({"qid": ["q1", "q1"], "docno": ["d12", "d10"], "score": [2.0, 1.0]})
        got = retrieve.labeler_transformer(words, small).transform(frame)
        assert got["gain"].tolist() == pytest.approx(want["gain"].to_list(), abs=0.05)

    def test_no_label_is_no_grade(self, small: Collection, words: Words) -> None:
        frame = pd.DataFrame({"qid": ["q1", "q1"], "docno": ["d11", "nobody"]})
        labeled = retrieve.labeler_transformer("minilm", small).transform(frame)
        assert labeled["label"].isna().all()
        assert labeled["gain"].isna().all()

    def test_it_goes_into_a_pipeline_and_an_experiment(self, small: Collection, words: Words) -> None:
        pipeline = retrieve.bm25(small, 5) >> retrieve.labeler_transformer("minilm", small)
        topics = retrieve.to_pyterrier(small.topics.head(3))
        labeled = pipeline.transform(topics).dropna(subset=["label"])
        filled = retrieve.from_pyterrier(labeled[["qid", "docno", "label", "gain", "assessor"]])
        check(filled, QRELS)
        table = pt.Experiment([pipeline], topics, retrieve.to_pyterrier(filled), ["P.5"], names=["mine"])
        assert table["P.5"].item() > 0

    def test_a_model_is_asked_once_for_the_judged_pairs(self, small: Collection, words: Words) -> None:
        labeler = retrieve.labeler_transformer("minilm", small)
        frame = pd.DataFrame({"qid": ["q1"], "docno": ["d12"]})
        first = labeler.transform(frame)
        words.asked.clear()
        again = labeler.transform(frame)
        assert words.asked == ["reset gauge", TEXTS["d12"]]
        assert again.equals(first)

    def test_ids_that_are_numbers_are_text(self, small: Collection, words: Words) -> None:
        labeled = retrieve.labeler_transformer("minilm", small).transform(
            pd.DataFrame({"qid": [1, "q1"], "docno": [7, "d01"]})
        )
        assert labeled["label"].tolist() == [pd.NA, 2]

    def test_without_judgments_there_is_nothing_to_calibrate_with(
        self, small: Collection, words: Words
    ) -> None:
        labeler = retrieve.labeler_transformer("minilm", small, qrels=small.qrels().clear())
        with pytest.raises(CalibrationError):
            labeler.transform(pd.DataFrame({"qid": ["q1"], "docno": ["d12"]}))


def scores(collection: Collection, run: pl.DataFrame) -> dict[str, Any]:
    return measure.measure({"run": run}, collection.qrels(), ["AP", "nDCG@10"]).runs["run"]


class TestRealCollections:
    def test_vaswani(self, data_dir: Path) -> None:
        c = open_collection(data_dir / "vaswani")
        run = retrieve.retrieve(c, "bm25")
        assert run["query_id"].n_unique() == 93
        found = scores(c, run)
        assert 0.28 < found["AP"] < 0.33
        assert 0.44 < found["nDCG@10"] < 0.50
        assert 0.22 < scores(c, retrieve.retrieve(c, "qld"))["AP"] < found["AP"]

    @pytest.mark.slow
    def test_the_embedded_encoder(self, tmp_path: Path) -> None:
        pytest.importorskip("onnxruntime")
        c = open_collection("demo")
        found = {p: scores(c, retrieve.retrieve(c, p, 100))["nDCG@10"] for p in ("bm25", "dense", "hybrid")}
        assert found["hybrid"] > max(found["bm25"], found["dense"])
        assert min(found.values()) > 0.55
        for name in ("a.run", "b.run"):
            write_run(retrieve.retrieve(c, "bm25+rerank", 5), tmp_path / name, "x")
        assert file_hash(tmp_path / "a.run") == file_hash(tmp_path / "b.run")
        assert scores(c, read_run(tmp_path / "a.run"))["nDCG@10"] > 0.5
