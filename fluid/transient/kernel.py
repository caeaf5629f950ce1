"""The loop behind `path`: real-valued mass over (stage, class), compiled with numba.

One step is one iteration, in the order of POLICIES "greedy": arrivals up to the clock join the
queue; every resident grows by one stage; where memory overflows, mass is evicted from the youngest
cohort first, loses its progress and returns to the front of the queue; credit accrues; the queue
is admitted from its front while memory, cap and credit allow; the iteration lasts τ.

A *cohort* is what one iteration admitted. All cohorts advance together, so that the population is
a window that slides over an array: nothing is ever shifted. The queue is a row of *parcels*, each a
mix of classes that arrived, or was evicted, together; shares of a parcel or of a cohort are taken
from all its classes alike. Arrays: populations (stages, classes), parcels (parcels, classes). What
the kernel reads is described in `fluid.transient.inputs`.
"""

from __future__ import annotations

import math

import numpy as np

from fluid.compiled import compiled

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

FREE_MASS = 1.0
"""With nothing resident, one request is admitted whatever credit and watermark say."""

_SAME_MIX = 1e-12

_CRUMB = 1e-13
"""Less is rounding of credit or of a parcel, and nobody who waits or is resident."""

_EXACT_EVERY, _FEW = 256, 1e-6
"""Running totals are replaced by sums after so many iterations, or with so little mass left."""


@compiled(nogil=True, error_model="numpy")
def simulate(costs, coming, gate, residents, waiting, horizon_s, every, series, shots_s, shots):
    """Run to the first decision from `horizon_s` on, the last row of `series`; returns the rows.

    Args:
        residents: Population at time 0, by the stage that it passes next; (stages, classes).
        waiting: Mass waiting at time 0, shape (classes,).
        every: Iterations per row of `series`, shape (rows, 8): time, iteration, waiting, residents,
            KV held, and the masses that arrived, completed and were evicted since time 0.
        shots_s, shots: Times of snapshots of the population and where they go,
            shape (snapshots, stages, classes).
    """
    depth, classes = costs.held.shape
    window = np.zeros((8 * depth, classes))
    head = 7 * depth
    _copy(residents, window[head:])
    queue = np.zeros((64, classes))
    front, back = 32, 32
    if waiting.sum() > 0:
        _copy_row(waiting, queue[back])
        back += 1
    clock_s, seen_s, credit = 0.0, 0.0, 1.0
    piece, burst, shot, row, iteration = 0, 0, 0, 0, 0
    need, count = 0.0, 0.0
    arrived, completed, evicted = waiting.sum() + residents.sum(), 0.0, 0.0
    while True:
        queue, front, back, piece, burst, mass = _receive(
            coming, queue, front, back, piece, burst, seen_s, clock_s
        )
        arrived += mass
        seen_s = clock_s
        population = window[head : head + depth]
        # With blocks of one token, all residents occupy what they read and grow by one token.
        # Kept here: to call a function with all that `costs` holds takes a fifth of an iteration.
        if costs.token_granular and iteration % _EXACT_EVERY != 0 and count > _FEW:
            need += count
            kv = need
        else:
            need, kv, count = _totals(costs.held, costs.read, population)
        if need > gate.capacity:
            queue, front, back, need, kv, mass = _evict(
                costs, population, gate.capacity, queue, front, back, need, kv
            )
            count -= mass
            evicted += mass
        decodes = count
        if front < back or count > 0:
            credit = min(credit + gate.pace, 1.0 + gate.pace)
        front, need, count, credit = _admit(
            gate, costs.held[0], population[0], queue, front, back, need, count, credit
        )
        while shot < shots_s.size and shots_s[shot] <= clock_s:
            _copy(population, shots[shot])
            shot += 1
        ends = clock_s >= horizon_s
        if iteration % every == 0 or ends:
            held = queue[front:back].sum()
            _write(
                series[row], (clock_s, iteration, held, count, need, arrived, completed, evicted)
            )
            row += 1
        if ends:
            return row
        iteration += 1
        if count <= 0.0 and coming.rates[piece].sum() == 0.0:
            clock_s = min(_next_event(coming, piece, burst), horizon_s)
            continue
        clock_s += _seconds(costs, population[0], decodes, kv)
        need, count, completed = _complete(costs, population, need, count, completed)
        head = _grow(window, head, depth)


