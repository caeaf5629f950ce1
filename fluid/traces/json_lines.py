"""Traces of one flat JSON object per line: arrival time, token counts, ids of prompt blocks."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fluid.errors import InputError
from fluid.traces.lines import (
    Clock,
    Columns,
    Ragged,
    Row,
    finite_number,
    line_chunks,
    whole_tokens,
)
from fluid.traces.reuse import UNREADABLE, Reuse
from fluid.traces.trace import ReadOptions, Trace, open_bytes
from fluid.traces.trace_format import TraceFormat

PROMPT, OUTPUT, BLOCKS = "input_length", "output_length", "hash_ids"


def json_lines_format(
    name: str,
    summary: str,
    clock: Clock,
    unit: str,
    block_tokens: int,
    detect: Callable[[set[str]], bool],
) -> TraceFormat:
    """A format of objects with a clock, `input_length`, `output_length` and perhaps `hash_ids`.

    Args:
        unit: What the clock counts, in words.
        block_tokens: Prompt tokens that one of `hash_ids` stands for.
        detect: Whether an object with these fields is of this format.
    """

    def detect_head(head: str) -> bool:
        fields = _first_fields(head)
        return {clock.field, PROMPT, OUTPUT} <= fields and detect(fields)

    def open_lines(path: Path, options: ReadOptions) -> Trace:
        reuse = Reuse(block_tokens)

        def chunks() -> Iterator[Any]:
            with open_bytes(path) as stream:
                parser = JsonLinesParser(str(path), clock, unit)
                yield from line_chunks(stream, parser, 1, options, str(path), reuse, block_tokens)

        return Trace(chunks(), findings=reuse.findings)

    return TraceFormat(name, summary, detect_head, open_lines)


def _first_fields(head: str) -> set[str]:
    """Names of the fields in the first line, which may be longer than the beginning at hand."""
    first = head.partition("\n")[0]
    return set(re.findall(r'"(\w+)"\s*:', first)) if first.startswith("{") else set()


@dataclass(frozen=True)
class JsonLinesParser:
    """See `fluid.traces.lines.LineParser`."""

    file: str
    clock: Clock
    unit: str

    def quick(self, block: bytes) -> Columns:
        import pyarrow
        from pyarrow import json as arrow_json

        if not block[:64].lstrip().startswith(b"{"):
            raise ValueError("no object")  # pyarrow 26 crashes where the first row is null
        types = {
            self.clock.field: pyarrow.float64(),
            PROMPT: pyarrow.int64(),
            OUTPUT: pyarrow.int64(),
            BLOCKS: pyarrow.list_(pyarrow.int64()),
        }
        table = arrow_json.read_json(
            pyarrow.BufferReader(block),
            arrow_json.ReadOptions(use_threads=False, block_size=len(block) + 1),
            arrow_json.ParseOptions(
                explicit_schema=pyarrow.schema(list(types.items())),
                unexpected_field_behavior="ignore",
            ),
        )
        lines = block.count(b"\n") + (not block.endswith(b"\n"))
        numbers = [table[field] for field in (self.clock.field, PROMPT, OUTPUT)]
        blocks = table[BLOCKS].combine_chunks()
        if len(table) != lines or any(one.null_count for one in (*numbers, blocks.flatten())):
            raise ValueError("a line without its request, or a field is missing")
        counts = np.asarray(blocks.value_lengths().fill_null(0), dtype=np.int64)
        beside = Ragged(np.asarray(blocks.flatten()), counts)
        times, prompts, outputs = (np.asarray(column) for column in numbers)
        return Columns(times, prompts, outputs, beside)

    def careful(self, block: bytes, first_line: int) -> Iterator[Row]:
        for line, text in enumerate(block.splitlines(), first_line):
            if not text.strip():
                continue
            request = self._request(text, line)
            said = request.get(self.clock.field)
            yield Row(
                line,
                said,
                finite_number(said, f"line {line}: {self.clock.field}", self.unit, self.file),
                whole_tokens(request.get(PROMPT), f"line {line}: {PROMPT}", self.file),
                whole_tokens(request.get(OUTPUT), f"line {line}: {OUTPUT}", self.file),
                _blocks(request.get(BLOCKS)),
            )

    def _request(self, text: bytes, line: int) -> dict[str, Any]:
        try:
            request = json.loads(text)
        except (ValueError, RecursionError):
            request = None
        if not isinstance(request, dict):
            shown = text.decode("utf-8", "replace")
            raise InputError(f"line {line}", shown, "one JSON object per line", self.file)
        return request


def _blocks(ids: object) -> tuple[int, ...]:
    """Block ids as the file has them; `UNREADABLE` alone for anything but whole numbers."""
    if ids is None:
        return ()
    if not isinstance(ids, list) or any(type(one) is not int for one in ids):
        return (UNREADABLE,)
    return tuple(one if abs(one) < 1 << 62 else UNREADABLE for one in ids)
