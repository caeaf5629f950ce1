"""The simulator's vllm-v1 against vLLM's scheduler, and the plug-in against vllm-v1 with a table.

On random small servers under pressure every step must agree: tokens scheduled to each request,
order of the running and of the waiting queue, free blocks, requests finished and preempted. The
slow rule of `validation.reference` stands for the simulator; the compiled engine agrees with it
request by request (tests/validation/test_agreement.py).
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.scheduler import Scheduler

from fluid.iteration import IterationTime
from fluid.server import Server
from tests.vllm.conftest import skip_later_priority_rule
from tests.vllm.virtual_engine import SEATS, Run, Step, Tape, make_scheduler, run
from thresholds.export.vllm_scheduler import TableScheduler
from validation.reference import REFERENCE_POLICIES, Request, simulate_ahead, simulate_slowly
from validation.reference.core import Queueing
from validation.reference.vllm_v1 import urgency

WORKLOADS = 80
REQUESTS = 60
LEAST_PREEMPTIONS = 500
"""Of each of the two orders, 160 workloads together."""


@dataclass(frozen=True)
class Case:
    server: Server
    tape: Tape
    parameters: dict[str, Any]
    settings: dict[str, Any]


def random_case(name: str, number: int) -> Case:
    rng = random.Random(f"{name}-{number}")
    block = rng.choice([1, 4, 16])
    shapes = [(rng.randint(1, 30), rng.randint(1, 25)) for _ in range(rng.randint(1, 3))]
    largest = max(-(-(prompt + outputs) // block) for prompt, outputs in shapes)
    watermark = rng.choice([0.0, 0.0, 0.05, 0.1, 0.4])
    blocks = 1 + math.ceil(largest * rng.choice([1, 2, 2, 3]))
    server = Server(
        name="small",
        source="test",
        kv_capacity_tokens=blocks * block,
        block_tokens=block,
        iteration_time=IterationTime.affine(0.05, 1e-3, 1e-4),
    )
    chosen = rng.choices(shapes, k=REQUESTS)
    rate = rng.uniform(0.5, 10.0)
    arrived_at_s, clock_s = [], 0.0
    together = rng.choice([0.0, 0.0, 0.5])
    for _ in chosen:
        clock_s += 0.0 if rng.random() < together else rng.expovariate(rate)
        arrived_at_s.append(clock_s)
    priorities = None
    if name == "priority":
        levels = rng.choice([1, 1, 3])
        priorities = [rng.randrange(levels) for _ in chosen]
    prompts, outputs = zip(*chosen, strict=True)
    tape = Tape(arrived_at_s, prompts, outputs, priorities)
    budget = rng.choice([1, 2, 3, 4, 6, 16, 40, 2048])
    seats = min(budget, rng.choice([1, 3, 6, SEATS, SEATS]))
    whole = rng.random() < 0.8
    alike: dict[str, Any] = {
        "max_num_batched_tokens": budget,
        "max_num_seqs": seats,
        "watermark": watermark,
        "long_prefill_token_threshold": min(budget, rng.choice([0, 0, 0, 2, 7])),
    }
    active = min(seats, rng.choice([2, seats, seats, seats]))
    if active < seats:
        alike["max_num_active_seqs"] = active
    parameters = alike | {"reserve_full_prompt": int(whole)}
    settings = alike | {"scheduler_reserve_full_isl": whole}
    return Case(server, tape, parameters, settings)


def real_steps(scheduler: Scheduler, case: Case, ahead: bool) -> tuple[list[Step], Run]:
    """Every step in which vLLM's scheduler computed something."""
    steps: list[Step] = []
    time = case.server.iteration_time
    played = run(scheduler, case.tape, time, 2 if ahead else 1, steps.append, 0.0)
    return [one for one in steps if one.scheduled], played


