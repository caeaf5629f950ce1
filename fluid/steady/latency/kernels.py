"""Inner loops of THEORY 9, compiled with numba."""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

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


@numba.njit(cache=True, nogil=True, error_model="numpy")
def token_seconds(costs, tokens):
    """f at the nearest whole number of tokens."""
    top = costs.table_s.size - 1
    if tokens >= top:
        return costs.table_s[top] + costs.slope_s * (tokens - top)
    return costs.table_s[int(tokens + 0.5)]


@numba.njit(cache=True, nogil=True, error_model="numpy")
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


@numba.njit(cache=True, nogil=True, error_model="numpy")
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


@numba.njit(cache=True, nogil=True, error_model="numpy")
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


@numba.njit(cache=True, nogil=True, error_model="numpy")
def added_seconds(law, prompts, tokens, decodes, weights, extra, costs):
    """E[f(P + B + extra_j) − f(P + B)] under a law of the node, shape of `extra`."""
    top = int(tokens.max() + decodes.max()) + 2
    histogram = np.zeros(top + 1)
    for i in range(law.size):
        for q in range(weights.shape[1]):
            if law[i] * weights[i, q] < _NOTHING:
                continue
            for y in range(tokens.size):
                n = int(tokens[y] + decodes[i, q] + 0.5)
                histogram[n] += law[i] * weights[i, q] * prompts[i, y]
    found = np.zeros(extra.size)
    for j in range(extra.size):
        for n in range(top + 1):
            if histogram[n] > 0.0:
                rise = token_seconds(costs, n + extra[j]) - token_seconds(costs, float(n))
                found[j] += histogram[n] * rise
    return found


@numba.njit(cache=True, nogil=True, error_model="numpy")
def linear_moments(own, effect, other, rates, mean_s, noise, feedback, lag, wave):
    """Second moments of the linear theory (THEORY 9.2) by sums over frequencies.

    Class j adds own_j to the iterations after it, and has effects X_j and Y_j; what it adds lets
    followers in, who have them too.

    Args:
        own, effect, other: Transforms of a_j, X_j, Y_j, shape (m, F).
        rates: λ_j, shape (m,); mean_s: μ; noise: variance of what no request adds.
        feedback: G; lag: H; wave: z, shape (F,).

    Returns:
        The spectrum of τ, shape (F,), and Cov(X', τ), Cov(Y', τ), Var X, Var Y, Cov(X, Y), with X'
        one iteration after τ.
    """
    m, size = own.shape
    spectrum = np.zeros(size)
    sums = np.zeros(5)
    for k in range(size):
        share = (1.0 if k in (0, size - 1) else 2.0) / (2 * (size - 1))
        pass_on = wave[k] * lag[k]
        all_x, all_y = 0j, 0j
        for j in range(m):
            all_x += rates[j] * effect[j, k]
            all_y += rates[j] * other[j, k]
        all_x *= pass_on
        all_y *= pass_on
        for j in range(m + 1):
            if j < m:
                weight = mean_s * rates[j]
                response = lag[k] * feedback[k] * own[j, k]
                x = lag[k] * effect[j, k] + all_x * response
                y = lag[k] * other[j, k] + all_y * response
            else:
                weight = noise
                response = feedback[k]
                x = all_x * response
                y = all_y * response
            power = response.real**2 + response.imag**2
            spectrum[k] += weight * power
            ahead = np.conj(response) * np.conj(wave[k])
            weight *= share
            sums[0] += weight * (x * ahead).real
            sums[1] += weight * (y * ahead).real
            sums[2] += weight * (x.real**2 + x.imag**2)
            sums[3] += weight * (y.real**2 + y.imag**2)
            sums[4] += weight * (x * np.conj(y)).real
    return spectrum, sums


@numba.njit(cache=True, nogil=True, error_model="numpy")
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


@numba.njit(cache=True, nogil=True, error_model="numpy", fastmath=True)
def sum_waves(step, turn_real, turn_imag, counts):
    """E[e^{iω(τ_1 + … + τ_N)} | node of τ_0] for each N of `counts`, which increase.

    Args:
        step: Q, shape (m, m); turn_real, turn_imag: e^{iωt} of each node, shape (m, F).

    Returns:
        Real and imaginary part, shape (len(counts), m, F) each.
    """
    m, waves = turn_real.shape
    real = np.ones((m, waves))
    imag = np.zeros((m, waves))
    kept_real = np.empty((counts.size, m, waves))
    kept_imag = np.empty((counts.size, m, waves))
    turned_real = np.empty((m, waves))
    turned_imag = np.empty((m, waves))
    done = 0
    for index in range(counts.size):
        while done < counts[index]:
            for k in range(m):
                for w in range(waves):
                    a, b = real[k, w], imag[k, w]
                    turned_real[k, w] = a * turn_real[k, w] - b * turn_imag[k, w]
                    turned_imag[k, w] = a * turn_imag[k, w] + b * turn_real[k, w]
            real[:] = 0.0
            imag[:] = 0.0
            for i in range(m):
                for k in range(m):
                    mass = step[i, k]
                    if mass > 1e-9:
                        for w in range(waves):
                            real[i, w] += mass * turned_real[k, w]
                            imag[i, w] += mass * turned_imag[k, w]
            done += 1
        kept_real[index] = real
        kept_imag[index] = imag
    return kept_real, kept_imag


@numba.njit(cache=True, nogil=True, error_model="numpy")
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
