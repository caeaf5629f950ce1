"""Leaves out the requests that a server refuses because they are longer than its memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from fluid.errors import InputError
from fluid.traces.trace import Chunk, Trace


def without_longer(trace: Trace, most_tokens: int) -> Trace:
    """A trace without the requests of more prompt and output tokens than `most_tokens`.

    They are counted as dropped, and a caveat tells of them.

    Raises:
        InputError: `most_tokens` is below 2, the shortest request.
    """
    if most_tokens < 2:
        raise InputError("drop_longer_than", most_tokens, "at least 2 tokens")
    sieve = _Sieve(most_tokens)
    return replace(
        trace,
        chunks=sieve.kept(trace.chunks),
        findings=lambda: (*trace.findings(), *sieve.findings()),
    )


class _Sieve:
    def __init__(self, most_tokens: int) -> None:
        self._most_tokens = most_tokens
        self._left_out = 0
        self._longest = 0

    def kept(self, chunks: Iterator[Chunk]) -> Iterator[Chunk]:
        for chunk in chunks:
            lengths = chunk.num_prefill_tokens + chunk.num_decode_tokens
            fitting = lengths <= self._most_tokens
            left_out = int((~fitting).sum())
            self._left_out += left_out
            self._longest = max(self._longest, int(lengths.max(initial=0)))
            yield Chunk(
                None if chunk.arrived_at_s is None else chunk.arrived_at_s[fitting],
                chunk.num_prefill_tokens[fitting],
                chunk.num_decode_tokens[fitting],
                chunk.dropped + left_out,
                chunk.blocks and chunk.blocks.kept(fitting),
            )

    def findings(self) -> tuple[str, ...]:
        if not self._left_out:
            return ()
        requests = "request" if self._left_out == 1 else "requests"
        return (
            f"{self._left_out:,} {requests} of more than {self._most_tokens:,} tokens left out, the"
            f" longest of {self._longest:,}, as a server does that cannot hold them; the rate is"
            " without",
        )
