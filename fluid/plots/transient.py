"""Plots of the transient fluid model: recovery map, population and KV by stage over time."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from fluid.errors import InputError
from fluid.plots.steady import COLOURS, STYLE, figure_at
from fluid.server import Server
from fluid.stages import class_stages
from fluid.transient.path import Transient
from fluid.workload import Workload

Floats = NDArray[np.float64]

_BANDS = 80
"""Most rows of `plot_population`."""

_BARS = 40
"""Most bars in a panel of `plot_kv_by_stage`."""

NEVER_COLOUR = COLOURS[1]
"""Vermillion: stands out from viridis in every kind of vision."""


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
        axes.grid(False)
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
        axes.grid(False)
        mesh = axes.pcolormesh(
            found.snapshots_s[taken], starts + (width - 1) / 2, mass.T, shading="nearest"
        )
        mesh.set_rasterized(True)
        figure.colorbar(mesh, label=f"requests in {width} stages" if width > 1 else "requests")
        axes.set_xlabel("time (s)")
        axes.set_ylabel("stage")
        figure.savefig(path)


def plot_kv_by_stage(
    paths: Mapping[str, Transient], workload: Workload, server: Server, path: Path
) -> None:
    """KV held at each stage, one row of panels per path and one column per snapshot.

    Even heights are residents of all ages; a few high bars are generations that were admitted
    together, grow together and overflow the memory together.

    Args:
        paths: By name, all with the same snapshots of this workload.

    Raises:
        InputError: No snapshots, or one beyond the horizon.
    """
    times_s = next(iter(paths.values())).snapshots_s
    if not all(one.population.size and np.isfinite(one.population).all() for one in paths.values()):
        raise InputError("snapshots_s", times_s.tolist(), "at least 1 time, all within the horizon")
    with figure_at(path, figsize=(1 + 1.6 * len(times_s), 0.8 + 1.7 * len(paths))) as figure:
        grid = figure.subplots(len(paths), len(times_s), sharex=True, sharey=True, squeeze=False)
        for row, colour, (name, one) in zip(grid, COLOURS, paths.items(), strict=False):
            row[0].set_ylabel(f"{name}\nKV (tokens)")
            for axes, time_s, population in zip(row, times_s, one.population, strict=True):
                edges, held = _kv_by_stage(population, workload, server)
                axes.stairs(held, edges, baseline=1.0, fill=True, color=colour)
                axes.set_title(f"{time_s:,.0f} s: {held.sum() / server.usable_kv_tokens:.0%} of KV")
                axes.title.set_fontsize(9)
        # Logarithmic: a generation holds a hundred times what an even band does.
        grid[0][0].set(yscale="log", ylim=(10, 2 * server.usable_kv_tokens))
        for axes in grid[-1]:
            axes.set_xlabel("stage")


def _kv_by_stage(population: Floats, workload: Workload, server: Server) -> tuple[Floats, Floats]:
    """Edges of the bands of stages, shape (bands + 1,), and KV tokens held in each, (bands,)."""
    stages = [class_stages(one, server) for one in workload.classes]
    last = max(int(one.index[-1]) for one in stages) + 1
    edges = np.linspace(0, last, min(_BARS, last) + 1)
    held = np.zeros(len(edges) - 1)
    for column, one in enumerate(stages):
        kv_tokens = population[: one.count, column] * one.held_kv_tokens
        held += np.histogram(one.index, edges, weights=kv_tokens)[0]
    return edges, held
