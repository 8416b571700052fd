"""Means from few true values and many predicted ones: prediction-powered inference, honest for small samples.

PPI++ (Angelopoulos, Duchi & Zrnic 2023, arXiv 2311.01453) estimates the mean of y, known for n units, with
the help of predictions f, known for these and N others:

    mean(y) + lambda * (mean(f of the others) - mean(f of the n))

which is right on average for any lambda that does not hang on the sample, however wrong the predictions are;
what they are worth decides only how wide the interval is. Lambda 0 leaves the predictions out. The paper's
interval is for large n: with the ten to fifty topics that people judge it is too narrow (it covers 0.87 to
0.94 in tests/quality/ppi_coverage.py), since lambda is tuned on the very topics whose spread is then taken
for the error. Three things differ here:

- lambda, the regression slope times N / (N + n), clipped to 0..1, is shrunk by 1 - 1/F, F being the test
  statistic of the slope: where predictions tell no more than chance would, lambda is 0 and the estimate that
  of the true values alone. So there is no choice of the narrower of two intervals after looking, which
  would cost up to two points of coverage.
- The error is a delete-one jackknife of the whole estimate, tuning included: rather too large than too
  small (Efron & Stein, Annals of Statistics 9, 1981).
- The quantiles are Student's, with n - 2 degrees of freedom, n - 1 where lambda is given.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from harness.arrays import Floats, Ints
from harness.errors import UsageError
from harness.inference import CONFIDENCE

__all__ = ["FEWEST", "Cost", "Powered", "costs", "powered_mean"]

FEWEST = 5
"""True values from which on lambda is tuned; with fewer it is 0. With five, useless predictions widen the
interval by 5 %, with ten by 3 %."""
_PRECISIONS = (0.2, 0.15, 0.1, 0.07, 0.05, 0.03, 0.02, 0.015, 0.01, 0.005, 0.002, 0.001)
_MOST = 10**7  # units that a cost may come to


@dataclass(frozen=True)
class Powered:
    """An estimate of a mean.

    Attributes
    ----------
    value: the estimate. low, high: its 95 % interval. error: standard error. freedom: degrees of freedom of
        the interval. lam: lambda, 0 (predictions left out) to 1.
    """

    value: float
    low: float
    high: float
    error: float
    freedom: int
    lam: float

    @property
    def half_width(self) -> float:
        """Half the width of the interval."""
        return (self.high - self.low) / 2


@dataclass(frozen=True)
class Cost:
    """What a precision costs: units whose true value is needed for an interval of +- `half_width`.

    `alone`: without predictions. `powered`: with them, for the units there are; None if that many do not
    suffice.
    """

    half_width: float
    alone: int
    powered: int | None


def powered_mean(gold: Floats, predicted: Floats, others: Floats, *, lam: float | None = None) -> Powered:
    """The mean of y over all units like these.

    Parameters
    ----------
    gold: (n,) true values of units drawn at random. predicted: (n,) predictions for the same units.
        others: (N,) predictions, made in the same way, for further units; may be empty.
    lam: lambda, 0 to 1; None to tune it. 0 is the t interval of the true values, 1 the first form of
        prediction-powered inference (Angelopoulos et al., Science 382, 2023).

    Raises
    ------
    UsageError: fewer than two true values, a number of predictions that is not theirs, a value that is not
        finite, or a lambda outside 0..1.
    """
    y, f, u = (np.asarray(values, dtype=np.float64) for values in (gold, predicted, others))
    _check(y, f, u, lam)
    n, units = len(y), len(y) + len(u)
    tuned = lam is None and n >= FEWEST
    used = float(_tuned(_sums(y, f), n, units)) if tuned else lam or 0.0
    if not used or not len(u):
        used, tuned = 0.0, False
    theta = float(y.mean() + (used * (u.mean() - f.mean()) if used else 0.0))
    left_out = _leave_one_out(y, f, u, None if tuned else used)
    from_gold = (n - 1) / n * float(((left_out - left_out.mean()) ** 2).sum())
    from_others = used**2 * float(np.concatenate([f, u]).var(ddof=1)) / len(u) if used else 0.0
    error = math.sqrt(from_gold + from_others)
    freedom = n - 2 if tuned else n - 1
    reach = float(_quantile(np.array([freedom]))[0]) * error
    return Powered(theta, theta - reach, theta + reach, error, freedom, used)


def _check(y: Floats, f: Floats, u: Floats, lam: float | None) -> None:
    if len(y) < 2:
        raise UsageError(f"{len(y)} true value says nothing of how they differ; two are needed, better ten")
    if len(f) != len(y):
        raise UsageError(f"{len(y)} true values, but {len(f)} predictions for them")
    if not all(np.isfinite(values).all() for values in (y, f, u)):
        raise UsageError("a value is not finite")
    if lam is not None and not 0 <= lam <= 1:
        raise UsageError(f"lambda {lam} is not between 0 and 1")


def _leave_one_out(y: Floats, f: Floats, u: Floats, lam: float | None) -> Floats:
    """The estimate without each of the n, tuned anew if `lam` is None."""
    n = len(y)
    true, predicted = ((v.sum() - v) / (n - 1) for v in (y, f))
    if lam == 0:
        return np.asarray(true)
    if lam is None:
        a, b = y - y.mean(), f - f.mean()
        whole = _sums(y, f)[:, None]
        without = whole - np.stack([a * a, b * b, a * b]) * n / (n - 1)
        # What is left of a square by rounding alone is nothing: all the others are equal.
        without[:2] = np.where(without[:2] > 1e-12 * whole[:2], without[:2], 0.0)
        return np.asarray(true + _tuned(without, n - 1, n - 1 + len(u)) * (u.mean() - predicted))
    return np.asarray(true + lam * (u.mean() - predicted))


def _tuned(sums: Floats, n: int, units: int) -> Floats:
    """Lambda for n of so many units."""
    return np.asarray(np.minimum(1.0, _slopes(sums, n) * (units - n) / units))


def _sums(y: Floats, f: Floats) -> Floats:
    """Sums of squares and products about the means: yy, ff, yf."""
    a, b = y - y.mean(), f - f.mean()
    return np.array([a @ a, b @ b, a @ b])


def _slopes(sums: Floats, n: int) -> Floats:
    """Slopes of y on f, at least 0, each shrunk by 1 - 1/F, out of (3, ...) sums of n units."""
    yy, ff, yf = sums
    rising = (yf > 0) & (ff > 1e-12 * yy) & (yy > 0)
    slope = np.where(rising, yf / np.where(rising, ff, 1.0), 0.0)
    share = np.where(rising, np.minimum(yf * slope / np.where(rising, yy, 1.0), 1.0), 0.0)  # r squared
    with np.errstate(divide="ignore", invalid="ignore"):
        shrink = np.where(rising, 1 - (1 - share) / (share * (n - 2)), 0.0)
    return np.asarray(slope * np.clip(shrink, 0.0, 1.0))


def _quantile(freedom: Floats | Ints) -> Floats:
    from scipy.special import stdtrit

    found: Floats = stdtrit(np.asarray(freedom, dtype=np.float64), (1 + CONFIDENCE) / 2)
    return found


# -- what a precision costs ----------------------------------------------------------------------------------


def costs(
    gold: Floats, predicted: Floats, others: Floats, *, precisions: Sequence[float] | None = None
) -> list[Cost]:
    """How many true values each precision needs, if the units to come are like these.

    A forecast from the spread and the slope of the sample, as good as these are; the slope's own error is in
    it (Cochran, Sampling Techniques, 3rd ed., 1977, section 12.7, double sampling). The units that have
    predictions stay as many as they are: more true values leave fewer others.

    Parameters
    ----------
    gold, predicted, others: as of `powered_mean`. precisions: half-widths, above 0; by default round numbers,
        from the half-width there is without predictions to a quarter of it.

    Raises
    ------
    UsageError: as `powered_mean`, or a precision is not above 0.
    """
    y, f, u = (np.asarray(values, dtype=np.float64) for values in (gold, predicted, others))
    now = powered_mean(y, f, u, lam=0).half_width
    if precisions is None:
        precisions = [h for h in _PRECISIONS if now / 4 <= h <= now]
    if any(not h > 0 for h in precisions):
        raise UsageError("a precision is a half-width above 0")
    spread = float(y.std(ddof=1))
    number = np.arange(FEWEST, len(y) + len(u) + 1)
    reached = _forecast(y, f, u, number)
    found = []
    for h in precisions:
        enough = np.flatnonzero(reached <= h)
        found.append(Cost(h, _needed(spread, h), int(number[enough[0]]) if len(enough) else None))
    return found


def _needed(spread: float, half_width: float) -> int:
    """The smallest number whose t interval is no wider."""
    low, high = 1, 2
    while high < _MOST and not _t_reach(spread, high) <= half_width:
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _t_reach(spread, middle) <= half_width else (middle, high)
    return high


def _t_reach(spread: float, number: int) -> float:
    return float(_quantile(np.array([number - 1]))[0]) * spread / math.sqrt(number)


def _forecast(y: Floats, f: Floats, u: Floats, number: Ints) -> Floats:
    """Half-widths to expect with so many true values among all units; falls with their number."""
    n, units = len(y), len(y) + len(u)
    if n < FEWEST or not len(number):
        return np.full(len(number), np.inf)
    yy, ff, yf = sums = _sums(y, f)
    slope = float(_slopes(sums, n))
    left = units - number
    lam = np.minimum(1.0, slope * left / units)
    residual = (yy - 2 * lam * yf + lam**2 * ff) / (n - (1 if slope == 0 else 2))
    tuning = 1 + np.where(lam > 0, left / units / np.maximum(number - 3, 1), 0.0)
    of_others = np.concatenate([f, u]).var(ddof=1) * lam**2 / np.maximum(left, 1)
    reach = _quantile(number - 2) * np.sqrt(residual / number * tuning + of_others)
    alone = _quantile(number - 1) * y.std(ddof=1) / np.sqrt(number)
    return np.asarray(np.minimum.accumulate(np.minimum(reach, alone)))
