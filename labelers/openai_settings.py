"""What stands behind `openai:` on the command line: a model, its server, and settings.

    openai:MODEL                                    at OPENAI_BASE_URL, or else at api.openai.com
    openai:MODEL@http://127.0.0.1:8000/v1           at a server of one's own
    openai:MODEL@URL?prompt=basic&concurrency=64    with settings
    openai:judge.toml                               all of it in a file: model, url, and the settings

Keys never stand here: `key` is the name of the environment variable that holds one.
"""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qsl, urlsplit

from harness.errors import UnknownName, UsageError
from labelers.prompting import Form

__all__ = ["DEFAULT_URL", "Settings", "read_settings", "server_key"]

DEFAULT_URL = "https://api.openai.com/v1"
"""Where models are asked for when neither the spec nor OPENAI_BASE_URL says."""

_FORM = "openai:MODEL, openai:MODEL@URL?setting=value&…, or openai:FILE.toml"


@dataclass(frozen=True)
class Settings:
    """How a model is asked.

    Attributes
    ----------
    model: what the server calls it. url: the server, up to `/v1`. weights: a word for what the server serves;
        it then stands in the key of the ledger where the URL would, so that a server may move.
    prompt: a built-in prompt, or a file. answer: `token` asks for the grade alone, `text` for a text that
        ends in it. choices: `yes` has a vLLM server choose among the grades and nothing else.
    guidelines: a text file, for prompts that show it.
    shots: judged documents that are shown as examples, for prompts that show them; 0: four.
    samples: how often a pair is asked; from 2 on with `answer=text` and a temperature, and the signal is then
        the share of each grade among the answers. temperature: how much chance there is in an answer.
    characters: how much of a document is shown, without a tokenizer. tokenizer: a tokenizer.json or a folder
        that has one; the document's budget is then `tokens`.
    max_tokens: how long an answer may be; by default 8 for `token`, 512 for `text`.
    concurrency: requests under way at a time. rpm, tpm: requests and tokens a minute at most; 0: no limit.
    timeout: seconds for one request. tries: of one pair. backoff: seconds before the first retry, doubled
        with each. wait: the longest that a server may ask to wait (Retry-After), in seconds.
    batch: `yes` sends the requests as batch files, of so many `pairs` at a time, and waits for their answers.
        poll: seconds before the first look at a batch; the waits get longer, up to a minute. patience: the
        longest that it is waited for, in seconds. batches: the folder where the ids of batches are kept.
    prices: a TOML file with what tokens cost. key: the environment variable that holds the key.
    """

    model: str
    url: str = ""
    weights: str = ""
    prompt: str = "umbrela"
    answer: str = "token"
    choices: str = "no"
    guidelines: str = ""
    shots: int = 0
    samples: int = 1
    temperature: float = 0.0
    characters: int = 8000
    tokens: int = 2000
    tokenizer: str = ""
    max_tokens: int = 0
    concurrency: int = 16
    rpm: int = 0
    tpm: int = 0
    timeout: float = 60.0
    tries: int = 6
    backoff: float = 0.5
    wait: float = 120.0
    batch: str = "no"
    pairs: int = 10_000
    poll: float = 5.0
    patience: float = 90_000.0
    batches: str = ".stopgap/batches"
    prices: str = ""
    key: str = "OPENAI_API_KEY"

    @property
    def form(self) -> Form:
        """`answer`, as what it is."""
        return cast("Form", self.answer)

    @property
    def longest(self) -> int:
        """The longest answer, in tokens."""
        return self.max_tokens or {"token": 8, "text": 512}[self.answer]


_LEAST = {"shots": 1, "samples": 1, "characters": 1, "tokens": 1, "concurrency": 1, "tries": 1, "pairs": 1}
_CHOICE = {"answer": ("token", "text"), "choices": ("no", "yes"), "batch": ("no", "yes")}
_KINDS: dict[str, type] = {
    f.name: {"int": int, "float": float}.get(str(f.type), str) for f in fields(Settings)
}


