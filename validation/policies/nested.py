"""Nested WAIT (THEORY 4.1–4.2; arXiv 2504.11320 Algorithm 2) and its form without waiting (5.3).

Output lengths are unknown: a rule sees only how many tokens a request has generated. With cuts
c_1 < … < c_L (c_0 = 0) a resident that has generated g tokens stands in segment k iff
c_{k−1} ≤ g < c_k, which gives the stages of 4.1 under either convention of the first token. The
kernel's `table` holds the L thresholds, then the L cuts.

`nested-wait`: the entry queue of segment 1 is the external queue; that of segment k ≥ 2 are the
residents with g = c_{k−1}. Segments 1 … k run, k the largest such that the entry queue of each of
them holds its threshold: at most n_k' residents of each of their stages advance and n_1 requests
are admitted while their prompts fit. The others pause and keep their KV. An evicted request returns
to the external queue, even if it keeps its progress.
`boundary_iteration` = 1 makes a resident spend one more iteration, in which it computes nothing, on
its way out of the entry queue of a segment k ≥ 2. The valves are those of `wait`; at a boundary
`max_wait_s` counts from the moment at which a resident reached it.

`nested-cap`: the threshold of a segment bounds the residents of it that advance in an iteration,
first admitted first served; requests are admitted while segment 1 holds fewer than its threshold
and the prompt fits.
"""

from __future__ import annotations

import math

from validation.policies.wait import VALVES, drains_now, fits, gate_is_open, pause, stage_of
from validation.simulator.compiling import inlined, kernel
from validation.simulator.engine import admit, advance, choose_victim, evict
from validation.simulator.policy import EVICTION_PARAMETERS, Parameter, Policy

# mypy: disable-error-code="no-untyped-def"

VICTIM, REQUEUE, PROGRESS, MAX_WAIT, DRAIN, BOUNDARY = range(6)

STAGE, ENTRY = 0, 1
"""Rows of the scratch counts: residents by stage, residents in entry queues by tokens generated."""

CROSSED = -math.inf
"""Note of a resident that has spent its boundary iteration."""


@inlined
def queue_of(model, shape):
    """One queue for all: their lengths are unknown."""
    return 0


@kernel
def generated_tokens(model, lane, resident):
    """Output tokens that a resident has generated so far."""
    return model.shapes[lane.requests[resident.request].shape].output_tokens - resident.left


@kernel
def segment_of(generated, table):
    """Segment, from 0, of a resident that has generated so many tokens."""
    segments = table.size // 2
    low, high = 0, segments - 1
    while low < high:
        middle = (low + high) // 2
        if generated < table[segments + middle]:
            high = middle
        else:
            low = middle + 1
    return low


