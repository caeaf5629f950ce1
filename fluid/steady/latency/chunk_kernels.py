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


@compiled(nogil=True, error_model="numpy")
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
    step, moments, quads = np.zeros((m, m)), np.zeros((m, MOMENTS)), np.zeros((m, 2))
    for z in range(m):
        old, row, sums = left[z], step[z], np.zeros(MOMENTS)
        for q in range(weights.shape[1]):
            if weights[z, q] < _NOTHING:
                continue
            b, k = requests[z, q], kv[z, q]
            room = budget.tokens - b
            full_s = full_seconds(budget, costs, b, k)
            decode_s = costs.per_decode_s * b + costs.per_kv_token_s * k
            other_s = decode_s + budget.quad_s * old / budget.tokens
            full_f = token_seconds(costs, budget.tokens)
            for x in range(arrivals.quad_s.size):
                mass = weights[z, q] * arrivals.laws[z, x]
                if mass < _RARE:
                    continue
                total = old + x * budget.step
                if total > room:
                    add_moments(sums, mass, room, b, full_f)
                    quads[z, CUT_QUAD] += mass * room / budget.tokens
                    land(row, mass, total - room, full_s, times, lefts)
                    continue
                f = token_seconds(costs, total + b)
                add_moments(sums, mass, total, b, f)
                quads[z, NEW_QUAD] += mass * arrivals.quad_s[x]
                quads[z, CUT_QUAD] += mass * old / budget.tokens
                s = f + costs.per_prompt_token_s * total + arrivals.quad_s[x] + other_s
                low, share = place(times, max(min(s, full_s), costs.overhead_s))
                row[low] += mass * (1.0 - share)
                row[low + 1] += mass * share
        moments[z] = sums
    return step, moments, quads


@compiled(nogil=True, error_model="numpy")
def land(row, mass, over, full_s, times, lefts):
    """Put mass on the states of so many tokens left over; below the first lies a full iteration."""
    low, share = place(lefts, min(over, lefts.at[-1]))
    first = times.at.size + low
    row[first] += mass * share
    if low > 0:
        row[first - 1] += mass * (1.0 - share)
        return
    full_low, full_share = place(times, full_s)
    row[full_low] += mass * (1.0 - share) * (1.0 - full_share)
    row[full_low + 1] += mass * (1.0 - share) * full_share


@compiled(nogil=True, error_model="numpy")
def fitting_shares(before, behind, weights, most):
    """P(at most y points come before a moment | x in all), y below `most`; shape (most, M).

    Args:
        before, behind: Laws of what comes before and after each of some moments, shape (u, M).
        weights: Of the moments.
    """
    points = before.shape[1]
    found = np.zeros((most, points))
    for x in range(points):
        total = 0.0
        for y in range(x + 1):
            for u in range(weights.size):
                total += weights[u] * before[u, y] * behind[u, x - y]
            if y < most:
                found[y, x] = total
        for y in range(most):
            if y >= x:
                found[y, x] = 1.0
            elif total > _RARE:
                found[y, x] /= total
            else:
                found[y, x] = (y + 0.5) / x
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
        first, last = 0, behind.shape[1]
        while last > 1 and behind[r, last - 1] < _RARE:
            last -= 1
        while first < last and behind[r, first] < _RARE:
            first += 1
        for g in range(grid.size):
            for x in range(first, last):
                mass = behind[r, x]
                if mass < _RARE:
                    continue
                total = grid[g] + x * budget.step
                if total > room:
                    land(found[r, g], mass, total - room, full_s, times, lefts)
                    continue
                s = open_seconds(budget, costs, b, k, total, total, 0.0)
                low, share = place(times, s)
                found[r, g, low] += mass * (1.0 - share)
                found[r, g, low + 1] += mass * share
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
        for q in range(weights.shape[1]):
            if law[z] * weights[z, q] < 1e-10:
                continue
            b, k = requests[z, q], kv[z, q]
            room = budget.tokens - b
            full_s = full_seconds(budget, costs, b, k)
            for x in range(arrivals.quad_s.size):
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
