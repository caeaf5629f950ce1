"""The cheapest fleet that carries a workload, and who serves what (THEORY 8).

R_i replicas of server type i, each on its own share of the mix. Every replica of an affine type
carries one simplex of rates (THEORY 2.3), so that the fleet is a mixed-integer linear program
(`thresholds.fleet_program`) whose bound proves it the cheapest; a linear program then levels the
loads. A type that is not affine starts with the simplex of its largest single-class rates; where
its own iteration time does not carry the share found, a_i grows by the ratio and the program is
solved again. Such a fleet is verified, and its cost stands beside one that no fleet goes below.
Where service levels count, the load of a replica is a share of the largest rate at which its mix
keeps them, and a_i grows in the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fluid.cache.routing import Routing, routing
from fluid.cache.served import lightest
from fluid.errors import InfeasibleError, InputError
from fluid.result import Block, Result, Table, number, percent
from fluid.server import Server, require_fits
from fluid.steady.packing import packing
from fluid.steady.region import StabilityRegion, mixed
from fluid.workload import Workload
from thresholds.checks import is_number, is_whole
from thresholds.fleet_program import (
    FEWER_DECADES,
    carried,
    cheapest,
    largest_multiple,
    levelled,
    necessary,
)
from thresholds.solvers.common import rounded_down
from thresholds.solvers.paced.solver import Paced
from thresholds.solvers.solver import Solver
from thresholds.table import ThresholdTable
from thresholds.table_text import settings_words

Floats = NDArray[np.float64]

_INSIDE = 1e-6
"""Distance that every replica's load keeps from the boundary."""

_PROVEN = 1e-9
"""Relative gap below which only rounding is left of it."""

_ROUNDS = 30

LoadOf = Callable[[Workload, Server], float]
"""What a replica sees as a share of what it may carry; infinite where it may carry none of it."""


LEAST_COST, MOST_COST = 1e-6, 1e9
"""Whatever the unit: a linear program tells no more digits apart."""

MOST_SERVERS = 1_000_000
"""Of one type."""


@dataclass(frozen=True)
class ServerType:
    """A server that can be bought, at `cost` each (any unit), at most `max_count` times.

    Raises:
        InputError: A cost that is not above 0, or a count that is no whole number, 0 or more.

    >>> import fluidwait as fw
    >>> fw.ServerType(fw.Server.named("paper-lmsys"), cost=0.4).max_count is None
    True
    """

    server: Server
    cost: float = 1.0
    max_count: int | None = None

    def __post_init__(self) -> None:
        if not (is_number(self.cost) and LEAST_COST <= self.cost <= MOST_COST):
            allowed = f"a number > 0, {LEAST_COST:g} to {MOST_COST:g}"
            raise InputError(f"cost of {self.server.name}", self.cost, allowed)
        count = self.max_count
        if count is not None and not (is_whole(count) and 0 <= count <= MOST_SERVERS):
            allowed = f"a whole number, 0 or more, {MOST_SERVERS:,} at most"
            raise InputError(f"max_count of {self.server.name}", count, allowed)


@dataclass(frozen=True)
class Replicas:
    """All replicas of one type.

    Attributes:
        shares: Part of each class's rate that goes to this type, by class name.
        workload: What one replica sees: the type's part, split evenly.
        load: 1/α* of one replica, on its own iteration time and for whole requests; or the rate of
            its mix over the largest one that keeps the service levels.
        table: Thresholds for one replica.
    """

    server: Server
    count: int
    shares: dict[str, float]
    workload: Workload
    load: float
    table: ThresholdTable


