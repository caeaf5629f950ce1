"""CSV traces: named columns of arrival time, prompt and output tokens, in any order."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fluid.errors import InputError
from fluid.traces.lines import Clock, Columns, Ragged, Row, Watch, line_chunks, whole_tokens
from fluid.traces.reuse import Reuse
from fluid.traces.trace import NO_TIMES, Chunk, ReadOptions, Trace, open_bytes
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


UNTIMED = CsvClock(field="", allowed="", quick=lambda _: np.empty(0), careful=lambda _: 0.0)
"""The clock of a file that has no times."""


@dataclass(frozen=True)
class Beside:
    """A column of whole numbers that only some files of a format have.

    Attributes:
        watch: Makes what looks at the column while a file is read.
    """

    column: str
    watch: Callable[[], Watch]


_BLOCK_COLUMN = re.compile(r"block_ids_of_([1-9]\d{0,8})_tokens")


def block_column(block_tokens: int) -> str:
    """Name of a column with the ids of each prompt's blocks, separated by spaces."""
    return f"block_ids_of_{block_tokens}_tokens"


def csv_format(
    name: str,
    summary: str,
    clock: CsvClock,
    prompt: str,
    output: str,
    without: str | None = None,
    beside: Beside | None = None,
    blocks: bool = False,
) -> TraceFormat:
    """A format of CSV files with a clock, and columns of prompt and output tokens.

    Args:
        blocks: Whether a file may have a `block_column`, which is then read in place of `beside`.
        without: A column that makes it a file of another format.
    """
    columns = tuple(column for column in (clock.field, prompt, output) if column)

    def detect(head: str) -> bool:
        header = _header(head.partition("\n")[0])
        return set(columns) <= set(header) and without not in header

    def open_csv(path: Path, options: ReadOptions) -> Trace:
        watch = beside.watch() if beside else None
        parser = CsvParser(clock, prompt, output, beside.column if beside else "", blocks=blocks)
        if blocks and (block_tokens := _block_tokens(_first_line(path))):
            watch = Reuse(block_tokens)
        return Trace(
            _chunks(path, parser, options, watch),
            timed=bool(clock.field),
            said=() if clock.field else (NO_TIMES,),
            findings=watch.findings if watch else lambda: (),
        )

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
    path: Path, parser: CsvParser, options: ReadOptions, watch: Watch | None
) -> Iterator[Chunk]:
    file = str(path)
    with open_bytes(path) as stream:
        header = _header(stream.readline(1 << 16).decode("utf-8", "replace"))
        if any(column not in header for column in parser.required):
            allowed = f"a header with {', '.join(parser.required)}"
            raise InputError("line 1", ",".join(header), allowed, file)
        parser = parser.of(header, file)
        block_tokens = _block_tokens(header) if parser.blocks else None
        yield from line_chunks(stream, parser, 2, options, file, watch, block_tokens)


def _first_line(path: Path) -> list[str]:
    with open_bytes(path) as stream:
        return _header(stream.readline(1 << 16).decode("utf-8", "replace"))


