"""The CSV that a tape is kept in: what the Vidur simulator reads.

Columns ``arrived_at`` (s), ``num_prefill_tokens`` and ``num_decode_tokens``, one request per row in
order of arrival.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fluid.files import replacing
from fluid.traces.csv_lines import csv_format, seconds_clock
from fluid.traces.tape import Tape, whole_tape
from fluid.traces.trace import Chunk, ReadOptions, Trace

COLUMNS = ("arrived_at", "num_prefill_tokens", "num_decode_tokens")
_ROWS_WRITTEN = 1 << 16

TAPE = csv_format(
    "tape",
    "tape of this toolkit or of Vidur (CSV)",
    seconds_clock(COLUMNS[0], from_zero=False),
    prompt=COLUMNS[1],
    output=COLUMNS[2],
)


def read_tape(path: str | Path) -> Tape:
    """Read a tape CSV whole.

    Raises:
        InputError: Naming file, line, value and what is allowed.
    """
    trace = TAPE.open(Path(path), ReadOptions())
    assert isinstance(trace, Trace)
    return whole_tape(trace.chunks)


def write_tape(tape: Tape, path: str | Path) -> None:
    """Write a tape CSV; times keep full precision, so that reading gives the same tape."""
    with tape_writer(path) as write:
        write(Chunk(tape.arrived_at_s, tape.num_prefill_tokens, tape.num_decode_tokens))


@contextmanager
def tape_writer(path: str | Path) -> Iterator[Callable[[Chunk], None]]:
    """A function that appends chunks with times to a tape CSV, which appears when all went well."""
    with replacing(path) as stream:
        stream.write(",".join(COLUMNS) + "\n")

        def write(chunk: Chunk) -> None:
            if chunk.arrived_at_s is None:
                raise ValueError("a chunk without times")
            columns = (chunk.arrived_at_s, chunk.num_prefill_tokens, chunk.num_decode_tokens)
            for start in range(0, len(chunk.arrived_at_s), _ROWS_WRITTEN):
                part = (column[start : start + _ROWS_WRITTEN].tolist() for column in columns)
                stream.writelines(
                    f"{time!r},{prompt},{output}\n"
                    for time, prompt, output in zip(*part, strict=True)
                )

        yield write
