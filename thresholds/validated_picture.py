"""Picture of a table's validation: the policies side by side."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fluid.plots.style import COLOURS, Panels, panels
from thresholds.fields import PolicyValidation


def draw_validated(rows: Mapping[str, PolicyValidation], ax: Panels | None = None) -> Panels:
    """Mean latency and carried share of the arrivals by policy, with 95 % intervals.

    Args:
        rows: By the label under which each is shown.
        ax: Two axes that share their y axis, or None for a new figure.
    """
    labels = list(rows)
    with panels(ax, (8, 1.2 + 0.4 * len(rows)), 1, 2, sharey=True) as axes:
        latency, carried = np.ravel(axes)
        for index, row in enumerate(rows.values()):
            colour = COLOURS[index % len(COLOURS)]
            for one, factor, found in (
                (latency, 1.0, row.latency_s),
                (carried, 100.0, row.carried),
            ):
                if found is not None:
                    width = factor * found.half_width
                    one.errorbar(factor * found.mean, index, xerr=width, fmt="o", color=colour)
            if row.latency_s is None:
                latency.text(0.02, index, "unstable", transform=latency.get_yaxis_transform())
        latency.set(xlabel="mean latency (s)", yticks=range(len(labels)), yticklabels=labels)
        latency.set_xlim(left=0)
        latency.set_ylim(len(labels) - 0.5, -0.5)
        carried.set_xlabel("carried: completed ÷ arrived (%)")
    return axes
