"""The gate before vLLM's queue: whom it shows, in which order, and what a look costs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vllm.sampling_params import SamplingParams, StructuredOutputsParams
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.request_queue import PriorityRequestQueue
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.request import Request, RequestStatus
from vllm.v1.structured_output.backend_types import StructuredOutputGrammar

from fluid.errors import InputError
from fluid.workload import Requests, Workload
from tests.vllm.test_plug_in import BLOCK, BLOCKS, SERVER, TIME, all_done, following, segments, tape
from tests.vllm.virtual_engine import (
    Step,
    Tape,
    block_hasher,
    make_scheduler,
    new_request,
    play_step,
    run,
)
from thresholds.export.gate import GatedQueue
from thresholds.export.priority_queue import IndexedPriorityQueue
from thresholds.export.view import TableView
from thresholds.export.vllm_scheduler import AsyncTableScheduler, TableScheduler
from thresholds.solvers.paced.solver import Paced

CAPPED = {"pace_per_iteration": 0.1, "cap_requests": 2}


def following_with(path: Path, model: Path, blocks: int = BLOCKS, **settings: Any) -> Any:
    """A scheduler of a table in an engine with these settings of its own."""
    config = {"fluidwait": {"table": str(path)} | settings.pop("fluidwait", {})}
    cls = settings.pop("cls", TableScheduler)
    return make_scheduler(cls, model, blocks, BLOCK, additional_config=config, **settings)


def structured(number: int, ready: bool) -> Request:
    """A request with structured output, its grammar compiled or not."""
    grammar = StructuredOutputsParams(regex="a+")
    request = Request(
        request_id=str(number),
        prompt_token_ids=[0] * 8,
        sampling_params=SamplingParams(max_tokens=50, ignore_eos=True, structured_outputs=grammar),
        pooling_params=None,
        arrival_time=0.0,
    )
    if ready:
        request.structured_output_request.grammar = Mock(spec=StructuredOutputGrammar)
    return request


def urgent(number: int, arrived_at_s: float, priority: int, prompt: int = 8) -> Request:
    """A request with a priority; the smaller, the earlier it goes."""
    return Request(
        request_id=str(number),
        prompt_token_ids=[0] * prompt,
        sampling_params=SamplingParams(max_tokens=12, ignore_eos=True),
        pooling_params=None,
        arrival_time=arrived_at_s,
        priority=priority,
    )


def names(requests: Any) -> list[str]:
    return [one.request_id for one in requests]


def test_requests_with_a_ready_grammar_keep_cap_and_pace(model: Path, make_table: Any) -> None:
    scheduler = following(make_table(SERVER, params=CAPPED), model)
    for number in range(40):
        scheduler.add_request(structured(number, ready=True))
    play_step(scheduler)
    assert names(scheduler.running) == ["0"]
    assert scheduler.counters.admitted == 1
    for _ in range(30):
        play_step(scheduler)
    # The pace lets in the second; the cap holds the third.
    assert names(scheduler.running) == ["0", "1"]
    assert scheduler.counters.admitted == 2


def test_a_grammar_that_is_not_ready_holds_up_nobody(model: Path, make_table: Any) -> None:
    scheduler = following(make_table(SERVER, params=CAPPED), model)
    late = structured(0, ready=False)
    scheduler.add_request(late)
    scheduler.add_request(structured(1, ready=True))
    play_step(scheduler)
    assert names(scheduler.running) == ["1"]
    late.structured_output_request.grammar = Mock(spec=StructuredOutputGrammar)
    play_step(scheduler)
    # The pace holds it from now on.
    assert names(scheduler.running) == ["1"]
    assert scheduler.get_request_counts() == (1, 1)


def test_hidden_requests_count_for_the_long_prefill_threshold(model: Path, make_table: Any) -> None:
    path = make_table(
        SERVER.model_copy(update={"kv_capacity_tokens": 300 * BLOCK}),
        params={"pace_per_iteration": 0.001},
    )
    scheduler = following_with(path, model, blocks=300, long_prefill_token_threshold=64)
    long = Tape([0.0, 0.0], [256, 256], [4, 4])
    for number in range(2):
        scheduler.add_request(new_request(number, long))
    steps = [play_step(scheduler) for _ in range(4)]
    assert steps == [{"0": 64}] * 4


def test_a_preempted_request_does_not_stay_behind_a_paced_newcomer(
    model: Path, make_table: Any
) -> None:
    path = make_table(SERVER, params={"pace_per_iteration": 0.001})
    scheduler = following_with(path, model, policy="priority")
    # One is there already and runs on, so that the pace holds the newcomer.
    for number in (0, 1):
        scheduler.add_request(urgent(number, float(number), priority=1))
        scheduler._credit = 1.0
        play_step(scheduler)
    victim = scheduler.running.pop()
    scheduler._preempt_request(victim, 0.0)
    scheduler.add_request(urgent(2, 2.0, priority=0))
    play_step(scheduler)
    assert names(scheduler.running) == ["0", "1"]
    assert names(scheduler.waiting) == ["2"]


def test_the_longest_waiter_goes_first_whatever_its_priority(model: Path, make_table: Any) -> None:
    path = make_table(SERVER, params={"pace_per_iteration": 1e-6})
    scheduler = following_with(path, model, policy="priority", fluidwait={"max_wait_s": 1.0})
    now_s = 0.0
    scheduler.clock = lambda: now_s
    scheduler.add_request(urgent(0, 0.0, priority=0))
    scheduler.add_request(urgent(1, 0.0, priority=9))
    play_step(scheduler)
    now_s = 0.9
    scheduler.add_request(urgent(2, 0.9, priority=0))
    play_step(scheduler)
    assert names(scheduler.running) == ["0"]
    now_s = 1.1
    play_step(scheduler)
    assert names(scheduler.running) == ["0", "1"]
    assert scheduler.counters.overdue == 1


@pytest.mark.parametrize("policy", ["fcfs", "priority"])
@pytest.mark.parametrize("blocks", [BLOCKS, 12])
def test_a_step_costs_what_it_admits(
    policy: str, blocks: int, model: Path, make_table: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pace and cap that do not bind: seats or memory end the step."""
    server = SERVER.model_copy(update={"kv_capacity_tokens": blocks * BLOCK})
    path = make_table(server, params={"pace_per_iteration": 1e6})
    scheduler = following_with(path, model, blocks=blocks, policy=policy, max_num_seqs=16)
    looks = 0
    for name in ("pop_request", "peek_request", "prepend_requests", "add_request"):
        queue = type(scheduler.waiting)
        plain = getattr(queue, name)

        def counted(self: Any, *args: Any, plain: Any = plain) -> Any:
            nonlocal looks
            looks += 1
            return plain(self, *args)

        monkeypatch.setattr(queue, name, counted)
    waiting = tape(500, rate=1e9)
    for number in range(500):
        scheduler.add_request(new_request(number, waiting))
    looks = 0
    for _ in range(5):
        scheduler.schedule()
    assert 0 < scheduler.counters.admitted <= 16
    assert looks <= 5 * scheduler.counters.admitted + 20


