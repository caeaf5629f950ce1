"""Inner loops of THEORY 9, compiled with numba."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fluid.compiled import compiled

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

Floats = NDArray[np.float64]

MOMENTS = 9
"""Sums kept for the regression of f: P, B, f, P², B², PB, Pf, Bf, f²."""

_NOTHING, _RARE, _MUCH, _LEAK = 1e-14, 1e-12, 1e100, 1e-15


class Costs(NamedTuple):
    """τ apart from prompts: f as a table with its last slope, and what decodes add.

    Attributes:
        table_s: f at whole numbers of tokens.
        slope_s: f beyond the table, seconds per token.
        overhead_s: d0.
        per_decode_s, per_kv_token_s, per_prompt_token_s: c_seq, c_kv, c_pre.
    """

    table_s: Floats
    slope_s: float
    overhead_s: float
    per_decode_s: float
    per_kv_token_s: float
    per_prompt_token_s: float


class Nodes(NamedTuple):
    """Increasing nodes t with a table of the interval in which a value lies.

    Attributes:
        at: Shape (m,).
        interval: Index of the interval by cell, shape (cells,).
        cells_per_unit: Of the table, from at[0] on.
    """

    at: Floats
    interval: NDArray[np.int32]
    cells_per_unit: float


@compiled(nogil=True, error_model="numpy")
def token_seconds(costs, tokens):
    """f at the nearest whole number of tokens."""
    top = costs.table_s.size - 1
    if tokens >= top:
        return costs.table_s[top] + costs.slope_s * (tokens - top)
    return costs.table_s[int(tokens + 0.5)]


@compiled(nogil=True, error_model="numpy")
def place(nodes, value):
    """Interval of a value, and the share that belongs to its upper node so that means are kept."""
    at = nodes.at
    cell = int((value - at[0]) * nodes.cells_per_unit)
    low = nodes.interval[min(max(cell, 0), nodes.interval.size - 1)]
    while low > 0 and value < at[low]:
        low -= 1
    while low < at.size - 2 and value > at[low + 1]:
        low += 1
    share = (value - at[low]) / (at[low + 1] - at[low])
    return low, min(max(share, 0.0), 1.0)


@compiled(nogil=True, error_model="numpy")
def whole_step(nodes, prompts, tokens, fixed_s, decodes, kv, weights, costs):
    """One iteration of the chain of THEORY 9.3.

    Args:
        prompts: Law of prompt seconds by lattice point given each node, shape (m, M).
        tokens, fixed_s: Prompt tokens, and seconds apart from f, at a lattice point, shape (M,).
        decodes, kv, weights: Law of (B, K) given each node, shape (m, q).

    Returns:
        The transition matrix, shape (m, m), and `MOMENTS` given each node, shape (m, 9).
    """
    m = nodes.at.size
    step = np.zeros((m, m))
    moments = np.zeros((m, MOMENTS))
    for i in range(m):
        for q in range(weights.shape[1]):
            if weights[i, q] < _NOTHING:
                continue
            b = decodes[i, q]
            decode_s = costs.per_decode_s * b + costs.per_kv_token_s * kv[i, q]
            for y in range(tokens.size):
                mass = weights[i, q] * prompts[i, y]
                if mass < _NOTHING:
                    continue
                p = tokens[y]
                f = token_seconds(costs, p + b)
                low, share = place(nodes, f + fixed_s[y] + decode_s)
                step[i, low] += mass * (1.0 - share)
                step[i, low + 1] += mass * share
                add_moments(moments[i], mass, p, b, f)
    return step, moments


@compiled(from_python=False, nogil=True, error_model="numpy")
def add_moments(row, mass, p, b, f):
    """Add what the regression of f on prompt tokens and decodes needs."""
    row[0] += mass * p
    row[1] += mass * b
    row[2] += mass * f
    row[3] += mass * p * p
    row[4] += mass * b * b
    row[5] += mass * p * b
    row[6] += mass * p * f
    row[7] += mass * b * f
    row[8] += mass * f * f


@compiled(nogil=True, error_model="numpy")
def added_seconds(law, prompts, tokens, decodes, weights, extra, costs):
    """E[f(P + B + extra_j) − f(P + B)] under a law of the node, shape of `extra`."""
    # Beyond the table f is a line, on which it does not matter where the difference is taken.
    top = costs.table_s.size
    histogram = np.zeros(top + 1)
    for i in range(law.size):
        for q in range(weights.shape[1]):
            if law[i] * weights[i, q] < _NOTHING:
                continue
            for y in range(tokens.size):
                n = int(min(tokens[y] + decodes[i, q] + 0.5, float(top)))
                histogram[n] += law[i] * weights[i, q] * prompts[i, y]
    found = np.zeros(extra.size)
    for j in range(extra.size):
        for n in range(top + 1):
            if histogram[n] > 0.0:
                rise = token_seconds(costs, n + extra[j]) - token_seconds(costs, float(n))
                found[j] += histogram[n] * rise
    return found


@compiled(nogil=True, error_model="numpy")
def cross_sums(rates, rows, more, known):
    """Σ_j λ_j a_j·conj(b_j) at each frequency, over all pairs of rows; shape (i + k, i + k, F).

    Args:
        rows, more: Transforms by kind and class, shapes (i, m, F) and (k, m, F).
        known: The sums over pairs of `rows`, shape (i, i, F).

    Returns:
        These, and Σ_j λ_j a_j of `more`, shape (k, F).
    """
    kinds, m, size = more.shape
    had = rows.shape[0]
    found = np.zeros((had + kinds, had + kinds, size), dtype=np.complex128)
    total = np.zeros((kinds, size), dtype=np.complex128)
    # By hand: numba compiles the shape checks of an assignment to a slice for seconds.
    for a in range(had):
        for b in range(had):
            for k in range(size):
                found[a, b, k] = known[a, b, k]
    for a in range(kinds):
        for j in range(m):
            for k in range(size):
                total[a, k] += rates[j] * more[a, j, k]
        for b in range(had + a + 1):
            pair = found[had + a, b]
            for j in range(m):
                other = rows[b, j] if b < had else more[b - had, j]
                for k in range(size):
                    pair[k] += rates[j] * more[a, j, k] * np.conj(other[k])
            for k in range(size):
                found[b, had + a, k] = np.conj(pair[k])
    return found, total


@compiled(nogil=True, error_model="numpy")
def linear_moments(cross, total, own, x, y, mean_s, noise, feedback, lag, wave):
    """Second moments of the linear theory (THEORY 9.2) by sums over frequencies.

    Class j adds a_j seconds to the iterations after it, and has effects X_j and Y_j; what it adds
    lets followers in, who have them too.

    Args:
        cross: See `cross_sums`; total: Σ_j λ_j of each row, shape (k, F).
        own: Seconds that a unit of each row adds, shape (k,).
        x, y: Rows of X and Y.
        mean_s: μ; noise: variance of what no request adds.
        feedback: G; lag: H; wave: z, shape (F,).

    Returns:
        The spectrum of τ, shape (F,), and Cov(X', τ), Cov(Y', τ), Var X, Var Y, Cov(X, Y), with X'
        one iteration after τ.
    """
    kinds, size = cross.shape[1:]
    spectrum = np.zeros(size)
    sums = np.zeros(5)
    for k in range(size):
        share = (1.0 if k in (0, size - 1) else 2.0) / (2 * (size - 1))
        power, own_x, own_y = 0.0, 0j, 0j
        for a in range(kinds):
            if own[a] == 0.0:
                continue
            own_x += own[a] * cross[x, a, k]
            own_y += own[a] * cross[y, a, k]
            for b in range(kinds):
                power += own[a] * own[b] * cross[a, b, k].real
        response = lag[k] * feedback[k]
        all_x = wave[k] * lag[k] * total[x, k]
        all_y = wave[k] * lag[k] * total[y, k]
        noise_power = noise * (feedback[k].real ** 2 + feedback[k].imag ** 2)
        tau_power = mean_s * power * (response.real**2 + response.imag**2) + noise_power
        spectrum[k] = tau_power
        # What a request has itself, with what its followers have.
        follow_x = mean_s * lag[k] * own_x * np.conj(response)
        follow_y = mean_s * lag[k] * own_y * np.conj(response)
        direct = mean_s * (lag[k].real ** 2 + lag[k].imag ** 2)
        ahead = np.conj(wave[k])
        sums[0] += share * ((follow_x + all_x * tau_power) * ahead).real
        sums[1] += share * ((follow_y + all_y * tau_power) * ahead).real
        both_x, both_y = follow_x * np.conj(all_x), follow_y * np.conj(all_y)
        square_x = (all_x.real**2 + all_x.imag**2) * tau_power
        square_y = (all_y.real**2 + all_y.imag**2) * tau_power
        sums[2] += share * (direct * cross[x, x, k].real + 2 * both_x.real + square_x)
        sums[3] += share * (direct * cross[y, y, k].real + 2 * both_y.real + square_y)
        mixed = follow_x * np.conj(all_y) + np.conj(follow_y) * all_x
        mixed += all_x * np.conj(all_y) * tau_power
        sums[4] += share * (direct * cross[x, y, k] + mixed).real
    return spectrum, sums


@compiled(nogil=True, error_model="numpy")
def balance(step):
    """The stationary law of a chain, by eliminating one node after the other.

    The algorithm of Grassmann, Taksar and Heyman: it never subtracts, and takes no thread pool.
    Every node is made just reachable from every other.
    """
    size = step.shape[0]
    rest = step + _LEAK
    for k in range(size - 1, 0, -1):
        out = 0.0
        for i in range(k):
            out += rest[k, i]
        for i in range(k):
            if rest[i, k] > 0.0:
                rest[i, k] /= out
                for j in range(k):
                    rest[i, j] += rest[i, k] * rest[k, j]
    law = np.zeros(size)
    law[0] = 1.0
    for k in range(1, size):
        for i in range(k):
            law[k] += law[i] * rest[i, k]
        if law[k] > _MUCH:
            law[: k + 1] /= law[k]
    law /= law.sum()
    for k in range(size):
        if law[k] < _RARE:
            law[k] = 0.0
    return law / law.sum()


@compiled(nogil=True, error_model="numpy")
def moved(nodes, law, by_s):
    """A law on nodes, all of it later by each of some times; shape (times, m)."""
    found = np.zeros((by_s.size, law.size))
    for j in range(by_s.size):
        for i in range(law.size):
            if law[i] > 0.0:
                low, share = place(nodes, nodes.at[i] + by_s[j])
                found[j, low] += law[i] * (1.0 - share)
                found[j, low + 1] += law[i] * share
    return found
