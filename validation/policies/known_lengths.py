"""Policies that know every output length, so that memory never runs out.

Every resident advances in every iteration. The waiting requests are scanned in the policy's order
and admitted while the projected KV of all residents and the new one fits into memory in every
iteration until the new one ends; the first that does not fit ends admission.

`mc-sf` (Jaillet et al., arXiv 2502.07115): ascending output length. `svf` (arXiv 2606.22327):
ascending KV volume, the block-rounded KV tokens held summed over all stages (m of THEORY 2). Ties
go to the earlier arrival.

The projection is a ring in row 0 of the scratch counts: KV tokens of the residents in the coming
iteration and in those after it.
"""

from __future__ import annotations

from validation.simulator.compiling import inlined, kernel
from validation.simulator.engine import admit, advance, advance_all, outputs_owed
from validation.simulator.kv import block_rounded
from validation.simulator.policy import Policy

# mypy: disable-error-code="no-untyped-def"


@inlined
def queue_by_length(model, shape):
    """One queue per output length."""
    return model.shapes[shape].output_tokens


@inlined
def queue_by_volume(model, shape):
    """One queue per KV volume, in ascending order."""
    return model.shapes[shape].volume_rank


@kernel
def form_batch(model, lane, params, thresholds):
    """Advance everybody; admit while the projection fits."""
    scalars = lane.scalars[0]
    for slot in range(scalars.residents):
        advance(model, lane.residents[slot])
    admit_projected(model, lane)


@inlined
def form_aggregated(model, lane, params, thresholds):
    """The same: memory always suffices."""
    advance_all(model, lane)
    admit_projected(model, lane)
    return True


@inlined
def admit_projected(model, lane):
    """Admit while the projection fits."""
    scalars = lane.scalars[0]
    project(model, lane)
    queue = 0
    while scalars.waiting > 0:
        while lane.queues[queue].length == 0:
            queue += 1
        request = lane.requests[lane.queues[queue].head]
        prompt = model.shapes[request.shape].prompt_tokens
        stages = outputs_owed(model, request) + silent_stages(model, request.known, prompt)
        if not fits_ahead(model, lane, request.known, stages):
            return
        occupy(model, lane, request.known, stages)
        admit(model, lane, queue)


@kernel
def silent_stages(model, known, prompt):
    """1 if the coming stage emits no token, 0 otherwise."""
    return 1 if model.constants[0].silent_prefill and known == prompt else 0


@kernel
def project(model, lane):
    """Clear the iteration that has just ended from the ring; start anew where somebody gave up."""
    ring = lane.stage_count[0]
    scalars = lane.scalars[0]
    if scalars.left_service == 0:
        ring[(scalars.iterations - 1) % ring.size] = 0
        return
    ring[:] = 0
    for slot in range(scalars.residents):
        resident = lane.residents[slot]
        stages = resident.left + silent_stages(model, resident.known, resident.prompt)
        occupy(model, lane, resident.known, stages)


@kernel
def fits_ahead(model, lane, tokens, stages):
    """Whether a request that occupies `tokens` now and grows for `stages` iterations fits."""
    ring = lane.stage_count[0]
    now = lane.scalars[0].iterations
    capacity = model.constants[0].kv_capacity_tokens
    for ahead in range(stages):
        held = block_rounded(model, tokens + ahead)
        if ring[(now + ahead) % ring.size] + held > capacity:
            return False
    return True


@kernel
def occupy(model, lane, tokens, stages):
    """Add such a request to the projection."""
    ring = lane.stage_count[0]
    now = lane.scalars[0].iterations
    for ahead in range(stages):
        ring[(now + ahead) % ring.size] += block_rounded(model, tokens + ahead)


MC_SF = Policy(
    name="mc-sf",
    summary="knows lengths: shortest output first while all projected KV fits",
    parameters=(),
    form_batch=form_batch,
    queue_of=queue_by_length,
    form_aggregated=form_aggregated,
    never_evicts=True,
)

SVF = Policy(
    name="svf",
    summary="knows lengths: smallest KV volume first while all projected KV fits",
    parameters=(),
    form_batch=form_batch,
    queue_of=queue_by_volume,
    form_aggregated=form_aggregated,
    never_evicts=True,
)
