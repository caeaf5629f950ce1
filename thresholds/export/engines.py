"""Registry of engines that tables are exported to: one file each, one line here."""

from __future__ import annotations

from thresholds.export.config import Engine
from thresholds.export.env import ENV
from thresholds.export.sglang import SGLANG
from thresholds.export.trtllm import TRTLLM
from thresholds.export.vllm import VLLM
from thresholds.table import EngineFlags, ThresholdTable

ENGINES: dict[str, Engine] = {one.name: one for one in (VLLM, SGLANG, TRTLLM, ENV)}


def engine_flags(table: ThresholdTable) -> EngineFlags:
    """The flags that a table carries for the serving systems."""

    def values(engine: Engine) -> dict[str, int | float | str]:
        return {flag.name: flag.value for flag in engine.configure(table, None).flags}

    return EngineFlags(vllm=values(VLLM), sglang=values(SGLANG), trtllm=values(TRTLLM))
