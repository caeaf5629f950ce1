"""Objectives of Nested WAIT as weighted sums over a path, and what such a sum proves.

For any weights α, β ≥ 0 and any line d + s·tokens below f, every design of value below V satisfies

    latency, TTFT   W + α T + β M + (collecting n_1) + min_t [φ(t) − α t] − β C < V
    memory          M + α (T − n_1/Λ) < V
    slack, rate     T + β (M − C) < V n_1/Λ,    V the load Λ ΔT/n_1

with W its waiting, M its KV with the buffers, T = d + s·tokens + work ≤ ΔT, and φ(t) = t + queueing
for t seconds, which is convex and grows (THEORY 3.5), while T < n_1/Λ and M ≤ C.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from thresholds.solvers.majorant import Line
from thresholds.solvers.nested.requirement import STRICT
from thresholds.solvers.nested.segments import Lengths

Floats = NDArray[np.float64]

OBJECTIVES = ("latency", "ttft", "memory", "slack", "rate")
"""What can be best."""

LOADS = ("slack", "rate")
"""Those that are best where the load Λ_1 ΔT/n_1 is least."""

_WIDER = 1e-12
"""Room for rounding in a condition, relative."""

_KINDS = {"latency": 0, "ttft": 0, "memory": 1, "slack": 2, "rate": 2}


@dataclass(frozen=True)
class Goal:
    """One objective, to be minimised; "slack" and "rate" by their load.

    Attributes:
        rate_per_s: Λ.
        capacity: C.
        first_output: Stages of n_1/Λ each before the first token, for TTFT (THEORY 3.5).
    """

    objective: str
    rate_per_s: float
    capacity: float
    first_output: float

    @property
    def kind(self) -> int:
        """As the kernel counts."""
        return _KINDS[self.objective]

    @property
    def dimensions(self) -> int:
        """How many multipliers a bound has: α and β, α, or β."""
        return 2 if self.kind == 0 else 1

    def split(self, multipliers: Floats) -> tuple[float, float]:
        """α and β."""
        if self.kind == 0:
            return float(multipliers[0]), float(multipliers[1])
        return (float(multipliers[0]), 1.0) if self.kind == 1 else (1.0, float(multipliers[0]))

    def weights(self, multipliers: Floats, line: Line) -> Floats:
        """Of waiting, tokens, work and KV, (4,)."""
        alpha, beta = self.split(multipliers)
        return np.array([1.0, alpha * line.slope_s, alpha, beta])

    def start(self, multipliers: Floats, line: Line, low: Floats, high: Floats) -> Floats:
        """The constant at n_1 in low … high, the least of each interval; shape of `low`."""
        alpha, beta = self.split(multipliers)
        longest_s = high / self.rate_per_s
        if self.kind == 1:
            return np.asarray(alpha * (line.intercept_s - (1 - STRICT) * longest_s))
        if self.kind == 2:
            return np.full_like(low, line.intercept_s - beta * self.capacity)
        time_s = self._times(alpha, line, high)
        with np.errstate(divide="ignore", invalid="ignore"):
            queue_s = time_s / (2 * (high - self.rate_per_s * time_s))
        collect_s = ((low - 1) / 2 + self.first_output * low) / self.rate_per_s
        found = alpha * (line.intercept_s - time_s) + time_s + queue_s + collect_s
        return np.where(line.intercept_s < longest_s, found - beta * self.capacity, np.inf)

    def slopes(self, multipliers: Floats, line: Line, high: float, used: Floats) -> Floats:
        """Derivatives of a path's sum by the multipliers, for its four resources; (dimensions,)."""
        alpha, _ = self.split(multipliers)
        time_s = line.intercept_s + line.slope_s * used[1] + used[2]
        if self.kind == 1:
            return np.array([time_s - (1 - STRICT) * high / self.rate_per_s])
        excess = used[3] - self.capacity
        if self.kind == 2:
            return np.array([excess])
        return np.array([time_s - float(self._times(alpha, line, np.array(high))), excess])

    def scale(self, high: Floats) -> Floats:
        """What V is multiplied by at n_1."""
        return high / self.rate_per_s if self.kind == 2 else np.ones_like(high)

    def feasibility(self, line: Line, high: Floats) -> list[tuple[Floats, Floats]]:
        """Weights and constants of sums that stay below 0 whatever V: drift, then memory."""
        longest_s = (1 + _WIDER) * high / self.rate_per_s
        drift = np.array([0.0, line.slope_s, 1.0, 0.0]), line.intercept_s - longest_s
        full = (1 + _WIDER) * self.capacity
        memory = np.array([0.0, 0.0, 0.0, 1.0]), np.full_like(high, -full)
        return [[drift, memory], [drift], [memory]][self.kind]

    def _times(self, alpha: float, line: Line, high: Floats) -> Floats:
        """Where φ(t) − α t is least, at the iteration time of no batch or later."""
        if alpha <= 1:
            return np.full_like(high, line.intercept_s)
        free = np.sqrt(high / (2 * (alpha - 1)))
        return np.maximum((high - free) / self.rate_per_s, line.intercept_s)


def goal_of(objective: str, lengths: Lengths) -> Goal:
    """The objective for these lengths."""
    return Goal(
        objective=objective,
        rate_per_s=float(lengths.rates_per_s[0]),
        capacity=math.inf if objective == "memory" else float(lengths.server.usable_kv_tokens),
        first_output=float(lengths.first_output) if objective == "ttft" else 0.0,
    )
