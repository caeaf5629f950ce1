"""Parts of the chains of iteration times (THEORY 9.3, 9.4): nodes, laws on a lattice, balance."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft, next_fast_len, rfft

from fluid.steady.latency.kernels import Costs, Nodes
from fluid.steady.latency.load import Load
from fluid.steady.latency.slow import Slopes

Floats = NDArray[np.float64]

_CELLS = 8192
_LEAST_SLOPE_S = 1e-9
_MOST_SLACK = 3.0

HERMITE, HERMITE_WEIGHTS = np.polynomial.hermite_e.hermegauss(7)
HERMITE_WEIGHTS = HERMITE_WEIGHTS / HERMITE_WEIGHTS.sum()
"""Gauss's rule for a normal law."""


def costs_of(load: Load) -> Costs:
    """τ as the kernels read it."""
    tau = load.tau
    return Costs(
        load.table_s,
        tau.last_slope_s,
        tau.overhead_s,
        tau.per_decode_request_s,
        tau.per_kv_token_s,
        tau.per_prefill_token_s,
    )


def spaced_nodes(low: float, high: float, count: int, bend: float) -> Nodes:
    """Nodes from low to high whose distances grow by e^bend in all."""
    at = low + (high - low) * np.expm1(bend * np.linspace(0, 1, count)) / np.expm1(bend)
    per_unit = _CELLS / (high - low)
    middle = low + (np.arange(_CELLS + 1) + 0.5) / per_unit
    interval = np.clip(np.searchsorted(at, middle) - 1, 0, count - 2)
    return Nodes(at, interval.astype(np.int32), per_unit)


class Unresolved(ArithmeticError):
    """There are no laws of what arrives, neither of a chain nor of those who wait for it."""

    def __init__(self) -> None:
        super().__init__("its times and requests are too many decades apart")


@dataclass(frozen=True)
class Lattice:
    """Compound Poisson laws of what arrives, on the points 0, h, 2h, ….

    Attributes:
        jumps: What one request of each class brings, shape (m,).
        rates_per_s: λ_j, shape (m,).
        step: h.
        points: Number of points kept; the transform is twice as long, against folding.
    """

    jumps: Floats
    rates_per_s: Floats
    step: float
    points: int

    @property
    def values(self) -> Floats:
        """0, h, 2h, …"""
        return np.asarray(self.step * np.arange(self.points), dtype=float)

    @property
    def size(self) -> int:
        """Length of the transforms."""
        return int(next_fast_len(2 * self.points, real=True))

    def exponent(self, size: int | None = None) -> NDArray[np.complex128]:
        """Σ λ_j (z^jump − 1); its exponential, times a time, is the transform of the law."""
        ones = np.ones(len(self.jumps))
        return self._jump_wave(ones, size or self.size) - float(self.rates_per_s.sum())

    def _jump_wave(self, worth: Floats, size: int) -> NDArray[np.complex128]:
        """Transform of Σ λ_j worth_j at the jumps, each split between its two neighbours."""
        series = np.zeros(size)
        position = self.jumps / self.step
        low = np.floor(position + 1e-9).astype(np.int64)
        share = np.maximum(position - low, 0.0)
        mass = self.rates_per_s * worth
        np.add.at(series, np.minimum(low, size - 1), mass * (1 - share))
        np.add.at(series, np.minimum(low + 1, size - 1), mass * share)
        return np.asarray(rfft(series))

    def laws(self, seconds: Floats) -> Floats:
        """The law of what arrives in each of these times, shape (times, points).

        Raises:
            Unresolved: In one of them more arrives than there are points for.
        """
        exponent = self.exponent()
        law = irfft(np.exp(seconds[:, None] * exponent), self.size)[:, : self.points]
        law = np.maximum(law, 0.0)
        total = law.sum(axis=1, keepdims=True)
        if not (total > 0).all():
            raise Unresolved()
        return np.asarray(law / total)

    def given_value(self, worths: Floats, mean_s: float, least_s: float, sd_s: float) -> Floats:
        """E[Σ worth of those who came | the value], for a typical time, shape (k, points).

        The time is `least_s` plus a gamma law with this mean and deviation (Mecke's formula).

        Args:
            worths: Worth of one request of each class, shape (k, m).
        """
        exponent = self.exponent()
        above = max(mean_s - least_s, 1e-12)
        shape, scale = (above / sd_s) ** 2, sd_s**2 / above
        law_wave = np.exp(least_s * exponent) * (1 - scale * exponent) ** (-shape)
        biased = law_wave * (least_s + shape * scale / (1 - scale * exponent))
        law = irfft(law_wave, self.size)
        seen = law > 1e-7 * law.max()
        points = np.arange(self.size)
        found = []
        for worth in worths:
            flow = irfft(biased * self._jump_wave(worth, self.size), self.size)
            ratio = np.maximum(flow[seen] / law[seen], 0.0)
            ratio[0] = 0.0
            found.append(self._extended(points, seen, ratio, worth))
        return np.array(found)

    def _extended(
        self, points: NDArray[np.int64], seen: Floats, ratio: Floats, worth: Floats
    ) -> Floats:
        """Between the points seen a straight line, beyond them the mean worth of a unit."""
        values = np.interp(points, points[seen.astype(bool)], ratio)[: self.points]
        brought = float(self.rates_per_s @ self.jumps)
        last = int(points[seen.astype(bool)][-1])
        if last < self.points - 1 and brought > 0:
            per_step = float(self.rates_per_s @ worth) / brought * self.step
            beyond = np.arange(last + 1, self.points)
            values[last + 1 :] = values[last] + per_step * (beyond - last)
        return values


