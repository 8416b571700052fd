"""Queries without a language model: the key phrases of a document, put into the forms that queries have.

A key phrase is one to three words in a row without a stop word or punctuation between them, that say what the
document is about: rare in the corpus, frequent in the document, in its title or near its beginning. Kinds:

    navigational  what the title says          standard laptop models
    keyword       two or three key phrases     lost badge security line
    fact          asked for a number, a date, a person or a meaning that stands in a sentence
    how-to        something the text says one may do ("to open the lid", "Send the form")
    long          a sentence that asks about several key phrases

These are not questions that anybody had. They name a document by its words, so they are easier for BM25 than
people's queries are, and a labeler learnt from them has seen less of how needs and documents differ in words.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256

import numpy as np

from harness.draws import generator
from labelers.distill.coverage import Seed, Task

__all__ = ["VERSION", "Keyphrases"]

VERSION = 1
"""Goes up with every change to what is written."""
_STREAM = 604
_FEATURES = 2**20
_CUT = 6000  # characters of a document that phrases are taken from
_WORD = re.compile(r"[^\W_][\w+#]*(?:[-.][\w+#]+)*(?:['’](?!s\b)\w+)?")
_BREAK = re.compile(r"[.!?](?=\s|$)|[,;:()\[\]{}\"“”<>=|/\n\t]|\s[-–—]\s")
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")
_UNITS = {
    "second": "how long", "seconds": "how long", "minute": "how long", "minutes": "how long",
    "hour": "how long", "hours": "how long", "day": "how long", "days": "how many days",
    "week": "how long", "weeks": "how many weeks", "month": "how long", "months": "how many months",
    "year": "how long", "years": "how many years", "times": "how often", "percent": "what percentage",
}  # fmt: skip
_MONTH = re.compile(
    r"\b(?:January|February|March|April|June|July|August|September|October|November|December)\b"
)
_NUMBER = re.compile(r"\b\d[\d,.]*\s+([a-z]+)")
_MONEY = re.compile(r"[$€£]\s?\d|\b\d[\d,.]*\s?(?:dollars|euros|pounds|EUR|USD|GBP)\b")
_PERSON = re.compile(r"(?<=[a-z,:] )[A-Z][a-z]+ [A-Z][a-z]+\b")
_NAME = re.compile(r"\b[A-Z][a-z]+ [A-Z][a-z]+\b")
_MEANING = re.compile(r"^((?:[A-Z][\w-]*)(?: [\w-]+){0,2}) (?:is|are|means|refers to) (?:a|an|the)\b")
_TO_DO = re.compile(r"\bto ([a-z]{3,12}) ((?:the|a|an|your|this|its|their|all) [^.,;:!?()\n]{3,60})")
_DO = re.compile(r"^([A-Z][a-z]{2,10}) ((?:the|a|an|your|this|its|all|any) [^.,;:!?()\n]{3,60})")
_LIST_MARK = re.compile(r"^\W*(?:\d+[.)]\s*)?")
_NO_VERB = re.compile(r"(?:ed|ing|ly|ous|ion|ity|ness|ments?)$")
_ENDS_OBJECT = {
    "and", "or", "if", "when", "while", "because", "so", "that", "which", "who", "with", "in", "on", "at",
    "by", "from", "until", "unless", "as", "is", "are", "was", "were", "be", "will", "can", "may", "must",
    "for", "of", "before", "after", "within", "into", "but", "than", "then", "where", "whose", "has", "have",
    "to",
}  # fmt: skip
_LONG = (
    "i need to know about {0}, in particular {1} and {2}",
    "where does it say what applies to {0} when it comes to {1} and {2}",
    "can somebody explain {0} to me, i am mainly interested in {1} and {2}",
    "looking for a document about {0} that also covers {1} and {2}",
    "i have a question about {1} and {2}, it has to do with {0}",
)
_LONG_OF_TWO = "i need to know what there is about {0}, above all what it has to do with {1}"
_OPENING = frozenset(["a", "an", "the", "to", "from", "of", "re", "for", "on", "in", "at", "fwd", "and"])
_EMPTY = frozenset(
    [
        "there",
        "this",
        "that",
        "these",
        "those",
        "it",
        "here",
        "what",
        "which",
        "who",
        "he",
        "she",
        "they",
        "we",
        "you",
        "all",
        "one",
    ]
)
_HOW = ("how does {0} work", "how to deal with {0}", "what do i do about {0}")


@dataclass(frozen=True)
class _Read:
    """A document as it was read: its title's words, its sentences, its key phrases, the best first, and
    `topic`, what it is about: the best phrase of several words, where there is one."""

    title: list[str]
    sentences: list[str]
    phrases: list[str]
    topic: str


class Keyphrases:
    """Writes queries from the words of documents.

    Parameters
    ----------
    seeds: all documents, for how rare words and phrases are. seed: what chance hangs on; for one document and
        kind it always falls out the same.
    """

    label = "keyphrase"

    def __init__(self, seeds: Sequence[Seed], seed: int) -> None:
        self._seeds, self._seed = seeds, seed

    @property
    def made_of(self) -> dict[str, object]:
        """What decides what is written."""
        return {"keyphrase": VERSION}

    def write(self, batch: Sequence[Task]) -> list[tuple[str | None, str]]:
        """A query for each task, or None and why there is none."""
        return [self._written(task) for task in batch]

    def _written(self, task: Task) -> tuple[str | None, str]:
        read = self._read(task.seed.text)
        if not read.phrases:
            return None, "no key phrase"
        key = sha256(f"{task.seed.doc_id}\0{task.kind}".encode()).digest()
        rng = generator(self._seed ^ int.from_bytes(key[:8]), _STREAM)
        query = _FORMS[task.kind](read, rng)
        return (query, "") if query else (None, f"nothing for a {task.kind} query")

    # -- the corpus ------------------------------------------------------------------------------------------

    @cached_property
    def _stops(self) -> frozenset[str]:
        from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

        more = "also etc may might used using use uses within without per via one two three new"
        return frozenset(ENGLISH_STOP_WORDS) | frozenset(more.split())

    @cached_property
    def _counts(self) -> tuple[Counter[str], np.ndarray[tuple[int], np.dtype[np.int64]]]:
        """In how many documents each word stands; and each phrase of two or three words, by its hash."""
        words: Counter[str] = Counter()
        phrases = np.zeros(_FEATURES, dtype=np.int64)
        for one in self._seeds:
            runs = self._runs(one.text[:_CUT])
            words.update({word.lower() for run in runs for word in run})
            places = {_place(p) for run in runs for n in (2, 3) for p in _grams(run, n)}
            phrases[list(places)] += 1
        return words, phrases

    def _runs(self, text: str) -> list[list[str]]:
        """Words in a row without a stop word or punctuation between them, as they are written."""
        found: list[list[str]] = []
        for part in _BREAK.split(text):
            run: list[str] = []
            for word in _WORD.findall(part):
                if word.lower() in self._stops or len(word) < 2 or word.isdigit():
                    found.append(run)
                    run = []
                else:
                    run.append(word)
            found.append(run)
        return [run for run in found if run]

    # -- a document ------------------------------------------------------------------------------------------

    def _read(self, text: str) -> _Read:
        text = text[:_CUT]
        first, _, rest = text.strip().partition("\n")
        words = _WORD.findall(first)
        titled = bool(rest.strip()) and 0 < len(words) <= 16 and not first.rstrip().endswith((".", ",", ";"))
        body = rest if titled else text
        sentences = [s.strip() for s in _SENTENCE.split(body) if len(_WORD.findall(s)) >= 4]
        phrases = self._phrases(text, first if titled else "")
        topic = next((p for p in phrases[:4] if " " in p), " ".join(phrases[:2]))
        return _Read(self._title(first) if titled else [], sentences, phrases, topic)

    def _title(self, line: str) -> list[str]:
        """The words of a title without what stands in brackets, or behind a dash."""
        plain = re.sub(r"[(\[][^)\]]*[)\]]", " ", line)
        parts = [p for p in re.split(r"\s[-–—|]\s|: ", plain) if len(_WORD.findall(p)) >= 2]
        words = [w.lower() for w in _WORD.findall(parts[0] if parts else plain)][:7]
        while words and words[-1] in self._stops:
            words.pop()
        while words and words[0] in _OPENING:
            words.pop(0)
        return words

    def _phrases(self, text: str, title: str) -> list[str]:
        """Key phrases in small letters, the best first, none inside another that is better."""
        words, pairs = self._counts
        documents = len(self._seeds)
        runs = self._runs(text)
        count = Counter(p for run in runs for n in (1, 2, 3) for p in _grams(run, n))
        place: dict[str, int] = {}
        for number, run in enumerate(runs):
            for n in (1, 2, 3):
                for phrase in _grams(run, n):
                    place.setdefault(phrase, number)
        in_title = {p for run in self._runs(title) for n in (1, 2, 3) for p in _grams(run, n)}
        common = max(0.2 * documents, 3)
        people = {word.lower() for match in _NAME.findall(text) for word in match.split()}
        scores: dict[str, float] = {}
        for phrase, times in count.items():
            parts = phrase.split(" ")
            if any(words[w] > common for w in parts) or len(set(parts)) < len(parts):
                continue
            rare = float(np.mean([np.log((documents + 1) / (words[w] + 0.5)) for w in parts]))
            score = rare * (1 + np.log(times)) / (1 + 0.5 * place[phrase] / max(len(runs), 1))
            if len(parts) == 1:
                score *= 0.75 if len(phrase) > 3 else 0.5
            elif phrase in in_title or pairs[_place(phrase)] > 1 or times > 1:
                score *= 1.25
            else:  # words that stand side by side once in the whole corpus need not belong together
                score *= 0.7
            # Names are in many documents, and seldom what one is about.
            scores[phrase] = score * (1.4 if phrase in in_title else 0.5 if people.issuperset(parts) else 1.0)
        kept: list[str] = []
        for phrase in sorted(scores, key=lambda p: (-scores[p], p)):
            if not any(set(phrase.split()) & set(other.split()) for other in kept):
                kept.append(phrase)
            if len(kept) == 10:
                break
        return kept


def _grams(run: Sequence[str], n: int) -> list[str]:
    return [" ".join(run[i : i + n]).lower() for i in range(len(run) - n + 1)]


def _place(phrase: str) -> int:
    return int.from_bytes(sha256(phrase.encode()).digest()[:4]) % _FEATURES


# -- kinds ---------------------------------------------------------------------------------------------------


def _navigational(read: _Read, rng: np.random.Generator) -> str:
    if len(read.title) >= 2:
        return " ".join(read.title)
    return " ".join(read.phrases[:2])


def _keyword(read: _Read, rng: np.random.Generator) -> str:
    """Words of the body beside one of the best phrases: two to five in all."""
    first = read.phrases[int(rng.integers(min(3, len(read.phrases))))]
    found = first.split()
    others = [p for p in read.phrases[:8] if p != first]
    for place in rng.permutation(len(others)):
        more = others[place].split()
        if len(found) + len(more) <= 4:
            found += more
        if len(found) >= int(2 + rng.integers(3)):
            break
    return " ".join(found)


def _fact(read: _Read, rng: np.random.Generator) -> str:
    """Asks for what a sentence gives; without such a sentence, for what the best phrase is."""
    asked = []
    for sentence in read.sentences:
        about = _about(sentence, read)
        if not about:
            continue
        if (match := _MEANING.match(sentence)) and match[1].split()[0].lower() not in _EMPTY:
            asked.append(f"what is {match[1].lower()}")
        if _MONEY.search(sentence):
            asked.append(f"how much does {about} cost")
        if (match := _NUMBER.search(sentence)) and match[1] in _UNITS:
            asked.append(f"{_UNITS[match[1]]} {about}")
        if _PERSON.search(sentence):
            asked.append(f"who is responsible for {about}")
        if _MONTH.search(sentence):
            asked.append(f"when is {about}")
    if asked:
        return asked[int(rng.integers(len(asked)))]
    return f"what is {read.topic}"


def _about(sentence: str, read: _Read) -> str:
    """What a sentence of the document is about: its own phrase, and the document's where that is another."""
    low = " ".join(w.lower() for w in _WORD.findall(sentence))
    own = [p for p in read.phrases if f" {p} " in f" {low} "]
    if not own:
        return ""
    return own[0] if set(own[0].split()) & set(read.topic.split()) else f"{own[0]} {read.topic}"


