"""Cuts and thresholds of Nested WAIT together: against enumeration, proven on larger loads."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fluid.errors import InfeasibleError
from fluid.iteration import IterationTime
from fluid.server import Server
from fluid.workload import Workload
from tests.support.builders import workload
from tests.support.nested_cases import random_instance
from tests.support.nested_enumeration import OBJECTIVES, disagreement, small_instance
from thresholds.solvers.majorant import Line
from thresholds.solvers.nested import graph_kernel as kernel
from thresholds.solvers.nested.bounds import Bound, Relaxation
from thresholds.solvers.nested.cuts import CutSearch, known_design
from thresholds.solvers.nested.goals import Goal, goal_of
from thresholds.solvers.nested.graph import graph_of, whole_grid
from thresholds.solvers.nested.joint import best_design, least_load
from thresholds.solvers.nested.nested_wait import NestedWait
from thresholds.solvers.nested.requirement import (
    boundary_exponent,
    chain_holds,
    mean_latency_s,
    nested_memory,
)
from thresholds.solvers.nested.search import aim_of
from thresholds.solvers.nested.segments import distinct_lengths
from thresholds.table import ThresholdTable
from validation.experiments.simulate import simulate
from validation.policies import POLICIES
from validation.simulator.model import poisson_model
from validation.simulator.runs import Runs

TWENTY = Path(__file__).parents[1] / "data" / "nested-twenty-lengths.json"
SHORT = workload((9.0, 1, 1), (7.0, 1, 3), (10.0, 1, 4))
SHORT_SERVER = Server(
    name="short",
    source="test",
    kv_capacity_tokens=2_000,
    block_tokens=1,
    first_token="decode",
    iteration_time=IterationTime.paper(0.01, 1e-6),
)
FOUR = workload((21.3, 33, 2), (8.5, 33, 4), (8.0, 33, 11), (15.7, 33, 14))


def four_server(tokens: int) -> Server:
    tau = IterationTime.affine(0.0174, per_kv_token_s=1.92e-6, per_prefill_token_s=1e-6)
    return SHORT_SERVER.model_copy(update={"kv_capacity_tokens": tokens, "iteration_time": tau})


def design_of(table: ThresholdTable) -> list[tuple[int | None, float]]:
    return [(one.up_to_tokens, one.threshold) for one in table.thresholds]


def simulated(table: ThresholdTable, load: Workload, server: Server):  # type: ignore[no-untyped-def]
    cuts = tuple(int(one.up_to_tokens or 0) for one in table.thresholds)
    n = tuple(int(one.threshold) for one in table.thresholds)
    policy = POLICIES["nested-wait"].configure({}, n, cuts)
    (found,) = simulate(poisson_model(load, server), policy, Runs(8, 10_000, 4))
    return found


@pytest.mark.parametrize("seed", range(30))
def test_every_objective_and_refusal_equals_enumeration(seed: int) -> None:
    """One objective per instance; all of them on 300: ``python -m tests.benchmarks.optimality``."""
    load, server, solver = small_instance(seed)
    solver = replace(solver, objective=OBJECTIVES[seed % len(OBJECTIVES)])
    assert disagreement(load, server, solver) is None


def test_the_best_cuts_are_found_and_simulate_as_predicted() -> None:
    """Cuts 1/4 with n = 4/3 take 0.540 s."""
    table = NestedWait(segments=2).solve(SHORT, SHORT_SERVER)
    assert design_of(table) == [(3, 2), (4, 1)]
    assert table.solver.objective == pytest.approx(0.264, abs=5e-4)
    assert table.solver.optimality_gap == 0
    assert table.solver.status == "optimal"
    found = simulated(table, SHORT, SHORT_SERVER)
    assert found.latency_s.mean == pytest.approx(0.261, abs=3 * found.latency_s.half_width + 5e-4)


@pytest.mark.parametrize("tokens", [1_600, 1_700, 1_790])
def test_more_memory_never_makes_a_load_infeasible(tokens: int) -> None:
    table = NestedWait(segments=2).solve(FOUR, four_server(tokens))
    needed = table.memory.required_tokens + table.memory.buffer_tokens
    assert needed == pytest.approx(1_545.13, abs=0.01)


def test_infeasible_is_said_with_the_least_memory_of_all_cuts() -> None:
    with pytest.raises(InfeasibleError, match="at least 1546 KV tokens are needed") as caught:
        NestedWait(segments=2).solve(FOUR, four_server(1_545))
    assert "raise kv_capacity_tokens to at least 1546" in caught.value.nearest
    assert NestedWait(segments=2).solve(FOUR, four_server(1_546))


@pytest.mark.parametrize("index", [0, 7])
def test_twenty_lengths_with_free_cuts_are_proven(index: int) -> None:
    """All ten within 10 s: ``python -m tests.benchmarks.optimality``."""
    document = json.loads(TWENTY.read_text(encoding="utf-8"))[index]
    load = Workload.from_document(document["workload"])
    server = Server.from_document(document["server"])
    table = NestedWait(time_limit_s=600.0).solve(load, server)
    assert table.solver.optimality_gap == 0


def test_out_of_time_the_gap_is_what_is_left_to_prove() -> None:
    document = json.loads(TWENTY.read_text(encoding="utf-8"))[0]
    load = Workload.from_document(document["workload"])
    server = Server.from_document(document["server"])
    short = NestedWait(time_limit_s=1e-9).solve(load, server)
    best = NestedWait(time_limit_s=600.0).solve(load, server)
    assert short.solver.optimality_gap is not None
    assert short.solver.objective is not None
    assert best.solver.objective is not None
    assert short.solver.objective > best.solver.objective
    bound = short.solver.objective / (1 + short.solver.optimality_gap)
    assert bound <= best.solver.objective
    assert short.solver.status == "feasible, with a bound"


def test_a_rate_is_the_largest_that_the_table_carries() -> None:
    table = NestedWait(objective="rate").solve(FOUR, four_server(4_000))
    assert table.solver.objective_name == "rate_per_s"
    assert table.valid_for.max_rate_per_s == pytest.approx(table.solver.objective)
    slack = NestedWait(objective="slack").solve(FOUR, four_server(4_000))
    assert slack.thresholds == table.thresholds
    with pytest.raises(InfeasibleError):
        NestedWait().solve(FOUR.at_rate(1.01 * table.valid_for.max_rate_per_s), four_server(4_000))


@pytest.mark.parametrize("first_token", ["prefill", "decode"])
def test_mean_ttft_of_the_literal_rule_is_simulated(first_token: str) -> None:
    server = SHORT_SERVER.model_copy(update={"first_token": first_token})
    table = NestedWait(objective="ttft", segments=2).solve(SHORT, server)
    found = simulated(table, SHORT, server)
    stated_s = table.predicted.policy_ttft_s
    assert stated_s is not None
    assert stated_s == table.solver.objective
    segments = distinct_lengths(SHORT, server).segments([1, 2])
    n = np.array([float(one.threshold) for one in table.thresholds])
    assert [one.up_to_tokens for one in table.thresholds] == segments.cuts.tolist()
    # The queueing term counts Kingman's ΔT/(2n) too much (wait.batch.FullBatch.ttft_s).
    expected_s = stated_s - float(segments.iteration_time_s(n)) / (2 * n[0])
    assert abs(found.ttft_s.mean - expected_s) <= found.ttft_s.half_width + 0.015 * expected_s


def goals(lengths) -> list[Goal]:  # type: ignore[no-untyped-def]
    return [goal_of(one, lengths) for one in ("latency", "ttft", "memory", "slack")]


@pytest.mark.parametrize("seed", range(6))
def test_a_path_of_the_graph_is_a_design(seed: int) -> None:
    """Resources of the shortest path, for random weights, equal those of its thresholds."""
    load, server = random_instance(seed, 4)
    lengths = distinct_lengths(load, server)
    rng = np.random.default_rng(seed)
    graph = graph_of(lengths, counts_waiting=True)
    grid, log = whole_grid(graph, 12), 17.0
    assert grid.is_exact
    for layers in (0, 3):
        weights = rng.uniform(0.1, 1, 4) / np.array([0.1, 100, 0.01, 10_000])
        goal = goal_of("latency", lengths)
        relaxation = Relaxation(graph, grid, goal, Line(0.01, 0.0), log, layers)
        values = kernel.completions(
            graph.arcs, grid.arcs, graph.spans(weights), weights, log, layers
        )
        bound = Bound((1.0,), weights, values, np.zeros(12))
        for state in range(12):
            if np.isinf(values[state, -1]):
                continue
            path, used = relaxation.path(bound, state)
            ends = np.append(path[1:, 0].astype(int) - 1, 3)
            segments = lengths.segments(ends)
            n = path[:, 1]
            assert layers in (0, len(n))
            assert n[0] == state + 1
            assert chain_holds(n, segments)
            assert used[3] == pytest.approx(float(nested_memory(n, segments, log).total))
            tau = server.iteration_time
            time_s = float(tau.token_seconds(used[1])) + used[2]
            assert time_s == pytest.approx(float(segments.iteration_time_s(n)))
            u = float(segments.load(n))
            if u < 1:
                rate = float(segments.rates_per_s[0])
                outside_s = ((n[0] - 1) / 2 + u / (2 * (1 - u))) / rate
                assert outside_s + time_s + used[0] == pytest.approx(
                    float(mean_latency_s(n, segments))
                )
            assert float(weights @ used) == pytest.approx(values[state, -1])


@pytest.mark.parametrize("seed", range(8))
def test_bounds_are_below_every_design(seed: int) -> None:
    """Random multipliers, coarse intervals of thresholds: no design beats the bound at its n_1."""
    load, server = random_instance(seed, 3)
    lengths = distinct_lengths(load, server)
    rng = np.random.default_rng(seed)
    tau = server.iteration_time
    line = Line(tau.overhead_s, tau.last_slope_s)
    for goal in goals(lengths):
        search = CutSearch(lengths, goal.objective)
        graph = graph_of(lengths, goal.objective == "latency")
        grid = whole_grid(graph, 2_000)
        assert not grid.is_exact
        relaxation = Relaxation(graph, grid, goal, line, search.log(1), 0)
        _, high = grid.starts
        multipliers = rng.uniform(0, 2, goal.dimensions) * 10 ** rng.uniform(-6, 1, goal.dimensions)
        least = relaxation.at_starts(relaxation.bound(multipliers))
        for ends in ([2], [0, 2], [1, 2], [0, 1, 2]):
            segments = lengths.segments(ends)
            n = np.sort(rng.integers(1, 1_000, (2_000, len(ends))), axis=1)[:, ::-1].astype(float)
            values = aim_of(goal.objective, segments, search.log(len(ends)))(n)
            state = np.searchsorted(high, n[:, 0])
            assert (values >= least[state] * (1 - 1e-9)).all()


def test_the_kernel_knows_the_exponent_and_f() -> None:
    for p in (1e-30, 1e-9, 0.01, 0.3, 0.9, 0.99):
        for way in (1e-4, 0.2, 0.9, 1 - 1e-6):
            r = p + way * (1 - p)
            assert kernel.inverse_exponent(r, p) * boundary_exponent(r, p) == pytest.approx(1)
    stairs = IterationTime(tokens_knots=(0.0, 8.0, 8.0, 20.0), seconds_knots=(0.1, 0.2, 0.3, 0.5))
    knots = np.array(stairs.tokens_knots), np.array(stairs.seconds_knots)
    for tokens in (0.0, 3.0, 8.0, 8.5, 20.0, 50.0):
        expected = float(stairs.token_seconds(tokens))
        assert kernel.token_seconds(tokens, *knots) == pytest.approx(expected)


@pytest.mark.parametrize("segments", [None, 2])
def test_no_design_has_less_load_than_infinite_thresholds(segments: int | None) -> None:
    lengths = distinct_lengths(FOUR, four_server(400_000))
    search = CutSearch(lengths, "slack", segments)
    least = least_load(search)
    found = best_design(search, 1.0)
    assert least < found.value < 1.05 * least


def test_more_lengths_than_are_looked_at_leave_no_bound() -> None:
    load = workload(*((0.02 * 0.99**k, 60, k + 1) for k in range(450)))
    server = SHORT_SERVER.model_copy(update={"kv_capacity_tokens": 2_000_000})
    table = NestedWait(segments=1).solve(load, server)
    assert table.solver.optimality_gap is None
    assert table.thresholds[-1].up_to_tokens == 450
    assert any("400 of 450 output lengths" in one for one in table.notes)


def test_the_first_design_is_feasible_or_said_not_to_be() -> None:
    search = CutSearch(distinct_lengths(FOUR, four_server(1_600)), "latency", 2)
    found = known_design(search)
    aim = aim_of("latency", found.segments, found.log)
    assert found.value == float(aim(found.thresholds[None])[0]) or math.isinf(found.value)
