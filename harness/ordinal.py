"""Ordinal regression with a Gaussian process per topic: the arithmetic under `calibrate`.

A document's latent relevance is f = x.w + u, where x are its standardised signals, w is shared by all
topics, and u is a Gaussian process over the topic's documents: documents that resemble each other deviate
from x.w together. Grade g of 0..G-1 is reached with probability P(grade >= g | f) = logistic(f +
cuts[g-1]), with falling cuts (Chu & Ghahramani, Gaussian processes for ordinal regression, JMLR 6, 2005,
with a logistic in place of their normal).

The posterior is Laplace's approximation (Rasmussen & Williams, Gaussian Processes for Machine Learning,
2006, algorithms 3.1, 3.2 and 5.1; section 5.4.2 for leaving one out without fitting again). With no judged
document on a topic the posterior is the prior, which is the signals' own calibration widened by what topics
differ; each judgment moves it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.arrays import Floats, Ints

__all__ = [
    "JITTER",
    "Evidence",
    "Mode",
    "Parameters",
    "Priors",
    "distribution",
    "fit",
    "leave_one_out",
    "mode",
    "posterior",
]


JITTER = 1e-4
"""Added to the diagonal of a kernel matrix, so that repeated documents leave it positive definite."""


@dataclass(frozen=True)
class Evidence:
    """One topic's judged documents: signals (n, f), grade positions (n,) and one (n, n) matrix a kernel."""

    x: Floats
    y: Ints
    kernels: Sequence[Floats]


@dataclass(frozen=True)
class Priors:
    """Where the parameters start and what they shrink to: normal priors on weights and on log amplitudes."""

    weights: Floats
    precision: Floats
    amplitudes: Floats


@dataclass(frozen=True)
class Parameters:
    """`weights` (f,), falling `cuts` (G-1,), and the kernels' `amplitudes` (k,), which are variances."""

    weights: Floats
    cuts: Floats
    amplitudes: Floats


@dataclass(frozen=True)
class _Likelihood:
    """Log likelihood of each grade at f, and its derivatives in f: slope, and curvature = -slope'."""

    value: Floats
    slope: Floats
    curvature: Floats
    share: Floats
    upper: Floats
    lower: Floats
    turn_upper: Floats
    turn_lower: Floats


def _likelihood(f: Floats, y: Ints, cuts: Floats) -> _Likelihood:
    from scipy.special import expit

    edges = np.concatenate([[np.inf], cuts, [-np.inf]])
    above, beyond = expit(edges[y] + f), expit(edges[y + 1] + f)
    share = np.maximum(above - beyond, 1e-12)
    upper, lower = above * (1 - above), beyond * (1 - beyond)
    return _Likelihood(
        value=np.log(share),
        slope=1 - above - beyond,
        curvature=np.maximum(upper + lower, 1e-6),
        share=share,
        upper=upper,
        lower=lower,
        turn_upper=upper * (1 - 2 * above),
        turn_lower=lower * (1 - 2 * beyond),
    )


@dataclass(frozen=True)
class Mode:
    """The posterior's mode: latent values, the likelihood there, the Cholesky factor of I + sqrt(W) K
    sqrt(W)."""

    f: Floats
    likelihood: _Likelihood
    root: Floats
    factor: Floats
    objective: float