@compiled(from_python=False, nogil=True, error_model="numpy")
def _receive(coming, queue, front, back, piece, burst, seen_s, clock_s):
    """Queue what arrived since the last decision, in order; flow is cut at changes and bursts."""
    arrived = 0.0
    while True:
        until_s = clock_s
        change = piece + 1 < coming.starts_s.size and coming.starts_s[piece + 1] <= until_s
        if change:
            until_s = coming.starts_s[piece + 1]
        fall = burst < coming.burst_times_s.size and coming.burst_times_s[burst] <= until_s
        if fall:
            until_s = coming.burst_times_s[burst]
        mass = coming.rates[piece] * (until_s - seen_s)
        seen_s = until_s
        arrived += mass.sum()
        queue, front, back = _join(queue, front, back, mass)
        if fall:
            arrived += coming.burst_masses[burst].sum()
            queue, front, back = _join(queue, front, back, coming.burst_masses[burst])
            burst += 1
        elif change:
            piece += 1
        else:
            return queue, front, back, piece, burst, arrived


@compiled(from_python=False, nogil=True, error_model="numpy")
def _write(row, figures):
    """Figures, of which the second is a whole number, into a row of the series."""
    row[0], row[1], row[2], row[3], row[4], row[5], row[6], row[7] = figures


@compiled(from_python=False, nogil=True, error_model="numpy")
def _complete(costs, population, need, count, completed):
    """Take out what has passed its last stage."""
    for index in range(costs.counts.size):
        last = costs.counts[index] - 1
        done = population[last, index]
        completed += done
        count -= done
        need -= done * costs.held[last, index]
        population[last, index] = 0.0
    return need, count, completed


@compiled(from_python=False, nogil=True, error_model="numpy")
def _grow(window, head, depth):
    """Move everybody one stage on: the population begins a row earlier in the window."""
    head -= 1
    if head < 0:
        head = window.shape[0] - depth - 1
        _copy(window[:depth], window[head + 1 :])
    window[head] = 0.0
    return head


@compiled(from_python=False, nogil=True, error_model="numpy")
def _evict(costs, population, capacity, queue, front, back, need, kv):
    """Return mass to the front of the queue until memory fits, the youngest cohort first.

    An older cohort ends up further to the front.
    """
    evicted = 0.0
    for age in range(population.shape[0]):
        mass = population[age].sum()
        if mass <= 0.0:
            continue
        weight = population[age] @ costs.held[age]
        share = min(1.0, (need - capacity) / weight)
        out = population[age] * share
        population[age] -= out
        need -= weight * share
        kv -= out @ costs.read[age]
        evicted += mass * share
        queue, front, back = _return(queue, front, back, out)
        if share < 1.0 or need <= capacity:
            break
    return queue, front, back, need, kv, evicted


@compiled(from_python=False, nogil=True, error_model="numpy")
def _admit(gate, held, entering, queue, front, back, need, count, credit):
    """Admit from the front of the queue while memory, cap and credit allow; fills `entering`."""
    free = 0.0 if count > 0.0 else FREE_MASS
    while front < back:
        mass = queue[front].sum()
        if mass <= _CRUMB:
            queue[front] = 0.0
            front += 1
            continue
        weight = queue[front] @ held / mass
        take = min(gate.cap - count, credit, (gate.admission - need) / weight)
        take = min(max(take, free), mass)
        if take <= _CRUMB:
            break
        share = queue[front] * (take / mass)
        entering += share
        if take == mass:
            queue[front] = 0.0
            front += 1
        else:
            queue[front] -= share
        need += take * weight
        count += take
        credit = max(credit - take, 0.0)
        free = max(free - take, 0.0)
    return front, need, count, credit


@compiled(from_python=False, nogil=True, error_model="numpy")
def _join(queue, front, back, mass):
    """Append mass to the queue, to its last parcel where that has the same mix."""
    total = mass.sum()
    if total <= 0.0:
        return queue, front, back
    if front < back and _same_mix(queue[back - 1], mass, total):
        queue[back - 1] += mass
        return queue, front, back
    queue, front, back = _with_room(queue, front, back)
    _copy_row(mass, queue[back])
    return queue, front, back + 1


