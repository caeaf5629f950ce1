"""How long literal WAIT takes to solve with many classes, and how far from the optimum it can be.

python tests/benchmarks/wait_scale.py
"""

from __future__ import annotations

import time

import numpy as np

from fluid.equilibrium import equilibrium
from fluid.iteration import IterationTime
from fluid.server import Server
from fluid.workload import RequestClass, Workload
from thresholds.problem import Problem
from thresholds.solve import solve

LOAD = 0.8
"""Share of the largest stable rates."""


def random_problem(classes: int, seed: int = 0) -> Problem:
    """Short requests of random sizes on a server with room for them."""
    draw = np.random.default_rng(seed)
    workload = Workload(
        name=f"{classes} classes",
        classes=tuple(
            RequestClass(
                name=f"class {j}",
                rate_per_s=float(draw.uniform(0.5, 1.5)),
                prefill_tokens=int(draw.integers(10, 500)),
                decode_tokens=int(draw.integers(2, 50)),
            )
            for j in range(classes)
        ),
    )
    server = Server(
        name="large",
        source="benchmark",
        kv_capacity_tokens=60_000 * classes,
        iteration_time=IterationTime.affine(0.01, 4e-5, 3e-7),
    )
    scale = LOAD * equilibrium(workload, server).max_scale
    return Problem(workload.scaled(scale), server, "wait")


def main() -> None:
    print("classes   solve s   optimality gap   largest threshold")
    for classes in (10, 100, 1000, 100_000):
        problem = random_problem(classes)
        started = time.perf_counter()
        table = solve(problem)
        seconds = time.perf_counter() - started
        gap = table.solver.optimality_gap
        largest = max(one.threshold for one in table.thresholds)
        print(f"{classes:7,}   {seconds:7.2f}   {100 * (gap or 0):12.3f} %   {largest:17}")


if __name__ == "__main__":
    main()
