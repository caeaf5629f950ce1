"""JSON documents, read as a stream of events: text and per-token lists never enter memory.

`json` would hold the whole document, several times its size on disk, and Arrow reads JSON by
lines only. ijson parses in C and hands out one value at a time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from fluid.errors import InputError
from fluid.files import read_text
from fluid.parsing import MOST_DEPTH, parse_json
from fluid.traces.lines import finite_number, whole_tokens
from fluid.traces.trace import Chunk, ReadOptions, failed_request, open_bytes

CHUNK_ROWS = 1 << 16
_SCALARS = {"null", "boolean", "integer", "double", "number", "string"}


@contextmanager
def json_stream(path: Path, allowed: str = "one JSON document") -> Iterator[BinaryIO]:
    """A file for ijson; what is not JSON becomes an `InputError`."""
    import ijson

    with open_bytes(path) as stream:
        try:
            yield cast(BinaryIO, _PlainNumbers(stream, _Depth(str(path))))
        except (ijson.JSONError, UnicodeDecodeError) as error:
            problem = " ".join(str(error).split())
            raise InputError("", problem, allowed, str(path)) from None


def json_events(path: Path, several: bool = False) -> Iterator[tuple[str, str, Any]]:
    """Each value of a document: where it is ("benchmarks.item.…"), what kind, and itself.

    Args:
        several: Whether there may be several documents, one after another.
    """
    import ijson

    allowed = "JSON documents, one after another" if several else "one JSON document"
    with json_stream(path, allowed) as stream:
        yield from ijson.parse(stream, use_float=True, multiple_values=several)


def json_records(
    path: Path, wanted: Mapping[str, str], root: str = "", several: bool = False
) -> Iterator[dict[str, Any]]:
    """Some values of each object of a list (`root` "item") or of each document (`root` "").

    Args:
        wanted: Names of the values, by where they are in the object ("info.input_tokens").
    """
    places = {f"{root}.{place}".lstrip("."): name for place, name in wanted.items()}
    record: dict[str, Any] = {}
    for place, event, value in json_events(path, several):
        if place == root and event == "end_map":
            yield record
            record = {}
        elif event in _SCALARS and place in places:
            record[places[place]] = value


def json_document(path: Path) -> dict[str, Any]:
    """A report that is small enough to be read whole.

    Raises:
        InputError: It is no JSON object.
    """
    document = parse_json(read_text(path), str(path))
    if not isinstance(document, dict):
        raise InputError("", type(document).__name__, "one JSON object", str(path))
    return document


def value_at(document: Any, place: str) -> Any:
    """What a document holds at a dotted place, None where there is nothing."""
    for name in place.split("."):
        document = document.get(name) if isinstance(document, dict) else None
    return document


class _PlainNumbers:
    """A stream of JSON in which Python's `Infinity` is the text "inf", and `NaN` is null.

    Some benchmarks write them, and no JSON parser reads them. Behind a `":` they are outside of
    any text, in which the quote would have a backslash.
    """

    _AFTER_NAME = re.compile(rb'(?<=[^\\]":)(\s?)(-?Infinity|NaN)\b')
    _LONGEST = 16

    def __init__(self, stream: BinaryIO, depth: _Depth) -> None:
        self._stream = stream
        self._depth = depth
        self._ready = b""
        self._held = b""

    def read(self, size: int = -1) -> bytes:
        while not self._ready:
            data = self._stream.read(1 << 16)
            self._depth.see(data)
            text = self._held + data
            if b"NaN" in text or b"Infinity" in text:
                text = self._AFTER_NAME.sub(self._plain, text)
            # The end is held back, where a match may have begun.
            cut = max(len(text) - self._LONGEST, 0) if data else len(text)
            self._ready, self._held = text[:cut], text[cut:]
            if not data:
                break
        size = len(self._ready) if size < 0 else size
        given, self._ready = self._ready[:size], self._ready[size:]
        return given

    @staticmethod
    def _plain(match: re.Match[bytes]) -> bytes:
        return match[1] + (b"null" if match[2] == b"NaN" else b'"inf"')


class _Depth:
    """How deep JSON is nested, from its bytes: ijson takes gigabytes before it tells."""

    _PART = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|["\[\]{}]', re.DOTALL)
    _REST = re.compile(rb'[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)

    def __init__(self, file: str) -> None:
        self._file = file
        self._levels = 0
        self._in_text = self._escaped = False

    def see(self, data: bytes) -> None:
        """Take in the next bytes.

        Raises:
            InputError: More levels than any report has.
        """
        start = int(self._escaped)
        if self._in_text:
            rest = self._REST.match(data, start)
            if rest is None:
                self._escaped = _ends_escaped(data[start:])
                return
            self._in_text = self._escaped = False
            start = rest.end()
        for part in self._PART.finditer(data, start):
            one = part[0]
            if one in (b"[", b"{"):
                self._levels += 1
                if self._levels > MOST_DEPTH:
                    allowed = f"at most {MOST_DEPTH} levels"
                    raise InputError("", f"more than {MOST_DEPTH} levels", allowed, self._file)
            elif one in (b"]", b"}"):
                self._levels -= 1
            elif one == b'"':
                self._in_text, self._escaped = True, _ends_escaped(data[part.end() :])
                return


def _ends_escaped(text: bytes) -> bool:
    return (len(text) - len(text.rstrip(b"\\"))) % 2 == 1


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

    def append(self, place: str, prompt: Any, output: Any, failure: Any) -> None:
        """One more request; its start goes to `starts_s` where there is one."""
        self.places.append(place)
        self.prompts.append(prompt)
        self.outputs.append(output)
        self.failures.append("" if failure is None else str(failure))

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
        counts = [
            [
                whole_tokens(_whole(said[one]), f"{self.places[one]}: {kind} tokens", file)
                for one in kept
            ]
            for kind, said in (("prompt", self.prompts), ("output", self.outputs))
        ]
        return np.array(counts[0], dtype=np.int64), np.array(counts[1], dtype=np.int64)


def _whole(value: Any) -> Any:
    """A whole number that was written as 150.0 as 150."""
    return int(value) if isinstance(value, float) and value.is_integer() else value
