"""Holes made on purpose: which judgments of complete qrels are taken away, and who is looked at then.

A new system's holes are the documents that it alone brings up. Leaving a group of runs out makes such holes:
the judged pairs that only its runs have in their top `depth` are taken away, as if the group had not been
there when the pool was judged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from harness.arrays import Bools, Ints
from harness.draws import generator
from harness.errors import InputError, UsageError
from harness.gains import Hits

__all__ = ["Holes", "at_random", "evidence", "found_by", "left_out", "read_groups"]

_RANDOM, _EVIDENCE = 51, 1000  # streams of random numbers


@dataclass(frozen=True)
class Holes:
    """One set of holes.

    Attributes
    ----------
    name: the group or run left out, or the seed. moved: positions of the runs whose ranks are looked at.
    first, second: the comparisons, run against run. gone: of the judgments, which are taken away.
    """

    name: str
    moved: Ints
    first: Ints
    second: Ints
    gone: Bools


def read_groups(path: str | Path, runs: Sequence[str], column: str = "team") -> dict[str, str]:
    """Run -> group, of a tab-separated file with a header, columns `run` and `column`.

    Raises
    ------
    InputError: the file cannot be read, lacks a column, names a run twice, or has no group for one of the
        runs.
    """
    try:
        table = pl.read_csv(path, separator="\t", infer_schema=False, quote_char=None)
    except (OSError, pl.exceptions.PolarsError) as error:
        what = f"cannot be read as tab-separated columns with a header ({error})"
        raise InputError(path, None, what) from None
    missing = [c for c in ("run", column) if c not in table.columns]
    if missing:
        what = f"has no column {missing[0]!r}; its columns are {', '.join(table.columns)}"
        raise InputError(
            path, 1, what, "Next: name the groups' column with --by" if "run" not in missing else ""
        )
    if not (once := table["run"].is_first_distinct()).all():
        row = int(np.flatnonzero(~once.to_numpy())[0])
        raise InputError(path, row + 2, f"run {table['run'][row]!r} stands here a second time")
    known = {run: group for run, group in table.select("run", column).iter_rows() if group}
    absent = [run for run in runs if run not in known]
    if absent:
        more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
        what = f"has no {column} for run {absent[0]!r}{more}"
        raise InputError(path, None, what, "Next: add a row for it, or leave the run out")
    return {run: known[run] for run in runs}


def found_by(hits: Sequence[Hits], group: Ints, depth: int) -> tuple[Ints, Ints]:
    """How many groups have each judgment in the top `depth` of a run, and one of them (-1: none has).

    `group`: (runs,) numbers.
    """
    size = len(hits[0].judgments)
    count, owner = np.zeros(size, dtype=np.int64), np.full(size, -1)
    for number in np.unique(group):
        seen = np.zeros(size, dtype=np.bool_)
        for run in np.flatnonzero(group == number).tolist():
            view = hits[run].all
            seen[view.judgment[view.rank <= depth]] = True
        count[seen] += 1
        owner[seen] = number
    return count, owner


def left_out(hits: Sequence[Hits], groups: Sequence[str], depth: int, may_go: Bools) -> list[Holes]:
    """One set of holes for each group, in the order of their names.

    Parameters
    ----------
    hits, groups: of each run. may_go: the judgments that can be taken away.

    Raises
    ------
    UsageError: there is one group only, or nothing but a group's own judgments is there.
    """
    names, codes = np.unique(np.asarray(groups), return_inverse=True)
    if len(names) < 2:
        raise UsageError(
            f"all runs are of one group, {groups[0]!r}: nobody is left to compare it with. "
            "Next: --by COLUMN for other groups, or --leave-out run"
        )
    count, owner = found_by(hits, codes.astype(np.int64), depth)
    found = []
    for number, name in enumerate(names.tolist()):
        own, others = np.flatnonzero(codes == number), np.flatnonzero(codes != number)
        gone = (count == 1) & (owner == number) & may_go
        if (may_go & ~gone).sum() == 0:
            raise UsageError(f"without the judgments of {name!r} none is left")
        first, second = (side.ravel() for side in np.meshgrid(own, others, indexing="ij"))
        found.append(Holes(name, own, first, second, gone))
    return found


def at_random(runs: int, rate: float, seeds: int, may_go: Bools, seed: int) -> list[Holes]:
    """`seeds` sets of holes: a share `rate` of the judgments, drawn from all topics together."""
    if not 0 < rate < 1:
        raise UsageError(f"the rate is {rate:g}; it is a share of the judgments, between 0 and 1: 0.5")
    rows = np.flatnonzero(may_go)
    first, second = np.triu_indices(runs, 1)
    found = []
    for number in range(seeds):
        gone = np.zeros(len(may_go), dtype=np.bool_)
        drawn = generator(seed + number, _RANDOM).permutation(len(rows))
        gone[rows[drawn[: round(rate * len(rows))]]] = True
        found.append(Holes(f"seed {seed + number}", np.arange(runs), first, second, gone))
    return found


def evidence(topic: Ints, kept: Bools, budget: int | None, seed: int, number: int) -> Bools:
    """Which of the judgments that are kept a fit may see: all, or `budget` a topic, drawn at random.

    A smaller budget's are among a larger one's. `number`: of the set of holes.
    """
    if budget is None:
        return kept
    chance = generator(seed, _EVIDENCE + number).random(len(kept))
    rows = np.flatnonzero(kept)
    rows = rows[np.lexsort((chance[rows], topic[rows]))]
    heads = np.flatnonzero(np.diff(topic[rows], prepend=-1))
    place = np.arange(len(rows)) - np.repeat(heads, np.diff(np.append(heads, len(rows))))
    seen = np.zeros(len(kept), dtype=np.bool_)
    seen[rows[place < budget]] = True
    return seen
