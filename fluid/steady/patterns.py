"""Periodic schedules of whole requests: who is admitted in which iteration, over and over.

Every resident advances in every iteration. Where the iteration time is affine that loses nothing
(THEORY 2.3): a request that pauses, or waits between two stages, may as well start later, which
holds less memory at every moment and leaves the number of iterations as it is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from fluid.server import Server
from fluid.stages import Stages, read_only

Floats = NDArray[np.float64]
Whole = NDArray[np.int64]

_STEPS = 300
"""Resolution of the length of a period, 1/so much of it."""

_PHASES = 32
"""Offsets of a class against the others that are tried."""

_ROUNDS = 3
"""How often every class looks for its best offset."""

_FEW = 30_000
"""Requests times iterations of a period up to which each request looks for its own offset."""


@dataclass(frozen=True, eq=False)
class Pattern:
    """What is admitted in each iteration of a period.

    Attributes:
        admitted: Requests of each class by iteration, shape (m, P).
        kv_tokens: KV held in each iteration by what this admits for ever, shape (P,).
        seconds: Length of one period.
    """

    admitted: Whole
    kv_tokens: Whole
    seconds: float

    @property
    def iterations(self) -> int:
        """P."""
        return int(self.admitted.shape[1])

    @property
    def counts(self) -> Whole:
        """Requests of each class per period, shape (m,)."""
        return np.asarray(self.admitted.sum(axis=1))


@dataclass(frozen=True, eq=False)
class Packer:
    """Builds patterns for the classes of a workload on a server.

    Attributes:
        stages: Stages of each class, m entries.
    """

    server: Server
    stages: tuple[Stages, ...]

    def pattern(self, counts: Sequence[int], iterations: int) -> Pattern | None:
        """Every class spread evenly over the period, its offset chosen to level the memory.

        None where that exceeds the memory.

        Args:
            counts: Requests of each class per period, not all 0.
        """
        classes = [k for k, count in enumerate(counts) if count]
        spread = np.array([_evenly(counts[k], iterations) for k in classes])
        spacings = [math.ceil(iterations / counts[k]) for k in classes]
        found = self._levelled(classes, spread, spacings)
        if found is None and sum(counts) > 2 and sum(counts) * iterations <= _FEW:
            one_each = [k for k in classes for _ in range(counts[k])]
            starts = [np.repeat(np.arange(iterations), row) for row in spread]
            each = np.eye(iterations, dtype=np.int64)[np.concatenate(starts)]
            found = self._levelled(one_each, each, [iterations] * len(each))
        return found

    def _levelled(
        self, classes: Sequence[int], spread: Whole, spacings: Sequence[int]
    ) -> Pattern | None:
        """Groups of requests, shifted against each other until they fit; None where they do not.

        Args:
            classes: Class of each group.
            spread: Admissions of each group by iteration, shape (groups, P).
            spacings: Shifts of each group that are different.
        """
        capacity = self.server.usable_kv_tokens
        held = np.array(
            [
                self._round(row, self.stages[k].held_kv_tokens)
                for k, row in zip(classes, spread, strict=True)
            ]
        )
        total = held.sum(axis=0)
        if total.mean() > capacity:
            return None
        largest_first = np.argsort(-held.max(axis=1), kind="stable").tolist()
        for _ in range(_ROUNDS):
            for k in largest_first:
                if total.max() <= capacity:
                    break
                others = total - held[k]
                shift = _best_shift(others - capacity, held[k], spacings[k])
                held[k], spread[k] = np.roll(held[k], shift), np.roll(spread[k], shift)
                total = others + held[k]
        if total.max() > capacity:
            return None
        admitted = np.zeros((len(self.stages), spread.shape[1]), dtype=np.int64)
        np.add.at(admitted, list(classes), spread)
        return Pattern(read_only(admitted), read_only(total), self._seconds(admitted))

    def tightest(self, counts: Sequence[int]) -> Pattern:
        """The pattern of these requests per period with the fewest iterations that was found.

        Each request alone, one after the other, always fits.
        """
        sums = np.array([one.memory_sum for one in self.stages])
        needed = math.ceil(float(sums @ counts) / self.server.usable_kv_tokens - 1e-9)
        low, high = max(needed, 1) - 1, max(needed, 1)
        most = int(np.dot(counts, [one.count for one in self.stages]))
        step = max(1, high // _STEPS)
        while (found := self.pattern(counts, high)) is None and high < most:
            low, high, step = high, min(high + step, most), 2 * step
        if found is None:
            found = self._one_by_one(counts)
        while high - low > max(1, high // _STEPS):
            middle = (low + high) // 2
            better = self.pattern(counts, middle)
            low, high, found = (middle, high, found) if better is None else (low, middle, better)
        return found

    def _one_by_one(self, counts: Sequence[int]) -> Pattern:
        lengths = [one.count for one, n in zip(self.stages, counts, strict=True) for _ in range(n)]
        kinds = [k for k, n in enumerate(counts) for _ in range(n)]
        admitted = np.zeros((len(self.stages), sum(lengths)), dtype=np.int64)
        admitted[kinds, np.cumsum([0, *lengths[:-1]])] = 1
        held = [
            self._round(row, one.held_kv_tokens)
            for row, one in zip(admitted, self.stages, strict=True)
        ]
        total = np.sum(held, axis=0)
        return Pattern(read_only(admitted), read_only(total), self._seconds(admitted))

    def _seconds(self, admitted: Whole) -> float:
        """Length of a period: the sum of its iterations."""
        prompts = np.array([one.prefill_tokens for one in self.stages])
        decoding, read = (
            np.sum(
                [
                    self._round(row, np.where(one.decodes, per_stage(one), 0))
                    for row, one in zip(admitted, self.stages, strict=True)
                ],
                axis=0,
            )
            for per_stage in (lambda one: 1, lambda one: one.kv_tokens)
        )
        tau = self.server.iteration_time
        prefill = prompts @ admitted
        seconds = tau(
            prefill + decoding,
            kv_tokens=read,
            prefill_tokens=prefill,
            decode_requests=decoding,
            prefill_tokens_sq=prompts**2 @ admitted,
        )
        # An iteration that happens to compute no token is skipped by an engine, and costs here.
        return float(np.maximum(seconds, tau.overhead_s).sum())

    def _round(self, admitted: Whole, per_stage: NDArray[np.int64]) -> Whole:
        """Sum over all requests in service of what each stage counts, on the circle; shape (P,)."""
        iterations = len(admitted)
        folded = np.bincount(
            np.arange(len(per_stage)) % iterations, weights=per_stage, minlength=iterations
        )
        spectrum = np.fft.rfft(admitted) * np.fft.rfft(folded)
        return np.asarray(np.rint(np.fft.irfft(spectrum, iterations)), dtype=np.int64)


def _evenly(count: int, iterations: int) -> Whole:
    """Admissions of `count` requests, as even as whole iterations allow, shape (P,)."""
    at = np.arange(count) * iterations // max(count, 1)
    return np.bincount(at, minlength=iterations).astype(np.int64)


def _best_shift(excess: Whole, own: Whole, spacing: int) -> int:
    """The shift of `own`, below its spacing, that exceeds the memory least, on top of `excess`."""
    shifts = np.unique(np.linspace(0, spacing - 1, min(spacing, _PHASES)).astype(int))
    iterations = len(own)
    rolled = sliding_window_view(np.concatenate([own, own]), iterations)[iterations - shifts]
    return int(shifts[np.maximum(excess + rolled, 0).sum(axis=1).argmin()])
