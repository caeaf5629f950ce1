"""The plug-in in engines that a table describes in part: layers with windows, speculation."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from vllm.v1.outputs import DraftTokenIds, ModelRunnerOutput

from fluid.errors import InputError
from tests.vllm.test_plug_in import BLOCK, BLOCKS, SERVER, TIME, all_done, tape
from tests.vllm.virtual_engine import Tape, make_scheduler, new_request, run
from thresholds.export.vllm_scheduler import TableScheduler

WINDOWS = (16, 16)
GROUPS = 1 + len(WINDOWS)
LEAST = BLOCKS // GROUPS * BLOCK
"""KV tokens where every token takes room in every group."""


@pytest.fixture
def warnings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the plug-in warns of."""
    told: list[str] = []
    logger = logging.getLogger("vllm.thresholds.export.vllm_scheduler")
    monkeypatch.setattr(logger, "warning", lambda text, *args: told.append(text % args))
    return told


def table_for(make_table: Any, kv_tokens: int, **params: float) -> Path:
    server = SERVER.model_copy(update={"kv_capacity_tokens": kv_tokens})
    return Path(make_table(server, params=params or {"pace_per_iteration": 0.5}))


def engine(path: Path, model: Path, cls: Any = TableScheduler, **settings: Any) -> Any:
    config = {"fluidwait": {"table": str(path)} | settings.pop("fluidwait", {})}
    return make_scheduler(cls, model, BLOCKS, BLOCK, additional_config=config, **settings)


@pytest.mark.parametrize("caching", [False, True])
def test_layers_with_windows_take_room_from_one_pool(
    model: Path, make_table: Any, warnings: list[str], caching: bool
) -> None:
    path = table_for(make_table, LEAST, pace_per_iteration=5.0, cap_requests=4)
    scheduler = engine(path, model, window_tokens=WINDOWS, cache=caching)
    assert warnings == []
    # Four requests of 20 tokens: what the cap promises to fit, in blocks of every group.
    pool = scheduler.kv_cache_manager.block_pool
    free, most = [], []

    def seen(step: Any) -> None:
        free.append(pool.get_num_free_blocks())
        most.append(len(step.running))

    played = run(scheduler, tape(60, 20.0), TIME, on_step=seen)
    assert all_done(played)
    assert max(most) == 4
    assert played.preemptions.sum() == 0
    assert min(free) >= BLOCKS - 1 - GROUPS * 4 * -(-20 // BLOCK)


@pytest.mark.parametrize(
    ("kv_tokens", "holds"),
    [(LEAST // 2, False), (LEAST, True), (BLOCKS * BLOCK // 2, True), (BLOCKS * BLOCK, False)],
)
def test_capacity_lies_between_short_and_long_requests(
    model: Path, make_table: Any, kv_tokens: int, holds: bool
) -> None:
    path = table_for(make_table, kv_tokens)
    if holds:
        assert engine(path, model, window_tokens=WINDOWS, max_model_len=2048)
        return
    with pytest.raises(InputError) as caught:
        engine(path, model, window_tokens=WINDOWS, max_model_len=2048)
    assert caught.value.field == "server.kv_capacity_tokens"
    assert f"{LEAST} KV tokens (short requests) to" in str(caught.value)


def test_more_than_short_requests_find_is_a_doubt(
    model: Path, make_table: Any, warnings: list[str]
) -> None:
    engine(table_for(make_table, 2 * LEAST), model, window_tokens=WINDOWS)
    assert len(warnings) == 1
    assert f"it counts on {2 * LEAST} KV tokens" in warnings[0]


def test_speculation_is_refused_unless_it_is_allowed(
    model: Path, make_table: Any, warnings: list[str]
) -> None:
    path = table_for(make_table, BLOCKS * BLOCK)
    with pytest.raises(InputError) as caught:
        engine(path, model, speculative_tokens=3)
    assert caught.value.field == "speculative tokens of this engine"
    assert "allow_speculation: true" in str(caught.value)
    engine(path, model, speculative_tokens=3, fluidwait={"allow_speculation": True})
    assert len(warnings) == 1
    assert "guesses 3 tokens ahead: pace, cap and watermark hold" in warnings[0]


def test_pace_and_cap_hold_with_speculation(model: Path, make_table: Any) -> None:
    path = table_for(make_table, BLOCKS * BLOCK, pace_per_iteration=0.25, cap_requests=3)
    allowed = {"allow_speculation": True}
    scheduler = engine(path, model, speculative_tokens=3, fluidwait=allowed)
    waiting = Tape([0.0] * 20, [8] * 20, [40] * 20)
    for number in range(20):
        scheduler.add_request(new_request(number, waiting))
    random = np.random.default_rng(0)
    admitted, running, tokens = [0], [0], set()
    while scheduler.has_unfinished_requests():
        output = scheduler.schedule()
        tokens.update(output.num_scheduled_tokens.values())
        running.append(len(scheduler.running))
        admitted.append(scheduler.counters.admitted)
        _answer(scheduler, output, random)
    assert tokens >= {8, 4}  # whole prompts, and a token with three guesses
    assert max(running) == 3
    assert admitted[-1] == 20
    assert (np.array(admitted) <= 2 + 0.25 * np.arange(len(admitted))).all()


def _answer(scheduler: Any, output: Any, random: np.random.Generator) -> None:
    """One sampled token after a random number of right guesses, and three new guesses."""
    ids = list(output.num_scheduled_tokens)
    guesses = output.scheduled_spec_decode_tokens
    emits = [not scheduler.requests[one].is_prefill_chunk for one in ids]
    tokens = [
        [0] * (1 + int(random.integers(len(guesses.get(one, ())) + 1))) if emit else []
        for one, emit in zip(ids, emits, strict=True)
    ]
    index = {one: number for number, one in enumerate(ids)}
    answered = ModelRunnerOutput(req_ids=ids, req_id_to_index=index, sampled_token_ids=tokens)
    scheduler.update_from_output(output, answered)
    alive = [one for one in ids if one in scheduler.requests]
    scheduler.update_draft_token_ids(DraftTokenIds(alive, [[0] * 3 for _ in alive]))
