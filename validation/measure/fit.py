"""Fit of the iteration-time family of THEORY 1.3 to measured batches, knots of f given.

Non-negative least squares on the relative error: each row is divided by its measured time, so that
a 10 ms decode counts as much as a 300 ms prefill, and no coefficient can come out negative.
c_pre is left at 0: as n_tok = P + B, the slopes of f, c_pre and c_seq are collinear, and f with
c_seq already spans them wherever a decode does not cost less than a prefill token.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fluid.errors import InputError
from fluid.iteration import IterationTime
from validation.measure.composition import LINEAR_TERMS, Compositions

Floats = NDArray[np.float64]

LEAST_S = 1e-7
"""Noise can drive f(0), which no batch shows, to 0; but an iteration takes time."""


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

    Args:
        seconds: Measured iteration times, shape (N,).
        tokens_knots: Knots of f from 0; f continues its slope beyond the last one, which therefore
            needs measurements above the knot before it.

    Raises:
        InputError: Lengths differ, a time is not positive, there are fewer rows than coefficients,
            or a segment of f has no measurement above its lower knot.
    """
    measured_s = np.asarray(seconds, dtype=float)
    require_usable(compositions, measured_s, tokens_knots)
    weights = coefficients(compositions, measured_s, tokens_knots)
    return iteration_time(weights, tokens_knots)


def iteration_time(weights: Floats, tokens_knots: Sequence[float]) -> IterationTime:
    """τ from the weights of `design`, shape (k,)."""
    rises_s, linear_s = np.split(weights, [-len(LINEAR_TERMS)])
    return IterationTime.from_document(
        {
            "tokens_knots": [float(one) for one in tokens_knots],
            "seconds_knots": np.maximum(np.cumsum(rises_s), LEAST_S).tolist(),
            **dict(zip(LINEAR_TERMS, linear_s.tolist(), strict=True)),
        }
    )


def error_of(relative: Floats) -> FitError:
    """Summary of signed relative errors, shape (N,)."""
    size = np.abs(relative)
    return FitError(float(size.mean()), float(np.quantile(size, 0.95)), float(size.max()))


def fold_of(rows: int, folds: int, seed: int) -> NDArray[np.int64]:
    """The part to which each row belongs when it is held out, shape (rows,)."""
    return np.random.default_rng(seed).permutation(rows) % folds


def design(compositions: Compositions, knots: Sequence[float]) -> Floats:
    """Columns whose non-negative weights are f(0), the rises of f and the linear terms, (N, k)."""
    return np.hstack([_ramps(compositions.tokens, knots), compositions.linear])


def predict(compositions: Compositions, weights: Floats, knots: Sequence[float]) -> Floats:
    """Seconds of each batch from the weights of `design`, shape (N,)."""
    return np.asarray(design(compositions, knots) @ weights)


def coefficients(compositions: Compositions, measured_s: Floats, knots: Sequence[float]) -> Floats:
    """Weights of `design` ≥ 0 that minimise the squared relative error, shape (k,).

    Rows are divided by their measured time and then again by the time so predicted: a row that
    came out fast by chance would otherwise weigh more, which biases the fit by twice the variance.
    A row that is then predicted to take no time keeps its first weight.
    """
    columns = design(compositions, knots)
    first = columns @ nonnegative(columns / measured_s[:, None], np.ones_like(measured_s))
    first = np.where(first > 0, first, measured_s)
    return nonnegative(columns / first[:, None], measured_s / first)


def nonnegative(columns: Floats, target: Floats) -> Floats:
    """Weights w ≥ 0 minimising ‖A·w − y‖², A of shape (N, k)."""
    from scipy.optimize import nnls

    scale = np.linalg.norm(columns, axis=0)
    scale[scale == 0] = 1.0
    weights, _ = nnls(columns / scale, target, maxiter=100 * columns.shape[1])
    return np.asarray(weights / scale)


def require_usable(compositions: Compositions, measured_s: Floats, knots: Sequence[float]) -> None:
    """Refuse measurements from which a fit on these knots says nothing.

    Raises:
        InputError: As `fit_iteration_time`.
    """
    for one in fields(compositions):
        shape = getattr(compositions, one.name).shape
        if shape != measured_s.shape:
            raise InputError(one.name, shape, f"shape {measured_s.shape}, one entry per time")
    if not np.all(measured_s > 0):
        row = int(np.argmin(measured_s > 0))
        raise InputError(f"seconds[{row}]", float(measured_s[row]), "a positive time")
    ramps = _ramps(compositions.tokens, knots)
    wanted = ramps.shape[1] + len(LINEAR_TERMS)
    if len(measured_s) < wanted:
        raise InputError("seconds", f"{len(measured_s)} rows", f"at least {wanted} rows")
    unseen = np.flatnonzero(ramps.max(axis=0) <= 0)
    if len(unseen):
        index = int(unseen[0])
        allowed = f"knots with measurements above {knots[index - 1]:g} tokens"
        raise InputError(f"tokens_knots[{index}]", knots[index], allowed)


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
