"""The CSV that a tape is kept in: what the Vidur simulator reads.

Columns ``arrived_at`` (s), ``num_prefill_tokens`` and ``num_decode_tokens``, one request per row in
order of arrival. Where it is known what the prompts are made of there is one more, such as
``block_ids_of_512_tokens``: ids of the prompt's blocks, separated by spaces. ``cached_tokens``,
what an engine found of each prompt, is read and told in the findings.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fluid.files import replacing
from fluid.traces.csv_lines import Beside, block_column, csv_format, seconds_clock
from fluid.traces.prompt_blocks import PromptBlocks
from fluid.traces.reuse import CachedTokens
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
    beside=Beside(CachedTokens.column, CachedTokens),
    blocks=True,
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
        lengths = (tape.num_prefill_tokens, tape.num_decode_tokens)
        write(Chunk(tape.arrived_at_s, *lengths, blocks=tape.blocks))


@contextmanager
def tape_writer(path: str | Path) -> Iterator[Callable[[Chunk], None]]:
    """A function that appends chunks with times to a tape CSV, which appears when all went well."""
    with replacing(path) as stream:
        headed = False

        def write(chunk: Chunk) -> None:
            nonlocal headed
            if chunk.arrived_at_s is None:
                raise ValueError("a chunk without times")
            if not headed:
                named = (block_column(chunk.blocks.block_tokens),) if chunk.blocks else ()
                stream.write(",".join((*COLUMNS, *named)) + "\n")
                headed = True
            columns = (chunk.arrived_at_s, chunk.num_prefill_tokens, chunk.num_decode_tokens)
            for start in range(0, len(chunk.arrived_at_s), _ROWS_WRITTEN):
                rows = slice(start, start + _ROWS_WRITTEN)
                part = (column[rows].tolist() for column in columns)
                ends = _written(chunk.blocks, rows) if chunk.blocks else itertools.repeat("")
                stream.writelines(
                    f"{time!r},{prompt},{output}{end}\n"
                    for (time, prompt, output), end in zip(
                        zip(*part, strict=True), ends, strict=False
                    )
                )

        yield write


def _written(blocks: PromptBlocks, rows: slice) -> Iterator[str]:
    """The last column of some rows, with the comma before it."""
    for start, count in zip(
        blocks.starts[rows].tolist(), blocks.counts[rows].tolist(), strict=True
    ):
        yield "," + " ".join(map(str, blocks.ids[start : start + count].tolist()))
