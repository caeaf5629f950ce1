"""Branch and bound over the iteration time alone: whole thresholds for thousands of classes.

For thresholds whose ΔT(n) lies in [t1, t2] the mean delay is at least, for any α ≥ Λ and β ≥ 0 and
any line d + Σ n_j w_j below ΔT(n),

    (Σ_j min over whole n of [(k_j + α w_j + β m_j)·n + q(n, t1)] + Λ t2 − α(t2 − d) − βC − m/2)/Λ

with q as in `whole`: the minimum of a sum over classes, O(m) each. The interval with the
smallest bound is halved until the bound meets the best thresholds found, which come from the same
minima.
"""

from __future__ import annotations

import heapq
import itertools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from thresholds.solvers.majorant import Line
from thresholds.solvers.wait.batch import STRICT
from thresholds.solvers.wait.whole import DelayGoal, class_cost

Floats = NDArray[np.float64]

_INTERVALS = 96
_TARGET = 1e-3
"""A gap that is small enough."""

_BISECTIONS = 3
_LIFTS = 3


@dataclass(frozen=True)
class _Interval:
    """Iteration times from `from_s` to `to_s`, their bound, α, and the minimising thresholds."""

    from_s: float
    to_s: float
    bound_s: float
    time_price: float
    thresholds: Floats


def clocked_search(
    goal: DelayGoal, line: Line, start: Floats, time_price: float, memory_price: float
) -> tuple[Floats, float, float]:
    """Good whole thresholds and a lower bound on the mean delay of any, from a feasible start.

    Args:
        line: Below the token part of the iteration time, for all feasible batches.
        time_price: First guess of α; memory_price: β, in units of the objective per token.

    Returns:
        Thresholds, shape (m,), their mean delay and the bound, in seconds.
    """
    search = _Search(goal, line, memory_price)
    best, best_s = start, float(goal.value_s(start))
    count = itertools.count()
    edges_s = np.geomspace(*search.range_s(), 9)
    queue = [
        (one.bound_s, next(count), one)
        for pair in itertools.pairwise(edges_s.tolist())
        if (one := search.interval(*pair, time_price)) is not None
    ]
    heapq.heapify(queue)
    for _ in range(_INTERVALS):
        if not queue or best_s <= queue[0][0] * (1 + _TARGET):
            break
        _, _, widest = heapq.heappop(queue)
        candidate = search.lifted(widest.thresholds)
        if (value_s := float(goal.value_s(candidate))) < best_s:
            best, best_s = candidate, value_s
        middle_s = math.sqrt(widest.from_s * widest.to_s)
        for pair in ((widest.from_s, middle_s), (middle_s, widest.to_s)):
            half = search.interval(*pair, widest.time_price)
            if half is not None and half.bound_s < best_s:
                heapq.heappush(queue, (half.bound_s, next(count), half))
    bound_s = min(best_s, queue[0][0]) if queue else best_s
    return best, best_s, bound_s


class _Search:
    """The minima over classes for one goal, line and memory price."""

    def __init__(self, goal: DelayGoal, line: Line, memory_price: float) -> None:
        self.goal, self.memory_price = goal, memory_price
        self.intercept_s = line.intercept_s
        self.work_s = goal.batch.work_seconds(line.slope_s)
        self.rate_per_s = float(goal.batch.rates_per_s.sum())
        self.slopes = goal.last_stage + 0.5 + memory_price * goal.batch.memory_tokens

    def range_s(self) -> tuple[float, float]:
        """ΔT of the least thresholds, and one that no batch within memory exceeds."""
        batch = self.goal.batch
        least = self.goal.limits.least_thresholds(batch)
        assert least is not None
        capacity = batch.server.usable_kv_tokens
        tokens = capacity * float((batch.tokens / batch.memory_tokens).max())
        other_s = capacity * float((batch.work_seconds(0.0) / batch.memory_tokens).max())
        longest_s = float(batch.server.iteration_time.token_seconds(tokens)) + other_s
        shortest_s = float(batch.iteration_time_s(least))
        return shortest_s, max(longest_s, shortest_s) * (1 + STRICT)

    def lifted(self, thresholds: Floats) -> Floats:
        """The thresholds raised to what drift and limits ask at their iteration times."""
        for _ in range(_LIFTS):
            low, _ = self._interval(float(self.goal.batch.iteration_time_s(thresholds)))
            thresholds = np.maximum(thresholds, low)
        return thresholds

    def _interval(self, time_s: float) -> tuple[Floats, Floats]:
        """Whole thresholds that drift and limits allow at an iteration time, shape (m,) each."""
        batch = self.goal.batch
        low = np.floor(batch.rates_per_s * (1 + 2 * STRICT) * time_s) + 1
        if not self.goal.limits:
            return low, np.full_like(low, np.inf)
        least, high = self.goal.limits.whole_interval(batch, time_s)
        return np.maximum(low, least), high

    def interval(self, from_s: float, to_s: float, time_price: float) -> _Interval | None:
        """The best bound on an interval over α; None where it holds no feasible thresholds."""
        batch = self.goal.batch
        low, high = self._interval(from_s)
        if (
            (low > high).any()
            or self.work_s @ low > to_s - self.intercept_s
            or batch.memory(low) > batch.server.usable_kv_tokens
        ):
            return None
        below, above = self.rate_per_s, math.inf
        price = max(time_price, self.rate_per_s)
        best = tried = self._bounded(from_s, to_s, price, low, high)
        for _ in range(_BISECTIONS):
            too_long = self.work_s @ tried.thresholds > to_s - self.intercept_s
            below, above = (price, above) if too_long else (below, price)
            price = 4 * price if math.isinf(above) else math.sqrt(below * above)
            tried = self._bounded(from_s, to_s, price, low, high)
            best = max(best, tried, key=lambda one: one.bound_s)
        return best

    def _bounded(
        self, from_s: float, to_s: float, price: float, low: Floats, high: Floats
    ) -> _Interval:
        arrivals = self.goal.batch.rates_per_s * from_s
        cost = self.slopes + price * self.work_s
        real = arrivals + np.sqrt(arrivals / (2 * cost))
        floor = np.clip(np.floor(real), low, high)
        ceiling = np.clip(np.ceil(real), low, high)
        at_floor, at_ceiling = (class_cost(n, arrivals, cost) for n in (floor, ceiling))
        total = float(np.minimum(at_floor, at_ceiling).sum()) + self.rate_per_s * to_s
        total -= price * (to_s - self.intercept_s) + len(low) / 2
        total -= self.memory_price * self.goal.batch.server.usable_kv_tokens
        thresholds = np.where(at_floor <= at_ceiling, floor, ceiling)
        return _Interval(from_s, to_s, total / self.rate_per_s, price, thresholds)
