"""Nested WAIT and its safety buffer (THEORY 4.5, 4.7, 5.2)."""

from __future__ import annotations

import numpy as np

from thresholds.solvers.nested.memory_law import queues_law
from thresholds.solvers.nested.requirement import (
    boundary_exponent,
    chain_holds,
    log_term,
    nested_memory,
)
from thresholds.solvers.nested.segments import Lengths, Segments, distinct_lengths
from validation.policies import ConfiguredPolicy
from validation.simulator.model import Model, poisson_model
from validation.simulator.state import Lane
from validation.theorems.cases import load, paper_server, simulated
from validation.theorems.estimates import (
    at_least,
    at_most,
    between,
    contains,
    exact,
    points,
    share,
    slope,
    slope_is,
)
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

WORKLOAD = load((0.5, 10, 2), (0.3, 10, 4), (0.2, 10, 6))

THRESHOLDS = (10, 6, 3)
"""p = 1/2 and 2/5 below n_k/n_{k−1} = 3/5 and 1/2."""

OVERHEAD_S = 8.0

SERVER = paper_server(OVERHEAD_S, 0.003)

HORIZON_S = 400 * OVERHEAD_S

PROBABILITIES = (0.2, 0.1, 0.05, 0.02, 0.01)

TWO_LENGTHS = load((0.5, 10, 2), (0.5, 10, 6))
"""One boundary, so that the law of the most KV is exact."""

MANY_LENGTHS = load(*((0.4 * 0.6**k, 10, 5 * (k + 1)) for k in range(6)))

SEGMENTED_OVERHEAD_S = 10.0


def overflow(effort: Effort, policies: Policies) -> Finding:
    """How often KV exceeds the capacity of Theorem 2 over a horizon, for several δ.

    The paths are those of unlimited memory: until the first overflow they are the same.
    """
    segments = _segments(distinct_lengths(WORKLOAD, SERVER))
    policy = policies["nested-wait"].configure(thresholds=THRESHOLDS)
    most = most_kv(
        poisson_model(WORKLOAD, SERVER), policy, HORIZON_S, effort.choose(1_500, 5_000), effort
    )
    capacities = [_capacity(segments, one) for one in PROBABILITIES]
    shares = [share(most > one) for one in capacities]
    memory = nested_memory(THRESHOLDS, segments, 0.0)
    bare = share(most > float(memory.base))
    queues_only = share(most > float(memory.base + memory.deterministic_buffer))
    measures = [
        at_most(f"share of runs that overflow, δ = {delta}", one, delta)
        for delta, one in zip(PROBABILITIES, shares, strict=True)
    ]
    least = max(PROBABILITIES)
    measures += [
        at_least("without any buffer, C = M(n)", bare, least),
        at_least("with n_k at each boundary, without the logarithm", queues_only, least),
    ]
    x = np.array(PROBABILITIES)
    lines = (
        points("with the buffer", x, shares),
        points("with n_k at each boundary only", x, [queues_only] * len(x)),
        points("without any buffer", x, [bare] * len(x)),
        Line("δ", x, x),
    )
    return Finding(tuple(measures), Plot("δ", "share of runs that overflow", lines, log_x=True))


def queue_law(effort: Effort, policies: Policies) -> Finding:
    """How often KV exceeds the least capacity that the law of the boundary queue allows for δ."""
    segments = _segments(distinct_lengths(TWO_LENGTHS, SERVER))
    thresholds = THRESHOLDS[:2]
    law = queues_law(thresholds, segments, HORIZON_S)
    assert law is not None
    policy = policies["nested-wait"].configure(thresholds=thresholds)
    model = poisson_model(TWO_LENGTHS, SERVER)
    runs = effort.choose(1_000, 10_000)
    most = most_kv(model, policy, HORIZON_S, runs, effort)
    wanted = effort.choose((0.2, 0.05), (0.2, 0.05, 0.01, 0.001))
    measures, chances, shares = [], [], []
    for delta in wanted:
        tokens = law.least_tokens(delta)
        chances.append(law.overflow(tokens))
        shares.append(share(most > tokens))
        width = 6 / np.sqrt(runs * chances[-1])
        name = f"share of runs that overflow, least KV for δ = {delta}"
        measures.append(contains(name, shares[-1], chances[-1], width))
        log = log_term(2, HORIZON_S, OVERHEAD_S, delta)
        theorem = float(nested_memory(thresholds, segments, log).total)
        measures.append(at_most(f"that KV ÷ Theorem 2's, δ = {delta}", exact(tokens / theorem), 1))
    lines = (
        points("simulated", wanted, shares),
        Line("law", np.array(wanted), np.array(chances)),
        Line("δ", np.array(wanted), np.array(wanted)),
    )
    plot = Plot("δ", "share of runs that overflow", lines, log_x=True, log_y=True)
    return Finding(tuple(measures), plot)


