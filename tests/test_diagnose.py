"""`diagnose` as a whole, and the verb."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from harness import _diagnosed
from harness._render import as_json, plain_table
from harness.agree_pairs import judged
from harness.cli import main
from harness.collection import Collection, open_collection
from harness.diagnose import diagnose
from harness.diagnose_texts import read_texts, tokens
from harness.draws import generator
from harness.errors import UsageError
from harness.frames import QRELS
from harness.ranking import rank

PARTS = [
    "disagreement",
    "terms",
    "length",
    "overlap",
    "topics",
    "systems",
    "circularity",
    "gullibility",
    "scale",
]
TOPICS, DEPTH = 15, 30


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A collection, judgments, labels that fall for the word `offer`, and three runs."""
    folder, rng = tmp_path_factory.mktemp("diagnosed"), generator(0, 0)
    words = [f"word{i}" for i in range(40)]
    corpus, human, biased, runs = [], [], [], {name: [] for name in ("one", "two", "three")}
    for t in range(TOPICS):
        for d in range(DEPTH):
            name, offer, grade = f"t{t}d{d}", rng.random() < 0.4, int(rng.integers(0, 4))
            text = " ".join(
                [*rng.choice(words, 15), *(["offer"] if offer else []), f"topic{t}" if grade > 1 else ""]
            )
            corpus.append(json.dumps({"doc_id": name, "text": text}))
            label = 3 if offer and rng.random() < 0.8 else 0 if rng.random() < 0.3 else grade
            human.append(f"t{t} 0 {name} {grade}")
            biased.append(f"t{t} 1 {name} {label}")
            for run, lines in runs.items():
                score = grade + 2 * (run == "one" and offer) + rng.normal(0, 1)
                lines.append((t, name, score, run))
    (folder / "corpus.jsonl").write_text("\n".join(corpus))
    (folder / "queries.tsv").write_text("".join(f"t{t}\tabout topic{t}\n" for t in range(TOPICS)))
    (folder / "qrels.human.txt").write_text("\n".join(human) + "\n")
    (folder / "qrels.biased.txt").write_text("\n".join(biased) + "\n")
    for run, lines in runs.items():
        ordered = sorted(lines, key=lambda line: (line[0], -line[2]))
        (folder / f"{run}.run").write_text("".join(f"t{t} Q0 {n} 0 {s:.6f} {r}\n" for t, n, s, r in ordered))
    (folder / "teams.tsv").write_text("run\tteam\none\tsellers\ntwo\tothers\nthree\tothers\n")
    return folder


@pytest.fixture(scope="module")
def collection(folder: Path) -> Collection:
    return open_collection(folder)


