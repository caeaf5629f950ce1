"""vLLM's first scheduler, the paper's "vLLM" (POLICIES, vllm-v0): whole prompts, prefill first.

While any prompt can be admitted, an iteration computes prompts only and every resident pauses;
otherwise each resident decodes one token, in order of admission.

Decided here: tokens are summed as they are unless `padded` (Vidur's count: number of prompts ×
longest). The watermark holds on an empty server, too, and a sequence must be recomputed in one
iteration, so that a request which violates either at its full length is refused at the start.
Victims are found among the residents not yet scheduled in this pass, the one that needs the block
last of all; the pass then goes on with the next. A decode-only request has nothing to prefill: it
is admitted in the same pass and decodes with the others.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from fluid.errors import InputError
from validation.policies.blocks import (
    decode_or_preempt,
    free_beside_parked,
    free_tokens,
    peak_tokens,
    request_name,
    require_watermark_blocks,
    watermark_tokens,
)
from validation.simulator.compiling import inlined, kernel
from validation.simulator.engine import admit, head_tokens
from validation.simulator.model import Model
from validation.simulator.policy import RECOMPUTE_PARAMETERS, Parameter, Policy

# mypy: disable-error-code="no-untyped-def"

WATERMARK, BUDGET, PADDED, CAP, VICTIM, REQUEUE, PROGRESS = range(7)


@inlined
def queue_of(model, shape):
    """One queue for all."""
    return 0


@kernel
def form_batch(model, lane, params, thresholds):
    """Admit whole prompts; where there was none to compute, decode."""
    scalars = lane.scalars[0]
    scalars.kv_free_tokens = free_tokens(model, lane)
    admit_prompts(model, lane, params)
    prefilling = False
    for slot in range(scalars.residents):
        resident = lane.residents[slot]
        if is_prefill(resident):
            prefilling = True
        else:
            resident.work = 0
    slot = 0
    while not prefilling and slot < scalars.residents:
        if decode_or_preempt(model, lane, slot, params[VICTIM], params[REQUEUE], params[PROGRESS]):
            slot += 1


@inlined
def form_aggregated(model, lane, params, thresholds):
    """The same with whole prompts only, while a block is left behind the last decode."""
    scalars = lane.scalars[0]
    free = model.constants[0].kv_capacity_tokens - scalars.parked_held_tokens
    if scalars.active > 0 or model.constants[0].some_decode_only:
        return False
    scalars.kv_free_tokens = free
    admit_prompts(model, lane, params)
    if scalars.active > 0:
        scalars.decoders_run = 0
        return True
    constants = model.constants[0]
    scalars.undisturbed_tokens = constants.kv_capacity_tokens - constants.block_tokens
    block_left = free_beside_parked(model, lane) >= constants.block_tokens
    return scalars.parked == 0 or block_left


@kernel
def is_prefill(resident):
    """Whether it has more to compute than the one token behind what is in memory."""
    return resident.computed < resident.prompt or resident.known - resident.computed > 1


@inlined
def admit_prompts(model, lane, params):
    """Admit in order until the first that does not fit."""
    scalars = lane.scalars[0]
    watermark = watermark_tokens(model, params[WATERMARK])
    count, total, longest = 0, 0, 0
    while scalars.waiting > 0 and scalars.residents < params[CAP]:
        request = lane.requests[lane.queues[0].head]
        tokens = request.known - model.shapes[request.shape].context_tokens
        total += tokens
        longest = max(longest, tokens)
        count += 1
        if (count * longest if params[PADDED] != 0.0 else total) > params[BUDGET]:
            break
        if scalars.kv_free_tokens - head_tokens(model, lane, 0) < watermark:
            break
        scalars.kv_free_tokens -= admit(model, lane, 0)


def require_served(model: Model, params: NDArray[np.float64]) -> None:
    """A sequence fits beside the watermark, and into one iteration when it is recomputed."""
    require_watermark_blocks("vllm-v0", model, params[WATERMARK])
    longest = peak_tokens(model) - model.shapes["context_tokens"]
    shape = int(longest.argmax())
    if longest[shape] > params[BUDGET]:
        raise InputError(
            f"policy vllm-v0: {request_name(model, shape)}",
            f"{int(longest[shape])} tokens to recompute at its end",
            f"at most max_batched_tokens = {params[BUDGET]:g}",
        )


VLLM_V0 = Policy(
    name="vllm-v0",
    summary="vLLM's first scheduler: whole prompts first, decodes pause; preempt and recompute",
    parameters=(
        Parameter("watermark", 0.01, 0.0, 0.99, "share of memory kept free at admission"),
        Parameter("max_batched_tokens", 4096, 1, 1e9, "prompt tokens computed per iteration"),
        Parameter("padded", 0, 0, 1, "1: count every prompt as long as the longest, as Vidur"),
        Parameter("cap", 128, 1, math.inf, "most residents", limit="max_num_seqs"),
        *RECOMPUTE_PARAMETERS,
    ),
    form_batch=form_batch,
    queue_of=queue_of,
    form_aggregated=form_aggregated,
    engine_convention_only=True,
    require_served=require_served,
)
