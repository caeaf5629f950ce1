"""How fast WAIT's throughput gap closes and its latency grows (THEORY 3.3, 3.6)."""

from __future__ import annotations

import numpy as np

from validation.simulator.model import poisson_model
from validation.theorems.cases import (
    load,
    one_class,
    paper_server,
    whole_prompts,
)
from validation.theorems.estimates import between, points, slope, slope_is, would_see
from validation.theorems.growth import FLAT, FULL_HORIZONS, QUICK_HORIZONS, growth_plot, rates
from validation.theorems.statement import (
    Effort,
    Estimate,
    Finding,
    Line,
    Measure,
    Plot,
    Policies,
    Statement,
)

D1_S = 0.1


def boundary(effort: Effort, policies: Policies) -> Finding:
    """One class with λ·ΔT(n) = n = 1: the batch is always full, the queue a walk without drift."""
    server = paper_server(1 - 3 * D1_S, D1_S)
    model = poisson_model(one_class(), server)
    horizons = effort.choose(QUICK_HORIZONS, FULL_HORIZONS)
    policy = policies["wait"].configure(thresholds=(1,))
    gaps, latencies = rates(model, policy, horizons, effort.choose(120, 200), effort)
    delays = [one - 2.0 for one in latencies]
    return Finding(
        (
            slope_is("slope of the throughput gap", slope(horizons, gaps), -0.5, "−1/2"),
            slope_is("slope of the latency beyond S·ΔT(n)", slope(horizons, delays), 0.5, "+1/2"),
        ),
        growth_plot(horizons, {"gap": (gaps, -0.5), "latency − S·ΔT(n)": (delays, 0.5)}),
    )


def slack(effort: Effort, policies: Policies) -> Finding:
    """Two classes whose full batch takes 80 % of the time in which n_j requests arrive."""
    server = paper_server(1.0, 0.05)
    model = poisson_model(load((1.0, 1, 2), (0.5, 1, 3)), server)
    horizons = effort.choose(QUICK_HORIZONS, FULL_HORIZONS)
    policy = policies["wait"].configure(thresholds=(2, 1))
    gaps, latencies = rates(model, policy, horizons, effort.choose(120, 200), effort)
    growth = slope(horizons, latencies)
    return Finding(
        (
            slope_is("slope of the throughput gap", slope(horizons, gaps), -1.0, "−1"),
            between("slope of the latency", growth, -FLAT, FLAT),
        ),
        growth_plot(horizons, {"gap": (gaps, -1.0), "latency": (latencies, 0.0)}),
    )


def no_policy_is_faster(effort: Effort, policies: Policies) -> Finding:
    """C = M* = 3 tokens with n* = 1: the latency of every policy grows at least like √(ζT)."""
    server = paper_server(1 - 3 * D1_S, D1_S, capacity_tokens=3)
    model = poisson_model(one_class(), server)
    horizons = effort.choose((2_000, 20_000), (5_000, 50_000))
    names = effort.choose(("greedy", "wait", "vllm-v1"), tuple(policies))
    found: dict[str, Estimate] = {}
    measures = []
    for name in names:
        policy = whole_prompts(policies[name], (1,))
        gaps, latencies = rates(model, policy, horizons, 150, effort)
        found[name] = slope(horizons, [one - 2.0 for one in latencies])
        label = f"{name}: slope of latency (gap {gaps[-1].mean():.3f} at the end)"
        measures.append(_not_below_half(label, found[name]))
    x = np.arange(len(found), dtype=float)
    slopes = points("slope of the latency", x, [*found.values()])
    lines = (slopes, Line("1/2", x, np.full(len(x), 0.5)))
    return Finding(tuple(measures), Plot("", "slope", lines, names=tuple(found)))


def _not_below_half(name: str, found: Estimate) -> Measure:
    return Measure(name, found, "interval reaches 1/2", found.high >= 0.5, would_see(found))


STATEMENTS = (
    Statement(
        "wait-boundary",
        "3.3",
        "Theorem 1 without slack: throughput gap O((ζT)^−½), latency O((ζT)^½).",
        "wait, one class, prompt 1, output 2, n = 1 = λ·ΔT(n), unlimited memory",
        boundary,
    ),
    Statement(
        "wait-slack",
        "3.3",
        "Theorem 1 with strict slack: throughput gap O(1/(ζT)), latency O(1).",
        "wait, outputs 2 and 3 at 1 and 0.5/s, n = 2/1, λ_j·ΔT(n)/n_j = 0.8",
        slack,
    ),
    Statement(
        "sqrt-latency",
        "3.6",
        "At C = M* with whole n*, a policy whose gap vanishes has latency Ω((ζT)^½); any other "
        "one that grows faster.",
        "policies of the registry, one class, n* = 1, C = M* = 3 tokens",
        no_policy_is_faster,
    ),
)
