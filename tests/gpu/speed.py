"""Speed of the simulator on the card, from 10² to 10⁶ replications, beside all processor cores.

Kernels are compiled before the time is shared out: it takes longer than most launches.
What runs on the card is timed from launch to end: events of all replications with their statistics,
but not the reading of a million of them on the host, for which nobody would ask.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

from numba import cuda as numba_cuda

from tests.benchmarks.loads import OUTPUT, PROMPT, model_with
from tests.gpu.ceilings import known_ceilings
from tests.gpu.compiled import compiled
from tests.gpu.launch import Launch, kernel_cost, launch
from tests.gpu.result import Aim, Result, Row, Table
from tests.gpu.settings import Settings
from validation.policies import parse_policy
from validation.simulator import cpu, cuda
from validation.simulator.cpu import Job
from validation.simulator.model import Model

POLICIES = ("greedy", "vllm-v1")
AIMS_PER_S = {"greedy": 5e8, "vllm-v1": 2e8}
"""Iterations per second of all replications together, at `AIM_RESIDENTS` in service."""
AIM_RESIDENTS = 20

CAPACITY_FACTOR = 2
"""KV capacity ÷ what the residents hold at most: room for them to fluctuate, and no more slots."""


@dataclass(frozen=True)
class Sizes:
    """Requests per replication, by residents in service; replications; the processor's share.

    A core makes few and long replications: of short ones it would mostly collect the results.
    """

    requests: dict[int, int]
    replications: tuple[int, ...]
    cpu_replications_per_core: int
    cpu_requests: int


REAL = Sizes({20: 200, 400: 2000}, (100, 1_000, 10_000, 100_000, 1_000_000), 4, 200_000)
TOY = Sizes({2: 4}, (1, 2), 1, 4)


@dataclass(frozen=True)
class Found:
    """All rows so far: what kernels take, launches on the card, and the processor."""

    kernels: tuple[Row, ...] = ()
    launches: tuple[Row, ...] = ()
    processor: tuple[Row, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Case:
    """A policy at a load, and until when larger launches may begin."""

    policy: str
    residents: int
    sizes: Sizes
    free_bytes: float
    stop_at_s: float

    @property
    def name(self) -> Row:
        """How its rows begin."""
        return {"policy": self.policy, "residents": self.residents}

    @property
    def model(self) -> Model:
        """That keeps its residents in service."""
        return loaded(self.residents)

    @property
    def requests(self) -> int:
        """Per replication."""
        return self.sizes.requests[self.residents]

    def why_not(self, replications: int, last: Launch | None, bytes_each: int) -> str | None:
        """What forbids so many replications.

        Args:
            last: The launch before: a larger one takes at most as much longer as it is larger.
        """
        where = f"{self.policy}, {self.residents} residents, {replications:,} replications"
        if replications * bytes_each > cuda.MEMORY_SHARE * self.free_bytes:
            return f"{where}: not run, {replications * bytes_each / 2**30:,.1f} GiB do not fit"
        left_s = self.stop_at_s - time.time()
        if last and last.seconds * replications / last.replications > left_s:
            return f"{where}: not run, no time"
        return None


def measure(settings: Settings) -> Iterator[Result]:
    """The kernels; then for each load the processor and growing launches, while they may run."""
    sizes = TOY if settings.toy else REAL
    pairs = [(residents, policy) for residents in sizes.requests for policy in POLICIES]
    free_bytes = numba_cuda.current_context().get_memory_info().free
    bandwidth = limits.bandwidth_bytes_per_s if (limits := known_ceilings(settings.out)) else None
    found, done = Found(), 0
    for policy in POLICIES:
        found = replace(found, kernels=(*found.kernels, first_launch(policy, sizes)))
        result = summary(found, settings)
        yield result
    for residents, policy in settings.while_time(pairs):
        share_s = settings.left_s() / (len(pairs) - done)
        case = Case(policy, residents, sizes, free_bytes, time.time() + share_s)
        for more in measured_case(case, found, bandwidth):
            found = more
            result = summary(found, settings)
            yield result
        done += 1
    yield result.ended(done, len(pairs), "loads")


def measured_case(case: Case, found: Found, bandwidth: float | None) -> Iterator[Found]:
    """Add the processor, then larger and larger launches."""
    model, requests, sizes = case.model, case.requests, case.sizes
    processor = compiled(
        processor_speed, model, case.policy, sizes.cpu_replications_per_core, sizes.cpu_requests
    )
    found = replace(found, processor=(*found.processor, {**case.name, **processor}))
    yield found
    bytes_each, last = cuda.bytes_per_replication(model, requests), None
    for replications in sizes.replications:
        if reason := case.why_not(replications, last, bytes_each):
            yield replace(found, notes=(*found.notes, reason))
            return
        last = launch(model, case.policy, replications, requests)
        row = {
            **case.name,
            **launch_row(last, bandwidth),
            "bytes_per_replication": bytes_each,
            "times_processor": last.iterations_per_s / processor["iterations_per_s"],
        }
        found = replace(found, launches=(*found.launches, row))
        yield found


def first_launch(policy: str, sizes: Sizes) -> Row:
    """What the kernel of a policy takes, and how long it was until it had run once."""
    residents, requests = next(iter(sizes.requests.items()))
    begin = time.perf_counter()
    launch(loaded(residents), policy, 1, requests)
    seconds = time.perf_counter() - begin
    return {"policy": policy, "first_launch_s": seconds, **vars(kernel_cost(policy))}


def loaded(residents: int) -> Model:
    """Poisson arrivals that keep so many in service."""
    return model_with(residents, CAPACITY_FACTOR * residents * (PROMPT + OUTPUT))


def launch_row(run: Launch, bandwidth: float | None) -> Row:
    """Figures of one launch; `bandwidth` in bytes per second, where it is known."""
    return {
        "replications": run.replications,
        "seconds": run.seconds,
        "iterations_per_s": run.iterations_per_s,
        "requests_per_s": run.requests_per_s,
        "in_service": run.residents,
        "bandwidth_share": run.least_bytes_per_s / bandwidth if bandwidth else None,
    }


def processor_speed(
    model: Model, policy: str, replications_per_core: int, requests: int
) -> dict[str, float]:
    """On all cores, compilation apart."""
    cores = os.cpu_count() or 1
    configured = parse_policy(policy)
    jobs = [Job(configured, index) for index in range(replications_per_core * cores)]
    cpu.run(model, jobs[:1], requests)
    begin = time.perf_counter()
    iterations = sum(one.iterations for one in cpu.run(model, jobs, requests))
    seconds = time.perf_counter() - begin
    return {
        "cores": cores,
        "replications": len(jobs),
        "seconds": seconds,
        "iterations_per_s": iterations / seconds,
        "requests_per_s": len(jobs) * requests / seconds,
    }


def summary(found: Found, settings: Settings) -> Result:
    """Kernels, launches and processor as tables, and the aims."""
    named = {
        "Kernels": found.kernels,
        "On the card": found.launches,
        "All processor cores": found.processor,
    }
    return Result(
        "speed",
        tables=tuple(Table(title, rows) for title, rows in named.items() if rows),
        aims=tuple(_aim(policy, found, settings) for policy in POLICIES),
        notes=(
            f"prompt {PROMPT}, output {OUTPUT}; bandwidth_share counts what an iteration reads and "
            "writes at least: the records of its residents once",
            *found.notes,
        ),
    )


def _aim(policy: str, found: Found, settings: Settings) -> Aim:
    """The fastest launch at `AIM_RESIDENTS`."""
    asked, wanted = AIMS_PER_S[policy], {"policy": policy, "residents": AIM_RESIDENTS}
    reached = [
        float(row["iterations_per_s"] or 0.0)
        for row in found.launches
        if wanted.items() <= row.items()
    ]
    best = max(reached, default=None)
    met = None if best is None else settings.met(best >= asked)
    return Aim(
        f"{policy}: iterations per second at {AIM_RESIDENTS} residents", f"≥ {asked:.0e}", best, met
    )
