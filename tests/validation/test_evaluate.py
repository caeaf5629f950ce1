"""Practical tables refined on the real simulator."""

from __future__ import annotations

import pytest

from fluid.errors import InputError
from fluid.server import load_server
from fluid.workload import RequestClass, Workload
from thresholds.fields import Scheduler
from thresholds.limits import Limits
from thresholds.solvers.paced.boundary import boundary_load
from thresholds.solvers.paced.solver import Paced
from validation.experiments.evaluate import simulate_settings
from validation.experiments.following import policy_of, restrained

SERVER = load_server("engine-long-decode").model_copy(update={"kv_capacity_tokens": 16_000})
"""A small cache, so that the fluid population and with it the runs are short."""


def mix(*outputs: int) -> Workload:
    return Workload(
        name="mix",
        classes=tuple(
            RequestClass(name=f"d{one}", rate_per_s=1.0, prefill_tokens=200, decode_tokens=one)
            for one in outputs
        ),
    )


@pytest.mark.parametrize("scheduler", ["greedy", "vllm-v1"])
def test_equal_lengths_are_paced_and_spread_ones_are_not(scheduler: Scheduler) -> None:
    def refined(workload: Workload) -> set[str]:
        limit_per_s = boundary_load(workload, SERVER).rate_per_s
        solver = Paced(scheduler=scheduler, budget_s=1e-3)
        table = solver.solve(workload.at_rate(0.9 * limit_per_s), SERVER, simulate_settings)
        assert table.scheduler == scheduler
        assert policy_of(table).policy.name == scheduler
        return set(table.params)

    assert refined(mix(400)) == {"pace_per_iteration", "watermark_fraction"}
    assert "pace_per_iteration" not in refined(mix(*range(25, 1000, 50)))


def test_the_same_seed_gives_the_same_arrivals_to_every_setting() -> None:
    workload = mix(100).at_rate(0.3 * boundary_load(mix(100), SERVER).rate_per_s)
    settings = [Limits(), Limits(cap_requests=1000, watermark_fraction=0.02)]
    first, second = simulate_settings(
        workload, SERVER, "greedy", settings, replications=3, requests=500, seed=3
    )
    assert first.completed_per_s == second.completed_per_s
    assert len(first.completed_per_s) == 3
    assert second.row.params == {"cap": 1000, "watermark": 0.02}


def test_the_scheduler_s_own_cap_is_lifted() -> None:
    numbers = dict(restrained("vllm-v1", Limits()).params)
    assert numbers["max_num_seqs"] > 10_000


def test_vllm_needs_its_convention() -> None:
    with pytest.raises(InputError, match=r"server\.first_token"):
        simulate_settings(
            mix(100),
            load_server("paper-long-decode"),
            "vllm-v1",
            [Limits()],
            replications=1,
            requests=10,
            seed=0,
        )
