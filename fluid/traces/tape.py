"""Tapes: recorded arrivals with their lengths, and the CSV they are kept in.

A tape file is a CSV with the columns ``arrived_at`` (s), ``num_prefill_tokens`` and
``num_decode_tokens``, one request per row in order of arrival.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fluid.errors import InputError
from fluid.files import read_text, write_text

COLUMNS = ("arrived_at", "num_prefill_tokens", "num_decode_tokens")


@dataclass(frozen=True)
class Tape:
    """Requests in order of arrival.

    Attributes:
        arrived_at_s: Arrival times in seconds, non-negative and sorted, shape (n,).
        num_prefill_tokens: Prompt lengths, whole tokens ≥ 1, shape (n,).
        num_decode_tokens: Output lengths, whole tokens ≥ 1, shape (n,).

    Raises:
        InputError: Naming the first array entry that is not allowed.
    """

    arrived_at_s: NDArray[np.float64]
    num_prefill_tokens: NDArray[np.int64]
    num_decode_tokens: NDArray[np.int64]

    def __post_init__(self) -> None:
        shape = np.shape(self.arrived_at_s)
        if len(shape) != 1 or shape[0] == 0:
            raise InputError("arrived_at_s", f"shape {shape}", "one row of at least one request")
        times = np.array(self.arrived_at_s, dtype=float)
        _refuse("arrived_at_s", times, ~np.isfinite(times) | (times < 0), "finite seconds ≥ 0")
        _refuse("arrived_at_s", times, np.diff(times, prepend=times[0]) < 0, "sorted times")
        object.__setattr__(self, "arrived_at_s", times)
        for field in ("num_prefill_tokens", "num_decode_tokens"):
            counts = np.array(getattr(self, field))
            if counts.shape != shape:
                raise InputError(field, f"shape {counts.shape}", f"shape {shape}")
            if not np.issubdtype(counts.dtype, np.integer):
                raise InputError(field, str(counts.dtype), "an array of whole tokens")
            _refuse(field, counts, counts < 1, "whole tokens ≥ 1")
            object.__setattr__(self, field, counts.astype(np.int64))

    def __len__(self) -> int:
        return len(self.arrived_at_s)

    @property
    def rate_per_s(self) -> float:
        """Arrivals per second: (n − 1) gaps over the time from the first to the last arrival.

        Raises:
            InputError: All requests arrive at one instant, so that there is no rate.
        """
        span_s = float(self.arrived_at_s[-1] - self.arrived_at_s[0])
        if span_s == 0:
            raise InputError("arrived_at", f"{len(self)} at one instant", "arrivals over time")
        return (len(self) - 1) / span_s


def read_tape(path: str | Path) -> Tape:
    """Read a tape CSV.

    Raises:
        InputError: Naming file, line, value and what is allowed.
    """
    file = str(path)
    times: list[float] = []
    prefill: list[int] = []
    decode: list[int] = []
    for line, (arrived, prompt, output) in csv_rows(path, COLUMNS):
        times.append(_seconds(arrived, line, times[-1] if times else 0.0, file))
        prefill.append(whole_tokens(prompt, line, COLUMNS[1], file))
        decode.append(whole_tokens(output, line, COLUMNS[2], file))
    return Tape(np.array(times), np.array(prefill), np.array(decode))


def write_tape(tape: Tape, path: str | Path) -> None:
    """Write a tape CSV; times keep full precision, so that reading gives the same tape."""
    rows = zip(
        tape.arrived_at_s.tolist(),
        tape.num_prefill_tokens.tolist(),
        tape.num_decode_tokens.tolist(),
        strict=True,
    )
    lines = [",".join(COLUMNS), *(f"{time!r},{prompt},{output}" for time, prompt, output in rows)]
    write_text(path, "\n".join(lines) + "\n")


def csv_rows(path: str | Path, columns: Sequence[str]) -> Iterator[tuple[int, list[str]]]:
    """Line number (the header is line 1) and the named columns of every data row.

    Raises:
        InputError: A column is missing, a row has the wrong number of fields, or no row follows.
    """
    file = str(path)
    reader = csv.reader(read_text(path).splitlines())
    header = next(reader, [])
    missing = [name for name in columns if name not in header]
    if missing:
        raise InputError("line 1", ",".join(header), f"a header with {', '.join(columns)}", file)
    places = [header.index(name) for name in columns]
    empty = True
    for row in reader:
        if len(row) != len(header):
            allowed = f"{len(header)} fields as in the header"
            raise InputError(f"line {reader.line_num}", ",".join(row), allowed, file)
        empty = False
        yield reader.line_num, [row[place] for place in places]
    if empty:
        raise InputError("", "no requests", "at least one row after the header", file)


def whole_tokens(text: str, line: int, column: str, file: str) -> int:
    """A token count ≥ 1 from a CSV field, or an `InputError` with its line."""
    stripped = text.strip()
    # No trace has a request of 10¹⁰ tokens; longer digit strings would overflow the arrays.
    if not (stripped.isascii() and stripped.isdigit() and len(stripped) <= 10 and int(stripped)):
        raise InputError(f"line {line}: {column}", text, "whole tokens ≥ 1", file)
    return int(stripped)


def _seconds(text: str, line: int, previous_s: float, file: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not np.isfinite(value) or value < 0:
        raise InputError(f"line {line}: {COLUMNS[0]}", text, "finite seconds ≥ 0", file)
    if value < previous_s:
        allowed = f"sorted times, so at least {previous_s!r}"
        raise InputError(f"line {line}: {COLUMNS[0]}", text, allowed, file)
    return value


def _refuse(
    field: str,
    values: NDArray[np.float64] | NDArray[np.int64],
    bad: NDArray[np.bool_],
    allowed: str,
) -> None:
    if bad.any():
        index = int(np.argmax(bad))
        raise InputError(f"{field}[{index}]", values[index].item(), allowed)
