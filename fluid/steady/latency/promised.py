"""The largest rate at which the latency laws keep the promises of a workload (THEORY 9)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fluid.server import Server
from fluid.service_levels import Promise, required_promises
from fluid.steady.latency.chain import Unresolved
from fluid.steady.latency.predict import solve
from fluid.steady.latency.rule import BatchRule
from fluid.steady.latency.solved import Cdfs, Solved
from fluid.steady.latency.sums import ClassLaws, class_laws
from fluid.steady.latency.validity import validity
from fluid.steady.stability import largest_scale
from fluid.workload import Workload

_LEAST, _MOST = 0.01, 0.995
"""Of the fluid limit, between which the rate is looked for."""

_ACCURACY = 0.003
_REFUSED = 10.0
_NEVER = 1e-9


@dataclass(frozen=True)
class Promised:
    """What the laws say of the promises of a mix.

    Attributes:
        rate_per_s: Up to which total rate they are kept.
        known: Whether that is where a limit is missed, not where the laws end before.
    """

    rate_per_s: float
    known: bool


def promised_rate(workload: Workload, server: Server, rule: BatchRule) -> Promised | None:
    """The total rate of the mix up to which all promises are kept by the laws.

    Limits are taken to be missed by different requests, so that it is a little low where two bind.

    Returns:
        None where they are not kept at 1 % of the fluid limit either.

    >>> import fluidwait as fw
    >>> from fluid.steady.latency.promised import promised_rate
    >>> slo = fw.Slo(ttft_s=0.5)
    >>> load = fw.Workload.of(chat=fw.Requests(4.0, prompt=512, output=120, slo=slo))
    >>> server = fw.Server.named("a100-80gb-llama-2-7b")
    >>> 8 < promised_rate(load, server, fw.BatchRule.greedy()).rate_per_s < 14
    True
    """
    kept = required_promises(workload)
    limit_per_s = largest_scale(workload, server) * workload.rate_per_s

    def excess(share: float) -> float:
        found = solve(workload.at_rate(share * limit_per_s), server, rule)
        if isinstance(found, str) or validity(found, rule).refusal() is not None:
            return _REFUSED
        try:
            return _excess(found, kept)
        except Unresolved:
            return _REFUSED

    if excess(_LEAST) > 0:
        return None
    if excess(_MOST) <= 0:
        return Promised(_MOST * limit_per_s, False)
    from scipy.optimize import brentq

    share, known = float(brentq(excess, _LEAST, _MOST, xtol=_ACCURACY)), True
    for beyond in (1.01, 1.02):
        known = known and excess(min(share * beyond, _MOST)) < _REFUSED
    return Promised(share * limit_per_s, known)


def _excess(solved: Solved, kept: Sequence[Promise]) -> float:
    """Largest logarithm of what misses over what may miss, or of a mean over its limit."""
    laws = class_laws(solved)
    rates = solved.load.rates_per_s
    found = []
    for promise in kept:
        weights = np.array([rates[index] for index in promise.classes])
        weights = weights / weights.sum()
        limits = promise.slo.limits_s
        if promise.slo.quantile == "mean":
            for name, limit_s in limits.items():
                means = [_mean_s(solved, index, name) for index in promise.classes]
                found.append(math.log(max(float(weights @ means), _NEVER) / limit_s))
            continue
        missing = [
            min(sum(_beyond(laws[index], name, one) for name, one in limits.items()), 1.0)
            for index in promise.classes
        ]
        allowed = 1 - promise.slo.quantile
        found.append(math.log(max(float(weights @ missing), _NEVER) / allowed))
    return max(found)


def _mean_s(solved: Solved, index: int, name: str) -> float:
    ttft_s, rest_s, latency_s = map(float, solved.stage_s[index])
    gaps = int(solved.load.later[index] - solved.load.first_output[index])
    return {"ttft_s": ttft_s, "tpot_s": rest_s / max(gaps, 1), "latency_s": latency_s}[name]


def _beyond(laws: ClassLaws, name: str, limit_s: float) -> float:
    """Share of the requests above a limit; 0 where they have no TPOT."""
    law: Cdfs | None = getattr(laws, name.removesuffix("_s"))
    if law is None:
        return 0.0
    below = np.maximum.accumulate(law.below[0])
    return 1 - float(np.interp(limit_s, law.points_s, below)) / max(float(below[-1]), _NEVER)
