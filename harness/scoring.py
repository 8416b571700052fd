"""The measures themselves: one value a topic, for all topics at once, out of a qrels and one run's hits.

With assessors' judgments only, every value is trec_eval's (its version 9, to floating point). Where a
judgment is a labeler's, a document counts with its probability p of being relevant, or with its expected
gain:

* P, RBP, R's numerator, DCG and the judged share are sums over documents, so expected values are exact.
* AP, RR and Success are expectations over documents that are relevant independently of one another.
* R and AP divide by the expected number of relevant documents, nDCG by the DCG of the expected gains in
  descending order: ratios of expectations, not expectations of ratios (a plug-in estimate).
* Bpref and Rprec count documents by their hard grade.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.arrays import Floats, running_sum
from harness.errors import UsageError
from harness.gains import Hits, View
from harness.judgments import Judgments

__all__ = ["NAMES", "Spec", "judged_share", "plain", "score"]

_PLAIN = re.compile(r"([A-Za-z]+)(?:@([1-9][0-9]{0,8}))?")
_NEED_CUTOFF = frozenset({"P", "R", "Success"})
_HAVE_NO_CUTOFF = frozenset({"Bpref", "Rprec"})


@dataclass(frozen=True)
class Spec:
    """A measure that this module computes, written as ir-measures writes it.

    `name`: the family, one of `NAMES`. `text`: the whole, canonical (`P(rel=2)@10`). `cutoff`: ranks looked
    at, None for all. `rel`: the lowest grade that counts as relevant, None for graded gains (RBP).
    `judged_only`: unjudged documents leave the run first. `exponential`, `mapping`: nDCG's gains.
    `persistence`: RBP's p, between 0 and 1.
    """

    name: str
    text: str
    cutoff: int | None = None
    rel: int | None = 1
    judged_only: bool = False
    exponential: bool = False
    mapping: tuple[tuple[int, float], ...] | None = None
    persistence: float = 0.8

    @classmethod
    def of(cls, name: str, text: str, params: Mapping[str, Any]) -> Spec:
        """The measure of a family out of the parameters that ir-measures has for it.

        Raises
        ------
        UsageError: `gains` maps something else than numbers to numbers.
        """
        gains = params.get("gains")
        if gains is not None and not all(isinstance(n, int | float) for pair in gains.items() for n in pair):
            raise UsageError(f"measure {text!r}: gains map grades to numbers, as in gains={{1: 1, 2: 3}}")
        return cls(
            name,
            text,
            cutoff=params.get("cutoff"),
            rel=params.get("rel", None if name == "RBP" else 1),
            judged_only=params.get("judged_only", False),
            exponential=params.get("dcg") == "exp-log2",
            mapping=None if gains is None else tuple(sorted(gains.items())),
            persistence=params.get("p", 0.8),
        )


def plain(text: str) -> Spec | None:
    """A measure with no parameter but a cutoff (`AP`, `nDCG@10`), or None if `text` is anything else."""
    match = _PLAIN.fullmatch(text)
    if not match or match[1] not in NAMES:
        return None
    name, cutoff = match[1], int(match[2]) if match[2] else None
    if name in (_NEED_CUTOFF if cutoff is None else _HAVE_NO_CUTOFF):
        return None
    return Spec.of(name, text, {} if cutoff is None else {"cutoff": cutoff})


def score(spec: Spec, hits: Hits, *, human_only: bool = False) -> Floats:
    """The value of a measure for each topic of the qrels; 0 for a topic the run lacks.

    With `human_only` a retrieved document that is labeled counts nothing, while ideals and numbers of
    relevant documents stay as they are: the difference is what rests on labels.
    """
    view = hits.judged_only if spec.judged_only else hits.all
    return _FAMILIES[spec.name](spec, hits.judgments, view, human_only)


def judged_share(hits: Hits, cutoff: int | None, *, labeled: bool = False) -> Floats:
    """Judged (or labeled) documents in the first `cutoff`, over min(cutoff, retrieved); 0 if none."""
    view = _cut(hits.all, cutoff)
    weights = np.ones(len(view.topic))
    if labeled:
        weights = hits.judgments.labeled[view.judgment].astype(np.float64)
    seen = view.retrieved if cutoff is None else np.minimum(view.retrieved, cutoff)
    return _sum(view, weights) / np.maximum(seen, 1)


def _cut(view: View, cutoff: int | None) -> View:
    if cutoff is None:
        return view
    kept = view.rank <= cutoff
    return View(view.judgment[kept], view.topic[kept], view.rank[kept], view.retrieved)


def _sum(view: View, values: Floats) -> Floats:
    return np.bincount(view.topic, values, len(view.retrieved)).astype(np.float64, copy=False)


def _at(values: Floats, judgments: Judgments, view: View, human_only: bool) -> Floats:
    """Each hit's value out of an array over the judgments."""
    here = values[view.judgment]
    return np.where(judgments.labeled[view.judgment], 0.0, here) if human_only else here


