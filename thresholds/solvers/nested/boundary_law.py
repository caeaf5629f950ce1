"""The exact law of one boundary queue of Nested WAIT (THEORY 4.2), where 4.5 bounds its tail.

Before each run of segment k − 1, the queue of boundary k obeys

    Q ← Q − n_k·1[Q ≥ n_k] + Binomial(n_{k−1}, p_k),

as a run of segment k − 1 passes on those of its n_{k−1} oldest requests that are longer than its
cut, and nobody looks at lengths before. On 0 … K the chain is banded: a step goes at most n_k down
and n_{k−1} up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from math import ceil, log

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.lapack import dgbtrf, dgbtrs
from scipy.special import gammaln, xlog1py, xlogy

from thresholds.solvers.nested.requirement import boundary_exponent

Floats = NDArray[np.float64]

TAIL = 1e-18
"""A law is cut off at a K with P(Q > K) of at most this."""

_NEGLIGIBLE = 1e-30
"""Numbers of survivors less probable than this count as an overflow."""

_CLOSE = 0.01
"""A queue that starts empty is followed until its law is at most 1 + this times the stationary."""

_MOST_STEPS = 20_000


@dataclass(frozen=True)
class Boundary:
    """What the chain of boundary k needs.

    Attributes:
        before: n_{k−1}, whole requests.
        threshold: n_k, whole requests, with p_k < n_k/n_{k−1} < 1.
        survival: p_k.
    """

    before: int
    threshold: int
    survival: float

    @property
    def exponent(self) -> float:
        """θ_k of THEORY 4.5."""
        return float(boundary_exponent(self.threshold / self.before, self.survival))

    @cached_property
    def survivors(self) -> tuple[int, Floats]:
        """The binomial law, and the number of survivors at which it begins."""
        counts = np.arange(self.before + 1)
        logs = gammaln(self.before + 1) - gammaln(counts + 1) - gammaln(self.before - counts + 1)
        logs = logs + xlogy(counts, self.survival) + xlog1py(self.before - counts, -self.survival)
        pmf = np.exp(logs)
        kept = np.flatnonzero(pmf > _NEGLIGIBLE)
        return int(kept[0]), pmf[kept[0] : kept[-1] + 1]

    def reach(self, states: int) -> tuple[int, int]:
        """How far down and up a step goes in a chain on so many states."""
        least, pmf = self.survivors
        down = min(max(self.threshold - least, 0), states - 1)
        return down, min(least + len(pmf) - 1, states - 1)

    def work(self, states: int) -> float:
        """Multiplications, and numbers kept, that the chain on so many states takes, about."""
        down, up = self.reach(states)
        return float(states) * max(down, 1) * (down + up + 1)

    def largest(self, tail: float) -> int:
        """K with P(Q > K) ≤ `tail` before every run, from an empty queue and in the long run.

        Q ≤ 2n_k − 1 + W by induction, W ← max(W + Binomial − n_k, 0), and P(W ≥ y) ≤ e^{−θy}.
        """
        return 2 * self.threshold + ceil(log(1 / tail) / self.exponent)


@dataclass(frozen=True)
class Steps:
    """One step of a chain on 0 … states − 1, in diagonals; what leaves these states is lost.

    Attributes:
        lower, upper: Diagonals below and above the main one.
        bands: bands[upper + i − j, j] is the probability of a step from i to j.
    """

    lower: int
    upper: int
    bands: Floats

    @classmethod
    def of(cls, boundary: Boundary, states: int) -> Steps:
        """The step of a boundary."""
        least, pmf = boundary.survivors
        lower, upper = boundary.reach(states)
        bands = np.zeros((lower + upper + 1, states))
        rows = np.arange(states)
        rest = rows - boundary.threshold * (rows >= boundary.threshold)
        for count, probability in enumerate(pmf, start=least):
            inside = rest + count < states
            i, j = rows[inside], rest[inside] + count
            bands[upper + i - j, j] = probability
        return cls(lower, upper, bands)

    @property
    def states(self) -> int:
        """How many."""
        return int(self.bands.shape[1])

    def expected(self, values: Floats) -> Floats:
        """Σ_j P(i, j)·values_j for every i."""
        found = np.zeros(self.states)
        for offset in range(-self.lower, self.upper + 1):
            i, j = self._places(offset)
            found[i] += self.bands[self.upper - offset, j] * values[j]
        return found

    def without(self, state: int | None = None) -> Floats:
        """1 − P in the same form; row `state` is that of the identity."""
        found = -self.bands
        found[self.upper] += 1
        if state is not None:
            j = np.arange(max(state - self.lower, 0), min(state + self.upper, self.states - 1) + 1)
            found[self.upper + state - j, j] = 0
            found[self.upper, state] = 1
        return found

    def solver(self, state: int | None = None) -> Callable[[Floats], Floats]:
        """Solves (1 − P)x = right, row `state` replaced by that of the identity."""
        room = np.zeros((self.lower, self.states))  # what the elimination fills in
        factors, pivots, _ = dgbtrf(np.vstack([room, self.without(state)]), self.lower, self.upper)

        def solve(right: Floats) -> Floats:
            return np.asarray(dgbtrs(factors, self.lower, self.upper, right, pivots)[0])

        return solve

    def thinned(self, share: float) -> Steps:
        """The chain that is lost with this probability besides, in each step."""
        return Steps(self.lower, self.upper, (1 - share) * self.bands)

    def transposed(self) -> Steps:
        """The same matrix, transposed."""
        bands = np.zeros_like(self.bands)
        for offset in range(-self.lower, self.upper + 1):
            i, j = self._places(offset)
            bands[self.lower + offset, i] = self.bands[self.upper - offset, j]
        return Steps(self.upper, self.lower, bands)

    def _places(self, offset: int) -> tuple[slice, slice]:
        """Rows and columns of a diagonal."""
        last = self.states - abs(offset)
        up, down = max(offset, 0), max(-offset, 0)
        return slice(down, down + last), slice(up, up + last)


@dataclass(frozen=True)
class StationaryLaw:
    """The long-run law of a boundary queue before a run.

    Attributes:
        pmf: Of 0 … K.
        error: Bound on Σ |pmf − truth| over all queues, those above K too; rounding apart.
    """

    pmf: Floats
    error: float


def stationary_law(boundary: Boundary, tail: float = TAIL) -> StationaryLaw:
    """The stationary law on 0 … K by banded solves; a step beyond K leads to K.

    Watched on 0 … K only, the true chain has the true law there as its own, and differs from the
    chain that is solved in the steps that leave 0 … K, of probability ε/(1 − ε) at most with
    ε = P(Q > K) ≤ `tail`. By Schweitzer's identity the two laws then differ by at most
    4ε/(1 − ε)·max_q E_q[time to s] for any state s; the times are a second solve.
    """
    steps = Steps.of(boundary, boundary.largest(tail) + 1)
    lost = 1 - steps.expected(np.ones(steps.states))
    i = np.arange(max(steps.states - 1 - steps.upper, 0), steps.states)
    steps.bands[steps.upper + i - (steps.states - 1), -1] += np.maximum(lost[i], 0)
    likely = boundary.threshold - 1
    there = np.zeros(steps.states)
    there[likely] = 1.0
    pmf = np.maximum(steps.transposed().solver(likely)(there), 0)
    times = steps.solver(likely)(1 - there)
    error = 4 * tail / (1 - tail) * float(times.max()) + 2 * tail
    return StationaryLaw(pmf / pmf.sum(), error)


@dataclass(frozen=True)
class Tails:
    """Bounds on P(Q > q) of a queue that starts empty, which hold from some run on.

    Attributes:
        runs: Numbers of runs made, ascending from 0, shape (s,).
        bounds: Before every run that follows so many or more, of q = 0 … K, shape (s, K + 1).
    """

    runs: NDArray[np.int64]
    bounds: Floats

    def after(self, runs: int) -> Floats:
        """The bound where at least so many runs have been made."""
        return np.asarray(self.bounds[np.searchsorted(self.runs, runs, side="right") - 1])


def tails_from_empty(boundary: Boundary) -> Tails:
    """Bounds on the tails of a queue that starts empty.

    The law μ_j after j runs is followed from 0 until μ_j ≤ (1 + η)π at every queue; from there on
    it stays so, as π is invariant. The bound is the largest tail on the way and behind it, looked
    up for j = 0, 1, 2, 4, 8 and so on.

    Raises:
        ArithmeticError: This is not reached in a reasonable number of runs.
    """
    stationary = stationary_law(boundary).pmf
    limit = (1 + _CLOSE) * stationary
    states, n = len(stationary), boundary.threshold
    least, pmf = boundary.survivors
    law = np.zeros(states)
    law[0] = 1.0
    runs, highest = [0], [_tail(law)]
    for run in range(1, _MOST_STEPS + 1):
        rest = law.copy()
        rest[n:] = 0
        rest[: states - n] += law[n:]
        law = np.append(np.zeros(least), np.convolve(rest, pmf))[:states]
        if run >= 2 * runs[-1]:
            runs.append(run)
            highest.append(_tail(law))
        highest[-1] = np.maximum(highest[-1], _tail(law))
        if (law <= limit + TAIL).all():
            following = [*highest, _tail(limit)]
            bounds = np.maximum.accumulate(following[::-1])[::-1]
            return Tails(np.array([*runs, run]), np.minimum(bounds, 1.0))
    raise ArithmeticError("the queue forgets its start too slowly")


def _tail(pmf: Floats) -> Floats:
    return np.append(np.cumsum(pmf[::-1])[::-1][1:], 0.0)
