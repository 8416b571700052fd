"""What filling does to verdicts: holes are made in complete qrels, filled, and measured.

Whoever has judged a collection thoroughly can ask what would have happened if a system had come later: its
own documents would be holes. Take their judgments away, fill the holes in several ways, and compare ranks,
scores and verdicts with those of the full qrels. Fills:

* zero: holes count as not relevant. condensed: documents without a judgment leave the ranking (Sakai, SIGIR
  2007). constant: every hole has the grades of what is judged, at their frequencies.
* labels: a labeler's grades as they are. calibrated: for each label the human grades of judged documents with
  that label, at their frequencies, whatever the topic. conditioned: `harness.calibrate`, which looks at the
  topic's judged documents. relabel: every judgment replaced by the label.

Expected gains fill the holes, and ideal rankings are those of the filled qrels. A hole without a label stays
a hole. The method is that of Zobel (SIGIR 1998) for pools; of fills by language models see Abbasiantaeb et
al., arXiv 2405.05600.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl

from harness.arrays import Bools, Floats, Ints
from harness.errors import CalibrationError, UnknownName, UsageError
from harness.frames import QRELS, check, labels_in
from harness.labeling import Progress
from harness.measure import Measurement, measure
from harness.scoring import Spec
from harness.simulate_conditioned import Conditioner
from harness.simulate_fills import (
    Patch,
    Raw,
    calibrated,
    constant,
    fill_holes,
    label_signals,
    nothing,
    raw_grades,
    raw_of_labels,
    raw_of_signals,
    signals_of,
)
from harness.simulate_holes import Holes, at_random, evidence, found_by, left_out, read_groups
from harness.simulate_tally import Tally, coverage

__all__ = ["FILLS", "LeaveOut", "Simulated", "Table", "read_groups", "signals_of", "simulate"]

FILLS = ("zero", "condensed", "constant", "labels", "calibrated", "conditioned", "relabel")
LeaveOut = Literal["group", "run", "random"]

_KEYS = ["query_id", "doc_id"]


@dataclass(frozen=True)
class Table:
    """Fills under one setting.

    `measure`; `budget`: judged documents a topic that the fits saw, None: all; `rate` of random holes, None:
    not random; `holes`: judgments taken away, over all sets of holes together; `sets`: how many these are;
    `fills`: fill -> what it did (`Tally`).
    """

    measure: str
    budget: int | None
    rate: float | None
    holes: int
    sets: int
    fills: dict[str, Tally]

    def to_json(self) -> dict[str, Any]:
        """One of `tables` in `stopgap simulate --json`."""
        return vars(self) | {"fills": {name: tally.to_json() for name, tally in self.fills.items()}}


@dataclass(frozen=True)
class Simulated:
    """What `simulate` found.

    `tables`: for each rate, budget (first: all judgments) and measure. `runs`, `topics`, `judgments`: how
    many. `notes`: in words, what a reader must know.
    """

    leave_out: str
    depth: int
    runs: int
    topics: int
    judgments: int
    tables: list[Table]
    notes: list[str]

    def to_json(self) -> dict[str, Any]:
        """The object that `stopgap simulate --json` prints; `fills` are the first table's."""
        tables = [table.to_json() for table in self.tables]
        return {
            "leave_out": self.leave_out,
            "depth": self.depth,
            "measure": tables[0]["measure"],
            "runs": self.runs,
            "topics": self.topics,
            "judgments": self.judgments,
            "holes": tables[0]["holes"],
            "fills": tables[0]["fills"],
            "tables": tables,
            "notes": self.notes,
        }


