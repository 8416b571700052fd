"""Signals: misses only, once for each pair of texts, kept as they come, and checked."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from harness import asking, registry
from harness.errors import LabelerError, MissingExtra, SchemaError, UnknownName, UsageError
from harness.frames import PAIRS, SIGNALS, check
from harness.labeling import label_id, load, signal_batches, signals, vectors
from harness.ledger import Ledger

GRADES = {0: "no", 1: "related", 2: "good", 3: "perfect"}
ENCODED = ["query_id", "doc_id", "probs", "score", "labeler", "reason", "features", "vector"]


def numbers(text: str, n: int) -> list[float]:
    """Numbers that depend on the text alone."""
    return [1 + b for b in sha256(text.encode()).digest()[:n]]


class Fake:
    """A labeler that says which pairs it was asked about."""

    name, needs_text = "fake", True

    def __init__(self, fingerprint: str = "0123456789abcdef", grades: dict[int, str] = GRADES) -> None:
        self.fingerprint, self.grades = fingerprint, grades
        self.asked: list[list[tuple[str, str]]] = []

    @property
    def pairs(self) -> list[tuple[str, str]]:
        return [pair for batch in self.asked for pair in batch]

    def signal(self, pairs: pl.DataFrame) -> pl.DataFrame:
        texts = list(zip(pairs["query"], pairs["text"], strict=True))
        self.asked.append(texts)
        weights = [numbers(q + "|" + d, len(self.grades)) for q, d in texts]
        return pairs.select("query_id", "doc_id").with_columns(
            pl.Series("probs", [[x / sum(w) for x in w] for w in weights], pl.List(pl.Float64)),
            pl.Series("score", [w[0] for w in weights], pl.Float64),
            reason=None,
        )


class FakeEncoder(Fake):
    name, dimension, feature_names = "fakeencoder", 3, ("cosine", "overlap")

    def __init__(self, fingerprint: str = "fedcba9876543210") -> None:
        super().__init__(fingerprint)
        self.embedded: list[str] = []

    def signal(self, pairs: pl.DataFrame) -> pl.DataFrame:
        texts = zip(pairs["query"], pairs["text"], strict=True)
        return (
            super()
            .signal(pairs)
            .with_columns(
                pl.Series("features", [numbers(q + d, 2) for q, d in texts], pl.List(pl.Float32)),
                pl.Series("vector", self._vectors(pairs["text"].to_list()), pl.Array(pl.Float32, 3)),
                probs=None,
            )
        )

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        self.embedded += texts
        return self._vectors(texts)

    @staticmethod
    def _vectors(texts: Sequence[str]) -> np.ndarray:
        rows = np.array([numbers(t, 3) for t in texts], dtype=np.float32).reshape(-1, 3)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


class Raising(FakeEncoder):
    """Same fingerprint as FakeEncoder, and dies if it is used."""

    def signal(self, pairs: pl.DataFrame) -> pl.DataFrame:
        raise AssertionError("a cache hit called the model")

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        raise AssertionError("a cache hit called the model")


def make_pairs(rows: Sequence[tuple[str | None, str | None]]) -> pl.DataFrame:
    """PAIRS with ids that do not depend on the texts."""
    return pl.DataFrame(
        {
            "query_id": [f"q{i}" for i in range(len(rows))],
            "doc_id": [f"d{i}" for i in range(len(rows))],
            "query": [q for q, _ in rows],
            "text": [d for _, d in rows],
        },
        schema=PAIRS,
    )


SIX = make_pairs([("a", "x"), ("a", "y"), ("b", "x"), ("a", "x"), ("b", "z"), ("b", "x")])


# -- what comes back -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("with_ledger", [False, True])
def test_one_row_a_pair_in_order_and_equal_texts_asked_once(with_ledger: bool, tmp_path: Path) -> None:
    fake = Fake()
    out = signals(fake, SIX, ledger=Ledger(tmp_path / "l") if with_ledger else None)
    check(out, SIGNALS)
    assert_frame_equal(out.select("query_id", "doc_id"), SIX.select("query_id", "doc_id"))
    assert fake.pairs == [("a", "x"), ("a", "y"), ("b", "x"), ("b", "z")]
    assert out["labeler"].unique().to_list() == ["fake@01234567"]
    assert out["probs"][0].to_list() == out["probs"][3].to_list() != out["probs"][1].to_list()


def test_blank_texts_are_null_with_the_reason_and_never_reach_the_labeler() -> None:
    fake = Fake()
    out = signals(
        fake, make_pairs([(None, "x"), (" ", "x"), ("a", None), ("a", "\n\t "), ("a", "x"), (None, None)])
    )
    assert out["reason"].to_list() == ["no query", "no query", "no text", "no text", None, "no query"]
    assert out["score"].is_null().to_list() == out["probs"].is_null().to_list() == [True] * 4 + [False, True]
    assert fake.pairs == [("a", "x")]


@pytest.mark.parametrize("kind", [Fake, FakeEncoder])
def test_no_pairs_give_no_rows_in_the_same_columns(kind: type[Fake], tmp_path: Path) -> None:
    empty = signals(kind(), SIX[:0], ledger=Ledger(tmp_path))
    assert empty.is_empty()
    assert empty.schema == signals(kind(), SIX).schema
    assert list(signal_batches(kind(), [SIX[:0]])) == []


def test_only_blank_pairs() -> None:
    assert signals(FakeEncoder(), make_pairs([("a", None)]), ledger=Ledger())["reason"].to_list() == [
        "no text"
    ]


def test_an_encoder_brings_features_and_one_vector_a_document(tmp_path: Path) -> None:
    out = signals(FakeEncoder(), SIX, ledger=Ledger(tmp_path / "l"))
    assert out.columns == ENCODED
    assert out.schema["vector"] == pl.Array(pl.Float32, 3)
    assert out["vector"][0].to_list() == out["vector"][2].to_list() == FakeEncoder._vectors(["x"])[0].tolist()
    assert out["features"].list.len().unique().to_list() == [2]


rows = st.lists(
    st.tuples(st.sampled_from(["a", "b", None]), st.sampled_from(["x", "y", "z", " "])), max_size=12
)


@settings(max_examples=25, deadline=None)
@given(rows=rows, batch_size=st.integers(1, 5), cut=st.integers(1, 5), seed=st.randoms())
def test_batch_size_cuts_duplicates_and_order_change_no_row(
    rows: list[tuple[str | None, str]], batch_size: int, cut: int, seed: Any
) -> None:
    pairs = make_pairs(rows)
    plain = signals(FakeEncoder(), pairs)
    order = list(range(pairs.height))
    seed.shuffle(order)
    fake, ledger = FakeEncoder(), Ledger()
    for chosen in (order, list(range(pairs.height))):
        batches = pairs[chosen].iter_slices(cut)
        out = list(signal_batches(fake, batches, ledger=ledger, batch_size=batch_size))
        assert_frame_equal(pl.concat([plain[:0], *out]), plain[chosen])
    assert len(fake.pairs) == len(set(fake.pairs))
    assert max(map(len, fake.asked), default=0) <= batch_size


def test_a_stream_is_cut_into_windows_that_do_not_depend_on_how_it_comes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(asking, "WINDOW", 4)
    pairs = make_pairs([("a", f"t{i}") for i in range(11)])
    for cut in (1, 3, 4, 11):
        out = list(signal_batches(Fake(), pairs.iter_slices(cut)))
        assert [o.height for o in out] == [4, 4, 3]
        assert_frame_equal(pl.concat(out), signals(Fake(), pairs))


def test_a_stream_is_answered_as_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "WINDOW", 2)

    def endless() -> Any:
        for i in range(10**9):
            yield make_pairs([("a", f"t{i}")])

    assert next(signal_batches(Fake(), endless())).height == 2


def test_progress_counts_every_pair_once_with_hits_and_duplicates(tmp_path: Path) -> None:
    ledger, told = Ledger(tmp_path), []
    signals(Fake(), SIX[:2], ledger=ledger)
    signals(Fake(), SIX, ledger=ledger, batch_size=1, progress=lambda done, total: told.append((done, total)))
    assert told == [(3, 6), (5, 6), (6, 6)]  # three rows known, then ("b", "x") twice, then ("b", "z")
    list(signal_batches(Fake(), [SIX], progress=lambda done, total: told.append((done, total))))
    assert told[-1] == (6, None)


@pytest.mark.parametrize("batch_size", [0, -1])
def test_a_batch_size_that_cannot_be_meant(batch_size: int) -> None:
    with pytest.raises(UsageError, match=f"batch_size is {batch_size}"):
        signal_batches(Fake(), [SIX], batch_size=batch_size)


def test_a_frame_that_is_not_pairs() -> None:
    with pytest.raises(SchemaError, match="lacks 'query'"):
        signals(Fake(), SIX.drop("query"))


# -- the ledger ----------------------------------------------------------------------------------------------


def test_a_hit_never_calls_the_model_and_equals_the_first_answer(tmp_path: Path) -> None:
    first = signals(FakeEncoder(), SIX, ledger=Ledger(tmp_path / "l"))
    again = signals(Raising(), SIX.reverse(), ledger=Ledger(tmp_path / "l"))
    assert_frame_equal(again[list(range(5, -1, -1))], first)
    one = Ledger(tmp_path / "m")
    signals(FakeEncoder(), SIX, ledger=one)
    assert_frame_equal(signals(Raising(), SIX, ledger=one), first)


def test_ids_play_no_part_but_texts_and_fingerprint_do(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    signals(Fake(), SIX, ledger=ledger)
    for pairs, fingerprint, asked in [
        (SIX.with_columns(query_id=pl.lit("other"), doc_id=pl.lit("ids")), Fake().fingerprint, 0),
        (SIX.with_columns(pl.col("text") + "!"), Fake().fingerprint, 4),
        (SIX.with_columns(pl.col("query") + "?"), Fake().fingerprint, 4),
        (SIX, "0123456789abcdeX", 4),
    ]:
        fake = Fake(fingerprint)
        out = signals(fake, pairs, ledger=ledger)
        assert len(fake.pairs) == asked
        assert_frame_equal(out, signals(Fake(fingerprint), pairs))


def test_query_and_text_are_not_run_together() -> None:
    ledger, fake = Ledger(), Fake()
    signals(fake, make_pairs([("ab", "c")]), ledger=ledger)
    signals(fake, make_pairs([("a", "bc")]), ledger=ledger)
    assert fake.pairs == [("ab", "c"), ("a", "bc")]


def test_each_batch_is_one_commit(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    signals(Fake(), SIX, ledger=ledger, batch_size=3)
    assert ledger.history().filter(pl.col("operation") == "WRITE")["rows"].to_list() == [1, 3]
    before = ledger.version
    signals(Fake(), SIX, ledger=ledger)
    assert ledger.version == before  # hits alone commit nothing


def test_a_failed_pair_is_null_with_its_reason_and_tried_again(tmp_path: Path) -> None:
    class Sometimes(Fake):
        bad = True

        def signal(self, pairs: pl.DataFrame) -> pl.DataFrame:
            failed = (pl.col("doc_id") == "d1") if self.bad else pl.lit(False)
            return (
                super()
                .signal(pairs)
                .with_columns(
                    pl.when(~failed).then("probs"),
                    pl.when(~failed).then("score"),
                    reason=pl.when(failed).then(pl.lit("refused")).otherwise(pl.lit("  ")),
                )
            )

    fake, ledger = Sometimes(), Ledger(tmp_path)
    out = signals(fake, SIX, ledger=ledger)
    assert out["reason"].to_list() == [None, "refused", None, None, None, None]
    assert out[1, "score"] is None
    fake.bad, fake.asked = False, []
    assert_frame_equal(signals(fake, SIX, ledger=ledger), signals(Fake(), SIX))
    assert fake.pairs == [("a", "y")]


def test_an_exception_costs_only_the_pair_that_causes_it(tmp_path: Path) -> None:
    class Breaks(FakeEncoder):
        def signal(self, pairs: pl.DataFrame) -> pl.DataFrame:
            if "y" in pairs["text"]:
                raise ValueError("y is too long")
            return super().signal(pairs)

    out = signals(Breaks(), SIX, ledger=Ledger(tmp_path))
    assert out["reason"].to_list() == [None, "ValueError: y is too long", None, None, None, None]
    assert_frame_equal(out[2:], signals(FakeEncoder(), SIX)[2:])
    assert out[1, "vector"] is None
    alone = signals(Breaks(), SIX, ledger=Ledger(tmp_path), batch_size=1)  # ("a", "y") again, after hits only
    assert_frame_equal(alone, out)


@pytest.mark.parametrize(("batch_size", "many"), [(1, 1), (2, 2), (256, 4)])
def test_a_labeler_that_fails_from_the_start_is_an_error(batch_size: int, many: int) -> None:
    class Broken(Fake):
        def signal(self, pairs: pl.DataFrame) -> pl.DataFrame:
            raise RuntimeError("no device")

    with pytest.raises(
        LabelerError, match=f"01234567 failed on {many} pairs in a row.*RuntimeError: no device"
    ):
        signals(Broken(), SIX, batch_size=batch_size)


@pytest.mark.parametrize("batch_size", [1, 10, 256])
def test_a_labeler_that_breaks_on_the_way_is_stopped_and_its_work_kept(
    batch_size: int, tmp_path: Path
) -> None:
    class Tires(Fake):
        def signal(self, pairs: pl.DataFrame) -> pl.DataFrame:
            if pairs["doc_id"].str.strip_prefix("d").cast(pl.Int64).max() >= 30:
                raise RuntimeError("lost the connection")
            return super().signal(pairs)

    pairs = make_pairs([("a", str(i)) for i in range(200)])
    with pytest.raises(LabelerError, match="failed on 64 pairs in a row, the last with RuntimeError: lost"):
        signals(Tires(), pairs, ledger=Ledger(tmp_path), batch_size=batch_size)
    fake = Fake()
    signals(fake, pairs, ledger=Ledger(tmp_path))
    assert fake.pairs == [("a", str(i)) for i in range(30 - 30 % batch_size, 200)]


def test_errors_of_ours_pass_through_unchanged() -> None:
    class Lacking(Fake):
        def signal(self, pairs: pl.DataFrame) -> pl.DataFrame:
            raise MissingExtra("torch", "slm")

    with pytest.raises(MissingExtra, match="torch"):
        signals(Lacking(), SIX)


def test_an_older_version_answers_what_it_has_and_refuses_the_rest(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    signals(FakeEncoder(), SIX[:2], ledger=ledger)
    old = ledger.at(ledger.version or 0)
    signals(FakeEncoder(), SIX, ledger=ledger)
    assert_frame_equal(signals(Raising(), SIX[:2], ledger=old), signals(FakeEncoder(), SIX[:2]))
    with pytest.raises(UsageError, match="lacks 2 signals or vectors of fakeencoder@fedcba98"):
        signals(Raising(), SIX, ledger=old)


def test_a_fingerprint_that_does_not_cover_the_grades_is_an_error(tmp_path: Path) -> None:
    signals(Fake(), SIX, ledger=Ledger(tmp_path))
    with pytest.raises(LabelerError, match=r"ledger has probs of another length than 2 .* fake@01234567"):
        signals(Fake(grades={0: "no", 1: "yes"}), SIX, ledger=Ledger(tmp_path))


def test_a_labeler_without_text_uses_no_ledger_and_needs_no_texts(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "l")
    out = signals(ById(), SIX.select("query_id", "doc_id"), ledger=ledger)
    assert out["score"].to_list() == [1.0] * 6
    assert ledger.version is None
    assert not (tmp_path / "l").exists()


SCRIPT = """
import sys, time
sys.path.insert(0, {here!r})
import polars as pl
from test_labeling import FakeEncoder, Ledger, make_pairs, signals

