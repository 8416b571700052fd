"""labeler.json, which makes a folder a labeler: what is in it, written and read strictly.

format       1
name         one word for the label's id
kind         what it is, for a person: encoder, cross-encoder, hf, minilm
spec         the labeler inside, a registered one: cross-encoder:{folder}/model; {folder} is where it lies
grades       grade -> what it means
prompt       its text, or null
calibration  `labelers.distill.calibration.Calibration`, of a pair alone, or
             `labelers.distill.pool_calibration.PoolCalibration`, of its topic's pool, or null
files        path in the folder -> sha256, of all that decides a signal
card         what it was made of, as `harness.circularity` reads it
made         fingerprints of the data and the teacher, the licence of the training data, the warm start
acceptance   how good it was found to be, beside what
throughput   pairs a second beside the teacher's, what that costs, and on which machine
digest       sha256 of all of this, so that an edit shows
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any

from harness.errors import CalibrationError, LabelerError
from harness.trec_bytes import replace_file
from labelers.distill.pool_calibration import AnyCalibration, read_calibration
from labelers.sentence_folder import digest

__all__ = [
    "FOLDER",
    "FORMAT",
    "NAME",
    "LabelerFile",
    "check_files",
    "hashed",
    "read_labeler",
    "write_labeler",
]

NAME = "labeler.json"
FORMAT = 1
FOLDER = "{folder}"
"""Stands in `spec` for the folder's path."""
_FOR_PEOPLE = (NAME, "README.md", "acceptance.md")
_AGAIN = "Next: export it again, or put back the folder as it was exported"


@dataclass(frozen=True)
class LabelerFile:
    """What labeler.json says; see the module."""

    name: str
    kind: str
    spec: str
    grades: dict[int, str]
    files: dict[str, str]
    calibration: AnyCalibration | None = None
    prompt: str | None = None
    card: dict[str, Any] = field(default_factory=dict)
    made: dict[str, Any] = field(default_factory=dict)
    acceptance: dict[str, Any] = field(default_factory=dict)
    throughput: dict[str, Any] = field(default_factory=dict)

    @property
    def deciding(self) -> str:
        """All here that decides a signal, besides the labeler inside."""
        calibration = self.calibration and self.calibration.to_json()
        return json.dumps([sorted(self.grades), calibration], sort_keys=True)


def write_labeler(folder: Path, given: LabelerFile) -> Path:
    """Write labeler.json into a folder."""
    told = {"format": FORMAT, **asdict(given)}
    told["grades"] = {str(grade): word for grade, word in sorted(given.grades.items())}
    told["calibration"] = given.calibration and given.calibration.to_json()
    told = json.loads(json.dumps(told))
    told["digest"] = _digest(told)
    with replace_file(folder / NAME) as file:
        file.write(json.dumps(told, indent=1, ensure_ascii=False).encode() + b"\n")
    return folder / NAME


def read_labeler(folder: Path) -> LabelerFile:
    """What labeler.json of a folder says.

    Raises
    ------
    LabelerError: it cannot be read, is of another format, lacks something, or was edited.
    """
    path = folder / NAME
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise LabelerError(f"{path} cannot be read: {error}\n{_AGAIN}") from None
    if not isinstance(told, dict) or told.get("format") != FORMAT:
        found = told.get("format") if isinstance(told, dict) else None
        raise LabelerError(
            f"{path} is of format {found!r}, and this stopgap reads format {FORMAT}.\n"
            "Next: export the labeler again with this stopgap, or use the one that wrote it"
        )
    try:
        if told.pop("digest") != _digest(told):
            raise LabelerError(f"{path} was edited: it is not what was exported.\n{_AGAIN}")
        del told["format"]
        if told["calibration"] is not None:
            told["calibration"] = read_calibration(told["calibration"])
        told["grades"] = {int(grade): str(word) for grade, word in told["grades"].items()}
        made = LabelerFile(**told)
        _check(made)
    except (KeyError, TypeError, ValueError, AttributeError, CalibrationError) as error:
        said = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise LabelerError(f"{path} is no description of a labeler: {said}\n{_AGAIN}") from None
    return made


def check_files(folder: Path, files: Mapping[str, str]) -> None:
    """Hold the files of a folder against their digests.

    Raises
    ------
    LabelerError: one is missing, or is another file than was exported.
    """
    for name, expected in files.items():
        path = folder / name
        try:
            found = digest(path)
        except OSError as error:
            what = (
                "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read: {error.strerror}"
            )
            raise LabelerError(f"{path} {what}; {folder / NAME} names it.\n{_AGAIN}") from None
        if found != expected:
            raise LabelerError(
                f"{path} is not the file that was exported: its sha256 begins with {found[:12]}, not with "
                f"{expected[:12]}.\n{_AGAIN}"
            )


def hashed(folder: Path) -> dict[str, str]:
    """Path in the folder -> sha256, of all its files but those for people and labeler.json itself."""
    paths = sorted(p for p in folder.rglob("*") if p.is_file())
    names = [p.relative_to(folder).as_posix() for p in paths]
    return {name: digest(folder / name) for name in names if name not in _FOR_PEOPLE}


def _check(given: LabelerFile) -> None:
    """Raise ValueError for what the types do not say."""
    if ":" not in given.spec and FOLDER in given.spec:
        raise ValueError(f"spec is {given.spec!r}")
    if given.calibration is not None and set(given.calibration.grades) != set(given.grades):
        raise ValueError("its calibration is of other grades than its own")
    for name in given.files:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            raise ValueError(f"file {name!r} is not inside the folder")


def _digest(told: Mapping[str, Any]) -> str:
    rest = {key: value for key, value in told.items() if key != "digest"}
    return sha256(json.dumps(rest, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