def test_gates_that_need_more_seats_are_refused(model: Path, make_table: Any) -> None:
    gates = segments((2, 4), (3, 12))
    path = make_table(SERVER, policy="nested-wait", params={}, thresholds=gates)
    with pytest.raises(InputError) as caught:
        following_with(path, model, max_num_seqs=33)
    assert caught.value.field == "max_num_seqs"
    assert "at least 34" in str(caught.value)
    assert following_with(path, model, max_num_seqs=34).restraints.seats == 2 * 4 + 3 * 8 + 2


def test_gates_with_just_enough_seats_do_not_drain(model: Path, make_table: Any) -> None:
    gates = segments((1, 4), (2, 8))
    server = SERVER.model_copy(update={"kv_capacity_tokens": 400 * BLOCK})
    path = make_table(server, policy="nested-wait", params={}, thresholds=gates)
    scheduler = following_with(path, model, blocks=400, max_num_seqs=13)
    done = run(scheduler, tape(200, rate=100.0, outputs=(3, 8)), TIME)
    assert all_done(done)
    # The last few wait at a gate that nobody else reaches.
    assert scheduler.counters.drained <= 2


def test_an_asynchronous_engine_wants_the_asynchronous_class(model: Path, make_table: Any) -> None:
    path = make_table(SERVER, params=CAPPED)
    with pytest.raises(InputError) as caught:
        following_with(path, model, async_scheduling=True)
    assert "AsyncTableScheduler" in str(caught.value)
    assert "\n" not in str(caught.value)
    following_with(path, model, cls=AsyncTableScheduler, async_scheduling=True)


