"""Which servers to buy and who serves what, as a mixed-integer linear program (THEORY 2.3, 8).

R_i servers of type i; x_ij is the rate of class j that goes to type i. A type carries its part if
it meets some half-spaces per server, Σ_j a_ij x_ij ≤ R_i; then the cheapest counts are those of

    minimise Σ cost_i R_i   subject to   Σ_j a_ij x_ij ≤ R_i,  Σ_i x_ij = λ_j,  R_i whole

solved by HiGHS to a relative gap of 0. Half-spaces that hold for *every* rate vector that a server
carries give a cost that no fleet goes below.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fluid.errors import InputError
from fluid.linear import best_point
from fluid.server import Server
from fluid.stages import class_stages, linear_stage_seconds, memory_sums
from fluid.workload import Workload
from thresholds.solvers.majorant import minorant_lines

Floats = NDArray[np.float64]

_ALL_TOKENS = 1e9
"""More tokens than an iteration ever computes."""

_NODES = 20_000
"""Of branch and bound, some seconds of it. Prices that nearly tie need thousands, others dozens."""

_NO_SOLUTION = 2
"""What `scipy.optimize.milp` answers where nothing meets the constraints."""

FEWER_DECADES = "numbers within fewer decades"
"""What is allowed where the solver of linear programs gives up."""

_ABSENT = 1e-6
"""Shares of a class below this are numbers of the solver, not requests."""


@dataclass(frozen=True, eq=False)
class Halfspaces:
    """Σ_j normals_s[k, j]·x_ij ≤ R_i with i = kinds[k]: what the types carry, or carry at most.

    Attributes:
        rates_per_s: λ_j, shape (m,).
        normals_s: Shape (k, m); infinite where a request of the class does not fit.
        kinds: Index of the type of each row, shape (k,).
    """

    rates_per_s: Floats
    normals_s: Floats
    kinds: NDArray[np.int_]

    @property
    def types(self) -> int:
        """How many types there are, t."""
        return int(self.kinds[-1]) + 1

    def loads(self) -> Floats:
        """Load of every row as a matrix over the shares x_ij/λ_j, shape (k, t·m)."""
        weights = np.where(np.isfinite(self.normals_s), self.normals_s, 0) * self.rates_per_s
        rows, classes = weights.shape
        loads = np.zeros((rows, self.types, classes))
        loads[np.arange(rows), self.kinds] = weights
        return loads.reshape(rows, -1)

    def counted(self) -> Floats:
        """Servers of every row as a matrix over the counts, shape (k, t)."""
        return np.asarray(np.eye(self.types)[self.kinds])

    def routed(self) -> Floats:
        """Sums of the shares of each class, shape (m, t·m)."""
        return np.tile(np.eye(len(self.rates_per_s)), self.types)

    def most(self) -> Floats:
        """Largest shares, 0 where a request does not fit, shape (t·m,)."""
        fits = np.ones((self.types, len(self.rates_per_s)))
        for kind, normal in zip(self.kinds, self.normals_s, strict=True):
            fits[kind, np.isinf(normal)] = 0
        return fits.ravel()


def carried(workload: Workload, normals_s: Floats) -> Halfspaces:
    """One half-space a type, `normals_s` of shape (t, m)."""
    rates = workload.rates_per_s
    return Halfspaces(rates, normals_s, np.arange(len(normals_s)))


def necessary(workload: Workload, servers: Sequence[Server], normals_s: Floats) -> Halfspaces:
    """Half-spaces that all rates meet which a server carries, whatever its iteration time.

    For an affine server that is its region. For any other: each class alone
    (`normals_s` of shape (t, m): 1/its largest rate, as fewer requests of the others never hurt),
    and THEORY 2.3 with every line of the greatest convex minorant of f in the place of f.
    """
    rows, kinds = [], []
    for kind, (server, alone_s) in enumerate(zip(servers, normals_s, strict=True)):
        if server.iteration_time.is_affine:
            found = [alone_s]
        else:
            one_class = np.where(np.eye(len(alone_s), dtype=bool), alone_s, 0.0)
            found = [*one_class, *_minorant_normals_s(workload, server, alone_s)]
        rows += found
        kinds += [kind] * len(found)
    rates = workload.rates_per_s
    return Halfspaces(rates, np.array(rows), np.array(kinds))


def _minorant_normals_s(workload: Workload, server: Server, alone_s: Floats) -> list[Floats]:
    """a_j = w_j + d·m_j/C with d and w_j of every line below f; infinite where `alone_s` is."""
    held = memory_sums(workload, server) / server.usable_kv_tokens
    normals = []
    for line in minorant_lines(server.iteration_time, 0.0, _ALL_TOKENS):
        work_s = [
            linear_stage_seconds(class_stages(one, server), server, line.slope_s).sum()
            for one in workload.classes
        ]
        normal = np.array(work_s) + line.intercept_s * held
        normals.append(np.where(np.isinf(alone_s), np.inf, normal))
    return normals


class Cheapest(NamedTuple):
    """Counts (t,) of least cost, and the cost that no counts go below."""

    counts: NDArray[np.int_]
    at_least: float


def cheapest(
    halfspaces: Halfspaces, costs: Floats, most: Floats, inside: float = 0.0
) -> Cheapest | None:
    """The cheapest counts that carry the rates; None where the largest counts do not.

    Args:
        costs, most: Cost and largest count of each type, shape (t,).
        inside: Share of its capacity that every server leaves free.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp

    # Flows are counted in servers, prices in cheapest servers, so that the solver's absolute
    # tolerances are relative ones.
    normals = np.where(halfspaces.normals_s > 0, halfspaces.normals_s, np.inf)
    sizes = halfspaces.rates_per_s * normals.min(axis=0)
    unit = costs.min()
    kinds, classes = len(costs), len(sizes)
    loads = halfspaces.loads() / np.tile(sizes, kinds)
    routed = np.hstack([halfspaces.routed(), np.zeros((classes, kinds))])
    flows = loads.shape[1]
    counted = np.hstack([loads, -(1 - inside) * halfspaces.counted()])
    with _silenced():
        found = milp(
            c=np.concatenate([np.zeros(flows), costs / unit]),
            constraints=[
                LinearConstraint(counted, -np.inf, 0),
                LinearConstraint(routed, sizes, sizes),
            ],
            bounds=Bounds(0, np.concatenate([halfspaces.most() * np.tile(sizes, kinds), most])),
            integrality=np.concatenate([np.zeros(flows), np.ones(kinds)]),
            options={"mip_rel_gap": 0.0, "node_limit": _NODES},
        )
    if found.status == _NO_SOLUTION:
        return None
    if found.x is None:
        raise InputError("rates and times", found.message, FEWER_DECADES)
    counts = np.rint(found.x[flows:]).astype(int)
    # A load below the solver's tolerance is served all the same, by one server at least.
    able = (halfspaces.most().reshape(kinds, classes) > 0) & (most >= 1)[:, None]
    prices = np.where(able, costs[:, None], np.inf)
    for index in range(classes):
        if not counts[able[:, index]].any():
            counts[prices[:, index].argmin()] = 1
    least = float(prices.min(axis=0).max())
    return Cheapest(counts, max(float(found.mip_dual_bound * unit), least))


