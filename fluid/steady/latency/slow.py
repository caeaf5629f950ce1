"""The slow part: linear second-order theory with two slopes of f (THEORY 9.2).

A prompt token costs `token_s` and a decode `decode_s` on top of what is linear anyway, so that a
class-j request adds a_j(v) seconds to the v-th iteration after its first. Transforms are taken in
the iteration number at z = e^{−iω}: D and K count the decodes and the KV that one second of intake
brings, κ the seconds, and 1/(1 − z·H·κ) is the feedback G of longer iterations on themselves.
H = b/(1 − (1 − b)z) delays the entry into prefill by a queue; b = 1 where there is none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.fft import irfft, rfft

from fluid.steady.latency.kernels import cross_sums, linear_moments
from fluid.steady.latency.load import Load

Floats = NDArray[np.float64]
Waves = NDArray[np.complex128]

_LEAST = 64
LONGEST_WAVES = 1 << 15
"""Points of the transforms, at most."""

_NEGLIGIBLE = 2e-3
_LEAST_LEFT, _LEAST_LEFT_ON_STAIRS = 0.05, 1 / 3
"""Of 1 − κ, see `Slow.on_time`."""

_NEAREST = 0.9995
"""Feedback of a load that the slopes would make unstable is cut to this."""


@dataclass(frozen=True)
class Slopes:
    """f near where the chain spends its time: token_s·P + decode_s·B + a rest.

    Attributes:
        noise_s2: Variance of the rest.
    """

    token_s: float
    decode_s: float
    noise_s2: float = 0.0


@dataclass(frozen=True)
class Moments:
    """Of the decodes B and the KV K that they read, B' and K' one iteration after τ."""

    decodes_next: float
    kv_next: float
    decodes_var: float
    kv_var: float
    decodes_kv: float


TOKENS, FIXED, DECODES, KV_READ, HELD, OLD_DECODES, OLD_KV = range(7)
"""Rows of `Transforms`: prompt tokens, and seconds apart from f, by chunk; decodes and the KV that
they read; KV held, from the first chunk on; decodes and KV read from an age on, if there is one."""


@dataclass(frozen=True)
class Transforms:
    """Stages of each class as waves on n points.

    Attributes:
        wave: z, shape (n/2 + 1,).
        rows: See `TOKENS`, without the last two, shape (5, m, n/2 + 1).
        cross, total: Sums of 5 or all 7 rows over classes, see `kernels.linear_moments`.
        chunks: Iterations that a prompt takes, shape (m,).
    """

    size: int
    wave: Waves
    rows: Waves
    cross: Waves
    total: Waves
    chunks: NDArray[np.int64]


def chunk_lengths(prompt: float, budget: float | None) -> Floats:
    """Tokens of a prompt by iteration, in whole budgets; all at once without one."""
    if budget is None or prompt <= budget:
        return np.array([prompt])
    count = math.ceil(prompt / budget)
    return np.asarray(np.minimum(budget, prompt - budget * np.arange(count)))


def transforms(load: Load, size: int, budget: float | None) -> Transforms:
    """Waves of all stages, without the slow decodes."""
    m = len(load.stages)
    rows = np.zeros((OLD_DECODES, m, size))
    chunks = np.ones(m, dtype=np.int64)
    tau = load.tau
    for j, stages in enumerate(load.stages):
        if load.prompts[j] > 0:
            part = chunk_lengths(load.prompts[j], budget)
            before = np.cumsum(part) - part
            fixed = tau.per_prefill_token_s * part + tau.per_prefill_token_sq_s * part**2
            rows[TOKENS, j, : len(part)] = part
            rows[FIXED, j, : len(part)] = fixed + tau.per_prefill_context_token_s * part * before
            chunks[j] = len(part)
            rows[HELD, j, : len(part)] = np.minimum(before + part, stages.held_kv_tokens[0])
        else:
            rows[TOKENS, j, 0], rows[FIXED, j, 0] = 1.0, load.first_s[j]
            rows[HELD, j, 0] = stages.held_kv_tokens[0]
        start, end = chunks[j], chunks[j] + stages.count - 1
        rows[DECODES, j, start:end] = 1.0
        rows[KV_READ, j, start:end] = stages.kv_tokens[1:]
        rows[HELD, j, start:end] = stages.held_kv_tokens[1:]
    wave = np.exp(-2j * np.pi * np.arange(size // 2 + 1) / size)
    waves = rfft(rows)
    nothing = np.zeros((0, m, len(wave)), dtype=np.complex128)
    cross, total = cross_sums(load.rates_per_s, nothing, waves, nothing[:, :0])
    return Transforms(size, wave, waves, cross, total, chunks)


def with_old(parts: Transforms, load: Load, age: int) -> Transforms:
    """The same with the decodes that are older than an age."""
    rows = np.zeros((2, len(load.stages), parts.size))
    for j, stages in enumerate(load.stages):
        start, end = parts.chunks[j] + age, parts.chunks[j] + stages.count - 1
        rows[0, j, start:end] = 1.0
        rows[1, j, start:end] = stages.kv_tokens[1 + age :]
    cross, total = cross_sums(load.rates_per_s, parts.rows, rfft(rows), parts.cross)
    return replace(parts, cross=cross, total=np.concatenate([parts.total, total]))


@dataclass(frozen=True)
class Slow:
    """Linear theory around a mean iteration time.

    Attributes:
        mean_s: μ = E τ.
        parts: See `Transforms`.
        own: Seconds that a unit of each row of `parts` adds, shape (5 or 7,).
        lag, feedback: H and G.
        work: Σ λ_j a_j(0 …), what of a second of intake is work; prompts alone: `prompt_work`.
    """

    load: Load
    slopes: Slopes
    mean_s: float
    parts: Transforms = field(repr=False)
    own: Floats
    lag: Waves = field(repr=False)
    feedback: Waves = field(repr=False)
    work: float
    prompt_work: float

    @cached_property
    def _all(self) -> tuple[Floats, Floats]:
        return self._moments(DECODES, KV_READ)

    def _moments(self, effect: int, other: int) -> tuple[Floats, Floats]:
        spectrum, sums = linear_moments(
            self.parts.cross,
            self.parts.total,
            self.own,
            effect,
            other,
            self.mean_s,
            self.slopes.noise_s2,
            self.feedback,
            self.lag,
            self.parts.wave,
        )
        return spectrum, sums

    def _added(self, weights: Floats) -> Waves:
        """Seconds that class j adds when a unit of each row adds so many, shape (m, F)."""
        used = np.flatnonzero(weights)
        rows = self.parts.rows
        return np.asarray(sum(weights[one] * rows[one] for one in used) + np.zeros_like(rows[0]))

    @property
    def spectrum(self) -> Floats:
        """Of τ, shape (F,)."""
        return self._all[0]

    @cached_property
    def covariance(self) -> Floats:
        """γ_s of iteration times s apart, s = 0 … n/2."""
        return np.asarray(irfft(self.spectrum, self.parts.size)[: self.parts.size // 2 + 1])

    @property
    def variance_s2(self) -> float:
        """γ_0."""
        return float(self.covariance[0])

    @cached_property
    def moments(self) -> Moments:
        """Of all decodes."""
        return Moments(*map(float, self._all[1]))

    @cached_property
    def old_moments(self) -> Moments:
        """Of the slow decodes alone."""
        if len(self.own) == OLD_DECODES:
            return self.moments
        _, sums = self._moments(OLD_DECODES, OLD_KV)
        return Moments(*map(float, sums))

    @cached_property
    def kv_held_sd_tokens(self) -> float:
        """Standard deviation of the KV held."""
        _, sums = self._moments(HELD, HELD)
        return math.sqrt(max(float(sums[2]), 0.0))

    @cached_property
    def on_time(self) -> tuple[float, float]:
        """Slopes of B and K in the iteration time before, 1/s and tokens/s.

        A chain whose decoders add r s per second of that time takes its mean from the difference
        1 − κ_p − r. Decoders that remember for thousands of iterations would leave next to nothing
        of it, or less on a staircase; they are made to forget so that a share of 1 − κ is left.
        The variance of B does not change.
        """
        found, spread = self.moments, self.variance_s2
        if spread <= 0:
            return 0.0, 0.0
        decodes, kv_tokens = found.decodes_next / spread, found.kv_next / spread
        remembered = self._remembered(decodes, kv_tokens)
        least = _LEAST_LEFT if self.load.tau.is_affine else _LEAST_LEFT_ON_STAIRS
        most = max(1 - self.prompt_work - least * max(1 - self.work, 0.0), 0.0)
        share = min(1.0, most / remembered) if remembered > 0 else 1.0
        return share * decodes, share * kv_tokens

    def _remembered(self, decodes: float, kv_tokens: float) -> float:
        return float(self.own[DECODES] * decodes + self.own[KV_READ] * kv_tokens)

    @property
    def gain(self) -> float:
        """Slope of the chain's mean in the assumed mean.

        A second more of the assumed mean brings decodes; a second more of the iteration before
        brings prompts, and decoders by their regression on it, which is around the assumed mean.
        """
        remembered = self._remembered(*self.on_time)
        rest = max(1 - self.prompt_work - remembered, 1e-3)
        return min((self.work - self.prompt_work - remembered) / rest, 0.97)

    def after_prefill_s(self) -> list[Floats]:
        """Cov(τ_{n+s}, ends of prefill of j in n)/(λ_j μ) summed over 1 … s, s = 0 … N_j.

        The third statement of THEORY 9.1.
        """
        parts, back = self.parts, np.conj(self.lag)
        shared = irfft(back * self.spectrum / self.mean_s, parts.size)
        response = irfft(
            back * self.lag * self.feedback * self._added(self.own), parts.size, axis=1
        )
        found = []
        for j, later in enumerate(self.load.later):
            k = parts.chunks[j]
            e = response[j, k - 1 : k + later] + shared[k : k + later + 1]
            e[0] = 0.0
            found.append(np.cumsum(e))
        return found

    def own_after_prefill_s(self) -> list[Floats]:
        """The part of `after_prefill_s` that the request's own decodes cause."""
        parts = self.parts
        decodes = np.where(np.isin(np.arange(len(self.own)), (DECODES, KV_READ)), self.own, 0.0)
        response = irfft(self.feedback * self._added(decodes), parts.size, axis=1)
        found = []
        for j, later in enumerate(self.load.later):
            k = parts.chunks[j]
            e = response[j, k - 1 : k + later].copy()
            e[0] = 0.0
            found.append(np.cumsum(e))
        return found

    def without_old(self) -> Slow:
        """The same with the slow decodes at their mean."""
        own = self.own.copy()
        own[[OLD_DECODES, OLD_KV]] = -own[[DECODES, KV_READ]]
        return replace(self, own=own, feedback=_feedback(self.parts, own, self.lag)[0])


