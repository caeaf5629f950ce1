"""WAIT and Nested WAIT under rates that vary over time (THEORY 5.1)."""

from __future__ import annotations

import numpy as np

from fluid.workload import RatePiece, Workload
from thresholds.solvers.wait.batch import full_batch
from validation.policies import ConfiguredPolicy
from validation.simulator.model import Model, poisson_model
from validation.simulator.state import Lane
from validation.theorems.cases import load, one_class, paper_server, simulated
from validation.theorems.estimates import at_most, between, exact, mean, points, slope, slope_is
from validation.theorems.growth import FLAT, FULL_HORIZONS, QUICK_HORIZONS, growth_plot, rates
from validation.theorems.statement import (
    Effort,
    Finding,
    Floats,
    Line,
    Plot,
    Policies,
    Statement,
)

SERVER = paper_server(1.0, 0.05)

TWO_CLASSES = load((1.0, 1, 2), (0.5, 1, 3))

THRESHOLDS = (2, 1)

BUSY = 1.2
"""Multiplier of the busier half of a period."""

PERIOD_S = 100.0

SPELLS_S = (300.0, 1_000.0, 3_000.0, 10_000.0)

LULLS_S = (30.0, 100.0, 300.0, 1_000.0)


def profile(workload: Workload, pieces: dict[float, float], period_s: float) -> Workload:
    """The workload with a periodic profile of multipliers by their start in seconds."""
    rate_profile = tuple(RatePiece(start_s=s, multiplier=m) for s, m in pieces.items())
    return workload.model_copy(update={"rate_profile": rate_profile, "period_s": period_s})


def conditions_hold(effort: Effort, policies: Policies) -> Finding:
    """Rates that swing by half, with A(t, ΔT) < n_j at all times."""
    workload = profile(TWO_CLASSES, {0.0: BUSY, PERIOD_S / 2: 2 - BUSY}, PERIOD_S)
    busiest = full_batch(TWO_CLASSES, SERVER).loads(np.array(THRESHOLDS, dtype=float)) * BUSY
    horizons = effort.choose(QUICK_HORIZONS, FULL_HORIZONS)
    policy = policies["wait"].configure(thresholds=THRESHOLDS)
    gaps, latencies = rates(
        poisson_model(workload, SERVER), policy, horizons, effort.choose(120, 200), effort
    )
    return Finding(
        (
            at_most("largest A(t, ΔT)/n_j", exact(float(busiest.max())), 0.99),
            slope_is("slope of the throughput gap", slope(horizons, gaps), -1.0, "−1"),
            between("slope of the latency", slope(horizons, latencies), -FLAT, FLAT),
        ),
        growth_plot(horizons, {"gap": (gaps, -1.0), "latency": (latencies, 0.0)}),
    )


def nested_conditions_hold(effort: Effort, policies: Policies) -> Finding:
    """The same for unknown lengths: the mix does not vary, so that p_k does not either."""
    workload = profile(
        load((0.5, 10, 2), (0.3, 10, 4), (0.2, 10, 6)),
        {0.0: BUSY, PERIOD_S / 2: 2 - BUSY},
        PERIOD_S,
    )
    horizons = effort.choose(QUICK_HORIZONS, FULL_HORIZONS)
    policy = policies["nested-wait"].configure(thresholds=(10, 6, 3))
    model = poisson_model(workload, paper_server(6.0, 0.003))
    gaps, latencies = rates(model, policy, horizons, effort.choose(60, 100), effort)
    return Finding(
        (
            slope_is("slope of the throughput gap", slope(horizons, gaps), -1.0, "−1"),
            between("slope of the latency", slope(horizons, latencies), -FLAT, FLAT),
        ),
        growth_plot(horizons, {"gap": (gaps, -1.0), "latency": (latencies, 0.0)}),
    )


def busy_spells(effort: Effort, policies: Policies) -> Finding:
    """A(t, ΔT) > n in half of each period, below n on average: delays grow with the period."""
    policy = policies["wait"].configure(thresholds=(2,))
    server = paper_server(1.0, 0.1)  # λ·ΔT(n)/n = 0.8
    worst = []
    for sample, period_s in enumerate(SPELLS_S):
        workload = profile(one_class(), {0.0: 1.6, period_s / 2: 0.4}, period_s)
        requests = round(10 * period_s)
        runs = effort.choose(20, 60)
        model = poisson_model(workload, server)
        worst.append(_longest(model, policy, requests, runs, effort, sample))
    return _growth_finding("period", SPELLS_S, worst)


def lulls(effort: Effort, policies: Policies) -> Finding:
    """Conditions of 4.3 hold, but nobody arrives for a while: who waits for n waits that long."""
    policy = policies["wait"].configure(thresholds=(3,))
    server = paper_server(2.1, 0.03)  # λ·ΔT(n)/n = 0.79
    worst = []
    for sample, lull_s in enumerate(LULLS_S):
        workload = profile(one_class(), {0.0: 1.0, 300.0: 0.0}, 300.0 + lull_s)
        runs = effort.choose(20, 60)
        model = poisson_model(workload, server)
        worst.append(_longest(model, policy, 6_000, runs, effort, sample))
    return _growth_finding("lull", LULLS_S, worst)


def _longest(
    model: Model, policy: ConfiguredPolicy, requests: int, runs: int, effort: Effort, sample: int
) -> Floats:
    """Longest latency of the requests that completed, in seconds, shape (replications,)."""

    def read(lane: Lane) -> tuple[float]:
        latency_s = lane.requests["completed_at_s"] - lane.requests["arrived_at_s"]
        return (float(np.nanmax(latency_s)),)

    return simulated(model, policy, requests, runs, effort, read, sample=sample)[:, 0]


def _growth_finding(what: str, lengths_s: tuple[float, ...], worst: list[Floats]) -> Finding:
    """The longest latency grows in proportion; the first length is too short to show it."""
    growth = slope(lengths_s[1:], worst[1:])
    x = np.array(lengths_s)
    lines = (
        points("longest latency", x, [mean(one) for one in worst]),
        Line(f"the {what} itself", x, x),
    )
    return Finding(
        (between(f"slope of the longest latency over the {what}", growth, 0.8, 1.2),),
        Plot(f"{what} (s)", "longest latency (s)", lines, True, True),
    )


STATEMENTS = (
    Statement(
        "varying",
        "5.1",
        "With A(t, ΔT) < n_j at all times, gap O(1/(ζT)) and delays O(1).",
        "wait, two classes whose rates swing by ±20 % every 100 s",
        conditions_hold,
    ),
    Statement(
        "varying-nested",
        "5.1",
        "The same for Nested WAIT.",
        "nested-wait, outputs 2/4/6, rates that swing by ±20 % every 100 s",
        nested_conditions_hold,
    ),
    Statement(
        "busy-spells",
        "5.1",
        "A(t, ΔT) < n_j on average is not enough: delays grow with the spells that exceed it.",
        "wait, one class, λ·ΔT(n)/n = 0.8 on average, 1.28 in half of each period",
        busy_spells,
    ),
    Statement(
        "lulls",
        "5.1",
        "Delays are bounded only if the time to collect n arrivals is: a lull delays all of it.",
        "wait, one class, n = 3, no arrivals for 30 to 1,000 s after every 300 s",
        lulls,
    ),
)
