"""What a policy does to requests: they wait in queues, are admitted, advance and are evicted.

The loop that asks it is `validation.simulator.loop`.
"""

from __future__ import annotations

import math

from validation.simulator.compiling import inlined, kernel
from validation.simulator.decoders import (
    active_slot,
    end_tokens_of,
    make_active,
    move,
    parked_need,
)
from validation.simulator.kv import block_rounded
from validation.simulator.window import in_window

# mypy: disable-error-code="no-untyped-def, no-untyped-call"


@inlined
def forget_progress(model, lane, index):
    """What a request knows on arrival, and again after an eviction that loses its progress."""
    request = lane.requests[index]
    shape = model.shapes[request.shape]
    decode_only = shape.prompt_tokens == shape.context_tokens
    request.known = shape.prompt_tokens + (1 if decode_only else 0)


@inlined
def outputs_owed(model, request):
    """Outputs that a waiting request has still to get."""
    owed = end_tokens_of(model, request.shape) - request.known
    # Where the end of its prompt emits nothing, it knows one token less before that.
    return min(owed, model.shapes[request.shape].output_tokens)


@inlined
def push_back(lane, queue_index, request_index):
    """Let a request wait at the end of a queue."""
    queue = lane.queues[queue_index]
    lane.requests[request_index].next = -1
    if queue.length == 0:
        queue.head = request_index
    else:
        lane.requests[queue.tail].next = request_index
    queue.tail = request_index
    queue.length += 1
    _waits(lane, queue_index, request_index)


@kernel
def push_front(lane, queue_index, request_index):
    """Let a request wait at the head of a queue."""
    queue = lane.queues[queue_index]
    lane.requests[request_index].next = queue.head
    queue.head = request_index
    if queue.length == 0:
        queue.tail = request_index
    queue.length += 1
    _waits(lane, queue_index, request_index)


@inlined
def _waits(lane, queue_index, request_index):
    lane.scalars[0].waiting += 1
    if lane.clients.size > 0:
        client = lane.clients[request_index]
        client.queue = queue_index
        lane.scalars[0].waiting_tokens += client.prompt_tokens


@inlined
def head_tokens(model, lane, queue_index):
    """KV tokens that the head of a queue would occupy if it were admitted now."""
    head = lane.queues[queue_index].head
    return block_rounded(model, lane.requests[head].known)


@inlined
def admit(model, lane, queue_index):
    """Make the head of a queue the newest resident, all its known tokens to be computed now.

    Returns the KV tokens that it occupies.
    """
    scalars = lane.scalars[0]
    queue = lane.queues[queue_index]
    request = lane.requests[queue.head]
    shape = model.shapes[request.shape]
    resident = lane.residents[scalars.slots]
    resident.parked_at = -1
    resident.request = queue.head
    resident.computed = shape.context_tokens
    resident.known = request.known
    resident.work = request.known - shape.context_tokens
    resident.held = block_rounded(model, request.known)
    resident.prompt = shape.prompt_tokens
    resident.left = outputs_owed(model, request)
    resident.note = 0.0
    resident.token_at_s = request.completed_at_s
    request.completed_at_s = math.nan
    queue.head = request.next
    queue.length -= 1
    scalars.waiting -= 1
    if lane.clients.size > 0:
        client = lane.clients[resident.request]
        client.queue = -1
        client.admitted = scalars.admissions
        scalars.admissions += 1
        scalars.waiting_tokens -= client.prompt_tokens
    scalars.residents += 1
    if scalars.aggregated:
        make_active(lane, scalars.slots)
    scalars.slots += 1
    return resident.held


@inlined
def advance_all(model, lane):
    """`advance` for a rule on aggregates: all active residents, and all parked ones with them."""
    need = parked_need(model, lane)
    for number in range(lane.scalars[0].active):
        need += advance(model, lane.residents[active_slot(lane, number)])
    return need


@inlined
def advance(model, resident):
    """Let a resident compute all it knows; returns the KV tokens that it occupies then."""
    resident.work = resident.known - resident.computed
    resident.held = block_rounded(model, resident.known)
    return resident.held


@kernel
def choose_victim(lane, latest_arrival, first=0):
    """Slot to evict, from `first` on: the last admitted, or the latest to arrive."""
    last = lane.scalars[0].residents - 1
    if latest_arrival == 0.0:
        return last
    victim = first
    for slot in range(first + 1, last + 1):
        if lane.residents[slot].request > lane.residents[victim].request:
            victim = slot
    return victim


@kernel
def evict(model, lane, slot, queue_index, requeue_back, keep_progress):
    """Drop a resident's KV and send it back to its queue."""
    scalars = lane.scalars[0]
    resident = lane.residents[slot]
    index = resident.request
    request = lane.requests[index]
    request.evictions += 1
    if in_window(scalars):
        scalars.evictions += 1
        context_tokens = model.shapes[request.shape].context_tokens
        scalars.tokens_recomputed += resident.computed - context_tokens
    constants = model.constants[0]
    ends = resident.left == 0
    scalars.lost_work_s += 0.0 if ends else resident.computed * constants.prefill_work_s
    if ends or keep_progress != 0.0:
        request.known = resident.known
    else:
        lost = model.shapes[request.shape].output_tokens - resident.left
        forget_progress(model, lane, index)
        scalars.lost_work_s += lost * (
            constants.output_work_s + constants.kv_work_s * (resident.known - 0.5 * lost)
        )
        if in_window(scalars):
            scalars.tokens_lost += lost
    token_at_s = resident.token_at_s
    for later in range(slot + 1, scalars.residents):
        move(lane, later, later - 1)
    scalars.residents -= 1
    scalars.slots -= 1
    if ends:  # With the iteration that runs while a batch is formed ahead.
        return
    request.completed_at_s = token_at_s
    if requeue_back != 0.0:
        push_back(lane, queue_index, index)
    else:
        push_front(lane, queue_index, index)


@kernel
def forget_waiting_tokens(lane):
    """Who still waits at the end of a run has not completed, whatever outputs it has had."""
    for queue in range(lane.queues.size):
        index = lane.queues[queue].head
        while index >= 0:
            lane.requests[index].completed_at_s = math.nan
            index = lane.requests[index].next
