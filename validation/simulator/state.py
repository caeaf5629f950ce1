"""Working memory of one replication: plain arrays, allocated once and reused by a thread.

Requests are numbered in order of arrival. *Residents* hold KV cache and stand in order of
admission; their `work` is what the policy lets each of them compute in the coming iteration.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from validation.simulator.decoders import slots_for
from validation.simulator.model import Model
from validation.simulator.traffic.state import CLIENT

HISTOGRAM_LOWEST_S = 1e-4
HISTOGRAM_RATIO = 1.02
"""Neighbouring bin edges; the geometric middle of a bin is within 1 % of all its values."""
HISTOGRAM_BINS = 1200
"""Bins up to 2 × 10⁶ s."""

PATH_ROWS = 256
"""Samples kept of the backlog's path; their stride doubles whenever all rows are taken."""

PATH_COLUMNS = (
    "arrived",  # requests so far
    "clock_s",
    "in_system",  # waiting and in service, after admission
    "waiting",
    "owed_work_s",  # still to be done for all that have arrived, `work_s` of SHAPE
    "arrived_work_s",  # of all that have arrived
    "lost_work_s",  # done for requests that were evicted, and to be done again
    "idle_s",  # so far, with nobody in the system
    "spare_s",  # so far, seconds that more requests in service would have shared
    "room_s",  # the same, less the share of memory already taken
    "held_s",  # so far, with nothing running as the rule waits for more requests
)

