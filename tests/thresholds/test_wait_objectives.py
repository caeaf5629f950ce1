"""Literal WAIT: every objective against enumeration, limits on means, bounds and prices."""

from __future__ import annotations

import math
from typing import Any

import cvxpy as cp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fluid.errors import InfeasibleError
from fluid.iteration import IterationTime
from fluid.server import Server
from fluid.steady.equilibrium import equilibrium
from fluid.workload import RequestClass, Slo, Workload
from tests.support import wait_program
from tests.support.builders import workload
from tests.support.wait_cases import PAPER_TAU, STAIRS, TWO, all_whole, instances, limited, server
from thresholds.fields import Price
from thresholds.solvers.majorant import Line, minorant_lines
from thresholds.solvers.paced.solver import Paced
from thresholds.solvers.registry import SOLVERS
from thresholds.solvers.wait.batch import FullBatch, full_batch
from thresholds.solvers.wait.bound import clocked_search
from thresholds.solvers.wait.mean_limits import mean_limits
from thresholds.solvers.wait.objectives import WAIT_OBJECTIVES
from thresholds.solvers.wait.relaxed import DelayProgram, delay_program, relaxed_optimum
from thresholds.solvers.wait.solver import Wait, valid_scales
from thresholds.solvers.wait.whole import DelayGoal
from thresholds.table import ThresholdTable
from validation.experiments.simulate import simulate
from validation.policies import POLICIES
from validation.simulator.model import poisson_model
from validation.simulator.runs import Runs

Instance = tuple[Workload, Server]


@st.composite
def limited_instances(draw: st.DrawFn) -> Instance:
    """Instances with limits on means near what the unlimited optimum has."""
    load, machine = draw(instances())
    batch = full_batch(load, machine)
    least = batch.least_thresholds()
    assume(least is not None)
    assert least is not None
    assume(batch.feasible(least))
    n = least + draw(st.integers(0, 2))
    for index in range(len(load.classes)):
        if not draw(st.booleans()):
            continue
        values = {
            "ttft_s": batch.ttft_s(n)[index],
            "latency_s": batch.latency_s(n)[index],
            "tpot_s": batch.tpot_s(n)[index],
        }
        chosen = draw(st.sampled_from(sorted(values)))
        assume(np.isfinite(values[chosen]))
        load = limited(load, index, **{chosen: float(values[chosen]) * draw(st.floats(0.7, 1.3))})
    return load, machine


def enumerated(load: Workload, machine: Server) -> tuple[FullBatch, np.ndarray[Any, Any]]:
    """All feasible whole thresholds within memory, limits included; small instances only."""
    batch = full_batch(load, machine)
    most = np.floor(machine.usable_kv_tokens / batch.memory_tokens)
    assume(math.prod(most) <= 200_000)
    grid = all_whole(batch, most)
    return batch, grid[mean_limits(load).hold(batch, grid)] if len(grid) else grid


def affine_program(load: Workload, machine: Server, stage: str = "latency") -> DelayProgram:
    batch = full_batch(load, machine)
    tau = machine.iteration_time
    last = batch.stages - 1 if stage == "latency" else batch.first_output
    line = Line(tau.overhead_s, tau.last_slope_s)
    return delay_program(batch, mean_limits(load), last, line, np.ones(len(load.classes)))


@given(instance=instances())
@settings(max_examples=100)
def test_interior_point_agrees_with_the_geometric_program_of_cvxpy(instance: Instance) -> None:
    load, machine = instance
    batch = full_batch(load, machine)
    assume(batch.feasible(batch.least_thresholds()))
    ours = relaxed_optimum(affine_program(load, machine))
    theirs = wait_program.relaxed_optimum(batch)
    assume(ours is not None and theirs is not None and theirs.is_bound)
    assert ours is not None
    assert theirs is not None
    assert ours.bound_s <= theirs.value * (1 + 1e-5)
    assert ours.value_s == pytest.approx(ours.bound_s, rel=1e-5)
    assert ours.value_s == pytest.approx(theirs.value, rel=1e-5)


