"""Plots of the fluid model, and the style that all plots of the toolkit share.

Colours are Okabe and Ito's, told apart by colour-blind readers; lines differ in dash or marker too.
Axes carry units, and svg or pdf paths give vector output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from fluid.errors import InputError
from fluid.files import require_folder
from fluid.server import Server
from fluid.stages import class_stages
from fluid.steady.equilibrium import equilibrium
from fluid.steady.region import StabilityRegion
from fluid.steady.stability import stability
from fluid.workload import Workload

Floats = NDArray[np.float64]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Okabe and Ito's palette."""

STYLE: dict[Any, Any] = {
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "font.size": 10,
    "svg.hashsalt": "fluidwait",
}

MARKERS = "osv^Dx*"

_POINTS = 60
"""Rates of a latency curve."""


@dataclass(frozen=True)
class Axis:
    """One parameter of a phase diagram.

    Attributes:
        name: A key of `PARAMETERS`.
        values: Increasing values, shape (k,), in the parameter's unit.
    """

    name: str
    values: tuple[float, ...]


Change = Callable[[Workload, Server, float], tuple[Workload, Server]]


def require_plot_path(path: Path) -> None:
    """Refuse a path that cannot be drawn to, before any work is spent on it.

    Raises:
        InputError: A suffix that matplotlib cannot write, or a folder that does not exist.
    """
    formats = Figure().canvas.get_supported_filetypes()
    if path.suffix.lstrip(".").lower() not in formats:
        raise InputError("--plot", str(path), "a file ending in svg, pdf or png")
    require_folder(path)


def plot_region(
    region: StabilityRegion,
    path: Path,
    *,
    theorem_per_s: Mapping[str, ArrayLike] | None = None,
    simulated_per_s: Mapping[str, ArrayLike] | None = None,
) -> None:
    """The region of two classes with the workload's operating point.

    Args:
        theorem_per_s: By rule, points of a boundary that a theorem guarantees, shape (k, 2).
        simulated_per_s: By policy, largest rates found stable in simulation, shape (k, 2).

    Raises:
        InputError: The region does not have two classes.
    """
    with figure_at(path, figsize=(6, 5)) as figure:
        axes: Axes = figure.subplots()
        draw_region(axes, region)
        rules = theorem_per_s or {}
        for index, (rule, points) in enumerate(rules.items(), start=1):
            dash = ("--", "-.")[index % 2]
            colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
            axes.plot(*np.asarray(points).T, dash, marker=marker, color=colour, ms=3, label=rule)
        for index, (policy, found) in enumerate((simulated_per_s or {}).items()):
            axes.plot(
                *np.asarray(found).T,
                color=COLOURS[(1 + len(rules) + index) % len(COLOURS)],
                marker=MARKERS[index % len(MARKERS)],
                ls=":",
                label=f"simulated: {policy}",
            )
        axes.legend(fontsize=8)


def draw_region(axes: Axes, region: StabilityRegion) -> None:
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


def plot_latency(workload: Workload, server: Server, path: Path) -> None:
    """First-order latency, TTFT and TPOT against the total rate of the mix, up to the boundary."""
    limit_per_s = stability(workload, server).max_scale * workload.rate_per_s
    rates = limit_per_s * np.linspace(0.02, 0.999, _POINTS)
    found = [equilibrium(workload.at_rate(float(rate)), server) for rate in rates]
    with figure_at(path, figsize=(6, 4.2)) as figure:
        axes: Axes = figure.subplots()
        for colour, dash, name, label in zip(
            COLOURS,
            ("-", "--", "-."),
            ("latency_s", "ttft_s", "tpot_s"),
            ("latency", "TTFT", "TPOT"),
            strict=False,
        ):
            values = [getattr(one, name) for one in found]
            if None not in values:
                axes.plot(rates, values, dash, color=colour, label=label)
        axes.axvline(limit_per_s, color="black", ls=":", label="stability boundary")
        axes.set(
            xlabel="total rate (requests/s)",
            ylabel="mean over requests (s)",
            yscale="log",
            title=f"{workload.name} on {server.name}, fluid model",
        )
        axes.legend(fontsize=8)


