"""What aiconfigurator itself predicts of a closed loop: its own mean-field schedule."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from validation.servers.gpus import engine_defaults, gpu_named
from validation.servers.tables import find_config, require_tables

if TYPE_CHECKING:
    from tests.benchmarks.silicon import Group

_MODES = {"": None, "fp8": "fp8", "fp8_block": None, "nvfp4": "nvfp4", "int4_wo": "int4_wo"}


@dataclass(frozen=True)
class Peer:
    """The package's model, database and backend of one group; None where it has none."""

    parts: tuple[Any, Any, Any] | None
    budget_tokens: int

    @classmethod
    def of(cls, group: Group) -> Peer:
        """Built as its own tools build it."""
        from aiconfigurator_core.sdk.backends.factory import get_backend
        from aiconfigurator_core.sdk.config_builders import build_model_config
        from aiconfigurator_core.sdk.models import get_model
        from aiconfigurator_core.sdk.perf_database import get_database

        from tests.benchmarks.silicon import MODELS

        model, weights = MODELS.get((group.model, group.numbers), (group.model, group.numbers))
        mode = None if weights is None else _MODES[weights]
        budget = engine_defaults(group.engine, group.gpu, gpu_named(group.gpu).memory_gib)
        try:
            version = require_tables(group.gpu, group.engine)
            config = build_model_config(
                tp_size=group.tp,
                pp_size=1,
                attention_dp_size=1,
                moe_tp_size=group.tp // group.ep,
                moe_ep_size=group.ep,
                gemm_quant_mode=mode,
                moe_quant_mode=mode,
                kvcache_quant_mode="bfloat16",
            )
            parts = (
                get_model(find_config(model).known_as, config, group.engine),
                get_database(group.gpu, group.engine, version),
                get_backend(group.engine),
            )
        except (ValueError, RuntimeError, KeyError):
            return cls(None, 0)
        return cls(parts, budget.max_num_batched_tokens)

    def times_s(self, prompt: int, output: int, clients: int) -> tuple[float, float]:
        """TTFT and TPOT in seconds; NaN where it cannot say."""
        from aiconfigurator_core.sdk.config import RuntimeConfig

        if self.parts is None:
            return math.nan, math.nan
        model, database, backend = self.parts
        asked = RuntimeConfig(batch_size=clients, isl=prompt, osl=output)
        try:
            found = backend.run_agg(model, database, asked, ctx_tokens=self.budget_tokens)
            (row,) = found.get_summary_df().to_dict("records")
        except Exception:  # whatever it raises, it says nothing
            return math.nan, math.nan
        return float(row["ttft"]) / 1e3, float(row["tpot"]) / 1e3
