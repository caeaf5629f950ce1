"""Confidence intervals over independent runs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def half_width(values: Sequence[float] | NDArray[np.float64], level: float = 0.95) -> float:
    """Half width of the confidence interval of a mean (Student's t); NaN for a single value.

    Args:
        values: Independent and of one distribution, shape (k,).

    >>> round(half_width([1.0, 2.0, 3.0]), 3)
    2.484
    """
    from scipy.special import stdtrit

    sample = np.asarray(values, dtype=float)
    if len(sample) < 2:
        return math.nan
    factor = stdtrit(len(sample) - 1, (1 + level) / 2)
    return float(factor * sample.std(ddof=1) / np.sqrt(len(sample)))
