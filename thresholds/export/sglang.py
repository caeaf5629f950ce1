"""Tables as flags of SGLang."""

from __future__ import annotations

import math

from thresholds.export.admission import DEFAULT_MAX_WAIT_S
from thresholds.export.config import (
    Engine,
    EngineConfig,
    Flag,
    cap_without_pace,
    first_gate,
    pace_of,
    residents,
    shell_flags,
    token_budget,
)
from thresholds.table import ThresholdTable


def translate(table: ThresholdTable, file: str | None) -> EngineConfig:
    """Flags that approximate the table."""
    pace = pace_of(table)
    flags = [
        Flag("max-running-requests", *cap_without_pace(table)),
        Flag("chunked-prefill-size", token_budget(table), "one iteration's prompts stay whole"),
        Flag(
            "schedule-conservativeness",
            1.0,
            "SGLang's own reserve for outputs; raise it while it logs retracted requests",
        ),
    ]
    if pace is not None:
        reason = f"the pace, {pace:.4g} per iteration, as a whole number per prefill batch"
        flags.append(Flag("prefill-max-requests", max(math.ceil(pace), 1), reason))
    flags += _delayer(table)
    return EngineConfig("sglang", tuple(flags), _lost(table))


def _delayer(table: ThresholdTable) -> list[Flag]:
    """The gate of segment 1: prefills wait until n_1 requests do, relative to those running."""
    gate = first_gate(table)
    if gate is None:
        return []
    ratio = round(min(gate / residents(table), 1.0), 4)
    wait_ms = 1000 * float(table.params.get("max_wait_s", DEFAULT_MAX_WAIT_S))
    return [
        Flag("enable-prefill-delayer", "", "holds prefills back until enough requests wait"),
        Flag("prefill-delayer-queue-min-ratio", ratio, f"n_1 = {gate} over the residents"),
        Flag("prefill-delayer-max-delay-ms", wait_ms, "longest wait at the gate"),
    ]


def _lost(table: ThresholdTable) -> tuple[str, ...]:
    lost = []
    pace = pace_of(table)
    if pace is not None and pace != math.ceil(pace):
        lost.append(
            f"the fraction of the pace: up to {max(math.ceil(pace), 1)} per batch instead of "
            f"{pace:.4g}, so that bursts are admitted faster than memory balances"
        )
    if table.params.get("watermark_fraction"):
        lost.append("the watermark: SGLang has no fixed share of memory to keep free")
    if table.policy.startswith("nested"):
        lost.append("segments beyond the first gate: running requests are never held back")
    return tuple(lost)


SGLANG = Engine(
    "sglang",
    translate,
    lambda config: shell_flags("python -m sglang.launch_server --model-path MODEL", config),
)
