"""Least KV for Nested WAIT by the law of its boundary queues: a certificate beside Theorem 2's.

With every stage full, KV in an iteration is M(n) + Σ_{k≥2} b_k (Q_k − n_k), b_k what a request that
waits at boundary k holds and Q_k the queue before the iteration (of which n_k run and are counted
in M(n)); it is less while the pipeline fills, where a segment pauses, where requests leave inside a
segment and where prompts are shorter than the longest. KV exceeds C within [0, T] no more often
than that sum does.

Facts about the queues, from an empty start, Poisson arrivals and lengths independent of each other:

- An iteration runs segment 1, always, with n_1 arrivals, so that within [0, T] there are at most
  A(T)/n_1 of them, A(T) Poisson, and no more than 1 + T/d0. Lengths are independent of A.
- Counted in runs of segment k − 1, queue k is the chain of `boundary_law`, and these chains are
  independent: who of those that reached boundary k also outlives segment k is independent of all
  before. Segment k runs when its gates say so, which earlier chains decide. Given them, queue k
  before an iteration has the law of its chain before some run.

Two segments: the largest queue of m runs exceeds q with probability 1 − (R^m 1)(0), R the chain's
steps that stay on 0 … q. A positive h with Rh ≥ ρh (Collatz and Wielandt) gives
(R^m 1)(0) ≥ ρ^m h(0)/max h; the h taken is the leading eigenvector, for which this is all but an
equality. Three segments: both queues as one chain, where it is small enough (`joint_law`). Others:
P(Σ b_k Q_k > x) summed over the iterations, with independent queues of
which each has the largest tail that it has from the run on that it has reached by then: a bound,
which counts an overflow once for every iteration that it lasts. How many runs a segment has made
at least follows from its queue: what s runs of the segment before have passed on, less what still
waits, has been taken in by n_k at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, exp, floor, inf, log, log1p, sqrt

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import bdtr, bdtrik, pdtr

from thresholds.fields import QueueLaw
from thresholds.solvers.nested.boundary_law import TAIL, Boundary, Steps, Tails, tails_from_empty
from thresholds.solvers.nested.joint_law import TwoQueues
from thresholds.solvers.nested.segments import Segments

Floats = NDArray[np.float64]

_INVERSE_STEPS = 4
"""Inverse iterations; each gains the ratio of the two smallest rates, of order of the result."""

_RESOLVED = 1e-13
"""Rate per run at which a chain is stopped besides: smaller rates would be lost in rounding."""

_MOST_WORK = 1e8
"""Multiplications of one solve per boundary beyond which there is no law: n_k of some hundreds."""

_MOST_STATES = 1e7
"""Requests in a run, and states of a chain, beyond which not even that is asked."""

_GRID = 100_000
"""Cells of the sum of several queues in tokens, rounded up to whole cells each."""

_LEAST = 1e-9
"""Overflow probabilities of several queues below this are not known."""

_UNLIKELY = 1e-13
"""Probability with which a segment may have made fewer runs than it is taken to have made."""

_DEVIATIONS = 10.0
"""Poisson counts further from their mean than so many deviations count as an overflow."""


@dataclass(frozen=True)
class RunCounts:
    """Iterations within [0, T] as far as queues can have grown: their law, from few runs to many.

    Attributes:
        counts: Iterations after the first of which requests stand at boundary 2, ascending.
        shares: Probability of each.
    """

    counts: Floats
    shares: Floats

    @classmethod
    def within(cls, horizon_s: float, n1: int, segments: Segments) -> RunCounts:
        """Bounds from Poisson arrivals and the shortest iteration; the first σ_1 pass nobody on."""
        mean = float(segments.rates_per_s[0]) * horizon_s
        spread = _DEVIATIONS * sqrt(mean + 1) + _DEVIATIONS**2
        most = ceil((mean + spread) / n1)
        least = max(floor((mean - spread) / n1), 0)
        runs = np.arange(least, most + 1)
        up_to = pdtr(n1 * (runs + 1.0) - 1, mean)  # P(A/n_1 < runs + 1)
        up_to[-1] = 1.0
        shortest_s = segments.server.iteration_time.overhead_s
        limit = 1 + floor(horizon_s / shortest_s) if shortest_s > 0 else inf
        counts = np.maximum(np.minimum(runs, limit) - segments.stages[0], 0)
        return cls(counts, np.diff(up_to, prepend=0.0))

    @property
    def mean(self) -> float:
        """Expected number."""
        return float(self.counts @ self.shares)


def memory_law(
    thresholds: ArrayLike, segments: Segments, horizon_s: float, probability: float
) -> QueueLaw | None:
    """What the law says of whole thresholds, shape (L,), that hold p_k < n_k/n_{k−1} < 1.

    Args:
        probability: δ, of any overflow within `horizon_s` seconds, for which the least KV is found.

    Returns:
        None for one segment, which has no boundary, where the chains are too large or too slow in
        forgetting their start, and for a probability too small to be computed.
    """
    capacity = float(segments.server.usable_kv_tokens)
    one_length = bool(np.allclose(segments.mean_stages, segments.stages))
    found = queues_law(thresholds, segments, horizon_s)
    if found is None:
        return None
    whole_law = isinstance(found, OneQueue) or (
        isinstance(found, JointQueues) and segments.server.block_tokens == 1
    )
    reached = one_length and not segments.prompts_differ and whole_law
    tokens = found.least_tokens(probability)
    if tokens == inf:
        return None
    return QueueLaw(
        tokens=tokens,
        overflow_probability=found.overflow(capacity),
        is_exact=reached,
    )


def queues_law(
    thresholds: ArrayLike, segments: Segments, horizon_s: float
) -> OneQueue | JointQueues | SeveralQueues | None:
    """The law of the largest KV; None as for `memory_law`."""
    if segments.count == 1:
        return None
    n = np.asarray(thresholds, dtype=float)
    whole = n.astype(int).tolist()
    boundaries = [
        Boundary(before, after, float(p))
        for before, after, p in zip(whole, whole[1:], segments.survivals, strict=False)
    ]
    runs = RunCounts.within(horizon_s, whole[0], segments)
    held = segments.waiting_tokens
    full = float(n @ segments.memory_tokens)
    states = [one.largest(TAIL) + 1 for one in boundaries]
    if max(whole[0], *states) > _MOST_STATES:
        return None
    if sum(map(Boundary.work, boundaries, states)) > _MOST_WORK:
        return None
    if segments.count == 2:
        return OneQueue(boundaries[0], float(held[0]), full, runs)
    try:
        tails = [tails_from_empty(one) for one in boundaries]
    except ArithmeticError:
        return None
    bound = SeveralQueues.of(boundaries, tails, n, segments, runs)
    pair = TwoQueues.of(boundaries, n, segments) if segments.count == 3 else None
    return bound if pair is None else JointQueues(pair, bound)


@dataclass(frozen=True)
class OneQueue:
    """Two segments: the exact law of the longest queue.

    Attributes:
        held: KV tokens of a request that waits.
        full: M(n).
    """

    boundary: Boundary
    held: float
    full: float
    runs: RunCounts

    def overflow(self, capacity: float) -> float:
        """Probability that KV ever exceeds so many tokens."""
        spare = floor((capacity - self.full) / self.held + 1e-9)
        return self.above(self.boundary.threshold + spare) if spare >= 0 else 1.0

    def above(self, queue: int) -> float:
        """Probability that the queue ever exceeds so many requests, by the law or by 4.5's tail."""
        excess = max(queue + 2 - 2 * self.boundary.threshold, 0)
        by_tail = self.runs.mean * exp(-self.boundary.exponent * excess)
        if by_tail <= self.runs.mean * _RESOLVED:
            return by_tail
        steps = Steps.of(self.boundary, queue + 1).thinned(_RESOLVED)
        solve = steps.solver()
        h = np.ones(queue + 1)
        for _ in range(_INVERSE_STEPS):
            h = solve(h)
            h /= h.max()
        rate = float(np.max((h - steps.expected(h)) / h)) if h.min() > 0 else 1.0
        if not 0 < rate < 1:
            return min(by_tail, 1.0)
        logs = np.where(self.runs.counts > 0, log(h[0]), 0.0) + self.runs.counts * log1p(-rate)
        return min(float(-np.expm1(logs) @ self.runs.shares), by_tail, 1.0)

    def least_tokens(self, probability: float) -> float:
        """The least KV with an overflow probability of at most this."""
        theta = self.boundary.exponent
        chance = min(probability / max(self.runs.mean, 1.0), 0.5)
        queue = self.boundary.largest(chance)
        found = self.above(queue)
        while found < probability and queue > self.boundary.threshold:
            step = max(floor(log(probability / max(found, 1e-300)) / theta), 1)
            queue = max(queue - step, self.boundary.threshold)
            found = self.above(queue)
        while found > probability:
            queue += 1
            found = self.above(queue)
        return self.full + self.held * (queue - self.boundary.threshold)


