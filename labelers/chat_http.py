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
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

from harness.errors import MissingExtra
from labelers.limits import Gate, Window, backoff, retry_after
from labelers.openai_settings import Settings
from labelers.usage import Usage

if TYPE_CHECKING:
    import aiohttp

__all__ = ["Server", "Token", "Told"]

_T = TypeVar("_T")
TOP_LOGPROBS = 20
"""How many of the likeliest tokens are asked for: the most that servers give."""
_DEAD = 20  # pairs in a row (or twice the concurrency) that a server fails on before the others are let be
_OPTIONAL = ("top_logprobs", "logprobs", "max_tokens", "temperature")
_MODEL_LENGTH = re.compile(r"context.{0,12}length|maximum context|too many tokens|context window", re.I)


class Token(NamedTuple):
    """A token of an answer, and the log-probabilities of the likeliest in its place."""

    text: str
    top: dict[str, float]


class Told(NamedTuple):
    """What a server told for one prompt: `text`, or `reason` why there is none.

    `cut`: the answer stopped at its token limit. `tokens`: of the answer, where the server gives their
    log-probabilities.
    """

    text: str | None
    reason: str | None
    cut: bool = False
    tokens: Sequence[Token] = ()


class _Failure(Exception):
    """A try that failed.

    `again`: another may succeed, after `wait` seconds if the server says so. `fatal`: no other prompt can
    succeed either. `refused`: what was sent that the server does not take.
    """

    def __init__(
        self,
        reason: str,
        *,
        again: bool = False,
        wait: float | None = None,
        fatal: bool = False,
        refused: str | None = None,
    ) -> None:
        super().__init__(reason)
        self.reason, self.again, self.wait, self.fatal, self.refused = reason, again, wait, fatal, refused


