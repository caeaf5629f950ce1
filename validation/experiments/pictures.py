"""Pictures of simulations, drawn from plain data: nothing here simulates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter
from numpy.typing import NDArray

from fluid.plots.style import COLOURS, MARKERS, STYLE, Panels, panels
from validation.experiments.paths import WatchedRun

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class RateLine:
    """Figures of one policy by offered rate, each of shape (k,), the rates ascending.

    Attributes:
        latency_s: Mean, with `half_width_s` of its interval; NaN where the policy is unstable.
    """

    rate_per_s: Floats
    completed_per_s: Floats
    latency_s: Floats
    half_width_s: Floats


def draw_run(
    run: WatchedRun, labels: Sequence[str], title: str, ax: Panels | None = None
) -> Panels:
    """Waiting requests, KV in use and completions over time, the first policy drawn thickest.

    Args:
        labels: One per path.
        ax: Three axes; those of a new figure where None.
    """
    with panels(ax, (8, 8), rows=3, sharex=True) as axes:
        waiting, held, completed = np.ravel(axes)
        for index, (label, path) in enumerate(zip(labels, run.paths, strict=True)):
            style: dict[str, Any] = {
                "color": COLOURS[index % len(COLOURS)],
                "lw": 1.0 if index else 1.6,
                "zorder": 2 if index else 3,
                "label": label,
            }
            waiting.plot(path.time_s, path.waiting_requests, **style)
            held.plot(path.time_s, 100 * np.array(path.kv_share), **style)
            completed.plot(path.completed_at_s, path.completed, **style)
        completed.plot(run.arrived_at_s, run.arrived, "k:", lw=1, label="arrived")
        waiting.set(ylabel="waiting requests", title=title)
        held.set_ylabel("KV in use (% of capacity)")
        completed.set(ylabel="completed requests", xlabel="time (s)", xlim=(0, run.end_s))
        completed.legend()
    return axes


def draw_by_rate(
    lines: Mapping[str, RateLine], limit_per_s: float | None, ax: Panels | None = None
) -> Panels:
    """Mean latency, and completed rate, against the offered rate, a line per policy.

    Args:
        lines: By label.
        limit_per_s: The fluid limit, where there is one.
        ax: Two axes; those of a new figure where None.
    """
    with panels(ax, (10, 4.2), columns=2) as axes:
        latency, completed = np.ravel(axes)
        for index, (label, line) in enumerate(lines.items()):
            style: dict[str, Any] = {
                "color": COLOURS[index % len(COLOURS)],
                "marker": MARKERS[index % len(MARKERS)],
                "ms": 4,
                "lw": 1.2,
                "label": label,
            }
            known = np.isfinite(line.latency_s)
            latency.errorbar(
                line.rate_per_s[known],
                line.latency_s[known],
                yerr=line.half_width_s[known],
                capsize=2,
                **style,
            )
            completed.plot(line.rate_per_s, line.completed_per_s, **style)
        for one in (latency, completed):
            one.set_xlabel("offered rate (requests/s)")
            if limit_per_s is not None:
                one.axvline(limit_per_s, color="black", ls=":", lw=1, label="fluid limit")
        offered = np.concatenate([line.rate_per_s for line in lines.values()])
        ends = [offered.min(), offered.max()]
        completed.plot(ends, ends, "k-", lw=0.6)
        latency.set_ylabel("mean latency (s), where not unstable")
        latency.set_yscale("log")
        for axis_format in (latency.yaxis.set_major_formatter, latency.yaxis.set_minor_formatter):
            axis_format(LogFormatter(minor_thresholds=(2, 0.5)))
        completed.set_ylabel("completed rate (requests/s)")
        completed.legend()
    return axes


def draw_boundaries(
    ax: Axes, guaranteed_per_s: Mapping[str, Floats], simulated_per_s: Mapping[str, Floats]
) -> None:
    """Boundaries inside a region of two classes, each of points of shape (k, 2).

    Args:
        guaranteed_per_s: By rule, what a theorem guarantees.
        simulated_per_s: By policy, the largest rates found stable in simulation.
    """
    for index, (rule, points) in enumerate(guaranteed_per_s.items(), start=1):
        dash = ("--", "-.")[index % 2]
        colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
        ax.plot(*points.T, dash, marker=marker, color=colour, ms=3, label=rule)
    for index, (policy, points) in enumerate(simulated_per_s.items(), 1 + len(guaranteed_per_s)):
        colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
        ax.plot(*points.T, ":", marker=marker, color=colour, label=f"simulated: {policy}")


def plot_slack(
    slack: NDArray[np.float64],
    latency_s: NDArray[np.float64],
    half_width_s: NDArray[np.float64],
    formula_s: NDArray[np.float64],
    path: Path,
) -> None:
    """Mean latency of threshold tables over their least drift slack; arrays of shape (k,).

    Args:
        slack: 1 − max_j λ_j ΔT(n)/n_j; the first table is the solved one.
        latency_s: Simulated, with `half_width_s` of its 95 % interval.
        formula_s: Predicted (THEORY 3.5); infinite where drift fails, left out there.
    """
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(6.5, 4), layout="constrained")
        axes = figure.subplots()
        percent = 100 * slack
        axes.errorbar(
            percent, latency_s, half_width_s, fmt="o", ms=4, color=COLOURS[0], label="simulated"
        )
        known = np.isfinite(formula_s)
        axes.plot(percent[known], formula_s[known], "x", ms=5, color=COLOURS[1], label="formula")
        axes.plot(percent[:1], latency_s[:1], "o", ms=11, mfc="none", color="black", label="solved")
        axes.axvline(0, color="black", ls=":", lw=1)
        axes.set_xlabel("least relative slack of the drift conditions (%)")
        axes.set_ylabel("mean latency (s)")
        axes.legend()
        figure.savefig(path, bbox_inches="tight")
