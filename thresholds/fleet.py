"""The cheapest fleet that carries a workload, and who serves what (THEORY 8).

R_i replicas of server type i, each on its own share of the mix; x_ij is the rate of class j that
goes to type i. Every replica of an affine type carries one simplex of rates (THEORY 2.3), so that

    minimise Σ cost_i R_i   subject to   Σ_j a_ij x_ij ≤ R_i,  Σ_i x_ij = λ_j,  R_i whole

is a mixed-integer linear program, solved by HiGHS; a linear program then levels the loads. A type
that is not affine starts with the simplex of its largest single-class rates; where its own
iteration time does not carry the share found, a_i grows by the ratio and the program is solved
again. Such a fleet is verified, not proven to be the cheapest.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fluid.errors import InfeasibleError, InputError
from fluid.server import Server, require_fits
from fluid.steady.region import StabilityRegion, mixed
from fluid.steady.stability import largest_scale
from fluid.workload import Workload
from thresholds.solvers.common import rounded_down

Floats = NDArray[np.float64]

_INSIDE = 1e-6
"""Distance that every replica's load keeps from the boundary."""

_ROUNDS = 30


@dataclass(frozen=True)
class ServerType:
    """A server that can be bought, at `cost` each (any unit), at most `max_count` times."""

    server: Server
    cost: float = 1.0
    max_count: int | None = None


@dataclass(frozen=True)
class Replicas:
    """All replicas of one type.

    Attributes:
        shares: Part of each class's rate that goes to this type, by class name.
        workload: What one replica sees: the type's part, split evenly.
        load: 1/α* of one replica, on its own iteration time.
    """

    server: Server
    count: int
    shares: dict[str, float]
    workload: Workload
    load: float


@dataclass(frozen=True)
class Fleet:
    """The types that are used, their total cost, and whether no fleet is cheaper."""

    replicas: tuple[Replicas, ...]
    cost: float
    is_optimal: bool


def fleet(workload: Workload, types: Sequence[ServerType]) -> Fleet:
    """The cheapest fleet.

    Raises:
        InputError: No types, a cost or count that is not positive, or a class whose requests fit on
            no type.
        InfeasibleError: The largest counts are not enough; with the largest multiple of the rates
            that they carry.
    """
    _require_types(types)
    normals = np.array([_normal_s(workload, one.server) for one in types])
    if np.isinf(normals).all(axis=0).any():
        require_fits(workload, max(types, key=lambda one: one.server.usable_kv_tokens).server)
    for _ in range(_ROUNDS):
        counts, flows = _cheapest(workload, types, normals)
        replicas = [
            _replicas(workload, one.server, count, flow)
            for one, count, flow in zip(types, counts.tolist(), flows, strict=True)
        ]
        loads = np.array([0.0 if one is None else one.load for one in replicas])
        if (loads <= 1).all():
            return Fleet(
                replicas=tuple(one for one in replicas if one is not None),
                cost=float(counts @ [one.cost for one in types]),
                is_optimal=all(one.server.iteration_time.is_affine for one in types),
            )
        normals *= np.where(loads > 1, loads * (1 + _INSIDE), 1.0)[:, None]
    raise InfeasibleError(
        f"no fleet for {workload.name} could be verified on the servers' own iteration times",
        "iteration time",
        "use fewer classes, or servers that are affine in tokens",
    )


def _require_types(types: Sequence[ServerType]) -> None:
    if not types:
        raise InputError("server", "none", "at least one server type")
    names = [one.server.name for one in types]
    for one in types:
        if names.count(one.server.name) > 1:
            raise InputError("server", one.server.name, "each server type once")
        if not 0 < one.cost < math.inf:
            raise InputError(f"cost of {one.server.name}", one.cost, "a number > 0")
        if one.max_count is not None and one.max_count < 0:
            raise InputError(f"max_count of {one.server.name}", one.max_count, "0 or more")


def _normal_s(workload: Workload, server: Server) -> Floats:
    """1/(largest rate of each class alone), shape (m,); infinite where a request does not fit.

    For an affine server this is the half-space itself.
    """
    normal = np.full(len(workload.classes), np.inf)
    for index, one in enumerate(workload.classes):
        alone = workload.model_copy(update={"classes": (one,)})
        try:
            normal[index] = 1 / StabilityRegion(alone, server).intercepts_per_s[0]
        except InputError:
            continue
    return normal


