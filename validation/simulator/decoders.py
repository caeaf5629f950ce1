"""Residents that only decode are parked: an iteration costs the same however many there are.

A *parked* resident has emitted a token since its admission and computes one in every *decode step*,
an iteration in which decoders run. Its record stays as it was at the step when it was parked; s
steps later it has computed and knows s tokens more and owes s outputs less. Whatever the engine and
the policies need of all of them together is a sum that only changes when one comes or goes, or a
function of the step: with e the tokens that a resident knows at its end and t the step before which
it has ended, it knows e − (t − s) tokens at step s. Ends stand in a calendar of steps, each day a
linked list through the requests. A resident takes a block in every step in which the tokens it has
computed fill its blocks, so that the residents that take one are counted by phase, the step modulo
`block_tokens`.

What has to be touched, because it computes a prompt, say, is *active*. Slots of the residents'
array stand in order of admission; a slot whose request has completed is skipped, and squeezed
out when there are many. Where a rule has to go through all residents, `unpark_all` brings their
records up to date.

Where the rule decides `ahead`, who has ended is *leaving* for one more decision: it computes
nothing but keeps its seat and its blocks, and may be the victim of a preemption.
"""

from __future__ import annotations

import math

from validation.simulator.compiling import inlined, kernel
from validation.simulator.kv import block_rounded

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

MOST_GENERAL = 64
"""Longest stretch of iterations resident by resident before the decoders are parked again."""


@kernel
def clear(lane):
    """Nobody is parked and nobody active."""
    scalars = lane.scalars[0]
    scalars.slots = 0
    scalars.aggregated = 0
    scalars.general_left = 0
    scalars.general_next = 1
    scalars.aggregated_since = 0
    scalars.active = 0
    scalars.fresh = 0
    scalars.parked_token_at_s = 0.0
    scalars.leaving = 0
    scalars.leaving_held_tokens = 0
    scalars.step = 0
    scalars.step_day = 0
    scalars.step_phase = 0
    forget_sums(scalars)
    for day in range(lane.calendar.size):
        lane.calendar[day].completing = -1
        lane.calendar[day].growing = 0


@kernel
def forget_sums(scalars):
    """Sums over no parked resident at all."""
    scalars.parked = 0
    scalars.parked_held_tokens = 0
    scalars.parked_end_tokens = 0
    scalars.parked_end_steps = 0
    scalars.parked_end_steps_sq = 0
    scalars.parked_end_products = 0
    scalars.parked_work_s = 0.0


@inlined
def active_slot(lane, number):
    """Slot of the resident of this number among the active ones, in order of admission."""
    return lane.residents[number].active


@inlined
def parked_need(model, lane):
    """KV tokens that the parked residents occupy in the coming decode step."""
    scalars = lane.scalars[0]
    growing = lane.calendar[scalars.step_phase].growing
    return scalars.parked_held_tokens + growing * model.constants[0].block_tokens


@inlined
def parked_known(scalars):
    """Tokens that the parked residents know, all together."""
    return scalars.parked_end_tokens - scalars.parked_end_steps + scalars.parked * scalars.step


@kernel
def parked_done_work_s(model, scalars):
    """Of the `work_s` of the parked residents, what has been done (as `done_work_s` of each)."""
    constants = model.constants[0]
    parked, step = scalars.parked, scalars.step
    left = scalars.parked_end_steps - parked * step
    left_known = scalars.parked_end_products - step * scalars.parked_end_tokens
    left_sq = scalars.parked_end_steps_sq - step * (scalars.parked_end_steps + left)
    return scalars.parked_work_s - (
        parked * constants.prefill_work_s
        + left * constants.output_work_s
        + constants.kv_work_s * (left_known - 0.5 * left_sq)
    )


@kernel
def is_decoder(lane, resident):
    """Whether a resident, after an iteration, has nothing left but decodes like the one before."""
    request = lane.requests[resident.request]
    return (
        resident.known == resident.computed + 1
        and resident.known > request.known
        and not math.isnan(request.first_token_at_s)
    )


