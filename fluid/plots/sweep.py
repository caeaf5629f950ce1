"""A figure over a parameter."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from fluid.plots.style import COLOURS, MARKERS, panels

_DECADES = 2
"""From so many on an axis is logarithmic."""


def plot_lines(
    ax: Axes | None,
    x_label: str,
    y_label: str,
    lines: Mapping[str, NDArray[np.float64]],
    title: str,
) -> Axes:
    """Lines through points, with gaps where y is NaN.

    Args:
        lines: By label, which may be empty; each of shape (points, 2).
    """
    axes: Axes
    with panels(ax, (6, 4)) as axes:
        for index, (label, points) in enumerate(lines.items()):
            colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
            dash = ("-", "--")[index // len(COLOURS) % 2]
            axes.plot(*points.T, dash, marker=marker, ms=3, color=colour, label=label or None)
        axes.set(xlabel=x_label, ylabel=y_label, title=title)
        x = np.concatenate([points[:, 0] for points in lines.values()])
        if x.max() >= 10**_DECADES * x.min():
            axes.set_xscale("log")
        if len(lines) > 1:
            axes.legend()
    return axes
