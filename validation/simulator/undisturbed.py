"""Stretches of iterations in which nothing but decodes happens, with everything at hand."""

from __future__ import annotations

import math

from validation.simulator.compiling import inlined
from validation.simulator.decoders import later_day, parked_known
from validation.simulator.iteration import token_seconds
from validation.simulator.recording import GAP, remember_bin
from validation.simulator.traffic.patience import next_to_give_up_s

# mypy: disable-error-code="no-untyped-def, no-untyped-call"


@inlined
def is_undisturbed(lane):
    """Whether all requests in the system are parked, and one step more ends none of them."""
    scalars = lane.scalars[0]
    return (
        scalars.waiting + scalars.active + scalars.leaving == 0
        and scalars.parked > 0
        and lane.calendar[later_day(lane, 1)].completing < 0
        and scalars.cohort_left > 0
        and scalars.next_arrival < lane.requests.size
        and lane.requests[scalars.next_arrival].arrived_at_s > scalars.clock_s
        and scalars.iterations >= lane.series.shape[0]
        and scalars.parked_token_at_s == scalars.clock_s
        and (lane.clients.size == 0 or math.isinf(next_to_give_up_s(lane)))
    )


@inlined
def run_undisturbed(model, lane):
    """Go on decoding while nobody arrives, ends or needs more memory than the rule has allowed.

    The same iterations as `run_aggregated` would make. None of them crosses an edge of the window,
    and each takes at least as long as the one before it.
    """
    scalars = lane.scalars[0]
    constants = model.constants[0]
    decodes, known = float(scalars.parked), float(parked_known(scalars))
    batch_s = token_seconds(model.knots, scalars.parked)
    request_s = constants.per_decode_request_s * decodes
    spare_s = max(batch_s - constants.token_s * decodes, 0.0)
    arrival_s = lane.requests[scalars.next_arrival].arrived_at_s
    clock_s, begun_s, tau = scalars.clock_s, scalars.begun_at_s, scalars.tau_s
    measured = scalars.window_start_s <= clock_s < scalars.window_end_s
    until_s = math.inf
    if measured:
        until_s = scalars.window_end_s
    elif clock_s < scalars.window_start_s:
        until_s = scalars.window_start_s
    spare_sum_s, room_sum_s = scalars.spare_s, scalars.room_s
    system_integral = scalars.system_integral
    busy_s, kv_integral = scalars.busy_s, scalars.kv_integral
    resident_integral, gap_sum_s = scalars.resident_integral, scalars.gap_sum_s
    gap_high_s, alike = scalars.gap_bin_high_s, 0
    if batch_s + constants.per_kv_token_s * known + request_s < scalars.gap_bin_low_s:
        gap_high_s = 0.0
    held, day, phase, steps = scalars.parked_held_tokens, scalars.step_day, scalars.step_phase, 0
    while arrival_s > clock_s:
        next_tau = batch_s + constants.per_kv_token_s * known + request_s
        end_s = clock_s + next_tau
        need = held + lane.calendar[phase].growing * constants.block_tokens
        day += 1
        if day == lane.calendar.size:
            day = 0
        ends_one = lane.calendar[day].completing >= 0
        if ends_one or need > scalars.undisturbed_tokens or end_s > until_s:
            break
        gap_s = decodes * next_tau
        system_integral += gap_s
        spare_sum_s += spare_s
        room_sum_s += spare_s * (1.0 - need / constants.kv_capacity_tokens)
        if measured:
            passed_s = end_s - clock_s
            busy_s += passed_s
            kv_integral += need * passed_s
            resident_integral += decodes * passed_s
            gap_sum_s += gap_s
            if next_tau >= gap_high_s:
                lane.histogram[0, GAP, scalars.gap_bin] += alike * scalars.parked
                alike = 0
                remember_bin(scalars, next_tau)
                gap_high_s = scalars.gap_bin_high_s
            alike += 1
        begun_s, clock_s, tau, held = clock_s, end_s, next_tau, need
        known += decodes
        steps += 1
        phase += 1
        if phase == constants.block_tokens:
            phase = 0
    if steps == 0:
        return
    scalars.system_integral = system_integral
    scalars.begun_at_s, scalars.clock_s, scalars.tau_s = begun_s, clock_s, tau
    scalars.decides_at_s = begun_s if scalars.ahead else clock_s
    scalars.parked_token_at_s = clock_s
    scalars.fresh = 0
    scalars.spare_s, scalars.room_s = spare_sum_s, room_sum_s
    scalars.kv_held_tokens = held
    scalars.parked_held_tokens = held
    scalars.iterations += steps
    scalars.step += steps
    scalars.step_day = later_day(lane, steps)
    scalars.step_phase = phase
    if measured:
        scalars.busy_s, scalars.kv_integral = busy_s, kv_integral
        scalars.resident_integral, scalars.gap_sum_s = resident_integral, gap_sum_s
        scalars.gap_max_s = max(scalars.gap_max_s, tau)
        scalars.kv_max_tokens = max(scalars.kv_max_tokens, held)
        scalars.tokens_decoded += steps * scalars.parked
        scalars.tokens_computed += steps * scalars.parked
        lane.histogram[0, GAP, scalars.gap_bin] += alike * scalars.parked
