"""What measured batches consisted of, and how long they took."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from fluid.iteration import IterationTime
from fluid.server import MeasuredRange

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Compositions:
    """What N measured batches consisted of; every array has shape (N,).

    Attributes:
        kv_tokens: K, KV tokens read by decodes.
        prefill_tokens: P, prefill tokens of all requests together.
        decode_requests: B, decoding requests.
        prefill_tokens_sq: Σ χ² over the requests in prefill.
        prefill_context_tokens: Σ χ·ctx over the requests in prefill.
    """

    kv_tokens: Floats
    prefill_tokens: Floats
    decode_requests: Floats
    prefill_tokens_sq: Floats
    prefill_context_tokens: Floats

    @property
    def tokens(self) -> Floats:
        """n_tok = P + B, tokens computed."""
        return self.prefill_tokens + self.decode_requests

    @property
    def linear(self) -> Floats:
        """K, B, Σ χ², Σ χ·ctx: what `LINEAR_TERMS` multiply, shape (N, 4).

        Without any prefill B is the token count itself, which f covers: it is left at 0.
        """
        decodes = self.decode_requests if self.prefill_tokens.any() else 0 * self.tokens
        return np.column_stack(
            [
                self.kv_tokens,
                decodes,
                self.prefill_tokens_sq,
                self.prefill_context_tokens,
            ]
        )

    def seconds(self, tau: IterationTime) -> Floats:
        """τ of each batch, seconds, shape (N,)."""
        return tau(
            self.tokens,
            kv_tokens=self.kv_tokens,
            prefill_tokens=self.prefill_tokens,
            decode_requests=self.decode_requests,
            prefill_tokens_sq=self.prefill_tokens_sq,
            prefill_context_tokens=self.prefill_context_tokens,
        )

    def take(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> Compositions:
        """The chosen rows."""
        return Compositions(*(getattr(self, one.name)[rows] for one in fields(self)))


LINEAR_TERMS = (
    "per_kv_token_s",
    "per_decode_request_s",
    "per_prefill_token_sq_s",
    "per_prefill_context_token_s",
)
"""Coefficients of `Compositions.linear`, by their names in a server file."""


@dataclass(frozen=True)
class Measurements:
    """N measured iterations.

    Attributes:
        seconds: Measured times, shape (N,).
        measured_range: The compositions that were seen.
        source: Where the rows come from, in words.
        kv_capacity_tokens: KV tokens that fit on the device, where that was measured.
        name: A name for the server: that of the file.
    """

    compositions: Compositions
    seconds: Floats
    measured_range: MeasuredRange
    source: str
    kv_capacity_tokens: int | None = None
    name: str = "measured"

    def __len__(self) -> int:
        return len(self.seconds)
