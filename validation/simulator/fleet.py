"""Several servers behind a router that looks at them, simulated together on the CPU.

A router that sees no states splits a stream into streams whose laws are known: one server then
stands for all. What another one does depends on what every server has done so far. Here each has a
lane of its own, and all share the requests, numbered in order of arrival at the router. From one
arrival to the next every server runs alone, up to its first decision at that time or later, before
which the request would join its queue; then the router picks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from fluid.errors import InputError
from validation.simulator.compiling import bind, called_kernel, inlined, kernel
from validation.simulator.cpu import Job, checked_requests, on_threads
from validation.simulator.engine import forget_waiting_tokens, push_back
from validation.simulator.loop import joins, sleep
from validation.simulator.model import Model
from validation.simulator.path import sample
from validation.simulator.policy import Policy
from validation.simulator.start import reset, start
from validation.simulator.state import PATH_COLUMNS, Lane, new_lane
from validation.simulator.window import set_window

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

Read = TypeVar("Read")

BEHIND = np.dtype(
    [
        ("outstanding_tokens", "i8"),  # of the requests sent to this server and not completed yet
        ("newest", "i8"),  # of these, whose list goes through `SENT.next`; -1: there are none
        ("seen_iteration", "i8"),  # `last_completion` of the server when the list was last read
        ("due_s", "f8"),  # next completion known then
    ],
    align=True,
)
"""What a router knows of a server."""

SENT = np.dtype([("server", "i8"), ("next", "i8")], align=True)
"""Where a request was sent to, and the next one of the list that it stands in; -1 ends it."""


class Fleet(NamedTuple):
    """Working memory of one replication of a fleet.

    Attributes:
        lanes: The arrays of a `Lane` of every server, servers first; `requests` is that of all.
        behind: BEHIND records, shape (servers,).
        sent: SENT records in the order of `requests`, shape (N,).
    """

    lanes: Lane
    behind: NDArray[np.void]
    sent: NDArray[np.void]


def new_fleet(model: Model, servers: int, requests: int, most_residents: int) -> Fleet:
    """Allocate a fleet for runs of `requests` requests, those of all servers together."""
    one = new_lane(model, requests, most_residents=most_residents)
    parts = {
        name: np.zeros((servers, *part.shape), part.dtype)
        for name, part in one._asdict().items()
        if name != "requests"
    }
    lanes = Lane(requests=one.requests, **parts)
    return Fleet(lanes, np.zeros(servers, BEHIND), np.zeros(requests, SENT))


@inlined
def lane_of(lanes, index):
    """The lane of one server, in which the requests are those of all."""
    return Lane(
        lanes.scalars[index],
        lanes.requests,
        lanes.residents[index],
        lanes.queues[index],
        lanes.clients[index],
        lanes.sums[index],
        lanes.histogram[index],
        lanes.stage_count[index],
        lanes.series[index],
        lanes.path[index],
        lanes.calendar[index],
    )


@called_kernel
def start_fleet(model, fleet, seed, replication, rate_scale):
    """Reset all lanes and lay out the arrivals at the router."""
    start(model, lane_of(fleet.lanes, 0), seed, replication, rate_scale)
    for index in range(fleet.behind.size):
        if index > 0:
            lane = lane_of(fleet.lanes, index)
            reset(lane, seed, replication)
            set_window(model, lane)
        fleet.lanes.scalars[index, 0].path_next = fleet.sent.size + 1
        behind = fleet.behind[index]
        behind.outstanding_tokens = 0
        behind.newest = -1
        behind.seen_iteration = 0
        behind.due_s = math.inf


@kernel
def least_outstanding_tokens(behind, number):
    """Router: the server with the fewest tokens outstanding, the first of several."""
    chosen = 0
    for index in range(1, behind.size):
        if behind[index].outstanding_tokens < behind[chosen].outstanding_tokens:
            chosen = index
    return chosen


def run_lane(model, lane, params, thresholds):
    """Replaced by the loop of a policy when the fleet is bound to it."""
    raise NotImplementedError


def queue_of(model, shape):
    """Replaced by that policy's choice of queue."""
    raise NotImplementedError


