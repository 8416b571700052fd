"""What `agree`, `simulate` and `diagnose` printed with --json, read again for a page or a gate."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.errors import InputError

__all__ = ["VERBS", "Saved", "read_saved", "verb_of"]

Saved = Mapping[str, Any]
VERBS = ("agree", "simulate", "diagnose")


def read_saved(path: str | Path, verb: str | None = None) -> dict[str, Any]:
    """The object in a file.

    Parameters
    ----------
    verb: the one of `VERBS` that has to have printed it; None: any.

    Raises
    ------
    InputError: the file cannot be read, or holds something else.
    """
    makers = verb or ", ".join(VERBS[:-1]) + f" or {VERBS[-1]}"
    hint = f"Next: stopgap {verb or VERBS[0]} ... --json > {Path(path).name}"
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(path, None, error.strerror or str(error), hint) from None
    except ValueError as error:
        raise InputError(path, getattr(error, "lineno", None), "holds no JSON", hint) from None
    if not isinstance(found, dict) or verb_of(found) not in ((verb,) if verb else VERBS):
        raise InputError(path, None, f"is not what {makers} prints with --json", hint)
    return found


def verb_of(saved: Saved) -> str | None:
    """Which verb prints such an object; None if none does."""
    if isinstance(saved.get("fills"), Mapping):
        return "simulate"
    if "circularity" in saved and "scale" in saved:
        return "diagnose"
    if isinstance(saved.get("labelers"), Mapping) or ("labeler" in saved and "kappa" in saved):
        return "agree"
    return None
