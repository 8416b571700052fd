"""stopgap: fill the holes of a test collection, and say what rests on the filling.

A verb of the command line is a module here with a function of its name: `harness.measure.measure`. What is
used by itself is exported from the package. Nothing is imported until it is asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness import agree as agree
    from harness import bounds as bounds
    from harness import calibrate as calibrate
    from harness import compare as compare
    from harness import diagnose as diagnose
    from harness import estimate as estimate
    from harness import fill as fill
    from harness import gate as gate
    from harness import groups as groups
    from harness import lint as lint
    from harness import measure as measure
    from harness import plan as plan
    from harness import pool as pool
    from harness import report as report
    from harness import retrieve as retrieve
    from harness import simulate as simulate
    from harness.collection import Collection as Collection
    from harness.collection import open_collection as open_collection
    from harness.errors import CalibrationError as CalibrationError
    from harness.errors import InputError as InputError
    from harness.errors import LabelerError as LabelerError
    from harness.errors import MissingExtra as MissingExtra
    from harness.errors import SchemaError as SchemaError
    from harness.errors import StopgapError as StopgapError
    from harness.errors import StopgapWarning as StopgapWarning
    from harness.errors import UnknownName as UnknownName
    from harness.errors import UsageError as UsageError
    from harness.frames import LABELS as LABELS
    from harness.frames import PAIRS as PAIRS
    from harness.frames import QRELS as QRELS
    from harness.frames import RUN as RUN
    from harness.frames import SIGNALS as SIGNALS
    from harness.frames import TOPICS as TOPICS
    from harness.frames import check as check
    from harness.labeling import signal_batches as signal_batches
    from harness.labeling import signals as signals
    from harness.ledger import Ledger as Ledger
    from harness.protocol import Encoder as Encoder
    from harness.protocol import Labeler as Labeler
    from harness.ranking import rank as rank
    from harness.trec import read_qrels as read_qrels
    from harness.trec import read_run as read_run
    from harness.trec import read_runs as read_runs
    from harness.trec import write_qrels as write_qrels
    from harness.trec import write_run as write_run

_MODULES = (
    "agree",
    "bounds",
    "calibrate",
    "compare",
    "diagnose",
    "estimate",
    "fill",
    "gate",
    "groups",
    "lint",
    "measure",
    "plan",
    "pool",
    "report",
    "retrieve",
    "simulate",
)
_HOME = {
    "collection": "Collection open_collection",
    "errors": "CalibrationError InputError LabelerError MissingExtra SchemaError StopgapError StopgapWarning"
    " UnknownName UsageError",
    "frames": "LABELS PAIRS QRELS RUN SIGNALS TOPICS check",
    "labeling": "signal_batches signals",
    "ledger": "Ledger",
    "protocol": "Encoder Labeler",
    "ranking": "rank",
    "trec": "read_qrels read_run read_runs write_qrels write_run",
}
_EXPORTS = {name: module for module, names in _HOME.items() for name in names.split()}

__all__ = sorted([*_EXPORTS, *_MODULES])


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"harness.{name}")
    if name in _EXPORTS:
        return getattr(import_module(f"harness.{_EXPORTS[name]}"), name)
    from difflib import get_close_matches

    near = get_close_matches(name, __all__, n=3)
    hint = f". Did you mean {' or '.join(near)}?" if near else ""
    raise AttributeError(f"module 'harness' has no attribute {name!r}{hint}")


def __dir__() -> list[str]:
    return __all__
