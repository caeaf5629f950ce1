"""Iteration times with independent clients in service: E f of a sum of tokens (THEORY 13.1).

Each of n clients is, independently, about to compute a prompt, decoding, or away. The tokens of an
iteration are then a sum of n independent terms, whose law is a power of one transform; what τ adds
to f is linear and needs means only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from fluid.iteration import IterationTime
from fluid.server import Server
from fluid.stages import Stages, class_stages, linear_stage_seconds, read_only
from fluid.workload import Workload

Floats = NDArray[np.float64]

_DEVIATIONS = 14.0
"""Of the sum of tokens, beyond which its law is cut off."""


@dataclass(frozen=True)
class Mix:
    """Stages of a mix of requests, one after the other from the same client.

    Attributes:
        shares: q_j, shape (m,).
        stages: Of each class, m entries.
    """

    server: Server
    shares: Floats
    stages: tuple[Stages, ...]

    @classmethod
    def of(cls, workload: Workload, server: Server) -> Mix:
        """The mix of a workload's rates."""
        stages = tuple(class_stages(one, server) for one in workload.classes)
        return cls(server, workload.shares, stages)

    @cached_property
    def counts(self) -> Floats:
        """S_j, shape (m,)."""
        return np.array([float(one.count) for one in self.stages])

    @property
    def mean_stages(self) -> float:
        """S̄."""
        return float(self.shares @ self.counts)

    @cached_property
    def first_tokens(self) -> NDArray[np.int64]:
        """Tokens of the first stage: the prompt, or one decode; shape (m,)."""
        return np.array([max(one.prefill_tokens, 1) for one in self.stages])

    @cached_property
    def linear_s(self) -> tuple[Floats, ...]:
        """Seconds that each stage adds apart from f, m arrays of shape (S_j,)."""
        return tuple(linear_stage_seconds(one, self.server, 0.0) for one in self.stages)

    @cached_property
    def first_s(self) -> Floats:
        """Those of the first stage, shape (m,)."""
        return np.array([one[0] for one in self.linear_s])

    @cached_property
    def later_s(self) -> Floats:
        """Mean of those after it, shape (m,); 0 with a single stage."""
        return np.array([float(one[1:].mean()) if len(one) > 1 else 0.0 for one in self.linear_s])

    @property
    def kv_per_resident(self) -> float:
        """m̄/S̄ in tokens, whole blocks."""
        return float(self.shares @ [one.memory_sum for one in self.stages]) / self.mean_stages

    @property
    def one_length(self) -> bool:
        """Whether all requests take the same number of iterations."""
        return len(set(self.counts.tolist())) == 1

    def iteration(self, others: int, first: float, later: float) -> Iteration:
        """An iteration with so many others, each about to begin or later with a probability."""
        return Iteration(self, others, first, later)


@dataclass(frozen=True)
class Iteration:
    """What others bring to an iteration, and how long it then takes.

    Attributes:
        others: n.
        first: Probability that one of them is at its first stage.
        later: Probability that it is at a later one.
    """

    mix: Mix
    others: int
    first: float
    later: float

    @cached_property
    def law(self) -> Floats:
        """P(the others compute 0, 1, 2, … tokens), shape (values,)."""
        lengths, weights = self.mix.first_tokens, self.first * self.mix.shares
        mean = float(weights @ lengths) + self.later
        square = float(weights @ lengths.astype(float) ** 2) + self.later
        sd = math.sqrt(self.others * max(square - mean**2, 0.0))
        longest = int(lengths.max())
        most = self.others * longest
        top = min(most, math.ceil(self.others * mean + _DEVIATIONS * sd + 4 * longest))
        # Room beyond the cut, in a length that the transform is fast for.
        term = np.zeros(1 << (max(top, longest) + 1).bit_length())
        term[0] = 1 - self.first - self.later
        term[1] += self.later
        np.add.at(term, lengths, weights)
        law = np.fft.irfft(np.fft.rfft(term) ** self.others, len(term))[: top + 1]
        law = np.maximum(law, 0.0)
        return np.asarray(law / law.sum())

    @cached_property
    def linear_s(self) -> float:
        """Mean seconds that the others add apart from f."""
        mix = self.mix
        first = float(mix.shares @ mix.first_s)
        weights = mix.shares * (mix.counts - 1)
        later = float(weights @ mix.later_s) / float(weights.sum()) if weights.any() else 0.0
        return self.others * (self.first * first + self.later * later)

    def mean_s(self, own_tokens: int = 0, own_s: float = 0.0) -> float:
        """E τ beside one more client, which adds tokens and seconds."""
        return float(self.law @ self._token_seconds(own_tokens)) + self.linear_s + own_s

    def square_s2(self, own_tokens: int, own_s: float) -> float:
        """E τ² alike; what τ adds to f is taken at its mean."""
        return float(self.law @ (self._token_seconds(own_tokens) + self.linear_s + own_s) ** 2)

    def _token_seconds(self, own_tokens: int) -> Floats:
        """f by the others' tokens, shape (values,)."""
        end = own_tokens + len(self.law)
        return token_table(self.mix.server.iteration_time, end.bit_length())[own_tokens:end]


@lru_cache(maxsize=8)
def token_table(tau: IterationTime, bits: int) -> Floats:
    """f at 0, 1, 2, … tokens, d0 at least; shape (2^bits,)."""
    return read_only(np.maximum(tau.token_seconds(np.arange(1 << bits)), tau.overhead_s))
