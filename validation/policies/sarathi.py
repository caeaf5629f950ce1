"""Sarathi-Serve (POLICIES, sarathi): stall-free batches of decodes and chunks of prompts.

Decodes come first and are never limited by the token budget, which they spend; then partial
prefills, then new requests, whose whole prompt is allocated at once.

Decided here, as Vidur does it: a preempted sequence that is being recomputed is a partial prefill
until its last known token; a partial prefill that stands behind a decode in need of a block can be
its victim; the watermark holds on an empty server, too (a request that violates it at its full
length is refused at the start); preemptions do not keep anybody from being admitted in the same
iteration. A decode-only request takes one token of the budget on admission.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from validation.policies.blocks import (
    decode_or_preempt,
    free_beside_parked,
    free_tokens,
    require_watermark_blocks,
    watermark_tokens,
)
from validation.simulator.compiling import inlined, kernel
from validation.simulator.decoders import active_slot
from validation.simulator.engine import admit, head_tokens
from validation.simulator.model import Model
from validation.simulator.policy import RECOMPUTE_PARAMETERS, Parameter, Policy

# mypy: disable-error-code="no-untyped-def"

CHUNK, CAP, WATERMARK, VICTIM, REQUEUE, PROGRESS = range(6)


@inlined
def queue_of(model, shape):
    """One queue for all."""
    return 0


@kernel
def form_batch(model, lane, params, thresholds):
    """Decode; compute partial prefills; admit."""
    scalars = lane.scalars[0]
    scalars.token_budget = int(params[CHUNK])
    scalars.kv_free_tokens = free_tokens(model, lane)
    prefilling = decode(model, lane, params)
    for slot in range(scalars.residents if prefilling else 0):
        if not has_emitted(lane, lane.residents[slot]):
            take_chunk(lane, slot)
    admit_prompts(model, lane, params)


@inlined
def form_aggregated(model, lane, params, thresholds):
    """The same while a block is left behind the last decode; the active have not emitted yet."""
    scalars = lane.scalars[0]
    free = free_beside_parked(model, lane)
    for number in range(scalars.active):
        free -= lane.residents[active_slot(lane, number)].held
    if scalars.parked > 0 and free < model.constants[0].block_tokens:
        return False
    scalars.token_budget = int(params[CHUNK]) - scalars.parked
    scalars.kv_free_tokens = free
    for number in range(scalars.active):
        take_chunk(lane, active_slot(lane, number))
    admit_prompts(model, lane, params)
    constants = model.constants[0]
    scalars.undisturbed_tokens = constants.kv_capacity_tokens - constants.block_tokens
    return True


@kernel
def has_emitted(lane, resident):
    """Whether it knows more than on admission, so that its prefill is complete."""
    return resident.known > lane.requests[resident.request].known


@kernel
def decode(model, lane, params):
    """One token for each decode, in order; returns whether there are partial prefills."""
    scalars = lane.scalars[0]
    prefilling = False
    slot = 0
    while slot < scalars.residents:
        if not has_emitted(lane, lane.residents[slot]):
            prefilling = True
            slot += 1
        elif decode_or_preempt(
            model, lane, slot, params[VICTIM], params[REQUEUE], params[PROGRESS]
        ):
            scalars.token_budget -= 1
            slot += 1
    return prefilling


@inlined
def take_chunk(lane, slot):
    """Let a prefill compute what the budget allows."""
    scalars = lane.scalars[0]
    resident = lane.residents[slot]
    resident.work = min(resident.known - resident.computed, max(scalars.token_budget, 0))
    scalars.token_budget -= resident.work


@inlined
def admit_prompts(model, lane, params):
    """Admit in order while seats, memory and budget last."""
    scalars = lane.scalars[0]
    watermark = watermark_tokens(model, params[WATERMARK])
    while (
        scalars.waiting > 0
        and scalars.token_budget > 0
        and scalars.residents < params[CAP]
        and scalars.kv_free_tokens - head_tokens(model, lane, 0) >= watermark
    ):
        scalars.kv_free_tokens -= admit(model, lane, 0)
        take_chunk(lane, scalars.slots - 1)


def require_served(model: Model, params: NDArray[np.float64]) -> None:
    """A sequence fits beside the watermark."""
    require_watermark_blocks("sarathi", model, params[WATERMARK])


SARATHI = Policy(
    name="sarathi",
    summary="decodes first, then chunks of prompts within a token budget; preempt and recompute",
    parameters=(
        Parameter("chunk", 512, 1, 1e9, "tokens computed per iteration; decodes spend it first"),
        Parameter("cap", 128, 1, math.inf, "most residents", limit="max_num_seqs"),
        Parameter("watermark", 0.01, 0.0, 0.99, "share of memory kept free at admission"),
        *RECOMPUTE_PARAMETERS,
    ),
    form_batch=form_batch,
    queue_of=queue_of,
    form_aggregated=form_aggregated,
    engine_convention_only=True,
    require_served=require_served,
)
