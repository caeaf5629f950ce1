"""Whether "optimal" means optimal: Nested WAIT against enumeration and on 20 lengths, and prices.

    python -m tests.benchmarks.optimality [--instances 300] [--seed 10000] [--limit-s 10]

Prints, for random small instances, how many of each objective's answers, refusals among them, equal
enumeration over all cut sets and whole thresholds; for ten committed instances of 20 lengths with
free cuts the gap that is proven within the time limit; for random instances of literal WAIT how
many prices of each kind lie between the one-sided slopes. Another seed is another set.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

from fluid.server import Server
from fluid.workload import Workload
from tests.support.nested_enumeration import OBJECTIVES, disagreement, enumerated, small_instance
from tests.support.price_cases import price_checks, price_instance
from thresholds.solvers.nested.nested_wait import NestedWait

TWENTY = Path(__file__).parents[1] / "data" / "nested-twenty-lengths.json"


def by_objective(seed: int, instances: int) -> None:
    """Nested WAIT against enumeration."""
    right, wrong = Counter[str](), []
    infeasible = 0
    for one in range(seed, seed + instances):
        load, server, solver = small_instance(one)
        infeasible += enumerated(load, server, solver).values["latency"] == float("inf")
        for objective in OBJECTIVES:
            found = disagreement(load, server, replace(solver, objective=objective))
            right[objective] += found is None
            if found is not None:
                wrong.append(f"{objective} of instance {one}: {found}")
    print(f"Nested WAIT against enumeration, {infeasible} of {instances} instances infeasible:")
    for one in OBJECTIVES:
        print(f"  {one:20} {right[one]} of {instances} equal")
    print(*wrong, sep="\n", flush=True)


def twenty_lengths(limit_s: float) -> None:
    """The gap that is left on the committed instances."""
    print(f"Nested WAIT, 20 lengths, free cuts, least mean latency within {limit_s:g} s:")
    for one in json.loads(TWENTY.read_text(encoding="utf-8")):
        load = Workload.from_document(one["workload"])
        server = Server.from_document(one["server"])
        started = time.perf_counter()
        table = NestedWait(time_limit_s=limit_s).solve(load, server)
        seconds = time.perf_counter() - started
        gap, value = table.solver.optimality_gap, table.solver.objective
        shown = "none" if gap is None else f"{100 * gap:.3f} %"
        print(
            f"  {load.name:26} {value:.4f} s with {len(table.thresholds):2} segments, "
            f"gap {shown}, {seconds:.1f} s",
            flush=True,
        )


def by_price(seed: int, instances: int) -> None:
    """Prices of literal WAIT against one-sided differences."""
    right, all_ = Counter[str](), Counter[str]()
    for one in range(seed, seed + instances):
        for check in price_checks(*price_instance(one)):
            kind = check.of.split(" of ")[0]
            all_[kind] += 1
            right[kind] += check.holds
            if not check.holds:
                print(f"  instance {one}: {check}")
    print(f"Prices of literal WAIT, {instances} instances, between the slopes to both sides:")
    for kind in sorted(all_):
        print(f"  {kind:20} {right[kind]} of {all_[kind]} right", flush=True)


def main() -> None:
    """Print the three tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--instances", type=int, default=300)
    parser.add_argument("--seed", type=int, default=10_000)
    parser.add_argument("--limit-s", type=float, default=10.0)
    given = parser.parse_args()
    twenty_lengths(given.limit_s)
    by_objective(given.seed, given.instances)
    by_price(given.seed, given.instances)


if __name__ == "__main__":
    main()
