"""The physical floor of an iteration: bytes over bandwidth, operations over peak.

No iteration is faster than reading all weights once, no KV token cheaper than reading its bytes, no
prompt token cheaper than its multiplications. Measured ÷ floor says how good the implementation is,
and a ratio below 1 that something was measured wrongly.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fluid.errors import InputError
from fluid.iteration import IterationTime
from validation.measure.shapes import ModelShape


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


def floor_report(
    tau: IterationTime, shape: ModelShape, device: DeviceLimits, bytes_per_value: int = 2
) -> tuple[FloorLine, ...]:
    """c_kv, overhead and prefill slope of an iteration time beside their floors.

    The prefill slope is that of f between half its last knot and the last knot.
    """
    last = tau.tokens_knots[-1]
    if last == 0:
        raise InputError("tokens_knots", list(tau.tokens_knots), "knots above 0 tokens")
    half_s, last_s = np.asarray(tau.token_seconds([last / 2, last]))
    slope_s = float(last_s - half_s) / (last / 2) + tau.per_prefill_token_s
    weights = shape.weights - shape.vocabulary * shape.hidden
    return (
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


def device_limits(
    name: str | None, bandwidth_gb_per_s: float | None, tflops: float | None
) -> DeviceLimits:
    """Limits of a known device, or given by hand.

    Raises:
        InputError: An unknown device, or only one of the two figures.
    """
    if bandwidth_gb_per_s and tflops:
        return DeviceLimits(bandwidth_gb_per_s * 1e9, tflops * 1e12)
    if name not in DEVICES:
        allowed = "--bandwidth-gb-per-s with --tflops, or one of " + ", ".join(DEVICES)
        raise InputError("--on", name, allowed)
    return DEVICES[name]
