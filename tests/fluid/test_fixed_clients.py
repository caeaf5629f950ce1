"""The closed loop against exact small cases, its asymptotes, and a slow simulation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fluid.errors import InputError
from fluid.iteration import IterationTime
from fluid.overload.fixed_clients import fixed_clients
from fluid.overload.iterations import Mix
from fluid.plots.style import save
from fluid.server import Server, load_server
from fluid.steady.stability import stability
from fluid.workload import Requests, Workload
from tests.support.builders import one_class

ENGINE = load_server("engine-long-decode").model_copy(
    update={"block_tokens": 1, "kv_capacity_tokens": 137_000}
)
A100 = load_server("a100-80gb-llama-2-7b")
PAPER = load_server("paper-long-decode")
SPREAD = Workload.of(
    **{f"c{n}": Requests(2.0 - n / 200, 512, n) for n in range(10, 310, 20)},
    long=Requests(0.5, 900, 200),
)
"""Enough lengths for clients to fall out of step."""


def steady(overhead_s: float) -> Server:
    return ENGINE.model_copy(update={"iteration_time": IterationTime.affine(overhead_s)})


@pytest.mark.parametrize("server", [ENGINE, A100, PAPER], ids=lambda one: one.name)
@pytest.mark.parametrize("think_s", [0.0, 0.01, 3.0])
def test_one_client_is_alone(server: Server, think_s: float) -> None:
    """Exact: its prompt, its decodes one by one, its thinking; averaged over the classes."""
    found = fixed_clients(SPREAD, server, 1, think_s=think_s)
    tau, silent = server.iteration_time, server.first_token == "decode"
    latencies = []
    for one, request in zip(found.classes, SPREAD.classes, strict=True):
        prompt, output = request.prefill_tokens, request.decode_tokens
        first_s = float(tau(prompt, prefill_tokens=prompt, prefill_tokens_sq=prompt**2))
        later = prompt + np.arange(1, output + silent)
        later_s = tau(np.ones(len(later)), kv_tokens=later, decode_requests=1.0)
        assert one.latency_s == pytest.approx(first_s + later_s.sum())
        assert one.ttft_s == pytest.approx(first_s + (later_s.mean() if silent else 0))
        latencies.append(first_s + later_s.sum())
    rates = np.array([one.rate_per_s for one in SPREAD.classes])
    cycle_s = think_s + rates @ latencies / rates.sum()
    assert found.completed_per_s == pytest.approx(1 / cycle_s)


@pytest.mark.parametrize("clients", [2, 7, 40])
def test_iterations_of_one_length_of_time(clients: int) -> None:
    """τ ≡ d0: nobody disturbs anybody, R = S̄·d0, and without thinking X = N/(S̄·d0)."""
    found = fixed_clients(SPREAD, steady(0.02), clients)
    stages = Mix.of(SPREAD, ENGINE).mean_stages
    assert found.latency_s == pytest.approx(0.02 * stages)
    assert found.completed_per_s == pytest.approx(clients / (0.02 * stages))
    thinking = fixed_clients(SPREAD, steady(0.02), clients, think_s=100.0)
    wait_s = thinking.latency_s - 0.02 * stages
    # Half an iteration, unless nobody is there.
    assert 0 <= wait_s <= 0.010001
    assert fixed_clients(SPREAD, steady(0.02), 100, think_s=5.0).latency_s - found.latency_s == (
        pytest.approx(0.01, rel=0.01)
    )


def test_balance_equations() -> None:
    for clients, think_s in ((5, 0.0), (64, 0.0), (64, 2.0), (64, 50.0)):
        found = fixed_clients(SPREAD, ENGINE, clients, think_s=think_s)
        rate_per_s = found.completed_per_s
        assert rate_per_s * (think_s + found.latency_s) == pytest.approx(clients)  # Little
        assert found.in_service == pytest.approx(rate_per_s * found.latency_s)
        shares = [one.share for one in found.classes]
        assert np.dot(shares, [one.latency_s for one in found.classes]) == pytest.approx(
            found.latency_s
        )
        if think_s == 0:  # what completes is what iterations bring through their last stage
            stages, iteration_s = Mix.of(SPREAD, ENGINE).mean_stages, found.iteration_s
            assert iteration_s is not None
            assert rate_per_s == pytest.approx(clients / (stages * iteration_s))


def test_asymptotes() -> None:
    """Little thinking is none but for the wait; much thinking makes each client alone."""
    alone = fixed_clients(SPREAD, ENGINE, 1)
    rare = fixed_clients(SPREAD, ENGINE, 20, think_s=10_000.0)
    assert rare.completed_per_s == pytest.approx(20 / (10_000 + rare.latency_s))
    assert rare.latency_s == pytest.approx(alone.latency_s, rel=0.01)
    rates = [fixed_clients(SPREAD, ENGINE, n).completed_per_s for n in (1, 2, 4, 8, 16, 64)]
    assert (np.diff(rates) > 0).all()
    assert (np.diff(np.divide(rates, (1, 2, 4, 8, 16, 64))) < 0).all()


def test_memory_and_seats() -> None:
    limit_per_s = stability(SPREAD, ENGINE).max_scale * SPREAD.rate_per_s
    full = fixed_clients(SPREAD, ENGINE, 1000, think_s=4.0)
    assert full.limited_by == "memory"
    assert full.completed_per_s == pytest.approx(limit_per_s)
    assert full.latency_s == pytest.approx(1000 / limit_per_s - 4)
    assert full.kv_tokens == pytest.approx(137_000)
    # A table that keeps up less: slower for all, by as much.
    slow = fixed_clients(SPREAD, ENGINE, 1000, think_s=4.0, saturated_per_s=limit_per_s / 2)
    assert slow.latency_s + 4 == pytest.approx(2 * (full.latency_s + 4))
    # THEORY 13: 64 seats for 128 clients complete what 64 clients do, and all wait twice as long.
    seats, half = fixed_clients(SPREAD, ENGINE, 128, seats=64), fixed_clients(SPREAD, ENGINE, 64)
    assert seats.limited_by == "seats"
    assert seats.completed_per_s == pytest.approx(half.completed_per_s)
    assert seats.latency_s == pytest.approx(2 * half.latency_s)
    assert seats.tpot_s == pytest.approx(half.tpot_s)


def test_cases_of_the_theory() -> None:
    """THEORY 13, memory: 512 / geometric 150 fits 207.5 times; N = 16, N = 64; a job."""
    middles = (np.arange(2000) + 0.5) / 2000
    lengths = np.ceil(np.log1p(-middles) / np.log1p(-1 / 150)).astype(int)
    outputs, counts = np.unique(lengths, return_counts=True)
    load = Workload.of(
        **{f"c{o}": Requests(float(n), 512, int(o)) for o, n in zip(outputs, counts, strict=True)}
    )
    few, many = fixed_clients(load, ENGINE, 16), fixed_clients(load, ENGINE, 64)
    assert few.memory_clients == pytest.approx(207.5, rel=0.002)
    assert few.completed_per_s == pytest.approx(6.502, rel=0.01)
    assert few.tpot_s == pytest.approx(0.01637, rel=0.005)
    assert many.completed_per_s == pytest.approx(12.53, rel=0.01)
    assert many.ttft_s == pytest.approx(0.0570, rel=0.005)
    assert many.job_ttft_s(5) == pytest.approx(0.343, abs=0.001)
    assert many.job_ttft_s(10) == pytest.approx(0.200, abs=0.001)


def test_one_length_without_thinking_stays_in_step() -> None:
    """THEORY 13.3: N = 64, 512/150: TTFT 1.485 s for ever, TPOT .0233."""
    found = fixed_clients(one_class(1.0, 512, 150), ENGINE, 64)
    assert found.lockstep
    assert found.ttft_s == pytest.approx(1.485, abs=0.001)
    assert found.tpot_s == pytest.approx(0.0233, abs=0.0001)
    assert any("in step for ever" in one for one in found.caveats)
    assert not fixed_clients(one_class(1.0, 512, 150), ENGINE, 64, think_s=1.0).lockstep


Figures = tuple[np.ndarray, np.ndarray]

BATCHES = 10


def simulated(
    load: Workload, server: Server, clients: int, think_s: float, iterations: int
) -> Figures:
    """X, TTFT and TPOT of clients one by one, iteration by iteration; whole prompts.

    Returns:
        Means over the last ten of eleven batches and their standard errors, shape (3,) each.
    """
    rng = np.random.default_rng(7)
    rates = np.array([one.rate_per_s for one in load.classes])
    prompts = np.array([one.prefill_tokens for one in load.classes])
    outputs = np.array([one.decode_tokens for one in load.classes])
    kind = rng.choice(len(rates), clients, p=rates / rates.sum())
    stage = rng.integers(0, outputs[kind]) if think_s == 0 else np.zeros(clients, dtype=int)
    back_s = rng.exponential(think_s, clients) if think_s else np.zeros(clients)
    asked_s, clock_s = back_s.copy(), 0.0
    sums = np.zeros((BATCHES + 1, 6))  # completions, seconds; TTFT, firsts; gaps in time, gaps
    for iteration in range(iterations):
        batch = sums[iteration * (BATCHES + 1) // iterations]
        idle_s = max(back_s.min() - clock_s, 0.0)
        clock_s += idle_s
        here = back_s <= clock_s
        starting, decoding = here & (stage == 0), here & (stage > 0)
        prompt = prompts[kind[starting]]
        took_s = float(
            server.iteration_time(
                prompt.sum() + decoding.sum(),
                kv_tokens=(prompts[kind] + stage)[decoding].sum(),
                prefill_tokens=prompt.sum(),
                decode_requests=decoding.sum(),
                prefill_tokens_sq=(prompt**2).sum(),
            )
        )
        clock_s += took_s
        stage[here] += 1
        over = here & (stage == outputs[kind])
        count = int(over.sum())
        waits_s = (clock_s - asked_s[starting]).sum()
        decodes = int(decoding.sum())
        batch += (count, idle_s + took_s, waits_s, starting.sum(), took_s * decodes, decodes)
        stage[over] = 0
        kind[over] = rng.choice(len(rates), count, p=rates / rates.sum())
        back_s[over] = clock_s + (rng.exponential(think_s, count) if think_s else 0.0)
        asked_s[over] = back_s[over]
    figures = sums[1:, ::2] / sums[1:, 1::2]
    return figures.mean(axis=0), figures.std(axis=0, ddof=1) / np.sqrt(BATCHES)


@pytest.mark.parametrize(
    ("server", "clients", "think_s"),
    [(ENGINE, 16, 0.0), (ENGINE, 48, 0.05), (ENGINE, 48, 3.0), (A100, 24, 0.0), (A100, 48, 3.0)],
)
def test_figures_are_those_of_a_slow_simulation(
    server: Server, clients: int, think_s: float
) -> None:
    """X and TPOT within 1 %, TTFT within 3 %, beside four standard errors of the simulation."""
    means, errors = simulated(SPREAD, server, clients, think_s, 11_000)
    found = fixed_clients(SPREAD, server, clients, think_s=think_s)
    predicted = np.array([found.completed_per_s, found.ttft_s, found.tpot_s])
    assert (errors < 0.03 * means).all()
    assert (np.abs(predicted - means) <= (0.01, 0.03, 0.01) * predicted + 4 * errors).all()


def test_picture(tmp_path: Path) -> None:
    save(fixed_clients(SPREAD, ENGINE, 20, think_s=2.0).plot, tmp_path / "clients.svg")
    assert (tmp_path / "clients.svg").stat().st_size > 1000


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"clients": 0}, "clients"),
        ({"clients": 2.5}, "clients"),
        ({"clients": True}, "clients"),
        ({"clients": 1, "think_s": -1.0}, "think_s"),
        ({"clients": 1, "think_s": float("inf")}, "think_s"),
        ({"clients": 1, "seats": 0}, "seats"),
        ({"clients": 1, "saturated_per_s": 1e9}, "saturated_per_s"),
    ],
)
def test_refusals(options: dict[str, float], field: str) -> None:
    with pytest.raises(InputError) as caught:
        fixed_clients(SPREAD, ENGINE, **options)  # type: ignore[arg-type]
    assert caught.value.field == field
