"""The one simulation loop (THEORY 1.1–1.5), compiled once per policy.

All decisions happen while the server is idle: at the end of an iteration, or at an arrival while
nothing runs. (A rule that decides `ahead` does so one iteration earlier: who arrives during that
iteration, or ends with it, it does not know of.) At each decision the arrivals so far join their
queues, the policy's `form_batch` evicts, admits and sets `work` for every resident, and the
iteration runs for τ of that batch.

Where a policy has a rule for ordinary iterations, `form_aggregated`, residents that only decode are
parked (`validation.simulator.decoders`) and not touched, until that rule says that it cannot tell
what to do without them: they are then brought up to date, and `form_batch` decides.
"""

from __future__ import annotations

import math

from validation.simulator.compiling import inlined, kernel
from validation.simulator.decoders import let_go, move, park_in_time, unpark_all
from validation.simulator.engine import forget_progress, forget_waiting_tokens, push_back
from validation.simulator.iteration import run_aggregated, run_iteration
from validation.simulator.path import sample
from validation.simulator.state import Lane
from validation.simulator.traffic.conversations import start_next
from validation.simulator.traffic.ends import refuse
from validation.simulator.traffic.patience import be_patient, give_up_next, next_to_give_up_s
from validation.simulator.traffic.queue_limit import is_accepted
from validation.simulator.undisturbed import is_undisturbed, run_undisturbed
from validation.simulator.window import is_measuring, mark_window

# mypy: disable-error-code="no-untyped-def, no-untyped-call"


def form_batch(model, lane, params, thresholds):
    """Replaced by a policy's own rule when the loop is bound to it."""
    raise NotImplementedError


AGGREGATES = False
"""Replaced by True when the loop is bound to a policy with a rule for ordinary iterations."""


def form_aggregated(model, lane, params, thresholds):
    """Replaced by that rule; it returns False, having changed nothing, where it cannot tell."""
    raise NotImplementedError


REACTS = True
"""Replaced by False when the loop is bound for requests whose clients do not react."""


def queue_of(model, shape):
    """Replaced by a policy's own choice of queue for a request of this shape."""
    raise NotImplementedError


def run_lane(model, lane, params, thresholds):
    """Run one started replication in `lane`, until all that arrived in the window have ended.

    Or up to the first decision at `until_s` or later, from where another call goes on.
    `model` is a `Service`: to hand a whole `Model` around would halve the speed.
    """
    if not REACTS:
        lane = without_clients(lane)
    scalars = lane.scalars[0]
    if AGGREGATES and scalars.next_arrival == 0:
        scalars.aggregated = 1
    while is_measuring(model, scalars) and scalars.decides_at_s < scalars.until_s:
        scalars.left_service = 0
        while _somebody_arrives(model, lane):
            request = scalars.next_arrival
            if joins(model, lane, request):
                push_back(lane, queue_of(model, lane.requests[request].shape), request)
        scalars.wake_at_s = math.inf
        if AGGREGATES:
            scalars.decoders_run = 1
            scalars.undisturbed_tokens = 0
            if scalars.aggregated and not form_aggregated(model, lane, params, thresholds):
                unpark_all(model, lane)
        if not scalars.aggregated:
            form_batch(model, lane, params, thresholds)
        if scalars.next_arrival >= scalars.path_next:
            sample(model, lane)
        if AGGREGATES and scalars.aggregated:
            ran = run_aggregated(model, lane)
            if scalars.undisturbed_tokens > 0 and is_undisturbed(lane):
                run_undisturbed(model, lane)
        else:
            ran = run_iteration(model, lane)
            if AGGREGATES:
                park_in_time(model, lane)
        if ran:
            if _stuck(model, lane):
                scalars.stuck = 1
                break
            continue
        if not (_catch_up(lane) or sleep(lane)):
            break
    if math.isinf(scalars.until_s):
        forget_waiting_tokens(lane)
        scalars.window_end_s = min(scalars.window_end_s, scalars.clock_s)


@inlined
def _somebody_arrives(model, lane):
    """Whether somebody has arrived who has not joined yet; lets go who gave up before that."""
    scalars = lane.scalars[0]
    while True:
        arrival_s = _next_arrival_s(lane)
        until_s = min(arrival_s, scalars.decides_at_s)
        if lane.clients.size == 0 or not give_up_next(model, lane, until_s):
            return arrival_s <= scalars.decides_at_s


