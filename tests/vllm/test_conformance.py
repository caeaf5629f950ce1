"""Full-sized loads in vLLM's own scheduler, stock and with a solved table, on the same arrivals.

THEORY 6.5: τ = 10.6 ms + 45 µs per computed token + 0.26 µs per KV token read, blocks of 16 tokens,
2,048 tokens per step. All runs go through one pool, the longest first.
"""

from __future__ import annotations

import gc
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from vllm.v1.core.sched.scheduler import Scheduler

from tests.vllm.loads import CHAT_TABLE, LOADS, Load
from tests.vllm.virtual_engine import Run, Tape, make_scheduler, run
from thresholds.export.vllm_scheduler import TableScheduler
from thresholds.solvers.paced.solver import Paced
from thresholds.table import ThresholdTable

PROCESSES = 2
WINDOW = (0.2, 0.8)
"""Part of the arrivals in whose time completions are counted."""


@dataclass(frozen=True)
class Figures:
    """Completed ÷ arrived and completed per second in the window; the rest over all requests."""

    completed_share: float
    completed_per_s: float
    preemptions_per_request: float
    mean_latency_s: float


Pairs = dict[str, tuple[Figures, Figures]]


def poisson_tape(load: Load, seed: int) -> Tape:
    """Poisson arrivals of the load's classes."""
    rng = np.random.default_rng(seed)
    classes = load.workload.classes
    rates = np.array([one.rate_per_s for one in classes])
    chosen = rng.choice(len(classes), load.requests, p=rates / rates.sum())
    return Tape(
        arrived_at_s=np.cumsum(rng.exponential(1 / rates.sum(), load.requests)),
        prompt_tokens=np.array([one.prefill_tokens for one in classes])[chosen],
        output_tokens=np.array([one.decode_tokens for one in classes])[chosen],
    )


def figures(done: Run) -> Figures:
    arrived_at_s = done.tape.arrived_at_s
    start_s, end_s = (arrived_at_s[int(share * len(arrived_at_s))] for share in WINDOW)
    arrived = int(np.sum((arrived_at_s >= start_s) & (arrived_at_s < end_s)))
    completed = int(np.sum((done.completed_at_s >= start_s) & (done.completed_at_s < end_s)))
    return Figures(
        completed_share=completed / arrived,
        completed_per_s=completed / float(end_s - start_s),
        preemptions_per_request=float(done.preemptions.mean()),
        mean_latency_s=float(done.latency_s.mean()),
    )


def play(name: str, table: Path | None, model: Path) -> Figures:
    """One load in one scheduler; without a table the stock one."""
    gc.freeze()  # as vLLM's engine does: its start-up objects are not collected again
    load = LOADS[name]
    scheduler = make_scheduler(
        Scheduler if table is None else TableScheduler,
        model,
        load.server.kv_capacity_tokens // load.server.block_tokens,
        load.server.block_tokens,
        additional_config=None if table is None else {"fluidwait": {"table": str(table)}},
    )
    return figures(run(scheduler, poisson_tape(load, seed=1), load.server.iteration_time))


def solved_table(name: str, folder: Path) -> Path:
    """The closed form; for chat lengths, close to the limit, the table refined by `loads.py`."""
    load = LOADS[name]
    if name == "chat":
        assert ThresholdTable.read(CHAT_TABLE).workload == load.workload
        return CHAT_TABLE
    path = folder / f"{name}.json"
    Paced().solve(load.workload, load.server).write(path)
    return path


@pytest.fixture(scope="module")
def pairs(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Pairs:
    """Figures of stock and plug-in for every load."""
    folder = tmp_path_factory.mktemp("tables")
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(PROCESSES, mp_context=context) as pool:
        coming = {}
        for name in LOADS:
            table = solved_table(name, folder)
            coming[name] = (
                pool.submit(play, name, None, model),
                pool.submit(play, name, table, model),
            )
        found = {name: (one.result(), two.result()) for name, (one, two) in coming.items()}
    for name, (stock, ours) in found.items():
        print(f"\n{name}\n  stock {stock}\n  table {ours}")
    return found


def test_the_stock_scheduler_falls_behind(pairs: Pairs) -> None:
    stock = pairs["long"][0]
    assert stock.completed_per_s < 0.96 * 2.40
    assert stock.preemptions_per_request > 0.5
    assert pairs["chat"][0].completed_share < 0.96


def test_the_table_carries_long_outputs_near_the_limit(pairs: Pairs) -> None:
    stock, ours = pairs["long"]
    assert ours.completed_share >= 0.98
    assert ours.preemptions_per_request < 0.03
    assert ours.mean_latency_s < 0.5 * stock.mean_latency_s


def test_the_table_costs_nothing_at_half_the_rate(pairs: Pairs) -> None:
    stock, ours = pairs["long at half rate"]
    assert abs(ours.mean_latency_s / stock.mean_latency_s - 1) <= 0.01


def test_the_table_carries_chat_lengths_near_the_limit(pairs: Pairs) -> None:
    ours = pairs["chat"][1]
    assert ours.completed_share >= 0.98
