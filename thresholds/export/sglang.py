"""Tables as flags of SGLang."""

from __future__ import annotations

import math
from functools import partial

from thresholds.export.config import Engine, Flag, Words, measured, shell_flags
from thresholds.export.view import TableView

_PARAMETER = "schedule_conservativeness"


def translate(view: TableView) -> Words:
    """Flags that approximate the table."""
    pace = view.limits.pace_per_iteration
    flags = [
        Flag("max-running-requests", *view.cap_without_pace),
        Flag("chunked-prefill-size", view.token_budget, "one iteration's prompts stay whole"),
        _conservativeness(view),
    ]
    if pace is not None:
        reason = f"the pace, {pace:.4g} per iteration, as a whole number per prefill batch"
        flags.append(Flag("prefill-max-requests", max(math.ceil(pace), 1), reason))
    queue = view.queue
    if queue is not None:
        reason = f"{queue.asked} TTFT ≤ {queue.limit_s:g} s of who is admitted, at any load"
        flags.append(Flag("max-queued-requests", queue.requests, reason))
    return (*flags, *_delayer(view)), _lost(view)


def _conservativeness(view: TableView) -> Flag:
    """The best of those that the table was replayed beside; else SGLang's own."""
    name, rows = "schedule-conservativeness", view.simulated("sglang")
    if not rows:
        why = "SGLang's own reserve for outputs; raise it while it logs retracted requests"
        return Flag(name, 1.0, why)
    said = "; ".join(f"{one.params.get(_PARAMETER, 1)} {measured(one)}" for one in rows)
    best = rows[0].params.get(_PARAMETER, 1)
    assert isinstance(best, int | float)
    return Flag(name, float(best), f"simulated: {said}")


def _delayer(view: TableView) -> list[Flag]:
    """The gate of segment 1: prefills wait until n_1 requests do, relative to those running."""
    gate = view.first_gate
    if gate is None:
        return []
    ratio = round(min(gate / view.residents, 1.0), 4)
    return [
        Flag("enable-prefill-delayer", "", "holds prefills back until enough requests wait"),
        Flag("prefill-delayer-queue-min-ratio", ratio, f"n_1 = {gate} over the residents"),
        Flag("prefill-delayer-max-delay-ms", 1000 * view.max_wait_s, "longest wait at the gate"),
    ]


def _lost(view: TableView) -> tuple[str, ...]:
    lost = []
    pace = view.limits.pace_per_iteration
    if pace is not None and pace != math.ceil(pace):
        lost.append(
            f"the fraction of the pace: up to {max(math.ceil(pace), 1)} per batch instead of "
            f"{pace:.4g}, so that bursts are admitted faster than memory balances"
        )
    if view.has_watermark:
        lost.append("the watermark: SGLang has no fixed share of memory to keep free")
    if view.rule.segmented:
        lost.append("segments beyond the first gate: running requests are never held back")
    return tuple(lost)


SGLANG = Engine(
    "sglang", translate, partial(shell_flags, "python -m sglang.launch_server --model-path MODEL")
)
