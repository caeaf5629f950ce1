"""What one more unit of a limit, or of a class, is worth under literal WAIT.

- KV memory and limits on means: multipliers of the best real thresholds at or above the least whole
  ones (`relaxed`), as whole thresholds change in jumps. They are derivatives of that optimum by one
  more unit of the limit; where the least thresholds fill the memory no unit less is possible, and
  the price says so.
- The rate of a class: the slope of the mean delay D̄ at the whole thresholds found, which stay best
  under small changes: (ΔT + ΔT/(2 n_j (1 − u_j)²) − D̄)/Λ with u_j = λ_j ΔT/n_j (THEORY 3.5).
- A class's part of the margin 1 − 1/α*: its share of the boundary load (THEORY 2.3).
"""

from __future__ import annotations

import math

import numpy as np

from fluid.steady.derivatives import margin_derivatives
from fluid.workload import Workload
from thresholds.fields import Price
from thresholds.solvers.wait.batch import FullBatch
from thresholds.solvers.wait.mean_limits import MeanLimits
from thresholds.solvers.wait.objectives import Outcome

_MOST_CLASSES = 8
"""With more classes only prices of memory and of limits are given."""

_WORTHLESS = 1e-6
"""Prices that move the mean delay by a smaller share, for all of the limit, are left out as 0."""

_WORDS = {"latency_s": "mean latency", "ttft_s": "mean TTFT", "tpot_s": "mean TPOT"}


def prices(
    workload: Workload, batch: FullBatch, limits: MeanLimits, outcome: Outcome
) -> tuple[Price, ...]:
    """Prices of what limits the objective; none for an objective that is no delay."""
    if outcome.last_stage is None:
        return ()
    of_limits = _limit_prices(workload, batch, limits, outcome)
    if len(workload.classes) > _MOST_CLASSES:
        return of_limits
    return (*of_limits, *_rate_prices(workload, batch, outcome), *_margin_prices(workload, batch))


def _limit_prices(
    workload: Workload, batch: FullBatch, limits: MeanLimits, outcome: Outcome
) -> tuple[Price, ...]:
    if outcome.relaxed is None:
        return ()
    what, unit = _WORDS[outcome.name], f"{outcome.name} per token"
    per_token_s, capacity = outcome.relaxed.memory_price_s, batch.server.usable_kv_tokens
    found = []
    if per_token_s * capacity > _WORTHLESS * outcome.value:
        amount = 10 ** max(0, math.floor(math.log10(capacity / 100)))
        more = f"{amount} more tokens" if amount > 1 else "one more token"
        words = f"{more} of KV would take {amount * per_token_s:.3g} s off the {what}"
    else:
        per_token_s, words = 0.0, f"more KV would not improve the {what}: other conditions bind"
    least = limits.least_thresholds(batch)
    if least is not None and batch.memory(least) > capacity - batch.server.block_tokens:
        words += "; with any less no whole thresholds fit"
    found.append(Price(of="kv_capacity_tokens", value=-per_token_s, unit=unit, words=words))
    for (name, index), price in outcome.relaxed.limit_prices.items():
        if price <= _WORTHLESS:
            continue
        kind = workload.classes[index].name
        words = (
            f"a limit on the {_WORDS[name]} of {kind} that is 1 ms longer would take "
            f"{price:.3g} ms off the {what}"
        )
        unit = f"{outcome.name} per s"
        found.append(Price(of=f"{name} of {kind}", value=-price, unit=unit, words=words))
    return tuple(found)


def _rate_prices(workload: Workload, batch: FullBatch, outcome: Outcome) -> list[Price]:
    n, loads = outcome.thresholds, batch.loads(outcome.thresholds)
    time_s = float(batch.iteration_time_s(n))
    own_s = time_s + time_s / (2 * n * (1 - loads) ** 2)
    slopes = (own_s - outcome.value) / batch.rates_per_s.sum()
    return [
        Price(
            of=f"rate_per_s of {one.name}",
            value=float(slope),
            unit=f"{outcome.name} per request/s",
            words=f"one more request/s of {one.name} would change the "
            f"{_WORDS[outcome.name]} by {slope:+.3g} s",
        )
        for one, slope in zip(workload.classes, slopes, strict=True)
    ]


def _margin_prices(workload: Workload, batch: FullBatch) -> list[Price]:
    derivatives, _ = margin_derivatives(workload, batch.server)
    slopes = np.array([derivatives[f"rate_per_s[{one.name}]"] for one in workload.classes])
    shares = -slopes * batch.rates_per_s
    return [
        Price(
            of=f"margin by rate_per_s of {one.name}",
            value=float(slope),
            unit="margin per request/s",
            words=f"{one.name} costs {share:.1%} of the margin at its rate",
        )
        for one, slope, share in zip(workload.classes, slopes, shares, strict=True)
    ]
