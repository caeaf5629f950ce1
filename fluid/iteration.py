"""Iteration time of a batch (THEORY 1.3; arXiv 2504.11320 Eq. 1 is a special case).

    τ = f(n_tok) + c_kv·K + c_pre·P + c_seq·B + c_sq·Σ χ² + c_ctx·Σ χ·ctx

f is piecewise linear, given by knots; a repeated token knot is a jump whose lower value holds at
the knot; beyond the last knot f continues its last slope. f rises, except that it may fall again
after a jump, as tiles of matrix products make it do (a sawtooth); where a proof needs a function
that never falls, `rising` is the least one above it.
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
        seconds_knots: f at the knots: it may fall from the upper end of a jump to the next knot,
            but neither below `overhead_s` nor in the last segment, which goes on for ever.
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
        self._require_falls_after_jumps()
        if any(after == knot for knot, after in zip(tokens, tokens[2:], strict=False)):
            raise ValueError("a token knot may stand twice (a jump), not more often")
        if len(tokens) > 1 and tokens[-1] == tokens[-2]:
            raise ValueError("the last token knot must not be a jump: f continues its last slope")
        if self.overhead_s < LEAST_OVERHEAD_S:
            raise ValueError(
                "seconds_knots must give every iteration a positive duration, "
                f"{LEAST_OVERHEAD_S:g} s or more"
            )
        if min(seconds[1:], default=self.overhead_s) < self.overhead_s:
            raise ValueError("seconds_knots must not fall below the overhead, f above 0 tokens")
        return self

    def _require_falls_after_jumps(self) -> None:
        tokens, seconds = self.tokens_knots, self.seconds_knots
        last = len(tokens) - 1
        for index in range(1, last + 1):
            if seconds[index] >= seconds[index - 1]:
                continue
            after_jump = index >= 2 and tokens[index - 1] == tokens[index - 2]
            if tokens[index] == tokens[index - 1] or not after_jump or index == last:
                raise ValueError(
                    "seconds_knots must not decrease, except from a jump to the knot after it "
                    "where that is not the last"
                )

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

    @property
    def rising(self) -> IterationTime:
        """τ with the least non-decreasing function above f in its place; τ itself if f never falls.

        It is flat from the upper end of a jump to where f is as high again.
        """
        return self._raised or self

    # Not τ itself where f never falls: two that hold themselves could not be compared.
    @cached_property
    def _raised(self) -> IterationTime | None:
        seconds = np.asarray(self.seconds_knots)
        if not (np.diff(seconds) < 0).any():
            return None
        knots = [(self.tokens_knots[0], self.seconds_knots[0])]
        top = knots[0]
        for knot in zip(self.tokens_knots[1:], self.seconds_knots[1:], strict=True):
            before = knots[-1]
            if knot[1] > top[1] > before[1] and knot[0] > before[0]:
                share = (top[1] - before[1]) / (knot[1] - before[1])
                knots.append((before[0] + share * (knot[0] - before[0]), top[1]))
            knots.append(knot)
            top = max(top, knot, key=lambda one: one[1])
        missing_s = top[1] - knots[-1][1]
        if missing_s > 0 and self.last_slope_s > 0:
            again = knots[-1][0] + missing_s / self.last_slope_s
            knots += [(again, top[1]), (again + 1, top[1] + self.last_slope_s)]
        highest = np.maximum.accumulate([one[1] for one in knots])
        tokens = tuple(one[0] for one in knots)
        return self.model_copy(
            update={"tokens_knots": tokens, "seconds_knots": tuple(highest.tolist())}
        )

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
