"""How gaps and latencies grow with the horizon: what the statements about rates have in common."""

from __future__ import annotations

import numpy as np

from validation.policies import ConfiguredPolicy
from validation.simulator.model import Model
from validation.theorems.cases import gap_and_latency, simulated
from validation.theorems.estimates import mean, points
from validation.theorems.statement import Effort, Floats, Line, Plot

QUICK_HORIZONS = (1_000, 3_000, 10_000, 30_000, 100_000)
FULL_HORIZONS = tuple(3 * one for one in QUICK_HORIZONS)
"""Requests per run, over two decades."""

FLAT = 0.05
"""A slope whose interval stays inside ± this grows by less than 26 % over two decades."""


def rates(
    model: Model, policy: ConfiguredPolicy, horizons: tuple[int, ...], runs: int, effort: Effort
) -> tuple[list[Floats], list[Floats]]:
    """Throughput gaps and latencies by horizon, independent, each of shape (replications,)."""
    read = gap_and_latency(model)
    found = [
        simulated(model, policy, one, runs, effort, read, sample=sample)
        for sample, one in enumerate(horizons)
    ]
    return [one[:, 0] for one in found], [one[:, 1] for one in found]


def growth_plot(horizons: tuple[int, ...], series: dict[str, tuple[list[Floats], float]]) -> Plot:
    """Means over the horizon, each with a straight line of its expected slope."""
    x = np.array(horizons, dtype=float)
    lines: list[Line] = []
    for label, (samples, expected) in series.items():
        found = points(label, x, [mean(one) for one in samples])
        lines += [found, Line(f"slope {expected:g}", x, found.y[-1] * (x / x[-1]) ** expected)]
    return Plot("requests, ∝ ζT", "gap (share), latency (s)", tuple(lines), True, True)
