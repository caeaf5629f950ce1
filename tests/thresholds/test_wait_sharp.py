"""The sharper latency of literal WAIT: against enumeration, against simulation, and its limits."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fluid.errors import InfeasibleError, InputError
from fluid.iteration import IterationTime
from fluid.server import Server
from fluid.steady.equilibrium import equilibrium
from fluid.workload import Workload
from tests.support.builders import workload
from tests.support.wait_cases import (
    PAPER_TAU,
    STAIRS,
    TWO,
    instances,
    limited,
    server,
    thresholds_of,
)
from thresholds.solvers.wait.batch import full_batch
from thresholds.solvers.wait.sharp import SHARP, best_whole, sharp_latency
from thresholds.solvers.wait.solver import Wait
from validation.experiments.simulate import simulate
from validation.policies import POLICIES
from validation.simulator.model import poisson_model
from validation.simulator.runs import Runs

BENCH = server(IterationTime.affine(0.02, 3e-5, 3e-7), 60_000, "prefill")
PAIR = workload((30.0, 120, 4), (20.0, 200, 8))


@given(instance=instances(), tokens=st.floats(1.0, 3.0))
@settings(max_examples=100, deadline=None)
def test_best_thresholds_equal_enumeration(
    instance: tuple[Workload, Server], tokens: float
) -> None:
    load, machine = instance
    formula = sharp_latency(full_batch(load, machine))
    peak = max(one.prefill_tokens + one.decode_tokens for one in load.classes)
    capacity = max(peak, int(tokens * full_batch(load, machine).memory(formula.least())))
    machine = machine.model_copy(update={"kv_capacity_tokens": capacity})
    assume(equilibrium(load, machine).stable)
    batch = full_batch(load, machine)
    formula = sharp_latency(batch)
    most = np.floor(capacity / batch.memory_tokens)
    assume(math.prod(most) <= 200_000)
    grid = np.array(list(itertools.product(*(range(1, int(one) + 1) for one in most))))
    grid = grid[batch.memory(grid) <= capacity]
    best_s = formula.value_s(grid).min()
    found, value_s, bound_s = best_whole(formula)
    assert batch.memory(found) <= capacity
    assert value_s == pytest.approx(float(formula.value_s(found)))
    assert bound_s <= best_s * (1 + 1e-9)
    assert value_s >= best_s * (1 - 1e-9)
    if value_s <= bound_s * (1 + 1e-9):
        assert value_s == pytest.approx(best_s, rel=1e-9)


def test_thresholds_need_only_exceed_the_fluid_inventory() -> None:
    machine = server(PAPER_TAU)
    found = equilibrium(TWO, machine)
    formula = sharp_latency(full_batch(TWO, machine))
    inventory = [one.in_service_per_stage for one in found.classes]
    assert formula.inventory.tolist() == pytest.approx(inventory)
    # THEORY 3.2: n = (1, 1) breaks drift and yet holds 1.55 s in simulation.
    assert formula.value_s(np.array([1.0, 1.0])) < np.inf


def test_one_class_is_the_formula_of_the_full_batch() -> None:
    load = workload((20.0, 512, 20))
    batch = full_batch(load, server(PAPER_TAU))
    n = np.array([[1.0], [2.0], [5.0]])
    assert sharp_latency(batch).value_s(n).tolist() == pytest.approx(
        batch.mean_latency_s(n).tolist()
    )


@pytest.mark.parametrize("share", [0.6, 0.85])
def test_two_classes_in_simulation(share: float) -> None:
    """Within 3 % of the simulated latency, where THEORY 3.5 is further off."""
    load = PAIR.scaled(share * equilibrium(PAIR, BENCH).max_scale)
    table = Wait(objective=SHARP).solve(load, BENCH)
    policy = POLICIES["wait"].configure({}, tuple(thresholds_of(table)))
    (found,) = simulate(poisson_model(load, BENCH), policy, Runs(8, 20_000, 3))
    assert found.verdict == "stable"
    assert found.latency_s is not None
    assert found.latency_s.half_width is not None
    mean_s, half_s = found.latency_s.mean, found.latency_s.half_width
    sharp_s = table.predicted.policy_latency_s
    assert sharp_s is not None
    assert abs(sharp_s - mean_s) <= half_s + 0.03 * mean_s
    full_s = full_batch(load, BENCH).mean_latency_s(np.array(thresholds_of(table), dtype=float))
    assert abs(full_s - mean_s) > abs(sharp_s - mean_s)


def test_the_table_says_what_the_theorem_covers_and_how_far_it_holds() -> None:
    load = PAIR.scaled(0.85 * equilibrium(PAIR, BENCH).max_scale)
    table = Wait(objective=SHARP).solve(load, BENCH)
    assert all(one.holds for one in table.certificate)
    assert any(one.startswith("Theorem 1") for one in table.notes)
    n = np.array(thresholds_of(table), dtype=float)
    for factor, finite in ((0.9999, True), (1.0001, False)):
        edge = load.at_rate(factor * table.valid_for.max_rate_per_s)
        value_s = sharp_latency(full_batch(edge, BENCH)).value_s(n)
        assert np.isfinite(value_s) == finite


def test_what_the_sharper_formula_cannot_do_is_refused() -> None:
    for load, machine in (
        (TWO, server(STAIRS)),
        (limited(TWO, 0, latency_s=50.0), server(PAPER_TAU)),
    ):
        with pytest.raises(InputError) as caught:
            Wait(objective=SHARP).solve(load, machine)
        assert caught.value.field == "objective"


def test_too_little_memory_names_the_capacity_that_suffices() -> None:
    load, tau = workload((20.0, 512, 20)), IterationTime.paper(0.0114, 0.43e-6)
    with pytest.raises(InfeasibleError) as caught:
        Wait(objective=SHARP).solve(load, server(tau, 10_000))
    needed = int(caught.value.nearest.split("at least ")[1].split(",")[0])
    assert Wait(objective=SHARP).solve(load, server(tau, needed)).memory.required_tokens == needed
