"""Thresholds at uncertain rates: whether they hold, and what holding costs.

    python -m tests.benchmarks.uncertain_rates [enumeration] [posterior] [prices] [--wide]
                                               [--instances 300] [--seed 0] [--draws 2000]

Prints how many answers, refusals among them, equal enumeration over all corners and whole
thresholds; how often rates drawn from a posterior break the thresholds that were made for them,
against what was allowed; and the price of robustness against the uncertainty. Another seed is
another set; `--wide` draws from a wider kind. Ten minutes for the enumeration.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
from scipy.stats import binom

from fluid.errors import InfeasibleError, InputError
from fluid.server import load_server
from fluid.workload import Workload
from tests.support.builders import workload
from tests.support.uncertain_cases import (
    Case,
    case,
    missed_share,
    nested_disagreement,
    observed,
    paced_disagreement,
    wait_disagreement,
)
from thresholds.solve import solve
from thresholds.solvers.nested.nested_wait import NestedWait
from thresholds.solvers.paced.solver import Paced
from thresholds.solvers.wait.batch import full_batch
from thresholds.solvers.wait.solver import Wait
from thresholds.table import ThresholdTable
from thresholds.uncertain.rates import RateBox, RatePosterior, RateUncertainty

REQUESTS = (30, 100, 1000, 10_000)
MISSES = (0.2, 0.05, 0.01)
SHARES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5)
PARTS = ["enumeration", "posterior", "prices"]
CHECKS: dict[str, tuple[Callable[[Case], str | None], int | None]] = {
    "wait, box or budget": (wait_disagreement, None),
    "paced, box or budget": (paced_disagreement, None),
    "nested-wait, box, two lengths": (nested_disagreement, 2),
    "wait, unknown mix": (lambda one: wait_disagreement(one.of_unknown_mix()), None),
    "paced, unknown mix": (lambda one: paced_disagreement(one.of_unknown_mix()), None),
    "nested-wait, unknown mix": (lambda one: nested_disagreement(one.of_unknown_mix()), 2),
}


def by_enumeration(seed: int, instances: int, wide: bool) -> None:
    """Worst corners and whole thresholds by brute force."""
    print("Against enumeration over corners and whole thresholds:")
    for name, (check, classes) in CHECKS.items():
        right = looked = drawn = 0
        while looked < instances:
            drawn += 1
            try:
                wrong = check(case(seed + drawn, classes, wide))
            except (OverflowError, InputError):  # too many to list, or f with steps refused
                continue
            looked += 1
            right += wrong is None
            if wrong is not None:
                print(f"  {name}, instance {seed + drawn}: {wrong}", flush=True)
        print(f"  {name:32} {right} of {looked} equal", flush=True)


def by_posterior(seed: int, instances: int, draws: int) -> None:
    """Rates drawn from the posterior against the thresholds made for it."""
    print(f"Rates drawn from the posterior, {draws} each: tables, largest share that missed ÷ ε,")
    print("  and tables whose share is above ε by more than chance at 1 in 1,000 allows:")
    for solver in (Wait(objective="memory"), NestedWait(objective="memory"), Paced()):
        for allowed in MISSES:
            tables = beyond = 0
            largest = 0.0
            for k in range(instances):
                one = case(seed + k, 2 if solver.policy == "nested-wait" else None)
                load = observed(one, REQUESTS[k % len(REQUESTS)])
                posterior = RatePosterior(allowed)
                try:
                    table = solve(load, one.server, solver, uncertainty=posterior)
                except InfeasibleError:
                    continue
                tables += 1
                # α* of a load takes longer than a condition.
                number = draws // 10 if solver.policy == "paced" else draws
                share = missed_share(table, load, posterior, number, k)
                largest = max(largest, share / allowed)
                beyond += share * number > binom.ppf(0.999, number, allowed)
            print(
                f"  {solver.policy:12} ε {allowed:<5g} {tables} tables, "
                f"largest {largest:.2f}, beyond {beyond}",
                flush=True,
            )


def prices() -> None:
    """What holding costs: mean latency, KV and capacity at the given rates, by uncertainty."""
    server = load_server("paper-lmsys")
    load = workload((40.0, 200, 20), (15.0, 200, 60))
    asked: list[tuple[str, RateUncertainty | None]] = [
        *((f"box {100 * share:g} %", RateBox(share)) for share in SHARES),
        *(
            (f"{count:,} requests, ε {miss:g}", RatePosterior(miss))
            for count in (100, 1000, 10_000)
            for miss in MISSES
        ),
    ]
    print("Price of robustness, two classes on paper-lmsys: at the given rates, mean latency of")
    print("  literal WAIT and KV of its thresholds; KV of Nested WAIT; rates that may be asked")
    print("  of the practical table, share of those that are stable")
    for name, uncertainty in asked:
        observing = load
        if isinstance(uncertainty, RatePosterior):
            requests = float(name.split()[0].replace(",", ""))
            observing = load.model_copy(update={"observed_s": requests / load.rate_per_s})
        cells = []
        for solver in (Wait(), NestedWait(objective="memory"), Paced()):
            try:
                cells.append(_cell(solve(observing, server, solver, uncertainty=uncertainty), load))
            except InfeasibleError:
                cells.append("none")
        print(f"  {name:28} {' | '.join(cells)}", flush=True)


def _cell(table: ThresholdTable, load: Workload) -> str:
    n = np.array([float(one.threshold) for one in table.thresholds])
    if table.policy == "wait":
        latency_s = float(full_batch(load, table.server).mean_latency_s(n))
        return f"{latency_s:.3f} s, {table.memory.required_tokens:,.0f} tokens"
    if table.policy == "nested-wait":
        return f"{table.memory.required_tokens + table.memory.buffer_tokens:,.0f} tokens"
    return f"{load.rate_per_s / table.workload.rate_per_s:.3f}"


def main() -> None:
    """Print the tables that are asked for, all unless some are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", choices=PARTS, default=PARTS)
    parser.add_argument("--instances", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--wide", action="store_true")
    parser.add_argument("--draws", type=int, default=2000)
    asked = parser.parse_args()
    if "enumeration" in asked.parts:
        by_enumeration(asked.seed, asked.instances, asked.wide)
    if "posterior" in asked.parts:
        by_posterior(asked.seed, asked.instances // 4, asked.draws)
    if "prices" in asked.parts:
        prices()


if __name__ == "__main__":
    main()
