"""From a student that was accepted to a folder that is a labeler: weights, calibration, and a card.

    OUT/labeler.json    what it is (`labelers.labeler_file`)
    OUT/README.md       the card
    OUT/model/          weights or adapter, tokenizer, and an int8 graph where the kind has one
    OUT/base/           the model that an adapter is put on, where that was a folder
    OUT/acceptance.md   the acceptance test

The folder appears whole or not at all, and replaces only an older labeler.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from harness.errors import LabelerError, StopgapError, UsageError
from harness.grading import hard_grades
from harness.labeling import load, signals
from labelers.distill.acceptance_words import table
from labelers.distill.card import card_text
from labelers.distill.pool_calibration import AnyCalibration, read_calibration
from labelers.distill.speed import compare_speed
from labelers.labeler_file import FOLDER, NAME, LabelerFile, hashed, write_labeler

if TYPE_CHECKING:
    from harness.labeling import Labeler
    from labelers.distill.sections import Export

__all__ = ["PLACE", "Trained", "export"]

PLACE = "FOLDER"
"""Stands in a trained student's name for the folder it lies in."""
_LEFT = ("checkpoint*", "training-*", "optimizer*", "scheduler*", "*.tmp", ".*", "*.bin", "*.pt", "*.pth")
"""What training leaves beside a model, and weights in forms that nothing here loads."""
_MOST_MOVED = 0.05  # share of pairs that may get another grade from the exported folder than from the student
_ONNX = {"cross-encoder": "labelers.cross_onnx:export_onnx"}
"""Kind -> what writes an int8 graph of a folder's model into that folder. A sentence encoder's is built from
its weights when it is loaded; causal language models have none."""


@dataclass(frozen=True)
class Trained:
    """What training left.

    Attributes
    ----------
    folder: the student. labeler: its name, with `FOLDER` where the folder stands: `encoder:FOLDER`,
        `cross-encoder:FOLDER`, `hf:MODEL?adapter=FOLDER`, `minilm:FOLDER`.
    card: what it was made of: `base model`, `teacher`, `training data`, each a name or a list
        (`harness.circularity`). made: fingerprints of data and teacher, warm start, seed, and whatever else a
        person should find. prompt: the text that a causal model is asked with.
    """

    folder: Path
    labeler: str
    card: Mapping[str, Any] = field(default_factory=dict)
    made: Mapping[str, Any] = field(default_factory=dict)
    prompt: str | None = None

    @property
    def kind(self) -> str:
        """The labeler's name, without its argument."""
        return self.labeler.partition(":")[0]

    @property
    def spec(self) -> str:
        """The labeler as `--labeler` takes it: not calibrated."""
        return self.labeler.replace(PLACE, str(self.folder))


