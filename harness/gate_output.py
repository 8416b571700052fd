"""What a gate found: checks, the verdict over all of them, and how a CI job gets to see it.

Verdicts are `pass`, `fail` and `inconclusive`. Over several, fail beats inconclusive and inconclusive beats
pass: a gate passes when every one of its checks does. (That all have to pass is an intersection-union test,
which needs no correction for their number: Berger, Technometrics 1982.)

In JUnit XML a failed check is a `<failure>` and an inconclusive one an `<error>`: a `<skipped>` test leaves a
CI job green, and a gate that could not tell must not.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

from harness.errors import InputError
from harness.trec_bytes import open_input, replace_file

__all__ = ["EXIT", "Check", "Gated", "Verdict", "junit", "markdown", "overall", "prepare", "write"]

Verdict = Literal["pass", "fail", "inconclusive"]
EXIT: dict[Verdict, int] = {"pass": 0, "fail": 1, "inconclusive": 3}
"""The exit codes; 2 is bad input."""
_WORST_FIRST: tuple[Verdict, ...] = ("fail", "inconclusive", "pass")
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_XML_START = '<?xml version="1.0" encoding="UTF-8"?>\n<testsuites name="stopgap gate"'
_MARKDOWN_START = "## stopgap gate: "
_MARKS = re.compile(r"([\\`*_{}\[\]<>|~#])")


@dataclass(frozen=True)
class Check:
    """One thing that was checked.

    Attributes
    ----------
    kind: which check of the settings it belongs to (`margin`, `judged`, `throughput`, ...).
    name: unique within a gate. `value` is held against `threshold`: numbers, or short hashes, or None where
        there is nothing to hold.
    detail: in words, what was found and what to do. `interval`: of the value, where it has one.
    """

    kind: str
    name: str
    verdict: Verdict
    value: float | str | None
    threshold: float | str | None
    detail: str = ""
    interval: tuple[float, float] | None = None

    def to_json(self) -> dict[str, Any]:
        """The object of one check in `stopgap gate --json`; a number that is not finite is null."""
        value, threshold = _finite(self.value), _finite(self.threshold)
        found: dict[str, Any] = {"name": self.name, "verdict": self.verdict}
        found |= {"value": value, "threshold": threshold, "kind": self.kind, "detail": self.detail}
        if self.interval is not None:
            found["interval"] = [_finite(end) for end in self.interval]
        return found


@dataclass(frozen=True)
class Gated:
    """The checks of a gate. `notes`: what is worth knowing and decides nothing; `accepted`: files written."""

    checks: list[Check]
    notes: list[str] = field(default_factory=list)
    accepted: list[Path] = field(default_factory=list)

    @property
    def verdict(self) -> Verdict:
        """The verdict over all checks."""
        return overall(check.verdict for check in self.checks)

    @property
    def exit_code(self) -> int:
        """0 pass, 1 fail, 3 inconclusive."""
        return EXIT[self.verdict]

    @property
    def story(self) -> str:
        """The verdict in one line."""
        counts = [sum(c.verdict == v for c in self.checks) for v in _WORST_FIRST]
        said = ", ".join(
            f"{n} {words}" for n, words in zip(counts, ("failed", "inconclusive", "passed"), strict=True) if n
        )
        return f"The gate's verdict: {self.verdict} ({said})."

    def rows(self) -> list[tuple[str, str, float | str | None, float | str | None]]:
        """name, verdict, value, threshold of each check, the worst first."""
        return [(c.name, c.verdict, c.value, c.threshold) for c in _sorted(self.checks)]

    def words(self) -> str:
        """What stands below the table: why checks did not pass, notes, files written, the verdict."""
        lines = [f"{c.name}: {c.verdict}. {c.detail}" for c in _sorted(self.checks) if c.verdict != "pass"]
        lines += self.notes
        lines += [f"Written: {path}. Commit it." for path in self.accepted]
        return "\n".join([*lines, self.story])

    def to_json(self) -> dict[str, Any]:
        """The object that `stopgap gate --json` prints."""
        return {
            "verdict": self.verdict,
            "checks": [check.to_json() for check in self.checks],
            "notes": self.notes,
            "accepted": [str(path) for path in self.accepted],
        }


def overall(verdicts: Iterable[Verdict]) -> Verdict:
    """Fail if one fails, else inconclusive if one is, else pass; inconclusive where nothing was checked."""
    found = set(verdicts)
    return next((verdict for verdict in _WORST_FIRST if verdict in found), "inconclusive")


def _sorted(checks: Iterable[Check]) -> list[Check]:
    return sorted(checks, key=lambda check: _WORST_FIRST.index(check.verdict))


def _finite(value: float | str | None) -> float | str | None:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _shown(value: float | str | None) -> str:
    value = _finite(value)
    return "" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)


# -- JUnit XML -----------------------------------------------------------------------------------------------


def junit(gated: Gated) -> str:
    """The gate as JUnit XML: one test suite, one test case a check."""
    count = {v: str(sum(c.verdict == v for c in gated.checks)) for v in _WORST_FIRST}
    totals = {"tests": str(len(gated.checks)), "failures": count["fail"], "errors": count["inconclusive"]}
    root = ElementTree.Element("testsuites", {"name": "stopgap gate", **totals})
    suite = ElementTree.SubElement(root, "testsuite", {"name": "stopgap gate", **totals, "skipped": "0"})
    for check in gated.checks:
        names = {"classname": f"stopgap.{_xml(check.kind)}", "name": _xml(check.name), "time": "0"}
        case = ElementTree.SubElement(suite, "testcase", names)
        said = f"value {_shown(check.value) or 'none'}, threshold {_shown(check.threshold) or 'none'}"
        if check.verdict != "pass":
            tag = "failure" if check.verdict == "fail" else "error"
            attributes = {"type": check.verdict, "message": _xml(f"{check.name}: {said}")}
            ElementTree.SubElement(case, tag, attributes).text = _xml(check.detail or said)
        else:
            ElementTree.SubElement(case, "system-out").text = _xml(f"{said}. {check.detail}".strip())
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, "unicode") + "\n"


def _xml(text: str) -> str:
    """`text` without what XML 1.0 cannot hold even escaped: control characters, lone surrogates."""
    return _NOT_XML.sub("\ufffd", text)


# -- Markdown ------------------------------------------------------------------------------------------------


def markdown(gated: Gated) -> str:
    """The gate as Markdown (GitHub's, GitLab's): for the summary of a CI job or a comment."""
    lines = [f"{_MARKDOWN_START}{gated.verdict}", "", gated.story, ""]
    lines += ["| check | verdict | value | threshold | detail |", "|---|---|--:|--:|---|"]
    for check in _sorted(gated.checks):
        verdict = check.verdict if check.verdict == "pass" else f"**{check.verdict}**"
        value, threshold = _md(_shown(check.value)), _md(_shown(check.threshold))
        lines.append(f"| {_md(check.name)} | {verdict} | {value} | {threshold} | {_md(check.detail)} |")
    lines += ["", *(f"- {_md(note)}" for note in gated.notes)] if gated.notes else []
    return "\n".join(lines) + "\n"


def _md(text: str) -> str:
    """`text` on one line, with no mark of Markdown or HTML left in force."""
    plain = " ".join(_xml(text).replace("\ufffd", " ").split())
    return _MARKS.sub(r"\\\1", plain.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"))


# -- files ---------------------------------------------------------------------------------------------------


def prepare(*paths: Path | None) -> None:
    """Before the work: refuse what could not be written after it, and remove what an earlier gate wrote.

    A gate that stops at bad input writes nothing, and an old report must not be read as its answer.

    Raises
    ------
    InputError: a path is a folder, or in one that cannot be written to; two are the same; or the file there
        is no report of a gate.
    """
    given = [path for path in paths if path is not None]
    for number, path in enumerate(given):
        if path.is_dir() or not os.access(path.parent, os.W_OK):
            what = f"cannot be written: {path.parent} is no folder that can be written to"
            raise InputError(path, None, what if not path.is_dir() else "a folder, not a file to write")
        if path.resolve() in [other.resolve() for other in given[:number]]:
            raise InputError(path, None, "two reports cannot be written to one file")
        if path.is_file() and not _is_ours(path):
            what = "there is a file that is no report of a gate, and it is not written over"
            raise InputError(path, None, what, "Next: give the report a name of its own")
    for path in given:
        if path.is_file():
            path.unlink()


def _is_ours(path: Path) -> bool:
    """Whether a file is empty or begins as a report of a gate does."""
    with open_input(path) as file:
        start = file.read(len(_XML_START) + len(_MARKDOWN_START)).decode(errors="replace")
    return not start or start.startswith((_XML_START, _MARKDOWN_START))


def write(path: Path, text: str) -> None:
    """Write a report; the file appears whole or not at all."""
    with replace_file(path) as file:
        file.write(text.encode())
