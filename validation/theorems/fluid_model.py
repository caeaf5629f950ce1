"""The fluid equilibrium against work-conserving service (THEORY 2.1, 2.2, 2.6, 2.7)."""

from __future__ import annotations

import numpy as np

from fluid.server import Server, load_server
from fluid.steady.equilibrium import equilibrium
from fluid.steady.fluctuation import fluctuation
from fluid.workload import Workload
from validation.policies import ConfiguredPolicy
from validation.simulator.model import Model, poisson_model
from validation.simulator.recording import LATENCY
from validation.simulator.state import Lane
from validation.theorems.cases import load, paper_server, simulated
from validation.theorems.estimates import between, contains, mean, points, slope
from validation.theorems.growth import growth_plot, rates
from validation.theorems.statement import (
    Effort,
    Finding,
    Floats,
    Line,
    Plot,
    Policies,
    Statement,
)

SHARES = (0.3, 0.5, 0.7)
"""ρ of the loads on which equilibrium figures are compared."""


def overload(effort: Effort, policies: Policies) -> Finding:
    """ρ = 1.2 with memory for everybody: latency grows like T under any rule that admits."""
    workload = load((1.0, 1, 3))
    server = paper_server(0.1, 0.2)
    horizons = (300, 1_000, 3_000, 10_000, 30_000)
    measures, series = [], {}
    for name, policy in (
        ("flow-control", policies["flow-control"].configure(thresholds=(4,))),
        ("wait-cap", policies["wait-cap"].configure(thresholds=(4,))),
        ("wait", policies["wait"].configure(thresholds=(4,))),
    ):
        model = poisson_model(workload, server)
        _, latencies = rates(model, policy, horizons, effort.choose(20, 60), effort)
        growth = slope(horizons[2:], latencies[2:])
        measures.append(between(f"{name}: slope of the latency", growth, 0.9, 1.1))
        series[f"{name}: latency"] = (latencies, 1.0)
    return Finding(tuple(measures), growth_plot(horizons, series))


def balance(effort: Effort, policies: Policies) -> Finding:
    """Mean iteration time and KV per iteration. Both are exact in the mean by conservation."""
    measures = []
    seconds, expected_s = [], []
    for share in SHARES:
        workload, server = _loaded(share)
        model, runs = poisson_model(workload, server), effort.choose(40, 200)
        found = _per_iteration(model, policies["greedy"].configure(), runs, effort)
        fluid = equilibrium(workload, server)
        assert fluid.iteration_time_s is not None
        assert fluid.kv_tokens is not None
        duration, kv = mean(found[:, 0]), mean(found[:, 1])
        measures += [
            contains(f"mean iteration, s, ρ = {share}", duration, fluid.iteration_time_s, 0.03),
            contains(f"mean KV, tokens, ρ = {share}", kv, fluid.kv_tokens, 0.03),
        ]
        seconds.append(duration)
        expected_s.append(fluid.iteration_time_s)
    lines = (
        points("simulated", SHARES, seconds),
        Line("d0/(1 − ρ)", np.array(SHARES), np.array(expected_s)),
    )
    return Finding(tuple(measures), Plot("ρ", "mean iteration (s)", lines))


def lumps(effort: Effort, policies: Policies) -> Finding:
    """A server whose τ is flat at first: prompts come in lumps, which a mean does not show."""
    server = load_server("a100-80gb-llama-2-7b")
    rates_per_s = (10.0, 15.0, 20.0)
    measures, observed, poisson, plain = [], [], [], []
    for rate in rates_per_s:
        workload = load((rate, 512, 20))
        model, runs = poisson_model(workload, server), effort.choose(20, 60)
        duration_s = _per_iteration(model, policies["greedy"].configure(), runs, effort)[:, 0]
        expected_s = equilibrium(workload, server, "poisson").iteration_time_s
        of_mean_s = equilibrium(workload, server, "mean").iteration_time_s
        assert expected_s is not None
        assert of_mean_s is not None
        words = f"÷ simulated, {rate:g}/s"
        measures += [
            between(f"E[τ] {words}", mean(expected_s / duration_s), 0.9, 1.1),
            between(f"τ of the mean {words}", mean(of_mean_s / duration_s), 0.4, 0.8),
        ]
        observed.append(mean(duration_s))
        poisson.append(expected_s)
        plain.append(of_mean_s)
    x = np.array(rates_per_s)
    lines = (
        points("simulated", x, observed),
        Line("ΔT = E[τ]", x, np.array(poisson)),
        Line("ΔT = τ of the mean composition", x, np.array(plain)),
    )
    return Finding(tuple(measures), Plot("requests/s", "mean iteration (s)", lines))


