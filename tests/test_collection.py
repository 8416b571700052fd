"""Collections: folders, ir_datasets and the document store under them."""

from __future__ import annotations

import gzip
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import polars as pl
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness import collection, documents
from harness.cache import cache_dir
from harness.collection import catalogue, open_collection
from harness.errors import InputError, MissingExtra, UnknownName, UsageError
from harness.frames import PAIRS, QRELS, TOPICS, check

DOCS = [
    {"doc_id": "d1", "title": "Reset a gauge", "text": "Hold the button for nine seconds."},
    {"doc_id": "d2", "title": "", "text": "Leave is booked in Perch."},
    {"doc_id": "d3", "title": "Only a title", "text": ""},
    {"doc_id": "d4", "text": "Batteries — größere 日本"},
]
QUERIES = "q1\treset gauge\nq2\tannual leave\nq3\t\n"
HUMAN = "q1 0 d1 2\nq1 0 d2 0\nq2 0 d2 1\nq2 0 d4 -1\n"


def make(folder: Path, docs: list[dict[str, Any]] | None = None, **files: str) -> Path:
    """A collection's folder; `files` are name -> content with `_` for the dots in the name."""
    folder.mkdir(exist_ok=True)
    lines = "".join(json.dumps(d, ensure_ascii=False) + "\n" for d in (DOCS if docs is None else docs))
    (folder / "corpus.jsonl").write_text(lines, encoding="utf-8")
    for name, content in {"queries_tsv": QUERIES, "qrels_human_txt": HUMAN, **files}.items():
        (folder / name.replace("_", ".")).write_text(content, encoding="utf-8")
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make(tmp_path / "mine")


class TestFolder:
    def test_topics_qrels_grades_texts(self, folder: Path) -> None:
        c = open_collection(folder)
        assert c.name == "mine"
        assert check(c.topics, TOPICS).rows() == [("q1", "reset gauge"), ("q2", "annual leave"), ("q3", "")]
        assert check(c.qrels(), QRELS)["relevance"].to_list() == [2, 0, 1, -1]
        assert c.grades == {0: "grade 0", 1: "grade 1", 2: "grade 2"}
        assert c.texts(["d3", "nobody", "d1", "d3", "d2"]).rows() == [
            ("d3", "Only a title"),
            ("d1", "Reset a gauge\nHold the button for nine seconds."),
            ("d2", "Leave is booked in Perch."),
        ]
        assert c.size == 4

    def test_documents_stream_in_file_order(self, folder: Path) -> None:
        batches = list(open_collection(folder).documents(batch=3))
        assert [b.height for b in batches] == [3, 1]
        assert pl.concat(batches)["doc_id"].to_list() == ["d1", "d2", "d3", "d4"]
        assert batches[1]["text"][0] == "Batteries — größere 日本"

    def test_pairs_keep_rows_and_order_and_are_null_where_unknown(self, folder: Path) -> None:
        ids = [("q2", "d2"), ("q1", "gone"), ("nope", "d1"), ("q2", "d2"), ("q3", "d4")]
        frame = pl.DataFrame(ids, schema=["query_id", "doc_id"], orient="row")
        pairs = check(open_collection(folder).pairs(frame), PAIRS)
        assert pairs.select("query_id", "doc_id").rows() == ids
        assert pairs["query"].to_list() == ["annual leave", "reset gauge", None, "annual leave", ""]
        assert [t is None for t in pairs["text"]] == [False, True, False, False, False]

    @pytest.mark.parametrize("batch", [1, 2, 5, 100])
    def test_pair_batches_are_pairs(self, folder: Path, batch: int) -> None:
        frame = pl.DataFrame(
            {"query_id": ["q1", "q2", "q1", "q1", "q3"], "doc_id": ["d1", "d2", "d4", "x", "d3"]}
        )
        c = open_collection(folder)
        batches = list(c.pair_batches(frame, batch))
        assert max(b.height for b in batches) <= batch
        assert pl.concat(batches).equals(c.pairs(frame))

    def test_pairs_asks_for_its_columns(self, folder: Path) -> None:
        with pytest.raises(Exception, match="doc_id"):
            open_collection(folder).pairs(pl.DataFrame({"query_id": ["q1"]}))

    def test_grades_tsv_gives_words(self, tmp_path: Path) -> None:
        words = "0\tnot relevant\n1\trelated\n2\tuseful\n3\tthe answer\n-1\tnot judged\n"
        c = open_collection(make(tmp_path / "c", grades_tsv=words))
        assert c.grades == {0: "not relevant", 1: "related", 2: "useful", 3: "the answer"}

    def test_judged_grades_without_words_are_grades_too(self, tmp_path: Path) -> None:
        c = open_collection(make(tmp_path / "c", grades_tsv="1\tok\n"))
        assert c.grades == {0: "grade 0", 1: "ok", 2: "grade 2"}

    def test_without_judgments_two_grades(self, tmp_path: Path) -> None:
        folder = make(tmp_path / "c")
        (folder / "qrels.human.txt").unlink()
        c = open_collection(folder)
        assert c.grades == {0: "grade 0", 1: "grade 1"}
        assert c.qrels_names() == []

    def test_qrels_by_name(self, tmp_path: Path) -> None:
        c = open_collection(make(tmp_path / "c", qrels_umbrela_txt="q1 1 d1 3\n"))
        assert c.qrels_names() == ["human", "umbrela"]
        assert c.qrels("umbrela")["relevance"].to_list() == [3]
        with pytest.raises(UnknownName, match=r"Did you mean 'umbrela'.*human"):
            c.qrels("umbrella")

    def test_compressed_corpora_are_the_same(self, folder: Path, tmp_path: Path) -> None:
        plain = (folder / "corpus.jsonl").read_bytes()
        want = open_collection(folder).texts(["d1", "d4"])
        for name, content in {
            "corpus.jsonl.gz": gzip.compress(plain),
            "corpus.jsonl.zst": zstandard.compress(plain),
            "corpus.jsonl": b"\xef\xbb\xbf" + plain.replace(b"\n", b"\r\n") + b"\r\n\r\n",
        }.items():
            other = make(tmp_path / name.replace(".", "-"))
            (other / "corpus.jsonl").unlink()
            (other / name).write_bytes(content)
            assert open_collection(other).texts(["d1", "d4"]).equals(want), name

    def test_the_hash_is_that_of_the_corpus_file_alone(self, tmp_path: Path) -> None:
        a = open_collection(make(tmp_path / "a"))
        b = open_collection(make(tmp_path / "b", queries_tsv="x\ty\n"))
        c = open_collection(make(tmp_path / "c", docs=DOCS[:2]))
        assert a.corpus_hash == b.corpus_hash == documents.file_hash(tmp_path / "a" / "corpus.jsonl")
        assert a.corpus_hash != c.corpus_hash


