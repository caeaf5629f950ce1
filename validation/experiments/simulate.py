"""Policies on the same arrivals, at one rate: figures with intervals and a verdict each."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np

from fluid.result import number, percent, seconds
from fluid.traces.tape import Tape
from fluid.workload import Workload
from validation.experiments.slo.levels import Level, levels_of
from validation.policies import ConfiguredPolicy, PolicyLike, configured, policy_label
from validation.simulator.cpu import Job
from validation.simulator.metrics import (
    Floats,
    Interval,
    Replication,
    Verdict,
    interval,
    verdict,
)
from validation.simulator.model import Model
from validation.simulator.recording import LATENCY, TPOT, TTFT
from validation.simulator.run import chosen_device, run
from validation.simulator.runs import Runs
from validation.simulator.traffic.traffic import Traffic


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


SPREAD = "Spread | None"
"""The type of fields that hold one, as it is written."""


@dataclass(frozen=True)
class PolicyResult:
    """What one policy did at one rate. Seconds; None where the figure does not exist.

    Attributes:
        traffic: What clients do, in words; empty where requests come and wait.
        rate_per_s: Of all arrivals together; None where they come at no rate.
        verdict: "stable", "unstable" or "undecided": whether the backlog grows. Where it cannot,
            what kind of traffic it is: `Traffic.word`.
        verdict_reason: Why, in one sentence.
        growth_per_arrival, growth_low, growth_high: See `backlog.Verdict`.
        more_requests: Arrivals after which an open verdict should be decided.
        carried_share: Of the arrivals, what is completed in the long run: 1 where stable; where
            unstable, completions ÷ arrivals in the second half of the runs; None where undecided.
            Where the backlog cannot grow, what was not refused and did not give up.
        makespan_s: Of a finite job, from the first arrival to the last end.
        refused_share, too_long_share, gave_up_share: Of the arrivals in the window, those that
            found the queue full, that never fit into memory, and whose client gave up.
        saturated_per_s: Where unstable, completions per second in that half: throughput at
            saturation.
        lost_work_share: Of the work in that half, what evictions threw away.
        collapsed_share: Share of replications that lose throughput to their backlog: it grows, and
            5 % or more of the work is thrown away.
        completed_share, completed_share_half_width: Completed ÷ arrived in the window. In short
            runs this may differ from 1 although nobody is lost.
        completed_shares: The completed share of each replication.
        completed_each_per_s: Completions per second of each replication.
        latency_means_s: Mean latency of each replication.
        latency_s, ttft_s, tpot_s: Of the requests that completed; None where none did, TPOT also
            where none has two output tokens.
        token_gap_s: Time between output tokens of a request, stalls included, which TPOT averages
            out; None where none has two.
        token_gap_max_s: The longest of them.
        latency_note: Whose they are where not everybody's; empty elsewhere.
        met_limits_share: Of the requests of classes with limits that have ended, those that
            completed within all of them; None without such a class.
        levels: Each limit of each promise beside what was measured; empty without service levels.
        wasted_token_share: Decoded tokens lost to evictions ÷ all decoded.
        recomputed_token_share: Tokens that evictions threw away, so that they are computed again,
            prompts included ÷ all computed.
        given_up_token_share: Tokens computed for requests that gave up ÷ all computed.
        prefix_hit_share: Of the tokens of requests at their first admission, those found in the
            cache of prefixes; None without one, as the next two.
        prefix_saved_tokens: Tokens found at all admissions, per arrival.
        prefix_evicted_tokens_per_s: In blocks handed out again that could have been found.
        unfinished_requests: Requests of the window that never completed, mean per replication.
        device: "cpu" or "cuda", on which it ran; their times agree to about 1e-12.
    """

    policy: str
    params: dict[str, Any]
    traffic: str
    rate_per_s: float | None
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
    carried_share: float | None
    saturated_per_s: float | None
    lost_work_share: float
    collapsed_share: float
    makespan_s: float | None
    refused_share: float
    too_long_share: float
    gave_up_share: float
    completed_shares: tuple[float, ...]
    completed_each_per_s: tuple[float, ...]
    latency_means_s: tuple[float, ...]
    latency_s: Spread | None
    ttft_s: Spread | None
    tpot_s: Spread | None
    token_gap_s: Spread | None
    token_gap_max_s: float
    latency_note: str
    met_limits_share: float | None
    levels: tuple[Level, ...]
    evictions_per_request: float
    wasted_token_share: float
    recomputed_token_share: float
    given_up_token_share: float
    prefix_hit_share: float | None
    prefix_saved_tokens: float | None
    prefix_evicted_tokens_per_s: float | None
    kv_mean_tokens: float
    kv_max_tokens: int
    unfinished_requests: float
    device: str

    @property
    def label(self) -> str:
        """Policy with its parameters, e.g. ``greedy:watermark=0.01``."""
        return policy_label(self.policy, self.params)

    def caveats(self, place: str) -> Iterator[str]:
        """What else to know of the verdict and the latencies, in sentences about `place`."""
        if self.verdict == "undecided":
            more = f"; about {self.more_requests:,} more requests" if self.more_requests else ""
            yield f"{place}: undecided, {self.verdict_reason}{more}."
        for lost, what in (
            (self.refused_share, "found the queue full and were refused"),
            (self.too_long_share, "never fit into memory and were refused"),
            (self.gave_up_share, "gave up before their first token"),
        ):
            if lost > 0:
                yield f"{place}: {percent(lost)} {what}."
        if self.given_up_token_share > 0:
            share = percent(self.given_up_token_share)
            yield f"{place}: {share} of the tokens were computed for requests that gave up."
        if self.prefix_hit_share is not None:
            yield (
                f"{place}: {percent(self.prefix_hit_share)} of the prompt tokens were found in the "
                f"cache, {number(self.prefix_saved_tokens)} tokens per request; "
                f"{number(self.prefix_evicted_tokens_per_s)} cached tokens /s gave way to others."
            )
        if self.met_limits_share is not None:
            share = percent(self.met_limits_share)
            yield f"{place}: {share} of the requests with limits met all of theirs."
        if self.makespan_s is not None:
            yield f"{place}: the job takes {seconds(self.makespan_s)}."
        if self.collapsed_share > 0 and self.saturated_per_s is not None:
            yield (
                f"{place}: throughput collapses in {percent(self.collapsed_share, 0)} of the runs; "
                f"{number(self.saturated_per_s)} /s are completed, and "
                f"{percent(self.lost_work_share, 0)} of the work is thrown away by evictions."
            )
        if self.unfinished_requests > 0 and self.verdict != "unstable":
            yield (
                f"{place}: latencies leave out {number(self.unfinished_requests)} requests per run "
                "that the rule still held when the arrivals ended."
            )
        if self.latency_note:
            yield f"{place}: latencies {self.latency_note}."

    def with_levels_of(self, load: Workload | Tape) -> PolicyResult:
        """The same with service levels under the names of the classes of its load."""
        if not self.levels or isinstance(load, Tape):
            return self
        names = {str(index): one.name for index, one in enumerate(load.classes)}
        named = (replace(one, name=names.get(one.name, one.name)) for one in self.levels)
        return replace(self, levels=tuple(named))

    @property
    def traffic_sentence(self) -> str:
        """Why there is no verdict; empty where there is one."""
        if self.verdict in ("stable", "unstable", "undecided"):
            return ""
        return f"No verdict: {self.verdict_reason}."

    @property
    def carried(self) -> str:
        """`carried_share` in a table: "all" where stable, "–" where undecided."""
        if self.carried_share is None:
            return "–"
        return "all" if self.verdict == "stable" else percent(self.carried_share)

    def as_dict(self) -> dict[str, Any]:
        """Plain data with the field names as keys, ready for JSON."""
        return asdict(self)

    def flat(self) -> dict[str, Any]:
        """Label and fields in a row, the figures of a spread as columns like ``latency_p50_s``."""
        row: dict[str, Any] = {"label": self.label}
        for one in fields(self):
            value = getattr(self, one.name)
            if one.type == SPREAD:
                for figure, column in spread_columns(one.name).items():
                    row[column] = None if value is None else getattr(value, figure)
            else:
                row[one.name] = value
        return row


def spread_columns(name: str) -> dict[str, str]:
    """Column of each figure: ``{"p50": "latency_p50_s", …}`` for ``latency_s``."""
    return {one.name: f"{name.removesuffix('_s')}_{one.name}_s" for one in fields(Spread)}


def frame_of(results: Iterable[PolicyResult]) -> dict[str, list[Any]]:
    """Figures by name, one entry per result; without what is a list for each replication."""
    rows = [one.flat() for one in results]
    names = [name for name, value in (rows[0] if rows else {}).items() if _is_figure(value)]
    return {name: [row[name] for row in rows] for name in names}


def _is_figure(value: Any) -> bool:
    return not isinstance(value, dict | tuple)


@dataclass(frozen=True)
class Sample:
    """The replications of one policy at one rate.

    Attributes:
        rate_per_s: Of all arrivals together; NaN where they come at no rate.
        rate_scale: The rate in multiples of the model's own, as the simulator's jobs have it.
    """

    policy: ConfiguredPolicy
    rate_per_s: float
    rate_scale: float
    requests: int
    device: str
    replications: tuple[Replication, ...]
    traffic: Traffic
    model: Model

    def result(self) -> PolicyResult:
        """Figures of the policy from its replications."""
        outcome = self._outcome()
        shares = np.array([one.completed_share for one in self.replications])
        completed = interval(shares)
        decoded = sum(one.tokens_decoded for one in self.replications)
        lost = sum(one.tokens_lost for one in self.replications)
        rates_per_s = [one.completed / one.window_s for one in self.replications]
        evictions = [one.evictions / one.arrived for one in self.replications]
        means_s = [float(one.mean_s[-1, LATENCY]) for one in self.replications]
        carried_share, saturated_per_s = _carried(self.replications, outcome.word)
        growing = self.traffic.may_grow
        computed = sum(one.tokens_computed for one in self.replications)
        recomputed = sum(one.tokens_recomputed for one in self.replications)
        given_up = sum(one.tokens_given_up for one in self.replications)
        limited = sum(float(one.limited[-1]) for one in self.replications)
        met = sum(float(one.met_limits[-1]) for one in self.replications)
        return PolicyResult(
            policy=self.policy.policy.name,
            params=self.policy.params,
            traffic=self.traffic.label,
            rate_per_s=_known(self.rate_per_s),
            verdict=outcome.word,
            verdict_reason=outcome.reason,
            growth_per_arrival=_known(outcome.growth_per_arrival),
            growth_low=_known(outcome.low),
            growth_high=_known(outcome.high),
            more_requests=outcome.more_requests,
            replications=len(self.replications),
            requests=self.requests,
            completed_per_s=float(np.mean(rates_per_s)),
            completed_share=completed.mean,
            completed_share_half_width=_known(completed.half_width),
            carried_share=carried_share,
            saturated_per_s=saturated_per_s,
            lost_work_share=float(np.mean([one.late.lost_share() for one in self.replications])),
            collapsed_share=(
                float(np.mean([one.collapsed for one in self.replications])) if growing else 0.0
            ),
            makespan_s=(
                None
                if self.traffic.job is None
                else float(np.mean([one.window_s for one in self.replications]))
            ),
            refused_share=self._share("refused"),
            too_long_share=self._share("too_long"),
            gave_up_share=self._share("gave_up"),
            completed_shares=tuple(shares.tolist()),
            completed_each_per_s=tuple(rates_per_s),
            latency_means_s=tuple(means_s),
            latency_s=_spread(self.replications, LATENCY),
            ttft_s=_spread(self.replications, TTFT),
            tpot_s=_spread(self.replications, TPOT),
            token_gap_s=_gaps(self.replications),
            token_gap_max_s=max(one.gap_max_s for one in self.replications),
            latency_note=_latency_note(self.replications, outcome.word),
            met_limits_share=met / limited if limited else None,
            levels=levels_of(self.model, self.replications, outcome.word == "unstable"),
            evictions_per_request=float(np.mean(evictions)),
            wasted_token_share=lost / decoded if decoded else 0.0,
            recomputed_token_share=recomputed / computed if computed else 0.0,
            given_up_token_share=given_up / computed if computed else 0.0,
            **self._prefixes(),
            kv_mean_tokens=float(np.mean([one.kv_mean_tokens for one in self.replications])),
            kv_max_tokens=max(one.kv_max_tokens for one in self.replications),
            unfinished_requests=float(np.mean([one.unfinished for one in self.replications])),
            device=self.device,
        )

    def _outcome(self) -> Verdict:
        """The verdict; where the backlog cannot grow, a word for what it is instead."""
        if self.traffic.may_grow or any(one.stuck for one in self.replications):
            return verdict(self.replications)
        word, reason, nan = self.traffic.word, self.traffic.reason, math.nan
        return Verdict(word, nan, nan, nan, nan, reason, None, 0, ())

    def _prefixes(self) -> dict[str, float | None]:
        """The fields about a cache of prefixes."""
        names = ("prefix_hit_share", "prefix_saved_tokens", "prefix_evicted_tokens_per_s")
        uses = [one.prefixes for one in self.replications if one.prefixes is not None]
        if not uses:
            return dict.fromkeys(names)
        queried = sum(one.queried_tokens for one in uses)
        found = (
            sum(one.hit_tokens for one in uses) / queried if queried else 0.0,
            sum(one.saved_tokens for one in uses) / sum(one.arrived for one in self.replications),
            int(self.model.constants[0]["block_tokens"])
            * sum(one.evicted_blocks for one in uses)
            / sum(one.window_s for one in self.replications),
        )
        return dict(zip(names, found, strict=True))

    def _share(self, name: str) -> float:
        """Requests that ended in this way ÷ arrivals, in the windows."""
        return float(np.mean([getattr(one, name) / one.arrived for one in self.replications]))


def simulate(
    model: Model,
    policies: PolicyLike | Iterable[PolicyLike],
    runs: Runs,
    rate_per_s: float | None = None,
    *,
    threads: int | None = None,
    on_done: Callable[[], None] | None = None,
) -> list[PolicyResult]:
    """Run every policy on the same replications.

    A recorded tape is one sample path and runs once, whatever `runs` says.

    Args:
        rate_per_s: Of all arrivals together; the model's own where None.
        threads: Of the CPU; all of its cores if None. Results do not depend on it.
        on_done: Called after each replication.

    Raises:
        InputError: No policy, one that cannot run this model, a rate that is none, or a device
            that is not there.
    """
    done = samples(model, policies, runs, rate_per_s, threads=threads, on_done=on_done)
    return [one.result() for one in done]


def samples(
    model: Model,
    policies: PolicyLike | Iterable[PolicyLike],
    runs: Runs,
    rate_per_s: float | None = None,
    *,
    threads: int | None = None,
    on_done: Callable[[], None] | None = None,
) -> list[Sample]:
    """As `simulate`, but with every replication."""
    chosen = configured(policies)
    scale = model.rate_scale(rate_per_s)
    count, requests = runs.replications, runs.requests
    if model.tape.size:
        count, requests = 1, int(model.tape.size)
    jobs = [
        Job(policy, replication, runs.seed, scale)
        for policy in chosen
        for replication in range(count)
    ]
    device = chosen_device(runs.device)
    done = run(model, jobs, requests, device=device, threads=threads, on_done=on_done)
    offered_per_s = model.rate_per_s if rate_per_s is None else rate_per_s
    return [
        Sample(
            policy,
            offered_per_s,
            scale,
            requests,
            device,
            tuple(done[k : k + count]),
            model.traffic,
            model,
        )
        for policy, k in zip(chosen, range(0, len(done), count), strict=True)
    ]


def latency_difference(one: PolicyResult, other: PolicyResult) -> Interval | None:
    """Mean latency of `one` less that of `other`, with the 95 % interval of the paired difference.

    Both saw the same arrivals in each replication, so that most of the randomness cancels.
    None where one of them is unstable.
    """
    if "unstable" in (one.verdict, other.verdict):
        return None
    return interval(np.array(one.latency_means_s) - np.array(other.latency_means_s))


def _carried(sample: Sequence[Replication], word: str) -> tuple[float | None, float | None]:
    """Share of the arrivals, and completions per second where unstable."""
    if word not in ("stable", "unstable", "undecided"):
        lost = [(one.refused + one.too_long + one.gave_up) / one.arrived for one in sample]
        return 1.0 - float(np.mean(lost)), None
    if word != "unstable":
        return (1.0 if word == "stable" else None), None
    late = [one.late for one in sample if len(one.late.columns) > 1]
    seconds = sum(one.duration_s for one in late)
    if seconds == 0:
        return 0.0, 0.0
    done = sum(float(one.completed[-1] - one.completed[0]) for one in late)
    arrived = sum(float(one.arrived[-1] - one.arrived[0]) for one in late)
    return min(done / arrived, 1.0), done / seconds


def _latency_note(sample: Sequence[Replication], word: str) -> str:
    completed = int(sum(one.count[-1, LATENCY] for one in sample))
    if word == "unstable":
        return f"of the {completed:,} that completed; the system was still filling"
    if word == "finite job":
        return f"of all {completed:,} that completed, the job's beginning and end included"
    if any(one.refused + one.too_long + one.gave_up for one in sample):
        return f"of the {completed:,} that completed, not of who was refused or gave up"
    return ""


def _spread(sample: Sequence[Replication], metric: int) -> Spread | None:
    """Pooled over classes; None where no request has the metric."""
    some = [one for one in sample if one.count[-1, metric] > 0]
    return _over(
        [float(one.mean_s[-1, metric]) for one in some],
        [one.quantile_s[-1, metric] for one in some],
    )


def _gaps(sample: Sequence[Replication]) -> Spread | None:
    """Between output tokens; None where no request has two."""
    some = [one for one in sample if one.gap_count > 0]
    return _over([one.gap_mean_s for one in some], [one.gap_quantile_s for one in some])


def _over(means: Sequence[float], quantiles: Sequence[Floats]) -> Spread | None:
    """Over the replications that have the figure; None without any."""
    if not means:
        return None
    overall = interval(means)
    p50, p90, p99 = np.mean(quantiles, axis=0)
    return Spread(overall.mean, _known(overall.half_width), float(p50), float(p90), float(p99))


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
