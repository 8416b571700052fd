"""A versus B on the same topics: the difference, how sure it is, what it rests on, a verdict in one word.

Every number runs over all topics of the qrels; one that a run lacks counts 0 and is reported. The interval
is about topics drawn anew and, where labels have distributions, about the labels too (`harness.draws`). The
bounds say what no labeler can change: the least and greatest difference over every grading of what nobody
judged (`harness.bounds`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from harness.arrays import Bools, Floats
from harness.bounds import Bounds, bounds_each
from harness.circularity import relations
from harness.draws import score_draws
from harness.errors import UnknownName, UsageError
from harness.inference import (
    CONFIDENCE,
    adjusted,
    detectable,
    intervals,
    sign_flips,
    t_test,
    topics_needed,
    wilcoxon,
)
from harness.measure import Measurement, measure
from harness.scoring import Spec
from harness.slices import masks
from harness.trec import read_run
from harness.verdicts import judge

__all__ = ["Compared", "Comparison", "compare", "compare_measured"]

_SAME = 1e-12  # values that differ by less differ by rounding only


@dataclass(frozen=True)
class Comparison:
    """A candidate against a base on one measure and one set of topics.

    Attributes
    ----------
    base, candidate: means over the topics. `delta`: candidate - base.
    ci: the 95 % interval of `delta`, over topics drawn anew (`inference.intervals`) and labels drawn from
        their distributions; infinite with a single topic.
    label_ci: the 95 % interval from the labels' error alone, topics as they are; None if no label has a
        distribution, or the measure is another provider's.
    p: of the paired sign-flip permutation test (`inference.sign_flips`). `p_adjusted`: after the correction
        over all measures, candidates and slices. `t_p`, `wilcoxon_p`: of those paired tests, on the labels as
        they are; NaN where they are undefined.
    effect: `delta` over the standard deviation of the topics' differences (Cohen's d_z); NaN without one.
    detectable: the least difference that so many topics would show with 80 % power; `topics_needed`: how
        many would show this one. Both of the t-test, with the labels' error in the standard deviation.
    wins, ties, losses: topics on which the candidate has more, the same, less. `topics`: all of them.
    bounds: least and greatest `delta` over every grading of the unjudged documents; `flips`: the fewest of
        them that could turn its sign, None if none can or it is not known. Both None within a slice and for a
        measure that `harness.bounds` does not cover.
    margin: differences up to this do not matter; None: not said. `noninferior`: the whole interval is above
        -margin.
    verdict: `equivalent` where the interval lies within the margin on both sides, or the runs are the same on
        every topic; else `better` or `worse` where the interval leaves 0 out and `p_adjusted` is below 0.05;
        else `inconclusive`. `why`: what it rests on, and what would make it conclusive.
    """

    base: float
    candidate: float
    delta: float
    ci: tuple[float, float]
    label_ci: tuple[float, float] | None
    p: float
    p_adjusted: float
    t_p: float
    wilcoxon_p: float
    effect: float
    detectable: float
    topics_needed: int | None
    wins: int
    ties: int
    losses: int
    topics: int
    bounds: tuple[float, float] | None
    flips: int | None
    margin: float | None
    noninferior: bool | None
    verdict: str
    why: str

    def to_json(self) -> dict[str, Any]:
        """The object of one measure in `stopgap compare --json`."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in vars(self).items()}


@dataclass(frozen=True)
class Compared:
    """What `compare` found.

    Attributes
    ----------
    found: candidate -> measure -> Comparison over all topics. slices: slice (`kind=fact`) -> the same.
    measurement: the scores that it rests on. notes: in words, what a reader must know of the input.
    """

    base: str
    candidates: list[str]
    measures: list[str]
    found: dict[str, dict[str, Comparison]]
    slices: dict[str, dict[str, dict[str, Comparison]]]
    measurement: Measurement
    notes: list[str]

    @property
    def verdicts(self) -> list[str]:
        """Those over all topics, one for each candidate and measure."""
        return [one.verdict for by_measure in self.found.values() for one in by_measure.values()]

    def to_json(self) -> dict[str, Any]:
        """The object that `stopgap compare --json` prints; `measures` are the first candidate's."""

        def plain(found: Mapping[str, Mapping[str, Comparison]]) -> dict[str, Any]:
            return {c: {m: one.to_json() for m, one in of.items()} for c, of in found.items()}

        candidates = plain(self.found)
        return {
            "base": self.base,
            "candidate": self.candidates[0],
            "measures": candidates[self.candidates[0]],
            "candidates": candidates,
            "slices": {name: plain(found) for name, found in self.slices.items()},
            "runs": self.measurement.runs,
            "notes": self.notes,
        }


