"""From which load on another replica is asked for, on metrics that the engine has.

A replica keeps its service levels up to the slo-rate. Until a new one serves, the scaler has to see
the load and the replica to start; meanwhile the load grows. So thresholds stand where the load
reaches the slo-rate just when the new replica is there:

    target = slo-rate ÷ (1 + growth per minute × (cold start + reaction) ÷ 60).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from fluid.errors import InputError
from fluid.result import number, percent
from fluid.service_levels import promises
from fluid.steady.equilibrium import Equilibrium, equilibrium
from thresholds.checks import is_number
from thresholds.fields import PredictedLatency
from thresholds.prediction import predicted_latency
from thresholds.table import ThresholdTable

REACTION_S = 45.0
"""From load to decision: a scrape, a query and half of the minute over which metrics are means."""

GROWTH_PER_MIN = 0.05
"""Share of the load by which it grows in a minute, unless told."""


@dataclass(frozen=True)
class Metrics:
    """What an engine calls its gauges and counters, as Prometheus reads them."""

    engine: str
    running: str
    waiting: str
    prompt_tokens: str
    output_tokens: str
    kv_usage: str


METRICS = {
    one.engine: one
    for one in (
        Metrics(
            "vllm",
            "vllm:num_requests_running",
            "vllm:num_requests_waiting",
            "vllm:prompt_tokens_total",
            "vllm:generation_tokens_total",
            "vllm:kv_cache_usage_perc",
        ),
        Metrics(
            "sglang",
            "sglang:num_running_reqs",
            "sglang:num_queue_reqs",
            "sglang:prompt_tokens_total",
            "sglang:generation_tokens_total",
            "sglang:token_usage",
        ),
    )
}


@dataclass(frozen=True)
class Trigger:
    """One threshold.

    Attributes:
        name: Of the metric, as Prometheus and Kubernetes may call it.
        expression: Its sum over all replicas, in PromQL.
        per_replica: From here on another one is asked for.
        reason: Where the number comes from.
    """

    name: str
    expression: str
    per_replica: float
    reason: str


@dataclass(frozen=True)
class Load:
    """A table at the rate from which on another replica is started.

    Attributes:
        slo_rate_per_s: Largest rate of a replica that keeps its service levels.
        cold_start_s: From the decision until a new replica serves.
        growth_per_min: Share of the load by which it may grow in a minute.

    Raises:
        InputError: One of them out of range.
    """

    table: ThresholdTable
    slo_rate_per_s: float
    cold_start_s: float
    growth_per_min: float

    def __post_init__(self) -> None:
        rate_per_s = self.slo_rate_per_s
        if not (is_number(rate_per_s) and rate_per_s > 0):
            raise InputError("slo_rate_per_s", rate_per_s, "requests/s > 0")
        for name, unit in (("cold_start_s", "seconds"), ("growth_per_min", "a share a minute")):
            value = getattr(self, name)
            if not (is_number(value) and value >= 0):
                raise InputError(name, value, f"{unit}, 0 or more")
        limit_per_s = self.table.workload.rate_per_s * self.table.predicted.max_scale
        if self.slo_rate_per_s > limit_per_s:
            allowed = f"at most {limit_per_s:.4g} requests/s, the fluid limit of this table"
            raise InputError("slo_rate_per_s", self.slo_rate_per_s, allowed)

    @property
    def headroom(self) -> float:
        """Factor by which the load grows until a new replica serves."""
        return 1 + self.growth_per_min * (self.cold_start_s + REACTION_S) / 60

    @property
    def target_per_s(self) -> float:
        """Requests per second and replica from which on another one is asked for."""
        return self.slo_rate_per_s / self.headroom

    @property
    def words(self) -> str:
        """The target and how it follows, in a sentence."""
        return (
            f"target {number(self.target_per_s)} requests/s a replica: the slo-rate "
            f"{number(self.slo_rate_per_s)} over {self.headroom:.3f}, by which the load grows in "
            f"{self.cold_start_s:g} s of cold start and {REACTION_S:g} s of reaction at "
            f"{percent(self.growth_per_min)} a minute"
        )

    @cached_property
    def law(self) -> PredictedLatency:
        """What the latency laws say of a replica at the target."""
        return predicted_latency(self.table, self.target_per_s)

    @cached_property
    def fluid(self) -> Equilibrium:
        """The balance of a replica at the target."""
        return equilibrium(self.table.workload.at_rate(self.target_per_s), self.table.server)

    @property
    def prompt_tokens(self) -> float:
        """Mean prompt that a request brings."""
        return self._mean("prefill_tokens")

    @property
    def tokens(self) -> float:
        """Mean prompt and output of a request."""
        return self.prompt_tokens + self._mean("decode_tokens")

    def _mean(self, field: str) -> float:
        classes = self.table.workload.classes
        total = sum(one.rate_per_s * getattr(one, field) for one in classes)
        return float(total / self.table.workload.rate_per_s)

    @property
    def ttft_limit_s(self) -> float | None:
        """The tightest limit on TTFT that the table's workload has."""
        limits = [one.slo.limits_s.get("ttft_s") for one in promises(self.table.workload)]
        return min((one for one in limits if one is not None), default=None)


