"""The stage `train`: out of the taught pairs a student, in a folder that a labeler loads.

In the folder `out`, afterwards:

    student/       the student
    train.json     what it was made of, and how good it is on the dev topics
    train.jsonl    how the loss went

While it is taught there is also `training-…/` with the checkpoints; whoever kills a training and runs it
again, with the same settings and pairs, goes on from there and gets the same student.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from shutil import rmtree
from time import perf_counter
from typing import TYPE_CHECKING, Any
from warnings import warn

import numpy as np

from harness.errors import InputError, StopgapWarning
from harness.trec_bytes import file_hash, replace_file
from labelers.causal_files import find_model
from labelers.distill.checkpoints import Checkpoints
from labelers.distill.cross_student import base_folder
from labelers.distill.losses import LOSSES, Rows
from labelers.distill.rows import digest_of
from labelers.distill.students import Student, build
from labelers.distill.train_data import Taught, grade_weights, read_taught, refuse_shared, split_dev
from labelers.distill.train_log import Log
from labelers.distill.train_settings import Train
from labelers.distill.trainer import Dev, Phase, Trainer
from labelers.distill.warmup import warmup_phase

if TYPE_CHECKING:
    from harness.labeling import Progress

__all__ = ["LOG", "STUDENT", "SUMMARY", "train"]

STUDENT, SUMMARY, LOG = "student", "train.json", "train.jsonl"
"""What a training leaves in its folder."""
UNREADABLE = "the student cannot read it"
_VERSION = 1  # goes up with every change to what the same settings and pairs become


def train(
    settings: Train,
    taught: Path,
    out: Path,
    *,
    grades: Mapping[int, str],
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Teach a student.

    Where `out` holds a student made of the same, nothing is done; where a training of the same was killed, it
    goes on.

    Parameters
    ----------
    taught: JSON lines with query_id, doc_id, query, text, probs (over the grades ascending, or null and a
        reason), source, weight. grades: the scale and its words. progress: is told of steps; if it has a
        method `note`, of the loss too.

    Returns
    -------
    What stands in train.json: `labeler`, its name with FOLDER where the folder `student` stands; `pairs`,
    `topics` and `left_out`; `dev`, the last phase's best epoch with `loss`, `auc` and `kappa`, and `start`,
    the same before the first step of that phase (both None without dev topics); `best_epoch`, `epochs` and
    `steps`; `resumed_at`; `threads`, `device` and `seconds`; `made_of` and `sha256`, digests of what went in
    and of what came out.

    Raises
    ------
    InputError: a row of the file, or all of them, cannot be used; or all checkpoints are broken.
    UsageError: one topic only; a topic on both sides; or settings that do not go together.
    LabelerError: a model cannot be loaded, or the loss is no number. MissingExtra: an extra is not installed.
    """
    began = perf_counter()
    scale = sorted(grades)
    rows, left_out = read_taught(taught, scale)
    made_of = digest_of(
        {
            "version": _VERSION,
            "settings": settings.model_dump(mode="json", exclude={"checkpoint"}),
            "model": find_model(str(base_folder(settings.model))).digest(),
            "grades": [[grade, grades[grade]] for grade in scale],
            "rows": rows,
            "seed": seed,
        }
    )
    out.mkdir(parents=True, exist_ok=True)
    if (known := _made(out, made_of)) is not None:
        return known
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(seed % 2**63)
        student = build(settings, grades)
    rows = _readable(student, rows, left_out, taught)
    learnt, dev = split_dev(rows, settings.dev_share, seed)
    refuse_shared(learnt, dev)
    device = str(next(student.module.parameters()).device)
    work = out / f"training-{made_of[:12]}"
    work.mkdir(exist_ok=True)
    phases = [_phase(settings, learnt, dev, scale, device)]
    if settings.warmup:
        first = warmup_phase(
            settings.warmup, learnt, grades, device, seed, work / "warmup.jsonl", progress=progress
        )
        phases.insert(0, first)
    trainer = Trainer(student, settings, seed, Checkpoints(work), Log(out / LOG), progress)
    found = trainer.run(phases)
    name = _saved(student, out, work)
    history = {one["epoch"]: one for one in found["history"]}
    if dev and found["best_epoch"] == 0:
        warn(
            "no epoch did better on the dev topics than the start: the student is what it was",
            StopgapWarning,
            2,
        )
    summary = {
        "labeler": name,
        "student": settings.student,
        "model": settings.model,
        "pairs": {"train": len(learnt), "dev": len(dev)},
        "topics": {"train": _topics(learnt), "dev": _topics(dev)},
        "left_out": dict(left_out),
        "dev": history.get(found["best_epoch"]),
        "start": history.get(0),
        "best_epoch": found["best_epoch"],
        "epochs": len(history) - 1 if dev else settings.epochs,
        "steps": found["steps"],
        "resumed_at": found["resumed_at"],
        "device": device,
        "threads": torch.get_num_threads(),
        "seconds": round(perf_counter() - began, 1),
        "made_of": made_of,
        "sha256": _digest(out / STUDENT),
    }
    with replace_file(out / SUMMARY) as file:
        file.write(json.dumps(summary, indent=1, ensure_ascii=False).encode() + b"\n")
    rmtree(work)
    return summary