SCALARS = np.dtype(
    [
        ("clock_s", "f8"),
        ("decides_at_s", "f8"),  # the clock; if `ahead`, when the last iteration began
        ("ahead", "i8"),  # 1: the policy forms a batch while the one before it runs
        ("next_arrival", "u4"),  # first request that has not arrived yet
        ("sent", "i8"),  # requests whose time of arrival is known
        ("admissions", "i8"),  # so far, where `Lane.clients` has rows
        ("residents", "i8"),
        ("slots", "u4"),  # of `residents` in use: more than residents while some are parked
        ("waiting", "i8"),
        ("waiting_tokens", "i8"),  # their prompts, where clients react
        ("left_service", "i8"),  # residents that gave up since the last decision
        ("leavers", "i8"),  # clients in the heap of those that may give up
        ("seed", "i8"),
        ("replication", "i8"),
        ("credit", "f8"),  # admission credit of paced policies
        ("token_budget", "i8"),  # scratch: tokens that the batch being formed may still take
        ("kv_free_tokens", "i8"),  # scratch: in blocks that nobody holds
        ("wake_at_s", "f8"),  # when a policy wants to be asked again although nothing runs
        ("until_s", "f8"),  # decisions from here on are left to a later call of the loop
        ("asleep", "i8"),  # 1: an arrival ended the last sleep, before the policy's own wake-up
        ("tau_s", "f8"),  # duration of the last iteration
        ("begun_at_s", "f8"),  # when it began
        ("steady_tokens", "i8"),  # outputs of the current one whose request had one in the last
        ("drain_at_s", "f8"),  # when the drain valve opens; inf while something runs
        ("kv_held_tokens", "i8"),  # during the current iteration
        ("batch_tokens", "i8"),  # computed in it
        ("window_start_s", "f8"),
        ("window_end_s", "f8"),
        ("cohort_start", "i8"),  # requests that arrive in the window
        ("cohort_end", "i8"),
        ("cohort_left", "i8"),  # of these, not ended yet
        ("iterations", "i8"),
        ("last_completion", "i8"),  # the iteration in which somebody completed last
        ("completed", "i8"),  # all from here on: inside the window
        ("evictions", "i8"),
        ("tokens_decoded", "i8"),
        ("tokens_lost", "i8"),
        ("tokens_computed", "i8"),
        ("tokens_recomputed", "i8"),  # thrown away by evictions, to be computed again
        ("tokens_given_up", "i8"),  # computed for requests that gave up
        ("gap_sum_s", "f8"),  # between output tokens of a request
        ("gap_max_s", "f8"),
        ("gap_bin", "i8"),  # bin of the last one, and its edges
        ("gap_bin_low_s", "f8"),
        ("gap_bin_high_s", "f8"),
        ("kv_max_tokens", "i8"),
        ("kv_integral", "f8"),  # token·seconds
        ("resident_integral", "f8"),  # request·seconds
        ("busy_s", "f8"),
        ("refused", "i8"),  # of the requests that arrive in the window,
        ("too_long", "i8"),  # refused as they never fit into memory,
        ("gave_up", "i8"),
        ("system_integral", "f8"),  # request·seconds in the system, of the whole run
        ("sojourn_s", "f8"),  # the same by requests: of all that have ended
        ("arrivals_present_s", "f8"),  # sum of the times of arrival of all in the system
        ("path_rows", "i8"),  # samples of the path so far
        ("path_stride", "i8"),  # arrivals between them
        ("path_next", "i8"),  # arrivals at which the next one is due
        ("arrived_work_s", "f8"),  # as in PATH_COLUMNS, of the whole run
        ("done_work_s", "f8"),  # of all that have completed
        ("lost_work_s", "f8"),
        ("idle_s", "f8"),
        ("spare_s", "f8"),
        ("room_s", "f8"),
        ("held_s", "f8"),
        ("slept_s", "f8"),  # with requests waiting and nothing running, since the last iteration
        ("slept_for_company", "i8"),  # whether an arrival ended the last sleep
        ("slept_at_iteration", "i8"),
        ("stuck", "i8"),  # 1: iterations without end complete nobody
        ("aggregated", "i8"),  # 1: decoders are parked, see `validation.simulator.decoders`
        ("general_left", "i8"),  # iterations resident by resident before they are parked again
        ("general_next", "i8"),  # how many there will be at the next fall-back
        ("aggregated_since", "i8"),  # iteration at which they were parked
        ("active", "u4"),  # residents that are not parked; `RESIDENT.active` has their slots
        ("fresh", "u4"),  # parked since the last decode step; `RESIDENT.fresh` has their slots
        ("parked_token_at_s", "f8"),  # newest output of the other parked residents
        ("parked", "i8"),  # residents that are, and of these:
        ("parked_held_tokens", "i8"),  # KV tokens held before the coming decode step
        ("parked_end_tokens", "i8"),  # Σ e, tokens that each will know at its end
        ("parked_end_steps", "i8"),  # Σ t, decode step before which each will have ended
        ("parked_end_steps_sq", "i8"),  # Σ t²
        ("parked_end_products", "i8"),  # Σ t e
        ("parked_work_s", "f8"),  # Σ `work_s` of SHAPE
        ("leaving", "i8"),  # residents that ended with the last iteration, if `ahead` and parked
        ("leaving_held_tokens", "i8"),  # KV tokens that they hold
        ("decoders_run", "i8"),  # scratch: 0 pauses the parked in the batch being formed
        # Scratch: KV tokens up to which the rule need not be asked while only decoders run; 0: ask.
        ("undisturbed_tokens", "i8"),
        ("step", "i8"),  # decode steps so far
        ("step_day", "u4"),  # the same modulo the calendar
        ("step_phase", "u4"),  # the same modulo the tokens of a block
        ("arrivals_fast", "i8"),  # state of two-state arrivals while they are laid out
        ("arrivals_state_left_s", "f8"),
    ],
    align=True,
)


RESIDENT = np.dtype(
    [
        ("request", "u4"),
        ("computed", "i4"),  # KV tokens in memory
        ("known", "i4"),  # tokens that exist so far: prompt and outputs
        ("work", "i4"),  # tokens to compute in this iteration; 0 pauses the resident
        ("held", "i4"),  # KV tokens occupied during this iteration, block-rounded
        ("prompt", "i4"),  # prompt and context tokens
        ("left", "i4"),  # outputs still owed
        ("parked_at", "i4"),  # decode step for which the record holds; -1 where it always does
        ("token_at_s", "f8"),  # when its newest output came; NaN before the first
        ("note", "f8"),  # a policy's own number
        ("active", "u4"),  # in the record of number i: slot of the i-th resident not parked
        ("fresh", "u4"),  # likewise: of those parked since the last decode step
    ],
    align=True,
)

