"""Conditions that certificates of tables with segments share (THEORY 4.3)."""

from __future__ import annotations

from collections.abc import Iterator

from thresholds.fields import Condition
from thresholds.solvers.certificate import condition
from thresholds.solvers.nested.requirement import Floats, ratios
from thresholds.solvers.nested.segments import Segments


def drift_condition(segments: Segments, thresholds: Floats) -> Condition:
    """Λ_1 ΔT(n)/n_1 < 1."""
    load = float(segments.load(thresholds))
    return condition("drift: Λ_1 ΔT(n)/n_1 < 1", load, 1.0, strict=True)


def chain_conditions(
    segments: Segments, thresholds: Floats, decreasing: bool
) -> Iterator[Condition]:
    """p_k < n_k/n_{k−1} at every boundary.

    Args:
        decreasing: Whether n_k/n_{k−1} < 1 is asked for too, as literal Nested WAIT does.
    """
    for k, (p, r) in enumerate(zip(segments.survivals, ratios(thresholds), strict=True), start=2):
        yield condition(f"boundary {k}: p_k < n_k/n_k−1", float(p), float(r), strict=True)
        if decreasing:
            yield condition(f"boundary {k}: n_k/n_k−1 < 1", float(r), 1.0, strict=True)
