"""Literal WAIT: conditions, latency, geometric program and whole thresholds."""

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
from fluid.stages import class_stages
from fluid.steady.equilibrium import equilibrium
from fluid.workload import RequestClass, Workload
from tests.support.builders import workload
from tests.support.wait_cases import (
    PAPER_TAU,
    STAIRS,
    TWO,
    all_whole,
    instances,
    server,
    thresholds_of,
)
from tests.support.wait_program import latency_program, relaxed_optimum
from thresholds.solvers.majorant import Line, is_concave, majorant_lines
from thresholds.solvers.wait.batch import full_batch, literal_wait_latency_s
from thresholds.solvers.wait.solver import Wait


def test_theory_3_2_instance_breaks_drift_of_the_first_class_only() -> None:
    loads = full_batch(TWO, server(PAPER_TAU)).loads([1, 1])
    assert loads[0] == pytest.approx(1.036, abs=5e-4)
    assert loads[1] < 1


def test_its_table_has_strict_slack_everywhere() -> None:
    table = Wait().solve(TWO, server(PAPER_TAU))
    assert all(one.holds for one in table.certificate)
    assert all(one.slack > 0 for one in table.certificate if one.condition.startswith("drift"))
    assert thresholds_of(table) != [1, 1]
    assert table.memory.required_tokens <= table.memory.capacity_tokens


def test_full_batch_matches_a_sum_over_requests_one_by_one() -> None:
    machine = server(STAIRS, first_token="prefill")
    batch = full_batch(workload((1.0, 30, 3), (1.0, 50, 2)), machine)
    n = (2, 1)
    # Class 0: 30 prompt tokens, then 31 and 32 KV; class 1: 50, then 51.
    prefill = 2 * 30 + 50
    kv = 2 * (31 + 32) + 51
    tokens = prefill + 2 * 2 + 1
    assert batch.iteration_time_s(n) == pytest.approx(
        float(STAIRS(tokens, kv_tokens=kv, prefill_tokens=prefill, decode_requests=5))
    )
    assert batch.memory(n) == 2 * (30 + 31 + 32) + 50 + 51


@given(
    prompt=st.integers(0, 300),
    context=st.integers(1, 300),
    output=st.integers(1, 60),
    block=st.sampled_from([1, 3, 16]),
    first_token=st.sampled_from(["prefill", "decode"]),
)
def test_closed_sums_equal_those_over_stages(
    prompt: int, context: int, output: int, block: int, first_token: str
) -> None:
    one = RequestClass(
        name="c",
        rate_per_s=1.0,
        prefill_tokens=prompt,
        context_tokens=0 if prompt else context,
        decode_tokens=output,
    )
    machine = server(PAPER_TAU, first_token=first_token).model_copy(update={"block_tokens": block})
    batch = full_batch(Workload(name="w", classes=(one,)), machine)
    stages = class_stages(one, machine)
    assert batch.memory_tokens[0] == stages.memory_sum
    assert batch.stages[0] == stages.count
    assert batch.first_output[0] == stages.first_output
    assert batch.kv_tokens[0] == stages.kv_tokens[stages.decodes].sum()
    assert batch.decode_requests[0] == stages.decodes.sum()
    assert batch.tokens[0] == stages.prefill_tokens + stages.decodes.sum()


def test_literal_latency_of_one_class_by_hand() -> None:
    machine = server(IterationTime.paper(0.0114, 0.43e-6))
    load = workload((20.0, 512, 20))
    time_s = 0.0114 + 0.43e-6 * (21 * 512 + 210)
    queueing_s = 20 * time_s / (2 * 20 * (1 - 20 * time_s))
    (latency_s,) = literal_wait_latency_s([1], load, machine)
    assert latency_s == pytest.approx(20 / 20 + time_s + queueing_s)
    assert latency_s == pytest.approx(1.02, abs=0.02)


def test_latency_is_infinite_where_drift_fails() -> None:
    latencies_s = literal_wait_latency_s([1, 1], TWO, server(PAPER_TAU))
    assert latencies_s[0] == np.inf
    assert np.isfinite(latencies_s[1])


@given(instance=instances())
@settings(max_examples=25)
def test_compiled_expression_equals_the_numeric_function(
    instance: tuple[Workload, Server],
) -> None:
    load, machine = instance
    batch = full_batch(load, machine)
    least = batch.least_thresholds()
    assert least is not None
    tau = machine.iteration_time
    program = latency_program(batch, Line(tau.overhead_s, tau.last_slope_s))
    program.thresholds.value = least * 1.25
    program.load.value = batch.loads(least * 1.25)
    assume((batch.loads(least * 1.25) < 1).all())
    compiled_s = float(program.problem.objective.value) + program.constant
    assert compiled_s == pytest.approx(float(batch.mean_latency_s(least * 1.25)), rel=1e-9)


@given(instance=instances(max_classes=2))
@settings(max_examples=20)
def test_program_optimum_equals_a_fine_grid(instance: tuple[Workload, Server]) -> None:
    load, machine = instance
    batch = full_batch(load, machine)
    assume(batch.feasible(batch.least_thresholds()))
    relaxed = relaxed_optimum(batch)
    assert relaxed is not None
    assume(relaxed.is_bound)
    wide = np.geomspace(0.2, 5, 101)
    fine = np.linspace(0.99, 1.01, 41)
    for factors in (wide, fine):
        axes = [np.maximum(factors * one, 1) for one in relaxed.thresholds]
        grid = np.array(list(itertools.product(*axes)))
        found_s = batch.mean_latency_s(grid[batch.feasible(grid)]).min()
        assert found_s >= relaxed.value * (1 - 1e-5)
    assert found_s == pytest.approx(relaxed.value, rel=1e-2)


