"""The intake with the largest y/T(y), the multiple of the rates that is in balance there."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from fluid.steady.intake import Intake

_GRID = 64
"""Points of the search for the best intake where f is not affine."""

_MOST_JUMPS = 4096
"""Where T has more jumps, each is small: many numbers of prompts share one jump of f."""


@lru_cache(maxsize=16)
def best_intake_s(curve: Intake) -> float:
    """The intake y up to the limit with the largest y/T(y); the limit where none is better."""
    limit_s = curve.limit_s
    if curve.method == "closed-form":
        return limit_s
    scale = limit_s / curve.time_s(limit_s)
    # Below this intake y/T(y) ≤ y/d0 is smaller than at the limit.
    least_s = curve.overhead_s * scale
    if least_s > limit_s * (1 - 1e-9):
        return limit_s
    if curve.method == "mean":
        # Between knots T is a straight line, on which y/T(y) has no inner maximum; at a jump the
        # best point is the knot itself, kept on its lower side against rounding.
        knots_s = curve.tau.knots.tokens * (1 - 1e-12) / curve.flow.tokens_per_s
        candidates = [float(one) for one in knots_s if least_s < one < limit_s]
        best_s = max(candidates, key=lambda y: y / curve.time_s(y), default=limit_s)
    else:
        best_s = _best_on_grid_s(curve, np.geomspace(least_s, limit_s, _GRID))
    return best_s if best_s / curve.time_s(best_s) > scale * (1 + 1e-9) else limit_s


def _best_on_grid_s(curve: Intake, grid_s: NDArray[np.float64]) -> float:
    """The same next to the best of the grid's points, and at the jumps of T.

    T never decreases, so that y/T(y) ≤ b/T(a) for all y from a to b: most points, and jumps, need
    not be tried.
    """
    times_s = _grid_times_s(curve, grid_s)
    known = np.array(sorted(times_s))
    scales = np.array([grid_s[k] / times_s[k] for k in known])
    best_s = float(grid_s[known[scales.argmax()]])
    best = float(scales.max())

    def bound(low_s: float, high_s: float) -> float:
        below = known[np.searchsorted(grid_s[known], low_s, side="right") - 1]
        return high_s / times_s[int(below)]

    def tried(intake_s: float) -> None:
        nonlocal best_s, best
        found = intake_s / curve.time_s(intake_s)
        if found > best:
            best_s, best = intake_s, found

    padded = np.concatenate([[-np.inf], scales, [-np.inf]])
    peaks = np.flatnonzero((scales >= padded[:-2]) & (scales >= padded[2:]))
    for peak in known[peaks[np.argsort(scales[peaks])[-3:]]][::-1]:
        low_s, high_s = grid_s[max(peak - 1, 0)], grid_s[min(peak + 1, len(grid_s) - 1)]
        if bound(low_s, high_s) > best:
            tried(_least_share_s(curve, low_s, high_s))
    # Kept on the lower side of each jump, against rounding.
    jumps_s = curve.jump_intakes_s(grid_s[0], grid_s[-1]) * (1 - 1e-12)
    if len(jumps_s) <= _MOST_JUMPS:
        bounds = np.array([bound(one, one) for one in jumps_s])
        for place in np.argsort(-bounds):
            if bounds[place] <= best:
                break
            tried(float(jumps_s[place]))
    return best_s


def _grid_times_s(curve: Intake, grid_s: NDArray[np.float64]) -> dict[int, float]:
    """T at the points of a grid, by their places, the best one and the ends among them."""
    last = len(grid_s) - 1
    found = {place: curve.time_s(float(grid_s[place])) for place in (0, last)}
    best, spans = max(grid_s[place] / found[place] for place in found), [(0, last)]
    while spans:
        low, high = spans.pop()
        if high - low < 2 or grid_s[high] / found[low] <= best:
            continue
        middle = (low + high) // 2
        found[middle] = curve.time_s(float(grid_s[middle]))
        best = max(best, grid_s[middle] / found[middle])
        spans += [(low, middle), (middle, high)]
    return found


def _least_share_s(curve: Intake, low_s: float, high_s: float) -> float:
    """Intake between these with the least T(y)/y nearby."""
    from scipy.optimize import minimize_scalar

    # On a logarithmic axis, so that the tolerance is relative.
    result = minimize_scalar(
        lambda log_s: curve.time_s(math.exp(log_s)) * math.exp(-log_s),
        bounds=(math.log(low_s), math.log(high_s)),
        method="bounded",
        options={"xatol": 1e-7},
    )
    return math.exp(result.x)
