"""What several commands need."""

from __future__ import annotations

from pathlib import Path

from fluid.errors import InputError
from fluid.workload import Workload


def load_workload(path: Path, rate_per_s: float | None) -> Workload:
    """Read a workload, at another total rate if one is given."""
    workload = Workload.read(path)
    if rate_per_s is None:
        return workload
    return workload.at_rate(checked_rate(rate_per_s))


def checked_rate(rate_per_s: float) -> float:
    """A rate from the command line.

    Raises:
        InputError: It is not positive and finite.
    """
    if not 0 < rate_per_s < float("inf"):
        raise InputError("--rate", rate_per_s, "requests per second > 0")
    return rate_per_s