@dataclass(frozen=True)
class JointQueues:
    """Three segments: the exact law of both queues, where their chain is small enough.

    Attributes:
        bound: What is known where the law drowns in rounding.
    """

    pair: TwoQueues
    bound: SeveralQueues

    def overflow(self, capacity: float) -> float:
        """Probability that KV ever exceeds so many tokens."""
        bound, runs = self.bound.overflow(capacity), self.bound.runs
        if bound < runs.mean * _RESOLVED:
            return bound
        staying = self.pair.staying(capacity, int(runs.counts[-1]))
        return min(float((1 - staying[runs.counts.astype(int)]) @ runs.shares), bound)

    def least_tokens(self, probability: float) -> float:
        """The least KV, in whole tokens, with an overflow probability of at most this."""
        most = self.bound.least_tokens(probability)
        if most == inf:
            return inf
        low, high = floor(self.bound.floor) - 1, floor(most)
        while high - low > 1:
            middle = (low + high) // 2
            if self.overflow(middle) <= probability:
                high = middle
            else:
                low = middle
        return float(high)


@dataclass(frozen=True)
class SeveralQueues:
    """Three segments or more: a bound from the law of the sum before each iteration.

    Attributes:
        floor: M(n) less what its n_k at the boundaries hold.
        cell: Tokens between two entries of `chance`.
        chance: Bound on P(Σ b_k Q_k > i·cell before any iteration).
    """

    floor: float
    cell: float
    chance: Floats
    runs: RunCounts

    @classmethod
    def of(
        cls,
        boundaries: Sequence[Boundary],
        tails: Sequence[Tails],
        n: Floats,
        segments: Segments,
        runs: RunCounts,
    ) -> SeveralQueues:
        """Sums of independent queues with these tails, in whole cells, block by block of runs."""
        held = segments.waiting_tokens
        negligible = _LEAST / (len(boundaries) * max(runs.mean, 1.0))
        largest = sum(b * one.largest(negligible) for b, one in zip(held, boundaries, strict=True))
        cell = max(1.0, float(ceil(largest / _GRID)))
        chance = np.zeros(ceil(largest / cell) + 1)
        begin, most = 1, int(runs.counts[-1])
        while begin <= most:
            made = _fewest_steps(boundaries, tails, segments.stages, begin)
            settled = all(steps >= one.runs[-1] for steps, one in zip(made, tails, strict=True))
            end = most + 1 if settled else 2 * begin
            inside = np.clip(runs.counts - (begin - 1), 0, end - begin)
            rows = [one.after(steps) for one, steps in zip(tails, made, strict=True)]
            chance += float(inside @ runs.shares) * _tail_of_sum(rows, held, cell, len(chance))
            chance += 2 * _UNLIKELY * (len(boundaries) - 1)
            begin = end
        floor = float(n @ segments.memory_tokens) - float(held @ n[1:])
        return cls(floor, cell, chance, runs)

    def overflow(self, capacity: float) -> float:
        """Bound on the probability that KV ever exceeds so many tokens."""
        place = floor((capacity - self.floor) / self.cell + 1e-9)
        if place < 0:
            return 1.0
        return float(min(self.chance[min(place, len(self.chance) - 1)], 1.0))

    def least_tokens(self, probability: float) -> float:
        """The least KV for which the bound is at most this; infinite where it is not known."""
        enough = np.flatnonzero(self.chance <= probability)
        return self.floor + self.cell * int(enough[0]) if len(enough) else inf


