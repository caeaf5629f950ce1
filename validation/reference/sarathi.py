"""sarathi, as in POLICIES: the oracle of `validation.policies.sarathi`."""

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
    "chunk": 512,
    "cap": 128,
    "watermark": 0.01,
    "victim": "last-admitted",
    "requeue": "front",
    "progress": "kept",
}


def sarathi(state: Queueing) -> list[Request]:
    """Decodes, then partial prefills, then new requests."""
    state.parameters = {**DEFAULTS, **state.parameters}
    parameters = state.parameters
    batch = decode_pass(state, [one for one in state.residents if not one.is_prefill])
    left = parameters["chunk"] - len(batch)
    for one in state.residents:
        if one.is_prefill and left > 0:
            one.chunk = min(one.missing, left)
            left -= one.chunk
            batch.append(one)
    reserve = int(parameters["watermark"] * total_blocks(state))
    while state.waiting and len(state.residents) < parameters["cap"] and left > 0:
        head = state.waiting[0]
        need = blocks_for(state, known_tokens(head))
        if free_blocks(state) - need < reserve:
            break
        head.chunk = min(head.missing, left)
        head.blocks = need
        left -= head.chunk
        state.admit(head)
        batch.append(head)
    return batch
