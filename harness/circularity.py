"""Circularity: whether labels come from a relative of the system they are to judge.

A labeler that shares its base model, its teacher or its training data with a ranker shares its blind spots
too, and may favour what it has in common with it (Balog, Metzler and Qin 2025; Clarke and Dietz 2024). What a
run was made of stands in its metadata twin (NAME.meta.yaml beside the file, as `stopgap retrieve` writes it),
what a labeler was made of in its `card` (`protocol.Labeler`), found by the name in the labels' ids, or in a
twin beside the file of labels. Both know the keys `base model`, `teacher`, `training data` (each a name, a
list of names, or "none") and `weights sha256`; in a run's twin they stand at the top or in the stages of
`method: retrieval`. Where nothing is stated nothing is known, which is never the same as being apart.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import polars as pl

from harness import registry
from harness.errors import Circular, InputError, UnknownName
from harness.protocol import CARD_KINDS, Labeler, label_id

__all__ = ["Card", "Relation", "check_circular", "labeler_cards", "relations", "run_card"]

_MODELS = ("base model", "teacher")
_STATED = ("base model", "teacher", "training data")
_SHOWN = 3  # names of a kind, in words
_ENDINGS = (".gz", ".zst", ".parquet", ".txt")


@dataclass(frozen=True)
class Card:
    """What is known of how a run or a labeler was made.

    `source`: where that stands. `facts`: kind -> names; a kind that is not stated is absent, one that is
    stated to be nothing is empty. `labelers`: ids or names of the labelers that it uses, or is.
    """

    name: str
    source: str
    facts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    labelers: tuple[str, ...] = ()

    @property
    def modelless(self) -> bool:
        """Whether it states that there is no model in it."""
        return self.facts.get("base model") == () and not any(self.facts.get(k) for k in CARD_KINDS)

    def lacks(self) -> list[str]:
        """The kinds that it does not state."""
        return [] if self.modelless else [kind for kind in _STATED if kind not in self.facts]

    def __str__(self) -> str:
        known = [f"{kind}: {_few(names) or 'none'}" for kind, names in self.facts.items()]
        return f"{self.name} ({self.source}): {'; '.join(known) or 'states nothing'}"


@dataclass(frozen=True)
class Relation:
    """How a run and a labeler are related.

    `status`: `shared`, `apart` (both state everything, or one has no model at all) or `unknown` (`lacking`
    says what is not stated). `shared`: kind -> names; a kind is one of CARD_KINDS, `labeler` (the run uses
    the labeler itself), or `teacher and base model` (what is the one to the run is the other to the labeler).
    `allowed`: the user named the run.
    """

    run: Card
    labeler: Card
    status: Literal["shared", "apart", "unknown"]
    shared: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    lacking: tuple[str, ...] = ()
    allowed: bool = False

    @property
    def common(self) -> str:
        """What is shared, in words."""
        return " and ".join(f"the {kind} {_few(names)}" for kind, names in self.shared.items())

    @property
    def nearest(self) -> str:
        """The closest of what is shared, in words; empty if nothing is."""
        order = (
            "base model",
            "teacher",
            "teacher and base model",
            "labeler",
            "weights sha256",
            "training data",
        )
        kind = next((k for k in order if k in self.shared), None)
        return f"the {kind} {_few(self.shared[kind])}" if kind else ""

    def to_json(self) -> dict[str, Any]:
        """The relation as `stopgap diagnose --json` has it."""
        return {
            "run": self.run.name,
            "labeler": self.labeler.name,
            "status": self.status,
            "shared": {kind: list(names) for kind, names in self.shared.items()},
            "lacking": list(self.lacking),
            "allowed": self.allowed,
            "cards": [str(self.run), str(self.labeler)],
        }


def check_circular(
    runs: Mapping[str, str | Path | pl.DataFrame],
    labels: pl.DataFrame | str | Path | Labeler,
    allow: Collection[str] = (),
) -> list[Relation]:
    """How each run is related to each labeler behind the labels.

    Parameters
    ----------
    runs: name -> file; the metadata twin is looked for beside it (a frame has none).
    labels: QRELS or LABELS (ids in `assessor` or `labeler`), a file of labels, or a labeler.
    allow: names of runs that may be related.

    Returns
    -------
    One relation for each run and labeler; a run without a card is `unknown`. Empty without labels.

    Raises
    ------
    Circular: a run that is not in `allow` shares something with a labeler; says what, and both cards.
    UnknownName: `allow` names no run. InputError: a twin cannot be read.
    """
    found = relations(runs, labels, allow)
    refused = [r for r in found if r.status == "shared" and not r.allowed]
    if refused:
        raise Circular(_refusal(refused), sorted({r.run.name for r in refused}))
    return found


def relations(
    runs: Mapping[str, str | Path | pl.DataFrame],
    labels: pl.DataFrame | str | Path | Labeler,
    allow: Collection[str] = (),
) -> list[Relation]:
    """As `check_circular`, but what is shared is said, not refused."""
    for name in allow:
        if name not in runs:
            raise UnknownName("run", name, runs, "--allow-circular takes the name of a run.")
    cards = labeler_cards(labels)
    return [
        _related(card, labeler, name in allow)
        for name, path in runs.items()
        for card in [run_card(name, path)]
        for labeler in cards
    ]


def run_card(name: str, path: str | Path | pl.DataFrame) -> Card:
    """What a run's metadata twin states of the models in it; nothing, if there is no twin.

    Raises
    ------
    InputError: as `check_circular`.
    """
    if isinstance(path, pl.DataFrame):
        return Card(name, "no card: it is no file")
    file = _twin(path)
    if file is None:
        return Card(name, f"no card: {Path(path).name} has no .meta.yaml beside it")
    return _read(name, file)


def labeler_cards(labels: pl.DataFrame | str | Path | Labeler) -> list[Card]:
    """The cards of all labelers behind labels, by id; see `check_circular`."""
    if isinstance(labels, str | Path):
        from harness.trec import read_qrels, run_name

        file, name = _twin(labels), run_name(labels)
        if file is not None:
            return [_read(name, file)]
        nobody = Card(name, f"no card: {Path(labels).name} names no labeler and has no .meta.yaml beside it")
        return [nobody if card is _NOBODY else card for card in labeler_cards(read_qrels(labels))]
    if isinstance(labels, pl.DataFrame):
        column = "assessor" if "assessor" in labels.columns else "labeler"
        ids = labels[column].drop_nulls().unique().sort().to_list()
        # `fill` writes the labelers that were stacked, and behind a slash the calibrator
        parts = sorted({part for i in ids if i != "human" for part in i.partition("/")[0].split("+")})
        return [_registered(part) for part in parts if part != "label"] or [_NOBODY]
    stated = getattr(labels, "card", None)
    name = label_id(labels)
    if not isinstance(stated, Mapping) or not stated:
        return [_registered(name)]
    return [Card(name, "card of the labeler", _facts(stated), (name,))]


def _registered(name: str) -> Card:
    """The card of a labeler by its id or name."""
    stated = registry.card(name.partition("@")[0])
    source = "no card: nothing of that name is registered with one" if stated is None else "its own card"
    return Card(name, source, _facts(stated or {}), (name,))


_NOBODY = Card("the labels", "no card: they name no labeler")


# -- twins -------------------------------------------------------------------------------------------------


def _twin(path: str | Path) -> Path | None:
    """The metadata beside a file: F.meta.yaml, or with .gz, .zst, .parquet and .txt taken off F."""
    name, folder = Path(path).name, Path(path).parent
    names = [name]
    for ending in _ENDINGS:
        name = name.removesuffix(ending)
        names.append(name)
    return next((f for n in names if (f := folder / f"{n}.meta.yaml").is_file()), None)


def _read(name: str, file: Path) -> Card:
    import yaml  # type: ignore[import-untyped, unused-ignore]

    try:
        whole = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(file, None, f"is no YAML that can be read ({error})") from None
    if not isinstance(whole, Mapping):
        raise InputError(file, None, "holds no keys; a card has some of " + ", ".join(CARD_KINDS))
    method, data = whole.get("method"), whole.get("data")
    stages = method.get("retrieval") if isinstance(method, Mapping) else None
    steps: list[Mapping[str, Any]] = [s for s in stages or [] if isinstance(s, Mapping)]
    if any(kind in whole for kind in CARD_KINDS):
        steps.append(whole)
    used = [str(s[key]) for s in steps for key in ("encoder", "labeler") if s.get(key)]
    facts = [_stage(s) for s in steps]
    stated = {
        kind: tuple(dict.fromkeys(n for one in facts for n in one.get(kind, ())))
        for kind in CARD_KINDS
        if any(kind in one for one in facts)
    }
    # a kind that one of several stages keeps silent about may still be there, so it counts as not stated
    silent = {k for k in _STATED if any(k not in one and not _none(one) for one in facts)}
    stated = {kind: names for kind, names in stated.items() if names or kind not in silent}
    if isinstance(data, Mapping) and "training data" in data:
        names = [n.get("name") if isinstance(n, Mapping) else n for n in _list(data["training data"])]
        mine = _facts({"training data": [n for n in names if n]})["training data"]
        stated["training data"] = tuple(dict.fromkeys([*stated.get("training data", ()), *mine]))
    return Card(name, file.name, stated, tuple(used))


def _stage(stage: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """What a stage states, and what the labeler states that it uses."""
    facts = _facts(stage)
    for key in ("encoder", "labeler"):
        if stage.get(key) and "base model" not in facts:
            facts = {**_facts(registry.card(str(stage[key]).partition("@")[0]) or {}), **facts}
    return facts


def _none(facts: Mapping[str, tuple[str, ...]]) -> bool:
    return facts.get("base model") == ()


def _facts(stated: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    found = {}
    for kind in CARD_KINDS:
        if kind in stated:
            names = [str(n).strip() for n in _list(stated[kind]) if n is not None]
            found[kind] = tuple(n for n in names if n and n.casefold() != "none")
    return found


def _list(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else [value]


# -- what is shared ----------------------------------------------------------------------------------------


def _related(run: Card, labeler: Card, allowed: bool) -> Relation:
    shared = {"labeler": [name for name in run.labelers if name in labeler.labelers]}
    for kind in CARD_KINDS:
        same = _model if kind in _MODELS else _data
        shared[kind] = _common(run.facts.get(kind, ()), labeler.facts.get(kind, ()), same)
    shared["teacher and base model"] = [
        name
        for mine, theirs in (_MODELS, _MODELS[::-1])
        for name in _common(run.facts.get(mine, ()), labeler.facts.get(theirs, ()), _model)
    ]
    if found := {kind: tuple(dict.fromkeys(names)) for kind, names in shared.items() if names}:
        return Relation(run, labeler, "shared", found, allowed=allowed)
    if run.modelless or labeler.modelless:
        return Relation(run, labeler, "apart", allowed=allowed)
    lacking = [f"{card.name}: {kind}" for card in (run, labeler) for kind in card.lacks()]
    return Relation(run, labeler, "unknown" if lacking else "apart", {}, tuple(lacking), allowed)


def _common(mine: Sequence[str], theirs: Sequence[str], same: Any) -> list[str]:
    """The names on one list that are on the other, too; data within the other's counts."""
    keys = [same(name) for name in theirs]
    return [n for n in mine if any(_within(same(n), k) or _within(k, same(n)) for k in keys)]


