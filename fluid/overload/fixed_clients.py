"""A closed loop: N clients, each of which waits for its answer and then thinks (THEORY 13).

Without think time and with spread lengths, a client is at its first stage in one of S̄ iterations,
independently of the others: the law of an iteration is known. With a think time Z it is away for
Z + r, r the wait for the next iteration; a tagged request sees the others as N − 1 clients
(arrival theorem). Where N fill memory or seats, X is what the server completes when saturated.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from fluid.errors import InputError
from fluid.overload.closed_times import closed_times
from fluid.overload.iterations import Mix
from fluid.result import Block, Result, Table, columns_of, notes, number, seconds
from fluid.server import Server, require_fits
from fluid.steady.stability import largest_scale
from fluid.workload import Workload

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Limit = Literal["clients", "seats", "memory"]

_POINTS = 30
_FEW = 4
"""Up to so many clients the law of the others is furthest from independent."""


@dataclass(frozen=True)
class ClassTimes:
    """Means of one class in seconds; TPOT is None with one output token."""

    name: str
    share: float
    ttft_s: float
    tpot_s: float | None
    latency_s: float


@dataclass(frozen=True, repr=False)
class FixedClients(Result):
    """A closed loop in balance.

    Attributes:
        clients: N.
        think_s: Z, mean of an exponential law; 0 for none.
        seats: Most requests in service.
        limited_by: "clients" where neither seats nor memory are short.
        lockstep: Whether all clients stay in step for ever (THEORY 13.3).
        completed_per_s: X = N/(Z + R).
        in_service: X·R, waiting included.
        kv_tokens: KV of those in service, mean.
        memory_clients: N_mem, how many fit into memory.
        iteration_s: Mean iteration time as a request in service sees it; None where memory binds.
        ttft_s, tpot_s, latency_s: Means over requests.
        first_s: Of the first iteration, when all clients come at once.

    >>> import fluidwait as fw
    >>> load = fw.Workload.of(chat=fw.Requests(1.0, prompt=512, output=150))
    >>> found = fw.fixed_clients(load, fw.Server.named("engine-long-decode"), 1)
    >>> print(f"{found.completed_per_s:.3f} {found.latency_s:.3f}")
    0.609 1.642
    """

    workload: Workload
    server: Server
    clients: int
    think_s: float
    seats: float
    limited_by: Limit
    lockstep: bool
    completed_per_s: float
    in_service: float
    kv_tokens: float
    memory_clients: float
    iteration_s: float | None
    ttft_s: float
    tpot_s: float | None
    latency_s: float
    first_s: float
    classes: tuple[ClassTimes, ...]

    @property
    def caveats(self) -> tuple[str, ...]:
        """What the figures leave out, in sentences."""
        found = []
        if self.lockstep:
            found.append(
                "all requests take the same number of iterations, and nobody thinks: the clients "
                "stay in step for ever, so that a first token waits for all prompts"
            )
        elif self.think_s > 0 and self.clients <= _FEW:
            found.append(f"with {self.clients} clients errors are largest, up to 8 % in TTFT")
        if self.limited_by == "memory":
            found.append(
                f"memory holds {self.memory_clients:.4g} of them: the rest waits, and what is "
                "completed is the limit that admission with a table reaches"
            )
        if self.limited_by == "seats":
            found.append(f"{self.seats:g} are in service at most, the others wait for a seat")
        return tuple(found)

    def job_ttft_s(self, requests_per_client: int) -> float:
        """Mean TTFT of a job in which each client sends so many (THEORY 13.4).

        All come at once at first.

        Raises:
            InputError: Less than one.
        """
        if requests_per_client < 1:
            raise InputError("requests_per_client", requests_per_client, "at least 1")
        return (self.first_s + (requests_per_client - 1) * self.ttft_s) / requests_per_client

    def frame(self) -> dict[str, list[Any]]:
        """Columns, a row for each class."""
        return columns_of(self.classes)

    def blocks(self) -> Iterator[Block]:
        yield Table(
            f"{self.clients} clients of {self.workload.name} on {self.server.name}",
            ("figure", "value"),
            (
                ("think time", seconds(self.think_s)),
                ("completed", f"{number(self.completed_per_s)} /s"),
                ("in service or waiting for it", number(self.in_service)),
                ("memory holds clients", number(self.memory_clients)),
                ("KV tokens", number(self.kv_tokens)),
                ("iteration time", seconds(self.iteration_s)),
                ("mean TTFT", seconds(self.ttft_s)),
                ("mean TPOT", seconds(self.tpot_s)),
                ("mean latency", seconds(self.latency_s)),
            ),
        )
        if len(self.classes) > 1:
            yield Table(
                "Classes",
                ("class", "share", "TTFT s", "TPOT s", "latency s"),
                tuple(
                    (
                        one.name,
                        *map(number, (one.share, one.ttft_s, one.tpot_s, one.latency_s)),
                    )
                    for one in self.classes
                ),
            )
        yield from notes(self.caveats)
        yield (
            f"Each client gets an answer in {seconds(self.latency_s)}: "
            f"{number(self.completed_per_s)} /s in all. {_LIMIT_WORDS[self.limited_by]}."
        )

    def document(self) -> dict[str, Any]:
        named = (
            *("clients", "think_s", "limited_by", "lockstep", "completed_per_s", "in_service"),
            *("kv_tokens", "memory_clients", "iteration_s", "ttft_s", "tpot_s", "latency_s"),
        )
        return {
            "workload": self.workload.name,
            "server": self.server.name,
            "seats": None if math.isinf(self.seats) else self.seats,
            **{name: getattr(self, name) for name in named},
            "classes": [asdict(one) for one in self.classes],
            "caveats": list(self.caveats),
        }

    def plot(self, ax: Axes | None = None) -> Axes:
        """Completions and latency against the number of clients, with their asymptotes."""
        from fluid.plots.overload import plot_fixed_clients

        numbers = np.unique(np.geomspace(1, 2 * self.clients + 2, _POINTS).round().astype(int))
        found = [
            fixed_clients(self.workload, self.server, one, think_s=self.think_s, seats=self.seats)
            for one in numbers.tolist()
        ]
        return plot_fixed_clients(
            ax,
            numbers,
            np.array([one.completed_per_s for one in found]),
            np.array([one.latency_s for one in found]),
            (self.clients, self.completed_per_s),
            self.think_s,
            f"{self.workload.name} on {self.server.name}, think time {self.think_s:g} s",
        )


_LIMIT_WORDS = {
    "clients": "More clients would complete more",
    "seats": "Seats are full: more clients would only wait",
    "memory": "Memory is full: more clients would only wait",
}


def fixed_clients(
    workload: Workload,
    server: Server,
    clients: int,
    *,
    think_s: float = 0.0,
    seats: float = math.inf,
    saturated_per_s: float | None = None,
) -> FixedClients:
    """N clients that wait for their answers (THEORY 13); the rates of the workload give its mix.

    Args:
        think_s: Mean time, exponential, between an answer and the client's next request.
        seats: Most requests in service at the same time.
        saturated_per_s: What the server completes where N fill its memory; None for the fluid
            limit.

    Raises:
        InputError: A request does not fit, or a figure is out of range.

    >>> import fluidwait as fw
    >>> load = fw.Workload.of(a=fw.Requests(1.0, 512, 100), b=fw.Requests(1.0, 512, 200))
    >>> found = fw.fixed_clients(load, fw.Server.named("engine-long-decode"), 64, think_s=5.0)
    >>> found.limited_by, round(found.completed_per_s, 2)
    ('clients', 8.14)
    """
    require_fits(workload, server)
    if isinstance(clients, bool) or clients != int(clients) or clients < 1:
        raise InputError("clients", clients, "a whole number, at least 1")
    if not 0 <= think_s < math.inf:
        raise InputError("think_s", think_s, "finite seconds, 0 or more")
    if not seats >= 1:
        raise InputError("seats", seats, "at least 1")
    limit_per_s = largest_scale(workload, server) * workload.rate_per_s
    if saturated_per_s is not None and not 0 < saturated_per_s <= limit_per_s * (1 + 1e-9):
        allowed = f"a rate > 0, at most the fluid limit {limit_per_s:.4g} /s"
        raise InputError("saturated_per_s", saturated_per_s, allowed)
    mix = Mix.of(workload, server)
    fits = server.usable_kv_tokens / mix.kv_per_resident
    times = closed_times(mix, int(clients), think_s)
    limit: Limit = "clients"
    full_s = times.latency_s
    room = min(seats, fits)
    if times.in_service(think_s) > room * (1 + 1e-12):
        limit = "seats" if seats <= fits else "memory"
        times = closed_times(mix, int(room), 0.0, spread=limit == "memory")
        rate_per_s = times.clients / times.latency_s
        if limit == "memory":
            rate_per_s = limit_per_s if saturated_per_s is None else saturated_per_s
        full_s = max(clients / rate_per_s - think_s, times.latency_s)
    waits_s = full_s - times.latency_s
    completed_per_s = clients / (think_s + full_s)
    in_service = completed_per_s * full_s
    return FixedClients(
        workload=workload,
        server=server,
        clients=int(clients),
        think_s=think_s,
        seats=seats,
        limited_by=limit,
        lockstep=times.lockstep,
        completed_per_s=completed_per_s,
        in_service=in_service,
        kv_tokens=min(in_service, room) * mix.kv_per_resident,
        memory_clients=fits,
        iteration_s=None if limit == "memory" else times.iteration_s,
        ttft_s=times.ttft_s + waits_s,
        tpot_s=times.tpot_s,
        latency_s=full_s,
        first_s=mix.iteration(int(min(clients, room)), 1.0, 0.0).mean_s(),
        classes=tuple(
            ClassTimes(one.name, share, ttft_s + waits_s, tpot_s, latency_s + waits_s)
            for one, share, (ttft_s, tpot_s, latency_s) in zip(
                workload.classes, mix.shares.tolist(), times.by_class, strict=True
            )
        ),
    )
