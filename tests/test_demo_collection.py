"""The embedded collection is whole and is what its README says; runs/ and qrels/ come from it."""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections import Counter
from importlib.resources import files
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from harness.collection import Collection, open_collection
from harness.pool import holes, pool
from harness.trec import read_qrels, read_run

ROOT = Path(__file__).resolve().parent.parent
PIPELINES = ("bm25", "dense", "hybrid")
FOLDER = files("harness") / "demo_collection"
"""As installed: a file that the wheel lacks is missing here too."""


def lines(name: str) -> list[str]:
    return (FOLDER / name).read_text(encoding="utf-8").splitlines()


def rows(name: str) -> list[list[str]]:
    return [line.split("\t") for line in lines(name)]


@pytest.fixture(scope="module")
def demo() -> Collection:
    return open_collection("demo")


@pytest.fixture(scope="module")
def documents() -> list[dict[str, str]]:
    return [json.loads(line) for line in lines("corpus.jsonl")]


# -- whole ---------------------------------------------------------------------------------------------------


def test_it_is_as_large_as_a_demonstration_needs(demo: Collection) -> None:
    assert demo.size >= 300
    assert demo.topics.height >= 40
    assert demo.qrels().height >= 923


def test_what_the_package_holds_is_small_and_nothing_else() -> None:
    names = {p.name for p in FOLDER.iterdir()}
    qrels = {"qrels.human.txt", "qrels.pool.txt"}
    assert names == {"corpus.jsonl", "queries.tsv", "topics.tsv", "grades.tsv", "README.md"} | qrels
    assert max(len((FOLDER / name).read_bytes()) for name in names) < 2**20


def test_documents_are_well_formed_and_told_apart(documents: list[dict[str, str]]) -> None:
    assert all(list(d) == ["doc_id", "kind", "title", "text"] for d in documents)
    assert all(v == v.strip() != "" for d in documents for v in d.values())
    ids = [d["doc_id"] for d in documents]
    assert ids == sorted(set(ids))
    assert len({d["text"] for d in documents}) == len({d["title"] for d in documents}) == len(documents)


def test_topics_have_a_query_a_kind_and_a_need(demo: Collection) -> None:
    header, *topics = rows("topics.tsv")
    assert header == ["query_id", "kind", "need"]
    assert [t[0] for t in topics] == demo.topics["query_id"].to_list()
    assert all(len(t) == 3 and all(part.strip() for part in t) for t in topics)


def test_every_topic_has_an_answer_and_enough_of_everything(demo: Collection) -> None:
    assert set(demo.grades) == {0, 1, 2, 3}
    assert all(not words.startswith("grade ") for words in demo.grades.values())
    qrels = demo.qrels()
    counts = qrels.pivot("relevance", index="query_id", values="doc_id", aggregate_function="len")
    assert counts.height == demo.topics.height
    assert counts["3"].fill_null(0).is_between(1, 4).all()
    assert (counts["2"] >= 2).all()
    assert (counts["1"] >= 2).all()
    assert (counts["0"] >= 12).all()


def test_judgments_name_what_is_there_once_and_sorted(demo: Collection) -> None:
    for name in demo.qrels_names():
        judged = [line.split() for line in lines(f"qrels.{name}.txt")]
        pairs = [(q, d) for q, _, d, _ in judged]
        assert pairs == sorted(set(pairs)), name
        assert {iteration for _, iteration, _, _ in judged} == {"0"}
        assert {q for q, _ in pairs} == set(demo.topics["query_id"])
        found = demo.texts(dict.fromkeys(d for _, d in pairs))
        assert found.height == len({d for _, d in pairs}), name


def test_every_document_was_judged_for_some_topic(demo: Collection, documents: list[dict[str, str]]) -> None:
    assert {d["doc_id"] for d in documents} == set(demo.qrels()["doc_id"])


def test_the_invented_stay_invented() -> None:
    text = "\n".join(lines("corpus.jsonl"))
    hosts = set(re.findall(r"(?:@|://)([\w.-]+\w)", text))
    assert all(host.endswith(".example") for host in hosts), "a reserved name that nobody can own"
    assert set(re.findall(r"\+(\d\d) \d{3} \d", text)) == {"00"}, "a country code that no country has"


# -- what the README says ------------------------------------------------------------------------------------


def told(pattern: str) -> list[str]:
    return re.findall(pattern, re.sub(r"\s+", " ", "\n".join(lines("README.md"))))


