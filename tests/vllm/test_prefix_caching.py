"""vllm-v1 with prefix caching against vLLM's scheduler, step by step and block by block.

Each step must agree: tokens scheduled, order of running and waiting requests, the blocks of each
request, and all free blocks in the order in which they are handed out. The slow rule stands for the
simulator, whose compiled engine agrees with it (tests/validation/test_prefix_caching.py).

``python -m tests.vllm.test_prefix_caching`` runs 400 workloads and prints a table.
"""

from __future__ import annotations

import math
import random
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

# First, as vLLM reads its environment when it is imported.
from tests.vllm.conftest import skip_later_priority_rule

# isort: split
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.scheduler import Scheduler

from tests.support.prefix_cases import Case, random_prefix_case
from tests.vllm.virtual_engine import Step, Tape, make_scheduler, model_folder, run
from thresholds.export.vllm_scheduler import AsyncTableScheduler, TableScheduler
from validation.reference import REFERENCE_POLICIES, Request, simulate_ahead, simulate_slowly
from validation.reference.core import Queueing
from validation.reference.vllm_v1 import urgency

WORKLOADS = 12
MANY = 100
"""Of each of the four ways to schedule; the second number by hand."""

MODES = [(order, ahead) for order in ("fcfs", "priority") for ahead in (False, True)]


@dataclass
class Tally:
    """What happened in the workloads of one way to schedule.

    Attributes:
        hits, evictions, preemptions, taken_back: Workloads with cache hits, with evicted blocks,
            with preemptions, and with a hit on a block that nobody used.
    """

    workloads: int = 0
    steps: int = 0
    hits: int = 0
    evictions: int = 0
    preemptions: int = 0
    taken_back: int = 0


def real_steps(scheduler: Scheduler, case: Case, ahead: bool) -> tuple[list[Step], list[int]]:
    """Every step in which vLLM's scheduler computed something; preemptions of each request."""
    steps: list[Step] = []
    in_flight = 2 if ahead else 1
    tape = Tape(
        case.arrived_at_s,
        case.prompt_tokens,
        case.output_tokens,
        case.priorities or None,
        case.tokens,
    )
    done = run(scheduler, tape, case.server.iteration_time, in_flight, steps.append, 0.0)
    return [one for one in steps if one.scheduled], done.preemptions.tolist()


def simulated_steps(case: Case, ahead: bool) -> tuple[list[Step], Queueing]:
    """The same of the simulator's rule; also what it remembers at the end."""
    steps: list[Step] = []
    states: list[Queueing] = []

    def recorded(state: Queueing) -> list[Request]:
        states.append(state)
        batch = REFERENCE_POLICIES["vllm-v1"](state)
        if batch:
            assert state.pool is not None
            waiting = sorted(state.waiting, key=urgency) if case.priorities else state.waiting
            step = Step(
                at_s=state.clock_s,
                scheduled={one.number: one.computes for one in batch},
                running=[one.number for one in state.residents],
                waiting=[one.number for one in waiting],
                free_blocks=len(state.pool.free),
                tables={one.number: list(state.pool.tables[one]) for one in state.residents},
                free_queue=list(state.pool.free),
            )
            steps.append(step)
        return batch

    go = simulate_ahead if ahead else simulate_slowly
    go(case.requests(), case.server, recorded, case.values(ahead))
    return steps, states[-1]


