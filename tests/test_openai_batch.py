"""Batch files: each pair ends as a signal or as null with a reason, and none is paid twice."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from harness.cli import main
from harness.errors import InputError, UnknownName, UsageError
from harness.labeling import signals
from harness.ledger import Ledger
from labelers import batch_files
from labelers.openai_api import OpenAI
from labelers.scripted_batches import ScriptedBatches
from labelers.scripted_server import (
    Request,
    ScriptedServer,
    Step,
    answer,
    answers,
    cut,
    raw,
    refusal,
    status,
)
from small_fill import numbered
from tiny_models import GRADES

pytest.importorskip("aiohttp", reason="needs the extra openai")

KEY = "sk-test-0123456789abcdefghij"
FAST = "batch=yes&poll=0.01&backoff=0.005&tries=3"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def made() -> Iterator[Callable[..., OpenAI]]:
    """Makes labelers that are closed at the end."""
    labelers: list[OpenAI] = []

    def make(server: ScriptedServer, settings: str = "") -> OpenAI:
        labelers.append(OpenAI(f"judge@{server.url}?{FAST}&{settings}".rstrip("&"), GRADES))
        return labelers[-1]

    yield make
    for labeler in labelers:
        labeler.close()


def of_document(request: Request) -> Step:
    """The grade of document n is n % 4."""
    n = int(next(line for line in request.prompt.splitlines() if line.startswith("document ")).split()[1])
    return answer(str(n % 4))


def asked(make: Callable[..., OpenAI], script: ScriptedBatches, settings: str = "", count: int = 5) -> Any:
    """What a labeler gives for some pairs, the server and the labeler."""
    with ScriptedServer(script) as server:
        labeler = make(server, settings)
        return labeler.signal(numbered(count)), server, labeler


def grades(frame: pl.DataFrame) -> list[int | None]:
    return [p and p.index(max(p)) for p in frame["probs"].to_list()]


def kept() -> list[Path]:
    return sorted(Path(".stopgap/batches").glob("*"))


# -- one batch -----------------------------------------------------------------------------------------------


def test_what_is_sent_and_how_answers_are_matched(made: Callable[..., OpenAI]) -> None:
    script = ScriptedBatches(of_document, looks=3)
    frame, server, labeler = asked(made, script)
    assert grades(frame) == [0, 1, 2, 3, 0]  # though the file has them in another order
    assert [(r.method, r.path.partition("?")[0]) for r in server.requests] == [
        ("GET", "/v1/batches"),
        ("POST", "/v1/files"),
        ("POST", "/v1/batches"),
        *[("GET", "/v1/batches/batch_1")] * 3,
        ("GET", "/v1/files/file-2/content"),
    ]
    assert {r.headers["authorization"] for r in server.requests} == {f"Bearer {KEY}"}
    ((first, *others),) = script.made
    assert first["method"] == "POST"
    assert first["url"] == "/v1/chat/completions"
    assert (first["body"]["model"], first["body"]["logprobs"]) == ("judge", True)
    assert "document 0 about herons" in first["body"]["messages"][0]["content"]
    assert len({line["custom_id"] for line in (first, *others)}) == 5
    usage = labeler.usage()
    assert (usage["requests"], usage["batches"], usage["tokens_in"], usage["parsed"]) == (5, 1, 500, 5)


def test_probabilities_and_refusals_are_read_as_everywhere(made: Callable[..., OpenAI]) -> None:
    def line(request: Request) -> Step:
        spread = {"2": math.log(0.5), "1": math.log(0.25)}
        return refusal() if "document 1 " in request.prompt else answer("2", spread)

    frame, _, labeler = asked(made, ScriptedBatches(line), count=2)
    assert frame["probs"].to_list() == [pytest.approx([0, 1 / 3, 2 / 3, 0]), None]
    assert frame["reason"].to_list() == [None, "refusal"]
    assert labeler.usage()["spread"] == 1


def test_lines_that_failed_and_lines_that_are_missing(made: Callable[..., OpenAI]) -> None:
    def line(request: Request) -> Step:
        if "document 1 " in request.prompt:
            return status(500)
        return answer("see section 2") if "document 2 " in request.prompt else of_document(request)

    frame, _, _ = asked(made, ScriptedBatches(line, lost=["3-0"]))
    assert grades(frame) == [0, None, None, None, 0]
    assert frame["reason"].to_list() == [
        None, "server error (500)", "no grade in the answer", "no answer in the batch's files", None,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("ending", "answered", "why"),
    [
        ("expired", 2, "the batch expired: This request was not executed."),
        ("cancelled", 2, "the batch was cancelled: This request was not executed."),
        ("failed", 0, "the batch failed: line 1 is no request"),
    ],
)
def test_a_batch_that_does_not_complete(
    made: Callable[..., OpenAI], ending: str, answered: int, why: str
) -> None:
    script = ScriptedBatches(of_document, ending=ending)
    with ScriptedServer(script) as server:
        labeler = made(server)
        frame = labeler.signal(numbered(5))
        assert frame["reason"].to_list() == [None] * answered + [why] * (5 - answered)
        assert grades(frame)[:answered] == [0, 1][:answered]
        # What came to nothing is not held on to: the next run makes another batch.
        script.ending = "completed"
        again = labeler.signal(numbered(5)[answered:])
        assert again["reason"].to_list() == [None] * (5 - answered)
        assert len(script.made) == 2


def test_what_the_server_does_not_take_is_left_out_in_a_second_batch(made: Callable[..., OpenAI]) -> None:
    def line(request: Request) -> Step:
        refused = next((name for name in ("logprobs", "max_tokens") if name in request.body), None)
        if refused is None:
            return of_document(request)
        return status(400, message=f"Unsupported parameter: '{refused}'", param=refused)

    script = ScriptedBatches(line)
    frame, _, _ = asked(made, script)
    assert grades(frame) == [0, 1, 2, 3, 0]
    assert len(script.made) == 3
    assert set(script.made[2][0]["body"]) == {"model", "messages", "temperature", "max_completion_tokens"}


@pytest.mark.parametrize("takes", ["n", "no n", "looks over n"])
def test_several_answers(made: Callable[..., OpenAI], takes: str) -> None:
    said = iter(["0", "1", "1", "3"] * 50)

    def line(request: Request) -> Step:
        n = request.body.get("n", 1)
        if takes == "no n" and "n" in request.body:
            return status(400, message="n must be 1", param="n")
        return answers([next(said) for _ in range(1 if takes == "looks over n" else n)])

    script = ScriptedBatches(line)
    frame, _, labeler = asked(made, script, "answer=text&temperature=1&samples=4", count=2)
    if takes == "looks over n":  # which of the answers went to whom depends on the round before
        assert frame["reason"].to_list() == [None, None]
        assert all(sum(p) == pytest.approx(1) for p in frame["probs"].to_list())
    else:
        assert frame["probs"].to_list() == [pytest.approx([0.25, 0.5, 0, 0.25])] * 2
    assert labeler.usage()["samples"] == 8
    assert [len(lines) for lines in script.made] == ([2] if takes == "n" else [2, 8])


def test_a_large_file_is_several_batches(
    made: Callable[..., OpenAI], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_files, "_LINES", 2)
    script = ScriptedBatches(of_document)
    frame, _, labeler = asked(made, script)
    assert grades(frame) == [0, 1, 2, 3, 0]
    assert sorted(map(len, script.made)) == [1, 2, 2]
    assert labeler.usage()["batches"] == 3
    monkeypatch.setattr(batch_files, "_BYTES", 10)
    assert grades(asked(made, script)[0]) == [0, 1, 2, 3, 0]
    assert len(script.made) == 8


# -- nothing is paid twice -----------------------------------------------------------------------------------


def test_a_batch_that_takes_too_long_is_found_again(made: Callable[..., OpenAI]) -> None:
    script = ScriptedBatches(of_document, looks=10**9)
    with ScriptedServer(script) as server:
        frame = made(server, "patience=0.05").signal(numbered(3))
        assert frame["reason"].to_list() == ["the batch is not done after 0.05 s"] * 3
        (file,) = kept()
        known = json.loads(file.read_text())
        assert known == {"batch": "batch_1", "server": server.url, "requests": 3}
        assert KEY not in file.read_text()
        script.looks = 1
        later = made(server)
        assert grades(later.signal(numbered(3))) == [0, 1, 2]
        assert later.usage()["batches"] == later.usage()["requests"] == 0
        assert later.usage()["tokens_in"] == 300
        # Answered, and perhaps not yet in a ledger: the same answers again, for nothing.
        assert grades(made(server).signal(numbered(3))) == [0, 1, 2]
        assert len(script.made) == 1
        made(server).signal(numbered(4))
        made(server, "prompt=basic").signal(numbered(3))
        assert len(script.made) == 3


def test_a_batch_is_not_looked_at_without_pause(made: Callable[..., OpenAI]) -> None:
    with ScriptedServer(ScriptedBatches(of_document, looks=10**9)) as server:
        labeler = OpenAI(f"judge@{server.url}?batch=yes&poll=0&patience=0.3", GRADES)
        labeler.signal(numbered(3))
        labeler.close()
    looks = [r for r in server.requests if r.path.endswith("/batch_1")]
    assert 2 <= len(looks) <= 4  # at once, after 0.15 s, and when patience ends


def test_without_the_file_it_is_found_at_the_server(made: Callable[..., OpenAI]) -> None:
    script = ScriptedBatches(of_document, looks=10**9)
    with ScriptedServer(script) as server:
        made(server, "patience=0.02").signal(numbered(3))
        made(server, "patience=0.02").signal(numbered(2))  # another one, which must not be taken for it
        for file in kept():
            file.unlink()
        script.looks = 1
        assert grades(made(server).signal(numbered(3))) == [0, 1, 2]
        assert len(script.made) == 2


def test_a_lost_answer_to_making_it_makes_no_second_one(made: Callable[..., OpenAI]) -> None:
    script: ScriptedBatches

    def loses(request: Request) -> Step | None:
        if request.method == "POST" and request.path.endswith("/batches") and not script.made:
            script._begun(request.body)
            return cut()
        return None

    script = ScriptedBatches(of_document, before=loses)
    frame, _, _ = asked(made, script)
    assert grades(frame) == [0, 1, 2, 3, 0]
    assert len(script.made) == 1


def test_a_batch_that_the_server_has_forgotten_is_made_again(made: Callable[..., OpenAI]) -> None:
    script = ScriptedBatches(of_document, looks=10**9)
    with ScriptedServer(script) as server:
        made(server, "patience=0.02").signal(numbered(3))
        script.batches.clear()
        script.made.clear()
        script.looks = 1
        assert grades(made(server).signal(numbered(3))) == [0, 1, 2]
        assert len(script.made) == 1


def test_a_batch_whose_files_the_server_has_thrown_away_is_made_again(made: Callable[..., OpenAI]) -> None:
    script = ScriptedBatches(of_document)
    with ScriptedServer(script) as server:
        assert grades(made(server).signal(numbered(3))) == [0, 1, 2]
        script.files.clear()
        why = "the batch's files are gone from the server (404)"
        assert made(server).signal(numbered(3))["reason"].to_list() == [why] * 3
        assert kept() == []
        assert grades(made(server).signal(numbered(3))) == [0, 1, 2]
        assert len(script.made) == 2


def test_what_is_left_of_a_batch_s_files_is_used(made: Callable[..., OpenAI]) -> None:
    def line(request: Request) -> Step:
        return status(500) if "document 1 " in request.prompt else of_document(request)

    script = ScriptedBatches(line)
    with ScriptedServer(script) as server:
        assert grades(made(server).signal(numbered(3))) == [0, None, 2]
        del script.files[script.batches["batch_1"]["error_file_id"]]
        left = made(server).signal(numbered(3))
        assert grades(left) == [0, None, 2]
        assert left["reason"][1] == "the batch's files are gone from the server (404)"
        assert len(script.made) == 1


def test_a_batch_that_ended_meanwhile_with_nothing_is_made_again(made: Callable[..., OpenAI]) -> None:
    script = ScriptedBatches(of_document, looks=10**9)
    with ScriptedServer(script) as server:
        made(server, "patience=0.02").signal(numbered(3))
        script.batches["batch_1"]["status"] = "expired"
        script.looks = 1
        assert grades(made(server).signal(numbered(3))) == [0, 1, 2]
        assert len(script.made) == 2


def collection() -> list[str]:
    folder = Path("DIR")
    folder.mkdir()
    docs = [f'{{"doc_id": "d{n}", "text": "document {n} about herons"}}' for n in range(12)]
    (folder / "corpus.jsonl").write_text("\n".join(docs))
    (folder / "queries.tsv").write_text("1\twhere do herons nest\n2\twhat do herons eat\n")
    (folder / "grades.tsv").write_text("".join(f"{g}\t{w}\n" for g, w in GRADES.items()))
    run = [f"{q} Q0 d{i} {i} {20 - i} one" for q in "12" for i in range(12)]
    Path("one.run").write_text("\n".join(run) + "\n")
    Path("qrels.txt").write_text("".join(f"{q} 0 d{i} {i % 4}\n" for q in "12" for i in range(6)))
    files = ["one.run", "--qrels", "qrels.txt", "--collection", "DIR", "--out", "filled.qrels"]
    return ["fill", *files, "--depth", "12", "--json"]


def test_a_killed_run_goes_on_with_its_batch(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = collection()
    script = ScriptedBatches(of_document, looks=10**9)
    with ScriptedServer(script) as server:
        arguments += ["--labeler", f"openai:judge@{server.url}?{FAST}"]
        code = f"from harness.cli import main; raise SystemExit(main({arguments!r}))"
        with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL) as process:
            end = time.monotonic() + 60
            while not kept() and time.monotonic() < end:
                time.sleep(0.02)
            process.kill()
        assert len(script.made) == 1
        script.looks = 1
        assert main(arguments) == 0
        summary = json.loads(capsys.readouterr().out)
        assert len(script.made) == 1
        assert (summary["labeled"], summary["accounts"][0]["batches"]) == (12, 0)
        assert main(arguments) == 0
        assert json.loads(capsys.readouterr().out)["model_calls"] == 0


# -- through the ledger --------------------------------------------------------------------------------------


def test_a_job_is_one_batch_and_what_failed_another(made: Callable[..., OpenAI], tmp_path: Path) -> None:
    bad = {7, 600}

    def line(request: Request) -> Step:
        return status(500) if any(f"document {n} " in request.prompt for n in bad) else of_document(request)

    script = ScriptedBatches(line)
    ledger = Ledger(tmp_path / "ledger")
    with ScriptedServer(script) as server:
        first = signals(made(server), numbered(700), ledger=ledger)
        assert [len(lines) for lines in script.made] == [700]
        assert first["reason"].drop_nulls().to_list() == ["server error (500)"] * 2
        bad.clear()
        assert signals(made(server), numbered(700), ledger=ledger)["reason"].null_count() == 700
        assert [len(lines) for lines in script.made] == [700, 2]
        signals(made(server, "prompt=basic&pairs=300"), numbered(700), ledger=ledger)
        assert [len(lines) for lines in script.made] == [700, 2, 300, 300, 100]


def test_it_is_the_same_labeler_with_and_without_batches(made: Callable[..., OpenAI]) -> None:
    with ScriptedServer(ScriptedBatches(of_document)) as server:
        plain = OpenAI(f"judge@{server.url}", GRADES)
        assert plain.fingerprint == made(server).fingerprint == made(server, "patience=9&pairs=5").fingerprint
        assert not hasattr(plain, "at_once")
        assert made(server).at_once == 10_000


# -- servers that fail ---------------------------------------------------------------------------------------


def test_a_hiccup_at_any_step_is_tried_again(made: Callable[..., OpenAI]) -> None:
    seen: set[str] = set()

    def stumbles(request: Request) -> Step | None:
        step = f"{request.method} {request.path}"
        if step in seen:
            return None
        seen.add(step)
        return [status(500), status(429, {"retry-after": "0"}), cut()][len(seen) % 3]

    script = ScriptedBatches(of_document, before=stumbles, looks=2)
    frame, _, _ = asked(made, script)
    assert grades(frame) == [0, 1, 2, 3, 0]
    assert len(seen) == 5
    assert len(script.made) == 1


@pytest.mark.parametrize("path", ["/files", "/batches"])
@pytest.mark.parametrize("code", [404, 405])
def test_a_server_without_batch_files_is_an_error(made: Callable[..., OpenAI], path: str, code: int) -> None:
    def lacks(request: Request) -> Step | None:
        return status(code) if request.path.partition("?")[0].endswith(path) else None

    with pytest.raises(UsageError, match=rf"takes no batch files \({code}\).\nNext: leave out batch=yes"):
        asked(made, ScriptedBatches(of_document, before=lacks))


def test_on_the_command_line_too(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = collection()
    with ScriptedServer([status(404)]) as server:
        assert main([*arguments, "--labeler", f"openai:judge@{server.url}?{FAST}"]) == 2
    told = capsys.readouterr().err
    assert "takes no batch files" in told
    assert "Traceback" not in told


@pytest.mark.parametrize(
    ("step", "why"),
    [
        (status(401), "the server refuses the key (401)"),
        (status(500), "server error (500)"),
        (cut(), "the connection broke"),
        (status(400, message=f"bad {KEY} file"), "the server refused the request (400): bad … file"),
    ],
)
@pytest.mark.parametrize("path", ["/files", "/batches", "/batches/batch_1", "/content"])
def test_what_cannot_be_done_is_every_pairs_reason(
    made: Callable[..., OpenAI], step: Step, why: str, path: str
) -> None:
    def fails(request: Request) -> Step | None:
        here = request.path.partition("?")[0]
        return (
            step
            if here.endswith(path) and not (request.method == "GET" and here.endswith("/batches"))
            else None
        )

    script = ScriptedBatches(of_document, before=fails)
    with ScriptedServer(script) as server:
        assert made(server).signal(numbered(3))["reason"].to_list() == [why] * 3
        script.before = lambda request: None
        assert grades(made(server).signal(numbered(3))) == [0, 1, 2]
        assert len(script.made) == 1  # found again, where it had been made


@pytest.mark.parametrize("path", ["/files", "/batches"])
def test_what_is_told_without_an_id_is_no_batch(made: Callable[..., OpenAI], path: str) -> None:
    def garbles(request: Request) -> Step | None:
        return raw(b'{"id": 7}') if request.method == "POST" and request.path.endswith(path) else None

    frame, _, _ = asked(made, ScriptedBatches(of_document, before=garbles))
    assert frame["reason"].to_list() == ["the server's answer cannot be read"] * 5


def test_answers_without_any_grade_are_asked_for_again(made: Callable[..., OpenAI]) -> None:
    script = ScriptedBatches(lambda _: answer("see section 2"))
    with ScriptedServer(script) as server:
        assert made(server).signal(numbered(3))["reason"].to_list() == ["no grade in the answer"] * 3
        script.line = of_document
        assert grades(made(server).signal(numbered(3))) == [0, 1, 2]
        assert len(script.made) == 2


@pytest.mark.parametrize("broken", [b"", b"[]", b"{", b'{"data": [7, {"metadata": 7}]}', b"\xff\n{}\nnull\n"])
def test_what_cannot_be_read_is_no_answer(made: Callable[..., OpenAI], broken: bytes) -> None:
    def garbles(request: Request) -> Step | None:
        return raw(broken) if request.path.endswith(("/content", "limit=100")) else None

    frame, _, _ = asked(made, ScriptedBatches(of_document, before=garbles))
    assert frame["reason"].to_list() == ["no answer in the batch's files"] * 5


def test_where_the_id_cannot_be_kept_nothing_is_sent(made: Callable[..., OpenAI]) -> None:
    Path("full").write_text("a file")
    script = ScriptedBatches(of_document)
    with pytest.raises(InputError, match="cannot keep the ids of batches"):
        asked(made, script, "batches=full/here")
    assert not script.files


@pytest.mark.parametrize(
    ("settings", "error"),
    [("batch=maybe", UnknownName), ("batch=yes&pairs=0", UsageError), ("batch=yes&poll=-1", UsageError)],
)
def test_settings_that_cannot_be_meant(settings: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        OpenAI(f"judge@http://127.0.0.1:9/v1?{settings}", GRADES)
