"""When two queries are the same: by their words, or by their character trigrams."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable

__all__ = ["NearIndex", "normal", "trigrams"]

_WORD = re.compile(r"[^\W_]+")


def normal(text: str) -> str:
    """Words in small letters with one blank between, accents and compatibility forms made plain.

    Two queries that differ in case, punctuation or white space only have one normal text.
    """
    plain = unicodedata.normalize("NFKD", text).casefold()
    return " ".join(_WORD.findall("".join(c for c in plain if not unicodedata.combining(c))))


def trigrams(text: str) -> frozenset[str]:
    """Character trigrams of the normal text, with a blank before and behind."""
    padded = f" {normal(text)} "
    return frozenset(padded[i : i + 3] for i in range(max(len(padded) - 2, 1)))


class NearIndex:
    """Texts that have been taken, and whether a further one is near one of them.

    Near: the Jaccard similarity of their trigrams is at least `threshold` (0 to 1; 1: the same trigrams).

    Only texts that share one of the first trigrams of a fixed order can be so near (prefix filtering:
    Chaudhuri, Ganti & Kaushik, ICDE 2006), so that a query is compared with few of many.
    """

    def __init__(self, threshold: float, texts: Iterable[str] = ()) -> None:
        self.threshold = threshold
        self._texts: list[str] = []
        self._grams: list[frozenset[str]] = []
        self._by_gram: dict[str, list[int]] = defaultdict(list)
        for text in texts:
            self.add(text)

    def add(self, text: str) -> None:
        """Take a text."""
        grams = trigrams(text)
        for gram in self._first(grams):
            self._by_gram[gram].append(len(self._texts))
        self._texts.append(text)
        self._grams.append(grams)

    def near(self, text: str) -> str | None:
        """The first text taken that this one is near to, or None."""
        grams = trigrams(text)
        found = sorted({n for gram in self._first(grams) for n in self._by_gram.get(gram, ())})
        for number in found:
            other = self._grams[number]
            shared = len(grams & other)
            if shared >= self.threshold * (len(grams) + len(other) - shared) - 1e-9:
                return self._texts[number]
        return None

    def _first(self, grams: frozenset[str]) -> list[str]:
        """The trigrams of which two near texts share at least one."""
        least = math.ceil(self.threshold * len(grams) - 1e-9)  # that they share at the least
        return sorted(grams, key=_order)[: len(grams) - max(least, 1) + 1]


def _order(gram: str) -> tuple[int, str]:
    """Rare letters first, as far as one can tell without counting: it only has to be the same for all."""
    return sum("etaoinsr lhdcu".find(c) >= 0 for c in gram), gram
