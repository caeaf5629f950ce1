"""A solved chain: what means, quantiles and validity are read from, for either rule (THEORY 9)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fluid.steady.latency.decoders import nobody
from fluid.steady.latency.load import Load
from fluid.steady.latency.slow import Slow

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Cdfs:
    """Distribution functions on common points 0, dx, 2dx, …

    Attributes:
        points_s: Shape (n,).
        below: P(· ≤ point), one row each, shape (k, n).
    """

    points_s: Floats
    below: Floats

    def mean_s(self) -> Floats:
        """Of each row, shape (k,)."""
        return np.asarray((1 - self.below).sum(axis=1) * self.points_s[1] - self.points_s[1] / 2)

    def variance_s2(self) -> Floats:
        """Of each row, shape (k,)."""
        square = 2 * ((1 - self.below) * self.points_s).sum(axis=1) * self.points_s[1]
        return np.asarray(np.maximum(square - self.mean_s() ** 2, 0.0))


@dataclass(frozen=True)
class Idle:
    """Iterations without work, which the chain counts as iterations of d0, are idle time.

    Attributes:
        empty_share: Of the chain's iterations; `empty_time_share` of its time.
        share: Of real time in which the server is idle.
    """

    empty_share: float
    empty_time_share: float
    share: float

    def corrected(self, ttft_s: Floats, alone_s: Floats, chain_empty_s: Floats) -> Floats:
        """Mean TTFT, once empty iterations (which took `chain_empty_s`) are replaced by idling."""
        busy = (ttft_s - self.empty_time_share * chain_empty_s) / (1 - self.empty_time_share)
        return np.asarray((1 - self.share) * busy + self.share * alone_s)


_ALONE = 1e-9
"""Share of iterations with work below which no two requests meet, to the precision of sums."""


def idleness(load: Load, slow: Slow, seconds: Floats, law: Floats, mean_s: float) -> Idle:
    """Share of empty iterations: nobody came, nobody decodes; they end with the first arrival."""
    rate, overhead_s = load.rate_per_s, load.tau.overhead_s
    mean = mean_s * load.decodes_per_s
    ratio = slow.moments.decodes_var / mean if mean > 0 else 1.0
    empty = float(nobody(np.array([mean]), ratio)[0] * (law @ np.exp(-rate * seconds)))
    empty_time = empty * overhead_s / mean_s
    idle_s = empty * -math.expm1(-rate * overhead_s) / rate
    return Idle(empty, empty_time, idle_s / (mean_s * (1 - empty_time) + idle_s))


@dataclass(frozen=True)
class Solved:
    """A chain in balance.

    Attributes:
        seconds: τ at each node, shape (nodes,).
        law, step: π and Q.
        mean_s: μ, empty iterations included.
        first_stage_s: Mean time from arrival to the end of prefill, shape (m,).
        alone_s: The same on an idle server, shape (m,).
        starts: Law of the node in which class j's prefill ends, shape (m, nodes).
        after_s: Sums of covariances after the end of prefill, see `Slow.after_prefill_s`.
        make_first_stage: Makes `first_stage`.
        make_first_token: Makes the laws of TTFT from their means where prefill emits no token.
        budget_share: ρ_c, share of the token budget that the load needs; None without a budget.
        saturated_share: Of time, in which the budget is used up.
        longest_s: The longest iteration that a budget allows.
    """

    load: Load
    slow: Slow
    seconds: Floats = field(repr=False)
    law: Floats = field(repr=False)
    step: Floats = field(repr=False)
    mean_s: float
    idle: Idle
    first_stage_s: Floats
    alone_s: Floats
    starts: Floats = field(repr=False)
    after_s: list[Floats] = field(repr=False)
    make_first_stage: Callable[[], Cdfs] = field(repr=False)
    converged: bool
    make_first_token: Callable[[Floats], Cdfs] | None = field(default=None, repr=False)
    budget_share: float | None = None
    saturated_share: float = 0.0
    longest_s: float = math.inf

    @cached_property
    def first_stage(self) -> Cdfs:
        """Laws of the time to the end of prefill, one row per class."""
        return self.make_first_stage()

    @cached_property
    def first_token(self) -> Cdfs:
        """Laws of TTFT, one row per class."""
        if self.make_first_token is None or not self.load.first_output.any():
            return self.first_stage
        return self.make_first_token(self.stage_s[:, 0])

    @cached_property
    def variance_s2(self) -> float:
        """Of the iteration time in the chain."""
        return max(float(self.law @ (self.seconds - self.mean_s) ** 2), 0.0)

    @property
    def working_iteration_s(self) -> tuple[float, float]:
        """Mean and standard deviation of iterations that do work."""
        overhead_s, empty = self.load.tau.overhead_s, self.idle.empty_share
        if 1 - empty < _ALONE:  # rounding would be all that is left: every request is alone
            later_s = self.stage_s[:, 2] - self.first_stage_s
            rates = self.load.rates_per_s
            mean = float(rates @ (self.alone_s + later_s)) / float(rates @ (1 + self.load.later))
            return mean, 0.0
        mean = (self.mean_s - empty * overhead_s) / (1 - empty)
        square = (self.variance_s2 + self.mean_s**2 - empty * overhead_s**2) / (1 - empty)
        return mean, math.sqrt(max(square - mean**2, 0.0))

    @property
    def kv_mean_tokens(self) -> float:
        """Mean KV held (THEORY 9.1)."""
        return self.mean_s * self.load.kv_held_per_s

    @cached_property
    def stage_s(self) -> Floats:
        """Mean TTFT, time between first and last token, latency; shape (m, 3)."""
        found = []
        for j, cumulated in enumerate(self.after_s):
            first, last = int(self.load.first_output[j]), int(self.load.later[j])
            ttft_s = self.first_stage_s[j] + first * self.mean_s + cumulated[first]
            rest_s = (last - first) * self.mean_s + cumulated[last] - cumulated[first]
            found.append((ttft_s, rest_s, ttft_s + rest_s))
        return np.array(found)
