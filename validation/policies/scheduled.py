"""Literal Nested WAIT under a schedule of thresholds, its hand-overs as in `thresholds.schedule`.

All windows have the same cuts. n_1 is that of the window by the clock. A batch that passes an entry
carries the window of its n_k along, and segment k + 1 has the threshold of that window once the
batch is about to reach its entry. In a segment that runs at most n_k of its entry queue advance,
and everybody beyond, who are no more than that: they passed the entry together.

The kernel's table holds the number of windows, the period in seconds (0: none), the windows'
starts, their thresholds window by window, then the cuts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fluid.errors import InputError
from thresholds.schedule import Schedule
from validation.policies.nested import generated_tokens, queue_of
from validation.policies.wait import fits, pause
from validation.simulator.compiling import kernel
from validation.simulator.engine import admit, advance, choose_victim, evict
from validation.simulator.model import Model
from validation.simulator.policy import EVICTION_PARAMETERS, ConfiguredPolicy, Policy

# mypy: disable-error-code="no-untyped-def"

VICTIM, REQUEUE, PROGRESS = range(3)


def scheduled(schedule: Schedule) -> ConfiguredPolicy:
    """The policy that follows a schedule of literal Nested WAIT.

    A resident's note is the window of the batch in which it passed its last entry: a number that
    counts on through the periods.

    Raises:
        InputError: A schedule of another policy, or windows that are not cut at the same lengths.
    """
    tables = [one.table for one in schedule.windows]
    cuts = [one.up_to_tokens for one in tables[0].thresholds]
    if schedule.policy != "nested-wait":
        raise InputError("schedule: policy", schedule.policy, "nested-wait")
    if any([one.up_to_tokens for one in table.thresholds] != cuts for table in tables):
        raise InputError("schedule: windows", "different cuts", "the same cuts in all windows")
    thresholds = [[int(one.threshold) for one in table.thresholds] for table in tables]
    starts = [one.start_s for one in schedule.windows]
    return follow(starts, schedule.period_s, thresholds, [int(one or 0) for one in cuts])


def follow(
    starts_s: Sequence[float],
    period_s: float | None,
    thresholds: Sequence[Sequence[int]],
    cuts: Sequence[int],
) -> ConfiguredPolicy:
    """The policy of thresholds[i] from `starts_s[i]` on, of segments that end at `cuts`."""
    numbers = [one for window in thresholds for one in window]
    table = np.array([len(starts_s), period_s or 0.0, *starts_s, *numbers, *cuts], dtype=float)
    return _Scheduled(_POLICY, {}, table=table)


@dataclass(frozen=True, kw_only=True)
class _Scheduled(ConfiguredPolicy):
    table: NDArray[np.float64]

    def threshold_table(self, model: Model) -> NDArray[np.float64]:
        """The whole schedule.

        Raises:
            InputError: An output of the workload is longer than the last segment.
        """
        longest = int(model.shapes["output_tokens"].max())
        if longest > self.table[-1]:
            raise InputError("schedule: cuts", int(self.table[-1]), f"at least {longest}")
        return self.table


@kernel
def form_batch(model, lane, params, table):
    """Find the thresholds in force and the segments that run; advance those; admit."""
    scalars = lane.scalars[0]
    windows = int(table[0])
    segments = (table.size - 2 - windows) // (windows + 1)
    now = window_at(lane, table, windows)
    entries = table[table.size - segments - 1 :]
    running, need, number = 0, 0, now
    while running < segments:
        waiting = lane.queues[0].length
        if running > 0:
            waiting = standing_at(model, lane, int(entries[running]))
            number = window_behind(model, lane, entries, running, number)
        threshold = threshold_of(table, windows, segments, number, running)
        if waiting < threshold:
            break
        lane.stage_count[0, running] = threshold
        lane.stage_count[1, running] = int(number)
        running += 1
    for slot in range(scalars.residents):
        resident = lane.residents[slot]
        generated = generated_tokens(model, lane, resident)
        segment = 0
        while segment + 1 < segments and generated >= entries[segment + 1]:
            segment += 1
        at_entry = segment > 0 and generated == entries[segment]
        if segment >= running or (at_entry and lane.stage_count[0, segment] == 0):
            need += pause(model, resident)
            continue
        if at_entry:
            lane.stage_count[0, segment] -= 1
            resident.note = lane.stage_count[1, segment]
        need += advance(model, resident)
    for segment in range(running):
        lane.stage_count[0, segment] = 0
        lane.stage_count[1, segment] = 0
    while need > model.constants[0].kv_capacity_tokens:
        victim = choose_victim(lane, params[VICTIM])
        need -= lane.residents[victim].held
        evict(model, lane, victim, 0, params[REQUEUE], params[PROGRESS])
    if running == 0:
        return
    most = int(threshold_of(table, windows, segments, now, 0))
    for _ in range(min(most, lane.queues[0].length)):
        if not fits(model, lane, need, 0):
            return
        need += admit(model, lane, 0)
        lane.residents[scalars.residents - 1].note = now


@kernel
def window_at(lane, table, windows):
    """Number of the window by the clock; asks to be woken when the next one begins.

    Once the last request has arrived nobody is woken: who is left would be left for ever.
    """
    scalars = lane.scalars[0]
    period_s, cycles, begin_s = table[1], 0.0, 0.0
    if period_s > 0.0:
        cycles = math.floor(scalars.clock_s / period_s)
        begin_s = cycles * period_s
    index = windows - 1
    while index > 0 and begin_s + table[2 + index] > scalars.clock_s:
        index -= 1
    next_s = math.inf
    if index + 1 < windows:
        next_s = begin_s + table[3 + index]
    elif period_s > 0.0:
        next_s = begin_s + period_s
    if next_s > scalars.clock_s and scalars.next_arrival < lane.requests.size:
        scalars.wake_at_s = min(scalars.wake_at_s, next_s)
    return cycles * windows + index


@kernel
def threshold_of(table, windows, segments, number, segment):
    """Threshold of a segment in a window by its number."""
    return int(table[2 + windows + int(number % windows) * segments + segment])


@kernel
def standing_at(model, lane, entry):
    """Residents that have generated just so many tokens."""
    found = 0
    for slot in range(lane.scalars[0].residents):
        if generated_tokens(model, lane, lane.residents[slot]) == entry:
            found += 1
    return found


@kernel
def window_behind(model, lane, entries, segment, before):
    """Window of the newest batch that is about to reach the entry of a segment, or behind it.

    Args:
        before: The window of the segment before, whose batch it is if that has a single stage.
    """
    if segment == 1:
        single = entries[1] == 1 and not model.constants[0].silent_prefill
    else:
        single = entries[segment] - entries[segment - 1] == 1
    if single:
        return before
    newest = -1.0
    for slot in range(lane.scalars[0].residents):
        resident = lane.residents[slot]
        if generated_tokens(model, lane, resident) >= entries[segment] - 1:
            newest = max(newest, resident.note)
    return before if newest < 0.0 else newest


_POLICY = Policy(
    name="nested-wait-scheduled",
    summary="literal Nested WAIT under a schedule; hand-overs travel with the requests",
    parameters=EVICTION_PARAMETERS,
    form_batch=form_batch,
    queue_of=queue_of,
)
