"""Where to cut by one rule for the thresholds: dynamic programming (THEORY 5.2).

For `nested-cap`, and for the picture of memory against L; `optimum` chooses both together.

By cuts alone the requirement does not decompose, as n_k enters two neighbouring boundaries. It does
once n_k is a function of the segment's entry rate alone. The design rule here is

    n_k = n_1·(Λ_k/Λ_1)^(1 − ε),   so that   n_k/n_{k−1} = p_k^(1 − ε) ∈ (p_k, 1),

with n_1 and the margin 0 < ε < 1 given: ε = 0 is the fluid flow, which 4.3 forbids, ε = 1 equal
thresholds. Then the requirement of Theorem 2 (4.5) is a sum over segments of a cost that depends on
the segment's own two ends:

    n_k·A_k + b_{k+1}·(n_{k+1} + K/θ_{k+1})

(A_k KV over its stages, b_{k+1} KV at the boundary behind it, both with the prompt of 5.4; K the
logarithm of 4.5 for the largest number of segments looked at, so that it is valid for all of them).
Segments are allowed where whole thresholds can follow: n_k ≥ n_{k+1} + 1, n_L ≥ 1. The least sum
over all cuts is found exactly for every L at once, in O(m²) per L. Drift is not part of the sum;
each design says how far it holds.

θ_k depends on p_k alone here. It is tabulated over −ln p and interpolated: within 1e-7 of the sum.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thresholds.solvers.nested.requirement import NestedMemory, boundary_exponent, nested_memory
from thresholds.solvers.nested.segments import Lengths, Segments

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

COARSE = 128
"""So many lengths are candidates for cuts while a rule is looked for."""

_MARGINS = (0.03, 0.1, 0.2, 0.4, 0.7)
_FIRST = 16
"""The grid of rules: values of ε, and how many of n_1."""

_NODES = 16_384
"""Nodes of the table of 1/θ."""


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
        rule: The rule.
        ends: Index of the last length of each segment, shape (L,).
        thresholds: n_k by the rule, real, shape (L,).
        requirement_tokens: What was minimised.
        memory: The same by part.
        load: Λ_1 ΔT(n)/n_1; drift holds below 1.
    """

    rule: DesignRule
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
    from thresholds.solvers.nested import design_kernel as kernel  # numba is slow to import

    most = min(most, len(lengths.outputs))
    thresholds = _rule_thresholds(lengths, rule)
    tables = _tables(lengths, log, thresholds, rule.margin)
    values = kernel.least_sums(*tables, most)
    found = []
    for count in range(1, most + 1):
        if np.isfinite(values[-1, count]):
            ends = kernel.best_ends(*tables, values, count)
            found.append(_design(lengths, log, rule, ends, float(values[-1, count])))
    return tuple(found)


def _rule_thresholds(lengths: Lengths, rule: DesignRule) -> Floats:
    """n of a segment that is entered by requests of length index i and longer, shape (m,)."""
    shares = lengths.rates_per_s / lengths.rates_per_s[0]
    return np.asarray(rule.first_threshold * shares ** (1 - rule.margin))


def _design(lengths: Lengths, log: float, rule: DesignRule, ends: Integers, value: float) -> Design:
    segments = lengths.segments(ends)
    n = _rule_thresholds(lengths, rule)[np.concatenate([[0], ends[:-1] + 1])]
    memory = nested_memory(n, segments, log)
    return Design(rule, ends, segments, n, value, memory, float(segments.load(n)))


def designs_over_rules(lengths: Lengths, log: float, most: int) -> dict[int, Design]:
    """By L ≤ `most`: the design of least requirement over a grid of rules with which drift holds.

    Cuts are looked for among at most `COARSE` of the lengths, evenly spaced in their order. An L
    is missing where no rule of the grid gives drift.
    """
    kept = lengths.spread(COARSE)
    merged = lengths.merged(kept)
    shares = merged.rates_per_s / merged.rates_per_s[0]
    finest = float(shares @ merged.segments(np.arange(len(kept))).memory_tokens)
    first = max(2 * lengths.server.usable_kv_tokens / finest, 4.0 * most)
    found: dict[int, Design] = {}
    for margin in _MARGINS:
        for one in np.geomspace(1.0, first, _FIRST):
            rule = DesignRule(float(one), margin)
            for design in best_designs(merged, log, rule, most):
                count = len(design.ends)
                known = found.get(count)
                better = not known or design.requirement_tokens < known.requirement_tokens
                if design.load < 1 and better:
                    found[count] = design
    return {count: replace(one, ends=kept[one.ends]) for count, one in sorted(found.items())}


def _tables(lengths: Lengths, log: float, thresholds: Floats, margin: float) -> tuple[Any, ...]:
    """What the kernel reads, in its order."""
    depth = np.log(lengths.rates_per_s[0] / lengths.rates_per_s)
    before = np.concatenate([[0], lengths.outputs[:-1]])
    low, high = lengths.stage_range(before, lengths.outputs)
    # One node more than is needed, so that the last interval can be interpolated too.
    x = np.linspace(0, max(float(depth[-1]), 1.0) * (1 + 1 / _NODES), _NODES + 2)
    # At p = 1, where the limit of 1/θ is finite, the neighbouring node stands in.
    p = np.exp(-np.maximum(x, x[1]))
    inverse = log / boundary_exponent(p ** (1 - margin), p)
    inverse[0] = 2 * inverse[1] - inverse[2]
    return (
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
