"""Second-order formulas against first order, a slow transcription, and simple limits."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from fluid.errors import InfeasibleError, InputError
from fluid.iteration import IterationTime
from fluid.server import Server, load_server
from fluid.stages import class_stages, linear_stage_seconds
from fluid.steady.equilibrium import equilibrium
from fluid.steady.fluctuation import Fluctuation, fluctuation
from fluid.steady.overflow import eviction_onset_per_s, overflow
from fluid.steady.stability import stability
from fluid.workload import Workload
from tests.support import builders


def make(rates: tuple[float, ...]) -> Workload:
    lengths = ((40, 6), (10, 9), (25, 1))
    return builders.workload(
        *((rate, *length) for rate, length in zip(rates, lengths, strict=False))
    )


def make_server(first_token: str = "prefill", block: int = 1) -> Server:
    tau = IterationTime.affine(0.02, 2e-5, 3e-6, 1e-5, 1e-5)
    return builders.server(tau, first_token, 100_000, block)


def slow(workload: Workload, server: Server, steps: int) -> tuple[float, float, list[float]]:
    """THEORY 2.7 term by term: γ_0, KV variance, latency per class."""
    rates = [one.rate_per_s for one in workload.classes]
    stages = [class_stages(one, server) for one in workload.classes]
    slope = server.iteration_time.last_slope_s
    added = [linear_stage_seconds(one, server, slope) for one in stages]
    classes = range(len(rates))
    mean = server.iteration_time.overhead_s / (1 - sum(rates[j] * added[j].sum() for j in classes))

    def a(j: int, u: int) -> float:
        return float(added[j][u]) if u < len(added[j]) else 0.0

    def held(j: int, u: int) -> float:
        return float(stages[j].held_kv_tokens[u]) if u < stages[j].count else 0.0

    kappa = [sum(rates[i] * a(i, v) for i in classes) for v in range(steps)]
    r = [[0.0] * steps for _ in classes]
    for j in classes:
        for u in range(steps):
            r[j][u] = a(j, u) + sum(kappa[v] * r[j][u - 1 - v] for v in range(u))

    def gamma(s: int) -> float:
        return mean * sum(
            rates[j] * sum(r[j][u] * r[j][u + s] for u in range(steps - s)) for j in classes
        )

    variance = 0.0
    for j in classes:
        for u in range(steps):
            h = held(j, u) + sum(
                rates[i] * held(i, s) * r[j][u - 1 - s] for i in classes for s in range(u)
            )
            variance += mean * rates[j] * h**2
    latencies = []
    for j in classes:
        k = stages[j].count
        spread = gamma(0) / 2 + sum(gamma(s) for s in range(1, k + 1))
        latencies.append((k + 0.5) * mean + sum(r[j][:k]) + spread / mean)
    return gamma(0), variance, latencies


@pytest.mark.parametrize("first_token", ["prefill", "decode"])
def test_fast_equals_slow(first_token: str) -> None:
    workload, server = make((30.0, 20.0, 10.0)), make_server(first_token, block=4)
    found = fluctuation(workload, server)
    gamma_0, variance, latencies = slow(workload, server, steps=120)
    assert found.iteration_time_sd_s**2 == pytest.approx(gamma_0, rel=1e-6)
    assert found.kv_sd_tokens**2 == pytest.approx(variance, rel=1e-6)
    np.testing.assert_allclose([one.latency_s for one in found.classes], latencies, rtol=1e-6)


def test_first_order_is_the_limit_of_small_work() -> None:
    """With tiny seconds per unit the second-order terms vanish against the first."""
    workload, server = make((30.0, 20.0)), make_server()
    tau = server.iteration_time
    light = server.model_copy(
        update={"iteration_time": IterationTime.affine(tau.overhead_s, 1e-9, 1e-10)}
    )
    second, first = fluctuation(workload, light), equilibrium(workload, light)
    assert first.first_order is not None
    assert second.latency_s == pytest.approx(first.first_order.latency_s, rel=1e-5)
    assert second.ttft_s == pytest.approx(first.first_order.ttft_s, rel=1e-5)
    assert second.kv_mean_tokens == pytest.approx(first.kv_tokens)


def test_without_feedback_kv_is_poisson() -> None:
    """f constant and nothing else: variance ΔT Σ λ_j Σ_s (l_j + s)²."""
    workload = make((30.0, 20.0))
    server = make_server().model_copy(update={"iteration_time": IterationTime.affine(0.02)})
    held = [class_stages(one, server).held_kv_tokens for one in workload.classes]
    poisson = 0.02 * sum(
        one.rate_per_s * (kv.astype(float) ** 2).sum()
        for one, kv in zip(workload.classes, held, strict=True)
    )
    found = fluctuation(workload, server)
    assert found.kv_sd_tokens**2 == pytest.approx(poisson, rel=1e-9)
    assert found.iteration_time_sd_s == 0.0


def test_order_of_classes_does_not_matter() -> None:
    workload, server = make((30.0, 20.0, 10.0)), make_server()
    turned = workload.model_copy(update={"classes": workload.classes[::-1]})
    one, two = fluctuation(workload, server), fluctuation(turned, server)
    assert one.kv_sd_tokens == pytest.approx(two.kv_sd_tokens)
    assert one.classes[0].latency_s == pytest.approx(two.classes[2].latency_s)
    assert one.classes[2].tpot_s is None


def test_overflow_probability_falls_with_capacity() -> None:
    found = fluctuation(make((30.0, 20.0)), make_server())
    mean, sd = found.kv_mean_tokens, found.kv_sd_tokens
    chances = [found.overflow_probability(mean + k * sd) for k in range(5)]
    assert chances == sorted(chances, reverse=True)
    assert 0.3 < chances[0] < 0.6
    narrow = dataclasses.replace(found, kv_sd_tokens=sd / 2)
    assert narrow.overflow_probability(mean + sd) < chances[1]


@pytest.mark.parametrize("probability", [0.05, 0.01, 1e-4])
def test_memory_needed_and_eviction_onset_invert_the_probability(probability: float) -> None:
    load, machine = make((30.0, 20.0)), make_server()
    found = fluctuation(load, machine)
    needed = found.kv_tokens_needed(probability)
    assert found.overflow_probability(needed) == pytest.approx(probability)
    cramped = machine.model_copy(update={"kv_capacity_tokens": int(1.4 * found.kv_mean_tokens)})
    onset_per_s = eviction_onset_per_s(load, cramped, probability)
    at_onset = fluctuation(load.at_rate(onset_per_s), cramped)
    capacity = cramped.usable_kv_tokens
    assert at_onset.overflow_probability(capacity) == pytest.approx(probability, rel=0.01)
    assert eviction_onset_per_s(load, cramped, probability / 2) < onset_per_s


def test_without_a_limit_of_memory_nothing_is_evicted_below_the_limit() -> None:
    """Compute binds long before the memory fills."""
    load = make((30.0, 20.0))
    huge = make_server().model_copy(update={"kv_capacity_tokens": 10**9})
    limit_per_s = stability(load, huge).max_scale * load.rate_per_s
    assert eviction_onset_per_s(load, huge, 0.01) > 0.95 * limit_per_s


@pytest.mark.parametrize("probability", [0.0, 1.0, -0.1, float("nan")])
def test_a_probability_is_between_0_and_1(probability: float) -> None:
    with pytest.raises(InputError, match="probability"):
        eviction_onset_per_s(make((1.0,)), make_server(), probability)


def bent(server: Server) -> Server:
    """The same f but for a rise beyond all tokens that occur, so that it is not affine."""
    tau = server.iteration_time
    far = tau.overhead_s + 1e5 * tau.last_slope_s
    knots = {"tokens_knots": (0.0, 1e5, 1e5 + 1), "seconds_knots": (tau.overhead_s, far, far + 1.0)}
    return server.model_copy(update={"iteration_time": tau.model_copy(update=knots)})


def figures(found: Fluctuation) -> list[float]:
    return [
        *(found.iteration_time_s, found.iteration_time_sd_s, found.kv_mean_tokens),
        *(found.kv_sd_tokens, found.latency_s, found.ttft_s),
        *(one.latency_s for one in found.classes),
    ]


@pytest.mark.parametrize("first_token", ["prefill", "decode"])
def test_the_chain_for_any_f_equals_the_closed_form(first_token: str) -> None:
    """THEORY 9.2 against 2.7 where both hold."""
    tau = IterationTime.affine(0.02, 4e-5, 2e-7, 1e-5, 1e-5)
    server = builders.server(tau, first_token, 10**6, 16)
    load = builders.workload((12.0, 400, 60), (4.0, 900, 25), (10.0, 100, 120))
    exact, found = fluctuation(load, server), fluctuation(load, bent(server))
    np.testing.assert_allclose(figures(found), figures(exact), rtol=5e-3)


def test_prompts_alone_for_any_f_are_a_batch_queue() -> None:
    """One output token: τ' = d0 + w·Poisson(λτ), E τ = d0/(1 − ρ), Var τ = λ w² E τ/(1 − ρ²)."""
    server = bent(builders.server(IterationTime.affine(0.01, 4e-5), "prefill", 10**6))
    found = fluctuation(builders.workload((40.0, 400, 1)), server)
    work = 40 * 400 * 4e-5
    assert found.iteration_time_s == pytest.approx(0.01 / (1 - work), rel=1e-3)
    variance = 40 * (400 * 4e-5) ** 2 * found.iteration_time_s / (1 - work**2)
    assert found.iteration_time_sd_s**2 == pytest.approx(variance, rel=5e-3)
    assert found.classes[0].tpot_s is None