def pick(behind, number):
    """Replaced by a router: the server for the request of this number."""
    raise NotImplementedError


def run_fleet(model, fleet, params, thresholds):
    """Run one started replication until all that arrived in the window have ended, anywhere.

    `model` is a `Service`, as for `run_lane`.
    """
    lanes = fleet.lanes
    left = lanes.scalars[0, 0].cohort_left
    sampled_at = 1
    for number in range(lanes.requests.size + 1):
        now_s = math.inf
        if number < lanes.requests.size:
            now_s = lanes.requests[number].arrived_at_s
        ended = 0
        for index in range(fleet.behind.size):
            lane = lane_of(lanes, index)
            scalars = lane.scalars[0]
            scalars.until_s = now_s
            scalars.cohort_left = left
            if scalars.asleep and not sleep(lane):
                continue
            if number == 0 or scalars.decides_at_s < now_s:
                scalars.asleep = 0
                run_lane(model, lane, params, thresholds)
                ended += left - scalars.cohort_left
        left -= ended
        if number == lanes.requests.size:
            break
        if left == 0 and now_s >= lanes.scalars[0, 0].window_end_s:
            break
        if number == sampled_at:
            _sample_all(model, fleet)
            sampled_at += lanes.scalars[0, 0].path_stride
        for index in range(fleet.behind.size):
            _forget_completed(model, fleet, index, now_s)
        chosen = pick(fleet.behind, number)
        _send(model, fleet, number, chosen)
        lane = lane_of(lanes, chosen)
        lane.scalars[0].asleep = 0
        joins(model, lane, number)
        push_back(lane, queue_of(model, lanes.requests[number].shape), number)
    for index in range(fleet.behind.size):
        lanes.scalars[index, 0].cohort_left = left
        forget_waiting_tokens(lane_of(lanes, index))


@kernel
def _sample_all(model, fleet):
    """Append to the paths of all servers at the same arrival, where none of them would alone."""
    for index in range(fleet.behind.size):
        sample(model, lane_of(fleet.lanes, index))
        fleet.lanes.scalars[index, 0].path_next = fleet.sent.size + 1


@kernel
def _forget_completed(model, fleet, index, now_s):
    """Take off a server's account what it has completed by now.

    Its lane may have run on a little: what completes later is still outstanding.
    """
    behind = fleet.behind[index]
    last_completion = fleet.lanes.scalars[index, 0].last_completion
    if behind.seen_iteration == last_completion and behind.due_s > now_s:
        return
    behind.seen_iteration = last_completion
    behind.due_s = math.inf
    before, number = -1, behind.newest
    while number >= 0:
        following = fleet.sent[number].next
        request = fleet.lanes.requests[number]
        if request.completed_at_s <= now_s and not _waits_again(fleet.lanes, index, number):
            behind.outstanding_tokens -= _tokens_of(model, request)
            if before < 0:
                behind.newest = following
            else:
                fleet.sent[before].next = following
        else:
            if request.completed_at_s < behind.due_s:
                behind.due_s = request.completed_at_s
            before = number
        number = following


@kernel
def _waits_again(lanes, index, number):
    """Whether a request was evicted: while it waits, `completed_at_s` is that of its last token."""
    if lanes.requests[number].evictions == 0:
        return False
    for queue in range(lanes.queues.shape[1]):
        waiting = lanes.queues[index, queue].head
        while waiting >= 0:
            if waiting == number:
                return True
            waiting = lanes.requests[waiting].next
    return False


@kernel
def _send(model, fleet, number, chosen):
    """Note where a request goes, and that it has arrived for all."""
    behind = fleet.behind[chosen]
    behind.outstanding_tokens += _tokens_of(model, fleet.lanes.requests[number])
    fleet.sent[number].server = chosen
    fleet.sent[number].next = behind.newest
    behind.newest = number
    for index in range(fleet.behind.size):
        fleet.lanes.scalars[index, 0].next_arrival = number if index == chosen else number + 1


@inlined
def _tokens_of(model, request):
    """Tokens of a request at its end, of its prompt and of its output."""
    shape = model.shapes[request.shape]
    return shape.prompt_tokens + shape.output_tokens