class Slow(FakeEncoder):
    def signal(self, pairs):
        with open({log!r}, "a") as log:
            log.writelines(q + d + chr(10) for q, d in zip(pairs["query"], pairs["text"]))
        time.sleep(float(sys.argv[1]))
        return super().signal(pairs)

pairs = make_pairs([(f"q{{i % 7}}", f"text {{i % 150}}") for i in range(900)])
out = signals(Slow(), pairs, ledger=Ledger({ledger!r}), batch_size=20)
out.write_parquet({out!r})
"""


def test_killed_half_way_it_resumes_and_asks_about_no_pair_twice(tmp_path: Path) -> None:
    paths = {name: str(tmp_path / name) for name in ("log", "ledger", "out")}
    script = tmp_path / "run.py"
    script.write_text(SCRIPT.format(here=str(Path(__file__).parent), **paths))
    log = tmp_path / "log"

    process = subprocess.Popen([sys.executable, str(script), "0.05"])
    while process.poll() is None and not (log.exists() and log.read_text().count("\n") >= 200):
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    before = log.read_text().splitlines()
    assert 200 <= len(before) < 900

    subprocess.run([sys.executable, str(script), "0"], check=True)
    asked = log.read_text().splitlines()
    twice = len(asked) - len(set(asked))
    assert len(set(asked)) == 900
    assert twice <= 20
    assert set(asked[len(before) :]) & set(before) <= set(before[-20:])  # at most the batch in flight
    pairs = make_pairs([(f"q{i % 7}", f"text {i % 150}") for i in range(900)])
    assert_frame_equal(pl.read_parquet(paths["out"]), signals(FakeEncoder(), pairs))


# -- memory --------------------------------------------------------------------------------------------------


class ById(Fake):
    needs_text = False

    def signal(self, pairs: pl.DataFrame) -> pl.DataFrame:
        return pairs.select("query_id", "doc_id", probs=None, score=pl.lit(1.0), reason=None)


class ByLength(ById):
    needs_text = True

    def signal(self, pairs: pl.DataFrame) -> pl.DataFrame:
        return super().signal(pairs).with_columns(score=pairs["text"].str.len_bytes())


def synthetic(pairs: int) -> Iterator[pl.DataFrame]:
    """PAIRS in batches of 1,000, one topic each, documents of about 500 characters."""
    for topic in range(0, pairs, 1000):
        ids = range(topic, min(topic + 1000, pairs))
        text = [f"document number {i} ".ljust(500, "x") for i in ids]
        row = {
            "query_id": str(topic),
            "doc_id": [str(i) for i in ids],
            "query": f"query {topic}",
            "text": text,
        }
        yield pl.DataFrame(row, schema=PAIRS)


def stream(kind: str, pairs: int, ledger: str | None, batch_size: int) -> dict[str, float]:
    """Stream signals for synthetic pairs: growth of this process's peak memory (MiB), and pairs a second."""
    import resource

    def peak() -> float:
        unit = 2**20 if sys.platform == "darwin" else 2**10
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit

    labeler = {"by id": ById, "by text": ByLength}[kind]()
    list(signal_batches(labeler, synthetic(10_000)))
    before, start = peak(), time.perf_counter()
    kept = Ledger(ledger) if ledger else None
    batches = signal_batches(labeler, synthetic(pairs), ledger=kept, batch_size=batch_size)
    assert sum(batch["score"].is_not_null().sum() for batch in batches) == pairs
    return {"growth_mib": peak() - before, "pairs_a_second": pairs / (time.perf_counter() - start)}