@contextlib.contextmanager
def _silenced() -> Iterator[None]:
    """Nothing on the process's standard output: HiGHS prints a line of its own there at times.

    It does so whatever its options say, where it repairs a solution that rounding has spoilt.
    """
    try:
        flush = ctypes.CDLL(None).fflush
        kept = os.dup(1)
    except (TypeError, OSError):
        yield
        return
    flush(None)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        try:
            yield
        finally:
            flush(None)
            os.dup2(kept, 1)
            os.close(kept)


def levelled(halfspaces: Halfspaces, counts: NDArray[np.int_]) -> tuple[float, Floats]:
    """The least largest load of one server, and the flows x_ij (t, m) per second that give it.

    Infinite, with no flows, where the counts leave a class nowhere to go.
    """
    from scipy.optimize import linprog

    # In the largest number of servers, which the solver's absolute tolerances are made for.
    most = max(counts.max(), 1)
    loads, routed = halfspaces.loads() / most, halfspaces.routed()
    per_server = halfspaces.counted() @ counts / most
    upper = halfspaces.most() * np.repeat(counts > 0, len(halfspaces.rates_per_s))
    found = linprog(
        c=np.append(np.zeros(loads.shape[1]), 1.0),
        A_ub=np.hstack([loads, -per_server[:, None]]),
        b_ub=np.zeros(len(loads)),
        A_eq=np.hstack([routed, np.zeros((len(routed), 1))]),
        b_eq=np.ones(len(routed)),
        bounds=[*((0, one) for one in upper), (0, None)],
    )
    if found.x is None:
        return np.inf, np.zeros((len(counts), len(routed)))
    shares = found.x[:-1].reshape(len(counts), -1)
    shares = np.where(shares > _ABSENT, shares, 0)
    shares = shares / shares.sum(axis=0)
    load = (loads @ shares.ravel())[per_server > 0] / per_server[per_server > 0]
    return float(load.max()), shares * halfspaces.rates_per_s


def largest_multiple(halfspaces: Halfspaces, most: Floats, inside: float) -> float:
    """The largest multiple of the rates that the largest counts carry; `most` of shape (t,)."""
    loads, routed = halfspaces.loads(), halfspaces.routed()
    servers = halfspaces.counted() @ np.where(np.isfinite(most), most, 0) * (1 - inside)
    limited = np.isfinite(most)[halfspaces.kinds]
    found = best_point(
        c=np.append(np.zeros(loads.shape[1]), -1.0),
        A_ub=np.hstack([loads, np.zeros((len(loads), 1))])[limited],
        b_ub=servers[limited],
        A_eq=np.hstack([routed, -np.ones((len(routed), 1))]),
        b_eq=np.zeros(len(routed)),
        bounds=[*((0, None if one else 0) for one in halfspaces.most()), (0, None)],
    )
    return float(found[-1])
