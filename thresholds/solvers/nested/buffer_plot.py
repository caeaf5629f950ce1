"""Plots of threshold tables, in the style of `fluid.plots.style`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fluid.plots.style import COLOURS, STYLE, require_plot_path
from thresholds.solvers.nested.design import Design

_HATCHES = ("", "//", "..")


def plot_buffers(designs: Sequence[Design], path: Path) -> None:
    """Base memory and buffers of Nested WAIT against the number of segments (THEORY 5.2).

    Pale bars are designs with which drift fails.

    Args:
        designs: At least one, as from `thresholds.solvers.nested.cuts.buffer_decomposition`.
    """
    require_plot_path(path)
    counts = np.array([len(one.ends) for one in designs])
    names = ("base", "deterministic_buffer", "stochastic_buffer")
    parts = np.array([[float(getattr(one.memory, name)) for one in designs] for name in names])
    drift = np.array([one.load < 1 for one in designs])
    capacity = designs[0].segments.server.usable_kv_tokens
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.5, 4.2), layout="constrained")
        axes: Axes = figure.subplots()
        floors = np.vstack([np.zeros(len(counts)), np.cumsum(parts, axis=0)[:-1]])
        for name, part, floor, colour, hatch in zip(
            names, parts, floors, COLOURS, _HATCHES, strict=False
        ):
            label = name.replace("_", " ").replace("base", "base memory")
            bars = axes.bar(
                counts, part, bottom=floor, color=colour, hatch=hatch, label=label, linewidth=0
            )
            for bar, holds in zip(bars, drift, strict=True):
                bar.set_alpha(1.0 if holds else 0.25)
        axes.axhline(capacity, color="black", ls=":", label="KV memory")
        axes.set(
            xlabel="segments L (pale: drift fails)",
            ylabel="KV (tokens)",
            title=f"Nested WAIT on {designs[0].segments.server.name}",
        )
        for handle in axes.legend(fontsize=8).get_patches():
            handle.set_alpha(1.0)
        figure.savefig(path, bbox_inches="tight")
