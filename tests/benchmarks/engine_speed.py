"""Iterations per second of the compiled engine on one core, with full statistics.

Prompt 512, output 20, 20 requests/s, τ = 11.4 ms + 0.43 µs per KV token: about 5 residents.
Run by ``make bench``; prints one line per policy.
"""

from __future__ import annotations

import time

from fluid.iteration import IterationTime
from fluid.server import Server, load_server
from fluid.workload import RequestClass, Workload
from validation.policies import parse_policy
from validation.simulator import cpu
from validation.simulator.model import poisson_model

REQUESTS, REPLICATIONS, ROUNDS = 100_000, 4, 5


def main() -> None:
    chat = RequestClass(name="chat", rate_per_s=20.0, prefill_tokens=512, decode_tokens=20)
    server = Server(
        name="bench",
        source="benchmark",
        kv_capacity_tokens=118_784,
        iteration_time=IterationTime.paper(0.0114, 0.43e-6),
    )
    model = poisson_model(Workload(name="bench", classes=(chat,)), server)
    for name in ("greedy", "greedy:watermark=0.05,pace=0.5,cap=50", "wait:thresholds=1"):
        policy = parse_policy(name)
        jobs = [cpu.Job(policy, replication) for replication in range(REPLICATIONS)]
        cpu.run(model, jobs, requests=1000, threads=1)
        best = 0.0
        for _ in range(ROUNDS):
            start = time.perf_counter()
            done = cpu.run(model, jobs, REQUESTS, threads=1)
            seconds = time.perf_counter() - start
            best = max(best, sum(one.iterations for one in done) / seconds)
        print(f"{name}: {best / 1e6:.2f} million iterations/s on one core")
    blocks()


def blocks() -> None:
    """Block-granular vllm-v1 at about 20 residents, on one core and on two."""
    chat = RequestClass(name="chat", rate_per_s=20.0, prefill_tokens=512, decode_tokens=20)
    workload = Workload(name="bench", classes=(chat,))
    model = poisson_model(workload, load_server("a100-80gb-llama-2-7b"))
    jobs = [cpu.Job(parse_policy("vllm-v1"), replication) for replication in range(40)]
    cpu.run(model, jobs[:1], requests=500)
    best = {1: float("inf"), 2: float("inf")}
    for _ in range(ROUNDS):
        for threads in best:
            start = time.perf_counter()
            done = cpu.run(model, jobs, 20_000, threads)
            best[threads] = min(best[threads], time.perf_counter() - start)
    speed = sum(one.iterations for one in done) / best[1] / 1e6
    print(f"vllm-v1, 16-token blocks: {speed:.2f} million iterations/s on one core")
    print(f"two threads: {best[1] / best[2]:.2f} times as fast")


if __name__ == "__main__":
    main()
