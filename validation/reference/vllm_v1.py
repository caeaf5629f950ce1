"""vllm-v1, as in POLICIES: the oracle of `validation.policies.vllm_v1`."""

from __future__ import annotations

import math

from validation.reference.blocks import (
    blocks_for,
    free_blocks,
    known_tokens,
    last_of,
    total_blocks,
)
from validation.reference.core import Queueing, Request

DEFAULTS = {
    "max_num_batched_tokens": 2048,
    "max_num_seqs": 256,
    "watermark": 0.0,
    "reserve_full_prompt": 1,
    "cap": math.inf,
    "pace": math.inf,
    "victim": "last-admitted",
    "requeue": "front",
    "progress": "kept",
    "async_scheduling": 0,
}


def vllm_v1(state: Queueing) -> list[Request]:
    """Running requests first, the waiting ones if nobody was preempted."""
    state.parameters = {**DEFAULTS, **state.parameters}
    pace = state.parameters["pace"]
    if state.waiting or state.residents:
        state.credit = min(state.credit + pace, 1 + pace)
    batch, preempted = running_pass(state)
    if not preempted:
        waiting_pass(state, batch)
    # With a step under way the next call comes after its results.
    while not batch and state.residents and not state.under_way:
        batch, _ = running_pass(state)
    return batch


def budget_left(state: Queueing, batch: list[Request]) -> int:
    spent = sum(one.computes for one in batch)
    return int(state.parameters["max_num_batched_tokens"]) - spent


def running_pass(state: Queueing) -> tuple[list[Request], bool]:
    """The batch, and whether anybody was preempted."""
    batch: list[Request] = []
    preempted = False
    for one in list(state.residents):
        if one not in state.residents or one.is_over:
            continue
        chunk = min(one.missing, budget_left(state, batch))
        if chunk == 0:
            continue
        need = blocks_for(state, one.cached + chunk) - one.blocks
        # One block, the null block, is never handed out.
        while need > free_blocks(state) - 1:
            victim = last_of(state, state.residents)
            preempted = True
            batch = [other for other in batch if other is not victim]
            state.evict(victim)
            if victim is one:
                return batch, preempted
        one.chunk = chunk
        one.blocks += max(need, 0)
        batch.append(one)
    return batch, preempted


def waiting_pass(state: Queueing, batch: list[Request]) -> None:
    """Admit in order while budget, seats, credit and memory last; adds to `batch`."""
    parameters = state.parameters
    seats = min(parameters["max_num_seqs"], parameters["cap"])
    while state.waiting and budget_left(state, batch) > 0 and len(state.residents) < seats:
        head = state.waiting[0]
        chunk = min(head.missing, budget_left(state, batch))
        tokens = known_tokens(head) if parameters["reserve_full_prompt"] else head.cached + chunk
        watermark = int(parameters["watermark"] * total_blocks(state)) if state.residents else 0
        if blocks_for(state, tokens) + watermark > free_blocks(state) - 1:
            return
        if head.evictions == 0:
            if state.residents and state.credit < 1:
                return
            state.credit = max(state.credit - 1, 0.0)
        head.chunk = chunk
        head.blocks = blocks_for(state, head.cached + chunk)
        state.admit(head)
        batch.append(head)
