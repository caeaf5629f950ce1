"""The one simulation loop (THEORY 1.1–1.5), compiled once per policy.

All decisions happen while the server is idle: at the end of an iteration, or at an arrival while
nothing runs. (A rule that decides `ahead` does so one iteration earlier: who arrives during that
iteration, or ends with it, it does not know of.) At each decision the arrivals so far join their
queues, the policy's `form_batch` evicts, admits and sets `work` for every resident, and the
iteration runs for τ of that batch.

Where a policy has a rule for ordinary iterations, `form_aggregated`, residents that only decode are
parked (`validation.simulator.decoders`) and not touched, until that rule says that it cannot tell
what to do without them: they are then brought up to date, and `form_batch` decides.
"""

from __future__ import annotations

import math

import numpy as np

from validation.simulator.arrivals import lay_out
from validation.simulator.compiling import inlined, kernel
from validation.simulator.decoders import (
    active_slot,
    clear,
    first_of_day,
    let_go,
    make_active,
    make_fresh,
    many_are_empty,
    move,
    park,
    park_in_time,
    parked_done_work_s,
    parked_known,
    parked_need,
    pass_step,
    retire_parked,
    squeeze,
    unpark_all,
)
from validation.simulator.kv import block_rounded
from validation.simulator.recording import count_gaps, measure, record_gaps
from validation.simulator.traffic.clients import in_order_of_admission, send_first
from validation.simulator.traffic.ends import end_request, refuse
from validation.simulator.traffic.patience import (
    be_patient,
    give_up_answer,
    give_up_next,
    is_awaited,
    next_to_give_up_s,
)
from validation.simulator.traffic.queue_limit import is_accepted
from validation.simulator.window import in_cohort, in_window, is_measuring, mark_window, set_window

# mypy: disable-error-code="no-untyped-def, no-untyped-call"


def form_batch(model, lane, params, thresholds):
    """Replaced by a policy's own rule when the loop is bound to it."""
    raise NotImplementedError


AGGREGATES = False
"""Replaced by True when the loop is bound to a policy with a rule for ordinary iterations."""


def form_aggregated(model, lane, params, thresholds):
    """Replaced by that rule; it returns False, having changed nothing, where it cannot tell."""
    raise NotImplementedError


def queue_of(model, shape):
    """Replaced by a policy's own choice of queue for a request of this shape."""
    raise NotImplementedError


def run_lane(model, lane, params, thresholds):
    """Run one started replication in `lane`, until all that arrived in the window have ended.

    `model` is a `Service`: to hand a whole `Model` around would halve the speed.
    """
    scalars = lane.scalars[0]
    if AGGREGATES:
        scalars.aggregated = 1
    while is_measuring(model, scalars):
        scalars.left_service = 0
        while _somebody_arrives(model, lane):
            request = scalars.next_arrival
            if _joins(model, lane, request):
                push_back(lane, queue_of(model, lane.requests[request].shape), request)
        scalars.wake_at_s = math.inf
        if AGGREGATES:
            scalars.decoders_run = 1
            scalars.undisturbed_tokens = 0
            if scalars.aggregated and not form_aggregated(model, lane, params, thresholds):
                unpark_all(model, lane)
        if not scalars.aggregated:
            form_batch(model, lane, params, thresholds)
        if scalars.next_arrival >= scalars.path_next:
            _sample(model, lane)
        if AGGREGATES and scalars.aggregated:
            ran = run_aggregated(model, lane)
            if scalars.undisturbed_tokens > 0:
                run_undisturbed(model, lane)
        else:
            ran = run_iteration(model, lane)
            if AGGREGATES:
                park_in_time(model, lane)
        if ran:
            if _stuck(model, lane):
                scalars.stuck = 1
                break
            continue
        if not (_catch_up(lane) or _sleep(lane)):
            break
    scalars.window_end_s = min(scalars.window_end_s, scalars.clock_s)


