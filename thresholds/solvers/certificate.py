"""Conditions of a certificate, and the refusal of a result of which one fails."""

from __future__ import annotations

from fluid.errors import InfeasibleError
from fluid.steady.equilibrium import Equilibrium
from thresholds.fields import Condition

_ROUNDING = 1e-9
"""Relative error of a sum in double precision, far above what occurs."""


def condition(text: str, value: float, limit: float, strict: bool = False) -> Condition:
    """The certificate of `value` ≤ `limit` (< if `strict`), slack relative to the limit."""
    slack = (limit - value) / limit
    if not strict and abs(slack) < _ROUNDING:
        slack = 0.0
    return Condition(condition=text, slack=slack, holds=slack > 0 if strict else slack >= 0)


def stability_condition(found: Equilibrium) -> Condition:
    """1/α* ≤ 1: the fluid stability of the workload itself (THEORY 2.3)."""
    return condition("fluid stability: 1/α* ≤ 1", 1 / found.max_scale, 1.0)


def require_certified(certificate: tuple[Condition, ...]) -> None:
    """Refuse a result of which a condition does not hold.

    Raises:
        InfeasibleError: Naming the first such condition.
    """
    for one in certificate:
        if not one.holds:
            raise InfeasibleError(
                f"no table: {one.condition} fails by {-one.slack:.2%}",
                one.condition,
                "lower the rates or raise kv_capacity_tokens",
            )
