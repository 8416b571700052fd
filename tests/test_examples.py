"""Judged documents beside a pair: which ones, never the pair itself, and part of a signal's key."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from harness.cli import main
from harness.collection import Collection, open_collection
from harness.errors import LabelerError, UsageError
from harness.examples import Examples, example_batches
from harness.fill import fill
from harness.frames import EXAMPLES, PAIRS, check
from harness.gullibility import gullibility
from harness.labeling import signals
from harness.ledger import Ledger
from harness.protocol import checked
from harness.simulate import signals_of
from harness.steps import Label, Rerank
from harness.trec import read_runs

GRADES = {0: "no", 1: "related", 2: "good", 3: "perfect"}
TEXTS = {
    "a": "herons nest in tall trees near water",
    "b": "herons nest in tall trees near rivers",
    "c": "a heron stands still and waits for fish",
    "d": "fish and chips by the river",
    "e": "annual report of the harbour office",
    "f": "herons  nest in tall trees near water",  # a's but for a blank
    "g": "the office is closed on mondays",
    "n": "herons nest where trees are tall",  # nobody judged it
    "m": "opening hours of the office",  # nor this
}
JUDGED = {"a": 3, "b": 3, "c": 1, "d": 0, "e": 0, "f": 2, "g": 0}


class Shown:
    """A labeler that says what it was shown, and how often it was asked."""

    name, needs_text, grades, fingerprint = "shown", True, GRADES, "0123456789abcdef"

    def __init__(self, examples: int = 2) -> None:
        self.examples = examples
        self.seen: dict[tuple[str, str], list[tuple[str, int]]] = {}
        self.asked = 0

    def signal(self, pairs: pl.DataFrame) -> pl.DataFrame:
        self.asked += pairs.height
        for query_id, doc_id, shown in pairs.select("query_id", "doc_id", "examples").iter_rows():
            self.seen[query_id, doc_id] = [(one["text"], one["grade"]) for one in shown]
        score = [float(len(t)) + 0.1 * i for i, t in enumerate(pairs["text"])]
        return pairs.select("query_id", "doc_id").with_columns(
            pl.lit(None, pl.List(pl.Float32)).alias("probs"),
            pl.Series("score", score, pl.Float32),
            reason=pl.lit(None, pl.String),
        )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Topic 1 is judged, 2 is not; 3 has few judgments, two of them off the scale and two of lost texts."""
    place = tmp_path / "DIR"
    place.mkdir()
    corpus = [json.dumps({"doc_id": d, "text": t}) for d, t in TEXTS.items()]
    qrels = [f"1 0 {d} {g}" for d, g in JUDGED.items()]
    qrels += ["3 0 c 1", "3 0 e 1", "3 0 d -1", "3 0 a -1", "3 0 lost 2", "3 0 gone 2"]
    (place / "corpus.jsonl").write_text("\n".join(corpus))
    (place / "queries.tsv").write_text("1\twhere do herons nest\n2\theron food\n3\topening hours\n")
    (place / "qrels.human.txt").write_text("\n".join(qrels) + "\n")
    (place / "grades.tsv").write_text("".join(f"{g}\t{w}\n" for g, w in GRADES.items()))
    return place


@pytest.fixture
def collection(folder: Path) -> Collection:
    return open_collection(folder)


def ids(*pairs: str) -> pl.DataFrame:
    return pl.DataFrame([p.split("-") for p in pairs], schema=["query_id", "doc_id"], orient="row")


def shown(collection: Collection, count: int, *pairs: str) -> list[list[tuple[str, int]]]:
    """Ids and grades of what is shown beside these pairs; texts are told by the id that has them."""
    frame = Examples(collection, collection.qrels(), count).attach(collection.pairs(ids(*pairs)))
    named = {text: doc for doc, text in reversed(TEXTS.items())}
    return [[(named[e["text"]], e["grade"]) for e in row] for row in frame["examples"]]


