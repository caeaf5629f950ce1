"""From which rate on residents overflow the memory, on any server (THEORY 9.6)."""

from __future__ import annotations

from collections.abc import Callable

from fluid.errors import InputError
from fluid.server import Server
from fluid.steady.latency.predict import solve
from fluid.steady.latency.rule import BatchRule
from fluid.steady.latency.validity import kv_law, usable_tokens
from fluid.steady.stability import stability
from fluid.workload import Workload

_LEAST_SHARE, _MOST_SHARE, _TOLERANCE = 1e-3, 0.99, 1e-3
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
    if not 0 < probability < 1:
        raise InputError("probability", probability, "between 0 and 1")
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
        return float(kv_law(solved).isf(probability)) / usable_tokens(solved, rule)

    share = _full_share(filled, 1 / edge.max_scale, edge.compute_share)
    return share * limit_per_s


def _full_share(
    filled: Callable[[float], float | None], start: float, compute_share: float
) -> float:
    """Share of the limit at which `filled` is 1; 0 where it is above, 1 where it is below 1 there.

    KV grows about as s/(1 − κs), κ the share of compute at the limit: each step takes the factor
    from the last point, inside the bracket found so far.
    """
    low, high = 0.0, 1.0
    share = min(max(start, _LEAST_SHARE), 0.9)
    for _ in range(_MOST_STEPS):
        found = filled(share)
        if found is not None and found <= 1:
            low = share
        else:
            high = share
        if low >= _MOST_SHARE or high <= _LEAST_SHARE:
            return 1.0 if low else 0.0
        last = share
        if found is not None:
            factor = found * (1 - compute_share * last) / last
            share = 1 / (factor + compute_share)
        if found is None or not low < share < high:
            share = (low + high) / 2
        share = min(max(share, _LEAST_SHARE), _MOST_SHARE)
        if abs(share - last) <= _TOLERANCE * last:
            break
    return share
