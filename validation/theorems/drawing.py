"""The picture of a statement, in the style that all plots share."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from fluid.plots.style import COLOURS, MARKERS, STYLE
from validation.theorems.statement import Floats, Line, Plot


def plot_finding(plot: Plot, path: Path) -> None:
    """Measured points with their intervals; expectations as lines."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7, 3.6), layout="constrained")
        axes = figure.subplots()
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
        axes.legend(fontsize=8)
        figure.savefig(path, bbox_inches="tight")


def _error(line: Line) -> Floats | None:
    """Lengths of the intervals below and above the points, shape (2, points); None for a line."""
    if line.low is None or line.high is None:
        return None
    return np.stack([line.y - line.low, line.high - line.y])
