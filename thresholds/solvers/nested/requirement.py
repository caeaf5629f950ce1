"""Nested WAIT: conditions, memory with its buffers, and latency of a threshold vector (THEORY 4).

Segment 1 runs when n_1 requests wait outside; segment k ≥ 2 when n_k wait at its boundary. A run of
segment k − 1 sends a binomial number of survivors to boundary k, so that its queue is a random walk
with negative drift where p_k < n_k/n_{k−1} (arXiv 2504.11320 Thm 2).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from thresholds.solvers.nested.segments import Segments

Floats = NDArray[np.float64]

STRICT = 1e-9
"""Drift holds strictly if Λ_1 ΔT(n)/n_1 is below 1 by at least this."""

NEAR = 1e-4
"""Exponents below this are those of their series."""

_NEWTON_STEPS = 50
"""Far more than needed: the first step starts within a few times the root."""


@dataclass(frozen=True)
class NestedMemory:
    """KV that a threshold vector needs, in tokens; fields broadcast over threshold vectors.

    Attributes:
        base: M(n), n_k requests at every stage (THEORY 4.4).
        deterministic_buffer: n_k requests at every boundary.
        stochastic_buffer: What the boundary queues exceed that by with probability at most δ.
    """

    base: Floats
    deterministic_buffer: Floats
    stochastic_buffer: Floats

    @property
    def buffer(self) -> Floats:
        """Both buffers: what Theorem 2 asks for on top of M(n) (THEORY 4.5)."""
        return self.deterministic_buffer + self.stochastic_buffer

    @property
    def total(self) -> Floats:
        """The whole requirement."""
        return self.base + self.buffer


TINY = 1e-6
"""Survivals below which 1 − p has lost too many digits of p."""


def boundary_exponent(ratios: ArrayLike, survivals: ArrayLike) -> Floats:
    """θ > 0 with θ·r = ln(1 − p + p·e^θ) (THEORY 4.5), elementwise; NaN unless p < r < 1.

    The equation is written as θ(1 − r) + ln(1 + (1 − p)(e^{−θ} − 1)) = 0, which does not overflow.
    Its left side is convex and 0 at 0, so that Newton's method descends to the root from a point
    above it. Two such points are ln(1/p)/(1 − r), where the logarithm is replaced by its limit, and
    2(r − p)/(p(1 − r)): inserted there, the derivative of the left side by θ has the sign of
    e^θ − 1 − θ − pθ²/4 > 0. Next to r = p, where the equation becomes 0 = 0, the root is that of
    its series: θ = u − (1 − 2p)u²/3 + O(u³) with u = 2(r − p)/(p(1 − p)). Within 1e-10·max(1, θ).
    """
    r, p = np.broadcast_arrays(np.asarray(ratios, dtype=float), np.asarray(survivals, dtype=float))
    valid = (p > 0) & (p < r) & (r < 1)
    r, p = np.where(valid, r, 0.75), np.where(valid, p, 0.5)
    small = 2 * (r - p) / (p * (1 - p))
    series = small - (1 - 2 * p) * small**2 / 3
    near = small < NEAR
    r, p = np.where(near, 0.75, r), np.where(near, 0.5, p)
    theta = np.minimum(-np.log(p), 2 * (r - p) / p) / (1 - r)
    with np.errstate(divide="ignore", invalid="ignore"):
        for _ in range(_NEWTON_STEPS):
            decayed = (1 - p) * np.exp(-theta)
            lost = np.where(p < TINY, np.log(p + decayed), np.log1p((1 - p) * np.expm1(-theta)))
            value = theta * (1 - r) + lost
            slope = (1 - r) - decayed / (p + decayed)
            # The same without 1 − p, in which a tiny p would be lost.
            grown = p * np.expm1(np.minimum(theta, -np.log(p)))
            tiny = (p < TINY) & (theta < -np.log(p))
            value = np.where(tiny, np.log1p(grown) - theta * r, value)
            slope = np.where(tiny, (p + grown) / (1 + grown) - r, slope)
            step = value / slope
            theta = theta - step
            if (np.abs(step) <= 1e-9 * theta).all():  # the error is now about its square
                break
    return np.where(valid, np.where(near, series, theta), np.nan)


def log_term(segments: int, horizon_s: float, overhead_s: float, probability: float) -> float:
    """ln(L(1 + T/d0)/δ): a union bound over L segments and all iterations (THEORY 4.5, ζ = 1).

    Every iteration lasts at least d0 = `overhead_s`, whatever the shape of f, as f does not
    decrease; so there are at most 1 + T/d0 of them.
    """
    return math.log(segments * (1 + horizon_s / overhead_s) / probability)


def ratios(thresholds: ArrayLike) -> Floats:
    """r_k = n_k/n_{k−1} for k = 2 … L; (..., L) gives (..., L − 1)."""
    n = np.asarray(thresholds, dtype=float)
    return np.asarray(n[..., 1:] / n[..., :-1])


def nested_memory(thresholds: ArrayLike, segments: Segments, log: float) -> NestedMemory:
    """M(n) and the buffers of Theorem 2; thresholds (..., L) give fields of shape (...).

    NaN in the stochastic buffer where p_k < n_k/n_{k−1} < 1 fails.
    """
    n = np.asarray(thresholds, dtype=float)
    exponents = boundary_exponent(ratios(n), segments.survivals)
    return NestedMemory(
        base=np.asarray(n @ segments.memory_tokens),
        deterministic_buffer=np.asarray(n[..., 1:] @ segments.boundary_tokens),
        stochastic_buffer=np.asarray(log * ((1 / exponents) @ segments.boundary_tokens)),
    )


def chain_holds(thresholds: ArrayLike, segments: Segments) -> NDArray[np.bool_]:
    """Whether p_k < n_k/n_{k−1} < 1 for every k ≥ 2 (THEORY 4.3); shape (...)."""
    found = ratios(thresholds)
    return np.asarray(((segments.survivals < found) & (found < 1)).all(axis=-1))


def feasible(thresholds: ArrayLike, segments: Segments, log: float) -> NDArray[np.bool_]:
    """Whether drift, the chain and the memory with its buffers hold; shape (...)."""
    needed = nested_memory(thresholds, segments, log).total
    drift = segments.load(thresholds) <= 1 - STRICT
    # NaN, where the chain fails, compares as False.
    return np.asarray(drift & (needed <= segments.server.usable_kv_tokens))


def mean_latency_s(thresholds: ArrayLike, segments: Segments) -> Floats:
    """Mean latency over requests of literal Nested WAIT in seconds; shape (...).

    As for WAIT (THEORY 3.5): collecting n_1 arrivals, one stage of segment k per n_k/Λ_k seconds,
    the last iteration, and queueing for it. A boundary adds Q_k/Λ_k by Little's law, where the
    queue before each run of segment k − 1 obeys Q ← Q − n_k·1[Q ≥ n_k] + Bin(n_{k−1}, p_k).
    Balance of its second moment, with Q uniform on 0 … n_k − 1 while it is below n_k, gives
    E Q = (n_k − 1)/2 + n_k v/2 + (1 − p_k) v/(2(1 − v)), v = p_k n_{k−1}/n_k.
    Infinite where drift or the chain fails.
    """
    n = np.asarray(thresholds, dtype=float)
    load, filled = segments.load(n), segments.survivals / ratios(n)
    with np.errstate(divide="ignore", invalid="ignore"):
        outside = (n[..., 0] - 1) / 2 + load / (2 * (1 - load))
        queues = (n[..., 1:] - 1 + n[..., 1:] * filled) / 2
        queues = queues + (1 - segments.survivals) * filled / (2 * (1 - filled))
    requests = outside + n @ (segments.mean_stages - 1) + queues.sum(axis=-1)
    latency_s = requests / segments.rates_per_s[0] + segments.iteration_time_s(n)
    return np.where((load < 1) & chain_holds(n, segments), latency_s, np.inf)


def mean_ttft_s(thresholds: ArrayLike, segments: Segments) -> Floats:
    """Mean time to the first output token of literal Nested WAIT in seconds; shape (...).

    The delay of `mean_latency_s` until the stage that emits it: collecting n_1 arrivals, where the
    paper's convention has the first token behind stage 1 one more collection, the iteration, and
    queueing. Segment 1 emits it, whose stages wait for nobody else. Infinite where drift or the
    chain fails.
    """
    n = np.asarray(thresholds, dtype=float)
    load, first = segments.load(n), n[..., 0]
    with np.errstate(divide="ignore"):
        requests = (first - 1) / 2 + load / (2 * (1 - load)) + segments.first_output * first
    ttft_s = requests / segments.rates_per_s[0] + segments.iteration_time_s(n)
    return np.where((load < 1) & chain_holds(n, segments), ttft_s, np.inf)
