"""Three segments: the law of both boundary queues together, which 4.5 and its sums only bound.

Before each iteration, in which segment 1 always runs,

    segment 2 runs if Q_2 ≥ n_2, and segment 3 if Q_3 ≥ n_3 besides,
    Q_2 ← Q_2 − n_2·1[segment 2 runs] + Binomial(n_1, p_2),
    Q_3 ← Q_3 − n_3·1[segment 3 runs] + Binomial(n_2, p_3)·1[segment 2 runs]:

a chain of two numbers, as who outlives segment 2 is independent of all that has happened before.
KV is M(n) + Σ w_k (Q_k − n_k), less one token per stage for those that pause. The probability that
it never exceeds x is that of staying on the queues for which it does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from thresholds.solvers.nested.boundary_law import Boundary
from thresholds.solvers.nested.segments import Segments

Floats = NDArray[np.float64]

_MOST_STATES = 10_000
"""Pairs of queues that are followed at once: a second for a capacity."""

_TAIL = 1e-12
"""Queues that are exceeded less often than this before a run count as an overflow."""

_MOST_STEPS = 1_000
_STEADY = 1e-4
"""The chain is followed until its rate of loss is known to this share, or for so many steps."""


@dataclass(frozen=True)
class TwoQueues:
    """The chain of both boundary queues, ready to be watched.

    Attributes:
        boundaries: Of segments 2 and 3.
        kv_tokens: KV in an iteration by both queues before it, shape (K_2, K_3).
    """

    boundaries: tuple[Boundary, Boundary]
    kv_tokens: Floats

    @classmethod
    def of(
        cls, boundaries: Sequence[Boundary], thresholds: Floats, segments: Segments
    ) -> TwoQueues | None:
        """The chain of three segments; None where it is too large."""
        second, third = boundaries
        sizes = [one.largest(_TAIL) + 1 for one in boundaries]
        if sizes[0] * sizes[1] > _MOST_STATES:
            return None
        rows, columns = (
            tokens * (np.arange(size) - one.threshold)
            for tokens, size, one in zip(segments.waiting_tokens, sizes, boundaries, strict=True)
        )
        kv = float(thresholds @ segments.memory_tokens) + rows[:, None] + columns[None]
        if segments.server.block_tokens == 1:
            spared = thresholds * segments.stages
            kv[: second.threshold] -= spared[1]
            kv[: second.threshold] -= spared[2]
            kv[second.threshold :, : third.threshold] -= spared[2]
        return cls((second, third), kv)

    def staying(self, capacity: float, iterations: int) -> Floats:
        """P(KV never exceeds `capacity` in the first ν iterations), ν = 0 … iterations.

        From the step on at which the loss is steady it is continued by its largest rate (Collatz
        and Wielandt): below the truth by that little.
        """
        second, third = self.boundaries
        inside = self.kv_tokens <= capacity
        rows, columns = inside.shape
        up_second, up_third = _up(second, rows), _up(third, columns)
        taken = np.arange(columns)
        taken = np.where(taken >= third.threshold, taken - third.threshold, taken)
        found = np.zeros(iterations + 1)
        values = inside.astype(float)
        for step in range(iterations + 1):
            found[step] = values[0, 0]
            moved = up_second @ values
            following = moved.copy()
            following[second.threshold :] = (moved @ up_third.T)[: rows - second.threshold][
                :, taken
            ]
            following *= inside
            possible = values > 0
            if not possible.any():
                return found
            rates = following[possible] / values[possible]
            low, high = float(rates.min()), float(rates.max())
            values = following
            if high - low <= _STEADY * (1 - low) or step == _MOST_STEPS:
                found[step + 1 :] = values[0, 0] * low ** np.arange(iterations - step)
                return found
        return found


def _up(boundary: Boundary, size: int) -> Floats:
    """P(survivors = j − i), shape (size, size)."""
    least, pmf = boundary.survivors
    found = np.zeros((size, size))
    for count, probability in enumerate(pmf, start=least):
        rows = np.arange(max(size - count, 0))
        found[rows, rows + count] = probability
    return found