def read_settings(argument: str | None) -> Settings:
    """The settings that the text behind `openai:` gives.

    Raises
    ------
    UsageError: no model, a URL that is none or holds a password, a value of another kind or out of range.
    UnknownName: no such setting. InputError: the file cannot be read.
    """
    if argument and argument.endswith(".toml") and "?" not in argument:
        given = _from_file(Path(argument))
    else:
        match = re.fullmatch(r"(.*?)(?:@(https?://[^?]*))?(?:\?(.*))?", argument or "", re.S)
        assert match is not None  # everything in it is optional
        more = parse_qsl(match[3] or "", keep_blank_values=True, separator="&")
        if twice := {name for name, _ in more if [n for n, _ in more].count(name) > 1}:
            raise UsageError(f"setting {min(twice)!r} is given twice: {_FORM}")
        if {"model", "url"} & {name for name, _ in more}:
            raise UsageError(f"model and url stand before the `?`: {_FORM}")
        given = {"model": match[1], "url": match[2] or "", **dict(more)}
    known = {name: _value(name, value) for name, value in given.items()}
    if not known.get("model"):
        raise UsageError(f"no model: {_FORM}")
    if known.get("choices") == "yes" and known.get("answer") == "text":
        raise UsageError("choices=yes leaves no room for a text: it goes with answer=token")
    known["url"] = _url(known.get("url") or os.environ.get("OPENAI_BASE_URL") or DEFAULT_URL)
    settings = Settings(**known)
    if settings.samples > 1 and not (settings.answer == "text" and settings.temperature > 0):
        raise UsageError(
            f"setting samples={settings.samples} asks a pair several times, for which answers must be texts "
            "and differ.\nNext: samples with answer=text and a temperature, such as temperature=0.7"
        )
    return settings


def server_key(settings: Settings) -> str:
    """The key for the settings' server, out of the environment; "" where there is none and none is needed.

    Raises
    ------
    UsageError: api.openai.com needs one and there is none, or it cannot be a key.
    """
    key = os.environ.get(settings.key, "").strip()
    if not key and settings.url == DEFAULT_URL:
        raise UsageError(
            f"no key in the environment variable {settings.key}, which {DEFAULT_URL} asks for.\n"
            "Next: set it, or name a server of your own: openai:MODEL@URL"
        )
    if not key.isascii() or not key.isprintable():
        raise UsageError(f"what the environment variable {settings.key} holds cannot be a key")
    return key


def _from_file(path: Path) -> dict[str, Any]:
    from harness.strict_toml import parse  # slow to import, and few name a file

    return parse(path)


def _value(name: str, value: Any) -> Any:
    if name not in _KINDS:
        raise UnknownName("setting", name, _KINDS, f"A labeler's settings: {_FORM}")
    kind = _KINDS[name]
    try:
        if isinstance(value, bool) or not isinstance(value, str | kind | (int if kind is float else kind)):
            raise ValueError
        read = kind(value)
    except ValueError:
        what = {int: "whole number", float: "number", str: "text"}[kind]
        raise UsageError(f"setting {name}={value!r} is no {what}") from None
    least = _LEAST.get(name, 0)
    if kind is not str and not (math.isfinite(read) and read >= least):
        raise UsageError(f"setting {name}={value!r} is not a number from {least} on")
    if name == "timeout" and read == 0:
        raise UsageError("setting timeout=0 leaves no time for an answer")
    if read not in _CHOICE.get(name, (read,)):
        raise UnknownName(f"value of setting {name}", read, _CHOICE[name])
    return read


def _url(url: str) -> str:
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("http", "https") and parts.hostname is not None and (parts.port or 1) > 0
    except ValueError:
        known, parts = False, urlsplit("")
    if parts.username is not None or parts.password is not None:
        raise UsageError("the server's URL holds a user or a password; keys belong in the environment")
    if not known or parts.query or parts.fragment:
        raise UsageError(f"{url!r} is no server's URL, such as http://127.0.0.1:8000/v1")
    return url.rstrip("/")
