"""Traces with a request per line, read block by block.

A block of whole lines is parsed by Arrow, at millions of rows per second. Where Arrow or a check
finds anything unusual, the same block is parsed again line by line in Python, which either names
the broken line or reads what Arrow was too strict for. So errors cost nothing until there is one.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from fluid.errors import InputError
from fluid.traces.prompt_blocks import PromptBlocks, fitting
from fluid.traces.trace import MOST_TOKENS, Chunk, ReadOptions, failed_request

LONGEST_LINE_BYTES = 1 << 26

LATEST = 1e21
"""Of a time in any unit: nanoseconds since 1970 are below it for thousands of years."""


@dataclass(frozen=True)
class Ragged:
    """Any number of whole numbers per request.

    Attributes:
        values: All of them, request by request.
        counts: How many each request has, shape (n,).
    """

    values: NDArray[np.int64]
    counts: NDArray[np.int64]

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]]) -> Ragged:
        """From a list of numbers per request."""
        return cls(
            np.array([value for row in rows for value in row], dtype=np.int64),
            np.array([len(row) for row in rows], dtype=np.int64),
        )


NOTHING_BESIDE = Ragged(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))


@dataclass(frozen=True)
class Columns:
    """A block as arrays of shape (n,): times in units of the format, token counts.

    Attributes:
        beside: Further numbers that the format has of each request, for a `Watch`.
    """

    times: NDArray[Any]
    prompts: NDArray[np.int64]
    outputs: NDArray[np.int64]
    beside: Ragged = NOTHING_BESIDE

    def usual(self, earliest: float) -> bool:
        """Whether times are finite, sorted and not before `earliest`, and counts are counts."""
        if len(self.times) == 0:
            return True
        return bool(
            np.isfinite(self.times).all()
            and self.times[0] >= earliest
            and (np.diff(self.times) >= 0).all()
            and min(self.prompts.min(), self.outputs.min()) >= 0
            and max(self.prompts.max(), self.outputs.max()) < MOST_TOKENS
        )


class Row(NamedTuple):
    """A line that was read with care: what it said of the time, the time, the token counts."""

    line: int
    said: Any
    time: float
    prompt: int
    output: int
    beside: tuple[int, ...] = ()


class Watch(Protocol):
    """Finds something out about a trace while it is read."""

    def see(self, columns: Columns) -> None:
        """Take in a block, each once and in order."""

    def findings(self) -> tuple[str, ...]:
        """Caveats from all blocks so far, a sentence each."""


@dataclass(frozen=True, kw_only=True)
class Clock:
    """How a format counts time.

    Attributes:
        field: Where the arrival time is; "" where a format has no times.
        units_per_s: Times are in so many parts of a second.
        earliest: No time is before it, in these units.
        from_zero: Whether the first arrival becomes time 0.
    """

    field: str
    units_per_s: float = 1.0
    earliest: float = 0.0
    from_zero: bool = True


class LineParser(Protocol):
    """How the lines of a format become requests."""

    @property
    def clock(self) -> Clock: ...

    def quick(self, block: bytes) -> Columns:
        """Parse whole lines; raises ValueError at anything unusual."""

    def careful(self, block: bytes, first_line: int) -> Iterator[Row]:
        """Parse whole lines; raises `InputError` at the first broken one."""


def line_chunks(
    stream: BinaryIO,
    parser: LineParser,
    first_line: int,
    options: ReadOptions,
    file: str,
    watch: Watch | None = None,
    block_tokens: int | None = None,
) -> Iterator[Chunk]:
    """Chunks of the lines that are left in a stream; `watch` sees every block.

    Args:
        block_tokens: What the parser has beside are the ids of prompt blocks of so many tokens.

    Raises:
        InputError: Naming file, line, field, value and what is allowed; or there are no lines.
    """
    origin: float | None = None
    clock, latest = parser.clock, parser.clock.earliest
    for line, block in line_blocks(stream, options.block_bytes, first_line, file):
        columns = _columns(parser, block, line, latest, file)
        if len(columns.times) == 0:
            continue
        failed = (columns.prompts == 0) | (columns.outputs == 0)
        if failed.any() and not options.drop_failed:
            raise _failure(parser, block, line, file)
        if watch is not None:
            watch.see(columns)
        latest = columns.times[-1].item()
        if origin is None:
            origin = columns.times[0].item() if clock.from_zero else 0
        arrived_at_s = (columns.times - origin) / clock.units_per_s
        kept = ~failed
        blocks = None
        if block_tokens:
            blocks = _blocks_of(columns, block_tokens)
            wrong = blocks.misfit(columns.prompts)
            if wrong is not None:
                raise _misfit(parser, block, line, wrong, block_tokens, file)
        yield Chunk(
            arrived_at_s[kept] if clock.field else None,
            columns.prompts[kept],
            columns.outputs[kept],
            dropped=int(failed.sum()),
            blocks=blocks and blocks.kept(kept),
        )
    if origin is None:
        raise InputError("", "no requests", "at least one request", file)


def line_blocks(
    stream: BinaryIO, block_bytes: int, first_line: int, file: str
) -> Iterator[tuple[int, bytes]]:
    """Blocks of whole lines, each with the number of its first line."""
    rest = b""
    while data := stream.read(block_bytes):
        data = rest + data
        end = data.rfind(b"\n") + 1
        if end:
            yield first_line, data[:end]
            first_line += data.count(b"\n", 0, end)
        rest = data[end:]
        if len(rest) > LONGEST_LINE_BYTES:
            raise InputError(f"line {first_line}", f"{len(rest)} bytes", "shorter lines", file)
    if rest:
        yield first_line, rest


def whole_tokens(value: object, place: str, file: str) -> int:
    """A token count ≥ 0 from a text or a JSON number; a failed request has 0 of one kind."""
    text = value.strip() if isinstance(value, str) else str(value)
    if not (text.isascii() and text.isdigit() and len(text) < len(str(MOST_TOKENS))):
        raise InputError(place, value, "whole tokens ≥ 1", file)
    return int(text)


def finite_number(value: object, place: str, unit: str, file: str) -> float:
    """A time ≥ 0 from a JSON number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < LATEST:
        raise InputError(place, value, f"finite {unit} ≥ 0", file)
    return float(value)