@pytest.fixture
def call(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """The verb, from the folder's inside: exit code, stdout, stderr."""
    monkeypatch.chdir(folder)

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(["diagnose", *arguments])
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return code, said.out, said.err

    return run


ALL = ("one.run", "two.run", "three.run", "--human", "qrels.human.txt", "--labels", "qrels.biased.txt")
TEXTS = ("--collection", ".", "--groups", "teams.tsv")


class TestVerb:
    def test_all_at_once(self, call) -> None:
        code, out, _ = call(*ALL, *TEXTS, "--json")
        assert code == 0
        found = json.loads(out)
        assert list(found) == ["reference", "grades", "threshold", *PARTS, "notes"]
        assert (found["reference"], found["grades"], found["threshold"]) == ("human", [0, 1, 2, 3], 2)
        text = found["disagreement"]["biased"]["text"]
        assert text["auc"] > 0.75
        assert text["ci"][0] > 0.65
        [term] = [t for t in found["terms"]["biased"]["terms"] if t["term"] == "offer"]
        assert term["side"] == "second"
        runs = found["systems"]["biased"]["nDCG@10"]["runs"]
        assert max(runs, key=lambda n: runs[n]["favour"]) == "one"
        assert runs["one"]["ci"][0] > 0
        assert found["systems"]["biased"]["nDCG@10"]["groups"]["sellers"]["favour"] > 0
        assert {one["status"] for one in found["circularity"]} == {"unknown"}
        assert found["gullibility"] is None
        assert found["notes"][-1] == (
            "Not looked at: gullibility; it takes a labeler and texts: --labeler and --collection."
        )
        assert any("go by different texts" in note for note in found["notes"])
        assert not [one for one in found["scale"]["biased"] if one["found"]]

    def test_for_a_person(self, call) -> None:
        code, out, _ = call(*ALL, *TEXTS)
        assert code == 0
        for words in (
            "offer",
            "sellers",
            "Is the file at fault?",
            "go by different texts",
            "Circularity is unknown",
        ):
            assert words in out
        assert "None" not in out
        assert "nan" not in out

    def test_labels_only(self, call) -> None:
        code, out, _ = call("--human", "qrels.human.txt", "--labels", "qrels.biased.txt", "--json")
        found = json.loads(out)
        assert code == 0
        asked = [part for part in PARTS if found[part] is not None]
        assert asked == ["disagreement", "topics", "scale"]
        assert "text" not in found["disagreement"]["biased"]
        assert " ".join(found["notes"]).count("Not looked at") == 4

    def test_two_labelers_without_judgments(self, call, folder: Path) -> None:
        code, out, _ = call("--labels", "qrels.biased.txt", "--labels", "qrels.human.txt", "--json")
        found = json.loads(out)
        assert code == 0
        assert found["reference"] == "biased"
        assert list(found["disagreement"]) == ["human"]
        other = json.loads(call("--human", "qrels.human.txt", "--labels", "qrels.biased.txt", "--json")[1])
        mine, theirs = found["disagreement"]["human"], other["disagreement"]["biased"]
        assert (mine["first_only"], mine["second_only"]) == (theirs["second_only"], theirs["first_only"])
        assert "There are no judgments" in " ".join(found["notes"])

    def test_same_bytes_again(self, call) -> None:
        assert call(*ALL, *TEXTS, "--json") == call(*ALL, *TEXTS, "--json")

    def test_grades_off_the_scale_are_said_and_nothing_else_is_computed(self, call, folder: Path) -> None:
        lines = (folder / "qrels.biased.txt").read_text().replace(" 3\n", " 7\n")
        (folder / "off.txt").write_text(lines)
        code, out, _ = call(
            "--human", "qrels.human.txt", "--labels", "off.txt", "--collection", ".", "--json"
        )
        found = json.loads(out)
        assert code == 2
        assert next(one["check"] for one in found["scale"]["off"] if one["found"]) == "out_of_scale"
        assert all(found[part] is None for part in PARTS if part not in ("scale", "systems"))
        assert "othing else is computed" in " ".join(found["notes"])
        code, out, _ = call("--human", "qrels.human.txt", "--labels", "off.txt")
        assert code == 2
        assert "FOUND" in out
        code, out, _ = call(
            "--human", "qrels.human.txt", "--labels", "off.txt", "--grades", "0,1,2,3,7", "--json"
        )
        assert code == 0
        assert json.loads(out)["grades"] == [0, 1, 2, 3, 7]

    def test_a_pair_that_is_twice_in_a_file_of_text_is_the_reader_s_error(self, call, folder: Path) -> None:
        (folder / "twice.txt").write_text("t0 1 t0d0 1\nt0 1 t0d0 2\n")
        code, out, err = call("--human", "qrels.human.txt", "--labels", "twice.txt")
        assert (code, out) == (2, "")
        assert "twice.txt:2" in err

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            ((), "compared with judgments or with other labels"),
            (("--human", "qrels.human.txt"), "nothing to diagnose"),
            (("--labels", "qrels.biased.txt"), "compared with judgments or with other labels"),
            (("--human", "no.txt", "--labels", "qrels.biased.txt"), "no.txt"),
            (("--human", "qrels.human.txt", "--labels", "no*.txt"), "no file fits"),
            (("--human", "qrels.human.txt", "--labels", "queries.tsv"), "queries.tsv"),
            (("--human", "qrels.human.txt", "--labeler", "minilm"), "--collection"),
            (("--human", "qrels.human.txt", "--labeler", "constant:1", "--collection", "."), "reads no text"),
            (("--human", "qrels.human.txt", "--labeler", "minilmm", "--collection", "."), "minilm"),
            ((*ALL, "--groups", "queries.tsv"), "queries.tsv"),
            ((*ALL, "--allow-circular", "four"), "unknown run 'four'"),
            (
                ("--human", "qrels.human.txt", "--labels", "qrels.biased.txt", "--allow-circular", "x"),
                "no runs",
            ),
            ((*ALL, "--grades", "0,1,x"), "--grades"),
            ((*ALL, "--grades", "0,1"), "not among"),
            ((*ALL, "-m", "nDGC@10"), "nDCG"),
            ((*ALL, "--sample", "1"), "sample"),
            (
                (
                    "--human",
                    "qrels.human.txt",
                    "--labels",
                    "qrels.biased.txt",
                    "--labels",
                    "qrels.biased.txt",
                ),
                "are named 'biased'",
            ),
        ],
    )
    def test_bad_input(self, call, arguments: tuple[str, ...], words: str) -> None:
        code, out, err = call(*arguments)
        assert code == 2
        assert not out
        assert words in err

    def test_a_relative_is_refused_and_measured_when_allowed(self, call, folder: Path) -> None:
        pytest.importorskip("yaml")
        cards = {
            "one.run.meta.yaml": "base model: acme/seller-7b\n",
            "qrels.biased.meta.yaml": "teacher: Seller-7B\n",
        }
        for name, text in cards.items():
            (folder / name).write_text(text)
        try:
            code, out, err = call(*ALL)
            assert (code, out) == (2, "")
            for words in ("'one'", "acme/seller-7b", "one.run.meta.yaml", "qrels.biased.meta.yaml"):
                assert words in err
            assert "--allow-circular one" in err
            code, out, _ = call(*ALL, "--allow-circular", "one", "--json")
            assert code == 0
            found = {one["run"]: one for one in json.loads(out)["circularity"]}
            assert found["one"]["status"] == "shared"
            assert found["one"]["shared"] == {"teacher and base model": ["acme/seller-7b"]}
            assert found["one"]["size"]["nDCG@10"]["ci"][0] > 0
            assert found["two"]["size"] is None
            shown = call(*ALL, "--allow-circular", "one")[1]
            assert "Does a labeler judge its relatives?" in shown
            assert "run one share teacher and base model; by nDCG@10 the labels favour it by +" in shown
        finally:
            for name in cards:
                (folder / name).unlink()

    def test_a_labeler_that_can_be_fooled(self, call, folder: Path) -> None:
        pytest.importorskip("deltalake")
        (folder / "fooled.py").write_text(
            """
import polars as pl

class Labeler:
    name, fingerprint, needs_text = "fooled", "1", True

    def __init__(self, grades):
        self.grades = grades

    def signal(self, pairs):
        word = pl.col("query").str.split(" ").list.last()
        found = pl.col("text").str.contains(word, literal=True)
        probs = pl.when(found).then(pl.lit([0.0, 0.0, 0.0, 1.0])).otherwise(pl.lit([1.0, 0.0, 0.0, 0.0]))
        return pairs.select("query_id", "doc_id", probs=probs.cast(pl.List(pl.Float32)),
                            score=pl.lit(None, pl.Float32), reason=pl.lit(None, pl.String))
"""
        )
        asked = ("--labeler", "fooled:Labeler", "--collection", ".", "--sample", "60", "--ledger", "kept")
        code, out, _ = call(*asked, "--json")
        assert code == 0
        found = json.loads(out)["gullibility"]
        assert found["perturbations"]["stuffed"]["up"] == 1
        assert found["perturbations"]["empty"]["labeled"] == 0
        code, out, _ = call(*asked)
        assert "It can be fooled: 100.0% of non-relevant documents become relevant when stuffed" in out


