"""What a prefix cache does for a workload on a server, as users see it (THEORY 10)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from fluid.cache.point import Point
from fluid.cache.served import at_hits
from fluid.cache.states import States, cache_states
from fluid.errors import InputError
from fluid.result import Block, Result, Table, number, percent, seconds
from fluid.server import Server, require_fits
from fluid.steady.intake import Method
from fluid.steady.stability import largest_scale
from fluid.workload import Workload

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_STEP = 0.01
"""Relative step of the differences by memory."""


@dataclass(frozen=True)
class CacheState:
    """One state in which a server with a prefix cache can settle.

    Attributes:
        survive_s: T_c, for how long a cached block survives unused.
        hit_share: Share of the prompt tokens that are found and not computed.
        iteration_time_s: ΔT*.
        resident_tokens: M*, KV of the requests in service; what they share counts once.
        cache_tokens: The rest of the memory, which holds blocks of finished requests.
    """

    survive_s: float
    hit_share: float
    iteration_time_s: float
    resident_tokens: float
    cache_tokens: float

    @classmethod
    def of(cls, point: Point) -> CacheState:
        """The figures of a point in balance."""
        return cls(
            point.survive_s,
            point.hit_share,
            point.iteration_s,
            point.resident_tokens,
            point.free_tokens,
        )


@dataclass(frozen=True, repr=False)
class PrefixCache(Result):
    """All states of a workload on a server that caches prefixes, and what the cache is worth.

    Attributes:
        states: By falling survival time; a large server reaches the first one from empty. None at
            all where the load is too much, whatever is cached.
        saturates: Whether full memory without any reuse, and a queue that grows, is a state too.
        max_scale: α*, the largest multiple of the rates with a state, hits included.
        max_scale_without_reuse: The largest multiple at which a server comes back from any
            overload: beyond it nothing is found any more once memory is full.

    >>> import fluidwait as fw
    >>> talk = fw.Conversation(turns=5.0, think_time_s=20.0, new_tokens=200)
    >>> load = fw.Workload.of(chat=fw.Requests(4.0, 0, 200, conversation=talk))
    >>> found = fw.prefix_cache(load, fw.Server.named("paper-long-decode"))
    >>> len(found.states), found.saturates, round(found.states[0].hit_share, 2)
    (1, False, 0.51)
    """

    workload: Workload
    server: Server
    states: tuple[CacheState, ...]
    saturates: bool
    max_scale: float
    max_scale_without_reuse: float
    found: States = field(compare=False)

    @cached_property
    def band(self) -> tuple[float, float] | None:
        """From which to which multiple of the rates there are two states; None where nowhere."""
        return self.found.band

    @property
    def class_hit_shares(self) -> tuple[float, ...] | None:
        """Share of each class's prompt tokens that are found, from empty; None without a state."""
        here = self.found.from_empty
        return None if here is None else tuple(here.class_hit_shares().tolist())

    @cached_property
    def worth(self) -> tuple[float, float] | None:
        """Change of α* per KV token of memory: as room for residents, and as cache (THEORY 10.5).

        The first at the hits of now, the second through the hits that more memory brings; both at
        the state reached from empty. None without one.
        """
        here = self.found.from_empty
        if here is None:
            return None
        now, tokens = at_hits(self.workload, here), self.server.usable_kv_tokens
        block = self.server.block_tokens
        step = max(round(_STEP * tokens / block), 1) * block
        more, less = (
            self.server.model_copy(update={"kv_capacity_tokens": tokens + change})
            for change in (step, -step)
        )
        room = (largest_scale(now, more) - largest_scale(now, less)) / (2 * step)
        ends = [cache_states(self.workload, one, self.found.cached.method) for one in (more, less)]
        if ends[0].from_empty is None or ends[1].from_empty is None:
            return None
        scales = [
            largest_scale(at_hits(self.workload, one.from_empty), self.server)
            for one in ends
            if one.from_empty
        ]
        return room, (scales[0] - scales[1]) / (2 * step)

    @property
    def sentences(self) -> Iterator[str]:
        """What the states mean, and what a user must know."""
        if not self.states:
            yield (
                "NO BALANCE: the load is too much, whatever is cached; multiply all rates by at "
                f"most {number(self.max_scale)}."
            )
        elif len(self.states) + self.saturates > 1:
            others = [f"one with {percent(one.hit_share)} found" for one in self.states[1:]] + [
                "full memory with a growing queue"
            ] * self.saturates
            found = percent(self.states[0].hit_share)
            yield (
                f"SEVERAL STATES: from empty a large server finds {found} of the prompt tokens; "
                f"{' and '.join(others)} is a state too, in which a burst can leave it. Noise tips"
                " a small server earlier, the more so the fewer requests its memory holds."
            )
        elif self.saturates:
            yield "Full memory with a growing queue is the only state."
        if self.band is not None:
            low, high = (number(one * self.workload.rate_per_s) for one in self.band)
            yield f"There are two states from {low} to {high} requests/s."
        if any(
            one.conversation and one.conversation.think_time_law == "fixed"
            for one in self.workload.classes
        ):
            yield (
                "Think times that do not vary let hits swing: a bad state can persist below the "
                "band as well."
            )
        if self.worth is not None:
            room, cache = (number(1000 * one) for one in self.worth)
            yield (
                f"1,000 more KV tokens change the largest multiple by {room} as room for residents"
                f" and by {cache} as cache."
            )
        yield (
            "Hits are those of an engine that keeps every block until its room is needed, least "
            "recently used first; times in service do not count any wait."
        )

    def frame(self) -> dict[str, list[Any]]:
        """Columns, a row for each state."""
        return {
            name: [getattr(one, name) for one in self.states]
            for name in CacheState.__dataclass_fields__
        }

    def blocks(self) -> Iterator[Block]:
        yield self.table()
        yield from self.sentences

    def table(self) -> Table:
        """The states side by side."""
        names = ["from empty", *[f"state {n}" for n in range(2, len(self.states) + 1)]]
        rows = [
            ("blocks survive", *(seconds(one.survive_s) for one in self.states)),
            ("prompt tokens found", *(percent(one.hit_share) for one in self.states)),
            ("iteration time ΔT*", *(seconds(one.iteration_time_s) for one in self.states)),
            ("residents M*", *(number(one.resident_tokens) for one in self.states)),
            ("cache", *(number(one.cache_tokens) for one in self.states)),
        ]
        scales = [("α*", self.max_scale), ("α* without reuse", self.max_scale_without_reuse)]
        if not self.states:
            names, rows = ["value"], []
        rows += [(name, number(value), *[""] * (len(names) - 1)) for name, value in scales]
        for one, share in zip(self.workload.classes, self.class_hit_shares or (), strict=False):
            rows.append((f"found of {one.name}", percent(share), *[""] * (len(names) - 1)))
        title = f"Prefix cache: {self.workload.name} on {self.server.name}"
        return Table(title, ("figure", *names), tuple(rows))

    def document(self) -> dict[str, Any]:
        rate = self.workload.rate_per_s
        shares = self.class_hit_shares
        return {
            "workload": self.workload.name,
            "server": self.server.name,
            "states": [vars(one) for one in self.states],
            "saturates": self.saturates,
            "max_scale": self.max_scale,
            "max_scale_without_reuse": self.max_scale_without_reuse,
            "two_states_per_s": self.band and [rate * one for one in self.band],
            "class_hit_shares": shares
            and {one.name: share for one, share in zip(self.workload.classes, shares, strict=True)},
            "max_scale_per_kv_token_of_room": self.worth and self.worth[0],
            "max_scale_per_kv_token_of_cache": self.worth and self.worth[1],
            "sentences": list(self.sentences),
        }

    @cached_property
    def curve(self) -> tuple[list[float], list[float | None], list[float | None]]:
        """Survival times, what a cache would hold then, and what residents leave it, in tokens.

        The last two are None where work is too much. States are where the curves cross.
        """
        cached = self.found.cached
        longest = max((one.survive_s for one in self.states), default=0.0)
        longest = max(longest, *self.found.cached.kinds.fixed_think_s, 1.0)
        times = np.linspace(0, 2 * longest, 121).tolist()
        points = [cached.at(one) for one in times]
        return (
            times,
            [None if one is None else one.demand_tokens for one in points],
            [None if one is None else one.free_tokens for one in points],
        )

    def plot(self, ax: Axes | None = None) -> Axes:
        """What the cache would hold and what residents leave it, by survival time."""
        from fluid.plots.cache import plot_cache

        return plot_cache(ax, self)


def prefix_cache(workload: Workload, server: Server, method: Method | None = None) -> PrefixCache:
    """All states of a workload with prefixes on a server that caches them (THEORY 10.4).

    Args:
        method: As for `fluid.steady.equilibrium.equilibrium`.

    Raises:
        InputError: No class has prefixes, or a request does not fit.

    >>> import fluidwait as fw
    >>> load = fw.Workload.of(chat=fw.Requests(4.0, 1200, 100, shared_prefix=1000))
    >>> found = fw.prefix_cache(load, fw.Server.named("paper-long-decode"))
    >>> found.states[0].hit_share > 0.8
    True
    """
    if not workload.has_prefixes:
        allowed = "a class with shared_prefix_tokens or a conversation"
        raise InputError("workload", workload.name, allowed)
    require_fits(workload, server)
    found = cache_states(workload, server, method)
    return PrefixCache(
        workload=workload,
        server=server,
        states=tuple(CacheState.of(one) for one in found.settled),
        saturates=found.saturates,
        max_scale=found.max_scale,
        max_scale_without_reuse=found.saturation_scale,
        found=found,
    )
