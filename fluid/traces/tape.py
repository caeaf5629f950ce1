"""Tapes: recorded arrivals with their lengths, whole in memory."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fluid.errors import InputError
from fluid.traces.prompt_blocks import PromptBlocks, joined
from fluid.traces.trace import Chunk


@dataclass(frozen=True)
class Tape:
    """Requests in order of arrival.

    Attributes:
        arrived_at_s: Arrival times in seconds, non-negative and sorted, shape (n,).
        num_prefill_tokens: Prompt lengths, whole tokens ≥ 1, shape (n,).
        num_decode_tokens: Output lengths, whole tokens ≥ 1, shape (n,).
        blocks: What the prompts are made of, where that is known: for a cache of prefixes.

    Raises:
        InputError: Naming the first array entry that is not allowed, or the first prompt whose
            length its blocks do not fit.

    >>> import numpy as np
    >>> import fluidwait as fw
    >>> tape = fw.Tape(np.array([0.0, 1.0, 4.0]), np.array([512, 64, 512]), np.array([20, 9, 3]))
    >>> tape.rate_per_s
    0.5
    """

    arrived_at_s: NDArray[np.float64]
    num_prefill_tokens: NDArray[np.int64]
    num_decode_tokens: NDArray[np.int64]
    blocks: PromptBlocks | None = None

    def __post_init__(self) -> None:
        shape = np.shape(self.arrived_at_s)
        if len(shape) != 1 or shape[0] == 0:
            raise InputError("arrived_at_s", f"shape {shape}", "one row of at least one request")
        times = np.array(self.arrived_at_s, dtype=float)
        _refuse("arrived_at_s", times, ~np.isfinite(times) | (times < 0), "finite seconds ≥ 0")
        _refuse("arrived_at_s", times, np.diff(times, prepend=times[0]) < 0, "sorted times")
        object.__setattr__(self, "arrived_at_s", times)
        for field in ("num_prefill_tokens", "num_decode_tokens"):
            counts = np.array(getattr(self, field))
            if counts.shape != shape:
                raise InputError(field, f"shape {counts.shape}", f"shape {shape}")
            if not np.issubdtype(counts.dtype, np.integer):
                raise InputError(field, str(counts.dtype), "an array of whole tokens")
            _refuse(field, counts, counts < 1, "whole tokens ≥ 1")
            object.__setattr__(self, field, counts.astype(np.int64))
        if self.blocks is not None:
            self.blocks.require_fit(self.num_prefill_tokens)

    def __len__(self) -> int:
        return len(self.arrived_at_s)

    @property
    def rate_per_s(self) -> float:
        """Arrivals per second: (n − 1) gaps over the time from the first to the last arrival.

        Raises:
            InputError: All requests arrive at one instant, so that there is no rate.
        """
        span_s = float(self.arrived_at_s[-1] - self.arrived_at_s[0])
        if span_s == 0:
            raise InputError("arrived_at", f"{len(self)} at one instant", "arrivals over time")
        return (len(self) - 1) / span_s


def whole_tape(chunks: Iterable[Chunk]) -> Tape:
    """All chunks of a trace as one tape; requests without times come at once, at 0."""
    held = list(chunks)
    times = [
        np.zeros(len(chunk.num_prefill_tokens))
        if chunk.arrived_at_s is None
        else chunk.arrived_at_s
        for chunk in held
    ]
    return Tape(
        np.concatenate(times),
        np.concatenate([chunk.num_prefill_tokens for chunk in held]),
        np.concatenate([chunk.num_decode_tokens for chunk in held]),
        _joined_blocks(held),
    )


def _joined_blocks(held: list[Chunk]) -> PromptBlocks | None:
    """The blocks of all chunks; a chunk without any has none that are known."""
    some = next((chunk.blocks for chunk in held if chunk.blocks is not None), None)
    if some is None or not any(chunk.blocks and len(chunk.blocks.ids) for chunk in held):
        return None
    return joined(
        [
            chunk.blocks
            or PromptBlocks(
                np.empty(0, dtype=np.int64),
                np.zeros(len(chunk.num_prefill_tokens), dtype=np.int64),
                some.block_tokens,
            )
            for chunk in held
        ]
    )


def _refuse(
    field: str,
    values: NDArray[np.float64] | NDArray[np.int64],
    bad: NDArray[np.bool_],
    allowed: str,
) -> None:
    if bad.any():
        index = int(np.argmax(bad))
        raise InputError(f"{field}[{index}]", values[index].item(), allowed)
