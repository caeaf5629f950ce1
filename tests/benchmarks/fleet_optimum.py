"""Cheapest fleets against enumeration of all cheaper ones.

    python -m tests.benchmarks.fleet_optimum [--instances 300] [--first-seed 0]

Random fleets of two to eight affine types and one or two classes, half of them with prices that
differ from what a server carries by 1e-6 to 1e-3 only. Prints how many are dearer than the cheapest
one by half-spaces (THEORY 2.3), by how much, and how many are proven to be the cheapest: first
where every server holds dozens of requests, then where some hold a few only, and `fleet` asks for a
schedule that is known to carry its part. Two minutes.
"""

from __future__ import annotations

import argparse

import numpy as np

from fluid.errors import InfeasibleError
from tests.support.fleet_cases import FleetCase, excess, random_fleet


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--instances", type=int, default=300)
    parser.add_argument("--first-seed", type=int, default=0)
    chosen = parser.parse_args()
    for name, roomy in (("memory for many", True), ("any memory", False)):
        seeds = range(chosen.first_seed, chosen.first_seed + chosen.instances)
        _report(name, [random_fleet(seed, roomy) for seed in seeds])


def _report(name: str, cases: list[FleetCase]) -> None:
    found, infeasible = [], 0
    for one in cases:
        try:
            found.append(excess(one))
        except InfeasibleError:
            infeasible += 1
    above, gaps = np.array(found).T
    print(f"{name}: {len(found)} instances ({infeasible} more are infeasible)")
    print(f"  dearer than the cheapest  {(above > 1e-9).sum()}, by at most {above.max():.2e}")
    print(f"  proven to be the cheapest {(gaps <= 1e-9).sum()}")
    print(f"  proven but dearer         {((gaps <= 1e-9) & (above > 1e-9)).sum()}")
    print(f"  largest gap stated        {gaps.max():.2e}", flush=True)


if __name__ == "__main__":
    main()
