"""The simulator against queueing theory and the fluid model's own predictions."""

from __future__ import annotations

import numpy as np
import pytest

from fluid.iteration import IterationTime
from fluid.server import Server
from fluid.steady.equilibrium import equilibrium
from fluid.steady.fluctuation import fluctuation
from tests.support.builders import server, workload
from validation.policies import parse_policy
from validation.simulator import cpu
from validation.simulator.metrics import interval
from validation.simulator.model import poisson_model


def affine_server(first_token: str, **coefficients: float) -> Server:
    return server(IterationTime.affine(**coefficients), first_token, 10_000_000)


PAPER = {"overhead_s": 0.0114, "per_kv_token_s": 0.43e-6, "per_prefill_token_s": 0.43e-6}
CASES = {
    "paper figure": (workload((20.0, 512, 20)), affine_server("decode", **PAPER)),
    "engine": (workload((20.0, 512, 20)), affine_server("prefill", **PAPER)),
    "two classes": (
        workload((30.0, 100, 30), (10.0, 300, 80)),
        affine_server("prefill", overhead_s=0.01, per_token_s=1e-5, per_kv_token_s=4e-7),
    ),
    "heavy decode": (
        workload((12.0, 50, 100)),
        affine_server("decode", overhead_s=0.01, per_kv_token_s=2e-6, per_decode_request_s=2e-4),
    ),
}


def simulate(name: str, requests: int = 20_000) -> tuple[float, float, float]:
    """Mean latency and TTFT of work-conserving service, and the half width of the latter."""
    workload, machine = CASES[name]
    model = poisson_model(workload, machine)
    jobs = [cpu.Job(parse_policy("greedy"), k, seed=3) for k in range(10)]
    done = cpu.run(model, jobs, requests)
    latency = interval([one.mean_s[-1, 0] for one in done], level=0.99)
    ttft = interval([one.mean_s[-1, 1] for one in done], level=0.99)
    assert latency.half_width < 0.01 * latency.mean
    return latency.mean, ttft.mean, ttft.half_width


@pytest.mark.parametrize("name", CASES)
def test_first_order_latency_is_within_three_percent(name: str) -> None:
    """THEORY 2.6 where none of its conditions fails."""
    found = equilibrium(*CASES[name])
    assert found.first_order_caveats == ()
    assert found.first_order is not None
    latency, _, _ = simulate(name)
    assert found.first_order.latency_s == pytest.approx(latency, rel=0.03)


def test_the_figure_of_theory_2_6() -> None:
    """0.2753 s predicted, 0.276 s simulated."""
    found = equilibrium(*CASES["paper figure"])
    assert found.first_order is not None
    assert found.first_order.latency_s == pytest.approx(0.2753, abs=5e-5)
    assert simulate("paper figure")[0] == pytest.approx(0.276, abs=1e-3)


@pytest.mark.parametrize("name", CASES)
def test_second_order_delays_are_within_three_percent(name: str) -> None:
    """THEORY 2.7."""
    found = fluctuation(*CASES[name])
    latency, ttft, _ = simulate(name)
    assert found.latency_s == pytest.approx(latency, rel=0.03)
    assert found.ttft_s == pytest.approx(ttft, rel=0.03)


@pytest.mark.parametrize("name", CASES)
def test_variance_of_resident_kv_is_within_ten_percent(name: str) -> None:
    """THEORY 2.7, per iteration, memory unlimited."""
    workload, machine = CASES[name]
    found = fluctuation(workload, machine)
    model = poisson_model(workload, machine)
    means, variances = [], []
    for replication in range(12):
        job = cpu.Job(parse_policy("greedy"), replication, seed=4)
        held = cpu.run_traced(model, job, 30_000).series[2000:, 1]
        means.append(held.mean())
        variances.append(held.var())
    mean, variance = interval(means, 0.99), interval(variances, 0.99)
    assert variance.half_width < 0.06 * variance.mean
    assert found.kv_mean_tokens == pytest.approx(mean.mean, rel=0.03)
    assert found.kv_sd_tokens**2 == pytest.approx(variance.mean, rel=0.10)


