"""Settings as flags of the engines, each with what it is worth."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from fluid.result import percent
from thresholds.export.config import EngineConfig, Flag, shell_flags, yaml_fields
from thresholds.export.vllm import SCHEDULER
from validation.experiments.planning.advice import Worth
from validation.simulator.metrics import Interval

_FORMS: dict[str, Callable[[EngineConfig], str]] = {
    "vllm": partial(shell_flags, "vllm serve MODEL"),
    "sglang": partial(shell_flags, "python -m sglang.launch_server --model-path MODEL"),
    "trtllm": yaml_fields,
}

_CAPACITY_POLICY = {
    "trtllm-no-evict": "GUARANTEED_NO_EVICT",
    "trtllm-max-utilization": "MAX_UTILIZATION",
}

_MEANINGS = {
    "max_num_batched_tokens": "tokens per iteration",
    "max_num_tokens": "tokens per iteration",
    "chunked_prefill_size": "prompt tokens per iteration",
    "max_num_seqs": "requests in service at most",
    "max_batch_size": "requests in service at most",
    "max_running_requests": "requests in service at most",
    "watermark": "share of KV that admissions leave free",
    "pace": "admissions per iteration at most",
    "long_prefill_token_threshold": "tokens of one prompt per iteration at most",
    "schedule_conservativeness": "outputs reserved at admission",
    "policy": "who is admitted, and what happens when memory is full",
}


def engine_config(engine: str, worth: Sequence[Worth], unit: str) -> EngineConfig:
    """The flags that differ from the engine's own."""
    flags, lost = [], []
    for one in worth:
        reason = reason_of(one, unit)
        if one.name == "policy":
            policy = _CAPACITY_POLICY[str(one.value)]
            value = f"{{capacity_scheduler_policy: {policy}}}"
            flags.append(Flag("scheduler_config", value, reason))
        elif one.name == "pace":
            flags.append(Flag("scheduler-cls", SCHEDULER, f"{reason}; it reads the table"))
            lost.append("the pace, without the scheduler class and the table")
        else:
            name = one.name if engine == "trtllm" else one.name.replace("_", "-")
            flags.append(Flag(name, plain(one.value), reason))
    return EngineConfig(engine, tuple(flags), tuple(lost), _FORMS[engine])


def reason_of(one: Worth, unit: str) -> str:
    """A flag's worth in words."""
    usual = plain(one.usual)
    if usual in _CAPACITY_POLICY:
        usual = _CAPACITY_POLICY[str(usual)]
    usual = "none" if usual == math.inf else usual
    return f"{_MEANINGS[one.name]}; {change(one.gain, unit)} than at the engine's own ({usual})"


def change(gain: Interval, unit: str) -> str:
    """A gain in words: "3.1 % ± 0.4 more goodput"."""
    spread = f" ± {100 * gain.half_width:.2g}" if math.isfinite(gain.half_width) else ""
    return f"{percent(gain.mean, 2)}{spread} {unit}"


def plain(value: float | str) -> float | int | str:
    """A whole number as one."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def named(values: Mapping[str, float]) -> dict[str, float | int | str]:
    return {name: plain(value) for name, value in values.items()}
