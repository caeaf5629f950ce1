"""What queries about service levels have in common: what is asked, a first guess, and an answer."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property

from fluid.errors import InputError
from fluid.server import Server, require_fits
from fluid.service_levels import Promise, require_possible, required_promises
from fluid.steady.latency.scheduler import rule_for
from fluid.workload import Workload
from validation.experiments.slo.attained import Attained, Criterion
from validation.experiments.slo.levels import Kept, Level, levels_of, together
from validation.simulator.runs import Runs
from validation.simulator.traffic.traffic import Traffic

FIRST_RUNS = Runs(20, 2_500)
"""Runs that a search starts with; they are lengthened as far as it takes."""

BUDGET_S = 60.0
"""Seconds after which no longer run is started, unless told."""

_GUESS, _NEAREST = 0.8, 0.98
"""Of the fluid limit: where a search starts without a law, and at most."""


@dataclass(frozen=True, eq=False)
class Answer:
    """All promises together at one rate."""

    found: Attained
    criteria: tuple[Criterion, ...]

    @cached_property
    def worst(self) -> float:
        return max(self.found.excess(one) for one in self.criteria)

    @cached_property
    def worst_criterion(self) -> Criterion:
        """What comes nearest to being missed."""
        return max(self.criteria, key=self.found.excess)

    @property
    def spread(self) -> float:
        return self.found.spread(self.worst_criterion)

    @cached_property
    def kept(self) -> Kept:
        return together(self.found.verdict(one) for one in self.criteria)

    def relaxed(self, promise: int, limit: str) -> float:
        """Largest excess with one limit relaxed."""
        return max(
            self.found.excess(one, limit if one.promise == promise else None)
            for one in self.criteria
        )

    @property
    def missed_first(self) -> tuple[int, str]:
        """Promise and limit that are missed most."""
        worst = self.worst_criterion
        if worst.limit is not None:
            return worst.promise, worst.limit
        limits = self.found.promises[worst.promise].slo.limits_s
        share = {name: self.found.share(worst.promise, name).mean for name in limits}
        return worst.promise, min(share, key=lambda name: share[name])


def checked_promises(
    load: Workload, server: Server, traffic: Traffic | None, budget_s: float
) -> tuple[Promise, ...]:
    """The promises of a load, once it is known that asking makes sense.

    Raises:
        InputError: No service levels, traffic that holds the backlog down, no time, or a mean of
            which there is nothing.
        InfeasibleError: A limit below what an empty server takes.
    """
    kept = required_promises(load)
    if traffic is not None and not traffic.may_grow:
        allowed = "nothing that bounds the backlog, which would hide what is not kept"
        raise InputError("traffic", traffic.label, allowed)
    if not 0 < budget_s < math.inf:
        raise InputError("budget_s", budget_s, "seconds > 0")
    for one in kept:
        outputs = {load.classes[index].decode_tokens for index in one.classes}
        if one.slo.quantile == "mean" and "tpot_s" in one.slo.limits_s and outputs == {1}:
            allowed = "none of the mean: outputs of one token have no time between tokens"
            raise InputError(f"slo of {one.name}: tpot_s", one.slo.tpot_s, allowed)
    require_fits(load, server)
    if traffic is None or traffic.outputs is None:
        require_possible(load, server)
    return kept


def first_guess(
    load: Workload, server: Server, scheduler: str, limit_per_s: float
) -> tuple[float, float | None]:
    """A rate to start from, and what the latency laws say, where they say something."""
    from fluid.steady.latency.promised import promised_rate  # its kernels are slow to import

    law = None
    with suppress(InputError):  # a scheduler that they do not describe
        law = promised_rate(load, server, rule_for(scheduler, server))
    if law is None:
        return _GUESS * limit_per_s, None
    return min(law.rate_per_s, _NEAREST * limit_per_s), law.rate_per_s if law.known else None


def named_levels(at: Attained, load: Workload) -> tuple[Level, ...]:
    """Each limit at a rate, under the names of the classes."""
    names = {str(index): one.name for index, one in enumerate(load.classes)}
    levels = levels_of(at.model, at.replications, at.grows)
    return tuple(replace(one, name=names.get(one.name, one.name)) for one in levels)
