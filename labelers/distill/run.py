"""`stopgap distill`: all stages in their order, and what is said of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.labeling import Progress
from labelers.distill.config import read_settings
from labelers.distill.negatives import PAIRS
from labelers.distill.stages import NOT_ACCEPTED, UNLABELED, Outcome, Stage, run_stages
from labelers.distill.student_stages import ACCEPTED, EXPORTED, TRAINED
from labelers.distill.synthesize import QUERIES
from labelers.distill.teach import TAUGHT
from labelers.distill.work import Work

__all__ = ["STAGES", "Distilled", "distill"]

STAGES: tuple[Stage, ...] = (QUERIES, PAIRS, TAUGHT, TRAINED, ACCEPTED, EXPORTED)
"""The stages, in their order; a stage reads only files of stages before it."""


@dataclass(frozen=True)
class Distilled:
    """What became of the stages that were to be run, in the folder `out`."""

    out: Path
    stages: list[Outcome]

    @property
    def code(self) -> int:
        """The exit code: 1 if something was not accepted, else 4 if a pair got no label, else 0."""
        codes = [one.code for one in self.stages]
        return next((code for code in (NOT_ACCEPTED, UNLABELED) if code in codes), 0)

    def to_json(self) -> dict[str, Any]:
        """Stage -> state, file, rows and summary."""
        told = {one.name: {k: v for k, v in asdict(one).items() if k != "name"} for one in self.stages}
        return {"out": str(self.out), "stages": told}

    def rows(self) -> list[tuple[str, str, str, int]]:
        """stage, state, file, rows: for a table."""
        return [(one.name, one.state, one.file, one.rows) for one in self.stages]

    def words(self) -> str:
        """The summaries, for a person."""
        return "\n\n".join("\n".join([f"{one.name}:", *_lines(one.summary)]) for one in self.stages)


def distill(path: str | Path, stages: Sequence[str] = (), *, progress: Progress | None = None) -> Distilled:
    """Run the stages of a file of settings (`labelers.distill.config`), or those that are named.

    Raises
    ------
    InputError, UsageError, UnknownName, LabelerError, CalibrationError, MissingExtra: what is wrong with the
        settings, the data, the files in `out` or the teachers. No file has been changed by the stage that
        raised.
    """
    work = Work(read_settings(path), progress)
    return Distilled(work.out, run_stages(work, STAGES, stages))


def _lines(summary: Mapping[str, Any]) -> list[str]:
    return [f"  {key}: {_told(value)}" for key, value in summary.items() if value != []]


def _told(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_told(one)}" for key, one in value.items()) or "none"
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return "".join(f"\n    - {one}" for one in value)
    if isinstance(value, list):
        return " of ".join(map(str, value))
    return str(value)
