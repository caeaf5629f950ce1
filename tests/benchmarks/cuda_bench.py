"""The simulator on a GPU: agreement with the CPU on random workloads, then speed and memory.

Run as ``python -m tests.benchmarks.cuda_bench`` where ``fluidwait[cuda]`` and a GPU are present:

1. Every policy on random small workloads: iterations, evictions and completions equal to the CPU's,
   means within 1e-9.
2. Greedy on prompt 512, output 20 at 20 requests/s, 100,000 replications: iterations per second,
   the first launch with its compilation, registers and local memory per thread, bytes per
   replication.
"""

from __future__ import annotations

import os
import random
import sys
import time

import numpy as np
from numba import cuda as numba_cuda

from fluid.iteration import IterationTime
from fluid.server import Server
from fluid.workload import RequestClass, Workload
from validation.policies import POLICIES
from validation.simulator import cpu, cuda
from validation.simulator.metrics import Replication
from validation.simulator.model import Model, poisson_model
from validation.simulator.run import why_no_cuda

WORKLOADS, SMALL_REQUESTS = 20, 300
REPLICATIONS, REQUESTS, CPU_REPLICATIONS = 100_000, 2_000, 64

COUNTS = ("iterations", "evictions", "completed", "unfinished", "tokens_decoded", "kv_max_tokens")
FIGURES = ("window_s", "kv_mean_tokens", "residents_mean", "mean_s", "sd_s")


def random_model(rng: random.Random) -> Model:
    """A server with memory for a few requests of one to three classes, near its limit."""
    classes = tuple(
        RequestClass(
            name=f"class-{index}",
            rate_per_s=rng.uniform(0.2, 4.0),
            prefill_tokens=rng.randint(1, 30),
            decode_tokens=rng.randint(1, 25),
        )
        for index in range(rng.randint(1, 3))
    )
    server = Server(
        name="small",
        source="benchmark",
        kv_capacity_tokens=64 * rng.randint(1, 6),
        block_tokens=rng.choice([1, 4, 16]),
        iteration_time=IterationTime.affine(rng.uniform(0.01, 0.1), 1e-3, 1e-4),
    )
    return poisson_model(Workload(name="random", classes=classes), server)


def differences(one: Replication, two: Replication) -> list[str]:
    """Names of the figures that are not the same."""
    counts = [name for name in COUNTS if getattr(one, name) != getattr(two, name)]
    figures = [
        name
        for name in FIGURES
        if not np.allclose(getattr(one, name), getattr(two, name), rtol=1e-9, equal_nan=True)
    ]
    return counts + figures


def agreement(name: str) -> int:
    """Print how often CUDA and CPU agree on one policy; returns the number of disagreements."""
    rng = random.Random(name)
    policy = POLICIES[name]
    bad, evictions = 0, 0
    for number in range(WORKLOADS):
        model = random_model(rng)
        segments = len(np.unique(model.shapes["output_tokens"]))
        needed = model.classes if policy.per_class else segments if policy.per_segment else 0
        configured = policy.configure({}, tuple(rng.randint(1, 3) for _ in range(needed)))
        jobs = [cpu.Job(configured, replication, seed=number) for replication in range(8)]
        here, there = (one.run(model, jobs, SMALL_REQUESTS) for one in (cpu, cuda))
        for one, two in zip(here, there, strict=True):
            evictions += one.evictions
            different = differences(one, two)
            bad += bool(different)
            if different:
                print(f"  {name}, workload {number}: {', '.join(different)} differ")
    runs = 8 * WORKLOADS
    print(f"{name}: {runs - bad} of {runs} replications agree ({evictions} evictions)")
    return bad


def speed() -> None:
    """Print what greedy on the chat-like class takes."""
    chat = RequestClass(name="chat", rate_per_s=20.0, prefill_tokens=512, decode_tokens=20)
    server = Server(
        name="bench",
        source="benchmark",
        kv_capacity_tokens=118_784,
        iteration_time=IterationTime.paper(0.0114, 0.43e-6),
    )
    model = poisson_model(Workload(name="bench", classes=(chat,)), server)
    policy = POLICIES["greedy"]
    jobs = [cpu.Job(policy.configure(), replication) for replication in range(REPLICATIONS)]
    start = time.perf_counter()
    cuda.run(model, jobs[:1], REQUESTS)
    print(f"first launch, one replication: {time.perf_counter() - start:.1f} s")
    kernel = cuda.compiled(policy)
    print(f"registers per thread: {list(kernel.get_regs_per_thread().values())}")
    print(f"local bytes per thread: {list(kernel.get_local_mem_per_thread().values())}")
    print(f"bytes per replication: {cuda.bytes_per_replication(model, REQUESTS):,}")
    for device, part in (("cuda", jobs), ("cpu", jobs[:CPU_REPLICATIONS])):
        run = cuda.run if device == "cuda" else cpu.run
        start = time.perf_counter()
        done = run(model, part, REQUESTS)
        seconds = time.perf_counter() - start
        rate = sum(one.iterations for one in done) / seconds
        print(f"{device}: {len(part):,} × {REQUESTS:,} requests, collected, in {seconds:.2f} s")
        print(f"{device}: {rate / 1e6:.1f} million iterations/s")


def main() -> int:
    missing = why_no_cuda()
    if missing:
        print(f"no CUDA device: {missing}")
        return 2
    print(f"device: {numba_cuda.get_current_device().name}, {os.cpu_count()} CPU cores")
    bad = sum(agreement(name) for name in POLICIES)
    speed()
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