def plot_composition(workload: Workload, server: Server, path: Path) -> None:
    """KV held at equilibrium by stage, stacked over the classes (THEORY 2.2).

    Raises:
        InputError: The workload is unstable, so that there is no equilibrium.
    """
    found = equilibrium(workload, server)
    if not found.stable:
        raise InputError("workload", workload.name, "a stable workload")
    stages = [class_stages(one, server) for one in workload.classes]
    held = np.zeros((len(stages), max(int(one.index[-1]) for one in stages) + 1))
    for row, one, balanced in zip(held, stages, found.classes, strict=True):
        row[one.index] = (balanced.in_service_per_stage or 0.0) * one.held_kv_tokens
    with figure_at(path, figsize=(6.5, 4)) as figure:
        axes: Axes = figure.subplots()
        colours = [COLOURS[k % len(COLOURS)] for k in range(len(stages))]
        names = [one.name for one in workload.classes]
        index = np.arange(held.shape[1] + 1.0)
        padded = np.hstack([held, held[:, -1:]])
        axes.stackplot(index, *padded, colors=colours, labels=names, step="post", alpha=0.8)
        axes.set(
            xlabel="stage (iterations since admission)",
            ylabel="KV held (tokens per stage)",
            title=f"{workload.name} on {server.name}: {found.kv_tokens:,.0f} of "
            f"{found.kv_capacity_tokens:,} tokens",
        )
        axes.legend(fontsize=8)


def plot_phase(
    workload: Workload, server: Server, horizontal: Axis, vertical: Axis, path: Path
) -> None:
    """The margin over any two parameters, with the boundary and the line where causes change.

    Raises:
        InputError: An unknown parameter or a value that it cannot take.
    """
    margins, shares = phase(workload, server, horizontal, vertical)
    with figure_at(path, figsize=(6.5, 5)) as figure:
        axes: Axes = figure.subplots()
        grid = (horizontal.values, vertical.values)
        # Cividis is perceptually uniform, also for colour-blind readers.
        filled = axes.contourf(
            *grid, margins, levels=np.linspace(-1, 1, 21), cmap="cividis", extend="both"
        )
        figure.colorbar(filled, ax=axes, label="margin (share of the boundary load)")
        for values, level, dash in ((margins, 0.0, "-"), (shares, 0.5, ":")):
            if np.nanmin(values) < level < np.nanmax(values):
                axes.contour(*grid, values, levels=[level], colors=COLOURS[1], linestyles=dash)
        axes.plot([], [], "-", color=COLOURS[1], label="stability boundary")
        axes.plot([], [], ":", color=COLOURS[1], label="memory share ½: the cause changes")
        axes.set(
            xlabel=PARAMETERS[horizontal.name][0],
            ylabel=PARAMETERS[vertical.name][0],
            title=f"{workload.name} on {server.name}",
        )
        axes.legend(fontsize=8, loc="upper right")


def phase(
    workload: Workload, server: Server, horizontal: Axis, vertical: Axis
) -> tuple[Floats, Floats]:
    """Margin and memory share at every pair, each of shape (vertical, horizontal).

    NaN where a request does not fit into the memory at all.

    Raises:
        InputError: An unknown parameter, or fewer than two values of one.
    """
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
                verdict = stability(*changed)
            except InputError:
                continue
            found[:, row, column] = verdict.margin, verdict.memory_share
    return found[0], found[1]


def _with_rate(workload: Workload, server: Server, value: float) -> tuple[Workload, Server]:
    return workload.at_rate(value), server


def _with_memory(workload: Workload, server: Server, value: float) -> tuple[Workload, Server]:
    return workload, server.model_copy(update={"kv_capacity_tokens": round(value)})


def _with_overhead(workload: Workload, server: Server, value: float) -> tuple[Workload, Server]:
    shift_s = value - server.iteration_time.overhead_s
    knots_s = tuple(max(0.0, one + shift_s) for one in server.iteration_time.seconds_knots)
    return workload, _with_time(server, seconds_knots=knots_s)


def _with_read_time(workload: Workload, server: Server, value: float) -> tuple[Workload, Server]:
    return workload, _with_time(server, per_kv_token_s=value)


def _with_time(server: Server, **changes: Any) -> Server:
    tau = server.iteration_time.model_copy(update=changes)
    return server.model_copy(update={"iteration_time": tau})


def _scaled_lengths(field: str) -> Change:
    def change(workload: Workload, server: Server, factor: float) -> tuple[Workload, Server]:
        classes = tuple(
            one.model_copy(update={field: round(getattr(one, field) * factor) or 1})
            if getattr(one, field)
            else one
            for one in workload.classes
        )
        return workload.model_copy(update={"classes": classes}), server

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
"""Parameters of phase diagrams: axis label with unit, and how to set one."""


@contextmanager
def figure_at(path: Path, figsize: Sequence[float]) -> Iterator[Figure]:
    """A figure in the shared style, written to `path` when done."""
    require_plot_path(path)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(figsize[0], figsize[1]), layout="constrained")
        yield figure
        figure.savefig(path, bbox_inches="tight")