@inlined
def later_day(lane, steps):
    """Where the calendar has the step that comes in so many, fewer than it has days."""
    day = lane.scalars[0].step_day + steps
    return day - lane.calendar.size if day >= lane.calendar.size else day


@inlined
def growth_phase(model, lane, computed):
    """Phase in which a resident that has computed so many tokens before this step takes blocks."""
    block = model.constants[0].block_tokens
    if block == 1:
        return 0
    phase = lane.scalars[0].step_phase - computed % block
    return phase + block if phase < 0 else phase


@inlined
def add_to_sums(model, lane, resident_end_tokens, end_step, shape_index, sign):
    """Let a resident enter the sums (sign 1) or leave them (−1), but for the tokens it holds."""
    scalars = lane.scalars[0]
    scalars.parked += sign
    scalars.parked_end_tokens += sign * resident_end_tokens
    scalars.parked_end_steps += sign * end_step
    scalars.parked_end_steps_sq += sign * end_step * end_step
    scalars.parked_end_products += sign * end_step * resident_end_tokens
    scalars.parked_work_s += sign * model.shapes[shape_index].work_s


@inlined
def park(model, lane, slot):
    """From now on nothing about the decoder in this slot is touched."""
    scalars = lane.scalars[0]
    resident = lane.residents[slot]
    request = lane.requests[resident.request]
    resident.parked_at = scalars.step
    day = later_day(lane, resident.left)
    request.next = lane.calendar[day].completing
    lane.calendar[day].completing = resident.request
    lane.calendar[growth_phase(model, lane, resident.computed)].growing += 1
    scalars.parked_held_tokens += block_rounded(model, resident.computed)
    end_tokens = resident.known + resident.left
    add_to_sums(model, lane, end_tokens, scalars.step + resident.left, request.shape, 1)


@inlined
def end_tokens_of(model, shape_index):
    """Tokens that exist of a request of this shape at its end, whatever happened to it before.

    Where the end of its prompt emits nothing, the token computed next exists without an output.
    """
    shape = model.shapes[shape_index]
    silent = model.constants[0].silent_prefill or shape.prompt_tokens == shape.context_tokens
    return shape.prompt_tokens + shape.output_tokens + (1 if silent else 0)


@inlined
def retire_parked(model, lane, index):
    """Take a request out of the sums, whose resident has ended with the step just passed."""
    scalars = lane.scalars[0]
    shape = lane.requests[index].shape
    end_tokens = end_tokens_of(model, shape)
    lane.calendar[growth_phase(model, lane, end_tokens - 1)].growing -= 1
    held = block_rounded(model, end_tokens - 1)
    if scalars.ahead:
        scalars.leaving += 1
        scalars.leaving_held_tokens += held
    else:
        scalars.residents -= 1
        scalars.parked_held_tokens -= held
    add_to_sums(model, lane, end_tokens, scalars.step, shape, -1)
    if scalars.parked == 0:  # No rounding is carried on.
        scalars.parked_work_s = 0.0


@inlined
def let_go(scalars):
    """Take seat and blocks from those who have ended."""
    scalars.parked_held_tokens -= scalars.leaving_held_tokens
    scalars.residents -= scalars.leaving
    scalars.leaving = 0
    scalars.leaving_held_tokens = 0


@inlined
def pass_step(model, lane):
    """All parked residents have computed one token more."""
    scalars = lane.scalars[0]
    scalars.parked_held_tokens = parked_need(model, lane)
    scalars.step += 1
    scalars.step_day = later_day(lane, 1)
    scalars.step_phase += 1
    if scalars.step_phase == model.constants[0].block_tokens:
        scalars.step_phase = 0


@inlined
def first_of_day(lane):
    """Take the requests that have ended off the calendar; returns the first of their list."""
    day = lane.calendar[lane.scalars[0].step_day]
    first = day.completing
    day.completing = -1
    return first


@inlined
def has_ended(scalars, resident):
    """Whether the request of a slot in use has completed and is not leaving just now."""
    if resident.parked_at < 0:
        return False
    over = scalars.step - resident.parked_at - resident.left
    return over > 0 or (over == 0 and scalars.leaving == 0)


