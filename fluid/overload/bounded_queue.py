"""A bounded queue above capacity: who is refused, and how long the others wait (THEORY 12.1, 12.3).

Offered λ > μ, the rate at which the policy completes when it always has work. The queue stays full
but for a dip of D requests, since arrivals and efforts vary,

    D = (λ + μc²)/(2(λ − μ)),    W ≈ (Q − D)/μ,    Var W ≈ ((Q − D)c² + D²)/μ²,

and upper quantiles are (Q + z·c·√Q)/μ, without D. A bound in prompt tokens is one of Q_tok/l̄
requests with D = [λ E l²/l̄² + μ Var(l/l̄ − a/ā)]/(2(λ − μ)) and the deviation of l/l̄ − a/ā for c.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fluid.errors import InputError
from fluid.overload.demand import Demand, demand
from fluid.result import Block, Result, Table, notes, number, percent, seconds
from fluid.server import Server
from fluid.workload import Workload

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = NDArray[np.float64]

_DIPS = 3.0
"""A queue of fewer dips than this runs empty at times, which the formulas leave out."""

_NORMAL = {"p90": 1.2815515655446004, "p99": 2.3263478740408408}
_POINTS = 60


@dataclass(frozen=True)
class QueueLaw:
    """The formulas of this module for a queue bound in requests.

    Attributes:
        saturated_per_s: μ.
        dip_requests: D.
        variation: c, or what stands for it where the bound is in tokens.
    """

    saturated_per_s: float
    dip_requests: float
    variation: float

    @classmethod
    def of(cls, found: Demand, offered_per_s: float, by_tokens: bool) -> QueueLaw:
        """Of a mix at a rate above what is completed."""
        rate_per_s, variation = found.saturated_per_s, found.variation
        arrivals = 1.0
        if by_tokens:
            lengths = found.prompts / float(found.mix @ found.prompts)
            arrivals = float(found.mix @ lengths**2)
            variation = found.spread(lengths - found.relative)
        spread = offered_per_s * arrivals + rate_per_s * variation**2
        return cls(rate_per_s, spread / (2 * (offered_per_s - rate_per_s)), variation)

    def wait_s(self, requests: Floats) -> tuple[Floats, Floats]:
        """Mean and standard deviation of the wait behind bounds of so many requests."""
        mean = np.maximum(requests - self.dip_requests, 0.0)
        spread = np.sqrt(mean * self.variation**2 + self.dip_requests**2)
        return mean / self.saturated_per_s, spread / self.saturated_per_s

    def upper_s(self, requests: Floats, quantile: str) -> Floats:
        """An upper quantile, "p90" or "p99"."""
        beyond = _NORMAL[quantile] * self.variation * np.sqrt(requests)
        return np.asarray((requests + beyond) / self.saturated_per_s)


@dataclass(frozen=True, repr=False)
class BoundedQueue(Result):
    """A bounded queue in front of servers that cannot keep up.

    Attributes:
        queue_requests: Q, the bound in requests; a bound in tokens over the mean prompt.
        queue_tokens: The bound in prompt tokens, where it is one.
        saturated_per_s: μ of all servers together.
        refused_share: 1 − μ/λ.
        law: Dip and variation.
        wait_mean_s, wait_sd_s, wait_p90_s, wait_p99_s: From arrival to admission, of the admitted.

    >>> import fluidwait as fw
    >>> load = fw.Workload.of(chat=fw.Requests(30.0, prompt=512, output=200))
    >>> found = fw.bounded_queue(load, fw.Server.named("engine-long-decode"), requests=200)
    >>> print(f"{found.refused_share:.2f} {found.wait_mean_s:.1f} {found.wait_p99_s:.1f}")
    0.54 14.6 14.6
    """

    workload: Workload
    server: Server
    servers: int
    queue_requests: float
    queue_tokens: int | None
    saturated_per_s: float
    refused_share: float
    law: QueueLaw
    wait_mean_s: float
    wait_sd_s: float
    wait_p90_s: float
    wait_p99_s: float

    @property
    def caveats(self) -> tuple[str, ...]:
        """Conditions that fail, with their numbers."""
        found = []
        if self.queue_requests < _DIPS * self.law.dip_requests:
            found.append(
                f"the queue dips by {self.law.dip_requests:.3g} requests below its bound, more "
                "than a third of it: it runs empty at times, so that fewer are refused and waits "
                "differ"
            )
        if self.law.variation == 0:
            found.append(
                "all requests are alike: without a pace they are admitted in bursts, and waits "
                "vary by the cycle of THEORY 11.4"
            )
        return tuple(found)

    def blocks(self) -> Iterator[Block]:
        bound = f"{number(self.queue_requests)} requests"
        if self.queue_tokens is not None:
            bound = f"{self.queue_tokens:,} prompt tokens, about {bound}"
        yield Table(
            f"Queue of {self.workload.name} at {number(self.workload.rate_per_s)} /s",
            ("figure", "value"),
            (
                ("bound", bound),
                ("completed", f"{number(self.saturated_per_s)} /s"),
                ("refused", percent(self.refused_share)),
                ("mean wait for admission", seconds(self.wait_mean_s)),
                ("standard deviation", seconds(self.wait_sd_s)),
                ("90 % wait at most", seconds(self.wait_p90_s)),
                ("99 % wait at most", seconds(self.wait_p99_s)),
            ),
        )
        yield from notes(self.caveats)

    def document(self) -> dict[str, Any]:
        return {
            "workload": self.workload.name,
            "server": self.server.name,
            "servers": self.servers,
            "offered_per_s": self.workload.rate_per_s,
            "queue_requests": self.queue_requests,
            "queue_tokens": self.queue_tokens,
            "saturated_per_s": self.saturated_per_s,
            "refused_share": self.refused_share,
            "dip_requests": self.law.dip_requests,
            "variation": self.law.variation,
            "wait_s": {
                "mean": self.wait_mean_s,
                "sd": self.wait_sd_s,
                "p90": self.wait_p90_s,
                "p99": self.wait_p99_s,
            },
            "caveats": list(self.caveats),
        }

    def plot(self, ax: Axes | None = None) -> Axes:
        """Waits against the bound; dotted where the queue runs empty at times."""
        from fluid.plots.overload import plot_bounded_queue

        bounds = np.linspace(0, 2 * self.queue_requests, _POINTS + 1)[1:]
        curves_s = {
            "mean": self.law.wait_s(bounds)[0],
            "p90": self.law.upper_s(bounds, "p90"),
            "p99": self.law.upper_s(bounds, "p99"),
        }
        title = f"{percent(self.refused_share, 0)} of {self.workload.name} refused"
        return plot_bounded_queue(
            ax, bounds, curves_s, self.queue_requests, _DIPS * self.law.dip_requests, title
        )


def bounded_queue(
    workload: Workload,
    server: Server,
    *,
    requests: int | None = None,
    prompt_tokens: int | None = None,
    saturated_per_s: float | None = None,
    servers: int = 1,
) -> BoundedQueue:
    """Refusals and waits behind a bounded queue, above capacity (THEORY 12.1).

    Args:
        requests: Most that wait; or
        prompt_tokens: arrivals are accepted while fewer prompt tokens wait.
        saturated_per_s: What a server completes under the policy that it runs, for instance from
            a simulation; None for the fluid limit.
        servers: Replicas behind an ideal router (THEORY 12.3).

    Raises:
        InputError: A request does not fit, not exactly one bound, a figure out of range, or rates
            that the servers keep up with.

    >>> import fluidwait as fw
    >>> load = fw.Workload.of(chat=fw.Requests(14.0, 512, 20), code=fw.Requests(14.0, 512, 300))
    >>> server = fw.Server.named("engine-long-decode")
    >>> found = fw.bounded_queue(load, server, prompt_tokens=100_000)
    >>> round(found.queue_requests, 1), found.law.dip_requests > 0
    (195.3, True)
    """
    if (requests is None) == (prompt_tokens is None):
        raise InputError("requests", requests, "either requests or prompt_tokens")
    for field, value in (("requests", requests), ("prompt_tokens", prompt_tokens)):
        if value is not None and not 1 <= value < math.inf:
            raise InputError(field, value, "at least 1")
    found = demand(workload, server, saturated_per_s, servers)
    mean_prompt = float(found.mix @ found.prompts)
    if prompt_tokens is not None and mean_prompt == 0:
        raise InputError("prompt_tokens", prompt_tokens, "a load with prompts, or requests")
    bound = float(requests) if requests is not None else float(prompt_tokens or 0) / mean_prompt
    law = QueueLaw.of(found, workload.rate_per_s, prompt_tokens is not None)
    mean_s, sd_s = law.wait_s(np.array(bound))
    return BoundedQueue(
        workload=workload,
        server=server,
        servers=servers,
        queue_requests=bound,
        queue_tokens=prompt_tokens,
        saturated_per_s=found.saturated_per_s,
        refused_share=1 - found.saturated_per_s / workload.rate_per_s,
        law=law,
        wait_mean_s=float(mean_s),
        wait_sd_s=float(sd_s),
        wait_p90_s=float(law.upper_s(np.array(bound), "p90")),
        wait_p99_s=float(law.upper_s(np.array(bound), "p99")),
    )
