"""Cheapest fleets against enumeration of all cheaper ones.

    python -m tests.benchmarks.fleet_optimum [--instances 300] [--first-seed 0]

Random fleets of two to eight affine types and one or two classes, half of them with prices that
differ from what a server carries by 1e-6 to 1e-3 only. Prints how many are dearer than the cheapest
one, by how much, and how many are proven to be the cheapest. Two minutes.
"""

from __future__ import annotations

import argparse

import numpy as np

from fluid.errors import InfeasibleError
from tests.support.fleet_cases import excess, random_fleet


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--instances", type=int, default=300)
    parser.add_argument("--first-seed", type=int, default=0)
    chosen = parser.parse_args()
    found, infeasible = [], 0
    for seed in range(chosen.first_seed, chosen.first_seed + chosen.instances):
        try:
            found.append(excess(random_fleet(seed)))
        except InfeasibleError:
            infeasible += 1
    above, gaps = np.array(found).T
    print(f"instances                 {len(found)} ({infeasible} more are infeasible)")
    print(f"dearer than the cheapest  {(above > 1e-9).sum()}, by at most {above.max():.2e}")
    print(f"proven to be the cheapest {(gaps <= 1e-9).sum()}")
    print(f"proven but dearer         {((gaps <= 1e-9) & (above > 1e-9)).sum()}")
    print(f"largest gap stated        {gaps.max():.2e}")


if __name__ == "__main__":
    main()
