"""The part of an inverse query's answer that is certain: where whole requests are known to pack.

The fluid answer is necessary; between it and the certain one nothing is claimed (THEORY 2.3).
"""

from __future__ import annotations

import math
from collections.abc import Callable

from fluid.errors import InputError
from fluid.server import Server
from fluid.steady.packing import packing
from fluid.workload import Workload

Having = Callable[[float], tuple[Workload, Server]]
"""The workload and server with another value of the quantity that a query asks about."""

ACCURACY = 1e-3
"""Relative distance to the last value that is not known to be enough."""

_DOUBLINGS = 24
"""Steps of a factor 2 away from the fluid answer before the search gives up."""


def certain_value(having: Having, value: float, unit: int | None, upwards: bool) -> float | None:
    """The value nearest to the fluid answer that is known to carry the load.

    None where the two bounds agree at the fluid answer, within 1 %; infinite (0 if not `upwards`)
    where no value is known to.

    Args:
        value: The fluid answer.
        unit: Values are multiples of it; None for real ones.
        upwards: Whether larger values make the load easier.
    """
    if not packing(*having(value)).matters:
        return None

    def rounded(x: float) -> float:
        if unit is None:
            return x
        return float(math.ceil(x / unit) * unit if upwards else math.floor(x / unit) * unit)

    def carries(x: float) -> bool:
        try:
            return packing(*having(x)).inner_scale >= 1 - 1e-12
        except InputError:
            return False

    beyond, found, factor = value, None, 2.0 if upwards else 0.5
    for _ in range(_DOUBLINGS):
        tried = rounded(beyond * factor)
        if tried <= 0:
            break
        if carries(tried):
            found = tried
            break
        beyond = tried
    if found is None:
        return math.inf if upwards else 0.0
    while abs(found - beyond) > max(ACCURACY * found, unit or 0):
        middle = rounded((found + beyond) / 2)
        if middle in (found, beyond):
            break
        found, beyond = (middle, beyond) if carries(middle) else (found, middle)
    return found