def _within(one: str, other: str) -> bool:
    return bool(other) and (one == other or one.startswith(f"{other}/"))


def _model(name: str) -> str:
    """A model by its own name, whoever hosts it: `openai/GPT-4` is `gpt4`."""
    return re.sub(r"[\W_]+", "", name.rpartition("/")[2].casefold())


def _data(name: str) -> str:
    """A data set by its name, subsets behind slashes as in ir_datasets."""
    return "/".join(re.sub(r"[\W_]+", "", part) for part in name.casefold().split("/"))


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def _refusal(refused: Sequence[Relation]) -> str:
    lines = []
    for labeler in dict.fromkeys(one.labeler.name for one in refused):
        mine = [one for one in refused if one.labeler.name == labeler]
        lines += [
            f"run {one.run.name!r} and labeler {labeler} have {one.common} in common, so that the labels"
            " would judge a relative of their labeler"
            for one in mine
        ]
        lines += [
            f"  card of the labeler {mine[0].labeler}",
            *(f"  card of the run {one.run}" for one in mine),
        ]
    names = " ".join(f"--allow-circular {n}" for n in dict.fromkeys(r.run.name for r in refused))
    lines.append(
        "Next: label with a model that has nothing in common with the runs; or go on, knowing it, with"
        f" {names}, which also measures how far the labels favour them"
    )
    return "\n".join(lines)
