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


def read_measurements(path: str | Path, layout: str = "csv") -> Measurements:
    """Read measured iterations.

    Args:
        layout: "csv" for a table (docs/calibrate.md), "vllm-bench" for a detailed benchmark result.

    Raises:
        InputError: An unknown layout, or a file that does not follow it.

    >>> from pathlib import Path
    >>> from tempfile import mkdtemp
    >>> import fluidwait as fw
    >>> rows = Path(mkdtemp()) / "gpu.csv"
    >>> columns = ["prefill_tokens", "prefill_context_tokens", "decode_batch"]
    >>> columns += ["decode_context_tokens_total", "iteration_ms"]
    >>> written = rows.write_text(",".join(columns) + "\\n512,0,4,2048,31.5")
    >>> found = fw.read_measurements(rows)
    >>> len(found), float(found.seconds[0]), float(found.compositions.tokens[0])
    (1, 0.0315, 516.0)
    """
    if layout not in IMPORTERS:
        raise InputError("from", layout, "one of " + ", ".join(IMPORTERS))
    return IMPORTERS[layout](Path(path))
