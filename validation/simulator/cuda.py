"""Runs replications on a CUDA device, one per thread; imported only where numba-cuda is installed.

The engine and the policies are the functions that the CPU runs: numba-cuda compiles the Python
source of the numba functions that a kernel calls. Each replication owns a slice of every array of
its `Lane`; jobs that do not fit into the device's memory together run one chunk after another.
Tested without a GPU (numba's simulator, compilation to PTX); measured on one (docs/calibrate.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np
from numba import cuda
from numba.cuda.core import config
from numpy.typing import NDArray

from fluid.errors import InputError
from validation.simulator.compiling import rebound
from validation.simulator.cpu import Job, checked_requests
from validation.simulator.loop import run_lane
from validation.simulator.metrics import Replication, collect
from validation.simulator.model import Model, Service
from validation.simulator.policy import Policy
from validation.simulator.prefix.state import new_prefix_lane
from validation.simulator.start import start
from validation.simulator.state import Lane, new_lane

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

MOST_THREADS_PER_BLOCK = 8
"""The threads of a block, which run as one warp, wait for each other wherever their replications do
different things; eight lose less by it than is gained by their number (docs/calibrate.md)."""

WARPS_PER_MULTIPROCESSOR = 16
"""That the registers of a kernel leave room for: more than so many run one after another."""

MEMORY_SHARE = 0.85
"""Of the free device memory, used for replications; kernels need some for their own stacks."""

JOB = np.dtype([("seed", "i8"), ("replication", "i8"), ("rate_scale", "f8")], align=True)

# A handful of replications leaves a device idle, which is no reason to warn.
config.CUDA_LOW_OCCUPANCY_WARNINGS = 0


def run(
    model: Model,
    jobs: Sequence[Job],
    requests: int,
    on_done: Callable[[], None] | None = None,
) -> list[Replication]:
    """Run every job; results come in the order of the jobs.

    Args:
        requests: Arrivals per replication; a tape runs at its own length.
        on_done: Called after each replication, which happens a chunk at a time.

    Raises:
        InputError: No jobs, no requests, a policy that cannot run this model, or a replication that
            does not fit into the device's memory.
    """
    requests = checked_requests(model, jobs, requests)
    _require_no_pools(model, jobs, requests)
    found: dict[int, Replication] = {}
    free = cuda.current_context().get_memory_info().free
    for alike in _alike(model, jobs):
        most = max(jobs[index].policy.most_residents(model) for index in alike)
        size = chunk_size(model, requests, len(alike), free, most)
        for begin in range(0, len(alike), size):
            chunk = alike[begin : begin + size]
            lanes = _run_chunk(model, [jobs[index] for index in chunk], requests, most)
            for index, lane in zip(chunk, lanes, strict=True):
                found[index] = collect(lane)
                if on_done:
                    on_done()
    return [found[index] for index in range(len(jobs))]


def _require_no_pools(model: Model, jobs: Sequence[Job], requests: int) -> None:
    """Refuse rules that keep a pool of blocks.

    Raises:
        InputError: Naming the bytes of one replication.
    """
    for policy in {id(job.policy): job.policy for job in jobs}.values():
        if policy.rule.caches:
            lane = new_prefix_lane(model, requests, policy.seats_on(model))
            each = sum(part.nbytes for part in lane)
            allowed = f"device=cpu: with its pool of blocks a replication takes {each:,} bytes"
            raise InputError(f"policy {policy.label}", "device cuda", allowed)


def bytes_per_replication(model: Model, requests: int, most_residents: int | None = None) -> int:
    """Device memory of one replication: all arrays of its lane, and its job."""
    lane = new_lane(model, requests, most_residents=most_residents)
    return sum(part.nbytes for part in lane) + JOB.itemsize


def chunk_size(
    model: Model,
    requests: int,
    replications: int,
    free_bytes: float,
    most_residents: int | None = None,
) -> int:
    """How many of the replications run at once.

    Raises:
        InputError: Not even one fits.
    """
    each = bytes_per_replication(model, requests, most_residents)
    fitting = min(float(replications), MEMORY_SHARE * free_bytes // each)
    if fitting < 1:
        allowed = f"fewer: one replication needs {each:,} bytes, the device has {free_bytes:,.0f}"
        raise InputError("requests", requests, allowed)
    return int(fitting)


def _alike(model: Model, jobs: Sequence[Job]) -> list[list[int]]:
    """Positions of jobs that one kernel launch can run: same rule, thresholds of one length."""
    policies = {id(job.policy): job.policy for job in jobs}
    keys = {
        key: (policy.rule.name, policy.threshold_table(model).size)
        for key, policy in policies.items()
    }
    groups: dict[tuple[str, int], list[int]] = {}
    for index, job in enumerate(jobs):
        groups.setdefault(keys[id(job.policy)], []).append(index)
    return list(groups.values())


def _run_chunk(
    model: Model, jobs: Sequence[Job], requests: int, most_residents: int
) -> Iterator[Lane]:
    """Run the jobs at once; yields of each lane what `collect` reads."""
    lane = new_lane(model, requests, most_residents=most_residents)
    device = [cuda.to_device(part) for part in host_arguments(model, jobs)]
    lanes: dict[str, Any] = {
        name: cuda.device_array((len(jobs), *part.shape), part.dtype)
        for name, part in lane._asdict().items()
    }
    kernel = compiled(jobs[0].policy.rule, bool(model.constants[0]["reacts"]))
    kernel[grid(len(jobs))](*device, *lanes.values())
    read = ("scalars", "sums", "histogram", "path")
    collected = {name: lanes[name].copy_to_host() for name in read}
    for index in range(len(jobs)):
        yield lane._replace(**{name: part[index] for name, part in collected.items()})


def grid(replications: int) -> tuple[int, int]:
    """Blocks and threads per block: no thread beside another before every warp has one."""
    # Numba's simulator of a device does not tell.
    multiprocessors = getattr(cuda.get_current_device(), "MULTIPROCESSOR_COUNT", 1)
    warps = WARPS_PER_MULTIPROCESSOR * multiprocessors
    threads = 1
    while threads < MOST_THREADS_PER_BLOCK and threads * warps < replications:
        threads *= 2
    return -(-replications // threads), threads


def host_arguments(model: Model, jobs: Sequence[Job]) -> list[NDArray[Any]]:
    """What the kernel reads: the model, the jobs, their parameters and thresholds."""
    records = np.zeros(len(jobs), JOB)
    records["seed"] = [job.seed for job in jobs]
    records["replication"] = [job.replication for job in jobs]
    records["rate_scale"] = [job.rate_scale for job in jobs]
    policies = {id(job.policy): job.policy for job in jobs}
    numbers = {key: policy.numbers_on(model) for key, policy in policies.items()}
    tables = {key: policy.threshold_table(model) for key, policy in policies.items()}
    params = np.array([numbers[id(job.policy)] for job in jobs])
    thresholds = np.array([tables[id(job.policy)] for job in jobs])
    return [*model, records, params, thresholds]


@cache
def compiled(policy: Policy, reacts: bool) -> Any:
    """The CUDA kernel of a policy, compiled at its first launch; one apart where clients react."""
    return cuda.jit(kernel_source(policy, reacts))


def kernel_source(policy: Policy, reacts: bool) -> Any:
    """The Python function that becomes the policy's kernel."""
    loop = policy.run_reacting_lane if reacts else policy.run_lane
    return rebound(replicate, policy.suffix, run_lane=loop)


def replicate(
    constants,
    shapes,
    knots,
    tape,
    arrivals,
    profile,
    runs,
    jobs,
    params,
    thresholds,
    scalars,
    requests,
    residents,
    queues,
    clients,
    sums,
    histogram,
    stage_count,
    series,
    path,
    calendar,
):
    """Kernel: each thread starts and simulates the replication of its own number."""
    index = cuda.grid(1)
    if index >= jobs.size:
        return
    lane = Lane(
        scalars[index],
        requests[index],
        residents[index],
        queues[index],
        clients[index],
        sums[index],
        histogram[index],
        stage_count[index],
        series[index],
        path[index],
        calendar[index],
    )
    job = jobs[index]
    model = Model(constants, shapes, knots, tape, arrivals, profile, runs)
    start(model, lane, job.seed, job.replication, job.rate_scale)
    run_lane(Service(constants, shapes, knots), lane, params[index], thresholds[index])
