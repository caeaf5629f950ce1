"""Whole thresholds of Nested WAIT: starting points, and a descent on the exact objective.

Everything here is evaluated with the exact θ_k and on the server's own iteration time. Whether a
drift-feasible vector exists at all is decided without search: given n_1, the chain
n_k = ⌊p_k n_{k−1}⌋ + 1 is the least in every coordinate and has the least work.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from thresholds.solvers.nested.requirement import (
    STRICT,
    chain_holds,
    mean_latency_s,
    mean_ttft_s,
    nested_memory,
)
from thresholds.solvers.nested.segments import Segments

Floats = NDArray[np.float64]
Aim = Callable[[Floats], Floats]
"""Values of whole threshold vectors (k, L), less is better, infinite where not allowed; (k,)."""


_FIRST = 160
"""Values of n_1, evenly spaced in their logarithm, from which chains start."""

_EXPONENTS = (0.95, 0.85, 0.7, 0.5, 0.3, 0.1)
"""Chains start with r_k = p_k to these powers, between the two ends that 4.3 forbids."""

_SCALES = np.geomspace(0.7, 1.4, 60)
"""The descent also tries the whole vector times these: along the memory limit no step helps."""

_MOST_SEGMENTS = 40
"""Beyond it not all blocks are tried."""

_MANY_SEGMENTS = 4
"""Up to so many segments every two block steps are tried together, beyond it single steps of 1."""


def aim_of(objective: str, segments: Segments, log: float) -> Aim:
    """The objective over whole thresholds.

    latency, ttft: means in seconds where all conditions hold. memory: the requirement in tokens
    where drift and the chain hold, even if it exceeds the capacity. slack, rate: the load
    Λ_1 ΔT/n_1 where the chain and memory hold, even if it is above 1: the largest distance from
    drift is at the smallest load, and so is the largest multiple of the rates, as neither the chain
    nor the buffers depend on it.
    """
    capacity = segments.server.usable_kv_tokens

    def requirement(thresholds: Floats) -> Floats:
        return nested_memory(thresholds, segments, log).total

    def delay(thresholds: Floats) -> Floats:
        fits = requirement(thresholds) <= capacity
        drift = segments.load(thresholds) <= 1 - STRICT
        mean_s = mean_latency_s if objective == "latency" else mean_ttft_s
        return np.where(drift & fits, mean_s(thresholds, segments), np.inf)

    def memory(thresholds: Floats) -> Floats:
        allowed = (segments.load(thresholds) <= 1 - STRICT) & chain_holds(thresholds, segments)
        return np.where(allowed, requirement(thresholds), np.inf)

    def slack(thresholds: Floats) -> Floats:
        # NaN, where the chain fails, compares as False.
        fits = requirement(thresholds) <= capacity
        return np.where(fits, segments.load(thresholds), np.inf)

    known = {"latency": delay, "ttft": delay, "memory": memory, "slack": slack, "rate": slack}
    return known[objective]


def best_of(aim: Aim, candidates: Floats) -> tuple[Floats, float]:
    """The best of the candidates (k, L) that are 1 or more, and its value."""
    whole = candidates[(candidates >= 1).all(axis=1)]
    values = aim(whole)
    chosen = int(np.argmin(values))
    return whole[chosen], float(values[chosen])


def best_whole(aim: Aim, starts: Floats) -> tuple[Floats, float]:
    """The best start (k, L), then steps of blocks of segments while they help.

    Returns thresholds (L,) and their value, infinite if no start is allowed.
    """
    best, value = best_of(aim, starts)
    moves = _moves(starts.shape[1], float(best[0]))
    while np.isfinite(value):
        rays = _SCALES[:, None] * best
        candidates = np.vstack([best + moves, np.floor(rays), np.ceil(rays), np.rint(rays)])
        better, better_value = best_of(aim, candidates)
        if better_value >= value:
            break
        best, value = better, better_value
    return best, value


def least_chain(first: Floats, segments: Segments) -> Floats:
    """The least whole thresholds that start with each n_1 of shape (k,) and drain; (k, L).

    A chain that does not decrease strictly cannot be repaired for that n_1.
    """
    n = [np.asarray(first, dtype=float)]
    for p in segments.survivals:
        n.append(np.floor(p * n[-1]) + 1)
    return np.column_stack(n)


def chains(segments: Segments) -> Floats:
    """Whole thresholds that satisfy the chain of 4.3, for many n_1 and several ratios, (k, L)."""
    most = 4 * segments.server.usable_kv_tokens / segments.memory_tokens[0]
    first = np.unique(np.rint(np.geomspace(1, max(most, 4.0 * segments.count), _FIRST)))
    real = [
        first[:, None] * np.cumprod(np.append(1.0, segments.survivals**one)) for one in _EXPONENTS
    ]
    return np.vstack([least_chain(first, segments), *(repaired(one, segments) for one in real)])


def repaired(real: Floats, segments: Segments) -> Floats:
    """Rounded thresholds (k, L), moved between the ends that the chain allows where it does."""
    n = [np.maximum(np.rint(real[:, 0]), segments.count)]
    for k, p in enumerate(segments.survivals, start=1):
        low, high = np.floor(p * n[-1]) + 1, n[-1] - 1
        n.append(np.clip(np.rint(real[:, k]), np.minimum(low, high), np.maximum(low, high)))
    return np.column_stack(n)


def _moves(segments: int, largest: float) -> Floats:
    """±1, ±2, ±4, … on every block of neighbouring segments, and of two such together; (k, L)."""
    # Of very many segments only single ones and those from the first on.
    few = segments <= _MOST_SEGMENTS
    blocks = np.array(
        [
            np.r_[np.zeros(i), np.ones(j - i), np.zeros(segments - j)]
            for i in range(segments)
            for j in range(i + 1, segments + 1)
            if few or i == 0 or j == i + 1
        ]
    )
    sizes = 2.0 ** np.arange(int(np.log2(max(largest, 1))) + 1)
    single = np.kron(np.concatenate([sizes, -sizes])[:, None], blocks)
    ones = np.vstack([np.eye(segments), -np.eye(segments)])
    paired = single if segments <= _MANY_SEGMENTS else ones
    first, second = np.triu_indices(len(paired), k=1)
    return np.unique(np.vstack([single, paired[first] + paired[second]]), axis=0)
