"""The fewest servers, all alike, that keep the service levels of a load.

What a router does shows in the arrivals of one server, and every server of a router that knows no
states sees the same law: so that one is simulated for all. Of n servers, a router that picks at
random leaves each a Poisson stream of a share 1/n; one that goes round leaves each every n-th
request: gaps of n exponential ones, a gamma law with variation 1/√n, and the same mix. Both are
exact. A router that looks at the servers' queues makes the arrivals of each depend on all: then all
are simulated together (`validation.simulator.fleet`), in runs as many times as long.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from fluid.errors import InfeasibleError, InputError, not_a_name
from fluid.result import Block, Note, Result, Table, number
from fluid.server import Server
from fluid.steady.latency.scheduler import default_scheduler
from fluid.workload import Workload
from validation.experiments.boundary_search import MOST_REQUESTS, Budget
from validation.experiments.largest_rate import fluid_limit_per_s
from validation.experiments.slo.answer import (
    BUDGET_S,
    FIRST_RUNS,
    Answer,
    checked_promises,
    first_guess,
    named_levels,
)
from validation.experiments.slo.attained import Attained, attained, criteria
from validation.experiments.slo.levels import (
    COLUMNS,
    SPARE,
    Kept,
    Level,
    cells,
    least_requests,
)
from validation.policies import PolicyLike, configured
from validation.simulator.arrivals import Arrivals
from validation.simulator.model import model_of
from validation.simulator.runs import MOST_REQUESTS as MOST_TOGETHER
from validation.simulator.runs import Runs
from validation.simulator.traffic.traffic import Traffic

Router = Literal["random", "round-robin", "least-outstanding-tokens"]
ROUTERS: dict[Router, str] = {
    "random": "split at random",
    "round-robin": "in turn",
    "least-outstanding-tokens": "to the fewest outstanding tokens",
}
"""How each splits requests, in words."""

LEAST_CV = 0.01
"""Of gaps that the simulator draws: more than ten thousand servers in turn are no more regular."""

_FARTHEST = 100
"""Times the first guess: so many servers each have next to nothing to do."""


@dataclass(frozen=True, repr=False)
class SloServers(Result):
    """How many servers it takes.

    Attributes:
        servers: The fewest that keep all promises, by intervals of 95 %.
        fewer: Next to it from below, the most that are known to break one; 0 where one server is
            enough. In between nothing is known.
        stable_servers: The fewest that carry the load at all, whatever the latencies.
        levels, fewer_levels: Each limit with `servers`, and with `fewer`; the latter empty where
            so few do not carry the load.

    >>> import fluidwait as fw
    >>> slo = fw.Slo(latency_s=2.0, quantile="mean")
    >>> load = fw.Workload.of(chat=fw.Requests(60.0, prompt=512, output=50, slo=slo))
    >>> found = fw.slo_servers(load, fw.Server.named("engine-long-decode"), "greedy")
    >>> found.servers, found.fewer, found.stable_servers
    (3, 2, 3)
    """

    workload: Workload
    server: Server
    scheduler: str
    router: Router
    servers: int
    fewer: int
    stable_servers: int
    levels: tuple[Level, ...]
    fewer_levels: tuple[Level, ...]

    @property
    def decided(self) -> bool:
        """Whether one server less is known not to be enough."""
        return self.servers == self.fewer + 1

    def blocks(self) -> Iterator[Block]:
        rows = [(str(self.servers), *cells(one)) for one in self.levels]
        rows += [(str(self.fewer), *cells(one)) for one in self.fewer_levels]
        yield Table(
            f"{self.workload.name} on servers like {self.server.name} under {self.scheduler}",
            ("servers", *COLUMNS),
            tuple(rows),
            left=(1, 2),
            spare=SPARE,
        )
        yield self.sentence
        if not self.decided:
            yield Note(
                f"from {self.fewer + 1} to {self.servers - 1} servers the budget ended before it "
                "was decided; allow more seconds"
            )

    @property
    def sentence(self) -> str:
        """The answer, how requests are split, and what stability alone asks for."""
        each = number(self.workload.rate_per_s / self.servers)
        return (
            f"{self.servers} servers keep the service levels at "
            f"{number(self.workload.rate_per_s)} requests/s ({each} each, {ROUTERS[self.router]}); "
            f"{self.stable_servers} carry the load at all."
        )

    def document(self) -> dict[str, Any]:
        return {
            "workload": self.workload.name,
            "server": self.server.name,
            "query": "slo-servers",
            "scheduler": self.scheduler,
            "router": self.router,
            "value": self.servers,
            "unit": "servers",
            "fewer": self.fewer,
            "decided": self.decided,
            "stable_servers": self.stable_servers,
            "levels": [asdict(one) for one in self.levels],
            "fewer_levels": [asdict(one) for one in self.fewer_levels],
        }


def slo_servers(
    load: Workload,
    server: Server,
    scheduler: PolicyLike | None = None,
    *,
    router: Router = "random",
    traffic: Traffic | None = None,
    runs: Runs = FIRST_RUNS,
    budget_s: float = BUDGET_S,
    on_done: Callable[[], None] | None = None,
) -> SloServers:
    """The fewest servers that keep all service levels of a Poisson load, split evenly.

    Args:
        scheduler: Of each server, a policy of the simulator; that of its engine where None.
        router: "random", each request to any server; "round-robin", to all in turn; or
            "least-outstanding-tokens", to the one with the fewest tokens, of prompts and outputs,
            of requests sent and not completed yet (the first of several).
        traffic: What clients do, where the backlog may grow all the same.
        runs: The first ones, with so many requests for each server; they are lengthened until a
            number of servers is decided.
        budget_s: Seconds after which no longer runs are started; what is then open counts as not
            enough.
        on_done: Called after each simulation.

    Raises:
        InputError: No service levels, a request that does not fit, no such router, a policy that
            cannot run, traffic that holds the backlog down, or what a router that looks at servers
            cannot be simulated with: more than 2,000,000 requests in the first runs of all servers,
            conversations, refused requests, a cache of prefixes.
        InfeasibleError: Levels that no number of servers keeps.

    >>> import fluidwait as fw
    >>> slo = fw.Slo(ttft_s=0.5, quantile="p90")
    >>> load = fw.Workload.of(chat=fw.Requests(60.0, prompt=512, output=50, slo=slo))
    >>> server = fw.Server.named("engine-long-decode")
    >>> found = fw.slo_servers(load, server, "greedy", router="round-robin")
    >>> found.stable_servers <= found.servers
    True
    """
    if router not in ROUTERS:
        raise not_a_name("router", str(router), ROUTERS)
    kept = checked_promises(load, server, traffic, budget_s)
    (policy,) = configured(default_scheduler(server) if scheduler is None else scheduler)
    limit_per_s = fluid_limit_per_s(load, server)
    assert limit_per_s is not None
    budget = Budget(runs.requests, seconds=budget_s)

    looks = router == "least-outstanding-tokens"

    def simulated(servers: int, size: Runs) -> Attained:
        arrivals = None
        if router == "round-robin" and servers > 1:
            arrivals = Arrivals("gamma", cv=max(1 / math.sqrt(servers), LEAST_CV))
        model = model_of(load, server, arrivals, traffic)
        if looks:
            size = _of_all(size, servers)
            found = attained(model, policy, kept, load.rate_per_s, size, 1.0, servers)
        else:
            found = attained(model, policy, kept, load.rate_per_s / servers, size, 1.0)
        if on_done is not None:
            on_done()
        return found

    trial = _Trial(load, simulated, runs, budget, looks)
    stable = max(1, math.ceil(load.rate_per_s / limit_per_s * (1 - 1e-12)))
    guess_per_s, _ = first_guess(load, server, policy.label, limit_per_s)
    fewer, servers = _fewest(trial, stable, math.ceil(load.rate_per_s / guess_per_s))
    return SloServers(
        workload=load,
        server=server,
        scheduler=policy.label,
        router=router,
        servers=servers,
        fewer=fewer,
        stable_servers=stable,
        levels=trial.levels(servers),
        fewer_levels=trial.levels(fewer) if fewer >= stable else (),
    )


def _of_all(each: Runs, servers: int) -> Runs:
    """Runs of a fleet with so many requests for each of its servers.

    Raises:
        InputError: They are too many for one run.
    """
    requests = each.requests * servers
    if requests > MOST_TOGETHER:
        allowed = f"fewer: {servers:,} servers that a router looks at share {MOST_TOGETHER:,}"
        raise InputError("requests", each.requests, allowed)
    return replace(each, requests=requests)


class _Trial:
    """What is known of numbers of servers, each simulated with runs as long as it takes.

    Args:
        together: Whether the servers share the requests that a run has at most.
    """

    def __init__(
        self,
        load: Workload,
        simulated: Callable[[int, Runs], Attained],
        runs: Runs,
        budget: Budget,
        together: bool,
    ) -> None:
        self._load, self._attained, self._runs, self._budget = load, simulated, runs, budget
        self._together = together
        self._known: dict[int, tuple[Kept, Attained]] = {}

    def levels(self, servers: int) -> tuple[Level, ...]:
        """Each limit with so many servers, of the last runs."""
        return named_levels(self._decided(servers)[1], self._load)

    def verdict(self, servers: int) -> Kept:
        """Whether so many keep all promises: the same with runs of two lengths."""
        return self._decided(servers)[0]

    def too_few(self, servers: int) -> str:
        """Which promise takes more requests to be known kept than came; empty where none does."""
        found = self._decided(servers)[1]
        for number_of, one in enumerate(found.promises):
            quantile = one.slo.quantile
            if quantile == "mean" or found.arrived(number_of) >= least_requests(quantile):
                continue
            return (
                f"{one.slo.words} of {one.name} takes {least_requests(quantile):,} requests that "
                f"keep it, and {found.arrived(number_of):,} came: more replications and seconds, "
                "or a lower quantile"
            )
        return ""

    def _decided(self, servers: int) -> tuple[Kept, Attained]:
        if servers not in self._known:
            self._known[servers] = self._simulated(servers)
        return self._known[servers]

    def _simulated(self, servers: int) -> tuple[Kept, Attained]:
        runs, before = self._runs, None
        most = min(MOST_REQUESTS, MOST_TOGETHER // servers) if self._together else MOST_REQUESTS
        while True:
            found = self._attained(servers, runs)
            word = Answer(found, criteria(found.promises)).kept
            if word == before != "undecided":
                return word, found
            spent = self._budget.clock() > self._budget.end_s
            if spent or 2 * runs.requests > most:
                return "undecided", found
            runs, before = replace(runs, requests=2 * runs.requests), word


def _fewest(trial: _Trial, stable: int, guess: int) -> tuple[int, int]:
    """The most servers that are known to break a promise, and the fewest that keep all.

    What is undecided counts as not enough. One server less than carries the load breaks all.
    """
    low, high, step = stable - 1, max(guess, stable), 1
    most = _FARTHEST * high
    while trial.verdict(high) != "kept":
        low, high, step = high, high + step, 2 * step
        if high > most:
            raise InfeasibleError(
                f"no number of servers up to {low:,} is known to keep the service levels",
                "service levels",
                trial.too_few(low)
                or "relax a limit that even requests without company miss, or allow more seconds",
            )
    step = 1
    while high - low > 1:
        middle = max(high - step, (low + high) // 2)
        if trial.verdict(middle) == "kept":
            high = middle
        else:
            low = middle
        step *= 2
    fewer = high - 1
    while fewer >= stable and trial.verdict(fewer) != "broken":
        fewer -= 1
    return fewer, high
