"""Holes filled by the calibrator with what is judged on the topic, for many sets of holes.

`calibrate` fits everything anew for each set. Where most judgments are holes in no set, the latent model
(weights, cuts, amplitudes: a fit on a sample of the judgments anyway) is fitted once, on those, so that it
has seen no hole's judgment; what rests on leaving judged pairs out (confidence, offset, shared errors) is
still fitted for each set. One set of holes then costs a fifth.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from os import cpu_count

import numpy as np
import polars as pl

from harness.arrays import Bools, Floats, Ints
from harness.calibrate import calibrate, fitted, standardised
from harness.calibrator import Calibrator
from harness.evidence import Pool, Topic, read_pool
from harness.grading import tempered
from harness.judgments import SHIFTS
from harness.kernels import Space
from harness.ordinal import JITTER, distribution, leave_one_out, mode, posterior
from harness.selection import estimate, moved
from harness.simulate_fills import Patch, nearest_grade, nothing
from harness.simulate_holes import Holes

__all__ = ["Conditioner"]

_KEYS = ["query_id", "doc_id"]
_SHARED = 0.5  # of the judgments in no set of holes, from which on one latent model serves all sets
_MOST_JUDGED = 1000  # on one topic: beyond it `calibrate` thins them out, and is left to do so


@dataclass(frozen=True)
class Conditioner:
    """Fits the calibrator to what is left and labels the holes.

    `signals`: as `calibrate` takes them. `qrels`: QRELS, one row a judgment, in their order. `owner`: (n,)
    number of the only run that has a judgment in its top, -1 where none or several have.
    """

    signals: Sequence[pl.DataFrame]
    qrels: pl.DataFrame
    grades: Ints
    owner: Ints
    seed: int

    def fill(
        self,
        sets: Sequence[Holes],
        seen: Sequence[Bools],
        told: Callable[[int, int], None] | None,
        *,
        share: bool = True,
    ) -> list[Patch]:
        """Labels for each set of holes.

        Parameters
        ----------
        seen: of each set, the judgments that its fit may see. told: called with (done, to do). share: fit
            one latent model for all sets, where that is honest.

        Raises
        ------
        CalibrationError: too little is left to fit anything.
        """
        whole, never = seen[0] | sets[0].gone, np.all(seen, axis=0)
        same = all(np.array_equal(s | h.gone, whole) for s, h in zip(seen, sets, strict=True))
        shared = share and same and len(sets) > 1 and never.sum() >= _SHARED * whole.sum()
        some = [n for n, holes in enumerate(sets) if holes.gone.any()]
        if shared and some:
            pool = read_pool(self.signals, self.qrels.filter(pl.Series(whole)), self.grades.tolist())
            shared = max(len(topic.judged) for topic in pool.topics) <= _MOST_JUDGED
        found = [nothing()] * len(sets)
        with ThreadPoolExecutor(min(4, cpu_count() or 1)) as workers:
            if shared and some:
                one = _Shared(self, pool, [sets[n] for n in some], [seen[n] for n in some], never)
                made: Iterator[Patch] = one.patches(workers)
            else:
                made = workers.map(lambda n: self._alone(sets[n].gone, seen[n]), some)
            for done, (number, patch) in enumerate(zip(some, made, strict=True)):
                found[number] = patch
                if told is not None:
                    told(done + 1, len(some))
        return found

    def _alone(self, gone: Bools, seen: Bools) -> Patch:
        """One set of holes by `calibrate` itself."""
        pairs = self.qrels.select(_KEYS)
        done = calibrate(
            self.signals,
            self.qrels.filter(pl.Series(seen)),
            self.grades.tolist(),
            found_once=pairs.with_columns(run=pl.Series(self.owner)).filter(pl.Series(self.owner >= 0)),
            seed=self.seed,
        )
        held = pairs.with_row_index("row").filter(pl.Series(gone))
        made = held.join(done.labels, on=_KEYS, maintain_order="left")
        made = made.filter(pl.col("relevance").is_not_null())
        gain = made["gain"].cast(pl.Float64).to_numpy()
        return Patch(
            made["row"].to_numpy().astype(np.int64),
            nearest_grade(gain, self.grades),
            gain,
            np.array(made["probs"].to_list(), dtype=np.float64).reshape(-1, len(self.grades)),
            made.select(pl.col(c).cast(pl.Float64) for c in SHIFTS).to_numpy(),
        )


@dataclass
class _Shared:
    """All sets of holes under one latent model, topic by topic: kernels are made once, and a topic without
    holes of a set is as it is in the others."""

    by: Conditioner
    pool: Pool
    sets: Sequence[Holes]
    seen: Sequence[Bools]
    never: Bools
    model: Calibrator = field(init=False)
    row: Ints = field(init=False)
    mean: Floats = field(init=False)
    variance: Floats = field(init=False)
    told: Bools = field(init=False)

    def __post_init__(self) -> None:
        by, pool = self.by, self.pool
        few = read_pool(by.signals, by.qrels.filter(pl.Series(self.never)), by.grades.tolist())
        self.model = fitted(few, True, by.seed)
        self.row = _rows(pool, by.qrels)
        prior = standardised(self.model, pool) @ np.asarray(self.model.weights)
        self.mean = np.tile(prior, (len(self.sets), 1))
        self.variance = np.ones_like(self.mean)
        self.told = np.zeros(self.mean.shape, dtype=np.bool_)

    def patches(self, workers: ThreadPoolExecutor) -> Iterator[Patch]:
        """The labels of each set."""
        list(workers.map(self._topic, self.pool.topics))
        return workers.map(self._labeled, range(len(self.sets)))

    def _topic(self, topic: Topic) -> None:
        """Latent means and variances of a topic's rows in all sets; a judged row without its own judgment."""
        model, pool = self.model, self.pool
        amplitudes = dict(zip(model.kernels, model.amplitudes, strict=True))
        cuts, rows = np.asarray(model.cuts), topic.rows
        if not len(rows):
            return
        space = Space(pool, topic)
        kernel = space.sum(amplitudes, rows, rows)
        own, prior, grade = space.own(amplitudes, rows), self.mean[0, rows].copy(), pool.grade[rows]
        shown, held = self._at(self.seen, rows), self._at([h.gone for h in self.sets], rows)
        known: dict[bytes, tuple[Floats, Floats]] = {}
        for number in range(len(self.sets)):
            self.variance[number, rows] = own
            judged, holes = np.flatnonzero(shown[number]), np.flatnonzero(held[number])
            if not len(judged):
                continue
            among = kernel[np.ix_(judged, judged)] + JITTER * np.eye(len(judged))
            facts = prior[judged], grade[judged], cuts
            key = judged.tobytes()
            at = mode(among, *facts) if key not in known or len(holes) else None
            if len(judged) > 1:
                if key not in known:
                    known[key] = leave_one_out(among, *facts, at)
                self.mean[number, rows[judged]], self.variance[number, rows[judged]] = known[key]
                self.told[number, rows[judged]] = True
            if len(holes):
                cross = kernel[np.ix_(holes, judged)]
                found = posterior(among, *facts, cross, prior[holes], own[holes], at)
                self.mean[number, rows[holes]], self.variance[number, rows[holes]] = found
                self.told[number, rows[holes]] = True

    def _at(self, masks: Sequence[Bools], rows: Ints) -> Bools:
        """Masks over the judgments as masks (sets, rows) over rows of the pool."""
        place = np.full(len(self.pool.grade), -1)
        known = self.row >= 0
        place[self.row[known]] = np.flatnonzero(known)
        at = place[rows]
        return np.stack([np.where(at >= 0, mask[at], False) for mask in masks])

    def _labeled(self, number: int) -> Patch:
        """One set's labels, out of its latent values, as `calibrate` makes them."""
        pool, model = self.pool, self.model
        seen = np.flatnonzero(self.seen[number] & (self.row >= 0))
        seen = seen[pool.heard[self.row[seen]]]
        holes = np.flatnonzero(self.sets[number].gone & (self.row >= 0))
        holes = holes[pool.heard[self.row[holes]]]
        here = self.row[np.concatenate([seen, holes])]
        mean, variance, told = (v[number, here] for v in (self.mean, self.variance, self.told))
        y, cuts = pool.grade[self.row[seen]], np.asarray(model.cuts)
        factor, *free = tempered(mean[: len(seen)], variance[: len(seen)], y, cuts)
        warm = distribution(factor * mean, factor**2 * variance, np.asarray(free))
        probs = np.where(told[:, None], warm, distribution(mean, variance, cuts))
        once = np.flatnonzero(self.by.owner[seen] >= 0)
        owner, topic = self.by.owner[seen][once], _codes(self.by.qrels["query_id"])[seen][once]
        shift = estimate(probs[once], y[once], owner, topic)
        probs = moved(probs[len(seen) :], shift.offset)
        gain = (probs * self.by.grades).sum(axis=1)
        shifts = np.tile([shift.all, shift.topic], (len(holes), 1))
        return Patch(holes, nearest_grade(gain, self.by.grades), gain, probs, shifts)


def _rows(pool: Pool, qrels: pl.DataFrame) -> Ints:
    """The pool's row of each judgment, -1 where it has none."""
    rows = pool.pairs.with_row_index("row")
    found = qrels.select(_KEYS).join(rows, on=_KEYS, how="left", maintain_order="left")["row"]
    return found.cast(pl.Int64).fill_null(-1).to_numpy()


def _codes(names: pl.Series) -> Ints:
    return names.rank("dense").to_numpy().astype(np.int64)