def in_a_process_of_its_own(kind: str, pairs: int, ledger: str | None = None) -> dict[str, float]:
    """`stream` where nothing else has raised the peak."""
    pytest.importorskip("resource")
    code = "import json, sys; from test_labeling import stream; "
    code += "print(json.dumps(stream(*json.loads(sys.argv[1]))))"
    args = json.dumps([kind, pairs, ledger, 4096])
    run = subprocess.run(
        [sys.executable, "-c", code, args],
        cwd=Path(__file__).parent,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    result: dict[str, float] = json.loads(run.stdout)
    return result


@pytest.mark.parametrize("kind", ["by id", "by text"])
def test_memory_does_not_grow_with_the_pool(kind: str) -> None:
    few, many = (in_a_process_of_its_own(kind, pairs)["growth_mib"] for pairs in (30_000, 120_000))
    assert many < few + 12  # the texts of 90,000 pairs alone are 43 MiB


# -- vectors -------------------------------------------------------------------------------------------------


def test_vectors_come_from_the_ledger_or_the_encoder(tmp_path: Path) -> None:
    ledger, fake, told = Ledger(tmp_path), FakeEncoder(), []
    signals(fake, SIX, ledger=ledger)
    texts = ["x", "new", "", "y", "new", "  "]
    out = vectors(fake, texts, ledger=ledger, progress=lambda done, total: told.append((done, total)))
    assert fake.embedded == ["new"]  # x and y are documents that signals have brought already
    expected = np.where(np.array([bool(t.strip()) for t in texts])[:, None], FakeEncoder._vectors(texts), 0)
    np.testing.assert_array_equal(out, expected)
    assert out.dtype == np.float32
    assert told == [(4, 6), (6, 6)]
    np.testing.assert_array_equal(vectors(Raising(), texts, ledger=Ledger(tmp_path)), out)
    np.testing.assert_array_equal(vectors(FakeEncoder(), texts), out)


def test_no_vectors() -> None:
    assert vectors(Raising(), []).shape == (0, 3)
    assert vectors(Raising(), ["", " "]).tolist() == [[0, 0, 0]] * 2


@pytest.mark.parametrize(
    ("given_", "said"),
    [
        (lambda v: v[:1], r"shape \(1, 3\), not \(2, 3\)"),
        (lambda v: v[:, :2], r"shape \(2, 2\), not \(2, 3\)"),
        (lambda v: v * 2, "vector 0 has length 2, not 1"),
        (lambda v: v * np.nan, "vector 0 has length nan"),
    ],
)
def test_vectors_that_break_the_protocol(
    given_: Callable[[np.ndarray], np.ndarray], said: str, tmp_path: Path
) -> None:
    class Wrong(FakeEncoder):
        def embed(self, texts: Sequence[str]) -> np.ndarray:
            return given_(self._vectors(texts))

    with pytest.raises(LabelerError, match=said):
        vectors(Wrong(), ["a", "b"], ledger=Ledger(tmp_path / "l"))
    assert not (tmp_path / "l").exists()  # nothing wrong was kept


def test_an_encoder_that_raises_is_named() -> None:
    with pytest.raises(LabelerError, match="fakeencoder@fedcba98 failed on 1 texts: AssertionError"):
        vectors(Raising(), ["a"])


# -- the protocol --------------------------------------------------------------------------------------------

BROKEN: dict[str, tuple[Callable[[pl.DataFrame], Any], str]] = {
    "no frame": (lambda f: f.to_dicts(), "returned a list, not a polars DataFrame"),
    "no column": (lambda f: f.drop("reason"), "returned no column reason"),
    "few rows": (lambda f: f[:-1], "returned 3 rows for 4 pairs"),
    "many rows": (lambda f: pl.concat([f, f]), "returned 8 rows for 4 pairs"),
    "order": (lambda f: f.reverse(), r"row 0 is about \('q4', 'd4'\), where \('q0', 'd0'\) was asked about"),
    "ids": (lambda f: f.with_columns(doc_id=pl.lit(None, pl.String)), "row 0 is about"),
    "text score": (lambda f: f.with_columns(score=pl.lit("1")), "column score is String, not Float32"),
    "text probs": (lambda f: f.with_columns(probs=pl.lit(["1"])), r"column probs is List\(String\)"),
    "length": (lambda f: f.with_columns(pl.col("probs").list.head(3)), "not one for each of the 4 grades"),
    "sum": (lambda f: f.with_columns(pl.col("probs").list.eval(pl.element() / 2)), "do not sum to 1"),
    "negative": (lambda f: f.with_columns(probs=pl.lit([1.5, -0.5, 0.0, 0.0])), "outside 0 to 1"),
    "nan": (lambda f: f.with_columns(probs=pl.lit([1.0, float("nan"), 0.0, 0.0])), "null, NaN or outside"),
    "null": (lambda f: f.with_columns(probs=pl.lit([1.0, None, 0.0, 0.0])), "null, NaN or outside"),
    "nan score": (lambda f: f.with_columns(score=float("nan")), "score that is NaN or infinite"),
    "inf score": (lambda f: f.with_columns(score=float("inf")), "score that is NaN or infinite"),
    "nothing": (lambda f: f.with_columns(probs=None, score=None), "no signal and no reason"),
    "both": (lambda f: f.with_columns(reason=pl.lit("unsure")), "a signal and a reason"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_an_answer_that_breaks_the_protocol_is_refused(case: str, tmp_path: Path) -> None:
    change, said = BROKEN[case]

    class Wrong(Fake):
        def signal(self, pairs: pl.DataFrame) -> pl.DataFrame:
            return change(super().signal(pairs))

    with pytest.raises(LabelerError, match=f"labeler fake@01234567 broke the protocol: .*{said}"):
        signals(Wrong(), SIX, ledger=Ledger(tmp_path / "l"))
    assert not (tmp_path / "l").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda f: f.drop("vector"), "no column vector"),
        (lambda f: f.with_columns(features=None), "a signal but no features"),
        (
            lambda f: f.with_columns(pl.col("features").list.head(1)),
            "not one for each of the 2 feature_names",
        ),
        (lambda f: f.with_columns(features=pl.lit([1.0, float("inf")])), "features that are null, NaN"),
        (lambda f: f.with_columns(vector=None), "a signal but no vector"),
        (lambda f: f.with_columns(vector=pl.lit([1.0, 0.0])), "columns are not of their types"),
        (lambda f: f.with_columns(vector=pl.lit([1.0, 1.0, 0.0])), "vector 0 has length 1.41421"),
    ],
)
def test_an_encoder_that_breaks_the_protocol(
    change: Callable[[pl.DataFrame], pl.DataFrame], said: str
) -> None:
    class Wrong(FakeEncoder):
        def signal(self, pairs: pl.DataFrame) -> pl.DataFrame:
            return change(super().signal(pairs))

    with pytest.raises(LabelerError, match=said):
        signals(Wrong(), SIX)


