"""Inner loops of the chain with a token budget (THEORY 9.4), compiled with numba.

A state is an iteration time after which no prompt token is left over, or a number of tokens left
over from an iteration that used up its budget. States are numbered in this order.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from fluid.steady.latency.kernels import MOMENTS, add_moments, place, token_seconds

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

Floats = NDArray[np.float64]

_NOTHING = 1e-14
_MOST_DECODES = 0.95

OPEN_ENDS, FULL_ENDS, OPEN_QUAD, FULL_QUAD = range(4)
"""Prompts that end, and quadratic cost, in iterations that do not and that do use up the budget."""


class Budget(NamedTuple):
    """The token budget and what a full one holds.

    Attributes:
        tokens: c.
        mean_prompt: l̄, tokens.
        quad_s: Seconds of the quadratic terms of c prompt tokens.
        ends_factor: Prompts that end in a full budget, as a multiple of tokens/l̄.
        step: h of the lattice of arriving tokens.
    """

    tokens: float
    mean_prompt: float
    quad_s: float
    ends_factor: float
    step: float


class Arrivals(NamedTuple):
    """What arrives in an iteration.

    Attributes:
        laws: Law of the prompt tokens by lattice point given each state, shape (m, M).
        ends, quad_s: Prompts and quadratic seconds given the tokens, shape (M,).
    """

    laws: Floats
    ends: Floats
    quad_s: Floats


@numba.njit(cache=True, nogil=True, error_model="numpy")
def full_seconds(budget, costs, b, k):
    """Time of an iteration that uses up the budget, with b decodes that read k tokens."""
    b = min(b, _MOST_DECODES * budget.tokens)
    rest = budget.tokens - b
    return (
        token_seconds(costs, budget.tokens)
        + costs.per_prompt_token_s * rest
        + budget.quad_s * rest / budget.tokens
        + costs.per_decode_s * b
        + costs.per_kv_token_s * k
    )


@numba.njit(cache=True, nogil=True, error_model="numpy")
def open_seconds(budget, costs, b, k, old, tokens, quad_s):
    """Time of an iteration that computes all prompt tokens, `old` of them left over before."""
    work = (
        token_seconds(costs, tokens + b)
        + costs.per_prompt_token_s * tokens
        + quad_s
        + budget.quad_s * old / budget.tokens
        + costs.per_decode_s * b
        + costs.per_kv_token_s * k
    )
    return max(min(work, full_seconds(budget, costs, b, k)), costs.overhead_s)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def open_seconds_each(budget, costs, b, k, tokens):
    """`open_seconds` of so many tokens, all left over; shape of `tokens`, flat."""
    found = np.empty(tokens.size)
    for index in range(tokens.size):
        work = tokens[index]
        found[index] = open_seconds(budget, costs, b, k, work, work, 0.0)
    return found


@numba.njit(cache=True, nogil=True, error_model="numpy")
def ends_within(budget, ends, tokens, room, old, old_ends):
    """Prompts that end in a full budget: of those left over, and of `ends` new ones."""
    if old >= room:
        return room / budget.mean_prompt
    found = old_ends
    if ends > 1.0:
        found += max(ends * (room - old) / tokens - 1.0, 0.0) * ends / (ends - 1.0)
    return found


@numba.njit(cache=True, nogil=True, error_model="numpy")
def budget_step(times, lefts, left, left_ends, arrivals, decoders, budget, costs):
    """One iteration of the chain.

    Args:
        times: Nodes of τ; lefts: nodes of tokens left over, from 0 on.
        left, left_ends: Tokens left over in each state, and prompts that end in them, shape (m,).
        decoders: Requests, KV and weights given each state, shape (m, q) each.

    Returns:
        Q and the same weighted by prompts that end, shape (m, m); `MOMENTS` given each state, shape
        (m, 9); and four sums given each state, see `OPEN_ENDS`, shape (m, 4).
    """
    open_states, m = times.at.size, left.size
    requests, kv, weights = decoders
    step, flow = np.zeros((m, m)), np.zeros((m, m))
    moments, sums = np.zeros((m, MOMENTS)), np.zeros((m, 4))
    for z in range(m):
        old = left[z]
        for q in range(weights.shape[1]):
            if weights[z, q] < _NOTHING:
                continue
            b, k = requests[z, q], kv[z, q]
            room = budget.tokens - b
            full_s = full_seconds(budget, costs, b, k)
            full_low, full_share = place(times, full_s)
            for x in range(arrivals.ends.size):
                mass = weights[z, q] * arrivals.laws[z, x]
                if mass < _NOTHING:
                    continue
                new = x * budget.step
                total = old + new
                work = min(total, room)
                add_moments(moments[z], mass, work, b, token_seconds(costs, work + b))
                if total <= room:
                    ends = arrivals.ends[x] + left_ends[z]
                    s = open_seconds(budget, costs, b, k, old, total, arrivals.quad_s[x])
                    low, share = place(times, s)
                    add(step, flow, z, low, mass * (1.0 - share), ends)
                    add(step, flow, z, low + 1, mass * share, ends)
                    sums[z, OPEN_ENDS] += mass * ends
                    sums[z, OPEN_QUAD] += mass * arrivals.quad_s[x]
                    sums[z, FULL_QUAD] += mass * old / budget.tokens
                    continue
                plain = ends_within(budget, arrivals.ends[x], new, room, old, left_ends[z])
                ends = budget.ends_factor * plain
                sums[z, FULL_ENDS] += mass * plain
                sums[z, FULL_QUAD] += mass * room / budget.tokens
                low, share = place(lefts, min(total - room, lefts.at[-1]))
                add(step, flow, z, open_states + low, mass * share, ends)
                if low > 0:
                    add(step, flow, z, open_states + low - 1, mass * (1.0 - share), ends)
                else:
                    rest = mass * (1.0 - share)
                    add(step, flow, z, full_low, rest * (1.0 - full_share), ends)
                    add(step, flow, z, full_low + 1, rest * full_share, ends)
    return step, flow, moments, sums


@numba.njit(cache=True, nogil=True, error_model="numpy")
def add(step, flow, z, to, mass, ends):
    """Move mass to a state, with the prompts that end on the way."""
    step[z, to] += mass
    flow[z, to] += mass * ends


@numba.njit(cache=True, nogil=True, error_model="numpy")
def class_flows(
    law, times, lefts, left, arrivals, requests, kv, class_ends, prompts, budget, costs
):
    """Where the prompts of each class end, as far as one step shows it, decoders at their mean.

    Args:
        law: π.
        requests, kv: E[B], E[K] in each state, shape (m,).
        class_ends: Prompts of each class given the tokens, shape (classes, M).
        prompts: l_j.

    Returns:
        Flow into each state of newly arrived prompts that end at once, shape (m, classes); the
        mass of each class among the prompts that are cut, by state, shape (m, classes); mass that
        moves while the leftover ends, and while it fills the budget, shape (m, m) each.
    """
    open_states, m, classes = times.at.size, left.size, prompts.size
    new_ends, cut = np.zeros((m, classes)), np.zeros((m, classes))
    old_ends, deep = np.zeros((m, m)), np.zeros((m, m))
    moved = np.zeros((m, arrivals.ends.size))
    for z in range(m):
        old = left[z]
        b, k = requests[z], kv[z]
        room = budget.tokens - b
        full_low, full_share = place(times, full_seconds(budget, costs, b, k))
        for x in range(arrivals.ends.size):
            mass = law[z] * arrivals.laws[z, x]
            if mass < _NOTHING:
                continue
            new = x * budget.step
            if old + new <= room:
                s = open_seconds(budget, costs, b, k, old, old + new, arrivals.quad_s[x])
                low, share = place(times, s)
                high = low + 1
            else:
                low, share = place(lefts, min(old + new - room, lefts.at[-1]))
                high = open_states + low
                low = high - 1
                if low < open_states:
                    low = full_low + 1 if full_share > 0.5 else full_low
            for to, part in ((low, mass * (1.0 - share)), (high, mass * share)):
                if old >= room:
                    deep[z, to] += part
                    continue
                old_ends[z, to] += part
                if old + new <= room:
                    moved[to, x] += part
                    continue
                for j in range(classes):
                    ends = class_ends[j, x]
                    cut[to, j] += part * ends * prompts[j] / new
                    if new > prompts[j]:
                        free = (room - old - prompts[j]) / (new - prompts[j])
                        new_ends[to, j] += part * ends * min(max(free, 0.0), 1.0)
    for to in range(m):
        for x in range(arrivals.ends.size):
            if moved[to, x] > 0.0:
                for j in range(classes):
                    new_ends[to, j] += moved[to, x] * class_ends[j, x]
    return new_ends, cut, old_ends, deep


@numba.njit(cache=True, nogil=True, error_model="numpy")
def own_first_seconds(law, left, arrivals, decoders, prompts, first_s, budget, costs):
    """E of the first iteration of a request that joins at its start, by class.

    Args:
        law: Law of the state before it; first_s: seconds apart from f of a whole prompt that fits
            into the budget, 0 for longer ones.
    """
    found = np.zeros(prompts.size)
    requests, kv, weights = decoders
    for z in range(law.size):
        for q in range(weights.shape[1]):
            if law[z] * weights[z, q] < 1e-10:
                continue
            b, k = requests[z, q], kv[z, q]
            room = budget.tokens - b
            full_s = full_seconds(budget, costs, b, k)
            for x in range(arrivals.ends.size):
                mass = law[z] * weights[z, q] * arrivals.laws[z, x]
                if mass < 1e-10:
                    continue
                for j in range(prompts.size):
                    total = left[z] + x * budget.step + prompts[j]
                    s = full_s
                    if total <= room:
                        decode = 0.0 if prompts[j] > 0.0 else 1.0
                        quad = arrivals.quad_s[x] + first_s[j]
                        s = open_seconds(budget, costs, b + decode, k, left[z], total, quad)
                    found[j] += mass * s
    return found


@numba.njit(cache=True, nogil=True, error_model="numpy")
def open_first_laws(law, left, arrivals, decoders, prompt, first_s, points, dx, budget, costs):
    """Mass of first iterations that end the request's prompt, by state before and by length.

    Returns:
        Shape (m, points), lengths on a grid of step dx.
    """
    found = np.zeros((law.size, points))
    requests, kv, weights = decoders
    decode = 0.0 if prompt > 0.0 else 1.0
    for z in range(law.size):
        for q in range(weights.shape[1]):
            if law[z] * weights[z, q] < _NOTHING:
                continue
            b, k = requests[z, q], kv[z, q]
            for x in range(arrivals.ends.size):
                total = left[z] + x * budget.step + prompt
                if total > budget.tokens - b:
                    break
                mass = law[z] * weights[z, q] * arrivals.laws[z, x]
                quad = arrivals.quad_s[x] + first_s
                s = open_seconds(budget, costs, b + decode, k, left[z], total, quad)
                place_at = min(s / dx, points - 2.0)
                low = int(place_at)
                found[z, low] += mass * (low + 1 - place_at)
                found[z, low + 1] += mass * (place_at - low)
    return found


@numba.njit(cache=True, nogil=True, error_model="numpy")
def add_full_masses(found, mass, place, free, beyond):
    """Add to `found` prompts that do not end in the first iteration, or end in a full one.

    Args:
        found: Mass by length, shape (points,).
        mass: By tokens ahead; place: where it belongs among the points.
        free: Lattice points of room behind the own prompt, negative where it does not fit.
        beyond: P(more than so many lattice points come behind it).
    """
    last = found.size - 2
    for v in range(mass.size):
        part = mass[v]
        if free[v] >= 0.0:
            part *= beyond[min(int(free[v]), beyond.size - 1)]
        if part > 0.0:
            at = min(max(place[v], 0.0), float(last))
            low = int(at)
            found[low] += part * (low + 1 - at)
            found[low + 1] += part * (at - low)
