"""When residents overflow the memory, without simulation (THEORY 2.7, 9.2)."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from fluid.result import Table, number, percent, seconds
from fluid.server import Server
from fluid.steady.fluctuation import KV_LABEL, checked_probability, fluctuation
from fluid.steady.stability import largest_scale
from fluid.workload import Workload

_LEAST_SHARE = 1e-4
_HALVINGS = 8
"""The onset of evictions is sought from this share of the fluid limit on, ever closer to it, as
responses grow without bound there."""


@dataclass(frozen=True)
class Overflow:
    """When memory overflows: second-order figures at a workload's own rate (THEORY 2.7).

    All but the onset are those of unlimited memory.

    Attributes:
        probability: Share of iterations that may exceed the memory, as asked.
        overflow_probability: Share of iterations that would exceed the server's memory.
        kv_tokens_needed: Memory that `probability` of the iterations exceed.
        eviction_onset_per_s: Total rate at which `probability` of them exceed the server's memory.
    """

    probability: float
    kv_mean_tokens: float
    kv_sd_tokens: float
    overflow_probability: float
    kv_tokens_needed: float
    eviction_onset_per_s: float
    latency_s: float
    ttft_s: float

    def table(self) -> Table:
        """The figures as text."""
        share = percent(self.probability, 2)
        kv = f"{number(self.kv_mean_tokens)} ± {number(self.kv_sd_tokens)}"
        return Table(
            "Fluctuations (Poisson arrivals, unlimited memory)",
            ("figure", "value"),
            (
                (KV_LABEL, kv),
                ("iterations that would exceed C", percent(self.overflow_probability, 2)),
                (f"KV exceeded in {share} of iterations", number(self.kv_tokens_needed)),
                (f"rate at which {share} exceed C", f"{number(self.eviction_onset_per_s)} /s"),
                ("mean TTFT", seconds(self.ttft_s)),
                ("mean latency", seconds(self.latency_s)),
            ),
        )


def overflow(workload: Workload, server: Server, probability: float) -> Overflow:
    """What is known of overflows without simulation.

    Raises:
        InputError: As `fluctuation`, or the probability is not between 0 and 1.
        InfeasibleError: As `fluctuation`.
    """
    onset_per_s = eviction_onset_per_s(workload, server, probability)
    here = fluctuation(workload, server)
    return Overflow(
        probability=probability,
        kv_mean_tokens=here.kv_mean_tokens,
        kv_sd_tokens=here.kv_sd_tokens,
        overflow_probability=here.overflow_probability(server.usable_kv_tokens),
        kv_tokens_needed=here.kv_tokens_needed(probability),
        eviction_onset_per_s=onset_per_s,
        latency_s=here.latency_s,
        ttft_s=here.ttft_s,
    )


def eviction_onset_per_s(workload: Workload, server: Server, probability: float) -> float:
    """Total rate of the mix at which residents exceed the memory with this probability.

    Below it greedy admission hardly evicts, whatever its watermark; per iteration, THEORY 2.7.

    Raises:
        InputError: As `fluctuation`, or the probability is not between 0 and 1.
    """
    from scipy.optimize import brentq

    checked_probability(probability)
    capacity = server.usable_kv_tokens
    limit_per_s = largest_scale(workload, server) * workload.rate_per_s

    def excess(share: float) -> float:
        found = fluctuation(workload.at_rate(share * limit_per_s), server)
        # Compared as quantiles: the probability itself is flat at both ends.
        return found.kv_tokens_needed(probability) / capacity - 1

    shares = [_LEAST_SHARE, *(1 - 0.5**k for k in range(1, _HALVINGS))]
    if excess(shares[0]) >= 0:
        return 0.0
    for low, high in itertools.pairwise(shares):
        if excess(high) > 0:
            return float(brentq(excess, low, high, xtol=1e-4)) * limit_per_s
    return limit_per_s
