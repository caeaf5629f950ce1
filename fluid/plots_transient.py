"""Plots of the transient fluid model: recovery map and population by stage over time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from fluid.errors import InputError
from fluid.transient import Transient

STYLE: dict[Any, Any] = {"font.size": 10, "svg.hashsalt": "fluidwait"}

_BANDS = 80

NEVER_COLOUR = "#D55E00"
"""Vermillion of Okabe and Ito's palette: stands out from viridis in every kind of vision."""


def plot_recovery_map(
    rates_per_s: ArrayLike,
    burst_requests: ArrayLike,
    recovery_s: ArrayLike,
    path: Path,
    simulated_never: ArrayLike | None = None,
) -> None:
    """Recovery time over rate × burst; where it never comes, one colour of its own.

    Args:
        recovery_s: NaN for never, shape (rates, bursts).
        simulated_never: Share of simulated paths that never recover, alike; drawn as circles, open
            where most recover and filled where most do not.
    """
    rates, bursts = np.asarray(rates_per_s, dtype=float), np.asarray(burst_requests, dtype=float)
    times = np.ma.masked_invalid(np.asarray(recovery_s, dtype=float))
    colours = mpl.colormaps["viridis"].with_extremes(bad=NEVER_COLOUR)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7, 4.5), layout="constrained")
        axes = figure.subplots()
        mesh = axes.pcolormesh(rates, bursts, times.T, cmap=colours, shading="nearest")
        figure.colorbar(mesh, label="seconds to recover (vermillion: never)")
        if simulated_never is not None:
            never = np.asarray(simulated_never).T > 0.5
            x, y = np.meshgrid(rates, bursts)
            for which, face, label in (
                (~never, "none", "simulated: recovers"),
                (never, "white", "simulated: never"),
            ):
                axes.scatter(x[which], y[which], 28, face, edgecolors="white", label=label)
            figure.legend(loc="outside lower center", ncols=2, facecolor="0.5", labelcolor="white")
        axes.set_xlabel("arrivals (requests/s)")
        axes.set_ylabel("burst (requests)")
        figure.savefig(path)


def plot_population(found: Transient, path: Path) -> None:
    """Mass by stage at the times of the snapshots, all classes together.

    Stages are drawn in at most `_BANDS` bands: a generation of requests admitted together stands at
    one stage, too thin a line to be seen.

    Raises:
        InputError: Fewer than two snapshots were taken.
    """
    taken = np.isfinite(found.population).all(axis=(1, 2))
    if taken.sum() < 2:
        raise InputError("snapshots_s", int(taken.sum()), "at least 2 snapshots")
    mass = found.population[taken].sum(axis=2)
    width = -(-mass.shape[1] // _BANDS)
    starts = np.arange(0, mass.shape[1], width)
    mass = np.add.reduceat(mass, starts, axis=1)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7, 4.5), layout="constrained")
        axes = figure.subplots()
        mesh = axes.pcolormesh(
            found.snapshots_s[taken], starts + (width - 1) / 2, mass.T, shading="nearest"
        )
        mesh.set_rasterized(True)
        figure.colorbar(mesh, label=f"requests in {width} stages" if width > 1 else "requests")
        axes.set_xlabel("time (s)")
        axes.set_ylabel("stage")
        figure.savefig(path)