@cache
def _bound(policy: Policy, router: Any) -> Any:
    """`run_fleet` compiled for the rule of a policy and a router."""
    kernels = {
        "run_lane": policy.run_lane,
        "queue_of": policy.queue_of,
        "form_batch": policy.form_batch,  # Where it is not cached, nor is this.
        "pick": router,
    }
    kind = "" if policy.form_aggregated is None else "_aggregated"
    name = getattr(router, "py_func", router).__name__
    return bind(run_fleet, f"{policy.suffix}{kind}_{name}", kernels)


def run_fleets(
    model: Model,
    jobs: Sequence[Job],
    servers: int,
    requests: int,
    read: Callable[[Fleet], Read],
    *,
    router: Any = least_outstanding_tokens,
    threads: int | None = None,
) -> list[Read]:
    """Simulate a fleet of servers that are all alike once for each job; results in their order.

    Args:
        requests: Arrivals per replication, at all servers together.
        read: Called with the fleet of a run that has just ended, which the next run overwrites.
        router: Kernel (behind, number) that gives the server for a request, from `BEHIND` records.

    Raises:
        InputError: As `checked_requests`, clients that react, or a rule that caches prefixes.
    """
    requests = checked_requests(model, jobs, requests)
    _require_lanes(model, jobs)
    most_residents = max(job.policy.most_residents(model) for job in jobs)

    def one(fleet: Fleet, job: Job) -> Read:
        start_fleet(model, fleet, job.seed, job.replication, job.rate_scale)
        loop = _bound(job.policy.rule, router)
        numbers, thresholds = job.policy.numbers_on(model), job.policy.threshold_table(model)
        loop(model.service, fleet, numbers, thresholds)
        return read(fleet)

    def workspace() -> Fleet:
        return new_fleet(model, servers, requests, most_residents)

    return on_threads(jobs, workspace, one, threads)


def _require_lanes(model: Model, jobs: Sequence[Job]) -> None:
    """Refuse what servers that share the array of requests cannot do.

    Raises:
        InputError: Naming it.
    """
    field = "servers behind a router that looks at them"
    if model.constants[0]["reacts"]:
        allowed = "requests that neither follow each other nor are refused"
        raise InputError(field, "clients that react", allowed)
    for job in jobs:
        if job.policy.rule.caches:
            raise InputError(field, f"policy {job.policy.label}", "one without a cache of prefixes")


_SUMS = (
    *("residents", "waiting", "iterations", "completed", "evictions"),
    *("tokens_decoded", "tokens_lost", "tokens_computed", "tokens_recomputed"),
    *("gap_sum_s", "kv_integral", "resident_integral", "system_integral"),
    *("sojourn_s", "arrivals_present_s"),
)
_MOST = ("clock_s", "kv_max_tokens", "gap_max_s", "stuck")
_MEANS_OF_PATH = ("arrived", "clock_s", "idle_s", "spare_s", "room_s", "held_s")


def as_one(fleet: Fleet) -> Lane:
    """A fleet that has run as if it were one server, for `collect` and whoever reads requests.

    Requests, work and tokens are sums over the servers; the clock, seconds that were busy and those
    that were lost are means of the servers, so that the netput is the sum of theirs.
    """
    lanes = fleet.lanes
    scalars = lanes.scalars[0].copy()
    for name in _SUMS:
        scalars[name] = lanes.scalars[name].sum(axis=0)
    for name in _MOST:
        scalars[name] = lanes.scalars[name].max(axis=0)
    scalars["busy_s"] = lanes.scalars["busy_s"].mean(axis=0)
    path = lanes.path.sum(axis=0)
    path[:, [PATH_COLUMNS.index(name) for name in _MEANS_OF_PATH]] /= len(fleet.behind)
    parts = {name: part[0] for name, part in lanes._asdict().items() if name != "requests"}
    merged = {
        "scalars": scalars,
        "sums": lanes.sums.sum(axis=0),
        "histogram": lanes.histogram.sum(axis=0),
        "path": path,
    }
    return Lane(requests=lanes.requests, **(parts | merged))
