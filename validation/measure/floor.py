"""The physical floor of an iteration: bytes over bandwidth, operations over peak.

No iteration is faster than reading all weights once, no KV token cheaper than reading its bytes, no
prompt token cheaper than its multiplications. Measured ÷ floor says how good the implementation is,
and a ratio below 1 that something was measured wrongly.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from fluid.errors import InputError
from fluid.result import Block, Result, Table, number
from fluid.server import Server
from validation.measure.shapes import shape_named


@dataclass(frozen=True)
class DeviceLimits:
    """Data-sheet limits of a device: memory bandwidth and dense 16-bit operations."""

    bandwidth_bytes_per_s: float
    operations_per_s: float


DEVICES = {
    "a100-80gb": DeviceLimits(2.039e12, 312e12),
    "a100-40gb": DeviceLimits(1.555e12, 312e12),
    "h100-sxm": DeviceLimits(3.35e12, 989e12),
    "h200": DeviceLimits(4.8e12, 989e12),
    "l4": DeviceLimits(300e9, 121e12),
}
"""From the makers' data sheets: SXM versions, no sparsity."""


@dataclass(frozen=True)
class FloorLine:
    """One quantity, measured and at least; seconds."""

    name: str
    floor_s: float
    measured_s: float

    @property
    def ratio(self) -> float:
        """Measured ÷ floor."""
        return self.measured_s / self.floor_s


@dataclass(frozen=True, repr=False)
class FloorReport(Result):
    """Coefficients of a server beside what a device's bandwidth and peak allow."""

    server: str
    model: str
    lines: tuple[FloorLine, ...]

    def blocks(self) -> Iterable[Block]:
        """A line per coefficient."""
        yield Table(
            f"{self.server} against the physical floor of {self.model}",
            ("coefficient", "measured", "floor", "ratio"),
            tuple(
                (one.name, number(one.measured_s), number(one.floor_s), number(one.ratio))
                for one in self.lines
            ),
        )

    def document(self) -> dict[str, Any]:
        """Measured and least seconds by coefficient."""
        rows = [asdict(one) | {"ratio": one.ratio} for one in self.lines]
        return {"server": self.server, "model": self.model, "floor": rows}

    def frame(self) -> dict[str, list[Any]]:
        """A row per coefficient."""
        return {
            "coefficient": [one.name for one in self.lines],
            "measured_s": [one.measured_s for one in self.lines],
            "floor_s": [one.floor_s for one in self.lines],
            "ratio": [one.ratio for one in self.lines],
        }


def floor_report(
    server: Server, model: str, device: DeviceLimits, bytes_per_value: int = 2
) -> FloorReport:
    """c_kv, overhead and prefill slope of a server beside their floors for a model.

    The prefill slope is that of f between half its last knot and the last knot.

    Raises:
        InputError: An unknown model, or an f of a single knot.
    """
    tau, shape = server.iteration_time, shape_named(model)
    last = tau.tokens_knots[-1]
    if last == 0:
        raise InputError("tokens_knots", list(tau.tokens_knots), "knots above 0 tokens")
    half_s, last_s = np.asarray(tau.token_seconds([last / 2, last]))
    slope_s = float(last_s - half_s) / (last / 2) + tau.per_prefill_token_s
    weights = shape.weights - shape.vocabulary * shape.hidden
    lines = (
        FloorLine(
            "overhead_s",
            weights * bytes_per_value / device.bandwidth_bytes_per_s,
            tau.overhead_s,
        ),
        FloorLine(
            "per_kv_token_s",
            shape.kv_values_per_token * bytes_per_value / device.bandwidth_bytes_per_s,
            tau.per_kv_token_s,
        ),
        FloorLine(
            "prefill_slope_s", 2 * shape.multiplied_weights / device.operations_per_s, slope_s
        ),
    )
    return FloorReport(server.name, model, lines)


def device_limits(
    on: str | None = None,
    bandwidth_gb_per_s: float | None = None,
    tflops: float | None = None,
) -> DeviceLimits:
    """Limits of a known device, or given by hand.

    Args:
        on: A device of `DEVICES`.
        bandwidth_gb_per_s: Memory bandwidth of another device.
        tflops: Its dense 16-bit operations, 10¹²/s.

    Raises:
        InputError: An unknown device, only one of the two figures, or both device and figures.
    """
    figures = {"bandwidth_gb_per_s": bandwidth_gb_per_s, "tflops": tflops}
    given = {name: one for name, one in figures.items() if one is not None}
    if on is not None:
        if on not in DEVICES:
            raise InputError("on", on, "one of " + ", ".join(DEVICES))
        for name, value in given.items():
            raise InputError(name, value, f"a figure of another device, without on {on}")
        return DEVICES[on]
    if not given:
        allowed = "one of " + ", ".join(DEVICES) + "; or bandwidth_gb_per_s with tflops"
        raise InputError("on", None, allowed)
    for name, value in given.items():
        if not 0 < value < math.inf:
            raise InputError(name, value, "a number > 0")
    if len(given) < len(figures):
        ((name, value),) = given.items()
        raise InputError(name, value, "bandwidth_gb_per_s and tflops, both of them")
    return DeviceLimits(given["bandwidth_gb_per_s"] * 1e9, given["tflops"] * 1e12)
