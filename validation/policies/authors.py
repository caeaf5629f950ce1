"""The rules that the paper's authors simulate, which are neither `wait` nor `nested-cap`.

Both take a limit per stage and `cap`, the most requests in service (the paper's tl). They differ
from Algorithms 1 and 2 in the gate, which a full server always passes, and in that only entries are
limited: whoever has entered goes on with everybody else. The authors' programs test no memory; here
requests are admitted while their prompts fit, and evicted as under `wait`.

`wait-authors`: the gate opens if some class has at least min(n_j, cap − requests in service)
requests waiting. Then all residents of all classes advance, and up to n_j requests of each class
are admitted while the cap and memory allow. Otherwise everybody pauses.

`nested-authors`: segments start in order, under the same gate for the queue before each of them
(`nested`); those after the first that does not start pause. In a segment that has started everybody
advances, but at most n_k from its entry queue; up to n_1 requests are admitted if the first segment
has started. The authors' limits are proportional to Λ_k.

Once the last request has arrived all gates are open, so that the run clears what is left.
"""

from __future__ import annotations

import math

from validation.policies import nested, wait
from validation.policies.nested import generated_tokens, segment_entry, segment_of
from validation.policies.wait import class_of, fits, pause
from validation.simulator.compiling import kernel
from validation.simulator.engine import admit, advance, choose_victim, evict
from validation.simulator.policy import EVICTION_PARAMETERS, Parameter, Policy

# mypy: disable-error-code="no-untyped-def"

CAP, VICTIM, REQUEUE, PROGRESS = range(4)

_PARAMETERS = (
    Parameter("cap", math.inf, 1.0, math.inf, "most requests in service"),
    *EVICTION_PARAMETERS,
)

_ENTRY, _TAKEN = 0, 1
"""Rows of the scratch counts: residents in entry queues, and those of them that advance."""


@kernel
def form_wait_batch(model, lane, params, thresholds):
    """Advance everybody and admit if some class opens the gate; else pause everybody."""
    scalars = lane.scalars[0]
    is_open = last_has_arrived(lane)
    for index in range(thresholds.size):
        is_open = is_open or enough(lane, params, thresholds[index], lane.queues[index].length)
    need = 0
    for slot in range(scalars.residents):
        if is_open:
            need += advance(model, lane.residents[slot])
        else:
            need += pause(model, lane.residents[slot])
    while need > model.constants[0].kv_capacity_tokens:
        victim = choose_victim(lane, params[VICTIM])
        need -= lane.residents[victim].held
        queue = class_of(model, lane, lane.residents[victim])
        evict(model, lane, victim, queue, params[REQUEUE], params[PROGRESS])
    if not is_open:
        return
    for index in range(thresholds.size):
        for _ in range(most_to_admit(lane, params, thresholds[index], index)):
            if not fits(model, lane, need, index):
                return
            need += admit(model, lane, index)


@kernel
def form_nested_batch(model, lane, params, table):
    """Advance the segments that start, pause the others; admit if the first one starts."""
    scalars = lane.scalars[0]
    running = segments_that_start(model, lane, params, table)
    need = 0
    for slot in range(scalars.residents):
        need += advance_in_segment(model, lane, table, running, lane.residents[slot])
    for slot in range(scalars.residents):
        lane.stage_count[_TAKEN, generated_tokens(model, lane, lane.residents[slot])] = 0
    while need > model.constants[0].kv_capacity_tokens:
        victim = choose_victim(lane, params[VICTIM])
        need -= lane.residents[victim].held
        evict(model, lane, victim, 0, params[REQUEUE], params[PROGRESS])
    if running == 0:
        return
    for _ in range(most_to_admit(lane, params, table[0], 0)):
        if not fits(model, lane, need, 0):
            return
        need += admit(model, lane, 0)


@kernel
def last_has_arrived(lane):
    """Whether nobody is to come any more."""
    return lane.scalars[0].next_arrival >= lane.requests.size


@kernel
def enough(lane, params, limit, waiting):
    """The gate: whether so many waiting requests reach the limit of the stage or fill the cap."""
    return waiting >= min(limit, max(params[CAP] - lane.scalars[0].residents, 0.0))


@kernel
def most_to_admit(lane, params, limit, queue_index):
    """How many requests of a queue the limit of the stage and the cap let in."""
    room = max(params[CAP] - lane.scalars[0].residents, 0.0)
    return int(min(limit, room, lane.queues[queue_index].length))


@kernel
def segments_that_start(model, lane, params, table):
    """How many segments start: all before the first whose gate is closed."""
    scalars = lane.scalars[0]
    segments = table.size // 2
    if last_has_arrived(lane):
        return segments
    for slot in range(scalars.residents):
        resident = lane.residents[slot]
        lane.stage_count[_ENTRY, generated_tokens(model, lane, resident)] += 1
    running = 0
    waiting = lane.queues[0].length
    while running < segments and enough(lane, params, table[running], waiting):
        running += 1
        waiting = 0
        if running < segments:
            entry = segment_entry(table, running)
            if entry < lane.stage_count.shape[1]:
                waiting = lane.stage_count[_ENTRY, entry]
    for slot in range(scalars.residents):
        lane.stage_count[_ENTRY, generated_tokens(model, lane, lane.residents[slot])] = 0
    return running


@kernel
def advance_in_segment(model, lane, table, running, resident):
    """Advance or pause a resident with its segment; returns the KV tokens that it occupies."""
    generated = generated_tokens(model, lane, resident)
    segment = segment_of(generated, table)
    if segment >= running:
        return pause(model, resident)
    if segment > 0 and generated == segment_entry(table, segment):
        lane.stage_count[_TAKEN, generated] += 1
        if lane.stage_count[_TAKEN, generated] > table[segment]:
            return pause(model, resident)
    return advance(model, resident)


WAIT_AUTHORS = Policy(
    name="wait-authors",
    summary="the authors' WAIT: all classes advance while any of them fills its entry or the cap",
    parameters=_PARAMETERS,
    form_batch=form_wait_batch,
    queue_of=wait.queue_of,
    per_class=True,
)

NESTED_AUTHORS = Policy(
    name="nested-authors",
    summary="the authors' Nested WAIT: segments start in order, only their entries are limited",
    parameters=_PARAMETERS,
    form_batch=form_nested_batch,
    queue_of=nested.queue_of,
    per_segment=True,
)
