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
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from thresholds.solvers.majorant import Line
from thresholds.solvers.wait.batch import MANY_CLASSES, STRICT
from thresholds.solvers.wait.whole import DelayGoal

Floats = NDArray[np.float64]

_INTERVALS = 96
_TARGET = 1e-3
"""A gap that is small enough."""

_TARGET_OF_MANY = 1e-2
"""More classes cost a hundredth of a second an interval: a larger gap has to do."""

_PRICES = 4
"""Values of α that are tried for an interval."""

_NEXT = 0.05
"""Least x = α^(−1/2) that is tried next, ÷ the last one."""

_PRICED = 1e-4
"""Share of the bound that a better α could still add: not worth another try."""


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
    target = _TARGET if len(start) <= MANY_CLASSES else _TARGET_OF_MANY
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
        if not queue or best_s <= queue[0][0] * (1 + target):
            break
        _, _, widest = heapq.heappop(queue)
        middle_s = math.sqrt(widest.from_s * widest.to_s)
        for candidate in search.candidates(widest, middle_s, best_s):
            if (value_s := float(goal.value_s(candidate))) < best_s:
                best, best_s = candidate, value_s
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

    def candidates(self, interval: _Interval, time_s: float, best_s: float) -> Iterator[Floats]:
        """Whole thresholds that satisfy drift and limits and may be better than `best_s`.

        Those that are best where ΔT(n) is `time_s` at most, and where classes are few those of the
        interval: raised to what drift and limits ask at their own iteration times.
        """
        point = self.interval(time_s, time_s, interval.time_price)
        few = len(interval.thresholds) <= MANY_CLASSES
        for one in (point, interval if few else None):
            if one is None or one.bound_s > best_s * (1 - _PRICED):
                continue
            raised = self.goal.limits.least_thresholds(self.goal.batch, start=one.thresholds)
            if raised is not None:
                yield raised

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
        room_s = to_s - self.intercept_s
        best: _Interval | None = None
        # What thresholds take beyond the room is nearly a line in x = α^(−1/2), from `low` at 0 on.
        most = self.rate_per_s**-0.5
        x = min(time_price**-0.5, most)
        under, over = (0.0, float(self.work_s @ low) - room_s), (math.inf, math.inf)
        for _ in range(_PRICES):
            tried = self._bounded(from_s, to_s, x**-2, low, high)
            if best is None or tried.bound_s > best.bound_s:
                best = tried
            excess_s = float(self.work_s @ tried.thresholds) - room_s
            # The bound is concave in α: so much is left to gain on the way to the other end.
            other = most if excess_s <= 0 else under[0]
            gain = excess_s * (other**-2 - x**-2) if other else math.inf
            if gain <= _PRICED * best.bound_s * self.rate_per_s:
                break
            here = (x, excess_s)
            line = (under, here)
            if excess_s > 0:
                # An end that stays counts half the next time, so that both ends move.
                over, under = here, (under[0], under[1] / 2)
            else:
                under = here
                if over[1] < math.inf:
                    line, over = (under, over), (over[0], over[1] / 2)
            x = min(max(_root(*line), _NEXT * x), most)
        return best

    def _bounded(
        self, from_s: float, to_s: float, price: float, low: Floats, high: Floats | float
    ) -> _Interval:
        arrivals = self.goal.batch.rates_per_s * from_s
        cost = self.slopes + price * self.work_s
        # The least whole n at which one more would not pay: (n − μ)(n + 1 − μ) ≥ μ/(2 cost).
        n = np.ceil(arrivals + (np.sqrt(1 + 2 * arrivals / cost) - 1) / 2)
        n = np.minimum(np.maximum(n, low), high)
        total = float(cost @ n) + float((arrivals / (n - arrivals)).sum()) / 2
        total += self.rate_per_s * to_s - price * (to_s - self.intercept_s) - len(low) / 2
        total -= self.memory_price * self.goal.batch.server.usable_kv_tokens
        return _Interval(from_s, to_s, total / self.rate_per_s, price, n)


def _root(first: tuple[float, float], second: tuple[float, float]) -> float:
    """Where the line through two points (x, y) is 0; infinite where it does not rise."""
    rise = second[1] - first[1]
    return first[0] - first[1] * (second[0] - first[0]) / rise if rise > 0 else math.inf