def _how_to(read: _Read, rng: np.random.Generator) -> str:
    """Something that the text says one may do, and what it is about."""
    asked = []
    for sentence in read.sentences:
        sentence = _LIST_MARK.sub("", sentence)
        for match in [*_TO_DO.finditer(sentence), *filter(None, [_DO.match(sentence)])]:
            verb, done = match[1].lower(), _object(match[2])
            if done and not _NO_VERB.search(verb) and verb not in _ENDS_OBJECT and not _determiner(verb):
                asked.append(f"how do i {verb} {done}")
    if not asked:
        return _HOW[int(rng.integers(len(_HOW)))].format(read.topic)
    found = asked[int(rng.integers(len(asked)))]
    return found if set(read.topic.split()) & set(found.split()) else f"{found} {read.topic}"


def _object(text: str) -> str:
    """An object without what follows it: at most four words, the last of which is no article."""
    words: list[str] = []
    for word in (w.lower() for w in _WORD.findall(text)):
        if word in _ENDS_OBJECT or len(words) == 4:
            break
        words.append(word)
    return " ".join(words) if len(words) >= 2 and not _determiner(words[-1]) else ""


def _determiner(word: str) -> bool:
    return word in {
        "the",
        "a",
        "an",
        "your",
        "this",
        "its",
        "their",
        "all",
        "any",
        "both",
        "some",
        "not",
        "and",
    }


def _long(read: _Read, rng: np.random.Generator) -> str:
    if len(read.phrases) < 3:
        return ""
    others = [p for p in read.phrases[:7] if not set(p.split()) & set(read.topic.split())]
    if not others:
        return ""
    if len(others) == 1:
        return _LONG_OF_TWO.format(read.topic, others[0])
    two = [others[int(i)] for i in rng.permutation(len(others))[:2]]
    return _LONG[int(rng.integers(len(_LONG)))].format(read.topic, *two)


_FORMS = {
    "navigational": _navigational,
    "fact": _fact,
    "how-to": _how_to,
    "keyword": _keyword,
    "long": _long,
}
