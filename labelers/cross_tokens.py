"""Pairs of texts as a cross-encoder reads them: the query, whole, and as much of the document as fits.

The model's own tokenizer puts its marks around the two. A document cannot end its part: whatever in a text is
spelled like a mark is broken up, and a pair in which one comes through all the same is not asked.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from harness.errors import LabelerError
from labelers.causal_tokens import MARKS, TOO_LONG
from labelers.text_windows import LONGEST_TOKEN, open_tokenizer

__all__ = ["UNKNOWN", "PairTokens", "Read"]

UNKNOWN = "a token that the model does not know"


class Read(NamedTuple):
    """A pair as the model sees it, or a reason why it cannot be asked.

    Attributes
    ----------
    ids: tokens, the marks included. types: for each, which part it belongs to. cut: the document was
        shortened.
    """

    ids: list[int]
    types: list[int]
    cut: bool
    reason: str | None


class PairTokens:
    """What turns pairs into token ids.

    Parameters
    ----------
    file: a tokenizer.json. longest: tokens that the model can read, None: any number. tokens: of a document,
        at most. known: how many tokens the model has, None: any number. parts: whether the model is told
        which tokens are the document's; without, all are of part 0.

    Raises
    ------
    MissingExtra: tokenizers is not installed. LabelerError: the file is no tokenizer.
    """

    def __init__(
        self, file: Path, longest: int | None, tokens: int, known: int | None, *, parts: bool = True
    ) -> None:
        self._tokenizer = open_tokenizer(file)
        unknown = _unknown(file)
        self._longest, self._tokens, self._known = longest, tokens, known
        self._frame = _Frame.of(self._tokenizer.encode("a", "a"), file, parts)
        added = self._tokenizer.get_added_tokens_decoder()
        marks = {number for number, token in added.items() if token.special} - {unknown}
        self._marks = marks.union(*self._frame.marks)
        spelled = [str(self._tokenizer.id_to_token(number) or "") for number in self._marks]
        long = sorted((mark for mark in spelled if len(mark.strip()) > 1), key=len, reverse=True)
        self._spelled = re.compile("|".join(map(re.escape, long)) or r"(?!)", re.I)

    def read(self, pairs: Sequence[tuple[str, str]]) -> list[Read]:
        """The ids of pairs (query, document); equal texts are read once."""
        head = LONGEST_TOKEN * min(self._tokens, self._longest or self._tokens)
        texts = list(dict.fromkeys([q for q, _ in pairs] + [d[:head] for _, d in pairs]))
        plain = [self._spelled.sub(lambda m: f"{m[0][0]} {m[0][1:]}", text) for text in texts]
        found = self._tokenizer.encode_batch_fast(plain, add_special_tokens=False)
        ids = {text: one.ids for text, one in zip(texts, found, strict=True)}
        return [self._pair(ids[q], ids[d[:head]], len(d) > head) for q, d in pairs]

    def _pair(self, query: list[int], document: list[int], cut: bool) -> Read:
        room = self._tokens
        if self._longest is not None:
            room = min(room, self._longest - len(query) - sum(map(len, self._frame.marks)))
        if room < 1:
            return Read([], [], False, TOO_LONG)
        cut, document = cut or len(document) > room, document[:room]
        if not self._marks.isdisjoint(query) or not self._marks.isdisjoint(document):
            return Read([], [], cut, MARKS)
        if self._known is not None and max(*query, *document, 0, 0) >= self._known:
            return Read([], [], cut, UNKNOWN)
        return Read(*self._frame.filled(query, document), cut, None)


class _Frame(NamedTuple):
    """What a tokenizer puts around a pair: marks before, between and after, and the parts' numbers."""

    marks: tuple[list[int], list[int], list[int]]
    types: tuple[list[int], list[int], list[int]]
    parts: tuple[int, int]

    @classmethod
    def of(cls, pair: Any, file: Path, told: bool) -> _Frame:
        """That of a pair that the tokenizer has read."""
        owner = pair.sequence_ids
        if 0 not in owner or 1 not in owner or owner.index(0) > owner.index(1):
            raise LabelerError(f"{file} is not a tokenizer that reads a query and then a document")
        last = [len(owner) - owner[::-1].index(part) for part in (0, 1)]
        spans = [slice(0, owner.index(0)), slice(last[0], owner.index(1)), slice(last[1], None)]
        numbers = pair.type_ids if told else [0] * len(owner)
        marks, types = ([values[span] for span in spans] for values in (pair.ids, numbers))
        parts = (numbers[owner.index(0)], numbers[owner.index(1)])
        return cls((marks[0], marks[1], marks[2]), (types[0], types[1], types[2]), parts)

    def filled(self, query: list[int], document: list[int]) -> tuple[list[int], list[int]]:
        """Ids and parts of a pair."""
        (a, b, c), (x, y, z), (first, second) = self
        types = [*x, *[first] * len(query), *y, *[second] * len(document), *z]
        return [*a, *query, *b, *document, *c], types


def _unknown(file: Path) -> int | None:
    """The token that stands for text that the tokenizer does not know."""
    try:
        model = json.loads(file.read_text(encoding="utf-8"))["model"]
        if "unk_id" in model:
            return model["unk_id"]  # type: ignore[no-any-return]
        return dict(model["vocab"]).get(model.get("unk_token"))
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise LabelerError(f"{file} cannot be read as a tokenizer: {exc}") from exc
