"""A model behind a server: whatever the server does, each pair ends as a signal or as null with a reason."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from harness.cli import main
from harness.errors import InputError, MissingExtra, UnknownName, UsageError
from harness.frames import EXAMPLES
from harness.labeling import label_id, load, signals
from harness.ledger import Ledger
from labelers import openai_settings
from labelers.openai_api import OpenAI
from labelers.scripted_server import (
    Request,
    ScriptedServer,
    Step,
    answer,
    answers,
    cut,
    hang,
    raw,
    refusal,
    status,
    truncated,
)
from small_fill import fill, numbered, numbered_text, write_files
from tiny_models import GRADES

KEY = "sk-test-0123456789abcdefghij"
FAST = "backoff=0.005"
Script = Sequence[Step] | Callable[[Request], Step]


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


@pytest.fixture
def made() -> Iterator[Callable[..., OpenAI]]:
    """Makes labelers that are closed at the end."""
    pytest.importorskip("aiohttp", reason="needs the extra openai")
    labelers: list[OpenAI] = []

    def make(server: ScriptedServer, settings: str = "", grades: dict[int, str] | None = None) -> OpenAI:
        argument = f"judge@{server.url}?{FAST}&{settings}".rstrip("&")
        labelers.append(OpenAI(argument, GRADES if grades is None else grades))
        return labelers[-1]

    yield make
    for labeler in labelers:
        labeler.close()


def asked(make: Callable[..., OpenAI], script: Script, settings: str = "", number: int = 1) -> Any:
    """What a labeler gives for some pairs, the server and the labeler."""
    with ScriptedServer(script) as server:
        labeler = make(server, settings)
        return labeler.signal(numbered(number)), server, labeler


def reasons(frame: pl.DataFrame) -> list[str | None]:
    return frame["reason"].to_list()


# -- several answers -----------------------------------------------------------------------------------------

FIVE = "answer=text&temperature=0.7&samples=5"


def test_of_several_answers_the_signal_is_the_share_of_each_grade(made: Callable[..., OpenAI]) -> None:
    said = ["final score: 3", "It is good. final score: 2", "see section 2", "final score: 3", None]
    frame, server, labeler = asked(
        made, [answers(said, usage={"prompt_tokens": 100, "completion_tokens": 60})], FIVE
    )
    (request,) = server.requests
    assert (request.body["n"], request.body["temperature"]) == (5, 0.7)
    assert "logprobs" not in request.body
    assert frame["probs"].to_list()[0] == pytest.approx([0, 0, 1 / 3, 2 / 3])
    usage = labeler.usage()
    assert (usage["samples"], usage["unread"], usage["parsed"]) == (5, 2, 1)
    assert (usage["requests"], usage["tokens_in"], usage["tokens_out"]) == (1, 100, 60)


def script_of_five(takes: Callable[[Request], Step | None]) -> Callable[[Request], Step]:
    grades = iter(["0", "1", "1", "1", "3"] * 20)

    def script(request: Request) -> Step:
        return takes(request) or answers([next(grades) for _ in range(request.body.get("n", 1))])

    return script


def test_a_server_that_does_not_take_n_is_asked_again(made: Callable[..., OpenAI]) -> None:
    def refuses(request: Request) -> Step | None:
        return status(400, message="n must be 1", param="n") if "n" in request.body else None

    frame, server, labeler = asked(made, script_of_five(refuses), FIVE + "&concurrency=1", number=2)
    assert frame["probs"].to_list() == [pytest.approx([0.2, 0.6, 0, 0.2])] * 2
    assert ["n" in r.body for r in server.requests] == [True] + [False] * 10
    assert labeler.usage()["retries"] == 0


def test_a_server_that_looks_over_n_is_asked_again(made: Callable[..., OpenAI]) -> None:
    grades = iter(["0", "1", "1", "1", "3"] * 20)
    frame, server, _ = asked(made, lambda _: answer(next(grades)), FIVE + "&concurrency=1", number=2)
    assert frame["probs"].to_list() == [pytest.approx([0.2, 0.6, 0, 0.2])] * 2
    assert len(server.requests) == 10


def test_without_a_grade_in_any_answer_the_commonest_reason_is_told(made: Callable[..., OpenAI]) -> None:
    said = ["see section 2", None, "see section 3", "", "no grade at all"]
    frame, _, labeler = asked(made, [answers(said)], FIVE)
    assert frame["probs"].to_list() == [None]
    assert reasons(frame) == ["no grade in the answer"]
    assert labeler.usage()["unread"] == 5


def test_a_share_of_fewer_answers_than_were_asked_for_is_none(made: Callable[..., OpenAI]) -> None:
    steps = [answer("1"), answer("1"), status(500)]
    frame, _, _ = asked(made, steps, FIVE + "&tries=2")
    assert frame["probs"].to_list() == [None]
    assert reasons(frame) == ["server error (500)"]


def test_a_refusal_among_several_answers_is_left_out(made: Callable[..., OpenAI]) -> None:
    steps = [answer("2"), refusal(), answer("2"), answer("0"), answer("2")]
    frame, _, _ = asked(made, steps, FIVE)
    assert frame["probs"].to_list()[0] == pytest.approx([0.25, 0, 0.75, 0])


def test_how_often_and_how_warm_is_part_of_the_fingerprint(made: Callable[..., OpenAI]) -> None:
    with ScriptedServer([answer("1")]) as server:
        settings = ["", "samples=1", "temperature=0", "temperature=0.7", FIVE, FIVE.replace("5", "6")]
        settings = ["answer=text&" + s.removeprefix("answer=text&") for s in settings]
        assert len({made(server, s).fingerprint for s in settings}) == 4


@pytest.mark.parametrize("settings", ["samples=3", "samples=3&answer=text", "samples=3&temperature=1"])
def test_several_equal_answers_are_not_asked_for(made: Callable[..., OpenAI], settings: str) -> None:
    with (
        ScriptedServer([answer("1")]) as server,
        pytest.raises(UsageError, match="with answer=text and a temp"),
    ):
        made(server, settings)


def test_examples_are_sent(made: Callable[..., OpenAI]) -> None:
    told = [[{"text": "herons roost here", "grade": 2}]]
    with ScriptedServer([answer("1")]) as server:
        labeler = made(server, "prompt=examples&shots=3")
        assert labeler.examples == 3
        labeler.signal(numbered(1).with_columns(pl.Series("examples", told, dtype=EXAMPLES)))
        assert "herons roost here" in server.requests[0].prompt
        assert "Grade: 2" in server.requests[0].prompt
        assert made(server).examples == 0
        with pytest.raises(UsageError, match="no place for 3 examples"):
            made(server, "shots=3")


# -- signals -------------------------------------------------------------------------------------------------


def test_what_is_sent(made: Callable[..., OpenAI]) -> None:
    _, server, _ = asked(made, [answer("2")])
    (request,) = server.requests
    assert request.path == "/v1/chat/completions"
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.body["model"] == "judge"
    assert request.body["temperature"] == 0
    assert (request.body["logprobs"], request.body["top_logprobs"]) == (True, 20)
    assert "where do herons nest" in request.prompt
    assert "document 0 about herons" in request.prompt


def test_choices_are_sent_where_they_are_asked_for(made: Callable[..., OpenAI]) -> None:
    _, server, labeler = asked(made, [answer("2")], "choices=yes")
    (request,) = server.requests
    assert request.body["structured_outputs"] == {"choice": ["0", "1", "2", "3"]}
    _, server, bare = asked(made, [answer("2")])
    (request,) = server.requests
    assert "structured_outputs" not in request.body
    assert labeler.fingerprint != bare.fingerprint


def test_probabilities_of_the_grades_tokens_are_the_distribution(made: Callable[..., OpenAI]) -> None:
    top = {
        "2": math.log(0.5),
        " 1": math.log(0.2),
        "1": math.log(0.05),
        "The": math.log(0.2),
        "10": math.log(0.01),
    }
    frame, _, labeler = asked(made, [answer("2", top)])
    assert frame["probs"].to_list()[0] == pytest.approx([0, 0.25 / 0.75, 0.5 / 0.75, 0])
    assert frame["score"].to_list() == [None]
    assert labeler.usage()["spread"] == 1


def test_the_distribution_is_that_of_the_token_the_grade_was_read_from(made: Callable[..., OpenAI]) -> None:
    first = answer("\n2\n", {"2": -0.1, "3": -3.0}, tokens=["\n", "2", "\n"])
    frame, _, _ = asked(made, [first])
    p3 = math.exp(-3.0) / (math.exp(-3.0) + math.exp(-0.1))
    assert frame["probs"].to_list()[0] == pytest.approx([0, 0, 1 - p3, p3])


def test_the_mark_that_ends_an_answer_is_no_part_of_it(made: Callable[..., OpenAI]) -> None:
    """vLLM tells of it among the tokens."""
    frame, _, labeler = asked(made, [answer("2", {"2": -0.1, "3": -3.0}, tokens=["2", "<|im_end|>"])])
    p3 = math.exp(-3.0) / (math.exp(-3.0) + math.exp(-0.1))
    assert frame["probs"].to_list()[0] == pytest.approx([0, 0, 1 - p3, p3])
    assert labeler.usage()["spread"] == 1


@pytest.mark.parametrize(
    "step",
    [
        answer("2"),
        answer("2", {"2": -0.1}, tokens=["!", "2"]),  # tokens that are not the text
        answer("Score: 2", {"2": -0.1}, tokens=["Score", ": 2"]),  # no token of its own
        raw(json.dumps({"choices": [{"message": {"content": "2"}, "logprobs": {"content": 7}}]}).encode()),
    ],
)
def test_without_probabilities_the_answer_is_the_grade(made: Callable[..., OpenAI], step: Step) -> None:
    frame, _, labeler = asked(made, [step])
    assert frame["probs"].to_list() == [[0, 0, 1, 0]]
    assert labeler.usage()["parsed"] == 1


def test_a_prompt_with_another_scale_gives_the_expected_grade_as_a_score(made: Callable[..., OpenAI]) -> None:
    with ScriptedServer([answer("2", {"2": math.log(0.5), "1": math.log(0.5)})]) as server:
        frame = made(server, "prompt=basic", {0: "no", 1: "yes"}).signal(numbered(1))
        assert frame["probs"].to_list() == [None]
        assert frame["score"].to_list() == pytest.approx([1.5])


@pytest.mark.parametrize("grades", [{0: "no", 1: "yes"}, {0: "no", 4: "yes"}, GRADES])
def test_yes_or_no_is_a_distribution_over_two_grades_or_a_score(
    made: Callable[..., OpenAI], grades: dict[int, str]
) -> None:
    top = {"Yes": math.log(0.5), " yes": math.log(0.1), "No": math.log(0.2)}
    with ScriptedServer([answer("Yes", top)]) as server:
        frame = made(server, "prompt=yes_no", grades).signal(numbered(1))
    if len(grades) == 2:
        assert frame["probs"].to_list()[0] == pytest.approx([0.25, 0.75])
    else:
        assert frame["score"].to_list() == pytest.approx([0.75])


def test_answers_in_words_are_parsed_to_their_end(made: Callable[..., OpenAI]) -> None:
    said = "Intent: nests.\nM: 3\nT: 1\non the 0 to 3 scale, final score: 1"
    frame, server, _ = asked(made, [answer(said)], "answer=text&max_tokens=300")
    assert frame["probs"].to_list() == [[0, 1, 0, 0]]
    assert server.requests[0].body["max_tokens"] == 300
    assert "logprobs" not in server.requests[0].body


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        (answer(""), "empty answer"),
        (answer(None), "empty answer"),
        (answer("see section 2"), "no grade in the answer"),
        (answer("10"), "a grade off the scale"),
        (answer("1", {"1": -0.01}, finish="length"), "cut-off answer"),
        (answer("I'm sorry, I can't help with that."), "refusal"),
        (refusal(), "refusal"),
        (answer("2", finish="content_filter"), "refusal (content filter)"),
        (status(400, code="content_filter"), "refusal (content filter)"),
        (
            status(400, message="This model's maximum context length is 4096"),
            "longer than the model can read (400)",
        ),
        (status(422, message="no  such\nfield"), "the server refused the request (422): no such field"),
    ],
)
def test_an_answer_without_a_grade_is_null_and_asked_once(
    made: Callable[..., OpenAI], step: Step, reason: str
) -> None:
    frame, server, _ = asked(made, [step])
    assert (frame["probs"].to_list(), frame["score"].to_list(), reasons(frame)) == ([None], [None], [reason])
    assert len(server.requests) == 1


# -- servers that fail ---------------------------------------------------------------------------------------

PASSING = {
    "500": status(500),
    "503": status(503, message="overloaded"),
    "429": status(429),
    "429 with a wait": status(429, {"retry-after": "0.05"}),
    "malformed JSON": raw(b'{"choices": [{"message"'),
    "no JSON": raw(b"<html>"),
    "no choices": raw(b'{"choices": []}'),
    "a list": raw(b"[]"),
    "a body that breaks off": truncated(answer("2")),
    "a status line that breaks off": truncated(answer("2"), 0.01),
    "a closed connection": cut(),
    "a hang": hang(),
    "no HTTP": Step(200, {"content-length": "x"}, b""),
}


@pytest.mark.parametrize("step", PASSING.values(), ids=PASSING)
def test_what_passes_is_tried_again(made: Callable[..., OpenAI], step: Step) -> None:
    frame, server, labeler = asked(made, [step, step, answer("2")], "timeout=1")
    assert reasons(frame) == [None]
    assert len(server.requests) == 3
    assert (labeler.usage()["requests"], labeler.usage()["retries"]) == (3, 2)


@pytest.mark.parametrize("step", PASSING.values(), ids=PASSING)
def test_what_does_not_pass_is_a_reason_and_no_grade(made: Callable[..., OpenAI], step: Step) -> None:
    frame, server, _ = asked(made, [step], "timeout=0.5&tries=2", number=3)
    assert frame["probs"].to_list() == [None] * 3
    (reason,) = set(reasons(frame))
    assert reason in {
        "server error (500)",
        "server error (503)",
        "rate limit (429)",
        "the server's answer cannot be read",
        "the connection broke",
        "no answer within 0.5 s",
    }
    assert len(server.requests) >= 6


def test_a_bad_pair_takes_nothing_from_the_others(made: Callable[..., OpenAI]) -> None:
    def script(request: Request) -> Step:
        return status(500) if "document 3 " in request.prompt else answer("1")

    frame, _, _ = asked(made, script, "tries=3", number=8)
    assert reasons(frame) == [None] * 3 + ["server error (500)"] + [None] * 4
    assert frame["doc_id"].to_list() == [f"d{n}" for n in range(8)]


def test_answers_belong_to_their_pairs_in_whatever_order_they_come(made: Callable[..., OpenAI]) -> None:
    def script(request: Request) -> Step:
        return answer(str(number(request) % 4))._replace(wait=0.002 * (17 - number(request)))

    with ScriptedServer(script) as server:
        frame = made(server, "concurrency=5").signal(numbered(17))
        assert server.most == 5
    assert [p.index(1) for p in frame["probs"].to_list()] == [n % 4 for n in range(17)]


def test_a_server_that_is_not_there(made: Callable[..., OpenAI]) -> None:
    with ScriptedServer([answer("1")]) as server:
        labeler = made(server, "tries=2&concurrency=2")
    frame = labeler.signal(numbered(40))
    told = reasons(frame)
    gave_up = "not asked: the server failed on 20 pairs in a row (no connection to the server)"
    assert set(told) == {"no connection to the server", gave_up}
    assert 20 <= told.count("no connection to the server") <= 22  # two are under way at a time
    assert labeler.usage()["requests"] <= 2 * 22


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        (status(401, message=f"Incorrect API key provided: {KEY}"), "the server refuses the key (401)"),
        (status(403), "the server refuses the key (403)"),
        (
            status(404, code="model_not_found"),
            "the server has no model 'judge', or nothing at this URL (404)",
        ),
        (status(429, type="insufficient_quota"), "the account's quota is used up (429)"),
        (
            status(307, {"location": "http://127.0.0.1:9/"}),
            "the server sends elsewhere (307): give the URL it means",
        ),
    ],
)
def test_what_no_other_pair_could_mend_is_asked_no_more(
    made: Callable[..., OpenAI], step: Step, reason: str
) -> None:
    frame, server, _ = asked(made, [step], "concurrency=2", number=50)
    assert set(reasons(frame)) == {reason}
    assert len(server.requests) <= 2


# -- what a server does not take -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "gone", "instead"),
    [
        (status(400, param="logprobs", message="not supported"), {"logprobs", "top_logprobs"}, {}),
        (status(422, message="unknown field 'top_logprobs'"), {"logprobs", "top_logprobs"}, {}),
        (status(400, message="'temperature' does not support 0"), {"temperature"}, {}),
        (
            status(400, message="Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."),
            {"max_tokens"},
            {"max_completion_tokens": 8},
        ),
    ],
)
def test_a_parameter_that_is_refused_is_left_out_from_then_on(
    made: Callable[..., OpenAI], step: Step, gone: set[str], instead: dict[str, int]
) -> None:
    def script(request: Request) -> Step:
        return step if gone & set(request.body) else answer("3")

    frame, server, _ = asked(made, script, "concurrency=4&tries=1", number=12)
    assert frame["probs"].to_list() == [[0, 0, 0, 1]] * 12
    assert len(server.requests) <= 12 + 4
    assert not gone & set(server.requests[-1].body)
    assert {name: server.requests[-1].body.get(name) for name in instead} == instead


# -- pace ----------------------------------------------------------------------------------------------------


def test_a_pause_that_the_server_asks_for_holds_for_all(made: Callable[..., OpenAI]) -> None:
    times: list[float] = []

    def script(request: Request) -> Step:
        times.append(time.monotonic())
        return status(429, {"Retry-After": "0.4"}) if request.number == 0 else answer("1")

    frame, _, _ = asked(made, script, "concurrency=1", number=3)
    assert reasons(frame) == [None] * 3
    assert times[1] - times[0] >= 0.4


def test_a_longer_wait_than_allowed_is_a_reason(made: Callable[..., OpenAI]) -> None:
    frame, server, _ = asked(made, [status(429, {"retry-after": "3600"})], "wait=10")
    assert reasons(frame) == ["rate limit (429)"]
    assert len(server.requests) == 1


# -- keys ----------------------------------------------------------------------------------------------------


def test_a_key_is_nowhere_to_be_seen(
    made: Callable[..., OpenAI], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    said = [
        f"bad field, Bearer {KEY}",
        f"{KEY[:10]}***{KEY[-4:]} is odd",
        f"with key {KEY}",
        f"api-key={KEY}",
    ]
    steps = [status(400, message=message) for message in said]
    with ScriptedServer(steps) as server:
        labeler = made(server)
        frame = signals(labeler, numbered(4), ledger=Ledger(tmp_path / "ledger"))
    kept = b"".join(p.read_bytes() for p in (tmp_path).rglob("*") if p.is_file())
    seen = f"{reasons(frame)} {labeler.usage()} {vars(labeler)} {caplog.text} {label_id(labeler)}"
    assert KEY[:10] not in seen
    assert KEY[-6:] not in seen
    assert KEY[:10].encode() not in kept
    assert all("the server refused the request (400)" in str(r) for r in reasons(frame))


def test_no_key_is_sent_where_there_is_none(
    made: Callable[..., OpenAI], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    _, server, _ = asked(made, [answer("1")])
    assert "authorization" not in server.requests[0].headers


def test_the_key_may_stand_in_another_variable(
    made: Callable[..., OpenAI], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", "other")
    _, server, _ = asked(made, [answer("1")], "key=MY_KEY")
    assert server.requests[0].headers["authorization"] == "Bearer other"


def test_the_vendors_own_server_is_not_asked_without_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", " ")
    with pytest.raises(UsageError, match="no key in the environment variable OPENAI_API_KEY"):
        OpenAI("some-model", GRADES).signal(numbered(1))


def test_what_cannot_be_a_key_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret\nsecret")
    with pytest.raises(UsageError, match="OPENAI_API_KEY") as error:
        OpenAI("some-model", GRADES).signal(numbered(1))
    assert "secret" not in str(error.value)


def test_without_the_extra_its_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "aiohttp", None)
    labeler = OpenAI("some-model", GRADES)
    with pytest.raises(MissingExtra, match=r"pip install 'stopgap\[openai\]'"):
        labeler.signal(numbered(1))
    labeler.close()


# -- the fingerprint -----------------------------------------------------------------------------------------


def made_with(argument: str, grades: dict[int, str] | None = None) -> str:
    return OpenAI(argument, grades or GRADES).fingerprint


def test_all_that_decides_a_signal_is_in_the_fingerprint(tmp_path: Path) -> None:
    own = tmp_path / "own.txt"
    own.write_text((Path(openai_settings.__file__).parent / "prompts" / "basic.txt").read_text() + " ")
    url = "@http://127.0.0.1:1/v1"
    different = [
        f"a{url}", f"b{url}", "a@http://127.0.0.1:2/v1", f"a{url}?prompt=basic", f"a{url}?prompt=wording",
        f"a{url}?answer=text", f"a{url}?answer=text&max_tokens=9", f"a{url}?max_tokens=9",
        f"a{url}?characters=99", f"a{url}?weights=x", f"a{url}?choices=yes",
    ]  # fmt: skip
    assert len({made_with(argument) for argument in different}) == len(different)
    assert made_with(f"a{url}", {0: "no", 1: "yes"}) != made_with(f"a{url}")
    alike = ["concurrency=3", "rpm=5&tpm=7", "timeout=9&tries=1&backoff=1&wait=3", "key=OTHER", "tokens=5"]
    assert {made_with(f"a{url}?{more}") for more in alike} == {made_with(f"a{url}")}
    assert made_with(f"a{url}?weights=x") == made_with("a@http://127.0.0.1:2/v1?weights=x")


def test_a_changed_prompt_is_another_label(tmp_path: Path) -> None:
    text = (Path(openai_settings.__file__).parent / "prompts" / "basic.txt").read_text()
    ids = []
    for body in (text, text.replace("How useful", "How very useful")):
        (tmp_path / "own.txt").write_text(body)
        ids.append(label_id(OpenAI(f"org/my model?prompt={tmp_path}/own.txt", GRADES)))
    assert ids[0] != ids[1]
    assert all(i.startswith("my-model@") for i in ids)


# -- settings ------------------------------------------------------------------------------------------------


def test_how_a_spec_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = openai_settings.read_settings
    assert read("gpt").url == "https://api.openai.com/v1"
    local = read("llama3.2:3b@http://localhost:11434/v1/?prompt=yes_no&concurrency=4&timeout=2.5")
    assert (local.model, local.url) == ("llama3.2:3b", "http://localhost:11434/v1")
    assert (local.prompt, local.concurrency, local.timeout) == ("yes_no", 4, 2.5)
    assert read("publisher/model@1.0").model == "publisher/model@1.0"
    file = tmp_path / "judge.toml"
    file.write_text('model = "m"\nurl = "http://localhost:1/v1"\nrpm = 60\ntimeout = 3\nprompt = "basic"\n')
    filed = read(str(file))
    assert (filed.model, filed.url, filed.rpm, filed.timeout) == ("m", "http://localhost:1/v1", 60, 3.0)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://localhost:5/v1/")
    assert read("gpt").url == "http://localhost:5/v1"
    assert read("gpt@http://localhost:6/v1").url == "http://localhost:6/v1"


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        (None, "no model"),
        ("", "no model"),
        ("@http://localhost/v1", "no model"),
        ("m?prompts=basic", "Did you mean 'prompt'"),
        ("m?answer=tokens", "Did you mean 'token'"),
        ("m?choices=maybe", "unknown value of setting choices"),
        ("m?choices=yes&answer=text", "leaves no room for a text"),
        ("m?concurrency=0", "not a number from 1 on"),
        ("m?concurrency=4.5", "is no whole number"),
        ("m?timeout=0", "leaves no time"),
        ("m?timeout=nan", "not a number from 0 on"),
        ("m?rpm=-1", "not a number from 0 on"),
        ("m?rpm=1&rpm=2", "given twice"),
        ("m?model=x", "stand before"),
        ("m@http://u:p4ss@localhost/v1", "keys belong in the environment"),
        ("m@http://localhost:port/v1", "is no server's URL"),
        ("m@http:///v1", "is no server's URL"),
        ("m?prompt=nothing", "unknown prompt"),
    ],
)
def test_a_spec_that_cannot_be_meant(argument: str | None, said: str) -> None:
    with pytest.raises(UsageError, match=said) as error:
        OpenAI(argument, GRADES)
    assert "p4ss" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("model = \n", InputError, "judge.toml:1: not TOML"),
        ("x = " + "[" * 100_000, InputError, "judge.toml: not TOML"),
        ('model = "m"\nrpm = "x"', UsageError, "no whole number"),
        ('model = "m"\nrpm = true', UsageError, "no whole number"),
        ("model = 3", UsageError, "no text"),
        ('model = "m"\napi_key = "sk-1"', UnknownName, "unknown setting 'api_key'"),
    ],
)
def test_a_file_of_settings_that_cannot_be_meant(
    tmp_path: Path, text: str, error: type[Exception], said: str
) -> None:
    (tmp_path / "judge.toml").write_text(text)
    with pytest.raises(error, match=said):
        OpenAI(str(tmp_path / "judge.toml"), GRADES)
    with pytest.raises(InputError, match="no such file"):
        OpenAI(str(tmp_path / "none.toml"), GRADES)


# -- accounts ------------------------------------------------------------------------------------------------


def test_tokens_and_money(made: Callable[..., OpenAI], tmp_path: Path) -> None:
    table = tmp_path / "prices.toml"
    table.write_text('currency = "EUR"\n[models.judge]\ninput = 2.0\noutput = 8\ncached_input = 0.5\n')
    told = {"prompt_tokens": 1000, "completion_tokens": 10, "prompt_tokens_details": {"cached_tokens": 400}}
    _, _, labeler = asked(made, [answer("1", usage=told)], f"prices={table}", number=5)
    usage = labeler.usage()
    assert (usage["tokens_in"], usage["tokens_cached"], usage["tokens_out"]) == (5000, 2000, 50)
    assert usage["cost"] == pytest.approx((3000 * 2 + 2000 * 0.5 + 50 * 8) / 1e6)
    assert usage["currency"] == "EUR"


@pytest.mark.parametrize(
    "told", [{}, {"prompt_tokens": "x"}, {"prompt_tokens": -3, "prompt_tokens_details": 4}]
)
def test_odd_counts_of_tokens_are_none(made: Callable[..., OpenAI], told: dict[str, Any]) -> None:
    frame, _, labeler = asked(made, [answer("1", usage=told)])
    assert reasons(frame) == [None]
    assert labeler.usage()["tokens_in"] == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[models.other]\ninput = 1\noutput = 1", "unknown model in"),
        ("input = 1", "has no table"),
        ("[models.judge]\ninput = 1", "output of 'judge' is None"),
        ("[models.judge]\ninput = -1\noutput = 1", "input of 'judge' is -1"),
        ("[models.judge]\ninput = 1\noutput = 1\nper = 1000", "'per' of 'judge'"),
        ("[models\n", "prices.toml:1: not TOML"),
    ],
)
def test_a_table_of_prices_that_cannot_be_used(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "prices.toml").write_text(text)
    with pytest.raises((UnknownName, InputError), match=said):
        OpenAI(f"judge?prices={tmp_path}/prices.toml", GRADES)


# -- the thread ----------------------------------------------------------------------------------------------


def test_it_works_where_an_event_loop_runs_already(made: Callable[..., OpenAI]) -> None:
    with ScriptedServer([answer("1")]) as server:
        labeler = made(server)

        async def notebook() -> pl.DataFrame:
            return labeler.signal(numbered(2))

        assert reasons(asyncio.run(notebook())) == [None, None]


def test_after_closing_it_works_again_and_a_forgotten_one_ends_its_thread(
    made: Callable[..., OpenAI],
) -> None:
    with ScriptedServer([answer("1")]) as server:
        labeler = made(server)
        for _ in range(2):
            assert reasons(labeler.signal(numbered(1))) == [None]
            labeler.close()
        forgotten = OpenAI(f"judge@{server.url}", GRADES)
        forgotten.signal(numbered(1))
        assert any(t.name == "stopgap-requests" for t in threading.enumerate())
        del forgotten
        assert not any(t.name == "stopgap-requests" for t in threading.enumerate())


@pytest.fixture
def interruptible() -> Iterator[None]:
    """As at a terminal: what a shell starts in the background is told to ignore interrupts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_ends_the_waiting_and_what_was_under_way(made: Callable[..., OpenAI]) -> None:
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))

    def script(request: Request) -> Step:
        if request.number == 3:
            timer.start()
        return hang(600) if request.number < 4 else answer("1")

    with ScriptedServer(script) as server:
        labeler = made(server, "concurrency=4")
        with pytest.raises(KeyboardInterrupt):  # and not after the ten minutes that the server takes
            labeler.signal(numbered(20))
        timer.join()
        time.sleep(0.1)
        assert len(server.requests) == 4
        assert reasons(labeler.signal(numbered(2))) == [None, None]


