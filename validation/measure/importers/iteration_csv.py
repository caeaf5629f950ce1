"""The shared table of iteration times: one row per batch composition, times in milliseconds.

Columns: `prefill_tokens` (of all requests together), `prefill_context_tokens` (cached tokens of
each request in prefill), `decode_batch`, `decode_context_tokens_total`, `iteration_ms`, and
optionally `num_prefill_seqs` (alike requests that share the prefill tokens; 1 if absent). Other
columns are ignored. A record of the run beside it (`validation.measure.record`) is used if present.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from fluid.errors import InputError
from fluid.files import read_text
from fluid.parsing import guarded
from fluid.server import MeasuredRange
from validation.measure.composition import Compositions, Floats, Measurements
from validation.measure.record import record_beside

COLUMNS = (
    "prefill_tokens",
    "prefill_context_tokens",
    "decode_batch",
    "decode_context_tokens_total",
    "iteration_ms",
)
SEQUENCES = "num_prefill_seqs"

MOST = 1e9
"""Of tokens and milliseconds: their squares and sums keep all digits that matter."""

FASTEST_MS = 0.1
"""No model of any use computes an iteration in less: such a column holds seconds."""


def read_iteration_csv(path: Path) -> Measurements:
    """Read the table.

    Raises:
        InputError: A missing column, a field that is no number ≥ 0, an empty batch, or times that
            look like seconds; with file and line.
    """
    header = _header(path)
    columns = (*COLUMNS, SEQUENCES) if SEQUENCES in header else COLUMNS
    rows = []
    for line, fields in _csv_rows(path, columns):
        numbers = [
            _number(text, f"line {line}: {name}", str(path))
            for name, text in zip(columns, fields, strict=True)
        ]
        _require_batch(numbers, line, str(path))
        rows.append(numbers[:5] + (numbers[5:] or [1.0]))
    table = np.array(rows)
    fastest_ms = float(table[:, 4].min())
    if fastest_ms < FASTEST_MS:
        allowed = f"milliseconds, at least {FASTEST_MS}; this looks like seconds"
        raise InputError("iteration_ms", fastest_ms, allowed, str(path))
    return _measurements(table, path)


def from_table(table: Floats) -> tuple[Compositions, MeasuredRange]:
    """Compositions and their range.

    Args:
        table: Columns P, ctx, B, K, any, and the number of requests in prefill, shape (N, 6).
    """
    prefill, context, decodes, kv_tokens, _, sequences = table.T
    each = prefill / np.maximum(sequences, 1)
    compositions = Compositions(
        kv_tokens=kv_tokens,
        prefill_tokens=prefill,
        decode_requests=decodes,
        prefill_tokens_sq=prefill * each,
        prefill_context_tokens=prefill * context,
    )
    prompts = each[prefill > 0]
    seen = MeasuredRange(
        tokens=_span(compositions.tokens),
        kv_tokens=_span(kv_tokens),
        decode_requests=_span(decodes),
        prompt_tokens=_span(prompts) if len(prompts) else (0.0, 0.0),
    )
    return compositions, seen


def _measurements(table: Floats, path: Path) -> Measurements:
    compositions, seen = from_table(table)
    record = record_beside(path)
    return Measurements(
        compositions=compositions,
        seconds=table[:, 4] / 1e3,
        measured_range=seen,
        source=record.source if record else path.name,
        kv_capacity_tokens=record.kv_capacity_tokens if record else None,
        name=path.stem,
    )


def _header(path: Path) -> list[str]:
    return (read_text(path).splitlines() or [""])[0].split(",")


def _csv_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """Line number (the header is line 1) and the named columns of every data row.

    Raises:
        InputError: A column is missing, a row has the wrong number of fields, or no row follows.
    """
    file = str(path)
    with guarded(file, "comma-separated values"):
        rows = list(csv.reader(read_text(path).splitlines()))
    header = rows[0] if rows else []
    missing = [name for name in columns if name not in header]
    if missing:
        raise InputError("line 1", ",".join(header), f"a header with {', '.join(columns)}", file)
    places = [header.index(name) for name in columns]
    empty = True
    for line, row in enumerate(rows[1:], 2):
        if len(row) != len(header):
            allowed = f"{len(header)} fields as in the header"
            raise InputError(f"line {line}", ",".join(row), allowed, file)
        empty = False
        yield line, [row[place] for place in places]
    if empty:
        raise InputError("", "no rows", "at least one row after the header", file)


def _number(text: str, field: str, file: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= MOST:
        raise InputError(field, text, f"a number ≥ 0, {MOST:g} at most", file)
    return value


def _require_batch(numbers: list[float], line: int, file: str) -> None:
    prefill, _, decodes, kv_tokens, milliseconds = numbers[:5]
    if prefill + decodes < 1:
        raise InputError(f"line {line}", "an empty batch", "prefill tokens or decodes", file)
    if kv_tokens and not decodes:
        raise InputError(f"line {line}: {COLUMNS[3]}", kv_tokens, "0 where nobody decodes", file)
    if milliseconds == 0:
        raise InputError(f"line {line}: {COLUMNS[4]}", 0, "milliseconds > 0", file)


def _span(values: Floats) -> tuple[float, float]:
    return float(values.min()), float(values.max())