def test_outputs_beyond_the_last_segment_are_said(model: Path, make_table: Any) -> None:
    path = make_table(SERVER, policy="nested-cap", params={}, thresholds=segments((3, 4), (2, 12)))
    scheduler = following(path, model)
    lengths = Tape([0.0, 0.0, 0.0], [8, 8, 8], [12, 13, 40])
    for number in range(3):
        scheduler.add_request(new_request(number, lengths))
    assert scheduler.counters.beyond == 2


@pytest.mark.parametrize("policy", ["fcfs", "priority"])
@pytest.mark.parametrize(
    ("cls", "own", "in_flight"),
    [(TableScheduler, Scheduler, 1), (AsyncTableScheduler, AsyncScheduler, 2)],
)
@pytest.mark.parametrize("cache", [False, True])
def test_a_table_that_binds_nowhere_changes_no_step(
    policy: str, cls: type, own: type, in_flight: int, cache: bool, model: Path, make_table: Any
) -> None:
    """Preemptions, and with caching on equal prompts, among them."""
    blocks = 24
    server = SERVER.model_copy(update={"kv_capacity_tokens": blocks * BLOCK})
    path = make_table(server, params={"pace_per_iteration": 1e6})
    crowd = tape(60, rate=15.0, outputs=(6, 12, 30))
    settings: dict[str, Any] = {
        "policy": policy,
        "cache": cache,
        "async_scheduling": in_flight == 2,
        "max_num_seqs": 32,
        "max_num_batched_tokens": 64,
    }
    ours: list[Step] = []
    theirs: list[Step] = []
    done = run(
        following_with(path, model, blocks=blocks, cls=cls, **settings),
        crowd,
        TIME,
        in_flight,
        on_step=ours.append,
    )
    run(
        make_scheduler(own, model, blocks, BLOCK, **settings),
        crowd,
        TIME,
        in_flight,
        on_step=theirs.append,
    )
    assert done.preemptions.sum() > 0
    assert ours == theirs


def test_a_reset_of_the_cache_keeps_the_pace(model: Path, make_table: Any) -> None:
    """All that run are preempted and come back; the pace is spent by new requests only."""
    path = make_table(SERVER, params={"pace_per_iteration": 0.25, "cap_requests": 4})
    scheduler = following_with(path, model, cache=True)
    # No two prompts are alike.
    waiting = replace(tape(20, rate=1e9), tokens=[[number] * 20 for number in range(20)])
    for number in range(20):
        scheduler.add_request(new_request(number, waiting, block_hasher(scheduler)))
    for _ in range(9):
        play_step(scheduler)
    ran = names(scheduler.running)
    assert len(ran) == scheduler.counters.admitted == 3
    scheduler.reset_prefix_cache(reset_running_requests=True)
    assert not scheduler.running
    play_step(scheduler)
    assert names(scheduler.running)[:3] == ran
    scheduler.finish_requests([*ran, "10", "19"], RequestStatus.FINISHED_ABORTED)
    assert not scheduler._preempted
    assert "10" not in scheduler._arrivals
    assert len(scheduler._arrivals) == len(scheduler.waiting)


def test_copies_aborts_and_resets_with_the_cache_on(model: Path, make_table: Any) -> None:
    """What is found is not paid for; what was aborted can be found; after a reset nothing can."""
    path = make_table(SERVER, params={"pace_per_iteration": 0.25})
    scheduler = following_with(path, model, cache=True)
    hasher = block_hasher(scheduler)
    alike = [list(range(8 * BLOCK + 1)) + [0] * 40] * 8
    copies = Tape([0.0] * 8, [8 * BLOCK + 1] * 8, [40] * 8, tokens=alike)
    for number in range(6):
        scheduler.add_request(new_request(number, copies, hasher))
    counts = []
    for _ in range(5):
        play_step(scheduler)
        counts.append(len(scheduler.running))
    # The first computes its prompt; the second waits until it is paid for, the others need not.
    assert counts == [1, 1, 1, 2, 6]
    scheduler.finish_requests(names(scheduler.running), RequestStatus.FINISHED_ABORTED)
    assert not scheduler._arrivals
    assert scheduler.kv_cache_manager.block_pool.get_num_free_blocks() == BLOCKS - 1

    def spent(number: int) -> float:
        scheduler._credit = 1.0
        scheduler.add_request(new_request(number, copies, hasher))
        computed = play_step(scheduler)[str(number)]
        before = 1.25 - scheduler._credit
        assert before == pytest.approx(computed / (8 * BLOCK + 1))
        scheduler.finish_requests([str(number)], RequestStatus.FINISHED_ABORTED)
        return before

    assert spent(6) == pytest.approx(1 / (8 * BLOCK + 1))
    assert scheduler.reset_prefix_cache()
    assert spent(7) == pytest.approx(1.0)


