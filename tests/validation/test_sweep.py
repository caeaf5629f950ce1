"""Sweeps: the grid, the store that survives a kill, and bisection for the capacity."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from pyarrow.dataset import dataset

from fluid.iteration import IterationTime
from fluid.server import Server
from fluid.workload import RequestClass, Workload
from validation.experiments.boundary_search import TOLERANCE
from validation.experiments.compare import PolicyResult, compare, latency_difference
from validation.experiments.largest_rate import find_capacities, find_capacity
from validation.experiments.store import Store
from validation.experiments.sweep import Configuration, Local, grid, model_digest, sweep
from validation.policies import parse_policy
from validation.simulator.model import Model, poisson_model


@pytest.fixture(scope="module")
def model() -> Model:
    """One request at a time, one second each: stable below 1/s."""
    server = Server(
        name="unit",
        source="test",
        kv_capacity_tokens=100,
        iteration_time=IterationTime.affine(1.0),
    )
    one = RequestClass(name="a", rate_per_s=0.5, prefill_tokens=1, decode_tokens=1)
    return poisson_model(Workload(name="unit", classes=(one,)), server)


ONE_BY_ONE = parse_policy("greedy:cap=1")


def test_a_sweep_is_its_configurations_one_by_one(model: Model) -> None:
    policies = [ONE_BY_ONE, parse_policy("greedy:cap=2")]
    rows = grid(policies, [0.5, 0.8], replications=3, requests=300, seed=2)
    together = sweep(model, rows, runner=Local(threads=2))
    assert [(one.label, one.rate_per_s) for one in together] == [
        ("greedy:cap=1", 0.5),
        ("greedy:cap=2", 0.5),
        ("greedy:cap=1", 0.8),
        ("greedy:cap=2", 0.8),
    ]
    alone = compare(
        model, [policies[1]], replications=3, requests=300, seed=2, rate_scale=0.8 / 0.5
    )
    assert together[3] == alone[0]


def test_a_sweep_runs_what_the_store_does_not_hold(model: Model, tmp_path: Path) -> None:
    rows = grid([ONE_BY_ONE], [0.5, 0.8], replications=2, requests=200)
    with Store(tmp_path / "rows") as store:
        first = sweep(model, rows[:1], store)
        key = rows[0].key(model_digest(model))
        assert store.find(key) == first[0]
        store.add(key, replace(first[0], completed_per_s=99.0), model="", seed=0)
        again = sweep(model, rows, store)
    assert again[0].completed_per_s == 99.0
    assert again[1] == sweep(model, rows[1:])[0]


def test_equal_configurations_run_once(model: Model) -> None:
    ran: list[int] = []

    def counting(
        model: Model, rows: Sequence[Configuration], device: str
    ) -> Iterator[tuple[int, PolicyResult]]:
        ran.append(len(rows))
        yield from Local()(model, rows, device)

    done: list[None] = []
    rows = grid([ONE_BY_ONE, ONE_BY_ONE], [0.5], replications=1, requests=50)
    results = sweep(model, rows, runner=counting, on_done=lambda: done.append(None))
    assert ran == [1]
    assert len(done) == 2
    assert results[0] == results[1]


def test_seeds_are_independent_rows(model: Model) -> None:
    rows = grid([ONE_BY_ONE], [0.5], replications=2, requests=200, seed=3, seeds=2)
    assert [one.seed for one in rows] == [3, 4]
    one, other = sweep(model, rows)
    assert one.latency_means_s != other.latency_means_s


def test_a_key_knows_workload_server_and_settings(model: Model) -> None:
    def key(model: Model, seed: int = 0, requests: int = 100, text: str = "greedy") -> str:
        settings = {"replications": 2, "requests": requests, "seed": seed}
        return grid([parse_policy(text)], [1.0], **settings)[0].key(model_digest(model))

    other = Model(*[array.copy() for array in model])
    other.constants["kv_capacity_tokens"] += 1
    keys = {
        key(model),
        key(other),
        key(model, seed=1),
        key(model, requests=101),
        key(model, text="greedy:cap=0.123456789e3"),
        key(model, text="greedy:cap=123.45678"),
    }
    assert len(keys) == 6
    assert key(Model(*[array.copy() for array in model])) == key(model)


SCRIPT = """
import sys
from pathlib import Path
from fluid.server import load_server
from fluid.workload import RequestClass, Workload
from validation.policies import parse_policy
from validation.simulator.model import poisson_model
from validation.experiments.store import Store
from validation.experiments.sweep import grid, sweep
one = RequestClass(name="a", rate_per_s=1.0, prefill_tokens=64, decode_tokens=200)
model = poisson_model(Workload(name="w", classes=(one,)), load_server("paper-long-decode"))
rows = grid([parse_policy("greedy")], [5 + k / 10 for k in range(40)], replications=2,
            requests=1500)
