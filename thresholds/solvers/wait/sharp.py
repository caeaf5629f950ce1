"""Literal WAIT with a sharper latency: classes that wait are not in the batch (affine servers).

THEORY 3.5 takes the full batch, ΔT(n), for every iteration. But while class j has a backlog and
runs in every iteration, a stable class i ≠ j comes in only once per n_i arrivals, with n_i w_i
seconds of work: a share λ_i w_i of the time. The iteration that class j sees is therefore

    T_j = d0 + n_j w_j + T_j Σ_{i≠j} λ_i w_i = (d0 + n_j w_j)/(1 − ρ + λ_j w_j)

and it keeps up iff λ_j T_j < n_j, which is n_j > λ_j d0/(1 − ρ) = n*_j: each threshold above the
fluid inventory (THEORY 2.2), weaker than the drift of 3.2 and not covered by Theorem 1. With T_j
for ΔT(n) in 3.5 the latency is a sum over classes of convex functions of n_j alone, which only
memory couples. Against simulation: ``tests/benchmarks/wait_optimum.py``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fluid.errors import InputError
from fluid.steady.equilibrium import Equilibrium
from fluid.workload import Workload
from thresholds.fields import SolverReport
from thresholds.solvers.certificate import condition, require_certified, stability_condition
from thresholds.solvers.common import predicted, solved_table
from thresholds.solvers.wait.batch import STRICT, FullBatch
from thresholds.solvers.wait.conditions import (
    NOT_SERVED,
    memory_condition,
    too_little_memory,
    wait_memory,
)
from thresholds.solvers.wait.mean_limits import MeanLimits
from thresholds.solvers.wait.rule import WaitRule
from thresholds.table import ThresholdTable

Floats = NDArray[np.float64]

SHARP = "sharp-latency"
"""Name of the objective."""

_BISECTIONS = 60


@dataclass(frozen=True)
class SharpLatency:
    """The mean latency with T_j in place of ΔT(n); arrays of shape (m,).

    Attributes:
        own_s: T_j of n_j → 0; growth_s: ∂T_j/∂n_j.
        inventory: n*_j.
    """

    batch: FullBatch
    own_s: Floats
    growth_s: Floats
    inventory: Floats

    def value_s(self, thresholds: Floats) -> Floats:
        """Mean latency in seconds at thresholds (..., m), infinite where n_j ≤ n*_j."""
        rates = self.batch.rates_per_s
        constant = (rates * self.own_s).sum() - len(rates) / 2
        return np.asarray((self.class_costs(thresholds, 0.0).sum(axis=-1) + constant) / rates.sum())

    def class_costs(self, n: Floats, memory_price: float) -> Floats:
        """(S_j − ½ + λ_j ∂T_j/∂n_j + price·m_j)·n_j + u_j/(2(1 − u_j)), u_j = λ_j T_j/n_j."""
        load = self.batch.rates_per_s * (self.own_s + self.growth_s * n) / n
        idle = np.where(load < 1, 1 - load, 1.0)
        return np.where(load < 1, self._slopes(memory_price) * n + load / (2 * idle), np.inf)

    def best_at(self, memory_price: float) -> Floats:
        """Whole thresholds of least cost: next to the real minimum of each convex function.

        With u = a + b/n it is at n = b/(1 − a) + (b/(2·slope))^½/(1 − a).
        """
        a = self.batch.rates_per_s * self.growth_s
        b = self.batch.rates_per_s * self.own_s
        real = (b + np.sqrt(b / (2 * self._slopes(memory_price)))) / (1 - a)
        floor = np.maximum(np.floor(real), self.least())
        ceiling = np.maximum(np.ceil(real), self.least())
        costs = [self.class_costs(one, memory_price) for one in (floor, ceiling)]
        return np.where(costs[0] <= costs[1], floor, ceiling)

    def least(self) -> Floats:
        """The smallest whole thresholds above the fluid inventory."""
        return np.floor(self.inventory * (1 + STRICT)) + 1

    def _slopes(self, memory_price: float) -> Floats:
        batch = self.batch
        linear = batch.stages - 0.5 + batch.rates_per_s * self.growth_s
        return np.asarray(linear + memory_price * batch.memory_tokens)


def sharp_latency(batch: FullBatch) -> SharpLatency:
    """The formula for a stable load on an affine server."""
    tau, rates = batch.server.iteration_time, batch.rates_per_s
    work_s = batch.work_seconds(tau.last_slope_s)
    free = 1 - float(rates @ work_s) + rates * work_s
    inventory = rates * tau.overhead_s / (1 - float(rates @ work_s))
    return SharpLatency(batch, tau.overhead_s / free, work_s / free, inventory)


def best_whole(formula: SharpLatency) -> tuple[Floats, float, float]:
    """Thresholds (m,), their mean latency and a bound on that of any others, in seconds.

    Without memory each class is at its own minimum. With it, by bisection on the price of memory:
    the Lagrangian at any price is a bound.

    Raises:
        InfeasibleError: The least thresholds do not fit.
    """
    batch, capacity = formula.batch, formula.batch.server.usable_kv_tokens
    best = formula.best_at(0.0)
    if batch.memory(best) <= capacity:
        value_s = float(formula.value_s(best))
        return best, value_s, value_s
    least = formula.least()
    if batch.memory(least) > capacity:
        raise too_little_memory(batch, least)
    low, high = 0.0, 1.0
    while batch.memory(formula.best_at(high)) > capacity:
        low, high = high, 2 * high
    best, bound_s = formula.best_at(high), -math.inf
    for _ in range(_BISECTIONS):
        price = (low + high) / 2
        tried = formula.best_at(price)
        tried_s, spare = float(formula.value_s(tried)), capacity - float(batch.memory(tried))
        bound_s = max(bound_s, tried_s - price * spare / float(batch.rates_per_s.sum()))
        low, high = (low, price) if spare >= 0 else (price, high)
        if spare >= 0 and tried_s < formula.value_s(best):
            best = tried
    return best, float(formula.value_s(best)), bound_s


def solve_sharp(
    workload: Workload, found: Equilibrium, batch: FullBatch, limits: MeanLimits
) -> ThresholdTable:
    """The table of least mean latency by the sharper formula.

    Raises:
        InputError: The server is not affine, or there are limits on means.
        InfeasibleError: No whole thresholds above the fluid inventory fit into memory.
    """
    server = batch.server
    if limits or not server.iteration_time.is_affine:
        allowed = "latency with limits on means or on a server that is not affine in tokens"
        raise InputError("objective", SHARP, allowed)
    formula = sharp_latency(batch)
    thresholds, value_s, bound_s = best_whole(formula)
    certificate = (
        stability_condition(found),
        *(
            condition(f"inventory of {one.name}: n*/n < 1", float(share), 1.0, strict=True)
            for one, share in zip(workload.classes, formula.inventory / thresholds, strict=True)
        ),
        memory_condition(batch, thresholds),
    )
    require_certified(certificate)
    work_s = batch.work_seconds(server.iteration_time.last_slope_s)
    overhead_s = server.iteration_time.overhead_s
    scales = thresholds / (
        batch.rates_per_s * overhead_s + thresholds * (batch.rates_per_s @ work_s)
    )
    gap = max(0.0, (value_s - bound_s) / bound_s)
    drift = float(batch.loads(thresholds).max())
    covered = "covers" if drift < 1 else "does not cover"
    return solved_table(
        WaitRule.policy,
        workload,
        server,
        params={},
        thresholds=[int(n) for n in thresholds],
        memory=wait_memory(batch, thresholds),
        predicted=predicted(found, value_s),
        max_rate_per_s=(1 - STRICT) * float(scales.min()) * workload.rate_per_s,
        certificate=certificate,
        solver=SolverReport(
            name="minimum of each class, price of memory",
            status="optimal" if gap <= STRICT else "feasible, with a bound",
            objective=value_s,
            optimality_gap=gap if gap > STRICT else 0.0,
            objective_name="latency_s",
        ),
        notes=(
            NOT_SERVED,
            f"Theorem 1 {covered} these thresholds (largest λΔT(n)/n is {drift:.3f}): they are "
            "above the fluid inventory, which keeps each class stable while the others are",
            *found.caveats,
        ),
    )