@kernel
def _somebody_arrives(model, lane):
    """Whether somebody has arrived who has not joined yet; lets go who gave up before that."""
    scalars = lane.scalars[0]
    while True:
        arrival_s = _next_arrival_s(lane)
        until_s = min(arrival_s, scalars.decides_at_s)
        if lane.clients.size == 0 or not give_up_next(model, lane, until_s):
            return arrival_s <= scalars.decides_at_s


@kernel
def _next_arrival_s(lane):
    scalars = lane.scalars[0]
    if scalars.next_arrival == lane.requests.size:
        return math.inf
    return lane.requests[scalars.next_arrival].arrived_at_s


@kernel
def _joins(model, lane, index):
    """Take the next arrival in; False if it is refused."""
    scalars = lane.scalars[0]
    request = lane.requests[index]
    scalars.next_arrival += 1
    mark_window(model, lane, index)
    if lane.clients.size > 0 and not is_accepted(model, lane, index):
        refuse(model, lane, index)
        return False
    forget_progress(model, lane, index)
    scalars.arrived_work_s += model.shapes[request.shape].work_s
    scalars.arrivals_present_s += request.arrived_at_s
    scalars.system_integral += scalars.clock_s - request.arrived_at_s
    if lane.clients.size > 0:
        shape = model.shapes[request.shape]
        lane.clients[index].prompt_tokens = shape.prompt_tokens - shape.context_tokens
        be_patient(model, lane, index)
    return True


@kernel
def _catch_up(lane):
    """Where a batch formed ahead is empty, see who ends with the iteration before; False: none."""
    scalars = lane.scalars[0]
    if scalars.decides_at_s == scalars.clock_s:
        return False
    scalars.decides_at_s = scalars.clock_s
    if scalars.aggregated:
        let_go(scalars)
        return True
    kept = 0
    for slot in range(scalars.residents):
        if lane.residents[slot].left > 0:
            move(lane, slot, kept)
            kept += 1
    scalars.residents = kept
    scalars.slots = kept
    return True


@kernel
def _sleep(lane):
    """Pass the time until an arrival or the policy's wake-up; False if there is neither.

    Time with requests in the system counts as lost where nobody waits, and where an arrival ended
    it that let a batch run: the rule had held the others for company. Whether it did is known at
    the next sleep.
    """
    scalars = lane.scalars[0]
    arrival_s = _next_arrival_s(lane)
    company = arrival_s <= scalars.wake_at_s
    scalars.wake_at_s = min(scalars.wake_at_s, arrival_s)
    if lane.clients.size > 0:
        scalars.wake_at_s = min(scalars.wake_at_s, next_to_give_up_s(lane))
    if math.isinf(scalars.wake_at_s):
        return False
    if scalars.iterations > scalars.slept_at_iteration:
        if scalars.slept_for_company:
            scalars.held_s += scalars.slept_s
        scalars.slept_s = 0.0
        scalars.slept_at_iteration = scalars.iterations
    passed_s = scalars.wake_at_s - scalars.clock_s
    if scalars.residents + scalars.waiting == 0:
        scalars.idle_s += passed_s
    elif scalars.waiting == 0:
        scalars.held_s += passed_s
    else:
        scalars.slept_s += passed_s
    scalars.slept_for_company = company
    scalars.system_integral += (scalars.residents + scalars.waiting) * passed_s
    scalars.clock_s = scalars.wake_at_s
    scalars.decides_at_s = scalars.clock_s
    return True


@kernel
def _stuck(model, lane):
    """Whether nobody came or completed for many service times, so that nobody ever will.

    Thresholds that do not fit into memory can evict and readmit the same request for ever. A
    chunked prompt takes at most one iteration for each of its tokens, all of which fit into memory.
    """
    scalars = lane.scalars[0]
    patience = 100 + 10 * lane.stage_count.shape[1] + model.constants[0].kv_capacity_tokens
    no_more_arrivals = scalars.next_arrival >= scalars.sent
    return no_more_arrivals and scalars.iterations - scalars.last_completion > patience