@given(instance=limited_instances(), objective=st.sampled_from(["latency", "ttft", "memory"]))
@settings(max_examples=100, deadline=None)
def test_least_delay_and_memory_equal_enumeration(instance: Instance, objective: str) -> None:
    load, machine = instance
    batch, grid = enumerated(load, machine)
    if not len(grid):
        with pytest.raises(InfeasibleError):
            Wait(objective=objective).solve(load, machine)
        return
    table = Wait(objective=objective).solve(load, machine)
    values = {
        "latency": batch.mean_latency_s(grid),
        "ttft": batch.mean_s(batch.ttft_s(grid)),
        "memory": batch.memory(grid),
    }[objective]
    assert table.solver.objective == pytest.approx(values.min(), rel=1e-9)
    assert table.solver.optimality_gap == 0
    assert table.solver.status == "optimal"
    assert all(one.holds for one in table.certificate)


def four_classes(seed: int) -> Instance:
    """Four short classes at half the boundary, on a server whose memory allows some ten each."""
    generator = np.random.default_rng(seed)
    tau = IterationTime.affine(0.01, 2e-5, 5e-7)
    shapes = zip(
        generator.uniform(1.0, 6.0, 4),
        generator.integers(20, 60, 4),
        generator.integers(1, 4, 4),
        strict=True,
    )
    load = workload(*((float(rate), int(p), int(d)) for rate, p, d in shapes))
    machine = server(tau, 1_500, "prefill")
    return load.scaled(0.5 * equilibrium(load, machine).max_scale), machine


@pytest.mark.parametrize("seed", range(12))
def test_four_classes_equal_enumeration(seed: int) -> None:
    load, machine = four_classes(seed)
    batch = full_batch(load, machine)
    grid = all_whole(batch, np.full(4, np.inf))
    assert len(grid) > 10
    table = Wait().solve(load, machine)
    assert table.solver.objective == pytest.approx(batch.mean_latency_s(grid).min(), rel=1e-9)
    assert table.solver.optimality_gap == 0


@given(instance=limited_instances(), objective=st.sampled_from(["slack", "rate"]))
@settings(max_examples=60, deadline=None)
def test_largest_slack_and_rate_equal_enumeration(instance: Instance, objective: str) -> None:
    load, machine = instance
    batch, grid = enumerated(load, machine)
    assume(len(grid))
    table = Wait(objective=objective).solve(load, machine)
    busiest = batch.loads(grid).max(axis=-1)
    drift, memory = 1 - busiest, 1 - batch.memory(grid) / machine.usable_kv_tokens
    best = {
        "slack": np.minimum(drift, memory).max(),
        "rate": (load.rate_per_s / busiest).max(),
    }[objective]
    assert table.solver.objective == pytest.approx(best, rel=1e-6, abs=1e-8)


@given(instance=limited_instances())
@settings(max_examples=60, deadline=None)
def test_the_search_over_iteration_times_brackets_the_optimum(instance: Instance) -> None:
    load, machine = instance
    batch, grid = enumerated(load, machine)
    assume(len(grid))
    goal = DelayGoal(batch, mean_limits(load), batch.stages - 1)
    tau = machine.iteration_time
    line = Line(tau.overhead_s, tau.last_slope_s)
    least = goal.limits.least_thresholds(batch)
    assert least is not None
    found, value_s, bound_s = clocked_search(goal, line, least, batch.rates_per_s.sum(), 0.0)
    best_s = goal.value_s(grid).min()
    assert bound_s <= best_s * (1 + 1e-9)
    assert value_s >= best_s * (1 - 1e-9)
    assert value_s == pytest.approx(float(goal.value_s(found)))