class TestWithoutTheVerb:
    def test_random_labels_have_no_side(self, folder: Path, collection: Collection) -> None:
        human = collection.qrels()
        shuffled = generator(3, 0).permutation(human["relevance"].to_numpy())
        labels = human.with_columns(relevance=pl.Series(shuffled), gain=pl.Series(shuffled, dtype=pl.Float32))
        found = diagnose(human, {"random": labels}, collection=collection, resamples=200)
        # the text tells what is relevant to a human, and so the human's side; but no word tells the other's
        assert found.terms is not None
        assert "offer" not in [t["term"] for t in found.terms["random"].get("terms", [])]
        assert found.disagreement is not None
        assert found.disagreement["random"]["text"]["ci"][0] < 0.6

    def test_one_bad_frame_does_not_stop_the_other(self, collection: Collection) -> None:
        good = collection.qrels("biased")
        twice = pl.concat([good, good.head(1).with_columns(relevance=pl.lit(0, pl.Int16))])
        found = diagnose(collection.qrels(), {"twice": twice, "good": good}, resamples=50)
        assert found.blocked == ["twice"]
        assert found.disagreement is not None
        assert list(found.disagreement) == ["good"]
        assert "labeled more than once" in found.notes[0]

    def test_texts_that_are_missing_are_counted(self, folder: Path, collection: Collection) -> None:
        human = collection.qrels()
        extra = human.head(2).with_columns(doc_id="new" + pl.col("doc_id"))
        both = pl.concat([human, extra])
        found = diagnose(
            both, {"l": both.with_columns(assessor=pl.lit("l@1"))}, collection=collection, resamples=50
        )
        assert "2 judged pairs have no text" in " ".join(found.notes)
        assert found.length is not None
        assert "undefined" in found.length["l"]  # the labels are the judgments: no error to go with anything
        assert found.words

    def test_the_overlap_weighs_words_by_what_they_say(self, folder: Path, collection: Collection) -> None:
        of = judged(collection.qrels())
        texts = read_texts(of, collection)
        has = np.array(
            [
                f"topic{q[1:]}" in (t or "").split()
                for q, t in zip(of.frame["query_id"], texts.text, strict=True)
            ]
        )
        assert texts.overlap[has].min() > 0.3
        assert texts.overlap[~has].max() == 0
        assert texts.words == pytest.approx([len(tokens(t or "")) for t in texts.text])

    @pytest.mark.parametrize(
        ("human", "labels"),
        [
            ({"q1": [0]}, {"q1": [0]}),
            ({"q1": [0]}, {"q1": [1]}),
            ({"q1": [0, 1]}, {"q1": [1, 0]}),
            ({"q1": [0, 1, 1]}, {"q1": [1, 1, 1]}),
            ({"q1": [0, 1], "q2": [1]}, {"q1": [0, 1], "q2": [1]}),
            ({"q1": [0, 0, 0], "q2": [0, 0, 0]}, {"q1": [1, 1, 1], "q2": [0, 0, 0]}),
            ({"q1": [3, 2, 1], "q2": [0]}, {"q1": [0, 1, 2]}),
        ],
    )
    def test_next_to_nothing_gives_no_warning_and_no_nonsense(self, human, labels, tmp_path: Path) -> None:
        def frame(by_topic: dict[str, list[int]], assessor: str) -> pl.DataFrame:
            rows = [
                (q, f"d{i}", g, float(g), assessor) for q, gs in by_topic.items() for i, g in enumerate(gs)
            ]
            return pl.DataFrame(rows, schema=QRELS, orient="row")

        (tmp_path / "queries.tsv").write_text("q1\tone\nq2\ttwo\n")
        (tmp_path / "corpus.jsonl").write_text(
            "".join(json.dumps({"doc_id": f"d{i}", "text": f"one text{i}"}) + "\n" for i in range(3))
        )
        run = frame(human, "x").select("query_id", "doc_id", score=pl.int_range(pl.len()).cast(pl.Float64))
        runs = {"a": rank(run), "b": rank(run.with_columns(score=-pl.col("score")))}
        found = diagnose(
            frame(human, "human"),
            {"l": frame(labels, "l@1")},
            collection=open_collection(tmp_path),
            runs=runs,
            groups={"a": "x", "b": "y"},
            resamples=50,
        )
        shown = as_json(found.to_json())
        assert "NaN" not in shown
        words = found.words + [plain_table(c, r) for _, c, r in _diagnosed.tables(found)]
        assert "nan" not in " ".join(words)

    def test_no_resamples(self, collection: Collection) -> None:
        with pytest.raises(UsageError, match="no interval"):
            diagnose(collection.qrels(), {"l": collection.qrels("biased")}, resamples=0)


