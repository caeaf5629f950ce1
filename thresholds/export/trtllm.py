"""Tables as fields of TensorRT-LLM's LLM API config (YAML)."""

from __future__ import annotations

import math

from thresholds.export.config import Engine, Flag, Words, measured, yaml_fields
from thresholds.export.view import TableView


def translate(view: TableView) -> Words:
    """Fields that approximate the table."""
    budget = view.token_budget
    flags = (
        Flag("max_batch_size", *view.cap_without_pace),
        Flag("max_num_tokens", budget, "a token per seat and one iteration's prompts"),
        *_batch_wait(view, budget),
        *_capacity_policy(view),
    )
    return flags, _lost(view)


def _batch_wait(view: TableView, budget: int) -> tuple[Flag, Flag]:
    """The gate of segment 1, in tokens and iterations; switched off for tables without one."""
    ratio, iterations = "batch_wait_max_tokens_ratio", "batch_wait_timeout_iters"
    gate, tau_s = view.first_gate, view.table.predicted.iteration_time_s
    if gate is None or tau_s is None:
        why = "off: this table lets a request in as soon as it may"
        return Flag(ratio, 0, why), Flag(iterations, 0, why)
    share = round(min(gate * view.mean_prompt_tokens / budget, 1.0), 4)
    steps = math.ceil(view.max_wait_s / tau_s)
    return (
        Flag(ratio, share, f"n_1 = {gate} mean prompts over max_num_tokens"),
        Flag(iterations, steps, "longest wait at the gate, in iterations"),
    )


_POLICIES = {
    "trtllm-no-evict": "GUARANTEED_NO_EVICT",
    "trtllm-max-utilization": "MAX_UTILIZATION",
}


def _capacity_policy(view: TableView) -> tuple[Flag, ...]:
    """The better of both where the table was replayed beside them; else the engine's own."""
    rows = view.simulated(*_POLICIES)
    if {one.policy for one in rows} != set(_POLICIES):
        return ()
    said = "; ".join(f"{_POLICIES[one.policy]} {measured(one)}" for one in rows)
    value = f"{{capacity_scheduler_policy: {_POLICIES[rows[0].policy]}}}"
    return (Flag("scheduler_config", value, f"simulated: {said}"),)


def _lost(view: TableView) -> tuple[str, ...]:
    lost = []
    if view.limits.pace_per_iteration is not None:
        lost.append("the pace: admission is bounded by max_batch_size and max_num_tokens alone")
    if view.has_watermark:
        lost.append("the watermark: there is no share of memory that only admissions leave free")
    if view.rule.segmented:
        lost.append("segments beyond the first gate: running requests are never held back")
    return tuple(lost)


TRTLLM = Engine("trtllm", translate, yaml_fields)
