"""`stopgap.toml`: what a gate compares with what, and what it asks for. Read strictly.

    runs = ["new/hybrid.run"]          # candidates; files or patterns
    baseline = "accepted/hybrid.run"
    qrels = "filled.qrels"
    measures = ["nDCG@10", "AP"]       # by default nDCG@10

    [checks]
    margin = 0.01                      # how much a measure may fall; or a table: "AP" = 0.02, "*" = 0.01
    judged = 0.9                       # least judged@k of every run
    labeled_share = 0.3                # greatest share of labels among the first k
    missing_topics = 0                 # topics of the qrels that a run may lack
    allow_circular = []                # runs that may share a model with the labeler (`harness.circularity`)

Further keys: `slices` (a tab-separated file with a header, query_id and columns) with
`[checks.slice_margin]` (`kind = 0.1` for every value of a column, `"kind=fact" = 0.05` for one); `collection`
(whose topics all others must be among); `labeler` (who made the labels); `lock`; and the tables
`[checks.agreement]` (human, labels, kappa), `[checks.simulation]` (results, fill, verdict_agreement),
`[checks.diagnosis]` (results, fooled) and `[checks.throughput]` (results, evidence, slowdown). Paths are
relative to the file's folder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated

from harness.errors import UsageError
from harness.measure import parse
from harness.scoring import Spec
from harness.strict_toml import BeforeValidator, Field, Misfit, SettingsFile, Table, Text, read

__all__ = ["ANY", "Agreement", "Checks", "Diagnosis", "Settings", "Simulation", "Throughput", "read_settings"]

ANY = "*"
"""The measure in a table of margins that stands for those not named."""
_EXAMPLE = """\
Next: write one, such as
  runs = ["new.run"]
  baseline = "accepted.run"
  qrels = "qrels.txt"
  [checks]
  margin = 0.01"""


def _by_measure(value: object) -> object:
    """A bare number counts for every measure."""
    if isinstance(value, int | float):
        return {ANY: value}
    if not isinstance(value, dict):
        raise ValueError("a number, or a table of measures and numbers, is wanted")
    return value


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


_Texts = Annotated[list[Text], Field(min_length=1), BeforeValidator(_listed)]
_Share = Annotated[float, Field(ge=0, le=1)]
_Margin = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_Margins = Annotated[dict[str, _Margin], Field(min_length=1), BeforeValidator(_by_measure)]


class Agreement(Table):
    """`[checks.agreement]`: the least Cohen's kappa of one file's labels with another's judgments."""

    human: Text
    labels: Text
    kappa: Annotated[float, Field(ge=-1, le=1)]


class Simulation(Table):
    """`[checks.simulation]`: what `stopgap simulate --json` said, a fill, and the least verdict agreement."""

    results: Text
    verdict_agreement: _Share
    fill: Text = "conditioned"


class Diagnosis(Table):
    """`[checks.diagnosis]`: what `stopgap diagnose --json` said; no fault of scale may be in it.

    fooled: the greatest share of non-relevant documents that a change of the text may make relevant.
    """

    results: Text
    fooled: _Share | None = None


class Throughput(Table):
    """`[checks.throughput]`: results of pytest-benchmark, the stored evidence, and the slowdown allowed."""

    results: Text
    evidence: Text = "throughput.json"
    slowdown: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 1.25


class Checks(Table):
    """`[checks]`: what is asked for; what is not named is not checked, except for missing topics."""

    margin: _Margins | None = None
    slice_margin: dict[str, _Margins] = Field(default_factory=dict)
    judged: _Share | None = None
    labeled_share: _Share | None = None
    missing_topics: Annotated[int, Field(ge=0)] = 0
    allow_circular: list[Text] = Field(default_factory=list)
    agreement: Agreement | None = None
    simulation: Simulation | None = None
    diagnosis: Diagnosis | None = None
    throughput: Throughput | None = None


class _Config(Table):
    runs: _Texts | None = None
    baseline: Text | None = None
    qrels: Text | None = None
    measures: _Texts = Field(default_factory=lambda: ["nDCG@10"])
    slices: Text | None = None
    collection: Text | None = None
    labeler: Text | None = None
    lock: Text = "stopgap.lock.json"
    checks: Checks


