"""Where to cut: the best segments by dynamic programming (THEORY 5.2).

Thresholds and cuts together do not decompose, as n_k enters two neighbouring boundaries. They do once
n_k is a function of the segment's entry rate alone. The design rule here is

    n_k = n_1·(Λ_k/Λ_1)^(1 − ε),   so that   n_k/n_{k−1} = p_k^(1 − ε) ∈ (p_k, 1),

with n_1 and the margin 0 < ε < 1 given: ε = 0 is the fluid flow, which 4.3 forbids, ε = 1 equal
thresholds. Then the requirement of Theorem 2 (4.5) is a sum over segments of a cost that depends on
the segment's own two ends:

    n_k·A_k + b_{k+1}·(n_{k+1} + K/θ_{k+1})

(A_k KV over its stages, b_{k+1} KV at the boundary behind it, both with the prompt of 5.4, K the
logarithm of 4.5 for the largest number of segments looked at, so that it is valid for all of them).
Segments are allowed where whole thresholds can follow: n_k ≥ n_{k+1} + 1, n_L ≥ 1. The least sum over
all cuts is found exactly for every L at once, in O(m²) per L. Drift is not part of the sum; each design
says how far it holds.

θ_k depends on p_k alone here. It is tabulated over −ln p and interpolated: the sum is exact to 1e-7.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from thresholds.nested import NestedMemory, boundary_exponent, nested_memory
from thresholds.segments import Lengths, Segments

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

_NODES = 65_536
"""Nodes of the table of 1/θ."""

# mypy: disable-error-code="no-untyped-def"


@dataclass(frozen=True)
class DesignRule:
    """n_k = n_1·(Λ_k/Λ_1)^(1 − ε).

    Attributes:
        first_threshold: n_1.
        margin: ε.
    """

    first_threshold: float
    margin: float


@dataclass(frozen=True)
class Design:
    """The best L segments under a rule.

    Attributes:
        ends: Index of the last length of each segment, shape (L,).
        thresholds: n_k by the rule, real, shape (L,).
        requirement_tokens: What was minimised.
        memory: The same by part.
        load: Λ_1 ΔT(n)/n_1; drift holds below 1.
    """

    ends: Integers
    segments: Segments
    thresholds: Floats
    requirement_tokens: float
    memory: NestedMemory
    load: float


def best_designs(lengths: Lengths, log: float, rule: DesignRule, most: int) -> tuple[Design, ...]:
    """The best cuts into L = 1 … `most` segments, without those L that the rule does not allow.

    Args:
        log: K of THEORY 4.5, for `most` segments.
    """
    most = min(most, len(lengths.outputs))
    thresholds = _rule_thresholds(lengths, rule)
    tables = _Tables(lengths, log, thresholds, rule.margin)
    values = _least_sums(*tables.arguments, most)
    found = []
    for count in range(1, most + 1):
        if np.isfinite(values[-1, count]):
            ends = _ends(*tables.arguments, values, count)
            found.append(_design(lengths, log, thresholds, ends, float(values[-1, count])))
    return tuple(found)


def segment_sum(lengths: Lengths, log: float, rule: DesignRule, ends: Integers) -> float:
    """What the dynamic program minimises, for given cuts and with θ itself: its definition."""
    thresholds = _rule_thresholds(lengths, rule)
    first = np.concatenate([[0], np.asarray(ends)[:-1] + 1])
    n = thresholds[first]
    if n[-1] < 1 or (n[:-1] - n[1:] < 1).any():
        return float("inf")
    return float(nested_memory(n, lengths.segments(ends), log).total)


def _rule_thresholds(lengths: Lengths, rule: DesignRule) -> Floats:
    """n of a segment that is entered by requests of length index i and longer, shape (m,)."""
    shares = lengths.rates_per_s / lengths.rates_per_s[0]
    return np.asarray(rule.first_threshold * shares ** (1 - rule.margin))


def _design(
    lengths: Lengths, log: float, thresholds: Floats, ends: Integers, value: float
) -> Design:
    segments = lengths.segments(ends)
    n = thresholds[np.concatenate([[0], ends[:-1] + 1])]
    memory = nested_memory(n, segments, log)
    return Design(ends, segments, n, value, memory, float(segments.load(n)))


class _Tables:
    """What the kernel reads: the cost of the segment of lengths h … i in closed form."""

    def __init__(self, lengths: Lengths, log: float, thresholds: Floats, margin: float) -> None:
        depth = np.log(lengths.rates_per_s[0] / lengths.rates_per_s)
        before = np.concatenate([[0], lengths.outputs[:-1]])
        low, high = lengths.stage_range(before, lengths.outputs)
        # One node more than is needed, so that the last interval can be interpolated too.
        x = np.linspace(0, max(float(depth[-1]), 1.0) * (1 + 1 / _NODES), _NODES + 2)
        # At p = 1, where the limit of 1/θ is finite, the neighbouring node stands in.
        p = np.exp(-np.maximum(x, x[1]))
        inverse = log / boundary_exponent(p ** (1 - margin), p)
        inverse[0] = 2 * inverse[1] - inverse[2]
        self.arguments = (
            thresholds,
            depth,
            lengths.memory_prompts,
            low,
            high,
            lengths.boundary_tokens,
            inverse,
            1 / float(x[1]),
            lengths.held_sums,
        )


@numba.njit(cache=True, error_model="numpy")
def _cost(h, i, n, depth, prompts, low, high, boundary, inverse, nodes, held_sums):
    """Cost of the segment of lengths h … i with the boundary behind it; infinite if not allowed."""
    filled = n[h] * (held_sums[prompts[h] + high[i]] - held_sums[prompts[h] + low[h] - 1])
    if i == n.size - 1:
        return filled if n[h] >= 1.0 else np.inf
    place = (depth[i + 1] - depth[h]) * nodes
    node = int(place)
    exceeded = inverse[node] + (place - node) * (inverse[node + 1] - inverse[node])
    cost = filled + boundary[i + 1] * (n[i + 1] + exceeded)
    return cost if n[h] - n[i + 1] >= 1.0 else np.inf


@numba.njit(cache=True, error_model="numpy")
def _least_sums(n, depth, prompts, low, high, boundary, inverse, nodes, held_sums, most):
    """Least sum over lengths 0 … i − 1 cut into k segments, shape (m + 1, most + 1)."""
    values = np.full((n.size + 1, most + 1), np.inf)
    values[0, 0] = 0.0
    before = np.empty(most + 1)
    # Pushing from h reads the tables in order of i, which is several times faster than pulling.
    for h in range(n.size):
        before[:] = values[h]
        for i in range(h, n.size):
            cost = _cost(h, i, n, depth, prompts, low, high, boundary, inverse, nodes, held_sums)
            row = values[i + 1]
            for k in range(most):
                candidate = before[k] + cost
                row[k + 1] = candidate if candidate < row[k + 1] else row[k + 1]
    return values


@numba.njit(cache=True)
def _ends(n, depth, prompts, low, high, boundary, inverse, nodes, held_sums, values, count):
    """Ends of the best `count` segments, read backwards from `_least_sums`."""
    ends = np.empty(count, dtype=np.int64)
    i = n.size - 1
    for k in range(count, 0, -1):
        ends[k - 1] = i
        best, chosen = np.inf, 0
        for h in range(i + 1):
            cost = _cost(h, i, n, depth, prompts, low, high, boundary, inverse, nodes, held_sums)
            if values[h, k - 1] + cost < best:
                best, chosen = values[h, k - 1] + cost, h
        i = chosen - 1
    return ends
