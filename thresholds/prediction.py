"""The latency laws' figures in a threshold table (THEORY 9)."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from thresholds.fields import PredictedLatency, PredictedTimes, TableFields
from thresholds.table import ThresholdTable

if TYPE_CHECKING:
    from fluid.steady.latency.result import Figures

_NO_CAP = 10**6
"""Above any number of requests: a table's cap is the one that counts, not vLLM's own."""


def with_prediction(table: ThresholdTable) -> ThresholdTable:
    """The table with means and quantiles of TTFT, TPOT and latency at its own rates."""
    law = predicted_latency(table)
    means = {
        "latency_s": law.latency_s and law.latency_s.mean,
        "ttft_s": law.ttft_s and law.ttft_s.mean,
        "tpot_s": law.tpot_s and law.tpot_s.mean,
    }
    own = {"policy_latency_s": means["latency_s"], "policy_ttft_s": means["ttft_s"]}
    update = means | {"law": law} | (own if law.follows_table else {})
    return table.model_copy(update={"predicted": table.predicted.model_copy(update=update)})


def predicted_latency(table: TableFields, rate_per_s: float | None = None) -> PredictedLatency:
    """What the laws say of a table's scheduler with its watermark and, if nothing else, its cap.

    No law knows a pace or a threshold.

    Args:
        rate_per_s: Of the table's mix, all classes together; the table's own where None.
    """
    from fluid.steady.prediction import predict, trust  # its kernels are slow to import

    scheduler, follows = _scheduler(table)
    load = table.workload if rate_per_s is None else table.workload.at_rate(rate_per_s)
    found = predict(load, table.server, scheduler).latency
    law: dict[str, Any] = {
        "scheduler": scheduler,
        "follows_table": follows,
        "refusal": found.refusal,
    }
    if found.validity is not None:
        law["overflow_probability"] = found.validity.overflow_probability
        law["budget_share"] = found.validity.budget_share
    if found.pooled is not None and found.kv_tokens is not None and found.validity is not None:
        for name in ("ttft_s", "tpot_s", "latency_s"):
            times: Figures | None = getattr(found.pooled, name)
            law[name] = None if times is None else PredictedTimes(**asdict(times))
        law["kv_mean_tokens"] = found.kv_tokens.mean
        law["kv_sd_tokens"] = found.kv_tokens.sd
        law["accuracy"] = trust(found.validity)
        law["caveats"] = found.validity.sentences()
    return PredictedLatency.model_validate(law)


def _scheduler(table: TableFields) -> tuple[str, bool]:
    """The scheduler below a table with what a law knows of its limits, and whether that is all."""
    if table.policy != "paced":
        return table.scheduler, False
    limits = table.limits
    follows = limits.pace_per_iteration is None
    parts: dict[str, float | None] = {"watermark": limits.watermark_fraction or None}
    if table.scheduler == "vllm-v1":
        parts["max_num_seqs"] = _NO_CAP
    if follows and limits.cap_requests is not None:
        parts["max_num_seqs" if table.scheduler == "vllm-v1" else "cap"] = limits.cap_requests
    words = ",".join(f"{name}={value!r}" for name, value in parts.items() if value is not None)
    return f"{table.scheduler}:{words}" if words else table.scheduler, follows
