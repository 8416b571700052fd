"""What a server tells in a chat completion, as the OpenAI protocol has it: answers, or why there is none."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

__all__ = ["Failure", "Token", "Told", "json_object", "told_in"]


class Token(NamedTuple):
    """A token of an answer, and the log-probabilities of the likeliest in its place."""

    text: str
    top: dict[str, float]


class Told(NamedTuple):
    """What a server told for one prompt: `text`, or `reason` why there is none.

    `cut`: the answer stopped at its token limit. `tokens`: of the answer, where the server gives their
    log-probabilities. `failed`: there is no answer at all, not even one that declines; `refused`: because of
    this, which the server does not take.
    """

    text: str | None
    reason: str | None
    cut: bool = False
    tokens: Sequence[Token] = ()
    failed: bool = False
    refused: str | None = None


class Failure(Exception):
    """A try that failed.

    `again`: another may succeed, after `wait` seconds if the server says so. `fatal`: no other prompt can
    succeed either. `refused`: what was sent that the server does not take. `status`: of the response.
    """

    status: int | None = None

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


def json_object(raw: bytes) -> dict[str, Any]:
    """The JSON object of a response; {} if it holds none."""
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def told_in(found: dict[str, Any]) -> list[Told]:
    """What a response with status 200 tells; a failed try if that is not what the protocol says."""
    try:
        choices = list(found["choices"])
    except (KeyError, TypeError):
        choices = []
    if not choices:
        raise Failure("the server's answer cannot be read", again=True)
    return [_chosen(choice) for choice in choices]


def _chosen(choice: Any) -> Told:
    """One of the answers in a response."""
    try:
        message, finish = choice["message"], choice.get("finish_reason")
        text, refusal = message.get("content"), message.get("refusal")
    except (KeyError, IndexError, TypeError, AttributeError):
        raise Failure("the server's answer cannot be read", again=True) from None
    if finish == "content_filter":
        return Told(None, "refusal (content filter)")
    if isinstance(refusal, str) and refusal:
        return Told(None, "refusal")
    if text is not None and not isinstance(text, str):
        raise Failure("the server's answer cannot be read", again=True)
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
