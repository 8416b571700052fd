"""The stage `train`: out of the taught pairs a student, in a folder that a labeler loads.

In the folder `out`, afterwards:

    student/       the student
    train.jsonl    how the loss went

While it is taught there is `training-…/` with the checkpoints and the log so far; whoever kills a training
and runs it again, with the same settings and pairs, goes on from there and gets the same student and log,
whatever else was trained meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from shutil import rmtree
from time import perf_counter
from typing import TYPE_CHECKING, Any
from warnings import warn

import numpy as np

from harness.errors import StopgapWarning, UsageError
from harness.trec_bytes import file_hash, replace_file
from labelers.causal_files import find_model
from labelers.distill.checkpoints import Checkpoints
from labelers.distill.cross_student import base_folder
from labelers.distill.losses import LOSSES, Rows
from labelers.distill.rows import digest_of
from labelers.distill.students import Student, build
from labelers.distill.train_data import Taught, grade_weights, refuse_shared, split_dev
from labelers.distill.train_log import Log
from labelers.distill.train_settings import Train
from labelers.distill.trainer import Dev, Phase, Trainer
from labelers.distill.warmup import warmup_phase

if TYPE_CHECKING:
    from harness.labeling import Progress

__all__ = ["LOG", "STUDENT", "put_student", "student_digest", "train"]

STUDENT, LOG = "student", "train.jsonl"
"""What a training leaves in its folder."""
UNREADABLE = "the student cannot read it"
_VERSION = 1  # goes up with every change to what the same settings and pairs become


def train(
    settings: Train,
    taught: Sequence[Taught],
    out: Path,
    *,
    grades: Mapping[int, str],
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Teach a student. Where a training of the same was killed, it goes on.

    Parameters
    ----------
    taught: the pairs, those of the dev topics too. grades: the scale and its words. progress: is told of
        steps; if it has a method `note`, of the loss too.

    Returns
    -------
    `labeler`, its name with FOLDER where the folder `student` stands; `pairs`, `topics` and `left_out`;
    `dev_topics`, the query ids that were not learnt from; `dev`, the last phase's best epoch with `loss`,
    `auc` and `kappa`, and `start`, the same before the first step of that phase (both None without dev
    topics); `best_epoch`, `epochs` and `steps`; `resumed_at`; `threads`, `device` and `seconds`; `made_of`
    and `sha256`, digests of what went in and of what came out.

    Raises
    ------
    InputError: all checkpoints are broken.
    UsageError: no pair can be read; one topic only; a topic on both sides; or settings that do not go
        together.
    LabelerError: a model cannot be loaded, or the loss is no number. MissingExtra: an extra is not installed.
    """
    began = perf_counter()
    scale = sorted(grades)
    made_of = digest_of(
        {
            "version": _VERSION,
            "settings": settings.model_dump(mode="json", exclude={"checkpoint"}),
            "model": find_model(str(base_folder(settings.model))).digest(),
            "grades": [[grade, grades[grade]] for grade in scale],
            "rows": taught,
            "seed": seed,
        }
    )
    out.mkdir(parents=True, exist_ok=True)
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(seed % 2**63)
        student = build(settings, grades)
    rows = _readable(student, taught)
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
    trainer = Trainer(student, settings, seed, Checkpoints(work), Log(work / LOG), progress)
    found = trainer.run(phases)
    name = _saved(student, out, work)
    history = {one["epoch"]: one for one in found["history"]}
    if dev and found["best_epoch"] == 0:
        warn(
            "no epoch did better on the dev topics than the start: the student is what it was",
            StopgapWarning,
            2,
        )
    _put_log(work, out)
    return {
        "labeler": name,
        "student": settings.student,
        "model": settings.model,
        "pairs": {"train": len(learnt), "dev": len(dev)},
        "topics": {"train": _topics(learnt), "dev": _topics(dev)},
        "dev_topics": sorted({pair.query_id for pair in dev}),
        "left_out": {UNREADABLE: len(taught) - len(rows)} if len(rows) < len(taught) else {},
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
        "sha256": student_digest(out),
    }


def _readable(student: Student, taught: Sequence[Taught]) -> list[Taught]:
    """The pairs that the student can read."""
    lengths = student.lengths(taught)
    found = [row for row, length in zip(taught, lengths, strict=True) if length]
    if not found:
        raise UsageError(
            f"none of the {len(taught)} taught pairs can be read by the student: the queries do not fit the "
            "model.\nNext: a model that reads more"
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
    put_student(new, out)
    return name


def put_student(new: Path, out: Path) -> None:
    """Move a folder to where a training leaves its student."""
    rmtree(out / STUDENT, ignore_errors=True)
    new.rename(out / STUDENT)


def student_digest(out: Path) -> str:
    """A digest of all files of the student in a training's folder."""
    folder = out / STUDENT
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return digest_of([[path.relative_to(folder).as_posix(), file_hash(path)] for path in files])


def _put_log(work: Path, out: Path) -> None:
    """Leave the log where the student is, and nothing of the training's own folder."""
    with replace_file(out / LOG) as file:
        file.write((work / LOG).read_bytes())
    # Away at once: of a folder that a kill leaves in part, a training would go on.
    done = out / f".{work.name}"
    rmtree(done, ignore_errors=True)
    work.rename(done)
    rmtree(done)


def _topics(pairs: Sequence[Taught]) -> int:
    return len({pair.query_id for pair in pairs})