def test_the_nearest_of_each_grade_come_first(collection: Collection) -> None:
    assert shown(collection, 1, "1-n", "1-b") == [[("a", 3)], [("a", 3)]]
    assert shown(collection, 2, "1-n", "1-m") == [[("d", 0), ("a", 3)], [("e", 0), ("a", 3)]]
    # There is one more of grade 0; of grade 3 there is none to spare, and of 1 just one document. The one of
    # grade 2 has the text of a.
    assert shown(collection, 9, "1-n") == [[("d", 0), ("e", 0), ("a", 3)]]


def test_every_pair_of_a_topic_is_shown_equally_many_of_each_grade(collection: Collection) -> None:
    """Else a judged pair would be told its own grade by what it is not shown."""
    for count in range(1, 9):
        told = shown(collection, count, *(f"1-{d}" for d in TEXTS))
        (grades,) = {tuple(sorted(g for _, g in row)) for row in told}
        assert len(grades) == min(count, 3)


def test_what_is_not_shown_does_not_tell_a_grade(tmp_path: Path) -> None:
    """A labeler that only counts the grades of its examples must look as useless as it is."""
    rng, topics, docs = np.random.default_rng(0), 30, 12
    corpus, qrels = [], []
    for topic in range(topics):
        for doc in range(docs):
            words = " ".join(f"w{x}" for x in rng.integers(0, 40, 12))
            corpus.append(json.dumps({"doc_id": f"{topic}-{doc}", "text": words}))
            qrels.append(f"{topic} 0 {topic}-{doc} {[0, 0, 0, 1, 2, 3][doc % 6] if doc < 6 else doc % 3}")
    (tmp_path / "corpus.jsonl").write_text("\n".join(corpus))
    (tmp_path / "queries.tsv").write_text("".join(f"{t}\tabout {t}\n" for t in range(topics)))
    (tmp_path / "qrels.human.txt").write_text("\n".join(qrels) + "\n")
    opened = open_collection(tmp_path)
    judged = opened.qrels()
    frame = Examples(opened, judged, 6).attach(opened.pairs(judged.select("query_id", "doc_id")))
    seen = [sum(e["grade"] for e in row) for row in frame["examples"].to_list()]
    told = judged.select("query_id", "relevance").with_columns(seen=pl.Series(seen))
    spread = told.group_by("query_id").agg(pl.col("seen").n_unique())["seen"]
    assert spread.max() == 1
    assert min(seen) > 0


