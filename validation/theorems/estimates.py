"""Slopes, means and shares with their intervals at `LEVEL`, as measures with a verdict."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from validation.simulator.metrics import interval
from validation.theorems.statement import LEVEL, Estimate, Floats, Line, Measure

NARROW = 0.1
"""Half width up to which the interval of a slope tells the rates of a theorem from each other."""

POWER = 0.99
"""Probability with which the deviation that a measure "would see" makes it fail."""


def slope(x: Sequence[float] | Floats, samples: Sequence[Floats]) -> Estimate:
    """Slope of ln E[sample] against ln x.

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
    half_width = float(stats.norm.ppf((1 + LEVEL) / 2) / np.sqrt(spread))
    return Estimate(found, found - half_width, found + half_width)


def mean(sample: Sequence[float] | Floats) -> Estimate:
    """Mean over replications, with Student's interval."""
    found = interval(sample, LEVEL)
    return Estimate(found.mean, found.low, found.high)


def share(events: NDArray[np.bool_]) -> Estimate:
    """Share of replications in which something happened, with Clopper and Pearson's interval."""
    found = stats.binomtest(int(events.sum()), len(events)).proportion_ci(LEVEL, "exact")
    return Estimate(float(events.mean()), float(found.low), float(found.high))


def exact(value: float) -> Estimate:
    """A figure without randomness."""
    return Estimate(float(value), float(value), float(value))


def would_see(found: Estimate) -> float:
    """Deviation from a stated figure that puts it outside an interval this wide with POWER.

    The interval reaches z((1 + LEVEL)/2) standard errors to each side, and its middle has to lie
    z(POWER) more beyond the stated figure.
    """
    return found.half_width * float(1 + stats.norm.ppf(POWER) / stats.norm.ppf((1 + LEVEL) / 2))


def slope_is(name: str, found: Estimate, target: float, words: str) -> Measure:
    """Holds if the interval contains the target and is narrow enough to exclude other rates."""
    holds = found.low <= target <= found.high and found.half_width <= NARROW
    expected = f"interval contains {words}, at most ±{NARROW:g} wide"
    return Measure(name, found, expected, holds, would_see(found))


def contains(name: str, found: Estimate, target: float, width: float) -> Measure:
    """Holds if the interval contains the target and its half width is below a share of it."""
    holds = found.low <= target <= found.high and found.half_width <= width * abs(target)
    expected = f"interval contains {target:.4g}, at most ±{width:.0%} wide"
    return Measure(name, found, expected, holds, would_see(found))


def equals(name: str, value: float, target: float) -> Measure:
    """Holds if a figure without randomness is the target, to 1e-5 of it."""
    holds = bool(np.isclose(value, target, rtol=1e-5))
    return Measure(name, exact(value), f"{target:.4g}", holds)


def at_most(name: str, found: Estimate, bound: float) -> Measure:
    """Holds if the whole interval lies at or below the bound."""
    return Measure(name, found, f"at most {bound:.4g}", found.high <= bound)


def at_least(name: str, found: Estimate, bound: float) -> Measure:
    """Holds if the whole interval lies at or above the bound."""
    return Measure(name, found, f"at least {bound:.4g}", found.low >= bound)


def between(name: str, found: Estimate, low: float, high: float) -> Measure:
    """Holds if the whole interval lies between two bounds."""
    holds = low <= found.low and found.high <= high
    return Measure(name, found, f"between {low:.4g} and {high:.4g}", holds)


def points(label: str, x: ArrayLike, found: Sequence[Estimate]) -> Line:
    """Measured points of a plot, with their intervals."""
    rows = np.array([(one.value, one.low, one.high) for one in found])
    return Line(label, np.asarray(x, dtype=float), rows[:, 0], rows[:, 1], rows[:, 2])
