"""Batch files, as the OpenAI protocol has them: a file of requests that a server answers within a day.

`Batches.ask` gives what `Server.ask` gives, a reason for every prompt that has no answer. The requests are
uploaded as a file, a batch is made of it and looked after until it ends, and the answers are matched by their
`custom_id`.

A batch is paid for when it is made, so it must not be made twice. Its id is kept in a small file KEY.json,
named by a digest of the server and of all requests, and the batch bears the same key: a run that was stopped
finds its batch by the file, or else among those that the server is working on.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from harness.errors import InputError, UsageError
from labelers.chat_answers import Failure, Told, json_object
from labelers.chat_http import Server
from labelers.limits import backoff
from labelers.openai_settings import Settings

__all__ = ["Batches"]

_T = TypeVar("_T", bound="_Row")
_Row = tuple[Any, Any, str | None]
_Batch = dict[str, Any]
_ENDPOINT = "/v1/chat/completions"
_LINES, _BYTES = 50_000, 100 * 2**20  # of one file; servers take 50,000 requests and 200 MB
_SHORTEST_WAIT, _LONGEST_WAIT = 0.1, 60.0  # seconds between two looks at a batch, after the first
_OVER = {
    "completed": "no answer in the batch's files",
    "expired": "the batch expired",
    "cancelled": "the batch was cancelled",
    "failed": "the batch failed",
}
_GONE = "the batch's files are gone from the server (404)"
_NONE_SUCH = (404, 405, 501)
"""What a server answers that has no batch files."""


class _Answered(NamedTuple):
    """What came of one batch.

    `key`: the batch's. `lines`: custom_id -> its line in the files. `why`: what is told of requests without
    one. `over`: nothing more will come.
    """

    key: str
    lines: dict[str, dict[str, Any]]
    why: str
    over: bool = False


class Batches:
    """Batches of one server.

    Parameters
    ----------
    server: where requests go, and what stands in them. settings: `poll`, `patience`, `batches`.
    """

    def __init__(self, server: Server, settings: Settings) -> None:
        self._server, self._settings = server, settings

    async def ask(self, prompts: Sequence[str], read: Callable[[Sequence[Told]], _T]) -> list[_T]:
        """What `read` makes of the answers for each prompt, in their order: a row that ends in a reason, or
        None.

        Raises
        ------
        UsageError: the server has no batch files. InputError: the id of a batch cannot be kept. MissingExtra:
        aiohttp is not installed.
        """
        told: dict[int, list[Told]] = {}
        over: list[tuple[str, set[int]]] = []
        left = list(range(len(prompts)))
        while left:
            sent = self._server.parameters
            told |= await self._round({number: prompts[number] for number in left}, sent, over)
            # What the server does not take it says of every request: once more, without that.
            left = [number for number in left if told[number][0].refused]
            self._server.without(str(told[number][0].refused) for number in left)
        rows = [read(told[number]) for number in range(len(prompts))]
        for key, numbers in over:
            if all(rows[number][2] is not None for number in numbers):
                self._file(key).unlink(missing_ok=True)  # nothing came of it: the next run makes another
        return rows

    async def _round(
        self, prompts: dict[int, str], sent: dict[str, Any], over: list[tuple[str, set[int]]]
    ) -> dict[int, list[Told]]:
        """The answers of one batch, or of several where a file would be too large."""
        wanted = self._settings.samples
        times = 1 if "n" in sent else wanted
        ids = {number: [f"{number}-{turn}" for turn in range(times)] for number in prompts}
        parts = list(
            _parts(
                (one, _line(one, self._server.request(prompt, sent)))
                for number, prompt in prompts.items()
                for one in ids[number]
            )
        )
        found: dict[str, dict[str, Any]] = {}
        why: dict[str, str] = {}
        batches = await asyncio.gather(*(self._part([line for _, line in part]) for part in parts))
        for part, batch in zip(parts, batches, strict=True):
            found |= batch.lines
            why |= {custom: batch.why for custom, _ in part}
            if batch.over:
                over.append((batch.key, {int(custom.partition("-")[0]) for custom, _ in part}))
        told = {}
        for number, customs in ids.items():
            each = [self._read(found.get(custom), why[custom], sent) for custom in customs]
            answers = [answer for answers in each for answer in answers]
            failed = [answer for answer in answers if answer.failed]
            if not failed and len(answers) < wanted:  # the server looks over n
                failed = [Told(None, "fewer answers than were asked for", failed=True, refused="n")]
            told[number] = failed[:1] or answers[:wanted]
        return told

    def _read(self, line: dict[str, Any] | None, why: str, sent: dict[str, Any]) -> list[Told]:
        """The answers in one line of the files."""
        if line is None:
            return [Told(None, why, failed=True)]
        response = line.get("response")
        try:
            if not isinstance(response, dict):
                given = line.get("error")
                error = given if isinstance(given, dict) else {}
                said = f"{why}: {error.get('message') or error.get('code') or ''}"
                raise Failure(self._server.shown(said).rstrip(": "))
            code = response.get("status_code")
            return self._server.read(code if isinstance(code, int) else 0, response.get("body"))
        except Failure as failure:
            refused = failure.refused if failure.refused in sent else None
            return [Told(None, failure.reason, failed=True, refused=refused)]

    # -- one batch -------------------------------------------------------------------------------------------

    async def _part(self, lines: Sequence[bytes]) -> _Answered:
        """What one batch comes to, one that was made before if there is such a one."""
        payload = b"".join(lines)
        key = sha256(f"{self._settings.url}\n".encode() + payload).hexdigest()[:32]
        self._folder()
        try:
            batch = await self._begun(key) or await self._begin(key, payload)
            batch = await self._ended(batch)
            if batch.get("status") not in _OVER:
                return _Answered(key, {}, f"the batch is not done after {self._settings.patience:g} s")
            found, gone = await self._files(batch)
        except Failure as failure:
            return _Answered(key, {}, failure.reason)
        return _Answered(key, found, _GONE if gone else self._why(batch), over=True)

    def _why(self, batch: _Batch) -> str:
        """What is told of requests that it has no answer for."""
        why = _OVER[str(batch["status"])]
        errors = batch.get("errors")
        listed = errors.get("data") if isinstance(errors, dict) else None
        first = listed[0] if isinstance(listed, list) and listed and isinstance(listed[0], dict) else {}
        return self._server.shown(f"{why}: {first.get('message') or ''}").rstrip(": ")

    async def _begun(self, key: str) -> _Batch | None:
        """The batch of this key, if it has been made and may still come to something."""
        try:
            kept = json.loads(self._file(key).read_text(encoding="utf-8"))["batch"]
        except (OSError, ValueError, KeyError, TypeError):
            return await self._listed(key)
        try:
            batch = _known(await self._server.call("GET", f"/batches/{kept}"))
        except Failure as failure:
            if failure.status == 404:
                return None
            raise
        over = batch.get("status") in ("failed", "expired", "cancelled")
        return None if over and not batch.get("output_file_id") else batch

    async def _listed(self, key: str) -> _Batch | None:
        """The batch of this key among those that the server is working on."""
        try:
            told = await self._server.call("GET", "/batches?limit=100")
        except Failure as failure:
            if failure.status in (*_NONE_SUCH, 400):
                return None  # it keeps no list; or nothing at all, which the next request tells
            raise
        listed = told.get("data")
        for batch in listed if isinstance(listed, list) else []:
            marks = batch.get("metadata") if isinstance(batch, dict) else None
            mine = isinstance(marks, dict) and marks.get("stopgap") == key and "id" in batch
            if mine and batch.get("status") not in (*_OVER, "cancelling"):
                self._keep(key, batch, 0)
                return dict(batch)
        return None

    async def _begin(self, key: str, payload: bytes) -> _Batch:
        """Upload the requests and make a batch of them."""
        form = {"purpose": "batch"}
        boundary = f"stopgap-{key}"  # not in the file, whose digest the key is
        kind = f"multipart/form-data; boundary={boundary}"
        try:
            uploaded = await self._server.call("POST", "/files", _multipart(form, payload, boundary), kind)
            batch = await self._made(key, str(_known(uploaded, "id")["id"]))
        except Failure as failure:
            if failure.status in _NONE_SUCH:
                raise UsageError(
                    f"the server at {self._settings.url} takes no batch files ({failure.status}).\n"
                    "Next: leave out batch=yes"
                ) from None
            raise
        self._keep(key, batch, payload.count(b"\n"))
        self._server.usage.batches += 1
        self._server.usage.requests += payload.count(b"\n")
        return batch

    async def _made(self, key: str, file: str) -> _Batch:
        body = {
            "input_file_id": file,
            "endpoint": _ENDPOINT,
            "completion_window": "24h",
            "metadata": {"stopgap": key},
        }
        for attempt in range(1, self._settings.tries + 1):
            try:
                return _known(await self._server.call("POST", "/batches", json.dumps(body).encode(), tries=1))
            except Failure as failure:
                if not failure.again or attempt == self._settings.tries:
                    raise
            await asyncio.sleep(backoff(self._settings.backoff, attempt))
            # The answer may have been lost and not the request.
            if (batch := await self._listed(key)) is not None:
                return batch
        raise AssertionError("unreachable")

    async def _ended(self, batch: _Batch) -> _Batch:
        """The batch when it is over, or as it is when patience ends."""
        clock, wait = asyncio.get_running_loop().time, self._settings.poll
        end = clock() + self._settings.patience
        while batch.get("status") not in _OVER and clock() < end:
            await asyncio.sleep(min(wait, max(end - clock(), 0.0)))
            batch = _known(await self._server.call("GET", f"/batches/{batch['id']}"))
            wait = min(max(wait, _SHORTEST_WAIT) * 1.5, max(_LONGEST_WAIT, self._settings.poll))
        return batch

    async def _files(self, batch: _Batch) -> tuple[dict[str, dict[str, Any]], bool]:
        """custom_id -> its line, of the files that the batch has, good answers before errors; and whether
        the server has thrown one away."""
        found: dict[str, dict[str, Any]] = {}
        gone = False
        for name in ("output_file_id", "error_file_id"):
            if not batch.get(name):
                continue
            try:
                raw = await self._server.download(f"/files/{batch[name]}/content")
            except Failure as failure:
                if failure.status != 404:
                    raise
                gone = True  # and stays so: waiting for it would block these requests for ever
                continue
            for text in raw.splitlines():
                line = json_object(text)
                if isinstance(custom := line.get("custom_id"), str):
                    found.setdefault(custom, line)
        return found, gone

    # -- what is kept ----------------------------------------------------------------------------------------

    def _file(self, key: str) -> Path:
        return Path(self._settings.batches) / f"{key}.json"

    def _folder(self) -> None:
        folder = Path(self._settings.batches)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise InputError(folder, None, f"cannot keep the ids of batches: {exc.strerror}") from None
        if not os.access(folder, os.W_OK):
            raise InputError(folder, None, "cannot keep the ids of batches: it cannot be written to")

    def _keep(self, key: str, batch: _Batch, requests: int) -> None:
        """Write down the id of a batch, at once and whole."""
        file = self._file(key)
        new = file.with_suffix(".new")
        known = {"batch": batch.get("id"), "server": self._settings.url, "requests": requests}
        new.write_text(json.dumps(known) + "\n", encoding="utf-8")
        new.replace(file)


def _known(told: dict[str, Any], *names: str) -> dict[str, Any]:
    """What a server told of a file or a batch, if it can be read; else it is a Failure."""
    if not all(isinstance(told.get(name), str) for name in names or ("id", "status")):
        raise Failure("the server's answer cannot be read", again=True)
    return told


def _line(custom: str, body: dict[str, Any]) -> bytes:
    whole = {"custom_id": custom, "method": "POST", "url": _ENDPOINT, "body": body}
    return json.dumps(whole, ensure_ascii=False).encode() + b"\n"


def _parts(lines: Iterable[tuple[str, bytes]]) -> Iterator[list[tuple[str, bytes]]]:
    """Requests, with their custom_id, in files of a size that servers take."""
    part: list[tuple[str, bytes]] = []
    size = 0
    for custom, line in lines:
        if part and (len(part) == _LINES or size + len(line) > _BYTES):
            yield part
            part, size = [], 0
        part.append((custom, line))
        size += len(line)
    if part:
        yield part


def _multipart(fields: dict[str, str], payload: bytes, boundary: str) -> bytes:
    """A form with fields and the file of requests."""
    line = f"--{boundary}\r\n"
    parts = [
        f'{line}Content-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    ]
    parts.append(
        f'{line}Content-Disposition: form-data; name="file"; filename="requests.jsonl"\r\n'
        "Content-Type: application/jsonl\r\n\r\n"
    )
    return "".join(parts).encode() + payload + f"\r\n--{boundary}--\r\n".encode()