class TestRealCollections:
    def test_dl19_and_umbrela(self, data_dir: Path) -> None:
        """Counts by hand (a join), and the finding that the raters differ by topic, not by words."""
        dl19 = open_collection(data_dir / "dl19_passage")
        labels = dl19.qrels("umbrela_gpt4")
        found = diagnose(dl19.qrels(), {"umbrela": labels}, collection=dl19, resamples=200)
        joined = dl19.qrels().join(labels, on=["query_id", "doc_id"])
        alone = joined.filter((pl.col("relevance") < 2) & (pl.col("relevance_right") >= 2)).height
        assert found.disagreement is not None
        one = found.disagreement["umbrela"]
        assert (one["pairs"], one["second_only"]) == (9260, alone)
        assert one["text"]["auc"] == pytest.approx(0.546, abs=0.02)
        assert one["text"]["ci"][0] < 0.5
        assert one["text"]["auc_pairs"] > 0.9
        assert found.overlap is not None
        assert found.overlap["umbrela"]["ci"]["within_grades"][0] > 0

    def test_llama_grades_dl19_one_too_high(self, data_dir: Path) -> None:
        dl19 = open_collection(data_dir / "dl19_passage")
        found = diagnose(dl19.qrels(), {"llama": dl19.qrels("llama3-70b_4prompts")}, resamples=200)
        assert found.scale is not None
        [one] = [f for f in found.scale["llama"] if f.found]
        assert (one.check, one.evidence["shift"]) == ("shifted", -1)
