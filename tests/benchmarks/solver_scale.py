"""Speed of the threshold solvers at scale: ``python tests/benchmarks/solver_scale.py``."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from fluid.server import load_server
from fluid.workload import RequestClass, Workload
from thresholds.nested import log_term
from thresholds.problem import Problem
from thresholds.segments import distinct_lengths
from thresholds.solve import solve
from thresholds.solvers.segment_design import DesignRule, best_designs

SERVER = load_server("paper-long-decode")


def seconds(work: Callable[[], object], repeats: int = 3) -> float:
    """Best of several runs, after one that compiles."""
    work()
    spent = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        spent.append(time.perf_counter() - start)
    return min(spent)


def geometric_lengths(count: int, step: int, rate_per_s: float) -> Workload:
    """Outputs step, 2·step, …, each a fixed share rarer than the one before."""
    shares = 0.01 ** (np.arange(count) / count)
    classes = tuple(
        RequestClass(
            name=f"c{k}",
            rate_per_s=float(rate_per_s * share / shares.sum()),
            prefill_tokens=100,
            decode_tokens=step * (k + 1),
        )
        for k, share in enumerate(shares)
    )
    return Workload(name=f"{count} lengths", classes=classes)


def nested() -> None:
    server = SERVER.model_copy(update={"kv_capacity_tokens": 4_000_000})
    load = geometric_lengths(20, 10, 5.0)
    for objective in ("latency", "memory"):
        problem = Problem(load, server, "nested-wait", objective, segments=20)
        spent = seconds(lambda problem=problem: solve(problem))
        print(f"nested-wait, L = 20, {objective:8} {spent:8.3f} s   (target: 0.5)")


def segment_design() -> None:
    lengths = distinct_lengths(geometric_lengths(8192, 1, 5.0), SERVER)
    log = log_term(32, 3600.0, SERVER.iteration_time.overhead_s, 0.01)
    rule = DesignRule(first_threshold=60.0, margin=0.3)
    spent = seconds(lambda: best_designs(lengths, log, rule, 32))
    print(f"cuts among 8,192 lengths, L ≤ 32   {spent:8.3f} s   (target: 5)")


def whole_table() -> None:
    server = SERVER.model_copy(update={"kv_capacity_tokens": 40_000_000})
    problem = Problem(geometric_lengths(8192, 1, 0.2), server, "nested-wait", "memory", segments=3)
    spent = seconds(lambda: solve(problem), repeats=1)
    print(f"nested-wait, 8,192 lengths, L = 3  {spent:8.3f} s")


if __name__ == "__main__":
    nested()
    segment_design()
    whole_table()