def _fewest_steps(
    boundaries: Sequence[Boundary], tails: Sequence[Tails], stages: Floats, steps: int
) -> list[int]:
    """Steps that each chain has made at least, where the first has made so many.

    Each entry but the first fails with probability 2·_UNLIKELY at most, if those before hold.
    """
    found = [steps]
    for boundary, one, depth in zip(boundaries[:-1], tails[:-1], stages[1:], strict=False):
        passed = _binomial_quantile(_UNLIKELY, boundary.before * found[-1], boundary.survival)
        waiting = int(np.argmax(one.after(found[-1]) <= _UNLIKELY))
        made = int(passed - waiting) // boundary.threshold
        # Those whom a run took in stand at the next boundary when it has been through its stages.
        found.append(max(made - int(depth) + 1, 0))
    return found


def _binomial_quantile(probability: float, trials: int, success: float) -> float:
    """The least number of successes that is exceeded with probability 1 − `probability` at most.

    That of `scipy.stats.binom`, whose import takes longer than a design.
    """
    if not trials:
        return 0.0
    least = float(np.ceil(bdtrik(probability, trials, success)))
    return least - 1 if least and bdtr(least - 1, trials, success) >= probability else least


def _tail_of_sum(tails: Sequence[Floats], held: Floats, cell: float, cells: int) -> Floats:
    """P(Σ b_k Q_k > i·cell) of independent queues with these tails, i = 0 … cells − 1."""
    law = np.zeros(cells)
    law[0] = 1.0
    for tokens, tail in zip(held, tails, strict=True):
        masses = -np.diff(tail, prepend=1.0)
        places = np.ceil(tokens * np.arange(len(tail)) / cell - 1e-9).astype(int)
        summed = np.zeros_like(law)
        for mass, shift in zip(masses, places, strict=True):
            if shift < cells and mass > 0:
                summed[shift:] += mass * law[: cells - shift]
        law = summed
    beyond = max(1 - float(law.sum()), 0.0)
    return np.asarray(np.append(np.cumsum(law[::-1])[::-1][1:], 0.0) + beyond)
