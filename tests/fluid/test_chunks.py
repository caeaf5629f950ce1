"""Limits with prompts in chunks: against a solver over all chunks, and against simulation."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize

from fluid.errors import InputError
from fluid.iteration import IterationTime
from fluid.server import Server
from fluid.steady.capacity import capacity
from fluid.steady.chunks import ChunkLimit, budget_limit, chunk_limit
from fluid.steady.stability import stability
from tests.support.builders import one_class, server, workload
from tests.support.chunk_cases import CASES, simulated_share
from validation.simulator.runs import Runs

SQUARES = IterationTime.affine(0.01).model_copy(update={"per_prefill_token_sq_s": 1e-8})


def least_cost(prompt: int, chunks: int, square_s: float, held_s: float) -> float:
    """Least seconds of a prompt in so many chunks and of the memory that it holds meanwhile."""

    def cost(parts: NDArray[np.float64]) -> float:
        return float(square_s * (parts @ parts) + held_s * np.cumsum(parts).sum()) * 1e3

    found = minimize(
        cost,
        np.full(chunks, prompt / chunks),
        bounds=[(0, prompt)] * chunks,
        constraints={"type": "eq", "fun": lambda parts: parts.sum() - prompt},
        jac=lambda parts: 2e3 * square_s * parts + 1e3 * held_s * np.arange(len(parts), 0, -1),
    )
    return float(found.fun) / 1e3


@pytest.mark.parametrize(("tokens", "context_s"), [(36_000, 0.0), (9_000, 4e-9), (4_500, 1.5e-8)])
def test_the_best_chunks_are_those_of_a_solver(tokens: int, context_s: float) -> None:
    tau = SQUARES.model_copy(update={"per_prefill_context_token_s": context_s})
    load, machine = one_class(1.0, 4_000, 10), server(tau, "prefill", tokens)
    found = chunk_limit(load, machine)
    gain_s, held_s = 1e-8 - context_s / 2, 0.01 / tokens
    best = int(found.chunks[0])
    least = min(least_cost(4_000, k, gain_s, held_s) for k in (1, best - 1, best, best + 1))
    decodes = held_s * sum(4_000 + s for s in range(1, 10))
    assert 1 / found.scale == pytest.approx(least + context_s / 2 * 4_000**2 + decodes, rel=1e-4)
    assert found.matters


def test_chunks_that_save_no_work_leave_the_region_as_it_is() -> None:
    tau = SQUARES.model_copy(update={"per_prefill_context_token_s": 2e-8})
    load, machine = one_class(1.0, 4_000, 10), server(tau, "prefill", 36_000)
    found = chunk_limit(load, machine)
    assert found == ChunkLimit(found.whole_scale, found.whole_scale, "work and memory", (1.0,))
    assert found.whole_scale == pytest.approx(stability(load, machine).max_scale)


def test_sarathi_is_stable_where_whole_prompts_cannot_be() -> None:
    case = CASES["squares"]
    whole, any_chunks = 5.844, chunk_limit(case.workload, case.server)
    budget = budget_limit(case.workload, case.server, case.budget_tokens)
    assert any_chunks.whole_scale == pytest.approx(whole, rel=1e-3)
    assert any_chunks.scale > budget.scale > 8.7 > whole


@pytest.mark.slow
@pytest.mark.parametrize("name", ["squares", "contexts", "two classes", "a100, 512"])
def test_a_budget_reaches_its_limit_in_simulation(name: str) -> None:
    assert simulated_share(CASES[name], Runs(2, 3_000)) == pytest.approx(1, abs=0.02)


def test_a_budget_never_carries_more_than_any_chunks() -> None:
    for tokens in (200, 500, 1_000, 4_000, 100_000):
        for case in (CASES["squares"], CASES["two classes"]):
            budget = budget_limit(case.workload, case.server, tokens)
            assert budget.scale <= chunk_limit(case.workload, case.server).scale * (1 + 1e-9)


def test_a_budget_that_nothing_fills_leaves_whole_prompts() -> None:
    load, machine = one_class(1.0, 500, 100), server(SQUARES, "prefill", 100_000)
    found = budget_limit(load, machine, 10_000_000)
    assert found.scale == pytest.approx(found.whole_scale)
    assert found.chunks == (1.0,)


def test_capacity_says_the_limit_of_chunks() -> None:
    load, machine = workload((1.0, 4_000, 10)), server(SQUARES, "prefill", 36_000)
    free = capacity(load, machine, "rate")
    assert "limits of whole prompts" in str(free)
    assert free.document()["chunked"]["rate_per_s"] == pytest.approx(
        chunk_limit(load, machine).scale
    )
    told = capacity(load, machine, "rate", budget_tokens=1_000)
    assert "1,000 tokens an iteration: up to 13.04 requests/s" in str(told)
    assert "tokens per iteration bind" in str(told)
    assert told.value == pytest.approx(free.value)


def test_a_budget_that_does_not_suit_is_refused() -> None:
    load = one_class(1.0, 400, 10)
    with pytest.raises(InputError, match="only with query rate"):
        capacity(load, server(SQUARES), "servers", budget_tokens=512)
    with pytest.raises(InputError, match="at least 1"):
        capacity(load, server(SQUARES), "rate", budget_tokens=0)
    with pytest.raises(InputError, match="first_token"):
        capacity(load, Server.named("paper-long-decode"), "rate", budget_tokens=512)