def test_the_readme_s_counts_are_right(demo: Collection, documents: list[dict[str, str]]) -> None:
    by_grade: dict[str, list[Any]] = {name: [0] * 4 for name in ("human", "pool")}
    for name, counts in by_grade.items():
        for grade, n in Counter(demo.qrels(name)["relevance"]).items():
            counts[grade] = n
    table = told(r"\| (\d) \| [^|]+ \| ([\d,]+) \| ([\d,]+) \|")
    assert [int(row[1].replace(",", "")) for row in table] == by_grade["human"]
    assert [int(row[2]) for row in table] == by_grade["pool"]
    assert told(r"all ([\d,]+) judgments") == [f"{sum(by_grade['human']):,}"]
    assert told(r"(\d+) of them: those") == [str(sum(by_grade["pool"]))]
    assert told(r"(\d+) documents: `doc_id`") == [str(len(documents))]
    assert told(r"(\d+) queries as") == [str(demo.topics.height)]
    kinds = {"Documents": Counter(d["kind"] for d in documents)}
    kinds["Topics"] = Counter(kind for _, kind, _ in rows("topics.tsv")[1:])
    for what, counted in kinds.items():
        (listed,) = told(rf"{what} by kind: ([^.]+)\.")
        assert dict(part.rsplit(" ", 1) for part in listed.split(", ")) == {
            kind: str(n) for kind, n in counted.items()
        }
    lengths = sorted(len(f"{d['title']} {d['text']}".split()) for d in documents)
    assert lengths[len(lengths) // 2] < 120
    assert sum(n > 300 for n in lengths) * 11 == pytest.approx(len(documents), abs=11)


def test_the_readme_s_grades_are_those_of_the_collection(demo: Collection) -> None:
    assert {int(g): words for g, words in told(r"\| (\d) \| ([^|]+) \| [\d,]+ \| \d+ \|")} == demo.grades


def test_the_readme_says_what_it_cannot_say() -> None:
    assert told("project's authors wrote the documents")
    assert told("says nothing about quality on your data")


# -- baselines -----------------------------------------------------------------------------------------------


def manifest(folder: str) -> list[dict[str, str]]:
    if not (ROOT / folder).is_dir():
        pytest.skip("not in a checkout")
    with (ROOT / folder / "MANIFEST.tsv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))


@pytest.mark.parametrize(("folder", "reader"), [("runs", read_run), ("qrels", read_qrels)])
def test_the_manifest_is_true(folder: str, reader: Any) -> None:
    listed = manifest(folder)
    assert {row["path"] for row in listed} == {
        p.relative_to(ROOT / folder).as_posix()
        for p in (ROOT / folder).rglob("*")
        if p.is_file() and p.name != "MANIFEST.tsv"
    }
    for row in listed:
        path = ROOT / folder / row["path"]
        assert hashlib.sha256(path.read_bytes()).hexdigest() == row["sha256"]
        if not path.name.endswith(".meta.yaml"):
            frame = reader(path)
            assert (frame.height, frame["query_id"].n_unique()) == (int(row["rows"]), int(row["topics"]))
        assert all(row[column].strip() for column in ("source", "licence", "command"))


@pytest.fixture(scope="module")
def baselines() -> dict[str, pl.DataFrame]:
    return {name: read_run(ROOT / "runs" / "demo" / f"{name}.run") for name in PIPELINES}


def test_the_first_20_of_the_baselines_are_judged(
    demo: Collection, baselines: dict[str, pl.DataFrame]
) -> None:
    assert holes(baselines, demo.qrels(), 10).height == 0
    assert (
        holes(baselines, demo.qrels(), 20).height <= 5
    )  # a fusion's tail moves with the last bit of a cosine


def test_the_pool_s_judgments_are_those_of_bm25_s_first_10(
    demo: Collection, baselines: dict[str, pl.DataFrame]
) -> None:
    ids = ["query_id", "doc_id"]
    known = demo.qrels("pool")
    assert known.select(ids).rows() == pool({"bm25": baselines["bm25"]}, 10).rows()
    assert known.join(demo.qrels(), on=known.columns, how="anti").height == 0
    left = holes(baselines, known, 10)
    assert 0.2 < left.height / pool(baselines, 10).height < 0.5, "a demo without holes shows nothing"


def test_bm25_is_what_its_command_gives(demo: Collection, baselines: dict[str, pl.DataFrame]) -> None:
    pytest.importorskip("pyterrier")
    pytest.importorskip("pyterrier_pisa")
    from harness.retrieve import retrieve

    again, stored = retrieve(demo, "bm25", 50), baselines["bm25"]
    assert again.select("query_id", "doc_id").rows() == stored.select("query_id", "doc_id").rows()
    assert again["score"].to_list() == pytest.approx(stored["score"].to_list(), rel=1e-6)


def test_the_filled_qrels_keep_the_judgments_and_label_every_hole(
    demo: Collection, baselines: dict[str, pl.DataFrame]
) -> None:
    filled, known = read_qrels(ROOT / "qrels" / "demo" / "filled.qrels"), demo.qrels("pool")
    human = filled.filter(pl.col("assessor") == "human")
    assert human.select(known.columns).rows() == known.rows()
    labels = filled.filter(pl.col("assessor") != "human")
    runs = {name: baselines[name] for name in ("bm25", "hybrid")}
    assert labels.select("query_id", "doc_id").rows() == holes(runs, known, 10).rows()
    assert labels["gain"].is_between(0, 3).all()
    assert (labels["probs"].list.sum() - 1).abs().max() < 1e-3
