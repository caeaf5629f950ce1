"""TensorRT-LLM's two capacity policies (in-flight batching, chunked context, no block reuse).

Both look at requests in order of arrival, those in service first; a request that does not fit keeps
those behind it out. Tokens are handed out after that: one for each that decodes, then chunks of
prompts in order, up to `max_num_tokens`.

- `trtllm-no-evict` (GUARANTEED_NO_EVICT, the engine's default) admits a request if the blocks for
  its prompt and the most that it may put out are free beside what those in service may still take.
  Nobody is ever evicted. Clients that ask for more output than they take are `max_output_tokens`.
- `trtllm-max-utilization` (MAX_UTILIZATION) admits it if the blocks for its prompt are free. Where
  somebody in service finds no block, the last in service is paused: it gives all blocks back, keeps
  its tokens, stays ahead of all that wait, and computes prompt and output again. Nobody is admitted
  in an iteration that paused anybody.

Decided here: blocks for a whole prompt are taken at its first chunk, as the engine's capacity
scheduler counts them; there is no block that is never handed out.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fluid.errors import InputError
from validation.policies.blocks import free_tokens, request_name, require_blocks
from validation.simulator.compiling import kernel
from validation.simulator.engine import admit, evict, head_tokens
from validation.simulator.kv import block_rounded
from validation.simulator.model import Model
from validation.simulator.policy import Parameter, Policy

# mypy: disable-error-code="no-untyped-def"

TOKENS, SEATS, LONGEST = range(3)
_FRONT, _KEPT = 0.0, 1.0


@kernel
def queue_of(model, shape):
    """One queue for all."""
    return 0


@kernel
def form_without_eviction(model, lane, params, thresholds):
    """Admit whoever fits at full length beside all others at full length."""
    scalars = lane.scalars[0]
    free = model.constants[0].kv_capacity_tokens
    for slot in range(scalars.residents):
        resident = lane.residents[slot]
        resident.held = block_rounded(model, resident.known)
        free -= most_tokens(model, params, lane.requests[resident.request].shape)
    budget = give_tokens(lane, params)
    while scalars.waiting > 0 and budget > 0 and scalars.residents < params[SEATS]:
        free -= most_tokens(model, params, lane.requests[lane.queues[0].head].shape)
        if free < 0:
            break
        budget = admit_chunk(model, lane, budget)


@kernel
def form_with_pauses(model, lane, params, thresholds):
    """Pause the last while a block is missing; admit whose prompt fits if nobody was."""
    scalars = lane.scalars[0]
    scalars.kv_free_tokens = free_tokens(model, lane)
    paused = False
    slot = 0
    while slot < scalars.residents:
        resident = lane.residents[slot]
        missing = block_rounded(model, resident.known) - resident.held
        while missing > scalars.kv_free_tokens and slot < scalars.residents:
            last = scalars.residents - 1
            scalars.kv_free_tokens += lane.residents[last].held
            evict(model, lane, last, 0, _FRONT, _KEPT)
            paused = True
        if slot < scalars.residents:
            scalars.kv_free_tokens -= missing
            resident.held += missing
        slot += 1
    budget = give_tokens(lane, params)
    while not paused and scalars.waiting > 0 and budget > 0 and scalars.residents < params[SEATS]:
        if head_tokens(model, lane, 0) > scalars.kv_free_tokens:
            break
        budget = admit_chunk(model, lane, budget)


@kernel
def most_tokens(model, params, shape_index):
    """KV, in whole blocks, of a request that puts out as much as it may."""
    shape = model.shapes[shape_index]
    output = max(shape.output_tokens, int(params[LONGEST]))
    return block_rounded(model, shape.prompt_tokens + output)


@kernel
def give_tokens(lane, params):
    """A token for each resident that decodes, then chunks in order; returns what is left."""
    scalars = lane.scalars[0]
    budget = int(params[TOKENS])
    for slot in range(scalars.residents):
        resident = lane.residents[slot]
        resident.work = 0
        if resident.known - resident.computed == 1 and budget > 0:
            resident.work = 1
            budget -= 1
    for slot in range(scalars.residents):
        resident = lane.residents[slot]
        if resident.known - resident.computed > 1:
            resident.work = min(resident.known - resident.computed, budget)
            budget -= resident.work
    return budget


@kernel
def admit_chunk(model, lane, budget):
    """Admit the head with its blocks and as much of its prompt as the tokens last for."""
    scalars = lane.scalars[0]
    scalars.kv_free_tokens -= admit(model, lane, 0)
    resident = lane.residents[scalars.slots - 1]
    resident.work = min(resident.work, budget)
    return budget - resident.work


def require_whole(model: Model, params: NDArray[np.float64]) -> None:
    """A request fits with the most that it may put out."""
    block = int(model.constants[0]["block_tokens"])
    usable = int(model.constants[0]["kv_capacity_tokens"]) // block * block
    output = np.maximum(model.shapes["output_tokens"], int(params[LONGEST]))
    most = model.shapes["prompt_tokens"] + output
    worst = int(np.argmax(most))
    if most[worst] > usable:
        raise InputError(
            f"policy trtllm-no-evict: {request_name(model, worst)}",
            f"{int(most[worst])} KV tokens with the most that it may put out",
            f"at most {usable}",
        )


def require_served(model: Model, params: NDArray[np.float64]) -> None:
    """A request has all blocks to itself once nobody else runs."""
    require_blocks("trtllm-max-utilization", model, reserved=0)


_SIZES = (
    Parameter("max_num_tokens", 8192, 1, 1e9, "tokens computed per iteration"),
    Parameter("max_batch_size", 2048, 1, 1e9, "requests in service at most"),
)

TRTLLM_NO_EVICT = Policy(
    name="trtllm-no-evict",
    summary="TensorRT-LLM, GUARANTEED_NO_EVICT: reserve prompt and most output at admission",
    parameters=(
        *_SIZES,
        Parameter("max_output_tokens", 0, 0, 1e9, "output reserved, where it is not longer itself"),
    ),
    form_batch=form_without_eviction,
    queue_of=queue_of,
    engine_convention_only=True,
    require_served=require_whole,
    never_evicts=True,
)

TRTLLM_MAX_UTILIZATION = Policy(
    name="trtllm-max-utilization",
    summary="TensorRT-LLM, MAX_UTILIZATION: admit while the prompt fits, pause the last",
    parameters=_SIZES,
    form_batch=form_with_pauses,
    queue_of=queue_of,
    engine_convention_only=True,
    require_served=require_served,
)
