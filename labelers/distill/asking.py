"""Queries written by a language model, behind a server (`openai:MODEL@URL`) or on this machine (`hf:FOLDER`).

Each kind of query has its prompt, a text file in `labelers/distill/prompts`. What the model answers is read
strictly: one line that can be a query, or nothing and why. Every answer is added to `queries.answers.jsonl`
as it comes, and no prompt that has its answer there is asked again: a kill costs at most the answers under
way, and a changed number of queries costs only the new ones.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import IO, Any, Protocol

from harness.errors import InputError, LabelerError
from labelers.chat_answers import Told
from labelers.chat_http import Server
from labelers.distill.asking_local import TOO_LONG, Local, refuse_idle
from labelers.distill.config import KINDS, Kind
from labelers.distill.coverage import Task
from labelers.distill.likeness import normal
from labelers.distill.work import Work
from labelers.event_loop import EventLoop
from labelers.openai_settings import Settings, read_settings, server_key
from labelers.prompting import Cutter, fenced
from labelers.usage import Usage

__all__ = ["ANSWERS", "Asking", "Model", "prompt_for", "read_query", "writer_of"]

ANSWERS = "queries.answers.jsonl"
"""The file in `out` that answers are added to."""
_READING = 2  # goes up with every change to how an answer becomes a query
_PROMPTS = Path(__file__).parent / "prompts"
_LONGEST: dict[Kind, int] = {"navigational": 12, "fact": 20, "how-to": 25, "keyword": 10, "long": 60}
_COPIED = 8  # words in a row of the document from which on an answer is a copy of it
_TOKENS = 96  # of an answer
_FAILED = 0.1  # share of the prompts that a model may fail on
# What a model says of itself: a query may begin with "I cannot open the lid", too.
_REFUSAL = re.compile(
    r"^(?:i(?:['’]| a)m sorry|sorry\b|as an ai\b|(?:i )?apologi[sz]e|(?:unfortunately,? )?"
    r"i(?: can(?:['’]|no)t| won['’]t| do not| don['’]t|(?:['’]| a)m (?:unable|not able) to) (?:\w+ly )?"
    r"(?:help|assist|provide|write|create|generate|produce|comply|fulfil|do (?:this|that)|answer|make|give"
    r"|engage|have (?:enough|access)|find (?:any|enough))\w*\b)",
    re.I,
)
_BEFORE = re.compile(r"^(?:(?:search )?query|answer|question)\s*:\s*", re.I)
_THOUGHT = re.compile(r"^\s*<think>.*?</think>", re.S)
_QUOTES = "\"'“”‘’`*"
_OWN_FAULT = ("refusal", TOO_LONG)  # of the prompt, not of the server
_HEEDED = ("model", "url", "weights", "characters", "tokens", "tokenizer", "max_tokens", "temperature")
_SENDING = ("concurrency", "rpm", "tpm", "timeout", "tries", "backoff", "wait", "key")


class Model(Protocol):
    """A model that answers prompts."""

    made_of: dict[str, object]
    """What decides its answers, but for the prompt."""
    cutter: Cutter
    """How much of a document it is shown."""

    def check(self) -> None:
        """Raise what can be known to be wrong before it is asked."""

    def ask(self, prompts: Sequence[str], read: Callable[[str, Told], None]) -> None:
        """Call `read` with each prompt and what was told, as it is told."""


def writer_of(work: Work) -> Asking:
    """The writer that `synthesize.generator` names.

    Raises
    ------
    UsageError, UnknownName, InputError, LabelerError: what it names cannot be used.
    """
    given = work.config.synthesize.generator
    kind, _, argument = given.partition(":")
    if kind == "openai":
        return Asking(_AtServer(read_settings(argument)), work.out / ANSWERS)
    return Asking(Local(argument), work.out / ANSWERS)


class Asking:
    """Writes queries with a model.

    Parameters
    ----------
    model: who is asked. answers: the file that answers are kept in.
    """

    def __init__(self, model: Model, answers: Path) -> None:
        self._model, self._answers = model, answers
        self.label = f"{model.made_of['spec']}"

    @property
    def made_of(self) -> dict[str, object]:
        """What decides what is written."""
        prompts = {kind: sha256(_prompt(kind).encode()).hexdigest() for kind in KINDS}
        return {**self._model.made_of, "prompts": prompts, "reading": _READING}

    def check(self) -> None:
        """Raise what can be known to be wrong before the model is asked."""
        self._model.check()
        _ = self._known

    def write(self, batch: Sequence[Task]) -> list[tuple[str | None, str]]:
        """A query for each task, or None and why there is none.

        Raises
        ------
        LabelerError: the model failed on more than a tenth of the prompts. What it answered is kept.
        InputError: the file of answers cannot be used.
        """
        prompts = [prompt_for(task.kind, task.seed.text, self._model.cutter) for task in batch]
        keys = [self._key(prompt) for prompt in prompts]
        missing = {key: prompt for key, prompt in zip(keys, prompts, strict=True) if key not in self._known}
        failed: dict[str, str] = {}
        if missing:
            by_prompt = {prompt: key for key, prompt in missing.items()}
            with _appending(self._answers) as add:

                def read(prompt: str, told: Told) -> None:
                    key = by_prompt[prompt]
                    if told.reason is not None and not told.reason.startswith(_OWN_FAULT):
                        failed[key] = told.reason
                        return
                    answer = {"key": key, "text": told.text, "reason": told.reason, "cut": told.cut}
                    self._known[key] = answer
                    add(answer)

                self._model.ask(list(by_prompt), read)
        if len(failed) > _FAILED * len(missing):
            why = "; ".join(f"{n} times: {reason}" for reason, n in Counter(failed.values()).most_common(2))
            raise LabelerError(
                f"the generator {self.label} failed on {len(failed)} of {len(missing)} documents ({why}).\n"
                f"Its {len(self._known)} answers so far are kept in {self._answers}. "
                "Next: the same command again, once it answers"
            )
        return [
            (None, failed[key]) if key in failed else self._query(task, self._known[key])
            for task, key in zip(batch, keys, strict=True)
        ]

    def _query(self, task: Task, answer: dict[str, Any]) -> tuple[str | None, str]:
        if answer["reason"] is not None:
            return None, str(answer["reason"])
        return read_query(task.kind, answer["text"], task.seed.text, cut=bool(answer["cut"]))

    def _key(self, prompt: str) -> str:
        known = [sorted((k, str(v)) for k, v in self._model.made_of.items()), prompt]
        return sha256(json.dumps(known).encode()).hexdigest()

    @cached_property
    def _known(self) -> dict[str, dict[str, Any]]:
        """Answers by key. A last line that a kill has cut off is no answer."""
        if not self._answers.exists():
            return {}
        lines = self._answers.read_bytes().split(b"\n")
        found: dict[str, dict[str, Any]] = {}
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                answer = json.loads(line)
                found[answer["key"]] = {name: answer[name] for name in ("text", "reason", "cut")}
                if not isinstance(answer["text"], str | None) or not isinstance(answer["reason"], str | None):
                    raise ValueError("text and reason are texts or null")
            except (ValueError, KeyError, TypeError) as error:
                if number == len(lines):
                    break
                hint = "Next: take the line out; its query is then written again"
                raise InputError(self._answers, number, f"is no answer: {error}", hint) from None
        return found


def prompt_for(kind: Kind, document: str, cutter: Cutter) -> str:
    """The prompt for a query of a kind from a document."""
    return _prompt(kind).replace("{document}", fenced(cutter.cut(document), document))


def read_query(kind: Kind, text: str | None, document: str, *, cut: bool = False) -> tuple[str | None, str]:
    """The query in an answer, or None and why it holds none.

    Parameters
    ----------
    cut: the answer stopped at its token limit.

    What is taken away: thoughts before the answer, the word "Query:", marks of quotation around it. Nothing
    else is mended: several lines, a refusal, more words than such a query has, or eight words in a row out of
    the document are no query.
    """
    text = _BEFORE.sub("", _THOUGHT.sub("", text or "").strip()).strip().strip(_QUOTES).strip()
    if not normal(text):
        return None, "empty answer"
    if cut:
        return None, "answer without an end"
    if "\n" in text:
        return None, "several lines"
    if _REFUSAL.match(text):
        return None, "refusal"
    words = normal(text).split()
    if len(words) > _LONGEST[kind]:
        return None, "too long for its kind"
    of_document = f" {normal(document)} "
    if any(f" {' '.join(words[i : i + _COPIED])} " in of_document for i in range(len(words) - _COPIED + 1)):
        return None, "copied from the document"
    return text, ""


def _prompt(kind: Kind) -> str:
    """The body of a kind's prompt file."""
    return (_PROMPTS / f"{kind}.txt").read_text(encoding="utf-8").partition("---\n")[2].strip()


