"""How queries come about: near-duplicates, seed documents, key phrases, a model's answers, bands of ranks."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.cli import main
from harness.errors import InputError, LabelerError, UsageError
from labelers.causal_base import MEMORY
from labelers.chat_answers import Told
from labelers.distill.asking import ANSWERS, read_query
from labelers.distill.asking_local import TOO_LONG, Local
from labelers.distill.config import KINDS, read_settings
from labelers.distill.coverage import Seed, Task, seed_documents, tasks
from labelers.distill.keyphrases import Keyphrases
from labelers.distill.likeness import NearIndex, normal, trigrams
from labelers.distill.negatives import bands
from labelers.distill.run import distill
from labelers.distill.work import Work
from labelers.scripted_server import Request, ScriptedServer, Step, answer, refusal, status
from tiny_models import SMALL, byte_level, prompts, random_model

# -- settings ------------------------------------------------------------------------------------------------

TOP = 'collection = "demo"\nout = "made"\n'


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ('out = "made"\n', "collection is missing"),
        (TOP + "sed = 1\n", r":3: unknown key 'sed' \(did you mean 'seed'\?\)"),
        (
            TOP + "[synthesize]\nquerys = 1\n",
            r":4: unknown key 'synthesize.querys' \(did you mean 'queries'\?\)",
        ),
        (TOP + "[synthesize]\nqueries = 0\n", ":4: synthesize.queries is 0"),
        (TOP + '[synthesize]\nkinds = ["facts"]\n', "synthesize.kinds.0 is 'facts'"),
        (TOP + '[synthesize]\nkinds = ["fact", "fact"]\n', "has 'fact' twice"),
        (TOP + '[synthesize]\ngenerator = "gpt"\n', ":4: synthesize.generator is 'gpt'"),
        (TOP + "[negatives]\nbm25 = 0\nencoder = 0\nrandom = 0\n", "no document beside the seed"),
        (TOP + '[synthesize]\ngenerator = "keyphrase:short"\n', ":4: .* is 'keyphrase:short', but should be"),
        (TOP + '[negatives]\nmodel = "none"\n', "negatives.encoder is 4, but negatives.model is"),
        (
            TOP + '[train]\nstudent = "cross-encoder"\nprompt = "basic"\n',
            ":5: train.prompt means nothing for the student cross-encoder",
        ),
        (
            TOP + '[train]\nstudent = "causal-lm"\nmodel = "m"\nhead_learning_rate = 0.1\n',
            ":6: train.head_learning_rate means nothing for the student causal-lm",
        ),
        (
            TOP + '[teach]\nteachers = ["minilm", "human"]\nweights = [1, 2]\n',
            ":5: teach.weights has 2 numbers for 1",
        ),
        (TOP + '[human]\ntest = ["t01"]\ntest_collection = "demo"\n', "both say which topics"),
        (TOP + "x =\n", ":3: not TOML"),
    ],
)
def test_settings_are_read_strictly(tmp_path: Path, text: str, what: str) -> None:
    path = tmp_path / "distill.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=what):
        read_settings(path)


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    path = tmp_path / "distill.toml"
    path.write_text('collection = "../docs"\nout = "made"\nledger = "s3://bucket/ledger"\n')
    settings = read_settings(path)
    assert settings.out == tmp_path / "made"
    assert settings.collection == str(tmp_path.parent / "docs")
    assert settings.ledger == "s3://bucket/ledger"
    with pytest.raises(InputError, match="no such file"):
        read_settings(tmp_path / "other.toml")


# -- likeness ------------------------------------------------------------------------------------------------


def test_normal_text_is_words_alone() -> None:
    assert normal("  Héron-3: «Battery»  LIFE?! ") == "heron 3 battery life"
    assert normal("…") == ""


def test_the_index_finds_what_comparing_with_all_finds() -> None:
    rng = np.random.default_rng(3)
    words = [f"{a}{b}" for a in ("pump", "valve", "cab", "sens") for b in ("", "s", "er", "ing", "le")]
    texts = [" ".join(rng.choice(words, int(rng.integers(1, 5)))) for _ in range(150)]
    for threshold in (0.4, 0.7, 0.85, 1.0):
        index, taken = NearIndex(threshold), []
        for text in texts:
            grams = trigrams(text)
            brute = [
                t for t in taken if len(grams & trigrams(t)) >= threshold * len(grams | trigrams(t)) - 1e-9
            ]
            assert index.near(text) == (brute[0] if brute else None)
            index.add(text)
            taken.append(text)


# -- seed documents and key phrases --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def demo_seeds(tmp_path_factory: pytest.TempPathFactory) -> list[Seed]:
    path = tmp_path_factory.mktemp("demo") / "distill.toml"
    path.write_text(TOP)
    return seed_documents(Work(read_settings(path)))


def test_the_first_seeds_cover_clusters_and_lengths(demo_seeds: list[Seed]) -> None:
    assert len({seed.doc_id for seed in demo_seeds}) == len(demo_seeds) == 420
    clusters = {seed.cluster for seed in demo_seeds}
    assert len(clusters) == 20
    assert {seed.cluster for seed in demo_seeds[:60]} == clusters
    lengths, all_lengths = (np.array([len(s.text) for s in some]) for some in (demo_seeds[:60], demo_seeds))
    quarters = np.searchsorted(np.quantile(all_lengths, [0.25, 0.5, 0.75]), lengths)
    assert np.bincount(quarters, minlength=4).min() >= 6


def test_every_kind_is_written_about_as_often(demo_seeds: list[Seed]) -> None:
    todo = list(tasks(demo_seeds, KINDS, 2, 0))
    assert len(todo) == 840
    assert [sum(t.kind == kind for t in todo[:400]) for kind in KINDS] == [80] * 5
    assert len({(t.seed.doc_id, t.kind) for t in todo}) == 840


def test_key_phrases_are_queries_about_their_document(demo_seeds: list[Seed]) -> None:
    writer = Keyphrases(demo_seeds, 0)
    todo = list(tasks(demo_seeds, KINDS, 1, 0))
    written = writer.write(todo)
    assert written[:40] == Keyphrases(demo_seeds, 0).write(todo[:40])
    assert sum(query is not None for query, _ in written) > 0.97 * len(written)
    for task, (query, _) in zip(todo, written, strict=True):
        if query is None:
            continue
        words = query.split()
        assert 1 <= len(words) <= 30
        if task.kind in ("keyword", "navigational"):
            assert set(normal(query).split()) <= set(normal(task.seed.text).split())
        if task.kind == "how-to":
            assert words[0] in ("how", "what")
        if task.kind == "long":
            assert len(words) >= 9


def test_a_how_to_is_what_the_text_says_one_may_do() -> None:
    text = "Pump manual\nOpen the red cover first. Call Ada to order the spare filter, and wait for it."
    seeds = [
        Seed("a", text, 0),
        Seed("b", "Something else\nNothing here is of any use to anybody at all.", 0),
    ]
    found = {Keyphrases(seeds, seed).write([Task(seeds[0], "how-to")])[0][0] for seed in range(12)}
    assert {re.sub(" pump.*", "", str(query)) for query in found} <= {
        "how do i open the red cover first",
        "how do i open the red cover",
        "how do i order the spare filter",
    }
    assert len(found) > 1


# -- a model's answers ---------------------------------------------------------------------------------------

DOCUMENT = (
    "Lost badges\nWhoever has lost a badge tells the security line at once, and gets another one for a day."
)


@pytest.mark.parametrize(
    ("text", "query", "why"),
    [
        ("lost my badge", "lost my badge", ""),
        ('Query: "lost my badge"\n', "lost my badge", ""),
        ("<think>a badge,\nthen</think>lost badge", "lost badge", ""),
        ("", None, "empty answer"),
        (None, None, "empty answer"),
        ("?!", None, "empty answer"),
        ("lost badge\nwho to call", None, "several lines"),
        ("I'm sorry, I cannot write this.", None, "refusal"),
        ("As an AI model I have no badge", None, "refusal"),
        ("Unfortunately, I can’t help with this document", None, "refusal"),
        ("I don't have enough to go on", None, "refusal"),
        ("I cannot open the locker with my badge", "I cannot open the locker with my badge", ""),
        ("unfortunately i can't log in any more", "unfortunately i can't log in any more", ""),
        ("lost " * 30, None, "too long for its kind"),
        ("lost a badge tells the security line at once", None, "copied from the document"),
    ],
)
def test_an_answer_is_a_query_or_nothing(text: str | None, query: str | None, why: str) -> None:
    assert read_query("fact", text, DOCUMENT) == (query, why)
    assert read_query("fact", "lost badge and", DOCUMENT, cut=True) == (None, "answer without an end")


def settings(folder: Path, server: str, queries: int = 12) -> Path:
    path = folder / "distill.toml"
    url, _, more = server.partition("?")
    generator = f"openai:writer@{url}?concurrency=4&backoff=0&tries=2" + (f"&{more}" if more else "")
    path.write_text(TOP + f'[synthesize]\nqueries = {queries}\ngenerator = "{generator}"\n')
    return path


def topic_of(request: Request) -> str:
    """A query out of the title that the prompt shows."""
    title = re.split(r"=== \w+ ===\n", request.prompt)[1].splitlines()[0]
    return " ".join(normal(title).split()[:3])


def test_a_model_writes_queries_and_is_never_asked_twice(tmp_path: Path) -> None:
    pytest.importorskip("aiohttp")
    bad: dict[int, Step] = {2: answer("one\ntwo"), 5: refusal(), 6: status(500)}
    with ScriptedServer(lambda r: bad.get(r.number) or answer(f"{topic_of(r)} {r.number}")) as server:
        made = distill(settings(tmp_path, server.url), ["synthesize"]).stages[0]
        assert made.summary["generator"] == "openai:writer"
        assert made.summary["queries"] == 12
        assert made.summary["dropped"] == {"several lines": 1, "refusal": 1}
        shown = [request.prompt for request in server.requests]
        assert all("never an instruction" in prompt for prompt in shown)
        assert len({prompt.split("Below is")[1][:300] for prompt in shown}) == 5, "each kind has its prompt"
        asked = len(server.requests)
        distill(settings(tmp_path, server.url, queries=6), ["synthesize"])
        assert len(server.requests) == asked
        (tmp_path / "made" / "queries.jsonl").unlink()
        file = tmp_path / "made" / ANSWERS
        file.write_text(file.read_text()[:-20])  # a kill while the last answer was written
        again = distill(settings(tmp_path, server.url), ["synthesize"]).stages[0]
        assert again.rows == 12
        assert len(server.requests) == asked + 1
        assert all(json.loads(line)["key"] for line in file.read_text().splitlines())


def test_answers_that_came_before_a_failure_are_kept(tmp_path: Path) -> None:
    pytest.importorskip("aiohttp")
    broken = True

    def step(request: Request) -> Step:
        return (
            status(500) if broken and request.number >= 8 else answer(f"{topic_of(request)} {request.number}")
        )

    with ScriptedServer(step) as server:
        path = settings(tmp_path, server.url)
        with pytest.raises(LabelerError, match=r"failed on \d+ of 16 documents .*server error \(500\)"):
            distill(path, ["synthesize"])
        kept = len((tmp_path / "made" / ANSWERS).read_text().splitlines())
        assert kept >= 7
        assert not (tmp_path / "made" / "queries.jsonl").exists()
        asked, broken = len(server.requests), False
        assert distill(path, ["synthesize"]).stages[0].rows == 12
        assert len(server.requests) - asked <= 16 - kept + 2
    for line in ("{", '{"key": "a", "text": 5, "reason": null, "cut": false}'):
        (tmp_path / "made" / ANSWERS).write_text(line + "\n{}\n")
        with pytest.raises(InputError, match=r"answers.jsonl:1: is no answer"):
            distill(path, ["synthesize"])


def test_another_temperature_asks_anew_and_idle_settings_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("aiohttp")
    with ScriptedServer(lambda r: answer(f"{topic_of(r)} {r.number}")) as server:
        distill(settings(tmp_path, server.url), ["synthesize"])
        asked = len(server.requests)
        distill(settings(tmp_path, f"{server.url}?temperature=0.5"), ["synthesize"])
        assert len(server.requests) == 2 * asked
        assert server.requests[-1].body["temperature"] == 0.5
        for idle in ("samples=3&answer=text&temperature=1", "prompt=basic", "choices=yes", "batch=yes"):
            with pytest.raises(UsageError, match="means nothing for a generator of queries"):
                distill(settings(tmp_path, f"{server.url}?{idle}"), ["synthesize"])
        assert len(server.requests) == 2 * asked


# -- a model on this machine ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A causal model that reads 512 tokens, with a chat template."""
    pytest.importorskip("torch", reason="needs the extra hf")
    pytest.importorskip("transformers", reason="needs the extra hf")
    folder = tmp_path_factory.mktemp("local") / "writer"
    template = "{% for m in messages %}<user>{{ m.content }}{% endfor %}<bot>"
    byte_level(folder, prompts(), 700, special=["<s>", "<eos>"], template=template, eos_token="<eos>")
    shape = {**SMALL, "max_position_embeddings": 512, "initializer_range": 0.3}
    random_model(folder, "Llama", vocab_size=704, bos_token_id=0, eos_token_id=1, **shape)
    return folder


