"""Many systems on one measure: every pair compared, and the groups that cannot be told apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from harness.arrays import Bools, Floats
from harness.draws import generator, score_draws
from harness.errors import UsageError
from harness.inference import ALPHA, RESAMPLES, intervals, sign_flips
from harness.measure import measure
from harness.scoring import Spec

__all__ = ["Groups", "compare_all"]

_SAME = 1e-12  # means that differ by less differ by rounding only
_CHUNK = 1 << 18  # values that are dealt out at once


@dataclass(frozen=True)
class Groups:
    """All pairs of several runs.

    Attributes
    ----------
    systems: run, mean, groups (list of numbers from 1), best run first. Runs that share a group cannot be
        told apart; a run may be in several groups (a compact letter display: Piepho, Journal of Computational
        and Graphical Statistics 13, 2004).
    pairs: base, candidate, delta, low, high (95 % interval), p, p_adjusted, verdict (`better`, `worse`,
        `equivalent` for the same on every topic, `inconclusive`), one row a pair, the better run as the base.
    """

    measure: str
    systems: pl.DataFrame
    pairs: pl.DataFrame

    def to_json(self) -> dict[str, Any]:
        """The object that `stopgap compare --all --json` prints for one measure."""
        return {"measure": self.measure, "systems": self.systems.to_dicts(), "pairs": self.pairs.to_dicts()}


def compare_all(
    runs: Mapping[str, str | Path | pl.DataFrame],
    qrels: pl.DataFrame,
    measures: Sequence[str],
    *,
    grades: Sequence[int] | None = None,
    seed: int = 0,
) -> dict[str, Groups]:
    """Compare every run with every other; measure -> Groups.

    p and the intervals of pairs are those of `compare`. `p_adjusted` is of the randomised Tukey HSD test
    over all pairs of one measure (Carterette, TOIS 30, 2012): how often the best and the worst of all runs
    would be so far apart if their names were exchanged on each topic by chance. A topic on which a measure
    is undefined for any run is left out.

    Raises
    ------
    UsageError: fewer than two runs, a measure that is defined on no topic for all runs, and whatever
        `measure` refuses.
    """
    from threadpoolctl import threadpool_limits

    if len(runs) < 2:
        raise UsageError("there is one run only; name at least two")
    found = measure(runs, qrels, measures, grades=grades)
    drawn = score_draws([s for s in found.specs if isinstance(s, Spec)], found.hits, seed=seed)
    result = {}
    with threadpool_limits(1):  # threads would change the last digits
        for number, m in enumerate(found.measures):
            values = {n: found.values[n][number] for n in found.runs}
            known = ~np.isnan(np.column_stack(list(values.values()))).any(axis=1)
            if not known.any():
                raise UsageError(f"{m} is defined on no topic for all runs")
            names = sorted(values, key=lambda n: -values[n][known].mean())
            table = np.column_stack([values[n][known] for n in names])
            moved = None
            if drawn and m in drawn[names[0]]:
                moved = np.column_stack([drawn[n][m][:, known].mean(axis=1) for n in names]) - table.mean(
                    axis=0
                )
            result[m] = _grouped(m, names, table, moved, seed)
    return result


def _grouped(measure: str, names: list[str], values: Floats, moved: Floats | None, seed: int) -> Groups:
    """`values`: (topics, runs), best run first; `moved`: (draws, runs), how drawn labels move the means."""
    first, second = np.triu_indices(len(names), 1)
    delta = values[:, second] - values[:, first]
    delta[np.abs(delta) < _SAME] = 0.0
    noise = None if moved is None else moved[:, second] - moved[:, first]
    low, high = intervals(delta, noise, seed=seed)
    ranges = _ranges(values, moved, seed)
    mean = delta.mean(axis=0)
    reached = len(ranges) - np.searchsorted(ranges, np.abs(mean) - _SAME)
    p_adjusted = (reached + 1) / (len(ranges) + 1)
    apart = (p_adjusted < ALPHA) & ((low > 0) | (high < 0))
    words = np.where(apart, np.where(low > 0, "better", "worse"), "inconclusive")
    words = np.where((delta == 0).all(axis=0) & (low == 0) & (high == 0), "equivalent", words)
    pairs = pl.DataFrame(
        {
            "base": [names[i] for i in first],
            "candidate": [names[i] for i in second],
            "delta": mean,
            "low": low,
            "high": high,
            "p": sign_flips(delta, noise, seed=seed),
            "p_adjusted": p_adjusted,
            "verdict": words.tolist(),
        }
    )
    alike = np.ones((len(names), len(names)), dtype=bool)
    alike[first, second] = alike[second, first] = ~apart
    members = _groups(alike)
    groups = [[g + 1 for g, inside in enumerate(members) if i in inside] for i in range(len(names))]
    systems = pl.DataFrame({"run": names, "mean": values.mean(axis=0), "groups": groups})
    return Groups(measure, systems, pairs)


def _ranges(values: Floats, moved: Floats | None, seed: int) -> Floats:
    """Ascending: the best mean less the worst one, each topic's values dealt out to the runs by chance."""
    topics, runs = values.shape
    rng, parts = generator(seed, 3), []
    step = max(1, _CHUNK // values.size)
    for first in range(0, RESAMPLES, step):
        rows = min(step, RESAMPLES - first)
        dealt = rng.permuted(np.broadcast_to(values, (rows, topics, runs)), axis=2).mean(axis=1)
        if moved is not None:
            dealt += (moved - moved.mean(axis=0))[np.arange(first, first + rows) % len(moved)]
        parts.append(np.ptp(dealt, axis=1))
    return np.sort(np.concatenate(parts))


def _groups(alike: Bools) -> list[set[int]]:
    """Sets of systems of which no two are apart, as few as the insert-and-absorb algorithm gives.

    Every pair that is not apart shares a set; sets are in the order of their best members.
    """
    columns: list[set[int]] = [set(range(len(alike)))]
    for i, j in zip(*np.nonzero(np.triu(~alike, 1)), strict=True):
        split: list[set[int]] = []
        for column in columns:
            split += [column - {int(i)}, column - {int(j)}] if i in column and j in column else [column]
        columns = [
            c
            for n, c in enumerate(split)
            if not any(c < d or (c == d and n > k) for k, d in enumerate(split) if k != n)
        ]
    return sorted(columns, key=lambda c: sorted(c))
