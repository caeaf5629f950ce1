"""Picture of base memory and buffers against the number of segments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from fluid.plots.style import COLOURS, Panels, panels

_HATCHES = ("", "//", "..")


def draw_buffers(
    segments: ArrayLike,
    parts: Mapping[str, Sequence[float]],
    drift: Sequence[bool],
    capacity_tokens: float,
    title: str,
    ax: Panels | None = None,
) -> Panels:
    """Stacked bars, tokens of each part by number of segments (THEORY 5.2).

    Args:
        segments: L of each design, shape (k,).
        parts: KV tokens by name, from the bottom up, k each.
        drift: Whether drift holds for each design; pale bars are those with which it fails.
    """
    counts = np.asarray(segments)
    with panels(ax, (6.5, 4.2)) as axes:
        floor = np.zeros(len(counts))
        for (label, part), colour, hatch in zip(parts.items(), COLOURS, _HATCHES, strict=False):
            height = np.asarray(part, dtype=float)
            bars = axes.bar(
                counts, height, bottom=floor, color=colour, hatch=hatch, label=label, linewidth=0
            )
            floor = floor + height
            for bar, holds in zip(bars, drift, strict=True):
                bar.set_alpha(1.0 if holds else 0.25)
        axes.axhline(capacity_tokens, color="black", ls=":", label="KV memory")
        axes.set(xlabel="segments L (pale: drift fails)", ylabel="KV (tokens)", title=title)
        for handle in axes.legend().get_patches():
            handle.set_alpha(1.0)
    return axes