@dataclass(frozen=True, repr=False)
class Fleet(Result):
    """The types that are used, their total cost, and how much less another fleet could cost.

    Attributes:
        cost_at_least: No fleet that carries the load costs less.
        sized_by: What a load of 100 % is, where it is not the edge of stability.
        routings: Where the workload has prefixes, sticky routing beside round robin over the
            replicas of each type; counts and tables are for sticky routing.

    >>> import fluidwait as fw
    >>> load = fw.Workload.of(chat=fw.Requests(40.0, prompt=512, output=100))
    >>> found = fw.fleet(load, [fw.ServerType(fw.Server.named("engine-long-decode"))])
    >>> [one.count for one in found.replicas], found.cost
    ([2], 2.0)
    """

    workload: Workload
    replicas: tuple[Replicas, ...]
    cost: float
    cost_at_least: float
    sized_by: str = ""
    routings: tuple[Routing, ...] = ()

    @property
    def optimality_gap(self) -> float:
        """Share of the cost by which another fleet could be cheaper, at most."""
        return max(0.0, 1 - self.cost_at_least / self.cost)

    @property
    def is_optimal(self) -> bool:
        """Whether it is proven that no fleet is cheaper."""
        return self.optimality_gap <= _PROVEN

    def blocks(self) -> Iterator[Block]:
        """A row per type, the cost, and what each replica sets."""
        yield Table(
            f"Fleet for {self.workload.name}",
            ("server", "count", "load of each", "share of each class"),
            tuple(
                (
                    one.server.name,
                    str(one.count),
                    percent(one.load),
                    ", ".join(f"{name} {percent(share)}" for name, share in one.shares.items()),
                )
                for one in self.replicas
            ),
            left=(0, 3),
            spare=("share of each class",),
        )
        proof = "no fleet is cheaper"
        if not self.is_optimal:
            proof = (
                f"no fleet costs less than {number(self.cost_at_least)}, and this one is not proven"
                f" to be the cheapest (gap {percent(self.optimality_gap)})"
            )
        yield f"Total cost {number(self.cost)}: {proof}."
        if self.sized_by:
            yield f"Loads are shares of {self.sized_by}."
        for one in self.replicas:
            yield f"Each {one.server.name}: {settings_words(one.table)}."
        for found in self.routings:
            yield found.sentence

    def document(self) -> dict[str, Any]:
        """Cost, and each type with its shares and its table."""
        return {
            "cost": self.cost,
            "cost_at_least": self.cost_at_least,
            "optimality_gap": self.optimality_gap,
            "is_optimal": self.is_optimal,
            "sized_by": self.sized_by or "stability",
            **({"routing": [one.document() for one in self.routings]} if self.routings else {}),
            "servers": [
                {
                    "server": one.server.name,
                    "count": one.count,
                    "load": one.load,
                    "shares": one.shares,
                    "table": one.table.document(),
                }
                for one in self.replicas
            ],
        }

    def frame(self) -> dict[str, list[Any]]:
        """One row per type and class: the part of the class's rate that goes there."""
        rows = [(one, name, share) for one in self.replicas for name, share in one.shares.items()]
        return {
            "server": [one.server.name for one, _, _ in rows],
            "count": [one.count for one, _, _ in rows],
            "load": [one.load for one, _, _ in rows],
            "class": [name for _, name, _ in rows],
            "share": [share for _, _, share in rows],
        }


def fleet(
    workload: Workload,
    types: Sequence[ServerType],
    solver: Solver | None = None,
    *,
    load_of: LoadOf | None = None,
    sized_by: str = "",
) -> Fleet:
    """The cheapest fleet, with a table for a replica of each type.

    Args:
        solver: Of the tables; `Paced` unless told.
        load_of: What fills a replica, for instance by service levels; the edge of
            stability where None.
        sized_by: The same in words, for the reader.

    Raises:
        InputError: No types, one twice, or a class whose requests fit on no type.
        InfeasibleError: The largest counts are not enough, with the largest multiple of the rates
            that they carry; or a replica has no table of this policy.

    >>> import fluidwait as fw
    >>> load = fw.Workload.of(chat=fw.Requests(40.0, prompt=512, output=100))
    >>> types = [fw.ServerType(fw.Server.named("engine-long-decode"))]
    >>> fw.fleet(load, types).replicas[0].table.policy
    'paced'
    """
    _require_types(types)
    parts, cost_at_least = _verified(workload, types, load_of or _stability_load)
    return Fleet(
        workload=workload,
        replicas=tuple(
            Replicas(
                server=kind.server,
                count=one.count,
                shares=one.shares,
                workload=one.seen,
                load=one.load,
                table=(solver or Paced()).solve(one.seen, kind.server),
            )
            for kind, one in parts
        ),
        cost=float(sum(kind.cost * one.count for kind, one in parts)),
        cost_at_least=cost_at_least,
        sized_by=sized_by,
        routings=tuple(
            routing(one.seen.scaled(one.count), kind.server, one.count)
            for kind, one in parts
            if one.seen.has_prefixes
        ),
    )


