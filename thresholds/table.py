"""The threshold table: what a solver found, for which load and server, and how sure it is.

A table is one JSON document with a published JSON Schema (`thresholds.json_schemas`). It holds the
whole workload and server and their hashes, so that it can be checked and replayed on its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from fluid.errors import InputError
from fluid.files import read_document, write_document
from fluid.result import Block, Result
from thresholds.export.config import EngineConfig
from thresholds.export.engines import engine_named
from thresholds.fields import SCHEMA_VERSION, TableFields
from thresholds.integrity import (
    require_known_version,
    require_whole,
    whole_sha256,
)
from thresholds.table_text import table_blocks

if TYPE_CHECKING:
    from fluid.plots.style import Panels


class ThresholdTable(Result, TableFields):
    """A threshold table, as `thresholds.solve` makes it; its fields are those of its document.

    >>> import fluidwait as fw
    >>> load = fw.Workload.of(chat=fw.Requests(2.0, prompt=512, output=100))
    >>> table = fw.solve(load, fw.Server.named("engine-long-decode"))
    >>> table.policy, table.limits.watermark_fraction
    ('paced', 0.01)
    >>> table.frame()["name"]
    ['chat']
    """

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Read a table of schema 1.0 or later and check it.

        Raises:
            InputError: Naming file and field: unknown major version, missing or wrong field, a
                value out of range, parts that do not belong together, or a hash or a certificate
                that does not follow from what is beside it.
        """
        file, document = str(path), read_document(path)
        require_known_version("schema_version", document, SCHEMA_VERSION, file)
        table = cls.from_document(document, file)
        require_whole(table, document, file)
        return table

    def write(self, path: str | Path) -> None:
        """Write the table as JSON, whole or not at all.

        Raises:
            InputError: The folder is missing or not writable.
        """
        write_document(self.document(), path)

    def flags(
        self, engine: str, file: str | None = None, *, flags_only: bool = False
    ) -> EngineConfig:
        """What to set in a serving system, each flag with its reason, and what none of them says.

        Args:
            engine: "vllm", "sglang", "trtllm", or "env" for shell variables.
            file: Where this table lies, for engines that read it themselves.
            flags_only: For an engine without our scheduler class.

        Raises:
            InputError: Another engine, or `flags_only` of one that has no class anyway.

        >>> import fluidwait as fw
        >>> load = fw.Workload.of(report=fw.Requests(1.0, prompt=512, output=1000))
        >>> table = fw.solve(load, fw.Server.named("engine-long-decode"))
        >>> [table.flags("vllm", flags_only=only).flags[0].value for only in (False, True)]
        [270, 120]
        """
        return engine_named(engine).configure(self, file, flags_only=flags_only)

    def blocks(self) -> Iterator[Block]:
        """What to set, why, and when not to trust it."""
        return table_blocks(self)

    def document(self) -> dict[str, Any]:
        """Plain data with every field, null where absent.

        Workload and server are written as in their own files, so that the hash of either part of
        the document is the hash beside it. It follows the schema of today, also where the table was
        read from an earlier one.
        """
        parts = {"workload": self.workload.document(), "server": self.server.document()}
        document = self.model_dump(mode="json") | parts | {"schema_version": SCHEMA_VERSION}
        return document | {"table_sha256": whole_sha256(document, "table_sha256")}

    def frame(self) -> dict[str, list[Any]]:
        """The thresholds, one row each: name, threshold, and the segment's end if it has one."""
        return {
            "name": [one.name for one in self.thresholds],
            "threshold": [one.threshold for one in self.thresholds],
            "up_to_tokens": [one.up_to_tokens for one in self.thresholds],
        }

    def plot(self, ax: Panels | None = None) -> Panels:
        """What the table was validated with, side by side: mean latency and completed share.

        Args:
            ax: Two axes, or None for a new figure.

        Raises:
            InputError: The table is not validated.
        """
        from thresholds.validated_picture import draw_validated

        if self.validated is None:
            raise InputError("validated", None, "a table with a simulation: replay it first")
        own, *others = self.validated.side_by_side
        named = {f"this table ({self.policy})": own} | {one.label: one for one in others}
        return draw_validated(named, ax)
