"""Figures that several experiments share, in the toolkit's style."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

from fluid.plots.style import COLOURS, MARKERS, STYLE
from validation.paper.experiment import Run
from validation.paper.published import Latency

_DASHES = ("-", "--")


@contextmanager
def side_by_side(count: int = 1, width: float = 7.0) -> Iterator[tuple[Figure, Sequence[Axes]]]:
    """A figure with axes side by side."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, 4.2), layout="constrained")
        yield figure, figure.subplots(1, count, squeeze=False)[0]


def latency_lines(
    axes: Axes,
    runs: Sequence[Run],
    x: Callable[[Run], float] = lambda one: one.rate_per_s,
    labels: Mapping[str, str] | None = None,
) -> None:
    """Mean latency with standard deviations, a line per name; hollow where not stable."""
    for index, name in enumerate(dict.fromkeys(one.name for one in runs)):
        rows = sorted((one for one in runs if one.name == name), key=x)
        colour = COLOURS[index % len(COLOURS)]
        axes.errorbar(
            [x(one) for one in rows],
            [one.mean_s for one in rows],
            yerr=[one.sd_s for one in rows],
            color=colour,
            ls=_DASHES[index // len(COLOURS) % len(_DASHES)],
            marker=MARKERS[index % len(MARKERS)],
            ms=4,
            lw=1.2,
            capsize=2,
            label=(labels or {}).get(name, name),
        )
        growing = [one for one in rows if one.verdict != "stable"]
        axes.plot(
            [x(one) for one in growing],
            [one.mean_s for one in growing],
            ls="",
            marker=MARKERS[index % len(MARKERS)],
            ms=4,
            mfc="white",
            color=colour,
            zorder=3,
        )
    logarithmic(axes)
    axes.set_ylabel("mean latency (s); hollow: queue grows")
    axes.legend(fontsize=7)


def published_points(axes: Axes, points: Mapping[float, Mapping[str, Latency]]) -> None:
    """Published latencies as black stars with the name of the policy."""
    for x, by_policy in points.items():
        for policy, latency in by_policy.items():
            axes.plot([x], [latency.mean_s], "k*", ms=7, zorder=4)
            axes.annotate(
                policy, (x, latency.mean_s), textcoords="offset points", xytext=(5, 2), fontsize=7
            )


def logarithmic(axes: Axes) -> None:
    """A log scale of y with plain numbers."""
    axes.set_yscale("log")
    for set_formatter in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        set_formatter(_PlainFormatter(minor_thresholds=(2, 0.5)))


class _PlainFormatter(LogFormatter):
    """Labels the ticks that `LogFormatter` would, without exponents."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return f"{x:g}" if super().__call__(x, pos) else ""
