"""What the rules that allocate KV by blocks have in common (vllm-v1, vllm-v0, sarathi).

A resident keeps its blocks, `held`, until it completes or is preempted, also in iterations in which
it does not run. The engine's scratch fields count the free ones while a batch is formed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fluid.errors import InputError
from fluid.server import peak_kv_tokens
from validation.simulator.compiling import inlined, kernel
from validation.simulator.decoders import parked_need
from validation.simulator.engine import choose_victim, evict
from validation.simulator.kv import block_rounded
from validation.simulator.model import Model

# mypy: disable-error-code="no-untyped-def"


@kernel
def free_tokens(model, lane):
    """KV tokens in blocks that nobody holds."""
    free = model.constants[0].kv_capacity_tokens
    for slot in range(lane.scalars[0].residents):
        free -= lane.residents[slot].held
    return free


@inlined
def free_beside_parked(model, lane):
    """The same if the active residents held nothing and the parked had computed their tokens."""
    return model.constants[0].kv_capacity_tokens - parked_need(model, lane)


@inlined
def watermark_tokens(model, share):
    """int(w·M) blocks, in tokens."""
    block = model.constants[0].block_tokens
    return int(share * (model.constants[0].kv_capacity_tokens // block)) * block


@kernel
def grow(model, lane, resident, tokens):
    """Give a resident the blocks for `tokens` KV tokens; it never returns any."""
    if tokens > resident.held:
        held = block_rounded(model, tokens)
        lane.scalars[0].kv_free_tokens -= held - resident.held
        resident.held = held


@kernel
def decode_or_preempt(model, lane, slot, victim_rule, requeue, progress):
    """Let the resident in `slot` compute its next token; False if it was preempted itself.

    It needs a free block even if its last one has room. Until there is one, residents from the tail
    down to itself are preempted.
    """
    scalars = lane.scalars[0]
    while scalars.kv_free_tokens < model.constants[0].block_tokens:
        victim = choose_victim(lane, victim_rule, slot)
        scalars.kv_free_tokens += lane.residents[victim].held
        evict(model, lane, victim, 0, requeue, progress)
        if victim == slot:
            return False
    resident = lane.residents[slot]
    resident.work = 1
    grow(model, lane, resident, resident.known)
    return True


def peak_tokens(model: Model, block_tokens: int = 1) -> NDArray[np.int64]:
    """KV tokens of each shape in its last stage, in whole blocks, shape (shapes,).

    Prefill emits the first token: these rules take no server where it does not.
    """
    context = model.shapes["context_tokens"]
    prompt = model.shapes["prompt_tokens"] - context
    return peak_kv_tokens(prompt, model.shapes["output_tokens"], context, block_tokens=block_tokens)


def require_blocks(policy: str, model: Model, reserved: int) -> None:
    """Refuse a request whose peak leaves fewer than `reserved` blocks free on an empty server.

    Raises:
        InputError: Naming the request, its peak and the room there is.
    """
    block = int(model.constants[0]["block_tokens"])
    blocks = int(model.constants[0]["kv_capacity_tokens"]) // block
    usable = (blocks - reserved) * block
    peak = peak_tokens(model, block)
    too_large = np.flatnonzero(peak > usable)
    if len(too_large):
        raise InputError(
            f"policy {policy}: {request_name(model, int(too_large[0]))}",
            f"{int(peak[too_large[0]])} KV tokens at its end",
            f"at most {usable}: {reserved} of {blocks} blocks stays free",
        )


def request_name(model: Model, shape: int) -> str:
    """A request of this shape, in words."""
    record = model.shapes[shape]
    return f"request of {record['prompt_tokens']} + {record['output_tokens']} tokens"


def require_watermark_blocks(policy: str, model: Model, watermark: float) -> None:
    """Refuse what `decode_or_preempt` and a watermark that always holds could never serve.

    Raises:
        InputError: A request whose peak leaves neither the watermark nor one block free.
    """
    constants = model.constants[0]
    blocks = int(constants["kv_capacity_tokens"]) // int(constants["block_tokens"])
    require_blocks(policy, model, max(int(watermark * blocks), 1))