# -- the registry --------------------------------------------------------------------------------------------


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, dict[str, str]], None]:
    """Install a one-module distribution that registers labelers."""

    def install(code: str, points: dict[str, str], name: str = "theirs") -> None:
        root = tmp_path / f"site-{name}"
        info = root / f"{name}-1.0.dist-info"
        info.mkdir(parents=True)
        (root / f"{name}.py").write_text(dedent(code))
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        lines = "".join(f"{k} = {v}\n" for k, v in points.items())
        (info / "entry_points.txt").write_text(f"[stopgap.labelers]\n{lines}")
        monkeypatch.syspath_prepend(str(root))
        monkeypatch.delitem(sys.modules, name, raising=False)

    yield install
    for name in ("theirs", "others"):
        sys.modules.pop(name, None)


MINE = """
    import polars as pl
    class Mine:
        needs_text = False
        def __init__(self, argument=None, grades=None):
            self.name, self.grades, self.fingerprint = "mine", grades, f"0000{argument}"
        def signal(self, pairs):
            return pairs.select("query_id", "doc_id", probs=None, score=1.0, reason=None)
"""


def test_built_in_names() -> None:
    assert label_id(load("constant:1", GRADES)).startswith("constant@")
    assert set(registry.BUILT_IN) == {
        *("cascade", "constant", "cross-encoder", "encoder", "ensemble"),
        *("hf", "lookup", "minilm", "openai", "vllm"),
    }
    assert registry.BUILT_IN["minilm"].target == "labelers.encoder:MiniLM"
    for name, built_in in registry.BUILT_IN.items():
        assert not built_in.modules or "deltalake" in built_in.modules, f"{name}'s answers go into a ledger"


