"""The bracket of the largest rates where few requests share the memory (THEORY 2.3).

    python -m tests.benchmarks.packing_bounds [--servers 50] [--first-seed 0]

Prints, for random servers with room for 2 to 20 of the largest requests: inner ÷ fluid bound, what
the inner bound's schedule serves iteration by iteration ÷ what it promises, and how many policies
are called stable 3 % above the fluid bound. Then inner bound ÷ exact optimum for as many tiny
servers. Ten minutes.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from fluid.stages import class_stages
from fluid.steady.packing import Packing, packing
from tests.support.packing_cases import (
    PackingCase,
    exact_scale,
    random_packing,
    served_share,
    tiny_packing,
)
from validation.experiments.simulate import simulate
from validation.simulator.model import poisson_model
from validation.simulator.runs import Runs

POLICIES = ("greedy", "greedy:watermark=0.05", "mc-sf", "svf", "a-min")
ABOVE = 1.03
RUNS = Runs(replications=4, requests=6_000)


def served(found: Packing, case: PackingCase) -> float:
    longest = max(class_stages(one, case.server).count for one in case.workload.classes)
    iterations = 150 * longest * len(found.schedule)
    each_s = max(one.pattern.seconds / one.pattern.iterations for one in found.schedule)
    return served_share(found, case, iterations * each_s)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--servers", type=int, default=50)
    parser.add_argument("--first-seed", type=int, default=0)
    chosen = parser.parse_args()
    seeds = range(chosen.first_seed, chosen.first_seed + chosen.servers)
    ratios, shares, seconds, above = [], [], [], 0
    print("seed  classes  room for  inner/fluid  served/promised  stable above")
    for seed in seeds:
        case = random_packing(seed)
        start = time.perf_counter()
        found = packing(case.workload, case.server)
        seconds.append(time.perf_counter() - start)
        ratios.append(found.inner_scale / found.fluid_scale)
        if found.schedule:
            shares.append(served(found, case))
        rate = ABOVE * found.fluid_scale * case.workload.rate_per_s
        results = simulate(poisson_model(case.workload, case.server), POLICIES, RUNS, rate)
        stable = sum(one.verdict == "stable" for one in results)
        above += stable
        share = f"{shares[-1]:.4f}" if found.schedule else "not needed"
        row = (
            f"{seed:4}  {len(case.workload.classes):7}  {found.cap_requests:8}  {ratios[-1]:11.4f}"
        )
        print(f"{row}  {share:>15}  {stable:12}", flush=True)
    print(f"inner ÷ fluid bound         {_spread(ratios)}")
    print(f"served ÷ promised           {_spread(shares)}, of {len(shares)} schedules")
    print(f"stable above the bound      {above} of {len(seeds) * len(POLICIES)} runs")
    print(f"seconds to find             {_spread(seconds)}")
    exact = []
    for seed in seeds:
        tiny = tiny_packing(seed)
        exact.append(packing(tiny.workload, tiny.server).inner_scale / exact_scale(tiny))
    print(f"inner bound ÷ exact optimum {_spread(exact)} on tiny servers")


def _spread(values: list[float]) -> str:
    return f"least {min(values):.4f}, median {np.median(values):.4f}, most {max(values):.4f}"


if __name__ == "__main__":
    main()
