"""Linear programs, whose solver may give up where coefficients span too many decades."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fluid.errors import InputError


def best_point(**program: Any) -> NDArray[np.float64]:
    """The optimum of `scipy.optimize.linprog`, by its arguments.

    Raises:
        InputError: The solver has found none.
    """
    from scipy.optimize import linprog

    found = linprog(**program)
    if found.x is None:
        said = f"a linear program without answer ({found.message})"
        raise InputError("rates and times", said, "numbers within fewer decades of each other")
    return np.asarray(found.x)
