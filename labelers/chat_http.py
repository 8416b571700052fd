"""Chat completions over HTTP, as the OpenAI protocol has them: many at a time, tried again, within limits.

Whatever a server does, `Server.ask` gives one `Told` for each prompt: an answer, or a reason. Reasons are few
and hold nothing of a key. This is the only module that imports aiohttp: per request it takes about an eighth
of the processor time that OpenAI's own client takes, which on a small machine is what limits how many answers
a second come in.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from harness.errors import MissingExtra
from labelers.chat_answers import Failure, Told, json_object, told_in
from labelers.limits import Gate, Window, backoff, retry_after
from labelers.openai_settings import Settings
from labelers.usage import Usage

if TYPE_CHECKING:
    import aiohttp

__all__ = ["Server"]

_T = TypeVar("_T")
_TOP_LOGPROBS = 20
"""How many of the likeliest tokens are asked for: the most that servers give."""
_DEAD = 20  # pairs in a row (or twice the concurrency) that a server fails on before the others are let be
_OPTIONAL = ("top_logprobs", "logprobs", "max_tokens", "temperature", "n")
_MODEL_LENGTH = re.compile(r"context.{0,12}length|maximum context|too many tokens|context window", re.I)


class Server:
    """One model at one server.

    Parameters
    ----------
    settings: how it is asked. key: sent as a bearer token; "" sends none. usage: where requests and tokens
        are counted.
    logprobs: ask for the probabilities of tokens. more: what else every request says.
    """

    def __init__(
        self,
        settings: Settings,
        key: str,
        usage: Usage,
        *,
        logprobs: bool,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        self._settings, self._key, self.usage = settings, key, usage
        self._gate, self._requests, self._tokens = Gate(), Window(settings.rpm), Window(settings.tpm)
        self._session: aiohttp.ClientSession | None = None
        self._failed = 0  # pairs in a row
        self._stop: str | None = None  # why no other prompt is sent
        # What is sent beside model and messages. A server that refuses one of them is asked without it.
        self._body: dict[str, Any] = {"max_tokens": settings.longest, "temperature": settings.temperature}
        if settings.samples > 1:
            self._body["n"] = settings.samples
        self._body |= more or {}
        if logprobs:
            self._body |= {"logprobs": True, "top_logprobs": _TOP_LOGPROBS}

    async def ask(self, prompts: Sequence[str], read: Callable[[Sequence[Told]], _T]) -> list[_T]:
        """What `read` makes of what the server tells for each prompt, in their order.

        It is given as many answers as are wanted, or one that failed. An answer is read when it comes, while
        others are still waited for.

        Raises
        ------
        MissingExtra: aiohttp is not installed.
        """
        return await self.ask_each(prompts, lambda _, told: read(told))

    async def ask_each(self, prompts: Sequence[str], read: Callable[[int, Sequence[Told]], _T]) -> list[_T]:
        """`ask`, with a `read` that is also given the number of the prompt."""
        made: dict[int, _T] = {}
        queue = iter(enumerate(prompts))
        self._open()

        async def worker() -> None:
            for number, prompt in queue:
                made[number] = read(number, await self._samples(prompt))

        async with asyncio.TaskGroup() as group:
            for _ in range(min(self._settings.concurrency, len(prompts))):
                group.create_task(worker())
        return [made[number] for number in range(len(prompts))]

    # -- for batches -----------------------------------------------------------------------------------------

    @property
    def parameters(self) -> dict[str, Any]:
        """What is sent beside model and messages, without what the server has been found not to take."""
        return dict(self._body)

    def request(self, prompt: str, sent: dict[str, Any]) -> dict[str, Any]:
        """The body of a request with these parameters."""
        return {"model": self._settings.model, "messages": [{"role": "user", "content": prompt}], **sent}

    def read(self, status: int, body: Any) -> list[Told]:
        """What the response to such a request tells, its tokens counted. Raises Failure."""
        found = body if isinstance(body, dict) else {}
        if status != 200:
            raise self._refused(status, {}, found)
        self.usage.count(found.get("usage"))
        return told_in(found)

    def without(self, refused: Iterable[str]) -> None:
        """Leave these parameters out from now on."""
        for name in refused:
            if name in self._body:  # else another request has found out meanwhile
                value = self._body.pop(name)
                if name == "max_tokens":
                    self._body["max_completion_tokens"] = value
                if "logprobs" in name:
                    self._body.pop("logprobs", None)
                    self._body.pop("top_logprobs", None)

    async def call(
        self, method: str, path: str, data: bytes | None = None, kind: str = "", *, tries: int | None = None
    ) -> dict[str, Any]:
        """The JSON object that the server has at `path`, behind the URL; tried again as prompts are.

        Raises
        ------
        MissingExtra: aiohttp is not installed. Failure: with the status of the last response, if any.
        """
        return json_object(await self.download(path, method, data, kind, tries=tries))

    async def download(
        self,
        path: str,
        method: str = "GET",
        data: bytes | None = None,
        kind: str = "",
        *,
        tries: int | None = None,
    ) -> bytes:
        """The same as bytes."""
        self._open()
        # A file takes its time.
        seconds = max(self._settings.timeout, 600.0 if path.startswith("/files") else 0.0)
        for attempt in range(1, (tries or self._settings.tries) + 1):
            try:
                await self._gate.through()
                status, waits, raw = await self._exchange(method, path, data, kind, seconds)
                if 200 <= status < 300:
                    return raw
                failure = self._refused(status, waits, json_object(raw))
            except Failure as exc:
                failure = exc
            if not failure.again or (failure.wait or 0) > self._settings.wait:
                break
            if attempt < (tries or self._settings.tries):
                await asyncio.sleep(max(failure.wait or 0, backoff(self._settings.backoff, attempt)))
        raise failure

    # -- one request -----------------------------------------------------------------------------------------

    def _open(self) -> aiohttp.ClientSession:
        try:
            import aiohttp
        except ModuleNotFoundError as exc:
            raise MissingExtra("aiohttp", "openai") from exc
        if self._session is None:
            host = urlsplit(self._settings.url).hostname
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self._settings.concurrency),
                headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
                # Proxies of the environment, but not for this very machine.
                trust_env=host not in ("localhost", "127.0.0.1", "::1"),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session

    async def close(self) -> None:
        """Close the connections that are kept open between calls."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _samples(self, prompt: str) -> list[Told]:
        """As many answers as are wanted: of one request, or of several where the server gives fewer."""
        told: list[Told] = []
        wanted = self._settings.samples
        while len(told) < wanted:
            more = await self._one(prompt, wanted - len(told))
            if more[0].failed:
                return more  # a share of fewer answers than were wanted would be another signal
            told += more
        return told[:wanted]

    async def _one(self, prompt: str, wanted: int) -> list[Told]:
        """One prompt, tried until it is answered, cannot be, or has been tried often enough."""
        tries = 0
        while self._stop is None:
            sent = dict(self._body)
            if "n" in sent:
                sent["n"] = wanted
            try:
                told = await self._try(prompt, sent, tries > 0)
            except Failure as failure:
                if failure.refused in sent:
                    self.without([str(failure.refused)])
                    continue  # the server was asked for something it does not have: no failed try
                tries += 1
                if failure.fatal:
                    self._stop = failure.reason
                if not failure.again:
                    self._failed = 0
                    return [Told(None, failure.reason, failed=True)]
                if tries >= self._settings.tries:
                    return self._given_up(failure)
                if failure.wait is not None and failure.wait > self._settings.wait:
                    return self._given_up(failure)
                if failure.wait is not None:
                    self._gate.shut(failure.wait)
                await asyncio.sleep(backoff(self._settings.backoff, tries))
            else:
                self._failed = 0
                if len(told) < sent.get("n", 1):
                    self._body.pop("n", None)  # a server that knows no such thing gives one answer
                return told
        return [Told(None, self._stop, failed=True)]

    def _given_up(self, failure: Failure) -> list[Told]:
        self._failed += 1
        if self._failed >= max(_DEAD, 2 * self._settings.concurrency):
            self._stop = f"not asked: the server failed on {self._failed} pairs in a row ({failure.reason})"
        return [Told(None, failure.reason, failed=True)]

    async def _try(self, prompt: str, sent: dict[str, Any], again: bool) -> list[Told]:
        settings = self._settings
        await self._requests.take(1)
        entry = await self._tokens.take(len(prompt) / 4 + settings.longest * sent.get("n", 1))
        await self._gate.through()
        self.usage.requests += 1
        self.usage.retries += again
        body = json.dumps(self.request(prompt, sent)).encode()
        status, waits, raw = await self._exchange("POST", "/chat/completions", body, "", settings.timeout)
        found = json_object(raw)
        if status != 200:
            raise self._refused(status, waits, found)
        if (tokens := self.usage.count(found.get("usage"))) > 0:
            entry.amount = tokens
        return told_in(found)

    async def _exchange(
        self, method: str, path: str, data: bytes | None, kind: str, seconds: float
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, what the server asks to wait, and body of a response."""
        import aiohttp

        try:
            async with self._open().request(
                method,
                f"{self._settings.url}{path}",
                data=data,
                headers={"Content-Type": kind or "application/json"},
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=seconds),
            ) as response:
                waits = {
                    n: response.headers[n] for n in ("retry-after-ms", "retry-after") if n in response.headers
                }
                return response.status, waits, await response.read()
        except TimeoutError:
            raise Failure(f"no answer within {seconds:g} s", again=True) from None
        except aiohttp.InvalidURL:
            raise Failure("the server's URL cannot be used", fatal=True) from None
        except (aiohttp.ClientSSLError, aiohttp.ServerFingerprintMismatch):
            raise Failure("no secure connection to the server", fatal=True) from None
        except aiohttp.ClientConnectorError:
            raise Failure("no connection to the server", again=True) from None
        except (aiohttp.ClientError, OSError):
            raise Failure("the connection broke", again=True) from None

    def _refused(self, status: int, waits: dict[str, str], found: dict[str, Any]) -> Failure:
        """What an answer with another status than 200 comes to."""
        failure = self._failure(status, waits, found)
        failure.status = status
        return failure

    def _failure(self, status: int, waits: dict[str, str], found: dict[str, Any]) -> Failure:
        error = found.get("error")
        error = error if isinstance(error, dict) else {"message": error or found.get("message")}
        message, code = str(error.get("message") or ""), str(error.get("code") or "")
        if status == 429 and "insufficient_quota" in (code, error.get("type")):
            return Failure("the account's quota is used up (429)", fatal=True)
        if status == 429:
            return Failure("rate limit (429)", again=True, wait=retry_after(waits))
        if status in (408, 409, 425) or status >= 500:
            return Failure(f"server error ({status})", again=True, wait=retry_after(waits))
        if status in (401, 403):
            return Failure(f"the server refuses the key ({status})", fatal=True)
        if status == 404:
            what = f"the server has no model {self._settings.model!r}, or nothing at this URL (404)"
            return Failure(what, fatal=True)
        if 300 <= status < 400:
            return Failure(f"the server sends elsewhere ({status}): give the URL it means", fatal=True)
        if code == "context_length_exceeded" or _MODEL_LENGTH.search(message):
            return Failure(f"longer than the model can read ({status})")
        if code == "content_filter":
            return Failure("refusal (content filter)")
        about = f"{error.get('param') or ''} {message}"
        named = (n for n in _OPTIONAL if re.search(rf"(?<!\w){n}(?!\w)", about))
        said = f"the server refused the request ({status}): {self.shown(message)}"
        return Failure(said.rstrip(": "), refused=next(named, None))

    def shown(self, message: str) -> str:
        """The beginning of what a server says, without anything that could be of a key."""
        message = " ".join(message.split())
        if self._key:
            message = message.replace(self._key, "…")
            stem = self._key[:8]
            message = re.sub(rf"{re.escape(stem)}\S*", "…", message) if len(stem) == 8 else message
        return re.sub(r"(?i)\b(?:sk|key|bearer)[-_ :=]\S+", "…", message)[:120]
