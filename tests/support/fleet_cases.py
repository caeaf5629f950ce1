"""Random small fleets with near-ties, and their least cost by enumeration."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fluid.iteration import IterationTime
from fluid.server import Server
from fluid.steady.region import StabilityRegion
from fluid.workload import Workload
from tests.support import builders
from thresholds.fleet import ServerType, fleet

Floats = NDArray[np.float64]

MOST_VECTORS = 2_000_000


@dataclass(frozen=True)
class FleetCase:
    """One or two classes, up to eight affine server types; some types are limited in number."""

    workload: Workload
    types: tuple[ServerType, ...]


def random_fleet(seed: int, roomy: bool = False) -> FleetCase:
    """Half of them with prices that follow what a server carries up to 1e-6 … 1e-3.

    Roomy: every server holds dozens of requests, so that half-spaces are what it carries. Otherwise
    some hold a few only, where a fleet that is cheaper by half-spaces need not be certain.
    """
    draw = np.random.default_rng(seed)
    kinds = int(draw.integers(2, 9))
    servers = [_random_server(draw, kind, 60_000 if roomy else 3_000) for kind in range(kinds)]
    classes = [
        (1.0, int(draw.integers(20, 900)), int(draw.integers(2, 60)))
        for _ in range(draw.integers(1, 3))
    ]
    unit = builders.workload(*classes)
    carried = np.array([StabilityRegion(unit, one).intercepts_per_s[0] for one in servers])
    near_tie = 10.0 ** draw.uniform(-6, -3) if draw.random() < 0.5 else 0.5
    costs = carried * draw.uniform(1 - near_tie, 1 + near_tie, kinds)
    wanted = draw.uniform(0.3, 18.0 / kinds + 1) * carried.mean()
    rates = draw.dirichlet(np.ones(len(classes))) * wanted
    load = builders.workload(
        *((rate, *lengths) for rate, (_, *lengths) in zip(rates.tolist(), classes, strict=True))
    )
    types = tuple(
        ServerType(one, cost, int(draw.integers(0, 3)) if kind and draw.random() < 0.2 else None)
        for kind, (one, cost) in enumerate(zip(servers, costs.tolist(), strict=True))
    )
    return FleetCase(load, types)


def _random_server(draw: np.random.Generator, kind: int, least_tokens: int) -> Server:
    tau = IterationTime.affine(
        draw.uniform(0.005, 0.03),
        per_token_s=draw.uniform(0, 6e-5),
        per_kv_token_s=draw.uniform(1e-7, 6e-7),
    )
    tokens = int(draw.integers(least_tokens, 200_000))
    machine = builders.server(tau, "prefill", tokens)
    return machine.model_copy(update={"name": f"type-{kind}"})


def least_cost(case: FleetCase, below: float) -> float | None:
    """The least cost of all count vectors that cost less than `below` and carry the load.

    None where none of them does.
    """
    regions = [StabilityRegion(case.workload, one.server) for one in case.types]
    # Rates per second that one server of each type carries alone, shape (t, m).
    alone = np.array([one.intercepts_per_s for one in regions])
    rates = np.array([one.rate_per_s for one in case.workload.classes])
    counts, costs = np.zeros((1, 0)), np.zeros(1)
    for one in case.types:
        most = int((below - costs.min()) / one.cost) + 1
        most = most if one.max_count is None else min(most, one.max_count)
        costs = (costs[:, None] + one.cost * np.arange(most + 1)).ravel()
        options = np.tile(np.arange(most + 1), len(counts))
        counts = np.column_stack([np.repeat(counts, most + 1, axis=0), options])
        counts, costs = counts[costs < below], costs[costs < below]
        assert len(counts) <= MOST_VECTORS
    enough = costs[carries(counts, alone, rates)]
    return float(enough.min()) if len(enough) else None


def carries(counts: Floats, alone: Floats, rates: Floats) -> NDArray[np.bool_]:
    """Whether counts (n, t) carry the rates of one or two classes, for every count vector.

    The first class goes to the types that lose least of the second by it, as far as it needs them.
    """
    if len(rates) == 1:
        return np.asarray(counts @ alone[:, 0] >= rates[0])
    order = np.argsort(alone[:, 1] / alone[:, 0])
    counts, alone = counts[:, order], alone[order]
    first = counts * alone[:, 0]
    before = np.cumsum(first, axis=1) - first
    used = np.clip((rates[0] - before) / np.where(first > 0, first, 1), 0, 1)
    left = ((1 - used) * counts) @ alone[:, 1]
    return np.asarray((first.sum(axis=1) >= rates[0]) & (left >= rates[1]))


def excess(case: FleetCase) -> tuple[float, float]:
    """What `fleet` costs above the least cost, relative to it, and the gap that it states."""
    found = fleet(case.workload, case.types)
    cheaper = least_cost(case, found.cost * (1 - 1e-10))
    least = found.cost if cheaper is None else cheaper
    assert found.cost_at_least <= least * (1 + 1e-9)
    return found.cost / least - 1, found.optimality_gap
