"""Picture of a calibration: residuals, and the staircase f with what was measured of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fluid.iteration import IterationTime
from fluid.plots.style import COLOURS, Panels, panels
from validation.measure.composition import Floats


def draw_residuals(tau: IterationTime, rows: Mapping[str, Floats], ax: Panels = None) -> Panels:
    """Relative residuals against tokens above; f and the measured times less their linear terms.

    Args:
        rows: Columns of shape (N,): tokens, prefill_tokens, decode_requests, measured_s,
            predicted_s.
        ax: Two axes; None for a new figure.
    """
    tokens, measured_s, predicted_s = (
        rows[name] for name in ("tokens", "measured_s", "predicted_s")
    )
    residuals = 100 * (predicted_s / measured_s - 1)
    rest_s = measured_s - (predicted_s - tau.token_seconds(tokens))
    with panels(ax, (6.5, 6), 2, 1, sharex=True) as axes:
        above, below = np.ravel(axes)
        for (kind, chosen), colour, marker in zip(_kinds(rows), COLOURS, "o^s", strict=False):
            style: dict[str, Any] = {
                "marker": marker,
                "ls": "none",
                "ms": 3,
                "alpha": 0.6,
                "color": colour,
            }
            above.plot(tokens[chosen], residuals[chosen], label=kind, **style)
            below.plot(tokens[chosen], 1e3 * rest_s[chosen], **style)
        above.axhline(0, color="black", lw=0.8)
        above.set(ylabel="predicted ÷ measured − 1 (%)", title="Residuals of the fit", xscale="log")
        above.legend()
        grid = _grid(tau, float(tokens.max()))
        below.plot(grid, 1e3 * tau.token_seconds(grid), color="black", lw=1, label="f")
        below.set(
            xlabel="tokens computed in the iteration",
            ylabel="time less linear terms (ms)",
            xscale="log",
            yscale="log",
        )
        below.legend()
        return axes


def _kinds(rows: Mapping[str, Floats]) -> list[tuple[str, Any]]:
    """Rows by what their batches consist of."""
    prefills, decodes = rows["prefill_tokens"] > 0, rows["decode_requests"] > 0
    return [
        ("decode", decodes & ~prefills),
        ("mixed", decodes & prefills),
        ("prefill", prefills & ~decodes),
    ]


def _grid(tau: IterationTime, most_tokens: float) -> Floats:
    """Token counts at which f is drawn: both sides of every jump, so that it stands upright."""
    knots = np.asarray(tau.tokens_knots)
    grid = np.unique([*np.geomspace(1, most_tokens, 400), *knots, *(knots * (1 + 1e-9))])
    return np.asarray(grid[grid > 0])