@compiled(from_python=False, nogil=True, error_model="numpy")
def _return(queue, front, back, mass):
    """Put mass at the front of the queue, into its first parcel where that has the same mix."""
    if front < back and _same_mix(queue[front], mass, mass.sum()):
        queue[front] += mass
        return queue, front, back
    queue, front, back = _with_room(queue, front, back)
    _copy_row(mass, queue[front - 1])
    return queue, front - 1, back


@compiled(from_python=False, nogil=True, error_model="numpy")
def _same_mix(parcel, mass, total):
    """Whether two parcels are in proportion, so that their order does not matter."""
    parcel_total = parcel.sum()
    for index in range(mass.size):
        gap = parcel[index] * total - mass[index] * parcel_total
        if abs(gap) > _SAME_MIX * parcel_total * total:
            return False
    return True


@compiled(from_python=False, nogil=True, error_model="numpy")
def _with_room(queue, front, back):
    """The queue with a free row on either side, moved to the middle of a larger array if needed."""
    if front > 0 and back < queue.shape[0]:
        return queue, front, back
    length = back - front
    moved = np.zeros((4 * length + 64, queue.shape[1]))
    start = (moved.shape[0] - length) // 2
    _copy(queue[front:back], moved[start : start + length])
    return moved, start, start + length


# Copies by hand: numba compiles the shape checks of an assignment to a slice for seconds.
@compiled(from_python=False, nogil=True, error_model="numpy")
def _copy(source, target):
    for row in range(source.shape[0]):
        _copy_row(source[row], target[row])


@compiled(from_python=False, nogil=True, error_model="numpy")
def _copy_row(source, target):
    for index in range(source.size):
        target[index] = source[index]


# Sums in any order: that lets the compiler use vector instructions where all the time is spent.
@compiled(from_python=False, nogil=True, error_model="numpy", fastmath={"reassoc", "contract"})
def _totals(held, read, population):
    """KV occupied, KV read and mass of a population that has no stage-0 mass yet."""
    flat_held, flat_read, flat = held.ravel(), read.ravel(), population.ravel()
    need, kv, count = 0.0, 0.0, 0.0
    for place in range(flat.size):
        need += flat[place] * flat_held[place]
        kv += flat[place] * flat_read[place]
        count += flat[place]
    return need, kv, count


@compiled(from_python=False, nogil=True, error_model="numpy")
def _seconds(costs, entering, decodes, kv):
    """τ of what was resident and what enters (THEORY 1.3); d0 where nobody is there."""
    prompt_tokens, prompt_sq = 0.0, 0.0
    for index in range(costs.prompts.size):
        prompt = costs.prompts[index]
        if prompt > 0:
            prompt_tokens += entering[index] * prompt
            prompt_sq += entering[index] * prompt * prompt
        else:
            decodes += entering[index]
            kv += entering[index] * costs.read[0, index]
    tokens = prompt_tokens + decodes
    unit = costs.per_unit_s
    return (
        max(_token_seconds(costs.knots, tokens), costs.overhead_s)
        + unit[0] * kv
        + unit[1] * prompt_tokens
        + unit[2] * decodes
        + unit[3] * prompt_sq
    )


@compiled(from_python=False, nogil=True, error_model="numpy")
def _token_seconds(knots, tokens):
    """f(tokens): linear between knots, the lower value at a jump, last slope beyond the end."""
    last = knots.shape[1] - 1
    if last == 0 or tokens <= 0.0:
        return knots[1, 0]
    right = 1
    while right < last and knots[0, right] < tokens:
        right += 1
    run = knots[0, right] - knots[0, right - 1]
    share = (tokens - knots[0, right - 1]) / run
    return knots[1, right - 1] + share * (knots[1, right] - knots[1, right - 1])


@compiled(from_python=False, nogil=True, error_model="numpy")
def _next_event(coming, piece, burst):
    """When anything arrives next while the present rates are zero."""
    next_s = math.inf
    if piece + 1 < coming.starts_s.size:
        next_s = coming.starts_s[piece + 1]
    if burst < coming.burst_times_s.size:
        next_s = min(next_s, coming.burst_times_s[burst])
    return next_s