@dataclass(frozen=True)
class _Part:
    """What goes to one type: shares of the classes, what one replica sees, and its load 1/α*."""

    count: int
    shares: dict[str, float]
    seen: Workload
    load: float


def _verified(
    workload: Workload, types: Sequence[ServerType], load_of: LoadOf
) -> tuple[list[tuple[ServerType, _Part]], float]:
    """The types that are used, such that the servers' own iteration times carry their parts.

    And the cost that no fleet goes below. By service levels and with one class, a_i of a type is
    all that there is to know of it, so that the last program proves its own cost.
    """
    servers = [one.server for one in types]
    normals = np.array([_normal_s(workload, one) for one in servers])
    if np.isinf(normals).all(axis=0).any():
        require_fits(workload, max(servers, key=lambda one: one.usable_kv_tokens))
    costs = np.array([one.cost for one in types])
    most = np.array([np.inf if one.max_count is None else one.max_count for one in types])
    least = lightest(workload)
    alone = normals
    if least is not workload:
        # Hits depend on the mix, so that no half-space holds but that of all found at no cost.
        alone = np.array([_normal_s(least, one) for one in servers])
    bound = cheapest(necessary(least, servers, alone), costs, most)
    if bound is None:
        raise _too_few(workload, types, normals)
    counts: NDArray[np.int_] | None = bound.counts
    at_least = bound.at_least
    for _ in range(_ROUNDS):
        halfspaces = carried(workload, normals)
        # The counts of the bound serve where they leave every server a little inside its region.
        if counts is None or levelled(halfspaces, counts)[0] > 1 - _INSIDE:
            found = cheapest(halfspaces, costs, most, _INSIDE)
            if found is None:
                raise _too_few(workload, types, normals)
            counts = found.counts
            if len(workload.classes) == 1 and load_of is not _stability_load:
                at_least = max(at_least, found.at_least)
        level, flows = levelled(halfspaces, counts)
        if np.isinf(level):
            raise InputError("rates and times", f"{counts.sum():.3g} servers", FEWER_DECADES)
        parts = [
            _part(workload, one, count, flow, load_of)
            for one, count, flow in zip(servers, counts.tolist(), flows, strict=True)
        ]
        loads = np.array([0.0 if one is None else one.load for one in parts])
        if (loads <= 1).all():
            used = [(kind, one) for kind, one in zip(types, parts, strict=True) if one is not None]
            return used, at_least
        if np.isinf(loads).any():
            names = [one.name for one, load in zip(servers, loads, strict=True) if np.isinf(load)]
            raise InfeasibleError(
                f"{', '.join(names)} may not carry any rate of its part of {workload.name}",
                "service levels",
                "relax a limit, or leave that server out",
            )
        # What the half-spaces took for less than a full load they are to take for what it is; a
        # little less while it is far from full, as other counts may just be.
        over = loads > 1
        taken = np.multiply(normals, flows, out=np.zeros_like(flows), where=flows > 0).sum(axis=1)
        aside = np.where(loads > 1 + 4 * _INSIDE, 1 - 2 * _INSIDE, 1 + _INSIDE)
        normals[over] *= (loads[over] * aside[over] * counts[over] / taken[over])[:, None]
        counts = None
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


def _too_few(workload: Workload, types: Sequence[ServerType], normals: Floats) -> InfeasibleError:
    """The error of counts that are too small, with the scale that they carry."""
    most = np.array([np.inf if one.max_count is None else one.max_count for one in types])
    scale = largest_multiple(carried(workload, normals), most, _INSIDE)
    change = "allow more servers"
    if scale > 0:
        change = f"multiply all rates by at most {rounded_down(scale)}, or {change}"
    return InfeasibleError(
        f"the largest numbers of servers do not carry {workload.name}", "servers", change, scale
    )


def _stability_load(workload: Workload, server: Server) -> float:
    return 1 / packing(workload, server).certain_scale


def _part(
    workload: Workload, server: Server, count: int, flow: Floats, load_of: LoadOf
) -> _Part | None:
    """The part of one type with flow (m,) in requests per second; None where it is unused."""
    if not count or not flow.any():
        return None
    rates = workload.rates_per_s
    seen = mixed(workload, flow / count)
    names = [one.name for one in workload.classes]
    shares = dict(zip(names, (flow / rates).tolist(), strict=True))
    return _Part(count, shares, seen, load_of(seen, server))
