"""Pictures of the transient fluid model: a path, its population by stage, and the recovery map."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from numpy.typing import ArrayLike, NDArray

from fluid.plots.style import COLOURS, Panels, panels

Floats = NDArray[np.float64]

_BANDS = 80
"""Most bands of `plot_population`."""

NEVER_COLOUR = COLOURS[1]
"""Vermillion: stands out from viridis in every kind of vision."""


def plot_recovery_map(
    ax: Axes | None,
    rates_per_s: ArrayLike,
    burst_requests: ArrayLike,
    recovery_s: ArrayLike,
    horizon_s: float,
    simulated_never: ArrayLike | None = None,
) -> Axes:
    """Recovery time over rate × burst; where it does not come in time, one colour of its own.

    Args:
        recovery_s: NaN for never, shape (rates, bursts).
        horizon_s: How long recovery is waited for. Colours reach so far, so that maps of one
            horizon can be compared.
        simulated_never: Share of simulated paths that never recover, alike; drawn as circles, open
            where most recover and filled where most do not.
    """
    axes: Axes
    rates, bursts = np.asarray(rates_per_s, dtype=float), np.asarray(burst_requests, dtype=float)
    times = np.ma.masked_invalid(np.asarray(recovery_s, dtype=float))
    colours = mpl.colormaps["viridis"].with_extremes(bad=NEVER_COLOUR)
    with panels(ax, (7, 4.5)) as axes:
        axes.grid(False)
        mesh = axes.pcolormesh(
            *(rates, bursts, times.T), cmap=colours, shading="nearest", vmin=0, vmax=horizon_s
        )
        label = f"seconds to recover (vermillion: not within {horizon_s:,.0f} s)"
        _figure(axes).colorbar(mesh, ax=axes, label=label)
        if simulated_never is not None:
            never = np.asarray(simulated_never).T > 0.5
            x, y = np.meshgrid(rates, bursts)
            for which, face, label in (
                (~never, "none", "simulated: recovers"),
                (never, "white", "simulated: never"),
            ):
                axes.scatter(x[which], y[which], 28, face, edgecolors="white", label=label)
            # Circles are white, which only the map itself and a dark legend show.
            place: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.13)}
            axes.legend(**place, ncols=2, facecolor="0.5", labelcolor="white")
        axes.set_xlabel("arrivals (requests/s)")
        axes.set_ylabel("burst (requests)")
    return axes


def plot_path(ax: Panels | None, time_s: Floats, columns: Mapping[str, Floats]) -> Panels:
    """Figures over time, one panel below the other.

    Args:
        columns: By label, each of the shape of `time_s`.
    """
    height = 0.6 + 1.4 * len(columns)
    with panels(ax, (7, height), rows=len(columns), sharex=True) as grid:
        stacked: list[Axes] = np.ravel(grid).tolist()
        for axes, colour, (label, values) in zip(stacked, COLOURS, columns.items(), strict=False):
            axes.plot(time_s, values, color=colour, lw=1)
            axes.set_ylabel(label)
            axes.set_ylim(bottom=0)
        stacked[-1].set_xlabel("time (s)")
    return grid


def plot_population(ax: Axes | None, times_s: Floats, masses: Floats) -> Axes:
    """Mass by stage over time.

    Stages are drawn in at most `_BANDS` bands: a generation of requests admitted together stands at
    one stage, too thin a line to be seen.

    Args:
        masses: All classes together, shape (times, stages).
    """
    axes: Axes
    width = -(-masses.shape[1] // _BANDS)
    starts = np.arange(0, masses.shape[1], width)
    banded = np.add.reduceat(masses, starts, axis=1)
    with panels(ax, (7, 4.5)) as axes:
        axes.grid(False)
        mesh = axes.pcolormesh(times_s, starts + (width - 1) / 2, banded.T, shading="nearest")
        mesh.set_rasterized(True)
        label = f"requests in {width} stages" if width > 1 else "requests"
        _figure(axes).colorbar(mesh, ax=axes, label=label)
        axes.set_xlabel("time (s)")
        axes.set_ylabel("stage")
    return axes


def plot_kv_by_stage(
    ax: Panels | None, times_s: Floats, edges: Floats, held_kv_tokens: Floats, kv_capacity: int
) -> Panels:
    """KV held at each stage, one panel per snapshot.

    Even heights are residents of all ages; a few high bars are generations that were admitted
    together, grow together and overflow the memory together.

    Args:
        edges: Of the bands of stages, shape (bands + 1,).
        held_kv_tokens: Tokens in each band, shape (times, bands).
        kv_capacity: What the server holds, tokens.
    """
    count = len(times_s)
    shared = {"sharex": True, "sharey": True}
    with panels(ax, (1 + 1.6 * count, 2.5), columns=count, **shared) as grid:
        row: list[Axes] = np.ravel(grid).tolist()
        for axes, time_s, held in zip(row, times_s, held_kv_tokens, strict=True):
            axes.stairs(held, edges, baseline=1.0, fill=True, color=COLOURS[0])
            label = f"{time_s:,.0f} s: {held.sum() / kv_capacity:.0%} of KV"
            axes.text(*(0.5, 1.02, label), transform=axes.transAxes, ha="center", fontsize="small")
            axes.set_xlabel("stage")
            # Logarithmic: a generation holds a hundred times what an even band does.
            axes.set(yscale="log", ylim=(10, 2 * kv_capacity))
        row[0].set_ylabel("KV (tokens)")
    return grid


def _figure(axes: Axes) -> Any:
    return axes.get_figure(root=True)
