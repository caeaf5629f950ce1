"""A decoder at full size, batch by batch, with CUDA graphs and without; and how much KV fits.

Batches are timed twice: replayed from graphs, as serving engines and the closed loop run them, and
launched one kernel at a time. `sweep-MODE.csv` holds all batches as timed in that mode.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from fluid.files import write_document, write_text
from tests.gpu.card import ceilings
from tests.gpu.memory import activation_bytes, allocatable_bytes
from tests.gpu.plan import Reach, reduced_design
from tests.gpu.result import Aim, Cell, Result, Row, Table
from tests.gpu.settings import Settings
from validation.measure.design import Composition
from validation.measure.device import clocks, run_record
from validation.measure.floor import DeviceLimits
from validation.measure.model import Decoder, random_decoder
from validation.measure.record import record_path
from validation.measure.shapes import SHAPES, ModelShape
from validation.measure.timed_batches import HEADER, TimedBatch, measure_batch
from validation.measure.timer import Timer

GRAPHS, EAGER = "graphs", "eager"
FLOOR_RATIO, FLOOR_DECODES = 1.3, 16
"""The aim: decodes from graphs within so much of their floor, from so many decodes on."""

FILLED = 0.95
"""Of the capacity, by the largest batches: the rest is lost between the pieces of memory."""

HOW = "allocated block by block beside the weights, less the activations of the longest prompt"


@dataclass(frozen=True)
class Sizes:
    """What is swept, how carefully, and the most memory that the search for the capacity takes."""

    shape: ModelShape
    dtype: torch.dtype
    reach: Reach
    timer: Timer
    block_bytes: int
    most_bytes: int


REAL = Sizes(
    shape=SHAPES["llama-2-7b"],
    dtype=torch.float16,
    reach=Reach(decodes=256, context=4096, prompt=8192, kv_tokens=0),
    timer=Timer(warm_up=2, repeats=7),
    block_bytes=256 << 20,
    most_bytes=1 << 40,
)
TOY = Sizes(
    shape=SHAPES["tiny"],
    dtype=torch.float32,
    reach=Reach(decodes=8, context=256, prompt=512, kv_tokens=0),
    timer=Timer(warm_up=1, repeats=5, host_clock=time.process_time),
    block_bytes=1 << 20,
    most_bytes=16 << 20,
)


@dataclass(frozen=True)
class Timed:
    """One batch: its rows by mode, and the seconds that the ceilings of the card ask at least."""

    batch: Composition
    rows: Mapping[str, TimedBatch]
    floor_s: float
    trouble: str = ""

    def ratio(self, mode: str) -> float | None:
        """Measured ÷ floor."""
        return self.rows[mode].timing.median_s / self.floor_s if mode in self.rows else None


def measure(settings: Settings) -> Iterator[Result]:
    """The KV capacity first, then the design in random order."""
    sizes = TOY if settings.toy else REAL
    limits, device = ceilings(settings), torch.device(settings.device)
    if settings.toy:
        torch.set_num_threads(1)
    before = clocks(device)
    decoder = random_decoder(sizes.shape, device, sizes.dtype)
    capacity = kv_capacity(decoder, sizes)
    design = reduced_design(replace(sizes.reach, kv_tokens=int(FILLED * capacity)))
    record = run_record(sizes.shape, device, sizes.dtype, "python -m tests.gpu", before)
    record = record.model_copy(update={"kv_capacity_tokens": capacity, "kv_capacity_how": HOW})
    for mode in modes(device):
        table_path(settings.out, mode).unlink(missing_ok=True)
        write_document(record.document(), record_path(table_path(settings.out, mode)))
    timed: list[Timed] = []
    skipped: list[str] = []
    result = summary(timed, skipped, capacity, settings)
    yield result
    for batch in settings.while_time(design):
        try:
            timed.append(timed_batch(decoder, batch, sizes.timer, limits))
        except torch.OutOfMemoryError:
            skipped.append(str(batch))
            torch.cuda.empty_cache()
        write_tables(settings.out, timed, modes(device))
        result = summary(timed, skipped, capacity, settings)
        yield result
    yield result.ended(len(timed) + len(skipped), len(design), "batches")


def modes(device: torch.device) -> tuple[str, ...]:
    """Graphs need CUDA."""
    return (GRAPHS, EAGER) if device.type == "cuda" else (EAGER,)


def table_path(folder: Path, mode: str) -> Path:
    """Where the rows of a mode lie, beside their record."""
    return folder / f"sweep-{mode}.csv"


def kv_capacity(decoder: Decoder, sizes: Sizes) -> int:
    """KV tokens that fit beside the weights and the activations of the longest prompt."""
    taken = allocatable_bytes(decoder.lm_head.weight.device, sizes.block_bytes, sizes.most_bytes)
    needed = activation_bytes(decoder, Composition(prefills=1, chunk=sizes.reach.prompt))
    return int((taken - needed) // kv_bytes_per_token(sizes.shape, sizes.dtype))


def kv_bytes_per_token(shape: ModelShape, dtype: torch.dtype) -> int:
    """Keys and values of one token in all layers."""
    return shape.kv_values_per_token * dtype.itemsize


def timed_batch(decoder: Decoder, batch: Composition, timer: Timer, limits: DeviceLimits) -> Timed:
    """One batch in every mode; a graph that cannot be captured costs its own row only.

    Raises:
        torch.OutOfMemoryError: It does not fit.
    """
    weight = decoder.lm_head.weight
    rows = {EAGER: TimedBatch(batch, measure_batch(decoder, batch, timer))}
    trouble = ""
    if weight.device.type == "cuda":
        # While a graph is captured, memory that is kept for reuse cannot be given back.
        torch.cuda.empty_cache()
        try:
            rows[GRAPHS] = TimedBatch(batch, measure_batch(decoder, batch, timer, graphs=True))
        except RuntimeError as error:
            trouble = f"no graph of {batch}: {str(error).splitlines()[0]}"
    floor = floor_s(decoder.shape, batch, limits, weight.dtype.itemsize)
    return Timed(batch, rows, floor, trouble)


def floor_s(
    shape: ModelShape, batch: Composition, limits: DeviceLimits, bytes_per_value: int
) -> float:
    """The longer of reading all weights and KV once, and of the products of all tokens."""
    kv_tokens = batch.decodes * batch.context + batch.prefills * batch.chunk_context
    weights = shape.weights - shape.vocabulary * shape.hidden
    values = weights + kv_tokens * shape.kv_values_per_token
    return max(
        values * bytes_per_value / limits.bandwidth_bytes_per_s,
        2 * batch.tokens * shape.multiplied_weights / limits.operations_per_s,
    )


def write_tables(folder: Path, timed: Sequence[Timed], wanted: Sequence[str]) -> None:
    """All rows so far, a file for each mode."""
    for mode in wanted if timed else ():
        lines = [HEADER, *(one.rows[mode].csv() for one in timed if mode in one.rows)]
        write_text(table_path(folder, mode), "\n".join(lines) + "\n")


def summary(
    timed: Sequence[Timed], skipped: Sequence[str], capacity: int, settings: Settings
) -> Result:
    """All rows, the capacity, and how far graphs are from the floor."""
    ratios = [
        ratio
        for one in timed
        if one.batch.kind == "decode" and one.batch.decodes >= FLOOR_DECODES
        if (ratio := one.ratio(GRAPHS))
    ]
    worst = max(ratios, default=None)
    aim = Aim(
        f"decodes from graphs ÷ bandwidth floor, worst of ≥ {FLOOR_DECODES} decodes",
        f"≤ {FLOOR_RATIO}",
        worst,
        None if worst is None else settings.met(worst <= FLOOR_RATIO),
    )
    figures: dict[str, Cell] = {"kv_capacity_tokens": capacity, "batches": len(timed)}
    if ratios:
        figures["decode_floor_ratio_mean"] = sum(ratios) / len(ratios)
    rows = tuple(_shown(one) for one in timed)
    return Result(
        "sweep",
        figures=figures,
        tables=(Table("Batches", rows),) if rows else (),
        aims=(aim,),
        notes=(
            f"KV capacity: {HOW}",
            *(f"did not fit: {one}" for one in skipped),
            *(one.trouble for one in timed if one.trouble),
        ),
    )


def _shown(one: Timed) -> Row:
    batch = one.batch
    found: dict[str, Cell] = {
        "kind": batch.kind,
        "decodes": batch.decodes,
        "context": batch.context,
        "prefills": batch.prefills,
        "chunk": batch.chunk,
        "chunk_context": batch.chunk_context,
        "floor_ms": 1e3 * one.floor_s,
    }
    for mode, row in one.rows.items():
        found |= {f"{mode}_ms": 1e3 * row.timing.median_s, f"{mode}_ratio": one.ratio(mode)}
    return found
