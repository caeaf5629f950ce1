"""Runs replications on the CPU: kernels release the GIL, so plain threads fill the cores."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from fluid.errors import InputError
from validation.simulator.metrics import Replication, collect
from validation.simulator.model import Model
from validation.simulator.policy import ConfiguredPolicy
from validation.simulator.prefix.pool import clear_pool
from validation.simulator.prefix.state import new_prefix_lane
from validation.simulator.start import start
from validation.simulator.state import Lane, new_lane

Read = TypeVar("Read")
Workspace = TypeVar("Workspace")


@dataclass(frozen=True)
class Job:
    """One replication to run."""

    policy: ConfiguredPolicy
    replication: int
    seed: int = 0
    rate_scale: float = 1.0


@dataclass(frozen=True)
class SamplePath:
    """One replication, request by request and iteration by iteration.

    Attributes:
        arrived_at_s, first_token_at_s, completed_at_s: Shape (requests,), NaN where it never
            happened before the run ended; arrivals that are not known yet are infinite.
        evicted_times: Evictions of each request, shape (requests,).
        class_index: Class under which each request is reported, shape (requests,).
        shape_index: Row of `Model.shapes` of each request, shape (requests,).
        series: Clock, KV tokens held, residents, waiting at the start of each iteration,
            shape (iterations, 4).
        backlog: Samples of the backlog, columns as in `PATH_COLUMNS`.
        left_at_s: When a request was refused, as it arrived, or its client gave up; NaN elsewhere.
        draw: Number under which its random numbers were drawn: in a closed loop its client plus its
            turn times the number of clients, shape (requests,).
    """

    arrived_at_s: NDArray[np.float64]
    first_token_at_s: NDArray[np.float64]
    completed_at_s: NDArray[np.float64]
    evicted_times: NDArray[np.int32]
    class_index: NDArray[np.int64]
    shape_index: NDArray[np.int32]
    series: NDArray[np.float64]
    backlog: NDArray[np.float64]
    left_at_s: NDArray[np.float64]
    draw: NDArray[np.int64]


def run(
    model: Model,
    jobs: Sequence[Job],
    requests: int,
    threads: int | None = None,
    on_done: Callable[[], None] | None = None,
) -> list[Replication]:
    """Run every job; results come in the order of the jobs and do not depend on `threads`.

    Args:
        requests: Arrivals per replication; a tape runs at its own length.
        on_done: Called after each replication, e.g. to advance a progress bar.

    Raises:
        InputError: No jobs, no requests, or a policy that cannot run this model.
    """
    return run_reading(model, jobs, requests, collect, threads=threads, on_done=on_done)


def run_reading(
    model: Model,
    jobs: Sequence[Job],
    requests: int,
    read: Callable[[Lane], Read],
    *,
    series_rows: int = 0,
    threads: int | None = None,
    on_done: Callable[[], None] | None = None,
) -> list[Read]:
    """`run` with another reader of what a replication leaves behind.

    Args:
        read: Called with the lane of a run that has just ended, which the next run overwrites.
        series_rows: Iterations, from the first on, that `Lane.series` keeps.

    Raises:
        InputError: As `run`.
    """
    requests = checked_requests(model, jobs, requests)
    sizes = _sizes(model, jobs)

    def one(lanes: dict[bool, Lane], job: Job) -> Read:
        caches = job.policy.rule.caches
        if caches not in lanes:
            lanes[caches] = _lane(model, job.policy, requests, series_rows, sizes)
        _simulate(model, lanes[caches], job)
        result = read(lanes[caches])
        if on_done:
            on_done()
        return result

    return on_threads(jobs, dict, one, threads)


def on_threads(
    jobs: Sequence[Job],
    workspace: Callable[[], Workspace],
    do: Callable[[Workspace, Job], Read],
    threads: int | None,
) -> list[Read]:
    """Do all jobs on so many threads, None for one per core; results in their order.

    Args:
        workspace: Makes what one thread does all its jobs in.
    """
    results: dict[int, Read] = {}
    waiting = deque(enumerate(jobs))

    def work() -> None:
        own = workspace()
        while waiting:
            try:
                number, job = waiting.popleft()
            except IndexError:  # Another thread was faster.
                return
            try:
                results[number] = do(own, job)
            except BaseException:
                waiting.clear()
                raise

    # Threads take their next job themselves, and this one is among them: to start another and to
    # hand it a job takes as long as a short replication.
    workers = min(threads or os.cpu_count() or 1, len(jobs))
    with ThreadPoolExecutor(workers) as pool:
        others = [pool.submit(work) for _ in range(workers - 1)]
        work()
        for one in others:
            one.result()
    return [results[number] for number in range(len(jobs))]


def checked_requests(model: Model, jobs: Sequence[Job], requests: int) -> int:
    """Arrivals per replication, once the jobs are known to make sense.

    Raises:
        InputError: No jobs, no requests, or a policy that cannot run this model.
    """
    if not jobs:
        raise InputError("policies", "none", "at least one")
    if model.tape.size:
        requests = int(model.tape.size)
    if requests < 1:
        raise InputError("requests", requests, "at least 1")
    model.require_rounds(requests)
    for policy in {id(job.policy): job.policy for job in jobs}.values():
        policy.check(model)
    return requests


def run_traced(model: Model, job: Job, requests: int, iterations: int | None = None) -> SamplePath:
    """Run one replication and keep everything that happened.

    Args:
        iterations: How many it has, where that is known (`Replication.iterations`): without it, or
            if it has more, the replication runs twice.

    Raises:
        InputError: A policy that cannot run this model.
    """
    requests = checked_requests(model, [job], requests)
    sizes = _sizes(model, [job])
    lane = _lane(model, job.policy, requests, iterations or 0, sizes)
    _simulate(model, lane, job)
    needed = int(lane.scalars[0]["iterations"])
    if needed > len(lane.series):
        lane = _lane(model, job.policy, requests, needed, sizes)
        _simulate(model, lane, job)
    return SamplePath(
        lane.requests["arrived_at_s"],
        lane.requests["first_token_at_s"],
        lane.requests["completed_at_s"],
        lane.requests["evictions"],
        model.shapes["report_class"][lane.requests["shape"]],
        lane.requests["shape"],
        lane.series[:needed],
        lane.path[: lane.scalars[0]["path_rows"]],
        lane.clients["left_at_s"] if len(lane.clients) else np.full(requests, np.nan),
        lane.clients["draw"] if len(lane.clients) else np.arange(requests),
    )


def _sizes(model: Model, jobs: Sequence[Job]) -> tuple[int, float]:
    """Requests in service that a lane has room for, without and with a pool of blocks."""
    policies = {id(job.policy): job.policy for job in jobs}.values()
    caching = [one.seats_on(model) for one in policies if one.rule.caches]
    plain = [one.most_residents(model) for one in policies if not one.rule.caches]
    return max(plain, default=0), max(caching, default=0)


def _lane(
    model: Model,
    policy: ConfiguredPolicy,
    requests: int,
    series_rows: int,
    sizes: tuple[int, float],
) -> Lane:
    most_residents, seats = sizes
    if policy.rule.caches:
        # It has all arrays of a Lane, and more.
        return cast(Lane, new_prefix_lane(model, requests, seats, series_rows))
    return new_lane(model, requests, series_rows, most_residents)


def _simulate(model: Model, lane: Lane, job: Job) -> None:
    start(model, lane, job.seed, job.replication, job.rate_scale)
    if job.policy.rule.caches:
        clear_pool(model, lane)
    thresholds = job.policy.threshold_table(model)
    loop = job.policy.rule.loop(model)
    loop(model.service, lane, job.policy.numbers_on(model), thresholds)