def test_many_classes_keep_a_proven_gap() -> None:
    draw = np.random.default_rng(3)
    sizes = zip(draw.uniform(0.5, 1.5, 300), draw.integers(10, 300, 300), strict=True)
    load = workload(*[(float(rate), int(prompt), 1 + int(prompt) % 9) for rate, prompt in sizes])
    machine = server(IterationTime.affine(0.01, 4e-5, 3e-7), 3_000_000, "prefill")
    load = load.scaled(0.8 * equilibrium(load, machine).max_scale)
    table = Wait().solve(load, machine)
    batch = full_batch(load, machine)
    n = np.array([one.threshold for one in table.thresholds], dtype=float)
    assert batch.feasible(n)
    assert table.solver.optimality_gap is not None
    assert 0 < table.solver.optimality_gap < 0.01
    steps = n + np.vstack([np.eye(300), -np.eye(300)])
    better = batch.mean_latency_s(steps[(steps >= 1).all(axis=1)])
    assert better.min() >= batch.mean_latency_s(n) * (1 - table.solver.optimality_gap)


def test_least_real_memory_is_the_fluid_point_of_a_linear_program() -> None:
    machine = server(PAPER_TAU)
    batch = full_batch(TWO, machine)
    n = cp.Variable(2, nonneg=True)
    time_s = machine.iteration_time.overhead_s + batch.work_seconds(0.0) @ n
    held = cp.Problem(cp.Minimize(batch.memory_tokens @ n), [n >= batch.rates_per_s * time_s])
    held.solve()
    assert held.value == pytest.approx(equilibrium(TWO, machine).kv_tokens, rel=1e-5)


@given(
    tokens=st.lists(st.integers(0, 3), min_size=1, max_size=5),
    rises=st.lists(st.floats(0, 0.02), min_size=5, max_size=5),
    least=st.floats(0.5, 300.0),
    wider=st.floats(1.0, 5.0),
)
def test_minorant_lines_lie_below_f_with_a_positive_intercept(
    tokens: list[int], rises: list[float], least: float, wider: float
) -> None:
    knots = [0.0, *np.cumsum(50.0 * np.array(tokens)).tolist()]
    assume(max(map(knots.count, knots)) <= 2 and (len(knots) < 2 or knots[-1] > knots[-2]))
    seconds = 0.01 + np.cumsum([0.0, *rises[: len(tokens)]])
    tau = IterationTime(tokens_knots=tuple(knots), seconds_knots=tuple(seconds.tolist()))
    lines = minorant_lines(tau, least, least * wider)
    inside = np.linspace(least, least * wider, 201)
    values = np.array([one.intercept_s + one.slope_s * inside for one in lines])
    assert lines
    assert (values <= tau.token_seconds(inside) * (1 + 1e-12)).all()
    assert all(one.intercept_s > 0 for one in lines)


@pytest.mark.parametrize("first_token", ["prefill", "decode"])
@pytest.mark.parametrize(("rate", "output", "threshold"), [(20.0, 20, 1), (27.0, 10, 2)])
def test_mean_ttft_of_the_literal_rule_is_simulated(
    first_token: str, rate: float, output: int, threshold: int
) -> None:
    """At high load within 1.5 % of Kingman's formula for E_n/D/1, ΔT/(2n) below THEORY 3.5."""
    load, machine = workload((rate, 512, output)), server(PAPER_TAU, first_token=first_token)
    policy = POLICIES["wait"].configure({}, (threshold,))
    (found,) = simulate(poisson_model(load, machine), policy, Runs(10, 10_000, 4))
    batch = full_batch(load, machine)
    stated_s = float(batch.ttft_s([threshold])[0])
    expected_s = stated_s - float(batch.iteration_time_s([threshold])) / (2 * threshold)
    assert found.ttft_s is not None
    assert found.ttft_s.half_width is not None
    error_s = abs(found.ttft_s.mean - expected_s)
    assert error_s <= found.ttft_s.half_width + 0.015 * expected_s


