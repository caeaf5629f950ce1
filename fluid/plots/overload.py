"""Pictures of queues above capacity and of closed loops."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fluid.plots.style import COLOURS, panels

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = NDArray[np.float64]


def plot_bounded_queue(
    ax: Axes | None,
    bounds: Floats,
    curves_s: Mapping[str, Floats],
    here: float,
    full_from: float,
    title: str,
) -> Axes:
    """Waits against the bound of a queue.

    Args:
        bounds: Requests, shape (points,); curves_s: seconds by name, alike.
        here: The bound that was asked about.
        full_from: Bound below which the queue runs empty at times: lines are dotted there.
    """
    axes: Axes
    with panels(ax, (6, 4.2)) as axes:
        sure = bounds >= full_from
        for colour, (label, waits) in zip(COLOURS, curves_s.items(), strict=False):
            axes.plot(bounds[sure], waits[sure], color=colour, label=label)
            axes.plot(bounds[~sure], waits[~sure], ":", color=colour)
        axes.axvline(here, color="black", ls="--", lw=1, label="this bound")
        axes.set(
            xlabel="bound of the queue (requests)", ylabel="wait for admission (s)", title=title
        )
        axes.set_ylim(bottom=0)
        axes.legend(fontsize=8)
    return axes


def plot_impatience(
    ax: Axes | None,
    rates_per_s: Floats,
    waits_s: Floats,
    shares: Floats,
    here: tuple[float, float],
    title: str,
) -> Axes:
    """Wait and the share that gives up, against the offered rate; one scale each.

    Args:
        rates_per_s: Shape (points,); waits_s and shares alike.
        here: Rate and wait that were asked about.
    """
    axes: Axes
    with panels(ax, (6, 4.2)) as axes:
        axes.plot(rates_per_s, waits_s, color=COLOURS[0], label="wait")
        axes.plot(*here, "k*", ms=10, ls="none", label="this load")
        axes.set(xlabel="offered rate (requests/s)", ylabel="wait for admission (s)", title=title)
        axes.set_ylim(bottom=0)
        right = axes.twinx()
        right.plot(rates_per_s, 100 * shares, "--", color=COLOURS[1], label="give up")
        right.set_ylabel("give up (%)")
        right.set_ylim(0, 100)
        lines = [*axes.get_lines(), *right.get_lines()]
        axes.legend(lines, [str(one.get_label()) for one in lines], fontsize=8)
    return axes


def plot_fixed_clients(
    ax: Axes | None,
    clients: NDArray[np.int64],
    completed_per_s: Floats,
    latency_s: Floats,
    here: tuple[float, float],
    think_s: float,
    title: str,
) -> Axes:
    """Completions and latency against the number of clients, with what bounds completions.

    Args:
        clients: From 1 on, shape (points,); completed_per_s and latency_s alike.
        here: Clients and completions that were asked about.
    """
    axes: Axes
    with panels(ax, (6, 4.2)) as axes:
        axes.plot(clients, completed_per_s, color=COLOURS[0], label="completed")
        alone = np.minimum(clients / (think_s + latency_s[0]), 1.05 * completed_per_s.max())
        axes.plot(clients, alone, ":", color=COLOURS[0], label="if each were alone")
        axes.plot(*here, "k*", ms=10, ls="none", label="this number")
        axes.set(xlabel="clients", ylabel="completed (requests/s)", title=title)
        axes.set_ylim(bottom=0)
        right = axes.twinx()
        right.plot(clients, latency_s, "--", color=COLOURS[1], label="latency")
        right.set_ylabel("mean latency (s)")
        right.set_ylim(bottom=0)
        lines = [*axes.get_lines(), *right.get_lines()]
        axes.legend(lines, [str(one.get_label()) for one in lines], fontsize=8)
    return axes
