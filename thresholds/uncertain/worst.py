"""The load at which a policy's conditions are hardest among those that the rates may be.

A condition either grows in every rate, or is a ratio of two sums of rates, so that corners decide
(THEORY 5.7).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fluid.errors import InputError
from fluid.files import without_collection
from fluid.server import Server
from fluid.steady.intake import intake
from fluid.steady.stability import stability
from fluid.workload import Workload

Floats = NDArray[np.float64]

_ROUNDING = 1e-12


def at_rates(workload: Workload, rates_per_s: Floats) -> Workload:
    """The workload at other rates, shape (m,), all above 0; nobody has observed them."""
    with without_collection():
        classes = tuple(
            one.model_copy(update={"rate_per_s": rate})
            for one, rate in zip(workload.classes, rates_per_s.tolist(), strict=True)
        )
    return workload.model_copy(update={"classes": classes, "observed_s": None})


def load_weights(workload: Workload, server: Server) -> Floats:
    """a_j with Σ λ_j a_j = 1/α*: seconds of the boundary that one request takes, shape (m,).

    Where f is affine they are those of the half-space of THEORY 2.3, whatever the mix; else slopes
    at this mix.
    """
    curve, edge = intake(workload, server), stability(workload, server)
    intake_s = edge.max_scale * edge.boundary_iteration_time_s
    work_s = curve.added(intake_s).request_s
    rates = workload.rates_per_s
    rest_s = edge.boundary_iteration_time_s - intake_s * float(rates @ work_s)
    effort_s = work_s + rest_s * curve.memory_sums / (intake_s * curve.kv_tokens_per_s)
    return np.asarray(effort_s / (float(rates @ effort_s) * edge.max_scale))


def largest_mean(values: Floats, low: Floats, high: Floats) -> float:
    """max Σ λ_j v_j/Σ λ_j over low ≤ λ ≤ high: the largest values at their upper ends.

    >>> import numpy as np
    >>> round(largest_mean(np.array([1.0, 3.0]), np.array([0.8, 0.8]), np.array([1.2, 1.2])), 2)
    2.2
    """
    order = np.argsort(-values)
    values, low, high = values[order], low[order], high[order]
    zero = np.zeros(1)
    weight = np.concatenate([zero, np.cumsum(high)]) + np.append(np.cumsum(low[::-1])[::-1], 0.0)
    sums = np.concatenate([zero, np.cumsum(high * values)])
    sums = sums + np.append(np.cumsum((low * values)[::-1])[::-1], 0.0)
    return float((sums / weight).max())


def chain_load(workload: Workload, entering_per_s: float, survivals: Floats) -> Workload:
    """A load whose Λ_1 and p_k are these: what Nested WAIT's conditions depend on (THEORY 4.3).

    Args:
        survivals: p_k at each distinct output length but the last, shape (L − 1,), below 1.

    Raises:
        InputError: Prompts differ: the mean prompt, and with it ΔT(n), depends on the mix too.
    """
    columns = workload.columns
    if len(np.unique(columns.prefill_tokens + columns.context_tokens)) > 1:
        allowed = "one length in all classes where rates are uncertain, or policy paced or wait"
        raise InputError("prefill_tokens", "prompts that differ", allowed)
    _, kind = np.unique(columns.decode_tokens, return_inverse=True)
    # A hair more, so that thresholds in the very ratio of a worst case are not within rounding.
    entered = entering_per_s * np.cumprod(np.append(1.0, survivals * (1 + _ROUNDING)))
    leaving = entered - np.append(entered[1:], 0.0)
    nominal = np.bincount(kind, weights=columns.rates_per_s)
    return at_rates(workload, columns.rates_per_s * (leaving / nominal)[kind])


def by_length(workload: Workload, values: Floats) -> Floats:
    """Sums of values per class over the classes of each distinct output length, ascending."""
    _, kind = np.unique(workload.columns.decode_tokens, return_inverse=True)
    return np.bincount(kind, weights=values).astype(float)