def test_a_registered_package_gets_the_argument_and_the_grades(package: Any) -> None:
    package(MINE, {"mine": "theirs:Mine"})
    assert load("mine", GRADES).fingerprint == "0000None"
    assert load("mine:a:b", GRADES).fingerprint == "0000a:b"
    assert load("mine:", GRADES).fingerprint == "0000"
    assert load("mine", GRADES).grades == GRADES
    (line,) = (a for a in registry.available() if a.name == "mine")
    assert line == registry.Listed("mine", "theirs:Mine", "theirs", True)


def test_a_registered_name_wins_over_a_module(package: Any) -> None:
    package(MINE, {"theirs": "theirs:Mine"})
    assert load("theirs:Mine", GRADES).fingerprint == "0000Mine"


def test_a_built_in_name_cannot_be_registered_again(package: Any) -> None:
    package(MINE, {"constant": "theirs:Mine"})
    assert load("constant:1", GRADES).name == "constant"
    assert [a.name for a in registry.available()].count("constant") == 1


def test_module_object_is_called_with_the_grades(package: Any) -> None:
    package(MINE, {})
    labeler = load("theirs:Mine", GRADES)
    assert (labeler.fingerprint, labeler.grades) == ("0000None", GRADES)


def test_a_module_in_the_folder_one_is_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p not in ("", os.getcwd())])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lying_here.py").write_text(dedent(MINE))
    assert load("lying_here:Mine", GRADES).name == "mine"