def test_nearness_is_the_cosine_of_tf_idf(collection: Collection) -> None:
    """Against scikit-learn's own cosine on the same words, over all judged documents of one grade."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.metrics.pairwise import cosine_similarity

    grade = [d for d, g in JUDGED.items() if g == 0]
    words = TfidfVectorizer(token_pattern=r"\w+").fit([TEXTS[d] for d in JUDGED])
    for doc in ("n", "m", "c"):
        near = cosine_similarity(words.transform([TEXTS[doc]]), words.transform([TEXTS[d] for d in grade]))
        best = grade[int(np.argmax(near.round(9)[0]))]
        assert (best, 0) in shown(collection, 2, f"1-{doc}")[0]


def test_never_the_pair_itself_nor_its_text(collection: Collection) -> None:
    for doc in JUDGED:
        (told,) = shown(collection, 50, f"1-{doc}")
        same = {"a", "f"} if doc in "af" else {doc}
        assert not {d for d, _ in told} & same
        assert told  # of the others there are some
    # Of two judged documents with one text only the first is shown.
    assert not any(d == "f" for d, _ in shown(collection, 50, "1-n")[0])


def test_only_the_topics_own_judgments_on_the_scale_with_a_text(collection: Collection) -> None:
    assert shown(collection, 4, "2-a", "3-m", "3-c", "9-a") == [[], [("e", 1)], [("e", 1)], []]


def test_a_label_is_no_judgment(collection: Collection) -> None:
    qrels = collection.qrels().with_columns(assessor=pl.lit("minilm@12345678"))
    frame = Examples(collection, qrels, 3).attach(collection.pairs(ids("1-n")))
    assert frame["examples"].to_list() == [[]]


def test_they_hang_on_the_pair_alone(collection: Collection) -> None:
    pairs = collection.pairs(ids(*(f"{q}-{d}" for q in "123" for d in TEXTS)))
    made = Examples(collection, collection.qrels(), 3)
    whole = made.attach(pairs)
    assert check(whole, {**PAIRS, "examples": EXAMPLES}).height == pairs.height
    mixed = pairs.sample(fraction=1.0, shuffle=True, seed=4)
    parts = pl.concat(made.attach(part) for part in mixed.iter_slices(2))
    assert_frame_equal(parts.sort("query_id", "doc_id"), whole.sort("query_id", "doc_id"))
    reordered = collection.qrels().sample(fraction=1.0, shuffle=True, seed=1)
    assert_frame_equal(Examples(collection, reordered, 3).attach(pairs), whole)


def test_texts_without_a_word_are_told_apart_by_their_ids(tmp_path: Path) -> None:
    (tmp_path / "corpus.jsonl").write_text(
        "\n".join(json.dumps({"doc_id": d, "text": t}) for d, t in {"z": "!!", "y": "??", "x": "--"}.items())
    )
    (tmp_path / "queries.tsv").write_text("1\tq\n")
    (tmp_path / "qrels.human.txt").write_text("1 0 z 1\n1 0 y 1\n1 0 x 0\n")
    opened = open_collection(tmp_path)
    frame = Examples(opened, opened.qrels(), 1).attach(opened.pairs(ids("1-x")))
    assert frame["examples"].to_list() == [[{"text": "??", "grade": 1}]]


# -- where they are attached ---------------------------------------------------------------------------------


def run_of(folder: Path) -> Path:
    run = folder.parent / "one.run"
    run.write_text("".join(f"1 Q0 {d} {i} {20 - i} one\n" for i, d in enumerate(TEXTS)))
    return run


@pytest.fixture
def runs(folder: Path) -> dict[str, pl.DataFrame]:
    return read_runs([run_of(folder)])


@pytest.mark.parametrize("mode", ["holes", "pool"])
def test_fill_shows_them_and_never_a_pair_its_own_judgment(
    collection: Collection, runs: dict[str, pl.DataFrame], mode: str
) -> None:
    labeler = Shown(3)
    qrels = collection.qrels().filter(query_id="1")
    fill(runs, qrels, collection, labeler, depth=20, mode=mode, neighbours=False)  # type: ignore[arg-type]
    assert set(labeler.seen) == {("1", d) for d in TEXTS}
    for (_, doc), seen in labeler.seen.items():
        assert seen
        assert " ".join(TEXTS[doc].split()) not in [" ".join(text.split()) for text, _ in seen]
        assert all(JUDGED[next(d for d in JUDGED if TEXTS[d] == text)] == grade for text, grade in seen)


def test_a_changed_judgment_is_asked_anew_where_it_was_shown_and_only_there(
    collection: Collection, tmp_path: Path
) -> None:
    pairs, ledger = collection.pairs(ids(*(f"1-{d}" for d in TEXTS), "2-n")), Ledger(tmp_path / "ledger")

    def asked(qrels: pl.DataFrame, count: int = 2) -> set[tuple[str, str]]:
        labeler = Shown(count)
        (whole,) = example_batches(labeler, iter([pairs]), collection, qrels)
        told = signals(labeler, whole, ledger=ledger)
        assert told["reason"].null_count() == pairs.height
        return set(labeler.seen)

    qrels = collection.qrels()
    assert len(asked(qrels)) == pairs.height
    assert asked(qrels) == set()
    assert asked(qrels.sample(fraction=1.0, shuffle=True, seed=2)) == set()
    changed = qrels.with_columns(
        relevance=pl.when(doc_id="g").then(pl.lit(1, pl.Int16)).otherwise("relevance")
    )
    old, new = (Examples(collection, given, 2).attach(pairs) for given in (qrels, changed))
    differ = {
        (query_id, doc_id)
        for query_id, doc_id, one, other in zip(
            old["query_id"], old["doc_id"], old["examples"].to_list(), new["examples"].to_list(), strict=True
        )
        if one != other
    }
    assert asked(changed) == differ
    assert 0 < len(differ) < pairs.height
    assert ("1", "g") not in differ  # a pair's own judgment is not among its examples
    assert asked(qrels) == set()  # what was known before is still known


def test_a_labeler_without_examples_has_the_key_it_always_had(collection: Collection, tmp_path: Path) -> None:
    class Plain(Shown):
        def signal(self, pairs: pl.DataFrame) -> pl.DataFrame:
            assert "examples" not in pairs.columns
            return super().signal(pairs.with_columns(pl.lit([], EXAMPLES).alias("examples")))

    pairs, ledger = collection.pairs(ids("1-a", "1-n")), Ledger(tmp_path / "ledger")
    plain, later = Plain(0), Plain(0)
    signals(plain, pairs, ledger=ledger)
    (same,) = example_batches(later, iter([pairs]), collection, collection.qrels())
    signals(later, same, ledger=ledger)
    assert (plain.asked, later.asked) == (2, 0)


def test_without_judgments_at_hand_it_is_refused(collection: Collection) -> None:
    with pytest.raises(UsageError, match=r"shows judged documents as examples(.|\n)*Next: a prompt without"):
        signals(Shown(), collection.pairs(ids("1-a")))


def test_where_judgments_are_taken_away_it_is_refused(collection: Collection) -> None:
    with pytest.raises(UsageError, match="would be shown the judgments that are to be taken away"):
        signals_of([Shown()], collection, collection.qrels())


def test_a_changed_text_keeps_its_examples(collection: Collection) -> None:
    """Among `gullibility`'s changes is the document twice, which is no longer its own text."""
    labeler = Shown(50)
    gullibility(labeler, collection, collection.qrels().filter(query_id="1"), sample=7, resamples=50)
    for (_, doc), seen in labeler.seen.items():  # what was shown last
        assert " ".join(TEXTS[doc].split()) not in [" ".join(text.split()) for text, _ in seen]