# -- the whole way -------------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A collection of two topics, a run, and judgments of half its documents."""
    monkeypatch.chdir(tmp_path)
    write_files(numbered_text)


def number(request: Request) -> int:
    return int(request.prompt.rpartition("document ")[2].split()[0])


def filled(capsys: pytest.CaptureFixture[str], server: ScriptedServer, *more: str) -> tuple[int, str]:
    return fill(f"openai:judge@{server.url}?{FAST}&tries=2", capsys, *more)[:2]


@pytest.mark.usefixtures("files")
def test_fill_leaves_holes_with_exit_4_and_then_asks_only_for_those(
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("aiohttp", reason="needs the extra openai")
    bad = {7: status(500), 8: answer("see section 2"), 9: refusal(), 10: cut()}

    def failing(request: Request) -> Step:
        return bad.get(number(request), answer(str(number(request) % 4)))

    with ScriptedServer(failing) as server:
        first_url = server.url
        code, out = filled(capsys, server, "--json")
        summary = json.loads(out)
    assert code == 4
    assert summary["unlabeled"] == {
        "server error (500)": 2, "no grade in the answer": 2, "refusal": 2, "the connection broke": 2,
    }  # fmt: skip
    (account,) = summary["accounts"]
    assert (account["pairs"], account["asked"], account["cache_hits"]) == (24, 24, 0)
    assert account["failures"] == summary["unlabeled"]
    assert (account["requests"], account["retries"]) == (28, 4)
    assert (account["tokens_in"], account["tokens_out"]) == (2000, 20)  # failed requests tell of none
    assert account["pairs_per_second"] > 0
    labeled = Path("filled.qrels").read_text().splitlines()
    assert len(labeled) == 24 - 8
    assert not [line for line in labeled if line.split()[2] in ("d7", "d8", "d9", "d10")]

    def mended(request: Request) -> Step:
        return answer(str(number(request) % 4))

    with ScriptedServer(mended) as other:
        moved = f"openai:judge@{first_url}"  # the key of the ledger has the URL: what was asked stays known
        assert label_id(load(moved, GRADES)) == account["labeler"]
        assert label_id(load(f"openai:judge@{other.url}", GRADES)) != account["labeler"]


@pytest.mark.usefixtures("files")
def test_running_again_asks_only_for_what_failed(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("aiohttp", reason="needs the extra openai")
    down = {7, 9}

    def script(request: Request) -> Step:
        return status(500) if number(request) in down else answer(str(number(request) % 4))

    with ScriptedServer(script) as server:
        assert filled(capsys, server)[0] == 4
        down.clear()
        before = len(server.requests)
        code, out = filled(capsys, server)
        assert code == 0
        assert sorted(map(number, server.requests[before:])) == [7, 7, 9, 9]
        assert "From the ledger: 20." in out
        assert "4 requests, 400 tokens in, 4 out" in out
        asked = len(server.requests)
        assert filled(capsys, server)[0] == 0
        assert len(server.requests) == asked
    accounts = [json.loads(line) for line in Path("filled.qrels.accounts.jsonl").read_text().splitlines()]
    assert [a["requests"] for a in accounts] == [28, 4]
    assert sum(a["tokens_in"] for a in accounts) == 2400


@pytest.mark.parametrize("step", [status(404, code="model_not_found"), cut()])
@pytest.mark.usefixtures("files")
def test_with_no_answer_at_all_every_hole_stays_one(capsys: pytest.CaptureFixture[str], step: Step) -> None:
    pytest.importorskip("aiohttp", reason="needs the extra openai")
    with ScriptedServer([step]) as server:
        code, out = filled(capsys, server)
        assert code == 4
        assert "Labeled: 0. Without a label: 12" in out
        assert len(Path("filled.qrels").read_text().splitlines()) == 2 * 6
        code, _ = filled(capsys, server, "--mode", "pool")
        assert code == 2


@pytest.mark.usefixtures("files")
def test_bad_settings_end_with_exit_2(capsys: pytest.CaptureFixture[str]) -> None:
    with ScriptedServer([answer("1")]) as server:
        server.url += "?rpms=3&x"
        assert filled(capsys, server)[0] == 2


def test_it_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["labelers", "--json"]) == 0
    (line,) = (e for e in json.loads(capsys.readouterr().out)["labelers"] if e["name"] == "openai")
    assert line["needs"] == "openai"


def test_the_card_names_the_model() -> None:
    from harness.circularity import labeler_cards

    labeler = OpenAI("org/judge-7b@http://127.0.0.1:9/v1", {0: "no", 1: "yes"})
    assert labeler.card == {"base model": ["org/judge-7b"]}
    (card,) = labeler_cards(labeler)
    assert card.facts["base model"] == ("org/judge-7b",)
