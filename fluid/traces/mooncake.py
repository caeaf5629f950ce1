"""Reader of Mooncake traces (kvcache-ai/Mooncake), a JSON object per line.

Fields: `timestamp` (ms), `input_length`, `output_length`. Others, such as the prefix cache's
`hash_ids`, are not read. The first arrival becomes time 0.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fluid.errors import InputError
from fluid.traces.lines import Clock, Columns, Row, finite_number, line_chunks, whole_tokens
from fluid.traces.trace import Chunk, ReadOptions, Trace, open_bytes
from fluid.traces.trace_format import TraceFormat

FIELDS = ("timestamp", "input_length", "output_length")
MILLISECONDS = Clock(field=FIELDS[0], units_per_s=1000)


def _detect(head: str) -> bool:
    first = head.partition("\n")[0]
    return first.startswith("{") and all(f'"{field}"' in first for field in FIELDS)


def _open(path: Path, options: ReadOptions) -> Trace:
    return Trace(_chunks(path, options))


def _chunks(path: Path, options: ReadOptions) -> Iterator[Chunk]:
    with open_bytes(path) as stream:
        yield from line_chunks(stream, MooncakeParser(str(path)), 1, options, str(path))


MOONCAKE = TraceFormat("mooncake", "Mooncake trace (JSON lines)", _detect, _open)


@dataclass(frozen=True)
class MooncakeParser:
    """See `fluid.traces.lines.LineParser`."""

    file: str
    clock: Clock = MILLISECONDS

    def quick(self, block: bytes) -> Columns:
        import pyarrow
        from pyarrow import json as arrow_json

        if not block[:64].lstrip().startswith(b"{"):
            raise ValueError("no object")  # pyarrow 26 crashes where the first row is null
        types = (pyarrow.float64(), pyarrow.int64(), pyarrow.int64())
        table = arrow_json.read_json(
            pyarrow.BufferReader(block),
            arrow_json.ReadOptions(use_threads=False, block_size=len(block) + 1),
            arrow_json.ParseOptions(
                explicit_schema=pyarrow.schema(list(zip(FIELDS, types, strict=True))),
                unexpected_field_behavior="ignore",
            ),
        )
        lines = block.count(b"\n") + (not block.endswith(b"\n"))
        if len(table) != lines or any(column.null_count for column in table.columns):
            raise ValueError("a line without its request, or a field is missing")
        return Columns(*(np.asarray(table[field]) for field in FIELDS))

    def careful(self, block: bytes, first_line: int) -> Iterator[Row]:
        for line, text in enumerate(block.splitlines(), first_line):
            if not text.strip():
                continue
            request = self._request(text, line)
            said, prompt, output = (request.get(field) for field in FIELDS)
            yield Row(
                line,
                said,
                finite_number(said, f"line {line}: {FIELDS[0]}", "milliseconds", self.file),
                whole_tokens(prompt, f"line {line}: {FIELDS[1]}", self.file),
                whole_tokens(output, f"line {line}: {FIELDS[2]}", self.file),
            )

    def _request(self, text: bytes, line: int) -> dict[str, Any]:
        try:
            request = json.loads(text)
        except ValueError:
            request = None
        if not isinstance(request, dict):
            shown = text.decode("utf-8", "replace")
            raise InputError(f"line {line}", shown, "one JSON object per line", self.file)
        return request
