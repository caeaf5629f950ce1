"""What options and restraints are checked with."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any

from fluid.errors import InputError


def is_number(value: Any) -> bool:
    """Whether it is a finite number; True and False are none."""
    if isinstance(value, int):
        return not isinstance(value, bool) and value.bit_length() < 1024
    return isinstance(value, Real) and math.isfinite(value)


def is_whole(value: Any) -> bool:
    """Whether it is a whole number, also one written as 3.0."""
    return is_number(value) and value == int(value)


def require_choice(name: str, value: Any, choices: Sequence[str], allowed: str) -> None:
    """Refuse an option that is none of its choices.

    Raises:
        InputError: With what is allowed, in words.
    """
    if value not in choices:
        raise InputError(name, value, allowed)