def mode(kernel: Floats, prior: Floats, y: Ints, cuts: Floats) -> Mode:
    """The mode of the latent values (n,) of judged documents, by Newton's method."""
    from scipy.linalg import cho_solve, cholesky

    f, eye = prior.copy(), np.eye(len(y))
    here = _likelihood(f, y, cuts)
    objective = float(here.value.sum())
    dual = np.zeros(len(y))
    for _ in range(40):
        root = np.sqrt(here.curvature)
        factor = cholesky(eye + root[:, None] * kernel * root, lower=True, check_finite=False)
        target = here.curvature * (f - prior) + here.slope
        newton = target - root * cho_solve((factor, True), root * (kernel @ target), check_finite=False)
        step, before = 1.0, objective
        while True:
            trial = dual + step * (newton - dual)
            f_trial = kernel @ trial + prior
            there = _likelihood(f_trial, y, cuts)
            objective = float(there.value.sum() - 0.5 * trial @ (f_trial - prior))
            if objective >= before - 1e-9 or step < 1e-3:
                break
            step /= 2
        dual, f, here = trial, f_trial, there
        if abs(objective - before) < 1e-5:
            break
    root = np.sqrt(here.curvature)
    factor = cholesky(eye + root[:, None] * kernel * root, lower=True, check_finite=False)
    return Mode(f, here, root, factor, objective)


def leave_one_out(
    kernel: Floats, prior: Floats, y: Ints, cuts: Floats, at: Mode | None = None
) -> tuple[Floats, Floats]:
    """Mean and variance (n,) of each latent value given all the other judgments of its topic.

    `at`: their mode, where it is known already.

    The variance never exceeds the prior's: what one judgment cannot tell is what nobody told.
    """
    from scipy.linalg import solve_triangular

    at = at or mode(kernel, prior, y, cuts)
    half = solve_triangular(at.factor, at.root[:, None] * kernel, lower=True, check_finite=False)
    variance = np.maximum(np.diag(kernel) - (half**2).sum(0), 1e-9)
    left = 1 / np.maximum(1 / variance - at.likelihood.curvature, 1 / np.diag(kernel))
    return at.f - left * at.likelihood.slope, left


def posterior(
    kernel: Floats,
    prior: Floats,
    y: Ints,
    cuts: Floats,
    cross: Floats,
    prior_new: Floats,
    own: Floats,
    at: Mode | None = None,
) -> tuple[Floats, Floats]:
    """Mean and variance (m,) of the latent values of new documents.

    `cross` (m, n) is the kernel between new and judged documents, `own` (m,) the new ones' prior variance.
    `at`: the judged ones' mode, where it is known already.
    """
    from scipy.linalg import solve_triangular

    at = at or mode(kernel, prior, y, cuts)
    half = solve_triangular(at.factor, at.root[:, None] * cross.T, lower=True, check_finite=False)
    return prior_new + cross @ at.likelihood.slope, np.maximum(own - (half**2).sum(0), 1e-9)


def distribution(mean: Floats, variance: Floats, cuts: Floats) -> Floats:
    """Probabilities of the grades (n, G): the logistic averaged over a normal latent value (MacKay 1992)."""
    from scipy.special import expit

    shrink = 1 / np.sqrt(1 + np.pi * variance / 8)
    reached = expit((cuts[None, :] + mean[:, None]) * shrink[:, None])
    ones, zeros = np.ones((len(mean), 1)), np.zeros((len(mean), 1))
    shares = -np.diff(np.concatenate([ones, reached, zeros], axis=1), axis=1)
    shares = np.maximum(shares, 1e-9)
    return np.asarray(shares / shares.sum(axis=1, keepdims=True))


def start(y: Ints, size: int) -> Floats:
    """Unconstrained cuts (first, log gaps) that give the grades of `y` their own frequencies, smoothed."""
    reached = np.array([((y >= g).sum() + 0.5) / (len(y) + 1) for g in range(1, size)])
    cuts = np.log(reached / (1 - reached))
    return np.concatenate([cuts[:1], np.log(np.maximum(-np.diff(cuts), 0.1))])


def cuts_of(free: Floats) -> Floats:
    """Falling cuts from the first and the logarithms of the gaps."""
    return np.asarray(free[0] - np.concatenate([[0.0], np.cumsum(np.exp(free[1:]))]))


