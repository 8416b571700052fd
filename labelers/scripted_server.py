"""A server that speaks the OpenAI protocol and does what a script says: a double for tests, on loopback.

    with ScriptedServer([status(429, {"retry-after": "1"}), answer("2")]) as server:
        ...                       # openai:any-model@{server.url}
        server.requests           # what it was asked

The first request gets the first step, the second the second, and all that follow the last one again; or a
function of the request says what happens. Among the steps are all the ways in which real servers fail.
"""

from __future__ import annotations

import asyncio
import json
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

__all__ = [
    "Request", "ScriptedServer", "Step", "answer", "answers", "cut", "hang", "raw", "refusal", "status",
    "truncated",
]  # fmt: skip


class Request(NamedTuple):
    """A request as it came in: `number` counts from 0, `headers` have names in small letters, `body` is {}
    where `raw` holds no JSON object."""

    number: int
    path: str
    headers: dict[str, str]
    body: dict[str, Any]
    method: str = "POST"
    raw: bytes = b""

    @property
    def prompt(self) -> str:
        """The text of the last message."""
        return str(self.body["messages"][-1]["content"])


class Step(NamedTuple):
    """What happens to a request: `wait` seconds, then a response; `sent` bytes of it only, if not None; then
    the connection is closed if `close`."""

    code: int
    headers: Mapping[str, str]
    body: bytes
    wait: float = 0.0
    sent: int | None = None
    close: bool = False


def answer(
    text: str | None,
    logprobs: Mapping[str, float] | None = None,
    *,
    finish: str = "stop",
    tokens: Sequence[str] | None = None,
    message: Mapping[str, Any] | None = None,
    usage: Mapping[str, Any] | None = None,
) -> Step:
    """A chat completion.

    Parameters
    ----------
    logprobs: log-probabilities of tokens in the place of the first token; None: none are told.
    tokens: what the text consists of; by default it is one token. message: more in the message.
    """
    choice: dict[str, Any] = {
        "index": 0,
        "finish_reason": finish,
        "message": {"role": "assistant", "content": text, **(message or {})},
        "logprobs": None,
    }
    if logprobs is not None:
        pieces = [text or ""] if tokens is None else list(tokens)
        choice["logprobs"] = {"content": [_token(piece, logprobs) for piece in pieces]}
    told = {"prompt_tokens": 100, "completion_tokens": 1, "total_tokens": 101} if usage is None else usage
    return _completion([choice], told)


def answers(texts: Sequence[str | None], *, usage: Mapping[str, Any] | None = None) -> Step:
    """A chat completion with several choices, as a request with `n` asks for; None: one without content."""
    told = {"prompt_tokens": 100, "completion_tokens": len(texts)} if usage is None else usage
    choices = [
        {"index": place, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
        for place, text in enumerate(texts)
    ]
    return _completion(choices, told)


def _completion(choices: Sequence[Mapping[str, Any]], told: Mapping[str, Any]) -> Step:
    whole = {"id": "scripted", "object": "chat.completion", "created": 0, "model": "scripted"}
    return raw(json.dumps({**whole, "choices": choices, "usage": told}).encode())


def _token(piece: str, logprobs: Mapping[str, float]) -> dict[str, Any]:
    top = [{"token": t, "logprob": p, "bytes": None} for t, p in logprobs.items()]
    return {"token": piece, "logprob": logprobs.get(piece, -math.log(2)), "bytes": None, "top_logprobs": top}


def refusal(text: str = "I can't help with that.") -> Step:
    """A model that declines, in the protocol's own field."""
    return answer(None, message={"refusal": text})


def status(
    number: int, headers: Mapping[str, str] | None = None, /, *, message: str = "", **error: str | None
) -> Step:
    """An error, with `message` and what else its object has (`code`, `param`, `type`)."""
    body = json.dumps({"error": {"message": message, **error}}).encode()
    return raw(body, number)._replace(headers={"content-type": "application/json", **(headers or {})})


def raw(body: bytes, code: int = 200) -> Step:
    """Any body, malformed ones too."""
    return Step(code, {"content-type": "application/json"}, body)


def hang(seconds: float = 3600.0) -> Step:
    """Nothing for so long."""
    return answer("0")._replace(wait=seconds)


def cut() -> Step:
    """The connection closed without a word."""
    return answer("0")._replace(sent=0, close=True)


def truncated(step: Step, part: float = 0.5) -> Step:
    """A response that ends before its end."""
    return step._replace(sent=int(len(_bytes(step)) * part), close=True)


class ScriptedServer:
    """A server on 127.0.0.1, in a thread, from entering the context to leaving it.

    Parameters
    ----------
    script: steps, or a function of the request. latency: seconds that every request takes besides.

    Attributes
    ----------
    url: where it is, up to `/v1`. requests: all it was asked, in order. most: of requests at a time.
    """

    def __init__(self, script: Sequence[Step] | Callable[[Request], Step], *, latency: float = 0.0) -> None:
        self._step = script if callable(script) else lambda r: script[min(r.number, len(script) - 1)]
        self.latency = latency
        self.url, self.requests, self.most, self._now = "", list[Request](), 0, 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="scripted-server", daemon=True)
        self._ready = threading.Event()
        self._done: asyncio.Event

    def __enter__(self) -> ScriptedServer:
        self._thread.start()
        self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._done.set)
        self._thread.join(10)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        self._done = asyncio.Event()
        server = await asyncio.start_server(self._connection, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        self._ready.set()
        await self._done.wait()
        server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._one(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the other side has gone, or the server ends
        finally:
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request and its response; whether the connection stays open."""
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").strip().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        method, path, *_ = first.split()
        told = json.loads(body) if body.startswith(b"{") else {}
        request = Request(len(self.requests), path, headers, told, method, body)
        self.requests.append(request)
        self._now += 1
        self.most = max(self.most, self._now)
        try:
            step = self._step(request)
            await asyncio.sleep(self.latency + step.wait)
        finally:
            self._now -= 1
        writer.write(_bytes(step)[: step.sent])
        await writer.drain()
        return not step.close


def _bytes(step: Step) -> bytes:
    headers = {**step.headers, "content-length": str(len(step.body))}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {step.code} Scripted\r\n{lines}\r\n".encode("latin-1") + step.body
