"""Sweeps on a real scheduler with workers as processes of their own, some of them killed."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import pytest
from distributed import Client, KilledWorker, Security
from distributed.comm.core import FatalCommClosedError
from pyarrow.dataset import dataset

from fluid.errors import ClusterError, InputError
from fluid.server import load_server
from fluid.workload import RequestClass, Workload
from tests.support.dask_processes import DaskProcesses
from validation.experiments import cluster as clusters
from validation.experiments.cluster import Cluster, Order, cluster, run_orders, software
from validation.experiments.rows import Configuration, grid, run_rows
from validation.experiments.simulate import PolicyResult
from validation.experiments.store import Store
from validation.policies import GREEDY, parse_policy
from validation.simulator.model import Model, poisson_model
from validation.simulator.runs import Runs

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model() -> Model:
    """Long outputs: a configuration takes some tens of milliseconds."""
    one = RequestClass(name="a", rate_per_s=1.0, prefill_tokens=64, decode_tokens=200)
    return poisson_model(Workload(name="w", classes=(one,)), load_server("paper-long-decode"))


@pytest.fixture(scope="module")
def rows() -> list[Configuration]:
    policies = [parse_policy("greedy"), parse_policy("greedy:pace=0.123456789")]
    rates = [5 + k / 3 for k in range(15)]
    return grid(policies, rates, Runs(2, 20_000), seeds=2)


@pytest.fixture(scope="module")
def expected(model: Model, rows: list[Configuration]) -> list[PolicyResult]:
    """What this process computes."""
    return run_rows(model, rows)


@pytest.fixture(autouse=True)
def short_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few configurations per task, so that there is always one under way to be lost."""
    monkeypatch.setattr(clusters, "TASK_S", 0.1)


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[DaskProcesses]:
    folder = tmp_path / "dask"
    folder.mkdir()
    with DaskProcesses(folder) as running:
        yield running


def at_row(number: int, act: Callable[[], object]) -> Callable[[], None]:
    """An `on_done` that acts once, after so many rows."""
    done = 0

    def on_done() -> None:
        nonlocal done
        done += 1
        if done == number:
            act()

    return on_done


def test_a_killed_worker_loses_nothing(
    model: Model,
    rows: list[Configuration],
    expected: list[PolicyResult],
    processes: DaskProcesses,
    tmp_path: Path,
) -> None:
    processes.start_workers("a", "b")
    killed: list[Future[int]] = []

    def kill() -> None:
        killed.append(processes.kill_busy_worker("a"))

    with cluster(processes.address) as runner, Store(tmp_path / "rows") as store:
        assert runner.threads() == 2
        found = run_rows(model, rows, store, runner=runner, on_done=at_row(10, kill))
        assert killed[0].result() > 0
        assert runner.threads() == 1
    assert found == expected
    assert dataset(tmp_path / "rows").count_rows() == len(rows)


def test_a_killed_scheduler_ends_the_sweep_and_another_one_continues_it(
    model: Model,
    rows: list[Configuration],
    expected: list[PolicyResult],
    processes: DaskProcesses,
    tmp_path: Path,
) -> None:
    processes.start_workers("a", "b")
    with (
        pytest.raises(ClusterError, match=r"rows are kept in .*rows: start again") as error,
        cluster(processes.address) as runner,
        Store(tmp_path / "rows") as store,
    ):
        run_rows(model, rows, store, runner=runner, on_done=at_row(10, processes.kill_scheduler))
    assert f"lost the scheduler at {processes.address}" in str(error.value)
    kept = len(Store(tmp_path / "rows"))
    assert 10 <= kept < len(rows)

    (tmp_path / "again").mkdir()
    with DaskProcesses(tmp_path / "again") as others, Store(tmp_path / "rows") as store:
        others.start_workers("c")
        with cluster(others.address) as runner:
            assert run_rows(model, rows, store, runner=runner) == expected
    assert dataset(tmp_path / "rows").count_rows() == len(rows)


def test_a_worker_may_come_after_the_sweep_began(
    model: Model, rows: list[Configuration], expected: list[PolicyResult], processes: DaskProcesses
) -> None:
    with cluster(processes.address) as runner:
        assert runner.threads() == 0
        processes.start_worker("late")
        assert run_rows(model, rows[:8], runner=runner) == expected[:8]


