"""A table that is replaced under a running engine: followed, or refused, and nothing is lost."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.vllm.test_plug_in import BLOCK, BLOCKS, SERVER, TIME, all_done, following, segments, tape
from tests.vllm.virtual_engine import Step, new_request, play_step, run
from thresholds.export.reload import TableFile
from thresholds.export.vllm_scheduler import AsyncTableScheduler, TableScheduler


def replaced(make_table: Any, server: Any = SERVER, **fields: Any) -> Path:
    """Another table in the same place, younger whatever the clock's resolution."""
    path: Path = make_table(server, **fields)
    before = path.stat().st_mtime_ns
    os.utime(path, ns=(before, before + 10**9 * replaced_times()))
    return path


def replaced_times(count: list[int] = [0]) -> int:  # noqa: B006
    count[0] += 1
    return count[0]


def counted(scheduler: Any, steps: int, clock: list[float]) -> None:
    for _ in range(steps):
        clock[0] += 2.0
        play_step(scheduler)


def waiting_engine(path: Path, model: Path, clock: list[float]) -> Any:
    """A scheduler with 40 requests that wait, on a clock of its own."""
    scheduler = following(path, model)
    scheduler.clock = lambda: clock[0]
    batch = tape(40, 1.0, outputs=(30,))
    for number in range(40):
        scheduler.add_request(new_request(number, batch))
    return scheduler


def test_a_new_table_is_followed_from_the_next_step_on(model: Path, make_table: Any) -> None:
    clock = [100.0]
    scheduler = waiting_engine(make_table(SERVER, params={"cap_requests": 2}), model, clock)
    counted(scheduler, 3, clock)
    assert len(scheduler.running) == 2
    replaced(make_table, params={"cap_requests": 5, "watermark_fraction": 0.2})
    counted(scheduler, 1, clock)
    assert len(scheduler.running) == 5
    assert (scheduler.counters.reloaded, scheduler.counters.refused) == (1, 0)
    assert scheduler.kv_cache_manager.watermark_blocks == int(0.2 * BLOCKS)
    replaced(make_table, params={"cap_requests": 1})
    counted(scheduler, 1, clock)
    assert len(scheduler.running) == 5  # who is in service stays
    assert scheduler.kv_cache_manager.watermark_blocks == 0


def test_a_file_is_looked_at_once_a_second(model: Path, make_table: Any) -> None:
    clock = [100.0]
    scheduler = waiting_engine(make_table(SERVER, params={"cap_requests": 2}), model, clock)
    play_step(scheduler)
    replaced(make_table, params={"cap_requests": 5})
    clock[0] += 0.5
    play_step(scheduler)
    assert len(scheduler.running) == 2
    clock[0] += 0.5
    play_step(scheduler)
    assert len(scheduler.running) == 5


@pytest.mark.parametrize(
    "wrong",
    [
        {"server": SERVER.model_copy(update={"block_tokens": 1}), "params": {}},
        {"server": SERVER.model_copy(update={"kv_capacity_tokens": BLOCKS * BLOCK * 2})},
        {"policy": "wait", "params": {}},
        {"workload_sha256": "0" * 64},
    ],
    ids=["blocks", "capacity", "policy", "hash"],
)
def test_a_wrong_table_is_refused_and_the_old_one_stays(
    wrong: dict[str, Any], model: Path, make_table: Any
) -> None:
    clock = [100.0]
    path = make_table(SERVER, params={"cap_requests": 2})
    scheduler = waiting_engine(path, model, clock)
    counted(scheduler, 2, clock)
    before = scheduler.restraints
    replaced(make_table, **wrong)
    counted(scheduler, 3, clock)
    assert scheduler.restraints is before
    # Once for each file, not at every look at it.
    assert (scheduler.counters.reloaded, scheduler.counters.refused) == (0, 1)
    path.write_text('{"schema_version": "1.5", ', encoding="utf-8")
    counted(scheduler, 1, clock)
    path.unlink()
    counted(scheduler, 1, clock)
    assert (scheduler.counters.reloaded, scheduler.counters.refused) == (0, 2)
    assert len(scheduler.running) == 2


def test_credit_and_times_at_boundaries_are_carried_over(model: Path, make_table: Any) -> None:
    clock = [100.0]
    path = make_table(SERVER, params={"pace_per_iteration": 0.25})
    scheduler = waiting_engine(path, model, clock)
    counted(scheduler, 2, clock)
    spent = scheduler._credit
    assert spent < 1
    replaced(make_table, params={"pace_per_iteration": 0.5})
    scheduler._reload()
    assert scheduler._credit == spent
    gates = {"policy": "nested-wait", "params": {}, "thresholds": segments((1, 4), (2, 8))}
    replaced(make_table, **gates)
    scheduler._reload()
    scheduler._segments._reached["7"] = (4, 101.0)
    replaced(make_table, **gates | {"thresholds": segments((1, 4), (3, 8))})
    scheduler._reload()
    assert scheduler._segments._reached == {"7": (4, 101.0)}
    assert scheduler._segments.restraints.segment_thresholds == (1, 3)
    assert scheduler.counters.reloaded == 3


def test_a_new_pace_is_followed(model: Path, make_table: Any) -> None:
    """Slower and faster than before: what is admitted from then on is the new pace's."""
    clock = [100.0]
    scheduler = waiting_engine(make_table(SERVER, params={"pace_per_iteration": 0.5}), model, clock)
    admitted = []
    for pace in (0.1, 0.6):
        replaced(make_table, params={"pace_per_iteration": pace})
        before = scheduler.counters.admitted
        counted(scheduler, 10, clock)
        admitted.append(scheduler.counters.admitted - before)
    # What is left of the credit is worth one at most.
    np.testing.assert_allclose(admitted, [1, 6], atol=1)
    assert len(scheduler.waiting)


@pytest.mark.parametrize("cls", [TableScheduler, AsyncTableScheduler])
def test_no_request_is_lost_where_tables_change_all_the_time(
    cls: type, model: Path, make_table: Any
) -> None:
    tables = (
        {"params": {"pace_per_iteration": 0.5}},
        {"policy": "nested-cap", "params": {}, "thresholds": segments((3, 6), (4, 12))},
        {"policy": "wait", "params": {}},
        {"params": {"cap_requests": 3, "watermark_fraction": 0.1}},
    )
    asynchronous = cls is AsyncTableScheduler
    path = make_table(SERVER, **tables[0])
    scheduler = following(path, model, cls)
    turn = [0]

    def change(step: Step) -> None:
        turn[0] += 1
        if turn[0] % 20 == 0:
            replaced(make_table, **tables[turn[0] // 20 % 4])

    done = run(scheduler, tape(60, 4.0), TIME, 2 if asynchronous else 1, change)
    assert all_done(done)
    assert scheduler.counters.admitted == 60
    assert scheduler.counters.reloaded >= 3
    assert scheduler.counters.refused >= 1
    assert np.isfinite(done.completed_at_s).all()


def test_a_file_that_is_gone_is_no_new_one(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    path.write_text("one", encoding="utf-8")
    file = TableFile(str(path))
    path.unlink()
    assert not file.is_new(0.0)
    path.write_text("another", encoding="utf-8")
    assert not file.is_new(0.5)
    assert file.is_new(1.5)
    assert not file.is_new(3.0)
