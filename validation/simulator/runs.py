"""How much is simulated, as one thing that travels from the user to the simulator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fluid.errors import InputError

MOST_REPLICATIONS = 10_000
"""Intervals are then a hundredth of what one run varies by; a result is kept for each."""

MOST_REQUESTS = 2_000_000
"""Of a run, which keeps what every request met in memory: some 200 bytes each."""

LARGEST_SEED = 2**63 - 1

DEVICES = ("cpu", "cuda", "auto")


def require_known_device(device: str) -> None:
    """Refuse a device that does not exist anywhere.

    Raises:
        InputError: It is not in `DEVICES`.
    """
    if device not in DEVICES:
        raise InputError("device", device, ", ".join(DEVICES[:-1]) + " or " + DEVICES[-1])


@dataclass(frozen=True)
class Runs:
    """Size of an experiment and where it runs.

    Attributes:
        replications: Independent runs of each policy, 1 to 10,000.
        requests: Arrivals per run, 2 to 2,000,000.
        seed: Of all random numbers, at least 0; policies see the same arrivals.
        device: "cpu", "cuda", or "auto" for CUDA where it is available.

    Raises:
        InputError: Naming the first field that is out of range.

    >>> import fluidwait as fw
    >>> fw.Runs(replications=20, requests=10_000)
    Runs(replications=20, requests=10000, seed=0, device='cpu')
    """

    replications: int = 20
    requests: int = 10_000
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        require_count("replications", self.replications, 1, MOST_REPLICATIONS)
        require_count("requests", self.requests, 2, MOST_REQUESTS)
        require_count("seed", self.seed, 0, LARGEST_SEED)
        require_known_device(self.device)


def require_count(name: str, value: Any, least: int, most: int) -> None:
    """Refuse what is no whole number, too small, or more than a run can keep.

    Raises:
        InputError: With what is allowed.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InputError(name, value, f"at least {least}")
    if value > most:
        raise InputError(name, value, f"at most {most:,}")
