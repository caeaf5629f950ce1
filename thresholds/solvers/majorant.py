"""Straight lines above and below the token part f of an iteration time.

The least concave majorant of f on [0, T] is the minimum of its pieces' lines. A condition that is
increasing in f holds for the majorant if and only if it holds for one of these lines, so solving
once per line gives the exact optimum for the majorant, and for f itself where f is concave. A line
below f, a piece of its greatest convex minorant, makes the problem easier: its optimum is a bound.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from fluid.iteration import IterationTime

_LEAST_INTERCEPT = 1e-3
"""Share of f that a line's intercept keeps where it would not be positive."""


@dataclass(frozen=True)
class Line:
    """intercept_s + slope_s·tokens, in seconds."""

    intercept_s: float
    slope_s: float


def majorant_lines(tau: IterationTime, max_tokens: float) -> tuple[Line, ...]:
    """Lines of the least concave majorant of f on [0, max_tokens], from steep to flat."""
    knots = [(0.0, tau.overhead_s)]
    for tokens, seconds in zip(tau.tokens_knots, tau.seconds_knots, strict=True):
        if 0 < tokens < max_tokens:
            knots.append((tokens, seconds))
    knots.append((max_tokens, float(tau.token_seconds(max_tokens))))
    hull: list[tuple[float, float]] = []
    for knot in knots:
        while hull and (hull[-1][0] == knot[0] or _below_chord(hull, knot)):
            hull.pop()
        hull.append(knot)
    lines = []
    for (left, low_s), (right, high_s) in itertools.pairwise(hull):
        slope_s = (high_s - low_s) / (right - left)
        lines.append(Line(low_s - slope_s * left, slope_s))
    return tuple(lines)


def minorant_lines(tau: IterationTime, least_tokens: float, most_tokens: float) -> tuple[Line, ...]:
    """Lines of the greatest convex minorant of f on [least_tokens, most_tokens], flat to steep.

    A geometric program needs a positive intercept: from the first line without one on, a flatter
    one through its left end, which is below f as well, takes their place.
    """
    inner = [one for one in tau.tokens_knots if least_tokens < one < most_tokens]
    tokens = np.unique([least_tokens, *inner, max(most_tokens, least_tokens + 1)])
    hull: list[tuple[float, float]] = []
    for knot in zip(tokens.tolist(), tau.token_seconds(tokens).tolist(), strict=True):
        while len(hull) >= 2 and not _below_chord(hull, knot):
            hull.pop()
        hull.append(knot)
    lines: list[Line] = []
    for (left, low_s), (right, high_s) in itertools.pairwise(hull):
        slope_s = (high_s - low_s) / (right - left)
        if low_s <= slope_s * left:
            slope_s = (1 - _LEAST_INTERCEPT) * low_s / left
            return (*lines, Line(_LEAST_INTERCEPT * low_s, slope_s))
        lines.append(Line(low_s - slope_s * left, slope_s))
    return tuple(lines)


def is_concave(tau: IterationTime, max_tokens: float) -> bool:
    """Whether f equals its majorant on (0, max_tokens], so that bounds from the lines are exact."""
    lines = majorant_lines(tau, max_tokens)
    tokens = np.array([one for one in tau.tokens_knots if 0 < one <= max_tokens])
    majorant_s = np.min([one.intercept_s + one.slope_s * tokens for one in lines], axis=0)
    return bool(np.allclose(majorant_s, tau.token_seconds(tokens), rtol=1e-9, atol=0))


def _below_chord(hull: list[tuple[float, float]], knot: tuple[float, float]) -> bool:
    """Whether the hull's last point lies on or below the chord from its predecessor to `knot`."""
    if len(hull) < 2:
        return False
    (left, left_s), (middle, middle_s) = hull[-2:]
    right, right_s = knot
    return (middle_s - left_s) * (right - left) <= (right_s - left_s) * (middle - left)
