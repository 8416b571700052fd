"""Distilling, the data half: stages that resume, queries, negatives, teachers, and nothing of the test."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.cli import main
from harness.errors import CalibrationError, InputError, LabelerError, UnknownName, UsageError
from labelers.distill import run as runner
from labelers.distill.config import read_settings
from labelers.distill.leaks import HeldOut, Pair, leaks, refuse
from labelers.distill.rows import read_rows
from labelers.distill.stages import MANIFEST, _Shelf
from labelers.distill.teach import TAUGHT, training_pairs
from labelers.distill.teachers import ScoreScale, judged, one_grade_only
from labelers.distill.work import Work, split_topics

pytest.importorskip("deltalake")

SUBJECTS = ["pump", "valve", "battery", "cable", "sensor", "gateway", "ladder", "invoice", "holiday"]
SUBJECTS += ["badge", "printer", "server"]
PLACES = ["harbour", "depot", "office", "tunnel"]

# A teacher that counts words in common, an encoder of hashed words, and one that fails; each tells in a file
# how much it was asked.
FAKES = """
from hashlib import sha256
from pathlib import Path
import numpy as np
import polars as pl

def shared(query, text):
    return len(set(query.lower().split()) & set(text.lower().replace(".", " ").split()))

class Base:
    needs_text = True
    def __init__(self, grades):
        self.grades = grades
        self.fingerprint = sha256(type(self).__name__.encode()).hexdigest()
        self.name = type(self).__name__
    def asked(self, n):
        with open(f"asked.{self.name}", "a") as file:
            file.write(f"{n}\\n")

class Counts(Base):
    def signal(self, pairs):
        self.asked(pairs.height)
        last = len(self.grades) - 1
        rows = [[float(min(shared(q, t), last) == g) for g in range(last + 1)]
                for q, t in pairs.select("query", "text").iter_rows()]
        return pairs.select("query_id", "doc_id").with_columns(
            pl.Series("probs", rows, dtype=pl.List(pl.Float32)),
            score=pl.lit(None, pl.Float32), reason=pl.lit(None, pl.String))

class Picky(Counts):
    def signal(self, pairs):
        fine = Path("well").exists()
        found = super().signal(pairs)
        bad = pl.lit(not fine) & (pl.col("doc_id") == "d3")
        return found.with_columns(probs=pl.when(~bad).then("probs"),
                                  reason=pl.when(bad).then(pl.lit("time out")))

class Gone(Base):
    def signal(self, pairs):
        return pairs.select("query_id", "doc_id").with_columns(
            probs=pl.lit(None, pl.List(pl.Float32)), score=pl.lit(None, pl.Float32),
            reason=pl.lit("no connection to the server"))

class Words(Base):
    dimension, feature_names = 64, ("f",)
    def embed(self, texts):
        self.asked(len(texts))
        out = np.zeros((len(texts), 64), np.float32)
        for row, text in enumerate(texts):
            for word in text.lower().replace(".", " ").split():
                out[row, sha256(word.encode()).digest()[0] % 64] += 1
        return out / np.linalg.norm(out, axis=1, keepdims=True)
    def signal(self, pairs):
        queries, texts = self.embed(pairs["query"].to_list()), self.embed(pairs["text"].to_list())
        return pairs.select("query_id", "doc_id").with_columns(
            pl.Series("score", (queries * texts).sum(axis=1), dtype=pl.Float32),
            pl.Series("vector", texts, dtype=pl.Array(pl.Float32(), 64)),
            features=pl.lit([0.0], pl.List(pl.Float32)),
            probs=pl.lit(None, pl.List(pl.Float32)), reason=pl.lit(None, pl.String))
