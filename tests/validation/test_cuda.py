"""CUDA without a GPU: numba's simulator runs the kernels (tests/gpu_check compiles them)."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from fluid.errors import InputError
from fluid.iteration import IterationTime
from fluid.overload.impatience import Patience
from fluid.server import Server
from fluid.traces.tape import Tape
from fluid.workload import Workload
from tests.support.traffic_cases import RULES
from validation.experiments.simulate import simulate
from validation.policies import POLICIES, ConfiguredPolicy
from validation.simulator import cpu
from validation.simulator.arrivals import KINDS, parse_arrivals
from validation.simulator.model import Model, poisson_model, tape_model
from validation.simulator.run import chosen_device, run, why_no_cuda
from validation.simulator.runs import Runs
from validation.simulator.traffic.clients import Clients
from validation.simulator.traffic.queue_limit import QueueLimit
from validation.simulator.traffic.traffic import Traffic

needs_numba_cuda = pytest.mark.skipif(
    find_spec("numba_cuda") is None, reason="numba-cuda not installed: pip install fluidwait[cuda]"
)
HERE = Path(__file__).resolve().parent
REQUESTS = 40

SERVER = Server(
    name="small",
    source="test",
    kv_capacity_tokens=64,
    block_tokens=4,
    iteration_time=IterationTime(
        tokens_knots=(0.0, 20.0, 20.0, 60.0),
        seconds_knots=(0.03, 0.05, 0.06, 0.1),
        per_kv_token_s=1e-4,
        per_prefill_token_s=1e-3,
    ),
)
"""Memory for a few requests and staircase iteration times, so that every policy is under stress."""


def workload() -> Workload:
    shapes = ((2.0, 7, 5), (1.0, 18, 9))
    classes = [
        {"name": f"c{k}", "rate_per_s": r, "prefill_tokens": p, "decode_tokens": d}
        for k, (r, p, d) in enumerate(shapes)
    ]
    rates = [{"start_s": 0, "multiplier": 0.5}, {"start_s": 2, "multiplier": 2.0}]
    document = {"name": "w", "classes": classes, "rate_profile": rates, "period_s": 5.0}
    return Workload.from_document(document)


def configured(name: str, model: Model) -> ConfiguredPolicy:
    """Two per iteration for the first class or segment, one for each further one."""
    policy = POLICIES[name]
    segments = len(np.unique(model.shapes["output_tokens"]))
    needed = model.classes if policy.per_class else segments if policy.per_segment else 0
    return policy.configure({}, (2, 1, 1)[:needed])


def models() -> list[Model]:
    """One model for every kind of arrivals, one with a burst, a tape, and one of clients."""
    arrivals = [parse_arrivals(text) for text in (*KINDS, "gamma:cv=2,burst=4,burst_at_s=3")]
    drawn = [poisson_model(workload(), SERVER, one) for one in arrivals]
    times = np.cumsum(np.full(REQUESTS, 0.19))
    tape = Tape(times, np.full(REQUESTS, 9), np.full(REQUESTS, 6))
    loop = Clients(4, 0.1, "exponential")
    busy = Traffic(clients=loop, queue=QueueLimit(3), patience=Patience(0.5, 0.6))
    return [*drawn, tape_model(tape, SERVER), poisson_model(workload(), SERVER, traffic=busy)]


def jobs_of(model: Model) -> list[cpu.Job]:
    """Two replications of every policy, or of one of each kind where clients react, in an order
    that has to be undone."""
    names = RULES if model.constants[0]["reacts"] else POLICIES
    policies = [configured(name, model) for name in names]
    return [
        cpu.Job(policy, replication, seed=6, rate_scale=1.0 + replication)
        for replication in (0, 1)
        for policy in policies
    ]


def named(job: cpu.Job) -> tuple[object, ...]:
    """A job that can be pickled, as policies cannot."""
    policy = job.policy
    return policy.policy.name, policy.thresholds, job.replication, job.seed, job.rate_scale


def assert_same(one: object, two: object) -> None:
    """Every figure alike, up to the last bits of logarithms and contracted products."""
    for field in one.__dataclass_fields__:  # type: ignore[attr-defined]
        if getattr(one, field) is None:  # of a prefix cache
            assert getattr(two, field) is None
            continue
        np.testing.assert_allclose(getattr(one, field), getattr(two, field), rtol=1e-9)


@pytest.mark.slow
@needs_numba_cuda
def test_the_simulated_device_agrees_with_the_cpu(tmp_path: Path) -> None:
    """Every policy under every kind of arrivals; one process, as starting it takes longest."""
    task, answer = tmp_path / "task", tmp_path / "answer"
    tasks = [(model, [named(job) for job in jobs_of(model)], REQUESTS) for model in models()]
    task.write_bytes(pickle.dumps(tasks))
    environment = os.environ | {
        "NUMBA_ENABLE_CUDASIM": "1",
        "NUMBA_DISABLE_JIT": "1",
        "PYTHONPATH": str(HERE.parents[1]),
    }
    command = [sys.executable, "-m", "tests.support.cuda_simulator", task, answer]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    evictions = 0
    for model, simulated in zip(models(), pickle.loads(answer.read_bytes()), strict=True):
        for one, two in zip(cpu.run(model, jobs_of(model), REQUESTS), simulated, strict=True):
            assert_same(one, two)
            evictions += one.evictions
    assert evictions > 0


@needs_numba_cuda
def test_replications_are_cut_to_the_memory() -> None:
    from validation.simulator.cuda import bytes_per_replication, chunk_size

    model = poisson_model(workload(), SERVER)
    each = bytes_per_replication(model, 1000)
    # 40 bytes a request; four histograms of 1,200 counts for each of two classes.
    assert each > 40 * 1000 + 2 * 4 * 1200 * 4
    assert bytes_per_replication(model, 2000) == each + 40 * 1000
    assert chunk_size(model, 1000, 50, float("inf")) == 50
    assert chunk_size(model, 1000, 50, 10 * each) == 8
    with pytest.raises(InputError, match="requests: got 1000; allowed: fewer: one replication"):
        chunk_size(model, 1000, 50, each)


def test_devices_that_do_not_exist_are_named() -> None:
    with pytest.raises(InputError, match="device: got 'tpu'; allowed: cpu, cuda or auto"):
        chosen_device("tpu")
    with pytest.raises(InputError, match="device: got 'tpu'; allowed: cpu, cuda or auto"):
        Runs(device="tpu")
    assert chosen_device("cpu") == "cpu"


def test_absent_cuda_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("validation.simulator.run.find_spec", lambda name: None)
    model = poisson_model(workload(), SERVER)
    with pytest.raises(InputError) as error:
        simulate(model, configured("greedy", model), Runs(1, 10, device="cuda"))
    assert str(error.value) == (
        "device: got 'cuda'; allowed: cpu, as no CUDA device is available: "
        "numba-cuda is not installed (pip install fluidwait[cuda])"
    )
    assert chosen_device("auto") == "cpu"


@needs_numba_cuda
def test_a_numpy_that_numba_cuda_cannot_use_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_row_stack(name: str) -> None:
        raise AttributeError("module 'numpy' has no attribute 'row_stack'")

    monkeypatch.setattr("numba.cuda.is_available", lambda: True)
    monkeypatch.setattr("validation.simulator.run.import_module", without_row_stack)
    told = f"numba-cuda does not go with NumPy {np.__version__}: module 'numpy' has no attribute "
    assert why_no_cuda() == told + "'row_stack'"


@needs_numba_cuda
def test_reason_is_one_line_and_auto_always_runs() -> None:
    reason = why_no_cuda()
    assert reason is None or (reason and "\n" not in reason)
    model = poisson_model(workload(), SERVER)
    jobs = [cpu.Job(configured("greedy", model), 0)]
    assert_same(run(model, jobs, 50, device="auto")[0], cpu.run(model, jobs, 50)[0])
