"""How much may wait so that who is admitted has its first token in time, at any offered load.

The larger the offered load, the nearer a bounded queue is to full (THEORY 12.1: its dip D falls to
c²/2 + 1/2 requests less), so that the full queue is the worst. Who is the last to find a place
waits for Q requests to be admitted before it, of which the server completes μ per second, and then
for the end of the iteration that runs and of its own, at most 2 T* at the edge of stability:

    mean:       (Q − 1/2)/μ + 2 T* ≤ limit
    quantile:   (Q + z c √Q)/μ + 2 T* ≤ limit

A bound in prompt tokens is one of Q_tok = Q·l̄ tokens with the deviation of l/l̄ − a/ā for c; the
request that crosses it is still let in, so that one of the longest is taken off. All this is for
admissions at a steady pace: without one they come in bursts (THEORY 11.4), between which waits are
longer than the queue says.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

from fluid.errors import InfeasibleError, InputError
from fluid.overload.demand import Demand, demand
from fluid.result import Block, Result, Table, number, seconds
from fluid.server import Server
from fluid.service_levels import Promise, promises
from fluid.steady.stability import stability
from fluid.workload import Workload

_ABOVE = 2.0
"""Times the capacity at which the mix is looked at: any rate above it has the same demand."""


@dataclass(frozen=True, repr=False)
class QueueForLimit(Result):
    """Bounds of what waits, one in requests and one in prompt tokens; each is enough by itself.

    Attributes:
        limit_s, asked: The TTFT limit that decides, and of which statistic: "p99" or "mean".
        name: Whose it is.
        saturated_per_s: μ.
        first_s: From admission to the first token, at most.
        requests: Most that wait.
        prompt_tokens: Arrivals are accepted while fewer prompt tokens wait; None where no request
            brings a prompt.

    >>> import fluidwait as fw
    >>> slo = fw.Slo(ttft_s=5.0)
    >>> load = fw.Workload.of(chat=fw.Requests(7.0, prompt=512, output=120, slo=slo))
    >>> found = fw.queue_for_limit(load, fw.Server.named("engine-long-decode"))
    >>> found.requests, found.saturated_per_s > 19
    (93, True)
    """

    workload: Workload
    server: Server
    name: str
    limit_s: float
    asked: str
    saturated_per_s: float
    first_s: float
    requests: int
    prompt_tokens: int | None

    def blocks(self) -> Iterator[Block]:
        tokens = "–" if self.prompt_tokens is None else f"{self.prompt_tokens:,} prompt tokens"
        yield Table(
            f"What may wait for {self.workload.name} on {self.server.name}",
            ("figure", "value"),
            (
                ("asked", f"{self.asked} TTFT of {self.name} ≤ {seconds(self.limit_s)}"),
                ("completed above capacity", f"{number(self.saturated_per_s)} /s"),
                ("admission to first token", f"at most {seconds(self.first_s)}"),
                ("waiting", f"at most {self.requests:,} requests"),
                ("or", f"at most {tokens}"),
            ),
        )
        yield self.sentence

    @property
    def sentence(self) -> str:
        """Both bounds and what they keep."""
        tokens = "" if self.prompt_tokens is None else f" (or {self.prompt_tokens:,} prompt tokens)"
        return (
            f"With a pace, and at most {self.requests:,} requests{tokens} waiting, {self.asked} "
            f"TTFT of {self.name} stays within {seconds(self.limit_s)} at any offered load."
        )

    def document(self) -> dict[str, Any]:
        parts = {"workload": self.workload.name, "server": self.server.name}
        return {name: parts.get(name, getattr(self, name)) for name in self.__dataclass_fields__}


def queue_for_limit(
    workload: Workload, server: Server, *, saturated_per_s: float | None = None
) -> QueueForLimit:
    """The bounds that keep the TTFT limits of a workload above capacity (THEORY 12.1).

    All classes wait in one queue, so that the tightest limit decides.

    Args:
        saturated_per_s: What the server completes under the policy that it runs; the fluid limit
            where None.

    Raises:
        InputError: No limit of TTFT, a request that does not fit, or a figure out of range.
        InfeasibleError: A limit so short that nobody may wait.

    >>> import fluidwait as fw
    >>> slo = fw.Slo(ttft_s=2.0, quantile="mean")
    >>> load = fw.Workload.of(chat=fw.Requests(7.0, prompt=512, output=120, slo=slo))
    >>> fw.queue_for_limit(load, fw.Server.named("engine-long-decode")).asked
    'mean'
    """
    limited = [one for one in promises(workload) if one.slo.ttft_s is not None]
    if not limited:
        raise InputError("slo", None, "a limit of TTFT, as slo: {ttft_s: 1.0}")
    edge = stability(workload, server)
    above = workload.scaled(_ABOVE * edge.max_scale)
    found = demand(above, server, saturated_per_s, 1)
    first_s = 2 * edge.boundary_iteration_time_s
    tightest = min(limited, key=lambda one: _requests(found, one, first_s, found.variation))
    requests = _requests(found, tightest, first_s, found.variation)
    if requests < 1:
        limit_s = tightest.slo.ttft_s or 0.0
        raise InfeasibleError(
            f"TTFT of {tightest.name} within {limit_s:g} s above capacity",
            "iteration time",
            f"nobody may wait: admission to first token alone takes up to {first_s:.3g} s",
        )
    mean_prompt = float(found.mix @ found.prompts)
    prompt_tokens = None
    if mean_prompt > 0:
        spread = found.spread(found.prompts / mean_prompt - found.relative)
        by_tokens = min(_bound(found, one, first_s, spread) for one in limited)
        prompt_tokens = max(1, math.floor(by_tokens * mean_prompt - found.prompts.max()))
    return QueueForLimit(
        workload=workload,
        server=server,
        name=tightest.name,
        limit_s=tightest.slo.ttft_s or math.nan,
        asked=tightest.slo.words,
        saturated_per_s=found.saturated_per_s,
        first_s=first_s,
        requests=requests,
        prompt_tokens=prompt_tokens,
    )


def _requests(found: Demand, promise: Promise, first_s: float, variation: float) -> int:
    return math.floor(_bound(found, promise, first_s, variation))


def _bound(found: Demand, promise: Promise, first_s: float, variation: float) -> float:
    """Q as a real number: the root of the formulas of this module; 0 where the limit is too short.

    Args:
        variation: c, or what stands for it where the bound is in tokens.
    """
    waits = found.saturated_per_s * ((promise.slo.ttft_s or 0.0) - first_s)
    if waits <= 0:
        return 0.0
    if promise.slo.quantile == "mean":
        return waits + 0.5
    beyond = max(NormalDist().inv_cdf(promise.slo.quantile), 0.0) * variation
    root = (math.sqrt(beyond**2 + 4 * waits) - beyond) / 2
    return root**2