def test_unknown_names_say_what_is_near_and_what_to_do() -> None:
    with pytest.raises(UnknownName, match="Did you mean 'minilm'") as caught:
        load("minillm", GRADES)
    names = "cascade, constant, cross-encoder, encoder, ensemble, hf, lookup, minilm"
    assert f"Available: {names}" in str(caught.value)
    assert "stopgap.labelers" in str(caught.value)
    with pytest.raises(UnknownName, match=r"(?s)'constnt'\. Did you mean 'constant'.*Nor is there a module"):
        load("constnt:1", GRADES)
    for nothing in ("", ":", "minilm2:", ":x"):
        with pytest.raises(UnknownName):
            load(nothing, GRADES)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import no_such_module_at_all", "cannot be imported: ModuleNotFoundError: No module named 'no_such"),
        ("from theirs import Mine", "cannot be imported: ImportError: cannot import name 'Mine'"),
        ("raise RuntimeError('bad day')", "cannot be imported: RuntimeError: bad day"),
        ("def Mine(: pass", "cannot be imported: SyntaxError"),
        ("Mein = 1", "theirs has no 'Mine'; did you mean Mein"),
        ("Mine = 1", "is a int, not a factory"),
        ("def Mine(): ...", "could not be made: TypeError"),
        ("def Mine(argument=None, grades=None): raise ValueError('no')", "could not be made: ValueError: no"),
        (
            "def Mine(argument=None, grades=None): ...",
            "it lacks name, grades, fingerprint, needs_text, signal",
        ),
    ],
)
@pytest.mark.parametrize("spec", ["mine", "theirs:Mine"])
def test_a_labeler_that_cannot_be_loaded(code: str, said: str, spec: str, package: Any) -> None:
    package(code, {"mine": "theirs:Mine"})
    with pytest.raises(LabelerError, match=said) as caught:
        load(spec, GRADES)
    assert repr(spec) in str(caught.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("name = ''", "name is '', not one word"),
        ("name = 'two words'", "name is 'two words'"),
        ("name = 7", "name is 7"),
        ("fingerprint = b'x'", "fingerprint is b'x'"),
        ("needs_text = 'no'", "needs_text is 'no', not True or False"),
        ("grades = {0: 'no', 1: 'yes'}", "its grades are {0: 'no', 1: 'yes'}, the collection's"),
        ("signal = 3", "signal cannot be called"),
        ("embed = 3", "lacks dimension, feature_names"),
        ("embed = 3; dimension = 2; feature_names = ()", "embed cannot be called"),
        ("embed = print; dimension = 0; feature_names = ()", "dimension is 0"),
    ],
)
def test_a_labeler_that_lacks_part_of_the_protocol(change: str, said: str, package: Any) -> None:
    package(
        dedent(MINE)
        + f"class Wrong(Mine):\n    def __init__(self, grades): super().__init__(grades=grades)\n"
        f"    {change}\n"
        "    def __setattr__(self, key, value):\n"
        "        if not hasattr(type(self), key): super().__setattr__(key, value)\n",
        {},
    )
    with pytest.raises(LabelerError, match=f"'theirs:Wrong'.*breaks the protocol: .*{said}"):
        load("theirs:Wrong", GRADES)