def _relevant(spec: Spec, judgments: Judgments, view: View, human_only: bool) -> Floats:
    return _at(judgments.relevant(spec.rel or 0), judgments, view, human_only)


def _over(numerator: Floats, denominator: Floats) -> Floats:
    """The quotient; 0 where there is nothing to divide by."""
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0.0)


def _expected_relevant(spec: Spec, judgments: Judgments) -> Floats:
    return judgments.memo(("R", spec.rel), lambda: judgments.total(judgments.relevant(spec.rel or 0)))


def _doubts(p: Floats) -> tuple[Floats, Floats]:
    """1 where a document is surely relevant, and elsewhere log(1 - p), so that products become sums."""
    certain = (p >= 1.0).astype(np.float64)
    return certain, np.log1p(-np.where(certain, 0.0, p))


def _ndcg(spec: Spec, judgments: Judgments, view: View, human_only: bool) -> Floats:
    """Järvelin & Kekäläinen, TOIS 20 (2002): DCG over the ideal DCG, discount log2(rank + 1)."""
    mapping = dict(spec.mapping) if spec.mapping is not None else None
    gains = judgments.gains(exponential=spec.exponential, mapping=mapping)

    def ideal() -> Floats:
        topic, gain, rank = judgments.memo(
            ("ideal", spec.exponential, spec.mapping), lambda: judgments.ideal(gains)
        )
        kept = rank <= (spec.cutoff or len(judgments))
        dcg = np.bincount(topic[kept], gain[kept] / np.log2(rank[kept] + 1.0), len(judgments.topics))
        return dcg.astype(np.float64, copy=False)

    view = _cut(view, spec.cutoff)
    dcg = _sum(view, _at(gains, judgments, view, human_only) / np.log2(view.rank + 1.0))
    return _over(dcg, judgments.memo(("idcg", spec.exponential, spec.mapping, spec.cutoff), ideal))


def _ap(spec: Spec, judgments: Judgments, view: View, human_only: bool) -> Floats:
    """Precision at the relevant documents, averaged over R: sum of p_k (1 + sum_{j<k} p_j) / k over R."""
    view = _cut(view, spec.cutoff)
    p = _relevant(spec, judgments, view, human_only)
    precision = p * (1.0 + running_sum(view.topic, p)) / view.rank
    return _over(_sum(view, precision), _expected_relevant(spec, judgments))


def _rr(spec: Spec, judgments: Judgments, view: View, human_only: bool) -> Floats:
    """1 / rank of the first relevant document: sum of p_k / k times the product of (1 - p_j), j < k."""
    view = _cut(view, spec.cutoff)
    p = _relevant(spec, judgments, view, human_only)
    certain, logs = _doubts(p)
    sure = running_sum(view.topic, certain) > 0.0
    nothing_before = np.where(sure, 0.0, np.exp(running_sum(view.topic, logs)))
    return _sum(view, nothing_before * p / view.rank)


