"""Sums of independent gamma variables: what a recording of finite length says about a load.

A Poisson stream that brought k requests in T seconds has, by Jeffreys' prior, a rate of the law
Gamma(k + ½) with mean (k + ½)/T; streams are independent (THEORY 5.7).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_REACH = 40.0
"""Standard deviations on both sides between which the law is kept apart from its copies."""

_NEGLIGIBLE = 1e-12
_MOST_TERMS = 1 << 17
_BATCH = 1 << 22


def sum_below(weights: Floats, shapes: Floats, limit: float) -> float:
    """P(Σ w_j G_j ≤ limit) for independent G_j ~ Gamma(shape_j) with unit scale.

    Inverts the transform Π (1 − i t w_j)^(−shape_j) by Davies' sum, whose error is the probability
    beyond 40 standard deviations and that of the terms left out.

    Args:
        weights: w_j, of either sign, shape (m,).
        shapes: Shape (m,), together 2 or more: the transform must fade.

    >>> import numpy as np
    >>> from scipy.stats import gamma
    >>> found = sum_below(np.array([2.0, 2.0]), np.array([3.0, 4.0]), 15.0)
    >>> bool(abs(found - gamma.cdf(7.5, 7.0)) < 1e-9)
    True
    """
    mean = float(weights @ shapes)
    deviation = float(np.sqrt(weights**2 @ shapes))
    if abs(limit - mean) >= _REACH * deviation:
        return float(mean <= limit)
    step = np.pi / (_REACH * deviation)
    scaled, total = weights / deviation, 0.0
    batch = max(1, _BATCH // len(weights))
    for first in range(0, _MOST_TERMS, batch):
        t = (np.arange(first, min(first + batch, _MOST_TERMS)) + 0.5) * step
        logs = -(shapes @ np.log1p(-1j * np.outer(scaled * deviation, t)))
        terms = np.exp(logs - 1j * t * limit).imag / (t / step)
        total += float(terms.sum())
        if np.exp(logs[-1].real) <= _NEGLIGIBLE:
            break
    return float(np.clip(0.5 - total / np.pi, 0.0, 1.0))


def sum_quantile(weights: Floats, shapes: Floats, probability: float) -> float:
    """The x with P(Σ w_j G_j ≤ x) = probability, for weights w_j ≥ 0 of which some are above 0."""
    from scipy.optimize import brentq

    mean = float(weights @ shapes)
    deviation = float(np.sqrt(weights**2 @ shapes))
    high = mean + deviation
    while sum_below(weights, shapes, high) < probability:
        high += 2 * deviation
    return float(
        brentq(lambda x: sum_below(weights, shapes, x) - probability, 0.0, high, rtol=1e-10)
    )


def ratio_quantile(numerator: Floats, shapes: Floats, probability: float) -> float:
    """The v with P(Σ m_j G_j ≤ v Σ G_j) = probability: a mean over a mix that is Dirichlet.

    Args:
        numerator: m_j > 0, shape (m,).
    """
    from scipy.optimize import brentq

    low, high = float(numerator.min()), float(numerator.max())
    if low == high:
        return high
    return float(
        brentq(lambda v: sum_below(numerator - v, shapes, 0.0) - probability, low, high, rtol=1e-10)
    )
