"""Where the states of a prefix cache lie."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from matplotlib.axes import Axes

from fluid.plots.style import COLOURS, panels


class Survival(Protocol):
    """A state's survival time and room."""

    @property
    def survive_s(self) -> float: ...
    @property
    def cache_tokens(self) -> float: ...


class Balance(Protocol):
    """Demand and room of a cache by survival time, and where they meet."""

    @property
    def curve(self) -> tuple[list[float], list[float | None], list[float | None]]: ...
    @property
    def states(self) -> Sequence[Survival]: ...


def plot_cache(ax: Axes | None, found: Balance) -> Axes:
    """What the cache would hold and what residents leave it, by survival time."""
    axes: Axes
    times, demand, free = found.curve
    with panels(ax, (6, 4)) as axes:
        axes.plot(times, _numbers(demand), color=COLOURS[0], label="the cache would hold")
        axes.plot(times, _numbers(free), color=COLOURS[1], label="residents leave")
        axes.plot(
            [one.survive_s for one in found.states],
            [one.cache_tokens for one in found.states],
            *("ko",),
            label="state",
        )
        axes.set(
            xlabel="time that a block survives unused (s)",
            ylabel="KV tokens",
            title="Prefix cache: room and demand",
            ylim=(0, None),
        )
        axes.legend()
    return axes


def _numbers(values: Sequence[float | None]) -> list[float]:
    return [np.nan if one is None else one for one in values]