"""

Write = Callable[..., Path]
STAGES = runner.STAGES[:3]
DATA = [stage.name for stage in STAGES]


def document(number: int) -> tuple[str, str]:
    subject, place = SUBJECTS[number % 12], PLACES[number // 12]
    other = SUBJECTS[(number + 5) % 12]
    title = f"{subject.title()} {place} instructions {number}"
    text = (
        f"Open the {subject} cover before you check the {other} near the {place}. "
        f"The {subject} in the {place} was installed in March by Ada Marsh and lasts 12 months. "
        f"Send the {subject} report to the {place} manager."
    )
    return title, text


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Write a collection of 48 documents and 8 topics, and a file of settings; the file's path."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "distill_fakes.py").write_text(FAKES)
    folder = tmp_path / "docs"
    folder.mkdir()
    lines = [{"doc_id": f"d{i}", "title": document(i)[0], "text": document(i)[1]} for i in range(48)]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    topics = {f"t{i}": f"{SUBJECTS[i]} trouble {PLACES[i % 4]}" for i in range(8)}
    (folder / "queries.tsv").write_text("".join(f"{q}\t{text}\n" for q, text in topics.items()))
    judgments = [f"t{i} 0 d{d} {2 if d % 12 == i and d // 12 == i % 4 else int(d % 12 == i)}\n"
                 for i in range(8) for d in (i, i + 12, i + 24, i + 36, i + 5, i + 1)]  # fmt: skip
    (folder / "qrels.human.txt").write_text("".join(judgments))
    (folder / "grades.tsv").write_text("0\tno\n1\trelated\n2\tthe answer\n")

    def settings(more: str = "", teachers: str = '["distill_fakes:Counts", "human"]', **tables: str) -> Path:
        given = {
            "synthesize": "queries = 30",
            "negatives": 'bm25 = 0\nencoder = 3\nrandom = 2\nmodel = "distill_fakes:Words"',
            "human": "",
            "teach": f"teachers = {teachers}",
        } | tables
        text = f'collection = "docs"\nout = "made"\nledger = "ledger"\n{more}\n'
        text += "".join(f"[{name}]\n{body}\n" for name, body in given.items())
        path = tmp_path / "distill.toml"
        path.write_text(text)
        return path

    yield settings
    sys.modules.pop("distill_fakes", None)


def distill(path: Path, names: Sequence[str] = ()) -> runner.Distilled:
    return runner.distill(path, names or DATA)


def states(path: Path, *names: str) -> dict[str, str]:
    return {one.name: one.state for one in distill(path, names).stages}


def rows_of(name: str) -> list[dict[str, Any]]:
    stage = next(stage for stage in STAGES if stage.file == name)
    return read_rows(Path("made") / name, stage.fields)


def run(*arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    named = any(name in arguments for name in DATA)
    code = main(["distill", *arguments, *([] if named else DATA)])
    out, err = capsys.readouterr()
    return code, out, err


# -- the whole way -------------------------------------------------------------------------------------------


def test_from_documents_to_taught_pairs(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(str(write()), "--json", capsys=capsys)
    assert (code, err) == (0, "")
    told = json.loads(out)
    assert {name: one["state"] for name, one in told["stages"].items()} == {
        "synthesize": "made", "negatives": "made", "teach": "made"
    }  # fmt: skip
    queries, pairs, taught = rows_of("queries.jsonl"), rows_of("pairs.jsonl"), rows_of("taught.jsonl")
    assert len(queries) == told["stages"]["synthesize"]["rows"] == 30
    assert {row["generator"] for row in queries} == {"keyphrase"}
    assert {row["kind"] for row in queries} == {"navigational", "fact", "how-to", "keyword"}
    dropped = told["stages"]["synthesize"]["summary"]["dropped"]
    assert dropped["nothing for a long query"] > 0, "documents of two key phrases"
    assert {row["found"] for row in pairs} == {"seed", "encoder", "random", "judged"}
    for query in queries:
        (seed,) = (p for p in pairs if p["query_id"] == query["query_id"] and p["found"] == "seed")
        assert seed["doc_id"] == query["doc_id"]
    assert [(r["query_id"], r["doc_id"]) for r in taught] == [(r["query_id"], r["doc_id"]) for r in pairs]
    for row in taught:
        assert sum(row["probs"]) == pytest.approx(1)
        if row["source"] == "human":
            assert row["probs"][row["grade"]] == 1
            assert list(row["teachers"]) == ["human"]
        else:
            assert row["grade"] is None
    work = Work(read_settings("distill.toml"))
    assert len(work.split.test) == 4
    assert not {row["query_id"] for row in taught} & set(work.split.test)
    frame = training_pairs(work, taught)
    assert frame.height == len(taught)
    assert frame["text"][0].startswith(document(int(frame["doc_id"][0][1:]))[0])


def test_the_same_settings_give_the_same_bytes(write: Write, tmp_path: Path) -> None:
    path = write()
    distill(path)
    first = {stage.file: (tmp_path / "made" / stage.file).read_bytes() for stage in STAGES}
    for file in (*first, MANIFEST):
        (tmp_path / "made" / file).unlink()
    distill(path)
    assert first == {stage.file: (tmp_path / "made" / stage.file).read_bytes() for stage in STAGES}


def test_the_table_says_what_each_stage_did(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(str(write()), "synthesize", capsys=capsys)
    assert code == 0
    assert "synthesize" in out
    assert "keyphrase" in out
    assert "negatives" not in out.splitlines()[1:3]


# -- resuming ------------------------------------------------------------------------------------------------


def test_only_what_changed_is_done_again(write: Write) -> None:
    path = write()
    assert set(states(path).values()) == {"made"}
    asked = Path("asked.Counts").read_text()
    assert set(states(path).values()) == {"unchanged"}
    write(teach='teachers = ["distill_fakes:Counts", "human"]\nsmoothing = 0.1')
    assert states(path) == {"synthesize": "unchanged", "negatives": "unchanged", "teach": "made"}
    assert Path("asked.Counts").read_text() == asked, "the ledger has every answer"
    write(synthesize="queries = 31")
    assert states(path)["synthesize"] == "made"
    assert states(path, "synthesize", "negatives", "teach") == dict.fromkeys(
        ("synthesize", "negatives", "teach"), "unchanged"
    )


def test_a_kill_between_the_record_and_the_file_is_no_edit(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write()
    distill(path, ["synthesize"])
    old = Path("made/queries.jsonl").read_bytes()
    write(synthesize="queries = 20")
    distill(path, ["synthesize"])
    new = Path("made/queries.jsonl").read_bytes()
    Path("made/queries.jsonl").write_bytes(old)  # what a kill just before the rename leaves behind
    assert states(path, "synthesize") == {"synthesize": "made"}
    assert Path("made/queries.jsonl").read_bytes() == new != old


def test_a_kill_while_teaching_loses_no_answer(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(negatives='bm25 = 0\nencoder = 6\nrandom = 5\nmodel = "distill_fakes:Words"')
    distill(path, ["synthesize", "negatives"])
    import distill_fakes  # type: ignore[import-not-found]

    whole = distill_fakes.Counts.signal

    def killed(self: Any, pairs: Any) -> Any:
        if Path("asked.Counts").exists():
            raise KeyboardInterrupt
        return whole(self, pairs)

    monkeypatch.setattr(distill_fakes.Counts, "signal", killed)
    assert main(["distill", str(path)]) == 130
    assert not Path("made/taught.jsonl").exists()
    monkeypatch.setattr(distill_fakes.Counts, "signal", whole)
    assert states(path)["teach"] == "made"
    asked = [int(n) for n in Path("asked.Counts").read_text().split()]
    synthetic = [row for row in rows_of("taught.jsonl") if row["source"] == "synthetic"]
    assert len(asked) > 1
    assert sum(asked) == len({(row["query"], row["doc_id"]) for row in synthetic})


def test_a_stage_needs_the_files_before_it(write: Write) -> None:
    path = write()
    with pytest.raises(
        UsageError, match=r"queries.jsonl, which is not there yet\.\nNext: .* synthesize negatives"
    ):
        distill(path, ["negatives"])
    distill(path, ["synthesize", "negatives"])
    write(synthesize="queries = 20")
    with pytest.raises(UsageError, match="made of something else"):
        distill(path, ["teach"])
    with pytest.raises(UnknownName, match="negatives"):
        distill(path, ["negative"])


def test_targets_that_lack_a_label_are_read_only_while_they_are_of_now(write: Write) -> None:
    """A pair without a label leaves its stage unfinished; another teacher leaves nothing of it."""
    distill(write(teachers='["distill_fakes:Counts", "distill_fakes:Picky", "human"]'))
    stages = [*STAGES, replace(STAGES[2], name="after", file="after.jsonl", needs=("teach",))]
    work = Work(read_settings("distill.toml"))
    shelf = _Shelf(work, {stage.name: stage for stage in stages})
    shelf._needed(stages[3], stages[2])
    write(teachers='["distill_fakes:Counts", "distill_fakes:Picky", "human"]', teach='teachers = ["human"]')
    work = Work(read_settings("distill.toml"))
    shelf = _Shelf(work, {stage.name: stage for stage in stages})
    with pytest.raises(UsageError, match=r"taught.jsonl, which was made of something else"):
        shelf._needed(stages[3], stages[2])


def test_a_file_edited_by_hand_is_used_and_never_written_over(write: Write) -> None:
    path = write()
    distill(path)
    file = Path("made/queries.jsonl")
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:7]))
    assert states(path) == {"synthesize": "edited", "negatives": "made", "teach": "made"}
    assert len({row["query_id"] for row in rows_of("pairs.jsonl") if row["source"] == "synthetic"}) == 7
    write(synthesize="queries = 25")
    with pytest.raises(UsageError, match="edited by hand"):
        distill(path)
    assert file.read_text() == "".join(lines[:7])


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("{", "is no line of JSON"),
        ("[]", "is no JSON object"),
        ('{"query_id": "a"}', "lacks query, kind"),
        (
            '{"query_id": 1, "query": "a", "kind": "fact", "doc_id": "d1", "generator": "me"}',
            "query_id is 1, not str",
        ),
    ],
)
def test_a_corrupt_file_is_named_with_its_line(write: Write, line: str, what: str) -> None:
    path = write()
    distill(path, ["synthesize"])
    file = Path("made/queries.jsonl")
    file.write_text(file.read_text() + line + "\n")
    with pytest.raises(InputError, match=rf"queries.jsonl:31: {what}") as caught:
        distill(path)
    assert "delete" in str(caught.value)


def test_rows_that_stand_twice_and_a_broken_manifest_are_errors(write: Write) -> None:
    path = write()
    distill(path, ["synthesize"])
    file = Path("made/queries.jsonl")
    file.write_text(file.read_text() + file.read_text().splitlines()[0] + "\n")
    with pytest.raises(InputError, match=r":31: .* stands there twice: it is row 1"):
        distill(path)
    Path("made", MANIFEST).write_text("{")
    with pytest.raises(InputError, match="not what stopgap wrote"):
        distill(path)
    Path("made", MANIFEST).unlink()
    with pytest.raises(UsageError, match="does not say that stopgap made it"):
        distill(path)


# -- teaching ------------------------------------------------------------------------------------------------


def test_a_pair_that_a_teacher_failed_on_is_null_and_tried_again(
    write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(teachers='["distill_fakes:Counts", "distill_fakes:Picky", "human"]')
    assert run(str(path), capsys=capsys)[0] == 4
    failed = [row for row in rows_of("taught.jsonl") if row["reason"]]
    assert failed
    assert {row["doc_id"] for row in failed} == {"d3"}
    assert all(row["probs"] is None and row["reason"].startswith("Picky@") for row in failed)
    work = Work(read_settings(path))
    assert training_pairs(work, rows_of("taught.jsonl")).height == len(rows_of("taught.jsonl")) - len(failed)
    Path("well").touch()
    code, out, _ = run(str(path), "--json", capsys=capsys)
    assert code == 0
    assert json.loads(out)["stages"]["teach"]["state"] == "made"
    assert not [row for row in rows_of("taught.jsonl") if row["reason"]]


def test_teachers_are_blended_by_their_weights(write: Write) -> None:
    path = write(teach='teachers = ["distill_fakes:Counts", "constant:0"]\nweights = [3, 1.0]')
    distill(path)
    for row in rows_of("taught.jsonl"):
        (counts, constant) = row["teachers"].values()
        assert constant == [1, 0, 0]
        assert row["probs"] == pytest.approx(
            [0.75 * a + 0.25 * b for a, b in zip(counts, constant, strict=True)]
        )


def test_a_score_is_calibrated_on_the_training_topics(write: Write) -> None:
    distill(write(teachers='["distill_fakes:Words", "human"]'))
    rows = rows_of("taught.jsonl")
    gain = {found: np.mean([np.dot(r["probs"], [0, 1, 2]) for r in rows if r["found"] == found])
            for found in ("seed", "random")}  # fmt: skip
    assert gain["seed"] > gain["random"] + 0.2


def test_calibrated_scores_have_the_frequencies_of_the_grades() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=1500)
    topics = [str(i // 50) for i in range(1500)]
    y = ((x + rng.logistic(size=1500)) > 0).astype(np.int64) + ((x + rng.logistic(size=1500)) > 2)
    probs = ScoreScale.of(0.5 + 0.1 * x, y, topics, 3).probs(0.5 + 0.1 * x)
    for low, high in ((-3, -1), (-1, 0), (0, 1), (1, 3)):
        part = (x > low) & (x < high)
        said, was = probs[part].mean(axis=0), np.bincount(y[part], minlength=3) / part.sum()
        assert said == pytest.approx(was, abs=0.08)


def test_judgments_as_distributions() -> None:
    assert judged([0, 3], [0, 1, 3], 0).tolist() == [[1, 0, 0], [0, 0, 1]]
    assert judged([0, 1, 3], [0, 1, 3], 0.2) == pytest.approx(
        np.array([[0.8, 0.2, 0], [0.1, 0.8, 0.1], [0, 0.2, 0.8]])
    )
    assert one_grade_only(np.array([[0.0, 1.0], [0.0, 1.0]])) == 1
    assert one_grade_only(np.array([[0.1, 0.9], [0.0, 1.0]])) is None


@pytest.mark.parametrize(
    ("tables", "kind", "what"),
    [
        ({"teachers": '["distill_fakes:Gone"]'}, LabelerError, "answered none of .* no connection"),
        ({"teachers": '["constant:1"]'}, UsageError, "all .* targets are of grade 1"),
        (
            {"teachers": '["human"]', "human": 'qrels = "none"'},
            InputError,
            '"human", but human.qrels is "none"',
        ),
        (
            {"teachers": '["distill_fakes:Words"]', "human": 'qrels = "none"'},
            InputError,
            "score and no grades",
        ),
        ({"teachers": '["distill_fakes:Absent"]'}, LabelerError, "has no 'Absent'"),
        ({"human": 'train = ["t1"]\ntest = ["t1", "t2"]'}, InputError, r"toml:\d+: topics t1 are for"),
        ({"human": 'test = ["t99"]'}, UnknownName, "t99"),
        ({"human": 'qrels = "nobody"'}, InputError, "no file, nor judgments"),
    ],
)
def test_what_cannot_be_taught_is_an_error_that_loses_nothing(
    write: Write, tables: dict[str, str], kind: type[Exception], what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(**tables)
    with pytest.raises(kind, match=what):
        distill(path)
    assert not Path("made/taught.jsonl").exists()
    code, out, err = run(str(path), capsys=capsys)
    assert (code, out) == (2, "")
    assert "Traceback" not in err


def test_judgments_of_one_grade_are_no_scale() -> None:
    import polars as pl

    from harness.ledger import Ledger

    class Score:
        name, grades, fingerprint, needs_text = "score", {0: "", 1: ""}, "f" * 64, False

        def signal(self, pairs: pl.DataFrame) -> pl.DataFrame:
            return pairs.select("query_id", "doc_id").with_columns(
                probs=pl.lit(None, pl.List(pl.Float32)),
                score=pl.lit(0.5, pl.Float32),
                reason=pl.lit(None, pl.String),
            )

    known = pl.DataFrame({"query_id": ["a"], "doc_id": ["d"], "query": ["q"], "text": ["t"], "grade": [1]})
    with pytest.raises(CalibrationError, match="one grade only"):
        ScoreScale.fitted(Score(), known, [0, 1], ledger=Ledger())
    with pytest.raises(CalibrationError, match="no judgments"):
        ScoreScale.fitted(Score(), known.clear(), [0, 1], ledger=Ledger())


def test_an_empty_corpus_is_an_error(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    path = write()
    for text in ("", '{"doc_id": "a", "text": "… -"}\n'):
        Path("docs/corpus.jsonl").write_text(text)
        code, out, err = run(str(path), capsys=capsys)
        assert (code, out) == (2, "")
        assert re.search("the file is empty|nothing to distil from", err)


# -- leaks ---------------------------------------------------------------------------------------------------

HELD = HeldOut.of(
    {"t1": "Pump, trouble: Harbour", "t2": "lost badge"},
    [Pair("t2", "lost badge", "Badges. Found!")],
    same_ids=True,
)


@pytest.mark.parametrize(
    ("pair", "how"),
    [
        (Pair("t1", "something else", "x"), "its id"),
        (Pair("s1", "púmp  TROUBLE harbour?", None), "its text"),
        (Pair("s2", "badge, lost", "badges found"), "its words and document"),
    ],
)
def test_a_planted_leak_is_found(pair: Pair, how: str) -> None:
    (leak,) = leaks([Pair("s9", "fine", "text"), pair], HELD)
    assert (leak.pair, leak.how) == (pair, how)
    with pytest.raises(UsageError, match=rf"test topics {leak.topic} .*\n.*{how}"):
        refuse([pair], HELD, "pairs.jsonl")


def test_what_is_no_leak_passes() -> None:
    fine = [
        Pair("s1", "badge lost", "another document"),
        Pair("s2", "pump trouble", "x"),
        Pair("s3", "", "y"),
    ]
    assert leaks(fine, HELD) == []
    elsewhere = HeldOut.of({"t1": "pump"}, [], same_ids=False)
    assert leaks([Pair("t1", "the same id of another collection", "x")], elsewhere) == []


def test_a_leak_planted_in_the_pairs_stops_the_teaching(
    write: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(human='test = ["t1", "t2"]')
    distill(path, ["synthesize", "negatives"])
    file = Path("made/pairs.jsonl")
    row = json.loads(file.read_text().splitlines()[0])
    planted = [row | {"query_id": "t2"}, row | {"query_id": "syn-x", "query": "VALVE trouble, depot"}]
    file.write_text(file.read_text() + "".join(json.dumps(one) + "\n" for one in planted))
    code, _, err = run(str(path), capsys=capsys)
    assert code == 2
    assert "test topics t1, t2" in err
    assert not Path("made/taught.jsonl").exists()
    assert not Path("asked.Counts").exists(), "the teacher was not asked"


def test_a_leak_planted_in_what_was_taught_stops_the_training(write: Write) -> None:
    path = write(human='test = ["t1"]')
    distill(path)
    rows = rows_of(TAUGHT.file)
    with pytest.raises(UsageError, match="test topics t1"):
        training_pairs(Work(read_settings(path)), [*rows, rows[0] | {"query": "valve trouble depot"}])


def test_topics_of_the_same_text_in_training_and_test_leak(write: Write) -> None:
    topics = Path("docs/queries.tsv").read_text()
    Path("docs/queries.tsv").write_text(topics.replace("pump trouble harbour", "Valve Trouble Depot!"))
    with pytest.raises(UsageError, match=r"t0 .* is test topic t1 by its text"):
        distill(write(human='test = ["t1"]'))
    distill(write(human="test_share = 0.5"))  # by chance, they go to the same side


def test_a_split_keeps_to_its_share_and_its_seed() -> None:
    topics = {f"q{i}": f"topic {i // 2}" for i in range(40)}  # in twos of the same text
    split = split_topics(topics, 0.3, 0)
    assert split == split_topics(dict(reversed(topics.items())), 0.3, 0)
    assert split != split_topics(topics, 0.3, 1)
    assert len(split.test) == 12
    assert {topics[q] for q in split.train}.isdisjoint(topics[q] for q in split.test)
    assert split_topics(topics, 0, 0).test == ()


def test_the_test_may_be_another_collection(write: Write, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "queries.tsv").write_text("t1\tsomething else altogether\n")
    (other / "qrels.human.txt").write_text("t1 0 x 1\n")
    (other / "corpus.jsonl").write_text('{"doc_id": "x", "text": "far away"}\n')
    path = write(human='test_collection = "other"')
    distill(path)
    taught = {row["query_id"] for row in rows_of("taught.jsonl") if row["source"] == "human"}
    assert taught == {f"t{i}" for i in range(8)}
    assert Work(read_settings(path)).held_out.queries == {"t1": "something else altogether"}
    (other / "qrels.human.txt").write_text("t1 0 x 3\n")
    with pytest.raises(
        InputError, match=r"human.test_collection: topic t1, document x has grade 3; .* are 0"
    ):
        _ = Work(read_settings(path)).test_judgments


def test_a_list_of_topics_has_one_a_line(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(human='train = "train.txt"')
    Path("train.txt").write_text("t1\n\n  t2 t3 \n")
    code, _, err = run(str(path), capsys=capsys)
    assert code == 2
    assert "train.txt:3: 't2 t3' is more than one query id" in err
    Path("train.txt").write_text(" t1 \n\nt2\n")
    assert Work(read_settings(path)).split.train == ("t1", "t2")


def test_what_gives_no_vectors_finds_no_negatives(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(negatives='model = "distill_fakes:Counts"')
    code, _, err = run(str(path), capsys=capsys)
    assert code == 2
    assert "distill.toml:8: negatives.model 'distill_fakes:Counts' is no encoder" in err
