"""Registry of engines that tables are exported to: one file each, one line here."""

from __future__ import annotations

from fluid.errors import not_a_name
from thresholds.export.config import Engine, Value
from thresholds.export.env import ENV
from thresholds.export.sglang import SGLANG
from thresholds.export.trtllm import TRTLLM
from thresholds.export.view import TableView
from thresholds.export.vllm import VLLM
from thresholds.fields import EngineFlags, TableFields

ENGINES: dict[str, Engine] = {one.name: one for one in (VLLM, SGLANG, TRTLLM, ENV)}


def engine_named(name: str, field: str = "engine") -> Engine:
    """The engine of a name.

    Args:
        field: What the caller calls it, for the error.

    Raises:
        InputError: There is none.
    """
    if name not in ENGINES:
        raise not_a_name(field, name, ENGINES)
    return ENGINES[name]


def engine_flags(table: TableFields) -> EngineFlags:
    """The flags that a table carries for the serving systems."""
    view = TableView(table)

    def values(engine: Engine) -> dict[str, Value]:
        return {flag.name: flag.value for flag in engine.of_view(view).flags}

    return EngineFlags(vllm=values(VLLM), sglang=values(SGLANG), trtllm=values(TRTLLM))
