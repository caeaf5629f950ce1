"""The server where cached blocks survive for a given time: hits, work, memory (THEORY 10.4)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fluid.cache.kinds import Kinds
from fluid.server import Server
from fluid.stages import StageSums, sums_of
from fluid.steady.intake import Flow, Intake, Method, curve_of

Floats = NDArray[np.float64]

SATURATED_S = float(np.nextafter(0.0, -1.0))
"""Survival time under saturation: 0, and what is asked for at once waits, and is gone as well."""

_LONGEST_S = 1e6
"""Of an iteration."""


@dataclass(frozen=True, eq=False)
class Point:
    """One survival time T_c with what follows from it, in balance or not.

    Attributes:
        survive_s: T_c, for how long a cached block survives unused.
        iteration_s: ΔT* with the hits of T_c.
        resident_tokens: M*, KV that residents hold, what they share counted once.
        demand_tokens: Left side of 10.3: what the cache would hold.
        free_tokens: F = C − M*: what it may hold.
        curve: T(y) with those hits, by outcome.
        weights: Share of each turn's requests with each outcome (context, shared, nothing), (3, n).
        shared_hits: h_j, shape (m,).
    """

    kinds: Kinds
    survive_s: float
    iteration_s: float
    resident_tokens: float
    demand_tokens: float
    free_tokens: float
    curve: Intake
    weights: Floats
    shared_hits: Floats

    @property
    def excess_tokens(self) -> float:
        """φ(T_c): by how much the cache's demand is above its room."""
        return self.demand_tokens - self.free_tokens

    @cached_property
    def hit_tokens(self) -> Floats:
        """Prompt tokens per request that need not be computed, by turn, shape (n,)."""
        kinds = self.kinds
        found = self.weights[0] * kinds.context_hit_tokens
        return np.asarray(found + self.weights[1] * kinds.shared_hit_tokens)

    @property
    def hit_share(self) -> float:
        """Share of all prompt tokens that need not be computed."""
        kinds = self.kinds
        per_s = kinds.rates_per_s
        return float(per_s @ self.hit_tokens / (per_s @ kinds.prefill_tokens))

    def class_hit_shares(self) -> Floats:
        """The same by class, shape (m,)."""
        kinds = self.kinds
        hits, prompts = (
            np.bincount(kinds.of_class, kinds.rates_per_s * tokens)
            for tokens in (self.hit_tokens, kinds.prefill_tokens)
        )
        return np.asarray(hits / prompts)


@dataclass(frozen=True, eq=False)
class Cached:
    """One workload's turns on one server, for any survival time and any multiple of the rates."""

    kinds: Kinds
    server: Server
    method: Method

    @cached_property
    def _outcomes(self) -> tuple[StageSums, NDArray[np.int64], Floats]:
        """Sums, computed tokens, and seconds of reading what was found, by outcome, (3·n,)."""
        kinds, server = self.kinds, self.server
        none = np.zeros_like(kinds.of_class)
        hits = np.concatenate([kinds.context_hit_tokens, kinds.shared_hit_tokens, none])
        prompts, outputs = np.tile(kinds.prefill_tokens, 3), np.tile(kinds.decode_tokens, 3)
        sums = sums_of(prompts - hits, outputs, hits, server)
        whole = sums_of(prompts, outputs, np.zeros_like(prompts), server).memory_sum
        own = whole - sums.count * np.tile(kinds.shared_tokens, 3)
        read_s = server.iteration_time.per_prefill_context_token_s * hits * (prompts - hits)
        return replace(sums, memory_sum=own), prompts - hits, read_s

    @cached_property
    def stages(self) -> Floats:
        """S_j, shape (m,)."""
        _, first = np.unique(self.kinds.of_class, return_index=True)
        return np.asarray(self._outcomes[0].count[first])

    def at(self, survive_s: float, scale: float = 1.0) -> Point | None:
        """The point of a survival time at a multiple of the rates; None where work is too much."""
        if not self.kinds.class_shared_tokens.any():
            return self._point(survive_s, scale, 0.0)
        from scipy.optimize import brentq

        # Residents keep a shared prefix: the longer an iteration, the more hits and the less work,
        # so that exactly one iteration time brings itself about.
        def excess_s(iteration_s: float) -> float:
            weights, _ = self._hits(survive_s, scale, iteration_s)
            curve = self._curve(weights * (scale * self.kinds.rates_per_s))
            return curve.time_s(iteration_s) - iteration_s

        low_s = high_s = self.server.iteration_time.overhead_s / 2
        while excess_s(high_s) > 0:
            low_s, high_s = high_s, 2 * high_s
            if high_s > _LONGEST_S:
                return None
        balance_s = brentq(excess_s, low_s, high_s, xtol=1e-12, rtol=1e-8)
        return self._point(survive_s, scale, balance_s) or self._point(survive_s, scale, high_s)

    def _hits(self, survive_s: float, scale: float, iteration_s: float) -> tuple[Floats, Floats]:
        """Shares of the outcomes, (3, n), and h_j, (m,), at S_j iterations of `iteration_s`."""
        kinds = self.kinds
        scaled = kinds.scaled(scale)
        service_s = self.stages * iteration_s
        shared = np.where(
            kinds.class_shared_tokens > 0, scaled.shared_hits(survive_s, service_s), 0.0
        )
        context = scaled.context_hits(survive_s)
        beside = (1 - context) * shared[kinds.of_class]
        return np.array([context, beside, 1 - context - beside]), shared

    def _point(self, survive_s: float, scale: float, iteration_s: float) -> Point | None:
        """The point where requests are in service for S_j iterations of `iteration_s`."""
        kinds = self.kinds
        scaled = kinds.scaled(scale)
        weights, shared = self._hits(survive_s, scale, iteration_s)
        curve = self._curve(weights * scaled.rates_per_s)
        balance_s = curve.least_balance_s()
        limit, limit_s = curve.limit
        if balance_s is None or (limit != "memory" and balance_s > limit_s):
            return None
        alone = scaled.shared_hits(0.0, self.stages * iteration_s)
        resident = balance_s * curve.kv_tokens_per_s + float(kinds.class_shared_tokens @ alone)
        # A shared prefix that no resident holds and that has been unused for less than T_c.
        idle = kinds.class_shared_tokens @ (
            (1 - alone) * -np.expm1(-scaled.class_rates_per_s * survive_s)
        )
        private = scaled.left.unused_tokens(survive_s)
        return Point(
            kinds=scaled,
            survive_s=survive_s,
            iteration_s=balance_s,
            resident_tokens=resident,
            demand_tokens=float(private + idle),
            free_tokens=self.server.usable_kv_tokens - resident,
            curve=curve,
            weights=weights,
            shared_hits=shared,
        )

    def _curve(self, rates_per_s: Floats) -> Intake:
        """T(y) of outcomes at these rates, shape (3, n); those that never happen are left out."""
        sums, computed, read_s = self._outcomes
        rates = rates_per_s.ravel()
        some = rates > 0
        kept = StageSums(**{name: values[some] for name, values in vars(sums).items()})
        flow = Flow(rates[some], computed[some], kept.decodes)
        curve = curve_of(self.method, self.server, flow, kept)
        return replace(curve, linear_s=curve.linear_s + read_s[some])
