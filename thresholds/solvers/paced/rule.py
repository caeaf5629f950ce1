"""What a practical table means: its parameters set everything."""

from __future__ import annotations

from thresholds.limits import PARAMETER_MEANINGS
from thresholds.solvers.rule import Rule


class PacedRule(Rule):
    """Pace, cap and watermark; the thresholds only say what the pace is made of."""

    policy = "paced"
    followed = True
    params = tuple(PARAMETER_MEANINGS)
