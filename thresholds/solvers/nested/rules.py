"""What tables with segments mean (THEORY 4.2, 5.3)."""

from __future__ import annotations

from thresholds.solvers.rule import Rule


class NestedWaitRule(Rule):
    """A segment waits until n_k requests stand before it, then serves n_k of each stage."""

    policy = "nested-wait"
    followed = True
    segmented = True
    gated = True
    meaning = "requests of each stage served at once"


class NestedCapRule(Rule):
    """At most so many requests of each segment are served; nobody waits for others."""

    policy = "nested-cap"
    followed = True
    segmented = True
    caps = True
    meaning = "requests of the segment served at once"
