"""A table as engines see it: its restraints, and sizes that follow from them, each found once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from fluid.cache.served import served
from fluid.errors import FluidwaitError
from fluid.overload.queue_for_limit import QueueForLimit, queue_for_limit
from fluid.stages import stage_sums
from fluid.steady.stability import largest_scale
from thresholds.fields import PolicyValidation, TableFields
from thresholds.limits import Limits
from thresholds.rules import rule_of
from thresholds.solvers.paced.boundary import boundary_load
from thresholds.solvers.rule import Rule

LEAST_TOKEN_BUDGET = 2048
"""Token budgets below this cost prefill throughput on every GPU that the engines support."""

_UNPACED_CAP = 0.9
"""Share of the fluid population: the best of the caps where lengths are alike, 98 % of the limit
under vLLM's rules (``python tests/benchmarks/practical_table.py``)."""

DEFAULT_MAX_WAIT_S = 5.0
"""Longest wait at a gate of literal Nested WAIT, which could otherwise starve a request."""


@dataclass(frozen=True)
class TableView:
    """A table, and its path where it has one.

    Attributes:
        flags_only: Whether the engine has its own flags alone, and no scheduler class of ours.
    """

    table: TableFields
    file: str | None = None
    flags_only: bool = False

    @cached_property
    def limits(self) -> Limits:
        """Pace, cap and watermark."""
        return self.table.limits

    @property
    def rule(self) -> Rule:
        """What the table's policy means."""
        return rule_of(self.table.policy)

    @property
    def has_watermark(self) -> bool:
        """Whether admissions leave a share of the memory free."""
        return self.limits.watermark_fraction > 0

    @property
    def max_wait_s(self) -> float:
        """After so long at a gate a request opens it; infinite without gates."""
        default = DEFAULT_MAX_WAIT_S if self.rule.gated else math.inf
        return float(self.table.params.get("max_wait_s", default))

    @cached_property
    def residents(self) -> int:
        """Requests that fill the server's memory at their mean KV, Σ λ m / Σ λ S tokens each."""
        server = self.table.server
        sums, rates = stage_sums(self.table.workload, server), self.table.workload.rates_per_s
        held = float(rates @ sums.memory_sum) / float(rates @ sums.count)
        return math.ceil(server.usable_kv_tokens / held)

    @property
    def seats(self) -> int:
        """Room for requests in service: the cap, or twice what fills the memory on average."""
        cap = self.limits.cap_requests
        return 2 * self.residents if cap is None else cap

    @cached_property
    def unpaced_cap(self) -> int:
        """The cap that comes closest to a pace where an engine can only cap."""
        load = boundary_load(self.table.workload, self.table.server)
        return max(1, math.floor(_UNPACED_CAP * load.population))

    @property
    def cap_without_pace(self) -> tuple[int, str]:
        """Requests in service at most for an engine that cannot pace, and why so many."""
        if self.limits.cap_requests is not None:
            return self.seats, "the table's cap"
        if self.rule.caps:
            every = int(sum(one.threshold for one in self.table.thresholds))
            return every, "the caps of all segments"
        if self.limits.pace_per_iteration is not None:
            why = f"stands in for the pace: {_UNPACED_CAP:g} of the fluid population"
            return self.unpaced_cap, why
        return self.seats, "must not bind: the table has no cap"

    @property
    def mean_prompt_tokens(self) -> float:
        """Rate-weighted mean of the prompts."""
        columns = self.table.workload.columns
        return float(np.average(columns.prefill_tokens, weights=columns.rates_per_s))

    @cached_property
    def computed_share(self) -> float:
        """Of the prompt tokens, what the table expects the engine to compute: 1 without prefixes.

        The rest is found in a cache of prefixes (THEORY 10).
        """
        load = self.table.workload
        if not load.has_prefixes:
            return 1.0
        computed = served(load, self.table.server).columns.prefill_tokens
        return float(load.rates_per_s @ computed / (load.rates_per_s @ load.columns.prefill_tokens))

    @property
    def token_budget(self) -> int:
        """Tokens per iteration, a power of two: a token for each seat, and one iteration's prompts.

        Those are the longest prompt, and as many mean prompts as the pace lets in.
        """
        longest = int(self.table.workload.longest_prompts_tokens.max())
        paced = (self.limits.pace_per_iteration or 0.0) * self.mean_prompt_tokens
        needed = self.seats + longest + paced
        return max(LEAST_TOKEN_BUDGET, 1 << math.ceil(math.log2(needed)))

    @cached_property
    def queue(self) -> QueueForLimit | None:
        """What may wait by the limit of TTFT; None without one, or where it is too short.

        Only of tables whose pace alone keeps requests waiting.
        """
        table = self.table
        if table.policy != "paced":
            return None
        saturated_per_s = min(table.valid_for.max_rate_per_s, self._edge_per_s)
        try:
            return queue_for_limit(table.workload, table.server, saturated_per_s=saturated_per_s)
        except FluidwaitError:
            return None

    @property
    def _edge_per_s(self) -> float:
        workload = self.table.workload
        return largest_scale(workload, self.table.server) * workload.rate_per_s

    def simulated(self, *policies: str) -> tuple[PolicyValidation, ...]:
        """Rows of the table's validation with these policies at its rate, the best first.

        Stable ones come before others, and of those the least mean latency.
        """
        validated = self.table.validated
        rows = () if validated is None else validated.side_by_side
        found = [one for one in rows if one.policy in policies]

        def rank(one: PolicyValidation) -> tuple[bool, float]:
            latency_s = math.inf if one.latency_s is None else one.latency_s.mean
            return one.verdict != "stable", latency_s

        return tuple(sorted(found, key=rank))

    @property
    def first_gate(self) -> int | None:
        """Requests that literal Nested WAIT waits for, n_1; None for tables that do not wait."""
        return int(self.table.thresholds[0].threshold) if self.rule.gated else None
