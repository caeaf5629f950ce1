"""The full batch of a threshold vector: its time, its memory, and the literal rule's latency.

With thresholds n a full batch holds n_j requests at every stage of every class j (THEORY 3.1–3.2).
Its composition is exact, so that ΔT(n) comes from the server's own iteration time, also where f is
not affine.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fluid.errors import InputError
from fluid.server import Server
from fluid.stages import stage_sums
from fluid.workload import Workload

Floats = NDArray[np.float64]

MANY_CLASSES = 10_000
"""Beyond them a solver is content with less."""

STRICT = 1e-9
"""A drift condition holds strictly if λ_j ΔT(n)/n_j is below 1 by at least this."""

_HOPELESS = 1e3
"""Thresholds that need this many times the memory are not followed further."""

_MOST_STEPS = 2_000
"""Of a climb; several classes with loads above 1 − 1e-4 may need more, others some dozens."""

_ROUNDING = 1e-15
"""Relative error of a sum of times."""

_SHORT = 1e-6
"""Share of a step that is not taken, so that no rounding makes it too long."""


class Undecided(InputError):
    """Rates at the boundary of what literal WAIT carries: on which side takes too long to say."""


@dataclass(frozen=True)
class FullBatch:
    """What one unit of n_j adds to the full batch; all arrays have shape (m,).

    Attributes:
        rates_per_s: λ_j.
        stages: S_j.
        first_output: Position among the stages of the one that emits the first output token.
        tokens: Tokens computed: the prompt plus one per decode stage.
        kv_tokens: KV tokens read by the decode stages.
        prefill_tokens: Prompt tokens.
        decode_requests: Decode stages.
        memory_tokens: m_j, KV held, block-rounded.
    """

    server: Server
    rates_per_s: Floats
    stages: Floats
    first_output: Floats
    tokens: Floats
    kv_tokens: Floats
    prefill_tokens: Floats
    decode_requests: Floats
    memory_tokens: Floats

    def iteration_time_s(self, thresholds: ArrayLike) -> Floats:
        """ΔT(n) in seconds; thresholds (..., m) give shape (...)."""
        n = np.asarray(thresholds, dtype=float)
        token_s = self.server.iteration_time.token_seconds(n @ self.tokens)
        return np.asarray(token_s + n @ self._linear_s)

    @cached_property
    def _linear_s(self) -> Floats:
        """What one unit of n_j adds to ΔT(n) apart from f, shape (m,)."""
        return self.work_seconds(0.0)

    def memory(self, thresholds: ArrayLike) -> Floats:
        """M(n) = Σ n_j m_j in tokens; thresholds (..., m) give shape (...)."""
        return np.asarray(np.asarray(thresholds, dtype=float) @ self.memory_tokens)

    def loads(self, thresholds: ArrayLike) -> Floats:
        """u_j = λ_j ΔT(n)/n_j, below 1 where the drift condition holds; shape (..., m)."""
        n = np.asarray(thresholds, dtype=float)
        return np.asarray(self.rates_per_s * self.iteration_time_s(n)[..., None] / n)

    def work_seconds(self, token_s: float) -> Floats:
        """w_j with f of slope `token_s`: seconds that one unit of n_j adds to ΔT(n), shape (m,)."""
        tau = self.server.iteration_time
        return (
            token_s * self.tokens
            + tau.per_kv_token_s * self.kv_tokens
            + tau.per_prefill_token_s * self.prefill_tokens
            + tau.per_decode_request_s * self.decode_requests
            + tau.per_prefill_token_sq_s * self.prefill_tokens**2
        )

    def delay_s(self, thresholds: ArrayLike, last_stage: Floats) -> Floats:
        """Mean time until the end of a stage of the literal rule, in seconds, shape (..., m).

        (n_j − 1)/(2λ_j) + s_j·n_j/λ_j + ΔT(n) + μ_j/(2λ_j(n_j − μ_j)), μ_j = λ_j ΔT(n): collecting
        n_j arrivals, one stage per n_j arrivals until stage s_j, its iteration, queueing (THEORY
        3.5, where s_j = S_j − 1). Infinite where drift fails.

        Args:
            last_stage: s_j, counted from 0, shape (m,).
        """
        n = np.asarray(thresholds, dtype=float)
        loads = self.loads(n)
        with np.errstate(divide="ignore"):
            queueing_s = loads / (2 * self.rates_per_s * (1 - loads))
        pipeline_s = ((n - 1) / 2 + last_stage * n) / self.rates_per_s
        delay_s = pipeline_s + self.iteration_time_s(n)[..., None] + queueing_s
        return np.where(loads < 1, delay_s, np.inf)

    def latency_s(self, thresholds: ArrayLike) -> Floats:
        """L_j(n) of the literal rule: the delay until the last stage, shape (..., m)."""
        return self.delay_s(thresholds, self.stages - 1)

    def ttft_s(self, thresholds: ArrayLike) -> Floats:
        """Mean time to the first output token under the literal rule, shape (..., m).

        The derivation of THEORY 3.5 ends at any stage: a request of the cohort that has just been
        collected passes stage 0 at once and each later one with the next cohort of its class,
        n_j/λ_j after. The first token is emitted at the end of stage 0 (engine) or 1 (paper).

        The queueing term is that of THEORY 3.5. Cohorts of n_j arrivals that are served in ΔT each
        are an E_n/D/1 queue, for which Kingman's formula gives ΔT/(2n_j) less: nothing beside a
        latency, but visible in a TTFT at small n_j (simulated for one class).
        """
        return self.delay_s(thresholds, self.first_output)

    def tpot_s(self, thresholds: ArrayLike) -> Floats:
        """n_j/λ_j: a stage, and with it a token, per n_j arrivals; shape (..., m)."""
        return np.asarray(np.asarray(thresholds, dtype=float) / self.rates_per_s)

    def mean_s(self, delays_s: Floats) -> Floats:
        """Σ λ_j d_j/Σ λ_j of delays per class, the mean over requests; shape (...)."""
        return np.asarray(delays_s @ self.rates_per_s / self.rates_per_s.sum())

    def mean_latency_s(self, thresholds: ArrayLike) -> Floats:
        """Mean latency over requests, infinite where a drift condition fails; shape (...)."""
        return self.mean_s(self.latency_s(thresholds))

    def feasible(self, thresholds: ArrayLike) -> NDArray[np.bool_]:
        """Whether drift holds strictly in every class and M(n) ≤ C; shape (...)."""
        drift = (self.loads(thresholds) <= 1 - STRICT).all(axis=-1)
        return np.asarray(drift & (self.memory(thresholds) <= self.server.usable_kv_tokens))

    def support_slopes_s(self, tokens: Floats) -> Floats:
        """Slope of the steepest line below f through f(tokens), on all larger batches; as `tokens`.

        Args:
            tokens: Computed in an iteration, shape (k,).
        """
        tau = self.server.iteration_time
        most = self.server.usable_kv_tokens * float((self.tokens / self.memory_tokens).max())
        knots = np.append(tau.knots.tokens, max(most, 2 * tau.tokens_knots[-1], 1.0))
        width = knots - tokens[:, None]
        rise_s = tau.token_seconds(knots) - tau.token_seconds(tokens)[:, None]
        slopes_s = np.where(width > 0, rise_s / np.where(width > 0, width, 1.0), np.inf).min(axis=1)
        return np.asarray(np.minimum(slopes_s, tau.last_slope_s))

    def least_thresholds(self, scale: float = 1.0, start: ArrayLike = 1.0) -> Floats | None:
        """The smallest whole thresholds ≥ `start` with strict drift at the rates times `scale`.

        n ↦ ⌊λ_j ΔT(n)⌋ + 1 is non-decreasing whatever f, so climbing from below ends in the least
        solution in every coordinate, which also needs the least memory. None if there is none
        within a thousand times the server's memory.

        Raises:
            Undecided: Loads so close to 1 that `_MOST_STEPS` steps do not end.
        """
        rates_per_s = scale * self.rates_per_s * (1 + 2 * STRICT)
        n = np.broadcast_to(np.asarray(start, dtype=float), self.rates_per_s.shape)
        for _ in range(_MOST_STEPS):
            if self.memory(n) > _HOPELESS * self.server.usable_kv_tokens:
                return None
            time_s = float(self.iteration_time_s(n))
            if (rates_per_s * time_s < n).all():
                return n
            time_s = self._least_time_s(rates_per_s, n, time_s)
            n = np.maximum(n, np.floor(rates_per_s * time_s) + 1)
        raise Undecided(
            "rates",
            f"so close to the most that {_MOST_STEPS:,} steps find no whole thresholds",
            "a little lower rates, or policy paced",
        )

    def carries(self, scale: float) -> bool:
        """Whether thresholds at the rates times `scale` fit; False too where that is undecided."""
        try:
            least = self.least_thresholds(scale)
        except Undecided:
            return False
        return least is not None and bool(self.memory(least) <= self.server.usable_kv_tokens)

    def _least_time_s(self, rates_per_s: Floats, n: Floats, time_s: float) -> float:
        """ΔT that no whole thresholds ≥ n with drift have less of, from ΔT(n) = `time_s` on.

        Classes that lack drift need n'_j > λ_j ΔT', and f stays above a line: ΔT' = ΔT(n) +
        Σ w_j (λ_j ΔT' − n_j) bounds it from below. Rounding is allowed for on the safe side.
        """
        tau = self.server.iteration_time
        slope_s = tau.last_slope_s
        if not tau.is_affine:
            slope_s = float(self.support_slopes_s(np.array([n @ self.tokens]))[0])
        work_s = np.where(rates_per_s * time_s >= n, self.work_seconds(slope_s), 0.0)
        excess_s = float(work_s @ np.maximum(rates_per_s * time_s - n, 0)) - _ROUNDING * time_s
        free = 1 - float(work_s @ rates_per_s)
        if free < -STRICT:
            return np.inf
        return time_s + max(excess_s, 0.0) / max(free, STRICT) * (1 - _SHORT)


def full_batch(workload: Workload, server: Server) -> FullBatch:
    """Per-class sums over stages, under the server's convention and block size."""
    sums = stage_sums(workload, server)
    return FullBatch(
        server=server,
        rates_per_s=workload.rates_per_s,
        stages=sums.count,
        first_output=np.where(sums.prefill_tokens > 0, sums.first_decodes, 0.0),
        tokens=sums.prefill_tokens + sums.decodes,
        kv_tokens=sums.kv_read_tokens,
        prefill_tokens=sums.prefill_tokens,
        decode_requests=sums.decodes,
        memory_tokens=sums.memory_sum,
    )


def literal_wait_latency_s(thresholds: ArrayLike, workload: Workload, server: Server) -> Floats:
    """Mean latency of each class under literal WAIT, in seconds (THEORY 3.5).

    L_j = (n_j − 1)/(2λ_j) + (S_j − 1)·n_j/λ_j + ΔT(n) + μ_j/(2λ_j(n_j − μ_j)), μ_j = λ_j ΔT(n):
    collecting n_j arrivals, one stage per n_j arrivals, the last iteration, queueing.

    Args:
        thresholds: n, shape (..., m), each ≥ 1.

    Returns:
        Shape (..., m); infinite where μ_j ≥ n_j, as that queue grows without bound.
    """
    return full_batch(workload, server).latency_s(thresholds)