def fit(topics: Sequence[Evidence], size: int, priors: Priors, *, iterations: int = 30) -> Parameters:
    """Weights, cuts and amplitudes at the maximum of the approximate marginal likelihood times the priors."""
    from scipy.optimize import minimize

    y = np.concatenate([t.y for t in topics])
    free = start(y, size)
    f, c = len(priors.weights), size - 1
    first = np.concatenate([priors.weights, free, priors.amplitudes])

    def objective(p: Floats) -> tuple[float, Floats]:
        weights, cuts, amplitudes = p[:f], cuts_of(p[f : f + c]), np.exp(p[f + c :])
        value, gradient, by_cut = 0.0, np.zeros_like(p), np.zeros(c)
        for topic in topics:
            parts = [a * k for a, k in zip(amplitudes, topic.kernels, strict=True)]
            got, by_part, by_mean, in_cuts = _evidence_gradient(parts, topic.x @ weights, topic.y, cuts)
            value += got
            gradient[:f] += topic.x.T @ by_mean
            gradient[f + c :] += by_part
            by_cut += in_cuts
        gradient[f] += by_cut.sum()
        gaps = np.exp(p[f + 1 : f + c])
        for g in range(c - 1):
            gradient[f + 1 + g] -= by_cut[g + 1 :].sum() * gaps[g]
        for part, mean, precision in (
            (slice(0, f), priors.weights, priors.precision),
            (slice(f, f + c), free, 0.05),
            (slice(f + c, None), priors.amplitudes, 1.0),
        ):
            away = p[part] - mean
            value -= 0.5 * float((precision * away**2).sum())
            gradient[part] -= precision * away
        return -value / len(y), -gradient / len(y)

    bounds = (
        [(-20.0, 20.0)] * f
        + [(-12.0, 12.0)]
        + [(-4.0, 2.5)] * (c - 1)
        + [(-7.0, 3.5)] * len(priors.amplitudes)
    )
    found = minimize(
        objective, first, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": iterations}
    )
    best: Any = found.x
    return Parameters(best[:f], cuts_of(best[f : f + c]), np.exp(best[f + c :]))


def _evidence_gradient(
    parts: list[Floats], prior: Floats, y: Ints, cuts: Floats
) -> tuple[float, Floats, Floats, Floats]:
    """Log evidence of one topic; its gradient in the log amplitudes, the prior means and the cuts."""
    from scipy.linalg import cho_solve

    kernel = np.sum(parts, axis=0) + JITTER * np.eye(len(y))
    at = mode(kernel, prior, y, cuts)
    lik = at.likelihood
    value = at.objective - float(np.log(np.diag(at.factor)).sum())
    inverse = at.root[:, None] * cho_solve((at.factor, True), np.diag(at.root), check_finite=False)
    through = kernel @ inverse
    spread = np.diag(kernel) - np.einsum("ij,ij->i", through, kernel)
    bend = -0.5 * spread * (lik.turn_upper + lik.turn_lower)

    by_part = np.empty(len(parts))
    for i, part in enumerate(parts):
        pull = part @ lik.slope
        explicit = 0.5 * lik.slope @ pull - 0.5 * np.einsum("ij,ij->", inverse, part)
        by_part[i] = explicit + bend @ (pull - through @ pull)
    by_mean = lik.slope + bend - inverse @ (kernel @ bend)
    by_cut = np.zeros(len(cuts))
    for g in range(len(cuts)):
        reached, next_one = y == g + 1, y == g
        in_value = np.where(reached, lik.upper / lik.share, 0) - np.where(next_one, lik.lower / lik.share, 0)
        in_slope = -np.where(reached, lik.upper, 0) - np.where(next_one, lik.lower, 0)
        in_curve = np.where(reached, lik.turn_upper, 0) + np.where(next_one, lik.turn_lower, 0)
        pull = kernel @ in_slope
        by_cut[g] = in_value.sum() - 0.5 * spread @ in_curve + bend @ (pull - through @ pull)
    return value, by_part, by_mean, by_cut
