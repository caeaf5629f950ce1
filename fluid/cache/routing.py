"""Where the turns of a conversation go: to one server, or to whichever comes next (THEORY 10).

Sticky routing (by a hash of the first block) sends a conversation to one server, so that each of R
servers sees 1/R of the conversations. Round robin spreads turns: a turn finds what the conversation
left on its server when it was last there, m turns ago with chance (1 − 1/R)^(m−1)/R. Either way
each server keeps its own copy of a shared prefix.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fluid.cache.states import States, cache_states
from fluid.errors import InputError
from fluid.result import Block, Result, Table, number, percent
from fluid.server import Server, require_fits
from fluid.workload import Workload


@dataclass(frozen=True)
class Routed:
    """What a way of routing reaches.

    Attributes:
        hit_share: Share of the prompt tokens that are found; None where there is no balance.
        capacity_per_s: The largest total rate of all servers together.
    """

    hit_share: float | None
    capacity_per_s: float


@dataclass(frozen=True, repr=False)
class Routing(Result):
    """Sticky routing beside round robin over identical servers.

    >>> import fluidwait as fw
    >>> talk = fw.Conversation(turns=5.0, think_time_s=5.0, new_tokens=200)
    >>> load = fw.Workload.of(chat=fw.Requests(8.0, 0, 200, conversation=talk))
    >>> found = fw.routing(load, fw.Server.named("paper-long-decode"), 2)
    >>> found.sticky.hit_share > found.round_robin.hit_share
    True
    """

    workload: Workload
    server: Server
    servers: int
    sticky: Routed
    round_robin: Routed

    @property
    def sentence(self) -> str:
        """The difference in one sentence."""
        gain = self.sticky.capacity_per_s / self.round_robin.capacity_per_s - 1
        shares = [
            "no balance" if one.hit_share is None else f"{percent(one.hit_share)} found"
            for one in (self.sticky, self.round_robin)
        ]
        return (
            f"Routing over {self.servers} x {self.server.name}: sticky (by hash of the first block)"
            f" {shares[0]}, up to {number(self.sticky.capacity_per_s)} /s; round robin {shares[1]},"
            f" up to {number(self.round_robin.capacity_per_s)} /s: sticky carries"
            f" {percent(gain)} more."
        )

    def frame(self) -> dict[str, list[Any]]:
        """Columns, a row for each way."""
        ways = (self.sticky, self.round_robin)
        return {
            "routing": ["sticky", "round robin"],
            "hit_share": [one.hit_share for one in ways],
            "capacity_per_s": [one.capacity_per_s for one in ways],
        }

    def blocks(self) -> Iterator[Block]:
        columns = self.frame()
        yield Table(
            f"{self.workload.name} on {self.servers} x {self.server.name}",
            ("routing", "prompt tokens found", "up to /s"),
            tuple(
                (way, "–" if share is None else percent(share), number(rate))
                for way, share, rate in zip(*columns.values(), strict=True)
            ),
        )
        yield self.sentence

    def document(self) -> dict[str, Any]:
        return {
            "workload": self.workload.name,
            "server": self.server.name,
            "servers": self.servers,
            "sticky": vars(self.sticky),
            "round_robin": vars(self.round_robin),
        }


def routing(workload: Workload, server: Server, servers: int) -> Routing:
    """What sticky routing and round robin reach with some identical servers.

    Args:
        workload: Of all servers together.

    Raises:
        InputError: No class has prefixes, a request does not fit, or fewer than one server.

    >>> import fluidwait as fw
    >>> load = fw.Workload.of(chat=fw.Requests(4.0, 1200, 100, shared_prefix=1000))
    >>> found = fw.routing(load, fw.Server.named("paper-long-decode"), 2)
    >>> found.sticky == found.round_robin
    True
    """
    if servers < 1:
        raise InputError("servers", servers, "at least 1")
    if not workload.has_prefixes:
        allowed = "a class with shared_prefix_tokens or a conversation"
        raise InputError("workload", workload.name, allowed)
    require_fits(workload, server)
    each = workload.scaled(1 / servers)
    rate = workload.rate_per_s
    return Routing(
        workload,
        server,
        servers,
        sticky=_routed(cache_states(each, server), rate),
        round_robin=_routed(cache_states(each, server, None, servers), rate),
    )


def _routed(states: States, rate_per_s: float) -> Routed:
    here = states.from_empty
    return Routed(None if here is None else here.hit_share, states.max_scale * rate_per_s)
