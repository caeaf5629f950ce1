"""From which rate on residents overflow the memory, on any server (THEORY 9.6)."""

from __future__ import annotations

from scipy.optimize import brentq

from fluid.errors import InputError
from fluid.server import Server
from fluid.steady.latency.predict import solve
from fluid.steady.latency.rule import BatchRule
from fluid.steady.latency.validity import kv_law, usable_tokens
from fluid.steady.stability import largest_scale
from fluid.workload import Workload

_LEAST_SHARE, _MOST_SHARE, _TOLERANCE = 1e-3, 0.99, 1e-3


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
    limit_per_s = largest_scale(workload, server) * workload.rate_per_s

    def excess(share: float) -> float:
        solved = solve(workload.at_rate(share * limit_per_s), server, rule)
        if isinstance(solved, str):
            return 1.0
        # Compared as quantiles: the probability itself is flat at both ends.
        return float(kv_law(solved).isf(probability)) / usable_tokens(solved, rule) - 1

    if excess(_LEAST_SHARE) >= 0:
        return 0.0
    if excess(_MOST_SHARE) <= 0:
        return limit_per_s
    return float(brentq(excess, _LEAST_SHARE, _MOST_SHARE, xtol=_TOLERANCE)) * limit_per_s
