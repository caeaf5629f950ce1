"""JSON documents, read as a stream of events: text and per-token lists never enter memory.

`json` would hold the whole document, several times its size on disk, and Arrow reads JSON by
lines only. ijson parses in C and hands out one value at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from fluid.errors import InputError
from fluid.traces.lines import finite_number, whole_tokens
from fluid.traces.trace import Chunk, ReadOptions, failed_request, open_bytes

CHUNK_ROWS = 1 << 16


@contextmanager
def json_stream(path: Path) -> Iterator[BinaryIO]:
    """A file for ijson; what is not one JSON document becomes an `InputError`."""
    import ijson

    with open_bytes(path) as stream:
        try:
            yield stream
        except ijson.JSONError as error:
            problem = " ".join(str(error).split())
            raise InputError("", problem, "one JSON document", str(path)) from None


def json_events(path: Path) -> Iterator[tuple[str, str, Any]]:
    """Each value of a document: where it is ("benchmarks.item.…"), what kind, and itself."""
    import ijson

    with json_stream(path) as stream:
        yield from ijson.parse(stream, use_float=True)


@dataclass
class RequestRows:
    """Requests of a document, which are few enough to keep their numbers, if not their text.

    Attributes:
        places: How to name each to the user.
        starts_s: When each was sent, or empty where the file does not say.
        failures: Why each failed, "" where it did not.
    """

    places: list[str] = field(default_factory=list)
    starts_s: list[Any] = field(default_factory=list)
    prompts: list[Any] = field(default_factory=list)
    outputs: list[Any] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def chunks(self, options: ReadOptions, file: str) -> Iterator[Chunk]:
        """Checked and sorted by time, which starts at 0.

        Raises:
            InputError: A broken value; a failed request, unless they are to be dropped.
        """
        if not self.places:
            raise InputError("", "no requests", "at least one request", file)
        kept = [index for index in range(len(self.places)) if self._succeeded(index, options, file)]
        prompts, outputs = self._tokens(kept, file)
        times = None
        if self.starts_s:
            starts = np.array(
                [
                    finite_number(self.starts_s[one], f"{self.places[one]}: start", "seconds", file)
                    for one in kept
                ]
            )
            order = np.argsort(starts, kind="stable")
            times = starts[order] - starts.min(initial=np.inf)
            prompts, outputs = prompts[order], outputs[order]
        dropped = len(self.places) - len(kept)
        for first in range(0, max(len(kept), 1), CHUNK_ROWS):
            part = slice(first, first + CHUNK_ROWS)
            yield Chunk(
                None if times is None else times[part], prompts[part], outputs[part], dropped
            )
            dropped = 0

    def _succeeded(self, index: int, options: ReadOptions, file: str) -> bool:
        reason = self.failures[index]
        if not reason and 0 in (self.prompts[index], self.outputs[index]):
            reason = f"{self.prompts[index]} prompt and {self.outputs[index]} output tokens"
        if reason and not options.drop_failed:
            raise failed_request(self.places[index], reason, file)
        return not reason

    def _tokens(self, kept: Sequence[int], file: str) -> tuple[Any, Any]:
        prompts = [
            whole_tokens(self.prompts[one], f"{self.places[one]}: prompt tokens", file)
            for one in kept
        ]
        outputs = [
            whole_tokens(self.outputs[one], f"{self.places[one]}: output tokens", file)
            for one in kept
        ]
        return np.array(prompts, dtype=np.int64), np.array(outputs, dtype=np.int64)
