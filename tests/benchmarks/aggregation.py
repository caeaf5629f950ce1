"""Do rules that leave decoders alone agree with the reference, and with touching each of them?

Run as ``python -m tests.benchmarks.aggregation [--workloads N]``: a quarter of an hour at 300. Half
of the workloads are those of the test of agreement, half are crowds. Each is compared with the slow
reference, request by request and iteration by iteration, and with the same rule under which every
resident is touched: its times and series have to be the same to the last bit.
"""

from __future__ import annotations

import argparse

import numpy as np

from fluid.result import Table as ShownTable
from fluid.result import as_text
from fluidwait.console import progress, say
from tests.support.random_cases import Case, crowded_case, random_case
from tests.validation.test_agreement import AGGREGATED, REQUESTS, compare
from validation.policies import POLICIES
from validation.simulator import cpu
from validation.simulator.model import poisson_model

COLUMNS = ("policy", "workloads", "with evictions", "iterations", "aggregated", "path apart")


def compared(case: Case) -> tuple[int, int, float]:
    """Iterations, decode steps without touching anybody, and how far the paths are apart.

    Raises:
        AssertionError: Another time, eviction or iteration than where every resident is touched.
    """
    model = poisson_model(case.workload, case.server, case.arrivals)
    rule = case.policy
    general = rule.policy.general.configure(rule.values, rule.thresholds, rule.cuts)
    parked, each = (
        cpu.run_traced(model, cpu.Job(one, 0, case.seed), REQUESTS) for one in (rule, general)
    )
    for name in ("first_token_at_s", "completed_at_s", "evicted_times", "series"):
        np.testing.assert_array_equal(getattr(parked, name), getattr(each, name), err_msg=name)
    job = cpu.Job(rule, 0, case.seed)
    (steps,) = cpu.run_reading(model, [job], REQUESTS, lambda lane: int(lane.scalars[0]["step"]))
    scale = np.maximum(np.abs(each.backlog).max(axis=0), 1e-300)
    apart = float((np.abs(parked.backlog - each.backlog) / scale).max(initial=0.0))
    return len(parked.series), steps, apart


def row(name: str, workloads: int) -> tuple[str, ...]:
    """All workloads of one policy."""
    evicted, iterations, aggregated, apart = 0, 0, 0, 0.0
    for number in range(workloads):
        make = random_case if number % 2 else crowded_case
        case = make(name, 10_000 + number)
        evicted += compare(case) > 0
        found = compared(case)
        iterations += found[0]
        aggregated += found[1]
        apart = max(apart, found[2])
    return (
        name,
        f"{workloads:,}",
        f"{evicted:,}",
        f"{iterations:,}",
        f"{aggregated / iterations:.0%}",
        f"{apart:.0e}",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workloads", type=int, default=300, help="of each policy")
    parser.add_argument("--policies", nargs="+", default=AGGREGATED, choices=POLICIES)
    given = parser.parse_args()
    rows = []
    with progress("agreement", len(given.policies)) as advance:
        for name in given.policies:
            rows.append(row(name, given.workloads))
            advance()
    say(as_text([ShownTable("Agreement without touching decoders", COLUMNS, tuple(rows))]))


if __name__ == "__main__":
    main()
