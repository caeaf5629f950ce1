"""Patience: a client gives up when its first token has not come within a time.

Who waits leaves at that moment; who is in service leaves it between iterations. A first token that
comes later than that is not seen by anyone.
"""

from __future__ import annotations

import math

import numpy as np

from validation.simulator.arrivals import gamma_of_mean_one
from validation.simulator.compiling import inlined, kernel
from validation.simulator.decoders import move, unpark_all
from validation.simulator.rng import two_uniforms
from validation.simulator.traffic.ends import end_request, record_met
from validation.simulator.window import in_cohort, in_window

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

_PATIENCE, _NORMAL, _ACCEPT = np.uint64(22), np.uint64(23), np.uint64(24)


@kernel
def be_patient(model, lane, index):
    """Draw how long the client of a request that has just arrived will wait."""
    constants = model.constants[0]
    if constants.patience_s == 0.0:
        return
    scalars = lane.scalars[0]
    patience_s = constants.patience_s
    if constants.patience_cv > 0.0:
        seed, replication, draw = scalars.seed, scalars.replication, lane.clients[index].draw
        uniform, _ = two_uniforms(seed, replication, draw, _PATIENCE)
        if constants.patience_cv == 1.0:
            patience_s *= -math.log(uniform)
        else:
            patience_s *= gamma_of_mean_one(
                constants.patience_cv, seed, replication, draw, uniform, _NORMAL, _ACCEPT
            )
    lane.clients[index].gives_up_at_s = lane.requests[index].arrived_at_s + patience_s
    _push(lane, index)


@kernel
def next_to_give_up_s(lane):
    """When the next client gives up unless its first token comes; inf if there is none."""
    while lane.scalars[0].leavers > 0:
        index = lane.clients[0].leaver
        if _may_give_up(lane, index):
            return lane.clients[index].gives_up_at_s
        _pop(lane)
    return math.inf


@kernel
def give_up_next(model, lane, until_s):
    """Let the next client go whose patience has ended by then; False if there is none."""
    gives_up_at_s = next_to_give_up_s(lane)
    if gives_up_at_s > until_s:
        return False
    scalars = lane.scalars[0]
    index = lane.clients[0].leaver
    _pop(lane)
    computed = 0
    if lane.clients[index].queue >= 0:
        _leave_queue(lane, index)
    else:
        computed = _leave_service(model, lane, index)
    scalars.system_integral -= scalars.clock_s - gives_up_at_s
    _give_up(model, lane, index, gives_up_at_s, computed)
    return True


@inlined
def is_awaited(lane, index):
    """Whether a first token that comes now is in time."""
    if lane.clients.size == 0:
        return True
    return lane.scalars[0].clock_s <= lane.clients[index].gives_up_at_s


@kernel
def give_up_answer(model, lane, index):
    """A request has its only token, which came too late; it is no longer in service."""
    shape = model.shapes[lane.requests[index].shape]
    decode_only = shape.prompt_tokens == shape.context_tokens
    silent = decode_only or model.constants[0].silent_prefill
    gives_up_at_s = lane.clients[index].gives_up_at_s
    scalars = lane.scalars[0]
    scalars.system_integral -= scalars.clock_s - gives_up_at_s
    computed = shape.prompt_tokens - shape.context_tokens + (1 if silent else 0)
    _give_up(model, lane, index, gives_up_at_s, computed)


@kernel
def _give_up(model, lane, index, gives_up_at_s, computed):
    scalars = lane.scalars[0]
    lane.clients[index].left_at_s = gives_up_at_s
    scalars.arrived_work_s -= model.shapes[lane.requests[index].shape].work_s
    if in_window(scalars):
        scalars.tokens_given_up += computed
    if in_cohort(scalars, index):
        scalars.gave_up += 1
    record_met(model, lane, index, False, False, False)
    end_request(model, lane, index, gives_up_at_s)


@kernel
def _may_give_up(lane, index):
    """Whether a request is in the system, and its first token has not come."""
    request, client = lane.requests[index], lane.clients[index]
    return math.isnan(request.first_token_at_s) and math.isnan(client.left_at_s)


@kernel
def _leave_queue(lane, index):
    """Take a request out of its queue."""
    queue = lane.queues[lane.clients[index].queue]
    before = -1
    one = queue.head
    while one != index:
        before = one
        one = lane.requests[one].next
    after = lane.requests[index].next
    if before < 0:
        queue.head = after
    else:
        lane.requests[before].next = after
    if queue.tail == index:
        queue.tail = before
    queue.length -= 1
    scalars = lane.scalars[0]
    scalars.waiting -= 1
    scalars.waiting_tokens -= lane.clients[index].prompt_tokens
    lane.clients[index].queue = -1
    lane.requests[index].completed_at_s = math.nan


@kernel
def _leave_service(model, lane, index):
    """Drop a resident and its KV; returns the tokens that were computed for it."""
    scalars = lane.scalars[0]
    if scalars.aggregated:
        unpark_all(model, lane)
    slot = 0
    while lane.residents[slot].request != index:
        slot += 1
    context_tokens = model.shapes[lane.requests[index].shape].context_tokens
    computed = lane.residents[slot].computed - context_tokens
    for later in range(slot + 1, scalars.residents):
        move(lane, later, later - 1)
    scalars.residents -= 1
    scalars.slots -= 1
    scalars.left_service += 1
    return computed


@kernel
def _push(lane, index):
    """Add to the heap, in which nobody gives up before the one at half its position."""
    scalars = lane.scalars[0]
    place = scalars.leavers
    scalars.leavers += 1
    at_s = lane.clients[index].gives_up_at_s
    while place > 0:
        above = (place - 1) // 2
        other = lane.clients[above].leaver
        if lane.clients[other].gives_up_at_s <= at_s:
            break
        lane.clients[place].leaver = other
        place = above
    lane.clients[place].leaver = index


@kernel
def _pop(lane):
    """Take the first one off the heap."""
    scalars = lane.scalars[0]
    scalars.leavers -= 1
    size = scalars.leavers
    last = lane.clients[size].leaver
    at_s = lane.clients[last].gives_up_at_s
    place = 0
    while 2 * place + 1 < size:
        below = 2 * place + 1
        if below + 1 < size:
            left, right = lane.clients[below].leaver, lane.clients[below + 1].leaver
            if lane.clients[right].gives_up_at_s < lane.clients[left].gives_up_at_s:
                below += 1
        other = lane.clients[below].leaver
        if at_s <= lane.clients[other].gives_up_at_s:
            break
        lane.clients[place].leaver = other
        place = below
    lane.clients[place].leaver = last
