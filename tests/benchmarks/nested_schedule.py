"""Nested WAIT under a schedule whose rates and mix vary: overflows against what is certified.

    python -m tests.benchmarks.nested_schedule [--runs 2000] [--cases 200]

First the compiled rule against the slow one on random schedules, request by request. Then, for
profiles of three windows, the memory that THEORY 5.1 asks for with δ = 0.2 … 0.01, the share of
runs from an empty start that exceed it, and what 99 % of the runs stay below: under the schedule,
and under the worst of its windows held all the time. Two minutes.
"""

from __future__ import annotations

import argparse

import numpy as np
from scipy import stats

from fluid.server import Server
from fluid.workload import RatePiece, Workload
from tests.support.schedules import disagreement, random_case
from thresholds.schedule import Schedule
from thresholds.solve import solve
from thresholds.solvers.nested.nested_wait import NestedWait
from validation.experiments.following import policy_of
from validation.policies import ConfiguredPolicy
from validation.policies.scheduled import scheduled
from validation.simulator.model import poisson_model
from validation.theorems.cases import load, paper_server
from validation.theorems.nested_buffer import most_kv
from validation.theorems.statement import LEVEL, Effort, Floats

OVERHEAD_S = 8.0
WINDOW_S = 800.0
HORIZON_S = 4_800.0
PROBABILITIES = (0.2, 0.05, 0.01)

Pieces = tuple[tuple[float, dict[str, float]], ...]

PROFILES: dict[str, Pieces] = {
    "rates swing by half": ((1.0, {}), (0.5, {}), (0.75, {})),
    "the mix turns": (
        (1.0, {"c0": 0.4, "c2": 2.0}),
        (1.0, {"c0": 1.6, "c2": 0.3}),
        (1.0, {"c1": 0.5}),
    ),
    "both": ((1.0, {"c0": 0.8, "c2": 1.4}), (0.5, {"c0": 1.5, "c2": 0.4}), (0.8, {"c1": 1.5})),
}


def profiled(workload: Workload, pieces: Pieces) -> Workload:
    """The workload under windows of equal length, over and over."""
    profile = tuple(
        RatePiece(start_s=k * WINDOW_S, multiplier=times, class_multipliers=classes or None)
        for k, (times, classes) in enumerate(pieces)
    )
    changes = {"rate_profile": profile, "period_s": len(pieces) * WINDOW_S}
    return workload.model_copy(update=changes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=2_000)
    parser.add_argument("--cases", type=int, default=200)
    chosen = parser.parse_args()
    worst = max(disagreement(random_case(number)) for number in range(chosen.cases))
    print(
        f"compiled against slow, {chosen.cases} schedules: times differ by at most {worst:.1g} s\n"
    )
    base = load((0.5, 10, 2), (0.3, 10, 4), (0.2, 10, 6))
    server = paper_server(OVERHEAD_S, 0.001)
    print("| profile | n by window | δ | KV asked | exceed it | 99 % below | worst window held |")
    print("|---|---|---|---|---|---|---|")
    for name, pieces in PROFILES.items():
        workload = profiled(base, pieces)
        for chance in PROBABILITIES:
            solver = NestedWait(
                segments=3, overflow_probability=chance, horizon_s=HORIZON_S, objective="memory"
            )
            found = solve(workload, server, solver)
            assert isinstance(found, Schedule)
            assert found.hand_over is not None
            asked = (1 - found.hand_over.slack) * server.usable_kv_tokens
            tables = [one.table for one in found.windows]
            n = [[int(one.threshold) for one in table.thresholds] for table in tables]
            most = _most(workload, server, scheduled(found), chosen.runs)
            held = [
                _most(table.workload, server, policy_of(table), chosen.runs) for table in tables
            ]
            shown = " ".join("/".join(map(str, one)) for one in n)
            worst_kv = max(np.quantile(one, 0.99) for one in held)
            print(
                f"| {name} | {shown} | {chance} | {asked:.0f} | {_share(most > asked)} "
                f"| {np.quantile(most, 0.99):.0f} | {worst_kv:.0f} |",
                flush=True,
            )


def _most(workload: Workload, server: Server, policy: ConfiguredPolicy, runs: int) -> Floats:
    """Most KV up to the horizon, shape (runs,)."""
    return most_kv(poisson_model(workload, server), policy, HORIZON_S, runs, Effort())


def _share(events: np.ndarray) -> str:
    found = stats.binomtest(int(events.sum()), len(events)).proportion_ci(LEVEL, "exact")
    return f"{events.mean():.2g} [{found.low:.2g}, {found.high:.2g}]"


if __name__ == "__main__":
    main()