def test_workers_on_this_machine(
    model: Model, rows: list[Configuration], expected: list[PolicyResult]
) -> None:
    with cluster(workers=2) as runner:
        assert runner.threads() == 2
        assert run_rows(model, rows, runner=runner) == expected
        assert runner.address.startswith("tls://127.0.0.1:")
        for address in (runner.address, runner.address.replace("tls", "tcp")):
            # Another user of the machine, who has found the port.
            with pytest.raises(InputError, match="cluster"), cluster(address):
                pass
        with pytest.raises(FatalCommClosedError):
            Client(runner.address, security=Security.temporary(), timeout=2, set_as_default=False)
        refused = grid([parse_policy("wait:thresholds=1/2/3")], [5.0], Runs(1, 10))
        with pytest.raises(InputError, match="1 integers, one per class"):
            run_rows(model, refused, runner=runner)
        own = replace(GREEDY, name="mine").configure()
        with pytest.raises(InputError, match="got 'mine'; allowed: policies of the registry"):
            run_rows(model, grid([own], [5.0], Runs(1, 10)), runner=runner)


def test_workers_with_other_software_are_refused(
    model: Model,
    rows: list[Configuration],
    processes: DaskProcesses,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    processes.start_workers("a")
    ours = {**software(), "numpy": "0.1"}
    monkeypatch.setattr(clusters, "software", lambda: ours)
    with (
        cluster(processes.address) as runner,
        pytest.raises(InputError, match=r"worker on .*: numpy: got .*allowed: 0\.1, as where"),
    ):
        run_rows(model, rows, runner=runner)


def test_workers_without_this_fluidwait_are_refused(
    model: Model, rows: list[Configuration], processes: DaskProcesses, tmp_path: Path
) -> None:
    (tmp_path / "older" / "validation").mkdir(parents=True)
    (tmp_path / "older" / "validation" / "__init__.py").touch()
    processes.environment["PYTHONPATH"] = str(tmp_path / "older")
    processes.start_workers("a")
    with (
        cluster(processes.address) as runner,
        pytest.raises(InputError, match=r"same fluidwait as here .*'validation\.experiments'"),
    ):
        run_rows(model, rows, runner=runner)


def test_a_worker_with_a_device_takes_it(model: Model, processes: DaskProcesses) -> None:
    """One simulated device, one worker without: `auto` is decided where a configuration runs."""
    rows = grid([parse_policy("greedy")], [5.0, 6.0, 7.0], Runs(1, 15, device="auto"))
    with cluster(processes.address) as runner:
        processes.start_workers("plain")
        plain = run_rows(model, rows, runner=runner)
        processes.kill_worker("plain")
        processes.environment |= {"NUMBA_ENABLE_CUDASIM": "1", "NUMBA_DISABLE_JIT": "1"}
        preload = Path(__file__).parents[1] / "support" / "cuda_simulator.py"
        processes.start_workers("cuda", options=("--preload", str(preload)))
        simulated = run_rows(model, rows, runner=runner)
    assert {one.device for one in plain} == {"cpu"}
    assert {one.device for one in simulated} == {"cuda"}
    for one, other in zip(simulated, plain, strict=True):
        assert one.verdict == other.verdict
        assert one.kv_mean_tokens == pytest.approx(other.kv_mean_tokens, rel=1e-12)


def test_a_configuration_that_takes_workers_down_is_told() -> None:
    class Killed:
        def result(self) -> None:
            raise KilledWorker("run-1", "tcp://worker", 3)

    with pytest.raises(ClusterError, match="4 workers died while they ran"):
        Cluster(None, "tcp://scheduler")._result(Killed())


def test_a_task_refuses_a_device_that_is_not_there(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("validation.simulator.run.find_spec", lambda name: None)
    order = Order("greedy", {}, (), (), (), 5.0, Runs(1, 10, device="cuda"))
    outcome = run_orders(pickle.dumps(model), pickle.dumps([order]), software())
    assert isinstance(outcome, InputError)
    assert outcome.field == "device"


def test_an_order_is_its_configuration_to_the_last_bit(rows: list[Configuration]) -> None:
    policy = parse_policy("nested-wait:thresholds=4/2,cuts=10/20")
    for one in [*rows, *grid([policy], [1 / 3], Runs(1, 10))]:
        again = clusters._order(one).configuration()
        assert again.key("m") == one.key("m")


@pytest.mark.parametrize("address", ["nonsense", "tcp://no.such.host.invalid:8786"])
def test_nobody_answers(address: str) -> None:
    with (
        pytest.raises(InputError, match=r"cluster: got .*a running Dask scheduler"),
        cluster(address),
    ):
        pytest.fail("connected")
