"""TensorRT-LLM's capacity policies: the oracle of `validation.policies.trtllm`."""

from __future__ import annotations

from validation.reference.blocks import blocks_for, free_blocks, known_tokens, total_blocks
from validation.reference.core import Queueing
from validation.reference.request import Request

DEFAULTS = {"max_num_tokens": 8192, "max_batch_size": 2048, "max_output_tokens": 0}


def trtllm_no_evict(state: Queueing) -> list[Request]:
    """Whoever fits at full length beside all others at full length."""
    parameters = {**DEFAULTS, **state.parameters}
    for one in state.residents:
        one.blocks = blocks_for(state, known_tokens(one))

    def most_blocks(one: Request) -> int:
        prompt = one.prefill_tokens + one.context_tokens
        return blocks_for(state, prompt + max(one.decode_tokens, parameters["max_output_tokens"]))

    batch = tokens_for(state.residents, parameters["max_num_tokens"])
    while has_room(state, batch, parameters):
        head = state.waiting[0]
        if sum(map(most_blocks, [*state.residents, head])) > total_blocks(state):
            break
        admit(state, head, batch, parameters)
    return batch


def trtllm_max_utilization(state: Queueing) -> list[Request]:
    """Whose prompt fits; the last is paused where a block is missing."""
    parameters = {**DEFAULTS, **state.parameters}
    state.parameters = {**parameters, "requeue": "front", "progress": "kept"}
    paused = False
    for one in list(state.residents):
        need = blocks_for(state, known_tokens(one)) - one.blocks
        while one in state.residents and need > free_blocks(state):
            state.evict(state.residents[-1])
            paused = True
        if one not in state.residents:
            break
        one.blocks += need
    batch = tokens_for(state.residents, parameters["max_num_tokens"])
    while not paused and has_room(state, batch, parameters):
        head = state.waiting[0]
        if blocks_for(state, known_tokens(head)) > free_blocks(state):
            break
        admit(state, head, batch, parameters)
    return batch


def tokens_for(residents: list[Request], budget: int) -> list[Request]:
    """The batch: one token for each that decodes, then chunks in order."""
    batch = []
    decodes = [one for one in residents if one.missing == 1]
    for one in decodes + [one for one in residents if one.missing > 1]:
        one.chunk = min(one.missing, budget)
        budget -= one.chunk
        if one.chunk:
            batch.append(one)
    return batch


def has_room(state: Queueing, batch: list[Request], parameters: dict[str, int]) -> bool:
    """Whether somebody waits for whom there are a seat and a token."""
    left = parameters["max_num_tokens"] - sum(one.computes for one in batch)
    return bool(state.waiting) and left > 0 and len(state.residents) < parameters["max_batch_size"]


def admit(state: Queueing, head: Request, batch: list[Request], parameters: dict[str, int]) -> None:
    left = parameters["max_num_tokens"] - sum(one.computes for one in batch)
    head.chunk = min(head.missing, left)
    head.blocks = blocks_for(state, known_tokens(head))
    state.admit(head)
    batch.append(head)
