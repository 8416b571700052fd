"""The least and greatest difference between two runs that any grades for the unjudged documents could give.

Unjudged (a *hole*) is a document that either run retrieves within the measure's reach (its cutoff, or the
whole list) and no assessor judged. A label is no judgment: its grade is ignored. Each hole may take every
grade of the scale, independently of all others, and what comes out is the range of the mean delta, candidate
- base, with nothing assumed about any labeler (for rank-biased precision, the residual of Moffat & Zobel,
TOIS 27, 2008, taken over a difference).

Documents that neither run retrieves within reach count only in denominators (the number of relevant
documents, the ideal ranking). They stay as the assessors left them: those without a judgment do not count.
If some were relevant, a topic's delta would shrink towards 0 and keep its sign (Rprec's, whose cutoff would
move, may do otherwise).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from harness.bounds_field import Field, open_field
from harness.bounds_flips import fewest
from harness.bounds_greatest import gain_of, greatest
from harness.errors import UsageError
from harness.gains import blocks, find
from harness.judgments import Judgments
from harness.measure import parse
from harness.scoring import Spec
from harness.trec import read_run

__all__ = ["Bounds", "bounds", "bounds_each", "covers"]

_FAMILIES = frozenset({"P", "R", "Rprec", "Success", "RR", "RBP", "nDCG", "AP"})
_SAME = 1e-12  # a mean delta nearer to 0 than this is 0 but for rounding


@dataclass(frozen=True)
class Bounds:
    """What the unjudged documents leave open between two runs.

    Attributes
    ----------
    delta: the least and the greatest mean of candidate - base over all topics of the qrels, in the measure's
        unit (-1 to 1).
    per_topic: query_id, least, greatest (f64), unjudged (u32: holes of the topic); one row for each topic of
        the qrels, sorted. A run that lacks the topic has 0 there.
    exact: both ends are attained by some grades. If not, the true range lies inside: only AP, and only where
        a topic has more than twelve holes.
    certain: the sign of the mean delta is the same for all grades, or delta is the same number for all.
    flips: the fewest holes whose grades could bring the mean delta, as the qrels have it (a label's row
        counts as in `harness.measure`, any other hole as not relevant), to 0 or beyond while all others stay;
        0 if it is 0 as it is. None if `certain`, or if no such set was found.
    flips_exact: no smaller set does it. If not, `flips` is the size of a set that does, and fewer may do.
    """

    delta: tuple[float, float]
    per_topic: pl.DataFrame
    exact: bool
    certain: bool
    flips: int | None
    flips_exact: bool


def covers(measure: str) -> bool:
    """Whether `bounds` knows the measure.

    It knows P, R, Rprec, Success, RR, RBP, nDCG and AP with every parameter but `judged_only` (a condensed
    list changes its order with the grades' being there, which these bounds do not follow).

    Raises
    ------
    UsageError: there is no such measure.
    """
    return isinstance(_known(measure), Spec)


def _known(measure: str) -> Spec | None:
    spec = parse([measure])[0]
    ours = isinstance(spec, Spec) and spec.name in _FAMILIES and not spec.judged_only
    return spec if ours and isinstance(spec, Spec) else None


def bounds(
    base_run: str | Path | pl.DataFrame,
    candidate_run: str | Path | pl.DataFrame,
    qrels: pl.DataFrame,
    measure: str,
    *,
    grades: Sequence[int] | None = None,
) -> Bounds:
    """The range of the mean delta, candidate - base, over every labeling of the unjudged documents.

    Exact for P, R, Rprec, Success, RR, RBP and nDCG, at any cutoff and on any scale. For AP exact with up to
    twelve holes a topic and mostly with up to 300 (`bounds_ap`); else an outer bound, and `exact` says so.

    Parameters
    ----------
    base_run, candidate_run: RUN, or a file of one.
    qrels: QRELS. Its topics are the topics; a run that lacks one has 0 there.
    measure: as ir-measures writes it.
    grades: the collection's scale, from which a hole takes its grade. 0 is always among them, for a document
        may stay unjudged; negative ones count as 0. Without `grades`: 0 to the highest that the qrels hold,
        at least to 1 and to the grade from which the measure counts a document as relevant.

    Raises
    ------
    UsageError: the measure does not exist or is not covered; there is no judgment; a run shares no topic with
        the qrels; a gain overflows; the scale has no grade above 0. SchemaError: a frame holds something that
        cannot be used. InputError: a file does.
    """
    found = bounds_each(base_run, candidate_run, qrels, [measure], grades=grades)[measure]
    if found is None:
        raise UsageError(
            f"there are no bounds for {measure!r}; there are for {', '.join(sorted(_FAMILIES))},"
            " all without judged_only"
        )
    return found


def bounds_each(
    base_run: str | Path | pl.DataFrame,
    candidate_run: str | Path | pl.DataFrame,
    qrels: pl.DataFrame,
    measures: Sequence[str],
    *,
    grades: Sequence[int] | None = None,
) -> dict[str, Bounds | None]:
    """`bounds` for several measures, which share the reading: measure -> Bounds, None if not covered.

    Raises
    ------
    As `bounds`, but for measures that are not covered.
    """
    specs = {measure: _known(measure) for measure in measures}
    judgments = Judgments(qrels, grades)
    base, candidate = (r if isinstance(r, pl.DataFrame) else read_run(r) for r in (base_run, candidate_run))
    hits = (find(judgments, blocks(base)), find(judgments, blocks(candidate)))
    fields: dict[int | None, Field] = {}
    found: dict[str, Bounds | None] = {}
    for measure, spec in specs.items():
        if spec is None:
            found[measure] = None
            continue
        if spec.cutoff not in fields:
            fields[spec.cutoff] = open_field(judgments, base, candidate, spec.cutoff)
        field = fields[spec.cutoff]
        scale = _scale(spec, judgments, grades)
        closed = _closed(spec, field, scale)
        most, most_exact = greatest(spec, closed, scale, judgments.scale)
        least, least_exact = greatest(spec, closed.swapped(), scale, judgments.scale)
        least = 0.0 - least
        low, high = float(least.mean()), float(most.mean())
        certain = low > _SAME or high < -_SAME or high - low <= _SAME
        flips, flips_exact = (
            (None, True)
            if certain
            else fewest(spec, field, judgments, hits, (base, candidate), qrels, scale, grades)
        )
        per_topic = pl.DataFrame(
            {
                "query_id": pl.Series(judgments.topics, dtype=pl.String),
                "least": least,
                "greatest": most,
                "unjudged": pl.Series(field.holes(), dtype=pl.UInt32),
            }
        )
        exact = bool((most_exact & least_exact).all())
        found[measure] = Bounds((low, high), per_topic, exact, certain, flips, flips_exact)
    return found


def _scale(spec: Spec, judgments: Judgments, grades: Sequence[int] | None) -> list[int]:
    """The grades that a hole may take, ascending."""
    if grades is None:
        found = sorted({*range(max(int(judgments.scale), spec.rel or 0) + 1)})
    else:
        found = sorted({0, *(int(g) for g in grades if g >= 0)})
    if len(found) < 2:
        raise UsageError(f"a scale needs a grade above 0 for bounds to say anything; grades are {grades}")
    if spec.name == "nDCG":
        with np.errstate(over="ignore", invalid="ignore"):
            gains = gain_of(spec, np.asarray([*found, *judgments.relevance.tolist()]))
        if not np.isfinite(gains).all():
            raise UsageError(
                f"2^grade overflows: the highest grade is {max(*found, judgments.relevance.max())}"
            )
    return found


def _closed(spec: Spec, field: Field, grades: list[int]) -> Field:
    """The field, its holes settled if the measure takes all grades of the scale for one."""
    if spec.name == "nDCG" or spec.rel is None:
        return field
    same = grades[0] >= spec.rel or grades[-1] < spec.rel
    return field.settled(grades[0]) if same else field
