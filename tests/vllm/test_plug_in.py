"""The plug-in in vLLM's scheduler: what it refuses, how it holds, and its valves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from vllm.v1.core.sched.request_queue import FCFSRequestQueue
from vllm.v1.request import RequestStatus

from fluid.errors import InputError
from fluid.iteration import IterationTime
from fluid.server import Server
from fluid.workload import RequestClass, Workload
from tests.vllm.virtual_engine import Run, Step, Tape, make_scheduler, new_request, run
from thresholds.export.admission import FOLLOWED, restraints_of
from thresholds.export.vllm_scheduler import AsyncTableScheduler, TableScheduler
from thresholds.rules import rule_of
from thresholds.solvers.registry import SOLVERS, solver_named

BLOCKS, BLOCK = 65, 4
TIME = IterationTime.affine(0.05, 1e-3, 1e-4)
SERVER = Server(
    name="small",
    source="test",
    kv_capacity_tokens=BLOCKS * BLOCK,
    block_tokens=BLOCK,
    iteration_time=TIME,
)
PACED = {"pace_per_iteration": 0.5}
SHORT_AND_LONG = Workload(
    name="short and long",
    classes=(
        RequestClass(name="short", rate_per_s=3.0, prefill_tokens=8, decode_tokens=6),
        RequestClass(name="long", rate_per_s=2.0, prefill_tokens=8, decode_tokens=12),
    ),
)


def segments(*pairs: tuple[int, int]) -> list[dict[str, Any]]:
    """(threshold, up to tokens) of each segment."""
    return [
        {"name": f"segment {end}", "threshold": threshold, "up_to_tokens": end}
        for threshold, end in pairs
    ]


def following(
    path: Path, model: Path, cls: type = TableScheduler, blocks: int = BLOCKS, **settings: Any
) -> Any:
    config = {"fluidwait": {"table": str(path)} | settings}
    return make_scheduler(cls, model, blocks, BLOCK, additional_config=config)


def tape(count: int, rate: float, prompt: int = 8, outputs: tuple[int, ...] = (12,)) -> Tape:
    """Poisson arrivals; outputs in turn."""
    arrived_at_s = np.cumsum(np.random.default_rng(0).exponential(1 / rate, count))
    lengths = [outputs[index % len(outputs)] for index in range(count)]
    return Tape(arrived_at_s, [prompt] * count, lengths)


def refusal(path: Path, model: Path, **settings: Any) -> InputError:
    with pytest.raises(InputError) as caught:
        following(path, model, **settings)
    assert "\n" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"kv_capacity_tokens": BLOCKS * BLOCK * 2}, "server.kv_capacity_tokens"),
        ({"kv_capacity_tokens": BLOCKS * BLOCK // 2}, "server.kv_capacity_tokens"),
        ({"block_tokens": 16}, "server.block_tokens"),
        ({"first_token": "decode"}, "server.first_token"),
    ],
)
def test_refuses_a_table_of_another_server(
    change: dict[str, Any], field: str, model: Path, make_table: Any
) -> None:
    path = make_table(SERVER.model_copy(update=change), params=PACED)
    assert refusal(path, model).field == field


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"schema_version": "2.0"}, "schema_version"),
        ({"policy": "wait", "params": {}}, "policy"),
        ({"params": {"speed": 1}}, "params.speed"),
        ({"policy": "nested-cap", "params": {}}, "thresholds[0].up_to_tokens"),
        ({"workload_sha256": "0" * 64}, "workload_sha256"),
        ({"memory": None}, "memory"),
        (
            {"policy": "nested-cap", "params": {}, "thresholds": segments((3, 8), (2, 8))},
            "thresholds[1].up_to_tokens",
        ),
        (
            {"policy": "nested-cap", "params": {}, "thresholds": segments((3, 8), (2.5, 9))},
            "thresholds[1].threshold",
        ),
    ],
)
def test_refuses_what_it_cannot_follow(
    fields: dict[str, Any], field: str, model: Path, make_table: Any
) -> None:
    path = make_table(SERVER, **({"params": PACED} | fields))
    assert refusal(path, model).field == field


def test_refuses_a_file_that_is_no_table(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    assert "no such file" in str(refusal(path, model))
    path.write_text('{"schema_version": "1.1", ', encoding="utf-8")
    assert "valid JSON" in str(refusal(path, model))


def test_refuses_unknown_settings_and_none(model: Path, make_table: Any) -> None:
    path = make_table(SERVER, params=PACED)
    assert refusal(path, model, max_wait=1.0).field == "max_wait"
    assert refusal(path, model, max_wait_s=-1.0).field == "max_wait_s"
    with pytest.raises(InputError) as caught:
        make_scheduler(TableScheduler, model, BLOCKS, BLOCK)
    assert caught.value.field == "--additional-config"


def test_accepts_the_few_blocks_that_differ_between_starts(model: Path, make_table: Any) -> None:
    path = make_table(SERVER, params=PACED)
    assert following(path, model, blocks=BLOCKS - 1).limits.pace_per_iteration == 0.5
    assert refusal(path, model, blocks=BLOCKS - 1, kv_tolerance=0.001).field == (
        "server.kv_capacity_tokens"
    )


def test_keeps_the_larger_of_two_watermarks(model: Path, make_table: Any) -> None:
    path = make_table(SERVER, params={"watermark_fraction": 0.1})
    assert following(path, model).kv_cache_manager.watermark_blocks == int(0.1 * BLOCKS)
    config = {"fluidwait": {"table": str(path)}}
    own = make_scheduler(
        TableScheduler, model, BLOCKS, BLOCK, additional_config=config, watermark=0.3
    )
    assert own.kv_cache_manager.watermark_blocks == int(0.3 * BLOCKS)


def all_done(done: Run) -> bool:
    return bool(np.isfinite(done.completed_at_s).all())


@pytest.mark.parametrize(("cls", "in_flight"), [(TableScheduler, 1), (AsyncTableScheduler, 2)])
def test_segment_caps_bound_what_runs(
    cls: type, in_flight: int, model: Path, make_table: Any
) -> None:
    caps = segments((3, 4), (2, 9), (1, 12))
    path = make_table(SERVER, policy="nested-cap", params={}, thresholds=caps)
    scheduler = following(path, model, cls)
    running: list[list[int]] = []
    decide = scheduler._segments.decide

    def watched(requests: Any, *rest: Any) -> Any:
        holds = decide(requests, *rest)
        ran = [one for index, one in enumerate(requests) if index not in holds.held]
        running.append([scheduler.restraints.segment_of(generated) for _, generated in ran])
        return holds

    scheduler._segments.decide = watched
    done = run(scheduler, tape(60, rate=20.0), TIME, in_flight)
    assert all_done(done)
    assert scheduler.counters.held_steps > 0
    assert scheduler.counters.admitted == 60
    for segment, cap in enumerate((3, 2, 1)):
        assert max(one.count(segment) for one in running) == cap


def test_a_held_request_computes_nothing(model: Path, make_table: Any) -> None:
    path = make_table(SERVER, policy="nested-cap", params={}, thresholds=segments((1, 2), (1, 12)))
    steps: list[Step] = []
    run(following(path, model), tape(20, rate=20.0), TIME, on_step=steps.append)
    # One of segment 1 and one of segment 2 at most, whatever is resident.
    assert max(len(one.scheduled) for one in steps) == 2
    assert max(len(one.running) for one in steps) > 2


def test_literal_nested_wait_waits_for_its_gate(model: Path, make_table: Any) -> None:
    gates = segments((4, 5), (2, 12))
    path = make_table(SERVER, policy="nested-wait", params={}, thresholds=gates)
    late = Tape([0.0, 0.1, 0.2, 3.0], [8] * 4, [5] * 4)
    steps: list[Step] = []
    done = run(following(path, model), late, TIME, on_step=steps.append)
    first = next(one for one in steps if one.scheduled)
    assert first.at_s >= 3.0
    assert len(first.scheduled) == 4
    # Nobody else arrives: what is held advances after the longest wait, five seconds.
    second = next(one for one in steps if one.scheduled and one is not first)
    assert second.at_s >= first.at_s + 5.0
    assert all_done(done)


@pytest.mark.parametrize("policy", SOLVERS)
def test_solved_tables_are_followed_as_they_are(policy: str, model: Path, tmp_path: Path) -> None:
    options = {"segments": 2} if rule_of(policy).segmented else {}
    blocks = 200  # what whole thresholds of two segments need
    server = SERVER.model_copy(update={"kv_capacity_tokens": blocks * BLOCK})
    table = solver_named(policy, **options).solve(SHORT_AND_LONG, server)
    path = tmp_path / "table.json"
    table.write(path)
    if policy not in FOLLOWED:
        assert refusal(path, model, blocks=blocks).field == "policy"
        return
    scheduler = following(path, model, blocks=blocks)
    crowd = tape(60, rate=1000.0, outputs=(6, 12))
    assert all_done(run(scheduler, crowd, TIME))
    assert scheduler.restraints == restraints_of(table, str(path))
    assert scheduler.counters.admitted == 60
    if options:
        assert len(scheduler.restraints.segment_ends) == 2
        assert scheduler.counters.held_steps > 0


def test_max_wait_opens_the_gates(model: Path, make_table: Any) -> None:
    gates = segments((4, 5), (3, 12))
    path = make_table(SERVER, policy="nested-wait", params={}, thresholds=gates)
    scheduler = following(path, model, max_wait_s=2.0)
    done = run(scheduler, tape(3, rate=100.0), TIME)
    assert all_done(done)
    assert done.completed_at_s.max() >= 2.0
    assert scheduler._segments._reached == {}


def test_a_paced_request_does_not_wait_for_ever(model: Path, make_table: Any) -> None:
    path = make_table(SERVER, params={"pace_per_iteration": 1e-6})
    crowd = tape(10, rate=1000.0)
    patient = run(following(path, model), crowd, TIME)
    scheduler = following(path, model, max_wait_s=0.2)
    hasty = run(scheduler, crowd, TIME)
    assert scheduler.counters.overdue > 0
    assert hasty.latency_s.max() < 0.5 * patient.latency_s.max()


def test_full_memory_lifts_the_holds(model: Path, make_table: Any) -> None:
    """Two requests fill the memory at a boundary that wants three."""
    tight = SERVER.model_copy(update={"kv_capacity_tokens": 9 * BLOCK})
    gates = segments((1, 4), (3, 12))
    path = make_table(tight, policy="nested-wait", params={"max_wait_s": 5.0}, thresholds=gates)
    scheduler = following(path, model, blocks=9)
    done = run(scheduler, tape(8, rate=50.0), TIME)
    assert all_done(done)
    assert scheduler.counters.drained > 0


def test_async_scheduling_keeps_the_pace(model: Path, make_table: Any) -> None:
    path = make_table(SERVER, params={"pace_per_iteration": 0.2, "cap_requests": 6})
    scheduler = following(path, model, AsyncTableScheduler)
    steps: list[Step] = []
    done = run(scheduler, tape(60, rate=50.0), TIME, 2, on_step=steps.append)
    counters = scheduler.counters
    assert all_done(done)
    assert counters.admitted == 60
    assert max(len(one.running) for one in steps) <= 6
    # One for free at the start, and wherever the server was empty.
    assert counters.admitted <= 2 + 0.2 * counters.iterations + 1


def test_an_aborted_request_leaves_nothing_behind(model: Path, make_table: Any) -> None:
    gates = segments((2, 2), (50, 12))
    path = make_table(SERVER, policy="nested-wait", params={"max_wait_s": 9.0}, thresholds=gates)
    scheduler = following(path, model)
    few = tape(4, rate=1000.0)
    for number in range(4):
        scheduler.add_request(new_request(number, few))
    scheduler._segments._reached = {"0": (2, 0.0), "3": (2, 0.0)}
    scheduler.finish_requests(["0", "3"], RequestStatus.FINISHED_ABORTED)
    assert scheduler._segments._reached == {}
    assert [one.request_id for one in scheduler.waiting] == ["1", "2"]


def test_a_step_does_not_touch_the_requests_it_does_not_release(
    model: Path, make_table: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_table(SERVER, params={"pace_per_iteration": 0.2})
    scheduler = following(path, model)
    pops = 0
    pop = FCFSRequestQueue.pop_request

    def counted(queue: FCFSRequestQueue) -> Any:
        nonlocal pops
        pops += 1
        return pop(queue)

    monkeypatch.setattr(FCFSRequestQueue, "pop_request", counted)
    waiting = tape(2_000, rate=1e9)
    for number in range(2_000):
        scheduler.add_request(new_request(number, waiting))
    for _ in range(20):
        scheduler.schedule()
    assert 0 < scheduler.counters.admitted <= 6
    # Out of the queue, and out of the queue that vLLM sees.
    assert pops <= 2 * scheduler.counters.admitted + 20
    assert [one.request_id for one in scheduler.waiting] == [
        str(number) for number in range(scheduler.counters.admitted, 2_000)
    ]


def test_an_exception_puts_the_hidden_requests_back(
    model: Path, make_table: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduler = following(make_table(SERVER, params=PACED), model)
    few = tape(5, rate=1000.0)
    for number in range(5):
        scheduler.add_request(new_request(number, few))
    monkeypatch.setattr(scheduler.kv_cache_manager, "new_step_starts", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        scheduler.schedule()
    assert len(scheduler.waiting) == 5
