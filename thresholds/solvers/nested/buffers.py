"""Memory of Nested WAIT against the number of segments (THEORY 5.2)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fluid.errors import InfeasibleError
from fluid.result import Block, Result, Table, number
from thresholds.solvers.nested.cuts import CutSearch, buffer_designs

if TYPE_CHECKING:
    from fluid.plots.style import Panels

_BUFFERS = ("deterministic buffer", "stochastic buffer")


@dataclass(frozen=True, repr=False)
class BufferStudy(Result):
    """KV that designs of one rule need, by number of segments: base memory falls, buffers grow.

    Attributes:
        server: Name of the server, which has `capacity_tokens`.
        segments: L of each design.
        base_tokens: M(n) of each (THEORY 4.4).
        deterministic_buffer_tokens, stochastic_buffer_tokens: Full boundary queues, and what they
            may grow beyond that by chance (THEORY 4.5).
        loads: Λ_1 ΔT(n)/n_1; drift holds below 1.
    """

    server: str
    capacity_tokens: float
    segments: tuple[int, ...]
    base_tokens: tuple[float, ...]
    deterministic_buffer_tokens: tuple[float, ...]
    stochastic_buffer_tokens: tuple[float, ...]
    loads: tuple[float, ...]

    @property
    def total_tokens(self) -> tuple[float, ...]:
        """Base memory and buffers together."""
        parts = (
            self.base_tokens,
            self.deterministic_buffer_tokens,
            self.stochastic_buffer_tokens,
        )
        return tuple(map(sum, zip(*parts, strict=True)))

    @property
    def least_tokens(self) -> float:
        """The least that any of them needs."""
        return min(self.total_tokens)

    def blocks(self) -> Iterator[Block]:
        """A row per number of segments, then the least of them."""
        rows = zip(*self.frame().values(), strict=True)
        yield Table(
            f"Nested WAIT on {self.server}: KV tokens by number of segments",
            (
                "segments",
                "base memory",
                "deterministic buffer",
                "stochastic buffer",
                "total",
                "load",
            ),
            tuple(tuple(number(float(cell)) for cell in row) for row in rows),
            spare=("load", *_BUFFERS),
        )
        best = self.segments[self.total_tokens.index(self.least_tokens)]
        yield (
            f"Least with {best} segments: {number(self.least_tokens)} of "
            f"{number(self.capacity_tokens)} tokens."
        )

    def document(self) -> dict[str, Any]:
        """Rows and the server's capacity."""
        columns = self.frame()
        rows = zip(*columns.values(), strict=True)
        return {
            "server": self.server,
            "capacity_tokens": self.capacity_tokens,
            "designs": [dict(zip(columns, row, strict=True)) for row in rows],
        }

    def frame(self) -> dict[str, list[Any]]:
        """One row per number of segments."""
        return {
            "segments": list(self.segments),
            "base_tokens": list(self.base_tokens),
            "deterministic_buffer_tokens": list(self.deterministic_buffer_tokens),
            "stochastic_buffer_tokens": list(self.stochastic_buffer_tokens),
            "total_tokens": list(self.total_tokens),
            "load": list(self.loads),
        }

    def plot(self, ax: Panels | None = None) -> Panels:
        """Stacked bars of the parts; pale where drift fails."""
        from thresholds.solvers.nested.buffer_plot import draw_buffers

        parts = {
            "base memory": self.base_tokens,
            _BUFFERS[0]: self.deterministic_buffer_tokens,
            _BUFFERS[1]: self.stochastic_buffer_tokens,
        }
        drift = [one < 1 for one in self.loads]
        title = f"Nested WAIT on {self.server}"
        return draw_buffers(self.segments, parts, drift, self.capacity_tokens, title, ax)


def buffer_study(search: CutSearch) -> BufferStudy:
    """The designs of `buffer_designs`, part by part.

    Raises:
        InfeasibleError: Drift fails for every design.
    """
    designs = buffer_designs(search)
    if not designs:
        raise InfeasibleError("no design to draw: drift fails for all", "drift", "lower the rates")
    return BufferStudy(
        server=search.server.name,
        capacity_tokens=search.server.usable_kv_tokens,
        segments=tuple(len(one.ends) for one in designs),
        base_tokens=tuple(float(one.memory.base) for one in designs),
        deterministic_buffer_tokens=tuple(
            float(one.memory.deterministic_buffer) for one in designs
        ),
        stochastic_buffer_tokens=tuple(float(one.memory.stochastic_buffer) for one in designs),
        loads=tuple(one.load for one in designs),
    )
