"""A_min (arXiv 2508.14544): output lengths known to lie in [lo, hi], each treated as lo.

Only the lower end enters the rule: it is the parameter `lowest_tokens`. A request's estimate starts
there. Every resident advances; a resident that has generated as much as its estimate is projected
to end in the coming iteration. Where the residents overflow memory, the one with the smallest
estimate (the last admitted of several) is evicted, and its estimate raised to the tokens it had
generated if that is more. Waiting requests are scanned by ascending estimate and admitted while the
projected KV fits as in `mc-sf`; into an empty server the first is always admitted. The order among
equal estimates is that of arrival, evicted ones where `requeue` puts them.

A request waits in the queue of its estimate; queue 0 stands for `lowest_tokens`. The estimate of a
resident is its note.
"""

from __future__ import annotations

import math

from validation.policies.known_lengths import fits_ahead, occupy, silent_stages
from validation.simulator.compiling import inlined, kernel
from validation.simulator.engine import (
    admit,
    advance,
    advance_all,
    evict,
    head_tokens,
    outputs_owed,
)
from validation.simulator.policy import EVICTION_PARAMETERS, Parameter, Policy

# mypy: disable-error-code="no-untyped-def"

REQUEUE, PROGRESS, LOWEST = range(3)


@inlined
def queue_of(model, shape):
    """Every new request has the lowest estimate."""
    return 0


@kernel
def form_batch(model, lane, params, thresholds):
    """Advance everybody, evicting where memory runs out; admit while the projection fits."""
    scalars = lane.scalars[0]
    # No output of the workload is longer, so no estimate needs to be.
    lowest = min(params[LOWEST], lane.stage_count.shape[1] - 2.0)
    need = 0
    for slot in range(scalars.residents):
        need += advance(model, lane.residents[slot])
    while need > model.constants[0].kv_capacity_tokens:
        need -= evict_smallest(model, lane, params, lowest)
    if scalars.waiting > 0:
        project(model, lane)
    queue = 0
    while scalars.waiting > 0:
        while lane.queues[queue].length == 0:
            queue += 1
        estimate = max(lowest, float(queue))
        if not admit_if_it_fits(model, lane, queue, estimate):
            return


@inlined
def form_aggregated(model, lane, params, thresholds):
    """The same while memory suffices and who waits is projected to end at once."""
    scalars = lane.scalars[0]
    capacity = model.constants[0].kv_capacity_tokens
    lowest = min(params[LOWEST], lane.stage_count.shape[1] - 2.0)
    need = advance_all(model, lane)
    if need > capacity:
        return False
    queue = 0
    while scalars.waiting > 0:
        while lane.queues[queue].length == 0:
            queue += 1
        estimate = max(lowest, float(queue))
        if head_stages(model, lane, queue, estimate) > 1:
            return False  # Whoever has been admitted by now would be all the same.
        if scalars.residents > 0 and need + head_tokens(model, lane, queue) > capacity:
            return True
        need += admit(model, lane, queue)
        lane.residents[scalars.slots - 1].note = estimate
    scalars.undisturbed_tokens = capacity
    return True


@kernel
def project(model, lane):
    """Build the projection anew: a request may also have ended before its estimate."""
    lane.stage_count[0, :] = 0
    for slot in range(lane.scalars[0].residents):
        resident = lane.residents[slot]
        generated = generated_tokens(model, lane, resident)
        stages = stages_left(model, resident.note, generated, resident.known, resident.prompt)
        occupy(model, lane, resident.known, stages)


@kernel
def stages_left(model, estimate, generated, known, prompt):
    """Iterations, the coming one included, until a request reaches its estimate."""
    return max(int(estimate) - generated, 1) + silent_stages(model, known, prompt)


@kernel
def head_stages(model, lane, queue, estimate):
    """The same of the head of a queue, were it admitted now."""
    request = lane.requests[lane.queues[queue].head]
    shape = model.shapes[request.shape]
    generated = shape.output_tokens - outputs_owed(model, request)
    return stages_left(model, estimate, generated, request.known, shape.prompt_tokens)


@kernel
def generated_tokens(model, lane, resident):
    """Output tokens that a resident has generated so far."""
    return model.shapes[lane.requests[resident.request].shape].output_tokens - resident.left


@kernel
def evict_smallest(model, lane, params, lowest):
    """Evict the resident with the smallest estimate; returns the KV tokens that it occupied."""
    victim = 0
    for slot in range(1, lane.scalars[0].residents):
        if lane.residents[slot].note <= lane.residents[victim].note:
            victim = slot
    resident = lane.residents[victim]
    held = resident.held
    generated = generated_tokens(model, lane, resident)
    estimate = max(resident.note, float(generated))
    queue = int(estimate) if estimate > lowest else 0
    evict(model, lane, victim, queue, params[REQUEUE], params[PROGRESS])
    return held


@kernel
def admit_if_it_fits(model, lane, queue, estimate):
    """Admit the head of a queue if the projection allows it; returns whether it did."""
    known = lane.requests[lane.queues[queue].head].known
    stages = head_stages(model, lane, queue, estimate)
    empty = lane.scalars[0].residents == 0
    if not (empty or fits_ahead(model, lane, known, stages)):
        return False
    occupy(model, lane, known, stages)
    admit(model, lane, queue)
    lane.residents[lane.scalars[0].residents - 1].note = estimate
    return True


A_MIN = Policy(
    name="a-min",
    summary="lengths in an interval: taken for its lower end, raised when that proves too small",
    parameters=(
        *EVICTION_PARAMETERS[1:],
        Parameter("lowest_tokens", 1, 1, math.inf, "lower end of the outputs' interval"),
    ),
    form_batch=form_batch,
    queue_of=queue_of,
    form_aggregated=form_aggregated,
)
