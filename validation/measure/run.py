"""A measurement from end to end: a design of batches timed into a table, with its record."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fluid.files import require_output, write_document
from fluid.result import Block, Note, Result
from validation.measure.design import BatchDesign
from validation.measure.device import clocks, run_record
from validation.measure.record import RunRecord, record_path
from validation.measure.target import Target
from validation.measure.timed_batches import TimedBatches, time_batches
from validation.measure.timer import Timer


@dataclass(frozen=True, repr=False)
class MeasurementRun(Result):
    """Timed batches and what must be known to time them again.

    Attributes:
        planned: Batches of the design.
    """

    timed: TimedBatches
    planned: int
    record: RunRecord

    @property
    def is_interrupted(self) -> bool:
        """Whether Ctrl-C ended it; the batches so far are kept."""
        return self.timed.interrupted

    def blocks(self) -> Iterable[Block]:
        """What did not fit, and how many batches were measured."""
        for one in self.timed.skipped:
            yield Note(f"did not fit into memory: {one}")
        yield f"{len(self.timed.rows)} of {self.planned} batches measured on {self.record.device}."

    def document(self) -> dict[str, Any]:
        """The number of rows and the record."""
        counts = {"rows": len(self.timed.rows), "interrupted": self.timed.interrupted}
        return counts | self.record.document()

    def frame(self) -> dict[str, list[Any]]:
        """A row per batch: what it consisted of, median and spread in seconds."""
        batches = [one.batch for one in self.timed.rows]
        return {
            "kind": [one.kind for one in batches],
            "decodes": [one.decodes for one in batches],
            "context": [one.context for one in batches],
            "prefills": [one.prefills for one in batches],
            "chunk": [one.chunk for one in batches],
            "chunk_context": [one.chunk_context for one in batches],
            "iteration_s": [one.timing.median_s for one in self.timed.rows],
            "spread_s": [one.timing.spread_s for one in self.timed.rows],
        }


def measure_batches(
    target: Target,
    design: BatchDesign,
    out: str | Path,
    timer: Timer | None = None,
    *,
    cuda_graphs: bool = False,
    command: str = "",
    on_done: Callable[[], None] = lambda: None,
) -> MeasurementRun:
    """Time a design of batches into the table `out`, and write the record beside it.

    Args:
        cuda_graphs: Replay batches as CUDA graphs.
        command: What is told of how this was measured.
        on_done: Called after each batch.

    Raises:
        InputError: Graphs without CUDA, a checkpoint of another shape, or an `out` that cannot be
            written.
    """
    out = Path(out)
    require_output(out)
    if cuda_graphs:
        target.require_cuda_graphs()
    before = clocks(target.device)
    batches = design.batches()
    timer = timer or Timer()
    timed = time_batches(target.decoder(), batches, out, timer, cuda_graphs, on_done)
    skipped = tuple(str(one) for one in timed.skipped)
    record = run_record(
        target.shape, target.device, target.dtype, command, before, skipped, target.weights
    )
    write_document(record.document(), record_path(out))
    return MeasurementRun(timed, len(batches), record)
