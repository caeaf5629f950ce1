"""Measure a design of batches on a device, row by row into the shared CSV layout."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from fluid.files import write_text
from validation.measure.batch import Chunk
from validation.measure.design import Composition
from validation.measure.kv_cache import KVCache
from validation.measure.model import Decoder
from validation.measure.runner import EagerRunner, GraphRunner, Runner
from validation.measure.timer import Timer, Timing

HEADER = (
    "prefill_tokens,prefill_context_tokens,decode_batch,decode_context_tokens_total,"
    "iteration_ms,kind,num_prefill_seqs,spread_ms"
)


@dataclass(frozen=True)
class TimedBatch:
    """A batch and how long it took."""

    batch: Composition
    timing: Timing

    def csv(self) -> str:
        """The row under `HEADER`."""
        one = self.batch
        return (
            f"{one.prefills * one.chunk},{one.chunk_context},{one.decodes},"
            f"{one.decodes * one.context},{1e3 * self.timing.median_s:.6g},{one.kind},"
            f"{one.prefills},{1e3 * self.timing.spread_s:.4g}"
        )


@dataclass(frozen=True)
class TimedBatches:
    """What was measured of a design; `skipped` did not fit into memory."""

    rows: tuple[TimedBatch, ...]
    skipped: tuple[Composition, ...]
    interrupted: bool


def measure_batch(
    decoder: Decoder, batch: Composition, timer: Timer, graphs: bool = False
) -> Timing:
    """Time one batch on random tokens, in a cache of its own.

    Args:
        graphs: Replay a CUDA graph, as `GraphRunner`.

    Raises:
        torch.OutOfMemoryError: It does not fit.
    """
    weight = decoder.lm_head.weight
    cache = KVCache(decoder.shape, batch.slots, batch.length, weight.device, weight.dtype)
    rng = np.random.default_rng(0)

    def tokens(count: int) -> list[int]:
        return [int(one) for one in rng.integers(0, decoder.shape.vocabulary, count)]

    decodes = [Chunk(slot, batch.context - 1, tokens(1)) for slot in range(batch.decodes)]
    prefills = [
        Chunk(batch.decodes + index, batch.chunk_context, tokens(batch.chunk))
        for index in range(batch.prefills)
    ]
    runner: Runner = EagerRunner(decoder, cache)
    if graphs:
        runner = GraphRunner(decoder, cache)
        runner.capture(decodes, prefills)
    return timer.time(lambda: runner.run(decodes, prefills), weight.device)


def time_batches(
    decoder: Decoder,
    design: Sequence[Composition],
    out: Path,
    timer: Timer,
    graphs: bool = False,
    on_done: Callable[[], None] = lambda: None,
) -> TimedBatches:
    """Measure the design into `out`, which after every row is a whole table of all rows so far.

    A batch that does not fit is left out and named; Ctrl-C ends the measurement and keeps its rows.

    Raises:
        InputError: `out` cannot be written.
    """
    rows: list[TimedBatch] = []
    skipped: list[Composition] = []
    interrupted = False
    try:
        for batch in design:
            try:
                rows.append(TimedBatch(batch, measure_batch(decoder, batch, timer, graphs)))
            except torch.OutOfMemoryError:
                skipped.append(batch)
                torch.cuda.empty_cache()
            else:
                write_text(out, "\n".join([HEADER, *(row.csv() for row in rows)]) + "\n")
            on_done()
    except KeyboardInterrupt:
        interrupted = True
    return TimedBatches(tuple(rows), tuple(skipped), interrupted)
