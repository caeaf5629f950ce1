"""Stretches of iterations in which nothing but decodes happens, with everything at hand."""

from __future__ import annotations

import math

from validation.simulator.compiling import inlined
from validation.simulator.decoders import parked_known
from validation.simulator.iteration import token_seconds
from validation.simulator.recording import count_gaps
from validation.simulator.traffic.patience import next_to_give_up_s

# mypy: disable-error-code="no-untyped-def, no-untyped-call"


@inlined
def run_undisturbed(model, lane):
    """Go on decoding while nobody arrives, ends or needs more memory than the rule has allowed.

    The same iterations as `run_aggregated` would make, with everything at hand.
    """
    scalars = lane.scalars[0]
    if (
        scalars.waiting + scalars.active + scalars.leaving > 0
        or scalars.parked == 0
        or scalars.cohort_left == 0
        or scalars.next_arrival >= lane.requests.size
        or scalars.iterations < lane.series.shape[0]
        or scalars.parked_token_at_s < scalars.clock_s
        or (lane.clients.size > 0 and next_to_give_up_s(lane) < math.inf)
    ):
        return
    constants = model.constants[0]
    decodes = scalars.parked
    known = parked_known(scalars)
    batch_s = token_seconds(model.knots, decodes)
    request_s = constants.per_decode_request_s * decodes
    spare_s = max(batch_s - constants.token_s * decodes, 0.0)
    arrival_s = lane.requests[scalars.next_arrival].arrived_at_s
    clock_s, decides_at_s, tau = scalars.clock_s, scalars.decides_at_s, scalars.tau_s
    begun_s = clock_s
    window_start_s, window_end_s = scalars.window_start_s, scalars.window_end_s
    spare_sum_s, room_sum_s = scalars.spare_s, scalars.room_s
    busy_s, kv_integral = scalars.busy_s, scalars.kv_integral
    resident_integral = scalars.resident_integral
    held = scalars.parked_held_tokens
    kv_max = scalars.kv_max_tokens
    day, phase, steps, in_window_steps = scalars.step_day, scalars.step_phase, 0, 0
    while arrival_s > decides_at_s:
        day += 1
        if day == lane.calendar.size:
            day = 0
        need = held + lane.calendar[phase].growing * constants.block_tokens
        if need > scalars.undisturbed_tokens or lane.calendar[day].completing >= 0:
            break
        held = need
        steps += 1
        phase += 1
        if phase == constants.block_tokens:
            phase = 0
        spare_sum_s += spare_s
        room_sum_s += spare_s * (1.0 - held / constants.kv_capacity_tokens)
        tau = batch_s + constants.per_kv_token_s * known + request_s
        known += decodes
        begun_s = clock_s
        clock_s += tau
        decides_at_s = begun_s if scalars.ahead else clock_s
        begin, end = max(begun_s, window_start_s), min(clock_s, window_end_s)
        if end > begin:
            busy_s += end - begin
            kv_integral += held * (end - begin)
            resident_integral += decodes * (end - begin)
            kv_max = max(kv_max, held)
        if window_start_s < clock_s <= window_end_s:
            in_window_steps += 1
            count_gaps(lane, tau, decodes)
    if steps == 0:
        return
    scalars.system_integral += decodes * (clock_s - scalars.clock_s)
    scalars.begun_at_s = begun_s
    scalars.parked_token_at_s = clock_s
    scalars.fresh = 0
    scalars.clock_s, scalars.decides_at_s, scalars.tau_s = clock_s, decides_at_s, tau
    scalars.spare_s, scalars.room_s = spare_sum_s, room_sum_s
    scalars.busy_s, scalars.kv_integral = busy_s, kv_integral
    scalars.resident_integral = resident_integral
    scalars.kv_max_tokens = kv_max
    scalars.kv_held_tokens = held
    scalars.parked_held_tokens = held
    scalars.tokens_decoded += in_window_steps * decodes
    scalars.tokens_computed += in_window_steps * decodes
    scalars.iterations += steps
    scalars.step += steps
    scalars.step_day = (scalars.step_day + steps) % lane.calendar.size
    scalars.step_phase = phase
