"""CSV traces: named columns of arrival time, prompt and output tokens, in any order."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fluid.errors import InputError
from fluid.traces.lines import Clock, Columns, Row, line_chunks, whole_tokens
from fluid.traces.trace import Chunk, ReadOptions, Trace, open_bytes
from fluid.traces.trace_format import TraceFormat

if TYPE_CHECKING:
    import pyarrow


@dataclass(frozen=True, kw_only=True)
class CsvClock(Clock):
    """How a CSV writes times.

    Attributes:
        allowed: What a time looks like, in words.
        quick: From a column of strings to numbers; raises ValueError at anything unusual.
        careful: The same for one string.
    """

    allowed: str
    quick: Callable[[pyarrow.ChunkedArray], NDArray[Any]]
    careful: Callable[[str], float]


def seconds_clock(field: str, from_zero: bool = True) -> CsvClock:
    """Times in decimal seconds."""
    return CsvClock(
        field=field,
        from_zero=from_zero,
        allowed="finite seconds ≥ 0",
        quick=_quick_seconds,
        careful=_careful_seconds,
    )


def csv_format(name: str, summary: str, clock: CsvClock, prompt: str, output: str) -> TraceFormat:
    """A format of CSV files with a clock, and columns of prompt and output tokens."""
    columns = (clock.field, prompt, output)

    def detect(head: str) -> bool:
        return set(columns) <= set(_header(head.partition("\n")[0]))

    def open_csv(path: Path, options: ReadOptions) -> Trace:
        return Trace(_chunks(path, clock, columns, options))

    return TraceFormat(name, summary, detect, open_csv)


def _quick_seconds(texts: pyarrow.ChunkedArray) -> NDArray[np.float64]:
    import pyarrow

    return np.asarray(texts.cast(pyarrow.float64()))


def _careful_seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value < float("inf"):
        raise ValueError
    return value


def _chunks(
    path: Path, clock: CsvClock, columns: tuple[str, str, str], options: ReadOptions
) -> Iterator[Chunk]:
    file = str(path)
    with open_bytes(path) as stream:
        header = _header(stream.readline(1 << 16).decode("utf-8", "replace"))
        if any(column not in header for column in columns):
            allowed = f"a header with {', '.join(columns)}"
            raise InputError("line 1", ",".join(header), allowed, file)
        parser = CsvParser(clock, columns, header, file)
        yield from line_chunks(stream, parser, 2, options, file)


def _header(line: str) -> list[str]:
    return [name.strip() for name in _fields(line.rstrip().removeprefix("\ufeff"))]


def _fields(line: str) -> list[str]:
    """Fields of a line, none of one that is no CSV."""
    try:
        return next(csv.reader([line]), [])
    except csv.Error:
        return []


@dataclass(frozen=True)
class CsvParser:
    """Lines of a CSV with this header; see `fluid.traces.lines.LineParser`."""

    clock: CsvClock
    columns: tuple[str, str, str]
    header: list[str]
    file: str

    def quick(self, block: bytes) -> Columns:
        import pyarrow
        from pyarrow import csv as arrow_csv

        # Columns by position: names may repeat among those that are not read.
        names = [str(place) for place in range(len(self.header))]
        wanted = [names[self.header.index(column)] for column in self.columns]
        table = arrow_csv.read_csv(
            pyarrow.BufferReader(block),
            arrow_csv.ReadOptions(use_threads=False, column_names=names, block_size=len(block) + 1),
            arrow_csv.ParseOptions(ignore_empty_lines=False),
            arrow_csv.ConvertOptions(
                column_types=dict.fromkeys(wanted, pyarrow.string()), include_columns=wanted
            ),
        )
        times, prompts, outputs = (table[name] for name in wanted)
        return Columns(self.clock.quick(times), _digits(prompts), _digits(outputs))

    def careful(self, block: bytes, first_line: int) -> Iterator[Row]:
        places = [self.header.index(column) for column in self.columns]
        for line, text in enumerate(block.split(b"\n"), first_line):
            if not text and line == first_line + block.count(b"\n"):
                return  # behind the last line end
            shown = _decoded(text.rstrip(b"\r"), line, self.file)
            fields = _fields(shown)
            if len(fields) != len(self.header):
                allowed = f"{len(self.header)} fields as in the header"
                raise InputError(f"line {line}", shown, allowed, self.file)
            said, prompt, output = (fields[place] for place in places)
            yield Row(
                line,
                said,
                self._time(said, line),
                whole_tokens(prompt, f"line {line}: {self.columns[1]}", self.file),
                whole_tokens(output, f"line {line}: {self.columns[2]}", self.file),
            )

    def _time(self, text: str, line: int) -> float:
        try:
            return self.clock.careful(text.strip())
        except ValueError:
            place = f"line {line}: {self.clock.field}"
            raise InputError(place, text, self.clock.allowed, self.file) from None


def _decoded(line: bytes, number: int, file: str) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        raise InputError(f"line {number}", "not UTF-8 text", "UTF-8 text", file) from None


def _digits(texts: pyarrow.ChunkedArray) -> NDArray[np.int64]:
    """Whole numbers from strings of nothing but digits; Arrow alone would also take 0x1F."""
    import pyarrow
    import pyarrow.compute as arrow

    if not arrow.all(arrow.ascii_is_decimal(texts)).as_py():
        raise ValueError("not digits")
    return np.asarray(texts.cast(pyarrow.int64()))
