"""The rules of all policies that solvers make tables of: one line for each."""

from __future__ import annotations

from thresholds.solvers.nested.rules import NestedCapRule, NestedWaitRule
from thresholds.solvers.paced.rule import PacedRule
from thresholds.solvers.rule import Rule
from thresholds.solvers.wait.rule import WaitRule

RULES: dict[str, Rule] = {
    one.policy: one for one in (PacedRule(), WaitRule(), NestedWaitRule(), NestedCapRule())
}


def rule_of(policy: str) -> Rule:
    """The rule of a policy by its name in tables; one that sets nothing if it is unknown."""
    return RULES.get(policy, _UNKNOWN)


_UNKNOWN = Rule()
