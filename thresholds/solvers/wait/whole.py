"""Whole thresholds for literal WAIT: branch and bound with proof, for any iteration time.

The mean delay of THEORY 3.5 until stages s_j is

    (Σ_j [k_j n_j + q(n_j, ΔT)] + Λ ΔT(n) − m/2)/Λ,   q(n, ΔT) = μ/(2(n − μ)), μ = λ_j ΔT, k = s + ½

ΔT(n) grows in every n_j whatever f, and q grows in ΔT. In a box low ≤ n ≤ high the delay is thus at
least the same sum with q at ΔT(low), which separates into classes; with a line below f that starts
at the box's lowest corner ΔT(n) separates too. Drift, memory and limits at ΔT(low) shrink the box.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from thresholds.solvers.wait.batch import STRICT, FullBatch
from thresholds.solvers.wait.mean_limits import MeanLimits

Floats = NDArray[np.float64]

_MOST_BOXES = 200_000
"""Boxes looked at before branch and bound gives up; it then still knows a bound."""

_LAYER = 20_000
"""Boxes treated at once."""


@dataclass(frozen=True)
class DelayGoal:
    """The mean delay until `last_stage`, shape (m,), under drift, memory and limits."""

    batch: FullBatch
    limits: MeanLimits
    last_stage: Floats

    def value_s(self, thresholds: Floats) -> Floats:
        """Mean delay at thresholds (..., m), infinite where a condition fails; shape (...)."""
        delay_s = self.batch.mean_s(self.batch.delay_s(thresholds, self.last_stage))
        allowed = self.batch.feasible(thresholds)
        if self.limits:
            allowed = allowed & self.limits.hold(self.batch, thresholds)
        return np.where(allowed, delay_s, np.inf)


def class_cost(n: Floats, arrivals: Floats, cost: Floats) -> Floats:
    """cost·n + q(n) per class with μ = `arrivals`, infinite where drift fails; all of one shape."""
    spare = n - arrivals
    queue = arrivals / (2 * np.where(spare > 0, spare, 1.0))
    return np.where(spare > 0, cost * n + queue, np.inf)


def branch_and_bound(goal: DelayGoal, start: Floats) -> tuple[Floats, float, float]:
    """The best whole thresholds, from a feasible start.

    Returns:
        Thresholds, shape (m,), their mean delay in seconds, and a lower bound on that of any whole
        thresholds: the same, unless `_MOST_BOXES` boxes were not enough.
    """
    best, best_s = start, float(goal.value_s(start))
    least = goal.limits.least_thresholds(goal.batch)
    assert least is not None
    capacity = goal.batch.server.usable_kv_tokens
    room = (capacity - goal.batch.memory(least)) / goal.batch.memory_tokens
    lows, highs = least[None], (least + np.floor(room))[None]
    bounds_s = np.array([-np.inf])
    seen = 0
    while len(lows):
        if seen > _MOST_BOXES:
            return best, best_s, min(best_s, float(bounds_s.min()))
        # The most promising boxes first: they improve the best value, which discards the others.
        order = np.argsort(bounds_s, kind="stable")
        now, later = order[:_LAYER], order[_LAYER:]
        seen += len(now)
        low, high = _shrunk(goal, lows[now], highs[now])
        corner_s = goal.value_s(low) if len(low) else np.array([np.inf])
        if corner_s.min() < best_s:
            best, best_s = low[corner_s.argmin()], float(corner_s.min())
        bound_s, high = _bounds_s(goal, low, high, best_s)
        open_ = (bound_s < best_s * (1 - STRICT)) & (high > low).any(axis=1)
        low, high, bound_s = _halved(low[open_], high[open_], bound_s[open_])
        lows = np.concatenate([lows[later], low])
        highs = np.concatenate([highs[later], high])
        bounds_s = np.concatenate([bounds_s[later], bound_s])
        kept = bounds_s < best_s * (1 - STRICT)
        lows, highs, bounds_s = lows[kept], highs[kept], bounds_s[kept]
    return best, best_s, best_s


def _shrunk(goal: DelayGoal, low: Floats, high: Floats) -> tuple[Floats, Floats]:
    """Boxes (k, m) cut to what drift, limits and memory leave of them; empty ones dropped."""
    batch = goal.batch
    capacity = batch.server.usable_kv_tokens
    for _ in range(3):
        time_s = batch.iteration_time_s(low)
        drift = np.floor(batch.rates_per_s * (1 + 2 * STRICT) * time_s[:, None]) + 1
        low = np.maximum(low, drift)
        if goal.limits:
            least, most = goal.limits.whole_interval(batch, time_s)
            low, high = np.maximum(low, least), np.minimum(high, most)
        free = (capacity - batch.memory(low))[:, None]
        high = np.minimum(high, low + np.floor(free / batch.memory_tokens))
        kept = (low <= high).all(axis=1) & (free[:, 0] >= 0)
        low, high = low[kept], high[kept]
    return low, high


def _bounds_s(goal: DelayGoal, low: Floats, high: Floats, best_s: float) -> tuple[Floats, Floats]:
    """Lower bounds on the mean delay in boxes (k, m); their upper ends without what is worse."""
    batch = goal.batch
    rates, total = batch.rates_per_s, float(batch.rates_per_s.sum())
    time_s = batch.iteration_time_s(low)
    slope_s = batch.support_slopes_s(low @ batch.tokens)
    work_s = batch.work_seconds(0.0) + slope_s[:, None] * batch.tokens
    cost = goal.last_stage + 0.5 + total * work_s
    arrivals = rates * time_s[:, None]
    real = arrivals + np.sqrt(arrivals / (2 * cost))
    floor = np.clip(np.floor(real), low, high)
    ceiling = np.clip(np.ceil(real), low, high)
    least = np.minimum(class_cost(floor, arrivals, cost), class_cost(ceiling, arrivals, cost))
    # Λ·ΔT(n) ≥ Λ·ΔT(low) + Σ Λ w (n − low); its last term is inside `cost`.
    fixed = total * (time_s - (low * work_s).sum(axis=1)) - len(rates) / 2
    sums = least.sum(axis=1) + fixed
    possible = np.isfinite(sums)
    allowance = np.where(possible, best_s * total - sums, 0)[:, None] + least
    largest = np.floor(np.where(possible[:, None], allowance, 0) / cost)
    return sums / total, np.clip(largest, low, high)


def _halved(low: Floats, high: Floats, bound_s: Floats) -> tuple[Floats, Floats, Floats]:
    """Each box in two, across its longest side; the parts inherit the bound."""
    rows = np.arange(len(low))
    side = (high - low).argmax(axis=1)
    middle = np.floor((low[rows, side] + high[rows, side]) / 2)
    first, second = high.copy(), low.copy()
    first[rows, side], second[rows, side] = middle, middle + 1
    return (
        np.concatenate([low, second]),
        np.concatenate([first, high]),
        np.concatenate([bound_s, bound_s]),
    )
