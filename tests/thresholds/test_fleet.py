"""Fleets: the mixed-integer program against enumeration, and every share on its own server."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from fluid.errors import InfeasibleError, InputError
from fluid.server import Server
from fluid.steady.region import StabilityRegion
from fluid.steady.stability import stability
from fluid.workload import Workload
from tests.support.builders import workload
from tests.support.wait_cases import PAPER_TAU, STAIRS, server
from thresholds.fleet import Fleet, ServerType, fleet
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


def test_a_server_that_is_not_affine_is_verified_on_itself() -> None:
    found = fleet(LOAD, [ServerType(STEPS), ServerType(SMALL, 0.7)])
    require_sound(found, LOAD)
    assert not found.is_optimal


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
