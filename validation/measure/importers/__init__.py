"""Readers of measured iteration times: one file per format, one line per format here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fluid.errors import InputError
from validation.measure.composition import Measurements
from validation.measure.importers.iteration_csv import read_iteration_csv
from validation.measure.importers.vllm_bench import read_vllm_bench

IMPORTERS: dict[str, Callable[[Path], Measurements]] = {
    "csv": read_iteration_csv,
    "vllm-bench": read_vllm_bench,
}


def read_measurements(path: Path, layout: str = "csv") -> Measurements:
    """Read measured iterations.

    Raises:
        InputError: An unknown layout, or a file that does not follow it.
    """
    if layout not in IMPORTERS:
        raise InputError("--from", layout, "one of " + ", ".join(IMPORTERS))
    return IMPORTERS[layout](path)
