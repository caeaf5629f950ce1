"""Tables as fields of TensorRT-LLM's LLM API config (YAML)."""

from __future__ import annotations

import math

import numpy as np

from thresholds.export.admission import DEFAULT_MAX_WAIT_S
from thresholds.export.config import (
    Engine,
    EngineConfig,
    Flag,
    cap_without_pace,
    first_gate,
    pace_of,
    token_budget,
    yaml_fields,
)
from thresholds.table import ThresholdTable


def translate(table: ThresholdTable, file: str | None) -> EngineConfig:
    """Fields that approximate the table."""
    budget = token_budget(table)
    flags = (
        Flag("max_batch_size", *cap_without_pace(table)),
        Flag("max_num_tokens", budget, "a token per seat and one iteration's prompts"),
        *_batch_wait(table, budget),
    )
    return EngineConfig("trtllm", flags, _lost(table))


def _batch_wait(table: ThresholdTable, budget: int) -> tuple[Flag, Flag]:
    """The gate of segment 1, in tokens and iterations; switched off for tables without one."""
    ratio, iterations = "batch_wait_max_tokens_ratio", "batch_wait_timeout_iters"
    gate, tau_s = first_gate(table), table.predicted.iteration_time_s
    if gate is None or tau_s is None:
        why = "off: this table lets a request in as soon as it may"
        return Flag(ratio, 0, why), Flag(iterations, 0, why)
    classes = table.workload.classes
    mean = np.average(
        [one.prefill_tokens for one in classes], weights=[one.rate_per_s for one in classes]
    )
    wait_s = float(table.params.get("max_wait_s", DEFAULT_MAX_WAIT_S))
    share = round(min(gate * float(mean) / budget, 1.0), 4)
    return (
        Flag(ratio, share, f"n_1 = {gate} mean prompts over max_num_tokens"),
        Flag(iterations, math.ceil(wait_s / tau_s), "longest wait at the gate, in iterations"),
    )


def _lost(table: ThresholdTable) -> tuple[str, ...]:
    lost = []
    if pace_of(table) is not None:
        lost.append("the pace: admission is bounded by max_batch_size and max_num_tokens alone")
    if table.params.get("watermark_fraction"):
        lost.append("the watermark: there is no share of memory that only admissions leave free")
    if table.policy.startswith("nested"):
        lost.append("segments beyond the first gate: running requests are never held back")
    return tuple(lost)


TRTLLM = Engine("trtllm", translate, yaml_fields)
