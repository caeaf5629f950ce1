"""The style that all pictures share, and where they are drawn.

Colours are Okabe and Ito's, told apart by colour-blind readers; lines differ in dash or marker too.
Axes carry units, and svg or pdf paths give vector output. On axes of the caller a picture sets
neither title nor size of letters. `style` is for papers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
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
    "legend.fontsize": 8,
    "legend.title_fontsize": 8,
    "svg.hashsalt": "fluidwait",
}

MARKERS = "osv^Dx*"

Panels = Any
"""An `Axes`, or an array of them for a figure of several panels."""


PAPER: dict[Any, Any] = {
    "font.size": 8,
    "legend.fontsize": 7,
    "legend.title_fontsize": 7,
    "lines.linewidth": 1.0,
    "lines.markersize": 3.0,
    "axes.linewidth": 0.6,
    "grid.linewidth": 0.5,
    "savefig.format": "pdf",
    "savefig.dpi": 600,  # of the few parts that are no vectors
    "pdf.fonttype": 42,  # letters stay letters, as journals ask
    "ps.fonttype": 42,
}
"""What is different on paper."""

WIDTHS_IN = {1: 3.3, 2: 6.9}
"""Inches of a figure by the columns of the page that it spans."""

_FLATTEST = {1: 0.75, 2: 0.4}
"""Height of a figure on paper by its width, at least, by the columns that it spans."""

_NARROW_IN = 5.0

_paper_columns: ContextVar[int | None] = ContextVar("_paper_columns", default=None)


@contextmanager
def style(name: str = "paper", *, columns: int = 1) -> Iterator[None]:
    """Pictures that are drawn and saved here suit a paper: no titles, small letters, vectors.

    A figure is as wide as one column of a page of two, or as both. On axes of the caller the size
    is the caller's, as always.

    Args:
        name: "paper", the only one.
        columns: 1 or 2.

    Raises:
        InputError: Another name or number.

    >>> import io
    >>> import fluidwait as fw
    >>> load = fw.Workload.of(chat=fw.Requests(7.0, prompt=512, output=120))
    >>> margins = fw.phase(
    ...     load, fw.Server.named("engine-long-decode"), rate=[10, 20], kv_tokens=[5_000, 100_000]
    ... )
    >>> with fw.plots.style("paper", columns=2):
    ...     figure = margins.plot().figure
    ...     figure.savefig(io.BytesIO())  # a pdf
    >>> float(figure.get_figwidth()), figure.axes[0].get_title()
    (6.9, '')
    """
    if name != "paper":
        raise InputError("style", name, "paper")
    if columns not in WIDTHS_IN:
        raise InputError("columns", columns, "1 or 2")
    before = _paper_columns.set(columns)
    try:
        with mpl.rc_context({**STYLE, **PAPER}):
            yield
    finally:
        _paper_columns.reset(before)


@contextmanager
def panels(
    ax: Panels | None, figsize: tuple[float, float], rows: int = 1, columns: int = 1, **shared: Any
) -> Iterator[Panels]:
    """Where to draw: the axes given, or those of a new pyplot figure in the shared style.

    Axes that are given keep their titles, whatever is drawn.

    Args:
        ax: Axes of the caller, an array of rows · columns of them for several panels; None to make
            a figure of `figsize` inches, which a notebook shows.
        shared: ``sharex`` and ``sharey``, as for `matplotlib.figure.Figure.subplots`.

    Raises:
        InputError: Not as many axes as there are panels.
    """
    spanned = _paper_columns.get()
    untitled = ax is not None or spanned is not None
    ours = {} if ax is not None else STYLE if spanned is None else {**STYLE, **PAPER}
    # Names come from files: a dollar in them is a dollar.
    with mpl.rc_context({**ours, "text.parse_math": False}):
        if ax is None:
            from matplotlib import pyplot as plt

            if spanned is not None:
                ratio = max(figsize[1] / figsize[0], _FLATTEST[spanned])
                figsize = WIDTHS_IN[spanned], ratio * WIDTHS_IN[spanned]
            ax = plt.figure(figsize=figsize, layout="constrained").subplots(rows, columns, **shared)
        elif np.size(ax) != rows * columns:
            raise InputError("ax", f"{np.size(ax)} axes", f"{rows * columns} axes, or None")
        titles = [axes.get_title() for axes in np.ravel(ax)]
        yield ax
        if untitled:
            for axes, title in zip(np.ravel(ax), titles, strict=True):
                axes.set_title(title)
        for axes in np.ravel(ax):
            for axis in (axes.xaxis, axes.yaxis):
                # Made here, not when it is drawn, where a dollar would begin a formula again.
                for label in axis.get_ticklabels(which="both"):
                    label.set_parse_math(axis.get_scale() == "log")  # whose figures are powers


def is_narrow(axes: Axes) -> bool:
    """Whether a long legend does not fit into or beside axes, but below them."""
    figure = axes.get_figure(root=True)
    return figure is not None and figure.get_figwidth() < _NARROW_IN


BELOW: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.3)}
"""Where such a legend goes."""


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
