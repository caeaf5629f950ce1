"""The start of a replication: everything in its lane as if nothing had run there before."""

from __future__ import annotations

import math

import numpy as np

from validation.simulator.arrivals import lay_out
from validation.simulator.compiling import called_kernel, kernel
from validation.simulator.decoders import clear
from validation.simulator.traffic.clients import send_first
from validation.simulator.traffic.conversations import keep_starts
from validation.simulator.window import set_window

# mypy: disable-error-code="no-untyped-def, no-untyped-call"


@called_kernel
def start(model, lane, seed, replication, rate_scale):
    """Reset the lane and lay out the arrivals of the replication, as far as they are known."""
    reset(lane, seed, replication)
    if model.tape.size == 0 and model.constants[0].clients == 0:
        rate_per_s = model.constants[0].rate_per_s * model.constants[0].starts_share
        lay_out(model, lane, seed, replication, rate_per_s * rate_scale)
    for index in range(lane.requests.size):
        request = lane.requests[index]
        if model.tape.size > 0:
            request.arrived_at_s = model.tape[index].arrived_at_s / rate_scale
            request.shape = model.tape[index].shape
        request.first_token_at_s = np.nan
        request.completed_at_s = np.nan
        request.evictions = 0
    for index in range(lane.clients.size):
        client = lane.clients[index]
        client.draw = index
        client.queue = -1
        client.gives_up_at_s = math.inf
        client.left_at_s = np.nan
    if model.constants[0].clients > 0:
        send_first(model, lane)
    if model.constants[0].conversations:
        keep_starts(lane)
    set_window(model, lane)


@kernel
def reset(lane, seed, replication):
    """Leave nothing in a lane of what ran there before, but for its requests."""
    scalars = lane.scalars[0]
    scalars.seed = seed
    scalars.replication = replication
    scalars.sent = lane.requests.size
    scalars.admissions = 0
    scalars.leavers = 0
    scalars.waiting_tokens = 0
    scalars.clock_s = 0.0
    scalars.decides_at_s = 0.0
    scalars.ahead = 0
    scalars.next_arrival = 0
    scalars.residents = 0
    scalars.waiting = 0
    clear(lane)
    scalars.credit = 1.0
    scalars.tau_s = 0.0
    scalars.drain_at_s = math.inf
    scalars.until_s = math.inf
    scalars.asleep = 0
    scalars.iterations = 0
    scalars.last_completion = 0
    scalars.completed = 0
    scalars.evictions = 0
    scalars.tokens_decoded = 0
    scalars.tokens_lost = 0
    scalars.tokens_computed = 0
    scalars.tokens_recomputed = 0
    scalars.tokens_given_up = 0
    scalars.gap_sum_s = 0.0
    scalars.gap_max_s = 0.0
    scalars.gap_bin = 0
    scalars.gap_bin_low_s = math.inf
    scalars.gap_bin_high_s = 0.0
    scalars.refused = 0
    scalars.too_long = 0
    scalars.gave_up = 0
    scalars.sojourn_s = 0.0
    scalars.arrivals_present_s = 0.0
    scalars.system_integral = 0.0
    scalars.kv_max_tokens = 0
    scalars.kv_integral = 0.0
    scalars.resident_integral = 0.0
    scalars.busy_s = 0.0
    scalars.path_rows = 0
    scalars.path_stride = 1
    scalars.path_next = 1
    scalars.arrived_work_s = 0.0
    scalars.done_work_s = 0.0
    scalars.lost_work_s = 0.0
    scalars.idle_s = 0.0
    scalars.spare_s = 0.0
    scalars.room_s = 0.0
    scalars.held_s = 0.0
    scalars.slept_s = 0.0
    scalars.slept_for_company = 0
    scalars.slept_at_iteration = 0
    scalars.stuck = 0
    for index in range(lane.queues.size):
        queue = lane.queues[index]
        queue.head = -1
        queue.tail = -1
        queue.length = 0
    lane.stage_count[:] = 0
    lane.sums[:] = 0.0
    lane.histogram[:] = 0