@dataclass(frozen=True)
class Settings(SettingsFile):
    """A file of settings that has been read.

    Attributes
    ----------
    path: the file. `runs`, `baseline`, `qrels`: as given, all three or none (a gate of speed or agreement
        alone).
    measures: as ir-measures writes them. `collection`: `demo`, `irds:ID`, or a folder's path.
    margins: measure -> how much it may fall. `slice_margins`: column or `column=value` -> the same.
    """

    runs: tuple[str, ...]
    baseline: str | None
    qrels: str | None
    measures: tuple[str, ...]
    slices: str | None
    collection: str | None
    labeler: str | None
    lock: Path
    margins: dict[str, float]
    slice_margins: dict[str, dict[str, float]]
    checks: Checks


def read_settings(path: str | Path) -> Settings:
    """Read `stopgap.toml`.

    Raises
    ------
    InputError: there is no such file; it is not TOML; or a key is unknown (with the near ones), missing, of
        another type or out of its range, or does not fit the others.
    """
    return read(path, _Config, _settings, _EXAMPLE)


def _settings(path: Path, config: _Config) -> Settings:
    checks = config.checks
    given = {"runs": config.runs, "baseline": config.baseline, "qrels": config.qrels}
    absent = [key for key, value in given.items() if value is None]
    about_runs = [
        key
        for key in ("margin", "slice_margin", "judged", "labeled_share", "missing_topics")
        if key in checks.model_fields_set
    ]
    if absent and (len(absent) < len(given) or about_runs):
        needs = f"checks.{about_runs[0]}" if about_runs else "the rest"
        raise Misfit("checks", f"{needs} needs {', '.join(absent)} too, which the file does not give")
    if not absent and checks.margin is None:
        what = "checks.margin is missing: how much a measure may fall before the gate fails"
        raise Misfit("checks", what, "Next: margin = 0.01, or margin = 0 where nothing may be lost")
    alone = (checks.agreement, checks.simulation, checks.diagnosis, checks.throughput)
    if absent and all(one is None for one in alone):
        raise Misfit("checks", "nothing is checked", "Next: runs, baseline, qrels and checks.margin")
    if bool(checks.slice_margin) != (config.slices is not None):
        what = "slices and checks.slice_margin go together: the file of slices, and how much each may fall"
        raise Misfit("slices" if config.slices else "slice_margin", what)
    measures = _canonical("measures", config.measures)
    file = SettingsFile(path)
    return Settings(
        path=path,
        runs=tuple(config.runs or ()),
        baseline=config.baseline,
        qrels=config.qrels,
        measures=measures,
        slices=config.slices,
        collection=None if config.collection is None else file.collection_at(config.collection),
        labeler=config.labeler,
        lock=file.at(config.lock),
        margins=_margins("margin", checks.margin or {ANY: 0.0}, measures),
        slice_margins={
            name: _margins(f"slice_margin.{name}", table, measures, whole=False)
            for name, table in checks.slice_margin.items()
        },
        checks=checks,
    )


def _margins(
    key: str, table: Mapping[str, float], measures: Sequence[str], *, whole: bool = True
) -> dict[str, float]:
    """Measure -> margin for those of `measures` that a table gives one; with `whole`, it has to for all."""
    named = {m: v for name, v in table.items() if name != ANY for m in _canonical(f"checks.{key}", [name])}
    if strange := [name for name in named if name not in measures]:
        near = get_close_matches(strange[0], measures, n=1)
        hint = f"Did you mean {near[0]!r}? " if near else ""
        what = f"checks.{key} has {strange[0]!r}, which is none of the measures ({', '.join(measures)})"
        raise Misfit(strange[0], what, f"{hint}Next: add it to measures, or take it out here")
    found = {m: named.get(m, table.get(ANY)) for m in measures}
    if whole and (without := [m for m, margin in found.items() if margin is None]):
        what = f"checks.{key} gives no margin for {', '.join(without)}"
        raise Misfit(key, what, f'Next: add "{without[0]}" = 0.01, or "{ANY}" = 0.01 for all others')
    return {m: margin for m, margin in found.items() if margin is not None}


def _canonical(key: str, measures: Sequence[str]) -> tuple[str, ...]:
    """Measures as ir-measures writes them."""
    try:
        return tuple(m.text if isinstance(m, Spec) else str(m) for m in parse(measures))
    except UsageError as error:
        raise Misfit(key.rpartition(".")[2], f"{key}: {error}") from None