def compare(
    runs: Mapping[str, str | Path | pl.DataFrame],
    qrels: pl.DataFrame,
    measures: Sequence[str],
    *,
    base: str | None = None,
    grades: Sequence[int] | None = None,
    margins: float | Mapping[str, float] | None = None,
    correction: str = "holm",
    slices: pl.DataFrame | None = None,
    seed: int = 0,
) -> Compared:
    """Compare candidates with a base.

    Parameters
    ----------
    runs: name -> RUN, or a file of one. base: one of the names; by default the first.
    qrels, measures, grades: as `harness.measure.measure` takes them.
    margins: the difference, in the measures' unit, up to which runs are as good as each other: one for all
        measures or by measure.
    correction: of p over measures x candidates x (all topics and slices): holm, bonferroni, fdr, none.
    slices: query_id and columns to slice by (`harness.slices`).
    seed: of everything random; the same seed gives the same result whatever the number of threads.

    Raises
    ------
    UsageError: fewer than two runs, a negative margin, a measure that is defined on no topic, and whatever
        `measure` refuses. UnknownName: no such base, correction, or measure of a margin.
    """
    names = list(runs)
    if len(names) < 2:
        raise UsageError(f"{_few(names)}; name a base and at least one candidate")
    first = names[0] if base is None else base
    if first not in names:
        raise UnknownName("run", first, names)
    frames = {n: run if isinstance(run, pl.DataFrame) else read_run(run) for n, run in runs.items()}
    found = measure(frames, qrels, measures, grades=grades)
    edges = {
        (c, m): edge
        for c in names
        if c != first
        for m, edge in bounds_each(frames[first], frames[c], qrels, found.measures, grades=grades).items()
        if edge is not None
    }
    result = compare_measured(
        found, first, bounded=edges, margins=margins, correction=correction, slices=slices, seed=seed
    )
    return replace(result, notes=[*result.notes, *_relatives(runs, qrels)])


def _relatives(runs: Mapping[str, str | Path | pl.DataFrame], qrels: pl.DataFrame) -> list[str]:
    """Of runs that share something with the labeler whose labels judge them."""
    labels = qrels.filter(pl.col("assessor") != "human")
    return [
        f"{one.run.name} and the labeler {one.labeler.name} share {one.nearest}, which may favour the run;"
        " stopgap diagnose measures by how much."
        for one in relations(runs, labels)
        if one.shared
    ]


def _few(names: Sequence[str]) -> str:
    return f"there is one run only, {names[0]!r}" if names else "there is no run"


def compare_measured(
    found: Measurement,
    base: str,
    *,
    bounded: Mapping[tuple[str, str], Bounds] | None = None,
    margins: float | Mapping[str, float] | None = None,
    correction: str = "holm",
    slices: pl.DataFrame | None = None,
    seed: int = 0,
) -> Compared:
    """`compare`, of runs that are measured already. `bounded`: (candidate, measure) -> its bounds."""
    from threadpoolctl import threadpool_limits

    candidates = [name for name in found.runs if name != base]
    allowed = _margins(margins, found.measures)
    chosen = {"": np.ones(len(found.topics), dtype=bool)}
    if slices is not None:
        chosen |= masks(slices, found.topics)
    specs = [spec for spec in found.specs if isinstance(spec, Spec)]
    drawn = score_draws(specs, found.hits, seed=seed)
    results: dict[tuple[str, str, str], Comparison] = {}
    with threadpool_limits(1):  # threads would change the last digits
        for name, inside in chosen.items():
            results |= {
                (name, c, m): one
                for (c, m), one in _family(found, base, candidates, inside, drawn, seed).items()
            }
    p = adjusted(np.array([one.p for one in results.values()]), correction)
    for (key, one), corrected in zip(list(results.items()), p, strict=True):
        name, candidate, m = key
        edge = (bounded or {}).get((candidate, m)) if not name else None
        results[key] = _judged(
            replace(one, p_adjusted=float(corrected)), allowed[m], edge, found, base, candidate
        )
    by = {name: {c: {m: results[name, c, m] for m in found.measures} for c in candidates} for name in chosen}
    whole = by.pop("")
    return Compared(base, candidates, found.measures, whole, by, found, _notes(found, bool(drawn)))


