"""A load beyond what a server carries, with and without a bound of the queue that keeps TTFT."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fluid.errors import InputError
from fluid.overload.queue_for_limit import QueueForLimit, queue_for_limit
from fluid.result import Block, Note, Result, Table, number, percent, seconds
from fluid.server import Server
from fluid.service_levels import promises, require_possible
from fluid.steady.latency.scheduler import default_scheduler
from fluid.workload import Workload
from validation.experiments.slo.attained import Attained, attained
from validation.policies import PolicyLike, configured
from validation.simulator.model import model_of
from validation.simulator.runs import Runs
from validation.simulator.traffic.queue_limit import QueueLimit
from validation.simulator.traffic.traffic import Traffic

if TYPE_CHECKING:
    from fluid.plots.style import Panels

MULTIPLES = (0.5, 0.8, 0.95, 1.1, 1.5, 2.0, 3.0)
"""Offered rates over what is completed above capacity."""

_SATURATING = 2.0

_TRIALS = 4
"""Bounds that are tried, each smaller than the one before."""

_COLUMNS = ("offered /s", "bound", "goodput /s", "refused")


@dataclass(frozen=True)
class Offered:
    """What a server does with one offered rate.

    Attributes:
        bounded: Whether the queue is.
        goodput_per_s: Requests that attain their levels, of the classes that have any.
        ttft_s: The statistic that the limit is about, of those that are admitted; without a bound,
            above capacity, it grows with the length of the run.
        grows: Whether the backlog does.
    """

    rate_per_s: float
    bounded: bool
    goodput_per_s: float
    refused_share: float
    completed_per_s: float
    ttft_s: float
    grows: bool


@dataclass(frozen=True, repr=False)
class OverloadCurve(Result):
    """Goodput, refusals and TTFT by offered rate, with and without a bound of the queue.

    Attributes:
        queue: The bound by theory.
        queue_requests: The bound that is simulated: that of theory, or less where it takes less.
        capacity_per_s: What this scheduler completes above capacity, simulated.
        rows: By rate, first with the bound, then without.

    >>> import fluidwait as fw
    >>> slo = fw.Slo(ttft_s=2.0)
    >>> load = fw.Workload.of(chat=fw.Requests(7.0, prompt=512, output=50, slo=slo))
    >>> server = fw.Server.named("engine-long-decode")
    >>> found = fw.overload_curve(load, server, "greedy", multiples=[1.5], runs=fw.Runs(2, 4_000))
    >>> bounded, unbounded = found.rows
    >>> bounded.goodput_per_s > 10 * unbounded.goodput_per_s
    True
    """

    workload: Workload
    server: Server
    scheduler: str
    queue: QueueForLimit
    queue_requests: int
    capacity_per_s: float
    rows: tuple[Offered, ...]
    runs: Runs

    def blocks(self) -> Iterator[Block]:
        rows = tuple(
            (
                number(one.rate_per_s),
                f"{self.queue_requests:,}" if one.bounded else "none",
                number(one.goodput_per_s),
                percent(one.refused_share),
                f"{number(one.ttft_s)}{' (grows)' if one.grows else ''}",
                number(one.completed_per_s),
            )
            for one in self.rows
        )
        yield Table(
            f"{self.workload.name} on {self.server.name} under {self.scheduler}, above capacity",
            (
                "offered /s",
                "bound",
                "goodput /s",
                "refused",
                f"{self.queue.asked} TTFT s",
                "completed /s",
            ),
            rows,
            left=(),
            spare=("completed /s",),
        )
        yield f"Completed above capacity: {number(self.capacity_per_s)} /s."
        yield self.sentence
        if not self.kept:
            yield Note(
                "without a pace admissions come in bursts, and who waits between two of them waits "
                "longer than the queue is long; a table with a pace has none (solve)"
            )

    @property
    def kept(self) -> bool:
        """Whether the bound keeps the limit at all rates that were simulated."""
        return all(one.ttft_s <= self.queue.limit_s for one in self.rows if one.bounded)

    @property
    def sentence(self) -> str:
        """The bound, and whether it does what it is for."""
        worst_s = max(one.ttft_s for one in self.rows if one.bounded)
        asked = f"{self.queue.asked} TTFT of {self.queue.name}"
        if not self.kept:
            return (
                f"NOT kept under {self.scheduler}: with at most {self.queue_requests:,} requests "
                f"waiting, {asked} reaches {seconds(worst_s)}, above {seconds(self.queue.limit_s)}."
            )
        return (
            f"With at most {self.queue_requests:,} requests waiting, {asked} of who is admitted is "
            f"at most {seconds(worst_s)}, within {seconds(self.queue.limit_s)}."
        )

    def document(self) -> dict[str, Any]:
        return {
            "workload": self.workload.name,
            "server": self.server.name,
            "query": "slo-queue",
            "scheduler": self.scheduler,
            "value": self.queue_requests,
            "unit": "requests waiting",
            "prompt_tokens": self.queue.prompt_tokens,
            "queue": self.queue.document(),
            "kept": self.kept,
            "capacity_per_s": self.capacity_per_s,
            "rows": [asdict(one) for one in self.rows],
        }

    def frame(self) -> dict[str, list[Any]]:
        """Columns as the fields of `Offered`."""
        names = list(Offered.__dataclass_fields__)
        return {name: [getattr(one, name) for one in self.rows] for name in names}

    def plot(self, ax: Panels | None = None) -> Panels:
        """Goodput, refused share and TTFT against the offered rate.

        Args:
            ax: Three axes, side by side; those of a new figure where None.
        """
        from fluid.plots.overload import plot_offered

        lines = {
            label: [
                (one.rate_per_s, one.goodput_per_s, one.refused_share, one.ttft_s)
                for one in self.rows
                if one.bounded == bounded
            ]
            for label, bounded in ((f"at most {self.queue_requests} wait", True), ("none", False))
        }
        asked = f"{self.queue.asked} TTFT"
        return plot_offered(ax, lines, self.capacity_per_s, self.queue.limit_s, asked)


def overload_curve(
    load: Workload,
    server: Server,
    scheduler: PolicyLike | None = None,
    *,
    multiples: Sequence[float] = MULTIPLES,
    runs: Runs = Runs(10, 10_000),
    on_done: Callable[[], None] | None = None,
) -> OverloadCurve:
    """Simulate offered rates up to several times the capacity, with and without the bound.

    The bound comes from the limit of TTFT (`queue_for_limit`) and from what the scheduler completes
    above capacity, which is simulated first; where it does not keep the limit at the largest rate,
    it is made smaller in proportion to the wait that is left, a few times.

    Args:
        scheduler: A policy of the simulator; that of the server's engine where None.
        multiples: Offered rates over the capacity.
        on_done: Called after each rate.

    Raises:
        InputError: No limit of TTFT, no multiples, a request that does not fit, or a policy that
            cannot run.
        InfeasibleError: A limit below what an empty server takes, or so short that nobody may wait.

    >>> import fluidwait as fw
    >>> slo = fw.Slo(ttft_s=2.0)
    >>> load = fw.Workload.of(chat=fw.Requests(7.0, prompt=512, output=50, slo=slo))
    >>> server = fw.Server.named("engine-long-decode")
    >>> found = fw.overload_curve(load, server, "greedy", multiples=[1.5], runs=fw.Runs(2, 4_000))
    >>> [one.bounded for one in found.rows]
    [True, False]
    """
    if not multiples or min(multiples) <= 0:
        raise InputError("multiples", list(multiples), "numbers > 0, at least one")
    (policy,) = configured(default_scheduler(server) if scheduler is None else scheduler)
    require_possible(load, server)
    first = queue_for_limit(load, server)

    kept = promises(load)
    place = [one.name for one in kept].index(first.name)

    def simulated(rate_per_s: float, bound: int | None) -> Attained:
        traffic = None if bound is None else Traffic(queue=QueueLimit(requests=bound))
        model = model_of(load, server, traffic=traffic)
        found = attained(model, policy, kept, rate_per_s, runs, 1.0)
        if on_done is not None:
            on_done()
        return found

    capacity_per_s = _saturated_per_s(simulated, first)
    queue = queue_for_limit(load, server, saturated_per_s=capacity_per_s)
    requests = queue.requests
    for _ in range(_TRIALS):
        most = _offered(simulated(max(multiples) * capacity_per_s, requests), True, place)
        if most.ttft_s <= queue.limit_s:
            break
        left = (queue.limit_s - queue.first_s) / (most.ttft_s - queue.first_s)
        requests = max(1, math.floor(requests * left))
    if most.ttft_s > queue.limit_s:
        requests = queue.requests
    rows = [
        _offered(simulated(multiple * capacity_per_s, bound), bound is not None, place)
        for multiple in sorted(multiples)
        for bound in (requests, None)
    ]
    return OverloadCurve(
        load, server, policy.label, queue, requests, capacity_per_s, tuple(rows), runs
    )


def _saturated_per_s(
    simulated: Callable[[float, int | None], Attained], first: QueueForLimit
) -> float:
    """Completions per second where about `_SATURATING` times as many are offered.

    A cap on requests in service may complete far less than the fluid limit: the rate is lowered
    until a run lasts long enough to show it.
    """
    offered_per_s = _SATURATING * first.saturated_per_s
    while True:
        completed_per_s = _completed_per_s(simulated(offered_per_s, first.requests))
        if completed_per_s * 2 * _SATURATING >= offered_per_s:
            return min(completed_per_s, first.saturated_per_s)
        offered_per_s = max(_SATURATING * completed_per_s, offered_per_s / 10)


def _offered(found: Attained, bounded: bool, place: int) -> Offered:
    """A row; `place` is the promise whose TTFT is shown."""
    window_s = sum(one.window_s for one in found.replications)
    met = sum(one.met for each in found.requests for one in each)
    slo = found.promises[place].slo
    mean_s = found.mean_s(place, "ttft_s").mean
    return Offered(
        rate_per_s=found.rate_per_s,
        bounded=bounded,
        goodput_per_s=met / window_s,
        refused_share=float(np.mean([one.refused / one.arrived for one in found.replications])),
        completed_per_s=_completed_per_s(found),
        ttft_s=mean_s if slo.quantile == "mean" else found.quantile_s(place, "ttft_s"),
        grows=found.grows,
    )


def _completed_per_s(found: Attained) -> float:
    return float(np.mean([one.completed / one.window_s for one in found.replications]))