def _block_tokens(header: list[str]) -> int | None:
    """Tokens of a block, if there is a column of block ids."""
    found = [match for name in header if (match := _BLOCK_COLUMN.fullmatch(name))]
    return int(found[0][1]) if found else None


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
    """Lines of a CSV; see `fluid.traces.lines.LineParser`.

    Attributes:
        beside: A column that is read where a file has it, or "".
        blocks: Whether a file may have a column of block ids; of one file, whether `beside` is it.
        header: The columns of the file at hand.
    """

    clock: CsvClock
    prompt: str
    output: str
    beside: str = ""
    blocks: bool = False
    header: tuple[str, ...] = ()
    file: str = ""

    @property
    def required(self) -> list[str]:
        """Columns that every file has."""
        return [column for column in (self.clock.field, self.prompt, self.output) if column]

    def of(self, header: list[str], file: str) -> CsvParser:
        """The parser of one file."""
        block_tokens = _block_tokens(header) if self.blocks else None
        beside = block_column(block_tokens) if block_tokens else self.beside
        beside = beside if beside in header else ""
        return replace(
            self, beside=beside, blocks=bool(block_tokens), header=tuple(header), file=file
        )

    def quick(self, block: bytes) -> Columns:
        import pyarrow
        from pyarrow import csv as arrow_csv

        # Columns by position: names may repeat among those that are not read.
        names = [str(place) for place in range(len(self.header))]
        wanted = {column: names[self.header.index(column)] for column in self._wanted}
        table = arrow_csv.read_csv(
            pyarrow.BufferReader(block),
            arrow_csv.ReadOptions(use_threads=False, column_names=names, block_size=len(block) + 1),
            arrow_csv.ParseOptions(ignore_empty_lines=False),
            arrow_csv.ConvertOptions(
                column_types=dict.fromkeys(wanted.values(), pyarrow.string()),
                include_columns=list(wanted.values()),
            ),
        )
        prompts, outputs = (_digits(table[wanted[name]]) for name in (self.prompt, self.output))
        times = np.zeros(len(prompts))
        if self.clock.field:
            times = self.clock.quick(table[wanted[self.clock.field]])
        if not self.beside:
            return Columns(times, prompts, outputs)
        if self.blocks:
            return Columns(times, prompts, outputs, _lists(table[wanted[self.beside]]))
        numbers = _digits(table[wanted[self.beside]])
        return Columns(times, prompts, outputs, Ragged(numbers, np.ones_like(numbers)))

    def careful(self, block: bytes, first_line: int) -> Iterator[Row]:
        for line, text in enumerate(block.split(b"\n"), first_line):
            if not text and line == first_line + block.count(b"\n"):
                return  # behind the last line end
            shown = _decoded(text.rstrip(b"\r"), line, self.file)
            fields = _fields(shown)
            if len(fields) != len(self.header):
                allowed = f"{len(self.header)} fields as in the header"
                raise InputError(f"line {line}", shown, allowed, self.file)
            named = dict(zip(self.header, fields, strict=True))
            said = named[self.clock.field] if self.clock.field else ""
            yield Row(
                line,
                said,
                self._time(said, line),
                self._count(named, self.prompt, line),
                self._count(named, self.output, line),
                self._beside(named, line),
            )

    @property
    def _wanted(self) -> list[str]:
        return [*self.required, self.beside] if self.beside else self.required

    def _count(self, named: dict[str, str], column: str, line: int) -> int:
        return whole_tokens(named[column], f"line {line}: {column}", self.file)

    def _beside(self, named: dict[str, str], line: int) -> tuple[int, ...]:
        if not self.beside:
            return ()
        if not self.blocks:
            return (self._count(named, self.beside, line),)
        texts = named[self.beside].split()
        if not all(one.isascii() and one.isdigit() and len(one) < 19 for one in texts):
            place = f"line {line}: {self.beside}"
            allowed = "whole numbers from 0 on, separated by spaces"
            raise InputError(place, named[self.beside], allowed, self.file)
        return tuple(int(one) for one in texts)

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


def _lists(texts: pyarrow.ChunkedArray) -> Ragged:
    """Whole numbers separated by single spaces."""
    import pyarrow
    import pyarrow.compute as arrow

    some = np.asarray(arrow.greater(arrow.binary_length(texts), 0))
    split = arrow.split_pattern(texts, " ").combine_chunks()
    counts = np.where(some, np.asarray(arrow.list_value_length(split)), 0)
    words = pyarrow.chunked_array([arrow.list_flatten(split)])
    return Ragged(_digits(words.filter(arrow.not_equal(words, ""))), counts.astype(np.int64))


def _digits(texts: pyarrow.ChunkedArray) -> NDArray[np.int64]:
    """Whole numbers from strings of nothing but digits; Arrow alone would also take 0x1F."""
    import pyarrow
    import pyarrow.compute as arrow

    if not arrow.all(arrow.ascii_is_decimal(texts)).as_py():
        raise ValueError("not digits")
    return np.asarray(texts.cast(pyarrow.int64()))