Found = tuple[float, str, str]
"""Threshold per replica, expression over all, reason."""


def _requests(load: Load, names: Metrics) -> Found | str:
    """Little's law at the target."""
    if load.law.latency_s is not None:
        latency_s, source = (
            load.law.latency_s.mean,
            "; but: ".join(("the latency laws", *load.law.caveats)),
        )
    elif load.fluid.first_order is not None:
        latency_s, source = load.fluid.first_order.latency_s, "first order, without queueing"
    else:
        return f"no balance at {number(load.target_per_s)} requests/s"
    held = load.target_per_s * latency_s
    expression = (
        f"sum(avg_over_time({names.running}[1m])) + sum(avg_over_time({names.waiting}[1m]))"
    )
    reason = f"running and waiting: target × mean latency {number(latency_s)} s ({source})"
    return held, expression, reason


def _waiting_tokens(load: Load, names: Metrics) -> Found | str:
    """A queue that takes the TTFT limit to work off at the target."""
    limit_s = load.ttft_limit_s
    if limit_s is None:
        return "the workload has no limit on TTFT that a queue could miss"
    tokens = load.target_per_s * load.prompt_tokens * limit_s
    expression = f"sum(avg_over_time({names.waiting}[1m])) * {load.prompt_tokens:.6g}"
    reason = (
        f"waiting requests × mean prompt: at the target so many prompt tokens come within the TTFT "
        f"limit of {limit_s:g} s, and the last of them waits about as long"
    )
    return tokens, expression, reason


def _token_rate(load: Load, names: Metrics) -> Found | str:
    per_s = load.target_per_s * load.tokens
    expression = f"sum(rate({names.prompt_tokens}[1m])) + sum(rate({names.output_tokens}[1m]))"
    reason = f"tokens/s: target × {number(load.tokens)} prompt and output tokens of a request"
    return per_s, expression, reason


def _kv_usage(load: Load, names: Metrics) -> Found | str:
    """Share of KV at the target, where memory is what binds."""
    held = load.law.kv_mean_tokens or load.fluid.kv_tokens
    if held is None:
        return f"no balance at {number(load.target_per_s)} requests/s"
    share = held / load.table.server.usable_kv_tokens
    binding = load.table.predicted.binding
    if binding != "memory":
        return (
            f"{binding} binds, not memory: at the target KV usage is {percent(share)} only, and "
            "requests miss their levels long before memory fills"
        )
    return share, f"sum(avg_over_time({names.kv_usage}[1m]))", "KV held at the target ÷ capacity"


_KINDS: dict[str, tuple[str, Callable[[Load, Metrics], Found | str]]] = {
    "requests": ("fluidwait_requests", _requests),
    "waiting-tokens": ("fluidwait_waiting_prompt_tokens", _waiting_tokens),
    "token-rate": ("fluidwait_tokens_per_second", _token_rate),
    "kv-usage": ("fluidwait_kv_usage", _kv_usage),
}

KINDS = tuple(_KINDS)
"""What thresholds can be on."""


def triggers(
    load: Load, kinds: Sequence[str] = (), engine: str = "vllm"
) -> tuple[tuple[Trigger, ...], tuple[str, ...]]:
    """Thresholds of a replica, and those that there are none for with the reason.

    Args:
        kinds: Names in `KINDS`; all that make sense where empty.
        engine: Whose metrics, a name in `METRICS`.

    Raises:
        InputError: An unknown name, or a threshold that was asked for and makes no sense.
    """
    if engine not in METRICS:
        raise InputError("metrics_of", engine, "one of " + ", ".join(METRICS))
    found, lost = [], []
    for kind in dict.fromkeys(kinds or KINDS):
        if kind not in _KINDS:
            raise InputError("on", kind, "one of " + ", ".join(KINDS))
        name, make = _KINDS[kind]
        made = make(load, METRICS[engine])
        if not isinstance(made, str):
            threshold, expression, reason = made
            found.append(Trigger(name, expression, threshold, reason))
        elif kinds:
            raise InputError("on", kind, f"another metric: {made}")
        else:
            lost.append(f"a threshold on {kind}: {made}")
    return tuple(found), tuple(lost)
