"""Pictures of predicted latencies: classes side by side, and all requests by rate."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import fill
from typing import TYPE_CHECKING, Protocol

import numpy as np

from fluid.plots.style import BELOW, COLOURS, MARKERS, is_narrow, panels

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


class SimulatedTimes(Protocol):
    """What a simulation found at one rate, as far as it is drawn; None where it found none."""

    @property
    def rate_per_s(self) -> float | None: ...

    @property
    def ttft_s(self) -> Quantiles | None: ...

    @property
    def tpot_s(self) -> Quantiles | None: ...

    @property
    def latency_s(self) -> Quantiles | None: ...


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
        axes.legend()
    return axes


def draw_by_rate(
    rows: Sequence[tuple[float, Row]],
    doubtful: Sequence[bool],
    limit_per_s: float,
    title: str,
    ends: str | None = None,
    simulated: Sequence[SimulatedTimes] = (),
    ax: Axes | None = None,
) -> Axes:
    """Times against the total rate: means as lines, p50 to p99 as bands, simulations as points.

    Args:
        rows: Rate and predicted times, in ascending order of the rate.
        doubtful: Rows whose times are not to be relied on; their means get a cross.
        limit_per_s: The stability boundary.
        ends: Why the curves end before it, if they do.
        simulated: Drawn as a filled point for the mean and a bar up to p99.
    """
    axes: Axes
    with panels(ax, (8, 4.2)) as axes:
        for k, (name, label) in reversed(list(enumerate(_QUANTITIES))):
            known = [(rate, getattr(row, name)) for rate, row in rows if getattr(row, name)]
            rates = [rate for rate, _ in known]
            mean, low, high = (
                [getattr(one, q) for _, one in known] for q in ("mean", "p50", "p99")
            )
            axes.plot(rates, mean, _DASHES[k], color=COLOURS[k], label=f"{label}, p50 to p99")
            axes.fill_between(rates, low, high, color=COLOURS[k], alpha=0.2, lw=0)
            points = [
                (one.rate_per_s, getattr(one, name))
                for one in simulated
                if one.rate_per_s is not None
            ]
            _draw_points(axes, points, k)
            _cross_out(axes, rows, doubtful, name)
        if any(doubtful):
            axes.plot([], [], "kx", ms=5, label="do not rely on these")
        if simulated:
            axes.plot([], [], "ko", ms=4, label="simulated: mean, bar to p99")
        axes.axvline(limit_per_s, color="black", ls=":", label="stability boundary")
        narrow = is_narrow(axes)
        if ends is not None and not narrow:
            axes.plot([], [], " ", label=fill(ends, 30))
        axes.set(xlabel="total rate (requests/s)", ylabel="seconds", title=title)
        if rows:
            axes.set_yscale("log")
        if narrow:
            axes.legend(**BELOW, ncols=2, title=ends and fill(ends, 58))
        else:
            axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    return axes


_DASHES = ("--", "-.", "-")


def _cross_out(
    axes: Axes, rows: Sequence[tuple[float, Row]], doubtful: Sequence[bool], name: str
) -> None:
    for (rate_per_s, row), crossed in zip(rows, doubtful, strict=True):
        times = getattr(row, name)
        if crossed and times is not None:
            axes.plot(rate_per_s, times.mean, "kx", ms=5)


def _draw_points(axes: Axes, points: Sequence[tuple[float, Quantiles | None]], k: int) -> None:
    known = [(rate, one) for rate, one in points if one is not None]
    if not known:
        return
    rates, means = [rate for rate, _ in known], np.array([one.mean for _, one in known])
    above = np.maximum([one.p99 for _, one in known] - means, 0.0)
    axes.errorbar(rates, means, [0 * above, above], fmt="o", ms=4, color=COLOURS[k], capsize=2)
