"""One workload on one server as the arrays that the laws of THEORY 9 are made of."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fluid.iteration import IterationTime
from fluid.server import Server
from fluid.stages import Stages, class_stages
from fluid.workload import Workload

Floats = NDArray[np.float64]

_LONGEST_TABLE = 200_000


@dataclass(frozen=True)
class Load:
    """Rates and stages; a class without a prompt begins with a decode instead.

    Attributes:
        rates_per_s: λ_j, shape (m,).
        stages: Of each class, m entries.
    """

    server: Server
    rates_per_s: Floats
    stages: tuple[Stages, ...]

    @classmethod
    def of(cls, workload: Workload, server: Server) -> Load:
        """The arrays of a workload."""
        return cls(
            server,
            workload.rates_per_s,
            tuple(class_stages(one, server) for one in workload.classes),
        )

    @property
    def tau(self) -> IterationTime:
        """The iteration time."""
        return self.server.iteration_time

    @cached_property
    def rate_per_s(self) -> float:
        """λ = Σ λ_j."""
        return float(self.rates_per_s.sum())

    @cached_property
    def shares(self) -> Floats:
        """λ_j/λ, shape (m,)."""
        return self.rates_per_s / self.rate_per_s

    @cached_property
    def prompts(self) -> Floats:
        """l_j, shape (m,); 0 where the prompt was computed elsewhere."""
        return np.array([float(one.prefill_tokens) for one in self.stages])

    @cached_property
    def first_tokens(self) -> Floats:
        """Tokens of the first stage: the prompt, or one decode; shape (m,)."""
        return np.where(self.prompts > 0, self.prompts, 1.0)

    @cached_property
    def first_s(self) -> Floats:
        """Seconds of the whole first stage apart from f, shape (m,)."""
        tau = self.tau
        prompt_s = tau.per_prefill_token_s * self.prompts
        prompt_s = prompt_s + tau.per_prefill_token_sq_s * self.prompts**2
        kv = np.array([float(one.kv_tokens[0]) for one in self.stages])
        decode_s = tau.per_decode_request_s + tau.per_kv_token_s * kv
        return np.where(self.prompts > 0, prompt_s, decode_s)

    @cached_property
    def later(self) -> NDArray[np.int64]:
        """N_j, iterations after the first stage, all of them decodes; shape (m,)."""
        return np.array([one.count - 1 for one in self.stages])

    @cached_property
    def first_output(self) -> NDArray[np.int64]:
        """Stages before the one that emits the first token, shape (m,)."""
        return np.array([one.first_output for one in self.stages])

    @cached_property
    def decodes_per_s(self) -> float:
        """n_d = Σ λ_j N_j: decodes in an iteration per second of its intake (THEORY 9.1)."""
        return float(self.rates_per_s @ self.later)

    @cached_property
    def kv_read_per_s(self) -> float:
        """KV that these read, tokens per second of intake."""
        sums = [float(one.kv_tokens[1:].sum()) for one in self.stages]
        return float(self.rates_per_s @ np.array(sums))

    @cached_property
    def kv_held_per_s(self) -> float:
        """KV held, tokens per second of intake."""
        return float(self.rates_per_s @ np.array([one.memory_sum for one in self.stages]))

    @cached_property
    def prompt_tokens_per_s(self) -> float:
        """Σ λ_j l_j."""
        return float(self.rates_per_s @ self.prompts)

    @cached_property
    def table_s(self) -> Floats:
        """f at 0, 1, 2, … tokens to the last knot, d0 at least; f goes on with `last_slope_s`."""
        top = int(min(max(math.ceil(self.tau.tokens_knots[-1]) + 2, 4), _LONGEST_TABLE))
        return np.maximum(self.tau.token_seconds(np.arange(top + 1)), self.tau.overhead_s)

    def token_seconds(self, tokens: Floats) -> Floats:
        """f at the whole number of tokens that is nearest, as `kernels.token_seconds`."""
        top = len(self.table_s) - 1
        index = np.minimum(tokens + 0.5, top).astype(np.int64)
        return self.table_s[index] + self.tau.last_slope_s * np.maximum(tokens - top, 0.0)