def nested_rates(effort: Effort, policies: Policies) -> Finding:
    """Gap and latency in the memory that the buffer asks for."""
    horizons = effort.choose(QUICK_HORIZONS, FULL_HORIZONS)
    segments = _segments(distinct_lengths(WORKLOAD, SERVER))
    longest_s = horizons[-1] / WORKLOAD.rate_per_s
    log = log_term(segments.count, longest_s, OVERHEAD_S, 0.01)
    tokens = int(np.ceil(nested_memory(THRESHOLDS, segments, log).total))
    server = SERVER.model_copy(update={"kv_capacity_tokens": tokens})
    policy = policies["nested-wait"].configure(thresholds=THRESHOLDS)
    runs = effort.choose(60, 100)
    gaps, latencies = rates(poisson_model(WORKLOAD, server), policy, horizons, runs, effort)
    return Finding(
        (
            slope_is("slope of the throughput gap", slope(horizons, gaps), -1.0, "−1"),
            between("slope of the latency", slope(horizons, latencies), -FLAT, FLAT),
        ),
        growth_plot(horizons, {"gap": (gaps, -1.0), "latency": (latencies, 0.0)}),
    )


def conditions(effort: Effort, policies: Policies) -> Finding:
    """Latency where both conditions hold, where the chain breaks, and where drift breaks."""
    model = poisson_model(WORKLOAD, SERVER)
    slow = poisson_model(WORKLOAD, paper_server(11.0, 0.003))
    horizons = (1_000, 3_000, 10_000, 30_000)
    measures, series = [], {}
    for name, case, thresholds in (
        ("both hold", model, THRESHOLDS),
        ("n_2/n_1 < p_2", model, (10, 4, 3)),
        ("ΔT(n) > n_1/Λ_1", slow, THRESHOLDS),
    ):
        policy = policies["nested-wait"].configure(thresholds=thresholds)
        _, latencies = rates(case, policy, horizons, effort.choose(12, 40), effort)
        growth = slope(horizons[1:], latencies[1:])
        target = 0.0 if name == "both hold" else 1.0
        words = f"slope of the latency, {name}"
        measures.append(between(words, growth, target - 3 * FLAT, target + 3 * FLAT))
        series[f"latency, {name}"] = (latencies, target)
    return Finding(tuple(measures), growth_plot(horizons, series))


def exponent_bound(effort: Effort, policies: Policies) -> Finding:
    """θ ÷ 8(r − p) on a grid that reaches into the corners."""
    p = np.concatenate([np.geomspace(1e-6, 0.5, 200), 1 - np.geomspace(1e-6, 0.5, 200)[::-1]])
    parts = np.concatenate([np.geomspace(1e-3, 0.5, 60), 1 - np.geomspace(1e-3, 0.5, 60)[::-1]])
    survivals, part = np.meshgrid(p, parts)
    r = survivals + part * (1 - survivals)
    ratio = boundary_exponent(r, survivals) / (8 * (r - survivals))
    known = r - survivals >= 1e-6  # where the root is accurate
    least = float(ratio[known].min())
    lines = [Line("1", p, np.ones(len(p)))]
    for one in (0.01, 0.1, 0.5):
        gap = one * (1 - p)
        lines.append(Line(f"r = p + {one:g}(1 − p)", p, boundary_exponent(p + gap, p) / (8 * gap)))
    return Finding(
        (at_least("least θ ÷ 8(r − p)", exact(least), 1.0),),
        Plot("p", "θ ÷ 8(r − p)", tuple(lines), log_y=True),
    )