def delays(effort: Effort, policies: Policies) -> Finding:
    """Mean latency by the first and by the second order, and the variance of resident KV."""
    measures, first, second, observed = [], [], [], []
    for share in SHARES:
        workload, server = _loaded(share)
        model = poisson_model(workload, server)
        runs = effort.choose(160, 500)
        found = _per_iteration(model, policies["greedy"].configure(), runs, effort)
        plain = equilibrium(workload, server).first_order
        refined = fluctuation(workload, server)
        assert plain is not None
        latency = mean(found[:, 3])
        order1 = mean(found[:, 3] / plain.latency_s)
        order2 = mean(found[:, 3] / refined.latency_s)
        about_mean = found[:, 2] + (found[:, 1] - refined.kv_mean_tokens) ** 2
        variance = mean(about_mean / refined.kv_sd_tokens**2)
        measures += [
            between(f"simulated ÷ first order, ρ = {share}", order1, 0.97, 1.03),
            between(f"simulated ÷ second order, ρ = {share}", order2, 0.988, 1.012),
            between(f"simulated ÷ variance of KV, ρ = {share}", variance, 0.9, 1.1),
        ]
        first.append(plain.latency_s)
        second.append(refined.latency_s)
        observed.append(latency)
    x = np.array(SHARES)
    lines = (
        points("simulated", x, observed),
        Line("first order (2.6)", x, np.array(first)),
        Line("second order (2.7)", x, np.array(second)),
    )
    return Finding(tuple(measures), Plot("ρ", "mean latency (s)", lines))


def _loaded(share: float) -> tuple[Workload, Server]:
    """Two classes that meet the conditions of 2.6 at a share of the work that can be done."""
    server = paper_server(0.01, 5e-6)
    base = load((3.0, 20, 12), (1.0, 40, 24))
    return base.at_rate(base.rate_per_s * share / equilibrium(base, server).utilisation), server


def _per_iteration(model: Model, policy: ConfiguredPolicy, runs: int, effort: Effort) -> Floats:
    """Mean duration, mean and variance of KV per iteration, mean latency; a row per replication.

    Of the last three quarters of the watch; idle time is no iteration.
    """

    def read(lane: Lane) -> tuple[float, ...]:
        end_s = float(lane.scalars[0]["window_end_s"])
        start_s = float(lane.scalars[0]["window_start_s"])
        clock_s = lane.series[: int(lane.scalars[0]["iterations"]), 0]
        first, last = np.searchsorted(clock_s, (start_s, end_s))
        kv_tokens = lane.series[first:last, 1]
        duration_s = float(lane.scalars[0]["busy_s"]) / (last - first)
        count, total_s = lane.sums[:, LATENCY, :2].sum(axis=0)
        return duration_s, kv_tokens.mean(), kv_tokens.var(), total_s / count

    requests = 40_000
    return simulated(model, policy, requests, runs, effort, read, series_rows=10 * requests)


STATEMENTS = (
    Statement(
        "overload",
        "2.1",
        "With ρ ≥ 1 no policy of whole prompts is stable, whatever the memory: latency grows "
        "like T.",
        "flow-control, wait-cap and wait at ρ = 1.2 with unlimited memory",
        overload,
    ),
    Statement(
        "balance",
        "2.2",
        "The mean iteration lasts ΔT* = d0/(1 − ρ) and holds M* tokens.",
        "greedy, 20/12 and 40/24, ρ from 0.3 to 0.7, unlimited memory",
        balance,
    ),
    Statement(
        "lumps",
        "2.5",
        "For a staircase f, E[τ] with Poisson prompts is within 10 %; τ of the mean composition is "
        "20 to 59 % too low.",
        "greedy, 512/20 at 10 to 20/s on a100-80gb-llama-2-7b",
        lumps,
    ),
    Statement(
        "delays",
        "2.6, 2.7",
        "First-order latency within 3 %; second order within 1.2 %, variance of KV within 10 %.",
        "greedy on the same loads",
        delays,
    ),
)
