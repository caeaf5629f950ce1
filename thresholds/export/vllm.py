"""Tables as flags of vLLM (0.32; `--max-num-active-seqs` is new in it)."""

from __future__ import annotations

import json
import math

from fluid.errors import InputError
from thresholds.export.admission import limits_of, require_first_token
from thresholds.export.config import (
    QUEUE_S,
    Engine,
    EngineConfig,
    Flag,
    cap_of,
    pace_of,
    seats,
    shell_flags,
    token_budget,
    unpaced_cap,
)
from thresholds.table import ThresholdTable

SCHEDULER = "thresholds.export.vllm_scheduler.AsyncTableScheduler"


def translate(table: ThresholdTable, file: str | None) -> EngineConfig:
    """Flags that approximate the table, and the scheduler class that follows it."""
    cap, budget = cap_of(table), token_budget(table)
    room = seats(table)
    flags = [
        Flag("max-num-seqs", room, _room(cap)),
        Flag("max-num-batched-tokens", budget, "a token per seat and one iteration's prompts"),
        Flag("long-prefill-token-threshold", 0, "the table's model computes prompts whole"),
        Flag(
            "max-num-queued-reqs",
            room + math.ceil(QUEUE_S * table.valid_for.max_rate_per_s),
            f"seats, and {QUEUE_S:.0f} s of arrivals at the largest valid rate; then HTTP 503",
        ),
    ]
    if cap is not None:
        flags.insert(1, Flag("max-num-active-seqs", cap, "the table's cap on requests in service"))
    watermark = table.params.get("watermark_fraction")
    if watermark is not None:
        flags.append(Flag("watermark", watermark, "KV blocks that admissions leave free"))
    refused = refusal(table)
    if refused is None:
        flags.append(Flag("scheduler-cls", SCHEDULER, "follows the whole table"))
        if file is not None:
            settings = json.dumps({"fluidwait": {"table": file}})
            flags.append(Flag("additional-config", settings, "the table that the scheduler reads"))
    return EngineConfig("vllm", tuple(flags), _lost(table, refused))


def refusal(table: ThresholdTable) -> str | None:
    """Why the scheduler class would not start with this table on any engine, if so."""
    try:
        limits_of(table, "this table")
        require_first_token(table, "this table")
    except InputError as error:
        return str(error)
    return None


def _room(cap: int | None) -> str:
    if cap is None:
        return "must not bind: twice the requests that fill the memory on average"
    return "room for the cap; before vLLM 0.32 this is the cap itself"


def _lost(table: ThresholdTable, refused: str | None) -> tuple[str, ...]:
    lost = []
    if refused is not None:
        lost.append(f"the table as a whole: the scheduler class does not start with it ({refused})")
    if pace_of(table) is not None:
        lost.append(
            "the pace, by flags alone: without the scheduler class vLLM admits greedily, and "
            f"--max-num-seqs {unpaced_cap(table)} comes closest (docs/practical-table.md)"
        )
    if table.policy.startswith("nested"):
        lost.append("segments, by flags alone: without the scheduler class nothing is held")
    return tuple(lost)


VLLM = Engine("vllm", translate, lambda config: shell_flags("vllm serve MODEL", config))