def answers_of(local: str, asked: list[str]) -> dict[str, Told]:
    found: dict[str, Told] = {}
    Local(local).ask(asked, found.__setitem__)
    return found


def test_a_local_model_answers_alike_in_any_batch(local: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    asked = ["the pump", "where is the valve of the pump in the harbour " * 3, "a badge"]
    found = answers_of(f"{local}?device=cpu&batch=3", asked)
    assert found == answers_of(f"{local}?device=cpu&batch=1", asked)
    words = AutoTokenizer.from_pretrained(local)
    model = AutoModelForCausalLM.from_pretrained(local).eval()
    for prompt in asked:
        ids = words(f"<user>{prompt}<bot>", return_tensors="pt")["input_ids"]
        new = model.generate(ids, max_new_tokens=96, do_sample=False, pad_token_id=1)[0, ids.shape[1] :]
        assert found[prompt].text == words.decode(new, skip_special_tokens=True)
        assert found[prompt].cut == (words.eos_token_id not in new.tolist())
    assert len({told.text for told in found.values()}) == 3, "it says the same of all: nothing was tested"


def test_a_prompt_that_does_not_fit_a_local_model_is_told_so(local: Path) -> None:
    found = answers_of(f"{local}?device=cpu&batch=2", ["the pump", "valve " * 600])
    assert found["the pump"].reason is None
    assert found["valve " * 600] == Told(None, TOO_LONG)


def test_a_batch_too_large_for_the_memory_is_halved(local: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    from transformers import LlamaForCausalLM

    asked, whole = ["the pump", "a badge", "a valve"], LlamaForCausalLM.generate
    expected = answers_of(f"{local}?device=cpu", asked)

    def small(self: Any, most: int = 1, **given: Any) -> Any:
        if len(given["input_ids"]) > most:
            raise torch.OutOfMemoryError
        return whole(self, **given)

    monkeypatch.setattr(LlamaForCausalLM, "generate", small)
    assert answers_of(f"{local}?device=cpu", asked) == expected
    monkeypatch.setattr(LlamaForCausalLM, "generate", lambda self, **given: small(self, 0, **given))
    assert {told.reason for told in answers_of(f"{local}?device=cpu", asked).values()} == {MEMORY}


def test_what_a_local_model_cannot_be_says_why(local: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    for idle in ("adapter=x", "prompt=basic", "shots=2"):
        with pytest.raises(UsageError, match=f"setting '{idle.partition('=')[0]}' means nothing"):
            Local(f"{local}?{idle}")
    with pytest.raises(UsageError, match="is no device of torch"):
        Local(f"{local}?device=toaster").check()
    folder = tmp_path / "headless"
    shutil.copytree(local, folder)
    weights = load_file(folder / "model.safetensors")
    save_file(
        {name: one for name, one in weights.items() if name != "lm_head.weight"},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    with pytest.raises(LabelerError, match=r"its weights lack lm_head\.weight"):
        answers_of(f"{folder}?device=cpu", ["the pump"])
    endless = tmp_path / "endless"
    shutil.copytree(local, endless)
    byte_level(endless, prompts(), 700)
    with pytest.raises(LabelerError, match="without a token for the end"):
        answers_of(f"{endless}?device=cpu", ["the pump"])


@pytest.mark.parametrize("settings", ["device=toaster", "adapter=x"])
def test_a_local_generator_is_checked_before_anything_is_asked(
    local: Path, tmp_path: Path, settings: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "distill.toml"
    path.write_text(TOP + f'[synthesize]\ngenerator = "hf:{local}?{settings}"\n')
    assert main(["distill", str(path), "synthesize"]) == 2
    assert settings.partition("=")[0] in capsys.readouterr().err


# -- negatives -----------------------------------------------------------------------------------------------


def test_bands_are_without_gaps_and_widen() -> None:
    assert bands(50, 4) == [(0, 3), (3, 10), (10, 23), (23, 50)]
    assert bands(3, 5) == [(0, 1), (1, 2), (2, 3)]
    assert bands(0, 3) == bands(9, 0) == []
    for count in range(1, 40):
        for wanted in range(1, 9):
            found = bands(count, wanted)
            assert [place for first, last in found for place in range(first, last)] == list(range(count))
            assert len(found) == min(count, wanted)


def test_hard_negatives_of_bm25_leave_out_what_may_be_relevant(tmp_path: Path) -> None:
    pytest.importorskip("pyterrier_pisa")
    folder = tmp_path / "docs"
    folder.mkdir()
    colours = ["red", "blue", "green", "grey", "white", "black", "brown", "pink"]
    text = "Pump {}\nThe pump of station {} has a {} filter that lasts months."
    texts = {f"d{i}": text.format(i, i, colour) for i, colour in enumerate(colours)}
    texts["twin"] = texts["d0"].upper()
    texts["far"] = "Holiday\nRequests for a holiday go to the team leader before the end of spring."
    (folder / "corpus.jsonl").write_text(
        "".join(json.dumps({"doc_id": d, "text": t}) + "\n" for d, t in texts.items())
    )
    (folder / "queries.tsv").write_text("q1\tpumps\n")
    path = tmp_path / "distill.toml"
    path.write_text(
        'collection = "docs"\nout = "made"\n[synthesize]\nqueries = 40\nkinds = ["navigational", "keyword"]\n'
        '[negatives]\nbm25 = 3\nencoder = 0\nrandom = 1\nmodel = "none"\n'
    )
    made = distill(path, ["synthesize", "negatives"]).stages[1]
    rows = [json.loads(line) for line in (tmp_path / "made" / "pairs.jsonl").read_text().splitlines()]
    by_query = {row["query_id"]: [r for r in rows if r["query_id"] == row["query_id"]] for row in rows}
    for pairs in by_query.values():
        assert len({row["doc_id"] for row in pairs}) == len(pairs)
        found = {row["doc_id"]: row["found"] for row in pairs}
        same = {"d0", "twin"} & set(found)
        assert "seed" not in {found[d] for d in same} or len(same) == 1, "the seed's text again"
        assert sum(how == "bm25" for how in found.values()) <= 3
    assert made.summary["left out"].get("same text as the seed", 0) >= 1
    assert all(row["rank"] >= 1 for row in rows if row["found"] == "bm25")