def test_limits_that_no_thresholds_keep_name_the_way_out() -> None:
    load = limited(TWO, 0, latency_s=0.5)
    with pytest.raises(InfeasibleError) as caught:
        Wait().solve(load, server(PAPER_TAU))
    assert caught.value.cause == "mean latency_s of c0"
    factor = float(caught.value.nearest.split("at least ")[1].split(",")[0])
    table = Wait().solve(limited(TWO, 0, latency_s=0.5 * factor), server(PAPER_TAU))
    assert all(one.holds for one in table.certificate)
    with pytest.raises(InfeasibleError):
        Wait().solve(limited(TWO, 0, latency_s=0.49 * factor), server(PAPER_TAU))


def test_quantiles_are_no_constraint_and_said() -> None:
    first = TWO.classes[0].model_copy(update={"slo": Slo(latency_s=0.5)})
    load = TWO.model_copy(update={"classes": (first, *TWO.classes[1:])})
    table = Wait().solve(load, server(PAPER_TAU))
    assert "the slo of c0 is no constraint" in table.notes[0]
    kept = Wait().solve(limited(TWO, 0, latency_s=50.0), server(PAPER_TAU))
    assert not any("no constraint" in one for one in kept.notes)
    assert any(one.condition == "mean latency_s of c0 ≤ 50 s" for one in kept.certificate)
    paced = Paced().solve(limited(TWO, 0, latency_s=50.0), server(PAPER_TAU))
    assert "the slo of c0 is no constraint" in paced.notes[0]


@given(instance=limited_instances())
@settings(max_examples=60, deadline=None)
def test_valid_rates_are_exactly_those_at_which_all_conditions_hold(instance: Instance) -> None:
    load, machine = instance
    batch, limits = full_batch(load, machine), mean_limits(load)
    n = limits.least_thresholds(batch)
    assume(n is not None and batch.feasible(n))
    assert n is not None

    def holds(scale: float) -> bool:
        other = full_batch(load.scaled(scale), machine)
        return bool(other.feasible(n) & limits.hold(other, n))

    slowest, fastest = valid_scales(batch, limits, n)
    assert slowest <= 1 <= fastest
    inside = np.linspace(slowest * (1 + 1e-6), fastest * (1 - 1e-6), 9)
    assert all(holds(float(one)) for one in inside if one > 0 and slowest < 1 < fastest)
    assert not holds(fastest * (1 + 1e-4))
    if slowest > 0:
        assert not holds(slowest * (1 - 1e-4))


def price(table: ThresholdTable, of: str) -> Price:
    (found,) = [one for one in table.prices if one.of == of]
    return found


def test_prices_of_rates_are_the_slope_of_the_solved_optimum() -> None:
    machine = server(PAPER_TAU)
    table = Wait().solve(TWO, machine)
    for index, one in enumerate(TWO.classes):

        def optimum_s(rate_per_s: float, index: int = index) -> float:
            classes = list(TWO.classes)
            classes[index] = classes[index].model_copy(update={"rate_per_s": rate_per_s})
            load = TWO.model_copy(update={"classes": tuple(classes)})
            found = Wait().solve(load, machine).solver.objective
            assert found is not None
            return found

        step = 1e-4 * one.rate_per_s
        rise_s = optimum_s(one.rate_per_s + step) - optimum_s(one.rate_per_s - step)
        found = price(table, f"rate_per_s of {one.name}")
        assert found.value == pytest.approx(rise_s / (2 * step), rel=1e-4)
        assert f"{found.value:+.3g} s" in found.words


def test_shares_of_the_margin_sum_to_the_load() -> None:
    machine = server(PAPER_TAU)
    table = Wait().solve(TWO, machine)
    shares = [
        -price(table, f"margin by rate_per_s of {one.name}").value * one.rate_per_s
        for one in TWO.classes
    ]
    assert sum(shares) == pytest.approx(1 / equilibrium(TWO, machine).max_scale)


CROWDED = workload((300.0, 100, 2), (100.0, 100, 3))
QUICK = IterationTime.affine(0.05, 1e-5, 1e-7)


def crowded_value_s(capacity: int, **limits: float) -> float:
    load = limited(CROWDED, 1, **limits) if limits else CROWDED
    found = relaxed_optimum(affine_program(load, server(QUICK, capacity, "prefill")))
    assert found is not None
    return found.value_s


