"""Phase diagrams: the margin and its cause over any two parameters of a load and a server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fluid.errors import InputError
from fluid.result import Block, Result, Table, number, percent
from fluid.server import Server
from fluid.steady.stability import largest_scale, stability
from fluid.workload import Workload

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = NDArray[np.float64]
Change = Callable[[Workload, Server, float], tuple[Workload, Server]]


@dataclass(frozen=True)
class Axis:
    """One parameter of a phase diagram.

    Attributes:
        name: A key of `PARAMETERS`.
        values: Increasing values, shape (k,), in the parameter's unit.
    """

    name: str
    values: tuple[float, ...]


@dataclass(frozen=True, repr=False, eq=False)
class Phase(Result):
    """Where a load stands against the boundary as two parameters change.

    Attributes:
        margins: 1 − 1/α* at every pair, shape (vertical, horizontal); NaN where a request does not
            fit into the memory at all.
        memory_shares: Memory's share of the boundary load, alike.
    """

    workload: Workload
    server: Server
    horizontal: Axis
    vertical: Axis
    margins: Floats
    memory_shares: Floats

    def plot(self, ax: Axes | None = None) -> Axes:
        """The margin as colour, with the boundary and the line where the cause changes."""
        from fluid.plots.steady import plot_phase

        horizontal, vertical = (
            (PARAMETERS[axis.name][0], axis.values) for axis in (self.horizontal, self.vertical)
        )
        return plot_phase(
            ax,
            horizontal,
            vertical,
            self.margins,
            self.memory_shares,
            f"{self.workload.name} on {self.server.name}",
        )

    def frame(self) -> dict[str, Floats]:
        """Columns, a row for each pair."""
        x, y = np.meshgrid(self.horizontal.values, self.vertical.values)
        return {
            self.horizontal.name: x.ravel(),
            self.vertical.name: y.ravel(),
            "margin": self.margins.ravel(),
            "memory_share": self.memory_shares.ravel(),
        }

    def blocks(self) -> Iterator[Block]:
        across = self.horizontal
        yield Table(
            f"Margin of {self.workload.name} on {self.server.name}",
            (
                self.vertical.name,
                f"at {across.name} {number(across.values[0])}",
                f"at {across.name} {number(across.values[-1])}",
                "stable",
            ),
            tuple(
                (number(value), _figure(row[0]), _figure(row[-1]), _share(row >= 0))
                for value, row in zip(self.vertical.values, self.margins, strict=True)
            ),
        )
        yield f"{_share(self.margins >= 0)} of the pairs are stable."

    def document(self) -> dict[str, Any]:
        return {
            "workload": self.workload.name,
            "server": self.server.name,
            "horizontal": {"name": self.horizontal.name, "values": list(self.horizontal.values)},
            "vertical": {"name": self.vertical.name, "values": list(self.vertical.values)},
            "margins": _plain(self.margins),
            "memory_shares": _plain(self.memory_shares),
        }


def _figure(value: float) -> str:
    return number(None if np.isnan(value) else float(value), 2)


def _share(stable: NDArray[np.bool_]) -> str:
    return percent(float(stable.mean()), 0)


def _plain(grid: Floats) -> list[list[float | None]]:
    return [[None if np.isnan(one) else float(one) for one in row] for row in grid]


def phase(workload: Workload, server: Server, **values: ArrayLike) -> Phase:
    """Margin and cause at every pair of values of two parameters (THEORY 2.3).

    Args:
        values: Increasing values > 0 of two of `PARAMETERS`, the horizontal one first.

    Raises:
        InputError: Not two parameters, an unknown one, or fewer than two values of one.

    >>> import fluidwait as fw
    >>> load = fw.Workload.of(chat=fw.Requests(7.0, prompt=512, output=120))
    >>> server = fw.Server.named("engine-long-decode")
    >>> found = fw.phase(load, server, rate=[10, 15, 20], kv_tokens=[5_000, 100_000])
    >>> (found.margins > 0).tolist()
    [[False, False, False], [True, True, False]]
    """
    if len(values) != 2:
        raise InputError("axis", ", ".join(values), "two of " + ", ".join(PARAMETERS))
    horizontal, vertical = (
        Axis(name, tuple(np.asarray(one, dtype=float).ravel().tolist()))
        for name, one in values.items()
    )
    for axis in (horizontal, vertical):
        if axis.name not in PARAMETERS:
            raise InputError("axis", axis.name, "one of " + ", ".join(PARAMETERS))
        if len(axis.values) < 2 or min(axis.values) <= 0:
            raise InputError(axis.name, axis.values, "at least two values > 0")
    found = np.full((2, len(vertical.values), len(horizontal.values)), np.nan)
    for row, y in enumerate(vertical.values):
        for column, x in enumerate(horizontal.values):
            changed = PARAMETERS[horizontal.name][1](workload, server, x)
            changed = PARAMETERS[vertical.name][1](*changed, y)
            try:
                here = stability(*changed)
            except InputError:
                continue
            found[:, row, column] = here.margin, here.memory_share
    return Phase(workload, server, horizontal, vertical, *found)


def rate_and_memory(workload: Workload, server: Server) -> Phase:
    """The phase over total rate and KV memory, from a tenth to twice of what there is."""
    multiples = np.linspace(0.1, 2.0, 40)
    limit_per_s = largest_scale(workload, server) * workload.rate_per_s
    memory = server.usable_kv_tokens * multiples
    return phase(workload, server, rate=limit_per_s * multiples, kv_tokens=memory)


def _with_rate(workload: Workload, server: Server, value: float) -> tuple[Workload, Server]:
    return workload.at_rate(value), server


def _with_memory(workload: Workload, server: Server, value: float) -> tuple[Workload, Server]:
    return workload, server.changed(kv_capacity_tokens=round(value))


def _with_overhead(workload: Workload, server: Server, value: float) -> tuple[Workload, Server]:
    shift_s = value - server.iteration_time.overhead_s
    knots_s = tuple(max(0.0, one + shift_s) for one in server.iteration_time.seconds_knots)
    return workload, _with_time(server, seconds_knots=knots_s)


def _with_read_time(workload: Workload, server: Server, value: float) -> tuple[Workload, Server]:
    return workload, _with_time(server, per_kv_token_s=value)


def _with_time(server: Server, **changes: Any) -> Server:
    return server.changed(iteration_time=server.iteration_time.changed(**changes))


def _scaled_lengths(field: str) -> Change:
    def change(workload: Workload, server: Server, factor: float) -> tuple[Workload, Server]:
        classes = tuple(
            one.changed(**{field: round(getattr(one, field) * factor) or 1})
            if getattr(one, field)
            else one
            for one in workload.classes
        )
        return workload.changed(classes=classes), server

    return change


PARAMETERS: dict[str, tuple[str, Change]] = {
    "rate": ("total rate (requests/s)", _with_rate),
    "kv_tokens": ("KV memory (tokens)", _with_memory),
    "overhead_s": ("overhead of an iteration (s)", _with_overhead),
    "per_kv_token_s": ("reading one KV token (s)", _with_read_time),
    "output_factor": (
        "output lengths (multiples of the workload's)",
        _scaled_lengths("decode_tokens"),
    ),
    "prompt_factor": (
        "prompt lengths (multiples of the workload's)",
        _scaled_lengths("prefill_tokens"),
    ),
}
"""Parameters of phase diagrams and sweeps: axis label with unit, and how to set one."""