def test_a_labeler_registered_through_itself(package: Any) -> None:
    package(
        """
        from harness.labeling import load
        def one(argument, grades): return load("two", grades)
        def two(argument, grades): return load("one", grades)
        """,
        {"one": "theirs:one", "two": "theirs:two"},
    )
    with pytest.raises(LabelerError, match="'one' is registered through itself: one -> two -> one"):
        load("one", GRADES)
    with pytest.raises(LabelerError):  # and the registry is usable afterwards
        load("two", GRADES)
    assert load("constant:0", GRADES).name == "constant"


def test_a_name_that_two_packages_register(package: Any) -> None:
    package(MINE, {"mine": "theirs:Mine"})
    package(MINE, {"mine": "others:Mine"}, name="others")
    with pytest.raises(LabelerError, match=r"'mine' is registered twice: .* of (theirs|others)"):
        load("mine", GRADES)


def test_available_says_what_each_needs_without_importing_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "find_spec", lambda name: None)
    lines = {line.name: line for line in registry.available()}
    assert lines["constant"].installed
    assert lines["constant"].needs == ""
    assert not lines["minilm"].installed
    assert lines["minilm"].needs
    code = "import sys; from harness.labeling import available; available(); "
    code += "sys.exit(any(m in sys.modules for m in ('deltalake', 'labelers', 'onnxruntime', 'torch')))"
    subprocess.run([sys.executable, "-c", code], check=True)