@given(instance=instances())
@settings(max_examples=40)
def test_whole_thresholds_equal_enumeration(instance: tuple[Workload, Server]) -> None:
    load, machine = instance
    batch = full_batch(load, machine)
    assume(batch.feasible(batch.least_thresholds()))
    table = Wait().solve(load, machine)
    n = np.array(thresholds_of(table), dtype=float)
    assume(math.prod(3 * n + 10) <= 300_000)
    best_s = batch.mean_latency_s(all_whole(batch, 3 * n + 10)).min()
    assert table.solver.objective == pytest.approx(best_s, rel=1e-9)
    assert table.solver.optimality_gap == 0


@given(instance=instances())
@settings(max_examples=15)
def test_permuted_classes_get_the_same_thresholds(instance: tuple[Workload, Server]) -> None:
    load, machine = instance
    assume(full_batch(load, machine).feasible(full_batch(load, machine).least_thresholds()))
    turned = load.model_copy(update={"classes": load.classes[::-1]})
    forward = Wait().solve(load, machine)
    backward = Wait().solve(turned, machine)
    assert forward.solver.objective == pytest.approx(backward.solver.objective, rel=1e-9)


def test_doubled_rates_with_halved_seconds_change_nothing_but_the_clock() -> None:
    slow = server(PAPER_TAU)
    fast_tau = IterationTime.affine(0.0057, per_kv_token_s=0.215e-6, per_prefill_token_s=22.715e-6)
    first = Wait().solve(TWO, slow)
    second = Wait().solve(TWO.scaled(2.0), server(fast_tau))
    assert thresholds_of(first) == thresholds_of(second)
    assert first.predicted.policy_latency_s == pytest.approx(
        2 * (second.predicted.policy_latency_s or 0)
    )


def test_staircase_is_solved_to_the_optimum_on_itself() -> None:
    load = workload((4.0, 60, 4), (2.0, 100, 6))
    machine = server(STAIRS, 40_000, "prefill")
    table = Wait().solve(load, machine)
    batch = full_batch(load, machine)
    n = np.array(thresholds_of(table), dtype=float)
    assert batch.feasible(n)
    assert table.solver.optimality_gap == 0
    best_s = batch.mean_latency_s(all_whole(batch, 3 * n + 10)).min()
    assert table.solver.objective == pytest.approx(best_s, rel=1e-12)


def test_majorant_lines_lie_above_f_and_touch_it() -> None:
    tokens = np.linspace(1e-6, 3000, 5001)
    lines = majorant_lines(STAIRS, 3000.0)
    values = np.array([one.intercept_s + one.slope_s * tokens for one in lines])
    assert (values >= STAIRS.token_seconds(tokens) - 1e-12).all()
    assert all(one.intercept_s > 0 for one in lines)
    assert not is_concave(STAIRS, 3000.0)
    bent = IterationTime(tokens_knots=(0.0, 10.0, 20.0), seconds_knots=(0.01, 0.03, 0.04))
    assert is_concave(bent, 100.0)
    assert len(majorant_lines(bent, 100.0)) == 2


def test_too_little_memory_names_the_capacity_that_suffices() -> None:
    tau = IterationTime.paper(0.0114, 0.43e-6)
    load = workload((20.0, 512, 20))
    with pytest.raises(InfeasibleError) as caught:
        Wait().solve(load, server(tau, 10_000))
    assert caught.value.cause == "memory"
    needed = int(caught.value.nearest.split("at least ")[1].split(",")[0])
    assert Wait().solve(load, server(tau, needed)).memory.required_tokens == needed
    with pytest.raises(InfeasibleError):
        Wait().solve(load, server(tau, needed - 1))


def test_rates_that_would_fit_are_named() -> None:
    # n* = 1.76 fits with m = 306, whole n = 2 does not; n = 1 needs 9.2·scale·0.113 < 1.
    machine = server(IterationTime.affine(0.01, 1e-3), 581, "prefill")
    load = workload((9.2, 101, 3))
    with pytest.raises(InfeasibleError) as caught:
        Wait().solve(load, machine)
    scale = caught.value.max_scale
    assert scale == pytest.approx(1 / (9.2 * 0.113), rel=2e-4)
    assert "multiply all rates by at most 0.961" in caught.value.nearest
    assert thresholds_of(Wait().solve(load.scaled(0.961), machine)) == [1]


def test_unknown_output_lengths_are_refused() -> None:
    blind = TWO.model_copy(update={"decode_known": False})
    with pytest.raises(InputError) as caught:
        Wait().solve(blind, server(PAPER_TAU))
    assert caught.value.field == "decode_known"


def test_decode_only_classes_have_no_prefill_work() -> None:
    load = Workload(
        name="decode",
        classes=(
            RequestClass(
                name="d", rate_per_s=5.0, prefill_tokens=0, context_tokens=630, decode_tokens=20
            ),
        ),
    )
    batch = full_batch(load, server(PAPER_TAU))
    assert batch.memory([1.0]) == sum(630 + s for s in range(1, 21))
    assert batch.tokens.tolist() == [20]
    assert thresholds_of(Wait().solve(load, server(PAPER_TAU))) == [1]


def test_notes_say_what_literal_waiting_costs() -> None:
    machine = server(IterationTime.paper(0.0114, 0.43e-6))
    load = workload((20.0, 512, 20))
    table, first_order = Wait().solve(load, machine), equilibrium(load, machine).first_order
    assert table.predicted.policy_latency_s is not None
    assert first_order is not None
    times = table.predicted.policy_latency_s / first_order.latency_s
    assert times > 3
    assert any(f"{times:.2f} times" in note for note in table.notes)
    assert table.engine_flags.vllm == {}
