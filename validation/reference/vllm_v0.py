"""vllm-v0, as in POLICIES: the oracle of `validation.policies.vllm_v0`."""

from __future__ import annotations

from validation.reference.blocks import (
    blocks_for,
    decode_pass,
    free_blocks,
    known_tokens,
    total_blocks,
)
from validation.reference.core import Queueing
from validation.reference.request import Request

DEFAULTS = {
    "watermark": 0.01,
    "max_batched_tokens": 4096,
    "padded": 0,
    "cap": 128,
    "victim": "last-admitted",
    "requeue": "front",
    "progress": "kept",
}


def vllm_v0(state: Queueing) -> list[Request]:
    """Whole prompts; if there is none, one token for everybody."""
    state.parameters = {**DEFAULTS, **state.parameters}
    parameters = state.parameters
    reserve = int(parameters["watermark"] * total_blocks(state))
    lengths: list[int] = []
    admitted: list[Request] = []
    while state.waiting and len(state.residents) < parameters["cap"]:
        head = state.waiting[0]
        need = blocks_for(state, known_tokens(head))
        lengths.append(head.missing)
        counted = len(lengths) * max(lengths) if parameters["padded"] else sum(lengths)
        if free_blocks(state) - need < reserve or counted > parameters["max_batched_tokens"]:
            break
        head.blocks = need
        state.admit(head)
        admitted.append(head)
    prefills = [one for one in admitted if one.is_prefill]
    return prefills or decode_pass(state, list(state.residents))
