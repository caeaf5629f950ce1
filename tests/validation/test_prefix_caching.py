"""Prefix caching in the compiled engine: the slow reference, request by request, block by block.

That the reference does what vLLM's scheduler does is checked in tests/vllm/test_prefix_caching.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fluid.traces.tape import Tape
from tests.support.prefix_cases import Case, random_prefix_case
from validation.policies import POLICIES
from validation.reference import REFERENCE_POLICIES, simulate_ahead, simulate_slowly
from validation.reference.core import Queueing, Request
from validation.simulator import cpu
from validation.simulator.model import Model, tape_model
from validation.simulator.prefix.content import shapes_with_runs
from validation.simulator.prefix.state import PrefixLane
from validation.simulator.traffic.job import FiniteJob
from validation.simulator.traffic.traffic import Traffic

WORKLOADS = 75
"""Of each of the four ways to schedule."""


def model_of_case(case: Case) -> Model:
    """The requests as a finite job whose blocks are named one by one."""
    lengths = np.array([case.prompt_tokens, case.output_tokens])
    tape = Tape(np.array(case.arrived_at_s), *lengths)
    model = tape_model(tape, case.server, Traffic(job=FiniteJob()))
    tokens = [len(one) for one in case.tokens]
    block = case.server.block_tokens
    shapes, runs = shapes_with_runs(
        model.shapes, model.tape["shape"], case.contents, tokens, block, block
    )
    shapes["report_class"] = case.priorities or 0
    model.tape["shape"] = np.arange(len(shapes))
    return model._replace(shapes=shapes, runs=runs)


def slow_run(case: Case, ahead: bool, steps: int) -> tuple[list[Request], Queueing, Any]:
    states: list[Queueing] = []

    def rule(state: Queueing) -> list[Request]:
        states.append(state)
        return REFERENCE_POLICIES["vllm-v1"](state)

    requests = case.requests()
    go = simulate_ahead if ahead else simulate_slowly
    iterations = go(requests, case.server, rule, case.values(ahead), steps=steps)
    return requests, states[-1], np.array(iterations)


def read(lane: PrefixLane) -> tuple[list[int], list[int], list[list[int]], Any]:
    """Free blocks in order, blocks that have entered, blocks with one key in order of entry."""
    free = []
    block = int(lane.blocks[0]["next"])
    while block:
        free.append(block)
        block = int(lane.blocks[block]["next"])
    entered = np.flatnonzero(lane.blocks["key"] >= 0).tolist()
    copies: dict[int, list[int]] = {}
    for bucket in lane.buckets:
        block = int(bucket["first"])
        while block:
            copies.setdefault(int(lane.blocks[block]["key"]), []).append(block)
            block = int(lane.blocks[block]["later"])
    return free, entered, sorted(copies.values()), lane.pool[0].copy()


@pytest.mark.parametrize("order", ["fcfs", "priority"])
@pytest.mark.parametrize("ahead", [False, True])
def test_the_engine_agrees_with_the_reference_block_by_block(order: str, ahead: bool) -> None:
    hits, evictions = 0, 0
    for number in range(WORKLOADS):
        case = random_prefix_case(f"{order}-{ahead}", number)
        levels = tuple(range(max(case.priorities) + 1)) if case.priorities else ()
        policy = POLICIES["vllm-v1"].configure(case.values(ahead), priorities=levels)
        model, job = model_of_case(case), cpu.Job(policy, 0)
        trace = cpu.run_traced(model, job, 0)
        ((free, entered, copies, pool),) = cpu.run_reading(model, [job], 0, read)
        requests, state, iterations = slow_run(case, ahead, len(trace.series))
        np.testing.assert_allclose(trace.series[:, :2], iterations, rtol=1e-10)
        for field in ("first_token_at_s", "completed_at_s"):
            expected = [getattr(one, field) for one in requests]
            np.testing.assert_allclose(getattr(trace, field), expected, rtol=1e-10)
        assert trace.evicted_times.tolist() == [one.evictions for one in requests]
        assert state.pool is not None
        assert free == state.pool.free
        assert entered == sorted(state.pool.contents)
        assert copies == sorted(one for one in state.pool.copies.values() if one)
        hits += any(state.pool.found_tokens.values())
        evictions += state.pool.evicted > 0
    assert hits >= 0.9 * WORKLOADS
    assert evictions >= 0.5 * WORKLOADS
