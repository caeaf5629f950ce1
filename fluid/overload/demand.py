"""What a request takes of a server at the edge of its stable region (THEORY 12.1).

a_j = w_j + d0·m_j/C for an affine f (THEORY 2.3). For any other f the work is what one more request
adds at the edge, and the rest of that iteration falls on the KV held; at the edge Σ λ_j a_j is 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fluid.errors import InputError
from fluid.server import Server, require_fits
from fluid.steady.intake import intake
from fluid.steady.stability import curve_stability
from fluid.workload import Workload

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Demand:
    """A mix in front of servers that always have work.

    Attributes:
        mix: Share of each class in the arrivals, shape (m,).
        prompts: l_j in tokens, shape (m,).
        relative: a_j ÷ its mean over the mix, shape (m,).
        saturated_per_s: μ, completions per second of all servers together.
    """

    mix: Floats
    prompts: Floats
    relative: Floats
    saturated_per_s: float

    @property
    def variation(self) -> float:
        """c, coefficient of variation of a over requests."""
        return self.spread(self.relative)

    def spread(self, values: Floats) -> float:
        """Standard deviation of a figure of the classes over requests."""
        variance = float(self.mix @ values**2) - float(self.mix @ values) ** 2
        return math.sqrt(max(variance, 0.0))


def demand(
    workload: Workload, server: Server, saturated_per_s: float | None, servers: int
) -> Demand:
    """The mix of a workload above the capacity of so many servers.

    Args:
        saturated_per_s: What one server completes with the policy that it runs; None for the fluid
            limit, which no policy exceeds.

    Raises:
        InputError: A request does not fit, a figure is out of range, or the rates are not above
            what the servers complete.
    """
    require_fits(workload, server)
    if servers < 1:
        raise InputError("servers", servers, "at least 1")
    curve = intake(workload, server)
    edge, _ = curve_stability(workload, curve)
    limit_per_s = edge.max_scale * workload.rate_per_s
    one_per_s = limit_per_s if saturated_per_s is None else saturated_per_s
    if not 0 < one_per_s <= limit_per_s * (1 + 1e-9):
        allowed = f"a rate > 0, at most the fluid limit {limit_per_s:.4g} /s of a server"
        raise InputError("saturated_per_s", saturated_per_s, allowed)
    total_per_s = one_per_s * servers
    if workload.rate_per_s <= total_per_s:
        allowed = f"more than the {total_per_s:.4g} /s completed: below that, see the equilibrium"
        raise InputError("rate_per_s", workload.rate_per_s, allowed)
    intake_s = edge.max_scale * edge.boundary_iteration_time_s
    work_s = curve.added(intake_s).request_s
    rest_s = edge.boundary_iteration_time_s - intake_s * float(workload.rates_per_s @ work_s)
    held = intake_s * curve.kv_tokens_per_s
    effort_s = work_s + rest_s * curve.memory_sums / held
    mix = workload.shares
    return Demand(
        mix=mix,
        prompts=workload.columns.prefill_tokens.astype(float),
        relative=effort_s / float(mix @ effort_s),
        saturated_per_s=total_per_s,
    )
