"""One iteration: how long its batch takes, and who has a token, or has ended, when it is over."""

from __future__ import annotations

import math

from validation.simulator.compiling import inlined, kernel
from validation.simulator.decoders import (
    active_slot,
    first_of_day,
    let_go,
    make_active,
    make_fresh,
    many_are_empty,
    move,
    park,
    parked_known,
    parked_need,
    pass_step,
    retire_parked,
    squeeze,
)
from validation.simulator.recording import measure, record_gaps
from validation.simulator.traffic.clients import in_order_of_admission
from validation.simulator.traffic.ends import end_request
from validation.simulator.traffic.patience import give_up_answer, is_awaited
from validation.simulator.window import in_cohort, in_window

# mypy: disable-error-code="no-untyped-def, no-untyped-call"


@inlined
def iteration_seconds(model, lane):
    """τ of the batch that `work` describes (THEORY 1.3); 0.0 where nobody works.

    Where decoders are parked, they count as one if they run, and only the active are looked at.
    Also sums up the KV tokens held during the iteration.
    """
    scalars = lane.scalars[0]
    held = 0
    decodes = 0
    kv_read = 0
    touched = scalars.residents
    if scalars.aggregated:
        touched = scalars.active
        held = scalars.parked_held_tokens
        if scalars.decoders_run:
            held = parked_need(model, lane)
            decodes = scalars.parked
            kv_read = parked_known(scalars)
    tokens = decodes
    prefill_sq = 0.0
    prefill_context = 0.0
    for number in range(touched):
        resident = lane.residents[active_slot(lane, number) if scalars.aggregated else number]
        work, computed = resident.work, resident.computed
        held += resident.held
        tokens += work
        if work == 1 and computed >= resident.prompt:
            decodes += 1
            kv_read += computed + 1
        else:
            prefill_sq += float(work) * work
            prefill_context += float(work) * computed
    scalars.kv_held_tokens = held
    return batch_seconds(model, scalars, tokens, decodes, kv_read, prefill_sq, prefill_context)


@inlined
def batch_seconds(model, scalars, tokens, decodes, kv_read, prefill_sq, prefill_context):
    """τ of a batch from its sums, beside the KV tokens that `scalars` holds; 0.0 if it is empty."""
    scalars.batch_tokens = tokens
    if tokens == 0:
        return 0.0
    constants = model.constants[0]
    batch_s = token_seconds(model.knots, tokens)
    if scalars.waiting == 0:
        spare_s = max(batch_s - constants.token_s * tokens, 0.0)
        scalars.spare_s += spare_s
        held = scalars.kv_held_tokens
        scalars.room_s += spare_s * (1.0 - held / constants.kv_capacity_tokens)
    return (
        batch_s
        + constants.per_kv_token_s * kv_read
        + constants.per_prefill_token_s * (tokens - decodes)
        + constants.per_decode_request_s * decodes
        + constants.per_prefill_token_sq_s * prefill_sq
        + constants.per_prefill_context_token_s * prefill_context
    )


@inlined
def token_seconds(knots, tokens):
    """f(tokens): linear between knots, the lower value at a jump, last slope beyond the end."""
    if knots.size == 1:
        return knots[0].seconds
    right = 1
    while right < knots.size - 1 and knots[right].tokens < tokens:
        right += 1
    low, high = knots[right - 1], knots[right]
    share = (tokens - low.tokens) / (high.tokens - low.tokens)
    return low.seconds + share * (high.seconds - low.seconds)


@kernel
def run_iteration(model, lane):
    """Spend τ on the batch, hand out its tokens and retire what is done; False if it is empty."""
    tau = iteration_seconds(model, lane)
    if tau == 0.0:
        return False
    scalars = lane.scalars[0]
    _pass(lane, tau)
    kept = 0
    for slot in range(scalars.residents):
        resident = lane.residents[slot]
        if resident.left == 0:  # It ended with the iteration before.
            continue
        resident.computed += resident.work
        if resident.work > 0 and resident.computed == resident.known:
            resident.known += 1
            if emits(model, resident):
                _emit_token(lane, resident)
                if resident.left == 0:
                    _complete(model, lane, resident.request)
                    if not scalars.ahead:
                        continue
                    resident.known = resident.computed
        move(lane, slot, kept)
        kept += 1
    scalars.residents = kept
    scalars.slots = kept
    _record_steady_gaps(lane, tau)
    return True


