"""The ceilings of this card as the part `card` has measured them."""

from __future__ import annotations

from pathlib import Path

from tests.gpu.result import read_result
from validation.measure.floor import DeviceLimits

BANDWIDTH, OPERATIONS = "bandwidth_bytes_per_s", "operations_per_s"


def known_ceilings(folder: Path) -> DeviceLimits | None:
    """Bytes per second of a copy and operations of a product; None where `card` has not run."""
    card = read_result(folder, "card")
    found = [card.figures.get(name) for name in (BANDWIDTH, OPERATIONS)] if card else [None]
    return None if None in found else DeviceLimits(*(float(one) for one in found if one))
