"""SGLang's default scheduler: the oracle of `validation.policies.sglang`."""

from __future__ import annotations

from typing import Any

from validation.reference.blocks import blocks_for, free_blocks, known_tokens
from validation.reference.core import Queueing
from validation.reference.request import Request

DEFAULTS = {
    "schedule_conservativeness": 1.0,
    "chunked_prefill_size": 8192,
    "max_running_requests": 2048,
    "max_output_tokens": 0,
    "clip_max_new_tokens": 4096,
}


def sglang(state: Queueing) -> list[Request]:
    """Prompts if there are any to compute; else one token for everybody."""
    parameters = {**DEFAULTS, **state.parameters}
    state.parameters = {**parameters, "requeue": "back", "progress": "kept"}
    first = min(0.7 * parameters["schedule_conservativeness"], 1.0)
    if not state.residents:
        state.memory["ratio"] = first
    ratio = state.memory.setdefault("ratio", first)
    batch = prompts(state, parameters, ratio)
    if batch:
        return batch
    if blocks_missing(state) <= free_blocks(state):
        lowest = 0.14 * first
        state.memory["ratio"] = max(ratio - (first - lowest) / 600, lowest)
    else:
        retract(state, parameters)
    for one in state.residents:
        one.chunk = None
        one.blocks = max(one.blocks, blocks_for(state, known_tokens(one)))
    return list(state.residents)


def asked_for(one: Request, parameters: dict[str, Any]) -> int:
    return max(one.decode_tokens, int(parameters["max_output_tokens"]))


def still_asked(one: Request, parameters: dict[str, Any]) -> int:
    return min(asked_for(one, parameters) - one.outputs, int(parameters["clip_max_new_tokens"]))


def prompts(state: Queueing, parameters: dict[str, Any], ratio: float) -> list[Request]:
    """A cut prompt that goes on, and the new ones that fit by the guess."""
    chunk = int(parameters["chunked_prefill_size"])
    batch = []
    for one in state.residents:
        if one.is_prefill:
            one.chunk = min(one.missing, chunk)
            chunk -= one.chunk
            if one.chunk:
                batch.append(one)
    block = state.server.block_tokens
    room = free_blocks(state) * block - ratio * sum(
        still_asked(one, parameters) for one in state.residents
    )
    while state.waiting and chunk > 0 and len(state.residents) < parameters["max_running_requests"]:
        head = state.waiting[0]
        guess = known_tokens(head) + still_asked(head, parameters) + block
        blocks = blocks_for(state, known_tokens(head))
        if (state.residents and guess >= room) or blocks > free_blocks(state):
            break
        head.chunk = min(head.missing, chunk)
        head.blocks = blocks
        chunk -= head.chunk
        room -= blocks * block + still_asked(head, parameters) + block
        state.admit(head)
        batch.append(head)
    return batch


def blocks_missing(state: Queueing) -> int:
    """For everybody's next token."""
    return sum(blocks_for(state, known_tokens(one)) - one.blocks for one in state.residents)


def retract(state: Queueing, parameters: dict[str, Any]) -> None:
    """Fewest output tokens first, of those the longest prompt, of those the last admitted."""
    while len(state.residents) > 1 and blocks_missing(state) > free_blocks(state):
        places = range(len(state.residents))
        victim = min(places, key=lambda place: (*_rank(state.residents[place]), -place))
        state.evict(state.residents[victim])
    done = sum(one.outputs + 20 for one in state.residents)
    asked = sum(asked_for(one, parameters) for one in state.residents)
    state.memory["ratio"] = min(done / (asked + 1), 1.0)


def _rank(one: Request) -> tuple[int, int]:
    return one.outputs, -(one.prefill_tokens + one.context_tokens)