@inlined
def many_are_empty(lane):
    """Whether a ninth of all slots is in use for requests that have completed.

    Where it is less, `slots_for` leaves room for as many admissions as memory allows.
    """
    scalars = lane.scalars[0]
    return 9 * (scalars.slots - scalars.residents) >= lane.residents.size


def slots_for(most_residents: int) -> int:
    """Slots in which so many residents and those that left before the last `squeeze` have room."""
    return most_residents + most_residents // 8 + 16


@inlined
def move(lane, slot, target):
    """Move a resident to another slot, field by field: a device copies whole records by bytes."""
    if target == slot:
        return
    old, new = lane.residents[slot], lane.residents[target]
    new.request = old.request
    new.computed = old.computed
    new.known = old.known
    new.work = old.work
    new.held = old.held
    new.prompt = old.prompt
    new.left = old.left
    new.note = old.note
    new.token_at_s = old.token_at_s
    new.parked_at = old.parked_at


@kernel
def squeeze(lane):
    """Give back the slots whose requests have completed."""
    scalars = lane.scalars[0]
    kept = 0
    scalars.active = 0
    scalars.fresh = 0
    for slot in range(scalars.slots):
        if has_ended(scalars, lane.residents[slot]):
            continue
        move(lane, slot, kept)
        if lane.residents[kept].parked_at < 0:
            make_active(lane, kept)
        elif lane.residents[kept].parked_at == scalars.step:
            make_fresh(lane, kept)
        kept += 1
    scalars.slots = kept


@inlined
def make_active(lane, slot):
    """Append a slot to those of the active residents."""
    scalars = lane.scalars[0]
    lane.residents[scalars.active].active = slot
    scalars.active += 1


@inlined
def make_fresh(lane, slot):
    """Append a slot to those parked since the last decode step, which have their own last token."""
    scalars = lane.scalars[0]
    if lane.residents[slot].left > 0:
        lane.residents[scalars.fresh].fresh = slot
        scalars.fresh += 1


@kernel
def park_in_time(model, lane):
    """After an iteration resident by resident: park the decoders if there were enough of these."""
    scalars = lane.scalars[0]
    scalars.general_left -= 1
    if scalars.general_left > 0:
        return
    scalars.aggregated = 1
    scalars.aggregated_since = scalars.iterations
    scalars.active = 0
    for slot in range(scalars.slots):
        resident = lane.residents[slot]
        if resident.left == 0:
            resident.parked_at = scalars.step
            scalars.leaving += 1
            scalars.leaving_held_tokens += resident.held
            scalars.parked_held_tokens += resident.held
        elif is_decoder(lane, resident):
            park(model, lane, slot)
            make_fresh(lane, slot)
        else:
            make_active(lane, slot)


@kernel
def unpark_all(model, lane):
    """Bring the records of all residents up to date; they fill the slots from 0 on."""
    scalars = lane.scalars[0]
    scalars.aggregated = 0
    kept = 0
    for slot in range(scalars.slots):
        resident = lane.residents[slot]
        if has_ended(scalars, resident):
            continue
        if resident.parked_at >= 0:
            passed = scalars.step - resident.parked_at
            if passed > 0:
                resident.token_at_s = scalars.parked_token_at_s
            resident.computed += passed
            resident.known += passed
            resident.left -= passed
            resident.held = block_rounded(model, resident.computed)
            resident.parked_at = -1
            lane.calendar[later_day(lane, resident.left)].completing = -1
            lane.calendar[growth_phase(model, lane, resident.computed)].growing = 0
            if resident.left == 0:
                resident.known = resident.computed
        move(lane, slot, kept)
        kept += 1
    scalars.slots = kept
    scalars.active = 0
    scalars.fresh = 0
    scalars.leaving = 0
    scalars.leaving_held_tokens = 0
    forget_sums(scalars)
    # A rule that falls back again and again is not made to park everybody in between.
    if scalars.iterations - scalars.aggregated_since < MOST_GENERAL:
        scalars.general_next = min(2 * scalars.general_next, MOST_GENERAL)
    else:
        scalars.general_next = 1
    scalars.general_left = scalars.general_next
