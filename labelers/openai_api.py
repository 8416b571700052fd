"""A model behind any server that speaks the OpenAI protocol: `openai:MODEL@URL`.

The model is asked for a grade, and where the server tells the probabilities of the tokens it chose from, the
signal is the distribution over the grades in the grade's place; elsewhere it is the grade that the answer
gives (`labelers.parsing`), or null and why. Asked for several answers, it is the share of each grade among
them.

On the collection's own scale a signal is `probs`; a prompt with another scale gives a `score`, the expected
grade on that one (P(yes) for `no yes`).
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from hashlib import sha256

import polars as pl

from harness.frames import SIGNALS
from labelers import parsing
from labelers.batch_files import Batches
from labelers.chat_answers import Token, Told
from labelers.chat_http import Server
from labelers.event_loop import EventLoop
from labelers.openai_settings import read_settings, server_key
from labelers.prompting import Cutter, read_prompt, shown_with
from labelers.usage import Usage, read_prices

__all__ = ["OpenAI"]

_Row = tuple[list[float] | None, float | None, str | None]
_PROTOCOL = 1  # goes up with every change to what is sent or how answers become signals


class OpenAI:
    """A labeler that asks a model over HTTP.

    Parameters
    ----------
    argument: MODEL[@URL][?settings] or a TOML file (`labelers.openai_settings`). grades: the collection's
        grades and their words.

    Raises
    ------
    UsageError, UnknownName, InputError: what the argument names cannot be used.
    """

    needs_text = True

    def __init__(self, argument: str | None, grades: dict[int, str]) -> None:
        self.grades = grades
        self._settings = settings = read_settings(argument)
        self._prompt = read_prompt(
            settings.prompt, grades, settings.form, settings.guidelines or None, settings.shots
        )
        self.examples = self._prompt.shots
        if settings.batch == "yes":
            self.at_once = settings.pairs
        self._cutter = Cutter(settings.characters, settings.tokens, settings.tokenizer or None)
        self._prices = read_prices(settings.prices, settings.model) if settings.prices else None
        self._usage = Usage()
        self.name = re.sub(r"[^\w.:+-]", "-", settings.model.rsplit("/", 1)[-1]) or "openai"
        self._scale = self._prompt.answers
        # vLLM's own field: the tokens of other answers are struck out before a probability is computed.
        self._constraint = (
            {"structured_outputs": {"choice": list(self._scale)}} if settings.choices == "yes" else {}
        )
        known = {
            "protocol": [_PROTOCOL, parsing.VERSION],
            "model": settings.model,
            "server": settings.weights or settings.url,
            "prompt": self._prompt.digest,
            "grades": sorted(grades),
            "cut": self._cutter.digest,
            "answer": [settings.answer, settings.longest, *self._constraint],
        }
        if settings.samples > 1 or settings.temperature:  # the usual one is left out: its ids stay
            known["sampled"] = [settings.samples, settings.temperature]
        self.fingerprint = sha256(json.dumps(known).encode()).hexdigest()

    @property
    def card(self) -> dict[str, list[str]]:
        """What is known of the model: its name (`harness.circularity`)."""
        return {"base model": [self._settings.model]}

    @cached_property
    def _server(self) -> Server:
        settings = self._settings
        key = server_key(settings)
        return Server(settings, key, self._usage, logprobs=settings.answer == "token", more=self._constraint)

    @cached_property
    def _loop(self) -> EventLoop:
        return EventLoop(self._server.close)

    def signal(self, pairs: pl.DataFrame) -> pl.DataFrame:
        """What the model says of each pair (SIGNALS).

        Raises
        ------
        UsageError: the server needs a key and there is none, or has no batch files. InputError: the id of a
            batch cannot be kept. MissingExtra: aiohttp is not installed.
        """
        filled = [
            self._prompt.fill(query, text, self._cutter, shown)
            for (query, text), shown in zip(
                pairs.select("query", "text").iter_rows(), shown_with(pairs), strict=True
            )
        ]
        self._usage.cut += sum(prompt.cut for prompt in filled)
        how = Batches(self._server, self._settings) if self._settings.batch == "yes" else self._server
        rows = self._loop.run(how.ask([prompt.text for prompt in filled], self._read))
        return pairs.select("query_id", "doc_id").with_columns(
            pl.Series("probs", [row[0] for row in rows], dtype=SIGNALS["probs"]),
            pl.Series("score", [row[1] for row in rows], dtype=SIGNALS["score"]),
            pl.lit(self.name).alias("labeler"),
            pl.Series("reason", [row[2] for row in rows], dtype=SIGNALS["reason"]),
        )

    def usage(self) -> dict[str, int | float | str]:
        """What has been asked so far (`labelers.usage.Usage`)."""
        return self._usage.report(self._prices)

    def close(self) -> None:
        """Close the connections; the labeler may be asked again all the same."""
        if "_loop" in self.__dict__:
            self._loop.close()

    def _read(self, told: Sequence[Told]) -> _Row:
        """probs, score and reason of the answers for one pair."""
        if told[0].failed:
            return None, None, told[0].reason
        readings = [self._reading(one) for one in told]
        grades = Counter(reading.grade for reading in readings if reading.grade is not None)
        if self._settings.samples > 1:
            self._usage.samples += len(readings)
            self._usage.unread += len(readings) - grades.total()
        if not grades:
            reasons = Counter(str(reading.reason) for reading in readings)
            return None, None, min(reasons, key=lambda reason: (-reasons[reason], reason))
        spread = _spread(told[0], readings[0], self._scale) if len(told) == 1 else None
        if spread is None:
            self._usage.parsed += 1
            spread = [grades[grade] / grades.total() for grade in self._scale.values()]
        else:
            self._usage.spread += 1
        if self._prompt.on_scale:
            return spread, None, None
        return None, sum(p * g for p, g in zip(spread, self._scale.values(), strict=True)), None

    def _reading(self, told: Told) -> parsing.Reading:
        """The grade in one answer."""
        if told.reason is not None:
            return parsing.Reading(None, told.reason)
        return parsing.parse(told.text, self._scale, words=self._prompt.words, cut=told.cut)


def _spread(told: Told, reading: parsing.Reading, scale: dict[str, int]) -> list[float] | None:
    """The distribution over the answers, in their order, in the place of the token that is the grade.

    None: there is no such token, or its probabilities are not told.
    """
    token = _at(told, reading)
    if token is None:
        return None
    mass = dict.fromkeys(scale, 0.0)
    for text, logprob in token.top.items():
        answer = _word(text)
        if answer in mass and not math.isnan(logprob):
            mass[answer] += math.exp(min(logprob, 0.0))
    total = sum(mass.values())
    chosen = next(answer for answer, grade in scale.items() if grade == reading.grade)
    return [m / total for m in mass.values()] if mass[chosen] > 0 else None


def _at(told: Told, reading: parsing.Reading) -> Token | None:
    """The token that stands where the grade was read, if it is the whole grade."""
    text = told.text or ""
    # Some servers (vLLM) also tell of the mark that ended the answer, which is no part of the text.
    if reading.start < 0 or not "".join(token.text for token in told.tokens).startswith(text):
        return None
    end = 0
    for token in told.tokens:
        start, end = end, end + len(token.text)
        if end > reading.start:
            whole = start <= reading.start and reading.end <= end
            return (
                token if whole and _word(token.text) == text[reading.start : reading.end].casefold() else None
            )
    return None


def _word(token: str) -> str:
    return token.strip().casefold()
