"""Runs iterations of the decoder: launched kernel by kernel, or replayed as CUDA graphs.

A processor needs longer to launch the hundreds of kernels of a small iteration than the device to
run them. So serving engines capture iterations once for each size of batch and replay them with one
launch; batches are padded up to the sizes that are captured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from validation.measure.batch import LENGTH_STEP, Batch, Chunk, make_batch, rounded
from validation.measure.kv_cache import KVCache
from validation.measure.model import Decoder

# mypy: disable-error-code="no-untyped-call"

Step = Callable[[], object]

Size = tuple[int, int, int, tuple[tuple[int, int, int], ...]]
"""Seats, KV tokens that each reads, tokens with padding; of each chunk tokens, start and slot."""

MOST_PREPARED_SEATS, MOST_PREPARED_PROMPTS = 256, 4
"""Larger iterations keep a device busy for longer than their launches take."""


class Runner(Protocol):
    """Computes iterations of a decoder on a cache.

    Attributes:
        launched: How many of them were launched kernel by kernel.
    """

    launched: int

    def run(self, decodes: Sequence[Chunk], prefills: Sequence[Chunk]) -> list[int]:
        """The most likely next token of each request, decodes before prefills."""


class EagerRunner:
    """Launches kernel by kernel."""

    def __init__(self, decoder: Decoder, cache: KVCache) -> None:
        self._decoder, self._cache = decoder, cache
        self.launched = 0

    def run(self, decodes: Sequence[Chunk], prefills: Sequence[Chunk]) -> list[int]:
        """As `Runner.run`."""
        self.launched += 1
        batch = make_batch(self._cache, decodes, prefills).to(self._decoder.device)
        with torch.inference_mode():
            return most_likely(self._decoder(batch, self._cache)).tolist()


@dataclass(frozen=True)
class Captured:
    """An iteration that can be done again on other tokens.

    Attributes:
        batch: On the device; its inputs are to be overwritten.
        found: The next token of each seat and of each chunk, (seats + chunks,).
    """

    batch: Batch
    replay: Step
    found: Tensor


class GraphRunner:
    """Replays iterations of the sizes that were captured, and launches all others.

    A size is the number of seats, the length that they read and the prompts; a chunk that reads
    what its slot holds is tied to that slot.

    Args:
        capture: Makes of a step what does it again, on what lies in the same tensors by then;
            default CUDA graphs.
    """

    def __init__(
        self, decoder: Decoder, cache: KVCache, capture: Callable[[Step], Step] | None = None
    ) -> None:
        self._decoder, self._cache = decoder, cache
        self._capture = capture or CudaCapture()
        self._captured: dict[Size, Captured] = {}
        self.launched = 0

    def run(self, decodes: Sequence[Chunk], prefills: Sequence[Chunk]) -> list[int]:
        """As `Runner.run`."""
        batch = make_batch(self._cache, decodes, prefills, padded=True)
        with torch.inference_mode():
            size = size_of(batch)
            if size and (one := self._captured.get(size)):
                one.batch.inputs.copy_(batch.inputs)
                one.replay()
                found = one.found.tolist()
            else:
                self.launched += 1
                there = batch.to(self._decoder.device)
                found = most_likely(self._decoder(there, self._cache)).tolist()
        return found[: len(decodes)] + found[batch.seats :]

    def capture(self, decodes: Sequence[Chunk], prefills: Sequence[Chunk]) -> None:
        """Capture iterations of this size; overwrites what the slots hold at these places."""
        batch = make_batch(self._cache, decodes, prefills, padded=True)
        size = size_of(batch)
        if size is None or size in self._captured:
            return
        there = batch.to(self._decoder.device)
        found = torch.zeros_like(there.last)
        with torch.inference_mode():
            replay = self._capture(
                lambda: found.copy_(most_likely(self._decoder(there, self._cache)))
            )
        self._captured[size] = Captured(there, replay, found)

    def prepare(self, prompt_tokens: int, longest: int) -> None:
        """Capture what alike requests need: any number of decodes beside none to four prompts.

        Args:
            longest: Tokens that a request holds at most.
        """
        slots, prompt = self._cache.slots, [0] * prompt_tokens
        steps = range(prompt_tokens // LENGTH_STEP + 1, -(-longest // LENGTH_STEP) + 1)
        lengths = [min(LENGTH_STEP * step, longest) for step in steps]
        most = min(slots, MOST_PREPARED_SEATS)
        for prompts in range(min(MOST_PREPARED_PROMPTS, slots) + 1):
            prefills = [Chunk(slots - 1 - index, 0, prompt) for index in range(prompts)]
            if prefills:
                self.capture([], prefills)
            for seats in sorted({min(rounded(count), slots) for count in range(1, most + 1)}):
                for length in lengths:
                    self.capture([Chunk(slot, length - 1, [0]) for slot in range(seats)], prefills)


def size_of(batch: Batch) -> Size | None:
    """What batches have in common that one capture can compute; None for seats out of place."""
    if batch.decode_slots is not None:
        return None
    chunks = tuple(
        (len(one.tokens), one.start, one.slot if one.start else -1) for one in batch.prefills
    )
    return batch.seats, batch.decode_length, batch.width, chunks


class CudaCapture:
    """Captures steps as CUDA graphs that share the memory of what they do not leave behind."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, step: Step) -> Step:
        """Do the step once, as kernels are loaded at their first use, and capture it."""
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            step()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            step()
        return graph.replay


def most_likely(logits: Tensor) -> Tensor:
    """Number of the most likely token of each row, (requests,)."""
    return logits.argmax(dim=-1)
