"""vllm-v1, as in POLICIES: the oracle of `validation.policies.vllm_v1`.

Blocks are handed out one by one (`validation.reference.block_pool`), with prefix caching and
without. What ended since the last decision gives back its blocks at the next one.
"""

from __future__ import annotations

import math

from validation.reference.block_pool import BlockPool
from validation.reference.core import Queueing
from validation.reference.request import Request

DEFAULTS = {
    "max_num_batched_tokens": 2048,
    "max_num_seqs": 256,
    "max_num_active_seqs": math.inf,
    "long_prefill_token_threshold": 0,
    "watermark": 0.0,
    "reserve_full_prompt": 1,
    "cap": math.inf,
    "pace": math.inf,
    "victim": "last-admitted",
    "requeue": "front",
    "progress": "kept",
    "async_scheduling": 0,
    "prefix_caching": 0,
}


def vllm_v1(state: Queueing) -> list[Request]:
    """Running requests first, the waiting ones if nobody was preempted."""
    state.parameters = {**DEFAULTS, **state.parameters}
    pool = state.pool = state.pool or _new_pool(state)
    pace, credit = state.parameters["pace"], state.credit
    if state.waiting or state.residents:
        state.credit = min(state.credit + pace, 1 + pace)
    _receive_results(state, pool)
    batch, preempted = _schedule(state, pool)
    # With a step under way the next call comes after its results.
    while not batch and preempted and state.residents and not state.under_way:
        batch, preempted = _schedule(state, pool)
    if not batch:  # An iteration earns credit.
        state.credit = credit
    pool.order = list(state.residents)
    return batch


def _new_pool(state: Queueing) -> BlockPool:
    server = state.server
    blocks = server.kv_capacity_tokens // server.block_tokens
    return BlockPool(blocks, server.block_tokens, bool(state.parameters["prefix_caching"]))


def _receive_results(state: Queueing, pool: BlockPool) -> None:
    """Blocks that new tokens have filled enter, and who has ended gives back its own."""
    for one in pool.order:
        ended = one not in state.residents
        if state.parameters["async_scheduling"]:
            computed = one.prefill_tokens + one.outputs - 1 if ended else one.cached
            pool.enter(one, computed - (one in state.tokens_under_way))
        if ended:
            pool.release(one)


def _schedule(state: Queueing, pool: BlockPool) -> tuple[list[Request], bool]:
    """One call of the scheduler: the batch, and whether anybody was preempted."""
    present = len(state.residents) + len(state.waiting)
    longest = state.parameters["long_prefill_token_threshold"]
    chunk_limit = longest if longest and present > 1 else math.inf
    batch, preempted = _running_pass(state, pool, chunk_limit)
    if not preempted:
        _waiting_pass(state, pool, chunk_limit, batch)
    return batch, preempted


def _budget_left(state: Queueing, batch: list[Request]) -> int:
    spent = sum(one.computes for one in batch)
    return int(state.parameters["max_num_batched_tokens"]) - spent


def _known(state: Queueing, one: Request) -> int:
    """Its tokens that have a value: one under way has none yet."""
    return one.cached + one.missing - (one in state.tokens_under_way)


def _running_pass(
    state: Queueing, pool: BlockPool, chunk_limit: float
) -> tuple[list[Request], bool]:
    """The batch, and whether anybody was preempted."""
    batch: list[Request] = []
    preempted = False
    for one in list(state.residents):
        if one not in state.residents or one.is_over:
            continue
        chunk = int(min(one.missing, chunk_limit, _budget_left(state, batch)))
        if chunk == 0:
            continue
        while pool.missing(one, one.cached + chunk) > len(pool.free):
            victim = _victim(state)
            preempted = True
            batch = [other for other in batch if other is not victim]
            _preempt(state, pool, victim)
            if victim is one:
                return batch, preempted
        one.chunk = chunk
        pool.take(one, one.cached + chunk, _known(state, one))
        batch.append(one)
    return batch, preempted


def _victim(state: Queueing) -> Request:
    """The last to run; by priority the least urgent, of equal ones the first to run."""
    if state.parameters["victim"] == "last-admitted":
        return state.residents[-1]
    return max(state.residents, key=lambda one: (one.priority, one.arrived_at_s))


def _preempt(state: Queueing, pool: BlockPool, victim: Request) -> None:
    pool.release(victim)
    state.evict(victim)
    by_priority = state.parameters["victim"] == "latest-arrival"
    if by_priority and state.parameters["requeue"] == "front":
        state.waiting.sort(key=urgency)


def urgency(one: Request) -> tuple[int, float, int]:
    """By which requests wait where they have priorities."""
    return one.priority, one.arrived_at_s, one.number


def _waiting_pass(
    state: Queueing, pool: BlockPool, chunk_limit: float, batch: list[Request]
) -> None:
    """Admit in order while budget, seats, credit and memory last; adds to `batch`."""
    parameters = state.parameters
    seats = min(parameters[name] for name in ("max_num_seqs", "max_num_active_seqs", "cap"))
    if any(one.priority for one in state.waiting):
        state.waiting.sort(key=urgency)
    while state.waiting and _budget_left(state, batch) > 0 and len(state.residents) < seats:
        head = state.waiting[0]
        known = head.cached + head.missing
        found = pool.find(head, known)
        head.prefilled = hit = len(found) * pool.block_tokens
        chunk = int(min(head.missing, chunk_limit, _budget_left(state, batch)))
        watermark = int(parameters["watermark"] * pool.blocks) if state.residents else 0
        tokens = known if parameters["reserve_full_prompt"] else head.cached + chunk
        need = pool.missing(head, tokens, found) + watermark
        held_back = head.evictions == 0 and state.residents and state.credit < 1
        if need > len(pool.free) or held_back:
            head.prefilled = 0
            return
        if head.evictions == 0:  # What was found costs nothing.
            state.credit = max(state.credit - (known - hit) / known, 0.0)
        pool.found_tokens[head] = hit
        head.chunk = chunk
        pool.take(head, head.cached + chunk, known, found)
        state.admit(head)
        batch.append(head)
