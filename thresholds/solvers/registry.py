"""Registry of threshold solvers: a room each, one line here."""

from __future__ import annotations

from typing import Any

from fluid.errors import InputError, not_a_name
from thresholds.solvers.nested.nested_cap import NestedCap
from thresholds.solvers.nested.nested_wait import NestedWait
from thresholds.solvers.paced.solver import Paced
from thresholds.solvers.solver import Solver
from thresholds.solvers.wait.solver import Wait

SOLVERS: dict[str, type[Solver]] = {one.policy: one for one in (Paced, Wait, NestedWait, NestedCap)}


def solver_named(policy: str, **options: Any) -> Solver:
    """The solver of a policy by its name, with these of its options.

    Raises:
        InputError: An unknown policy, an option that its solver does not have, or a value that is
            not allowed.

    >>> solver_named("nested-cap", segments=2)
    NestedCap(segments=2, prompts='worst')
    """
    if policy not in SOLVERS:
        raise not_a_name("policy", policy, SOLVERS)
    kind = SOLVERS[policy]
    for name, value in options.items():
        if name not in kind.options():
            own = ", ".join(kind.options())
            raise InputError(name, value, f"no such option of policy {policy}, which has {own}")
    return kind(**options)