def require_agreement(
    case: Case,
    order: str,
    ahead: bool,
    model: Path,
    tally: Tally,
    cls: type[Scheduler] | None = None,
    **more: Any,
) -> None:
    """Assert that every step agrees, and count what happened.

    Args:
        cls: In place of vLLM's own scheduler; `more` are its settings.
    """
    settings = case.parameters | {"async_scheduling": ahead} | more
    settings["scheduler_reserve_full_isl"] = bool(settings.pop("reserve_full_prompt"))
    for name in ("pace", "cap"):
        settings.pop(name, None)
    scheduler = make_scheduler(
        cls or (AsyncScheduler if ahead else Scheduler),
        model,
        case.server.kv_capacity_tokens // case.server.block_tokens,
        case.server.block_tokens,
        cache=True,
        policy=order,
        **settings,
    )
    touched = 0
    touch = scheduler.kv_cache_manager.block_pool.touch

    def watched(blocks: list) -> None:  # type: ignore[type-arg]
        nonlocal touched
        touched += sum(block.ref_cnt == 0 for block in blocks)
        touch(blocks)

    scheduler.kv_cache_manager.block_pool.touch = watched
    real, preemptions = real_steps(scheduler, case, ahead)
    ours, state = simulated_steps(case, ahead)
    for index, (one, other) in enumerate(zip(ours, real, strict=True)):
        assert math.isclose(one.at_s, other.at_s, rel_tol=1e-9), index
        one.at_s, one.finished = other.at_s, other.finished
        assert one == other, index
    pool = state.pool
    assert pool is not None
    tally.workloads += 1
    tally.steps += len(real)
    tally.hits += any(pool.found_tokens.values())
    tally.evictions += pool.evicted > 0
    tally.preemptions += sum(preemptions) > 0
    tally.taken_back += touched > 0


@pytest.mark.parametrize(("order", "ahead"), MODES)
def test_every_step_and_block_agrees_with_vllm(order: str, ahead: bool, model: Path) -> None:
    skip_later_priority_rule(order)
    tally = Tally()
    for number in range(WORKLOADS):
        case = random_prefix_case(f"{order}-{ahead}", number)
        require_agreement(case, order, ahead, model, tally)
    assert tally.hits >= 0.9 * tally.workloads
    assert tally.evictions >= 0.5 * tally.workloads
    assert tally.preemptions >= 0.3 * tally.workloads
    assert tally.taken_back >= 0.5 * tally.workloads


@pytest.mark.parametrize("ahead", [False, True])
def test_the_plug_in_counts_the_tokens_that_will_be_computed(
    ahead: bool, model: Path, make_table: Any
) -> None:
    """Of the pace an admission spends the share of its tokens that were not found."""
    tally = Tally()
    for number in range(WORKLOADS):
        case = random_prefix_case(f"fcfs-plug-in-{ahead}", number)
        rng = random.Random(number)
        limits = {
            "pace_per_iteration": rng.choice([0.1, 0.3, 0.9]),
            "watermark_fraction": case.parameters["watermark"],
        }
        if rng.random() < 0.3:
            limits["cap_requests"] = rng.choice([2, 5])
        paced = {"pace": limits["pace_per_iteration"]}
        paced["cap"] = limits.get("cap_requests", math.inf)
        path = make_table(case.server, params=limits)
        require_agreement(
            replace(case, parameters=case.parameters | paced),
            "fcfs",
            ahead,
            model,
            tally,
            AsyncTableScheduler if ahead else TableScheduler,
            additional_config={"fluidwait": {"table": str(path)}},
            watermark=0.0,
        )
    assert tally.hits >= 0.9 * tally.workloads
    assert tally.preemptions > 0


def main(count: int) -> None:
    """Print what agreed in so many workloads of each way to schedule."""
    print("order     async  workloads  steps  with hits  evictions  preemptions  free blocks hit")
    with tempfile.TemporaryDirectory() as folder:
        model = model_folder(Path(folder))
        for order, ahead in MODES:
            tally = Tally()
            for number in range(count):
                case = random_prefix_case(f"{order}-{ahead}", number)
                try:
                    require_agreement(case, order, ahead, model, tally)
                except AssertionError as error:
                    raise SystemExit(f"{order}, async {ahead}, number {number}: {error}") from error
            shares = np.array([tally.hits, tally.evictions, tally.preemptions, tally.taken_back])
            cells = "  ".join(f"{one:9.0%}" for one in shares / tally.workloads)
            print(
                f"{order:8}  {ahead!s:5}  {tally.workloads:9}  {tally.steps:5}  {cells}", flush=True
            )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else MANY)