def _columns(
    parser: LineParser, block: bytes, first_line: int, latest: float, file: str
) -> Columns:
    try:
        columns = parser.quick(block)
        if columns.usual(latest):
            return columns
    except ValueError:
        pass
    rows = []
    for row in parser.careful(block, first_line):
        if row.time < latest:
            allowed = "sorted times, not before that of the previous line"
            raise InputError(f"line {row.line}: {parser.clock.field}", row.said, allowed, file)
        latest = row.time
        rows.append(row)
    return Columns(
        np.array([row.time for row in rows]),
        np.array([row.prompt for row in rows], dtype=np.int64),
        np.array([row.output for row in rows], dtype=np.int64),
        Ragged.of([row.beside for row in rows]),
    )


def _blocks_of(columns: Columns, block_tokens: int) -> PromptBlocks:
    """Block ids of each prompt; none where one of them is no id, so that nothing is known."""
    ids, counts = columns.beside.values, columns.beside.counts
    owner = np.repeat(np.arange(len(counts)), counts)
    unknown = np.zeros(len(counts), dtype=bool)
    unknown[owner[ids < 0]] = True
    return PromptBlocks(ids[~unknown[owner]], np.where(unknown, 0, counts), block_tokens)


def _misfit(
    parser: LineParser, block: bytes, first_line: int, index: int, block_tokens: int, file: str
) -> InputError:
    row = next(itertools.islice(parser.careful(block, first_line), index, None))
    allowed = fitting(row.prompt, block_tokens)
    return InputError(f"line {row.line}: block ids", f"{len(row.beside)} ids", allowed, file)


def _failure(parser: LineParser, block: bytes, first_line: int, file: str) -> InputError:
    broken = next(r for r in parser.careful(block, first_line) if 0 in (r.prompt, r.output))
    said = f"{broken.prompt} prompt and {broken.output} output tokens"
    return failed_request(f"line {broken.line}", said, file)
