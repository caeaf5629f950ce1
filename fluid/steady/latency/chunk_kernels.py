"""Inner loops of the chain with a token budget (THEORY 9.4), compiled with numba.

A state is an iteration time after which no prompt token is left over, or a number of tokens left
over from an iteration that used up its budget. States are numbered in this order.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fluid.compiled import compiled
from fluid.steady.latency.kernels import MOMENTS, add_moments, place, token_seconds

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

Floats = NDArray[np.float64]

_NOTHING, _RARE = 1e-14, 1e-12
_MOST_DECODES = 0.95

NEW_QUAD, CUT_QUAD = range(2)
"""Quadratic seconds of prompts that fit whole, and budgets full of others."""


class Budget(NamedTuple):
    """The token budget and what a full one holds.

    Attributes:
        tokens: c.
        quad_s: Seconds of the quadratic terms of c prompt tokens.
        step: h of the lattice of arriving tokens.
    """

    tokens: float
    quad_s: float
    step: float


class Arrivals(NamedTuple):
    """What arrives in an iteration.

    Attributes:
        laws: Law of the prompt tokens by lattice point given each state, shape (m, M).
        quad_s: Quadratic seconds given the tokens, shape (M,).
    """

    laws: Floats
    quad_s: Floats


@compiled(nogil=True, error_model="numpy")
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


@compiled(from_python=False, nogil=True, error_model="numpy")
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


@compiled(nogil=True, error_model="numpy")
def open_seconds_each(budget, costs, b, k, tokens):
    """`open_seconds` of so many tokens, all left over; shape of `tokens`, flat."""
    found = np.empty(tokens.size)
    for index in range(tokens.size):
        work = tokens[index]
        found[index] = open_seconds(budget, costs, b, k, work, work, 0.0)
    return found


@compiled(nogil=True, error_model="numpy")
def budget_step(times, lefts, left, arrivals, decoders, budget, costs):
    """One iteration of the chain.

    Args:
        times: Nodes of τ; lefts: nodes of tokens left over, from 0 on.
        left: Tokens left over in each state, shape (m,).
        decoders: Requests, KV and weights given each state, shape (m, q) each.

    Returns:
        Q, shape (m, m); `MOMENTS` given each state, shape (m, 9); and quadratic cost given each
        state, see `NEW_QUAD`, shape (m, 2).
    """
    m = left.size
    requests, kv, weights = decoders
    full_f = token_seconds(costs, budget.tokens)
    step, moments, quads = np.zeros((m, m)), np.zeros((m, MOMENTS)), np.zeros((m, 2))
    for z in range(m):
        old, row, sums = left[z], step[z], np.zeros(MOMENTS)
        laws = arrivals.laws[z]
        mass_before, place_before = cumulated(laws)
        for q in range(weights.shape[1]):
            weight = weights[z, q]
            if weight < _NOTHING:
                continue
            b, k = requests[z, q], kv[z, q]
            room = budget.tokens - b
            full_s = full_seconds(budget, costs, b, k)
            decode_s = costs.per_decode_s * b + costs.per_kv_token_s * k
            other_s = decode_s + budget.quad_s * old / budget.tokens
            fitting = fitting_points(room - old, budget.step, laws.size)
            for x in range(fitting):
                mass = weight * laws[x]
                if mass < _RARE:
                    continue
                total = old + x * budget.step
                f = token_seconds(costs, total + b)
                add_moments(sums, mass, total, b, f)
                quads[z, NEW_QUAD] += mass * arrivals.quad_s[x]
                s = f + costs.per_prompt_token_s * total + arrivals.quad_s[x] + other_s
                low, share = place(times, max(min(s, full_s), costs.overhead_s))
                row[low] += mass * (1.0 - share)
                row[low + 1] += mass * share
            full = weight * (mass_before[laws.size] - mass_before[fitting])
            add_moments(sums, full, room, b, full_f)
            quads[z, CUT_QUAD] += weight * mass_before[fitting] * old / budget.tokens
            quads[z, CUT_QUAD] += full * room / budget.tokens
            if full > _NOTHING:
                over = Over(weight, mass_before, place_before, room - old, budget.step)
                land_all(row, over, fitting, full_s, times, lefts)
        moments[z] = sums
    return step, moments, quads


@compiled(nogil=True, error_model="numpy")
def cumulated(law):
    """P(X < x) and E[X; X < x], x = 0 … n, of a law on lattice points; shape (n + 1,) each."""
    mass_before, place_before = np.zeros(law.size + 1), np.zeros(law.size + 1)
    for x in range(law.size):
        mass_before[x + 1] = mass_before[x] + law[x]
        place_before[x + 1] = place_before[x] + x * law[x]
    return mass_before, place_before


@compiled(nogil=True, error_model="numpy")
def fitting_points(spare, step, points):
    """How many of the first lattice points x have x·step ≤ spare."""
    if spare < 0.0:
        return 0
    return min(int(spare / step) + 1, points)


class Over(NamedTuple):
    """Tokens beyond a full budget: x·step − spare, x lattice points.

    Attributes:
        weight: Of the law, which is given by `cumulated`.
        spare: Tokens that the budget still takes, negative where it is overdrawn.
    """

    weight: float
    mass_before: Floats
    place_before: Floats
    spare: float
    step: float


@compiled(nogil=True, error_model="numpy")
def land_all(row, over, start, full_s, times, lefts):
    """`land` of all lattice points from `start` on, an interval between two nodes at a time."""
    first, last, points = times.at.size, lefts.at.size - 1, over.mass_before.size - 1
    x = start
    for low in range(last):
        beyond = fitting_points(over.spare + lefts.at[low + 1], over.step, points)
        if beyond <= x:
            continue
        mass = over.weight * (over.mass_before[beyond] - over.mass_before[x])
        place_sum = over.weight * (over.place_before[beyond] - over.place_before[x])
        x = beyond
        above = place_sum * over.step - mass * (over.spare + lefts.at[low])
        upper = min(max(above / (lefts.at[low + 1] - lefts.at[low]), 0.0), mass)
        row[first + low] += upper
        if low > 0:
            row[first + low - 1] += mass - upper
        else:
            land_full(row, mass - upper, full_s, times)
        if x == points:
            return
    row[first + last - 1] += over.weight * (over.mass_before[points] - over.mass_before[x])


@compiled(nogil=True, error_model="numpy")
def land(row, mass, over, full_s, times, lefts):
    """Put mass on the states of so many tokens left over; below the first lies a full iteration."""
    low, share = place(lefts, min(over, lefts.at[-1]))
    first = times.at.size + low
    row[first] += mass * share
    if low > 0:
        row[first - 1] += mass * (1.0 - share)
        return
    land_full(row, mass * (1.0 - share), full_s, times)


@compiled(from_python=False, nogil=True, error_model="numpy")
def land_full(row, mass, full_s, times):
    """Put mass on a full iteration that leaves nothing over."""
    low, share = place(times, full_s)
    row[low] += mass * (1.0 - share)
    row[low + 1] += mass * share


@compiled(nogil=True, error_model="numpy")
def fitting_shares(before, behind, weights, whole, most):
    """P(at most y points come before a moment | x in all), y below `most`; shape (most, M).

    Args:
        before, behind: Laws of what comes before and after each of some moments, shape (u, M).
        weights: Of the moments.
        whole: Law of both together, shape (M,).
    """
    points = before.shape[1]
    found = np.ones((most, points))
    for x in range(points):
        below = 0.0
        for y in range(min(x, most)):
            for u in range(weights.size):
                below += weights[u] * before[u, y] * behind[u, x - y]
            found[y, x] = min(below / whole[x], 1.0) if whole[x] > _RARE else (y + 0.5) / x
    return found


@compiled(nogil=True, error_model="numpy")
def first_endings(
    law, left, arrivals, requests, kv, prompt, first_s, fits, times, lefts, budget, costs
):
    """Mass of prompts that end in the first iteration after their arrival, by state; shape (m,).

    Args:
        law: Law of the state before; requests, kv: E[B], E[K] there, shape (m,).
        prompt, first_s: Tokens, and seconds apart from f.
        fits: See `fitting_shares`.
    """
    found = np.zeros(law.size)
    decode = 0.0 if prompt > 0.0 else 1.0
    for z in range(law.size):
        b, k = requests[z], kv[z]
        room = budget.tokens - b
        spare = (room - left[z] - prompt) / budget.step
        if law[z] < _RARE or spare < 0.0:
            continue
        ahead = min(int(spare), fits.shape[0] - 1)
        full_s = full_seconds(budget, costs, b, k)
        for x in range(arrivals.quad_s.size):
            mass = law[z] * arrivals.laws[z, x]
            if mass < _RARE:
                continue
            total = left[z] + x * budget.step + prompt
            if total > room:
                land(found, mass * fits[ahead, x], total - room, full_s, times, lefts)
                continue
            quad = arrivals.quad_s[x] + first_s
            s = open_seconds(budget, costs, b + decode, k, left[z], total, quad)
            low, share = place(times, s)
            found[low] += mass * (1.0 - share)
            found[low + 1] += mass * share
    return found


@compiled(nogil=True, error_model="numpy")
def later_endings(behind, grid, room, b, k, times, lefts, budget, costs):
    """Law of the state after an iteration with so many tokens and those behind; shape (r, g, m).

    Args:
        behind: Laws of the tokens behind by lattice point, shape (r, L).
        grid: Tokens up to the end of the prompt in its last iteration, shape (g,).
        room: Prompt tokens in it; b, k: its decodes and the KV that they read.
    """
    found = np.zeros((behind.shape[0], grid.size, times.at.size + lefts.at.size - 1))
    full_s = full_seconds(budget, costs, b, k)
    for r in range(behind.shape[0]):
        mass_before, place_before = cumulated(behind[r])
        for g in range(grid.size):
            fitting = fitting_points(room - grid[g], budget.step, behind.shape[1])
            for x in range(fitting):
                mass = behind[r, x]
                if mass < _RARE:
                    continue
                total = grid[g] + x * budget.step
                s = open_seconds(budget, costs, b, k, total, total, 0.0)
                low, share = place(times, s)
                found[r, g, low] += mass * (1.0 - share)
                found[r, g, low + 1] += mass * share
            over = Over(1.0, mass_before, place_before, room - grid[g], budget.step)
            land_all(found[r, g], over, fitting, full_s, times, lefts)
    return found


@compiled(nogil=True, error_model="numpy")
def own_first_seconds(law, left, arrivals, decoders, prompts, first_s, budget, costs):
    """E of the first iteration of a request that joins at its start, by class.

    Args:
        law: Law of the state before it; first_s: seconds apart from f of a whole prompt that fits
            into the budget, 0 for longer ones.
    """
    found = np.zeros(prompts.size)
    requests, kv, weights = decoders
    for z in range(law.size):
        mass_before = cumulated(arrivals.laws[z])[0]
        for q in range(weights.shape[1]):
            if law[z] * weights[z, q] < 1e-10:
                continue
            b, k = requests[z, q], kv[z, q]
            room = budget.tokens - b
            full_s = full_seconds(budget, costs, b, k)
            for j in range(prompts.size):
                begun = left[z] + prompts[j]
                fitting = fitting_points(room - begun, budget.step, arrivals.quad_s.size)
                decode = 0.0 if prompts[j] > 0.0 else 1.0
                seconds = full_s * (mass_before[-1] - mass_before[fitting])
                for x in range(fitting):
                    if arrivals.laws[z, x] < _RARE:
                        continue
                    total = begun + x * budget.step
                    quad = arrivals.quad_s[x] + first_s[j]
                    s = open_seconds(budget, costs, b + decode, k, left[z], total, quad)
                    seconds += arrivals.laws[z, x] * s
                found[j] += law[z] * weights[z, q] * seconds
    return found


@compiled(nogil=True, error_model="numpy")
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
            for x in range(arrivals.quad_s.size):
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


@compiled(nogil=True, error_model="numpy")
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