@kernel
def start(model, lane, seed, replication, rate_scale):
    """Reset the lane and lay out the arrivals of the replication, as far as they are known."""
    _reset(lane, seed, replication)
    if model.tape.size == 0 and model.constants[0].clients == 0:
        lay_out(model, lane, seed, replication, model.constants[0].rate_per_s * rate_scale)
    for index in range(lane.requests.size):
        request = lane.requests[index]
        if model.tape.size > 0:
            request.arrived_at_s = model.tape[index].arrived_at_s / rate_scale
            request.shape = model.tape[index].shape
        request.first_token_at_s = np.nan
        request.completed_at_s = np.nan
        request.token_at_s = np.nan
        request.evictions = 0
    for index in range(lane.clients.size):
        client = lane.clients[index]
        client.draw = index
        client.queue = -1
        client.gives_up_at_s = math.inf
        client.left_at_s = np.nan
    if model.constants[0].clients > 0:
        send_first(model, lane)
    set_window(model, lane)


@kernel
def _reset(lane, seed, replication):
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


@kernel
def forget_progress(model, lane, index):
    """What a request knows on arrival, and again after an eviction that loses its progress."""
    request = lane.requests[index]
    shape = model.shapes[request.shape]
    decode_only = shape.prompt_tokens == shape.context_tokens
    request.known = shape.prompt_tokens + (1 if decode_only else 0)
    request.left = shape.output_tokens


@inlined
def push_back(lane, queue_index, request_index):
    """Let a request wait at the end of a queue."""
    queue = lane.queues[queue_index]
    lane.requests[request_index].next = -1
    if queue.length == 0:
        queue.head = request_index
    else:
        lane.requests[queue.tail].next = request_index
    queue.tail = request_index
    queue.length += 1
    _waits(lane, queue_index, request_index)


@kernel
def push_front(lane, queue_index, request_index):
    """Let a request wait at the head of a queue."""
    queue = lane.queues[queue_index]
    lane.requests[request_index].next = queue.head
    queue.head = request_index
    if queue.length == 0:
        queue.tail = request_index
    queue.length += 1
    _waits(lane, queue_index, request_index)


@kernel
def _waits(lane, queue_index, request_index):
    lane.scalars[0].waiting += 1
    if lane.clients.size > 0:
        client = lane.clients[request_index]
        client.queue = queue_index
        lane.scalars[0].waiting_tokens += client.prompt_tokens


@kernel
def head_tokens(model, lane, queue_index):
    """KV tokens that the head of a queue would occupy if it were admitted now."""
    head = lane.queues[queue_index].head
    return block_rounded(model, lane.requests[head].known)


@inlined
def admit(model, lane, queue_index):
    """Make the head of a queue the newest resident, all its known tokens to be computed now.

    Returns the KV tokens that it occupies.
    """
    scalars = lane.scalars[0]
    queue = lane.queues[queue_index]
    request = lane.requests[queue.head]
    shape = model.shapes[request.shape]
    resident = lane.residents[scalars.slots]
    resident.parked_at = -1
    resident.request = queue.head
    resident.computed = shape.context_tokens
    resident.known = request.known
    resident.work = request.known - shape.context_tokens
    resident.held = block_rounded(model, request.known)
    resident.prompt = shape.prompt_tokens
    resident.left = request.left
    resident.note = 0.0
    resident.token_at_s = request.token_at_s
    queue.head = request.next
    queue.length -= 1
    scalars.waiting -= 1
    if lane.clients.size > 0:
        client = lane.clients[resident.request]
        client.queue = -1
        client.admitted = scalars.admissions
        scalars.admissions += 1
        scalars.waiting_tokens -= client.prompt_tokens
    scalars.residents += 1
    if scalars.aggregated:
        make_active(lane, scalars.slots)
    scalars.slots += 1
    return resident.held


@inlined
def advance_all(model, lane):
    """`advance` for a rule on aggregates: all active residents, and all parked ones with them."""
    need = parked_need(model, lane)
    for number in range(lane.scalars[0].active):
        need += advance(model, lane.residents[active_slot(lane, number)])
    return need


@inlined
def advance(model, resident):
    """Let a resident compute all it knows; returns the KV tokens that it occupies then."""
    resident.work = resident.known - resident.computed
    resident.held = block_rounded(model, resident.known)
    return resident.held


