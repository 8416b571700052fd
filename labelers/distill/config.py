"""The settings of `stopgap distill`: what is distilled, out of what, by whom. Read strictly.

    collection = "demo"                   # a folder, irds:ID, or demo
    out = "distilled"                     # every stage writes its file here
    seed = 0
    ledger = ".stopgap/ledger"            # where the teachers' answers are kept

    [synthesize]
    queries = 400
    kinds = ["navigational", "fact", "how-to", "keyword", "long"]
    generator = "keyphrase"               # no LLM; or openai:MODEL@URL, hf:FOLDER

    [negatives]
    bm25 = 4
    encoder = 4
    random = 2

    [teach]
    teachers = ["minilm", "human"]

    [human]
    test_share = 0.5

    [train]
    student = "encoder"

    [accept]
    criterion = "kappa_quadratic"

    [export]
    folder = "labeler"

Every key but `collection` and `out` has a default; docs/distill.md lists them. Paths are relative to the
file's folder.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, get_args

from harness.strict_toml import Field, Misfit, SettingsFile, Table, Text, read
from labelers.distill.sections import NONE, Accept, Export
from labelers.distill.train_settings import EMBEDDED, ENCODER, ENCODER_KEYS, OTHERS_KEYS, Train

__all__ = [
    "DEMO",
    "GENERATORS",
    "HUMAN",
    "KEYPHRASE",
    "KINDS",
    "NONE",
    "Config",
    "Human",
    "Kind",
    "Negatives",
    "Settings",
    "Synthesize",
    "Teach",
    "read_settings",
]

Kind = Literal["navigational", "fact", "how-to", "keyword", "long"]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""The kinds of queries."""
DEMO = "demo"
"""In place of a file of settings: the embedded collection, everything else by default."""
KEYPHRASE = "keyphrase"
"""The generator that needs no language model."""
GENERATORS = (KEYPHRASE, "openai", "hf")
"""What a generator's name begins with."""
HUMAN = "human"
"""The teacher that is the human judgments; also the name of a collection's judgments that count."""

_EXAMPLE = """\
Next: write one, such as
  collection = "demo"
  out = "distilled"
  [synthesize]
  generator = "keyphrase"
  [teach]
  teachers = ["minilm", "human"]"""

_Share = Annotated[float, Field(ge=0, le=1)]
_Count = Annotated[int, Field(ge=0)]
_Some = Annotated[int, Field(ge=1)]
_Weight = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Synthesize(Table):
    """`[synthesize]`: queries written from seed documents.

    Attributes
    ----------
    queries: how many. kinds: of what kinds, about as many of each. generator: who writes them.
    per_document: from one document at most, each of another kind. near: Jaccard similarity of two queries'
        character trigrams from which on the second is left out.
    """

    queries: _Some = 400
    kinds: Annotated[list[Kind], Field(min_length=1)] = Field(default=list(KINDS))
    generator: Text = KEYPHRASE
    per_document: Annotated[int, Field(ge=1, le=len(KINDS))] = 2
    near: Annotated[float, Field(gt=0, le=1)] = 0.7


class Negatives(Table):
    """`[negatives]`: the documents that a synthetic query is paired with, beside its own.

    Attributes
    ----------
    bm25, encoder, random: how many of each for a query. depth: ranks that the hard ones are drawn from.
    model: the labeler that gives vectors, or `none`.
    similar: cosine with the seed document from which on a document is as good as it, and left out.
    margin: how much nearer to the query than its seed document a document may be, by the vectors' cosine.
    """

    bm25: _Count = 4
    encoder: _Count = 4
    random: _Count = 2
    depth: _Some = 50
    model: Text = "minilm"
    similar: _Share = 0.9
    margin: Annotated[float, Field(ge=0, le=2)] = 0.1


class Teach(Table):
    """`[teach]`: who gives the grades to learn.

    Attributes
    ----------
    teachers: labelers by name, and `human` for the judgments. weights: of the labelers, in their order;
        `human` has none, its word counts alone. smoothing: share of a judgment that goes to the grades beside
        it. human_weight, synthetic_weight: what a pair counts in training.
    """

    teachers: Annotated[list[Text], Field(min_length=1)] = Field(default=["minilm", HUMAN])
    weights: Annotated[list[_Weight], Field(min_length=1)] | None = None
    smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    human_weight: _Weight = 1.0
    synthetic_weight: _Weight = 1.0


class Human(Table):
    """`[human]`: the judgments, and which topics are for training and which for the test.

    Attributes
    ----------
    qrels: the collection's judgments of that name, a file, or `none`.
    train, test: query ids, or a file with one a line. With one of them, the other is the rest. With neither,
        `test_share` of the judged topics, drawn with the seed, are for the test.
    test_collection: another collection, whose judged topics are the test; then all here may be for training.
    """

    qrels: Text = HUMAN
    train: list[Text] | Text | None = None
    test: list[Text] | Text | None = None
    test_share: _Share = 0.5
    test_collection: Text | None = None