class Loaded(Shown):
    """As a registered labeler is made."""

    def __init__(self, grades: dict[int, str]) -> None:
        super().__init__(2)
        assert grades == self.grades
        LOADED.append(self)


LOADED: list[Loaded] = []


@pytest.fixture
def _loaded() -> Iterator[None]:
    LOADED.clear()
    yield
    LOADED.clear()


@pytest.mark.usefixtures("_loaded")
def test_as_transformers_a_labeler_of_labels_has_them_and_a_reranker_is_refused(
    collection: Collection,
) -> None:
    pd = pytest.importorskip("pandas", reason="needs the extra retrieve")
    frame = pd.DataFrame({"qid": ["1", "1"], "query": ["where do herons nest"] * 2, "docno": ["n", "m"]})
    with pytest.raises(UsageError, match="shows judged documents as examples"):
        Rerank(collection, f"{__name__}:Loaded", None)(frame)
    labeler = Shown()
    known = Label(collection, labeler, collection.qrels().filter(query_id="1"), None)
    known._signals(ids("1-n", "1-a"))
    assert all(labeler.seen[pair] for pair in [("1", "n"), ("1", "a")])


def test_the_command_line_says_why(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    spec = "openai:judge@http://127.0.0.1:9/v1?prompt=examples"
    arguments = ["simulate", str(run_of(folder)), "--qrels", str(folder / "qrels.human.txt")]
    code = main([*arguments, "--collection", str(folder), "--labeler", spec, "--leave-out", "random"])
    told = capsys.readouterr()
    assert code == 2
    assert "judgments that are to be taken away" in " ".join(told.err.split())
    assert "Traceback" not in told.err


@pytest.mark.parametrize("wrong", [-1, True, "4", None])
def test_a_number_of_examples_that_is_none(wrong: object) -> None:
    with pytest.raises(LabelerError, match="examples is"):
        checked("mine:Shown", Shown(wrong), GRADES)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [0, True, 2.5])
def test_a_number_at_once_that_is_none(wrong: object) -> None:
    labeler = Shown()
    labeler.at_once = wrong  # type: ignore[attr-defined]
    with pytest.raises(LabelerError, match="at_once is"):
        checked("mine:Shown", labeler, GRADES)
