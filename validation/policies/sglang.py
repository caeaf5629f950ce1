"""SGLang's default scheduler (first come, first served; radix cache off): prefill first, retract.

An iteration computes prompts if anybody can be admitted or has part of a prompt left, and nobody
decodes meanwhile; otherwise every resident decodes one token.

Admission reserves for outputs by a guess. Those in service are expected to put out a share of what
they may still put out, the *new-token ratio*, and a new request all of it; a request is admitted
while that fits with its prompt and one block more into the free memory. The ratio starts at
min(0.7 · `schedule_conservativeness`, 1), falls with every iteration of decoding, within 600 of
them to 0.14 of that, and jumps back when the system is empty. Where the next tokens do not fit,
requests are retracted, those with the fewest output tokens first (of equal ones the longest
prompt, then the last admitted): they give all memory back, keep their tokens and wait behind all
others. The ratio then becomes what those left have put out, and 20 tokens more each, over what they
may put out. (SGLang's `schedule_policy.py`, `schedule_batch.py`; the constants are its defaults.)

Outputs are reserved up to `clip_max_new_tokens` a request.

Decided here: a prompt that does not fit into `chunked_prefill_size` is cut, and goes on before
anybody is admitted. Memory is taken for a whole prompt when it begins.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from validation.policies.blocks import free_tokens, require_blocks
from validation.simulator.compiling import kernel
from validation.simulator.engine import admit, evict, head_tokens, outputs_owed
from validation.simulator.kv import block_rounded
from validation.simulator.model import Model
from validation.simulator.policy import Parameter, Policy

# mypy: disable-error-code="no-untyped-def"

CONSERVATIVENESS, CHUNK, SEATS, LONGEST, CLIP = range(5)

FIRST_RATIO, LOWEST_SHARE, DECAY_STEPS = 0.7, 0.14, 600
RETRACT_STEPS = 20
WHOLE, CUT = 0.0, 1.0
"""What a resident's note says of its prompt."""

_BACK, _KEPT = 1.0, 1.0


@kernel
def queue_of(model, shape):
    """One queue for all."""
    return 0


@kernel
def form_batch(model, lane, params, thresholds):
    """Compute prompts if there are any; else decode.

    `credit` holds the new-token ratio.
    """
    scalars = lane.scalars[0]
    if scalars.residents == 0:
        scalars.credit = first_ratio(params)
    scalars.kv_free_tokens = free_tokens(model, lane)
    chunk = go_on(lane, params)
    chunk = admit_prompts(model, lane, params, chunk)
    if chunk < params[CHUNK]:
        return
    make_room(model, lane, params)
    for slot in range(scalars.residents):
        resident = lane.residents[slot]
        held = block_rounded(model, resident.known)
        scalars.kv_free_tokens -= held - resident.held
        resident.held = held
        resident.work = 1


@kernel
def first_ratio(params):
    """The new-token ratio of an idle server."""
    return min(FIRST_RATIO * params[CONSERVATIVENESS], 1.0)


@kernel
def may_put_out(model, lane, params, request_index):
    """Output tokens that a client asked for, at most."""
    shape = model.shapes[lane.requests[request_index].shape]
    return max(shape.output_tokens, int(params[LONGEST]))


@kernel
def put_out(model, lane, slot):
    """Output tokens of a resident so far."""
    resident = lane.residents[slot]
    return model.shapes[lane.requests[resident.request].shape].output_tokens - resident.left


@kernel
def go_on(lane, params):
    """Let a cut prompt go on; returns what is left of the chunk."""
    scalars = lane.scalars[0]
    chunk = int(params[CHUNK])
    for slot in range(scalars.residents):
        resident = lane.residents[slot]
        resident.work = 0
        if resident.note == CUT:
            chunk = give_chunk(resident, resident.known - resident.computed, chunk)
    return chunk


