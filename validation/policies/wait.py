"""WAIT, literally (THEORY 3.1; arXiv 2504.11320 Algorithm 1).

Class j runs in an iteration iff at least n_j of its requests wait at stage 0; then at most n_j
residents of each of its stages advance and n_j requests are admitted. Every other class pauses and
keeps its KV.
"""

from __future__ import annotations

from validation.policies.policy import EVICTION_PARAMETERS, Policy
from validation.simulator.compiling import kernel
from validation.simulator.engine import (
    admit,
    advance,
    block_rounded,
    choose_victim,
    evict,
    head_tokens,
)

# mypy: disable-error-code="no-untyped-def"

VICTIM, REQUEUE, PROGRESS = range(3)


@kernel
def queue_of(model, shape):
    """One queue per class."""
    return model.shapes[shape].report_class


@kernel
def class_of(model, lane, resident):
    """Report class of a resident, which is also the number of its queue."""
    return model.shapes[lane.requests[resident.request].shape].report_class


@kernel
def form_batch(model, lane, params, thresholds):
    """Advance the eligible classes, evicting where memory runs out; then admit their n_j."""
    scalars = lane.scalars[0]
    capacity = model.constants[0].kv_capacity_tokens
    for index in range(lane.queues.size):
        lane.queues[index].eligible = lane.queues[index].length >= thresholds[index]
    need = 0
    for slot in range(scalars.residents):
        need += advance_if_eligible(model, lane, lane.residents[slot], thresholds)
    for slot in range(scalars.residents):
        resident = lane.residents[slot]
        lane.stage_count[class_of(model, lane, resident), stage_of(resident)] = 0
    while need > capacity:
        victim = choose_victim(lane, params[VICTIM])
        resident = lane.residents[victim]
        need -= resident.held
        queue = class_of(model, lane, resident)
        evict(model, lane, victim, queue, params[REQUEUE], params[PROGRESS])
    for index in range(lane.queues.size):
        queue = lane.queues[index]
        if not queue.eligible:
            continue
        for _ in range(min(int(thresholds[index]), queue.length)):
            if scalars.residents > 0 and need + head_tokens(model, lane, index) > capacity:
                return
            need += admit(model, lane, index)


@kernel
def stage_of(resident):
    """The stage that a resident passes next, THEORY 1.2."""
    return resident.known - resident.prompt


@kernel
def advance_if_eligible(model, lane, resident, thresholds):
    """Advance or pause a resident with its class; returns the KV tokens that it occupies."""
    index, stage = class_of(model, lane, resident), stage_of(resident)
    lane.stage_count[index, stage] += 1
    if lane.queues[index].eligible and lane.stage_count[index, stage] <= thresholds[index]:
        return advance(model, resident)
    resident.work = 0
    resident.held = block_rounded(model, resident.computed)
    return resident.held


WAIT = Policy(
    name="wait",
    summary="literal WAIT: a class runs only while n_j of its requests wait",
    parameters=EVICTION_PARAMETERS,
    form_batch=form_batch,
    queue_of=queue_of,
    per_class=True,
)
