"""What a replica sees as a share of the largest rate that keeps its service levels."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from fluid.errors import InfeasibleError
from fluid.server import Server
from fluid.service_levels import promises
from fluid.steady.stability import stability
from fluid.workload import Workload
from validation.experiments.boundary_search import BUDGET_S
from validation.experiments.slo.answer import FIRST_RUNS
from validation.experiments.slo.rate import slo_rate
from validation.policies import PolicyLike
from validation.simulator.runs import Runs

_MIX_DIGITS = 6
"""Mixes that agree so far are one: the largest rate is known to a percent."""


@dataclass(frozen=True)
class SloLoad:
    """The load of a replica for `fleet`, by service levels, simulated once for each mix.

    Attributes:
        scheduler: A policy of the simulator; that of the server's engine where None.
        runs, budget_s: As of `slo_rate`.

    >>> import fluidwait as fw
    >>> slo = fw.Slo(latency_s=2.0, quantile="mean")
    >>> load = fw.Workload.of(chat=fw.Requests(60.0, prompt=512, output=50, slo=slo))
    >>> types = [fw.ServerType(fw.Server.named("engine-long-decode"))]
    >>> by_levels = fw.SloLoad("greedy")
    >>> found = fw.fleet(load, types, load_of=by_levels, sized_by=by_levels.words)
    >>> found.replicas[0].count, found.is_optimal
    (3, True)
    """

    scheduler: PolicyLike | None = None
    runs: Runs = FIRST_RUNS
    budget_s: float = BUDGET_S
    _known: dict[tuple[object, ...], float] = field(default_factory=dict, repr=False, compare=False)

    @property
    def words(self) -> str:
        """What a load of 1 is."""
        under = "" if self.scheduler is None else f" under {self.scheduler}"
        return f"the largest rate that keeps the service levels{under} (95 %)"

    def __call__(self, workload: Workload, server: Server) -> float:
        """Rate of the workload over the largest one that is known to keep its service levels.

        Infinite where none does; a mix without any is loaded by stability.
        """
        if not promises(workload):
            return 1 / stability(workload, server).max_scale
        shares = zip(workload.classes, workload.shares, strict=True)
        mix = tuple((one.name, round(float(share), _MIX_DIGITS)) for one, share in shares)
        key = (server.name, server.sha256(), mix)
        if key not in self._known:
            self._known[key] = self._largest_per_s(workload, server)
        return workload.rate_per_s / self._known[key] if self._known[key] else math.inf

    def _largest_per_s(self, workload: Workload, server: Server) -> float:
        try:
            found = slo_rate(
                workload, server, self.scheduler, runs=self.runs, budget_s=self.budget_s
            )
        except InfeasibleError:
            return 0.0
        return found.low_per_s or 0.0