def _family(
    found: Measurement,
    base: str,
    candidates: Sequence[str],
    inside: Bools,
    drawn: Mapping[str, Mapping[str, Floats]],
    seed: int,
) -> dict[tuple[str, str], Comparison]:
    """All candidates on all measures over some topics, without correction and verdict."""
    alike: dict[bytes, list[_Deltas]] = {}
    for number, m in enumerate(found.measures):
        values = {name: found.values[name][number][inside] for name in (base, *candidates)}
        for candidate in candidates:
            ours, theirs = values[base], values[candidate]
            known = ~(np.isnan(ours) | np.isnan(theirs))
            if not known.any():
                raise UsageError(f"{m} is defined on no topic of {base!r} and {candidate!r}")
            delta = (theirs - ours)[known]
            delta[np.abs(delta) < _SAME] = 0.0
            noise = None
            if drawn and m in drawn[base]:
                moved = (drawn[candidate][m] - drawn[base][m])[:, inside][:, known].mean(axis=1)
                noise = moved - delta.mean()
                noise = noise if np.abs(noise).max() > _SAME else None
            means = float(ours[known].mean()), float(theirs[known].mean())
            alike.setdefault(known.tobytes(), []).append(_Deltas((candidate, m), *means, delta, noise))
    # Differences over the same topics are resampled together: drawing the topics takes most of the time.
    tested = {d.key: one for group in alike.values() for d, one in _tested(group, seed)}
    return {(c, m): tested[c, m] for m in found.measures for c in candidates}


@dataclass(frozen=True)
class _Deltas:
    """Per-topic differences, and how drawn labels move their mean."""

    key: tuple[str, str]
    base: float
    candidate: float
    delta: Floats
    noise: Floats | None


def _tested(group: Sequence[_Deltas], seed: int) -> Iterator[tuple[_Deltas, Comparison]]:
    """Comparisons over the same topics."""
    columns = np.column_stack([d.delta for d in group])
    draws = max((len(d.noise) for d in group if d.noise is not None), default=0)
    still = np.zeros(draws)
    noise = np.column_stack([still if d.noise is None else d.noise for d in group]) if draws else None
    low, high = intervals(columns, noise, seed=seed)
    p = sign_flips(columns, noise, seed=seed)
    for d, *numbers in zip(group, low.tolist(), high.tolist(), p.tolist(), strict=True):
        yield d, _one(d, *numbers)


def _one(d: _Deltas, low: float, high: float, p: float) -> Comparison:
    delta, noise = d.delta, d.noise
    mean, topics = float(delta.mean()), len(delta)
    spread = float(delta.std(ddof=1)) if topics > 1 else 0.0
    spread = spread if spread > _SAME else 0.0
    whole = spread if noise is None else math.sqrt(spread**2 + topics * float(noise.var()))
    label_ci = None
    if noise is not None:
        tail = (1 - CONFIDENCE) / 2
        ends = np.quantile(mean + noise, [tail, 1 - tail])
        label_ci = (float(ends[0]), float(ends[1]))
    return Comparison(
        base=d.base,
        candidate=d.candidate,
        delta=mean,
        ci=(low, high),
        label_ci=label_ci,
        p=p,
        p_adjusted=p,
        t_p=t_test(delta)[1],
        wilcoxon_p=wilcoxon(delta),
        effect=mean / spread if spread else math.nan,
        detectable=detectable(whole, topics),
        topics_needed=topics_needed(mean, whole) if topics > 1 else None,
        wins=int((delta > 0).sum()),
        ties=int((delta == 0).sum()),
        losses=int((delta < 0).sum()),
        topics=topics,
        bounds=None,
        flips=None,
        margin=None,
        noninferior=None,
        verdict="inconclusive",
        why="",
    )