def test_price_of_memory_is_the_slope_of_the_relaxed_optimum() -> None:
    loose = full_batch(CROWDED, server(QUICK, 10**6, "prefill"))
    found = relaxed_optimum(affine_program(CROWDED, server(QUICK, 10**6, "prefill")))
    assert found is not None
    capacity = int(0.97 * loose.memory(found.thresholds))
    tight = relaxed_optimum(affine_program(CROWDED, server(QUICK, capacity, "prefill")))
    assert tight is not None
    fall_s = crowded_value_s(capacity - 1) - crowded_value_s(capacity + 1)
    assert tight.memory_price_s == pytest.approx(fall_s / 2, rel=1e-2)
    assert found.memory_price_s < 1e-3 * tight.memory_price_s


@pytest.mark.parametrize("name", ["ttft_s", "latency_s", "tpot_s"])
def test_price_of_a_limit_is_the_slope_of_the_relaxed_optimum(name: str) -> None:
    machine = server(QUICK, 10**6, "prefill")
    free = relaxed_optimum(affine_program(CROWDED, machine))
    assert free is not None
    batch = full_batch(CROWDED, machine)
    limit_s = 0.97 * float(getattr(batch, name)(free.thresholds)[1])
    found = relaxed_optimum(affine_program(limited(CROWDED, 1, **{name: limit_s}), machine))
    assert found is not None
    step = 1e-3 * limit_s
    fall_s = crowded_value_s(10**6, **{name: limit_s - step})
    fall_s -= crowded_value_s(10**6, **{name: limit_s + step})
    assert found.limit_prices[name, 1] == pytest.approx(fall_s / (2 * step), rel=2e-2)


def test_prices_are_told_in_words() -> None:
    load = limited(CROWDED, 1, tpot_s=0.5)
    table = Wait().solve(load, server(QUICK, 10**6, "prefill"))
    assert price(table, "kv_capacity_tokens").words.startswith("more KV would not improve")
    assert "of the margin at its rate" in price(table, "margin by rate_per_s of c0").words
    assert Wait(objective="memory").solve(load, server(QUICK, 10**6, "prefill")).prices == ()


@pytest.mark.parametrize("policy", ["wait", "paced"])
@pytest.mark.parametrize("tau", [PAPER_TAU, STAIRS], ids=["affine", "stairs"])
def test_a_decode_server_after_disaggregation_gets_a_table(policy: str, tau: IterationTime) -> None:
    """THEORY 5.5: context arrives with the request, stages 1..l', no prefill work."""
    load = Workload(
        name="decode",
        classes=tuple(
            RequestClass(
                name=f"d{output}",
                rate_per_s=4.0,
                prefill_tokens=0,
                context_tokens=630,
                decode_tokens=output,
            )
            for output in (10, 20)
        ),
    )
    machine = server(tau)
    table = SOLVERS[policy]().solve(load, machine)
    sums = [sum(630 + s for s in range(1, output + 1)) for output in (10, 20)]
    n = np.array([one.threshold for one in table.thresholds])
    assert table.memory.required_tokens == pytest.approx(float(n @ sums))
    assert all(one.holds for one in table.certificate)


def test_the_largest_rate_is_found_where_loads_are_all_but_1() -> None:
    """Memory for 1e8 requests: climbing one by one took as many steps."""
    load = workload((1e-12, 65, 6))
    machine = server(IterationTime.affine(63.5, per_token_s=2e-5, per_kv_token_s=6e-5))
    batch = full_batch(load, machine.model_copy(update={"kv_capacity_tokens": 66_215_654_624}))
    none = mean_limits(load)
    found = WAIT_OBJECTIVES["rate"](batch, none, np.ones(1))
    assert found.thresholds[0] > 1e8
    assert batch.memory(found.thresholds) <= batch.server.usable_kv_tokens
    assert found.gap < 1e-9