class Config(Table):
    """The whole file."""

    collection: Text
    out: Text
    seed: _Count = 0
    ledger: Text = ".stopgap/ledger"
    synthesize: Synthesize = Synthesize()
    negatives: Negatives = Negatives()
    teach: Teach = Teach()
    human: Human = Human()
    train: Train = Train()
    accept: Accept = Accept()
    export: Export = Export()


@dataclass(frozen=True)
class Settings(SettingsFile):
    """A file of settings that has been read: `config` as it stands there, and paths as seen from the working
    folder."""

    config: Config

    @property
    def out(self) -> Path:
        """The folder that stages write to."""
        return self.at(self.config.out)

    @property
    def ledger(self) -> str:
        """The ledger's folder or URL."""
        return self.config.ledger if "://" in self.config.ledger else str(self.at(self.config.ledger))

    @property
    def collection(self) -> str:
        """The collection, as `harness.collection.open_collection` takes it."""
        return self.collection_at(self.config.collection)


def read_settings(path: str | Path) -> Settings:
    """Read a file of settings; `demo`, where there is no such file: the embedded collection, the rest by
    default, into the folder `distilled` here.

    Raises
    ------
    InputError: there is no such file; it is not TOML; or a key is unknown (with the near ones), missing, of
        another type, out of its range, or does not fit the others.
    """
    if str(path) == DEMO and not Path(path).exists():
        return _settings(Path(DEMO), Config(collection=DEMO, out="distilled"))
    return read(path, Config, _settings, _EXAMPLE)


def _settings(path: Path, config: Config) -> Settings:
    for check in (_twice, _generator, _weights, _human, _pairs, _train):
        check(config)
    return Settings(path, config)


def _twice(config: Config) -> None:
    lists: dict[str, list[str]] = {
        "synthesize.kinds": list(config.synthesize.kinds),
        "teach.teachers": config.teach.teachers,
    }
    for key, given in lists.items():
        if more := [one for one in given if list(given).count(one) > 1]:
            raise Misfit(key, f"{key} has {more[0]!r} twice")


def _generator(config: Config) -> None:
    given = config.synthesize.generator
    if given == KEYPHRASE or (given.partition(":")[0] in GENERATORS[1:] and ":" in given):
        return
    what = f"synthesize.generator is {given!r}, but should be keyphrase, openai:MODEL@URL or hf:FOLDER"
    raise Misfit("synthesize.generator", what)


def _weights(config: Config) -> None:
    labelers = [name for name in config.teach.teachers if name != HUMAN]
    weights = config.teach.weights
    if weights is None or len(weights) == len(labelers):
        return
    what = f"teach.weights has {len(weights)} numbers for {len(labelers)} labelers ({', '.join(labelers)})"
    raise Misfit(
        "teach.weights", what, "The human judgments take no weight: where there is one, it is the grade"
    )


def _human(config: Config) -> None:
    if config.human.qrels == NONE and HUMAN in config.teach.teachers:
        raise Misfit("teach.teachers", 'teach.teachers has "human", but human.qrels is "none"')
    if config.human.test_collection is not None and config.human.test is not None:
        what = "human.test and human.test_collection both say which topics the test has"
        raise Misfit("human.test", what, "Next: take one of them out")


def _pairs(config: Config) -> None:
    given = config.negatives
    if given.model == NONE and given.encoder:
        what = f'negatives.encoder is {given.encoder}, but negatives.model is "none"'
        raise Misfit("negatives.encoder", what, "Next: encoder = 0")
    if not given.bm25 + given.encoder + given.random:
        raise Misfit(
            "negatives", "negatives asks for no document beside the seed: bm25, encoder and random are 0"
        )


def _train(config: Config) -> None:
    given = config.train
    if given.student == "causal-lm" and given.model == EMBEDDED:
        raise Misfit("train.model", "a causal-lm needs train.model: a folder or a hub id")
    if given.student == ENCODER and (idle := sorted(given.model_fields_set - set(ENCODER_KEYS))):
        keys = ", ".join(ENCODER_KEYS)
        what = f"train.{idle[0]} means nothing for the student {ENCODER}, whose keys are {keys}"
        raise Misfit(f"train.{idle[0]}", what, 'Next: take it out, or student = "cross-encoder"')
    for key, student in OTHERS_KEYS.items():
        if key in given.model_fields_set and given.student != student:
            what = f"train.{key} means nothing for the student {given.student}"
            raise Misfit(f"train.{key}", what, f'Next: take it out, or student = "{student}"')
