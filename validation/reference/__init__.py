"""Slow, obvious oracles: one rule per policy of `validation.policies`, by the same name."""

from __future__ import annotations

from validation.reference.core import Request, Rule, simulate
from validation.reference.greedy import greedy
from validation.reference.wait import wait

REFERENCE_POLICIES: dict[str, Rule] = {"greedy": greedy, "wait": wait}

__all__ = ["REFERENCE_POLICIES", "Request", "simulate"]
