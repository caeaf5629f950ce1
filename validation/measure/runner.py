"""Runs iterations of the decoder: launched kernel by kernel, or replayed from CUDA graphs.

A processor needs longer to launch the thousand kernels of a small iteration than the device to run
them. So serving engines capture them once for each size of batch and replay them with one launch;
batches are padded up to the sizes that are captured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from validation.measure.attention import BatchAttention
from validation.measure.batch import LENGTH_STEP, Batch, Chunk, make_batch, rounded
from validation.measure.kv_cache import KVCache
from validation.measure.model import Decoder

# mypy: disable-error-code="no-untyped-call"

Step = Callable[[], object]

MOST_CAPTURED_TOKENS = 512
"""Longer batches keep a device busy for longer than their launches take."""


class Runner(Protocol):
    """Computes iterations of a decoder on a cache."""

    def run(self, decodes: Sequence[Chunk], prefills: Sequence[Chunk]) -> list[int]:
        """The most likely next token of each request, decodes before prefills."""


class EagerRunner:
    """Launches kernel by kernel."""

    def __init__(self, decoder: Decoder, cache: KVCache) -> None:
        self._decoder, self._cache = decoder, cache

    def run(self, decodes: Sequence[Chunk], prefills: Sequence[Chunk]) -> list[int]:
        """As `Runner.run`."""
        batch = make_batch(self._cache, decodes, prefills).to(self._decoder.device)
        with torch.inference_mode():
            return most_likely(self._decoder(batch, self._cache)).tolist()


class GraphRunner:
    """Replays what it captures when a size of batch is first seen.

    Decodes alone are one graph for each number of seats and length. In batches with prompts the
    products are graphs, for each number of tokens, and the attention between them is launched: its
    sizes are too many. Batches of more than `MOST_CAPTURED_TOKENS` are launched kernel by kernel.

    Args:
        capture: Makes of a step what does it again, on what lies in the same buffers by then;
            default CUDA graphs.
    """

    def __init__(
        self, decoder: Decoder, cache: KVCache, capture: Callable[[Step], Step] | None = None
    ) -> None:
        self._decoder, self._cache = decoder, cache
        self._capture = capture or CudaCapture()
        self._space = decoder.workspace(MOST_CAPTURED_TOKENS)
        self._everyone = torch.arange(MOST_CAPTURED_TOKENS, device=decoder.device)
        self._found = torch.zeros_like(self._everyone)
        self._inputs = self._everyone.new_zeros((3, MOST_CAPTURED_TOKENS))
        self._decodes: dict[tuple[int, int], Step] = {}
        self._products: dict[int, list[Step]] = {}

    def run(self, decodes: Sequence[Chunk], prefills: Sequence[Chunk]) -> list[int]:
        """As `Runner.run`."""
        batch = make_batch(self._cache, decodes, prefills, padded=True)
        with torch.inference_mode():
            if batch.width > MOST_CAPTURED_TOKENS:
                found = most_likely(self._decoder(batch.to(self._decoder.device), self._cache))
            elif prefills or batch.decode_slots is not None:
                found = self._launch_attention(self._laid(batch))
            else:
                found = self._replay_decodes(self._laid(batch))[: len(decodes)]
            return found.tolist()

    def prepare(self, prompt_tokens: int, longest: int) -> None:
        """Capture what requests of one prompt length will need, alone and beside one prompt.

        Overwrites what the cache holds.

        Args:
            longest: Tokens that a request holds at most.
        """
        slots, prompt = self._cache.slots, Chunk(self._cache.slots - 1, 0, [0] * prompt_tokens)
        self.run([], [prompt])
        steps = range(prompt_tokens // LENGTH_STEP + 1, -(-longest // LENGTH_STEP) + 1)
        lengths = [min(LENGTH_STEP * step, longest) for step in steps]
        most = min(slots, MOST_CAPTURED_TOKENS)
        for seats in sorted({min(rounded(count), slots) for count in range(1, most + 1)}):
            for length in lengths:
                decodes = [Chunk(slot, length - 1, [0]) for slot in range(seats)]
                self.run(decodes, [])
                if seats < slots:
                    self.run(decodes, [prompt])

    def _laid(self, batch: Batch) -> Batch:
        return batch.laid_in(self._inputs[:, : batch.width])

    def _replay_decodes(self, batch: Batch) -> Tensor:
        """Next tokens of all seats, (seats,)."""
        found = self._found[: batch.seats]
        key = batch.seats, batch.decode_length
        if key not in self._decodes:
            whole = replace(batch, last=self._everyone[: batch.seats])
            space = self._space.first(batch.width)
            self._decodes[key] = self._capture(
                lambda: found.copy_(most_likely(self._decoder(whole, self._cache, space)))
            )
        self._decodes[key]()
        return found

    def _launch_attention(self, batch: Batch) -> Tensor:
        """Next tokens of all requests, (requests,)."""
        decoder, space = self._decoder, self._space.first(batch.width)
        if batch.width not in self._products:
            self._products[batch.width] = [
                self._capture(partial(decoder.product, index, batch, self._cache, space))
                for index in range(decoder.shape.layers + 1)
            ]
        *products, last = self._products[batch.width]
        attend = BatchAttention(decoder.shape, batch, self._cache)
        for layer, product in enumerate(products):
            product()
            attend(layer, space.query, space.mixed)
        last()
        return most_likely(decoder.head(space, batch.last))


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
