"""What any policy can complete (THEORY 2.3, 2.4)."""

from __future__ import annotations

import numpy as np

from fluid.steady.region import StabilityRegion
from fluid.steady.stability import stability
from validation.policies import Policy
from validation.simulator.model import poisson_model
from validation.theorems.cases import (
    completed_rates,
    gap_and_latency,
    load,
    paper_server,
    simulated,
    whole_prompts,
)
from validation.theorems.estimates import at_most, between, mean, points
from validation.theorems.statement import Effort, Estimate, Finding, Line, Plot, Policies, Statement

WORKLOAD = load((60.0, 20, 6), (20.0, 40, 12))

SERVER = paper_server(0.01, 1e-5, capacity_tokens=1_500)

OVERLOAD, LIGHT = 1.5, 0.7
"""Offered multiples of the largest stable load α*."""

LEAST_USE = 0.5
"""Below this share of the limit a policy would pass by doing next to nothing."""


def every_policy(effort: Effort, policies: Policies) -> Finding:
    """Σ μ_j a_j of the completed rates, for each policy of the registry.

    Pathwise: watched from an empty start, every completed request has passed all its stages inside
    the watch, so that no run whatever may exceed 1.
    """
    offered = WORKLOAD.at_rate(WORKLOAD.rate_per_s * OVERLOAD * _largest_scale())
    model = poisson_model(offered, SERVER)
    cost_s = StabilityRegion(offered, SERVER).normal_s
    assert cost_s is not None  # the server is affine
    requests, runs = effort.choose((3_000, 4), (20_000, 20))
    used: dict[str, Estimate] = {}
    for name, policy in policies.items():
        rates = simulated(
            model,
            whole_prompts(policy, _thresholds(policy)),
            requests,
            runs,
            effort,
            completed_rates(model),
        )
        share = rates @ cost_s
        used[name] = Estimate(float(share.mean()), float(share.min()), float(share.max()))
    x = np.arange(len(used), dtype=float)
    measures = tuple(
        between(f"{name}: Σ μ_j a_j, least to largest run", one, LEAST_USE, 1.0)
        for name, one in used.items()
    )
    lines = (
        points("Σ μ_j a_j, least to largest run", x, [*used.values()]),
        Line("limit", x, np.ones(len(x))),
    )
    return Finding(measures, Plot("", "share of the limit", lines, names=tuple(used)))


def below_the_boundary(effort: Effort, policies: Policies) -> Finding:
    """Greedy at 0.7 α* completes what arrives, so that Σ λ_j l'_j is reached."""
    offered = WORKLOAD.at_rate(WORKLOAD.rate_per_s * LIGHT * _largest_scale())
    model = poisson_model(offered, SERVER)
    horizons = (1_000, 10_000, 100_000)
    runs = effort.choose(10, 40)
    greedy = policies["greedy"].configure()
    gaps = [
        simulated(model, greedy, one, runs, effort, gap_and_latency(model))[:, 0]
        for one in horizons
    ]
    found = [mean(one) for one in gaps]
    line = points("share of arrived tokens not completed", horizons, found)
    return Finding(
        (at_most(f"gap after {horizons[-1]} requests", found[-1], 0.005),),
        Plot("requests", "throughput gap (share)", (line,), log_x=True, log_y=True),
    )


def _largest_scale() -> float:
    return stability(WORKLOAD, SERVER).max_scale


def _thresholds(policy: Policy) -> tuple[int, ...]:
    """One per class or per segment, about as many as memory holds."""
    if policy.name == "nested-cap":
        return 30, 10  # residents of the whole segment, not of each of its stages
    return (4, 2) if policy.per_segment else (4, 1)


STATEMENTS = (
    Statement(
        "region",
        "2.3",
        "Under every policy the completed rates satisfy Σ μ_j (w_j + d0 m_j/C) ≤ 1.",
        "every policy of the registry at 1.5 α*, whole prompts, 1,500 tokens of memory",
        every_policy,
    ),
    Statement(
        "throughput",
        "2.4",
        "Below the boundary Σ λ_j l'_j is reached.",
        "greedy at 0.7 α*",
        below_the_boundary,
    ),
)