def _judged(
    one: Comparison,
    margin: float | None,
    edge: Bounds | None,
    found: Measurement,
    base: str,
    candidate: str,
) -> Comparison:
    """With margin, bounds and verdict."""
    one = replace(
        one,
        margin=margin,
        noninferior=None if margin is None else one.ci[0] > -margin or one.delta == one.ci[0] == 0.0,
        bounds=None if edge is None else edge.delta,
        flips=None if edge is None else edge.flips,
    )
    hits, other = found.hits[base], found.hits[candidate]
    # without a judged document the same hits say nothing; then no grade may make a difference
    alike = hits.same(other) if len(hits.all.judgment) else edge is not None and edge.delta == (0.0, 0.0)
    tied = [
        n for n, h in ((base, hits), (candidate, other)) if h.tied and h.tied == len(found.topics) - h.missing
    ]
    alike = alike and bool(hits.all.retrieved.any() or other.all.retrieved.any())
    empty = one.base == one.candidate == 0.0 and one.wins == one.losses == 0 and not alike
    verdict, why = judge(one, labels=_share(found, base, candidate), tied=tied, empty=empty, edge=edge)
    return replace(one, verdict=verdict, why=why)


def _share(found: Measurement, base: str, candidate: str) -> float:
    return max(float(found.runs[n]["labeled_share"]) for n in (base, candidate))


def _margins(margins: float | Mapping[str, float] | None, measures: Sequence[str]) -> dict[str, float | None]:
    """Measure -> its margin."""
    given = dict.fromkeys(measures, margins) if not isinstance(margins, Mapping) else dict(margins)
    for name, margin in given.items():
        if name not in measures:
            raise UnknownName("measure of a margin", name, measures)
        if margin is not None and not (math.isfinite(margin) and margin >= 0):
            raise UsageError(
                f"the margin of {name} is {margin}; it is the size of a difference, 0 or more: 0.01 lets "
                "the candidate be up to 0.01 worse"
            )
    return {m: given.get(m) for m in measures}


def _notes(found: Measurement, drawn: bool) -> list[str]:
    """What a reader must know of the input."""
    notes = []
    for name, hits in found.hits.items():
        lacking = [t for t, n in zip(found.topics, hits.all.retrieved, strict=True) if n == 0]
        if lacking:
            some = ", ".join(lacking[:5]) + (", ..." if len(lacking) > 5 else "")
            notes.append(f"{name} lacks {len(lacking)} of {len(found.topics)} topics ({some}): they count 0.")
        if hits.unknown:
            notes.append(f"{name} has {len(hits.unknown)} topics without judgments: they count nowhere.")
        if hits.tied:
            notes.append(
                f"{name} gives all documents of a topic one score on {hits.tied} topics: their order is that "
                "of the document ids."
            )
        judged = float(found.runs[name][f"judged@{found.cutoff}"])
        if judged < 1:
            notes.append(
                f"{name}: {100 * (1 - judged):.1f} % of its top {found.cutoff} has no grade and counts as "
                "not relevant; the bounds say what that may hide, stopgap fill labels it."
            )
    judgments = next(iter(found.hits.values())).judgments
    if judgments.labeled.any() and not drawn:
        notes.append(
            "The labels come without distributions, so no interval contains their error. Fill with stopgap, "
            "or keep the .parquet file beside the filled qrels."
        )
    others = [str(s) for s in found.specs if not isinstance(s, Spec)]
    if judgments.labeled.any() and others:
        notes.append(f"The labels' error is not in the intervals of {', '.join(others)}: not computed here.")
    return notes