def simulate(
    runs: Mapping[str, str | Path | pl.DataFrame],
    qrels: pl.DataFrame,
    *,
    leave_out: LeaveOut,
    labels: pl.DataFrame | None = None,
    signals: Sequence[pl.DataFrame] = (),
    groups: Mapping[str, str] | None = None,
    measures: Sequence[str] = ("nDCG@10",),
    depth: int = 10,
    budgets: Sequence[int] = (),
    rates: Sequence[float] = (0.5,),
    seeds: int = 3,
    fills: Sequence[str] = FILLS,
    grades: Sequence[int] | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Simulated:
    """Make holes in qrels, fill them, and say what that does.

    Parameters
    ----------
    runs, measures: as `harness.measure.measure` takes them; only measures that are computed here.
    qrels: QRELS. Only assessors' rows count; negative grades stay as they are and are never made holes.
    leave_out: `group`: what only runs of one of the `groups` have in their top `depth`; `run`: what one run
        alone has; these runs are then compared with all others. `random`: a share of all judgments (each of
        `rates`, `seeds` times); all runs are compared with each other.
    labels: query_id, doc_id, relevance: a labeler's grades; of filled QRELS the labels count.
    signals: SIGNALS, one frame a labeler, over the judged pairs, for `conditioned`. Without `labels` the
        first frame's likeliest grades are the labels; where it has scores only, `calibrated` takes twenty
        bins of them for labels, and there are no raw ones. Without `signals` the labels are the signal.
    budgets: judged documents a topic, drawn at random, that fits may see, besides all. Qrels keep all.
    fills: which; `FILLS` are all there are.
    grades: the collection's; by default those of the qrels.
    progress: called with fits of the calibrator done and to do.

    Raises
    ------
    UsageError: a measure that is not computed here, fewer than two runs, topics or grades, a grade that is
        not among `grades`, a run without a group, one group only, labels that grade a pair twice, or a
        budget, depth, rate or number of seeds out of range.
    UnknownName: a fill that there is not. SchemaError: a frame lacks a column.
    """
    import scipy.linalg  # noqa: F401
    from threadpoolctl import threadpool_limits

    _refuse(runs, leave_out, groups, depth, budgets, seeds)
    for fill in fills:
        if fill not in FILLS:
            raise UnknownName("fill", fill, FILLS)
    # Threads would change the last digits, and many small matrices want one each. The limit holds for the
    # libraries that are loaded when it is set, hence the import above.
    with threadpool_limits(1):
        made = _Made(runs, qrels, labels, signals, measures, depth, fills, grades, seed)
        tables = []
        for rate in rates if leave_out == "random" else [None]:
            sets = made.holes(leave_out, groups, rate, seeds)
            for budget in (None, *budgets):
                tables += made.tables(sets, rate, budget, progress)
    judgments = int(made.may_go.sum())
    return Simulated(leave_out, depth, len(made.names), len(made.topics), judgments, tables, made.notes)


def _refuse(
    runs: Mapping[str, Any],
    leave_out: str,
    groups: Mapping[str, str] | None,
    depth: int,
    budgets: Sequence[int],
    seeds: int,
) -> None:
    if leave_out not in ("group", "run", "random"):
        raise UsageError(f"unknown way to leave out, {leave_out!r}. Available: group, run, random")
    if len(runs) < 2:
        raise UsageError("verdicts need at least two runs")
    if leave_out == "group" and groups is None:
        raise UsageError(
            "to leave groups out, say who belongs to which: --groups META.tsv with columns run and team"
        )
    without = [] if groups is None or leave_out != "group" else [run for run in runs if run not in groups]
    if without:
        raise UsageError(f"run {without[0]!r} has no group")
    for what, value in (("depth", depth), ("number of seeds", seeds), *(("budget", b) for b in budgets)):
        if value < 1:
            raise UsageError(f"the {what} is {value}; it must be at least 1")


class _Made:
    """What all settings share: the measured runs, the labels as arrays, the notes."""

    def __init__(
        self,
        runs: Mapping[str, str | Path | pl.DataFrame],
        qrels: pl.DataFrame,
        labels: pl.DataFrame | None,
        signals: Sequence[pl.DataFrame],
        measures: Sequence[str],
        depth: int,
        fills: Sequence[str],
        grades: Sequence[int] | None,
        seed: int,
    ) -> None:
        self.depth, self.fills, self.seed, self.notes = depth, fills, seed, list[str]()
        human = check(qrels, QRELS, "qrels").filter(pl.col("assessor") == "human").sort(_KEYS)
        if left := qrels.height - human.height:
            self.notes.append(f"{left} rows of the qrels are labels and were left out")
        used = np.unique(human.filter(pl.col("relevance") >= 0)["relevance"].to_numpy()).astype(np.int64)
        self.grades: Ints = used if grades is None else np.unique([g for g in grades if g >= 0])
        if len(strange := np.setdiff1d(used, self.grades)):
            scale = ", ".join(map(str, self.grades.tolist()))
            raise UsageError(f"the qrels have grade {strange[0]}; the collection's grades are {scale}")
        found = measure(runs, human, measures, grades=self.grades.tolist())
        self.specs = _ours(found)
        self.names, self.topics = list(found.runs), found.topics
        self.hits = [found.hits[name] for name in self.names]
        self.judgments = self.hits[0].judgments
        self.full: list[Floats] = [
            np.stack([found.values[name][m] for name in self.names]) for m in range(len(self.specs))
        ]
        self.may_go: Bools = self.judgments.relevance >= 0
        if coded := int((~self.may_go).sum()):
            self.notes.append(f"{coded} negative grades are no judgments: they stay as they are")
        _refuse_small(self)
        self.pairs = human
        top = sum(int(np.minimum(hit.all.retrieved, depth).sum()) for hit in self.hits)
        unseen = 1 - sum(int((hit.all.rank <= depth).sum()) for hit in self.hits) / max(top, 1)
        if unseen > 0:
            self.notes.append(
                f"{100 * unseen:.2g} % of the runs' top {depth} are unjudged in the full qrels: not relevant"
                " there and after all fills but condensed, which drops them too"
            )
        self.raw = self._raw(labels, signals)
        self.conditioner: Conditioner | None = None
        if "conditioned" in fills:
            self._condition(signals, human)

    def _condition(self, signals: Sequence[pl.DataFrame], human: pl.DataFrame) -> None:
        if not signals and self.raw is not None:
            self.notes.append(
                "conditioned: no vectors of documents; the label is the signal, beside the topic's grades"
            )
            signals = [label_signals(self.raw, human, self.grades)]
        if signals:
            count, owner = found_by(self.hits, np.arange(len(self.hits)), self.depth)
            self.conditioner = Conditioner(
                signals, human, self.grades, np.where(count == 1, owner, -1), self.seed
            )
            self._note_missing("conditioned", signals)

    def _raw(self, labels: pl.DataFrame | None, signals: Sequence[pl.DataFrame]) -> Raw | None:
        if labels is None and not signals:
            self.notes.append("no labels are given: holes are filled with zero and a constant only")
            return None
        if labels is not None:
            needed = {"query_id": pl.String(), "doc_id": pl.String(), "relevance": pl.Int16()}
            labels = check(labels, needed, "labels")
            labels = labels_in(labels) if "assessor" in labels.columns else labels
            if labels.select(pl.struct(_KEYS).is_duplicated().any()).item():
                raise UsageError("the labels grade a pair twice. Next: stopgap lint LABELS")
            raw = raw_of_labels(labels, self.pairs)
        else:
            raw = raw_of_signals(signals[0], self.pairs, self.grades)
            if raw.grade is None:
                self.notes.append(
                    "the labeler gives scores and no grades: there are no raw labels; calibrated takes twenty"
                    " bins of its scores for labels"
                )
        missing = int(((raw.code < 0) & self.may_go).sum())
        if missing:
            self.notes.append(
                f"{missing} of {int(self.may_go.sum())} judged pairs have no label; where they are made holes"
                " they stay holes, and relabel has no grade for them"
            )
        if raw.grade is not None:
            strange = np.setdiff1d(raw.grade[raw.code >= 0], self.grades)
            if len(strange):
                self.notes.append(
                    f"the labels have grades that assessors do not use: {', '.join(map(str, strange))};"
                    " raw, they count as they are"
                )
        return raw

    def _note_missing(self, fill: str, signals: Sequence[pl.DataFrame]) -> None:
        heard = pl.concat([s.filter(pl.col("reason").is_null()).select(_KEYS) for s in signals]).unique()
        missing = self.pairs.filter(pl.Series(self.may_go)).join(heard, on=_KEYS, how="anti").height
        if missing:
            self.notes.append(f"{fill}: {missing} judged pairs have no signal; as holes they stay holes")

    def holes(
        self, leave_out: str, groups: Mapping[str, str] | None, rate: float | None, seeds: int
    ) -> list[Holes]:
        """The sets of holes of one setting."""
        if rate is not None:
            return at_random(len(self.names), rate, seeds, self.may_go, self.seed)
        by = [groups[n] if groups and leave_out == "group" else n for n in self.names]
        return left_out(self.hits, by, self.depth, self.may_go)

    def tables(
        self, sets: Sequence[Holes], rate: float | None, budget: int | None, progress: Progress | None
    ) -> list[Table]:
        """One table a measure."""
        seen = [
            evidence(self.judgments.topic, self.may_go & ~holes.gone, budget, self.seed, number)
            for number, holes in enumerate(sets)
        ]
        tallies: list[dict[str, Tally]] = [{} for _ in self.specs]
        for fill, number, gone, patch in self._patches(sets, seen, budget, progress):
            filled = fill_holes(self.judgments, gone, patch)
            specs = [_judged_only(s) for s in self.specs] if fill == "condensed" else self.specs
            for spec, full, tally in zip(specs, self.full, tallies, strict=True):
                tally.setdefault(fill, Tally()).add(sets[number], full, filled.values(spec, self.hits))
            if patch.probs is not None and len(patch.rows):
                checked = coverage(
                    self.specs, filled, self.hits, sets[number], self.full, number=number, seed=self.seed
                )
                for tally, one in zip(tallies, checked, strict=True):
                    tally[fill].covered.append(one)
        size = sum(int(holes.gone.sum()) for holes in sets)
        return [
            Table(spec.text, budget, rate, size, len(sets), {f: tally[f] for f in FILLS if f in tally})
            for spec, tally in zip(self.specs, tallies, strict=True)
        ]

    def _patches(
        self,
        sets: Sequence[Holes],
        seen: Sequence[Bools],
        budget: int | None,
        progress: Progress | None,
    ) -> Iterator[tuple[str, int, Bools, Patch]]:
        """Fill, number of the set of holes, what is gone, and what is put there.

        What does not hang on the judgments that a fit sees is left out under a budget.
        """
        raw, relevance, every = self.raw, self.judgments.relevance, self.may_go
        for number, (holes, shown) in enumerate(zip(sets, seen, strict=True)):
            gone = holes.gone
            made: dict[str, Callable[[], Patch]] = {
                "constant": partial(constant, relevance, gone, shown, self.grades)
            }
            if raw is not None:
                made["calibrated"] = partial(calibrated, relevance, gone, shown, self.grades, raw)
            if budget is None:
                made |= {"zero": nothing, "condensed": nothing}
                if raw is not None and raw.grade is not None:
                    made |= {
                        "labels": partial(raw_grades, raw, gone),
                        "relabel": partial(raw_grades, raw, every),
                    }
            for fill in made:
                if fill in self.fills:
                    yield fill, number, every if fill == "relabel" else gone, made[fill]()
        if self.conditioner is not None:
            yield from self._conditioned(self.conditioner, sets, seen, budget, progress)

    def _conditioned(
        self,
        conditioner: Conditioner,
        sets: Sequence[Holes],
        seen: Sequence[Bools],
        budget: int | None,
        progress: Progress | None,
    ) -> Iterator[tuple[str, int, Bools, Patch]]:
        try:
            made = conditioner.fill(sets, seen, progress)
        except CalibrationError as error:
            said = f"conditioned is left out{'' if budget is None else f' at {budget} a topic'}"
            self.notes.append(f"{said}: {str(error).splitlines()[0]}")
            return
        for number, (holes, patch) in enumerate(zip(sets, made, strict=True)):
            yield "conditioned", number, holes.gone, patch


def _refuse_small(made: _Made) -> None:
    if len(made.topics) < 2:
        raise UsageError("the qrels have one topic; a t-test between runs needs at least two")
    if len(made.grades) < 2:
        only = f"all judgments have grade {made.grades[0]}" if len(made.grades) else "no grade is 0 or more"
        raise UsageError(f"{only}, so runs cannot be told apart")


def _ours(found: Measurement) -> list[Spec]:
    theirs = [name for name, s in zip(found.measures, found.specs, strict=True) if not isinstance(s, Spec)]
    if theirs:
        raise UsageError(
            f"{theirs[0]} is another provider's measure, which takes no fractions of grades; simulate takes "
            "nDCG, AP, RR, P, R, Success, RBP, Bpref, Rprec and Judged"
        )
    return [s for s in found.specs if isinstance(s, Spec)]


def _judged_only(spec: Spec) -> Spec:
    return replace(spec, judged_only=True)