@kernel
def choose_victim(lane, latest_arrival, first=0):
    """Slot to evict, from `first` on: the last admitted, or the latest to arrive."""
    last = lane.scalars[0].residents - 1
    if latest_arrival == 0.0:
        return last
    victim = first
    for slot in range(first + 1, last + 1):
        if lane.residents[slot].request > lane.residents[victim].request:
            victim = slot
    return victim


@kernel
def evict(model, lane, slot, queue_index, requeue_back, keep_progress):
    """Drop a resident's KV and send it back to its queue."""
    scalars = lane.scalars[0]
    resident = lane.residents[slot]
    index = resident.request
    request = lane.requests[index]
    request.evictions += 1
    request.token_at_s = resident.token_at_s
    if in_window(scalars):
        scalars.evictions += 1
        context_tokens = model.shapes[request.shape].context_tokens
        scalars.tokens_recomputed += resident.computed - context_tokens
    constants = model.constants[0]
    ends = resident.left == 0
    scalars.lost_work_s += 0.0 if ends else resident.computed * constants.prefill_work_s
    if ends or keep_progress != 0.0:
        request.known = resident.known
        request.left = resident.left
    else:
        left = resident.left
        forget_progress(model, lane, index)
        lost = request.left - left
        scalars.lost_work_s += lost * (
            constants.output_work_s + constants.kv_work_s * (resident.known - 0.5 * lost)
        )
        if in_window(scalars):
            scalars.tokens_lost += lost
    for later in range(slot + 1, scalars.residents):
        move(lane, later, later - 1)
    scalars.residents -= 1
    scalars.slots -= 1
    if ends:  # With the iteration that runs while a batch is formed ahead.
        return
    if requeue_back != 0.0:
        push_back(lane, queue_index, index)
    else:
        push_front(lane, queue_index, index)


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


@kernel
def _sample(model, lane):
    """Append to the path; when it is full, keep every other sample and double the stride."""
    scalars = lane.scalars[0]
    constants = model.constants[0]
    owed_work_s = scalars.arrived_work_s - scalars.done_work_s
    if scalars.aggregated:
        owed_work_s -= parked_done_work_s(model, scalars)
    for number in range(scalars.active if scalars.aggregated else scalars.residents):
        resident = lane.residents[active_slot(lane, number) if scalars.aggregated else number]
        if resident.left == 0:
            continue
        uncomputed, left = resident.known - resident.computed, resident.left
        whole_s = model.shapes[lane.requests[resident.request].shape].work_s
        owed_work_s -= whole_s - (
            uncomputed * constants.prefill_work_s
            + left * (constants.output_work_s + constants.kv_work_s * (resident.known + 0.5 * left))
        )
    row = lane.path[scalars.path_rows]
    row[0] = scalars.next_arrival
    row[1] = scalars.clock_s
    row[2] = scalars.residents + scalars.waiting
    row[3] = scalars.waiting
    row[4] = owed_work_s
    row[5] = scalars.arrived_work_s
    row[6] = scalars.lost_work_s
    row[7] = scalars.idle_s
    row[8] = scalars.spare_s
    row[9] = scalars.room_s
    row[10] = scalars.held_s
    scalars.path_rows += 1
    if scalars.path_rows == lane.path.shape[0]:
        scalars.path_rows //= 2
        scalars.path_stride *= 2
        for kept in range(scalars.path_rows):
            for column in range(lane.path.shape[1]):
                lane.path[kept, column] = lane.path[2 * kept + 1, column]
    scalars.path_next = scalars.next_arrival + scalars.path_stride


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


@kernel
def _complete(model, lane, index):
    scalars = lane.scalars[0]
    request = lane.requests[index]
    if math.isnan(request.first_token_at_s):
        give_up_answer(model, lane, index)
        return
    request.completed_at_s = scalars.clock_s
    scalars.done_work_s += model.shapes[request.shape].work_s
    if in_window(scalars):
        scalars.completed += 1
    if in_cohort(scalars, index):
        measure(model, lane, index)
    end_request(model, lane, index, scalars.clock_s)
