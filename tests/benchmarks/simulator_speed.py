"""Speed of the compiled simulator on the processor, with full statistics: see ``make bench``."""

from __future__ import annotations

import os
import time

from fluid.server import load_server
from fluid.workload import RequestClass, Workload
from tests.benchmarks.loads import (
    BYTES_PER_ITERATION,
    BYTES_PER_REQUEST,
    OUTPUT,
    PROMPT,
    model_with,
)
from tests.benchmarks.measurement import Table, alone, best_seconds
from validation.experiments.rows import grid, run_rows
from validation.policies import POLICIES, PolicyLike, configured, parse_policy
from validation.simulator import cpu
from validation.simulator.model import Model, poisson_model
from validation.simulator.runs import Runs
from validation.simulator.state import RESIDENT, SCALARS, new_lane

REQUESTS = 10_000

H100_BYTES_PER_S = 3.35e12

COMPARED = (
    "greedy",
    "greedy:watermark=0.05",
    "greedy:pace=2",
    "wait:thresholds=2",
    "vllm-v1",
    "vllm-v1:watermark=0.05",
    "vllm-v0",
    "sarathi",
)


def speed(
    model: Model,
    policy: PolicyLike,
    replications: int,
    requests: int,
    threads: int,
    rounds: int = 2,
) -> tuple[float, float]:
    """Iterations and requests per second of so many replications, of one thread by its own time."""
    (rule,) = configured(policy)
    jobs = [cpu.Job(rule, replication) for replication in range(replications)]
    iterations = sum(one.iterations for one in cpu.run(model, jobs, requests, threads))
    clock = time.process_time if threads == 1 else time.perf_counter
    seconds = best_seconds(lambda: cpu.run(model, jobs, requests, threads), rounds, clock)
    return iterations / seconds, replications * requests / seconds


def by_size() -> Table:
    """Against the number of requests in service, one thread: decoders parked, and each touched."""
    rows = []
    for residents in (5, 20, 100, 400, 1000):
        model = model_with(residents)
        for name in ("greedy", "vllm-v1"):
            policy = parse_policy(name)
            each = policy.policy.general.configure()
            iterations, requests = speed(model, policy, 10, REQUESTS, 1, rounds=8)
            each_iterations, _ = speed(model, each, 2, REQUESTS, 1, rounds=5)
            rows.append(
                (
                    f"{residents:,}",
                    name,
                    _millions(iterations),
                    f"{requests:,.0f}",
                    _millions(each_iterations),
                    f"{iterations / each_iterations:.1f}",
                )
            )
    return Table(
        "Simulator: requests in service",
        f"Prompt {PROMPT}, output {OUTPUT}, {REQUESTS:,} requests per replication, one thread; "
        "by its processor time; beside it the same rule without `form_aggregated`, which touches "
        "every resident.",
        (
            *("in service", "policy", "million iterations /s", "requests /s"),
            *("touching each: million iterations /s", "times"),
        ),
        tuple(rows),
    )


def on_paper() -> Table:
    """What iterations move, from the records that they touch."""
    rows = []
    for residents in (20, 400):
        model = model_with(residents, 2 * residents * (PROMPT + OUTPUT))
        lane = new_lane(model, 2_000)
        each = 2 * (residents * RESIDENT.itemsize + SCALARS.itemsize)
        parked = BYTES_PER_ITERATION + residents / OUTPUT * BYTES_PER_REQUEST
        rows.append(
            (
                f"{residents}",
                f"{sum(part.nbytes for part in lane):,}",
                f"{each:,}",
                f"{parked:,.0f}",
                f"{H100_BYTES_PER_S / each / 1e6:,.0f}",
                f"{H100_BYTES_PER_S / parked / 1e6:,.0f}",
            )
        )
    return Table(
        "Simulator: memory, on paper",
        "Bytes of a replication of 2,000 requests in twice the memory that its residents need at "
        "most; bytes that an iteration reads and writes, where every resident is touched and where "
        "decoders are parked: its scalars, and the records of who comes and goes. The last columns "
        "are what the memory of an H100 (3.35 TB/s) would carry, a bound and no forecast: a thread "
        "has a replication to itself, and its accesses are scattered.",
        (
            *("in service", "bytes per replication", "per iteration, each touched", "parked"),
            *("carried, each touched: million iterations /s", "carried, parked"),
        ),
        tuple(rows),
    )


def by_policy() -> Table:
    """Every policy at the same load, one thread."""
    model = model_with(20)
    ones = ["wait", "wait-cap", "wait-authors", "nested-wait", "nested-authors", "flow-control"]
    settings = dict.fromkeys(ones, "1") | {"nested-cap": "40"}
    rows = []
    for name in POLICIES:
        policy = f"{name}:thresholds={settings[name]}" if name in settings else name
        iterations, requests = speed(model, policy, 2, 2_000, threads=1)
        rows.append((f"`{policy}`", f"{iterations / 1e6:.3f}", f"{requests:,.0f}"))
    return Table(
        "Simulator: policies",
        "The same requests, about 20 in service under work-conserving rules, 2,000 requests per "
        "replication, one thread.",
        ("policy", "million iterations /s", "requests /s"),
        tuple(rows),
    )


def by_replications() -> Table:
    """Against replications and threads, with the memory that they take."""
    cores = os.cpu_count() or 1
    rows = []
    for threads in sorted({1, cores}):
        for replications in (1, 10, 100, 1000):
            found, peak_gib = alone(_greedy_speed, replications, threads)
            iterations, requests = found
            rows.append(
                (
                    f"{replications:,}",
                    str(threads),
                    _millions(iterations),
                    f"{requests:,.0f}",
                    f"{peak_gib:.2f}",
                )
            )
    return Table(
        "Simulator: replications and threads",
        "`greedy`, about 5 in service, 2,000 requests per replication; each line in a process of "
        "its own.",
        ("replications", "threads", "million iterations /s", "requests /s", "peak GiB"),
        tuple(rows),
    )


def comparison() -> Table:
    """A comparison end to end: 40 rates, eight policies, 20 seeds."""
    seconds, peak_gib = alone(_compare_seconds)
    runs = 40 * len(COMPARED) * 20
    return Table(
        "Simulator: a comparison",
        "Prompt 512, output 20 on `a100-80gb-llama-2-7b`, 40 rates from 10 to 25.6 /s × "
        f"{len(COMPARED)} policies × 20 seeds, 2,000 requests each; all cores, kernels compiled.",
        ("replications", "seconds", "million requests /s", "peak GiB"),
        ((f"{runs:,}", f"{seconds:.1f}", f"{runs * 2000 / seconds / 1e6:.2f}", f"{peak_gib:.2f}"),),
    )


def _greedy_speed(replications: int, threads: int) -> tuple[float, float]:
    return speed(model_with(5), "greedy", replications, 2_000, threads)


def _compare_seconds() -> float:
    chat = RequestClass(name="chat", rate_per_s=1.0, prefill_tokens=512, decode_tokens=20)
    workload = Workload(name="chat", classes=(chat,))
    model = poisson_model(workload, load_server("a100-80gb-llama-2-7b"))
    policies = [parse_policy(one) for one in COMPARED]
    rates = [10 + 0.4 * index for index in range(40)]
    run_rows(model, grid(policies, rates[:1], Runs(2, 100)))
    rows = grid(policies, rates, Runs(20, 2000))
    return best_seconds(lambda: run_rows(model, rows), rounds=1)


def _millions(per_second: float) -> str:
    return f"{per_second / 1e6:.2f}"


TABLES = (by_size, on_paper, by_policy, by_replications, comparison)