@kernel
def give_chunk(resident, missing, chunk):
    """Let a resident compute what is missing as far as the chunk lasts; returns its rest."""
    resident.work = min(missing, chunk)
    resident.note = CUT if resident.work < missing else WHOLE
    return chunk - resident.work


@kernel
def admit_prompts(model, lane, params, chunk):
    """Admit in order while seats, chunk and the guess of memory last; returns the chunk left."""
    scalars = lane.scalars[0]
    block = model.constants[0].block_tokens
    asked = 0
    for slot in range(scalars.residents):
        most = may_put_out(model, lane, params, lane.residents[slot].request)
        asked += min(most - put_out(model, lane, slot), int(params[CLIP]))
    room = scalars.kv_free_tokens - scalars.credit * asked
    while scalars.waiting > 0 and chunk > 0 and scalars.residents < params[SEATS]:
        index = lane.queues[0].head
        request = lane.requests[index]
        done = model.shapes[request.shape].output_tokens - outputs_owed(model, request)
        asked = min(may_put_out(model, lane, params, index) - done, int(params[CLIP]))
        if scalars.residents > 0 and request.known + asked + block >= room:
            break
        if head_tokens(model, lane, 0) > scalars.kv_free_tokens:
            break
        held = admit(model, lane, 0)
        scalars.kv_free_tokens -= held
        room -= held + asked + block
        resident = lane.residents[scalars.slots - 1]
        chunk = give_chunk(resident, resident.work, chunk)
    return chunk


@kernel
def make_room(model, lane, params):
    """Retract until everybody's next token fits; the ratio falls, or is guessed anew."""
    scalars = lane.scalars[0]
    if next_tokens(model, lane) <= scalars.kv_free_tokens:
        first = first_ratio(params)
        lowest = LOWEST_SHARE * first
        scalars.credit = max(scalars.credit - (first - lowest) / DECAY_STEPS, lowest)
        return
    while scalars.residents > 1 and next_tokens(model, lane) > scalars.kv_free_tokens:
        victim = scalars.residents - 1
        for slot in range(scalars.residents - 2, -1, -1):
            fewer = put_out(model, lane, slot) - put_out(model, lane, victim)
            longer = lane.residents[slot].prompt - lane.residents[victim].prompt
            if fewer < 0 or (fewer == 0 and longer > 0):
                victim = slot
        scalars.kv_free_tokens += lane.residents[victim].held
        evict(model, lane, victim, 0, _BACK, _KEPT)
    done, asked = 0, 0
    for slot in range(scalars.residents):
        done += put_out(model, lane, slot) + RETRACT_STEPS
        asked += may_put_out(model, lane, params, lane.residents[slot].request)
    scalars.credit = min(done / (asked + 1), 1.0)


@kernel
def next_tokens(model, lane):
    """KV tokens, in whole blocks, that everybody's next token takes."""
    need = 0
    for slot in range(lane.scalars[0].residents):
        resident = lane.residents[slot]
        need += block_rounded(model, resident.known) - resident.held
    return need


def require_served(model: Model, params: NDArray[np.float64]) -> None:
    """A request has all memory to itself once nobody else runs."""
    require_blocks("sglang", model, reserved=0)


SGLANG = Policy(
    name="sglang",
    summary="SGLang: prefill first, admission by a guess of outputs, retract the youngest",
    parameters=(
        Parameter(
            "schedule_conservativeness", 1.0, 0.01, 100.0, "factor of the outputs reserved at first"
        ),
        Parameter("chunked_prefill_size", 8192, 1, 1e9, "prompt tokens per iteration"),
        Parameter("max_running_requests", 2048, 1, 1e9, "requests in service at most"),
        Parameter("max_output_tokens", 0, 0, 1e9, "asked for, where the output is not longer"),
        Parameter("clip_max_new_tokens", 4096, 1, 1e9, "outputs reserved for a request at most"),
    ),
    form_batch=form_batch,
    queue_of=queue_of,
    engine_convention_only=True,
    require_served=require_served,
)