REQUEST = np.dtype(
    [
        ("arrived_at_s", "f8"),
        ("first_token_at_s", "f8"),  # NaN until it happens; kept when the token is lost later
        # NaN until it happens; but while it waits again, when its newest output came, if any has.
        ("completed_at_s", "f8"),
        ("shape", "u4"),
        ("known", "i4"),  # while waiting: tokens to have in KV before the next output
        ("evictions", "i4"),
        ("next", "i4"),  # in its queue or on its day, a linked list; -1 ends it
    ],
    align=True,
)

QUEUE = np.dtype(
    [
        ("head", "i4"),
        ("tail", "i4"),
        ("length", "i4"),
        ("eligible", "i4"),  # scratch of policies with a gate per class
    ],
    align=True,
)


DAY = np.dtype(
    [
        ("completing", "i4"),  # first of the parked residents' requests that end then; -1: none
        ("growing", "i4"),  # in the record of a phase: parked residents that take a block in it
    ],
    align=True,
)
"""A decode step modulo the calendar's length; its phase is the step modulo `block_tokens`."""


class Lane(NamedTuple):
    """Arrays of one thread.

    Attributes:
        scalars: One record of SCALARS, shape (1,).
        requests: REQUEST records in order of arrival, shape (N,).
        residents: RESIDENT records in order of admission, shape (slots,).
        queues: QUEUE records: one per class, per shape or per output length, as the policy's
            `queue_of` says.
        clients: CLIENT records in the order of `requests`; empty where clients do not react.
        sums: Count, Σx, Σx² of latency, TTFT, TPOT, and of limits met (0 or 1); then requests that
            met their limit of TTFT, TPOT and latency; shape (classes, 5, 3).
        histogram: Log-spaced counts, shape (classes, 4, HISTOGRAM_BINS); the last row of the first
            class is that of the time between output tokens, of all classes together.
        stage_count: Scratch counts of policies, such as residents by class and stage, all 0 at the
            start, shape (classes + 1, stages + 1).
        series: Clock, KV held, residents, waiting per iteration; (0, 4) where not recorded.
        path: Samples of PATH_COLUMNS, of which `path_rows` are filled, shape (PATH_ROWS, columns).
        calendar: DAY records of the coming decode steps, more than any output has tokens.
    """

    scalars: NDArray[np.void]
    requests: NDArray[np.void]
    residents: NDArray[np.void]
    queues: NDArray[np.void]
    clients: NDArray[np.void]
    sums: NDArray[np.float64]
    histogram: NDArray[np.int32]
    stage_count: NDArray[np.int32]
    series: NDArray[np.float64]
    path: NDArray[np.float64]
    calendar: NDArray[np.void]


def new_lane(
    model: Model, requests: int, series_rows: int = 0, most_residents: int | None = None
) -> Lane:
    """Allocate a lane for runs of `requests` requests of this model.

    Args:
        most_residents: Those that hold KV at the same time; where each holds its prompt if None.
    """
    classes = model.classes
    stages = int(model.shapes["output_tokens"].max()) + 1
    slots = slots_for(most_residents or model.most_residents)
    return Lane(
        scalars=np.zeros(1, SCALARS),
        requests=np.zeros(requests, REQUEST),
        residents=np.zeros(min(requests, slots), RESIDENT),
        queues=np.zeros(max(len(model.shapes), stages), QUEUE),
        clients=np.zeros(requests if model.constants[0]["reacts"] else 0, CLIENT),
        sums=np.zeros((classes, 5, 3)),
        histogram=np.zeros((classes, 4, HISTOGRAM_BINS), np.int32),
        stage_count=np.zeros((classes + 1, stages + 1), np.int32),
        series=np.zeros((series_rows, 4)),
        path=np.zeros((PATH_ROWS, len(PATH_COLUMNS))),
        calendar=np.zeros(max(stages, int(model.constants[0]["block_tokens"])), DAY),
    )
