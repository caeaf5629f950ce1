"""Nested tables in simulation: replay, latency, and the overflows that the buffer allows."""

from __future__ import annotations

import math

import pytest

from fluid.iteration import IterationTime
from fluid.server import Server, load_server
from fluid.workload import Workload
from tests.support.builders import workload
from thresholds.solvers.nested.nested_wait import NestedWait
from thresholds.solvers.registry import SOLVERS
from validation.experiments.following import policy_of
from validation.experiments.replay import replay
from validation.simulator.cpu import Job, run
from validation.simulator.model import poisson_model
from validation.simulator.runs import Runs

SERVER = load_server("paper-long-decode")


TWO = workload((7.0, 512, 20), (3.0, 512, 50))
THREE = workload((4.0, 100, 3), (3.0, 100, 8), (5.0, 100, 15))


@pytest.mark.parametrize("policy", ["nested-wait", "nested-cap"])
def test_a_table_is_replayed_as_it_stands(policy: str) -> None:
    table = SOLVERS[policy](segments=2).solve(TWO, SERVER)
    configured = policy_of(table)
    assert configured.policy.name == policy
    assert list(configured.thresholds) == [one.threshold for one in table.thresholds]
    assert configured.cuts == (20, 50)
    found = replay(table, runs=Runs(4, 3_000))
    assert found.results[0].verdict == "stable"
    assert found.results[0].evictions_per_request == 0


@pytest.mark.parametrize("first_token", ["prefill", "decode"])
@pytest.mark.parametrize(("load", "segments"), [(TWO, 1), (TWO, 2), (THREE, 2), (THREE, 3)])
def test_predicted_latency_is_the_simulated_one(
    load: Workload, segments: int, first_token: str
) -> None:
    """Approximate: queues at boundaries are taken as uniform below n_k. Within 4 %."""
    server = SERVER.model_copy(update={"first_token": first_token})
    table = NestedWait(segments=segments).solve(load, server)
    found = replay(table, (), runs=Runs(6, 8_000)).results[0]
    assert found.latency_s is not None
    assert found.latency_s.half_width is not None
    predicted_s = table.predicted.policy_latency_s
    assert predicted_s is not None
    off = abs(found.latency_s.mean - predicted_s) - found.latency_s.half_width
    assert off <= 0.04 * predicted_s


@pytest.mark.parametrize("load", [TWO, THREE])
def test_overflows_are_no_more_frequent_than_delta(load: Workload) -> None:
    """KV with unlimited memory exceeds M(n) + buffers with probability at most δ, and M(n) alone
    far more often: the buffer is needed."""
    requests, replications, delta = 4_000, 200, 0.3
    roomy = SERVER.model_copy(update={"kv_capacity_tokens": 10_000_000})
    solver = NestedWait(
        objective="memory",
        overflow_probability=delta,
        horizon_s=1.2 * requests / load.rate_per_s,
        segments=len(load.classes),
    )
    table = solver.solve(load, roomy)
    jobs = [Job(policy_of(table), k) for k in range(replications)]
    largest = [one.kv_max_tokens for one in run(poisson_model(load, roomy), jobs, requests)]
    needed = table.memory.required_tokens + table.memory.buffer_tokens
    overflows = sum(one > needed for one in largest)
    allowed = replications * delta
    assert overflows <= allowed + 3 * math.sqrt(allowed * (1 - delta))
    assert sum(one > table.memory.required_tokens for one in largest) > 0.5 * replications


def test_interior_stages_never_exceed_their_thresholds_on_one_segment() -> None:
    """Without boundaries KV stays below M(n) on every path (THEORY 3.7)."""
    server = Server(
        name="small",
        source="test",
        kv_capacity_tokens=10_000_000,
        iteration_time=IterationTime.affine(0.01, 4e-5, 3e-7),
    )
    load = workload((6.0, 50, 5), (2.0, 50, 12))
    table = NestedWait(segments=1).solve(load, server)
    jobs = [Job(policy_of(table), k) for k in range(20)]
    largest = [one.kv_max_tokens for one in run(poisson_model(load, server), jobs, 4_000)]
    assert max(largest) <= table.memory.required_tokens
    assert table.memory.overflow_probability == 0
