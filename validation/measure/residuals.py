"""Pictures of a calibration: residuals, and the staircase f with what was measured of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from fluid.plots.style import COLOURS, Panels, panels, save
from validation.measure.calibrate import Calibration


def plot_calibration(found: Calibration, path: Path) -> None:
    """Write the picture of `draw_calibration`."""
    save(lambda: draw_calibration(found), path)


def draw_calibration(found: Calibration, ax: Panels | None = None) -> Panels:
    """Relative residuals against tokens above; f and the measured times less their linear terms."""
    data, tau = found.measurements, found.iteration_time
    tokens = data.compositions.tokens
    rest_s = data.seconds - (data.compositions.seconds(tau) - tau.token_seconds(tokens))
    prefills = data.compositions.prefill_tokens > 0
    decodes = data.compositions.decode_requests > 0
    kinds = {
        "decode": decodes & ~prefills,
        "mixed": decodes & prefills,
        "prefill": prefills & ~decodes,
    }
    with panels(ax, (6.5, 6), rows=2, sharex=True) as both:
        residuals: Axes
        staircase: Axes
        residuals, staircase = np.ravel(both)
        for (kind, rows), colour, marker in zip(kinds.items(), COLOURS, "o^s", strict=False):
            style: dict[str, Any] = {
                "marker": marker,
                "ls": "none",
                "ms": 3,
                "alpha": 0.6,
                "color": colour,
            }
            share = 100 * found.relative_residuals[rows]
            residuals.plot(tokens[rows], share, label=kind, **style)
            staircase.plot(tokens[rows], 1e3 * rest_s[rows], **style)
        residuals.axhline(0, color="black", lw=0.8)
        residuals.set(ylabel="predicted ÷ measured − 1 (%)", title="Residuals of the fit")
        residuals.legend(fontsize=8)
        # Both sides of every jump, so that it is drawn upright.
        knots = np.asarray(tau.tokens_knots)
        grid = np.unique([*np.geomspace(1, tokens.max(), 400), *knots, *(knots * (1 + 1e-9))])
        grid = grid[grid > 0]
        staircase.plot(grid, 1e3 * tau.token_seconds(grid), color="black", lw=1, label="f")
        staircase.set(
            xlabel="tokens computed in the iteration",
            ylabel="time less linear terms (ms)",
            xscale="log",
            yscale="log",
        )
        staircase.legend(fontsize=8)
    return both