@inlined
def _next_arrival_s(lane):
    scalars = lane.scalars[0]
    if scalars.next_arrival == lane.requests.size:
        return math.inf
    return lane.requests[scalars.next_arrival].arrived_at_s


@inlined
def joins(model, lane, index):
    """Take the next arrival in; False if it is refused."""
    scalars = lane.scalars[0]
    request = lane.requests[index]
    scalars.next_arrival += 1
    mark_window(model, lane, index)
    if model.constants[0].conversations:
        start_next(lane, index)
    if lane.clients.size > 0 and not is_accepted(model, lane, index):
        refuse(model, lane, index)
        return False
    forget_progress(model, lane, index)
    scalars.arrived_work_s += model.shapes[request.shape].work_s
    scalars.arrivals_present_s += request.arrived_at_s
    scalars.system_integral += scalars.clock_s - request.arrived_at_s
    if lane.clients.size > 0:
        shape = model.shapes[request.shape]
        lane.clients[index].prompt_tokens = shape.prompt_tokens - shape.context_tokens
        be_patient(model, lane, index)
    return True


@kernel
def _catch_up(lane):
    """Where a batch formed ahead is empty, see who ends with the iteration before; False: none."""
    scalars = lane.scalars[0]
    if scalars.decides_at_s == scalars.clock_s:
        return False
    scalars.decides_at_s = scalars.clock_s
    if scalars.aggregated:
        let_go(scalars)
        return True
    kept = 0
    for slot in range(scalars.residents):
        if lane.residents[slot].left > 0:
            move(lane, slot, kept)
            kept += 1
    scalars.residents = kept
    scalars.slots = kept
    return True


@kernel
def sleep(lane):
    """Pass the time until an arrival or the policy's wake-up; False if there is neither.

    Time with requests in the system counts as lost where nobody waits, and where an arrival ended
    it that let a batch run: the rule had held the others for company. Whether it did is known at
    the next sleep.
    """
    scalars = lane.scalars[0]
    arrival_s = _next_arrival_s(lane)
    company = arrival_s <= scalars.wake_at_s
    scalars.asleep = arrival_s < scalars.wake_at_s
    wake_at_s = min(scalars.wake_at_s, arrival_s)
    if lane.clients.size > 0:
        wake_at_s = min(wake_at_s, next_to_give_up_s(lane))
    if math.isinf(wake_at_s):
        return False
    if scalars.iterations > scalars.slept_at_iteration:
        if scalars.slept_for_company:
            scalars.held_s += scalars.slept_s
        scalars.slept_s = 0.0
        scalars.slept_at_iteration = scalars.iterations
    passed_s = wake_at_s - scalars.clock_s
    if scalars.residents + scalars.waiting == 0:
        scalars.idle_s += passed_s
    elif scalars.waiting == 0:
        scalars.held_s += passed_s
    else:
        scalars.slept_s += passed_s
    scalars.slept_for_company = company
    scalars.system_integral += (scalars.residents + scalars.waiting) * passed_s
    scalars.clock_s = wake_at_s
    scalars.decides_at_s = scalars.clock_s
    return True


@inlined
def _stuck(model, lane):
    """Whether nobody came or completed for many service times, so that nobody ever will.

    Thresholds that do not fit into memory can evict and readmit the same request for ever. A
    chunked prompt takes at most one iteration for each of its tokens, all of which fit into memory.
    """
    scalars = lane.scalars[0]
    patience = 100 + 10 * lane.stage_count.shape[1] + model.constants[0].kv_capacity_tokens
    no_more_arrivals = scalars.next_arrival >= scalars.sent
    return no_more_arrivals and scalars.iterations - scalars.last_completion > patience


@inlined
def without_clients(lane):
    """The same lane, in which the compiler sees that no client has a row."""
    return Lane(
        lane.scalars,
        lane.requests,
        lane.residents,
        lane.queues,
        lane.clients[:0],
        lane.sums,
        lane.histogram,
        lane.stage_count,
        lane.series,
        lane.path,
        lane.calendar,
    )
