"""The style that all pictures share, and where they are drawn.

Colours are Okabe and Ito's, told apart by colour-blind readers; lines differ in dash or marker too.
Axes carry units, and svg or pdf paths give vector output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fluid.errors import InputError
from fluid.files import replacing_bytes, require_output

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

Panels = Any
"""An `Axes`, or an array of them for a figure of several panels."""


@contextmanager
def panels(
    ax: Panels | None, figsize: tuple[float, float], rows: int = 1, columns: int = 1, **shared: Any
) -> Iterator[Panels]:
    """Where to draw, in the shared style: the axes given, or those of a new pyplot figure.

    Args:
        ax: Axes of the caller, an array of rows · columns of them for several panels; None to make
            a figure of `figsize` inches, which a notebook shows.
        shared: ``sharex`` and ``sharey``, as for `matplotlib.figure.Figure.subplots`.

    Raises:
        InputError: Not as many axes as there are panels.
    """
    # Names come from files: a dollar in them is a dollar.
    with mpl.rc_context({**STYLE, "text.parse_math": False}):
        if ax is None:
            from matplotlib import pyplot as plt

            ax = plt.figure(figsize=figsize, layout="constrained").subplots(rows, columns, **shared)
        elif np.size(ax) != rows * columns:
            raise InputError("ax", f"{np.size(ax)} axes", f"{rows * columns} axes, or None")
        yield ax
        for axes in np.ravel(ax):
            for axis in (axes.xaxis, axes.yaxis):
                # Made here, not when it is drawn, where a dollar would begin a formula again.
                for label in axis.get_ticklabels(which="both"):
                    label.set_parse_math(axis.get_scale() == "log")  # whose figures are powers


def save(draw: Callable[[], Panels], path: str | Path) -> None:
    """Write a picture: a whole file, and nothing stays open.

    Raises:
        InputError: A suffix that matplotlib cannot write, or a file that cannot be written.
    """
    from matplotlib import pyplot as plt

    require_plot_path(path)
    first: Axes = np.ravel(draw())[0]
    figure = first.get_figure(root=True)
    assert figure is not None
    try:
        with mpl.rc_context(STYLE), replacing_bytes(path) as stream:
            figure.savefig(stream, format=_format(path), bbox_inches="tight")
    finally:
        plt.close(figure)


def require_plot_path(path: str | Path) -> None:
    """Refuse a path that cannot be drawn to, before any work is spent on it.

    Raises:
        InputError: A suffix that matplotlib cannot write, or a file that cannot be written.
    """
    if _format(path) not in Figure().canvas.get_supported_filetypes():
        raise InputError("plot", str(path), "a file ending in svg, pdf or png")
    require_output(path)


def _format(path: str | Path) -> str:
    return Path(path).suffix.lstrip(".").lower()
