"""Labels drawn from their distributions: how far a measure's values move when the labels are wrong.

A label says how likely each grade is; a measure computed from expected gains says nothing of how wrong they
may be together. Here each label's grade is drawn, many times, and the measure is computed of every drawing.
Labels err together: what one gets wrong about a topic its neighbours get wrong too, and a new system's
documents can all be less relevant than a labeler thinks. So every drawing moves the log-odds of reaching a
grade, for all labels by one number and for those of each topic by another:

    logit P(grade >= g) = a * logit p_g + shift_all * T + shift_topic * Z_topic

with T of Student's t with 5 degrees of freedom (few systems tell how far systems differ), Z normal, and `a`
so that over all drawings a label keeps about the probability it stated (MacKay 1992's correction). The two
shifts come with the labels (`harness.selection` estimates them on judged documents).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from harness.arrays import Floats, Ints
from harness.gains import Hits, View
from harness.judgments import Judgments
from harness.scoring import Spec, score

__all__ = ["DRAWS", "SHIFT_ALL", "SHIFT_TOPIC", "generator", "score_draws"]

DRAWS = 400
"""Drawings of all labels. T is taken at so many equally likely places of its distribution, so that its tails
are not left to chance."""
SHIFT_ALL, SHIFT_TOPIC = 0.5, 0.5
"""For labels that come without shifts: what `harness.selection` supposes before anything is seen."""
_FREEDOM = 5.0
_MOST = 500_000  # judgments graded at once


def generator(seed: int, stream: int) -> np.random.Generator:
    """Random numbers that hang on the seed and the purpose only, not on threads or on what was drawn before
    (Philox, a counter-based generator: Salmon et al., SC 2011)."""
    return np.random.Generator(np.random.Philox(key=np.array([seed % 2**64, stream], dtype=np.uint64)))


def score_draws(
    specs: Sequence[Spec], hits: Mapping[str, Hits], *, seed: int = 0, draws: int = DRAWS
) -> dict[str, dict[str, Floats]]:
    """Values of measures under drawn labels.

    Parameters
    ----------
    specs: measures that `harness.scoring` computes. hits: name of a run -> its hits, all of one `Judgments`.

    Returns
    -------
    run -> measure -> (draws, topics): in row b all labels of all runs are those of drawing b. Topics without
    a distribution have their one value in every row. Empty if no label has a distribution.
    """
    judgments = next(iter(hits.values())).judgments
    if judgments.probs is None:
        return {}
    open_rows = ~np.isnan(judgments.probs[:, 0])
    topics = np.unique(judgments.topic[open_rows])
    small, rows = _part(judgments, topics)
    views = {name: _part_of(hit.all, judgments, topics, rows) for name, hit in hits.items()}
    found = {
        name: {spec.text: np.tile(score(spec, hit), (draws, 1)) for spec in specs}
        for name, hit in hits.items()
    }
    # What stands below a measure's cutoff is not carried through every drawing.
    reach = {spec.text: None if spec.judged_only else spec.cutoff for spec in specs}
    seen = {
        (name, cutoff): Hits(small, _above(view, cutoff), [])
        for name, view in views.items()
        for cutoff in set(reach.values())
    }
    first = 0
    for relevance in _drawn(small, seed, draws):
        part = slice(first, first + len(relevance))
        graded = small.regraded(relevance)
        again = {key: hit.repeated(graded) for key, hit in seen.items()}
        for name in views:
            for spec in specs:
                values = score(spec, again[name, reach[spec.text]])
                found[name][spec.text][part, topics] = values.reshape(-1, len(topics))
        first = part.stop
    return found


def _above(view: View, cutoff: int | None) -> View:
    """The first `cutoff` ranks."""
    kept = slice(None) if cutoff is None else view.rank <= cutoff
    return View(view.judgment[kept], view.topic[kept], view.rank[kept], view.retrieved)


def _drawn(judgments: Judgments, seed: int, draws: int) -> Iterator[Ints]:
    """Grades (some draws, n), so many at a time as fit: an assessor's as it is, a label's drawn."""
    from scipy.special import logit, stdtrit

    assert judgments.probs is not None
    rows = np.flatnonzero(~np.isnan(judgments.probs[:, 0]))
    reached = judgments.probs[rows, ::-1].cumsum(axis=1)[:, ::-1][:, 1:]
    odds = logit(np.clip(reached, 1e-6, 1 - 1e-6))
    shifts = judgments.shifts[rows]
    for_all = np.where(np.isnan(shifts[:, 0]), SHIFT_ALL, shifts[:, 0])
    in_topic = np.where(np.isnan(shifts[:, 1]), SHIFT_TOPIC, shifts[:, 1])
    variance = for_all**2 * _FREEDOM / (_FREEDOM - 2) + in_topic**2
    odds = odds * np.sqrt(1 + np.pi * variance / 8)[:, None]
    rng = generator(seed, 0)
    everywhere = stdtrit(_FREEDOM, (rng.permutation(draws) + 0.5) / draws)
    by_topic = rng.standard_normal((draws, len(judgments.topics)))
    step = max(1, _MOST // max(1, len(judgments)))
    for first in range(0, draws, step):
        part = slice(first, min(first + step, draws))
        # chance < P(grade >= g), in log-odds: the shift is the same for every grade
        needed = logit(rng.random((part.stop - first, len(rows))))
        needed -= for_all * everywhere[part, None]
        needed -= in_topic * by_topic[part, judgments.topic[rows]]
        position = np.zeros(needed.shape, dtype=np.int64)
        for column in range(odds.shape[1]):
            position += needed < odds[:, column]
        grades = np.tile(judgments.relevance, (len(needed), 1))
        grades[:, rows] = judgments.grades[position]
        yield grades


def _part(judgments: Judgments, topics: Ints) -> tuple[Judgments, Ints]:
    """The judgments of some topics, and where each old one stands in them (-1: nowhere)."""
    kept = np.isin(judgments.topic, topics)
    rows = np.where(kept, np.cumsum(kept) - 1, -1)
    return judgments.only(kept, topics), rows


def _part_of(view: View, judgments: Judgments, topics: Ints, rows: Ints) -> View:
    kept = rows[view.judgment] >= 0
    place = np.searchsorted(topics, view.topic[kept])
    return View(rows[view.judgment[kept]], place, view.rank[kept], view.retrieved[topics])
