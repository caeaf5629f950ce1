"""How much is simulated, as one thing that travels from the user to the simulator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fluid.errors import InputError

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
        replications: Independent runs of each policy, at least 1.
        requests: Arrivals per run, at least 1.
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
        _require_whole("replications", self.replications, 1)
        _require_whole("requests", self.requests, 1)
        _require_whole("seed", self.seed, 0)
        require_known_device(self.device)


def _require_whole(name: str, value: Any, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InputError(name, value, f"at least {least}")