def _made(out: Path, made_of: str) -> dict[str, Any] | None:
    """The summary of the student in the folder, if it is made of the same and as it was saved."""
    try:
        known: dict[str, Any] = json.loads((out / SUMMARY).read_bytes())
        same = known["made_of"] == made_of and known["sha256"] == _digest(out / STUDENT)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return known if same else None


def _readable(student: Student, rows: list[Taught], left_out: Counter[str], taught: Path) -> list[Taught]:
    """The pairs that the student can read."""
    lengths = student.lengths(rows)
    found = [row for row, length in zip(rows, lengths, strict=True) if length]
    if len(found) < len(rows):
        left_out[UNREADABLE] += len(rows) - len(found)
    if not found:
        raise InputError(
            taught, None, "has no pair that the student can read: its queries do not fit the model"
        )
    return found


def _phase(
    settings: Train, learnt: Sequence[Taught], dev: Sequence[Taught], scale: Sequence[int], device: str
) -> Phase:
    """The grades. A pair weighs what it counts, times what its grades weigh."""
    import torch

    by_grade = grade_weights(learnt, settings.balance)
    loss_of = LOSSES[settings.loss]
    numbers = torch.tensor(scale, dtype=torch.float32, device=device)

    def prepared(pairs: Sequence[Taught]) -> tuple[Any, Any, Any]:
        probs = np.array([pair.probs for pair in pairs])
        weights = probs @ by_grade * np.array([pair.weight for pair in pairs])
        known = torch.tensor(probs, dtype=torch.float32, device=device)
        number = {name: n for n, name in enumerate(dict.fromkeys(pair.query_id for pair in pairs))}
        queries = torch.tensor([number[pair.query_id] for pair in pairs], device=device)

        def loss(logits: Any, rows: Sequence[int]) -> Any:
            return loss_of(Rows(logits, known[list(rows)], numbers, queries[list(rows)]))

        return probs, weights, loss

    _, weights, loss = prepared(learnt)
    if not dev:
        return Phase("grades", learnt, weights, loss, settings.epochs)
    probs, dev_weights, dev_loss = prepared(dev)
    shown = Dev(dev, dev_weights, dev_loss, probs, scale)
    return Phase("grades", learnt, weights, loss, settings.epochs, shown)


def _saved(student: Student, out: Path, work: Path) -> str:
    """Write the student beside the one that is there, and then put it in its place."""
    new = work / STUDENT
    rmtree(new, ignore_errors=True)
    new.mkdir()
    name = student.save(new)
    rmtree(out / STUDENT, ignore_errors=True)
    new.rename(out / STUDENT)
    return name


def _digest(folder: Path) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return digest_of([[path.relative_to(folder).as_posix(), file_hash(path)] for path in files])


def _topics(pairs: Sequence[Taught]) -> int:
    return len({pair.query_id for pair in pairs})