def regressed(load: Load, moments: Floats) -> Slopes:
    """Slopes of f in prompt tokens and decodes from the sums of `kernels.add_moments`."""
    if load.tau.is_affine:
        return Slopes(load.tau.last_slope_s, load.tau.last_slope_s)
    p, b, f, pp, bb, pb, pf, bf, ff = moments
    square = np.array([[pp - p * p, pb - p * b], [pb - p * b, bb - b * b]])
    right = np.array([pf - p * f, bf - b * f])
    spread = np.maximum(np.diag(square), 1e-12)
    if spread[1] < 1e-9 * max(b * b, 1e-12):
        found = np.full(2, right[0] / spread[0])
    elif spread[0] < 1e-9 * max(p * p, 1e-12):
        found = np.full(2, right[1] / spread[1])
    else:
        found = np.linalg.solve(square + 1e-7 * np.diag(spread), right)
    token_s, decode_s = np.maximum(found, _LEAST_SLOPE_S)
    noise = ff - f * f - token_s * right[0] - decode_s * right[1]
    return Slopes(float(token_s), float(decode_s), max(float(noise), 0.0))


def same_mean(
    mean_of: Callable[[float], float],
    guess: float,
    slope: float,
    most: int,
    tolerance: float,
    least: float,
) -> tuple[float, int, float]:
    """g = mean_of(g) by secants that stay in the bracket, the number of calls, and the slope.

    Args:
        slope: A guess at the derivative of `mean_of`; far below 0 where decoders remember.
        tolerance: Of what lies above `least`, since at a low load nearly all of g is `least`.
        least: What g cannot fall below.
    """
    low, high = least, math.inf
    before: tuple[float, float] | None = None
    found = guess
    for call in range(1, most + 1):
        found = mean_of(guess)
        gap = found - guess
        allowed = tolerance * (max(guess, found) - least) * min(1 - slope, _MOST_SLACK)
        if abs(gap) <= allowed + 1e-15:
            return found, call, slope
        low, high = (max(low, guess), high) if gap > 0 else (low, min(high, guess))
        if before is not None and guess != before[0]:
            slope = min((found - before[1]) / (guess - before[0]), 0.985)
        before = (guess, found)
        above = guess - least
        proposed = min(max(guess + gap / (1 - slope), least + 0.3 * above), 1.7 * guess)
        if not low < proposed < high:
            proposed = (low + high) / 2 if math.isfinite(high) else proposed
        guess = proposed
    return found, most + 1, slope
