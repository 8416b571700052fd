"""The batch files of an OpenAI-compatible server, by a script: a double for tests, beside `ScriptedServer`.

with ScriptedServer(ScriptedBatches(lambda request: answer("2"))) as server:
    ...                       # openai:any-model@{server.url}?batch=yes
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from typing import Any

from labelers.scripted_server import Request, Step, raw, status

__all__ = ["ScriptedBatches"]


class ScriptedBatches:
    """A script that keeps files and works on batches.

    Parameters
    ----------
    line: what becomes of each request in a file, and of one that comes by itself. Steps that hang or break
        off do not: in a file each is answered.
    looks: how often a batch is looked at before it is over. ending: the status that it then has; of `expired`
        and `cancelled` the first half is answered, of `failed` nothing. lost: custom_ids that are in no file.
    before: a step that happens instead, for requests for which it gives one.

    Attributes
    ----------
    files: id -> content. batches: id -> the batch, as it is told. made: the requests of each batch, in order.
    """

    def __init__(
        self,
        line: Callable[[Request], Step],
        *,
        looks: int = 1,
        ending: str = "completed",
        lost: Collection[str] = (),
        before: Callable[[Request], Step | None] = lambda request: None,
    ) -> None:
        self.line, self.looks, self.ending, self.lost, self.before = line, looks, ending, lost, before
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.made: list[list[dict[str, Any]]] = []
        self._looked: dict[str, int] = {}

    def __call__(self, request: Request) -> Step:
        """What happens to a request."""
        if (step := self.before(request)) is not None:
            return step
        parts = request.path.partition("?")[0].strip("/").split("/")[1:]
        if parts[:1] == ["chat"]:
            return self.line(request)
        if parts == ["files"]:
            return self._uploaded(request)
        if parts == ["batches"]:
            return self._begun(request.body) if request.method == "POST" else self._listed()
        if parts[:1] == ["batches"] and parts[1] in self.batches:
            return _object(self._looked_at(parts[1]))
        if parts[:1] == ["files"] and parts[1] in self.files:
            return raw(self.files[parts[1]])
        return status(404, message=f"No such object: {request.path}")

    def _uploaded(self, request: Request) -> Step:
        boundary = request.headers["content-type"].partition("boundary=")[2].encode()
        fields = {}
        for part in request.raw.split(b"--" + boundary)[1:-1]:
            head, _, value = part.removeprefix(b"\r\n").removesuffix(b"\r\n").partition(b"\r\n\r\n")
            fields[head.partition(b'name="')[2].partition(b'"')[0].decode()] = value
        if fields.get("purpose") != b"batch" or "file" not in fields:
            return status(400, message="purpose must be batch, and there must be a file")
        return _object({"id": self._kept(fields["file"]), "object": "file", "purpose": "batch"})

    def _begun(self, body: dict[str, Any]) -> Step:
        if body.get("endpoint") != "/v1/chat/completions" or body.get("completion_window") != "24h":
            return status(400, message="no such endpoint or completion_window")
        if body["input_file_id"] not in self.files:
            return status(400, message="no such file")
        name = f"batch_{len(self.batches) + 1}"
        self.made.append([json.loads(line) for line in self.files[body["input_file_id"]].splitlines()])
        self._looked[name] = 0
        self.batches[name] = {"id": name, "object": "batch", "status": "validating", **body}
        return _object(self.batches[name])

    def _listed(self) -> Step:
        return _object({"object": "list", "data": list(self.batches.values())[::-1]})

    def _looked_at(self, name: str) -> dict[str, Any]:
        batch = self.batches[name]
        self._looked[name] += 1
        if batch["status"] in ("validating", "in_progress"):
            batch["status"] = "in_progress"
            if self._looked[name] >= self.looks:
                self._end(batch, self.made[list(self.batches).index(name)])
        return batch

    def _end(self, batch: dict[str, Any], lines: list[dict[str, Any]]) -> None:
        batch["status"] = self.ending
        if self.ending == "failed":
            batch["errors"] = {"object": "list", "data": [{"message": "line 1 is no request", "line": 1}]}
            return
        done = len(lines) if self.ending == "completed" else len(lines) // 2
        good: list[dict[str, Any]] = []
        bad: list[dict[str, Any]] = []
        # The answers come in any order.
        for place, line in reversed(list(enumerate(lines[:done]))):
            step = self.line(Request(place, "/v1/chat/completions", {}, line["body"]))
            told = {"status_code": step.code, "request_id": f"r{place}", "body": json.loads(step.body)}
            answer = {"id": f"l{place}", "custom_id": line["custom_id"], "response": told, "error": None}
            if line["custom_id"] not in self.lost:
                (good if step.code == 200 else bad).append(answer)
        for line in lines[done:]:
            error = {"code": f"batch_{self.ending}", "message": "This request was not executed."}
            bad.append({"custom_id": line["custom_id"], "response": None, "error": error})
        for name, answers in (("output_file_id", good), ("error_file_id", bad)):
            if answers:
                batch[name] = self._kept("".join(json.dumps(a) + "\n" for a in answers).encode())

    def _kept(self, content: bytes) -> str:
        name = f"file-{len(self.files) + 1}"
        self.files[name] = content
        return name


def _object(value: dict[str, Any]) -> Step:
    return raw(json.dumps(value).encode())