class Server:
    """One model at one server.

    Parameters
    ----------
    settings: how it is asked. key: sent as a bearer token; "" sends none. usage: where requests and tokens
        are counted.
    logprobs: ask for the probabilities of tokens.
    """

    def __init__(self, settings: Settings, key: str, usage: Usage, *, logprobs: bool) -> None:
        self._settings, self._key, self.usage = settings, key, usage
        self._gate, self._requests, self._tokens = Gate(), Window(settings.rpm), Window(settings.tpm)
        self._session: aiohttp.ClientSession | None = None
        self._failed = 0  # pairs in a row
        self._stop: str | None = None  # why no other prompt is sent
        # What is sent beside model and messages. A server that refuses one of them is asked without it.
        self._body: dict[str, Any] = {"max_tokens": settings.longest, "temperature": 0}
        if logprobs:
            self._body |= {"logprobs": True, "top_logprobs": TOP_LOGPROBS}

    async def ask(self, prompts: Sequence[str], read: Callable[[Told], _T]) -> list[_T]:
        """What `read` makes of what the server tells for each prompt, in their order.

        An answer is read when it comes, while others are still waited for.

        Raises
        ------
        MissingExtra: aiohttp is not installed.
        """
        try:
            import aiohttp
        except ModuleNotFoundError as exc:
            raise MissingExtra("aiohttp", "openai") from exc
        made: dict[int, _T] = {}
        queue = iter(enumerate(prompts))
        if self._session is None:
            host = urlsplit(self._settings.url).hostname
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self._settings.concurrency),
                timeout=aiohttp.ClientTimeout(total=self._settings.timeout),
                headers={"Authorization": f"Bearer {self._key}"} if self._key else {},
                # Proxies of the environment, but not for this very machine.
                trust_env=host not in ("localhost", "127.0.0.1", "::1"),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        session = self._session

        async def worker() -> None:
            for number, prompt in queue:
                made[number] = read(await self._one(session, prompt))

        async with asyncio.TaskGroup() as group:
            for _ in range(min(self._settings.concurrency, len(prompts))):
                group.create_task(worker())
        return [made[number] for number in range(len(prompts))]

    async def close(self) -> None:
        """Close the connections that are kept open between calls."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _one(self, session: aiohttp.ClientSession, prompt: str) -> Told:
        """One prompt, tried until it is answered, cannot be, or has been tried often enough."""
        tries = 0
        while self._stop is None:
            sent = dict(self._body)
            try:
                told = await self._try(session, prompt, sent, tries > 0)
            except _Failure as failure:
                if self._without(failure, sent):
                    continue  # the server was asked for something it does not have: no failed try
                tries += 1
                if failure.fatal:
                    self._stop = failure.reason
                if not failure.again:
                    self._failed = 0
                    return Told(None, failure.reason)
                if tries >= self._settings.tries:
                    return self._given_up(failure)
                if failure.wait is not None and failure.wait > self._settings.wait:
                    return self._given_up(failure)
                if failure.wait is not None:
                    self._gate.shut(failure.wait)
                await asyncio.sleep(backoff(self._settings.backoff, tries))
            else:
                self._failed = 0
                return told
        return Told(None, self._stop)

    def _given_up(self, failure: _Failure) -> Told:
        self._failed += 1
        if self._failed >= max(_DEAD, 2 * self._settings.concurrency):
            self._stop = f"not asked: the server failed on {self._failed} pairs in a row ({failure.reason})"
        return Told(None, failure.reason)

    def _without(self, failure: _Failure, sent: dict[str, Any]) -> bool:
        """Whether the request may be sent again, without what the server said it does not take."""
        refused = failure.refused
        if refused is None or refused not in sent:
            return False
        if refused in self._body:  # else another request has found out meanwhile
            value = self._body.pop(refused)
            if refused == "max_tokens":
                self._body["max_completion_tokens"] = value
            if "logprobs" in refused:
                self._body.pop("logprobs", None)
                self._body.pop("top_logprobs", None)
        return True

    async def _try(
        self, session: aiohttp.ClientSession, prompt: str, sent: dict[str, Any], again: bool
    ) -> Told:
        import aiohttp

        settings = self._settings
        body = {"model": settings.model, "messages": [{"role": "user", "content": prompt}], **sent}
        await self._requests.take(1)
        entry = await self._tokens.take(len(prompt) / 4 + settings.longest)
        await self._gate.through()
        self.usage.requests += 1
        self.usage.retries += again
        try:
            async with session.post(
                f"{settings.url}/chat/completions",
                data=json.dumps(body).encode(),
                headers={"Content-Type": "application/json"},
                allow_redirects=False,
            ) as response:
                status = response.status
                waits = {
                    n: response.headers[n] for n in ("retry-after-ms", "retry-after") if n in response.headers
                }
                raw = await response.read()
        except TimeoutError:
            raise _Failure(f"no answer within {settings.timeout:g} s", again=True) from None
        except aiohttp.InvalidURL:
            raise _Failure("the server's URL cannot be used", fatal=True) from None
        except (aiohttp.ClientSSLError, aiohttp.ServerFingerprintMismatch):
            raise _Failure("no secure connection to the server", fatal=True) from None
        except aiohttp.ClientConnectorError:
            raise _Failure("no connection to the server", again=True) from None
        except (aiohttp.ClientError, OSError):
            raise _Failure("the connection broke", again=True) from None
        found = _json(raw)
        if status != 200:
            raise self._refused(status, waits, found)
        if (tokens := self.usage.count(found.get("usage"))) > 0:
            entry.amount = tokens
        return _told(found)

    def _refused(self, status: int, waits: dict[str, str], found: dict[str, Any]) -> _Failure:
        """What an answer with another status than 200 comes to."""
        error = found.get("error")
        error = error if isinstance(error, dict) else {"message": error or found.get("message")}
        message, code = str(error.get("message") or ""), str(error.get("code") or "")
        if status == 429 and "insufficient_quota" in (code, error.get("type")):
            return _Failure("the account's quota is used up (429)", fatal=True)
        if status == 429:
            return _Failure("rate limit (429)", again=True, wait=retry_after(waits))
        if status in (408, 409, 425) or status >= 500:
            return _Failure(f"server error ({status})", again=True, wait=retry_after(waits))
        if status in (401, 403):
            return _Failure(f"the server refuses the key ({status})", fatal=True)
        if status == 404:
            what = f"the server has no model {self._settings.model!r}, or nothing at this URL (404)"
            return _Failure(what, fatal=True)
        if 300 <= status < 400:
            return _Failure(f"the server sends elsewhere ({status}): give the URL it means", fatal=True)
        if code == "context_length_exceeded" or _MODEL_LENGTH.search(message):
            return _Failure(f"longer than the model can read ({status})")
        if code == "content_filter":
            return _Failure("refusal (content filter)")
        about = f"{error.get('param') or ''} {message}"
        named = (n for n in _OPTIONAL if re.search(rf"(?<!\w){n}(?!\w)", about))
        said = f"the server refused the request ({status}): {self._shown(message)}"
        return _Failure(said.rstrip(": "), refused=next(named, None))

    def _shown(self, message: str) -> str:
        """The beginning of what a server says, without anything that could be of a key."""
        message = " ".join(message.split())
        if self._key:
            message = message.replace(self._key, "…")
            stem = self._key[:8]
            message = re.sub(rf"{re.escape(stem)}\S*", "…", message) if len(stem) == 8 else message
        return re.sub(r"(?i)\b(?:sk|key|bearer)[-_ :=]\S+", "…", message)[:120]


def _json(raw: bytes) -> dict[str, Any]:
    """The JSON object of a response; {} if it holds none."""
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _told(found: dict[str, Any]) -> Told:
    """What a response with status 200 tells; a failed try if that is not what the protocol says."""
    try:
        choice = found["choices"][0]
        message, finish = choice["message"], choice.get("finish_reason")
        text, refusal = message.get("content"), message.get("refusal")
    except (KeyError, IndexError, TypeError, AttributeError):
        raise _Failure("the server's answer cannot be read", again=True) from None
    if finish == "content_filter":
        return Told(None, "refusal (content filter)")
    if isinstance(refusal, str) and refusal:
        return Told(None, "refusal")
    if text is not None and not isinstance(text, str):
        raise _Failure("the server's answer cannot be read", again=True)
    return Told(text or "", None, finish == "length", _tokens(choice.get("logprobs")))


def _tokens(told: Any) -> list[Token]:
    """The tokens and their log-probabilities; [] if they are not told in full."""
    try:
        return [
            Token(
                str(entry["token"]),
                {
                    str(e["token"]): float(e["logprob"])
                    for e in [*entry["top_logprobs"], entry]
                    if e["logprob"] is not None
                },
            )
            for entry in told["content"]
        ]
    except (KeyError, TypeError, ValueError):
        return []
