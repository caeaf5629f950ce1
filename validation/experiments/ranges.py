"""Ranges as text: rates, and policies with a range for a parameter."""

from __future__ import annotations

import itertools
import math

from fluid.errors import InputError
from validation.policies import ConfiguredPolicy, parse_policy

MOST_VALUES = 10_000


def parse_rates(text: str) -> list[float]:
    """``a:b:step`` with both ends, or ``a,b,c``, or one rate; requests per second.

    Raises:
        InputError: Not of that form, not positive, or too many.
    """
    rates = [rate for part in text.split(",") for rate in _values("rates", part)]
    if not all(0 < rate < math.inf for rate in rates):
        raise InputError("rates", text, "rates > 0 as a:b:step, a,b,c or one number")
    return rates


def parse_policies(text: str) -> list[ConfiguredPolicy]:
    """``NAME[:key=value,…]``, where ``a:b:step`` for a value stands for a policy at each of them.

    Raises:
        InputError: Unknown policy or parameter, or a value out of range.
    """
    name, colon, rest = text.partition(":")
    choices = []
    for part in filter(None, rest.split(",")):
        key, _, value = part.partition("=")
        if ":" in value:
            values = _values(f"policy {name}: {key}", value)
            choices.append([f"{key}={one!r}" for one in values])
        else:
            choices.append([part])
    return [parse_policy(name + colon + ",".join(one)) for one in itertools.product(*choices)]


def _values(field: str, text: str) -> list[float]:
    """``a:b:step`` with both ends, or one number; 0.1 + 2 · 0.1 is 0.3."""
    try:
        if ":" not in text:
            return [float(text)]
        low, high, step = (float(part) for part in text.split(":"))
        if not (-math.inf < low <= high < math.inf and 0 < step < math.inf):
            raise ValueError
    except ValueError:
        raise InputError(field, text, "a number, or a:b:step with a ≤ b and step > 0") from None
    count = math.floor((high - low) / step * (1 + 1e-12) + 1e-9) + 1
    if count > MOST_VALUES:
        raise InputError(field, text, f"at most {MOST_VALUES} values")
    return [float(f"{low + index * step:.12g}") for index in range(count)]
