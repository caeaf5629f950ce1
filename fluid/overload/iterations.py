"""Iteration times with independent clients in service: E f of a sum of tokens (THEORY 13.1).

Each of n clients is, independently, about to compute a prompt, decoding, or away. The tokens of an
iteration are then a sum of n independent terms, whose law is a power of one transform; what τ adds
to f is linear and needs means only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fluid.server import Server
from fluid.stages import Stages, class_stages, linear_stage_seconds
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
        rates = np.array([one.rate_per_s for one in workload.classes])
        stages = tuple(class_stages(one, server) for one in workload.classes)
        return cls(server, rates / rates.sum(), stages)

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
    def tokens(self) -> tuple[Floats, Floats]:
        """Law of the others' tokens: values and probabilities, shape (values,) each."""
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
        return np.arange(top + 1.0), law / law.sum()

    @cached_property
    def linear_s(self) -> float:
        """Mean seconds that the others add apart from f."""
        mix = self.mix
        first = float(mix.shares @ mix.first_s)
        weights = mix.shares * (mix.counts - 1)
        later = float(weights @ mix.later_s) / max(float(weights.sum()), 1.0)
        return self.others * (self.first * first + self.later * later)

    def times_s(self, own_tokens: int, own_s: float) -> Floats:
        """τ beside one more client, which adds tokens and seconds; by the others' tokens.

        What τ adds to f is taken at its mean.
        """
        tau = self.mix.server.iteration_time
        f_s = np.maximum(tau.token_seconds(self.tokens[0] + own_tokens), tau.overhead_s)
        return np.asarray(f_s + self.linear_s + own_s)

    def mean_s(self, own_tokens: int = 0, own_s: float = 0.0) -> float:
        """E τ alike."""
        return self._token_mean_s(own_tokens) + self.linear_s + own_s

    def square_s2(self, own_tokens: int, own_s: float) -> float:
        """E τ² alike."""
        return float(self.tokens[1] @ self.times_s(own_tokens, own_s) ** 2)

    def _token_mean_s(self, own_tokens: int) -> float:
        """E f, kept: all decodes of a mix ask for the same."""
        if own_tokens not in self._kept:
            self._kept[own_tokens] = float(self.tokens[1] @ self.times_s(own_tokens, 0.0))
        return self._kept[own_tokens] - self.linear_s

    @cached_property
    def _kept(self) -> dict[int, float]:
        return {}