def _success(spec: Spec, judgments: Judgments, view: View, human_only: bool) -> Floats:
    """Whether there is a relevant document: 1 - product of (1 - p)."""
    view = _cut(view, spec.cutoff)
    p = _relevant(spec, judgments, view, human_only)
    certain, logs = _doubts(p)
    return np.where(_sum(view, certain) > 0.0, 1.0, 0.0 - np.expm1(_sum(view, logs)))


def _p(spec: Spec, judgments: Judgments, view: View, human_only: bool) -> Floats:
    """Relevant documents among the first k, over k, however few were retrieved."""
    view = _cut(view, spec.cutoff)
    assert spec.cutoff is not None  # P has no meaning without one
    return _sum(view, _relevant(spec, judgments, view, human_only)) / spec.cutoff


def _r(spec: Spec, judgments: Judgments, view: View, human_only: bool) -> Floats:
    """Relevant documents among the first k, over all relevant ones."""
    view = _cut(view, spec.cutoff)
    return _over(
        _sum(view, _relevant(spec, judgments, view, human_only)), _expected_relevant(spec, judgments)
    )


def _rbp(spec: Spec, judgments: Judgments, view: View, human_only: bool) -> Floats:
    """Moffat & Zobel, TOIS 27 (2008): (1 - p) sum of gain p^(rank - 1).

    Without `rel` the gain is the expected grade over the highest grade of the scale, hence between 0 and 1.
    """
    view = _cut(view, spec.cutoff)
    if spec.rel is None:
        gain = _at(judgments.gains(), judgments, view, human_only) / judgments.scale
    else:
        gain = _relevant(spec, judgments, view, human_only)
    weight = np.power(spec.persistence, (view.rank - 1).astype(np.float64))
    return (1.0 - spec.persistence) * _sum(view, gain * weight)


def _judged(spec: Spec, judgments: Judgments, view: View, human_only: bool) -> Floats:
    """Judged documents among the first k, over min(k, retrieved)."""
    hits = Hits(judgments, view, [])
    share = judged_share(hits, spec.cutoff)
    return share - judged_share(hits, spec.cutoff, labeled=True) if human_only else share


def _hard(spec: Spec, judgments: Judgments, view: View, human_only: bool) -> Floats:
    return _at((judgments.relevance >= (spec.rel or 0)).astype(np.float64), judgments, view, human_only)


def _bpref(spec: Spec, judgments: Judgments, view: View, human_only: bool) -> Floats:
    """Buckley & Voorhees, SIGIR 2004, as trec_eval computes it: negative grades are unjudged."""
    rel = spec.rel or 0
    relevance = judgments.relevance
    relevant = judgments.total((relevance >= rel).astype(np.float64))
    nonrelevant = judgments.total(((relevance >= 0) & (relevance < rel)).astype(np.float64))
    grade = relevance[view.judgment]
    above = running_sum(view.topic, ((grade >= 0) & (grade < rel)).astype(np.float64))
    bound = relevant[view.topic]
    lost = _over(np.minimum(above, bound), np.minimum(nonrelevant[view.topic], bound))
    return _over(_sum(view, _hard(spec, judgments, view, human_only) * (1.0 - lost)), relevant)


def _rprec(spec: Spec, judgments: Judgments, view: View, human_only: bool) -> Floats:
    """Relevant documents among the first R, over R, the number of relevant documents."""
    relevant = judgments.total((judgments.relevance >= (spec.rel or 0)).astype(np.float64))
    inside = view.rank <= relevant[view.topic]
    return _over(_sum(view, _hard(spec, judgments, view, human_only) * inside), relevant)


_FAMILIES: dict[str, Callable[[Spec, Judgments, View, bool], Floats]] = {
    "nDCG": _ndcg,
    "AP": _ap,
    "RR": _rr,
    "P": _p,
    "R": _r,
    "Success": _success,
    "Judged": _judged,
    "RBP": _rbp,
    "Bpref": _bpref,
    "Rprec": _rprec,
}
NAMES = frozenset(_FAMILIES)
"""The families that are computed here."""
