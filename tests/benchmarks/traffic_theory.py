"""Closed loops, bounded queues and patience: THEORY 12 and 13 against simulation. A few minutes.

Run as ``python -m tests.benchmarks.traffic_theory``. Prompts of 512 tokens, outputs geometric with
mean 150 (closed loops) or 200, in forty classes of equal share; greedy admission, whose saturated
rate is simulated first.
"""

from __future__ import annotations

import math

import numpy as np

from fluid.overload.bounded_queue import bounded_queue
from fluid.overload.fixed_clients import fixed_clients
from fluid.overload.impatience import Patience, impatience
from fluid.result import Table, as_text, number
from fluid.server import load_server
from fluid.steady.stability import largest_scale
from fluid.workload import Requests, Workload
from validation.experiments.simulate import PolicyResult, simulate
from validation.simulator.model import poisson_model
from validation.simulator.runs import Runs
from validation.simulator.traffic.clients import Clients
from validation.simulator.traffic.queue_limit import QueueLimit
from validation.simulator.traffic.traffic import Traffic

SERVER = load_server("engine-long-decode")
POLICY = "greedy:watermark=0.05"
CLASSES = 40
RUNS, LONG = Runs(6, 6_000), Runs(4, 40_000)
"""A queue at 1.05 times what is completed takes 6,000 arrivals to fill, servers included."""


def geometric(mean: int, rate_per_s: float = 1.0) -> Workload:
    """Classes at the middle quantiles of a geometric law."""
    middles = (np.arange(CLASSES) + 0.5) / CLASSES
    lengths = np.ceil(np.log1p(-middles) / math.log1p(-1 / mean)).astype(int)
    each = rate_per_s / CLASSES
    return Workload.of(
        **{f"c{k}": Requests(each, 512, int(length)) for k, length in enumerate(lengths)}
    )


def simulated(load: Workload, traffic: Traffic | None, runs: Runs = RUNS) -> PolicyResult:
    return simulate(poisson_model(load, SERVER, traffic=traffic), POLICY, runs)[0]


def row(case: str, figure: str, theory: float, found: float) -> tuple[str, ...]:
    return case, figure, number(theory), number(found), f"{100 * (theory / found - 1):+.1f} %"


def closed_loops() -> list[tuple[str, ...]]:
    rows = []
    for clients, think_s in ((1, 0.0), (16, 0.0), (64, 0.0), (64, 5.0), (128, 20.0)):
        load = geometric(150)
        theory = fixed_clients(load, SERVER, clients, think_s=think_s)
        law = "exponential" if think_s else "deterministic"
        found = simulated(load, Traffic(clients=Clients(clients, think_s, law)))  # type: ignore[arg-type]
        assert found.ttft_s is not None
        assert found.tpot_s is not None
        case = f"{clients} clients, think time {think_s:g} s"
        rows.append(row(case, "completed /s", theory.completed_per_s, found.completed_per_s))
        rows.append(row("", "TTFT s", theory.ttft_s, found.ttft_s.mean))
    return rows


def overloads() -> list[tuple[str, ...]]:
    limit_per_s = largest_scale(geometric(200), SERVER)
    full = simulated(geometric(200, 1.5 * limit_per_s), None)
    saturated_per_s = full.saturated_per_s
    assert saturated_per_s is not None
    rows = [row("saturated", "completed /s", limit_per_s, saturated_per_s)]
    for over, bound in ((1.2, 200), (1.05, 50)):
        load = geometric(200, over * saturated_per_s)
        theory = bounded_queue(load, SERVER, requests=bound, saturated_per_s=saturated_per_s)
        found = simulated(load, Traffic(queue=QueueLimit(requests=bound)), LONG)
        assert found.ttft_s is not None
        case = f"at most {bound} wait, {over:g} of that rate"
        rows.append(row(case, "refused share", theory.refused_share, found.refused_share))
        rows.append(row("", "wait, TTFT s", theory.wait_mean_s, found.ttft_s.mean))
    load = geometric(200, 1.5 * saturated_per_s)
    for variation in (1.0, 0.5):
        patience = Patience(10.0, variation)
        gone = impatience(load, SERVER, patience, saturated_per_s=saturated_per_s)
        found = simulated(load, Traffic(patience=patience))
        case = f"patience 10 s, variation {variation:g}, 1.5 of that rate"
        rows.append(row(case, "given up share", gone.gave_up_share, found.gave_up_share))
    return rows


def main() -> None:
    columns = ("case", "figure", "theory", "simulated", "theory is")
    rows = (*closed_loops(), *overloads())
    print(as_text([Table("THEORY 12 and 13 against simulation", columns, rows, left=(0, 1))]))


if __name__ == "__main__":
    main()
