"""Losses by name: how far a student's logits are from what the teachers say, one number a row.

All of them take logits over the grades whose softmax is the student's distribution, so that whatever a
student was taught by, it is asked in the same way. With p the teachers' distribution, q the student's and
g the grades:

kl       cross-entropy, -sum p log q; the divergence KL(p, q) but for the entropy of p, which is constant.
ordinal  for each grade but the lowest the cross-entropy of "at least this grade", and their mean: grades that
         are near cost less (cumulative link: McCullagh, JRSS B 1980; as in CORAL, Cao et al., PRL 2020, but
         without its shared weights).
mse      (E_q[g] - E_p[g])^2, in grades squared.
lce      -log of the softmax of a relevant document's score among the non-relevant ones of its query in the
         batch (localized contrastive estimation: Gao, Dai & Callan, ECIR 2021). Relevant is an expected grade
         of half the scale or more; the score is `contrast`. Rows that are not relevant have no loss.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from harness.arrays import Floats

__all__ = ["LOSSES", "Rows", "contrast", "expected", "middle", "weighted"]

Tensor = Any


class Rows(NamedTuple):
    """What a loss compares, row by row.

    Attributes
    ----------
    logits: (rows, grades). probs: the teachers' distributions, (rows, grades). grades: ascending, (grades,).
    queries: a number for each row, the same for rows of one query, (rows,).
    """

    logits: Tensor
    probs: Tensor
    grades: Tensor
    queries: Tensor


def expected(probs: Tensor, grades: Tensor) -> Tensor:
    """The expected grade of each row."""
    return probs @ grades


def middle(grades: Any) -> Any:
    """The middle of the scale, of grades ascending: from here on an expected grade counts as relevant."""
    return (grades[0] + grades[-1]) / 2


def contrast(logits: Tensor, grades: Tensor) -> Tensor:
    """One score a row: the slope of its logits over the grades (least squares).

    It is linear in the logits, so a student can be taught any score by it before it knows the grades.
    """
    centred = grades - grades.mean()
    return logits @ centred / (centred**2).sum()


def weighted(losses: Tensor, weights: Floats, total: float) -> Tensor:
    """The part of these rows in a mean whose weights sum to `total`."""
    from torch import tensor

    return (losses * tensor(weights, dtype=losses.dtype, device=losses.device)).sum() / total


def _kl(rows: Rows) -> Tensor:
    return -(rows.probs * rows.logits.log_softmax(dim=1)).sum(dim=1)


def _ordinal(rows: Rows) -> Tensor:
    from torch import stack
    from torch.nn.functional import binary_cross_entropy_with_logits

    losses = []
    for first in range(1, rows.logits.shape[1]):
        # log-odds of reaching the grade, without a probability that could round to 0
        odds = rows.logits[:, first:].logsumexp(dim=1) - rows.logits[:, :first].logsumexp(dim=1)
        reached = rows.probs[:, first:].sum(dim=1).clamp(0, 1)
        losses.append(binary_cross_entropy_with_logits(odds, reached, reduction="none"))
    return stack(losses).mean(dim=0)


def _mse(rows: Rows) -> Tensor:
    return (expected(rows.logits.softmax(dim=1), rows.grades) - expected(rows.probs, rows.grades)) ** 2


def _lce(rows: Rows) -> Tensor:
    from torch import eye, where

    score = contrast(rows.logits, rows.grades)
    relevant = expected(rows.probs, rows.grades) >= middle(rows.grades)
    same = rows.queries[:, None] == rows.queries[None, :]
    itself = eye(len(score), dtype=same.dtype, device=same.device)
    group = itself | (same & ~relevant[None, :])
    among = where(group, score[None, :], float("-inf")).logsumexp(dim=1)
    return where(relevant, among - score, among * 0)


LOSSES: Mapping[str, Callable[[Rows], Tensor]] = {"kl": _kl, "ordinal": _ordinal, "mse": _mse, "lce": _lce}
"""Name -> the losses (rows,) of `Rows`."""
