"""Policies side by side on the same arrivals: figures with intervals and a verdict each."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from fluid.errors import InputError
from validation.policies import ConfiguredPolicy, policy_label
from validation.simulator.cpu import Job
from validation.simulator.engine import LATENCY, TPOT, TTFT
from validation.simulator.metrics import (
    Interval,
    Replication,
    interval,
    verdict,
)
from validation.simulator.model import Model
from validation.simulator.run import chosen_device, run


@dataclass(frozen=True)
class Spread:
    """Mean over requests with the half width of its 95 % interval over replications, and quantiles.

    `half_width` is None where one replication gives no interval.
    """

    mean: float
    half_width: float | None
    p50: float
    p90: float
    p99: float


@dataclass(frozen=True)
class PolicyResult:
    """What one policy did at one rate. Seconds; None where the figure does not exist.

    Attributes:
        verdict: "stable", "unstable" or "undecided": whether the backlog grows.
        verdict_reason: Why, in one sentence.
        growth_per_arrival, growth_low, growth_high: See `backlog.Verdict`.
        more_requests: Arrivals after which an open verdict should be decided.
        completed_share, completed_share_half_width: Completed ÷ arrived in the window.
        collapsed_share: Share of replications with a completed share below 95 % and a growing
            backlog.
        completed_shares: The completed share of each replication.
        completed_each_per_s: Completions per second of each replication.
        latency_means_s: Mean latency of each replication.
        latency_s, ttft_s, tpot_s: Of the requests that completed; None where none did, TPOT also
            where none has two output tokens.
        latency_note: What they are worth where the policy is unstable; empty elsewhere.
        wasted_token_share: Decoded tokens lost to evictions ÷ all decoded.
        unfinished_requests: Requests of the window that never completed, mean per replication.
        device: "cpu" or "cuda", on which it ran; their times agree to about 1e-12.
    """

    policy: str
    params: dict[str, Any]
    rate_per_s: float
    verdict: str
    verdict_reason: str
    growth_per_arrival: float | None
    growth_low: float | None
    growth_high: float | None
    more_requests: int | None
    replications: int
    requests: int
    completed_per_s: float
    completed_share: float
    completed_share_half_width: float | None
    collapsed_share: float
    completed_shares: tuple[float, ...]
    completed_each_per_s: tuple[float, ...]
    latency_means_s: tuple[float, ...]
    latency_s: Spread | None
    ttft_s: Spread | None
    tpot_s: Spread | None
    latency_note: str
    evictions_per_request: float
    wasted_token_share: float
    kv_mean_tokens: float
    kv_max_tokens: int
    unfinished_requests: float
    device: str

    @property
    def label(self) -> str:
        """Policy with its parameters, e.g. ``greedy:watermark=0.01``."""
        return policy_label(self.policy, self.params)

    def as_dict(self) -> dict[str, Any]:
        """Plain data with the field names as keys, ready for JSON."""
        return asdict(self)


def compare(
    model: Model,
    policies: Sequence[ConfiguredPolicy],
    *,
    replications: int,
    requests: int,
    seed: int = 0,
    rate_scale: float = 1.0,
    threads: int | None = None,
    device: str = "cpu",
    on_done: Callable[[], None] | None = None,
) -> list[PolicyResult]:
    """Run every policy on the same replications.

    A recorded tape is one sample path and runs once, whatever `replications` says.

    Args:
        device: "cpu", "cuda", or "auto"; see `validation.simulator.run`.

    Raises:
        InputError: No replications or no requests asked for, or the device is not there.
    """
    if replications < 1:
        raise InputError("replications", replications, "at least 1")
    if model.tape.size:
        replications, requests = 1, int(model.tape.size)
    jobs = [
        Job(policy, replication, seed, rate_scale)
        for policy in policies
        for replication in range(replications)
    ]
    device = chosen_device(device)
    done = run(model, jobs, requests, device=device, threads=threads, on_done=on_done)
    rate_per_s = model.rate_per_s * rate_scale
    samples = [done[k : k + replications] for k in range(0, len(done), replications)]
    return [
        summarise(policy, rate_per_s, requests, sample, device)
        for policy, sample in zip(policies, samples, strict=True)
    ]


def summarise(
    policy: ConfiguredPolicy,
    rate_per_s: float,
    requests: int,
    sample: Sequence[Replication],
    device: str,
) -> PolicyResult:
    """Figures of one policy from its replications."""
    outcome = verdict(sample)
    shares = np.array([one.completed_share for one in sample])
    completed = interval(shares)
    decoded = sum(one.tokens_decoded for one in sample)
    rates_per_s = [one.completed / one.window_s for one in sample]
    return PolicyResult(
        policy=policy.policy.name,
        params=policy.params,
        rate_per_s=rate_per_s,
        verdict=outcome.word,
        verdict_reason=outcome.reason,
        growth_per_arrival=_known(outcome.growth_per_arrival),
        growth_low=_known(outcome.low),
        growth_high=_known(outcome.high),
        more_requests=outcome.more_requests,
        replications=len(sample),
        requests=requests,
        completed_per_s=float(np.mean(rates_per_s)),
        completed_share=completed.mean,
        completed_share_half_width=_known(completed.half_width),
        collapsed_share=float(np.mean([one.collapsed for one in sample])),
        completed_shares=tuple(shares.tolist()),
        completed_each_per_s=tuple(rates_per_s),
        latency_means_s=tuple(float(one.mean_s[-1, LATENCY]) for one in sample),
        latency_s=_spread(sample, LATENCY),
        ttft_s=_spread(sample, TTFT),
        tpot_s=_spread(sample, TPOT),
        latency_note=_latency_note(sample, outcome.word),
        evictions_per_request=float(np.mean([one.evictions / one.arrived for one in sample])),
        wasted_token_share=sum(one.tokens_lost for one in sample) / decoded if decoded else 0.0,
        kv_mean_tokens=float(np.mean([one.kv_mean_tokens for one in sample])),
        kv_max_tokens=max(one.kv_max_tokens for one in sample),
        unfinished_requests=float(np.mean([one.unfinished for one in sample])),
        device=device,
    )


def latency_difference(one: PolicyResult, other: PolicyResult) -> Interval | None:
    """Mean latency of `one` less that of `other`, with the 95 % interval of the paired difference.

    Both saw the same arrivals in each replication, so that most of the randomness cancels.
    None where one of them is unstable.
    """
    if "unstable" in (one.verdict, other.verdict):
        return None
    return interval(np.array(one.latency_means_s) - np.array(other.latency_means_s))


def _latency_note(sample: Sequence[Replication], word: str) -> str:
    if word != "unstable":
        return ""
    completed = int(sum(one.count[-1, LATENCY] for one in sample))
    return f"of the {completed:,} that completed; the system was still filling"


def _spread(sample: Sequence[Replication], metric: int) -> Spread | None:
    """Pooled over classes; None where no request has the metric."""
    means = [one.mean_s[-1, metric] for one in sample if one.count[-1, metric] > 0]
    if not means:
        return None
    overall = interval(means)
    p50, p90, p99 = np.nanmean([one.quantile_s[-1, metric] for one in sample], axis=0)
    return Spread(overall.mean, _known(overall.half_width), float(p50), float(p90), float(p99))


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
