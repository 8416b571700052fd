"""A model's tokenizer: pairs as token ids, and the one token that stands for each grade.

A prompt goes into the model's chat template where it has one, and ends in `Answer:` where it has none.
Documents cannot end their turn: whatever in a query or a document is spelled like a token that the model or
its template treats as a mark is broken up, and a prompt in which more marks are found than the template has
is not asked.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from harness.errors import LabelerError, MissingExtra, UsageError
from labelers.prompting import Cutter, Example, Prompt

__all__ = ["MARKS", "TOO_LONG", "Asked", "ChatTokens"]

MARKS = "marks of the model in the text"
TOO_LONG = "the query does not fit the model"
_ENDINGS = (("\n\nAnswer:", " "), ("\n\nAnswer: ", ""), ("\n\nAnswer:\n", ""))
"""Without a template: what ends a prompt, and what stands between that and a grade.

Tokenizers differ in whether " 2", "2" after a blank, or "2" on a line of its own is one token; the
first that is so for all grades is taken.
"""
_ELSEWHERE = "a prompt with other grades, or this model behind a server with answer=text"


class Asked(NamedTuple):
    """A pair as the model sees it: token ids, or a reason why it cannot be asked.

    `cut`: the document was shortened.
    """

    ids: list[int]
    cut: bool
    reason: str | None


class ChatTokens:
    """What turns pairs into token ids.

    Parameters
    ----------
    path: the model's folder. name: the model, for messages. prompt: what is asked. cutter: with the model's
        tokenizer. longest: tokens that the model can read, None: any number.

    Raises
    ------
    MissingExtra: transformers is not installed. LabelerError: the tokenizer cannot be loaded, or the chat
        template cannot be used. UsageError: a grade is not one token of its own.
    """

    def __init__(self, path: Path, name: str, prompt: Prompt, cutter: Cutter, longest: int | None) -> None:
        self._name, self._prompt, self._cutter, self._longest = name, prompt, cutter, longest
        self._tokenizer = _tokenizer(path)
        self._templated = self._tokenizer.chat_template is not None
        self._ending = ""
        self.answers = self._answers()
        """The token of each answer, in the order of the prompt's answers."""

    def ask(
        self, pairs: Sequence[tuple[str, str]], examples: Sequence[Sequence[Example]] | None = None
    ) -> list[Asked]:
        """The ids of pairs (query, document), each with its examples where the prompt shows any."""
        examples = [()] * len(pairs) if examples is None else examples
        plain = [
            (
                self._broken_up(query),
                self._broken_up(document),
                [Example(self._broken_up(one.text), one.grade) for one in shown],
            )
            for (query, document), shown in zip(pairs, examples, strict=True)
        ]
        filled = [self._prompt.fill(q, d, self._cutter, shown) for q, d, shown in plain]
        ids = self._ids([self._shown(prompt.text) for prompt in filled])
        asked = [Asked(one, prompt.cut, None) for one, prompt in zip(ids, filled, strict=True)]
        return [
            self._checked(one if self._fits(one.ids) else self._shortened(*pair, one))
            for pair, one in zip(plain, asked, strict=True)
        ]

    def _fits(self, ids: list[int]) -> bool:
        return self._longest is None or len(ids) <= self._longest

    def _shortened(self, query: str, document: str, examples: Sequence[Example], asked: Asked) -> Asked:
        """The same pair with less of the document and the examples: as much as fits beside the query."""
        assert self._longest is not None
        ids, room = asked.ids, min(self._cutter.tokens, len(asked.ids))
        while not self._fits(ids):
            room -= max(len(ids) - self._longest, 1)
            if room < 1:
                return Asked([], True, TOO_LONG)
            filled = self._prompt.fill(query, document, self._cutter.within(room), examples)
            (ids,) = self._ids([self._shown(filled.text)])
        return Asked(ids, filled.cut, None)

    def _checked(self, asked: Asked) -> Asked:
        marks = sum(token in self._marks for token in asked.ids)
        if asked.reason is None and marks != self._usual_marks:
            return asked._replace(ids=[], reason=MARKS)
        return asked

    # -- marks -----------------------------------------------------------------------------------------------

    @cached_property
    def _marks(self) -> dict[int, str]:
        """Tokens that are not text: the special ones, and those that the chat template writes.

        But for the one that stands for text that the tokenizer does not know.
        """
        known, template = self._tokenizer, str(self._tokenizer.chat_template or "")
        unknown = {known.unk_token_id} - {known.bos_token_id, known.eos_token_id}
        return {
            number: token.content
            for number, token in known.added_tokens_decoder.items()
            if token.content.strip()
            and (token.special or token.content in template)
            and number not in unknown
        }

    @cached_property
    def _usual_marks(self) -> int:
        """How many of them a prompt has."""
        (ids,) = self._ids([self._shown(self._prompt.fill("a", "a", self._cutter).text)])
        return sum(token in self._marks for token in ids)

    @cached_property
    def _spelled(self) -> re.Pattern[str]:
        long = sorted((m for m in self._marks.values() if len(m) > 1), key=len, reverse=True)
        return re.compile("|".join(map(re.escape, long)) or r"(?!)", re.I)

    def _broken_up(self, text: str) -> str:
        return self._spelled.sub(lambda m: f"{m[0][0]} {m[0][1:]}", text)

    # -- tokens ----------------------------------------------------------------------------------------------

    def _shown(self, text: str) -> str:
        """The prompt as the model sees it, up to where its answer begins."""
        if not self._templated:
            return text + self._ending
        turn = [{"role": "user", "content": text}]
        try:
            # Where a template knows the word, the model does not think before it answers.
            shown: str = self._tokenizer.apply_chat_template(
                turn, tokenize=False, add_generation_prompt=True, enable_thinking=False
            )
        except Exception as exc:  # jinja's, or what a template raises
            raise LabelerError(f"the chat template of {self._name} cannot be used: {exc}") from exc
        return shown

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        told = self._tokenizer(list(texts), add_special_tokens=False, truncation=False, verbose=False)
        return [self._lead + ids for ids in told["input_ids"]]

    @cached_property
    def _lead(self) -> list[int]:
        """What stands before every text, such as <s>; a chat template writes that itself."""
        if self._templated:
            return []
        bare, whole = (self._tokenizer("a", add_special_tokens=on)["input_ids"] for on in (False, True))
        return whole[: whole.index(bare[0])] if bare and bare[0] in whole else []

    def _answers(self) -> list[int]:
        if not self._templated:
            for ending, space in _ENDINGS:
                self._ending = ending
                if len(tokens := self._after(space)) and all(len(t) == 1 for t in tokens.values()):
                    break
        else:
            tokens = self._after("")
            if self._shown("a").rstrip().endswith("<think>"):
                raise UsageError(
                    f"{self._name} thinks before it answers: its first token is no grade.\nNext: this model "
                    "behind a server, openai:MODEL@URL?answer=text"
                )
        return self._one_each(tokens)

    def _after(self, space: str) -> dict[str, list[int]]:
        """The tokens that each answer adds to a prompt; none if it changes the prompt's own."""
        shown = self._shown(self._prompt.fill("a", "a", self._cutter).text)
        before, *after = self._ids([shown, *(f"{shown}{space}{answer}" for answer in self._prompt.answers)])
        return {
            answer: ids[len(before) :] if ids[: len(before)] == before else []
            for answer, ids in zip(self._prompt.answers, after, strict=True)
        }

    def _one_each(self, tokens: dict[str, list[int]]) -> list[int]:
        seen: dict[int, str] = {}
        unknown = self._tokenizer.unk_token_id
        for answer, ids in tokens.items():
            if not ids or ids[0] == unknown:
                raise UsageError(f"{self._name} has no token for the grade {answer!r}.\nNext: {_ELSEWHERE}")
            if ids[0] in seen:
                raise UsageError(
                    f"for {self._name} the grade {answer!r} begins with the same token as the grade "
                    f"{seen[ids[0]]!r}: one token does not tell them apart.\nNext: {_ELSEWHERE}"
                )
            if len(ids) > 1:
                pieces = " ".join(map(repr, self._tokenizer.convert_ids_to_tokens(ids)))
                raise UsageError(
                    f"for {self._name} the grade {answer!r} is {len(ids)} tokens, {pieces}, not one.\n"
                    f"Next: {_ELSEWHERE}"
                )
            seen[ids[0]] = answer
        return list(seen)


def _tokenizer(path: Path) -> Any:
    try:
        from transformers import AutoTokenizer
    except ModuleNotFoundError as exc:
        raise MissingExtra("transformers", "hf") from exc
    try:
        return AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    except Exception as exc:
        raise LabelerError(f"{path} holds no tokenizer that transformers can load: {exc}") from exc
