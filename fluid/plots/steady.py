"""Pictures of the steady fluid model: what they show is computed elsewhere and handed in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from fluid.plots.style import BELOW, COLOURS, Panels, is_narrow, panels
from fluid.server import Server

Floats = NDArray[np.float64]


class TwoClasses(Protocol):
    """A stability region, of which these pictures need two classes."""

    @property
    def names(self) -> tuple[str, ...]: ...

    @property
    def server(self) -> Server: ...

    @property
    def operating_point_per_s(self) -> Floats: ...

    def boundary(self) -> Floats: ...


def plot_region(ax: Panels | None, region: TwoClasses) -> Panels:
    """The region of two classes with the workload's operating point.

    Raises:
        InputError: The region does not have two classes.
    """
    with panels(ax, (6, 5)) as axes:
        draw_region(axes, region)
        axes.legend()
    return axes


def draw_region(axes: Axes, region: TwoClasses) -> None:
    """The fluid boundary of two classes and the operating point; the caller adds a legend.

    Raises:
        InputError: The region does not have two classes.
    """
    edge = region.boundary()
    axes.fill(*np.vstack([edge, [[0, 0]]]).T, color=COLOURS[0], alpha=0.12, lw=0)
    axes.plot(*edge.T, color=COLOURS[0], label="fluid boundary")
    axes.plot(*region.operating_point_per_s, "k*", ms=10, ls="none", label="this workload")
    first, second = region.names
    axes.set(
        xlabel=f"rate of {first} (requests/s)",
        ylabel=f"rate of {second} (requests/s)",
        title=f"Stable rates on {region.server.name}",
    )
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)


def plot_composition(ax: Axes | None, held_kv_tokens: Mapping[str, Floats], title: str) -> Axes:
    """KV held by stage, stacked over the classes (THEORY 2.2).

    Args:
        held_kv_tokens: By class, tokens at each stage, all of one length.
    """
    axes: Axes
    held = np.array(list(held_kv_tokens.values()))
    with panels(ax, (6.5, 4)) as axes:
        colours = [COLOURS[k % len(COLOURS)] for k in range(len(held))]
        axes.stackplot(
            np.arange(held.shape[1] + 1.0),
            *np.hstack([held, held[:, -1:]]),
            colors=colours,
            labels=list(held_kv_tokens),
            step="post",
            alpha=0.8,
        )
        axes.set(
            xlabel="stage (iterations since admission)",
            ylabel="KV held (tokens per stage)",
            title=title,
        )
        axes.legend()
    return axes


def plot_phase(
    ax: Axes | None,
    horizontal: tuple[str, Sequence[float]],
    vertical: tuple[str, Sequence[float]],
    margins: Floats,
    memory_shares: Floats,
    title: str,
) -> Axes:
    """The margin over two parameters, with the boundary and the line where causes change.

    Args:
        horizontal, vertical: Label and values of a parameter.
        margins, memory_shares: Shape (vertical, horizontal).
    """
    axes: Axes
    with panels(ax, (6.5, 5)) as axes:
        grid = (horizontal[1], vertical[1])
        # Cividis is perceptually uniform, also for colour-blind readers.
        filled = axes.contourf(
            *grid, margins, levels=np.linspace(-1, 1, 21), cmap="cividis", extend="both"
        )
        figure = axes.get_figure(root=True)
        assert figure is not None
        figure.colorbar(filled, ax=axes, label="margin (share of the boundary load)")
        for values, level, dash in ((margins, 0.0, "-"), (memory_shares, 0.5, ":")):
            if np.nanmin(values) < level < np.nanmax(values):
                axes.contour(*grid, values, levels=[level], colors=COLOURS[1], linestyles=dash)
        axes.plot([], [], "-", color=COLOURS[1], label="stability boundary")
        axes.plot([], [], ":", color=COLOURS[1], label="memory share ½: the cause changes")
        axes.set(xlabel=horizontal[0], ylabel=vertical[0], title=title)
        place: dict[str, Any] = BELOW if is_narrow(axes) else {"loc": "upper right"}
        axes.legend(**place)
    return axes