@contextmanager
def _appending(path: Path) -> Iterator[Callable[[dict[str, Any]], None]]:
    """A function that adds a line to a file, which is then on the disk."""
    whole = path.read_bytes().rfind(b"\n") + 1 if path.exists() else 0
    with path.open("ab") as file:
        file.truncate(whole)  # not the beginning of a line that a kill has cut off

        def add(answer: dict[str, Any]) -> None:
            _write(file, json.dumps(answer, ensure_ascii=False).encode() + b"\n")

        yield add


def _write(file: IO[bytes], data: bytes) -> None:
    file.write(data)
    file.flush()
    os.fsync(file.fileno())


class _AtServer:
    """A model behind a server."""

    def __init__(self, settings: Settings) -> None:
        refuse_idle(settings, (*_HEEDED, *_SENDING))
        self._settings = replace(settings, answer="text", max_tokens=settings.max_tokens or _TOKENS)
        self.cutter = Cutter(settings.characters, settings.tokens, settings.tokenizer or None)
        server = settings.weights or settings.url
        self.made_of: dict[str, object] = {
            "spec": f"openai:{settings.model}",
            "server": server,
            "tokens": self._settings.max_tokens,
        }
        if settings.temperature:
            self.made_of["temperature"] = settings.temperature

    def check(self) -> None:
        """Raise UsageError where the server needs a key and there is none."""
        server_key(self._settings)

    def ask(self, prompts: Sequence[str], read: Callable[[str, Told], None]) -> None:
        """Ask the server, many prompts at a time."""
        server = Server(self._settings, server_key(self._settings), Usage(), logprobs=False)
        loop = EventLoop(server.close)
        try:
            loop.run(server.ask_each(prompts, lambda number, told: read(prompts[number], told[0])))
        finally:
            loop.close()
