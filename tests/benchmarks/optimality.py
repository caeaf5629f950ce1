"""Whether "optimal" means optimal: Nested WAIT against enumeration and on 20 lengths, and prices.

    python -m tests.benchmarks.optimality [twenty] [nested] [prices] [--wide] [--instances 300]
                                          [--seed 10000] [--limit-s 10]

Prints, for random small instances, how many of each objective's answers, refusals among them, equal
enumeration over all cut sets and whole thresholds; for ten committed instances of 20 lengths with
free cuts the gap that is proven within the time limit; for random instances of literal WAIT how
many prices of each kind lie between the one-sided slopes. Another seed is another set; `--wide`
draws from a wider kind: equal and duplicate classes, prompts and outputs of one token, rates that
differ a millionfold. Ten minutes a part.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

from fluid.errors import InfeasibleError
from fluid.server import Server
from fluid.workload import Workload
from tests.support.nested_enumeration import OBJECTIVES, disagreement, enumerated, small_instance
from tests.support.price_cases import price_checks, price_instance
from thresholds.solvers.nested.nested_wait import NestedWait

TWENTY = Path(__file__).parents[1] / "data" / "nested-twenty-lengths.json"
PARTS = ["twenty", "nested", "prices"]


def by_objective(seed: int, instances: int, wide: bool) -> None:
    """Nested WAIT against enumeration."""
    right = Counter[str]()
    infeasible = 0
    for one in range(seed, seed + instances):
        load, server, solver = small_instance(one, wide)
        truth = enumerated(load, server, solver)
        infeasible += truth.values["latency"] == float("inf")
        for objective in OBJECTIVES:
            found = disagreement(load, server, replace(solver, objective=objective), truth)
            right[objective] += found is None
            if found is not None:
                print(f"  {objective} of instance {one}: {found}", flush=True)
    print(f"Nested WAIT against enumeration, {infeasible} of {instances} instances infeasible:")
    for one in OBJECTIVES:
        print(f"  {one:20} {right[one]} of {instances} equal", flush=True)


def twenty_lengths(limit_s: float) -> None:
    """The gap that is left on the committed instances."""
    print(f"Nested WAIT, 20 lengths, free cuts, least mean latency within {limit_s:g} s:")
    for one in json.loads(TWENTY.read_text(encoding="utf-8")):
        load = Workload.from_document(one["workload"])
        server = Server.from_document(one["server"])
        started = time.perf_counter()
        try:
            table = NestedWait(time_limit_s=limit_s).solve(load, server)
        except InfeasibleError as error:  # all ten have a design: the time was too short
            print(f"  {load.name:26} none found: {error}", flush=True)
            continue
        seconds = time.perf_counter() - started
        gap, value = table.solver.optimality_gap, table.solver.objective
        shown = "none" if gap is None else f"{100 * gap:.3f} %"
        print(
            f"  {load.name:26} {value:.4f} s with {len(table.thresholds):2} segments, "
            f"gap {shown}, {seconds:.1f} s",
            flush=True,
        )


def by_price(seed: int, instances: int, wide: bool) -> None:
    """Prices of literal WAIT against one-sided differences."""
    right, all_ = Counter[str](), Counter[str]()
    wrong = 0
    for one in range(seed, seed + instances):
        failed = False
        for check in price_checks(*price_instance(one, wide)):
            kind = check.of.split(" of ")[0]
            all_[kind] += 1
            right[kind] += check.holds
            if not check.holds:
                failed = True
                print(f"  instance {one}: {check}", flush=True)
        wrong += failed
    print(f"Prices of literal WAIT between the slopes to both sides, {instances} instances,")
    print(f"  {instances - wrong} of them right in all their prices:")
    for kind in sorted(all_):
        print(f"  {kind:20} {right[kind]} of {all_[kind]} right", flush=True)


def main() -> None:
    """Print the tables that are asked for, all unless some are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=PARTS, default=PARTS)
    parser.add_argument("--instances", type=int, default=300)
    parser.add_argument("--seed", type=int, default=10_000)
    parser.add_argument("--wide", action="store_true")
    parser.add_argument("--limit-s", type=float, default=10.0)
    given = parser.parse_args()
    if "twenty" in given.parts:
        twenty_lengths(given.limit_s)
    if "nested" in given.parts:
        by_objective(given.seed, given.instances, given.wide)
    if "prices" in given.parts:
        by_price(given.seed, given.instances, given.wide)


if __name__ == "__main__":
    main()
