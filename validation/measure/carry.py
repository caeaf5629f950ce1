"""From intervals of the iteration time to those of M*, α* and the thresholds of a workload.

Every bootstrap repetition of the iteration time is solved like the server itself; the percentiles
of what comes out are the interval. A repetition without an equilibrium counts as one: then the
upper end of M* is None.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fluid.iteration import IterationTime
from fluid.server import Server
from fluid.steady.equilibrium import equilibrium
from fluid.steady.stability import stability
from fluid.workload import Workload
from thresholds.solvers.paced.boundary import boundary_load

_REPETITIONS = 60


@dataclass(frozen=True)
class Carried:
    """One figure on the fitted server, with its interval; None where it does not exist."""

    estimate: float | None
    low: float | None
    high: float | None


def carry(
    draws: Sequence[IterationTime], workload: Workload, server: Server, confidence: float
) -> dict[str, Carried]:
    """M* in tokens, α*, pace per iteration and watermark, each with its interval.

    Args:
        draws: Bootstrap repetitions of the iteration time.
        server: With the fitted iteration time.

    Raises:
        InputError: As `fluid.steady.equilibrium.equilibrium`.
    """
    estimate = _figures(workload, server)
    drawn = [
        _figures(workload, server.model_copy(update={"iteration_time": tau}))
        for tau in draws[:_REPETITIONS]
    ]
    tail = (1 - confidence) / 2
    found = {}
    for name, value in estimate.items():
        values = [one[name] for one in drawn]
        low, high = np.quantile(values, [tail, 1 - tail], method="nearest")
        found[name] = Carried(_known(value), _known(low), _known(high))
    return found


def _figures(workload: Workload, server: Server) -> dict[str, float]:
    balance = equilibrium(workload, server)
    edge = stability(workload, server)
    load = boundary_load(workload, server)
    return {
        "kv_tokens": math.inf if balance.kv_tokens is None else balance.kv_tokens,
        "max_scale": edge.max_scale,
        "pace_per_iteration": load.pace_per_iteration,
        "watermark_fraction": load.watermark_fraction,
    }


def _known(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
