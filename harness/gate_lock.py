"""The accepted baseline: `stopgap.lock.json`, written by `stopgap gate --accept` and committed.

A gate compares with something that somebody agreed to. The lock says what that was: sha256 of the qrels (and
of the twin that holds their expected gains), of the baseline run and of the slices, the set of topics, what
the baseline scored, and the versions that scored it. A gate without a lock is bad input (exit 2): there is
nothing to compare with. A gate whose files are not the locked ones fails (exit 1), since its other verdicts
are about something that nobody accepted.
"""

from __future__ import annotations

import hashlib
import json
import math
import platform
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from harness.errors import InputError
from harness.gate_output import Check, Verdict
from harness.trec import file_hash, twin_path
from harness.trec_bytes import replace_file

__all__ = ["compare_locks", "make_lock", "read_json", "read_lock", "write_json"]

_FORMAT = "stopgap_lock"
_FILES = {"qrels": "the qrels", "twin": "the qrels' Parquet twin", "baseline": "the baseline run"}
_FILES |= {"slices": "the file of slices"}
_SAME = 1e-9  # scores that differ by less differ by rounding only


def make_lock(
    qrels: Path,
    baseline: Path,
    slices: Path | None,
    topics: Iterable[str],
    scores: Mapping[str, float | None],
) -> dict[str, Any]:
    """What a lock of these files says.

    Parameters
    ----------
    topics: query ids of the qrels. `scores`: measure -> the baseline's average.
    """
    twin = twin_path(qrels)
    files = {"qrels": qrels, "twin": twin if twin.exists() else None, "baseline": baseline, "slices": slices}
    ids = sorted(set(topics))
    return {
        _FORMAT: 1,
        "sha256": {name: path and file_hash(path) for name, path in files.items()},
        "topics": {"count": len(ids), "sha256": hashlib.sha256("\n".join(ids).encode()).hexdigest()},
        "scores": dict(scores),
        "versions": _versions(),
    }


def read_lock(path: Path, command: str) -> dict[str, Any]:
    """Read a lock. `command`: what would write it.

    Raises
    ------
    InputError: there is none, or it is no lock.
    """
    lock = read_json(path, _FORMAT, "no accepted baseline to compare with", command)
    shapes = {"sha256": dict, "topics": dict, "scores": dict, "versions": dict}
    if wrong := [key for key, kind in shapes.items() if not isinstance(lock.get(key), kind)]:
        raise InputError(path, None, f"a lock without a proper {wrong[0]!r}", f"Next: {command}")
    return lock


def compare_locks(now: Mapping[str, Any], then: Mapping[str, Any], command: str) -> list[Check]:
    """A check for each thing a lock holds: that it is as it was when it was accepted."""
    checks = []
    next_command = f"If that is meant: {command}, and commit the lock"
    for name, words in _FILES.items():
        mine, accepted = now["sha256"][name], then["sha256"].get(name)
        if mine is None and accepted is None:
            continue
        said = f"sha256 of {words} is as accepted" if mine == accepted else _changed(words, mine, accepted)
        checks.append(_check(f"{name} as accepted", mine, accepted, said, next_command))
    mine, accepted = now["topics"], then["topics"]
    count = (mine["count"], accepted.get("count"))
    said = "the topics of the qrels are those accepted"
    if mine["sha256"] != accepted.get("sha256"):
        said = f"the qrels have another set of topics than was accepted: {count[0]}, then {count[1]}"
    checks.append(_check("topics as accepted", mine["sha256"], accepted.get("sha256"), said, next_command))
    for measure, score in now["scores"].items():
        known = measure in then["scores"]
        before = then["scores"].get(measure)
        if known and _same(score, before):
            said = "the baseline scores what it scored when it was accepted"
        elif known:
            changed = _updates(then["versions"], now["versions"])
            said = f"the baseline scored {before} when it was accepted and scores {score} now{changed}"
        else:
            said = "the baseline has no accepted score of this measure"
        verdict: Verdict = "pass" if known and _same(score, before) else "fail"
        detail = said if verdict == "pass" else f"{said}. {next_command}"
        checks.append(
            Check("accepted", f"{measure} of the baseline as accepted", verdict, score, before, detail)
        )
    return checks


def _check(name: str, mine: str | None, accepted: str | None, said: str, next_command: str) -> Check:
    same = mine == accepted
    short = [None if value is None else str(value)[:12] for value in (mine, accepted)]
    detail = said if same else f"{said}. {next_command}"
    return Check("accepted", name, "pass" if same else "fail", short[0], short[1], detail)


def _changed(words: str, mine: str | None, accepted: str | None) -> str:
    if mine is None:
        return f"{words} was there when the baseline was accepted and is gone"
    if accepted is None:
        return f"{words} was not there when the baseline was accepted"
    return f"{words} changed since the baseline was accepted"


def _same(score: float | None, before: object) -> bool:
    if score is None or not isinstance(before, int | float):
        return score is None and before is None
    return math.isclose(score, before, rel_tol=0, abs_tol=_SAME)


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in ("stopgap", "ir-measures", "numpy", "polars"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _updates(then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The versions that are not what they were, in words."""
    other = [f"{name} {then.get(name, 'absent')} is now {number}" for name, number in now.items()]
    found = [words for words, name in zip(other, now, strict=True) if then.get(name) != now[name]]
    return f" ({', '.join(found)})" if found else ""


# -- JSON files ----------------------------------------------------------------------------------------------


def read_json(path: Path, mark: str, missing: str, command: str) -> dict[str, Any]:
    """A JSON object that holds the key `mark`, with 1, the version of its form, as its value.

    Raises
    ------
    InputError: there is no such file (`missing` says what that means, `command` is what to do next), it is
        not JSON, or another thing.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(path, None, f"no such file: {missing}", f"Next: {command}") from None
    except json.JSONDecodeError as error:
        raise InputError(path, error.lineno, f"not JSON: {error.msg}", f"Next: {command}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(path, None, f"cannot be read: {error}", f"Next: {command}") from None
    if not isinstance(found, dict) or found.get(mark) != 1:
        raise InputError(path, None, f"not what it should be: it has no {mark!r}: 1", f"Next: {command}")
    return found


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write an object, indented, keys in their order, so that a diff shows what changed."""
    with replace_file(path) as file:
        file.write((json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())
