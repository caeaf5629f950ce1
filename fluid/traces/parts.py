"""Files that hold several runs: which one is meant."""

from __future__ import annotations

from fluid.errors import InputError


def part_number(part: str | None) -> int | None:
    """The number of a part, from 1, or None where none is said.

    Raises:
        InputError: It is no such number.
    """
    if part is None:
        return None
    if not (part.isascii() and part.isdigit() and int(part)):
        raise InputError("part", part, "the number of a part, from 1")
    return int(part)


def require_part(number: int | None, told: list[str], file: str) -> None:
    """Refuse a number that no part has, and no number where there are several parts.

    Args:
        told: Each part in a few words.

    Raises:
        InputError: Listing the parts.
    """
    listed = ", ".join(f"{one} ({words})" for one, words in enumerate(told, 1))
    if number is None and len(told) > 1:
        raise InputError("part", "nothing", f"a number, each another load: {listed}", file)
    if number is not None and number > len(told):
        raise InputError("part", number, f"1 to {len(told)}: {listed}")
