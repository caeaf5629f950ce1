"""The practical form of WAIT: a pooled pace, a cap on residents and a watermark (THEORY 3.5).

The pace is the boundary inventory n^C_j = α*λ_j·ΔT*(α*λ), summed over the classes: what one
iteration takes in when the same mix runs at the edge of its stable region. It does not throttle
below the edge, and at the edge it admits exactly what the memory can carry.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fluid.equilibrium import Equilibrium, equilibrium
from fluid.server import Server
from fluid.stability import stability
from fluid.stages import class_stages, memory_sums
from fluid.workload import Workload
from thresholds.problem import Problem
from thresholds.solvers.common import (
    condition,
    new_table,
    predicted,
    require_certified,
    stability_condition,
)
from thresholds.table import (
    Memory,
    SolverReport,
    ThresholdTable,
)

CAP_HEADROOM = 1.1
WATERMARK_FRACTION = 0.01
NEAR_BOUNDARY = 0.95
_MEMORY_MATTERS = 0.5
_SPREAD_LENGTHS = 0.5


@dataclass(frozen=True)
class Limits:
    """Parameters of the paced policy (POLICIES, greedy).

    Attributes:
        pace_per_iteration: Admissions per iteration, on average at most.
        cap_requests: Requests in service at most.
        watermark_fraction: Share of the KV that admissions leave free.
    """

    pace_per_iteration: float
    cap_requests: int
    watermark_fraction: float


def paced_limits(per_stage: NDArray[np.float64], stages: NDArray[np.float64]) -> Limits:
    """Pace, cap and watermark from the boundary inventory.

    The pace is Σ n^C_j. The cap is the fluid population Σ n^C_j S_j with room for fluctuations
    (`CAP_HEADROOM`): a cap at the population itself throttles (THEORY 6.4: 90 of 135 saturates).
    The watermark leaves room for one iteration's growth: the pace holds the residents' ages apart,
    and a larger one costs capacity (512/1000: stable up to 99.8 % of the limit with 1 %, 98.4 %
    with 5 %; ``fluidwait compare --find-capacity``).

    Args:
        per_stage: n^C_j, requests per stage at the boundary, shape (m,).
        stages: S_j, shape (m,).
    """
    population = float(per_stage @ stages)
    return Limits(
        pace_per_iteration=float(per_stage.sum()),
        cap_requests=math.ceil(CAP_HEADROOM * population),
        watermark_fraction=WATERMARK_FRACTION,
    )


def solve_paced(problem: Problem, found: Equilibrium) -> ThresholdTable:
    """Pace, cap and watermark for a stable workload; closed form on top of the boundary.

    Raises:
        InfeasibleError: A condition of the certificate fails.
    """
    workload, server = problem.workload, problem.server
    per_stage = stability(workload, server).boundary_per_stage
    limits = paced_limits(per_stage, _stage_counts(workload, server))
    required = float(per_stage @ memory_sums(workload, server))
    capacity = server.usable_kv_tokens
    certificate = (
        stability_condition(found),
        condition("memory at the design rate: M* ≤ C", found.kv_tokens or 0.0, capacity),
        condition("memory at the pace: Σ n^C_j m_j ≤ C", required, capacity),
    )
    require_certified(certificate)
    return new_table(
        problem,
        params={
            "pace_per_iteration": limits.pace_per_iteration,
            "cap_requests": limits.cap_requests,
            "watermark_fraction": limits.watermark_fraction,
        },
        thresholds=per_stage.tolist(),
        memory=Memory(
            required_tokens=required,
            buffer_tokens=limits.watermark_fraction * capacity,
            capacity_tokens=capacity,
            overflow_probability=None,
        ),
        predicted=predicted(found, policy_latency_s=None),
        max_rate_per_s=found.max_scale * workload.rate_per_s,
        certificate=certificate,
        solver=SolverReport(
            name="boundary inventory", status="closed form", objective=None, optimality_gap=None
        ),
        notes=(*_notes(problem, found), *found.caveats),
    )


def _stage_counts(workload: Workload, server: Server) -> NDArray[np.float64]:
    return np.array([class_stages(one, server).count for one in workload.classes], dtype=float)


def _notes(problem: Problem, found: Equilibrium) -> tuple[str, ...]:
    """Where the pace cannot help, or may even cost."""
    notes = []
    full = _memory_near_boundary(problem, found)
    if full < _MEMORY_MATTERS:
        notes.append(
            f"{NEAR_BOUNDARY:.0%} of the largest stable rate fills only {full:.0%} of the memory: "
            "work limits this load, and pace, cap and watermark cannot raise its rate"
        )
    if found.margin < 1 - NEAR_BOUNDARY:
        notes.append(
            f"the load is within {found.margin:.1%} of the boundary: expect latencies above the "
            "fluid figures"
        )
    variation = _output_variation(problem.workload)
    if variation > _SPREAD_LENGTHS:
        notes.append(
            f"output lengths vary (coefficient of variation {variation:.2f}): ages of residents "
            "balance by themselves, so that near the boundary the pace may cost throughput"
        )
    return tuple(notes)


def _memory_near_boundary(problem: Problem, found: Equilibrium) -> float:
    """M*/C at `NEAR_BOUNDARY` of the largest stable rates; below 1, as M* = C at α* at most."""
    near = equilibrium(problem.workload.scaled(NEAR_BOUNDARY * found.max_scale), problem.server)
    return (near.kv_tokens or 0.0) / near.kv_capacity_tokens


def _output_variation(workload: Workload) -> float:
    """Standard deviation of the output length over its mean, over requests."""
    rates = np.array([one.rate_per_s for one in workload.classes])
    lengths = np.array([one.decode_tokens for one in workload.classes], dtype=float)
    mean = float(np.average(lengths, weights=rates))
    return math.sqrt(float(np.average((lengths - mean) ** 2, weights=rates))) / mean
