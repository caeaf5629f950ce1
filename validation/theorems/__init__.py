"""The registry of statements. A new one is a `Statement` in a file here, which is listed below."""

from __future__ import annotations

from validation.theorems import (
    fluid_model,
    full_memory,
    memory_boundary,
    nested_buffer,
    stable_rates,
    varying_rates,
    wait_rates,
    wait_rule,
)
from validation.theorems.statement import Statement

_FILES = (
    fluid_model,
    stable_rates,
    wait_rule,
    wait_rates,
    memory_boundary,
    nested_buffer,
    varying_rates,
    full_memory,
)

STATEMENTS: dict[str, Statement] = {
    one.key: one
    for one in sorted(
        (statement for file in _FILES for statement in file.STATEMENTS),
        key=lambda statement: [int(one) for one in statement.theory.split(", ")[0].split(".")],
    )
}
"""By key, in the order of THEORY."""

__all__ = ["STATEMENTS"]
