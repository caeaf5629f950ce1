"""The entry point: registry, unstable workloads and their way out."""

from __future__ import annotations

import pytest

from fluid.errors import InfeasibleError, InputError
from fluid.iteration import IterationTime
from fluid.server import Server
from fluid.steady.equilibrium import equilibrium
from fluid.workload import RequestClass, Slo, Workload
from thresholds.solvers.common import rounded_down
from thresholds.solvers.paced.solver import Paced
from thresholds.solvers.registry import SOLVERS, solver_named
from thresholds.solvers.wait.solver import Wait

SERVER = Server(
    name="small",
    source="test",
    kv_capacity_tokens=40_000,
    block_tokens=16,
    iteration_time=IterationTime.affine(0.01, 4e-5, 3e-7),
)
LOAD = Workload(
    name="chat",
    classes=(
        RequestClass(name="short", rate_per_s=4.0, prefill_tokens=200, decode_tokens=5),
        RequestClass(name="long", rate_per_s=4.0, prefill_tokens=100, decode_tokens=40),
    ),
)


@pytest.mark.parametrize("policy", SOLVERS)
def test_every_solver_gives_a_certified_table(policy: str) -> None:
    table = SOLVERS[policy]().solve(LOAD, SERVER)
    assert table.policy == policy
    assert table.workload == LOAD
    assert table.server == SERVER
    assert table.workload_sha256 == LOAD.sha256()
    assert table.server_sha256 == SERVER.sha256()
    names = [one.name for one in table.thresholds]
    if policy.startswith("nested"):
        assert names == [f"segment {k + 1}" for k in range(len(names))]
        assert table.thresholds[-1].up_to_tokens == 40
    else:
        assert names == ["short", "long"]
    assert all(one.holds for one in table.certificate)
    assert table.memory.capacity_tokens == SERVER.usable_kv_tokens
    assert table.valid_for.max_rate_per_s >= LOAD.rate_per_s
    assert table.validated is None
    found = equilibrium(LOAD, SERVER)
    assert table.predicted.iteration_time_s == found.iteration_time_s
    assert table.predicted.kv_tokens == found.kv_tokens
    assert set(found.caveats) <= set(table.notes)


@pytest.mark.parametrize("policy", SOLVERS)
def test_every_solver_holds_up_to_the_rate_it_claims(policy: str) -> None:
    table = SOLVERS[policy]().solve(LOAD, SERVER)
    edge = LOAD.at_rate(0.999 * table.valid_for.max_rate_per_s)
    assert equilibrium(edge, SERVER).stable


@pytest.mark.parametrize("policy", SOLVERS)
def test_unstable_workload_names_rates_and_memory_that_help(policy: str) -> None:
    scale = equilibrium(LOAD, SERVER).max_scale
    crowded = LOAD.scaled(1.05 * scale)
    with pytest.raises(InfeasibleError) as caught:
        SOLVERS[policy]().solve(crowded, SERVER)
    error = caught.value
    assert error.max_scale == pytest.approx(1 / 1.05)
    assert "multiply all rates by at most 0.952" in error.nearest
    assert Paced().solve(crowded.scaled(0.952), SERVER)
    needed = int(error.nearest.split("kv_capacity_tokens to at least ")[1].split(",")[0])
    larger = SERVER.model_copy(update={"kv_capacity_tokens": needed})
    assert Paced().solve(crowded, larger)
    smaller = SERVER.model_copy(update={"kv_capacity_tokens": needed - 16})
    assert not equilibrium(crowded, smaller).stable


def test_beyond_the_work_limit_no_memory_is_offered() -> None:
    with pytest.raises(InfeasibleError) as caught:
        Paced().solve(LOAD.scaled(100.0), SERVER)
    assert "kv_capacity_tokens" not in caught.value.nearest
    assert caught.value.cause == "compute"


def test_unknown_policy_and_objective_are_refused() -> None:
    with pytest.raises(InputError, match="one of paced, wait"):
        solver_named("greedy")
    with pytest.raises(InputError, match="latency"):
        Wait(objective="profit")


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0.93499, 0.934), (0.0012399, 0.00123), (1.0, 1.0), (12.399, 12.3), (123.9, 123.0)],
)
def test_advice_is_rounded_down(value: float, expected: float) -> None:
    assert rounded_down(value) == expected


def test_an_slo_that_the_solver_does_not_use_is_said() -> None:
    first = LOAD.classes[0].model_copy(update={"slo": Slo(ttft_s=0.5)})
    wanted = LOAD.model_copy(update={"classes": (first, *LOAD.classes[1:])})
    assert "the slo of short is no constraint" in Paced().solve(wanted, SERVER).notes[0]
    assert not any("slo" in note for note in Paced().solve(LOAD, SERVER).notes)