@inlined
def run_aggregated(model, lane):
    """The same with parked residents; whoever emits a token is parked."""
    tau = iteration_seconds(model, lane)
    if tau == 0.0:
        return False
    scalars = lane.scalars[0]
    _pass(lane, tau)
    if scalars.leaving > 0:
        let_go(scalars)
    if scalars.decoders_run:
        if in_window(scalars):
            scalars.tokens_decoded += scalars.parked
        _record_parked_gaps(lane)
        pass_step(model, lane)
    active = scalars.active
    scalars.active = 0
    for number in range(active):
        slot = active_slot(lane, number)
        resident = lane.residents[slot]
        resident.computed += resident.work
        if resident.work > 0 and resident.computed == resident.known:
            resident.known += 1
            if emits(model, resident):
                _emit_token(lane, resident)
                park(model, lane, slot)
                make_fresh(lane, slot)
                continue
        make_active(lane, slot)
    index = first_of_day(lane)
    if lane.clients.size > 0:
        index = in_order_of_admission(lane, index)
    while index >= 0:
        following = lane.requests[index].next
        retire_parked(model, lane, index)
        _complete(model, lane, index)
        index = following
    if many_are_empty(lane):
        squeeze(lane)
    _record_steady_gaps(lane, tau)
    return True


@inlined
def emits(model, resident):
    """Whether a resident that has computed all it knew has a token; not so the paper's prefill."""
    silent = model.constants[0].silent_prefill
    return not (silent and resident.computed == resident.prompt)


@inlined
def _pass(lane, tau):
    """Let an iteration of this duration pass."""
    scalars = lane.scalars[0]
    _account(lane, tau)
    scalars.tau_s = tau
    scalars.begun_at_s = scalars.clock_s
    scalars.clock_s += tau
    scalars.decides_at_s = scalars.begun_at_s if scalars.ahead else scalars.clock_s
    scalars.iterations += 1
    if in_window(scalars):
        scalars.tokens_computed += scalars.batch_tokens
    scalars.steady_tokens = 0


@inlined
def _account(lane, tau):
    """Time integrals over the part of this iteration that lies in the window."""
    scalars = lane.scalars[0]
    held = scalars.kv_held_tokens
    if scalars.iterations < lane.series.shape[0]:
        lane.series[scalars.iterations, 0] = scalars.clock_s
        lane.series[scalars.iterations, 1] = held
        lane.series[scalars.iterations, 2] = scalars.residents
        lane.series[scalars.iterations, 3] = scalars.waiting
    scalars.system_integral += (scalars.residents + scalars.waiting) * tau
    begin = max(scalars.clock_s, scalars.window_start_s)
    end = min(scalars.clock_s + tau, scalars.window_end_s)
    if end > begin:
        scalars.busy_s += end - begin
        scalars.kv_integral += held * (end - begin)
        scalars.resident_integral += scalars.residents * (end - begin)
        scalars.kv_max_tokens = max(scalars.kv_max_tokens, held)


@inlined
def _record_parked_gaps(lane):
    """All parked residents emit a token: after that of the last decode step, but for the fresh."""
    scalars = lane.scalars[0]
    old = scalars.parked - scalars.fresh
    if old > 0:
        _note_gaps(lane, scalars.parked_token_at_s, old)
    for number in range(scalars.fresh):
        _note_gaps(lane, lane.residents[lane.residents[number].fresh].token_at_s, 1)
    scalars.fresh = 0
    scalars.parked_token_at_s = scalars.clock_s


@inlined
def _note_gaps(lane, last_at_s, count):
    """So many requests emit a token now, whose last one came then."""
    scalars = lane.scalars[0]
    if last_at_s == scalars.begun_at_s:
        scalars.steady_tokens += count
    else:
        record_gaps(lane, scalars.clock_s - last_at_s, count)


@inlined
def _record_steady_gaps(lane, tau):
    """Those of all requests that had a token at the end of the iteration before."""
    steady = lane.scalars[0].steady_tokens
    if steady > 0:
        record_gaps(lane, tau, steady)


@inlined
def _emit_token(lane, resident):
    scalars = lane.scalars[0]
    resident.left -= 1
    if not math.isnan(resident.token_at_s):
        _note_gaps(lane, resident.token_at_s, 1)
    resident.token_at_s = scalars.clock_s
    if in_window(scalars):
        scalars.tokens_decoded += 1
    request = lane.requests[resident.request]
    if math.isnan(request.first_token_at_s) and is_awaited(lane, resident.request):
        request.first_token_at_s = scalars.clock_s


@inlined
def _complete(model, lane, index):
    scalars = lane.scalars[0]
    request = lane.requests[index]
    if lane.clients.size > 0 and math.isnan(request.first_token_at_s):
        give_up_answer(model, lane, index)
        return
    request.completed_at_s = scalars.clock_s
    scalars.done_work_s += model.shapes[request.shape].work_s
    if in_window(scalars):
        scalars.completed += 1
    if in_cohort(scalars, index):
        measure(model, lane, index)
    end_request(model, lane, index, scalars.clock_s)
