"""Slopes, means and shares with their intervals at `LEVEL`, as measures with a verdict."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats

from validation.simulator.metrics import Interval, interval
from validation.theorems.statement import LEVEL, Floats, Measure

NARROW = 0.1
"""Half width up to which the interval of a slope tells the rates of a theorem from each other."""


def slope(x: Sequence[float] | Floats, samples: Sequence[Floats]) -> Interval:
    """Slope of ln E[sample] against ln x with its interval at LEVEL.

    Weighted least squares: the logarithm of a mean of independent replications is normal with the
    squared relative standard error of the mean as its variance (delta method).

    Args:
        x: Abscissae, shape (points,).
        samples: Independent replications at each of them.
    """
    relative = [one.std(ddof=1) / one.mean() / np.sqrt(len(one)) for one in samples]
    weight = 1 / np.square(relative)
    log_x = np.log(np.asarray(x, dtype=float))
    log_y = np.log([one.mean() for one in samples])
    centred = log_x - np.average(log_x, weights=weight)
    spread = float((weight * centred**2).sum())
    found = float((weight * centred * log_y).sum()) / spread
    return Interval(found, float(stats.norm.ppf((1 + LEVEL) / 2) / np.sqrt(spread)))


def slope_is(name: str, found: Interval, target: float, words: str) -> Measure:
    """Holds if the interval contains the target and is narrow enough to exclude other rates."""
    holds = found.low <= target <= found.high and found.half_width <= NARROW
    expected = f"{words}, inside an interval of at most ±{NARROW:g}"
    return Measure(name, found.mean, found.low, found.high, expected, holds)


def contains(name: str, found: Interval, target: float, share: float) -> Measure:
    """Holds if the interval contains the target and its half width is below a share of it."""
    holds = found.low <= target <= found.high and found.half_width <= share * abs(target)
    expected = f"{target:.4g}, inside an interval of at most ±{share:.1%}"
    return Measure(name, found.mean, found.low, found.high, expected, holds)


def at_most(name: str, found: Interval, bound: float) -> Measure:
    """Holds if the whole interval lies at or below the bound."""
    return Measure(
        name, found.mean, found.low, found.high, f"at most {bound:.4g}", found.high <= bound
    )


def at_least(name: str, found: Interval, bound: float) -> Measure:
    """Holds if the whole interval lies at or above the bound."""
    return Measure(
        name, found.mean, found.low, found.high, f"at least {bound:.4g}", found.low >= bound
    )


def between(name: str, found: Interval, low: float, high: float) -> Measure:
    """Holds if the whole interval lies between two bounds."""
    holds = low <= found.low and found.high <= high
    expected = f"between {low:.4g} and {high:.4g}"
    return Measure(name, found.mean, found.low, found.high, expected, holds)


def exact(value: float) -> Interval:
    """A figure without randomness."""
    return Interval(value, 0.0)


def mean(sample: Sequence[float] | Floats) -> Interval:
    """Mean over replications with its interval at LEVEL."""
    return interval(sample, LEVEL)


def clopper_pearson(events: int, trials: int) -> tuple[float, float]:
    """Exact interval at LEVEL of a probability."""
    tail = (1 - LEVEL) / 2
    low = stats.beta.ppf(tail, events, trials - events + 1) if events else 0.0
    high = stats.beta.ppf(1 - tail, events + 1, trials - events) if events < trials else 1.0
    return float(low), float(high)
