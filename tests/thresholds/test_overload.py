"""Overload: the linear program against the greedy closed form, and on the server's own τ."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluid.iteration import IterationTime
from fluid.steady.equilibrium import equilibrium
from fluid.steady.stability import stability
from fluid.workload import Workload
from tests.support.builders import workload
from tests.support.packing_cases import PackingCase, exact_scale, exact_worth, tiny_packing
from tests.support.wait_cases import PAPER_TAU, STAIRS, server
from thresholds.overload import admission, best_shares

POSITIVE = st.floats(0.01, 10.0)


@given(classes=st.lists(st.tuples(POSITIVE, POSITIVE), min_size=1, max_size=6))
def test_shares_are_those_of_a_fractional_knapsack(classes: list[tuple[float, float]]) -> None:
    worth, load = np.array(classes).T
    room, best = 1.0, 0.0
    for index in np.argsort(-worth / load):
        taken = min(1.0, room / load[index])
        room, best = room - taken * load[index], best + taken * worth[index]
    shares = best_shares(worth, load)
    assert worth @ shares == pytest.approx(best, rel=1e-6)
    assert load @ shares <= 1 + 1e-6


def weighted(load: Workload, *weights: float) -> Workload:
    classes = tuple(
        one.model_copy(update={"weight": weight})
        for one, weight in zip(load.classes, weights, strict=True)
    )
    return load.model_copy(update={"classes": classes})


CROWD = workload((40.0, 512, 20), (30.0, 512, 50), (10.0, 100, 5))


@pytest.mark.parametrize("tau", [PAPER_TAU, STAIRS], ids=["affine", "stairs"])
def test_what_is_admitted_is_stable_and_worth_more_than_a_uniform_cut(tau) -> None:  # type: ignore[no-untyped-def]
    machine = server(tau, 40_000, "prefill")
    load = weighted(CROWD, 1.0, 5.0, 0.1)
    scale = equilibrium(load, machine).max_scale
    assert scale < 1
    found = admission(load, machine)
    assert found.load <= 1
    assert stability(found.workload, machine).stable
    uniform = scale * sum(one.weight * one.rate_per_s for one in load.classes)
    assert found.weight_per_s >= uniform * (1 - 1e-5)
    assert found.is_optimal == machine.iteration_time.is_affine
    assert found.load == pytest.approx(1, abs=0.02)


def test_dear_classes_are_admitted_first() -> None:
    machine = server(PAPER_TAU)
    for favoured in range(3):
        weights = [1.0 + 1e4 * (index == favoured) for index in range(3)]
        alone = CROWD.model_copy(update={"classes": CROWD.classes[favoured : favoured + 1]})
        fits = min(1.0, stability(alone, machine).max_scale)
        shares = admission(weighted(CROWD, *weights), machine).shares
        assert shares[f"c{favoured}"] == pytest.approx(fits, rel=1e-4)


def test_a_stable_load_is_admitted_whole() -> None:
    light = CROWD.scaled(0.05)
    found = admission(light, server(PAPER_TAU))
    assert set(found.shares.values()) == {1.0}
    assert found.workload == light


def test_where_requests_pack_badly_the_inner_bound_is_admitted() -> None:
    """1/1 in 2 tokens: one request in two iterations, 50/s, where the fluid bound says 66.7/s."""
    machine = server(IterationTime.affine(0.01), 2, "decode")
    found = admission(workload((60.0, 1, 1)), machine)
    assert found.shares["c0"] == pytest.approx(50 / 60, rel=1e-4)
    assert found.load == pytest.approx(1, abs=1e-4)
    assert not found.is_optimal
    light = workload((49.0, 1, 1))
    assert admission(light, machine).workload == light


@pytest.mark.parametrize("seed", [2, 5, 8])
def test_tiny_servers_carry_what_is_admitted(seed: int) -> None:
    tiny = tiny_packing(seed)
    scale = 1.5 * exact_scale(tiny)
    load = weighted(tiny.workload.scaled(scale), *range(1, 1 + len(tiny.workload.classes)))
    found = admission(load, tiny.server)
    assert exact_scale(PackingCase(found.workload, tiny.server)) >= 0.99
    best = exact_worth(PackingCase(load, tiny.server))
    assert 0.9 * best <= found.weight_per_s <= best / 0.99