def _cheapest(
    workload: Workload, types: Sequence[ServerType], normals: Floats
) -> tuple[NDArray[np.int_], Floats]:
    """Counts (t,) and flows x_ij (t, m) in requests per second, loads levelled."""
    from scipy.optimize import Bounds, LinearConstraint, milp

    rates = np.array([one.rate_per_s for one in workload.classes])
    kinds, classes = normals.shape
    most = [np.inf if one.max_count is None else one.max_count for one in types]
    loads, routed, upper = _constraints(normals, rates)
    counted = np.hstack([loads, -(1 - _INSIDE) * np.eye(kinds)])
    found = milp(
        c=np.concatenate([np.zeros(kinds * classes), [one.cost for one in types]]),
        constraints=[
            LinearConstraint(counted, -np.inf, 0),
            LinearConstraint(np.hstack([routed, np.zeros((classes, kinds))]), 1, 1),
        ],
        bounds=Bounds(0, np.concatenate([upper, most])),
        integrality=np.concatenate([np.zeros(kinds * classes), np.ones(kinds)]),
    )
    if not found.success:
        raise _too_few(workload, types, normals)
    assert found.x is not None
    counts = np.rint(found.x[kinds * classes :]).astype(int)
    level = milp(
        c=np.append(np.zeros(kinds * classes), 1.0),
        constraints=[
            LinearConstraint(np.hstack([loads, -counts[:, None]]), -np.inf, 0),
            LinearConstraint(np.hstack([routed, np.zeros((classes, 1))]), 1, 1),
        ],
        bounds=Bounds(0, np.append(upper, 1.0)),
    )
    assert level.x is not None
    shares = np.clip(level.x[:-1].reshape(kinds, classes), 0, 1)
    return counts, shares / shares.sum(axis=0) * rates


def _constraints(normals: Floats, rates: Floats) -> tuple[Floats, Floats, Floats]:
    """Loads of the types and sums per class as matrices over shares (t·m,), and upper bounds."""
    kinds, classes = normals.shape
    possible = np.isfinite(normals)
    weights = np.where(possible, normals, 0) * rates
    loads = np.zeros((kinds, kinds * classes))
    for kind in range(kinds):
        loads[kind, kind * classes : (kind + 1) * classes] = weights[kind]
    return loads, np.tile(np.eye(classes), kinds), possible.astype(float).ravel()


def _too_few(workload: Workload, types: Sequence[ServerType], normals: Floats) -> InfeasibleError:
    """The error of counts that are too small, with the scale that they carry."""
    from scipy.optimize import linprog

    rates = np.array([one.rate_per_s for one in workload.classes])
    kinds, classes = normals.shape
    loads, routed, upper = _constraints(normals, rates)
    limited = [kind for kind, one in enumerate(types) if one.max_count is not None]
    counts = [types[kind].max_count or 0 for kind in limited]
    found = linprog(
        c=np.append(np.zeros(kinds * classes), -1.0),
        A_ub=np.hstack([loads, np.zeros((kinds, 1))])[limited],
        b_ub=np.array(counts) * (1 - _INSIDE),
        A_eq=np.hstack([routed, -np.ones((classes, 1))]),
        b_eq=np.zeros(classes),
        bounds=[*((0, None if one else 0) for one in upper), (0, None)],
    )
    assert found.x is not None
    scale = float(found.x[-1])
    change = "allow more servers"
    if scale > 0:
        change = f"multiply all rates by at most {rounded_down(scale)}, or {change}"
    return InfeasibleError(
        f"the largest numbers of servers do not carry {workload.name}", "servers", change, scale
    )


def _replicas(workload: Workload, server: Server, count: int, flow: Floats) -> Replicas | None:
    """The replicas of one type with flow (m,) in requests per second; None where it is unused."""
    if not count or not flow.any():
        return None
    rates = np.array([one.rate_per_s for one in workload.classes])
    flow = np.where(flow > _INSIDE * rates, flow, 0)
    seen = mixed(workload, flow / count)
    names = [one.name for one in workload.classes]
    shares = dict(zip(names, (flow / rates).tolist(), strict=True))
    return Replicas(server, count, shares, seen, 1 / largest_scale(seen, server))
