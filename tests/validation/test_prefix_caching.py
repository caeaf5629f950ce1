"""Prefix caching in the compiled engine: the slow reference, request by request, block by block.

That the reference does what vLLM's scheduler does is checked in tests/vllm/test_prefix_caching.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fluid.conversation import Conversation
from fluid.iteration import IterationTime
from fluid.server import Server
from fluid.traces.prompt_blocks import PromptBlocks
from fluid.traces.tape import Tape
from fluid.workload import Requests, Workload
from tests.support.prefix_cases import Case, random_prefix_case
from validation.policies import POLICIES
from validation.reference import REFERENCE_POLICIES, simulate_ahead, simulate_slowly
from validation.reference.core import Queueing
from validation.reference.request import Request
from validation.simulator import cpu
from validation.simulator.model import Model, poisson_model, tape_model
from validation.simulator.prefix.content import runs_of
from validation.simulator.traffic.job import FiniteJob
from validation.simulator.traffic.traffic import Traffic

WORKLOADS = 75
"""Of each of the four ways to schedule."""


def model_of_case(case: Case) -> Model:
    """The requests as a finite job whose blocks are named one by one, outputs too."""
    lengths = np.array([case.prompt_tokens, case.output_tokens])
    tape = Tape(np.array(case.arrived_at_s), *lengths)
    model = tape_model(tape, case.server, Traffic(job=FiniteJob()))
    tokens = np.array([len(one) for one in case.tokens])
    counts = np.array([len(one) for one in case.contents])
    ids = np.concatenate(case.contents)
    block = case.server.block_tokens
    runs, first = runs_of(PromptBlocks(ids, counts, block), tokens, block)
    shapes = model.shapes[model.tape["shape"]]
    shapes["report_class"] = case.priorities or 0
    model.tape["shape"] = np.arange(len(shapes))
    model.tape["first_run"], model.tape["runs"] = first[:-1], np.diff(first)
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


def read(lane: Any) -> tuple[list[int], list[int], list[list[int]]]:
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
    return free, entered, sorted(copies.values())


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
        ((free, entered, copies),) = cpu.run_reading(model, [job], 0, read)
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


SERVER = Server(
    name="small",
    source="test",
    kv_capacity_tokens=16 * 60,
    block_tokens=16,
    iteration_time=IterationTime.affine(0.05, 1e-3, 1e-4),
)
CHATS = Workload.of(
    chat=Requests(
        1.0,
        prompt=0,
        output=9,
        shared_prefix=40,
        conversation=Conversation(
            turns={1: 1.0, 3: 1.0, 6: 1.0}, think_time_s=2.0, new_tokens=21, think_time_law="fixed"
        ),
    ),
    system=Requests(0.7, prompt=70, output=12, shared_prefix=64),
)
TURNS = 1 << 14


def contents_of(draw: int, kind: int, tokens: int) -> list[tuple[str, int, int]]:
    """What the blocks of a request hold: the prefix of its class, then its own conversation's."""
    shared = (40, 64)[kind] // 16
    return [
        ("class", kind, index) if index < shared else ("own", draw // TURNS, index)
        for index in range(tokens // 16)
    ]


@pytest.mark.parametrize("ahead", [0, 1])
def test_conversations_and_shared_prefixes_agree_with_the_reference(ahead: int) -> None:
    values = {"prefix_caching": 1, "async_scheduling": ahead, "max_num_batched_tokens": 64}
    policy = POLICIES["vllm-v1"].configure(values)
    model = poisson_model(CHATS, SERVER)
    job = cpu.Job(policy, 0, rate_scale=1.5)
    trace = cpu.run_traced(model, job, 300)
    sent = np.isfinite(trace.arrived_at_s)
    shapes = model.shapes[trace.shape_index]
    requests = [
        Request(
            number,
            float(trace.arrived_at_s[number]),
            0,
            int(shape["prompt_tokens"]),
            0,
            int(shape["output_tokens"]),
            content=contents_of(
                int(trace.draw[number]),
                int(shape["report_class"]),
                int(shape["prompt_tokens"] + shape["output_tokens"]),
            ),
        )
        for number, shape in enumerate(shapes)
        if sent[number]
    ]
    go = simulate_ahead if ahead else simulate_slowly
    steps = len(trace.series)
    iterations = go(requests, SERVER, REFERENCE_POLICIES["vllm-v1"], values, steps=steps)
    np.testing.assert_allclose(trace.series[:, :2], np.array(iterations), rtol=1e-10)
    expected = [one.completed_at_s for one in requests]
    np.testing.assert_allclose(trace.completed_at_s[sent], expected, rtol=1e-10)
    (found,) = cpu.run(model, [job], 300)
    assert found.prefixes is not None
    assert 0.3 < found.prefixes.hit_tokens / found.prefixes.queried_tokens < 0.9
    assert found.prefixes.evicted_blocks > 0


def test_a_turn_comes_when_the_one_before_was_answered_and_thought_over() -> None:
    """With every rule; which conversations there are, and how long, does not depend on it."""
    model = poisson_model(CHATS, SERVER)
    lengths = []
    for name in ("greedy", "vllm-v1"):
        trace = cpu.run_traced(model, cpu.Job(POLICIES[name].configure(), 0), 2000)
        row = {int(draw): place for place, draw in enumerate(trace.draw)}
        turns: dict[int, int] = {}
        for draw, place in row.items():
            if not np.isfinite(trace.arrived_at_s[place]):
                continue
            turns[draw // TURNS] = max(turns.get(draw // TURNS, 0), draw % TURNS)
            if draw % TURNS:
                before_s = trace.completed_at_s[row[draw - 1]]
                assert trace.arrived_at_s[place] == before_s + 2.0
        lengths.append([turns[number] for number in range(200)])
    assert lengths[0] == lengths[1]
    assert set(lengths[0]) == {0, 2, 5}
    measured = trace.arrived_at_s[np.isfinite(trace.arrived_at_s)]
    assert len(measured) / measured[-1] == pytest.approx(CHATS.rate_per_s, rel=0.06)