def export(
    section: Export,
    trained: Trained,
    acceptance: Mapping[str, Any],
    out: Path,
    grades: dict[int, str],
    sample: pl.DataFrame,
    *,
    teacher: str | Labeler | None = None,
) -> dict[str, Any]:
    """Write the folder `out`.

    Parameters
    ----------
    acceptance: what `accept` returned, or wrote to acceptance.json. sample: PAIRS to measure speed on, of
        which `section.pairs` are taken, evenly; the exported labeler is held against the student on them.
    teacher: beside which speed and cost are told; without one they stand alone.

    Returns
    -------
    `folder`, `labeler` (its id), `files`, `bytes`, `throughput` (`labelers.distill.speed`) and `moved`, the
    share of pairs to which the folder gives another grade than the student that was tested.

    Raises
    ------
    UsageError: the student was not accepted, or is not the one that was; or `out` is something else than an
        older labeler. LabelerError: the student cannot be loaded, or the exported folder answers otherwise.
    """
    if not acceptance.get("accepted"):
        why = "\n  ".join(acceptance.get("why") or ["there is no verdict"])
        raise UsageError(f"the student was not accepted, so it is not exported:\n  {why}")
    _refuse_strangers(out)
    student = load(trained.spec, grades)
    if student.fingerprint != acceptance["fingerprint"]:
        raise UsageError(
            f"the student in {trained.folder} is not the one that was accepted ({acceptance['student']}): "
            "it was trained again or changed since.\nNext: run the acceptance test again"
        )
    calibration = read_calibration(acceptance["calibration"])
    pairs = _evenly(sample.drop_nulls(["query", "text"]), section.pairs)
    asked, why_not = _teacher(teacher, grades)
    out.parent.mkdir(parents=True, exist_ok=True)
    made = Path(mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        made.chmod(0o755)
        spec = _fill(made, trained)
        graph = _int8(trained.kind, made / "model")
        told = LabelerFile(
            name=section.name or re.sub(r"[^\w.-]+", "-", out.name) or "labeler",
            kind=trained.kind,
            spec=spec,
            grades=grades,
            files=hashed(made),
            calibration=calibration,
            prompt=trained.prompt,
            card=_card(trained, student, hashed(made)),
            made={**trained.made, "int8 graph": graph, "licence of the training data": section.licence},
            acceptance={k: v for k, v in acceptance.items() if k not in ("format", "calibration")},
        )
        write_labeler(made, told)
        exported = load(str(made), grades)
        moved = _moved(calibration, signals(student, pairs), signals(exported, pairs))
        speed = compare_speed(exported, asked, pairs, why_not=why_not, machine_hour=section.machine_hour)
        told = replace(told, throughput=speed)
        (made / "acceptance.md").write_text(table(acceptance) + "\n", encoding="utf-8")
        (made / "README.md").write_text(card_text(told, section.licence), encoding="utf-8")
        write_labeler(made, told)
        final = load(str(made), grades)
        files = [p for p in made.rglob("*") if p.is_file()]
        size = sum(p.stat().st_size for p in files)
        _replace(made, out)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise
    return {
        "folder": str(out),
        "labeler": f"{final.name}@{final.fingerprint[:8]}",
        "files": len(files),
        "bytes": size,
        "throughput": speed,
        "moved": moved,
    }


def _card(trained: Trained, student: Labeler, files: Mapping[str, str]) -> dict[str, Any]:
    """What `harness.circularity` reads: what the model says of itself, and what is known beyond that."""
    stated = dict(getattr(student, "card", None) or {})
    weights = [digest for name, digest in files.items() if name.endswith((".safetensors", ".onnx"))]
    return {**stated, **trained.card, "weights sha256": weights}


def _fill(made: Path, trained: Trained) -> str:
    """Copy the model; returns its labeler's name, with `{folder}` where the new folder stands."""
    ignored = shutil.ignore_patterns(*_LEFT)
    shutil.copytree(trained.folder, made / "model", ignore=ignored)
    argument = trained.labeler.partition(":")[2]
    model, _, rest = argument.partition("?")
    if model != PLACE and Path(model).expanduser().is_dir():
        shutil.copytree(Path(model).expanduser(), made / "base", ignore=ignored)
        model = f"{FOLDER}/base"
    spec = f"{trained.kind}:{model}" + (f"?{rest}" if rest else "")
    return spec.replace(PLACE, f"{FOLDER}/model")


def _int8(kind: str, folder: Path) -> str:
    """Write the model's int8 graph beside its weights, where the kind has one; returns what there is now."""
    if kind not in _ONNX:
        return (
            "built from the weights when it is loaded"
            if kind in ("minilm", "encoder")
            else "none for this kind"
        )
    module, _, name = _ONNX[kind].partition(":")
    try:
        path: Path = getattr(import_module(module), name)(folder, folder)
    except LabelerError as error:
        return f"none: {error}".splitlines()[0]
    return f"{path.parent.name}/{path.name}"


def _moved(calibration: AnyCalibration, before: pl.DataFrame, after: pl.DataFrame) -> float:
    """The share of pairs whose grade the exported folder moves.

    Raises
    ------
    LabelerError: more than may be.
    """
    grades = calibration.grades
    probs = np.array(after["probs"].drop_nulls().to_list(), dtype=float).reshape(-1, len(grades))
    said = after["probs"].is_not_null().to_numpy()
    tested = np.nan_to_num(calibration.probs(before)[said])
    first, second = (hard_grades(one, calibration.thresholds, grades) for one in (tested, probs))
    moved = float((first != second).mean()) if len(second) else 1.0
    if moved > _MOST_MOVED or not said.any():
        raise LabelerError(
            f"the exported labeler gives {moved:.1%} of {before.height} pairs another grade than the student "
            "that was accepted, so that the test says nothing of it; nothing was exported"
        )
    return moved


def _teacher(given: str | Labeler | None, grades: dict[int, str]) -> tuple[Labeler | None, str]:
    if given is None or given in ("none", "human"):
        return (
            None,
            "the teacher is no labeler that could be timed" if given == "human" else "no teacher was named",
        )
    try:
        return (load(given, grades) if isinstance(given, str) else given), ""
    except StopgapError as error:
        return None, str(error).splitlines()[0]


def _evenly(pairs: pl.DataFrame, count: int) -> pl.DataFrame:
    """At most so many pairs, spread over the frame, so that all topics and lengths take part."""
    if not pairs.height:
        raise UsageError("there is no pair with texts to measure the labeler's speed on")
    rows = np.unique(np.linspace(0, pairs.height - 1, min(count, pairs.height)).astype(np.int64))
    return pairs[rows]


def _refuse_strangers(out: Path) -> None:
    if out.exists() and not (out / NAME).is_file() and not (out.is_dir() and not any(out.iterdir())):
        raise UsageError(
            f"{out} is there and is no labeler that stopgap exported, so it is not written over.\n"
            "Next: move it away, or name another folder"
        )


def _replace(made: Path, out: Path) -> None:
    """Put the new folder in the place of the old one; the old one stays until the new one stands."""
    if not out.exists():
        os.rename(made, out)
        return
    old = Path(mkdtemp(prefix=f".{out.name}.old.", dir=out.parent))
    os.rename(out, old / out.name)
    try:
        os.rename(made, out)
    except BaseException:
        os.rename(old / out.name, out)
        raise
    finally:
        if out.exists():
            shutil.rmtree(old, ignore_errors=True)
