"""A sweep of 10,000 configurations through a killed worker and a killed scheduler.

    python -m tests.benchmarks.cluster_sweep [--configurations 10000] [--requests 200]

`dask scheduler` and two `dask worker` run as processes of their own. When a fifth of the rows are
there, one worker is killed while it holds tasks, and another joins; at the half the scheduler is
killed. A second scheduler with two new workers continues from the folder of rows. Every row is then
compared, to the last bit, with the same sweep in this process.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fluid.errors import ClusterError
from fluid.server import load_server
from fluid.workload import RequestClass, Workload
from tests.support.dask_processes import DaskProcesses
from validation.experiments.cluster import cluster
from validation.experiments.rows import Configuration, grid, run_rows
from validation.experiments.store import Store
from validation.policies import parse_policy
from validation.simulator.model import Model, poisson_model
from validation.simulator.runs import Runs

PACES = 10
RATES = 50


def configurations(count: int, requests: int) -> tuple[Model, list[Configuration]]:
    """Paces × rates × seeds, `count` of them to the next multiple of 500."""
    one = RequestClass(name="chat", rate_per_s=1.0, prefill_tokens=256, decode_tokens=50)
    workload = Workload(name="chat", classes=(one,))
    policies = [parse_policy(f"greedy:pace={0.05 * (1 + k)!r}") for k in range(PACES)]
    rates = [4 + k / 7 for k in range(RATES)]
    seeds = -(-count // (PACES * RATES))
    rows = grid(policies, rates, Runs(2, requests), seeds)
    return poisson_model(workload, load_server("paper-long-decode")), rows


def timed(title: str, run: Callable[[], Any]) -> Any:
    """Run something and print how long it took."""
    start_s = time.perf_counter()
    result = run()
    print(f"{title}: {time.perf_counter() - start_s:.1f} s", flush=True)
    return result


def lossy(processes: DaskProcesses, total: int) -> Callable[[], None]:
    """An `on_done` that kills a busy worker at a fifth of the rows, the scheduler at the half."""
    done = 0

    def on_done() -> None:
        nonlocal done
        done += 1
        if done == total // 5:
            processes.kill_busy_worker("a").add_done_callback(
                lambda killed: print(f"killed a worker that held {killed.result()} tasks")
            )
            processes.start_worker("c")
            print(f"row {done}: another worker joins")
        elif done == total // 2:
            processes.kill_scheduler()
            print(f"row {done}: killed the scheduler")

    return on_done


def on_cluster(model: Model, rows: list[Configuration], folder: Path) -> None:
    """The sweep that loses a worker and its scheduler."""
    with DaskProcesses(folder / "first") as processes, Store(folder / "rows") as store:
        processes.start_workers("a", "b")
        with cluster(processes.address) as runner:
            try:
                run_rows(model, rows, store, runner=runner, on_done=lossy(processes, len(rows)))
            except ClusterError as error:
                print(f"the sweep ended: {error}")
                return
    raise AssertionError("the sweep did not notice that its scheduler was gone")


def continued(model: Model, rows: list[Configuration], folder: Path) -> None:
    """The same sweep on a second scheduler."""
    with DaskProcesses(folder / "second") as processes, Store(folder / "rows") as store:
        processes.start_workers("d", "e")
        with cluster(processes.address) as runner:
            run_rows(model, rows, store, runner=runner)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--configurations", type=int, default=10_000)
    parser.add_argument("--requests", type=int, default=200)
    options = parser.parse_args()
    model, rows = configurations(options.configurations, options.requests)
    run_rows(model, rows[:1])  # compiles
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for one in ("first", "second"):
            (folder / one).mkdir()
        timed("until the scheduler was lost", lambda: on_cluster(model, rows, folder))
        timed("continued", lambda: continued(model, rows, folder))
        expected = timed("in this process", lambda: run_rows(model, rows))
        store = Store(folder / "rows")
        found = run_rows(model, rows, store, runner=_refuse)
        files = len(list((folder / "rows").iterdir()))
        assert len(store) == len(rows)
        assert found == expected, "rows differ"
        print(f"{len(found):,} rows in {files} files: all equal to those of this process")


def _refuse(model: Model, rows: object) -> list[tuple[int, object]]:
    assert not rows, "rows are missing"
    return []


if __name__ == "__main__":
    main()
