"""Every reader of files, driven by broken ones: an `InputError`, or an answer, and nothing else."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from fluid.errors import FluidwaitError
from fluid.files import read_document
from fluid.server import Server
from fluid.traces.registry import TRACE_FORMATS, detect_format
from fluid.traces.trace import ReadOptions, Trace
from fluid.workload import Workload
from tests.fuzz.documents import BROKEN_JSON, BROKEN_YAML, mutated
from tests.support.trace_samples import DATA, SAMPLES, TOKENIZER
from thresholds.table import ThresholdTable
from validation.measure.importers.iteration_csv import read_iteration_csv
from validation.measure.importers.vllm_bench import read_vllm_bench


class Broken(NamedTuple):
    """A file that was a sample of some format before it was broken."""

    name: str
    data: bytes
    format: str


def broken(rng: random.Random) -> Broken:
    """Some sample, or a file that is broken by itself."""
    if rng.random() < 0.1:
        suffix, kinds = rng.choice((("json", BROKEN_JSON), ("yaml", BROKEN_YAML)))
        return Broken(
            f"x.{suffix}", rng.choice(list(kinds.values())), rng.choice(list(TRACE_FORMATS))
        )
    name, format = rng.choice(list(SAMPLES.items()))
    return Broken(name, mutated((DATA / name).read_bytes(), rng), format)


def read_all(one: Broken, folder: Path) -> None:
    """Read it as what it was, as what it looks like, and as each of our own files.

    Raises:
        Exception: Anything but a `FluidwaitError`: a defect.
    """
    path = folder / one.name
    path.write_bytes(one.data)
    readers: list[Callable[[Path], Any]] = [
        lambda file: _read_trace(file, one.format),
        lambda file: _read_trace(file, detect_format(file).name),
        read_document,
        Workload.read,
        Server.read,
        ThresholdTable.read,
        read_iteration_csv,
        read_vllm_bench,
    ]
    for reader in readers:
        try:
            reader(path)
        except FluidwaitError:
            continue


def _read_trace(path: Path, format: str) -> None:
    found = TRACE_FORMATS[format].open(path, ReadOptions(drop_failed=True, tokenizer=TOKENIZER))
    if isinstance(found, Trace):
        for _ in found.chunks:
            pass