class TestStore:
    def test_the_corpus_is_read_once_and_then_looked_up(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("STOPGAP_CACHE", str(tmp_path / "cache"))
        open_collection(folder).texts(["d1"])
        monkeypatch.setattr(documents, "_records", lambda path: pytest.fail("read again"))
        assert open_collection(folder).texts(["d2"]).height == 1
        assert len(list((tmp_path / "cache" / "documents").iterdir())) == 1

    def test_a_changed_corpus_is_a_miss(self, folder: Path) -> None:
        open_collection(folder).texts(["d1"])
        make(folder, docs=[{"doc_id": "d1", "text": "new"}])
        assert open_collection(folder).texts(["d1"]).rows() == [("d1", "new")]

    def test_nothing_half_built_is_left(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("STOPGAP_CACHE", str(tmp_path / "cache"))

        def killed(path: Path) -> Iterator[tuple[int, str, str]]:
            yield 1, "d1", "text"
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(documents, "_records", killed)
            with pytest.raises(KeyboardInterrupt):
                open_collection(folder).texts(["d1"])
        assert list((tmp_path / "cache" / "documents").iterdir()) == []
        assert open_collection(folder).size == 4

    def test_a_damaged_store_says_which_file_to_delete(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("STOPGAP_CACHE", str(tmp_path / "cache"))
        open_collection(folder).texts(["d1"])
        (store,) = cache_dir("documents").iterdir()
        store.write_bytes(b"rubbish" * 1000)
        with pytest.raises(InputError, match=rf"damaged.*\nNext: rm '{store}'"):
            open_collection(folder).texts(["d1"])

    def test_two_processes_build_it_at_once(self, folder: Path, tmp_path: Path) -> None:
        code = (
            "import sys; from harness.collection import open_collection;"
            "print(open_collection(sys.argv[1]).texts(['d1', 'd4']).height)"
        )
        env = {**os.environ, "STOPGAP_CACHE": str(tmp_path / "cache")}
        args = [sys.executable, "-c", code, str(folder)]
        running = [subprocess.Popen(args, env=env, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        assert [p.communicate()[0].strip() for p in running] == ["2", "2"]
        assert len(list((tmp_path / "cache" / "documents").iterdir())) == 1

    def test_more_ids_than_one_statement_takes(self, tmp_path: Path) -> None:
        docs = [{"doc_id": f"d{i}", "text": f"text {i}"} for i in range(2500)]
        c = open_collection(make(tmp_path / "c", docs=docs))
        ids = [f"d{i}" for i in range(2600)][::-1]
        texts = c.texts(ids)
        assert texts["doc_id"].to_list() == ids[100:]
        assert texts["text"].to_list() == [f"text {i}" for i in range(2499, -1, -1)]

    @settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        st.dictionaries(
            st.text(st.characters(exclude_categories=["Z", "C"]), min_size=1, max_size=8),
            st.tuples(st.none() | st.text(max_size=20), st.text(max_size=40)),
            min_size=1,
            max_size=6,
        )
    )
    def test_any_text_comes_back(self, tmp_path: Path, docs: dict[str, tuple[str | None, str]]) -> None:
        written = [{"doc_id": i, "title": title, "text": text} for i, (title, text) in docs.items()]
        (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(d) + "\n" for d in written))
        found = dict(documents.DocumentStore(tmp_path / "corpus.jsonl").get(docs).iter_rows())
        assert list(found) == list(docs)
        for doc_id, (title, text) in docs.items():
            # lone surrogates cannot be stored: they become question marks
            parts = [p.strip().encode("utf-8", "replace").decode() for p in (title or "", text)]
            assert found[doc_id] == "\n".join(p for p in parts if p)


class TestBadFiles:
    @pytest.mark.parametrize(
        ("line", "what"),
        [
            ('{"doc_id": "d2", "text": ', "not a line of JSON"),
            ('["d2"]', "not a JSON object"),
            ('{"id": "d2", "text": "x"}', "no doc_id; its keys are id, text"),
            ('{"doc_id": 7, "text": "x"}', "doc_id 7 is not text\nIds are text"),
            ('{"doc_id": "a b", "text": "x"}', "'a b' cannot be used"),
            ('{"doc_id": "", "text": "x"}', "'' cannot be used"),
            ('{"doc_id": "\\ud800", "text": "x"}', "cannot be used"),
            ('{"doc_id": "d2", "contents": "x"}', "neither text nor title; its keys are doc_id, contents"),
            ('{"doc_id": "d2", "text": 3}', "must be text or null"),
            ('{"doc_id": "d1", "text": "x"}', "doc_id 'd1' stands on line 1 already"),
        ],
    )
    def test_a_bad_document_is_named_by_file_and_line(self, tmp_path: Path, line: str, what: str) -> None:
        folder = make(tmp_path / "c", docs=[])
        (folder / "corpus.jsonl").write_text('{"doc_id": "d1", "text": "x"}\n\n' + line + "\n")
        with pytest.raises(InputError) as caught:
            open_collection(folder).texts(["d1"])
        assert str(caught.value).startswith(f"{folder / 'corpus.jsonl'}:3: ")
        assert what in str(caught.value)

    def test_null_title_and_text_are_blank(self, tmp_path: Path) -> None:
        c = open_collection(make(tmp_path / "c", docs=[{"doc_id": "d", "title": None, "text": None}]))
        assert c.texts(["d"]).rows() == [("d", "")]

    def test_a_corpus_that_is_not_utf8_or_cut_off(self, folder: Path) -> None:
        (folder / "corpus.jsonl").write_bytes(
            b'{"doc_id": "a", "text": "x"}\n{"doc_id": "b", "text": "\xe9"}\n'
        )
        with pytest.raises(InputError, match=r"corpus\.jsonl:2: not UTF-8"):
            open_collection(folder).texts(["a"])
        whole = gzip.compress((json.dumps(DOCS[0]) + "\n").encode() * 500)
        (folder / "corpus.jsonl").unlink()
        (folder / "corpus.jsonl.gz").write_bytes(whole[: len(whole) // 2])
        with pytest.raises(InputError, match=r"corpus\.jsonl\.gz"):
            open_collection(folder).texts(["a"])

    @pytest.mark.parametrize(
        ("content", "where"),
        [
            ("q1\tok\nq2 no tab\n", ":2: no tab"),
            ("q1\tok\n\nq1\tagain\n", ":3: query_id 'q1' stands here a second time"),
            ("\ttext\n", ":1: query_id '' cannot be used"),
            ("a b\ttext\n", ":1: query_id 'a b' cannot be used"),
        ],
    )
    def test_bad_queries(self, tmp_path: Path, content: str, where: str) -> None:
        c = open_collection(make(tmp_path / "c", queries_tsv=content))
        with pytest.raises(InputError) as caught:
            _ = c.topics
        assert f"queries.tsv{where}" in str(caught.value)

    def test_queries_keep_further_tabs_and_lose_line_ends(self, tmp_path: Path) -> None:
        c = open_collection(make(tmp_path / "c", queries_tsv="\ufeff007\ta\tb \r\n7\tc"))
        assert c.topics.rows() == [("007", "a\tb"), ("7", "c")]

    @pytest.mark.parametrize(
        ("content", "where"),
        [
            ("0\tno\nhigh\tyes\n", ":2: 'high\\tyes' is no grade"),
            ("0\t\n", ":1: "),
            ("1 yes\n", ":1: "),
            ("1\ta\n1\tb\n", ":2: grade 1 stands here a second time"),
        ],
    )
    def test_bad_grades(self, tmp_path: Path, content: str, where: str) -> None:
        c = open_collection(make(tmp_path / "c", grades_tsv=content))
        with pytest.raises(InputError) as caught:
            _ = c.grades
        assert f"grades.tsv{where}" in str(caught.value)

    def test_bad_qrels_are_named_by_file_and_line(self, tmp_path: Path) -> None:
        c = open_collection(make(tmp_path / "c", qrels_human_txt="q1 0 d1 1\nq1 0 d2\n"))
        with pytest.raises(InputError, match=r"qrels\.human\.txt:2: "):
            c.qrels()


class TestOpening:
    def test_a_corpus_may_be_missing(self, folder: Path) -> None:
        (folder / "corpus.jsonl").unlink()
        c = open_collection(folder)
        assert not c.has_text
        assert c.texts(["d1"]).is_empty()
        assert list(c.documents()) == []
        assert c.size == 0
        assert c.qrels().height == 4
        pairs = check(c.pairs(pl.DataFrame({"query_id": ["q1"], "doc_id": ["d1"]})), PAIRS)
        assert pairs.rows() == [("q1", "d1", "reset gauge", None)]
        assert len(c.corpus_hash) == 64

    def test_no_queries_file(self, folder: Path) -> None:
        (folder / "queries.tsv").unlink()
        with pytest.raises(
            InputError, match=r"queries\.tsv: there is no such file\nA collection is demo, irds:ID"
        ):
            open_collection(folder)

    def test_neither_folder_nor_name(self, folder: Path) -> None:
        with pytest.raises(UsageError, match=r"'dmeo' is no collection.*\nNext: stopgap collections"):
            open_collection("dmeo")
        with pytest.raises(UsageError, match="is a file, not a folder"):
            open_collection(folder / "queries.tsv")

    def test_demo_is_the_embedded_folder(self) -> None:
        c = open_collection("demo")
        assert c.name == "demo"
        assert c.size >= 300
        assert c.topics.height >= 40
        assert sorted(c.grades) == [0, 1, 2, 3]
        assert not any(words.startswith("grade ") for words in c.grades.values())
        qrels = c.qrels()
        assert set(qrels["relevance"]) <= {0, 1, 2, 3}
        assert c.texts(qrels["doc_id"].unique()).height == qrels["doc_id"].n_unique()

    def test_catalogue(self) -> None:
        names = [e.name for e in catalogue()]
        assert names == ["demo", "FOLDER", "irds:ID"]
        found = {e.name: e for e in catalogue("VASWANI")}
        assert found["irds:vaswani"] == ("irds:vaswani", "complete", 11429, 93, 2083)
        assert {e.name: e for e in catalogue("msmarco-passage")}["irds:msmarco-passage"].what == (
            "no topics, no judgments"
        )

    def test_without_ir_datasets(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "ir_datasets", None)
        assert "pip install 'stopgap[" in catalogue()[-1].what
        with pytest.raises(MissingExtra, match="pip install 'stopgap"):
            open_collection("irds:vaswani")


class Doc(NamedTuple):
    doc_id: str
    title: str
    text: str

    def default_text(self) -> str:
        return f"{self.title}: {self.text}"


class Query(NamedTuple):
    query_id: str
    description: str
    narrative: str


class Qrel(NamedTuple):
    query_id: str
    doc_id: str
    relevance: int
    iteration: str


@pytest.fixture
def irds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> SimpleNamespace:
    """A dataset of our own in ir_datasets' registry, gone afterwards; `docs` can be changed."""
    ir_datasets = pytest.importorskip("ir_datasets")
    monkeypatch.setenv("IR_DATASETS_HOME", str(tmp_path / "irds"))
    state = SimpleNamespace(docs=[Doc(f"d{i}", f"title {i}", f"text {i}") for i in range(5)], broken=None)
    formats = ir_datasets.formats

    class Docs(formats.BaseDocs):  # type: ignore[misc, name-defined]
        def docs_iter(self) -> Iterator[Doc]:
            if state.broken:
                raise state.broken
            return iter(state.docs)

        def docs_cls(self) -> type:
            return Doc

        def docs_store(self) -> Any:
            path = tmp_path / "irds" / "docs.pklz4"
            store = ir_datasets.indices.PickleLz4FullStore
            return store(str(path), self.docs_iter, Doc, "doc_id", ["doc_id"])

        def docs_count(self) -> int:
            return len(state.docs)

    class Queries(formats.BaseQueries):  # type: ignore[misc, name-defined]
        def queries_iter(self) -> Iterator[Query]:
            return iter([Query("1", "first need", "told at length"), Query("02", "second need", "")])

        def queries_cls(self) -> type:
            return Query

    class Qrels(formats.BaseQrels):  # type: ignore[misc, name-defined]
        def qrels_iter(self) -> Iterator[Qrel]:
            rows = [("1", "d0", 3), ("1", "d1", -2), ("02", "d0", 0), ("02", "d4", 1), ("02", "d4", 2)]
            return (Qrel(q, d, r, str(n)) for n, (q, d, r) in enumerate(rows))

        def qrels_defs(self) -> dict[int, str]:
            return {-2: "spam", 1: "somewhat", 2: "well", 3: "perfectly"}

        def qrels_cls(self) -> type:
            return Qrel

    registry = ir_datasets.registry
    monkeypatch.setattr(registry, "_registered", dict(registry._registered))
    registry.register("stopgap-test", ir_datasets.Dataset(Docs(), Queries(), Qrels()))
    registry.register("stopgap-test/bare", ir_datasets.Dataset(Docs()))
    return state


class TestIrDatasets:
    def test_everything_a_collection_has(self, irds: SimpleNamespace) -> None:
        c = open_collection("irds:stopgap-test")
        assert c.name == "irds:stopgap-test"
        assert check(c.topics, TOPICS).rows() == [
            ("1", "first need\ntold at length"),
            ("02", "second need\n"),
        ]
        assert c.grades == {0: "grade 0", 1: "somewhat", 2: "well", 3: "perfectly"}
        qrels = check(c.qrels(), QRELS)
        assert qrels.select("query_id", "doc_id", "relevance", "gain", "assessor").rows() == [
            ("1", "d0", 3, 3.0, "human"),
            ("1", "d1", -2, -2.0, "human"),
            ("02", "d0", 0, 0.0, "human"),
            ("02", "d4", 2, 2.0, "human"),
        ]
        assert c.texts(["d4", "x", "d0", "d4"]).rows() == [
            ("d4", "title 4: text 4"),
            ("d0", "title 0: text 0"),
        ]
        assert [b["doc_id"].to_list() for b in c.documents(batch=3)] == [["d0", "d1", "d2"], ["d3", "d4"]]
        assert c.size == 5
        ids = pl.DataFrame({"query_id": ["02", "1"], "doc_id": ["d1", "d9"]})
        assert check(c.pairs(ids), PAIRS)["text"].to_list() == ["title 1: text 1", None]

    def test_nothing_goes_to_stderr(self, irds: SimpleNamespace, capfd: pytest.CaptureFixture[str]) -> None:
        c = open_collection("irds:stopgap-test")
        assert c.texts(["d1"]).height == 1  # builds ir_datasets' own store, with messages and a bar
        assert capfd.readouterr() == ("", "")

    def test_the_hash_is_of_the_id_and_the_count(self, irds: SimpleNamespace) -> None:
        first = open_collection("irds:stopgap-test").corpus_hash
        assert first == open_collection("irds:stopgap-test").corpus_hash
        irds.docs.append(Doc("d5", "", "more"))
        assert first != open_collection("irds:stopgap-test").corpus_hash

    def test_the_published_count_needs_no_download(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("IR_DATASETS_HOME", str(tmp_path))
        dl19 = open_collection("irds:msmarco-passage/trec-dl-2019/judged")
        dl20 = open_collection("irds:msmarco-passage/trec-dl-2020")
        assert dl19.size == 8_841_823
        assert dl19.corpus_hash == dl20.corpus_hash != open_collection("irds:vaswani").corpus_hash
        assert dl19.grades[3].startswith("Perfectly relevant")

    def test_it_can_be_searched(self, irds: SimpleNamespace) -> None:
        pytest.importorskip("pyterrier_pisa")
        from harness.retrieve import retrieve

        irds.docs = [Doc("d0", "First", "needs an answer"), Doc("d1", "Second", "something else")]
        run = retrieve(open_collection("irds:stopgap-test"), "bm25")
        assert dict(run.filter(rank=0).select("query_id", "doc_id").iter_rows()) == {"1": "d0", "02": "d1"}

    def test_unknown_ids_and_missing_parts(self, irds: SimpleNamespace) -> None:
        with pytest.raises(UnknownName, match=r"Did you mean 'vaswani'[\s\S]*stopgap collections WORD"):
            open_collection("irds:vaswany")
        bare = open_collection("irds:stopgap-test/bare")
        with pytest.raises(UsageError, match="has no topics"):
            _ = bare.topics
        with pytest.raises(UnknownName, match="qrels"):
            bare.qrels()
        assert bare.grades == {0: "grade 0", 1: "grade 1"}
        with pytest.raises(UsageError, match="msmarco-passage/dev"):
            _ = open_collection("irds:msmarco-passage").topics

    def test_not_downloaded_and_no_network(self, irds: SimpleNamespace) -> None:
        irds.broken = ConnectionError("Name or service not known")
        c = open_collection("irds:stopgap-test")
        with pytest.raises(InputError) as caught:
            c.texts(["d1"])
        message = str(caught.value)
        assert "its documents could not be had from ir_datasets: ConnectionError: Name or service" in message
        assert "ir_datasets export stopgap-test docs" in message
        assert os.environ["IR_DATASETS_HOME"] in message

    @pytest.mark.network
    def test_vaswani_is_downloaded(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        try:
            socket.getaddrinfo("mirror.ir-datasets.com", 443)
        except OSError:
            pytest.skip("no network: irds:vaswani cannot be downloaded")
        monkeypatch.setenv("IR_DATASETS_HOME", str(tmp_path))
        c = open_collection("irds:vaswani")
        assert c.topics.height == 93
        assert c.qrels().height == 2083
        assert c.grades == {0: "grade 0", 1: "Relevant"}
        assert c.texts(["1", "11429"]).height == 2
        assert sum(b.height for b in c.documents()) == c.size == 11_429


class TestRealFolders:
    def test_every_folder_opens(self, data_dir: Path) -> None:
        with_queries = [p.parent for p in sorted(data_dir.glob("*/queries.tsv"))]
        assert len(with_queries) > 10
        for folder in with_queries:
            c = open_collection(folder)
            assert c.topics.height > 0, folder.name
            assert c.has_text == (folder / "corpus.jsonl.gz").exists()

    def test_counts_and_empty_texts(self, data_dir: Path) -> None:
        c = open_collection(data_dir / "chorus_electronics")
        assert c.size == 19_406
        assert c.grades == {g: f"grade {g}" for g in range(4)}
        assert all((b["text"].str.len_chars() > 0).all() for b in c.documents())
        pooled = c.qrels().select("query_id", "doc_id")
        pairs = c.pairs(pooled)
        assert pairs["text"].null_count() == pairs["query"].null_count() == 0

    def test_a_collection_without_text(self, data_dir: Path) -> None:
        c = open_collection(data_dir / "trec_covid_r1")
        assert not c.has_text
        assert c.grades == {g: f"grade {g}" for g in range(3)}
        assert c.texts(c.qrels()["doc_id"]).is_empty()


def test_only_this_module_imports_ir_datasets() -> None:
    root = Path(collection.__file__).parent
    users = [p.name for p in root.glob("**/*.py") if "import ir_datasets" in p.read_text()]
    assert users == ["collection.py"]
