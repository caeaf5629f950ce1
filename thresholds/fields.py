"""The fields of a threshold table, part by part, as they stand in its JSON document.

What a table can do (read, write, print, draw) is `thresholds.table.ThresholdTable`; whoever only
reads its fields, as the exports do, needs no more than this.
"""

from __future__ import annotations

import math
from datetime import date
from importlib.metadata import version
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from fluid.files import FileModel
from fluid.server import Server
from fluid.workload import Name, Printable, Workload
from thresholds.labels import policy_label
from thresholds.limits import MOST_REQUESTS, Limits

SCHEMA_VERSION = "1.5"
MAJOR_VERSION = SCHEMA_VERSION.split(".")[0]

Number = int | float
NonNegative = Annotated[float, Field(ge=0)]
Scheduler = Literal["greedy", "vllm-v1"]
"""Rules of batching and eviction under a practical table: the theory's own, or vLLM's."""

_SAME_RATE = 1e-9
"""Relative distance of two rates that are one."""

Share = Annotated[float, Field(ge=0, le=1)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


InFilesOnly = Annotated[Sha256 | None, AfterValidator(lambda given: None)]
"""The hash of a whole document: checked when it is read (`thresholds.integrity`), written anew."""


class Threshold(FileModel):
    """Threshold of one class, or of one segment of Nested WAIT.

    Attributes:
        threshold: Whole requests: n_j for "wait", n_k for "nested-wait", the cap Δ_k n_k on a whole
            segment for "nested-cap"; for "paced" the class's boundary inventory n^C_j (their sum
            is the pace, if any).
        up_to_tokens: Output length l'_k at which the segment ends (THEORY 4.1); None for a class.
    """

    name: Name
    threshold: Annotated[Number, Field(gt=0, le=MOST_REQUESTS)]
    up_to_tokens: Annotated[int, Field(ge=1)] | None = None


class QueueLaw(FileModel):
    """KV by the law of the boundary queues: a certificate beside that of Theorem 2 (THEORY 4.5).

    Attributes:
        tokens: Least KV for which an overflow within the horizon is at most as probable as Theorem
            2 promises for its own.
        overflow_probability: Bound on that of any overflow in the server's KV.
        is_exact: Whether both are the policy's own, the ends of the horizon apart; else bounds,
            some times the truth in probability and a few per cent in tokens (THEORY 4.5).
    """

    tokens: NonNegative
    overflow_probability: Share
    is_exact: bool


class Memory(FileModel):
    """KV memory behind a table, in tokens.

    Attributes:
        required_tokens: KV that the thresholds can fill, M(n) of THEORY 3.2.
        buffer_tokens: Kept free on top of it, or by the watermark.
        capacity_tokens: What the server has.
        overflow_probability: Bound on the probability of an overflow, where one is known.
        stochastic_buffer_tokens: Of the buffer, what boundary queues take that grow beyond their
            thresholds by chance; the rest holds full ones (THEORY 4.5, nested-wait only).
        horizon_s: Seconds within which `overflow_probability` bounds any overflow (nested-wait).
        queue_law: The same by the law of the queues (nested-wait); None where there are none or it
            is not known, and in tables before schema 1.4.
    """

    required_tokens: NonNegative
    buffer_tokens: NonNegative
    capacity_tokens: NonNegative
    overflow_probability: Share | None
    stochastic_buffer_tokens: NonNegative | None = None
    horizon_s: Annotated[float, Field(gt=0)] | None = None
    queue_law: QueueLaw | None = None


class PredictedTimes(FileModel):
    """Mean and quantiles over all requests, seconds."""

    mean: float
    p50: float
    p90: float
    p99: float


class PredictedLatency(FileModel):
    """What the latency laws say (THEORY 9), for a scheduler that admits whoever fits.

    Attributes:
        scheduler: Which, as the policy that simulates it: ``greedy:watermark=0.01``.
        follows_table: Whether that is all that the table sets; else its pace or thresholds are left
            out, and only a simulation shows what they cost.
        kv_mean_tokens, kv_sd_tokens: Of the KV held, over iterations.
        overflow_probability: Share of iterations in which memory is full.
        budget_share: ρ_c, share of the token budget that the load needs, where there is one.
        accuracy: How far off the figures may be, in a sentence.
        caveats: Conditions of the laws that do not hold, in sentences.
        refusal: Why there are no figures, which are None then.
    """

    scheduler: Printable
    follows_table: bool
    ttft_s: PredictedTimes | None = None
    tpot_s: PredictedTimes | None = None
    latency_s: PredictedTimes | None = None
    kv_mean_tokens: NonNegative | None = None
    kv_sd_tokens: NonNegative | None = None
    overflow_probability: Share | None = None
    budget_share: NonNegative | None = None
    accuracy: str | None = None
    caveats: tuple[str, ...] = ()
    refusal: str | None = None


class Predicted(FileModel):
    """Balance at the table's own rates (THEORY 2), and how long requests take.

    Attributes:
        latency_s: Mean latency of work-conserving service; ttft_s and tpot_s alike: those of `law`,
            of first order (THEORY 2.6) where there is none. None where there is no such figure.
        policy_latency_s: Mean latency under the table's own policy, where a formula exists; None
            where only simulation tells. policy_ttft_s alike.
        law: What the latency laws say; None in tables before schema 1.4.
    """

    utilisation: float
    max_scale: float
    binding: Literal["compute", "memory", "max_num_batched_tokens", "max_num_seqs"]
    iteration_time_s: float | None
    kv_tokens: float | None
    latency_s: float | None
    ttft_s: float | None
    tpot_s: float | None
    throughput_tokens_per_s: float | None
    policy_latency_s: float | None
    policy_ttft_s: float | None = None
    law: PredictedLatency | None = None


class Loss(FileModel):
    """Shares of the fluid limit that admission loses once memory has filled (THEORY 11), predicted.

    Attributes:
        unrestrained_share: Greedy admission as it is.
        watermark_share: With a watermark of `watermark_fraction` alone.
        table_share: With the table's limits; None where it sets other things.
    """

    unrestrained_share: Share
    watermark_share: Share
    watermark_fraction: Share
    table_share: Share | None


class Interval(FileModel):
    """Mean over replications and half width of its 95 % confidence interval."""

    mean: float
    half_width: NonNegative


class PolicyValidation(FileModel):
    """What one policy did in simulation.

    Attributes:
        params: As the policy was given them; integers for thresholds and cuts.
        verdict: Whether the backlog of requests stays bounded, from its path.
        latency_s: None where it does not exist because the policy is unstable.
        completed_share: Completed ÷ arrived in the measured window; see `carried`.
        collapsed_share: Share of replications whose backlog grew while evictions threw away 5 % of
            the work or more.
        latency_difference_s: Mean latency of the table's own policy less that of this one, paired
            over replications, which saw the same arrivals. None for the table's own policy, where
            one of the two has no mean latency, and in tables before schema 1.3.
        ttft_s, tpot_s: As latency_s; None also where no request has two output tokens, and in
            tables before schema 1.4.
        latency_p99_s: 99 % of the requests took at most so long; ttft_p99_s, tpot_p99_s alike.
    """

    policy: str
    params: dict[str, Number | str | tuple[int, ...]]
    rate_per_s: NonNegative
    verdict: Literal["stable", "unstable", "undecided"]
    latency_s: Interval | None
    completed_share: Interval
    evictions_per_request: NonNegative
    collapsed_share: Share
    latency_difference_s: Interval | None = None
    ttft_s: Interval | None = None
    tpot_s: Interval | None = None
    latency_p99_s: NonNegative | None = None
    ttft_p99_s: NonNegative | None = None
    tpot_p99_s: NonNegative | None = None

    @property
    def label(self) -> str:
        """Policy with its parameters, e.g. ``greedy:watermark=0.01``."""
        return policy_label(self.policy, self.params)

    @property
    def carried(self) -> Interval | None:
        """Share of the arrivals that is completed in the long run; None where undecided.

        A stable policy completes all of them, whatever a window of a short run shows.
        """
        if self.verdict == "stable":
            return Interval(mean=1.0, half_width=0.0)
        return self.completed_share if self.verdict == "unstable" else None


class Validated(FileModel):
    """A simulation of the table beside other policies, on the same arrivals.

    Attributes:
        policies: The table's own policy first.
        arrivals: How requests came: a process such as "poisson" or "gamma:cv=2", or "tape" for
            recorded arrivals.
    """

    replications: Annotated[int, Field(ge=1)]
    requests: Annotated[int, Field(ge=1)]
    seed: int
    policies: Annotated[tuple[PolicyValidation, ...], Field(min_length=1)]
    arrivals: Printable = "poisson"

    @property
    def side_by_side(self) -> tuple[PolicyValidation, ...]:
        """The table's own policy and those simulated at the same rate."""
        rate_per_s = self.policies[0].rate_per_s
        return tuple(
            one
            for one in self.policies
            if math.isclose(one.rate_per_s, rate_per_s, rel_tol=_SAME_RATE)
        )


class ValidFor(FileModel):
    """Total rates of the same mix at which the drift and memory conditions hold.

    Attributes:
        max_rate_per_s: Supremum; for strict conditions the rate itself is not included.
        until: Date (ISO) after which the table must be solved again, if there is one.
    """

    min_rate_per_s: NonNegative
    max_rate_per_s: NonNegative
    until: str | None

    @model_validator(mode="after")
    def _is_some_time(self) -> Self:
        if self.min_rate_per_s > self.max_rate_per_s:
            raise ValueError("min_rate_per_s must not be above max_rate_per_s")
        if self.until is not None:
            try:
                date.fromisoformat(self.until)
            except ValueError:
                raise ValueError("until must be a date, as 2031-12-24") from None
        return self


class Condition(FileModel):
    """One condition of the certificate; `slack` is relative to the condition's right side."""

    condition: Printable
    slack: float
    holds: bool


class SolverReport(FileModel):
    """How the thresholds were found.

    Attributes:
        objective: Value of the objective; None for a closed form.
        optimality_gap: |objective − bound|/bound, where no table of this policy is better than the
            bound; None where no bound is known.
        objective_name: What was minimised or maximised, with its unit.
    """

    name: Name
    status: str
    objective: float | None
    optimality_gap: float | None
    objective_name: Name = "latency_s"


class Price(FileModel):
    """What one more unit of a limit would be worth to the objective.

    Attributes:
        of: The limit, for example "kv_capacity_tokens" or "rate_per_s of code".
        value: Change of the objective per unit of the limit, in `unit`.
        words: The same as a sentence, in units that a reader thinks in.
    """

    of: Printable
    value: float
    unit: Printable
    words: Printable


class EngineFlags(FileModel):
    """Flags that express the table in a serving system; empty where it cannot be expressed."""

    vllm: dict[str, Number | str]
    sglang: dict[str, Number | str]
    trtllm: dict[str, Number | str]


class TableFields(FileModel):
    """Everything that a threshold table holds.

    Attributes:
        workload_sha256: SHA-256 of the workload's sorted-key JSON; server_sha256 alike.
        params: Parameters of the policy by name.
        thresholds: One entry per class, in the order of the workload.
        validated: A simulation of the table, once there is one.
        certificate: Conditions checked on the server's own iteration time.
        prices: Dual prices of the limits that bind, where the solver knows them.
        scheduler: What the table's limits are added to, in its refinement and in a replay.
        notes: What a reader of the table must know.
        loss: What the table is worth, where that was asked about and memory can bind.
        table_sha256: In files, from schema 1.5 on: SHA-256 of the sorted-key JSON of all the rest.
    """

    schema_version: Annotated[str, Field(pattern=rf"^{MAJOR_VERSION}\.\d+$")]
    created_by: str
    workload: Workload
    server: Server
    workload_sha256: Sha256
    server_sha256: Sha256
    policy: Name
    params: dict[str, Number]
    thresholds: Annotated[tuple[Threshold, ...], Field(min_length=1)]
    memory: Memory
    predicted: Predicted
    validated: Validated | None
    valid_for: ValidFor
    certificate: Annotated[tuple[Condition, ...], Field(min_length=1)]
    solver: SolverReport
    engine_flags: EngineFlags
    notes: tuple[str, ...]
    prices: tuple[Price, ...] = ()
    scheduler: Scheduler = "greedy"
    loss: Loss | None = None
    table_sha256: InFilesOnly = None

    @property
    def limits(self) -> Limits:
        """The restraints among its parameters.

        Raises:
            InputError: One is out of range.
        """
        return Limits.of_params(self.params)

    @property
    def settings(self) -> dict[str, Number]:
        """What is set, by name: its parameters, or its thresholds where it has none."""
        return self.params or {one.name: one.threshold for one in self.thresholds}


def created_by() -> str:
    """Name and version of this distribution, as written into tables."""
    return f"fluidwait {version('fluidwait')}"
