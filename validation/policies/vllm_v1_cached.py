"""vllm-v1 with prefix caching: the rule of `validation.policies.vllm_v1` on a pool of blocks.

A request that is admitted, for the first time or again, holds the blocks that are found with the
beginning of its tokens, and computes the rest, one token at least. What ended since the last
decision gives back its blocks at the next one, in the order of its batch. `Resident.held` of the
first in service stands for the blocks that all of them hold, each once. Of the pace an admission
spends the share of its tokens that it computes.
"""

from __future__ import annotations

from validation.policies.vllm_order import (
    ASYNC,
    BUDGET,
    RESERVE,
    VICTIM,
    WATERMARK,
    chunk_limit,
    earn_credit,
    next_queue,
    preempt,
    seats_of,
    victim_of,
)
from validation.simulator.compiling import kernel
from validation.simulator.engine import admit
from validation.simulator.prefix.pool import (
    enter,
    find,
    free_among,
    release,
    take,
    take_found,
)
from validation.simulator.window import in_window

# mypy: disable-error-code="no-untyped-def"


@kernel
def form_batch(model, lane, params, thresholds):
    """Schedule running requests; waiting ones only if nobody was preempted."""
    scalars = lane.scalars[0]
    scalars.ahead = int(params[ASYNC])
    credit = earn_credit(lane, params)
    receive_results(model, lane)
    running = scalars.decides_at_s < scalars.clock_s
    budget = int(params[BUDGET])
    again = True
    while again:
        scalars.token_budget = budget
        limit = chunk_limit(lane, params)
        preempted = schedule_running(model, lane, params, thresholds, limit)
        if not preempted:
            schedule_waiting(model, lane, params, thresholds, limit)
        nothing = preempted and scalars.token_budget == budget
        again = nothing and scalars.residents > 0 and not running
    if scalars.token_budget == budget:
        scalars.credit = credit
    _note_holders(model, lane)


@kernel
def receive_results(model, lane):
    """Blocks that new tokens have filled enter, and who has ended gives back its own."""
    scalars = lane.scalars[0]
    pool = lane.pool[0]
    pool.decision += 1
    for slot in range(scalars.residents):
        lane.holders[int(lane.residents[slot].note)].seen = pool.decision
    slot = 0
    for number in range(pool.holders):
        row = lane.holders[number].order
        holder = lane.holders[row]
        if holder.seen == pool.decision:
            if scalars.ahead:
                resident = lane.residents[slot]
                enter(model, lane, row, resident.computed - _under_way(lane, resident))
            slot += 1
            continue
        if scalars.ahead:
            shape = model.shapes[lane.requests[holder.request].shape]
            enter(model, lane, row, shape.prompt_tokens + shape.output_tokens - 1)
        release(lane, row)


@kernel
def _under_way(lane, resident):
    """Output tokens that the running iteration gives a resident: they have no value yet."""
    scalars = lane.scalars[0]
    running = scalars.decides_at_s < scalars.clock_s
    return 1 if running and resident.token_at_s == scalars.clock_s else 0


@kernel
def _note_holders(model, lane):
    """Who is in service until the next decision, and what all of them hold."""
    scalars = lane.scalars[0]
    pool = lane.pool[0]
    pool.holders = scalars.residents
    for slot in range(scalars.residents):
        lane.holders[slot].order = int(lane.residents[slot].note)
        lane.residents[slot].held = 0
    if scalars.residents > 0:
        used = lane.blocks.size - 1 - pool.free
        lane.residents[0].held = used * model.constants[0].block_tokens


@kernel
def schedule_running(model, lane, params, priorities, limit):
    """Give running requests tokens and blocks, in order; returns whether anyone was preempted."""
    scalars = lane.scalars[0]
    pool = lane.pool[0]
    size = model.constants[0].block_tokens
    preempted = False
    slot = 0
    while slot < scalars.residents:
        resident = lane.residents[slot]
        work = min(resident.known - resident.computed, limit, scalars.token_budget)
        if work > 0:
            row = int(resident.note)
            tokens = resident.computed + work
            known = resident.known - _under_way(lane, resident)
            needed = (tokens + size - 1) // size
            while needed - lane.holders[row].owned > pool.free:
                victim = victim_of(model, lane, params[VICTIM], priorities)
                preempted = True
                if victim < slot:
                    scalars.token_budget += lane.residents[victim].work
                _drop(model, lane, victim, params, priorities)
                if victim == slot:
                    for later in range(slot, scalars.residents):
                        lane.residents[later].work = 0
                    return preempted
                if victim < slot:
                    slot -= 1
            take(model, lane, row, tokens, known)
        lane.residents[slot].work = work
        scalars.token_budget -= work
        slot += 1
    return preempted


@kernel
def _drop(model, lane, slot, params, priorities):
    """Preempt a resident; what of its tokens is found again when it returns is not lost."""
    scalars = lane.scalars[0]
    resident = lane.residents[slot]
    lane.computed_before[resident.request] = resident.computed
    if in_window(scalars):
        scalars.tokens_recomputed -= resident.computed
    release(lane, int(resident.note))
    preempt(model, lane, slot, params, priorities)


@kernel
def schedule_waiting(model, lane, params, priorities, limit):
    """Admit in order while budget, seats, credit and memory last."""
    scalars = lane.scalars[0]
    pool = lane.pool[0]
    size = model.constants[0].block_tokens
    seats = seats_of(params)
    while scalars.waiting > 0 and scalars.token_budget > 0 and scalars.residents < seats:
        queue = next_queue(lane, priorities)
        index = lane.queues[queue].head
        request = lane.requests[index]
        row = lane.holders[pool.spare_rows - 1].spare
        found = find(model, lane, row, index, request.known)
        hit = found * size
        work = min(request.known - hit, limit, scalars.token_budget)
        tokens = request.known if params[RESERVE] != 0.0 else hit + work
        need = (tokens + size - 1) // size - found + free_among(lane, row, found)
        if scalars.residents > 0:
            need += int(params[WATERMARK] * lane.blocks.size)
            if request.evictions == 0 and scalars.credit < 1.0:
                break
        if need > pool.free:
            break
        if request.evictions == 0:
            scalars.credit = max(scalars.credit - (request.known - hit) / request.known, 0.0)
        _count(model, lane, index, hit)
        pool.spare_rows -= 1
        admit(model, lane, queue)
        resident = lane.residents[scalars.slots - 1]
        resident.note = row
        resident.computed = hit
        resident.work = work
        take_found(lane, row, index, found)
        take(model, lane, row, hit + work, request.known)
        scalars.token_budget -= work


@kernel
def _count(model, lane, index, hit):
    """What was found at an admission; what it spares was never to be done.

    Of tokens that a preemption threw away those are recomputed, and lost, that are not found.
    """
    scalars = lane.scalars[0]
    pool = lane.pool[0]
    request = lane.requests[index]
    before = lane.computed_before[index] if request.evictions > 0 else 0
    token_s = model.constants[0].prefill_work_s
    spared_s = max(hit - before, 0) * token_s
    scalars.arrived_work_s -= spared_s
    scalars.done_work_s -= spared_s
    scalars.lost_work_s -= min(hit, before) * token_s
    if not in_window(scalars):
        return
    scalars.tokens_recomputed += max(before - hit, 0)
    pool.saved_tokens += hit
    if request.evictions == 0:
        pool.queried_tokens += request.known
        pool.hit_tokens += hit
