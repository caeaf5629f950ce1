"""The iteration time that measured batches say: fit, held-out error, intervals, range of validity.

The knots are chosen by cross-validation (`validation.measure.knots`), all coefficients by
non-negative least squares on the relative error (`validation.measure.fit`). The error that is told
is that of rows which took no part, in the choice of knots neither.

Intervals come from a wild bootstrap (Wu 1986): the fitted relative residuals, corrected for
leverage, return with random signs, and as many knots are sought anew on the same batches. They hold
for all coefficients together: the largest studentised deviation decides.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from fluid.errors import InputError
from fluid.iteration import IterationTime
from fluid.server import MeasuredRange
from validation.measure.composition import LINEAR_TERMS, Compositions, Floats, Measurements
from validation.measure.fit import (
    FitError,
    coefficients,
    design,
    error_of,
    fit_iteration_time,
    fold_of,
    iteration_time,
    nonnegative,
    predict,
)
from validation.measure.knots import Staircase, choose_additions, choose_knots

CONFIDENCE = 0.95
FOLDS = 5

LEAST_ROWS = 10
"""The six coefficients of the smallest model must be fitted to 0.8 × 0.8 of the rows."""

_DRAWS = 200

_ALONE = 0.5
"""Leverage above which a row's own residual says nothing about its noise."""

_WIDENING = 1.2
"""The bootstrap repeats the search for knots but not the choice of their number: simulated tables
cover the truth at `CONFIDENCE` from a factor of 1.05 to 1.15 on."""


@dataclass(frozen=True, eq=False)
class EstimatedTime:
    """A fitted iteration time and how far to trust it.

    Attributes:
        seed: Of the folds and of the bootstrap.
        in_sample: Relative error of the fit on all rows.
        relative_residuals: predicted/measured − 1, shape (N,).
        draws: Bootstrap repetitions of the iteration time.
        unmeasured: Terms of which the rows say nothing; they are 0 and have no interval.
    """

    measurements: Measurements
    iteration_time: IterationTime
    in_sample: FitError
    relative_residuals: Floats
    draws: tuple[IterationTime, ...]
    unmeasured: tuple[str, ...]
    seed: int

    @cached_property
    def held_out(self) -> FitError:
        """Relative error of rows that took no part in fit and choice of knots, 5 folds."""
        data = self.measurements
        return _held_out(data.compositions, data.seconds, self.seed)

    @property
    def measured_range(self) -> MeasuredRange:
        """The batches that the fit has seen."""
        return self.measurements.measured_range

    @cached_property
    def bounds(self) -> Floats:
        """Joint intervals of f at the knots and `LINEAR_TERMS`, shape (knots + 4, 2)."""
        knots = self.iteration_time.tokens_knots
        estimate = _values(self.iteration_time, knots)
        drawn = np.array([_values(one, knots) for one in self.draws])
        # Around the estimate, not around their own mean: the bias of the search counts as well.
        spread = np.sqrt(np.square(drawn - estimate).mean(axis=0))
        deviation = np.abs(drawn - estimate)[:, spread > 0] / spread[spread > 0]
        level = np.quantile(deviation.max(axis=1), CONFIDENCE) if deviation.size else 0.0
        reach = _WIDENING * level
        return np.column_stack(
            [np.maximum(estimate - reach * spread, 0.0), estimate + reach * spread]
        )

    def intervals(self) -> dict[str, Any]:
        """Joint intervals by coefficient, [low, high]; None where the rows say nothing."""
        knots, linear = np.split(self.bounds, [-len(LINEAR_TERMS)])
        named = {
            name: None if name in self.unmeasured else ends
            for name, ends in zip(LINEAR_TERMS, linear.tolist(), strict=True)
        }
        return {"confidence": CONFIDENCE, "joint": True, "seconds_knots": knots.tolist()} | named


def estimate_iteration_time(measurements: Measurements, seed: int = 0) -> EstimatedTime:
    """Fit τ to measured iterations.

    Raises:
        InputError: Fewer rows than the smallest model needs, or batches from which two coefficients
            cannot be told apart.
    """
    compositions, seconds = measurements.compositions, measurements.seconds
    if len(seconds) < LEAST_ROWS:
        allowed = f"at least {LEAST_ROWS} rows: 6 coefficients, cross-validated"
        raise InputError("rows", len(seconds), allowed)
    unmeasured = _unmeasured(compositions)
    additions = choose_additions(compositions, seconds, FOLDS, seed)
    knots = Staircase(compositions, seconds).path(seconds, additions)[-1]
    knots = _without_flat_jumps(compositions, seconds, knots)
    tau = fit_iteration_time(compositions, seconds, knots)
    residuals = compositions.seconds(tau) / seconds - 1
    return EstimatedTime(
        measurements=measurements,
        iteration_time=tau,
        in_sample=error_of(residuals),
        relative_residuals=residuals,
        draws=_bootstrap(compositions, seconds, tau, additions, seed),
        unmeasured=unmeasured,
        seed=seed,
    )


