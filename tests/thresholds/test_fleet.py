"""Fleets: the mixed-integer program against enumeration, and every share on its own server."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from fluid.errors import InfeasibleError, InputError
from fluid.server import Server
from fluid.steady.region import StabilityRegion
from fluid.steady.stability import stability
from fluid.workload import Workload
from tests.support.builders import workload
from tests.support.fleet_cases import excess, random_fleet
from tests.support.wait_cases import PAPER_TAU, STAIRS, server
from thresholds.fleet import Fleet, LoadOf, ServerType, fleet
from thresholds.fleet_program import necessary
from thresholds.solvers.paced.solver import Paced


def named(machine: Server, name: str) -> Server:
    return machine.model_copy(update={"name": name})


SMALL = named(server(PAPER_TAU, 20_000), "small")
LARGE = named(server(PAPER_TAU, 200_000), "large")
STEPS = named(server(STAIRS, 60_000, "prefill"), "steps")
LOAD = workload((30.0, 512, 20), (20.0, 200, 60))


def carries(load: Workload, machines: list[Server]) -> bool:
    """Whether shares exist with which every single server is stable (affine servers)."""
    rates = np.array([one.rate_per_s for one in load.classes])
    normals = [StabilityRegion(load, one).normal_s for one in machines]
    m, k = len(rates), len(machines)
    rows = np.zeros((k, k * m))
    for index, normal in enumerate(normals):
        assert normal is not None
        rows[index, index * m : (index + 1) * m] = normal
    routed = np.tile(np.eye(m), k)
    return bool(linprog(np.zeros(k * m), rows, np.ones(k), routed, rates).status == 0)


def require_sound(found: Fleet, load: Workload) -> None:
    for one in load.classes:
        routed = sum(each.shares[one.name] for each in found.replicas)
        assert routed == pytest.approx(1)
        seen = sum(
            each.count * other.rate_per_s
            for each in found.replicas
            for other in each.workload.classes
            if other.name == one.name
        )
        assert seen == pytest.approx(one.rate_per_s)
    for each in found.replicas:
        assert each.load <= 1
        assert stability(each.workload, each.server).stable


@given(
    rates=st.tuples(st.floats(1, 60), st.floats(1, 60)),
    costs=st.tuples(st.floats(0.2, 3.0), st.floats(0.2, 3.0)),
)
@settings(max_examples=25, deadline=None)
def test_the_cheapest_fleet_equals_enumeration(
    rates: tuple[float, float], costs: tuple[float, float]
) -> None:
    load = workload((rates[0], 512, 20), (rates[1], 200, 60))
    types = [ServerType(SMALL, costs[0]), ServerType(LARGE, costs[1])]
    found = fleet(load, types)
    require_sound(found, load)
    assert found.is_optimal
    most = [int(found.cost / cost) + 1 for cost in costs]
    options = sorted(
        itertools.product(*(range(one + 1) for one in most)), key=lambda n: float(np.dot(n, costs))
    )
    cheapest = next(n for n in options if sum(n) and carries(load, [SMALL] * n[0] + [LARGE] * n[1]))
    assert found.cost == pytest.approx(float(np.dot(cheapest, costs)))


def test_one_type_needs_as_many_as_its_load() -> None:
    found = fleet(LOAD, [ServerType(LARGE)])
    (only,) = found.replicas
    load = 1 / stability(LOAD, LARGE).max_scale
    assert only.count == int(np.ceil(load))
    assert only.load == pytest.approx(load / only.count)
    assert list(only.shares.values()) == pytest.approx([1.0, 1.0])


@pytest.mark.parametrize("seed", range(15))
def test_no_fleet_of_many_types_is_cheaper(seed: int) -> None:
    above, gap = excess(random_fleet(seed))
    assert above <= 1e-9
    assert gap <= 1e-9


def test_large_fleets_whose_prices_nearly_tie_are_proven_to_be_the_cheapest() -> None:
    load = workload((900.0, 512, 20), (700.0, 200, 60))
    sizes = [SMALL, LARGE, named(server(PAPER_TAU, 50_000), "medium")]
    carried = [StabilityRegion(load, one).intercepts_per_s[0] for one in sizes]
    prices = [carried[0], carried[1] * 1.0003, carried[2] * 0.9998]
    found = fleet(load, [ServerType(*one) for one in zip(sizes, prices, strict=True)])
    require_sound(found, load)
    assert sum(one.count for one in found.replicas) > 30
    assert found.is_optimal
    assert found.cost_at_least == pytest.approx(found.cost, rel=1e-9)


def test_the_gap_of_a_fleet_on_the_boundary_is_stated() -> None:
    """Two servers would be full to the last request, so that there are three."""
    load = workload((1.0, 512, 20))
    load = load.at_rate(2 * stability(load, LARGE).max_scale)
    found = fleet(load, [ServerType(LARGE)])
    assert found.cost == 3
    assert found.cost_at_least == pytest.approx(2, abs=1e-5)
    assert not found.is_optimal
    assert found.optimality_gap == pytest.approx(1 / 3, abs=1e-5)
    assert "no fleet costs less than 2" in str(found)
    assert "(gap 33.3 %)" in str(found)


def test_a_server_that_is_not_affine_is_verified_on_itself() -> None:
    found = fleet(LOAD, [ServerType(STEPS), ServerType(SMALL, 0.7)])
    require_sound(found, LOAD)
    assert found.cost_at_least <= found.cost


def test_one_class_on_stairs_is_proven_by_its_largest_rate() -> None:
    load = workload((30.0, 512, 20))
    most = stability(load, STEPS).max_scale
    found = fleet(load.scaled(2.5 * most), [ServerType(STEPS)])
    assert (found.cost, found.is_optimal) == (3, True)


@pytest.mark.parametrize("machine", [STEPS, LARGE])
def test_what_a_server_carries_meets_the_necessary_half_spaces(machine: Server) -> None:
    region = StabilityRegion(LOAD, machine)
    halfspaces = necessary(LOAD, [machine], 1 / region.intercepts_per_s[None])
    for mix in ([1.0, 0.0], [3.0, 1.0], [1.0, 4.0], [0.0, 1.0]):
        on_boundary = region.reach(mix) * np.array(mix)
        assert (halfspaces.normals_s @ on_boundary).max() <= 1 + 1e-6


def test_a_class_goes_only_where_its_requests_fit() -> None:
    load = workload((5.0, 100, 5), (0.1, 30_000, 5))
    found = fleet(load, [ServerType(SMALL, 0.01), ServerType(LARGE)])
    shares = {one.server.name: one.shares for one in found.replicas}
    assert shares["large"]["c1"] == pytest.approx(1)
    with pytest.raises(InputError, match="c1"):
        fleet(load, [ServerType(SMALL)])


def test_replicas_get_tables() -> None:
    for one in fleet(LOAD, [ServerType(LARGE), ServerType(SMALL, 0.3)]).replicas:
        assert one.table == Paced().solve(one.workload, one.server)
        assert all(each.holds for each in one.table.certificate)


def test_too_few_servers_name_the_rate_they_carry() -> None:
    types = [ServerType(SMALL, max_count=1), ServerType(LARGE, max_count=1)]
    with pytest.raises(InfeasibleError) as caught:
        fleet(LOAD.scaled(3.0), types)
    scale = caught.value.max_scale
    assert scale is not None
    assert f"multiply all rates by at most {scale:.2f}"[:-1] in caught.value.nearest
    require_sound(fleet(LOAD.scaled(3.0 * scale * 0.999), types), LOAD.scaled(3.0 * scale * 0.999))
    with pytest.raises(InfeasibleError):
        fleet(LOAD.scaled(3.0 * scale * 1.001), types)


@pytest.mark.parametrize(
    ("types", "field"),
    [
        ([], "server"),
        ([(SMALL,), (SMALL,)], "server"),
        ([(SMALL, 0.0)], "cost of small"),
        ([(SMALL, float("inf"))], "cost of small"),
        ([(SMALL, 1.0, -1)], "max_count of small"),
        ([(SMALL, 1.0, 1.5)], "max_count of small"),
    ],
)
def test_what_cannot_be_a_fleet_is_refused(types: list[Any], field: str) -> None:
    with pytest.raises(InputError) as caught:
        fleet(LOAD, [ServerType(*one) for one in types])
    assert caught.value.field == field


def share_of(largest_per_s: dict[str, float]) -> LoadOf:
    """Loads by what a server may carry of any mix, known beforehand."""
    return lambda seen, server: seen.rate_per_s / largest_per_s[server.name]


@given(
    rate=st.floats(20, 100),
    largest=st.tuples(st.floats(1, 9), st.floats(1, 9)),
    cost=st.floats(0.2, 3),
)
@example(rate=53.6875, largest=(1.916015625, 1.0), cost=1.0)
@example(rate=20.0, largest=(1.0, 1.0), cost=1.0)
@settings(max_examples=8, deadline=None)
def test_a_fleet_by_other_loads_equals_enumeration(
    rate: float, largest: tuple[float, float], cost: float
) -> None:
    """What a replica may carry is less than what is stable, as with service levels."""
    load, known = workload((rate, 64, 4)), dict(zip((SMALL.name, LARGE.name), largest, strict=True))
    assert min(stability(load, one).max_scale for one in (SMALL, LARGE)) * rate > 9
    found = fleet(load, [ServerType(SMALL), ServerType(LARGE, cost)], load_of=share_of(known))
    counts = range(int(rate / min(largest)) + 2)
    cheapest = min(
        first + cost * max(0, math.ceil((rate - first * largest[0]) / largest[1] * (1 - 1e-9)))
        for first in counts
    )
    assert found.cost == pytest.approx(cheapest, rel=1e-5)
    assert found.is_optimal
    assert all(one.load <= 1 for one in found.replicas)


def test_a_server_that_may_carry_nothing_is_named() -> None:
    with pytest.raises(InfeasibleError, match=f"{LARGE.name} may not carry any rate"):
        fleet(LOAD, [ServerType(LARGE)], load_of=lambda seen, server: math.inf)


@pytest.mark.parametrize("exponent", range(0, 20, 2))
def test_a_fleet_of_any_size_is_sound(exponent: int) -> None:
    """Of more servers than the tolerances of a solver of linear programs allow for."""
    load = workload((0.5, 884, 7), (3.0, 182, 11)).scaled(10.0**exponent)
    found = fleet(load, [ServerType(SMALL), ServerType(LARGE, 1.5)])
    require_sound(found, load)
    assert found.cost == pytest.approx(found.cost_at_least, rel=1e-3)
