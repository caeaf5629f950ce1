"""vLLM's current scheduler (POLICIES, vllm-v1): mixed batches, chunked prefill, preemption.

Running requests come first, in order of admission; then the waiting ones, while the token budget
lasts. A running request that finds no free block preempts the last of running, which goes back to
the head of waiting and recomputes everything; a readmitted request stands at the end of running.

Decided here, as vLLM does it: the watermark counts from the first admission of a step on, and
applies to the chunk where `reserve_full_prompt` is off; a request whose turn comes after the budget
is spent gets nothing and is not asked for memory. With `victim=latest-arrival` (vLLM's priority
order, `validation.policies.vllm_order`) the victim may already have got tokens in this step: they
return to the budget, but the chunk of the request that needs the block stays as it was; a step in
which the only effect was that a request preempted itself takes no time. `cap` is a second
`max_num_seqs`; `pace` (THEORY 3.5) is spent by first admissions only, never by a preempted request.
A decode-only request takes one token of the budget on admission.

With `async_scheduling` (vLLM's default) a step is scheduled when the one before it begins: a token
that this one computes can be scheduled further, but who arrives meanwhile has to wait for another
step, and a request whose last token is under way is passed over and keeps its seat and its blocks,
which a preemption may take. The default here is 0: published figures are those without it.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fluid.errors import InputError
from validation.policies.blocks import (
    free_beside_parked,
    free_tokens,
    grow,
    require_blocks,
    watermark_tokens,
)
from validation.policies.vllm_order import (
    ASYNC,
    BUDGET,
    CACHING,
    PACE,
    PARAMETERS,
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
from validation.policies.vllm_v1_cached import form_batch as form_cached_batch
from validation.simulator.compiling import inlined, kernel
from validation.simulator.decoders import active_slot
from validation.simulator.engine import admit
from validation.simulator.kv import block_rounded
from validation.simulator.model import Model
from validation.simulator.policy import ConfiguredPolicy, Policy

# mypy: disable-error-code="no-untyped-def"


@inlined
def queue_of(model, shape):
    """One queue for all."""
    return 0


@kernel
def queue_of_class(model, shape):
    """One for each class, where they have priorities."""
    return model.shapes[shape].report_class


@kernel
def form_batch(model, lane, params, thresholds):
    """Schedule running requests; waiting ones only if nobody was preempted."""
    scalars = lane.scalars[0]
    scalars.ahead = int(params[ASYNC])
    credit = earn_credit(lane, params)
    budget = int(params[BUDGET])
    scalars.token_budget = budget
    scalars.kv_free_tokens = free_tokens(model, lane) - model.constants[0].block_tokens
    running = scalars.decides_at_s < scalars.clock_s
    again = True
    while again:
        limit = chunk_limit(lane, params)
        preempted = schedule_running(model, lane, params, thresholds, limit)
        if not preempted:
            schedule_waiting(model, lane, params, thresholds, limit)
        nothing = preempted and scalars.token_budget == budget
        again = nothing and scalars.residents > 0 and not running
    if scalars.token_budget == budget:
        scalars.credit = credit


@inlined
def form_aggregated(model, lane, params, thresholds):
    """The same while every running request gets its token or chunk, and the blocks for it."""
    scalars = lane.scalars[0]
    scalars.ahead = int(params[ASYNC])
    budget = int(params[BUDGET]) - scalars.parked
    free = free_beside_parked(model, lane) - model.constants[0].block_tokens
    if budget < 0:
        return False
    limit = chunk_limit(lane, params)
    for number in range(scalars.active):
        slot = active_slot(lane, number)
        resident = lane.residents[slot]
        missing = min(resident.known - resident.computed, limit)
        if missing > budget and slot < scalars.slots - 1:
            return False  # It takes tokens from those behind it.
        work = min(missing, budget)
        budget -= work
        free -= max(block_rounded(model, resident.computed + work), resident.held)
    if free < 0:
        return False
    credit = earn_credit(lane, params)
    scalars.token_budget = int(params[BUDGET]) - scalars.parked
    scalars.kv_free_tokens = free
    for number in range(scalars.active):
        resident = lane.residents[active_slot(lane, number)]
        resident.work = min(resident.known - resident.computed, limit, scalars.token_budget)
        scalars.token_budget -= resident.work
        tokens = resident.computed + resident.work
        resident.held = max(block_rounded(model, tokens), resident.held)
    schedule_waiting(model, lane, params, thresholds, limit)
    if scalars.token_budget == int(params[BUDGET]):
        scalars.credit = credit
    if scalars.credit >= 1.0 + params[PACE]:
        constants = model.constants[0]
        scalars.undisturbed_tokens = constants.kv_capacity_tokens - constants.block_tokens
    return True


@kernel
def schedule_running(model, lane, params, priorities, limit):
    """Give running requests tokens and blocks, in order; returns whether anyone was preempted."""
    scalars = lane.scalars[0]
    preempted = False
    slot = 0
    while slot < scalars.residents:
        resident = lane.residents[slot]
        work = min(resident.known - resident.computed, limit, scalars.token_budget)
        tokens = resident.computed + work
        if tokens > resident.held:
            missing = block_rounded(model, tokens) - resident.held
            while missing > scalars.kv_free_tokens:
                victim = victim_of(model, lane, params[VICTIM], priorities)
                preempted = True
                scalars.kv_free_tokens += lane.residents[victim].held
                if victim < slot:
                    scalars.token_budget += lane.residents[victim].work
                preempt(model, lane, victim, params, priorities)
                if victim == slot:
                    pause_from(lane, slot)
                    return preempted
                if victim < slot:
                    slot -= 1
            resident = lane.residents[slot]
            grow(model, lane, resident, tokens)
        resident.work = work
        scalars.token_budget -= work
        slot += 1
    return preempted


@kernel
def pause_from(lane, first):
    """Let the residents from slot `first` on keep their blocks and wait."""
    for slot in range(first, lane.scalars[0].residents):
        lane.residents[slot].work = 0


@inlined
def schedule_waiting(model, lane, params, priorities, limit):
    """Admit in order while budget, seats, credit and memory last."""
    scalars = lane.scalars[0]
    if scalars.waiting == 0:
        return
    watermark = watermark_tokens(model, params[WATERMARK])
    seats = seats_of(params)
    while scalars.waiting > 0 and scalars.token_budget > 0 and scalars.residents < seats:
        queue = next_queue(lane, priorities)
        request = lane.requests[lane.queues[queue].head]
        context = model.shapes[request.shape].context_tokens
        tokens = min(request.known, context + min(limit, scalars.token_budget))
        need = block_rounded(model, request.known if params[RESERVE] != 0.0 else tokens)
        if scalars.residents > 0:
            need += watermark
            if request.evictions == 0 and scalars.credit < 1.0:
                break
        if need > scalars.kv_free_tokens:
            break
        if request.evictions == 0:
            scalars.credit = max(scalars.credit - 1.0, 0.0)
        admit(model, lane, queue)
        resident = lane.residents[scalars.slots - 1]
        resident.work = tokens - context
        resident.held = block_rounded(model, tokens)
        scalars.kv_free_tokens -= resident.held
        scalars.token_budget -= resident.work


def require_served(model: Model, params: NDArray[np.float64]) -> None:
    """A request has all blocks but the null block to itself once nobody else runs.

    Raises:
        InputError: One needs more, or prefixes are cached of requests whose KV came from elsewhere,
            or whose clients give up: nobody has said what becomes of their blocks.
    """
    require_blocks("vllm-v1", model, reserved=1)
    if params[CACHING] == 0.0:
        return
    field = "policy vllm-v1: prefix_caching"
    if model.shapes["context_tokens"].any():
        raise InputError(field, 1, "0 with context_tokens: their KV was not computed here")
    if model.constants[0]["patience_s"] > 0:
        raise InputError(field, 1, "0 with clients that give up")


def variant(configured: ConfiguredPolicy) -> Policy:
    """The kernels for these parameters."""
    caches, ranked = bool(configured.numbers[CACHING]), bool(configured.priorities)
    return _VARIANTS[caches, ranked] if caches or ranked else configured.policy


VLLM_V1 = Policy(
    name="vllm-v1",
    summary="vLLM today: running first, chunked prefill, preempt the last and recompute",
    parameters=PARAMETERS,
    form_batch=form_batch,
    queue_of=queue_of,
    form_aggregated=form_aggregated,
    engine_convention_only=True,
    require_served=require_served,
    prioritises=True,
    variant=variant,
)

_PRIORITIES = replace(VLLM_V1, name="vllm-v1 by class", queue_of=queue_of_class)
_CACHED = replace(
    VLLM_V1,
    name="vllm-v1 cached",
    form_batch=form_cached_batch,
    form_aggregated=None,
    caches=True,
)
_VARIANTS = {
    (False, True): _PRIORITIES,
    (True, False): _CACHED,
    (True, True): replace(_CACHED, name="vllm-v1 cached by class", queue_of=queue_of_class),
}
