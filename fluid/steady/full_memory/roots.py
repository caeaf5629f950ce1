"""Spectral radius of Σ_s φ_s z^{−s} with positive coefficients (THEORY 11.1).

Whether all roots lie in |z| < r is what Schur and Cohn's recursion tells in O(S²), so that
bisection finds the radius of thousands of stages in seconds, where a companion matrix would take
minutes.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_CLOSE = 1e-9
"""Relative width of the bracket in which the radius is known to lie."""

_NEWTON = 50


def spectral_radius(coefficients: Floats) -> float:
    """Largest |z| among the roots of Σ_s φ_s z^{−s}; 0 where there is none.

    By Eneström and Kakeya no root lies beyond the largest φ_{s+1}/φ_s, and as the product of all
    is ±φ_S/φ_0 one lies no further in than its geometric mean: between the two is bisected.

    Args:
        coefficients: φ_s > 0, shape (S,).

    >>> import numpy as np
    >>> round(spectral_radius(np.array([1.0, 1.0, 2.0])), 6)  # z² + z + 2
    1.414214
    """
    a = np.asarray(coefficients, dtype=float)
    if len(a) < 2:
        return 0.0
    low = float((a[-1] / a[0]) ** (1 / (len(a) - 1)))
    high = float((a[1:] / a[:-1]).max())
    while high - low > _CLOSE * high:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if all_within(a, middle) else (middle, high)
    return _polished(a, high)


def all_within(coefficients: Floats, modulus: float) -> bool:
    """Whether all roots of Σ_s φ_s z^{−s} lie in |z| < modulus (Schur and Cohn)."""
    a = _scaled(coefficients, modulus)
    for size in range(len(a), 1, -1):
        reflection = a[size - 1] / a[0]
        if abs(reflection) >= 1:
            return False
        a = a[: size - 1] - reflection * a[size - 1 : 0 : -1]
        a /= a[0]
    return True


def _scaled(coefficients: Floats, modulus: float) -> Floats:
    """φ_s r^{−s} up to a factor, without overflow."""
    logs = np.log(coefficients) - math.log(modulus) * np.arange(len(coefficients))
    return np.asarray(np.exp(logs - logs.max()))


def _polished(a: Floats, modulus: float) -> float:
    """Modulus of the root next to a circle, by Newton from where P is least on it, in w = 1/z."""
    points = 1 << (16 * len(a)).bit_length()
    least = int(np.abs(np.fft.fft(_scaled(a, modulus), points)).argmin())
    w = np.exp(-2j * math.pi * least / points) / modulus
    falling = a[::-1]
    slopes = np.polyder(falling)
    for _ in range(_NEWTON):
        step = np.polyval(falling, w) / np.polyval(slopes, w)
        w -= step
        if abs(step) < 1e-15 * abs(w):
            break
    # A multiple root, or another one: the bracket is what is sure.
    found = float(1 / abs(w))
    return found if abs(found / modulus - 1) <= 2 * _CLOSE else modulus
