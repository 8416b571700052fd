"""Labelers on a Ray cluster of several processes on this machine, some of which die."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from harness import ray_engine
from harness.accounting import Counted
from harness.cli import main
from harness.errors import LabelerError, UsageError
from harness.labeling import load, signal_batches, signals
from harness.ledger import Ledger
from harness.ray_engine import RayEngine

pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own, of which there are many

GRADES = {0: "no", 1: "related", 2: "good"}


def frame(count: int, special: dict[int, str] | None = None) -> pl.DataFrame:
    texts = [f"{(special or {}).get(n, '')} text {n}".strip() for n in range(count)]
    ids = [f"d{n}" for n in range(count)]
    return pl.DataFrame({"query_id": "1", "doc_id": ids, "query": "q", "text": texts})


def asked(place: Path) -> list[tuple[str, str]]:
    """(process, document) of everything that a labeler was asked, and lived."""
    lines = (place / "asked.txt").read_text().splitlines()
    return [(process, doc) for process, doc in (line.split() for line in lines)]


def test_a_worker_is_killed_and_no_label_is_lost_and_none_kept_twice(cluster: RayEngine, place: Path) -> None:
    # Blocks of 300 pairs and batches of 256: the worker dies with one batch of its block kept.
    pairs = frame(3600, {290: "deadly", 700: "unreadable"})
    ledger, counted = Ledger(place / "ledger"), Counted(load("seen:Seen", GRADES), "seen:Seen")
    seen: list[int] = []
    found = pl.concat(
        signal_batches(
            counted, [pairs], ledger=ledger, engine=cluster, progress=lambda done, _: seen.append(done)
        )
    )
    died = (place / "died.txt").read_text()
    by = asked(place)
    assert died in {process for process, _ in by}
    assert len({process for process, _ in by} - {died}) >= 2
    assert sorted(doc for _, doc in by) == sorted(pairs["doc_id"])  # the killed batch was never answered
    stored = pl.read_delta(str(place / "ledger" / "signals"))
    assert stored.height == stored["doc_hash"].n_unique() == 3599
    # The same as in this process: there is a death already, so that it does not end itself.
    assert_frame_equal(found, signals(load("seen:Seen", GRADES), pairs))
    assert (seen == sorted(seen), seen[-1]) == (True, 3600)
    (account,) = counted.accounts(found)
    assert (account["asked"], account["cache_hits"]) == (3600, 0)
    assert account["failures"] == {"cannot read this": 1}
    assert 3600 - 600 <= account["requests"] <= 3600  # what the lost worker did not tell is not known
    assert account["tokens_in"] == 10 * account["requests"]

    # Again and without Ray, there is only the pair without an answer to ask about.
    (place / "asked.txt").unlink()
    again = Counted(load("seen:Seen", GRADES), "seen:Seen")
    second = pl.concat(signal_batches(again, [pairs], ledger=ledger))
    assert_frame_equal(second, found)
    assert [doc for _, doc in asked(place)] == ["d700"]
    assert again.accounts(second)[0]["cache_hits"] == 3599


@pytest.mark.parametrize(
    ("spec", "special", "said"),
    [
        ("seen:Changing", {}, "is another labeler here"),
        (
            "seen:Seen",
            {0: "always deadly"},
            r"gave up on labeler seen@5ee115ee \(2 workers were lost",
        ),
    ],
)
def test_what_goes_wrong_on_a_worker_is_said_in_a_sentence(
    cluster: RayEngine,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    spec: str,
    special: dict[int, str],
    said: str,
) -> None:
    monkeypatch.setattr(ray_engine, "_LOSSES", 2)
    counted = Counted(load(spec, GRADES), spec)
    with pytest.raises(LabelerError, match=said) as raised:
        list(signal_batches(counted, [frame(9, special)], ledger=Ledger(place / "ledger"), engine=cluster))
    assert "Traceback" not in str(raised.value)
    assert raised.value.__cause__ is None


def test_an_object_or_no_ledger_will_not_do(cluster: RayEngine, place: Path) -> None:
    labeler = load("seen:Seen", GRADES)
    with pytest.raises(UsageError, match="by its name"):
        list(signal_batches(labeler, [frame(2)], ledger=Ledger(place / "ledger"), engine=cluster))
    with pytest.raises(UsageError, match="need a ledger"):
        list(signal_batches(labeler, [frame(2)], engine=cluster))


def test_fill_writes_the_same_bytes_with_and_without_ray(
    cluster: RayEngine, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "c").mkdir()
    docs = [f"t{t}d{n:02}" for t in (1, 2) for n in range(20)]
    (place / "c" / "corpus.jsonl").write_text(
        "".join(f'{{"doc_id": "{d}", "text": "about {d}"}}\n' for d in docs)
    )
    (place / "c" / "queries.tsv").write_text("1\tfirst\n2\tsecond\n")
    (place / "c" / "grades.tsv").write_text("".join(f"{g}\t{words}\n" for g, words in GRADES.items()))
    (place / "q.txt").write_text("".join(f"{d[1]} 0 {d} {n % 3}\n" for n, d in enumerate(docs) if n % 2))
    ranked = "".join(f"{d[1]} Q0 {d} {int(d[3:]) + 1} {20 - int(d[3:])} r\n" for d in docs)
    (place / "r.run").write_text(ranked)
    (place / "two.toml").write_text('first = "seen:Seen"\nthen = "constant:1"\nunsure = 0.5\n')
    common = ["fill", "r.run", "--qrels", "q.txt", "--collection", "c", "--depth", "20", "--json"]
    told: list[Any] = []
    for out, *more in (["plain"], ["ray", "--engine", "ray", "--workers", "2"]):
        labeler = ["--labeler", "cascade:two.toml", "--out", f"{out}.qrels", "--ledger", f"ledger-{out}"]
        assert main([*common, *labeler, *more]) == 0
        told.append(json.loads(capsys.readouterr().out))
    assert (place / "plain.qrels").read_bytes() == (place / "ray.qrels").read_bytes()
    assert [a["labeler"] for a in told[1]["accounts"]] == [a["labeler"] for a in told[0]["accounts"]]
    assert [a["asked"] for a in told[1]["accounts"]] == [40, 40, 0]
    assert told[1]["accounts"][1]["requests"] == 40
    shutil.rmtree(place / "ledger-ray")


def test_workers_get_their_part_of_a_gpu(place: Path) -> None:
    # A cluster of its own, which says that it has GPUs.
    code = """
import ray, polars as pl
ray.init("local", num_cpus=2, num_gpus=1, include_dashboard=False, log_to_driver=False)
from harness.accounting import Counted
from harness.labeling import load, signal_batches
from harness.ledger import Ledger
from harness.ray_engine import RayEngine

grades = {0: "no", 1: "related", 2: "good"}
pairs = pl.DataFrame({"query_id": "1", "doc_id": [f"d{n}" for n in range(150)], "query": "q"})
pairs = pairs.with_columns(text="text of " + pl.col("doc_id"))
with RayEngine(workers=3, gpus=0.5) as engine:
    labeler = Counted(load("seen:Seen", grades), "seen:Seen")
    found = pl.concat(signal_batches(labeler, [pairs], ledger=Ledger("ledger"), engine=engine))
    assert engine.workers == 2
assert found["probs"].null_count() == 0 and found.height == 150
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert sorted(doc for _, doc in asked(place)) == sorted(f"d{n}" for n in range(150))
