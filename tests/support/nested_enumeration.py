"""Every design of a small instance of Nested WAIT: all cut sets, all whole thresholds; slow."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from fluid.errors import InfeasibleError
from fluid.iteration import IterationTime
from fluid.server import Server
from fluid.steady.equilibrium import equilibrium
from fluid.workload import Workload
from tests.support.builders import workload
from tests.support.nested_cases import decreasing
from thresholds.solvers.nested.nested_wait import NestedWait
from thresholds.solvers.nested.requirement import (
    chain_holds,
    log_term,
    mean_latency_s,
    mean_ttft_s,
    nested_memory,
)
from thresholds.solvers.nested.segments import Segments, distinct_lengths

OBJECTIVES = ("latency", "ttft", "memory", "slack", "rate")

_MOST_DESIGNS = 400_000
_STRICT = 1e-9
_WIDER = 1.5
"""Designs of up to so many times the memory are listed, for the least that would do."""


@dataclass(frozen=True)
class Enumerated:
    """The best value of each objective over all designs, infinite where none is feasible.

    Attributes:
        values: By objective; of "slack" the load, of "rate" requests per second.
        least_tokens: Least KV of all for which drift and the chain hold, if within the largest
            thresholds that were looked at; infinite otherwise.
    """

    values: dict[str, float]
    least_tokens: float


def small_instance(seed: int, wide: bool = False) -> tuple[Workload, Server, NestedWait]:
    """Two to six output lengths on a server with room for some dozens of requests.

    Affine and staircase servers, both conventions, blocks, prompts that differ or not, a given
    number of segments or any; some four in ten are infeasible. All designs can be listed. Wide:
    also one class, equal and duplicate ones, prompts of one token, rates that differ a millionfold,
    f that is constant, and servers with room for a few requests only.
    """
    rng = np.random.default_rng(seed)
    while True:
        load, server, solver = _drawn(rng, wide)
        try:
            for _ in _rooms(load, server, solver):
                pass
        except OverflowError:
            continue
        return load, server, solver


def _drawn(rng: np.random.Generator, wide: bool) -> tuple[Workload, Server, NestedWait]:
    m = int(rng.integers(1 if wide else 2, 7))
    most = int(rng.choice([1, 2, 4, 24])) if wide else 24
    outputs = np.sort(rng.choice(np.arange(1, most + 1), m, replace=wide))
    longest = int(rng.choice([2, 40, 200]))
    prompts = rng.integers(1, longest, m) if rng.random() < 0.5 else np.full(m, longest)
    rates = rng.uniform(0.3, 5.0, m) * rng.uniform(0.6, 1.1) ** np.arange(m)
    if wide:
        prompts = np.ones(m, dtype=int) if rng.random() < 0.3 else prompts
        rates = 10 ** rng.uniform(-3, 3, m) if rng.random() < 0.5 else rates
    load = workload(
        *((float(a), int(b), int(c)) for a, b, c in zip(rates, prompts, outputs, strict=True))
    )
    overhead_s = float(rng.uniform(2e-3, 3e-2))
    tau = IterationTime.affine(
        overhead_s, rng.uniform(1e-6, 3e-4), rng.uniform(1e-8, 2e-5), rng.uniform(0, 3e-5)
    )
    if rng.random() < 0.3:
        knots = np.cumsum(rng.integers(8, 200, 4)).astype(float)
        seconds = overhead_s + np.cumsum(rng.uniform(0, 5e-3, 5))
        tau = IterationTime(
            tokens_knots=(0.0, knots[0], knots[0], *knots[1:]),
            seconds_knots=(overhead_s, *seconds),
            per_kv_token_s=1e-7,
        )
    if wide and rng.random() < 0.2:
        tau = IterationTime.affine(overhead_s, 0.0)
    least_room = 2 if wide else 8
    longest_request = longest + int(outputs[-1])
    server = Server(
        name="small",
        source="test",
        kv_capacity_tokens=int(longest_request * rng.uniform(least_room, 130)) + 16,
        block_tokens=int(rng.choice([1, 16])),
        first_token=("prefill", "decode")[int(rng.integers(2))],
        iteration_time=tau,
    )
    load = load.scaled(float(equilibrium(load, server).max_scale * rng.uniform(0.15, 0.95)))
    solver = NestedWait(
        segments=int(rng.integers(1, len(np.unique(outputs)) + 1)) if rng.random() < 0.4 else None,
        overflow_probability=float(10 ** rng.uniform(-4, -0.5)),
        horizon_s=float(10 ** rng.uniform(0, 4)),
        prompts=("worst", "weighted")[int(rng.integers(2))],
        time_limit_s=600.0,
    )
    return load, server, solver


def _rooms(
    load: Workload, server: Server, solver: NestedWait
) -> Iterator[tuple[Segments, float, int]]:
    """Each cut set with its K and the largest n_1 whose full batch fits into 1.5 times the memory.

    Raises:
        OverflowError: Too many designs.
    """
    lengths = distinct_lengths(load, server, solver.prompts)
    last = len(lengths.outputs) - 1
    for count in range(1, last + 2):
        if solver.segments not in (None, count):
            continue
        overhead_s = server.iteration_time.overhead_s
        log = log_term(count, solver.horizon_s, overhead_s, solver.overflow_probability)
        for inner in itertools.combinations(range(last), count - 1):
            segments = lengths.segments([*inner, last])
            smallest = np.arange(count, 0, -1.0)
            room = _WIDER * server.usable_kv_tokens - float(segments.memory_tokens @ smallest)
            if room < 0:
                continue
            largest = int(count + room / segments.memory_tokens[0])
            if math.comb(largest, count) > _MOST_DESIGNS:
                raise OverflowError
            yield segments, log, largest


def enumerated(load: Workload, server: Server, solver: NestedWait) -> Enumerated:
    """The optimum of every objective."""
    capacity = server.usable_kv_tokens
    best = dict.fromkeys(("latency", "ttft", "memory", "slack"), math.inf)
    least = math.inf
    for segments, log, largest in _rooms(load, server, solver):
        n = decreasing(segments.count, largest)
        needed = nested_memory(n, segments, log).total
        drift = segments.load(n) <= 1 - _STRICT
        allowed = drift & chain_holds(n, segments)
        least = min(least, float(needed[allowed].min(initial=math.inf)))
        fits = allowed & (needed <= capacity)
        for name, values in (
            ("latency", mean_latency_s(n, segments)),
            ("ttft", mean_ttft_s(n, segments)),
            ("memory", needed),
            ("slack", segments.load(n)),
        ):
            best[name] = min(best[name], float(values[fits].min(initial=math.inf)))
    rate = load.rate_per_s / best["slack"] if best["slack"] < math.inf else math.inf
    return Enumerated(best | {"rate": rate}, least if least <= _WIDER * capacity else math.inf)


def disagreement(
    load: Workload, server: Server, solver: NestedWait, truth: Enumerated | None = None
) -> str | None:
    """What is wrong with the solver's table, or its refusal; None where it is right."""
    truth = truth or enumerated(load, server, solver)
    expected = truth.values[solver.objective]
    try:
        report = solver.solve(load, server).solver
    except InfeasibleError as error:
        if math.isfinite(expected):
            return f"refused, but {expected:g} is possible"
        if math.isinf(truth.least_tokens):
            return None
        least = f"at least {math.ceil(truth.least_tokens)} KV tokens"
        return None if least in str(error) else f"{error}; in truth {least}"
    assert report.objective is not None
    if not math.isclose(report.objective, expected, rel_tol=1e-8):
        return f"{report.objective:g} instead of {expected:g}"
    return None if report.optimality_gap == 0 else f"gap {report.optimality_gap}, yet optimal"