@kernel
def form_nested_batch(model, lane, params, table):
    """Find the segments that run; advance them, admit into the first; see to the drain valve."""
    note_arrivals_at_stages(lane)
    running = running_segments(model, lane, params[MAX_WAIT], table)
    need = advance_segments(model, lane, params, table, running)
    if running > 0:
        for _ in range(min(int(table[0]), lane.queues[0].length)):
            if not fits(model, lane, need, 0):
                break
            need += admit(model, lane, 0)
    if drains_now(lane, params[DRAIN]):
        advance_segments(model, lane, params, table, table.size // 2)


@kernel
def note_arrivals_at_stages(lane):
    """Note the time at every resident that has just passed a stage."""
    scalars = lane.scalars[0]
    for slot in range(scalars.residents):
        resident = lane.residents[slot]
        if resident.work > 0:
            resident.note = scalars.clock_s


@kernel
def in_entry_queue(model, lane, resident, table):
    """Whether a resident waits at a boundary between segments."""
    generated = generated_tokens(model, lane, resident)
    segment = segment_of(generated, table)
    at_boundary = segment > 0 and generated == table[table.size // 2 + segment - 1]
    return at_boundary and resident.note != CROSSED


@kernel
def running_segments(model, lane, max_wait_s, table):
    """How many segments run: up to the last before the first whose gate is closed."""
    scalars = lane.scalars[0]
    if not gate_is_open(lane, 0, table[0], max_wait_s):
        return 0
    segments = table.size // 2
    for slot in range(scalars.residents):
        resident = lane.residents[slot]
        if in_entry_queue(model, lane, resident, table):
            lane.stage_count[ENTRY, generated_tokens(model, lane, resident)] += 1
    running = 1
    while running < segments and boundary_is_open(model, lane, max_wait_s, table, running):
        running += 1
    for slot in range(scalars.residents):
        lane.stage_count[ENTRY, generated_tokens(model, lane, lane.residents[slot])] = 0
    return running


@kernel
def boundary_is_open(model, lane, max_wait_s, table, segment):
    """Whether enough residents wait at the entry of a segment from 1 on, or one for long enough."""
    scalars = lane.scalars[0]
    entry = int(table[table.size // 2 + segment - 1])
    if entry >= lane.stage_count.shape[1]:
        return False
    if lane.stage_count[ENTRY, entry] >= table[segment]:
        return True
    release_s = math.inf
    for slot in range(scalars.residents):
        resident = lane.residents[slot]
        here = generated_tokens(model, lane, resident) == entry
        if here and in_entry_queue(model, lane, resident, table):
            release_s = min(release_s, resident.note + max_wait_s)
    if scalars.clock_s >= release_s:
        return True
    scalars.wake_at_s = min(scalars.wake_at_s, release_s)
    return False


@kernel
def advance_segments(model, lane, params, table, running):
    """Advance the segments that run, pause the others, evict where memory runs out.

    Returns the KV tokens that the residents occupy.
    """
    scalars = lane.scalars[0]
    need = 0
    for slot in range(scalars.residents):
        need += advance_in_segment(model, lane, params, table, running, lane.residents[slot])
    for slot in range(scalars.residents):
        resident = lane.residents[slot]
        lane.stage_count[STAGE, stage_of(resident)] = 0
        lane.stage_count[ENTRY, generated_tokens(model, lane, resident)] = 0
    while need > model.constants[0].kv_capacity_tokens:
        victim = choose_victim(lane, params[VICTIM])
        need -= lane.residents[victim].held
        evict(model, lane, victim, 0, params[REQUEUE], params[PROGRESS])
    return need


@kernel
def advance_in_segment(model, lane, params, table, running, resident):
    """Advance, let cross or pause a resident; returns the KV tokens that it occupies."""
    generated = generated_tokens(model, lane, resident)
    segment = segment_of(generated, table)
    crosses = params[BOUNDARY] != 0.0 and in_entry_queue(model, lane, resident, table)
    row, column = (ENTRY, generated) if crosses else (STAGE, stage_of(resident))
    lane.stage_count[row, column] += 1
    if segment >= running or lane.stage_count[row, column] > table[segment]:
        return pause(model, resident)
    if not crosses:
        return advance(model, resident)
    resident.note = CROSSED
    # Where nobody else runs, an iteration of nothing takes no time.
    lane.scalars[0].wake_at_s = lane.scalars[0].clock_s
    return pause(model, resident)


@kernel
def form_capped_batch(model, lane, params, table):
    """Advance up to the cap of each segment; then admit while segment 1 has room."""
    scalars = lane.scalars[0]
    need = 0
    for slot in range(scalars.residents):
        resident = lane.residents[slot]
        segment = segment_of(generated_tokens(model, lane, resident), table)
        entry = segment_entry(table, segment)
        lane.stage_count[STAGE, entry] += 1
        if lane.stage_count[STAGE, entry] <= table[segment]:
            need += advance(model, resident)
        else:
            need += pause(model, resident)
    for slot in range(scalars.residents):
        segment = segment_of(generated_tokens(model, lane, lane.residents[slot]), table)
        lane.stage_count[STAGE, segment_entry(table, segment)] = 0
    while need > model.constants[0].kv_capacity_tokens:
        victim = choose_victim(lane, params[VICTIM])
        need -= lane.residents[victim].held
        evict(model, lane, victim, 0, params[REQUEUE], params[PROGRESS])
    first = 0
    for slot in range(scalars.residents):
        if segment_of(generated_tokens(model, lane, lane.residents[slot]), table) == 0:
            first += 1
    while scalars.waiting > 0 and first < table[0] and fits(model, lane, need, 0):
        need += admit(model, lane, 0)
        newest = lane.residents[scalars.residents - 1]
        if segment_of(generated_tokens(model, lane, newest), table) == 0:
            first += 1


@kernel
def segment_entry(table, segment):
    """Tokens generated by a request that enters a segment."""
    if segment == 0:
        return 0
    return int(table[table.size // 2 + segment - 1])


NESTED_WAIT = Policy(
    name="nested-wait",
    summary="literal Nested WAIT: segments run while their entry queues hold n_k",
    parameters=(
        *EVICTION_PARAMETERS,
        *VALVES,
        Parameter("boundary_iteration", 0.0, 0.0, 1.0, "1: an extra iteration per boundary"),
    ),
    form_batch=form_nested_batch,
    queue_of=queue_of,
    per_segment=True,
)

NESTED_CAP = Policy(
    name="nested-cap",
    summary="at most n_k requests of each segment in service, no waiting",
    parameters=EVICTION_PARAMETERS,
    form_batch=form_capped_batch,
    queue_of=queue_of,
    per_segment=True,
)
