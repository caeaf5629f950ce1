"""What is kept beside measured rows: which device, model, versions and command they come from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from fluid.files import FileModel, read_document


class RunRecord(FileModel):
    """Provenance of a measured table, written as ``TABLE.json`` beside ``TABLE.csv``.

    Attributes:
        device: The device's own name, e.g. "NVIDIA A100-SXM4-80GB".
        model: Shape and numbers of the model, e.g. "llama-2-7b, float16, random weights".
        command: The command that measured.
        date: ISO date of the measurement.
        versions: Python, torch, CUDA and driver, whichever apply.
        clocks: SM and memory clocks in MHz before and after, where the driver tells.
        kv_capacity_tokens: KV tokens that fit beside weights and activations; None if not measured.
        kv_capacity_how: How that number was found, in words.
        skipped: Batches that did not fit into memory.
    """

    device: str
    model: str
    command: str
    date: str
    versions: dict[str, str]
    clocks: dict[str, str] = Field(default_factory=dict)
    kv_capacity_tokens: Annotated[int, Field(ge=1)] | None = None
    kv_capacity_how: str | None = None
    skipped: tuple[str, ...] = ()

    @property
    def source(self) -> str:
        """One sentence for the `source` of a server file."""
        versions = ", ".join(f"{name} {one}" for name, one in sorted(self.versions.items()))
        return (
            f"{self.model}, measured on {self.device} ({versions}) on {self.date}: {self.command}"
        )


def record_path(table: Path) -> Path:
    """Where the record of a table lies."""
    return table.with_suffix(".json")


def record_beside(table: Path) -> RunRecord | None:
    """The record of a table; None without one, or where a server made of the table has its place.

    Raises:
        InputError: A file that is neither.
    """
    path = record_path(table)
    if not path.is_file():
        return None
    document = read_document(path)
    if isinstance(document, dict) and "iteration_time" in document:
        return None
    return RunRecord.from_document(document, str(path))
