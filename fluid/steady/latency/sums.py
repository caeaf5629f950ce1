"""Laws of TPOT and latency: sums of successive iteration times (THEORY 9.5).

Mean and variance come from the linear theory, which remembers for as long as requests decode; the
shape comes from the chain, whose law of N successive iterations is found exactly for N up to
`_EXACT` by transforms, and is taken for a gamma law beyond.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft, rfft
from scipy.special import gammainc

from fluid.steady.latency.solved import Cdfs, Solved
from fluid.steady.latency.walks import sum_waves

Floats = NDArray[np.float64]
Waves = NDArray[np.complex128]

_EXACT = 64
_OCTAVES = (8, 24, _EXACT)
_WAVES = 256
_COARSE = 3
"""Every so many nodes of the chain make one of the chain that sums are taken in."""

_LEAST_PART = 0.8
"""A gamma law begins at this share of the iterations' least time."""


@dataclass(frozen=True)
class Spread:
    """Mean and variance of a sum, and the least that it can be."""

    mean_s: float
    variance_s2: float
    least_s: float


@dataclass(frozen=True)
class ClassLaws:
    """Distribution functions of one class, each on points of its own; TPOT may not exist."""

    ttft: Cdfs
    tpot: Cdfs | None
    latency: Cdfs


def class_laws(solved: Solved) -> list[ClassLaws]:
    """TTFT, TPOT and latency of every class."""
    first, token = solved.first_stage, solved.first_token
    sums = _exact_sums(solved)
    variances = first.variance_s2()
    found = []
    for j in range(len(solved.load.stages)):
        own = Cdfs(first.points_s, first.below[j : j + 1])
        emits = Cdfs(token.points_s, token.below[j : j + 1]) if solved.load.first_output[j] else own
        found.append(_laws_of(solved, j, own, emits, float(variances[j]), sums))
    return found


def _laws_of(
    solved: Solved, j: int, first: Cdfs, ttft: Cdfs, variance_s2: float, sums: dict[int, Sums]
) -> ClassLaws:
    before, later = int(solved.load.first_output[j]), int(solved.load.later[j])
    _, rest_s, latency_s = map(float, solved.stage_s[j])
    latency = ttft
    if later > before:
        spread = _with_sum(solved, j, later, variance_s2, latency_s)
        latency = _law(spread, sums.get(later), j, first)
    gaps = later - before
    tpot = None
    if gaps > 0:
        spread = Spread(rest_s, _sum_variance(solved, gaps), _least_s(solved, gaps))
        total = _law(spread, sums.get(gaps), j, None)
        points = total.points_s / gaps
        # A mean of iterations, none longer than the longest.
        tpot = Cdfs(points, np.where(points >= solved.longest_s, 1.0, total.below))
    return ClassLaws(ttft, tpot, latency)


def _least_s(solved: Solved, count: int) -> float:
    return _LEAST_PART * float(solved.load.table_s[1]) * count


def _with_sum(solved: Solved, j: int, count: int, first_s2: float, mean_s: float) -> Spread:
    """Time to the end of prefill plus `count` iterations, which depend on each other."""
    rest = _sum_variance(solved, count)
    gamma = solved.slow.covariance
    upto = np.cumsum(gamma[: count + 2])
    after = float(upto[min(count, len(upto) - 1)] - upto[0])
    shifted = float(upto[min(count + 1, len(upto) - 1)] - upto[min(1, len(upto) - 1)])
    both = min(0.5 * shifted + after, math.sqrt(first_s2 * rest))
    return Spread(mean_s, first_s2 + rest + 2 * both, _least_s(solved, count + 1))


def _sum_variance(solved: Solved, count: int) -> float:
    """Variance of `count` iterations after the end of a prefill.

    Σ_{|s|<N} (N − |s|) γ_s, corrected for the arrival's preference of long iterations by the
    chain's third moment.
    """
    gamma = solved.slow.covariance
    most = min(count, len(gamma) - 1)
    lags = np.arange(1, most)
    plain = max(float(most * gamma[0] + 2 * ((most - lags) * gamma[1:most]).sum()), 0.0)
    mean_s, overhead_s = solved.mean_s, solved.load.tau.overhead_s
    seen = float(gamma[2 : min(count + 2, len(gamma))].sum())
    third = float(solved.law @ (solved.seconds - mean_s) ** 3)
    lean = third * (mean_s - overhead_s) / max(2 * solved.variance_s2**2, 1e-300)
    lean = min(max(lean, -1.0), 1.5)
    above_s = max(count * (mean_s - overhead_s), 1e-9)
    biased = plain * (1 + 2 * lean * seen / (above_s * mean_s)) - (seen / mean_s) ** 2
    return max(biased, 0.1 * plain)


@dataclass(frozen=True)
class Sums:
    """Transforms of N iterations after the end of prefill at ω_k = 2πk/span_s, shape (m, F)."""

    span_s: float
    waves: Waves

    def law(self, j: int, first: Cdfs | None) -> tuple[Floats, Floats]:
        """Points and masses of the sum, with an independent first stage before it."""
        wave = self.waves[j]
        if first is not None:
            wave = wave * _wave_of(first, self.span_s)
        # A narrow normal law on top, against the ringing of what is cut off.
        wave = wave * np.exp(-8.0 * (np.arange(len(wave)) / len(wave)) ** 2)
        size = 2 * (len(wave) - 1)
        mass = np.maximum(irfft(wave, size), 0.0)
        return self.span_s / size * np.arange(float(size)), mass / mass.sum()