def merged_segments(effort: Effort, policies: Policies) -> Finding:
    """Six lengths merged into L segments: buffers keep their promise; least memory in between."""
    server = paper_server(SEGMENTED_OVERHEAD_S, 1e-5)
    lengths = distinct_lengths(MANY_LENGTHS, server)
    model = poisson_model(MANY_LENGTHS, server)
    delta, horizon_s = 0.1, 3_000.0
    measures = []
    base, buffers = [], []
    counts = range(1, len(lengths.outputs) + 1)
    for count in counts:
        ends = np.round(np.arange(1, count + 1) * len(counts) / count).astype(int) - 1
        segments = lengths.segments(ends)
        thresholds = _spread_thresholds(segments, 10)
        log = log_term(count, horizon_s, SEGMENTED_OVERHEAD_S, delta)
        memory = nested_memory(thresholds, segments, log)
        assert chain_holds(thresholds, segments)
        assert segments.load(thresholds) < 1
        cuts = tuple(int(one) for one in segments.cuts)
        policy = policies["nested-wait"].configure(thresholds=thresholds, cuts=cuts)
        most = most_kv(model, policy, horizon_s, effort.choose(110, 400), effort)
        found = share(most > float(memory.total))
        measures.append(at_most(f"share of runs that overflow, L = {count}", found, delta))
        base.append(float(memory.base))
        buffers.append(float(memory.buffer))
    measures.append(at_most("base memory: largest step up in L", exact(max(np.diff(base))), 0.0))
    measures.append(at_least("buffers: least step up in L", exact(min(np.diff(buffers))), 0.0))
    total = np.add(base, buffers)
    best = int(np.argmin(total)) + 1
    measures.append(between("L of least memory", exact(best), 2, len(counts) - 1))
    x = np.array(counts, dtype=float)
    lines = (
        Line("base memory M(n)", x, np.array(base)),
        Line("buffers", x, np.array(buffers)),
        Line("both", x, total),
    )
    return Finding(tuple(measures), Plot("segments L", "KV tokens", lines))


def _spread_thresholds(segments: Segments, first: int) -> tuple[int, ...]:
    """n_1 as given, each later one half way between what drift needs and the one before."""
    found = [first]
    for survival in segments.survivals:
        found.append(round(found[-1] * (1 + survival) / 2))
    return tuple(found)


def _segments(lengths: Lengths) -> Segments:
    """A segment per length."""
    return lengths.segments(np.arange(len(lengths.outputs)))


def _capacity(segments: Segments, probability: float) -> float:
    log = log_term(segments.count, HORIZON_S, OVERHEAD_S, probability)
    return float(nested_memory(THRESHOLDS, segments, log).total)


def most_kv(
    model: Model, policy: ConfiguredPolicy, horizon_s: float, runs: int, effort: Effort
) -> Floats:
    """Most KV held up to the horizon, one figure per run."""
    arrivals = model.rate_per_s * horizon_s
    requests = round(arrivals + 8 * np.sqrt(arrivals))

    def read(lane: Lane) -> tuple[float]:
        rows = min(int(lane.scalars[0]["iterations"]), len(lane.series))
        path = lane.series[:rows]
        return (float(path[path[:, 0] <= horizon_s, 1].max()),)

    found = simulated(model, policy, requests, runs, effort, read, series_rows=2 * requests)
    return found[:, 0]


STATEMENTS = (
    Statement(
        "overflow",
        "4.5",
        "Theorem 2: with the buffer, KV overflows in at most a share δ of the runs over [0, T].",
        "nested-wait, outputs 2/4/6, n = 10/6/3, T = 400·d0, δ from 0.2 to 0.01",
        overflow,
    ),
    Statement(
        "queue-law",
        "4.5",
        "The law of the boundary queue is exact: KV overflows in the share of runs that it gives.",
        "nested-wait, outputs 2/6, n = 10/6, the least memory for δ from 0.2 to 0.001",
        queue_law,
    ),
    Statement(
        "nested-rates",
        "4.5",
        "Theorem 2: throughput gap O(1/(ζT)), delays O(1).",
        "nested-wait on the case of `overflow`, memory for δ = 0.01",
        nested_rates,
    ),
    Statement(
        "nested-conditions",
        "4.3",
        "Delays are bounded if ΔT(n) < n_1/Λ_1 and p_k < n_k/n_{k−1} < 1; each is needed here.",
        "nested-wait on the case of `overflow`, with n_2 = 4, and with d0 = 11 s",
        conditions,
    ),
    Statement(
        "exponent",
        "4.7",
        "θ ≥ 8(r − p), the bound behind the geometric program as THEORY writes it.",
        "the exact root on a grid of p and r, 10⁻⁶ from the corners",
        exponent_bound,
    ),
    Statement(
        "segments",
        "5.2",
        "Merged segments keep the buffer's promise. On this example, not by a theorem, base memory "
        "falls and buffers grow with L.",
        "nested-wait, six lengths in L = 1 … 6 segments, δ = 0.1",
        merged_segments,
    ),
)
