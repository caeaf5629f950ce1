"""The picture of a statement, in the style that all plots share."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes

from fluid.plots.style import COLOURS, MARKERS, panels
from validation.theorems.statement import Floats, Line, Plot


def draw_plot(plot: Plot, ax: Any = None) -> Axes:
    """Measured points with their intervals; expectations as lines.

    Args:
        ax: Where to draw; None for a new figure.
    """
    axes: Axes
    with panels(ax, (7, 3.6)) as axes:
        if plot.log_x:
            axes.set_xscale("log")
        if plot.log_y:
            axes.set_yscale("log", nonpositive="mask")
        for index, line in enumerate(plot.lines):
            colour = COLOURS[index % len(COLOURS)]
            error = _error(line)
            if error is None:
                axes.plot(line.x, line.y, "--", color=colour, lw=1, label=line.label)
            else:
                marker = MARKERS[index % len(MARKERS)]
                axes.errorbar(
                    line.x, line.y, error, fmt=marker, ms=4, capsize=2, color=colour,
                    label=line.label,
                )  # fmt: skip
        if plot.names:
            axes.set_xticks(range(len(plot.names)), plot.names, rotation=30, ha="right")
        axes.set(xlabel=plot.x_label, ylabel=plot.y_label)
        axes.legend()
    return axes


def draw_plots(plots: dict[str, Plot], ax: Any = None) -> Any:
    """A panel for each plot under its title, one below the other.

    Args:
        ax: As many axes as there are plots; None for a new figure.
    """
    with panels(ax, (7, 3.6 * len(plots)), len(plots)) as axes:
        for (title, plot), one in zip(plots.items(), np.ravel(axes), strict=True):
            draw_plot(plot, one).set_title(title)
    return axes


def _error(line: Line) -> Floats | None:
    """Lengths of the intervals below and above the points, shape (2, points); None for a line."""
    if line.low is None or line.high is None:
        return None
    return np.stack([line.y - line.low, line.high - line.y])
