"""The root of a noisy excess in the rate: stochastic root finding with a stated error.

All rates see the same arrivals, stretched in time (common random numbers), so that at one length of
the runs the excess is a fixed, nearly monotone function of the rate, whose root is found like that
of any function. Runs are lengthened until three things hold: the excess is negative with 95 %
confidence at the lower end of a bracket of ± the tolerance and positive at its upper end, and runs
half as long have their root at the same place. This is retrospective approximation (Chen &
Schmeiser 2001, IIE Transactions 33(3)) with a bracket in place of a variance. Where the budget ends
first, the bracket is as wide as what is decided.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from validation.experiments.boundary_search import MOST_REQUESTS, Budget
from validation.experiments.slo.levels import Kept
from validation.simulator.runs import MOST_REPLICATIONS, Runs

TOLERANCE = 0.01
"""Largest relative distance of the answer from either end of its bracket."""

_BESIDE, _CENTRED = 0.7, 0.3
"""Shares of the tolerance: from the middle of the bracket to its ends, and to the root."""

_WIDEN, _MOST_WIDENINGS = 1.5, 60
_MOST_STEPS = 40
_MOST_TURNS = 6
_FASTEST = 8
LEAST_SHARE = 1e-5
"""Of the limit: below it no rate is looked for."""


class Judgement(Protocol):
    """What a simulation at one rate says of all promises together."""

    @property
    def worst(self) -> float:
        """Largest excess; ≤ 0 where all are kept on average."""

    @property
    def spread(self) -> float:
        """Half width of its interval."""

    @property
    def kept(self) -> Kept:
        """Whether all promises are kept, by their intervals."""


Measure = Callable[[float, Runs], Judgement]
"""Simulates a rate with runs of some size."""


@dataclass(frozen=True)
class Found:
    """Where the excess changes its sign.

    Attributes:
        rate_per_s: The root; None where no rate is kept.
        low_per_s, high_per_s: The bracket: promises are kept at its lower end and broken at its
            upper end, by intervals of 95 %; None where that was not found.
        decided: Whether the bracket is as narrow as was asked, at two lengths of the runs.
        runs: The last ones.
        simulations: Rates that were simulated, counted once a size of the runs.
    """

    rate_per_s: float | None
    low_per_s: float | None
    high_per_s: float | None
    decided: bool
    runs: Runs
    simulations: int


class RootSearch:
    """Asks `measure` for rates until the root is known.

    Args:
        limit_per_s: From here on promises are broken for certain; infinite where nothing is.
    """

    def __init__(
        self,
        measure: Measure,
        runs: Runs,
        limit_per_s: float,
        tolerance: float,
        budget: Budget,
    ) -> None:
        self._measure, self.limit_per_s = measure, limit_per_s
        self._tolerance, self._budget = tolerance, budget
        self.runs = runs
        self._known: dict[tuple[float, Runs], Judgement] = {}

    @property
    def simulations(self) -> int:
        """So far."""
        return len(self._known)

    def at(self, rate_per_s: float) -> Judgement | None:
        """The answer at a rate with runs of the present size; None from the limit on."""
        if rate_per_s >= self.limit_per_s:
            return None
        key = (rate_per_s, self.runs)
        if key not in self._known:
            self._known[key] = self._measure(rate_per_s, self.runs)
        return self._known[key]

    def excess(self, rate_per_s: float) -> float:
        """The largest excess at a rate."""
        found = self.at(rate_per_s)
        return math.inf if found is None else found.worst

    def verdict(self, rate_per_s: float) -> Kept:
        """Whether all promises are kept at a rate."""
        found = self.at(rate_per_s)
        return "broken" if found is None else found.kept

    def find(self, start_per_s: float) -> Found:
        """The root, from a first guess on."""
        centre, before = start_per_s, math.nan
        while True:
            centre, root = self._settled(centre)
            if root is None:
                return self._nothing(centre)
            low, high = self._ends(centre)
            decided = (self.verdict(low), self.verdict(high)) == ("kept", "broken")
            agrees = abs(root - before) <= self._tolerance / 2 * root
            if decided and agrees:
                return Found(root, low, high, True, self.runs, self.simulations)
            longer = self._longer(decided, low, high)
            if longer is None:
                return self._bracket(centre, root)
            self.runs, before = longer, root

    def _ends(self, centre: float) -> tuple[float, float]:
        beside = _BESIDE * self._tolerance
        return centre * (1 - beside), centre * (1 + beside)

    def _settled(self, centre: float) -> tuple[float, float | None]:
        """A centre whose bracket holds the root near its middle, and the root."""
        root = centre
        for _ in range(_MOST_TURNS):
            low, high = self._ends(centre)
            if self.excess(low) > 0 or self.excess(high) <= 0:
                found = self._crossed(centre)
                if found is None:
                    return centre, None
                low, high = found
            root = self._between(low, high)
            if abs(root / centre - 1) <= _CENTRED * self._tolerance:
                break
            centre = root
        return centre, root

    def _crossed(self, start_per_s: float) -> tuple[float, float] | None:
        """Two rates, near each other, between which the excess changes its sign; None if none."""
        low, high, step = start_per_s, start_per_s, 2 * self._tolerance
        for _ in range(_MOST_WIDENINGS):
            if self.excess(low) <= 0:
                break
            high, low = low, low / (1 + step)
            step = min(step * _WIDEN, 1.0)
            if low < LEAST_SHARE * min(self.limit_per_s, start_per_s):
                return None
        else:
            return None
        while self.excess(high) <= 0:
            low, high = high, high * (1 + step)
            step = min(step * _WIDEN, 1.0)
        for _ in range(_MOST_STEPS):
            if high / low <= 1 + _BESIDE * self._tolerance:
                break
            middle = self._between(low, high)
            if self.excess(middle) <= 0:
                low = middle
            else:
                high = middle
        return low, high

    def _between(self, low: float, high: float) -> float:
        """Where a line through the excess at both ends has its root; the middle without one.

        It stays away from the ends, so that a bracket always shrinks, and below the limit.
        """
        high = min(high, self.limit_per_s)
        below, above = self.excess(low), self.excess(high)
        share = 0.5
        if math.isfinite(above) and above > below:
            share = min(max(-below / (above - below), 0.1), 0.9)
        return float(low * (high / low) ** share)

    def _longer(self, decided: bool, low: float, high: float) -> Runs | None:
        """Runs that should decide it: twice as long, or up to eight times; None without budget."""
        if self._budget.clock() > self._budget.end_s:
            return None
        factor = 2
        at_low = self.at(low)
        rise = self.excess(high) - self.excess(low)
        if not decided and at_low is not None and math.isfinite(rise) and rise > 0:
            slope = rise / (2 * _BESIDE * self._tolerance)
            needed = (at_low.spread / slope / (0.5 * self._tolerance)) ** 2
            factor = 1 << max(1, min(round(math.log2(max(needed, 2.0))), _FASTEST.bit_length() - 1))
        requests = min(self.runs.requests * factor, MOST_REQUESTS)
        replications = self.runs.replications
        if requests == self.runs.requests:
            replications = min(2 * replications, MOST_REPLICATIONS)
        longer = replace(self.runs, requests=requests, replications=replications)
        return None if longer == self.runs else longer

    def _bracket(self, centre: float, root: float) -> Found:
        """What is decided with the runs that there were, however wide."""
        low: float | None
        high: float | None
        low, high = self._ends(centre)
        step = self._tolerance
        while low is not None and self.verdict(low) != "kept":
            low = low / (1 + step) if low > LEAST_SHARE * root else None
            step *= 2
        step = self._tolerance
        while high is not None and self.verdict(high) != "broken":
            high = high * (1 + step) if high < 16 * root else None
            step *= 2
        return Found(root, low, high, False, self.runs, self.simulations)

    def _nothing(self, rate_per_s: float) -> Found:
        return Found(None, None, rate_per_s, True, self.runs, self.simulations)
