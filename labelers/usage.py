"""What asking a model has cost: requests, tokens, and money by the user's own table of prices.

currency = "USD"
[models."some-model"]     # prices of a million tokens
input = 0.15
output = 0.60
cached_input = 0.075      # optional: input that the server had computed before
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.errors import InputError, UnknownName

__all__ = ["Prices", "Usage", "read_prices"]


@dataclass(frozen=True)
class Prices:
    """What a million tokens of one model cost."""

    currency: str
    input: float
    output: float
    cached_input: float


@dataclass
class Usage:
    """Counts since a labeler was made.

    Attributes
    ----------
    requests: sent, retries among them. retries: sent again for the same pair. batches: files of requests that
        were sent.
    tokens_in, tokens_out: as the server counted them, of failed answers too. tokens_cached: those of
        tokens_in that it had computed before.
    cut: pairs whose document was shortened. spread: pairs with a distribution from the model's own
        probabilities; parsed: pairs whose grade was read from an answer instead, or from several.
    samples: answers of pairs that are asked several times; unread: those of them without a grade.
    """

    requests: int = 0
    retries: int = 0
    tokens_in: int = 0
    tokens_cached: int = 0
    tokens_out: int = 0
    cut: int = 0
    spread: int = 0
    parsed: int = 0
    samples: int = 0
    unread: int = 0
    batches: int = 0

    def count(self, told: Any) -> int:
        """Count the tokens that a server's `usage` tells of; returns how many they are."""
        told = told if isinstance(told, dict) else {}
        details = told.get("prompt_tokens_details")
        cached = _whole(details.get("cached_tokens")) if isinstance(details, dict) else 0
        asked, given = _whole(told.get("prompt_tokens")), _whole(told.get("completion_tokens"))
        self.tokens_in += asked
        self.tokens_out += given
        self.tokens_cached += min(cached, asked)
        return asked + given

    def report(self, prices: Prices | None) -> dict[str, int | float | str]:
        """The counts, and with prices `cost` and `currency`."""
        told: dict[str, int | float | str] = dict(asdict(self))
        if prices is not None:
            fresh = self.tokens_in - self.tokens_cached
            parts = (
                (fresh, prices.input),
                (self.tokens_cached, prices.cached_input),
                (self.tokens_out, prices.output),
            )
            told["cost"] = sum(tokens * price for tokens, price in parts) / 1e6
            told["currency"] = prices.currency
        return told


def read_prices(path: str | Path, model: str) -> Prices:
    """The prices of a model in a table.

    Raises
    ------
    InputError: the file cannot be read, or a price is no number from 0 on. UnknownName: the model is not in
        it.
    """
    from harness.strict_toml import parse  # slow to import, and few name a file

    table = parse(path)
    models = table.get("models")
    if not isinstance(models, Mapping):
        raise InputError(path, None, 'has no table [models."NAME"] with input and output')
    if not isinstance(models.get(model), Mapping):
        raise UnknownName(f"model in {path}", model, models)
    row = {"cached_input": models[model].get("input"), **models[model]}
    for name in ("input", "output", "cached_input"):
        price = row.get(name)
        if isinstance(price, bool) or not isinstance(price, int | float) or not 0 <= price < math.inf:
            raise InputError(path, None, f"{name} of {model!r} is {price!r}, not a price of a million tokens")
    if unknown := sorted(set(row) - {"input", "output", "cached_input"}):
        raise InputError(path, None, f"{unknown[0]!r} of {model!r} is none of input, output, cached_input")
    currency = table.get("currency", "")
    return Prices(str(currency), row["input"], row["output"], row["cached_input"])


def _whole(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
