"""What a policy carries, when it has collapsed, and the work in which both are counted."""

from __future__ import annotations

import numpy as np
import pytest

from fluid.iteration import IterationTime
from fluid.server import Server, load_server
from fluid.steady.region import StabilityRegion
from fluid.workload import RequestClass, Workload
from validation.experiments.simulate import PolicyResult, simulate
from validation.policies import parse_policy
from validation.simulator import cpu
from validation.simulator.model import poisson_model
from validation.simulator.netput import Backlog
from validation.simulator.runs import Runs

PAPER = load_server("paper-long-decode")


def load(*lengths: tuple[float, int, int]) -> Workload:
    classes = tuple(
        RequestClass(name=f"c{k}", rate_per_s=rate, prefill_tokens=p, decode_tokens=d)
        for k, (rate, p, d) in enumerate(lengths)
    )
    return Workload(name="w", classes=classes)


def result(policy: str, workload: Workload, server: Server, runs: Runs) -> PolicyResult:
    return simulate(poisson_model(workload, server), policy, runs)[0]


@pytest.mark.parametrize(
    "server",
    [
        PAPER,
        Server(
            name="prompts cost more",
            source="test",
            kv_capacity_tokens=50_000,
            block_tokens=1,
            iteration_time=IterationTime(
                tokens_knots=(0.0, 1.0),
                seconds_knots=(0.01, 0.01003),
                per_kv_token_s=2e-7,
                per_prefill_token_s=2e-5,
                per_decode_request_s=1e-5,
            ),
        ),
    ],
)
def test_the_work_of_a_request_is_its_share_of_a_full_server(server: Server) -> None:
    """The normal of the stability region of the fluid model (THEORY 2), to 1 %."""
    workload = load((1, 512, 1000), (1, 2048, 200), (1, 100, 300))
    normal_s = StabilityRegion(workload, server).normal_s
    work_s = poisson_model(workload, server).shapes["work_s"]
    np.testing.assert_allclose(work_s, normal_s, rtol=0.01)


@pytest.mark.parametrize("policy", ["greedy", "vllm-v1", "wait:thresholds=2/2"])
def test_owed_work_is_between_nothing_and_all_that_is_in_the_system(policy: str) -> None:
    workload = load((2, 512, 200), (1, 100, 600))
    model = poisson_model(workload, load_server("engine-long-decode"))
    path = Backlog(cpu.run(model, [cpu.Job(parse_policy(policy), 0)], 400)[0].path)
    largest_s = float(model.shapes["work_s"].max())
    assert (path.owed_work_s >= -1e-9).all()
    assert (path.owed_work_s <= path.in_system * largest_s + 1e-9).all()
    assert (np.diff(path.lost_work_s) >= 0).all()


def test_an_overload_is_no_collapse() -> None:
    """Two seats complete what two seats can: nothing is thrown away."""
    found = result("greedy:cap=2", load((2, 512, 100)), PAPER, Runs(4, 2_000))
    assert found.verdict == "unstable"
    assert found.collapsed_share == 0
    assert found.lost_work_share == 0
    assert found.saturated_per_s == pytest.approx(found.completed_per_s, rel=0.02)
    assert found.carried_share == pytest.approx(found.saturated_per_s / 2, rel=0.05)
    assert found.carried == f"{100 * found.carried_share:.1f} %"
    assert not any("collapse" in one for one in found.caveats("here"))


def test_throughput_that_evictions_throw_away_is_a_collapse() -> None:
    found = result("greedy", load((2.6, 512, 1000)), PAPER, Runs(4, 8_000))
    assert found.verdict == "unstable"
    assert found.collapsed_share > 0
    assert found.lost_work_share > 0.05
    told = [one for one in found.caveats("here") if "collapses" in one]
    assert len(told) == 1
    assert "thrown away by evictions" in told[0]


def test_a_stable_policy_carries_all_whatever_a_window_of_a_short_run_shows() -> None:
    found = result(
        "wait:thresholds=20", load((5, 512, 20)), load_server("a100-80gb-llama-2-7b"), Runs(4, 1000)
    )
    assert found.verdict == "stable"
    assert found.completed_share < 0.99
    assert (found.carried, found.carried_share, found.saturated_per_s) == ("all", 1.0, None)
    assert any("still held when the arrivals ended" in one for one in found.caveats("here"))


def test_an_open_verdict_tells_no_share() -> None:
    found = result("greedy", load((2, 512, 1000)), PAPER, Runs(2, 60))
    assert found.verdict == "undecided"
    assert (found.carried, found.carried_share) == ("–", None)
