"""What literal WAIT's thresholds can be best at, each with a bound (THEORY 3.2, 3.5).

Delays need a search (`bound`, `whole`). Memory, slack and the sustainable rate do not: drift at s
times the rates together with the limits has a least solution (`mean_limits`), which grows with s
and uses the least memory of all, so that bisection on s is exact.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from thresholds.solvers.majorant import Line, minorant_lines
from thresholds.solvers.wait.batch import FullBatch
from thresholds.solvers.wait.bound import clocked_search
from thresholds.solvers.wait.mean_limits import MeanLimits
from thresholds.solvers.wait.relaxed import Relaxed, delay_program, relaxed_optimum
from thresholds.solvers.wait.whole import DelayGoal, branch_and_bound

Floats = NDArray[np.float64]

_EXACT_CLASSES = 12
"""Up to so many classes branch and bound over all of them finishes the search."""

_TOUCH = 3e-5
"""Share that is added to the memory where nothing is inside the constraints, and to limits."""

_TOLERANCE = 1e-9
"""Relative width of the final bracket of bisections."""


@dataclass(frozen=True)
class Outcome:
    """The thresholds found, shape (m,), and how good they are.

    Attributes:
        name: The objective with its unit.
        value: Its value; bound: what no whole thresholds can surpass.
        relaxed: The best real thresholds, where they were looked for and exist.
        last_stage: Stage at whose end the minimised delay ends, shape (m,); None without delay.
    """

    thresholds: Floats
    solver: str
    name: str
    value: float
    bound: float
    relaxed: Relaxed | None = None
    last_stage: Floats | None = None

    @property
    def gap(self) -> float:
        """|value − bound|/bound."""
        return abs(self.value - self.bound) / self.bound if self.bound else 0.0


def least_latency(batch: FullBatch, limits: MeanLimits, least: Floats) -> Outcome:
    """Least mean latency over requests."""
    return _least_delay(DelayGoal(batch, limits, batch.stages - 1), least, "latency_s")


def least_ttft(batch: FullBatch, limits: MeanLimits, least: Floats) -> Outcome:
    """Least mean time to the first token over requests."""
    return _least_delay(DelayGoal(batch, limits, batch.first_output), least, "ttft_s")


def _least_delay(goal: DelayGoal, least: Floats, name: str) -> Outcome:
    """Search over the iteration time, then branch and bound where the classes are few."""
    batch = goal.batch
    most = batch.server.usable_kv_tokens * float((batch.tokens / batch.memory_tokens).max())
    lines = minorant_lines(batch.server.iteration_time, float(least @ batch.tokens), most)
    tightest, relaxed = lines[0], None
    for line in lines:
        found = _relaxed(goal, line, least)
        if found and (relaxed is None or found.bound_s > relaxed.bound_s):
            tightest, relaxed = line, found
    if relaxed is not None and relaxed.limit_prices:
        relaxed = _priced(goal, tightest, least, relaxed)
    rate_per_s = float(batch.rates_per_s.sum())
    thresholds, value_s, bound_s = clocked_search(
        goal,
        tightest,
        least,
        relaxed.time_price if relaxed else rate_per_s,
        relaxed.memory_price_s * rate_per_s if relaxed else 0.0,
    )
    solver = "interior point, branch and bound over the iteration time"
    if len(least) <= _EXACT_CLASSES:
        thresholds, value_s, exact_s = branch_and_bound(goal, thresholds)
        bound_s = max(bound_s, exact_s)
        solver = "interior point, branch and bound"
    if relaxed:
        bound_s = min(max(bound_s, relaxed.bound_s), value_s)
    return Outcome(thresholds, solver, name, value_s, bound_s, relaxed, goal.last_stage)


def _relaxed(goal: DelayGoal, line: Line, least: Floats) -> Relaxed | None:
    """The best real thresholds; where the least ones fill the memory, with a touch more of it.

    Its bound is one as well. The price of memory is that of the first token beyond; where a
    limit on a mean holds some thresholds back, it is extrapolated to what there is.
    """
    tokens = goal.batch.server.usable_kv_tokens

    def at(capacity: float) -> Relaxed | None:
        program = delay_program(goal.batch, goal.limits, goal.last_stage, line, least, capacity)
        return relaxed_optimum(program)

    found = at(tokens)
    if found is not None:
        return found
    near, far = at((1 + _TOUCH) * tokens), at((1 + 2 * _TOUCH) * tokens)
    grown = least * (1 + _TOUCH * np.eye(len(least)))
    if near is not None and goal.limits.hold(goal.batch, grown).all():
        return replace(near, memory_price_s=_first_token_price_s(goal, line, least))
    if near is None or far is None:
        return near
    return replace(near, memory_price_s=2 * near.memory_price_s - far.memory_price_s)


def _first_token_price_s(goal: DelayGoal, line: Line, least: Floats) -> float:
    """What memory beyond that of the least thresholds takes off the mean delay, by its first token.

    All thresholds can only grow, so that it goes to the class of the largest −∂D̄/∂n_j per m_j.
    """
    batch = goal.batch
    work_s, rates = batch.work_seconds(line.slope_s), batch.rates_per_s
    time_s = line.intercept_s + float(work_s @ least)
    loads = rates * time_s / least
    queues = loads / (2 * (1 - loads) ** 2)
    by_time = float(rates.sum() + queues.sum() / time_s)
    slopes = goal.last_stage + 0.5 - queues / least + by_time * work_s
    return max(float((-slopes / batch.memory_tokens).max()) / float(rates.sum()), 0.0)


def _priced(goal: DelayGoal, line: Line, least: Floats, found: Relaxed) -> Relaxed:
    """The same with the prices of limits that are a touch longer.

    Where the least thresholds just keep a limit, its multiplier is not unique; that of a longer
    limit is what one more unit is worth.
    """
    limits = goal.limits.loosened(1 + _TOUCH)
    longer = relaxed_optimum(delay_program(goal.batch, limits, goal.last_stage, line, least))
    return found if longer is None else replace(found, limit_prices=longer.limit_prices)


def least_memory(batch: FullBatch, limits: MeanLimits, least: Floats) -> Outcome:
    """The least thresholds, which use the least KV of all."""
    memory = float(batch.memory(least))
    return Outcome(least, "monotone fixed point", "memory_tokens", memory, memory)


def largest_rate(batch: FullBatch, limits: MeanLimits, least: Floats) -> Outcome:
    """Drift up to the largest multiple of the rates; the limits hold at the rates themselves."""
    capacity = batch.server.usable_kv_tokens

    def at(scale: float) -> Floats | None:
        return _fitting(batch, limits, scale, capacity)

    thresholds, top = _largest(at, least, 1.0)
    rate_per_s = float(batch.rates_per_s.sum())
    reached = 1 / float(batch.loads(thresholds).max())
    return Outcome(
        thresholds,
        "bisection over monotone fixed points",
        "rate_per_s",
        reached * rate_per_s,
        max(top, reached) * rate_per_s,
    )


def largest_slack(batch: FullBatch, limits: MeanLimits, least: Floats) -> Outcome:
    """The largest ε with λ_j ΔT(n)/n_j ≤ 1 − ε in every class and M(n) ≤ (1 − ε)·C."""
    capacity = batch.server.usable_kv_tokens

    def at(scale: float) -> Floats | None:
        return _fitting(batch, limits, scale, capacity / scale)

    thresholds, top = _largest(at, least, 1.0)
    drift = 1 - float(batch.loads(thresholds).max())
    slack = min(drift, 1 - float(batch.memory(thresholds)) / capacity)
    bound = max(1 - 1 / top, slack)
    return Outcome(thresholds, "bisection over monotone fixed points", "least_slack", slack, bound)


WAIT_OBJECTIVES: dict[str, Callable[[FullBatch, MeanLimits, Floats], Outcome]] = {
    "latency": least_latency,
    "ttft": least_ttft,
    "memory": least_memory,
    "slack": largest_slack,
    "rate": largest_rate,
}
"""Solve for an objective, given the batch, the limits and the least feasible thresholds."""


def _fitting(batch: FullBatch, limits: MeanLimits, scale: float, tokens: float) -> Floats | None:
    """The least thresholds at `scale` times the rates if they fit into so many tokens."""
    found = limits.least_thresholds(batch, scale)
    return found if found is not None and batch.memory(found) <= tokens else None


def _largest(
    at: Callable[[float], Floats | None], first: Floats, low: float
) -> tuple[Floats, float]:
    """Thresholds at the largest scale with some, from `first` at `low`, and a scale above it."""
    best, high = first, 2 * low
    while (found := at(high)) is not None:
        best, low, high = found, high, 2 * high
    while high - low > _TOLERANCE * low:
        middle = (low + high) / 2
        found = at(middle)
        if found is None:
            high = middle
        else:
            best, low = found, middle
    return best, high