with Store(Path(sys.argv[1]), flush_s=0.05) as store:
    done = sweep(model, rows, store, on_done=lambda: print("row", flush=True))
print(sum(one.completed_per_s for one in done))
"""


def test_a_killed_sweep_continues_where_it_stopped(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    command = [sys.executable, "-c", SCRIPT]
    expected = subprocess.run(
        [*command, str(whole)], capture_output=True, text=True, check=True, cwd=os.getcwd()
    ).stdout.splitlines()
    with subprocess.Popen([*command, str(killed)], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        while not any(killed.glob("*.parquet")):
            assert run.stdout.readline() == "row\n"
        run.send_signal(signal.SIGKILL)
    assert 0 < len(Store(killed)) < 40
    resumed = subprocess.run(
        [*command, str(killed)], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert resumed[-1] == expected[-1]
    assert rows_by_key(killed) == rows_by_key(whole)
    assert len(rows_by_key(whole)) == 40


def rows_by_key(folder: Path) -> dict[str, dict[str, object]]:
    """Every column of every row, as any reader of Parquet sees them."""
    rows = dataset(folder).to_table().to_pylist()
    by_key = {row["key"]: row for row in rows}
    assert len(by_key) == len(rows)
    return by_key


def test_capacities_of_policies_are_those_of_each_alone(model: Model) -> None:
    policies = [ONE_BY_ONE, parse_policy("greedy:cap=2")]
    effort = {"replications": 3, "requests": 500, "tolerance": 0.1}
    done: list[None] = []
    together = find_capacities(model, policies, 0.7, **effort, on_done=lambda: done.append(None))
    assert together == [find_capacity(model, one, 0.7, **effort) for one in policies]
    assert len(done) == 2


def test_capacity_is_found_by_bisection(model: Model) -> None:
    """One server, one second per request: the bracket holds 1/s whatever the length of a run."""
    found = find_capacity(model, ONE_BY_ONE, 0.7, replications=8, requests=4000)
    assert found.largest_stable_rate_per_s is not None
    assert found.smallest_unstable_rate_per_s is not None
    assert found.largest_stable_rate_per_s < 1.0 < found.smallest_unstable_rate_per_s
    ratio = found.smallest_unstable_rate_per_s / found.largest_stable_rate_per_s
    assert 1 < ratio <= 1 + 2.1 * TOLERANCE
    short = find_capacity(model, ONE_BY_ONE, 0.7, replications=8, requests=100)
    assert short == found
    down = find_capacity(model, ONE_BY_ONE, 3.0, replications=8, requests=4000)
    assert down.largest_stable_rate_per_s == pytest.approx(
        found.largest_stable_rate_per_s, rel=0.02
    )


def test_paired_differences_are_narrower_than_independent_ones(model: Model) -> None:
    rows = grid([ONE_BY_ONE, parse_policy("greedy")], [0.7], replications=10, requests=2000)
    slow, fast = sweep(model, rows)
    found = latency_difference(slow, fast)
    assert found is not None
    assert slow.latency_s is not None
    assert fast.latency_s is not None
    assert found.mean == pytest.approx(slow.latency_s.mean - fast.latency_s.mean)
    assert found.low > 0
    assert slow.latency_s.half_width is not None
    assert fast.latency_s.half_width is not None
    assert found.half_width < slow.latency_s.half_width + fast.latency_s.half_width
    unstable = sweep(model, grid([ONE_BY_ONE], [2.0], replications=4, requests=400))[0]
    assert latency_difference(unstable, fast) is None
