"""From which rate on residents overflow the memory, on any server (THEORY 9.6)."""

from __future__ import annotations

from collections.abc import Callable

from fluid.server import Server
from fluid.steady.fluctuation import checked_probability
from fluid.steady.latency.predict import solve
from fluid.steady.latency.rule import BatchRule
from fluid.steady.latency.validity import kv_law, usable_tokens
from fluid.steady.stability import stability
from fluid.workload import Workload

_LEAST_SHARE, _MOST_SHARE = 1e-3, 0.99
_TOLERANCE = 5e-3
"""Of the last step of the search, whose next one would be several times smaller."""

_MOST_STEPS = 40


def eviction_onset_per_s(
    workload: Workload, server: Server, probability: float, rule: BatchRule | None = None
) -> float:
    """Total rate of the mix at which residents exceed 99 % of memory with this probability.

    Below it hardly anybody is evicted; per iteration. The fluid limit where memory never binds
    before it, 0 where it binds at any rate.

    Raises:
        InputError: As `latency`, or the probability is not between 0 and 1.
    """
    onset_per_s = memory_onset_per_s(workload, server, probability, rule)
    if onset_per_s is not None:
        return onset_per_s
    return stability(workload, server).max_scale * workload.rate_per_s


def memory_onset_per_s(
    workload: Workload,
    server: Server,
    probability: float,
    rule: BatchRule | None = None,
) -> float | None:
    """The same; None where memory does not bind at any rate that the rule can serve."""
    checked_probability(probability)
    rule = rule or BatchRule()
    rule.require_suits(server)
    edge = stability(workload, server)
    limit_per_s = edge.max_scale * workload.rate_per_s

    def filled(share: float) -> float | None:
        """Quantile of the KV held, as a share of the memory; None where nothing is in balance."""
        solved = solve(workload.at_rate(share * limit_per_s), server, rule)
        if isinstance(solved, str):
            return None
        # Compared as quantiles: the probability itself is flat at both ends.
        return kv_law(solved).isf(probability) / usable_tokens(solved, rule)

    start = min(max(1 / edge.max_scale, _LEAST_SHARE), _MOST_SHARE)
    share = _full_share(filled, start, edge.compute_share)
    return None if share is None else share * limit_per_s


def _full_share(
    filled: Callable[[float], float | None], start: float, compute_share: float
) -> float | None:
    """Share of the limit at which `filled` is 1; 0 where it is above at any, None where at none.

    KV grows about as s/(1 − κs), κ the share of compute at the limit: each step takes the factor
    from the last point, inside the bracket found so far.
    """
    low, high, binds = 0.0, 1.0, False
    share = start
    for _ in range(_MOST_STEPS):
        found = filled(share)
        if found is not None and found <= 1:
            low = share
        else:
            high, binds = share, found is not None
        if low >= _MOST_SHARE or high <= _LEAST_SHARE:
            return None if low or not binds else 0.0
        last, inside = share, found is not None
        if found is not None:
            factor = found * (1 - compute_share * last) / last
            share = 1 / (factor + compute_share)
            inside = low < share < high
        if not inside:
            share = (low + high) / 2
        share = min(max(share, _LEAST_SHARE), _MOST_SHARE)
        if abs(share - last) <= _TOLERANCE * last:
            break
    return share if binds or inside else None
