"""What tables with segments mean (THEORY 4.2, 5.3)."""

from __future__ import annotations

from thresholds.solvers.rule import Rule

RECORDS = (
    "segments",
    "horizon_s",
    "overflow_probability",
    "deterministic_buffer_tokens",
    "stochastic_buffer_tokens",
    "eta",
)
"""Parameters by which tables before schema 1.2 say how they were found; nothing to follow."""


class NestedWaitRule(Rule):
    """A segment waits until n_k requests stand before it, then serves n_k of each stage."""

    policy = "nested-wait"
    followed = True
    segmented = True
    gated = True
    whole = True
    params = ("max_wait_s", *RECORDS)
    meaning = "requests of each stage served at once"


class NestedCapRule(Rule):
    """At most so many requests of each segment are served; nobody waits for others."""

    policy = "nested-cap"
    followed = True
    segmented = True
    caps = True
    whole = True
    params = ("cap_requests", *RECORDS)
    meaning = "requests of the segment served at once"
