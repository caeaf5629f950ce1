"""Sweeps: the grid, the store that survives a kill, and bisection for the capacity."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fluid.errors import InputError
from fluid.iteration import IterationTime
from fluid.server import Server
from fluid.workload import RequestClass, Workload
from validation import capacity
from validation.capacity import find_capacity
from validation.compare import compare, latency_difference
from validation.policies import parse_policy
from validation.simulator.model import Model, poisson_model
from validation.sweep import Store, grid, sweep


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
    together = sweep(model, rows, threads=2)
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


def test_a_store_gives_back_what_was_computed(model: Model, tmp_path: Path) -> None:
    rows = grid([ONE_BY_ONE], [0.5, 0.8], replications=2, requests=200)
    store = Store(tmp_path / "s.sqlite")
    first = sweep(model, rows[:1], store)
    key = rows[0].key(model)
    assert store.find(key) == first[0]
    assert store.find(rows[1].key(model)) is None
    doubled = first[0].__class__(**{**vars(first[0]), "completed_per_s": 99.0})
    store.add(key, "changed", doubled)
    again = sweep(model, rows, store)
    assert again[0].completed_per_s == 99.0
    assert again[1] == sweep(model, rows[1:])[0]


def test_a_key_knows_workload_server_and_settings(model: Model) -> None:
    def key(model: Model, seed: int = 0, requests: int = 100, text: str = "greedy") -> str:
        settings = {"replications": 2, "requests": requests, "seed": seed}
        return grid([parse_policy(text)], [1.0], **settings)[0].key(model)

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
from validation.sweep import Store, grid, sweep
one = RequestClass(name="a", rate_per_s=1.0, prefill_tokens=64, decode_tokens=200)
model = poisson_model(Workload(name="w", classes=(one,)), load_server("paper-long-decode"))
rows = grid([parse_policy("greedy")], [5 + k / 10 for k in range(40)], replications=2,
            requests=1500)
done = sweep(model, rows, Store(Path(sys.argv[1])), on_done=lambda: print("row", flush=True))
print(sum(one.completed_per_s for one in done))
"""


def rows_in(path: Path) -> int:
    with sqlite3.connect(path) as connection:
        return int(connection.execute("SELECT count(*) FROM results").fetchone()[0])


def test_a_killed_sweep_continues_where_it_stopped(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole.sqlite", tmp_path / "killed.sqlite"
    command = [sys.executable, "-c", SCRIPT]
    expected = subprocess.run(
        [*command, str(whole)], capture_output=True, text=True, check=True, cwd=os.getcwd()
    ).stdout.splitlines()
    with subprocess.Popen([*command, str(killed)], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        for _ in range(5):
            assert run.stdout.readline() == "row\n"
        run.send_signal(signal.SIGKILL)
    kept = rows_in(killed)
    assert 5 <= kept < 40
    start = time.monotonic()
    resumed = subprocess.run(
        [*command, str(killed)], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert resumed[-1] == expected[-1]
    assert rows_in(killed) == 40
    print(f"resumed {40 - kept} rows in {time.monotonic() - start:.1f} s")


def test_capacity_is_found_by_bisection(model: Model) -> None:
    """One server, one second per request: the boundary is 1/s, a little below in finite runs."""
    found = find_capacity(model, ONE_BY_ONE, 0.7, replications=8, requests=4000)
    assert found.largest_stable_rate_per_s is not None
    assert found.smallest_unstable_rate_per_s is not None
    assert 0.93 < found.largest_stable_rate_per_s < 1.01
    ratio = found.smallest_unstable_rate_per_s / found.largest_stable_rate_per_s
    assert 1 < ratio <= 1 + capacity.TOLERANCE
    down = find_capacity(model, ONE_BY_ONE, 3.0, replications=8, requests=4000)
    assert down.largest_stable_rate_per_s == pytest.approx(
        found.largest_stable_rate_per_s, rel=0.02
    )


def test_a_store_refuses_what_is_no_store(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    path.write_text("not a database, but long enough to be read as a broken header " * 20)
    with pytest.raises(InputError, match="--resume: got"):
        Store(path)
    with pytest.raises(InputError, match="no such folder"):
        Store(tmp_path / "absent" / "s.sqlite")


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
