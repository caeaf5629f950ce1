"""Mixed batches under a token budget: maximal batches and decode deadlines.

Both fill every iteration up to `budget_tokens` with decodes (one token each) and chunks of prompts.
A resident occupies all its known tokens, a whole prompt from its admission on and the coming token
of a decode even in an iteration without it; where that overflows memory residents are evicted. A
waiting request is admitted while budget is left and its prompt fits; the first that does not fit
ends admission.

`dai` (maximal batch; Dai et al., arXiv 2504.07347): decodes in order of admission, then partly
computed prompts, then new requests in order of arrival. No KV limit but the server's own.

`slai` (arXiv 2508.01002): decodes that are due first, then partly computed prompts, then new
requests, shortest prompt first, then the other decodes. The deadline of a decode is `tbt_target_s`
after its last token (after its prefill for the first one); it is due if two iterations as long as
the last one would miss it. So prompts may take all of the budget that slack leaves free.
"""

from __future__ import annotations

import math

from validation.policies.nested import note_arrivals_at_stages
from validation.policies.wait import fits
from validation.simulator.compiling import inlined, kernel
from validation.simulator.decoders import active_slot
from validation.simulator.engine import admit, advance, advance_all, choose_victim, evict
from validation.simulator.policy import EVICTION_PARAMETERS, Parameter, Policy

# mypy: disable-error-code="no-untyped-def"

VICTIM, REQUEUE, PROGRESS, BUDGET, TARGET = range(5)


@inlined
def one_queue(model, shape):
    """One queue for all."""
    return 0


@inlined
def queue_by_prompt(model, shape):
    """One queue per prompt length, in ascending order."""
    return model.shapes[shape].prompt_rank


@kernel
def form_maximal_batch(model, lane, params, thresholds):
    """Decodes, then prompts begun, then new ones."""
    need = reserve(model, lane)
    while need > model.constants[0].kv_capacity_tokens:
        victim = choose_victim(lane, params[VICTIM])
        need -= lane.residents[victim].held
        evict(model, lane, victim, 0, params[REQUEUE], params[PROGRESS])
    budget = spend_on_decodes(lane, int(params[BUDGET]), math.inf)
    budget = spend_on_prompts(lane, budget)
    admit_by_chunks(model, lane, need, budget)


@inlined
def form_aggregated(model, lane, params, thresholds):
    """The maximal batch while memory suffices, and the budget for all decodes."""
    scalars = lane.scalars[0]
    need = advance_all(model, lane)
    budget = int(params[BUDGET]) - scalars.parked
    for number in range(scalars.active):
        if is_decode(lane.residents[active_slot(lane, number)]):
            budget -= 1
    if need > model.constants[0].kv_capacity_tokens or budget < 0:
        return False
    for number in range(scalars.active):
        resident = lane.residents[active_slot(lane, number)]
        if not is_decode(resident):
            resident.work = min(resident.work, budget)
            budget -= resident.work
    admit_by_chunks(model, lane, need, budget)
    lane.scalars[0].undisturbed_tokens = model.constants[0].kv_capacity_tokens
    return True


@kernel
def form_deadline_batch(model, lane, params, thresholds):
    """Decodes that are due, then prompts, then the other decodes."""
    scalars = lane.scalars[0]
    note_arrivals_at_stages(lane)
    need = reserve(model, lane)
    while need > model.constants[0].kv_capacity_tokens:
        victim = choose_victim(lane, params[VICTIM])
        resident = lane.residents[victim]
        need -= resident.held
        queue = model.shapes[lane.requests[resident.request].shape].prompt_rank
        evict(model, lane, victim, queue, params[REQUEUE], params[PROGRESS])
    last_due_s = scalars.clock_s + 2.0 * scalars.tau_s - params[TARGET]
    budget = spend_on_decodes(lane, int(params[BUDGET]), last_due_s)
    budget = spend_on_prompts(lane, budget)
    budget = admit_by_chunks(model, lane, need, budget)
    spend_on_decodes(lane, budget, math.inf)


@kernel
def reserve(model, lane):
    """Let every resident occupy what it knows and pause; returns the KV tokens occupied."""
    need = 0
    for slot in range(lane.scalars[0].residents):
        need += advance(model, lane.residents[slot])
        lane.residents[slot].work = 0
    return need


@inlined
def is_decode(resident):
    """Whether a resident has only its newest token to compute."""
    return resident.computed >= resident.prompt and resident.known == resident.computed + 1


@kernel
def spend_on_decodes(lane, budget, before_s):
    """Let the paused decodes noted before a time run; returns the budget left."""
    for slot in range(lane.scalars[0].residents):
        resident = lane.residents[slot]
        paused = resident.work == 0 and is_decode(resident)
        if budget > 0 and paused and resident.note < before_s:
            resident.work = 1
            budget -= 1
    return budget


@kernel
def spend_on_prompts(lane, budget):
    """Go on with partly computed prompts; returns the budget left."""
    for slot in range(lane.scalars[0].residents):
        resident = lane.residents[slot]
        if not is_decode(resident):
            resident.work = min(resident.known - resident.computed, budget)
            budget -= resident.work
    return budget


@inlined
def admit_by_chunks(model, lane, need, budget):
    """Admit from the first queue that is not empty while budget and memory last.

    Returns the budget left.
    """
    scalars = lane.scalars[0]
    queue = 0
    while scalars.waiting > 0 and budget > 0:
        while lane.queues[queue].length == 0:
            queue += 1
        if not fits(model, lane, need, queue):
            break
        need += admit(model, lane, queue)
        newest = lane.residents[scalars.slots - 1]
        newest.work = min(newest.work, budget)
        budget -= newest.work
    return budget


_BUDGET = Parameter("budget_tokens", 512, 1, math.inf, "most tokens computed per iteration")

DAI = Policy(
    name="dai",
    summary="maximal mixed batches up to a token budget, decodes first",
    parameters=(*EVICTION_PARAMETERS, _BUDGET),
    form_batch=form_maximal_batch,
    queue_of=one_queue,
    form_aggregated=form_aggregated,
)

SLAI = Policy(
    name="slai",
    summary="decodes only when their deadline is near, shortest prompt first in between",
    parameters=(
        *EVICTION_PARAMETERS,
        _BUDGET,
        Parameter("tbt_target_s", 0.1, 0.0, math.inf, "longest time between tokens aimed at"),
    ),
    form_batch=form_deadline_batch,
    queue_of=queue_by_prompt,
)
