"""What a step of the plug-in costs beside vLLM's own, with 10,000 requests waiting.

``.venv-vllm-0.32.0/bin/python -m tests.vllm.step_cost`` prints the ratio of the two medians in
each case. Both schedulers take turns, step by step, in one process.
"""

from __future__ import annotations

import gc
import json
import logging
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tests.vllm.conftest  # noqa: F401  (vLLM reads its environment when it is imported)

WAITING = 10_000
WARM_UP_STEPS, STEPS = 330, 60
BLOCK = 16
PROMPT, OUTPUT = 64, 500


@dataclass(frozen=True)
class Case:
    """One engine and table.

    Attributes:
        seats: Engine's; all of them are taken before the steps that count.
        blocks: Engine's KV blocks.
        table: Fields of the threshold table.
        max_wait_s: In the plug-in's settings.
    """

    name: str
    seats: int = 256
    blocks: int = 20_000
    table: dict[str, Any] = field(default_factory=dict)
    max_wait_s: float | None = None


def _segments(*pairs: tuple[int, int]) -> list[dict[str, Any]]:
    return [{"name": str(end), "threshold": n, "up_to_tokens": end} for n, end in pairs]


FREE = {"params": {"pace_per_iteration": 1e6}}
CASES = (
    Case("nothing binds but seats", table=FREE),
    Case("nothing binds but seats, 1,024 of them", seats=1024, table=FREE),
    Case("nothing binds but memory", seats=1024, blocks=2_000, table=FREE),
    Case("pace", table={"params": {"pace_per_iteration": 0.05}}),
    Case("cap", table={"params": {"cap_requests": 128}}),
    Case(
        "pace, none waits too long",
        table={"params": {"pace_per_iteration": 0.05}},
        max_wait_s=6e4,
    ),
    Case("pace, all wait too long", table={"params": {"pace_per_iteration": 1e-3}}, max_wait_s=1.0),
    Case(
        "nested-cap",
        table={
            "policy": "nested-cap",
            "params": {},
            "thresholds": _segments((150, 200), (106, 400)),
        },
    ),
    Case(
        "nested-wait",
        seats=1024,
        table={
            "policy": "nested-wait",
            "params": {},
            "thresholds": _segments((2, 200), (1, 400)),
        },
    ),
)


def main() -> None:
    """Print the table."""
    from tests.vllm.virtual_engine import model_folder

    logging.disable(logging.WARNING)
    print(f"{'case':42} {'order':8} {'vLLM ms':>8} {'plug-in ms':>10} {'ratio':>6}")
    with tempfile.TemporaryDirectory() as folder:
        model = model_folder(Path(folder))
        for case in CASES:
            for order in ("fcfs", "priority"):
                theirs_s, ours_s = _medians_s(case, order, model, Path(folder) / "table.json")
                ratio = ours_s / theirs_s
                print(
                    f"{case.name:42} {order:8} {1e3 * theirs_s:8.2f} {1e3 * ours_s:10.2f} "
                    f"{ratio:6.2f}",
                    flush=True,
                )


def _medians_s(case: Case, order: str, model: Path, path: Path) -> tuple[float, float]:
    from vllm.v1.core.sched.scheduler import Scheduler

    from fluid.iteration import IterationTime
    from fluid.server import Server
    from tests.vllm.conftest import table_document
    from tests.vllm.virtual_engine import make_scheduler
    from thresholds.export.vllm_scheduler import TableScheduler

    server = Server(
        name="bench",
        source="bench",
        kv_capacity_tokens=case.blocks * BLOCK,
        block_tokens=BLOCK,
        iteration_time=IterationTime.affine(0.01, 1e-5, 1e-7),
    )
    path.write_text(json.dumps(table_document(server, **case.table)), encoding="utf-8")
    config: dict[str, Any] = {"fluidwait": {"table": str(path)}}
    if case.max_wait_s is not None:
        config["fluidwait"]["max_wait_s"] = case.max_wait_s
    settings: dict[str, Any] = {"policy": order, "max_num_seqs": case.seats}
    ours = make_scheduler(
        TableScheduler, model, case.blocks, BLOCK, additional_config=config, **settings
    )
    theirs = make_scheduler(Scheduler, model, case.blocks, BLOCK, **settings)
    theirs_s, ours_s = [], []
    gc.collect()
    gc.disable()
    _fill(ours)
    _fill(theirs)
    for _ in range(WARM_UP_STEPS + STEPS):
        ours_s.append(_step_s(ours))
        # Stock vLLM gets as many seats as the table has filled, and so admits as many.
        theirs.max_num_active_reqs = len(ours.running)
        theirs_s.append(_step_s(theirs))
    gc.enable()
    return statistics.median(theirs_s[-STEPS:]), statistics.median(ours_s[-STEPS:])


def _fill(scheduler: Any) -> None:
    from tests.vllm.virtual_engine import Tape, new_request

    count = WAITING + scheduler.max_num_running_reqs
    tape = Tape([time.time() - 60.0] * count, [PROMPT] * count, [OUTPUT] * count)
    for number in range(count):
        scheduler.add_request(new_request(number, tape))


def _step_s(scheduler: Any) -> float:
    """Time of one `schedule`, whose output is then handed back."""
    from tests.vllm.virtual_engine import play_step

    schedule = scheduler.schedule
    took_s = []

    def timed() -> Any:
        begun_s = time.thread_time()
        output = schedule()
        took_s.append(time.thread_time() - begun_s)
        return output

    scheduler.schedule = timed
    try:
        play_step(scheduler)
    finally:
        del scheduler.schedule
    return took_s[0]


if __name__ == "__main__":
    main()
