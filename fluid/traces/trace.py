"""What a trace reader gives: requests in chunks, so that a trace never has to fit into memory."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from fluid.errors import InputError
from fluid.files import require_readable, unreadable
from fluid.traces.prompt_blocks import PromptBlocks

MOST_TOKENS = 10**9
"""No trace has a longer request; two lengths below it fit into one 64-bit key."""


@dataclass(frozen=True)
class Chunk:
    """Some requests in order of arrival.

    Attributes:
        arrived_at_s: Arrival times in seconds, sorted also across chunks, shape (n,); None in
            every chunk of a trace without times.
        num_prefill_tokens: Prompt lengths, whole tokens ≥ 1, shape (n,).
        num_decode_tokens: Output lengths, whole tokens ≥ 1, shape (n,).
        dropped: Requests left out on the way, where the reader was told to: failed or too long.
        blocks: What their prompts are made of, where the trace tells of some of them.
    """

    arrived_at_s: NDArray[np.float64] | None
    num_prefill_tokens: NDArray[np.int64]
    num_decode_tokens: NDArray[np.int64]
    dropped: int = 0
    blocks: PromptBlocks | None = None


@dataclass(frozen=True)
class ReadOptions:
    """What the user says about a trace beside its path.

    Attributes:
        drop_failed: Leave out failed requests and count them. Otherwise the first one is an error,
            since leaving it out changes the rate.
        tokenizer: A ``tokenizer.json``, for traces of text.
        part: Which part of a file that holds several: the number of a run or benchmark from 1, the
            model of a metrics page, the window of a ServeGen data set.
        since: An earlier scrape of the same metrics page, which is subtracted.
        drop_longer_than: Leave out requests of more prompt and output tokens together than this,
            which a server refuses, and count them.
        block_bytes: How much of the file is held at once, about.
    """

    drop_failed: bool = False
    tokenizer: str | Path | None = None
    part: str | None = None
    since: str | Path | None = None
    drop_longer_than: int | None = None
    block_bytes: int = 1 << 22


ALL_AT_ONCE = "all requests were sent at once: a finite job; its rate is not an arrival rate"
AS_POISSON = "arrivals are taken as Poisson"
NO_TIMES = f"the file has no times: {AS_POISSON}"


def _nothing_found() -> tuple[str, ...]:
    return ()


@dataclass(frozen=True)
class Trace:
    """An opened trace; its chunks can be taken once.

    Attributes:
        timed: Whether requests have arrival times.
        rate_per_s: Arrival rate by the file's own account, for a trace without times.
        said: Caveats that are known from the start.
        finite_job: Whether all requests were sent at once, so that there is no arrival rate; such a
            trace has no times.
        findings: Caveats that reading finds, complete once all chunks are taken.
    """

    chunks: Iterator[Chunk]
    timed: bool = True
    rate_per_s: float | None = None
    said: tuple[str, ...] = ()
    finite_job: bool = False
    findings: Callable[[], tuple[str, ...]] = _nothing_found

    @property
    def caveats(self) -> tuple[str, ...]:
        """What a user must know before trusting the result, a sentence each."""
        return (*self.said, *self.findings())


@contextmanager
def open_bytes(path: str | Path) -> Iterator[BinaryIO]:
    """A file as bytes; ``.gz``, ``.bz2`` and ``.zst`` are decompressed on the way.

    Raises:
        InputError: It cannot be read.
    """
    import pyarrow

    require_readable(path)
    try:
        with pyarrow.input_stream(str(path)) as raw:
            # Arrow's file has all that a buffered reader calls, and is no RawIOBase by name only.
            yield io.BufferedReader(cast(io.RawIOBase, raw))
    except OSError as error:
        raise unreadable(error, path) from None


def failed_request(place: str, value: object, file: str) -> InputError:
    """The error for a request without prompt or output tokens, or with an error on record."""
    allowed = "requests that succeeded; with drop_failed the others are left out and counted"
    return InputError(place, value, allowed, file)
