"""What a router does to eight servers: p99 of TTFT and TPOT, of requests alike and not.

Run with ``python -m tests.benchmarks.routers`` (seconds); docs/service-levels.md quotes it.
"""

from __future__ import annotations

import numpy as np

from fluid.iteration import IterationTime
from fluid.server import Server
from fluid.workload import Requests, Workload
from validation.policies import configured
from validation.simulator.cpu import Job, run
from validation.simulator.fleet import as_one, run_fleets
from validation.simulator.metrics import QUANTILES, Replication, collect
from validation.simulator.model import model_of
from validation.simulator.recording import TPOT, TTFT
from validation.simulator.traffic.outputs import Outputs
from validation.simulator.traffic.traffic import Traffic

SERVERS, REPLICATIONS, REQUESTS = 8, 20, 5_000
"""The last one for each server."""

GPU = Server(
    name="gpu",
    source="benchmark",
    kv_capacity_tokens=118_784,
    block_tokens=16,
    iteration_time=IterationTime.affine(0.0095, per_token_s=65e-6, per_kv_token_s=0.275e-6),
)

ALIKE = Workload.of(chat=Requests(100.0, 512, 120))
MIXED = Workload.of(chat=Requests(150.0, 128, 40), document=Requests(3.0, 6_000, 400))


def replications(router: str, load: Workload, traffic: Traffic | None) -> list[Replication]:
    """Of all servers together, or of the one that stands for them."""
    (policy,) = configured("vllm-v1")
    if router == "least-outstanding-tokens":
        jobs = [Job(policy, number) for number in range(REPLICATIONS)]
        model = model_of(load, GPU, traffic=traffic)
        requests = SERVERS * REQUESTS
        return run_fleets(model, jobs, SERVERS, requests, lambda fleet: collect(as_one(fleet)))
    arrivals = f"gamma:cv={SERVERS**-0.5}" if router == "round-robin" else None
    jobs = [Job(policy, number, rate_scale=1 / SERVERS) for number in range(REPLICATIONS)]
    return run(model_of(load, GPU, arrivals, traffic), jobs, REQUESTS)


def main() -> None:
    """Print the table."""
    geometric = Traffic(outputs=Outputs("geometric"))
    print("| load | router | p99 TTFT s | p99 TPOT s |")
    print("|---|---|---|---|")
    for name, load, traffic in (
        ("512/120", ALIKE, None),
        ("512/120, geometric outputs", ALIKE, geometric),
        ("128/40 and 6000/400", MIXED, None),
    ):
        for router in ("random", "round-robin", "least-outstanding-tokens"):
            found = replications(router, load, traffic)
            last = np.mean([one.quantile_s[-1, :, QUANTILES.index(0.99)] for one in found], axis=0)
            print(f"| {name} | {router} | {last[TTFT]:.3f} | {last[TPOT]:.4f} |", flush=True)


if __name__ == "__main__":
    main()
