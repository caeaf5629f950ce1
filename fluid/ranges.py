"""What the numbers and names in a file may be, as types of its fields."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

LEAST, MOST = 1e-15, 1e12
"""Of rates per second, seconds and weights: beyond them products of a few leave the range in which
numbers have all their digits, and no server and no request is there."""

MOST_TOKENS = 10**9
"""Of a prompt or a context; sums over a server's requests stay whole numbers in a double."""

MOST_OUTPUT_TOKENS = 10**6
"""Of an output: a stage each is kept."""


def _in_range(value: float) -> float:
    if not LEAST <= value <= MOST:
        raise ValueError(f"a number from {LEAST:g} to {MOST:g}")
    return value


PositiveFloat = Annotated[float, Field(gt=0), AfterValidator(_in_range)]


def _printable(text: str) -> str:
    if not text.isprintable() or not text.strip():
        raise ValueError("letters that can be printed, not only spaces")
    return text


Printable = Annotated[str, Field(min_length=1, max_length=2_000), AfterValidator(_printable)]
"""A line of text."""

Name = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_printable)]
"""Of a class, a workload, a server or a policy: it stands in tables, pictures and scripts."""