def test_a_flat_f_with_a_far_step_is_an_infinite_server() -> None:
    flat = make_server().model_copy(update={"iteration_time": IterationTime.affine(0.02)})
    load = make((30.0, 20.0))
    exact, found = fluctuation(load, flat), fluctuation(load, bent(flat))
    assert found.kv_sd_tokens == pytest.approx(exact.kv_sd_tokens, rel=1e-5)
    assert found.iteration_time_sd_s == pytest.approx(0, abs=1e-6)


def test_onset_on_a_staircase() -> None:
    server = load_server("a100-80gb-llama-2-7b")
    load = builders.workload((1.0, 512, 200))
    limit_per_s = stability(load, server).max_scale * load.rate_per_s
    found = overflow(load.at_rate(0.5 * limit_per_s), server, 0.01)
    assert found.kv_mean_tokens < found.kv_tokens_needed < server.usable_kv_tokens
    assert 0.5 * limit_per_s < found.eviction_onset_per_s < limit_per_s
    at_onset = fluctuation(load.at_rate(found.eviction_onset_per_s), server)
    assert at_onset.kv_tokens_needed(0.01) == pytest.approx(server.usable_kv_tokens, rel=0.02)


def test_refusals() -> None:
    with pytest.raises(InfeasibleError, match=r"more work than the server can do"):
        fluctuation(make((10_000.0,)), load_server("a100-80gb-llama-2-7b"))
    with pytest.raises(InfeasibleError, match=r"utilisation .* is not below 1"):
        fluctuation(make((1000.0,)), make_server())
