"""Blocks of KV cache, counted request by request, for the oracles of rules that allocate them."""

from __future__ import annotations

from validation.reference.core import Queueing
from validation.reference.request import Request


def total_blocks(state: Queueing) -> int:
    """M."""
    return state.server.kv_capacity_tokens // state.server.block_tokens


def free_blocks(state: Queueing) -> int:
    """Blocks that no resident holds."""
    return total_blocks(state) - sum(one.blocks for one in state.residents)


def blocks_for(state: Queueing, tokens: int) -> int:
    """⌈tokens / block⌉."""
    return -(-tokens // state.server.block_tokens)


def known_tokens(one: Request) -> int:
    """Prompt and generated tokens."""
    return one.cached + one.missing


def last_of(state: Queueing, candidates: list[Request]) -> Request:
    """The victim among `candidates`, which stand in order of admission."""
    if state.parameters["victim"] == "last-admitted":
        return candidates[-1]
    return max(candidates, key=lambda one: one.number)


def decode_pass(state: Queueing, decodes: list[Request]) -> list[Request]:
    """One token each, in order of admission; a free block is needed even if the last has room.

    Where there is none, those behind it and finally it itself are preempted.
    """
    batch = []
    for one in decodes:
        if one not in state.residents:
            continue
        while one in state.residents and free_blocks(state) < 1:
            state.evict(last_of(state, state.residents[state.residents.index(one) :]))
        if one in state.residents:
            one.chunk = None
            one.blocks = max(one.blocks, blocks_for(state, one.kv_at_stage))
            batch.append(one)
    return batch
