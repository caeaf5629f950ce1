"""Fit of the iteration-time family of THEORY 1.3 to measured batches.

Non-negative least squares on the relative error: each row is divided by its measured time, so that
a 10 ms decode counts as much as a 300 ms prefill, and no coefficient can come out negative.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fluid.errors import InputError
from fluid.iteration import IterationTime

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Compositions:
    """What N measured batches consisted of; every array has shape (N,).

    Attributes:
        kv_tokens: K, KV tokens read by decodes.
        prefill_tokens: P, prefill tokens of all requests together.
        decode_requests: B, decoding requests.
        prefill_tokens_sq: Σ p² over the requests in prefill.
        prefill_context_tokens: Σ p·ctx over the requests in prefill.
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


@dataclass(frozen=True)
class FitError:
    """Relative error |predicted/measured − 1| over a set of batches."""

    mean: float
    p95: float
    largest: float


def fit_iteration_time(
    compositions: Compositions, seconds: ArrayLike, tokens_knots: Sequence[float]
) -> IterationTime:
    """Fit τ with f on the given knots (a repeated knot may jump) and every linear term but c_pre.

    c_pre is left at 0: as n_tok = P + B, the slopes of f, c_pre and c_seq are collinear, and f with
    c_seq already spans them wherever a decode does not cost less than a prefill token.

    Args:
        seconds: Measured iteration times, shape (N,).
        tokens_knots: Knots of f from 0; f continues its slope beyond the last one, which therefore
            needs measurements above the knot before it.

    Raises:
        InputError: Lengths differ, a time is not positive, there are fewer rows than coefficients,
            or a segment of f has no measurement above its lower knot.
    """
    measured_s = np.asarray(seconds, dtype=float)
    ramps = _ramps(compositions.tokens, tokens_knots)
    linear = np.column_stack(
        [
            compositions.kv_tokens,
            compositions.decode_requests,
            compositions.prefill_tokens_sq,
            compositions.prefill_context_tokens,
        ]
    )
    _require_usable(compositions, measured_s, ramps, tokens_knots, linear.shape[1])
    rises_s, linear_s = np.split(_relative_nnls(np.hstack([ramps, linear]), measured_s), [-4])
    document = {
        "tokens_knots": [float(one) for one in tokens_knots],
        "seconds_knots": np.cumsum(rises_s).tolist(),
        "per_kv_token_s": float(linear_s[0]),
        "per_decode_request_s": float(linear_s[1]),
        "per_prefill_token_sq_s": float(linear_s[2]),
        "per_prefill_context_token_s": float(linear_s[3]),
    }
    return IterationTime.from_document(document)


def fit_error(tau: IterationTime, compositions: Compositions, seconds: ArrayLike) -> FitError:
    """Relative error of τ against measured seconds, shape (N,)."""
    error = np.abs(compositions.seconds(tau) / np.asarray(seconds, dtype=float) - 1)
    return FitError(float(error.mean()), float(np.quantile(error, 0.95)), float(error.max()))


def _ramps(tokens: Floats, knots: Sequence[float]) -> Floats:
    """Columns whose non-negative weights are f(0) and the rise of f over each segment, (N, k).

    Column i goes from 0 at knot i−1 to 1 at knot i and stays there, except after the last knot.
    """
    columns = [np.ones_like(tokens)]
    for low, high in itertools.pairwise(knots):
        if low == high:
            columns.append((tokens > low).astype(float))
        else:
            top = np.inf if high == knots[-1] else 1.0
            columns.append(np.clip((tokens - low) / (high - low), 0.0, top))
    return np.column_stack(columns)


def _require_usable(
    compositions: Compositions,
    measured_s: Floats,
    ramps: Floats,
    knots: Sequence[float],
    linear_terms: int,
) -> None:
    for one in fields(compositions):
        shape = getattr(compositions, one.name).shape
        if shape != measured_s.shape:
            raise InputError(one.name, shape, f"shape {measured_s.shape}, one entry per time")
    if not np.all(measured_s > 0):
        row = int(np.argmin(measured_s > 0))
        raise InputError(f"seconds[{row}]", float(measured_s[row]), "a positive time")
    wanted = ramps.shape[1] + linear_terms
    if len(measured_s) < wanted:
        raise InputError("seconds", f"{len(measured_s)} rows", f"at least {wanted} rows")
    unseen = np.flatnonzero(ramps.max(axis=0) <= 0)
    if len(unseen):
        index = int(unseen[0])
        allowed = f"knots with measurements above {knots[index - 1]:g} tokens"
        raise InputError(f"tokens_knots[{index}]", knots[index], allowed)


def _relative_nnls(columns: Floats, measured_s: Floats) -> Floats:
    """Weights ≥ 0 minimising Σ (predicted/measured − 1)², shape (k,)."""
    from scipy.optimize import nnls

    rows = columns / measured_s[:, None]
    scale = np.linalg.norm(rows, axis=0)
    scale[scale == 0] = 1.0
    weights, _ = nnls(rows / scale, np.ones(len(rows)), maxiter=100 * columns.shape[1])
    return np.asarray(weights / scale)
