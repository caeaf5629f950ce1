"""Iteration time of a batch (THEORY 1.3; arXiv 2504.11320 Eq. 1 is a special case).

    τ = f(n_tok) + c_kv·K + c_pre·P + c_seq·B + c_sq·Σ χ² + c_ctx·Σ χ·ctx

f is piecewise linear and non-decreasing, given by knots; a repeated token knot is a jump whose
lower value holds at the knot; beyond the last knot f continues its last slope.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field, model_validator

from fluid.files import FileModel

Coefficient = Annotated[float, Field(ge=0, le=1e9)]
"""Seconds, per token where it says so; thirty years are more than enough."""

LEAST_OVERHEAD_S = 1e-12
"""Of any iteration: no clock is faster, and rates stay finite."""

Tokens = Annotated[float, Field(ge=0, le=1e8)]
"""Of a knot: no iteration computes more, and expectations are summed token by token up to it."""


@dataclass(frozen=True, eq=False)
class Knots:
    """Knots of f as arrays of shape (k,)."""

    tokens: NDArray[np.float64]
    seconds: NDArray[np.float64]


class IterationTime(FileModel):
    """Coefficients of the iteration time; absent ones are 0. Calling it evaluates τ.

    Attributes:
        tokens_knots: Token counts of the knots of f, from 0, non-decreasing.
        seconds_knots: f at the knots, non-decreasing.
        per_kv_token_s: c_kv, seconds per KV token read by decodes.
        per_prefill_token_s: c_pre, seconds per prefill token, on top of f.
        per_decode_request_s: c_seq, seconds per decoding request, on top of f.
        per_prefill_token_sq_s: c_sq, seconds per squared prefill tokens of one request.
        per_prefill_context_token_s: c_ctx, seconds per prefill token × cached token.

    >>> import fluidwait as fw
    >>> tau = fw.IterationTime.affine(0.01, per_token_s=5e-5, per_kv_token_s=3e-7)
    >>> print(f"{tau(612, kv_tokens=50_000, prefill_tokens=512, decode_requests=100):.4f}")
    0.0556
    """

    tokens_knots: Annotated[tuple[Tokens, ...], Field(min_length=1)]
    seconds_knots: Annotated[tuple[Coefficient, ...], Field(min_length=1)]
    per_kv_token_s: Coefficient = 0.0
    per_prefill_token_s: Coefficient = 0.0
    per_decode_request_s: Coefficient = 0.0
    per_prefill_token_sq_s: Coefficient = 0.0
    per_prefill_context_token_s: Coefficient = 0.0

    @model_validator(mode="after")
    def _knots(self) -> Self:
        tokens, seconds = self.tokens_knots, self.seconds_knots
        if len(tokens) != len(seconds):
            raise ValueError("tokens_knots and seconds_knots must have the same length")
        if tokens[0] != 0:
            raise ValueError("tokens_knots must start at 0")
        if any(b < a for a, b in itertools.pairwise(tokens)):
            raise ValueError("tokens_knots must not decrease")
        if any(b < a for a, b in itertools.pairwise(seconds)):
            raise ValueError("seconds_knots must not decrease")
        if any(after == knot for knot, after in zip(tokens, tokens[2:], strict=False)):
            raise ValueError("a token knot may stand twice (a jump), not more often")
        if len(tokens) > 1 and tokens[-1] == tokens[-2]:
            raise ValueError("the last token knot must not be a jump: f continues its last slope")
        if self.overhead_s < LEAST_OVERHEAD_S:
            raise ValueError(
                "seconds_knots must give every iteration a positive duration, "
                f"{LEAST_OVERHEAD_S:g} s or more"
            )
        return self

    @classmethod
    def affine(
        cls,
        overhead_s: float,
        per_token_s: float = 0.0,
        per_kv_token_s: float = 0.0,
        per_prefill_token_s: float = 0.0,
        per_decode_request_s: float = 0.0,
    ) -> IterationTime:
        """f(n) = overhead + per_token·n, plus linear terms."""
        return cls(
            tokens_knots=(0.0, 1.0),
            seconds_knots=(overhead_s, overhead_s + per_token_s),
            per_kv_token_s=per_kv_token_s,
            per_prefill_token_s=per_prefill_token_s,
            per_decode_request_s=per_decode_request_s,
        )

    @classmethod
    def paper(cls, d0_s: float, d1_s: float) -> IterationTime:
        """Eq. (1) of arXiv 2504.11320: τ = d0 + d1·Σ(l + s)."""
        return cls.affine(d0_s, per_kv_token_s=d1_s, per_prefill_token_s=d1_s)

    @property
    def overhead_s(self) -> float:
        """d0: the limit of f at zero tokens from above, the price of any iteration at all."""
        starts_with_jump = len(self.tokens_knots) > 1 and self.tokens_knots[1] == 0
        return self.seconds_knots[1 if starts_with_jump else 0]

    @property
    def last_slope_s(self) -> float:
        """Slope of f beyond its last knot, seconds per token."""
        if len(self.tokens_knots) == 1:
            return 0.0
        rise = self.seconds_knots[-1] - self.seconds_knots[-2]
        return rise / (self.tokens_knots[-1] - self.tokens_knots[-2])

    @cached_property
    def knots(self) -> Knots:
        """The knots, for whoever computes with all of them at once."""
        return Knots(np.array(self.tokens_knots), np.array(self.seconds_knots))

    @cached_property
    def is_affine(self) -> bool:
        """Whether f is one straight line on tokens > 0, so that THEORY 2 holds in closed form."""
        tokens, seconds = self.knots.tokens, self.knots.seconds
        line = self.overhead_s + self.last_slope_s * tokens
        inner = tokens > 0
        return bool(np.allclose(seconds[inner], line[inner], rtol=1e-12, atol=0.0))

    def token_seconds(self, tokens: ArrayLike) -> NDArray[np.float64]:
        """f(tokens) alone, elementwise."""
        counts = np.asarray(tokens, dtype=float)
        knots, seconds = self.knots.tokens, self.knots.seconds
        if len(knots) == 1:
            return np.full(counts.shape, seconds[0])
        right = np.clip(np.searchsorted(knots, counts, side="left"), 1, len(knots) - 1)
        left = right - 1
        # counts = 0 is its own left knot, also where f jumps at 0: any width will do there.
        width = np.maximum(knots[right] - knots[left], np.finfo(float).tiny)
        share = (counts - knots[left]) / width
        return np.asarray(seconds[left] + share * (seconds[right] - seconds[left]))

    def __call__(
        self,
        tokens: ArrayLike,
        *,
        kv_tokens: ArrayLike = 0.0,
        prefill_tokens: ArrayLike = 0.0,
        decode_requests: ArrayLike = 0.0,
        prefill_tokens_sq: ArrayLike = 0.0,
        prefill_context_tokens: ArrayLike = 0.0,
    ) -> NDArray[np.float64]:
        """τ in seconds; all arguments broadcast.

        Args:
            tokens: n_tok, tokens computed in the iteration (prefill tokens + decoding requests).
            kv_tokens: K, KV tokens read by decodes.
            prefill_tokens: P, prefill tokens of all requests together.
            decode_requests: B, number of decoding requests.
            prefill_tokens_sq: Σ χ² over requests in prefill.
            prefill_context_tokens: Σ χ·ctx over requests in prefill.
        """
        return np.asarray(
            self.token_seconds(tokens)
            + self.per_kv_token_s * np.asarray(kv_tokens)
            + self.per_prefill_token_s * np.asarray(prefill_tokens)
            + self.per_decode_request_s * np.asarray(decode_requests)
            + self.per_prefill_token_sq_s * np.asarray(prefill_tokens_sq)
            + self.per_prefill_context_token_s * np.asarray(prefill_context_tokens)
        )