MANY_RESIDENTS = {
    "two classes": CASES["two classes"],
    "heavy decode": CASES["heavy decode"],
    "long outputs": (
        workload((3.0, 200, 400)),
        affine_server("prefill", overhead_s=0.01, per_kv_token_s=5e-7, per_prefill_token_s=2e-5),
    ),
}


@pytest.mark.parametrize("name", MANY_RESIDENTS)
@pytest.mark.parametrize("probability", [0.05, 0.01])
def test_overflow_probability_is_within_a_factor_of_1_5(name: str, probability: float) -> None:
    """THEORY 2.7: P(KV > C) per iteration, memory unlimited, at least 10 residents."""
    workload, machine = MANY_RESIDENTS[name]
    capacity = fluctuation(workload, machine).kv_tokens_needed(probability)
    model = poisson_model(workload, machine)
    shares, residents = [], []
    for replication in range(16):
        job = cpu.Job(parse_policy("greedy"), replication, seed=5)
        series = cpu.run_traced(model, job, 30_000).series[2000:]
        shares.append((series[:, 1] > capacity).mean())
        residents.append(series[:, 2].mean())
    found = interval(shares, 0.99)
    assert min(residents) > 10
    assert found.half_width < 0.25 * found.mean
    assert probability / 1.5 < found.mean < 1.5 * probability


@pytest.mark.parametrize("text", ["greedy", "greedy:cap=4,pace=0.3,watermark=0.1", "wait"])
@pytest.mark.parametrize("capacity", [10_000_000, 4_000])
def test_littles_law_holds_on_every_path(text: str, capacity: int) -> None:
    """∫ N dt from the iterations equals Σ sojourn times from the requests, exactly."""
    workload, machine = CASES["two classes"]
    machine = machine.model_copy(update={"kv_capacity_tokens": capacity})
    policy = parse_policy(text + ":thresholds=1/1" if text == "wait" else text)
    trace = cpu.run_traced(poisson_model(workload, machine), cpu.Job(policy, 0), 1500)
    starts = trace.series[:, 0]
    in_system = trace.series[:, 2] + trace.series[:, 3]
    end = starts[-1]
    arrived = trace.arrived_at_s[trace.arrived_at_s < end]
    left = np.minimum(np.nan_to_num(trace.completed_at_s[: len(arrived)], nan=end), end)
    sojourns = (left - arrived).sum()
    # Before its first decision a request is in nobody's count: from its arrival to the next start.
    unseen = starts[np.searchsorted(starts, arrived)] - arrived
    area = (in_system[:-1] * np.diff(starts)).sum()
    idle_waits = area + unseen.sum() - sojourns
    # While the server idles (between an iteration's end and the next start) nobody is counted
    # who left at that end; all others wait and are counted until the next start.
    gone = left[left < end]
    next_start = starts[np.searchsorted(starts, gone - 1e-12)]
    counted_too_long = (next_start - gone).sum()
    assert idle_waits == pytest.approx(counted_too_long, abs=1e-6 * sojourns)


def test_greedy_is_work_conserving() -> None:
    """An iteration starts where the last one ended, unless nobody was there."""
    workload, machine = CASES["engine"]
    light = workload.at_rate(3.0)
    trace = cpu.run_traced(poisson_model(light, machine), cpu.Job(parse_policy("greedy"), 0), 2000)
    starts = trace.series[:, 0]
    arrivals, departures = trace.arrived_at_s, np.sort(trace.completed_at_s)
    seen = np.searchsorted(arrivals, starts, side="right")
    in_system = trace.series[:, 2] + trace.series[:, 3]
    assert (in_system > 0).all()
    gone = np.searchsorted(departures, starts, side="right")
    np.testing.assert_array_equal(in_system, seen - gone)
    idle_starts = np.isin(starts, arrivals)
    assert 0 < idle_starts.sum() < len(starts)
    np.testing.assert_array_equal(in_system[idle_starts], 1)
