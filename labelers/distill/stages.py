"""The stages of a distillation: each makes one file out of the settings and the files of stages before it.

A stage is a function and an entry in `STAGES`; what it makes is kept in the folder `out`, and `stages.json`
there says what it was made of. So a run does again what has changed, and what rests on a file that came out
otherwise; nothing else. A kill leaves whole files only: either the one before or the new one.

A file of rows that somebody has edited is theirs: it is used as it stands, once its rows have been checked,
and never written over. A report is what was found, not what is to be done: an edited one is an error.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from harness.errors import InputError, UnknownName, UsageError
from harness.trec_bytes import file_hash, replace_file
from labelers.distill.rows import Fields, Row, digest_of, line_bytes, read_report, read_rows, report_bytes
from labelers.distill.work import Work

__all__ = ["MANIFEST", "NOT_ACCEPTED", "UNLABELED", "Made", "Outcome", "Stage", "run_stages"]

MANIFEST = "stages.json"
"""The file that says what each of the others was made of."""
NOT_ACCEPTED, UNLABELED = 1, 4


@dataclass(frozen=True)
class Made:
    """What a stage made.

    Attributes
    ----------
    rows: of its file; of a report, the one object. summary: what a person wants to know of them; JSON can
        hold it.
    code: 0; 1 where what was made is not accepted; 4 where it is whole but for pairs that got no label, so
        that the next run tries them again.
    """

    rows: Sequence[Row]
    summary: dict[str, Any]
    code: int = 0


def _nothing(_: Work) -> None:
    """No check."""


def _whole(_: Work, __: Row) -> bool:
    """Nothing lies beside the file."""
    return True


@dataclass(frozen=True)
class Stage:
    """One stage.

    Attributes
    ----------
    name: as it is called on the command line. file: its file in `out`.
    fields, key: what a row of the file has, and the fields by which no two rows are the same.
    version: goes up with every change to what the same inputs become.
    needs: the stages whose files it reads.
    made_of: all else that decides what comes out, as JSON can hold it.
    run: makes it, given the rows of `needs` by name.
    check: raises what can be known to be wrong before any stage has run.
    report: the file is one JSON object that says what was found, laid out to be read.
    whole: whether what else the stage left, beside its file, is as the file says; only of a report.
    """

    name: str
    file: str
    fields: Fields
    key: tuple[str, ...]
    version: int
    needs: tuple[str, ...]
    made_of: Callable[[Work], dict[str, Any]]
    run: Callable[[Work, Mapping[str, list[Row]]], Made]
    check: Callable[[Work], None] = _nothing
    report: bool = False
    whole: Callable[[Work, Row], bool] = _whole


@dataclass(frozen=True)
class Outcome:
    """What became of a stage: `state` is made, unchanged or edited."""

    name: str
    state: str
    file: str
    rows: int
    summary: dict[str, Any]
    code: int = 0


@dataclass(frozen=True)
class _Record:
    """What stages.json says of a stage's file.

    `made_of`: a digest; `sha256` of the file, and `before` of the one in its place until then: the record is
    written first, so that a kill between the two does not make the old file look edited.
    """

    made_of: str
    sha256: str
    before: str | None
    rows: int
    code: int
    summary: dict[str, Any] = field(default_factory=dict)


def run_stages(work: Work, stages: Sequence[Stage], names: Iterable[str] = ()) -> list[Outcome]:
    """Run stages in their order, but for those whose file is as it would come out, up to one that is not
    accepted.

    Parameters
    ----------
    names: the stages to run; by default all.

    Raises
    ------
    UnknownName: no such stage. UsageError: a stage that is not run has to be; or a file that was edited by
        hand, or that stopgap did not make, would be written over.
    InputError: stages.json or a row of a stage's file cannot be used.
    """
    wanted = list(names)
    known = [stage.name for stage in stages]
    for name in wanted:
        if name not in known:
            raise UnknownName("stage", name, known)
    chosen = [stage for stage in stages if not wanted or stage.name in wanted]
    shelf = _Shelf(work, {stage.name: stage for stage in stages})
    for stage in chosen:
        stage.check(work)
    found: list[Outcome] = []
    for stage in chosen:
        found.append(shelf.outcome(stage))
        if found[-1].code == NOT_ACCEPTED:
            break
    return found


class _Shelf:
    """The files of `out`, and what stages.json says of them."""

    def __init__(self, work: Work, stages: Mapping[str, Stage]) -> None:
        self.work, self.stages = work, stages
        try:
            work.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            what = f"out: {work.out} is no folder that can be written to: {error.strerror}"
            raise work.settings.problem("out", what) from None
        self.path = work.out / MANIFEST
        self.records = _records(self.path)
        self._rows: dict[str, list[Row]] = {}

    def outcome(self, stage: Stage) -> Outcome:
        """The stage's file, made if need be."""
        path, record = self.work.out / stage.file, self.records.get(stage.name)
        made_of = self._made_of(stage)
        state = self._state(stage, record, made_of)
        if state == "edited":
            summary = {} if record is None else record.summary
            return Outcome(stage.name, state, str(path), len(self.rows(stage)), summary)
        if state == "unchanged":
            assert record is not None
            return Outcome(stage.name, state, str(path), record.rows, record.summary, record.code)
        given = {name: self.rows(self.stages[name]) for name in stage.needs}
        made = stage.run(self.work, given)
        self._keep(stage, made, made_of)
        return Outcome(stage.name, "made", str(path), len(made.rows), made.summary, made.code)

    def rows(self, stage: Stage) -> list[Row]:
        """The rows of a stage's file, read once."""
        if stage.name not in self._rows:
            path = self.work.out / stage.file
            rows = read_report(path, stage.fields) if stage.report else read_rows(path, stage.fields)
            seen: dict[tuple[object, ...], int] = {}
            for number, row in enumerate(rows, 1):
                key = tuple(row[name] for name in stage.key)
                if key in seen:
                    what = f"{' '.join(map(str, key))} stands there twice: it is row {seen[key]} already"
                    raise InputError(path, number, what, f"Next: take one out of {path}")
                seen[key] = number
            self._rows[stage.name] = rows
        return self._rows[stage.name]

    def _made_of(self, stage: Stage) -> str:
        """A digest of all that decides what the stage makes."""
        for name in stage.needs:
            self._needed(stage, self.stages[name])
        files = {name: file_hash(self.work.out / self.stages[name].file) for name in stage.needs}
        return digest_of({"version": stage.version, "of": stage.made_of(self.work), "files": files})

    def _needed(self, stage: Stage, other: Stage) -> None:
        """Raise unless the other's file is as the settings and its inputs have it, or edited from there.

        One with pairs that got no label is made again by a run of its own stage, and can be read till then.
        """
        path, record = self.work.out / other.file, self.records.get(other.name)
        made_of = self._made_of(other)
        state = self._state(other, record, made_of)
        if state in ("unchanged", "edited"):
            return
        if (
            record is not None
            and record.code == UNLABELED
            and record.made_of == made_of
            and path.exists()
            and file_hash(path) == record.sha256
        ):
            return
        what = "is not there yet" if not path.exists() else "was made of something else than there is now"
        raise UsageError(
            f"stage {stage.name} reads {path}, which {what}.\n"
            f"Next: stopgap distill {self.work.settings.path} {other.name} {stage.name}, or no stage for all"
        )

    def _state(self, stage: Stage, record: _Record | None, made_of: str) -> str:
        """`unchanged`, `edited`, or `again` where the stage is to be run."""
        path = self.work.out / stage.file
        if not path.exists():
            return "again"
        if record is None:
            raise UsageError(
                f"{path} is there, but {self.path} does not say that stopgap made it.\n"
                "Next: move it away; nothing is written over that somebody else has made"
            )
        now, current = file_hash(path), record.made_of == made_of
        if now == record.before and now != record.sha256:
            return "again"
        if now != record.sha256 and stage.report:
            raise UsageError(
                f"{path} was edited by hand, and it says what was found, which no edit changes.\n"
                "Next: move it away to have it made again"
            )
        if now != record.sha256 and not current:
            raise UsageError(
                f"{path} was edited by hand, and what it was made of has changed since: it would be made "
                "again, and the edits lost.\n"
                "Next: move it away to have it made again, or take the change back"
            )
        if now != record.sha256:
            self.rows(stage)  # whoever edited it may have broken it
            return "edited"
        if not current or record.code == UNLABELED:
            return "again"
        return "unchanged" if not stage.report or stage.whole(self.work, self.rows(stage)[0]) else "again"

    def _keep(self, stage: Stage, made: Made, made_of: str) -> None:
        path = self.work.out / stage.file
        data = report_bytes(made.rows[0]) if stage.report else b"".join(map(line_bytes, made.rows))
        before = file_hash(path) if path.exists() else None
        digest = sha256(data).hexdigest()
        self.records[stage.name] = _Record(made_of, digest, before, len(made.rows), made.code, made.summary)
        told = {name: asdict(record) for name, record in self.records.items()}
        with replace_file(self.path) as file:
            file.write(json.dumps(told, indent=1, ensure_ascii=False).encode() + b"\n")
        with replace_file(path) as file:
            file.write(data)
        self._rows[stage.name] = list(made.rows)


def _records(path: Path) -> dict[str, _Record]:
    if not path.exists():
        return {}
    try:
        raw = json.loads(path.read_bytes())
        return {name: _Record(**record) for name, record in raw.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        hint = (
            "Next: put it back as it was, or move the whole folder away to begin anew (what teachers have "
            "answered is kept in the ledger)"
        )
        raise InputError(path, None, f"is not what stopgap wrote: {error}", hint) from None
