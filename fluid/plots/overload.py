"""Pictures of queues above capacity and of closed loops."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fluid.plots.style import COLOURS, Panels, panels

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
        axes.legend()
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
        axes.legend(lines, [str(one.get_label()) for one in lines])
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
        axes.legend(lines, [str(one.get_label()) for one in lines])
    return axes


def plot_offered(
    ax: Panels | None,
    lines: Mapping[str, Sequence[tuple[float, float, float, float]]],
    capacity_per_s: float,
    limit_s: float,
    asked: str,
) -> Panels:
    """Goodput, refused share and TTFT against the offered rate, side by side.

    Args:
        ax: Three axes; those of a new figure where None.
        lines: By name of the bound: offered rate, goodput per second, refused share, seconds.
        capacity_per_s: What is completed above capacity.
        limit_s: Of TTFT; asked: of which statistic of it, in words.
    """
    with panels(ax, (11, 3.6), columns=3) as axes:
        goodput, refused, ttft = np.ravel(axes)
        for colour, (label, points) in zip(COLOURS, lines.items(), strict=False):
            offered, good, turned_away, first_s = np.array(points).T
            goodput.plot(offered, good, "o-", ms=3, color=colour, label=label)
            refused.plot(offered, 100 * turned_away, "o-", ms=3, color=colour, label=label)
            ttft.plot(offered, first_s, "o-", ms=3, color=colour, label=label)
        for one in (goodput, refused, ttft):
            one.axvline(capacity_per_s, color="black", ls=":", lw=1)
            one.set_xlabel("offered (requests/s)")
        ttft.axhline(limit_s, color="black", ls="--", lw=1, label="limit")
        goodput.set_ylabel("attain their levels (requests/s)")
        refused.set_ylabel("refused (%)")
        ttft.set(ylabel=f"{asked} of the admitted (s)", yscale="log")
        goodput.set_ylim(bottom=0)
        goodput.legend(title="bound of the queue")
    return axes