def _feedback(parts: Transforms, own: Floats, lag: Waves) -> tuple[Waves, float]:
    """G, and κ at frequency 0: what of a second of intake is work."""
    kappa = sum(own[one] * parts.total[one] for one in np.flatnonzero(own))
    work = float(kappa[0].real)
    return 1 / (1 - parts.wave * lag * kappa * min(1.0, _NEAREST / max(work, 1e-300))), work


class SlowTheory:
    """Builds `Slow` for one load and rule; waves are kept by length."""

    def __init__(
        self, load: Load, budget: float | None = None, longest: int = LONGEST_WAVES
    ) -> None:
        self.load, self.budget, self._longest = load, budget, longest
        self._young: dict[int, Transforms] = {}
        self._kept: dict[tuple[int, int], Transforms] = {}
        chunks = 1 if budget is None else math.ceil(load.prompts.max() / budget)
        self._shortest = 2 * (int(load.later.max()) + 1) + 2 * chunks + _LEAST

    def at(self, slopes: Slopes, mean_s: float, lag: float = 1.0, age: int = 0) -> Slow:
        """Linear theory with these slopes; the length is doubled until the feedback has died out.

        Args:
            lag: b of H.
            age: Where slow decodes begin; at 0 all are slow.
        """
        size = 1 << int(self._shortest + 8 / lag).bit_length()
        while True:
            if size not in self._young:
                self._young[size] = transforms(self.load, size, self.budget)
            found = self._on(self._young[size], slopes, mean_s, lag)
            impulse = np.abs(irfft(found.feedback, size))
            late, all_of_it = impulse[size // 2 :].sum(), impulse[1:].sum()
            if late <= _NEGLIGIBLE * all_of_it or size >= self._longest:
                break
            size *= 2
        if not age:
            return found
        if (size, age) not in self._kept:
            self._kept[size, age] = with_old(self._young[size], self.load, age)
        return self._on(self._kept[size, age], slopes, mean_s, lag)

    def _on(self, parts: Transforms, slopes: Slopes, mean_s: float, lag: float) -> Slow:
        tau = self.load.tau
        own = np.zeros(len(parts.total))
        own[TOKENS], own[FIXED] = slopes.token_s, 1.0
        own[DECODES] = slopes.decode_s + tau.per_decode_request_s
        own[KV_READ] = tau.per_kv_token_s
        delay = lag / (1 - (1 - lag) * parts.wave)
        feedback, work = _feedback(parts, own, delay)
        brought = parts.total[:, 0].real
        return Slow(
            load=self.load,
            slopes=slopes,
            mean_s=mean_s,
            parts=parts,
            own=own,
            lag=delay,
            feedback=feedback,
            work=work,
            prompt_work=float(slopes.token_s * brought[TOKENS] + brought[FIXED]),
        )