def test_the_pace_of_a_workload_with_prefixes_is_in_whole_prompts(
    model: Path, tmp_path: Path
) -> None:
    """Its table says requests of which a part is found; each spends what it really computes."""
    prompt = 8 * BLOCK + 1
    load = Workload.of(chat=Requests(0.5, prompt=prompt, output=12, shared_prefix=8 * BLOCK))
    blocks = 400
    server = SERVER.model_copy(update={"kv_capacity_tokens": blocks * BLOCK})
    solved = Paced().solve(load, server)
    table = solved.model_copy(update={"params": {"pace_per_iteration": 0.8}})
    table.write(tmp_path / "table.json")
    scheduler = following_with(tmp_path / "table.json", model, blocks=blocks, cache=True)
    assert scheduler._pace == pytest.approx(0.8 * TableView(table).computed_share)
    assert scheduler._pace < 0.4
    shared = [number % 90 for number in range(8 * BLOCK)]
    tokens = [[*shared, 91 + number % 9, *[number] * 12] for number in range(40)]
    crowd = Tape([0.01 * number for number in range(40)], [prompt] * 40, [12] * 40, tokens=tokens)
    spent = 0.0

    def count(step: Step) -> None:
        nonlocal spent
        spent += sum(tokens for tokens in step.scheduled.values() if tokens > 1) / prompt

    assert all_done(run(scheduler, crowd, TIME, on_step=count))
    assert scheduler.counters.admitted == 40
    # Of 40 prompts some are computed whole, where they ran alone or were preempted.
    assert 1.0 <= spent < 20


def test_children_of_one_request_are_admitted_one_by_one(model: Path, make_table: Any) -> None:
    """n > 1: as many requests with the same arrival time."""
    path = make_table(SERVER, params={"pace_per_iteration": 0.5})
    scheduler = following_with(path, model, policy="priority")
    for number in range(6):
        scheduler.add_request(urgent(number, 1.0, priority=0))
    assert isinstance(scheduler.waiting, PriorityRequestQueue)
    counts = []
    for _ in range(5):
        play_step(scheduler)
        counts.append(len(scheduler.running))
    # One for free, and half a request for every iteration that has begun.
    assert counts == [1, 2, 2, 3, 3]


MOVES = st.lists(
    st.tuples(st.sampled_from(["add", "pop", "remove", "several", "again"]), st.integers(0, 99)),
    min_size=1,
    max_size=60,
)


@given(MOVES)
def test_a_queue_that_is_left_from_anywhere_is_vllms_own(moves: list[tuple[str, int]]) -> None:
    ours, theirs = IndexedPriorityQueue(), PriorityRequestQueue()
    left: list[Request] = []
    for number, (move, draw) in enumerate(moves):
        here = list(theirs)
        if move == "add":
            request = urgent(number, 0.1 * (draw // 10), draw % 10)
            ours.add_request(request)
            theirs.add_request(request)
        elif move == "again" and left:
            request = left.pop(draw % len(left))
            ours.prepend_requests([request])
            theirs.prepend_requests([request])
        elif here and move == "pop":
            left.append(ours.pop_request())
            assert left[-1] is theirs.pop_request()
        elif here and move == "remove":
            left.append(here[draw % len(here)])
            ours.remove_request(left[-1])
            theirs.remove_request(left[-1])
        elif move == "several":
            gone = here[: draw % 5] + left[: draw % 3]
            ours.remove_requests(gone)
            theirs.remove_requests(gone)
            left += here[: draw % 5]
        assert list(ours) == list(theirs)
        assert (len(ours), bool(ours)) == (len(theirs), bool(theirs))
        assert all(request in ours for request in theirs)
        assert not any(request in ours for request in left)
        if theirs:
            assert ours.peek_request() is theirs.peek_request()


def test_whoever_the_gate_names_leaves_the_queue() -> None:
    queue = IndexedPriorityQueue()
    requests = [urgent(number, 0.0, priority) for number, priority in enumerate((3, 1, 2))]
    for request in requests:
        queue.add_request(request)
    named, taken = requests[0], []
    gate = GatedQueue(queue, lambda _: named, lambda request, new: taken.append((request, new)))
    assert gate.pop_request() is named
    assert taken == [(named, True)]
    assert not gate  # who is named waits here no more
    assert list(queue) == [requests[1], requests[2]]