def simulated_steps(case: Case, parameters: dict[str, Any]) -> tuple[list[Step], list[Request]]:
    """The same of the simulator's rule."""
    tape = case.tape
    steps: list[Step] = []

    def recorded(state: Queueing) -> list[Request]:
        batch = REFERENCE_POLICIES["vllm-v1"](state)
        if batch:
            waiting = sorted(state.waiting, key=urgency) if tape.priorities else state.waiting
            step = Step(
                at_s=state.clock_s,
                scheduled={one.number: one.computes for one in batch},
                running=[one.number for one in state.residents],
                waiting=[one.number for one in waiting],
                free_blocks=len(state.pool.free),
            )
            step.finished = {
                one.number
                for one in batch
                if one.computes == one.missing and one.outputs + 1 == one.decode_tokens
            }
            steps.append(step)
        return batch

    shapes = zip(tape.arrived_at_s, tape.prompt_tokens, tape.output_tokens, strict=True)
    requests = [
        Request(
            number,
            at_s,
            0,
            prompt,
            0,
            outputs,
            priority=tape.priorities[number] if tape.priorities else 0,
        )
        for number, (at_s, prompt, outputs) in enumerate(shapes)
    ]
    ahead = parameters.get("async_scheduling", 0)
    (simulate_ahead if ahead else simulate_slowly)(requests, case.server, recorded, parameters)
    return steps, requests


def require_agreement(scheduler: Scheduler, case: Case, parameters: dict[str, Any]) -> int:
    """Assert that every step agrees; returns the number of preemptions."""
    ahead = bool(parameters.get("async_scheduling", 0))
    real, played = real_steps(scheduler, case, ahead)
    simulated, requests = simulated_steps(case, parameters)
    for index, (ours, theirs) in enumerate(zip(simulated, real, strict=True)):
        assert math.isclose(ours.at_s, theirs.at_s, rel_tol=1e-9), index
        ours.at_s = theirs.at_s
        if ahead:  # Whose tokens come with a step is known after another one.
            ours.finished = theirs.finished
        assert ours == theirs, index
    np.testing.assert_allclose([one.completed_at_s for one in requests], played.completed_at_s)
    evictions = [one.evictions for one in requests]
    assert evictions == played.preemptions.tolist()
    return sum(evictions)


@pytest.mark.parametrize("scheduler_cls", [Scheduler, AsyncScheduler])
@pytest.mark.parametrize("order", ["fcfs", "priority"])
def test_the_simulator_agrees_with_vllm_step_for_step(
    order: str, scheduler_cls: type[Scheduler], model: Path
) -> None:
    """With equal arrival times, and by priority with equal and different priorities."""
    skip_later_priority_rule(order)
    ahead = int(scheduler_cls is AsyncScheduler)
    chosen = {"fcfs": "last-admitted", "priority": "latest-arrival"}[order]
    parameters = {"victim": chosen, "async_scheduling": ahead}
    preemptions = 0
    for number in range(WORKLOADS):
        case = random_case(order, number)
        scheduler = make_scheduler(
            scheduler_cls,
            model,
            case.server.kv_capacity_tokens // case.server.block_tokens,
            case.server.block_tokens,
            policy=order,
            **(case.settings | {"async_scheduling": bool(ahead)}),
        )
        preemptions += require_agreement(scheduler, case, case.parameters | parameters)
    assert preemptions >= LEAST_PREEMPTIONS


def test_the_plug_in_follows_pace_cap_and_watermark_step_for_step(
    model: Path, make_table: Any
) -> None:
    preemptions = 0
    for number in range(WORKLOADS):
        case = random_case("plug-in", number)
        rng = random.Random(number)
        limits = {
            "pace_per_iteration": rng.choice([0.2, 0.9, 1.5]),
            "cap_requests": rng.choice([1, 2, 5]),
            "watermark_fraction": case.parameters["watermark"],
        }
        for name in list(limits):
            if rng.random() < 0.4:
                del limits[name]
        parameters = case.parameters | {
            "pace": limits.get("pace_per_iteration", math.inf),
            "cap": limits.get("cap_requests", math.inf),
            "watermark": limits.get("watermark_fraction", 0.0),
        }
        path = make_table(case.server, params=limits)
        scheduler = make_scheduler(
            TableScheduler,
            model,
            case.server.kv_capacity_tokens // case.server.block_tokens,
            case.server.block_tokens,
            additional_config={"fluidwait": {"table": str(path)}},
            **(case.settings | {"watermark": 0.0}),
        )
        preemptions += require_agreement(scheduler, case, parameters)
        assert scheduler.counters.admitted == REQUESTS
    assert preemptions > 0
