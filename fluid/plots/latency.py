"""Picture of predicted latencies: classes side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np

from fluid.plots.style import COLOURS, MARKERS, panels

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class Quantiles(Protocol):
    """Mean and quantiles of a time in seconds, as far as they are drawn."""

    @property
    def mean(self) -> float: ...

    @property
    def p50(self) -> float: ...

    @property
    def p99(self) -> float: ...


class Row(Protocol):
    """A class, or all of them, by name."""

    @property
    def name(self) -> str: ...

    @property
    def ttft_s(self) -> Quantiles: ...

    @property
    def tpot_s(self) -> Quantiles | None: ...

    @property
    def latency_s(self) -> Quantiles: ...


_QUANTITIES = (("ttft_s", "TTFT"), ("tpot_s", "TPOT"), ("latency_s", "latency"))


def draw_latency(rows: Sequence[Row], ax: Axes | None = None) -> Axes:
    """Mean, and the span from p50 to p99, of each row on a logarithmic axis."""
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
