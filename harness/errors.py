"""What can go wrong, as one tree.

Every error that stopgap raises on purpose is a `StopgapError`; the command line turns it into its message
on stderr and exit code 2, without a traceback.

    StopgapError
    ├── InputError         a file, at a line, holds something that cannot be used
    ├── SchemaError        a frame lacks a column or holds it in another type
    ├── UsageError         an argument that cannot be meant
    │   ├── UnknownName    a name nobody registered; says which names are near
    │   └── Circular       labels would judge a relative of their labeler
    ├── MissingExtra       a package that an extra brings is not installed
    ├── LabelerError       a labeler broke its protocol or could not be loaded
    └── CalibrationError   too few judgments to calibrate anything

`StopgapWarning` is for what a user should see but need not act on. `told` and `first_line` put exceptions of
others into words.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

__all__ = [
    "CalibrationError",
    "Circular",
    "InputError",
    "LabelerError",
    "MissingExtra",
    "SchemaError",
    "StopgapError",
    "StopgapWarning",
    "UnknownName",
    "UsageError",
    "first_line",
    "told",
]


class StopgapError(Exception):
    """The root. `str(error)` is the whole message for a person."""


class InputError(StopgapError):
    """A file holds something that cannot be used.

    Parameters
    ----------
    path: the file. `line`: 1-based line, None where the trouble has no line (a truncated archive, an
        unreadable file).
    what: what is wrong there. `hint`: the next thing to do, optional.
    """

    def __init__(self, path: str | Path, line: int | None, what: str, hint: str = "") -> None:
        self.path, self.line, self.what, self.hint = Path(path), line, what, hint
        where = f"{path}:{line}" if line is not None else f"{path}"
        super().__init__(f"{where}: {what}" + (f"\n{hint}" if hint else ""))


class SchemaError(StopgapError):
    """A frame does not have the columns its schema asks for."""


class UsageError(StopgapError):
    """An argument that cannot be meant."""


class UnknownName(UsageError):
    """A name that nothing is registered under; names what is near and what there is."""

    def __init__(self, kind: str, name: str, known: Iterable[str], hint: str = "") -> None:
        known = sorted(known)
        near = get_close_matches(name, known, n=3, cutoff=0.5)
        message = f"unknown {kind} {name!r}."
        if near:
            message += f" Did you mean {' or '.join(repr(n) for n in near)}?"
        message += f" Available: {', '.join(known) or 'none'}." + (f"\n{hint}" if hint else "")
        super().__init__(message)
        self.name, self.near = name, near


class Circular(UsageError):
    """Labels would judge runs that share a model, a teacher or training data with their labeler.

    Parameters
    ----------
    message: what is shared, and what to do. `runs`: the names of those runs.
    """

    def __init__(self, message: str, runs: Iterable[str]) -> None:
        super().__init__(message)
        self.runs = list(runs)


class MissingExtra(StopgapError):
    """A package that one of stopgap's extras brings is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed. Next: pip install 'stopgap[{extra}]'")
        self.package, self.extra = package, extra


class LabelerError(StopgapError):
    """A labeler could not be loaded or broke its protocol."""


class CalibrationError(StopgapError):
    """There is too little to calibrate with."""


class StopgapWarning(UserWarning):
    """Something a user should know; the command line shows it on stderr."""


def told(exc: BaseException) -> str:
    """What another's exception says, after its type."""
    return _typed(exc, str(exc))


def first_line(exc: BaseException) -> str:
    """The first line of what another's exception says, after its type."""
    return _typed(exc, str(exc).strip().partition("\n")[0])


def _typed(exc: BaseException, said: str) -> str:
    return f"{type(exc).__name__}: {said}" if said else type(exc).__name__
