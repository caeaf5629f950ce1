"""Tables as flags of vLLM (0.32; `--max-num-active-seqs` is new in it)."""

from __future__ import annotations

import json
import math
from functools import partial

from fluid.errors import InputError
from thresholds.export.admission import require_first_token, restraints_of
from thresholds.export.config import Engine, Flag, Words, shell_flags
from thresholds.export.view import TableView
from thresholds.fields import TableFields

SCHEDULER = "thresholds.export.vllm_scheduler.AsyncTableScheduler"

QUEUE_S = 60.0
"""Seconds of arrivals, at the largest valid rate, that may queue before requests are refused."""


def translate(view: TableView) -> Words:
    """Flags that approximate the table, and the scheduler class that follows it where they do not.

    A table that is a watermark alone needs no class: the flag says it all.
    """
    table, cap = view.table, view.limits.cap_requests
    refused = refusal(table)
    exact = _flags_say_all(view)
    follows = not (exact or view.flags_only or refused)
    room, why = (view.seats, _room(cap)) if exact or follows else view.cap_without_pace
    flags = [
        Flag("max-num-seqs", room, why),
        Flag(
            "max-num-batched-tokens",
            view.token_budget,
            "a token per seat and one iteration's prompts",
        ),
        Flag("long-prefill-token-threshold", 0, "the table's model computes prompts whole"),
        *_queue(view, room, exact or follows),
    ]
    if cap is not None:
        flags.insert(1, Flag("max-num-active-seqs", cap, "the table's cap on requests in service"))
    watermark = table.params.get("watermark_fraction")
    if watermark is not None:
        flags.append(Flag("watermark", watermark, "KV blocks that admissions leave free"))
    if follows:
        flags.append(Flag("scheduler-cls", SCHEDULER, "follows the whole table"))
        if view.file is not None:
            settings = json.dumps({"fluidwait": {"table": view.file}})
            flags.append(Flag("additional-config", settings, "the table that the scheduler reads"))
    return tuple(flags), _lost(view, refused)


def _queue(view: TableView, room: int, paced: bool) -> list[Flag]:
    """The most that waits beside those in service: by the limit of TTFT, or a minute's arrivals.

    Args:
        paced: Whether the engine follows the table's pace, if it has one.
    """
    queue = view.queue
    if queue is None:
        waiting = math.ceil(QUEUE_S * view.table.valid_for.max_rate_per_s)
        why = f"seats, and {QUEUE_S:.0f} s of arrivals at the largest valid rate; then HTTP 503"
        return [Flag("max-num-queued-reqs", room + waiting, why)]
    kept = f"{queue.asked} TTFT ≤ {queue.limit_s:g} s of who is admitted"
    if not paced:
        kept += ", with the pace; without it some wait longer"
    flags = [
        Flag(
            "max-num-queued-reqs",
            room + queue.requests,
            f"seats, and {queue.requests} that wait: {kept}; then HTTP 503",
        )
    ]
    if queue.prompt_tokens is not None:
        why = f"the same in prompt tokens: {kept}; then HTTP 503"
        flags.append(Flag("max-num-queued-tokens", queue.prompt_tokens, why))
    return flags


def _flags_say_all(view: TableView) -> bool:
    limits = view.limits
    alone = limits.pace_per_iteration is None and limits.cap_requests is None
    return alone and not view.rule.segmented


def refusal(table: TableFields) -> str | None:
    """Why the scheduler class would not start with this table on any engine, if so."""
    try:
        restraints_of(table, "this table")
        require_first_token(table, "this table")
    except InputError as error:
        return str(error)
    return None


def _room(cap: int | None) -> str:
    if cap is None:
        return "must not bind: twice the requests that fill the memory on average"
    return "room for the cap; before vLLM 0.32 this is the cap itself"


def _lost(view: TableView, refused: str | None) -> tuple[str, ...]:
    lost = []
    if refused is not None:
        lost.append(f"the table as a whole: the scheduler class does not start with it ({refused})")
    if view.limits.pace_per_iteration is not None:
        lost.append(
            "the pace, by flags alone: without the scheduler class vLLM admits greedily, and "
            f"--max-num-seqs {view.unpaced_cap} comes closest (docs/practical-table.md)"
        )
    if view.rule.segmented:
        lost.append("segments, by flags alone: without the scheduler class nothing is held")
    return tuple(lost)


VLLM = Engine("vllm", translate, partial(shell_flags, "vllm serve MODEL"), has_scheduler_class=True)