def _unmeasured(compositions: Compositions) -> tuple[str, ...]:
    """Terms whose column is 0 in every row.

    Raises:
        InputError: A column that the others explain: its coefficient is arbitrary.
    """
    tokens = compositions.tokens
    columns = design(compositions, (0.0, float(tokens.max())))
    first = columns.shape[1] - len(LINEAR_TERMS)
    lengths = np.linalg.norm(columns, axis=0)
    seen = lengths > 0
    scaled = columns[:, seen] / lengths[seen]
    for position, index in enumerate(np.flatnonzero(seen)):
        others = np.delete(scaled, position, axis=1)
        left = scaled[:, position] - others @ np.linalg.lstsq(others, scaled[:, position])[0]
        if np.linalg.norm(left) < 1e-6:
            name = LINEAR_TERMS[index - first] if index >= first else "f"
            allowed = "batches that vary tokens, decodes, their context and prompts independently"
            raise InputError(name, "cannot be told from the other coefficients", allowed)
    return tuple(
        name for name, length in zip(LINEAR_TERMS, lengths[first:], strict=True) if length == 0
    )


def _without_flat_jumps(
    compositions: Compositions, seconds: Floats, knots: tuple[float, ...]
) -> tuple[float, ...]:
    """Leave out the second knot of each jump to which the fit gives no height."""
    rises = coefficients(compositions, seconds, knots)[: len(knots)]
    repeats = np.diff(knots, prepend=-1.0) == 0
    return tuple(np.array(knots)[~(repeats & (rises == 0))].tolist())


def _held_out(compositions: Compositions, seconds: Floats, seed: int) -> FitError:
    """Error of every row under a fit, with its own choice of knots, to the other folds."""
    fold = fold_of(len(seconds), FOLDS, seed + 1)
    errors = np.empty(len(seconds))
    for part in range(FOLDS):
        held, kept = fold == part, fold != part
        rest, rest_s = compositions.take(kept), seconds[kept]
        knots = choose_knots(rest, rest_s, FOLDS, seed)
        weights = coefficients(rest, rest_s, knots)
        predicted = predict(compositions.take(held), weights, knots)
        errors[held] = predicted / seconds[held] - 1
    return error_of(errors)


def _bootstrap(
    compositions: Compositions, seconds: Floats, tau: IterationTime, additions: int, seed: int
) -> tuple[IterationTime, ...]:
    """Repeated fits to τ's own times with its residuals under random signs, knots found anew."""
    predicted = compositions.seconds(tau)
    search = Staircase(compositions, predicted)
    noise = _noise(compositions, seconds / predicted - 1, predicted, tau)
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], (_DRAWS, len(seconds)))
    found = []
    for sign in signs:
        relative = 1 + sign * noise
        knots = search.path(predicted * relative, additions)[-1]
        columns = design(compositions, knots) / predicted[:, None]
        found.append(iteration_time(nonnegative(columns, relative), knots))
    return tuple(found)


def _noise(
    compositions: Compositions, residuals: Floats, predicted: Floats, tau: IterationTime
) -> Floats:
    """Size of the noise of each row, freed of what the fit has absorbed, shape (N,)."""
    columns = design(compositions, tau.tokens_knots) / predicted[:, None]
    weights = np.array(
        [*np.diff(tau.seconds_knots, prepend=0.0), *(getattr(tau, one) for one in LINEAR_TERMS)]
    )
    active = columns[:, weights > 0]
    basis, _ = np.linalg.qr(active / np.linalg.norm(active, axis=0))
    leverage = np.square(basis).sum(axis=1)
    freedom = max(len(residuals) - active.shape[1], 1)
    pooled = np.sqrt(np.square(residuals).sum() / freedom)
    own = np.abs(residuals) / np.maximum(1 - leverage, 1 - _ALONE)
    return np.asarray(np.where(leverage > _ALONE, pooled, own))


def _values(tau: IterationTime, knots: tuple[float, ...]) -> Floats:
    """f at the knots (above a jump at its second knot), then `LINEAR_TERMS`, shape (knots + 4,)."""
    places = np.array(knots)
    above = np.diff(places, prepend=-1.0) == 0
    seconds = tau.token_seconds(np.where(above, places * (1 + 1e-12), places))
    return np.array([*seconds, *(getattr(tau, one) for one in LINEAR_TERMS)])