def _wave_of(law: Cdfs, span_s: float) -> Waves:
    """Σ mass·e^{−iωx} of a law at the waves of a sum."""
    size = 2 * _WAVES
    mass = np.diff(law.below[0], prepend=0.0)
    place = law.points_s / span_s * size
    inside = place < size - 1
    low = place[inside].astype(np.int64)
    share = place[inside] - low
    series = np.bincount(low, mass[inside] * (1 - share), size + 1)
    series += np.bincount(low + 1, mass[inside] * share, size + 1)
    return np.asarray(rfft(series[:size]))


def _exact_sums(solved: Solved) -> dict[int, Sums]:
    """Sums by number of iterations, for all numbers that some class needs, up to `_EXACT`."""
    later, before = solved.load.later, solved.load.first_output
    needed = {int(n) for n in (*later, *(later - before)) if 0 < n <= _EXACT}
    found: dict[int, Sums] = {}
    low = 0
    seconds, step, merge = _coarse(solved)
    starts = solved.starts @ merge
    for high in _OCTAVES:
        counts = sorted(n for n in needed if low < n <= high)
        low = high
        if not counts:
            continue
        span_s = _span_s(solved, counts[-1])
        turn = -2 * np.pi / span_s * np.outer(seconds, np.arange(_WAVES + 1))
        real, imag = sum_waves(step, starts, np.cos(turn), np.sin(turn), np.array(counts))
        for index, count in enumerate(counts):
            found[count] = Sums(span_s, real[index] + 1j * imag[index])
    return found


def _span_s(solved: Solved, count: int) -> float:
    """What a sum with its first stage hardly exceeds."""
    first = solved.first_stage
    rest = _sum_variance(solved, count)
    chain = count * solved.variance_s2
    spread_s = math.sqrt(float(first.variance_s2().max()) + max(rest, chain))
    mean_s = float(solved.first_stage_s.max()) + count * solved.mean_s
    return mean_s * 1.2 + 12 * spread_s


def _coarse(solved: Solved) -> tuple[Floats, Floats, Floats]:
    """Fewer nodes, their Q, and the matrix that merges a law on all nodes into them."""
    kept = np.unique(np.append(np.arange(0, len(solved.seconds), _COARSE), len(solved.seconds) - 1))
    merge = np.zeros((len(solved.seconds), len(kept)))
    high = np.clip(np.searchsorted(kept, np.arange(len(solved.seconds))), 1, len(kept) - 1)
    at = solved.seconds
    width = np.maximum(at[kept[high]] - at[kept[high - 1]], 1e-300)
    share = np.clip((at - at[kept[high - 1]]) / width, 0.0, 1.0)
    rows = np.arange(len(at))
    merge[rows, high] = share
    merge[rows, high - 1] = 1 - share
    return at[kept], solved.step[kept] @ merge, merge


def _law(spread: Spread, sums: Sums | None, j: int, first: Cdfs | None) -> Cdfs:
    """A law with this mean and variance, in the shape of the chain's own or of a gamma law."""
    if spread.variance_s2 <= 1e-12 * spread.mean_s**2:
        points = spread.mean_s * np.array([0.0, 1.0, 2.0])
        return Cdfs(points, np.array([[0.0, 1.0, 1.0]]))
    if sums is None:
        return _gamma(spread)
    points, mass = sums.law(j, first)
    mean_s = float(points @ mass)
    sd_s = math.sqrt(max(float((points - mean_s) ** 2 @ mass), 1e-300))
    scale = math.sqrt(spread.variance_s2) / sd_s
    moved = spread.mean_s + (points - mean_s) * scale
    common = np.linspace(0.0, max(moved[-1], 0.0), 2 * len(points))
    below = np.interp(common, moved, np.cumsum(mass) - mass / 2, left=0.0, right=1.0)
    return Cdfs(common, below[None])


def _gamma(spread: Spread) -> Cdfs:
    """A gamma law above the least time."""
    above_s = max(spread.mean_s - spread.least_s, 0.02 * spread.mean_s)
    points = np.linspace(0.0, spread.mean_s + 12 * math.sqrt(spread.variance_s2), 1000)
    rate = above_s / spread.variance_s2
    value = np.maximum(points - (spread.mean_s - above_s), 0.0) * rate
    below = np.asarray(gammainc(min(above_s * rate, 1e8), value), dtype=float)
    return Cdfs(points, below[None])


def pooled(laws: list[Cdfs], shares: Floats) -> Cdfs:
    """The mixture of laws."""
    points = np.unique(np.concatenate([one.points_s[:: max(1, len(laws) // 4)] for one in laws]))
    below = np.zeros(len(points))
    for share, one in zip(shares / shares.sum(), laws, strict=True):
        below += share * np.interp(points, one.points_s, one.below[0], right=1.0)
    return Cdfs(points, below[None])


def quantiles(law: Cdfs, shares: tuple[float, ...]) -> tuple[float, ...]:
    """The least points at which the law reaches these shares, seconds."""
    below = np.maximum.accumulate(law.below[0])
    below = below / max(below[-1], 1e-300)
    return tuple(float(np.interp(share, below, law.points_s)) for share in shares)
