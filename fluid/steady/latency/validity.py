"""How far an answer may be believed, as figures and as sentences (THEORY 9.6)."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from fluid.gamma import Gamma
from fluid.steady.latency.rule import BatchRule
from fluid.steady.latency.solved import Solved

Scope = Literal["all", "means", "nothing"]

NEARLY_FULL = 0.99
"""Memory counts as full from this share on."""

SAFE, RARE, REFUSED = 1e-4, 1e-3, 1e-2
"""Overflow per iteration up to which quantiles, then means, are good, and from which on a figure
would be meaningless."""

_SEATS_RARE, _SEATS_REFUSED = 1e-3, 0.05
_NEAR_BUDGET, _NEAR_LIMIT = 0.95, 0.95
_MOSTLY_FULL = 0.4


@dataclass(frozen=True)
class Validity:
    """Conditions of THEORY 9.6.

    Attributes:
        overflow_probability: P(KV > 99 % of the memory that admissions may use), per iteration.
        utilisation: ρ, seconds of work per second, with the slopes of f where the server works.
        budget_share: ρ_c, share of the token budget that the load needs; None without a budget.
        budget_full_share: Share of time in iterations that use up the token budget; 0 without one.
        relative_spread: Standard deviation over mean of the iteration time.
        seats_probability: P(more requests in service than seats), seats unlimited.
        converged: Whether mean and slopes stood still.
    """

    overflow_probability: float
    utilisation: float
    budget_share: float | None
    budget_full_share: float
    relative_spread: float
    seats_probability: float
    converged: bool

    @property
    def scope(self) -> Scope:
        """What of the answer holds: everything, means only, or nothing."""
        if self.overflow_probability > RARE or not self.converged:
            return "nothing"
        if self.seats_probability > _SEATS_RARE or (self.budget_share or 0.0) > _NEAR_BUDGET:
            return "nothing"
        if self.overflow_probability > SAFE or self.budget_full_share > _MOSTLY_FULL:
            return "means"
        return "all"

    @property
    def expected_error(self) -> float | None:
        """Relative error of mean latency to reckon with; None where nothing holds."""
        if self.scope == "nothing":
            return None
        near = max(self.utilisation, self.budget_share or 0.0) > 0.85
        unsure = self.relative_spread >= 1 or self.budget_full_share > _MOSTLY_FULL
        return (0.10 if near else 0.05) * (2.0 if unsure else 1.0)

    def refusal(self) -> str | None:
        """Why figures would be meaningless, if they would."""
        if self.overflow_probability > REFUSED:
            return (
                f"memory is full in {self.overflow_probability:.2g} of iterations, more than "
                f"{REFUSED:g}: requests wait for memory or are evicted"
            )
        if self.seats_probability > _SEATS_REFUSED:
            return (
                f"more requests than seats in {self.seats_probability:.2g} of iterations, more "
                f"than {_SEATS_REFUSED:g}: requests wait for seats"
            )
        return None

    def sentences(self) -> tuple[str, ...]:
        """Each condition that fails, with its number and what it does."""
        return tuple(_sentences(self))

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self) | {"scope": self.scope, "expected_error": self.expected_error}


def _sentences(found: Validity) -> list[str]:
    said = []
    if found.overflow_probability > SAFE:
        worth = "quantiles" if found.overflow_probability <= RARE else "all latencies"
        said.append(
            f"memory is full in {found.overflow_probability:.1e} of iterations (more than "
            f"{SAFE:.0e}): {worth} are too low, as waiting for memory is left out"
        )
    if found.seats_probability > _SEATS_RARE:
        said.append(
            f"more requests than seats in {found.seats_probability:.1e} of iterations: "
            "waiting for a seat is left out"
        )
    if found.budget_share is not None and found.budget_share > _NEAR_BUDGET:
        said.append(
            f"the load needs {found.budget_share:.3f} of the token budget (more than "
            f"{_NEAR_BUDGET:g}): the queue for it is known to a factor only"
        )
    if found.budget_full_share > _MOSTLY_FULL:
        said.append(
            f"the token budget is used up for {found.budget_full_share:.2f} of the time (more than "
            f"{_MOSTLY_FULL:g}): mean TTFT may be 10 percent off, its p99 by half"
        )
    if found.utilisation > _NEAR_LIMIT:
        said.append(
            f"utilisation {found.utilisation:.3f} is above {_NEAR_LIMIT:g}: one percent more or "
            f"less of f changes latencies by {1 / (1 - min(found.utilisation, 0.999)):.0f} percent"
        )
    if found.relative_spread >= 1:
        said.append(
            f"iteration times vary by {found.relative_spread:.2f} of their mean (1 or more): "
            "errors are twice the usual"
        )
    if not found.converged:
        said.append("the mean iteration time did not converge")
    return said


def kv_law(solved: Solved) -> Gamma:
    """Gamma law of the KV held in an iteration."""
    return Gamma(solved.kv_mean_tokens, max(solved.slow.kv_held_sd_tokens, 1e-9))


def usable_tokens(solved: Solved, rule: BatchRule) -> float:
    """Memory above which admissions or residents find too little."""
    capacity = solved.load.server.usable_kv_tokens
    return capacity * min(NEARLY_FULL, 1 - rule.watermark_fraction)


def validity(solved: Solved, rule: BatchRule) -> Validity:
    """The conditions of one answer."""
    mean_s, sd_s = solved.working_iteration_s
    return Validity(
        overflow_probability=kv_law(solved).sf(usable_tokens(solved, rule)),
        utilisation=solved.slow.work,
        budget_share=solved.budget_share,
        budget_full_share=solved.saturated_share,
        relative_spread=sd_s / mean_s,
        seats_probability=_seats_probability(solved, rule),
        converged=solved.converged,
    )


def _seats_probability(solved: Solved, rule: BatchRule) -> float:
    """P(N > seats) with the decoders' variance, in a gamma law."""
    if math.isinf(rule.seats):
        return 0.0
    load = solved.load
    mean = solved.mean_s * (load.decodes_per_s + load.rate_per_s)
    variance = solved.slow.moments.decodes_var + solved.mean_s * load.rate_per_s
    return Gamma(mean, math.sqrt(variance)).sf(rule.seats)
