"""The Pareto picture of a plan, drawn from plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fluid.plots.style import COLOURS, Panels, panels


def draw_tried(
    columns: Mapping[str, Sequence[Any]], marked: Mapping[str, int], ax: Panels | None = None
) -> Panels:
    """Goodput against p99 TPOT and against p99 TTFT, a dot for each setting.

    A line joins those that no other beats in both.

    Args:
        columns: goodput_per_s, tpot_p99_s and ttft_p99_s by setting; None where there is none.
        marked: Settings to be told apart, by their place.
        ax: Two axes; those of a new figure where None.
    """
    goodput = np.array(columns["goodput_per_s"], float)
    with panels(ax, (10, 4), columns=2, sharey=True) as axes:
        for one, name in zip(np.ravel(axes), ("tpot_p99_s", "ttft_p99_s"), strict=True):
            times = np.array(columns[name], float)
            one.plot(times, goodput, "o", ms=3, color=COLOURS[0], alpha=0.5)
            front = _front(times, goodput)
            one.plot(times[front], goodput[front], "-", lw=1, color=COLOURS[0])
            for index, (label, place) in enumerate(marked.items()):
                colour = COLOURS[(index + 1) % len(COLOURS)]
                one.plot(times[place], goodput[place], "D", ms=7, color=colour, label=label)
            one.set_xlabel(f"p99 {name.split('_')[0].upper()} (s)")
        np.ravel(axes)[0].set_ylabel("goodput (requests/s)")
        np.ravel(axes)[0].legend()
    return axes


def _front(times: Any, goodput: Any) -> list[int]:
    """Places of the settings that no other beats in both, by time."""
    front: list[int] = []
    for place in np.lexsort((-goodput, times)):
        if np.isfinite(times[place]) and (not front or goodput[place] > goodput[front[-1]]):
            front.append(int(place))
    return front
