"""Pictures of predicted latencies: classes side by side, and curves against the rate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from fluid.errors import InfeasibleError
from fluid.plots.style import COLOURS, MARKERS, panels

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from fluid.steady.latency.result import Latency

_QUANTITIES = (("ttft_s", "TTFT"), ("tpot_s", "TPOT"), ("latency_s", "latency"))


def draw_latency(found: Latency, ax: Axes | None = None) -> Axes:
    """Mean, and the span from p50 to p99, of each class on a logarithmic axis.

    Raises:
        InfeasibleError: There are no figures.
    """
    if found.pooled is None:
        raise InfeasibleError(str(found.refusal), "memory or compute", "lower the rates")
    rows = [*found.classes, found.pooled] if len(found.classes) > 1 else list(found.classes)
    axes: Axes
    with panels(ax, (6, 1.2 + 0.35 * len(rows))) as axes:
        for k, (name, label) in enumerate(_QUANTITIES):
            shown = [(y, getattr(row, name)) for y, row in enumerate(rows) if getattr(row, name)]
            if not shown:
                continue
            height = np.array([y for y, _ in shown]) + 0.2 * (k - 1)
            low, high = ([getattr(one, q) for _, one in shown] for q in ("p50", "p99"))
            axes.hlines(height, low, high, color=COLOURS[k], lw=3, alpha=0.4)
            means = [one.mean for _, one in shown]
            axes.plot(means, height, MARKERS[k], color=COLOURS[k], label=f"{label}, p50 to p99")
        axes.set_xscale("log")
        axes.set_yticks(range(len(rows)), [row.name for row in rows])
        axes.invert_yaxis()
        axes.set_xlabel("seconds")
        axes.legend(fontsize=8)
    return axes


def draw_latency_curves(
    answers: Sequence[Latency], quantity: str = "latency_s", ax: Axes | None = None
) -> Axes:
    """Mean with the band from p50 to p99 against the total rate, answers in order of it.

    Args:
        quantity: "ttft_s", "tpot_s" or "latency_s", over all classes.
    """
    shown = [
        (one.workload.rate_per_s, getattr(one.pooled, quantity)) for one in answers if one.pooled
    ]
    known = [(rate, figures) for rate, figures in shown if figures is not None]
    rates = [rate for rate, _ in known]
    axes: Axes
    with panels(ax, (6, 4)) as axes:
        low, high = ([getattr(one, q) for _, one in known] for q in ("p50", "p99"))
        axes.fill_between(rates, low, high, color=COLOURS[0], alpha=0.15, lw=0, label="p50 to p99")
        axes.plot(rates, [one.mean for _, one in known], color=COLOURS[0], label="mean")
        axes.set_yscale("log")
        axes.set_xlabel("requests/s")
        axes.set_ylabel(f"{dict(_QUANTITIES)[quantity]}, seconds")
        axes.legend(fontsize=8)
    return axes
