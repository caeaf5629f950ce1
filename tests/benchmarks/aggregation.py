"""Do rules that leave decoders alone agree with the reference, and with touching each of them?

Run as ``python -m tests.benchmarks.aggregation [--workloads N]``: a quarter of an hour at 300. Half
of the workloads are those of the test of agreement, half are crowds. Each is compared with the slow
reference, request by request and iteration by iteration, and with the same rule under which every
resident is touched: its times, series and figures have to be the same to the last bit, but for
means and sums over several that end at once.
"""

from __future__ import annotations

import argparse
import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fluid.result import Table as ShownTable
from fluid.result import as_text
from fluidwait.console import progress, say
from tests.support.agreement import REQUESTS, compare
from tests.support.random_cases import Case, crowded_case, random_case
from tests.validation.test_agreement import AGGREGATED
from validation.policies import POLICIES
from validation.simulator import cpu
from validation.simulator.metrics import Replication, collect
from validation.simulator.model import poisson_model
from validation.simulator.state import Lane

COLUMNS = ("policy", "workloads", "with evictions", "iterations", "aggregated", "path apart")

IN_ANOTHER_ORDER = ("mean_s", "sd_s", "sojourns_s")
"""Sums over requests: several that end at once are added in another order."""


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
    jobs = [cpu.Job(one, 0, case.seed) for one in (rule, general)]
    ran, all_touched = cpu.run_reading(model, jobs, REQUESTS, read, threads=1)
    np.testing.assert_array_equal(ran.times_s, all_touched.times_s)
    for field in dataclasses.fields(ran.figures):
        one, other = (getattr(of.figures, field.name) for of in (ran, all_touched))
        if field.name == "path":
            scale = np.maximum(np.abs(other).max(axis=0), 1e-300)
            apart = float((np.abs(one - other) / scale).max(initial=0.0))
        elif field.name in IN_ANOTHER_ORDER:
            np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-6, err_msg=field.name)
        else:
            np.testing.assert_array_equal(one, other, err_msg=field.name)
    return len(parked.series), ran.steps, apart


@dataclass(frozen=True)
class Ran:
    """What a run that is not recorded iteration by iteration leaves behind."""

    times_s: NDArray[np.float64]
    figures: Replication
    steps: int


def read(lane: Lane) -> Ran:
    """First tokens and completions, statistics, and decode steps."""
    times_s = np.stack([lane.requests["first_token_at_s"], lane.requests["completed_at_s"]])
    return Ran(times_s, collect(lane), int(lane.scalars[0]["step"]))


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
