"""WAIT, literally (THEORY 3.1; arXiv 2504.11320 Algorithm 1), and its form without waiting.

`wait`: class j runs in an iteration iff at least n_j of its requests wait at stage 0; then at most
n_j residents of each of its stages advance and n_j requests are admitted, each while its prompt
fits into memory; the first that does not fit ends admission. Every other class pauses and keeps its
KV. Two safety valves, both off by default:

- `max_wait_s`: the gate of a class also opens when its oldest waiting request arrived that long
  ago.
- `drain` = k: when the batch has been empty, although requests are resident, for k times the
  duration of the last iteration before that, residents of all classes advance (n_j per stage, no
  admissions), iteration after iteration, until a gate opens or nobody is left.

`wait-cap`: the same with every gate open: n_j bounds the residents of each stage that advance and
the admissions per iteration.
"""

from __future__ import annotations

import math

from validation.simulator.compiling import inlined, kernel
from validation.simulator.engine import (
    admit,
    advance,
    choose_victim,
    evict,
    head_tokens,
)
from validation.simulator.kv import block_rounded
from validation.simulator.policy import EVICTION_PARAMETERS, Parameter, Policy

# mypy: disable-error-code="no-untyped-def"

VICTIM, REQUEUE, PROGRESS, MAX_WAIT, DRAIN = range(5)

VALVES = (
    Parameter("max_wait_s", math.inf, 0.0, math.inf, "age that opens a gate, seconds"),
    Parameter("drain", 0.0, 0.0, math.inf, "idle iterations' time until residents advance; 0: off"),
)


@inlined
def queue_of(model, shape):
    """One queue per class."""
    return model.shapes[shape].report_class


@kernel
def class_of(model, lane, resident):
    """Report class of a resident, which is also the number of its queue."""
    return model.shapes[lane.requests[resident.request].shape].report_class


@kernel
def form_wait_batch(model, lane, params, thresholds):
    """Advance and admit in the classes whose gates are open; see to the drain valve."""
    for index in range(thresholds.size):
        is_open = gate_is_open(lane, index, thresholds[index], params[MAX_WAIT])
        lane.queues[index].eligible = is_open
    need = advance_eligible(model, lane, params, thresholds)
    admit_eligible(model, lane, thresholds, need)
    if drains_now(lane, params[DRAIN]):
        for index in range(thresholds.size):
            lane.queues[index].eligible = True
        advance_eligible(model, lane, params, thresholds)


@kernel
def form_capped_batch(model, lane, params, thresholds):
    """Advance and admit up to n_j everywhere."""
    for index in range(thresholds.size):
        lane.queues[index].eligible = True
    need = advance_eligible(model, lane, params, thresholds)
    admit_eligible(model, lane, thresholds, need)


@kernel
def gate_is_open(lane, queue_index, threshold, max_wait_s):
    """Whether enough requests wait, or one for long enough; asks for a wake-up otherwise."""
    scalars = lane.scalars[0]
    queue = lane.queues[queue_index]
    if queue.length >= threshold:
        return True
    release_s = math.inf
    index = queue.head
    while index >= 0:
        release_s = min(release_s, lane.requests[index].arrived_at_s + max_wait_s)
        index = lane.requests[index].next
    if scalars.clock_s >= release_s:
        return True
    scalars.wake_at_s = min(scalars.wake_at_s, release_s)
    return False


@kernel
def drains_now(lane, drain):
    """Whether the batch is empty and has been for `drain` times the last iteration."""
    scalars = lane.scalars[0]
    busy = scalars.residents == 0
    for slot in range(scalars.residents):
        busy = busy or lane.residents[slot].work > 0
    if busy or drain == 0.0:
        scalars.drain_at_s = math.inf
        return False
    if math.isinf(scalars.drain_at_s):
        scalars.drain_at_s = scalars.clock_s + drain * scalars.tau_s
    if scalars.clock_s >= scalars.drain_at_s:
        return True
    scalars.wake_at_s = min(scalars.wake_at_s, scalars.drain_at_s)
    return False


@kernel
def advance_eligible(model, lane, params, thresholds):
    """Advance or pause every resident, evicting where memory runs out.

    Returns the KV tokens that the residents occupy.
    """
    scalars = lane.scalars[0]
    need = 0
    for slot in range(scalars.residents):
        need += advance_if_eligible(model, lane, lane.residents[slot], thresholds)
    for slot in range(scalars.residents):
        resident = lane.residents[slot]
        lane.stage_count[class_of(model, lane, resident), stage_of(resident)] = 0
    while need > model.constants[0].kv_capacity_tokens:
        victim = choose_victim(lane, params[VICTIM])
        resident = lane.residents[victim]
        need -= resident.held
        queue = class_of(model, lane, resident)
        evict(model, lane, victim, queue, params[REQUEUE], params[PROGRESS])
    return need


@kernel
def admit_eligible(model, lane, thresholds, need):
    """Admit up to n_j requests of each eligible class while their prompts fit."""
    for index in range(thresholds.size):
        queue = lane.queues[index]
        if not queue.eligible:
            continue
        for _ in range(min(int(thresholds[index]), queue.length)):
            if not fits(model, lane, need, index):
                return
            need += admit(model, lane, index)


@kernel
def fits(model, lane, need, queue_index):
    """Whether the head of a queue can join residents that occupy `need`; alone it always can."""
    capacity = model.constants[0].kv_capacity_tokens
    return (
        lane.scalars[0].residents == 0 or need + head_tokens(model, lane, queue_index) <= capacity
    )


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
    return pause(model, resident)


@kernel
def pause(model, resident):
    """Let a resident keep its KV and compute nothing; returns the KV tokens that it occupies."""
    resident.work = 0
    resident.held = block_rounded(model, resident.computed)
    return resident.held


WAIT = Policy(
    name="wait",
    summary="literal WAIT: a class runs only while n_j of its requests wait",
    parameters=(*EVICTION_PARAMETERS, *VALVES),
    form_batch=form_wait_batch,
    queue_of=queue_of,
    per_class=True,
)

WAIT_CAP = Policy(
    name="wait-cap",
    summary="WAIT without waiting: at most n_j per stage and n_j admissions per iteration",
    parameters=EVICTION_PARAMETERS,
    form_batch=form_capped_batch,
    queue_of=queue_of,
    per_class=True,
)
